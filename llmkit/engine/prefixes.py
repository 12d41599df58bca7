"""Prompt prefixes: who goes ahead and who waits, so that a vendor's prompt cache is written once and read by all the others.

An entry of such a cache can be read once the answer to the request that wrote it has begun, so requests that set out together all write it.
Hence the first of a prefix goes alone, and the rest of that prefix wait for its answer while other prefixes go on. Who is ahead holds
nobody up by failing: then the next one goes.

``Prefixes`` is what an account's requests have taught, for all runs; ``Turns`` is one run's tickets that wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from ..adapter import Kept
from ..event_loop import Clock
from .retry import Ticket

__all__ = ["Flight", "Prefixes", "Turns"]

#: Prefixes remembered for an account; beyond, those that nobody uses any more are forgotten.
_REMEMBERED = 4096

_NEVER = float("-inf")


@dataclass(slots=True)
class _Prefix:
    #: Until when the vendor surely keeps it.
    until: float = _NEVER
    #: When a request with it last set out, and how long that counts.
    asked: float = _NEVER
    #: A request that writes it is on its way.
    flying: bool = False
    #: The ticket that is about to.
    claimed: Ticket | None = None
    #: Called once when the one ahead is through, whatever came of it.
    waiting: list[Callable[[], None]] = field(default_factory=list)

    @property
    def idle(self) -> bool:
        return not self.flying and self.claimed is None and not self.waiting

    def free(self) -> None:
        """The one ahead is through."""
        waiting, self.waiting = self.waiting, []
        for call in waiting:
            call()


class Prefixes:
    """What the vendor's cache holds of one account, as far as this process's own requests tell."""

    def __init__(self) -> None:
        self._known: dict[bytes, _Prefix] = {}

    def of(self, digest: bytes, now: float) -> _Prefix:
        found = self._known.get(digest)
        if found is None:
            if len(self._known) >= _REMEMBERED:
                self._forget(now)
            found = self._known[digest] = _Prefix()
        return found

    def _forget(self, now: float) -> None:
        """Drop what has run out, and where that is little, the older half."""
        kept = {digest: one for digest, one in self._known.items() if not (one.idle and one.until <= now)}
        if len(kept) > _REMEMBERED // 2:
            older = list(kept.items())[: len(kept) // 2]
            kept = {digest: one for digest, one in older if not one.idle} | dict(list(kept.items())[len(kept) // 2 :])
        self._known = kept


class Flight:
    """One request on its way, and which prefixes it is marked with. ``end`` has to be called, whatever becomes of it."""

    __slots__ = ("_began", "_kept", "_read", "_written", "marks")

    def __init__(self, kept: Kept, began: float, marks: list[bytes], read: list[_Prefix], written: list[_Prefix]) -> None:
        self._kept = kept
        self._began = began
        self._read = read
        self._written = written
        #: Digests of the prefixes to mark; all others go as they are.
        self.marks = marks

    def end(self, answered: bool) -> None:
        until = self._began + self._kept.seconds  # vendors count from the beginning of a request
        if answered and self._kept.renewed:
            for one in self._read:
                one.until = max(one.until, until)
        for one in self._written:
            one.flying, one.claimed = False, None
            if answered:
                one.until = max(one.until, until)
            one.free()


def _land(landed: asyncio.Future[None]) -> None:
    if not landed.done():
        landed.set_result(None)


class Turns:
    """One run's tickets, each in its turn.

    Parameters
    ----------
    known : Prefixes
        The account's.
    back : callable
        ``back(tickets)``: these need wait no longer.
    """

    def __init__(self, known: Prefixes, clock: Clock, back: Callable[[Sequence[Ticket]], None]) -> None:
        self._known = known
        self._clock = clock
        self._back = back
        self._parked: dict[bytes, deque[Ticket]] = {}
        self._counted: dict[bytes, int] = {}
        #: Tickets that wait here.
        self.parked = 0
        #: Whether every ticket of the run was counted.
        self.complete = False

    def count(self, ticket: Ticket) -> None:
        """Take note of a ticket that is going to be sent: a prefix that only one has is not worth its mark."""
        assert ticket.kept is not None
        for digest, _ in ticket.kept.levels:
            if digest in self._counted or len(self._counted) < _REMEMBERED:
                self._counted[digest] = self._counted.get(digest, 0) + 1

    def lets(self, ticket: Ticket) -> bool:
        """Whether the ticket may set out now. If not, it waits here and comes ``back``; if so, ``through`` is called in the end."""
        kept = ticket.kept
        assert kept is not None
        if not kept.seconds:
            return True
        now = self._clock.now()
        cold = []
        for digest, _ in kept.levels:
            one = self._known.of(digest, now)
            if one.until > now:
                continue
            if one.flying or not (one.claimed is None or one.claimed is ticket):
                self._park(ticket, digest, one)
                return False
            cold.append(one)
        for one in cold:
            one.claimed = ticket
        return True

    def _park(self, ticket: Ticket, digest: bytes, one: _Prefix) -> None:
        if digest not in self._parked:
            self._parked[digest] = deque()
            one.waiting.append(lambda: self._free(digest))
        self._parked[digest].append(ticket)
        self.parked += 1

    def _free(self, digest: bytes) -> None:
        tickets = self._parked.pop(digest, ())
        self.parked -= len(tickets)
        if tickets:
            self._back(tickets)

    def clear(self) -> list[Ticket]:
        """All that wait, for good."""
        tickets = [ticket for parked in self._parked.values() for ticket in parked]
        self._parked.clear()
        self.parked = 0
        return tickets

    def through(self, ticket: Ticket) -> None:
        """The ticket is settled, or given up: it will write nothing more."""
        assert ticket.kept is not None
        now = self._clock.now()
        for digest, _ in ticket.kept.levels:
            one = self._known.of(digest, now)
            if one.claimed is ticket:
                one.claimed = None
                one.free()

    async def begin(self, ticket: Ticket) -> Flight:
        """Called when nothing but the sending is left; waits where another one is just writing.

        A ticket may have waited for long since ``lets``, at the limiter or between two attempts, so what counts is decided here. It never
        waits for a mere claim: whoever is on its way has what it needs to arrive.
        """
        kept = ticket.kept
        assert kept is not None
        while True:
            now = self._clock.now()
            levels = [(digest, self._known.of(digest, now)) for digest, _ in kept.levels]
            writing = next((one for _, one in levels if one.flying and one.until <= now), None)
            if writing is None:
                break
            landed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            writing.waiting.append(partial(_land, landed))
            await landed
        marks, read, written = [], [], []
        for digest, one in levels:
            if one.until > now or not kept.seconds:
                marks.append(digest)
                read.append(one)
            elif self._counted.get(digest, 2) > 1 or not self.complete or one.asked + kept.seconds > now:
                marks.append(digest)
                written.append(one)
                one.flying = True
            one.asked = now
        return Flight(kept, now, marks, read, written)
