"""Which model of a route serves a row; what was asked is counted at the servers, waits are told by a hand-turned clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pandas as pd
import pytest

import llmkit
from llmkit import session
from llmkit.operations.chat import CHAT, ChatPayload, Message
from llmkit.testing import ManualClock
from llmkit.types import Policy, Request
from tests.engine import turned
from tests.engine.turned import carried_out
from tests.loopback import (
    Answer,
    Hang,
    Loopback,
    Saying,
    Status,
    bad_key,
    error_of,
    no_credit,
    rate_limited,
    refusal,
    server_error,
)
from tests.loopback.content import Said

FOREVER = float("inf")
FIRST, SECOND = "one/test-chat", "two/test-chat"
FILTERED = error_of("openai", "content_filter")
TOO_LONG = error_of("openai", "context_too_long")


@pytest.fixture
def one(server: Loopback) -> Loopback:
    llmkit.add_provider("one", server.url, "key")
    return server


@pytest.fixture
def two() -> Iterator[Loopback]:
    with Loopback() as server:
        llmkit.add_provider("two", server.url, "key")
        yield server


@pytest.fixture
def three() -> Iterator[Loopback]:
    with Loopback() as server:
        llmkit.add_provider("three", server.url, "key")
        yield server


@pytest.fixture
def clock() -> ManualClock:
    return turned.made()


def rows(count: int) -> pd.DataFrame:
    return pd.DataFrame({"text": [f"row {number}." for number in range(count)]})


def chat(frame: pd.DataFrame | int, **options: Any) -> Any:
    table = rows(frame) if isinstance(frame, int) else frame
    return table.llm.chat("Say {text}", **{"model": [FIRST, SECOND], "detail": True, "show_progress": False, **options})


def known(provider: str, **facts: Any) -> None:
    llmkit.catalogue.merge({"models": [{"provider": provider, "name": "test-chat", **facts}]})


@dataclass
class Noting(Answer):
    """Answers as ``how`` does, ordinarily without one; notes on llmkit's clock when each request came, and what it asked."""

    clock: ManualClock
    how: Answer | None = None
    at: list[float] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    async def send(self, wire: Any, ordinary: Any) -> None:
        self.at.append(self.clock.now())
        if self.how is not None:
            await self.how.send(wire, ordinary)
        else:
            wire.finish(b"".join(ordinary()))


# ------------------------------------------------------------------------------------------------------- told to slow down


def test_a_row_that_is_told_to_slow_down_goes_at_once_to_a_model_that_is_free(clock: ManualClock, one: Loopback, two: Loopback) -> None:
    one.fault("row 0", rate_limited(retry_after_ms=60_000))
    said = carried_out(chat(1, wait=False), clock).result()
    assert said["provider"].tolist() == ["two"]
    assert (one.requests, two.requests) == (1, 1)
    assert clock.now() < 1.0, "nobody waited"


def test_with_prefer_first_it_waits_and_the_first_serves_it(clock: ManualClock, one: Loopback, two: Loopback) -> None:
    one.fault("row 0", rate_limited(retry_after_ms=60_000))
    said = carried_out(chat(1, prefer="first", wait=False), clock).result()
    assert said["provider"].tolist() == ["one"]
    assert (one.requests, two.requests) == (2, 0)
    assert clock.now() >= 60.0


def test_where_all_models_are_busy_rows_wait_and_none_is_lost(clock: ManualClock, one: Loopback, two: Loopback) -> None:
    for server in (one, two):
        server.fault(None, rate_limited(retry_after_ms=20_000), times=5)
    said = carried_out(chat(40, wait=False), clock).result()
    assert said["value"].notna().all()
    assert set(said["provider"]) == {"one", "two"}
    assert one.requests + two.requests == 50


def test_rows_of_two_limited_accounts_are_spread_and_none_is_lost(one: Loopback, two: Loopback) -> None:
    for server in (one, two):
        server.rate_limit(per_second=50)
    said = chat(120)
    assert said["value"].notna().all()
    assert said["provider"].value_counts().min() > 0


def test_a_model_for_one_kind_of_refusal_does_not_serve_a_row_that_is_told_to_slow_down(
    clock: ManualClock, one: Loopback, two: Loopback
) -> None:
    one.fault("row 0", rate_limited(retry_after_ms=60_000))
    said = carried_out(chat(1, model=FIRST, context_fallback=SECOND, wait=False), clock).result()
    assert said["provider"].tolist() == ["one"]
    assert two.requests == 0


# ---------------------------------------------------------------------------------------------------------- long waits


def asked_to_wait(seconds: float) -> Status:
    return rate_limited(retry_after_ms=None, retry_after=f"{seconds:g}")


def pacing(clock: ManualClock, server: Loopback, seconds: float) -> Any:
    """Have each request that ``server`` served take so long on llmkit's clock."""
    passed = [server.requests]

    def meanwhile() -> None:
        came, passed[0] = server.requests - passed[0], server.requests
        if came:
            clock.advance(seconds * came)

    return meanwhile


def test_a_model_that_asks_for_more_than_two_minutes_is_parked_and_asked_again_when_they_have_passed(
    clock: ManualClock, one: Loopback, two: Loopback
) -> None:
    at_one, at_two = Noting(clock, asked_to_wait(300)), Noting(clock)
    one.fault(None, at_one)
    back = Noting(clock)
    one.fault(None, back, times=FOREVER)
    two.fault(None, at_two, times=FOREVER)
    run = chat(100, max_concurrency=1, wait=False)
    said = carried_out(run, clock, pacing(clock, two, 5.0)).result()
    assert said["value"].notna().all()
    assert back.at[0] - at_one.at[0] >= 300.0
    assert back.at[0] - at_one.at[0] < 320.0, "and not much later"
    assert max(at_two.at) <= back.at[0], "and from then on it serves again"
    assert set(said["provider"]) == {"one", "two"}


def test_with_prefer_first_a_wait_of_more_than_two_minutes_still_goes_to_the_next_model(
    clock: ManualClock, one: Loopback, two: Loopback
) -> None:
    one.fault(None, asked_to_wait(300), times=FOREVER)
    said = carried_out(chat(10, prefer="first", wait=False), clock).result()
    assert said["provider"].tolist() == ["two"] * 10
    assert clock.now() < 60.0


def test_a_single_models_wait_beyond_the_deadline_ends_the_run_and_says_how_long(clock: ManualClock, one: Loopback) -> None:
    carried_out(chat(5, model=FIRST, wait=False), clock).result()
    one.fault(None, asked_to_wait(7200), times=FOREVER)
    run = carried_out(chat(1000, model=FIRST, wait=False), clock)
    with pytest.raises(llmkit.QuotaSpent, match="7,200 s"):
        run.result()
    assert one.requests <= 5 + 64, "what was in flight, and no more"
    assert run.partial()["value"][:5].notna().all()
    assert run.partial()["value"][5:].isna().all()
    assert clock.now() < 60.0


def test_a_single_models_wait_of_200_seconds_is_waited_out(clock: ManualClock, one: Loopback) -> None:
    one.fault("row 3.", asked_to_wait(200))
    said = carried_out(chat(20, model=FIRST, wait=False), clock).result()
    assert said["value"].notna().all()
    assert clock.now() >= 200.0


def test_where_both_models_ask_for_long_the_last_ones_wait_is_waited_out(clock: ManualClock, one: Loopback, two: Loopback) -> None:
    for server in (one, two):
        server.fault(None, asked_to_wait(300))
    said = carried_out(chat(20, wait=False), clock).result()
    assert said["error"].dropna().tolist() == []
    assert 300.0 <= clock.now() < 700.0


def test_a_row_that_waits_at_the_second_model_while_the_first_shuts_waits_on(clock: ManualClock, one: Loopback, two: Loopback) -> None:
    # Both are busy for a while; then the first key is refused, and the second model, now the only one, asks for five minutes.
    one.fault(None, rate_limited(retry_after_ms=1000), bad_key())
    two.fault(None, rate_limited(retry_after_ms=1500), asked_to_wait(300))
    said = carried_out(chat(2, wait=False), clock).result()
    assert said["value"].notna().all()
    assert clock.now() >= 300.0


# ------------------------------------------------------------------------------------------------------------ a day's quota


def of_a_day(left: int, reset: str = "7h12m") -> dict[str, str]:
    return {
        "x-ratelimit-limit-requests": "14400",
        "x-ratelimit-remaining-requests": f"{left}",
        "x-ratelimit-reset-requests": reset,
    }


@dataclass
class Counted(Answer):
    """The ordinary answer, with Groq's headers about the day's requests."""

    left: int
    came: int = 0

    async def send(self, wire: Any, ordinary: Any) -> None:
        self.came += 1
        self.left = max(0, self.left - 1)
        head, body = ordinary()
        more = "".join(f"{name}: {value}\r\n" for name, value in of_a_day(self.left).items())
        wire.finish(head[:-2] + more.encode() + b"\r\n" + body)


def groq(server: Loopback) -> str:
    llmkit.catalogue.merge({"providers": {"groq": {"base_url": server.compat_url_of("groq")}}})
    llmkit.set_key("groq", "test-key-not-real")
    return "groq/llama-3.1-8b-instant"


def test_a_days_quota_that_is_used_up_shuts_the_account_and_the_next_model_serves(
    clock: ManualClock, server: Loopback, two: Loopback
) -> None:
    model, counted = groq(server), Counted(30)
    server.fault(None, counted, times=FOREVER)
    said = carried_out(chat(200, model=[model, SECOND], max_concurrency=4, wait=False), clock).result()
    assert said["value"].notna().all()
    assert server.requests <= 30 + 4, "what was in flight, and no more"
    assert said["provider"].value_counts().to_dict() == {"two": 200 - server.requests, "groq": server.requests}
    assert clock.now() < 60.0


def test_a_days_quota_that_is_used_up_ends_the_run_where_no_other_model_is(clock: ManualClock, server: Loopback) -> None:
    model = groq(server)
    server.fault(None, Counted(30), times=FOREVER)
    run = carried_out(chat(200, model=model, max_concurrency=4, wait=False), clock)
    with pytest.raises(llmkit.QuotaSpent, match=r"25,\d\d\d s"):
        run.result()
    assert server.requests <= 30 + 4
    assert run.partial()["value"].notna().sum() == server.requests


def test_a_days_requests_that_count_down_are_no_pace(clock: ManualClock, server: Loopback) -> None:
    model = groq(server)
    server.fault(None, Counted(14_400), times=FOREVER)
    said = carried_out(chat(300, model=model, wait=False), clock).result()
    assert said["value"].notna().all()
    (account,) = session.default().engine._accounts.values()
    assert account.limiter.requests_per_minute is None
    assert account.limiter.left_today == 14_400 - 300
    assert clock.now() < 30.0, "14,400 a day would be one in six seconds"


# --------------------------------------------------------------------------------------------------- too long, or filtered


def texts(*each: str) -> pd.DataFrame:
    return pd.DataFrame({"text": each})


def test_a_row_that_is_too_long_is_served_by_the_model_of_the_larger_window_and_no_other_row_is(one: Loopback, two: Loopback) -> None:
    one.fault("row 3.", TOO_LONG, times=FOREVER)
    said = chat(10, model=FIRST, context_fallback=SECOND)
    assert said["provider"].tolist() == ["two" if number == 3 else "one" for number in range(10)]
    assert (one.requests, two.requests) == (10, 1)
    assert said["attempts"].tolist() == [2 if number == 3 else 1 for number in range(10)]


def test_a_model_whose_window_is_known_to_be_no_larger_is_not_asked(one: Loopback, two: Loopback, three: Loopback) -> None:
    known("one", context_window=8000)
    known("two", context_window=8000)
    known("three", context_window=100_000)
    one.fault("row 3.", TOO_LONG, times=FOREVER)
    said = chat(5, model=[FIRST, SECOND], context_fallback="three/test-chat")
    assert said["provider"][3] == "three"
    assert (one.requests, two.requests, three.requests) == (5, 0, 1)


def test_a_row_that_is_surely_too_long_is_never_sent_to_the_small_model(one: Loopback, two: Loopback) -> None:
    known("one", context_window=100)
    said = chat(texts("short", "long " * 1000), model=FIRST, context_fallback=SECOND)
    assert said["provider"].tolist() == ["one", "two"]
    assert said["attempts"].tolist() == [1, 1]
    assert (one.count("long"), two.count("long")) == (0, 1)


def test_a_window_is_compared_with_those_that_were_too_small_and_not_with_those_that_were_down(
    one: Loopback, two: Loopback, three: Loopback
) -> None:
    known("one", context_window=8000)
    known("two", context_window=100_000)
    known("three", context_window=32_000)
    one.fault("row 3.", TOO_LONG, times=FOREVER)
    two.fault("row 3.", server_error(), times=FOREVER)
    said = chat(5, model=[FIRST, SECOND, "three/test-chat"], max_attempts=1)
    assert said["provider"].tolist() == ["one", "one", "one", "three", "one"]
    assert (one.requests, two.requests, three.requests) == (5, 1, 1)


def test_a_row_that_no_window_holds_fails_alone_and_says_so_of_each(one: Loopback, two: Loopback) -> None:
    for server in (one, two):
        server.fault("row 3.", TOO_LONG, times=FOREVER)
    said = chat(5, model=FIRST, context_fallback=SECOND)
    assert said["value"].isna().tolist() == [number == 3 for number in range(5)]
    (failed,) = llmkit.last().errors().to_dict("records")
    assert failed["kind"] == "context_too_long"
    assert "all 2 models failed: one/test-chat: " in failed["error"]
    assert "; two/test-chat: " in failed["error"]


def test_a_model_for_long_rows_keeps_no_run_alive_whose_own_models_are_shut(one: Loopback, two: Loopback) -> None:
    one.fault(None, bad_key(), times=FOREVER)
    with pytest.raises(llmkit.KeyRejected):
        chat(1000, model=FIRST, context_fallback=SECOND)
    assert one.requests <= 8
    assert two.requests == 0


@pytest.mark.parametrize("filtered", [FILTERED, refusal(), Saying(Said("", reason="content_filter"))], ids=["400", "refusal", "held back"])
def test_a_filtered_row_goes_to_the_content_fallback_and_no_other_row_does(one: Loopback, two: Loopback, filtered: Answer) -> None:
    one.fault("row 3.", filtered, times=FOREVER)
    said = chat(10, model=FIRST, content_fallback=SECOND)
    assert said["provider"].tolist() == ["two" if number == 3 else "one" for number in range(10)]
    assert said["value"].notna().all()
    assert (one.requests, two.requests) == (10, 1)


@pytest.mark.parametrize("filtered", [FILTERED, refusal()], ids=["400", "refusal"])
def test_without_a_content_fallback_a_filtered_row_fails_and_no_other_model_is_shown_it(
    one: Loopback, two: Loopback, filtered: Answer
) -> None:
    one.fault("row 3.", filtered, times=FOREVER)
    said = chat(10, context_fallback="two/other")
    assert said["value"].isna().tolist() == [number == 3 for number in range(10)]
    assert two.requests == 0
    assert [type(outcome.error) for outcome in llmkit.last().tasks() if outcome.error] == [llmkit.errors.ContentBlocked]


def test_a_filtered_row_is_not_shown_to_the_other_ordinary_models(one: Loopback, two: Loopback, three: Loopback) -> None:
    one.fault("row 3.", FILTERED, times=FOREVER)
    said = chat(5, model=[FIRST, SECOND], content_fallback="three/test-chat")
    assert said["provider"][3] == "three"
    assert two.requests == 0


def test_what_a_refusal_cost_at_the_first_model_is_counted_beside_what_the_second_cost(one: Loopback, two: Loopback) -> None:
    known("one", price={"input": 1.0, "output": 2.0})
    known("two", price={"input": 10.0, "output": 20.0})
    one.fault("row 0.", refusal())
    said = chat(1, model=FIRST, content_fallback=SECOND)
    answered = llmkit.chat("Say row 0.", model=SECOND, cache="off")
    assert answered == said["value"][0]
    alone = llmkit.last()
    refused = (9 * 1.0 + 8 * 2.0) / 1e6
    assert said["cost"][0] == pytest.approx(alone.cost + refused)
    assert said["input_tokens"][0] == alone.usage().input + 9


# ------------------------------------------------------------------------------------------------------------ down, and back


@dataclass
class Patient(Answer):
    """500 while ``down``, ordinary answers otherwise; notes on llmkit's clock when each request came and what it was told."""

    clock: ManualClock
    down: bool = False
    came: list[tuple[float, bool]] = field(default_factory=list)

    async def send(self, wire: Any, ordinary: Any) -> None:
        self.came.append((self.clock.now(), not self.down))
        if self.down:
            await server_error().send(wire, ordinary)
        else:
            wire.finish(b"".join(ordinary()))


def test_a_model_that_was_down_is_found_again_by_one_row_an_interval_and_serves_on(
    clock: ManualClock, one: Loopback, two: Loopback
) -> None:
    first = Patient(clock, down=True)
    one.fault(None, first, times=FOREVER)
    slowly = pacing(clock, two, 1.0)

    def meanwhile() -> None:
        slowly()
        first.down = clock.now() < 200.0

    run = chat(600, max_concurrency=4, wait=False)
    said = carried_out(run, clock, meanwhile).result()
    assert said["value"].notna().all()
    refused = [at for at, served in first.came if not served]
    served = [at for at, served in first.came if served]
    left = next(at for at, after in pairwise(refused) if after - at > 20.0)
    probes = [at for at in refused if at > left]
    assert left < 10.0, "it is left when it answers nobody"
    assert 1 <= len(probes) <= 4, "at 30 s, 90 s, 210 s: one row each"
    assert min(later - earlier for earlier, later in pairwise([left, *probes])) >= 29.0
    assert served[0] - 200.0 <= 125.0, "found within its interval"
    assert said["provider"].tolist()[-4:] == ["one"] * 4, "and it serves again"
    looked = said[(said["provider"] == "two") & (said["attempts"] > 1)]
    assert len(looked) >= len(probes), "the rows that looked were served by the other"


def test_a_host_that_refuses_connections_is_left_and_found_again(clock: ManualClock, one: Loopback, two: Loopback) -> None:
    at_one, at_two = Noting(clock), Noting(clock)
    for server, noting in ((one, at_one), (two, at_two)):
        server.fault(None, noting, times=FOREVER)
    one.stop()
    slowly = pacing(clock, two, 1.0)

    def meanwhile() -> None:
        slowly()
        if clock.now() > 50.0 and one._thread is None:
            one.start()

    said = carried_out(chat(300, max_concurrency=2, wait=False), clock, meanwhile).result()
    assert said["value"].notna().all()
    assert said["provider"].tolist()[-50:] == ["one"] * 50
    assert at_two.at[0] < 10.0, "it is left when it answers nobody"
    assert 90.0 <= at_one.at[0] <= 110.0, "after 30 s it was still down, after 60 s more it is back"
    assert max(at_two.at) <= at_one.at[0] + 2.0, "and serves again"


def test_a_refused_key_is_not_looked_at_again(clock: ManualClock, one: Loopback, two: Loopback) -> None:
    one.fault(None, bad_key(), times=FOREVER)
    said = carried_out(chat(300, max_concurrency=1, wait=False), clock, pacing(clock, two, 5.0)).result()
    assert said["provider"].tolist() == ["two"] * 300
    assert one.requests == 1
    assert clock.now() > 1000.0


# ---------------------------------------------------------------------------------------------------------------- all failed


def test_when_all_models_fail_the_error_names_each_and_its_cause(one: Loopback, two: Loopback) -> None:
    one.fault(None, no_credit(), times=FOREVER)
    two.fault(None, bad_key(), times=FOREVER)
    with pytest.raises(llmkit.KeyRejected, match=r"all 2 models failed: one/test-chat: .*credit.*; two/test-chat: .*key"):
        chat(100)


def test_a_rows_error_names_each_model_and_its_own_cause(one: Loopback, two: Loopback) -> None:
    one.fault("row 3.", server_error(), times=FOREVER)
    two.fault("row 3.", Hang(), times=FOREVER)
    said = chat(6, max_attempts=2, timeout=0.3)
    assert said["value"].isna().tolist() == [number == 3 for number in range(6)]
    (message,) = llmkit.last().errors()["error"]
    assert message.startswith("two/test-chat: all 2 models failed: one/test-chat: ") or "all 2 models failed: one/test-chat: " in message
    assert "; two/test-chat: no answer within 0.3 s" in message
    assert said["attempts"][3] == 4


# ------------------------------------------------------------------------------------------------------------------- streams


def streamed(**fallbacks: Any) -> tuple[str, Any]:
    """The pieces of one answer, and who gave it."""
    wish = Request("chat", ChatPayload((Message("user", "Tell me"),)), {})
    route = session.default().route(FIRST, "chat", None, fallbacks.get("context"), fallbacks.get("content"))
    answer = session.default().stream(CHAT, wish, route, Policy(cache="off", max_attempts=1), 5.0)
    return "".join(answer), answer.model


def test_a_stream_passes_over_models_for_one_kind_of_refusal_unless_that_is_the_reason(one: Loopback, two: Loopback) -> None:
    one.fault(None, server_error(), TOO_LONG, FILTERED)
    with pytest.raises(llmkit.errors.ServerFault):
        streamed(context=SECOND, content=SECOND)
    assert two.requests == 0
    said, model = streamed(context=SECOND)
    assert (said, model) == ("answer to: Tell me", SECOND)
    assert two.requests == 1
    said, model = streamed(content=SECOND)
    assert (said, model) == ("answer to: Tell me", SECOND)
    assert two.requests == 2


def test_a_stream_waits_for_a_busy_model_where_the_others_are_for_long_questions_only(one: Loopback, two: Loopback) -> None:
    one.fault(None, rate_limited(retry_after_ms=30))
    assert streamed(context=SECOND)[0] == "answer to: Tell me"
    assert (one.requests, two.requests) == (2, 0)
