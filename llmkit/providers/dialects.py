"""JSON schemas as vendors read them: which modes a vendor has, what of a schema each can say, and the schema in the form that it takes.

What a vendor has no keyword for goes into the description, where the model reads it; answers are checked against the whole schema anyway.
What cannot be said at all (a map of free keys where objects are closed, a schema that holds itself where that is refused) is told with
the field's name, before anything is sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import orjson

from ..adapter import Target
from ..errors import Unsupported
from ..operations.chat import Schema
from ..types import Request

__all__ = ["DIALECTS", "MODES", "Asked", "Dialect", "Inexpressible", "asked", "modes", "without_invented_nulls", "written"]

#: How a form can be asked for, the firmest first.
MODES = ("json_schema", "tools", "json_object", "words")


class Inexpressible(Exception):
    """A schema cannot be said in a dialect: which field, and why."""

    def __init__(self, path: Sequence[str], why: str) -> None:
        where = ".".join(path).replace(".[]", "[]")
        super().__init__(f"the field {where} {why}" if where else f"the schema {why}")


# ------------------------------------------------------------------------------------------------------------- the dialects

_RANGES = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
_LENGTHS = frozenset({"minLength", "maxLength"})
_COUNTS = frozenset({"minItems", "maxItems"})
_USUAL_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a vendor takes as the schema of an answer that it holds the model to.

    Attributes
    ----------
    keywords, formats : frozenset of str
        What it reads beside types, members, items, choices and references; everything else goes into the description.
    closed : bool
        Objects have to say that they have no members beside their own.
    complete : bool
        All members have to be required; one that may be left out is ``null`` instead.
    maps, anything, recursion : bool
        Whether it takes objects of free keys, values of any kind, and schemas that hold themselves.
    typed_choices : bool
        Whether a choice of values names their type as well.
    type_lists : bool
        Whether ``type`` may be a list.
    fields, depth, choices, characters, optional, unions : int or None
        The most of each in one schema.
    strict_tools : bool
        Whether a function can be told to keep to its schema (``strict``), and in this dialect.
    """

    keywords: frozenset[str] = frozenset()
    formats: frozenset[str] = frozenset()
    closed: bool = True
    complete: bool = True
    maps: bool = False
    anything: bool = False
    recursion: bool = True
    typed_choices: bool = True
    type_lists: bool = True
    fields: int | None = None
    depth: int | None = None
    choices: int | None = None
    characters: int | None = None
    optional: int | None = None
    unions: int | None = None
    strict_tools: bool = False


# Each as documented on 2026-11-21.
DIALECTS: Mapping[str, Dialect | None] = {
    # Whatever a schema says, as it is: the echo.
    "whole": None,
    # Servers with a grammar (vLLM, llama.cpp, Ollama, LM Studio) and whoever says no more than that a schema is taken. The keywords are
    # those that xgrammar and llama.cpp's converter both know: vllm/v1/structured_output/backend_xgrammar.py, llama.cpp/grammars/README.md.
    # An unknown format is refused: z-lab/paroquant#31.
    "plain": Dialect(
        keywords=_RANGES | _LENGTHS | _COUNTS | {"pattern", "const", "prefixItems"},
        formats=frozenset({"date-time", "time", "date", "uuid"}),
        maps=True,
        anything=True,
    ),
    # https://developers.openai.com/api/docs/guides/structured-outputs
    "openai": Dialect(
        keywords=_RANGES | _COUNTS | {"pattern", "const", "multipleOf"},
        formats=_USUAL_FORMATS,
        fields=5000,
        depth=10,
        choices=1000,
        characters=120_000,
        strict_tools=True,
    ),
    # https://platform.claude.com/docs/en/build-with-claude/structured-outputs; the SDK's ``messages.parse`` makes the same form.
    "anthropic": Dialect(
        keywords=frozenset({"const", "minItems"}),
        formats=_USUAL_FORMATS | {"uri"},
        complete=False,
        recursion=False,
        typed_choices=False,
        optional=24,
        unions=16,
    ),
    # https://docs.cohere.com/v2/docs/structured-outputs: every object has a required member, and no word for ranges and lengths.
    "cohere": Dialect(
        keywords=frozenset({"const", "pattern"}),
        formats=frozenset({"date-time", "uuid", "date", "time"}),
        closed=False,
        maps=True,
        anything=True,
    ),
    # https://console.groq.com/docs/structured-outputs; "minItems is not supported": i-am-bee/beeai-framework#1215.
    "groq": Dialect(),
    # mistralai 3.7, extra/utils/_pydantic_helper.py closes every object and leaves the rest as it is.
    "mistral": Dialect(keywords=_RANGES | _LENGTHS | _COUNTS | {"pattern", "const", "multipleOf"}, formats=_USUAL_FORMATS),
    # https://ai.google.dev/gemini-api/docs/structured-output: the keywords that it lists.
    "gemini": Dialect(
        keywords=frozenset({"minimum", "maximum", "prefixItems"}) | _COUNTS,
        formats=frozenset({"date-time", "date", "time"}),
        maps=True,
        anything=True,
    ),
    # https://docs.perplexity.ai/docs/grounded-llm/output-control/structured-outputs: no recursion, no objects of free keys.
    "perplexity": Dialect(keywords=frozenset({"const"}), recursion=False),
    # https://docs.x.ai/developers/model-capabilities/text/structured-outputs: "non-circular references only".
    "xai": Dialect(
        keywords=_RANGES | {"const"}, formats=frozenset({"date", "time", "date-time", "email", "uuid", "ipv4"}), recursion=False, maps=True
    ),
    # https://inference-docs.cerebras.ai/capabilities/structured-outputs: no lists of types, nothing that counts or matches.
    "cerebras": Dialect(keywords=frozenset({"const"}), recursion=False, type_lists=False),
}


# ------------------------------------------------------------------------------------------------------ how a form is asked for


@dataclass(frozen=True, slots=True)
class Asked:
    """How one target is asked for a form: prepared once a call, taken by every row.

    Attributes
    ----------
    mode : str
        The mode that it is asked in.
    modes : tuple of str
        This one and the lesser ones that are left when it is refused; one that the caller chose has none.
    name : str
        The schema's, in the letters that vendors take.
    form : orjson.Fragment
        The schema as the vendor takes it in this mode.
    strict : bool
        Whether the vendor can be told to hold the model to it.
    words : str
        What is said of the form in words, where the vendor does not show it to the model.
    note : str
        Why it is not asked in the target's usual mode.
    """

    mode: str
    modes: tuple[str, ...]
    name: str
    form: orjson.Fragment
    strict: bool = False
    words: str = ""
    note: str = ""


def asked(schema: Schema, target: Target) -> Asked:
    """How this target is asked for this form.

    Raises
    ------
    Unsupported
        The caller chose a mode that the target does not have, or that this schema cannot be said in.
    """
    key = target.provider.name, target.model.name
    found = schema.prepared.get(key)
    if found is None:
        found = schema.prepared[key] = _asked(schema, target)
    return found  # type: ignore[no-any-return]


def modes(request: Request, target: Target) -> tuple[Sequence[str], str]:
    """``Codec.modes`` of the wires that chat."""
    if request.payload.schema is None:
        return (), ""
    how = asked(request.payload.schema, target)
    return how.modes, how.note


#: Wires that are one vendor's own, which is its dialect too; on OpenAI's the row of the provider says which.
_OWN = ("anthropic", "cohere")

#: Anthropic has no promise of some JSON: asked for that, it is asked in words alone.
_LACKS = {"anthropic": ("json_object",)}


def _asked(schema: Schema, target: Target) -> Asked:
    provider, quirks = target.provider, target.provider.quirks
    lacks = quirks.get("structured_lacks", _LACKS.get(provider.protocol, ()))
    has = tuple(mode for mode in MODES if mode not in lacks)
    name = re.sub(r"[^a-zA-Z0-9_-]+", "_", schema.name)[:64].strip("_") or "answer"
    if schema.mode and schema.mode not in has:
        raise Unsupported(f"{target.name} has no mode {schema.mode!r}; it has {', '.join(has)}")
    usual = {"tool": "tools"}.get(quirks.get("structured", ""), quirks.get("structured", "json_schema"))
    if schema.schema is None and usual != "tools":  # nothing to be held to: the promise of some object, or words
        usual = "json_object"
    modes = (schema.mode,) if schema.mode else tuple(mode for mode in MODES[MODES.index(usual) :] if mode in has)
    if schema.schema is None:
        return Asked(modes[0], modes, name, orjson.Fragment(b'{"type":"object"}'), words=_ANY_OBJECT)
    dialect = DIALECTS[str(quirks.get("schemas", provider.protocol if provider.protocol in _OWN else "plain"))]
    strict, why = _strict(schema.schema, dialect)
    note = ""
    if modes[0] == "json_schema" and strict is None:
        others = tuple(mode for mode in has if mode != "json_schema")
        if schema.mode:
            raise Unsupported(f"{target.name} cannot be held to {name}: {why}. It can be asked for it with mode={' or '.join(others)}")
        modes = others
        note = f"{target.name} cannot be held to {name}, since {why}; it is asked for it as {modes[0]}"
    mode = modes[0]
    # Functions of wires of their own take a schema as it is; what speaks OpenAI's reads it with the same reader as a response's form.
    held = strict if mode == "json_schema" or (mode == "tools" and provider.protocol not in _OWN) else None
    shown = mode == "tools" or (mode == "json_schema" and (schema.told or "schemas" in quirks or provider.protocol in _OWN))
    whole = {"type": "object", **schema.schema} if mode == "tools" else schema.schema
    return Asked(
        mode,
        modes,
        name,
        orjson.Fragment(orjson.dumps(whole if held is None else held)),
        strict=held is not None and (mode == "json_schema" or (dialect is not None and dialect.strict_tools)) and _is_strict(target),
        words="" if shown else _ASKED_FOR + orjson.dumps(_untitled(schema.schema)).decode(),
        note=note,
    )


_ANY_OBJECT = "Answer with one JSON object and nothing else."
_ASKED_FOR = "Answer with a JSON object of this JSON schema and nothing else: "


def _strict(schema: Mapping[str, Any], dialect: Dialect | None) -> tuple[Mapping[str, Any] | None, str]:
    """The schema in this dialect, or why it cannot be said in it."""
    if dialect is None:
        return schema, ""
    try:
        return written(schema, dialect), ""
    except Inexpressible as error:
        return None, str(error)


def _is_strict(target: Target) -> bool:
    """Groq knows the word for some models only: https://console.groq.com/docs/structured-outputs, 2026-11-21."""
    return target.model.name.startswith(str(target.provider.quirks.get("strict_models", "")))


# ------------------------------------------------------------------------------------------------------- a schema in a dialect

#: Keywords that every dialect reads.
_READ = frozenset({"type", "enum", "required", "title"})

#: Keywords that say nothing to a model, or nothing that stays: what is left out of objects, annotations of tools.
_SILENT = frozenset(
    {"$schema", "$id", "$comment", "$defs", "definitions", "description", "additionalProperties", "default", "discriminator", "deprecated"}
)

#: Keywords that are taken care of one by one.
_HANDLED = frozenset({"properties", "items", "anyOf", "oneOf", "allOf", "$ref", "prefixItems", "enum", "const", "type", "required"})

#: One of these has to say what a value may be; a schema without any takes everything.
_SAY_WHAT = {"type", "enum", "const", "$ref", "anyOf", "oneOf", "allOf", "properties", "items"}

#: Expressions that look around or back, which no grammar follows.
_LOOKS_AROUND = re.compile(r"\(\?[=!<]|\\[1-9bB]")


def written(schema: Mapping[str, Any], dialect: Dialect) -> dict[str, Any]:
    """A schema as the dialect says it.

    Raises
    ------
    Inexpressible
        The first field that it has no form for.
    """
    return _Writing(schema, dialect).whole()


class _Writing:
    """One schema on its way into one dialect. Definitions are written once, where they are first used, and kept as definitions."""

    def __init__(self, root: Mapping[str, Any], dialect: Dialect) -> None:
        self.root = root
        self.dialect = dialect
        self.definitions: dict[str, Any] = {}
        self.names: dict[str, str] = {}
        self.fields = self.choices = self.characters = self.optional = self.unions = 0

    def whole(self) -> dict[str, Any]:
        above: tuple[str, ...] = ()
        root = self.root
        while set(root) & {"$ref", "allOf"}:  # vendors want an object at the top, not a name of one
            if "$ref" in root:
                ref = str(root["$ref"])
                if ref in above:
                    raise Inexpressible((), "is nothing but a name of itself")
                above = (*above, ref)
            root = self._opened(root, ())
        if "anyOf" in root or "oneOf" in root or root.get("type", "object") != "object":
            raise Inexpressible((), "is not one object")
        form: dict[str, Any] = self._form({"type": "object", **root}, (), above, 1)
        form.pop("title", None)  # the schema's name travels beside it
        if self.definitions:
            form["$defs"] = self.definitions
        self._weigh(form)
        return form

    def _weigh(self, form: Mapping[str, Any]) -> None:
        dialect = self.dialect
        for count, most, of_what in (
            (self.fields, dialect.fields, "fields"),
            (self.choices, dialect.choices, "values to choose from"),
            (self.characters, dialect.characters, "characters of names and values"),
            (self.optional, dialect.optional, "fields that may be left out"),
            (self.unions, dialect.unions, "fields of several types"),
        ):
            if most is not None and count > most:
                raise Inexpressible((), f"has {count:,} {of_what}, and {most:,} are the most")

    # ------------------------------------------------------------------------------------------------------------ references

    def _found(self, ref: str, path: tuple[str, ...]) -> Any:
        found = _at(ref, self.root)
        if not isinstance(found, Mapping | bool):
            raise Inexpressible(path, f"refers to {ref}, which is not in the schema")
        return found

    def _opened(self, schema: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
        """The schema with its own reference and ``allOf`` written out; what stands beside them wins."""
        rest = {name: value for name, value in schema.items() if name not in ("$ref", "allOf")}
        parts = [self._found(str(schema["$ref"]), path)] if "$ref" in schema else []
        parts += schema.get("allOf") or ()
        made: dict[str, Any] = {}
        for part in (*parts, rest):
            if not isinstance(part, Mapping):
                continue
            opened = self._opened(part, path) if "allOf" in part else part
            both = {
                "properties": {**made.get("properties", {}), **opened.get("properties", {})},
                "required": [*made.get("required", ()), *opened.get("required", ())],
            }
            made = {**made, **opened, **{name: value for name, value in both.items() if value}}
        return made

    def _reference(self, schema: Mapping[str, Any], path: tuple[str, ...], above: tuple[str, ...], depth: int) -> dict[str, Any]:
        ref = str(schema["$ref"])
        found = self._found(ref, path)
        recursive = ref in _references(found, self.root)
        if recursive and not self.dialect.recursion:
            raise Inexpressible(path, "holds itself")
        # Nothing may stand beside a reference. What is said of the field is said of a copy, unless that would never end.
        if schema.keys() - {"$ref", "title", "$defs", "definitions", "default"} and not recursive:
            made: dict[str, Any] = self._form(self._opened(schema, path), path, (*above, ref), depth)
            return made
        name = self.names.get(ref)
        if name is None:
            name = self.names[ref] = self._new_name(ref)
            self.definitions[name] = {}  # its place, before those that it holds
            form = self._form(found, path, (*above, ref), depth)
            if _letters(str(form.get("title", ""))) == _letters(name):
                del form["title"]
            self.definitions[name] = form
        return {"$ref": f"#/$defs/{name}"}

    def _new_name(self, ref: str) -> str:
        base = re.sub(r"[^a-zA-Z0-9_.-]+", "_", unquote(ref.rsplit("/", 1)[-1])).strip("_") or "whole"
        name, number = base, 1
        while name in self.definitions:
            number += 1
            name = f"{base}{number}"
        return name

    # ---------------------------------------------------------------------------------------------------------------- values

    def _form(self, schema: Any, path: tuple[str, ...], above: tuple[str, ...], depth: int) -> Any:
        if schema is True or (isinstance(schema, Mapping) and not _SAY_WHAT & schema.keys()):
            if not self.dialect.anything:
                raise Inexpressible(path, "may hold anything")
            return {} if schema is True else self._told({}, schema, path)
        if not isinstance(schema, Mapping):
            raise Inexpressible(path, "can hold nothing")
        if "allOf" in schema:
            schema = self._opened(schema, path)
        if "$ref" in schema:
            return self._reference(schema, path, above, depth)
        form: dict[str, Any] = {}
        options = schema.get("anyOf") or schema.get("oneOf")
        if options:
            self.unions += 1
            form["anyOf"] = [self._form(option, path, above, depth) for option in options]
            return self._told(form, schema, path)
        if "enum" in schema or "const" in schema:
            return self._told(self._choice(schema), schema, path)
        kind = schema.get("type") or ("object" if "properties" in schema else "array")
        if isinstance(kind, list) and (not self.dialect.type_lists or {"object", "array"} & {*kind}):
            self.unions += 1
            rest = {name: value for name, value in schema.items() if name not in ("type", "description", "title", "default")}
            form["anyOf"] = [self._form({**(rest if one != "null" else {}), "type": one}, path, above, depth) for one in kind]
            return self._told(form, {name: schema[name] for name in ("description", "title") if name in schema}, path)
        if isinstance(kind, list):
            self.unions += 1
        form["type"] = kind
        if kind == "object":
            self._object(form, schema, path, above, depth)
        elif kind == "array":
            self._array(form, schema, path, above, depth)
        return self._told(form, schema, path)

    def _object(self, form: dict[str, Any], schema: Mapping[str, Any], path: tuple[str, ...], above: tuple[str, ...], depth: int) -> None:
        dialect = self.dialect
        properties, others = schema.get("properties"), schema.get("additionalProperties")
        if dialect.depth is not None and depth > dialect.depth:
            raise Inexpressible(path, f"lies {depth} objects deep, and {dialect.depth} are the most")
        is_map = isinstance(others, Mapping) or "patternProperties" in schema or (not properties and others is not False)
        if is_map and not dialect.maps:
            raise Inexpressible(path, "is a map of free keys, and only named fields can be said")
        if properties is not None or not is_map:
            form["properties"] = {}
            for name, part in (properties or {}).items():
                self.fields += 1
                self.characters += len(name)
                form["properties"][name] = self._member(name, part, name in schema.get("required", ()), (*path, name), above, depth + 1)
        if dialect.complete and "properties" in form:
            form["required"] = list(form["properties"])
        elif schema.get("required"):
            form["required"] = list(schema["required"])
        if isinstance(others, Mapping):
            form["additionalProperties"] = self._form(others, (*path, "*"), above, depth + 1)
        elif dialect.closed:
            form["additionalProperties"] = is_map

    def _member(self, name: str, part: Any, is_required: bool, path: tuple[str, ...], above: tuple[str, ...], depth: int) -> dict[str, Any]:
        form: dict[str, Any] = self._form(part, path, above, depth)
        if isinstance(form.get("title"), str) and _letters(form["title"]) == _letters(name):
            del form["title"]  # pydantic's, which says what the name says
        if is_required:
            return form
        self.optional += 1
        return form if not self.dialect.complete or self._admits_null(form) else self._or_null(form)

    def _admits_null(self, form: Mapping[str, Any]) -> bool:
        if "anyOf" in form:
            return any(self._admits_null(option) for option in form["anyOf"])
        kind = form.get("type")
        return kind == "null" or (isinstance(kind, list) and "null" in kind) or None in form.get("enum", (0,)) or not form

    def _or_null(self, form: dict[str, Any]) -> dict[str, Any]:
        self.unions += 1
        if "anyOf" in form:
            return {**form, "anyOf": [*form["anyOf"], {"type": "null"}]}
        plain = isinstance(form.get("type"), str) and form["type"] not in ("object", "array") and not {"enum", "const"} & form.keys()
        if plain and self.dialect.type_lists:
            return {**form, "type": [form["type"], "null"]}
        said: dict[str, Any] = {name: form[name] for name in ("description", "title") if name in form}
        inner = {name: value for name, value in form.items() if name not in said}
        return {"anyOf": [inner, {"type": "null"}], **said}

    def _array(self, form: dict[str, Any], schema: Mapping[str, Any], path: tuple[str, ...], above: tuple[str, ...], depth: int) -> None:
        inside = (*path, "[]")
        first = [self._form(part, inside, above, depth) for part in schema.get("prefixItems") or ()]
        if first and "prefixItems" in self.dialect.keywords:
            form["prefixItems"] = first
            if isinstance(schema.get("items"), Mapping):
                form["items"] = self._form(schema["items"], inside, above, depth)
            elif schema.get("items") is False:
                form["items"] = False
            return
        items = schema.get("items", True)
        if first:  # looser: any of them at every place; which one stands where is said in words
            if isinstance(items, Mapping):
                first.append(self._form(items, inside, above, depth))
            different = list({orjson.dumps(part): part for part in first}.values())
            form["items"] = different[0] if len(different) == 1 else {"anyOf": different}
        elif items is not True or not self.dialect.anything:
            form["items"] = self._form(items, inside, above, depth)

    def _choice(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        values = list(schema["enum"]) if "enum" in schema else [schema["const"]]
        self.choices += len(values)
        self.characters += sum(len(str(value)) for value in values)
        form: dict[str, Any] = {"enum": values}
        if "enum" not in schema and "const" in self.dialect.keywords:
            form = {"const": schema["const"]}
        if self.dialect.typed_choices:
            kinds = list(dict.fromkeys(_TYPES.get(type(value), "string") for value in values))
            known = schema.get("type") or (kinds[0] if len(kinds) == 1 else kinds)
            if isinstance(known, str) or self.dialect.type_lists:
                form["type"] = known
        return form

    def _told(self, form: dict[str, Any], schema: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
        """The form with the keywords that the dialect reads, and the others in the description."""
        rest: dict[str, Any] = {}
        for keyword, value in schema.items():
            if keyword in _SILENT or (keyword in _HANDLED and (keyword in form or keyword != "prefixItems")):
                continue
            if self._reads(keyword, value):
                form[keyword] = value
            else:
                rest[keyword] = value
        said = [str(schema["description"])] if schema.get("description") else []
        if rest:
            said.append("{" + ", ".join(f"{keyword}: {value}" for keyword, value in rest.items()) + "}")
        if said:
            form["description"] = "\n\n".join(said)
        return form

    def _reads(self, keyword: str, value: Any) -> bool:
        if keyword == "format":
            return value in self.dialect.formats
        if keyword == "pattern":
            return keyword in self.dialect.keywords and not _LOOKS_AROUND.search(str(value))
        if keyword == "minItems" and self.dialect.optional is not None:  # Anthropic reads two numbers of it
            return value in (0, 1)
        return keyword in _READ or keyword in self.dialect.keywords


def _references(schema: Any, root: Mapping[str, Any]) -> set[str]:
    """Everything that a part of a schema refers to, however far away."""
    found: set[str] = set()
    stack = [schema]
    while stack:
        part = stack.pop()
        if isinstance(part, list):
            stack += part
        elif isinstance(part, Mapping):
            ref = part.get("$ref")
            if isinstance(ref, str) and ref not in found:
                found.add(ref)
                stack.append(_at(ref, root))
            stack += part.values()
    return found


def _at(ref: str, root: Mapping[str, Any]) -> Any:
    """What a reference names; ``None`` where it is not in the schema."""
    if not ref.startswith("#"):
        return None
    found: Any = root
    for step in filter(None, ref[1:].split("/")):
        found = found.get(unquote(step).replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None
    return found


_TYPES: Mapping[type, str] = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


def _letters(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()


def _untitled(schema: Any, name: str = "") -> Any:
    """A schema without the titles that pydantic makes of the names, which cost tokens and say nothing."""
    if isinstance(schema, list):
        return [_untitled(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    made: dict[str, Any] = {}
    for keyword, value in schema.items():
        if keyword in ("properties", "$defs", "definitions") and isinstance(value, Mapping):
            made[keyword] = {inner: _untitled(part, inner) for inner, part in value.items()}
        elif keyword == "title" and isinstance(value, str) and (not name or _letters(value) == _letters(name)):
            continue
        else:
            made[keyword] = value if keyword in ("enum", "const", "default", "examples") else _untitled(value)
    return made


# -------------------------------------------------------------------------------------------------------------------- answers


def without_invented_nulls(schema: Schema, text: str) -> str:
    """An answer without the nulls that stand for members which may be left out and cannot be null.

    Where all members have to be there, null is how a model leaves one out; the caller's own schema knows no such value.
    """
    if "null" not in text or schema.schema is None:
        return text
    absent = schema.prepared.get("absent")
    if absent is None:
        absent = schema.prepared["absent"] = _Absent(schema.schema)
    return absent.cleared(text) if absent.any else text


class _Absent:
    """The members of a schema that may be left out and cannot be null."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self.root = root
        self.any = self._is_there(root, set())

    def _parts(self, schema: Any) -> list[Mapping[str, Any]]:
        """Every schema that a value at this place may be of."""
        found: list[Mapping[str, Any]] = []
        stack, seen = [schema], 0
        while stack and seen < 1000:
            part = stack.pop()
            seen += 1
            if not isinstance(part, Mapping):
                continue
            found.append(part)
            if isinstance(part.get("$ref"), str):
                target = _at(part["$ref"], self.root)
                if not any(target is one for one in found):
                    stack.append(target)
            for keyword in ("anyOf", "oneOf", "allOf"):
                stack += part.get(keyword) or ()
        return found

    def _takes_null(self, schema: Any) -> bool:
        if schema is True:
            return True
        for part in self._parts(schema):
            kind = part.get("type")
            if kind == "null" or (isinstance(kind, list) and "null" in kind) or None in part.get("enum", ()) or not _SAY_WHAT & part.keys():
                return True
            if "const" in part and part["const"] is None:
                return True
        return False

    def _is_there(self, schema: Any, seen: set[int]) -> bool:
        for part in self._parts(schema):
            if id(part) in seen:
                continue
            seen.add(id(part))
            properties = part.get("properties") or {}
            if any(name not in part.get("required", ()) and not self._takes_null(inner) for name, inner in properties.items()):
                return True
            inside = [*properties.values(), part.get("items"), part.get("additionalProperties"), *(part.get("prefixItems") or ())]
            if any(self._is_there(inner, seen) for inner in inside):
                return True
        return False

    def cleared(self, text: str) -> str:
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError:
            return text
        return orjson.dumps(value).decode() if self._clear(value, self.root) else text

    def _clear(self, value: Any, schema: Any) -> bool:
        changed = False
        for part in self._parts(schema):
            if isinstance(value, dict):
                for name, inner in (part.get("properties") or {}).items():
                    if name not in value:
                        continue
                    if value[name] is None and name not in part.get("required", ()) and not self._takes_null(inner):
                        del value[name]
                        changed = True
                    else:
                        changed = self._clear(value[name], inner) or changed
                if isinstance(part.get("additionalProperties"), Mapping):
                    for name in value.keys() - (part.get("properties") or {}).keys():
                        changed = self._clear(value[name], part["additionalProperties"]) or changed
            elif isinstance(value, list) and isinstance(part.get("items"), Mapping):
                for item in value:
                    changed = self._clear(item, part["items"]) or changed
        return changed
