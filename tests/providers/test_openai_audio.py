"""Speech on OpenAI's wire: forms out, bodies in, and what they say was billed. No network here."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from llmkit.adapter import Target
from llmkit.errors import BadOutput, InvalidRequest, ServerFault, Unsupported
from llmkit.operations.transcribe import Recording
from llmkit.providers import openai_audio
from llmkit.providers.openai import adapter
from llmkit.types import Model, Provider, Reply, Request, Usage
from tests.loopback import Upload
from tests.loopback.form import parsed

ADAPTER = adapter()
DATA = bytes(range(256)) + b"\r\n--x--\r\n"


def target(operation: str, **quirks: Any) -> Target:
    return Target(Model("lab", "a-model"), Provider("lab", "http://x", quirks=quirks), ADAPTER, ADAPTER.codecs[operation])


def recording(data: bytes = DATA, **options: Any) -> Request:
    return Request("transcribe", Recording("recording.mp3", "audio/mpeg", data), options)


def text(words: str, **options: Any) -> Request:
    return Request("speak", words, options)


def heard(body: Any) -> Any:
    (reply,) = ADAPTER.codecs["transcribe"].decode(orjson.dumps(body), [recording()])
    return reply


def test_a_form_is_read_as_it_was_written() -> None:
    codec = ADAPTER.codecs["transcribe"]
    body = codec.encode([recording(language="de", prompt="Ütz \ud800", temperature=0.2)], target("transcribe"))
    assert parsed(codec.content_type, body) == {
        "model": "a-model",
        "response_format": "json",
        "language": "de",
        "prompt": "Ütz \ufffd",
        "temperature": "0.2",
        "file": Upload("recording.mp3", "audio/mpeg", DATA),
    }


def test_the_same_recording_has_the_same_bytes() -> None:
    codec = ADAPTER.codecs["transcribe"]
    assert codec.encode([recording()], target("transcribe")) == codec.encode([recording()], target("transcribe"))


def test_a_recording_that_holds_the_edge_of_the_form_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="separate the parts"):
        ADAPTER.codecs["transcribe"].encode([recording(b"ID3" + openai_audio._BOUNDARY)], target("transcribe"))


@pytest.mark.parametrize(
    ("body", "usage"),
    [
        ({"usage": {"type": "duration", "seconds": 3}}, Usage(requests=1, audio_seconds=3.0)),
        ({"duration": 2.5}, Usage(requests=1, audio_seconds=2.5)),
        (
            {"usage": {"type": "tokens", "input_tokens": 30, "output_tokens": 7, "input_token_details": {"audio_tokens": 28}}},
            Usage(input=30, output=7, requests=1, audio_input=28),
        ),
        ({"usage": {"prompt_audio_seconds": 9, "prompt_tokens": 4, "completion_tokens": 7}}, Usage(requests=1, audio_seconds=9.0)),
        ({}, Usage(requests=1, unreported=1)),
        ({"usage": {"seconds": "soon"}}, Usage(requests=1, unreported=1)),
        ({"usage": [3]}, Usage(requests=1, unreported=1)),
    ],
)
def test_what_was_billed_is_found_where_each_vendor_says_it(body: dict[str, Any], usage: Usage) -> None:
    reply = heard({"text": " words ", **body})
    assert isinstance(reply, Reply)
    assert (reply.value, reply.usage) == ("words", usage)


def test_silence_is_no_answer_and_its_bill_is_kept() -> None:
    reply = heard({"text": "", "usage": {"seconds": 3}})
    assert isinstance(reply, BadOutput)
    assert reply.usage == Usage(requests=1, audio_seconds=3.0)


@pytest.mark.parametrize("body", [{}, {"text": None}, {"text": 3}, []])
def test_an_answer_without_text_is_the_servers_fault(body: Any) -> None:
    with pytest.raises(ServerFault):
        heard(body)


def test_a_voice_is_named_or_usual_or_missing() -> None:
    codec = ADAPTER.codecs["speak"]
    said = orjson.loads(codec.encode([text("hello", voice="x", format="wav")], target("speak", voice="usual")))
    assert said == {"model": "a-model", "input": "hello", "voice": "x", "response_format": "wav"}
    assert orjson.loads(codec.encode([text("hello")], target("speak", voice="usual")))["voice"] == "usual"
    with pytest.raises(Unsupported, match="voice="):
        codec.encode([text("hello")], target("speak"))


def test_sound_is_taken_as_it_is_and_its_characters_are_counted() -> None:
    (reply,) = ADAPTER.codecs["speak"].decode(b"ID3\x04\x00", [text("grün")])
    assert isinstance(reply, Reply)
    assert (reply.value, reply.usage) == (b"ID3\x04\x00", Usage(requests=1, characters=4))


@pytest.mark.parametrize("body", [b"", b'{"audio": 1}', b'{"error": {"message": "no"}}', b"[1]"])
def test_what_is_no_sound_is_the_servers_fault(body: bytes) -> None:
    with pytest.raises(ServerFault):
        ADAPTER.codecs["speak"].decode(body, [text("hello")])
