"""What was extracted as columns: a typed one for each field, on the frame's own index."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel
from pydantic_core import to_json

from ..errors import BadInput
from ..operations.schemas import Fields
from ..outcomes import Outcomes
from ..run import Run
from .columns import ColumnShape, DetailShape
from .typed import Listed, Record, cells, column, type_of

__all__ = ["DETAIL", "Columns", "ColumnsInDetail", "Instance", "Merged", "merged"]

#: What stands beside the value in a detail frame.
DETAIL = (
    "error", "model", "provider", "source", "finish", "attempts", "seconds", "queue_seconds", "input_tokens", "output_tokens", "cost",
    "possibly_billed",
)  # fmt: skip

#: Which of a row's records a row of the result is.
POSITION = "position"


class Columns(ColumnShape):
    """One row becomes a row of columns, or one value.

    Parameters
    ----------
    frame : DataFrame
        That was asked about.
    fields : Fields
    prefix : str
        Before the name of every column.
    join : bool
        Beside the frame's own columns.
    explode : bool
        A row for each record of a row.

    Raises
    ------
    BadInput
        Two columns of the result would have one name, or there are no records to explode.
    """

    def __init__(self, frame: pd.DataFrame, fields: Fields, prefix: str = "", join: bool = False, explode: bool = False) -> None:
        super().__init__(frame.index, "object", "extract")
        self.frame = frame
        self.fields = fields
        self.prefix = prefix
        self.join = join
        self.explode = explode
        held = type_of(fields.model.__pydantic_core_schema__)
        #: What an answer is: a record of columns, or one value.
        self.type = held.parts[0].type if fields.inner and isinstance(held, Record) else held
        record = self.type.item if explode and isinstance(self.type, Listed) and fields.kind == "records" else self.type
        if explode and (record is self.type or not isinstance(record, Record)):
            raise BadInput("explode=True makes a row of each record: it is for a schema list[...] of a model")
        #: The columns, where there are several.
        self.record = record if isinstance(record, Record) and (explode or fields.kind == "record") else None
        self._check_names()

    @property
    def names(self) -> list[str]:
        """The columns of the result that hold what was extracted."""
        if self.record is None:
            return [self.prefix + str(self.name)]
        return [self.prefix + name for name in [*([POSITION] if self.explode else []), *(part.name for part in self.record.parts)]]

    #: Columns that the result has beside.
    beside: Sequence[str] = ()

    def _check_names(self) -> None:
        own = set(self.frame.columns.get_level_values(0)) if self.join else set()
        seen: set[Any] = set(self.beside)
        for name in self.names:
            if name in own:
                raise BadInput(f'the frame has a column {name!r} already: say prefix="found_", or leave out join=True')
            if name in seen:
                cure = 'say prefix="found_"' if name in self.beside else "give the field another name or an alias"
                raise BadInput(f"the result would have two columns {name!r}: {cure}")
            seen.add(name)
        twice = [name for name in self.beside if name in own]
        if twice:
            raise BadInput(f"the frame has a column {twice[0]!r}, and so has detail=True: leave out join=True, or rename the frame's")

    def answers(self, outcomes: Outcomes) -> list[Any]:
        """What each row's answer holds, ``None`` where it has none."""
        return list(ColumnShape.column(self, outcomes))

    def columns(self, answers: Sequence[Any]) -> dict[str, Any]:
        """A typed array for each column, of as many answers as there are rows."""
        if self.record is None:
            return {self.names[0]: column(self.type, answers)}
        return {self.prefix + part.name: column(part.type, cells(answers, part.key)) for part in self.record.parts}

    def result(self, run: Run[Any]) -> Any:
        answers = self.answers(run.outcomes)
        if self.record is None and not self.join:
            return pd.Series(column(self.type, answers), index=self.index, name=self.names[0])
        return self.laid(answers)

    def laid(self, answers: Sequence[Any], beside: pd.DataFrame | None = None) -> pd.DataFrame:
        """The result as a frame, with the columns of ``beside`` last."""
        owners, position = None, {}
        if self.explode:
            answers, owners, place = exploded(answers)
            position = {self.prefix + POSITION: place}
        index = self.index if owners is None else self.index.take(owners)
        made = pd.DataFrame({**position, **self.columns(answers)}, index=index)
        parts = [self.frame] if self.join else []
        parts += [beside] if beside is not None else []
        if not parts:
            return made
        parts = [part if owners is None else part.take(owners) for part in parts]
        parts.insert(1 if self.join else 0, made)
        return self._side_by_side(parts)

    def _side_by_side(self, parts: list[pd.DataFrame]) -> pd.DataFrame:
        names = self.frame.columns
        if self.join and isinstance(names, pd.MultiIndex):
            for part in parts[1:]:  # as pandas names a column that is assigned to such a frame
                part.columns = pd.MultiIndex.from_tuples([(name, *[""] * (names.nlevels - 1)) for name in part.columns])
        for part in parts[1:]:
            part.index = parts[0].index
        together = pd.concat(parts, axis=1)
        if self.join:
            together.columns.names = names.names
            together.attrs.update(self.frame.attrs)
        return together


class ColumnsInDetail(Columns, DetailShape):
    """The same columns with how each row came about beside them; where a row is one value, it is the column ``value``."""

    beside = DETAIL

    @property
    def names(self) -> list[str]:
        return super().names if self.record is not None else [self.prefix + "value"]

    def result(self, run: Run[Any]) -> Any:
        beside = DetailShape.result(self, run).drop(columns="value")
        return self.laid(self.answers(run.outcomes), beside)


class Merged(Columns):
    """One row's answer from those of its windows, as ``merged`` says; a row with a window that failed is missing.

    Attributes
    ----------
    owners : (windows,) int array
        The row that each window is of, in order; set when it is known which models are asked, and so where texts are cut.
    """

    owners: npt.NDArray[np.intp] = np.empty(0, dtype=np.intp)

    @property
    def _of_windows(self) -> ColumnShape:
        return ColumnShape(pd.RangeIndex(len(self.owners)), "object", self.name)

    def answers(self, outcomes: Outcomes) -> list[Any]:
        rows: list[Any] = [None] * len(self.index)
        lost: set[int] = set()
        for row, answer in zip(self.owners.tolist(), self._of_windows.column(outcomes), strict=True):
            if answer is None:
                lost.add(row)
            else:
                rows[row] = answer if rows[row] is None else merged(rows[row], answer)
        for row in lost:  # part of a text would pass for all of it
            rows[row] = None
        return rows

    def errors(self, run: Run[Any]) -> pd.DataFrame:
        """One line a row, with the first reason among its windows."""
        lines = self._of_windows.errors(run)
        lines["row"] = self.owners[lines["row"].to_numpy()]
        lines = lines.drop_duplicates("row").reset_index(drop=True)
        lines["index"] = [self.index[row] for row in lines["row"]]
        return lines


def merged(first: Any, then: Any) -> Any:
    """What two windows of one text say, as one.

    Field by field, inside of nested models too: the first value that is there (``null`` and an empty text are not), and of lists all
    items in the order of the text, without those that an earlier window had already.
    """
    if first is None or first == "":
        return first if then is None else then
    if isinstance(first, dict) and isinstance(then, dict):
        return {name: merged(first.get(name), then.get(name)) for name in (first | then)}
    if isinstance(first, BaseModel) and isinstance(then, BaseModel):
        said = {name: merged(getattr(first, name), getattr(then, name, None)) for name in type(first).model_fields}
        return first.model_copy(update=said)
    if isinstance(first, list) and isinstance(then, list):
        known = {_key(item) for item in first}
        return [*first, *(item for item in then if _key(item) not in known)]
    if isinstance(first, set | frozenset) and isinstance(then, set | frozenset):
        return first | then
    return first


class Instance(ColumnShape):
    """One text's answer as what its schema makes of it, its windows merged.

    Parameters
    ----------
    fields : Fields
    own : bool
        Records are instances of a class of the caller's; else they are dicts.
    """

    def __init__(self, fields: Fields, own: bool) -> None:
        super().__init__(pd.RangeIndex(1), "object", "extract")
        self.fields = fields
        self.own = own

    def result(self, run: Run[Any]) -> Any:
        held = ColumnShape(pd.RangeIndex(run.outcomes.rows), "object").column(run.outcomes)
        return reduce(merged, [None if answer is None else self._made(answer.raw) for answer in held])

    def _made(self, raw: str) -> Any:
        whole = self.fields.model.__pydantic_validator__.validate_json(raw)
        made = getattr(whole, self.fields.inner) if self.fields.inner else whole
        if self.own or self.fields.kind == "value":
            return made
        return made.model_dump(by_alias=True) if self.fields.kind == "record" else [one.model_dump(by_alias=True) for one in made]


def _key(item: Any) -> bytes:
    return to_json(item, bytes_mode="base64", fallback=str)


def exploded(answers: Iterable[Any]) -> tuple[list[Any], npt.NDArray[np.intp], Any]:
    """A row for each record, the row it came from, and its place there; rows without records keep one, as pandas' ``explode`` does."""
    records: list[Any] = []
    owners: list[int] = []
    places: list[int] = []
    for row, answer in enumerate(answers):
        found = answer or (None,)
        records += found
        owners += [row] * len(found)
        places += range(len(found)) if answer else [-1]
    place = np.array(places, dtype=np.int64)
    position = pd.arrays.IntegerArray(place.clip(0), place < 0)
    return records, np.array(owners, dtype=np.intp), position
