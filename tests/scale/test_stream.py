"""``llmkit.stream_file``: the same answers as a frame's, in parts, whatever stops it."""

from __future__ import annotations

import itertools
import json
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import llmkit
from llmkit.errors import BadInput, BudgetReached, ConfigError, DiskFull, MissingKey
from llmkit.scale import stream
from tests.loopback import Loopback, bad_key, refusal
from tests.process.child import settled

ROWS = 25


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A Parquet file of 25 rows with ids and texts."""
    path = tmp_path / "in.parquet"
    pd.DataFrame({"id": range(ROWS), "text": [f"row {number}" for number in range(ROWS)]}).to_parquet(path)
    return path


def ask(path: Any, out: Any, prompt: str | None = "Say {text}", **more: Any) -> Any:
    given: dict[str, Any] = {"model": "lab/test-chat", "show_progress": False, "chunk_rows": 4, **more}
    return llmkit.stream_file(path, "chat", prompt=prompt, out=out, **given)


def answers(numbers: Any = range(ROWS)) -> list[str]:
    return [f"answer to: Say row {number}" for number in numbers]


# ----------------------------------------------------------------------------------------------------------------- the result


def test_rows_stand_beside_their_answers_in_order(lab: Loopback, rows: Path, tmp_path: Path) -> None:
    done = ask(rows, tmp_path / "out")
    assert repr(done) == f"<25 rows in 7 parts at {tmp_path / 'out'}: .read()>"
    assert (done.rows, len(done), done.failed, len(done.files), done.path) == (25, 25, 0, 7, str(tmp_path / "out"))
    for frame in (done.read(), pd.read_parquet(tmp_path / "out")):
        assert frame["id"].tolist() == list(range(ROWS))
        assert frame["chat"].tolist() == answers()
    assert lab.requests == ROWS


def test_the_answers_are_those_of_a_frame_and_come_from_the_same_store(lab: Loopback, rows: Path, tmp_path: Path) -> None:
    frame = pd.read_parquet(rows)
    frame["chat"] = frame.llm.chat("Say {text}", model="lab/test-chat", show_progress=False)
    done = ask(rows, tmp_path / "out")
    pd.testing.assert_frame_equal(done.read(), frame)
    assert lab.requests == ROWS


def test_columns_of_an_extraction_keep_their_dtypes_in_every_part(lab: Loopback, rows: Path, tmp_path: Path) -> None:
    from typing import Literal

    fields = {"number": int | None, "tone": Literal["good", "bad"], "parts": list[str]}
    done = llmkit.stream_file(
        rows, "extract", schema=fields, on="text", out=tmp_path / "out", model="lab/m", chunk_rows=4, show_progress=False
    )
    frame = pd.read_parquet(rows).llm.extract(fields, on="text", model="lab/m", show_progress=False)
    found = done.read()
    assert found["number"].tolist() == frame["number"].tolist() == list(range(ROWS))
    assert found["number"].dtype == frame["number"].dtype == "Int64"
    assert found["tone"].dtype == frame["tone"].dtype
    assert found["parts"].dtype == frame["parts"].dtype


def test_an_answer_that_no_column_before_could_hold_is_kept(lab: Loopback, rows: Path, tmp_path: Path) -> None:
    lab.answer = lambda body: f'{{"number": {10**25 if "row 9" in json.dumps(body) else 1}}}'
    how: dict[str, Any] = {"model": "lab/m", "show_progress": False}
    done = llmkit.stream_file(rows, "extract", schema={"number": int}, on="text", out=tmp_path / "out", chunk_rows=4, **how)
    assert [int(number) for number in done.read()["number"]] == [10**25 if number == 9 else 1 for number in range(ROWS)]


def test_vectors_are_those_of_a_frame(rows: Path, tmp_path: Path) -> None:
    how: dict[str, Any] = {"model": "local/lexical", "dimensions": 64, "show_progress": False}
    done = llmkit.stream_file(rows, "embed", on="text", into="vector", out=tmp_path / "out", chunk_rows=4, **how)
    expected = pd.read_parquet(rows).llm.embed("text", **how)
    found = done.read()["vector"]
    assert found.dtype == expected.dtype
    assert (found.llm.matrix() == expected.llm.matrix()).all()


def test_classes_and_details_come_as_columns(lab: Loopback, rows: Path, tmp_path: Path) -> None:
    lab.answer = lambda body: '{"label": "late"}'
    labels = ["late", "other"]
    done = llmkit.stream_file(
        rows, "classify", on="text", labels=labels, out=tmp_path / "a", model="lab/m", chunk_rows=4, show_progress=False
    )
    assert done.read()["label" if "label" in done.read() else "classify"].tolist() == ["late"] * ROWS
    lab.answer = None
    detail = ask(rows, tmp_path / "b", detail=True, into="said").read()
    assert detail["said_value"].tolist() == answers()
    assert detail["said_model"].tolist() == ["test-chat"] * ROWS


def test_only_the_columns_that_are_kept_are_written(lab: Loopback, rows: Path, tmp_path: Path) -> None:
    assert ask(rows, tmp_path / "a", keep=["id"]).read().columns.tolist() == ["id", "chat"]
    assert ask(rows, tmp_path / "b", keep=[], into="said").read().columns.tolist() == ["said"]
    with pytest.raises(BadInput, match="keep names a column 'nr'"):
        ask(rows, tmp_path / "c", keep=["nr"])


def test_the_index_that_pandas_kept_in_a_file_is_the_index_of_the_parts(lab: Loopback, tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": ["row 0", "row 1", "row 2"]}, index=pd.Index(["x", "y", "x"], name="key"))
    frame.to_parquet(tmp_path / "in.parquet")
    done = ask(tmp_path / "in.parquet", tmp_path / "out", chunk_rows=2)
    assert done.read().index.tolist() == ["x", "y", "x"]
    assert done.read().index.name == "key"


def test_a_missing_cell_is_not_asked_and_whole_numbers_stay_whole_beside_it(lab: Loopback, tmp_path: Path) -> None:
    pd.DataFrame({"n": pd.array([1, 2, None, 4], dtype="Int64")}).to_parquet(tmp_path / "in.parquet")
    done = ask(tmp_path / "in.parquet", tmp_path / "out", "Say {n}", chunk_rows=2)
    assert done.read()["chat"].fillna("missing").tolist() == ["answer to: Say 1", "answer to: Say 2", "missing", "answer to: Say 4"]
    assert lab.requests == 3 and done.failed == 0


def test_an_empty_file_makes_an_empty_part(lab: Loopback, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("text\n")
    done = ask(tmp_path / "in.csv", tmp_path / "out")
    assert (done.rows, done.read().columns.tolist(), lab.requests) == (0, ["text", "chat"], 0)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_lines_come_in_and_go_out(lab: Loopback, rows: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"in.{kind}"
    frame = pd.read_parquet(rows)
    if kind == "csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_json(path, orient="records", lines=True)
    done = ask(path, tmp_path / "out", parts="jsonl")
    assert done.read()["chat"].tolist() == answers()
    assert json.loads((tmp_path / "out" / "part-00001.jsonl").read_text().splitlines()[0])["chat"] == answers()[4]


def test_parts_may_lie_wherever_fsspec_reaches(lab: Loopback, rows: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    fsspec.filesystem("memory").store.clear()
    done = ask(rows, "memory://bucket/out")
    assert done.read()["chat"].tolist() == answers()
    assert ask(rows, "memory://bucket/out").rows == ROWS and lab.requests == ROWS


# ------------------------------------------------------------------------------------------------------------------- bad rows


def test_a_row_that_cannot_be_read_or_is_refused_keeps_its_place_and_its_reason(lab: Loopback, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text("".join('{"text": broken\n' if number == 5 else json.dumps({"text": f"row {number}"}) + "\n" for number in range(10)))
    lab.refuse = lambda body: refusal() if "row 7" in json.dumps(body) else None
    done = ask(path, tmp_path / "out")
    said = done.read()
    assert said["chat"].isna().tolist() == [number in (5, 7) for number in range(10)]
    assert said["text"].isna().tolist() == [number == 5 for number in range(10)]
    errors = done.errors()
    assert errors[["row", "line", "step"]].values.tolist() == [[5, 6, "read"], [7, 8, "chat"]]
    assert errors["error"][0].startswith(f"line 6 of {path} is no JSON")
    assert errors["kind"].tolist() == ["unreadable", "refusal"]
    assert done.failed == 2 and "2 failed" in repr(done)
    assert llmkit.last().errors()["row"].tolist() == [5, 7]


def test_the_first_failed_row_is_raised_where_that_is_wanted_and_the_others_are_kept(lab: Loopback, rows: Path, tmp_path: Path) -> None:
    lab.refuse = lambda body: refusal() if "row 9" in json.dumps(body) else None
    with pytest.raises(llmkit.ContentBlocked):
        ask(rows, tmp_path / "out", on_error="raise")
    assert llmkit.last().partial().rows == ROWS
    with pytest.raises(llmkit.RequestError, match="row 9"):  # finished before, and still failed
        ask(rows, tmp_path / "out", on_error="raise")


def test_retry_asks_for_the_failed_rows_and_for_no_other(lab: Loopback, rows: Path, tmp_path: Path) -> None:
    lab.refuse = lambda body: refusal() if "row 9" in json.dumps(body) else None
    ask(rows, tmp_path / "out")
    lab.refuse = None
    assert ask(rows, tmp_path / "out").failed == 1  # what is finished stays as it is
    seen = lab.requests
    run = llmkit.last().retry()
    assert run.result().read()["chat"].tolist() == answers()
    assert (lab.requests - seen, run.result().failed) == (1, 0)
    assert not list((tmp_path / "out").glob("_errors*"))


def test_where_no_row_gets_an_answer_one_warning_says_so(lab: Loopback, rows: Path, tmp_path: Path) -> None:
    lab.refuse = lambda body: refusal()
    with pytest.warns(UserWarning, match="no row got an answer"):
        assert ask(rows, tmp_path / "out").failed == ROWS


# ---------------------------------------------------------------------------------------------------------------- told at once


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"prompt": "Say {txt}"}, "txt"),
        ({"prompt": "Say it"}, "names no column"),
        ({"schema": dict}, "chat takes no schema"),
        ({"into": "text"}, "makes a column 'text'"),
        ({"prompt": None}, "column of messages"),
        ({"chunk_rows": 0}, "chunk_rows"),
        ({"parts": "csv"}, "parquet"),
        ({"max_cost": 1.0}, "needs a price"),
        ({"dtypes": {"text": "str"}}, "Parquet file says itself"),
    ],
)
def test_what_cannot_work_is_told_before_anything_is_sent_or_written(
    lab: Loopback, rows: Path, tmp_path: Path, more: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        ask(rows, tmp_path / "out", wait=False, **more)
    assert lab.requests == 0 and not (tmp_path / "out").exists()


def test_the_directory_of_the_input_is_no_place_for_parts(lab: Loopback, rows: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="parts would become input"):
        ask(rows, tmp_path)
    assert lab.requests == 0


def test_an_unknown_operation_and_a_missing_key_are_told_at_once(rows: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="did you mean 'extract'"):
        llmkit.stream_file(rows, "extrat", out=tmp_path / "out")
    with pytest.raises(MissingKey):
        ask(rows, tmp_path / "out", model="openai/gpt-5-mini")
    assert not (tmp_path / "out").exists()


def test_a_dry_run_counts_what_would_be_sent_and_writes_nothing(lab: Loopback, rows: Path, tmp_path: Path) -> None:
    ask(rows, tmp_path / "a", limit=10)
    told = ask(rows, tmp_path / "b", dry_run=True)
    assert (told.rows, told.stored, told.requests, told.model) == (ROWS, 10, 15, "lab/test-chat")
    assert not (tmp_path / "b").exists() and lab.requests == 10


def test_the_same_name_at_another_address_is_another_server_whose_answers_are_not_mixed_in(
    lab: Loopback, rows: Path, tmp_path: Path
) -> None:
    ask(rows, tmp_path / "out", limit=4)
    with Loopback() as other:
        llmkit.add_provider("lab", other.url, api_key="test-key-not-real")
        with pytest.raises(BadInput, match="other there: the server's address"):
            ask(rows, tmp_path / "out")
        assert other.requests == 0
        assert ask(rows, tmp_path / "other").read()["chat"].tolist() == answers()
        assert (lab.requests, other.requests) == (4, ROWS)


def test_a_directory_of_another_call_is_refused_before_anything_is_sent(lab: Loopback, rows: Path, tmp_path: Path) -> None:
    ask(rows, tmp_path / "out", limit=4)
    for more, says in (
        ({"prompt": "Tell {text}"}, "prompt"),
        ({"temperature": 0.5}, "temperature"),
        ({"model": "lab/other"}, "lab/other here"),
    ):
        with pytest.raises(BadInput, match=says):
            ask(rows, tmp_path / "out", **more)
    pd.DataFrame({"id": [1], "text": ["changed"]}).to_parquet(rows)
    with pytest.raises(BadInput, match="the input"):
        ask(rows, tmp_path / "out")
    assert lab.requests == 4


# --------------------------------------------------------------------------------------------------------------- on the way


def test_a_limited_run_goes_on_to_the_rest_and_pays_for_that_alone(lab: Loopback, rows: Path, tmp_path: Path) -> None:
    assert ask(rows, tmp_path / "out", limit=10).rows == 10
    assert ask(rows, tmp_path / "out", limit=10).rows == 10
    assert lab.requests == 10
    assert ask(rows, tmp_path / "out").read()["chat"].tolist() == answers()
    assert lab.requests == ROWS


def test_the_next_chunk_begins_while_the_slowest_row_of_one_is_waited_for(lab: Loopback, rows: Path, tmp_path: Path) -> None:
    slow = threading.Event()
    lab.latency = lambda seen: 0.0 if slow.is_set() or 'row 1"' not in json.dumps(seen.body) else 3600.0
    run = ask(rows, tmp_path / "out", wait=False)
    lab.wait_for(ROWS)  # all of the others were asked for
    while len(run.partial().files) < 6:
        time.sleep(0.01)
    assert [Path(file).name for file in run.partial().files] == [f"part-{number:05d}.parquet" for number in range(1, 7)]
    run.cancel()
    run.wait()
    lab.latency = 0.0
    assert ask(rows, tmp_path / "out").read()["chat"].tolist() == answers()
    assert lab.count("row 1") == 0 or settled(lab) <= ROWS + 1


def test_no_more_chunks_are_read_ahead_than_a_bound(lab: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({"text": f"row {number}"}) + "\n" for number in range(400)))
    lab.hold()
    run = ask(path, tmp_path / "out", wait=False, chunk_rows=1, max_concurrency=400)
    lab.wait_for(8)
    time.sleep(0.2)
    assert run._read <= stream._LIVE + 1
    lab.release()
    assert run.result().rows == 400


def test_a_stopped_run_keeps_what_it_has_and_goes_on(lab: Loopback, rows: Path, tmp_path: Path) -> None:
    lab.hold()
    run = ask(rows, tmp_path / "out", wait=False)
    lab.wait_for(4)
    run.cancel()
    assert run.wait(10)
    assert run.result().rows == 0
    assert "stopped" in repr(run)
    lab.release()
    assert ask(rows, tmp_path / "out").read()["chat"].tolist() == answers()


def test_an_account_that_is_refused_ends_the_run_within_a_handful_of_requests(lab: Loopback, rows: Path, tmp_path: Path) -> None:
    ask(rows, tmp_path / "out", limit=8)
    seen = lab.requests
    lab.refuse = lambda body: bad_key()
    with pytest.raises(llmkit.KeyRejected) as caught:
        ask(rows, tmp_path / "out")
    assert "8 rows are finished and stand in" in caught.value.__notes__[0]
    assert lab.requests - seen <= 16
    lab.refuse = None
    assert ask(rows, tmp_path / "out").read()["chat"].tolist() == answers()


def test_nothing_is_spent_beyond_max_cost_and_the_next_call_goes_on(lab: Loopback, rows: Path, tmp_path: Path) -> None:
    price = {"input": 1000.0, "output": 1000.0}
    llmkit.catalogue.merge({"models": [{"provider": "lab", "name": "test-chat", "price": price}]})
    with pytest.warns(UserWarning, match="max_cost") as caught:
        done = ask(rows, tmp_path / "out", max_cost=0.1, max_tokens=20)
    assert any("the same call again" in str(one.message) for one in caught)
    run = llmkit.last()
    assert isinstance(run.stopped, BudgetReached)
    assert 0 < run.cost <= 0.1 and done.rows < ROWS
    assert ask(rows, tmp_path / "out", max_tokens=20).read()["chat"].tolist() == answers()


def test_a_run_tells_how_far_it_is(lab: Loopback, rows: Path, tmp_path: Path) -> None:
    seen: list[Any] = []
    run = ask(rows, tmp_path / "out", wait=False)
    run.watch(seen.append)
    run.result()
    p = run.progress()
    assert (p.rows, p.done, p.errors, p.stored) == (ROWS, ROWS, 0, 0)
    assert p.tokens == run.usage().input + run.usage().output > 0
    assert llmkit.last() is run and "25 of 25 rows" in repr(run)
    assert all(before.done <= after.done for before, after in itertools.pairwise(seen))
    assert len(run.history()) and run.reasons() == []
    again = ask(rows, tmp_path / "out", wait=False)
    again.wait()
    assert (again.progress().stored, again.usage().requests) == (ROWS, 0)


def test_one_bar_goes_over_all_rows(lab: Loopback, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask(rows, tmp_path / "out", show_progress=True)
    said = capsys.readouterr().err
    assert "25/25" in said and said.count("100%") >= 1


def test_it_can_be_awaited(lab: Loopback, rows: Path, tmp_path: Path) -> None:
    import asyncio

    async def main() -> Any:
        return await ask(rows, tmp_path / "out", wait=False)

    assert asyncio.run(main()).rows == ROWS


def test_a_session_of_ones_own_is_used(lab: Loopback, rows: Path, tmp_path: Path) -> None:
    session = llmkit.Session(cache_dir=tmp_path / "answers")
    ask(rows, tmp_path / "out", session=session, model="echo/echo")
    assert list((tmp_path / "answers").glob("shard-*"))
    session.close()


def test_a_part_that_went_missing_is_made_again_unpaid(lab: Loopback, rows: Path, tmp_path: Path) -> None:
    ask(rows, tmp_path / "out")
    (tmp_path / "out" / "part-00002.parquet").unlink()
    cut = tmp_path / "out" / "part-00004.parquet"
    cut.write_bytes(cut.read_bytes()[:-9])
    assert ask(rows, tmp_path / "out").read()["chat"].tolist() == answers()
    assert lab.requests == ROWS


# ------------------------------------------------------------------------------------------------------------------- requests


def test_a_file_of_request_bodies_is_sent_as_it_is(lab: Loopback, tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    lines = [
        {"messages": [{"role": "system", "content": "Be {brief}"}, {"role": "user", "content": "Say one"}], "temperature": 0.5},
        {"messages": [{"role": "user", "content": "Say two"}], "max_tokens": 7},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Say three"}]}]},
        {"messages": "nonsense"},
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = ask(path, tmp_path / "out", None)
    assert done.read()["chat"].fillna("-").tolist() == ["answer to: Say one", "answer to: Say two", "answer to: Say three", "-", "-"]
    sent = {request.body["messages"][-1]["content"]: request.body for request in lab.seen}
    assert sent["Say one"]["messages"] == lines[0]["messages"] and sent["Say one"]["temperature"] == 0.5
    assert sent["Say two"].get("max_tokens", sent["Say two"].get("max_completion_tokens")) == 7
    assert done.errors()["row"].tolist() == [3, 4]


def test_a_batch_file_of_bodies_is_read_too(lab: Loopback, tmp_path: Path) -> None:
    path = tmp_path / "batch.jsonl"
    body = {"model": "any", "messages": [{"role": "user", "content": "Say it"}], "max_tokens": 9}
    path.write_text(json.dumps({"custom_id": "r1", "method": "POST", "url": "/v1/chat/completions", "body": body}) + "\n")
    done = ask(path, tmp_path / "out", None, keep=["custom_id"])
    assert done.read().values.tolist() == [["r1", "answer to: Say it"]]


# -------------------------------------------------------------------------------------------------------------------- the disk


def test_where_a_part_has_no_room_nothing_paid_is_lost(lab: Loopback, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llmkit.scale.parts import Folder

    write, full = Folder.write, [True]

    def cramped(self: Folder, file: str, data: Any) -> int:
        if full[0] and file == "part-00002.parquet":
            raise DiskFull("no room")
        return write(self, file, data)

    monkeypatch.setattr(Folder, "write", cramped)
    with pytest.raises(DiskFull):
        ask(rows, tmp_path / "out")
    full[0] = False
    assert ask(rows, tmp_path / "out").read()["chat"].tolist() == answers()
    assert settled(lab) <= ROWS + 16  # what was in flight when it stopped


def test_where_answers_can_be_kept_no_more_the_run_stops(lab: Loopback, rows: Path, tmp_path: Path, cache_dir: Path) -> None:
    cache_dir.write_text("a file where the folder should be")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        lab.hold()
        run = ask(rows, tmp_path / "out", wait=False)
        assert run.wait(10)
        lab.release()
        with pytest.raises(DiskFull, match="can no longer be kept"):
            run.result()
        assert ask(rows, tmp_path / "out", cache="off").rows == ROWS
