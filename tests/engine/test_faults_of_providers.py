"""Faults that only one vendor has, in that vendor's own words, at its own row of the catalogue; waits are told by a hand-turned clock."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import pytest

import llmkit
from llmkit import event_loop, session
from llmkit.engine.limiter import Limiter
from llmkit.testing import ManualClock
from tests.loopback import Answer, Json, Loopback, Saying, Status, error_of
from tests.loopback.content import Said

FOREVER = float("inf")


def rows(count: int) -> pd.DataFrame:
    return pd.DataFrame({"text": [f"row {number}." for number in range(count)]})


def chat(count: int, model: str | list[str], **options: Any) -> Any:
    return rows(count).llm.chat("Say {text}", **{"model": model, "show_progress": False, **options})


def embed(count: int, model: str, **options: Any) -> Any:
    return rows(count).llm.embed("text", **{"model": model, "show_progress": False, **options})


def move(name: str, server: Loopback) -> None:
    """The vendor's own row of the catalogue, at the loopback's address for it."""
    native = name in ("anthropic", "cohere", "voyage")
    llmkit.catalogue.merge({"providers": {name: {"base_url": server.url_of(name) if native else server.compat_url_of(name)}}})
    llmkit.set_key(name, "test-key-not-real")


def limiter() -> Limiter:
    """Of the account that was asked first."""
    return next(iter(session.default().engine._accounts.values())).limiter


@pytest.fixture
def clock() -> ManualClock:
    """The shared session lives by it."""
    clock = ManualClock()
    session.default.made = session.Session(clock=clock)
    return clock


def carried_out(run: Any, clock: ManualClock) -> Any:
    """The run's result; the clock is turned to whatever is waited for, but never while a request is on its way."""

    async def turn() -> None:
        while not run.done:
            await asyncio.sleep(0)
            accounts = session.default().engine._accounts.values()
            if clock.next_alarm is not None and not any(account.limiter.in_flight for account in accounts):
                clock.advance(max(0.0, clock.next_alarm - clock.now()))

    event_loop.call(turn)
    return run.result()


@dataclass
class Watched(Answer):
    """Answers as ordered while ``left`` lasts, ordinarily afterwards; notes on llmkit's clock when each request came."""

    clock: ManualClock
    refusal: Answer
    left: float = 1
    at: list[float] = field(default_factory=list)

    async def send(self, wire: Any, ordinary: Any) -> None:
        self.at.append(self.clock.now())
        self.left -= 1
        if self.left >= 0:
            await self.refusal.send(wire, ordinary)
        else:
            wire.finish(b"".join(ordinary()))


# ------------------------------------------------------------------------------------------------------------------- mistral


def capacity_exceeded(status: int) -> Status:
    message = "Service tier capacity exceeded for this model."
    return Status(status, {"object": "error", "message": message, "type": "invalid_request_error", "param": None, "code": None})


@pytest.mark.parametrize("status", [429, 503])
def test_rl11_mistrals_lack_of_capacity_is_left_to_the_next_model_and_limits_nobody(server: Loopback, status: int) -> None:
    move("mistral", server)
    server.fault(None, capacity_exceeded(status), times=FOREVER)
    with Loopback() as other:
        llmkit.add_provider("spare", other.url, "key")
        said = chat(3, ["mistral/mistral-small-latest", "spare/test-chat"], max_attempts=1, detail=True)
    assert said["provider"].tolist() == ["spare"] * 3
    of_mistral = limiter()
    assert (of_mistral.requests_per_minute, of_mistral.tokens_per_minute, of_mistral.pace.bucket) == (None, None, None)


@pytest.mark.parametrize("status", [429, 503])
def test_rl11_mistrals_lack_of_capacity_is_waited_out(server: Loopback, status: int) -> None:
    move("mistral", server)
    server.fault("row 0", capacity_exceeded(status), times=2)
    assert chat(1, "mistral/mistral-small-latest").notna().all()
    assert server.requests == 3


# -------------------------------------------------------------------------------------------------------------------- cohere


@dataclass
class Trial(Answer):
    """Ten calls in any minute of llmkit's clock; more are refused in Cohere's words, with its headers or without."""

    clock: ManualClock
    told: bool
    came: list[tuple[float, bool]] = field(default_factory=list)

    async def send(self, wire: Any, ordinary: Any) -> None:
        now = self.clock.now()
        served = sum(answered and at > now - 60.0 for at, answered in self.came) < 10
        self.came.append((now, served))
        refusal = error_of("cohere", "rate_limited")
        assert isinstance(refusal, Status)
        if served:
            wire.finish(b"".join(ordinary()))
        else:
            await Status(refusal.code, refusal.body, refusal.headers if self.told else {}).send(wire, ordinary)


@pytest.mark.parametrize("told", [False, True], ids=["text alone", "headers"])
def test_rl12_coheres_trial_key_is_sent_ten_requests_in_any_minute_after_its_first_429(
    server: Loopback, clock: ManualClock, told: bool
) -> None:
    move("cohere", server)
    trial = Trial(clock, told)
    server.fault(None, trial, times=FOREVER)
    answers = carried_out(chat(60, "cohere/command-a-03-2025", wait=False), clock)
    assert answers.notna().all()
    first = next(at for at, served in trial.came if not served)
    later = [at for at, _ in trial.came if at > first]
    assert max(sum(start <= at < start + 60.0 for at in later) for start in later) <= 10
    assert sum(at <= first for at, _ in trial.came) <= 48, "and what had left when it came was little more than one window"
    assert clock.now() < 8 * 60, "and the minute is used"


def test_rl13_coheres_monthly_quota_ends_ten_thousand_rows_at_once_and_keeps_what_there_is(server: Loopback) -> None:
    move("cohere", server)
    kept = chat(5, "cohere/command-a-03-2025")
    before = server.requests
    server.fault(None, error_of("cohere", "quota_month"), times=FOREVER)
    with pytest.raises(llmkit.QuotaSpent, match="month"):
        chat(10_000, "cohere/command-a-03-2025")
    run = llmkit.last()
    assert server.requests - before <= Limiter.FIRST_WINDOW + 1
    assert run.progress().seconds < 5
    assert run.partial()[:5].tolist() == kept.tolist()
    assert run.partial()[5:].isna().all()


def test_rl16_rl17_the_number_498_is_busy_at_groq_and_a_blocked_word_at_cohere(server: Loopback) -> None:
    for name in ("groq", "cohere"):
        move(name, server)
    server.fault("row 0", error_of("groq", "overloaded"), times=2)
    assert chat(1, "groq/llama-3.1-8b-instant").notna().all()
    assert server.requests == 3
    server.fault("row 1", Status(498, {"id": "1", "message": "blocked: a deny-listed token"}), times=FOREVER)
    assert chat(3, "cohere/command-a-03-2025").isna().tolist() == [False, True, False]
    assert llmkit.last().errors()["kind"].tolist() == ["content_filter"]
    assert server.count("row 1") == 1


def test_ba03_cohere_gets_at_most_96_texts_a_request(server: Loopback) -> None:
    move("cohere", server)
    assert embed(200, "cohere/embed-v4.0").notna().all()
    assert max(len(seen.texts) for seen in server.seen) <= 96
    assert server.requests == math.ceil(200 / 96)


# ------------------------------------------------------------------------------------------------------------------- anthropic


def test_rl19_anthropics_output_tokens_are_waited_for_as_long_as_it_asks(server: Loopback, clock: ManualClock) -> None:
    move("anthropic", server)
    spent = {
        "retry-after": "2",
        "anthropic-ratelimit-input-tokens-limit": "40000",
        "anthropic-ratelimit-input-tokens-remaining": "39000",
        "anthropic-ratelimit-output-tokens-limit": "8000",
        "anthropic-ratelimit-output-tokens-remaining": "0",
        "anthropic-ratelimit-output-tokens-reset": "2026-11-21T12:00:02Z",
        "date": "Sat, 21 Nov 2026 12:00:00 GMT",
    }
    message = "This request would exceed your organization's rate limit of 80,000 output tokens per minute."
    body = {"type": "error", "error": {"type": "rate_limit_error", "message": message}}
    watched = Watched(clock, Status(429, body, spent))
    server.fault(None, watched, times=FOREVER)
    said = carried_out(chat(1, "anthropic/claude-haiku-4-5", max_tokens=50, wait=False), clock)
    assert said.notna().all()
    first, second = watched.at
    assert second - first >= 2.0
    of_input, of_output = limiter().input, limiter().output
    assert of_input is not None
    assert of_output is not None
    assert (of_input.per_minute, of_output.per_minute) == (40_000, 8_000)


def test_rl20_an_overload_that_says_so_itself_is_not_tried_again_but_elsewhere(server: Loopback) -> None:
    move("anthropic", server)
    overload = error_of("anthropic", "overloaded")
    assert isinstance(overload, Status)
    server.fault(None, Status(529, overload.body, {**overload.headers, "x-should-retry": "false"}), times=FOREVER)
    with Loopback() as other:
        llmkit.add_provider("spare", other.url, "key")
        said = chat(1, ["anthropic/claude-haiku-4-5", "spare/test-chat"], max_tokens=50, detail=True)
        assert (server.requests, other.requests) == (1, 1)
    assert said["provider"].tolist() == ["spare"]
    assert limiter().window < Limiter.FIRST_WINDOW, "and fewer are sent at once for a while"


def test_ff02_a_key_that_may_not_use_the_model_ends_the_run_at_once(server: Loopback) -> None:
    move("anthropic", server)
    server.fault(None, error_of("anthropic", "forbidden"), times=FOREVER)
    with pytest.raises(llmkit.KeyRejected, match="may not do this"):
        chat(1000, "anthropic/claude-haiku-4-5", max_tokens=50)
    assert server.requests <= Limiter.FIRST_WINDOW


def test_ff03_a_model_that_the_vendor_does_not_know_is_told_with_the_nearest_name(server: Loopback) -> None:
    move("openai", server)
    server.fault(None, error_of("openai", "unknown_model"), times=FOREVER)
    with pytest.raises(llmkit.ModelGone, match="gpt-4.1-mini"):
        chat(1000, "openai/gpt-4.1-minni")
    assert server.requests <= Limiter.FIRST_WINDOW


# ------------------------------------------------------------------------------------------------------ batches, and vectors


def test_ba02_voyages_cap_on_tokens_is_learned_from_its_refusal_and_kept_to(server: Loopback) -> None:
    move("voyage", server)
    server.fault(None, error_of("voyage", "batch_too_large"))
    vectors = embed(2500, "voyage/voyage-3.5", max_concurrency=2)  # two at once: what is packed later knows better
    assert vectors.notna().all()
    refused, *others = [len(seen.texts) for seen in server.seen]
    assert sum(others) == 2500, "each row once more, and none lost"
    assert max(others[-2:]) < refused, "what fits is remembered for the rest of the run"
    assert server.requests <= math.ceil(2500 / refused) + 2 * math.log2(refused)


def test_ba04_gemini_gets_at_most_100_texts_a_request(server: Loopback) -> None:
    move("gemini", server)
    assert embed(250, "gemini/gemini-embedding-001").notna().all()
    assert max(len(seen.texts) for seen in server.seen) <= 100
    assert server.requests == 3


@pytest.mark.parametrize(("name", "model"), [("cohere", "embed-v4.0"), ("gemini", "gemini-embedding-001")])
def test_ba03_ba04_a_batch_that_is_refused_all_the_same_is_halved(server: Loopback, name: str, model: str) -> None:
    move(name, server)
    server.fault(None, error_of(name, "batch_too_large", compat=True))
    assert embed(90, f"{name}/{model}").notna().all()
    assert [len(seen.texts) for seen in server.seen] == [90, 45, 45]


# --------------------------------------------------------------------------------------------------------------- tokens per day


def test_groqs_tokens_per_day_are_a_quota_and_not_a_pace(server: Loopback) -> None:
    move("groq", server)
    server.fault(None, error_of("groq", "quota_day"), times=FOREVER)
    with pytest.raises(llmkit.QuotaSpent):
        chat(1000, "groq/llama-3.1-8b-instant")
    assert server.requests <= Limiter.FIRST_WINDOW


# ------------------------------------------------------------------------------------------------- what every vendor may do


@pytest.mark.parametrize(
    "numbers",
    [[1e39] * 8, [1e-40] * 8, [0.0] * 8, [None] * 8, [], ["0.1"] * 7 + ["x"], {"0": 1.0}],
    ids=["beyond float32", "subnormal", "zeros", "nulls", "none", "words", "object"],
)
def test_em03_numbers_that_are_no_vector_fail_their_row(server: Loopback, lab: Loopback, numbers: Any) -> None:
    data = [{"object": "embedding", "index": 0, "embedding": numbers}, {"object": "embedding", "index": 1, "embedding": [0.5] * 8}]
    server.fault(None, Json({"object": "list", "data": data, "usage": {"prompt_tokens": 2}}))
    assert embed(2, "lab/test-embed").isna().tolist() == [True, False]
    assert llmkit.last().errors()["kind"].tolist() == ["invalid_vector"]


def test_st06_a_refusal_and_an_answer_that_was_cut_are_told_apart_in_a_frame(server: Loopback) -> None:
    move("anthropic", server)
    server.fault("row 0", error_of("anthropic", "refusal"), times=FOREVER)
    server.fault("row 1", Saying(Said("half a sen", reason="length")))
    said = chat(3, "anthropic/claude-haiku-4-5", max_tokens=50, detail=True)
    assert said["value"].isna().tolist() == [True, False, False]
    assert said["finish"].tolist()[1:] == ["length", "stop"]
    assert llmkit.last().errors()["kind"].tolist() == ["refusal"]
