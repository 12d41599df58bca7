"""What the runs of a session share: connections, accounts, templates, the store, and who is asking for what just now."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..adapter import RequestTemplate, Target
from ..event_loop import Clock, LoopClock, off_loop
from ..outcomes import Outcomes
from ..types import Operation, Policy, Reply, Task, Usage
from .accounts import Memory
from .limiter import Limiter
from .prefixes import Prefixes
from .writer import Writer

if TYPE_CHECKING:
    from .transport import Transport

__all__ = ["Account", "Engine", "Plan", "key_of", "prefix"]

#: Seconds after which a key that rotates is asked for again; a 401 asks at once.
KEY_LIVES = 60.0


@dataclass(slots=True)
class Plan:
    """One call, ready to be carried out."""

    run_id: str
    operation: Operation
    tasks: Callable[[], Iterator[Task]]
    route: Sequence[Target]
    policy: Policy
    outcomes: Outcomes
    #: How often it was begun: a retry is a line of its own in the journal.
    begun: int = 0


def prefix(operation: Operation, target: Target) -> bytes:
    """What stands before a body in the key of a stored answer: who was asked what, and where."""
    return f"{operation.name}{operation.mark}\0{target.provider.name}\0{target.provider.base_url}\0{target.model.name}\0".encode()


def key_of(before: bytes, body: bytes) -> bytes:
    """What a stored answer is found by: the final body, the provider and its address. No API key, no row, no time-out."""
    return hashlib.blake2b(before + body, digest_size=16).digest()


def _recalled(memory: Memory, targets: Sequence[Target]) -> list[Mapping[str, Any] | None]:
    marks = [memory.mark(target) for target in targets]
    return [None if mark is None else memory.recall(mark) for mark in marks]


def _kept(memory: Memory, learned: Sequence[tuple[Target, Mapping[str, Any]]]) -> None:
    for target, facts in learned:
        mark = memory.mark(target)
        if mark is not None and target.adapter.answer is None:
            memory.keep(mark, facts)


class Account:
    """A target's limiter and what replies have taught about it: tokens per byte of body, tokens of an answer, prefixes it caches."""

    def __init__(self, limiter: Limiter) -> None:
        self.limiter = limiter
        self.prefixes = Prefixes()
        self.tokens_per_byte = 0.25
        self.output = 0.0
        self.largest_output = 0
        self.replies = 0
        #: The mode that structured answers are asked for in since a better one was refused or not heeded; ``""`` is the usual one. And how
        #: many answers in a row did not heed it.
        self.mode = ""
        self.unheeded = 0

    def facts(self) -> dict[str, Any]:
        """What the next run on this account should know."""
        learned = {"tokens_per_byte": self.tokens_per_byte, "output": self.output, "largest_output": self.largest_output}
        return {"replies": self.replies, **learned, "limiter": self.limiter.facts()}

    def recall(self, facts: Mapping[str, Any]) -> None:
        """Begin where an earlier run left off."""
        if self.replies:
            return
        try:
            self.limiter.recall(facts["limiter"], float(facts["age"]))
            learned = float(facts["tokens_per_byte"]), float(facts["output"]), int(facts["largest_output"]), int(facts["replies"])
        except (LookupError, TypeError, ValueError, AttributeError):
            return  # of another version, or damaged
        self.tokens_per_byte, self.output, self.largest_output = learned[:3]
        # Enough to be trusted, few enough for new answers to count.
        self.replies = min(learned[3], 20)

    def learn(self, sent: int, usage: Usage) -> None:
        self.replies += 1
        weight = max(0.05, 1.0 / self.replies)
        if usage.input and sent:
            self.tokens_per_byte += weight * (usage.input / sent - self.tokens_per_byte)
        # Nine answers in ten are shorter than this: steps up and down balance there.
        step = max(1.0, 0.1 * self.output)
        self.output = (
            float(usage.output) if self.replies == 1 else max(0.0, self.output + step * (0.9 if usage.output > self.output else -0.1))
        )
        self.largest_output = max(self.largest_output, usage.output)


class Engine:
    """What the runs of a session share. Lives on the loop thread.

    Parameters
    ----------
    new_transport : callable
        Makes the ``Transport`` at the first request: aiohttp takes a tenth of a second to import.
    writer : Writer or None
        ``None`` keeps nothing.
    memory : Memory, optional
        Where it is kept what runs learn of an account.
    new_limiter : callable
        ``new_limiter(target) -> Limiter``; the session knows the limits that were set by hand.
    """

    def __init__(
        self,
        new_transport: Callable[[], Transport],
        writer: Writer | None,
        new_limiter: Callable[[Target], Limiter],
        clock: Clock | None = None,
        memory: Memory | None = None,
    ) -> None:
        self._memory = memory
        self._recalled: set[Any] = set()
        self._new_transport = new_transport
        self.writer = writer
        self.clock: Clock = clock or LoopClock()
        #: The run that asks for a key, and the future of an answer that other runs wait for.
        self.flights: dict[bytes, Any] = {}
        if writer is not None:
            writer.flights = self.flights
        self.awaited: dict[bytes, asyncio.Future[Reply]] = {}
        self._new_limiter = new_limiter
        self._accounts: dict[Any, Account] = {}
        self._addresses: dict[int, tuple[Target, tuple[Any, ...]]] = {}
        self._templates: dict[Any, asyncio.Task[RequestTemplate]] = {}

    @cached_property
    def transport(self) -> Transport:
        return self._new_transport()

    def beside(self, writer: Writer) -> Engine:
        """Another one on the same connections and accounts, which keeps its answers elsewhere."""
        _ = self.transport  # made now, so that both have the same
        other = copy(self)
        other.writer, writer.flights = writer, self.flights
        return other

    # -------------------------------------------------------------------------------------------------------- per target

    def account(self, target: Target) -> Account:
        name = self._address(target)
        account = self._accounts.get(name)
        if account is None:
            account = self._accounts[name] = Account(self._new_limiter(target))
        return account

    async def recall(self, targets: Sequence[Target]) -> None:
        """Take up what earlier runs, of this process or others, learned of these accounts; once."""
        fresh = [target for target in targets if target.adapter.answer is None and self._address(target) not in self._recalled]
        if self._memory is None or not fresh or self._nothing_is_kept:
            return
        self._recalled.update(map(self._address, fresh))
        for target, facts in zip(fresh, await off_loop(_recalled, self._memory, fresh), strict=True):
            if facts is not None:
                self.account(target).recall(facts)

    async def remember(self, targets: Sequence[Target]) -> None:
        """Keep what was learned of these accounts for the next run."""
        learned = [(target, self.account(target).facts()) for target in targets if self.account(target).replies]
        if self._memory is not None and learned and not self._nothing_is_kept:
            await off_loop(_kept, self._memory, learned)

    @property
    def _nothing_is_kept(self) -> bool:
        return self.writer is None or self.writer.lost

    def _address(self, target: Target) -> tuple[Any, ...]:
        known = self._addresses.get(id(target))
        if known is None or known[0] is not target:
            if len(self._addresses) > 256:
                self._addresses.clear()
            known = self._addresses[id(target)] = (target, self._new_address(target))
        return known[1]

    @staticmethod
    def _new_address(target: Target) -> tuple[Any, ...]:
        # Accounts are told apart by the key's hash, in memory only; a rotating key is one account, a caller's client another.
        secret = target.secret
        if target.foreign is not None:
            return target.provider.name, target.provider.base_url, target.model.name, id(target.foreign)
        mark = b"" if secret is None else b"rotates" if secret.rotates else hashlib.blake2b(secret.reveal().encode()).digest()
        return target.provider.name, target.provider.base_url, target.model.name, mark

    async def template(self, target: Target, anew: bool = False) -> RequestTemplate:
        name = (self._address(target), target.codec.path)
        making = self._templates.get(name)
        if making is not None and making.done() and not making.cancelled() and making.exception() is None:
            expires = making.result().expires
            anew = anew or (expires is not None and time.monotonic() >= expires)
        elif making is not None and making.done():
            anew = True
        if making is not None and making.done() and not anew:
            return making.result()
        if making is None or anew:
            making = asyncio.get_running_loop().create_task(self._connect(target))
            self._templates[name] = making
        return await asyncio.shield(making)

    def connected(self, target: Target) -> bool:
        """Whether a request can have left for this target: there is an address to send it to, or a caller's client."""
        making = self._templates.get((self._address(target), target.codec.path))
        return target.foreign is not None or (making is not None and making.done())

    @staticmethod
    async def _connect(target: Target) -> RequestTemplate:
        # In a worker thread: the first call imports the vendor's SDK, and half a second is long for other runs on the loop.
        assert target.adapter.connect is not None
        template = await off_loop(target.adapter.connect, target)
        if target.codec.content_type != "application/json":
            others = {name: value for name, value in template.headers.items() if name.lower() != "content-type"}
            template = replace(template, headers={**others, "content-type": target.codec.content_type})
        if target.secret is not None and target.secret.rotates and template.expires is None:
            template = replace(template, expires=time.monotonic() + KEY_LIVES)
        return template

    async def close(self) -> None:
        if self.writer is not None:
            await self.writer.close()
        if "transport" in self.__dict__:
            await self.transport.close()
