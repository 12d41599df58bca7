"""The pretend provider is believed by the official SDK, and does wrong exactly when it is told to."""

from __future__ import annotations

import base64
import contextlib
import gzip
import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from openai.types.chat import ChatCompletion

from tests import loopback
from tests.loopback import Loopback, LoopbackProcess, Status, go_duration, vector_of

Post = Callable[..., tuple[int, dict[str, str], bytes]]


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback() as server:
        yield server


@pytest.fixture
def client(server: Loopback) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.url, api_key="sk-test", max_retries=0, timeout=10) as client:
        yield client


@pytest.fixture
def post(server: Loopback) -> Post:
    """Bare HTTP, where the SDK would hide the wire."""

    def post(path: str, body: Any = None, method: str = "POST", **options: Any) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        try:
            data = body if isinstance(body, bytes) or options else json.dumps(body).encode()
            connection.request(method, path, data, **options)
            response = connection.getresponse()
            return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
        finally:
            connection.close()

    return post


def chat(text: str) -> dict[str, Any]:
    return {"model": "test-chat", "messages": [{"role": "user", "content": text}]}


def ask(client: openai.OpenAI, text: str) -> str | None:
    reply: ChatCompletion = client.chat.completions.create(**chat(text))
    return reply.choices[0].message.content


# --- ordinary service


def test_chat_answers_the_last_user_message(server: Loopback, client: openai.OpenAI) -> None:
    system = {"role": "system", "content": "Be brief."}
    parts = {"role": "user", "content": [{"type": "text", "text": "row 17 ünïcode 🐍"}]}
    reply = client.chat.completions.create(model="some-model", messages=[system, parts])  # type: ignore[list-item]
    assert "answer to: row 17 ünïcode 🐍" == reply.choices[0].message.content
    assert ("some-model", "stop", 0) == (reply.model, reply.choices[0].finish_reason, reply.choices[0].index)
    assert reply.usage is not None and reply.usage.prompt_tokens_details is not None
    assert (6, 6, 12, 0) == (
        reply.usage.prompt_tokens,
        reply.usage.completion_tokens,
        reply.usage.total_tokens,
        reply.usage.prompt_tokens_details.cached_tokens,
    )
    assert f"req_{1:032x}" == reply._request_id


def test_the_answer_can_be_replaced(server: Loopback, client: openai.OpenAI) -> None:
    server.answer = lambda body: body["model"].upper()
    assert "TEST-CHAT" == ask(client, "hello")


def test_a_streamed_chat_is_the_same_text_in_pieces_and_ends_with_its_usage(client: openai.OpenAI) -> None:
    with client.chat.completions.create(**chat("row 17 🐍"), stream=True, stream_options={"include_usage": True}) as stream:
        *chunks, last = list(stream)
    assert "answer to: row 17 🐍" == "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert len(chunks) > 3
    assert "assistant" == chunks[0].choices[0].delta.role
    assert [None] * (len(chunks) - 1) + ["stop"] == [chunk.choices[0].finish_reason for chunk in chunks]
    assert [] == last.choices
    assert last.usage is not None and last.usage.total_tokens == last.usage.prompt_tokens + last.usage.completion_tokens


def test_a_stream_without_include_usage_has_none(client: openai.OpenAI) -> None:
    with client.chat.completions.create(**chat("row 17"), stream=True) as stream:
        assert all(chunk.usage is None and chunk.choices for chunk in stream)


@pytest.mark.parametrize("encoding", ["base64", "float", openai.omit])
def test_embeddings_are_exact_as_float32_in_either_encoding(client: openai.OpenAI, encoding: Any) -> None:
    texts = ["one", "two", "zwölf"]
    reply = client.embeddings.create(model="test-embed", input=texts, encoding_format=encoding)
    assert [0, 1, 2] == [item.index for item in reply.data]
    for text, item in zip(texts, reply.data, strict=True):
        vector: Any = item.embedding
        if isinstance(vector, str):  # the SDK decodes base64 only where it chose it itself
            vector = np.frombuffer(base64.b64decode(vector), "<f4")
        assert np.array_equal(vector_of(text), np.asarray(vector, dtype=np.float32))


def test_one_text_is_a_batch_of_one_and_dimensions_are_honoured(server: Loopback, client: openai.OpenAI) -> None:
    reply = client.embeddings.create(model="test-embed", input="one", dimensions=3)
    assert np.array_equal(vector_of("one", 3), np.asarray(reply.data[0].embedding, dtype=np.float32))
    server.dimensions = 5
    assert 5 == len(client.embeddings.create(model="test-embed", input="one").data[0].embedding)


def test_vectors_have_norm_one_and_differ_by_text() -> None:
    assert np.linalg.norm(vector_of("a", 1536)) == pytest.approx(1)
    assert not np.array_equal(vector_of("a"), vector_of("b"))
    assert np.dtype("float32") == vector_of("a").dtype


def test_shuffled_embeddings_keep_their_indexes(server: Loopback, client: openai.OpenAI) -> None:
    server.shuffle_embeddings = True
    texts = ["zero", "one", "two", "three"]
    data = client.embeddings.create(model="test-embed", input=texts).data
    assert [1, 3, 0, 2] == [item.index for item in data]
    assert all(np.array_equal(vector_of(texts[item.index]), np.asarray(item.embedding, np.float32)) for item in data)


def test_embeddings_can_be_corrupted_before_they_are_encoded(server: Loopback, client: openai.OpenAI) -> None:
    def corrupt(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        items[0]["embedding"][2] = np.nan
        items[1]["embedding"] = items[1]["embedding"][:-1]
        return items[:2]

    server.corrupt_embeddings = corrupt
    data = client.embeddings.create(model="test-embed", input=["a", "b", "c"]).data
    assert [8, 7] == [len(item.embedding) for item in data]
    assert np.isnan(data[0].embedding[2])


@pytest.mark.parametrize("texts", [[], ["a", ""], ["a"] * 2049, [[1, 2]]])
def test_inputs_that_openai_refuses_are_refused(client: openai.OpenAI, texts: Any) -> None:
    with pytest.raises(openai.BadRequestError, match=r"\$\.input"):
        client.embeddings.create(model="test-embed", input=texts)


def test_rerank_puts_the_shared_words_first(post: Post) -> None:
    documents = ["the weather", {"text": "battery problems"}, "problems of a battery"]
    body = {"model": "test-rerank", "query": "Battery problems", "documents": documents, "top_n": 2}
    status, _, answer = post("/v1/rerank", body)
    results = json.loads(answer)["results"]
    assert 200 == status
    assert [{"index": 1, "relevance_score": 1.0}, {"index": 2, "relevance_score": 0.5}] == results

    results = json.loads(post("/v1/rerank", {**body, "return_documents": True})[2])["results"]
    assert {"text": "battery problems"} == results[0]["document"]


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert ["test-chat", "test-embed", "test-rerank"] == [model.id for model in client.models.list()]


def test_an_unknown_path_and_bad_json_are_refused_in_openais_shape(post: Post) -> None:
    status, _, answer = post("/v1/nope", {})
    assert (404, "Invalid URL (POST /v1/nope)") == (status, json.loads(answer)["error"]["message"])
    status, _, answer = post("/v1/chat/completions", b'{"model": ')
    assert (400, "invalid_request_error") == (status, json.loads(answer)["error"]["type"])
    assert 400 == post("/v1/chat/completions", {"model": "no messages"})[0]


def test_only_the_right_key_is_let_in(server: Loopback, client: openai.OpenAI) -> None:
    server.key = "another"
    with pytest.raises(openai.AuthenticationError):
        ask(client, "row 1")
    server.key = "sk-test"
    assert "answer to: row 1" == ask(client, "row 1")


def test_a_chunked_body_in_small_pieces_is_one_request(server: Loopback, post: Post) -> None:
    data = json.dumps(chat("row 17 " + "x" * 70_000)).encode()
    pieces = iter([data[at : at + 1000] for at in range(0, len(data), 1000)])
    headers = {"CONTENT-TYPE": "application/json", "Transfer-Encoding": "chunked"}
    assert 200 == post("/v1/chat/completions", pieces, headers=headers, encode_chunked=True)[0]
    assert 1 == server.requests == server.count("row 17")
    assert "application/json" == server.seen[0].headers["content-type"]


def test_a_connection_is_kept_for_the_next_request(server: Loopback) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.connect()
    first = connection.sock
    for text in ("row 1", "row 2"):
        connection.request("POST", "/v1/chat/completions", json.dumps(chat(text)))
        assert f"answer to: {text}".encode() in connection.getresponse().read()
    assert first is connection.sock
    connection.close()


# --- what was seen


def test_requests_are_seen_with_their_texts_and_times(server: Loopback, client: openai.OpenAI) -> None:
    before = time.monotonic()
    ask(client, "row 17")
    client.embeddings.create(model="test-embed", input=["row 17", "row 18"])
    chatted, embedded = server.seen
    assert ("/v1/chat/completions", "/v1/embeddings") == (chatted.path, embedded.path)
    assert (["row 17"], ["row 17", "row 18"]) == (chatted.texts, embedded.texts)
    assert ("Bearer sk-test", "test-chat") == (chatted.headers["authorization"], chatted.body["model"])
    assert chatted.answered_at is not None and before <= chatted.at <= chatted.answered_at <= embedded.at
    assert (2, 2, 1) == (server.requests, server.count("row 17"), server.count("row 18"))
    assert 2 == server.texts["row 17"]


def test_without_keep_seen_the_counters_remain(server: Loopback, client: openai.OpenAI) -> None:
    server.keep_seen = False
    ask(client, "row 17")
    assert ([], 1, 1) == (server.seen, server.requests, server.count("row 17"))


def test_reset_forgets_what_was_seen_and_the_faults(server: Loopback, client: openai.OpenAI) -> None:
    server.fault(None, loopback.server_error(), times=float("inf"))
    with pytest.raises(openai.InternalServerError):
        ask(client, "row 17")
    server.reset()
    assert (0, 0, [], 0) == (server.requests, server.count("row 17"), server.seen, server.max_in_flight)
    assert "answer to: row 17" == ask(client, "row 17")


def test_held_requests_are_counted_and_answered_on_release(server: Loopback, client: openai.OpenAI) -> None:
    server.hold()
    with ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(ask, client, f"row {row}") for row in range(3)]
        server.wait_for(3)
        assert (3, 3) == (server.requests, server.in_flight)
        assert all(request.answered_at is None for request in server.seen)
        server.fault("row 1", loopback.Json(_completion("late fault")))
        server.release()
        assert ["answer to: row 0", "late fault", "answer to: row 2"] == [answer.result() for answer in answers]
    assert (0, 3) == (server.in_flight, server.max_in_flight)


def _completion(text: str) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    return {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}


def test_waiting_for_requests_that_do_not_come_is_an_assertion_error(server: Loopback) -> None:
    with pytest.raises(AssertionError, match="1 requests expected within 0.01 s, 0 seen"):
        server.wait_for(1, timeout=0.01)


def test_a_client_that_goes_away_is_no_longer_in_flight(server: Loopback) -> None:
    server.hold()
    data = json.dumps(chat("row 1")).encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as plug:
        plug.sendall(b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n%s" % (len(data), data))
        server.wait_for(1)
        assert 1 == server.in_flight
        plug.shutdown(socket.SHUT_WR)
        assert b"" == plug.recv(1)
    assert 0 == server.in_flight
    assert server.seen[0].answered_at is None


def test_latency_is_waited_out_before_the_answer(server: Loopback, client: openai.OpenAI) -> None:
    server.latency = lambda request: 0.05 if "slow" in request.texts[0] else 0.0
    ask(client, "slow")
    ask(client, "quick")
    slow, quick = (request.answered_at - request.at for request in server.seen if request.answered_at is not None)
    assert slow >= 0.05
    assert slow > quick


# --- faults


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (loopback.rate_limited(), openai.RateLimitError),
        (loopback.rate_limited(retry_after="1"), openai.RateLimitError),
        (loopback.groq_rate_limited(), openai.RateLimitError),
        (loopback.no_credit(), openai.RateLimitError),
        (loopback.bad_key(), openai.AuthenticationError),
        (loopback.unknown_model(), openai.NotFoundError),
        (loopback.batch_too_large(), openai.BadRequestError),
        (loopback.server_error(), openai.InternalServerError),
        (loopback.html_502(), openai.InternalServerError),
        (loopback.overloaded(), openai.InternalServerError),
        (Status(200, b'{"id": "\xff\xfe\xc3\x28"}'), UnicodeDecodeError),
        (loopback.Raw(b"HTTP/1.1 nonsense\r\n\r\n"), openai.APIConnectionError),
        (loopback.Reset(), openai.APIConnectionError),
        (loopback.Close(), openai.APIConnectionError),
        (loopback.CloseMidBody(0.5), openai.APIConnectionError),
    ],
    ids=lambda value: getattr(value, "__name__", None) or f"{type(value).__name__}-{getattr(value, 'code', '')}",
)
def test_each_fault_becomes_its_exception_once(
    server: Loopback, client: openai.OpenAI, answer: loopback.Answer, expected: type[Exception]
) -> None:
    server.fault("row 17", answer)
    assert "answer to: row 1" == ask(client, "row 1")
    with pytest.raises(expected):
        ask(client, "row 17")
    assert "answer to: row 17" == ask(client, "row 17")
    assert (2, 3, 0) == (server.count("row 17"), server.requests, server.in_flight)


def test_the_providers_hints_travel_in_headers(server: Loopback, post: Post) -> None:
    server.fault(None, loopback.rate_limited(250), loopback.rate_limited(retry_after="nan"), loopback.overloaded(False))
    first, second, third = (post("/v1/chat/completions", chat("row 1"))[:2] for _ in range(3))
    assert (429, "250", "250ms") == (first[0], first[1]["retry-after-ms"], first[1]["x-ratelimit-reset-tokens"])
    assert (429, "nan") == (second[0], second[1]["retry-after"])
    assert (529, "false", "req_018EeWyXxfu5pfWkrYcMdjWG") == (third[0], third[1]["x-should-retry"], third[1]["request-id"])


def test_the_sdk_retries_what_it_should_and_gets_through(server: Loopback, client: openai.OpenAI) -> None:
    server.fault("row 17", loopback.rate_limited(retry_after_ms=1), times=2)
    assert "answer to: row 17" == ask(client.with_options(max_retries=2), "row 17")
    assert 3 == server.count("row 17")


def test_a_refusal_is_a_200(server: Loopback, client: openai.OpenAI) -> None:
    server.fault("row 17", loopback.refusal())
    choice = client.chat.completions.create(**chat("row 17")).choices[0]
    assert ("content_filter", None) == (choice.finish_reason, choice.message.content)
    assert choice.message.refusal


def test_answers_are_given_in_order_and_repeated_as_told(server: Loopback, post: Post) -> None:
    server.fault("row", Status(500), Status(503), times=2)
    server.fault("row 1", Status(418))
    server.fault(None, Status(404), times=float("inf"))
    statuses = [post("/v1/chat/completions", chat("row 1"))[0] for _ in range(7)]
    assert [500, 503, 500, 503, 418, 404, 404] == statuses
    server.clear_faults()
    assert 200 == post("/v1/chat/completions", chat("row 1"))[0]


def test_a_fault_meets_the_batch_that_holds_its_text(server: Loopback, client: openai.OpenAI) -> None:
    server.fault("row 3", loopback.batch_too_large(), times=float("inf"))
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model="test-embed", input=["row 1", "row 2", "row 3"])
    assert 2 == len(client.embeddings.create(model="test-embed", input=["row 1", "row 2"]).data)


def test_a_hanging_request_ends_with_the_server(server: Loopback, client: openai.OpenAI) -> None:
    server.fault(None, loopback.Hang())
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, client, "row 17")
        server.wait_for(1)
        server.stop()
        with pytest.raises(openai.APIConnectionError):
            answer.result()
    assert 0 == server.in_flight


def test_a_dripping_answer_comes_byte_by_byte_and_is_whole_in_the_end(server: Loopback, client: openai.OpenAI) -> None:
    server.fault(None, loopback.Drip(0.0))
    assert "answer to: row 17" == ask(client, "row 17")
    server.fault(None, loopback.Drip(3600.0))
    data = json.dumps(chat("row 18")).encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as plug:
        plug.sendall(b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n%s" % (len(data), data))
        assert b"H" == plug.recv(1000)
        assert 1 == server.in_flight


def test_a_gzip_bomb_is_small_on_the_wire_and_valid_json_inside(server: Loopback, post: Post) -> None:
    server.fault(None, loopback.GzipBomb(4))
    status, headers, packed = post("/v1/chat/completions", chat("row 17"))
    assert (200, "gzip", "application/json") == (status, headers["content-encoding"], headers["content-type"])
    assert len(packed) < 4 * 2048
    content = json.loads(gzip.decompress(packed))["choices"][0]["message"]["content"]
    assert 4 * 2**20 == len(content)


def test_a_function_of_the_test_that_fails_is_seen_at_once(server: Loopback, client: openai.OpenAI) -> None:
    server.answer = lambda body: str(1 / 0)
    with pytest.raises(openai.BadRequestError, match="ZeroDivisionError"):
        ask(client, "row 17")


# --- rate limits


def test_a_second_admits_so_many_and_no_more(server: Loopback, post: Post) -> None:
    server.rate_limit(per_second=5)
    answers = [post("/v1/chat/completions", chat(f"row {row}")) for row in range(8)]
    assert [200] * 5 + [429] * 3 == [status for status, _, _ in answers]
    assert 3 == server.rate_limited_count
    error = json.loads(answers[-1][2])["error"]
    assert ("rate_limit_exceeded", "requests") == (error["code"], error["type"])
    assert "requests per min (RPM): Limit 300, Used 300, Requested 1. Please try again in" in error["message"]
    assert not any(name.startswith(("x-ratelimit", "retry")) for name in answers[-1][1])
    server.rate_limit()
    assert 200 == post("/v1/chat/completions", chat("row 9"))[0]


def test_who_waits_as_long_as_told_is_let_in(server: Loopback, client: openai.OpenAI) -> None:
    server.rate_limit(per_second=3, headers=True)
    for row in range(5):
        assert f"answer to: row {row}" == ask(client.with_options(max_retries=1), f"row {row}")
    assert 1 == server.rate_limited_count


def test_a_minute_bucket_starts_full_and_says_what_is_left(server: Loopback, post: Post) -> None:
    server.rate_limit(per_second=1 / 60 * 3, headers=True, window="minute_bucket", tokens_per_minute=40_000)
    answers = [post("/v1/chat/completions", chat("x" * 4000)) for _ in range(4)]
    assert [200, 200, 200, 429] == [status for status, _, _ in answers]
    assert ["2", "1", "0", "0"] == [headers["x-ratelimit-remaining-requests"] for _, headers, _ in answers]
    assert ("3", "40000") == (answers[0][1]["x-ratelimit-limit-requests"], answers[0][1]["x-ratelimit-limit-tokens"])
    assert "39000" == answers[0][1]["x-ratelimit-remaining-tokens"]
    assert 19 < float(answers[0][1]["x-ratelimit-reset-requests"].removesuffix("s")) <= 20
    assert 15_000 < int(answers[3][1]["retry-after-ms"]) <= 20_000


def test_tokens_are_the_larger_of_the_estimate_and_max_tokens(server: Loopback, post: Post) -> None:
    server.rate_limit(tokens_per_minute=1000)
    assert 200 == post("/v1/chat/completions", {**chat("short"), "max_tokens": 900})[0]
    status, _, answer = post("/v1/chat/completions", chat("x" * 800))
    assert (429, "tokens") == (status, json.loads(answer)["error"]["type"])
    assert 200 == post("/v1/chat/completions", chat("x" * 200))[0]


def test_durations_are_written_as_go_writes_them() -> None:
    expected = ["0s", "60ms", "1ms", "1s", "5.289s", "6m0s", "2m59.56s", "1h0m0s"]
    assert expected == [go_duration(seconds) for seconds in (0, 0.06, 0.0001, 1, 5.289, 360, 179.56, 3600)]


# --- threads and processes


def test_stop_leaves_nothing_and_start_takes_the_same_port_again() -> None:
    server = Loopback()
    server.start()
    port = server.port
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plug:
        server.stop()
        server.stop()
        assert not [thread for thread in threading.enumerate() if thread.name == "loopback"]
        with contextlib.suppress(ConnectionResetError):
            assert b"" == plug.recv(1)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    with server:
        assert port == server.port


def test_a_taken_port_is_said_where_it_was_asked_for(server: Loopback) -> None:
    with pytest.raises(OSError, match="address already in use"):
        Loopback(server.port).start()


def test_a_process_of_its_own_is_asked_and_set_over_the_wire() -> None:
    with LoopbackProcess() as process, openai.OpenAI(base_url=process.url, api_key="sk", max_retries=0) as client:
        assert "answer to: row 17" == ask(client, "row 17")
        stats = process.stats()
        assert (1, 1, {"row 17": 1}) == (stats["requests"], stats["max_in_flight"], stats["texts"])
        process.set(latency=0.001, rate_limit={"per_second": 1 / 60, "window": "minute_bucket"})
        ask(client, "row 18")
        with pytest.raises(openai.RateLimitError):
            ask(client, "row 19")
        assert 1 == process.stats()["rate_limited_count"]
        with pytest.raises(ValueError, match="No such setting: colour"):
            process.set(colour="red")
        process.reset()
        assert 0 == process.stats()["requests"]
    assert 0 == process._process.returncode


def test_the_port_file_is_there_when_the_port_is_printed(tmp_path: Path) -> None:
    path = tmp_path / "port"
    command = [sys.executable, "-m", "tests.loopback", "--port-file", str(path)]
    root = Path(__file__).parent.parent
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == path.read_text()
        process.communicate(timeout=10)
    assert 0 == process.returncode
