"""``run.report()``: what was extracted, a line a field."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from pydantic_core import to_json

from ..drawing import BLUE, GREEN, ORANGE, PINK, subplots
from ..errors import BadOutput
from ..run import Run
from .columns import TEXT
from .extraction import VERDICTS, Extraction
from .voting import agreement_of

__all__ = ["FieldReport", "report_of"]

#: Of more fields than these the plot shows the first.
_FIELDS = 30

_UNKNOWN: Any = object()


class FieldReport(pd.DataFrame):
    """A line a field; see ``Run.report``. Any operation on it makes a plain frame."""

    @property
    def _constructor(self) -> Any:
        return pd.DataFrame

    def plot(self) -> Any:  # type: ignore[override]
        """How often each field is there and how far it is to be trusted, and what it cost.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        MissingExtra
            matplotlib is not installed.
        """
        table = self.iloc[:_FIELDS].iloc[::-1]
        shares = {
            "fill_rate": ("filled", BLUE),
            "evidence_rate": ("of these, found in the text", ORANGE),
            "agreement": ("samples that agree", GREEN),
            "correct_rate": ("judged correct", PINK),
        }
        shown = [name for name in shares if name in table]
        size = (9, 1.6 + 0.28 * len(table) * max(1, len(shown)))
        figure, (left, right) = subplots(1, 2, figsize=size, sharey=True, width_ratios=[3, 2])
        places, height = np.arange(len(table)), 0.8 / max(1, len(shown))
        for number, name in enumerate(shown):
            label, colour = shares[name]
            values = 100 * table[name].to_numpy(dtype=float, na_value=np.nan)
            middle = places + 0.4 - (number + 0.5) * height
            bars = left.barh(middle, np.nan_to_num(values), height=0.9 * height, color=colour, label=label)
            left.bar_label(bars, labels=["" if value != value else f"{value:.0f}" for value in values], padding=2, fontsize="x-small")
        left.set_yticks(places, [name if len(name) <= 28 else f"{name[:26]}…" for name in map(str, table.index)], parse_math=False)
        left.set_xlim(0, 112)
        left.set_xlabel("% of rows answered", fontsize="small")
        left.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, frameon=False, fontsize="small")
        costs = table["cost"].to_numpy(dtype=float, na_value=np.nan)
        right.barh(places, np.nan_to_num(costs), height=0.72, color=BLUE)
        right.set_xlim(left=0)
        if np.isfinite(costs).any():
            right.set_xlabel("US dollars of this run", fontsize="small")
        else:
            right.set_xlabel("no price is known", fontsize="small")
            right.set_xticks([])
        return figure


def report_of(extraction: Extraction, run: Run[Any], cost: float | None = _UNKNOWN) -> FieldReport:
    """The report of a run so far; ``cost`` is that of all it is a part of."""
    answers = [records for records in extraction.records(run) if records is not None]
    records = [record for of_row in answers for record in of_row]
    errors = extraction.errors(run)
    outcomes = run.outcomes
    kinds = {error.kind for error in outcomes.errors.values() if isinstance(error, BadOutput)}
    invalid = int(errors["kind"].isin(kinds).sum())
    # With votes a row stands for each sample of one.
    reasked = len({row // extraction.beside.votes for row, task in enumerate(outcomes.task_of_row.tolist()) if task in outcomes.rounds})
    written = {name: sum(_length(name, record.get(name)) for record in records) for name in extraction.labels}
    total = run.cost if cost is _UNKNOWN else cost
    lines = [
        {
            "rows": len(answers) + len(errors),
            "answered": len(answers),
            **_values([record.get(name) for record in records]),
            "failed": len(errors),
            "invalid": invalid,
            "reasked": reasked,
            **_beside(extraction, name, records),
            "cost": None if total is None else total * _share(written, name),
        }
        for name in extraction.labels
    ]
    frame = pd.DataFrame(lines, index=pd.Index(list(extraction.labels.values()), name="field"))
    dtypes: dict[Any, Any] = dict.fromkeys(_COUNTS, "Int64") | {name: "Float64" for name in _SHARES if name in frame}
    return FieldReport(frame.astype(dtypes | {"top": TEXT}))


#: What a judge said, and the column that has its share.
_RATES = dict(zip(VERDICTS, ("correct_rate", "wrong_rate", "not_in_the_text_rate"), strict=True))


_COUNTS = ("rows", "answered", "records", "filled", "distinct", "failed", "invalid", "reasked")
_SHARES = ("fill_rate", "top_share", "evidence_rate", "agreement", "cost", *_RATES.values())


def _values(values: Sequence[Any]) -> dict[str, Any]:
    there = [_text(value) for value in values if value is not None]
    most = Counter(there).most_common(1)
    return {
        "records": len(values),
        "filled": len(there),
        "fill_rate": len(there) / len(values) if values else None,
        "distinct": len(set(there)),
        "top": most[0][0] if most else None,
        "top_share": most[0][1] / len(there) if most else None,
    }


def _beside(extraction: Extraction, name: str, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if extraction.beside.evidence:
        there = [record for record in records if record.get(name) is not None]
        found["evidence_rate"] = sum(record.get(f"{name}_evidence") is not None for record in there) / len(there) if there else None
    if extraction.beside.votes > 1:
        shares = [record[agreement_of(name)] for record in records]
        found["agreement"] = sum(shares) / len(shares) if shares else None
    if extraction.beside.check:
        said = [record.get(f"{name}_check") for record in records if record.get(f"{name}_check") is not None]
        found |= {column: said.count(verdict) / len(said) if said else None for verdict, column in _RATES.items()}
    return found


def _text(value: Any) -> str:
    return value if isinstance(value, str) else to_json(value, fallback=str, inf_nan_mode="constants").decode("utf-8", "replace")


def _length(name: str, value: Any) -> int:
    """Characters that a field takes in the answer."""
    return len(name) + len(_text(value)) + 6


def _share(written: Mapping[str, int], name: str) -> float:
    total = sum(written.values())
    return written[name] / total if total else 1 / len(written)
