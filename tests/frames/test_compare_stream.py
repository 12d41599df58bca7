"""``llmkit.compare(stream=True)``: answers come in pieces and can be seen as they do; they are the same answers, kept and retried alike."""

from __future__ import annotations

import threading
from typing import Any

import pandas as pd
import pytest

import llmkit
from tests.loopback import Answer, Breaking, Close, Loopback, Status, bad_key, rate_limited, refusal, server_error


def frame(count: int = 3) -> pd.DataFrame:
    return pd.DataFrame({"text": [f"row {number} and some words more" for number in range(count)]})


def begun(df: pd.DataFrame, **options: Any) -> Any:
    return llmkit.compare(df, "Say {text}", {"a": "lab/test-chat"}, wait=False, stream=True, show_progress=False, **options)


def test_pieces_are_seen_before_the_answer_is_whole_and_a_stop_keeps_them(lab: Loopback) -> None:
    lab.fault("row 0", Breaking(4, "hang"))
    run = begun(frame(2))
    came = threading.Event()
    run.watch(
        lambda _: came.set() if run.runs and run.runs[0][1].cell(0).state == "writing" and run.runs[0][1].cell(1).state == "done" else None
    )
    assert came.wait(5)
    one = run.runs[0][1]
    cell = one.cell(0)
    assert "answer to: Say row 0 and some words more".startswith(cell.value) and cell.seconds is None and cell.first_seconds > 0
    run.cancel()
    assert run.wait(5)
    assert one.cell(0).state == "stopped" and one.cell(0).value == cell.value
    assert one.partial().tolist()[1] == "answer to: Say row 1 and some words more" and pd.isna(one.partial().iloc[0])


def test_answers_keys_tokens_and_cost_are_those_of_whole_answers(lab: Loopback) -> None:
    llmkit.catalogue.merge({"models": [{"provider": "lab", "name": "test-chat", "price": {"input": 1.0, "output": 2.0}}]})
    run = begun(frame())
    found = run.result()
    sent = lab.requests
    whole = frame().llm.chat("Say {text}", model="lab/test-chat", detail=True, show_progress=False)
    assert lab.requests == sent == 3 and set(whole["source"]) == {"cache"}
    again = frame().llm.chat("Say {text}", model="lab/test-chat", detail=True, show_progress=False, cache="refresh")
    for name in ("value", "input_tokens", "output_tokens"):
        assert whole[name].tolist() == again[name].tolist()
    assert found.models[["cost", "billed"]].iloc[0].tolist() == pytest.approx(2 * [again["cost"].sum()])
    cells = [run.runs[0][1].cell(row) for row in range(3)]
    assert not run.runs[0][1].outcomes.pieces  # of a whole answer no halves are held
    assert [cell.value for cell in cells] == again["value"].tolist()
    assert [cell.cost for cell in cells] == pytest.approx(again["cost"].tolist())


@pytest.mark.parametrize("fault", [Breaking(4), Close(), server_error(), rate_limited()])
def test_an_answer_that_breaks_off_is_asked_for_anew(lab: Loopback, fault: Any) -> None:
    lab.fault("row 1", fault)
    found = begun(frame()).result()
    assert found.frame[("a", "value")].tolist() == [f"answer to: Say row {number} and some words more" for number in range(3)]
    assert lab.count("row 1") == 2
    assert found.models["stopped"].isna().all()


@pytest.mark.parametrize(
    "trouble",
    [Breaking(4), Breaking(0), Status(200, b"<html>log in</html>", {"content-type": "application/json"})],
    ids=["in the middle", "at the beginning", "garbage"],
)
def test_what_was_begun_and_never_ended_may_have_been_billed(lab: Loopback, trouble: Answer) -> None:
    lab.fault("row 1", trouble, times=float("inf"))
    run = begun(frame(), max_attempts=2)
    run.result()
    cell = run.runs[0][1].cell(1)
    assert cell.state == "failed" and cell.error is not None
    assert "answer to: Say row 1 and some words more".startswith(cell.value or "")  # what the last try said, once
    assert bool(cell.value) is (trouble == Breaking(4))
    assert run.possibly_billed == 2


def test_a_refusal_fails_its_row_and_a_rejected_key_the_model(lab: Loopback) -> None:
    lab.fault("row 1", refusal())
    run = begun(frame())
    run.result()
    assert [run.runs[0][1].cell(row).state for row in range(3)] == ["done", "failed", "done"]
    assert isinstance(run.runs[0][1].cell(1).error, llmkit.ContentBlocked)
    lab.fault(None, bad_key(), times=float("inf"))
    with pytest.warns(UserWarning, match="key was refused"):
        found = begun(frame(40), cache="refresh").result()
    assert "key was refused" in found.models["stopped"].item()
    assert lab.requests < 40 + 3


def test_a_model_in_this_process_answers_whole(lab: Loopback) -> None:
    found = llmkit.compare(frame(), "Say {text}", {"a": "echo/echo"}, stream=True, show_progress=False)
    assert found.frame[("a", "value")].str.startswith("[echo, not a model] Say row").all()


def test_a_cell_says_what_became_of_its_row(lab: Loopback) -> None:
    df = pd.DataFrame({"text": ["first", None, "third"]})
    lab.fault("third", refusal())
    run = df.llm.chat("Say {text}", model="lab/test-chat", wait=False)
    run.wait()
    assert [run.cell(row).state for row in range(3)] == ["done", "missing", "failed"]
    assert run.cell(0).source == "live" and run.cell(0).first_seconds is None and run.cell(0).queue_seconds >= 0
    stored = df.head(1).llm.chat("Say {text}", model="lab/test-chat", wait=False)
    stored.wait()
    assert (stored.cell(0).source, stored.cell(0).seconds, stored.cell(0).value) == ("cache", None, "answer to: Say first")


def test_comparisons_of_the_same_rows_stand_beside_one_another(lab: Loopback) -> None:
    lab.answer = lambda body: "no" if body["model"] == "two" else "yes"
    df = frame()
    one = llmkit.compare(df, "{text}", ["lab/one"], show_progress=False)
    other = llmkit.compare(df, "{text}", ["lab/two"], show_progress=False)
    both = llmkit.compare(df, "{text}", ["lab/one", "lab/two"], show_progress=False)
    made = one.beside(other)
    pd.testing.assert_frame_equal(made.frame, both.frame)
    pd.testing.assert_frame_equal(made.pairwise, both.pairwise)
    assert len(made.disagreements()) == 3
    with pytest.raises(llmkit.BadInput, match="the same rows"):
        one.beside(llmkit.compare(df.head(2), "{text}", ["lab/two"], show_progress=False))


def test_what_a_later_comparison_answers_fills_the_gaps_of_the_earlier_one(lab: Loopback) -> None:
    lab.fault("row 1", refusal())
    df = frame()
    first = llmkit.compare(df, "{text}", ["lab/one"], show_progress=False)
    made = first.beside(llmkit.compare(df, "{text}", ["lab/one"], show_progress=False))
    assert first.models["answered"].item() == 2 and made.models["answered"].item() == 3
    assert made.models["stored"].item() == 0  # they were paid, in whichever
