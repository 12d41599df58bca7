"""``df.llm.embed(..., dtype=...)``: columns of float16 and int8, and everything that reads a column of vectors reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import llmkit
from llmkit.errors import BadInput, ConfigError
from llmkit.frames import pandas_accessor, ranking
from llmkit.frames.columns import matrix_of
from tests.loopback import Loopback, vector_of

EMBED: dict[str, Any] = {"model": "lab/test-embed", "show_progress": False}
TEXTS = pd.DataFrame({"text": ["a", "b", None, "c"]}, index=list("wxyz"))


@pytest.mark.parametrize(("dtype", "kind"), [("float16", "halffloat"), ("int8", "int8")])
def test_a_column_may_be_kept_in_fewer_bytes(lab: Loopback, dtype: Any, kind: str) -> None:
    column = TEXTS.llm.embed("text", dtype=dtype, **EMBED)
    assert str(column.dtype) == f"fixed_size_list<item: {kind}>[8][pyarrow]"
    assert column.isna().tolist() == [False, False, True, False] and column.index.tolist() == list("wxyz")
    whole = TEXTS.llm.embed("text", **EMBED).llm.matrix()
    matrix = column.llm.matrix()
    assert matrix.dtype == np.float32 and np.isnan(matrix[2]).all()
    there = [0, 1, 3]
    if dtype == "int8":
        np.testing.assert_allclose(np.linalg.norm(matrix[there], axis=1), 1.0, atol=1e-6)
        whole = whole / np.linalg.norm(whole, axis=1, keepdims=True)
    np.testing.assert_allclose(matrix[there], whole[there], atol=1e-2)


def test_what_is_stored_is_whole_whatever_the_column_keeps(lab: Loopback) -> None:
    TEXTS.llm.embed("text", dtype="int8", **EMBED)
    lab.reset()
    np.testing.assert_array_equal(TEXTS.llm.embed("text", **EMBED).llm.matrix()[0], vector_of("a"))
    assert lab.requests == 0


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_search_classify_and_detail_read_and_make_such_columns(lab: Loopback, dtype: Any) -> None:
    frame = TEXTS.assign(vector=TEXTS.llm.embed("text", dtype=dtype, detail=True, **EMBED)["value"])
    hits = frame.llm.search("b", on="vector", top_k=1)
    assert hits.index.tolist() == ["x"] and hits["score"].iloc[0] == pytest.approx(1.0, abs=1e-3)
    assert len(TEXTS["text"].llm.embed(dtype=dtype, long_text="mean", model="local/lexical", show_progress=False).llm.matrix()) == 4


def test_a_column_in_which_all_is_missing_keeps_its_dtype(lab: Loopback) -> None:
    column = pd.DataFrame({"text": [None, None]}).llm.embed("text", dtype="int8", model="local/lexical", dimensions=64, show_progress=False)
    assert column.isna().all() and "int8" in str(column.dtype)


def test_such_columns_pass_through_parquet(lab: Loopback, tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"half": TEXTS.llm.embed("text", dtype="float16", **EMBED), "byte": TEXTS.llm.embed("text", dtype="int8", **EMBED)}
    )
    frame.to_parquet(tmp_path / "vectors.parquet")
    back = pd.read_parquet(tmp_path / "vectors.parquet", dtype_backend="pyarrow")
    for name in frame:
        np.testing.assert_array_equal(back[name].llm.matrix(), frame[name].llm.matrix())


def test_no_other_dtype_is_known(lab: Loopback) -> None:
    with pytest.raises(ConfigError, match=r'dtype is "float32", "float16" or "int8"'):
        TEXTS.llm.embed("text", dtype="uint8", **EMBED)  # type: ignore[arg-type]
    assert lab.requests == 0


@pytest.mark.parametrize("kind", [pa.list_(pa.float64()), pa.large_list(pa.float32()), pa.list_(pa.float64(), 2), pa.list_(pa.int16())])
def test_lists_of_other_tools_are_read_without_their_objects(kind: pa.DataType) -> None:
    column = pd.Series([[1, 2], None, [3, 4]], dtype=pd.ArrowDtype(kind), name="v")
    np.testing.assert_array_equal(matrix_of(column), [[1, 2], [np.nan, np.nan], [3, 4]])
    np.testing.assert_array_equal(matrix_of(column.iloc[2:]), [[3, 4]])
    np.testing.assert_array_equal(matrix_of(pd.concat([column, column]))[[3, 5]], [[1, 2], [3, 4]])


@pytest.mark.parametrize("dtype", [object, pd.ArrowDtype(pa.list_(pa.float64()))])
def test_rows_whose_vector_is_of_another_length_are_named(dtype: Any) -> None:
    column = pd.Series([[1.0, 2.0], None, [3.0], [4.0, 5.0], [6.0], [7.0, 8.0]], dtype=dtype, name="v")
    with pytest.raises(BadInput, match=r"column 'v' holds no vectors of one length: 2 numbers, but others in rows 2, 4"):
        matrix_of(column)


def test_a_search_in_very_many_rows_names_the_index_once(lab: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pandas_accessor, "MANY", 3)
    frame = TEXTS.assign(vector=TEXTS.llm.embed("text", **EMBED))
    with pytest.warns(UserWarning, match=r"compares each query with all 4 rows; llmkit.Index\(df, on='vector'\)") as told:
        assert frame.llm.search("b", on="vector", top_k=1).index.tolist() == ["x"]
    assert told[0].filename == __file__
    frame.llm.search("b", on="vector", top_k=1)  # a second warning would be an error
    assert ranking.MANY == 300_000
    assert llmkit.Index(frame, show_progress=False).search("b", top_k=1).index.tolist() == ["x"]
