"""The limiter under a hand-turned clock: what may leave when, and what it learns from answers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from llmkit.engine.budgets import Bucket
from llmkit.engine.limiter import Limiter, Permit
from llmkit.errors import Overloaded, RateLimited
from llmkit.testing import ManualClock
from llmkit.types import Allowance, Limits


def limiter_of(clock: ManualClock, max_concurrency: int = 64) -> Limiter:
    return Limiter(max_concurrency, clock, jitter=lambda: 1.0)


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(coroutine)


async def settle() -> None:
    """Let tasks that were just woken run."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_a_bucket_refills_with_time_and_never_beyond_its_capacity() -> None:
    bucket = Bucket(capacity=10, per_second=2, now=0)
    bucket.take(10, now=0)
    assert bucket.level(now=3) == 6
    assert bucket.level(now=100) == 10


def test_a_bucket_says_when_an_amount_can_be_taken() -> None:
    bucket = Bucket(capacity=10, per_second=2, now=0)
    bucket.take(10, now=0)
    assert bucket.ready_at(4, now=0) == 2


def test_more_than_a_bucket_holds_may_go_once_it_is_full() -> None:
    bucket = Bucket(capacity=10, per_second=2, now=0)
    assert bucket.ready_at(50, now=0) == 0
    bucket.take(50, now=0)
    assert bucket.ready_at(1, now=0) == pytest.approx(20.5)


def test_the_first_window_is_small_so_that_a_refused_key_costs_a_handful() -> None:
    limiter = limiter_of(ManualClock())
    permits = [limiter.try_acquire() for _ in range(20)]
    assert sum(permit is not None for permit in permits) == Limiter.FIRST_WINDOW


def test_the_window_grows_while_it_is_what_holds_requests_back() -> None:
    clock = ManualClock()
    limiter = limiter_of(clock)
    permits: deque[Permit] = deque()
    for _ in range(200):
        while (permit := limiter.try_acquire()) is not None:
            permits.append(permit)
        clock.advance(0.01)
        limiter.done(permits.popleft())
    assert limiter.window == 64


def test_the_window_does_not_grow_while_nobody_waits() -> None:
    limiter = limiter_of(ManualClock())
    for _ in range(100):
        permit = limiter.try_acquire()
        assert permit is not None
        limiter.done(permit)
    assert limiter.window == Limiter.FIRST_WINDOW


def test_a_429_pauses_everybody_for_as_long_as_it_asks() -> None:
    clock = ManualClock()
    limiter = limiter_of(clock)
    refused = limiter.try_acquire()
    assert refused is not None
    limiter.slow_down(refused, RateLimited("", retry_after=2.0))
    clock.advance(1.99)
    assert limiter.try_acquire() is None
    clock.advance(0.02)
    assert limiter.try_acquire() is not None


def test_a_burst_of_429s_that_left_together_halves_the_window_once() -> None:
    clock = ManualClock()
    limiter = limiter_of(clock)
    burst = [limiter.try_acquire() for _ in range(8)]
    clock.advance(0.1)
    for permit in burst:
        assert permit is not None
        limiter.slow_down(permit, RateLimited("", retry_after=1.0))
    assert limiter.window == Limiter.FIRST_WINDOW / 2


def test_a_retry_after_of_zero_still_waits_a_moment() -> None:
    clock = ManualClock()
    limiter = limiter_of(clock)
    permit = limiter.try_acquire()
    assert permit is not None
    limiter.slow_down(permit, RateLimited("", retry_after=0.0))
    assert limiter.try_acquire() is None
    clock.advance(2.0)
    assert limiter.try_acquire() is not None


def test_waiters_go_in_order_and_one_that_waited_before_goes_first() -> None:
    async def story() -> list[str]:
        clock = ManualClock()
        limiter = limiter_of(clock, max_concurrency=1)
        held = await limiter.acquire()
        went: list[str] = []

        async def wants(name: str, first: bool = False) -> None:
            permit = await limiter.acquire(first=first)
            went.append(name)
            limiter.done(permit)

        tasks = [asyncio.create_task(wants("a")), asyncio.create_task(wants("b"))]
        await settle()
        tasks.append(asyncio.create_task(wants("again", first=True)))
        await settle()
        limiter.done(held)
        await asyncio.gather(*tasks)
        return went

    assert run(story()) == ["again", "a", "b"]


def test_a_waiter_that_is_cancelled_gives_its_place_back() -> None:
    async def story() -> int:
        limiter = limiter_of(ManualClock(), max_concurrency=1)
        held = await limiter.acquire()
        waiting = asyncio.create_task(limiter.acquire())
        await settle()
        limiter.done(held)  # granted, and cancelled before it could use it
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        return limiter.in_flight

    assert run(story()) == 0


def test_a_limit_set_by_hand_is_never_exceeded_over_any_minute() -> None:
    async def story() -> list[float]:
        clock = ManualClock()
        limiter = limiter_of(clock)
        limiter.set_by_hand(rpm=60)
        left: list[float] = []

        async def wants() -> None:
            permit = await limiter.acquire()
            left.append(clock.now())
            limiter.done(permit)

        tasks = [asyncio.create_task(wants()) for _ in range(200)]
        await settle()
        while len(left) < 200:
            assert clock.next_alarm is not None
            clock.advance(max(0.0, clock.next_alarm - clock.now()))
            await settle()
        await asyncio.gather(*tasks)
        return left

    left = run(story())
    busiest = max(sum(start <= moment < start + 60 for moment in left) for start in left)
    assert busiest <= 60
    assert len(left) / (left[-1] - left[0]) * 60 > 57  # and hardly less is used


def test_token_limits_hold_back_by_estimate_and_are_settled_by_what_was_used() -> None:
    clock = ManualClock()
    limiter = limiter_of(clock)
    limiter.set_by_hand(tpm=6000)  # 100 tokens a second
    permit = limiter.try_acquire(tokens=100)
    assert permit is not None
    limiter.done(permit, tokens=300)  # three times what was estimated: paid back before the next goes
    assert limiter.try_acquire(tokens=100) is None
    clock.advance(2.9)
    assert limiter.try_acquire(tokens=100) is None
    clock.advance(0.5)
    assert limiter.try_acquire(tokens=100) is not None


def test_limits_are_learned_from_headers_even_on_success() -> None:
    limiter = limiter_of(ManualClock())
    permit = limiter.try_acquire()
    assert permit is not None
    limiter.done(permit, limits=Limits(tokens=Allowance(15000, 3028, 47.888)))
    assert limiter.tokens_per_minute == 15000
    assert limiter.tokens is not None
    assert limiter.tokens.bucket.level(0.0) == 3028


@pytest.mark.parametrize(("left_in", "left_out"), [(39_000, 0), (0, 7_900)], ids=["no output left", "no input left"])
def test_tokens_in_and_out_are_budgets_of_their_own_and_a_request_waits_for_the_one_that_it_lacks(left_in: int, left_out: int) -> None:
    clock = ManualClock()
    limiter = limiter_of(clock)
    permit = limiter.try_acquire(1100, output=100)
    assert permit is not None
    limiter.done(permit, 1100, 100, Limits(input=Allowance(40_000, left_in, 60.0), output=Allowance(8_000, left_out, 60.0)))
    assert limiter.try_acquire(1100, output=100) is None
    seconds = 100 / 8_000 * 60 if left_out == 0 else 1000 / 40_000 * 60
    clock.advance(0.9 * seconds)
    assert limiter.try_acquire(1100, output=100) is None
    clock.advance(0.1 * seconds + 0.2)
    assert limiter.try_acquire(1100, output=100) is not None


def test_a_count_that_takes_hours_to_come_back_is_no_pace() -> None:
    limiter = limiter_of(ManualClock())
    permit = limiter.try_acquire()
    assert permit is not None
    limiter.done(permit, limits=Limits(requests=Allowance(14400, 14370, 179.56)))
    assert limiter.requests is None


def test_a_limit_that_only_the_refusal_tells_is_kept_over_any_minute() -> None:
    clock = ManualClock()
    limiter = limiter_of(clock)
    permit = limiter.try_acquire()
    assert permit is not None
    refusal = RateLimited("a trial key has 10 calls a minute", retry_after=6.0)
    refusal.per_minute = 10.0
    limiter.slow_down(permit, refusal)
    left: list[float] = []
    while clock.now() < 600.0:
        granted = limiter.try_acquire()
        if granted is None:
            clock.advance(0.25)
        else:
            left.append(clock.now())
            limiter.done(granted)
    assert max(sum(start <= at < start + 60.0 for at in left) for start in left) <= 10
    assert len(left) > 80, "and the limit is used"


def test_headers_never_replace_a_limit_set_by_hand() -> None:
    limiter = limiter_of(ManualClock())
    limiter.set_by_hand(rpm=30)
    permit = limiter.try_acquire()
    assert permit is not None
    limiter.done(permit, limits=Limits(requests=Allowance(500, 499)))
    assert limiter.requests_per_minute == 30


def test_an_overload_does_not_lower_the_pace_for_good() -> None:
    clock = ManualClock()
    limiter = limiter_of(clock)
    permit = limiter.try_acquire()
    assert permit is not None
    limiter.slow_down(permit, Overloaded(""))
    clock.advance(5.0)
    allowed = 0
    for _ in range(50):
        permit = limiter.try_acquire()
        if permit is not None:
            allowed += 1
            limiter.done(permit)
    assert allowed == 50


def test_a_row_that_is_sent_back_several_times_waits_for_itself_and_not_for_a_pace() -> None:
    clock = ManualClock()
    limiter = limiter_of(clock)

    async def scenario() -> None:
        for _ in range(4):
            waiting = asyncio.ensure_future(limiter.acquire(first=True))
            while not waiting.done():
                await settle()
                if not waiting.done():
                    clock.advance(0.05)
            limiter.slow_down(waiting.result(), RateLimited(""))

    run(scenario())
    assert clock.now() < 5.0, "the jittered waits alone, not a request in twenty seconds"


def test_a_single_429_on_an_idle_account_does_not_slow_the_next_rows() -> None:
    clock = ManualClock()
    limiter = limiter_of(clock)
    for _ in range(2):
        permit = limiter.try_acquire()
        assert permit is not None
        limiter.slow_down(permit, RateLimited("", retry_after=0.06))
        clock.advance(0.1)
    left = 0
    while left < 40:
        permit = limiter.try_acquire()
        if permit is None:
            clock.advance(0.01)
            continue
        left += 1
        limiter.done(permit)
    assert clock.now() < 1.0


class Server:
    """A provider that allows so many requests in any so many seconds and answers after a while; time is the test's."""

    def __init__(self, clock: ManualClock, most: int, latency: float, retry_after: float | None, seconds: float = 1.0) -> None:
        self.clock = clock
        self.most = most
        self.seconds = seconds
        self.latency = latency
        self.retry_after = retry_after
        self.allowed: deque[float] = deque()
        self.served = self.refused = 0

    def ask(self, then: Callable[[bool], None]) -> None:
        now = self.clock.now()
        while self.allowed and self.allowed[0] <= now - self.seconds:
            self.allowed.popleft()
        if len(self.allowed) < self.most:
            self.allowed.append(now)
            self.served += 1
            self.clock.call_at(now + self.latency, lambda: then(True))
        else:
            self.refused += 1
            self.clock.call_at(now + 0.001, lambda: then(False))


async def all_rows(server: Server, clock: ManualClock, rows: int) -> float:
    """Send ``rows`` rows as a run would; the seconds it took."""
    limiter = Limiter(64, clock, jitter=lambda: 0.5)

    async def row() -> None:
        again = False
        while True:
            permit = await limiter.acquire(first=again)
            answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            server.ask(answer.set_result)
            if await answer:
                limiter.done(permit)
                return
            limiter.slow_down(permit, RateLimited("", retry_after=server.retry_after))
            again = True

    async def worker(count: int) -> None:
        for _ in range(count):
            await row()

    workers = [asyncio.create_task(worker(rows // 64 + (number < rows % 64))) for number in range(64)]
    while not all(task.done() for task in workers):
        await settle()
        if clock.next_alarm is not None:
            clock.advance(max(0.0, clock.next_alarm - clock.now()))
    await asyncio.gather(*workers)
    return clock.now()


@pytest.mark.parametrize("retry_after", [None, 0.5], ids=["no hint", "retry-after"])
@pytest.mark.parametrize("latency", [0.005, 0.4], ids=["quick", "slow"])
def test_a_limit_that_nobody_names_is_found_by_trial(latency: float, retry_after: float | None) -> None:
    """RL21: 60 a second enforced by 429s alone; under 5 % are wasted and over 90 % of the limit is used, no row fails."""
    clock = ManualClock()
    server = Server(clock, 60, latency, retry_after)
    seconds = run(all_rows(server, clock, 10_000))
    wasted = server.refused / (server.served + server.refused)
    used = server.served / seconds / 60
    print(f"wasted {wasted:.1%}, used {used:.1%} of the limit in {seconds:.0f} s")
    assert server.served == 10_000
    assert wasted < 0.05
    assert used > 0.90


@pytest.mark.parametrize("most", [10, 100], ids=["trial key", "small account"])
def test_a_limit_of_a_few_a_minute_is_kept_without_hammering(most: int) -> None:
    """A trial key allows ten requests a minute and says nothing of it: no row is lost, and few requests are refused."""
    clock = ManualClock()
    server = Server(clock, most, 0.3, None, seconds=60.0)
    seconds = run(all_rows(server, clock, 10 * most))
    wasted = server.refused / (server.served + server.refused)
    ideal = 9 * 60.0
    print(f"wasted {wasted:.1%}, {seconds / ideal:.2f}x the ideal time")
    assert server.served == 10 * most
    assert wasted < 0.40  # a third of it is the second window, which opens on the first answers
    assert seconds < 2 * ideal
