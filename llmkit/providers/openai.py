"""OpenAI's wire: chat completions, embeddings, and ``/rerank`` in the shape of Cohere and Jina that vLLM, infinity and LiteLLM serve.

Also spoken by every server that calls itself OpenAI-compatible; what such a vendor does differently is a quirk in its row of
``providers.toml``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ..adapter import Adapter, Codec, Delta, Target, to_json, whole
from ..errors import BadOutput, ContentBlocked, InvalidRequest, LLMError, ServerFault, Truncated
from ..operations.chat import ChatPayload, Image, Part, Said, Scored, Text, ToolCall
from ..types import Reply, Request, Usage
from .bodies import answering, calls, data_url, embedded, form_of, function, named, parse, placed, scores, tokens, tool_results
from .dialects import asked, modes
from .headers import read_limits
from .job_protocols import jobs_of
from .openai_audio import SPEAK, TRANSCRIBE
from .openai_errors import classify_error
from .openai_sdk import client, connect, send
from .prompt_cache import kept, openings, parts, rule_of

__all__ = ["adapter"]


# ------------------------------------------------------------------------------------------------------------------- chat


def _chat_body(requests: Sequence[Request], target: Target) -> bytes:
    (request,) = requests
    return to_json(_chat(request, target))


def _chat(request: Request, target: Target) -> dict[str, Any]:
    payload, quirks = request.payload, target.provider.quirks
    body: dict[str, Any] = {"model": target.model.name, "messages": _messages(payload, target)}
    body.update(request.options)
    for name, usual in _FIELDS.items():
        if name in body and (theirs := quirks.get(usual[0], usual[1])) != name:
            body[theirs] = body.pop(name)
    if body.pop("logprobs", False) and quirks.get("logprobs", False) and "reasoning" not in target.model.capabilities:
        body["logprobs"] = True
    if payload.tools:
        body["tools"] = [function(tool) for tool in payload.tools]
        if payload.tool_choice in ("auto", "none"):
            body["tool_choice"] = payload.tool_choice
        elif payload.tool_choice == "required":
            body["tool_choice"] = quirks.get("tool_required", "required")
        elif payload.tool_choice:
            body["tool_choice"] = {"type": "function", "function": {"name": payload.tool_choice}}
    if payload.schema is not None:
        _structured(body, payload, target)
    return body


def _marked(request: Request, target: Target, digests: Collection[bytes]) -> bytes:
    """The same with the key of its longest opening, and a mark at the end of each of these where the vendor has such."""
    body = _chat(request, target)
    rule = rule_of(target)
    found = () if rule is None else openings(request, rule, digests)
    if rule is None or not found:
        return to_json(body)
    if rule.key:
        body["prompt_cache_key"] = found[-1].id.hex()
    if rule.explicit:
        body["prompt_cache_options"] = {"mode": "explicit"}
    if not rule.mark:
        return to_json(body)
    messages, payload = body["messages"], request.payload
    said = len(_in_words(payload, target))
    cuts: dict[int, list[int]] = {}
    for opening in found:
        at = said + opening.messages
        if opening.letters:
            cuts.setdefault(at, []).append(opening.letters)
            continue
        # What an assistant said takes no mark: that of the message before it is next best.
        before = next((place for place in range(at - 1, -1, -1) if messages[place]["role"] != "assistant"), None)
        if before is not None and isinstance(messages[before]["content"], str) and messages[before]["content"].strip():
            messages[before]["content"] = [{"type": "text", "text": messages[before]["content"], **rule.mark}]
    for at, letters in cuts.items():
        messages[at]["content"] = parts(messages[at]["content"], letters, rule.mark)
    return to_json(body)


#: Options that some vendors call otherwise: the quirk that says how, and the usual name.
_FIELDS = {"max_tokens": ("token_limit_field", "max_tokens"), "seed": ("seed_field", "seed")}


def _structured(body: dict[str, Any], payload: ChatPayload, target: Target) -> None:
    schema, quirks = payload.schema, target.provider.quirks
    assert schema is not None
    how = asked(schema, target)
    if how.mode == "json_object":
        body["response_format"] = {"type": "json_object"}
    elif how.mode == "json_schema":
        strict = {"strict": True} if how.strict else {}
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": how.name, "schema": how.form, **strict}}
    elif how.mode == "tools":
        body["tools"] = [*body.get("tools", ()), answering(schema, how)]
        if how.strict:  # calls that come several at once are not held to their schemas
            body["parallel_tool_calls"] = False
        if payload.tools or "tool_required" in quirks:
            body["tool_choice"] = quirks.get("tool_required", "required")
        else:
            body["tool_choice"] = {"type": "function", "function": {"name": how.name}}


def _messages(payload: ChatPayload, target: Target) -> list[dict[str, Any]]:
    messages = _in_words(payload, target)
    for message in payload.messages:
        if isinstance(message.content, str):
            messages.append({"role": message.role, "content": message.content})
        elif message.role == "tool":
            messages += tool_results(message)
        elif message.role == "assistant":
            messages.append(_assistant(message.content))
        else:
            messages.append({"role": message.role, "content": [_part(part, target.provider.quirks) for part in message.content]})
    return messages


def _in_words(payload: ChatPayload, target: Target) -> list[dict[str, Any]]:
    """What has to be said of the answer's form before everything else."""
    words = "" if payload.schema is None else asked(payload.schema, target).words
    # OpenAI and Groq refuse the promise of some JSON where no message has the word (platform.openai.com/docs/guides/structured-outputs,
    # 2026-11-21); who says it already has said enough.
    if not words or (payload.schema is not None and payload.schema.schema is None and _says_json(payload)):
        return []
    return [{"role": "system", "content": words}]


def _says_json(payload: ChatPayload) -> bool:
    texts = [
        text
        for message in payload.messages
        for text in (
            [message.content] if isinstance(message.content, str) else [part.text for part in message.content if isinstance(part, Text)]
        )
    ]
    return any("json" in text.lower() for text in texts)


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
    return {"type": "image_url", "image_url": {"url": data_url(part)}}


def _chat_replies(body: Any, requests: Sequence[Request]) -> list[Reply | LLMError]:
    data = parse(body, classify_error)
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
    payload = requests[0].payload
    called = calls(message.get("tool_calls")) if payload.tools or payload.schema is not None else ()
    if payload.schema is not None:
        text, called = form_of(payload.schema, text, called, payload.tools)
    if not text and not called:
        if finish == "length":
            return [Truncated("the token limit was used up before any text came; raise max_tokens", usage=usage)]
        return [BadOutput("the answer is empty", kind="empty", usage=usage)]
    value: Any = whole(text)
    if payload.tools:
        value = Said(value, called)
    elif requests[0].options.get("logprobs"):
        value = Scored(value, _likelihoods(choice.get("logprobs")))
    return [Reply(value=value, usage=usage, model=named(data), finish=finish, request_id=named(data, "id"))]


def _text_of(content: Any) -> str:
    if isinstance(content, list):  # Mistral's reasoning models answer in parts
        return "".join(part.get("text", "") for part in content if isinstance(part, dict) and part.get("type") == "text")
    if content is not None and not isinstance(content, str):
        raise ServerFault("the answer's content is no text", kind="bad_response")
    return content or ""


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
    chunk = parse(data, classify_error)
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
    text = _text_of(piece.get("content"))
    for call in piece.get("tool_calls") or ():  # only an answer that was asked for as a function's arguments comes so
        text += (call.get("function") or {}).get("arguments") or ""
    return Delta(whole(text), usage, finish if isinstance(finish, str) else None, named(chunk))


def _usage(reported: Any) -> Usage:
    if not isinstance(reported, dict):
        return Usage(requests=1, unreported=1)
    details = reported.get("prompt_tokens_details")
    details = details if isinstance(details, dict) else {}
    read, written, total = reported.get("prompt_tokens"), reported.get("completion_tokens"), reported.get("total_tokens")
    # xAI counts what a model thinks in the total alone, and bills it as output (vercel/ai#12425, UKGovernmentBEIS/inspect_ai#5528; seen
    # 2026-11-21); where it is in both, the difference is the same.
    thought = tokens(total) - tokens(read) if read is not None else 0
    return Usage(
        input=tokens(read),
        # DeepSeek's own name for it, https://api-docs.deepseek.com/guides/kv_cache, seen 2026-11-21.
        cached_input=tokens(details.get("cached_tokens", reported.get("prompt_cache_hit_tokens"))),
        cache_write=tokens(details.get("cache_write_tokens")),
        output=max(tokens(written), thought),
        requests=1,
        unreported=int(read is None and written is None),
    )


# ------------------------------------------------------------------------------------------------------------- embeddings


def _embed_body(requests: Sequence[Request], target: Target) -> bytes:
    # Base64 is a tenth of the work of decoding float lists, but only OpenAI is known to serve it everywhere: some compatible servers
    # refuse it or ignore it (vllm-project/vllm#5734, BerriAI/litellm#42426; seen 2026-11-21).
    body = {
        "model": target.model.name,
        "input": [request.payload for request in requests],
        "encoding_format": target.provider.quirks.get("embed_encoding", "float"),
        **{
            target.provider.quirks.get("dimensions_field", "dimensions") if name == "dimensions" else name: value
            for name, value in requests[0].options.items()
            if name != "input_type"
        },
    }
    return to_json(body)


def _embed_replies(body: Any, requests: Sequence[Request]) -> list[Reply | LLMError]:
    data = parse(body, classify_error)
    billed = _usage(_read_only(data.get("usage")))
    weights = [len(request.payload) for request in requests]
    return embedded(placed(data, len(weights)), None if billed.unreported else billed.input, weights, named(data))


def _read_only(reported: Any) -> Any:
    """The bill of what is only read: some servers name it in total alone."""
    if isinstance(reported, dict) and reported.get("prompt_tokens") is None and reported.get("total_tokens") is not None:
        return {"prompt_tokens": reported["total_tokens"]}
    return reported


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
    data = parse(body, classify_error)
    results = data.get("results")
    if not isinstance(results, list):
        raise ServerFault("the answer has no results", kind="bad_response")
    (request,) = requests
    found = scores(results, len(request.payload.documents))
    if found is None:
        return [BadOutput("no document got a score", kind="invalid_scores")]
    billed = data.get("usage")
    counted = tokens(billed.get("total_tokens") or billed.get("prompt_tokens")) if isinstance(billed, dict) else 0
    return [Reply(value=found, usage=Usage(input=counted, requests=1, unreported=0 if counted else 1), model=named(data))]


def adapter() -> Adapter:
    return Adapter(
        name="openai",
        codecs={
            "chat": Codec(
                "/chat/completions", _chat_body, _chat_replies, streamed=_streamed, delta=_chat_delta, kept=kept, mark=_marked, modes=modes
            ),
            "embed": Codec("/embeddings", _embed_body, _embed_replies, _embed_batch),
            "rerank": Codec("/rerank", _rerank_body, _rerank_replies),
            "transcribe": TRANSCRIBE,
            "speak": SPEAK,
        },
        connect=connect,
        classify_error=classify_error,
        read_limits=read_limits,
        client=client,
        send=send,
        jobs=jobs_of(lambda target: client(target, False), classify_error),
    )
