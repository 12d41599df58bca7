"""What was spent: by day, by model, by run; what was saved; and a budget that warns."""

from __future__ import annotations

from typing import Any

import pandas as pd

import llmkit

from .following import Following
from .panel import action, table_html

__all__ = ["CostPanel"]

_DAYS = (7, 30, 90)
#: Models and runs that are shown, the dearest first.
_MOST = 10
_SUMS = ["cost_at_least", "unknown", "answers", "stored", "errors", "input_tokens", "output_tokens", "saved", "worth"]


class CostPanel(Following):
    """What the journal says was spent, and a budget kept in the user's config directory.

    Examples
    --------
    >>> from llmkit.widgets import CostPanel
    >>> panel = CostPanel()
    >>> panel.set_budget(20, per="month")
    >>> llmkit.preferences()["budget"]
    20.0
    """

    _files = "cost"
    _between = 0.1

    def __init__(self, days: int = 30) -> None:
        self._days = _of(_DAYS, days, "days")
        self._table: pd.DataFrame | None = None
        #: What ``_told`` made last, and of what.
        self._made: tuple[pd.DataFrame, int, pd.Timestamp, dict[str, Any]] | None = None
        super().__init__()
        self.draw(now=True)

    # -------------------------------------------------------------------------------------------------------------- looking

    def view(self) -> dict[str, Any]:
        table = self._table
        known = llmkit.preferences()
        per = known.get("budget_per", "month")
        shown = {"days": self._days, "choices": list(_DAYS), "read": table is not None, "budget": known.get("budget"), "per": per}
        if table is None:
            return shown
        spent = table[table["day"] >= _since(per)]
        budget = known.get("budget")
        return (
            shown
            | self._told(table)
            | {
                "spent": _money(spent["cost_at_least"].sum()),
                "spent_unknown": bool(spent["unknown"].sum()),
                "over": budget is not None and float(spent["cost_at_least"].sum()) > budget,
            }
        )

    def _told(self, table: pd.DataFrame) -> dict[str, Any]:
        """The sums over the days that are shown: made once for what was read, since every word that is said draws the panel anew."""
        today = _today()
        if self._made is None or self._made[0] is not table or self._made[1:3] != (self._days, today):
            within = table[table["day"] > today - pd.Timedelta(days=self._days)]
            sums = {
                "total": _sums(within),
                "by_day": self._by_day(within),
                "by_model": _dearest(within, ["model"]),
                "by_run": _dearest(within, ["run", "operation"]),
            }
            self._made = (table, self._days, today, sums)
        return self._made[3]

    def _by_day(self, table: pd.DataFrame) -> list[dict[str, Any]]:
        days = pd.date_range(end=_today(), periods=self._days, freq="D")
        spent = table.groupby("day")[["cost_at_least", "unknown"]].sum().reindex(days, fill_value=0.0)
        return [
            {"day": f"{day:%Y-%m-%d}", "cost": _money(cost), "unknown": bool(unknown)}
            for day, (cost, unknown) in zip(days, spent.itertuples(index=False), strict=True)
        ]

    # ------------------------------------------------------------------------------------------------------------------ doing

    def moved(self, run: llmkit.Run[Any]) -> None:
        if run.done:
            self.refresh()

    @action
    def refresh(self) -> None:
        """Read the journal anew and show it."""
        self._table = self.result
        self.draw()
        self.keep_record()

    @action
    def look(self, days: int) -> None:
        """Show so many days: 7, 30 or 90."""
        self._days = _of(_DAYS, days, "days")
        self.apart(self.refresh)

    @action
    def set_budget(self, amount: Any, per: str = "month") -> None:
        """Warn once more than ``amount`` dollars were spent in a ``per``, "day" or "month" (UTC); ``None`` or nothing forgets it.

        It stops nothing: ``max_cost=`` of a call does.
        """
        text = "" if amount is None else str(amount).strip().removeprefix("$")
        try:
            dollars = float(text) if text else None
        except ValueError:
            raise llmkit.BadInput("a budget is a number of dollars, such as 20") from None
        llmkit.preferences(budget=dollars, budget_per=per)
        self.say("The budget is taken away." if dollars is None else f"The budget is ${dollars:,.10g} a {per}.")

    @property
    def result(self) -> pd.DataFrame:
        """What was spent by day, run, operation and model, over the days that are shown and this month; ``worth`` is what stored
        answers would have cost at the average of those that were paid."""
        since = min(_today() - pd.Timedelta(days=self._days - 1), _since("month"))
        table = llmkit.usage(by=["day", "run", "operation", "model"], since=since)
        paid = table.groupby("model")[["cost_at_least", "answers"]].transform("sum").astype("float64")
        each = paid["cost_at_least"] / paid["answers"].where(paid["answers"] > 0)
        return table.assign(unknown=table["cost"].isna().astype("int64"), worth=(each * table["stored"].astype("float64")).fillna(0.0))

    @property
    def code(self) -> str:
        """The cell that shows the same without the panel."""
        return f'import llmkit\n\nllmkit.usage(by=["day", "model"], since="{_today() - pd.Timedelta(days=self._days - 1):%Y-%m-%d}")'

    def snapshot(self) -> str:
        if self._table is None:
            return ""
        lines = _dearest(self._table, ["model"])
        rows = [[line["model"], line["answers"], line["stored"], line["cost_at_least"]] for line in lines]
        return table_html(["model", "answers", "stored", "dollars"], rows, "Spent by model")


def _dearest(table: pd.DataFrame, by: list[str]) -> list[dict[str, Any]]:
    if not len(table):
        return []
    groups = table.groupby(by, sort=False)
    sums = groups[_SUMS].sum().assign(began=groups["day"].min())
    # A model that was only reached for, and answered nothing, is no news.
    sums = sums[(sums[["cost_at_least", "answers", "stored", "errors"]] > 0).any(axis=1)]
    most = sums.sort_values(["cost_at_least", "answers"], ascending=False).head(_MOST).reset_index()
    lines = most.to_dict("records")
    return [{**{name: line[name] for name in by}, "day": f"{line['began']:%Y-%m-%d}", **_counts(line)} for line in lines]


def _sums(table: pd.DataFrame) -> dict[str, Any]:
    return _counts(table[_SUMS].sum().to_dict())


def _counts(line: dict[Any, Any]) -> dict[str, Any]:
    money = ("cost_at_least", "saved", "worth")
    return {name: _money(line[name]) if name in money else bool(line[name]) if name == "unknown" else int(line[name]) for name in _SUMS}


def _money(dollars: Any) -> float:
    return round(float(dollars), 9)


def _today() -> pd.Timestamp:
    return pd.Timestamp.now("UTC").floor("D")


def _since(per: str) -> pd.Timestamp:
    return _today() if per == "day" else _today().replace(day=1)


def _of(choices: tuple[int, ...], value: Any, what: str) -> int:
    if value not in choices:
        raise llmkit.BadInput(f"{what} is one of {', '.join(map(str, choices))}")
    return int(value)
