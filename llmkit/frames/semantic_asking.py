"""What the semantic operators share: rows as data, questions as a table, stages of one procedure, and estimates of several stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import ceil
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..adapter import Target
from ..errors import BadInput, BudgetReached, Cancelled, LLMError
from ..operations.chat import delimited
from ..operations.embed import EMBED
from ..operations.semantic import reference
from ..operations.template import Template
from ..operations.windows import estimated_tokens
from ..run import Run
from ..types import Estimate, Operation
from . import arguments as checked
from .calling import Accessor, How
from .columns import ColumnShape, FrameTable, matrix_of
from .embedding import Remembering
from .estimates import summed
from .procedure import Procedure

__all__ = [
    "EMBEDDING",
    "Asker",
    "Asking",
    "Questions",
    "Rows",
    "Stages",
    "Work",
    "at_most",
    "claim_of",
    "different",
    "of_length",
    "room_for_data",
    "sum_of",
    "text_table",
]

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

    def texts(self, start: int, stop: int) -> list[str | None]:
        """Each row as plain text, for a vector."""
        return [None if said is None else "\n".join(cell for _, cell in said) for said in self._cells(start, stop)]

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


Asking = tuple[Operation, Mapping[str, Any]]


class Asker:
    """A model that is going to be asked, found and checked before anything is paid.

    Parameters
    ----------
    accessor : Accessor
        Whose session is used.
    how : How
    operation : Operation
    options : mapping
        That every request has.
    """

    def __init__(self, accessor: Accessor, how: How, operation: Operation, options: Mapping[str, Any]) -> None:
        session = accessor._session
        model = how.model if how.model is not None else session.chosen(operation.codec)[0]
        self.route: tuple[Target, ...] = session.route(model, operation, how.fallback)
        session.check_options(self.route, options)
        session.plan(operation, 0, lambda: iter(()), self.route, how.policy)  # a price that max_cost needs and nobody knows
        self.accessor = accessor
        self.how = replace(how, model=model)

    @property
    def names(self) -> list[str]:
        return [target.name for target in self.route]

    def estimate(self, asking: Asking, table: Any, *, stored: bool = True) -> Estimate:
        """What these questions would cost; as if none were stored, or as it is."""
        operation, arguments = asking
        policy = self.how.policy if stored else replace(self.how.policy, cache="off")
        shape = ColumnShape(pd.RangeIndex(len(table)), operation.kind)
        made: Estimate = self.accessor._run(operation, table, arguments, shape, replace(self.how, policy=policy, dry_run=True))
        return made


class Work(Protocol):
    """What one operator does: it knows what it will ask before it begins."""

    name: str
    #: The models that are asked, in the order of the stages; empty where nobody is.
    targets: list[str]
    #: Questions in all, and what is said of them beside the bar.
    expected: int
    said: str

    def steps(self, procedure: Procedure[Any]) -> Any: ...

    def estimate(self) -> Estimate: ...


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
    other : (int, Index), optional
        The first question that is about rows of another frame, and that frame's index; then a column ``side`` tells which one it is.
    """

    def __init__(
        self, index: pd.Index[Any], rows_of: Sequence[Sequence[int]], kind: str, name: str, other: tuple[int, pd.Index[Any]] | None = None
    ) -> None:
        super().__init__(pd.RangeIndex(len(rows_of)), kind, name)
        self._indexes = index, index if other is None else other[1]
        self._first_of_other = len(rows_of) if other is None else other[0]
        self._two = other is not None
        self._rows_of = rows_of

    def result(self, run: Run[Any]) -> Any:
        """As it is, not as a column: pandas would make NaN of what is missing among texts."""
        return self.column(run.outcomes)

    def errors(self, run: Run[Any]) -> pd.DataFrame:
        lines = super().errors(run)
        sides = [int(question >= self._first_of_other) for question in lines["row"]]
        lines["row"] = [list(self._rows_of[question]) for question in lines["row"]]
        lines["side"] = sides
        lines = lines.explode("row", ignore_index=True).astype({"row": "int64"})
        lines["index"] = [self._indexes[side][row] for side, row in zip(lines["side"], lines["row"], strict=True)]
        lines["side"] = [("left", "right")[side] for side in lines["side"]]
        return lines if self._two else lines.drop(columns="side")


class AskedForVectors(Asked, Remembering):
    """The same, of vectors."""

    def result(self, run: Run[Any]) -> Any:
        return Remembering.result(self, run)


class Stages:
    """Asks for one procedure, stage by stage, within what is left of its budget.

    Parameters
    ----------
    procedure : Procedure
    index : Index
        Of the frame that it is about.
    """

    def __init__(self, procedure: Procedure[Any], index: pd.Index[Any]) -> None:
        self._procedure = procedure
        self._index = index
        # Rounds are many and some of them small: that none of three got an answer is told with all the others.
        procedure.each_tells = False
        self._noted: set[str] = set()
        self._example: LLMError | None = None
        #: The budget is spent: there are questions that nobody was asked.
        self.spent: BudgetReached | None = None

    def ask(self, asker: Asker, asking: Asking, questions: Sequence[str], rows_of: Sequence[Sequence[int]], step: str) -> list[Any]:
        """The answers, ``None`` where there is none.

        Raises
        ------
        LLMError
            Why nobody can be asked any more.
        """
        shape = Asked(self._index, rows_of, "object", step)
        answers: list[Any] = list(self._made(asker, asking, Questions.of(questions), shape))
        return answers

    def embed(
        self,
        asker: Asker,
        texts: Sequence[str],
        rows_of: Sequence[Sequence[int]],
        other: tuple[int, pd.Index[Any]] | None = None,
        dimensions: int | None = None,
    ) -> npt.NDArray[np.float32]:
        """The vectors, of length one; NaN where there is none."""
        shape = AskedForVectors(self._index, rows_of, "vector", "embed", other)
        shape.session = asker.accessor._session
        column = self._made(asker, EMBEDDING if dimensions is None else of_length(dimensions), text_table(texts), shape)
        if column.isna().all():
            return np.full((len(texts), 1), np.nan, dtype=np.float32)
        matrix = matrix_of(column)
        lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
        return np.asarray(matrix / np.where(lengths == 0, 1.0, lengths), dtype=np.float32)

    def failed(self, said: str) -> None:
        """Have it told at the end what became of what failed, with one of the reasons."""
        example = "" if self._example is None else f", e.g. {self._example}"
        self.note(f"{said}{example}. llmkit.last().errors() has them all")

    def note(self, said: str) -> None:
        """Have this sentence told at the end, once."""
        if said not in self._noted:
            self._noted.add(said)
            self._procedure.note(said)

    def _made(self, asker: Asker, asking: Asking, table: Any, shape: Asked) -> Any:
        stopped = self._procedure.stopped
        if isinstance(stopped, Cancelled):
            raise stopped
        operation, arguments = asking
        policy = replace(asker.how.policy, max_cost=self._procedure.room())
        how = replace(asker.how, policy=policy, wait=False, show_progress=False, dry_run=False)
        run = asker.accessor._run(operation, table, arguments, shape, how)
        (made,) = self._procedure.follow(run, step=shape.name)
        for said in run.outcomes.notes:
            self.note(said)
        self._procedure.owed = max(self._procedure.owed, run.owed)
        errors, stopped = run.outcomes.errors, run.stopped
        if errors and self._example is None:
            self._example = errors[min(errors)]
        if isinstance(stopped, BudgetReached):
            if self.spent is None:
                self.note(f"{stopped}. What is answered is kept; with more, the same call sends only the rest")
            self.spent = stopped
        elif isinstance(stopped, LLMError):
            stopped.add_note("llmkit: what is answered is kept, and the same call again sends only the rest.")
            raise stopped
        return made


#: One vector for each text of ``text_table``.
EMBEDDING: Asking = (EMBED, {"on": "text", "options": {}})


def of_length(dimensions: int) -> Asking:
    """The same, of so many numbers."""
    return EMBED, {"on": "text", "options": {"dimensions": dimensions}}


def text_table(texts: Sequence[str]) -> FrameTable:
    """Texts as a table."""
    return FrameTable(pd.DataFrame({"text": pd.Series(list(texts), dtype=object)}))


def claim_of(frame: pd.DataFrame, said: Any, on: Any, what: str) -> tuple[str, list[Any], bool]:
    """(what is said to the model, the columns that are sent, whether all of them must be there).

    ``said`` names columns in braces, or ``on`` does. The text of a cell is never put into it.
    """
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
    seconds = [one.seconds for one in estimates]
    return Estimate(
        model=" + ".join(dict.fromkeys(one.model for one in estimates)),
        rows=rows,
        missing=missing,
        **summed(estimates),
        seconds=None if None in seconds else sum(second for second in seconds if second is not None),
        basis="; ".join(f"{one.requests:,} requests to {one.model}: {one.basis}" for one in estimates),
    )
