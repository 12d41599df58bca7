"""Several runs as one: what it is while it goes on, how it ends, and how it is stopped."""

from __future__ import annotations

import _thread
import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd
import pytest

import llmkit
from llmkit.frames.procedure import Procedure
from llmkit.session import default
from llmkit.types import Progress
from tests.loopback import Loopback, bad_key, refusal, server_error

ROWS = pd.DataFrame({"text": ["a", "b", "c"]})


@pytest.fixture
def spare(lab: Loopback) -> Iterator[Loopback]:
    """Another provider, known as ``spare``."""
    with Loopback() as server:
        server.answer = lambda body: "from the spare"
        llmkit.add_provider("spare", server.url, api_key="test-key-not-real")
        yield server


def ask(prompt: str = "Say {text}", model: str = "lab/test-chat", rows: pd.DataFrame = ROWS, **more: Any) -> Any:
    return rows.llm.chat(prompt, model=model, wait=False, show_progress=False, **more)


def procedure(steps: Callable[[Procedure[Any]], Any], rows: int = 6, **more: Any) -> Procedure[Any]:
    given = {"show_progress": False, **more}
    return Procedure(default(), "both", ["lab/test-chat", "spare/test-chat"], steps, rows, **given).start()


def side_by_side(procedure: Procedure[Any]) -> list[Any]:
    return procedure.follow(ask(), ask(model="spare/test-chat"), steps=["first", "second"])


def priced(**price: float) -> None:
    llmkit.catalogue.merge({"models": [{"provider": name, "name": "test-chat", "price": price} for name in ("lab", "spare")]})


# ----------------------------------------------------------------------------------------------------------------- going on


def test_runs_go_on_side_by_side(lab: Loopback, spare: Loopback) -> None:
    lab.hold()
    spare.hold()
    run = procedure(side_by_side)
    lab.wait_for(3)
    spare.wait_for(3)  # neither waits for the other
    lab.release()
    spare.release()
    first, second = run.result()
    assert first.tolist() == ["answer to: Say a", "answer to: Say b", "answer to: Say c"]
    assert second.tolist() == ["from the spare"] * 3


def test_its_progress_is_that_of_its_runs_together(lab: Loopback, spare: Loopback) -> None:
    spare.hold()
    run = procedure(side_by_side)
    while run.progress().done < 3:
        time.sleep(0.01)
    during = run.progress()
    spare.release()
    run.result()
    after = run.progress()
    assert (during.rows, during.done, during.errors) == (6, 3, 0)
    assert (after.rows, after.done, after.tokens) == (6, 6, run.usage().input + run.usage().output)
    assert run.usage().requests == 6
    assert len(list(run.tasks())) == 6


def test_more_rows_than_were_expected_are_counted(lab: Loopback, spare: Loopback) -> None:
    run = procedure(side_by_side, rows=1)
    run.result()
    assert run.rows == 6


def test_there_is_one_bar_that_comes_to_its_end(lab: Loopback, spare: Loopback, capsys: pytest.CaptureFixture[str]) -> None:
    procedure(side_by_side, show_progress=True).result()
    bars = {line.partition(":")[0] for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if line.strip()}
    assert bars == {"both lab/test-chat and 1 more"}


def test_the_bar_counts_all_rows(lab: Loopback, spare: Loopback, capsys: pytest.CaptureFixture[str]) -> None:
    procedure(side_by_side, show_progress=True).result()
    assert "6/6" in capsys.readouterr().err


def test_a_watcher_sees_the_end(lab: Loopback, spare: Loopback) -> None:
    seen: list[Progress] = []
    ended = threading.Event()

    def watch(progress: Progress) -> None:
        seen.append(progress)
        if progress.done == 6:
            ended.set()

    lab.hold()
    run = procedure(side_by_side).watch(watch)
    lab.release()
    run.result()
    assert ended.wait(5)
    assert seen[-1].rows == 6


def test_it_can_be_awaited(lab: Loopback, spare: Loopback) -> None:
    async def cell() -> Any:
        return await procedure(side_by_side)

    first, _ = asyncio.run(cell())
    assert first.notna().all()


def test_it_is_the_last_run_and_its_parts_are_not(lab: Loopback, spare: Loopback) -> None:
    run = procedure(side_by_side)
    run.result()
    assert llmkit.last() is run


def test_a_run_that_the_user_began_meanwhile_stays_the_last(lab: Loopback, spare: Loopback) -> None:
    begun = threading.Event()

    def steps(procedure: Procedure[Any]) -> Any:
        begun.wait(5)
        return side_by_side(procedure)

    run = procedure(steps)
    other = ask("Else {text}")
    begun.set()
    run.result()
    assert llmkit.last() is other
    other.result()


# -------------------------------------------------------------------------------------------------------------------- ending


def test_a_failed_row_is_an_error_of_its_step_and_model(lab: Loopback, spare: Loopback) -> None:
    spare.fault("Say b", refusal(), times=9)
    run = procedure(side_by_side)
    _, second = run.result()
    assert second.isna().tolist() == [False, True, False]
    errors = run.errors()
    assert errors[["step", "model", "row"]].values.tolist() == [["second", "spare/test-chat", 1]]


def test_errors_are_a_frame_also_where_there_are_none(lab: Loopback, spare: Loopback) -> None:
    run = procedure(side_by_side)
    run.result()
    assert run.errors().empty
    assert {"step", "model", "kind"} <= set(run.errors().columns)


def test_a_model_whose_key_is_rejected_leaves_the_others_whole_and_is_told_of(lab: Loopback, spare: Loopback) -> None:
    spare.fault(None, bad_key(), times=99)
    run = procedure(side_by_side)
    with pytest.warns(UserWarning, match="second: "):
        first, second = run.result()
    assert first.notna().all()
    assert second.isna().all()


def test_what_went_wrong_is_told_once(lab: Loopback, spare: Loopback) -> None:
    spare.fault(None, bad_key(), times=99)
    run = procedure(side_by_side)
    with pytest.warns(UserWarning, match="second: "):
        run.result()
    run.result()  # a warning would be an error here


def test_steps_that_give_up_over_a_rejected_key_raise_it(lab: Loopback, spare: Loopback) -> None:
    lab.fault(None, bad_key(), times=99)

    def steps(procedure: Procedure[Any]) -> Any:
        run = ask()
        procedure.follow(run)
        return None if run.stopped else "made"

    with pytest.raises(llmkit.KeyRejected):
        procedure(steps).result()


def test_what_the_steps_raise_is_raised(lab: Loopback, spare: Loopback) -> None:
    def steps(procedure: Procedure[Any]) -> Any:
        raise llmkit.BadInput("no such thing")

    with pytest.raises(llmkit.BadInput, match="no such thing"):
        procedure(steps).result()


def test_on_error_raise_raises_once_all_is_kept(lab: Loopback, spare: Loopback) -> None:
    lab.fault("Say a", refusal(), times=9)
    run = procedure(side_by_side, on_error="raise")
    with pytest.raises(llmkit.RequestError):
        run.result()
    assert spare.requests == 3
    assert run.partial()[1].notna().all()


def test_on_error_raise_raises_also_what_stopped_a_run(lab: Loopback, spare: Loopback) -> None:
    spare.fault(None, bad_key(), times=99)
    with pytest.raises(llmkit.KeyRejected):
        procedure(side_by_side, on_error="raise").result()


def test_a_run_in_which_no_row_got_an_answer_is_told_of(lab: Loopback, spare: Loopback) -> None:
    spare.fault(None, refusal(), times=99)
    with pytest.warns(UserWarning, match="no row got an answer"):
        procedure(side_by_side).result()


def test_an_outage_of_one_leaves_the_other_whole(lab: Loopback, spare: Loopback) -> None:
    spare.fault(None, server_error(), times=99)

    def steps(procedure: Procedure[Any]) -> Any:
        return procedure.follow(ask(), ask(model="spare/test-chat", max_attempts=1))

    with pytest.warns(UserWarning, match="no row got an answer|second"):
        first, second = procedure(steps).result()
    assert first.notna().all()
    assert second.isna().all()


# ----------------------------------------------------------------------------------------------------------------------- cost


def test_the_cost_is_that_of_all(lab: Loopback, spare: Loopback) -> None:
    priced(input=1.0, output=2.0)
    run = procedure(side_by_side)
    run.result()
    usage = run.usage()
    assert run.cost == pytest.approx((usage.input + 2 * usage.output) / 1e6)


def test_an_unknown_price_makes_the_whole_unknown(lab: Loopback, spare: Loopback) -> None:
    llmkit.catalogue.merge({"models": [{"provider": "lab", "name": "test-chat", "price": {"input": 1.0, "output": 1.0}}]})
    run = procedure(side_by_side)
    run.result()
    assert run.cost is None


def test_room_is_what_the_runs_before_left(lab: Loopback, spare: Loopback) -> None:
    priced(input=1000.0, output=1000.0)
    rooms: list[float | None] = []

    def steps(procedure: Procedure[Any]) -> Any:
        rooms.append(procedure.room())
        made = procedure.follow(ask())
        rooms.append(procedure.room())
        return made

    run = procedure(steps, max_cost=5.0)
    run.result()
    assert run.cost
    assert rooms == [5.0, pytest.approx(5.0 - run.cost)]


def test_a_run_that_met_its_bound_is_told_of(lab: Loopback, spare: Loopback) -> None:
    priced(input=1000.0, output=1000.0)

    def steps(procedure: Procedure[Any]) -> Any:
        return procedure.follow(ask(), ask(model="spare/test-chat", max_cost=0.0, max_tokens=5), steps=["whole", "bound"])

    with pytest.warns(UserWarning, match="bound: max_cost"):
        first, second = procedure(steps).result()
    assert first.notna().all()
    assert second.isna().all()


# ------------------------------------------------------------------------------------------------------------------- stopping


def test_cancel_stops_every_run_and_keeps_what_came(lab: Loopback, spare: Loopback) -> None:
    spare.hold()

    def steps(procedure: Procedure[Any]) -> Any:
        first, second = ask(), ask(model="spare/test-chat")
        procedure.so_far = lambda: [first.partial(), second.partial()]
        return procedure.follow(first, second)

    run = procedure(steps)
    while run.progress().done < 3:
        time.sleep(0.01)
    spare.wait_for(3)
    run.cancel()
    assert run.wait(5)
    assert all(part.done for _, part in run.runs)  # what was answered is on the disk by now
    first, second = run.result()
    assert isinstance(run.stopped, llmkit.Cancelled)
    assert first.notna().all()
    assert second.isna().all()
    spare.release()


def test_after_cancel_no_further_run_is_sent(lab: Loopback, spare: Loopback) -> None:
    lab.hold()

    def steps(procedure: Procedure[Any]) -> Any:
        procedure.follow(ask())
        return procedure.follow(ask(model="spare/test-chat"))

    run = procedure(steps)
    lab.wait_for(3)
    run.cancel()
    run.wait(5)
    lab.release()
    assert spare.requests == 0
    assert run.result() is None


def test_a_run_that_the_steps_begin_after_cancel_is_stopped_too(lab: Loopback, spare: Loopback) -> None:
    cancelled, over = threading.Event(), threading.Event()
    late: list[Any] = []
    spare.hold()

    def steps(procedure: Procedure[Any]) -> Any:
        cancelled.wait(5)
        late.append(ask(model="spare/test-chat"))
        try:
            return procedure.follow(*late)
        finally:
            over.set()

    run = procedure(steps)
    run.cancel()
    run.wait(5)
    cancelled.set()
    assert over.wait(5)
    assert isinstance(late[0].stopped, llmkit.Cancelled)
    spare.release()


def test_ctrl_c_stops_all_says_what_is_kept_and_the_same_again_sends_the_rest(
    lab: Loopback, spare: Loopback, capsys: pytest.CaptureFixture[str]
) -> None:
    spare.hold()
    run = procedure(side_by_side)
    while run.progress().done < 3:
        time.sleep(0.01)
    spare.wait_for(3)
    threading.Timer(0.05, _thread.interrupt_main).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run.finish(wait=True)
    assert time.monotonic() - began < 2
    assert "3 answers are kept" in capsys.readouterr().err
    assert run.wait(5)
    spare.release()
    lab.reset()
    spare.reset()
    procedure(side_by_side).result()
    assert (lab.requests, spare.requests) == (0, 3)


def test_an_await_that_is_cancelled_stops_it(lab: Loopback, spare: Loopback) -> None:
    spare.hold()
    run = procedure(side_by_side)

    async def cell() -> Any:
        return await run

    async def both() -> None:
        waiting = asyncio.create_task(cell())
        await asyncio.to_thread(spare.wait_for, 3)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(both())
    assert run.wait(5)
    assert isinstance(run.stopped, llmkit.Cancelled)
    spare.release()


def test_retry_says_what_to_do_instead(lab: Loopback, spare: Loopback) -> None:
    run = procedure(side_by_side)
    run.result()
    with pytest.raises(llmkit.ConfigError, match="call both again"):
        run.retry()


def test_its_words_name_all_of_its_models(lab: Loopback, spare: Loopback) -> None:
    run = procedure(side_by_side)
    run.result()
    assert "both lab/test-chat, spare/test-chat: done, 6 of 6 rows" in repr(run)
    assert run.summary().startswith("both with lab/test-chat, spare/test-chat: 6 of 6 rows")
