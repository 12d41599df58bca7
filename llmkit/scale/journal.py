"""The answers of a chunk that is not finished yet, beside its part: what a worker that died had paid for.

SQLite never crosses hosts, so these are small files of JSON lines, one for each group of answers, written whole and never again, in the
run's own directory. Read once, before the chunk begins; removed once its part is there and complete.

`Journal` stands where a process of one machine has its `Store`, and answers the same questions.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import orjson

from ..engine.store import Entry, Stored, StoreLost
from ..engine.writer import Writer
from ..errors import LLMError
from .parts import Folder

__all__ = ["Journal", "JournalWriter"]


class Journal:
    """What is known of a chunk's questions. One thread only.

    Parameters
    ----------
    folder : Folder
        Of this chunk alone.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._found: dict[bytes, Stored] = {}
        #: Names begin with it, so that a chunk that is carried out twice at a time writes no file twice.
        self._name = secrets.token_hex(4)
        self._files = 0
        self.claims = _NoClaims()
        for file in folder.files():
            if file.endswith(".jsonl"):
                with folder.open(file) as stream:
                    for line in stream.read().splitlines():
                        self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            said = orjson.loads(line)
            counts = said["counts"]
            value = base64.b64decode(said["value"], validate=True)
            words = said["finish"], said["model"]
            if not all(type(count) is int and 0 <= count < 2**53 for count in counts) or not all(isinstance(w, str | None) for w in words):
                return
            self._found[bytes.fromhex(said["key"])] = Stored(
                value, counts[0], counts[1], counts[2], said["finish"], said["model"], counts[3]
            )
        except (ValueError, LookupError, TypeError, binascii.Error):
            return  # cut, or nobody's: what it said is asked for again

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, Stored]:
        return {key: self._found[key] for key in keys if key in self._found}

    def claim(self, wanted: Mapping[bytes, Sequence[bytes]], look: bool) -> tuple[dict[bytes, Stored], set[bytes]]:
        return (self.get_many([key for along in wanted.values() for key in along]) if look else {}), set()

    def write(self, entries: Sequence[Entry]) -> None:
        lines = []
        for entry in entries:
            if not entry.answered:
                continue
            row = entry.reply()
            counts = [row.input, row.cached_input, row.output, row.cache_write]
            value = base64.b64encode(row.value).decode()
            said = {"key": row.key.hex(), "value": value, "counts": counts, "finish": row.finish, "model": row.model}
            lines.append(orjson.dumps(said, option=orjson.OPT_APPEND_NEWLINE))
            self._found[row.key] = Stored(*row[1:7], row.cache_write)
        if not lines:
            return
        try:
            self._folder.write(f"{self._name}-{self._files:06d}.jsonl", b"".join(lines))
        except (OSError, LLMError) as error:
            raise StoreLost(f"{self._folder.path}: {error}") from None
        self._files += 1

    def begin_run(self, *facts: Any) -> int:
        return 0  # the run is written down where it was called

    def end_run(self, number: int, **facts: Any) -> None: ...

    def write_history(self, number: int, rows: Sequence[tuple[Any, ...]]) -> None: ...

    def close(self) -> None: ...

    def forget(self) -> None: ...


class _NoClaims:
    """Nobody else has this chunk, as far as anybody can know."""

    def keep(self, keys: Collection[bytes]) -> int:
        return 0


class JournalWriter(Writer):
    """Groups answers for a `Journal`. On disks as the local store does; elsewhere each file is a request that is billed."""

    def __init__(self, journal: Journal, far: bool) -> None:
        super().__init__(lambda: journal)  # type: ignore[arg-type, return-value]
        if far:
            self.GROUP, self.WAIT, self.CROWD = 512, 2.0, 1024
