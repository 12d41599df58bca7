"""What the journal of one file comes to, added up where it lies: a million outcomes are read as some thousand sums.

A file of an earlier version lacks some columns: what they would have said is unknown, hence ``NULL``.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

__all__ = ["OutcomesPage", "read_page"]


@dataclass(frozen=True, slots=True)
class OutcomesPage:
    """A stretch of the journal.

    Attributes
    ----------
    sums : list of tuple
        (run, model, kind of error, minute in which they ended since 1970, answers, errors, input, cached input, written input, output,
        answers and errors that were billed, US dollars, how many of the billed have no known cost, requests that were lost on the way).
    seconds : list of tuple
        (run, model, seconds, seconds in the queue) of each live answer.
    end : (int, int) or None
        The (run, task) that the next page begins after, ``None`` at the end.
    """

    sums: list[tuple[Any, ...]]
    seconds: list[tuple[int, str, float, float | None]]
    end: tuple[int, int] | None


def read_page(db: sqlite3.Connection, after: tuple[int, int], last_run: int, most: int) -> OutcomesPage:
    """The next ``most`` outcomes in the order of (run, task)."""
    there = {row[1] for row in db.execute("PRAGMA table_info(outcomes)")}
    has = {name: name if name in there else "NULL" for name in ("queued", "cache_write", "cost", "lost", "finished")}
    end = db.execute(_END, (*after, last_run, most - 1)).fetchone()
    between = (*after, *(end or (last_run + 1, -1)))
    # An error that was shared with a run that asked for the same at the same time was not paid again: it took no attempt.
    billed = "(source IS NOT NULL OR (attempts > 0 AND input + output > 0))"
    sums = (
        f"SELECT run, model, error, CAST({has['finished']} / 60 AS INTEGER) AS minute, sum(source IS NOT NULL), sum(error IS NOT NULL),"  # noqa: S608 - names of columns, and our own
        f" total(input * (attempts > 0)), total(cached_input * (attempts > 0)), total({has['cache_write']} * (attempts > 0)),"
        f" total(output * (attempts > 0)), sum({billed}), total({has['cost']} * (attempts > 0)), sum({billed} AND {has['cost']} IS NULL),"
        f" total({has['lost']}) FROM outcomes {_BETWEEN} GROUP BY run, model, error, minute"
    )
    seconds = f"SELECT run, model, seconds, {has['queued']} FROM outcomes {_BETWEEN} AND source = 'live'"  # noqa: S608 - as above
    return OutcomesPage(db.execute(sums, between).fetchall(), db.execute(seconds, between).fetchall(), end)


_END = "SELECT run, task FROM outcomes WHERE (run, task) > (?, ?) AND run <= ? ORDER BY run, task LIMIT 1 OFFSET ?"
_BETWEEN = "WHERE (run, task) > (?, ?) AND (run, task) <= (?, ?)"
