"""What is said, whoever says it: answers as functions of the question, so that a test can foretell them. No wire is known here."""

from __future__ import annotations

import base64
import hashlib
import io
import math
import re
import struct
import wave
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import orjson


@dataclass(frozen=True)
class Upload:
    """One file of a multipart form."""

    name: str
    media_type: str
    data: bytes


@dataclass(frozen=True)
class Image:
    """One picture of a message: its bytes, or where they are."""

    media_type: str = ""
    data: bytes = b""
    url: str = ""

    def __str__(self) -> str:
        return self.url or f"{self.media_type} of {len(self.data)} bytes"


@dataclass(frozen=True)
class Message:
    role: Literal["system", "user", "assistant", "tool"]
    text: str
    images: tuple[Image, ...] = ()


@dataclass(frozen=True)
class Call:
    """A tool call that a model asks for."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Question:
    """A chat request, in no vendor's words.

    Parameters
    ----------
    tools
        The schema of each tool's arguments, by name.
    forced
        Whether a tool must be called: a name, or "*" for any.
    schema
        What the answer has to satisfy; ``{}`` is any JSON object.
    """

    messages: tuple[Message, ...]
    tools: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    forced: str | None = None
    one_call: bool = False
    schema: dict[str, Any] | None = None
    max_tokens: int | None = None

    @property
    def text(self) -> str:
        """The last user message."""
        return next((message.text for message in reversed(self.messages) if message.role == "user"), "")

    @property
    def images(self) -> tuple[Image, ...]:
        return next((message.images for message in reversed(self.messages) if message.role == "user"), ())


@dataclass(frozen=True)
class Said:
    """An answer, in no vendor's words. Counts are tokens; `cached` and `written` are not part of `asked`."""

    text: str = ""
    calls: tuple[Call, ...] = ()
    reason: Literal["stop", "length", "tool_calls", "refusal", "filter"] = "stop"
    asked: int = 0
    answered: int = 0
    cached: int = 0
    written: int = 0


# ------------------------------------------------------------------------------------------------------------------- chat


def reply(question: Question) -> Said:
    """What a healthy provider says: tool calls where they are forced or asked for, else text."""
    calls = _calls(question)
    if calls:
        return Said("", calls[:1] if question.one_call else calls, "tool_calls")
    text = _text(question)
    if question.max_tokens is not None and tokens(text) > question.max_tokens:
        return Said(text[: 4 * question.max_tokens], reason="length")
    return Said(text)


def answer_to(text: str, images: Iterable[Image] = ()) -> str:
    """The answer to a last user message: ``answer to: two pictures [2 images: image/png of 67 bytes, https://example.org/a.jpg]``."""
    seen = [str(image) for image in images]
    counted = f" [{len(seen)} {'image' if len(seen) == 1 else 'images'}: {', '.join(seen)}]" if seen else ""
    return f"answer to: {text}{counted}"


def answer_from_tools(results: Iterable[str]) -> str:
    """The answer that follows the results of tool calls."""
    return f"the tools say: {'; '.join(results)}"


def _text(question: Question) -> str:
    if question.schema is not None:
        return orjson.dumps(fill(question.schema, question.text)).decode()
    results: list[str] = []
    for message in reversed(question.messages):
        if message.role != "tool":
            break
        results.insert(0, message.text)
    return answer_from_tools(results) if results else answer_to(question.text, question.images)


_CALL = re.compile(r"call:([\w.-]+)\s*(?=\{)")


def _calls(question: Question) -> tuple[Call, ...]:
    if not question.tools:
        return ()
    follows_results = question.messages[-1].role == "tool"
    asked_for = () if follows_results else tuple(_calls_in(question.text))
    if question.forced is None:
        return asked_for
    fitting = tuple(call for call in asked_for if question.forced in ("*", call.name))
    name = next(iter(question.tools)) if question.forced == "*" else question.forced
    return fitting or (Call(name, fill(question.tools[name] or {"type": "object"}, question.text)),)


def _calls_in(text: str) -> Iterable[Call]:
    for match in _CALL.finditer(text):
        end = match.end()
        while (end := text.find("}", end) + 1) > 0:  # the shortest text up to a brace that is JSON
            try:
                yield Call(match[1], orjson.loads(text[match.end() : end]))
            except orjson.JSONDecodeError:
                continue
            break


# ------------------------------------------------------------------------------------------------------ structured output

_DEEP = 6  # where a recursive schema has to come to an end
_FIRST_WORDS = 5
_FORMATS = {
    "date": "2026-11-21",
    "date-time": "2026-11-21T12:00:00Z",
    "time": "12:00:00Z",
    "email": "someone@example.org",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "uri": "https://example.org/",
}


def fill(schema: dict[str, Any], text: str) -> Any:
    """A value that satisfies `schema`, built from `text`.

    An enum takes its first value that occurs in the text, else its first; a string the text's first five words; a number the first
    number in the text, else 0, brought within its bounds; a boolean whether the text has the word yes or true; an array one item.
    """
    return _Filling(schema.get("$defs") or schema.get("definitions") or {}, text).value(schema, 0)


class _Filling:
    def __init__(self, definitions: dict[str, Any], text: str) -> None:
        self._definitions, self._text = definitions, text

    def value(self, schema: dict[str, Any], depth: int) -> Any:
        if "$ref" in schema:
            return self.value(self._definitions[schema["$ref"].rpartition("/")[2]], depth + 1)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return next((value for value in schema["enum"] if self._occurs(value)), schema["enum"][0])
        for several in ("anyOf", "oneOf"):
            if several in schema:
                return self._either(schema[several], depth)
        if "allOf" in schema:
            merged = {name: value for part in schema["allOf"] for name, value in self._resolved(part).items()}
            return self.value({**merged, **{name: value for name, value in schema.items() if name != "allOf"}}, depth)
        return self._by_type(schema, depth)

    def _either(self, options: list[dict[str, Any]], depth: int) -> Any:
        nothing = next((option for option in options if option.get("type") == "null"), None)
        if nothing is not None and depth >= _DEEP:
            return None
        return self.value(next((option for option in options if option is not nothing), {"type": "null"}), depth)

    def _by_type(self, schema: dict[str, Any], depth: int) -> Any:
        kinds = schema.get("type") or ("object" if "properties" in schema else "string")
        kind = kinds if isinstance(kinds, str) else next(kind for kind in kinds if kind != "null")
        match kind.lower():  # Gemini writes its types in capitals
            case "object":
                needed = schema.get("required", ())
                properties = schema.get("properties", {}).items()
                return {name: self.value(part, depth + 1) for name, part in properties if depth < _DEEP or name in needed}
            case "array":
                return self._items(schema, depth)
            case "string":
                return self._string(schema)
            case "boolean":
                return self._occurs("yes") or self._occurs("true")
            case "null":
                return None
        return self._number(schema, whole=kind.lower() == "integer")

    def _items(self, schema: dict[str, Any], depth: int) -> list[Any]:
        firsts = [self.value(part, depth + 1) for part in schema.get("prefixItems", ())]
        wanted = max(schema.get("minItems", 0), min(1, schema.get("maxItems", 1)) if depth < _DEEP else 0)
        rest = schema.get("items")
        return firsts + [self.value(rest or {}, depth + 1) for _ in range(wanted - len(firsts) if rest is not False else 0)]

    def _string(self, schema: dict[str, Any]) -> str:
        if schema.get("format") in _FORMATS:
            return _FORMATS[schema["format"]]
        text = " ".join(self._text.split()[:_FIRST_WORDS])
        text = text.ljust(schema.get("minLength", 0), ".")
        return text[: schema.get("maxLength", len(text))]

    def _number(self, schema: dict[str, Any], *, whole: bool) -> float:
        found = re.search(r"-?\d+(?:\.\d+)?", self._text)
        value = float(found[0]) if found else 0.0
        step: float = schema.get("multipleOf") or (1 if whole else 0)
        low: float = max(schema.get("minimum", -math.inf), schema.get("exclusiveMinimum", -math.inf) + (step or 0.5))
        high: float = min(schema.get("maximum", math.inf), schema.get("exclusiveMaximum", math.inf) - (step or 0.5))
        value = min(max(value, low), high)
        if step:
            value = math.ceil(value / step) * step if value <= low else math.floor(value / step) * step
        return int(value) if whole else value

    def _occurs(self, value: Any) -> bool:
        return re.search(rf"(?<!\w){re.escape(str(value))}(?!\w)", self._text, re.IGNORECASE) is not None

    def _resolved(self, schema: dict[str, Any]) -> dict[str, Any]:
        if "$ref" not in schema:
            return schema
        found: dict[str, Any] = self._definitions[schema["$ref"].rpartition("/")[2]]
        return found


# ------------------------------------------------------------------------------------------------- embeddings and reranks


def vector_of(text: str, dimensions: int = 8) -> np.ndarray:
    """The embedding of a text: float32 of shape (dimensions,) and norm 1."""
    # A hash that yields any number of bytes is the same everywhere; a random generator's stream is numpy's to change.
    raw = np.frombuffer(hashlib.shake_256(text.encode()).digest(4 * dimensions), dtype="<u4")
    vector = raw / 2**31 - 1
    return (vector / np.linalg.norm(vector)).astype("<f4")


def packed(vector: Any) -> str:
    """The float32 numbers of a vector in base64."""
    return base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode()


def quantised(vector: Any, kind: str) -> list[int]:
    """A vector of smaller numbers: int8, uint8, or one bit for each (binary: signed bytes, ubinary: unsigned)."""
    numbers = np.asarray(vector, dtype="<f4")
    if kind in ("int8", "uint8"):
        return [int(number) for number in np.clip(np.round(numbers * 127), -128, 127) + (128 if kind == "uint8" else 0)]
    return [int(byte) - (128 if kind == "binary" else 0) for byte in np.packbits(numbers > 0)]


def similarity(query: str, document: str) -> float:
    """The words that the two share, of all the words that they have."""
    asked, words = set(query.lower().split()), set(document.lower().split())
    return len(asked & words) / max(1, len(asked | words))


def tokens(*texts: str) -> int:
    return max(1, sum(map(len, texts)) // 4)


# ------------------------------------------------------------------------------------------------------------------ audio


def heard_in(name: str, size: int, model: str) -> str:
    """The transcript of a file."""
    return f"{model} heard {name}, {size} bytes"


def seconds_of(data: bytes) -> float:
    """How long a recording is: of a WAV, as its header says; of anything else, at 16,000 bytes a second."""
    try:
        with wave.open(io.BytesIO(data)) as recording:
            seconds: float = recording.getnframes() / recording.getframerate()
            return seconds
    except (wave.Error, EOFError):
        return len(data) / 16_000


def speech_of(text: str, voice: str, kind: str) -> bytes:
    """The recording of a text: 50 ms for each character, in a WAV that can be played, or bytes that only look like their format."""
    samples = hashlib.shake_256(f"{voice}: {text}".encode()).digest(800 * len(text))
    if kind == "wav":
        size = len(samples)
        return b"RIFF" + struct.pack("<I4s4sIHHIIHH4sI", size + 36, b"WAVE", b"fmt ", 16, 1, 1, 8000, 16000, 2, 16, b"data", size) + samples
    return {"mp3": b"ID3\x04", "opus": b"OggS", "flac": b"fLaC"}.get(kind, b"") + samples


# ------------------------------------------------------------------------------------------------- what is in a request


def texts_of(body: Any) -> list[str]:
    """Where faults and counts look, in the body of whichever wire."""
    match body:
        case {"messages": list(messages)}:
            return [text_in(message.get("content")) for message in messages if message["role"] == "user"]
        case {"contents": list(contents)}:
            return [text_in(content["parts"]) for content in contents if content.get("role", "user") == "user"]
        case {"requests": list(requests)}:
            return [text_in(request["content"]["parts"]) for request in requests]
        case {"content": {"parts": list(parts)}}:
            return [text_in(parts)]
        case {"input": str(text)} | {"file": Upload(name=text)}:
            return [text]
        case {"input": list(texts)} | {"texts": list(texts)} if all(isinstance(text, str) for text in texts):
            return texts
        case {"inputs": list(inputs)}:
            return [text for given in inputs for text in _texts_of_input(given)]
        case {"documents": list(documents)}:
            return [document if isinstance(document, str) else document["text"] for document in documents]
    return []


def _texts_of_input(given: Any) -> list[str]:
    match given:
        case str():
            return [given]
        case list():  # the chunks of one document
            return given
    return [text_in(given["content"])]


def text_in(content: Any) -> str:
    """The text of a message's content: a string, or parts of which some are text."""
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(part["text"] for part in content if part.get("type", "text") == "text" and "text" in part)


def image_at(address: str) -> Image:
    """The picture of a data: URL, or of a URL that nobody fetches."""
    if not address.startswith("data:"):
        return Image(url=address)
    head, _, data = address.removeprefix("data:").partition(";base64,")
    return Image(head, base64.b64decode(data, validate=True))
