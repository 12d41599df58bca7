"""Voyage's wire: embeddings of texts, embeddings of pictures with texts, rerank.

Facts about Voyage are from its documentation (docs.voyageai.com: embeddings, multimodal embeddings, rate limits, error codes), the
installed SDK (0.5) and exchanges that others recorded; seen 2026-11-21.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from ..adapter import Adapter, Codec, RequestTemplate, Target, to_json
from ..errors import (
    BadOutput,
    ConnectionLost,
    InvalidRequest,
    KeyRejected,
    LLMError,
    ServerFault,
    TimedOut,
    one_line,
)
from ..operations.chat import Image, Text
from ..types import Reply, Request, Usage
from .bodies import data_url, embedded, facts, named, parse, placed, scores, tokens
from .headers import read_limits, retry_after
from .refusals import Refused

__all__ = ["adapter"]

_EMBED, _IMAGES, _RERANK = "/embeddings", "/multimodalembeddings", "/rerank"


# ------------------------------------------------------------------------------------------------------------- addressing


#: The address that nobody chose: the SDK then picks one by the key, since keys of MongoDB Atlas (``al-...``) are served elsewhere.
_USUAL = "https://api.voyageai.com/v1"


def connect(target: Target) -> RequestTemplate:
    """Let the official SDK make one request over a session that records it, and keep where it would have gone."""
    import asyncio

    # The SDK is asynchronous where its session can be chosen. connect is called in a worker thread, which has no loop of its own.
    sent = asyncio.run(_recorded(target))
    headers = {name: value for name, value in sent["headers"].items() if target.secret or name.lower() != "authorization"}
    return RequestTemplate(url=sent["url"], headers=headers)


async def _recorded(target: Target) -> dict[str, Any]:
    import voyageai

    session = _Session()
    voyageai.aiosession.set(session)  # seen by this task alone: asyncio.run gave it a context of its own
    sdk = voyageai.AsyncClient(**_account(target))
    if target.codec.path == _RERANK:
        await sdk.rerank(query="-", documents=["-"], model="-")
    elif target.codec.path == _IMAGES:
        await sdk.multimodal_embed(inputs=[["-"]], model="-")
    else:
        await sdk.embed(texts=["-"], model="-")
    return session.sent


class _Session:
    """What the SDK asks of an aiohttp session, and no network."""

    def __init__(self) -> None:
        self.sent: dict[str, Any] = {}

    async def request(self, **sent: Any) -> _Nothing:
        self.sent = sent
        return _Nothing()


class _Nothing:
    """An answer without results."""

    status = 200
    headers: Mapping[str, str] = {"Content-Type": "application/json"}

    async def read(self) -> bytes:
        return b'{"data": [], "usage": {"total_tokens": 0, "text_tokens": 0, "image_pixels": 0, "video_pixels": 0}}'

    def release(self) -> None:
        """There is no connection to give back."""


def _account(target: Target) -> dict[str, Any]:
    """Key, address and no retries. The SDK would look in VOYAGE_API_KEY for a key that is left out, and refuses to have none."""
    given = target.provider.base_url.rstrip("/")
    return {
        "api_key": target.secret.reveal() if target.secret else "none",
        "base_url": None if given == _USUAL else given,
        "max_retries": 0,
    }


def client(target: Target, is_async: bool) -> Any:
    """The official client for the same account; waiting and trying again are not its business."""
    import voyageai

    return (voyageai.AsyncClient if is_async else voyageai.Client)(**_account(target))


def send(foreign: Any, codec: Codec, body: bytes) -> Any:
    """Post a body by the caller's own client: ``(status, headers, body)``, or a coroutine that gives them."""
    members = orjson.loads(body)
    members.pop("encoding_format", None)  # the SDK asks for base64 by itself and hands out numbers
    if codec.path == _EMBED:
        members["texts"] = members.pop("input")
    method = getattr(foreign, {_EMBED: "embed", _IMAGES: "multimodal_embed", _RERANK: "rerank"}[codec.path])
    return _sent_async(method, members) if inspect.iscoroutinefunction(method) else _sent(method, members)


def _sent(method: Any, members: Mapping[str, Any]) -> tuple[int, dict[str, str], bytes]:
    try:
        return _written(method(**members), members)
    except Exception as error:
        return _refused(error)


async def _sent_async(method: Any, members: Mapping[str, Any]) -> tuple[int, dict[str, str], bytes]:
    try:
        return _written(await method(**members), members)
    except Exception as error:
        return _refused(error)


def _written(answer: Any, asked: Mapping[str, Any]) -> tuple[int, dict[str, str], bytes]:
    """The SDK's object as the JSON that it was read from."""
    if hasattr(answer, "results"):
        data: list[dict[str, Any]] = [{"index": result.index, "relevance_score": result.relevance_score} for result in answer.results]
    else:
        # The SDK drops the index of each vector, so as many must come as were sent: one that is left out would shift the others.
        if len(answer.embeddings) != len(asked.get("texts") or asked["inputs"]):
            raise ServerFault("the answer does not have as many embeddings as texts were sent", kind="bad_response")
        data = [{"index": number, "embedding": embedding} for number, embedding in enumerate(answer.embeddings)]
    return 200, {}, to_json({"data": data, "usage": {"total_tokens": answer.total_tokens}})


def _refused(error: Exception) -> tuple[int, dict[str, str], bytes]:
    """What the SDK raised, as the answer it was; a connection's trouble as ours."""
    from voyageai.error import APIConnectionError, AuthenticationError, Timeout, VoyageError

    # Not chained: the SDK's exceptions hold the answer, and their frames the key and the prompt.
    if isinstance(error, Timeout):
        raise TimedOut("the client that was handed in gave up waiting") from None
    if isinstance(error, APIConnectionError):
        raise ConnectionLost("the client that was handed in lost the connection") from None
    if isinstance(error, VoyageError) and error.http_status is not None:
        headers = {name.lower(): value for name, value in error.headers.items()}
        return error.http_status, headers, (error.http_body or "").encode()
    if isinstance(error, AuthenticationError):
        raise KeyRejected("the client that was handed in has no API key") from None
    if isinstance(error, VoyageError):
        raise InvalidRequest(f"the client that was handed in did not send the request ({type(error).__name__})") from None
    raise error


# ------------------------------------------------------------------------------------------------------------- embeddings


def _embed_body(requests: Sequence[Request], target: Target) -> bytes:
    return to_json(
        {
            "model": target.model.name,
            "input": [request.payload for request in requests],
            # Packed float32, as the SDK asks for: a tenth of the work of decoding lists.
            "encoding_format": "base64",
            **_how(requests[0].options),
        }
    )


def _how(options: Mapping[str, Any]) -> dict[str, Any]:
    # Without a purpose a text is embedded bare, which finds worse; "document" is what the rows of a frame are. Other vendors' purposes
    # (classification, clustering) have no word here and mean a bare text.
    purpose = options.get("input_type") or "document"
    how: dict[str, Any] = {
        "input_type": purpose if purpose in ("query", "document") else None,
        # Too long is an error that the row shows, never a cut that nobody sees.
        "truncation": False,
    }
    if options.get("dimensions") is not None:
        how["output_dimension"] = options["dimensions"]
    return how


#: Tokens that one request may hold (docs.voyageai.com/docs/embeddings, seen 2026-11-21); models that are not named: 120,000.
_REQUEST_TOKENS = {
    "voyage-4-lite": 1_000_000,
    "voyage-3.5-lite": 1_000_000,
    "voyage-4": 320_000,
    "voyage-3.5": 320_000,
    "voyage-2": 320_000,
}


def _embed_batch(target: Target) -> tuple[int, int | None]:
    # 256 of the 1,000 that Voyage takes: the cost per row is lowest from 64 to 256, and a lost batch stays small.
    return min(256, target.provider.quirks.get("embed_batch", 256)), _REQUEST_TOKENS.get(target.model.name, 120_000)


def _embed_replies(body: Any, requests: Sequence[Request]) -> list[Reply | LLMError]:
    return _placed(body, [len(request.payload) for request in requests])


def _placed(body: Any, weights: Sequence[int]) -> list[Reply | LLMError]:
    """One reply for each input, by the answer's own index; ``weights`` say how the bill is shared."""
    data = parse(body, classify_error)
    return embedded(placed(data, len(weights)), _billed(data), weights, named(data))


def _billed(data: Mapping[str, Any]) -> int | None:
    usage = data.get("usage")
    count = usage.get("total_tokens") if isinstance(usage, dict) else None
    return None if count is None else tokens(count)


# --------------------------------------------------------------------------------------------------- embeddings of pictures


def _images_body(requests: Sequence[Request], target: Target) -> bytes:
    return to_json(
        {
            "model": target.model.name,
            "inputs": [{"content": [_segment(part) for part in request.payload]} for request in requests],
            "encoding_format": "base64",
            **_how(requests[0].options),
        }
    )


def _segment(part: Text | Image) -> dict[str, str]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    kind = "image_url" if part.url else "image_base64"
    return {"type": kind, kind: data_url(part)}


def _images_batch(target: Target) -> tuple[int, int | None]:
    # A picture has up to 16 million pixels and 560 make a token: eight of the largest are safely within the 320,000 tokens of a request.
    return 8, 320_000


def _images_replies(body: Any, requests: Sequence[Request]) -> list[Reply | LLMError]:
    # What a picture cost of the total is not said, and its bytes say little about its pixels: each input bears an equal share.
    return _placed(body, [1] * len(requests))


# ----------------------------------------------------------------------------------------------------------------- rerank


def _rerank_body(requests: Sequence[Request], target: Target) -> bytes:
    (request,) = requests
    payload = request.payload
    # Cut where it is too long, unlike a text to embed: one long document would fail the other 999 of its request, and a request for one
    # ranking cannot be halved until the fault belongs to a row.
    return to_json({"model": target.model.name, "query": payload.query, "documents": list(payload.documents), "truncation": True})


def _rerank_replies(body: Any, requests: Sequence[Request]) -> list[Reply | LLMError]:
    (request,) = requests
    data = parse(body, classify_error)
    results = data.get("data")
    if not isinstance(results, list):
        raise ServerFault("the answer has no results", kind="bad_response")
    billed = _billed(data)
    usage = Usage(input=billed or 0, requests=1, unreported=int(billed is None))
    found = scores(results, len(request.payload.documents))
    if found is None:
        return [BadOutput("no document got a score", kind="invalid_scores", usage=usage)]
    return [Reply(value=found, usage=usage, model=named(data))]


# ----------------------------------------------------------------------------------------------------------------- errors


_BATCH_TOKENS = re.compile(r"max allowed tokens per submitted batch is (\d[\d,]*)", re.I)
_BATCH_SIZE = re.compile(r"batch size limit is \d", re.I)
_TOO_LONG = re.compile(r"does not fit into the model's context window|exceeds the (?:context length|context window)", re.I)
_NO_MODEL = re.compile(r"model \S{1,100} is not supported", re.I)
_RPM = re.compile(r"(\d+) RPM")
_PAYMENT = re.compile(r"payment method|free tokens|billing", re.I)


def classify_error(status: int, headers: Mapping[str, str], body: bytes) -> LLMError:
    """The branch of ``errors.py`` for a refused request: status first, Voyage's own code second, text last."""
    error, _, said = facts(body)
    said = _complaints(error.get("detail")) or said
    refused = Refused(status, headers.get("x-request-id") or headers.get("request-id"), retry_after(headers), said)

    if status == 200:
        return refused.in_a_success()
    if 300 <= status < 400:
        return refused.redirected()
    if status == 401:
        return refused.key_refused()
    if status == 402 or (status == 403 and "out of credit" in said):
        return refused.no_credit()
    if status == 403:
        return KeyRejected(f"this key may not be used from here{refused.told}", kind="forbidden", **refused.facts)
    if status == 404 or (status == 400 and _NO_MODEL.search(said)):
        return refused.gone()
    if status == 429:
        return _too_fast(said, refused)
    if status == 408:
        return refused.gave_up()
    if status in (502, 503, 504):  # all three are "high traffic" in Voyage's table of errors
        return refused.overloaded()
    if status >= 500 or status in (409, 425):
        return refused.fault(status)
    return _refusal(status, error, said, refused)


def _complaints(detail: Any) -> str:
    """A 422 lists what is malformed, each entry with what was sent: the place and the complaint are kept, the input is not."""
    if not isinstance(detail, list):
        return ""
    entries = [entry for entry in detail if isinstance(entry, dict)]
    return one_line("; ".join(f"{'.'.join(map(str, entry.get('loc') or ()))}: {entry.get('msg', '')}" for entry in entries))


def _refusal(status: int, error: Mapping[str, Any], said: str, refused: Refused) -> LLMError:
    """A 4xx that is about what was sent."""
    cap = _BATCH_TOKENS.search(said)
    if cap or status == 413 or error.get("error_code") == "TOO_MANY_TOKENS_IN_BATCH" or _BATCH_SIZE.search(said):
        too_large = refused.too_much()
        too_large.limit = int(cap[1].replace(",", "")) if cap else None
        return too_large
    if _TOO_LONG.search(said):
        return refused.too_long()
    return refused.invalid()


def _too_fast(said: str, refused: Refused) -> LLMError:
    a_minute = _RPM.search(said)
    if a_minute is None and _PAYMENT.search(said):
        return refused.no_credit()
    limited = refused.too_fast()
    if a_minute:
        # An account without a payment method is slow (3 requests a minute), not shut.
        limited.per_minute = float(max(1, int(a_minute[1])))
        limited.retry_after = limited.retry_after or 60.0 / limited.per_minute
    return limited


def adapter() -> Adapter:
    asked = frozenset({"dimensions"})
    return Adapter(
        name="voyage",
        codecs={
            "embed": Codec(_EMBED, _embed_body, _embed_replies, _embed_batch, options=asked),
            "embed_images": Codec(_IMAGES, _images_body, _images_replies, _images_batch, options=asked),
            "rerank": Codec(_RERANK, _rerank_body, _rerank_replies, options=frozenset()),
        },
        connect=connect,
        classify_error=classify_error,
        read_limits=read_limits,
        client=client,
        send=send,
    )
