"""What a spreadsheet would carry out is text by the time it is written, and nothing else is changed."""

from __future__ import annotations

import csv
import datetime
import doctest
import io
import re
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

import llmkit
from llmkit.frames import spreadsheets
from tests.loopback import Loopback

FORMULAS = [
    '=HYPERLINK("http://evil.example","x")', "+1", "-1", "@SUM(A1)", "\tx", "\rx", "\nx", " =1+1", "\u00a0=1+1", "\ufeff=1+1", "\0=1+1",
    "\r\n=1+1", "\uff1d1+1", "\uff0b1", "\uff0d1", "\uff20SUM(A1)", "=1+1\nand more",
]  # fmt: skip
HARMLESS = ["fine", "", "1-1", "a=b", "'=1+1", "x\t=1", "1 = 1", "e@mail", " two"]


def escaped(formula: str) -> str:
    return "'" + re.sub(r"\r(?!\n)", "\n", formula)


def cells_of(written: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(written, newline="")))


@pytest.mark.parametrize("formula", FORMULAS, ids=ascii)
def test_da06_a_formula_begins_with_an_apostrophe_in_the_file_wherever_it_stands(formula: str) -> None:
    frame = pd.DataFrame({formula: [formula, "fine"]}, index=pd.Index([formula, "b"], name=formula))
    written = cells_of(llmkit.safe_for_spreadsheets(frame).to_csv(lineterminator="\n"))
    assert written == [[escaped(formula)] * 2, [escaped(formula)] * 2, ["b", "fine"]]


def test_da06_answers_stand_in_the_frame_as_they_came_and_in_the_file_with_an_apostrophe(lab: Loopback) -> None:
    answers = iter(FORMULAS)
    lab.answer = lambda body: next(answers)
    frame = pd.DataFrame({"text": [f"row {number}" for number in range(len(FORMULAS))]})
    frame["answer"] = frame.llm.chat("Say {text}", model="lab/test-chat", max_concurrency=1, show_progress=False)
    assert frame["answer"].tolist() == FORMULAS
    written = cells_of(llmkit.safe_for_spreadsheets(frame).to_csv(index=False, lineterminator="\n"))
    assert [answer for _, answer in written[1:]] == [escaped(formula) for formula in FORMULAS]


def test_a_carriage_return_in_a_cell_begins_no_row_of_its_own() -> None:
    frame = pd.DataFrame({"answer": ["fine\r=1+1", "a\r\nb"], "b": [1, 2]})
    written = cells_of(llmkit.safe_for_spreadsheets(frame).to_csv(index=False, lineterminator="\n"))
    assert written == [["answer", "b"], ["fine\n=1+1", "1"], ["a\r\nb", "2"]]


@pytest.mark.parametrize("text", HARMLESS)
def test_other_texts_stay_as_they_are(text: str) -> None:
    series = pd.Series([text, text], name=text, index=[text, text])
    pd.testing.assert_series_equal(llmkit.safe_for_spreadsheets(series), series)


def test_a_frame_in_which_nothing_is_to_be_done_comes_back_equal_and_is_another() -> None:
    frame = pd.DataFrame(
        {
            "number": [-1.5, float("nan")],
            "time": pd.to_datetime(["2026-01-01", None]),
            "kind": pd.Categorical(["a", "b"]),
            "vector": pd.Series([[-1.0, 2.0], None], dtype=pd.ArrowDtype(pa.list_(pa.float32()))),
            "labels": [["=a"], None],
            "day": [datetime.date(2026, 1, 1), None],
            "text": pd.Series(["a", None], dtype="str"),
        },
        index=pd.MultiIndex.from_tuples([(-1, "a"), (2, "b")], names=["n", None]),
    )
    safe = llmkit.safe_for_spreadsheets(frame)
    pd.testing.assert_frame_equal(safe, frame)
    safe.loc[(-1, "a"), "number"] = 7.0
    assert frame["number"].iloc[0] == -1.5


@pytest.mark.parametrize("dtype", ["str", "string", object, pd.ArrowDtype(pa.string()), pd.ArrowDtype(pa.large_string())], ids=str)
def test_texts_of_any_kind_are_made_safe_and_keep_their_kind_and_their_gaps(dtype: Any) -> None:
    series = pd.Series(["=1", None, "x"], dtype=dtype)
    safe = llmkit.safe_for_spreadsheets(series)
    assert safe.dtype == series.dtype
    assert safe.isna().tolist() == [False, True, False]
    assert safe.dropna().tolist() == ["'=1", "x"]
    assert series.iloc[0] == "=1", "and the caller's own is as it was"


@pytest.mark.parametrize("dtype", ["category", pd.ArrowDtype(pa.dictionary(pa.int32(), pa.string()))], ids=["category", "dictionary"])
def test_categories_that_would_become_equal_stay_apart(dtype: Any) -> None:
    safe = llmkit.safe_for_spreadsheets(pd.Series(["=1", "'=1", "x", None]).astype(dtype))
    assert safe.dropna().tolist() == ["'=1", "'=1", "x"]
    assert safe.isna().tolist() == [False, False, False, True]


def test_columns_of_one_name_and_of_several_levels_are_made_safe_by_their_place() -> None:
    twice = llmkit.safe_for_spreadsheets(pd.DataFrame([["=1", "a"], ["b", "-2"]], columns=["@x", "@x"]))
    assert twice.values.tolist() == [["'=1", "a"], ["b", "'-2"]]
    assert twice.columns.tolist() == ["'@x", "'@x"]
    columns = pd.MultiIndex.from_tuples([("=a", 1), ("b", 2)], names=["-n", "m"])
    levels = llmkit.safe_for_spreadsheets(pd.DataFrame([["=1", 2]], columns=columns))
    assert levels.columns.tolist() == [("'=a", 1), ("b", 2)]
    assert list(levels.columns.names) == ["'-n", "m"]
    assert levels.values.tolist() == [["'=1", 2]]


def test_no_rows_and_no_columns_are_no_trouble() -> None:
    for frame in (pd.DataFrame(), pd.DataFrame({"=a": []}), pd.DataFrame(index=[1, 2])):
        assert llmkit.safe_for_spreadsheets(frame).shape == frame.shape


def test_what_is_no_frame_is_refused() -> None:
    with pytest.raises(llmkit.BadInput, match="takes a DataFrame or a Series, not list"):
        llmkit.safe_for_spreadsheets(["=1"])  # type: ignore[type-var]


def test_the_example_does_what_it_says() -> None:
    failed, tried = doctest.testmod(spreadsheets)
    assert (failed, tried > 0) == (0, True)
