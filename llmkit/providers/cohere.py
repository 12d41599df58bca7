"""Cohere's wire, version 2: chat, embeddings, rerank; and version 1's classify, which only fine-tuned models still answer.

Facts about Cohere are from its API reference, its error table (docs.cohere.com/reference/errors), the installed SDK (7.3) and exchanges
that others recorded; seen 2026-11-21.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from ..adapter import Adapter, Codec, Delta, RequestTemplate, Target, to_json, whole
from ..errors import (
    BadOutput,
    ConnectionLost,
    ContentBlocked,
    InvalidRequest,
    LLMError,
    QuotaSpent,
    ServerFault,
    TimedOut,
    Truncated,
    one_line,
)
from ..operations.chat import ChatPayload, Image, Message, Part, Said, Scored, Text, ToolCall
from ..types import Allowance, Limits, Reply, Request, Usage
from . import headers as common
from .bodies import answering, calls, data_url, embedded, facts, form_of, function, named, parse, scores, tokens, tool_results
from .dialects import asked, modes
from .refusals import Refused

__all__ = ["adapter"]

_CHAT, _EMBED, _RERANK, _CLASSIFY = "/v2/chat", "/v2/embed", "/v2/rerank", "/v1/classify"

#: Texts that one request to embed or classify may hold; the SDK's own ``embed_batch_size`` and the error table say the same.
_MOST_TEXTS = 96


# ------------------------------------------------------------------------------------------------------------- addressing


def connect(target: Target) -> RequestTemplate:
    """Let the official SDK make one request over a transport that records it, and keep where it would have gone."""
    import cohere
    import httpx

    recorded: list[httpx.Request] = []

    class Recorder(httpx.BaseTransport):  # type: ignore[misc]
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            recorded.append(request)
            return httpx.Response(200, json={}, request=request)

    http = httpx.Client(transport=Recorder(), trust_env=False)
    with cohere.ClientV2(**_account(target), max_retries=0, httpx_client=http) as client:
        # The SDK has no post for any address: the operation's own method is called, and what it was told is thrown away.
        _method(client, target.codec.path)(**_SAMPLES[target.codec.path])
    sent = recorded[0]
    return RequestTemplate(
        url=str(sent.url), headers={name: value for name, value in sent.headers.items() if name.lower() not in _NOT_OURS}
    )


#: Headers that belong to one connection, not to the address.
_NOT_OURS = {"host", "connection", "content-length", "accept-encoding"}

_SAMPLES: dict[str, dict[str, Any]] = {
    _CHAT: {"model": "-", "messages": []},
    _EMBED: {"model": "-", "input_type": "search_document", "texts": []},
    _RERANK: {"model": "-", "query": "-", "documents": []},
    _CLASSIFY: {"inputs": []},
}


def _account(target: Target) -> dict[str, Any]:
    """Key and address, both always said: the SDK would look for what is left out in CO_API_KEY and CO_API_URL."""
    # The SDK asks for the key whenever it needs one; an empty key is its word for "send no Authorization header".
    return {"api_key": target.secret.reveal if target.secret else "", "base_url": target.provider.base_url}


def _method(client: Any, path: str) -> Callable[..., Any]:
    """The SDK's public method of an operation, in the form that hands back the HTTP answer as it came."""
    if path == _CLASSIFY:
        method = client.with_raw_response.classify
    else:
        # Clients of version 1 and 2 both have ``v2``, which reaches version 2's methods whichever the caller holds.
        method = getattr(getattr(client, "v2", client).with_raw_response, path.rpartition("/")[2])
    return method  # type: ignore[no-any-return]


def client(target: Target, is_async: bool) -> Any:
    """The official client for the same account; waiting and trying again are not its business."""
    import cohere

    return (cohere.AsyncClientV2 if is_async else cohere.ClientV2)(**_account(target), max_retries=0)


def send(foreign: Any, codec: Codec, body: bytes) -> Any:
    """Post a body by the caller's own client: ``(status, headers, body)``, or a coroutine that gives them."""
    method = _method(foreign, codec.path)
    members = {**orjson.loads(body), "request_options": {"max_retries": 0}}
    return _sent_async(method, members) if inspect.iscoroutinefunction(method) else _sent(method, members)


def _sent(method: Callable[..., Any], members: Mapping[str, Any]) -> tuple[int, dict[str, str], bytes]:
    try:
        return _plain(method(**members))
    except Exception as error:
        return _refused(error)


async def _sent_async(method: Callable[..., Any], members: Mapping[str, Any]) -> tuple[int, dict[str, str], bytes]:
    try:
        return _plain(await method(**members))
    except Exception as error:
        return _refused(error)


def _plain(answer: Any) -> tuple[int, dict[str, str], bytes]:
    return answer.status_code, _lower(answer.headers), answer.response.content


def _refused(error: Exception) -> tuple[int, dict[str, str], bytes]:
    """What the SDK raised, as the answer it was; a connection's trouble as ours."""
    import httpx
    from cohere.core import ApiError, ParsingError

    if isinstance(error, ApiError | ParsingError) and error.status_code is not None:
        said = error.body
        return error.status_code, _lower(error.headers or {}), said.encode() if isinstance(said, str) else to_json(said)
    # Not chained: the SDK's exceptions hold the request, key and prompt and all.
    if isinstance(error, httpx.TimeoutException):
        raise TimedOut("the client that was handed in gave up waiting") from None
    if isinstance(error, httpx.RequestError):
        raise ConnectionLost(f"the client that was handed in lost the connection ({type(error).__name__})") from None
    raise error


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


# ------------------------------------------------------------------------------------------------------------------- chat


#: Our names of options and Cohere's.
_CHAT_OPTIONS = {
    "temperature": "temperature",
    "max_tokens": "max_tokens",
    "seed": "seed",
    "top_p": "p",
    "top_k": "k",
    "stop": "stop_sequences",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "logprobs": "logprobs",
}

_FINISH = {"COMPLETE": "stop", "STOP_SEQUENCE": "stop", "MAX_TOKENS": "length", "TOOL_CALL": "tool_calls"}


def _chat_body(requests: Sequence[Request], target: Target) -> bytes:
    (request,) = requests
    payload: ChatPayload = request.payload
    body: dict[str, Any] = {
        "model": target.model.name,
        "messages": [turn for message in payload.messages for turn in _turns(message)],
        **{_CHAT_OPTIONS[name]: value for name, value in request.options.items()},
    }
    if isinstance(body.get("stop_sequences"), str):
        body["stop_sequences"] = [body["stop_sequences"]]
    body.update(_tools(payload))
    if payload.schema is not None:
        _structured(body, payload, target)
    return to_json(body)


def _structured(body: dict[str, Any], payload: ChatPayload, target: Target) -> None:
    schema = payload.schema
    assert schema is not None
    how = asked(schema, target)
    if how.words and schema.schema is not None:
        body["messages"] = [{"role": "system", "content": how.words}, *body["messages"]]
    if how.mode == "tools":
        # No strict_tools: not all models know it (docs.cohere.com/v2/docs/structured-outputs).
        body["tools"] = [*body.get("tools", ()), answering(schema, how)]
        body["tool_choice"] = "REQUIRED"
    elif how.mode != "words":
        wanted = {"json_schema": how.form} if how.mode == "json_schema" else {}
        body["response_format"] = {"type": "json_object", **wanted}


def _turns(message: Message) -> list[dict[str, Any]]:
    content = message.content
    if isinstance(content, str):
        return [{"role": message.role, "content": content}]
    if message.role == "tool":
        return tool_results(message)
    if message.role == "assistant":
        return [_assistant(content)]
    return [{"role": message.role, "content": [_part(part) for part in content]}]


def _assistant(parts: Sequence[Part]) -> dict[str, Any]:
    said = "".join(part.text for part in parts if isinstance(part, Text))
    asked = [
        {"id": part.id, "type": "function", "function": {"name": part.name, "arguments": part.arguments}}
        for part in parts
        if isinstance(part, ToolCall)
    ]
    if not asked:
        return {"role": "assistant", "content": said}
    # What a model says before it calls has a place of its own here.
    return {"role": "assistant", "tool_calls": asked, **({"tool_plan": said} if said else {})}


def _part(part: Part) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    if not isinstance(part, Image):
        raise InvalidRequest("a user's message holds text and pictures only")
    return {"type": "image_url", "image_url": {"url": data_url(part)}}


def _tools(payload: ChatPayload) -> dict[str, Any]:
    offered, choice = payload.tools, payload.tool_choice
    if not offered:
        return {}
    words = {"": {}, "auto": {}, "required": {"tool_choice": "REQUIRED"}, "none": {"tool_choice": "NONE"}}
    if choice not in words:
        # There is no word for one certain tool: it is the only one that is offered.
        offered, choice = tuple(tool for tool in offered if tool.name == choice), "required"
    return {"tools": [function(tool) for tool in offered], **words[choice]}


def _chat_replies(body: Any, requests: Sequence[Request]) -> list[Reply | LLMError]:
    (request,) = requests
    data = parse(body, classify_error)
    message = data.get("message")
    if not isinstance(message, dict):
        raise ServerFault("the answer has no message", kind="bad_response")
    finish, usage = _finish(data), _usage(data.get("usage"))
    text = whole(_text_of(message.get("content")))
    payload = request.payload
    called = calls(message.get("tool_calls")) if payload.tools or payload.schema is not None else ()
    if payload.schema is not None:
        answered = called
        text, called = form_of(payload.schema, text, called, payload.tools)
        if answered and not called and finish == "tool_calls":  # that was the answer, and no call of a tool
            finish = "stop"
    if not text and not called:
        if finish == "length":
            return [Truncated("the token limit was used up before any text came; raise max_tokens", usage=usage)]
        return [BadOutput("the answer is empty", kind="empty", usage=usage)]
    value: Any = text
    if payload.tools:
        value = Said(text or whole(named(message, "tool_plan") or ""), called)
    elif request.options.get("logprobs"):
        value = Scored(text, _likelihoods(data.get("logprobs")))
    return [Reply(value=value, usage=usage, finish=finish, request_id=named(data, "id"))]


def _finish(data: dict[str, Any]) -> str | None:
    """Why the answer ends, in the words that all providers share; raises where it ends because it failed."""
    said = named(data, "finish_reason")
    if said == "TIMEOUT":
        raise TimedOut("the provider gave up waiting for its model")
    if said == "ERROR":
        raise ServerFault("the model failed while it was answering")
    return None if said is None else _FINISH.get(said, said.lower())


def _text_of(content: Any) -> str:
    """The parts of type text; reasoning models answer with their thinking before it."""
    parts = content if isinstance(content, list) else ()
    return "".join(part.get("text") or "" for part in parts if isinstance(part, dict) and part.get("type") == "text")


def _likelihoods(reported: Any) -> tuple[tuple[str, float], ...]:
    """(piece of text, log probability) in the order of the text; a piece may be several tokens."""
    return tuple((str(piece.get("text") or ""), float(sum(piece.get("logprobs") or ()))) for piece in reported or ())


def _usage(reported: Any) -> Usage:
    # The bill is ``billed_units``; ``tokens`` counts Cohere's own preamble too (35 billed of 1,453 in a recorded exchange). Cached tokens
    # are of the latter, more than what is billed, and cost nothing less: they are no part of the bill.
    counts = reported.get("billed_units") or reported.get("tokens") if isinstance(reported, dict) else None
    if not isinstance(counts, dict):
        return Usage(requests=1, unreported=1)
    return Usage(input=tokens(counts.get("input_tokens")), output=tokens(counts.get("output_tokens")), requests=1)


def _chat_delta(event: str, data: bytes) -> Delta | None:
    """One event. What a model plans adds nothing; what it calls is an answer that was asked for as a function's arguments."""
    if data == b"[DONE]":
        return None
    said = parse(data, classify_error)
    kind, delta = said.get("type") or event, said.get("delta") or {}
    if kind == "content-delta":
        content = (delta.get("message") or {}).get("content")
        text = content.get("text") if isinstance(content, dict) else None
        return Delta(whole(text)) if text else None
    if kind in ("tool-call-start", "tool-call-delta"):
        piece = (((delta.get("message") or {}).get("tool_calls") or {}).get("function") or {}).get("arguments")
        return Delta(whole(piece)) if piece else None
    if kind != "message-end":
        return None
    if delta.get("error"):
        raise ServerFault(f"the answer broke off ({one_line(delta['error'])})")
    return Delta(usage=_usage(delta.get("usage")), finish=_finish(delta))


# ------------------------------------------------------------------------------------------------------------- embeddings


_INPUT_TYPES = {"query": "search_query", "document": "search_document"}


def _embed_body(requests: Sequence[Request], target: Target) -> bytes:
    options = requests[0].options
    purpose = options.get("input_type") or "document"
    body: dict[str, Any] = {
        "model": target.model.name,
        "texts": [request.payload for request in requests],
        "input_type": _INPUT_TYPES.get(purpose, purpose),
        # Packed float32: a tenth of the work of decoding lists. All models since v3 give it; the older ones were retired 2026-04-04.
        "embedding_types": [target.provider.quirks.get("embed_encoding", "base64")],
        # Too long is an error that the row shows, never a cut that nobody sees.
        "truncate": "NONE",
    }
    if options.get("dimensions") is not None:
        body["output_dimension"] = options["dimensions"]
    return to_json(body)


def _embed_replies(body: Any, requests: Sequence[Request]) -> list[Reply | LLMError]:
    data = parse(body, classify_error)
    given = data.get("embeddings")
    raws = (given.get("base64") or given.get("float")) if isinstance(given, dict) else None
    # By position is all there is, so as many must come as were sent.
    if not isinstance(raws, list) or len(raws) != len(requests):
        raise ServerFault("the answer does not have as many embeddings as texts were sent", kind="bad_response")
    billed = _units(data).get("input_tokens")
    return embedded(raws, None if billed is None else tokens(billed), [len(request.payload) for request in requests])


def _units(data: dict[str, Any]) -> dict[str, Any]:
    meta = data.get("meta")
    units = meta.get("billed_units") if isinstance(meta, dict) else None
    return units if isinstance(units, dict) else {}


# ----------------------------------------------------------------------------------------------------------------- rerank


def _rerank_body(requests: Sequence[Request], target: Target) -> bytes:
    (request,) = requests
    payload = request.payload
    return to_json({"model": target.model.name, "query": payload.query, "documents": list(payload.documents)})


def _rerank_replies(body: Any, requests: Sequence[Request]) -> list[Reply | LLMError]:
    (request,) = requests
    data = parse(body, classify_error)
    results = data.get("results")
    if not isinstance(results, list):
        raise ServerFault("the answer has no results", kind="bad_response")
    searches = _units(data).get("search_units")
    usage = Usage(searches=tokens(searches), requests=1, unreported=int(searches is None))
    found = scores(results, len(request.payload.documents))
    if found is None:
        return [BadOutput("no document got a score", kind="invalid_scores", usage=usage)]
    return [Reply(value=found, usage=usage, request_id=named(data, "id"))]


# --------------------------------------------------------------------------------------------------------------- classify


def _classify_body(requests: Sequence[Request], target: Target) -> bytes:
    examples = requests[0].payload.examples
    body: dict[str, Any] = {
        "model": target.model.name,
        "inputs": [request.payload.text for request in requests],
        "truncate": "NONE",
    }
    if examples:
        body["examples"] = [{"text": text, "label": label} for text, label in examples]
    return to_json(body)


def _classify_replies(body: Any, requests: Sequence[Request]) -> list[Reply | LLMError]:
    data = parse(body, classify_error)
    found = data.get("classifications")
    if not isinstance(found, list) or len(found) != len(requests):
        raise ServerFault("the answer does not have as many labels as texts were sent", kind="bad_response")
    # Billed by the text, for which there is no list price: only fine-tuned models are served.
    return [_classified(item, Usage(requests=int(number == 0))) for number, item in enumerate(found)]


def _classified(item: Any, usage: Usage) -> Reply | LLMError:
    label = item.get("prediction") or next(iter(item.get("predictions") or ()), None)
    if not isinstance(label, str) or not label:
        return BadOutput("no label came for this text", kind="empty", usage=usage)
    sure = item.get("confidence")
    if sure is None:
        sure = ((item.get("labels") or {}).get(label) or {}).get("confidence")
    return Reply(value=(label, None if sure is None else float(sure)), usage=usage)


# ----------------------------------------------------------------------------------------------------------------- errors


_MONTHLY = re.compile(r"/ ?month|per[- ]month|monthly", re.I)
_A_MINUTE = re.compile(r"limited to (\d[\d,]*) API calls / minute", re.I)
_TOO_MANY_TEXTS = re.compile(r"number of (?:texts|inputs|images) must be at most \d+", re.I)
#: "too many tokens: max tokens must be ..." is about what was asked for, not about the length of the text.
_TOO_LONG = re.compile(r"too many tokens(?!: max tokens)|size limit exceeded|maximum (?:context )?length", re.I)
_NO_MODEL = re.compile(r"model '[^']*' (?:not found|is not supported)|finetuned model .{0,200}not (?:found|ready)", re.I)


def classify_error(status: int, headers: Mapping[str, str], body: bytes) -> LLMError:
    """The branch of ``errors.py`` for a refused request: status first, then text, since Cohere's bodies hold no code."""
    error, _, said = facts(body)
    refused = Refused(status, headers.get("x-debug-trace-id") or named(error, "id"), _retry_after(headers), said)

    if status == 200:
        return refused.in_a_success()
    if 300 <= status < 400:
        return refused.redirected()
    if status == 401:
        return refused.key_refused()
    if status == 402:
        return refused.no_credit()
    if status == 403:
        return refused.forbidden()
    if status in (404, 501) or (status == 400 and _NO_MODEL.search(said)):
        return refused.gone()
    if status == 429:
        return _too_fast(said, refused)
    if status == 498:
        # "A request or response contains a deny-listed token": the same text is refused again. Groq means "busy" by this number.
        return ContentBlocked("the provider blocks a word in this text or in its answer", **refused.facts)
    if status in (408, 499, 504):
        return refused.gave_up()
    if status == 503:
        return refused.overloaded()
    if status >= 500 or status in (409, 425):
        return refused.fault(status)
    return _refusal(status, error, said, refused)


def _refusal(status: int, error: Mapping[str, Any], said: str, refused: Refused) -> LLMError:
    """A 4xx that is about what was sent."""
    if status == 413 or _TOO_MANY_TEXTS.search(said):
        return refused.too_much()
    if _TOO_LONG.search(said):
        return refused.too_long()
    if error.get("error_type") == "NO_VALID_RESPONSE_GENERATED":
        return BadOutput("the model found no valid answer to this prompt", kind="no_answer", **refused.facts)
    return refused.invalid()


def _too_fast(said: str, refused: Refused) -> LLMError:
    if _MONTHLY.search(said):
        return QuotaSpent(f"the month's calls are used up{refused.told}", **refused.facts)
    limited = refused.too_fast()
    a_minute = _A_MINUTE.search(said)
    if a_minute:
        # A 429 has no headers about limits, but a trial key's text says the pace.
        limited.per_minute = float(max(1, int(a_minute[1].replace(",", ""))))
        limited.retry_after = limited.retry_after or 60.0 / limited.per_minute
    return limited


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """``retry-after``, then ``x-ratelimit-reset`` (a Unix time, read against the answer's own date), at most a minute as in the SDK."""
    asked = common.retry_after(headers)
    reset = common.count(headers.get("x-ratelimit-reset"))
    if asked is not None or reset is None:
        return asked
    try:
        wait = reset - parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return None
    return min(60.0, wait) if wait > 0 else None


def read_limits(headers: Mapping[str, str]) -> Limits | None:
    """A trial key's calls a minute; production keys are told nothing."""
    a_minute = common.count(headers.get("x-trial-endpoint-call-limit"))
    if a_minute is None:
        return common.read_limits(headers)
    return Limits(requests=Allowance(a_minute, common.count(headers.get("x-trial-endpoint-call-remaining"))))


def _batch(target: Target) -> tuple[int, int | None]:
    return min(_MOST_TEXTS, target.provider.quirks.get("embed_batch", _MOST_TEXTS)), None


def adapter() -> Adapter:
    return Adapter(
        name="cohere",
        codecs={
            "chat": Codec(
                _CHAT,
                _chat_body,
                _chat_replies,
                options=frozenset(_CHAT_OPTIONS),
                streamed=lambda target: {"stream": True},
                delta=_chat_delta,
                modes=modes,
            ),
            "embed": Codec(_EMBED, _embed_body, _embed_replies, _batch, options=frozenset({"dimensions"})),
            "rerank": Codec(_RERANK, _rerank_body, _rerank_replies, options=frozenset()),
            "classify": Codec(_CLASSIFY, _classify_body, _classify_replies, _batch, options=frozenset()),
        },
        connect=connect,
        classify_error=classify_error,
        read_limits=read_limits,
        client=client,
        send=send,
    )
