"""Schemas in the dialects of vendors: their rules kept, no valid answer shut out, and what cannot be said named by its field."""

from __future__ import annotations

import datetime
import decimal
import enum
import uuid
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import orjson
import pytest
from pydantic import AnyUrl, BaseModel, ConfigDict, Field, create_model

from llmkit.operations.chat import Schema
from llmkit.providers.dialects import DIALECTS, Dialect, Inexpressible, without_invented_nulls, written

SAID: dict[str, Dialect] = {name: dialect for name, dialect in DIALECTS.items() if dialect is not None}


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Size(enum.IntEnum):
    SMALL = 1
    LARGE = 2


class Address(BaseModel):
    street: str = Field(description="Without the number")
    number: int | None = None


class Plain(BaseModel):
    name: str
    age: int
    weight: float
    alive: bool


class Nested(BaseModel):
    home: Address
    work: Address | None = None
    others: list[Address] = []
    last: Address = Field(description="Where it was before")


class Choices(BaseModel):
    colour: Colour
    size: Size = Size.SMALL
    mood: Literal["good", "bad"]
    only: Literal["one"] = "one"
    mixed: Literal[1, "two", None] = None
    maybe: Colour | None = None


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"]
    tricks: list[str]


class Unions(BaseModel):
    pet: Cat | Dog = Field(discriminator="kind")
    either: int | str
    several: list[int | bool | None]
    pair: tuple[int, str]


class Times(BaseModel):
    when: datetime.datetime
    day: datetime.date | None = None
    at: datetime.time | None = None
    lasted: datetime.timedelta | None = None
    id: uuid.UUID | None = None


class Constrained(BaseModel):
    name: str = Field(min_length=2, max_length=40, examples=["Ann"])
    code: str = Field(pattern=r"^[A-Z]{3}$")
    share: float = Field(ge=0, le=1)
    even: int = Field(multiple_of=2, gt=0)
    price: decimal.Decimal
    tags: Annotated[list[str], Field(min_length=1, max_length=5)]
    where: AnyUrl | None = None


class Optional(BaseModel):
    a: int = 3
    b: str = "x"
    c: list[int] = Field(default_factory=list)
    d: Address = Address(street="x")
    e: int | None = 5


class Keywords(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    properties: str
    type: str
    required: bool
    ref: str = Field(alias="$ref")
    defs: str


class Node(BaseModel):
    label: str
    parts: list[Node] = []


class Left(BaseModel):
    right: Right | None = None


class Right(BaseModel):
    left: Left | None = None


class Bag(BaseModel):
    counts: dict[str, int]


class Inner(BaseModel):
    anything: Any


class Free(BaseModel):
    inner: Inner


WIDE = create_model("Wide", **{f"field_{number}": (int, ...) for number in range(500)})
MODELS = [Plain, Nested, Choices, Unions, Times, Constrained, Optional, WIDE]

#: Answers that are valid for the models, as they are and with everything that may be left out.
ANSWERS: list[BaseModel] = [
    Plain(name="Ann", age=3, weight=1.5, alive=True),
    Nested(home=Address(street="A", number=1), last=Address(street="B")),
    Nested(home=Address(street="A"), work=Address(street="C"), others=[Address(street="D")], last=Address(street="B")),
    Choices(colour=Colour.BLUE, mood="bad"),
    Choices(colour=Colour.RED, size=Size.LARGE, mood="good", mixed="two", maybe=Colour.RED),
    Unions(pet=Cat(kind="cat"), either="x", several=[1, True, None], pair=(1, "a")),
    Unions(pet=Dog(kind="dog", tricks=["sit"]), either=3, several=[], pair=(1, "a")),
    Times(when=datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC), day=datetime.date(2026, 1, 2), lasted=datetime.timedelta(hours=1)),
    Constrained(name="Ann", code="ABC", share=0.5, even=2, price=decimal.Decimal("1.50"), tags=["a"]),
    Optional(),
    WIDE(**{f"field_{number}": number for number in range(500)}),
]


def parts_of(form: Any) -> Iterator[dict[str, Any]]:
    """Every schema in a form."""
    if isinstance(form, dict):
        yield form
        for name in ("properties", "$defs"):
            for inner in (form.get(name) or {}).values():
                yield from parts_of(inner)
        for name in ("anyOf", "prefixItems"):
            for inner in form.get(name) or ():
                yield from parts_of(inner)
        for name in ("items", "additionalProperties"):
            yield from parts_of(form.get(name))


BESIDE = {
    "type",
    "enum",
    "required",
    "title",
    "properties",
    "items",
    "anyOf",
    "$ref",
    "$defs",
    "description",
    "additionalProperties",
    "format",
}


@pytest.mark.parametrize("dialect", SAID)
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_a_form_keeps_the_rules_of_its_dialect(model: type[BaseModel], dialect: str) -> None:
    rules = SAID[dialect]
    try:
        form = written(model.model_json_schema(), rules)
    except Inexpressible as error:
        assert dialect == "anthropic", error
        return
    assert form["type"] == "object"
    for part in parts_of(form):
        assert part.keys() <= BESIDE | rules.keywords, "a keyword that the vendor does not know"
        if "$ref" in part:
            assert part.keys() == {"$ref"}
            assert part["$ref"].removeprefix("#/$defs/") in form["$defs"]
        assert part.get("format") in {None, *rules.formats}
        assert rules.type_lists or not isinstance(part.get("type"), list)
        if "properties" in part:
            assert (part.get("additionalProperties") is False) is rules.closed
            if rules.complete:
                assert part["required"] == list(part["properties"])
        assert "(?" not in part.get("pattern", "")


@pytest.mark.parametrize("dialect", SAID)
@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: type(answer).__name__)
def test_no_valid_answer_is_shut_out_and_each_is_read_back(answer: BaseModel, dialect: str) -> None:
    validator = pytest.importorskip("jsonschema").Draft202012Validator
    schema = type(answer).model_json_schema()
    try:
        form = written(schema, SAID[dialect])
    except Inexpressible:
        pytest.skip("not in this dialect")
    validator.check_schema(form)
    said = answer.model_dump(mode="json")
    validator(form).validate(said)
    text = without_invented_nulls(Schema("answer", schema), orjson.dumps(said).decode())
    assert type(answer).model_validate_json(text) == answer


@pytest.mark.parametrize("dialect", [name for name, rules in SAID.items() if rules.complete])
def test_a_member_that_may_be_left_out_is_left_out_by_null(dialect: str) -> None:
    validator = pytest.importorskip("jsonschema").Draft202012Validator
    schema = Optional.model_json_schema()
    text = '{"a":null,"b":null,"c":null,"d":null,"e":null}'
    validator(written(schema, SAID[dialect])).validate(orjson.loads(text))
    cleared = without_invented_nulls(Schema("answer", schema), text)
    assert orjson.loads(cleared) == {"e": None}
    assert Optional.model_validate_json(cleared) == Optional(e=None)


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (Nested, '{"home": {"street": "A", "number": null}, "others": null, "last": {"street": "null"}}'),
        (Plain, '{"name": "null", "age": null}'),
        (Plain, "null"),
        (Plain, "no null in sight"),
        (Choices, '{"mixed": null, "maybe": null}'),
        (Node, '{"label": "a", "parts": [{"label": null, "parts": null}]}'),
    ],
)
def test_only_nulls_that_no_member_has_are_cleared(model: type[BaseModel], text: str) -> None:
    cleared = without_invented_nulls(Schema("answer", model.model_json_schema()), text)
    expected = {
        Nested: {"home": {"street": "A", "number": None}, "last": {"street": "null"}},
        Node: {"label": "a", "parts": [{"label": None}]},
    }.get(model)
    if expected is None:
        assert cleared == text
    else:
        assert orjson.loads(cleared) == expected


def test_what_a_dialect_has_no_word_for_is_said_in_the_description() -> None:
    form = written(Constrained.model_json_schema(), SAID["openai"])["properties"]
    assert form["share"] == {"type": "number", "minimum": 0, "maximum": 1}
    assert form["name"] == {"type": "string", "description": "{examples: ['Ann'], maxLength: 40, minLength: 2}"}
    assert form["code"]["pattern"] == "^[A-Z]{3}$"
    word = {"type": "object", "properties": {"word": {"type": "string", "pattern": "^(?!no)[a-z]+$"}}, "required": ["word"]}
    looks_ahead = written(word, SAID["openai"])["properties"]["word"]
    assert looks_ahead == {"type": "string", "description": "{pattern: ^(?!no)[a-z]+$}"}, "a grammar cannot look around"
    groq = written(Constrained.model_json_schema(), SAID["groq"])["properties"]
    assert groq["share"] == {"type": "number", "description": "{maximum: 1, minimum: 0}"}


def test_a_description_beside_a_reference_is_kept() -> None:
    form = written(Nested.model_json_schema(), SAID["openai"])["properties"]
    assert form["last"]["description"] == "Where it was before"
    assert form["home"] == {"$ref": "#/$defs/Address"}


@pytest.mark.parametrize(
    ("model", "refuse", "why"),
    [
        (Node, {"anthropic", "perplexity", "xai", "cerebras"}, "the field parts[] holds itself"),
        (Left, {"anthropic", "perplexity", "xai", "cerebras"}, "the field right holds itself"),
        (Bag, {"openai", "anthropic", "groq", "mistral", "perplexity", "cerebras"}, "the field counts is a map of free keys"),
        (Free, {"openai", "anthropic", "groq", "mistral", "perplexity", "xai", "cerebras"}, "the field inner.anything may hold anything"),
    ],
    ids=["recursive", "recursive by two", "a map", "anything"],
)
def test_what_cannot_be_said_is_named_by_its_field(model: type[BaseModel], refuse: set[str], why: str) -> None:
    for name, rules in SAID.items():
        if name not in refuse:
            written(model.model_json_schema(), rules)
            continue
        with pytest.raises(Inexpressible) as caught:
            written(model.model_json_schema(), rules)
        assert str(caught.value).startswith(why), name


def test_a_recursive_form_refers_to_itself() -> None:
    form = written(Node.model_json_schema(), SAID["openai"])
    assert form["properties"]["parts"]["anyOf"][0] == {"type": "array", "items": {"$ref": "#/$defs/Node"}}
    assert form["$defs"]["Node"]["properties"]["parts"] == form["properties"]["parts"]
    whole = {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]}
    assert written(whole, SAID["openai"])["properties"]["next"]["$ref"].startswith("#/$defs/")


def deep(levels: int) -> type[BaseModel]:
    model: Any = create_model("Deep0", value=(int, ...))
    for level in range(1, levels):
        model = create_model(f"Deep{level}", inner=(model, ...))
    return model  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("schema", "dialect", "why"),
    [
        (create_model("M", **{f"f{n}": (int, ...) for n in range(5001)}).model_json_schema(), "openai", "5,001 fields"),
        (deep(11).model_json_schema(), "openai", "lies 11 objects deep"),
        (create_model("M", x=(Literal[tuple(range(1001))], ...)).model_json_schema(), "openai", "1,001 values to choose from"),  # type: ignore[misc]
        (create_model("M", x=(Literal["a" * 130_000], ...)).model_json_schema(), "openai", "characters of names and values"),
        (create_model("M", **{f"f{n}": (int, 0) for n in range(25)}).model_json_schema(), "anthropic", "25 fields that may be left out"),
        (
            create_model("M", **{f"f{n}": (int | str, ...) for n in range(17)}).model_json_schema(),
            "anthropic",
            "17 fields of several types",
        ),
        ({"type": "array", "items": {"type": "string"}}, "plain", "is not one object"),
        ({"type": "object", "properties": {"a": {"$ref": "#/$defs/Gone"}}}, "plain", "refers to #/$defs/Gone, which is not in the schema"),
        ({"type": "object", "properties": {"a": False}}, "plain", "can hold nothing"),
    ],
)
def test_limits_are_kept(schema: dict[str, Any], dialect: str, why: str) -> None:
    with pytest.raises(Inexpressible) as caught:
        written(schema, SAID[dialect])
    assert why in str(caught.value)


def test_a_form_within_the_limits_is_said() -> None:
    written(deep(10).model_json_schema(), SAID["openai"])
    written(create_model("M", **{f"f{n}": (int, 0) for n in range(24)}).model_json_schema(), SAID["anthropic"])


def test_members_may_be_called_what_keywords_are_called() -> None:
    form = written(Keywords.model_json_schema(), SAID["plain"])
    assert set(form["properties"]) == {"properties", "type", "required", "$ref", "defs"}


def test_schemas_that_are_joined_become_one() -> None:
    schema = {
        "$defs": {"A": {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}},
        "allOf": [{"$ref": "#/$defs/A"}, {"properties": {"b": {"type": "integer"}}, "required": ["b"]}],
    }
    assert written(schema, SAID["openai"]) == {
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
        "additionalProperties": False,
    }


def test_writing_leaves_the_schema_as_it_was() -> None:
    schema = Nested.model_json_schema()
    for rules in SAID.values():
        written(schema, rules)
    assert schema == Nested.model_json_schema()
