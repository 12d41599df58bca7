"""What goes wrong at real providers, injected at a real socket; each test asserts the fact that counts, mostly at the server."""

from __future__ import annotations

import asyncio
import math
import os
import resource
import socket
import ssl
import subprocess
import time
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import llmkit
from tests.loopback import (
    Close,
    GzipBomb,
    Hang,
    Json,
    Loopback,
    Raw,
    Reset,
    Status,
    bad_key,
    batch_too_large,
    groq_rate_limited,
    html_502,
    no_credit,
    overloaded,
    rate_limited,
    refusal,
    server_error,
    unknown_model,
    vector_of,
)

FOREVER = float("inf")


def rows(count: int) -> pd.DataFrame:
    return pd.DataFrame({"text": [f"row {number}." for number in range(count)]})


def chat(frame: pd.DataFrame, **options: Any) -> pd.Series:
    return frame.llm.chat("Say {text}", **{"model": "lab/test-chat", "show_progress": False, **options})


def embed(frame: pd.DataFrame, **options: Any) -> pd.Series:
    return frame.llm.embed("text", **{"model": "lab/test-embed", "show_progress": False, **options})


def gaps(server: Loopback) -> list[float]:
    arrivals = [seen.at for seen in server.seen]
    return [later - earlier for earlier, later in pairwise(arrivals)]


# ------------------------------------------------------------------------------------------------------------- rate limits


def test_rl01_a_429_waits_the_milliseconds_it_asks_for_and_costs_no_attempt(server: Loopback, lab: str) -> None:
    server.fault("row 0", rate_limited(retry_after_ms=60), times=2)
    said = chat(rows(1), detail=True)
    assert said["value"].notna().all()
    assert said["attempts"].tolist() == [3]
    assert server.requests == 3
    assert min(gaps(server)) >= 0.060


def test_rl01_the_pause_holds_for_the_whole_account_not_only_the_row(server: Loopback, lab: str) -> None:
    server.fault(None, rate_limited(retry_after_ms=400))
    with_one_in_flight = {"max_concurrency": 1}
    chat(rows(3), **with_one_in_flight)
    assert gaps(server)[0] >= 0.4
    assert server.requests == 4


def test_rl02_retry_after_in_seconds_is_kept(server: Loopback, lab: str) -> None:
    server.fault("row 0", rate_limited(retry_after_ms=None, retry_after="1"))
    chat(rows(1))
    assert min(gaps(server)) >= 1.0


def test_a_retry_after_date_is_read_against_the_responses_own_date(server: Loopback, lab: str) -> None:
    asked = {"date": "Sat, 21 Nov 2026 12:00:00 GMT", "retry-after": "Sat, 21 Nov 2026 12:00:01 GMT"}
    server.fault("row 0", Status(429, rate_limited().body, asked))
    chat(rows(1))
    assert min(gaps(server)) >= 1.0


def test_rl04_a_retry_after_of_zero_makes_no_hot_loop(server: Loopback, lab: str) -> None:
    server.fault("row 0", rate_limited(retry_after_ms=None, retry_after="0"), times=4)
    assert chat(rows(1)).notna().all()
    first = server.seen[0].at
    assert sum(seen.at < first + 1.0 for seen in server.seen) <= 5


@pytest.mark.parametrize("nonsense", ["nan", "-5", "inf", "1e999", "1, 2", "9" * 400])
def test_rl06_a_senseless_retry_after_is_ignored(server: Loopback, lab: str, nonsense: str) -> None:
    server.fault("row 0", rate_limited(retry_after_ms=None, retry_after=nonsense))
    began = time.monotonic()
    assert chat(rows(1)).notna().all()
    assert time.monotonic() - began < 10


PER_DAY = Status(
    429,
    {
        "error": {
            "code": 429,
            "message": "Quota exceeded for requests",
            "status": "RESOURCE_EXHAUSTED",
            "details": [
                {
                    "@type": "type.googleapis.com/google.rpc.QuotaFailure",
                    "violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}],
                },
                {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "38s"},
            ],
        }
    },
)


def test_rl08_a_daily_quota_ends_the_run_at_once(server: Loopback, lab: str) -> None:
    server.fault(None, PER_DAY, times=FOREVER)
    with pytest.raises(llmkit.QuotaSpent):
        chat(rows(1000))
    assert server.requests <= 8


def test_rl09_geminis_error_in_an_array_is_a_429_all_the_same(server: Loopback, lab: str) -> None:
    error = {"error": {"code": 429, "message": "Resource exhausted. Please try again later.", "status": "RESOURCE_EXHAUSTED"}}
    server.fault("row 0", Status(429, [error]))
    assert chat(rows(1)).notna().all()


def test_rl14_groqs_durations_and_limits_are_read(server: Loopback, lab: str) -> None:
    refused = groq_rate_limited()
    quick = {**refused.headers, "retry-after": "0.1"}
    server.fault("row 0", Status(refused.code, refused.body, quick))
    assert chat(rows(1)).notna().all()
    (account,) = llmkit.session.default().engine._accounts.values()
    assert account.limiter.tokens_per_minute == 15000


def test_rl20_an_overload_is_tried_as_often_as_the_policy_says_and_then_the_next_model_serves(server: Loopback, lab: str) -> None:
    with Loopback() as other:
        llmkit.add_provider("spare", other.url, "key")
        server.fault(None, overloaded(), times=FOREVER)
        said = chat(rows(1), model=["lab/test-chat", "spare/test-chat"], max_attempts=2, detail=True)
        assert server.requests == 2
        assert other.requests == 1
        assert said["provider"].tolist() == ["spare"]


def test_rl21_a_server_that_enforces_a_limit_is_met_without_losing_a_row(server: Loopback, lab: str) -> None:
    server.rate_limit(per_second=100)
    began = time.monotonic()
    assert chat(rows(600)).notna().all()
    seconds = time.monotonic() - began
    wasted = server.rate_limited_count / server.requests
    print(f"wasted {wasted:.1%}, {600 / seconds:.0f} rows/s of 100")
    assert wasted < 0.12  # of a run of six seconds that has to find the limit first; of long runs see test_limiter


def test_a_limit_told_by_headers_wastes_nothing(server: Loopback, lab: str) -> None:
    server.rate_limit(per_second=5, headers=True, window="minute_bucket")
    assert chat(rows(305)).notna().all()
    assert server.rate_limited_count <= 3


# --------------------------------------------------------------------------------------------------------------- fail fast


def test_ff01_a_refused_key_ends_the_run_after_a_handful_of_requests(server: Loopback, lab: str) -> None:
    server.key = "another"
    with pytest.raises(llmkit.KeyRejected, match="set_key") as caught:
        chat(rows(10_000))
    assert server.requests <= 8
    assert "test-key-not-real" not in str(caught.value)


def test_ff01_a_key_refused_in_mid_run_keeps_what_was_finished(server: Loopback, lab: str) -> None:
    server.fault("row 150.", bad_key(), times=FOREVER)
    with pytest.raises(llmkit.KeyRejected):
        chat(rows(1000), max_concurrency=4)
    finished = llmkit.last().partial().notna()
    assert finished[:140].all()
    server.clear_faults()
    before = server.requests
    assert chat(rows(1000)).notna().all()
    assert server.requests - before == 1000 - finished.sum()


def test_ff03_an_unknown_model_fails_fast(server: Loopback, lab: str) -> None:
    server.fault(None, unknown_model("test-chad"), times=FOREVER)
    with pytest.raises(llmkit.ModelGone):
        chat(rows(1000), model="lab/test-chad")
    assert server.requests <= 8


def test_ff04_no_credit_is_a_429_that_is_not_tried_again(server: Loopback, lab: str) -> None:
    server.fault(None, no_credit(), times=FOREVER)
    with pytest.raises(llmkit.OutOfCredit, match="only the rest is sent"):
        chat(rows(1000))
    assert server.requests <= 8


def test_ff07_a_filtered_prompt_is_a_fault_of_its_row(server: Loopback, lab: str) -> None:
    body = {"error": {"message": "The response was filtered", "type": None, "param": "prompt", "code": "content_filter"}}
    server.fault("row 3.", Status(400, body), times=FOREVER)
    said = chat(rows(20))
    assert said.isna().sum() == 1
    assert llmkit.last().errors()["kind"].tolist() == ["content_filter"]


def test_ff08_a_refusal_is_an_error_that_was_paid_for_and_is_not_kept(server: Loopback, lab: str) -> None:
    llmkit.catalogue.merge({"models": [{"provider": "lab", "name": "test-chat", "price": {"input": 1.0, "output": 2.0}}]})
    server.fault("row 0", refusal())
    with pytest.warns(UserWarning, match="no row got an answer"):
        said = chat(rows(1))
    assert said.isna().all()
    assert llmkit.last().errors()["kind"].tolist() == ["refusal"]
    assert llmkit.last().cost == pytest.approx((9 * 1.0 + 8 * 2.0) / 1e6)
    assert chat(rows(1)).notna().all()


# ------------------------------------------------------------------------------------------------------ servers and bodies


def test_sv01_a_500_is_tried_again(server: Loopback, lab: str) -> None:
    server.fault("row 0", server_error(), times=2)
    assert chat(rows(1)).notna().all()
    assert server.requests == 3


def test_sv02_an_html_error_page_is_one_clean_line(server: Loopback, lab: str) -> None:
    server.fault("row 0", html_502(), times=FOREVER)
    chat(pd.DataFrame({"text": ["row 0.", "fine"]}), max_attempts=3)
    (message,) = llmkit.last().errors()["error"]
    assert server.count("row 0") == 3
    assert len(message) < 300
    assert "<" not in message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'{"choices": [{"message": {"content": "\xff\xfe\xc3\x28"}}]}',
        b"<html>please log in</html>",
        b"[]",
        b'{"choices": []}',
        b"null",
    ],
    ids=["empty", "not utf-8", "html", "array", "no choices", "null"],
)
def test_sv05_sv07_sv10_a_200_that_is_no_answer_is_tried_again_and_then_a_row_error(server: Loopback, lab: str, body: bytes) -> None:
    server.fault("row 0", Status(200, body), times=FOREVER)
    said = chat(rows(2), max_attempts=2)
    assert said.isna().tolist() == [True, False]
    assert server.count("row 0") == 2
    assert llmkit.last().errors()["kind"].tolist() == ["bad_response"]


def test_sv09_a_gzip_bomb_is_dropped_before_it_fills_the_memory(server: Loopback, lab: str) -> None:
    chat(rows(1))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    server.fault("bomb", GzipBomb(300), times=FOREVER)
    with pytest.warns(UserWarning, match="no row got an answer"):
        said = chat(pd.DataFrame({"text": ["a bomb"]}), max_attempts=1)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert said.isna().all()
    assert "64 MiB" in llmkit.last().errors()["error"][0]
    assert grown < 130  # MiB: the bound of 64 for the answer, and the server's own part of the story in this process


def test_an_error_that_comes_as_a_200_is_an_error(server: Loopback, lab: str) -> None:
    server.fault("row 0", Json({"error": {"message": "Overloaded", "type": "overloaded_error"}}))
    assert chat(rows(1)).notna().all()
    assert server.requests == 2


def test_co01_there_is_exactly_one_layer_that_retries(server: Loopback, lab: str) -> None:
    server.fault(None, server_error(), times=FOREVER)
    with pytest.warns(UserWarning, match="no row got an answer"):
        assert chat(rows(1), max_attempts=3).isna().all()
    assert server.requests == 3


# --------------------------------------------------------------------------------------------------------------- transport


def test_tp01_a_reset_connection_is_tried_again(server: Loopback, lab: str) -> None:
    server.fault("row 0", Reset(), times=2)
    assert chat(rows(1)).notna().all()


def test_tp02_ten_thousand_rows_against_a_dead_host_fail_in_seconds() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        llmkit.add_provider("dead", f"http://127.0.0.1:{taken.getsockname()[1]}/v1", "key")
        began = time.monotonic()
        with pytest.raises(llmkit.ConnectionLost, match="nothing answers at 127.0.0.1"):
            chat(rows(10_000), model="dead/model")
        assert time.monotonic() - began < 15
    failed = llmkit.last().errors()
    assert len(failed) == 10_000
    assert set(failed["kind"]) == {"connection"}


def test_tp03_an_unknown_host_is_said_by_name() -> None:
    llmkit.add_provider("nowhere", "http://does-not-exist.invalid/v1", "key")
    with pytest.raises(llmkit.ConnectionLost, match=r"does-not-exist\.invalid.*DNS"):
        chat(rows(2000), model="nowhere/model")


def test_tp04_an_untrusted_certificate_ends_the_run_with_the_cure(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            key,
            "-out",
            certificate,
            "-days",
            "1",
            "-subj",
            "/CN=other",
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    handshakes = 0

    async def serve() -> asyncio.AbstractServer:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        return await asyncio.start_server(talk, "127.0.0.1", 0, ssl=context)

    from llmkit import event_loop

    listening = event_loop.call(serve)
    try:
        port = listening.sockets[0].getsockname()[1]
        llmkit.add_provider("tls", f"https://127.0.0.1:{port}/v1", "key")
        with pytest.raises(llmkit.Untrusted, match="SSL_CERT_FILE"):
            chat(rows(1000), model="tls/model")
    finally:

        async def close() -> None:
            listening.close()

        event_loop.call(close)
    assert handshakes == 0


def test_tp06_a_server_that_never_answers_is_given_up_in_time(server: Loopback, lab: str) -> None:
    server.fault("row 0", Hang())
    began = time.monotonic()
    assert chat(rows(1), timeout=0.3).notna().all()
    assert time.monotonic() - began < 3


def test_tp07_an_idle_connection_that_the_server_closed_costs_no_attempt(server: Loopback, lab: str) -> None:
    body = b'{"choices":[{"index":0,"message":{"content":"first"},"finish_reason":"stop"}]}'
    complete = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    server.fault("row 0", Raw(complete))  # a whole answer on a connection that is kept alive, and then is not
    assert chat(rows(1)).tolist() == ["first"]
    server.fault("row 1", Close())
    said = chat(pd.DataFrame({"text": ["row 1."]}), detail=True)
    assert said["attempts"].tolist() == [1]


def test_redirects_are_not_followed_with_a_prompt(server: Loopback, lab: str) -> None:
    with Loopback() as elsewhere:
        server.fault(None, Status(307, "", {"location": elsewhere.url + "/chat/completions"}), times=FOREVER)
        with pytest.raises(llmkit.AccessError, match="redirects"):
            chat(rows(100))
        assert elsewhere.requests == 0


def test_tp09_a_dead_proxy_is_named_and_loopback_needs_none(server: Loopback, lab: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://user:secret@127.0.0.1:9")
    assert chat(rows(1)).notna().all()
    llmkit.add_provider("outside", "http://192.0.2.1/v1", "key")
    with pytest.raises(llmkit.ConnectionLost, match=r"proxy 127\.0\.0\.1:9") as caught:
        chat(rows(500), model="outside/model")
    assert "secret" not in str(caught.value)


# ------------------------------------------------------------------------------------------------- batches and embeddings


def test_ba01_a_batch_that_is_too_large_is_halved_and_the_size_remembered(server: Loopback, lab: str) -> None:
    server.fault(None, batch_too_large())
    vectors = embed(rows(1000))
    assert vectors.notna().all()
    assert server.requests <= 4 + 2 * math.ceil(math.log2(256))


def test_one_poisoned_text_is_found_in_a_few_halvings_and_the_others_get_their_vectors(server: Loopback, lab: str) -> None:
    body = {"error": {"message": "bad input", "type": "invalid_request_error", "code": None}}
    server.fault("row 77.", Status(400, body), times=FOREVER)
    vectors = embed(rows(256))
    assert vectors.isna().sum() == 1
    assert server.requests <= 2 * math.log2(256) + 1
    assert llmkit.last().errors()["row"].tolist() == [77]


def test_em02_a_text_that_ollama_cannot_embed_is_one_row_error(server: Loopback, lab: str) -> None:
    body = {"error": "failed to encode response: json: unsupported value: NaN"}
    server.fault("row 200.", Status(500, body), times=FOREVER)
    vectors = embed(rows(256))
    assert vectors.isna().sum() == 1


def spoiled(position: int, vector: Any) -> Any:
    def corrupt(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        items[position]["embedding"] = vector
        return items

    return corrupt


@pytest.mark.parametrize(
    "vector",
    [np.full(8, np.nan, np.float32), np.zeros(8, np.float32), np.full(8, np.inf, np.float32)],
    ids=["NaN", "zeros", "infinite"],
)
@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_em01_em03_a_vector_that_is_none_is_a_row_error(server: Loopback, vector: Any, encoding: str) -> None:
    llmkit.add_provider("lab", server.url, "key", embed_encoding=encoding)
    server.corrupt_embeddings = spoiled(3, vector)
    vectors = embed(rows(10))
    assert vectors.isna().tolist() == [number == 3 for number in range(10)]
    assert llmkit.last().errors()["kind"].tolist() == ["invalid_vector"]


def test_em04_vectors_are_placed_by_their_index(server: Loopback, lab: str) -> None:
    server.shuffle_embeddings = True
    matrix = embed(rows(500)).llm.matrix()
    expected = np.stack([vector_of(f"row {number}.", 8) for number in range(500)])
    assert np.array_equal(matrix, expected)


def test_em06_a_vector_that_did_not_come_is_a_row_error(server: Loopback, lab: str) -> None:
    server.corrupt_embeddings = lambda items: [item for item in items if item["index"] != 4]
    assert embed(rows(10)).isna().tolist() == [number == 4 for number in range(10)]


def test_em07_a_vector_of_another_length_is_a_row_error(server: Loopback, lab: str) -> None:
    server.corrupt_embeddings = spoiled(5, np.ones(7, np.float32))
    assert embed(rows(10)).isna().tolist() == [number == 5 for number in range(10)]


def test_base64_and_float_vectors_are_the_same_to_the_last_bit(server: Loopback) -> None:
    llmkit.add_provider("as64", server.url, "key", embed_encoding="base64")
    llmkit.add_provider("asfloat", server.url, "key")
    same = [embed(rows(20), model=f"{name}/test-embed").llm.matrix() for name in ("as64", "asfloat")]
    assert np.array_equal(*same)
    assert {seen.body["encoding_format"] for seen in server.seen} == {"base64", "float"}


# ------------------------------------------------------------------------------------------------------- what issue 2 shows


def test_one_bad_row_of_a_thousand_leaves_999_values_and_its_reason(server: Loopback, lab: str) -> None:
    body = {"error": {"message": "refused", "type": "invalid_request_error", "code": None}}
    server.fault("row 500.", Status(400, body), times=FOREVER)
    said = chat(rows(1000))
    assert said.notna().sum() == 999
    failed = llmkit.last().errors()
    assert failed["row"].tolist() == [500]
    before = server.requests
    chat(rows(1000))
    assert server.requests - before == 1


def test_an_interrupted_run_leaves_no_warning_and_no_request_behind(server: Loopback, lab: str) -> None:
    server.hold()
    run = chat(rows(100), wait=False)
    server.wait_for(8)
    run.cancel()
    assert run.wait(5.0)
    server.release()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run.partial().isna().all()
    assert run.stopped is not None
    assert run.stopped.kind == "cancelled"
    assert len(run.errors()) == 100
    assert os.getpid()


def test_a_budget_of_unequal_rows_ends_the_run_and_hangs_nobody(lab: Loopback) -> None:
    llmkit.catalogue.merge({"models": [{"provider": "lab", "name": "test-chat", "price": {"input": 0.1, "output": 0.7}}]})
    df = pd.DataFrame({"text": [f"{number} " + "x" * (7 * number % 97 * 13) for number in range(400)]})
    with pytest.warns(UserWarning, match="max_cost"):
        df.llm.chat("{text} of {text}", model="lab/test-chat", max_tokens=30, max_cost=0.004, show_progress=False)
    run = llmkit.last()
    assert run.done
    assert run.cost is not None
    assert 0 < run.cost <= 0.004
