"""Rate limits that are enforced, by the second or by the minute. All times are seconds, on the clock of ``time.monotonic``."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass

from .answers import Seen
from .content import tokens


def go_duration(seconds: float) -> str:
    """A duration as OpenAI sends it (60ms, 8.64s, 6m0s), rounded up: who waits it out is let in."""
    milliseconds = math.ceil(seconds * 1000)
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{rest / 1000:g}s"


@dataclass(frozen=True)
class TooFast:
    """A request that does not fit: what was asked of which budget, and how long to wait."""

    kind: str  # "requests" or "tokens"
    model: str
    limit: float
    used: float
    asked: float
    wait: float


@dataclass(frozen=True)
class Level:
    """What is left of a budget, and when it will be full again."""

    limit: int
    left: int
    full_in: float


class _Second:
    """At most `limit` in any second, wherever that second begins."""

    def __init__(self, limit: float) -> None:
        self.limit, self._taken = limit, deque[float]()

    def left(self) -> float:
        while self._taken and self._taken[0] <= time.monotonic() - 1:
            self._taken.popleft()
        return self.limit - len(self._taken)

    def take(self, amount: float) -> None:
        self._taken.append(time.monotonic())

    def wait(self, amount: float) -> float:
        missing = math.ceil(amount - self.left())
        return self._taken[missing - 1] + 1 - time.monotonic() if missing > 0 else 0.0


class _Bucket:
    """A bucket of a minute's worth, full at first, that fills steadily."""

    def __init__(self, limit: float) -> None:
        self.limit, self._level, self._as_of = limit, limit, time.monotonic()

    def left(self) -> float:
        now = time.monotonic()
        self._level, self._as_of = min(self.limit, self._level + (now - self._as_of) * self.limit / 60), now
        return self._level

    def take(self, amount: float) -> None:
        self._level -= amount

    def wait(self, amount: float) -> float:
        return max(0.0, amount - self.left()) * 60 / self.limit


class RateLimit:
    """Two budgets at most: requests and tokens."""

    def __init__(self, per_second: float | None, tokens_per_minute: float | None, window: str, told: bool) -> None:
        self.told = told  # whether answers and refusals carry headers
        self._budgets: dict[str, tuple[_Second | _Bucket, float]] = {}  # with the limit as headers and messages tell it
        if per_second is not None:
            if window == "second" and per_second < 1:
                raise ValueError("less than one request a second needs window='minute_bucket'")
            # OpenAI quotes requests per minute also where it enforces them by the second.
            self._budgets["requests"] = _Second(per_second) if window == "second" else _Bucket(per_second * 60), per_second * 60
        if tokens_per_minute is not None:
            self._budgets["tokens"] = _Bucket(tokens_per_minute), tokens_per_minute

    def refusal(self, request: Seen) -> TooFast | None:
        """Why not, or None for a request that fits and is booked; refused requests cost nothing."""
        body = request.body if isinstance(request.body, dict) else {}
        # OpenAI's rule: the output that is asked for, or the estimate from the characters where that is more.
        estimate = max(tokens(*request.texts), body.get("max_completion_tokens") or body.get("max_tokens") or 0)
        amounts = {"requests": 1, "tokens": estimate}
        for kind, (budget, limit) in self._budgets.items():
            left, wait, amount = budget.left(), budget.wait(amounts[kind]), amounts[kind]
            if left < amount - 1e-6:
                used = limit * max(0.0, 1 - left / budget.limit)
                return TooFast(kind, str(body.get("model")), limit, used, amount, wait)
        for kind, (budget, _) in self._budgets.items():
            budget.take(amounts[kind])
        return None

    def levels(self) -> dict[str, Level]:
        """How the budgets stand, if that is told at all."""
        budgets = self._budgets.items() if self.told else ()
        return {
            kind: Level(round(limit), max(0, math.floor(budget.left() + 1e-6)), budget.wait(budget.limit))
            for kind, (budget, limit) in budgets
        }
