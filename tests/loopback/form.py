"""The bodies of requests: JSON, or a multipart form."""

from __future__ import annotations

import re
from typing import Any

import orjson

from .content import Upload

_BOUNDARY = re.compile(r'boundary="?([^";]+)"?')
_NAMED = re.compile(rb'\b(name|filename)="((?:[^"\\]|\\.)*)"')


def parsed(media_type: str, body: bytes) -> Any:
    """JSON whatever the header says, since clients that say nothing send it; ValueError where it is neither."""
    if not media_type.startswith("multipart/form-data"):
        return orjson.loads(body)
    boundary = _BOUNDARY.search(media_type)
    if boundary is None:
        raise ValueError("a form without a boundary")
    form: dict[str, Any] = {}
    first, *parts = (b"\r\n" + body).split(b"\r\n--" + boundary[1].encode())
    if first or not parts or not parts.pop().startswith(b"--"):
        raise ValueError("a form that does not end")
    for part in parts:
        head, _, data = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        named = {name.decode(): value.decode() for name, value in _NAMED.findall(head)}
        kind = re.search(rb"(?i)content-type:\s*([^\s;]+)", head)
        value: Any = data.decode() if "filename" not in named else Upload(named["filename"], kind[1].decode() if kind else "", data)
        name = named["name"]
        form[name] = [*form[name], value] if isinstance(form.get(name), list) else [value] if name.endswith("[]") else value
    return form
