"""transcribe: one recording per row, its words back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from ..errors import InvalidRequest
from ..types import Operation, Price, Request, Table, Task, Usage
from .files import FileRules, sound_bytes, sound_type

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
        if cell is None or cell == "":
            continue
        try:
            data = sound_bytes(cell, rules)
            ending, media_type = sound_type(data)
        except InvalidRequest as error:
            yield Task((row,), error)
        else:
            yield Task((row,), Request("transcribe", Recording(f"recording.{ending}", media_type, data), said))


def _values(value: Any, rows: Sequence[int]) -> Sequence[Any]:
    return [value] * len(rows)


#: Speech is hardly ever stored in fewer bytes a second; a bound on how long a recording of unknown make may be.
_FEWEST_BYTES_A_SECOND = 2000


def _most(request: Request, price: Price) -> Usage:
    if price.audio_minute is None:
        return Usage()
    return Usage(audio_seconds=len(request.payload.data) / _FEWEST_BYTES_A_SECOND)


def _weigh(request: Request, body_length: int) -> int:
    # Ten tokens a second of sound, as OpenAI's models count it, at four bytes a token.
    return len(request.payload.data) // _FEWEST_BYTES_A_SECOND * 40


TRANSCRIBE = Operation(
    name="transcribe",
    tasks=tasks,
    values=_values,
    kind="text",
    pack=orjson.dumps,
    unpack=orjson.loads,
    most=_most,
    billed=(("audio_minute",), ("input", "output")),
    weigh=_weigh,
    draw=4,
)
