"""Cohere's wire: bodies out, bodies in, and which branch an error body belongs to. No network here."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cohere
import httpx
import numpy as np
import orjson
import pytest

from llmkit import errors
from llmkit.adapter import Target
from llmkit.errors import LLMError
from llmkit.operations.chat import ChatPayload, Image, Message, Said, Schema, Scored, Text, Tool, ToolCall, ToolResult
from llmkit.operations.rerank import RerankPayload
from llmkit.providers.cohere import adapter
from llmkit.types import Allowance, Model, Provider, Reply, Request, Secret, Usage

ADAPTER = adapter()
KEY = "test-key-of-cohere"
ROOT = Path(__file__).parents[2]


def target(operation: str = "chat", base_url: str = "https://api.cohere.com", **quirks: Any) -> Target:
    provider = Provider("cohere", base_url, protocol="cohere", quirks=quirks)
    return Target(Model("cohere", "a-model"), provider, ADAPTER, ADAPTER.codecs[operation], Secret(KEY))


def sent(operation: str, *requests: Request, **quirks: Any) -> dict[str, Any]:
    body = json.loads(ADAPTER.codecs[operation].encode(requests, target(operation, **quirks)))
    assert isinstance(body, dict)
    return body


# ---------------------------------------------------------------------------------------------------------------- address


@pytest.mark.parametrize(
    ("operation", "path"), [("chat", "/v2/chat"), ("embed", "/v2/embed"), ("rerank", "/v2/rerank"), ("classify", "/v1/classify")]
)
def test_each_operation_is_addressed_by_the_official_sdk(operation: str, path: str) -> None:
    template = ADAPTER.connect(target(operation))  # type: ignore[misc]
    assert template.url == f"https://api.cohere.com{path}"
    assert template.headers["authorization"] == f"Bearer {KEY}"
    assert template.headers["user-agent"].startswith("cohere/")
    assert template.headers["content-type"] == "application/json"
    assert not {"host", "connection", "content-length", "accept-encoding"} & set(template.headers)
    assert KEY not in repr(template)


def test_what_the_environment_says_of_cohere_is_not_looked_at() -> None:
    # In a process of its own: the SDK reads CO_API_URL while it is imported.
    code = (
        "from tests.providers.test_cohere import ADAPTER, target\n"
        "template = ADAPTER.connect(target())\n"
        "print(template.url, template.headers['authorization'])"
    )
    environment = {"CO_API_URL": "https://elsewhere.example", "CO_API_KEY": "key-of-the-environment"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env=environment, capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split("\n")[0] == f"https://api.cohere.com/v2/chat Bearer {KEY}"


def test_a_server_without_a_key_gets_no_authorization_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CO_API_KEY", "key-of-the-environment")
    template = ADAPTER.connect(replace(target(base_url="http://127.0.0.1:8000"), secret=None))  # type: ignore[misc]
    assert template.url == "http://127.0.0.1:8000/v2/chat"
    assert "authorization" not in template.headers


def test_no_log_line_holds_the_key(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    ADAPTER.connect(target())  # type: ignore[misc]
    assert KEY not in caplog.text


def test_the_official_client_has_our_key_and_address_and_does_not_try_again() -> None:
    assert ADAPTER.client is not None
    for is_async, kind in ((False, cohere.ClientV2), (True, cohere.AsyncClientV2)):
        client = ADAPTER.client(target(base_url="http://127.0.0.1:8000"), is_async)
        assert type(client) is kind
        account = client._client_wrapper
        assert (account.get_base_url(), account.get_max_retries()) == ("http://127.0.0.1:8000", 0)
        assert account.get_headers()["Authorization"] == f"Bearer {KEY}"
        assert KEY not in repr(client)


def test_a_key_that_rotates_is_asked_for_at_every_request_of_the_official_client() -> None:
    keys = iter(["first-key", "second-key"])
    assert ADAPTER.client is not None
    client = ADAPTER.client(replace(target(), secret=Secret(lambda: next(keys))), False)
    assert [client._client_wrapper.get_headers()["Authorization"] for _ in range(2)] == ["Bearer first-key", "Bearer second-key"]


# ------------------------------------------------------------------------------------------------------------------- chat


WEATHER = Tool("weather", "Tells the weather", {"type": "object", "properties": {"city": {"type": "string"}}})
CLOCK = Tool("clock", "Tells the time", {"type": "object", "properties": {}})
ASKED = ToolCall("weather_s8kn", "weather", '{"city":"Paris"}')


def prompt(
    *messages: Message, tools: tuple[Tool, ...] = (), tool_choice: str = "", schema: Schema | None = None, **options: Any
) -> Request:
    payload = ChatPayload(messages or (Message("system", "Be brief"), Message("user", "Hello")), tools, tool_choice, schema)
    return Request("chat", payload, options)


def test_a_chat_body_holds_the_messages_and_the_options_by_coheres_names() -> None:
    assert sent("chat", prompt(temperature=0, max_tokens=5, seed=7, top_p=0.9, top_k=3, stop="END")) == {
        "model": "a-model",
        "messages": [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Hello"}],
        "temperature": 0,
        "max_tokens": 5,
        "seed": 7,
        "p": 0.9,
        "k": 3,
        "stop_sequences": ["END"],
    }


def test_equal_requests_have_equal_bytes() -> None:
    encode = ADAPTER.codecs["chat"].encode
    assert encode([prompt()], target()) == encode([prompt()], target())


def test_a_picture_travels_as_its_bytes_or_its_address() -> None:
    parts = (Text("What is this?"), Image("image/png", b"\x89PNG"), Image(url="https://example.com/a.png"))
    assert sent("chat", prompt(Message("user", parts)))["messages"][0]["content"] == [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
    ]


def test_a_users_message_with_a_tool_call_in_it_is_refused_before_it_is_sent() -> None:
    with pytest.raises(errors.InvalidRequest):
        sent("chat", prompt(Message("user", (ASKED,))))


def test_calls_and_what_came_of_them_are_told_in_their_own_turns() -> None:
    turns = (
        Message("user", "How is the weather?"),
        Message("assistant", (Text("I will look."), ASKED)),
        Message("tool", (ToolResult(ASKED, "rain"), ToolResult(replace(ASKED, id="other"), "sun"))),
        Message("assistant", (Text("Rain."),)),
    )
    function = {"name": "weather", "arguments": '{"city":"Paris"}'}
    assert sent("chat", prompt(*turns, tools=(WEATHER,)))["messages"][1:] == [
        {
            "role": "assistant",
            "tool_calls": [{"id": "weather_s8kn", "type": "function", "function": function}],
            "tool_plan": "I will look.",
        },
        {"role": "tool", "tool_call_id": "weather_s8kn", "content": "rain"},
        {"role": "tool", "tool_call_id": "other", "content": "sun"},
        {"role": "assistant", "content": "Rain."},
    ]


@pytest.mark.parametrize(
    ("choice", "word", "offered"),
    [
        ("", None, ["weather", "clock"]),
        ("auto", None, ["weather", "clock"]),
        ("required", "REQUIRED", ["weather", "clock"]),
        ("none", "NONE", ["weather", "clock"]),
        ("clock", "REQUIRED", ["clock"]),
    ],
)
def test_the_choice_of_tools_has_coheres_words(choice: str, word: str | None, offered: list[str]) -> None:
    body = sent("chat", prompt(tools=(WEATHER, CLOCK), tool_choice=choice))
    assert [tool["function"]["name"] for tool in body["tools"]] == offered
    assert body.get("tool_choice") == word
    assert body["tools"][-1]["type"] == "function"


def test_a_schema_is_asked_for_as_a_json_object() -> None:
    schema = {"type": "object", "required": ["age"], "properties": {"age": {"type": "integer"}}}
    assert sent("chat", prompt(schema=Schema("person", schema)))["response_format"] == {"type": "json_object", "json_schema": schema}
    assert sent("chat", prompt(schema=Schema("any", None)))["response_format"] == {"type": "json_object"}


def chat_body(finish: str = "COMPLETE", text: str | None = "Hello!", **message: Any) -> bytes:
    content = {} if text is None else {"content": [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": text}]}
    usage = {
        "billed_units": {"input_tokens": 35, "output_tokens": 22},
        "tokens": {"input_tokens": 1453.0, "output_tokens": 33.0},
        "cached_tokens": 1424,
    }
    return orjson.dumps({"id": "answer-1", "finish_reason": finish, "message": {"role": "assistant", **content, **message}, "usage": usage})


def read_chat(body: bytes, request: Request | None = None) -> Reply | LLMError:
    (reply,) = ADAPTER.codecs["chat"].decode(body, [request or prompt()])
    return reply


def test_an_answer_is_its_text_without_the_thinking_and_its_bill() -> None:
    assert read_chat(chat_body()) == Reply("Hello!", Usage(input=35, output=22, requests=1), finish="stop", request_id="answer-1")


@pytest.mark.parametrize(("said", "finish"), [("MAX_TOKENS", "length"), ("STOP_SEQUENCE", "stop"), ("NEW_WORD", "new_word")])
def test_why_an_answer_ends_is_said_in_the_words_of_all_providers(said: str, finish: str) -> None:
    reply = read_chat(chat_body(said))
    assert isinstance(reply, Reply)
    assert reply.finish == finish


def test_an_answer_that_says_nothing_of_its_cost_is_of_unknown_cost() -> None:
    body = json.loads(chat_body())
    del body["usage"]
    reply = read_chat(orjson.dumps(body))
    assert reply.usage == Usage(requests=1, unreported=1)


def test_without_billed_units_the_tokens_count() -> None:
    body = json.loads(chat_body())
    del body["usage"]["billed_units"]
    reply = read_chat(orjson.dumps(body))
    assert reply.usage == Usage(input=1453, output=33, requests=1)


def test_a_question_with_tools_is_answered_by_calls() -> None:
    call = {"id": "weather_s8kn", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Paris"}'}}
    body = chat_body("TOOL_CALL", text=None, tool_calls=[call], tool_plan="I will look.")
    reply = read_chat(body, prompt(tools=(WEATHER,)))
    assert isinstance(reply, Reply)
    assert reply.value == Said("I will look.", (ASKED,))
    assert reply.finish == "tool_calls"


def test_a_question_with_tools_may_be_answered_by_text() -> None:
    reply = read_chat(chat_body(), prompt(tools=(WEATHER,)))
    assert isinstance(reply, Reply)
    assert reply.value == Said("Hello!")


def test_log_probabilities_come_with_the_pieces_of_the_text() -> None:
    body = json.loads(chat_body())
    body["logprobs"] = [
        {"text": "Hello", "token_ids": [1, 2], "logprobs": [-0.5, -0.25]},
        {"text": "!", "token_ids": [3], "logprobs": [-1]},
    ]
    reply = read_chat(orjson.dumps(body), prompt(logprobs=True))
    assert isinstance(reply, Reply)
    assert reply.value == Scored("Hello!", (("Hello", -0.75), ("!", -1.0)))


def test_an_answer_without_text_is_no_answer() -> None:
    cut, empty = read_chat(chat_body("MAX_TOKENS", text="")), read_chat(chat_body(text=None))
    assert isinstance(cut, errors.Truncated)
    assert isinstance(empty, errors.BadOutput)
    assert empty.usage == Usage(input=35, output=22, requests=1)


@pytest.mark.parametrize(("finish", "error"), [("ERROR", errors.ServerFault), ("TIMEOUT", errors.TimedOut)])
def test_a_model_that_fails_while_it_answers_is_asked_again(finish: str, error: type[LLMError]) -> None:
    with pytest.raises(error) as raised:
        read_chat(chat_body(finish))
    assert isinstance(raised.value, errors.Unreachable)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"message": "text"}', b'{"error": "no"}'])
@pytest.mark.parametrize("operation", ["chat", "embed", "rerank", "classify"])
def test_a_body_that_is_no_answer_is_the_servers_fault(operation: str, body: bytes) -> None:
    with pytest.raises(errors.ServerFault) as raised:
        ADAPTER.codecs[operation].decode(body, [prompt()])
    assert raised.value.kind == "bad_response"


# -------------------------------------------------------------------------------------------------------------- streaming


def test_a_streamed_answer_is_put_together_from_its_events() -> None:
    codec = ADAPTER.codecs["chat"]
    assert codec.streamed is not None
    assert codec.delta is not None
    assert codec.streamed(target()) == {"stream": True}
    billed = {"billed_units": {"input_tokens": 17, "output_tokens": 6}}
    events: list[tuple[str, Any]] = [
        ("message-start", {"type": "message-start", "id": "1", "delta": {"message": {"role": "assistant", "content": []}}}),
        ("content-start", {"type": "content-start", "index": 0, "delta": {"message": {"content": {"type": "text", "text": ""}}}}),
        ("content-delta", {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"thinking": "Hm."}}}}),
        ("content-delta", {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "Hel"}}}}),
        ("", {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "lo"}}}}),
        ("content-end", {"type": "content-end", "index": 0}),
        ("tool-plan-delta", {"type": "tool-plan-delta", "delta": {"message": {"tool_plan": "I will look."}}}),
        ("tool-call-start", {"type": "tool-call-start", "index": 0, "delta": {"message": {"tool_calls": {"id": "a"}}}}),
        ("message-end", {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": billed}}),
    ]
    deltas = [codec.delta(name, orjson.dumps(data)) for name, data in events]
    assert codec.delta("", b"[DONE]") is None
    told = [delta for delta in deltas if delta is not None]
    assert "".join(delta.text for delta in told) == "Hello"
    assert (told[-1].usage, told[-1].finish) == (Usage(input=17, output=6, requests=1), "stop")


@pytest.mark.parametrize("delta", [{"finish_reason": "ERROR"}, {"finish_reason": "ERROR", "error": "the model is gone"}])
def test_a_stream_that_ends_in_an_error_raises_it(delta: dict[str, str]) -> None:
    codec = ADAPTER.codecs["chat"]
    assert codec.delta is not None
    with pytest.raises(errors.ServerFault):
        codec.delta("message-end", orjson.dumps({"type": "message-end", "delta": delta}))


# ------------------------------------------------------------------------------------------------------------- embeddings


def texts(*given: str, **options: Any) -> list[Request]:
    return [Request("embed", text, options) for text in given]


def packed(*values: float) -> str:
    return base64.b64encode(np.asarray(values, "<f4").tobytes()).decode()


def embed_body(kind: str, *vectors: Any, billed: Any = 10) -> bytes:
    meta = {"api_version": {"version": "2"}, "billed_units": {"input_tokens": billed}}
    return orjson.dumps({"id": "e", "embeddings": {kind: vectors}, "meta": meta, "response_type": "embeddings_by_type"})


def test_embeddings_are_asked_for_packed_and_never_cut() -> None:
    assert sent("embed", *texts("a", "b")) == {
        "model": "a-model",
        "texts": ["a", "b"],
        "input_type": "search_document",
        "embedding_types": ["base64"],
        "truncate": "NONE",
    }
    assert sent("embed", *texts("a", dimensions=256))["output_dimension"] == 256
    assert sent("embed", *texts("a"), embed_encoding="float")["embedding_types"] == ["float"]


@pytest.mark.parametrize(
    ("given", "word"),
    [("query", "search_query"), ("document", "search_document"), ("classification", "classification"), ("clustering", "clustering")],
)
def test_what_a_text_is_embedded_for_has_coheres_word(given: str, word: str) -> None:
    assert sent("embed", *texts("a", input_type=given))["input_type"] == word


def test_a_request_holds_at_most_96_texts() -> None:
    assert ADAPTER.codecs["embed"].batch_size(target("embed")) == (96, None)
    assert ADAPTER.codecs["embed"].batch_size(target("embed", embed_batch=256)) == (96, None)
    assert ADAPTER.codecs["embed"].batch_size(target("embed", embed_batch=10)) == (10, None)
    assert ADAPTER.codecs["classify"].batch_size(target("classify")) == (96, None)


@pytest.mark.parametrize(("kind", "vectors"), [("base64", (packed(1, 2), packed(3, 4))), ("float", ([1, 2], [3, 4]))])
def test_vectors_come_packed_or_as_numbers_and_share_the_bill_by_length(kind: str, vectors: Any) -> None:
    first, second = ADAPTER.codecs["embed"].decode(embed_body(kind, *vectors), texts("aaaa", "b"))
    assert isinstance(first, Reply)
    assert isinstance(second, Reply)
    assert first.value.dtype == np.float32
    assert (first.value.tolist(), second.value.tolist()) == ([1, 2], [3, 4])
    assert (first.usage, second.usage) == (Usage(input=8, requests=1), Usage(input=2))


def test_a_vector_that_is_none_fails_its_own_row() -> None:
    good, bad = ADAPTER.codecs["embed"].decode(embed_body("base64", packed(1, 2), packed(float("nan"))), texts("a", "b"))
    assert isinstance(good, Reply)
    assert isinstance(bad, errors.BadOutput)


def test_embeddings_without_a_bill_are_of_unknown_cost() -> None:
    first, second = ADAPTER.codecs["embed"].decode(embed_body("base64", packed(1), packed(2), billed=None), texts("a", "b"))
    assert (first.usage, second.usage) == (Usage(requests=1, unreported=1), Usage())


def test_too_few_vectors_are_not_dealt_out_to_the_wrong_rows() -> None:
    with pytest.raises(errors.ServerFault):
        ADAPTER.codecs["embed"].decode(embed_body("base64", packed(1)), texts("a", "b"))


# ----------------------------------------------------------------------------------------------------------------- rerank


RANKING = Request("rerank", RerankPayload("capital", ("Paris", "cheese", "Rome")))


def test_a_rerank_asks_for_every_score() -> None:
    assert sent("rerank", RANKING) == {"model": "a-model", "query": "capital", "documents": ["Paris", "cheese", "Rome"]}


def test_scores_go_to_their_documents_by_index_and_searches_are_billed() -> None:
    results = [{"index": 2, "relevance_score": 0.7}, {"index": 0, "relevance_score": 0.9}, {"index": 9, "relevance_score": 1}]
    body = orjson.dumps({"id": "r", "results": results, "meta": {"billed_units": {"search_units": 1}}})
    (reply,) = ADAPTER.codecs["rerank"].decode(body, [RANKING])
    assert isinstance(reply, Reply)
    np.testing.assert_array_equal(reply.value, [0.9, np.nan, 0.7])
    assert reply.usage == Usage(requests=1, searches=1)


def test_a_ranking_without_scores_is_no_answer() -> None:
    (reply,) = ADAPTER.codecs["rerank"].decode(b'{"results": []}', [RANKING])
    assert isinstance(reply, errors.BadOutput)
    assert reply.usage == Usage(requests=1, unreported=1)


# --------------------------------------------------------------------------------------------------------------- classify


@dataclass(frozen=True)
class Question:
    text: str
    labels: tuple[str, ...] = ("spam", "ham")
    examples: tuple[tuple[str, str], ...] = ()


def questions(*given: str, examples: tuple[tuple[str, str], ...] = ()) -> list[Request]:
    return [Request("classify", Question(text, examples=examples)) for text in given]


def test_a_fine_tuned_classifier_is_asked_for_many_texts_at_once() -> None:
    assert sent("classify", *questions("Buy!", "Hi")) == {"model": "a-model", "inputs": ["Buy!", "Hi"], "truncate": "NONE"}
    taught = sent("classify", *questions("Buy!", examples=(("Win!", "spam"), ("Hello", "ham"))))
    assert taught["examples"] == [{"text": "Win!", "label": "spam"}, {"text": "Hello", "label": "ham"}]


def test_a_label_comes_with_its_probability_where_there_is_one() -> None:
    found = [
        {"id": "1", "input": "Buy!", "prediction": "spam", "predictions": ["spam"], "confidence": 0.9, "confidences": [0.9], "labels": {}},
        {"id": "2", "predictions": ["ham"], "confidences": [0.6], "labels": {"ham": {"confidence": 0.6}}},
        {"id": "3", "prediction": "ham", "predictions": ["ham"], "labels": {}},
        {"id": "4", "predictions": [], "labels": {}},
    ]
    body = orjson.dumps({"id": "c", "classifications": found, "meta": {"billed_units": {"classifications": 4}}})
    *good, bad = ADAPTER.codecs["classify"].decode(body, questions("Buy!", "Hi", "Ho", "Hm"))
    assert [reply.value for reply in good if isinstance(reply, Reply)] == [("spam", 0.9), ("ham", 0.6), ("ham", None)]
    assert isinstance(bad, errors.BadOutput)
    assert sum((reply.usage for reply in (*good, bad)), Usage()) == Usage(requests=1)


# ----------------------------------------------------------------------------------------------------------------- errors


TRIAL = (
    "You are using a Trial key, which is limited to 10 API calls / minute. You can continue to use the Trial key for free or upgrade to "
    "a Production key with higher rate limits at 'https://dashboard.cohere.com/api-keys'."
)


@pytest.mark.parametrize(
    ("status", "message", "error"),
    [
        (307, "", errors.AccessError),
        (401, "invalid api token", errors.KeyRejected),
        (401, "no api key supplied", errors.KeyRejected),
        (
            402,
            "Please add or update your payment method at https://dashboard.cohere.com/billing?tab=payment to continue",
            errors.OutOfCredit,
        ),
        (403, "", errors.KeyRejected),
        (404, "model 'x' not found, make sure the correct model ID was used and that you have access to the model.", errors.ModelGone),
        (400, "invalid request: model 'command-r' is not supported by the generate API", errors.ModelGone),
        (400, "finetuned model with name xyz is not ready for serving", errors.ModelGone),
        (501, "", errors.ModelGone),
        (429, TRIAL, errors.RateLimited),
        (429, "You are past the per minute request limit, please wait and try again later.", errors.RateLimited),
        (429, "trial token rate limit exceeded, limit is 100000 tokens per minute", errors.RateLimited),
        (429, "Please wait and try again later", errors.RateLimited),
        (429, "You are using a Trial key, which is limited to 1000 API calls / month.", errors.QuotaSpent),
        (429, "You are past the per-month request limit for this model", errors.QuotaSpent),
        (498, "blocked", errors.ContentBlocked),
        (499, "request cancelled", errors.TimedOut),
        (504, "", errors.TimedOut),
        (503, "", errors.Overloaded),
        (500, "internal server error", errors.ServerFault),
        (502, "", errors.ServerFault),
        (413, "", errors.BatchTooLarge),
        (400, "invalid request: total number of texts must be at most 96 - received 100", errors.BatchTooLarge),
        (400, "too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 4292.", errors.ContextTooLong),
        (400, "too many tokens: size limit exceeded by 11326 tokens.", errors.ContextTooLong),
        (400, "too many tokens: max tokens must be less than or equal to 4096, the maximum output for this model", errors.InvalidRequest),
        (400, "invalid request: temperature must be between 0 and 1.0 inclusive.", errors.InvalidRequest),
        (422, "schema must be an object", errors.InvalidRequest),
    ],
)
def test_a_refusal_stands_on_the_branch_that_says_what_to_do(status: int, message: str, error: type[LLMError]) -> None:
    body = orjson.dumps({"id": "24e32f6d", "message": message})
    found = ADAPTER.classify_error(status, {}, body)
    assert type(found) is error
    assert (found.status, found.request_id) == (status, "24e32f6d")
    assert "\n" not in found.message


def test_a_blocked_text_is_refused_for_good() -> None:
    assert isinstance(ADAPTER.classify_error(498, {}, b'{"message": "blocked"}'), errors.RequestError)


def test_a_trial_keys_pace_is_the_pause_where_no_header_says_how_long() -> None:
    body = orjson.dumps({"message": TRIAL})
    assert ADAPTER.classify_error(429, {}, body).retry_after == 6.0
    assert ADAPTER.classify_error(429, {"retry-after": "2"}, body).retry_after == 2.0
    assert ADAPTER.classify_error(429, {}, b'{"message": "Please wait and try again later"}').retry_after is None


def test_the_moment_of_reset_is_read_against_the_answers_own_date() -> None:
    date = {"date": "Sat, 21 Nov 2026 12:00:00 GMT"}  # 1795262400
    wait = [
        ADAPTER.classify_error(429, {"x-ratelimit-reset": reset, **date}, b"").retry_after for reset in ("1795262405", "1795269999", "7")
    ]
    assert wait == [5.0, 60.0, None]
    assert ADAPTER.classify_error(429, {"x-ratelimit-reset": "1795262405"}, b"").retry_after is None


def test_an_answer_that_cohere_could_not_form_fails_the_row() -> None:
    body = orjson.dumps({"id": "1", "message": "no valid response generated", "error_type": "NO_VALID_RESPONSE_GENERATED"})
    found = ADAPTER.classify_error(422, {"x-debug-trace-id": "trace-1"}, body)
    assert (type(found), found.kind, found.request_id) == (errors.BadOutput, "no_answer", "trace-1")


@pytest.mark.parametrize("body", [b"", b"<html><h1>Bad gateway</h1></html>", b"[]", b"null", b'"text"', b"\xff"])
def test_a_proxys_own_page_is_read_by_its_status(body: bytes) -> None:
    assert isinstance(ADAPTER.classify_error(502, {}, body), errors.ServerFault)


def test_a_trial_key_is_told_its_calls_a_minute() -> None:
    headers = {"x-trial-endpoint-call-limit": "40", "x-trial-endpoint-call-remaining": "39", "x-endpoint-monthly-call-limit": "1000"}
    limits = ADAPTER.read_limits(headers)
    assert limits is not None
    assert limits.requests == Allowance(40, 39)
    assert ADAPTER.read_limits({}) is None


# -------------------------------------------------------------------------------------------------- a client of the caller's


REQUESTS = {
    "chat": [prompt(max_tokens=5, schema=Schema("any", {"type": "object"}))],
    "embed": texts("a"),
    "rerank": [RANKING],
    "classify": questions("a"),
}


def posting(operation: str, answer: Callable[[httpx.Request], httpx.Response], make: Any = cohere.ClientV2) -> Any:
    assert ADAPTER.send is not None
    transport = httpx.MockTransport(answer)
    http = httpx.AsyncClient(transport=transport) if make is cohere.AsyncClientV2 else httpx.Client(transport=transport)
    foreign = make(api_key="key-of-the-caller", base_url="https://gateway.example", httpx_client=http)
    codec = ADAPTER.codecs[operation]
    given = ADAPTER.send(foreign, codec, codec.encode(REQUESTS[operation], target(operation)))
    return asyncio.run(given) if make is cohere.AsyncClientV2 else given


@pytest.mark.parametrize("make", [cohere.ClientV2, cohere.Client, cohere.AsyncClientV2])
@pytest.mark.parametrize("operation", ["chat", "embed", "rerank", "classify"])
def test_a_client_of_the_callers_own_posts_the_same_body(operation: str, make: Any) -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, content=b'{"id": "1", "extra": [1.5]}', headers={"X-Debug-Trace-ID": "trace-1"})

    status, headers, body = posting(operation, answer, make)
    assert (status, headers["x-debug-trace-id"], body) == (200, "trace-1", b'{"id": "1", "extra": [1.5]}')
    (request,) = seen
    assert str(request.url) == f"https://gateway.example{ADAPTER.codecs[operation].path}"
    said = json.loads(request.content)
    if operation == "chat":
        assert said.pop("stream") is False
    assert said == sent(operation, *REQUESTS[operation])


@pytest.mark.parametrize("make", [cohere.ClientV2, cohere.AsyncClientV2])
def test_what_the_sdk_raises_becomes_the_answer_that_it_was_and_is_not_asked_again(make: Any) -> None:
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(429, json={"id": "1", "message": "Please wait and try again later"}, headers={"X-Debug-Trace-ID": "t"})

    status, headers, body = posting("chat", answer, make)
    found = ADAPTER.classify_error(status, headers, body)
    assert (type(found), found.request_id) == (errors.RateLimited, "t")
    assert len(seen) == 1


def test_a_refusal_that_is_not_json_keeps_its_text() -> None:
    status, _, body = posting("chat", lambda request: httpx.Response(502, text="Bad gateway"))
    assert (status, body) == (502, b"Bad gateway")


@pytest.mark.parametrize("make", [cohere.ClientV2, cohere.AsyncClientV2])
@pytest.mark.parametrize(("raised", "error"), [(httpx.ReadTimeout, errors.TimedOut), (httpx.ConnectError, errors.ConnectionLost)])
def test_a_connections_trouble_is_named_without_the_request(raised: type[httpx.RequestError], error: type[LLMError], make: Any) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise raised("secret words", request=request)

    with pytest.raises(error) as caught:
        posting("chat", answer, make)
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_what_is_no_matter_of_the_network_is_not_hidden() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise RuntimeError("a fault in the caller's own transport")

    with pytest.raises(RuntimeError):
        posting("chat", answer)
