"""Gemini's own format, in v1 and v1beta, as google-genai 3.4 speaks it (seen 2026-11-21)."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any, Literal
from urllib.parse import parse_qs

import orjson

from ..answers import Json, Status, event, events
from ..content import Image, Message, Question, Said, text_in
from ..errors.gemini import TOO_MANY_INPUTS
from ..serving import Handler, Serving, identifier, pieces

_MOST_TEXTS = 100


def credential(headers: Mapping[str, str]) -> str | None:
    # An upload goes to an address that was made for it, and the SDK sends no key there.
    return headers.get("x-goog-api-key") or headers.get("x-goog-upload-offset")


def generate(serving: Serving) -> Status:
    return Json(_response(serving, serving.say(_question(serving.body))))


def stream(serving: Serving) -> Status:
    said = serving.say(_question(serving.body))
    if parse_qs(serving.request.query).get("alt") != ["sse"]:
        return Json(list(_chunks(serving, said)))
    return events(event(chunk) for chunk in _chunks(serving, said))


def count_tokens(serving: Serving) -> Status:
    total = serving.say(_question(serving.body)).asked
    return Json({"totalTokens": total, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": total}]})


def embed(serving: Serving) -> Status:
    (item,) = _vectors(serving, [serving.body])
    return Json({"embedding": item})


def batch_embed(serving: Serving) -> Status:
    requests = serving.body["requests"]
    if len(requests) > _MOST_TEXTS:
        return TOO_MANY_INPUTS
    return Json({"embeddings": _vectors(serving, requests)})


def models(serving: Serving) -> Status:
    methods = ["generateContent", "countTokens", "embedContent"]
    listed = [{"name": f"models/{name}", "displayName": name, "supportedGenerationMethods": methods} for name in serving.server.models]
    return Json({"models": listed})


# ---------------------------------------------------------------------------------------------------------------- reading


def _get(part: Mapping[str, Any], name: str) -> Any:
    """A member by its camelCase name, or by the snake_case that protobuf's JSON takes as well."""
    return part.get(name, part.get("".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)))


def _question(body: Mapping[str, Any]) -> Question:
    system = _get(body, "systemInstruction")
    heard = [Message("system", text_in(system["parts"]))] if system else []
    for content in body["contents"]:
        heard += _heard(content)
    config = _get(body, "generationConfig") or {}
    calling = _get(_get(body, "toolConfig") or {}, "functionCallingConfig") or {}
    allowed = _get(calling, "allowedFunctionNames") or []
    tools = {}
    for tool in body.get("tools") or ():
        for function in _get(tool, "functionDeclarations") or ():
            tools[function["name"]] = _get(function, "parametersJsonSchema") or function.get("parameters") or {}
    mode = calling.get("mode")
    forced = None if mode != "ANY" else allowed[0] if len(allowed) == 1 else "*"
    tools = {name: schema for name, schema in tools.items() if not allowed or name in allowed}
    return Question(tuple(heard), {} if mode == "NONE" else tools, forced, False, _schema(config), _get(config, "maxOutputTokens"))


def _schema(config: Mapping[str, Any]) -> dict[str, Any] | None:
    if _get(config, "responseMimeType") != "application/json":
        return None
    schema: dict[str, Any] = _get(config, "responseJsonSchema") or _get(config, "responseSchema") or {"type": "object"}
    return schema


def _heard(content: Mapping[str, Any]) -> Iterable[Message]:
    results = [_get(part, "functionResponse") for part in content["parts"] if _get(part, "functionResponse")]
    for result in results:
        yield Message("tool", _result(result["response"]))
    if not results:
        role: Literal["user", "assistant"] = "assistant" if content.get("role") == "model" else "user"
        images = tuple(_image(part) for part in content["parts"] if _get(part, "inlineData") or _get(part, "fileData"))
        yield Message(role, text_in(content["parts"]), images)


def _result(response: Mapping[str, Any]) -> str:
    told = response.get("result", response.get("output", response))
    return told if isinstance(told, str) else orjson.dumps(told).decode()


def _image(part: Mapping[str, Any]) -> Image:
    given = _get(part, "inlineData")
    if given is None:
        return Image(url=_get(_get(part, "fileData"), "fileUri"))
    data = given["data"].replace("-", "+").replace("_", "/")  # protobuf's JSON takes either alphabet, and the SDK writes the URL's
    return Image(_get(given, "mimeType"), base64.b64decode(data, validate=True))


# ---------------------------------------------------------------------------------------------------------------- writing


def _response(serving: Serving, said: Said) -> dict[str, Any]:
    if said.reason == "filter":
        return {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, **_ending(serving, said)}
    return {"candidates": [_candidate(_parts(said), said)], **_ending(serving, said)}


def _candidate(parts: list[dict[str, Any]], said: Said | None) -> dict[str, Any]:
    content = {"content": {"role": "model", "parts": parts} if parts else {"role": "model"}, "index": 0}
    if said is None:
        return content
    reasons = {"stop": "STOP", "length": "MAX_TOKENS", "tool_calls": "STOP", "refusal": "SAFETY", "filter": "PROHIBITED_CONTENT"}
    return {**content, "finishReason": reasons[said.reason]}


def _parts(said: Said) -> list[dict[str, Any]]:
    calls = [{"functionCall": {"name": call.name, "args": call.arguments}} for call in said.calls]
    return calls or ([{"text": said.text}] if said.text else [])


def _ending(serving: Serving, said: Said) -> dict[str, Any]:
    prompt = said.asked + said.cached
    usage: dict[str, Any] = {"promptTokenCount": prompt, "totalTokenCount": prompt}
    if said.reason != "filter":
        usage |= {"candidatesTokenCount": said.answered, "totalTokenCount": prompt + said.answered}
    if said.cached:
        usage["cachedContentTokenCount"] = said.cached
    usage["promptTokensDetails"] = [{"modality": "TEXT", "tokenCount": prompt}]
    model = serving.path.rpartition("/")[2].partition(":")[0]
    return {"usageMetadata": usage, "modelVersion": model, "responseId": identifier(serving, 20)}


def _chunks(serving: Serving, said: Said) -> Iterable[dict[str, Any]]:
    texts = pieces(said.text)
    if said.calls or len(texts) < 2 or said.reason == "filter":
        yield _response(serving, said)
        return
    ending = _ending(serving, said)
    for text in texts[:-1]:
        yield {"candidates": [_candidate([{"text": text}], None)], **ending}
    yield {"candidates": [_candidate([{"text": texts[-1]}], said)], **ending}


def _vectors(serving: Serving, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    size = next((_get(request, "outputDimensionality") for request in requests), None)
    texts = [text_in(request["content"]["parts"]) for request in requests]
    items = serving.embedded(texts, size, indexed=False)
    return [{"values": [float(number) for number in item["embedding"]]} for item in items]


_MODEL = r"/v1(?:beta|alpha)?/models/[^/:]+"
ROUTES: Mapping[tuple[str, str], Handler] = {
    ("POST", rf"{_MODEL}:generateContent"): generate,
    ("POST", rf"{_MODEL}:streamGenerateContent"): stream,
    ("POST", rf"{_MODEL}:countTokens"): count_tokens,
    ("POST", rf"{_MODEL}:embedContent"): embed,
    ("POST", rf"{_MODEL}:batchEmbedContents"): batch_embed,
    ("GET", r"/v1(?:beta|alpha)?/models"): models,
}
