"""Runs as they go and as they went: how far, how fast, what failed and why, what was learned of the limits, what it cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pandas as pd

import llmkit

from .following import Following
from .panel import action, table_html

__all__ = ["RunMonitor"]

#: Lines of the journal that are shown, and runs of this session whose reasons are kept.
_PAST = 20
#: Seconds between two looks at what takes longer to add up than progress does.
_SLOWLY = 1.0
#: Points of the line that shows requests a minute.
_POINTS = 60
_KINDS = 5
_LONGEST = 300


class RunMonitor(Following):
    """The runs of this session as they go, and the journal's of all sessions.

    Examples
    --------
    >>> from llmkit.widgets import RunMonitor
    >>> monitor = RunMonitor()
    >>> "seconds" in monitor.result
    True
    """

    _files = "monitor"
    _between = 0.1

    def __init__(self) -> None:
        self._now: Callable[[], float] = time.monotonic
        self._live: dict[int, llmkit.Run[Any]] = {}
        self._slow: dict[int, tuple[float, dict[str, Any]]] = {}
        #: What is kept of runs that ended here, by id: the run itself, with all its answers, is not.
        self._ended: dict[str, dict[str, Any]] = {}
        self._past: list[dict[str, Any]] = []
        super().__init__()
        self.draw(now=True)

    # -------------------------------------------------------------------------------------------------------------- looking

    def view(self) -> dict[str, Any]:
        live = [self._card(run) for run in reversed(list(self._live.values()))]
        going = {card["id"] for card in live}
        past = [{**line, "more": self._ended.get(line["id"])} for line in self._lines() if line["id"] not in going]
        return {"live": live, "past": past}

    def _lines(self) -> list[dict[str, Any]]:
        """The journal's lines and those of runs that have none there: one made of several, whose parts have."""
        known = {line["id"] for line in self._past}
        more = [self._line_of(card) for name, card in self._ended.items() if name not in known]
        return sorted([*more, *self._past], key=lambda line: line["started"], reverse=True)[:_PAST]

    def _card(self, run: llmkit.Run[Any]) -> dict[str, Any]:
        p = run.progress()
        rate = p.done / p.seconds if p.seconds > 0 else 0.0
        left = p.rows - p.done - p.errors
        state = "running" if not run.done else "stopped" if run.stopped is not None else "done"
        return {
            "id": run.id,
            "operation": run.operation,
            "models": list(run.models),
            "state": state,
            "stopped": _cut(str(run.stopped)) if run.stopped is not None else "",
            "started": run.started,
            "rows": p.rows,
            "done": p.done,
            "errors": p.errors,
            "stored": p.stored,
            "tokens": p.tokens,
            "cost": p.cost,
            "seconds": round(p.seconds, 1),
            "rate": round(rate, 2),
            "left": round(left / rate, 1) if rate > 0 and not run.done else None,
            **self._slower(run),
        }

    def _slower(self, run: llmkit.Run[Any]) -> dict[str, Any]:
        """Reasons, pace and limits: added up over the whole run, so once a second at most while it goes on."""
        now, known = self._now(), self._slow.get(id(run))
        if known is not None and now - known[0] < _SLOWLY and not run.done:
            return known[1]
        reasons = run.reasons()
        found = {
            "reasons": [{"kind": kind, "count": count, "example": _cut(example)} for kind, count, example in reasons[:_KINDS]],
            "more_reasons": max(0, len(reasons) - _KINDS),
            "retries": run.retries,
            "lost": run.possibly_billed,
            **_pace(run.history()),
        }
        self._slow[id(run)] = (now, found)
        return found

    @staticmethod
    def _line_of(card: dict[str, Any]) -> dict[str, Any]:
        line = {
            name: card[name] for name in ("id", "operation", "started", "seconds", "rows", "done", "errors", "stored", "cost", "stopped")
        }
        return {**line, "models": ", ".join(card["models"]), "requests": None}

    # ---------------------------------------------------------------------------------------------------------------- hearing

    def _follow(self, run: llmkit.Run[Any]) -> None:
        with self._lock:
            self._live[id(run)] = run
        super()._follow(run)
        self.draw()

    def moved(self, run: llmkit.Run[Any]) -> None:
        if run.done:
            with self._lock:
                if id(run) in self._live:
                    self._ended[run.id] = self._card(run)
                    self.let_go(run)
                while len(self._ended) > _PAST:
                    del self._ended[next(iter(self._ended))]
            self.refresh()
        else:
            self.draw()

    def let_go(self, run: llmkit.Run[Any]) -> None:
        with self._lock:
            self._live.pop(id(run), None)
            self._slow.pop(id(run), None)

    @action
    def refresh(self) -> None:
        """Read the journal anew and show it."""
        lines = self.result
        started = lines["started"].astype("int64") / 1e6
        shown = lines[["id", "operation", "models", "seconds", "rows", "done", "errors", "stored", "requests", "cost", "stopped"]]
        past = [_plain(line) for line in shown.assign(started=started).to_dict("records")]
        with self._lock:
            self._past = past
        self.draw()
        self.keep_record()

    # ------------------------------------------------------------------------------------------------------------------ doing

    @action
    def cancel(self, run: str) -> None:
        """Stop a run by its id; what is finished is kept."""
        for one in llmkit.running():
            if one.id == run:
                one.cancel()
                self.say(f"{run} is stopped; what is finished is kept.")
                return
        raise llmkit.BadInput("this run has ended")

    @property
    def result(self) -> pd.DataFrame:
        """The newest runs of the journal, of this session and others."""
        return llmkit.runs(limit=_PAST)

    @property
    def code(self) -> str:
        """The cell that shows the same without the panel."""
        return f"import llmkit\n\nllmkit.running()  # those that go on\nllmkit.runs(limit={_PAST})"

    def snapshot(self) -> str:
        columns = ["operation", "models", "rows", "done", "errors", "seconds", "cost", "stopped"]
        rows = [[line[column] for column in columns] for line in self._lines()]
        return table_html(columns, rows, "Runs, the newest first") if rows else ""


def _pace(history: Any) -> dict[str, Any]:
    """Requests a minute over time, and what stands of each model's limits now."""
    if history is None or not len(history):
        return {"pace": [], "limits": []}
    seconds = history["seconds"].round().astype("int64")
    pace = history["requests_per_minute"].fillna(0.0).groupby(seconds).sum().tail(_POINTS)
    latest = history.groupby("model", sort=False).tail(1)
    limits = latest[["model", "window", "in_flight", "waiting", "requests_per_minute", "refused"]].to_dict("records")
    return {"pace": [round(one) for one in pace], "limits": [_plain(one) for one in limits]}


def _plain(line: dict[Any, Any]) -> dict[str, Any]:
    """Numbers and texts as JSON has them; what is missing as ``None``."""
    found = {str(name): None if pd.isna(value) else getattr(value, "item", lambda value=value: value)() for name, value in line.items()}
    return {name: round(value, 6) if isinstance(value, float) else value for name, value in found.items()}


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
