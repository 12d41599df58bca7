"""As fast as the account allows, and no faster: one ``Limiter`` per account, shared by every run and thread of the process.

Three things hold a request back: a *window* (how many may be in flight), *buckets* (requests and tokens per minute, as the user or the
provider's headers say them), and a *pause* (after a 429). Without headers a fourth is found by trial: the *pace*. A 429 cuts the
pace to just under what went through and remembers that ceiling; it climbs back under it, stays, and looks over it only now and then. The
window alone cannot do this: a provider that answers in a millisecond passes any limit with one request in flight.

No polling: waiters stand in a queue, and one timer wakes the first that can go.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import Busy, Overloaded
from ..event_loop import Clock, LoopClock, Timer
from ..types import Limits

__all__ = ["Bucket", "Limiter", "Permit"]


class Bucket:
    """``level`` of at most ``capacity``, refilled ``per_second``; may go below zero when a true cost is booked later."""

    def __init__(self, capacity: float, per_second: float, now: float, level: float | None = None) -> None:
        self.capacity = capacity
        self.per_second = per_second
        self._level = capacity if level is None else level
        self._at = now

    def level(self, now: float) -> float:
        self._level = min(self.capacity, self._level + (now - self._at) * self.per_second)
        self._at = now
        return self._level

    def take(self, amount: float, now: float) -> None:
        self._level = self.level(now) - amount

    def lower_to(self, level: float, now: float) -> None:
        self._level = min(self.level(now), level)

    def ready_at(self, amount: float, now: float) -> float:
        """The moment when ``amount`` can be taken. More than the capacity may be taken once the bucket is full."""
        lacking = min(amount, self.capacity) - self.level(now)
        if lacking <= 1e-9:
            return now
        return now + lacking / self.per_second if self.per_second > 0 else float("inf")


def _by_hand(per_minute: float, now: float) -> Bucket:
    # A second's worth may go at once. The refill is lowered by that much, so that no 60 seconds, wherever they begin, see more
    # than the limit.
    burst = max(1.0, per_minute / 60)
    refill = max(per_minute - burst, per_minute * 0.5) / 60
    return Bucket(burst, refill, now)


@dataclass(slots=True)
class Permit:
    """Leave to send one request; given back by ``done``."""

    tokens: float
    sent_at: float


#: Seconds at the ceiling before the pace looks over it; doubles each time the ceiling proves true.
_HOLD = 15.0

#: The slowest pace, a request in 20 seconds: trial keys are given ten a minute.
_LEAST = 0.05
_HOLD_MOST = 240.0


class Limiter:
    """One account's live state: window, buckets, pause and pace.

    Parameters
    ----------
    max_concurrency : int
        The window never grows beyond it.
    clock : Clock, optional
        Handed in by tests.
    jitter : callable, optional
        Like ``random.random``; handed in by tests.

    Notes
    -----
    All methods run on the loop's thread, so nothing needs a lock.
    """

    #: Requests in flight before the first answer: a refused key costs no more than these.
    FIRST_WINDOW = 8.0

    def __init__(self, max_concurrency: int = 64, clock: Clock | None = None, jitter: Callable[[], float] = random.random) -> None:
        self.clock: Clock = clock or LoopClock()
        self.max_concurrency = max_concurrency
        self.window = min(self.FIRST_WINDOW, float(max_concurrency))
        self.in_flight = 0
        self.requests: Bucket | None = None
        self.tokens: Bucket | None = None
        self.requests_by_hand = self.tokens_by_hand = self.concurrency_by_hand = False
        self.tokens_per_minute: float | None = None
        self.requests_per_minute: float | None = None
        self.paused_until = 0.0
        #: Connection failures in a row, since the last answer of any kind; the circuit opens on them.
        self.failures = 0
        self.failing_since = 0.0
        #: When the last answer came that was one.
        self.answered_at = float("-inf")
        self._jitter = jitter
        self._waiting: deque[tuple[float, asyncio.Future[Permit]]] = deque()
        self._timer: Timer | None = None
        self._slow_start = True
        self._cut_at = float("-inf")
        self._cuts_in_a_row = 0
        self._pace: Bucket | None = None
        self._ceiling = 0.0
        self._ceiling_at = 0.0
        self._hold = _HOLD
        #: When answers came, over the last second, and how many in each second of the last minute.
        self._recent: deque[float] = deque()
        self._by_second: deque[list[float]] = deque()
        #: Since when requests have been waiting to leave without a break.
        self._busy_since: float | None = None

    # -------------------------------------------------------------------------------------------------------- what is set

    def set_by_hand(self, rpm: float | None = None, tpm: float | None = None, max_concurrency: int | None = None) -> None:
        """Limits that the user states; never exceeded, and never replaced by what headers say."""
        now = self.clock.now()
        if rpm is not None:
            self.requests, self.requests_by_hand, self.requests_per_minute = _by_hand(rpm, now), True, rpm
        if tpm is not None:
            self.tokens, self.tokens_by_hand, self.tokens_per_minute = _by_hand(tpm, now), True, tpm
        if max_concurrency is not None:
            self.max_concurrency, self.concurrency_by_hand = max_concurrency, True
            self.window = min(self.window, float(max_concurrency))

    def allow(self, max_concurrency: int) -> None:
        """A run may want a larger window than the ones before it; a limit set by hand stands."""
        if not self.concurrency_by_hand:
            self.max_concurrency = max(self.max_concurrency, max_concurrency)

    # ------------------------------------------------------------------------------------------------------------ leaving

    def try_acquire(self, tokens: float = 0.0) -> Permit | None:
        """Leave to send now, or ``None`` where the request would have to wait."""
        if self._waiting:
            return None
        now = self.clock.now()
        return self._grant(tokens, now) if self._ready_at(tokens, now) <= now else None

    async def acquire(self, tokens: float = 0.0, first: bool = False) -> Permit:
        """Leave to send, after waiting as long as it takes; ``first`` goes ahead of the others (a row that waited before)."""
        if not first:
            permit = self.try_acquire(tokens)
            if permit is not None:
                return permit
        future: asyncio.Future[Permit] = asyncio.get_running_loop().create_future()
        entry = (tokens, future)
        if first:
            self._waiting.appendleft(entry)
        else:
            self._waiting.append(entry)
            # A row that was sent back waits for its own second try: that is no crowd at the door, and no measure of a pace.
            if self._busy_since is None:
                self._busy_since = self.clock.now()
        self._wake()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self._release()
            raise

    def _ready_at(self, tokens: float, now: float) -> float:
        """When a request of this size could leave; infinity while only an answer can make room."""
        if self.in_flight >= int(self.window):
            return float("inf")
        when = max(now, self.paused_until)
        if self._pace is not None:
            self._climb(now)
            when = max(when, self._pace.ready_at(1.0, now))
        if self.requests is not None:
            when = max(when, self.requests.ready_at(1.0, now))
        if self.tokens is not None:
            when = max(when, self.tokens.ready_at(tokens, now))
        return when

    def _grant(self, tokens: float, now: float) -> Permit:
        self.in_flight += 1
        if self._pace is not None:
            self._pace.take(1.0, now)
        if self.requests is not None:
            self.requests.take(1.0, now)
        if self.tokens is not None:
            self.tokens.take(tokens, now)
        return Permit(tokens, now)

    def _wake(self) -> None:
        """Let go whoever can go now, and set the timer for the next."""
        now = self.clock.now()
        while self._waiting:
            tokens, future = self._waiting[0]
            if future.done():  # its run was stopped
                self._waiting.popleft()
                continue
            when = self._ready_at(tokens, now)
            if when > now:
                self._set_timer(when)
                return
            self._waiting.popleft()
            future.set_result(self._grant(tokens, now))

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if when < float("inf"):
            self._timer = self.clock.call_at(when, self._wake)

    # ----------------------------------------------------------------------------------------------------------- answers

    def _release(self) -> None:
        self.in_flight -= 1
        if self._waiting:
            self._wake()

    def done(self, permit: Permit, tokens: float | None = None, limits: Limits | None = None) -> None:
        """An answer came. ``tokens`` is what it really cost, ``limits`` what its headers said."""
        now = self.answered_at = self.clock.now()
        self.failures = 0
        self._cuts_in_a_row = 0 if permit.sent_at > self._cut_at else self._cuts_in_a_row
        if self.tokens is not None and tokens is not None:
            self.tokens.take(tokens - permit.tokens, now)
        if limits is not None:
            self.learn(limits)
        self._count(now)
        if not self._waiting and self.in_flight < self.max_concurrency:
            self._busy_since = None
        # Grow only while the window is what holds requests back: unused room proves nothing.
        if self.window < self.max_concurrency and self.in_flight >= int(self.window) - 1:
            step = 1.0 if self._slow_start else 1.0 / self.window
            self.window = min(float(self.max_concurrency), self.window + step)
        self._release()

    def _count(self, now: float) -> None:
        recent, by_second = self._recent, self._by_second
        recent.append(now)
        while recent[0] < now - 1.0:
            recent.popleft()
        if by_second and now - by_second[-1][0] < 1.0:
            by_second[-1][1] += 1
        else:
            by_second.append([now, 1])
            if by_second[0][0] < now - 61.0:
                by_second.popleft()

    def abandoned(self, permit: Permit) -> None:
        """No answer will come: the request was cancelled or its connection died."""
        self._release()

    def failed(self, permit: Permit, connection: bool) -> None:
        """The request failed for a reason that says nothing about pace. ``connection``: nothing came back at all."""
        if connection:
            if self.failures == 0:
                self.failing_since = self.clock.now()
            self.failures += 1
        else:
            self.failures = 0
        self._release()

    def slow_down(self, permit: Permit, error: Busy, limits: Limits | None = None) -> None:
        """A 429 or 529 came: pause as asked, narrow the window, and pace to what went through."""
        now = self.clock.now()
        self.failures = 0
        if limits is not None:
            self.learn(limits)
        if error.retry_after:
            self.paused_until = max(self.paused_until, now + error.retry_after)
        if error.per_minute and not self.requests_by_hand and self.requests_per_minute != error.per_minute:
            # Nothing is left of this minute, or there had been no refusal.
            self.requests, self.requests_per_minute = _by_hand(error.per_minute, now), error.per_minute
            self.requests.lower_to(0.0, now)
        # A burst of refusals that left together is one piece of news.
        if permit.sent_at > self._cut_at:
            self._cut(now, error)
        elif not error.retry_after and self.paused_until <= now:
            self.paused_until = now + 0.05 * self._jitter()
        self._release()

    def _cut(self, now: float, error: Busy) -> None:
        self._cut_at = now
        self._slow_start = False
        self._cuts_in_a_row += 1
        self.window = max(1.0, self.window / 2)
        if not error.retry_after:
            # Nobody said how long: a jittered wait that doubles while it does not help. retry-after: 0 lands here too.
            longest = min(30.0, 0.1 * 2.0**self._cuts_in_a_row)
            self.paused_until = max(self.paused_until, now + longest * (0.5 + 0.5 * self._jitter()))
        if isinstance(error, Overloaded) or self.requests is not None or self.tokens is not None:
            return  # their trouble, not our limit; or a limit that is known better than by trial
        while self._recent and self._recent[0] < now - 1.0:
            self._recent.popleft()
        through = self._throughput(now)
        if through is None:
            return  # a single row on an idle account says nothing about how many could go
        if self._pace is None:
            self._hold = _HOLD
        elif now - self._ceiling_at < 2.0 and self._cuts_in_a_row < 4:
            # The burst that the last cut answered still fills the provider's window: no news about the limit itself.
            through = self._ceiling
        else:
            # The pace rises by no more than 2 % a second, so what drew the 429 lies hardly above the limit; what came through in
            # the last second is a rougher measure, good for seeing the limit fall.
            near = 0.98 * self._pace.per_second
            through = near if through > 0.8 * near else min(through, near)
            held = now - self._ceiling_at >= self._hold and abs(through - self._ceiling) < 0.15 * self._ceiling
            self._hold = min(_HOLD_MOST, self._hold * 2) if held else _HOLD
        self._ceiling, self._ceiling_at = through, now
        pace = max(_LEAST, 0.9 * through)
        self._pace = Bucket(max(1.0, pace * 0.05), pace, now, level=0.0)

    def _throughput(self, now: float) -> float | None:
        """Answers a second while requests were waiting to leave: over the last second, or as many as are needed to count ten.

        ``None`` where nobody waits: what came through then is what was asked, not what is allowed.
        """
        if self._busy_since is None:
            return None
        if len(self._recent) >= 10:
            return float(len(self._recent))
        busy = max(1.0, min(60.0, now - self._busy_since))
        answered = sum(count for second, count in self._by_second if second >= now - busy - 1.0)
        return max(_LEAST, answered / busy)

    def _climb(self, now: float) -> None:
        """Back to just under the ceiling within two seconds, rest there, then look over it by 2 % a second."""
        assert self._pace is not None
        since = now - self._ceiling_at
        if since < 2.0:
            share = 0.9 + 0.035 * since
        elif since < self._hold:
            share = 0.97
        else:
            share = min(0.97 * 1.02 ** (since - self._hold), 1e3)
        self._pace.level(now)
        self._pace.per_second = max(_LEAST, share * self._ceiling)
        self._pace.capacity = max(1.0, self._pace.per_second * 0.05)

    # ---------------------------------------------------------------------------------------------------------- learning

    def learn(self, limits: Limits) -> None:
        """Take over what the provider's headers say, unless the user said it first."""
        now = self.clock.now()
        if limits.requests and not self.requests_by_hand:
            # A count that takes hours to come back is a day's quota (Groq's requests), not a pace.
            daily = (limits.requests_reset or 0.0) > 120.0
            if not daily:
                self.requests = self._follow(self.requests, limits.requests, limits.requests_left, now)
                self.requests_per_minute = limits.requests
        if limits.tokens and not self.tokens_by_hand:
            self.tokens = self._follow(self.tokens, limits.tokens, limits.tokens_left, now)
            self.tokens_per_minute = limits.tokens

    def _follow(self, bucket: Bucket | None, per_minute: int, left: int | None, now: float) -> Bucket:
        if bucket is None or bucket.capacity != per_minute:
            # What is still in flight was counted by nobody yet; of requests at least, one each is sure.
            bucket = Bucket(float(per_minute), per_minute / 60, now)
            bucket.take(max(0, self.in_flight - 1), now)
            left = None if left is None else left - max(0, self.in_flight - 1)
        if left is not None:
            bucket.lower_to(float(left), now)
        return bucket
