"""``evidence=True``: what a model quotes is looked up in the row's own cells."""

from __future__ import annotations

from typing import Any

import orjson
import pandas as pd
import pyarrow as pa
import pytest
from pydantic import AliasChoices, BaseModel, Field

from llmkit.errors import BadInput
from llmkit.frames.columns import ColumnShape
from llmkit.frames.evidence import Cells
from llmkit.frames.extraction import _with_values
from llmkit.outcomes import LIVE, Outcomes
from llmkit.types import Reply
from tests.loopback import Loopback

CHAT: dict[str, Any] = {"model": "lab/test-chat", "show_progress": False}


class Offer(BaseModel):
    """An offer."""

    title: str = Field(description="What is offered.")
    price: float | None = None


def says(fields: Any, **evidence: Any) -> str:
    return orjson.dumps({"fields": fields, "evidence": evidence}).decode()


# -------------------------------------------------------------------------------------------------------------- in a run


def test_a_quote_becomes_a_span_whose_offsets_cut_it_out_of_the_cell(lab: Loopback) -> None:
    lab.answer = lambda body: says({"title": "Lamp", "price": 12}, title="a lamp", price="12 dollars")
    df = pd.DataFrame({"text": ["We sell a lamp for 12 dollars."]}, index=["x"])
    made = df.llm.extract(Offer, on="text", evidence=True, **CHAT)
    assert made.columns.tolist() == ["title", "price", "title_evidence", "price_evidence"]
    assert made["title"].tolist() == ["Lamp"]
    span = made.loc["x", "price_evidence"]
    assert span["column"] == "text"
    assert df.loc["x", "text"][span["start"] : span["stop"]] == span["text"] == "12 dollars"
    kind = pa.struct([("column", pa.string()), ("text", pa.string()), ("start", pa.int64()), ("stop", pa.int64())])
    assert made["title_evidence"].dtype == pd.ArrowDtype(kind)


def test_what_the_model_made_up_has_no_evidence(lab: Loopback) -> None:
    lab.answer = lambda body: says({"title": "Lamp", "price": 12}, title="a chair", price="")
    made = pd.DataFrame({"text": ["a lamp for 12"]}).llm.extract(Offer, on="text", evidence=True, **CHAT)
    assert made["title"].tolist() == ["Lamp"]
    assert made[["title_evidence", "price_evidence"]].isna().all(axis=None)


def test_a_value_that_is_missing_has_no_evidence_whatever_is_quoted(lab: Loopback) -> None:
    lab.answer = lambda body: says({"title": "Lamp", "price": None}, title="lamp", price="lamp")
    made = pd.DataFrame({"text": ["a lamp"]}).llm.extract(Offer, on="text", evidence=True, **CHAT)
    assert made["title_evidence"].notna().all()
    assert made["price_evidence"].isna().all()


def test_the_span_says_in_which_of_several_columns_it_is(lab: Loopback) -> None:
    lab.answer = lambda body: says({"title": "Lamp", "price": 5}, title="Lamp", price="5 euros")
    df = pd.DataFrame({"head": ["Lamp"], "body": ["It costs 5 euros"], "no": ["5 euros"]})
    made = df.llm.extract(Offer, on=["head", "body"], evidence=True, **CHAT)
    assert made.loc[0, "title_evidence"]["column"] == "head"
    assert made.loc[0, "price_evidence"] == {"column": "body", "text": "5 euros", "start": 9, "stop": 16}


def test_a_prompts_own_columns_are_searched(lab: Loopback) -> None:
    lab.answer = lambda body: says({"title": "Lamp", "price": 5}, title="Lamp")
    df = pd.DataFrame({"head": ["x"], "body": ["the Lamp"]})
    made = df.llm.extract(Offer, prompt="Look at {body}", evidence=True, **CHAT)
    assert made.loc[0, "title_evidence"]["column"] == "body"


def test_what_is_asked_holds_the_callers_fields_and_a_quote_for_each(lab: Loopback) -> None:
    lab.answer = lambda body: says({"title": "Lamp"})
    pd.DataFrame({"text": ["a"]}).llm.extract(Offer, on="text", evidence=True, **CHAT)
    asked = str(lab.seen[0].body)
    assert "What is offered." in asked
    assert "a short quote that its value was read from" in asked


def test_an_answer_without_quotes_is_an_answer(lab: Loopback) -> None:
    lab.answer = lambda body: orjson.dumps({"fields": {"title": "Lamp"}}).decode()
    made = pd.DataFrame({"text": ["a lamp"]}).llm.extract(Offer, on="text", evidence=True, **CHAT)
    assert made["title"].tolist() == ["Lamp"]
    assert made["title_evidence"].isna().all()


def test_what_is_stored_has_its_evidence_again(lab: Loopback) -> None:
    lab.answer = lambda body: says({"title": "Lamp"}, title="lamp")
    df = pd.DataFrame({"text": ["a lamp"]})
    first, again = (df.llm.extract(Offer, on="text", evidence=True, **CHAT) for _ in range(2))
    pd.testing.assert_frame_equal(first, again)
    assert lab.requests == 1


def test_each_record_of_a_list_has_evidence_of_its_own(lab: Loopback) -> None:
    pairs = [{"fields": {"title": name, "price": 1}, "evidence": {"title": name}} for name in ("lamp", "chair")]
    lab.answer = lambda body: orjson.dumps({"items": pairs}).decode()
    df = pd.DataFrame({"text": ["a lamp and a chair"]}, index=[7])
    made = df.llm.extract(list[Offer], on="text", evidence=True, explode=True, prefix="o_", **CHAT)
    assert made.index.tolist() == [7, 7]
    assert [span["start"] for span in made["o_title_evidence"]] == [2, 13]


def test_one_value_a_row_becomes_a_column_and_its_evidence(lab: Loopback) -> None:
    lab.answer = lambda body: says({"value": 12}, value="12")
    made = pd.DataFrame({"text": ["in 2012 it was 12"]}).llm.extract(int, on="text", evidence=True, **CHAT)
    assert made.columns.tolist() == ["value", "value_evidence"]
    assert made.loc[0, "value_evidence"]["start"] == 15


def test_evidence_stands_beside_the_frame_and_in_detail(lab: Loopback) -> None:
    lab.answer = lambda body: says({"title": "Lamp"}, title="lamp")
    df = pd.DataFrame({"text": ["a lamp", None]})
    joined = df.llm.extract(Offer, on="text", evidence=True, join=True, **CHAT)
    assert joined.columns.tolist() == ["text", "title", "price", "title_evidence", "price_evidence"]
    assert joined["title_evidence"].isna().tolist() == [False, True]
    detail = df.llm.extract(Offer, on="text", evidence=True, detail=True, **CHAT)
    assert detail["title_evidence"].isna().tolist() == [False, True]
    assert detail["source"][0] == "cache"


def test_fields_with_names_that_python_keeps_are_quoted_by_the_names_that_they_have_in_json(lab: Loopback) -> None:
    class Odd(BaseModel):
        class_: str = Field(alias="class")

    lab.answer = lambda body: says({"class": "B"}, **{"class": "class B"})
    made = pd.DataFrame({"text": ["of class B"]}).llm.extract(Odd, on="text", evidence=True, **CHAT)
    assert made.columns.tolist() == ["class", "class_evidence"]
    assert made.loc[0, "class_evidence"]["text"] == "class B"


def test_a_field_of_several_names_is_quoted_by_the_one_that_is_asked_for(lab: Loopback) -> None:
    class Trip(BaseModel):
        town: str = Field(validation_alias=AliasChoices("place", "city"))

    lab.answer = lambda body: says({"place": "Rome"}, place="rome")
    made = pd.DataFrame({"text": ["to Rome"]}).llm.extract(Trip, on="text", evidence=True, **CHAT)
    assert made.loc[0, "town_evidence"]["text"] == "Rome"


def test_a_field_that_has_the_name_of_anothers_evidence_is_refused() -> None:
    with pytest.raises(BadInput, match="title_evidence"):
        pd.DataFrame({"text": ["a"]}).llm.extract(
            {"title": str, "title_evidence": str}, on="text", evidence=True, model="echo/echo", show_progress=False
        )


# -------------------------------------------------------------------------------------------------------------- matching


@pytest.mark.parametrize(
    ("text", "quote", "found"),
    [
        ("a red lamp", "red lamp", "red lamp"),
        ("a red\n  lamp", "red lamp", "red\n  lamp"),
        ("a Red Lamp", "red lamp", "Red Lamp"),
        ("he said “no”", '"no"', "“no”"),
        ("it’s 5–7 days", "it's 5-7 days", "it’s 5–7 days"),
        ("Cafe\u0301 noir", "Caf\u00e9", "Cafe\u0301"),
        ("Caf\u00e9 noir", "Cafe\u0301", "Caf\u00e9"),
        ("an e\u00adven\u00adt now", "event", "e\u00adven\u00adt"),
        ("the ﬁle", "file", "ﬁle"),
        ("価格は1,200円です", "1,200円", "1,200円"),
        ("a lamp for sale", "“a lamp for…”", "a lamp for"),
        ("Straße 5", "STRASSE 5", "Straße 5"),
        ("\N{GRINNING FACE} a lamp", "lamp", "lamp"),
    ],
)
def test_a_quote_is_found_in_spite_of_what_copying_changes(text: str, quote: str, found: str) -> None:
    span = Cells([("text", text)]).span(quote)
    assert span is not None
    assert span["text"] == found == text[span["start"] : span["stop"]]


@pytest.mark.parametrize(
    ("text", "quote"),
    [
        ("in 2011", "11"),
        ("it costs 1,500", "500"),
        ("it costs 1.5", "1"),
        ("a lamp", "chair"),
        ("a lamp", None),
        ("a lamp", " \n"),
        ("a lamp", "“”"),
        ("", "lamp"),
    ],
)
def test_what_is_not_there_is_not_found(text: str, quote: str | None) -> None:
    assert Cells([("text", text)]).span(quote) is None


def test_a_word_is_found_as_a_word_where_it_stands_as_one() -> None:
    assert Cells([("text", "partly art")]).span("art") == {"column": "text", "text": "art", "start": 7, "stop": 10}
    assert Cells([("text", "partly")]).span("art") == {"column": "text", "text": "art", "start": 1, "stop": 4}


def test_rows_that_are_given_tasks_while_a_partial_result_is_made_are_not_seen() -> None:
    outcomes = Outcomes(2)
    outcomes.point(0, outcomes.add(b"first"))
    outcomes.settle(0, Reply(1), LIVE, 1, 0.1, 0)

    def told(row: int, answer: Any) -> Any:
        outcomes.point(1, outcomes.add(b"second"))
        return answer + 1

    assert list(ColumnShape(pd.RangeIndex(2), "object").column(_with_values(outcomes, told, None))) == [2, None]
