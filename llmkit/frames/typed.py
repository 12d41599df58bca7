"""Dtypes of what a schema promises: known before the first answer, so that a column is the same whether none or all of its rows have one.

What a field may hold is read off the schema that pydantic compiled, where constraints, aliases, wrappers and references are resolved.
Columns are laid out in Arrow and handed to pandas as they are.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import accumulate, chain
from typing import Any

import pandas as pd
import pyarrow as pa
from pydantic_core import to_json, to_jsonable_python

from .columns import TEXT

__all__ = ["Choice", "Leaf", "Listed", "Mapped", "Part", "Record", "Type", "cells", "column", "either", "type_of"]


@dataclass(frozen=True)
class Leaf:
    """One value.

    Attributes
    ----------
    arrow : DataType
        How it lies inside of structs and lists.
    dtype : dtype
        Of a column of it; ``None`` is ``ArrowDtype(arrow)``.
    convert : callable, optional
        Makes of a value that is not missing what Arrow takes.
    """

    arrow: pa.DataType
    dtype: Any = None
    convert: Callable[[Any], Any] | None = None


@dataclass(frozen=True)
class Choice:
    """One of several values, in their order; ``codes`` has the place of each, and of the enum's member that stands for it."""

    values: tuple[Any, ...]
    codes: Mapping[Any, int]

    def __hash__(self) -> int:
        return hash(self.values)


@dataclass(frozen=True)
class Listed:
    """Any number of values of one type."""

    item: Type


@dataclass(frozen=True)
class Mapped:
    """Values by names that the schema does not know."""

    key: Type
    value: Type


@dataclass(frozen=True)
class Part:
    """A field: what it is called in the column, under which key an answer has it, and what it holds."""

    name: str
    key: Any
    type: Type


@dataclass(frozen=True)
class Record:
    """Fields by name."""

    parts: tuple[Part, ...]


Type = Leaf | Choice | Listed | Mapped | Record


def as_words(value: Any) -> str:
    """What has no type of its own as text: strings as they are, anything else as JSON has it."""
    if isinstance(value, str):
        return str(value)
    plain = to_jsonable_python(value, fallback=str)
    return plain if isinstance(plain, str) else to_json(plain).decode()


def _without_zone(value: datetime.datetime) -> datetime.datetime:
    return value if value.tzinfo is None else value.astimezone(datetime.UTC).replace(tzinfo=None)


def _moment(value: Any) -> datetime.datetime:
    """A date or a datetime as a datetime without a zone."""
    if isinstance(value, datetime.datetime):
        return _without_zone(value)
    return datetime.datetime(value.year, value.month, value.day)


_TEXT = Leaf(pa.string(), TEXT)
#: What is not always text.
_WORDS = Leaf(pa.string(), TEXT, as_words)
_INT = Leaf(pa.int64(), pd.Int64Dtype())
_FLOAT = Leaf(pa.float64(), pd.Float64Dtype())
#: Whole numbers and decimals among them: Arrow takes only Python's own floats for granted.
_NUMBER = Leaf(pa.float64(), pd.Float64Dtype(), float)
_DATETIME = Leaf(pa.timestamp("us"), "datetime64[us]", _without_zone)
_DATE = Leaf(pa.date32(), "datetime64[us]")
_MOMENT = Leaf(pa.timestamp("us"), "datetime64[us]", _moment)
_AWARE = Leaf(pa.timestamp("us", "UTC"), pd.DatetimeTZDtype("us", "UTC"))

_LEAVES: dict[str, Leaf] = {
    "str": _TEXT,
    "int": _INT,
    "float": _FLOAT,
    "decimal": _NUMBER,
    "bool": Leaf(pa.bool_(), pd.BooleanDtype()),
    "bytes": Leaf(pa.binary()),
    "date": _DATE,
    "datetime": _DATETIME,
    "time": Leaf(pa.time64("us")),
    "timedelta": Leaf(pa.duration("us"), "timedelta64[us]"),
    "url": _WORDS,
    "multi-host-url": _WORDS,
    "uuid": _WORDS,
}


# ---------------------------------------------------------------------------------------------------------- what a schema says


def type_of(schema: Mapping[str, Any]) -> Type:
    """What values of a compiled schema (``model.__pydantic_core_schema__``) are."""
    return _Reader().read(schema)


class _Reader:
    def __init__(self) -> None:
        self.definitions: dict[str, Mapping[str, Any]] = {}
        self.open: list[str] = []

    def read(self, schema: Mapping[str, Any]) -> Type:
        ref = schema.get("ref")
        if ref in self.open:
            return _WORDS  # what holds itself has no end that a dtype could know
        if ref is None:
            return self._read(schema)
        self.open.append(ref)
        try:
            return self._read(schema)
        finally:
            self.open.pop()

    def _read(self, schema: Mapping[str, Any]) -> Type:
        kind = schema["type"]
        made = (schema.get("serialization") or {}).get("return_schema") or {}
        if kind != "model" and made.get("type", "any") != "any":
            return self.read(made)  # a serializer of the caller's, which says what it makes
        if kind == "definitions":
            self.definitions |= {one["ref"]: one for one in schema["definitions"]}
            return self.read(schema["schema"])
        if kind == "definition-ref":
            found = self.definitions.get(schema["schema_ref"])
            return _WORDS if found is None or schema["schema_ref"] in self.open else self.read(found)
        if kind == "datetime" and schema.get("tz_constraint") == "aware":
            return _AWARE
        if kind == "decimal" and schema.get("decimal_places") is not None:
            return Leaf(pa.decimal128(38, schema["decimal_places"]))
        if kind in _LEAVES:
            return _LEAVES[kind]
        if kind == "literal":
            return _choice(schema["expected"])
        if kind == "enum":
            return _choice(schema["members"])
        if kind in ("list", "set", "frozenset", "generator"):
            return Listed(self.read(schema.get("items_schema") or {"type": "any"}))
        if kind == "tuple":
            return Listed(either([self.read(item) for item in schema["items_schema"]]))
        if kind == "dict":
            anything = {"type": "any"}
            return Mapped(self.read(schema.get("keys_schema") or anything), self.read(schema.get("values_schema") or anything))
        if kind in ("model-fields", "typed-dict", "dataclass-args", "named-tuple"):
            return self._record(schema)
        if kind in ("union", "tagged-union"):
            choices = schema["choices"]
            options = [one[0] if isinstance(one, tuple) else one for one in (choices.values() if isinstance(choices, Mapping) else choices)]
            return either([self.read(one) for one in options if isinstance(one, Mapping) and one["type"] != "none"])
        inner = next((schema[name] for name in ("schema", "json_schema", "strict_schema") if isinstance(schema.get(name), dict)), None)
        return _WORDS if inner is None else self.read(inner)

    def _record(self, schema: Mapping[str, Any]) -> Record:
        fields = schema["fields"]
        named = fields.items() if isinstance(fields, Mapping) else [(field["name"], field) for field in fields]
        places = schema["type"] == "named-tuple"
        parts = [
            Part(field.get("serialization_alias") or name, place if places else name, self.read(field["schema"]))
            for place, (name, field) in enumerate(named)
            if not field.get("serialization_exclude")
        ]
        computed = schema.get("computed_fields") or ()
        parts += [Part(one.get("alias") or one["property_name"], one["property_name"], self.read(one["return_schema"])) for one in computed]
        return Record(tuple(parts))


def _choice(members: Sequence[Any]) -> Type:
    said = [member for member in members if member is not None]
    values = [member.value if isinstance(member, Enum) else member for member in said]
    try:
        distinct = tuple(dict.fromkeys(values))
    except TypeError:  # an enum of what cannot be looked up
        values = [member.name if isinstance(member, Enum) else as_words(member) for member in said]
        distinct = tuple(dict.fromkeys(values))
    if not distinct:
        return _WORDS
    places = {value: place for place, value in enumerate(distinct)}
    codes = dict(places)
    for member, value in zip(said, values, strict=True):
        codes[member] = places[value]
    return Choice(distinct, codes)


def either(types: Sequence[Type]) -> Type:
    """One type for what may be of any of these."""
    distinct = list(dict.fromkeys(types))
    if len(distinct) == 1:
        return distinct[0]
    if distinct and all(isinstance(one, Leaf) for one in distinct):
        if {one.arrow for one in distinct} <= {pa.int64(), pa.float64()}:  # type: ignore[union-attr]
            return _NUMBER
        if set(distinct) <= {_DATE, _DATETIME, _AWARE, _MOMENT}:
            return _MOMENT
    if distinct and all(isinstance(one, Choice) for one in distinct):
        return _choice([member for one in distinct for member in one.codes])  # type: ignore[union-attr]
    if distinct and all(isinstance(one, Listed) for one in distinct):
        return Listed(either([one.item for one in distinct]))  # type: ignore[union-attr]
    if distinct and all(isinstance(one, Mapped) for one in distinct):
        return Mapped(either([one.key for one in distinct]), either([one.value for one in distinct]))  # type: ignore[union-attr]
    if distinct and all(isinstance(one, Record) and all(isinstance(part.key, str) for part in one.parts) for one in distinct):
        found: dict[tuple[str, Any], list[Type]] = {}
        for part in chain.from_iterable(one.parts for one in distinct):  # type: ignore[union-attr]
            found.setdefault((part.name, part.key), []).append(part.type)
        if len({name for name, _ in found}) == len(found):
            return Record(tuple(Part(name, key, either(types)) for (name, key), types in found.items()))
    return _WORDS


# ----------------------------------------------------------------------------------------------------------- values to columns


def column(kind: Type, values: Sequence[Any]) -> Any:
    """The values as an array of the type's dtype, ``None`` missing.

    Whole numbers beyond 64 bits make the column ``decimal128(38, 0)``; what fits no dtype of the type (a validator of the caller's may
    hand on anything) is taken as pandas takes it.
    """
    try:
        return _column(kind, values)
    except (pa.ArrowException, TypeError, ValueError, OverflowError, AttributeError, KeyError, IndexError):
        pass
    if kind == _INT:
        try:
            return pd.arrays.ArrowExtensionArray(pa.array(values, pa.decimal128(38, 0)))
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            pass
    return pd.Series(list(values), dtype=None if isinstance(kind, Leaf | Choice) else "object").array


def _column(kind: Type, values: Sequence[Any]) -> Any:
    if isinstance(kind, Choice):
        codes = [-1 if value is None else kind.codes[value] for value in values]
        return pd.Categorical.from_codes(codes, dtype=pd.CategoricalDtype(list(kind.values)))
    laid = _laid(kind, values)
    dtype = kind.dtype if isinstance(kind, Leaf) else None
    if dtype is None:
        return pd.arrays.ArrowExtensionArray(laid)
    if dtype is TEXT:
        return pd.array(laid, dtype=TEXT)
    if isinstance(dtype, str):  # numpy's own
        if pa.types.is_date(laid.type):
            laid = laid.cast(pa.timestamp("us"))
        return pd.array(laid.to_numpy(zero_copy_only=False), dtype=dtype)
    return dtype.__from_arrow__(laid)


def _laid(kind: Type, values: Sequence[Any]) -> pa.Array:
    if isinstance(kind, Leaf):
        if kind.convert is not None:
            convert = kind.convert
            values = [None if value is None else convert(value) for value in values]
        elif kind is _TEXT and not set(map(type, values)) <= {str, type(None)}:
            values = [None if value is None else as_words(value) for value in values]
        return pa.array(values, kind.arrow, from_pandas=pa.types.is_floating(kind.arrow))
    if isinstance(kind, Choice):
        choices = [None if value is None else kind.values[kind.codes[value]] for value in values]
        try:
            return pa.array(choices, pa.array(kind.values).type)
        except (pa.ArrowException, TypeError):  # values of several types
            return pa.array([None if choice is None else as_words(choice) for choice in choices], pa.string())
    if isinstance(kind, Listed):
        rows = [sorted(row, key=as_words) if isinstance(row, set | frozenset) else row for row in values]
        return pa.ListArray.from_arrays(_offsets(rows), _laid(kind.item, list(chain.from_iterable(row for row in rows if row is not None))))
    if isinstance(kind, Mapped):
        filled = [row for row in values if row is not None]
        keys = _laid(kind.key, list(chain.from_iterable(filled)))
        return pa.MapArray.from_arrays(_offsets(values), keys, _laid(kind.value, [value for row in filled for value in row.values()]))
    if not kind.parts:
        return pa.array([None if value is None else {} for value in values], pa.struct([]))
    parts = [_laid(part.type, cells(values, part.key)) for part in kind.parts]
    mask = pa.array([value is None for value in values], pa.bool_())
    return pa.StructArray.from_arrays(parts, [part.name for part in kind.parts], mask=mask)


def _offsets(rows: Sequence[Any]) -> pa.Array:
    """Where each row's items begin; a missing row begins nowhere."""
    ends = accumulate((0 if row is None else len(row) for row in rows), initial=0)
    return pa.array([None if row is None else end for row, end in zip([*rows, ()], ends, strict=True)], pa.int32())


def cells(values: Sequence[Any], key: Any) -> list[Any]:
    """What each answer has under this key."""
    if isinstance(key, int):
        return [None if value is None else value[key] for value in values]
    return [None if value is None else value.get(key) for value in values]
