"""A limiter whose account other machines use too: it takes its turn from them all, tells what it learns and hears what they learned."""

from __future__ import annotations

from llmkit.engine.budgets import Budget
from llmkit.engine.limiter import Limiter
from llmkit.errors import RateLimited
from llmkit.testing import ManualClock
from llmkit.types import Allowance, Limits


class Elsewhere:
    """What the other machines leave: so many turns."""

    everywhere = True

    def __init__(self, turns: int) -> None:
        self.turns = turns
        self.asked: list[tuple[str, float]] = []
        self.told: list[float | None] = []

    def take(self, kind: str, amount: float, per_second: float, capacity: float) -> tuple[float, float]:
        self.asked.append((kind, per_second))
        if self.turns < amount:
            return 0.0, 0.5
        self.turns -= int(amount)
        return amount, 0.0

    def refused(self, seconds: float | None) -> None:
        self.told.append(seconds)


def limiter(shared: Elsewhere) -> Limiter:
    return Limiter(clock=ManualClock(), jitter=lambda: 0.5, shared=shared)


def test_a_limit_by_hand_is_taken_from_with_all_and_a_little_below_it() -> None:
    shared = Elsewhere(turns=2)
    one = limiter(shared)
    one.set_by_hand(rpm=6000)
    assert [one.try_acquire() is not None for _ in range(3)] == [True, True, False]
    assert {kind for kind, _ in shared.asked} == {"requests"}
    assert all(95.0 <= per_second < 100.0 for _, per_second in shared.asked)


def test_what_the_headers_say_is_left_is_left_to_all() -> None:
    shared = Elsewhere(turns=1)
    one = limiter(shared)
    permit = one.try_acquire()
    assert permit is not None
    assert not shared.asked, "nobody knows of a limit yet"
    one.done(permit, limits=Limits(requests=Allowance(limit=6000, left=5999, reset=0.01)))
    assert one.told() == {"requests": 6000.0}
    assert [one.try_acquire() is not None for _ in range(2)] == [True, False], "though by the header 5,998 more might go"


def test_what_others_learned_is_kept_to_before_the_first_answer() -> None:
    shared = Elsewhere(turns=1)
    one = limiter(shared)
    one.hear({"requests": 600.0}, 0.0)
    assert [one.try_acquire() is not None for _ in range(2)] == [True, False]


def test_a_refusal_is_told_and_that_of_others_makes_everybody_wait() -> None:
    shared = Elsewhere(turns=100)
    one, other = limiter(shared), limiter(shared)
    permit = one.try_acquire()
    assert permit is not None
    one.slow_down(permit, RateLimited("too fast", retry_after=3.0))
    assert shared.told == [3.0]
    other.hear({}, 3.0)
    assert other.try_acquire() is None
    assert isinstance(other.clock, ManualClock)
    other.clock.advance(3.1)
    assert other.try_acquire() is not None


def test_what_is_taken_in_two_pieces_is_enough_although_the_sum_is_a_hair_less() -> None:
    shared, clock = Elsewhere(turns=1000), ManualClock()
    budget = Budget(60_000, clock.now(), by_hand=True, shared=shared, kind="tokens")
    assert 8.8 + (59.4 - 8.8) < 59.4
    for amount in (8.8, 59.4, 59.4):
        assert budget.ready_at(amount, clock.now()) == clock.now()
    assert len(shared.asked) == 2, "for the hair nobody waits for a lease"
