"""``votes=``: each row is asked several times in one run, and each field is what most of the answers say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import orjson

from ..outcomes import CACHE, FAILED, LIVE, MISSING, PENDING, UNSEEN, Outcomes
from ..run import Run
from ..types import Operation, Table, Task
from .calling import sample_of
from .evidence import Quoted

__all__ = ["Sampled", "agreement_of", "collapsed", "sampled"]


class Sampled:
    """A table each of whose rows stands for so many samples: sample ``s`` of row ``r`` is row ``r * votes + s``."""

    def __init__(self, table: Any, votes: int) -> None:
        self.table = table
        self.votes = votes
        self.columns = table.columns

    def __len__(self) -> int:
        return len(self.table) * self.votes


def sampled(operation: Operation, votes: int) -> Operation:
    """The operation on a ``Sampled`` table: every task so many times, each with an answer of its own in the store."""

    def tasks(table: Any, **arguments: Any) -> Iterator[Task]:
        # Two steps, so that arguments are checked before the first task is drawn.
        return _each(operation.tasks(_bare(table), **arguments), votes)

    return replace(operation, tasks=tasks)


def _bare(table: Any) -> Table:
    bare: Table = table.table
    return bare


def _each(tasks: Iterator[Task], votes: int) -> Iterator[Task]:
    for task in tasks:
        for sample in range(votes):
            yield Task(tuple(row * votes + sample for row in task.rows), sample_of(task.request, sample))


# --------------------------------------------------------------------------------------------------------------- counting


def agreement_of(name: str) -> str:
    return f"{name}_agreement"


def collapsed(run: Run[Any], rows: int, votes: int, names: Sequence[str]) -> Run[Any]:
    """The run as one that asked each row once: what most of the samples said, and of a row all of whose samples failed, why the first did.

    What the samples used and cost is added up.
    """
    outcomes = run.outcomes
    tasks = outcomes.task_of_row.tolist()
    made = Outcomes(rows)
    numbers: dict[tuple[int, ...], int] = {}
    for row in range(rows):
        samples = tuple(task for task in tasks[row * votes : (row + 1) * votes] if task >= 0)
        if not samples:
            made.task_of_row[row] = UNSEEN if UNSEEN in tasks[row * votes : (row + 1) * votes] else MISSING
            continue
        number = numbers.get(samples)
        if number is None:
            number = numbers[samples] = _one(run, made, samples, len(samples) < votes, names)
        made.task_of_row[row] = number
    made.stopped = outcomes.stopped
    made.history, made.notes = outcomes.history, outcomes.notes
    seen = copy(run)
    seen.outcomes = made
    return seen


def _one(run: Run[Any], made: Outcomes, samples: tuple[int, ...], unfinished: bool, names: Sequence[str]) -> int:
    outcomes = run.outcomes
    number = made.add(outcomes.keys[samples[0]])
    said = [task for task in samples if outcomes.value(task) is not None]
    states = {outcomes.state[task] for task in said}
    if said:
        made.state[number] = LIVE if states - {CACHE} else CACHE
        made.values[number] = _majority([outcomes.value(task) for task in said], names)
        if finish := outcomes.finish.get(said[0]):
            made.finish[number] = finish
    elif unfinished or any(outcomes.state[task] == PENDING for task in samples):
        made.state[number] = PENDING
    else:
        made.state[number] = FAILED
        made.errors[number] = outcomes.errors[samples[0]]
    made.target[number] = outcomes.target[(said or samples)[0]]
    made.attempts[number] = min(65535, sum(outcomes.attempts[task] for task in samples))
    made.seconds[number] = max(outcomes.seconds[task] for task in samples)
    made.queued[number] = max(outcomes.queued[task] for task in samples)
    for column in ("input", "cached_input", "output"):
        getattr(made, column)[number] = sum(getattr(outcomes, column)[task] for task in samples)
    costs = [run.cost_of(task) for task in samples]
    made.costs[number] = None if None in costs else sum(cost for cost in costs if cost is not None)
    if lost := sum(outcomes.lost.get(task, 0) for task in samples):
        made.lost[number] = lost
    return number


def _majority(answers: Sequence[dict[str, Any]], names: Sequence[str]) -> Quoted:
    """Field by field the value that most answers have, the earlier one of equals, with the quote of the first that has it."""
    data, quotes = dict(answers[0]), {}
    for name in names:
        marks = [_mark(answer.get(name)) for answer in answers]
        counts = {mark: marks.count(mark) for mark in marks}  # in the order of the samples
        first = marks.index(max(counts, key=counts.__getitem__))
        data[name] = answers[first].get(name)
        data[agreement_of(name)] = counts[marks[first]] / len(answers)
        quotes[name] = getattr(answers[first], "quotes", {}).get(name)
    return Quoted(data, quotes)


def _mark(value: Any) -> bytes:
    """Equal for equal values, also nested ones; ``True`` is not 1."""
    return orjson.dumps(value, default=repr, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
