"""What is known of an account beyond one process: what its limiter learned, for the next run, and what of a limit set by hand is spent.

Files beside the store, one for each account, named by a fingerprint of who is asked with which key. It is keyed with random bytes that
stand in the same folder: nobody can tell from it what the key is, nor compare it with another machine's.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import struct
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from ..adapter import Target

__all__ = ["Ledger", "Memory"]

#: Facts older than this are forgotten: tiers change.
FORGOTTEN_AFTER_SECONDS = 7 * 86400.0


class Memory:
    """The accounts of one cache directory.

    Parameters
    ----------
    folder : Path
        The store's: it is made, and looked at for strangers, when the store opens. Where there is none, nothing is kept and nothing shared.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._salt: bytes | None = None

    def mark(self, target: Target) -> str | None:
        """The fingerprint of the account that a target is asked on; ``None`` for a caller's client, and where nothing can be kept."""
        salt = self._salt or self._salted()
        if salt is None or target.foreign is not None:
            return None
        self._salt = salt
        secret = target.secret
        key = "" if secret is None else "rotates" if secret.rotates else secret.reveal()
        said = "\0".join((target.provider.name, target.provider.base_url, target.model.name, key))
        return hashlib.blake2b(said.encode(), key=salt, digest_size=12).hexdigest()

    def _salted(self) -> bytes | None:
        path = self._folder / "accounts.salt"
        try:
            if hasattr(os, "geteuid") and self._folder.stat().st_uid != os.geteuid():
                return None
            if not path.exists():
                made = path.with_suffix(f".{os.getpid()}")
                _write(made, secrets.token_bytes(32))
                with suppress(FileExistsError):
                    os.link(made, path)  # of two processes that begin at once, one's stays
                made.unlink()
            salt = path.read_bytes()
        except OSError:
            return None
        return salt if len(salt) == 32 else None

    def recall(self, mark: str) -> Mapping[str, Any] | None:
        """What was kept of an account, and ``age``, the seconds since; ``None`` where nothing is, or nothing that is young enough."""
        try:
            facts = orjson.loads((self._folder / f"account-{mark}.json").read_bytes())
            age = time.time() - float(facts.pop("at"))
        except (OSError, ValueError, TypeError, LookupError, AttributeError):
            return None
        # A clock that was set back makes an age below nothing.
        return {**facts, "age": max(0.0, age)} if age < FORGOTTEN_AFTER_SECONDS else None

    def keep(self, mark: str, facts: Mapping[str, Any]) -> None:
        path = self._folder / f"account-{mark}.json"
        made = path.with_suffix(f".{os.getpid()}")
        try:
            _write(made, orjson.dumps({**facts, "at": time.time()}))
            made.replace(path)
        except OSError:
            with suppress(OSError):
                made.unlink()

    def ledger(self, target: Target) -> Ledger:
        def path() -> Path:
            mark = self.mark(target)
            if mark is None:
                raise OSError("nothing can be shared here")
            return self._folder / f"account-{mark}.ledger"

        return Ledger(path)


def _write(path: Path, data: bytes) -> None:
    with os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)


class Ledger:
    """What the processes of this machine have taken of an account's limits: a bucket for each kind, in a file held while it is changed.

    A process takes a tenth of a second's worth at a time, so that the file is touched ten times a second and not once a row.

    Parameters
    ----------
    path : callable
        ``path() -> Path``, asked at the first use.
    now : callable
        The wall clock, which all processes share. One that jumps costs a minute's worth at the most.
    """

    KINDS = ("requests", "tokens")
    everywhere = False
    _ENTRY = struct.Struct("<dd")  # level, as of
    #: Looks at a file that another process holds, and the seconds until the next attempt; so many attempts in vain end the sharing.
    _LOOKS = 10
    _AGAIN = 0.02
    _IN_VAIN = 100

    def __init__(self, path: Callable[[], Path], now: Callable[[], float] = time.time) -> None:
        self._path = path
        self._now = now
        self._file: int | None = None
        self._in_vain = 0

    def take(self, kind: str, amount: float, per_second: float, capacity: float) -> tuple[float, float]:
        """(what was taken, seconds to wait): at least ``amount``, or nothing and how long until it is there.

        Raises
        ------
        OSError
            The file cannot be used; whoever gets this goes on alone.
        """
        if self._file is None:
            self._file = os.open(self._path(), os.O_CREAT | os.O_RDWR, 0o600)
        if not self._hold():
            self._in_vain += 1
            if self._in_vain > self._IN_VAIN:
                raise OSError("held for too long")
            return 0.0, self._AGAIN
        self._in_vain = 0
        try:
            return self._take(self.KINDS.index(kind) * self._ENTRY.size, amount, per_second, capacity)
        finally:
            _unlock(self._file)

    def _take(self, place: int, amount: float, per_second: float, capacity: float) -> tuple[float, float]:
        assert self._file is not None
        now = self._now()
        os.lseek(self._file, place, os.SEEK_SET)
        entry = os.read(self._file, self._ENTRY.size)
        level, at = self._ENTRY.unpack(entry) if len(entry) == self._ENTRY.size and any(entry) else (capacity, now)
        level = min(capacity, level + min(60.0, max(0.0, now - at)) * per_second)
        needed = min(amount, capacity)
        if level < needed - 1e-9:
            return 0.0, (needed - level) / per_second
        taken = max(amount, min(level, 0.1 * per_second))
        os.lseek(self._file, place, os.SEEK_SET)
        os.write(self._file, self._ENTRY.pack(level - taken, now))
        return taken, 0.0

    def refused(self, seconds: float | None) -> None:
        """Each process of a machine finds out for itself: it costs one refusal, and no file is read for it ten times a second."""

    def _hold(self) -> bool:
        assert self._file is not None
        for _ in range(self._LOOKS):
            if _lock(self._file):
                return True
            time.sleep(0)  # it is held for some microseconds, unless its holder was stopped in the middle
        return False

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _lock(file: int) -> bool:
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _unlock(file: int) -> None:
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(file, msvcrt.LK_UNLCK, 1)  # type: ignore[attr-defined]
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_UN)
