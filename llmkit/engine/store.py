"""What was paid for is kept: replies by key, outcomes by run, in SQLite files that each have exactly one writer.

Shard files: a process claims the first one that nobody holds (by a lock that the system drops when a process dies, also by
``kill -9``) and is its only writer for as long as it lives; the others it reads. Several writers on one WAL file meet SQLite's
WAL-reset bug, fixed only in 3.51.3 (tailscale.com/blog/sqlite-wal-reset-bug, seen 2026-11-21), and most interpreters link an older one.

Large values (vectors, long answers, sound) lie in files beside their shard (``segments.py``): first the value is appended, then the row
that says where is committed, so that a killed process leaves bytes that no row knows of, at the most.

Plain blocking code for one thread; ``writer.py`` is its face to the loop, ``upkeep.py`` keeps the files within their bound.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol, TypeVar

from ..event_loop import abandon
from . import upkeep
from .claims import Claims, try_lock
from .journal import OutcomesPage, read_page
from .segments import LARGE, Place, Segments
from .upkeep import HOUR, Match

__all__ = ["Entry", "Held", "Match", "OutcomeRow", "OutcomesPage", "ReplyRow", "Store", "StoreBusy", "StoreLost", "Stored"]

T = TypeVar("T")

#: Raised when the tables change; a file of a later version is left alone, an earlier one is brought up by the steps it has not taken.
VERSION = 2

#: By version: what makes a file of the version before one of this. A new file takes all of them.
_STEPS = {
    1: """
CREATE TABLE replies (
    id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, value BLOB NOT NULL,
    input INTEGER, cached_input INTEGER, output INTEGER, finish TEXT, model TEXT, created REAL);
CREATE TABLE runs (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, operation TEXT, model TEXT, started REAL, ended REAL, rows INTEGER,
    done INTEGER, errors INTEGER, stored INTEGER, requests INTEGER, input INTEGER, cached_input INTEGER, output INTEGER,
    cost REAL, stopped TEXT);
CREATE TABLE outcomes (
    run INTEGER NOT NULL, task INTEGER NOT NULL, key BLOB, source TEXT, error TEXT, model TEXT, attempts INTEGER, seconds REAL,
    input INTEGER, cached_input INTEGER, output INTEGER, PRIMARY KEY (run, task)) WITHOUT ROWID;
""",
    # replies: `model` is what the vendor calls itself, `target` what was asked; `used` in hours; the last four are a Place.
    # outcomes: `queued` and `finished` in seconds, `lost` are requests whose answer never came.
    # touched: when this process found replies in shards that others write.
    2: """
ALTER TABLE replies ADD COLUMN target TEXT;
ALTER TABLE replies ADD COLUMN operation TEXT;
ALTER TABLE replies ADD COLUMN cache_write INTEGER;
ALTER TABLE replies ADD COLUMN cost REAL;
ALTER TABLE replies ADD COLUMN used INTEGER;
ALTER TABLE replies ADD COLUMN segment INTEGER;
ALTER TABLE replies ADD COLUMN start INTEGER;
ALTER TABLE replies ADD COLUMN length INTEGER;
ALTER TABLE replies ADD COLUMN checksum INTEGER;
ALTER TABLE runs ADD COLUMN cache_write INTEGER;
ALTER TABLE outcomes ADD COLUMN cache_write INTEGER;
ALTER TABLE outcomes ADD COLUMN queued REAL;
ALTER TABLE outcomes ADD COLUMN requests INTEGER;
ALTER TABLE outcomes ADD COLUMN cost REAL;
ALTER TABLE outcomes ADD COLUMN lost INTEGER;
ALTER TABLE outcomes ADD COLUMN finished REAL;
CREATE TABLE history (
    run INTEGER NOT NULL, at REAL NOT NULL, model TEXT NOT NULL, window REAL, in_flight INTEGER, waiting INTEGER, sent INTEGER,
    refused INTEGER, PRIMARY KEY (run, at, model)) WITHOUT ROWID;
CREATE TABLE touched (key BLOB PRIMARY KEY, used INTEGER NOT NULL) WITHOUT ROWID;
""",
}

#: A row is 3 to 5 microseconds cheaper to write than on pages of 16 KiB.
_PAGE = 8192


class StoreBusy(Exception):
    """Another process holds the file; what was to be written is still to be written."""


class StoreLost(Exception):
    """The file cannot be written any more: the disk is full, or was taken away."""


class Stored(NamedTuple):
    """A reply as it was kept: ``value`` is the operation's packed bytes, the counts are tokens."""

    value: bytes
    input: int
    cached_input: int
    output: int
    finish: str | None
    model: str | None
    cache_write: int = 0


class ReplyRow(NamedTuple):
    """A reply on its way into ``replies``. ``model`` is what the vendor calls itself, ``target`` the ``provider/model`` that was asked."""

    key: bytes
    value: bytes
    input: int
    cached_input: int
    output: int
    finish: str | None
    model: str | None
    created: float
    target: str | None = None
    operation: str | None = None
    cache_write: int = 0
    cost: float | None = None


class OutcomeRow(NamedTuple):
    """A line of ``outcomes``: what became of one task, without a word of it.

    Attributes
    ----------
    seconds, queued : float or None
        From the first request to the answer, and before that from being ready to being sent.
    requests, lost : int or None
        HTTP requests that were answered; those that were sent and whose answer never came, which may have been billed.
    cost : float or None
        US dollars at the price of the target that served; ``None`` is unknown.
    finished : float or None
        When it was settled, by the wall clock.
    """

    run: int
    task: int
    key: bytes
    source: str | None
    error: str | None
    model: str | None
    attempts: int
    seconds: float
    input: int
    cached_input: int
    output: int
    cache_write: int = 0
    queued: float | None = None
    requests: int | None = None
    cost: float | None = None
    lost: int = 0
    finished: float | None = None


class Held(NamedTuple):
    """One reply of the cache as ``pages`` hands it out."""

    key: bytes
    stored: Stored
    operation: str | None
    target: str | None
    created: float | None
    cost: float | None


class Entry(Protocol):
    """One settled task on its way to the disk. Its rows are made in the worker thread, so that what waits is one object a task."""

    @property
    def key(self) -> bytes: ...

    @property
    def answered(self) -> bool:
        """Whether there is a reply to keep; errors have none."""

    def reply(self) -> ReplyRow:
        """The row of ``replies``."""

    def outcome(self) -> OutcomeRow | None:
        """The row of ``outcomes``; ``None`` for an answer that no task asked for here."""

    def durable(self) -> None:
        """Called on the loop once both are kept."""


class Store:
    """The shards of one directory. One thread only.

    Parameters
    ----------
    directory : Path
        Made with mode 0700, and so is what is missing above it. One that belongs to somebody else is refused.
    most : float
        Bytes that all files of the directory may have together; ``trim`` sees to it. 0: no bound.
    now : callable
        The wall clock.

    Raises
    ------
    StoreLost
        Nothing can be written there.
    """

    def __init__(self, directory: Path, most: float = 0.0, now: Callable[[], float] = time.time) -> None:
        self.directory = directory.absolute()
        self.most = most
        self._now = now
        self._warned = False
        #: When the runs of this process began that are still going.
        self._going: dict[int, float] = {}
        self._stuck_at = 0
        self._unchecked = 0
        self._others: dict[Path, sqlite3.Connection] = {}
        #: Damaged files, kept locked so that no other process takes them up.
        self._left: dict[Path, IO[bytes]] = {}
        try:
            _make(self.directory)
            _refuse_strangers(self.directory)
            self._db, self._lock, self.path = self._claim()
        except (OSError, sqlite3.Error) as error:
            raise StoreLost(_plainly(error)) from None
        self._segments = Segments(self.path)
        self.claims = Claims(self.path.with_suffix(".lock"), self._lock)
        self._see_others()

    # --------------------------------------------------------------------------------------------------------- opening

    def _claim(self) -> tuple[sqlite3.Connection, IO[bytes], Path]:
        for number in range(10_000):
            path = self.directory / f"shard-{number:03d}.sqlite"
            lock = _lock(path.with_suffix(".lock"))
            if lock is None:
                continue
            try:
                return self._open(path), lock, path
            except StoreBusy:  # some other program has it all to itself
                lock.close()
            except _Unreadable as error:
                lock.close()
                _warn_of(path, error)
            except BaseException:
                lock.close()
                raise
        raise StoreLost("no free shard")

    @staticmethod
    def _open(path: Path) -> sqlite3.Connection:
        if not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        db = sqlite3.connect(path, isolation_level=None, timeout=0.2, check_same_thread=False)
        try:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > VERSION:
                raise _Unreadable(f"was written by a later llmkit (format {version})")
            if version == 0:
                db.execute(f"PRAGMA page_size={_PAGE}")
                db.execute("PRAGMA auto_vacuum=INCREMENTAL")
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            # The keys of a large cache dirty more pages than the usual 2 MB hold, and what a statement keeps to undo itself would go to a
            # temporary file of its own.
            db.execute("PRAGMA cache_size=-16384")
            db.execute("PRAGMA temp_store=MEMORY")
            if version < VERSION:
                steps = "".join(_STEPS[step] for step in range(version + 1, VERSION + 1))
                db.executescript(f"BEGIN IMMEDIATE; {steps} PRAGMA user_version={VERSION}; COMMIT;")
        except sqlite3.Error as error:
            db.close()
            raise _translated(error) from None
        except _Unreadable:
            db.close()
            raise
        return db

    def _writing(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do ``work`` in a transaction; where the file turns out to be damaged, in that of another file."""
        try:
            with _Transaction(self._db):
                return work(self._db)
        except _Unreadable as error:
            damaged = self.path
            self._left[damaged] = self._lock
            self._db.close()
            self._segments.close()
            self._db, self._lock, self.path = self._claim()
            self._segments = Segments(self.path)
            self.claims.move(self.path.with_suffix(".lock"), self._lock)
            _warn_of(damaged, error)
        with _Transaction(self._db):
            return work(self._db)

    def _see_others(self) -> None:
        """Attach, read-only, the shards that other processes have written."""
        older: list[Path] = []
        for path in sorted(self.directory.glob("shard-*.sqlite")):
            if path == self.path or path in self._others or path in self._left:
                continue
            try:
                db = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=0.2, check_same_thread=False)
            except sqlite3.Error:
                continue  # gone again
            try:
                version = db.execute("PRAGMA user_version").fetchone()[0]
            except sqlite3.Error:
                version = 0  # being made, or damaged: its owner says so
            if version == VERSION:
                self._others[path] = db
                continue
            db.close()
            if 0 < version < VERSION:
                # Brought up, and seen at the next look; one that an older llmkit still writes is left to it until it ends.
                with self._visit(path) as opened:
                    if opened is not None:
                        older.append(path)
        if older:
            self._see_others()

    @contextmanager
    def _visit(self, path: Path) -> Iterator[sqlite3.Connection | None]:
        """The database of another shard, to write in; ``None`` where a living process holds it, or it cannot be read."""
        try:
            lock = _lock(path.with_suffix(".lock"))
        except OSError:
            lock = None
        if lock is None:
            yield None
            return
        with lock:
            try:
                lock.truncate(0)  # what its last owner was asking for: with the lock held again others would believe it
                db = self._open(path)
            except (OSError, StoreBusy, StoreLost, _Unreadable):
                yield None
                return
            with closing(db):
                yield db

    # --------------------------------------------------------------------------------------------------------- reading

    def look_around(self) -> None:
        """Take notice of shards that other processes have begun."""
        self._see_others()

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, Stored]:
        """What is known of these keys (all of one length), in one pass over each shard."""
        found: dict[bytes, Stored] = {}
        missing = list(keys)
        if not missing:
            return found
        hour = int(self._now() / HOUR)
        stale: list[bytes] = []
        elsewhere: list[bytes] = []
        for path, db in self._shards().items():
            if not missing:
                break
            known, old = self._found(path, db, missing, hour - _FRESH)
            (stale if path == self.path else elsewhere).extend(old)
            if known:
                found.update(known)
                missing = [key for key in missing if key not in found]
        if stale or elsewhere:
            self._touch(stale, elsewhere, hour)
        return found

    def _found(self, path: Path, db: sqlite3.Connection, keys: Sequence[bytes], hour: int) -> tuple[dict[bytes, Stored], list[bytes]]:
        """What one shard knows, and those of the keys that were last used before ``hour``."""
        found: dict[bytes, Stored] = {}
        stale: list[bytes] = []
        segments = self._segments if path == self.path else Segments(path)
        # A second time: the owner of the shard may have moved a value between the look at its row and the look at its file.
        for _ in range(1 if path == self.path else 2):
            large: dict[bytes, tuple[Place, list[Any]]] = {}
            try:
                rows = db.execute(_LOOK, _packed(keys)).fetchall()
            except sqlite3.Error:
                break  # a reader that is locked out knows nothing; asking again is the safe answer
            for key, used, segment, start, length, checksum, *facts in rows:
                if not isinstance(facts[0], bytes):
                    continue
                if used < hour:
                    stale.append(key)
                if segment is None:
                    found[key] = Stored(*facts)
                else:
                    large[key] = Place(segment, start, length, checksum), facts
            for key, value in segments.read((key, place) for key, (place, _) in large.items()):
                found[key] = Stored(value, *large[key][1][1:])
            keys = [key for key in large if key not in found]
            if not keys:
                break
        return found, stale

    def _touch(self, stale: Sequence[bytes], elsewhere: Sequence[bytes], hour: int) -> None:
        """Note that these were found: in their rows, or, where another process writes those, in a list that it reads before it evicts."""

        def work(db: sqlite3.Connection) -> None:
            if stale:
                db.execute(_TOUCH, (*_packed(stale), hour))
            if elsewhere:
                db.execute(_TOUCH_ELSEWHERE, (*_packed(elsewhere), hour))

        try:
            self._writing(work)
        except (StoreBusy, StoreLost):
            pass  # it is found all the same, and noted the next time

    def claim(self, wanted: Mapping[bytes, Sequence[bytes]], look: bool = True) -> tuple[dict[bytes, Stored], set[bytes]]:
        """Look questions up, and claim those that are neither answered nor being asked.

        Parameters
        ----------
        wanted : mapping
            For each question's key the keys that an answer may be found by.
        look : bool
            ``False`` claims them all as they are.

        Returns
        -------
        found : dict
            What is known of any of those keys.
        elsewhere : set
            Questions without an answer that another process is asking now.
        """
        with self.claims.gate() as entered:
            if not look:
                if entered:
                    self.claims.add(wanted)
                return {}, set()
            claimed, stirred = self.claims.elsewhere(wanted.keys()) if entered else (set[bytes](), False)
            # After the claims: an answer is durable before its claim goes, so it cannot slip through between the two.
            if stirred:
                self._see_others()
            found = self.get_many([key for along in wanted.values() for key in along])
            unknown = [key for key, along in wanted.items() if key not in found and not any(other in found for other in along)]
            if entered:
                self.claims.add(key for key in unknown if key not in claimed)
            return found, claimed.intersection(unknown)

    def journal(self) -> tuple[list[tuple[Any, ...]], list[str]]:
        """Every line of ``runs`` in every shard, the shard's name before it; and the names of files that cannot be read here."""
        self._see_others()
        lines: list[tuple[Any, ...]] = []
        unread = [path.name for path in self._left]
        for path, db in self._shards().items():
            try:
                lines += [(path.name, *line) for line in db.execute(_LINES).fetchall()]
            except sqlite3.Error:
                unread.append(path.name)
        others = set(self.directory.glob("shard-*.sqlite")) - {*self._shards(), *self._left}
        return lines, sorted([*unread, *(path.name for path in others if not _being_made(path))])

    def outcomes(self, shard: str, after: tuple[int, int], last_run: int, most: int) -> OutcomesPage | None:
        """The next ``most`` outcomes of a shard in the order of (run, task), added up; ``None`` where it cannot be read.

        Parts, since a running run waits for this thread to keep its answers.
        """
        db = self._shards().get(self.directory / shard)
        if db is None:
            return None
        try:
            return read_page(db, after, last_run, most)
        except sqlite3.Error:
            return None

    def history(self, shard: str, run: int) -> list[tuple[Any, ...]]:
        """What ``write_history`` kept of a run: (at, model, window, in_flight, waiting, sent, refused) in the order of time."""
        db = self._shards().get(self.directory / shard)
        if db is None:
            return []
        sql = "SELECT at, model, window, in_flight, waiting, sent, refused FROM history WHERE run = ? ORDER BY at, model"
        try:
            return db.execute(sql, (run,)).fetchall()
        except sqlite3.Error:
            return []

    def sums(self) -> list[tuple[Any, ...]]:
        """The replies by operation and model, a group for each shard.

        Operation, model, answers, bytes, oldest (s), last used (h), input, cached input, written input, output, cost of what is known,
        answers whose cost is unknown.
        """
        self._see_others()
        self._take_touches(self._db)
        return [row for db in self._shards().values() for row in _rows(db, _SUMS)]

    def held(self, most: int) -> Iterator[list[Held]]:
        """Every reply that can be read, ``most`` at a time; one that stands in two shards comes twice."""
        self._see_others()
        for path, db in list(self._shards().items()):
            segments, last = Segments(path), 0
            while rows := _rows(db, _PAGE_OF, (last, most)):
                last = rows[-1][0]
                large = {row[1]: Place(*row[2:6]) for row in rows if row[2] is not None}
                values = dict(segments.read(large.items()))
                found = []
                for _, key, segment, _, _, _, operation, target, created, cost, value, *facts in rows:
                    whole = value if segment is None else values.get(key)
                    if isinstance(whole, bytes):
                        found.append(Held(key, Stored(whole, *facts), operation, target, created, cost))
                yield found

    def check(self) -> list[str]:
        """What is wrong with the files, one line each; nothing, as a rule."""
        self._see_others()
        wrong = [f"{path.name}: is damaged" for path in self._left]
        for path, db in self._shards().items():
            try:
                said = [text for (text,) in db.execute("PRAGMA integrity_check").fetchall() if text != "ok"]
                total, large = db.execute("SELECT count(*), count(segment) FROM replies").fetchone()
            except sqlite3.Error as error:
                wrong.append(f"{path.name}: {error}")
                continue
            wrong += [f"{path.name}: {text}" for text in said]
            if not said:
                segments, last, whole = Segments(path), 0, 0
                while rows := _rows(db, _LARGE_PAGE, (last, 1000)):
                    last = rows[-1][0]
                    whole += sum(1 for _ in segments.read((row[1], Place(*row[2:])) for row in rows))
                if whole != large:
                    wrong.append(f"{path.name}: {large - whole} of {total} values cannot be read from their segments")
        return wrong

    def _shards(self) -> dict[Path, sqlite3.Connection]:
        return {self.path: self._db, **self._others}

    # --------------------------------------------------------------------------------------------------------- writing

    def begin_run(self, run_id: str, operation: str, model: str, rows: int) -> int:
        self._see_others()
        sql = "INSERT INTO runs (id, operation, model, started, rows) VALUES (?,?,?,?,?)"
        self.trim()
        began = self._now()
        number = int(self._writing(lambda db: db.execute(sql, (run_id, operation, model, began, rows))).lastrowid or 0)
        self._going[number] = began
        return number

    def end_run(self, number: int, **facts: Any) -> None:
        names = ", ".join(f"{name}=?" for name in facts)
        values = (self._now(), *facts.values(), number)
        sql = f"UPDATE runs SET ended=?, {names} WHERE number=?"  # noqa: S608 - the names are our own
        self._going.pop(number, None)
        self._writing(lambda db: db.execute(sql, values))
        if not self._going:
            self.trim()

    def write(self, entries: Iterable[Entry]) -> None:
        """Keep these, all or none."""
        entries = list(entries)

        def work(db: sqlite3.Connection) -> None:
            replies = [entry.reply() for entry in entries if entry.answered]
            _insert(db, _INTO_REPLIES, _OR_RENEW, self._placed(replies))
            _insert(db, _INTO_OUTCOMES, "", [row for entry in entries if (row := entry.outcome()) is not None])

        self._writing(work)
        self._unchecked += len(entries)
        if self._unchecked >= _CHECKED_EACH:
            self.trim()

    def _placed(self, replies: Sequence[ReplyRow]) -> list[tuple[Any, ...]]:
        """Rows for the table; the large values among them go into a segment. Within a transaction, so that no lock is waited for."""
        hour = int(self._now() / HOUR)
        large = [row for row in replies if len(row.value) >= LARGE]
        if not large:
            return [(*row, hour, None, None, None, None) for row in replies]
        try:
            places = iter(self._segments.append([(row.key, row.value) for row in large]))
        except OSError as error:
            raise StoreLost(_plainly(error)) from None
        return [
            (*row, hour, None, None, None, None) if len(row.value) < LARGE else (row.key, b"", *row[2:], hour, *next(places))
            for row in replies
        ]

    def take_in(self, rows: Sequence[ReplyRow]) -> int:
        """Keep replies that another machine paid for; how many of them were not known here."""
        known = self.get_many([row.key for row in rows])
        new = {row.key: row for row in rows if row.key not in known}
        self._writing(lambda db: _insert(db, _INTO_REPLIES, _OR_RENEW, self._placed(list(new.values()))))
        return len(new)

    def write_history(self, run: int, rows: Iterable[tuple[Any, ...]]) -> None:
        """Keep samples of a run: (at, model, window, in_flight, waiting, sent, refused), ``at`` in seconds since it began."""
        rows = [(run, *row) for row in rows]
        self._writing(lambda db: _insert(db, "INSERT OR REPLACE INTO history", "", rows))

    # -------------------------------------------------------------------------------------------------------------- upkeep

    @property
    def size(self) -> int:
        """Bytes that all files of the directory hold; room in them that is free counts as such."""
        total = 0
        open_ones = self._shards()
        for path in (*self.directory.glob("vectors-*.bin"), *self.directory.glob("shard-*.sqlite")):
            try:
                total += upkeep.size(open_ones[path]) if path in open_ones else path.stat().st_size
            except (sqlite3.Error, OSError):
                continue
        return total

    def trim(self) -> int:
        """Where the directory has outgrown its bound: remove the replies that were used longest ago, down to nine tenths of it.

        Nothing goes that was used since the oldest run began that is still going. Returns the number of replies that went.
        """
        self._unchecked = 0
        size = self.size if self.most else 0
        # While nothing may go it is not looked for again until the files have grown by a twentieth of the bound.
        if size <= max(self.most, self._stuck_at + 0.05 * self.most if self._going else 0):
            return 0
        self._stuck_at = size
        self._see_others()
        now = int(self._now() / HOUR)
        # A reply that is found is touched once a day only, so what a run has found may look a day older than it is.
        limit = int(min(self._going.values()) / HOUR) - _FRESH if self._going else sys.maxsize
        removed = 0
        try:
            with self._writable() as shards:
                for db in shards.values():
                    self._take_touches(db)
                # Again, since what a row takes is an estimate, and a segment is given back whole.
                for _ in range(3):
                    border = upkeep.cut([upkeep.ages(db) for db in shards.values()], self.size - 0.9 * self.most, limit)
                    if border is None:
                        break
                    hour, rest = border
                    if hour >= now - _FRESH:
                        self._warn_of_the_bound()
                    for path, db in shards.items():
                        gone, rest = self._evict(path, db, hour, rest)
                        removed += gone
                    if self.size <= self.most:
                        break
        except (StoreBusy, StoreLost, _Unreadable, sqlite3.Error, OSError):
            pass  # a bound that is held later
        return removed

    def clear(self, match: Match) -> tuple[int, int]:
        """(replies removed, replies left because another living process writes their file)."""
        self._see_others()
        removed = 0
        with self._writable() as shards:
            for path, db in list(shards.items()):
                try:
                    with _Transaction(db):
                        gone = upkeep.clear(db, match)
                except (StoreBusy, StoreLost, _Unreadable):
                    del shards[path]
                    continue
                removed += gone
                if gone:
                    self._shrink(path, db)
            left = sum(upkeep.count(db, match) for path, db in self._shards().items() if path not in shards)
        return removed, left

    @contextmanager
    def _writable(self) -> Iterator[dict[Path, sqlite3.Connection]]:
        """One's own shard, and those whose processes have ended."""
        with ExitStack() as stack:
            shards = {self.path: self._db}
            for path in list(self._others):
                db = stack.enter_context(self._visit(path))
                if db is not None:
                    shards[path] = db
            yield shards

    def _take_touches(self, db: sqlite3.Connection) -> None:
        """Let the replies of this shard know that other processes found them."""
        touches = [touch for other in self._shards().values() for touch in _rows(other, "SELECT used, key, used FROM touched")]
        if touches:
            with _Transaction(db):
                db.executemany(f"UPDATE replies SET used = ? WHERE key = ? AND {upkeep.USED} < ?", touches)  # noqa: S608 - our own text

    def _evict(self, path: Path, db: sqlite3.Connection, hour: int, rest: float) -> tuple[int, float]:
        after: int | None = 0
        removed = 0
        while after is not None:
            with _Transaction(db):
                after, gone, rest = upkeep.evict(db, after, hour, rest)
            removed += gone
        self._shrink(path, db)
        return removed, rest

    def _shrink(self, path: Path, db: sqlite3.Connection) -> None:
        """Give the room of what was removed back to the disk."""
        segments = self._segments if path == self.path else Segments(path)
        try:
            for number in upkeep.sparse(db, segments):
                with _Transaction(db):
                    upkeep.move(db, segments, number)
                segments.remove(number)
        finally:
            if segments is not self._segments:
                segments.close()
        upkeep.shrink(db)

    def _warn_of_the_bound(self) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"the llmkit cache is held to {self.most / 1e9:g} GB, so answers of the last day are removed from it; "
                "LLMKIT_CACHE_MAX_GB sets another bound, 0 none",
                RuntimeWarning,
                stacklevel=2,
            )

    def close(self) -> None:
        self.claims.close()
        self._segments.close()
        for db in (self._db, *self._others.values()):
            db.close()
        for lock in (self._lock, *self._left.values()):
            lock.close()

    def forget(self) -> None:
        """In a forked child: let go of the databases without closing them (that would disturb the parent's locks and log)."""
        abandon(self._db, self._others)
        self.claims.forget()
        self._segments.close()
        # The lock is shared with the parent through the open file: it stays the parent's, and must not outlive it in here.
        for lock in (self._lock, *self._left.values()):
            lock.close()


_LINES = (
    "SELECT number, id, operation, model, started, ended, rows, done, errors, stored, requests, input, cached_input, output, cost, stopped"
    " FROM runs"
)
#: The keys stand one behind the other in one value: a statement for each look-up, however many there are, and no table to fill first.
_WANTED = (
    "WITH RECURSIVE place(at) AS (SELECT 1 UNION ALL SELECT at + ?2 FROM place WHERE at + ?2 <= length(?1)),"
    " wanted(key) AS (SELECT substr(?1, at, ?2) FROM place)"
)
_LOOK = (
    f"{_WANTED} SELECT key, {upkeep.USED}, segment, start, length, checksum, value, input, cached_input, output, finish, model,"  # noqa: S608 - our own text, as below
    " coalesce(cache_write, 0) FROM wanted CROSS JOIN replies USING (key)"
)
_TOUCH = f"{_WANTED} UPDATE replies SET used = ?3 WHERE key IN wanted"  # noqa: S608
#: Within a day the list stays as it is, and the file unwritten.
_TOUCH_ELSEWHERE = (
    f"{_WANTED} INSERT INTO touched (key, used) SELECT key, ?3 FROM wanted WHERE true"  # noqa: S608
    " ON CONFLICT (key) DO UPDATE SET used = excluded.used WHERE excluded.used > touched.used + 24"
)
#: Answers between two looks at the size of all files.
_CHECKED_EACH = 4096

#: Hours after which a reply that is found again is marked as used again: a day, so that the same cell run all day writes nothing.
_FRESH = 24

_LINES = (
    "SELECT number, id, operation, model, started, ended, rows, done, errors, stored, requests, input, cached_input, output, cost, stopped"
    " FROM runs"
)
_SUMS = (
    "SELECT operation, coalesce(target, model), count(*), sum(length(value) + coalesce(length, 0)), min(created),"  # noqa: S608
    f" max({upkeep.USED}), total(input), total(cached_input), total(cache_write), total(output), total(cost), sum(cost IS NULL)"
    " FROM replies GROUP BY 1, 2"
)
_PAGE_OF = (
    "SELECT id, key, segment, start, length, checksum, operation, target, created, cost,"
    " value, input, cached_input, output, finish, model, coalesce(cache_write, 0) FROM replies WHERE id > ? ORDER BY id LIMIT ?"
)
_LARGE_PAGE = "SELECT id, key, segment, start, length, checksum FROM replies WHERE id > ? AND segment IS NOT NULL ORDER BY id LIMIT ?"

_INTO_REPLIES = (
    "INSERT INTO replies (key, value, input, cached_input, output, finish, model, created, target, operation, cache_write, cost,"
    " used, segment, start, length, checksum)"
)
_OR_RENEW = (
    " ON CONFLICT (key) DO UPDATE SET value=excluded.value, input=excluded.input, cached_input=excluded.cached_input,"
    " output=excluded.output, finish=excluded.finish, model=excluded.model, created=excluded.created, target=excluded.target,"
    " operation=excluded.operation, cache_write=excluded.cache_write, cost=excluded.cost, used=excluded.used,"
    " segment=excluded.segment, start=excluded.start, length=excluded.length, checksum=excluded.checksum"
)
_INTO_OUTCOMES = f"INSERT OR REPLACE INTO outcomes ({', '.join(OutcomeRow._fields)})"


#: Values of one statement at the most: SQLite before 3.32 takes 999. Python lets go of its lock and takes it back around every statement,
#: and while the loop thread is busy each time costs more than a row does.
_VALUES = min(2048, 32766 if sqlite3.sqlite_version_info >= (3, 32) else 999)


def _insert(db: sqlite3.Connection, head: str, tail: str, rows: Iterable[tuple[Any, ...]]) -> None:
    rows = iter(rows)
    while first := list(islice(rows, 1)):
        some = first + list(islice(rows, _VALUES // len(first[0]) - 1))
        marks = f"({','.join('?' * len(some[0]))})"
        db.execute(f"{head} VALUES {','.join([marks] * len(some))}{tail}", [value for row in some for value in row])


def _packed(keys: Sequence[bytes]) -> tuple[bytes, int]:
    # In order, so that the index is read from one end to the other.
    return b"".join(sorted(keys)), len(keys[0])


def _rows(db: sqlite3.Connection, sql: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """What is there; nothing, where the file cannot be read now."""
    try:
        return db.execute(sql, values).fetchall()
    except sqlite3.Error:
        return []


class _Unreadable(Exception):
    pass


def _warn_of(path: Path, error: _Unreadable) -> None:
    warnings.warn(f"{path.name} in the llmkit cache {error}; it was left alone and another file is used", stacklevel=2)


class _Transaction:
    """``BEGIN IMMEDIATE`` ... ``COMMIT``: a deferred transaction fails at once with "locked" when it turns into a write."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._run("BEGIN IMMEDIATE")

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None:
            try:
                self._run("COMMIT")
                return
            except (StoreBusy, StoreLost, _Unreadable) as failed:
                error = failed
        if self._db.in_transaction:
            try:
                self._db.execute("ROLLBACK")
            except sqlite3.Error:
                pass  # SQLite rolled back itself when the disk filled up
        if isinstance(error, sqlite3.Error):
            raise _translated(error) from None
        if kind is None:
            raise error

    def _run(self, sql: str) -> None:
        try:
            self._db.execute(sql)
        except sqlite3.Error as error:
            raise _translated(error) from None


def _translated(error: sqlite3.Error) -> Exception:
    if isinstance(error, sqlite3.InterfaceError | sqlite3.ProgrammingError | sqlite3.DataError):
        return error  # the fault of what was to be written, not of the file
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return _Unreadable(f"is damaged ({error})")
    text = str(error)
    return StoreBusy(text) if "locked" in text or "busy" in text else StoreLost(_plainly(error))


def _plainly(error: BaseException) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _being_made(path: Path) -> bool:
    """Whether its owner has not laid its tables yet; then there is nothing in it."""
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=0.2)) as db:
            return bool(db.execute("PRAGMA user_version").fetchone()[0] == 0)
    except sqlite3.Error:
        return False


def _make(directory: Path) -> None:
    """Make a directory and those above it for this user only; ``mkdir(parents=True)`` would leave the upper ones to the umask."""
    for path in (*reversed(directory.parents), directory):
        if not path.is_dir():
            path.mkdir(mode=0o700, exist_ok=True)


#: How the names of all that llmkit keeps in its folder begin.
_OURS = ("shard-", "vectors-", "account", "jobs")


def _refuse_strangers(directory: Path) -> None:
    if not hasattr(os, "geteuid"):
        return
    link, info, me = directory.lstat(), directory.stat(), os.geteuid()
    if info.st_uid != me or link.st_uid not in (me, 0):
        raise OSError(f"{directory} belongs to another user")
    # One's own folder with other things in it (a project, /tmp for root) keeps its mode: the files in it are 0600.
    if stat.S_IMODE(info.st_mode) & 0o077 and all(name.startswith(_OURS) for name in os.listdir(directory)):
        directory.chmod(0o700)


def _lock(path: Path) -> IO[bytes] | None:
    """Hold ``path`` for this process, or ``None`` where another one does.

    Raises
    ------
    OSError
        Nothing can be held there, e.g. on a network file system without locks.
    """
    handle = os.fdopen(os.open(path, os.O_CREAT | os.O_RDWR, 0o600), "r+b", buffering=0)
    try:
        held = try_lock(handle)
    except OSError:
        handle.close()
        raise
    if not held:
        handle.close()
        return None
    return handle
