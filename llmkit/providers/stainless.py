"""What the SDKs of openai and anthropic have in common: one generator wrote both, so one low-level ``post`` serves for both."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from ..errors import AccessError, ConnectionLost, TimedOut

__all__ = ["NOT_OURS", "post", "recorded"]

#: Headers that belong to one connection or one try, not to the address.
NOT_OURS = {
    "host",
    "connection",
    "content-length",
    "accept-encoding",
    "x-stainless-retry-count",
    "x-stainless-read-timeout",
    "x-stainless-timeout",
    "x-stainless-async",
}

_Sent = tuple[int, dict[str, str], bytes]


def recorded(make: Callable[[Any], Any], path: str) -> Any:
    """The request that an SDK's client would send to ``path``.

    Parameters
    ----------
    make : callable
        ``make(http_client) -> the SDK's client``.
    """
    import httpx2

    seen: list[httpx2.Request] = []

    class Recorder(httpx2.BaseTransport):  # type: ignore[misc]
        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            seen.append(request)
            return httpx2.Response(200, json={}, request=request)

    with make(httpx2.Client(transport=Recorder(), trust_env=False)) as client:
        # The low-level post addresses every operation alike, also those that the SDK has no method for.
        client.post(path, body={}, cast_to=object)
    return seen[0]


def post(sdk: Any, foreign: Any, path: str, body: bytes) -> Any:
    """Have a caller's own client post a body, retries off: it signs and addresses as its kind does (Azure, Bedrock, Vertex, ...).

    Parameters
    ----------
    sdk : module
        Whose exceptions the client raises.

    Returns
    -------
    (status, headers, body), or a coroutine of it for an async client
    """
    import httpx2

    given = {"body": orjson.loads(body), "cast_to": httpx2.Response, "options": {"max_retries": 0}}
    if inspect.iscoroutinefunction(foreign.post):
        return _post_async(sdk, foreign, path, given)
    try:
        return _answer(foreign.post(path, **given))
    except Exception as error:
        return _answer_of(sdk, error)


async def _post_async(sdk: Any, foreign: Any, path: str, given: Mapping[str, Any]) -> _Sent:
    try:
        return _answer(await foreign.post(path, **given))
    except Exception as error:
        return _answer_of(sdk, error)


def _answer(response: Any) -> _Sent:
    return response.status_code, {name.lower(): value for name, value in response.headers.items()}, response.content


def _answer_of(sdk: Any, error: Exception) -> _Sent:
    """The refusal that the SDK raised, as it came; anything else as one of our errors. The SDK's own words may quote a body or a key."""
    if isinstance(error, sdk.APIStatusError):
        return _answer(error.response)
    if isinstance(error, sdk.APITimeoutError):
        raise TimedOut("the client that was handed in waited in vain for an answer") from None
    if isinstance(error, sdk.APIConnectionError):
        raise ConnectionLost("the client that was handed in lost its connection or found none") from None
    raise AccessError(
        f"the client that was handed in could not send the request ({type(error).__name__}): check its credentials", kind="client"
    ) from None
