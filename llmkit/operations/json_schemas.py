"""JSON schemas as pydantic classes, and as the Python text that defines the same classes.

One reading gives both, so that they cannot differ. No text is ever carried out here.
"""

from __future__ import annotations

import datetime as dt
import inspect
import keyword
import re
import typing
import warnings
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, NoReturn, Union
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, WithJsonSchema, create_model
from pydantic.errors import PydanticUndefinedAnnotation
from pydantic_core import SchemaError
from typing_extensions import TypeAliasType

from ..errors import BadInput

__all__ = [
    "OURS",
    "TYPES",
    "Part",
    "Reader",
    "class_name",
    "first_line",
    "is_json_schema",
    "literal",
    "model_of",
    "plain_schema",
    "spelled",
    "titled",
]

#: JSON's types, as schemas name them.
TYPES: dict[str, Any] = {"string": str, "integer": int, "number": float, "boolean": bool, "null": None, "array": list, "object": dict}

#: How classes that are made here behave.
OURS = ConfigDict(arbitrary_types_allowed=False, protected_namespaces=(), allow_inf_nan=False)

_FORMATS: dict[str, tuple[Any, str]] = {
    "date-time": (dt.datetime, "dt.datetime"),
    "date": (dt.date, "dt.date"),
    "time": (dt.time, "dt.time"),
    "duration": (dt.timedelta, "dt.timedelta"),
    "uuid": (UUID, "UUID"),
}

#: Keywords that restrict, by the type that they restrict, and what pydantic calls them.
_BOUNDS: dict[str, dict[str, str]] = {
    "string": {"minLength": "min_length", "maxLength": "max_length", "pattern": "pattern"},
    "number": {"minimum": "ge", "maximum": "le", "exclusiveMinimum": "gt", "exclusiveMaximum": "lt", "multipleOf": "multiple_of"},
    "array": {"minItems": "min_length", "maxItems": "max_length"},  # and uniqueItems
    "object": {"minProperties": "min_length", "maxProperties": "max_length"},
}
_BOUNDS["integer"] = _BOUNDS["number"]

#: Keywords that restrict nothing.
_SAYS = frozenset("title description default examples nullable discriminator format $schema $id $comment $defs definitions".split())
_HINTS = frozenset("deprecated readOnly writeOnly example externalDocs xml contentMediaType contentEncoding".split())
_KNOWN = frozenset(
    "type properties required additionalProperties propertyNames items uniqueItems anyOf oneOf allOf enum const $ref".split()
).union(_SAYS, _HINTS, *_BOUNDS.values())  # fmt: skip

#: Names that the text uses, and that a field of a class must therefore not hide.
_USED = frozenset(
    "str int float bool list dict set tuple None Any Annotated Literal BaseModel ConfigDict Field TypeAdapter dt UUID".split()
)


class Part(NamedTuple):
    """A type, the same in Python's words, and whether the words name a class that stands further down."""

    type: Any
    text: str
    later: bool = False


def is_json_schema(given: Mapping[Any, Any]) -> bool:
    """Whether a mapping is a JSON schema, and no mapping of names to types.

    ``{"type": "object", ...}`` is one, and so is what has a JSON type or a list of choices and nothing that schemas have no word for.
    """
    kind = given.get("type")
    named = isinstance(kind, str) and kind in TYPES
    if kind == "object" or (isinstance(kind, list) and kind and all(isinstance(one, str) and one in TYPES for one in kind)):
        return True
    properties = given.get("properties")
    if isinstance(properties, Mapping) and properties and all(isinstance(one, Mapping | bool) for one in properties.values()):
        return True
    choices = any(isinstance(given.get(name), list) for name in ("enum", "anyOf", "oneOf", "allOf"))
    said = named or choices or "const" in given or str(given.get("$ref", "")).startswith("#")
    return said and all(isinstance(name, str) and (name in _KNOWN or name.startswith("x-")) for name in given)


def model_of(
    name: str, fields: Mapping[str, Any], about: str | None = None, extra: Any = "forbid", validators: Any = None
) -> type[BaseModel]:
    """``create_model`` without its warnings: a field may be called ``copy`` or ``json``, as pydantic's own methods are.

    Raises
    ------
    BadInput
        Names the field that no class can have.
    """
    config = OURS if extra is None else ConfigDict(**{**OURS, "extra": extra})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            made: type[BaseModel] = create_model(name, __config__=config, __doc__=about, __validators__=validators, **fields)
    except Exception as error:  # pydantic has several, and each says what it cannot describe
        for said, (kind, _) in fields.items():
            try:
                TypeAdapter(kind)
            except PydanticUndefinedAnnotation:  # a class that is being made
                continue
            except Exception as fault:
                raise BadInput(
                    f"the field {said} has a type that JSON has no form for ({first_line(fault)}); "
                    "say str, int, float, bool, a date, or a model or a list of these"
                ) from None
        raise BadInput(f"{name} is no schema ({first_line(error)})") from None
    return made


def first_line(error: Exception) -> str:
    """What pydantic says, without its advice."""
    lines = str(error).splitlines()
    said = lines[-1] if isinstance(error, SchemaError) else lines[0]
    return said.partition(". Set `")[0].removesuffix(".").strip()


def spelled(name: str) -> tuple[str, dict[str, str]]:
    """(a field's name in a class, what ``Field`` is told): pydantic takes any name but private ones and those of its own parts."""
    if not name.startswith("_") and not (name.startswith("model_") and hasattr(BaseModel, name)):
        return name, {}
    return f"field{name}", {"alias": name}


def titled(said: str) -> str:
    """``line items`` and ``line_items`` as classes are called: ``LineItems``."""
    return "".join(word[:1].upper() + word[1:] for word in re.findall(r"[^\W_]+", said))


def class_name(said: str, otherwise: str = "Answer") -> str:
    """A name for a class: as it is said, where Python can say it."""
    name = said if said.isidentifier() and not said.startswith("_") else titled(said)
    name = name if name and not name[0].isdigit() else f"{otherwise}{name}"
    return f"{name}_" if keyword.iskeyword(name) or name in _USED else name


def literal(value: Any) -> str:
    """A JSON value in Python's words."""
    if isinstance(value, str) and value.isprintable() and '"' not in value and "\\" not in value:
        return f'"{value}"'
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{literal(key)}: {literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(literal, value)) + "]"
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return f'float("{value}")'
    return repr(value)


# ------------------------------------------------------------------------------------------------------------- plain schemas


def plain_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """What pydantic writes, as it is sent: no titles, which cost tokens, no reference at the top, and names only for objects.

    A choice is written where it stands, so that a server needs to follow no reference for it.
    """
    names: dict[str, Any] = dict(schema.get("$defs") or {})
    short = {name: part for name, part in names.items() if "properties" not in part and not _leads_to(part, name, names)}

    def seen(part: Any) -> Any:
        if isinstance(part, list):
            return [seen(item) for item in part]
        if not isinstance(part, dict):
            return part
        target = str(part.get("$ref", "")).removeprefix("#/$defs/")
        if target in short:
            part = {**short[target], **{name: value for name, value in part.items() if name != "$ref"}}
            return seen(part)
        return {name: _inside.get(name, seen)(value) for name, value in part.items() if name != "title"}

    def members(parts: Any) -> Any:
        return {name: seen(part) for name, part in parts.items()} if isinstance(parts, dict) else parts

    def as_it_is(value: Any) -> Any:
        return value

    _inside = dict.fromkeys(("properties", "$defs"), members) | dict.fromkeys(("enum", "const", "default", "examples"), as_it_is)
    top = {name: value for name, value in schema.items() if name != "$defs"}
    if set(top) <= {"$ref", "description", "title"} and "$ref" in top:
        top = {**names[str(top["$ref"]).removeprefix("#/$defs/")], **{name: value for name, value in top.items() if name != "$ref"}}
    made: dict[str, Any] = seen(top)
    kept = {name: seen(part) for name, part in names.items() if name not in short}
    reached = _reached(made, kept)
    if reached:
        made = {"$defs": {name: part for name, part in kept.items() if name in reached}, **made}
    return made


def _refs(part: Any) -> set[str]:
    if isinstance(part, list):
        return set().union(*map(_refs, part)) if part else set()
    if not isinstance(part, dict):
        return set()
    found = set().union(*(_refs(item) for item in part.values()))
    if isinstance(part.get("$ref"), str):
        found.add(part["$ref"].removeprefix("#/$defs/"))
    return found


def _reached(part: Any, names: Mapping[str, Any]) -> set[str]:
    """The definitions that a schema needs, also by way of others."""
    found: set[str] = set()
    waiting = _refs(part)
    while waiting:
        name = waiting.pop()
        if name in names and name not in found:
            found.add(name)
            waiting |= _refs(names[name])
    return found


def _leads_to(part: Any, name: str, names: Mapping[str, Any]) -> bool:
    return name in _reached(part, names)


# ------------------------------------------------------------------------------------------------------------------- reading


class Reader:
    """Reads one JSON schema.

    Parameters
    ----------
    root : mapping
        References are looked up in it.
    name : str
        The class or type that it becomes.
    where : str
        Where it stands, for messages.
    loose : bool
        What has no form in pydantic's types is carried along as it is, and checked by nobody; else it is refused.
    """

    def __init__(self, root: Mapping[str, Any], name: str, *, loose: bool = False, where: str = "") -> None:
        self._root = root
        self._loose = loose
        self._where = where
        self._names = {name}
        self._made: dict[str, Part] = {}
        self._open: dict[str, list[Any]] = {}
        self._lines: list[str] = []
        self._later: list[type[BaseModel]] = []
        self._namespace: dict[str, Any] = {}
        self.name = name

    def record(self) -> type[BaseModel]:
        """The class of a schema of an object."""
        self._open["#"] = [self.name, False]
        made = self._class(self._root, self.name, self._where, about=str(self._root.get("description") or ""))
        self._finish()
        model: type[BaseModel] = made.type
        return model

    def value(self) -> Any:
        """The type of any other schema."""
        found = self._described(self._root, self._where, self.name)
        self._finish()
        self._lines.append(f"{self.name} = {found.text}\n")
        return found.type

    def _finish(self) -> None:
        for model in self._later:
            model.model_rebuild(force=True, _types_namespace=self._namespace)

    @property
    def source(self) -> str:
        """The module that defines what was read, under its name."""
        rebuilt = "".join(f"{model.__name__}.model_rebuild()\n" for model in self._later)
        body = "\n\n".join(self._lines)
        words = set(re.findall(r"\w+", body))
        lines = []
        if "dt" in words:
            lines.append("import datetime as dt")
        typed = [name for name in ("Annotated", "Any", "Literal") if name in words]
        if typed:
            lines.append(f"from typing import {', '.join(typed)}")
        if "UUID" in words:
            lines.append("from uuid import UUID")
        made = [name for name in ("BaseModel", "ConfigDict", "Field", "TypeAdapter", "WithJsonSchema") if name in words]
        lines += [""] if lines and (made or "TypeAliasType" in words) else []
        if made:
            lines.append(f"from pydantic import {', '.join(made)}")
        if "TypeAliasType" in words:
            lines.append("from typing_extensions import TypeAliasType")
        head = "\n".join(lines)
        return "\n\n\n".join(part for part in (head, body.rstrip("\n"), rebuilt.rstrip("\n")) if part) + "\n"

    # -------------------------------------------------------------------------------------------------------------- types

    def _described(self, schema: Any, where: str, hint: str) -> Part:
        """With its own description, where no field carries that."""
        found = self._part(schema, where, hint)
        told = self._told(schema) if isinstance(schema, Mapping) and "properties" not in schema else {}
        return _annotated(found, told)

    @staticmethod
    def _told(schema: Mapping[str, Any]) -> dict[str, Any]:
        told: dict[str, Any] = {}
        if schema.get("description"):
            told["description"] = str(schema["description"])
        if isinstance(schema.get("examples"), list):
            told["examples"] = schema["examples"]
        return told

    def _part(self, schema: Any, where: str, hint: str) -> Part:
        try:
            return self._read(schema, where, hint)
        except BadInput:
            if not self._loose:
                raise
            kept = {name: value for name, value in schema.items() if name not in ("description", "default", "examples")}
            return Part(Annotated[Any, WithJsonSchema(kept)], f"Annotated[Any, WithJsonSchema({literal(kept)})]")

    def _read(self, schema: Any, where: str, hint: str) -> Part:
        if schema is True or schema == {}:
            return Part(Any, "Any")
        if not isinstance(schema, Mapping):
            _refuse(where, f"a schema is an object, not {schema!r:.40}")
        if schema.get("nullable") is True:
            return _union([self._part({k: v for k, v in schema.items() if k != "nullable"}, where, hint), _NONE])
        more = {name: schema[name] for name in schema if name in _HINTS or name.startswith("x-")}
        for name in schema:
            if name not in _KNOWN and name not in more and not (self._loose and name == "prefixItems"):
                _refuse(where, f"{name} cannot be checked here", name)
        return _annotated(self._shape(schema, where, hint), {"json_schema_extra": more} if more else {})

    def _shape(self, schema: Mapping[str, Any], where: str, hint: str) -> Part:
        if "$ref" in schema:
            self._alone(schema, where, "$ref")
            return self._reference(str(schema["$ref"]), where)
        for name in ("anyOf", "oneOf"):
            if name in schema:
                self._alone(schema, where, name, "discriminator")
                return self._choice(schema, schema[name], where, hint)
        if "allOf" in schema:
            return self._merged(schema, where, hint)
        if "const" in schema or "enum" in schema:
            self._alone(schema, where, "const", "enum", "type")
            return self._literals(schema, where)
        kind = schema.get("type", _guessed(schema))
        if isinstance(kind, list):
            several = [self._part(_only_of(schema, one), where, hint) for one in kind]
            return _union(several) if several else _refuse(where, "type is an empty list", "type")
        if kind is None:
            return Part(Any, "Any")
        if kind not in TYPES:
            _refuse(where, f"type is one of {', '.join(TYPES)}, not {kind!r}", "type")
        for bounds_of, bounds in _BOUNDS.items():
            for name in bounds:
                if name in schema and name not in _BOUNDS.get(kind, {}):
                    _refuse(where, f"{name} says something of a {bounds_of}, and the type is {kind}", name)
        made: Part = getattr(self, f"_{kind}")(schema, where, hint)
        return made

    def _alone(self, schema: Mapping[str, Any], where: str, *names: str) -> None:
        for name in schema:
            if name not in names and name not in _SAYS and name not in _HINTS and not name.startswith("x-"):
                _refuse(where, f"{name} beside {names[0]} cannot be checked here", name)

    def _string(self, schema: Mapping[str, Any], where: str, hint: str) -> Part:
        form = schema.get("format")
        if form in _FORMATS and not any(name in schema for name in _BOUNDS["string"]):
            return Part(*_FORMATS[str(form)])
        if isinstance(schema.get("pattern"), str):
            try:
                TypeAdapter(Annotated[str, Field(pattern=schema["pattern"])])
            except Exception:  # what pydantic-core raises has no public name
                _refuse(where, "this pattern cannot be checked here (look-around and references are not known)", "pattern")
        told = self._bounds(schema, "string", where)
        return _annotated(Part(str, "str"), told | ({"json_schema_extra": {"format": form}} if form else {}))

    def _integer(self, schema: Mapping[str, Any], where: str, hint: str) -> Part:
        return _annotated(Part(int, "int"), self._bounds(schema, "integer", where) | _form(schema))

    def _number(self, schema: Mapping[str, Any], where: str, hint: str) -> Part:
        return _annotated(Part(float, "float"), self._bounds(schema, "number", where) | _form(schema))

    def _boolean(self, schema: Mapping[str, Any], where: str, hint: str) -> Part:
        return Part(bool, "bool")

    def _null(self, schema: Mapping[str, Any], where: str, hint: str) -> Part:
        return _NONE

    def _array(self, schema: Mapping[str, Any], where: str, hint: str) -> Part:
        told = self._bounds(schema, "array", where)
        items = schema.get("items", True)
        if isinstance(items, list):
            _refuse(where, "a list of items, one for each place, cannot be checked here", "items")
        if "prefixItems" in schema:
            parts = [self._described(item, f"{where}[{place}]", f"{hint}{place}") for place, item in enumerate(schema["prefixItems"])]
            if told.get("min_length") != len(parts) or told.get("max_length") != len(parts) or "items" in schema:
                _refuse(where, "prefixItems of an open length", "prefixItems")
            text = f"tuple[{', '.join(part.text for part in parts)}]"
            return Part(tuple[tuple(part.type for part in parts)], text, any(part.later for part in parts))  # type: ignore[misc]
        item = self._described(items, f"{where}[]", f"{hint}Item" if hint.endswith("s") is False else hint[:-1])
        kind, word = (set, "set") if schema.get("uniqueItems") is True else (list, "list")
        if (
            kind is set
            and not self._loose
            and not (isinstance(items, Mapping) and (items.get("type") in ("string", "integer") or "enum" in items))
        ):
            _refuse(where, "uniqueItems of anything but texts, whole numbers and choices cannot be checked here", "uniqueItems")
        return _annotated(Part(kind[item.type], f"{word}[{item.text}]", item.later), told)  # type: ignore[index]

    def _object(self, schema: Mapping[str, Any], where: str, hint: str) -> Part:
        if schema.get("properties"):
            return self._class(schema, self._named(titled(hint)), where, about=str(schema.get("description") or ""))
        if schema.get("required"):
            _refuse(where, "required names fields that properties does not have", "required")
        more = schema.get("additionalProperties", True)
        if more is False:
            _refuse(where, "the object has no fields", "properties")
        keys = self._part(schema["propertyNames"], where, f"{hint}Name") if "propertyNames" in schema else Part(str, "str")
        values = self._described(more, f"{where}.*", f"{hint}Value")
        made = Part(dict[keys.type, values.type], f"dict[{keys.text}, {values.text}]", keys.later or values.later)  # type: ignore[name-defined]
        return _annotated(made, self._bounds(schema, "object", where))

    def _bounds(self, schema: Mapping[str, Any], kind: str, where: str) -> dict[str, Any]:
        told = {ours: schema[name] for name, ours in _BOUNDS[kind].items() if name in schema}
        for theirs, ours, plain in (("exclusiveMinimum", "gt", "ge"), ("exclusiveMaximum", "lt", "le")):
            if isinstance(told.get(ours), bool):  # draft 4 said it in another way
                if told.pop(ours) and plain in told:
                    told[ours] = told.pop(plain)
                elif theirs in schema and schema[theirs] and ours not in told:
                    _refuse(where, f"{theirs} is true, and there is no bound beside it", theirs)
        for ours, value in told.items():
            right = isinstance(value, str) if ours == "pattern" else isinstance(value, int | float) and not isinstance(value, bool)
            if not right or (ours in ("min_length", "max_length") and not isinstance(value, int)):
                name = next(name for name, word in _BOUNDS[kind].items() if word == ours or _BOUNDS[kind][name][0] == ours[0])
                _refuse(where, f"{name} is {value!r:.40}", name)
        return told

    def _literals(self, schema: Mapping[str, Any], where: str) -> Part:
        values = [schema["const"]] if "const" in schema else schema["enum"]
        if not isinstance(values, list) or not values:
            _refuse(where, "enum lists no choice", "enum")
        kinds = schema.get("type")
        kinds = set(kinds if isinstance(kinds, list) else [kinds]) if kinds else None
        different: list[Any] = []
        for value in values:
            if isinstance(value, list | dict):
                _refuse(where, "a choice that is an object or a list cannot be checked here", "enum" if "enum" in schema else "const")
            if not any(value == other and type(value) is type(other) for other in different):
                different.append(value)
        if kinds is not None:
            different = [value for value in different if _kind(value) & kinds]
            if not different:
                _refuse(where, "no choice is of the type", "enum")
        named = different if self._loose else [value for value in different if value is not None]
        parts = [Part(Literal[tuple(named)], f"Literal[{', '.join(map(literal, named))}]")] if named else []  # type: ignore[valid-type]
        return _union([*parts, *([_NONE] if len(named) < len(different) else [])])

    def _choice(self, schema: Mapping[str, Any], options: Any, where: str, hint: str) -> Part:
        if not isinstance(options, list) or not options:
            _refuse(where, "there is nothing to choose from", "anyOf")
        several = len([one for one in options if isinstance(one, Mapping) and "properties" in one]) > 1
        parts = [self._described(one, where, f"{hint}{place}" if several else hint) for place, one in enumerate(options, 1)]
        told = schema.get("discriminator")
        name = told.get("propertyName") if isinstance(told, Mapping) else told
        found = _union(parts)
        return _annotated(found, {"discriminator": name}) if isinstance(name, str) and len(parts) > 1 and self._loose else found

    def _merged(self, schema: Mapping[str, Any], where: str, hint: str) -> Part:
        parts = [_without(schema, "allOf", *_SAYS), *schema["allOf"]]
        parts = [part for part in parts if part]
        if len(parts) == 1:
            return self._part(parts[0], where, hint)
        whole: dict[str, Any] = {"type": "object", "properties": {}, "required": []}
        for part in parts:
            target = self._found(str(part["$ref"]), where) if isinstance(part, Mapping) and "$ref" in part else part
            if not isinstance(target, Mapping) or set(_without(target, *_SAYS)) - {"type", "properties", "required"}:
                _refuse(where, "allOf of anything but objects cannot be checked here", "allOf")
            for name, member in (target.get("properties") or {}).items():
                if whole["properties"].setdefault(name, member) != member:
                    _refuse(where, f"allOf says two things of {name}", "allOf")
            whole["required"] += target.get("required") or []
        return self._part({**whole, "description": schema.get("description", "")}, where, hint)

    # --------------------------------------------------------------------------------------------------- names and classes

    def _found(self, ref: str, where: str) -> Any:
        found: Any = self._root
        if not ref.startswith("#"):
            _refuse(where, f"$ref {ref!r} leads out of the schema", "$ref")
        for said in ref[1:].split("/")[1:]:
            step = said.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, Mapping) or step not in found:
                _refuse(where, f"$ref {ref!r} leads nowhere", "$ref")
            found = found[step]
        return found

    def _reference(self, ref: str, where: str) -> Part:
        ref = ref if ref != "#/" else "#"
        if ref in self._made:
            return self._made[ref]
        if ref in self._open:
            self._open[ref][1] = True  # it leads back into itself
            name = self._open[ref][0]
            return Part(typing.ForwardRef(name), name, True)
        target = self._found(ref, where)
        if isinstance(target, Mapping) and target == _without(self._root, "$defs", "definitions") and "#" in self._open:
            return self._reference("#", where)
        name = ref.rpartition("/")[2]
        name = self._named(name if self._loose else titled(name))
        entry = self._open[ref] = [name, False]
        where = f"{where} ({name})" if where else name
        if isinstance(target, Mapping) and target.get("properties"):
            made = self._class(target, name, where, about=str(target.get("description") or ""))
        else:
            made = self._described(target, where, name)
            if entry[1]:
                alias = TypeAliasType(name, made.type)  # type: ignore[misc]
                self._namespace[name] = alias
                self._lines.append(f"{name} = TypeAliasType({literal(name)}, {_quoted(made)})\n")
                made = Part(alias, name)
        del self._open[ref]
        self._made[ref] = made
        return made

    def _named(self, hint: str) -> str:
        base = name = class_name(hint)
        number = 1
        while name in self._names:
            number += 1
            name = f"{base}{number}"
        self._names.add(name)
        return name

    def _class(self, schema: Mapping[str, Any], name: str, where: str, about: str) -> Part:
        for keyword_ in schema:
            if keyword_ in _KNOWN | {"properties"} or keyword_ in _HINTS or keyword_.startswith("x-"):
                continue
            if not self._loose:
                _refuse(where, f"{keyword_} cannot be checked here", keyword_)
        if not self._loose:
            self._alone(_without(schema, "required", "properties", "additionalProperties"), where, "type")
        properties = schema.get("properties")
        if not isinstance(properties, Mapping) or not properties:
            _refuse(where, "the object has no fields", "properties")
        required = schema.get("required") or []
        strange = [one for one in required if one not in properties] if isinstance(required, list) else [required]
        if strange:
            _refuse(where, f"required names {strange[0]!r}, which properties does not have", "required")
        closed = schema.get("additionalProperties")
        if isinstance(closed, Mapping) and closed:
            _refuse(where, "additionalProperties with a type, beside properties, cannot be checked here", "additionalProperties")
        extra = {False: "forbid", True: "allow"}.get(closed) if isinstance(closed, bool) else None
        fields: dict[str, Any] = {}
        lines: list[str] = []
        taken: set[str] = set()
        later = False
        for said, member in properties.items():
            part = self._part(member, f"{where}.{said}".lstrip("."), said)
            key, key_told = spelled(said)
            told = self._told(member) if isinstance(member, Mapping) and "properties" not in member else {}
            part, default, default_text = self._default(part, member, said in required)
            whole: dict[str, Any] = default | told | key_told
            fields[key] = (part.type, Field(**whole))
            word = _identifier(said, taken | self._names)
            taken.add(word)
            spoken = [*default_text, *(f"{one}={literal(value)}" for one, value in told.items())]
            spoken += [f"alias={literal(said)}"] if word != said else []
            lines.append(f"    {word}: {_quoted(part)}" + (f" = Field({', '.join(spoken)})" if spoken else ""))
            later = later or part.later
        about = inspect.cleandoc(about)
        made = model_of(name, fields, about or None, extra)
        self._namespace[name] = made
        if later:
            self._later.append(made)
        head = [f"class {name}(BaseModel):"]
        if about:
            head += [f"    {_docstring(about)}", ""]
        if extra:
            head += [f'    model_config = ConfigDict(extra="{extra}")', ""]
        self._lines.append("\n".join([*head, *lines]) + "\n")
        return Part(made, name)

    def _default(self, part: Part, member: Any, required: bool) -> tuple[Part, dict[str, Any], list[str]]:
        """What stands for a field that an answer leaves out."""
        if isinstance(member, Mapping) and "default" in member:
            given = member["default"]
            try:
                value = TypeAdapter(part.type).validate_python(given)
            except Exception:  # a default need not be valid, and a class that is not whole yet cannot tell
                value = given
            same = value == given and isinstance(given, type(value))
            return part, {"default": value}, [literal(given) if same else f"TypeAdapter({part.text}).validate_python({literal(given)})"]
        if required:
            return part, {}, []
        if self._loose:
            # The schema of a class that fills the field in by a function of its own.
            kind = str(member.get("type")) if isinstance(member, Mapping) else ""
            made = {"array": "list", "object": "dict", "string": "str", "integer": "int", "number": "float", "boolean": "bool"}
            return part, {"default_factory": lambda: None}, [f"default_factory={made.get(kind, 'lambda: None')}"]
        return _union([part, _NONE]), {"default": None}, ["None"]


_NONE = Part(None, "None")


def _form(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"json_schema_extra": {"format": schema["format"]}} if "format" in schema else {}


def _only_of(schema: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """What a schema of several types says of one of them."""
    others = {name for bounds_of, bounds in _BOUNDS.items() if bounds_of != kind for name in bounds} - set(_BOUNDS.get(kind, {}))
    return {**_without(schema, *_SAYS - {"format"}, *others, *(() if kind == "string" else ("format",))), "type": kind}


def _guessed(schema: Mapping[str, Any]) -> str | None:
    """The type that a schema means where it names none."""
    if "properties" in schema or "additionalProperties" in schema:
        return "object"
    if "items" in schema or "prefixItems" in schema:
        return "array"
    return next((kind for kind, bounds in _BOUNDS.items() if kind != "integer" and any(name in schema for name in bounds)), None)


def _kind(value: Any) -> set[str]:
    if isinstance(value, bool):
        return {"boolean"}
    if isinstance(value, int):
        return {"integer", "number"}
    return {"number"} if isinstance(value, float) else {"null"} if value is None else {"string"}


def _without(schema: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in schema.items() if name not in names}


def _union(parts: Sequence[Part]) -> Part:
    different = list({part.text: part for part in parts}.values())
    if len(different) == 1:
        return different[0]
    text = " | ".join(part.text for part in different)
    return Part(Union[tuple(part.type for part in different)], text, any(part.later for part in different))  # noqa: UP007


def _annotated(part: Part, told: Mapping[str, Any]) -> Part:
    if not told:
        return part
    words = ", ".join(f"{name}={literal(value)}" for name, value in told.items())
    return Part(Annotated[part.type, Field(**told)], f"Annotated[{part.text}, Field({words})]", part.later)


def _quoted(part: Part) -> str:
    return literal(part.text) if part.later else part.text


def _docstring(about: str) -> str:
    return f'"""{about}"""' if about.isprintable() and '"' not in about and "\\" not in about else repr(about)


def _identifier(name: str, taken: set[str]) -> str:
    """A field's name in the text of a class; where it is another than in JSON, the field has an alias."""
    word = re.sub(r"\W+", "_", name).strip("_")
    word = word if word and not word[0].isdigit() else f"field_{word}".rstrip("_")
    word = (
        f"field_{word}"
        if word.startswith("model_") and (hasattr(BaseModel, word) or word.startswith(("model_validate", "model_dump")))
        else word
    )
    base = word = f"{word}_" if hasattr(BaseModel, word) or keyword.iskeyword(word) or word in _USED else word
    word = word if word.isidentifier() else "field"
    number = 1
    while word in taken:
        number += 1
        word = f"{base}{number}"
    return word


def _refuse(where: str, why: str, name: str = "") -> NoReturn:
    raise BadInput(f"the schema's field {where}: {why}" if where else f"the schema: {why}")
