"""What the semantic operators share: rows as data, questions as a table, stages of one procedure, and estimates of several stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..adapter import Target
from ..errors import BadInput, BudgetReached, Cancelled, LLMError
from ..operations.chat import delimited
from ..operations.template import Template
from ..operations.windows import estimated_tokens
from ..run import Run
from ..types import Estimate, Operation
from . import arguments as checked
from .calling import Accessor, How
from .columns import ColumnShape, FrameTable, matrix_of
from .embedding import Remembering
from .procedure import Procedure

__all__ = ["Asked", "Questions", "Rows", "Stages", "at_most", "claim_of", "different", "room_for_data", "sum_of"]

#: Tokens that a model is taken to read where the catalogue does not know; what it is known to read is not filled to the brim, since
#: tokens are estimated, nor beyond what models read with care.
_WINDOW, _SHARE, _MOST = 8_192, 0.8, 100_000

#: Tokens kept free for the answer where ``max_tokens`` does not say.
_ANSWER = 1_024


class Rows:
    """The rows of a frame as data for a model.

    Parameters
    ----------
    frame : DataFrame
    columns : list
        That are sent.
    limit : int or None
        Only the first so many rows.
    whole : bool
        A row with any of the columns missing is no question; else one with all of them missing or empty.
    tags : list of str, optional
        Names the columns to the model; by default as the frame does.
    """

    def __init__(self, frame: pd.DataFrame, columns: list[Any], limit: int | None, whole: bool, tags: Sequence[Any] | None = None) -> None:
        self._table = FrameTable(frame, limit)
        self._table.check(columns)
        self._columns = columns
        self._tags = columns if tags is None else tags
        self._whole = whole

    def __len__(self) -> int:
        return len(self._table)

    def data(self, start: int, stop: int) -> list[str | None]:
        """Each row between tags that it cannot close, ``None`` where there is nothing to ask about."""
        return [None if said is None else "\n".join(delimited(tag, cell) for tag, cell in said) for said in self._cells(start, stop)]

    def texts(self) -> list[str | None]:
        """Each row as plain text, for a vector."""
        return [None if said is None else "\n".join(cell for _, cell in said) for said in self._cells(0, len(self))]

    def _cells(self, start: int, stop: int) -> list[list[tuple[Any, str]] | None]:
        found: list[list[tuple[Any, str]] | None] = []
        for cells in zip(*(self._table.texts(column, start, stop) for column in self._columns), strict=True):
            said = [(tag, cell) for tag, cell in zip(self._tags, cells, strict=True) if cell and not cell.isspace()]
            found.append(said if said and not (self._whole and None in cells) else None)
        return found


class Questions:
    """A table with one column, ``question``, made a slice at a time."""

    def __init__(self, length: int, made: Callable[[int, int], list[str | None]]) -> None:
        self._length = length
        self._made = made

    @classmethod
    def of(cls, questions: Sequence[str]) -> Questions:
        return cls(len(questions), lambda start, stop: list(questions[start:stop]))

    @property
    def columns(self) -> list[str]:
        return ["question"]

    def __len__(self) -> int:
        return self._length

    def texts(self, column: Any, start: int, stop: int) -> list[str | None]:
        return self._made(start, stop)

    def cells(self, column: Any, start: int, stop: int) -> list[Any]:
        return list(self._made(start, stop))


class Asked(ColumnShape):
    """Questions about rows of a frame: what failed is told of those rows.

    Parameters
    ----------
    index : Index
        Of the frame.
    rows_of : sequence of sequences of int
        The rows that each question is about.
    kind, name
        As ``ColumnShape``.
    """

    def __init__(self, index: pd.Index[Any], rows_of: Sequence[Sequence[int]], kind: str, name: str) -> None:
        super().__init__(pd.RangeIndex(len(rows_of)), kind, name)
        self._frame_index = index
        self._rows_of = rows_of

    def errors(self, run: Run[Any]) -> pd.DataFrame:
        lines = super().errors(run)
        lines["row"] = [list(self._rows_of[question]) for question in lines["row"]]
        lines = lines.explode("row", ignore_index=True).astype({"row": "int64"})
        lines["index"] = [self._frame_index[row] for row in lines["row"]]
        return lines


class AskedForVectors(Asked, Remembering):
    """The same, of vectors."""


class Stages:
    """Asks for one procedure, stage by stage, within what is left of its budget.

    Parameters
    ----------
    accessor : Accessor
        Whose session is used.
    procedure : Procedure
    index : Index
        Of the frame that it is about.
    """

    def __init__(self, accessor: Accessor, procedure: Procedure[Any], index: pd.Index[Any]) -> None:
        self._accessor = accessor
        self._procedure = procedure
        self._index = index
        #: The budget is spent: there are questions that nobody was asked.
        self.spent: BudgetReached | None = None

    def ask(
        self, how: How, asking: tuple[Operation, Mapping[str, Any]], questions: Sequence[str], rows_of: Sequence[Sequence[int]], step: str
    ) -> list[Any]:
        """The answers, ``None`` where there is none.

        Raises
        ------
        LLMError
            Why nobody can be asked any more.
        """
        operation, arguments = asking
        shape = Asked(self._index, rows_of, "object", step)
        run = self._begin(how, lambda how: self._accessor._run(operation, Questions.of(questions), arguments, shape, how))
        (column,) = self._followed(run, step)
        return [None if answer is None else answer for answer in column]

    def embed(self, how: How, operation: Operation, texts: Sequence[str], rows_of: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        """The vectors, of length one; NaN where there is none."""
        table = FrameTable(pd.DataFrame({"text": pd.Series(list(texts), dtype=object)}))
        shape = AskedForVectors(self._index, rows_of, "vector", "embed")
        shape.session = self._accessor._session
        run = self._begin(how, lambda how: self._accessor._run(operation, table, {"on": "text", "options": {}}, shape, how))
        (column,) = self._followed(run, "embed")
        if column.isna().all():
            return np.full((len(texts), 1), np.nan, dtype=np.float32)
        matrix = matrix_of(column)
        lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
        return np.asarray(matrix / np.where(lengths == 0, 1.0, lengths), dtype=np.float32)

    def note(self, said: str) -> None:
        """Have this sentence told at the end."""
        self._procedure.runs[-1][1].outcomes.notes.append(said)

    def _begin(self, how: How, start: Callable[[How], Run[Any]]) -> Run[Any]:
        stopped = self._procedure.stopped
        if isinstance(stopped, Cancelled):
            raise stopped
        policy = replace(how.policy, max_cost=self._procedure.room())
        return start(replace(how, policy=policy, wait=False, show_progress=False))

    def _followed(self, run: Run[Any], step: str) -> list[Any]:
        made = self._procedure.follow(run, step=step)
        stopped = run.stopped
        if isinstance(stopped, BudgetReached):
            if self.spent is None:
                run.outcomes.notes.append(f"{stopped}. What is answered is kept; with more, the same call sends only the rest")
            self.spent = stopped
        elif isinstance(stopped, LLMError):
            stopped.add_note("llmkit: what is answered is kept, and the same call again sends only the rest.")
            raise stopped
        return made


def claim_of(frame: pd.DataFrame, said: Any, on: Any, what: str) -> tuple[str, list[Any], bool]:
    """(what is said to the model, the columns that are sent, whether all of them must be there).

    ``said`` names columns in braces, or ``on`` does. The text of a cell is never put into it.
    """
    from ..operations.semantic import reference

    if not isinstance(said, str) or not said.strip():
        raise BadInput(f"say what the {what} is: the first argument is a text")
    if on is not None:
        return said, checked.columns(on), False
    template = Template(said, list(frame.columns))
    if not template.columns:
        first = next((name for name in frame.columns if isinstance(name, str)), "text")
        raise BadInput(f"the {what} names no column: put one in braces, e.g. {{{first}}}, or say on={first!r}")
    return template.render({name: reference(name) for name in template.columns}), list(template.columns), True


def different(texts: Sequence[str | None]) -> tuple[list[str], list[list[int]], npt.NDArray[np.intp]]:
    """The different texts, the places of each, and for each place the number of its text, -1 where it has none."""
    numbers: dict[str, int] = {}
    places: list[list[int]] = []
    codes = np.full(len(texts), -1, dtype=np.intp)
    for place, text in enumerate(texts):
        if text is not None:
            number = numbers.setdefault(text, len(numbers))
            if number == len(places):
                places.append([])
            places[number].append(place)
            codes[place] = number
    return list(numbers), places, codes


def room_for_data(route: Sequence[Target], system: str, options: Mapping[str, Any], chunk_tokens: int | None = None) -> tuple[int, int]:
    """Tokens (of data, of an answer) that one request to any model of the route may hold.

    Raises
    ------
    BadInput
        The instructions and the answer leave no room.
    """
    windows = [target.model.context_window or _WINDOW for target in route]
    window = min(windows)
    answer = int(options.get("max_tokens") or min(_ANSWER, window // 4))
    room = int(_SHARE * window - answer - estimated_tokens(system))
    if room < 64:
        name = route[windows.index(window)].name
        raise BadInput(f"{name} reads {window:,} tokens at once, and the instructions and max_tokens={answer:,} leave no room for rows")
    return min(room, chunk_tokens or _MOST), answer


def at_most(sample: Estimate, requests: int, rows: int, missing: int, stored: int, basis: str) -> Estimate:
    """An estimate of so many requests like those of a sample that was estimated without stored answers."""
    left = max(0, requests - stored)
    times = left / sample.requests if sample.requests else 0.0
    return replace(
        sample,
        rows=rows,
        missing=missing,
        unique=requests,
        stored=stored,
        requests=left,
        input_tokens=ceil(times * sample.input_tokens),
        output_tokens=ceil(times * sample.output_tokens),
        cost=None if sample.cost is None else times * sample.cost,
        seconds=None if sample.seconds is None else times * sample.seconds,
        basis=f"{basis}; {sample.basis}",
    )


def sum_of(estimates: Sequence[Estimate], rows: int, missing: int) -> Estimate:
    """The estimate of several stages, one after another."""
    costs = [one.cost for one in estimates]
    seconds = [one.seconds for one in estimates]
    return Estimate(
        model=" + ".join(dict.fromkeys(one.model for one in estimates)),
        rows=rows,
        missing=missing,
        unique=sum(one.unique for one in estimates),
        stored=sum(one.stored for one in estimates),
        requests=sum(one.requests for one in estimates),
        input_tokens=sum(one.input_tokens for one in estimates),
        output_tokens=sum(one.output_tokens for one in estimates),
        cost=None if None in costs else sum(cost for cost in costs if cost is not None),
        seconds=None if None in seconds else sum(second for second in seconds if second is not None),
        basis="; ".join(f"{one.requests:,} requests to {one.model}: {one.basis}" for one in estimates),
    )
