"""One account on many machines: leases follow one another, and each process spends its own evenly."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from llmkit.scale.buckets import HORIZON, LONGEST_PENALTY, Buckets, Lease, Share
from llmkit.testing import ManualClock

ACCOUNT = "5f1d"


class Worker:
    """A process with a share of its own, which asks the buckets as a worker does: the answer comes at the next turn."""

    def __init__(
        self, name: str, buckets: Buckets, clock: ManualClock, per_second: float, travels: Callable[[], float] = lambda: 0.0
    ) -> None:
        self.travels = travels
        self.name, self.buckets, self.clock, self.per_second = name, buckets, clock, per_second
        self.sent: list[float] = []
        self.share = Share(self.ask, lambda seconds: buckets.refuse(ACCOUNT, seconds), clock.now)
        self.stands_still_until = 0.0

    def ask(self, least: float) -> None:
        found = self.buckets.lease(ACCOUNT, self.name, least)
        if isinstance(found, Lease):
            lease = found
            travels = self.travels()
            if travels:
                self.clock.call_at(self.clock.now() + travels, lambda: self.share.granted(lease))
            else:
                self.share.granted(lease)
        else:
            self.clock.call_at(self.clock.now() + found, lambda: self.ask(least))

    def send_what_may_go(self) -> None:
        while self.clock.now() >= self.stands_still_until and self.may_send():
            self.sent.append(self.clock.now())

    def may_send(self) -> bool:
        return self.share.take("requests", 1.0, self.per_second, 1.0)[0] > 0


class Counting(Worker):
    """Its requests are counted in tokens too: as a limiter does, it keeps its turn of the one until it has that of the other."""

    def __init__(self, name: str, buckets: Buckets, clock: ManualClock, per_second: float, tokens_per_second: float) -> None:
        super().__init__(name, buckets, clock, per_second)
        self.tokens_per_second = tokens_per_second
        self.chance = random.Random(name)
        self.has_turn, self.wants = False, 100.0
        self.tokens: list[float] = []

    def may_send(self) -> bool:
        self.has_turn = self.has_turn or super().may_send()
        if not self.has_turn or not self.share.take("tokens", self.wants, self.tokens_per_second, 1.0)[0]:
            return False
        self.tokens.append(self.wants)
        self.has_turn, self.wants = False, self.chance.uniform(50.0, 150.0)
        return True


def work(clock: ManualClock, workers: list[Worker], seconds: float) -> None:
    for _ in range(round(seconds * 1000)):
        clock.advance(0.001)
        for worker in workers:
            worker.send_what_may_go()


def busiest(sent: list[float], seconds: float = 1.0) -> int:
    sent, first, most = sorted(sent), 0, 0
    for last, at in enumerate(sent):
        while sent[first] <= at - seconds + 1e-9:
            first += 1
        most = max(most, last - first + 1)
    return most


@pytest.mark.parametrize(("count", "per_second"), [(1, 200.0), (2, 200.0), (7, 200.0), (50, 200.0), (50, 1.0)])
def test_however_many_workers_there_are_the_limit_is_used_and_no_second_sees_more(count: int, per_second: float) -> None:
    clock = ManualClock()
    buckets = Buckets(clock.now)
    workers = [Worker(f"w{number}", buckets, clock, per_second) for number in range(count)]
    work(clock, workers, 10.0)
    sent = [at for worker in workers for at in worker.sent]
    # An interval that begins and ends with a request has one more than its length.
    assert busiest(sent) <= per_second * 1.02 + 1
    assert len(sent) >= 10.0 * per_second * 0.95 - 1


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("tokens_per_second", [1e8, 30_000.0, 10_000.0], ids=["plenty", "enough", "few"])
def test_requests_and_tokens_come_together_so_that_the_limit_that_binds_is_used(count: int, tokens_per_second: float) -> None:
    clock = ManualClock()
    buckets = Buckets(clock.now)
    workers = [Counting(f"w{number}", buckets, clock, 200.0, tokens_per_second) for number in range(count)]
    work(clock, workers, 20.0)
    sent, tokens = sum(len(worker.sent) for worker in workers), sum(sum(worker.tokens) for worker in workers)
    print(f"{sent / 20:.0f} requests and {tokens / 20:,.0f} tokens a second")
    assert busiest([at for worker in workers for at in worker.sent]) <= 200 * 1.05
    assert tokens <= 20.0 * tokens_per_second * 1.02
    assert max(sent / (20.0 * 200.0), tokens / (20.0 * tokens_per_second)) >= 0.93


def test_a_worker_that_dies_with_a_lease_wastes_no_more_than_that() -> None:
    clock = ManualClock()
    buckets = Buckets(clock.now)
    dead, alive = (Worker(name, buckets, clock, 100.0) for name in ("dead", "alive"))
    work(clock, [dead, alive], 2.0)
    before = len(alive.sent)
    work(clock, [alive], 5.0)
    assert len(alive.sent) - before >= 5.0 * 100 - 75, "of each second's leases at most those that the dead one held are gone"


def test_a_worker_that_stood_still_does_not_catch_up_with_what_it_missed() -> None:
    clock = ManualClock()
    buckets = Buckets(clock.now)
    workers = [Worker(name, buckets, clock, 200.0) for name in ("a", "b")]
    work(clock, workers, 2.0)
    workers[0].stands_still_until = clock.now() + 0.2
    work(clock, workers, 3.0)
    assert busiest([at for worker in workers for at in worker.sent]) <= 200 * 1.05


@pytest.mark.parametrize(("longest", "used"), [(0.02, 0.95), (0.15, 0.8)])
def test_answers_of_the_scheduler_that_travel_for_long_make_no_second_see_more(longest: float, used: float) -> None:
    clock = ManualClock()
    buckets = Buckets(clock.now)
    chance = random.Random(7)
    workers = [Worker(name, buckets, clock, 200.0, lambda: 0.001 + longest * chance.random()) for name in "abc"]
    work(clock, workers, 20.0)
    sent = [at for worker in workers for at in worker.sent if at > 1.0]
    print(f"{busiest(sent)} in the busiest second, {len(sent) / 19 / 200:.1%} used")
    assert busiest(sent) <= 200 * 1.05
    assert len(sent) >= 19 * 200 * used


def test_workers_that_stand_still_again_and_again_make_no_second_see_more() -> None:
    clock = ManualClock()
    buckets = Buckets(clock.now)
    chance = random.Random(11)
    workers = [Worker(name, buckets, clock, 200.0, lambda: 0.03 * chance.random()) for name in "abcd"]
    for _ in range(100):
        chance.choice(workers).stands_still_until = clock.now() + 0.4 * chance.random()
        work(clock, workers, 0.2)
    sent = [at for worker in workers for at in worker.sent]
    assert busiest(sent) <= 200 * 1.05
    assert len(sent) >= 20 * 200 * 0.5


def test_after_a_refusal_nobody_gets_a_lease_for_as_long_as_was_said() -> None:
    clock = ManualClock()
    buckets = Buckets(clock.now)
    buckets.refuse(ACCOUNT, 3.0)
    found = buckets.lease(ACCOUNT, "b", 0.01)
    assert found == pytest.approx(3.0 - HORIZON)
    assert isinstance(buckets.lease("another account", "b", 0.01), Lease)
    assert buckets.paused(ACCOUNT) == pytest.approx(3.0)
    clock.advance(3.0)
    lease = buckets.lease(ACCOUNT, "b", 0.01)
    assert isinstance(lease, Lease)
    assert lease.begins == 0.0


def test_a_refusal_for_hours_stops_the_workers_for_a_minute_and_not_for_hours() -> None:
    buckets = Buckets(ManualClock().now)
    buckets.refuse(ACCOUNT, 7 * 3600.0)
    assert buckets.paused(ACCOUNT) == pytest.approx(LONGEST_PENALTY)


def test_a_request_that_is_larger_than_a_lease_is_paid_for_out_of_the_next() -> None:
    clock = ManualClock()
    buckets = Buckets(clock.now)
    share = Share(lambda least: None, lambda seconds: None, clock.now)
    taken = 0.0
    for _ in range(20_000):
        clock.advance(0.001)
        if share.take("tokens", 300.0, 1000.0, 1000.0)[0]:
            taken += 300.0
        if not share._held:
            found = buckets.lease(ACCOUNT, "w", 0.1)
            assert isinstance(found, Lease)
            share.granted(found)
    assert taken == pytest.approx(20 * 1000.0, rel=0.06)


def test_requests_of_very_unlike_sizes_keep_to_the_limit_and_nobody_waits_for_ever() -> None:
    clock = ManualClock()
    buckets = Buckets(clock.now)
    share = Share(lambda least: None, lambda seconds: None, clock.now)
    chance = random.Random(5)
    taken, wanted = 0.0, 20.0
    for _ in range(60_000):
        clock.advance(0.001)
        if share.take("tokens", wanted, 1000.0, 1000.0)[0]:
            taken, wanted = taken + wanted, chance.choice([1e-12, 20.0, 3000.0])
        if not share._held:
            found = buckets.lease(ACCOUNT, "w", 0.02)
            assert isinstance(found, Lease)
            share.granted(found)
    assert taken == pytest.approx(60 * 1000.0, rel=0.08)


def test_a_lease_that_never_comes_is_asked_for_anew() -> None:
    clock = ManualClock()
    asked: list[float] = []
    share = Share(lambda least: asked.append(clock.now()), lambda seconds: None, clock.now)
    for _ in range(300):
        share.take("requests", 1.0, 10.0, 1.0)
        clock.advance(0.1)
    assert len(asked) == 3, "each ten seconds: it may be waiting for its turn"
    share.missed()
    clock.advance(Share.AGAIN + 0.01)
    share.take("requests", 1.0, 10.0, 1.0)
    assert len(asked) == 4
