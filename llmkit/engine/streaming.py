"""An answer that comes in pieces: sent once, paced like any other, handed over to the next model only while nothing was said yet."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import orjson

from ..adapter import Codec, Target
from ..errors import (
    BadOutput,
    Busy,
    ConnectionLost,
    ContentBlocked,
    ContextTooLong,
    LLMError,
    Overloaded,
    RequestError,
    ServerFault,
    Truncated,
    Unreachable,
    all_failed,
)
from ..event_loop import sleep
from ..types import Limits, Operation, Policy, Reply, Request, Usage
from .engine import Engine, key_of, prefix
from .exchange import answered, refusal, signed
from .limiter import Limiter, Permit
from .store import OutcomeRow, ReplyRow
from .tracing import watching

if TYPE_CHECKING:
    from .transport import Response

__all__ = ["Events", "Told", "Wish", "exchange", "speaks", "stream"]

#: Bytes that one event may have.
MAX_EVENT = 16 * 1024 * 1024


@dataclass(slots=True)
class Told:
    """What is known of an answer while it comes, and afterwards.

    Attributes
    ----------
    text : str
        All pieces so far.
    target : str or None
        ``"provider/model"`` that answers.
    usage : Usage
        What was billed, models included that broke off before this one.
    cost : float or None
        US dollars; ``None`` where a price, or what was used, is unknown.
    finish : str or None
        Why the answer ended: ``"stop"``, ``"length"``, ...
    """

    text: str = ""
    target: str | None = None
    usage: Usage = field(default_factory=Usage)
    cost: float | None = 0.0
    finish: str | None = None
    attempts: int = 0
    seconds: float = 0.0
    #: Requests that had left and of whose answers nothing came: they may have been billed.
    lost: int = 0

    def bill(self, usage: Usage, target: Target) -> None:
        cost = usage.cost(target.model.price)
        self.usage = self.usage + usage
        self.cost = None if cost is None or self.cost is None else self.cost + cost


class Events:
    """Server-sent events out of bytes, however those were cut: in the middle of a character, of a line, of an event.

    Lines end with LF, CRLF or CR; comments are skipped; ``data:`` with or without the space; several ``data`` lines are one event.
    """

    def __init__(self) -> None:
        #: The line that is not at its end: pieces, so that a megabyte in one line is put together once.
        self._rest: list[bytes] = []
        self._event = ""
        self._data: list[bytes] = []
        self._size = 0
        self._begun = False

    def feed(self, piece: bytes) -> list[tuple[str, bytes]]:
        """(name, data) of every event that is whole with this piece."""
        found: list[tuple[str, bytes]] = []
        half = bool(self._rest) and self._rest[-1].endswith(b"\r")
        self._rest.append(piece)
        if half or b"\n" in piece or b"\r" in piece:
            self._lines(found)
        if self._size + sum(map(len, self._rest)) > MAX_EVENT:
            raise ServerFault(f"an event grew beyond {MAX_EVENT // 2**20} MiB", kind="bad_response")
        return found

    def _lines(self, found: list[tuple[str, bytes]]) -> None:
        buffer = b"".join(self._rest)
        # A CR at the very end may be half of a CRLF.
        held = b"\r" if buffer.endswith(b"\r") else b""
        if held:
            buffer = buffer[:-1]
        lines = buffer.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._rest = [lines.pop() + held]
        for line in lines:
            self._line(line, found)

    def end(self) -> list[tuple[str, bytes]]:
        """What the last bytes amount to: some servers leave out the empty line after the last event."""
        found: list[tuple[str, bytes]] = []
        self._line(b"".join(self._rest).rstrip(b"\r"), found)
        self._line(b"", found)
        return found

    def _line(self, line: bytes, found: list[tuple[str, bytes]]) -> None:
        if not self._begun:
            line, self._begun = line.removeprefix(b"\xef\xbb\xbf"), True
        if not line:
            if self._data:
                found.append((self._event, b"\n".join(self._data)))
            self._event, self._data, self._size = "", [], 0
            return
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
            self._size += len(value) + 1
        elif name == b"event":
            self._event = value.decode("utf-8", "replace")


@dataclass(slots=True)
class Wish:
    """One question whose answer is to come in pieces."""

    run_id: str
    operation: Operation
    route: Sequence[Target]
    request: Request
    policy: Policy
    #: Seconds without a byte after which the answer counts as lost.
    idle: float


async def stream(engine: Engine, wish: Wish, told: Told) -> AsyncGenerator[str]:
    """The pieces of one answer. A stored answer comes whole, and one that came to its end is stored.

    Parameters
    ----------
    told : Told
        Filled in as the answer comes.

    Raises
    ------
    LLMError
        No model of the route answered, or the one that had begun broke off; where there were several, the first one's refusal is the cause.
    """
    keys = [_key(wish, target) for target in wish.route]
    stored = await _stored(engine, wish, keys, told)
    if stored is not None:
        yield stored
        return
    writer = engine.writer
    names = " > ".join(target.name for target in wish.route)
    journal = 0 if writer is None else await writer.begin_run(wish.run_id, wish.operation.name, names, 1)
    stopped: str | None = "cancelled"
    trace = None if watching.tracer is None else watching.tracer.stream(wish, told)
    try:
        # Closed here and now, not when Python gets round to it: what the answer cost is known once its request has ended.
        async with aclosing(_along_the_route(engine, wish, told)) as pieces:
            async for piece in pieces:
                if trace is not None:
                    trace.spoke()
                yield piece
        stopped = None
    except LLMError as error:
        stopped = error.kind
        raise
    finally:
        if trace is not None:
            trace.end(stopped)
        await _close_books(engine, wish, journal, keys, told, stopped)


def _key(wish: Wish, target: Target) -> bytes:
    try:
        return key_of(prefix(wish.operation, target), target.codec.encode((wish.request,), target))
    except LLMError:  # it has no word for something in this question; another of the route may have
        return b""


async def _along_the_route(engine: Engine, wish: Wish, told: Told) -> AsyncGenerator[str]:
    policy = wish.policy
    failed: list[LLMError] = []
    #: What the others could not do: targets that are there for that alone are asked then.
    wanted = ""
    for place, target in enumerate(wish.route):
        if (target.only_for and target.only_for != wanted) or (wanted == "content" and not target.only_for):
            continue
        after = wish.route[place + 1 :]
        failures, slow_since, again = 0, None, False
        while True:
            try:
                async with aclosing(_attempt(engine, target, wish, told, again)) as pieces:
                    async for piece in pieces:
                        yield piece
                return
            except LLMError as error:
                # What was said cannot be taken back, and another model would say it anew.
                filtered = isinstance(error, ContentBlocked) and any(other.only_for == "content" for other in after)
                if told.text or (isinstance(error, RequestError) and not isinstance(error, ContextTooLong) and not filtered):
                    raise error from next(iter(failed), None)
                wanted = "content" if filtered else "context" if isinstance(error, ContextTooLong) else wanted
                refused = error
                if not isinstance(error, Busy | Unreachable) or not error.again:
                    break
                now, again = engine.clock.now(), True
                slow_since = now if slow_since is None else slow_since
                failures += not isinstance(error, Busy) or isinstance(error, Overloaded)
                # With another model at hand nobody is kept waiting for a busy one.
                another = isinstance(error, Busy) and any(other.only_for in ("", wanted) for other in after)
                if another or failures >= policy.max_attempts or now - slow_since > policy.deadline:
                    break
                if isinstance(error, Unreachable):
                    wait = min(policy.backoff_max, policy.backoff * 2.0 ** (failures - 1)) * random.random()
                    await sleep(engine.clock, max(wait, error.retry_after or 0.0))
        failed.append(refused)
    raise all_failed(failed) from (failed[0] if len(failed) > 1 else None)


async def _attempt(engine: Engine, target: Target, wish: Wish, told: Told, again: bool) -> AsyncGenerator[str]:
    account, request = engine.account(target), wish.request
    body = target.codec.encode((request,), target)
    output = account.output or 256.0
    permit = await account.limiter.acquire(len(body) * account.tokens_per_byte + output, output, first=again)
    usage, began = Usage(), engine.clock.now()
    told.target, told.finish = target.name, None
    told.attempts += 1
    released = lost = False
    try:
        async with aclosing(_pieces(engine, target, body, wish, permit)) as pieces:
            async for text, counted, finish in pieces:
                if counted is not None:
                    usage = _most(usage, counted)
                told.finish = finish or told.finish
                if text:
                    told.text += text
                    yield text
        if told.finish is None:
            raise _broken_off()
        if not told.text:
            raise _empty(told.finish)
        account.learn(len(body), usage)
        account.limiter.done(permit, usage.input + usage.output, usage.output)
        released = True
    except LLMError as error:
        if error.usage is not None:
            usage = _most(usage, error.usage)
        _give_back(account.limiter, permit, error)
        released, lost = True, error.lost
        raise signed(error, [request], target) from None
    finally:
        told.seconds += engine.clock.now() - began
        if not released:  # whoever asked has gone
            account.limiter.abandoned(permit)
            lost = target.adapter.answer is None and engine.connected(target)
        if usage.requests or told.text or told.finish is not None:
            told.bill(usage if usage.requests else Usage(requests=1, unreported=1), target)
        elif lost:
            told.lost += 1


def _give_back(limiter: Limiter, permit: Permit, error: LLMError) -> None:
    if isinstance(error, Busy):
        limiter.slow_down(permit, error, error.limits)
    else:
        limiter.failed(permit, outage=isinstance(error, Unreachable))


async def _pieces(
    engine: Engine, target: Target, body: bytes, wish: Wish, permit: Permit
) -> AsyncGenerator[tuple[str, Usage | None, str | None]]:
    """(text, counts so far, why it ended) of each event. A model in this process answers in one piece."""
    codec, adapter = target.codec, target.adapter
    if adapter.answer is not None:
        (reply,) = answered(codec, adapter.answer(body, target), [wish.request])
        if isinstance(reply, LLMError):
            raise reply
        yield reply.value, reply.usage, reply.finish or "stop"
        return
    async with _opened(engine, target, body, wish.policy.timeout, wish.idle) as (response, limits, chunks):
        if limits is not None:
            engine.account(target).limiter.learn(limits, permit)
        async with aclosing(_said(codec, wish.request, response, chunks)) as pieces:
            async for piece in pieces:
                yield piece


@asynccontextmanager
async def _opened(
    engine: Engine, target: Target, body: bytes, timeout: float, idle: float
) -> AsyncIterator[tuple[Response, Limits | None, AsyncIterator[bytes]]]:
    """The 200 that a body asks for in pieces: its head, what that says of limits, and the bytes as they come."""
    assert target.codec.streamed is not None
    streamed = orjson.dumps({**orjson.loads(body), **target.codec.streamed(target)})
    for anew in (False, True):
        template = await engine.template(target, anew)
        async with engine.transport.open(template, streamed, timeout, idle) as (response, chunks):
            if response.status == 401 and not anew and target.secret is not None and target.secret.rotates:
                continue
            limits = target.adapter.read_limits(response.headers)
            if response.status != 200:
                refused = refusal(target, response)
                refused.limits = limits
                raise refused
            try:
                yield response, limits, chunks
            except ServerFault as error:
                error.lost = True  # what was answered cannot be read, which keeps nobody from billing it
                raise
            return


def speaks(target: Target) -> bool:
    """Whether the target is asked over a wire that brings answers in pieces."""
    return target.codec.delta is not None and target.adapter.answer is None and target.foreign is None


async def exchange(
    engine: Engine, target: Target, body: bytes, requests: Sequence[Request], timeout: float, heard: Callable[[str | None], None]
) -> tuple[list[Reply | LLMError], Limits | None]:
    """As ``exchange.exchange`` for one request whose answer comes in pieces: ``heard`` is told ``None`` first, and then each."""
    heard(None)
    text: list[str] = []
    usage, finish = Usage(), None
    try:
        async with (
            _opened(engine, target, body, timeout, timeout) as (response, limits, chunks),
            aclosing(_said(target.codec, requests[0], response, chunks)) as pieces,
        ):
            async for piece, counted, why in pieces:
                usage = usage if counted is None else _most(usage, counted)
                finish = why or finish
                if piece:
                    text.append(piece)
                    heard(piece)
        if finish is None:
            raise _broken_off()
    except LLMError as error:
        signed(error, requests, target)
        if isinstance(error, RequestError) and error.status is None:  # an answer that declines: the row's own, and billed
            error.usage = error.usage or usage
            return [error], None
        raise error from None
    billed = usage if usage.requests else Usage(requests=1, unreported=1)
    if text:
        return [Reply("".join(text), billed, finish=finish)], limits
    empty = _empty(finish)
    empty.usage = billed
    return [signed(empty, requests, target)], limits


async def _said(
    codec: Codec, request: Request, response: Response, chunks: AsyncIterator[bytes]
) -> AsyncGenerator[tuple[str, Usage | None, str | None]]:
    if "json" in response.headers.get("content-type", ""):  # a server that does not stream answers whole, or refuses so
        whole = b"".join([chunk async for chunk in chunks])
        (reply,) = answered(codec, whole, [request])
        if isinstance(reply, LLMError):
            raise reply
        yield reply.value, reply.usage, reply.finish or "stop"
        return
    events = Events()
    async for chunk in chunks:
        for event, data in events.feed(chunk):
            yield _read(codec, event, data)
    for event, data in events.end():
        yield _read(codec, event, data)


def _read(codec: Codec, event: str, data: bytes) -> tuple[str, Usage | None, str | None]:
    assert codec.delta is not None
    try:
        delta = codec.delta(event, data)
    except (TypeError, ValueError, LookupError, AttributeError, OverflowError) as error:
        raise ServerFault(f"an event is not of the documented form ({type(error).__name__})", kind="bad_response") from None
    return ("", None, None) if delta is None else (delta.text, delta.usage, delta.finish)


def _most(known: Usage, counted: Usage) -> Usage:
    """Counts go from the start of the answer: of two the larger is the later."""
    return Usage(*map(max, known, counted))  # type: ignore[arg-type]


def _broken_off() -> ConnectionLost:
    error = ConnectionLost("the answer broke off before its end")
    error.lost = True
    return error


def _empty(finish: str) -> LLMError:
    if finish == "length":
        return Truncated("the token limit was used up before any text came; raise max_tokens")
    return BadOutput("the answer is empty", kind="empty")


# ------------------------------------------------------------------------------------------------------------- the store


async def _stored(engine: Engine, wish: Wish, keys: Sequence[bytes], told: Told) -> str | None:
    if engine.writer is None or wish.policy.cache != "use":
        return None
    found = await engine.writer.look_up(keys)
    for target, key in zip(wish.route, keys, strict=True):
        if key in found:
            try:
                told.text = wish.operation.unpack(found[key].value)
            except ValueError:  # damaged or forged: not an answer, so it is asked for
                continue
            told.target, told.finish = target.name, found[key].finish or "stop"
            return told.text
    return None


@dataclass(slots=True)
class _Kept:
    """A streamed answer, or what became of it, on its way to the disk: a ``store.Entry``."""

    wish: Wish
    journal: int
    key: bytes
    told: Told
    error: str | None

    @property
    def answered(self) -> bool:
        return self.error is None

    def reply(self) -> ReplyRow:
        told, operation = self.told, self.wish.operation
        usage = told.usage
        return ReplyRow(
            self.key, operation.pack(told.text), usage.input, usage.cached_input, usage.output, told.finish, None, time.time(),
            told.target, operation.name, usage.cache_write, told.cost,
        )  # fmt: skip

    def outcome(self) -> OutcomeRow:
        told, source = self.told, "live" if self.error is None else None
        usage = told.usage
        return OutcomeRow(
            self.journal, 0, self.key, source, self.error, told.target, told.attempts, told.seconds, usage.input, usage.cached_input,
            usage.output, usage.cache_write, None, usage.requests, told.cost, told.lost, time.time(),
        )  # fmt: skip

    def durable(self) -> None:
        return None


async def _close_books(engine: Engine, wish: Wish, journal: int, keys: Sequence[bytes], told: Told, stopped: str | None) -> None:
    writer = engine.writer
    if writer is None:
        return
    names = [target.name for target in wish.route]
    key = keys[names.index(told.target)] if told.target in names else keys[0]
    if wish.policy.cache != "off":
        writer.put(_Kept(wish, journal, key, replace(told), stopped))
        await writer.drain()
    usage = told.usage
    facts = {
        "done": int(stopped is None), "errors": int(stopped is not None), "stored": 0, "requests": usage.requests, "input": usage.input,
        "cached_input": usage.cached_input, "output": usage.output, "cost": told.cost, "stopped": stopped,
    }  # fmt: skip
    await writer.end_run(journal, facts)
