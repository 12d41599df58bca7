"""transcribe: one recording per row, its words back."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from ..errors import InvalidRequest
from ..types import Operation, Price, Request, Table, Task, Usage
from .files import FileRules, seconds_at_most, sound_bytes, sound_type

__all__ = ["TRANSCRIBE", "Recording"]


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording and what kind it is; the name has nothing of the file's own, which may say whose voice it is."""

    name: str
    media_type: str
    data: bytes = field(repr=False)


def tasks(table: Table, *, on: Any, files: FileRules | None = None, options: Mapping[str, Any] | None = None) -> Iterator[Task]:
    """One task a row; a missing cell is not sent, one that is no readable recording fails its row."""
    said, rules = dict(options or {}), files or FileRules()
    for row in range(len(table)):
        (cell,) = table.cells(on, row, row + 1)
        if cell is None or (isinstance(cell, str) and not cell.strip()):
            continue
        try:
            data = sound_bytes(cell, rules)
            ending, media_type = sound_type(data)
        except InvalidRequest as error:
            yield Task((row,), error)
        else:
            yield Task((row,), Request("transcribe", Recording(f"recording.{ending}", media_type, data), said))


#: Tokens for a second of sound, as OpenAI's models count it, and the most that are written for it: fast speech has four words a second.
_HEARD, _WRITTEN = 10, 8


def _most(request: Request, price: Price) -> Usage:
    # Vendors bill whole seconds, Groq ten at the least (console.groq.com/docs/speech-to-text, seen 2026-11-21).
    seconds = max(10.0, float(math.ceil(seconds_at_most(request.payload.data))))
    if price.audio_minute is not None:
        return Usage(audio_seconds=seconds)
    heard = math.ceil(_HEARD * seconds)
    return Usage(input=heard, audio_input=heard if price.audio_input is not None else 0, output=math.ceil(_WRITTEN * seconds))


def _weigh(request: Request, body_length: int) -> int:
    # At four bytes a token.
    return math.ceil(4 * _HEARD * seconds_at_most(request.payload.data))


TRANSCRIBE = Operation(
    name="transcribe",
    tasks=tasks,
    kind="text",
    pack=orjson.dumps,
    unpack=orjson.loads,
    most=_most,
    billed=(("audio_minute",), ("input", "output")),
    weigh=_weigh,
    draw=4,
)
