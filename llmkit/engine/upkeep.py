"""How one shard is kept small: what was used longest ago, what a user wants gone, and the room that both leave behind.

Each function is one step on an open database, in the transaction of whoever calls it.
"""

from __future__ import annotations

import sqlite3
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import NamedTuple

from .segments import Place, Segments

__all__ = ["HOUR", "Match", "ages", "clear", "count", "cut", "evict", "move", "shrink", "size", "sparse"]

HOUR = 3600.0

#: The hour in which a reply was last found or written; files of version 1 know only when it was written.
USED = "coalesce(used, CAST(created / 3600 AS INTEGER), 0)"
#: Bytes of a reply; what stands beside the value is taken at its usual size.
_BYTES = "length(value) + coalesce(length, 0) + 160"

#: Rows of one transaction.
_ROWS = 20_000


class Match(NamedTuple):
    """Which replies are meant: of this operation, of this model, written before this moment; ``None`` is any."""

    operation: str | None = None
    model: str | None = None
    before: float | None = None


_MATCHES = "(?1 IS NULL OR operation = ?1) AND (?2 IS NULL OR coalesce(target, model) = ?2 OR model = ?2) AND (?3 IS NULL OR created < ?3)"


def size(db: sqlite3.Connection) -> int:
    """Bytes of the file that are in use."""
    pages, free, each = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size"))
    return int((pages - free) * each)


# ------------------------------------------------------------------------------------------------------------- removing


def ages(db: sqlite3.Connection) -> Mapping[int, int]:
    """Bytes of replies by the hour in which they were last used."""
    return dict(db.execute(f"SELECT {USED} AS hour, sum({_BYTES}) FROM replies GROUP BY hour").fetchall())  # noqa: S608 - our own text


def cut(of_shards: Iterable[Mapping[int, int]], need: float, limit: int = sys.maxsize) -> tuple[int, float] | None:
    """(hour, bytes): what is older than the hour has to go, and so many bytes of that hour. ``None`` where nothing may go.

    Nothing from ``limit`` on goes, whatever is needed.
    """
    total: Counter[int] = Counter()
    for one in of_shards:
        total.update(one)
    found = None
    for hour in sorted(hour for hour in total if hour < limit):
        if need <= 0:
            break
        found = hour, need
        need -= total[hour]
    return found


def evict(db: sqlite3.Connection, after: int, hour: int, rest: float) -> tuple[int | None, int, float]:
    """Remove some of what ``cut`` said, behind the row ``after``: (the row to go on after, rows removed, what is left of ``rest``)."""
    sql = f"SELECT id, {USED}, {_BYTES} FROM replies WHERE id > ? AND {USED} <= ? ORDER BY id LIMIT ?"  # noqa: S608 - our own text
    rows = db.execute(sql, (after, hour, _ROWS)).fetchall()
    victims = []
    for number, used, amount in rows:
        if used == hour:
            if rest <= 0:
                continue
            rest -= amount
        victims.append((number,))
    db.executemany("DELETE FROM replies WHERE id = ?", victims)
    return (rows[-1][0] if len(rows) == _ROWS else None), len(victims), rest


def clear(db: sqlite3.Connection, match: Match) -> int:
    return db.execute(f"DELETE FROM replies WHERE {_MATCHES}", match).rowcount  # noqa: S608 - our own text


def count(db: sqlite3.Connection, match: Match) -> int:
    return int(db.execute(f"SELECT count(*) FROM replies WHERE {_MATCHES}", match).fetchone()[0])  # noqa: S608 - our own text


# ------------------------------------------------------------------------------------------------------------- the room


def sparse(db: sqlite3.Connection, segments: Segments) -> list[int]:
    """Segments of which more than a quarter belongs to no reply any more."""
    live = dict(db.execute("SELECT segment, sum(length) FROM replies WHERE segment IS NOT NULL GROUP BY segment").fetchall())
    return [number for number in segments.numbers() if live.get(number, 0) <= 0.75 * segments.size(number)]


def move(db: sqlite3.Connection, segments: Segments, number: int) -> None:
    """Write the values of a segment anew elsewhere; once that is committed the file can go. What cannot be read is no answer, and goes."""
    rows = db.execute("SELECT key, segment, start, length, checksum FROM replies WHERE segment = ?", (number,)).fetchall()
    if rows:
        segments.avoid(number)
    values = segments.read((key, Place(*place)) for key, *place in rows)
    while some := list(islice(values, 256)):
        places = segments.append(some)
        db.executemany(
            "UPDATE replies SET segment = ?, start = ?, length = ?, checksum = ? WHERE key = ?",
            [(*place, key) for (key, _), place in zip(some, places, strict=True)],
        )
    db.execute("DELETE FROM replies WHERE segment = ?", (number,))


def shrink(db: sqlite3.Connection) -> None:
    """Give pages that hold nothing back to the disk. Files of version 1 keep theirs and fill them again."""
    db.executescript("PRAGMA incremental_vacuum")  # a script, since each step of this statement gives back one page
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
