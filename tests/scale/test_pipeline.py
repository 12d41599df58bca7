"""``llmkit.Pipeline``: rows out of a loop, steps that follow one another chunk by chunk."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import llmkit
from llmkit.errors import BadInput, ConfigError
from tests.loopback import Loopback, refusal


def pipeline(out: Path, source: Any = None, **more: Any) -> llmkit.Pipeline:
    return llmkit.Pipeline(out, source, **{"model": "lab/test-chat", "chunk_rows": 2, **more})


def answers(count: int) -> list[str]:
    return [f"answer to: Say row {number}" for number in range(count)]


def test_prompts_are_appended_in_a_loop_and_run(lab: Loopback, tmp_path: Path) -> None:
    line = pipeline(tmp_path / "out")
    for number in range(5):
        line.append(f"Say row {number}")
    assert len(line) == 5
    done = line.run(show_progress=False)
    assert done.read()["chat"].tolist() == answers(5)
    assert (done.rows, len(done.files)) == (5, 3)


def test_prompts_are_sent_as_they_are_braces_and_all(lab: Loopback, tmp_path: Path) -> None:
    line = pipeline(tmp_path / "out")
    line.append("Say {prompt} and {this}")
    assert line.run(show_progress=False).read()["chat"].tolist() == ["answer to: Say {prompt} and {this}"]


def test_messages_and_mappings_are_rows_too(lab: Loopback, tmp_path: Path) -> None:
    said = [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Say it"}]
    line = pipeline(tmp_path / "a")
    line.append(said)
    line.append(messages=said[1:])
    assert line.run(show_progress=False).read()["chat"].tolist() == ["answer to: Say it"] * 2
    assert [len(request.body["messages"]) for request in lab.seen] in ([2, 1], [1, 2])

    line = pipeline(tmp_path / "b").chat("Say {name} {n}", model="lab/m")
    line.append({"name": "x"}, n=1)
    line.append(name="y", n=2)
    done = line.run(show_progress=False).read()
    assert done.values.tolist() == [["x", 1, "answer to: Say x 1"], ["y", 2, "answer to: Say y 2"]]


@pytest.mark.parametrize(
    ("row", "says"),
    [(5, "not int"), ({}, "at least one column"), (None, "at least one column"), ({"b": 1}, "column 'b'"), ([1], "not list")],
)
def test_what_is_no_row_is_told_where_it_is_appended(tmp_path: Path, row: Any, says: str) -> None:
    line = pipeline(tmp_path / "out")
    line.append(a=1)
    with pytest.raises(BadInput, match=says):
        line.append(row)


def test_the_same_loop_again_pays_nothing_and_another_one_is_refused(lab: Loopback, tmp_path: Path) -> None:
    def loop(count: int) -> Any:
        line = pipeline(tmp_path / "out")
        for number in range(count):
            line.append(f"Say row {number}")
        return line.run(show_progress=False)

    assert loop(5).rows == loop(5).rows == 5
    assert lab.requests == 5
    with pytest.raises(BadInput, match="the input"):
        loop(6)


def test_a_pipeline_can_be_run_again_and_limited_first(lab: Loopback, tmp_path: Path) -> None:
    line = pipeline(tmp_path / "out")
    for number in range(5):
        line.append(f"Say row {number}")
    assert line.run(limit=2, show_progress=False).rows == 2
    assert line.run(show_progress=False).read()["chat"].tolist() == answers(5)
    assert lab.requests == 5


def test_a_later_step_starts_before_an_earlier_one_ends(lab: Loopback, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({"text": f"row {number}"}) + "\n" for number in range(12)))
    line = pipeline(tmp_path / "out", path).chat("Say {text}", into="said", model="lab/m").chat("Echo: {said}", into="again", model="lab/m")
    done = line.run(show_progress=False)
    assert done.read()["again"].tolist() == [f"answer to: Echo: answer to: Say row {number}" for number in range(12)]
    second = ["Echo" in request.texts[-1] for request in lab.seen]
    assert second.index(True) < len(second) - 1 - second[::-1].index(False)


def test_chat_extract_and_embed_follow_one_another(lab: Loopback, tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": [f"row {number}" for number in range(5)]})
    frame.to_parquet(tmp_path / "in.parquet")
    line = pipeline(tmp_path / "out", tmp_path / "in.parquet", keep=["text"]).chat("Say {text}", into="said", model="lab/m")
    line = line.extract({"number": int}, on="said", model="lab/m").embed("said", into="vector", model="local/lexical", dimensions=64)
    assert "said > extract > vector" in repr(line)
    found = line.run(show_progress=False).read()
    assert found.columns.tolist() == ["text", "said", "number", "vector"]
    assert found["number"].tolist() == list(range(5)) and found["number"].dtype == "Int64"
    assert found["vector"].llm.matrix().shape == (5, 64)


def test_a_row_that_failed_in_one_step_is_missing_in_the_next_and_unpaid(lab: Loopback, tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("text\n" + "".join(f"row {number}\n" for number in range(6)))
    lab.refuse = lambda body: refusal() if "Say row 3" in json.dumps(body) else None
    line = pipeline(tmp_path / "out", path).chat("Say {text}", into="said", model="lab/m").chat("Tell {text}", into="told", model="lab/m")
    done = line.run(show_progress=False)
    assert done.read()[["said", "told"]].isna().sum(axis=1).tolist() == [0, 0, 0, 2, 0, 0]
    assert done.errors()[["row", "line", "step", "kind"]].values.tolist() == [[3, 5, "said", "refusal"]]
    assert lab.requests == 11
    assert llmkit.last().progress().rows == 12


def test_a_step_has_the_signature_of_the_frames_method(tmp_path: Path) -> None:
    ours, theirs = inspect.signature(llmkit.Pipeline.chat), inspect.signature(pd.DataFrame.llm.chat)  # type: ignore[attr-defined]
    said_by_run = {"limit", "cache", "on_error", "max_cost", "dry_run", "show_progress", "wait", "batch"}
    assert set(theirs.parameters) - set(ours.parameters) == said_by_run & set(theirs.parameters)
    assert set(ours.parameters) - set(theirs.parameters) == {"into"}
    with pytest.raises(TypeError, match="prmpt"):
        pipeline(tmp_path / "out").chat(prmpt="Say {text}")


def test_what_cannot_work_is_told_before_anything_is_sent(lab: Loopback, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("text\na\n")
    with pytest.raises(BadInput, match="'said'"):
        pipeline(tmp_path / "out", tmp_path / "in.csv").chat("Say {text}", model="lab/m").extract(
            {"n": int}, on="said", model="lab/m"
        ).run()
    with pytest.raises(BadInput, match="makes a column 'chat'"):
        pipeline(tmp_path / "out", tmp_path / "in.csv").chat("Say {text}", model="lab/m").chat("Tell {text}", model="lab/m").run()
    with pytest.raises(BadInput, match="no rows"):
        pipeline(tmp_path / "out").run()
    with pytest.raises(BadInput, match="reads files"):
        pipeline(tmp_path / "out", tmp_path / "in.csv").append("a")
    assert lab.requests == 0


def test_rows_are_not_appended_to_a_run_under_way(lab: Loopback, tmp_path: Path) -> None:
    line = pipeline(tmp_path / "out")
    line.append("Say row 0")
    lab.hold()
    run = line.run(wait=False)
    with pytest.raises(ConfigError, match="running"):
        line.append("Say row 1")
    lab.release()
    assert run.result().rows == 1
