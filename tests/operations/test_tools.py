"""Functions as tools: what the model is told of them, and what it is told when it calls them."""

from __future__ import annotations

import dataclasses
import datetime
import functools
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, Literal

import numpy as np
import orjson
import pytest
from pydantic import BaseModel, Field

from llmkit.errors import BadInput, BadOutput, LLMError
from llmkit.operations.chat import ChatPayload, Message, Said, Text, ToolCall, ToolResult
from llmkit.operations.tools import TOOLS, Function, functions, tools_that_run, with_tools
from llmkit.types import Reply, Request, Usage


def add(a: int, b: int = 2) -> int:
    """Add two numbers.

    The rest of the docstring is for people.
    """
    return a + b


class Weather(BaseModel):
    """Tells the weather."""

    city: str
    day: Literal["today", "tomorrow"] = "today"


ADD = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


# ------------------------------------------------------------------------------------------------------ what the model is told


def test_a_functions_signature_is_its_schema() -> None:
    tool = Function(add).tool
    assert (tool.name, tool.description) == ("add", "Add two numbers.")
    assert tool.parameters == {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer", "default": 2}},
        "required": ["a"],
        "additionalProperties": False,
    }


def test_a_pydantic_model_is_a_tool_without_a_function() -> None:
    function = Function(Weather)
    assert (function.tool.name, function.tool.description, function.runs) == ("Weather", "Tells the weather.", False)
    assert function.tool.parameters["properties"]["day"] == {"default": "today", "enum": ["today", "tomorrow"], "type": "string"}


@pytest.mark.parametrize(
    "given",
    [
        {"name": "add", "description": "Adds", "parameters": ADD},
        {"type": "function", "function": {"name": "add", "description": "Adds", "parameters": ADD}},
        {"name": "add", "description": "Adds", "input_schema": ADD},
    ],
)
def test_a_schema_is_read_in_each_vendors_form(given: dict[str, Any]) -> None:
    tool = Function(given).tool
    assert (tool.name, tool.description, tool.parameters) == ("add", "Adds", ADD)


def test_a_schema_without_arguments_is_a_tool_without_arguments() -> None:
    assert Function({"name": "now"}).tool.parameters == {"type": "object", "properties": {}}


def test_an_argument_called_title_is_not_taken_for_pydantics_title() -> None:
    def book(title: str) -> str:
        return title

    assert list(Function(book).tool.parameters["properties"]) == ["title"]


@pytest.mark.parametrize("name", ["copy", "json", "schema", "model_name", "validate"])
def test_an_argument_may_be_called_like_a_method_of_pydantic(name: str) -> None:
    space: dict[str, Any] = {}
    exec(f"def tool({name}: int) -> int: return {name} + 1", space)
    function = Function(space["tool"])
    assert list(function.tool.parameters["properties"]) == [name]
    assert function.run(f'{{"{name}": 1}}') == "2"


def positional(a: int, /) -> int:
    return a


def anything(*a: int) -> int:
    return sum(a)


def named(**a: int) -> int:
    return sum(a.values())


def opaque(a: np.ndarray) -> None:
    """Takes what has no schema."""


def unread(a: "NoSuchType") -> None:  # type: ignore[name-defined]  # noqa: F821, UP037
    """Has an annotation that means nothing."""


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (lambda a: a, "wrap a lambda"),
        (functools.partial(add, 1), "wrap a lambda or a partial"),
        (positional, "arguments that have names"),
        (anything, "arguments that have names"),
        (named, "arguments that have names"),
        (opaque, "no JSON schema"),
        (unread, "annotation that cannot be read"),
        ("add", "not str"),
        (17, "not int"),
        ({}, "is written like"),
        ({"description": "nameless"}, "is written like"),
        ({"name": "add", "parameters": "a, b"}, "is written like"),
        ([add, add], "two tools are named 'add'"),
        ([add, {"name": "add"}], "two tools are named 'add'"),
    ],
)
def test_what_cannot_be_a_tool_is_told(given: Any, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        functions(given)


def test_one_tool_needs_no_list() -> None:
    assert [one.tool.name for one in functions(add)] == ["add"]


# ---------------------------------------------------------------------------------------------------------- what a call gives


@dataclasses.dataclass
class Point:
    x: int


@pytest.mark.parametrize(
    ("result", "told"),
    [
        ("text as it is", "text as it is"),
        (3, "3"),
        (None, "null"),
        ({"a": [1, 2.5, True]}, '{"a":[1,2.5,true]}'),
        (np.float64(0.5), "0.5"),
        (np.array([1, 2]), "[1,2]"),
        (datetime.date(2026, 11, 21), '"2026-11-21"'),
        (Point(1), '{"x":1}'),
        ({1: "one"}, '{"1":"one"}'),
        (2**70, str(2**70)),
    ],
)
def test_a_result_is_told_as_json(result: Any, told: str) -> None:
    def tool() -> Any:
        return result

    assert Function(tool).run("{}") == told


def test_arguments_arrive_with_the_types_of_the_annotations() -> None:
    seen = []

    def tool(day: datetime.date, weather: Weather, how: Annotated[int, Field(le=3)] = 1) -> None:
        seen.append((day, weather, how))

    Function(tool).run('{"day": "2026-11-21", "weather": {"city": "Kiel"}}')
    assert seen == [(datetime.date(2026, 11, 21), Weather(city="Kiel"), 1)]


@pytest.mark.parametrize("arguments", ['{"a": "many"}', "{}", '{"a": 1, "c": 2}', "no JSON", '["a"]', ""])
def test_wrong_arguments_are_told_to_the_model_and_the_function_is_not_called(arguments: str) -> None:
    called = []

    def tool(a: int) -> None:
        called.append(a)

    assert Function(tool).run(arguments).startswith("The arguments are wrong: ")
    assert called == []


def test_what_is_told_of_wrong_arguments_names_them() -> None:
    assert Function(add).run('{"a": "many"}') == (
        "The arguments are wrong: a: Input should be a valid integer, unable to parse string as an integer"
    )


def test_what_a_function_raises_is_told_to_the_model() -> None:
    def tool() -> None:
        raise LookupError("no such city")

    assert Function(tool).run("{}") == "LookupError: no such city"


# ---------------------------------------------------------------------------------------------------- what becomes of a reply


def request(*messages: Message, choice: str = "") -> Request:
    told = with_tools([add], None, None)[1]["tools"]
    return Request("chat", ChatPayload(messages or (Message("user", "Add"),), told, choice), {"seed": 1})


def said(*calls: tuple[str, str], text: str = "") -> Reply:
    return Reply(Said(text, tuple(ToolCall(f"id{number}", *call) for number, call in enumerate(calls))), Usage(3, 0, 2, 1), finish="stop")


def read(asked: Request, reply: Reply, max_rounds: int | None = None, tools: Any = (add,)) -> Reply | LLMError | Request:
    operation = with_tools(list(tools), None, max_rounds)[0]
    assert operation.read is not None
    return operation.read(asked, reply)


def test_calls_become_names_and_arguments() -> None:
    found = read(request(), said(("add", '{"a": 1}'), ("add", '{"a": 2}')))
    assert isinstance(found, Reply)
    assert found.value == [{"name": "add", "arguments": {"a": 1}}, {"name": "add", "arguments": {"a": 2}}]


def test_an_answer_without_calls_is_its_text() -> None:
    found = read(request(), said(text="No need."))
    assert isinstance(found, Reply)
    assert (found.value, found.finish, found.usage) == ("No need.", "stop", Usage(3, 0, 2, 1))


def test_arguments_that_are_no_json_fail_the_row() -> None:
    found = read(request(), said(("add", "{'a': 1}")))
    assert isinstance(found, BadOutput)
    assert found.kind == "bad_arguments"
    assert "'a'" not in str(found)


def test_calls_and_text_come_back_from_the_store_as_they_went_in() -> None:
    for value in ("text", [{"name": "add", "arguments": {"a": 1}}], []):
        assert TOOLS.unpack(TOOLS.pack(value)) == value


def test_the_next_round_holds_the_calls_and_their_results() -> None:
    asked = request()
    found = read(asked, said(("add", '{"a": 1}'), ("sub", "{}"), text="Let me see."), 5)
    assert isinstance(found, Request)
    *before, spoken, results = found.payload.messages
    first, second = ToolCall("id0", "add", '{"a": 1}'), ToolCall("id1", "sub", "{}")
    assert tuple(before) == asked.payload.messages
    assert spoken == Message("assistant", (Text("Let me see."), first, second))
    assert results == Message("tool", (ToolResult(first, "3"), ToolResult(second, "There is no function sub; there is add.")))
    assert (found.options, found.payload.tools) == (asked.options, asked.payload.tools)


@pytest.mark.parametrize(("choice", "then"), [("", ""), ("auto", "auto"), ("none", "none"), ("required", "auto"), ("add", "auto")])
def test_a_call_that_was_demanded_is_demanded_once(choice: str, then: str) -> None:
    found = read(request(choice=choice), said(("add", '{"a": 1}')), 5)
    assert isinstance(found, Request)
    assert found.payload.tool_choice == then


@pytest.mark.parametrize("rounds", [1, 3])
def test_rounds_have_an_end(rounds: int) -> None:
    asked, gone = request(), 0
    while isinstance(found := read(asked, said(("add", '{"a": 1}')), rounds), Request):
        asked, gone = found, gone + 1
    assert gone == rounds
    assert isinstance(found, BadOutput)
    assert found.kind == "rounds"
    assert "max_rounds" in str(found)


# ------------------------------------------------------------------------------------------------------------- the arguments


async def later(a: int) -> int:
    """Is awaited."""
    return a


async def bit_by_bit(a: int) -> AsyncIterator[int]:
    yield a


class Caller:
    async def method(self, a: int) -> int:
        return a


@pytest.mark.parametrize("function", [later, bit_by_bit, Caller().method])
def test_an_async_function_is_not_carried_out_and_says_why(function: Callable[..., Any]) -> None:
    with pytest.raises(BadInput, match="is async, and run_tools calls functions in threads"):
        with_tools([add, function], None, 5)
    assert with_tools([function], None, None)[0] is TOOLS


@pytest.mark.parametrize("given", [Weather, {"name": "weather"}])
def test_a_schema_cannot_be_carried_out(given: Any) -> None:
    with pytest.raises(BadInput, match="a schema alone cannot be carried out"):
        with_tools([add, given], None, 5)


@pytest.mark.parametrize("choice", ["auto", "required", "none", "add", None])
def test_a_choice_is_told_as_it_is(choice: str | None) -> None:
    assert with_tools(add, choice, None)[1]["tool_choice"] == (choice or "")


@pytest.mark.parametrize("choice", ["any", "sub", ""])
def test_a_choice_that_there_is_not_is_refused(choice: str) -> None:
    with pytest.raises(BadInput, match="tool_choice is"):
        with_tools(add, choice, None)


def test_only_what_runs_functions_may_take_long() -> None:
    assert not TOOLS.blocking
    assert tools_that_run(functions(add), 5).blocking


def test_what_runs_its_tools_is_kept_apart_from_what_hands_them_back() -> None:
    names = {with_tools(add, None, rounds)[0].name for rounds in (None, 5)}
    assert len(names) == 2
    assert orjson.loads(tools_that_run(functions(add), 5).pack("text")) == "text"
