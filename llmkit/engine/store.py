"""What was paid for is kept: replies by key, outcomes by run, in SQLite files that each have exactly one writer.

Shard files: a process claims the first one that nobody holds (by a lock that the system drops when a process dies, also by
``kill -9``) and is its only writer for as long as it lives; the others it reads. Several writers on one WAL file meet SQLite's
WAL-reset bug, fixed only in 3.51.3 (tailscale.com/blog/sqlite-wal-reset-bug, seen 2026-11-21), and most interpreters link an older one.

Plain blocking code for one thread; ``writer.py`` is its face to the loop.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

from ..event_loop import abandon

__all__ = ["Entry", "OutcomesPage", "Store", "StoreBusy", "StoreLost", "Stored"]

T = TypeVar("T")

#: Raised when the tables change; a file of a later version is left alone, an earlier one is brought up here.
VERSION = 1

_TABLES = """
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
"""

#: 32 KiB hold five embeddings of 1,536 numbers; 16 KiB hold two and waste a quarter. A row is 3 to 5 microseconds cheaper to write.
_PAGE = 32768


class StoreBusy(Exception):
    """Another process holds the file; what was to be written is still to be written."""


class StoreLost(Exception):
    """The file cannot be written any more: the disk is full, or was taken away."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A reply as it was kept: ``value`` is the operation's packed bytes, the counts are tokens."""

    value: bytes
    input: int
    cached_input: int
    output: int
    finish: str | None
    model: str | None


@dataclass(frozen=True, slots=True)
class OutcomesPage:
    """A stretch of the journal: (run, model, answers, errors, input, cached input, output, answers and errors that were billed),
    (run, model, seconds) of each live answer, and the (run, task) that the next page begins after, ``None`` at the end."""

    sums: list[tuple[Any, ...]]
    seconds: list[tuple[int, str, float]]
    end: tuple[int, int] | None


class Entry(Protocol):
    """One settled task on its way to the disk. Its rows are made in the worker thread, so that what waits is one object a task."""

    @property
    def key(self) -> bytes: ...

    @property
    def answered(self) -> bool:
        """Whether there is a reply to keep; errors have none."""

    def reply(self) -> tuple[Any, ...]:
        """The row of ``replies``."""

    def outcome(self) -> tuple[Any, ...]:
        """The row of ``outcomes``."""

    def durable(self) -> None:
        """Called on the loop once both are kept."""


class Store:
    """The shards of one directory. One thread only.

    Parameters
    ----------
    directory : Path
        Made with mode 0700, and so is what is missing above it. One that belongs to somebody else is refused.

    Raises
    ------
    StoreLost
        Nothing can be written there.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        self._others: dict[Path, sqlite3.Connection] = {}
        #: Damaged files, kept locked so that no other process takes them up.
        self._left: dict[Path, IO[bytes]] = {}
        try:
            _make(self.directory)
            _refuse_strangers(self.directory)
            self._db, self._lock, self.path = self._claim()
        except (OSError, sqlite3.Error) as error:
            raise StoreLost(_plainly(error)) from None
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
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            # Vectors: a group of 256 dirties more pages than the usual 2 MB hold, and what a statement keeps to undo itself would go to a
            # temporary file of its own, as much again as the vectors.
            db.execute("PRAGMA cache_size=-16384")
            db.execute("PRAGMA temp_store=MEMORY")
            if version == 0:
                db.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version={VERSION}; COMMIT;")
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
            self._db, self._lock, self.path = self._claim()
            _warn_of(damaged, error)
        with _Transaction(self._db):
            return work(self._db)

    def _see_others(self) -> None:
        """Attach, read-only, the shards that other processes have written."""
        for path in sorted(self.directory.glob("shard-*.sqlite")):
            if path == self.path or path in self._others or path in self._left:
                continue
            try:
                db = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=0.2, check_same_thread=False)
            except sqlite3.Error:
                continue  # gone again
            try:
                known = db.execute("PRAGMA user_version").fetchone()[0] == VERSION
            except sqlite3.Error:
                known = False  # being made, or damaged: its owner says so
            if known:
                self._others[path] = db
            else:
                db.close()

    # --------------------------------------------------------------------------------------------------------- reading

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, Stored]:
        """What is known of these keys, in one pass over the shards."""
        found: dict[bytes, Stored] = {}
        missing = list(keys)
        for db in (self._db, *self._others.values()):
            for start in range(0, len(missing), 500):
                some = missing[start : start + 500]
                marks = ",".join("?" * len(some))
                try:
                    rows = db.execute(
                        f"SELECT key, value, input, cached_input, output, finish, model FROM replies WHERE key IN ({marks})",  # noqa: S608 - marks are "?,?"
                        some,
                    ).fetchall()
                except sqlite3.Error:
                    continue  # a reader that is locked out knows nothing; asking again is the safe answer
                for key, value, *rest in rows:
                    if isinstance(value, bytes):
                        found[key] = Stored(value, *rest)
            missing = [key for key in missing if key not in found]
            if not missing:
                break
        return found

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
            end = db.execute(_END, (*after, last_run, most - 1)).fetchone()
            between = (*after, *(end or (last_run + 1, -1)))
            return OutcomesPage(db.execute(_SUMS, between).fetchall(), db.execute(_SECONDS, between).fetchall(), end)
        except sqlite3.Error:
            return None

    def _shards(self) -> dict[Path, sqlite3.Connection]:
        return {self.path: self._db, **self._others}

    # --------------------------------------------------------------------------------------------------------- writing

    def begin_run(self, run_id: str, operation: str, model: str, rows: int) -> int:
        self._see_others()
        sql = "INSERT INTO runs (id, operation, model, started, rows) VALUES (?,?,?,?,?)"
        facts = (run_id, operation, model, time.time(), rows)
        return int(self._writing(lambda db: db.execute(sql, facts)).lastrowid or 0)

    def end_run(self, number: int, **facts: Any) -> None:
        names = ", ".join(f"{name}=?" for name in facts)
        values = (time.time(), *facts.values(), number)
        sql = f"UPDATE runs SET ended=?, {names} WHERE number=?"  # noqa: S608 - the names are our own
        self._writing(lambda db: db.execute(sql, values))

    def write(self, entries: Iterable[Entry]) -> None:
        """Keep these, all or none."""
        entries = list(entries)

        def work(db: sqlite3.Connection) -> None:
            _insert(db, _INTO_REPLIES, _OR_RENEW, (entry.reply() for entry in entries if entry.answered))
            _insert(db, "INSERT OR REPLACE INTO outcomes", "", (entry.outcome() for entry in entries))

        self._writing(work)

    def close(self) -> None:
        for db in (self._db, *self._others.values()):
            db.close()
        for lock in (self._lock, *self._left.values()):
            lock.close()

    def forget(self) -> None:
        """In a forked child: let go of the databases without closing them (that would disturb the parent's locks and log)."""
        abandon(self._db, self._others)
        # The lock is shared with the parent through the open file: it stays the parent's, and must not outlive it in here.
        for lock in (self._lock, *self._left.values()):
            lock.close()


_LINES = (
    "SELECT number, id, operation, model, started, ended, rows, done, errors, stored, requests, input, cached_input, output, cost, stopped"
    " FROM runs"
)
_END = "SELECT run, task FROM outcomes WHERE (run, task) > (?, ?) AND run <= ? ORDER BY run, task LIMIT 1 OFFSET ?"
#: An error that was shared with a run that asked for the same at the same time was not paid again: it took no attempt.
_SUMS = (
    "SELECT run, model, sum(source IS NOT NULL), sum(error IS NOT NULL), total(input * (attempts > 0)),"
    " total(cached_input * (attempts > 0)), total(output * (attempts > 0)),"
    " sum(source IS NOT NULL OR (attempts > 0 AND input + output > 0)) FROM outcomes"
    " WHERE (run, task) > (?, ?) AND (run, task) <= (?, ?) GROUP BY run, model"
)
_SECONDS = "SELECT run, model, seconds FROM outcomes WHERE (run, task) > (?, ?) AND (run, task) <= (?, ?) AND source = 'live'"

_INTO_REPLIES = "INSERT INTO replies (key, value, input, cached_input, output, finish, model, created)"
_OR_RENEW = (
    " ON CONFLICT (key) DO UPDATE SET value=excluded.value, input=excluded.input, cached_input=excluded.cached_input,"
    " output=excluded.output, finish=excluded.finish, model=excluded.model, created=excluded.created"
)

#: Rows of one statement. Python lets go of its lock and takes it back around every statement, and while the loop thread is busy each
#: time costs more than the row does. SQLite before 3.32 takes 999 values a statement.
_AT_ONCE = 64


def _insert(db: sqlite3.Connection, head: str, tail: str, rows: Iterable[tuple[Any, ...]]) -> None:
    rows = iter(rows)
    while some := list(islice(rows, _AT_ONCE)):
        marks = f"({','.join('?' * len(some[0]))})"
        db.execute(f"{head} VALUES {','.join([marks] * len(some))}{tail}", [value for row in some for value in row])


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


def _refuse_strangers(directory: Path) -> None:
    if not hasattr(os, "geteuid"):
        return
    link, info, me = directory.lstat(), directory.stat(), os.geteuid()
    if info.st_uid != me or link.st_uid not in (me, 0):
        raise OSError(f"{directory} belongs to another user")
    # One's own folder with other things in it (a project, /tmp for root) keeps its mode: the files in it are 0600.
    if stat.S_IMODE(info.st_mode) & 0o077 and all(name.startswith("shard-") for name in os.listdir(directory)):
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
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        else:
            import fcntl

            # flock, not lockf: it also keeps two sessions of one process apart.
            fcntl.flock(handle.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        handle.close()
        if isinstance(error, BlockingIOError | PermissionError):
            return None
        raise
    return handle
