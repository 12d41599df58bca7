"""What a model answered, on its way to a spreadsheet: a cell that begins like a formula would be carried out there."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import pandas as pd
import pyarrow as pa

from ..errors import BadInput

__all__ = ["safe_for_spreadsheets"]

FrameOrSeries = TypeVar("FrameOrSeries", pd.DataFrame, pd.Series)  # type: ignore[type-arg]

#: What Excel, LibreOffice and Google Sheets take for the beginning of a formula, full-width characters included. Blanks before it
#: do not always save a cell, and tabs and line ends may be cut off its head.
_FORMULA = re.compile(r"[\s\0\ufeff\u200b]*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]")

#: Python's csv before 3.13 does not quote one, and readers then take what follows for a row of its own.
_CARRIAGE_RETURN = re.compile(r"\r(?!\n)")


def safe_for_spreadsheets(data: FrameOrSeries) -> FrameOrSeries:
    """A copy whose texts no spreadsheet takes for formulas, to be written to CSV or Excel.

    Answers and cells from elsewhere stand in a frame as they came. A spreadsheet that opens them carries out what begins with ``=``,
    ``+``, ``-`` or ``@``: ``=HYPERLINK(...)`` sends what stands beside it to somebody. Such texts get an apostrophe at their head, and so
    do names of columns and labels of the index; a lone carriage return becomes a line feed. Numbers, times and lists stay as they are.
    Lists in words ("- one") and texts such as "-1" get an apostrophe too, which a reader may see: keep a file for programs to read as
    it is.

    Parameters
    ----------
    data : DataFrame or Series
        Is not changed.

    Returns
    -------
    DataFrame or Series
        As ``data``. Columns, index and dtypes in which nothing had to be done are the same; a category or an Arrow dictionary becomes text.

    Raises
    ------
    BadInput
        Neither a frame nor a series.

    Examples
    --------
    >>> import pandas as pd, llmkit
    >>> said = pd.DataFrame({"answer": ['=HYPERLINK("http://evil.example")', "fine"], "score": [-1, 2]})
    >>> print(llmkit.safe_for_spreadsheets(said).to_csv(index=False))
    answer,score
    "'=HYPERLINK(""http://evil.example"")",-1
    fine,2
    <BLANKLINE>
    """
    if isinstance(data, pd.Series):
        series = _column(data).copy()
        series.name, series.index = _text(data.name), _labels(data.index)
        return series
    if not isinstance(data, pd.DataFrame):
        raise BadInput(f"safe_for_spreadsheets takes a DataFrame or a Series, not {type(data).__name__}")
    frame = data.copy()
    for place in range(frame.shape[1]):
        before = data.iloc[:, place]
        after = _column(before)
        if after is not before:
            frame.isetitem(place, after)  # type: ignore[arg-type]
    frame.columns, frame.index = _labels(frame.columns), _labels(frame.index)
    return frame


def _text(cell: Any) -> Any:
    """The cell, made safe; itself where it is safe."""
    if not isinstance(cell, str):
        return cell
    if "\r" in cell:
        cell = _CARRIAGE_RETURN.sub("\n", cell)
    return "'" + cell if _FORMULA.match(cell) else cell


def _unsafe(cell: Any) -> bool:
    return _text(cell) is not cell


def _may_hold_text(dtype: Any) -> bool:
    return pd.api.types.is_object_dtype(dtype) or isinstance(dtype, pd.StringDtype | pd.CategoricalDtype | pd.ArrowDtype)


def _column(series: pd.Series[Any]) -> pd.Series[Any]:
    dtype = series.dtype
    if not _may_hold_text(dtype) or not any(map(_unsafe, series)):
        return series
    arrow = isinstance(dtype, pd.ArrowDtype) and (pa.types.is_string(dtype.pyarrow_dtype) or pa.types.is_large_string(dtype.pyarrow_dtype))
    kept = dtype if arrow or isinstance(dtype, pd.StringDtype) else object
    return pd.Series([_text(cell) for cell in series], index=series.index, name=series.name, dtype=kept)


def _labels(index: pd.Index[Any]) -> pd.Index[Any]:
    names = [_text(name) for name in index.names]
    if isinstance(index, pd.MultiIndex):
        if any(_unsafe(label) for level in index.levels for label in level):
            return pd.MultiIndex.from_tuples([tuple(map(_text, labels)) for labels in index], names=names)
    elif _may_hold_text(index.dtype) and any(map(_unsafe, index)):
        labels: pd.Index[Any] = pd.Index([_text(label) for label in index], name=names[0], tupleize_cols=False)
        return labels
    return index.set_names(names)  # type: ignore[no-any-return]
