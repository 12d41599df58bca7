"""What an account may still send: buckets of requests and of tokens, as the user or the provider's headers say them.

Providers quote a limit by the minute and enforce it in one of three shapes: a bucket that holds a minute's worth, is full at the start and
fills steadily (OpenAI, Anthropic); a short window (3,000 a minute as 50 in any second); a day's quota (Groq's requests). A pacer that
spreads a minute's worth evenly leaves the full bucket unspent, one that spends it at once is refused by the short window. The headers tell
them apart: what is *left* under a short window is never more than the window holds, though the limit reads 3,000, and all of it is
back in a moment where a bucket would need a minute.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

from ..types import Allowance

__all__ = ["Bucket", "Budget"]

#: A count that comes back more slowly than this is a day's quota and no pace: seconds for all of it.
_A_DAY = 6 * 3600.0

#: What stands between a send and its being counted is never the same twice. A short window is taken for this much longer than it is, and
#: so many seconds' worth stay in a bucket that the provider counts; more after every refusal that neither kept away.
_LONGER = 0.008
_LONGER_MOST = 0.1
#: At the start, while connections are being made, by so much; what is above the usual is halved in so many seconds.
_LONGER_FIRST = 0.04
_LONGER_HALVES_SECONDS = 3.0
_RESERVE_SECONDS = 0.1
_RESERVE_MOST_SECONDS = 0.5

#: Of a limit that machines share, so much is used: what they send on time does not arrive on time.
_SHARED_OF = 0.96

#: Seconds' worth of a short window that may go at once, after a moment in which nothing could.
_CATCH_UP_SECONDS = 0.12


class Bucket:
    """``level`` of at most ``capacity``, refilled ``per_second``; may go below zero when a true cost is booked later."""

    def __init__(self, capacity: float, per_second: float, now: float, level: float | None = None) -> None:
        self.capacity = capacity
        self.per_second = per_second
        self._level = capacity if level is None else level
        self._at = now

    def level(self, now: float) -> float:
        if now > self._at:
            self._level = min(self.capacity, self._level + (now - self._at) * self.per_second)
            self._at = now
        return self._level

    def take(self, amount: float, now: float) -> None:
        self._level = self.level(now) - amount

    def lower_to(self, level: float, now: float) -> None:
        self._level = min(self.level(now), level)

    def set_to(self, level: float, now: float) -> None:
        self._level, self._at = min(self.capacity, level), now

    def ready_at(self, amount: float, now: float) -> float:
        """The moment when ``amount`` can be taken. More than the capacity may be taken once the bucket is full."""
        lacking = min(amount, self.capacity) - self.level(now)
        if lacking <= 1e-9:
            return now
        return now + lacking / self.per_second if self.per_second > 0 else float("inf")


class Shared(Protocol):
    """Where several processes take from one limit: see ``accounts.Ledger``, and ``scale.buckets.Share`` for several machines."""

    @property
    def everywhere(self) -> bool:
        """Whether limits that a provider counts are shared here too: what its headers say is left is then left to all."""

    def take(self, kind: str, amount: float, per_second: float, capacity: float) -> tuple[float, float]: ...

    def refused(self, seconds: float | None) -> None:
        """The provider told this process to slow down, for so long if it said so."""


def _evenly(per_minute: float, now: float) -> Bucket:
    # A second's worth may go at once. The refill is lowered by that much, so that no 60 seconds, wherever they begin, see more
    # than the limit.
    burst = max(1.0, per_minute / 60)
    refill = max(per_minute - burst, per_minute * 0.5) / 60
    return Bucket(burst, refill, now)


class Budget:
    """One limit of an account, and what is left of it.

    Parameters
    ----------
    per_minute : float
    by_hand : bool
        The user said so. Nothing raises it; where the provider's own limit is the same number, its word on what is left counts, and
        where it is higher, the user has taken a share, which is spread evenly: no 60 seconds, wherever they begin, see more.
    even : bool
        Spread from the start: nothing is known but the number.
    shared : Shared, optional
        What other processes of this machine take from the same limit, for as long as no header tells it.
    kind : str
        What is counted: ``"requests"`` or ``"tokens"``.
    """

    def __init__(
        self, per_minute: float, now: float, *, by_hand: bool = False, even: bool = False, shared: Shared | None = None, kind: str = ""
    ) -> None:
        self.per_minute = per_minute
        self.by_hand = by_hand
        self.even = even
        self.bucket = _evenly(per_minute, now) if by_hand or even else Bucket(per_minute, per_minute / 60, now)
        self._shared = shared
        self._kind = kind
        #: What was taken from the shared limit and not used yet, and when to ask for more.
        self._held = 0.0
        self._ask_at = float("-inf")
        #: Whether the provider's count is followed.
        self.counted = False
        #: Whether it is enforced over a short window.
        self.short = False
        #: How much of it the provider books for one of what is estimated here.
        self.price = 1.0
        # Who states a limit wants to see none of its refusals.
        self._reserve = 2 * _RESERVE_SECONDS if by_hand else _RESERVE_SECONDS
        self._adjusted_at = float("-inf")
        #: Of a short window: its length in seconds as it is kept here, and what left within it.
        self._span = 1.0 + _LONGER_FIRST
        self._shrunk_at = now
        self._within: deque[tuple[float, float]] = deque()
        self._sum = 0.0
        self._most_left = 0.0
        self._heard_of = float("-inf")
        self._last: tuple[float, float, float] | None = None

    @classmethod
    def told(cls, said: Allowance, now: float) -> Budget | None:
        """As a provider's header says it, ``None`` where that is no limit by the minute."""
        if not said.limit or said.per_day or (_period(said) or 60.0) > _A_DAY:
            return None
        return cls(float(said.limit), now)

    def ready_at(self, amount: float, now: float) -> float:
        if self._by_the_second and (room_at := self._room_at(amount * self.price, now)) > now:
            return room_at
        if self._shared is not None and (self._shared.everywhere or not self.counted):
            turn = self._ready_at_shared(amount * self.price, now)
            if turn > now or not self.counted:
                return turn
        if self.short:
            return self.bucket.ready_at(amount * self.price, now)
        reserve = self._reserve * self.bucket.per_second if self.counted else 0.0
        return self.bucket.ready_at(amount * self.price + reserve, now)

    def share(self, shared: Shared, kind: str) -> None:
        """Other processes take from this limit too."""
        self._shared, self._kind = shared, kind

    @property
    def _by_the_second(self) -> bool:
        """Whether no second may see more than its part; also while nobody has said how a limit that the user states is enforced."""
        return self.short or (self.by_hand and not self.counted)

    def _room_at(self, amount: float, now: float) -> float:
        """When the short window has room for so much, as it is seen from here."""
        within, most = self._within, self.per_minute / 60 * (self._span - self._span % 1.0)
        while within and within[0][0] <= now - self._span:
            self._sum -= within.popleft()[1]
        lacking = self._sum + amount - most
        for at, one in within:
            if lacking <= 1e-9:
                break
            lacking -= one
            now = at + self._span
        return now

    def _ready_at_shared(self, amount: float, now: float) -> float:
        assert self._shared is not None
        if self._held >= amount - 1e-9:  # what is taken piece by piece adds up to a hair less
            return now
        if now < self._ask_at:
            return self._ask_at
        try:
            per_second = self.bucket.per_second
            if self._shared.everywhere:
                per_second = min(per_second, self.per_minute / 60 * _SHARED_OF)
            taken, wait = self._shared.take(self._kind, amount - self._held, per_second, self.bucket.capacity)
        except OSError:
            self._shared = None
            return self.bucket.ready_at(amount, now)
        self._held += taken
        if taken:
            return now
        self._ask_at = now + wait
        return self._ask_at

    def take(self, amount: float, now: float) -> None:
        self._held -= amount * self.price
        self.bucket.take(amount * self.price, now)
        if self._by_the_second:
            self._within.append((now, amount * self.price))
            self._sum += amount * self.price
            least = int(self._span) + _LONGER
            self._span = least + (self._span - least) * 0.5 ** ((now - self._shrunk_at) / _LONGER_HALVES_SECONDS)
            self._shrunk_at = now

    def facts(self, now: float) -> dict[str, Any]:
        """What the next run should know of it."""
        return {"per_minute": self.per_minute, "short": self.short, "price": self.price, "level": self.bucket.level(now)}

    @classmethod
    def recalled(cls, facts: Any, age: float, now: float) -> Budget:
        """As an earlier run left it, ``age`` seconds ago."""
        budget = cls(float(facts["per_minute"]), now)
        budget.price = min(8.0, max(0.02, float(facts["price"])))
        if facts["short"]:
            budget._spread(now, 0.0)
        else:
            budget.bucket.set_to(float(facts["level"]) + age * budget.bucket.per_second, now)
            # Trusted as one that the provider counts: the first answer sets it right.
            budget.counted = True
        return budget

    def refused(self, sent_at: float, now: float) -> None:
        """A request was refused although by what is known here it had its place. A burst that left together is one piece of news."""
        if sent_at <= self._adjusted_at:
            return
        self._adjusted_at = now
        if self.short:
            self._span = min(self._span + _LONGER, int(self._span) + _LONGER_MOST)
        elif self.counted:
            self._reserve = min(1.3 * self._reserve, _RESERVE_MOST_SECONDS)

    def roomy(self, now: float) -> bool:
        """Whether by what is known here there was room for seconds to come: then a refusal is news."""
        return self.bucket.level(now) > 2.0 * self.bucket.per_second

    def follow(self, said: Allowance, sent_at: float, since: float, booked: float, now: float) -> None:
        """Take over the provider's count.

        Parameters
        ----------
        said : Allowance
        sent_at : float
            When the request left whose answer says so; the count is about as old.
        since : float
            What was booked here after that request, which the count cannot hold yet.
        booked : float
            All that was ever booked here up to that request.
        now : float
        """
        if said.limit and not self._agrees(said.limit, now):
            self.bucket.lower_to(float("inf") if said.left is None else float(said.left), now)
            return
        if said.left is None or sent_at < self._heard_of:
            return  # older than what is known already
        if self.even:
            self.bucket.lower_to(float(said.left), now)
            return
        self._heard_of = sent_at
        self._most_left = max(self._most_left, said.left + 1.0)
        if self._is_short(said):
            self._spread(now, booked + since)
        if self.short:
            return  # what is left of so short a while is over by the time it is read
        self._learn_price(said.left, sent_at, booked)
        if not self.counted:
            self.counted = True
            self.bucket = Bucket(self.per_minute, self.per_minute / 60, now)
        refilled = (now - sent_at) * self.bucket.per_second
        self.bucket.set_to(min(self.per_minute, said.left + refilled) - since * self.price, now)

    def _agrees(self, limit: float, now: float) -> bool:
        """Whether the provider's number is the one that is kept to here; where it changed, it is taken over."""
        if abs(limit - self.per_minute) <= 0.01 * self.per_minute:
            return True
        if self.by_hand and limit > self.per_minute:
            return False
        self.per_minute = float(limit)
        self.short, self._most_left, self._last = False, 0.0, None
        self.bucket = Bucket(self.per_minute, self.per_minute / 60, now, level=0.0)
        return True

    def _is_short(self, said: Allowance) -> bool:
        if said.reset is None or said.left is None or self._most_left > 0.25 * self.per_minute:
            return False
        in_a_bucket = (self.per_minute - said.left) * 60 / self.per_minute
        return said.reset <= 10.0 and in_a_bucket > 4 * max(0.25, said.reset)

    def _spread(self, now: float, booked: float) -> None:
        if not self.short:
            self.short = self.counted = True
            self._adjusted_at = now
            per_second = self.per_minute / 60
            self._span = max(1.0, round(self._most_left / per_second)) + max(_LONGER, self._span % 1.0)
            if not self._within:
                # What left so far may all be of this moment; it mostly is, since the first headers say it.
                self._sum = min(booked * self.price, per_second)
                self._within = deque([(now, self._sum)])
            # Evenly, and not in bursts: one that meets a delay of the network would be refused whole.
            self.bucket = Bucket(max(1.5, _CATCH_UP_SECONDS * per_second), per_second, now)

    def _learn_price(self, left: float, sent_at: float, booked: float) -> None:
        """What the provider books for one of what is estimated here: its count went down by so much while we booked that."""
        if left >= 0.98 * self.per_minute:
            self._last = None  # a full bucket loses what flows in
            return
        if self._last is None:
            self._last = (left, sent_at, booked)
            return
        then, at, before = self._last
        ours = booked - before
        if ours <= 0 or sent_at - at < 0.5:
            return
        theirs = then - left + (sent_at - at) * self.per_minute / 60
        self._last = (left, sent_at, booked)
        if theirs > 0:
            self.price += 0.3 * (min(8.0, max(0.02, theirs / ours)) - self.price)


def _period(said: Allowance) -> float | None:
    """Seconds in which all of a limit comes back, as what is used and when it will be back tell; ``None`` where they do not."""
    if not said.limit or said.left is None or said.reset is None or said.left >= said.limit:
        return None
    return said.reset * said.limit / (said.limit - said.left)
