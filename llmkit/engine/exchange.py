"""One body out, one answer in: what every way of asking shares, and the one place where a refusal gets its name."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..adapter import Codec, Target
from ..errors import LLMError, ServerFault, TimedOut, repeats
from ..event_loop import off_loop
from ..types import Limits, Reply, Request

if TYPE_CHECKING:
    from .engine import Engine
    from .transport import Response

__all__ = ["answered", "exchange", "refusal", "signed"]


async def exchange(
    engine: Engine, target: Target, body: bytes, requests: Sequence[Request], timeout: float
) -> tuple[list[Reply | LLMError], Limits | None]:
    """Send one body and read what came: one reply or row error for each request, and what the headers said of limits.

    Raises
    ------
    LLMError
        The error that the answer, or its absence, amounts to; it names provider and model and repeats nothing that was sent.
    """
    codec, adapter = target.codec, target.adapter
    try:
        if adapter.answer is not None:
            if adapter.blocking:
                said = await off_loop(adapter.answer, body, target)
            else:
                await asyncio.sleep(0)  # the answer is there at once, and others want the loop too
                said = adapter.answer(body, target)
            return _named(answered(codec, said, requests), requests, target), None
        response = await _post(engine, target, body, timeout)
        limits = adapter.read_limits(response.headers)
        if response.status != 200:
            refused = refusal(target, response)
            refused.limits = limits
            raise refused
        try:
            return _named(answered(codec, response.body, requests), requests, target), limits
        except ServerFault as error:
            error.lost = True  # what was answered cannot be read, which keeps nobody from billing it
            raise
    except LLMError as error:
        raise signed(error, requests, target) from None


async def _post(engine: Engine, target: Target, body: bytes, timeout: float) -> Response:
    if target.foreign is not None:
        return await _by_the_callers_client(target, body, timeout)
    response = await engine.transport.post(await engine.template(target), body, timeout)
    if response.status == 401 and target.secret is not None and target.secret.rotates:
        response = await engine.transport.post(await engine.template(target, anew=True), body, timeout)
    return response


async def _by_the_callers_client(target: Target, body: bytes, timeout: float) -> Response:
    """The caller handed in a client of his own: its SDK signs, addresses and posts; waiting and retrying stay ours."""
    from .transport import Response  # aiohttp takes a tenth of a second to import

    send = target.adapter.send
    assert send is not None
    sending = off_loop(send, target.foreign, target.codec, body)
    try:
        async with asyncio.timeout(timeout):
            sent = await sending
            return Response(*(await sent if asyncio.iscoroutine(sent) else sent))
    except TimeoutError:
        error = TimedOut(f"no answer within {timeout:g} s")
        error.lost = True
        raise error from None


def answered(codec: Codec, body: Any, requests: Sequence[Request]) -> list[Reply | LLMError]:
    """The codec's reading of a 200. What trips it (a number where an object should be) is the server's fault, never the run's."""
    try:
        replies = codec.decode(body, requests)
    except (TypeError, ValueError, LookupError, AttributeError, OverflowError) as error:
        raise ServerFault(f"the answer is not of the documented form ({type(error).__name__})", kind="bad_response") from None
    if len(replies) != len(requests):
        raise ServerFault(f"{len(replies)} answers came to {len(requests)} requests", kind="bad_response")
    return replies


def refusal(target: Target, response: Response) -> LLMError:
    """The error that a status other than 200 amounts to."""
    error = target.adapter.classify_error(response.status, response.headers, response.body)
    error.again = response.headers.get("x-should-retry", "").lower() != "false"
    return error


def signed(error: LLMError, requests: Sequence[Request], target: Target) -> LLMError:
    """Say who refused, and make sure that no piece of a prompt and no key travels in the message."""
    error.provider = error.provider or target.provider.name
    error.model = error.model or target.model.name
    message = error.message.replace("llmkit.set_key(...)", f'llmkit.set_key("{target.provider.name}")')
    if target.secret is not None:
        message = target.secret.masked(message)
    if target.foreign is not None and error.status in (401, 403):
        message = message.partition(" (")[0]  # what key a client of the caller's holds is not known here, so it cannot be masked
    if error.status is not None and repeats(message, _texts(requests)):
        message = f"{message.split(' (')[0]} (the provider's words are left out: they repeat the prompt)"
    error.message = message
    error.args = (message,)
    return error


def _named(replies: list[Reply | LLMError], requests: Sequence[Request], target: Target) -> list[Reply | LLMError]:
    for number, reply in enumerate(replies):
        if isinstance(reply, LLMError):
            signed(reply, [requests[number]], target)
    return replies


#: What stands in every schema, and in half of the refusals of one.
_WORDS_OF_SCHEMAS = {"object", "string", "integer", "number", "boolean", "array", "null", "json_schema", "json_object", "tools", "words"}


def _texts(requests: Sequence[Request]) -> list[str]:
    """Every text in the payloads, to check that a message does not quote one."""
    found: list[str] = []
    stack: list[Any] = [request.payload for request in requests]
    while stack:
        value = stack.pop()
        if isinstance(value, str):
            if value not in _WORDS_OF_SCHEMAS:
                found.append(value)
        elif isinstance(value, Mapping):
            stack += value.values()
        elif isinstance(value, list | tuple):
            stack += value
        elif hasattr(value, "__dataclass_fields__"):
            stack += [getattr(value, name) for name, told in value.__dataclass_fields__.items() if told.repr]
    return found
