"""embed_images: one picture per row, with the text beside it if there is one, and one float32 vector back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ..errors import InvalidRequest
from ..types import Operation, Request, Table, Task
from .chat import PICTURE_BYTES, Image, Part, Text, picture
from .embed import EMBED
from .files import FileRules

__all__ = ["EMBED_IMAGES"]


def tasks(
    table: Table, *, images: Any, on: Any = None, files: FileRules | None = None, options: Mapping[str, Any] | None = None
) -> Iterator[Task]:
    """One task a row; a row without a picture is not sent, one whose picture cannot be read fails."""
    said, rules = dict(options or {}), files or FileRules()
    for row in range(len(table)):
        (cell,) = table.cells(images, row, row + 1)
        if cell is None:
            continue
        (text,) = [None] if on is None else table.texts(on, row, row + 1)
        try:
            shown = picture(cell, rules)
        except InvalidRequest as error:
            yield Task((row,), error)
        else:
            parts: tuple[Part, ...] = (Text(text), shown) if text and not text.isspace() else (shown,)
            yield Task((row,), Request("embed_images", parts, said))


def _weigh(request: Request, body_length: int) -> int:
    pictures = [part for part in request.payload if isinstance(part, Image)]
    return sum(len(part.text) for part in request.payload if isinstance(part, Text)) + PICTURE_BYTES * len(pictures)


EMBED_IMAGES: Operation = replace(EMBED, name="embed_images", tasks=tasks, weigh=_weigh, draw=16)
