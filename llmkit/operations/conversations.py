"""Whole conversations, one a row: the messages of a request body as OpenAI's files of requests have them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from ..errors import InvalidRequest
from ..types import Operation, Request, Table, Task
from .chat import CHAT, ChatPayload, Message
from .leads import SLICE

__all__ = ["CONVERSATIONS", "ROW_OPTIONS"]

#: What of a request's options a row may say for itself.
ROW_OPTIONS = ("temperature", "max_tokens", "max_completion_tokens", "seed")


def _tasks(
    table: Table, *, on: Any, system: str | None = None, row_options: Sequence[str] = (), options: Mapping[str, Any] | None = None
) -> Iterator[Task]:
    """One task a row: the messages in column ``on``, as a list or as JSON; options in columns of their names go before ``options``."""
    return _drawn(table, on, (Message("system", system),) if system else (), tuple(row_options), dict(options or {}))


def _drawn(table: Table, on: Any, before: tuple[Message, ...], row_options: tuple[str, ...], options: dict[str, Any]) -> Iterator[Task]:
    for start in range(0, len(table), SLICE):
        stop = min(start + SLICE, len(table))
        said = [table.cells(name, start, stop) for name in row_options]
        for offset, cell in enumerate(table.cells(on, start, stop)):
            if cell is None or cell == "":
                continue
            own = {name: cells[offset] for name, cells in zip(row_options, said, strict=True) if cells[offset] is not None}
            try:
                messages, more = _messages(cell)
                asked = {**options, **_options({**more, **own})}
            except InvalidRequest as error:
                yield Task((start + offset,), error)
            else:
                yield Task((start + offset,), Request("chat", ChatPayload((*before, *messages)), asked))


def _messages(cell: Any) -> tuple[tuple[Message, ...], Mapping[str, Any]]:
    """The messages of a cell, and what a whole request body says beside them."""
    if isinstance(cell, str):
        try:
            cell = orjson.loads(cell)
        except ValueError:
            raise InvalidRequest("the messages are no JSON") from None
    more: Mapping[str, Any] = {}
    if isinstance(cell, Mapping):
        more, cell = {name: cell[name] for name in ROW_OPTIONS if cell.get(name) is not None}, cell.get("messages")
    if not isinstance(cell, list) or not cell:
        raise InvalidRequest("messages are a list of {'role': ..., 'content': ...}, with at least one")
    return tuple(map(_message, cell)), more


def _message(given: Any) -> Message:
    role, content = (given.get("role"), given.get("content")) if isinstance(given, Mapping) else (None, None)
    if role == "developer":
        role = "system"
    if role not in ("system", "user", "assistant"):
        raise InvalidRequest("a message's role is system, user or assistant")
    if isinstance(content, list) and all(isinstance(part, Mapping) and part.get("type") == "text" for part in content):
        content = "".join(str(part.get("text", "")) for part in content)
    if not isinstance(content, str):
        raise InvalidRequest("a message's content is text here; for pictures and tools say df.llm.chat(images=..., tools=...)")
    return Message(role, content)


def _options(given: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidRequest(f"{name} is a number")
        known = "max_tokens" if name == "max_completion_tokens" else name
        found[known] = float(value) if name == "temperature" else int(value)
    return found


CONVERSATIONS: Operation = replace(CHAT, tasks=_tasks)
