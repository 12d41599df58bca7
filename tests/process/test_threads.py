"""Many threads, one limiter, one request for equal rows."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pandas as pd

import llmkit
from llmkit import session
from tests.loopback import Loopback


def frame(*numbers: int) -> pd.DataFrame:
    return pd.DataFrame({"text": [f"row {number}" for number in numbers]})


def start(df: pd.DataFrame) -> Any:
    return df.llm.chat("Say {text}", model="lab/m", wait=False, show_progress=False)


def answers(df: pd.DataFrame) -> list[str]:
    return [f"answer to: Say {text}" for text in df["text"]]


def at_once(count: int, function: Callable[[int], Any]) -> list[Any]:
    """What ``function(number)`` returns in each of ``count`` threads that begin together."""
    together = threading.Barrier(count)

    def one(number: int) -> Any:
        together.wait(30)
        return function(number)

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(one, range(count)))


@contextmanager
def hasty_threads() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def test_a_hundred_threads_keep_to_one_limit_together(lab: Loopback) -> None:
    llmkit.limit("lab", max_concurrency=8)
    lab.latency = 0.005

    def one(number: int) -> list[str]:
        series = pd.Series([f"row {number}"], name="text")
        return list(series.llm.chat("Say it", model="lab/m", show_progress=False))

    said = at_once(100, one)
    assert [[f"answer to: <text>\nrow {number}\n</text>"] for number in range(100)] == said
    assert 100 == lab.requests
    assert lab.max_in_flight <= 8


def test_threads_that_are_first_together_share_one_session(lab: Loopback) -> None:
    url = lab.url
    for _ in range(20):
        session.default().close()
        session.default.forget()
        with hasty_threads():
            found = at_once(16, lambda _: session.default())
        assert 1 == len({id(one) for one in found})
    llmkit.add_provider("lab", url)
    assert answers(frame(1)) == start(frame(1)).result().tolist()


def test_ten_thousand_rows_of_a_hundred_prompts_are_a_hundred_requests(lab: Loopback) -> None:
    df = frame(*(number * 7 % 100 for number in range(10_000)))
    assert answers(df) == start(df).result().tolist()
    assert 100 == lab.requests


def test_equal_rows_of_runs_in_two_threads_are_asked_once(lab: Loopback) -> None:
    df = frame(*range(500))
    for number in range(4):
        other = df.assign(text=df["text"] + f" of round {number}")
        before = lab.requests
        one, two = at_once(2, lambda _, other=other: start(other).result().tolist())
        assert answers(other) == one == two
        assert before + 500 == lab.requests


def test_equal_rows_of_many_threads_are_asked_once(lab: Loopback) -> None:
    df = frame(*range(60))
    lab.latency = 0.01
    assert [answers(df)] * 20 == at_once(20, lambda number: start(df.iloc[:: 1 if number % 2 else -1]).result().sort_index().tolist())
    assert 60 == lab.requests


def test_when_the_run_that_asks_is_stopped_the_one_that_waits_for_it_asks_itself(lab: Loopback) -> None:
    df = frame(*range(500))
    lab.hold()
    leader = start(df)
    lab.wait_for(8)
    follower = start(df)
    assert not follower.wait(0.2)  # it has nothing to send: every row is on its way already
    assert lab.requests <= 64
    leader.cancel()
    assert leader.wait(5)
    lab.release()
    assert answers(df) == follower.result().tolist()
    assert lab.requests <= 500 + 64
    assert follower.errors().empty


def test_when_the_run_that_waits_is_stopped_the_one_that_asks_goes_on(lab: Loopback) -> None:
    df = frame(*range(200))
    lab.hold()
    leader = start(df)
    lab.wait_for(8)
    follower = start(df)
    follower.cancel()
    assert follower.wait(5)
    lab.release()
    assert answers(df) == leader.result().tolist()
    assert answers(df) == start(df).result().tolist()  # nobody waits for the one that is gone
    assert 200 == lab.requests


def test_a_row_that_is_refused_is_refused_for_all_who_wait_for_it(lab: Loopback) -> None:
    from tests.loopback import Json

    df = frame(*range(10, 60))
    lab.fault("row 17", Json({"error": {"message": "no", "code": 400}}), times=float("inf"))
    lab.hold()
    runs = [start(df) for _ in range(2)]
    lab.wait_for(8)
    lab.release()
    for run in runs:
        values = run.result()
        assert [7] == [position for position, missing in enumerate(values.isna()) if missing]
        assert ["invalid_request"] == run.errors()["kind"].tolist()
    assert 50 == lab.requests


def test_one_run_may_be_waited_for_by_many_threads(lab: Loopback) -> None:
    df = frame(*range(100))
    lab.hold()
    run = start(df)
    lab.wait_for(8)
    lab.release()
    assert [answers(df)] * 10 == at_once(10, lambda _: run.result().tolist())
    assert 100 == lab.requests
