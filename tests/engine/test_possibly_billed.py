"""Requests that left and whose answer never came: counted in the run, in the detail and in the journal alike, and against ``max_cost``."""

from __future__ import annotations

import _thread
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import llmkit
from tests.engine import turned
from tests.engine.turned import carried_out
from tests.loopback import (
    Answer,
    Breaking,
    CloseMidBody,
    Drip,
    GzipBomb,
    Hang,
    Loopback,
    Reset,
    Status,
    bad_key,
    rate_limited,
    refusal,
    server_error,
)

FOREVER = float("inf")
GARBLED = Status(200, b'{"choices": [{"message": {"content": "\xff\xfe')


def rows(count: int) -> pd.DataFrame:
    return pd.DataFrame({"text": [f"row {number}." for number in range(count)]})


def chat(count: int, **options: Any) -> Any:
    return rows(count).llm.chat("Say {text}", **{"model": "lab/test-chat", "detail": True, "show_progress": False, **options})


def priced(name: str = "lab", **price: float) -> None:
    llmkit.catalogue.merge({"models": [{"provider": name, "name": "test-chat", "price": price}]})


def counted(run: Any) -> tuple[int, int, int]:
    """In the run, in the detail, in the journal."""
    detail = run.partial()["possibly_billed"]
    return run.possibly_billed, int(detail.fillna(0).sum()), int(llmkit.usage()["possibly_billed"].iloc[0])


@pytest.mark.parametrize(
    "trouble",
    [Hang(), Drip(0.2), CloseMidBody(0.5), Reset(), GARBLED, Status(200, b"<html>log in</html>"), GzipBomb(70)],
    ids=["time-out", "drips", "broke off", "reset", "garbled", "login page", "bomb"],
)
def test_an_answer_that_was_lost_on_its_way_may_have_been_billed(lab: Loopback, trouble: Answer) -> None:
    lab.fault("row 1.", trouble)
    said = chat(3, timeout=1.0)
    assert said["value"].notna().all()
    assert said["possibly_billed"].tolist() == [0, 1, 0]
    assert said["attempts"].tolist() == [1, 2, 1]
    assert counted(llmkit.last()) == (1, 1, 1)


def test_every_lost_answer_of_a_row_counts_also_where_the_row_fails(lab: Loopback) -> None:
    lab.fault("row 1.", CloseMidBody(0.5), times=FOREVER)
    said = chat(3, max_attempts=3)
    assert said["possibly_billed"].tolist() == [0, 3, 0]
    assert counted(llmkit.last()) == (3, 3, 3)
    assert lab.count("row 1.") == 3


@pytest.mark.parametrize("trouble", [server_error(), rate_limited(), refusal()], ids=["500", "429", "refusal"])
def test_an_answer_that_came_says_itself_what_it_cost(lab: Loopback, trouble: Answer) -> None:
    lab.fault("row 1.", trouble)
    chat(3)
    assert counted(llmkit.last()) == (0, 0, 0)


def test_what_could_not_be_sent_was_not_billed() -> None:
    clock = turned.made()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        llmkit.add_provider("dead", f"http://127.0.0.1:{taken.getsockname()[1]}/v1", "key")
        llmkit.add_provider("nowhere", "http://does-not-exist.invalid/v1", "key")
        for model in ("dead/model", "nowhere/model"):
            run = carried_out(chat(50, model=model, wait=False), clock)
            with pytest.raises(llmkit.ConnectionLost):
                run.result()
            assert counted(llmkit.last()) == (0, 0, 0)


def test_a_refused_key_was_not_billed(lab: Loopback) -> None:
    lab.fault(None, bad_key(), times=FOREVER)
    with pytest.raises(llmkit.KeyRejected):
        chat(50)
    assert counted(llmkit.last()) == (0, 0, 0)


def test_what_was_in_flight_when_a_run_was_cancelled_may_have_been_billed(lab: Loopback) -> None:
    chat(5)
    lab.hold()
    run = chat(50, wait=False)
    lab.wait_for(5 + 8)
    run.cancel()
    assert run.wait(5.0)
    in_flight = lab.requests - 5
    assert counted(run) == (in_flight, in_flight, in_flight)
    lab.release()
    assert len(run.errors()) == 45, "and those rows are asked again by the same call"
    before = lab.requests
    assert chat(50)["value"].notna().all()
    assert lab.requests - before == 45


def test_what_was_in_flight_at_ctrl_c_may_have_been_billed(lab: Loopback) -> None:
    lab.hold()

    def interrupt() -> None:
        lab.wait_for(8)
        _thread.interrupt_main()

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        chat(50)
    thread.join()
    assert llmkit.last().wait(5.0)
    assert counted(llmkit.last()) == (lab.requests, lab.requests, lab.requests)


@pytest.fixture
def slow_key(server: Loopback) -> Iterator[tuple[threading.Event, threading.Event]]:
    """A provider whose key is fetched from somewhere that takes its time: when it was asked for, and when it may come."""
    asked, given = threading.Event(), threading.Event()

    def fetch() -> str:
        asked.set()
        given.wait(10)
        return "key"

    llmkit.add_provider("lab", server.url, fetch)
    yield asked, given
    given.set()


def test_a_run_that_is_cancelled_before_there_is_a_connection_was_not_billed(
    server: Loopback, slow_key: tuple[threading.Event, threading.Event]
) -> None:
    asked, given = slow_key
    run = chat(50, wait=False)
    assert asked.wait(5)
    run.cancel()
    assert run.wait(5.0)
    given.set()
    assert counted(run) == (0, 0, 0)
    assert server.requests == 0


def test_a_row_that_a_model_has_no_words_for_was_not_sent_to_it(lab: Loopback, tmp_path: Path) -> None:
    with Loopback() as other:
        llmkit.add_provider("spare", other.url, "key")

        def speak(**options: Any) -> Any:
            return rows(1).llm.speak("text", folder=tmp_path, detail=True, show_progress=False, cache="off", **options)

        assert speak(model="spare/test-speech", voice="ada")["value"].notna().all()
        lab.fault(None, server_error(), times=FOREVER)
        llmkit.set_key("openai", "key")
        llmkit.catalogue.merge({"providers": {"openai": {"base_url": lab.url}}})
        # The first model was asked, and may answer the same call later: a row's trouble, not a call that cannot work.
        with pytest.warns(
            UserWarning, match="no row got an answer .*all 2 models failed: .*answered 500.*; spare/test-speech has no usual voice"
        ):
            speak(model=["openai/gpt-4o-mini-tts", "spare/test-speech"], max_attempts=1)
        assert llmkit.last().errors()["kind"].tolist() == ["server"], "what the second cannot do is no word on why the first failed"
        assert counted(llmkit.last()) == (0, 0, 0)
        assert other.requests == 1


def test_a_model_in_this_process_bills_nothing_when_it_is_stopped() -> None:
    run = chat(20_000, model="echo/echo", wait=False)
    run.cancel()
    assert run.wait(5.0)
    assert run.possibly_billed == 0


def test_a_batch_whose_answer_was_lost_is_one_request(lab: Loopback) -> None:
    lab.fault(None, CloseMidBody(0.5))
    vectors = rows(40).llm.embed("text", model="lab/test-embed", detail=True, show_progress=False)
    assert lab.requests == 2
    assert vectors["possibly_billed"].tolist() == [1] + [0] * 39
    assert counted(llmkit.last()) == (1, 1, 1)


def test_the_journal_says_at_which_model_an_answer_was_lost(lab: Loopback) -> None:
    with Loopback() as other:
        llmkit.add_provider("spare", other.url, "key")
        lab.fault(None, rate_limited(), times=FOREVER)
        other.hold()
        run = chat(4, model=["lab/test-chat", "spare/test-chat"], wait=False)
        other.wait_for(4)
        run.cancel()
        assert run.wait(5.0)
    table = llmkit.usage(by="model").set_index("model")["possibly_billed"]
    assert table["spare/test-chat"] == other.requests == run.possibly_billed


def test_what_may_have_been_billed_counts_against_max_cost_at_its_most(lab: Loopback) -> None:
    priced(input=0.0, output=1000.0)
    lab.fault(None, Hang(), times=FOREVER)
    with pytest.warns(UserWarning, match="max_cost"):
        chat(200, max_tokens=10, max_cost=0.105, timeout=0.2, max_attempts=1)
    run = llmkit.last()
    assert run.cost == 0.0
    assert lab.requests == 10, "a cent each, if it was billed"
    assert counted(run) == (10, 10, 10)


def test_spent_in_flight_and_possibly_billed_never_pass_max_cost(lab: Loopback) -> None:
    priced(input=100.0, output=1000.0)
    draw = random.Random(3)
    most = 0.2
    for number in range(200):
        if draw.random() < 0.2:
            lab.fault(f"row {number}.", CloseMidBody(0.5))
    with pytest.warns(UserWarning, match="max_cost"):
        chat(200, max_tokens=20, max_cost=most)
    run = llmkit.last()
    each = (len("Say row 100.") / 2 * 100.0 + 20 * 1000.0) / 1e6
    assert run.cost is not None
    assert run.possibly_billed > 0
    assert run.cost + run.possibly_billed * each <= most
    assert run.cost + run.possibly_billed * each > 0.5 * most, "and it is used"
    billed, in_detail, in_journal = counted(run)
    assert billed == in_detail == in_journal


def test_a_row_that_the_budget_ended_after_an_answer_was_lost_is_in_the_journal(lab: Loopback) -> None:
    priced(input=0.0, output=1000.0)
    lab.fault(None, CloseMidBody(0.5), times=FOREVER)
    with pytest.warns(UserWarning, match="max_cost"):
        chat(1, max_tokens=10, max_cost=0.015)
    assert lab.requests == 1
    assert counted(llmkit.last()) == (1, 1, 1)


# --------------------------------------------------------------------------------------------------------------- in pieces


def billed_by_streams() -> int:
    return int(llmkit.usage()["possibly_billed"].iloc[0])


@pytest.mark.parametrize(
    "trouble",
    [Hang(), Reset(), Breaking(0, "hang"), Breaking(0), Status(200, b"<html>log in</html>", {"content-type": "application/json"})],
    ids=["silence", "reset", "silence after the head", "end after the head", "garbage"],
)
def test_a_stream_of_which_nothing_came_may_have_been_billed_each_time(lab: Loopback, trouble: Answer) -> None:
    lab.fault(None, trouble, times=2)
    assert list(llmkit.stream("hello", model="lab/test-chat", idle_timeout=0.3))
    assert lab.requests == 3
    assert billed_by_streams() == 2


@pytest.mark.parametrize("trouble", [server_error(), rate_limited(), Breaking(2)], ids=["500", "429", "after two pieces"])
def test_a_stream_that_was_refused_or_that_said_something_is_not_among_them(lab: Loopback, trouble: Answer) -> None:
    lab.fault(None, trouble)
    with suppress(llmkit.LLMError):
        list(llmkit.stream("tell me of the sea and of its end", model="lab/test-chat"))
    assert billed_by_streams() == 0


def test_a_stream_that_is_interrupted_before_its_first_piece_may_have_been_billed(lab: Loopback) -> None:
    lab.hold()

    def interrupt() -> None:
        lab.wait_for(1)
        _thread.interrupt_main()

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        list(llmkit.stream("hello", model="lab/test-chat"))
    lab.release()
    assert billed_by_streams() == 1
