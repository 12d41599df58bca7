"""The tables of README and ``docs/performance.md``, drawn from the figures that are kept, between marks that stand there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

from .measure import ROOT, Measured, best, per_row
from .rate import CONDITIONS, WHAT
from .results import read

_PAGES = ("README.md", "docs/performance.md")
_NOT_MEASURED = "–"


def write_tables() -> str:
    """Put every table where its marks are; the pages that changed, as a line."""
    tables = {"contest": _contest, "limits": _limits, "growth": _growth}
    changed = []
    for page in _PAGES:
        file = ROOT / page
        before = file.read_text("utf-8")
        after = before
        for name, draw in tables.items():
            after = re.sub(
                rf"(<!-- benchmarks: {name} -->\n).*?(<!-- benchmarks end -->)",
                partial(_between, draw()),
                after,
                flags=re.DOTALL,
            )
        if after != before:
            file.write_text(after, "utf-8")
            changed.append(page)
    return f"tables drawn anew in {' and '.join(changed)}" if changed else "the tables of the pages are up to date"


def _between(drawn: str, marks: re.Match[str]) -> str:
    return f"{marks[1]}\n{drawn}\n\n{marks[2]}"


def _markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _dates(*names: str) -> str:
    days = sorted({one["date"][:10] for name in names for one in read(name).values() if isinstance(one, dict) and "date" in one})
    return " to ".join(dict.fromkeys((days[0], days[-1]))) if days else "not measured yet"


# ------------------------------------------------------------------------------------------------------------------ the contest


def _contest() -> str:
    """llmkit beside its rivals."""
    rate, latency, faults, overhead = (read(name) for name in ("rate", "latency", "faults", "overhead"))
    chat = read("chat").get("rounds", {})
    known = dict.fromkeys(name.partition("/")[2] for entries in (rate, latency, overhead) for name in entries)
    names = ["llmkit", *(name for name in known if name != "llmkit")]
    lines = []
    for name in names:
        cost: Any = best(chat["llmkit"]) if name == "llmkit" and chat else overhead.get(f"overhead/{name}")
        cells = [
            name,
            *(_paced(rate.get(f"{condition}/{name}")) for condition in ("second-headers", "minute-headers")),
            _times(latency.get(f"4000/{name}")),
            _faulty(faults.get(name)),
            f"{per_row(cost):.2f}" if _usable(cost) else _NOT_MEASURED,
        ]
        lines.append([f"**{cell}**" for cell in cells] if name == "llmkit" else cells)
    if chat:
        lines.append(["bare aiohttp loop", *[_NOT_MEASURED] * 4, f"{per_row(best(chat['aiohttp'])):.2f}"])
    head = (
        f"measured {_dates('rate', 'latency', 'faults', 'overhead')}",
        "limit kept by the second",
        "limit kept by the minute",
        "256 at a time",
        "faults",
        "CPU ms a row",
    )
    return _markdown(head, lines)


def _usable(found: Any) -> bool:
    return bool(found) and "gave_up" not in found


def _paced(found: Any) -> str:
    if not _usable(found):
        return _NOT_MEASURED
    if found["lost"] + found["wrong"]:  # the time of a job that was not done says nothing
        return f"{_lost(found)}, {found['refused']:,} 429s"
    return f"{found['seconds']:.0f} s, {found['ratio']:.2f}x, {found['refused']:,} 429s"


def _times(found: Any) -> str:
    if not _usable(found):
        return _NOT_MEASURED
    return f"{found['ratio']:.2f}x" + (f", {_lost(found)}" if found["lost"] + found["wrong"] else "")


def _faulty(found: Any) -> str:
    return f"{found['ratio']:.2f}x, {_lost(found)}" if _usable(found) else _NOT_MEASURED


def _lost(found: Measured) -> str:
    lost = int(found["lost"] + found["wrong"])
    return f"{lost:,} lost" if lost else "none lost"


# --------------------------------------------------------------------------------------------------------------- llmkit's own


def _limits() -> str:
    """llmkit under every condition of the rate benchmark."""
    rate = read("rate")
    lines = []
    for condition in CONDITIONS:
        found: Any = rate.get(f"{condition}/llmkit")
        if not _usable(found):
            continue
        shape, _, what = condition.partition("-")
        lines.append(
            [
                f"kept by the {shape}; {WHAT[what]}",
                f"{found['ratio']:.2f}x",
                f"{CONDITIONS[condition][2]:.2f}x",
                f"{found['refused']:,}",
                f"{found['lost'] + found['wrong']:,}",
                f"{per_row(found):.2f}",
            ]
        )
    return _markdown((f"measured {_dates('rate')}", "time / ideal", "wanted", "429s", "lost", "CPU ms a row"), lines)


def _growth() -> str:
    lines = [
        [f"{found['rows']:,.0f}", f"{per_row(found):.3f}", f"{found['rows'] / found['seconds']:,.0f}", f"{found['peak'] / 1e6:,.0f} MB"]
        for found in sorted(read("growth").values(), key=lambda one: one["rows"])
        if _usable(found)
    ]
    return _markdown(("rows", "CPU ms a row", "rows a second", "memory over the frame"), lines)
