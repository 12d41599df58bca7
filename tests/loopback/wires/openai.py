"""OpenAI's format: chat, embeddings, models and audio as OpenAI documents them, rerank as vLLM, infinity and LiteLLM serve it.

Many vendors speak it; what each does differently is in its `dialect` (see `vendors`).
"""

from __future__ import annotations

import base64
import json
import math
import re
import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import orjson

from ..answers import Json, Status, event, events
from ..content import (
    Image,
    Message,
    Question,
    Said,
    Upload,
    heard_in,
    image_at,
    packed,
    quantised,
    seconds_of,
    similarity,
    speech_of,
    text_in,
    tokens,
)
from ..serving import Handler, Serving, bearer, identifier, pieces

credential = bearer
_ROLES: Mapping[str, Any] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}

# ------------------------------------------------------------------------------------------------------------------- chat


def chat(serving: Serving) -> Status:
    body = serving.body
    refused = _refused(serving) or _refused_chat(serving)
    if refused is not None:
        return refused
    said = serving.say(_question(body))
    same = {"id": f"chatcmpl-{serving.request.number}", "created": int(time.time()), "model": body["model"]}
    if body.get("stream"):
        return events(_stream(serving, said, same))
    choices = [_choice(serving, said, index) for index in range(body.get("n") or 1)]
    more = {"x_groq": {"id": f"req_{identifier(serving)}"}} if serving.vendor.dialect.x_groq else {}
    return Json({**same, "object": "chat.completion", "choices": choices, "usage": _usage(serving, said), **more})


def _question(body: Mapping[str, Any]) -> Question:
    tools = {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in body.get("tools") or ()}
    form = body.get("response_format") or {}
    schemas = {"json_schema": form.get("json_schema", {}).get("schema", {}), "json_object": {"type": "object"}}
    choice = body.get("tool_choice")
    forced = choice["function"]["name"] if isinstance(choice, dict) else {"required": "*", "any": "*"}.get(choice or "")
    return Question(
        tuple(_message(message) for message in body["messages"]),
        {} if choice == "none" else tools,
        forced,
        body.get("parallel_tool_calls") is False,
        schemas.get(form.get("type", "")),
        body.get("max_completion_tokens") or body.get("max_tokens"),
    )


def _message(message: dict[str, Any]) -> Message:
    content = message.get("content") or ""
    parts = content if isinstance(content, list) else []
    images = tuple(_image(part["image_url"]) for part in parts if part["type"] == "image_url")
    return Message(_ROLES[message["role"]], text_in(content), images)


def _image(part: Any) -> Image:
    return image_at(part if isinstance(part, str) else part["url"])


def _choice(serving: Serving, said: Said, index: int) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": said.text}
    if said.calls:
        message = {"role": "assistant", "content": None, "tool_calls": _tool_calls(serving, said)}
    if said.reason == "refusal" and serving.vendor.dialect.refusal_member:
        message = {"role": "assistant", "content": None, "refusal": said.text}
    choice = {"index": index, "message": message, "finish_reason": _reason(serving, said)}
    return {**choice, "logprobs": _logprobs(serving.body, said)} if serving.body.get("logprobs") else choice


def _reason(serving: Serving, said: Said) -> str:
    if said.reason == "refusal":
        return serving.vendor.dialect.refusal
    return "content_filter" if said.reason == "filter" else said.reason


def _tool_calls(serving: Serving, said: Said) -> list[dict[str, Any]]:
    short = serving.vendor.dialect.short_call_ids  # Mistral's have nine letters
    calls = []
    for index, call in enumerate(said.calls):
        name = f"{serving.request.number:07x}{index:02x}" if short else f"call_{identifier(serving)}{index}"
        function = {"name": call.name, "arguments": orjson.dumps(call.arguments).decode()}
        calls.append({"id": name, "type": "function", "function": function})
    return calls


def _usage(serving: Serving, said: Said) -> dict[str, Any]:
    prompt = said.asked + said.cached + said.written
    usage: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": said.answered, "total_tokens": prompt + said.answered}
    details = {"cached_tokens": said.cached, **({"cache_write_tokens": said.written} if said.written else {})}
    return {**usage, "prompt_tokens_details": details, **serving.vendor.dialect.usage}


def _logprobs(body: Mapping[str, Any], said: Said) -> dict[str, Any]:
    """Nine tenths for each word of the answer; the alternatives asked for share the rest."""
    others = body.get("top_logprobs") or 0
    content = []
    for word in _words(said.text):
        told = [(word, 0.9), *((f"other{rank}", 0.1 / max(1, others - 1)) for rank in range(1, others))]
        first, *_ = top = [{"token": token, "logprob": math.log(share), "bytes": list(token.encode())} for token, share in told]
        content.append({**first, "top_logprobs": top if others else []})
    return {"content": content, "refusal": None}


def _words(text: str) -> list[str]:
    return re.findall(r"\s*\S+|\s+$", text)


def _stream(serving: Serving, said: Said, same: dict[str, Any]) -> Iterable[bytes]:
    body, dialect = serving.body, serving.vendor.dialect
    deltas = list(_deltas(serving, said))
    reasons = [None] * (len(deltas) - 1) + [_reason(serving, said)]
    chunks: list[dict[str, Any]] = []
    for (delta, logprobs), reason in zip(deltas, reasons, strict=True):
        more = {"logprobs": logprobs} if body.get("logprobs") else {}
        chunks.append({"choices": [{"index": 0, "delta": delta, "finish_reason": reason, **more}]})
    usage = _usage(serving, said)
    wanted = bool((body.get("stream_options") or {}).get("include_usage"))
    if dialect.usage_in_last_chunk == "always" or (wanted and dialect.usage_in_last_chunk):
        chunks[-1]["usage"] = usage
    elif wanted:
        chunks = [*({**chunk, "usage": None} for chunk in chunks), {"choices": [], "usage": usage}]
    if dialect.x_groq:
        name = f"req_{identifier(serving)}"
        chunks[0]["x_groq"] = {"id": name}
        chunks[-1]["x_groq"] = {"id": name, "usage": usage}
    for chunk in chunks:
        yield event({**same, "object": "chat.completion.chunk", **chunk})
    yield event(b"[DONE]")


def _deltas(serving: Serving, said: Said) -> Iterable[tuple[dict[str, Any], Any]]:
    yield {"role": "assistant", "content": "" if not said.calls else None}, None
    if said.reason == "refusal" and serving.vendor.dialect.refusal_member:
        for piece in pieces(said.text):
            yield {"refusal": piece}, None
    elif serving.body.get("logprobs"):
        for word, logprob in zip(_words(said.text), _logprobs(serving.body, said)["content"], strict=True):
            yield {"content": word}, {"content": [logprob], "refusal": None}
    else:
        for piece in pieces(said.text):
            yield {"content": piece}, None
    for index, call in enumerate(_tool_calls(serving, said)):
        if serving.vendor.dialect.whole_calls:  # some stream no part of a call
            yield {"tool_calls": [{"index": index, **call}]}, None
            continue
        arguments = call["function"]["arguments"]
        yield {"tool_calls": [{"index": index, **call, "function": {**call["function"], "arguments": ""}}]}, None
        for piece in pieces(arguments):
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}, None
    yield {}, None


# ------------------------------------------------------------------------------------------------------------- validation

_REASONING = re.compile(r"o\d|gpt-5")


def _refused(serving: Serving) -> Status | None:
    """What the vendor refuses before it reads on: members that it does not know."""
    dialect = serving.vendor.dialect
    known = dialect.members.get(serving.path)
    if known is None or dialect.unknown_member is None:
        return None
    unknown = next((name for name in serving.body if name not in known), None)
    return None if unknown is None else dialect.unknown_member(unknown)


def _refused_chat(serving: Serving) -> Status | None:
    body, voice, dialect = serving.body, serving.vendor.voice, serving.vendor.dialect
    if dialect.no_max_tokens is not None and _REASONING.match(body["model"]) and "max_tokens" in body:
        return dialect.no_max_tokens
    for name in dialect.unsupported:
        if body.get(name):
            return voice.invalid(f"`{name}` is not supported with this model")
    if problem := _orphan(body["messages"]):
        return voice.invalid(problem, param="messages")
    form = body.get("response_format") or {}
    wants_json = form.get("type") == "json_object" and dialect.json_word
    if wants_json and "json" not in json.dumps(body["messages"]).lower():
        advice = "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'."
        return voice.invalid(advice, param="messages")
    wanted = form.get("json_schema") or {}
    if dialect.strict_schemas and wanted.get("strict") and (problem := _loose(wanted["schema"])):
        return voice.invalid(f"Invalid schema for response_format '{wanted['name']}': {problem}", param="response_format")
    return None


def _orphan(messages: list[dict[str, Any]]) -> str | None:
    """What is wrong with the results of tools, if anything: one without its call, or calls without all of their results."""
    open_calls: set[str] = set()
    for index, message in enumerate(messages):
        if message["role"] != "tool" and open_calls:
            return (
                "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. The following "
                f"tool_call_ids did not have response messages: {', '.join(sorted(open_calls))}"
            )
        if message["role"] != "tool":
            open_calls = {call["id"] for call in message.get("tool_calls") or ()}
        elif message["tool_call_id"] in open_calls:
            open_calls.discard(message["tool_call_id"])
        else:
            where = f"messages.[{index}].role"
            return f"Invalid parameter: messages with role 'tool' must be a response to a preceeding message with 'tool_calls'. ({where})"
    return None


def _loose(schema: Any, where: tuple[str, ...] = ()) -> str | None:
    """Why OpenAI's strict mode refuses a schema, or None."""
    if isinstance(schema, list):
        return next(filter(None, (_loose(part, where) for part in schema)), None)
    if not isinstance(schema, dict):
        return None
    properties = schema.get("properties")
    if isinstance(properties, dict) and schema.get("type") == "object":
        if schema.get("additionalProperties") is not False:
            return f"In context={where}, 'additionalProperties' is required to be supplied and to be false."
        if missing := [name for name in properties if name not in schema.get("required", ())]:
            return (
                f"In context={where}, 'required' is required to be supplied and to be an array including every key in properties. "
                f"Missing '{missing[0]}'."
            )
    return next(filter(None, (_loose(part, (*where, name)) for name, part in schema.items())), None)


# ------------------------------------------------------------------------------------------------------ vectors and ranks


def embeddings(serving: Serving) -> Status:
    body, texts, dialect = serving.body, serving.request.texts, serving.vendor.dialect
    refused = _refused(serving)
    if refused is not None:
        return refused
    if len(texts) > dialect.most_texts and dialect.too_many_texts is not None:
        return dialect.too_many_texts
    if not 0 < len(texts) <= dialect.most_texts or "" in texts:
        where = "https://platform.openai.com/docs/api-reference"
        return serving.vendor.voice.invalid(f"'$.input' is invalid. Please check the API reference: {where}.")
    size = body.get("dimensions") or body.get("output_dimension")
    kind = body.get("output_dtype") or "float"
    in_base64 = body.get("encoding_format") == "base64"
    items = serving.embedded(texts, size)
    for item in items:
        if isinstance(vector := item["embedding"], np.ndarray):
            item["embedding"] = packed(vector) if in_base64 else vector.tolist() if kind == "float" else quantised(vector, kind)
    usage = dict.fromkeys(("prompt_tokens", "total_tokens"), tokens(*texts))
    more = {"id": identifier(serving)} if dialect.embeddings_id else {}
    return Json({"object": "list", "data": items, "model": body["model"], "usage": usage, **more})


def rerank(serving: Serving) -> Status:
    """Score a document by the words it shares with the query, of all the words that the two have."""
    body, texts = serving.body, serving.request.texts
    results: list[dict[str, Any]] = []
    for index, text in enumerate(texts):
        document = {"document": {"text": text}} if body.get("return_documents") else {}
        results.append({"index": index, "relevance_score": similarity(body["query"], text), **document})
    results = sorted(results, key=lambda result: -result["relevance_score"])[: body.get("top_n")]
    usage = {"total_tokens": tokens(body["query"], *texts)}
    return Json({"id": f"rerank-{serving.request.number}", "model": body["model"], "results": results, "usage": usage})


def models(serving: Serving) -> Status:
    more = serving.vendor.dialect.model
    data = [{"id": name, "object": "model", "created": 0, "owned_by": "loopback", **more} for name in serving.server.models]
    return Json({"object": "list", "data": data})


# ------------------------------------------------------------------------------------------------------------------ audio


def transcriptions(serving: Serving) -> Status:
    form = serving.body
    file, model = form.get("file"), form["model"]
    if not isinstance(file, Upload):
        return serving.vendor.voice.invalid("[{'type': 'missing', 'loc': ('body', 'file'), 'msg': 'Field required', 'input': None}]")
    text, seconds = heard_in(file.name, len(file.data), model), seconds_of(file.data)
    if serving.said is not None:
        text = serving.said.text
    if serving.vendor.dialect.audio == "mistral":
        return Json({"model": model, "text": text, "language": form.get("language"), "segments": [], "usage": _heard(text, seconds)})
    kind = form.get("response_format", "json")
    if kind == "text":
        return Status(200, f"{text}\n", {"content-type": "text/plain; charset=utf-8"})
    usage = {"type": "duration", "seconds": math.ceil(seconds)}
    if "transcribe" in model:
        usage = {"type": "tokens", **_audio_tokens(text, seconds)}
    if kind != "verbose_json":
        return Json({"text": text, "usage": usage})
    verbose: dict[str, Any] = {"task": "transcribe", "language": form.get("language", "english"), "duration": seconds, "text": text}
    granularities = form.get("timestamp_granularities[]", "segment")
    if "word" in granularities:
        verbose["words"] = _words_in_time(text, seconds)
    if "segment" in granularities:
        verbose["segments"] = [_segment(text, seconds)]
    return Json({**verbose, "usage": usage})


def _audio_tokens(text: str, seconds: float) -> dict[str, Any]:
    audio, output = math.ceil(10 * seconds), tokens(text)
    details = {"text_tokens": 0, "audio_tokens": audio}
    return {"input_tokens": audio, "input_token_details": details, "output_tokens": output, "total_tokens": audio + output}


def _heard(text: str, seconds: float) -> dict[str, Any]:
    output = tokens(text)
    return {"prompt_audio_seconds": math.ceil(seconds), "prompt_tokens": 4, "completion_tokens": output, "total_tokens": 4 + output}


def _words_in_time(text: str, seconds: float) -> list[dict[str, Any]]:
    words = text.split()
    each = seconds / len(words) if words else 0
    return [{"word": word, "start": at * each, "end": (at + 1) * each} for at, word in enumerate(words)]


def _segment(text: str, seconds: float) -> dict[str, Any]:
    sure = {"temperature": 0.0, "avg_logprob": -0.1, "compression_ratio": 1.0, "no_speech_prob": 0.0}
    return {"id": 0, "seek": 0, "start": 0.0, "end": seconds, "text": text, "tokens": [], **sure}


_AUDIO = {"mp3": "audio/mpeg", "wav": "audio/wav", "opus": "audio/ogg", "flac": "audio/flac", "aac": "audio/aac", "pcm": "audio/pcm"}


def speech(serving: Serving) -> Status:
    body = serving.body
    kind = body.get("response_format") or serving.vendor.dialect.speech
    recording = speech_of(body["input"], str(body.get("voice") or body.get("voice_id")), kind)
    if serving.vendor.dialect.audio == "mistral":
        return Json({"audio_data": base64.b64encode(recording).decode()})
    return Status(200, recording, {"content-type": _AUDIO[kind]})


ROUTES: Mapping[tuple[str, str], Handler] = {
    ("POST", r"/chat/completions"): chat,
    ("POST", r"/embeddings"): embeddings,
    ("POST", r"/rerank"): rerank,
    ("GET", r"/models"): models,
    ("POST", r"/audio/transcriptions"): transcriptions,
    ("POST", r"/audio/speech"): speech,
}
