"""Voyage's wire: bodies out, bodies in, and which branch an error body belongs to. Sockets only where the SDK posts by itself."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import numpy as np
import orjson
import pytest
import voyageai

from llmkit import errors
from llmkit.adapter import Target
from llmkit.errors import LLMError
from llmkit.operations.chat import Image, Text
from llmkit.operations.rerank import RerankPayload
from llmkit.providers.voyage import adapter
from llmkit.types import Model, Provider, Reply, Request, Secret, Usage

ADAPTER = adapter()
KEY = "test-key-of-voyage"
USUAL = "https://api.voyageai.com/v1"
OPERATIONS = [("embed", "/embeddings"), ("embed_images", "/multimodalembeddings"), ("rerank", "/rerank")]


def target(operation: str = "embed", base_url: str = USUAL, key: str = KEY, model: str = "voyage-4") -> Target:
    provider = Provider("voyage", base_url, protocol="voyage")
    return Target(Model("voyage", model), provider, ADAPTER, ADAPTER.codecs[operation], Secret(key))


def sent(operation: str, *requests: Request) -> dict[str, Any]:
    body = json.loads(ADAPTER.codecs[operation].encode(requests, target(operation)))
    assert isinstance(body, dict)
    return body


# ---------------------------------------------------------------------------------------------------------------- address


@pytest.mark.parametrize(("operation", "path"), OPERATIONS)
def test_each_operation_is_addressed_by_the_official_sdk(operation: str, path: str) -> None:
    template = ADAPTER.connect(target(operation))  # type: ignore[misc]
    assert template.url == USUAL + path
    assert template.headers == {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    assert KEY not in repr(template)


@pytest.mark.parametrize("base_url", [USUAL, USUAL + "/"])
def test_a_key_of_mongodb_atlas_goes_to_mongodb(base_url: str) -> None:
    assert ADAPTER.connect(target(base_url=base_url, key="al-a-key")).url == "https://ai.mongodb.com/v1/embeddings"  # type: ignore[misc]


def test_an_address_that_was_chosen_stands_whatever_the_key() -> None:
    template = ADAPTER.connect(target("rerank", "http://127.0.0.1:8000/v1/", "al-a-key"))  # type: ignore[misc]
    assert template.url == "http://127.0.0.1:8000/v1/rerank"


def test_a_server_without_a_key_gets_no_authorization_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOYAGE_API_KEY", "key-of-the-environment")
    template = ADAPTER.connect(replace(target(base_url="http://127.0.0.1:8000/v1"), secret=None))  # type: ignore[misc]
    assert template.headers == {"Content-Type": "application/json"}


def test_connecting_leaves_the_callers_own_session_alone() -> None:
    ADAPTER.connect(target())  # type: ignore[misc]
    assert voyageai.aiosession.get() is None


def test_no_log_line_holds_the_key(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    ADAPTER.connect(target())  # type: ignore[misc]
    assert KEY not in caplog.text


def test_the_official_client_has_our_key_and_address_and_does_not_try_again() -> None:
    assert ADAPTER.client is not None
    for is_async, kind in ((False, voyageai.Client), (True, voyageai.AsyncClient)):
        client = ADAPTER.client(target(base_url="http://127.0.0.1:8000/v1"), is_async)
        assert type(client) is kind
        assert (client.api_key, client.max_retries) == (KEY, 0)
        assert client._params["base_url"] == "http://127.0.0.1:8000/v1"
        assert KEY not in repr(client)


# ------------------------------------------------------------------------------------------------------------- embeddings


def texts(*given: str, **options: Any) -> list[Request]:
    return [Request("embed", text, options) for text in given]


def packed(*values: float) -> str:
    return base64.b64encode(np.asarray(values, "<f4").tobytes()).decode()


def embed_body(*vectors: Any, tokens: Any = 10) -> bytes:
    data = [{"object": "embedding", "embedding": vector, "index": at} for at, vector in reversed(list(enumerate(vectors)))]
    usage = {} if tokens is None else {"total_tokens": tokens}
    return orjson.dumps({"object": "list", "data": data, "model": "voyage-4-2026", "usage": usage})


def test_embeddings_are_asked_for_packed_and_never_cut() -> None:
    assert sent("embed", *texts("a", "b")) == {
        "model": "voyage-4",
        "input": ["a", "b"],
        "encoding_format": "base64",
        "input_type": "document",
        "truncation": False,
    }
    assert sent("embed", *texts("a", dimensions=256))["output_dimension"] == 256


@pytest.mark.parametrize(
    ("given", "word"), [(None, "document"), ("document", "document"), ("query", "query"), ("classification", None), ("clustering", None)]
)
def test_what_a_text_is_embedded_for_has_voyages_word_or_none(given: str | None, word: str | None) -> None:
    assert sent("embed", *texts("a", input_type=given))["input_type"] == word


def test_equal_requests_have_equal_bytes() -> None:
    encode = ADAPTER.codecs["embed"].encode
    assert encode(texts("a"), target()) == encode(texts("a"), target())


@pytest.mark.parametrize(
    ("model", "tokens"),
    [
        ("voyage-4-lite", 1_000_000),
        ("voyage-3.5-lite", 1_000_000),
        ("voyage-4", 320_000),
        ("voyage-4-large", 120_000),
        ("unheard-of", 120_000),
    ],
)
def test_a_batch_keeps_to_what_the_model_takes_at_once(model: str, tokens: int) -> None:
    assert ADAPTER.codecs["embed"].batch_size(target(model=model)) == (256, tokens)


@pytest.mark.parametrize("vectors", [(packed(1, 2), packed(3, 4)), ([1, 2], [3, 4])])
def test_vectors_go_to_their_texts_by_index_and_share_the_bill_by_length(vectors: Any) -> None:
    first, second = ADAPTER.codecs["embed"].decode(embed_body(*vectors), texts("aaaa", "b"))
    assert isinstance(first, Reply)
    assert isinstance(second, Reply)
    assert first.value.dtype == np.float32
    assert (first.value.tolist(), second.value.tolist()) == ([1, 2], [3, 4])
    assert (first.usage, second.usage) == (Usage(input=8, requests=1), Usage(input=2))
    assert first.model == "voyage-4-2026"


def test_a_vector_that_is_none_fails_its_own_row() -> None:
    # Voyage has answered with NaN (voyage-ai/voyageai-python#32).
    good, bad, missing = ADAPTER.codecs["embed"].decode(embed_body([1, 2], [float("nan"), 1]), texts("a", "b", "c"))
    assert isinstance(good, Reply)
    assert isinstance(bad, errors.BadOutput)
    assert isinstance(missing, errors.BadOutput)


def test_embeddings_without_a_bill_are_of_unknown_cost() -> None:
    first, second = ADAPTER.codecs["embed"].decode(embed_body([1], [2], tokens=None), texts("a", "b"))
    assert (first.usage, second.usage) == (Usage(requests=1, unreported=1), Usage())


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"data": "text"}', b'{"error": "no"}'])
@pytest.mark.parametrize("operation", ["embed", "embed_images", "rerank"])
def test_a_body_that_is_no_answer_is_the_servers_fault(operation: str, body: bytes) -> None:
    with pytest.raises(errors.ServerFault) as raised:
        ADAPTER.codecs[operation].decode(body, texts("a"))
    assert raised.value.kind == "bad_response"


# ----------------------------------------------------------------------------------------------------------------- images


def pictures(**options: Any) -> list[Request]:
    mixed = (Text("A banana"), Image("image/jpeg", b"\xff\xd8"))
    return [Request("embed_images", payload, options) for payload in (mixed, (Image(url="https://example.com/a.png"),))]


def test_pictures_and_texts_are_embedded_together() -> None:
    assert sent("embed_images", *pictures(input_type="query", dimensions=256)) == {
        "model": "voyage-4",
        "inputs": [
            {"content": [{"type": "text", "text": "A banana"}, {"type": "image_base64", "image_base64": "data:image/jpeg;base64,/9g="}]},
            {"content": [{"type": "image_url", "image_url": "https://example.com/a.png"}]},
        ],
        "encoding_format": "base64",
        "input_type": "query",
        "truncation": False,
        "output_dimension": 256,
    }


def test_a_batch_of_the_largest_pictures_fits_into_a_request() -> None:
    count, tokens = ADAPTER.codecs["embed_images"].batch_size(target("embed_images"))
    assert tokens is not None
    assert count * 16_000_000 / 560 < tokens == 320_000


def test_what_pictures_cost_is_shared_evenly() -> None:
    body = json.loads(embed_body([1, 2], [3, 4], tokens=1001))
    body["usage"].update(text_tokens=5, image_pixels=557_000)
    replies = ADAPTER.codecs["embed_images"].decode(orjson.dumps(body), pictures())
    assert [reply.usage for reply in replies] == [Usage(input=500, requests=1), Usage(input=501)]


# ----------------------------------------------------------------------------------------------------------------- rerank


RANKING = Request("rerank", RerankPayload("capital", ("Paris", "cheese", "Rome")))


def test_a_rerank_asks_for_every_score() -> None:
    assert sent("rerank", RANKING) == {
        "model": "voyage-4",
        "query": "capital",
        "documents": ["Paris", "cheese", "Rome"],
        "truncation": True,
    }


def test_scores_go_to_their_documents_by_index() -> None:
    data = [{"index": 2, "relevance_score": 0.7}, {"index": 0, "relevance_score": 0.9}]
    (reply,) = ADAPTER.codecs["rerank"].decode(
        orjson.dumps({"data": data, "model": "rerank-2.5", "usage": {"total_tokens": 26}}), [RANKING]
    )
    assert isinstance(reply, Reply)
    np.testing.assert_array_equal(reply.value, [0.9, np.nan, 0.7])
    assert (reply.usage, reply.model) == (Usage(input=26, requests=1), "rerank-2.5")


def test_a_ranking_without_scores_is_no_answer() -> None:
    (reply,) = ADAPTER.codecs["rerank"].decode(b'{"data": []}', [RANKING])
    assert isinstance(reply, errors.BadOutput)
    assert reply.usage == Usage(requests=1, unreported=1)


# ----------------------------------------------------------------------------------------------------------------- errors


SLOW = (
    "You have not yet added your payment method in the billing page and will have reduced rate limits of 3 RPM and 10K TPM. To unlock our "
    "standard rate limits, please add a payment method in the billing page for the appropriate organization in the user dashboard. "
    "Even with payment methods entered, the free tokens (200M tokens for Voyage series 3) will still apply."
)
TOO_MUCH = (
    "Request to model 'voyage-3' failed. The max allowed tokens per submitted batch is 120000. Your batch has 187609 tokens after "
    "truncation. Please lower the number of tokens in the batch."
)
TOO_LONG = (
    "Request to model 'voyage-2' failed. The example at index 0 in your batch has too many tokens and does not fit into the model's "
    "context window of 4000 tokens. Please lower the number of tokens in the listed example(s) or use truncation."
)


@pytest.mark.parametrize(
    ("status", "detail", "error"),
    [
        (307, "", errors.AccessError),
        (401, "Provided API key is invalid.", errors.KeyRejected),
        (402, "", errors.OutOfCredit),
        (403, "Forbidden", errors.KeyRejected),
        (404, "Not Found", errors.ModelGone),
        (400, "Model nonexistent is not supported. Supported models are ['voyage-law-2', 'voyage-code-2'].", errors.ModelGone),
        (400, TOO_MUCH, errors.BatchTooLarge),
        (400, "The batch size limit is 1000. Your batch size is 1001.", errors.BatchTooLarge),
        (413, "", errors.BatchTooLarge),
        (400, TOO_LONG, errors.ContextTooLong),
        (400, "Argument 'output_dimension' is invalid", errors.InvalidRequest),
        (422, [{"loc": ["body", "input"], "msg": "field required", "type": "value_error.missing"}], errors.InvalidRequest),
        (429, SLOW, errors.RateLimited),
        (429, "Rate limit exceeded", errors.RateLimited),
        (429, "Your free tokens are used up. Add a payment method.", errors.OutOfCredit),
        (408, "", errors.TimedOut),
        (500, "", errors.ServerFault),
        (502, "", errors.Overloaded),
        (503, "", errors.Overloaded),
        (504, "", errors.Overloaded),
    ],
)
def test_a_refusal_stands_on_the_branch_that_says_what_to_do(status: int, detail: Any, error: type[LLMError]) -> None:
    found = ADAPTER.classify_error(status, {"x-request-id": "request-1"}, orjson.dumps({"detail": detail}))
    assert type(found) is error
    assert (found.status, found.request_id) == (status, "request-1")
    assert "\n" not in found.message


def test_too_much_for_one_request_says_how_much_is_allowed() -> None:
    found = ADAPTER.classify_error(400, {}, orjson.dumps({"detail": TOO_MUCH}))
    by_code = ADAPTER.classify_error(400, {}, b'{"detail": "too many", "error_code": "TOO_MANY_TOKENS_IN_BATCH"}')
    assert isinstance(found, errors.BatchTooLarge)
    assert isinstance(by_code, errors.BatchTooLarge)
    assert (found.limit, by_code.limit) == (120_000, None)


def test_an_account_without_a_payment_method_is_slow_and_not_shut() -> None:
    assert ADAPTER.classify_error(429, {}, orjson.dumps({"detail": SLOW})).retry_after == 20.0
    assert ADAPTER.classify_error(429, {"retry-after": "2"}, orjson.dumps({"detail": SLOW})).retry_after == 2.0


def test_a_complaint_about_a_malformed_request_does_not_repeat_it() -> None:
    detail = [{"loc": ["body", "input", 0], "msg": "str type expected", "input": "a confidential text"}, "odd"]
    found = ADAPTER.classify_error(422, {}, orjson.dumps({"detail": detail}))
    assert found.message == "the request was refused (body.input.0: str type expected)"


@pytest.mark.parametrize("body", [b"", b"<html><h1>Bad gateway</h1></html>", b"[]", b"null", b'"text"', b"\xff"])
def test_a_proxys_own_page_is_read_by_its_status(body: bytes) -> None:
    assert isinstance(ADAPTER.classify_error(500, {}, body), errors.ServerFault)


# -------------------------------------------------------------------------------------------------- a client of the caller's


class Server:
    """Answers every request alike, over a real socket, and remembers what came."""

    def __init__(self) -> None:
        self.answer: tuple[int, bytes] = (200, b"{}")
        self.seen: list[tuple[str, Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.seen.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
                status, body = outer.answer
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("X-Request-Id", "request-1")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """A test prints nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = Thread(target=made.http.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.http.shutdown()
    made.http.server_close()
    thread.join()


REQUESTS = {"embed": texts("a", "b", dimensions=2), "embed_images": pictures(), "rerank": [RANKING]}
ANSWERS = {
    "embed": orjson.dumps({"data": [{"embedding": packed(1, 2)}, {"embedding": packed(3, 4)}], "usage": {"total_tokens": 10}}),
    "embed_images": orjson.dumps(
        {
            "data": [{"index": 0, "embedding": packed(1, 2)}, {"index": 1, "embedding": packed(3, 4)}],
            "usage": {"text_tokens": 3, "image_pixels": 3920, "video_pixels": 0, "total_tokens": 10},
        }
    ),
    "rerank": orjson.dumps({"data": [{"index": 1, "relevance_score": 0.5}], "usage": {"total_tokens": 10}}),
}
KINDS = [voyageai.Client, voyageai.AsyncClient]


def posting(operation: str, url: str, make: Any, key: str | None = "key-of-the-caller") -> Any:
    assert ADAPTER.send is not None
    codec = ADAPTER.codecs[operation]
    foreign = make(api_key=key, base_url=url, max_retries=1)
    given = ADAPTER.send(foreign, codec, codec.encode(REQUESTS[operation], target(operation)))
    return asyncio.run(given) if make is voyageai.AsyncClient else given


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize(("operation", "path"), OPERATIONS)
def test_a_client_of_the_callers_own_posts_the_same_body(operation: str, path: str, make: Any, server: Server) -> None:
    server.answer = (200, ANSWERS[operation])
    status, _, body = posting(operation, server.url, make)
    assert status == 200
    ((where, said),) = server.seen
    assert where == f"/v1{path}"
    wanted = sent(operation, *REQUESTS[operation])
    assert {name: value for name, value in said.items() if value is not None} == wanted
    decode = ADAPTER.codecs[operation].decode
    by_us, by_sdk = decode(ANSWERS[operation], REQUESTS[operation]), decode(body, REQUESTS[operation])
    for ours, theirs in zip(by_us, by_sdk, strict=True):
        assert isinstance(ours, Reply)
        assert isinstance(theirs, Reply)
        np.testing.assert_array_equal(ours.value, theirs.value)
        assert ours.usage == theirs.usage


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (400, orjson.dumps({"detail": TOO_MUCH}), errors.BatchTooLarge),
        (401, b'{"detail": "Provided API key is invalid."}', errors.KeyRejected),
        (500, b"<html>", errors.ServerFault),
        (503, b"", errors.Overloaded),
    ],
)
def test_what_the_sdk_raises_becomes_the_answer_that_it_was(
    status: int, body: bytes, error: type[LLMError], make: Any, server: Server
) -> None:
    server.answer = (status, body)
    found = ADAPTER.classify_error(*posting("embed", server.url, make))
    assert (type(found), found.request_id) == (error, "request-1")
    assert len(server.seen) == 1


@pytest.mark.parametrize("make", KINDS)
def test_too_few_vectors_from_the_sdk_are_not_dealt_out_to_the_wrong_rows(make: Any, server: Server) -> None:
    server.answer = (200, embed_body(packed(1, 2)))
    with pytest.raises(errors.ServerFault):
        posting("embed", server.url, make)


@pytest.mark.parametrize("make", KINDS)
def test_a_connections_trouble_is_named_without_the_request(make: Any, server: Server) -> None:
    server.http.socket.close()  # nobody listens any more
    with pytest.raises(errors.ConnectionLost) as caught:
        posting("embed", server.url, make)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("make", KINDS)
def test_a_client_without_a_key_is_told_so(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VOYAGE_API_KEY", raising=False)
    with pytest.raises(errors.KeyRejected):
        posting("embed", "http://127.0.0.1:1", make, key=None)
