"""What a comparison of models found: the answers side by side, a line a model, a line a field, and a figure."""

from __future__ import annotations

import html
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..errors import BadInput, BudgetReached, Cancelled
from ..outcomes import LIVE, MISSING
from ..run import Run
from .columns import TEXT
from .scoring import (
    Kind,
    Mask,
    agreeing,
    codes_of,
    errors_of,
    kind_of,
    macro,
    mark,
    marker,
    missing,
    numerically,
    pairs,
    ratio,
    slots,
    wilson,
)

__all__ = ["Asked", "Comparison", "Truth"]

#: Of more different truths than these, or of more than every second row has, a text is no label.
_CLASSES = 20

_NAN = float("nan")


@dataclass
class Asked:
    """One model of a comparison, and what it was asked.

    Attributes
    ----------
    label : str
        What the comparison calls it.
    model : Any
        What ``model=`` takes.
    name : str
        The models behind it, as the catalogue calls them.
    options : mapping
        Of this model alone.
    samples : list of lists of Run
        For each sample the runs that asked for it; each holds what those before it found.
    """

    label: str
    model: Any
    name: str
    options: Mapping[str, Any]
    samples: list[list[Run[Any]]] = field(default_factory=list)

    @property
    def last(self) -> list[Run[Any]]:
        """For each sample the run that has all of its answers."""
        return [runs[-1] for runs in self.samples]


@dataclass(frozen=True)
class Truth:
    """What is known to be right: for each field its truths, and the rows in which they are known."""

    values: Mapping[str, Sequence[Any]]
    known: Mapping[str, Mask]
    score: Callable[[Any, Any], float] | None = None


class _Answered:
    """What a run that asked for one answer a row has by now."""

    def __init__(self, run: Run[Any], rows: int, ended: bool) -> None:
        made = run.partial()
        self.answers: pd.DataFrame = made.to_frame("value") if isinstance(made, pd.Series) else made
        outcomes = run.outcomes
        tasks = np.full(rows, MISSING, dtype=np.intp)
        tasks[: len(outcomes.task_of_row)] = outcomes.task_of_row
        state = np.array(outcomes.state[: max(1, len(outcomes))], dtype=np.int8)
        settled = np.where(tasks >= 0, state[tasks.clip(0)], 0) if len(outcomes) else np.zeros(rows, dtype=np.int8)
        self.answered: Mask = (settled > 0) & (settled < 4)
        # A model that was refused has failed in all rows; what was not sent to save dollars, or not sent yet, says nothing of it.
        spared = not ended or isinstance(run.stopped, BudgetReached | Cancelled)
        #: Rows that count: those that hold something to ask, and were not spared it.
        self.counted: Mask = settled > 0 if spared else tasks != MISSING
        self._marks: dict[str, list[Hashable]] = {}

    def marks(self, name: str) -> list[Hashable]:
        if name not in self._marks:
            self._marks[name] = [mark(value) for value in self.answers[name].tolist()]
        return self._marks[name]


class Comparison:
    """The same rows through several models, as ``llmkit.compare`` hands it back.

    Attributes
    ----------
    frame : DataFrame
        The answers: the rows and the index of the frame that was asked about, a column level ``model`` and one ``field`` (``"value"``
        where one row is one value). Failed rows are missing. With a truth, that is the last of the first level.
    models : DataFrame
        A line a model:

        - ``route``, its full name and those that stand in for it; ``rows`` that hold something to ask, ``answered``, ``stored`` (taken
          from the cache), ``errors``; ``stopped``, why it was refused as a whole
        - ``agreement`` with the majority: the answer that most models gave, two at the least; ``pairwise``, its mean with each other
          model. Rows that another model answered too count, field by field
        - ``p50_seconds``, ``p90_seconds`` from the first attempt to the answer, ``queue_p50_seconds``, ``queue_p90_seconds`` before it,
          in which the row waited for its turn; stored answers have no time
        - ``input_tokens``, ``output_tokens``, ``tokens_per_second`` (written, while a row was served)
        - ``cost`` in US dollars of these answers whenever they were paid, ``billed`` by this run, ``cost_per_1000`` different rows;
          missing where the price is unknown
        - with a truth ``accuracy``, of all fields together, and for a schema ``exact_rows``, those with every field right: failed rows
          count as wrong. With ``score=`` its mean, 0 for failed rows
        - with ``repeats`` ``steadiness``: how often two answers of a model to one row are the same
    fields : DataFrame
        A line a model and field: ``kind`` (how values are compared), ``filled`` (answers that say something), ``agreement``; with a truth
        ``known`` rows, ``accuracy``, ``exact`` (texts to the letter), ``precision``, ``recall`` and ``f1`` (labels: the mean over those
        that occur in the truth; all else: of values that were said, and were there to be said), ``mean_absolute_error`` and
        ``root_mean_squared_error``.
    pairwise : DataFrame
        How often each two models said the same, of the values that both answered.

    Notes
    -----
    Texts are the same but for case and blanks, numbers to nine digits, lists and nested models by their parts.
    """

    def __init__(
        self, rows: pd.DataFrame, asked: Sequence[Asked], read: Sequence[Any], truth: Truth | None = None, *, ended: bool = True
    ) -> None:
        self._rows = rows
        self._read = list(dict.fromkeys(read))
        self._asked = asked
        self._truth = truth
        self._ended = ended
        self._labels = [one.label for one in asked]
        self._samples = [[_Answered(run, len(rows), ended) for run in one.last] for one in asked]
        self._first = [samples[0] for samples in self._samples]
        self._names: list[str] = list(self._first[0].answers.columns)
        self._kinds: dict[str, Kind] = {name: self._kind(name) for name in self._names}
        self._codes = {
            name: codes_of([one.marks(name) for one in self._first], [one.answered for one in self._first]) for name in self._names
        }
        self._right: list[dict[str, Mask]] = []
        self.frame = self._frame()
        self.pairwise = self._pairwise()
        self.fields = self._fields()
        self.models = self._models(ended)

    # ------------------------------------------------------------------------------------------------------------- tables

    def _kind(self, name: str) -> Kind:
        kind = kind_of(self._first[0].answers[name].dtype)
        if kind == "text" and self._truth is not None and name in self._truth.values:
            truths = [mark(value) for value, known in zip(self._truth.values[name], self._truth.known[name], strict=True) if known]
            if truths and len(set(truths)) <= min(_CLASSES, max(2, len(truths) // 2)):
                return "category"
        return kind

    def _frame(self) -> pd.DataFrame:
        columns = {
            (label, name): one.answers[name].array for label, one in zip(self._labels, self._first, strict=True) for name in self._names
        }
        if self._truth is not None:
            columns |= {("truth", name): pd.Series(values).array for name, values in self._truth.values.items()}
        frame = pd.DataFrame(dict(enumerate(columns.values())), index=self._rows.index)
        frame.columns = pd.MultiIndex.from_tuples(list(columns), names=["model", "field"])
        return frame

    def _pairwise(self) -> pd.DataFrame:
        width = len(self._labels)
        both, same = np.zeros((width, width)), np.zeros((width, width))
        for codes in self._codes.values():
            met, alike = pairs(codes)
            both += met
            same += alike
        index = pd.Index(self._labels, name="model")
        return pd.DataFrame(_over(same, both), index=index, columns=index.rename("with"))

    def _fields(self) -> pd.DataFrame:
        lines = []
        for place, one in enumerate(self._first):
            rights: dict[str, Mask] = {}
            for name in self._names:
                agrees, asked = agreeing(self._codes[name])
                line: dict[str, Any] = {"model": self._labels[place], "field": name, "kind": self._kinds[name]}
                said = sum(1 for value, there in zip(one.marks(name), one.answered, strict=True) if there and value is not None)
                line["filled"] = ratio(said, int(one.answered.sum()))
                line["agreement"] = ratio(int(agrees[:, place].sum()), int(asked[:, place].sum()))
                if self._truth is not None:
                    line |= self._against_truth(one, name, rights)
                lines.append(line)
            self._right.append(rights)
        made = pd.DataFrame(lines).set_index(["model", "field"])
        made["kind"] = made["kind"].astype(TEXT)
        return made

    def _against_truth(self, one: _Answered, name: str, rights: dict[str, Mask]) -> dict[str, Any]:
        assert self._truth is not None
        if name not in self._truth.values:
            return {"known": 0}
        counts = self._truth.known[name] & one.counted
        read = marker(one.answers[name].dtype)
        places: list[int] = np.flatnonzero(counts).tolist()
        values = [self._truth.values[name][place] for place in places]
        truths = [read(value) for value in values]
        marks = one.marks(name)
        said, answered = [marks[place] for place in places], one.answered[places]
        kind = self._kinds[name]
        if isinstance(one.answers[name].dtype, pd.StringDtype):
            said = [numerically(other) if isinstance(truth, float) else other for truth, other in zip(truths, said, strict=True)]
        right = np.zeros(len(counts), dtype=bool)
        right[places] = [there and other == truth for truth, other, there in zip(truths, said, answered, strict=True)]
        rights[name] = right
        found: dict[str, Any] = {"known": len(places), "accuracy": ratio(int(right.sum()), len(places))}
        cells = one.answers[name].tolist()
        exact = sum(1 for place, value in zip(places, values, strict=True) if one.answered[place] and _to_the_letter(cells[place], value))
        found["exact"] = ratio(exact, len(places)) if kind == "text" or isinstance(one.answers[name].dtype, pd.StringDtype) else _NAN
        found |= (macro if kind == "category" else slots)(truths, said, answered)._asdict()
        away = errors_of(truths, said, answered) if kind == "number" else (_NAN, _NAN)
        return found | {"mean_absolute_error": away[0], "root_mean_squared_error": away[1]}

    def _models(self, ended: bool) -> pd.DataFrame:
        made = pd.DataFrame([self._line(place, ended) for place in range(len(self._labels))], index=pd.Index(self._labels, name="model"))
        made["stopped"] = made.pop("stopped").astype(TEXT)  # comes last
        made["route"] = made["route"].astype(TEXT)
        for name in ("rows", "answered", "stored", "errors", "input_tokens", "output_tokens"):
            made[name] = made[name].astype("Int64")  # one by one: together they take four times as long, and panels count every second
        return made

    def _line(self, place: int, ended: bool) -> dict[str, Any]:
        asked, samples, first = self._asked[place], self._samples[place], self._first[place]
        runs = asked.last
        counted = sum(int(one.counted.sum()) for one in samples)
        answered = sum(int((one.answered & one.counted).sum()) for one in samples)
        stopped = next((run.stopped for run in runs if run.stopped is not None), None)
        line: dict[str, Any] = {
            "route": asked.name,
            "rows": counted,
            "answered": answered,
            "stored": sum(run.outcomes.rows_stored for _, run in _firsts(asked)),
            "errors": counted - answered,
            "stopped": None if stopped is None or not ended else str(stopped),
            "agreement": self._agreement(place),
            "pairwise": float(pd.Series(np.delete(self.pairwise.to_numpy()[place], place)).mean()),
            **_times(asked),
            **_costs(asked),
        }
        if len(samples) > 1:
            line["steadiness"] = _steadiness(samples, self._names)
        if self._truth is not None:
            rights = self._right[place]
            known = {name: self._truth.known[name] & first.counted for name in rights}
            line["accuracy"] = ratio(sum(int(one.sum()) for one in rights.values()), sum(int(one.sum()) for one in known.values()))
            if self._names != ["value"]:
                rows = np.logical_or.reduce(list(known.values())) if known else np.zeros(len(self._rows), dtype=bool)
                wrong = [known[name] & ~right for name, right in rights.items()]
                all_right = rows & ~np.logical_or.reduce(wrong) if wrong else rows
                line["exact_rows"] = ratio(int(all_right.sum()), int(rows.sum()))
            if self._truth.score is not None and ended:
                line["score"] = self._scored(first, self._truth)
        return line

    def _agreement(self, place: int) -> float:
        same = asked = 0
        for codes in self._codes.values():
            agrees, where = agreeing(codes)
            same += int(agrees[:, place].sum())
            asked += int(where[:, place].sum())
        return ratio(same, asked)

    def _scored(self, one: _Answered, truth: Truth) -> float:
        assert truth.score is not None
        known = np.logical_or.reduce([truth.known[name] for name in truth.values]) & one.counted
        alone = self._names == ["value"]
        cells = {name: one.answers[name].tolist() for name in self._names}
        total = 0.0
        for row in np.flatnonzero(known).tolist():
            if one.answered[row]:
                said = {name: None if missing(values[row]) else values[row] for name, values in cells.items()}
                right = {name: values[row] for name, values in truth.values.items()}
                total += float(truth.score(said["value"], right["value"]) if alone else truth.score(said, right))
        return ratio(total, int(known.sum()))

    # ------------------------------------------------------------------------------------------------------------ looking

    def beside(self, *others: Comparison) -> Comparison:
        """This comparison and others of the same rows as one: nothing is asked, and all is counted anew.

        A model that is in several of them, by its label, has the answers of the last; its times are those of all.

        Examples
        --------
        >>> import pandas as pd, llmkit
        >>> df = pd.DataFrame({"text": ["late", "broken"]})
        >>> one = llmkit.compare(df, "{text}", {"a": "echo/echo"}, show_progress=False)
        >>> other = llmkit.compare(df, "{text}", {"b": "echo/echo"}, show_progress=False)
        >>> one.beside(other).models["agreement"].tolist()
        [1.0, 1.0]
        """
        asked: dict[str, Asked] = {}
        for made in (self, *others):
            if not made._rows.index.equals(self._rows.index) or made._names != self._names:
                raise BadInput("only comparisons of the same rows, with the same fields, stand beside one another")
            for one in made._asked:
                before = asked[one.label].samples if one.label in asked else []
                none: list[Run[Any]] = []
                samples = [[*earlier, *now] for earlier, now in zip_longest(before, one.samples, fillvalue=none)]
                asked[one.label] = replace(one, samples=samples)
        read = [name for made in (self, *others) for name in made._read]
        truth = next((made._truth for made in (self, *others) if made._truth is not None), None)
        return Comparison(self._rows, list(asked.values()), read, truth, ended=all(made._ended for made in (self, *others)))

    def disagreements(self) -> pd.DataFrame:
        """The rows in which two models that answered differ in some field: what they were asked about, under ``"asked"``, and ``frame``."""
        differ = np.zeros(len(self._rows), dtype=bool)
        for codes in self._codes.values():
            there = codes >= 0
            low = np.where(there, codes, np.iinfo(np.intp).max).min(axis=1, initial=np.iinfo(np.intp).max)
            differ |= there.any(axis=1) & (codes.max(axis=1, initial=-1) != low)
        asked = self._rows[self._read].copy(deep=False)
        asked.columns = pd.MultiIndex.from_tuples([("asked", str(name)) for name in self._read], names=["model", "field"])
        asked.index = self.frame.index
        return pd.concat([asked, self.frame], axis=1)[differ]

    def errors(self) -> pd.DataFrame:
        """The rows that failed and why: ``model`` (as the comparison calls it), ``row``, ``index``, ``kind``, ``error``, ``attempts``."""
        found = [run.errors().assign(model=one.label) for one in self._asked for run in one.last]
        filled = [frame for frame in found if len(frame)] or found[:1]
        made: pd.DataFrame = pd.concat(filled, ignore_index=True)
        return made[["model", *(name for name in made.columns if name != "model")]].drop_duplicates(ignore_index=True)

    @property
    def quality(self) -> str:
        """The column of ``models`` that says how good a model is: ``score``, else ``accuracy``, else ``agreement``."""
        return next(name for name in ("score", "accuracy", "agreement") if name in self.models.columns)

    def __repr__(self) -> str:
        head, *body = self._texts()
        widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True))]).rstrip()
            for row in (head, *body)
        ]
        return "\n".join([self._title(), *lines, *(f"{label}: {why}" for label, why in self._stopped())])

    def _repr_html_(self) -> str:
        shown = _table(self._texts(), self._title())
        if len(self._names) > 1:
            measure = "accuracy" if self._truth is not None else "agreement"
            lines = [["", *self._names]]
            lines += [[label, *(_percent(self.fields.loc[(label, name), measure]) for name in self._names)] for label in self._labels]
            shown += _table(lines, f"{measure} by field")
        why = "".join(f"<div>{html.escape(label)}: {html.escape(why)}</div>" for label, why in self._stopped())
        return f'<div style="color:inherit;background:transparent">{shown}{why}</div>'

    def _title(self) -> str:
        count = len(self._rows)
        words = "model" if len(self._labels) == 1 else "models"
        return f"{count:,} {'row' if count == 1 else 'rows'} through {len(self._labels)} {words}"

    def _stopped(self) -> Iterator[tuple[str, str]]:
        return ((str(label), str(why)) for label, why in self.models["stopped"].dropna().items())

    def _texts(self) -> list[list[str]]:
        models = self.models
        columns: dict[str, list[str]] = {"": self._labels}
        columns["answered"] = [f"{done:,} of {rows:,}" for done, rows in zip(models["answered"], models["rows"], strict=True)]
        shares = {
            "score": "score",
            "accuracy": "accuracy",
            "exact_rows": "rows right",
            "agreement": "agreement",
            "steadiness": "steadiness",
        }
        for name, title in shares.items():
            if name in models.columns:
                columns[title] = [_number(value, ".3f") if name == "score" else _percent(value) for value in models[name]]
        for name, title in (("p50_seconds", "p50 s"), ("p90_seconds", "p90 s"), ("queue_p50_seconds", "queue p50 s")):
            columns[title] = [_number(value, ".2f") for value in models[name]]
        for name, title in (("input_tokens", "input tokens"), ("output_tokens", "output tokens"), ("tokens_per_second", "tokens/s")):
            columns[title] = [_number(value, ",.0f") for value in models[name]]
        for name, title in (("cost", "cost"), ("cost_per_1000", "per 1,000 rows")):
            columns[title] = [_dollars(value) for value in models[name]]
        return [list(columns), *(list(row) for row in zip(*columns.values(), strict=True))]

    # ------------------------------------------------------------------------------------------------------------- figure

    def plot(self, against: str = "cost") -> Any:
        """Quality against what it costs, a point a model.

        Quality is the mean score, else the accuracy (with the bounds that chance leaves it, 95 times in 100, where a row has one answer),
        else the agreement with the majority. The grey line joins the models that no other beats in both.

        Parameters
        ----------
        against : {"cost", "seconds", "tokens"}
            US dollars per 1,000 rows, seconds to an answer (median), or tokens a row. Models of which it is unknown are named below.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        MissingExtra
            matplotlib is not installed.
        """
        from .comparison_plot import draw

        models = self.models
        tokens = (models["input_tokens"] + models["output_tokens"]) / models["answered"].where(models["answered"] > 0)
        sides = {
            "cost": (models["cost_per_1000"], "US dollars per 1,000 rows"),
            "seconds": (models["p50_seconds"], "seconds to an answer (median, queue not counted)"),
            "tokens": (tokens, "tokens a row, read and written"),
        }
        if against not in sides:
            raise BadInput(f'against is "cost", "seconds" or "tokens", not {against!r}')
        at = np.asarray(sides[against][0].astype("Float64").to_numpy(dtype="float64", na_value=np.nan), dtype=np.float64)
        heights = np.asarray(models[self.quality], dtype=np.float64)
        bounds = None
        if self.quality == "accuracy" and self._names == ["value"]:
            counts = self.fields["known"].tolist()
            bounds = [wilson(height, count) for height, count in zip(heights, counts, strict=True)]
        words = {"score": "mean score", "accuracy": "accuracy", "agreement": "agreement with the majority"}
        return draw(self._labels, at, heights, bounds, sides[against][1], words[self.quality], self._title())


# ------------------------------------------------------------------------------------------------------------------- measures


def _to_the_letter(said: Any, truth: Any) -> bool:
    return missing(truth) if missing(said) else isinstance(truth, str) and said == truth


def _over(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def _firsts(asked: Asked) -> Iterator[tuple[int, Run[Any]]]:
    """The first run of each sample: what it took from the store was there before."""
    return ((number, runs[0]) for number, runs in enumerate(asked.samples))


def _times(asked: Asked) -> dict[str, float]:
    seconds: list[float] = []
    queued: list[float] = []
    written = 0
    for run in (run for runs in asked.samples for run in runs):
        outcomes = run.outcomes
        for task in np.flatnonzero(np.array(outcomes.state[: len(outcomes)]) == LIVE).tolist():
            seconds.append(outcomes.seconds[task])
            queued.append(outcomes.queued[task])
            written += outcomes.output[task]
    if not seconds:
        names = ("p50_seconds", "p90_seconds", "queue_p50_seconds", "queue_p90_seconds", "tokens_per_second")
        return dict.fromkeys(names, _NAN)
    return {
        "p50_seconds": float(np.percentile(seconds, 50)),
        "p90_seconds": float(np.percentile(seconds, 90)),
        "queue_p50_seconds": float(np.percentile(queued, 50)),
        "queue_p90_seconds": float(np.percentile(queued, 90)),
        "tokens_per_second": ratio(written, sum(seconds)),
    }


def _costs(asked: Asked) -> dict[str, float | int]:
    read = written = answers = 0
    costs: list[float | None] = []
    for run in asked.last:
        outcomes = run.outcomes
        states = np.array(outcomes.state[: len(outcomes)])
        for task in np.flatnonzero((states > 0) & (states < 4)).tolist():
            used = outcomes.used(task)
            read += used.input
            written += used.output
            costs.append(outcomes.cost_of(task, run.prices))
            answers += 1
    cost = sum(one for one in costs if one is not None) if None not in costs else None
    billed = [run.cost for runs in asked.samples for run in runs]
    return {
        "input_tokens": read,
        "output_tokens": written,
        "cost": _NAN if cost is None else cost,
        "cost_per_1000": _NAN if cost is None or not answers else 1000 * cost / answers,
        "billed": _NAN if None in billed else sum(one for one in billed if one is not None),
    }


def _steadiness(samples: Sequence[_Answered], names: Sequence[str]) -> float:
    same = both = 0
    for name in names:
        met, alike = pairs(codes_of([one.marks(name) for one in samples], [one.answered for one in samples]))
        both += int(met.sum() - np.trace(met))
        same += int(alike.sum() - np.trace(alike))
    return ratio(same, both)


# ---------------------------------------------------------------------------------------------------------------------- words


def _number(value: Any, form: str) -> str:
    return "" if missing(value) else format(float(value), form)


def _percent(value: Any) -> str:
    return "" if missing(value) else f"{100 * float(value):.1f} %"


def _dollars(value: Any) -> str:
    if missing(value):
        return "?"
    return f"${value:,.2f}" if value >= 1 or value == 0 else f"${value:.3g}"


_CELL = "padding:.25em .7em;border-bottom:1px solid rgba(128,128,128,.35);color:inherit;background:transparent"


def _table(lines: Sequence[Sequence[str]], title: str) -> str:
    """Static and escaped; colours are those of the page, light or dark."""
    head, *body = [[html.escape(text) for text in line] for line in lines]
    top = "".join(
        f'<th scope="col" style="{_CELL};text-align:{"left" if not place else "right"}">{text}</th>' for place, text in enumerate(head)
    )
    rows = "".join(
        f'<tr><th scope="row" style="{_CELL};text-align:left">{first}</th>'
        + "".join(f'<td style="{_CELL};text-align:right">{text}</td>' for text in rest)
        + "</tr>"
        for first, *rest in body
    )
    caption = f'<caption style="text-align:left;color:inherit">{html.escape(title)}</caption>'
    inside = f"{caption}<thead><tr>{top}</tr></thead><tbody>{rows}</tbody>"
    return f'<table style="border-collapse:collapse;color:inherit;background:transparent">{inside}</table>'
