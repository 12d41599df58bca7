"""The quickest loopback provider that plain asyncio gives: canned answers, no waiting, no faults (``tests/loopback`` has those).

A text carries its number as ``#0000017``; an answer to it carries the same number, so that each contestant's rows can be checked.

``python -m benchmarks.server --port-file PATH`` serves until its standard input closes.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import random
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson

DIMENSIONS = 1536
#: Different vectors; text ``#n`` gets number ``n % DIFFERENT``.
DIFFERENT = 64
_LARGEST_BATCH = 2048


def text(number: int) -> str:
    """The cell of a row: about what a support ticket's first line has."""
    return f"#{number:07d} The parcel came nine days late, the box was open, and the customer asks who pays for the broken cup."


def answer(number: int) -> str:
    """What chat answers to the prompt that holds ``text(number)``."""
    return f"#{number:07d}: a late and damaged parcel; the customer wants a refund."


def vector(number: int) -> array[float]:
    """The embedding of ``text(number)``: float32, little-endian on the wire."""
    draw = random.Random(number % DIFFERENT)
    return array("f", [draw.uniform(-0.05, 0.05) for _ in range(DIMENSIONS)])


def _canned(body: bytes) -> tuple[bytes, bytes]:
    """A whole HTTP response, cut in two where the seven digits of the number belong."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    before, after = (head + body).split(b"#0000000", 1)
    return before + b"#", after


_BEFORE, _AFTER = _canned(
    orjson.dumps(
        {
            "id": "chatcmpl-bench",
            "object": "chat.completion",
            "created": 1767225599,
            "model": "bench-1",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": answer(0), "refusal": None},
                    "logprobs": None,
                    "finish_reason": "stop",
                }
            ],
            "usage": {
                "prompt_tokens": 38,
                "completion_tokens": 17,
                "total_tokens": 55,
                "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
            },
            "service_tier": "default",
            "system_fingerprint": None,
        }
    )
)


class _Embeddings:
    """Answers put together from encoded pieces; made at the first request."""

    def __init__(self) -> None:
        self._open = [b',{"object":"embedding","index":%d,"embedding":"' % index for index in range(_LARGEST_BATCH)]
        self._open[0] = self._open[0][1:]
        self._encoded = [base64.b64encode(vector(number).tobytes()) + b'"}' for number in range(DIFFERENT)]

    def respond(self, request: bytes) -> bytes:
        body = orjson.loads(request)
        texts = body["input"]
        if body.get("encoding_format") != "base64" or len(texts) > _LARGEST_BATCH:
            return _refusal("this server embeds in base64 only, at most 2,048 texts at a time")
        pieces = [b""] * (2 * len(texts))
        pieces[0::2] = self._open[: len(texts)]
        pieces[1::2] = [self._encoded[int(text[1:8]) % DIFFERENT] for text in texts]
        tail = b'],"model":"bench-1","usage":{"prompt_tokens":%d,"total_tokens":%d}}' % (24 * len(texts), 24 * len(texts))
        head = b'{"object":"list","data":['
        size = len(head) + sum(map(len, pieces)) + len(tail)
        start = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % size
        return b"".join((start, head, *pieces, tail))


def _refusal(message: str) -> bytes:
    body = orjson.dumps({"error": {"message": message, "type": "invalid_request_error", "code": None}})
    return b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


class _Connection(asyncio.Protocol):
    embeddings: _Embeddings | None = None

    def __init__(self) -> None:
        self._received = b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        received = self._received + data if self._received else data
        while received:
            ends = received.find(b"\r\n\r\n")
            if ends < 0:
                break
            head = received[:ends].lower()
            said = head.find(b"\r\ncontent-length:")
            size = int(head[said + 17 :].split(b"\r\n", 1)[0]) if said >= 0 else 0
            stop = ends + 4 + size
            if len(received) < stop:
                break
            assert self._transport is not None
            self._transport.write(self._respond(received, ends + 4, stop))
            received = received[stop:]
        self._received = received

    def _respond(self, received: bytes, start: int, stop: int) -> bytes:
        line = received[: received.find(b"\r\n")]
        if b"/chat/completions" in line:
            mark = received.find(b"#", start, stop)
            return _BEFORE + (received[mark + 1 : mark + 8] if mark > 0 else b"0000000") + _AFTER
        if b"/embeddings" in line:
            if _Connection.embeddings is None:
                _Connection.embeddings = _Embeddings()
            return _Connection.embeddings.respond(received[start:stop])
        return _refusal("chat completions and embeddings are all there is here")


async def _serve(port_file: Path) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Connection, "127.0.0.1", 0, backlog=1024)
    unfinished = port_file.with_suffix(".tmp")
    unfinished.write_text(str(server.sockets[0].getsockname()[1]))
    unfinished.replace(port_file)
    closed = loop.create_future()
    await loop.connect_read_pipe(lambda: _UntilClosed(closed), sys.stdin)
    await closed
    server.close()


class _UntilClosed(asyncio.Protocol):
    def __init__(self, closed: asyncio.Future[None]) -> None:
        self._closed = closed

    def connection_lost(self, error: Exception | None) -> None:
        if not self._closed.done():
            self._closed.set_result(None)


@contextmanager
def serving() -> Iterator[str]:
    """A server in a process of its own, as its base URL; it ends with the block, and also when this process dies."""
    with tempfile.TemporaryDirectory() as folder:
        port_file = Path(folder) / "port"
        command = [sys.executable, "-m", "benchmarks.server", "--port-file", str(port_file)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, cwd=Path(__file__).parent.parent)
        try:
            patience = time.monotonic() + 20
            while not port_file.exists():
                if process.poll() is not None or time.monotonic() > patience:
                    raise RuntimeError("the benchmark server did not start")
                time.sleep(0.02)
            yield f"http://127.0.0.1:{port_file.read_text()}/v1"
        finally:
            process.terminate()
            process.wait(timeout=10)
            if process.stdin is not None:
                process.stdin.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--port-file", type=Path, required=True, help="the port is written here once the server listens")
    asyncio.run(_serve(parser.parse_args().port_file))
    os._exit(0)  # connections that clients still hold need no farewell


if __name__ == "__main__":
    main()
