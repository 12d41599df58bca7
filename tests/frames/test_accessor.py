"""``df.llm`` and ``series.llm`` against a server: the rules that hold for every operation."""

from __future__ import annotations

import asyncio
import re
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import llmkit
from llmkit.frames.columns import TEXT
from tests.loopback import Json, Loopback, Status, bad_key, rate_limited, refusal, server_error, unknown_model, vector_of

CHAT: dict[str, Any] = {"model": "lab/test-chat", "show_progress": False}
EMBED: dict[str, Any] = {"model": "lab/test-embed", "show_progress": False}
RERANK: dict[str, Any] = {"model": "lab/test-rerank"}
FOREVER = float("inf")


def frame(*cells: Any) -> pd.DataFrame:
    return pd.DataFrame({"text": pd.Series(list(cells), dtype=object)})


def priced(name: str, **price: float) -> None:
    llmkit.catalogue.merge({"models": [{"provider": "lab", "name": name, "price": price}]})


@pytest.fixture
def second(lab: Loopback) -> Iterator[Loopback]:
    """Another provider, known as ``spare``."""
    with Loopback() as server:
        server.answer = lambda body: "from the spare"
        llmkit.add_provider("spare", server.url)
        yield server


# ---------------------------------------------------------------------------------------- missing, equal, again, limit, cache


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA, pd.NaT])
def test_a_missing_cell_is_missing_in_the_answer_and_is_not_sent(lab: Loopback, missing: Any) -> None:
    answers = frame("a", missing).llm.chat("Say {text}", **CHAT)
    assert answers.isna().tolist() == [False, True]
    assert dict(lab.texts) == {"Say a": 1}
    assert llmkit.last().errors().empty


def test_equal_rows_are_one_request(lab: Loopback) -> None:
    answers = frame(*["a", "b"] * 50).llm.chat("Say {text}", **CHAT)
    assert answers.tolist() == ["answer to: Say a", "answer to: Say b"] * 50
    assert lab.requests == 2


def test_equal_rows_of_two_runs_under_way_are_one_request(lab: Loopback) -> None:
    lab.hold()
    first = frame("a").llm.chat("Say {text}", wait=False, **CHAT)
    lab.wait_for(1)
    later = frame("a", "b").llm.chat("Say {text}", wait=False, **CHAT)
    lab.wait_for(2)
    lab.release()
    assert first.result().tolist() == ["answer to: Say a"]
    assert later.result().tolist() == ["answer to: Say a", "answer to: Say b"]
    assert lab.count("Say a") == 1


def test_equal_texts_are_embedded_once(lab: Loopback) -> None:
    frame("a", "b", "a", None, "a").llm.embed("text", **EMBED)
    assert dict(lab.texts) == {"a": 1, "b": 1}


@pytest.mark.parametrize("operation", ["chat", "embed", "rerank", "classify"])
def test_the_same_call_again_sends_nothing_and_gives_the_same(lab: Loopback, operation: str) -> None:
    calls: dict[str, Any] = {
        "chat": lambda: frame("a", "b").llm.chat("Say {text}", **CHAT),
        "embed": lambda: frame("a", "b").llm.embed("text", **EMBED),
        "rerank": lambda: frame("a", "b").llm.rerank("b", on="text", **RERANK),
        "classify": lambda: frame("a", "b").llm.classify("text", ["a", "b"], **EMBED),
    }
    before = calls[operation]()
    lab.reset()
    after = calls[operation]()
    assert lab.requests == 0
    assert str(after) == str(before)
    assert after.index.equals(before.index)


def test_another_session_with_the_same_folder_finds_the_answers(lab: Loopback, tmp_path: Path) -> None:
    for _ in range(2):
        session = llmkit.Session(cache_dir=tmp_path)
        session.set_key("lab", "test-key-not-real")
        frame("a").llm.using(session).chat("Say {text}", **CHAT)
        session.close()
    assert lab.requests == 1


def test_cache_refresh_asks_anew_and_keeps_the_new_answer(lab: Loopback) -> None:
    frame("a").llm.chat("Say {text}", **CHAT)
    lab.answer = lambda body: "new"
    assert frame("a").llm.chat("Say {text}", cache="refresh", **CHAT).tolist() == ["new"]
    assert frame("a").llm.chat("Say {text}", **CHAT).tolist() == ["new"]
    assert lab.requests == 2


def test_cache_off_neither_reads_nor_writes(lab: Loopback) -> None:
    frame("a").llm.chat("Say {text}", **CHAT)
    lab.answer = lambda body: "new"
    assert frame("a").llm.chat("Say {text}", cache="off", **CHAT).tolist() == ["new"]
    assert frame("a").llm.chat("Say {text}", **CHAT).tolist() == ["answer to: Say a"]
    assert lab.requests == 2


def test_limit_runs_the_first_rows_and_the_full_call_pays_for_the_rest_only(lab: Loopback) -> None:
    rows = frame(*(f"row {number}" for number in range(10)))
    some = rows.llm.chat("Say {text}", limit=3, **CHAT)
    assert some.notna().tolist() == [True] * 3 + [False] * 7
    assert lab.requests == 3
    assert rows.llm.chat("Say {text}", **CHAT).notna().all()
    assert lab.requests == 10


def test_rows_beyond_the_limit_are_no_errors(lab: Loopback) -> None:
    frame("a", "b").llm.chat("Say {text}", limit=1, **CHAT)
    assert llmkit.last().errors().empty


@pytest.mark.parametrize("limit", [0, 1, 2, 100, np.int64(1)])
def test_any_limit_gives_a_result_as_long_as_the_frame(lab: Loopback, limit: Any) -> None:
    assert len(frame("a", "b").llm.chat("Say {text}", limit=limit, **CHAT)) == 2
    assert len(frame("a", "b").llm.chat("Say {text}", limit=limit, detail=True, **CHAT)) == 2
    assert len(frame("a", "b").llm.embed("text", limit=limit, **EMBED)) == 2
    assert len(frame("a", "b").llm.classify("text", ["a", "b"], limit=limit, **EMBED)) == 2
    assert len(frame("a", "b").llm.rerank("a", on="text", limit=limit, **RERANK)) == 2


# ----------------------------------------------------------------------------------------------------------- what is sent


def test_options_travel_as_the_provider_documents_them(lab: Loopback) -> None:
    frame("a").llm.chat("Say {text}", system="Be brief", temperature=0.5, max_tokens=7, seed=3, **CHAT)
    body = lab.seen[0].body
    assert (body["temperature"], body["max_tokens"], body["seed"]) == (0.5, 7, 3)
    assert body["messages"] == [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Say a"}]


def test_numbers_of_numpy_travel_as_numbers(lab: Loopback) -> None:
    answers = frame("a").llm.chat("Say {text}", temperature=np.float32(0.5), max_tokens=np.int64(7), seed=np.int32(3), **CHAT)
    assert answers.notna().all()
    assert lab.seen[0].body["max_tokens"] == 7


def test_what_is_not_said_is_not_sent(lab: Loopback) -> None:
    frame("a").llm.chat("Say {text}", **CHAT)
    assert lab.seen[0].body.keys() == {"model", "messages"}


def test_the_key_travels_in_the_header(lab: Loopback) -> None:
    lab.key = "test-key-not-real"
    assert frame("a").llm.chat("Say {text}", **CHAT).notna().all()


def test_another_question_model_or_option_is_another_request(lab: Loopback) -> None:
    frame("a").llm.chat("Say {text}", **CHAT)
    frame("a").llm.chat("Tell {text}", **CHAT)
    frame("a").llm.chat("Say {text}", model="lab/other", show_progress=False)
    frame("a").llm.chat("Say {text}", temperature=0, **CHAT)
    frame("a").llm.chat("Say {text}", system="Be brief", **CHAT)
    assert lab.requests == 5


def test_embeddings_travel_in_batches(lab: Loopback) -> None:
    llmkit.add_provider("lab", lab.url, embed_batch=10)
    frame(*(f"row {number}" for number in range(25))).llm.embed("text", **EMBED)
    assert sorted(len(request.texts) for request in lab.seen) == [5, 10, 10]


def test_a_length_of_vectors_is_asked_for(lab: Loopback) -> None:
    vectors = frame("a").llm.embed("text", dimensions=4, **EMBED)
    assert lab.seen[0].body["dimensions"] == 4
    np.testing.assert_array_equal(vectors.llm.matrix(), [vector_of("a", 4)])


# ---------------------------------------------------------------------------------------------------------------- failures


def test_one_bad_row_is_missing_with_its_reason_and_the_others_are_kept(lab: Loopback) -> None:
    lab.fault("bad", refusal(), times=FOREVER)
    answers = frame("a", "bad", None, "c").llm.chat("Say {text}", **CHAT)
    assert answers.isna().tolist() == [False, True, True, False]
    errors = llmkit.last().errors()
    assert list(errors.columns) == ["row", "index", "kind", "error", "attempts"]
    assert errors[["row", "index", "kind", "attempts"]].values.tolist() == [[1, 1, "refusal", 1]]
    assert errors["error"].tolist() == ["lab/test-chat: the model declined to answer"]


def test_an_error_frame_without_errors_has_the_same_columns_and_dtypes(lab: Loopback) -> None:
    frame("a").llm.chat("Say {text}", **CHAT)
    none = llmkit.last().errors()
    lab.fault("bad", refusal())
    frame("bad", "good").llm.chat("Say {text}", **CHAT)
    one = llmkit.last().errors()
    assert list(none.columns) == list(one.columns)
    assert none[["row", "attempts"]].dtypes.tolist() == one[["row", "attempts"]].dtypes.tolist() == [np.dtype("int64")] * 2


def test_each_of_several_equal_rows_that_failed_is_listed(lab: Loopback) -> None:
    lab.fault("bad", refusal(), times=FOREVER)
    frame("bad", "a", "bad").llm.chat("Say {text}", **CHAT)
    assert llmkit.last().errors()["row"].tolist() == [0, 2]


def test_a_failed_row_is_asked_again_by_the_next_call_and_no_other_is(lab: Loopback) -> None:
    lab.fault("bad", refusal())
    rows = frame(*(f"row {number}" for number in range(99)), "bad")
    assert rows.llm.chat("Say {text}", **CHAT).isna().sum() == 1
    lab.reset()
    assert rows.llm.chat("Say {text}", **CHAT).notna().all()
    assert dict(lab.texts) == {"Say bad": 1}


def test_on_error_raise_raises_the_rows_reason_and_keeps_what_was_paid(lab: Loopback) -> None:
    lab.fault("bad", refusal())
    with pytest.raises(llmkit.ContentBlocked, match="declined"):
        frame("a", "bad", "c").llm.chat("Say {text}", on_error="raise", **CHAT)
    assert llmkit.last().partial().isna().tolist() == [False, True, False]
    lab.reset()
    assert frame("a", "bad", "c").llm.chat("Say {text}", on_error="raise", **CHAT).notna().all()
    assert dict(lab.texts) == {"Say bad": 1}


def test_a_rejected_key_ends_the_run_within_a_handful_of_requests(lab: Loopback) -> None:
    lab.key = "another"
    with pytest.raises(llmkit.KeyRejected, match="set_key"):
        frame(*range(1000)).llm.chat("Say {text}", max_concurrency=4, **CHAT)
    assert lab.requests <= 8


def test_an_unknown_model_ends_the_run_and_finished_rows_are_kept(lab: Loopback) -> None:
    rows = frame(*range(100))
    rows.llm.chat("Say {text}", limit=10, **CHAT)
    lab.fault(None, unknown_model(), times=FOREVER)
    with pytest.raises(llmkit.ModelGone) as raised:
        rows.llm.chat("Say {text}", max_concurrency=4, **CHAT)
    assert llmkit.last().partial().notna().sum() == 10
    assert "10 of 100 rows are finished and kept" in raised.value.__notes__[0]


def test_an_error_holds_no_key_and_no_cell(lab: Loopback) -> None:
    lab.fault(None, bad_key(), times=FOREVER)
    with pytest.raises(llmkit.KeyRejected) as raised:
        frame("my secret diary").llm.chat("Say {text}", **CHAT)
    assert "test-key-not-real" not in str(raised.value)
    assert "sk-abc" not in str(raised.value)
    assert "diary" not in str(raised.value)


def test_being_told_to_slow_down_costs_no_row(lab: Loopback) -> None:
    lab.fault("b", rate_limited(10))
    assert frame("a", "b", "c").llm.chat("Say {text}", max_attempts=1, **CHAT).notna().all()


def test_a_fault_of_the_server_is_tried_again(lab: Loopback) -> None:
    lab.fault("b", server_error())
    detail = frame("a", "b").llm.chat("Say {text}", detail=True, **CHAT)
    assert detail["attempts"].tolist() == [1, 2]


# ------------------------------------------------------------------------------------------------------------------ detail


def test_detail_tells_of_each_row_how_it_came_about(lab: Loopback) -> None:
    lab.fault("bad", refusal(), times=FOREVER)
    priced("test-chat", input=1.0, output=2.0)
    frame("old").llm.chat("Say {text}", **CHAT)
    detail = frame("new", "old", "bad", None).llm.chat("Say {text}", detail=True, **CHAT)
    assert detail.dtypes.astype(str).to_dict() == {
        "value": str(TEXT), "error": str(TEXT), "model": str(TEXT), "provider": str(TEXT), "source": str(TEXT), "finish": str(TEXT),
        "attempts": "Int64", "seconds": "Float64", "queue_seconds": "Float64", "input_tokens": "Int64", "output_tokens": "Int64",
        "cost": "Float64", "possibly_billed": "Int64",
    }  # fmt: skip
    new, old, bad, missing = (row for _, row in detail.iterrows())
    assert (new["source"], new["provider"], new["model"], new["finish"], new["attempts"]) == ("live", "lab", "test-chat", "stop", 1)
    assert (new["input_tokens"], new["output_tokens"]) == (1, 4)
    assert new["cost"] == pytest.approx((1 * 1.0 + 4 * 2.0) / 1e6)
    assert (old["source"], old["cost"], old["value"]) == ("cache", 0.0, "answer to: Say old")
    assert "declined" in bad["error"]
    assert (bad["input_tokens"], bad["output_tokens"]) == (9, 8)
    assert missing.isna().all()


def test_detail_of_an_embedding_holds_the_vectors(lab: Loopback) -> None:
    detail = frame("a", None).llm.embed("text", detail=True, **EMBED)
    np.testing.assert_array_equal(detail["value"].llm.matrix()[0], vector_of("a"))
    assert detail["source"].fillna("-").tolist() == ["live", "-"]


def test_the_cost_of_a_model_without_a_price_is_unknown_and_not_nothing(lab: Loopback) -> None:
    detail = frame("a").llm.chat("Say {text}", detail=True, **CHAT)
    assert detail["cost"].isna().all()
    assert llmkit.last().cost is None
    assert "cost unknown" in llmkit.last().summary()


def test_tokens_billed_for_a_refused_answer_count(lab: Loopback) -> None:
    lab.fault("bad", refusal())
    with pytest.warns(UserWarning, match="no row got an answer"):
        frame("bad").llm.chat("Say {text}", **CHAT)
    usage = llmkit.last().usage()
    assert (usage.input, usage.output) == (9, 8)


# ------------------------------------------------------------------------------------------------------------------- route


def test_the_next_model_serves_what_the_first_could_not(lab: Loopback, second: Loopback) -> None:
    lab.fault("b", server_error(), times=FOREVER)
    models = ["lab/test-chat", "spare/test-chat"]
    detail = frame("a", "b", "c").llm.chat("Say {text}", model=models, max_attempts=1, detail=True, show_progress=False)
    assert detail["provider"].tolist() == ["lab", "spare", "lab"]
    assert detail["value"].tolist() == ["answer to: Say a", "from the spare", "answer to: Say c"]
    assert dict(second.texts) == {"Say b": 1}


def test_an_account_that_is_refused_gives_way_to_the_next(lab: Loopback, second: Loopback) -> None:
    lab.key = "another"
    detail = frame("a", "b").llm.chat("Say {text}", fallback="spare/test-chat", detail=True, **CHAT)
    assert detail["provider"].tolist() == ["spare", "spare"]


def test_an_answer_of_the_second_choice_is_found_when_the_call_comes_again(lab: Loopback, second: Loopback) -> None:
    lab.fault("b", server_error(), times=FOREVER)
    models = ["lab/test-chat", "spare/test-chat"]
    for _ in range(2):
        frame("a", "b").llm.chat("Say {text}", model=models, max_attempts=1, show_progress=False)
    assert (lab.requests, second.requests) == (2, 1)


def test_a_route_that_is_shut_at_every_model_ends_the_run(lab: Loopback, second: Loopback) -> None:
    lab.key = second.key = "another"
    with pytest.raises(llmkit.KeyRejected):
        frame("a", "b").llm.chat("Say {text}", fallback=["spare/test-chat"], **CHAT)


# ---------------------------------------------------------------------------------------------------------- dry_run, max_cost


def test_an_estimate_counts_rows_and_sends_nothing(lab: Loopback) -> None:
    rows = frame("a", "b", "b", None, "c")
    rows.llm.chat("Say {text}", limit=1, **CHAT)
    lab.reset()
    estimate = rows.llm.chat("Say {text}", dry_run=True, **CHAT)
    assert (estimate.rows, estimate.missing, estimate.unique, estimate.stored, estimate.requests) == (5, 1, 3, 1, 2)
    assert lab.requests == 0


def test_an_estimate_of_embeddings_counts_batches(lab: Loopback) -> None:
    llmkit.add_provider("lab", lab.url, embed_batch=10)
    estimate = frame(*(f"row {number}" for number in range(25))).llm.embed("text", dry_run=True, **EMBED)
    assert (estimate.unique, estimate.requests, estimate.output_tokens) == (25, 3, 0)
    assert lab.requests == 0


def test_an_estimate_of_a_rerank_counts_its_documents_once(lab: Loopback) -> None:
    estimate = frame("a", "b", "a", None).llm.rerank("a", on="text", dry_run=True, **RERANK)
    assert (estimate.requests, lab.requests) == (1, 0)


def test_an_estimate_knows_the_limit_of_rows(lab: Loopback) -> None:
    assert frame("a", "b", "c").llm.chat("Say {text}", limit=2, dry_run=True, **CHAT).requests == 2


def test_an_estimate_at_a_known_price_is_its_tokens_times_the_price(lab: Loopback) -> None:
    priced("test-chat", input=3.0, output=5.0)
    estimate = frame("a", "b").llm.chat("Say {text}", max_tokens=10, dry_run=True, **CHAT)
    assert estimate.output_tokens == 20
    assert estimate.input_tokens > 0
    assert estimate.cost == pytest.approx((estimate.input_tokens * 3.0 + 20 * 5.0) / 1e6)


def test_an_estimate_without_a_price_says_unknown_and_not_zero(lab: Loopback) -> None:
    estimate = frame("a").llm.chat("Say {text}", dry_run=True, **CHAT)
    assert estimate.cost is None
    assert "cost unknown" in str(estimate)
    assert "$" not in str(estimate)


def test_an_estimate_says_what_it_rests_on(lab: Loopback) -> None:
    assert "an assumption" in frame("a").llm.chat("Say {text}", dry_run=True, **CHAT).basis


def test_an_estimate_leaves_the_last_run_alone(lab: Loopback) -> None:
    frame("a").llm.chat("Say {text}", **CHAT)
    run = llmkit.last()
    frame("b").llm.chat("Say {text}", dry_run=True, **CHAT)
    assert llmkit.last() is run


def test_max_cost_without_a_price_is_an_error_that_says_how_to_tell_it(lab: Loopback) -> None:
    with pytest.raises(llmkit.ConfigError, match="llmkit.catalogue.merge"):
        frame("a").llm.chat("Say {text}", max_cost=1, **CHAT)
    assert lab.requests == 0


def test_max_cost_without_the_output_price_of_a_chat_is_an_error_too(lab: Loopback) -> None:
    priced("test-chat", input=1.0)
    with pytest.raises(llmkit.ConfigError, match="llmkit.catalogue.merge"):
        frame("a").llm.chat("Say {text}", max_cost=1, **CHAT)
    assert lab.requests == 0


class TestMaxCost:
    """A thousandth of a dollar per token; each request is billed 10 tokens in and 10 out: two cents."""

    rows = frame(*(f"{number:040}" for number in range(100)))

    @pytest.fixture(autouse=True)
    def _prices(self, lab: Loopback) -> None:
        lab.answer = lambda body: "x" * 40
        priced("test-chat", input=1000.0, output=1000.0)

    def run(self, lab: Loopback, max_cost: float) -> pd.Series[Any]:
        with pytest.warns(UserWarning, match=re.escape(f"max_cost=${max_cost:g} is reached")):
            return self.rows.llm.chat("{text}", max_tokens=10, max_cost=max_cost, **CHAT)  # type: ignore[no-any-return]

    def test_it_is_not_exceeded_and_most_of_it_is_used(self, lab: Loopback) -> None:
        self.run(lab, 0.5)
        assert 0.5 * 0.5 <= lab.requests * 0.02 <= 0.5
        assert llmkit.last().cost == pytest.approx(lab.requests * 0.02)

    def test_what_came_before_it_is_kept(self, lab: Loopback) -> None:
        answers = self.run(lab, 0.5)
        assert answers.notna().sum() == lab.requests

    def test_the_rows_that_were_not_sent_say_so(self, lab: Loopback) -> None:
        answers = self.run(lab, 0.5)
        errors = llmkit.last().errors()
        assert set(errors["kind"]) == {"budget"}
        assert len(errors) == answers.isna().sum()

    def test_a_later_call_sends_the_rest_only(self, lab: Loopback) -> None:
        self.run(lab, 0.5)
        assert self.rows.llm.chat("{text}", max_tokens=10, **CHAT).notna().all()
        assert lab.requests == 100

    def test_nothing_is_sent_where_the_first_request_could_pass_it(self, lab: Loopback) -> None:
        assert self.run(lab, 0.001).isna().all()
        assert lab.requests == 0

    def test_stored_answers_cost_nothing(self, lab: Loopback) -> None:
        self.rows.llm.chat("{text}", max_tokens=10, **CHAT)
        assert self.rows.llm.chat("{text}", max_tokens=10, max_cost=0, **CHAT).notna().all()

    def test_with_on_error_raise_it_is_raised(self, lab: Loopback) -> None:
        with pytest.raises(llmkit.BudgetReached, match="max_cost"):
            self.rows.llm.chat("{text}", max_tokens=10, max_cost=0.5, on_error="raise", **CHAT)
        assert 0 < llmkit.last().partial().notna().sum() <= 25


def test_max_cost_holds_for_embeddings(lab: Loopback) -> None:
    llmkit.add_provider("lab", lab.url, embed_batch=5)
    priced("test-embed", input=1000.0)
    with pytest.warns(UserWarning, match="max_cost"):
        vectors = frame(*(f"{number:040}" for number in range(100))).llm.embed("text", max_cost=0.5, **EMBED)
    billed = sum(max(1, sum(map(len, request.texts)) // 4) for request in lab.seen) * 0.001
    assert 0 < billed <= 0.5
    assert vectors.notna().sum() == 5 * lab.requests


# -------------------------------------------------------------------------------------------------------------- wait=False


def test_a_run_is_handed_back_at_once_and_has_the_result_later(lab: Loopback) -> None:
    lab.hold()
    run = frame("a", "b").llm.chat("Say {text}", wait=False, **CHAT)
    assert not run.done
    lab.release()
    assert run.result().tolist() == ["answer to: Say a", "answer to: Say b"]
    assert run.done
    assert llmkit.last() is run


def test_a_run_can_be_awaited_in_any_loop(lab: Loopback) -> None:
    run = frame("a").llm.chat("Say {text}", wait=False, **CHAT)

    async def main() -> Any:
        return await run

    assert asyncio.run(main()).tolist() == asyncio.run(main()).tolist() == ["answer to: Say a"]


def test_several_runs_can_be_awaited_together(lab: Loopback) -> None:
    async def main() -> list[Any]:
        return await asyncio.gather(*(frame(cell).llm.chat("Say {text}", wait=False, **CHAT) for cell in "abc"))

    assert [answers.tolist() for answers in asyncio.run(main())] == [[f"answer to: Say {cell}"] for cell in "abc"]


def test_an_await_that_is_cancelled_cancels_the_run(lab: Loopback) -> None:
    lab.hold()
    run = frame("a").llm.chat("Say {text}", wait=False, **CHAT)

    async def main() -> None:
        await asyncio.wait_for(_awaited(run), 0.05)

    async def _awaited(run: Any) -> Any:
        return await run

    with pytest.raises(TimeoutError):
        asyncio.run(main())
    assert run.wait(5)
    assert isinstance(run.stopped, llmkit.Cancelled)


def test_an_error_reaches_who_awaits(lab: Loopback) -> None:
    lab.key = "another"

    async def main() -> Any:
        return await frame("a").llm.chat("Say {text}", wait=False, **CHAT)

    with pytest.raises(llmkit.KeyRejected):
        asyncio.run(main())


def test_a_cancelled_run_sends_nothing_more_and_keeps_what_is_finished(lab: Loopback) -> None:
    rows = frame(*range(100))
    rows.llm.chat("Say {text}", limit=10, **CHAT)
    lab.reset()
    lab.hold()
    run = rows.llm.chat("Say {text}", wait=False, max_concurrency=4, **CHAT)
    lab.wait_for(1)
    run.cancel()
    assert run.wait(5)
    sent = lab.requests
    lab.release()
    assert run.result().notna().sum() == 10
    assert set(run.errors()["kind"]) == {"cancelled"}
    assert len(run.errors()) == 90
    assert lab.requests == sent <= 4


@pytest.mark.parametrize("stops", [1, 2], ids=["Stop", "Stop, pressed twice"])
def test_a_stop_while_the_last_answers_are_on_their_way_to_the_disk_loses_none_of_them(lab: Loopback, stops: int) -> None:
    disk = threading.Event()
    lab.hold()
    run = frame(*range(5)).llm.chat("Say {text}", wait=False, **CHAT)
    lab.wait_for(5)
    engine = llmkit.session.default().engine
    assert engine.writer is not None
    engine.writer.worker.submit(disk.wait)  # the disk is busy
    lab.release()

    async def all_answered() -> None:
        while engine.flights:
            await asyncio.sleep(0)
        for _ in range(20):  # and the run has nothing left to do but to wait for the disk
            await asyncio.sleep(0)

    llmkit.event_loop.call(all_answered)
    ended = []
    for _ in range(stops):
        run.cancel()
        ended.append(run.wait(0.2))
    disk.set()
    assert run.wait(5)
    assert not any(ended), "a row is not done before it is kept"
    assert run.result().tolist() == [f"answer to: Say {number}" for number in range(5)]
    assert run.errors().empty
    assert llmkit.runs()["done"].tolist() == [5]


def test_the_call_after_a_cancelled_run_sends_only_the_rest(lab: Loopback) -> None:
    rows = frame(*range(20))
    rows.llm.chat("Say {text}", limit=10, **CHAT)
    lab.hold()
    run = rows.llm.chat("Say {text}", wait=False, **CHAT)
    lab.wait_for(11)
    run.cancel()
    assert run.wait(5)
    lab.release()
    lab.reset()
    assert rows.llm.chat("Say {text}", **CHAT).notna().all()
    assert lab.requests == 10


def test_watch_is_told_the_progress_and_the_end(lab: Loopback) -> None:
    ended = threading.Event()
    told: list[llmkit.Progress] = []

    def look(progress: llmkit.Progress) -> None:
        told.append(progress)
        if progress.done + progress.errors == 3:
            ended.set()

    lab.fault("bad", refusal())
    run = frame("a", "b", "bad").llm.chat("Say {text}", wait=False, **CHAT).watch(look)
    run.result()
    assert ended.wait(5)
    assert (told[-1].rows, told[-1].done, told[-1].errors) == (3, 2, 1)


def test_a_run_tells_what_was_billed(lab: Loopback) -> None:
    priced("test-chat", input=1.0, output=2.0)
    run = frame("a", "b", None).llm.chat("Say {text}", wait=False, **CHAT)
    run.result()
    usage = run.usage()
    assert (usage.requests, usage.input, usage.output) == (2, 2, 8)
    assert run.cost == pytest.approx((2 * 1.0 + 8 * 2.0) / 1e6)


def test_retry_sends_the_failed_rows_only(lab: Loopback) -> None:
    lab.fault("bad", refusal())
    run = frame("a", "bad", "c").llm.chat("Say {text}", wait=False, **CHAT)
    assert run.result().isna().sum() == 1
    lab.reset()
    assert run.retry().result().notna().all()
    assert dict(lab.texts) == {"Say bad": 1}
    assert run.errors().empty


def test_retry_sends_failed_vectors_only(lab: Loopback) -> None:
    lab.fault("bad", Json({"data": [{"index": 0, "embedding": [0.0] * 8}]}), times=1)
    llmkit.add_provider("lab", lab.url, embed_batch=1)
    run = frame("a", "bad", "c").llm.embed("text", wait=False, **EMBED)
    assert run.result().isna().tolist() == [False, True, False]
    lab.reset()
    np.testing.assert_array_equal(run.retry().result().llm.matrix(), [vector_of("a"), vector_of("bad"), vector_of("c")])
    assert dict(lab.texts) == {"bad": 1}


def test_retry_sends_what_a_cancel_left_over(lab: Loopback) -> None:
    lab.hold()
    run = frame(*range(300)).llm.chat("Say {text}", wait=False, max_concurrency=4, **CHAT)
    lab.wait_for(1)
    run.cancel()
    assert run.wait(5)
    lab.release()
    assert run.retry().result().tolist() == [f"answer to: Say {number}" for number in range(300)]


def test_retry_of_a_run_under_way_is_an_error(lab: Loopback) -> None:
    lab.hold()
    run = frame("a").llm.chat("Say {text}", wait=False, **CHAT)
    with pytest.raises(llmkit.ConfigError, match="still going"):
        run.retry()
    lab.release()
    run.result()


def test_partial_shows_what_there_is_while_the_run_goes_on(lab: Loopback) -> None:
    rows = frame("a", "b")
    rows.llm.chat("Say {text}", limit=1, **CHAT)
    lab.hold()
    run = rows.llm.chat("Say {text}", wait=False, **CHAT)
    lab.wait_for(2)
    assert run.partial().isna().tolist() == [False, True]
    lab.release()
    assert run.result().notna().all()


def test_looking_at_vectors_under_way_does_not_disturb_them(lab: Loopback) -> None:
    llmkit.add_provider("lab", lab.url, embed_batch=1)
    lab.latency = 0.001
    words = [f"word {number}" for number in range(400)]
    run = frame(*words).llm.embed("text", wait=False, max_concurrency=8, **EMBED)
    looks = 0
    while not run.done:
        run.partial()
        run.errors()
        looks += 1
    assert looks > 1
    np.testing.assert_array_equal(run.result().llm.matrix(), [vector_of(word) for word in words])


def test_a_partial_result_stays_as_it_was_seen(lab: Loopback) -> None:
    llmkit.add_provider("lab", lab.url, embed_batch=1)
    lab.hold()
    run = frame("b", "c").llm.embed("text", wait=False, **EMBED)
    lab.wait_for(2)
    lab.release()
    run.result()
    partial = run.partial()
    before = partial.llm.matrix().copy()
    run.retry().result()
    np.testing.assert_array_equal(partial.llm.matrix(), before)


def test_a_run_prints_as_one_line_without_any_prompt(lab: Loopback) -> None:
    run = frame("my secret diary").llm.chat("Say {text}", wait=False, **CHAT)
    run.result()
    assert re.fullmatch(r"<Run \S+ chat lab/test-chat: done, 1 of 1 rows, 0 errors, 0 stored>", repr(run))


# ---------------------------------------------------------------------------------------------------------------- progress


def test_a_bar_tells_counts_and_no_text(lab: Loopback, capsys: pytest.CaptureFixture[str]) -> None:
    frame("my secret diary", None, "b").llm.chat("Say {text}", model="lab/test-chat")
    bar = capsys.readouterr().err
    assert "chat lab/test-chat" in bar
    assert "3/3" in bar
    assert "errors=0" in bar
    assert "diary" not in bar


def test_without_progress_nothing_is_printed(lab: Loopback, capsys: pytest.CaptureFixture[str]) -> None:
    frame("a").llm.chat("Say {text}", **CHAT)
    assert capsys.readouterr() == ("", "")


# ------------------------------------------------------------------------------------------------------------------ models


def test_the_sessions_model_is_taken_where_none_is_named(lab: Loopback) -> None:
    llmkit.use("lab/chosen", embed="lab/vectors", rerank="lab/order")
    frame("a").llm.chat("Say {text}", show_progress=False)
    frame("a").llm.embed("text", show_progress=False)
    frame("a").llm.rerank("a", on="text")
    assert [request.body["model"] for request in lab.seen] == ["chosen", "vectors", "order"]


def test_without_any_model_the_best_that_can_be_had_is_taken_and_named(lab: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    ports = [{"port": lab.port, "name": "a server"}]
    monkeypatch.setitem(llmkit.catalogue.default._toml, "local_ports", ports)
    detail = frame("a").llm.chat("Say {text}", detail=True, show_progress=False)
    assert detail["model"].tolist() == ["test-chat"]
    assert "(chosen by llmkit)" in llmkit.last().summary()


def test_where_no_model_can_be_had_the_ways_to_get_one_are_named() -> None:
    with pytest.raises(llmkit.MissingKey, match=r"OPENAI_API_KEY.*llmkit.set_key.*Ollama.*echo/echo"):
        frame("a").llm.chat("Say {text}")


@pytest.mark.parametrize("name", ["lab/", "/x", "nobody/x", "no-such-model-anywhere", 3, [3], b"lab/x"])
def test_a_model_that_nobody_has_is_an_error(lab: Loopback, name: Any) -> None:
    with pytest.raises(llmkit.ConfigError):
        frame("a").llm.chat("Say {text}", model=name)
    assert lab.requests == 0


# ------------------------------------------------------------------------------------------------------------ bad arguments


@pytest.mark.parametrize(
    ("argument", "value", "cure"),
    [
        ("cache", "no", '"use", "refresh" or "off"'),
        ("cache", None, '"use", "refresh" or "off"'),
        ("on_error", "ignore", '"keep" or "raise"'),
        ("timeout", 0, "seconds, more than 0"),
        ("timeout", None, "seconds, more than 0"),
        ("timeout", float("nan"), "seconds, more than 0"),
        ("max_attempts", 0, "at least 1"),
        ("max_attempts", 1.5, "a whole number"),
        ("max_concurrency", 0, "at least 1"),
        ("max_concurrency", 2.5, "a whole number"),
        ("max_concurrency", True, "a whole number"),
        ("limit", -1, "at least 0"),
        ("limit", "3", "a number of rows"),
        ("limit", True, "a number of rows"),
        ("limit", 2.0, "a number of rows"),
        ("max_cost", -1, "US dollars"),
        ("max_cost", "3", "US dollars"),
        ("max_cost", float("nan"), "US dollars"),
        ("temperature", "hot", "a number"),
        ("temperature", -1, "a number from 0 up"),
        ("max_tokens", 0, "at least 1"),
        ("max_tokens", 2.5, "a whole number"),
        ("seed", "x", "a whole number"),
        ("system", 3, "a text"),
        ("model", [], "empty"),
    ],
)
def test_an_argument_that_cannot_be_is_told_what_it_may_be(lab: Loopback, argument: str, value: Any, cure: str) -> None:
    with pytest.raises(llmkit.ConfigError, match=re.escape(cure)):
        frame("a").llm.chat("Say {text}", **{**CHAT, argument: value})
    assert lab.requests == 0


@pytest.mark.parametrize("top_k", [0, -1, "3", 1.5, True])
def test_a_top_k_that_is_no_number_of_rows_is_an_error(lab: Loopback, top_k: Any) -> None:
    with pytest.raises(llmkit.ConfigError, match="top_k is a number of rows"):
        frame("a").llm.rerank("a", on="text", top_k=top_k, **RERANK)
    with pytest.raises(llmkit.ConfigError, match="top_k is a number of rows"):
        frame("a").llm.search("a", on="text", top_k=top_k)


@pytest.mark.parametrize("query", ["", "  ", None, 3])
def test_an_empty_query_is_an_error(lab: Loopback, query: Any) -> None:
    with pytest.raises(llmkit.BadInput, match="needs a query"):
        frame("a").llm.rerank(query, on="text", **RERANK)
    with pytest.raises(llmkit.BadInput, match="needs a query"):
        frame("a").llm.search(query, on="text")
    assert lab.requests == 0


@pytest.mark.parametrize("dimensions", [0, -1, 2.5, "8"])
def test_a_length_of_vectors_that_cannot_be_is_an_error(lab: Loopback, dimensions: Any) -> None:
    with pytest.raises(llmkit.ConfigError, match="dimensions is a whole number"):
        frame("a").llm.embed("text", dimensions=dimensions, **EMBED)


@pytest.mark.parametrize("labels", ["ab", [], ["a"], ["a", "a"], ["a", ""], ["a", None], [1, 2], {"a": "x", "b": ""}, 3, {"a": 1, "b": 2}])
def test_labels_that_are_no_two_different_texts_are_an_error(lab: Loopback, labels: Any) -> None:
    with pytest.raises(llmkit.BadInput, match="label"):
        frame("a").llm.classify("text", labels, **EMBED)
    assert lab.requests == 0


# ------------------------------------------------------------------------------------------------------------------ rerank


def test_rows_come_in_the_order_of_their_scores(lab: Loopback) -> None:
    ranked = frame("red apple", "late parcel", "parcel").llm.rerank("late parcel", on="text", **RERANK)
    assert ranked.index.tolist() == [1, 2, 0]
    assert ranked["score"].tolist() == [1.0, 0.5, 0.0]


def test_top_k_keeps_the_best(lab: Loopback) -> None:
    assert frame("b", "a", "c").llm.rerank("a", on="text", top_k=1, **RERANK).index.tolist() == [1]


def test_top_k_may_be_more_than_there_are(lab: Loopback) -> None:
    assert len(frame("b", "a").llm.rerank("a", on="text", top_k=9, **RERANK)) == 2


def test_equal_documents_are_sent_once_and_share_their_score(lab: Loopback) -> None:
    ranked = frame("a", "b", "a").llm.rerank("a", on="text", **RERANK)
    assert dict(lab.texts) == {"a": 1, "b": 1}
    assert ranked.index.tolist() == [0, 2, 1]
    assert ranked["score"].tolist() == [1.0, 1.0, 0.0]


def test_missing_and_blank_documents_are_not_sent_and_stand_last(lab: Loopback) -> None:
    ranked = frame(None, "b", "", "a", " ", np.nan).llm.rerank("a", on="text", **RERANK)
    assert dict(lab.texts) == {"a": 1, "b": 1}
    assert ranked.index.tolist() == [3, 1, 0, 2, 4, 5]
    assert ranked["score"].isna().tolist() == [False, False, True, True, True, True]


def test_rows_of_equal_score_keep_their_order(lab: Loopback) -> None:
    assert frame("x", "y", "z").llm.rerank("a", on="text", **RERANK).index.tolist() == [0, 1, 2]


def test_a_column_score_is_replaced(lab: Loopback) -> None:
    ranked = frame("a").assign(score="old").llm.rerank("a", on="text", **RERANK)
    assert ranked["score"].tolist() == [1.0]


def test_documents_of_any_dtype_are_ranked(lab: Loopback) -> None:
    rows = pd.DataFrame({"n": [1, 2], "day": pd.to_datetime(["2026-01-01", "2026-01-02"]), "kind": pd.Categorical(["x", "y"])})
    assert rows.llm.rerank("2", on="n", **RERANK).index.tolist() == [1, 0]
    assert rows.llm.rerank("2026-01-02t00:00:00", on="day", **RERANK).index.tolist()[0] in (0, 1)
    assert rows.llm.rerank("y", on="kind", **RERANK).index.tolist() == [1, 0]


def test_many_documents_travel_in_several_requests_and_are_ranked_as_one(lab: Loopback) -> None:
    rows = frame(*(f"row {number}" for number in range(2500)), "the needle")
    ranked = rows.llm.rerank("the needle", on="text", top_k=1, **RERANK)
    assert ranked.index.tolist() == [2500]
    assert sorted(len(request.texts) for request in lab.seen) == [501, 1000, 1000]


def test_scores_go_by_index_whatever_else_the_server_does(lab: Loopback) -> None:
    results = [
        {"index": 1, "relevance_score": 0.1},
        {"index": 7, "relevance_score": 0.9},  # was never sent
        {"index": -1, "relevance_score": 0.9},
        {"index": 0, "relevance_score": 0.5},
        {"index": 2, "relevance_score": 0.7},
    ]
    lab.fault(None, Json({"results": results}))
    ranked = frame("a", "b", "c").llm.rerank("q", on="text", top_k=2, **RERANK)
    assert ranked.index.tolist() == [2, 0]
    assert ranked["score"].tolist() == [0.7, 0.5]


def test_a_document_that_the_server_leaves_out_has_no_score_and_a_warning(lab: Loopback) -> None:
    lab.fault(None, Json({"results": [{"index": 1, "relevance_score": 0.1}]}))
    with pytest.warns(UserWarning, match="left 2 documents without a score"):
        ranked = frame("a", "b", "c", None).llm.rerank("q", on="text", **RERANK)
    assert ranked.index.tolist() == [1, 0, 2, 3]
    assert ranked["score"].isna().tolist() == [False, True, True, True]


def test_missing_documents_are_no_reason_to_warn(lab: Loopback) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frame("a", None, "", "a").llm.rerank("a", on="text", **RERANK)


def test_documents_of_a_refused_request_are_listed_and_the_others_are_ranked(lab: Loopback) -> None:
    lab.fault("row 1999", Status(400, {"error": {"message": "not this one"}}), times=FOREVER)
    rows = frame(*(f"row {number}" for number in range(1100)), *(f"row {number}" for number in (1999, 1999)))
    rows.llm.rerank("row 7", on="text", **RERANK)
    errors = llmkit.last().errors()
    assert errors["row"].tolist() == list(range(1000, 1102))


def test_a_rerank_that_is_refused_raises_with_on_error_raise(lab: Loopback) -> None:
    lab.fault(None, Json({"results": []}))
    with pytest.raises(llmkit.BadOutput):
        frame("a").llm.rerank("a", on="text", on_error="raise", **RERANK)


# ------------------------------------------------------------------------------------------------------------------ search


def searchable(lab: Loopback, **arguments: Any) -> pd.DataFrame:
    rows = frame("a", "b", None, "c")
    rows["vector"] = rows.llm.embed("text", **{**EMBED, **arguments})
    lab.reset()
    return rows


def test_search_finds_the_nearest_rows_by_cosine(lab: Loopback) -> None:
    hits = searchable(lab).llm.search("a new question", on="vector", top_k=2)
    cosines = {row: float(vector_of(text) @ vector_of("a new question")) for row, text in ((0, "a"), (1, "b"), (3, "c"))}
    best = sorted(cosines, key=lambda row: -cosines[row])[:2]
    assert hits.index.tolist() == best
    np.testing.assert_allclose(hits["score"], [cosines[row] for row in best], atol=1e-6)


def test_search_sends_the_query_only(lab: Loopback) -> None:
    searchable(lab).llm.search("a new question", on="vector")
    assert dict(lab.texts) == {"a new question": 1}


def test_rows_without_a_vector_are_not_found(lab: Loopback) -> None:
    assert 2 not in searchable(lab).llm.search("anything", on="vector", top_k=99).index


def test_search_asks_the_model_that_made_the_column(lab: Loopback) -> None:
    rows = searchable(lab, model="lab/mine")
    llmkit.use(embed="lab/other")
    rows.llm.search("anything", on="vector")
    assert [request.body["model"] for request in lab.seen] == ["mine"]


def test_search_asks_the_model_that_made_the_column_with_detail(lab: Loopback) -> None:
    rows = frame("a", "b")
    rows["vector"] = rows.llm.embed("text", model="lab/mine", detail=True, show_progress=False)["value"]
    llmkit.use(embed="lab/other")
    lab.reset()
    rows.llm.search("anything", on="vector")
    assert [request.body["model"] for request in lab.seen] == ["mine"]


def test_search_does_not_guess_between_two_models_that_made_vectors_of_one_length(lab: Loopback) -> None:
    rows = searchable(lab, model="lab/mine")
    frame("a").llm.embed("text", model="lab/other", show_progress=False)
    lab.reset()
    with pytest.raises(llmkit.BadInput, match=r"lab/mine.*lab/other.*model="):
        rows.llm.search("anything", on="vector")
    assert lab.requests == 0
    assert len(rows.llm.search("anything", on="vector", model="lab/mine"))


def test_a_model_whose_vectors_have_another_length_is_an_error_that_says_so(lab: Loopback) -> None:
    rows = searchable(lab)
    lab.dimensions = 16
    with pytest.raises(llmkit.BadInput, match=r"holds vectors of 8 numbers, and lab/other makes 16: name the model"):
        rows.llm.search("anything", on="vector", model="lab/other")


def test_search_in_a_column_of_lists_works_too(lab: Loopback) -> None:
    rows = pd.DataFrame({"vector": [vector_of("a").tolist(), vector_of("b").tolist()]})
    assert rows.llm.search("b", on="vector", top_k=1, model="lab/test-embed").index.tolist() == [1]


@pytest.mark.parametrize("column", ["text", "nope"])
def test_search_in_a_column_without_vectors_is_an_error_before_anything_is_sent(lab: Loopback, column: str) -> None:
    rows = searchable(lab)
    with pytest.raises(llmkit.BadInput):
        rows.llm.search("anything", on=column)
    assert lab.requests == 0


# ---------------------------------------------------------------------------------------------------------------- classify


def test_each_row_gets_the_label_whose_vector_is_nearest(lab: Loopback) -> None:
    labels = frame("a", "b", None, "a").llm.classify("text", ["b", "a"], **EMBED)
    assert labels.astype(object).fillna("-").tolist() == ["a", "b", "-", "a"]
    assert labels.dtype == pd.CategoricalDtype(["b", "a"])


def test_descriptions_are_sent_in_place_of_their_labels(lab: Loopback) -> None:
    labels = frame("x words", "y words").llm.classify("text", {"x": "x words", "y": "y words"}, **EMBED)
    assert labels.tolist() == ["x", "y"]
    assert dict(lab.texts) == {"x words": 1, "y words": 1}


def test_detail_of_a_classification_tells_the_cosine_and_the_margin(lab: Loopback) -> None:
    detail = frame("a").llm.classify("text", ["b", "a"], detail=True, **EMBED)
    assert list(detail.columns) == ["value", "score", "margin"]
    assert detail["score"].iloc[0] == pytest.approx(1.0, abs=1e-6)
    assert detail["margin"].iloc[0] == pytest.approx(1.0 - float(vector_of("a") @ vector_of("b")), abs=1e-6)


def test_a_row_that_failed_has_no_label_and_the_last_run_says_why(lab: Loopback) -> None:
    lab.corrupt_embeddings = lambda items: [
        {**item, "embedding": np.zeros(8, dtype="f4")} if np.array_equal(item["embedding"], vector_of("bad")) else item for item in items
    ]
    labels = frame("a", "bad").llm.classify("text", ["a", "b"], **EMBED)
    assert labels.isna().tolist() == [False, True]
    assert llmkit.last().errors()["row"].tolist() == [1]


def test_a_misspelt_column_is_told_before_the_labels_are_sent(lab: Loopback) -> None:
    with pytest.raises(llmkit.BadInput, match="Did you mean 'text'"):
        frame("a").llm.classify("txt", ["a", "b"], **EMBED)
    assert lab.requests == 0


# ------------------------------------------------------------------------------------------------------------------ series


def test_a_series_sends_its_value_beside_the_instruction(lab: Loopback) -> None:
    answers = pd.Series(["parcel", None], index=["x", "x"], name="word").llm.chat("Say it", **CHAT)
    system, user = lab.seen[0].body["messages"]
    assert (system["role"], user["content"]) == ("system", "<word>\nparcel\n</word>")
    assert answers.index.tolist() == ["x", "x"]
    assert answers.isna().tolist() == [False, True]


def test_a_series_without_a_name_is_labelled_value(lab: Loopback) -> None:
    pd.Series(["parcel"]).llm.chat("Say it", **CHAT)
    assert lab.seen[0].texts == ["<value>\nparcel\n</value>"]


@pytest.mark.parametrize("name", [0, ("a", "b"), "two words", 1.5])
def test_a_series_may_have_any_name(lab: Loopback, name: Any) -> None:
    words = pd.Series(["a", "b"], name=name)
    assert words.llm.chat("Say it", **CHAT).notna().all()
    np.testing.assert_array_equal(words.llm.embed(**EMBED).llm.matrix(), [vector_of("a"), vector_of("b")])
    assert words.llm.rerank("b", **RERANK).index.tolist() == [1, 0]
    assert words.llm.classify(["a", "b"], **EMBED).tolist() == ["a", "b"]


def test_a_series_can_use_a_session_of_its_own(lab: Loopback, tmp_path: Path) -> None:
    session = llmkit.Session(cache_dir=tmp_path)
    session.set_key("lab", "test-key-not-real")
    assert pd.Series(["a"]).llm.using(session).chat("Say it", **CHAT).notna().all()
    session.close()
    assert list(tmp_path.glob("shard-*.sqlite"))


def test_the_methods_are_what_completion_offers() -> None:
    assert dir(frame("a").llm) == [
        "agg", "apply", "chat", "classify", "cluster", "dedup", "embed", "examples_from", "extract", "filter", "infer_schema", "join",
        "rerank", "search", "sim_join", "speak", "topk", "transcribe", "using",
    ]  # fmt: skip
    assert dir(pd.Series(["a"]).llm) == [
        "agg", "chat", "classify", "cluster", "dedup", "embed", "extract", "filter", "matrix", "rerank", "speak", "topk",
        "transcribe", "using",
    ]  # fmt: skip


def test_a_warning_points_at_the_line_that_made_the_call(lab: Loopback) -> None:
    lab.fault(None, Status(400, {"error": {"message": "no"}}), times=float("inf"))
    with pytest.warns(UserWarning, match="no row got an answer") as told:
        frame("a").llm.chat("Say {text}", **CHAT)
    with pytest.warns(UserWarning, match="no row got an answer") as told_of_series:
        frame("a")["text"].llm.chat("Say it", **CHAT)
    assert {warning.filename for warning in (*told, *told_of_series)} == {__file__}
