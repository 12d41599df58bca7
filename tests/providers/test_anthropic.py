"""Anthropic's wire: bodies out, bodies in, events, and which branch an error body belongs to. No network but what a recorder stands for."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import anthropic
import httpx2
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmkit import errors
from llmkit.adapter import Target
from llmkit.errors import LLMError
from llmkit.operations.chat import ChatPayload, Image, Message, Said, Schema, Scored, Text, Tool, ToolCall, ToolResult
from llmkit.providers.anthropic import adapter
from llmkit.types import Allowance, Model, Provider, Reply, Request, Secret, Usage

ADAPTER = adapter()
CHAT = ADAPTER.codecs["chat"]
KEY = "sk-ant-test"


def target(base_url: str = "https://api.anthropic.com", name: str = "anthropic", output_limit: int | None = None, **quirks: Any) -> Target:
    provider = Provider(name, base_url, protocol="anthropic", quirks=quirks)
    return Target(Model(name, "claude-x", output_limit=output_limit), provider, ADAPTER, CHAT, Secret(KEY))


def asking(*messages: Message, options: dict[str, Any] | None = None, **payload: Any) -> Request:
    return Request("chat", ChatPayload(messages or (Message("user", "Hello"),), **payload), options or {})


def sent(request: Request, to: Target | None = None) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(CHAT.encode([request], to or target()))
    return body


def answer(*content: dict[str, Any], stop_reason: str = "end_turn", **more: Any) -> bytes:
    usage = {
        "input_tokens": 10,
        "cache_read_input_tokens": 4,
        "cache_creation_input_tokens": 2,
        "output_tokens": 3,
        "service_tier": "standard",
    }
    body = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x-2026", "content": list(content),
        "stop_reason": stop_reason, "stop_sequence": None, "usage": usage, **more,
    }  # fmt: skip
    return orjson.dumps(body)


def said(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def used(name: str = "look_up", /, **arguments: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": "toolu_1", "name": name, "input": arguments}


def read(body: bytes, request: Request | None = None) -> Reply | LLMError:
    (reply,) = CHAT.decode(body, [request or asking()])
    return reply


LOOK_UP = Tool("look_up", "Finds a word", {"type": "object", "properties": {"word": {"type": "string"}}})
PERSON = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}

# ---------------------------------------------------------------------------------------------------------------- address


def test_the_official_sdk_addresses_the_envelope() -> None:
    template = ADAPTER.connect(target())  # type: ignore[misc]
    assert template.url == "https://api.anthropic.com/v1/messages"
    assert template.headers["authorization"] == f"Bearer {KEY}"
    assert template.headers["anthropic-version"]
    assert template.headers["user-agent"].startswith("Anthropic/Python")
    assert not {"host", "content-length", "x-stainless-retry-count", "x-stainless-timeout"} & template.headers.keys()
    assert KEY not in repr(template)


def test_a_base_url_of_its_own_keeps_its_path() -> None:
    assert ADAPTER.connect(target("http://127.0.0.1:1/gateway", "lab")).url == "http://127.0.0.1:1/gateway/v1/messages"  # type: ignore[misc]


def test_a_server_without_a_key_gets_none() -> None:
    template = ADAPTER.connect(replace(target("http://127.0.0.1:1", "lab"), secret=None))  # type: ignore[misc]
    assert not {"authorization", "x-api-key"} & template.headers.keys()


def test_no_credential_of_the_environment_replaces_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "stray-1")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "stray-2")
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "authorization: Bearer stray-3\nX-Api-Key: stray-4")
    headers = ADAPTER.connect(target()).headers  # type: ignore[misc]
    assert headers["authorization"] == f"Bearer {KEY}"
    assert "stray" not in str(dict(headers))
    bare = ADAPTER.connect(replace(target(), secret=None)).headers  # type: ignore[misc]
    assert "stray" not in str(dict(bare))


def test_headers_of_the_environment_go_to_anthropic_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "X-Team: blue\nUser-Agent: mine")
    assert ADAPTER.connect(target()).headers["x-team"] == "blue"  # type: ignore[misc]
    elsewhere = ADAPTER.connect(target("http://127.0.0.1:1", "lab")).headers  # type: ignore[misc]
    assert "x-team" not in elsewhere
    assert elsewhere["user-agent"].startswith("Anthropic/Python")


@pytest.mark.parametrize(("is_async", "kind"), [(False, anthropic.Anthropic), (True, anthropic.AsyncAnthropic)])
def test_the_official_client_has_our_key_our_address_and_no_retries(is_async: bool, kind: type[Any]) -> None:
    made = ADAPTER.client(target("http://127.0.0.1:1", "lab"), is_async)  # type: ignore[misc]
    assert isinstance(made, kind)
    assert (made.api_key, str(made.base_url), made.max_retries) == (KEY, "http://127.0.0.1:1", 0)


def test_the_official_client_takes_nothing_of_the_environment_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "X-Team: blue\nauthorization: Bearer stray")
    line = Line()
    with ADAPTER.client(target("http://127.0.0.1:1", "lab"), False).with_options(http_client=httpx2.Client(transport=line)) as made:  # type: ignore[misc]
        made.post("/v1/messages", body={}, cast_to=object)
    assert "x-team" not in line.came[0].headers
    assert line.came[0].headers["authorization"] == f"Bearer {KEY}"


# --------------------------------------------------------------------------------------------------------------- requests


def test_system_messages_are_joined_and_a_token_limit_is_always_sent() -> None:
    request = asking(Message("system", "Be brief"), Message("system", (Text("Be kind"),)), Message("user", "Hello"))
    assert sent(request) == {
        "model": "claude-x",
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": "Hello"}],
        "system": "Be brief\n\nBe kind",
    }


@pytest.mark.parametrize(("output_limit", "expected"), [(None, 4096), (1024, 1024), (64_000, 8192)])
def test_the_token_limit_follows_the_model(output_limit: int | None, expected: int) -> None:
    assert sent(asking(), target(output_limit=output_limit))["max_tokens"] == expected


def test_options_are_members_of_the_body() -> None:
    body = sent(asking(options={"temperature": 0, "max_tokens": 9, "top_p": 0.5, "stop": "END", "logprobs": True}))
    assert (body["temperature"], body["max_tokens"], body["top_p"], body["stop_sequences"]) == (0, 9, 0.5, ["END"])
    assert not {"stop", "logprobs", "system"} & body.keys()


def test_a_seed_is_no_option_of_this_wire() -> None:
    assert CHAT.options is not None
    assert "seed" not in CHAT.options
    assert {"temperature", "max_tokens", "top_p", "stop"} <= CHAT.options


def test_equal_requests_have_equal_bytes() -> None:
    request = asking(tools=(LOOK_UP,), schema=Schema("person", PERSON), options={"temperature": 1})
    again = asking(tools=(LOOK_UP,), schema=Schema("person", dict(PERSON)), options={"temperature": 1})
    assert CHAT.encode([request], target()) == CHAT.encode([again], target())


def test_a_lone_surrogate_is_sent_as_a_replacement_character() -> None:
    assert sent(asking(Message("user", "a\ud800b")))["messages"][0]["content"] == "a\ufffdb"


def test_pictures_are_sent_as_bytes_or_as_addresses() -> None:
    parts = (Text("What is it?"), Image("image/png", b"\x89PNG"), Image(url="https://example.com/cat.png"))
    assert sent(asking(Message("user", parts)))["messages"][0]["content"] == [
        {"type": "text", "text": "What is it?"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw=="}},
        {"type": "image", "source": {"type": "url", "url": "https://example.com/cat.png"}},
    ]


def test_an_address_is_refused_where_the_provider_fetches_none() -> None:
    request = asking(Message("user", (Image(url="https://example.com/cat.png"),)))
    with pytest.raises(errors.InvalidRequest, match="addresses"):
        CHAT.encode([request], target(image_urls=False))


def test_a_part_in_the_wrong_turn_is_refused() -> None:
    with pytest.raises(errors.InvalidRequest):
        CHAT.encode([asking(Message("assistant", (Image("image/png", b"x"),)))], target())


def test_a_round_of_tools_is_calls_and_then_all_their_results_in_one_turn() -> None:
    first, second = ToolCall("functions.look_up:0", "look_up", '{"word":"a"}'), ToolCall("call_2", "look_up", "not json")
    request = asking(
        Message("user", "Hello"),
        Message("assistant", (Text(""), Text("Let me see"), first, second)),
        Message("tool", (ToolResult(first, "A"),)),
        Message("tool", (ToolResult(second, "B"),)),
        tools=(LOOK_UP,),
    )
    body = sent(request)
    assert body["messages"][1:] == [
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Let me see"},
                {"type": "tool_use", "id": "functions_look_up_0", "name": "look_up", "input": {"word": "a"}},
                {"type": "tool_use", "id": "call_2", "name": "look_up", "input": {"arguments": "not json"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "functions_look_up_0", "content": "A"},
                {"type": "tool_result", "tool_use_id": "call_2", "content": "B"},
            ],
        },
    ]
    assert body["tools"] == [{"name": "look_up", "description": "Finds a word", "input_schema": LOOK_UP.parameters}]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("", None),
        ("auto", {"type": "auto"}),
        ("none", {"type": "none"}),
        ("required", {"type": "any"}),
        ("look_up", {"type": "tool", "name": "look_up"}),
    ],
)
def test_the_choice_of_tools_has_the_vendors_words(choice: str, expected: Any) -> None:
    assert sent(asking(tools=(LOOK_UP,), tool_choice=choice)).get("tool_choice") == expected


# ------------------------------------------------------------------------------------------------------ structured answers


def test_a_schema_is_closed_and_what_the_api_cannot_read_is_said_in_words() -> None:
    schema = {
        "$defs": {"Tag": {"type": "object", "properties": {"id": {"type": "integer", "minimum": 1, "description": "A number"}}}},
        "type": "object",
        "properties": {
            "tags": {"type": "array", "items": {"$ref": "#/$defs/Tag", "title": "Tags"}, "minItems": 1, "maxItems": 3},
            "mood": {"type": "string", "enum": ["good", "bad"], "default": "good"},
            "mail": {"type": "string", "format": "email"},
            "odd": {"type": "string", "format": "isbn"},
            "either": {"oneOf": [{"type": "string"}, {"type": "null"}]},
        },
        "required": ["tags"],
        "additionalProperties": True,
    }
    body = sent(asking(schema=Schema("answer", schema)))
    assert body["output_config"] == {
        "format": {
            "type": "json_schema",
            "schema": {
                "$defs": {
                    "Tag": {
                        "type": "object",
                        "properties": {"id": {"type": "integer", "description": "A number\n\n{minimum: 1}"}},
                        "additionalProperties": False,
                    }
                },
                "type": "object",
                "properties": {
                    "tags": {"type": "array", "items": {"$ref": "#/$defs/Tag"}, "minItems": 1, "description": "{maxItems: 3}"},
                    "mood": {"enum": ["good", "bad"]},
                    "mail": {"type": "string", "format": "email"},
                    "odd": {"type": "string", "description": "{format: isbn}"},
                    "either": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                },
                "required": ["tags"],
                "additionalProperties": False,
            },
        }
    }
    assert "tools" not in body


def test_each_call_has_its_own_schema() -> None:
    one, two = Schema("a", PERSON), Schema("b", {"type": "object", "properties": {"age": {"type": "integer"}}})
    names = [list(sent(asking(schema=schema))["output_config"]["format"]["schema"]["properties"]) for schema in (one, two, one)]
    assert names == [["name"], ["age"], ["name"]]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "additionalProperties": {"type": "integer"}},
        {"type": "object", "properties": {"any": {"title": "Any"}}},
        {"type": "object", "properties": {"bag": {"anyOf": [{"type": "null"}, {"type": "object"}]}}},
        {"$ref": "#/$defs/Node", "$defs": {"Node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}}}},
        {"$ref": "https://example.com/schema"},
    ],
    ids=["a map", "anything", "a bag", "recursive", "elsewhere"],
)
def test_a_schema_that_cannot_be_closed_is_asked_for_by_a_tool(schema: dict[str, Any]) -> None:
    body = sent(asking(schema=Schema("answer", schema)))
    assert "output_config" not in body
    assert body["tools"] == [{"name": "answer", "description": "Gives the answer.", "input_schema": {"type": "object", **schema}}]
    assert body["tool_choice"] == {"type": "tool", "name": "answer", "disable_parallel_tool_use": True}


def test_a_definition_that_is_used_twice_is_not_recursion() -> None:
    schema = {
        "$defs": {"Tag": PERSON},
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/Tag"}, "b": {"$ref": "#/$defs/Tag"}},
    }
    assert "output_config" in sent(asking(schema=Schema("answer", schema)))


def test_a_provider_without_schemas_is_asked_by_a_tool_and_its_input_is_the_answer() -> None:
    request = asking(schema=Schema("person", PERSON))
    body = sent(request, target(structured="tool"))
    assert body["tool_choice"] == {"type": "tool", "name": "person", "disable_parallel_tool_use": True}
    assert body["tools"][0]["input_schema"] == PERSON
    reply = read(answer(used("person", name="Ada"), stop_reason="tool_use"), request)
    assert isinstance(reply, Reply)
    assert (json.loads(reply.value), reply.finish) == ({"name": "Ada"}, "stop")


def test_beside_other_tools_the_model_chooses_when_to_answer() -> None:
    request = asking(schema=Schema("person", PERSON), tools=(LOOK_UP,))
    body = sent(request, target(structured="tool"))
    assert [tool["name"] for tool in body["tools"]] == ["look_up", "person"]
    assert body["tool_choice"] == {"type": "any"}
    reply = read(answer(used("person", name="Ada"), stop_reason="tool_use"), request)
    assert isinstance(reply, Reply)
    assert reply.value == Said('{"name":"Ada"}')


def test_any_json_object_is_asked_for_in_words() -> None:
    body = sent(asking(schema=Schema("answer", None)))
    assert "JSON object" in body["system"]
    assert "output_config" not in body


# ----------------------------------------------------------------------------------------------------------------- replies


def test_text_blocks_are_joined_and_thinking_is_left_out() -> None:
    body = answer({"type": "thinking", "thinking": "Hm", "signature": "x"}, said("Grüße "), said("👋"))
    assert read(body) == Reply("Grüße 👋", Usage(16, 4, 3, 1, cache_write=2), "claude-x-2026", "stop", "msg_1")


@pytest.mark.parametrize(
    ("stop_reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("pause_turn", "pause_turn"),
    ],
)
def test_why_it_stopped_is_told_in_the_words_of_the_house(stop_reason: str, finish: str) -> None:
    reply = read(answer(said("Hi"), stop_reason=stop_reason))
    assert isinstance(reply, Reply)
    assert reply.finish == finish


@pytest.mark.parametrize(
    ("body", "kind", "error"),
    [
        (answer(stop_reason="refusal", stop_details={"type": "refusal", "category": "bio"}), "refusal", errors.ContentBlocked),
        (answer(said("half an ans"), stop_reason="refusal"), "refusal", errors.ContentBlocked),
        (answer(), "empty", errors.BadOutput),
        (answer(used()), "empty", errors.BadOutput),
        (answer(stop_reason="max_tokens"), "truncated", errors.Truncated),
        (answer(stop_reason="model_context_window_exceeded"), "context_too_long", errors.ContextTooLong),
    ],
)  # fmt: skip
def test_an_answer_that_is_none_is_a_row_error_with_its_usage(body: bytes, kind: str, error: type[LLMError]) -> None:
    found = read(body)
    assert type(found) is error
    assert (found.kind, found.usage.output) == (kind, 3)


def test_calls_of_tools_come_with_what_was_said() -> None:
    reply = read(answer(said("Let me see"), used(word="a"), stop_reason="tool_use"), asking(tools=(LOOK_UP,)))
    assert isinstance(reply, Reply)
    assert reply.value == Said("Let me see", (ToolCall("toolu_1", "look_up", '{"word":"a"}'),))
    assert reply.finish == "tool_calls"


def test_a_call_without_words_is_an_answer() -> None:
    reply = read(answer(used(), stop_reason="tool_use"), asking(tools=(LOOK_UP,)))
    assert isinstance(reply, Reply)
    assert reply.value == Said("", (ToolCall("toolu_1", "look_up", "{}"),))


def test_likelihoods_that_were_asked_for_are_not_told_here() -> None:
    reply = read(answer(said("Hi")), asking(options={"logprobs": True}))
    assert isinstance(reply, Reply)
    assert reply.value == Scored("Hi")


def test_an_answer_that_does_not_say_what_it_cost_is_counted_as_such() -> None:
    reply = read(answer(said("Hi"), usage=None))
    assert isinstance(reply, Reply)
    assert reply.usage == Usage(requests=1, unreported=1)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"content":null}', answer({"type": "text", "text": 7})])
def test_a_body_that_is_no_answer_is_the_servers_fault(body: bytes) -> None:
    with pytest.raises(errors.ServerFault) as caught:
        read(body)
    assert caught.value.kind == "bad_response"


def test_an_error_that_came_as_a_success_is_raised_as_what_it_is() -> None:
    with pytest.raises(errors.Overloaded):
        read(error_body("overloaded_error", "Overloaded"))


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)
KINDS = st.sampled_from(["text", "tool_use", "thinking"])
BLOCKS = st.lists(st.fixed_dictionaries({"type": KINDS | JSON}, optional=dict.fromkeys(("text", "input", "id", "name"), JSON)) | JSON)
MEMBERS = dict.fromkeys(("usage", "stop_reason", "error", "model", "stop_details"), JSON)
ANSWERS = st.fixed_dictionaries({}, optional={"content": BLOCKS | JSON, **MEMBERS})

#: What the engine takes for the server's fault when a codec raises it.
TRIPPED = (LLMError, TypeError, ValueError, LookupError, AttributeError, OverflowError)


@settings(max_examples=150, deadline=None)
@given(body=ANSWERS | JSON, tools=st.booleans())
def test_no_json_stops_a_run(body: Any, tools: bool) -> None:
    request = asking(tools=(LOOK_UP,) if tools else ())
    try:
        (reply,) = CHAT.decode(json.dumps(body).encode(), [request])
    except TRIPPED:
        return
    assert isinstance(reply, LLMError) or reply.value


# -------------------------------------------------------------------------------------------------------------- streaming


def event(kind: str, **members: Any) -> Any:
    assert CHAT.delta is not None
    return CHAT.delta(kind, orjson.dumps({"type": kind, **members}))


def test_a_stream_gives_text_usage_and_the_end() -> None:
    assert CHAT.streamed is not None
    assert CHAT.streamed(target()) == {"stream": True}
    start = {"model": "claude-x-2026", "content": [], "usage": {"input_tokens": 10, "cache_read_input_tokens": 4, "output_tokens": 1}}
    deltas = [
        event("message_start", message=start),
        event("content_block_start", index=0, content_block={"type": "thinking", "thinking": "", "signature": ""}),
        event("ping"),
        event("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "Hm"}),
        event("content_block_delta", index=0, delta={"type": "signature_delta", "signature": "abc"}),
        event("content_block_stop", index=0),
        event("content_block_start", index=1, content_block={"type": "text", "text": ""}),
        event("content_block_delta", index=1, delta={"type": "text_delta", "text": "Grüße "}),
        event("content_block_delta", index=1, delta={"type": "text_delta", "text": "👋"}),
        event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": 12}),
        event("message_stop"),
        CHAT.delta("", b"[DONE]") if CHAT.delta else None,
    ]
    known = [delta for delta in deltas if delta is not None]
    assert "".join(delta.text for delta in known) == "Grüße 👋"
    assert known[0].usage == Usage(14, 4, 1, 1)
    assert known[0].model == "claude-x-2026"
    assert [delta.finish for delta in known if delta.finish] == ["stop"]
    assert known[-1].usage == Usage(output=12, requests=1)


def test_a_structured_answer_by_tool_streams_as_its_json() -> None:
    assert event("content_block_delta", index=0, delta={"type": "input_json_delta", "partial_json": '{"na'}).text == '{"na'


def test_a_refusal_ends_a_stream() -> None:
    with pytest.raises(errors.ContentBlocked) as caught:
        event("message_delta", delta={"stop_reason": "refusal"}, usage={"output_tokens": 2})
    assert (caught.value.kind, caught.value.usage.output) == ("refusal", 2)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("overloaded_error", errors.Overloaded),
        ("rate_limit_error", errors.RateLimited),
        ("api_error", errors.ServerFault),
        ("timeout_error", errors.TimedOut),
        ("authentication_error", errors.KeyRejected),
        ("invalid_request_error", errors.InvalidRequest),
        ("something_new", errors.ServerFault),
    ],
)
def test_an_error_event_is_raised_as_what_it_is(kind: str, error: type[LLMError]) -> None:
    with pytest.raises(error) as caught:
        event("error", error={"type": kind, "message": "Sorry"})
    assert type(caught.value) is error


# ----------------------------------------------------------------------------------------------------------------- errors


def error_body(kind: str, message: str, **more: Any) -> bytes:
    return orjson.dumps({"type": "error", "error": {"type": kind, "message": message, **more}, "request_id": "req_1"})


def spent(code: str) -> bytes:
    return error_body("rate_limit_error", "This organization cannot send this request.", details={"error_code": code})


def invalid(message: str) -> bytes:
    return error_body("invalid_request_error", message)


def limited(message: str) -> bytes:
    return error_body("rate_limit_error", message)


NOT_PERMITTED = error_body("permission_error", "Your API key does not have permission to use the specified resource.")
PER_MINUTE = limited("This request would exceed your organization’s rate limit of 80,000 output tokens per minute.")
PER_DAY = limited("Number of request tokens has exceeded your per-day rate limit")
NO_CREDIT = invalid(
    "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase credits."
)
USED_UP = invalid("You have reached your specified API usage limits. You will regain access on 2026-12-01 at 00:00 UTC.")
PROMPT_TOO_LONG = invalid("prompt is too long: 215000 tokens > 200000 maximum")
ANSWER_TOO_LONG = invalid("input length and `max_tokens` exceed context limit: 199000 + 8000 > 200000")
HTML = b"<html><head><title>502 Bad Gateway</title></head><body><center><h1>502 Bad Gateway</h1></center></body></html>"


@pytest.mark.parametrize(
    ("status", "body", "error", "kind"),
    [
        (401, error_body("authentication_error", "invalid x-api-key"), errors.KeyRejected, "key_rejected"),
        (403, NOT_PERMITTED, errors.KeyRejected, "forbidden"),
        (404, error_body("not_found_error", "model: claude-does-not-exist"), errors.ModelGone, "model_gone"),
        (413, error_body("request_too_large", "Request exceeds the maximum size"), errors.ContextTooLong, "context_too_long"),
        (429, PER_MINUTE, errors.RateLimited, "rate_limited"),
        (429, PER_DAY, errors.QuotaSpent, "quota_spent"),
        (429, spent("enforced_spend_limit_reached"), errors.QuotaSpent, "quota_spent"),
        (429, spent("ramp_limit_exceeded"), errors.RateLimited, "rate_limited"),
        (529, error_body("overloaded_error", "Overloaded"), errors.Overloaded, "overloaded"),
        (503, b"", errors.Overloaded, "overloaded"),
        (500, error_body("overloaded_error", "Overloaded"), errors.Overloaded, "overloaded"),
        (500, error_body("api_error", "Internal server error"), errors.ServerFault, "server"),
        (502, HTML, errors.ServerFault, "server"),
        (408, b"", errors.TimedOut, "timeout"),
        (504, error_body("timeout_error", "Request timed out"), errors.TimedOut, "timeout"),
        (409, error_body("conflict_error", "Try again"), errors.ServerFault, "server"),
        (402, error_body("billing_error", "Payment required"), errors.OutOfCredit, "out_of_credit"),
        (400, NO_CREDIT, errors.OutOfCredit, "out_of_credit"),
        (400, USED_UP, errors.QuotaSpent, "quota_spent"),
        (400, PROMPT_TOO_LONG, errors.ContextTooLong, "context_too_long"),
        (400, ANSWER_TOO_LONG, errors.ContextTooLong, "context_too_long"),
        (400, invalid("Output blocked by content filtering policy"), errors.ContentBlocked, "content_filter"),
        (400, invalid("This organization has been disabled."), errors.KeyRejected, "forbidden"),
        (400, invalid("temperature: range: 0..1"), errors.InvalidRequest, "invalid_request"),
        (400, b'{"message":"The provided model identifier is invalid."}', errors.ModelGone, "model_gone"),
        (400, b'{"message":"Input is too long for requested model."}', errors.ContextTooLong, "context_too_long"),
        (307, b"", errors.AccessError, "redirect"),
        (200, error_body("something_new", "Sorry"), errors.ServerFault, "bad_response"),
    ],
)  # fmt: skip
def test_a_refusal_stands_on_the_branch_that_says_what_to_do(status: int, body: bytes, error: type[LLMError], kind: str) -> None:
    found = ADAPTER.classify_error(status, {"request-id": "req_2"}, body)
    assert type(found) is error
    assert (found.kind, found.status, found.request_id) == (kind, status, "req_2")
    assert len(str(found)) < 400
    assert "<" not in str(found)


def test_a_wait_that_is_asked_for_is_kept() -> None:
    found = ADAPTER.classify_error(429, {"retry-after": "2"}, error_body("rate_limit_error", "Slow down"))
    assert found.retry_after == 2.0


def test_a_key_that_the_vendor_repeats_is_not_told() -> None:
    found = ADAPTER.classify_error(401, {}, error_body("authentication_error", "invalid key sk-ant-api03-abcdefghij"))
    assert "abcdefghij" not in str(found)


@settings(max_examples=100, deadline=None)
@given(
    status=st.sampled_from([200, 302, 400, 401, 403, 404, 413, 429, 500, 529]),
    body=JSON.map(lambda value: json.dumps(value).encode()) | st.binary(),
)
def test_every_refusal_has_a_name(status: int, body: bytes) -> None:
    assert isinstance(ADAPTER.classify_error(status, {}, body), LLMError)


# ----------------------------------------------------------------------------------------------------------------- limits

DATE = {"date": "Sat, 21 Nov 2026 12:00:00 GMT"}


def limits(**members: str) -> dict[str, str]:
    return DATE | {f"anthropic-ratelimit-{name.replace('_', '-')}": value for name, value in members.items()}


def test_limits_are_read_with_their_resets() -> None:
    found = ADAPTER.read_limits(
        limits(
            requests_limit="50",
            requests_remaining="49",
            requests_reset="2026-11-21T12:00:01Z",
            input_tokens_limit="30000",
            input_tokens_remaining="15000",
            input_tokens_reset="2026-11-21T12:00:30Z",
            output_tokens_limit="8000",
            output_tokens_remaining="8000",
            output_tokens_reset="2026-11-21T12:00:00Z",
            tokens_limit="38000",
            tokens_remaining="23000",
            tokens_reset="2026-11-21T12:00:30Z",
        )
    )
    assert found is not None
    assert found.requests == Allowance(50, 49, 1.0)
    assert found.input == Allowance(30000, 15000, 30.0)
    assert found.output == Allowance(8000, 8000, 0.0)
    assert found.tokens is None, "the tightest of the two, which are told themselves"


def test_input_and_output_tokens_are_budgets_of_their_own() -> None:
    found = ADAPTER.read_limits(
        limits(
            input_tokens_limit="30000",
            input_tokens_remaining="29000",
            input_tokens_reset="2026-11-21T12:00:02Z",
            output_tokens_limit="8000",
            output_tokens_remaining="800",
            output_tokens_reset="2026-11-21T12:00:54+00:00",
        )
    )
    assert found is not None
    assert (found.requests, found.input, found.output) == (None, Allowance(30000, 29000, 2.0), Allowance(8000, 800, 54.0))


def test_a_reset_that_is_no_moment_is_no_reset() -> None:
    for moment in ("soon", "", "2026-11-21T12:00:02", "9999-01-01T00:00:00Z"):
        found = ADAPTER.read_limits(limits(requests_limit="50", requests_reset=moment))
        assert found is not None
        assert found.requests == Allowance(50)


def test_gateways_count_in_openais_headers() -> None:
    found = ADAPTER.read_limits({"x-ratelimit-limit-requests": "60"})
    assert found is not None
    assert found.requests == Allowance(60)
    assert ADAPTER.read_limits({}) is None


# ---------------------------------------------------------------------------------------------- a client of the caller's own

BODY = CHAT.encode([asking(options={"temperature": 0})], target())


class Line(httpx2.BaseTransport, httpx2.AsyncBaseTransport):  # type: ignore[misc]
    """The far end of a caller's client: keeps what came and gives one answer, or breaks."""

    def __init__(self, status: int = 200, fault: type[Exception] | None = None) -> None:
        self.status, self.fault = status, fault
        self.came: list[httpx2.Request] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self.came.append(request)
        if self.fault is not None:
            raise self.fault("the line broke")
        body = answer(said("Hi")) if self.status == 200 else error_body("overloaded_error", "Overloaded")
        return httpx2.Response(self.status, headers={"Request-Id": "req_1"}, content=body, request=request)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        await request.aread()
        return self.handle_request(request)


def post(line: Line, is_async: bool, kind: Any = None, **given: Any) -> tuple[int, dict[str, str], bytes]:
    assert ADAPTER.send is not None
    given = given or {"api_key": "theirs"}
    if not is_async:
        with (kind or anthropic.Anthropic)(http_client=httpx2.Client(transport=line), **given) as foreign:
            result: tuple[int, dict[str, str], bytes] = ADAPTER.send(foreign, CHAT, BODY)
            return result

    async def through() -> tuple[int, dict[str, str], bytes]:
        async with (kind or anthropic.AsyncAnthropic)(http_client=httpx2.AsyncClient(transport=line), **given) as foreign:
            answered: tuple[int, dict[str, str], bytes] = await ADAPTER.send(foreign, CHAT, BODY)  # type: ignore[misc]
            return answered

    return asyncio.run(through())


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_callers_client_posts_our_body_with_its_own_key(is_async: bool) -> None:
    line = Line()
    status, headers, body = post(line, is_async)
    assert (status, headers["request-id"]) == (200, "req_1")
    assert isinstance(read(body), Reply)
    (came,) = line.came
    assert json.loads(came.content) == json.loads(BODY)
    assert came.headers["authorization"] == "Bearer theirs"


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_refusal_through_a_callers_client_comes_as_it_was_and_once(is_async: bool) -> None:
    line = Line(529)
    status, headers, body = post(line, is_async)
    assert isinstance(ADAPTER.classify_error(status, headers, body), errors.Overloaded)
    assert len(line.came) == 1


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (httpx2.ConnectError, errors.ConnectionLost),
        (httpx2.ReadTimeout, errors.TimedOut),
        (httpx2.RemoteProtocolError, errors.ConnectionLost),
    ],
)
def test_a_line_that_breaks_is_one_of_our_errors(is_async: bool, fault: type[Exception], error: type[LLMError]) -> None:
    line = Line(fault=fault)
    with pytest.raises(error):
        post(line, is_async)
    assert len(line.came) == 1


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_bedrock_and_vertex_address_by_the_model(is_async: bool) -> None:
    line = Line()
    bedrock = anthropic.AsyncAnthropicBedrock if is_async else anthropic.AnthropicBedrock
    post(line, is_async, bedrock, api_key="theirs", aws_region="eu-west-1")
    vertex = anthropic.AsyncAnthropicVertex if is_async else anthropic.AnthropicVertex
    post(line, is_async, vertex, region="global", project_id="p", access_token="theirs")
    paths = [came.url.path for came in line.came]
    assert paths == ["/model/claude-x/invoke", "/v1/projects/p/locations/global/publishers/anthropic/models/claude-x:rawPredict"]
    assert all("model" not in json.loads(came.content) for came in line.came)


def test_a_client_that_cannot_send_shuts_the_account_and_repeats_nothing() -> None:
    with anthropic.Anthropic(api_key="theirs", http_client=httpx2.Client(transport=Line())) as foreign:
        foreign.api_key = None
        with pytest.raises(errors.AccessError) as caught:
            ADAPTER.send(foreign, CHAT, BODY)  # type: ignore[misc]
    assert caught.value.kind == "client"
    assert "Hello" not in str(caught.value)
