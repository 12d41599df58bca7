"""Every kind of cell, index and column that pandas knows: what is sent for it, and what comes back in its place."""

from __future__ import annotations

import datetime
import decimal
import enum
import pathlib
import re
import uuid
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import llmkit
from llmkit.frames.columns import TEXT, FrameTable, as_text
from tests.loopback import Loopback, refusal, vector_of

CHAT: dict[str, Any] = {"model": "lab/test-chat", "show_progress": False}
EMBED: dict[str, Any] = {"model": "lab/test-embed", "show_progress": False}


def texts(cells: Any, dtype: Any = None) -> list[str | None]:
    frame = pd.DataFrame({"text": pd.Series(cells, dtype=dtype)})
    table = FrameTable(frame)
    table.check(["text"])
    return table.texts("text", 0, len(table))


# ------------------------------------------------------------------------------------------------------------------- cells


@pytest.mark.parametrize(
    ("cells", "dtype"),
    [
        ([None, np.nan, pd.NA, pd.NaT], object),
        ([None, np.nan, pd.NA], "str" if pd.__version__ >= "3" else "string"),
        ([None, pd.NA], "string[pyarrow]"),
        ([None, pd.NA], "string[python]"),
        ([None], pd.ArrowDtype(pa.string())),
        ([None], pd.ArrowDtype(pa.int64())),
        ([None], pd.ArrowDtype(pa.list_(pa.int64()))),
        ([None], pd.ArrowDtype(pa.null())),
        ([np.nan], "float64"),
        ([pd.NA], "Int64"),
        ([pd.NA], "Float64"),
        ([pd.NA], "boolean"),
        ([pd.NaT], "datetime64[ns]"),
        ([pd.NaT], "datetime64[ns, UTC]"),
        ([pd.NaT], "timedelta64[ns]"),
        ([pd.NaT], "period[D]"),
        ([None], "category"),
        ([np.nan], pd.SparseDtype("float64")),
        ([np.datetime64("NaT"), np.timedelta64("NaT"), np.float32("nan"), decimal.Decimal("NaN")], object),
    ],
)
def test_every_kind_of_missing_cell_is_missing(cells: list[Any], dtype: Any) -> None:
    assert texts(cells, dtype) == [None] * len(cells)


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ("plain", "plain"),
        ("", ""),
        (" \n", " \n"),
        ("nan", "nan"),
        (np.str_("numpy"), "numpy"),
        (3, "3"),
        (np.int8(3), "3"),
        (2**80, str(2**80)),
        (0.1, "0.1"),
        (np.float32(0.1), "0.1"),
        (np.float64(0.1), "0.1"),
        (float("inf"), "inf"),
        (decimal.Decimal("1.50"), "1.50"),
        (True, "true"),
        (np.bool_(False), "false"),
        (1 + 2j, "(1+2j)"),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (datetime.time(3, 4), "03:04:00"),
        (datetime.datetime(2026, 1, 2, 3, 4), "2026-01-02T03:04:00"),
        (pd.Timestamp("2026-01-02", tz="UTC"), "2026-01-02T00:00:00+00:00"),
        (np.datetime64("2026-01-02"), "2026-01-02"),
        (pd.Timedelta("1D"), "1 days 00:00:00"),
        (pd.Period("2026-01"), "2026-01"),
        (pd.Interval(0, 1), "(0, 1]"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ([], "[]"),
        ([1, "ä", None], '[1, "ä", null]'),
        ((1, 2), "[1, 2]"),
        ({"a": {"b": [1]}}, '{"a": {"b": [1]}}'),
        ({1: 2, (3, 4): 5}, '{"1": 2, "[3, 4]": 5}'),
        ({"b", "a"}, '["a", "b"]'),
        (np.array([[1, 2], [3, 4]]), "[[1, 2], [3, 4]]"),
        ([np.int64(1), np.float32(0.5), np.array([1, 2])], "[1, 0.5, [1, 2]]"),
        ([float("nan"), pd.NA, pd.NaT, np.float64("nan")], "[null, null, null, null]"),
        ([datetime.date(2026, 1, 2), decimal.Decimal("1.50"), True], '["2026-01-02", "1.50", true]'),
    ],
)
def test_a_cell_is_written_as_people_write_it(cell: Any, text: str) -> None:
    column = pd.Series([None], dtype=object)
    column.iat[0] = cell
    frame = column.to_frame("text")
    table = FrameTable(frame)
    table.check(["text"])
    assert table.texts("text", 0, 1) == [text]


@pytest.mark.parametrize(
    ("cells", "dtype", "sent"),
    [
        ([1, 2], "int64", ["1", "2"]),
        ([1, None], "Int64", ["1", None]),
        ([1.5, None], "float64", ["1.5", None]),
        ([True, None], "boolean", ["true", None]),
        ([True, False], "bool", ["true", "false"]),
        (["2026-01-02", None], "datetime64[ns]", ["2026-01-02T00:00:00", None]),
        (["a", None, "a"], "category", ["a", None, "a"]),
        ([1, None, 1], pd.CategoricalDtype([1, 2]), ["1", None, "1"]),
        (["a", None], "string", ["a", None]),
        (["a", None], pd.ArrowDtype(pa.string()), ["a", None]),
        (["a", None], pd.ArrowDtype(pa.large_string()), ["a", None]),
        ([1, None], pd.ArrowDtype(pa.int64()), ["1", None]),
        ([datetime.date(2026, 1, 2)], pd.ArrowDtype(pa.date32()), ["2026-01-02"]),
        ([decimal.Decimal("1.50")], pd.ArrowDtype(pa.decimal128(5, 2)), ["1.50"]),
        ([[1, 2], None], pd.ArrowDtype(pa.list_(pa.int64())), ["[1, 2]", None]),
        ([{"a": 1}], pd.ArrowDtype(pa.struct([("a", pa.int64())])), ['{"a": 1}']),
        (["a", 1, None, 2.5, True, [1]], object, ["a", "1", None, "2.5", "true", "[1]"]),
    ],
)
def test_a_column_of_any_dtype_is_read_as_text(cells: list[Any], dtype: Any, sent: list[str | None]) -> None:
    assert texts(cells, dtype) == sent


@given(st.one_of(st.integers(), st.floats(), st.booleans(), st.text(), st.dates(), st.lists(st.floats() | st.text() | st.none())))
def test_any_plain_cell_becomes_a_text_or_is_missing(cell: Any) -> None:
    assert isinstance(as_text(cell), str | None)


@pytest.mark.parametrize(
    ("cells", "dtype"),
    [
        ([b"raw"], object),
        (["text", bytearray(b"raw")], object),
        ([memoryview(b"raw")], object),
        ([b"raw"], "category"),
        ([b"raw"], pd.ArrowDtype(pa.binary())),
        ([b"raw"], pd.ArrowDtype(pa.large_binary())),
        ([b"raw"], pd.ArrowDtype(pa.binary(3))),
    ],
)
def test_bytes_are_refused_with_the_cure_before_anything_is_sent(lab: Loopback, cells: list[Any], dtype: Any) -> None:
    frame = pd.DataFrame({"text": pd.Series(cells, dtype=dtype)})
    with pytest.raises(llmkit.BadInput, match=re.escape("df['text'].str.decode('utf-8', 'replace')")):
        frame.llm.chat("Say {text}", **CHAT)
    assert lab.requests == 0


_circle: list[Any] = []
_circle.append(_circle)


@pytest.mark.parametrize(
    ("cell", "named"), [([b"raw"], "bytes"), ({"a": [b"raw"]}, "bytes"), ((object(),), "object"), (_circle, "contains itself")]
)
def test_what_no_json_can_hold_is_refused_before_anything_is_sent(lab: Loopback, cell: Any, named: str) -> None:
    frame = pd.DataFrame({"text": pd.Series(["fine", cell], dtype=object)})
    with pytest.raises(llmkit.BadInput, match=f"'text' has a {type(cell).__name__} with .*{named}"):
        frame.llm.chat("Say {text}", **CHAT)
    assert lab.requests == 0


class _Colour(enum.Enum):
    RED = 1


@pytest.mark.parametrize("cell", [object(), _Colour.RED, pathlib.PurePosixPath("a"), print])
def test_an_object_without_a_text_of_its_own_is_refused_with_the_cure(cell: Any) -> None:
    with pytest.raises(llmkit.BadInput, match=re.escape("convert them, e.g. with .map(str)")):
        texts(["fine", cell], object)


@pytest.mark.parametrize("cell", ["a\ud800b", "\udfff", "ok \ud83d"])
def test_a_lone_surrogate_travels_as_the_replacement_character(lab: Loopback, cell: str) -> None:
    frame = pd.DataFrame({"text": pd.Series([cell], dtype=object)})
    assert frame.llm.chat("Say {text}", **CHAT).notna().all()
    assert lab.seen[0].texts == ["Say " + re.sub("[\ud800-\udfff]", "\ufffd", cell)]


def test_a_nul_travels_as_it_is(lab: Loopback) -> None:
    assert pd.DataFrame({"text": ["a\0b"]}).llm.chat("Say {text}", **CHAT).tolist() == ["answer to: Say a\0b"]


def test_a_cell_of_five_megabytes_is_sent_whole_where_the_window_is_unknown(lab: Loopback) -> None:
    lab.answer = lambda body: str(len(body["messages"][-1]["content"]))
    frame = pd.DataFrame({"text": ["x" * 5_000_000]})
    assert frame.llm.chat("{text}", **CHAT).tolist() == ["5000000"]


def test_a_cell_of_five_megabytes_is_refused_unpaid_where_the_window_is_known_to_be_small(lab: Loopback) -> None:
    llmkit.catalogue.merge({"models": [{"provider": "lab", "name": "test-chat", "context_window": 8000}]})
    answers = pd.DataFrame({"text": ["x" * 5_000_000, "short"]}).llm.chat("{text}", **CHAT)
    assert answers.isna().tolist() == [True, False]
    assert lab.requests == 1
    line = llmkit.last().errors().iloc[0]
    assert line["kind"] == llmkit.ContextTooLong.code
    assert "shorten it or choose a larger model" in line["error"]


# --------------------------------------------------------------------------------------------------------- index and columns

_INDEXES = {
    "duplicate labels": pd.Index(["x", "x", "y", "x"]),
    "rows of a MultiIndex": pd.MultiIndex.from_tuples([("a", 1), ("a", 1), ("b", 1), ("b", 2)], names=["letter", "digit"]),
    "dates": pd.date_range("2026-01-01", periods=4),
    "categories": pd.CategoricalIndex(["x", "y", "x", "y"]),
    "floats with NaN": pd.Index([1.0, np.nan, np.nan, 2.0]),
    "a descending range": pd.RangeIndex(8, 0, -2),
}


@pytest.mark.parametrize("index", _INDEXES.values(), ids=_INDEXES.keys())
def test_answers_stand_at_the_place_of_their_rows_on_the_same_index(lab: Loopback, index: pd.Index[Any]) -> None:
    frame = pd.DataFrame({"text": ["c", None, "a", "c"]}, index=index)
    answers = frame.llm.chat("{text}", **CHAT)
    pd.testing.assert_index_equal(answers.index, index, exact=True)
    assert answers.fillna("-").tolist() == ["answer to: c", "-", "answer to: a", "answer to: c"]


@pytest.mark.parametrize("index", _INDEXES.values(), ids=_INDEXES.keys())
def test_a_detail_frame_stands_on_the_same_index(lab: Loopback, index: pd.Index[Any]) -> None:
    frame = pd.DataFrame({"text": ["c", None, "a", "c"]}, index=index)
    detail = frame.llm.chat("{text}", detail=True, **CHAT)
    pd.testing.assert_index_equal(detail.index, index, exact=True)
    assert detail["value"].fillna("-").tolist() == ["answer to: c", "-", "answer to: a", "answer to: c"]


@pytest.mark.parametrize("index", _INDEXES.values(), ids=_INDEXES.keys())
def test_vectors_stand_at_the_place_of_their_rows_on_the_same_index(lab: Loopback, index: pd.Index[Any]) -> None:
    frame = pd.DataFrame({"text": ["c", None, "a", "c"]}, index=index)
    vectors = frame.llm.embed("text", **EMBED)
    pd.testing.assert_index_equal(vectors.index, index, exact=True)
    expected = np.array([vector_of("c"), np.full(8, np.nan), vector_of("a"), vector_of("c")])
    np.testing.assert_array_equal(vectors.llm.matrix(), expected)


@pytest.mark.parametrize("index", _INDEXES.values(), ids=_INDEXES.keys())
def test_labels_stand_at_the_place_of_their_rows_on_the_same_index(lab: Loopback, index: pd.Index[Any]) -> None:
    frame = pd.DataFrame({"text": ["c", None, "a", "c"]}, index=index)
    detail = frame.llm.classify("text", ["a", "c"], detail=True, **EMBED)
    pd.testing.assert_index_equal(detail.index, index, exact=True)
    assert detail["value"].astype(object).fillna("-").tolist() == ["c", "-", "a", "c"]


@pytest.mark.parametrize("index", _INDEXES.values(), ids=_INDEXES.keys())
def test_reranked_rows_keep_their_labels(lab: Loopback, index: pd.Index[Any]) -> None:
    frame = pd.DataFrame({"text": ["c", None, "a", "c"]}, index=index)
    ranked = frame.llm.rerank("c", on="text", model="lab/test-rerank")
    pd.testing.assert_index_equal(ranked.index, index[[0, 3, 2, 1]], exact=True)


def test_failed_rows_are_listed_with_their_place_and_their_label(lab: Loopback) -> None:
    lab.fault("bad", refusal(), times=float("inf"))
    frame = pd.DataFrame({"text": ["ok", "bad", "bad"]}, index=_INDEXES["rows of a MultiIndex"][:3])
    frame.llm.chat("{text}", **CHAT)
    errors = llmkit.last().errors()
    assert errors["row"].tolist() == [1, 2]
    assert errors["index"].tolist() == [("a", 1), ("b", 1)]


def test_the_frame_is_left_as_it_was(lab: Loopback) -> None:
    frame = pd.DataFrame({"text": ["a", None], "n": [1, 2]})
    before = frame.copy()
    frame.llm.chat("{text} {n}", **CHAT)
    frame.llm.rerank("a", on="text", model="lab/test-rerank")
    pd.testing.assert_frame_equal(frame, before)


def test_a_later_assignment_does_not_reach_a_run_under_way(lab: Loopback) -> None:
    frame = pd.DataFrame({"text": [f"row {number}" for number in range(2000)]})
    lab.hold()
    run = frame.llm.chat("{text}", wait=False, **CHAT)
    frame["text"] = "changed"
    frame.loc[:, "text"] = "changed again"
    lab.release()
    assert run.result().tolist() == [f"answer to: row {number}" for number in range(2000)]
    assert lab.count("changed") == 0


def test_a_column_of_a_multiindex_is_named_by_its_tuple(lab: Loopback) -> None:
    frame = pd.DataFrame([["x", "y"]], columns=pd.MultiIndex.from_tuples([("a", "one"), ("a", "two")]))
    assert frame.llm.chat("Say it", on=[("a", "two")], **CHAT).str.contains("\ny\n").all()


def test_a_tuple_alone_names_one_column_of_a_multiindex(lab: Loopback) -> None:
    frame = pd.DataFrame([["x", "y"]], columns=pd.MultiIndex.from_tuples([("a", "one"), ("a", "two")]))
    np.testing.assert_array_equal(frame.llm.embed(("a", "two"), **EMBED).llm.matrix(), [vector_of("y")])


def test_a_column_of_a_multiindex_can_be_reranked(lab: Loopback) -> None:
    frame = pd.DataFrame({("a", "one"): ["x", "y"], ("a", "two"): ["u", "v"]})
    ranked = frame.llm.rerank("v", on=("a", "two"), model="lab/test-rerank")
    assert ranked.index.tolist() == [1, 0]


def test_a_column_of_a_multiindex_can_be_classified(lab: Loopback) -> None:
    frame = pd.DataFrame({("a", "one"): ["x", "y"], ("a", "two"): ["u", "v"]})
    assert frame.llm.classify(("a", "two"), ["u", "v"], **EMBED).tolist() == ["u", "v"]


def test_half_a_name_of_a_multiindex_is_an_error_that_asks_for_the_tuple(lab: Loopback) -> None:
    frame = pd.DataFrame([["x", "y"]], columns=pd.MultiIndex.from_tuples([("a", "one"), ("a", "two")]))
    with pytest.raises(llmkit.BadInput, match="give one of them as a tuple"):
        frame.llm.chat("Say it", on="a", **CHAT)


def test_a_name_that_two_columns_have_is_an_error(lab: Loopback) -> None:
    frame = pd.DataFrame([["x", "y", "z"]], columns=["a", "a", "b"])
    with pytest.raises(llmkit.BadInput, match="2 columns are named 'a'; rename them"):
        frame.llm.chat("Say it", on="a", **CHAT)


def test_two_columns_of_one_name_do_not_matter_where_another_is_asked_for(lab: Loopback) -> None:
    frame = pd.DataFrame([["x", "y", "z"]], columns=["a", "a", "b"])
    assert frame.llm.chat("{b}", **CHAT).tolist() == ["answer to: z"]


def test_a_column_named_by_a_number_is_sent_with_on(lab: Loopback) -> None:
    assert pd.DataFrame([["x", "y"]]).llm.chat("Say it", on=1, **CHAT).str.contains("\ny\n").all()


def test_a_misspelt_column_is_an_error_that_names_the_nearest(lab: Loopback) -> None:
    with pytest.raises(llmkit.BadInput, match="no column 'txt'. Did you mean 'text'?"):
        pd.DataFrame({"id": [1], "text": ["x"]}).llm.embed("txt", **EMBED)
    assert lab.requests == 0


def test_several_columns_in_a_tuple_are_told_to_come_in_a_list() -> None:
    with pytest.raises(llmkit.BadInput, match=re.escape("given as a list: ['a', 'b']")):
        pd.DataFrame({"a": ["x"], "b": ["y"]}).llm.chat("Say it", on=("a", "b"), **CHAT)


@pytest.mark.parametrize("on", [["a", "b"], {"a": 1}])
def test_several_columns_are_an_error_where_one_is_meant(on: Any) -> None:
    with pytest.raises(llmkit.BadInput, match="one column is meant"):
        pd.DataFrame({"a": ["x"], "b": ["y"]}).llm.embed(on, **EMBED)


@pytest.mark.parametrize("on", [None, True, 1.0, float("nan"), "", b"a"])
def test_what_names_no_column_is_an_error(on: Any) -> None:
    with pytest.raises(llmkit.BadInput, match="no column"):
        pd.DataFrame({"a": ["x"]}).llm.embed(on, **EMBED)


# --------------------------------------------------------------------------------------------------------- nothing to send

_EMPTY = pd.DataFrame({"text": pd.Series([], dtype=object), "vector": pd.Series([], dtype=object)})


@pytest.fixture
def nothing(lab: Loopback) -> Any:
    """No model can be had for any operation, and a server sees that none is asked for."""
    yield
    assert lab.requests == 0


@pytest.mark.usefixtures("nothing")
class TestAFrameWithoutRows:
    def test_chat_gives_an_empty_text_column(self) -> None:
        answers = _EMPTY.llm.chat("Say {text}")
        assert (len(answers), answers.dtype, answers.name) == (0, TEXT, "chat")

    def test_chat_in_detail_gives_an_empty_frame_with_its_columns(self) -> None:
        detail = _EMPTY.llm.chat("Say {text}", detail=True)
        assert len(detail) == 0
        assert detail["value"].dtype == TEXT
        assert {"error", "model", "provider", "source", "attempts", "cost"} <= set(detail.columns)

    def test_embed_gives_an_empty_column_of_vectors(self) -> None:
        vectors = _EMPTY.llm.embed("text")
        assert vectors.dtype == pd.ArrowDtype(pa.list_(pa.float32()))

    def test_embed_with_a_length_gives_an_empty_column_of_that_length(self) -> None:
        vectors = _EMPTY.llm.embed("text", dimensions=8)
        assert vectors.dtype == pd.ArrowDtype(pa.list_(pa.float32(), 8))
        assert vectors.llm.matrix().shape == (0, 8)

    def test_the_matrix_of_no_vectors_is_empty(self) -> None:
        assert _EMPTY.llm.embed("text").llm.matrix().shape == (0, 0)

    def test_rerank_gives_no_rows_with_a_score(self) -> None:
        ranked = _EMPTY.llm.rerank("anything", on="text")
        assert (len(ranked), ranked["score"].dtype) == (0, np.float64)

    def test_search_gives_no_rows_with_a_score(self) -> None:
        hits = _EMPTY.llm.search("anything", on="vector")
        assert (len(hits), hits["score"].dtype) == (0, np.float64)

    def test_classify_gives_an_empty_category_of_the_labels(self) -> None:
        labels = _EMPTY.llm.classify("text", ["a", "b"])
        assert labels.dtype == pd.CategoricalDtype(["a", "b"])

    def test_an_estimate_is_of_nothing(self) -> None:
        estimate = _EMPTY.llm.chat("Say {text}", dry_run=True)
        assert (estimate.rows, estimate.requests, estimate.cost) == (0, 0, 0.0)

    def test_a_run_ends_at_once(self) -> None:
        assert len(_EMPTY.llm.chat("Say {text}", wait=False).result()) == 0

    def test_a_misspelt_column_is_still_an_error(self) -> None:
        with pytest.raises(llmkit.BadInput, match="Did you mean {text}?"):
            _EMPTY.llm.chat("Say {txt}")

    @pytest.mark.parametrize("call", ["embed", "search", "rerank", "classify"])
    def test_a_misspelt_column_is_an_error_of_every_operation(self, call: str) -> None:
        arguments: dict[str, Any] = {
            "embed": {"on": "nope"},
            "search": {"query": "a", "on": "nope"},
            "rerank": {"query": "a", "on": "nope"},
            "classify": {"on": "nope", "labels": ["a", "b"]},
        }[call]
        with pytest.raises(llmkit.BadInput, match="no column 'nope'"):
            getattr(_EMPTY.llm, call)(**arguments)

    def test_the_labels_of_the_index_stay_what_they_are(self) -> None:
        empty = pd.DataFrame({"text": ["a"]}, index=pd.DatetimeIndex(["2026-01-01"], name="day")).iloc[:0]
        pd.testing.assert_index_equal(empty.llm.chat("Say {text}").index, empty.index, exact=True)


@pytest.mark.usefixtures("nothing")
class TestAFrameInWhichEveryCellIsMissing:
    frame = pd.DataFrame({"text": pd.Series([None, np.nan, pd.NA], dtype=object)})

    def test_chat_gives_missing_texts(self) -> None:
        answers = self.frame.llm.chat("Say {text}", **CHAT)
        assert answers.isna().all()
        assert answers.dtype == TEXT

    def test_embed_gives_missing_vectors(self) -> None:
        vectors = self.frame.llm.embed("text", **EMBED)
        assert vectors.isna().all()
        assert pa.types.is_list(vectors.dtype.pyarrow_dtype)

    def test_rerank_gives_the_rows_as_they_were_without_scores(self) -> None:
        ranked = self.frame.llm.rerank("anything", on="text", model="lab/test-rerank")
        assert ranked.index.tolist() == [0, 1, 2]
        assert ranked["score"].isna().all()

    def test_classify_gives_missing_labels_and_does_not_send_the_labels_either(self) -> None:
        detail = self.frame.llm.classify("text", ["a", "b"], detail=True, **EMBED)
        assert detail.isna().all(axis=None)
        assert detail["value"].dtype == pd.CategoricalDtype(["a", "b"])

    def test_missing_rows_are_no_errors(self) -> None:
        self.frame.llm.chat("Say {text}", **CHAT)
        assert llmkit.last().errors().empty


def test_a_frame_without_columns_is_told_so() -> None:
    with pytest.raises(llmkit.BadInput, match="The frame has no columns"):
        pd.DataFrame(index=[1, 2]).llm.embed("text", **EMBED)


def test_a_prompt_on_a_frame_without_columns_is_an_error() -> None:
    with pytest.raises(llmkit.BadInput, match="names no column"):
        pd.DataFrame(index=[1, 2]).llm.chat("Say something", **CHAT)


# ------------------------------------------------------------------------------------------------------------------ results


def test_answers_have_the_string_dtype_of_pandas(lab: Loopback) -> None:
    assert pd.DataFrame({"text": ["a"]}).llm.chat("{text}", **CHAT).dtype == TEXT


def test_vectors_have_a_fixed_length_in_arrow(lab: Loopback) -> None:
    vectors = pd.DataFrame({"text": ["a"]}).llm.embed("text", **EMBED)
    assert vectors.dtype == pd.ArrowDtype(pa.list_(pa.float32(), 8))


def test_blank_texts_are_missing_vectors_and_are_not_sent(lab: Loopback) -> None:
    vectors = pd.DataFrame({"text": ["a", "", " \n", None]}).llm.embed("text", **EMBED)
    assert vectors.isna().tolist() == [False, True, True, True]
    assert dict(lab.texts) == {"a": 1}


def test_where_all_rows_failed_the_texts_are_missing_and_each_has_a_reason(lab: Loopback) -> None:
    lab.fault(None, refusal(), times=float("inf"))
    with pytest.warns(UserWarning, match="no row got an answer"):
        answers = pd.DataFrame({"text": ["a", "b"]}).llm.chat("{text}", **CHAT)
    assert answers.isna().all()
    assert answers.dtype == TEXT
    assert llmkit.last().errors()["row"].tolist() == [0, 1]


def test_where_all_rows_failed_the_vectors_are_missing_and_each_has_a_reason(lab: Loopback) -> None:
    lab.corrupt_embeddings = lambda items: [{**item, "embedding": np.full(8, np.nan, dtype="f4")} for item in items]
    with pytest.warns(UserWarning, match="no row got an answer"):
        vectors = pd.DataFrame({"text": ["a", "b"]}).llm.embed("text", dimensions=8, **EMBED)
    assert vectors.isna().all()
    assert vectors.dtype == pd.ArrowDtype(pa.list_(pa.float32(), 8))
    assert llmkit.last().errors()["kind"].tolist() == ["invalid_vector"] * 2


def test_a_failed_vector_among_others_is_missing_and_the_others_are_right(lab: Loopback) -> None:
    def spoil(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        items[1]["embedding"] = np.zeros(8, dtype="f4")
        return items

    lab.corrupt_embeddings = spoil
    vectors = pd.DataFrame({"text": ["a", "b", "c"]}).llm.embed("text", **EMBED)
    np.testing.assert_array_equal(vectors.llm.matrix(), [vector_of("a"), np.full(8, np.nan), vector_of("c")])


def test_vectors_are_placed_by_their_index_and_not_by_their_order(lab: Loopback) -> None:
    lab.shuffle_embeddings = True
    words = [f"word {number}" for number in range(50)]
    matrix = pd.DataFrame({"text": words}).llm.embed("text", **EMBED).llm.matrix()
    np.testing.assert_array_equal(matrix, [vector_of(word) for word in words])


# ------------------------------------------------------------------------------------------------------------------- matrix


def embedded(lab: Loopback, count: int = 10) -> tuple[pd.Series[Any], np.ndarray]:
    words = [f"word {number}" for number in range(count)]
    return pd.DataFrame({"text": words}).llm.embed("text", **EMBED), np.array([vector_of(word) for word in words])


def test_the_matrix_is_the_memory_of_the_column_itself(lab: Loopback) -> None:
    vectors, expected = embedded(lab)
    matrix = vectors.llm.matrix()
    np.testing.assert_array_equal(matrix, expected)
    values = vectors.array.__arrow_array__().chunk(0).values
    assert matrix.__array_interface__["data"][0] == values.buffers()[1].address


def test_the_matrix_is_the_same_memory_when_asked_again(lab: Loopback) -> None:
    vectors, _ = embedded(lab)
    assert np.shares_memory(vectors.llm.matrix(), vectors.llm.matrix())


def test_the_matrix_of_a_column_that_was_put_into_a_frame_is_still_no_copy(lab: Loopback) -> None:
    vectors, _ = embedded(lab)
    frame = pd.DataFrame({"n": range(10)})
    frame["vector"] = vectors
    assert np.shares_memory(frame["vector"].llm.matrix(), vectors.llm.matrix())


def test_the_matrix_of_equal_rows_has_a_line_for_each(lab: Loopback) -> None:
    vectors = pd.DataFrame({"text": ["b", "a", "b"]}).llm.embed("text", **EMBED)
    np.testing.assert_array_equal(vectors.llm.matrix(), [vector_of("b"), vector_of("a"), vector_of("b")])


@pytest.mark.parametrize("part", [slice(3, 7), slice(0, 1), slice(9, None), slice(4, 4), slice(-2, None)])
def test_the_matrix_of_a_slice_is_a_view_of_its_rows(lab: Loopback, part: slice) -> None:
    vectors, expected = embedded(lab)
    matrix = vectors.iloc[part].llm.matrix()
    np.testing.assert_array_equal(matrix, expected[part].reshape(-1, 8))
    assert not len(matrix) or np.shares_memory(matrix, vectors.llm.matrix())


def test_the_matrix_of_a_slice_of_a_slice_has_its_rows(lab: Loopback) -> None:
    vectors, expected = embedded(lab)
    np.testing.assert_array_equal(vectors.iloc[2:9].iloc[3:5].llm.matrix(), expected[5:7])


@pytest.mark.parametrize("order", [[3, 0, 7], [], [9, 9, 1]])
def test_the_matrix_of_chosen_rows_is_in_their_order(lab: Loopback, order: list[int]) -> None:
    vectors, expected = embedded(lab)
    np.testing.assert_array_equal(vectors.iloc[order].llm.matrix(), expected[order])


def test_the_matrix_after_concat_has_the_rows_of_all_chunks(lab: Loopback) -> None:
    vectors, expected = embedded(lab)
    joined = pd.concat([vectors.iloc[6:], vectors.iloc[:2], vectors.iloc[3:4]])
    assert joined.array.__arrow_array__().num_chunks > 1
    np.testing.assert_array_equal(joined.llm.matrix(), expected[[6, 7, 8, 9, 0, 1, 3]])


def test_the_matrix_of_missing_rows_is_a_copy_with_nan_in_them(lab: Loopback) -> None:
    vectors = pd.DataFrame({"text": ["a", None, "c"]}).llm.embed("text", **EMBED)
    matrix = vectors.llm.matrix()
    np.testing.assert_array_equal(matrix, [vector_of("a"), np.full(8, np.nan), vector_of("c")])
    matrix[:] = 0.0
    np.testing.assert_array_equal(vectors.llm.matrix()[0], vector_of("a"))


def test_a_missing_row_in_a_slice_is_found_at_its_place(lab: Loopback) -> None:
    vectors = pd.DataFrame({"text": ["a", "b", None, "d"]}).llm.embed("text", **EMBED)
    np.testing.assert_array_equal(vectors.iloc[1:3].llm.matrix(), [vector_of("b"), np.full(8, np.nan)])


def test_a_missing_row_after_concat_is_found_at_its_place(lab: Loopback) -> None:
    vectors = pd.DataFrame({"text": ["a", "b", None, "d"]}).llm.embed("text", **EMBED)
    joined = pd.concat([vectors.iloc[3:], vectors.iloc[1:3]])
    np.testing.assert_array_equal(joined.llm.matrix(), [vector_of("d"), vector_of("b"), np.full(8, np.nan)])


@pytest.mark.parametrize("make", [list, tuple, np.asarray, lambda row: np.asarray(row, dtype="f8")])
def test_vectors_that_other_tools_left_as_lists_make_a_matrix_too(make: Any) -> None:
    column = pd.Series([make([1.0, 2.0]), None, make([3.0, 4.0])], dtype=object)
    matrix = column.llm.matrix()
    np.testing.assert_array_equal(matrix, [[1, 2], [np.nan, np.nan], [3, 4]])
    assert matrix.dtype == np.float32


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float64()), pa.list_(pa.float64(), 2), pa.list_(pa.int64())])
def test_vectors_of_other_arrow_types_make_a_matrix_too(kind: pa.DataType) -> None:
    column = pd.Series([[1, 2], [3, 4]], dtype=pd.ArrowDtype(kind))
    np.testing.assert_array_equal(column.llm.matrix(), [[1, 2], [3, 4]])


def test_vectors_that_went_through_parquet_make_the_same_matrix(lab: Loopback, tmp_path: pathlib.Path) -> None:
    vectors = pd.DataFrame({"text": ["a", None, "c"]}).llm.embed("text", **EMBED)
    vectors.to_frame("vector").to_parquet(tmp_path / "vectors.parquet")
    # Without dtype_backend pandas cannot read any column of fixed-size lists: pandas-dev/pandas#59738, seen 2026-11-21.
    read = pd.read_parquet(tmp_path / "vectors.parquet", dtype_backend="pyarrow")
    np.testing.assert_array_equal(read["vector"].llm.matrix(), vectors.llm.matrix())


@pytest.mark.parametrize("cells", [["text"], [1.0], [[1.0], [1.0, 2.0]], [None, None], [[[1.0]]], [{"a": 1}], [["a"]]])
def test_a_column_without_vectors_of_one_length_has_no_matrix(cells: list[Any]) -> None:
    with pytest.raises(llmkit.BadInput, match="make them with"):
        pd.Series(cells, dtype=object).llm.matrix()
