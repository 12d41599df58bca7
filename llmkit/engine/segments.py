"""Large values of one shard, appended to files beside it: a vector goes to the disk once, not through a database's log and into its file.

A row of ``replies`` says where its value lies and holds a checksum over it that begins with the row's key. So whatever happens to a file
(it is cut short, taken away, another one stands in its place), a value is found whole and under its own key, or it is not there and is
asked for again.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["LARGE", "Place", "Segments"]

#: Values of this many bytes go into a segment; smaller ones stand in the row and cost less there.
LARGE = 2048

#: A segment that has grown to this is followed by a new one: space comes back by the file.
FULL = 256 * 1024 * 1024

#: Neighbours are read in one piece of at most this size.
_PIECE = 4 * 1024 * 1024

#: zlib lets go of Python's lock for anything longer, and taking it back from a busy loop costs more than the sum does.
_UNDER_LOCK = 5120


class Place(NamedTuple):
    """Where a value lies: the segment's number, the bytes in it, and the checksum."""

    segment: int
    start: int
    length: int
    checksum: int


def checksum(key: bytes, value: bytes) -> int:
    total = zlib.crc32(key)
    if len(value) <= _UNDER_LOCK:
        return zlib.crc32(value, total)
    view = memoryview(value)
    if len(value) <= 4 * _UNDER_LOCK:
        for start in range(0, len(value), _UNDER_LOCK):
            total = zlib.crc32(view[start : start + _UNDER_LOCK], total)
        return total
    return zlib.crc32(view, total)


class Segments:
    """The segments of one shard. Whoever holds the shard's lock may append and remove, everybody may read.

    Parameters
    ----------
    shard : Path
        ``shard-000.sqlite``; its segments are ``vectors-000-0001.bin`` and so on.
    """

    def __init__(self, shard: Path) -> None:
        self._folder = shard.parent
        self._stem = shard.stem.replace("shard", "vectors", 1)
        self._handle: int | None = None
        self._number = 0
        self._end = 0

    def path(self, number: int) -> Path:
        return self._folder / f"{self._stem}-{number:04d}.bin"

    def numbers(self) -> list[int]:
        """The segments that are there."""
        found = (path.stem.rpartition("-")[2] for path in self._folder.glob(f"{self._stem}-*.bin"))
        return sorted(int(number) for number in found if number.isdigit())

    def size(self, number: int) -> int:
        try:
            return self.path(number).stat().st_size
        except OSError:
            return 0

    # --------------------------------------------------------------------------------------------------------- appending

    def append(self, values: Sequence[tuple[bytes, bytes]]) -> list[Place]:
        """Write these (key, value) at the end of the newest segment.

        Raises
        ------
        OSError
            They could not be written whole; nothing of them is left then.
        """
        handle = self._newest()
        start = self._end
        places = []
        for key, value in values:
            places.append(Place(self._number, start, len(value), checksum(key, value)))
            start += len(value)
        whole = memoryview(b"".join([value for _, value in values]))
        try:
            while whole:
                whole = whole[os.write(handle, whole) :]
        except OSError:
            self._cut()
            raise
        self._end = start
        return places

    def _cut(self) -> None:
        """Give back what was appended in vain."""
        assert self._handle is not None
        try:
            os.ftruncate(self._handle, self._end)
        except OSError:
            self.close()  # the next one begins where the file then ends

    def _newest(self) -> int:
        if self._handle is not None and (self._end >= FULL or not os.fstat(self._handle).st_nlink):
            self.close()
        if self._handle is None:
            numbers = self.numbers()
            number = numbers[-1] if numbers else max(1, self._number)
            if self.size(number) >= FULL:
                number += 1
            self._open(number)
        assert self._handle is not None
        return self._handle

    def _open(self, number: int) -> None:
        flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0)
        self._handle = os.open(self.path(number), flags, 0o600)
        self._number, self._end = number, os.fstat(self._handle).st_size

    def avoid(self, number: int) -> None:
        """Write what comes next into another segment than this."""
        numbers = self.numbers()
        if numbers and numbers[-1] == number:
            self.close()
            self._open(number + 1)

    # ----------------------------------------------------------------------------------------------------------- reading

    def read(self, wanted: Iterable[tuple[bytes, Place]]) -> Iterator[tuple[bytes, bytes]]:
        """(key, value) of those that are there and whole, in the order of the files."""
        handle, opened = None, None
        try:
            for pieces in _neighbours(sorted(wanted, key=lambda one: one[1])):
                first = pieces[0][1]
                if opened != first.segment:
                    if handle is not None:
                        handle.close()
                    opened = first.segment
                    try:
                        handle = self.path(opened).open("rb", buffering=0)
                    except OSError:
                        handle = None
                if handle is None:
                    continue
                last = pieces[-1][1]
                try:
                    handle.seek(first.start)
                    held = handle.read(last.start + last.length - first.start)
                except OSError:
                    continue
                for key, place in pieces:
                    value = held[place.start - first.start : place.start - first.start + place.length]
                    if len(value) == place.length and checksum(key, value) == place.checksum:
                        yield key, value
        finally:
            if handle is not None:
                handle.close()

    # ---------------------------------------------------------------------------------------------------------- removing

    def remove(self, number: int) -> None:
        if number == self._number:
            self.close()
        self.path(number).unlink(missing_ok=True)

    def close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def _neighbours(wanted: Sequence[tuple[bytes, Place]]) -> Iterator[list[tuple[bytes, Place]]]:
    """Values that lie one behind the other."""
    group: list[tuple[bytes, Place]] = []
    for key, place in wanted:
        if group:
            before = group[-1][1]
            apart = place.segment != before.segment or place.start != before.start + before.length
            if apart or place.start + place.length - group[0][1].start > _PIECE:
                yield group
                group = []
        group.append((key, place))
    if group:
        yield group
