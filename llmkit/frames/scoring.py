"""Whether answers are the same, and how many are right: what counts as equal, agreement, precision, recall and F1, in numpy alone."""

from __future__ import annotations

import datetime
import decimal
import numbers
from collections.abc import Callable, Hashable, Mapping, Sequence
from enum import Enum
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from .columns import as_text

__all__ = [
    "Kind",
    "Slots",
    "agreeing",
    "codes_of",
    "errors_of",
    "kind_of",
    "macro",
    "mark",
    "marker",
    "missing",
    "numerically",
    "pairs",
    "ratio",
    "slots",
    "wilson",
]

Kind = Literal["category", "number", "time", "text", "other"]
Codes = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]

_WORDS = {"true": 1.0, "yes": 1.0, "1": 1.0, "false": 0.0, "no": 0.0, "0": 0.0}


def missing(value: Any) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float | np.floating) and value != value)


def kind_of(dtype: Any) -> Kind:
    """How values of a column are compared."""
    if isinstance(dtype, pd.CategoricalDtype) or pd.api.types.is_bool_dtype(dtype):
        return "category"
    if pd.api.types.is_numeric_dtype(dtype):
        return "number"
    if pd.api.types.is_datetime64_any_dtype(dtype):
        return "time"
    return "text" if isinstance(dtype, pd.StringDtype) else "other"


# ------------------------------------------------------------------------------------------------------------------ sameness


def mark(value: Any) -> Hashable:
    """Equal for values that count as the same.

    Texts are but for case and blanks, numbers to nine digits, times as moments, nested ones by their parts, sets in any order; ``None`` is
    what is missing.
    """
    if isinstance(value, str):
        return " ".join(value.casefold().split())
    if missing(value):
        return None
    if isinstance(value, Enum):
        return mark(value.value)
    if isinstance(value, numbers.Real | np.generic | decimal.Decimal) and not isinstance(value, np.datetime64 | np.timedelta64):
        return float(f"{float(value):.9g}")
    if isinstance(value, pd.Timestamp | datetime.date | np.datetime64):
        return _moment(value)
    if hasattr(value, "model_dump"):
        value = value.model_dump()
    if isinstance(value, Mapping):
        return frozenset((str(key), mark(item)) for key, item in value.items())
    if isinstance(value, set | frozenset):
        return frozenset(map(mark, value))
    if isinstance(value, list | tuple | np.ndarray):
        return tuple(map(mark, value))
    return mark(as_text(value))


def _moment(value: Any) -> Hashable:
    try:
        moment = pd.Timestamp(value)
    except (ValueError, TypeError, OverflowError):
        return mark(str(value))
    if pd.isna(moment):
        return None
    return moment if moment.tz is None else moment.tz_convert("UTC").tz_localize(None)


def marker(dtype: Any) -> Callable[[Any], Hashable]:
    """``mark`` for truths of a column of this dtype: what a spreadsheet keeps as text ("3", "yes") is read as the column's values are."""
    kind = kind_of(dtype)
    values = dtype.categories if isinstance(dtype, pd.CategoricalDtype) else None
    if kind == "number" or (values is not None and len(values) and pd.api.types.is_numeric_dtype(values)):
        return lambda value: mark(_number(value))
    if kind == "time":
        return lambda value: None if missing(value) else _moment(value)
    if pd.api.types.is_bool_dtype(dtype):
        return lambda value: _WORDS.get(value.strip().casefold(), mark(value)) if isinstance(value, str) else mark(value)
    if kind == "text":
        # A number stays one: ``numerically`` reads what was said.
        return lambda value: mark(as_text(value)) if isinstance(value, bool | np.bool_) else mark(value)
    return mark


def numerically(one: Hashable) -> Hashable:
    """The mark of a text as that of the number that it is, where it is one."""
    return mark(_number(one))


def _number(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def codes_of(columns: Sequence[Sequence[Hashable]], answered: Sequence[Mask]) -> Codes:
    """Marks of several columns as numbers, equal for equal marks: an array (rows, columns), -1 where a row has no answer."""
    numbers_of: dict[Hashable, int] = {}
    codes = np.full((len(columns[0]) if columns else 0, len(columns)), -1, dtype=np.intp)
    for place, (marks, there) in enumerate(zip(columns, answered, strict=True)):
        column = np.array([numbers_of.setdefault(one, len(numbers_of)) for one in marks], dtype=np.intp)
        codes[:, place] = np.where(there, column, -1)
    return codes


# ----------------------------------------------------------------------------------------------------------------- agreement


def agreeing(codes: Codes) -> tuple[Mask, Mask]:
    """Who agrees with the majority, and where that is asked: two masks (rows, columns).

    The majority's answer is the one that more columns gave than any other, two at the least. It is asked of every answer in a row where
    another column answered too; where there is no majority, nobody agrees with it.
    """
    there = codes >= 0
    support = np.zeros(codes.shape, dtype=np.intp)
    for place in range(codes.shape[1]):
        support[:, place] = ((codes == codes[:, [place]]) & there).sum(axis=1)
    support[~there] = 0
    most = support.max(axis=1, initial=0)[:, None]
    leading = (support == most) & there
    # As many as the answer has: they all gave the same one, and no other answer has as many.
    alone = leading.sum(axis=1)[:, None] == most
    return leading & alone & (most >= 2), there & (there.sum(axis=1)[:, None] >= 2)


def pairs(codes: Codes) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """For every two columns the rows in which both answered, and in which they said the same: two arrays (columns, columns)."""
    there = codes >= 0
    width = codes.shape[1]
    both, same = np.zeros((width, width), dtype=np.intp), np.zeros((width, width), dtype=np.intp)
    for place in range(width):
        met = there & there[:, [place]]
        both[place] = met.sum(axis=0)
        same[place] = (met & (codes == codes[:, [place]])).sum(axis=0)
    return both, same


# --------------------------------------------------------------------------------------------------------------------- truth


class Slots(NamedTuple):
    precision: float
    recall: float
    f1: float


def ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")


def macro(truth: Sequence[Hashable], said: Sequence[Hashable], answered: Mask) -> Slots:
    """Precision, recall and F1 of each class that occurs in the truth, averaged; a class that nobody said has precision 0.

    A row without an answer is one that its class misses. What is said and is no class of the truth is nobody's, and wrong.
    """
    classes = {one: place for place, one in enumerate(dict.fromkeys(truth))}
    if not classes:
        return Slots(float("nan"), float("nan"), float("nan"))
    is_ = np.array([classes[one] for one in truth], dtype=np.intp)
    told = np.array([classes.get(one, -1) if there else -1 for one, there in zip(said, answered, strict=True)], dtype=np.intp)
    size = len(classes)
    right = np.bincount(is_[is_ == told], minlength=size)
    predicted, support = np.bincount(told[told >= 0], minlength=size), np.bincount(is_, minlength=size)
    precision = right / np.maximum(predicted, 1)
    return Slots(float(precision.mean()), float((right / support).mean()), float((2 * right / (predicted + support)).mean()))


def slots(truth: Sequence[Hashable], said: Sequence[Hashable], answered: Mask) -> Slots:
    """As of slots that are filled: the share of values said that are right, the share of values there that were said, and their F1."""
    told = [one if there else None for one, there in zip(said, answered, strict=True)]
    right = sum(1 for one, other in zip(truth, told, strict=True) if one is not None and one == other)
    predicted, support = sum(one is not None for one in told), sum(one is not None for one in truth)
    return Slots(ratio(right, predicted), ratio(right, support), ratio(2 * right, predicted + support))


def errors_of(truth: Sequence[Hashable], said: Sequence[Hashable], answered: Mask) -> tuple[float, float]:
    """Mean absolute and root mean squared error where both are numbers."""
    both = [
        float(one) - float(other)
        for one, other, there in zip(truth, said, answered, strict=True)
        if there and isinstance(one, float) and isinstance(other, float)
    ]
    if not both:
        return float("nan"), float("nan")
    away = np.array(both)
    return float(np.abs(away).mean()), float(np.sqrt((away**2).mean()))


def wilson(share: float, count: int) -> tuple[float, float]:
    """Within which the true share lies, 95 times in 100, where this one was found in so many rows."""
    if not count:
        return float("nan"), float("nan")
    z = 1.96
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    reach = z / (1 + z * z / count) * float(np.sqrt(share * (1 - share) / count + z * z / (4 * count * count)))
    return middle - reach, middle + reach
