"""One interface for all providers, a route of them with fallback, and streams, caching, batches and limits beneath it."""

from __future__ import annotations

import asyncio
import getpass
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import llmkit
from llmkit.picking import adapter_for
from tests.loopback import Hang, Loopback, error_of, rate_limited, vector_of
from tests.seeds import KEY, keyed, moved

MESSAGE = "Tell me a story about a late parcel"
ANSWER = f"answer to: {MESSAGE}"
NATIVE = ("anthropic", "cohere")


@pytest.fixture
def vendors(server: Loopback) -> Loopback:
    return moved(server)


@pytest.fixture
def two(vendors: Loopback, monkeypatch: pytest.MonkeyPatch) -> Loopback:
    """OpenAI first, Mistral after it, and a key for both."""
    keyed(monkeypatch, "openai", "mistral")
    return vendors


ROUTE = ["openai/gpt-5-mini", "mistral/mistral-small-latest"]


def rows(count: int) -> pd.DataFrame:
    return pd.DataFrame({"text": [f"row {number:02d}." for number in range(count)]})


def said(frame: pd.DataFrame, **options: Any) -> pd.DataFrame:
    told: pd.DataFrame = frame.llm.chat("Say {text}", **{"model": ROUTE, "detail": True, "show_progress": False, **options})
    return told


async def gathered(pieces: AsyncIterator[str]) -> list[str]:
    return [piece async for piece in pieces]


# ------------------------------------------------------------------------------------------------------------ the overview


@pytest.mark.parametrize(
    "model", ["openai/gpt-5-mini", "anthropic/claude-haiku-4-5", "cohere/command-a-03-2025", "gemini/gemini-2.5-flash"]
)
def test_a_provider_is_switched_by_one_word(vendors: Loopback, monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    provider = model.partition("/")[0]
    if provider in NATIVE:
        pytest.importorskip(provider)
    keyed(monkeypatch, provider)
    assert llmkit.chat(MESSAGE, model=model) == ANSWER
    assert vendors.seen[-1].vendor == provider


def test_each_provider_is_asked_in_the_words_that_it_has(vendors: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    keyed(monkeypatch, "openai", "mistral")
    for model in ROUTE:
        llmkit.chat(MESSAGE, model=model, max_tokens=100, seed=7)
    first, second = (seen.body for seen in vendors.seen)
    assert (first["max_completion_tokens"], first["seed"]) == (100, 7)
    assert (second["max_tokens"], second["random_seed"]) == (100, 7)


@pytest.mark.parametrize(
    ("provider", "kind", "error"),
    [
        ("openai", "bad_key", llmkit.KeyRejected),
        ("openai", "no_credit", llmkit.OutOfCredit),
        ("openai", "context_too_long", llmkit.ContextTooLong),
        ("anthropic", "bad_key", llmkit.KeyRejected),
        ("anthropic", "context_too_long", llmkit.ContextTooLong),
        ("openai", "unknown_model", llmkit.ModelGone),
        ("mistral", "unknown_model", llmkit.ModelGone),
    ],
)
def test_the_errors_of_all_providers_are_of_one_kind(
    vendors: Loopback, monkeypatch: pytest.MonkeyPatch, provider: str, kind: Any, error: type[llmkit.LLMError]
) -> None:
    if provider in NATIVE:
        pytest.importorskip(provider)
    keyed(monkeypatch, provider)
    vendors.fault(None, error_of(provider, kind))
    with pytest.raises(error) as raised:
        llmkit.chat(MESSAGE, model=f"{provider}/any-model")
    assert raised.value.provider == provider
    assert isinstance(raised.value, llmkit.LLMError)


# ----------------------------------------------------------------------------------------------------------- capabilities


def row_of(provider: str, name: str) -> pd.Series:
    known = llmkit.models()
    return known[(known["provider"] == provider) & (known["name"] == name)].iloc[0]


def test_the_most_tokens_of_an_answer_and_the_context_window_are_known() -> None:
    model = row_of("anthropic", "claude-haiku-4-5")
    assert (model["output_limit"], model["context_window"]) == (64000, 200000)


def test_whether_a_model_calls_functions_and_sees_is_known() -> None:
    assert {"tools", "vision"} <= set(row_of("anthropic", "claude-haiku-4-5")["capabilities"].split(", "))
    assert "vision" not in row_of("groq", "openai/gpt-oss-120b")["capabilities"]


def test_whether_a_model_embeds_is_known() -> None:
    model = row_of("openai", "text-embedding-3-small")
    assert (model["operations"], model["dimensions"]) == ("embed", 1536)


def test_every_chat_model_streams_and_what_cannot_chat_says_so_before_anything_is_sent(two: Loopback) -> None:
    known = llmkit.models()
    chatting = set(known.loc[known["operations"].str.contains("chat"), "provider"])
    wires = set(llmkit.providers().set_index("provider").loc[sorted(chatting), "protocol"])
    assert all(adapter_for(wire).codecs["chat"].delta is not None for wire in wires)
    with pytest.raises(llmkit.Unsupported, match="does not chat; it does embed"):
        llmkit.stream(MESSAGE, model="openai/text-embedding-3-small")
    assert two.requests == 0


def test_what_a_model_cannot_do_is_refused_before_anything_is_sent(two: Loopback) -> None:
    with pytest.raises(llmkit.Unsupported, match="does not embed"):
        llmkit.embed("a text", model="openai/gpt-5-mini")
    assert two.requests == 0


# ---------------------------------------------------------------------------------------------------------- configuration


def test_a_provider_has_a_name_a_key_and_an_address(server: Loopback) -> None:
    llmkit.add_provider("lab", server.url, api_key=KEY)
    assert llmkit.chat(MESSAGE, model="lab/qwen3-8b") == ANSWER
    assert server.seen[0].headers["authorization"] == f"Bearer {KEY}"


def test_the_key_is_seen_nowhere(server: Loopback) -> None:
    llmkit.add_provider("lab", server.url, api_key=KEY)
    llmkit.chat(MESSAGE, model="lab/qwen3-8b")
    assert KEY not in llmkit.providers().to_csv() + repr(llmkit.last()) + repr(llmkit.connect("lab/qwen3-8b"))


def test_a_key_is_asked_for_without_being_shown(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getpass", lambda prompt: KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", server.url_of("openai"))
    llmkit.set_key("openai")
    assert llmkit.chat(MESSAGE, model="openai/gpt-5-mini") == ANSWER


def test_the_vendors_own_variable_moves_its_address(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    keyed(monkeypatch, "openai")
    monkeypatch.setenv("OPENAI_BASE_URL", server.url_of("openai"))
    assert llmkit.chat(MESSAGE, model="openai/gpt-5-mini") == ANSWER


def test_the_organization_travels_with_each_request(two: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-not-real")
    llmkit.chat(MESSAGE, model="openai/gpt-5-mini")
    assert two.seen[0].headers["openai-organization"] == "org-not-real"


def test_the_default_model_is_asked_where_none_is_named(two: Loopback) -> None:
    llmkit.use("mistral/mistral-small-latest")
    llmkit.chat(MESSAGE)
    assert (two.seen[0].vendor, two.seen[0].body["model"]) == ("mistral", "mistral-small-latest")


def test_a_default_may_be_a_route(two: Loopback) -> None:
    llmkit.use(ROUTE)
    two.fault(None, error_of("openai", "no_credit"))
    assert llmkit.chat(MESSAGE) == ANSWER
    assert [seen.vendor for seen in two.seen] == ["openai", "mistral"]


def test_a_timeout_ends_an_attempt_that_gets_no_answer(two: Loopback) -> None:
    two.fault(None, Hang())
    with pytest.raises(llmkit.TimedOut):
        llmkit.chat(MESSAGE, model=ROUTE[0], timeout=0.2, max_attempts=1)


@pytest.mark.parametrize("attempts", [1, 2])
def test_how_often_is_tried_is_said_in_the_call(two: Loopback, attempts: int) -> None:
    two.fault(None, error_of("openai", "server_error"), times=attempts)
    with pytest.raises(llmkit.ServerFault):
        llmkit.chat(MESSAGE, model=ROUTE[0], max_attempts=attempts)
    assert two.requests == attempts


# ------------------------------------------------------------------------------------------------------ chat and embeddings


@pytest.mark.parametrize(
    "model",
    [
        "openai/gpt-5-mini", "anthropic/claude-haiku-4-5", "cohere/command-a-03-2025", "mistral/mistral-small-latest",
        "groq/openai/gpt-oss-120b", "gemini/gemini-2.5-flash",
    ],
)  # fmt: skip
def test_an_answer_comes_in_pieces_to_an_async_for(vendors: Loopback, monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    provider = model.partition("/")[0]
    if provider in NATIVE:
        pytest.importorskip(provider)
    keyed(monkeypatch, provider)
    pieces = asyncio.run(gathered(llmkit.stream(MESSAGE, model=model)))
    assert len(pieces) > 1
    assert "".join(pieces) == ANSWER
    assert vendors.seen[0].body["stream"] is True
    assert vendors.seen[0].vendor == provider


def test_an_answer_comes_in_pieces_to_a_plain_for(two: Loopback) -> None:
    answer = llmkit.stream(MESSAGE, model=ROUTE[0])
    assert "".join(answer) == answer.text == ANSWER
    assert answer.model == ROUTE[0]
    assert answer.usage.output > 0


def test_messages_are_put_as_the_provider_wants_them(vendors: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("anthropic")
    keyed(monkeypatch, "anthropic", "openai")
    for model in ("openai/gpt-5-mini", "anthropic/claude-haiku-4-5"):
        assert "".join(llmkit.stream(MESSAGE, model=model, system="Be brief")) == ANSWER
    first, second = (seen.body for seen in vendors.seen)
    assert [message["role"] for message in first["messages"]] == ["system", "user"]
    assert [message["role"] for message in second["messages"]] == ["user"]
    assert "Be brief" in str(second["system"])


@pytest.mark.parametrize("model", ["openai/text-embedding-3-small", "mistral/mistral-embed", "cohere/embed-v4.0", "voyage/voyage-4"])
def test_texts_become_vectors_in_their_order(vendors: Loopback, monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    provider = model.partition("/")[0]
    if provider in ("cohere", "voyage"):
        pytest.importorskip({"voyage": "voyageai"}.get(provider, provider))
    keyed(monkeypatch, provider)
    np.testing.assert_array_equal(llmkit.embed(["b", "a"], model=model), [vector_of("b"), vector_of("a")])
    assert vendors.seen[-1].vendor == provider


# ---------------------------------------------------------------------------------------------------------------- manager


def test_providers_are_kept_by_name(server: Loopback) -> None:
    llmkit.add_provider("first", server.url)
    llmkit.add_provider("second", server.url)
    assert {"first", "second", "openai", "anthropic"} <= set(llmkit.providers()["provider"])


def test_the_priority_of_a_fallback_is_its_place_in_the_list(two: Loopback) -> None:
    assert llmkit.chat(MESSAGE, model=list(reversed(ROUTE))) == ANSWER
    assert [seen.vendor for seen in two.seen] == ["mistral"]


def test_the_provider_that_is_named_is_asked_first_and_the_fallback_after_it(two: Loopback) -> None:
    two.fault(None, error_of("openai", "server_error"))
    answer = llmkit.stream(MESSAGE, model=ROUTE[0], fallback=ROUTE[1], max_attempts=1)
    assert "".join(answer) == ANSWER
    assert answer.model == ROUTE[1]
    assert [seen.vendor for seen in two.seen] == ["openai", "mistral"]


@pytest.mark.parametrize("kind", ["bad_key", "no_credit", "server_error", "unknown_model"])
def test_whatever_ails_a_provider_the_next_one_answers(two: Loopback, kind: Any) -> None:
    two.fault(None, error_of("openai", kind))
    assert llmkit.chat(MESSAGE, model=ROUTE, max_attempts=1) == ANSWER
    assert [seen.vendor for seen in two.seen] == ["openai", "mistral"]


def test_a_provider_that_breaks_off_while_it_speaks_is_not_followed_by_another(two: Loopback) -> None:
    two.fault(None, error_of("openai", "truncated_stream"))
    answer = llmkit.stream(MESSAGE, model=ROUTE)
    with pytest.raises(llmkit.ConnectionLost):
        list(answer)
    assert ANSWER.startswith(answer.text)
    assert answer.text
    assert [seen.vendor for seen in two.seen] == ["openai"], "two beginnings in one answer would be no answer"


def test_when_all_providers_fail_one_error_names_each_and_why(two: Loopback) -> None:
    two.fault(None, error_of("openai", "bad_key"), error_of("mistral", "no_credit"))
    with pytest.raises(llmkit.LLMError, match="all 2 models failed: openai/gpt-5-mini: .*; mistral/mistral-small-latest: "):
        llmkit.chat(MESSAGE, model=ROUTE, max_attempts=1)


def test_when_all_providers_fail_a_stream_names_each_and_has_the_first_as_its_cause(two: Loopback) -> None:
    two.fault(None, error_of("openai", "bad_key"), error_of("mistral", "no_credit"))
    with pytest.raises(llmkit.LLMError, match="all 2 models failed: openai/gpt-5-mini: .*; mistral/mistral-small-latest: ") as raised:
        list(llmkit.stream(MESSAGE, model=ROUTE, max_attempts=1))
    assert str(raised.value.__cause__).startswith("openai/gpt-5-mini: ")


def test_when_no_provider_of_a_list_answers_one_error_names_them_all(two: Loopback) -> None:
    two.fault(None, error_of("openai", "bad_key"), error_of("mistral", "server_error"))
    with pytest.raises(llmkit.ConfigError, match="openai/gpt-5-mini: KeyRejected; mistral/mistral-small-latest: ServerFault"):
        llmkit.connect(ROUTE, test=True)


# ---------------------------------------------------------------------------------------------------------------- caching


def test_the_same_question_again_is_answered_from_the_store(two: Loopback) -> None:
    assert llmkit.chat(MESSAGE, model=ROUTE[0]) == llmkit.chat(MESSAGE, model=ROUTE[0]) == ANSWER
    assert two.requests == 1


def test_a_streamed_answer_is_stored_whole_and_comes_back_in_one_piece(two: Loopback) -> None:
    assert len(list(llmkit.stream(MESSAGE, model=ROUTE[0]))) > 1
    assert list(llmkit.stream(MESSAGE, model=ROUTE[0])) == [ANSWER]
    assert llmkit.chat(MESSAGE, model=ROUTE[0]) == ANSWER, "one store for streams and for rows"
    assert two.requests == 1


def test_a_streamed_answer_that_broke_off_is_not_stored(two: Loopback) -> None:
    two.fault(None, error_of("openai", "truncated_stream"))
    with pytest.raises(llmkit.ConnectionLost):
        list(llmkit.stream(MESSAGE, model=ROUTE[0]))
    assert "".join(llmkit.stream(MESSAGE, model=ROUTE[0])) == ANSWER
    assert two.requests == 2


@pytest.mark.parametrize("change", [{"temperature": 0.5}, {"system": "Be brief"}, {"max_tokens": 50}, {"model": ROUTE[1]}])
def test_another_question_is_another_entry(two: Loopback, change: dict[str, Any]) -> None:
    llmkit.chat(MESSAGE, model="openai/gpt-4.1-mini")
    llmkit.chat(MESSAGE, **{"model": "openai/gpt-4.1-mini", **change})
    assert two.requests == 2


@pytest.mark.parametrize(("cache", "sent"), [("use", 1), ("refresh", 2), ("off", 2)])
def test_the_store_may_be_passed_over(two: Loopback, cache: str, sent: int) -> None:
    llmkit.chat(MESSAGE, model=ROUTE[0])
    llmkit.chat(MESSAGE, model=ROUTE[0], cache=cache)
    assert two.requests == sent


# -------------------------------------------------------------------------------------------------------- batches, limits


def test_texts_travel_in_batches_of_the_size_that_was_set(server: Loopback) -> None:
    llmkit.add_provider("lab", server.url, embed_batch=20)
    texts = [f"text {number}" for number in range(45)]
    np.testing.assert_array_equal(llmkit.embed(texts, model="lab/test-embed"), [vector_of(text) for text in texts])
    assert sorted(len(seen.body["input"]) for seen in server.seen) == [5, 20, 20]


@pytest.mark.parametrize(
    ("model", "most"), [("mistral/mistral-embed", 256), ("gemini/gemini-embedding-001", 100), ("cohere/embed-v4.0", 96)]
)
def test_batches_are_as_large_as_the_provider_takes_them(vendors: Loopback, monkeypatch: pytest.MonkeyPatch, model: str, most: int) -> None:
    provider = model.partition("/")[0]
    if provider in NATIVE:
        pytest.importorskip(provider)
    keyed(monkeypatch, provider)
    assert len(llmkit.embed([f"text {number}" for number in range(400)], model=model)) == 400
    assert max(len(seen.texts) for seen in vendors.seen) == most


def test_a_limit_set_by_hand_is_never_exceeded(two: Loopback) -> None:
    llmkit.limit("openai", max_concurrency=2)
    two.latency = 0.005
    assert said(rows(30), model=ROUTE[0])["value"].notna().all()
    assert two.max_in_flight == 2


def test_a_limit_of_requests_a_minute_spreads_them(two: Loopback) -> None:
    llmkit.limit("openai", rpm=600)
    said(rows(20), model=ROUTE[0])
    arrivals = [seen.at for seen in two.seen]
    assert arrivals[-1] - arrivals[0] >= 0.5 * (20 - 10) / 10, "a second's worth at once, the rest at ten a second"


def test_being_told_to_slow_down_costs_time_and_no_row(two: Loopback) -> None:
    two.fault("row 00", rate_limited(retry_after_ms=20), times=2)
    told = said(rows(2), model=ROUTE[0], max_attempts=1)
    assert told["value"].notna().all()
    assert told["attempts"].tolist() == [3, 1]


def test_with_another_model_at_hand_a_stream_does_not_wait_for_a_busy_one(two: Loopback) -> None:
    two.fault(None, rate_limited(retry_after_ms=60_000))
    assert "".join(llmkit.stream(MESSAGE, model=ROUTE)) == ANSWER
    assert [seen.vendor for seen in two.seen] == ["openai", "mistral"]


def test_as_many_requests_are_in_flight_as_the_provider_bears(two: Loopback) -> None:
    two.latency = 0.01
    said(rows(200), model=ROUTE[0])
    assert 8 < two.max_in_flight <= 64, "it begins with 8 and widens while all goes well"


# ---------------------------------------------------------------------------------------------------------------- metrics


def test_the_share_of_errors_is_read_off_the_run(two: Loopback) -> None:
    two.fault("row 00", error_of("openai", "refusal"))
    told = said(rows(4), model=ROUTE[0])
    assert told["error"].notna().mean() == 0.25
    assert (llmkit.last().progress().errors, llmkit.last().progress().rows) == (1, 4)
    assert llmkit.last().errors()["kind"].tolist() == ["refusal"]


def test_the_success_of_the_fallback_is_read_off_the_detail(two: Loopback) -> None:
    two.fault("row 00", error_of("openai", "server_error"))
    told = said(rows(4), max_attempts=1)
    assert told["provider"].tolist() == ["mistral", "openai", "openai", "openai"]
    assert told["value"].notna().all()


def test_response_times_and_attempts_are_read_off_the_detail(two: Loopback) -> None:
    two.latency = 0.02
    told = said(rows(3), model=ROUTE[0])
    assert (told["seconds"] > 0.015).all()
    assert told["attempts"].tolist() == [1, 1, 1]


def test_the_share_of_stored_answers_is_read_off_the_detail(two: Loopback) -> None:
    said(rows(3), model=ROUTE[0])
    told = said(rows(4), model=ROUTE[0])
    assert (told["source"] == "cache").mean() == 0.75
    assert llmkit.last().progress().stored == 3


def test_the_efficiency_of_batches_is_rows_for_each_request(two: Loopback) -> None:
    rows(400).llm.embed("text", model="mistral/mistral-embed", show_progress=False)
    run = llmkit.last()
    assert run.progress().done / run.usage().requests == 200


def test_tokens_and_dollars_are_told_of_each_row_and_of_the_run(two: Loopback) -> None:
    told = said(rows(3), model=ROUTE[0])
    run, price = llmkit.last(), row_of("openai", "gpt-5-mini")
    expected = (told["input_tokens"] * price["input_price"] + told["output_tokens"] * price["output_price"]) / 1e6
    np.testing.assert_allclose(told["cost"].astype(float), expected.astype(float))
    assert run.cost == pytest.approx(told["cost"].sum())
    assert (run.usage().input, run.usage().output) == (told["input_tokens"].sum(), told["output_tokens"].sum())


def test_stored_answers_cost_nothing_a_second_time(two: Loopback) -> None:
    said(rows(3), model=ROUTE[0])
    assert said(rows(3), model=ROUTE[0])["cost"].tolist() == [0.0, 0.0, 0.0]
    assert llmkit.last().usage().requests == 0


def test_what_a_call_would_cost_is_told_before_it_is_made(two: Loopback) -> None:
    estimate = rows(3).llm.chat("Say {text}", model=ROUTE[0], dry_run=True)
    assert (estimate.rows, estimate.requests) == (3, 3)
    assert estimate.cost > 0
    assert two.requests == 0


def test_a_run_sums_itself_up_in_a_line(two: Loopback) -> None:
    said(rows(3), model=ROUTE[0])
    assert "openai/gpt-5-mini: 3 of 3 rows, 0 errors, 0 stored" in llmkit.last().summary()


def test_the_number_of_providers_grows_by_a_row_and_no_code(server: Loopback) -> None:
    before = len(llmkit.providers())
    llmkit.catalogue.merge({"providers": {"acme": {"base_url": server.url, "key_optional": True}}})
    assert len(llmkit.providers()) == before + 1
    assert llmkit.chat(MESSAGE, model="acme/any") == ANSWER


def test_a_service_may_have_a_session_of_its_own(server: Loopback, tmp_path: Path) -> None:
    llmkit.add_provider("lab", server.url)
    session = llmkit.Session(cache_dir=tmp_path, limits={"lab": {"max_concurrency": 1}})
    server.latency = 0.005
    assert rows(5).llm.using(session).chat("Say {text}", model="lab/x", show_progress=False).notna().all()
    assert server.max_in_flight == 1
    session.close()
