"""How a request is answered: whole responses, streams, and everything that goes wrong on the way."""

from __future__ import annotations

import asyncio
import socket
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal, Protocol

import orjson

from .content import Said

if TYPE_CHECKING:
    from .server import Wire


@dataclass(slots=True)
class Seen:
    """One request as it arrived."""

    method: str
    path: str  # without the query
    headers: dict[str, str]  # names in lower case
    body: Any  # the parsed JSON; of a form, a dict of texts and of `Upload`s; bytes where it is neither
    texts: list[str]  # user messages of a chat, inputs of an embedding, documents of a rerank, ...: where faults and counts look
    at: float
    answered_at: float | None = None  # when the last byte so far was handed to the socket; None while none was
    number: int = 0  # 1 for the first request
    query: str = ""
    vendor: str = "openai"  # whose wire the path belongs to


class Ordinary(Protocol):
    """Makes the head and the body that a healthy provider would have sent, with `said` instead of its own words if given."""

    def __call__(self, said: Said | None = None) -> tuple[bytes, bytes]: ...


class Answer:
    """How one request is answered."""

    async def send(self, wire: Wire, ordinary: Ordinary) -> None:
        raise NotImplementedError


@dataclass(frozen=True)
class Status(Answer):
    """A whole response. It claims to be JSON unless `headers` (names in lower case) say otherwise, as broken proxies do."""

    code: int
    body: dict[str, Any] | list[Any] | str | bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    async def send(self, wire: Wire, ordinary: Ordinary) -> None:
        wire.finish(b"".join(self.render({"x-request-id": "req_fault"})))

    def render(self, more_headers: dict[str, str]) -> tuple[bytes, bytes]:
        body = self.body.encode() if isinstance(self.body, str) else self.body
        body = body if isinstance(body, bytes) else orjson.dumps(body)
        headers = {"content-type": "application/json", **more_headers, **self.headers}
        if "transfer-encoding" not in headers:
            headers["content-length"] = str(len(body))
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"HTTP/1.1 {self.code} {_PHRASES.get(self.code, 'Unknown')}\r\n{lines}\r\n".encode("latin-1"), body


_PHRASES = {status.value: status.phrase for status in HTTPStatus}


def Json(body: dict[str, Any] | list[Any]) -> Status:
    """200 with this body."""
    return Status(200, body)


def events(lines: Iterable[bytes]) -> Status:
    """200 with a stream of server-sent events, each an HTTP chunk of its own."""
    stream = b"".join(_chunk(line) for line in lines) + _chunk(b"")
    return Status(200, stream, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})


def event(data: Any, name: str | None = None) -> bytes:
    """One server-sent event."""
    head = f"event: {name}\n".encode() if name else b""
    return b"%sdata: %s\n\n" % (head, data if isinstance(data, bytes) else orjson.dumps(data))


@dataclass(frozen=True)
class Saying(Answer):
    """The ordinary answer, in the shape of whichever wire was asked, streamed or not, but with these words in it."""

    said: Said

    async def send(self, wire: Wire, ordinary: Ordinary) -> None:
        wire.finish(b"".join(ordinary(self.said)))


@dataclass(frozen=True)
class Ready(Answer):
    """The ordinary answer in one piece."""

    async def send(self, wire: Wire, ordinary: Ordinary) -> None:
        wire.finish(b"".join(ordinary()))


@dataclass(frozen=True)
class Paced(Answer):
    """The ordinary answer; one that is streamed takes its time from event to event, as a model that writes."""

    seconds_per_event: float

    async def send(self, wire: Wire, ordinary: Ordinary) -> None:
        head, body = ordinary()
        if b"transfer-encoding: chunked" not in head:
            return wire.finish(head + body)
        wire.write(head)
        start = 0
        while True:
            size, _, _ = body[start:].partition(b"\r\n")
            if size == b"0":
                return wire.finish(body[start:])
            stop = start + len(size) + 2 + int(size, 16) + 2
            wire.write(body[start:stop])
            start = stop
            await asyncio.sleep(self.seconds_per_event)


@dataclass(frozen=True)
class Breaking(Answer):
    """The ordinary stream up to and with its `events`-th event, and then `end`: bytes, FIN or silence.

    A request that asked for no stream gets `whole` instead, or half of its body where there is none.
    """

    events: int
    end: bytes | Literal["close", "hang"] = "close"
    whole: Status | None = None

    async def send(self, wire: Wire, ordinary: Ordinary) -> None:
        head, body = ordinary()
        if b"transfer-encoding: chunked" not in head:
            return await (self.whole or CloseMidBody(0.5)).send(wire, ordinary)
        start = 0
        for _ in range(self.events):
            size, _, _ = body[start:].partition(b"\r\n")
            if size == b"0":  # a shorter stream, sent whole but for its end
                break
            start += len(size) + 2 + int(size, 16) + 2
        wire.write(head + body[:start])
        if self.end == "hang":
            return await Hang().send(wire, ordinary)
        if self.end == "close":
            return wire.finish(b"", close=True)
        wire.finish(_chunk(self.end) + _chunk(b""))


@dataclass(frozen=True)
class Raw(Answer):
    """These bytes as they are, then FIN; a complete response makes a kept-alive connection that dies unannounced."""

    data: bytes

    async def send(self, wire: Wire, ordinary: Ordinary) -> None:
        wire.finish(self.data, close=True)


@dataclass(frozen=True)
class Reset(Answer):
    """RST instead of an answer."""

    async def send(self, wire: Wire, ordinary: Ordinary) -> None:
        # To linger for zero seconds is what makes the kernel send RST where it would send FIN.
        wire.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        wire.transport.abort()


@dataclass(frozen=True)
class Close(Answer):
    """FIN instead of an answer."""

    async def send(self, wire: Wire, ordinary: Ordinary) -> None:
        wire.finish(b"", close=True)


@dataclass(frozen=True)
class CloseMidBody(Answer):
    """The ordinary answer, cut off after this share of its body."""

    fraction: float

    async def send(self, wire: Wire, ordinary: Ordinary) -> None:
        head, body = ordinary()
        wire.finish(head + body[: int(len(body) * self.fraction)], close=True)


@dataclass(frozen=True)
class Hang(Answer):
    """Silence, until the client or the server goes away."""

    async def send(self, wire: Wire, ordinary: Ordinary) -> None:
        await asyncio.Event().wait()


@dataclass(frozen=True)
class Drip(Answer):
    """The ordinary answer, head and all, byte by byte: no single read times out, only a deadline for the whole ends it."""

    seconds_per_byte: float

    async def send(self, wire: Wire, ordinary: Ordinary) -> None:
        response = b"".join(ordinary())
        for at in range(len(response) - 1):
            wire.write(response[at : at + 1])
            await asyncio.sleep(self.seconds_per_byte)
        wire.finish(response[-1:])


@dataclass(frozen=True)
class GzipBomb(Answer):
    """A valid chat completion of so many MiB that travels as about 1 KiB for each."""

    mebibytes: int

    async def send(self, wire: Wire, ordinary: Ordinary) -> None:
        before = b'{"id":"bomb","object":"chat.completion","created":0,"model":"bomb","choices":[{"index":0,'
        before += b'"finish_reason":"stop","message":{"role":"assistant","content":"'
        mebibyte, after = b"a" * 2**20, b'"}}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}'
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n"
        wire.write(head + _chunk(b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + _deflate(before)))
        # A full flush forgets the dictionary, so one packed mebibyte can be sent again and again; only the checksum must be
        # walked. (A gzip member for each would be simpler, but most clients stop after the first member.)
        packed, checksum = _chunk(_deflate(mebibyte)), zlib.crc32(before)
        for _ in range(self.mebibytes):
            checksum = zlib.crc32(mebibyte, checksum)
            wire.write(packed)
            await asyncio.sleep(0)
        size = len(before) + self.mebibytes * 2**20 + len(after)
        trailer = struct.pack("<II", zlib.crc32(after, checksum), size % 2**32)
        wire.finish(_chunk(_deflate(after, zlib.Z_FINISH) + trailer) + _chunk(b""))


def _deflate(data: bytes, flush: int = zlib.Z_FULL_FLUSH) -> bytes:
    packer = zlib.compressobj(9, wbits=-15)
    return packer.compress(data) + packer.flush(flush)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)
