"""embed: one text per row, one float32 vector back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..types import Operation, Request, Table, Task

__all__ = ["EMBED"]

SLICE = 1024


def tasks(table: Table, *, on: Any, options: Mapping[str, Any] | None = None) -> Iterator[Task]:
    """One task a row; a missing or empty text has nothing to embed and is not sent."""
    options = dict(options or {})
    return _from_column(table, on, options)


def _from_column(table: Table, on: Any, options: Mapping[str, Any]) -> Iterator[Task]:
    for start in range(0, len(table), SLICE):
        for offset, cell in enumerate(table.texts(on, start, min(start + SLICE, len(table)))):
            if cell and not cell.isspace():
                yield Task((start + offset,), Request("embed", cell, options))


#: Stands before the numbers in the store, so that nothing else is taken for them.
_MARK = b"llmkitf4"


def _pack(value: npt.NDArray[np.float32]) -> bytes:
    return _MARK + value.astype("<f4", copy=False).tobytes()


def _unpack(stored: bytes) -> npt.NDArray[np.float32]:
    if not stored.startswith(_MARK):
        raise ValueError("not packed here")
    return np.frombuffer(stored, dtype="<f4", offset=len(_MARK))


EMBED = Operation(name="embed", tasks=tasks, kind="vector", pack=_pack, unpack=_unpack, billed=(("input",),))
