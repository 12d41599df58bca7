"""A run's batch jobs on the disk: what is to be submitted, what was, and what became of it.

A run has a folder in ``jobs/`` beside the store: the journal (``job.json``, replaced as a whole), for each of its jobs at the vendor (a
*part*) the file of lines that is submitted, the keys of the answers that it asks for, and the results once they were fetched. A line's
id is the key that its answer is stored by, so that an answer finds its place whenever, wherever and however often it comes.

Whoever changes a folder holds its lock, which the system drops when the process dies. New folders are made under the lock of all of
``jobs/``: of two processes that make the same call at once, the second finds the first one's jobs.

Plain blocking code, run in worker threads.
"""

from __future__ import annotations

import os
import shutil
import struct
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, BinaryIO

import orjson

from .. import errors
from ..adapter import JobBounds, JobIntent, Jobs, JobState, Target
from ..errors import InvalidRequest, LLMError
from .claims import try_lock

__all__ = [
    "ENDED",
    "FETCHED",
    "SENT",
    "TAKEN",
    "WRITTEN",
    "Book",
    "Folder",
    "Hold",
    "Lines",
    "Part",
    "Shelf",
    "error_of",
    "facts_of",
    "line_at",
    "slices",
]

#: States of a part: its lines stand in a file, it was submitted, the vendor is through with it, its results are here, they are stored.
WRITTEN, SENT, ENDED, FETCHED, TAKEN = "written", "sent", "ended", "fetched", "taken in"

#: A key, and where its line begins in the file of lines.
_LINE = struct.Struct("<16sQ")

#: Folders of runs that are through are kept for so long, for ``llmkit.job(id)``.
_KEPT_SECONDS = 90 * 86400.0

_VERSION = 1


@dataclass(slots=True)
class Part:
    """One job at the vendor.

    Attributes
    ----------
    intent : float or None
        Unix time at which a submit was begun; without an ``id`` beside it nobody knows what became of that.
    tries : int
        Submits that the vendor undid as a whole before this one; each has a name of its own.
    certain : bool
        Whether the id is known to be ours (``adapter.JobState``); those that turned out not to be are in ``not_ours``.
    said : str
        The vendor's word.
    error : mapping or None
        Why all of it failed, as ``facts_of`` writes it.
    missed : int
        Times in succession that the vendor did not know the job, or us.
    trouble : str
        What keeps it from going on at the moment.
    looked : float or None
        Unix time at which the vendor last said how it stands.
    """

    number: int
    requests: int
    bytes: int
    state: str = WRITTEN
    tries: int = 0
    intent: float | None = None
    id: str = ""
    certain: bool = True
    not_ours: list[str] = field(default_factory=list)
    stopping: bool = False
    said: str = ""
    done: int = 0
    failed: int = 0
    outputs: list[str] = field(default_factory=list)
    expires: float | None = None
    error: Mapping[str, Any] | None = None
    missed: int = 0
    trouble: str = ""
    looked: float | None = None

    def note(self, state: JobState) -> None:
        """Take down what the vendor says."""
        self.id, self.certain = state.id, self.certain and state.certain
        self.said, self.done, self.failed = state.said, state.done, state.failed
        self.outputs, self.expires = list(state.outputs), state.expires
        self.error = None if state.error is None else facts_of(state.error)
        self.missed, self.trouble, self.looked = 0, "", time.time()
        self.state = ENDED if state.state == "ended" else SENT

    def as_ended(self) -> JobState:
        return JobState(self.id, "ended", self.said, self.requests, self.done, self.failed, tuple(self.outputs))


@dataclass(slots=True)
class Book:
    """The journal of a run's jobs.

    Attributes
    ----------
    model, base_url, account : str
        Who is asked, where, and the fingerprint of the account (``accounts.Memory.mark``).
    mode : str
        The mode that structured answers were asked for in, ``""`` for the usual one.
    recipe : Any
        What the floors above need to lay the result out in another process; ``None`` where only the same call can.
    """

    id: str
    operation: str
    model: str
    base_url: str
    account: str
    began: float
    rows: int
    parts: list[Part]
    cancelled: bool = False
    mode: str = ""
    recipe: Any = None
    version: int = _VERSION

    @property
    def open(self) -> bool:
        return any(part.state != TAKEN for part in self.parts)

    def intent(self, part: Part) -> JobIntent:
        again = f"-{part.tries + 1}" if part.tries else ""
        return JobIntent(f"llmkit-{self.id}-{part.number}{again}", part.requests, part.intent or 0.0)


class Hold:
    """A lock that is held until the last of those who work under it is done: a stop must not let go of it under a thread that submits."""

    def __init__(self, handle: IO[bytes]) -> None:
        self._handle = handle
        self._users = [True]

    def share(self) -> None:
        self._users.append(True)

    def release(self) -> None:
        self._users.pop()
        if not self._users:
            self._handle.close()


def _held(path: Path) -> Hold | None:
    handle = os.fdopen(os.open(path, os.O_CREAT | os.O_RDWR, 0o600), "r+b", buffering=0)
    try:
        if try_lock(handle):
            return Hold(handle)
    except OSError:
        handle.close()
        raise
    handle.close()
    return None


class Folder:
    """The folder of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = path.name

    def hold(self) -> Hold | None:
        """The folder to oneself, or ``None`` while another process (or run) works in it, or it is gone."""
        try:
            return _held(self.path / "lock")
        except FileNotFoundError:
            return None

    def read(self) -> Book | None:
        """The journal; ``None`` where there is none that can be read."""
        try:
            facts = orjson.loads((self.path / "job.json").read_bytes())
            if facts["version"] != _VERSION:
                return None
            return Book(**{**facts, "parts": [Part(**part) for part in facts["parts"]]})
        except (OSError, ValueError, TypeError, LookupError):
            return None

    def write(self, book: Book) -> None:
        """Replace the journal: all of it or nothing, also when the power fails."""
        self.keep("job.json", orjson.dumps(asdict(book)))

    def keep(self, name: str, data: bytes) -> None:
        made = self.path / f".{name}.{os.getpid()}"
        with _open(made, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        made.replace(self.path / name)
        if os.name == "posix":
            folder = os.open(self.path, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def lines(self, part: int) -> Path:
        return self.path / f"part-{part}.jsonl"

    def results(self, part: int) -> Path:
        return self.path / f"part-{part}.results.jsonl"

    def keys(self, part: int) -> dict[bytes, int]:
        """What a part asks for: by key, where its line begins."""
        try:
            return dict(_LINE.iter_unpack(self._keys(part).read_bytes()))
        except (OSError, struct.error):
            return {}

    def _keys(self, part: int) -> Path:
        return self.path / f"part-{part}.keys"

    def close(self, part: int) -> None:
        """Delete what a part that was taken in needs no longer: prompts above all."""
        for path in (self.lines(part), self.results(part), self._keys(part)):
            path.unlink(missing_ok=True)

    def keep_errors(self, failed: Iterable[tuple[bytes, LLMError]]) -> None:
        """Write down why rows have no answer, for whoever asks later."""
        with _open(self.path / "errors.jsonl", "ab") as file:
            for key, error in failed:
                file.write(orjson.dumps([key.hex(), facts_of(error)]) + b"\n")

    def errors(self) -> dict[bytes, LLMError]:
        found: dict[bytes, LLMError] = {}
        try:
            with (self.path / "errors.jsonl").open("rb") as file:
                for line in file:
                    try:
                        key, facts = orjson.loads(line)
                        found[bytes.fromhex(key)] = error_of(facts)
                    except (ValueError, TypeError, LookupError):
                        continue  # the last line of a process that was killed
        except OSError:
            pass
        return found

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


class Shelf:
    """The folders of all runs.

    Parameters
    ----------
    directory : Path
        ``jobs/`` in the store's folder.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def gate(self) -> Hold | None:
        """All of them to oneself, to add one; ``None`` while another process does."""
        self.directory.mkdir(mode=0o700, exist_ok=True)
        return _held(self.directory / "lock")

    def folder(self, id: str) -> Folder:
        return Folder(self.directory / id)

    def new(self, id: str) -> Folder:
        folder = self.folder(id)
        folder.path.mkdir(mode=0o700, exist_ok=True)
        return folder

    def books(self) -> list[tuple[Folder, Book]]:
        """All that can be read, the oldest first."""
        try:
            folders = [Folder(path) for path in sorted(self.directory.iterdir()) if path.is_dir()]
        except OSError:
            return []
        return [(folder, book) for folder in folders if (book := folder.read()) is not None]

    def tidy(self) -> None:
        """Within the gate: remove what a process left that was killed before its journal stood, and what is long through."""
        for path in self.directory.iterdir():
            journal = path / "job.json"
            if not path.is_dir():
                continue
            if not journal.exists():
                shutil.rmtree(path, ignore_errors=True)
            elif time.time() - journal.stat().st_mtime > _KEPT_SECONDS:
                book = Folder(path).read()
                if book is not None and not book.open:
                    shutil.rmtree(path, ignore_errors=True)

    def asked(self, account: str) -> tuple[dict[bytes, str], dict[str, Folder]]:
        """What the open jobs of an account ask for: by key the folder's name, and the folders."""
        keys: dict[bytes, str] = {}
        folders: dict[str, Folder] = {}
        for folder, book in self.books():
            if book.account != account or book.cancelled:
                continue
            for part in book.parts:
                if part.state != TAKEN:
                    keys |= dict.fromkeys(folder.keys(part.number), folder.id)
                    folders[folder.id] = folder
        return keys, folders


class Lines:
    """Writes requests into files of lines, a part after the other, each within the vendor's bounds.

    Parameters
    ----------
    folder : Folder
    first : int
        The number of the first part.
    """

    def __init__(self, folder: Folder, first: int, jobs: Jobs, target: Target, inputs: bool) -> None:
        self._folder, self._jobs, self._target = folder, jobs, target
        bounds = jobs.bounds(target)
        self._bounds = JobBounds(min(bounds.requests, bounds.inputs) if inputs and bounds.inputs else bounds.requests, bounds.bytes)
        self._first = first
        self.parts: list[Part] = []
        self._files: tuple[BinaryIO, BinaryIO] | None = None

    def add(self, requests: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        """Write (key, body) each; the keys of those that are too large for any job are handed back."""
        refused = []
        for key, body in requests:
            line = self._jobs.line(key.hex(), body, self._target) + b"\n"
            if len(line) > self._bounds.bytes:
                refused.append(key)
                continue
            part = self.parts[-1] if self.parts else None
            if part is None or part.requests >= self._bounds.requests or part.bytes + len(line) > self._bounds.bytes:
                part = self._begin()
            assert self._files is not None
            self._files[0].write(line)
            self._files[1].write(_LINE.pack(key, part.bytes))
            part.requests += 1
            part.bytes += len(line)
        return refused

    def _begin(self) -> Part:
        self._finish_part()
        part = Part(self._first + len(self.parts), 0, 0)
        self.parts.append(part)
        self._files = _open(self._folder.lines(part.number), "wb"), _open(self._folder._keys(part.number), "wb")
        return part

    def _finish_part(self) -> None:
        if self._files is not None:
            files, self._files = self._files, None
            for file in files:
                with file:
                    file.flush()
                    os.fsync(file.fileno())

    def finish(self) -> list[Part]:
        """All is written and on the disk."""
        self._finish_part()
        return self.parts

    def discard(self) -> None:
        """Nothing of this is to be submitted."""
        for file in self._files or ():
            file.close()
        for part in self.parts:
            self._folder.close(part.number)
        if self._folder.read() is None:
            self._folder.remove()


def _open(path: Path, mode: str) -> BinaryIO:
    flags = os.O_CREAT | os.O_WRONLY | (os.O_APPEND if "a" in mode else os.O_TRUNC)
    return os.fdopen(os.open(path, flags, 0o600), mode)  # type: ignore[return-value]


def slices(path: Path, most: int, most_bytes: int) -> Iterator[list[bytes]]:
    """The lines of a file, some at a time; a last one without its end is a line too, which its reader refuses if it is none."""
    with path.open("rb") as file:
        while some := file.readlines(most_bytes):
            for start in range(0, len(some), most):
                yield [line for line in some[start : start + most] if line.strip()]


def line_at(path: Path, start: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.readline()


def facts_of(error: LLMError) -> dict[str, Any]:
    return {"class": type(error).__name__, "kind": error.kind, "message": error.message, "status": error.status}


def error_of(facts: Mapping[str, Any]) -> LLMError:
    """The error that ``facts_of`` wrote down."""
    found = getattr(errors, str(facts["class"]), InvalidRequest)
    kind = found if isinstance(found, type) and issubclass(found, LLMError) else InvalidRequest
    return kind(str(facts["message"]), kind=facts["kind"], status=facts["status"])
