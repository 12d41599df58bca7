"""Prompt prefixes: what a vendor that keeps prompts bills for a frame, over sockets, and whose turn it is."""

from __future__ import annotations

import asyncio
import itertools
import math
from typing import Any

import pandas as pd
import pytest

import llmkit
from llmkit import event_loop, session
from llmkit.adapter import Kept
from llmkit.engine.prefixes import Prefixes, Turns
from llmkit.engine.retry import Ticket
from llmkit.testing import ManualClock
from llmkit.types import Request
from tests.loopback import Hang, Loopback, PromptCache, error_of
from tests.loopback.content import text_in

SENTENCE = "The rules of the house are these. "
#: Some 4,000 tokens, as the loopback counts them.
SHARED = SENTENCE * 480

VENDORS = ["anthropic/claude-sonnet-5", "openai/gpt-5-mini", "openai/gpt-5.6"]


def frame(count: int, **more: Any) -> pd.DataFrame:
    return pd.DataFrame({"text": [f"row {number} of the frame" for number in range(count)], **more})


def move(server: Loopback, cache: PromptCache | None = None) -> PromptCache:
    """The vendors' own rows of the catalogue at the loopback, which keeps prompts now."""
    for name in ("anthropic", "openai"):
        llmkit.catalogue.merge({"providers": {name: {"base_url": server.url_of(name)}}})
        llmkit.set_key(name, "test-key-not-real")
    server.prompt_cache = cache or PromptCache()
    return server.prompt_cache


def chat(rows: pd.DataFrame, model: str, prompt: str = "Say {text}", **options: Any) -> Any:
    return rows.llm.chat(prompt, model=model, **{"system": SHARED, "show_progress": False, **options})


def last() -> Any:
    return llmkit.last()


@pytest.fixture
def clock() -> ManualClock:
    """The shared session lives by it."""
    clock = ManualClock()
    session.default.made = session.Session(clock=clock)
    return clock


def turned(run: Any, clock: ManualClock) -> Any:
    """The run's result; the clock is turned to whatever is waited for, but never while a request is on its way."""

    async def turn() -> None:
        while not run.done:
            await asyncio.sleep(0)
            accounts = session.default().engine._accounts.values()
            if clock.next_alarm is not None and not any(account.limiter.in_flight for account in accounts):
                clock.advance(max(0.0, clock.next_alarm - clock.now()))

    event_loop.call(turn)
    return run.result()


# ---------------------------------------------------------------------------------------------------------------- a frame


@pytest.mark.parametrize("model", VENDORS)
@pytest.mark.parametrize("place", ["system", "template"])
def test_of_what_a_thousand_rows_share_nearly_all_is_billed_as_cached_and_it_is_written_once(
    server: Loopback, model: str, place: str
) -> None:
    kept = move(server)
    server.latency = 0.01  # all that may be on their way are, while the first is answered
    if place == "system":
        said = chat(frame(1000), model)
    else:
        said = chat(frame(1000), model, SHARED + "\n\nSay {text}", system=None)
    assert said.notna().all()
    assert sum(bill.read for bill in kept.bills) >= 0.95 * 1000 * (len(SHARED) // 4)
    assert max(kept.writes.values()) == 1
    usage = last().usage()
    assert (usage.requests, usage.cached_input, usage.cache_write) == (
        1000,
        sum(bill.read for bill in kept.bills),
        sum(bill.written for bill in kept.bills),
    )
    assert usage.input == sum(map(sum, kept.bills))


def test_the_answers_are_those_of_the_rows_they_belong_to(server: Loopback) -> None:
    move(server)
    rows = frame(50)
    said = chat(rows, VENDORS[0], SHARED + "\n\nSay {text}", system=None)
    assert all(answer.endswith(f"Say {text}") for answer, text in zip(said, rows["text"], strict=True))


@pytest.mark.parametrize("model", VENDORS)
def test_off_sends_what_was_sent_before_there_was_a_cache(server: Loopback, model: str) -> None:
    kept = move(server)
    chat(frame(20), model, prompt_cache="off")
    bodies = [request.body for request in server.seen]
    assert all(set(body) <= {"model", "messages", "system", "max_tokens"} for body in bodies)
    assert all(isinstance(message["content"], str) for body in bodies for message in body["messages"])
    assert not any(bill.read for bill in kept.bills) or model == "openai/gpt-5-mini"


@pytest.mark.parametrize("model", VENDORS)
def test_a_short_prefix_is_neither_marked_nor_waited_for(server: Loopback, model: str) -> None:
    move(server)
    server.hold()
    run = chat(frame(20), model, system=SENTENCE, wait=False)
    server.wait_for(2)  # nobody went ahead
    server.release()
    run.result()
    assert all(set(request.body) <= {"model", "messages", "system", "max_tokens"} for request in server.seen)


@pytest.mark.parametrize("model", VENDORS)
def test_stored_answers_are_found_with_and_without_marks_and_by_a_larger_frame(server: Loopback, model: str) -> None:
    move(server)
    chat(frame(1), model)  # alone, hence unmarked
    chat(frame(10), model, prompt_cache="off")
    chat(frame(30), model)
    chat(frame(30), model, prompt_cache="off")
    assert server.requests == 30


def test_one_row_alone_is_not_marked_and_the_next_call_within_the_lifetime_is(server: Loopback, clock: ManualClock) -> None:
    kept = move(server, PromptCache(clock.now))
    for number in range(3):
        llmkit.chat(f"Say {number}", model=VENDORS[0], system=SHARED)
    assert [bill.written > 0 for bill in kept.bills] == [False, True, False]
    assert [bill.read > 0 for bill in kept.bills] == [False, False, True]


def test_a_row_that_is_left_of_a_stored_frame_is_not_marked(server: Loopback) -> None:
    move(server)
    rows = frame(20)
    chat(rows.iloc[:19], VENDORS[0], prompt_cache="off")
    chat(rows, VENDORS[0])
    assert isinstance(server.seen[-1].body["system"], str)


# -------------------------------------------------------------------------------------------------- ahead, and its failure


def test_one_row_goes_ahead_and_the_rest_follow_together(server: Loopback) -> None:
    move(server)
    server.hold()
    run = chat(frame(20), VENDORS[0], wait=False)
    server.wait_for(1)
    with pytest.raises(AssertionError):
        server.wait_for(2, timeout=0.2)
    server.release()
    run.result()
    assert server.requests == 20


def test_the_failure_of_the_one_ahead_lets_another_go_ahead(server: Loopback) -> None:
    kept = move(server)
    server.fault("row 0 ", error_of("anthropic", "server_error"), times=math.inf)
    said = chat(frame(20), VENDORS[0], max_attempts=1)
    assert said.isna().tolist() == [True] + [False] * 19
    assert list(kept.writes.values()) == [1]
    assert sum(bill.read > 0 for bill in kept.bills) == 18


def test_one_ahead_that_never_answers_holds_the_others_up_no_longer_than_its_timeout(server: Loopback) -> None:
    move(server)
    server.fault("row 0 ", Hang())
    said = chat(frame(20), VENDORS[0], timeout=0.3, max_attempts=1)
    assert said.isna().tolist() == [True] + [False] * 19


def test_a_run_that_is_stopped_while_one_is_ahead_ends(server: Loopback) -> None:
    move(server)
    server.hold()
    run = chat(frame(200), VENDORS[0], wait=False)
    server.wait_for(1)
    run.cancel()
    server.release()
    assert len(run.partial()) == 200
    assert chat(frame(5), VENDORS[0]).notna().all()


def test_a_refused_account_ends_the_rows_that_wait_for_the_one_ahead(server: Loopback) -> None:
    move(server)
    server.key = "another"
    with pytest.raises(llmkit.KeyRejected):
        chat(frame(200), VENDORS[0])
    assert server.requests == 1


def test_a_budget_that_is_reached_ends_the_rows_that_wait_for_another(server: Loopback) -> None:
    move(server)
    server.hold()
    run = chat(documents(2, 40), VENDORS[0], ABOUT, system=None, wait=False, max_tokens=10, max_cost=0.009, on_error="keep")
    server.wait_for(1)  # one of a document is ahead and has taken the budget up
    server.release()
    with pytest.warns(UserWarning, match="max_cost"):
        run.result()
    assert 0 < server.requests < 80


# ----------------------------------------------------------------------------------------------------------- the lifetime


@pytest.mark.parametrize("model", VENDORS)
def test_a_second_call_within_the_lifetime_sends_none_ahead_and_one_after_it_does(server: Loopback, clock: ManualClock, model: str) -> None:
    kept = move(server, PromptCache(clock.now))
    lifetime = 1800 if model == "openai/gpt-5.6" else 300
    turned(chat(frame(10), model, wait=False), clock)
    clock.advance(lifetime / 2)
    server.hold()
    run = chat(frame(10), model, "Tell {text}", wait=False)
    server.wait_for(12)  # nobody goes ahead
    server.release()
    turned(run, clock)
    assert max(kept.writes.values()) == 1
    clock.advance(lifetime + 1)
    turned(chat(frame(10), model, "Ask {text}", wait=False), clock)
    assert set(kept.writes.values()) == {2}  # one in each lifetime


def test_two_runs_at_once_send_one_ahead_for_both(server: Loopback) -> None:
    kept = move(server)
    server.hold()
    runs = [chat(frame(50), VENDORS[0], prompt, wait=False) for prompt in ("Say {text}", "Tell {text}")]
    server.wait_for(1)
    server.release()
    assert all(run.result().notna().all() for run in runs)
    assert list(kept.writes.values()) == [1]


# ----------------------------------------------------------------------------------------------------- groups by document


def documents(groups: int, each: int) -> pd.DataFrame:
    """Questions about documents, those of one document far apart."""
    cells = [(f"Document {group}. " + SENTENCE * 200, f"question {number}?") for number in range(each) for group in range(groups)]
    return pd.DataFrame(cells, columns=["document", "question"], index=[f"r{place % 7}" for place in range(len(cells))])


ABOUT = "{document}\n\nQuestion: {question}"


@pytest.mark.parametrize("model", VENDORS)
def test_rows_about_one_document_run_together_and_pay_for_it_once(server: Loopback, model: str) -> None:
    kept = move(server)
    server.latency = 0.01
    rows = documents(20, 10)
    said = chat(rows, model, ABOUT, system=None)
    assert [answer.rpartition("Question: ")[2] for answer in said] == rows["question"].tolist()
    assert said.index.equals(rows.index)
    assert all(document[:12] in answer for answer, document in zip(said, rows["document"], strict=True))
    assert set(kept.writes.values()) == {1}
    shared = 180 * (len(rows["document"].iloc[0]) // 4)  # nine of ten rows of each document
    assert sum(bill.read for bill in kept.bills) >= 0.9 * shared


def test_instructions_and_documents_are_kept_apart_from_each_other(server: Loopback) -> None:
    kept = move(server)
    server.latency = 0.01
    chat(documents(10, 5), VENDORS[0], ABOUT)  # 4,000 tokens before documents of 1,700
    assert set(kept.writes.values()) == {1}
    assert len(kept.writes) == 11
    assert sum(bill.read >= len(SHARED) // 4 for bill in kept.bills) == 49


def test_documents_that_never_repeat_are_not_paid_for(server: Loopback) -> None:
    kept = move(server)
    said = chat(documents(40, 1), VENDORS[0], ABOUT, system=None)
    assert said.notna().all()
    assert not kept.writes
    assert all(isinstance(request.body["messages"][0]["content"], str) for request in server.seen)


def test_a_document_of_one_row_among_those_of_several_is_not_marked(server: Loopback) -> None:
    kept = move(server)
    rows = pd.concat([documents(4, 3), pd.DataFrame({"document": ["Another. " + SENTENCE * 200], "question": ["alone?"]})])
    chat(rows, VENDORS[0], ABOUT, system=None)
    assert set(kept.writes.values()) == {1} and len(kept.writes) == 4


# ------------------------------------------------------------------------------------------------------ money and estimates


def test_the_saving_in_dollars_is_what_the_cache_took_off_the_bill(server: Loopback) -> None:
    move(server)
    chat(frame(100), VENDORS[0])
    usage, price = last().usage(), session.default().target(VENDORS[0], "chat").model.price
    assert usage.saved(price) == pytest.approx((usage.cached_input * (2.0 - 0.2) - usage.cache_write * (2.5 - 2.0)) / 1e6)
    assert usage.saved(price) > 0.7


def test_an_estimate_says_what_is_expected_to_be_cached_and_counts_on_it(server: Loopback) -> None:
    move(server)
    cached, whole = (chat(frame(100), VENDORS[0], dry_run=True, prompt_cache=how, max_tokens=10) for how in ("auto", "off"))
    assert "are expected to be billed as cached" in cached.basis and "cached" not in whole.basis
    assert cached.input_tokens == whole.input_tokens
    assert cached.cost < 0.3 * whole.cost
    chat(frame(100), VENDORS[0], max_tokens=10)
    price = session.default().target(VENDORS[0], "chat").model.price
    assert cached.cost == pytest.approx(last().usage().cost(price), rel=0.3)


def test_where_the_vendor_promises_nothing_an_estimate_stays_the_upper_bound(server: Loopback) -> None:
    move(server)
    cached, whole = (chat(frame(100), "openai/gpt-5-mini", dry_run=True, prompt_cache=how) for how in ("auto", "off"))
    assert "are expected to be billed as cached" in cached.basis
    assert cached.cost == whole.cost


def test_what_is_set_aside_for_a_request_covers_the_price_of_writing(server: Loopback) -> None:
    move(server)
    budget = {"max_tokens": 10, "max_cost": 0.018}  # 8,200 tokens at $2 are within it, at the $2.50 of writing they are not
    with pytest.raises(llmkit.BudgetReached):
        chat(frame(30), VENDORS[0], on_error="raise", **budget)
    assert server.requests == 0
    with pytest.warns(UserWarning, match="max_cost"):
        chat(frame(30), VENDORS[0], prompt_cache="off", **budget)
    assert server.requests == 1


# --------------------------------------------------------------------------------------------------------------- whose turn


def kept(*digests: bytes, seconds: float = 295.0, renewed: bool = True) -> Kept:
    return Kept(tuple((digest, 9000) for digest in digests), seconds, renewed)


class Waiting:
    """One run's turns, and what came back from them."""

    def __init__(self, known: Prefixes | None = None, clock: ManualClock | None = None) -> None:
        self.clock = clock or ManualClock()
        self.known = known or Prefixes()
        self.back: list[int] = []
        self.turns = Turns(self.known, self.clock, lambda tickets: self.back.extend(ticket.number for ticket in tickets))
        self._numbers = itertools.count()

    def ticket(self, of: Kept) -> Ticket:
        ticket = Ticket(next(self._numbers), Request("chat", None), b"", b"", 9000, kept=of)
        self.turns.count(ticket)
        return ticket

    def writes(self, ticket: Ticket, answered: bool = True) -> None:
        asyncio.run(self._flown(ticket, answered))

    async def _flown(self, ticket: Ticket, answered: bool) -> None:
        (await self.turns.begin(ticket)).end(answered)
        self.turns.through(ticket)


def test_the_others_of_a_prefix_wait_for_the_first_and_those_of_another_do_not() -> None:
    run = Waiting()
    first, second, third, other = (run.ticket(kept(digest)) for digest in (b"a", b"a", b"a", b"b"))
    assert [run.turns.lets(ticket) for ticket in (first, second, third, other)] == [True, False, False, True]
    assert run.turns.parked == 2
    run.writes(first)
    assert run.back == [1, 2] and run.turns.parked == 0
    assert run.turns.lets(second) and run.turns.lets(third)


def test_one_that_gives_up_before_it_was_sent_leaves_its_turn_to_the_next() -> None:
    run = Waiting()
    first, second, third = (run.ticket(kept(b"a")) for _ in range(3))
    assert [run.turns.lets(ticket) for ticket in (first, second, third)] == [True, False, False]
    run.turns.through(first)
    assert run.back == [1, 2]
    assert [run.turns.lets(ticket) for ticket in (second, third)] == [True, False]


def test_use_renews_a_lifetime_where_the_vendor_says_so_and_not_elsewhere() -> None:
    for renewed in (True, False):
        run = Waiting()
        tickets = [run.ticket(kept(b"a", renewed=renewed)) for _ in range(4)]
        for ticket in tickets[:2]:
            assert run.turns.lets(ticket)
            run.writes(ticket)
            run.clock.advance(200)
        assert [run.turns.lets(ticket) for ticket in tickets[2:]] == [True, renewed]


def test_tickets_whose_prefix_ran_out_while_they_waited_elsewhere_do_not_all_write_it() -> None:
    run = Waiting()
    first, *others = (run.ticket(kept(b"a")) for _ in range(4))
    assert run.turns.lets(first)
    run.writes(first)
    assert all(run.turns.lets(ticket) for ticket in others)
    run.clock.advance(1000)  # at the limiter

    async def all_at_once() -> int:
        flown = 0

        async def fly(ticket: Ticket) -> None:
            nonlocal flown
            flight = await run.turns.begin(ticket)
            alone = bool(flight._written)
            flown += alone
            await asyncio.sleep(0)
            flight.end(True)

        await asyncio.gather(*map(fly, others))
        return flown

    assert asyncio.run(all_at_once()) == 1


def test_a_ticket_that_only_holds_the_turn_stops_nobody_who_is_ready_to_send() -> None:
    """Else two could wait for one another: the one for the turn, the other for the only place at the limiter."""
    run = Waiting()
    first, second = (run.ticket(kept(b"a")) for _ in range(2))
    assert run.turns.lets(first)
    run.writes(first, answered=False)
    assert run.turns.lets(second)  # holds the turn, and waits at the limiter

    async def again() -> None:
        flight = await asyncio.wait_for(run.turns.begin(first), 5)
        flight.end(True)

    asyncio.run(again())
    assert run.turns.lets(second)


def test_a_vendor_that_does_not_say_how_long_has_nobody_wait() -> None:
    run = Waiting()
    tickets = [run.ticket(kept(b"a", seconds=0.0)) for _ in range(3)]
    assert all(run.turns.lets(ticket) for ticket in tickets)


def test_prefixes_that_nobody_uses_any_more_are_forgotten() -> None:
    known = Prefixes()
    for number in range(20_000):
        known.of(number.to_bytes(4), 0.0)
    assert len(known._known) <= 4096
    busy = known.of(b"busy", 0.0)
    busy.flying = True
    for number in range(20_000):
        known.of(number.to_bytes(4), 0.0).until = 10.0
    assert len(known._known) <= 4096 and known.of(b"busy", 0.0) is busy


def test_a_text_that_is_cut_for_its_mark_is_the_same_text(server: Loopback) -> None:
    move(server)
    rows = frame(3)
    chat(rows, VENDORS[0], SHARED + "\n\nSay {text}", system=None)
    sent = ["".join(block["text"] for block in request.body["messages"][0]["content"]) for request in server.seen]
    assert sorted(sent) == sorted(f"{SHARED}\n\nSay {text}" for text in rows["text"])
    assert text_in(server.seen[0].body["messages"][0]["content"]).startswith(SHARED)
