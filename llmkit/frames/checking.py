"""``check=``: what one model read out of the text, another judges, field by field."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd
from pydantic import BaseModel, Field
from pydantic_core import to_jsonable_python

from ..errors import BudgetReached, ConfigError
from ..operations.schemas import Fields
from ..run import Run
from ..types import Operation
from .calling import Accessor, How
from .evidence import named_model
from .extract_accessor import Extracting
from .extraction import Extraction, Verdict, labels
from .procedure import Procedure

__all__ = ["Checked", "checked_by"]


class Checked(Procedure[Any]):
    """An extraction and its check as one run."""

    def __init__(self, *args: Any, shape: Extraction, **options: Any) -> None:
        super().__init__(*args, **options)
        self._extraction = shape

    def view(self, rows: int = 50) -> Any:
        return self._extraction.view(self._first(), rows)

    def report(self) -> Any:
        return self._extraction.report(self._first(), cost=self.cost)

    def _first(self) -> Run[Any]:
        if not self.runs:
            raise ConfigError("nothing was extracted yet")
        return self.runs[0][1]


def checked_by(
    accessor: Accessor, check: Any, operation: Operation, table: Any, arguments: Mapping[str, Any], shape: Extraction, how: How
) -> Any:
    """Extract, have ``check`` judge what was extracted, and make columns of both; see ``Accessor._run``."""
    session = accessor._session
    judge = session.route(check, operation)  # an unknown model or a missing key shows before anything is paid
    if how.dry_run or not len(table):
        found = accessor._run(operation, table, arguments, shape, how)
        if how.dry_run:
            return replace(found, basis=f"{found.basis}; one request a row by {judge[0].name}, to check it, comes on top")
        return found
    model = how.model if how.model is not None else session.chosen(operation.codec)[0]
    route = session.route(model, operation, how.fallback, how.context_fallback, how.content_fallback)
    operation.tasks(table, **arguments)  # so do arguments that are none
    session.check_options(route, arguments.get("options") or {})
    inside = replace(how, model=model, wait=False, show_progress=False, policy=replace(how.policy, on_error="keep"))

    def steps(procedure: Procedure[Any]) -> Any:
        first = accessor._run(operation, table, arguments, shape, inside)
        procedure.so_far = lambda: shape.result(first)
        procedure.follow(first, step="extract")
        if first.stopped is None:
            shape.verdicts = _verdicts(accessor, check, procedure, first, shape, how)
        elif not isinstance(first.stopped, BudgetReached):
            return None  # the procedure says why
        else:
            procedure.note(f"{first.stopped}. What was extracted is kept, and nothing was checked")
        return shape.result(first)

    procedure = Checked(
        session,
        operation.name,
        [target.name for target in (*route, *judge)],
        steps,
        rows=len(table) + len(shape.table),
        max_cost=how.policy.max_cost,
        on_error=how.policy.on_error,
        show_progress=how.show_progress,
        shape=shape,
    )
    return procedure.start().finish(how.wait)


def _verdicts(
    accessor: Accessor, check: Any, procedure: Procedure[Any], first: Run[Any], shape: Extraction, how: How
) -> list[dict[str, tuple[str, str]] | None]:
    """By row and field, a verdict and its reason."""
    fields = shape.fields
    assert fields.record is not None
    frame = _frame_of(first, shape)
    policy = how.policy
    judging = Extracting(accessor._session)
    judging._frame = frame
    second = judging.extract(
        _judgement(fields),
        on=list(frame.columns),
        prompt=_prompt(fields),
        model=check,
        cache=policy.cache,
        timeout=policy.timeout,
        max_attempts=policy.max_attempts,
        max_concurrency=policy.max_concurrency,
        max_cost=procedure.room(),
        prefer=policy.prefer,
        show_progress=False,
        wait=False,
    )
    procedure.follow(second, step="check")
    if second.stopped is not None:
        procedure.note(f"what was extracted is kept; not all of it was checked: {second.stopped}")
    said = second.outcomes
    answers = [said.value(task) if task >= 0 else None for task in said.task_of_row.tolist()]
    names = list(labels(fields.record))
    return [
        None
        if answer is None
        else {name: (judged["verdict"], judged["reason"]) for name, judged in zip(names, answer.values(), strict=True)}
        for answer in answers
    ]


def _frame_of(run: Run[Any], shape: Extraction) -> pd.DataFrame:
    """For each row that was answered its text and what was read out of it; the others are missing, and are not asked about."""
    records = [None if found is None else found[0] for found in shape.records(run)]
    columns: dict[str, list[str | None]] = {}
    for column in shape.columns:
        cells = shape.table.texts(column, 0, len(records))
        columns[_free(str(column), columns)] = [None if record is None else cell for cell, record in zip(cells, records, strict=True)]
    assert shape.fields.record is not None
    model = shape.fields.record
    columns[_free("extracted", columns)] = [None if record is None else _as_json(model, record) for record in records]
    return pd.DataFrame(columns, dtype=object)


def _free(name: str, taken: Collection[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _as_json(record: type[BaseModel], value: Mapping[str, Any]) -> str:
    values = {label: to_jsonable_python(value.get(name), fallback=str) for name, label in labels(record).items()}
    return json.dumps(values, ensure_ascii=False)


class Judged(BaseModel):
    """What is to be said of one value."""

    reason: str = Field(description="Why, in a few words.")
    verdict: Verdict


def _judgement(fields: Fields) -> Fields:
    assert fields.record is not None
    made = named_model("Judgement", labels(fields.record).values(), Judged, about="What is to be said of each field.")
    return Fields("Judgement", "record", made, made)


def _prompt(fields: Fields) -> str:
    assert fields.record is not None
    described = {label: fields.record.model_fields[name].description for name, label in labels(fields.record).items()}
    lines = [f"- {label}{': ' + text if text else ''}" for label, text in described.items()]
    about = (fields.model.__doc__ or "").strip()
    return "\n".join(
        [
            'Somebody filled in fields from a text. Judge each value by the text alone: "correct" where the text says it, "wrong" where '
            'the text says otherwise, "not in the text" where it says nothing of it. A null is correct where the text does not say it, and '
            "wrong where it does. The last of the tagged parts holds the values.",
            *([about] if about else []),
            "The fields:",
            *lines,
        ]
    )
