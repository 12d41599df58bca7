"""Cohere's format: v2 chat, embed, rerank and transcriptions, v1 classify (cohere 7.3.1 and docs.cohere.com, seen 2026-11-21)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import orjson

from ..answers import Json, Status, event, events
from ..content import Image, Message, Question, Said, Upload, heard_in, image_at, packed, quantised, similarity, text_in, tokens
from ..serving import Handler, Serving, bearer, identifier, pieces

credential = bearer
_MOST_TEXTS = 96

# ------------------------------------------------------------------------------------------------------------------- chat


def chat(serving: Serving) -> Status:
    body = serving.body
    for name in ("model", "messages"):
        if not body.get(name):
            return serving.vendor.voice.invalid(f"{name} is required" if name == "model" else "list of messages must not be empty")
    said = serving.say(_question(body))
    if body.get("stream"):
        return events(_stream(serving, said))
    end = {"finish_reason": _reason(said), "message": _message(serving, said), "usage": _usage(said)}
    logprobs = {"logprobs": [_logprob(said.text)]} if body.get("logprobs") else {}
    return Json({"id": identifier(serving), **end, **logprobs})


def _question(body: Mapping[str, Any]) -> Question:
    tools = {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in body.get("tools") or ()}
    form = body.get("response_format") or {}
    wants_json = form.get("type") == "json_object"
    choice = body.get("tool_choice")
    return Question(
        tuple(_heard(message) for message in body["messages"]),
        {} if choice == "NONE" else tools,
        "*" if choice == "REQUIRED" else None,
        False,
        (form.get("json_schema") or {"type": "object"}) if wants_json else None,
        body.get("max_tokens"),
    )


def _heard(message: Mapping[str, Any]) -> Message:
    content = message.get("content") or ""
    parts = content if isinstance(content, list) else []
    images = tuple(_image(part["image_url"]) for part in parts if part["type"] == "image_url")
    documents = [orjson.dumps(part["document"]["data"]).decode() for part in parts if part["type"] == "document"]
    return Message(message["role"], "\n".join(filter(None, [text_in(content), *documents])), images)


def _image(part: Any) -> Image:
    return image_at(part if isinstance(part, str) else part["url"])


def _message(serving: Serving, said: Said) -> dict[str, Any]:
    if said.calls:
        return {"role": "assistant", "tool_plan": "I will use the tools.", "tool_calls": _tool_calls(serving, said)}
    return {"role": "assistant", "content": [{"type": "text", "text": said.text}]}


def _tool_calls(serving: Serving, said: Said) -> list[dict[str, Any]]:
    return [
        {
            "id": f"{call.name}_{identifier(serving, 10)}{index}",
            "type": "function",
            "function": {"name": call.name, "arguments": orjson.dumps(call.arguments).decode()},
        }
        for index, call in enumerate(said.calls)
    ]


def _reason(said: Said) -> str:
    reasons = {"stop": "COMPLETE", "length": "MAX_TOKENS", "tool_calls": "TOOL_CALL", "refusal": "COMPLETE", "filter": "ERROR"}
    return reasons[said.reason]


def _usage(said: Said) -> dict[str, Any]:
    asked = said.asked + said.cached
    billed = {"input_tokens": asked, "output_tokens": said.answered}
    return {"billed_units": billed, "tokens": billed, "cached_tokens": said.cached}


def _logprob(text: str) -> dict[str, Any]:
    return {"text": text, "token_ids": [1], "logprobs": [-0.1]}


def _stream(serving: Serving, said: Said) -> Iterable[bytes]:
    start = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
    yield _event({"id": identifier(serving), "type": "message-start", "delta": {"message": start}})
    if said.calls:
        for piece in pieces("I will use the tools."):
            yield _event({"type": "tool-plan-delta", "delta": {"message": {"tool_plan": piece}}})
        for index, call in enumerate(_tool_calls(serving, said)):
            yield from _streamed_call(index, call)
    else:
        yield _event({"type": "content-start", "index": 0, "delta": {"message": {"content": {"type": "text", "text": ""}}}})
        for piece in pieces(said.text):
            more = {"logprobs": _logprob(piece)} if serving.body.get("logprobs") else {}
            yield _event({"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": piece}}}, **more})
        yield _event({"type": "content-end", "index": 0})
    yield _event({"type": "message-end", "delta": {"finish_reason": _reason(said), "usage": _usage(said)}})


def _streamed_call(index: int, call: dict[str, Any]) -> Iterable[bytes]:
    begun = {**call, "function": {**call["function"], "arguments": ""}}
    yield _event({"type": "tool-call-start", "index": index, "delta": {"message": {"tool_calls": begun}}})
    for piece in pieces(call["function"]["arguments"]):
        delta = {"message": {"tool_calls": {"function": {"arguments": piece}}}}
        yield _event({"type": "tool-call-delta", "index": index, "delta": delta})
    yield _event({"type": "tool-call-end", "index": index})


def _event(data: dict[str, Any]) -> bytes:
    return event(data, data["type"])


# ------------------------------------------------------------------------------------------- vectors, ranks, labels, audio


def embed(serving: Serving) -> Status:
    body, voice = serving.body, serving.vendor.voice
    if not body.get("input_type"):
        return voice.invalid("valid input_type must be provided with the provided model")
    if not body.get("embedding_types"):
        return voice.invalid("embedding_types must be provided")
    texts = [*(body.get("texts") or ()), *map(_described, body.get("inputs") or ()), *map(str, map(image_at, body.get("images") or ()))]
    if len(texts) > _MOST_TEXTS:
        return voice.invalid(f"total number of texts must be at most {_MOST_TEXTS} - received {len(texts)}")
    if not texts:
        return voice.invalid("at least one of texts, images or inputs must be provided")
    items = serving.embedded(texts, body.get("output_dimension"), indexed=False)
    vectors = {kind: [_coded(item["embedding"], kind) for item in items] for kind in body["embedding_types"]}
    billed = {"images": len(body["images"])} if body.get("images") else {"input_tokens": tokens(*texts), "image_tokens": 0}
    meta = {"api_version": {"version": "2"}, "billed_units": billed}
    return Json({"id": identifier(serving), "embeddings": vectors, "texts": texts, "response_type": "embeddings_by_type", "meta": meta})


def _described(given: Mapping[str, Any]) -> str:
    """What the vector of a mixed input is made of: its texts, and its pictures as an answer tells them."""
    parts = given["content"]
    return "\n".join(part["text"] if part["type"] == "text" else str(_image(part["image_url"])) for part in parts)


def _coded(vector: Any, kind: str) -> Any:
    if kind == "base64":
        return packed(vector)
    if kind == "float":
        return vector.tolist() if isinstance(vector, np.ndarray) else vector
    return quantised(vector, kind)


def rerank(serving: Serving) -> Status:
    body, texts = serving.body, serving.request.texts
    if not texts:
        return serving.vendor.voice.invalid("list of documents must not be empty")
    if not body["query"].strip():
        return serving.vendor.voice.invalid("query must not be empty or be only whitespace")
    results = [{"index": index, "relevance_score": similarity(body["query"], text)} for index, text in enumerate(texts)]
    results = sorted(results, key=lambda result: -result["relevance_score"])[: body.get("top_n")]
    # One search unit is a query with up to 100 documents (https://docs.cohere.com/docs/how-does-cohere-pricing-work, 2026-11-21).
    meta = {"api_version": {"version": "2"}, "billed_units": {"search_units": -(-len(texts) // 100)}}
    return Json({"id": identifier(serving), "results": results, "meta": meta})


def classify(serving: Serving) -> Status:
    """The label whose example shares the most words with the input; all of them share the confidence as they share the words."""
    body = serving.body
    examples = body.get("examples") or [{"text": label, "label": label} for label in ("no", "yes")]
    classified = []
    for number, text in enumerate(body["inputs"]):
        shares = {example["label"]: 0.01 for example in examples}
        for example in examples:
            shares[example["label"]] += similarity(text, example["text"])
        total = sum(shares.values())
        labels = {label: {"confidence": share / total} for label, share in shares.items()}
        best = max(shares, key=lambda label: shares[label])
        sure = labels[best]["confidence"]
        told = {"prediction": best, "predictions": [best], "confidence": sure, "confidences": [sure], "labels": labels}
        classified.append({"id": f"{number}", "input": text, **told, "classification_type": "single-label"})
    meta = {"api_version": {"version": "1"}, "billed_units": {"classifications": len(classified)}}
    return Json({"id": identifier(serving), "classifications": classified, "meta": meta})


def transcriptions(serving: Serving) -> Status:
    file = serving.body.get("file")
    if not isinstance(file, Upload) or "language" not in serving.body:
        return serving.vendor.voice.invalid("file and language are required")
    return Json({"text": heard_in(file.name, len(file.data), serving.body["model"])})


def models(serving: Serving) -> Status:
    return Json({"models": [{"name": name, "endpoints": ["chat", "embed", "rerank"]} for name in serving.server.models]})


ROUTES: Mapping[tuple[str, str], Handler] = {
    ("POST", r"/v2/chat"): chat,
    ("POST", r"/v2/embed"): embed,
    ("POST", r"/v2/rerank"): rerank,
    ("POST", r"/v2/audio/transcriptions"): transcriptions,
    ("POST", r"/v1/classify"): classify,
    ("GET", r"/v1/models"): models,
}
