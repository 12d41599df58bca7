"""Anthropic's format: messages (https://docs.claude.com/en/api/messages, and anthropic 2.11, seen 2026-11-21)."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from ..answers import Json, Status, event, events
from ..content import Image, Message, Question, Said, text_in
from ..serving import Handler, Serving, bearer, identifier, pieces

_MEMBERS = frozenset(
    "cache_control container context_management diagnostics inference_geo max_tokens mcp_servers messages metadata model output_config "
    "service_tier speed stop_sequences stream system temperature thinking tool_choice tools top_k top_p user_profile_id".split()
)


def credential(headers: Mapping[str, str]) -> str | None:
    return headers.get("x-api-key") or bearer(headers)


def messages(serving: Serving) -> Status:
    refused = _refused(serving, ("model", "max_tokens", "messages"))
    if refused is not None:
        return refused
    said = serving.say(_question(serving.body))
    if serving.body.get("stream"):
        return events(_stream(serving, said))
    return Json({**_message(serving), "content": _blocks(serving, said), **_stopped(said), "usage": _usage(said, said.answered)})


def count_tokens(serving: Serving) -> Status:
    refused = _refused(serving, ("model", "messages"))
    if refused is not None:
        return refused
    return Json({"input_tokens": serving.say(_question(serving.body)).asked})


def models(serving: Serving) -> Status:
    made = "2026-01-01T00:00:00Z"
    data = [{"type": "model", "id": name, "display_name": name, "created_at": made} for name in serving.server.models]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return Json({"data": data, "has_more": False, **ends})


# ---------------------------------------------------------------------------------------------------------------- reading


def _refused(serving: Serving, required: tuple[str, ...]) -> Status | None:
    body, invalid = serving.body, serving.vendor.voice.invalid
    if "anthropic-version" not in serving.request.headers:
        return invalid("header is required", param="anthropic-version")
    for name in required:
        if name not in body:
            return invalid("Field required", param=name)
    if unknown := next((name for name in body if name not in _MEMBERS), None):
        return invalid("Extra inputs are not permitted", param=unknown)
    for index, message in enumerate(body["messages"]):
        if message["role"] not in ("user", "assistant"):
            return invalid(f"Unexpected role \"{message['role']}\". The Messages API accepts a top-level `system` parameter, not "
                           f"\"{message['role']}\" as an input message role.", param="messages")  # fmt: skip
        if not message["content"] and index < len(body["messages"]) - 1:
            return invalid("all messages must have non-empty content except for the optional final assistant message",
                           param=f"messages.{index}")  # fmt: skip
        if any(block.get("text") == "" for block in _list(message["content"])):
            return invalid("text content blocks must be non-empty", param="messages")
    if problem := _orphan(body["messages"]):
        return invalid(problem)
    form = (body.get("output_config") or {}).get("format")
    if form and _open_object(form["schema"]):
        return invalid("For 'object' type, 'additionalProperties' must be explicitly set to false", param="output_config.format.schema")
    return None


def _orphan(messages: list[dict[str, Any]]) -> str | None:
    """What is wrong with the results of tools, if anything: one without its call, or calls without all of their results."""
    calls: list[str] = []
    for index, message in enumerate(messages):
        blocks = _list(message["content"])
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        for name in results:
            if name not in calls:
                return (
                    f"messages.{index}.content.0: unexpected `tool_use_id` found in `tool_result` blocks: {name}. Each `tool_result` block "
                    "must have a corresponding `tool_use` block in the previous message."
                )
        if missing := [name for name in calls if name not in results]:
            return (
                f"messages.{index - 1}: `tool_use` ids were found without `tool_result` blocks immediately after: {', '.join(missing)}. "
                "Each `tool_use` block must have a corresponding `tool_result` block in the next message."
            )
        calls = [block["id"] for block in blocks if block["type"] == "tool_use"]
    return None


def _list(content: Any) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _open_object(schema: Any) -> bool:
    """Whether some object of a schema allows more than it names, which structured outputs refuse."""
    if isinstance(schema, list):
        return any(map(_open_object, schema))
    if not isinstance(schema, dict):
        return False
    if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
        return True
    return any(map(_open_object, schema.values()))


def _question(body: Mapping[str, Any]) -> Question:
    system = text_in(body.get("system"))
    heard: list[Message] = [Message("system", system)] if system else []
    for message in body["messages"]:
        heard += _heard(message)
    choice = body.get("tool_choice") or {}
    form = (body.get("output_config") or {}).get("format") or {}
    tools = {tool["name"]: tool.get("input_schema") or {} for tool in body.get("tools") or ()}
    return Question(
        tuple(heard),
        {} if choice.get("type") == "none" else tools,
        {"any": "*", "tool": choice.get("name")}.get(choice.get("type", "")),
        bool(choice.get("disable_parallel_tool_use")),
        form.get("schema"),
        body.get("max_tokens"),
    )


def _heard(message: Mapping[str, Any]) -> Iterable[Message]:
    blocks = _list(message["content"])
    for block in blocks:
        if block["type"] == "tool_result":
            yield Message("tool", text_in(block.get("content")))
    rest = [block for block in blocks if block["type"] != "tool_result"]
    if rest:
        images = tuple(_image(block["source"]) for block in rest if block["type"] == "image")
        yield Message(message["role"], text_in(rest), images)


def _image(source: Mapping[str, Any]) -> Image:
    if source["type"] == "url":
        return Image(url=source["url"])
    return Image(source["media_type"], base64.b64decode(source["data"], validate=True))


# ---------------------------------------------------------------------------------------------------------------- writing


def _message(serving: Serving) -> dict[str, Any]:
    return {"id": f"msg_{identifier(serving)}", "type": "message", "role": "assistant", "model": serving.body["model"]}


def _blocks(serving: Serving, said: Said) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = [{"type": "text", "text": said.text}] if said.text else []
    for index, call in enumerate(said.calls):
        blocks.append({"type": "tool_use", "id": f"toolu_{identifier(serving)}{index}", "name": call.name, "input": call.arguments})
    return blocks


def _stopped(said: Said) -> dict[str, Any]:
    reasons = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "refusal": "refusal", "filter": "refusal"}
    return {"stop_reason": reasons[said.reason], "stop_sequence": None}


def _usage(said: Said, output: int) -> dict[str, Any]:
    cached = {"cache_creation_input_tokens": said.written, "cache_read_input_tokens": said.cached}
    return {"input_tokens": said.asked, **cached, "output_tokens": output, "service_tier": "standard"}


def _stream(serving: Serving, said: Said) -> Iterable[bytes]:
    start = {**_message(serving), "content": [], "stop_reason": None, "stop_sequence": None, "usage": _usage(said, 1)}
    yield _event({"type": "message_start", "message": start})
    for index, block in enumerate(_blocks(serving, said)):
        is_text = block["type"] == "text"
        empty = {**block, "text": ""} if is_text else {**block, "input": {}}
        yield _event({"type": "content_block_start", "index": index, "content_block": empty})
        if index == 0:
            yield _event({"type": "ping"})
        for piece in pieces(block["text"] if is_text else orjson.dumps(block["input"]).decode()):
            delta = {"type": "text_delta", "text": piece} if is_text else {"type": "input_json_delta", "partial_json": piece}
            yield _event({"type": "content_block_delta", "index": index, "delta": delta})
        yield _event({"type": "content_block_stop", "index": index})
    usage = {name: count for name, count in _usage(said, said.answered).items() if name != "service_tier"}
    yield _event({"type": "message_delta", "delta": _stopped(said), "usage": usage})
    yield _event({"type": "message_stop"})


def _event(data: dict[str, Any]) -> bytes:
    return event(data, data["type"])


ROUTES: Mapping[tuple[str, str], Handler] = {
    ("POST", r"/v1/messages"): messages,
    ("POST", r"/v1/messages/count_tokens"): count_tokens,
    ("GET", r"/v1/models"): models,
}
