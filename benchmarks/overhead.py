"""Rivals against a server that answers at once, one row a request, 64 in flight: their cost beside ``chat``'s contestants; and duplicates.

The rows are fewer than in ``chat``, where a thousandth of a millisecond counts: these differ by factors.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from .account import Conditions
from .contest import Job
from .contestants import Options, contestants
from .measure import Measured, judged, per_row, table
from .results import kept
from .server import serving, stats

IN_FLIGHT = 64
#: name -> (rows, how many of them differ)
CONDITIONS = {"overhead": (2_000, 2_000), "duplicates": (2_000, 200)}


def run(options: Options) -> tuple[dict[str, Measured], list[dict[str, Any]]]:
    """(entries named ``condition/contestant``, targets)."""
    entries: dict[str, Measured] = {}
    targets: list[dict[str, Any]] = []
    for contestant, do in contestants(options):
        for condition, (rows, different) in CONDITIONS.items():
            if not options.wants(condition):
                continue
            entry = kept("overhead", f"{condition}/{contestant}", partial(_measured, rows, different, do), _short)
            (found,) = entry.values()
            entries |= entry
            if contestant == "llmkit" and condition == "duplicates":
                targets.append(judged("duplicates: requests / different rows", found["requests"] / different, 1.0))
    return entries, targets


def _short(found: Measured) -> str:
    return f"{per_row(found):.2f} ms CPU a row, {found['requests']:,} requests"


def _measured(rows: int, different: int, do: Callable[[Job], Measured]) -> Measured:
    with serving(Conditions(counting=True)) as url:
        found = do(Job(url, rows, different=different, in_flight=IN_FLIGHT))
        counted = stats(url)
    return {**found, "requests": counted["requests"]}


def drawn(entries: dict[str, Measured]) -> str:
    lines = [
        (
            name,
            f"{found['rows']:,}",
            f"{found['rows'] / found['seconds']:,.0f}",
            f"{per_row(found):.2f}",
            f"{found['requests']:,}",
            f"{found['lost'] + found['wrong']:,}",
            f"{found['peak'] / 1e6:,.0f}",
        )
        for name, found in entries.items()
        if "gave_up" not in found
    ]
    return table(("no latency, 64 in flight", "rows", "rows/s", "CPU ms/row", "requests", "lost", "peak MB"), lines)
