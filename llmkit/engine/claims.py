"""Who asks for what on this machine just now, so that no two processes pay for one answer.

Each process writes the keys that it is asking for into the lock file of its own shard. The system drops that lock when the process dies,
and with it goes the word of what stands in the file: nobody has to clean up after a ``kill -9``. To look a key up and to claim it is one
step under one more lock, which all processes share and hold for milliseconds. Only what is really being sent is claimed, never what a
process waits for itself; hence no two can wait for each other.

Plain blocking code for the thread that owns the store.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import IO

__all__ = ["Claims", "release", "try_lock"]

#: Where a lock file's text begins: on Windows the byte that is locked cannot be read by others.
_START = 16
#: When it was last written, on the clock that all processes of a machine share, and how many keys of 16 bytes follow.
_HEAD = struct.Struct("<dQ")
_KEY = 16
#: More than any process asks for at once: a head that says more is damaged.
_MOST = 1_000_000


def try_lock(handle: IO[bytes], shared: bool = False) -> bool:
    """Take the lock on an open file; ``False`` where another process, or another handle of this one, holds it.

    Raises
    ------
    OSError
        Nothing can be held there, e.g. on a network file system without locks.
    """
    try:
        if os.name == "nt":
            import msvcrt

            handle.seek(0)
            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        else:
            import fcntl

            # flock, not lockf: it also keeps two sessions of one process apart.
            fcntl.flock(handle.fileno(), (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def release(handle: IO[bytes]) -> None:
    """Give back what ``try_lock`` took."""
    if os.name == "nt":
        import msvcrt

        handle.seek(0)
        msvcrt.locking(handle.fileno(), msvcrt.LK_UNLCK, 1)  # type: ignore[attr-defined]
    else:
        import fcntl

        fcntl.flock(handle.fileno(), fcntl.LOCK_UN)


class _Other:
    """The lock file of another process's shard."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.handle = path.open("rb", buffering=0)
        self.head: bytes | None = None

    def keys(self, count: int) -> set[bytes]:
        """Those that follow the head, which has just been read."""
        parts = []
        left = _KEY * count
        while left > 0 and (part := self.handle.read(left)):
            parts.append(part)
            left -= len(part)
        text = b"".join(parts)
        return {text[start : start + _KEY] for start in range(0, len(text), _KEY)}

    @property
    def alive(self) -> bool:
        if try_lock(self.handle, shared=True):
            release(self.handle)
            return False
        return True


class Claims:
    """What this process is asking for, and what the others are.

    Parameters
    ----------
    path : Path
        The lock file of one's own shard. Lock files are never deleted, and their numbers have no gaps.
    lock : file
        The same, open and locked.
    now : callable
        Seconds on a clock that all processes of the machine share.
    """

    #: Seconds after which the claims of a process that lives but stands still (Ctrl-Z, a debugger) count no more. Living ones renew
    #: theirs several times a second; a long computation can hold that up.
    HANGS = 120.0
    #: Seconds that a look-up waits for the others' look-ups. Whoever stands still in the middle of one holds everybody up once.
    PATIENCE = 5.0

    def __init__(self, path: Path, lock: IO[bytes], now: Callable[[], float] = time.monotonic) -> None:
        self._path, self._own = path, lock
        self._now = now
        self._held: set[bytes] = set()
        self._others: list[_Other] = []
        self._gate: IO[bytes] | None = None
        self._patience = self.PATIENCE
        self._write()

    def move(self, path: Path, lock: IO[bytes]) -> None:
        """Go on in another lock file, since the shard of this one turned out to be damaged."""
        held, self._held = self._held, set()
        self._write()
        self._path, self._own, self._held = path, lock, held
        self._write()

    @contextmanager
    def gate(self) -> Iterator[bool]:
        """Keep other processes from looking up and claiming; yields ``False`` where that cannot be had, and one goes on without claims."""
        entered = self._enter()
        try:
            yield entered
        finally:
            if entered:
                assert self._gate is not None
                release(self._gate)

    def _enter(self) -> bool:
        try:
            if self._gate is None:
                path = self._path.with_name("shard-claims.lock")
                self._gate = os.fdopen(os.open(path, os.O_CREAT | os.O_RDWR, 0o600), "r+b", buffering=0)
            end = time.monotonic() + self._patience
            while not try_lock(self._gate):
                if time.monotonic() >= end:
                    self._patience = 0.0
                    return False
                time.sleep(0.001)
        except OSError:
            return False
        self._patience = self.PATIENCE
        return True

    def elsewhere(self, keys: Set[bytes]) -> tuple[set[bytes], bool]:
        """Those of the keys that other processes are asking for, and whether any of these has stirred since the last look.

        Within the gate.
        """
        claimed: set[bytes] = set()
        stirred = False
        self._meet()
        for other in self._others:
            if other.path == self._path:
                continue
            try:
                other.handle.seek(_START)
                head = other.handle.read(_HEAD.size)
                if head != other.head:
                    other.head, stirred = head, True
                if len(head) < _HEAD.size:
                    continue
                written, count = _HEAD.unpack(head)
                if count and abs(self._now() - written) < self.HANGS:
                    theirs = other.keys(min(count, _MOST)) & keys
                    if theirs and other.alive:
                        claimed |= theirs
            except OSError:
                continue  # whose file cannot be read claims nothing
        return claimed, stirred

    def _meet(self) -> None:
        """Open the lock files of processes that have come since."""
        try:
            while True:
                self._others.append(_Other(self._path.with_name(f"shard-{len(self._others):03d}.lock")))
        except OSError:
            pass  # there is no such number yet

    def add(self, keys: Iterable[bytes]) -> None:
        """Claim these. Within the gate."""
        before = len(self._held)
        self._held.update(keys)
        if len(self._held) != before:
            self._write()

    def keep(self, keys: Collection[bytes]) -> int:
        """Let go of all but these, and say that one is alive; how many are left."""
        with self.gate() as entered:
            if entered:
                self._held.intersection_update(keys)
                self._write()
        return len(self._held)

    def _write(self) -> None:
        try:
            self._own.seek(_START)
            self._own.write(_HEAD.pack(self._now(), len(self._held)) + b"".join(self._held))
        except OSError:
            pass  # a full disk: others may ask for the same, and that is all

    def close(self) -> None:
        """Let go of everything. The lock itself is the store's."""
        self._held.clear()
        self._write()
        self.forget()

    def forget(self) -> None:
        """Close the files, and leave what stands in them to the process that this one was forked from."""
        for handle in (self._gate, *(other.handle for other in self._others)):
            if handle is not None:
                handle.close()
        self._gate, self._others = None, []
