"""One batch on its way to an answer: the only layer that retries.

One ``except`` per branch of ``errors.py`` and no status codes: what is to be done stands in the error's class. A batch that is refused is
halved until the fault belongs to a row; a target that is shut or keeps failing gives way to the next one of the route.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ..adapter import Target
from ..errors import (
    AccessError,
    BatchTooLarge,
    Busy,
    ConfigError,
    ConnectionLost,
    ContextTooLong,
    LLMError,
    Overloaded,
    RequestError,
    TimedOut,
    Unreachable,
    all_failed,
)
from ..event_loop import Clock, sleep
from ..types import Limits, Policy, Reply, Request, Usage
from .limiter import Limiter

__all__ = ["Answer", "Line", "Ticket", "serve"]

#: A host that refuses this many connections in a row, over this many seconds, is down: the circuit opens and the run ends.
DEAD_AFTER_FAILURES = 16
DEAD_AFTER_SECONDS = 2.0

#: One that answered earlier in the run is given this long: a cable that was pulled, or a laptop between two networks, comes back.
OUTAGE_SECONDS = 90.0
#: And each row looks at least this often whether it did.
OUTAGE_LOOK_SECONDS = 5.0


@dataclass(slots=True)
class Ticket:
    """One task under way: its number in the outcomes, its request, key and body, and how often it was tried."""

    number: int
    request: Request
    key: bytes
    body: bytes
    #: Bytes of text that the request amounts to; tokens are estimated from it.
    size: int
    attempts: int = 0
    began: float = 0.0
    #: The request that ``key`` belongs to, where the row has gone on to another; and what the rounds before this one were billed.
    first: Request | None = None
    used: Usage | None = None
    #: Why the row cannot be asked at all.
    refused: RequestError | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A decoded response: one reply or row error for each request, what the headers said, tokens billed."""

    replies: Sequence[Reply | LLMError]
    limits: Limits | None
    tokens: int


class Line(Protocol):
    """What ``serve`` needs of the run it works for."""

    route: Sequence[Target]
    policy: Policy
    clock: Clock
    #: Whether replies are read by the operation, which may send a row on with another request.
    reads: bool

    def limiter(self, target: Target) -> Limiter: ...

    def shut(self, target: Target) -> LLMError | None: ...

    def answered(self, target: Target) -> bool:
        """Whether the target has answered since the run began."""

    def close_target(self, target: Target, error: LLMError) -> None: ...

    def tokens_of(self, batch: Sequence[Ticket], target: Target) -> float: ...

    async def reserve(self, batch: Sequence[Ticket], target: Target) -> float: ...

    def unreserve(self, amount: float) -> None: ...

    async def exchange(self, batch: Sequence[Ticket], target: Target) -> Answer: ...

    def too_large(self, batch: Sequence[Ticket], target: Target, error: BatchTooLarge) -> None: ...

    def settle(self, batch: Sequence[Ticket], answer: Answer, target: Target) -> None: ...

    async def follow(self, batch: Sequence[Ticket], answer: Answer, target: Target) -> Sequence[Ticket]: ...

    def fail(self, batch: Sequence[Ticket], error: LLMError, target: Target) -> None: ...


async def serve(batch: Sequence[Ticket], line: Line) -> None:
    """Bring every ticket of ``batch`` to a reply or an error."""
    parts = [batch]
    while parts:
        part = parts.pop()
        failed: list[LLMError] = []
        for target in line.route:
            shut = line.shut(target)
            if shut is not None:
                failed.append(shut)
                continue
            try:
                answer = await _ask(part, target, line)
            except RequestError as error:
                if len(part) > 1:
                    if isinstance(error, BatchTooLarge):
                        line.too_large(part, target, error)
                    middle = len(part) // 2
                    parts += [part[middle:], part[:middle]]
                    failed = []
                    break
                if isinstance(error, ContextTooLong):
                    failed.append(error)
                    continue  # the next model of the route may have the room
                failed = [error]  # of the row: another model's trouble is no part of it
                break
            except (AccessError, ConfigError) as error:  # a fallback may lack what the first choice has
                line.close_target(target, error)
                failed.append(error)
            except (Busy, Unreachable) as error:
                failed.append(error)
            else:
                if line.reads:
                    going_on = await line.follow(part, answer, target)
                    parts += [[ticket] for ticket in going_on]
                else:
                    line.settle(part, answer, target)
                failed = []
                break
        if failed:
            line.fail(part, all_failed(failed), target)


async def _ask(batch: Sequence[Ticket], target: Target, line: Line) -> Answer:
    """One target's answer, tried as often as the policy allows."""
    limiter, policy, clock = line.limiter(target), line.policy, line.clock
    tokens = line.tokens_of(batch, target)
    failures = tries = 0
    told_to_wait = 0
    slow_since: float | None = None
    while True:
        permit = None if told_to_wait else limiter.try_acquire(tokens)
        if permit is None:
            permit = await limiter.acquire(tokens, first=told_to_wait > 0)
        shut = line.shut(target)
        if shut is not None:  # another row learned it while this one waited
            limiter.abandoned(permit)
            raise shut
        try:
            reserved = await line.reserve(batch, target)
        except BaseException:
            limiter.abandoned(permit)
            raise
        now = clock.now()
        for ticket in batch:
            ticket.attempts += 1
            ticket.began = ticket.began or now
        try:
            answer = await line.exchange(batch, target)
        except (RequestError, AccessError):
            limiter.failed(permit, connection=False)
            raise
        except Busy as error:
            limiter.slow_down(permit, error)
            told_to_wait += 1
            slow_since = now if slow_since is None else slow_since
            # A rate limit is ours to keep and passes: it costs time. An overload is theirs, may not pass, and costs attempts too.
            failures += isinstance(error, Overloaded)
            if not error.again or failures >= policy.max_attempts or clock.now() - slow_since > policy.deadline:
                raise
        except Unreachable as error:
            limiter.failed(permit, connection=isinstance(error, ConnectionLost | TimedOut))
            tries += 1
            down = limiter.failures >= DEAD_AFTER_FAILURES
            # Where another model stands ready, it is asked instead of waiting.
            passes = target is line.route[-1] and line.answered(target)
            if down and clock.now() - limiter.failing_since >= (OUTAGE_SECONDS if passes else DEAD_AFTER_SECONDS):
                line.close_target(target, error)
                raise
            # While nobody gets through it is no row's fault, and no row's attempt.
            failures += not (down and passes and isinstance(error, ConnectionLost))
            if not error.again or failures >= policy.max_attempts:
                raise
            longest = min(policy.backoff_max, OUTAGE_LOOK_SECONDS) if down and passes else policy.backoff_max
            wait = min(longest, policy.backoff * 2.0 ** min(tries - 1, 30)) * random.random()
            await sleep(clock, max(wait, error.retry_after or 0.0))
        except BaseException:
            limiter.abandoned(permit)
            raise
        else:
            limiter.done(permit, answer.tokens, answer.limits)
            return answer
        finally:
            line.unreserve(reserved)
