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
from collections import Counter, defaultdict
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
from .drawing import BLUE, GREEN, GREY, ORANGE, PINK, RED, SKY, empty, subplots
from .errors import BadInput
from .run import to_the_caller
from .session import Session, default
from .types import Price, Usage

__all__ = ["Report", "plot_history", "report", "runs", "usage"]

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
#: A part of a line: what one model of its route did, as ``engine.journal`` adds it up.
_PART = ["answers", "errors", "input", "cached_input", "written", "output", "billed", "dollars", "unpriced", "lost"]
_AT = {name: place for place, name in enumerate(_PART)}
#: What a line and its parts both count.
_BOTH = ["answers", "errors", *_TOKENS]
#: Shares of answers that percentiles are given for.
_SHARES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}

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
    sums, _ = _outcomes(default(), lines, lines["done"].isna())
    _complete(lines, _parts_of(sums))
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
        one); ``input_tokens``, ``cached_input_tokens``, ``output_tokens``; ``cost`` in US dollars, missing where that of one answer is
        unknown, and ``cost_at_least``, the sum of what is known; ``saved``, the dollars that vendors' prompt caches took off at today's
        prices, where known; ``possibly_billed`` (requests whose answer was lost on the way); ``p50_seconds``, ``p90_seconds``,
        ``p95_seconds`` and ``p99_seconds`` from the first attempt at an answer to its coming, and ``queue_p50_seconds`` and so on for the
        time before, in which it was ready and waited for its turn; ``error_rate`` and ``cache_hit_rate`` (of all tasks),
        ``fallback_rate`` (paid answers that the first model of the route did not give), ``answers_per_request`` (how full batches were),
        ``unfinished`` (runs that are still going or were killed: their answers, tokens and cost count as far as they are kept; their
        requests and stored answers are unknown and in no sum).

    Notes
    -----
    The journal tells which model of a route answered and what its answers cost, not all requests of each model: requests, and the cost of
    what came out of older journals, are missing by model where they do not follow from the whole. Rows and stored answers of a route are
    counted at its first model. An answer that came and could not be used is an answer of its model and an error of its run. A route whose
    journal holds no outcomes (``cache="off"``) is a row of its own, ``a > b``.

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
    """Usage by model with a total, as text, HTML, frames or a figure; made by ``llmkit.report()``."""

    def __init__(self, journal: _Journal) -> None:
        self._journal = journal
        total = journal.table([])
        total.insert(0, "model", pd.Series(["total"], dtype=_TEXT))
        self._table = pd.concat([journal.table(["model"]), total], ignore_index=True)

    def to_frame(self) -> pd.DataFrame:
        """The table: the columns of ``llmkit.usage()``, its last row the total."""
        return self._table.copy()

    def errors(self) -> pd.DataFrame:
        """What went wrong: ``model``, ``kind``, ``errors``, and ``error_rate`` of all that was settled of the model; most frequent first.

        The kind of an error is missing where its run left no outcomes (``cache="off"``).
        """
        return self._journal.errors()

    def over_time(self) -> pd.DataFrame:
        """What came when, by model: ``when`` (UTC), ``model``, ``answers``, ``errors``, tokens, ``cost`` and ``cost_at_least``.

        A row a day; an hour or a minute where all lies within three days or two hours. What no outcome tells of (``cache="off"``) is
        counted when its run began.
        """
        return self._journal.over_time()[1]

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
        shown = f"<table><caption>{html.escape(self._title())}</caption><thead><tr>{top}</tr></thead><tbody>{rows}</tbody></table>"
        errors = self.errors().head(10)
        if len(errors):
            words = [[html.escape("?" if pd.isna(cell) else str(cell)) for cell in line] for line in errors.iloc[:, :3].to_numpy()]
            lines = "".join(f"<tr><th>{model}</th><td>{kind}</td><td>{count}</td></tr>" for model, kind, count in words)
            head_of_errors = "<thead><tr><th>model</th><th>kind of error</th><th>errors</th></tr></thead>"
            shown += f"<table>{head_of_errors}<tbody>{lines}</tbody></table>"
        return shown

    def _title(self) -> str:
        lines = self._journal.lines
        if not len(lines):
            return "llmkit: no runs"
        first, last = (f"{moment:%Y-%m-%d %H:%M}" for moment in (lines["started"].min(), lines["started"].max()))
        return f"llmkit: {lines['base'].nunique():,} runs begun from {first} to {last} UTC"

    def _texts(self) -> list[list[str]]:
        table = self._table
        columns_of_costs = (table[name] for name in ("cost", "cost_at_least", "unfinished"))
        costs = [_dollars(math.nan if going else cost, least) for cost, least, going in zip(*columns_of_costs, strict=True)]
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
            "p99 s": _said(table["p99_seconds"], ",.2f"),
            "queue p50 s": _said(table["queue_p50_seconds"], ",.2f"),
            "errors %": _said(100 * table["error_rate"], ".1f"),
            "cache hits %": _said(100 * table["cache_hit_rate"], ".1f"),
            "fallback %": _said(100 * table["fallback_rate"], ".1f"),
        }
        return [list(columns), *(list(row) for row in zip(*columns.values(), strict=True))]

    def plot(self) -> Any:
        """Answers and errors over time, dollars over time by model, seconds to an answer with the queue apart, and shares, in one figure.

        Returns
        -------
        matplotlib.figure.Figure
            A bar a day; an hour or a minute where all lies within three days or two hours. Of many models the largest are shown.

        Raises
        ------
        MissingExtra
            matplotlib is not installed.
        """
        figure, ((counts, dollars), (seconds, shares)) = subplots(2, 2, figsize=(11, 7))
        unit, over_time = self._journal.over_time()
        models = self._table.iloc[:-1]
        size = (models["answers"] + models["errors"] + models["stored"]).to_numpy(dtype=float)
        models = models.iloc[np.argsort(-size, kind="stable")[:_MODELS]].iloc[::-1]
        _draw_counts(counts, unit, over_time)
        _draw_dollars(dollars, unit, over_time)
        _draw_seconds(seconds, models)
        _draw_shares(shares, models)
        figure.suptitle(self._title(), fontsize="medium")
        return figure


#: Of more models than these a figure shows the largest.
_MODELS = 6
_SECONDS_OF = {"minute": 60.0, "hour": 3600.0, "day": 86400.0}


def _head(axes: Any, title: str, columns: int) -> None:
    """Title and legend above the data, never on it, whatever the legend's height."""
    head = axes.legend(
        title=title, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=columns, alignment="left", frameon=False, fontsize="small"
    )
    head.get_title().set(fontsize="medium", fontweight="bold")


def _short(models: Iterable[str]) -> dict[str, str]:
    """Names that fit beside an axis: without the provider where one has the model alone, and without what is too long."""
    names = {model: model.partition("/")[2] if " > " not in model else model for model in models}
    counts = Counter(names.values())
    chosen = {model: name if name and counts[name] == 1 else model for model, name in names.items()}
    return {model: name if len(name) <= 28 else f"{name[:26]}…" for model, name in chosen.items()}


def _draw_bars(axes: Any, unit: str, table: pd.DataFrame, colours: Sequence[str]) -> None:
    """A stack of bars for each moment: the columns of ``table``, whose index is when."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    day = _SECONDS_OF[unit] / _SECONDS_OF["day"]
    when = table.index.tz_localize(None).to_numpy()  # type: ignore[attr-defined]
    floor = np.zeros(len(table))
    for (name, heights), colour in zip(table.items(), colours, strict=False):
        axes.bar(when, heights, bottom=floor, width=0.9 * day, align="edge", color=colour, label=str(name))
        floor = floor + heights.to_numpy()
    least = 12 * day  # one bar alone would be as wide as the figure
    begin, end = axes.get_xlim()
    if end - begin < least:
        axes.set_xlim((begin + end - least) / 2, (begin + end + least) / 2)
    locator = AutoDateLocator(minticks=2, maxticks=6)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.set_xlabel("UTC", fontsize="small")
    axes.set_ylim(bottom=0)


def _draw_counts(axes: Any, unit: str, over_time: pd.DataFrame) -> None:
    if not len(over_time):
        empty(axes, "Answers and errors", "no requests")
        return
    table = over_time.groupby("when")[["answers", "errors"]].sum().astype(float)
    _draw_bars(axes, unit, table, [BLUE, RED])
    axes.set_ylabel(f"rows asked per {unit}", fontsize="small")
    _head(axes, "Answers and errors", 2)


def _draw_dollars(axes: Any, unit: str, over_time: pd.DataFrame) -> None:
    if not over_time["cost_at_least"].sum():
        unknown = over_time["cost"].isna().any()
        empty(axes, "Cost by model", "no price is known" if unknown else "nothing was paid")
        return
    table = over_time.pivot_table(index="when", columns="model", values="cost_at_least", aggfunc="sum", fill_value=0.0)
    by_size = table.sum().sort_values(ascending=False)
    most = by_size[by_size > 0].index[: _MODELS - 1].tolist()
    shown = table[most].rename(columns=_short(most))
    if (by_size > 0).sum() > len(most):
        shown = shown.assign(others=table.drop(columns=most).sum(axis=1))
    _draw_bars(axes, unit, shown, [BLUE, ORANGE, GREEN, PINK, SKY, GREY])
    axes.set_ylabel(f"US dollars per {unit}", fontsize="small")
    _head(axes, "Cost by model", 2)


def _draw_seconds(axes: Any, models: pd.DataFrame) -> None:
    """A pair of bars a model: to the median, a line to the 90th percentile, a mark at the 99th."""
    title = "Time to an answer"
    models = models[models["p50_seconds"].notna()]
    if not len(models):
        empty(axes, title, "no answers")
        return
    places = np.arange(len(models))
    for word, label, colour, offset in (("", "request", BLUE, 0.19), ("queue_", "in the queue before it", ORANGE, -0.19)):
        half, most, all_but_one = (models[f"{word}{name}_seconds"].to_numpy(dtype=float) for name in ("p50", "p90", "p99"))
        if np.isnan(half).all():
            continue
        axes.barh(places + offset, np.nan_to_num(half), height=0.36, color=colour, label=label)
        axes.hlines(places + offset, half, most, color="black", linewidth=1.2)
        axes.plot(all_but_one, places + offset, "|", color="black", markersize=8, markeredgewidth=1.6)
    axes.set_yticks(places, _short(models["model"]).values())
    axes.set_xlim(left=0)
    axes.set_xlabel("seconds: bar half, line 90 %, mark 99 % of answers within", fontsize="small")
    _head(axes, title, 2)


def _draw_shares(axes: Any, models: pd.DataFrame) -> None:
    if not len(models):
        empty(axes, "Shares", "no requests")
        return
    places = np.arange(len(models))
    kinds = (("cache_hit_rate", "cache hits", GREEN), ("fallback_rate", "fallbacks", ORANGE), ("error_rate", "errors", RED))
    for offset, (name, label, colour) in zip((0.26, 0.0, -0.26), kinds, strict=True):
        shares = 100 * models[name].to_numpy(dtype=float)
        bars = axes.barh(places + offset, np.nan_to_num(shares), height=0.25, color=colour, label=label)
        texts = ["" if share != share else "0" if share == 0 else f"{share:.1f}" for share in shares]
        axes.bar_label(bars, labels=texts, padding=2, fontsize="x-small")
    axes.set_yticks(places, _short(models["model"]).values())
    axes.set_xlim(0, max(10.0, 1.15 * axes.dataLim.xmax))
    axes.set_xlabel("% of rows asked (fallbacks: of paid answers)", fontsize="small")
    _head(axes, "Shares", 3)


def plot_history(history: pd.DataFrame) -> Any:
    """How a run was paced, as ``run.history()`` tells it: the window of requests that might be in flight, those that were, and those that
    waited; requests a minute; and where the provider refused.

    Parameters
    ----------
    history : DataFrame
        ``seconds`` since the run began, ``model``, ``window``, ``in_flight``, ``waiting``, ``requests_per_minute``, ``refused`` (so far).

    Returns
    -------
    matplotlib.figure.Figure
        A column a model.

    Raises
    ------
    MissingExtra
        matplotlib is not installed.
    """
    models = list(dict.fromkeys(history["model"]))[:_MODELS]
    columns = max(1, len(models))
    figure, axes = subplots(2, columns, figsize=(max(7.0, 4.5 * columns), 5.5), sharex=True, sharey="row", squeeze=False)
    if not models:
        for one in np.ravel(axes):
            empty(one, "", "nothing was sent")
    for (above, below), model in zip(axes.T, models, strict=False):
        one = history[history["model"] == model].sort_values("seconds")
        seconds, refused = one["seconds"].to_numpy(dtype=float), one["refused"].to_numpy(dtype=float)
        pace = one["requests_per_minute"].to_numpy(dtype=float, na_value=np.nan)
        above.fill_between(seconds, one["in_flight"].to_numpy(dtype=float), step="post", color=SKY, alpha=0.6, label="in flight")
        above.step(seconds, one["window"].to_numpy(dtype=float, na_value=np.nan), where="post", color=BLUE, label="window")
        above.step(seconds, one["waiting"].to_numpy(dtype=float), where="post", color=ORANGE, linestyle="--", label="waiting")
        _head(above, str(model), 3)
        below.step(seconds, pace, where="post", color=GREEN, label="requests a minute")
        new = np.diff(refused, prepend=0.0) > 0
        if new.any():
            below.plot(seconds[new], np.nan_to_num(pace[new]), "v", color=RED, label=f"refused ({int(refused[-1]):,})", clip_on=False)
        _head(below, "", 2)
        below.set_xlabel("seconds since the run began", fontsize="small")
        for part in (above, below):
            part.set_ylim(bottom=0)
    axes[0, 0].set_ylabel("requests", fontsize="small")
    axes[1, 0].set_ylabel("requests per minute", fontsize="small")
    return figure


def _said(values: pd.Series[Any], form: str) -> list[str]:
    return ["?" if pd.isna(value) else format(value, form) for value in values]


def _dollars(cost: float, least: float) -> str:
    if cost == cost:
        return f"${cost:,.4f}"
    return f"at least ${least:,.4f}" if least > 0 else "?"


# ------------------------------------------------------------------------------------------------------------ reading


def _read(session: Session, since: Any) -> _Journal:
    lines = _lines(session, since)
    sums, answers = _outcomes(session, lines, pd.Series(True, lines.index))
    parts = _parts_of(sums)
    _complete(lines, parts)
    return _Journal(session, lines, sums, parts, answers)


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


def _outcomes(session: Session, lines: pd.DataFrame, wanted: pd.Series[bool]) -> tuple[_Sums, _Answers]:
    """What the outcomes of these lines come to: sums, and the seconds of each live answer."""
    sums: _Sums = {}
    models: dict[str, int] = {}
    pieces: list[tuple[Codes, Codes, Floats, Floats]] = []
    for shard, some in lines[wanted].groupby("shard"):
        at: dict[int, int] = dict(zip(some["number"].tolist(), some.index.tolist(), strict=True))
        after: tuple[int, int] | None = (min(at), -1)
        while after is not None:
            page = _in_store(session, lambda store, *args: store.outcomes(*args), shard, after, max(at), _PAGE)
            if page is None:
                _warn(f"the journal {shard} in the llmkit cache could not be read to its end; its runs are counted in part")
                break
            for run, model, error, minute, *counts in page.sums:
                if run in at:
                    # A page ends anywhere in a run: what stands in the next one is added.
                    known = sums.setdefault((at[run], model or "", error, minute), np.zeros(len(_PART)))
                    known += counts
            if page.seconds:
                numbers, names, seconds, queued = zip(*page.seconds, strict=True)
                line = np.array([at.get(number, -1) for number in numbers])
                code = np.array([models.setdefault(name or "", len(models)) for name in names])
                ours = line >= 0
                pieces.append((line[ours], code[ours], np.array(seconds, dtype=float)[ours], np.array(queued, dtype=float)[ours]))
            after = page.end
    nothing = [np.array([], int)] * 2 + [np.array([])] * 2
    joined = [np.concatenate(column) for column in zip(*pieces, strict=True)] if pieces else nothing
    return sums, _Answers(list(models), *joined)


def _parts_of(sums: _Sums) -> _Parts:
    parts: _Parts = defaultdict(dict)
    for (line, model, _, _), counts in sums.items():
        parts[line][model] = parts[line].get(model, 0.0) + counts
    return parts


def _complete(lines: pd.DataFrame, parts: _Parts) -> None:
    """Fill in what is known of a run without a summary (it is going on, or was killed): what its outcomes come to."""
    lines["unfinished"] = lines["done"].isna()
    places = [_AT[name] for name in _BOTH]
    for line in np.flatnonzero(lines["unfinished"]):
        sums = sum(parts.get(int(line), {}).values(), np.zeros(len(_PART)))
        lines.loc[line, ["done", "errors", *_TOKENS]] = sums[places]


def _costs(session: Session, cost: float, parts: dict[str, Floats]) -> dict[str, float]:
    """US dollars by model: as each answer was priced when it came, or else as tokens at today's prices have it; in either case only where
    that comes to exactly what the run cost (searches, minutes of sound, prices by length and prices that changed since are in no token)."""
    billed = {model: sums for model, sums in parts.items() if sums[_AT["billed"]]}
    if not any(sums[_AT["unpriced"]] for sums in billed.values()):
        known = {model: float(sums[_AT["dollars"]]) for model, sums in billed.items()}
        if math.isclose(sum(known.values()), cost, rel_tol=1e-6):
            return known
    found = {model: _used(sums).cost(_price(session, model)) for model, sums in billed.items()}
    known = {model: dollars for model, dollars in found.items() if dollars is not None}
    explained = len(known) == len(found) and math.isclose(sum(known.values()), cost, rel_tol=1e-6)
    return known if explained else {}


def _used(sums: Floats) -> Usage:
    counts = {name: int(sums[place]) for name, place in _AT.items()}
    return Usage(counts["input"], counts["cached_input"], counts["output"], cache_write=counts["written"])


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


#: By line, model, kind of error and minute: the sums of ``_PART``.
_Sums = dict[tuple[int, str, str | None, int | None], Floats]
#: The same by line and model.
_Parts = dict[int, dict[str, Floats]]


@dataclass(frozen=True)
class _Answers:
    """Live answers in columns: their line, model (a place in ``names``), seconds, and seconds in the queue (NaN where nobody counted)."""

    names: list[str]
    line: Codes
    model: Codes
    seconds: Floats
    queued: Floats


class _Journal:
    """What was read, and the one way in which it is added up."""

    def __init__(self, session: Session, lines: pd.DataFrame, sums: _Sums, parts: _Parts, answers: _Answers) -> None:
        self._session = session
        self.lines = lines
        self._sums = sums
        self._parts = parts
        self._answers = answers
        self._routes: list[tuple[str, ...]] = lines["route"].tolist()

    def over_time(self) -> tuple[str, pd.DataFrame]:
        """The unit of time that suits the span of the answers, and what came of each model in each.

        An outcome that says when it came counts there, what no outcome says at the beginning of its run.
        """
        told, untold = self._told(), self._cells(True)
        pairs = ["line", "model"]
        come = told.groupby(pairs)[[*_BOTH, "weight"]].sum()
        known = come.reindex(pd.MultiIndex.from_frame(untold[pairs])).reset_index(drop=True)
        cost = untold["cost"].to_numpy(dtype=float)
        costs = pd.Series(cost, index=pd.MultiIndex.from_frame(untold[pairs]))
        share = told["weight"] / come["weight"].reindex(pd.MultiIndex.from_frame(told[pairs])).to_numpy()
        told["cost"] = share.to_numpy() * costs.reindex(pd.MultiIndex.from_frame(told[pairs])).to_numpy()
        told.loc[told["weight"] == 0, "cost"] = 0.0
        untold[_BOTH] = (untold[_BOTH] - known[_BOTH].fillna(0.0)).clip(lower=0.0)
        untold["cost"] = np.where(known["weight"].fillna(0.0) > 0, 0.0, cost)
        untold["when"] = self.lines["began"].to_numpy(dtype=float)[untold["line"].to_numpy(dtype=int)]
        untold = untold[(untold[_BOTH].sum(axis=1) > 0) | (untold["cost"] != 0)]
        both = pd.concat([told, untold], ignore_index=True)[["when", "model", *_BOTH, "cost"]]
        when = pd.to_datetime(both["when"].astype(float), unit="s", utc=True).astype(_TIME)
        span = when.max() - when.min() if len(when) else timedelta()
        unit, name = ("min", "minute") if span < timedelta(hours=2) else ("h", "hour") if span < timedelta(days=3) else ("D", "day")
        both["when"], both["model"] = when.dt.floor(unit), both["model"].astype(_TEXT)
        both["cost_at_least"] = both["cost"].fillna(0.0)
        both["unknown"] = both["cost"].isna()
        table = both.groupby(["when", "model"], sort=True)[[*_BOTH, "cost_at_least", "unknown"]].sum().reset_index()
        found = table[["when", "model"]].copy()
        for count in _BOTH:
            found[_named(count)] = _whole(table[count])
        found["cost"] = table["cost_at_least"].mask(table["unknown"] > 0)
        found["cost_at_least"] = table["cost_at_least"]
        return name, found

    def _told(self) -> pd.DataFrame:
        """What outcomes say by line, model and minute; ``weight`` shares out the dollars of a line's model."""
        names = ["line", "model", "minute", *_PART]
        found = pd.DataFrame([(line, model, minute, *sums) for (line, model, _, minute), sums in self._sums.items()], columns=names)
        found = found.astype({"line": int, "minute": float, **dict.fromkeys(_PART, float)})
        found["model"] = [model or self.lines["models"].iloc[line] for line, model in zip(found["line"], found["model"], strict=True)]
        unpriced = found.groupby(["line", "model"])["unpriced"].transform("sum")
        found["weight"] = found["dollars"].where(unpriced == 0, found["input"] + found["output"])
        began = self.lines["began"].to_numpy(dtype=float)[found["line"].to_numpy()]
        found["when"] = (60.0 * found["minute"]).where(found["minute"].notna(), began)
        return found

    def errors(self) -> pd.DataFrame:
        """Errors by model and kind, the most frequent first, and their share of what was settled."""
        counts: dict[tuple[str, str | None], float] = defaultdict(float)
        for (line, model, error, _), sums in self._sums.items():
            if error is not None:
                counts[model or self.lines["models"].iloc[line], error] += sums[_AT["errors"]]
        usage = self.table(["model"])
        settled = usage["answers"] + usage["errors"] + usage["stored"]
        of_model = dict(zip(usage["model"], zip(usage["errors"], settled, strict=True), strict=True))
        for model, (errors, _) in of_model.items():
            rest = float(errors) - sum(count for (name, _), count in counts.items() if name == model)
            if rest > 0:  # of runs that leave no outcomes
                counts[model, None] = rest
        ordered = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0][0], entry[0][1] or ""))
        return pd.DataFrame(
            {
                "model": pd.Series([model for (model, _), _ in ordered], dtype=_TEXT),
                "kind": pd.Series([kind for (_, kind), _ in ordered], dtype=_TEXT),
                "errors": _whole(pd.Series([count for _, count in ordered], dtype=float)),
                "error_rate": _share([count for _, count in ordered], [float(of_model[model][1]) for (model, _), _ in ordered]),
            }
        )

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
        table["saved"] = total["saved"]
        table["possibly_billed"] = _whole(pd.Series(total["lost"]))
        for word, values in (("", self._answers.seconds), ("queue_", self._answers.queued)):
            told = np.isfinite(values)
            found = _percentiles(of_answer[told], values[told], size, list(_SHARES.values()))
            for name, column in zip(_SHARES, found, strict=True):
                table[f"{word}{name}_seconds"] = column
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
                "cost": lines["cost"].mask(lines["requests"] == 0, 0.0).where(~lines["unfinished"], self._paid_so_far()),
                "unfinished": lines["unfinished"].astype(float),
                "lost": [sum(float(part[_AT["lost"]]) for part in self._parts.get(line, {}).values()) for line in range(len(lines))],
                "saved": [self._saved(line) for line in range(len(lines))],
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
        left = {name: whole[name] - sum(part[name] for part in parts.values()) for name in _BOTH}
        # An answer that was kept and then could not be used is an answer of its model, though an error of its run.
        unused = max(0.0, -left["answers"])
        left["errors"] -= unused
        left = {name: max(0.0, count) for name, count in left.items()}
        first = self._routes[line][0]
        nothing = dict.fromkeys((*_PART, "rows", "stored", "requests", "cost", "unfinished", "saved"), 0.0)
        cells = {model: {**nothing, **part, "saved": self._saved_at(model, self._parts[line][model])} for model, part in parts.items()}
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

    def _paid_so_far(self) -> list[float]:
        """US dollars by line of the outcomes that are there, each as it was priced when it came."""
        sums = [sum(self._parts.get(line, {}).values(), np.zeros(len(_PART))) for line in range(len(self.lines))]
        return [math.nan if one[_AT["unpriced"]] else float(one[_AT["dollars"]]) for one in sums]

    def _saved(self, line: int) -> float:
        parts, route = self._parts.get(line, {}), self._routes[line]
        if parts or len(route) > 1:
            return sum(self._saved_at(model, sums) for model, sums in parts.items() if model)
        sums = np.zeros(len(_PART))
        sums[[_AT[name] for name in _TOKENS]] = self.lines.loc[line, _TOKENS].fillna(0.0).to_numpy(dtype=float)
        return self._saved_at(route[0], sums)

    def _saved_at(self, model: str, sums: Floats) -> float:
        """US dollars that the vendor's prompt cache took off, at today's prices for short requests; 0 where they are unknown."""
        if not (sums[_AT["cached_input"]] or sums[_AT["written"]]):
            return 0.0
        return _used(sums).saved(_price(self._session, model).of_request(0)) or 0.0

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
