"""The fields of a record as lines of a grid: a JSON schema in the form that a person edits, read from one and written as one."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import llmkit

__all__ = ["AS_GIVEN", "CHOICES", "KINDS", "FieldGrid", "Line"]

#: What a field may be, and the JSON schema of each; the choices are added to those that have some.
KINDS: dict[str, dict[str, Any]] = {
    "text": {"type": "string"},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "date": {"type": "string", "format": "date"},
    "datetime": {"type": "string", "format": "date-time"},
    "choice": {"type": "string"},
    "list of texts": {"type": "array", "items": {"type": "string"}},
    "list of choices": {"type": "array", "items": {"type": "string"}},
}

CHOICES = frozenset({"choice", "list of choices"})

#: A type that the grid has no word for, such as a nested model or a number with bounds: kept as it came.
AS_GIVEN = "as given"

_WORDS = {
    "str": "text", "string": "text", "int": "integer", "float": "number", "bool": "boolean", "date-time": "datetime",
    "list": "list of texts", "list[str]": "list of texts",
}  # fmt: skip
_TYPES: dict[Any, str] = {
    str: "text", int: "integer", float: "number", bool: "boolean", datetime.date: "date", datetime.datetime: "datetime",
    list: "list of texts", list[str]: "list of texts",
}  # fmt: skip

_LONGEST_NAME = 64


@dataclass(frozen=True)
class Line:
    """One field.

    Attributes
    ----------
    number : int
        Tells it from the others, whatever its name becomes.
    given : dict
        The JSON schema of a type that the grid has no word for.
    """

    number: int
    name: str
    type: str = "text"
    description: str = ""
    optional: bool = False
    choices: tuple[str, ...] = ()
    given: Mapping[str, Any] = field(default_factory=dict)

    def schema(self) -> dict[str, Any]:
        """The property of a JSON schema that it is."""
        if self.type == AS_GIVEN:
            made = dict(self.given)
        elif self.type == "choice":
            made = {**KINDS[self.type], "enum": list(self.choices)}
        elif self.type == "list of choices":
            made = {"type": "array", "items": {"type": "string", "enum": list(self.choices)}}
        else:
            made = dict(KINDS[self.type])
        return {**made, "description": self.description} if self.description else made


class FieldGrid:
    """The fields of one record.

    Attributes
    ----------
    name, about : str
        What the record is called, and what is told of it.
    lines : list of Line
    """

    def __init__(self, name: str = "Answer", about: str = "") -> None:
        self.name = name
        self.about = about
        self.lines: list[Line] = []
        self._defs: dict[str, Any] = {}
        self._numbers = 0

    # -------------------------------------------------------------------------------------------------------------- editing

    def line(self, name: str) -> Line:
        """The field of this name."""
        for one in self.lines:
            if one.name == name:
                return one
        there = ", ".join(one.name for one in self.lines)
        raise llmkit.BadInput(f"there is no field {name!r}; there {'is ' + there if there else 'are none'}")

    def numbered(self, number: int) -> Line:
        for one in self.lines:
            if one.number == number:
                return one
        raise llmkit.BadInput("this field is gone")

    def add(
        self, name: str, type: Any = None, description: str = "", optional: bool = False, choices: Iterable[str] | str | None = None
    ) -> Line:
        made = self._checked(
            Line(self._numbers + 1, name),
            {"name": name, "type": type, "description": description, "optional": optional, "choices": choices},
        )
        self._numbers += 1
        self.lines.append(made)
        return made

    def edit(self, line: Line, changes: Mapping[str, Any]) -> Line:
        made = self._checked(line, changes)
        self.lines[self.lines.index(line)] = made
        return made

    def remove(self, line: Line) -> None:
        self.lines.remove(line)

    def free_name(self) -> str:
        taken = {one.name for one in self.lines}
        return next(name for name in (f"field_{number}" for number in range(1, len(taken) + 2)) if name not in taken)

    def wrong(self, line: Line, changes: Mapping[str, Any]) -> str:
        """Of changes that make no field, what is to be mended."""
        try:
            self._checked_name(changes.get("name", line.name), line)
        except llmkit.BadInput:
            return "name"
        return "choices"

    def _checked(self, line: Line, changes: Mapping[str, Any]) -> Line:
        """The line with the changes; ``None`` changes nothing.

        Raises
        ------
        BadInput
            The name or the type is none, or another field has the name.
        """
        told: dict[str, Any] = {name: value for name, value in changes.items() if value is not None}
        if "name" in told:
            told["name"] = self._checked_name(told["name"], line)
        if "description" in told:
            told["description"] = " ".join(str(told["description"]).split())
        if "optional" in told:
            told["optional"] = bool(told["optional"])
        if "choices" in told:
            told["choices"] = _choices(told["choices"])
        kind = told.get("type", line.type)
        if "type" not in told and told.get("choices") and kind not in CHOICES:
            kind = "choice"
        kind = told["type"] = _kind(kind, bool(line.given))
        made = replace(line, **told)
        if kind in CHOICES and len(made.choices) < 2:
            raise llmkit.BadInput(f"{made.name}: a choice needs at least two values")
        return made

    def _checked_name(self, said: Any, line: Line) -> str:
        name = said.strip() if isinstance(said, str) else ""
        if not name:
            raise llmkit.BadInput("a field needs a name")
        # A schema may have come with a name of another kind, which is then kept.
        if name != line.name or line not in self.lines:
            if not name.isidentifier() or name.startswith("_"):
                raise llmkit.BadInput(f"{name[:_LONGEST_NAME]!r} is no name for a field: letters, digits and _, a letter first")
            if len(name) > _LONGEST_NAME:
                raise llmkit.BadInput(f"a field's name has {_LONGEST_NAME} characters at the most")
        if any(one.name == name for one in self.lines if one.number != line.number):
            raise llmkit.BadInput(f"there is a field {name!r} already")
        return name

    # --------------------------------------------------------------------------------------------------------- JSON schemas

    def json_schema(self) -> dict[str, Any]:
        """The JSON schema of the record; what is optional may be left out, and is then null."""
        if not self.lines:
            raise llmkit.BadInput("there are no fields: add one, or begin from a sentence, an example or a schema")
        made: dict[str, Any] = {"type": "object", "title": self.name}
        if self.about:
            made["description"] = self.about
        made["properties"] = {line.name: line.schema() for line in self.lines}
        made["required"] = [line.name for line in self.lines if not line.optional]
        return {**made, "$defs": self._defs} if self._defs else made

    @classmethod
    def of_json(cls, schema: Mapping[str, Any]) -> FieldGrid:
        """The grid of an object's JSON schema, as pydantic writes it."""
        grid = cls(str(schema.get("title") or "Answer"), str(schema.get("description") or ""))
        grid._defs = dict(schema.get("$defs") or {})
        needed = set(schema.get("required") or ())
        for name, part in schema.get("properties", {}).items():
            grid._numbers += 1
            grid.lines.append(grid._read(grid._numbers, name, part, name not in needed))
        # Definitions that no field refers to any more are carried by nobody.
        if not any(line.type == AS_GIVEN for line in grid.lines):
            grid._defs = {}
        return grid

    def _read(self, number: int, name: str, part: Mapping[str, Any], optional: bool) -> Line:
        told = self._resolved(part)
        if isinstance(told.get("anyOf"), list) and {"type": "null"} in told["anyOf"]:
            others = [one for one in told["anyOf"] if one != {"type": "null"}]
            outside = {key: value for key, value in told.items() if key != "anyOf"}
            told = {**self._resolved(others[0]), **outside} if len(others) == 1 else {**outside, "anyOf": others}
            optional = True
        description = " ".join(str(told.get("description") or "").split())
        bare = {key: value for key, value in told.items() if key not in ("title", "description") and (key, value) != ("default", None)}
        kind, choices = self._kind_of(bare)
        return Line(number, name, kind, description, optional, choices, bare if kind == AS_GIVEN else {})

    def _resolved(self, part: Mapping[str, Any]) -> dict[str, Any]:
        """The definition that a reference names, where it is a plain one, such as a choice."""
        target = self._defs.get(str(part.get("$ref", "")).removeprefix("#/$defs/"))
        if target is None or "properties" in target:
            return dict(part)
        outside = {key: value for key, value in part.items() if key != "$ref"}
        inside = {key: value for key, value in target.items() if key != "title"}
        return {**inside, **outside}

    def _kind_of(self, bare: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
        for kind, schema in KINDS.items():
            if bare == schema and kind not in CHOICES:
                return kind, ()
        items = bare.get("items")
        if bare.get("type") == "array" and isinstance(items, Mapping) and not set(bare) - {"type", "items"}:
            found = _listed(self._resolved(items))
            return ("list of choices", found) if found else (AS_GIVEN, ())
        found = _listed(bare)
        return ("choice", found) if found else (AS_GIVEN, ())

    @classmethod
    def of_example(cls, example: Mapping[str, Any]) -> FieldGrid:
        """The grid of one record as it may look: a field for each of its values, of the type that the value has."""
        if not isinstance(example, Mapping) or not example:
            raise llmkit.BadInput('an example is a dict of the values of one row, e.g. {"city": "Lyon", "people": 2}')
        properties = {str(name): _schema_of(value) for name, value in example.items()}
        known = [str(name) for name, value in example.items() if value is not None]
        return cls.of_json({"type": "object", "title": "Answer", "properties": properties, "required": known})


def _kind(said: Any, given: bool) -> str:
    kind = _TYPES.get(said) if isinstance(said, type) or not isinstance(said, str) else _WORDS.get(said.strip(), said.strip())
    if kind in KINDS or (kind == AS_GIVEN and given):
        return str(kind)
    raise llmkit.BadInput(f"a field's type is one of {', '.join(KINDS)}, not {str(said)[:40]!r}")


def _choices(said: Iterable[Any] | str) -> tuple[str, ...]:
    parts = re.split(r"[|\n]" if "|" in said or "\n" in said else ",", said) if isinstance(said, str) else [str(one) for one in said]
    return tuple(dict.fromkeys(" ".join(one.split()) for one in parts if one.strip()))


def _listed(bare: Mapping[str, Any]) -> tuple[str, ...]:
    """The texts of a choice, none where it is something else."""
    values = bare.get("enum")
    if set(bare) - {"type", "enum"} or not isinstance(values, list) or len(values) < 2 or not all(isinstance(one, str) for one in values):
        return ()
    return tuple(values)


def _schema_of(value: Any) -> dict[str, Any]:
    """The JSON schema that a value of an example is one of."""
    if isinstance(value, bool):
        return {"type": "boolean"}
    if isinstance(value, int):
        return {"type": "integer"}
    if isinstance(value, float):
        return {"type": "number"}
    if isinstance(value, datetime.datetime):
        return dict(KINDS["datetime"])
    if isinstance(value, datetime.date):
        return dict(KINDS["date"])
    if isinstance(value, str):
        return dict(KINDS["date"] if re.fullmatch(r"\d{4}-\d\d-\d\d", value) else KINDS["text"])
    if isinstance(value, list | tuple):
        return {"type": "array", "items": _schema_of(value[0]) if value else {"type": "string"}}
    if isinstance(value, Mapping) and value:
        inside = {str(name): _schema_of(one) for name, one in value.items()}
        return {"type": "object", "properties": inside, "required": list(inside)}
    if value is None:
        return {"type": "string"}
    raise llmkit.BadInput(f"an example holds texts, numbers, lists and dicts, not {json.dumps(type(value).__name__)}")
