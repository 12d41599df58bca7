"""The journal as frames: which runs there were, what they used and cost, how fast and how well they were answered.

Only counts, names of models and times are read; no prompt and no answer is.

Three facts of the journal shape what follows. A line of ``runs`` holds the truth about requests, tokens and cost, but for a whole route.
A line of ``outcomes`` holds one task that was sent, and which model it came to; answers out of the store have none, nor has a run with
``cache="off"``. A retry goes on counting where its run stopped, so what the lines before it hold is taken off.
"""

from __future__ import annotations

import html
import math
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from numbers import Number
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from . import event_loop
from .catalogue import BUILT_IN
from .errors import BadInput, MissingExtra
from .run import to_the_caller
from .session import Session, default
from .types import Price, Usage

__all__ = ["Report", "report", "runs", "usage"]

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[Any]

_TEXT: Any = "str" if int(pd.__version__.split(".")[0]) >= 3 else pd.StringDtype("pyarrow")
_TIME: Any = "datetime64[us, UTC]"

_BY = ("model", "provider", "operation", "day", "run")
_TOKENS = ["input", "cached_input", "output"]
_COUNTS = ["rows", "done", "errors", "stored", "requests", *_TOKENS]
_LINE = ["shard", "number", "id", "operation", "models", "started", "ended", *_COUNTS, "cost", "stopped"]
#: What a retry goes on counting from where its run stopped.
_GROWING = ["done", "stored", "requests", *_TOKENS, "cost"]
#: A part of a line: what one model of its route did.
_PART = ["answers", "errors", *_TOKENS, "billed"]
_OF_TOKENS = slice(2, 5)

#: Outcomes read at once: 25 ms of the thread that keeps the answers of running runs.
_PAGE = 20_000


def runs(limit: int | None = None, since: Any = None) -> pd.DataFrame:
    """Every run in the journal, of this process and of others that share its cache directory; newest first.

    Parameters
    ----------
    limit : int, optional
        Only the newest so many.
    since : datetime, str or timedelta, optional
        Only those begun at or after this moment (without a time zone: UTC), or so long ago at most.

    Returns
    -------
    DataFrame
        ``id`` (a retry is a line of its own: the run's with ``.2``), ``operation``, ``models`` (the route, ``a > b``), ``started`` (UTC),
        ``seconds``, ``rows``; ``done``, ``errors`` and ``stored`` (tasks: equal rows are one; ``stored`` are part of ``done``);
        ``requests``, ``input_tokens``, ``cached_input_tokens``, ``output_tokens`` and ``cost`` (US dollars) that were billed; ``stopped``
        (why it ended early); ``cache_hit_rate`` and ``error_rate`` (of done and errors). What is unknown is missing: the cost where a price
        is unknown; seconds, requests, stored and cost of a run that is still going or was killed.

    Examples
    --------
    >>> import pandas as pd
    >>> from llmkit.reports import runs
    >>> df = pd.DataFrame({"text": ["a", "b", "a"]})
    >>> _ = df.llm.chat("Say {text}", model="echo/echo", show_progress=False)
    >>> runs(limit=1)[["operation", "models", "rows", "done", "errors"]].values.tolist()
    [['chat', 'echo/echo', 3, 2, 0]]
    """
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 0):
        raise BadInput(f"limit is a number of runs, not {limit!r}")
    lines = _lines(default(), since)
    lines = lines.iloc[: len(lines) if limit is None else limit].reset_index(drop=True)
    parts, _ = _outcomes(default(), lines, lines["done"].isna())
    _complete(lines, parts)
    settled = lines["done"] + lines["errors"]
    return pd.DataFrame(
        {
            "id": lines["id"].astype(_TEXT),
            "operation": lines["operation"].astype(_TEXT),
            "models": lines["models"].astype(_TEXT),
            "started": lines["started"],
            "seconds": lines["ended"] - lines["began"],
            **{_named(name): _whole(lines[name]) for name in _COUNTS},
            "cost": lines["cost"],
            "stopped": lines["stopped"].astype(_TEXT),
            "cache_hit_rate": _share(lines["stored"], settled),
            "error_rate": _share(lines["errors"], settled),
        }
    )


def usage(by: str | Sequence[str] = "model", since: Any = None) -> pd.DataFrame:
    """What was used, added up; answers out of the store cost nothing and are counted as ``stored`` only.

    Parameters
    ----------
    by : {"model", "provider", "operation", "day", "run"} or a list of them
        What one row stands for. Days are UTC, and those on which runs began; a run and its retries are one.
    since : datetime, str or timedelta, optional
        Only runs begun at or after this moment (without a time zone: UTC), or so long ago at most.

    Returns
    -------
    DataFrame
        What was asked for in ``by``; ``requests``, ``rows``; ``answers`` that were paid, ``errors`` and ``stored`` (tasks: equal rows are
        one); ``input_tokens``, ``cached_input_tokens``, ``output_tokens``; ``cost`` in US dollars, missing where that of one run is
        unknown, and ``cost_at_least``, the sum of what is known; ``p50_seconds`` and ``p95_seconds`` from the first attempt at an answer to
        its coming; ``error_rate`` and ``cache_hit_rate`` (of all tasks), ``fallback_rate`` (paid answers that the first model of the route
        did not give), ``answers_per_request`` (how full batches were), ``unfinished`` (runs that are still going or were killed: their
        requests, stored answers and cost are unknown and in no sum).

    Notes
    -----
    The journal tells which model of a route answered, not the requests and dollars of each: those are missing by model where they do not
    follow from the whole. Rows and stored answers of a route are counted at its first model. An answer that came and could not be used
    is an answer of its model and an error of its run. A route whose journal holds no outcomes (``cache="off"``) is a row of its own,
    ``a > b``.

    Examples
    --------
    >>> import pandas as pd
    >>> from llmkit.reports import usage
    >>> df = pd.DataFrame({"text": ["c", "d", "c"]})
    >>> began = pd.Timestamp.now("UTC")
    >>> for _ in range(2):
    ...     _ = df.llm.chat("Say {text}", model="echo/echo", show_progress=False)
    >>> used = usage(by=["operation", "model"], since=began)
    >>> used[["operation", "model", "requests", "answers", "stored"]].values.tolist()
    [['chat', 'echo/echo', 2, 2, 2]]
    """
    names = [by] if isinstance(by, str) else list(by)
    if not names or len(set(names)) != len(names) or not set(names) <= set(_BY):
        raise BadInput(f"by is one or several of {', '.join(_BY)}, not {by!r}")
    return _read(default(), since).table(names)


def report(since: Any = None) -> Report:
    """The journal at a glance: a table by model, and figures over time.

    Parameters
    ----------
    since : datetime, str or timedelta, optional
        Only runs begun at or after this moment (without a time zone: UTC), or so long ago at most.

    Returns
    -------
    Report
        Shows itself as a table; ``plot()`` draws it, ``to_frame()`` hands it on.

    Examples
    --------
    >>> import llmkit
    >>> from llmkit.reports import report
    >>> _ = llmkit.chat("Hello", model="echo/echo")
    >>> said = report()
    >>> said.to_frame()["model"].tolist()
    ['echo/echo', 'total']
    """
    return Report(_read(default(), since))


class Report:
    """Usage by model with a total, as text, HTML, frame or figure; made by ``llmkit.report()``."""

    def __init__(self, journal: _Journal) -> None:
        self._journal = journal
        total = journal.table([])
        total.insert(0, "model", pd.Series(["total"], dtype=_TEXT))
        self._table = pd.concat([journal.table(["model"]), total], ignore_index=True)

    def to_frame(self) -> pd.DataFrame:
        """The table: the columns of ``llmkit.usage()``, its last row the total."""
        return self._table.copy()

    def __repr__(self) -> str:
        head, *body = self._texts()
        widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True))])
            for row in (head, *body)
        ]
        return "\n".join([self._title(), *(line.rstrip() for line in lines)])

    def _repr_html_(self) -> str:
        head, *body = [[html.escape(text) for text in row] for row in self._texts()]
        rows = "".join(f"<tr><th>{first}</th>{''.join(f'<td>{text}</td>' for text in rest)}</tr>" for first, *rest in body)
        top = "".join(f"<th>{text}</th>" for text in head)
        return f"<table><caption>{html.escape(self._title())}</caption><thead><tr>{top}</tr></thead><tbody>{rows}</tbody></table>"

    def _title(self) -> str:
        lines = self._journal.lines
        if not len(lines):
            return "llmkit: no runs"
        first, last = (f"{moment:%Y-%m-%d %H:%M}" for moment in (lines["started"].min(), lines["started"].max()))
        return f"llmkit: {lines['base'].nunique():,} runs begun from {first} to {last} UTC"

    def _texts(self) -> list[list[str]]:
        table = self._table
        costs = [_dollars(cost, least) for cost, least in zip(table["cost"], table["cost_at_least"], strict=True)]
        columns: dict[str, list[str]] = {
            "model": table["model"].tolist(),
            "requests": _said(table["requests"], ","),
            "answers": _said(table["answers"], ","),
            "stored": _said(table["stored"], ","),
            "errors": _said(table["errors"], ","),
            "input tokens": _said(table["input_tokens"], ","),
            "output tokens": _said(table["output_tokens"], ","),
            "cost": costs,
            "p50 s": _said(table["p50_seconds"], ",.2f"),
            "p95 s": _said(table["p95_seconds"], ",.2f"),
            "errors %": _said(100 * table["error_rate"], ".1f"),
            "cache hits %": _said(100 * table["cache_hit_rate"], ".1f"),
            "fallback %": _said(100 * table["fallback_rate"], ".1f"),
        }
        return [list(columns), *(list(row) for row in zip(*columns.values(), strict=True))]

    def plot(self) -> Any:
        """Requests, tokens and dollars, seconds to an answer, and the rates of errors and cache hits, over time.

        Returns
        -------
        matplotlib.figure.Figure
            A point a day; an hour or a minute where the runs lie within three days or two hours.

        Raises
        ------
        MissingExtra
            matplotlib is not installed.
        """
        try:
            from matplotlib import pyplot
        except ImportError:
            raise MissingExtra("plots need the package matplotlib: pip install 'llmkit[plot]'") from None
        unit, over_time = self._journal.over_time()
        figure, ((requests, tokens), (seconds, rates)) = pyplot.subplots(2, 2, figsize=(10, 6), sharex=True, layout="constrained")
        # pyplot's own list would keep it for ever, and a notebook would show it twice.
        pyplot.close(figure)
        _draw(requests, over_time, f"Requests per {unit}", {"requests": "requests"})
        _draw(tokens, over_time, f"Tokens and dollars per {unit}", {"input_tokens": "input", "output_tokens": "output"})
        dollars = tokens.twinx()
        _draw(dollars, over_time, "", {"cost_at_least": "dollars (where known)"}, color="tab:green")
        dollars.set_ylabel("US dollars")
        dollars.legend(loc="upper right")
        _draw(seconds, over_time, "Seconds to an answer", {"p50_seconds": "half within", "p95_seconds": "95 % within"})
        _draw(rates, over_time, "Rates", {"error_rate": "errors", "cache_hit_rate": "cache hits", "fallback_rate": "fallbacks"})
        rates.set_ylim(-0.02, 1.3)
        for axes in (seconds, rates):
            axes.set_xlabel("UTC")
        figure.autofmt_xdate()
        return figure


def _draw(axes: Any, over_time: pd.DataFrame, title: str, columns: dict[str, str], **style: Any) -> None:
    for name, label in columns.items():
        axes.plot(over_time["when"].to_numpy(), over_time[name].to_numpy(dtype=float, na_value=np.nan), "o-", label=label, **style)
    if title:
        axes.set_title(title)
    highest = over_time[list(columns)].to_numpy(dtype=float, na_value=np.nan)
    highest = highest[np.isfinite(highest)]
    axes.set_ylim(0, 1.4 * (highest.max(initial=0.0) or 1.0))  # room for the legend
    axes.legend(loc="upper left")


def _said(values: pd.Series[Any], form: str) -> list[str]:
    return ["?" if pd.isna(value) else format(value, form) for value in values]


def _dollars(cost: float, least: float) -> str:
    if cost == cost:
        return f"${cost:,.4f}"
    return f"at least ${least:,.4f}" if least > 0 else "?"


# ------------------------------------------------------------------------------------------------------------ reading


def _read(session: Session, since: Any) -> _Journal:
    lines = _lines(session, since)
    parts, answers = _outcomes(session, lines, pd.Series(True, lines.index))
    _complete(lines, parts)
    return _Journal(session, lines, parts, answers)


def _in_store(session: Session, look: Callable[..., Any], *args: Any) -> Any:
    """``look(store, *args)``, ``None`` where nothing can be kept."""
    writer = session.engine.writer
    return None if writer is None else event_loop.call(writer.read, lambda store: look(store, *args))


def _lines(session: Session, since: Any) -> pd.DataFrame:
    """The lines of ``runs``, newest first, each with what it alone used."""
    begin = _moment(since)
    found, unread = _in_store(session, lambda store: store.journal()) or ([], [])
    for name in unread:
        _warn(f"the journal {name} in the llmkit cache cannot be read by this version of llmkit, or is damaged; its runs are not counted")
    lines = pd.DataFrame(found, columns=_LINE, dtype=object)
    for name in ("started", "ended", "cost", *_COUNTS):
        lines[name] = pd.to_numeric(lines[name], errors="coerce").astype("float64")
    for name in ("id", "operation", "models"):
        lines[name] = [text if isinstance(text, str) else "" for text in lines[name]]
    lines["began"] = lines["started"]
    lines["started"] = pd.to_datetime(lines["began"], unit="s", utc=True).astype(_TIME)
    lines["base"], lines["begun"] = _begun(lines["id"])
    lines["route"] = [tuple(models.split(" > ")) for models in lines["models"]]
    _take_off_what_was_before(lines)
    lines = lines[lines["began"] >= begin]
    return lines.sort_values(["began", "begun"], ascending=False, kind="stable").reset_index(drop=True)


def _begun(ids: Iterable[str]) -> tuple[list[str], list[int]]:
    """A line's run and how often that had begun: ``x.2`` is the first retry of ``x``."""
    split = [name.partition(".") for name in ids]
    return [base for base, _, _ in split], [int(again) if again.isdigit() else 1 for _, _, again in split]


def _take_off_what_was_before(lines: pd.DataFrame) -> None:
    place = {(base, begun): at for at, (base, begun) in enumerate(zip(lines["base"], lines["begun"], strict=True))}
    again = [(at, place[base, begun - 1]) for (base, begun), at in place.items() if begun > 1 and (base, begun - 1) in place]
    if not again:
        return
    later, before = (np.array(places) for places in zip(*again, strict=True))
    for name in _GROWING:
        total = lines[name].to_numpy()
        own = total.copy()
        own[later] = total[later] - total[before]
        lines[name] = own


def _outcomes(session: Session, lines: pd.DataFrame, wanted: pd.Series[bool]) -> tuple[_Parts, _Answers]:
    """What the outcomes of these lines come to: sums by model, and the seconds of each live answer."""
    parts: _Parts = defaultdict(dict)
    models: dict[str, int] = {}
    pieces: list[tuple[Codes, Codes, Floats]] = []
    for shard, some in lines[wanted].groupby("shard"):
        at: dict[int, int] = dict(zip(some["number"].tolist(), some.index.tolist(), strict=True))
        after: tuple[int, int] | None = (min(at), -1)
        while after is not None:
            page = _in_store(session, lambda store, *args: store.outcomes(*args), shard, after, max(at), _PAGE)
            if page is None:
                _warn(f"the journal {shard} in the llmkit cache could not be read to its end; its runs are counted in part")
                break
            for run, model, *counts in page.sums:
                if run in at:
                    # A page ends anywhere in a run: what stands in the next one is added.
                    known = parts[at[run]].setdefault(model or "", np.zeros(len(_PART)))
                    known += counts
            if page.seconds:
                numbers, names, seconds = zip(*page.seconds, strict=True)
                line = np.array([at.get(number, -1) for number in numbers])
                code = np.array([models.setdefault(name or "", len(models)) for name in names])
                pieces.append((line[line >= 0], code[line >= 0], np.array(seconds, dtype=float)[line >= 0]))
            after = page.end
    joined = [np.concatenate(column) for column in zip(*pieces, strict=True)] if pieces else [np.array([], int)] * 2 + [np.array([])]
    return parts, _Answers(list(models), *joined)


def _complete(lines: pd.DataFrame, parts: _Parts) -> None:
    """Fill in what is known of a run without a summary (it is going on, or was killed): what its outcomes come to."""
    lines["unfinished"] = lines["done"].isna()
    for line in np.flatnonzero(lines["unfinished"]):
        sums = sum(parts.get(int(line), {}).values(), np.zeros(len(_PART)))
        lines.loc[line, ["done", "errors", *_TOKENS]] = sums[:-1]


def _costs(session: Session, cost: float, parts: dict[str, Floats]) -> dict[str, float]:
    """US dollars by model, where tokens at today's prices come to exactly what the run cost; else nobody knows (searches, written prompt
    caches, prices by length, prices that changed since)."""
    billed = {model: Usage(*(int(count) for count in sums[_OF_TOKENS])) for model, sums in parts.items() if sums[_OF_TOKENS].any()}
    found = {model: used.cost(_price(session, model)) for model, used in billed.items()}
    known = {model: dollars for model, dollars in found.items() if dollars is not None}
    explained = len(known) == len(found) and math.isclose(sum(known.values()), cost, rel_tol=1e-6)
    return known if explained else {}


def _price(session: Session, model: str) -> Price:
    provider, _, name = model.partition("/")
    if provider in BUILT_IN:
        return Price(0.0, 0.0, 0.0)
    return session.catalogue.model(provider, name).price


def _moment(since: Any) -> float:
    if since is None:
        return -math.inf
    try:
        if isinstance(since, Number):
            raise TypeError
        if isinstance(since, timedelta):
            return float((pd.Timestamp.now("UTC") - since).timestamp())
        moment = pd.Timestamp(since)
        return float((moment.tz_localize("UTC") if moment.tzinfo is None else moment).timestamp())
    except (TypeError, ValueError, OverflowError):
        raise BadInput(f'since is a moment such as "2026-11-01" (UTC) or a timedelta, not {since!r}') from None


def _warn(text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=to_the_caller())


# --------------------------------------------------------------------------------------------------------- adding up


#: By line and model: the sums of ``_PART``.
_Parts = dict[int, dict[str, Floats]]


@dataclass(frozen=True)
class _Answers:
    """Live answers in columns: their line, model (a place in ``names``) and seconds."""

    names: list[str]
    line: Codes
    model: Codes
    seconds: Floats


class _Journal:
    """What was read, and the one way in which it is added up."""

    def __init__(self, session: Session, lines: pd.DataFrame, parts: _Parts, answers: _Answers) -> None:
        self._session = session
        self.lines = lines
        self._parts = parts
        self._answers = answers
        self._routes: list[tuple[str, ...]] = lines["route"].tolist()

    def over_time(self) -> tuple[str, pd.DataFrame]:
        """The unit of time that suits the span of the runs, and the usage in each."""
        started = self.lines["started"]
        span = started.max() - started.min() if len(started) else timedelta()
        unit, name = ("min", "minute") if span < timedelta(hours=2) else ("h", "hour") if span < timedelta(days=3) else ("D", "day")
        return name, self.table(["when"], unit)

    def table(self, by: Sequence[str], unit: str = "D") -> pd.DataFrame:
        """Usage by these; without any, one row of everything."""
        cells = self._cells(bool({"model", "provider"} & set(by)))
        pairs, of_pair, away = self._pairs()
        keys = pd.concat([self._keys(cells["line"], cells["model"], by, unit), self._keys(*pairs, by, unit)], ignore_index=True)
        if by:
            groups = keys.groupby(list(by), sort=True)
            codes = groups.ngroup().to_numpy()
            table = keys.assign(group=codes).drop_duplicates("group").sort_values("group").drop(columns="group").reset_index(drop=True)
        else:
            codes, table = np.zeros(len(keys), dtype=int), pd.DataFrame(index=range(1))
        of_cell, of_answer = codes[: len(cells)], codes[len(cells) :][of_pair]
        size = len(table)
        total = {name: _summed(of_cell, cells[name].to_numpy(dtype=float), size) for name in cells.columns[2:]}
        for name in ("requests", "rows", "answers", "errors", "stored", *_TOKENS):
            table[_named(name)] = _whole(pd.Series(total[name]))
        table["cost"], table["cost_at_least"] = total["cost"], total["known_cost"]
        table["p50_seconds"], table["p95_seconds"] = _percentiles(of_answer, self._answers.seconds, size, (0.5, 0.95))
        settled = total["answers"] + total["errors"] + total["stored"]
        table["error_rate"] = _share(total["errors"], settled)
        table["cache_hit_rate"] = _share(total["stored"], settled)
        table["fallback_rate"] = _share(_summed(of_answer, away, size), np.bincount(of_answer, minlength=size))
        table["answers_per_request"] = _share(total["finished_answers"], total["requests"])
        table["unfinished"] = _whole(pd.Series(total["unfinished"]))
        return table

    def _cells(self, by_model: bool) -> pd.DataFrame:
        """What is added up: a line, or a part of one."""
        lines = self.lines
        split = np.array([by_model and len(route) > 1 for route in self._routes], dtype=bool)
        whole = pd.DataFrame(
            {
                "line": np.arange(len(lines)),
                "model": lines["models"],
                # A retry is for rows that were counted.
                "rows": lines["rows"].where(lines["begun"] == 1, 0.0),
                "stored": lines["stored"].where(~lines["unfinished"], 0.0),
                "answers": lines["done"] - lines["stored"].fillna(0.0),
                "errors": lines["errors"],
                "requests": lines["requests"].where(~lines["unfinished"], 0.0),
                **{name: lines[name] for name in _TOKENS},
                # Where nothing was sent, nothing was paid, whatever it would have cost.
                "cost": lines["cost"].mask(lines["requests"] == 0, 0.0),
                "unfinished": lines["unfinished"].astype(float),
            }
        )
        pieces = [cell for line in whole[split].to_dict("records") for cell in self._pieces(line)]
        cells = pd.concat([whole[~split], pd.DataFrame(pieces, columns=whole.columns)], ignore_index=True) if pieces else whole
        cells["finished_answers"] = cells["answers"].where(cells["unfinished"] == 0, 0.0)
        cells["known_cost"] = cells["cost"].fillna(0.0)
        return cells

    def _pieces(self, whole: dict[Any, Any]) -> list[dict[str, Any]]:
        """What each model of the line's route did. What no outcome tells stays with the route as a whole."""
        line = whole["line"]
        parts = {model: dict(zip(_PART, sums, strict=True)) for model, sums in self._parts.get(line, {}).items() if model}
        paid = [model for model, part in parts.items() if part["answers"] or part["input"] or part["output"]]
        left = {name: whole[name] - sum(part[name] for part in parts.values()) for name in _PART[:-1]}
        # An answer that was kept and then could not be used is an answer of its model, though an error of its run.
        unused = max(0.0, -left["answers"])
        left["errors"] -= unused
        left = {name: max(0.0, count) for name, count in left.items()}
        first = self._routes[line][0]
        nothing = dict.fromkeys((*_PART, "rows", "stored", "requests", "cost", "unfinished"), 0.0)
        cells = {model: {**nothing, **part} for model, part in parts.items()}
        if any(left.values()):
            paid.append(whole["model"])
            cells[whole["model"]] = {**nothing, **left}
        home = cells.setdefault(first, dict(nothing))
        home["rows"], home["stored"], home["unfinished"] = whole["rows"], whole["stored"], whole["unfinished"]
        if len(paid) <= 1:
            only = cells[paid[0]] if paid else home
            only["requests"], only["cost"] = whole["requests"], whole["cost"]
        else:
            costs = _costs(self._session, whole["cost"], self._parts.get(line, {}))
            one_each = sum(cells[model]["billed"] for model in paid) == whole["requests"]
            for model in paid:
                # Of requests that held several rows nobody knows the shares; those of an unfinished run are in no sum.
                cells[model]["requests"] = 0.0 if whole["unfinished"] else cells[model]["billed"] if one_each else math.nan
                cells[model]["cost"] = costs.get(model, math.nan)
        return [{"line": line, "model": model, **cell} for model, cell in cells.items()]

    def _pairs(self) -> tuple[tuple[Codes, list[str]], Codes, Floats]:
        """(line, model) as often as they differ, which of them each answer is, and whether it came from another than the first model."""
        answers = self._answers
        width = max(1, len(answers.names))
        pairs, of_pair = np.unique(answers.line * width + answers.model, return_inverse=True)
        line, model = pairs // width, [answers.names[code] for code in pairs % width]
        away = np.array([bool(name) and name != self._routes[at][0] for at, name in zip(line, model, strict=True)], dtype=float)
        labels = [name or " > ".join(self._routes[at]) for at, name in zip(line, model, strict=True)]
        return (line, labels), of_pair, away[of_pair]

    def _keys(self, line: Any, model: Iterable[str], by: Sequence[str], unit: str) -> pd.DataFrame:
        line = np.asarray(line, dtype=int)
        models = pd.Series(list(model), dtype=_TEXT)
        started = self.lines["started"].dt.floor(unit).iloc[line]
        columns: dict[str, Callable[[], Any]] = {
            "model": lambda: models,
            "provider": lambda: models.map({name: _provider(name) for name in models.unique()}).astype(_TEXT),
            "operation": lambda: self.lines["operation"].iloc[line].astype(_TEXT),
            "run": lambda: self.lines["base"].iloc[line].astype(_TEXT),
            "day": lambda: started,
            "when": lambda: started,
        }
        return pd.DataFrame({name: columns[name]().reset_index(drop=True) for name in by}, index=range(len(line)))


def _provider(model: str) -> str:
    return " > ".join(dict.fromkeys(name.partition("/")[0] for name in model.split(" > ")))


def _named(count: str) -> str:
    return f"{count}_tokens" if count in _TOKENS else count


def _whole(values: pd.Series[Any]) -> pd.Series[Any]:
    return values.astype("float64").round().astype("Int64")


def _share(part: Any, whole: Any) -> Any:
    """A part of a whole; missing where there is no whole."""
    return pd.Series(np.asarray(part, dtype=float) / np.where(np.asarray(whole) == 0, np.nan, np.asarray(whole, dtype=float)))


def _summed(codes: Codes, values: Floats, size: int) -> Floats:
    """Sums by code; missing where one of the values is."""
    return np.bincount(codes, weights=values, minlength=size).astype("float64")


def _percentiles(codes: Codes, values: Floats, size: int, shares: Sequence[float]) -> list[Floats]:
    """Percentiles by code, as ``numpy.percentile`` has them; missing where there is no value."""
    sorted_values = values[np.lexsort((values, codes))]
    counts = np.bincount(codes, minlength=size)
    starts = np.cumsum(counts) - counts
    found = []
    for share in shares:
        result = np.full(size, np.nan)
        some = counts > 0
        place = starts[some] + share * (counts[some] - 1)
        below = np.floor(place).astype(int)
        above = np.ceil(place).astype(int)
        result[some] = sorted_values[below] + (place - below) * (sorted_values[above] - sorted_values[below])
        found.append(result)
    return found
