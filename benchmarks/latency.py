"""A realistic latency, 256 in flight, no limit: how full a tool keeps the line.

The bound is list scheduling: the same latencies in the same order, each given to the first of 256 places that becomes free, with no other
cost at all.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from functools import partial
from typing import Any

from .account import Conditions
from .contest import Job
from .contestants import Options, contestants
from .measure import Measured, judged, per_row, table
from .results import kept
from .rows import fault, latency
from .server import serving, stats

IN_FLIGHT = 256
SIZES = (4_000, 10_000)


def bound(rows: int, places: int = IN_FLIGHT, timeout: float | None = None) -> float:
    """The least seconds in which the rows can be answered, in their order, so many at a time.

    With a ``timeout`` the faults of ``rows.fault`` befall them: an attempt that fails is made again at once, before any new row, and one
    that hangs holds its place for as long as the time-out says.
    """
    free = [0.0] * places
    again: list[tuple[float, int, int]] = []
    fresh, last = iter(range(rows)), 0.0
    while True:
        now = heapq.heappop(free)
        number = None if again and again[0][0] <= now else next(fresh, None)
        if number is not None:
            attempt = 1
        elif again:
            ready, number, attempt = heapq.heappop(again)
            now = max(now, ready)
        else:
            return last
        what = fault(number, attempt) if timeout is not None else None
        over = now + (timeout if timeout is not None and what == "hang" else latency(number))
        last = max(last, over)
        heapq.heappush(free, over)
        if what:
            heapq.heappush(again, (over, number, attempt + 1))


def run(options: Options) -> tuple[dict[str, Measured], list[dict[str, Any]]]:
    """(entries named ``rows/contestant``, targets)."""
    entries: dict[str, Measured] = {}
    targets: list[dict[str, Any]] = []
    for contestant, do in contestants(options):
        for rows in SIZES[:1] if options.quick else SIZES:
            if not options.wants(str(rows)):
                continue
            entry = kept("latency", f"{rows}/{contestant}", partial(_measured, rows, do), _short)
            (found,) = entry.values()
            entries |= entry
            if contestant == "llmkit":
                targets.append(judged(f"{rows:,} rows, {IN_FLIGHT} in flight: time / bound", found["ratio"], 1.03))
    return entries, targets


def _short(found: Measured) -> str:
    return f"{found['ratio']:.2f}x the bound"


def _measured(rows: int, do: Callable[[Job], Measured]) -> Measured:
    with serving(Conditions(latency=True)) as url:
        found = do(Job(url, rows, in_flight=IN_FLIGHT))
        counted = stats(url)
    least = bound(rows)
    return {**found, "bound": least, "ratio": found["seconds"] / least, "most_in_flight": counted["most_in_flight"]}


def drawn(entries: dict[str, Measured]) -> str:
    lines = [
        (
            name,
            f"{found['seconds']:.2f}",
            f"{found['bound']:.2f}",
            f"{found['ratio']:.2f}x",
            f"{found['lost'] + found['wrong']:,}",
            f"{found['most_in_flight']:,}",
            f"{per_row(found):.2f}",
        )
        for name, found in entries.items()
        if "gave_up" not in found
    ]
    return table(("latency, 256 in flight", "s", "bound s", "/ bound", "lost", "in flight", "CPU ms/row"), lines)
