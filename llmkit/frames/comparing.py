"""``llmkit.compare``: the same rows through several models in one run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any

import numpy as np
import pandas as pd

from ..errors import BadInput, BudgetReached, ConfigError
from ..operations.template import Template
from ..run import Run
from ..session import Session, default
from ..types import Estimate, Operation, Table, Task
from . import arguments as checked
from .arguments import Cache, OnError
from .calling import How, sample_of
from .columns import one_column
from .comparison import Asked, Comparison, Truth
from .estimates import summed
from .pandas_accessor import FrameAccessor
from .procedure import Procedure
from .scoring import Mask, missing

__all__ = ["Comparison", "Estimates", "compare"]

#: What may be said of one model alone, of a prompt and of a schema.
_OF_BOTH = (
    "prompt", "system", "temperature", "max_tokens", "seed", "examples", "prompt_cache", "fallback", "timeout", "max_attempts",
    "max_concurrency",
)  # fmt: skip
_OF_SCHEMAS = ("instructions", "mode", "max_reask", "more_tokens")


@dataclass(frozen=True, slots=True, repr=False)
class Estimates(Estimate):
    """What a comparison would do, all models together; ``models`` has the ``Estimate`` of each."""

    models: Mapping[str, Estimate] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [
            f"  {label}: {one.requests:,} requests, {'cost unknown' if one.cost is None else f'${one.cost:,.4f}'}"
            for label, one in self.models.items()
        ]
        return "\n".join([Estimate.__str__(self), *lines])


def compare(
    df: pd.DataFrame,
    ask: Any,
    models: Any,
    *,
    on: Any = None,
    truth: Any = None,
    score: Callable[[Any, Any], float] | None = None,
    limit: int | None = 50,
    repeats: int = 1,
    prompt: str | None = None,
    instructions: str | None = None,
    system: str | None = None,
    temperature: float | None = None,
    max_tokens: int | None = None,
    seed: int | None = None,
    examples: Any = None,
    cache: Cache = "use",
    on_error: OnError = "keep",
    max_cost: float | None = None,
    dry_run: bool = False,
    show_progress: bool = True,
    wait: bool = True,
    stream: bool = False,
    timeout: float = 180.0,
    max_attempts: int = 5,
    max_concurrency: int = 64,
) -> Any:
    """Ask several models the same of the same rows, side by side in one run, and see who says what, how well, how fast and for how much.

    Parameters
    ----------
    df : DataFrame
    ask : str or schema
        A prompt, as ``df.llm.chat`` takes it, or a schema, as ``df.llm.extract`` takes it.
    models : list or mapping
        Models as ``model=`` takes them, or ``{label: model}``. In the place of a model there may be ``(model, {keyword: value})`` with what
        is said of this one alone: ``{"plain": "openai/gpt-5-mini", "strict": ("openai/gpt-5-mini", {"temperature": 0})}``; ``prompt`` is
        such a keyword too.
    on : column or list of columns, optional
        What the models are given as data.
    truth : column, list or mapping, optional
        The column with the right answers. For a schema ``{field: column}``, a list of columns named like fields, or one column of dicts.
        A row without any truth is not counted; where a row has some, a missing one says that there is nothing, and a missing answer is
        right.
    score : callable, optional
        ``score(answer, truth) -> float`` a row, for answers that can be better or worse; for a schema both are dicts by field.
    limit : int, optional
        Only the first so many rows; ``None`` takes all.
    repeats : int
        Answers a row and model: ``frame``, agreement and accuracy are of the first, times, tokens and dollars of all, and ``steadiness``
        says how often two of them are the same.
    prompt, instructions : str, optional
        Beside a schema, as ``df.llm.extract`` takes them.
    max_cost : float, optional
        US dollars for all models together. Each gets a share by what it is estimated to cost, so that all get about as far; what one
        leaves over goes to those that were stopped (with ``cache="use"``).
    on_error : {"keep", "raise"}
        A model that fails leaves the others whole: its answers are missing and its line says why; or the call raises once all is kept.
    dry_run : bool
        Send nothing and return the estimates: an ``Estimate`` of all together, with one for each model in ``models``.
    wait : bool
        ``False`` returns the run at once; ``run.partial()`` is the comparison so far, and ``run.runs`` has (label, run) of each model
        and sample, whose ``cell(row)`` tells of one row.
    stream : bool
        Ask for the answers of a prompt in pieces, of models that write them so: ``cell(row)`` then has what was said so far, and when it
        began. The answers, and what they cost, are the same.
    max_concurrency : int
        Most requests in flight to one model.
    system, temperature, max_tokens, seed, examples, cache, show_progress, timeout, max_attempts
        As in ``df.llm.chat``.

    Returns
    -------
    Comparison
        ``frame``, ``models``, ``fields``, ``pairwise``, ``disagreements()``, ``errors()`` and ``plot()``. The same call again sends nothing
        and gives the same but for the times.

    Raises
    ------
    ConfigError
        Before anything is sent: an unknown model, column or field, a missing key, a truth that the models would be shown.

    Examples
    --------
    >>> import pandas as pd, llmkit
    >>> df = pd.DataFrame({"text": ["late", "broken"], "topic": ["delivery", "quality"]})
    >>> found = llmkit.compare(df, "{text}", {"a": "echo/echo", "b": ("echo/echo", {"prompt": "Say {text}"})}, show_progress=False)
    >>> found.frame.loc[1].tolist()
    ['[echo, not a model] broken', '[echo, not a model] Say broken']
    >>> found.models[["answered", "agreement"]].values.tolist()
    [[2, 0.0], [2, 0.0]]
    >>> llmkit.compare(df, "{text}", ["echo/echo"], truth="topic", show_progress=False).models["accuracy"].item()
    0.0
    """
    session = default()
    if not isinstance(df, pd.DataFrame):
        raise BadInput(f"compare takes a DataFrame first, not {type(df).__name__}")
    if isinstance(repeats, bool) or not isinstance(repeats, int) or repeats < 1:
        raise ConfigError(f"repeats is a whole number of answers a row and model, not {repeats!r}")
    if score is not None and (truth is None or not callable(score)):
        raise BadInput("score=function goes with truth=: it is called with an answer and its truth")
    policy = checked.policy(cache, on_error, max_cost, timeout, max_attempts, max_concurrency)
    schema = not isinstance(ask, str)
    if not schema and (prompt is not None or instructions is not None):
        raise BadInput("prompt and instructions go with a schema; here the prompt is the second argument")
    length = checked.limit(limit)
    rows = df.copy(deep=False) if length is None else df.iloc[:length]
    said = {
        "on": on, "prompt": prompt if schema else ask, "system": system, "temperature": temperature, "max_tokens": max_tokens, "seed": seed,
        "examples": examples, "timeout": timeout, "max_attempts": max_attempts, "max_concurrency": max_concurrency, "cache": cache,
        "show_progress": False,
    }  # fmt: skip
    if schema:
        said["instructions"] = instructions
    asked = _asked(session, models, schema)
    if truth is not None and any(one.label == "truth" for one in asked):
        raise BadInput('a model cannot be called "truth" beside truth=; give it another label')
    caller = _Caller(session, rows, ask if schema else None, said, stream)
    names = caller.fields()
    read = caller.read(asked)
    known = None if truth is None else _truth(rows, truth, names, read, score)
    # Whatever is wrong with a call shows here, for every model, before one of them is sent anything.
    full = dry_run or max_cost is not None
    estimates = {one.label: caller.estimate(one, rows if full else rows.iloc[:1], max_cost) for one in asked}
    if dry_run:
        return _together(estimates, repeats)

    def steps(procedure: Procedure[Comparison]) -> Comparison:
        shares = _shares(estimates, max_cost, repeats)
        caller.start(procedure, asked, shares, repeats)
        procedure.so_far = lambda: Comparison(rows, asked, read, known, ended=False)
        started = [(one, runs[0]) for one in asked for runs in one.samples]
        procedure.follow(*(run for _, run in started), steps=[one.label for one, _ in started])
        if cache == "use" and max_cost is not None:
            caller.go_on(procedure, asked)
        return Comparison(rows, asked, read, known)

    procedure = Procedure(
        session,
        "compare",
        [one.name for one in asked],
        steps,
        rows=len(rows) * len(asked) * repeats,
        max_cost=policy.max_cost,
        on_error=on_error,
        show_progress=show_progress,
    )
    return procedure.start().finish(wait)


# -------------------------------------------------------------------------------------------------------------- who is asked


def _asked(session: Session, models: Any, schema: bool) -> list[Asked]:
    if isinstance(models, str):
        models = [models]
    if not isinstance(models, Mapping | list | tuple) or not models:
        raise BadInput('models is a list, e.g. ["openai/gpt-5-mini", "anthropic/claude-haiku-4-5"], or a mapping of label to model')
    entries = [(str(label), one) for label, one in models.items()] if isinstance(models, Mapping) else [("", one) for one in models]
    found: list[Asked] = []
    for label, entry in entries:
        model, options = entry, {}
        if isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[1], Mapping):
            model, options = entry[0], dict(entry[1])
        for name in options:
            _check_option(name, schema)
        route = session.route(model, "chat", options.get("fallback"))
        name = " > ".join(target.name for target in route)
        found.append(Asked(label or (model if isinstance(model, str) else name), model, name, options))
    labels = [one.label for one in found]
    twice = [label for label in labels if labels.count(label) > 1]
    if twice:
        raise BadInput(
            f'{twice[0]!r} is there twice; give each a label: {{"plain": {twice[0]!r}, "strict": ({twice[0]!r}, {{"temperature": 0}})}}'
        )
    return found


def _check_option(name: Any, schema: bool) -> None:
    known = (*_OF_BOTH, *_OF_SCHEMAS) if schema else _OF_BOTH
    if name not in known:
        near = get_close_matches(str(name), known, 1)
        raise ConfigError(
            f"nothing is known of {name!r} for one model; " + (f"did you mean {near[0]!r}?" if near else f"there is {', '.join(known)}")
        )


class _Sample(FrameAccessor):
    """Asks for one more answer than there are: each sample is stored apart."""

    number = 0
    streamed = False

    def _run(self, operation: Operation, table: Table, arguments: Mapping[str, Any], shape: Any, how: How) -> Any:
        if self.streamed:
            how = replace(how, policy=replace(how.policy, streamed=True))
        if self.number:
            tasks = operation.tasks
            operation = replace(operation, tasks=lambda table, **given: self._numbered(tasks(table, **given)))
        return super()._run(operation, table, arguments, shape, how)

    def _numbered(self, tasks: Iterator[Task]) -> Iterator[Task]:
        return (Task(task.rows, sample_of(task.request, self.number)) for task in tasks)


class _Caller:
    """Asks one model after another the same."""

    def __init__(self, session: Session, rows: pd.DataFrame, schema: Any, said: Mapping[str, Any], streamed: bool) -> None:
        self.session = session
        self.streamed = streamed
        self.rows = rows
        self.schema = schema
        self.said = said

    def fields(self) -> list[str]:
        """What the answers have: what a call on no rows, which nobody is asked about, has."""
        if self.schema is None:
            return ["value"]
        prompt = self.said["prompt"]
        made = FrameAccessor(self.rows.iloc[:0], self.session).extract(self.schema, on=self.said["on"], prompt=prompt, show_progress=False)
        return ["value"] if isinstance(made, pd.Series) else list(made.columns)

    def read(self, asked: Sequence[Asked]) -> list[Any]:
        """The columns that models are shown."""
        if self.said["on"] is not None:
            return checked.columns(self.said["on"])
        prompts = [one.options.get("prompt", self.said["prompt"]) for one in asked]
        return list(dict.fromkeys(name for text in prompts if text for name in Template(text, list(self.rows.columns)).columns))

    def call(self, one: Asked, rows: pd.DataFrame, sample: int = 0, **more: Any) -> Any:
        accessor = _Sample(rows, self.session)
        accessor.number, accessor.streamed = sample, self.streamed
        given = {**self.said, **one.options, "model": one.model, **more}
        return accessor.chat(**given) if self.schema is None else accessor.extract(self.schema, **given)

    def estimate(self, one: Asked, rows: pd.DataFrame, max_cost: float | None) -> Estimate:
        made: Estimate = self.call(one, rows, dry_run=True, max_cost=max_cost)
        return made

    def start(self, procedure: Procedure[Any], asked: Sequence[Asked], shares: Mapping[str, float | None], repeats: int) -> None:
        try:
            for one in asked:
                for sample in range(repeats):
                    one.samples.append([self.call(one, self.rows, sample, wait=False, max_cost=shares[one.label])])
        except BaseException:
            for run in (runs[0] for one in asked for runs in one.samples):
                run.cancel()
            raise

    def go_on(self, procedure: Procedure[Any], asked: Sequence[Asked]) -> None:
        """What some models left of their share of the dollars goes to those that were stopped at theirs, one after another."""
        for one in asked:
            for sample, runs in enumerate(one.samples):
                room = procedure.room()
                if isinstance(runs[-1].stopped, BudgetReached) and room:
                    again: Run[Any] = self.call(one, self.rows, sample, wait=False, max_cost=room)
                    procedure.follow(again, step=one.label, instead_of=runs[-1])
                    runs.append(again)


def _shares(estimates: Mapping[str, Estimate], max_cost: float | None, repeats: int) -> dict[str, float | None]:
    """US dollars for each run."""
    if max_cost is None:
        return dict.fromkeys(estimates)
    costs = {label: one.cost or 0.0 for label, one in estimates.items()}
    total = sum(costs.values())
    return {label: max_cost if not total or not cost else max_cost * cost / total / repeats for label, cost in costs.items()}


def _together(estimates: Mapping[str, Estimate], repeats: int) -> Estimates:
    each = {
        label: replace(
            one,
            requests=one.requests * repeats,
            input_tokens=one.input_tokens * repeats,
            output_tokens=one.output_tokens * repeats,
            cost=None if one.cost is None else one.cost * repeats,
            seconds=None if one.seconds is None else one.seconds * repeats,
        )
        for label, one in estimates.items()
    }
    all_of = list(each.values())
    seconds = [one.seconds for one in all_of]
    return Estimates(
        model=f"{len(all_of)} models",
        rows=sum(one.rows for one in all_of),
        missing=sum(one.missing for one in all_of),
        **summed(all_of),
        seconds=None if None in seconds else max(one for one in seconds if one is not None),
        basis="; ".join(dict.fromkeys(one.basis for one in all_of)),
        models=each,
    )


# --------------------------------------------------------------------------------------------------------------------- truth


def _truth(rows: pd.DataFrame, given: Any, names: Sequence[str], read: Sequence[Any], score: Callable[[Any, Any], float] | None) -> Truth:
    columns = _columns_of_truth(rows, given, names)
    shown = [column for column in columns.values() if column in read]
    if shown:
        raise BadInput(f"the models would be shown the truth: column {shown[0]!r} is part of what they are asked")
    if len(columns) == 1 and None in columns:
        return _truth_of_records(one_column(rows, columns[None]), names, score)  # type: ignore[index]
    values: dict[str, Sequence[Any]] = {str(name): one_column(rows, column).tolist() for name, column in columns.items()}
    some: Mask = np.array([any(not missing(value) for value in row) for row in zip(*values.values(), strict=True)], dtype=bool)
    return Truth(values, dict.fromkeys(values, some), score)


def _columns_of_truth(rows: pd.DataFrame, given: Any, names: Sequence[str]) -> dict[str | None, Any]:
    """Field to column; ``None`` stands for all fields where one column has them as dicts."""
    if isinstance(given, Mapping):
        columns: dict[str | None, Any] = dict(given)
    elif isinstance(given, list):
        columns = {str(column): column for column in given}
    else:
        cells = one_column(rows, given).dropna()
        if names == ["value"] or (len(names) == 1 and not _holds_fields(cells.iloc[0] if len(cells) else None)):
            columns = {names[0]: given}
        elif given in names and not (len(cells) and _holds_fields(cells.iloc[0])):
            columns = {given: given}
        elif len(cells) and not _holds_fields(cells.iloc[0]):
            raise BadInput(f"which field is column {given!r} the truth of? Say it: truth={{{names[0]!r}: {given!r}}}")
        else:
            columns = {None: given}
    unknown = [name for name in columns if name is not None and name not in names]
    if unknown or not columns:
        what = f"there is no field {unknown[0]!r}" if unknown else "truth names no column"
        raise BadInput(f"{what}; the fields are {', '.join(map(repr, names))}")
    return columns


def _holds_fields(cell: Any) -> bool:
    return isinstance(cell, Mapping) or hasattr(cell, "model_dump")


def _truth_of_records(column: pd.Series[Any], names: Sequence[str], score: Callable[[Any, Any], float] | None) -> Truth:
    cells = [cell.model_dump() if hasattr(cell, "model_dump") else None if missing(cell) else cell for cell in column.tolist()]
    odd = next((cell for cell in cells if cell is not None and not isinstance(cell, Mapping)), None)
    if odd is not None:
        raise BadInput(f"column {column.name!r} holds dicts by field, and a {type(odd).__name__} among them")
    values = {name: [None if cell is None else cell.get(name) for cell in cells] for name in names}
    known: dict[str, Mask] = {name: np.array([cell is not None and name in cell for cell in cells], dtype=bool) for name in names}
    return Truth(values, known, score)
