"""tools: a chat in which the model may ask for functions; the calls come back, or are carried out and answered.

The request is a chat's; what differs is what becomes of the reply.
"""

from __future__ import annotations

import hashlib
import inspect
import typing
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from ..errors import BadInput, BadOutput, LLMError
from ..types import Operation, Reply, Request
from .chat import CHAT, ChatPayload, Message, Part, Said, Text, Tool, ToolCall, ToolResult

__all__ = ["TOOLS", "Function", "functions", "tools_that_run", "with_tools"]


class Function:
    """A Python function, or a schema alone, as a tool.

    Attributes
    ----------
    tool : Tool
        What the model is told: name, description (the docstring's first paragraph), JSON schema of the arguments.
    runs : bool
        Whether there is a function behind the schema.
    """

    def __init__(self, given: Any) -> None:
        self._function: Callable[..., Any] | None = None
        self._arguments: type[BaseModel] | None = None
        if isinstance(given, Mapping):
            self.tool = _from_schema(given)
        elif isinstance(given, type) and issubclass(given, BaseModel):
            self.tool = Tool(given.__name__, inspect.cleandoc(given.__doc__ or ""), _plain(given.model_json_schema()))
        elif callable(given):
            name = getattr(given, "__name__", "")
            if not name.isidentifier():
                raise BadInput("a tool is a function with a name; wrap a lambda or a partial in a def")
            self._function, self._arguments = given, _arguments_of(given, name)
            about = inspect.cleandoc(given.__doc__ or "").partition("\n\n")[0]
            self.tool = Tool(name, about, _plain(self._arguments.model_json_schema()))
        else:
            raise BadInput(f"a tool is a function, a pydantic model or a JSON schema with a name, not {type(given).__name__}")

    @property
    def runs(self) -> bool:
        return self._function is not None

    @property
    def waits(self) -> bool:
        """Whether it is to be awaited."""
        return inspect.iscoroutinefunction(self._function) or inspect.isasyncgenfunction(self._function)

    def run(self, arguments: str) -> str:
        """What the function gives for the JSON that the model wrote, as text; a fault is told to the model, which may mend it."""
        assert self._function is not None and self._arguments is not None
        try:
            checked = self._arguments.model_validate_json(arguments)
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors(include_input=False))
            return f"The arguments are wrong: {wrong}"
        try:
            result = self._function(**{name: getattr(checked, name) for name in type(checked).model_fields})
            return result if isinstance(result, str) else _as_json(result)
        except (Exception, SystemExit) as error:  # the user's own function: whatever it raises is an answer to the model
            return f"{type(error).__name__}: {error}"

    @property
    def mark(self) -> str:
        """Tells one body of a function from another, as far as its own code goes."""
        code = getattr(inspect.unwrap(self._function), "__code__", None) if self._function is not None else None
        return "" if code is None else hashlib.blake2b(code.co_code + repr(code.co_consts).encode(), digest_size=8).hexdigest()


def functions(given: Any) -> tuple[Function, ...]:
    """The tools of a ``tools=`` argument.

    Raises
    ------
    BadInput
        Something that is no tool, or two of one name.
    """
    found = tuple(Function(one) for one in (given if isinstance(given, list | tuple) else [given]))
    names = [function.tool.name for function in found]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise BadInput(f"two tools are named {twice[0]!r}")
    return found


def _from_schema(given: Mapping[str, Any]) -> Tool:
    """OpenAI's ``{"type": "function", "function": {...}}``, its inside, or Anthropic's ``input_schema``."""
    inner = given.get("function", given)
    schema = inner.get("parameters") or inner.get("input_schema") or {"type": "object", "properties": {}}
    if not isinstance(inner.get("name"), str) or not isinstance(schema, Mapping):
        raise BadInput('a tool\'s schema is written like {"name": "add", "description": "...", "parameters": {"type": "object", ...}}')
    return Tool(inner["name"], str(inner.get("description") or ""), dict(schema))


def _arguments_of(function: Callable[..., Any], name: str) -> type[BaseModel]:
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError) as error:
        raise BadInput(f"the tool {name} has an annotation that cannot be read ({error})") from None
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise BadInput(f"the tool {name} takes {parameter}; a model can only fill in arguments that have names")
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (hints.get(parameter.name, Any), default)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # an argument may be called "copy" or "json", as pydantic's own methods are
            return create_model(name, __config__=ConfigDict(extra="forbid", arbitrary_types_allowed=False), **fields)
    except Exception as error:  # pydantic has several, and each says what it cannot describe
        raise BadInput(f"the arguments of the tool {name} have no JSON schema ({str(error).splitlines()[0]})") from None


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema without pydantic's titles, which cost tokens and say nothing."""
    return {name: _untitled(value) for name, value in schema.items() if name not in ("title", "description")}


def _untitled(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _untitled(item) for name, item in value.items() if not (name == "title" and isinstance(item, str))}
    return [_untitled(item) for item in value] if isinstance(value, list) else value


def _as_json(result: Any) -> str:
    try:
        return orjson.dumps(result, default=str, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:
        return str(result)


# --------------------------------------------------------------------------------------------------------------- operations


def _read_calls(request: Request, reply: Reply) -> Reply | LLMError:
    said = reply.value
    assert isinstance(said, Said)
    if not said.calls:
        return replace(reply, value=said.text)
    calls = []
    for call in said.calls:
        try:
            arguments = orjson.loads(call.arguments)
        except orjson.JSONDecodeError:
            return BadOutput(f"the model called {call.name} with arguments that are no JSON", kind="bad_arguments")
        calls.append({"name": call.name, "arguments": arguments})
    return replace(reply, value=calls)


#: One row becomes the list of the calls that the model asks for, ``{"name": ..., "arguments": {...}}``, or its text where it asks for none.
TOOLS = Operation(
    name="tools",
    tasks=CHAT.tasks,
    kind="object",
    pack=orjson.dumps,
    unpack=orjson.loads,
    wire="chat",
    read=_read_calls,
)


def tools_that_run(given: Sequence[Function], max_rounds: int) -> Operation:
    """One row becomes the text that the model writes once its calls are answered.

    Parameters
    ----------
    given : sequence of Function
        All with a function behind them.
    max_rounds : int
        Most times that calls are answered; a model that then still calls fails the row.
    """
    return replace(
        CHAT,
        name="run_tools",
        wire="chat",
        mark="+".join(one.mark for one in given),
        read=partial(_answer_calls, {one.tool.name: one for one in given}, max_rounds),
        blocking=True,
    )


def _answer_calls(known: Mapping[str, Function], max_rounds: int, request: Request, reply: Reply) -> Reply | LLMError | Request:
    said, payload = reply.value, request.payload
    assert isinstance(said, Said) and isinstance(payload, ChatPayload)
    if not said.calls:
        return replace(reply, value=said.text)
    rounds = sum(message.role == "tool" for message in payload.messages)
    if rounds >= max_rounds:
        return BadOutput(f"the model still calls functions after {max_rounds} rounds; raise max_rounds", kind="rounds")
    spoken: tuple[Part, ...] = (*((Text(said.text),) if said.text else ()), *said.calls)
    results = tuple(ToolResult(call, _result(known, call)) for call in said.calls)
    messages = (*payload.messages, Message("assistant", spoken), Message("tool", results))
    # A call that was demanded is demanded once, or it would be demanded for ever.
    demanded = payload.tool_choice if payload.tool_choice in ("", "auto", "none") else "auto"
    return Request(request.operation, replace(payload, messages=messages, tool_choice=demanded), request.options)


def _result(known: Mapping[str, Function], call: ToolCall) -> str:
    function = known.get(call.name)
    return function.run(call.arguments) if function is not None else f"There is no function {call.name}; there is {', '.join(known)}."


def with_tools(tools: Any, tool_choice: str | None, max_rounds: int | None) -> tuple[Operation, dict[str, Any]]:
    """The operation for a ``tools=`` argument, and what its requests say of them; ``max_rounds`` ``None`` hands the calls back.

    Raises
    ------
    BadInput
        Something that is no tool, two of one name, a schema that should run, or a choice that there is not.
    """
    given = functions(tools)
    names = [one.tool.name for one in given]
    if max_rounds is not None and not all(one.runs for one in given):
        raise BadInput("run_tools needs Python functions: a schema alone cannot be carried out")
    waits = [one.tool.name for one in given if one.waits]
    if max_rounds is not None and waits:
        # They run in threads, and what a coroutine holds (clients, locks) belongs to the loop that it was made for.
        raise BadInput(f"{waits[0]} is async, and run_tools calls functions in threads; give a plain function")
    if tool_choice is not None and tool_choice not in ("auto", "required", "none", *names):
        raise BadInput(f'tool_choice is "auto", "required", "none" or one of {names}, not {tool_choice!r}')
    operation = TOOLS if max_rounds is None else tools_that_run(given, max_rounds)
    return operation, {"tools": tuple(one.tool for one in given), "tool_choice": tool_choice or ""}
