"""What a caller may give as a schema, made one thing: a pydantic model whose JSON schema is sent, and which checks what comes back."""

from __future__ import annotations

import dataclasses
import datetime
import inspect
import re
import sys
import types
import typing
import warnings
from collections import abc
from collections.abc import Iterator, Mapping
from enum import Enum
from functools import cached_property
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import typing_extensions
from pydantic import AliasChoices, BaseModel, Field, RootModel, TypeAdapter, model_validator
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUndefinedAnnotation, PydanticUserError
from pydantic.fields import FieldInfo
from pydantic.json_schema import PydanticJsonSchemaWarning
from pydantic_core import SchemaError

from ..errors import BadInput
from .answers import Extracted, Invalid, Reader
from .chat import Schema
from .json_schemas import Reader as JsonReader
from .json_schemas import class_name, first_line, is_json_schema, model_of, plain_schema, spelled, titled

__all__ = ["Extracted", "Fields", "InferredSchema", "Invalid", "fields_of", "name_in_json"]

Kind = Literal["record", "value", "records"]


class Fields:
    """What is asked for.

    Attributes
    ----------
    name : str
        What the answer is called to the model.
    kind : {"record", "value", "records"}
        A row becomes several columns, one value, or any number of records.
    model : type of BaseModel
        What an answer is checked with; ``value`` and ``records`` are wrapped in an object, which vendors demand, under the name ``inner``.
    record : type of BaseModel or None
        The columns: of the row, or of each of its records.
    """

    def __init__(self, name: str, kind: Kind, model: type[BaseModel], record: type[BaseModel] | None) -> None:
        self.name = name
        self.kind = kind
        self.model = model
        self.record = record
        self._reader = Reader(name, model, self.inner)

    @property
    def inner(self) -> str:
        return {"record": "", "value": "value", "records": "items"}[self.kind]

    @cached_property
    def json_schema(self) -> dict[str, Any]:
        """What is sent of the model: without titles, which cost tokens, and without its description, which goes beside."""
        return {name: value for name, value in self._whole.items() if name != "description"}

    @cached_property
    def _whole(self) -> dict[str, Any]:
        return plain_schema(self._written)

    @cached_property
    def _written(self) -> dict[str, Any]:
        """The JSON schema as pydantic writes it."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", PydanticJsonSchemaWarning)  # a default that JSON has no form for is left out
                return self.model.model_json_schema()
        except (PydanticInvalidForJsonSchema, PydanticUserError, SchemaError) as error:
            raise BadInput(f"{self.name} has a field that JSON has no form for: {_culprit(self.model, error)}") from None

    @property
    def about(self) -> str:
        """What the answer is, as the caller described it."""
        return str(self._whole.get("description", ""))

    @property
    def defined_as(self) -> str:
        """The class or type that ``source`` ends with."""
        return class_name(self.model.__name__ if self.kind == "record" else self.name)

    @cached_property
    def source(self) -> str:
        """Python that defines the same, as pydantic classes: carried out, it has under ``defined_as`` what makes equal fields.

        The checks of validators are no part of a JSON schema, and so are no part of this.
        """
        if self.kind == "record":
            reader = JsonReader(self._whole, self.defined_as, loose=True)
            reader.record()
        else:
            defined = {name: part for name, part in self._whole.items() if name == "$defs"}
            reader = JsonReader({**self._whole["properties"][self.inner], **defined}, self.defined_as, loose=True)
            reader.value()
        return reader.source

    def schema(self, mode: str = "") -> Schema:
        """What is sent, asked for in this mode."""
        return Schema(self.name, self.json_schema, mode, self.about)

    @cached_property
    def runs_code(self) -> bool:
        """Whether checking an answer runs functions of the caller's, which may take long."""
        return _has_functions(self.model.__pydantic_core_schema__)

    def read(self, text: str, cut: bool = False) -> Extracted:
        """What an answer holds; ``cut`` where the vendor says that it ended before its end.

        Raises
        ------
        Invalid
            It holds no JSON, several objects that fit, or none that does.
        """
        return self._reader.read(text, cut)

    def checked(self, raw: str | bytes) -> Extracted:
        """What JSON holds, if it is valid.

        Raises
        ------
        ValidationError
        Invalid
        """
        return self._reader.checked(raw)


def _has_functions(schema: Any) -> bool:
    stack = [schema]
    while stack:
        part = stack.pop()
        if isinstance(part, dict):
            if str(part.get("type", "")).startswith("function-"):
                return True
            stack += part.values()
        elif isinstance(part, list | tuple):
            stack += part
    return False


def _culprit(model: type[BaseModel], error: Exception) -> str:
    """The field that is at fault, and what pydantic says of it."""
    for name, field in model.model_fields.items():
        inside = next((one for one in _walked(field.annotation) if isinstance(one, type) and issubclass(one, BaseModel)), None)
        try:
            TypeAdapter[Any](field.annotation).json_schema()  # type: ignore[arg-type]
        except Exception as fault:  # pydantic has several, and each says what it cannot describe
            return f"{name}.{_culprit(inside, fault)}" if inside is not None and inside is not model else f"{name} ({first_line(fault)})"
    return first_line(error)


def _walked(annotation: Any) -> Iterator[Any]:
    yield annotation
    for inside in typing.get_args(annotation):
        yield from _walked(inside)


# --------------------------------------------------------------------------------------------------------- what callers give

#: Types by the names that a mapping may give them.
_WORDS: dict[str, Any] = {
    "str": str, "string": str, "text": str, "int": int, "integer": int, "float": float, "number": float, "bool": bool, "boolean": bool,
    "date": datetime.date, "datetime": datetime.datetime,
}  # fmt: skip

#: pandas' names of dtypes are meant as such too: a column of them is what comes of it.
_WORDS |= dict.fromkeys(("int32", "int64", "Int32", "Int64"), int) | dict.fromkeys(("float32", "float64", "Float32", "Float64"), float)
_WORDS |= {"datetime64[ns]": datetime.datetime, "datetime64[us]": datetime.datetime}

#: What nobody describes a field with: a type whose name is none of ours.
_LIKE_A_TYPE = re.compile(
    r"list|dict|tuple|(?:typing\.)?(?:list|dict|set|tuple|Literal|Optional|Union|List|Dict|Set|Tuple)\[.*\]"
    r"|\w+(?:\[.*\])?(?: *\| *\w+)* *\| *None",
    re.DOTALL,
)

_LISTS = (list, abc.Sequence, abc.Iterable, abc.Collection, abc.MutableSequence)


def fields_of(given: Any) -> Fields:
    """The fields that a schema argument names.

    Parameters
    ----------
    given
        One of

        - a pydantic model, a dataclass, a ``TypedDict`` or a ``NamedTuple``: a record;
        - a mapping of names to what each field is: a type (``int``, or its name ``"int"``), ``(type, description)``, a description alone (a
          text then), a list of choices, a JSON schema, or a mapping again;
        - a JSON schema, or OpenAI's ``{"type": "json_schema", "json_schema": {...}}``;
        - a type, such as ``Literal``, an ``Enum``, ``bool``, ``list[str]``, ``int | None``: one value;
        - a list of records, ``list[Item]`` or ``[Item]``: any number of them.

    Raises
    ------
    BadInput
        What is no schema, has no fields, or has one that JSON has no form for.

    Examples
    --------
    >>> fields = fields_of({"city": "where it happened", "people": (int, "how many were hurt"), "cause": ["fire", "flood"]})
    >>> fields.kind, list(fields.json_schema["properties"])
    ('record', ['city', 'people', 'cause'])
    >>> print(fields.source)
    from typing import Literal
    <BLANKLINE>
    from pydantic import BaseModel, ConfigDict, Field
    <BLANKLINE>
    <BLANKLINE>
    class Answer(BaseModel):
        model_config = ConfigDict(extra="forbid")
    <BLANKLINE>
        city: str = Field(description="where it happened")
        people: int = Field(description="how many were hurt")
        cause: Literal["fire", "flood"]
    <BLANKLINE>
    >>> fields_of(list[int]).kind
    'value'
    """
    if isinstance(given, Fields):
        return given
    if isinstance(given, InferredSchema):
        given = given.model
    fields = _Makers().fields(given)
    _ = fields.json_schema  # what JSON has no form for is told now
    return fields


class InferredSchema(NamedTuple):
    """What ``llmkit.infer_schema`` proposes: a class, and the Python text that defines it."""

    model: type[BaseModel]
    source: str

    def __repr__(self) -> str:
        return f"<schema {self.model.__name__}: {', '.join(field.alias or name for name, field in self.model.model_fields.items())}>"


class _Makers:
    """Makes pydantic models of records that are none: each class once, also where they lead back to themselves."""

    def __init__(self) -> None:
        self._made: dict[Any, Any] = {}
        self._names: dict[str, int] = {}
        self._later: list[type[BaseModel]] = []
        self._namespace: dict[str, Any] = {}

    def fields(self, given: Any) -> Fields:
        name = ""
        if isinstance(given, Mapping):
            if given.get("type") == "json_schema" and isinstance(given.get("json_schema", given.get("schema")), Mapping):
                inner = given.get("json_schema", given)
                name, given = str(inner.get("name") or ""), inner.get("schema")
                if not isinstance(given, Mapping):
                    raise BadInput('OpenAI\'s form is {"type": "json_schema", "json_schema": {"name": ..., "schema": {...}}}')
            given = self._of_json(given, class_name(name or str(given.get("title") or ""))) if is_json_schema(given) else given
        if isinstance(given, Mapping):
            given = self._of_mapping(given, "Answer", "")
        elif isinstance(given, list):
            if len(given) != 1 or not (isinstance(given[0], type | Mapping) or typing.get_origin(given[0]) is not None):
                raise BadInput('a list holds one schema, e.g. [Item], for any number of records; choices are Literal["a", "b"]')
            given = list[self._of_field(given[0], "", "Item")]  # type: ignore[misc]
        if given is None or not _is_type(given):
            said = f"the class {type(given).__name__}" if _is_record(type(given)) else "a type"
            raise BadInput(f"a schema is a pydantic model, a mapping of names to types, a JSON schema or {said}, not {_what(given)}")
        made = self.plain(given, "")
        try:
            for model in self._later:
                model.model_rebuild(force=True, _types_namespace=self._namespace)
            return self._as_fields(given, made, name)
        except PydanticUserError as error:
            raise BadInput(f"this is no schema ({first_line(error)})") from None

    def _as_fields(self, given: Any, made: Any, name: str) -> Fields:
        bare = _bare(made)
        if _is_model(bare) and issubclass(bare, RootModel) and _is_model(_bare(bare.model_fields["root"].annotation)):
            own = bare.__pydantic_decorators__
            if own.field_validators or own.model_validators or own.validators or own.root_validators:
                raise BadInput(f"{bare.__name__} has validators around one model: give them to the model itself, and give that")
            bare = _bare(bare.model_fields["root"].annotation)
        if _is_model(bare) and not issubclass(bare, RootModel):
            _check_record(bare)
            return Fields(_said_as(name or bare.__name__), "record", bare, bare)
        held = _bare(bare.model_fields["root"].annotation) if _is_model(bare) else bare
        inside = [_bare(one) for one in typing.get_args(held)]
        listed = typing.get_origin(held) in _LISTS or (typing.get_origin(held) is tuple and inside[1:] == [...])
        if listed and inside and _is_model(inside[0]) and not issubclass(inside[0], RootModel):
            _check_record(inside[0])
            name = _said_as(name or f"{inside[0].__name__}List")
            if typing.get_origin(held) is abc.Iterable:  # pydantic would hand on a generator
                made = list[inside[0]]  # type: ignore[valid-type]
            return Fields(name, "records", _wrapper(name, "items", made), inside[0])
        named = (
            given if isinstance(given, type) and (issubclass(given, Enum) or _is_model(given)) and not typing.get_origin(given) else None
        )
        name = _said_as(name or (named.__name__ if named is not None else "Answer"))
        return Fields(name, "value", _wrapper(name, "value", made), None)

    # ------------------------------------------------------------------------------------------------------------- types

    def plain(self, given: Any, where: str, bound: Mapping[Any, Any] | None = None) -> Any:
        """A type whose records are all pydantic models."""
        origin, inside = typing.get_origin(given), typing.get_args(given)
        if isinstance(given, TypeVar):
            return (bound or {}).get(given, given.__bound__ or Any)
        if origin is None and hasattr(given, "__value__") and not isinstance(given, type):  # a type alias
            return self.plain(given.__value__, where, bound)
        if _is_record(origin) and not _is_model(origin):
            return self._of_class(origin, dict(zip(origin.__parameters__, inside, strict=False)), given)
        if origin in (typing.Required, typing.NotRequired, typing.Final, typing.ClassVar, typing_extensions.ReadOnly):
            return self.plain(inside[0], where, bound)
        if origin is Annotated:
            return Annotated[(self.plain(inside[0], where, bound), *map(_described, given.__metadata__))]
        if origin is Literal or origin in (None, abc.Callable):
            if _is_model(given):
                _completed(given)
            elif isinstance(given, Mapping):
                return self._of_field(given, where, "Item")
            elif _is_record(given):
                return self._of_class(given, {}, given)
            return given
        if _is_model(origin):
            return given
        parts = tuple(one if one is ... or isinstance(one, list) else self.plain(one, where, bound) for one in inside)
        if origin in (typing.Union, types.UnionType):
            return typing.Union[parts]  # noqa: UP007
        return origin[parts] if parts != inside else given

    def _of_class(self, given: Any, bound: Mapping[Any, Any], key: Any) -> Any:
        """The model of a dataclass, ``TypedDict`` or ``NamedTuple``."""
        if key in self._made:
            return self._made[key]
        name = self._named(given.__name__)
        self._made[key] = typing.ForwardRef(name)
        hints = _hints(given)
        fields: dict[str, Any] = {}
        later = len(self._namespace)
        for said, (annotation, default) in _members(given, hints).items():
            fields[said] = (self.plain(annotation, said, bound), default)
        about = inspect.cleandoc(given.__doc__ or "")
        if about.startswith(f"{given.__name__}("):  # what Python writes where nobody did
            about = ""
        checks = dataclasses.is_dataclass(given) and (hasattr(given, "__post_init__") or hasattr(given, "__pydantic_validator__"))
        made = _model(name, fields, about, _construct(given) if checks else None)
        self._namespace[name] = self._made[key] = made
        if (
            any(isinstance(one, typing.ForwardRef) for kind, _ in fields.values() for one in _walked(kind))
            or later != len(self._namespace) - 1
        ):
            self._later.append(made)
        return made

    def _named(self, name: str) -> str:
        """The name of a class, and another one for the second of that name."""
        name = class_name(name)
        self._names[name] = number = self._names.get(name, 0) + 1
        return name if number == 1 else self._named(f"{name}{number}")

    # ---------------------------------------------------------------------------------------------------------- mappings

    def _of_mapping(self, given: Mapping[Any, Any], name: str, where: str) -> type[BaseModel]:
        if not given:
            raise BadInput(f"the schema{_at(where)} has no fields: say which, e.g. {{'city': str}}")
        fields: dict[str, Any] = {}
        for said, member in given.items():
            if not isinstance(said, str) or not said.strip():
                raise BadInput(f"a field's name is a text, not {said!r}{_at(where)}")
            path = f"{where}.{said}" if where else said
            about, field = _split(member, path)
            kind = self._of_field(about, path, class_name(titled(said), "Field"))
            fields[said] = (kind, field if field is not None else None if _takes_none(kind) else ...)
        return _model(self._named(name), fields)

    def _of_field(self, given: Any, where: str, name: str) -> Any:
        """The type of what a mapping says of a field."""
        if isinstance(given, Mapping):
            if is_json_schema(given):
                return self._of_json(given, self._named(name), where)
            return self._of_mapping(given, name, where)
        if isinstance(given, list):
            if len(given) == 1 and not isinstance(given[0], str):
                return list[self._of_field(given[0], where, name)]  # type: ignore[misc]
            if not given or not all(isinstance(one, str | int) for one in given) or len(set(given)) < len(given):
                raise BadInput(f"the field {where} is a list: give the choices, each once, as texts")
            return Literal[tuple(given)]  # type: ignore[return-value]
        if isinstance(given, str):
            if not given.strip():
                raise BadInput(f"the field {where} has an empty description")
            named = _in_words(given.strip())
            if named is not None:
                return named
            if _LIKE_A_TYPE.fullmatch(given.strip()):
                raise BadInput(
                    f"the field {where} is called {given!r:.60}, a type in quotation marks that is not known by name: write it without"
                )
            return Annotated[str, Field(description=given)]
        if given is None or not _is_type(given):
            raise BadInput(f"the field {where} is a type, (type, description), a description or a list of choices, not {_what(given)}")
        return self.plain(given, where)

    @staticmethod
    def _of_json(given: Mapping[str, Any], name: str, where: str = "") -> Any:
        reader = JsonReader(given, name, where=where)
        top = given.get("type") in ("object", None) and isinstance(given.get("properties"), Mapping) and "nullable" not in given
        if not top and given.get("type") == "object" and not where and "additionalProperties" not in given and "allOf" not in given:
            raise BadInput("the schema has no fields: it is an object without properties")
        try:
            return reader.record() if top else reader.value()
        except (PydanticUserError, SchemaError, RecursionError) as error:
            raise BadInput(f"the schema{_at(where)} is none that can be checked ({first_line(error)})") from None


def _in_words(said: str) -> Any:
    """The type of this name, ``None`` where there is none: ``int``, ``list[int]``, and either with ``| None``."""
    if optional := re.fullmatch(r"(.+?) *\| *None|Optional\[(.+)\]", said):
        inner = _in_words(optional[1] or optional[2])
        return None if inner is None else inner | None
    listed = re.fullmatch(r"[lL]ist\[(\w+)\]", said)
    if listed:
        return list[_WORDS[listed[1]]] if listed[1] in _WORDS else None  # type: ignore[misc,valid-type]
    return _WORDS.get(said)


def _what(given: Any) -> str:
    """What was given in the place of a schema: a frame's, or an instance's, contents are not for a message."""
    if given is None or isinstance(given, int | float):
        return repr(given)
    if isinstance(given, str):
        return "a text (what to do goes into prompt=)"
    return "an instance of it" if _is_record(type(given)) else type(given).__name__


def _at(where: str) -> str:
    return f" (in the field {where})" if where else ""


def _split(member: Any, where: str) -> tuple[Any, Any]:
    """(what the field is, what ``Field`` says of it) of a mapping's member."""
    if not isinstance(member, tuple) or isinstance(member, InferredSchema):
        return member, None
    if len(member) != 2:
        raise BadInput(f"the field {where} is (type, description), a pair, not {len(member)} things")
    kind, told = member
    if isinstance(told, FieldInfo):
        return kind, told
    if told is ...:
        return kind, None
    if not isinstance(told, str) or not told.strip():
        raise BadInput(f"the field {where} is (type, description), and the description is {told!r:.40}")
    optional = _takes_none((_in_words(kind) or kind) if isinstance(kind, str) else kind)
    return kind, Field(None, description=told) if optional else Field(description=told)


def _takes_none(kind: Any) -> bool:
    kind = _bare(kind)
    return kind is None or (type(None) in typing.get_args(kind) and typing.get_origin(kind) in (typing.Union, types.UnionType))


def _bare(kind: Any) -> Any:
    while typing.get_origin(kind) is Annotated:
        kind = typing.get_args(kind)[0]
    return kind


def _is_model(given: Any) -> bool:
    return isinstance(given, type) and issubclass(given, BaseModel)


def _is_named_tuple(given: Any) -> bool:
    return isinstance(given, type) and issubclass(given, tuple) and hasattr(given, "_fields")


def _is_record(given: Any) -> bool:
    if not isinstance(given, type):
        return False
    return _is_model(given) or dataclasses.is_dataclass(given) or typing_extensions.is_typeddict(given) or _is_named_tuple(given)


def _is_type(given: Any) -> bool:
    known = given is None or isinstance(given, type | types.UnionType | typing.NewType) or typing.get_origin(given) is not None
    return known or given is Any or (hasattr(given, "__value__") and hasattr(given, "__type_params__"))


def _described(told: Any) -> Any:
    """A text in ``Annotated``, or ``Doc``, as the description that it is meant to be."""
    said = told if isinstance(told, str) else getattr(told, "documentation", None)
    return Field(description=said) if isinstance(said, str) else told


def _members(given: Any, hints: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The fields of a dataclass, ``TypedDict`` or ``NamedTuple``: (annotation, default or what ``Field`` says)."""
    name = given.__name__
    if dataclasses.is_dataclass(given):
        if any(isinstance(hint, dataclasses.InitVar) for hint in hints.values()):
            raise BadInput(f"{name} has an InitVar, which is no field: leave it out")
        return {field.name: (hints[field.name], _default_of(field, hints[field.name])) for field in dataclasses.fields(given) if field.init}
    if typing_extensions.is_typeddict(given):
        # What need not be there is null where it is not.
        members = {}
        for said, hint in hints.items():
            needed = said in given.__required_keys__ and typing.get_origin(hint) is not typing.NotRequired
            bare = typing.get_args(hint)[0] if typing.get_origin(hint) in (typing.Required, typing.NotRequired) else hint
            members[said] = (bare, ...) if needed else (typing.Union[bare, None], None)  # noqa: UP007
        return members
    return {name: (hints.get(name, Any), given._field_defaults.get(name, ...)) for name in given._fields}


def _default_of(field: dataclasses.Field[Any], hint: Any) -> Any:
    said = getattr(field, "doc", None) or field.metadata.get("description")
    told: dict[str, Any] = {"description": said} if isinstance(said, str) else {}
    if isinstance(field.default, FieldInfo):  # pydantic's own dataclasses
        return field.default
    if field.default is not dataclasses.MISSING:
        return Field(field.default, **told)
    if field.default_factory is not dataclasses.MISSING:
        return Field(default_factory=field.default_factory, **told)
    return Field(**told)


def _construct(given: Any) -> dict[str, Any]:
    """Has a dataclass' own checks run: it is made once of what was read."""

    def made(self: BaseModel) -> BaseModel:
        given(**{name: getattr(self, name) for name in type(self).model_fields})
        return self

    return {"made": model_validator(mode="after")(made)}


def _hints(given: Any) -> dict[str, Any]:
    """The annotations of a class; a name that its module does not have is looked for where the call came from."""
    known: dict[str, Any] = {}
    while True:
        try:
            return typing_extensions.get_type_hints(given, localns=known or None, include_extras=True)
        except NameError as error:
            if not error.name or error.name in known:
                raise BadInput(f"{given.__name__} has an annotation that cannot be read ({error})") from None
            known[error.name] = _looked_up(error.name, given.__name__)
        except (TypeError, SyntaxError) as error:
            raise BadInput(f"{given.__name__} has an annotation that cannot be read ({error})") from None


def _looked_up(name: str, whose: str) -> Any:
    frame = sys._getframe(1)
    while frame is not None:
        if name in frame.f_locals and not frame.f_globals.get("__name__", "").startswith("llmkit."):
            return frame.f_locals[name]
        frame = frame.f_back  # type: ignore[assignment]
    raise BadInput(f"{whose} has an annotation that names {name}, and there is no {name} here")


def _completed(model: type[BaseModel]) -> None:
    """Have a model whose annotations named classes that came later know them."""
    known: dict[str, Any] = {}
    while not model.__pydantic_complete__:
        try:
            model.model_rebuild(_types_namespace=known or None)
        except PydanticUndefinedAnnotation as error:
            if error.name is None or error.name in known:
                raise BadInput(f"{model.__name__} has an annotation that cannot be read ({first_line(error)})") from None
            known[error.name] = _looked_up(error.name, model.__name__)
        except Exception as error:  # pydantic has several, and each says what it cannot describe
            raise BadInput(f"{model.__name__} cannot be checked ({first_line(error)})") from None


def _choices(alias: Any) -> list[Any]:
    return list(alias.choices) if isinstance(alias, AliasChoices) else [alias]


def name_in_json(name: str, field: FieldInfo) -> str:
    """What a field is called in the JSON that is asked for and read: of several aliases the first, as in pydantic's own schema."""
    return next((alias for alias in _choices(field.validation_alias) if isinstance(alias, str)), name)


def _check_record(model: type[BaseModel]) -> None:
    if not model.model_fields:
        raise BadInput(f"{model.__name__} has no fields")
    seen: set[str] = set()
    for name, field in model.model_fields.items():
        said = name_in_json(name, field)
        if field.validation_alias is not None and said == name and said not in _choices(field.validation_alias):
            raise BadInput(
                f"the field {name} of {model.__name__} is read from inside of another (AliasPath), which a model cannot be asked for"
            )
        if said in seen:
            raise BadInput(f"{model.__name__} has two fields {said!r}")
        seen.add(said)


def _model(name: str, fields: Mapping[str, Any], about: str = "", validators: Any = None) -> type[BaseModel]:
    """A pydantic model; what it cannot be made of is told with the field's name."""
    given: dict[str, Any] = {}
    for said, (kind, field) in fields.items():
        key, told = spelled(said)
        alias: dict[str, Any] = dict(told)
        given[key] = (Annotated[kind, Field(**alias)] if told else kind, field)
    if len(given) < len(fields):
        raise BadInput(f"{name} has two fields whose names differ in nothing but what pydantic reserves")
    return model_of(name, given, about or None, validators=validators)


def _wrapper(name: str, inner: str, kind: Any) -> type[BaseModel]:
    return model_of(name, {inner: (kind, ...)})


def _said_as(name: str) -> str:
    """A name that every vendor takes."""
    return re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")[:64] or "Answer"
