"""The out directory: parts that are whole or not there, and a manifest that knows whose they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

import llmkit
from llmkit.errors import BadInput, DiskFull
from llmkit.scale.parts import ERRORS, Folder, Part, Parts, mark, to_frame, with_columns

CALL = {"operation": "chat", "model": "echo/echo", "prompt": mark("Say {text}")}
SOURCE = {"files": [["in.parquet", 1234]]}


def opened(out: Any, **other: Any) -> Parts:
    return Parts(out, {**CALL, **other}, SOURCE, 2)


def filled(out: Any, numbers: range = range(3)) -> Parts:
    parts = opened(out)
    for number in numbers:
        parts.add(parts.write(Part(number, 2, until=number + 1), table(number)))
    return parts


def table(number: int) -> pa.Table:
    return with_columns(pa.table({"id": [2 * number, 2 * number + 1]}), pd.DataFrame({"chat": [f"said {number}", None]}))


@pytest.fixture(params=["disk", "memory"])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "disk":
        return tmp_path / "out"
    fsspec = pytest.importorskip("fsspec")
    fsspec.filesystem("memory").store.clear()
    return "memory://bucket/out"


def test_parts_are_read_in_the_order_of_their_rows(out: Any) -> None:
    parts = opened(out)
    for number in (2, 0, 1):
        parts.add(parts.write(Part(number, 2), table(number)))
    parts.finish(6)
    assert parts.read()["id"].tolist() == [0, 1, 2, 3, 4, 5]
    assert parts.read()["chat"].isna().tolist() == [False, True] * 3


def test_pandas_reads_the_directory_as_it_is(tmp_path: Path) -> None:
    parts = opened(tmp_path)
    errors = pa.Table.from_pylist([{"row": 1, "kind": "refusal"}], schema=ERRORS)
    typed = pd.DataFrame({"stars": pd.array([4, None], dtype="Int64"), "tone": pd.Categorical(["good", None], ["good", "bad"])})
    vectors = pd.Series([[1.0, 2.0], None], dtype=pd.ArrowDtype(pa.list_(pa.float32(), 2)))
    parts.add(parts.write(Part(0, 2, 1), with_columns(pa.table({"id": [0, 1]}), typed.assign(vector=vectors)), errors))
    parts.finish(2)
    frame = pd.read_parquet(tmp_path)
    assert frame["stars"].dtype == "Int64" and frame["tone"].dtype == typed["tone"].dtype
    assert frame["id"].tolist() == [0, 1]
    assert parts.read()["vector"].dtype == vectors.dtype
    assert parts.errors()["row"].tolist() == [1]


def test_what_another_process_finished_is_found_again(out: Any) -> None:
    filled(out).finish(6)
    again = opened(out)
    assert [again.whole(number) for number in range(4)] == [
        Part(n, 2, until=n + 1, bytes=again.folder.size(again.file(n))) for n in range(3)
    ] + [None]  # type: ignore[arg-type]
    assert again.rows == 6


def test_a_part_that_the_manifest_does_not_list_yet_names_itself(out: Any) -> None:
    parts = filled(out, range(1))
    parts.write(Part(1, 2, cost=0.5, until={"line": 7}), table(1))  # and the process is killed
    found = opened(out).whole(1)
    assert found is not None and (found.cost, found.until) == (0.5, {"line": 7})


def test_parts_without_a_manifest_name_themselves_too(out: Any) -> None:
    parts = filled(out)
    parts.folder.remove("_manifest.json")
    assert all(opened(out).whole(number) for number in range(3))
    with pytest.raises(BadInput, match="another run"):
        opened(out, model="echo/other")


@pytest.mark.parametrize("listed", [True, False])
def test_a_part_that_was_cut_is_made_again(tmp_path: Path, listed: bool) -> None:
    parts = filled(tmp_path)
    if listed:
        parts.finish(6)
    else:
        manifest = tmp_path / "_manifest.json"
        said = json.loads(manifest.read_text())
        said["parts"].pop("1", None)
        manifest.write_text(json.dumps(said))
    cut = tmp_path / "part-00001.parquet"
    cut.write_bytes(cut.read_bytes()[:-100])
    again = opened(tmp_path)
    assert [again.whole(number) is not None for number in range(3)] == [True, False, True]


def test_a_directory_of_another_run_is_refused_and_what_differs_is_named(out: Any) -> None:
    filled(out).finish(6)
    with pytest.raises(BadInput, match=r"other there: prompt\. Say another out="):
        opened(out, prompt=mark("Tell {text}"))
    with pytest.raises(BadInput, match=r"model \(echo/echo there, echo/other here\)"):
        opened(out, model="echo/other")
    with pytest.raises(BadInput, match="the input"):
        Parts(out, CALL, {"files": [["in.parquet", 1235]]}, 2)
    with pytest.raises(BadInput, match="chunk_rows"):
        Parts(out, CALL, SOURCE, 3)


def test_parts_that_nobody_knows_are_left_alone(tmp_path: Path) -> None:
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "part-00000.parquet")
    with pytest.raises(BadInput, match="no call of llmkit"):
        opened(tmp_path)
    (tmp_path / "part-00000.parquet").unlink()
    (tmp_path / "_manifest.json").write_text("{}")
    with pytest.raises(BadInput, match="none of llmkit's"):
        opened(tmp_path)


def test_the_manifest_holds_no_text_of_the_prompt(tmp_path: Path) -> None:
    filled(tmp_path).finish(6)
    assert "Say" not in (tmp_path / "_manifest.json").read_text()


def test_equal_arguments_have_equal_marks_and_others_have_not() -> None:
    from pydantic import BaseModel

    class Review(BaseModel):
        stars: int

    class Other(BaseModel):
        stars: float

    assert mark(Review) == mark(Review) != mark(Other)
    assert mark({"a": int}) == mark({"a": int}) != mark({"a": str})
    assert mark(["a", "b"]) == mark(("a", "b")) != mark(["b", "a"])
    assert mark(pd.DataFrame({"a": [1]})) == mark(pd.DataFrame({"a": [1]})) != mark(pd.DataFrame({"a": [2]}))
    assert mark(0.5) == 0.5 and mark(None) is None


def test_a_disk_without_room_is_told_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    parts = filled(tmp_path)
    before = parts.folder.files()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(DiskFull, match="no room for part-00003"):
            parts.write(Part(3, 2), table(3))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert parts.folder.files() == before


def test_what_a_killed_process_left_unfinished_goes_after_an_hour(tmp_path: Path) -> None:
    import os
    import time

    filled(tmp_path).finish(6)
    old, new = tmp_path / ".part-00003.parquet.12ab34cd", tmp_path / ".part-00004.parquet.12ab34cd"
    for file in (old, new):
        file.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    opened(tmp_path)
    assert not old.exists() and new.exists()


def test_parts_can_be_json_lines(tmp_path: Path) -> None:
    parts = Parts(tmp_path, CALL, SOURCE, 2, kind="jsonl")
    parts.add(parts.write(Part(0, 2), table(0)))
    parts.finish(2)
    assert (tmp_path / "part-00000.jsonl").read_text().splitlines() == ['{"id":0,"chat":"said 0"}', '{"id":1,"chat":null}']
    assert parts.read()["chat"].tolist()[0] == "said 0"
    assert Parts(tmp_path, CALL, SOURCE, 2, kind="jsonl").whole(0) is not None


def test_a_column_without_a_value_takes_the_type_it_had_in_the_part_before() -> None:
    before = with_columns(
        pa.table({"id": [0]}), pd.DataFrame({"v": pd.Series([[1.0, 2.0]], dtype=pd.ArrowDtype(pa.list_(pa.float32(), 2)))})
    )
    after = with_columns(
        pa.table({"id": [1]}), pd.DataFrame({"v": pd.Series([None], dtype=pd.ArrowDtype(pa.list_(pa.float32())))}), before.schema
    )
    assert after.schema.equals(before.schema)
    assert len(to_frame([before, after])) == 2


def test_a_path_that_needs_a_package_says_so() -> None:
    with pytest.raises(llmkit.MissingExtra, match="nowhere"):
        Folder("nowhere://bucket/out")
