"""A provider's side of a rate limit, under a hand-turned clock: what an account is allowed, in the shapes in which providers enforce it."""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from dataclasses import dataclass, field

from llmkit.engine.limiter import Limiter
from llmkit.errors import RateLimited
from llmkit.testing import ManualClock
from llmkit.types import Allowance, Limits

LATENCY = 0.4


class Window:
    """So much in any ``seconds``, wherever they begin. ``seen`` is what headers call the limit, by the minute."""

    def __init__(self, per_minute: float, seconds: float = 1.0, tells_the_minute: bool = False) -> None:
        self.per_minute, self.seconds = per_minute, seconds
        self.most = per_minute * seconds / 60
        self.tells_the_minute = tells_the_minute
        self._taken: deque[tuple[float, float]] = deque()
        self._sum = 0.0

    def left(self, now: float) -> float:
        while self._taken and self._taken[0][0] <= now - self.seconds:
            self._sum -= self._taken.popleft()[1]
        return self.most - self._sum

    def take(self, amount: float, now: float) -> None:
        self._taken.append((now, amount))
        self._sum += amount

    def said(self, now: float) -> Allowance:
        left = self.left(now)
        reset = self._taken[-1][0] + self.seconds - now if self._taken else 0.0
        if self.tells_the_minute:
            return Allowance(int(self.per_minute), int(self.per_minute - self.most + left), reset)
        return Allowance(int(self.per_minute), max(0, math.floor(left)), reset)


class Bucket:
    """A minute's worth that starts full and fills steadily."""

    def __init__(self, per_minute: float) -> None:
        self.per_minute = self._level = per_minute
        self._at = 0.0

    def left(self, now: float) -> float:
        self._level = min(self.per_minute, self._level + (now - self._at) * self.per_minute / 60)
        self._at = now
        return self._level

    def take(self, amount: float, now: float) -> None:
        self._level = self.left(now) - amount

    def said(self, now: float) -> Allowance:
        left = self.left(now)
        return Allowance(int(self.per_minute), max(0, math.floor(left)), (self.per_minute - left) * 60 / self.per_minute)


@dataclass
class Account:
    """Admits or refuses; an answer takes a lognormal while, a refusal a millisecond, or as long as an answer."""

    clock: ManualClock
    requests: Window | Bucket | None = None
    tokens: Window | Bucket | None = None
    headers: bool = True
    latency: float = LATENCY
    spread: float = 0.5
    refuses_late: bool = False
    retry_after: float | None = None
    draw: random.Random = field(default_factory=lambda: random.Random(7))
    served: int = 0
    refused: int = 0
    #: How long the answers took, in the order of admission.
    took: list[float] = field(default_factory=list)

    def _after(self, seconds: float) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.clock.call_at(self.clock.now() + seconds, lambda: None if future.done() else future.set_result(None))
        return future

    def _said(self) -> Limits | None:
        if not self.headers:
            return None
        now = self.clock.now()
        return Limits(
            requests=None if self.requests is None else self.requests.said(now),
            tokens=None if self.tokens is None else self.tokens.said(now),
        )

    async def ask(self, tokens: float = 0.0) -> Limits | None:
        """What the headers say, once the answer is there; raises ``RateLimited``."""
        await self._after(0.0005)
        now = self.clock.now()
        pairs = [(budget, amount) for budget, amount in ((self.requests, 1.0), (self.tokens, tokens)) if budget is not None]
        after = self.latency * math.exp(self.spread * self.draw.gauss(0, 1))
        if any(budget.left(now) < amount - 1e-9 for budget, amount in pairs):
            self.refused += 1
            limits = self._said()
            await self._after(after if self.refuses_late else 0.0005)
            error = RateLimited("", retry_after=self.retry_after)
            error.limits = limits
            raise error
        for budget, amount in pairs:
            budget.take(amount, now)
        self.served += 1
        self.took.append(after)
        limits = self._said()
        await self._after(after)
        return limits


async def send(
    account: Account, limiter: Limiter, rows: int, tokens: float = 0.0, estimate: float | None = None, workers: int = 64
) -> float:
    """Send ``rows`` rows as a run would; the seconds it took. ``estimate`` is what the client takes a row's tokens for."""
    clock, left, began = account.clock, iter(range(rows)), account.clock.now()
    known = estimate if estimate is not None else tokens
    replies = 0

    async def worker() -> None:
        nonlocal known, replies
        for _ in left:
            again = False
            while True:
                permit = await limiter.acquire(known, first=again)
                try:
                    limits = await account.ask(tokens)
                except RateLimited as error:
                    limiter.slow_down(permit, error, error.limits)
                    again = True
                    continue
                replies += 1
                known += max(0.05, 1 / replies) * (tokens - known)  # as an account learns from usage
                limiter.done(permit, tokens, limits=limits)
                break

    at_work = [asyncio.create_task(worker()) for _ in range(workers)]
    while not all(task.done() for task in at_work):
        for _ in range(6):
            await asyncio.sleep(0)
        if clock.next_alarm is not None:
            clock.advance(max(0.0, clock.next_alarm - clock.now()))
    await asyncio.gather(*at_work)
    return clock.now() - began


def ideal(account: Account, tokens: float) -> float:
    """Seconds until the last row that was served could be there: each admitted as soon as the budgets allow, answered as it was."""

    def admitted(row: int) -> float:
        waits = [0.0]
        for budget, amount in ((account.requests, 1.0), (account.tokens, tokens)):
            if budget is not None:
                at_once = budget.per_minute if isinstance(budget, Bucket) else amount
                waits.append(((row + 1) * amount - at_once) * 60 / budget.per_minute)
        return max(waits)

    return max(admitted(row) + seconds for row, seconds in enumerate(account.took))
