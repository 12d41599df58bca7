"""OpenAI's wire: bodies out, bodies in, and which branch an error body belongs to. No network here; sockets are in tests/engine."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest

from llmkit import errors
from llmkit.adapter import Target
from llmkit.errors import LLMError
from llmkit.operations.chat import ChatPayload, Message
from llmkit.operations.rerank import RerankPayload
from llmkit.providers.headers import duration, read_limits, retry_after
from llmkit.providers.openai import adapter
from llmkit.types import Allowance, Limits, Model, Provider, Reply, Request, Secret, Usage

ADAPTER = adapter()


def target(operation: str = "chat", base_url: str = "https://api.openai.com/v1", name: str = "openai", **quirks: Any) -> Target:
    provider = Provider(name, base_url, quirks=quirks)
    return Target(Model(name, "a-model"), provider, ADAPTER, ADAPTER.codecs[operation], Secret("sk-test"))


def prompt(text: str = "Hello", **options: Any) -> Request:
    return Request("chat", ChatPayload((Message("system", "Be brief"), Message("user", text))), options)


def chat_body(content: Any = "Hi", finish: str = "stop", **message: Any) -> bytes:
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": content, **message}}
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12, "prompt_tokens_details": {"cached_tokens": 4}}
    return orjson.dumps({"id": "chatcmpl-1", "model": "a-model-2026", "choices": [choice], "usage": usage})


def read_chat(body: bytes) -> Reply | LLMError:
    (reply,) = ADAPTER.codecs["chat"].decode(body, [prompt()])
    return reply


# ---------------------------------------------------------------------------------------------------------------- address


def test_the_official_sdk_addresses_the_envelope() -> None:
    template = ADAPTER.connect(target())  # type: ignore[misc]
    assert template.url == "https://api.openai.com/v1/chat/completions"
    assert template.headers["authorization"] == "Bearer sk-test"
    assert template.headers["user-agent"].startswith("OpenAI/Python")
    assert "sk-test" not in repr(template)


def test_a_server_without_a_key_gets_no_authorization_header() -> None:
    template = ADAPTER.connect(replace(target(base_url="http://127.0.0.1:8000/v1", name="lab"), secret=None))  # type: ignore[misc]
    assert "authorization" not in template.headers


def test_openais_organization_goes_to_openai_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    assert ADAPTER.connect(target()).headers["openai-organization"] == "org-1"  # type: ignore[misc]
    elsewhere = target(base_url="https://api.groq.com/openai/v1", name="groq")
    assert "openai-organization" not in ADAPTER.connect(elsewhere).headers  # type: ignore[misc]


@pytest.mark.parametrize(("operation", "path"), [("chat", "/chat/completions"), ("embed", "/embeddings"), ("rerank", "/rerank")])
def test_each_operation_has_its_address(operation: str, path: str) -> None:
    assert ADAPTER.connect(target(operation, "http://127.0.0.1:1/v1", "lab")).url == f"http://127.0.0.1:1/v1{path}"  # type: ignore[misc]


# --------------------------------------------------------------------------------------------------------------- requests


def test_a_chat_body_holds_the_messages_and_the_options() -> None:
    body = json.loads(ADAPTER.codecs["chat"].encode([prompt(temperature=0, seed=7)], target()))
    assert body == {
        "model": "a-model",
        "messages": [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Hello"}],
        "temperature": 0,
        "seed": 7,
    }


def test_the_token_limit_has_the_name_that_the_vendor_reads() -> None:
    encode = ADAPTER.codecs["chat"].encode
    assert json.loads(encode([prompt(max_tokens=5)], target()))["max_tokens"] == 5
    newer = target(token_limit_field="max_completion_tokens")
    assert json.loads(encode([prompt(max_tokens=5)], newer))["max_completion_tokens"] == 5


def test_equal_requests_have_equal_bytes() -> None:
    encode = ADAPTER.codecs["chat"].encode
    assert encode([prompt()], target()) == encode([prompt()], target())


def test_a_lone_surrogate_is_sent_as_a_replacement_character() -> None:
    body = json.loads(ADAPTER.codecs["chat"].encode([prompt("a\ud800b")], target()))
    assert body["messages"][1]["content"] == "a\ufffdb"


def test_embeddings_are_asked_for_as_floats_unless_base64_is_known_to_work() -> None:
    encode = ADAPTER.codecs["embed"].encode
    texts = [Request("embed", text, {"dimensions": 4}) for text in ("a", "b")]
    assert json.loads(encode(texts, target("embed"))) == {
        "model": "a-model", "input": ["a", "b"], "encoding_format": "float", "dimensions": 4,
    }  # fmt: skip
    assert json.loads(encode(texts, target("embed", embed_encoding="base64")))["encoding_format"] == "base64"


def test_a_batch_never_exceeds_the_vendors_caps() -> None:
    assert ADAPTER.codecs["embed"].batch_size(target("embed", embed_batch=100, embed_batch_tokens=16000)) == (100, 16000)
    assert ADAPTER.codecs["embed"].batch_size(target("embed", embed_batch=2048))[0] == 256


# ----------------------------------------------------------------------------------------------------------------- replies


def test_a_chat_reply_has_its_text_its_usage_and_the_serving_model() -> None:
    reply = read_chat(chat_body("Grüße 👋"))
    assert reply == Reply("Grüße 👋", Usage(9, 4, 3, 1), "a-model-2026", "stop", "chatcmpl-1")


def test_text_in_parts_is_joined() -> None:
    parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "A"}, {"type": "text", "text": "B"}]
    reply = read_chat(chat_body(parts))
    assert isinstance(reply, Reply)
    assert reply.value == "AB"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (chat_body(None, refusal="I can't help with that."), "refusal"),
        (chat_body("half an ans", "content_filter"), "content_filter"),
        (chat_body(None), "empty"),
        (chat_body(""), "empty"),
        (chat_body("", "length"), "truncated"),
    ],
)
def test_an_answer_that_is_none_is_a_row_error_with_its_usage(body: bytes, kind: str) -> None:
    error = read_chat(body)
    assert isinstance(error, errors.RequestError)
    assert error.kind == kind
    assert error.usage.output == 3


def test_text_that_was_cut_is_kept_and_says_so() -> None:
    reply = read_chat(chat_body("Once upon", "length"))
    assert isinstance(reply, Reply)
    assert reply.finish == "length"


def embedding_body(vectors: list[Any], **usage: int) -> bytes:
    data = [{"object": "embedding", "index": number, "embedding": vector} for number, vector in enumerate(vectors)]
    return json.dumps({"data": data, "model": "m", "usage": usage}).encode()


def texts(*values: str) -> list[Request]:
    return [Request("embed", value) for value in values]


def test_lists_and_base64_are_both_read_whatever_was_asked_for() -> None:
    packed = base64.b64encode(np.array([1, 2], "<f4").tobytes()).decode()
    first, second = ADAPTER.codecs["embed"].decode(embedding_body([[1.0, 2.0], packed]), texts("a", "b"))
    assert isinstance(first, Reply)
    assert isinstance(second, Reply)
    assert np.array_equal(first.value, second.value)


def test_a_bare_nan_in_the_json_is_one_row_error() -> None:
    body = b'{"data":[{"index":0,"embedding":[1.0,2.0]},{"index":1,"embedding":[NaN,2.0]}]}'
    first, second = ADAPTER.codecs["embed"].decode(body, texts("a", "b"))
    assert isinstance(first, Reply)
    assert isinstance(second, errors.BadOutput)


def test_the_tokens_of_a_batch_are_shared_out_to_the_last_one() -> None:
    replies = ADAPTER.codecs["embed"].decode(embedding_body([[1.0], [1.0], [1.0]], prompt_tokens=100), texts("aaa", "b", "cc"))
    usages = [reply.usage for reply in replies]
    assert [usage.input for usage in usages] == [50, 16, 34]
    assert sum(usage.requests for usage in usages) == 1


@pytest.mark.parametrize("vector", [[0.0, 0.0], [1e39, 1.0], [], "!!!", None, [[1.0]], ["a"]], ids=repr)
def test_what_is_no_vector_is_a_row_error(vector: Any) -> None:
    (reply,) = ADAPTER.codecs["embed"].decode(embedding_body([vector]), texts("a"))
    assert isinstance(reply, errors.BadOutput)


def test_large_but_finite_vectors_are_vectors() -> None:
    (reply,) = ADAPTER.codecs["embed"].decode(embedding_body([[1e30, 1e30]]), texts("a"))
    assert isinstance(reply, Reply)


def test_rerank_scores_go_by_index_and_what_is_left_out_is_missing() -> None:
    results = [{"index": 2, "relevance_score": 0.9}, {"index": 0, "score": 0.1}, {"index": 7, "relevance_score": 1.0}]
    request = Request("rerank", RerankPayload("q", ("a", "b", "c")))
    body = orjson.dumps({"results": results, "usage": {"total_tokens": 12}})
    (reply,) = ADAPTER.codecs["rerank"].decode(body, [request])
    assert isinstance(reply, Reply)
    assert np.array_equal(reply.value, [0.1, np.nan, 0.9], equal_nan=True)
    assert reply.usage == Usage(input=12, requests=1)


@pytest.mark.parametrize("operation", ["chat", "embed", "rerank"])
@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b"null", b"{}", b'{"choices":"x","data":"x","results":"x"}', b"\xff\xfe"])
def test_a_body_that_is_no_answer_may_be_tried_again(operation: str, body: bytes) -> None:
    request = {"chat": prompt(), "embed": texts("a")[0], "rerank": Request("rerank", RerankPayload("q", ("a",)))}[operation]
    with pytest.raises(errors.ServerFault) as caught:
        ADAPTER.codecs[operation].decode(body, [request])
    assert caught.value.kind == "bad_response"


# ------------------------------------------------------------------------------------------------------------------ errors


def openai_error(code: Any, message: str = "no", kind: str = "invalid_request_error") -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


TPM = "Rate limit reached for gpt-4o on tokens per min (TPM): Limit 30000, Used 26107, Requested 3923. Please try again in 60ms."
BATCH = "Requested 1127189 tokens, max 300000 tokens per request"
TRIAL_MONTH = "You are using a Trial key, which is limited to 1000 API calls / month."


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (401, openai_error("invalid_api_key"), errors.KeyRejected),
        (403, openai_error("unsupported_country_region_territory"), errors.KeyRejected),
        (402, {"error": {"message": "Insufficient Balance"}}, errors.OutOfCredit),
        (404, openai_error("model_not_found"), errors.ModelGone),
        (404, b"404 page not found", errors.ModelGone),
        (429, openai_error("rate_limit_exceeded", TPM, "tokens"), errors.RateLimited),
        (429, openai_error("insufficient_quota", "You exceeded your current quota", "insufficient_quota"), errors.OutOfCredit),
        (429, {"message": TRIAL_MONTH}, errors.QuotaSpent),
        (429, [{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "Resource exhausted."}}], errors.RateLimited),
        (429, {"object": "error", "message": "Service tier capacity exceeded for this model."}, errors.Overloaded),
        (503, {"object": "error", "message": "Service tier capacity exceeded for this model."}, errors.Overloaded),
        (498, openai_error("capacity_exceeded", "The `flex` tier capacity exceeded", "capacity"), errors.Overloaded),
        (529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, errors.Overloaded),
        (500, openai_error(None, "The server had an error", "server_error"), errors.ServerFault),
        (502, b"<html><head><title>502 Bad Gateway</title></head></html>", errors.ServerFault),
        (500, {"error": "failed to encode response: json: unsupported value: NaN"}, errors.InvalidRequest),
        (504, b"", errors.TimedOut),
        (408, b"", errors.TimedOut),
        (400, openai_error("context_length_exceeded", "This model's maximum context length is 8192 tokens"), errors.ContextTooLong),
        (400, openai_error(None, "The input token count (40000) exceeds the maximum number of tokens allowed"), errors.ContextTooLong),
        (400, openai_error("content_filter", "The response was filtered"), errors.ContentBlocked),
        (400, openai_error("max_tokens_per_request", BATCH, "max_tokens_per_request"), errors.BatchTooLarge),
        (400, {"error": {"code": 400, "message": "* at most 100 requests can be in one batch"}}, errors.BatchTooLarge),
        (400, {"error": {"code": 400, "message": "no", "details": [{"reason": "API_KEY_INVALID"}]}}, errors.KeyRejected),
        (413, b"too large", errors.BatchTooLarge),
        (413, openai_error("rate_limit_exceeded", "Request too large: tokens per minute (TPM): Limit 6000"), errors.RateLimited),
        (400, openai_error(None, "'messages' is wrong"), errors.InvalidRequest),
        (422, {"detail": "unprocessable"}, errors.InvalidRequest),
        (307, b"", errors.AccessError),
        (200, {"error": {"message": "Overloaded", "type": "overloaded_error"}}, errors.Overloaded),
        (200, {"error": {"message": "Provider returned error", "code": 502}}, errors.ServerFault),
        (200, {"error": "something"}, errors.ServerFault),
    ],
)
def test_the_branch_of_an_error_is_what_should_be_done_about_it(status: int, body: Any, expected: type[LLMError]) -> None:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    error = ADAPTER.classify_error(status, {"x-request-id": "req-1"}, raw)
    assert type(error) is expected
    assert error.request_id == "req-1"


def test_the_cap_that_a_refused_batch_names_is_remembered() -> None:
    error = ADAPTER.classify_error(400, {}, orjson.dumps(openai_error("max_tokens_per_request", BATCH)))
    assert isinstance(error, errors.BatchTooLarge)
    assert error.limit == 300_000


def test_a_vendors_page_becomes_one_clean_line() -> None:
    page = b"<html><style>p {}</style><script>alert(1)</script><body>\n<h1>502 Bad Gateway</h1>" + b"x" * 5000
    message = str(ADAPTER.classify_error(502, {}, page))
    assert "502 Bad Gateway" in message
    assert not any(mark in message for mark in "<>\n")
    assert "alert" not in message
    assert len(message) < 300


def test_something_like_a_key_never_stands_in_a_message() -> None:
    echoed = openai_error("invalid_api_key", "Incorrect API key provided: sk-proj-abc123def456. You can find it at ...")
    assert "abc123" not in str(ADAPTER.classify_error(401, {}, orjson.dumps(echoed)))


# ----------------------------------------------------------------------------------------------------------------- headers


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("60ms", 0.06),
        ("2m59.56s", 179.56),
        ("1h", 3600.0),
        ("5.289s", 5.289),
        ("7", 7.0),
        ("1, 2", None),
        ("nan", None),
        ("-5", None),
        ("", None),
    ],
)
def test_durations_are_read_as_go_writes_them(text: str, seconds: float | None) -> None:
    assert duration(text) == (seconds if seconds is None else pytest.approx(seconds))


def test_milliseconds_win_over_seconds() -> None:
    assert retry_after({"retry-after-ms": "60", "retry-after": "1"}) == 0.06


def test_a_date_is_read_against_the_date_of_the_response_and_not_our_clock() -> None:
    headers = {"retry-after": "Wed, 21 Oct 2015 07:28:10 GMT", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}
    assert retry_after(headers) == 10
    assert retry_after({"retry-after": headers["retry-after"]}) is None


def test_geminis_wait_stands_in_the_body() -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "14s"}]
    error = ADAPTER.classify_error(429, {}, orjson.dumps({"error": {"code": 429, "message": "", "details": details}}))
    assert error.retry_after == 14


def test_cerebras_says_of_each_limit_whether_it_is_a_days_or_a_minutes() -> None:
    limits = read_limits(
        {
            "x-ratelimit-limit-requests-day": "14400",
            "x-ratelimit-remaining-requests-day": "14399",
            "x-ratelimit-reset-requests-day": "33011.382",
            "x-ratelimit-limit-tokens-minute": "60000",
            "x-ratelimit-remaining-tokens-minute": "59000",
        }
    )
    assert limits == Limits(requests=Allowance(14400, 14399, 33011.382, per_day=True), tokens=Allowance(60000, 59000))


def test_limits_are_read_from_openais_headers() -> None:
    limits = read_limits(
        {"x-ratelimit-limit-requests": "500", "x-ratelimit-remaining-requests": "499", "x-ratelimit-reset-requests": "120ms"}
    )
    assert limits is not None
    assert (limits.requests, limits.tokens) == (Allowance(500, 499, 0.12), None)
    assert read_limits({}) is None
