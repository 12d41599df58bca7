"""What callers give as a schema, and what becomes of it: what is sent, the class that checks, the Python that defines it."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import json
import time
import warnings
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, Optional, TypeVar
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
from pydantic import AliasChoices, AliasPath, AnyUrl, BaseModel, ConfigDict, Field, RootModel, ValidationError, field_validator
from typing_extensions import TypedDict

from llmkit.errors import BadInput
from llmkit.operations.schemas import Fields, Invalid, fields_of

T = TypeVar("T")


class Colour(Enum):
    RED = "red"
    GREEN = "green"


class Item(BaseModel):
    """One line of an order."""

    sku: str = Field(description='the "number" on it\n(in \\ letters)', min_length=1)
    count: int = Field(1, ge=0, le=99)


class Node(BaseModel):
    value: int
    children: list[Node] = []


class Box(BaseModel, Generic[T]):
    inside: T


class Everything(BaseModel):
    """All at once.

    In two "paragraphs".
    """

    model_config = ConfigDict(strict=True, extra="forbid")

    colour: Colour
    colours: list[Colour] = Field(default_factory=list)
    maybe: Optional[Item] = None  # noqa: UP045
    item: Item = Field(description="the first")
    day: dt.date
    moment: dt.datetime | None = dt.datetime(2024, 1, 1)
    uuid: UUID
    url: AnyUrl
    price: decimal.Decimal
    one_of: Literal["a", 1, None]
    pair: tuple[int, str]
    different: set[str]
    counts: dict[str, int]
    share: float = Field(gt=0.5)
    class_: str = Field(alias="class")
    anything: Any
    several: int | str | Item
    node: Node
    box: Box[int]
    free: dict  # type: ignore[type-arg]
    date: dt.date = Field(default=dt.date(2020, 1, 1))
    made: int = Field(default_factory=lambda: 3)
    words: Annotated[list[Annotated[str, Field(max_length=3)]], Field(max_length=4)]


class Items(RootModel[list[Item]]):
    pass


class OneItem(RootModel[Item]):
    pass


class Counts(RootModel[dict[str, int]]):
    pass


@dataclasses.dataclass
class Person:
    name: str
    age: int | None = None


@dataclasses.dataclass
class Family:
    """Who lives together."""

    head: Person
    parts: list[Family] = dataclasses.field(default_factory=list)
    town: Annotated[str, "where they live"] = "nowhere"


class Place(TypedDict):
    town: str
    country: NotRequired[str]
    head: Person


class Point(NamedTuple):
    x: int
    places: list[Place] = []  # noqa: RUF012


ODD = ["my field", "class", "2nd", "a.b", "a b", "a_b", "_id", "copy", "json", "schema", "model_config", "model_dump", "model_fields",
       "str", "date", "__doc__", "Answer", "日本", 'x"""y\\', "q\nz", "None"]  # fmt: skip

ORDER: dict[str, Any] = {
    "title": "Order form",
    "type": "object",
    "description": "An order",
    "properties": {
        "id": {"type": "string", "format": "uuid"},
        "when": {"type": "string", "format": "date-time"},
        "mail": {"type": "string", "format": "email"},
        "count": {"type": "integer", "minimum": 0, "exclusiveMaximum": 10, "multipleOf": 2},
        "share": {"type": ["number", "null"], "minimum": 0.5},
        "kind": {"enum": ["a", "b", None]},
        "version": {"const": 3},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 1, "uniqueItems": True},
        "address": {"$ref": "#/$defs/address"},
        "ship": {"anyOf": [{"$ref": "#/$defs/address"}, {"type": "null"}], "description": "to whom"},
        "tree": {"$ref": "#/definitions/tree"},
        "nest": {"$ref": "#/$defs/nest"},
        "counts": {"type": "object", "additionalProperties": {"type": "integer"}},
        "anything": {},
        "lines": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"sku": {"type": "string", "pattern": "^[A-Z]+$"}, "n": {"type": "integer", "default": 1}},
                "required": ["sku"],
                "additionalProperties": False,
            },
        },
        "note": {"type": "string", "nullable": True, "description": "by hand"},
        "either": {"oneOf": [{"type": "string"}, {"type": "integer"}]},
        "title": {"type": "string", "default": "none"},
        "day": {"type": "string", "format": "date", "default": "2020-01-02"},
        "all": {"allOf": [{"$ref": "#/$defs/address"}, {"type": "object", "properties": {"zip": {"type": "string"}}, "required": ["zip"]}]},
    },
    "required": ["id", "count", "kind", "address", "tree"],
    "$defs": {
        "address": {
            "type": "object",
            "properties": {"street": {"type": "string"}, "country": {"$ref": "#/$defs/country"}},
            "required": ["street"],
        },
        "country": {"type": "string", "enum": ["de", "fr"]},
        "nest": {"type": "array", "items": {"$ref": "#/$defs/nest"}},
    },
    "definitions": {
        "tree": {
            "type": "object",
            "properties": {
                "v": {"type": "integer"},
                "kids": {"type": "array", "items": {"$ref": "#/definitions/tree"}},
                "up": {"$ref": "#"},
            },
            "required": ["v", "kids"],
        }
    },
}

GIVEN: dict[str, tuple[Any, str]] = {
    "a model": (Everything, "record"),
    "a recursive model": (Node, "record"),
    "a generic model": (Box[Node], "record"),
    "an enum": (Colour, "value"),
    "a literal": (Literal["a", "b"], "value"),
    "a bool": (bool, "value"),
    "an optional int": (int | None, "value"),
    "texts": (list[str], "value"),
    "a bounded list": (Annotated[list[int], Field(min_length=1)], "value"),
    "a mapping type": (dict[str, int], "value"),
    "a list of models": (list[Item], "records"),
    "a list with one model": ([Item], "records"),
    "an iterable of models": (Iterable[Item], "records"),
    "a bounded list of models": (Annotated[list[Item], Field(min_length=2)], "records"),
    "a list of dataclasses": (list[Person], "records"),
    "a list with a mapping": ([{"a": int}], "records"),
    "a root of a list": (Items, "records"),
    "a root of a model": (OneItem, "record"),
    "a root of a mapping": (Counts, "value"),
    "a dataclass": (Family, "record"),
    "a typed dict": (Place, "record"),
    "a named tuple": (Point, "record"),
    "names and types": ({"a": int, "b": (str, "what"), "c": "where it is", "d": ["x", "y"], "e": {"f": bool}, "g": Family}, "record"),
    "odd names": (dict.fromkeys(ODD, str), "record"),
    "a JSON schema": (ORDER, "record"),
    "OpenAI's form": ({"type": "json_schema", "json_schema": {"name": "my order", "strict": True, "schema": ORDER}}, "record"),
    "a JSON array": ({"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}}, "records"),
    "a JSON enum": ({"enum": ["a", "b"]}, "value"),
    "a JSON map": ({"type": "object", "additionalProperties": {"type": "integer"}}, "value"),
    "a JSON reference": ({"$ref": "#/$defs/A", "$defs": {"A": {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}}}}, "record"),
}


def carried_out(source: str) -> dict[str, Any]:
    """The module, without this one's ``from __future__``."""
    module: dict[str, Any] = {}
    exec(compile(source, "schema", "exec", dont_inherit=True), module)
    return module


@pytest.mark.parametrize("name", GIVEN)
def test_every_form_becomes_fields_of_its_kind(name: str) -> None:
    given, kind = GIVEN[name]
    fields = fields_of(given)
    assert fields.kind == kind
    assert fields.json_schema["type"] == "object"
    assert fields.json_schema["properties"]
    assert (fields.record is None) == (kind == "value")
    assert set(fields.json_schema["properties"]) == {fields.inner} if fields.inner else True


@pytest.mark.parametrize("name", GIVEN)
def test_the_source_carried_out_gives_the_same_schema(name: str) -> None:
    fields = fields_of(GIVEN[name][0])
    module = carried_out(fields.source)
    again = fields_of(module[fields.defined_as])
    assert (again.json_schema, again.kind, again.about) == (fields.json_schema, fields.kind, fields.about)


def test_fields_are_fields_already() -> None:
    fields = fields_of(Item)
    assert fields_of(fields) is fields


def sent(given: Any) -> dict[str, Any]:
    return fields_of(given).json_schema


def test_descriptions_are_sent_and_titles_are_not() -> None:
    class Titled(BaseModel):
        """What it is."""

        title: str = Field(title="A title", description="a field of that name")
        held: dict[str, Any] = {"title": "a value"}

    schema = fields_of(Titled).schema("tools")
    assert schema.description == "What it is."
    assert schema.mode == "tools"
    assert schema.schema == {
        "properties": {
            "title": {"description": "a field of that name", "type": "string"},
            "held": {"additionalProperties": True, "default": {"title": "a value"}, "type": "object"},
        },
        "required": ["title"],
        "type": "object",
    }


def test_choices_are_written_where_they_stand_and_recursion_has_a_name() -> None:
    class Tree(BaseModel):
        colour: Colour
        parts: list[Tree]

    Tree.model_rebuild(_types_namespace={"Tree": Tree, "Colour": Colour})
    schema = sent(Tree)
    assert schema["properties"]["colour"] == {"enum": ["red", "green"], "type": "string"}
    assert set(schema["$defs"]) == {"Tree"}
    assert "$ref" not in schema


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("str", {"type": "string"}),
        ("integer", {"type": "integer"}),
        ("date", {"type": "string", "format": "date"}),
        ("list[float]", {"type": "array", "items": {"type": "number"}}),
        ("how it felt", {"type": "string", "description": "how it felt"}),
        (("bool", "whether"), {"type": "boolean", "description": "whether"}),
        ((str, Field(min_length=3)), {"type": "string", "minLength": 3}),
        (Annotated[int, "in years"], {"type": "integer", "description": "in years"}),
        (["good", "bad"], {"type": "string", "enum": ["good", "bad"]}),
        ({"type": "integer", "minimum": 3}, {"type": "integer", "minimum": 3}),
        (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None}),
    ],
)
def test_a_mapping_says_what_a_field_is_in_many_ways(said: Any, expected: dict[str, Any]) -> None:
    assert sent({"field": said})["properties"]["field"] == expected


def test_a_mapping_with_a_field_called_type_is_no_json_schema() -> None:
    assert set(sent({"type": "kind of thing", "name": "str"})["properties"]) == {"type", "name"}
    assert set(sent({"type": ["a", "b"], "enum": "of which"})["properties"]) == {"type", "enum"}
    assert set(sent({"properties": "what it has"})["properties"]) == {"properties"}


def test_odd_names_are_read_back_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fields = fields_of(dict.fromkeys(ODD, str))
    assert list(fields.json_schema["properties"]) == ODD
    assert list(fields.checked(json.dumps(dict.fromkeys(ODD, "x"))).data.values()) == ["x"] * len(ODD)


def test_a_field_that_may_be_null_may_be_left_out() -> None:
    assert fields_of({"a": int, "b": str | None}).checked('{"a": 1}').data == {"a": 1, "b": None}


def test_a_json_schema_is_held_to() -> None:
    fields = fields_of(ORDER)
    assert fields.name == "OrderForm"
    right = {
        "id": "12345678-1234-5678-1234-567812345678",
        "count": 4,
        "kind": "a",
        "address": {"street": "x"},
        "tree": {"v": 1, "kids": []},
    }
    data = fields.checked(json.dumps(right | {"nest": [[], [[]]], "lines": [{"sku": "A"}]})).data
    assert data["day"] == dt.date(2020, 1, 2)
    assert data["lines"] == [{"sku": "A", "n": 1}]
    assert data["nest"] == [[], [[]]]
    for wrong in (
        {"count": 3}, {"count": 10}, {"kind": "c"}, {"version": 4}, {"tags": []}, {"share": 0.1}, {"lines": [{"sku": "a"}]},
        {"lines": [{"sku": "A", "more": 1}]}, {"counts": {"a": "b"}}, {"id": "x"}, {"when": "soon"}, {"tree": {"v": 1}}, {"address": {}},
        {"nest": [1]}, {"all": {"street": "x"}}, {"address": {"street": "x", "country": "it"}},
    ):  # fmt: skip
        with pytest.raises((ValidationError, Invalid)):
            fields.checked(json.dumps(right | wrong))


def of(**field: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"answer": field}}


@pytest.mark.parametrize(
    ("field", "keyword"),
    [
        ({"if": {}}, "if"),
        ({"not": {}}, "not"),
        ({"patternProperties": {}}, "patternProperties"),
        ({"type": "object", "properties": {"in": {"contains": 3}}}, "answer.in: contains"),
        ({"type": "what"}, "type"),
        ({"type": "string", "pattern": "(?=a)"}, "pattern"),
        ({"type": "string", "minimum": 3}, "minimum"),
        ({"type": "string", "minLength": "3"}, "minLength"),
        ({"type": "integer", "minimum": 0.5}, "answer"),
        ({"enum": []}, "enum"),
        ({"enum": [{}]}, "choice"),
        ({"type": "string", "enum": [3]}, "type"),
        ({"$ref": "#/$defs/nowhere"}, "nowhere"),
        ({"$ref": "http://elsewhere"}, "elsewhere"),
        ({"$ref": "#/properties/answer"}, "answer"),
        ({"type": "array", "items": [{}]}, "items"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"anyOf": []}, "choose"),
        ({"anyOf": [{"type": "string"}], "minLength": 3}, "minLength"),
        ({"type": "object", "properties": {"a": {}}, "additionalProperties": {"type": "string"}}, "additionalProperties"),
        ({"type": "object", "properties": {"a": {}}, "required": ["b"]}, "'b'"),
    ],
)
def test_a_keyword_that_cannot_be_checked_is_named_with_its_field(field: dict[str, Any], keyword: str) -> None:
    with pytest.raises(BadInput, match="answer") as raised:
        fields_of(of(**field))
    assert keyword in raised.value.message


class Opaque:
    pass


class Empty(BaseModel):
    pass


class Calls(BaseModel):
    function: Callable[[int], int]


class CallsInside(BaseModel):
    calls: Calls | None


class Arbitrary(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    opaque: Opaque


class Twice(BaseModel):
    a: int = Field(alias="same")
    b: int = Field(alias="same")


class Reaching(BaseModel):
    a: int = Field(validation_alias=AliasPath("x", "y"))


class ReachingFurther(BaseModel):
    a: int = Field(validation_alias=AliasChoices(AliasPath("x", "y"), AliasPath("z", 0)))


@dataclasses.dataclass
class Late:
    late: NeverDefined  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "no fields"),
        (Empty, "Empty has no fields"),
        ({"type": "object"}, "no fields"),
        ({"a": {}}, "no fields"),
        ({"a": ()}, "field a"),
        ({"a": (str,)}, "field a"),
        ({"a": (str, "")}, "field a"),
        ({"a": (str, None)}, "field a"),
        ({"a": (str, "b", "c")}, "field a"),
        ({"a": " "}, "field a"),
        ({"a": []}, "field a"),
        ({"a": ["x", "x"]}, "field a"),
        ({"a": 5}, "field a"),
        ({"a": None}, "field a"),
        ({"a": {"b": ()}}, "field a.b"),
        ({"a": Opaque}, "field a"),
        ({"a": Callable[[int], int]}, ": a"),
        ({1: str}, "not 1"),
        ({" ": str}, "' '"),
        (Calls, ": function"),
        (CallsInside, "calls.function"),
        (Arbitrary, "opaque"),
        (Twice, "two fields 'same'"),
        (Reaching, "field a"),
        (ReachingFurther, "field a"),
        (Late, "NeverDefined"),
        ("the city", "not a text"),
        (None, "not None"),
        (5, "not 5"),
        (Opaque(), "not Opaque"),
        (Item(sku="a secret"), "the class Item, not an instance of it"),
        (pd.DataFrame({"text": ["a secret"]}), "not DataFrame"),
        ({"a": pd.Series(["a secret"])}, "not Series"),
        ({"a": np.int64}, "say str, int"),
        ({"a": "Literal['x', 'y']"}, "field a"),
        ({"a": "Item | None"}, "field a"),
        ({"a": "list[Item]"}, "field a"),
        ({"a": "dict"}, "field a"),
        (Calls(function=abs), "the class Calls"),
        (["a", "b"], "Literal"),
        ([], "list"),
        (list[Opaque], "Opaque"),
        ({"type": "json_schema", "json_schema": {"name": "x"}}, "OpenAI"),
    ],
)
def test_what_is_no_schema_is_refused_by_name(given: Any, said: str) -> None:
    with pytest.raises(BadInput) as raised:
        fields_of(given)
    assert said in raised.value.message
    assert "secret" not in raised.value.message


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("int", int),
        ("Int64", int),
        ("float64", float),
        ("datetime64[ns]", dt.datetime),
        ("list[int]", list[int]),
        ("int | None", int | None),
        ("Optional[int]", int | None),
        ("list[str] | None", list[str] | None),
    ],
)
def test_a_type_may_be_given_by_its_name(name: str, kind: Any) -> None:
    assert sent({"a": name}) == sent({"a": kind})
    assert sent({"a": (name, "about")}) == sent({"a": (kind, "about")})


@pytest.mark.parametrize("words", ["the list [of all] parts", "none or one", "City", "price in $ [0-9]", "yes | no", "category"])
def test_any_other_words_of_a_field_describe_it(words: str) -> None:
    assert sent({"a": words}) == sent({"a": (str, words)})


def test_classes_of_a_function_are_found_where_the_call_came_from() -> None:
    @dataclasses.dataclass
    class Outer:
        inner: Inner
        note: Optional[str] = None  # noqa: UP045

    @dataclasses.dataclass
    class Inner:
        outer: Outer | None

    class Model(BaseModel):
        inner: LateModel

    class LateModel(BaseModel):
        value: int

    assert fields_of(Outer).checked('{"inner": {"outer": null}}').data == {"inner": {"outer": None}, "note": None}
    assert fields_of(Model).checked('{"inner": {"value": 1}}').data == {"inner": {"value": 1}}


def test_a_dataclass_checks_itself() -> None:
    @dataclasses.dataclass
    class Positive:
        value: int

        def __post_init__(self) -> None:
            if self.value < 0:
                raise ValueError("below zero")

    fields = fields_of(Positive)
    assert fields.runs_code
    assert fields.checked('{"value": 1}').data == {"value": 1}
    with pytest.raises(ValidationError, match="below zero"):
        fields.checked('{"value": -1}')


def test_validators_of_a_model_are_run_and_known() -> None:
    class Even(BaseModel):
        value: int

        @field_validator("value")
        @classmethod
        def even(cls, value: int) -> int:
            if value % 2:
                raise ValueError("odd")
            return value

    assert fields_of(Even).runs_code
    assert not fields_of(Item).runs_code
    with pytest.raises(ValidationError, match="odd"):
        fields_of(Even).checked('{"value": 1}')


def test_numbers_are_read_from_texts_and_texts_never_from_numbers() -> None:
    assert fields_of({"n": int}).checked('{"n": "5"}').data == {"n": 5}
    with pytest.raises(ValidationError):
        fields_of({"n": str}).checked('{"n": 5}')


def test_two_classes_of_one_name_stay_two() -> None:
    def one() -> Any:
        @dataclasses.dataclass
        class Part:
            a: int

        return Part

    def other() -> Any:
        @dataclasses.dataclass
        class Part:
            b: str

        return Part

    schema = sent({"one": one(), "other": other()})
    assert set(schema["$defs"]) == {"Part", "Part2"}


def test_names_suit_every_vendor() -> None:
    assert fields_of(Box[int]).name == "Box_int"
    assert fields_of({"type": "json_schema", "json_schema": {"name": "my order!", "schema": ORDER}}).name == "my_order"


def test_five_hundred_fields_take_no_time() -> None:
    began = time.process_time()
    fields = fields_of({f"field_{number}": (int | None, "a number") for number in range(500)})
    assert time.process_time() - began < 1  # 0.1 s on the slowest machine that was tried
    assert len(fields.json_schema["properties"]) == 500


HOSTILE = ['"""', "'''", '"); import os #', "\\", "\n    import os\n", "\r", "\x00", "{", "\u202etxt", '""" + str(1/0) + """']


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_of_a_schema_becomes_code(text: str) -> None:
    choice = text.strip() or "x"
    given = {
        "type": "object",
        "description": f"about {text}",
        "properties": {
            f"name {text}": {"type": "string", "description": text},
            "choice": {"enum": [choice, "other"]},
            "given": {"type": "string", "default": text},
            "inner": {"type": "object", "description": text, "properties": {"a": {"type": "string", "examples": [text]}}},
        },
    }
    fields: Fields = fields_of(given)
    source = fields.source
    module = carried_out(source)
    assert fields_of(module[fields.defined_as]).json_schema == fields.json_schema
    assert not {name for name in module if not name.startswith("__")} - {
        "Annotated",
        "Any",
        "Literal",
        "BaseModel",
        "ConfigDict",
        "Field",
        "Inner",
        "Answer",
    }
