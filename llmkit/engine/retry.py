"""One batch on its way to an answer: the only layer that retries.

One ``except`` per branch of ``errors.py`` and no status codes: what is to be done stands in the error's class. A batch that is refused is
halved until the fault belongs to a row; a target that is shut or keeps failing gives way to the next one of the route.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ..adapter import Kept, Target
from ..errors import (
    AccessError,
    BatchTooLarge,
    Busy,
    ConfigError,
    ContentBlocked,
    ContextTooLong,
    LLMError,
    Overloaded,
    QuotaSpent,
    RateLimited,
    RequestError,
    ServerFault,
    TimedOut,
    Unreachable,
    all_failed,
)
from ..event_loop import Clock, sleep
from ..types import Limits, Policy, Reply, Request, Usage
from .limiter import LONG_PAUSE_SECONDS, Limiter, Permit

__all__ = ["Answer", "Line", "Ticket", "serve"]

#: Seconds after which a provider that answers nobody counts as down, and the run leaves it: one that never answered in this run, where no
#: connection is made, and where it answers with faults only.
DEAD_SECONDS = 2.0
FAULTY_SECONDS = 30.0
#: One that answered earlier in the run, with no other model at hand, is given this long: a cable that was pulled, or a laptop between two
#: networks, comes back.
OUTAGE_SECONDS = 90.0

INFINITY = float("inf")


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
    #: Requests that had left and whose answer never came: they may have been billed.
    lost: int = 0
    #: When it could have been sent.
    ready: float = 0.0
    #: The request that ``key`` belongs to, where the row has gone on to another; and what the rounds before this one were billed.
    first: Request | None = None
    used: Usage | None = None
    #: What models of the route that declined it in an answer billed for it, in tokens (part of ``used``) and in dollars, where known.
    declined: tuple[Usage, float | None] | None = None
    #: Why the row cannot be asked at all.
    refused: RequestError | None = None
    #: The mode that it was last asked in, ``""`` for the target's usual one; and the one that a target is asked in now that refused others.
    mode: str = ""
    lesser: tuple[Target, str] | None = None
    #: What of the request the first target's prompt cache would keep.
    kept: Kept | None = None
    #: Whether it stood back once: see ``Line.stands_back``.
    stood_back: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """A decoded response: one reply or row error for each request, what the headers said, tokens billed."""

    replies: Sequence[Reply | LLMError]
    limits: Limits | None
    tokens: int
    output: int


class Line(Protocol):
    """What ``serve`` needs of the run it works for."""

    route: Sequence[Target]
    policy: Policy
    clock: Clock
    #: Whether replies are read by the operation, which may send a row on with another request.
    reads: bool

    def limiter(self, target: Target) -> Limiter: ...

    def shut(self, target: Target) -> LLMError | None:
        """Why a target is not to be asked."""

    def looks(self, target: Target) -> bool:
        """Whether it is time to look if a target that was down is back; says so to one row at a time."""

    def answered(self, target: Target) -> bool:
        """Whether the target has answered since the run began."""

    def close_target(self, target: Target, error: LLMError) -> None: ...

    def may_retry(self) -> bool:
        """Whether the run may afford another try; takes it from what it may."""

    def stands_back(self, batch: Sequence[Ticket]) -> bool:
        """Whether what has spent its tries may wait behind others, which will show whether the trouble is its own; once."""

    def tokens_of(self, batch: Sequence[Ticket], target: Target) -> tuple[float, float]:
        """All tokens that the request may cost, and the answer's part of them."""

    def too_long(self, batch: Sequence[Ticket], target: Target) -> ContextTooLong | None:
        """Why a target need not be asked at all: the text is longer than its window whatever a token is."""

    async def reserve(self, batch: Sequence[Ticket], target: Target) -> float: ...

    def unreserve(self, amount: float) -> None: ...

    async def connect(self, target: Target) -> None:
        """Learn where requests go. Leave to send that is granted while the SDK is being imported would all be used at the same moment."""

    def left(self, target: Target) -> bool:
        """Whether a request to this target can have left at all: none has before there is a connection to be made."""

    def lost(self, batch: Sequence[Ticket], target: Target, amount: float) -> None:
        """The answer of a request that had left never came: it may have been billed, at most so much."""

    def declined(self, ticket: Ticket, error: ContentBlocked, target: Target) -> None:
        """An answer, which was billed, declined the row, and it is going on to another model."""

    async def exchange(self, batch: Sequence[Ticket], target: Target) -> Answer: ...

    def asks_otherwise(self, batch: Sequence[Ticket], target: Target, error: LLMError) -> bool:
        """Whether what was refused is the way it was asked, and there is another, in which it is asked from now on."""

    def too_large(self, batch: Sequence[Ticket], target: Target, error: BatchTooLarge) -> None: ...

    def settle(self, batch: Sequence[Ticket], answer: Answer, target: Target) -> None: ...

    async def follow(self, batch: Sequence[Ticket], answer: Answer, target: Target) -> Sequence[Ticket]: ...

    def fail(self, batch: Sequence[Ticket], error: LLMError, target: Target) -> None: ...


class _Elsewhere(Exception):
    """A row that was told to slow down goes to another model of the route, which is free."""

    def __init__(self, target: Target) -> None:
        self.target = target


class _StoodBack(Exception):
    """A batch waits behind others of the run, and is served anew."""


@dataclass(slots=True)
class _Patience:
    """What a row has put up with: how often, and since when, it was told to slow down, and what the models before could not do."""

    told: int = 0
    since: float | None = None
    failed: dict[int, LLMError] = field(default_factory=dict)
    #: Targets that are there for that alone are asked then.
    wanted: str = ""


async def serve(batch: Sequence[Ticket], line: Line) -> None:
    """Bring every ticket of ``batch`` to a reply or an error."""
    parts = [batch]
    while parts:
        parts += await _along_the_route(parts.pop(), line)


async def _along_the_route(part: Sequence[Ticket], line: Line) -> list[Sequence[Ticket]]:
    """Settle a batch, or hand back the smaller ones, or the next rounds, that have to be served instead."""
    patience = _Patience()
    failed = patience.failed
    position: int | None = 0
    while position is not None:
        target = line.route[position]
        try:
            looks = _pass_the_door(part, target, line)
            answer = await _ask(part, target, line, patience, looks)
        except _Elsewhere as other:
            position = line.route.index(other.target)
            continue
        except _StoodBack:
            return []
        except RequestError as error:
            if len(part) > 1:
                if isinstance(error, BatchTooLarge):
                    line.too_large(part, target, error)
                middle = len(part) // 2
                return [part[middle:], part[:middle]]
            if isinstance(error, ContextTooLong):
                patience.wanted = "context"  # the next model of the route may have the room
            elif isinstance(error, ContentBlocked) and _has_content_fallback(line):
                patience.wanted = "content"
            else:
                line.fail(part, error, target)  # of the row: another model's trouble is no part of it
                return []
            failed[position] = error
        except (AccessError, ConfigError) as error:  # a fallback may lack what the first choice has
            line.close_target(target, error)  # again and again: the first reason stays
            failed[position] = error
        except (Busy, Unreachable) as error:
            failed[position] = error
        else:
            said = answer.replies[0]
            if not (len(part) == 1 and isinstance(said, ContentBlocked) and _has_content_fallback(line)):
                if line.reads:
                    return [[ticket] for ticket in await line.follow(part, answer, target)]
                line.settle(part, answer, target)
                return []
            line.declined(part[0], said, target)
            patience.wanted = "content"
            failed[position] = said
        position = next(_after(position, line, patience), None)
    line.fail(part, all_failed([failed[at] for at in sorted(failed)]), line.route[max(failed)])
    return []


def _pass_the_door(part: Sequence[Ticket], target: Target, line: Line) -> bool:
    """Raise why a target is not asked; whether this row is the one that looks if it is back."""
    shut = line.shut(target)
    looks = shut is not None and line.looks(target)
    error = line.too_long(part, target) if shut is None or looks else shut
    if error is not None:
        raise error
    return looks


def _has_content_fallback(line: Line) -> bool:
    return len(line.route) > 1 and any(target.only_for == "content" for target in line.route)


def _after(position: int, line: Line, patience: _Patience) -> Iterator[int]:
    """The places in the route that the row may go on to, in their order."""
    failed, wanted = patience.failed, patience.wanted
    too_small = [line.route[at].model.context_window or 0 for at, error in failed.items() if isinstance(error, ContextTooLong)]
    for at in (*range(position + 1, len(line.route)), *range(position)):
        target = line.route[at]
        window = target.model.context_window
        if at in failed or (target.only_for and target.only_for != wanted) or (wanted == "content" and not target.only_for):
            continue
        if wanted == "context" and window is not None and window <= max(too_small):
            continue
        yield at


def _others(target: Target, line: Line, patience: _Patience) -> Iterator[Target]:
    """The other models of the route that the row may be sent to, and that are neither shut nor ask for a long wait themselves."""
    if len(line.route) > 1:
        latest = line.clock.now() + LONG_PAUSE_SECONDS
        for at in sorted(_after(line.route.index(target), line, patience)):
            other = line.route[at]
            if line.shut(other) is None and line.limiter(other).paused_until <= latest:
                yield other


def _free(batch: Sequence[Ticket], others: Iterator[Target], line: Line) -> Target | None:
    """The first of them that could take the row now."""
    return next((other for other in others if line.limiter(other).is_free(*line.tokens_of(batch, other))), None)


async def _ask(batch: Sequence[Ticket], target: Target, line: Line, patience: _Patience, looks: bool) -> Answer:
    """One target's answer, tried as often as the policy allows; once, where the row only looks whether it is back."""
    limiter, policy, clock = line.limiter(target), line.policy, line.clock
    tokens, output = line.tokens_of(batch, target)
    # Who stood back has its last try.
    failures = policy.max_attempts - 1 if batch[0].stood_back else 0
    tries, failed_at = 0, INFINITY
    await line.connect(target)
    while True:
        permit = None if patience.told else limiter.try_acquire(tokens, output)
        if permit is None:
            permit = await _wait_for_leave(tokens, output, target, line, patience)
        shut = None if looks else line.shut(target)
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
        except (RequestError, AccessError) as error:
            limiter.failed(permit, outage=False)
            if not line.asks_otherwise(batch, target, error):
                raise
        except ConfigError:  # it has no word for something in this row: nothing was sent
            limiter.abandoned(permit)
            raise
        except Busy as error:
            limiter.slow_down(permit, error, error.limits)
            patience.told += 1
            patience.since = now if patience.since is None else patience.since
            # A rate limit is ours to keep and passes: it costs time. An overload is theirs, may not pass, and costs attempts too.
            if isinstance(error, Overloaded):
                failed_at = min(failed_at, clock.now())
                waited_out = _leave_if_down(error, target, line)
                failures += not waited_out
                if failures >= policy.max_attempts:
                    _stand_back(batch, error, failed_at, target, line)
                if not waited_out and not line.may_retry():
                    raise
            if not error.again or failures >= policy.max_attempts or clock.now() - patience.since > policy.deadline:
                raise
            moves = policy.prefer == "any" and isinstance(error, RateLimited)
            other = _free(batch, _others(target, line, patience), line) if moves else None
            if other is not None:
                patience.told = 0  # nobody there has told it to wait
                raise _Elsewhere(other) from None
        except Unreachable as error:
            if error.lost:
                line.lost(batch, target, reserved)
            limiter.failed(permit, outage=True)
            tries, failed_at = tries + 1, min(failed_at, clock.now())
            waited_out = _leave_if_down(error, target, line)
            # While nobody gets through it is no row's fault, and no row's attempt.
            failures += not waited_out
            if failures >= policy.max_attempts:
                _stand_back(batch, error, failed_at, target, line)
            if looks or not error.again or failures >= policy.max_attempts or not (waited_out or line.may_retry()):
                raise
            if not limiter.broken:  # else the limiter says who looks, and when
                wait = min(policy.backoff_max, policy.backoff * 2.0 ** min(tries - 1, 30)) * random.random()
                await sleep(clock, max(wait, error.retry_after or 0.0))
        except BaseException:
            if line.left(target):
                line.lost(batch, target, reserved)
            limiter.abandoned(permit)
            raise
        else:
            limiter.done(permit, answer.tokens, answer.output, answer.limits)
            return answer
        finally:
            line.unreserve(reserved)


async def _wait_for_leave(tokens: float, output: float, target: Target, line: Line, patience: _Patience) -> Permit:
    limiter = line.limiter(target)
    while True:
        others = any(_others(target, line, patience))
        longest = LONG_PAUSE_SECONDS if others else line.policy.deadline
        try:
            return await limiter.acquire(tokens, output, first=patience.told > 0, patience=longest, still=lambda: line.shut(target))
        except (Busy, QuotaSpent) as error:
            if error is line.shut(target):
                raise
            if others and not any(_others(target, line, patience)):
                continue  # they were shut meanwhile, or ask for as much: then this one is waited for
            wait = max(0.0, limiter.paused_until - line.clock.now())
            # A closed door is no wait: the run leaves this model until it opens.
            why = f"{error.message}; " if isinstance(error, QuotaSpent) else ""
            hours = QuotaSpent(
                f"{why}the provider asks to wait {wait:,.0f} s; the same call after that sends only the rest",
                kind="long_wait" if isinstance(error, Busy) else error.kind,
                status=error.status,
                retry_after=wait,
                provider=target.provider.name,
                model=target.model.name,
            )
        raise hours


def _alone(target: Target, line: Line) -> bool:
    """Whether no other model of the route stands ready."""
    return len(line.route) == 1 or all(other is target or other.only_for or line.shut(other) is not None for other in line.route)


def _stand_back(batch: Sequence[Ticket], error: LLMError, failed_at: float, target: Target, line: Line) -> None:
    """Leave the next try to another row, where nobody got through since this one failed first: is it this one, or the provider?

    A run with few in flight loses its rows else before so many have failed that the circuit opens.
    """
    limiter = line.limiter(target)
    nobody_got_through = limiter.failures > 0 and limiter.failing_since <= failed_at
    if error.again and nobody_got_through and _alone(target, line) and line.answered(target) and line.stands_back(batch):
        raise _StoodBack from None


def _leave_if_down(error: LLMError, target: Target, line: Line) -> bool:
    """Leave a target that answers nobody for good; whether it is down and waited for."""
    limiter = line.limiter(target)
    if not limiter.broken:
        return False
    # Where another model stands ready, it is asked instead of waiting.
    alone = _alone(target, line)
    answered = line.answered(target)
    faulty = isinstance(error, ServerFault | Overloaded | TimedOut)
    longest = OUTAGE_SECONDS if alone and answered else FAULTY_SECONDS if alone and faulty else DEAD_SECONDS
    if line.clock.now() - limiter.failing_since >= longest:
        line.close_target(target, error)
        raise error
    return alone
