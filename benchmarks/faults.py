"""2 % of the attempts end in a 500, 1 % in a reset connection, 1 % are never answered: rows lost, and time against the same without faults.

The time-out of one attempt is set to 5 s for everybody, and 64 are in flight. Hung requests hold their places, so that even perfect retries
take longer: ``least`` is the ratio of the two bounds of list scheduling, with faults and without. With few rows or many places that alone
passes any reasonable target (1.67 for 4,000 rows and 256 in flight), since the last hang outlives everything else.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from .account import Conditions
from .contest import Job
from .contestants import Options, contestants
from .latency import bound
from .measure import Measured, judged, table
from .results import kept
from .server import serving, stats

ROWS = 10_000
IN_FLIGHT = 64
TIMEOUT = 5.0


def run(options: Options) -> tuple[dict[str, Measured], list[dict[str, Any]]]:
    """(entries named by contestant, targets)."""
    entries: dict[str, Measured] = {}
    targets: list[dict[str, Any]] = []
    for contestant, do in contestants(options):
        entry = kept("faults", contestant, partial(_measured, do), _short)
        (found,) = entry.values()
        entries |= entry
        if contestant == "llmkit":
            targets += [
                judged("faults: time / without faults", found["ratio"], 1.3),
                judged("faults: rows lost", found["lost"] + found["wrong"], 0, ""),
            ]
    return entries, targets


def _short(found: Measured) -> str:
    return f"{found['ratio']:.2f}x the time without, {found['lost'] + found['wrong']:,} lost"


def _measured(do: Callable[[Job], Measured]) -> Measured:
    found: dict[bool, Measured] = {}
    for faulty in (False, True):
        with serving(Conditions(latency=True, faults=faulty)) as url:
            found[faulty] = do(Job(url, ROWS, in_flight=IN_FLIGHT, timeout=TIMEOUT))
            counted = stats(url)
    return {
        **found[True],
        "without": found[False]["seconds"],
        "least": bound(ROWS, IN_FLIGHT, TIMEOUT) / bound(ROWS, IN_FLIGHT),
        "ratio": found[True]["seconds"] / found[False]["seconds"],
        "requests": counted["requests"],
        "failed": counted["failed"],
    }


def drawn(entries: dict[str, Measured]) -> str:
    lines = [
        (
            name,
            f"{found['seconds']:.1f}",
            f"{found['without']:.1f}",
            f"{found['ratio']:.2f}x",
            f"{found['least']:.2f}x",
            f"{found['lost'] + found['wrong']:,}",
            f"{found['requests'] / ROWS:.3f}",
        )
        for name, found in entries.items()
        if "gave_up" not in found
    ]
    return table(("2 % 500s, 1 % resets, 1 % hangs", "s", "without s", "ratio", "least", "lost", "requests/row"), lines)
