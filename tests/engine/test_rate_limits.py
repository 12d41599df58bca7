"""Two thousand rows under a real account's limits, on a hand-turned clock: both shapes of enforcement, with headers and without.

3,000 requests and 150,000 tokens a minute, a hundred tokens a row, answers in 0.4 s in the middle. What is asserted is the time beside
that of a client who knows the account (``accounts.ideal``), and the requests that were refused.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from llmkit.engine.budgets import Budget
from llmkit.engine.limiter import Limiter
from llmkit.testing import ManualClock
from llmkit.types import Allowance

from .accounts import Account, Bucket, Window, ideal, send

ROWS = 2000

#: Requests and tokens as the provider counts them.
SHAPES: dict[str, Callable[[], tuple[Window | Bucket, Window | Bucket]]] = {
    "requests by the second": lambda: (Window(3000), Bucket(150_000)),
    "both by the second": lambda: (Window(3000), Window(150_000)),
    "buckets of a minute": lambda: (Bucket(3000), Bucket(150_000)),
    "by the second, and headers that tell the minute": lambda: (Window(3000, tells_the_minute=True), Bucket(150_000)),
}
HONEST = [shape for shape in SHAPES if "headers" not in shape]


@dataclass
class Went:
    """How a run went: seconds beside the ideal, and the share of requests that was refused."""

    times: float
    wasted: float
    limiter: Limiter


def went(
    shape: str,
    *,
    headers: bool,
    told: bool = False,
    estimate: float = 100.0,
    late: bool = False,
    seed: int = 7,
    retry_after: float | None = None,
) -> Went:
    async def story() -> Went:
        clock = ManualClock()
        requests, tokens = SHAPES[shape]()
        account = Account(clock, requests, tokens, headers, refuses_late=late, retry_after=retry_after, draw=random.Random(seed))
        limiter = Limiter(64, clock, jitter=random.Random(seed).random)
        if told:
            limiter.set_by_hand(rpm=3000, tpm=150_000)
        seconds = await send(account, limiter, ROWS, tokens=100.0, estimate=estimate)
        assert account.served == ROWS
        found = Went(seconds / ideal(account, 100.0), account.refused / ROWS, limiter)
        print(f"{found.times:.3f}x the ideal, {found.wasted:.2%} refused")
        return found

    return asyncio.run(story())


@pytest.mark.parametrize("late", [False, True], ids=["refused at once", "refused late"])
@pytest.mark.parametrize("shape", HONEST)
def test_with_headers_the_account_is_used_up_and_next_to_nothing_refused(shape: str, late: bool) -> None:
    found = went(shape, headers=True, late=late)
    assert found.times <= 1.05
    assert found.wasted <= 0.01


@pytest.mark.parametrize("shape", HONEST)
def test_a_limit_that_is_told_as_it_is_costs_no_time_and_draws_hardly_a_refusal(shape: str) -> None:
    found = went(shape, headers=True, told=True)
    assert found.times <= 1.03
    assert found.wasted <= 0.001


@pytest.mark.parametrize("estimate", [50.0, 200.0], ids=["half", "twice"])
@pytest.mark.parametrize("shape", HONEST)
def test_tokens_that_are_estimated_wrong_by_two_at_the_start_cost_little(shape: str, estimate: float) -> None:
    assert went(shape, headers=True, estimate=estimate).times <= 1.10


@pytest.mark.parametrize("retry_after", [None, 0.02, 0.5], ids=["no hint", "20 ms", "500 ms"])
@pytest.mark.parametrize("late", [False, True], ids=["refused at once", "refused late"])
@pytest.mark.parametrize("shape", HONEST)
def test_without_any_header_the_limit_is_found_by_trial(shape: str, late: bool, retry_after: float | None) -> None:
    found = went(shape, headers=False, late=late, retry_after=retry_after)
    assert found.times <= 1.15
    assert found.wasted <= 0.05


@pytest.mark.parametrize("seed", range(6))
def test_a_short_window_behind_headers_that_tell_of_a_minute_is_found_all_the_same(seed: int) -> None:
    found = went("by the second, and headers that tell the minute", headers=True, seed=seed)
    assert found.times <= 1.15
    assert found.wasted <= 0.05


# ------------------------------------------------------------------------------------------------------ what headers amount to


def test_what_is_left_says_whether_a_limit_is_a_bucket_or_a_short_window() -> None:
    bucket, window = Budget(3000, 0.0), Budget(3000, 0.0)
    bucket.follow(Allowance(3000, 2999, 0.02), sent_at=0.0, since=0.0, booked=1.0, now=0.4)
    window.follow(Allowance(3000, 49, 1.0), sent_at=0.0, since=0.0, booked=1.0, now=0.4)
    assert not bucket.short
    assert bucket.ready_at(2000, 0.4) == 0.4, "all that is left may go at once"
    assert window.short
    assert window.bucket.per_second == pytest.approx(50, rel=0.02)


def test_the_providers_count_is_corrected_by_what_left_since() -> None:
    budget = Budget(6000, 0.0)
    budget.follow(Allowance(6000, 1000, 50.0), sent_at=10.0, since=300.0, booked=5000.0, now=10.5)
    assert budget.bucket.level(10.5) == pytest.approx(1000 - 300 + 50)


def test_an_older_count_than_the_last_is_passed_over() -> None:
    budget = Budget(6000, 0.0)
    budget.follow(Allowance(6000, 1000, 50.0), sent_at=10.0, since=0.0, booked=5000.0, now=10.0)
    budget.follow(Allowance(6000, 3000, 30.0), sent_at=5.0, since=0.0, booked=2500.0, now=10.0)
    assert budget.bucket.level(10.0) == 1000


def test_tokens_that_the_provider_books_beyond_the_estimate_are_learned_from_its_count() -> None:
    budget = Budget(60_000, 0.0)
    left, booked = 50_000.0, 0.0
    for second in range(1, 30):
        booked += 1000.0  # as estimated here
        left += 1000.0 - 2500.0  # as it is counted there, a thousand flowing in
        budget.follow(Allowance(60_000, int(left), 10.0), sent_at=float(second), since=0.0, booked=booked, now=float(second))
    assert budget.price == pytest.approx(2.5, rel=0.05)


def test_a_share_of_the_account_set_by_hand_stays_a_share() -> None:
    budget = Budget(600, 0.0, by_hand=True)
    budget.follow(Allowance(3000, 2999, 0.02), sent_at=0.0, since=0.0, booked=1.0, now=0.4)
    assert budget.per_minute == 600
    assert budget.bucket.capacity == 10
    assert budget.bucket.ready_at(600.0, 0.4) <= budget.bucket.ready_at(10.0, 0.4), "a second's worth at once, no more"


def test_a_limit_set_too_high_gives_way_to_what_the_provider_says() -> None:
    budget = Budget(30_000, 0.0, by_hand=True)
    budget.follow(Allowance(3000, 10, 59.8), sent_at=0.0, since=0.0, booked=1.0, now=0.0)
    assert budget.per_minute == 3000
    assert budget.bucket.level(0.0) == 10


# --------------------------------------------------------------------------------------------------------- from run to run


def test_the_second_run_starts_at_the_speed_that_the_first_one_found() -> None:
    async def seconds_of(facts: dict[str, object] | None) -> tuple[float, float, dict[str, object]]:
        clock = ManualClock()
        account = Account(clock, Window(3000), None, headers=False)
        limiter = Limiter(64, clock, jitter=lambda: 0.5)
        if facts is not None:
            limiter.recall(facts, age=600.0)
        seconds = await send(account, limiter, 500)
        return seconds / ideal(account, 0.0), account.refused, limiter.facts()

    first, refused_first, learned = asyncio.run(seconds_of(None))
    second, refused_second, _ = asyncio.run(seconds_of(learned))
    print(f"{first:.2f}x and {refused_first} refused, then {second:.2f}x and {refused_second}")
    assert refused_first > 5
    assert refused_second == 0
    assert second < 1.08


def test_facts_of_another_version_are_refused_before_anything_is_taken_over() -> None:
    limiter = Limiter(64, ManualClock())
    for facts in ({}, {"budgets": None, "window": 3, "pace": 0}, {"budgets": {"requests": {}}, "window": 3, "pace": 0}):
        with pytest.raises((LookupError, TypeError, ValueError, AttributeError)):
            limiter.recall(facts, age=1.0)
    assert limiter.requests is None
    assert limiter.window == Limiter.FIRST_WINDOW
