"""What a model wrote, read: JSON that is whole, in a fence, among prose or after a thought, and damage that has only one reading.

An answer is repaired where it cannot be read in two ways. All else is ``Invalid``, so that the model is asked again: a guess that is wrong
looks like an answer.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from functools import cached_property, lru_cache
from typing import Any, NamedTuple, NoReturn, get_args

import orjson
from pydantic import BaseModel, ValidationError
from pydantic_core import core_schema

__all__ = ["Extracted", "Found", "Invalid", "Reader", "values_in"]


class Invalid(Exception):
    """Why an answer is none.

    Attributes
    ----------
    why : str
        Names of fields and rules; nothing of what the answer held.
    told : str
        The same for the model that wrote it, with what the caller's validators said.
    prose : bool
        There is no JSON in it at all.
    """

    def __init__(self, why: str, *, told: str = "", prose: bool = False) -> None:
        super().__init__(why)
        self.why = why
        self.told = told or why
        self.prose = prose


class Extracted:
    """One row's answer: the JSON that the model wrote, and what the schema makes of it."""

    __slots__ = ("data", "raw")

    def __init__(self, raw: str, data: Any) -> None:
        self.raw = raw
        self.data = data


# ------------------------------------------------------------------------------------------------------------ JSON in a text


class Found(NamedTuple):
    """JSON that stands in a text. ``closed``: its last brace does too."""

    raw: str
    closed: bool = True


_BROKEN = "its JSON is not well formed, or not whole"

#: Places where JSON could begin that are tried in one answer: an answer with more is none.
_MOST_STARTS = 64
#: What orjson and pydantic read at most is not much deeper.
_DEEPEST = 200

#: A brace or a bracket that what follows makes the beginning of JSON, or of what was meant to be; ``{name}`` and ``[1]`` are prose.
_START = re.compile(
    r"""\{ \s*+ (?= ["'“„}] | // | /\* | \# | [A-Za-z_$][\w$]*+ \s*+ [:：] )
      | \[ \s*+ (?= ["'“„{\[\]\d/#-] | (?:true|false|null|True|False|None)\b )""",
    re.VERBOSE,
)
_THOUGHT = re.compile(r"<(/?)(?:think|thinking|thought|reasoning|reflection|scratchpad)>", re.IGNORECASE)


def values_in(text: str) -> list[Found]:
    """The outermost objects and lists in an answer as JSON, in their order; empty where there is none.

    Fences need no eye: what stands around JSON is passed over, and a fence in one of its texts ends nothing.

    Raises
    ------
    Invalid
        What began as JSON is none. Nothing is looked for inside: a part of an answer that fits the schema is not the answer.
    """
    text = _without_thoughts(text)
    found: list[Found] = []
    at, starts = 0, 0
    while start := _START.search(text, at):
        starts += 1
        if starts > _MOST_STARTS:
            raise Invalid("it holds too many objects or lists, and one is wanted")
        value, at = _value_at(text, start.start())
        if value is not None:
            found.append(value)
        elif text[start.start()] == "{" or text[start.end()] in "\"'“„{":
            raise Invalid(_BROKEN)
        else:
            at = start.end()
    return found


def _without_thoughts(text: str) -> str:
    """What was said after thinking aloud; nothing of a thought that never ended."""
    if "<" not in text:
        return text
    begins = 0
    for mark in _THOUGHT.finditer(text):
        if mark[1]:
            begins = mark.end()
    opened = _THOUGHT.search(text, begins)
    return text[begins : opened.start() if opened else len(text)]


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


_STRICT = json.JSONDecoder(parse_constant=_refuse)


def _value_at(text: str, start: int) -> tuple[Found | None, int]:
    """(what begins here, where it ends)."""
    try:
        _, end = _STRICT.raw_decode(text, start)
    except (ValueError, RecursionError):
        return _Mending(text, start).result()
    return Found(text[start:end]), end


_TOKEN = re.compile(
    r"""(?P<blank>[\s\ufeff]++ | //[^\n]*+ | /\*(?s:.*?)\*/ | \#[^\n]*+)
      | (?P<mark>[{}\[\]:,：，])
      | "(?P<text>[^"\\]*+(?:\\(?s:.)[^"\\]*+)*+)"
      | '(?P<python>[^'\\]*+(?:\\(?s:.)[^'\\]*+)*+)'
      | [“„](?P<curly>[^“”„\\]*+(?:\\(?s:.)[^“”„\\]*+)*+)[”“]
      | (?P<number>-?(?:0|[1-9]\d*+)(?:\.\d++)?(?:[eE][+-]?\d++)?(?![\w.]))
      | (?P<word>[A-Za-z_$][\w$]*+)""",
    re.VERBOSE,
)
_WORDS = {"true": "true", "false": "false", "null": "null", "True": "true", "False": "false", "None": "null"}
_ESCAPED = re.compile(r"\\(u[0-9a-fA-F]{4}|(?s:.))|[\"\x00-\x1f]")


class _Mending:
    """JSON that begins at a place, written anew without what JSON has no form for and that can be meant in one way only.

    Read over: commas before a closing bracket, comments, Python's and typographers' quotation marks, ``None`` and ``True``, keys without
    quotation marks, line breaks within texts, and the last brace of all. Not read over, since it has several readings: quotation marks
    within quotation marks, commas that lack, backslashes before what they do not escape, numbers and texts that may have been cut.
    """

    def __init__(self, text: str, start: int) -> None:
        self._text = text
        self._at = start
        self._said: list[str] = []
        self._open: list[str] = []
        #: What comes next: a "value", a "first" value of a list or its end, a "key" or the object's end, a "colon", or what "ends" a value.
        self._next = "value"
        self._last = ""

    def result(self) -> tuple[Found | None, int]:
        closed = True
        while True:
            token = _TOKEN.match(self._text, self._at)
            if token is None:
                if not self._lacks_its_last_brace():
                    return None, self._at
                self._said.append("}")
                closed = False
                break
            self._at = token.end()
            kind = str(token.lastgroup)
            if kind == "blank":
                continue
            said = self._mark(token["mark"]) if kind == "mark" else self._scalar(kind, token[kind])
            if said is None:
                return None, self._at
            self._said.append(said)
            self._last = kind
            if not self._open:
                break
        return Found("".join(self._said), closed), self._at if closed else len(self._text)

    def _lacks_its_last_brace(self) -> bool:
        """At the very end, after a value that is whole: a number may have had more digits."""
        rest = self._text[self._at : self._at + 16].strip()
        return self._open == ["}"] and self._next == "ends" and self._last != "number" and rest in ("", "```")

    def _mark(self, mark: str) -> str | None:
        if mark in "{[":
            if self._next not in ("value", "first") or len(self._open) >= _DEEPEST:
                return None
            self._open.append("}" if mark == "{" else "]")
            self._next = "key" if mark == "{" else "first"
            return mark
        if mark in "}]":
            if self._next not in ("ends", "key" if mark == "}" else "first") or self._open.pop() != mark:
                return None
            if self._said[-1] == ",":
                self._said.pop()
            self._next = "ends"
            return mark
        if mark in ":：":
            if self._next != "colon":
                return None
            self._next = "value"
            return ":"
        if self._next != "ends":
            return None
        self._next = "key" if self._open[-1] == "}" else "first"
        return ","

    def _scalar(self, kind: str, said: str) -> str | None:
        if self._next not in ("key", "value", "first"):
            return None
        is_key = self._next == "key"
        self._next = "colon" if is_key else "ends"
        if kind == "word":
            return f'"{said}"' if is_key else _WORDS.get(said)
        if kind == "number":
            return None if is_key else said
        try:
            return f'"{_ESCAPED.sub(_escape, said)}"'
        except ValueError:
            return None


def _escape(found: re.Match[str]) -> str:
    escaped = found[1]
    if escaped is None:
        return str(orjson.dumps(found[0])[1:-1].decode())
    if len(escaped) > 1 or escaped in '"\\/bfnrt':
        return found[0]
    if escaped == "'":
        return "'"
    raise ValueError("a backslash before what it does not escape")


# ----------------------------------------------------------------------------------------------------- JSON against a schema

_NUMERAL = re.compile(r'"\s*+[+-]?\d[\d_]*+(?:\.\d*+)?\s*+"')
_TEMPORAL = ("date", "time")
#: Errors whose message names the rule alone. Those of the caller's own validators, and of a tag that no variant has, quote what was said.
_PLAIN = frozenset(get_args(core_schema.ErrorType)) - {"value_error", "assertion_error", "union_tag_invalid", "uuid_parsing"}
#: What stands under such a key is no answer, though it may fit.
_NO_WRAPPING = re.compile(r"err|refus|warn|message|note|comment|reason|thought|thinking|explanation", re.IGNORECASE)
_CALL = {"name", "type", "id", "arguments", "parameters", "input"}


class Reader:
    """Reads answers for a model.

    Parameters
    ----------
    name : str
        What the schema is called.
    model : type of BaseModel
        What an answer is checked with.
    inner : str
        The one field that wraps what is no record; ``""`` for a record.
    """

    def __init__(self, name: str, model: type[BaseModel], inner: str) -> None:
        self._name = name
        self._model = model
        self._inner = inner
        self._validator = model.__pydantic_validator__
        self._dump = model.__pydantic_serializer__.to_python
        kinds = _kinds(model.__pydantic_core_schema__)
        self._has_floats = any(kinds[kind] for kind in ("float", "any", "json"))
        self._has_times = any(kinds[kind] for kind in ("date", "datetime", "time", "timedelta"))
        self._is_nested = kinds["model"] > 1 or any(kinds[kind] for kind in _HOLDING)
        self._names: frozenset[str] | None = None

    def read(self, text: str, cut: bool = False) -> Extracted:
        """What an answer holds; ``cut`` where the vendor says that it ended before its end.

        Raises
        ------
        Invalid
            It holds no JSON, several objects that fit, or none that does.
        """
        try:
            return self.checked(text)
        except (ValidationError, Invalid):
            pass
        found = values_in(_decoded(text))
        if not found:
            return self._bare(text, cut)
        fitting: list[Extracted] = []
        why: Invalid | None = None
        for value in found:
            try:
                read = self._fitted(value, cut)
            except Invalid as error:
                why = why or error
                continue
            if not any(read.data == other.data for other in fitting):
                fitting.append(read)
        if len(fitting) > 1:
            raise Invalid(f"it holds {len(fitting)} different objects that fit, and one is wanted")
        if not fitting:
            assert why is not None
            raise why
        return fitting[0]

    def checked(self, raw: str | bytes) -> Extracted:
        """What JSON holds, if it is valid.

        Raises
        ------
        ValidationError
        Invalid
            It fits the model only because pydantic makes one thing of another (``true`` a 1, ``2024`` a second of the year 1970), says a
            field twice, or says nothing.
        """
        said = raw if isinstance(raw, str) else raw.decode()
        odd = "\\" in said or "NaN" in said or "Infinity" in said
        try:
            instance = self._validator.validate_json(said, strict=True)
        except ValidationError as error:
            if _why_unread(error):
                raise
            instance = self._validator.validate_json(said)
            self._refuse_what_was_made(error)
            odd = True
        given = len(instance.__pydantic_fields_set__)
        # Each field that is given has one key; more of what ends as keys do are in texts, in nested objects, or should not be there.
        if said.count('":') > given or " :" in said or "\n:" in said or "\t:" in said or "\r:" in said:
            self._refuse_odd_keys(said, instance)
        if not given and self._model.model_fields:
            raise Invalid("it says nothing: write null where there is nothing to say")
        if '"null"' in said:
            self._refuse_null_as_text(said)
        if self._has_times and _NUMERAL.search(said):
            self._refuse_numerals_as_times(said)
        data = self._dump(instance, by_alias=False, warnings=False)
        # Digits enough make a float infinite without a word.
        if odd or (self._has_floats and (self._is_nested or math.inf in data.values() or -math.inf in data.values())):
            _refuse_what_json_has_not(data)
        return Extracted(said, data[self._inner] if self._inner else data)

    # What pydantic would let pass.

    def _refuse_what_was_made(self, strict: ValidationError) -> None:
        for fault in strict.errors(include_context=False, include_url=False):
            said, kind = fault["input"], fault["type"]
            number = isinstance(said, int | float) or (isinstance(said, str) and said.strip().lstrip("+-").replace(".", "", 1).isdecimal())
            if isinstance(said, bool) or (number and kind.startswith(_TEMPORAL)):
                raise Invalid(f"{self._place(fault['loc'])}: {fault['msg']}")

    def _refuse_odd_keys(self, said: str, instance: BaseModel) -> None:
        misplaced = _misplaced(_parsed(said), instance)
        if misplaced:
            raise Invalid(f"it has a key that is no field's beside fields that are missing ({misplaced})")

    def _refuse_null_as_text(self, said: str) -> None:
        nulled = _swapped(_parsed(said), lambda text: None if text == "null" else text)
        if self._fits(nulled):
            raise Invalid("it has null as a text: write null without quotation marks")

    def _refuse_numerals_as_times(self, said: str) -> None:
        marked = _swapped(_parsed(said), lambda text: "?" if _NUMERAL.fullmatch(f'"{text}"') else text)
        try:
            self._validator.validate_json(orjson.dumps(marked))
        except ValidationError as error:
            for fault in error.errors(include_input=False, include_context=False, include_url=False):
                if fault["type"].startswith(_TEMPORAL):
                    raise Invalid(f"{self._place(fault['loc'])}: a number is no date or time") from None

    # What can be said otherwise.

    def _bare(self, text: str, cut: bool) -> Extracted:
        """A value that stands alone: ``positive`` for one of several words, ``42`` for a number; prose would be a text."""
        said = _without_thoughts(text).strip().strip("`").strip()
        if self._inner == "value" and said and not cut and not self._takes_any_text:
            for value in _scalars(said):
                try:
                    return self.checked(orjson.dumps({"value": value}))
                except (ValidationError, Invalid):
                    continue
        if not said:
            raise Invalid("it is empty", prose=True)
        raise Invalid("it holds no JSON object", prose=True)

    def _fitted(self, value: Found, cut: bool) -> Extracted:
        if not value.closed:
            return self._closed(value.raw, cut)
        try:
            return self.checked(value.raw)
        except Invalid as error:
            refused = error
        except ValidationError as error:
            refused = self._invalid(error)
            mended = self._mended(_parsed(value.raw), error)
            if mended is not None:
                return mended
        for inside in self._unwrapped(value.raw):
            try:
                return self.checked(orjson.dumps(inside))
            except (ValidationError, Invalid):
                continue
        raise refused

    def _closed(self, raw: str, cut: bool) -> Extracted:
        """What lacks its last brace is whole if no field is missing."""
        if not cut:
            try:
                read = self.checked(raw)
                if len(self._validator.validate_json(raw).__pydantic_fields_set__) == len(self._model.model_fields):
                    return read
            except ValidationError:
                pass
        raise Invalid(_BROKEN)

    def _mended(self, plain: Any, error: ValidationError) -> Extracted | None:
        """The same without keys that are no field's, where no field is missing, and with lists and objects that were written as texts."""
        faults = error.errors(include_context=False, include_url=False)
        if not isinstance(plain, dict) or any(fault["type"] not in _MENDED for fault in faults):
            return None
        try:
            for fault in faults:
                *path, last = fault["loc"]
                inside = plain
                for step in path:
                    inside = inside[step]  # type: ignore[index]
                if fault["type"] == "extra_forbidden":
                    del inside[last]  # type: ignore[arg-type]
                else:
                    inside[last] = _written_as_text(fault["input"])  # type: ignore[index]
            read = self.checked(orjson.dumps(plain))
            # A key that is none may be a misspelt one: only where all others are there is it too much.
            complete = len(self._validator.validate_json(read.raw).__pydantic_fields_set__) == len(self._model.model_fields)
            return read if complete or all(fault["type"] != "extra_forbidden" for fault in faults) else None
        except (ValidationError, Invalid, ValueError, LookupError, TypeError):
            return None

    def _unwrapped(self, raw: str) -> Iterator[Any]:
        """Models leave the wrapping out, or put one around: ``[...]`` for ``{"items": [...]}``, ``{"Review": {...}}`` for ``{...}``."""
        try:
            value = _parsed(raw)
        except Invalid:
            return
        if isinstance(value, list):
            if self._inner:
                yield {self._inner: value}
            elif len(value) == 1:
                yield value[0]
            return
        if len(value) == 1:
            ((key, within),) = value.items()
            if _NO_WRAPPING.match(key):
                return
        elif value.keys() <= _CALL and isinstance(value.get("name"), str):  # a call of a function, written out
            within = next((value[key] for key in ("arguments", "parameters", "input") if key in value), None)
        else:
            within = value if self._inner == "items" else None
            if within is not None:  # one record, without its list
                yield {self._inner: [within]}
            return
        if isinstance(within, str):
            try:
                within = _written_as_text(within)
            except ValueError:
                if self._takes_any_text:
                    return
        if isinstance(within, dict):
            yield within
        if self._inner and within is not None:
            yield {self._inner: within}
        if self._inner == "items":
            yield {self._inner: [value]}

    # What is said about it.

    @cached_property
    def _takes_any_text(self) -> bool:
        return self._fits({self._inner: "\x1a is no word"})

    def _fits(self, plain: Any) -> bool:
        try:
            self._validator.validate_json(orjson.dumps(plain))
        except ValidationError:
            return False
        return True

    def _invalid(self, error: ValidationError) -> Invalid:
        faults = error.errors(include_input=False, include_context=False, include_url=False)[:8]
        why, told = [], []
        for fault in faults:
            own = fault["type"] not in _PLAIN
            why.append(f"{self._place(fault['loc'])}: {f'a rule of {self._name} refuses it' if own else fault['msg']}")
            told.append(f"{'.'.join(map(str, fault['loc'])) or 'the answer'}: {fault['msg']}")
        return Invalid("; ".join(why), told="; ".join(told))

    def _place(self, loc: tuple[int | str, ...]) -> str:
        """Where a fault is, in names of fields: other keys are the model's own words."""
        if self._names is None:
            self._names = frozenset(_property_names(self._model.model_json_schema()))
        return ".".join(str(step) if isinstance(step, int) or step in self._names else "…" for step in loc) or "the answer"


#: Errors that are mended, where they are all there are.
_MENDED = {"extra_forbidden", "list_type", "dict_type", "model_type", "model_attributes_type", "tuple_type", "set_type"}


def _why_unread(error: ValidationError) -> bool:
    """Whether it is not JSON at all, which a second reading does not change."""
    return (
        error.error_count() == 1
        and error.errors(include_input=False, include_context=False, include_url=False)[0]["type"] == "json_invalid"
    )


def _written_as_text(said: Any) -> Any:
    if not isinstance(said, str) or said.lstrip()[:1] not in ("[", "{"):
        raise ValueError("no list and no object")
    return orjson.loads(said)


def _decoded(text: str) -> str:
    """What a text that was encoded twice says: JSON that is a text which is JSON."""
    said = text.strip()
    if said[:1] != '"' or said[-1:] != '"' or len(said) < 2:
        return text
    try:
        return str(orjson.loads(said))
    except ValueError:
        return text


def _scalars(said: str) -> Iterator[Any]:
    try:
        value = orjson.loads(said)
    except ValueError:
        pass
    else:
        if not isinstance(value, dict | list):
            yield value
    yield said


def _parsed(said: str) -> Any:
    try:
        return _EACH_ONCE.decode(said)
    except (ValueError, RecursionError):
        raise Invalid(_BROKEN) from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; a key may stand in it twice if it says the same twice."""
    made = dict(pairs)
    if len(made) < len(pairs) and any(made[key] != value for key, value in pairs):
        raise Invalid("it says a field twice, with different values")
    return made


_EACH_ONCE = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_refuse)


class _Known(NamedTuple):
    """The keys that a model knows, all and of each field; whether it takes others too."""

    names: frozenset[str]
    fields: tuple[tuple[str, tuple[str, ...]], ...]
    takes_more: bool


@lru_cache(maxsize=256)
def _known(model: type[BaseModel]) -> _Known:
    fields = tuple((key, tuple(_keys_of(key, field))) for key, field in model.model_fields.items())
    names = frozenset(name for _, names in fields for name in names)
    return _Known(names, fields, model.model_config.get("extra") == "allow")


def _keys_of(key: str, field: Any) -> Iterator[str]:
    yield key
    alias = field.validation_alias
    for one in getattr(alias, "choices", [alias]):
        if isinstance(one, str):
            yield one
        elif hasattr(one, "path"):
            yield str(one.path[0])


def _misplaced(plain: Any, instance: Any) -> str:
    """The name of a record that lacks a field and has a key that is no field's, which may be that field's misspelt."""
    stack = [(plain, instance)]
    while stack:
        said, made = stack.pop()
        if isinstance(said, dict):
            if isinstance(made, BaseModel):
                known = _known(type(made))
                if not known.takes_more and len(made.__pydantic_fields_set__) < len(known.fields) and not said.keys() <= known.names:
                    return type(made).__name__
                for key, names in known.fields:
                    for name in names:
                        inside = said.get(name)
                        if inside.__class__ is dict or inside.__class__ is list:
                            stack.append((inside, getattr(made, key, None)))
            elif isinstance(made, dict):
                stack += [(said[key], value) for key, value in made.items() if key in said]
        elif isinstance(said, list) and isinstance(made, list | tuple) and len(made) == len(said):
            stack += zip(said, made, strict=True)
    return ""


def _swapped(plain: Any, swap: Any) -> Any:
    """The same with other texts."""
    if isinstance(plain, str):
        return swap(plain)
    if isinstance(plain, list):
        return [_swapped(one, swap) for one in plain]
    if isinstance(plain, dict):
        return {key: _swapped(value, swap) for key, value in plain.items()}
    return plain


def _refuse_what_json_has_not(data: Any) -> None:
    stack = [data]
    while stack:
        value = stack.pop()
        if isinstance(value, float):
            if not math.isfinite(value):
                raise Invalid("it has a number that JSON has not (NaN or Infinity)")
        elif isinstance(value, str):
            # ``\f`` and ``\b`` are what becomes of ``\frac`` and ``C:\bin`` whose backslash was not written twice.
            if "\f" in value or "\b" in value:
                raise Invalid("it has a control character: a backslash in a text is written twice")
        elif isinstance(value, dict):
            stack += value.values()
        elif isinstance(value, list | tuple | set | frozenset):
            stack += value


#: Types of pydantic's that hold others.
_HOLDING = ("list", "dict", "tuple", "set", "frozenset", "any", "json", "dataclass", "typed-dict", "generator")


def _kinds(schema: Any) -> Counter[str]:
    found: Counter[str] = Counter()
    stack = [schema]
    while stack:
        part = stack.pop()
        if isinstance(part, dict):
            found[str(part.get("type", ""))] += 1
            stack += part.values()
        elif isinstance(part, list | tuple):
            stack += part
    return found


def _property_names(schema: Any) -> Iterator[str]:
    stack = [schema]
    while stack:
        part = stack.pop()
        if isinstance(part, dict):
            if isinstance(part.get("properties"), dict):
                yield from part["properties"]
            stack += part.values()
        elif isinstance(part, list):
            stack += part
