"""As fast as the account allows, and no faster: one ``Limiter`` per account, shared by every run and thread of the process.

Four things hold a request back: a *window* (how many may be in flight), *budgets* (requests and tokens per minute, as the user or the
provider's headers say them), a *pause* (after a 429), and, once nobody got through for a while, the *circuit*, which lets one request
at a time try. Where no header names a limit a fifth is found by trial: the *pace*. The window alone cannot do this: a provider that
answers in a millisecond passes any limit with one request in flight. How long answers take says nothing: a long answer takes long.

No polling: waiters stand in a queue, and one timer wakes the first that can go.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import Busy, LLMError, Overloaded, QuotaSpent, RateLimited
from ..event_loop import Clock, LoopClock, Timer
from ..types import Allowance, Limits
from .budgets import Budget, Shared
from .pace import Pace

__all__ = ["LONG_PAUSE_SECONDS", "Limiter", "Permit"]

INFINITY = float("inf")

#: A pause beyond this is no wait but a closed door: whoever has another way takes it.
LONG_PAUSE_SECONDS = 120.0

#: So many failures in a row open the circuit: from then on one request at a time looks whether the provider is back.
OPENS_AFTER = 16
LOOK_SECONDS = 0.5
LOOK_MOST_SECONDS = 5.0


@dataclass(slots=True)
class Permit:
    """Leave to send one request; given back by ``done`` and its like.

    ``tokens`` are all that it is taken to cost, ``output`` the part of them that the answer has. The other three count what had ever left
    up to and with it: a provider's count of what is left is as old as the request whose answer tells it.
    """

    tokens: float
    output: float
    sent_at: float
    requests_by_now: float
    tokens_by_now: float
    output_by_now: float


@dataclass(slots=True)
class _Waiter:
    tokens: float
    output: float
    #: Seconds of a pause that it is willing to sit out.
    patience: float
    #: Why it would not be sent any more, if it would not.
    still: Callable[[], LLMError | None]
    future: asyncio.Future[Permit]


class Limiter:
    """One account's live state: window, budgets, pause, circuit and pace.

    Parameters
    ----------
    max_concurrency : int
        The window never grows beyond it.
    clock : Clock, optional
        Handed in by tests.
    jitter : callable, optional
        Like ``random.random``; handed in by tests.
    shared : Shared, optional
        Where other processes of this machine take from limits that were set by hand.

    Notes
    -----
    All methods run on the loop's thread, so nothing needs a lock.
    """

    #: Requests in flight before the first answer: a refused key costs no more than these.
    FIRST_WINDOW = 8.0
    #: By how much the window opens once an eighth of what left since it opened last is answered.
    OPENING = 4.0

    def __init__(
        self,
        max_concurrency: int = 64,
        clock: Clock | None = None,
        jitter: Callable[[], float] = random.random,
        shared: Shared | None = None,
    ) -> None:
        self.clock: Clock = clock or LoopClock()
        self._shared = shared
        self.max_concurrency = max_concurrency
        self.window = min(self.FIRST_WINDOW, float(max_concurrency))
        self.in_flight = 0
        #: Requests, all tokens, tokens in, tokens out: by the minute.
        self.requests: Budget | None = None
        self.tokens: Budget | None = None
        self.input: Budget | None = None
        self.output: Budget | None = None
        self.concurrency_by_hand = False
        self.paused_until = 0.0
        #: Why, where the pause is a long one.
        self.paused_by: LLMError | None = None
        #: Failures in a row, since the last answer; the circuit opens on them.
        self.failures = 0
        self.failing_since = 0.0
        #: When the last answer came that was one.
        self.answered_at = float("-inf")
        #: Requests refused with "too fast", and sent, ever.
        self.refused = self.sent = 0
        self.pace = Pace()
        #: A day's requests that are left, as the provider counted them last; ``None`` where it counts none.
        self.left_today: float | None = None
        self._jitter = jitter
        self._waiting: deque[_Waiter] = deque()
        self._timer: Timer | None = None
        self._slow_start = True
        #: Requests that had left when the window opened last, and answers since to those that left later.
        self._opened_after = 0.0
        self._welcome = 0
        self._cut_at = float("-inf")
        self._cuts_in_a_row = 0
        self._look_at = 0.0
        self._tokens_booked = self._output_booked = 0.0
        #: Since when requests have been waiting to leave without a break.
        self._busy_since: float | None = None

    @property
    def waiting(self) -> int:
        """Requests that wait to leave."""
        return len(self._waiting)

    @property
    def requests_per_minute(self) -> float | None:
        """Requests a minute as the user or the provider says them, ``None`` where nobody did."""
        return None if self.requests is None else self.requests.per_minute

    @property
    def tokens_per_minute(self) -> float | None:
        """The same in tokens, of those in and out where they are counted apart."""
        said = [budget.per_minute for budget in (self.tokens, self.input) if budget is not None]
        return min(said, default=None)

    @property
    def broken(self) -> bool:
        """Whether the circuit is open: nobody got through for a while."""
        return self.failures >= OPENS_AFTER

    # -------------------------------------------------------------------------------------------------------- what is set

    def set_by_hand(self, rpm: float | None = None, tpm: float | None = None, max_concurrency: int | None = None) -> None:
        """Limits that the user states; never exceeded, and never replaced by what headers say."""
        now, shared = self.clock.now(), self._shared
        if rpm is not None:
            self.requests = Budget(rpm, now, by_hand=True, shared=shared, kind="requests")
            # Who knows the limit need not feel for it: a second's worth may be in flight at once.
            self.window = min(max(self.window, rpm / 60), float(self.max_concurrency))
        if tpm is not None:
            self.tokens = Budget(tpm, now, by_hand=True, shared=shared, kind="tokens")
        if max_concurrency is not None:
            self.max_concurrency, self.concurrency_by_hand = max_concurrency, True
            self.window = min(self.window, float(max_concurrency))

    def allow(self, max_concurrency: int) -> None:
        """A run may want a larger window than the ones before it; a limit set by hand stands."""
        if not self.concurrency_by_hand:
            self.max_concurrency = max(self.max_concurrency, max_concurrency)
        if not self.sent:
            # Who asks for hundreds in flight knows of an account that takes them; the way up from eight would cost a second.
            self.window = max(self.window, min(float(max_concurrency), float(self.max_concurrency)) / 8)

    def facts(self) -> dict[str, Any]:
        """What was learned of the account, for the next run."""
        now = self.clock.now()
        said = {"requests": self.requests, "tokens": self.tokens, "input": self.input, "output": self.output}
        known = {name: budget.facts(now) for name, budget in said.items() if budget is not None and budget.counted}
        return {"window": self.window, "pace": self.pace.ceiling, "budgets": known}

    def recall(self, facts: Mapping[str, Any], age: float) -> None:
        """Begin where an earlier run left off, ``age`` seconds ago; a limit set by hand stands.

        Raises
        ------
        LookupError, TypeError, ValueError
            These are no such facts.
        """
        now = self.clock.now()
        if self.sent:
            return  # this process knows better
        for name, said in facts["budgets"].items():
            if name in ("requests", "tokens", "input", "output") and getattr(self, name) is None:
                setattr(self, name, Budget.recalled(said, age, now))
        # A day later the account may have another tier: found anew, from a start that is half as bold.
        window = float(facts["window"]) if age < 86400.0 else float(facts["window"]) / 2
        self.window = max(self.window, min(window, float(self.max_concurrency)))
        if facts["pace"] and age < 86400.0:
            self.pace.start(float(facts["pace"]), now)
            self._slow_start = False

    # ------------------------------------------------------------------------------------------------------------ leaving

    def try_acquire(self, tokens: float = 0.0, output: float = 0.0) -> Permit | None:
        """Leave to send now, or ``None`` where the request would have to wait."""
        if self._waiting:
            return None
        now = self.clock.now()
        return self._grant(tokens, output, now) if self._ready_at(tokens, output, now) <= now else None

    def is_free(self, tokens: float = 0.0, output: float = 0.0) -> bool:
        """Whether a request of this size would not have to wait."""
        now = self.clock.now()
        return not self._waiting and self._ready_at(tokens, output, now) <= now

    async def acquire(
        self,
        tokens: float = 0.0,
        output: float = 0.0,
        first: bool = False,
        patience: float = INFINITY,
        still: Callable[[], LLMError | None] = lambda: None,
    ) -> Permit:
        """Leave to send, after waiting as long as it takes.

        Parameters
        ----------
        tokens, output : float
            All tokens that the request may cost, and those of them that are the answer's.
        first : bool
            Go ahead of the others: a row that waited before.
        patience : float
            Seconds of a pause that are sat out.
        still : callable
            Asked at ``rouse``: an error for a request that is not to be sent any more.

        Raises
        ------
        LLMError
            The account is closed for longer than that: what closed it.
        """
        self._refuse_to_wait(patience)
        if not first:
            permit = self.try_acquire(tokens, output)
            if permit is not None:
                return permit
        future: asyncio.Future[Permit] = asyncio.get_running_loop().create_future()
        waiter = _Waiter(tokens, output, patience, still, future)
        if first:
            self._waiting.appendleft(waiter)
        else:
            self._waiting.append(waiter)
            # A row that was sent back waits for its own second try: that is no crowd at the door, and no measure of a pace.
            if self._busy_since is None:
                self._busy_since = self.clock.now()
        self._wake()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self._release()
            raise

    def rouse(self) -> None:
        """Those who wait look up: whose run has given the account up goes."""
        for waiter in list(self._waiting):
            error = waiter.still()
            if error is not None and not waiter.future.done():
                self._waiting.remove(waiter)
                waiter.future.set_exception(error)

    def _refuse_to_wait(self, patience: float) -> None:
        if self.paused_by is not None and self.paused_until - self.clock.now() > patience:
            raise self.paused_by

    def _turn_away(self, now: float) -> None:
        """Those who will not sit out the pause that just began go elsewhere."""
        if self.paused_by is None:
            return
        staying: deque[_Waiter] = deque()
        for waiter in self._waiting:
            if self.paused_until - now <= waiter.patience:
                staying.append(waiter)
            elif not waiter.future.done():
                waiter.future.set_exception(self.paused_by)
        self._waiting = staying

    def _ready_at(self, tokens: float, output: float, now: float) -> float:
        """When a request of this size could leave; infinity while only an answer can make room."""
        if self.in_flight >= int(self.window):
            return INFINITY
        when = max(now, self.paused_until)
        if self.failures >= OPENS_AFTER:
            if self.in_flight:
                return INFINITY
            when = max(when, self._look_at)
        if self.pace.bucket is not None:
            when = max(when, self.pace.ready_at(now))
        if self.requests is not None:
            when = max(when, self.requests.ready_at(1.0, now))
        if self.tokens is not None:
            when = max(when, self.tokens.ready_at(tokens, now))
        if self.input is not None:
            when = max(when, self.input.ready_at(tokens - output, now))
        if self.output is not None:
            when = max(when, self.output.ready_at(output, now))
        return when

    def _grant(self, tokens: float, output: float, now: float) -> Permit:
        self.in_flight += 1
        self.sent += 1
        self._tokens_booked += tokens
        self._output_booked += output
        self.pace.went(now)
        if self.requests is not None:
            self.requests.take(1.0, now)
        if self.tokens is not None:
            self.tokens.take(tokens, now)
        if self.input is not None:
            self.input.take(tokens - output, now)
        if self.output is not None:
            self.output.take(output, now)
        return Permit(tokens, output, now, self.sent, self._tokens_booked, self._output_booked)

    def _wake(self) -> None:
        """Let go whoever can go now, and set the timer for the next."""
        now = self.clock.now()
        while self._waiting:
            waiter = self._waiting[0]
            if waiter.future.done():  # its run was stopped
                self._waiting.popleft()
                continue
            when = self._ready_at(waiter.tokens, waiter.output, now)
            if when > now:
                self._set_timer(when)
                return
            self._waiting.popleft()
            waiter.future.set_result(self._grant(waiter.tokens, waiter.output, now))

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if when < INFINITY:
            self._timer = self.clock.call_at(when, self._wake)

    # ----------------------------------------------------------------------------------------------------------- answers

    def _release(self) -> None:
        self.in_flight -= 1
        if self._waiting:
            self._wake()

    def done(self, permit: Permit, tokens: float | None = None, output: float | None = None, limits: Limits | None = None) -> None:
        """An answer came. ``tokens`` is what it really cost, ``output`` the answer's part of it, ``limits`` what its headers said."""
        now = self.answered_at = self.clock.now()
        self.failures = 0
        if permit.sent_at > self._cut_at:
            self._cuts_in_a_row = 0
        if tokens is not None:
            self._settle(permit, tokens, permit.output if output is None else output, now)
        if limits is not None:
            self.learn(limits, permit)
        if not self._waiting and self.in_flight < self.max_concurrency:
            self._busy_since = None
        # Grow only while the window is what holds requests back: unused room proves nothing.
        if self.window < self.max_concurrency and self.in_flight >= int(self.window) - 1:
            self._widen(permit)
        self._release()

    def _settle(self, permit: Permit, tokens: float, output: float, now: float) -> None:
        # Where the provider counts, its count holds what it booked, and that is not always what was used.
        if self.tokens is not None and not self.tokens.counted:
            self.tokens.take(tokens - permit.tokens, now)
        if self.input is not None and not self.input.counted:
            self.input.take(tokens - output - permit.tokens + permit.output, now)
        if self.output is not None and not self.output.counted:
            self.output.take(output - permit.output, now)

    def _widen(self, permit: Permit) -> None:
        if not self._slow_start:
            # Where a pace holds requests back, the window need not.
            step = 1.0 if self.pace.bucket is not None else 1.0 / self.window
            self.window = min(float(self.max_concurrency), self.window + step)
        elif permit.requests_by_now > self._opened_after:
            # A few answers to what left since the last step show that so many at once are welcome; a budget with room for all shows it too.
            self._welcome += 1
            if self._roomy():
                self.window = float(self.max_concurrency)
            elif self._welcome >= min(self.window, self.sent - self._opened_after) / 8:
                self._opened_after, self._welcome = self.sent, 0
                self.window = min(float(self.max_concurrency), self.window * self.OPENING)

    def _roomy(self) -> bool:
        """Whether the provider says that there is room for several windows."""
        said = self.requests
        return said is not None and said.counted and not said.short and said.bucket.level(self.clock.now()) > 4 * self.max_concurrency

    def abandoned(self, permit: Permit) -> None:
        """No answer will come: the request was cancelled before it was sent."""
        self._release()

    def failed(self, permit: Permit, outage: bool) -> None:
        """No usable answer came. ``outage``: as it would be if the provider were down; else it is this request's own trouble."""
        now = self.clock.now()
        if outage:
            self._fail(permit)
            if self.broken:
                wait = min(LOOK_MOST_SECONDS, LOOK_SECONDS * 2.0 ** min(self.failures - OPENS_AFTER, 10))
                self._look_at = now + wait * (0.5 + 0.5 * self._jitter())
        else:
            self.failures = 0
        self._release()

    def _fail(self, permit: Permit) -> None:
        if self.failures == 0:
            self.failing_since = permit.sent_at
        self.failures += 1

    def slow_down(self, permit: Permit, error: Busy, limits: Limits | None = None) -> None:
        """A 429 or 529 came: pause as asked, narrow the window, and pace to what went through."""
        now = self.clock.now()
        if isinstance(error, Overloaded):
            self._fail(permit)
        else:
            self.failures = 0
            self.refused += 1
        self.pace.came_back(permit.sent_at)
        news = self._is_news(now)
        self._give_back(permit, now)
        if error.per_minute and self.requests_per_minute != error.per_minute and not (self.requests and self.requests.by_hand):
            # Nothing is left of this minute, or there had been no refusal.
            self.requests = self._of_all(Budget(error.per_minute, now, even=True), "requests")
            self.requests.bucket.lower_to(0.0, now)
        if limits is not None:
            self.learn(limits, permit)
        if self._shared is not None and isinstance(error, RateLimited):
            self._shared.refused(error.retry_after)
        if error.retry_after:
            self._pause(now + error.retry_after, error)
        if isinstance(error, RateLimited) and not news:
            for budget in (self.requests, self.tokens, self.input, self.output):
                if budget is not None:
                    budget.refused(permit.sent_at, now)
        # A burst of refusals that left together is one piece of news.
        if permit.sent_at > self._cut_at:
            self._cut(permit, now, error, news)
            self._release()
            return
        self.pace.refused_too(now, self._busy_since)
        if not error.retry_after and self.paused_until <= now:
            self.paused_until = now + 0.05 * self._jitter()
        self._release()

    def _give_back(self, permit: Permit, now: float) -> None:
        """What is refused is not booked by those who say what they count."""
        for budget, amount in (
            (self.requests, 1.0),
            (self.tokens, permit.tokens),
            (self.input, permit.tokens - permit.output),
            (self.output, permit.output),
        ):
            if budget is not None and budget.counted:
                budget.take(-amount, now)

    def _pause(self, until: float, error: LLMError) -> None:
        now = self.clock.now()
        self.paused_until = max(self.paused_until, until)
        if self.paused_until - now > LONG_PAUSE_SECONDS:
            self.paused_by = error
            self._turn_away(now)
        else:
            self.paused_by = None

    def _is_news(self, now: float) -> bool:
        """Whether a refusal tells more than the known limits do."""
        known = [budget for budget in (self.requests, self.tokens, self.input, self.output) if budget is not None]
        return not known or all(budget.counted and not budget.short and budget.roomy(now) for budget in known)

    def _cut(self, permit: Permit, now: float, error: Busy, news: bool) -> None:
        self._cut_at = now
        self._slow_start = False
        self._cuts_in_a_row += 1
        known = self.requests is not None or self.tokens is not None or self.input is not None
        if not known or news or self._cuts_in_a_row > 2 or isinstance(error, Overloaded):
            self.window = max(1.0, self.window / 2)
        if not error.retry_after:
            # Nobody said how long: a jittered wait that doubles while it does not help. retry-after: 0 lands here too.
            longest = min(30.0, 0.1 * 2.0**self._cuts_in_a_row)
            self.paused_until = max(self.paused_until, now + longest * (0.5 + 0.5 * self._jitter()))
        if isinstance(error, Overloaded) or not news:
            return  # their trouble, not our limit; or a limit that is known better than by trial
        most = self.requests.per_minute / 60 if self.requests is not None else None
        self.pace.refused(permit.sent_at, now, self._busy_since, self._cuts_in_a_row, most)

    # ---------------------------------------------------------------------------------------------------------- learning

    def learn(self, limits: Limits, permit: Permit) -> None:
        """Take over what the headers of this request's answer say, unless the user said it first."""
        now = self.clock.now()
        if limits.requests is not None:
            if limits.requests.per_day or (self.requests is None and Budget.told(limits.requests, now) is None):
                self._learn_day(limits.requests, permit, now)
            else:
                self.requests = self._followed("requests", limits.requests, permit, permit.requests_by_now, self.sent, now)
        if limits.tokens is not None:
            self.tokens = self._followed("tokens", limits.tokens, permit, permit.tokens_by_now, self._tokens_booked, now)
        if limits.input is not None:
            by_now, all_booked = permit.tokens_by_now - permit.output_by_now, self._tokens_booked - self._output_booked
            self.input = self._followed("input", limits.input, permit, by_now, all_booked, now)
        if limits.output is not None:
            self.output = self._followed("output", limits.output, permit, permit.output_by_now, self._output_booked, now)

    def _followed(self, kind: str, said: Allowance, permit: Permit, by_now: float, booked: float, now: float) -> Budget | None:
        budget: Budget | None = getattr(self, kind)
        if budget is None:
            budget = Budget.told(said, now)
            if budget is not None:
                self._of_all(budget, kind)
        if budget is not None:
            budget.follow(said, permit.sent_at, booked - by_now, by_now, now)
        return budget

    def _of_all(self, budget: Budget, kind: str) -> Budget:
        """A limit of the provider's, which workers on other machines take from as well."""
        if self._shared is not None and self._shared.everywhere:
            budget.share(self._shared, kind)
        return budget

    def told(self) -> dict[str, float]:
        """Limits that the provider itself said: a minute's worth, by what is counted."""
        said = {"requests": self.requests, "tokens": self.tokens, "input": self.input, "output": self.output}
        return {kind: budget.per_minute for kind, budget in said.items() if budget is not None and not budget.by_hand}

    def hear(self, told: Mapping[str, float], pause: float) -> None:
        """What another process learned of this account: limits, and seconds for which nobody is to send."""
        now = self.clock.now()
        for kind in ("requests", "tokens", "input", "output"):
            if kind in told and getattr(self, kind) is None:
                setattr(self, kind, self._of_all(Budget(told[kind], now, even=True), kind))
        self.paused_until = max(self.paused_until, now + pause)

    def _learn_day(self, said: Allowance, permit: Permit, now: float) -> None:
        """A day's quota is no pace; once it is used up, the account is closed until it comes back."""
        if said.left is None:
            return
        self.left_today = said.left - (self.sent - permit.requests_by_now)
        if said.left <= 0 and said.reset:
            spent = QuotaSpent("the day's requests of this account are used up", retry_after=said.reset)
            self._pause(now + said.reset, spent)
