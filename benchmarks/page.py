"""The tables of README and ``docs/performance.md``, drawn from the figures that are kept, between marks that stand there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

from . import plans
from .measure import ROOT, Measured, best, per_row
from .rate import CONDITIONS, WHAT
from .results import read
from .search import CONTESTANTS, called

_PAGES = ("README.md", "docs/performance.md", "docs/scale.md", "docs/vectors.md")
_NOT_MEASURED = "–"


def write_tables() -> str:
    """Put every table where its marks are; the pages that changed, as a line."""
    tables = {"contest": _contest, "limits": _limits, "growth": _growth, "files": _files, "search": _search} | {
        "plans": partial(_markdown, plans.PLAN_HEAD, plans.plan_lines()),
        "checks": partial(_markdown, plans.CHECK_HEAD, plans.check_lines()),
        "sharing": partial(_markdown, plans.SHARED_HEAD, plans.shared_lines()),
    }
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


# ----------------------------------------------------------------------------------------------------------------------- vectors


def _search() -> str:
    """``llmkit.Index`` beside bare numpy and bare faiss, by rows."""
    entries = read("search")
    lines = []
    order = list(CONTESTANTS)

    def place(name: str) -> tuple[int, int]:
        rows, _, contestant = name.partition("/")
        return int(rows), order.index(contestant)

    for name in sorted(entries, key=place):
        rows, _, contestant = name.partition("/")
        found = entries[name]
        if not _usable(found):
            continue
        held_up = f"{1e3 * found['pause']:,.0f} ms ({1e3 * found['idle']:,.0f})" if "idle" in found else _NOT_MEASURED
        figures = (f"{found['recall']:.3f}", f"{found['many']:,.0f}", f"{found['alone']:,.0f}", f"{found['cpu']:,.1f} s")
        lines.append([f"{int(rows):,}", called(contestant), *figures, f"{found['peak'] / 1e6:,.0f} MB", held_up])
    load = max((found["load"] for found in entries.values() if "load" in found), default=0.0)
    head = (
        "rows",
        "",
        "recall@10",
        "queries a second, of 1,000 at once",
        "one by one",
        "CPU to build",
        "memory over the frame",
        "longest pause (idle)",
    )
    return f"{_markdown(head, lines)}\n\n{_dates('search')}, two cores, load up to {load:.0f} from other work."


# ------------------------------------------------------------------------------------------------------------- Parquet to Parquet


def _files() -> str:
    """llmkit beside what else works on files and clusters."""
    files = read("files")
    names = dict.fromkeys(name.partition("/")[2] for name in files)
    lines = []
    for name in sorted(names, key=lambda name: not name.startswith("llmkit")):
        free: Any = files.get(f"free/{name}")
        limited: Any = files.get(f"limit/{name}")
        cells = [
            name,
            f"{free['rows'] / free['seconds']:,.0f}" if _usable(free) else _NOT_MEASURED,
            f"{per_row(free):.2f}" if _usable(free) else _NOT_MEASURED,
            f"{free['peak'] / 1e6:,.0f} MB" if _usable(free) else _NOT_MEASURED,
            f"{limited['rows'] / limited['seconds']:,.0f}, {limited['refused']:,} 429s" if _usable(limited) else _NOT_MEASURED,
            *(_killed(files.get(f"{condition}/{name}")) for condition in ("worker", "all")),
            _NOT_MEASURED if not _usable(free) else "yes" if free["in_order"] else "no",
            f"{free['load']:.0f}" if _usable(free) else _NOT_MEASURED,
        ]
        lines.append([f"**{cell}**" for cell in cells] if name.startswith("llmkit") else cells)
    head = (
        f"measured {_dates('files')}",
        "rows a second",
        "CPU ms a row",
        "memory",
        "rows a second, limit 200",
        "paid twice, a worker killed",
        "paid twice, all killed",
        "in order",
        "load",
    )
    return _markdown(head, lines)


def _killed(found: Any) -> str:
    if not _usable(found):
        return _NOT_MEASURED
    lost = found["lost"] + found["wrong"]
    return f"{found['repeats']:,} of {found['rows']:,}" + (f", {lost:,} lost" if lost else "")
