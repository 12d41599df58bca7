"""OpenAI's wire: chat completions, embeddings, and ``/rerank`` in the shape of Cohere and Jina that vLLM, infinity and LiteLLM serve.

Also spoken by every server that calls itself OpenAI-compatible; what such a vendor does differently is a quirk in its row of
``providers.toml``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
from pybase64 import b64decode_as_bytearray, b64encode

from ..adapter import Adapter, Codec, Delta, RequestTemplate, Target, to_json, whole
from ..errors import (
    AccessError,
    BadOutput,
    BatchTooLarge,
    ContentBlocked,
    ContextTooLong,
    InvalidRequest,
    KeyRejected,
    LLMError,
    ModelGone,
    OutOfCredit,
    Overloaded,
    QuotaSpent,
    RateLimited,
    ServerFault,
    TimedOut,
    Truncated,
    one_line,
)
from ..operations.chat import ChatPayload, Image, Part, Said, Schema, Scored, Text, Tool, ToolCall, ToolResult
from ..types import Reply, Request, Usage
from .headers import read_limits, retry_after

__all__ = ["adapter"]


# ------------------------------------------------------------------------------------------------------------- addressing


def connect(target: Target) -> RequestTemplate:
    """Let the official SDK make one request over a transport that records it, and keep where it would have gone."""
    import httpx2
    import openai

    recorded: list[httpx2.Request] = []

    class Recorder(httpx2.BaseTransport):  # type: ignore[misc]
        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            recorded.append(request)
            return httpx2.Response(200, json={}, request=request)

    client = openai.OpenAI(
        api_key=target.secret.reveal() if target.secret else "none",
        base_url=target.provider.base_url,
        max_retries=0,
        http_client=httpx2.Client(transport=Recorder(), trust_env=False),
    )
    with client:
        # The low-level post addresses every operation alike, also those (rerank) that the SDK has no method for.
        client.post(target.codec.path, body={}, cast_to=object)
    sent = recorded[0]
    headers = {
        name: value
        for name, value in sent.headers.items()
        if name.lower() not in _NOT_OURS and (name.lower() != "authorization" or target.secret)
    }
    if target.provider.name != "openai":
        # The SDK adds OPENAI_ORG_ID and OPENAI_PROJECT_ID from the environment whatever the address; they are OpenAI's business only.
        headers = {name: value for name, value in headers.items() if name.lower() not in ("openai-organization", "openai-project")}
    return RequestTemplate(url=str(sent.url), headers=headers)


#: Headers that belong to one connection or one try, not to the address.
_NOT_OURS = {
    "host",
    "connection",
    "content-length",
    "accept-encoding",
    "x-stainless-retry-count",
    "x-stainless-read-timeout",
    "x-stainless-async",
}


# ------------------------------------------------------------------------------------------------------------------- chat


def _chat_body(requests: Sequence[Request], target: Target) -> bytes:
    (request,) = requests
    payload, quirks = request.payload, target.provider.quirks
    body: dict[str, Any] = {"model": target.model.name, "messages": _messages(payload, quirks)}
    body.update(request.options)
    if "max_tokens" in body:
        body[_token_limit_field(target)] = body.pop("max_tokens")
    if body.pop("logprobs", False) and quirks.get("logprobs", False) and "reasoning" not in target.model.capabilities:
        body["logprobs"] = True
    if payload.tools:
        body["tools"] = [{"type": "function", "function": _function(tool)} for tool in payload.tools]
        if payload.tool_choice in ("auto", "none"):
            body["tool_choice"] = payload.tool_choice
        elif payload.tool_choice == "required":
            body["tool_choice"] = quirks.get("tool_required", "required")
        elif payload.tool_choice:
            body["tool_choice"] = {"type": "function", "function": {"name": payload.tool_choice}}
    if payload.schema is not None:
        body["response_format"] = _response_format(payload.schema, quirks)
    return to_json(body)


def _token_limit_field(target: Target) -> str:
    return str(target.provider.quirks.get("token_limit_field", "max_tokens"))


def _function(tool: Tool) -> dict[str, Any]:
    return {"name": tool.name, "description": tool.description, "parameters": tool.parameters}


def _response_format(schema: Schema, quirks: Mapping[str, Any]) -> dict[str, Any]:
    if schema.schema is None or quirks.get("structured") == "json_object":
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": schema.name, "schema": schema.schema, "strict": True}}


def _messages(payload: ChatPayload, quirks: Mapping[str, Any]) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    if payload.schema is not None and payload.schema.schema is not None and quirks.get("structured") == "json_object":
        # The vendor only promises some JSON object: which one is said in words.
        wanted = orjson.dumps(payload.schema.schema, option=orjson.OPT_SORT_KEYS).decode()
        messages.append({"role": "system", "content": f"Answer with a JSON object of this JSON schema and nothing else: {wanted}"})
    for message in payload.messages:
        if isinstance(message.content, str):
            messages.append({"role": message.role, "content": message.content})
        elif message.role == "tool":
            messages += [
                {"role": "tool", "tool_call_id": result.call.id, "content": result.content}
                for result in message.content
                if isinstance(result, ToolResult)
            ]
        elif message.role == "assistant":
            messages.append(_assistant(message.content))
        else:
            messages.append({"role": message.role, "content": [_part(part, quirks) for part in message.content]})
    return messages


def _assistant(parts: Sequence[Part]) -> dict[str, Any]:
    said = "".join(part.text for part in parts if isinstance(part, Text))
    calls = [
        {"id": part.id, "type": "function", "function": {"name": part.name, "arguments": part.arguments}}
        for part in parts
        if isinstance(part, ToolCall)
    ]
    return {"role": "assistant", "content": said or None, **({"tool_calls": calls} if calls else {})}


def _part(part: Part, quirks: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    if not isinstance(part, Image):
        raise InvalidRequest("a user's message holds text and pictures only")
    if part.url and not quirks.get("image_urls", True):
        raise InvalidRequest("this provider takes no addresses of pictures; give the file or its bytes")
    url = part.url or f"data:{part.media_type};base64,{b64encode(part.data).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def _chat_replies(body: Any, requests: Sequence[Request]) -> list[Reply | LLMError]:
    data = _parse(body)
    choices = data.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise ServerFault("the answer has no choices", kind="bad_response")
    choice = choices[0]
    message = choice.get("message")
    if not isinstance(message, dict):
        raise ServerFault("the answer has no message", kind="bad_response")
    usage = _usage(data.get("usage"))
    finish = choice.get("finish_reason")
    finish = finish if isinstance(finish, str) else None
    if message.get("refusal"):
        return [ContentBlocked("the model declined to answer", kind="refusal", usage=usage)]
    if finish == "content_filter":
        return [ContentBlocked("the provider's content filter held the answer back", usage=usage)]
    text = _text_of(message.get("content"))
    calls = _calls(message.get("tool_calls")) if requests[0].payload.tools else ()
    if not text and not calls:
        if finish == "length":
            return [Truncated("the token limit was used up before any text came; raise max_tokens", usage=usage)]
        return [BadOutput("the answer is empty", kind="empty", usage=usage)]
    value: Any = whole(text)
    if requests[0].payload.tools:
        value = Said(value, calls)
    elif requests[0].options.get("logprobs"):
        value = Scored(value, _likelihoods(choice.get("logprobs")))
    return [Reply(value=value, usage=usage, model=_named(data), finish=finish, request_id=_named(data, "id"))]


def _text_of(content: Any) -> str:
    if isinstance(content, list):  # Mistral's reasoning models answer in parts
        return "".join(part.get("text", "") for part in content if isinstance(part, dict) and part.get("type") == "text")
    if content is not None and not isinstance(content, str):
        raise ServerFault("the answer's content is no text", kind="bad_response")
    return content or ""


def _calls(reported: Any) -> tuple[ToolCall, ...]:
    calls = []
    for number, call in enumerate(reported or ()):
        function = call["function"]
        arguments = function.get("arguments") or "{}"
        if not isinstance(arguments, str):  # Ollama's own shape, seen through gateways: an object
            arguments = orjson.dumps(arguments).decode()
        calls.append(ToolCall(str(call.get("id") or f"call_{number}"), str(function["name"]), arguments))
    return tuple(calls)


def _likelihoods(reported: Any) -> tuple[tuple[str, float], ...]:
    """(token, log probability) in the order of the text."""
    content = reported.get("content") if isinstance(reported, dict) else None
    return tuple((str(token["token"]), float(token["logprob"])) for token in content or ())


# -------------------------------------------------------------------------------------------------------------- streaming


def _streamed(target: Target) -> dict[str, Any]:
    # Who counts unasked refuses to be asked: Mistral answers 422 to members it does not know.
    return {"stream": True, **({"stream_options": {"include_usage": True}} if target.provider.quirks.get("stream_options", True) else {})}


def _chat_delta(event: str, data: bytes) -> Delta | None:
    if data == b"[DONE]":
        return None
    chunk = _parse(data)
    usage = chunk.get("usage") or (chunk.get("x_groq") or {}).get("usage")
    usage = _usage(usage) if isinstance(usage, dict) else None
    choices = chunk.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    piece = choice.get("delta") or {}
    finish = choice.get("finish_reason")
    if piece.get("refusal"):
        raise ContentBlocked("the model declined to answer", kind="refusal", usage=usage)
    if finish == "content_filter":
        raise ContentBlocked("the provider's content filter held the answer back", usage=usage)
    return Delta(whole(_text_of(piece.get("content"))), usage, finish if isinstance(finish, str) else None, _named(chunk))


def _named(data: dict[str, Any], field: str = "model") -> str | None:
    value = data.get(field)
    return value if isinstance(value, str) else None


def _usage(reported: Any) -> Usage:
    if not isinstance(reported, dict):
        return Usage(requests=1, unreported=1)
    details = reported.get("prompt_tokens_details")
    return Usage(
        input=_tokens(reported.get("prompt_tokens")),
        cached_input=_tokens(details.get("cached_tokens")) if isinstance(details, dict) else 0,
        output=_tokens(reported.get("completion_tokens")),
        requests=1,
    )


def _tokens(count: Any) -> int:
    """A count as servers write it: also ``12.0``, ``"12"`` and ``null``; what is none counts nothing."""
    if type(count) is int:
        return count if 0 <= count < 2**53 else 0
    try:
        return max(0, int(float(count))) if isinstance(count, str | float) else 0
    except (ValueError, OverflowError):
        return 0


# ------------------------------------------------------------------------------------------------------------- embeddings


def _embed_body(requests: Sequence[Request], target: Target) -> bytes:
    # Base64 is a tenth of the work of decoding float lists, but only OpenAI is known to serve it everywhere: some compatible servers
    # refuse it or ignore it (vllm-project/vllm#5734, BerriAI/litellm#42426; seen 2026-11-21).
    body = {
        "model": target.model.name,
        "input": [request.payload for request in requests],
        "encoding_format": target.provider.quirks.get("embed_encoding", "float"),
        **{name: value for name, value in requests[0].options.items() if name != "input_type"},
    }
    return to_json(body)


def _embed_replies(body: Any, requests: Sequence[Request]) -> list[Reply | LLMError]:
    data = _parse(body)
    items = data.get("data")
    if not isinstance(items, list) or not items:
        raise ServerFault("the answer has no embeddings", kind="bad_response")
    placed: list[Any] = [None] * len(requests)
    for position, item in enumerate(items):
        at = item.get("index", position) if isinstance(item, dict) else -1
        if isinstance(at, int) and 0 <= at < len(placed):
            placed[at] = item.get("embedding")
    billed = _usage(data.get("usage")).input
    model = _named(data)
    shares = _shares(billed, [len(request.payload) for request in requests])
    with np.errstate(over="ignore", invalid="ignore"):
        vectors = [_vector(raw) for raw in placed]
    replies: list[Reply | LLMError] = []
    for number, (vector, share) in enumerate(zip(vectors, shares, strict=True)):
        usage = Usage(input=share, requests=1 if number == 0 else 0)
        if vector is None:
            replies.append(BadOutput("no usable vector came for this text", kind="invalid_vector", usage=usage))
        else:
            replies.append(Reply(value=vector, usage=usage, model=model))
    return replies


def _vector(raw: Any) -> npt.NDArray[np.float32] | None:
    """A finite, non-zero float32 vector from base64 or a list of numbers; ``None`` where it is neither. NumPy's warnings are off here."""
    try:
        if isinstance(raw, str):
            vector = np.frombuffer(b64decode_as_bytearray(raw), dtype="<f4")
        else:
            vector = np.asarray(raw, dtype=np.float32)
    except (ValueError, TypeError):  # what is no base64 is a ValueError too
        return None
    if vector.ndim != 1 or not len(vector):
        return None
    square = float(vector.dot(vector))
    if 0.0 < square < float("inf") or (square == float("inf") and np.isfinite(vector).all()):
        return vector
    return None


def _shares(total: int, weights: Sequence[int]) -> list[int]:
    """``total`` split by weight into whole numbers that add up to it: vendors bill a batch, people ask for a row."""
    whole = sum(weights) or 1
    shares, seen, given = [], 0, 0
    for weight in weights:
        seen += weight
        upto = total * seen // whole
        shares.append(upto - given)
        given = upto
    return shares


def _embed_batch(target: Target) -> tuple[int, int | None]:
    # 256 of the 2,048 that OpenAI takes: the cost per row is lowest from 64 to 256, and a lost batch stays small.
    quirks = target.provider.quirks
    return min(256, quirks.get("embed_batch", 256)), quirks.get("embed_batch_tokens")


# ----------------------------------------------------------------------------------------------------------------- rerank


def _rerank_body(requests: Sequence[Request], target: Target) -> bytes:
    (request,) = requests
    payload = request.payload
    documents = list(payload.documents)
    return to_json({"model": target.model.name, "query": payload.query, "documents": documents, **request.options})


def _rerank_replies(body: Any, requests: Sequence[Request]) -> list[Reply | LLMError]:
    data = _parse(body)
    results = data.get("results")
    if not isinstance(results, list):
        raise ServerFault("the answer has no results", kind="bad_response")
    (request,) = requests
    # Scores go by index; a document that the server left out stays NaN, one that was never sent is ignored.
    scores = np.full(len(request.payload.documents), np.nan)
    for result in results:
        at = result.get("index") if isinstance(result, dict) else None
        score = result.get("relevance_score", result.get("score")) if isinstance(result, dict) else None
        if isinstance(at, int) and 0 <= at < len(scores) and isinstance(score, int | float):
            scores[at] = score
    if np.isnan(scores).all():
        return [BadOutput("no document got a score", kind="invalid_scores")]
    billed = data.get("usage")
    tokens = _tokens(billed.get("total_tokens") or billed.get("prompt_tokens")) if isinstance(billed, dict) else 0
    return [Reply(value=scores, usage=Usage(input=tokens, requests=1), model=_named(data))]


# ----------------------------------------------------------------------------------------------------------------- errors


def _parse(body: Any) -> dict[str, Any]:
    """The JSON object of a 200. An error in disguise is raised as what it is."""
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError:
        try:
            data = json.loads(body)  # takes the bare NaN that some embedding servers write
        except (ValueError, RecursionError):
            raise ServerFault("the answer is not JSON", kind="bad_response") from None
    if not isinstance(data, dict):
        raise ServerFault("the answer is not a JSON object", kind="bad_response")
    if data.get("error"):
        raise classify_error(200, {}, body)
    return data


_NO_CREDIT = {"insufficient_quota", "billing_hard_limit_reached", "credit_balance_exhausted", "billing_not_active"}
_TOO_LONG = re.compile(
    r"maximum context length|reduce the length of the messages|context_length_exceeded|input token count .* exceeds", re.I
)
_TOKENS_PER_REQUEST = re.compile(r"max(?:imum)?(?: of)? (\d[\d,]*) tokens per request|at most \d+ requests can be in one batch", re.I)


def _facts(body: bytes) -> tuple[dict[str, Any], str, str]:
    """(error object, code, message) of an error body of any of the known shapes; empty where there is none."""
    try:
        data: Any = json.loads(body[:200_000]) if body else {}
    except (ValueError, RecursionError):
        return {}, "", one_line(body[:2000].decode("utf-8", "replace"))
    if isinstance(data, list):  # Gemini's streaming endpoints wrap the error in an array
        data = data[0] if data else {}
    if not isinstance(data, dict):
        return {}, "", one_line(data)
    error = data.get("error", data)
    if not isinstance(error, dict):
        return {}, "", one_line(error)
    code = error.get("code") or error.get("type") or error.get("status") or ""
    message = error.get("message") or error.get("detail") or data.get("message") or ""
    return error, str(code), one_line(message)


def classify_error(status: int, headers: Mapping[str, str], body: bytes) -> LLMError:
    """The branch of ``errors.py`` for a refused request: status first, the vendor's code second, text last."""
    error, code, said = _facts(body)
    kind = str(error.get("type") or "")
    asked = retry_after(headers, error)
    make: dict[str, Any] = {"status": status, "request_id": headers.get("x-request-id"), "retry_after": asked}
    told = f" ({said})" if said else ""

    if 300 <= status < 400:
        return AccessError("the server redirects, and prompts are not sent on; give the final address as base_url", kind="redirect", **make)
    if status == 200:  # an error that came as a success: the body's own number decides
        inner = error.get("code")
        status = inner if isinstance(inner, int) and 400 <= inner < 600 else 0
        if not status:
            return _by_word(code + kind, said, make) or ServerFault(f"an error came as a 200{told}", kind="bad_response", **make)
    if code in _NO_CREDIT or kind in _NO_CREDIT or status == 402:
        return OutOfCredit(f"the account has no credit left{told}. Top it up, then run the same call again: only the rest is sent", **make)
    if status == 401 or "API_KEY_INVALID" in str(error.get("details", "")):
        return KeyRejected(f"the API key was refused{told}. Check it and set it with llmkit.set_key(...)", **make)
    if status == 403:
        return KeyRejected(f"this key may not do this{told}", kind="forbidden", **make)
    if status == 404:
        return ModelGone(f"the provider does not serve this model or address{told}", **make)
    if status in (429, 498, 529) or (status == 413 and "per minute" in said):
        return _too_fast(status, error, said, told, make)
    if status == 503 or "overloaded" in code or "capacity" in said.lower():
        return Overloaded(f"the provider is overloaded{told}", **make)
    if status in (408, 504):
        return TimedOut(f"the provider gave up waiting{told}", **make)
    if status >= 500 or status in (409, 425):
        if "unsupported value: NaN" in said:  # Ollama: the same text fails every time (ollama/ollama#14657)
            return InvalidRequest("the server cannot embed this text (its vector is not a number)", **make)
        return ServerFault(f"the server answered {status}{told}", **make)
    cap = _TOKENS_PER_REQUEST.search(said)
    if status == 413 or code == "max_tokens_per_request" or cap:
        too_large = BatchTooLarge(f"too much for one request{told}", **make)
        too_large.limit = int(cap[1].replace(",", "")) if cap and cap[1] else None
        return too_large
    return _by_word(code + kind, said, make) or InvalidRequest(f"the request was refused{told}", **make)


def _too_fast(status: int, error: Mapping[str, Any], said: str, told: str, make: Mapping[str, Any]) -> LLMError:
    quotas: Iterable[Any] = (
        violation.get("quotaId", "")
        for detail in error.get("details") or ()
        if isinstance(detail, dict)
        for violation in detail.get("violations") or ()
        if isinstance(violation, dict)
    )
    if any("PerDay" in str(quota) for quota in quotas) or "/ month" in said or "per day" in said:
        return QuotaSpent(f"a daily or monthly quota is used up{told}", **make)
    if status in (413, 429) and "capacity" not in said.lower():
        return RateLimited(f"too many requests for this account{told}", **make)
    return Overloaded(f"the provider is overloaded{told}", **make)


def _by_word(code: str, said: str, make: Mapping[str, Any]) -> LLMError | None:
    if "content_filter" in code or "content_policy" in code:
        return ContentBlocked("the provider's content filter refused the prompt", **make)
    if "context_length" in code or _TOO_LONG.search(said):
        return ContextTooLong("the text is longer than the model's context window; shorten it or choose a larger model", **make)
    if "overloaded" in code:
        return Overloaded("the provider is overloaded", **make)
    if "rate_limit" in code:
        return RateLimited("too many requests for this account", **make)
    if "invalid_api_key" in code or "authentication" in code:
        return KeyRejected("the API key was refused. Check it and set it with llmkit.set_key(...)", **make)
    if "credit balance" in said:
        return OutOfCredit("the account has no credit left", **make)
    return None


def adapter() -> Adapter:
    return Adapter(
        name="openai",
        codecs={
            "chat": Codec("/chat/completions", _chat_body, _chat_replies, streamed=_streamed, delta=_chat_delta),
            "embed": Codec("/embeddings", _embed_body, _embed_replies, _embed_batch),
            "rerank": Codec("/rerank", _rerank_body, _rerank_replies),
        },
        connect=connect,
        classify_error=classify_error,
        read_limits=read_limits,
    )
