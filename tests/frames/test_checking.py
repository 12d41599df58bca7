"""``check=``: a second model judges what the first one read, in the same run."""

from __future__ import annotations

from typing import Any

import orjson
import pandas as pd
import pytest
from pydantic import BaseModel, Field

import llmkit
from llmkit.errors import BadInput, BadOutput, UnknownModel
from tests.loopback import Loopback, bad_key

from .asked import last

CHAT: dict[str, Any] = {"model": "lab/test-chat", "check": "lab/judge", "show_progress": False}
VERDICTS = pd.CategoricalDtype(["correct", "wrong", "not in the text"])


class Offer(BaseModel):
    """An offer of a shop."""

    title: str = Field(description="What is offered.")
    price: float | None = None


def frame(*cells: Any) -> pd.DataFrame:
    return pd.DataFrame({"text": pd.Series(list(cells), dtype=object)})


def judging(body: dict[str, Any]) -> str:
    """Says title is correct; of the price what the text's last word is."""
    asked = body["messages"][-1]["content"]
    if body["model"] == "test-chat":
        return "no offer" if "bad" in asked else orjson.dumps({"title": "Lamp", "price": 12}).decode()
    verdict = "wrong" if "13" in asked.partition("<extracted>")[0] else "correct"
    return orjson.dumps(
        {"title": {"reason": "it says so", "verdict": "correct"}, "price": {"reason": f"judged {verdict}", "verdict": verdict}}
    ).decode()


def test_each_field_has_a_verdict_as_a_category(lab: Loopback) -> None:
    lab.answer = judging
    made = frame("a lamp for 12", None, "a lamp for 13").llm.extract(Offer, on="text", **CHAT)
    assert made.columns.tolist() == ["title", "price", "title_check", "price_check"]
    assert made["price_check"].dtype == VERDICTS
    assert made["price_check"].astype(object).where(made["price_check"].notna(), None).tolist() == ["correct", None, "wrong"]


def test_the_judge_is_given_text_fields_descriptions_and_values(lab: Loopback) -> None:
    lab.answer = judging
    frame("a lamp for 12").llm.extract(Offer, on="text", **CHAT)
    *_, system, user = (message["content"] for message in lab.seen[1].body["messages"])
    assert "- title: What is offered." in system
    assert "An offer of a shop." in system
    assert user == '<text>\na lamp for 12\n</text>\n<extracted>\n{"title": "Lamp", "price": 12.0}\n</extracted>'


def test_rows_that_failed_are_not_judged_and_say_which_step_failed(lab: Loopback) -> None:
    lab.answer = judging
    made = frame("bad", "a lamp for 12").llm.extract(Offer, on="text", max_reask=0, **CHAT)
    assert made["title_check"].isna().tolist() == [True, False]
    assert sum(seen.body["model"] == "judge" for seen in lab.seen) == 1
    assert last().errors()[["row", "kind", "step"]].values.tolist() == [[0, "invalid", "extract"]]


def test_a_row_whose_check_failed_keeps_its_values(lab: Loopback) -> None:
    lab.answer = lambda body: "hm" if body["model"] == "judge" else judging(body)
    with pytest.warns(UserWarning, match="no row got an answer"):
        made = frame("a lamp for 12").llm.extract(Offer, on="text", **CHAT)
    assert made["title"].tolist() == ["Lamp"]
    assert made["title_check"].isna().all()
    assert last().errors()[["row", "step"]].values.tolist() == [[0, "check"]]


def test_a_judge_that_is_shut_leaves_the_values_and_says_so(lab: Loopback) -> None:
    lab.answer = judging
    lab.fault("<extracted>", bad_key(), times=float("inf"))
    with pytest.warns(UserWarning, match="not all of it was checked"):
        made = frame("a lamp for 12").llm.extract(Offer, on="text", **CHAT)
    assert made["title"].tolist() == ["Lamp"]
    assert made["title_check"].isna().all()


def test_the_cost_of_both_is_counted_and_both_are_stored(lab: Loopback) -> None:
    prices = [{"provider": "lab", "name": name, "price": {"input": 1.0, "output": 2.0}} for name in ("test-chat", "judge")]
    llmkit.catalogue.merge({"models": prices})
    lab.answer = judging
    df = frame("a lamp for 12")
    first = df.llm.extract(Offer, on="text", **CHAT)
    run = last()
    assert run.usage().requests == 2
    assert run.cost == pytest.approx(sum(part.cost for _, part in run.runs))
    assert run.report()["cost"].sum() == pytest.approx(run.cost)
    again = df.llm.extract(Offer, on="text", **CHAT)
    pd.testing.assert_frame_equal(first, again)
    assert lab.requests == 2
    assert last().cost == 0


def test_one_run_is_waited_for_watched_and_looked_at(lab: Loopback) -> None:
    lab.answer = judging
    run = frame("a lamp for 12", "a lamp for 13").llm.extract(Offer, on="text", wait=False, **CHAT)
    made = run.result()
    assert made["price_check"].tolist() == ["correct", "wrong"]
    assert (run.progress().done, run.progress().rows) == (4, 4)
    assert llmkit.last() is run
    report = run.report()
    assert report["correct_rate"].tolist() == [1.0, 0.5]
    assert report["wrong_rate"].tolist() == [0.0, 0.5]
    assert "judged wrong" in run.view().html


def test_detail_has_the_reasons(lab: Loopback) -> None:
    lab.answer = judging
    detail = frame("a lamp for 13", None).llm.extract(Offer, on="text", detail=True, **CHAT)
    assert detail["price_check_reason"][0] == "judged wrong"
    assert detail["price_check"].dtype == VERDICTS


def test_votes_and_evidence_are_judged_as_one(lab: Loopback) -> None:
    def answering(body: dict[str, Any]) -> str:
        if body["model"] == "judge":
            return judging(body)
        return orjson.dumps({"fields": {"title": "Lamp", "price": 12}, "evidence": {"title": "lamp"}}).decode()

    lab.answer = answering
    made = frame("a lamp for 12").llm.extract(Offer, on="text", votes=3, evidence=True, **CHAT)
    assert lab.requests == 4
    assert made.loc[0, "title_evidence"]["text"] == "lamp"
    assert made.loc[0, ["title_agreement", "title_check"]].tolist() == [1.0, "correct"]


def test_a_column_called_like_the_values_is_not_mistaken_for_them(lab: Loopback) -> None:
    lab.answer = judging
    df = pd.DataFrame({"extracted": ["a lamp for 12"]})
    df.llm.extract(Offer, on="extracted", **CHAT)
    assert "<extracted_>" in lab.seen[1].body["messages"][-1]["content"]


def test_columns_of_two_levels_are_read_by_the_judge_too(lab: Loopback) -> None:
    lab.answer = judging
    df = pd.DataFrame({("a", "x"): ["a lamp for 12"], ("a", "y"): ["a lamp for 13"]})
    made = df.llm.extract(Offer, on=[("a", "x"), ("a", "y")], **CHAT)
    assert made["price_check"].tolist() == ["wrong"]


def test_with_errors_raised_a_failed_check_is_one(lab: Loopback) -> None:
    lab.answer = lambda body: "hm" if body["model"] == "judge" else judging(body)
    with pytest.raises(BadOutput):
        frame("a lamp for 12").llm.extract(Offer, on="text", on_error="raise", **CHAT)


def test_max_cost_is_for_both(lab: Loopback) -> None:
    prices = [{"provider": "lab", "name": name, "price": {"input": 1.0, "output": 2.0}} for name in ("test-chat", "judge")]
    llmkit.catalogue.merge({"models": prices})
    lab.answer = judging
    with pytest.warns(UserWarning, match="checked"):
        made = frame("a lamp for 12").llm.extract(Offer, on="text", max_tokens=50, max_cost=0.003, **CHAT)
    assert made["title"].tolist() == ["Lamp"]
    assert made["title_check"].isna().all()
    assert lab.requests == 1


def test_an_unknown_judge_is_found_before_anything_is_sent(lab: Loopback) -> None:
    with pytest.raises(UnknownModel):
        frame("a").llm.extract(Offer, on="text", model="lab/test-chat", check="no-such-model", show_progress=False)
    assert lab.requests == 0


def test_an_estimate_says_that_the_check_comes_on_top(lab: Loopback) -> None:
    estimate = frame("a", "b").llm.extract(Offer, on="text", dry_run=True, **CHAT)
    assert estimate.requests == 2
    assert "lab/judge" in str(estimate)
    assert lab.requests == 0


def test_no_rows_need_no_judge(lab: Loopback) -> None:
    made = frame().llm.extract(Offer, on="text", **CHAT)
    assert made.columns.tolist() == ["title", "price", "title_check", "price_check"]
    assert made["price_check"].dtype == VERDICTS
    assert lab.requests == 0


def test_a_list_of_records_is_not_judged() -> None:
    with pytest.raises(BadInput, match="one record a row"):
        frame("a").llm.extract(list[Offer], on="text", model="echo/echo", check="echo/echo")
