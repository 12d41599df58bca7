"""Under a rate limit: 2,000 rows of 100 tokens, 3,000 requests and 150,000 tokens a minute, a median latency of 0.4 s.

Each condition is met by a fresh server with full budgets, so that nobody profits from another's run. The ideal is computed from what the
contestant itself sent (``account.ideal``): a tool that says more for each row is measured by what that must cost.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from .account import REQUESTS_PER_MINUTE, TOKENS_PER_MINUTE, Conditions, ideal
from .contest import Job
from .contestants import Options, contestants
from .measure import Measured, judged, per_row, table
from .results import kept
from .server import bookings, serving, stats

ROWS = 2_000
TOKENS = 100

#: name -> (what the server does, whether llmkit is told the limits, most times the ideal, most refusals a row)
CONDITIONS: dict[str, tuple[Conditions, bool, float, float]] = {
    f"{shape}-{name}": (Conditions(shape=shape, latency=True, **settings), told, slowest, wasted)
    for shape in ("second", "minute")
    for name, settings, told, slowest, wasted in (
        ("headers", {}, False, 1.05, 0.01),
        ("bare", {"headers": False}, False, 1.15, 0.05),
        ("mute", {"headers": False, "message": False}, False, 1.15, 0.05),
        ("told", {}, True, 1.03, 0.0),
        ("low", {"characters_per_token": 2.0}, False, 1.10, 0.01),
        ("high", {"characters_per_token": 8.0}, False, 1.10, 0.01),
    )
}
#: What rivals are measured under.
RIVALS = ("second-headers", "minute-headers")

WHAT = {
    "headers": "limits not told, headers sent",
    "bare": "limits not told, no header",
    "mute": "limits not told, no header, refusals that say nothing",
    "told": "limits told",
    "low": "tokens estimated 2x too low",
    "high": "tokens estimated 2x too high",
}


def run(options: Options) -> tuple[dict[str, Measured], list[dict[str, Any]]]:
    """(entries named ``condition/contestant``, targets)."""
    unknown = set(options.only) - set(CONDITIONS)
    if unknown:
        raise SystemExit(f"no condition is named {', '.join(sorted(unknown))}; there are {', '.join(CONDITIONS)}")
    entries: dict[str, Measured] = {}
    judged_ones: list[dict[str, Any]] = []
    for contestant, do in contestants(options):
        ours = contestant == "llmkit"
        for condition in CONDITIONS if ours else options.only or RIVALS:
            if options.wants(condition):
                entry = kept("rate", f"{condition}/{contestant}", partial(_measured, condition, do, ours), _short)
                entries |= entry
                judged_ones += _judged(condition, *entry.values()) if ours else []
    return entries, judged_ones


def _measured(condition: str, do: Callable[[Job], Measured], ours: bool) -> Measured:
    """A contestant before a server with full budgets."""
    conditions, told, *_ = CONDITIONS[condition]
    told = told or not ours  # rivals that can be told the limits are: it is their best setting
    with serving(conditions) as url:
        found = do(
            Job(
                url,
                ROWS,
                characters=round(TOKENS * conditions.characters_per_token),
                requests_per_minute=REQUESTS_PER_MINUTE * told,
                tokens_per_minute=TOKENS_PER_MINUTE * told,
            )
        )
        counted, booked = stats(url), bookings(url)
    del counted["by_second"]
    best = ideal(conditions.shape, booked)
    return {**found, **counted, "ideal": best, "ratio": found["seconds"] / best, "tokens": sum(booked)}


def _short(found: Measured) -> str:
    return f"{found['ratio']:.2f}x the ideal, {found['refused']:,} refused, {found['lost'] + found['wrong']:,} lost"


def _judged(condition: str, found: Measured) -> list[dict[str, Any]]:
    _, _, slowest, wasted = CONDITIONS[condition]
    return [
        judged(f"{condition}: time / ideal", found["ratio"], slowest),
        judged(f"{condition}: refusals a row", found["refused"] / ROWS, wasted, ""),
        judged(f"{condition}: rows lost", found["lost"] + found["wrong"], 0, ""),
    ]


def drawn(entries: dict[str, Measured]) -> str:
    lines = [
        (
            name,
            f"{found['seconds']:.1f}",
            f"{found['ideal']:.1f}",
            f"{found['ratio']:.2f}x",
            f"{found['refused']:,}",
            f"{found['lost'] + found['wrong']:,}",
            f"{found['duplicates']:,}",
            f"{found['most_in_flight']:,}",
            f"{per_row(found):.2f}",
        )
        for name, found in entries.items()
        if "gave_up" not in found
    ]
    return table(("rate limited", "s", "ideal s", "/ ideal", "429s", "lost", "twice", "in flight", "CPU ms/row"), lines)
