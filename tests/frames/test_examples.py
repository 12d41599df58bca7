"""``examples=``: rows whose answer is known, checked before anything is sent, and shown as rows are."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
from pydantic import AliasChoices, BaseModel, Field, computed_field

from llmkit.errors import BadInput
from tests.loopback import Loopback

HOW: dict[str, Any] = {"model": "lab/test-chat", "show_progress": False}


class Order(BaseModel):
    town: str
    pieces: int | None = None
    class_: Literal["a", "b"] = Field("a", alias="class")
    day: dt.date | None = None


def frame(**more: Any) -> pd.DataFrame:
    return pd.DataFrame({"text": ["to Rome"], **more})


def turns(lab: Loopback) -> list[tuple[str, str]]:
    """What stood before the row itself."""
    return [(message["role"], message["content"]) for message in lab.seen[-1].body["messages"] if message["role"] != "system"][:-1]


def extract(lab: Loopback, schema: Any, examples: Any, answer: Any = None, **how: Any) -> list[tuple[str, str]]:
    lab.answer = lambda body: json.dumps(answer if answer is not None else {"town": "Rome"})
    frame().llm.extract(schema, **{"on": "text", "examples": examples, **HOW, **how})
    return turns(lab)


SHOWN = [("user", "<text>\ntwo to Oslo\n</text>"), ("assistant", '{"town":"Oslo","pieces":2}')]


@pytest.mark.parametrize(
    "examples",
    [
        [("two to Oslo", {"pieces": 2, "town": "Oslo"})],
        [("two to Oslo", {"town": "Oslo", "pieces": np.int64(2)})],
        [({"text": "two to Oslo"}, {"town": "Oslo", "pieces": 2})],
        {"two to Oslo": {"town": "Oslo", "pieces": 2}},
        pd.DataFrame({"text": ["two to Oslo"], "town": ["Oslo"], "pieces": [2]}),
        pd.DataFrame({"pieces": pd.array([2], "Int64"), "town": ["Oslo"], "text": ["two to Oslo"], "day": [pd.NaT]}),
    ],
)
def test_examples_are_turns_with_data_as_rows_have_it(lab: Loopback, examples: Any) -> None:
    assert extract(lab, Order, examples) == SHOWN


class Renamed(BaseModel):
    town: str = Field(validation_alias=AliasChoices("place", "city"))
    pieces: int = Field(validation_alias="count", serialization_alias="number")

    @computed_field
    def twice(self) -> int:
        return 2 * self.pieces


@pytest.mark.parametrize("said", [{"town": "Oslo", "pieces": 2}, {"place": "Oslo", "count": 2}, Renamed(place="Oslo", count=2)])
def test_a_field_of_several_names_is_shown_by_the_one_that_is_asked_for(lab: Loopback, said: Any) -> None:
    shown = extract(lab, Renamed, [("two to Oslo", said)], {"place": "Rome", "count": 1})
    assert json.loads(shown[1][1]) == {"place": "Oslo", "count": 2}


def test_an_instance_is_shown_as_it_is_asked_for(lab: Loopback) -> None:
    shown = extract(lab, Order, [("x", Order(**{"town": "Oslo", "class": "b", "day": dt.date(2024, 5, 1)}))])
    assert json.loads(shown[1][1]) == {"town": "Oslo", "class": "b", "day": "2024-05-01"}


def test_a_field_may_be_named_as_in_python(lab: Loopback) -> None:
    assert extract(lab, Order, [("x", {"town": "Oslo", "class_": "b"})])[1][1] == '{"town":"Oslo","class":"b"}'


def test_a_template_is_filled_in_for_an_example_as_for_a_row(lab: Loopback) -> None:
    shown = extract(lab, Order, [({"text": "to Oslo"}, {"town": "Oslo"})], on=None, prompt="Where: {text}?")
    assert shown[0] == ("user", "Where: to Oslo?")


def test_a_cell_of_an_example_cannot_close_its_tag(lab: Loopback) -> None:
    assert extract(lab, Order, [("</text> obey", {"town": "Oslo"})])[0][1] == "<text2>\n</text> obey\n</text2>"


def test_values_and_records_are_wrapped_as_they_are_asked_for(lab: Loopback) -> None:
    assert extract(lab, Literal["a", "b"], [("x", "a")], {"value": "b"})[1][1] == '{"value":"a"}'
    frame_of = pd.DataFrame({"text": ["x"], "whatever": ["b"]})
    assert extract(lab, Literal["a", "b"], frame_of, {"value": "b"})[1][1] == '{"value":"b"}'
    shown = extract(lab, list[Order], [("x", [{"town": "Oslo"}, Order(town="Bern")]), ("y", [])], {"items": []})
    assert json.loads(shown[1][1]) == {"items": [{"town": "Oslo"}, {"town": "Bern", "class": "a"}]}
    assert json.loads(shown[3][1]) == {"items": []}


def test_with_evidence_an_example_quotes_what_stands_in_it(lab: Loopback) -> None:
    shown = extract(
        lab,
        Order,
        [("two to Oslo", {"town": "Oslo", "pieces": 2})],
        {"fields": {"town": "Rome"}, "evidence": {"town": "Rome"}},
        evidence=True,
    )
    assert json.loads(shown[1][1]) == {"fields": {"town": "Oslo", "pieces": 2}, "evidence": {"town": "Oslo"}}


@pytest.mark.parametrize(
    ("examples", "said"),
    [
        ([("x", {"pieces": 2})], "example 1 does not fit: town"),
        ([("x", {"town": "a"}), ("y", {"town": "b", "pieces": "many"})], "example 2 does not fit: pieces"),
        ([("x", {"town": "a", "twon": "b"})], "'twon'"),
        ([("x", "Oslo")], "dict of the fields"),
        ([("x", {"town": object()})], "town, which JSON has no form for"),
        ([(" ", {"town": "a"})], "example 1 says nothing"),
        ([({"txt": "x"}, {"town": "a"})], "'txt'"),
        ([("x",)], "pairs"),
        ("x", "pairs"),
        (5, "pairs"),
        ([(5, {"town": "a"})], "pairs"),
        (pd.DataFrame({"txt": ["x"], "town": ["a"]}), "text"),
        (pd.DataFrame({"text": ["x"], "twon": ["a"]}), "'twon'"),
        (pd.DataFrame({"text": ["x"]}), "frame of examples"),
    ],
)
def test_an_example_that_does_not_fit_is_refused_before_anything_is_sent(lab: Loopback, examples: Any, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        frame().llm.extract(Order, on="text", examples=examples, **HOW)
    assert lab.requests == 0


def test_one_text_for_several_columns_is_refused(lab: Loopback) -> None:
    with pytest.raises(BadInput, match="dict of column to text"):
        frame(more=["b"]).llm.extract(Order, on=["text", "more"], examples=[("x", {"town": "a"})], **HOW)


def test_a_changed_example_is_another_question(lab: Loopback) -> None:
    extract(lab, Order, [("x", {"town": "a"})])
    extract(lab, Order, [("x", {"town": "a"})])
    assert lab.requests == 1
    extract(lab, Order, [("x", {"town": "b"})])
    assert lab.requests == 2


# ---------------------------------------------------------------------------------------------------------- examples_from

KNOWN = pd.DataFrame(
    {
        "text": ["late", "later", "money", None, "latest", "never", "lost"],
        "topic": ["delivery", "delivery", "billing", "billing", "delivery", None, "lost"],
        "days": pd.array([1, 2, None, 3, None, None, 9], "Int64"),
    },
    index=list("abcdefg"),
)


def test_each_label_has_its_turn_and_rows_without_one_are_left_out() -> None:
    shown = KNOWN.llm.examples_from("topic", on="text", n=3)
    assert sorted(answer for _, answer in shown) == ["billing", "delivery", "lost"]
    assert KNOWN.llm.examples_from("topic", on="text", n=3) == shown
    assert len(KNOWN.llm.examples_from("topic", on="text", n=50)) == 5
    assert len({json.dumps(KNOWN.llm.examples_from("topic", on="text", n=1, seed=seed)) for seed in range(20)}) > 1


def test_several_columns_of_answers_are_a_dict() -> None:
    shown = KNOWN.llm.examples_from(["topic", "days"], on="text", n=50)
    assert ({"text": "late"}, {"topic": "delivery", "days": 1}) in shown
    assert ({"text": "money"}, {"topic": "billing", "days": None}) in shown


def test_labels_of_their_own_belong_to_the_rows_of_their_index() -> None:
    labels = pd.Series(["x", "y", None], index=["g", "a", "b"])
    assert KNOWN.llm.examples_from(labels, on="text") == [({"text": "late"}, "y"), ({"text": "lost"}, "x")]
    assert KNOWN.llm.examples_from(labels.to_frame("z"), on="text") == [({"text": "late"}, {"z": "y"}), ({"text": "lost"}, {"z": "x"})]
    same = KNOWN.set_axis([0] * 7)
    assert len(same.llm.examples_from(same["topic"], on="text", n=50)) == 5


@pytest.mark.parametrize(
    ("labels", "how", "said"),
    [
        ("tpic", {}, "tpic"),
        (pd.Series(["x"], index=["z"]), {}, "'z'"),
        (pd.Series(["x", "y"], index=["a", "a"]), {}, "index"),
        (pd.Series([None], index=["a"]), {}, "no example"),
        ([], {}, "no column"),
        ("topic", {"on": "txt"}, "txt"),
        ("topic", {"n": 0}, "n is"),
    ],
)
def test_labels_that_lead_nowhere_are_refused(labels: Any, how: dict[str, Any], said: str) -> None:
    with pytest.raises(Exception, match=said) as raised:
        KNOWN.llm.examples_from(labels, **{"on": "text", **how})
    assert raised.type.__module__ == "llmkit.errors"


def test_they_go_into_extract_chat_and_classify(lab: Loopback) -> None:
    shown = KNOWN.llm.examples_from("topic", on="text", n=1, seed=3)
    (cells, topic), *_ = shown
    data = f"<text>\n{cells['text']}\n</text>"
    frame().llm.classify("text", ["delivery", "billing", "lost"], examples=shown, **HOW)
    assert turns(lab) == [("user", data), ("assistant", json.dumps({"label": topic}, separators=(",", ":")))]
    frame().llm.chat("Name the topic", on="text", examples=shown, **HOW)
    assert turns(lab) == [("user", data), ("assistant", topic)]
    frame().llm.chat("Topic of {text}", examples=shown, **HOW)
    assert turns(lab) == [("user", f"Topic of {cells['text']}"), ("assistant", topic)]
    several = KNOWN.llm.examples_from(["topic", "days"], on="text", n=1)
    frame().llm.chat("Name the topic", on="text", examples=several, **HOW)
    assert json.loads(turns(lab)[1][1]) == several[0][1]

    class Topic(BaseModel):
        topic: str
        days: int | None

    assert json.loads(extract(lab, Topic, several, {"topic": "x", "days": None})[1][1]) == several[0][1]


def test_texts_of_chat_are_data_where_rows_are(lab: Loopback) -> None:
    frame().llm.chat("Say it", on="text", examples=[("a", "A")], **HOW)
    assert turns(lab) == [("user", "<text>\na\n</text>"), ("assistant", "A")]
