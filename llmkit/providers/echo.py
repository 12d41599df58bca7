"""A stand-in for a chat model: offline, free, deterministic, and marked as an echo in every answer.

``echo/echo`` lets a pipeline be tried before it costs anything. It understands nothing: plain questions come back behind a mark, and
a question with a JSON schema is answered with the smallest reasonable JSON that is valid for that schema, its strings marked where
the schema leaves room for it. Numbers and choices cannot carry a mark; they are the first that the schema allows. A tool is called where
one has to be, with arguments made in the same way, and never otherwise.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any
from urllib.parse import unquote

import orjson

from ..adapter import Adapter, Codec, Target, to_json
from ..errors import LLMError, ServerFault
from ..operations.chat import ChatPayload, Image, Message, Part, Said, Schema, Scored, Text, ToolCall
from ..types import Limits, Model, Price, Provider, Reply, Request, Usage
from .bodies import answering, calls, data_url, form_of, function, tool_results
from .dialects import asked, modes

__all__ = ["MARK", "MODELS", "PROVIDER", "adapter", "instance"]

PROVIDER = Provider(name="echo", base_url="echo:", protocol="echo", key_optional=True, quirks={"schemas": "whole"})
MODELS = (Model("echo", "echo", operations=("chat",), price=Price(0.0, 0.0, 0.0)),)

#: Stands in front of every plain answer.
MARK = "[echo, not a model]"

LONGEST_ECHO = 200


# ----------------------------------------------------------------------------------------------------------------- answers


def answer(body: bytes, target: Target) -> dict[str, Any]:
    """What the echo says to a chat body."""
    asked = orjson.loads(body)
    messages = asked.get("messages") or []
    limit = asked.get("max_completion_tokens") or asked.get("max_tokens")
    form = asked.get("response_format")
    kind = form.get("type") if isinstance(form, dict) else None
    called = _demanded(asked.get("tools") or [], asked.get("tool_choice"))
    if called:
        text, finish = "", "tool_calls"
    elif kind == "json_schema":
        wrapped = form.get("json_schema")
        schema = wrapped.get("schema", {}) if isinstance(wrapped, dict) else {}
        text, finish = _cut(orjson.dumps(instance(schema)).decode(), limit, kept=0)
    elif kind == "json_object":
        text, finish = _cut(orjson.dumps({"echo": _plain(messages)}).decode(), limit, kept=0)
    else:
        # The mark outlives any limit: an answer without it could be taken for a model's.
        text, finish = _cut(_plain(messages), limit, kept=len(MARK.split()))
    return {
        "model": target.model.name,
        "text": text,
        "calls": called,
        "finish": finish,
        "input": sum(len(_text(message).split()) for message in messages),
        "output": len(text.split()) + sum(len(call["function"]["arguments"].split()) for call in called),
    }


def _demanded(tools: Sequence[Mapping[str, Any]], choice: Any) -> list[dict[str, Any]]:
    """The call of a tool that has to be called; no call where it is left to the model."""
    wanted = choice["function"]["name"] if isinstance(choice, dict) else None
    fitting = [tool["function"] for tool in tools if choice == "required" or tool["function"]["name"] == wanted]
    return [
        {"id": f"echo_{tool['name']}", "function": {"name": tool["name"], "arguments": orjson.dumps(instance(tool["parameters"])).decode()}}
        for tool in fitting[:1]
    ]


def _plain(messages: Sequence[Mapping[str, Any]]) -> str:
    said = next((message for message in reversed(messages) if message.get("role") == "user"), messages[-1] if messages else {})
    folded = " ".join(_text(said).split())
    if len(folded) > LONGEST_ECHO:
        folded = folded[:LONGEST_ECHO] + "…"
    return f"{MARK} {folded}".rstrip()


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return " ".join(part["text"] if isinstance(part.get("text"), str) else f"<{part.get('type', 'part')}>" for part in content)
    return content if isinstance(content, str) else ""


def _cut(text: str, limit: Any, kept: int) -> tuple[str, str]:
    """The first ``limit`` words, and why it ends there."""
    spoken = text.split()
    if not isinstance(limit, int) or len(spoken) <= max(limit, kept):
        # The mark alone, of a question that had no words left, is whole and not cut.
        return text, "stop"
    return " ".join(spoken[: max(limit, kept)]), "length"


# ---------------------------------------------------------------------------------------------------- JSON for a schema


class _Unmet(Exception):
    """No value for this schema (yet): it contradicts itself, or leads back to where it began."""


def instance(schema: Any) -> Any:
    """A value that is valid for a JSON schema, the same for the same schema.

    Objects get all their properties, arrays at least one item, choices the first; a recursion ends as soon as the schema lets it.
    ``not``, ``if`` and ``contains`` are not looked at, and a ``pattern`` is met only where a common kind of string happens to
    match.

    Parameters
    ----------
    schema : dict or bool
        A JSON schema (draft 7 to 2020-12, as pydantic writes them).

    Returns
    -------
    Any
        A JSON value. Where nothing finite is valid, an object that only says that it is an echo.
    """
    writer = _Writer(schema)
    try:
        return writer.value(writer.opened(schema), "echo")
    except _Unmet:
        return {"echo": MARK}


class _Writer:
    """Values for one schema and its definitions.

    Every definition is given its value once, from the innermost outward, so that schemas whose definitions all mention one another
    take no longer than others.
    """

    def __init__(self, root: Any) -> None:
        self.root = root
        self.known: dict[str, Any] = {}
        self.relaxed = False
        open_refs = dict.fromkeys(_refs(root))
        while open_refs:
            built = [ref for ref in open_refs if self._define(ref)]
            if not built:
                # What is left is recursive. Let one of them end its recursion; the others then follow as far as they can.
                self.relaxed = True
                built = next(([ref] for ref in open_refs if self._define(ref)), [])
                self.relaxed = False
            for ref in built:
                del open_refs[ref]
            if not built:
                break
        # Only a choice that can never be met is left to pass over.
        self.relaxed = True

    def _define(self, ref: str) -> bool:
        try:
            self.known[ref] = self.value(self.opened({"$ref": ref}), ref.rsplit("/", 1)[-1])
        except _Unmet:
            return False
        return True

    def _found(self, ref: str) -> Any:
        at = self.root
        if not ref.startswith("#"):
            raise _Unmet
        for written in filter(None, ref[1:].split("/")):
            step = unquote(written).replace("~1", "/").replace("~0", "~")
            if isinstance(at, dict) and step in at:
                at = at[step]
            elif isinstance(at, list) and step.isdigit() and int(step) < len(at):
                at = at[int(step)]
            else:
                raise _Unmet
        return at

    def opened(self, schema: Any) -> Any:
        """The schema with its own ``$ref`` and ``allOf`` written out, those of its parts left as they are."""
        seen: set[str] = set()

        def open_up(schema: Any) -> Any:
            if schema is False:
                raise _Unmet
            if not isinstance(schema, dict):
                return {}
            rest = {name: value for name, value in schema.items() if name not in ("$ref", "allOf", "$defs", "definitions")}
            parts = []
            ref = schema.get("$ref")
            if isinstance(ref, str):
                if ref in seen:
                    raise _Unmet
                seen.add(ref)
                parts.append(open_up(self._found(ref)))
                seen.discard(ref)
            parts += [open_up(part) for part in schema.get("allOf") or ()]
            return _merged([*parts, rest])

        return open_up(schema)

    def value(self, schema: Any, name: str) -> Any:
        if schema is False:
            raise _Unmet
        if not isinstance(schema, dict):
            return f"{MARK} {name}"
        ref = schema.get("$ref")
        if isinstance(ref, str) and not (schema.keys() & _SHAPING):
            if ref not in self.known:
                raise _Unmet
            return self.known[ref]
        if "$ref" in schema or "allOf" in schema:
            schema = self.opened(schema)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            if not schema["enum"]:
                raise _Unmet
            return schema["enum"][0]
        for word in ("anyOf", "oneOf"):
            if schema.get(word):
                return self._chosen(schema, word, name)
        return self._typed(schema, name)

    def _chosen(self, schema: Mapping[str, Any], word: str, name: str) -> Any:
        rest = {key: value for key, value in schema.items() if key not in (word, "discriminator")}
        # "or null" is the last resort: a value shows more than its absence.
        options = sorted(schema[word], key=lambda option: isinstance(option, dict) and option.get("type") == "null")
        for option in options:
            try:
                if rest.keys() & _SHAPING:
                    return self.value(_merged([self.opened(option), rest]), name)
                return self.value(option, name)
            except _Unmet:
                if not self.relaxed:
                    raise
        raise _Unmet

    def _typed(self, schema: Mapping[str, Any], name: str) -> Any:
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = next((one for one in kind if one != "null"), "null")
        if kind is None:
            kind = next((kind for kind, words in _TELLING.items() if schema.keys() & words), "string")
        if kind == "object":
            return self._object(schema)
        if kind == "array":
            return self._array(schema, name)
        if kind in ("integer", "number"):
            return _number(schema, whole=kind == "integer")
        if kind == "boolean":
            return False
        if kind == "null":
            return None
        return _string(schema, name)

    def _object(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        properties = schema.get("properties") or {}
        required = list(schema.get("required") or ())
        made: dict[str, Any] = {}
        for name, part in properties.items():
            try:
                made[name] = self.value(part, name)
            except _Unmet:
                if name in required or not self.relaxed:
                    raise
        others = schema.get("additionalProperties", True)
        for name in required:
            if name not in made:
                made[name] = self.value(others if isinstance(others, dict) else {}, name)
        fewest = schema.get("minProperties") or 0
        if others is False:
            return made
        wanted = max(fewest, 1 if isinstance(others, dict) and not properties else 0)
        for name in self._names(schema, wanted):
            if len(made) >= min(wanted, schema.get("maxProperties", wanted)):
                break
            try:
                made.setdefault(name, self.value(others, name))
            except _Unmet:
                if fewest or not self.relaxed:
                    raise
                break
        return made

    def _names(self, schema: Mapping[str, Any], wanted: int) -> Iterator[str]:
        """Names for entries that the schema leaves free. Digits: as keys they are text and numbers alike."""
        rule = schema.get("propertyNames")
        if isinstance(rule, dict):
            rule = self.opened(rule)
            yield from rule["enum"] if "enum" in rule else [self.value({"type": "string", **rule}, "echo")]
        else:
            yield from (str(number) for number in range(wanted + len(schema.get("properties") or ())))

    def _array(self, schema: Mapping[str, Any], name: str) -> list[Any]:
        items = schema.get("items", True)
        first = schema.get("prefixItems") or (items if isinstance(items, list) else [])
        others = schema.get("additionalItems", True) if isinstance(items, list) else items
        fewest, most = schema.get("minItems") or 0, schema.get("maxItems", math.inf)
        made: list[Any] = []
        for part in first[: int(min(most, len(first)))]:
            made.append(self.value(part, name))
        count = min(max(fewest, 1 if not first else len(first)), most)
        if others is False:
            return made
        try:
            while len(made) < count:
                made.append(self._another(others, name, made) if schema.get("uniqueItems") and made else self.value(others, name))
        except _Unmet:
            if len(made) < fewest or not self.relaxed:
                raise
        return made

    def _another(self, schema: Any, name: str, made: list[Any]) -> Any:
        """An item unlike those before it."""
        schema = self.opened(schema)
        if "enum" in schema:
            return next((choice for choice in schema["enum"] if choice not in made), schema["enum"][0])
        last = made[-1]
        if isinstance(last, bool):
            return not last
        if isinstance(last, int | float):
            return self.value({**schema, "exclusiveMinimum": last}, name)
        return self.value(schema, f"{name} {len(made) + 1}")


#: Words of a schema that decide what is valid; the others only describe.
_TELLING = {
    "object": {"properties", "required", "additionalProperties", "minProperties", "propertyNames"},
    "array": {"items", "prefixItems", "minItems", "maxItems", "uniqueItems"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
    "string": {"minLength", "maxLength", "pattern", "format"},
}
_SHAPING = {"type", "enum", "const", "anyOf", "oneOf", "allOf"}.union(*_TELLING.values())


def _refs(schema: Any) -> Iterator[str]:
    stack = [schema]
    while stack:
        part = stack.pop()
        if isinstance(part, dict):
            if isinstance(part.get("$ref"), str):
                yield part["$ref"]
            stack += part.values()
        elif isinstance(part, list):
            stack += part


def _merged(schemas: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One schema that asks for everything that these ask for."""
    merged: dict[str, Any] = {}
    for schema in schemas:
        for word, value in schema.items():
            if word not in merged:
                merged[word] = value
            elif word == "properties":
                both = dict(merged[word])
                for name, part in value.items():
                    both[name] = {"allOf": [both[name], part]} if name in both else part
                merged[word] = both
            elif word == "required":
                merged[word] = [*merged[word], *value]
            elif word in ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"):
                merged[word] = max(merged[word], value)
            elif word in ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"):
                merged[word] = min(merged[word], value)
            elif word == "enum":
                merged[word] = [choice for choice in merged[word] if choice in value]
            elif word == "type":
                merged[word] = _common_type(merged[word], value)
            elif word in ("anyOf", "oneOf") and merged[word] != value:
                merged[word] = [{"allOf": [one, other]} for one in merged[word] for other in value]
            elif word == "additionalProperties" and merged[word] is False:
                continue
            else:
                merged[word] = value
    return merged


def _common_type(one: Any, other: Any) -> Any:
    ones, others = ([kind] if isinstance(kind, str) else list(kind) for kind in (one, other))
    common = [kind for kind in ones if kind in others]
    if not common and {"integer", "number"} <= {*ones, *others}:
        common = ["integer"]
    if not common:
        raise _Unmet
    return common[0] if len(common) == 1 else common


def _number(schema: Mapping[str, Any], *, whole: bool) -> int | float:
    """Zero where it is allowed, else the allowed number that is nearest to the lower bound."""
    low, low_open = _bound(schema, "minimum", "exclusiveMinimum", max)
    high, high_open = _bound(schema, "maximum", "exclusiveMaximum", min)
    # Fractions of the decimal text: 0.1 is a tenth here, so multiples of it are exact.
    step = Fraction(str(schema["multipleOf"])) if schema.get("multipleOf") else None
    if whole:
        step = Fraction((step or Fraction(1)).numerator)

    def allowed(number: Fraction) -> bool:
        above = low is None or number > low or (number == low and not low_open)
        below = high is None or number < high or (number == high and not high_open)
        return above and below

    candidates = [Fraction(0)]
    if step is not None:
        if low is not None:
            candidates += [step * math.ceil(low / step), step * (math.floor(low / step) + 1)]
        if high is not None:
            candidates += [step * math.floor(high / step), step * (math.ceil(high / step) - 1)]
    else:
        if low is not None:
            candidates += [low, low + 1]
        if high is not None:
            candidates += [high, high - 1]
        if low is not None and high is not None:
            candidates.append((low + high) / 2)
    number = next((candidate for candidate in candidates if allowed(candidate)), None)
    if number is None:
        raise _Unmet
    return int(number) if whole else float(number)


def _bound(schema: Mapping[str, Any], closed: str, opened: str, tighter: Any) -> tuple[Fraction | None, bool]:
    limit, strict = schema.get(closed), schema.get(opened)
    if isinstance(strict, bool):  # draft 4 said so beside the bound
        return (None, False) if limit is None else (Fraction(str(limit)), strict)
    if strict is not None and (limit is None or tighter(limit, strict) == strict):
        return Fraction(str(strict)), True
    return (None, False) if limit is None else (Fraction(str(limit)), False)


_FORMATS = {
    "date": "2000-01-01",
    "date-time": "2000-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "duration": "PT0S",
    "email": "echo@example.com",
    "idn-email": "echo@example.com",
    "name-email": "echo <echo@example.com>",
    "hostname": "echo.example.com",
    "idn-hostname": "echo.example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "ipvanyaddress": "192.0.2.1",
    "ipv4network": "192.0.2.0/24",
    "ipv6network": "2001:db8::/32",
    "ipvanynetwork": "192.0.2.0/24",
    "ipv4interface": "192.0.2.1/24",
    "ipv6interface": "2001:db8::1/32",
    "ipvanyinterface": "192.0.2.1/24",
    "uri": "https://example.com/echo",
    "url": "https://example.com/echo",
    "iri": "https://example.com/echo",
    "uri-reference": "https://example.com/echo",
    "multi-host-uri": "https://example.com/echo",
    "uuid": "00000000-0000-4000-8000-000000000000",
    **{f"uuid{version}": f"00000000-0000-{version}000-8000-000000000000" for version in range(1, 9)},
    "json-pointer": "/echo",
    "json-string": orjson.dumps(MARK).decode(),
    "regex": "echo",
    "base64": "ZWNobyBlY2hv",
    "base64url": "ZWNobyBlY2hv",
}

#: What patterns in schemas mostly ask for: words, codes, numbers, dates, addresses.
_COMMON = (
    *("echo", "Echo", "ECHO", "echo-echo", "echo_echo", "Echo echo", "echo.txt", "@echo", "/echo", "e", "E", "EC", "ECH", "ECO"),
    *("0", "1", "00", "000", "0000", "00000", "000000", "0.0", "0.00", "1.0.0", "$0.00", "0%", "00:00", "00:00:00"),
    *("E0", "E000", "EC-000", "ECH-000", "ECHO-0000", "#000000", "+10000000000", "000-000-0000", "(000) 000-0000", "00000-0000"),
    *dict.fromkeys(_FORMATS.values()),
)


def _string(schema: Mapping[str, Any], name: str) -> str:
    fewest, most = schema.get("minLength") or 0, schema.get("maxLength", math.inf)
    if fewest > most:
        raise _Unmet
    shape = schema.get("format")
    fixed = _FORMATS.get(shape) if isinstance(shape, str) else None
    if schema.get("contentMediaType") == "application/json":
        fixed = _FORMATS["json-string"]
    if fixed is not None and fewest <= len(fixed) <= most:
        return fixed
    marked = f"{MARK} {name}" if len(MARK) + 1 + len(name) <= most else MARK
    marked = marked.ljust(fewest, ".")
    plain = marked if len(marked) <= most else "echo".ljust(fewest, ".")[: int(most)]
    if "pattern" not in schema:
        return plain
    try:
        pattern = re.compile(schema["pattern"])
    except (re.error, TypeError):  # JSON schema's expressions are JavaScript's
        return plain
    fits = (text for text in (plain, *_COMMON) if fewest <= len(text) <= most and pattern.search(text))
    return next(fits, plain)


# ---------------------------------------------------------------------------------------------------------------- the wire


def _chat_body(requests: Sequence[Request], target: Target) -> bytes:
    (request,) = requests
    payload: ChatPayload = request.payload
    messages = [turn for message in payload.messages for turn in _turns(message)]
    body = {"model": target.model.name, "messages": messages, **request.options}
    body.pop("logprobs", None)  # an echo is as sure of one word as of another
    if payload.tools:
        body["tools"] = [function(tool) for tool in payload.tools]
        named = payload.tool_choice not in ("", "auto", "none", "required")
        body["tool_choice"] = {"type": "function", "function": {"name": payload.tool_choice}} if named else payload.tool_choice
    if payload.schema is not None:
        _structured(body, payload.schema, target)
    return to_json(body)


def _turns(message: Message) -> list[dict[str, Any]]:
    content = message.content
    if isinstance(content, str):
        return [{"role": message.role, "content": content}]
    if message.role == "tool":
        return tool_results(message)
    asked = [
        {"id": part.id, "function": {"name": part.name, "arguments": part.arguments}} for part in content if isinstance(part, ToolCall)
    ]
    shown = [_shown(part) for part in content if isinstance(part, Text | Image)]
    return [{"role": message.role, "content": shown, **({"tool_calls": asked} if asked else {})}]


def _shown(part: Part) -> dict[str, Any]:
    if isinstance(part, Image):
        return {"type": "image_url", "image_url": {"url": data_url(part)}}
    assert isinstance(part, Text)
    return {"type": "text", "text": part.text}


def _structured(body: dict[str, Any], schema: Schema, target: Target) -> None:
    how = asked(schema, target)
    if how.mode == "tools":
        body["tools"] = [*body.get("tools", ()), answering(schema, how)]
        body["tool_choice"] = {"type": "function", "function": {"name": how.name}}
    elif schema.schema is None:
        body["response_format"] = {"type": "json_object"}
    else:  # an echo reads no words: whatever it is asked in, it is told the schema
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": how.name, "schema": how.form}}


def _chat_replies(body: Any, requests: Sequence[Request]) -> list[Reply | LLMError]:
    (request,) = requests
    usage = Usage(input=body["input"], output=body["output"], requests=1)
    value: Any = body["text"]
    payload, called = request.payload, calls(body["calls"])
    if payload.schema is not None:
        value, called = form_of(payload.schema, value, called, payload.tools)
    if payload.tools:
        value = Said(value, called)
    elif request.options.get("logprobs"):
        value = Scored(value)
    return [Reply(value=value, usage=usage, model=body["model"], finish=body["finish"])]


def _never_refused(status: int, headers: Mapping[str, str], body: bytes) -> LLMError:
    return ServerFault("an echo has no HTTP status")


def _no_limits(headers: Mapping[str, str]) -> Limits | None:
    return None


def adapter() -> Adapter:
    return Adapter(
        name="echo",
        codecs={"chat": Codec("", _chat_body, _chat_replies, modes=modes)},
        connect=None,
        classify_error=_never_refused,
        read_limits=_no_limits,
        answer=answer,
    )
