"""What ``df.llm.extract`` may be asked for beside the fields: evidence, votes and a second model's check, each a column a field.

A shape of columns knows nothing of them: what it is handed are answers that have these as fields too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic import BaseModel, Field, create_model

from ..errors import BadInput, LLMError
from ..operations.schemas import Fields
from ..outcomes import Outcomes
from ..run import Run
from ..types import Operation
from .columns import FrameTable
from .evidence import Cells, Grounded, Quoted, Span
from .voting import Sampled, collapsed, sampled

__all__ = ["VERDICTS", "Beside", "Extraction", "Verdict"]

#: What a judge may say of a value.
Verdict = Literal["correct", "wrong", "not in the text"]
VERDICTS: tuple[str, ...] = get_args(Verdict)

_SLICE = 1024


@dataclass(frozen=True, slots=True)
class Beside:
    """What is asked for beside the fields.

    Attributes
    ----------
    evidence : bool
        Where in the row's cells each value was read.
    votes : int
        Samples a row.
    check : bool
        Whether another model judges the values.
    """

    evidence: bool = False
    votes: int = 1
    check: bool = False

    def check_arguments(self, fields: Fields, temperature: Any) -> None:
        """Refuse what these fields, or this temperature, cannot be asked for.

        Raises
        ------
        BadInput
        """
        if not isinstance(self.evidence, bool):
            raise BadInput(f"evidence is True or False, not {self.evidence!r}")
        if not isinstance(self.votes, int) or isinstance(self.votes, bool) or self.votes < 1:
            raise BadInput(f"votes is a whole number of samples a row, not {self.votes!r}")
        if self.votes > 1 and temperature == 0:
            raise BadInput("votes with temperature=0 would count one answer several times; leave the temperature out, or set it above 0")
        if fields.kind == "records" and (self.votes > 1 or self.check):
            what = "votes" if self.votes > 1 else "check"
            raise BadInput(f"{what}= goes field by field, and a row of {fields.name} has any number of records; ask for one record a row")

    def asked(self, operation: Operation, table: FrameTable) -> tuple[Operation, Any]:
        """What is asked, of which table."""
        return (operation, table) if self.votes == 1 else (sampled(operation, self.votes), Sampled(table, self.votes))

    def any(self) -> bool:
        return self.evidence or self.votes > 1 or self.check

    def record(self, fields: Fields) -> Fields:
        """The fields as columns: one value a row becomes the field ``value``, since there is more to tell of it."""
        if self.any() and fields.kind == "value":
            return Fields(fields.name, "record", fields.model, fields.model)
        return fields

    def sent(self, fields: Fields) -> Fields:
        """What the model is asked for."""
        return Grounded(fields) if self.evidence else fields

    def shown(self, fields: Fields, reasons: bool = False) -> Fields:
        """What becomes columns: the fields, and what is told of each, with a judge's reasons where these are wanted too."""
        if not self.any():
            return fields
        record = fields.record
        assert record is not None
        kinds = {
            "evidence": (self.evidence, Span | None),
            "agreement": (self.votes > 1, float | None),
            "check": (self.check, Verdict | None),
            "check_reason": (self.check and reasons, str | None),
        }
        more: dict[str, Any] = {}
        for name, label in labels(record).items():
            for what, (wanted, kind) in kinds.items():
                if wanted:
                    more[f"{name}_{what}"] = (kind, Field(None, serialization_alias=f"{label}_{what}"))
        taken = [name for name in more if name in record.model_fields]
        if taken:
            raise BadInput(f"{fields.name} has a field {taken[0]!r}, and a column of that name is to tell of another; rename it")
        wide: type[BaseModel] = create_model(record.__name__, __base__=record, **more)
        if fields.kind == "records":
            inside: type[BaseModel] = create_model(fields.name, items=(list[wide], ...))  # type: ignore[valid-type]
            return Fields(fields.name, "records", inside, wide)
        return Fields(fields.name, "record", wide, wide)


def labels(record: type[BaseModel]) -> dict[str, str]:
    """The fields by the names that an answer has them under, and what their columns are called."""
    return {name: info.serialization_alias or info.alias or name for name, info in record.model_fields.items() if not info.exclude}


class Extraction:
    """How what was extracted looks to the caller: the columns of ``shape``, and ``run.view()`` and ``run.report()``.

    Parameters
    ----------
    shape : Columns
        Makes columns of answers.
    table : FrameTable
        That was asked about.
    columns : sequence
        Of the table, that were sent.
    fields : Fields
        Without what is told beside them.
    beside : Beside
    """

    def __init__(self, shape: Any, table: FrameTable, columns: Sequence[Any], fields: Fields, beside: Beside) -> None:
        self.shape = shape
        self.table = table
        self.columns = list(columns)
        self.fields = fields
        self.beside = beside
        #: What another model said of each row's values: by field a verdict and its reason.
        self.verdicts: Sequence[Mapping[str, tuple[str, str]] | None] = ()

    # --------------------------------------------------------------------------------------------------- what a shape is asked

    def result(self, run: Run[Any]) -> Any:
        return self.shape.result(self.seen(run))

    def errors(self, run: Run[Any]) -> Any:
        return self.shape.errors(self.in_rows(run))

    def first_error(self, run: Run[Any]) -> LLMError | None:
        """Why the first failed row did: one sample of several that failed is no failed row."""
        errors = self.in_rows(run).outcomes.errors
        return errors[min(errors)] if errors else None

    def history(self, run: Run[Any]) -> Any:
        return self.shape.history(run)

    def prepared(self, route: Sequence[Any], arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        prepared: Mapping[str, Any] = self.shape.prepared(route, arguments)
        return prepared

    def view(self, run: Run[Any], rows: int) -> Any:
        from .viewing import view_of

        return view_of(self, run, rows)

    def report(self, run: Run[Any], **also: Any) -> Any:
        from .reporting import report_of

        return report_of(self, run, **also)

    # ------------------------------------------------------------------------------------------------------------- answers

    @property
    def labels(self) -> dict[str, str]:
        """The fields by the names that an answer has them under, and what they are called."""
        return {"value": "value"} if self.fields.record is None else labels(self.fields.record)

    def records(self, run: Run[Any], rows: int | None = None) -> list[list[dict[str, Any]] | None]:
        """For each row, or the first so many, its answer's records with what is told of each field; ``None`` where it has no answer."""
        most = len(self.table) if rows is None else min(rows, len(self.table))
        return [self._records(answer) for answer in self.shape.answers(self.seen(run, most).outcomes)[:most]]

    def _records(self, answer: Any) -> list[dict[str, Any]] | None:
        if answer is None:
            return None
        if self.fields.kind == "value":
            return [{"value": answer}]
        return list(answer) if self.fields.kind == "records" else [answer]

    def in_rows(self, run: Run[Any]) -> Run[Any]:
        """The run as one that asked each row once."""
        return run if self.beside.votes == 1 else collapsed(run, len(self.table), self.beside.votes, list(self.labels))

    def seen(self, run: Run[Any], rows: int | None = None) -> Run[Any]:
        """The same, with answers that have what is told of each field as fields; with ``rows`` only those of the first so many rows."""
        run = self.in_rows(run)
        if not (self.beside.evidence or self.beside.check):
            return run
        seen = copy(run)
        seen.outcomes = _with_values(run.outcomes, self._told(), rows)
        return seen

    def texts(self, row: int) -> list[tuple[str, str]]:
        """The cells of a row that were sent."""
        return self._texts(row, row + 1)[0]

    def _texts(self, start: int, stop: int) -> list[list[tuple[str, str]]]:
        read = [self.table.texts(column, start, stop) for column in self.columns]
        return [
            [(str(column), cell) for column, cell in zip(self.columns, cells, strict=True) if cell is not None]
            for cells in zip(*read, strict=True)
        ]

    def _told(self) -> Callable[[int, Any], Any]:
        """``told(row, answer)``: the answer with evidence and verdicts; rows are asked for in their order."""
        page: tuple[int, list[list[tuple[str, str]]]] = (-1, [])

        def told(row: int, answer: Any) -> Any:
            nonlocal page
            cells: list[tuple[str, str]] = []
            if self.beside.evidence:
                if page[0] != row // _SLICE:
                    start = row - row % _SLICE
                    page = row // _SLICE, self._texts(start, min(start + _SLICE, len(self.table)))
                cells = page[1][row % _SLICE]
            looked_up = Cells(cells)
            if self.fields.kind == "records":
                return [self._wide(record, looked_up, None) for record in answer]
            return self._wide(answer, looked_up, self.verdicts[row] if row < len(self.verdicts) else None)

        return told

    def _wide(self, record: dict[str, Any], cells: Cells, verdicts: Mapping[str, tuple[str, str]] | None) -> dict[str, Any]:
        wide = dict(record)
        quotes = record.quotes if isinstance(record, Quoted) else {}
        for name in self.labels:
            if self.beside.evidence:
                wide[f"{name}_evidence"] = None if record.get(name) is None else cells.span(quotes.get(name))
            if self.beside.check:
                wide[f"{name}_check"], wide[f"{name}_check_reason"] = (verdicts or {}).get(name, (None, None))
        return wide


def _with_values(outcomes: Outcomes, told: Callable[[int, Any], Any], rows: int | None) -> Outcomes:
    """The same outcomes with other values, told by the first row of each task; with ``rows`` only those of the first so many rows."""
    made = copy(outcomes)
    # While the run goes on, rows are still being given tasks: those that come from here on are not seen, since they have no value here.
    made.task_of_row = outcomes.task_of_row.copy()
    values: list[Any] = [None] * len(outcomes.values)
    known: set[int] = set()
    for row, task in enumerate(made.task_of_row[:rows].tolist()):
        if task >= 0 and task not in known:
            known.add(task)
            answer = outcomes.value(task)
            values[task] = None if answer is None else told(row, answer)
    made.values = values
    return made
