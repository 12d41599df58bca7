"""llmkit at 1,000 to 1,000,000 rows against a server that answers at once: what a row costs must not depend on how many there are."""

from __future__ import annotations

from typing import Any

from . import chat, measure
from .contestants import Options
from .measure import Measured, best, judged, per_row, table
from .results import kept
from .server import serving

#: rows -> how often; small runs are noisy.
SIZES = {1_000: 9, 10_000: 3, 100_000: 2}
LARGEST = 1_000_000


def run(options: Options) -> tuple[dict[str, Measured], list[dict[str, Any]]]:
    """(entries named by their rows, targets)."""
    entries: dict[str, Measured] = {}
    sizes = {**SIZES, LARGEST: 1} if options.full else SIZES
    with serving() as url:
        for rows, rounds in sizes.items():
            if not options.wants(str(rows)) or (options.quick and rows > 10_000):
                continue

            def measured(rows: int = rows, rounds: int = rounds) -> Measured:
                return best([measure.contest(chat.__name__, "llmkit", url, rows) for _ in range(rounds)])

            entries |= kept("growth", str(rows), measured, lambda found: f"{per_row(found):.3f} ms CPU a row")
    targets = []
    if {"1000", "100000"} <= set(entries):
        targets.append(judged("CPU a row, 100,000 rows / 1,000 rows", per_row(entries["100000"]) / per_row(entries["1000"]), 1.10))
    if str(LARGEST) in entries:
        targets.append(judged("memory over the frame at 1,000,000 rows", entries[str(LARGEST)]["peak"] / 1e6, 400, " MB"))
    return entries, targets


def drawn(entries: dict[str, Measured]) -> str:
    lines = [
        (f"{found['rows']:,.0f}", f"{found['rows'] / found['seconds']:,.0f}", f"{per_row(found):.3f}", f"{found['peak'] / 1e6:,.0f}")
        for found in entries.values()
    ]
    return table(("growth, rows", "rows/s", "CPU ms/row", "peak MB over the frame"), lines)
