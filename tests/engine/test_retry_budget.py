"""What trouble costs in requests, counted at the server: an outage may cost few, and a run that lives through it loses no row."""

from __future__ import annotations

import random
import socket
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pytest

import llmkit
from llmkit.engine.limiter import Limiter
from llmkit.errors import Overloaded
from llmkit.testing import ManualClock
from tests.engine import turned
from tests.engine.turned import carried_out
from tests.loopback import Answer, Hang, Loopback, Reset, Status, server_error

FOREVER = float("inf")
OVERLOADED = Status(529, b'{"error": {"message": "overloaded", "type": "overloaded_error"}}', {"content-type": "application/json"})
LOGIN_PAGE = Status(200, b"<!doctype html><html><title>Log in</title></html>", {"content-type": "text/html"})


@pytest.fixture
def clock() -> ManualClock:
    return turned.made()


def rows(count: int) -> pd.DataFrame:
    return pd.DataFrame({"text": [f"row {number}." for number in range(count)]})


def chat(count: int, **options: Any) -> Any:
    return rows(count).llm.chat("Say {text}", **{"model": "lab/test-chat", "show_progress": False, **options})


@dataclass
class Sick(Answer):
    """``how`` while it is ill, the ordinary answer otherwise."""

    how: Answer
    ill: bool = False

    async def send(self, wire: Any, ordinary: Any) -> None:
        if self.ill:
            await self.how.send(wire, ordinary)
        else:
            wire.finish(b"".join(ordinary()))


def test_a_dead_host_is_tried_few_times_and_ends_the_run_in_seconds(clock: ManualClock) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        llmkit.add_provider("dead", f"http://127.0.0.1:{taken.getsockname()[1]}/v1", "key")
        run = carried_out(chat(500, model="dead/model", wait=False), clock)
    with pytest.raises(llmkit.ConnectionLost, match="nothing answers at 127.0.0.1"):
        run.result()
    assert len(run.errors()) == 500
    assert sum(run.outcomes.attempts) <= 100
    assert clock.now() < 10.0


@pytest.mark.parametrize("trouble", [server_error(), LOGIN_PAGE], ids=["500", "login page"])
def test_a_host_that_answers_nothing_but_trouble_gets_few_requests(clock: ManualClock, lab: Loopback, trouble: Answer) -> None:
    lab.fault(None, trouble, times=FOREVER)
    run = carried_out(chat(500, wait=False), clock)
    with pytest.raises(llmkit.errors.ServerFault):
        run.result()
    assert lab.requests <= 100, "far fewer than rows: the circuit is open after a few"
    assert len(run.errors()) == 500
    assert clock.now() < 45.0


@pytest.mark.parametrize("trouble", [server_error(), LOGIN_PAGE, Reset()], ids=["500", "login page", "reset"])
def test_an_outage_of_a_minute_in_mid_run_loses_no_row_and_costs_few_requests(clock: ManualClock, lab: Loopback, trouble: Answer) -> None:
    sick = Sick(trouble)
    lab.fault(None, sick, times=FOREVER)
    fell = [FOREVER]

    def meanwhile() -> None:
        if lab.requests >= 400 and fell[0] == FOREVER:
            fell[0] = clock.now()
        sick.ill = fell[0] <= clock.now() < fell[0] + 60.0

    said = carried_out(chat(1000, wait=False), clock, meanwhile).result()
    assert said.notna().all()
    assert clock.now() >= fell[0] + 60.0
    assert lab.requests <= 1.2 * 1000


def test_in_an_outage_no_row_spends_its_attempts_on_looking_whether_it_is_over(clock: ManualClock, lab: Loopback) -> None:
    sick = Sick(server_error())
    lab.fault(None, sick, times=FOREVER)
    fell = [FOREVER]

    def meanwhile() -> None:
        if lab.requests >= 200 and fell[0] == FOREVER:
            fell[0] = clock.now()
        sick.ill = fell[0] <= clock.now() < fell[0] + 60.0

    run = chat(500, max_attempts=2, max_concurrency=32, detail=True, wait=False)
    said = carried_out(run, clock, meanwhile).result()
    assert said["value"].notna().all()
    assert said["attempts"].max() > 2, "some looked, and went on"


@pytest.mark.parametrize("lanes", [1, 2, 3, 64])
@pytest.mark.parametrize("seconds", [5.0, 60.0])
@pytest.mark.parametrize("trouble", [server_error(), OVERLOADED, Reset()], ids=["500", "529", "reset"])
def test_an_outage_loses_no_row_however_few_are_in_flight(
    clock: ManualClock, lab: Loopback, trouble: Answer, seconds: float, lanes: int
) -> None:
    clock.advance(1000.0)
    sick = Sick(trouble)
    lab.fault(None, sick, times=FOREVER)
    fell = [FOREVER]

    def meanwhile() -> None:
        if lab.requests >= 100 and fell[0] == FOREVER:
            fell[0] = clock.now()
        sick.ill = fell[0] <= clock.now() < fell[0] + seconds

    said = carried_out(chat(300, max_concurrency=lanes, wait=False), clock, meanwhile).result()
    assert said.notna().all()
    assert lab.requests <= 1.3 * 300


@pytest.mark.parametrize("trouble", [server_error(), Reset()], ids=["500", "reset"])
def test_rows_that_always_fail_end_no_run_that_has_one_in_flight(clock: ManualClock, lab: Loopback, trouble: Answer) -> None:
    for number in (0, 7, 8, 9, 20, 29):
        lab.fault(f"row {number}.", trouble, times=FOREVER)
    run = carried_out(chat(30, max_concurrency=1, wait=False), clock)
    assert run.stopped is None
    assert run.errors()["row"].tolist() == [0, 7, 8, 9, 20, 29]
    assert max(lab.count(f"row {number}.") for number in range(30)) <= 6, "its tries, and one more to see whose trouble it is"


def test_many_overloads_at_once_are_no_provider_that_has_been_down_for_long(clock: ManualClock) -> None:
    clock.advance(1000.0)
    limiter = Limiter(64, clock)
    limiter.window = 64.0
    permits = [limiter.try_acquire() for _ in range(20)]
    for permit in permits:
        assert permit is not None
        limiter.slow_down(permit, Overloaded("busy"))
    assert limiter.broken
    assert limiter.failing_since == 1000.0


def test_a_host_that_is_gone_for_a_minute_in_mid_run_loses_no_row_and_takes_few_attempts(clock: ManualClock, lab: Loopback) -> None:
    fell = [FOREVER]

    def meanwhile() -> None:
        if lab.requests >= 400 and fell[0] == FOREVER:
            fell[0] = clock.now()
            lab.stop()
        if clock.now() >= fell[0] + 60.0 and lab._thread is None:
            lab.start()

    run = carried_out(chat(1000, detail=True, wait=False), clock, meanwhile)
    said = run.result()
    assert said["value"].notna().all()
    assert said["attempts"].sum() <= 1.2 * 1000
    assert clock.now() >= fell[0] + 60.0


@dataclass
class Now(Answer):
    """Of a hundred requests so many fail in each way; the draw is the same in every run."""

    draw: random.Random
    came: int = 0

    async def send(self, wire: Any, ordinary: Any) -> None:
        self.came += 1
        lot = self.draw.random()
        if lot < 0.02:
            await server_error().send(wire, ordinary)
        elif lot < 0.03:
            await Reset().send(wire, ordinary)
        elif lot < 0.04:
            await Hang().send(wire, ordinary)
        else:
            wire.finish(b"".join(ordinary()))


def test_a_few_faults_of_every_kind_lose_no_row_and_cost_few_requests(lab: Loopback) -> None:
    lab.fault(None, Now(random.Random(5)), times=FOREVER)
    said = chat(800, timeout=1.0)
    assert said.notna().all()
    assert lab.requests > 800
    assert lab.requests <= 1.2 * 800


@dataclass
class Mostly(Answer):
    """500 for such a share of the requests, the ordinary answer for the others; the draw is the same in every run."""

    share: float
    draw: random.Random

    async def send(self, wire: Any, ordinary: Any) -> None:
        if self.draw.random() < self.share:
            await server_error().send(wire, ordinary)
        else:
            wire.finish(b"".join(ordinary()))


def test_two_in_five_requests_failing_lose_few_rows(clock: ManualClock, lab: Loopback) -> None:
    lab.fault(None, Mostly(0.4, random.Random(3)), times=FOREVER)
    run = carried_out(chat(500, wait=False), clock)
    assert run.partial().notna().sum() > 0.95 * 500


def test_where_most_requests_fail_retries_cost_what_answers_pay_for(clock: ManualClock, lab: Loopback) -> None:
    lab.fault(None, Mostly(0.7, random.Random(3)), times=FOREVER)
    run = carried_out(chat(500, wait=False), clock)
    answered = run.partial().notna().sum()
    looked = 50  # whether it is back, each time that nobody got through: not a row's retry
    assert lab.requests <= 500 + 0.15 * 500 + answered + looked, "five tries a row would be 1,380"


def test_a_run_that_began_in_an_outage_is_begun_again_and_pays_only_for_the_rest(clock: ManualClock, lab: Loopback) -> None:
    sick = Sick(server_error(), ill=True)
    lab.fault(None, sick, times=FOREVER)
    run = carried_out(chat(500, wait=False), clock)
    assert isinstance(run.stopped, llmkit.errors.ServerFault)
    wasted = lab.requests
    sick.ill = False
    said = carried_out(run.retry(), clock).result()
    assert said.notna().all()
    assert lab.requests - wasted == 500
