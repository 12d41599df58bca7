"""How a provider is asked: its own row, its address moved to the loopback, a key of its own, and the public front."""

from __future__ import annotations

import io
import wave
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

import llmkit
from llmkit import asking
from llmkit.catalogue import BUILT_IN, Catalogue
from scripts import providers_page as page
from tests.loopback import Errors, Loopback, LoopbackProcess, answer_to, errors_of, heard_in, similarity, speech_of, vector_of

PROVIDERS = list(page.providers())
#: Those that are reached over the wire.
AWAY = [name for name in PROVIDERS if name not in BUILT_IN]
LABELS = ["apples", "pears"]
QUERY = "which one is ripe"

#: A picture of one pixel, and another.
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360000002000100ffff030000060005"
    "57bfabd40000000049454e44ae426082"
)
GIF = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"


def recording(text: str) -> bytes:
    """A WAV that is as long as the text: what stands for a row where recordings are asked for."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(text.encode().ljust(400, b"\0") * 20 * len(text))
    return file.getvalue()


def picture(text: str) -> bytes:
    """A picture for each text, so that no row is taken for another."""
    return PNG + text.encode()


# ------------------------------------------------------------------------------------------------------- who is asked what


def said(name: str, column: str) -> str:
    """A cell of the page."""
    return _cells(name)[column]


@cache
def _cells(name: str) -> dict[str, str]:
    return page.cells(name)


def does(column: str, names: Sequence[str] = tuple(AWAY)) -> list[str]:
    return [name for name in names if said(name, column) != page.NO]


def does_not(column: str) -> list[str]:
    return [name for name in PROVIDERS if said(name, column) == page.NO]


def pairs(columns: Sequence[str], names: Sequence[str] = tuple(AWAY)) -> list[tuple[str, str]]:
    return [(name, column) for name in names for column in columns if said(name, column) != page.NO]


OPERATION = {heading: operation for operation, heading in page.OPERATIONS.items()}


@cache
def voices() -> list[str]:
    """For each wire and way of saying no the provider that does most: the others would only repeat it."""
    found: dict[Any, str] = {}
    for name in sorted(AWAY, key=lambda name: sum(said(name, column) == page.NO for column in OPERATION)):
        if any(said(name, column) != page.NO for column in OPERATION):
            found.setdefault((page.providers()[name].protocol, id(errors_at(name))), name)
    return list(found.values())


def errors_at(name: str) -> Errors:
    return errors_of(name, compat=speaks_openai(name))


def voice_of(name: str) -> str:
    """Whose words a provider's errors are in: its own, or OpenAI's."""
    return "openai" if errors_at(name) is errors_of("openai") else name


def speaks_openai(name: str) -> bool:
    return page.providers()[name].protocol == "openai"


@cache
def model_of(name: str, column: str) -> str:
    """A model of the catalogue that does it, or one that nobody knows."""
    operation = OPERATION.get(column, "chat")
    known = [model for model in Catalogue().models() if model.provider == name and operation in model.operations]
    roomiest = max(known, key=lambda model: (model.context_window or 0, model.name), default=None)
    return f"{name}/{roomiest.name if roomiest else 'made-up'}"


def address_of(name: str, server: Loopback | LoopbackProcess) -> str:
    return server.compat_url_of(name) if speaks_openai(name) else server.url_of(name)


def key_of(name: str) -> str:
    """A key of no known shape: that it stays out of messages is not to be owed to its looks."""
    return f"key.of.{name}.0123456789abcdef"


def move(name: str, server: Loopback, **row: Any) -> None:
    """The provider's own row with another address, and a key of its own."""
    if name not in BUILT_IN:
        llmkit.catalogue.merge({"providers": {name: {"base_url": address_of(name, server), **row}}})
        llmkit.set_key(name, key_of(name))


def priced(name: str, model: str, **price: float) -> None:
    llmkit.catalogue.merge({"models": [{"provider": name, "name": model, "price": price}]})


# ---------------------------------------------------------------------------------------------------------------- asking


def _chat(frame: pd.DataFrame, **how: Any) -> Any:
    return frame.llm.chat("{text}", **how)


def _embed(frame: pd.DataFrame, **how: Any) -> Any:
    return frame.llm.embed("text", **how)


def _embed_pictures(frame: pd.DataFrame, **how: Any) -> Any:
    return frame.assign(shown=[picture(text) for text in frame["text"]]).llm.embed("text", images="shown", **how)


def _rerank(frame: pd.DataFrame, **how: Any) -> Any:
    return frame.llm.rerank(QUERY, on="text", **how)


def _transcribe(frame: pd.DataFrame, **how: Any) -> Any:
    return frame.assign(heard=[recording(text) for text in frame["text"]]).llm.transcribe("heard", **how)


def _speak(frame: pd.DataFrame, **how: Any) -> Any:
    return frame.llm.speak("text", **{"voice": "a-voice", **how})


def _classify(frame: pd.DataFrame, **how: Any) -> Any:
    return frame.llm.classify("text", LABELS, **how)


def _stream(frame: pd.DataFrame, **how: Any) -> Any:
    how = {name: value for name, value in how.items() if name != "show_progress"}
    return pd.Series(["".join(asking.stream(text, **how)) for text in frame["text"]], index=frame.index)


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def _tools(frame: pd.DataFrame, **how: Any) -> Any:
    return frame.llm.chat("{text}", **{"tools": [add], **how})


def _vision(frame: pd.DataFrame, **how: Any) -> Any:
    return frame.assign(shown=[picture(text) for text in frame["text"]]).llm.chat("{text}", images="shown", **how)


SCHEMA = {"type": "object", "properties": {"first": {"type": "string"}, "second": {"type": "integer"}}, "required": ["first", "second"]}


def _structured(frame: pd.DataFrame, **how: Any) -> Any:
    return frame.llm.chat("{text}", response_format=SCHEMA, **how)


ASK: dict[str, Callable[..., Any]] = {
    "chat": _chat,
    "streaming": _stream,
    "tools": _tools,
    "vision": _vision,
    "structured": _structured,
    "embed": _embed,
    "embed pictures": _embed_pictures,
    "rerank": _rerank,
    "classify": _classify,
    "speech to text": _transcribe,
    "text to speech": _speak,
}


def frame_of(texts: Sequence[str]) -> pd.DataFrame:
    """Rows whose index is not their position, so that order and alignment are told apart. Half a character fits in no other dtype."""
    return pd.DataFrame({"text": list(texts)}, index=[f"row {number}" for number in reversed(range(len(texts)))], dtype=object)


def ask(column: str, name: str, texts: Sequence[str], **how: Any) -> Any:
    """Carry out what a column of the page names. Nothing is read from the store, unless the test says so."""
    return ASK[column](frame_of(texts), **{"model": model_of(name, column), "show_progress": False, "cache": "off", **how})


def expected(column: str, model: str, text: str) -> Any:
    """What the loopback answers to one row, whoever it plays."""
    match column:
        case "embed":
            return vector_of(text)
        case "embed pictures":
            return vector_of(f"{text}\nimage/png of {len(picture(text))} bytes")
        case "rerank":
            return similarity(QUERY, text)
        case "speech to text":
            return heard_in("recording.wav", len(recording(text)), model.partition("/")[2])
        case "text to speech":
            return speech_of(text, "a-voice", "mp3")
    return answer_to(text)


def assert_right(column: str, name: str, texts: Sequence[str], got: Any) -> None:
    """Every row has its own answer."""
    wanted = [expected(column, model_of(name, column), text) for text in texts]
    if column == "rerank":
        by_row = got["score"].reindex(frame_of(texts).index)
        np.testing.assert_allclose(by_row, wanted)
        assert got["score"].is_monotonic_decreasing
    elif column.startswith("embed"):
        np.testing.assert_allclose(np.array(got.tolist()), np.array(wanted), rtol=1e-6)
    else:
        assert got.tolist() == wanted
        assert got.index.equals(frame_of(texts).index)
