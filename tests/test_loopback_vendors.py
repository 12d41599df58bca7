"""What the server does for every vendor alike: credentials, faults and limits in the vendor's own words, and answers built from schemas."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.loopback import Answer, Errors, Loopback, LoopbackProcess, Said, Saying, Status, error_of, errors_of, fill, seconds_of, speech_of

Reply = tuple[int, dict[str, str], Any]
Post = Callable[..., Reply]
VENDORS = ("openai", "anthropic", "cohere", "voyage", "mistral", "groq", "gemini")
WIRES = (*VENDORS, "gemini-compat")
SAY = [{"role": "user", "content": "row 17 is asked for at some length"}]
OPENAI_CHAT = {"model": "m", "messages": SAY}
CHATS: dict[str, tuple[str, dict[str, Any]]] = {
    "openai": ("/openai/v1/chat/completions", OPENAI_CHAT),
    "anthropic": ("/anthropic/v1/messages", {**OPENAI_CHAT, "max_tokens": 100}),
    "cohere": ("/cohere/v2/chat", OPENAI_CHAT),
    "voyage": ("/voyage/v1/embeddings", {"model": "m", "input": ["row 17"]}),
    "mistral": ("/mistral/v1/chat/completions", OPENAI_CHAT),
    "groq": ("/groq/openai/v1/chat/completions", OPENAI_CHAT),
    "gemini": ("/gemini/v1beta/models/m:generateContent", {"contents": [{"role": "user", "parts": [{"text": SAY[0]["content"]}]}]}),
    "gemini-compat": ("/gemini/v1beta/openai/chat/completions", OPENAI_CHAT),
}
KEYS = {"anthropic": {"x-api-key": "key", "anthropic-version": "2026-10-21"}, "gemini": {"x-goog-api-key": "key"}}


def errors_at(wire: str) -> Errors:
    return errors_of(wire.removesuffix("-compat"), compat=wire.endswith("-compat"))


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback() as server:
        yield server


@pytest.fixture
def post(server: Loopback) -> Post:
    def post(wire: str, *, stream: bool = False, headers: dict[str, str] | None = None, **more: Any) -> Reply:
        path, body = CHATS[wire]
        if stream and wire == "gemini":
            path = path.replace(":generateContent", ":streamGenerateContent?alt=sse")
        elif stream:
            more["stream"] = True
        key = KEYS.get(wire, {"authorization": "Bearer key"}) if headers is None else headers
        return send(server.port, path, {**body, **more}, key)

    return post


def send(port: int, path: str, body: Any, headers: dict[str, str]) -> Reply:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", path, body if isinstance(body, bytes) else json.dumps(body).encode(), headers)
        response = connection.getresponse()
        data = response.read()
        is_json = response.headers["content-type"] == "application/json"
        return response.status, {name.lower(): value for name, value in response.getheaders()}, json.loads(data) if is_json else data
    finally:
        connection.close()


# ------------------------------------------------------------------------------------------------------- errors and faults


def test_every_vendor_has_the_same_kinds_of_error() -> None:
    first, *others = (list(errors_at(wire)) for wire in WIRES)
    assert all(kinds == first for kinds in others)
    assert errors_of("any-other") is errors_of("openai")
    with pytest.raises(KeyError, match="voyage has no refusal"):
        error_of("voyage", "refusal")


@pytest.mark.parametrize(("wire", "kind"), [(wire, kind) for wire in WIRES for kind, answer in errors_at(wire).items() if answer])
def test_each_error_meets_the_request_it_is_meant_for_once(server: Loopback, post: Post, wire: str, kind: Any) -> None:
    answer = errors_at(wire)[kind]
    assert isinstance(answer, Answer)
    server.fault("row 17", answer)
    if kind == "truncated_stream":
        with pytest.raises(http.client.IncompleteRead):
            post(wire)
    else:
        status, _, _ = post(wire)
        expected = answer.code if isinstance(answer, Status) else {"cohere": 500}.get(wire, 200) if kind == "error_in_stream" else 200
        assert status == expected
    status, _, _ = post(wire)
    assert (status, server.count("row 17")) == (200, 2)


@pytest.mark.parametrize("wire", [wire for wire in WIRES if wire != "voyage"])
def test_a_broken_stream_has_two_pieces_of_text(server: Loopback, post: Post, wire: str) -> None:
    for kind in ("error_in_stream", "truncated_stream"):
        server.fault(None, error_of(wire.removesuffix("-compat"), kind, compat=wire.endswith("-compat")))
    status, _, data = post(wire, stream=True)
    first, second = b"answer t", b"o: row 1"
    assert (status, first in data, second in data, b"7 is ask" in data) == (200, True, True, False)
    assert b"rror" in data.split(second)[1]
    with pytest.raises(http.client.IncompleteRead) as caught:
        post(wire, stream=True)
    assert second in caught.value.partial and b"rror" not in caught.value.partial


def test_a_whole_stream_does_not_break(server: Loopback, post: Post) -> None:
    for wire in WIRES:
        if wire != "voyage":
            assert b"7 is ask" in post(wire, stream=True)[2]


def test_a_fault_can_put_words_into_any_vendors_mouth(server: Loopback, post: Post) -> None:
    for wire in WIRES:
        if wire != "voyage":
            server.fault(None, Saying(Said("other words", reason="length")))
            assert "other words" in json.dumps(post(wire)[2])


def test_an_answer_replaced_by_the_test_is_said_on_every_wire(server: Loopback, post: Post) -> None:
    server.answer = lambda body: "replaced"
    for wire in WIRES:
        assert "replaced" in json.dumps(post(wire)[2]) or wire == "voyage"


# ------------------------------------------------------------------------------------------------------------- credentials


@pytest.mark.parametrize("wire", WIRES)
def test_a_request_without_a_credential_is_not_served(server: Loopback, post: Post, wire: str) -> None:
    status, _, body = post(wire, headers={})
    assert status == (403 if wire.startswith("gemini") else 401)
    assert "answer to" not in json.dumps(body)
    assert server.seen[0].vendor == wire.removesuffix("-compat")


def test_a_credential_in_another_vendors_header_is_none(server: Loopback, post: Post) -> None:
    assert post("openai", headers={"x-api-key": "key"})[0] == 401
    assert post("gemini", headers={"authorization": "Bearer key"})[0] == 403
    assert post("anthropic", headers={"x-api-key": "key"})[2]["error"]["message"] == "anthropic-version: header is required"


@pytest.mark.parametrize("wire", WIRES)
def test_only_the_right_key_is_let_in_by_any_vendor(server: Loopback, post: Post, wire: str) -> None:
    server.key = "another"
    refusal = errors_at(wire)["bad_key"]
    assert isinstance(refusal, Status)
    status, _, body = post(wire)
    assert (status, body) == (refusal.code, refusal.body)
    server.key = "key"
    assert post(wire)[0] == 200


def test_other_vendors_of_openais_format_need_no_key_and_keep_their_names(server: Loopback) -> None:
    assert server.compat_url_of("together") == server.url_of("together") == f"http://127.0.0.1:{server.port}/compat/together/v1"
    assert send(server.port, "/compat/together/v1/chat/completions", OPENAI_CHAT, {})[0] == 200
    assert server.seen[0].vendor == "together"


# ------------------------------------------------------------------------------------------------------------------ limits


@pytest.mark.parametrize("wire", WIRES)
def test_a_limit_is_enforced_in_the_vendors_words(server: Loopback, post: Post, wire: str) -> None:
    server.rate_limit(per_second=1 / 60, window="minute_bucket", headers=True)
    assert post(wire)[0] == 200
    status, _, refused = post(wire)
    verbatim = errors_at(wire)["rate_limited"]
    assert isinstance(verbatim, Status)
    assert (status, server.rate_limited_count) == (429, 1)
    body = json.loads(json.dumps(verbatim.body))
    assert type(body) is type(refused) and (isinstance(body, list) or body.keys() == refused.keys())


def test_anthropic_tells_what_is_left_in_its_own_headers(server: Loopback, post: Post) -> None:
    server.rate_limit(per_second=2 / 60, window="minute_bucket", headers=True)
    headers = post("anthropic")[1]
    assert (headers["anthropic-ratelimit-requests-limit"], headers["anthropic-ratelimit-requests-remaining"]) == ("2", "1")
    assert headers["anthropic-ratelimit-requests-reset"].endswith("Z")
    post("anthropic")
    assert int(post("anthropic")[1]["retry-after"]) > 0


# ------------------------------------------------------------------------------------------------------------------- wires


def test_a_path_that_a_vendor_lacks_is_a_404_in_its_shape(server: Loopback) -> None:
    for path in ("/openai/v1/rerank", "/groq/openai/v1/embeddings", "/gemini/v1beta/openai/audio/speech"):
        assert send(server.port, path, {"model": "m"}, {"authorization": "Bearer key"})[0] == 404
    status, _, body = send(server.port, "/anthropic/v1/complete", {}, KEYS["anthropic"])
    assert (status, body["error"]["type"]) == (404, "not_found_error")


def test_a_body_that_is_no_json_is_refused_in_the_vendors_shape(server: Loopback) -> None:
    for wire in WIRES:
        status, _, body = send(server.port, CHATS[wire][0], b"{", KEYS.get(wire, {"authorization": "Bearer key"}))
        assert (status, type(body)) == (400, list if wire == "gemini-compat" else dict)


def test_a_form_keeps_the_bytes_of_its_file(server: Loopback) -> None:
    data = bytes(range(256)) + b"\r\n--edge\r\n--\r\n"
    head = b'--edge-2\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n--edge-2\r\nContent-Disposition: form-data; '
    body = head + b'name="file"; filename="a.bin"\r\nContent-Type: audio/mpeg\r\n\r\n' + data + b"\r\n--edge-2--\r\n"
    headers = {"content-type": "multipart/form-data; boundary=edge-2"}
    status, _, heard = send(server.port, "/v1/audio/transcriptions", body, headers)
    file = server.seen[0].body["file"]
    assert (status, file.data, file.name, file.media_type) == (200, data, "a.bin", "audio/mpeg")
    assert heard["text"] == f"whisper-1 heard a.bin, {len(data)} bytes"


def test_a_form_that_is_cut_off_is_refused(server: Loopback) -> None:
    body = b'--edge\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1'
    assert send(server.port, "/v1/audio/transcriptions", body, {"content-type": "multipart/form-data; boundary=edge"})[0] == 400


def test_an_answer_ends_where_max_tokens_says(server: Loopback, post: Post) -> None:
    choice = post("openai", max_tokens=2)[2]["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("answer t", "length")
    assert post("anthropic", max_tokens=2)[2]["stop_reason"] == "max_tokens"
    assert post("gemini", generationConfig={"maxOutputTokens": 2})[2]["candidates"][0]["finishReason"] == "MAX_TOKENS"


def test_anthropic_pings_and_names_its_events(post: Post) -> None:
    data = post("anthropic", stream=True)[2].decode()
    names = [line.removeprefix("event: ") for line in data.splitlines() if line.startswith("event: ")]
    assert names[:3] == ["message_start", "content_block_start", "ping"]
    assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"]


def test_results_without_their_calls_are_refused(post: Post) -> None:
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "3"}
    assert "unexpected `tool_use_id`" in post("anthropic", messages=[{"role": "user", "content": [result]}])[2]["error"]["message"]
    call = {"type": "tool_use", "id": "toolu_1", "name": "add", "input": {}}
    unanswered = [*SAY, {"role": "assistant", "content": [call]}, *SAY]
    assert "without `tool_result` blocks" in post("anthropic", messages=unanswered)[2]["error"]["message"]
    call = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    unanswered = [*SAY, {"role": "assistant", "content": None, "tool_calls": [call]}, *SAY]
    assert "must be followed by tool messages" in post("openai", messages=unanswered)[2]["error"]["message"]


def test_a_process_of_its_own_has_every_vendor() -> None:
    with LoopbackProcess() as process:
        assert process.url_of("anthropic") == f"http://127.0.0.1:{process.port}/anthropic"
        process.set(cached_tokens=7)
        path, body = CHATS["anthropic"]
        assert send(process.port, path, body, KEYS["anthropic"])[2]["usage"]["cache_read_input_tokens"] == 7
        assert process.compat_url_of("groq").endswith("/groq/openai/v1")


# ----------------------------------------------------------------------------------------------------------------- schemas


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "string"}, "The cat is 42 years"),
        ({"type": "string", "maxLength": 3}, "The"),
        ({"type": "string", "minLength": 25}, "The cat is 42 years......"),
        ({"type": "string", "format": "date"}, "2026-11-21"),
        ({"type": "integer"}, 42),
        ({"type": "number", "maximum": 10}, 10),
        ({"type": "integer", "exclusiveMinimum": 50}, 51),
        ({"type": "integer", "multipleOf": 5}, 40),
        ({"type": "boolean"}, False),
        ({"type": "null"}, None),
        ({"type": ["null", "integer"]}, 42),
        ({"enum": ["dog", "cat"]}, "cat"),
        ({"enum": ["dog", "at"]}, "dog"),
        ({"enum": [1, 42]}, 42),
        ({"const": "x"}, "x"),
        ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, 42),
        ({"allOf": [{"type": "integer"}], "maximum": 7}, 7),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [42, 42]),
        ({"type": "array", "items": {"type": "integer"}, "maxItems": 0}, []),
        ({"type": "array", "prefixItems": [{"type": "integer"}, {"const": 1}], "minItems": 2}, [42, 1]),
        ({"type": "OBJECT", "properties": {"age": {"type": "INTEGER"}}}, {"age": 42}),
        ({"$ref": "#/$defs/Age", "$defs": {"Age": {"type": "integer"}}}, 42),
    ],
)
def test_a_schema_is_filled_from_the_text(schema: dict[str, Any], expected: Any) -> None:
    assert fill(schema, "The cat is 42 years old") == expected


def test_a_recursive_schema_comes_to_an_end() -> None:
    node = {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]}}, "required": ["next"]}
    value, depth = fill({"$ref": "#/$defs/Node", "$defs": {"Node": node}}, "x"), 0
    while value is not None:
        value, depth = value["next"], depth + 1
    assert 0 < depth < 10


@given(st.integers(-100, 100), st.integers(0, 50), st.text())
def test_a_number_is_within_its_bounds(low: int, span: int, text: str) -> None:
    assert low <= fill({"type": "integer", "minimum": low, "maximum": low + span}, text) <= low + span


def test_speech_lasts_50_milliseconds_a_character() -> None:
    assert seconds_of(speech_of("hello", "anyone", "wav")) == pytest.approx(0.25)
    assert seconds_of(b"no recording" * 4000) == 3.0
