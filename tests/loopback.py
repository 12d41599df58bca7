"""A pretend OpenAI-compatible provider on real sockets, with faults on order.

It speaks chat, embeddings, rerank and models as OpenAI documents them (rerank as vLLM, infinity and LiteLLM serve it), so the
official SDK accepts it unmodified. Answers are functions of the question, hence a test can foretell them; what was sent is counted
at the far end of the wire, where no client can flatter itself. All times are seconds, on the clock of ``time.monotonic``.

>>> with Loopback() as server:
...     server.fault("row 17", rate_limited(), server_error())  # row 17: a 429, a 500, then ordinary service
...     client = openai.OpenAI(base_url=server.url, api_key="any")
...     ...
...     assert server.count("row 17") == 3

``python -m tests.loopback --port-file PATH`` serves as a process of its own until its standard input closes.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import http.client
import itertools
import math
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, ClassVar, Literal, Self

import numpy as np
import orjson


@dataclass(slots=True)
class Seen:
    """One request as it arrived."""

    method: str
    path: str  # without the query
    headers: dict[str, str]  # names in lower case
    body: Any  # the parsed JSON, or bytes where it is none
    texts: list[str]  # user messages of a chat, inputs of an embedding, documents of a rerank: where faults and counts look
    at: float
    answered_at: float | None = None  # when the last byte so far was handed to the socket; None while none was
    number: int = 0  # 1 for the first request


# ---------------------------------------------------------------------------------------------------------------- answers


class Answer:
    """How one request is answered. `ordinary` makes the head and the body that a healthy provider would have sent."""

    async def send(self, wire: _Wire, ordinary: Ordinary) -> None:
        raise NotImplementedError


Ordinary = Callable[[], tuple[bytes, bytes]]


@dataclass(frozen=True)
class Status(Answer):
    """A whole response. It claims to be JSON unless `headers` (names in lower case) say otherwise, as broken proxies do."""

    code: int
    body: dict[str, Any] | list[Any] | str | bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    async def send(self, wire: _Wire, ordinary: Ordinary) -> None:
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


@dataclass(frozen=True)
class Raw(Answer):
    """These bytes as they are, then FIN; a complete response makes a kept-alive connection that dies unannounced."""

    data: bytes

    async def send(self, wire: _Wire, ordinary: Ordinary) -> None:
        wire.finish(self.data, close=True)


@dataclass(frozen=True)
class Reset(Answer):
    """RST instead of an answer."""

    async def send(self, wire: _Wire, ordinary: Ordinary) -> None:
        # To linger for zero seconds is what makes the kernel send RST where it would send FIN.
        wire.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        wire.transport.abort()


@dataclass(frozen=True)
class Close(Answer):
    """FIN instead of an answer."""

    async def send(self, wire: _Wire, ordinary: Ordinary) -> None:
        wire.finish(b"", close=True)


@dataclass(frozen=True)
class CloseMidBody(Answer):
    """The ordinary answer, cut off after this share of its body."""

    fraction: float

    async def send(self, wire: _Wire, ordinary: Ordinary) -> None:
        head, body = ordinary()
        wire.finish(head + body[: int(len(body) * self.fraction)], close=True)


@dataclass(frozen=True)
class Hang(Answer):
    """Silence, until the client or the server goes away."""

    async def send(self, wire: _Wire, ordinary: Ordinary) -> None:
        await asyncio.Event().wait()


@dataclass(frozen=True)
class Drip(Answer):
    """The ordinary answer, head and all, byte by byte: no single read times out, only a deadline for the whole ends it."""

    seconds_per_byte: float

    async def send(self, wire: _Wire, ordinary: Ordinary) -> None:
        response = b"".join(ordinary())
        for at in range(len(response) - 1):
            wire.write(response[at : at + 1])
            await asyncio.sleep(self.seconds_per_byte)
        wire.finish(response[-1:])


@dataclass(frozen=True)
class GzipBomb(Answer):
    """A valid chat completion of so many MiB that travels as about 1 KiB for each."""

    mebibytes: int

    async def send(self, wire: _Wire, ordinary: Ordinary) -> None:
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


def Json(body: dict[str, Any] | list[Any]) -> Status:
    """200 with this body."""
    return Status(200, body)


def _error(status: int, message: str, kind: str = "invalid_request_error", code: str | None = None, **headers: str) -> Status:
    body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return Status(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


def _limit_reached(model: str, kind: str, limit: float, used: float, asked: float, wait: str, **headers: str) -> Status:
    name = {"tokens": "tokens per min (TPM)", "requests": "requests per min (RPM)"}[kind]
    message = (
        f"Rate limit reached for {model} in organization org-X on {name}: Limit {limit:.0f}, Used {used:.0f}, Requested {asked:.0f}. "
        f"Please try again in {wait}. Visit https://platform.openai.com/account/rate-limits to learn more."
    )
    return _error(429, message, kind, "rate_limit_exceeded", **headers)


def rate_limited(retry_after_ms: int = 60, retry_after: str | None = None) -> Status:
    """OpenAI's 429; `retry_after` (that header verbatim, nonsense welcome) takes the place of the milliseconds."""
    if retry_after is not None:
        return _error(429, "Rate limit reached", "requests", "rate_limit_exceeded", retry_after=retry_after)
    wait = f"{retry_after_ms}ms"
    hints = {"retry_after_ms": wait[:-2], "x_ratelimit_remaining_tokens": "0", "x_ratelimit_reset_tokens": wait}
    return _limit_reached("gpt-4o", "tokens", 30000, 26107, 3923, wait, **hints)


def groq_rate_limited() -> Status:
    """Groq's 429, with its whole set of x-ratelimit headers."""
    message = (
        "Rate limit reached for model gemma2-9b-it in organization org_X service tier on_demand on tokens per minute (TPM): Limit "
        "15000, Used 11972, Requested 4351. Please try again in 5.289s. Visit https://console.groq.com/docs/rate-limits for more "
        "information."
    )
    names = ("limit-requests", "limit-tokens", "remaining-tokens", "reset-requests", "reset-tokens")
    values = zip(names, ("14400", "15000", "3028", "2m59.56s", "5.289s"), strict=True)
    hints = {f"x-ratelimit-{name}": value for name, value in values}
    return _error(429, message, "tokens", "rate_limit_exceeded", retry_after="6", **hints)


def bad_key() -> Status:
    """OpenAI's 401."""
    where = "You can find your API key at https://platform.openai.com/account/api-keys."
    return _error(401, f"Incorrect API key provided: sk-abc***. {where}", code="invalid_api_key")


def unknown_model(name: str = "gpt-nope") -> Status:
    """OpenAI's 404 for a model."""
    return _error(404, f"The model `{name}` does not exist or you do not have access to it.", code="model_not_found")


def no_credit() -> Status:
    """OpenAI's 429 that no waiting cures."""
    message = (
        "You exceeded your current quota, please check your plan and billing details. For more information on this error, read the "
        "docs: https://platform.openai.com/docs/guides/error-codes/api-errors."
    )
    return _error(429, message, "insufficient_quota", "insufficient_quota")


def overloaded(should_retry: bool | None = None) -> Status:
    """Anthropic's 529, with x-should-retry where `should_retry` is not None."""
    request_id = "req_018EeWyXxfu5pfWkrYcMdjWG"
    body = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}, "request_id": request_id}
    hint = {} if should_retry is None else {"x-should-retry": str(should_retry).lower()}
    return Status(529, body, {"request-id": request_id, **hint})


def server_error() -> Status:
    """OpenAI's 500."""
    return _error(500, "The server had an error while processing your request. Sorry about that!", "server_error")


def html_502() -> Status:
    """Cloudflare's 502."""
    page = "<html><head><title>502 Bad Gateway</title></head><body><center><h1>502 Bad Gateway</h1></center><hr>"
    return Status(502, page + "<center>cloudflare</center></body></html>", {"content-type": "text/html"})


def refusal() -> Status:
    """A 200 that says no."""
    message = {"role": "assistant", "content": None, "refusal": "I'm sorry, I can't help with that."}
    choice = {"index": 0, "finish_reason": "content_filter", "message": message}
    return Json({"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 8, "total_tokens": 17}})


def batch_too_large() -> Status:
    """OpenAI's 400 for an embedding batch over the limit."""
    kind = "max_tokens_per_request"
    return _error(400, "Requested 1127189 tokens, max 300000 tokens per request", kind, kind)


# ------------------------------------------------------------------------------------------------------- texts and limits


def vector_of(text: str, dimensions: int = 8) -> np.ndarray:
    """The embedding of a text: float32 of shape (dimensions,) and norm 1."""
    # A hash that yields any number of bytes is the same everywhere; a random generator's stream is numpy's to change.
    raw = np.frombuffer(hashlib.shake_256(text.encode()).digest(4 * dimensions), dtype="<u4")
    vector = raw / 2**31 - 1
    return (vector / np.linalg.norm(vector)).astype("<f4")


def go_duration(seconds: float) -> str:
    """A duration as OpenAI sends it (60ms, 8.64s, 6m0s), rounded up: who waits it out is let in."""
    milliseconds = math.ceil(seconds * 1000)
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{rest / 1000:g}s"


def _texts(body: Any) -> list[str]:
    match body:
        case {"messages": list(messages)}:
            return [_content(message) for message in messages if message["role"] == "user"]
        case {"input": str(text)}:
            return [text]
        case {"input": list(texts)} if all(isinstance(text, str) for text in texts):
            return texts
        case {"documents": list(documents)}:
            return [document if isinstance(document, str) else document["text"] for document in documents]
    return []


def _content(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content if part["type"] == "text")


def _tokens(*texts: str) -> int:
    return max(1, sum(map(len, texts)) // 4)


class _Second:
    """At most `limit` in any second, wherever that second begins."""

    def __init__(self, limit: float) -> None:
        self.limit, self._taken = limit, deque[float]()

    def left(self) -> float:
        while self._taken and self._taken[0] <= time.monotonic() - 1:
            self._taken.popleft()
        return self.limit - len(self._taken)

    def take(self, amount: float) -> None:
        self._taken.append(time.monotonic())

    def wait(self, amount: float) -> float:
        missing = math.ceil(amount - self.left())
        return self._taken[missing - 1] + 1 - time.monotonic() if missing > 0 else 0.0


class _Bucket:
    """A bucket of a minute's worth, full at first, that fills steadily."""

    def __init__(self, limit: float) -> None:
        self.limit, self._level, self._as_of = limit, limit, time.monotonic()

    def left(self) -> float:
        now = time.monotonic()
        self._level, self._as_of = min(self.limit, self._level + (now - self._as_of) * self.limit / 60), now
        return self._level

    def take(self, amount: float) -> None:
        self._level -= amount

    def wait(self, amount: float) -> float:
        return max(0.0, amount - self.left()) * 60 / self.limit


class _RateLimit:
    def __init__(self, per_second: float | None, tokens_per_minute: float | None, window: str, headers: bool) -> None:
        self._send_headers = headers
        self._budgets: dict[str, tuple[_Second | _Bucket, float]] = {}  # with the limit as headers and messages tell it
        if per_second is not None:
            if window == "second" and per_second < 1:
                raise ValueError("less than one request a second needs window='minute_bucket'")
            # OpenAI quotes requests per minute also where it enforces them by the second.
            self._budgets["requests"] = _Second(per_second) if window == "second" else _Bucket(per_second * 60), per_second * 60
        if tokens_per_minute is not None:
            self._budgets["tokens"] = _Bucket(tokens_per_minute), tokens_per_minute

    def refusal(self, request: Seen) -> Status | None:
        """The 429, or None for a request that fits and is booked; refused requests cost nothing."""
        body = request.body if isinstance(request.body, dict) else {}
        # OpenAI's rule: the output that is asked for, or the estimate from the characters where that is more.
        tokens = max(_tokens(*request.texts), body.get("max_completion_tokens") or body.get("max_tokens") or 0)
        amounts = {"requests": 1, "tokens": tokens}
        for kind, (budget, limit) in self._budgets.items():
            left, wait, amount = budget.left(), budget.wait(amounts[kind]), amounts[kind]
            if left < amount - 1e-6:
                hints = {"retry_after_ms": str(math.ceil(wait * 1000))} if self._send_headers else {}
                used = limit * max(0.0, 1 - left / budget.limit)
                return _limit_reached(str(body.get("model")), kind, limit, used, amount, go_duration(wait), **hints)
        for kind, (budget, _) in self._budgets.items():
            budget.take(amounts[kind])
        return None

    def headers(self) -> dict[str, str]:
        headers = {}
        for kind, (budget, limit) in self._budgets.items() if self._send_headers else ():
            headers[f"x-ratelimit-limit-{kind}"] = f"{limit:.0f}"
            headers[f"x-ratelimit-remaining-{kind}"] = f"{max(0, math.floor(budget.left() + 1e-6))}"
            headers[f"x-ratelimit-reset-{kind}"] = go_duration(budget.wait(budget.limit))
        return headers


# ----------------------------------------------------------------------------------------------------------------- server


class Loopback:
    """The provider, in a thread and an event loop of its own. Settings may be changed at any time, from any thread.

    Parameters
    ----------
    port
        0 takes a free one.
    keep_seen
        Whether each request is kept in `seen`; without it a big run leaves only the counters.
    """

    def __init__(self, port: int = 0, *, keep_seen: bool = True) -> None:
        self.port = port
        self.keep_seen = keep_seen
        self.latency: float | Callable[[Seen], float] = 0.0  # before an ordinary answer; faults and 429s come at once
        self.answer: Callable[[dict[str, Any]], str] = lambda body: f"answer to: {(_texts(body) or [''])[-1]}"
        self.dimensions = 8  # of a vector where the request does not say
        self.shuffle_embeddings = False  # vectors in another order than the inputs, with right indexes
        # From the items (dicts whose "embedding" is a float32 array, not yet encoded) to those that are sent. NaN survives
        # base64; in a list of floats it becomes null, since JSON has no word for it.
        self.corrupt_embeddings: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] | None = None
        self.key: str | None = None  # the only API key that is let in; None lets in any
        self.models = ["test-chat", "test-embed", "test-rerank"]  # what is listed; others are served all the same
        self.in_flight = 0
        self._changed = threading.Condition()
        self._gate: asyncio.Event | None = None
        self._wires: set[_Wire] = set()
        self._thread: threading.Thread | None = None
        self.rate_limit()
        self.reset()

    def reset(self) -> None:
        """Forget what was seen and the faults; settings stay."""
        with self._changed:
            self.seen: list[Seen] = []  # in order of arrival
            self.texts: Counter[str] = Counter()  # how often each text arrived
            self.requests = self.rate_limited_count = 0  # arrived; refused by `rate_limit`
            self.max_in_flight = self.in_flight
            self._faults: list[tuple[str | None, Iterator[Answer]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen; after a `stop`, on the same port again."""
        listening: Future[int] = Future()
        self._thread = threading.Thread(target=self._run, args=(listening,), name="loopback", daemon=True)
        self._thread.start()
        self.port = listening.result()

    def stop(self) -> None:
        """Abort every connection; no thread, socket or task is left."""
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()
            self._thread = self._gate = None

    def count(self, text: str) -> int:
        """How many requests had a text that contains `text`; with `keep_seen` off, how many texts contain it."""
        with self._changed:
            if self.keep_seen:
                return sum(any(text in one for one in request.texts) for request in self.seen)
            return sum(times for one, times in self.texts.items() if text in one)

    def wait_for(self, requests: int, timeout: float = 5.0) -> None:
        """Block until so many requests have been seen; AssertionError after `timeout` seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.requests >= requests, timeout):
                raise AssertionError(f"{requests} requests expected within {timeout} s, {self.requests} seen")

    def hold(self) -> None:
        """From now on count requests, but answer none before `release`."""
        self._gate = self._gate or asyncio.Event()

    def release(self) -> None:
        """Answer what was held; faults, key and rate limit are looked up now, not when the request came."""
        # Each hold has a gate of its own, so that a hold right after this cannot catch the requests that are let go here.
        gate, self._gate = self._gate, None
        if gate is not None:
            self._loop.call_soon_threadsafe(gate.set)

    def fault(self, match: str | None, *answers: Answer, times: float = 1) -> None:
        """Give these answers, one after another, to requests with a text that contains `match`; then serve as usual.

        Parameters
        ----------
        match
            None is any request, to any path. Of several faults the first registered that has an answer left is taken.
        times
            How often the answers are gone through; ``float("inf")`` for ever.
        """
        plan = itertools.cycle(answers) if times == math.inf else iter(answers * int(times))
        with self._changed:
            self._faults.append((match, plan))

    def clear_faults(self) -> None:
        with self._changed:
            self._faults = []

    def rate_limit(
        self,
        per_second: float | None = None,
        headers: bool = False,
        window: Literal["second", "minute_bucket"] = "second",
        tokens_per_minute: float | None = None,
    ) -> None:
        """Enforce a limit with OpenAI's 429; without arguments, lift it.

        Parameters
        ----------
        headers
            Whether ordinary answers carry the x-ratelimit headers, and 429s retry-after-ms; else only the message tells.
        window
            "second": never more than `per_second` in any second. "minute_bucket": a bucket of a minute's worth, full at first,
            that fills steadily; 60 requests a minute are ``rate_limit(1, window="minute_bucket")``.
        tokens_per_minute
            Another such bucket; a request takes a quarter of its characters, or its max_tokens where that is more.
        """
        self._limit = _RateLimit(per_second, tokens_per_minute, window, headers)

    # What follows runs in the server's thread.

    def _run(self, listening: Future[int]) -> None:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:  # also on Windows: `_serve` removes a reader
            runner.run(self._serve(listening))

    async def _serve(self, listening: Future[int]) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        try:
            listener = await self._loop.create_server(lambda: _Wire(self), "127.0.0.1", self.port, backlog=1024)
        except OSError as problem:
            return listening.set_exception(problem)
        listening.set_result(listener.sockets[0].getsockname()[1])
        await self._stopping.wait()
        # Not listener.close() at once: asyncio drops, unclosed, a connection that is accepted but not yet made. And it takes some
        # turns of the loop: such a connection has to be made first, and connection_lost comes one turn after abort.
        self._loop.remove_reader(listener.sockets[0].fileno())
        while self._wires or len(asyncio.all_tasks()) > 1:
            for wire in self._wires:
                wire.transport.abort()
            await asyncio.sleep(0)
        listener.close()

    def arrived(self, request: Seen) -> None:
        with self._changed:
            self.requests = request.number = self.requests + 1
            self.in_flight += 1
            self.max_in_flight = max(self.max_in_flight, self.in_flight)
            self.texts.update(request.texts)
            if self.keep_seen:
                self.seen.append(request)
            self._changed.notify_all()

    async def respond(self, wire: _Wire, request: Seen) -> None:
        try:
            if self._gate is not None:
                await self._gate.wait()
            fault = self._fault_for(request)
            refusal = None if fault else self._refusal(request)
            if fault is None and refusal is None:
                await asyncio.sleep(self.latency(request) if callable(self.latency) else self.latency)

            def ordinary() -> tuple[bytes, bytes]:
                number = {"x-request-id": f"req_{request.number:032x}"}
                return (refusal or self._route(request)).render(number | self._limit.headers())

            if fault is None:
                wire.finish(b"".join(ordinary()))
            else:
                await fault.send(wire, ordinary)
        except Exception as problem:
            wire.finish(b"".join(_error(400, f"Invalid request: {problem!r}").render({})))

    def _fault_for(self, request: Seen) -> Answer | None:
        with self._changed:
            fitting = (plan for match, plan in self._faults if match is None or any(match in text for text in request.texts))
            return next(itertools.chain.from_iterable(fitting), None)

    def _refusal(self, request: Seen) -> Status | None:
        if self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}":
            return bad_key()
        refusal = self._limit.refusal(request)
        self.rate_limited_count += refusal is not None
        return refusal

    def _route(self, request: Seen) -> Status:
        handler = self._ROUTES.get((request.method, request.path))
        if handler is None:
            return _error(404, f"Invalid URL ({request.method} {request.path})")
        if request.method == "POST" and not isinstance(request.body, dict):
            return _error(400, "We could not parse the JSON body of your request.")
        return handler(self, request)

    def _chat(self, request: Seen) -> Status:
        body, text = request.body, self.answer(request.body)
        prompt, completion = _tokens(*map(_content, body["messages"])), _tokens(text)
        usage: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        usage["prompt_tokens_details"] = {"cached_tokens": 0}
        same = {"id": f"chatcmpl-{request.number}", "created": int(time.time()), "model": body["model"]}
        if not body.get("stream"):
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            return Json({**same, "object": "chat.completion", "choices": [choice], "usage": usage})

        deltas = [{"role": "assistant", "content": ""}, *({"content": text[at : at + 8]} for at in range(0, len(text), 8)), {}]
        reasons = [None] * (len(deltas) - 1) + ["stop"]
        pairs = zip(deltas, reasons, strict=True)
        events: list[Any] = [{"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]} for delta, reason in pairs]
        if (body.get("stream_options") or {}).get("include_usage"):
            events = [*({**event, "usage": None} for event in events), {"choices": [], "usage": usage}]
        lines = [orjson.dumps({**same, "object": "chat.completion.chunk", **event}) for event in events]
        stream = b"".join(_chunk(b"data: %s\n\n" % line) for line in [*lines, b"[DONE]"]) + _chunk(b"")
        return Status(200, stream, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})

    def _embeddings(self, request: Seen) -> Status:
        body, texts = request.body, request.texts
        if not 0 < len(texts) <= 2048 or "" in texts:
            where = "https://platform.openai.com/docs/api-reference"
            return _error(400, f"'$.input' is invalid. Please check the API reference: {where}.")
        size = body.get("dimensions") or self.dimensions
        pairs = enumerate(texts)
        items: list[Any] = [{"object": "embedding", "index": i, "embedding": vector_of(text, size)} for i, text in pairs]
        if self.shuffle_embeddings:
            items = items[1::2] + items[::2]
        if self.corrupt_embeddings is not None:
            items = self.corrupt_embeddings(items)
        in_base64 = body.get("encoding_format") == "base64"
        for item in items:
            if isinstance(vector := item["embedding"], np.ndarray):
                packed = vector.astype("<f4")
                item["embedding"] = base64.b64encode(packed.tobytes()).decode() if in_base64 else packed.tolist()
        usage = dict.fromkeys(("prompt_tokens", "total_tokens"), _tokens(*texts))
        return Json({"object": "list", "data": items, "model": body["model"], "usage": usage})

    def _rerank(self, request: Seen) -> Status:
        """Score a document by the words it shares with the query, of all the words that the two have."""
        body, query = request.body, set(request.body["query"].lower().split())
        results: list[dict[str, Any]] = []
        for index, text in enumerate(request.texts):
            words = set(text.lower().split())
            document = {"document": {"text": text}} if body.get("return_documents") else {}
            results.append({"index": index, "relevance_score": len(query & words) / max(1, len(query | words)), **document})
        results = sorted(results, key=lambda result: -result["relevance_score"])[: body.get("top_n")]
        usage = {"total_tokens": _tokens(body["query"], *request.texts)}
        return Json({"id": f"rerank-{request.number}", "model": body["model"], "results": results, "usage": usage})

    def _models(self, request: Seen) -> Status:
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "loopback"} for name in self.models]
        return Json({"object": "list", "data": data})

    _ROUTES: ClassVar[dict[tuple[str, str], Callable[[Loopback, Seen], Status]]] = {
        ("POST", "/v1/chat/completions"): _chat,
        ("POST", "/v1/embeddings"): _embeddings,
        ("POST", "/v1/rerank"): _rerank,
        ("GET", "/v1/models"): _models,
    }

    def control(self, request: Seen) -> Status:
        """Serve what another process may ask of this one; such requests are not counted."""
        if request.path == "/_reset":
            self.reset()
        for name, value in request.body.items() if request.path == "/_set" else ():
            if name == "rate_limit":
                self.rate_limit(**value)
            elif name in ("latency", "dimensions", "key", "models", "shuffle_embeddings"):
                setattr(self, name, value)
            else:
                return _error(400, f"No such setting: {name}")
        numbers = {name: getattr(self, name) for name in ("requests", "in_flight", "max_in_flight", "rate_limited_count")}
        return Json({**numbers, "texts": dict(self.texts)})


class _Wire(asyncio.Protocol):
    """One connection: bytes to requests, one at a time, and the answers back."""

    transport: asyncio.Transport

    def __init__(self, server: Loopback) -> None:
        self._server, self._buffer = server, bytearray()
        self._request: Seen | None = None
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._server._wires.add(self)

    def connection_lost(self, problem: Exception | None) -> None:
        self._server._wires.discard(self)
        if self._request is not None and self._task is not None:  # the client gave up waiting
            self._settle()
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._request is None:
            self._next()

    def _next(self) -> None:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        start, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
        method, target, _ = start.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body, end = self._body(headers, end + 4)
        if body is None:
            return
        del self._buffer[:end]
        request = Seen(method, target.partition("?")[0], headers, body, [], time.monotonic())
        try:
            request.body = orjson.loads(body)
            request.texts = _texts(request.body)
        except (ValueError, KeyError, TypeError, AttributeError):
            pass  # no JSON, or not the JSON that is documented: `respond` says so
        if request.path.startswith("/_"):
            self.transport.write(b"".join(self._server.control(request).render({})))
        else:
            self._request = request
            self._server.arrived(request)
            self._task = asyncio.get_running_loop().create_task(self._server.respond(self, request))

    def _body(self, headers: dict[str, str], start: int) -> tuple[bytes | None, int]:
        """The body and where it ends; None while it is still on its way."""
        buffer, body = self._buffer, bytearray()
        if headers.get("transfer-encoding", "").lower() != "chunked":
            end = start + int(headers.get("content-length", 0))
            return (bytes(buffer[start:end]) if len(buffer) >= end else None), end
        while (line_end := buffer.find(b"\r\n", start)) >= 0:
            size = int(buffer[start:line_end].partition(b";")[0], 16)
            if size == 0:
                end = buffer.find(b"\r\n\r\n", line_end)  # the empty line, with or without trailers before it
                return (bytes(body) if end >= 0 else None), end + 4
            body += buffer[line_end + 2 : line_end + 2 + size]
            start = line_end + 2 + size + 2
        return None, 0

    def _settle(self) -> None:
        if self._request is not None:
            self._request = None
            with self._server._changed:
                self._server.in_flight -= 1

    def write(self, data: bytes) -> None:
        """Send a part of the answer."""
        if self._request is not None and data:
            self._request.answered_at = time.monotonic()
        self.transport.write(data)

    def finish(self, data: bytes, *, close: bool = False) -> None:
        """Send the last part of the answer."""
        if self._request is not None and data:
            self._request.answered_at = time.monotonic()
        # Settled before it is sent: a client that has its answer never finds its request still in flight.
        self._settle()
        self.transport.write(data)
        if close:
            self.transport.close()
        else:
            self._next()


# ---------------------------------------------------------------------------------------------------------------- process


class LoopbackProcess:
    """The provider in a process of its own, for tests that kill processes or measure speed. `port`, `url`, `pid`."""

    def __enter__(self) -> Self:
        command = [sys.executable, "-P", os.path.abspath(__file__)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self.pid, self.port = self._process.pid, int(self._process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}/v1"
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            try:
                self._process.communicate(timeout=5)  # closes its standard input, its sign to end
            except subprocess.TimeoutExpired:
                self._process.kill()

    def stats(self) -> dict[str, Any]:
        """requests, in_flight, max_in_flight, rate_limited_count, and texts: how often each arrived."""
        return self._control("GET", "/_stats")

    def set(self, **settings: Any) -> None:
        """Change latency, dimensions, key, models, shuffle_embeddings or rate_limit (a dict of its arguments)."""
        self._control("POST", "/_set", settings)

    def reset(self) -> None:
        """Forget what was seen."""
        self._control("POST", "/_reset")

    def _control(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)  # urllib would ask a proxy
        try:
            connection.request(method, path, orjson.dumps(body))
            response = connection.getresponse()
            answer: dict[str, Any] = orjson.loads(response.read())
        finally:
            connection.close()
        if response.status != 200:
            raise ValueError(answer["error"]["message"])
        return answer


def main() -> None:
    parser = argparse.ArgumentParser(description="Print the port and serve until standard input closes.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--port-file", help="write the port here as well")
    options = parser.parse_args()
    with Loopback(options.port, keep_seen=False) as server:
        if options.port_file:
            # Renamed into place, so that who waits for the file never reads half of it.
            with open(f"{options.port_file}.part", "w") as file:
                file.write(str(server.port))
            os.replace(file.name, options.port_file)
        print(server.port, flush=True)
        sys.stdin.buffer.read()


if __name__ == "__main__":
    main()
