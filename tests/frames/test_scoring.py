"""What counts as the same, and how many are right; against scikit-learn where it is installed."""

from __future__ import annotations

import datetime
import decimal
import itertools
import random
from enum import Enum
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import BaseModel

from llmkit.frames.columns import TEXT
from llmkit.frames.scoring import agreeing, codes_of, errors_of, kind_of, macro, mark, marker, numerically, pairs, slots, wilson


class Colour(Enum):
    RED = "red"


class Point(BaseModel):
    x: int
    y: str


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Late  Parcel\n", "late parcel"),
        ("STRASSE", "straße"),
        (3, 3.0),
        (0.1 + 0.2, 0.3),
        (True, 1),
        (decimal.Decimal("1.50"), 1.5),
        (np.int64(4), 4),
        (None, pd.NA),
        (float("nan"), pd.NaT),
        (Colour.RED, "RED"),
        (pd.Timestamp("2024-01-31"), datetime.date(2024, 1, 31)),
        (pd.Timestamp("2024-01-31 12:00", tz="Europe/Paris"), pd.Timestamp("2024-01-31 11:00")),
        (["a", "B"], np.array(["A", "b"])),
        ({"a": 1, "b": [2]}, {"b": [2.0], "a": 1}),
        ({"x", "y"}, frozenset(["Y", "X"])),
        (Point(x=1, y="A"), {"x": 1.0, "y": "a"}),
    ],
)
def test_these_are_the_same(one: Any, other: Any) -> None:
    assert mark(one) == mark(other)
    assert hash(mark(one)) == hash(mark(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [("a", "b"), ("", None), (1, 2), ("1", 1), (0, None), (["a", "b"], ["b", "a"]), ({"a": 1}, {"a": 2}), ("late parcel", "lateparcel")],
)
def test_these_are_not(one: Any, other: Any) -> None:
    assert mark(one) != mark(other)


@pytest.mark.parametrize(
    ("dtype", "truth", "value"),
    [
        ("Int64", "3", 3),
        ("Float64", "3.50", 3.5),
        ("boolean", "Yes", True),
        ("boolean", "false", False),
        ("boolean", 1, True),
        ("datetime64[us]", "2024-01-31", pd.Timestamp("2024-01-31")),
        (TEXT, 42, 42),
        (TEXT, True, "true"),
        (pd.CategoricalDtype([1, 2]), "2", 2),
        (pd.CategoricalDtype(["a", "b"]), "A ", "a"),
    ],
)
def test_a_truth_from_a_spreadsheet_is_read_as_its_column_is(dtype: Any, truth: Any, value: Any) -> None:
    assert marker(pd.Series([], dtype=dtype).dtype)(truth) == mark(value)


@pytest.mark.parametrize("dtype", ["Int64", "Float64", "boolean", "datetime64[us]", TEXT, pd.CategoricalDtype(["a"]), object])
def test_a_missing_truth_is_missing_in_every_column(dtype: Any) -> None:
    assert marker(pd.Series([], dtype=dtype).dtype)(None) is None


def test_a_text_that_is_a_number_can_be_read_as_one() -> None:
    assert numerically(mark(" 42.0 ")) == mark(42)
    assert numerically(mark("about 42")) == mark("about 42")


def test_a_number_that_is_none_is_wrong_and_no_error() -> None:
    assert marker(pd.Int64Dtype())("about three") != 3.0


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [("Int64", "number"), ("boolean", "category"), (pd.CategoricalDtype(["a"]), "category"), ("datetime64[us]", "time"), (TEXT, "text"),
     (object, "other")],
)  # fmt: skip
def test_columns_are_compared_by_what_they_hold(dtype: Any, kind: str) -> None:
    assert kind_of(pd.Series([], dtype=dtype).dtype) == kind


# ----------------------------------------------------------------------------------------------------------------- agreement


def _codes(*rows: str) -> Any:
    """A row a word: a letter an answer, a dot none."""
    return np.array([[-1 if letter == "." else ord(letter) for letter in row] for row in rows])


def test_the_majority_is_what_more_say_than_anything_else() -> None:
    agrees, asked = agreeing(_codes("aab", "abc", "aaa", "a.a", "a.."))
    assert agrees.tolist() == [[True, True, False], [False] * 3, [True] * 3, [True, False, True], [False] * 3]
    assert asked.tolist() == [[True] * 3, [True] * 3, [True] * 3, [True, False, True], [False] * 3]


def test_two_against_two_is_no_majority() -> None:
    agrees, asked = agreeing(_codes("aabb", "aabc"))
    assert agrees.tolist() == [[False] * 4, [True, True, False, False]]
    assert asked.all()


def test_pairs_count_only_rows_that_both_answered() -> None:
    both, same = pairs(_codes("aa", "ab", "a.", ".."))
    assert both.tolist() == [[3, 2], [2, 2]]
    assert same.tolist() == [[3, 1], [1, 2]]


def test_nothing_is_an_answer_and_no_answer_is_none() -> None:
    codes = codes_of([[None, "a", None], [None, "a", None]], [np.array([True, True, True]), np.array([True, True, False])])
    assert (codes[0] == codes[0, 0]).all()
    assert codes[2, 1] == -1


# --------------------------------------------------------------------------------------------------------------------- truth


def test_a_row_without_an_answer_is_missed_by_its_class() -> None:
    found = macro(["a", "a", "b"], ["a", "a", "b"], np.array([True, False, True]))
    assert found.recall == pytest.approx((0.5 + 1) / 2)
    assert found.precision == 1.0


def test_of_no_rows_nothing_is_known() -> None:
    assert all(value != value for value in (*macro([], [], np.array([], dtype=bool)), *slots([], [], np.array([], dtype=bool))))


def test_slots_are_right_said_or_missed() -> None:
    # right, wrong, made up, missed, rightly empty, failed
    truth = ["a", "b", None, "c", None, "d"]
    said = ["a", "x", "y", None, None, "d"]
    found = slots(truth, said, np.array([True] * 5 + [False]))
    assert found == pytest.approx((1 / 3, 1 / 4, 2 / 7))


def test_errors_are_those_where_both_are_numbers() -> None:
    assert errors_of([1.0, 2.0, None, 4.0], [2.0, 5.0, 1.0, 9.0], np.array([True, True, True, False])) == pytest.approx((2.0, 5**0.5))


def test_the_bounds_of_a_share_hold_it_and_stay_between_none_and_all() -> None:
    for share, count in itertools.product((0.0, 0.3, 1.0), (1, 50, 10_000)):
        low, high = wilson(share, count)
        assert -1e-9 <= low <= share + 1e-9 and share - 1e-9 <= high <= 1 + 1e-9
    assert wilson(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)


@pytest.mark.parametrize("seed", range(20))
def test_precision_recall_and_f1_are_those_of_scikit_learn(seed: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    draw = random.Random(seed)
    classes = "abcde"[: draw.randint(1, 5)]
    count = draw.randint(1, 60)
    truth = [draw.choice(classes) for _ in range(count)]
    said = [draw.choice([*classes, "other"]) for _ in range(count)]
    answered = np.array([draw.random() < 0.9 for _ in range(count)])
    told = [one if there else "(failed)" for one, there in zip(said, answered, strict=True)]
    wanted = metrics.precision_recall_fscore_support(truth, told, labels=sorted(set(truth)), average="macro", zero_division=0)[:3]
    assert tuple(macro(truth, said, answered)) == pytest.approx(wanted)
