"""pandas to the engine's tables and back: cells to text, outcomes to aligned columns.

Alignment is by position, so any index will do: duplicates and a MultiIndex come back as they went in.
"""

from __future__ import annotations

import datetime
import decimal
import json
import math
import numbers
import uuid
from collections.abc import Callable, Hashable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import BadInput, LLMError
from ..outcomes import MISSING, Outcomes
from ..run import Run
from ..vectors.packing import Dtype, packed, unpacked

__all__ = [
    "TEXT",
    "ColumnShape",
    "DetailShape",
    "FrameTable",
    "factorized",
    "in_fewer_bytes",
    "matrix_of",
    "one_column",
    "packed_vectors",
    "vector_dtype",
    "vectors_of",
]

#: What chat's column is: pandas' own string dtype, Arrow-backed.
TEXT: Any = "str" if int(pd.__version__.split(".")[0]) >= 3 else pd.StringDtype("pyarrow")


class FrameTable:
    """A frame's columns as text.

    Parameters
    ----------
    frame : DataFrame
        Copied by reference where pandas allows it, so that later assignments do not reach a run under way.
    limit : int, optional
        Only the first so many rows.
    """

    def __init__(self, frame: pd.DataFrame, limit: int | None = None) -> None:
        self._frame = frame
        self._length = len(frame) if limit is None else max(0, min(limit, len(frame)))
        self._readers: dict[Any, Callable[[int, int], list[str | None]]] = {}

    @property
    def columns(self) -> list[Any]:
        return list(self._frame.columns)

    def __len__(self) -> int:
        return self._length

    def check(self, columns: Sequence[Any]) -> None:
        """Look at the named columns before anything is sent.

        Raises
        ------
        BadInput
            A column that does not exist (the nearest is named), that exists twice, or whose cells cannot be sent as text.
        """
        for column in columns:
            self._readers[column] = _reader(one_column(self._frame, column), column)

    def texts(self, column: Any, start: int, stop: int) -> list[str | None]:
        reader = self._readers.get(column)
        if reader is None:
            self.check([column])
            reader = self._readers[column]
        return reader(start, stop)

    def cells(self, column: Any, start: int, stop: int) -> list[Any]:
        found = one_column(self._frame, column).iloc[start:stop].tolist()
        return [None if _is_missing(cell) else cell for cell in found]


def one_column(frame: pd.DataFrame, column: Any) -> pd.Series[Any]:
    """The column of this name, which must exist once."""
    if not isinstance(column, Hashable):
        raise BadInput(f"one column is meant here, by its name, not {column!r}")
    several = isinstance(frame.columns, pd.MultiIndex)
    count = int(column in frame.columns) if several else sum(1 for name in frame.columns if name == column)
    if count == 0:
        names = {str(name): name for name in frame.columns}
        near = get_close_matches(str(column), names, 1, 0.6)
        hint = f"Did you mean {names[near[0]]!r}?" if near else _listing(list(frame.columns))
        if isinstance(column, tuple) and not several:
            hint = f"Several columns are given as a list: {list(column)!r}"
        raise BadInput(f"no column {column!r}. {hint}")
    if count > 1:
        raise BadInput(f"{count} columns are named {column!r}; rename them so that the name means one")
    found = frame[column]
    if isinstance(found, pd.DataFrame):
        raise BadInput(f"{column!r} names several columns of a MultiIndex; give one of them as a tuple")
    return found


def _listing(names: Sequence[Any]) -> str:
    shown = ", ".join(repr(name) for name in names[:8]) + (", ..." if len(names) > 8 else "")
    return f"The columns are {shown}." if shown else "The frame has no columns."


def _reader(series: pd.Series[Any], name: Any) -> Callable[[int, int], list[str | None]]:
    series = series.copy(deep=False) if pd.__version__ >= "3" else series.copy()
    dtype = series.dtype
    if isinstance(dtype, pd.StringDtype):
        return lambda start, stop: _null_to_none(series.iloc[start:stop].tolist())
    if pd.api.types.is_object_dtype(dtype) or isinstance(dtype, pd.CategoricalDtype | pd.ArrowDtype):
        _refuse_bytes(series, name)
    elif not (
        pd.api.types.is_numeric_dtype(dtype) or pd.api.types.is_bool_dtype(dtype) or pd.api.types.is_datetime64_any_dtype(dtype)
        or isinstance(dtype, pd.PeriodDtype | pd.IntervalDtype) or pd.api.types.is_timedelta64_dtype(dtype)
    ):  # fmt: skip
        raise BadInput(f"column {name!r} has dtype {dtype}, which is no text; convert it with .astype('str')")

    def read(start: int, stop: int) -> list[str | None]:
        cells = series.iloc[start:stop].tolist()
        return [cell if type(cell) is str else as_text(cell) for cell in cells]

    return read


def _null_to_none(cells: list[Any]) -> list[str | None]:
    return [cell if type(cell) is str else None for cell in cells]


def _refuse_bytes(series: pd.Series[Any], name: Any) -> None:
    dtype = series.dtype
    if isinstance(dtype, pd.ArrowDtype):
        values: Any = series.tolist() if pa.types.is_nested(dtype.pyarrow_dtype) else ()
        kinds = {bytes} if _is_binary(dtype.pyarrow_dtype) else set(map(type, values))
    else:
        values = series.cat.categories if isinstance(dtype, pd.CategoricalDtype) else series.to_numpy()
        kinds = set(map(type, values))
    if kinds & _BYTES:
        raise BadInput(
            f"column {name!r} holds bytes, and a model reads text; decode it first, e.g. df[{name!r}].str.decode('utf-8', 'replace')"
        )
    if kinds & _NESTED:
        for cell in values:
            if type(cell) in _NESTED:
                _refuse_what_is_no_json(cell, name)
    odd = [kind.__name__ for kind in kinds if not _readable(kind)]
    if odd:
        raise BadInput(f"column {name!r} holds {odd[0]} objects, which have no text of their own; convert them, e.g. with .map(str)")


def _refuse_what_is_no_json(cell: Any, name: Any) -> None:
    try:
        as_text(cell)
    except (TypeError, ValueError, RecursionError) as error:
        why = str(error) if isinstance(error, TypeError) else "what contains itself"
        raise BadInput(
            f"column {name!r} has a {type(cell).__name__} with {why} in it, which cannot be written as JSON; "
            "make a text of it first, e.g. with .map(str)"
        ) from None


def _is_binary(kind: pa.DataType) -> bool:
    return any(is_kind(kind) for is_kind in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary))


_BYTES = {bytes, bytearray, memoryview}
_NESTED = {list, tuple, dict, set, np.ndarray}
_PLAIN = (str, numbers.Number, np.generic, datetime.date, datetime.time, datetime.timedelta, decimal.Decimal, uuid.UUID)


def _readable(kind: type) -> bool:
    return issubclass(kind, _PLAIN) or kind in (
        type(None),
        type(pd.NA),
        type(pd.NaT),
        *_NESTED,
        pd.Period,
        pd.Interval,
    )


def as_text(cell: Any) -> str | None:
    """One cell as a model reads it: text as it is, numbers and dates in their usual form, lists and dicts as JSON; ``None`` if missing."""
    if cell is None or cell is pd.NA or cell is pd.NaT:
        return None
    if isinstance(cell, float | np.floating):
        if cell != cell:
            return None
        return repr(float(cell)) if isinstance(cell, float) else str(cell)
    if isinstance(cell, decimal.Decimal) and cell.is_nan():
        return None
    if isinstance(cell, bool | np.bool_):
        return "true" if cell else "false"
    if isinstance(cell, pd.Timestamp | datetime.datetime | datetime.date | datetime.time):
        return cell.isoformat()
    if isinstance(cell, np.datetime64 | np.timedelta64):
        return None if np.isnat(cell) else str(cell)
    if type(cell) in _NESTED:
        return json.dumps(_jsonable(cell), ensure_ascii=False)
    return str(cell)


def _jsonable(value: Any) -> Any:
    """What JSON can write: numpy's numbers as numbers, missing values as null, the rest as text; TypeError names what it cannot."""
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(as_text(key)): _jsonable(item) for key, item in value.items()}
    if isinstance(value, set):
        return [_jsonable(item) for item in sorted(value, key=str)]
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    if isinstance(value, np.generic) and not isinstance(value, np.datetime64 | np.timedelta64):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None if value != value else str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if not _readable(type(value)):
        raise TypeError(type(value).__name__)
    return as_text(value)


def factorized(texts: pd.Series[Any]) -> tuple[npt.NDArray[np.intp], list[Any]]:
    """For each row the place of its text among the different ones; -1 where it is missing."""
    if not pd.api.types.is_object_dtype(texts.dtype):
        codes, different = pd.factorize(texts)
        return codes, list(different)
    # As objects: half a character, which a cell may hold, is no string to Arrow.
    cells = np.empty(len(texts), dtype=object)
    for row, cell in enumerate(texts):
        cells[row] = cell if isinstance(cell, str) else as_text(cell)
    codes, found = pd.factorize(cells)
    return codes, list(found)


# ------------------------------------------------------------------------------------------------------------ outcomes to columns


def vector_dtype(dimensions: int) -> pd.ArrowDtype:
    return pd.ArrowDtype(pa.list_(pa.float32(), dimensions))


def _vectors(outcomes: Outcomes, length: int, dimensions: int | None) -> pd.arrays.ArrowExtensionArray:
    """The matrix of a run as a column; without a copy where every row has its own vector, in order."""
    matrix, task_of_row = outcomes.matrix, outcomes.task_of_row.copy()
    if matrix is None:
        kind = pa.list_(pa.float32(), dimensions) if dimensions else pa.list_(pa.float32())
        return pd.arrays.ArrowExtensionArray(pa.nulls(length, kind))
    width = matrix.shape[1]
    has_value = np.zeros(length, dtype=bool)
    tasks = task_of_row.clip(0)
    states = np.frombuffer(outcomes.state.tobytes(), dtype=np.int8)  # a copy: a view would keep a run under way from adding tasks
    answered = (states > 0) & (states < 4)
    has_value[: len(task_of_row)] = (task_of_row >= 0) & answered[tasks] if len(answered) else False
    # The matrix itself, unless the run still writes into it: a look at a run under way must not disturb it.
    if length == len(matrix) and states.all() and np.array_equal(task_of_row, np.arange(length, dtype=np.int32)):
        laid = matrix
    else:
        laid = np.empty((length, width), dtype=np.float32)
        rows = np.flatnonzero(has_value)
        for start in range(0, len(rows), 4096):  # in pieces: fancy indexing would hold a second copy
            some = rows[start : start + 4096]
            laid[some] = matrix[task_of_row[some]]
    return vectors_of(laid, has_value, width)


def vectors_of(laid: npt.NDArray[np.float32], has_value: npt.NDArray[np.bool_], dimensions: int | None) -> pd.arrays.ArrowExtensionArray:
    """A matrix as a column of vectors, without a copy; rows without a value are zeroed in place and missing in the column."""
    if not dimensions:
        return pd.arrays.ArrowExtensionArray(pa.nulls(len(laid), pa.list_(pa.float32())))
    if not has_value.all():
        laid[~has_value] = 0.0
    return packed_vectors(laid, has_value)


def _texts(outcomes: Outcomes, length: int) -> list[str | None]:
    values = outcomes.values
    found: list[str | None] = [values[task] if task >= 0 else None for task in outcomes.task_of_row.tolist()]
    return found + [None] * (length - len(found))


def _objects(outcomes: Outcomes, length: int) -> npt.NDArray[np.object_]:
    cells = np.empty(length, dtype=object)
    for row, value in enumerate(_texts(outcomes, length)):
        cells[row] = value
    return cells


def _scores(outcomes: Outcomes, length: int) -> npt.NDArray[np.float64]:
    scores = np.full(length, np.nan)
    for task, rows in list(outcomes.rows_of_task.items()):
        value = outcomes.value(task)
        if value is not None:
            scores[list(rows)] = value
    return scores


def matrix_of(series: pd.Series[Any]) -> npt.NDArray[np.float32]:
    """A column of vectors as an (n, d) float32 matrix; a view of the column's own memory where no row is missing.

    Of int8, which holds directions, as vectors of length one.
    """
    kind = getattr(series.dtype, "pyarrow_dtype", None)
    if kind is not None and any(is_kind(kind) for is_kind in _LISTS) and _is_numeric(kind.value_type):
        if not pa.types.is_fixed_size_list(kind) or kind.value_type != pa.float32():
            return _of_lists(series)
    else:
        return _stacked(series)
    chunked = series.array.__arrow_array__()
    chunk = chunked.chunk(0) if isinstance(chunked, pa.ChunkedArray) and chunked.num_chunks == 1 else None
    if isinstance(chunked, pa.Array):
        chunk = chunked
    if chunk is None:
        chunk = chunked.combine_chunks()
        if isinstance(chunk, pa.ChunkedArray):
            chunk = pa.concat_arrays(chunk.chunks) if chunk.num_chunks else pa.nulls(0, kind)
    width, length = kind.list_size, len(chunk)
    if not length:
        return np.empty((0, width), dtype=np.float32)
    flat = chunk.values  # the child array from its start, whatever the slice
    start = (chunk.offset + 0) * width
    view = np.frombuffer(flat.buffers()[1], dtype=np.float32)[flat.offset + start : flat.offset + start + length * width]
    matrix = view.reshape(length, width)
    if chunk.null_count:
        matrix = matrix.copy()
        matrix[np.asarray(chunk.is_null())] = np.nan
    return matrix


_LISTS = (pa.types.is_fixed_size_list, pa.types.is_list, pa.types.is_large_list)


def _is_numeric(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _of_lists(series: pd.Series[Any]) -> npt.NDArray[np.float32]:
    """Arrow's lists of other numbers than float32, or of any length: without a Python object for each number."""
    lists = series.array.__arrow_array__()
    widths = pc.list_value_length(lists)
    there = ~np.asarray(series.isna())
    if not there.any():
        kind = lists.type
        return np.full((len(series), kind.list_size if pa.types.is_fixed_size_list(kind) else 0), np.nan, dtype=np.float32)
    known = pc.drop_null(widths).to_numpy()
    _of_one_length(series, np.flatnonzero(there), known)
    chunks = lists.chunks if isinstance(lists, pa.ChunkedArray) else [lists]
    flat = np.concatenate([chunk.flatten().to_numpy(zero_copy_only=False) for chunk in chunks])
    rows = unpacked(flat.reshape(-1, int(known[0])))
    if there.all():
        return rows
    matrix = np.full((len(series), rows.shape[1]), np.nan, dtype=np.float32)
    matrix[there] = rows
    return matrix


def _of_one_length(series: pd.Series[Any], rows: npt.NDArray[Any], widths: npt.NDArray[Any]) -> None:
    """Refuse vectors of several lengths; the lengths that fewest rows have are told with their rows."""
    lengths, counts = np.unique(widths, return_counts=True)
    if len(lengths) == 1 and lengths[0] > 0:
        return
    if not len(lengths):
        raise BadInput(f"column {series.name!r} holds no vectors of one length; make them with df.llm.embed(...)")
    usual = lengths[np.argmax(counts)]
    others = rows[widths != usual]
    odd = f": {usual} numbers, but others in {some_rows(others)}" if len(others) else ""
    raise BadInput(f"column {series.name!r} holds no vectors of one length{odd}; make them with df.llm.embed(...)")


def some_rows(rows: npt.NDArray[Any]) -> str:
    """A few rows by their positions, and how many there are beside."""
    said = ", ".join(str(row) for row in rows[:5].tolist())
    return f"row{'s' if len(rows) > 1 else ''} {said}{f' and {len(rows) - 5:,} more' if len(rows) > 5 else ''}"


def in_fewer_bytes(column: Any, dtype: Dtype) -> Any:
    """A column of float32 vectors as one of float16 or int8; see ``packing.packed``."""
    if dtype == "float32":
        return column
    series = pd.Series(column)
    there = ~np.asarray(series.isna())
    if not there.any():
        kind = column.dtype.pyarrow_dtype
        width = kind.list_size if pa.types.is_fixed_size_list(kind) else -1
        return pd.arrays.ArrowExtensionArray(pa.nulls(len(series), pa.list_(pa.from_numpy_dtype(dtype), width)))
    matrix = matrix_of(series)
    laid = np.empty(matrix.shape, dtype=dtype)
    for start in range(0, len(matrix), 16_384):
        laid[start : start + 16_384] = packed(np.nan_to_num(matrix[start : start + 16_384]), dtype)
    return packed_vectors(laid, there)


def packed_vectors(laid: npt.NDArray[Any], has_value: npt.NDArray[np.bool_]) -> pd.arrays.ArrowExtensionArray:
    """A matrix of float32, float16 or int8 as a column of vectors, without a copy."""
    kind = pa.from_numpy_dtype(laid.dtype)
    values = pa.Array.from_buffers(kind, laid.size, [None, pa.py_buffer(laid)])
    validity = None if has_value.all() else pa.array(has_value).buffers()[1]
    column = pa.Array.from_buffers(pa.list_(kind, laid.shape[1]), len(laid), [validity], children=[values])
    return pd.arrays.ArrowExtensionArray(column)


def _stacked(series: pd.Series[Any]) -> npt.NDArray[np.float32]:
    """Vectors held as Python lists or arrays, as other tools leave them."""
    if not len(series):
        return np.empty((0, 0), dtype=np.float32)
    try:
        cells = [None if _is_missing(cell) else np.asarray(cell, dtype=np.float32) for cell in series.tolist()]
    except (TypeError, ValueError):
        raise BadInput(f"column {series.name!r} holds no vectors; make them with df.llm.embed(...)") from None
    there = np.array([row for row, cell in enumerate(cells) if cell is not None], dtype=np.intp)
    # What is no vector at all, a number or a matrix, counts as one of no length.
    _of_one_length(series, there, np.array([cell.shape[0] if cell.ndim == 1 else 0 for cell in cells if cell is not None], dtype=np.int64))
    width = len(next(cell for cell in cells if cell is not None))
    return np.array([np.full(width, np.nan, dtype=np.float32) if cell is None else cell for cell in cells])


def _is_missing(cell: Any) -> bool:
    return cell is None or cell is pd.NA or (isinstance(cell, float) and cell != cell)


class ColumnShape:
    """Outcomes as one column on the frame's own index."""

    def __init__(self, index: pd.Index[Any], kind: str, name: Any = None, dimensions: int | None = None) -> None:
        self.index = index
        self.kind = kind
        self.name = name
        self.dimensions = dimensions

    def column(self, outcomes: Outcomes) -> Any:
        if self.kind == "vector":
            return _vectors(outcomes, len(self.index), self.dimensions)
        if self.kind == "score":
            return _scores(outcomes, len(self.index))
        if self.kind == "object":
            return _objects(outcomes, len(self.index))
        return pd.array(_texts(outcomes, len(self.index)), dtype=TEXT)

    def result(self, run: Run[Any]) -> Any:
        return pd.Series(self.column(run.outcomes), index=self.index, name=self.name)

    def prepared(self, route: Sequence[Any], arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """The call's arguments, once it is known who will be asked."""
        return arguments

    def history(self, run: Run[Any]) -> pd.DataFrame:
        """A line a second and model: how the run was paced."""
        columns = ["seconds", "model", "window", "in_flight", "waiting", "sent", "refused"]
        frame = pd.DataFrame(run.outcomes.history, columns=columns)
        of_one = frame.groupby("model", sort=False)
        since = of_one["seconds"].diff().fillna(frame["seconds"])
        sent = of_one["sent"].diff().fillna(frame["sent"])
        frame["requests_per_minute"] = (60 * sent / since.where(since > 0)).astype("float64")
        return frame[["seconds", "model", "window", "in_flight", "waiting", "requests_per_minute", "refused"]]

    def errors(self, run: Run[Any]) -> pd.DataFrame:
        """One line per row without a value although it asked for one."""
        outcomes = run.outcomes
        lines = []
        for row, task in self._failed(outcomes):
            error = outcomes.error_of(task) if task >= 0 else outcomes.stopped
            if error is not None:
                lines.append((row, self.index[row], error.kind, str(error), outcomes.attempts[task] if task >= 0 else 0))
        frame = pd.DataFrame(lines, columns=["row", "index", "kind", "error", "attempts"])
        return frame.astype({"row": "int64", "attempts": "int64"})

    @staticmethod
    def _failed(outcomes: Outcomes) -> list[tuple[int, int]]:
        several = dict(outcomes.rows_of_task)
        pairs = [(row, task) for row, task in enumerate(outcomes.task_of_row.tolist()) if task not in several]
        pairs += [(row, task) for task, rows in several.items() for row in rows]
        return sorted((row, task) for row, task in pairs if task != MISSING and (task < 0 or not _has_value(outcomes, task)))


class DetailShape(ColumnShape):
    """Outcomes as a frame: the value and how it came about, a line for every row."""

    def result(self, run: Run[Any]) -> Any:
        outcomes, length = run.outcomes, len(self.index)
        tasks = outcomes.task_of_row.tolist()
        tasks += [MISSING] * (length - len(tasks))

        def each(look: Callable[[int], Any]) -> list[Any]:
            return [look(task) if task >= 0 else None for task in tasks]

        def source(task: int) -> str | None:
            found = outcomes.at(task, run.targets).source
            return "batch" if found == "job" else found

        def error(row_task: int) -> str | None:
            found: LLMError | None = outcomes.error_of(row_task)
            return None if found is None else str(found)

        names = each(lambda task: run.targets[outcomes.target[task]] if outcomes.target[task] >= 0 else None)
        errors = [error(task) if task >= 0 else (str(outcomes.stopped) if task != MISSING and outcomes.stopped else None) for task in tasks]
        columns = {
            "value": self.column(outcomes),
            "error": pd.array(errors, dtype=TEXT),
            "model": pd.array([name and name.partition("/")[2] for name in names], dtype=TEXT),
            "provider": pd.array([name and name.partition("/")[0] for name in names], dtype=TEXT),
            "source": pd.array(each(source), dtype=TEXT),
            "finish": pd.array(each(lambda task: outcomes.at(task, run.targets).reply and outcomes.finish.get(task, "stop")), dtype=TEXT),
            "attempts": pd.array(each(lambda task: outcomes.attempts[task]), dtype="Int64"),
            "seconds": pd.array(each(lambda task: outcomes.seconds[task]), dtype="Float64"),
            "queue_seconds": pd.array(each(lambda task: outcomes.queued[task]), dtype="Float64"),
            "input_tokens": pd.array(each(lambda task: outcomes.input[task]), dtype="Int64"),
            "output_tokens": pd.array(each(lambda task: outcomes.output[task]), dtype="Int64"),
            "cost": pd.array(each(run.cost_of), dtype="Float64"),
            "possibly_billed": pd.array(each(lambda task: outcomes.lost.get(task, 0)), dtype="Int64"),
        }
        return pd.DataFrame(columns, index=self.index)


def _has_value(outcomes: Outcomes, task: int) -> bool:
    return bool(0 < outcomes.state[task] < 4)
