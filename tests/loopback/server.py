"""The provider itself: a thread, an event loop, and one object for each connection."""

from __future__ import annotations

import asyncio
import itertools
import math
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, Literal, Self

from .answers import Answer, Json, Paced, Ready, Seen, Status
from .batches import Batches
from .content import Said, texts_of
from .errors.openai import invalid
from .form import parsed
from .limits import RateLimit
from .prompt_cache import PromptCache
from .serving import Serving, Vendor
from .vendors import base_of, compat_base_of, vendor_at
from .wires import jobs


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
        self.pace: float | Callable[[Seen], float] = 0.0  # between two pieces of an ordinary answer that is streamed
        # From a request's body, whichever wire it came by, to the text of its answer; None says what `content.reply` makes of it.
        self.answer: Callable[[dict[str, Any]], str] | None = None
        # From a request's body to what it is refused with; None serves it.
        self.refuse: Callable[[dict[str, Any]], Status | None] | None = None
        # Tokens that a chat's prompt is said to hold beside its messages: read from the vendor's cache, written to it. Vendors that
        # count them as input have them in that number too.
        self.cached_tokens = self.cache_write_tokens = 0
        # A prompt cache that works as the vendor documents it; then the two numbers above have no say.
        self.prompt_cache: PromptCache | None = None
        self.dimensions = 8  # of a vector where the request does not say
        self.shuffle_embeddings = False  # vectors in another order than the inputs, with right indexes
        # From the items (dicts whose "embedding" is a float32 array, not yet encoded) to those that are sent. NaN survives
        # base64; in a list of floats it becomes null, since JSON has no word for it.
        self.corrupt_embeddings: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] | None = None
        self.key: str | None = None  # the only API key that is let in; None lets in any
        self.models = ["test-chat", "test-embed", "test-rerank"]  # what is listed; others are served all the same
        self.batches = Batches(self)
        self.in_flight = 0
        self._changed = threading.Condition()
        self._gate: asyncio.Event | None = None
        self._wires: set[Wire] = set()
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
            self.batches.reset()

    @property
    def url(self) -> str:
        """Where OpenAI's format is spoken and no key is asked for."""
        return f"{self._host}/v1"

    def url_of(self, vendor: str) -> str:
        """The base URL that the vendor's own SDK is given; a vendor that is not known here is one of OpenAI's format."""
        return self._host + base_of(vendor)

    def compat_url_of(self, vendor: str) -> str:
        """The base URL at which the vendor is spoken to in OpenAI's format."""
        return self._host + compat_base_of(vendor)

    @property
    def _host(self) -> str:
        return f"http://127.0.0.1:{self.port}"

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
        """Enforce a limit with the vendor's 429; without arguments, lift it.

        Parameters
        ----------
        headers
            Whether ordinary answers carry the vendor's headers about it, and 429s how long to wait; else only the message tells.
        window
            "second": never more than `per_second` in any second. "minute_bucket": a bucket of a minute's worth, full at first,
            that fills steadily; 60 requests a minute are ``rate_limit(1, window="minute_bucket")``.
        tokens_per_minute
            Another such bucket; a request takes a quarter of its characters, or its max_tokens where that is more.
        """
        self._limit = RateLimit(per_second, tokens_per_minute, window, headers)

    # What follows runs in the server's thread.

    def _run(self, listening: Future[int]) -> None:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:  # also on Windows: `_serve` removes a reader
            runner.run(self._serve(listening))

    async def _serve(self, listening: Future[int]) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        try:
            listener = await self._loop.create_server(lambda: Wire(self), "127.0.0.1", self.port, backlog=1024)
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

    async def respond(self, wire: Wire, request: Seen) -> None:
        vendor, path = vendor_at(request.path)
        try:
            if self._gate is not None:
                await self._gate.wait()
            fault = self._fault_for(request)
            refusal = None if fault else self._refusal(request, vendor)
            if fault is None and refusal is None:
                await asyncio.sleep(self.latency(request) if callable(self.latency) else self.latency)

            def ordinary(said: Said | None = None) -> tuple[bytes, bytes]:
                answer = refusal or _route(Serving(self, vendor, request, path, said))
                more = vendor.voice.levels(self._limit.levels())
                return answer.render({vendor.request_id: f"req_{request.number:032x}"} | more)

            if fault is None:
                pace = self.pace(request) if callable(self.pace) else self.pace
                await (Paced(pace) if pace else Ready()).send(wire, ordinary)
            else:
                await fault.send(wire, ordinary)
        except Exception as problem:
            wire.finish(b"".join(vendor.voice.invalid(f"Invalid request: {problem!r}").render({})))

    def _fault_for(self, request: Seen) -> Answer | None:
        with self._changed:
            fitting = (plan for match, plan in self._faults if match is None or any(match in text for text in request.texts))
            return next(itertools.chain.from_iterable(fitting), None)

    def _refusal(self, request: Seen, vendor: Vendor) -> Status | None:
        key = vendor.wire.credential(request.headers)
        if key is None and not vendor.keyless:
            return vendor.voice.MISSING_KEY
        if self.key is not None and key != self.key:
            refusal = vendor.voice.ERRORS["bad_key"]
            assert isinstance(refusal, Status)
            return refusal
        limit = self._limit.refusal(request)
        if limit is None:
            return None if self.refuse is None else self.refuse(request.body)
        self.rate_limited_count += 1
        return vendor.voice.too_fast(limit, self._limit.told)

    def control(self, request: Seen) -> Status:
        """Serve what another process may ask of this one; such requests are not counted."""
        if request.path == "/_reset":
            self.reset()
        for name, value in request.body.items() if request.path == "/_set" else ():
            if name == "rate_limit":
                self.rate_limit(**value)
            elif name in ("latency", "dimensions", "key", "models", "shuffle_embeddings", "cached_tokens", "cache_write_tokens"):
                setattr(self, name, value)
            else:
                return invalid(f"No such setting: {name}")
        numbers = {name: getattr(self, name) for name in ("requests", "in_flight", "max_in_flight", "rate_limited_count")}
        return Json({**numbers, "texts": dict(self.texts)})


def routed(server: Loopback, vendor: Vendor, request: Seen, path: str) -> Status:
    """What the vendor's live address answers, for a request that came in a job."""
    return _route(Serving(server, vendor, request, path))


def _route(serving: Serving) -> Status:
    request, voice = serving.request, serving.vendor.voice
    for (method, pattern), handler in jobs.routes(serving.vendor.name).items():
        if method == request.method and re.fullmatch(pattern, serving.path):
            return handler(serving)
    for (method, pattern), handler in serving.vendor.wire.ROUTES.items():
        if method == request.method and re.fullmatch(pattern, serving.path) and serving.path not in serving.vendor.dialect.absent:
            if method == "POST" and not isinstance(request.body, dict):
                return voice.invalid("We could not parse the JSON body of your request.")
            return handler(serving)
    return voice.invalid(f"Invalid URL ({request.method} {request.path})", status=404)


class Wire(asyncio.Protocol):
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
        path, _, query = target.partition("?")
        request = Seen(method, path, headers, body, [], time.monotonic(), query=query, vendor=vendor_at(path)[0].name)
        try:
            request.body = parsed(headers.get("content-type", ""), body)
            request.texts = texts_of(request.body)
        except (ValueError, KeyError, TypeError, AttributeError):
            pass  # not what the headers say, or not what is documented: `respond` says so
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
