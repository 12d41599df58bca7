"""``votes=n``: each row is asked several times, and each field is what most of the samples say."""

from __future__ import annotations

from typing import Any

import orjson
import pandas as pd
import pytest

import llmkit
from llmkit.errors import BadInput, BadOutput
from tests.loopback import Json, Loopback

from .asked import Offer, frame, last

CHAT: dict[str, Any] = {"model": "lab/test-chat", "show_progress": False}


def said(**fields: Any) -> str:
    return orjson.dumps(fields).decode()


def answer(**fields: Any) -> Json:  # type: ignore[valid-type]
    usage = {"prompt_tokens": 10, "completion_tokens": 2}
    return Json({"choices": [{"message": {"content": said(**fields)}, "finish_reason": "stop"}], "usage": usage})


def test_each_field_is_what_most_samples_say_and_how_many_do(lab: Loopback) -> None:
    lab.fault("lamp", answer(title="lamp", price=1), answer(title="Lamp", price=2), answer(title="lamp", price=2))
    made = frame("lamp").llm.extract(Offer, on="text", votes=3, max_concurrency=1, **CHAT)
    assert made.columns.tolist() == ["title", "price", "title_agreement", "price_agreement"]
    assert made.loc[0, ["title", "price"]].tolist() == ["lamp", 2.0]
    assert made.loc[0, "title_agreement"] == pytest.approx(2 / 3)
    assert made["price_agreement"].dtype == pd.Float64Dtype()
    assert lab.requests == 3


def test_of_equally_many_the_first_samples_value_wins(lab: Loopback) -> None:
    lab.fault("lamp", answer(title="b"), answer(title="a"))
    made = frame("lamp").llm.extract(Offer, on="text", votes=2, max_concurrency=1, **CHAT)
    assert made.loc[0, ["title", "title_agreement"]].tolist() == ["b", 0.5]


def test_the_same_call_again_costs_nothing_and_more_votes_only_the_difference(lab: Loopback) -> None:
    df = frame("lamp", "chair", "lamp", None)
    first = df.llm.extract(Offer, on="text", votes=3, **CHAT)
    assert lab.requests == 6  # equal rows share their samples
    again = df.llm.extract(Offer, on="text", votes=3, **CHAT)
    pd.testing.assert_frame_equal(first, again)
    assert lab.requests == 6
    df.llm.extract(Offer, on="text", votes=5, **CHAT)
    assert lab.requests == 10
    assert first.isna().all(axis=1).tolist() == [False, False, False, True]


def test_the_first_sample_is_the_answer_of_a_call_without_votes(lab: Loopback) -> None:
    frame("lamp").llm.extract(Offer, on="text", **CHAT)
    frame("lamp").llm.extract(Offer, on="text", votes=2, **CHAT)
    assert lab.requests == 2


def test_samples_are_asked_in_the_same_words(lab: Loopback) -> None:
    frame("lamp").llm.extract(Offer, on="text", votes=2, **CHAT)
    first, second = (seen.body for seen in lab.seen)
    assert first == second
    assert "temperature" not in first


def test_a_seed_goes_on_from_sample_to_sample(lab: Loopback) -> None:
    frame("lamp").llm.extract(Offer, on="text", votes=3, seed=7, max_concurrency=1, **CHAT)
    assert [seen.body["seed"] for seen in lab.seen] == [7, 8, 9]


def test_failed_samples_have_no_vote_and_a_row_fails_only_if_all_do(lab: Loopback) -> None:
    lab.fault("half", answer(title=1), answer(title="half"), answer(title="half"))
    lab.fault("none", *[answer(title=1)] * 3)
    df = frame("half", "none").set_axis(["h", "n"])
    made = df.llm.extract(Offer, on="text", votes=3, max_reask=0, max_concurrency=1, **CHAT)
    assert made.loc["h", ["title", "title_agreement"]].tolist() == ["half", 1.0]
    assert made.loc["n"].isna().all()
    errors = last().errors()
    assert errors[["row", "index", "kind"]].values.tolist() == [[1, "n", "invalid"]]


def test_a_sample_that_failed_is_no_row_that_failed(lab: Loopback) -> None:
    lab.fault("half", answer(title=1), answer(title="half"), times=2)
    again: dict[str, Any] = {"votes": 2, "max_reask": 0, "max_concurrency": 1, "on_error": "raise", **CHAT}
    assert frame("half").llm.extract(Offer, on="text", **again)["title"].tolist() == ["half"]
    lab.fault("none", answer(title=1), answer(title=1))
    with pytest.raises(BadOutput):
        frame("half", "none").llm.extract(Offer, on="text", **again)


def test_the_detail_of_a_row_adds_its_samples_up(lab: Loopback) -> None:
    llmkit.catalogue.merge({"models": [{"provider": "lab", "name": "test-chat", "price": {"input": 1.0, "output": 2.0}}]})
    lab.fault("lamp", *[answer(title="lamp")] * 3)
    detail = frame("lamp", None).llm.extract(Offer, on="text", votes=3, detail=True, **CHAT)
    assert detail.loc[0, ["input_tokens", "output_tokens", "attempts"]].tolist() == [30, 6, 3]
    assert detail.loc[0, "cost"] == pytest.approx(42e-6) == last().cost
    assert detail.loc[0, "title_agreement"] == 1.0
    assert detail["source"].tolist()[0] == "live"


def test_one_run_that_stops_at_max_cost_keeps_what_it_has(lab: Loopback) -> None:
    llmkit.catalogue.merge({"models": [{"provider": "lab", "name": "test-chat", "price": {"input": 1.0, "output": 2.0}}]})
    df = frame(*(f"row {number}" for number in range(20)))
    with pytest.warns(UserWarning, match="max_cost"):
        df.llm.extract(Offer, on="text", votes=3, max_cost=0.003, max_tokens=50, max_concurrency=1, **CHAT)
    paid = lab.requests
    assert 0 < paid < 60
    assert set(last().errors()["kind"]) == {"budget"}
    made = df.llm.extract(Offer, on="text", votes=3, max_tokens=50, **CHAT)
    assert lab.requests == 60
    assert made["title"].notna().all()


def test_an_estimate_counts_every_sample(lab: Loopback) -> None:
    estimate = frame("a", "b", None).llm.extract(Offer, on="text", votes=3, dry_run=True, **CHAT)
    assert estimate.requests == 6
    assert lab.requests == 0


def test_one_value_a_row_becomes_a_column_and_its_agreement(lab: Loopback) -> None:
    lab.fault("lamp", answer(value=True), answer(value=False), answer(value=False))
    made = frame("lamp").llm.extract(bool, on="text", votes=3, max_concurrency=1, **CHAT)
    assert made.columns.tolist() == ["value", "value_agreement"]
    assert made["value"].tolist() == [False]


def test_the_evidence_of_a_vote_is_that_of_a_sample_that_won(lab: Loopback) -> None:
    def grounded(title: str, quote: str) -> Json:  # type: ignore[valid-type]
        return answer(fields={"title": title}, evidence={"title": quote})

    lab.fault("lamp", grounded("a", "red"), grounded("b", "lamp"), grounded("b", "red"))
    made = frame("red lamp").llm.extract(Offer, on="text", votes=3, evidence=True, max_concurrency=1, **CHAT)
    assert made.loc[0, "title"] == "b"
    assert made.loc[0, "title_evidence"]["text"] == "lamp"


def test_samples_that_a_fallback_gave_are_told_apart_too(lab: Loopback) -> None:
    with Loopback() as shut:
        shut.key = "another"
        llmkit.add_provider("shut", shut.url, api_key="test-key-not-real")
        lab.fault("lamp", answer(title="a"), answer(title="b"))
        route: dict[str, Any] = {"model": ["shut/test-chat", "lab/test-chat"], "show_progress": False}
        first = frame("lamp").llm.extract(Offer, on="text", votes=2, max_concurrency=1, **route)
        again = frame("lamp").llm.extract(Offer, on="text", votes=2, **route)
    assert first.loc[0, "title_agreement"] == 0.5
    pd.testing.assert_frame_equal(first, again)
    assert lab.requests == 2


def test_a_retry_asks_for_the_failed_samples_only(lab: Loopback) -> None:
    lab.fault("lamp", answer(title=1), answer(title="b"), answer(title="a"))
    run = frame("lamp").llm.extract(Offer, on="text", votes=2, max_reask=0, max_concurrency=1, wait=False, **CHAT)
    assert run.result().loc[0, ["title", "title_agreement"]].tolist() == ["b", 1.0]
    made = run.retry().result()
    assert made.loc[0, ["title", "title_agreement"]].tolist() == ["a", 0.5]
    assert lab.requests == 3


@pytest.mark.parametrize("votes", [0, 1.5, True, "3"])
def test_votes_are_a_whole_number(votes: Any) -> None:
    with pytest.raises(BadInput, match="votes"):
        frame("a").llm.extract(Offer, on="text", votes=votes, model="echo/echo")


def test_votes_on_what_cannot_differ_are_refused() -> None:
    with pytest.raises(BadInput, match="temperature"):
        frame("a").llm.extract(Offer, on="text", votes=3, temperature=0, model="echo/echo")
    with pytest.raises(BadInput, match="one record a row"):
        frame("a").llm.extract(list[Offer], on="text", votes=3, model="echo/echo")
