"""``llmkit.Index``: built, searched, grown, saved, loaded; nothing is patched but the clock of nobody."""

from __future__ import annotations

import _thread
import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pytest

import llmkit
from llmkit import Index
from llmkit.errors import BadInput, Cancelled, ConfigError, MissingExtra
from llmkit.frames.columns import vectors_of
from tests.loopback import Loopback
from tests.vectors.clusters import clustered, cosines

QUIET: dict[str, Any] = {"show_progress": False}
EMBED: dict[str, Any] = {"model": "local/lexical", "dimensions": 64, **QUIET}
faiss = pytest.mark.skipif(find_spec("faiss") is None, reason="faiss is not installed")
KINDS = ["exact", pytest.param("hnsw", marks=faiss), pytest.param("ivf", marks=faiss)]


def framed(matrix: npt.NDArray[np.float32], missing: list[int] | None = None, first: int = 0) -> pd.DataFrame:
    """A frame of many dtypes, with a column of these vectors."""
    count = len(matrix)
    there = np.ones(count, dtype=bool)
    there[missing or []] = False
    frame = pd.DataFrame(
        {
            "id": np.arange(first, first + count),
            "text": [f"row {number}" for number in range(first, first + count)],
            "stars": pd.array([4, None] * (count // 2) + [1] * (count % 2), dtype="Int64"),
            "tone": pd.Categorical(["good"] * count, ["good", "bad"]),
            "when": pd.Timestamp("2026-11-21", tz="Europe/Berlin"),
            "vector": pd.Series(vectors_of(matrix.copy(), there, matrix.shape[1])),
            "tags": pd.array([["a", "b"]] * count, dtype=pd.ArrowDtype(pa.list_(pa.string()))),
        }
    )
    frame.index = pd.Index([f"k{number}" for number in range(first, first + count)], name="key")
    return frame


# ------------------------------------------------------------------------------------------------------------------- searching


def test_an_exact_index_finds_what_search_finds() -> None:
    frame = pd.DataFrame({"text": ["late parcel", None, "red apple", "green apple", "the parcel is late"]}, index=list("abcde"))
    frame["vector"] = frame.llm.embed("text", **EMBED)
    index = Index(frame, on="vector", **QUIET)
    for query in ("where is my parcel", "an apple"):
        found, searched = index.search(query, top_k=9), frame.llm.search(query, on="vector", top_k=9)
        pd.testing.assert_frame_equal(found, searched)
    assert len(index) == 4 and index.model == "local/lexical"


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_exact_whatever_the_kind(kind: Any) -> None:
    rows, asked = clustered(3_000), clustered(40, seed=1)
    index = Index(framed(rows), kind=kind, **QUIET)
    hits = index.search_many(asked, top_k=10)
    np.testing.assert_allclose(hits["score"], cosines(asked, rows)[hits["query"], hits["id"]], atol=1e-6)
    best = -np.sort(-cosines(asked, rows), axis=1)[:, :10]
    assert (hits["score"].to_numpy().reshape(40, 10) >= best[:, 9:] - 1e-6).mean() > 0.9
    assert index.kind == kind
    assert index.recall(sample=50) > 0.9
    assert f"recall@10 {index.recall(sample=50):.3f} of 50 asked" in repr(index)


@pytest.mark.parametrize("kind", KINDS)
def test_many_queries_are_the_queries_one_by_one(kind: Any) -> None:
    index = Index(framed(clustered(500)), kind=kind, **QUIET)
    asked = clustered(5, seed=1)
    many = index.search(asked, top_k=3)
    for number in range(5):
        pd.testing.assert_frame_equal(many[many["query"] == number].drop(columns="query"), index.search(asked[number], top_k=3))
    for given in (list(asked), asked.tolist(), pd.Series(list(asked)), tuple(asked)):
        pd.testing.assert_frame_equal(index.search(given, top_k=3), many)


def test_many_texts_are_embedded_together_and_told_by_their_text(lab: Loopback) -> None:
    frame = pd.DataFrame({"text": ["a", "b", "c"]})
    frame["vector"] = frame.llm.embed("text", model="lab/mine", **QUIET)
    index = Index(frame, **QUIET)
    lab.reset()
    hits = index.search(["b", None, "c", "b"], top_k=1)
    assert hits["query"].tolist() == hits["text"].tolist() == ["b", "c", "b"]
    assert lab.requests == 0  # they are stored: to this model a query is a text like any other
    index.search(["x", "y", "x"])
    assert lab.requests == 1 and dict(lab.texts) == {"x": 1, "y": 1}


def test_a_text_is_embedded_as_a_query_by_the_model_that_made_the_column(lab: Loopback) -> None:
    frame = pd.DataFrame({"text": ["a", "b"]})
    frame["vector"] = frame.llm.embed("text", model="lab/mine", **QUIET)
    llmkit.use(embed="lab/other")
    index = Index(frame, **QUIET)
    lab.reset()
    index.search("a new question", top_k=1)
    assert [request.body["model"] for request in lab.seen] == ["mine"]


def test_a_text_is_refused_where_nobody_knows_who_made_the_vectors() -> None:
    index = Index(framed(clustered(20, 24)), **QUIET)
    assert "a model that is not known" in repr(index)
    with pytest.raises(BadInput, match=r"24 numbers is not known.*model="):
        index.search("a text")


def test_a_model_whose_vectors_are_of_another_length_is_refused(lab: Loopback) -> None:
    with pytest.raises(BadInput, match=r"of 24 numbers, and lab/other makes 8"):
        Index(framed(clustered(20, 24)), model="lab/other", **QUIET).search("a text")


def test_a_text_is_refused_where_two_models_made_vectors_of_the_length(lab: Loopback) -> None:
    frame = pd.DataFrame({"text": ["a", "b"]})
    frame["vector"] = frame.llm.embed("text", model="lab/mine", **QUIET)
    frame.llm.embed("text", model="lab/other", **QUIET)
    index = Index(frame, **QUIET)
    with pytest.raises(BadInput, match=r"lab/mine.*lab/other.*model="):
        index.search("a")
    assert index.search("a", model="lab/mine", top_k=1)["text"].tolist() == ["a"]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("", "needs a query"),
        (np.ones(31), "vectors of 32 numbers, and the query has 31"),
        (np.zeros(32), "finite and not zero"),
        (np.full((2, 32), np.inf), "rows 0, 1"),
        (["a", 3], "all texts or all vectors"),
        ({"a": 1}, "not dict"),
    ],
)
def test_a_query_that_cannot_be_compared_is_refused(query: Any, says: str) -> None:
    index = Index(framed(clustered(20)), model="local/lexical", **QUIET)
    with pytest.raises(ConfigError, match=says):
        index.search(query)


def test_a_frame_without_rows_or_vectors_is_an_index_that_finds_nothing() -> None:
    rows = clustered(3)
    for frame in (framed(rows).iloc[:0], framed(rows, [0, 1, 2])):
        index = Index(frame, **QUIET)
        assert len(index) == 0
        hits = index.search(rows[0])
        assert len(hits) == 0 and hits.columns.tolist() == [*frame.columns, "score"]
        assert len(index.add(framed(rows), **QUIET).search(rows[0])) == 3


# -------------------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_vectors_that_are_no_directions_are_refused_with_their_rows(dtype: Any) -> None:
    rows = clustered(5_000)
    rows[[3, 4_500]] = np.nan
    rows[7, 5] = np.inf
    with pytest.raises(BadInput, match=r"not finite, in rows 3, 7, 4500 \(from 0\)"):
        Index(framed(rows), dtype=dtype, **QUIET)
    rows = clustered(5_000)
    rows[[10, 11, 12, 13, 14, 15, 16]] = 0
    with pytest.raises(BadInput, match=r"zero, which have no direction, in rows 10, 11, 12, 13, 14 and 2 more"):
        Index(framed(rows), dtype=dtype, **QUIET)


def test_a_missing_vector_is_left_out_and_a_wrong_length_is_refused_with_its_row() -> None:
    cells = [[1.0, 0.0], None, [0.0, 1.0], [1.0], [1.0, 1.0]]
    with pytest.raises(BadInput, match=r"2 numbers, but others in row 3"):
        Index(pd.DataFrame({"vector": cells}), **QUIET)
    cells[3] = [0.5, 0.5]
    index = Index(pd.DataFrame({"vector": cells}), **QUIET)
    assert len(index) == 4
    assert index.search([0.0, 2.0], top_k=9).index.tolist() == [2, 3, 4, 0]


@pytest.mark.parametrize("path", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_refused_while_adding_leaves_the_index_as_it_was(kind: Any, path: bool, tmp_path: Path) -> None:
    rows = clustered(1_000)
    index = Index(framed(rows), kind=kind, path=tmp_path / "index" if path else None, **QUIET)
    before = index.search_many(rows[:20], 5)
    with pytest.raises(BadInput, match="of 32 numbers, and column 'vector' of the frame some of 16"):
        index.add(framed(clustered(10, 16)), **QUIET)
    with pytest.raises(BadInput, match="'more' is in one of the two only"):
        index.add(framed(rows).assign(more=1), **QUIET)
    assert len(index) == 1_000
    pd.testing.assert_frame_equal(index.search_many(rows[:20], 5), before)


@pytest.mark.parametrize(("kind", "package"), [("hnsw", "faiss"), ("faiss", "faiss"), ("lance", "lancedb")])
def test_a_kind_whose_package_is_not_there_says_what_to_install(kind: Any, package: str, tmp_path: Path) -> None:
    if find_spec(package) is None:
        with pytest.raises(MissingExtra, match=r"pip install 'llmkit\[(ann|lance)\]'"):
            Index(framed(clustered(3)), kind=kind, path=tmp_path / "index", **QUIET)
        return
    without = f"import sys; sys.modules[{package!r}] = None\nimport pandas, llmkit\n"
    call = f"llmkit.Index(pandas.DataFrame({{'vector': [[1.0]]}}), kind={kind!r}, path={str(tmp_path / 'index')!r})"
    done = subprocess.run([sys.executable, "-c", without + call], capture_output=True, text=True, check=False)
    assert "pip install 'llmkit[" in done.stderr.splitlines()[-1]


def test_lance_needs_a_place_on_the_disk() -> None:
    with pytest.raises(BadInput, match="path="):
        Index(framed(clustered(3)), kind="lance", **QUIET)


# --------------------------------------------------------------------------------------------------------------------- growing


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("on_disk", [False, True])
def test_an_index_grows_by_frames(kind: Any, on_disk: bool, tmp_path: Path) -> None:
    rows, path = clustered(3_000), tmp_path / "index"
    whole = Index(framed(rows), kind="exact", **QUIET)
    index = Index(framed(rows[:1_000]), kind=kind, path=path if on_disk else None, **QUIET)
    index.add(framed(rows[1_000:1_001], first=1_000), **QUIET)
    index.add(framed(rows[1_001:], first=1_001), **QUIET)
    assert len(index) == 3_000
    asked = clustered(30, seed=1)
    hits, wanted = index.search_many(asked, 10), whole.search_many(asked, 10)
    assert hits.index.name == "key" and (hits.index == [f"k{number}" for number in hits["id"]]).all()
    assert len(set(zip(hits["query"], hits["id"], strict=True)) & set(zip(wanted["query"], wanted["id"], strict=True))) > 0.9 * len(wanted)
    if on_disk:
        pd.testing.assert_frame_equal(Index.load(path).search_many(asked, 10), hits)


@faiss
def test_an_automatic_index_becomes_approximate_when_it_has_grown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmkit.scale.index.MANY", 1_500)
    rows = clustered(2_000)
    index = Index(framed(rows[:1_000], [5]), **QUIET)
    assert index.kind == "exact"
    index.add(framed(rows[1_000:], first=1_000), **QUIET)
    assert index.kind == "hnsw" and len(index) == 1_999
    assert index.search(rows[1_700], top_k=1)["id"].tolist() == [1_700]
    assert 5 not in index.search(rows[5], top_k=50)["id"].tolist()


# -------------------------------------------------------------------------------------------------------------- saving and loading


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_was_saved_is_loaded_with_index_dtypes_and_scores(kind: Any, dtype: Any, tmp_path: Path) -> None:
    frame = framed(clustered(1_500), [2, 700])
    index = Index(frame, kind=kind, dtype=dtype, model="local/lexical", **QUIET)
    asked = clustered(20, seed=1)
    before = index.search_many(asked, 7)
    recall = index.recall(sample=30)
    index.save(tmp_path / "index", **QUIET)
    loaded = Index.load(tmp_path / "index")
    after = loaded.search_many(asked, 7)
    if dtype != "float32":
        assert str(after["vector"].dtype.pyarrow_dtype.value_type) == {"float16": "halffloat", "int8": "int8"}[dtype]
        before, after = before.drop(columns="vector"), after.drop(columns="vector")
    pd.testing.assert_frame_equal(after, before)
    assert (loaded.kind, loaded.model, len(loaded), loaded.dimensions) == (kind, "local/lexical", 1_498, 32)
    assert loaded.size == sum(file.stat().st_size for file in (tmp_path / "index").iterdir() if file.name != "index.json")
    assert repr(loaded) == repr(index) and f"recall@10 {recall:.3f}" in repr(loaded) and "MB on disk" in repr(loaded)


@pytest.mark.parametrize(
    "index",
    [
        pd.RangeIndex(6),
        pd.Index([1, 1, 2, 2, 3, 3]),
        pd.MultiIndex.from_product([["a", "b"], [1, 2, 3]], names=["letter", None]),
        pd.date_range("2026-01-01", periods=6, tz="UTC", name="day"),
    ],
)
def test_every_index_comes_back(index: pd.Index[Any], tmp_path: Path) -> None:
    frame = framed(clustered(6)).set_index(index)
    frame.columns = pd.Index([*frame.columns[:-1], "score"])
    built = Index(frame, **QUIET)
    before = built.search(clustered(1, seed=1)[0], 6)
    after = Index.load(built.save(tmp_path / "index", **QUIET)._path or "").search(clustered(1, seed=1)[0], 6)
    pd.testing.assert_frame_equal(after, before, check_freq=False)


def test_saving_again_writes_what_is_new_and_takes_away_what_is_old(tmp_path: Path) -> None:
    path = tmp_path / "index"
    Index(framed(clustered(100, seed=4)), path=path, **QUIET)
    first = set(os.listdir(path))
    index = Index(framed(clustered(50)), path=path, **QUIET)
    second = set(os.listdir(path))
    assert first & second == {"index.json"} and len(second) == 4
    index.add(framed(clustered(5), first=50), **QUIET)
    assert second < set(os.listdir(path))
    index.save(tmp_path / "copy", **QUIET)
    assert len(Index.load(path)) == len(Index.load(tmp_path / "copy")) == 55


def test_an_index_that_somebody_else_changed_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "index"
    Index(framed(clustered(50)), path=path, **QUIET)
    mine, other = Index.load(path), Index.load(path)
    other.add(framed(clustered(5), first=50), **QUIET)
    with pytest.raises(BadInput, match="changed by somebody else since it was loaded"):
        mine.add(framed(clustered(5), first=50), **QUIET)
    assert len(mine.search(clustered(1)[0], 99)) == 50
    assert len(Index.load(path)) == 55


def test_neither_attrs_nor_a_key_are_written(tmp_path: Path) -> None:
    frame = framed(clustered(10))
    frame.attrs["key"] = "CANARY-1"
    llmkit.set_key("openai", "CANARY-2")
    Index(frame, path=tmp_path / "index", model="openai/text-embedding-3-small", **QUIET)
    written = b"".join(file.read_bytes() for file in (tmp_path / "index").iterdir())
    assert b"CANARY" not in written


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    index = Index(framed(clustered(10)), **QUIET)
    with pytest.raises(BadInput, match=r"holds 'thesis.txt' and no index"):
        index.save(tmp_path)
    with pytest.raises(BadInput, match="is a file"):
        index.save(tmp_path / "thesis.txt")
    assert os.listdir(tmp_path) == ["thesis.txt"]
    with pytest.raises(BadInput, match="there is no index"):
        Index.load(tmp_path)


def test_a_column_that_cannot_be_written_is_named_and_what_was_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "index"
    Index(framed(clustered(30)), path=path, **QUIET)
    before = sorted(os.listdir(path))
    mixed = framed(clustered(10))
    mixed["odd"] = pd.Series([object(), 1] * 5, index=mixed.index, dtype=object)
    with pytest.raises(BadInput, match=r"column 'odd' cannot be written.*\.map\(str\)"):
        Index(mixed, **QUIET).save(path, **QUIET)
    assert sorted(os.listdir(path)) == before and len(Index.load(path)) == 30


@pytest.mark.parametrize("kind", ["vectors", "lengths", "rows"])
def test_an_index_that_is_cut_short_says_so(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "index"
    Index(framed(clustered(30)), path=path, **QUIET)
    (file,) = path.glob(f"*.{kind}")
    os.truncate(file, 100)
    with pytest.raises(BadInput, match=rf"damaged: part-\w+\.{kind} has 100 bytes and should have"):
        Index.load(path)
    file.unlink()
    with pytest.raises(BadInput, match=r"is missing"):
        Index.load(path)


def test_a_manifest_that_points_outside_of_its_folder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "index"
    Index(framed(clustered(30)), path=path, **QUIET)
    said = json.loads((path / "index.json").read_text())
    said["parts"][0]["name"] = "../part-1"
    (path / "index.json").write_text(json.dumps(said))
    with pytest.raises(BadInput, match="not of the index"):
        Index.load(path)
    (path / "index.json").write_text("{}")
    with pytest.raises(BadInput, match="not what llmkit wrote"):
        Index.load(path)


_SAVING = """
import sys, numpy as np, pandas as pd
from llmkit import Index
frame = pd.DataFrame({"vector": list(np.random.default_rng(0).standard_normal((20_000, 64)).astype("float32"))})
index = Index(frame, dtype="float16", show_progress=False)
print("saving", flush=True)
while True:
    index.save(sys.argv[1], show_progress=False)
    index = Index(frame, dtype="float16", show_progress=False)
"""


def test_a_process_that_is_killed_while_it_saves_leaves_an_index_that_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "index"
    Index(framed(clustered(30)), path=path, **QUIET)
    seen = set()
    for turn in range(4):
        process = subprocess.Popen([sys.executable, "-c", _SAVING, str(path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None and process.stdout.readline() == "saving\n"
        threading.Event().wait(0.02 * 3**turn)  # whenever it comes
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        seen.add(len(Index.load(path)))
    assert seen <= {30, 20_000}
    assert len(Index.load(path).search(np.ones(Index.load(path).dimensions), 3)) == 3


# -------------------------------------------------------------------------------------------------------------- while it is built


@faiss
def test_the_kernel_goes_on_while_an_index_is_built() -> None:
    frame = framed(clustered(20_000, 64))
    began = last = time.perf_counter()
    index = Index(frame, kind="ivf", wait=False)
    longest = 0.0
    assert "being built" in repr(index)
    while not index.done:
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
    # One call of faiss learns the centres: holding the GIL, it would stop this loop for most of the time.
    assert longest < 0.5 * (last - began)
    assert index.result() is index and len(index) == 20_000


def test_an_index_can_be_awaited_and_waited_for() -> None:
    frame = framed(clustered(2_000))

    async def awaited() -> Index:
        return await Index(frame, wait=False, **QUIET)

    assert len(asyncio.run(awaited())) == 2_000
    index = Index(frame, wait=False, **QUIET)
    assert index.wait(30) and index.done
    assert index.progress().done == 2_000
    assert len(index.search(clustered(1)[0], 3)) == 3
    rows = clustered(20)
    rows[3] = 0
    failing = Index(framed(rows), wait=False, **QUIET)
    assert failing.wait(30)
    for _ in range(2):
        with pytest.raises(BadInput, match="in row 3"):
            failing.search(clustered(1)[0])


@faiss
def test_a_stop_leaves_a_growing_index_as_it_was(tmp_path: Path) -> None:
    rows = clustered(1_000, 64)
    index = Index(framed(rows), kind="hnsw", **QUIET)
    before = index.search_many(rows[:20], 5)
    index.add(framed(clustered(100_000, 64, seed=2)), wait=False)
    while index.progress().done < 110_000:  # some of them are in the graph
        assert not index.done
    index.cancel()
    assert index.wait(30)
    with pytest.raises(Cancelled):
        index.search(rows[0])
    pd.testing.assert_frame_equal(index.search_many(rows[:20], 5), before)
    index.add(framed(rows[:300], first=5_000), **QUIET)
    assert set(index.search(rows[3], 2)["id"]) == {3, 5_003}
    after = index.save(tmp_path / "index", **QUIET).search_many(rows[:20], 5)
    pd.testing.assert_frame_equal(Index.load(tmp_path / "index").search_many(rows[:20], 5), after)


@faiss
def test_ctrl_c_stops_the_building_and_the_bar(capsys: pytest.CaptureFixture[str]) -> None:
    index = Index(framed(clustered(500, 64)), kind="hnsw", **QUIET)
    frame = framed(clustered(200_000, 64, seed=2))
    threading.Timer(1.0, _thread.interrupt_main).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        index.add(frame)
    assert time.monotonic() - began < 10
    said = capsys.readouterr().err
    assert "index of 200,000 rows" in said and "stopped; the index is as it was" in said
    assert len(index.search(clustered(1, 64)[0], 600)) == 500


# ------------------------------------------------------------------------------------------------------------------------ LanceDB


@pytest.mark.skipif(find_spec("lancedb") is None, reason="lancedb is not installed")
def test_a_lance_index_lives_on_the_disk(tmp_path: Path) -> None:
    rows, asked = clustered(2_000), clustered(10, seed=1)
    index = Index(framed(rows[:1_500], [3]), kind="lance", path=tmp_path / "index", **QUIET)
    wanted = Index(framed(rows, [3]), **QUIET).search_many(asked, 10)
    index.add(framed(rows[1_500:], first=1_500), **QUIET)
    assert index.kind == "lance" and len(index) == 1_999
    pd.testing.assert_frame_equal(index.search_many(asked, 10), wanted)
    loaded = Index.load(tmp_path / "index")
    pd.testing.assert_frame_equal(loaded.search_many(asked, 10), wanted)
    with pytest.raises(BadInput, match="numbers"):
        loaded.add(framed(clustered(5, 16)), **QUIET)
    loaded.add(framed(rows[:7], first=9_000), **QUIET)
    assert len(Index.load(tmp_path / "index").search(rows[0], 2)) == 2
    assert loaded.size > 0 and loaded.recall(sample=20) == 1.0
    with pytest.raises(BadInput, match="stays where it is"):
        loaded.save(tmp_path / "other")
