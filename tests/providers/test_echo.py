"""The echo: offline, deterministic, schema-aware, and never to be taken for a model."""

import datetime
import decimal
import enum
import ipaddress
import uuid
from typing import Annotated, Any, Literal, Optional, Union

import orjson
import pytest
from pydantic import AnyUrl, BaseModel, ConfigDict, Field, Json, TypeAdapter

from llmkit.adapter import Target
from llmkit.errors import ServerFault
from llmkit.operations.chat import ChatPayload, Image, Message, Text
from llmkit.providers import echo
from llmkit.types import Request

ADAPTER = echo.adapter()
TARGET = Target(echo.MODELS[0], echo.PROVIDER, ADAPTER, ADAPTER.codecs["chat"])


def ask(*texts, **options):
    messages = tuple(Message("user", text) if isinstance(text, str) else Message(*text) for text in texts)
    request = Request("chat", ChatPayload(messages), options)
    body = TARGET.codec.encode((request,), TARGET)
    (reply,) = TARGET.codec.decode(ADAPTER.answer(body, TARGET), (request,))
    return reply


def as_schema(schema):
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


# ------------------------------------------------------------------------------------------------------------- plain text


def test_a_plain_answer_is_the_mark_and_the_users_words():
    reply = ask("Say hello")
    assert reply.value == "[echo, not a model] Say hello"
    assert reply.finish == "stop"
    assert (reply.usage.input, reply.usage.output, reply.usage.requests) == (2, 6, 1)


def test_white_space_is_folded():
    assert ask("  a\n\n b\tc ").value == "[echo, not a model] a b c"


def test_a_long_text_is_cut_at_two_hundred_characters():
    assert ask("x" * 5000).value == "[echo, not a model] " + "x" * 200 + "…"


def test_the_last_user_message_is_the_one_that_is_echoed():
    reply = ask(("system", "be brief"), ("user", "first"), ("assistant", "well"), ("user", "second"))
    assert reply.value == "[echo, not a model] second"
    assert reply.usage.input == 5


@pytest.mark.parametrize("text", ["", " ", "!!!", "[echo, not a model]", "{}", "\ud800 half", "\N{ROCKET}", "a" * 100_000])
@pytest.mark.parametrize("limit", [None, 1, 3, 4, 50])
def test_the_mark_is_in_every_plain_answer(text, limit):
    options = {} if limit is None else {"max_tokens": limit}
    assert ask(text, **options).value.startswith(echo.MARK)


def test_a_token_limit_cuts_the_words_and_says_so():
    reply = ask("one two three four five six", max_tokens=6)
    assert reply.value == "[echo, not a model] one two"
    assert (reply.finish, reply.usage.output) == ("length", 6)


def test_an_answer_of_exactly_the_limit_is_not_cut():
    assert ask("one two", max_tokens=6).finish == "stop"


def test_a_tiny_token_limit_leaves_the_mark_alone():
    assert ask("one two", max_tokens=1).value == echo.MARK


def test_the_newer_name_of_the_limit_counts_too():
    assert ask("one two three", max_completion_tokens=5).finish == "length"


def test_parts_of_a_message_are_read_as_their_text():
    reply = ask(("user", (Text("what is this"), Image("image/png", b"-"))))
    assert reply.value == "[echo, not a model] what is this <image_url>"


def test_the_same_question_has_the_same_bytes_and_the_same_answer():
    request = Request("chat", ChatPayload((Message("user", "hello"),)), {"temperature": 0.2})
    assert TARGET.codec.encode((request,), TARGET) == TARGET.codec.encode((request,), TARGET)
    assert ask("hello") == ask("hello")


def test_the_body_holds_model_messages_and_options():
    request = Request("chat", ChatPayload((Message("system", "s"), Message("user", "u"))), {"seed": 7})
    assert orjson.loads(TARGET.codec.encode((request,), TARGET)) == {
        "model": "echo",
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
        "seed": 7,
    }


def test_it_needs_no_connection_no_key_and_no_money():
    assert ADAPTER.connect is None
    assert not ADAPTER.blocking
    assert echo.PROVIDER.key_optional
    assert ask("hello").usage.cost(echo.MODELS[0].price) == 0
    assert ADAPTER.read_limits({}) is None
    assert isinstance(ADAPTER.classify_error(500, {}, b""), ServerFault)


# ------------------------------------------------------------------------------------------------------------------- JSON


class Mood(enum.Enum):
    good = "good"
    bad = "bad"


class Address(BaseModel):
    street: str
    zip: Annotated[str, Field(pattern=r"^\d{5}$")]


class Person(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    nick: str | None
    mood: Mood
    size: Literal["s", "m", "l"]
    age: Annotated[int, Field(ge=18, lt=30)]
    home: Address
    others: list[Address]
    friends: Optional["Person"] = None


class Node(BaseModel):
    value: int
    children: list["Node"]


class Chain(BaseModel):
    next: Union["Chain", None]


class Left(BaseModel):
    kind: Literal["left"]
    right: "Right | None" = None


class Right(BaseModel):
    kind: Literal["right"]
    lefts: list[Left]


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: Annotated[int, Field(gt=0)]


class Dog(BaseModel):
    kind: Literal["dog"]
    name: str


class Pet(BaseModel):
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]


class Numbers(BaseModel):
    a: Annotated[float, Field(gt=0, lt=1)]
    b: Annotated[int, Field(multiple_of=7, gt=7)]
    c: Annotated[float, Field(multiple_of=0.25, ge=0.3)]
    d: Annotated[int, Field(le=-5)]
    e: Annotated[float, Field(lt=-0.5)]
    f: Annotated[int, Field(gt=-3, lt=-1)]
    g: decimal.Decimal
    h: Annotated[decimal.Decimal, Field(ge=1, max_digits=5, decimal_places=2)]


class Texts(BaseModel):
    short: Annotated[str, Field(max_length=3)]
    long: Annotated[str, Field(min_length=80)]
    exact: Annotated[str, Field(min_length=10, max_length=10)]
    code: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    free: Annotated[str, Field(pattern=r"\w+")]


class Formats(BaseModel):
    day: datetime.date
    moment: datetime.datetime
    clock: datetime.time
    length: datetime.timedelta
    link: AnyUrl
    number: uuid.UUID
    random: uuid.UUID
    four: ipaddress.IPv4Address
    six: ipaddress.IPv6Address
    nested: Json[Any]


class Collections(BaseModel):
    words: list[str]
    three: Annotated[list[int], Field(min_length=3)]
    none: Annotated[list[int], Field(max_length=0)]
    pair: tuple[int, str]
    many: tuple[float, ...]
    different: Annotated[set[str], Field(min_length=3)]
    numbers: Annotated[set[int], Field(min_length=3)]
    moods: Annotated[set[Mood], Field(min_length=2)]
    table: dict[str, int]
    by_number: dict[int, str]
    by_choice: dict[Literal["x", "y"], int]
    anything: Any
    flag: bool
    nothing: None
    deep: list[list[dict[str, list[Address]]]]


class Described(BaseModel):
    """A reference with words of its own beside it."""

    home: Address = Field(description="where", examples=["x"])
    mood: Mood = Field(default=Mood.bad, title="mood")


SHAPES = [Person, Node, Chain, Left, Right, Pet, Numbers, Texts, Formats, Collections, Described]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_the_answer_is_valid_for_the_pydantic_model(shape):
    reply = ask("who?", response_format=as_schema(shape.model_json_schema()))
    shape.model_validate_json(reply.value)
    assert reply.finish == "stop"


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_every_property_is_in_the_answer(shape):
    assert list(echo.instance(shape.model_json_schema())) == list(shape.model_fields)


KINDS = [list[Person], int | str, dict[str, Node], list[Mood], tuple[int, Address], Literal["a"], list[Pet | None]]


@pytest.mark.parametrize("kind", KINDS)
def test_schemas_that_are_no_objects_are_answered_too(kind):
    adapter = TypeAdapter(kind)
    adapter.validate_python(adapter.validate_json(orjson.dumps(echo.instance(adapter.json_schema()))))


def test_strings_carry_the_mark_and_choices_are_the_first():
    person = echo.instance(Person.model_json_schema())
    assert person["name"].startswith(echo.MARK)
    assert person["nick"].startswith(echo.MARK)
    assert person["home"]["street"].startswith(echo.MARK)
    assert (person["mood"], person["size"], person["age"]) == ("good", "s", 18)
    assert len(person["others"]) == 1


def test_a_recursion_shows_one_level_and_ends():
    node = echo.instance(Node.model_json_schema())
    assert [child["children"] for child in node["children"]] == [[]]


def test_definitions_that_all_mention_one_another_are_answered_at_once():
    names = [f"N{number}" for number in range(40)]
    everything = {name: {"type": "array", "items": {"$ref": f"#/$defs/{name}"}} for name in names}
    node = {"type": "object", "properties": everything, "required": names}
    assert set(echo.instance({"$ref": "#/$defs/N0", "$defs": dict.fromkeys(names, node)})) == set(names)


def test_a_schema_that_nothing_finite_meets_ends_in_a_marked_object():
    endless = {"type": "object", "properties": {"again": {"$ref": "#"}}, "required": ["again"]}
    assert echo.instance(endless) == {"echo": echo.MARK}
    assert echo.instance({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}) == {"echo": echo.MARK}
    assert echo.instance({"type": "integer", "minimum": 3, "maximum": 2}) == {"echo": echo.MARK}
    assert echo.instance(False) == {"echo": echo.MARK}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"const": 3}, 3),
        ({"enum": ["x", "y"]}, "x"),
        ({"type": ["null", "integer"], "minimum": 4}, 4),
        ({"type": "integer", "minimum": 3, "exclusiveMinimum": True}, 4),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.5}, 0.25),
        ({"type": "integer", "multipleOf": 0.5, "minimum": 3}, 3),
        ({"type": "number", "multipleOf": 0.1, "minimum": 0.25}, 0.3),
        ({"anyOf": [{"type": "null"}, {"type": "boolean"}]}, False),
        ({"oneOf": [{"enum": []}, {"const": "b"}]}, "b"),
        ({"allOf": [{"type": "integer", "minimum": 2}, {"minimum": 5}, {"maximum": 9}]}, 5),
        ({"minimum": 1, "anyOf": [{"type": "integer"}, {"type": "string"}]}, 1),
        ({"type": "array", "items": [{"const": 1}, {"const": 2}]}, [1, 2]),
        ({"type": "array", "items": {"type": "boolean"}, "minItems": 2, "uniqueItems": True}, [False, True]),
        ({"type": "array", "maxItems": 0}, []),
        ({"type": "object", "minProperties": 2, "additionalProperties": {"type": "null"}}, {"0": None, "1": None}),
        ({"type": "object", "required": ["a"], "additionalProperties": {"type": "integer"}}, {"a": 0}),
        ({"properties": {"a/b": {"$ref": "#/$defs/x~1y"}}, "$defs": {"x/y": {"const": 1}}}, {"a/b": 1}),
        (
            {
                "allOf": [{"$ref": "#/$defs/a"}, {"properties": {"b": {"const": 2}}}],
                "$defs": {"a": {"properties": {"b": {}, "c": {"const": 3}}}},
            },
            {"b": 2, "c": 3},
        ),
        (True, "[echo, not a model] echo"),
    ],
)
def test_the_words_of_json_schema_are_obeyed(schema, value):
    assert echo.instance(schema) == value


def test_a_json_object_is_asked_for_and_given():
    reply = ask("Answer in JSON", response_format={"type": "json_object"})
    assert orjson.loads(reply.value) == {"echo": "[echo, not a model] Answer in JSON"}


def test_json_that_is_cut_by_the_limit_says_so():
    reply = ask("who?", response_format=as_schema(Person.model_json_schema()), max_tokens=5)
    assert (reply.finish, reply.usage.output) == ("length", 5)


def test_the_same_schema_has_the_same_answer():
    assert echo.instance(Person.model_json_schema()) == echo.instance(Person.model_json_schema())
