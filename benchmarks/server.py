"""The quickest loopback provider that plain asyncio gives, and the same with limits, latency and faults (``tests/loopback`` has vendors).

Without conditions the answers are canned: no waiting, nothing looked at but the row's number. With them each request is read, booked on the
account, and answered when its row's latency is over. Three paths are served beside the provider's own: ``/free/v1`` is a provider
without any conditions, to warm up on; ``/stats`` and ``/bookings`` tell what was counted.

``python -m benchmarks.server --port-file PATH [--conditions JSON]`` serves until its standard input closes.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import random
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from .account import Conditions, RateLimit, Refusal, tokens_of
from .rows import MARK, answer, fault, fields, latency

DIMENSIONS = 1536
#: Different vectors; text ``#n`` gets number ``n % DIFFERENT``.
DIFFERENT = 64
_LARGEST_BATCH = 2048


def vector(number: int) -> array[float]:
    """The embedding of ``text(number)``: float32, little-endian on the wire."""
    draw = random.Random(number % DIFFERENT)
    return array("f", [draw.uniform(-0.05, 0.05) for _ in range(DIMENSIONS)])


def _canned(body: bytes) -> tuple[bytes, bytes]:
    """A whole HTTP response, cut in two where the seven digits of the number belong."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    before, after = (head + body).split(b"#0000000", 1)
    return before + b"#", after


def _completion(said: str) -> bytes:
    return orjson.dumps(
        {
            "id": "chatcmpl-bench",
            "object": "chat.completion",
            "created": 1767225599,
            "model": "bench-1",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": said, "refusal": None},
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


_BEFORE, _AFTER = _canned(_completion(answer(0)))
#: Where a schema is asked for: an object of five fields.
_BEFORE_FIELDS, _AFTER_FIELDS = _canned(_completion(orjson.dumps(fields(0)).decode()))


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
            return _response(b"400 Bad Request", _error("this server embeds in base64 only, at most 2,048 texts at a time"))
        pieces = [b""] * (2 * len(texts))
        pieces[0::2] = self._open[: len(texts)]
        pieces[1::2] = [self._encoded[int(text[1:8]) % DIFFERENT] for text in texts]
        tail = b'],"model":"bench-1","usage":{"prompt_tokens":%d,"total_tokens":%d}}' % (24 * len(texts), 24 * len(texts))
        head = b'{"object":"list","data":['
        size = len(head) + sum(map(len, pieces)) + len(tail)
        start = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % size
        return b"".join((start, head, *pieces, tail))


def _response(status: bytes, body: Any, headers: dict[str, str] | None = None) -> bytes:
    written = orjson.dumps(body)
    more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items()).encode()
    return b"HTTP/1.1 %b\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n%b" % (status, more, len(written), written)


def _error(message: str, kind: str = "invalid_request_error", code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


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
            response = self._respond(received, ends + 4, stop)
            if response:
                self._transport.write(response)
            received = received[stop:]
        self._received = received

    def _respond(self, received: bytes, start: int, stop: int) -> bytes | None:
        """The response, or ``None`` where it comes later."""
        line = received[: received.find(b"\r\n")]
        if b"/chat/completions" in line:
            mark = received.find(b"#", start, stop)
            before, after = (_BEFORE_FIELDS, _AFTER_FIELDS) if received.find(b'"response_format"', start, stop) > 0 else (_BEFORE, _AFTER)
            return before + (received[mark + 1 : mark + 8] if mark > 0 else b"0000000") + after
        if b"/embeddings" in line:
            if _Connection.embeddings is None:
                _Connection.embeddings = _Embeddings()
            return _Connection.embeddings.respond(received[start:stop])
        return _response(b"400 Bad Request", _error("chat completions and embeddings are all there is here"))


class _Account:
    """What the conditions are and what was counted, for all connections."""

    def __init__(self, conditions: Conditions) -> None:
        self.conditions = conditions
        self.limit = RateLimit(conditions.shape, conditions.requests_per_minute, conditions.tokens_per_minute) if conditions.shape else None
        self.began = time.monotonic()
        self.attempts: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.requests = self.refused = self.failed = self.in_flight = self.most_in_flight = 0
        #: Requests let in, by the second since the start.
        self.by_second: Counter[int] = Counter()
        #: Tokens of each request with a row that had not been seen yet, let in or not: what the best client would have had to send.
        self.bookings: list[int] = []
        self._rows_seen: set[str] = set()

    def now(self) -> float:
        return time.monotonic() - self.began

    def admit(self, tokens: int, rows: set[str]) -> Refusal | None:
        self.requests += 1
        if not rows <= self._rows_seen:
            self._rows_seen |= rows
            self.bookings.append(tokens)
        refusal = self.limit.admit(tokens, self.now()) if self.limit else None
        self.refused += refusal is not None
        if refusal is None:
            self.by_second[int(self.now())] += 1
        return refusal

    def headers(self) -> dict[str, str]:
        return self.limit.headers(self.now()) if self.limit and self.conditions.headers else {}

    def stats(self) -> dict[str, Any]:
        return {
            "requests": self.requests,
            "refused": self.refused,
            "failed": self.failed,
            "answered": self.answered.total(),
            "rows_answered": len(self.answered),
            "rows_asked": len(self._rows_seen),
            "duplicates": self.answered.total() - len(self.answered),
            "in_flight": self.in_flight,
            "most_in_flight": self.most_in_flight,
            "by_second": [self.by_second[second] for second in range(max(self.by_second, default=-1) + 1)],
        }


class _ConditionalConnection(_Connection):
    def __init__(self, account: _Account) -> None:
        super().__init__()
        self._account = account

    def _respond(self, received: bytes, start: int, stop: int) -> bytes | None:
        line = received[: received.find(b"\r\n")]
        if b" /stats" in line:
            return _response(b"200 OK", self._account.stats())
        if b" /bookings" in line:
            return _response(b"200 OK", self._account.bookings)
        for path, wire in _WIRES.items():
            if path in line:
                return self._book(wire, orjson.loads(received[start:stop]), free=b" /free/" in line)
        return super()._respond(received, start, stop)

    def _book(self, wire: _Wire, body: dict[str, Any], free: bool) -> bytes | None:
        account, conditions = self._account, self._account.conditions
        said = wire.texts(body)
        marks = sorted(set(MARK.findall(said)))
        tokens = tokens_of(len(said), wire.most_output(body), conditions.characters_per_token)
        usage = tokens_of(len(said), 0, conditions.characters_per_token)
        if free:
            return _response(b"200 OK", wire.answer(body, marks, usage))
        refusal = account.admit(tokens, set(marks))
        if refusal:
            return self._refused(str(body.get("model")), refusal)
        fault = self._fault(marks) if conditions.faults else None
        if fault == "hang":
            return None
        account.in_flight += 1
        account.most_in_flight = max(account.most_in_flight, account.in_flight)
        wait = latency(int(marks[0][1:])) if conditions.latency and marks else 0.0
        asyncio.get_running_loop().call_later(wait, self._finish, wire, body, marks, usage, fault)
        return None

    def _fault(self, marks: list[str]) -> str | None:
        """What befalls this attempt, by the request's first row and by how often that came."""
        if not marks:
            return None
        self._account.attempts[marks[0]] += 1
        what = fault(int(marks[0][1:]), self._account.attempts[marks[0]])
        self._account.failed += what is not None
        return what

    def _finish(self, wire: _Wire, body: dict[str, Any], marks: list[str], usage: int, fault: str | None) -> None:
        assert self._transport is not None
        self._account.in_flight -= 1
        if self._transport.is_closing():
            return
        if fault == "cut":
            # A zero linger time makes the kernel send a reset instead of a farewell.
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
        elif fault == "fail":
            self._transport.write(_response(b"500 Internal Server Error", _error("The server had an error", "server_error")))
        else:
            self._account.answered.update(marks)
            self._transport.write(_response(b"200 OK", wire.answer(body, marks, usage), self._account.headers()))

    def _refused(self, model: str, refusal: Refusal) -> bytes:
        what = {"requests": "requests per min (RPM)", "tokens": "tokens per min (TPM)"}[refusal.kind]
        message = (
            f"Rate limit reached for {model} in organization org-bench on {what}: Limit {refusal.limit}, Used {refusal.used:.0f}, "
            f"Requested {refusal.asked:.0f}. Please try again in {refusal.wait:.3f}s."
        )
        headers = self._account.headers()
        if self._account.conditions.headers:
            headers["retry-after-ms"] = str(int(refusal.wait * 1000) + 1)
            headers["retry-after"] = str(int(refusal.wait) + 1)
        if not self._account.conditions.message:
            message = "Too many requests."
        return _response(b"429 Too Many Requests", _error(message, refusal.kind, "rate_limit_exceeded"), headers)


class _Wire:
    """Chat completions."""

    def texts(self, body: dict[str, Any]) -> str:
        """All that the request says, as one text."""
        return "\n".join(_texts(message.get("content")) for message in body["messages"])

    def most_output(self, body: dict[str, Any]) -> int:
        return int(body.get("max_completion_tokens") or body.get("max_tokens") or 0)

    def answer(self, body: dict[str, Any], marks: list[str], prompt_tokens: int) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{marks[0][1:] if marks else 'none'}",
            "object": "chat.completion",
            "created": 1767225599,
            "model": body.get("model"),
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": _said(body, marks), "refusal": None},
                    "logprobs": None,
                    "finish_reason": "stop",
                }
            ],
            "usage": {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": 17,
                "total_tokens": prompt_tokens + 17,
                "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
            },
            "service_tier": "default",
            "system_fingerprint": None,
        }


class _Responses(_Wire):
    """OpenAI's responses, with one row or, as JSON with ids, many in one request."""

    def texts(self, body: dict[str, Any]) -> str:
        given = body["input"]
        said = given if isinstance(given, str) else "\n".join(_texts(item.get("content")) for item in given)
        return f"{body.get('instructions') or ''}\n{said}"

    def most_output(self, body: dict[str, Any]) -> int:
        return int(body.get("max_output_tokens") or 0)

    def answer(self, body: dict[str, Any], marks: list[str], prompt_tokens: int) -> dict[str, Any]:
        said = _said(body, marks)
        if isinstance(body["input"], str) and body["input"].startswith('{"user_messages"'):
            messages = orjson.loads(body["input"])["user_messages"]
            replies = [{"id": one["id"], "body": _said({}, MARK.findall(one["body"]))} for one in messages]
            said = orjson.dumps({"assistant_messages": replies}).decode()
        return {
            "id": "resp_bench",
            "object": "response",
            "created_at": 1767225599,
            "status": "completed",
            "model": body.get("model"),
            "output": [
                {
                    "type": "message",
                    "id": "msg_bench",
                    "status": "completed",
                    "role": "assistant",
                    "content": [{"type": "output_text", "text": said, "annotations": []}],
                }
            ],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": {
                "input_tokens": prompt_tokens,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": 17 * len(marks),
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": prompt_tokens + 17 * len(marks),
            },
        }


_WIRES: dict[bytes, _Wire] = {b"/chat/completions": _Wire(), b"/responses": _Responses()}


def _texts(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(str(part.get("text") or "") for part in content)
    return str(content or "")


def _said(body: dict[str, Any], marks: list[str]) -> str:
    """The answer to the first row of the request; each field of it, where a JSON schema is asked for."""
    said = answer(int(marks[0][1:])) if marks else "Hello."
    schema = (body.get("response_format") or {}).get("json_schema", {}).get("schema")
    return orjson.dumps(dict.fromkeys(schema["properties"], said)).decode() if schema else said


async def _serve(port_file: Path, conditions: Conditions) -> None:
    loop = asyncio.get_running_loop()
    account = _Account(conditions)
    connection = _Connection if conditions.canned else lambda: _ConditionalConnection(account)
    server = await loop.create_server(connection, "127.0.0.1", 0, backlog=4096)
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
def serving(conditions: Conditions | None = None) -> Iterator[str]:
    """A server in a process of its own, as its base URL; it ends with the block, and also when this process dies."""
    with tempfile.TemporaryDirectory() as folder:
        port_file = Path(folder) / "port"
        written = orjson.dumps(asdict(conditions or Conditions())).decode()
        command = [sys.executable, "-m", "benchmarks.server", "--port-file", str(port_file), "--conditions", written]
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


def stats(url: str) -> dict[str, Any]:
    """What the server with this base URL has counted."""
    counted: dict[str, Any] = _told(url, "/stats")
    return counted


def bookings(url: str) -> list[int]:
    """Tokens of each request there with a row that had not been seen yet."""
    booked: list[int] = _told(url, "/bookings")
    return booked


def _told(url: str, path: str) -> Any:
    with urllib.request.urlopen(url.removesuffix("/v1") + path, timeout=30) as response:
        return orjson.loads(response.read())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--port-file", type=Path, required=True, help="the port is written here once the server listens")
    parser.add_argument("--conditions", type=orjson.loads, default={}, help="the fields of account.Conditions, as JSON")
    given = parser.parse_args()
    asyncio.run(_serve(given.port_file, Conditions(**given.conditions)))
    os._exit(0)  # connections that clients still hold need no farewell


if __name__ == "__main__":
    main()
