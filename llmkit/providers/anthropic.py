"""Anthropic's wire: the Messages API, as api.anthropic.com, Bedrock, Vertex and the servers that copy it answer it.

Facts about the wire are read in anthropic 2.11 (API version 2026-10-21) and in recorded exchanges, seen 2026-11-21.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import orjson
from pybase64 import b64encode

from ..adapter import Adapter, Codec, Delta, RequestTemplate, Target, to_json, whole
from ..errors import (
    BadOutput,
    ContentBlocked,
    ContextTooLong,
    InvalidRequest,
    LLMError,
    MissingExtra,
    QuotaSpent,
    ServerFault,
    Truncated,
    one_line,
)
from ..operations.chat import ChatPayload, Image, Message, Part, Said, Scored, Text, ToolCall, ToolResult
from ..types import Limits, Reply, Request, Usage
from . import stainless
from .anthropic_jobs import jobs_of
from .bodies import facts, form_of, named, parse, tokens
from .dialects import asked, modes
from .headers import read_anthropic_limits, read_limits, retry_after
from .prompt_cache import kept, openings, parts, rule_of
from .refusals import Refused

__all__ = ["adapter"]


# ------------------------------------------------------------------------------------------------------------- addressing


def connect(target: Target) -> RequestTemplate:
    """Let the official SDK make one request over a transport that records it, and keep where it would have gone."""
    import anthropic

    sent = stainless.recorded(lambda http_client: _sdk(anthropic.Anthropic, target, http_client=http_client), target.codec.path)
    unwanted = stainless.NOT_OURS if target.secret else stainless.NOT_OURS | _KEYS
    return RequestTemplate(url=str(sent.url), headers={name: value for name, value in sent.headers.items() if name.lower() not in unwanted})


def client(target: Target, is_async: bool) -> Any:
    """The official SDK's client for this target, retries off."""
    import anthropic

    return _sdk(anthropic.AsyncAnthropic if is_async else anthropic.Anthropic, target)


def _sdk(kind: Any, target: Target, **given: Any) -> Any:
    """A client of the SDK that sends our key and nothing of the environment that was meant for another address.

    An explicit ``api_key`` keeps the SDK from reading ANTHROPIC_AUTH_TOKEN and profiles, but the headers of ANTHROPIC_CUSTOM_HEADERS go
    to every address and win over the key.
    """
    import anthropic

    made = kind(api_key=target.secret.reveal() if target.secret else "none", base_url=target.provider.base_url, max_retries=0, **given)
    ours = {**made.auth_headers, "User-Agent": made.user_agent}
    kept = {name.lower() for name in ours}
    others = {
        name: anthropic.omit
        for name in made.default_headers
        if name.lower() not in kept and (name.lower() in _KEYS or (target.provider.name != "anthropic" and not _OF_THE_SDK.match(name)))
    }
    return made.with_options(default_headers={**others, **ours})


#: Headers that the SDK itself writes; any other comes from ANTHROPIC_CUSTOM_HEADERS.
_OF_THE_SDK = re.compile(r"(?:accept|content-type|user-agent|anthropic-version|x-stainless-[a-z-]+)\Z", re.I)

#: Either may carry the key: the SDK sends ``authorization``, older ones sent ``x-api-key``.
_KEYS = {"authorization", "x-api-key"}


# ---------------------------------------------------------------------------------------------- a client of the caller's own


def send(foreign: Any, codec: Codec, body: bytes) -> Any:
    """Have a caller's own client post a body: ``Anthropic``, ``AnthropicBedrock``, ``AnthropicVertex``, ... or their async twins.

    The low-level post signs and addresses as the client's kind does it (Bedrock and Vertex move the model into the URL), and takes members
    that the SDK's methods have no argument for.

    Returns
    -------
    (status, headers, body), or a coroutine of it for an async client
    """
    import anthropic

    return stainless.post(anthropic, foreign, codec.path, body)


# ---------------------------------------------------------------------------------------------------------------- request

#: What is asked for where the caller sets no limit: the API demands one, and answers are billed as they come, not by the limit.
_LONGEST_BY_DEFAULT, _LONGEST_IF_UNKNOWN = 8192, 4096

#: Options that the wire has a word for. ``stop`` is its stop_sequences; ``logprobs`` is a hint that it cannot follow.
_OPTIONS = frozenset({"max_tokens", "temperature", "top_p", "top_k", "stop", "thinking", "metadata", "service_tier", "logprobs"})


def _chat_body(requests: Sequence[Request], target: Target) -> bytes:
    (request,) = requests
    return to_json(_chat(request, target))


def _chat(request: Request, target: Target) -> dict[str, Any]:
    payload, options = request.payload, dict(request.options)
    options.pop("logprobs", None)
    stop = options.pop("stop", None)
    body: dict[str, Any] = {
        "model": target.model.name,
        "max_tokens": min(target.model.output_limit or _LONGEST_IF_UNKNOWN, _LONGEST_BY_DEFAULT),
        "messages": _turns(payload.messages, target.provider.quirks),
        **options,
    }
    if stop is not None:
        body["stop_sequences"] = [stop] if isinstance(stop, str) else list(stop)
    system = [_plain(message) for message in payload.messages if message.role == "system"]
    if payload.tools:
        body["tools"] = [_tool(tool.name, tool.description, tool.parameters) for tool in payload.tools]
        if payload.tool_choice:
            body["tool_choice"] = _WORDS_FOR_CHOICE.get(payload.tool_choice) or {"type": "tool", "name": payload.tool_choice}
    if payload.schema is not None:
        system.append(_structured(body, payload, target))
    if any(system):
        body["system"] = "\n\n".join(filter(None, system))
    return body


def _marked(request: Request, target: Target, digests: Collection[bytes]) -> bytes:
    """The same with ``cache_control`` at the end of each of these openings."""
    body = _chat(request, target)
    rule = rule_of(target)
    if rule is None:
        return to_json(body)
    cuts: dict[int, list[int]] = {}
    for opening in openings(request, rule, digests):
        at = sum(message.role != "system" for message in request.payload.messages[: opening.messages])
        if opening.letters:
            cuts.setdefault(at, []).append(opening.letters)
        else:
            _mark_before(body, at, rule.mark)
    for at, letters in cuts.items():
        body["messages"][at]["content"] = parts(body["messages"][at]["content"], letters, rule.mark)
    return to_json(body)


def _mark_before(body: dict[str, Any], at: int, mark: Mapping[str, Any]) -> None:
    """Mark the last block before this turn: of the turn before it, else of the system prompt, else the last tool."""
    if at:
        turn = body["messages"][at - 1]
        if isinstance(turn["content"], str) and turn["content"].strip():
            turn["content"] = [{"type": "text", "text": turn["content"], **mark}]
    elif "system" in body:
        body["system"] = [{"type": "text", "text": body["system"], **mark}]
    elif body.get("tools"):
        body["tools"] = [*body["tools"][:-1], {**body["tools"][-1], **mark}]


_WORDS_FOR_CHOICE = {"auto": {"type": "auto"}, "none": {"type": "none"}, "required": {"type": "any"}}


def _tool(name: str, description: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    # A schema without a type at its top (a bare reference, a tool without arguments) is refused.
    return {"name": name, **({"description": description} if description else {}), "input_schema": {"type": "object", **parameters}}


def _plain(message: Message) -> str:
    if isinstance(message.content, str):
        return message.content
    return "\n\n".join(part.text for part in message.content if isinstance(part, Text))


def _turns(messages: Sequence[Message], quirks: Mapping[str, Any]) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = []
    answering = False
    for message in messages:
        if message.role == "system":
            continue
        if message.role == "tool":
            results = [_result(part) for part in message.content if isinstance(part, ToolResult)]
            if answering:  # every call of one turn has to be answered in the next one
                turns[-1]["content"] += results
            else:
                turns.append({"role": "user", "content": results})
        else:
            text = isinstance(message.content, str)
            turns.append({"role": message.role, "content": message.content if text else _blocks(message, quirks)})
        answering = message.role == "tool"
    return turns


def _blocks(message: Message, quirks: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [_block(part, message.role, quirks) for part in message.content if not (isinstance(part, Text) and not part.text)]


def _block(part: Part | str, role: str, quirks: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    if isinstance(part, ToolCall) and role == "assistant":
        return {"type": "tool_use", "id": _call_id(part), "name": part.name, "input": _arguments(part.arguments)}
    if not isinstance(part, Image) or role != "user":
        raise InvalidRequest("a user's message holds text and pictures only, an assistant's text and tool calls")
    if not part.url:
        source = {"type": "base64", "media_type": part.media_type, "data": b64encode(part.data).decode()}
    elif quirks.get("image_urls", True):
        source = {"type": "url", "url": part.url}
    else:
        raise InvalidRequest("this provider takes no addresses of pictures; give the file or its bytes")
    return {"type": "image", "source": source}


def _result(part: ToolResult) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": _call_id(part.call), "content": part.content}


def _call_id(call: ToolCall) -> str:
    """Ids of other vendors, such as ``functions.look_up:0``, hold characters that are refused here."""
    return re.sub(r"[^a-zA-Z0-9_-]", "_", call.id)


def _arguments(text: str) -> dict[str, Any]:
    """The object that a call's arguments are. What a model wrote in vain is shown to it as it was."""
    try:
        arguments = orjson.loads(text)
    except orjson.JSONDecodeError:
        arguments = None
    return arguments if isinstance(arguments, dict) else {"arguments": text}


# ------------------------------------------------------------------------------------------------------ structured answers


def _structured(body: dict[str, Any], payload: ChatPayload, target: Target) -> str:
    """Ask for JSON in the way that schema and provider allow; returns what is to be said in words."""
    schema = payload.schema
    assert schema is not None
    how = asked(schema, target)
    if how.mode == "json_schema":
        body["output_config"] = {"format": {"type": "json_schema", "schema": how.form}}
        return ""
    if how.mode != "tools":
        return how.words
    about = schema.description or "Gives the answer."
    body["tools"] = [*body.get("tools", ()), {"name": how.name, "description": about, "input_schema": how.form}]
    if not payload.tools:
        body["tool_choice"] = {"type": "tool", "name": how.name, "disable_parallel_tool_use": True}
    elif payload.tool_choice in ("", "auto"):
        body["tool_choice"] = {"type": "any"}
    return ""


# ------------------------------------------------------------------------------------------------------------------ reply

#: Why the model stopped, in the words that all providers share; others are passed on.
_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
}


def _chat_replies(body: Any, requests: Sequence[Request]) -> list[Reply | LLMError]:
    (request,) = requests
    data = parse(body, classify_error)
    content = data.get("content")
    if not isinstance(content, list):
        raise ServerFault("the answer has no content", kind="bad_response")
    blocks = [block for block in content if isinstance(block, dict)]
    usage = _usage(data.get("usage"))
    stopped = named(data, "stop_reason")
    if stopped == "refusal":
        return [_refused(data.get("stop_details"), usage)]
    text = "".join(_text(block.get("text")) for block in blocks if block.get("type") == "text")
    calls = tuple(_call(block) for block in blocks if block.get("type") == "tool_use")
    finish = _FINISH.get(stopped, stopped) if stopped else None
    payload = request.payload
    if payload.schema is not None:
        answered = calls
        text, calls = form_of(payload.schema, text, calls, payload.tools)
        if answered and not calls and stopped == "tool_use":  # that was the answer, and no call of a tool
            finish = "stop"
    if not text and not (calls and payload.tools):
        return [_empty(stopped, usage)]
    value: Any = whole(text)
    if payload.tools:
        value = Said(value, calls)
    elif request.options.get("logprobs"):
        value = Scored(value)
    return [Reply(value=value, usage=usage, model=named(data), finish=finish, request_id=named(data, "id"))]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ServerFault("the answer's content is no text", kind="bad_response")
    return value


def _call(block: Mapping[str, Any]) -> ToolCall:
    return ToolCall(str(block["id"]), str(block["name"]), orjson.dumps(block.get("input") or {}).decode())


def _empty(stopped: str | None, usage: Usage) -> LLMError:
    if stopped == "max_tokens":
        return Truncated("the token limit was used up before any text came; raise max_tokens", usage=usage)
    if stopped == "model_context_window_exceeded":
        return ContextTooLong("the model's context window was full before any text came; shorten the text", usage=usage)
    return BadOutput("the answer is empty", kind="empty", usage=usage)


def _refused(details: Any, usage: Usage | None) -> ContentBlocked:
    category = details.get("category") if isinstance(details, dict) else None
    about = f" ({one_line(category)})" if isinstance(category, str) else ""
    return ContentBlocked(f"the model declined to answer{about}", kind="refusal", usage=usage)


def _usage(reported: Any) -> Usage:
    """Anthropic counts what it read from the prompt cache or wrote into it beside the input; here they are parts of it."""
    if not isinstance(reported, dict):
        return Usage(requests=1, unreported=1)
    cached, written = tokens(reported.get("cache_read_input_tokens")), tokens(reported.get("cache_creation_input_tokens"))
    return Usage(
        input=tokens(reported.get("input_tokens")) + cached + written,
        cached_input=cached,
        cache_write=written,
        output=tokens(reported.get("output_tokens")),
        requests=1,
    )


def _delta(event: str, data: bytes) -> Delta | None:
    if data == b"[DONE]":  # servers that copy this wire end with OpenAI's word
        return None
    chunk = parse(data, classify_error)
    kind = chunk.get("type") or event
    if kind == "message_start":
        message = chunk["message"]
        return Delta(usage=_usage(message.get("usage")), model=named(message))
    if kind == "content_block_start":
        return Delta(whole(_text(chunk["content_block"].get("text") or "")))
    if kind == "content_block_delta":
        # A tool's input comes as pieces of JSON: the text of a structured answer that had to come by a tool.
        piece = chunk["delta"]
        return Delta(whole(_text(piece.get("text") or piece.get("partial_json") or "")))
    if kind != "message_delta":
        return None
    usage = _usage(chunk["usage"]) if isinstance(chunk.get("usage"), dict) else None
    stopped = named(chunk["delta"], "stop_reason")
    if stopped == "refusal":
        raise _refused(chunk["delta"].get("stop_details"), usage)
    return Delta(usage=usage, finish=_FINISH.get(stopped, stopped) if stopped else None)


def _streamed(target: Target) -> dict[str, Any]:
    return {"stream": True}


# ----------------------------------------------------------------------------------------------------------------- errors

#: The status that goes with an error's type, for errors that come in the body of a 200: streams break off with one.
_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}

_TOO_LONG = re.compile(r"prompt is too long|exceed context limit|context window|input is too long", re.I)
_SPENT = re.compile(r"reached your specified .*usage limits", re.I)
_BY_DAY = re.compile(r"\bper[- ](?:day|month)\b|\b(?:daily|monthly)\b", re.I)
_SPENT_CODES = {"enforced_spend_limit_reached", "contract_spend_limit_reached"}
_ON_HOLD = re.compile(r"organization has been disabled", re.I)


def classify_error(status: int, headers: Mapping[str, str], body: bytes) -> LLMError:
    """The branch of ``errors.py`` for a refused request: status first, the error's type and code second, text last."""
    error, _, said = facts(body)
    kind = str(error.get("type") or "")
    details = error.get("details")
    code = str(details.get("error_code") or "") if isinstance(details, dict) else ""
    refused = Refused(status, headers.get("request-id") or headers.get("x-amzn-requestid"), retry_after(headers), said)

    if 300 <= status < 400:
        return refused.redirected()
    if status == 200:
        status = _STATUS.get(kind, 0)
        if not status:
            return refused.in_a_success()
    if status == 402 or kind == "billing_error" or "credit balance is too low" in said:
        return refused.no_credit()
    if code in _SPENT_CODES or (status in (400, 429) and _SPENT.search(said)) or (status == 429 and _BY_DAY.search(said)):
        return QuotaSpent(f"a spending limit or a daily or monthly quota is used up{refused.told}", **refused.facts)
    if status == 413:
        # One row alone is in a request: halving cannot help, a vendor that takes more bytes can.
        return ContextTooLong(
            f"the request is larger than the provider takes{refused.told}; send less text or smaller pictures", **refused.facts
        )
    by_status = Refused.overloaded if kind == "overloaded_error" else _BY_STATUS.get(status)
    if by_status is not None:
        return by_status(refused)
    if status >= 500 or status in (409, 425):
        return refused.fault(status)
    return _refusal(code, said, refused)


_BY_STATUS: dict[int, Callable[[Refused], LLMError]] = {
    401: Refused.key_refused,
    403: Refused.forbidden,
    404: Refused.gone,
    408: Refused.gave_up,
    429: Refused.too_fast,
    503: Refused.overloaded,
    504: Refused.gave_up,
    529: Refused.overloaded,
}


def _refusal(code: str, said: str, refused: Refused) -> LLMError:
    """What a 400 is: it stands for nearly everything, and only its text tells."""
    if _TOO_LONG.search(said):
        return refused.too_long()
    if "content filtering policy" in said:
        return ContentBlocked("the provider's content filter held the answer back", **refused.facts)
    if code == "organization_on_hold" or _ON_HOLD.search(said):
        return refused.forbidden()
    if "model identifier is invalid" in said:  # Bedrock
        return refused.gone()
    return refused.invalid()


def _limits(headers: Mapping[str, str]) -> Limits | None:
    # Gateways that speak this wire (LiteLLM) count in OpenAI's headers.
    return read_anthropic_limits(headers) or read_limits(headers)


def adapter() -> Adapter:
    if find_spec("anthropic") is None:
        raise MissingExtra("anthropic needs the package anthropic: pip install 'llmkit[anthropic]'")
    jobs = jobs_of(lambda target: client(target, False), classify_error)
    return Adapter(
        name="anthropic",
        codecs={
            "chat": Codec(
                "/v1/messages",
                _chat_body,
                _chat_replies,
                options=_OPTIONS,
                streamed=_streamed,
                delta=_delta,
                kept=kept,
                mark=_marked,
                modes=modes,
            )
        },
        connect=connect,
        classify_error=classify_error,
        read_limits=_limits,
        client=client,
        send=send,
        jobs=lambda target: jobs,
    )
