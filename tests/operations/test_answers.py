"""What becomes of the text that a model wrote."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import date, datetime, timedelta
from enum import Enum
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from llmkit.operations.answers import Extracted, Invalid, Reader, values_in
from llmkit.operations.schemas import fields_of


class Person(BaseModel):
    name: str
    age: int
    tags: list[str] = []


class Node(BaseModel):
    name: str
    children: list[Node]


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


def read(schema: Any, text: str, cut: bool = False) -> Any:
    return fields_of(schema).read(text, cut).data


def why(schema: Any, text: str, cut: bool = False) -> str:
    with pytest.raises(Invalid) as raised:
        fields_of(schema).read(text, cut)
    return raised.value.why


ANN = {"name": "Ann", "age": 34, "tags": ["a", "b"]}
CLEAN = '{"name": "Ann", "age": 34, "tags": ["a", "b"]}'


# ------------------------------------------------------------------------------------------------------------ read directly


@pytest.mark.parametrize(
    "text",
    [
        CLEAN,
        f"```json\n{CLEAN}\n```",
        f"```\n{CLEAN}",
        f"Here is {{what}} you asked for [1]:\n{CLEAN}\nAnything else?",
        f"json\n{CLEAN}<|im_end|>",
        f'<think>{{"name": "Bob", "age": 1}} hm</think>{CLEAN}',
        f"hm, maybe not</think>\n{CLEAN}",
        f'<tool_call>{{"name": "Person", "arguments": {CLEAN}}}</tool_call>',
        f"{CLEAN}\n\n{CLEAN}",
        f"[{CLEAN}]",
        f'{{"Person": {CLEAN}}}',
        f"{{{CLEAN}}}",
        f"{CLEAN}}}",
        CLEAN[:-1],
        f"```json\n{CLEAN[:-1]}\n```",
        '{"name": "Ann", "age": 34, "tags": ["a", "b",],}',
        "{'name': 'Ann', 'age': 34, 'tags': ['a', \"b\"]}",
        '{"name": "Ann", // she\n "age": 34, /* is { 34 */ "tags": ["a", "b"] # both\n}',
        "{“name”: “Ann”, “age”: 34, “tags”: [“a”, “b”]}",
        '{name: "Ann", age: 34, tags: ["a", "b"]}',
        '{"name"："Ann"，"age"：34，"tags"：["a"，"b"]}',
        '{"name": "Ann", "age": "34", "tags": ["a", "b"]}',
        '{"name": "Ann", "age": 34.0, "tags": ["a", "b"]}',
        '{"name": "Ann", "age": 34, "tags": "[\\"a\\", \\"b\\"]"}',
        '{"answer": "{\\"name\\": \\"Ann\\", \\"age\\": 34, \\"tags\\": [\\"a\\", \\"b\\"]}"}',
        '"{\\"name\\": \\"Ann\\", \\"age\\": 34, \\"tags\\": [\\"a\\", \\"b\\"]}"',
        '{"name": "Ann", "name": "Ann", "age": 34, "tags": ["a", "b"]}',
        '{"name": "Ann", "age": 34, "tags": ["a", "b"], "confidence": 0.9}',
    ],
)
def test_damage_that_has_one_reading_is_read(text: str) -> None:
    assert read(Person, text) == ANN


def test_what_was_mended_is_stored_as_json_that_reads_the_same() -> None:
    fields = fields_of(Person)
    mended = fields.read("{'name': 'O\"Neill', 'age': 34, 'tags': ['a\nb', None and 1]}".replace("None and 1", "'c'"))
    assert mended.data == {"name": 'O"Neill', "age": 34, "tags": ["a\nb", "c"]}
    assert fields.checked(mended.raw.encode()).data == mended.data


def test_a_fence_in_a_text_of_the_answer_ends_nothing() -> None:
    text = 'So: {"name": "```json\\n{}\\n```", "age": 1} and ```json\nno\n```'
    assert read({"name": str, "age": int}, text) == {"name": "```json\n{}\n```", "age": 1}


def test_a_list_needs_no_wrapping() -> None:
    people = [{"name": "Ann", "age": 1, "tags": []}, {"name": "Bob", "age": 2, "tags": []}]
    raw = '[{"name": "Ann", "age": 1}, {"name": "Bob", "age": 2}]'
    for text in (raw, f'{{"items": {raw}}}', f'{{"people": {raw}}}', f"```json\n{raw}\n```"):
        assert read(list[Person], text) == people
    assert read(list[Person], '{"name": "Ann", "age": 1, "tags": []}') == people[:1]
    assert read(list[Person], '{"items": []}') == []
    assert read(list[str], '["a", "b"]') == ["a", "b"]


def test_one_of_several_words_may_stand_alone() -> None:
    topic = Literal["billing", "delivery"]
    for text in (
        '{"value": "billing"}',
        "billing",
        '"billing"',
        "`billing`\n",
        '{"topic": "billing"}',
        "<think>or delivery</think>billing",
    ):
        assert read(topic, text) == "billing"
    assert read(Colour, "red") == Colour.RED
    assert read(bool, "true") is True
    assert read(int, "42") == 42


# ------------------------------------------------------------------------------------------------- what has several readings


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I'm sorry, I cannot do that.",
        "{}",
        "[]",
        f'{CLEAN}\n{{"name": "Bob", "age": 1}}',
        f'First {{"name": "Bob", "age": 1}}, better:\n```json\n{CLEAN}\n```',
        f'[{CLEAN}, {{"name": "Bob", "age": 1}}]',
        '{"name": "Ann", "age": 34, "age": 35}',
        '{"name": "Ann", "age": 34, "age"\n: 35}',
        '{"name": 34, "age": "Ann"}',
        '{"name": "Ann", "age": true}',
        '{"name": "Ann", "age": 34.5}',
        '{"name": "Ann", "age": "34 years"}',
        '{"name": "Ann", "age": NaN}',
        '{"name": null, "age": 34}',
        '{"name": ["Ann"], "age": 34}',
        '{"name": "Ann", "age": 34, "tags": "a, b"}',
        '{"name": "Ann"}',
        '{"name": "Ann", "age": 34, "tagz": ["a"]}',
        '{"Name": "Ann", "Age": 34}',
        '{"name": "Ann "so" Lee", "age": 34}',
        '{"name": "Ann", "age": "34", or so}',
        '{"name": "Ann" "age": 34}',
        '{"name" "Ann", "age": 34}',
        '{"name": "Ann", ...}',
        '{"name": "Ann", "age": 34',
        '{"name": "Ann", "age": 34, "tags": ["a"',
        '{"age": 34, "name": "Ann"',
        '{"name": "C:\\Users", "age": 34, "tags": []}',
        '{"name": "C:\\bin", "age": 34, "tags": []}',
        '{"name": "\\frac{1}{2}", "age": 34, "tags": []}',
        f"<think>{CLEAN}",
        f"<think>{CLEAN}</think>",
        f'{{"type": "object", "properties": {CLEAN}}}',
        f'{{"draft": {CLEAN}, "final": {{"name": "Bob", "age": 1}}}}',
        '{"person": {"name": "Ann", "age": 34, "tags": []}, oops}',
    ],
)
def test_what_has_several_readings_is_none(text: str) -> None:
    assert why(Person, text)


def test_a_part_that_fits_is_not_the_answer() -> None:
    tree = '{"name": "root", "children": [{"name": "leaf", "children": []}]}'
    assert read(Node, tree)["name"] == "root"
    for text in (tree[:-1] + ", oops}", tree[:-2], f"Here: {tree[:-3]}", tree.replace('"children": [{', '"children" [{')):
        assert why(Node, text)
        assert why(Node, text, cut=True)


def test_an_answer_that_was_cut_is_not_closed_for_it() -> None:
    assert read(Person, CLEAN[:-1])
    assert why(Person, CLEAN[:-1], cut=True)
    assert read(Person, CLEAN + "\n\nThis shows", cut=True) == ANN
    assert read(int, "42") == 42
    assert why(int, "42", cut=True)


def test_no_number_becomes_a_time() -> None:
    class Event(BaseModel):
        day: date | None = None
        start: datetime | None = None
        lasts: timedelta | None = None

    assert read(Event, '{"day": "2026-04-03", "start": "2026-04-03 10:00", "lasts": "PT5M"}')["day"] == date(2026, 4, 3)
    assert read(Event, '{"day": "2026-04-03T00:00:00", "start": "2026-04-03"}')["start"] == datetime(2026, 4, 3)
    for said in ('"start": 2026', '"start": "2026"', '"start": 1767225600', '"day": 86400', '"day": "86400"', '"lasts": 90', '"day": true'):
        assert why(Event, f"{{{said}}}")


def test_no_number_is_infinite_and_none_is_a_truth_value() -> None:
    class Bill(BaseModel):
        total: float
        parts: list[float] = []

    assert read(Bill, '{"total": "12.5", "parts": [1, 2.5]}') == {"total": 12.5, "parts": [1.0, 2.5]}
    for said in ("NaN", '"NaN"', "Infinity", '"-inf"', "1e999", "true", '"1,200"'):
        assert why(Bill, f'{{"total": {said}}}')
        assert why(Bill, f'{{"total": 1, "parts": [2, {said}]}}')
    assert read({"total": str}, '{"total": "NaN and Infinity"}') == {"total": "NaN and Infinity"}


def test_null_as_a_text_is_doubted_where_null_may_stand() -> None:
    assert read({"name": str}, '{"name": "null"}') == {"name": "null"}
    assert "null" in why({"name": str | None}, '{"name": "null"}')


def test_a_list_under_the_word_error_is_none() -> None:
    assert read(list[str], '{"tags": ["a"]}') == ["a"]
    assert why(list[str], '{"errors": ["cannot read it"]}')
    assert why(str, "It is a fine day.")
    assert why(str, '{"error": "cannot read it"}')


def test_keys_of_a_model_that_takes_more_are_kept() -> None:
    class Open(BaseModel):
        model_config = ConfigDict(extra="allow")
        name: str
        age: int | None = None

    assert read(Open, '{"name": "Ann", "town": "Bath"}') == {"name": "Ann", "age": None, "town": "Bath"}


def test_a_misspelt_optional_key_is_seen_at_any_depth() -> None:
    class Shelf(BaseModel):
        people: list[Person]

    assert read(Shelf, '{"people": [{"name": "Ann", "age": 1}]}')
    assert read(Shelf, '{"people": [{"name": "Ann", "age": 1, "tags": [], "odd": 1}]}')
    assert "Person" in why(Shelf, '{"people": [{"name": "Ann", "age": 1, "tag": ["x"]}]}')


def test_aliases_are_keys_of_their_fields() -> None:
    class Aliased(BaseModel):
        name: str = Field(alias="Full Name")
        age: int | None = None

    assert read(Aliased, '{"Full Name": "Ann"}') == {"name": "Ann", "age": None}
    assert why(Aliased, '{"Full Name": "Ann", "years": 3}')


# ------------------------------------------------------------------------------------------------------------- what is said


def test_what_is_wrong_names_fields_and_rules_and_no_values() -> None:
    class Strict(BaseModel):
        model_config = ConfigDict(extra="forbid")
        name: str
        by_word: dict[str, int] = {}

        @field_validator("name")
        @classmethod
        def _short(cls, name: str) -> str:
            if len(name) > 5:
                raise ValueError(f"{name} is too long")
            return name

    with pytest.raises(Invalid) as raised:
        fields_of(Strict).read('{"name": "Secretary", "by_word": {"hidden": "tales"}, "classified": 1}')
    assert "name" in raised.value.why
    assert "Strict" in raised.value.why
    for said in ("Secretary", "hidden", "tales", "classified"):
        assert said not in raised.value.why
        assert said not in str(raised.value)
    assert "Secretary is too long" in raised.value.told  # it goes to the model that wrote it


def test_a_validator_that_raises_what_it_should_not_is_not_mistaken_for_an_answer() -> None:
    class Level(BaseModel):
        level: str

        @field_validator("level")
        @classmethod
        def _known(cls, level: str) -> str:
            return {"low": "1"}[level]

    assert read(Level, '{"level": "low"}') == {"level": "1"}
    with pytest.raises(KeyError):
        read(Level, '{"level": "high"}')


def test_checked_says_what_pydantic_says() -> None:
    reader = Reader("Person", Person, "")
    assert isinstance(reader.checked(CLEAN), Extracted)
    with pytest.raises(ValidationError):
        reader.checked('{"name": "Ann"}')


def test_values_stand_in_their_order_and_prose_is_none() -> None:
    assert [found.raw for found in values_in('{"a": 1} and [2] and {b} and [see] {"c": {"d": 3}}')] == [
        '{"a": 1}',
        "[2]",
        '{"c": {"d": 3}}',
    ]
    assert values_in("") == []


# ---------------------------------------------------------------------------------------------------------- hostile answers

_MANY = 300_000
_HOSTILE: dict[str, Callable[[], str]] = {
    "braces": lambda: "{" * 1_000_000,
    "brackets": lambda: "[" * 1_000_000,
    "closing braces": lambda: "}" * 1_000_000,
    "deep objects": lambda: '{"name":' * 100_000 + "1" + "}" * 100_000,
    "deep lists": lambda: "[" * 100_000 + "]" * 100_000,
    "deep, not closed": lambda: '{"name": "a", "children": [' * 100_000,
    "fences": lambda: "```json\n" * 1_000_000,
    "fences of nothing": lambda: "```json\n{}\n```" * 100_000,
    "thoughts": lambda: "<think>" * _MANY,
    "ends of thoughts": lambda: "</think>" * _MANY,
    "keys": lambda: '{"' * _MANY,
    "a text without an end": lambda: '{"name": "' + "x" * 1_000_000,
    "backslashes": lambda: "{'name': '" + "\\a" * 500_000,
    "comments": lambda: "{" + "/*" * 500_000,
    "blanks": lambda: ("{" + " " * 1_000) * 1_000,
    "lists in prose": lambda: "[1] [true [" * 100_000,
    "typographic": lambda: "{“" * _MANY,
    "digits": lambda: '{"age": ' + "9" * 1_000_000 + "}",
    "objects": lambda: '{"name": "a"} ' * 70_000,
}


@pytest.mark.parametrize("name", _HOSTILE)
def test_a_hostile_answer_costs_no_more_than_its_length(name: str) -> None:
    text = _HOSTILE[name]()
    began = time.process_time()
    for schema in (Person, Node, list[Person], Literal["a", "b"]):
        assert why(schema, text)
        assert why(schema, text, cut=True)
    assert time.process_time() - began < 20  # a tenth of a second each; what grows with the square of its length takes minutes
