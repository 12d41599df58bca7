"""The account that the benchmark server keeps: budgets of requests and tokens in two shapes, and the best that any client can do.

Vendors quote limits per minute and enforce them in one of two ways. ``second``: at most a sixtieth of the requests in any second, wherever
that second begins. ``minute``: a bucket that holds a minute's worth, is full at first, and fills steadily. Tokens are such a bucket in
both. A request books its tokens when it is let in, by OpenAI's rule: the estimate from its characters, or the output it asks for where
that is more; what it then says changes nothing. A refused request books nothing.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from .rows import MEDIAN_LATENCY

REQUESTS_PER_MINUTE = 3_000
TOKENS_PER_MINUTE = 150_000

#: Bookings that differ from the limit by less are rounding.
_NOTHING = 1e-6


@dataclass(frozen=True)
class Conditions:
    """How the server behaves; the defaults are a provider that answers at once and refuses nothing."""

    #: ``"second"``, ``"minute"``, or ``""`` for no limit.
    shape: str = ""
    #: Whether answers and refusals carry the vendor's headers.
    headers: bool = True
    #: Whether a refusal's message says which limit was met, and when to come back.
    message: bool = True
    latency: bool = False
    faults: bool = False
    #: Whether requests are read and counted though nothing else is asked for.
    counting: bool = False
    #: What one token is worth on this server; clients that guess do best with 4.
    characters_per_token: float = 4.0
    requests_per_minute: int = REQUESTS_PER_MINUTE
    tokens_per_minute: int = TOKENS_PER_MINUTE

    @property
    def canned(self) -> bool:
        """Whether nothing has to be looked at: the quickest server there can be."""
        return self == Conditions()


class _Second:
    """At most ``limit`` in any second, wherever that second begins."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._taken: deque[float] = deque()

    def left(self, now: float) -> float:
        while self._taken and self._taken[0] <= now - 1.0:
            self._taken.popleft()
        return self.limit - len(self._taken)

    def take(self, amount: float, now: float) -> None:
        self._taken.append(now)

    def ready_at(self, amount: float, now: float) -> float:
        return now if self.left(now) >= 1 else self._taken[0] + 1.0

    def full_at(self, now: float) -> float:
        return self._taken[-1] + 1.0 if self.left(now) < self.limit else now


class _Bucket:
    """A minute's worth, full at first, that fills steadily."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._level, self._as_of = float(limit), 0.0

    def left(self, now: float) -> float:
        self._level, self._as_of = min(self.limit, self._level + max(0.0, now - self._as_of) * self.limit / 60), max(now, self._as_of)
        return self._level

    def take(self, amount: float, now: float) -> None:
        self._level = self.left(now) - amount

    def ready_at(self, amount: float, now: float) -> float:
        lacking = min(amount, self.limit) - self.left(now)
        return now + lacking * 60 / self.limit if lacking > _NOTHING else now

    def full_at(self, now: float) -> float:
        return self.ready_at(self.limit, now)


@dataclass(frozen=True)
class Refusal:
    """What was asked of which budget, and in how many seconds there will be room."""

    kind: str
    asked: float
    used: float
    limit: int
    wait: float


class RateLimit:
    """Both budgets of one account. ``now`` counts seconds from any start that is not negative."""

    def __init__(self, shape: str, requests_per_minute: int = REQUESTS_PER_MINUTE, tokens_per_minute: int = TOKENS_PER_MINUTE) -> None:
        if shape not in {"second", "minute"}:
            raise ValueError(f"a limit is kept by the second or by the minute, not by {shape!r}")
        self.per_minute = {"requests": requests_per_minute, "tokens": tokens_per_minute}
        self.requests = _Second(requests_per_minute // 60) if shape == "second" else _Bucket(requests_per_minute)
        self.tokens = _Bucket(tokens_per_minute)

    def ready_at(self, tokens: float, now: float) -> float:
        """When a request of so many tokens would be let in, if nobody else came."""
        return max(self.requests.ready_at(1, now), self.tokens.ready_at(tokens, now))

    def admit(self, tokens: float, now: float) -> Refusal | None:
        """The booking of one request, or why it is refused."""
        for kind, amount in (("requests", 1.0), ("tokens", tokens)):
            budget = self.requests if kind == "requests" else self.tokens
            wait = budget.ready_at(amount, now) - now
            if wait > 0:
                limit = self.per_minute[kind]
                used = limit * (1 - budget.left(now) / budget.limit)
                return Refusal(kind, amount, used, limit, wait)
        self.requests.take(1, now)
        self.tokens.take(tokens, now)
        return None

    def headers(self, now: float) -> dict[str, str]:
        """What a truthful vendor says: limits by the minute, what is left right now, and when all of it will be there again."""
        return {
            "x-ratelimit-limit-requests": str(self.per_minute["requests"]),
            "x-ratelimit-limit-tokens": str(self.per_minute["tokens"]),
            "x-ratelimit-remaining-requests": str(max(0, math.floor(self.requests.left(now) + _NOTHING))),
            "x-ratelimit-remaining-tokens": str(max(0, math.floor(self.tokens.left(now) + _NOTHING))),
            "x-ratelimit-reset-requests": go_duration(self.requests.full_at(now) - now),
            "x-ratelimit-reset-tokens": go_duration(self.tokens.full_at(now) - now),
        }


def tokens_of(characters: int, most_output: int, characters_per_token: float = 4.0) -> int:
    """What a request books."""
    return max(math.ceil(characters / characters_per_token), most_output)


def ideal(shape: str, bookings: Iterable[float]) -> float:
    """The least seconds in which these requests can be answered, whoever sends them.

    The account itself is asked for the earliest moment at which each request would be let in, one after the other, as a client would
    send them that knows the rules, the state and its own prompts; the last answer then takes the median latency.
    """
    limit, now = RateLimit(shape), 0.0
    for tokens in bookings:
        while (ready := limit.ready_at(tokens, now)) > now:
            now = ready
        limit.requests.take(1, now)
        limit.tokens.take(tokens, now)
    return now + MEDIAN_LATENCY


def go_duration(seconds: float) -> str:
    """A duration as OpenAI sends it (60ms, 8.64s, 6m0s), rounded up: who waits it out is let in."""
    milliseconds = math.ceil(max(0.0, seconds) * 1000 - 1e-9)
    if milliseconds < 1000:
        return f"{milliseconds}ms" if milliseconds else "0s"
    minutes, rest = divmod(milliseconds, 60_000)
    return (f"{minutes}m" if minutes else "") + f"{rest / 1000:g}s"
