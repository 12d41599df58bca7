"""speak: one text per row, a recording back: its bytes, or the path of a file in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..types import Operation, Price, Request, Table, Task, Usage

__all__ = ["FORMATS", "SPEAK", "speak_into"]

SLICE = 256

#: What a ``format=`` may be, and the ending of its files.
FORMATS = {"mp3": "mp3", "wav": "wav", "opus": "opus", "flac": "flac", "aac": "aac", "pcm": "pcm"}


def tasks(table: Table, *, on: Any, options: Mapping[str, Any] | None = None) -> Iterator[Task]:
    """One task a row; a missing or empty text is not sent. ``options``: voice, format, speed, instructions."""
    said = dict(options or {})
    for start in range(0, len(table), SLICE):
        for offset, cell in enumerate(table.texts(on, start, min(start + SLICE, len(table)))):
            if cell and not cell.isspace():
                yield Task((start + offset,), Request("speak", cell, said))


#: Stands before the sound in the store, so that nothing else is taken for it.
_MARK = b"llmkitau"


def _pack(value: bytes) -> bytes:
    return _MARK + value


def _unpack(stored: bytes) -> bytes:
    if not stored.startswith(_MARK):
        raise ValueError("not packed here")
    return bytes(stored[len(_MARK) :])


def _most(request: Request, price: Price) -> Usage:
    return Usage(characters=len(request.payload)) if price.million_characters is not None else Usage()


SPEAK = Operation(
    name="speak",
    tasks=tasks,
    kind="object",
    pack=_pack,
    unpack=_unpack,
    most=_most,
    # Who bills by tokens of sound does not say how many there were: no bound could be kept.
    billed=(("million_characters",),),
    draw=16,
)


def speak_into(folder: Path, ending: str) -> Operation:
    """The same with the sound in files: what stays in memory of a row is a path.

    A file is named by its request, so equal texts share one, and the same call finds its files again.
    """

    def hold(value: bytes, key: bytes) -> str:
        path = folder / f"{key.hex()}.{ending}"
        if not path.is_file() or path.read_bytes() != value:
            # Whole or not there: a reader, or the next run, must never find half a file under the name.
            folder.mkdir(parents=True, exist_ok=True)
            beside = path.with_name(f"{path.name}.{os.getpid()}.part")
            beside.write_bytes(value)
            beside.replace(path)
        return str(path)

    return replace(SPEAK, kind="text", hold=hold)
