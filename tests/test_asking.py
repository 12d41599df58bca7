"""Answers in pieces over real sockets, and the operations on one value."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import llmkit
from llmkit.errors import (
    BadInput,
    BadOutput,
    ConfigError,
    ConnectionLost,
    ContentBlocked,
    InvalidRequest,
    KeyRejected,
    LLMError,
    MissingKey,
    Overloaded,
    ServerFault,
    TimedOut,
    Unsupported,
)
from llmkit.session import default
from llmkit.types import Usage
from tests.loopback import (
    Answer,
    Breaking,
    Json,
    Loopback,
    Said,
    Saying,
    Status,
    answer_to,
    bad_key,
    error_of,
    rate_limited,
    server_error,
)

from .operations.test_files import png, wav

LONG = "Tell me of the grün sea 🚀, and of what is at its end"
TOLD = answer_to(LONG)
MODEL = "lab/test-chat"
FOREVER = float("inf")


@dataclass
class Watched(Answer):
    """The ordinary stream up to its third event, then silence; ``gone`` is set when the client hangs up."""

    gone: threading.Event = field(default_factory=threading.Event)

    async def send(self, wire: Any, ordinary: Any) -> None:
        try:
            await Breaking(3, "hang").send(wire, ordinary)
        finally:
            self.gone.set()


@dataclass(frozen=True)
class Heartbeats(Answer):
    """The ordinary stream after a number of comments, one every so many seconds."""

    count: int
    seconds: float

    async def send(self, wire: Any, ordinary: Any) -> None:
        head, body = ordinary()
        wire.write(head)
        for _ in range(self.count):
            wire.write(b"d\r\n: heartbeat\n\n\r\n")
            await asyncio.sleep(self.seconds)
        wire.finish(body)


@pytest.fixture
def spare(lab: Loopback) -> Iterator[Loopback]:
    """A second provider."""
    with Loopback() as server:
        server.answer = lambda body: "from the spare"
        llmkit.add_provider("spare", server.url)
        yield server


@pytest.fixture(params=["openai", "anthropic", "cohere", "mistral", "groq", "gemini"])
def vendor(request: pytest.FixtureRequest, server: Loopback) -> str:
    """A provider of each wire, known by its own name with ``lab-`` before it."""
    name = request.param
    own = name in ("anthropic", "cohere")
    url = server.url_of(name) if own else server.compat_url_of(name)
    quirks = {"stream_options": False} if name == "mistral" else {}
    default().add_provider(f"lab-{name}", url, "test-key-not-real", name if own else "openai", quirks)
    return f"lab-{name}"


def told(stream: Any) -> list[str]:
    return list(stream)


async def heard(stream: Any) -> list[str]:
    return [piece async for piece in stream]


def journal() -> list[dict[str, Any]]:
    """The runs in the journal, oldest first."""
    rows: list[dict[str, Any]] = []
    for path in Path(os.environ["LLMKIT_CACHE_DIR"]).rglob("shard-*.sqlite"):
        with sqlite3.connect(path) as connection:
            connection.row_factory = sqlite3.Row
            rows += [dict(row) for row in connection.execute("SELECT * FROM runs ORDER BY number")]
        connection.close()
    return rows


def priced(provider: str = "lab", **price: float) -> None:
    llmkit.catalogue.merge({"models": [{"provider": provider, "name": "test-chat", "price": price}]})


# ---------------------------------------------------------------------------------------------------------------- pieces


def test_the_pieces_are_the_plain_answer(vendor: str, server: Loopback) -> None:
    stream = llmkit.stream(LONG, model=f"{vendor}/test-chat", max_tokens=500)
    pieces = told(stream)
    assert len(pieces) > 3
    assert "".join(pieces) == stream.text == TOLD
    assert (stream.model, stream.finish, stream.truncated) == (f"{vendor}/test-chat", "stop", False)
    assert server.seen[0].body["stream"] is True
    plain = llmkit.chat(LONG, model=f"{vendor}/test-chat", max_tokens=500, cache="refresh")
    assert plain == TOLD


def test_what_was_billed_is_told(vendor: str) -> None:
    stream = llmkit.stream(LONG, model=f"{vendor}/test-chat", max_tokens=500)
    told(stream)
    assert (stream.usage.requests, stream.usage.unreported) == (1, 0)
    assert stream.usage.input > 0
    assert stream.usage.output > 0
    llmkit.chat(LONG, model=f"{vendor}/test-chat", max_tokens=500, cache="refresh")
    last = llmkit.last()
    assert last is not None
    assert last.usage() == stream.usage


def test_a_loop_that_is_async_gets_the_same(lab: Loopback) -> None:
    stream = llmkit.stream(LONG, model=MODEL)
    pieces = asyncio.run(heard(stream))
    assert len(pieces) > 3
    assert "".join(pieces) == TOLD


def test_several_answers_come_at_once_in_one_loop(lab: Loopback) -> None:
    async def several() -> list[list[str]]:
        return await asyncio.gather(*(heard(llmkit.stream(f"{LONG} {n}", model=MODEL)) for n in range(8)))

    assert ["".join(pieces) for pieces in asyncio.run(several())] == [answer_to(f"{LONG} {n}") for n in range(8)]


def test_nothing_is_sent_before_the_first_piece_is_asked_for(lab: Loopback) -> None:
    stream = llmkit.stream(LONG, model=MODEL)
    assert lab.requests == 0
    assert next(iter(stream))
    assert lab.requests == 1


def test_the_system_message_and_the_options_travel(lab: Loopback) -> None:
    told(llmkit.stream("a", model=MODEL, system="Be brief", temperature=0.5, seed=3, max_tokens=40))
    body = lab.seen[0].body
    assert body["messages"] == [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "a"}]
    assert (body["temperature"], body["seed"], body["max_tokens"]) == (0.5, 3, 40)


def test_an_answer_of_a_form_comes_in_pieces_too(lab: Loopback) -> None:
    schema = {"type": "object", "properties": {"words": {"type": "string"}}}
    assert "".join(told(llmkit.stream("some words", model=MODEL, response_format=schema))) == '{"words":"some words"}'


def test_braces_mean_nothing(lab: Loopback) -> None:
    assert "".join(told(llmkit.stream("a {b} {{c}}", model=MODEL))) == answer_to("a {b} {{c}}")


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
def test_every_cut_of_the_bytes_gives_the_same_text(lab: Loopback, size: int) -> None:
    lab.answer = lambda body: "grün 🚀 語 " * 20

    @dataclass(frozen=True)
    class Cut(Answer):
        async def send(self, wire: Any, ordinary: Any) -> None:
            head, body = ordinary()
            wire.write(head.replace(b"transfer-encoding: chunked\r\n", b"connection: close\r\n"))
            stream = b"".join(body.split(b"\r\n")[1::2])
            for at in range(0, len(stream), size):
                wire.write(stream[at : at + size])
                await asyncio.sleep(0)
            wire.finish(b"", close=True)

    lab.fault("Say", Cut())
    text = "".join(told(llmkit.stream("Say", model=MODEL)))
    assert hashlib.sha256(text.encode()).digest() == hashlib.sha256(("grün 🚀 語 " * 20).encode()).digest()


def test_an_echo_answers_in_one_piece_and_offline() -> None:
    stream = llmkit.stream("Say it", model="echo/echo")
    assert told(stream) == ["[echo, not a model] Say it"]
    assert (stream.finish, stream.cost) == ("stop", 0.0)


def test_a_server_that_does_not_stream_is_read_whole(lab: Loopback) -> None:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "all at once"}}
    usage = {"prompt_tokens": 2, "completion_tokens": 3}
    lab.fault("Say", Json({"choices": [choice], "usage": usage}))
    stream = llmkit.stream("Say", model=MODEL)
    assert told(stream) == ["all at once"]
    assert stream.usage == Usage(2, 0, 3, 1)


# -------------------------------------------------------------------------------------------------------------- the store


def test_an_answer_that_came_to_its_end_is_stored(lab: Loopback) -> None:
    first = llmkit.stream(LONG, model=MODEL, temperature=0.5)
    told(first)
    second = llmkit.stream(LONG, model=MODEL, temperature=0.5)
    assert told(second) == [TOLD]
    assert (second.usage, second.cost, second.finish, second.model) == (Usage(), 0.0, "stop", MODEL)
    assert llmkit.chat(LONG, model=MODEL, temperature=0.5) == TOLD
    assert lab.requests == 1


def test_what_chat_stored_is_not_streamed_again(lab: Loopback) -> None:
    llmkit.chat(LONG, model=MODEL)
    assert told(llmkit.stream(LONG, model=MODEL)) == [TOLD]
    assert lab.requests == 1


@pytest.mark.parametrize(("cache", "requests"), [("use", 1), ("refresh", 2), ("off", 2)])
def test_the_store_is_used_as_the_call_says(lab: Loopback, cache: str, requests: int) -> None:
    for _ in range(2):
        assert "".join(told(llmkit.stream(LONG, model=MODEL, cache=cache))) == TOLD
    assert lab.requests == requests


@pytest.mark.parametrize("fault", ["truncated_stream", "error_in_stream"])
def test_an_answer_that_broke_off_is_not_stored(lab: Loopback, fault: Any) -> None:
    lab.fault(LONG, error_of("openai", fault))
    with pytest.raises(LLMError):
        told(llmkit.stream(LONG, model=MODEL))
    assert "".join(told(llmkit.stream(LONG, model=MODEL))) == TOLD
    assert lab.requests == 2


def test_an_answer_of_the_second_choice_is_found_again(lab: Loopback, spare: Loopback) -> None:
    lab.fault(None, bad_key(), times=FOREVER)
    for _ in range(2):
        stream = llmkit.stream(LONG, model=MODEL, fallback="spare/b")
        assert "".join(told(stream)) == "from the spare"
        assert stream.model == "spare/b"
    assert (lab.requests, spare.requests) == (1, 1)


# -------------------------------------------------------------------------------------------------------------- what fails


def test_a_busy_provider_is_waited_for(lab: Loopback) -> None:
    lab.fault(LONG, rate_limited(60), times=2)
    stream = llmkit.stream(LONG, model=MODEL, max_attempts=1)  # being told to wait costs no attempt
    assert "".join(told(stream)) == TOLD
    first, second, third = lab.seen
    assert min(second.at - first.at, third.at - second.at) >= 0.06
    assert third.at - first.at < 5


def test_a_fault_of_the_server_is_tried_again(lab: Loopback) -> None:
    lab.fault(LONG, server_error(), times=2)
    assert "".join(told(llmkit.stream(LONG, model=MODEL))) == TOLD
    assert lab.requests == 3


def test_tries_have_an_end(lab: Loopback) -> None:
    lab.fault(LONG, server_error(), times=FOREVER)
    with pytest.raises(ServerFault):
        told(llmkit.stream(LONG, model=MODEL, max_attempts=2))
    assert lab.requests == 2


def test_a_refused_row_is_not_asked_elsewhere(lab: Loopback, spare: Loopback) -> None:
    lab.fault(LONG, error_of("openai", "bad_request"))
    with pytest.raises(InvalidRequest):
        told(llmkit.stream(LONG, model=MODEL, fallback="spare/b"))
    assert spare.requests == 0


@pytest.mark.parametrize("fault", [bad_key(), error_of("openai", "no_credit"), error_of("openai", "context_too_long"), rate_limited(60)])
def test_the_next_model_is_asked_the_original_messages(lab: Loopback, spare: Loopback, fault: Any) -> None:
    lab.fault(LONG, fault, times=FOREVER)
    stream = llmkit.stream(LONG, model=MODEL, fallback="spare/b", system="Be brief")
    assert "".join(told(stream)) == "from the spare"
    assert spare.seen[0].body["messages"] == lab.seen[0].body["messages"]
    assert stream.model == "spare/b"


@pytest.mark.parametrize("fault", [error_of("openai", "bad_request"), bad_key(), error_of("openai", "truncated_stream")])
def test_where_the_next_model_fails_as_well_the_first_reason_is_the_cause(lab: Loopback, spare: Loopback, fault: Any) -> None:
    lab.fault(LONG, bad_key())
    spare.fault(LONG, fault)
    with pytest.raises(LLMError) as caught:
        told(llmkit.stream(LONG, model=MODEL, fallback="spare/b"))
    assert caught.value.provider == "spare"
    assert isinstance(caught.value.__cause__, KeyRejected)
    assert caught.value.__cause__.provider == "lab"


def test_an_error_after_two_pieces_ends_the_answer_and_what_came_is_kept(vendor: str, server: Loopback) -> None:
    server.fault(LONG, error_of(vendor.removeprefix("lab-"), "error_in_stream", compat=True))
    stream = llmkit.stream(LONG, model=f"{vendor}/test-chat", fallback="echo/echo", max_tokens=500)
    with pytest.raises(LLMError):
        told(stream)
    assert TOLD.startswith(stream.text)
    assert stream.text
    assert (stream.model, server.requests) == (f"{vendor}/test-chat", 1)


def test_an_answer_that_broke_off_is_an_error(vendor: str, server: Loopback) -> None:
    server.fault(LONG, error_of(vendor.removeprefix("lab-"), "truncated_stream", compat=True))
    stream = llmkit.stream(LONG, model=f"{vendor}/test-chat", max_tokens=500)
    with pytest.raises(ConnectionLost):
        told(stream)
    assert stream.text
    assert stream.finish is None


def test_a_stream_that_ends_in_good_order_and_too_early_is_an_error(lab: Loopback) -> None:
    lab.fault(LONG, Breaking(4, b"data: [DONE]\n\n"))
    with pytest.raises(ConnectionLost, match="broke off"):
        told(llmkit.stream(LONG, model=MODEL))


def test_an_event_that_is_no_json_ends_the_answer(lab: Loopback) -> None:
    lab.fault(LONG, Breaking(4, b'data: {"choices": [{\n\n'))
    with pytest.raises(ServerFault):
        told(llmkit.stream(LONG, model=MODEL))


def test_what_both_tries_cost_is_in_the_journal_and_in_the_stream(server: Loopback) -> None:
    # Anthropic tells the input with the first event, so it is known of an answer that broke off.
    llmkit.add_provider("lab", server.url_of("anthropic"), "test-key-not-real", protocol="anthropic")
    llmkit.add_provider("spare", server.url, "test-key-not-real")
    priced(input=1.0, output=2.0)
    llmkit.catalogue.merge({"models": [{"provider": "spare", "name": "test-chat", "price": {"input": 3.0, "output": 4.0}}]})
    server.fault(LONG, Breaking(1, b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n'))
    stream = llmkit.stream(LONG, model=MODEL, fallback="spare/test-chat", max_tokens=500)
    assert "".join(told(stream)) == TOLD
    assert stream.usage.requests == 2
    (run,) = journal()
    usage = stream.usage
    assert (run["input"], run["output"], run["requests"], run["done"], run["errors"]) == (usage.input, usage.output, 2, 1, 0)
    assert run["cost"] == pytest.approx(stream.cost)
    assert stream.cost is not None
    assert stream.cost > usage.input / 2 * 3e-6


def test_what_a_broken_answer_cost_is_in_the_journal(server: Loopback) -> None:
    llmkit.add_provider("lab", server.url_of("anthropic"), "test-key-not-real", protocol="anthropic")
    priced(input=1.0, output=2.0)
    server.fault(LONG, error_of("anthropic", "error_in_stream"))
    stream = llmkit.stream(LONG, model=MODEL, max_tokens=500)
    with pytest.raises(Overloaded):
        told(stream)
    (run,) = journal()
    assert (run["errors"], run["done"], run["stopped"]) == (1, 0, "overloaded")
    assert (run["input"], run["requests"]) == (stream.usage.input, 1)
    assert stream.usage.input > 0
    assert run["cost"] == pytest.approx(stream.cost)


def test_a_cost_that_nobody_told_is_unknown(lab: Loopback) -> None:
    priced(input=1.0, output=2.0)
    lab.fault(LONG, error_of("openai", "truncated_stream"))
    stream = llmkit.stream(LONG, model=MODEL)
    with pytest.raises(ConnectionLost):
        told(stream)
    assert (stream.usage, stream.cost) == (Usage(requests=1, unreported=1), None)


@pytest.mark.parametrize(("fault", "error"), [("refusal", ContentBlocked), ("empty_answer", BadOutput)])
def test_a_refusal_and_an_empty_answer_are_errors(server: Loopback, fault: Any, error: type[LLMError]) -> None:
    llmkit.add_provider("lab", server.url_of("openai"), "test-key-not-real")
    server.fault(LONG, error_of("openai", fault))
    with pytest.raises(error):
        told(llmkit.stream(LONG, model=MODEL))


@pytest.mark.parametrize("name", ["openai", "anthropic", "cohere"])
def test_a_cut_answer_says_so(server: Loopback, name: str) -> None:
    llmkit.add_provider("lab", server.url_of(name), "test-key-not-real", protocol=name)
    stream = llmkit.stream(LONG, model=MODEL, max_tokens=4)
    text = "".join(told(stream))
    assert TOLD.startswith(text)
    assert (stream.finish, stream.truncated) == ("length", True)


def test_a_cut_answer_says_so_also_from_the_store(lab: Loopback) -> None:
    for _ in range(2):
        stream = llmkit.stream(LONG, model=MODEL, max_tokens=4)
        told(stream)
        assert stream.truncated
    assert lab.requests == 1


# ------------------------------------------------------------------------------------------------------------------- time


def test_silence_between_two_pieces_is_a_time_out(lab: Loopback) -> None:
    lab.fault(LONG, Breaking(3, "hang"))
    stream = llmkit.stream(LONG, model=MODEL, idle_timeout=0.3)
    with pytest.raises(TimedOut):
        told(stream)
    assert stream.text
    assert lab.requests == 1


def test_heartbeats_are_signs_of_life(lab: Loopback) -> None:
    lab.fault(LONG, Heartbeats(8, 0.1))
    assert "".join(told(llmkit.stream(LONG, model=MODEL, idle_timeout=0.5))) == TOLD
    assert lab.requests == 1


def test_heartbeats_do_not_outlast_the_time_for_the_whole(lab: Loopback) -> None:
    lab.fault(LONG, Heartbeats(1000, 0.1))
    with pytest.raises(TimedOut):
        told(llmkit.stream(LONG, model=MODEL, idle_timeout=30, timeout=0.5, max_attempts=1))


def test_leaving_the_loop_early_closes_the_connection_and_books_what_came(lab: Loopback) -> None:
    watched = Watched()
    lab.fault(LONG, watched)
    stream = llmkit.stream(LONG, model=MODEL)
    for piece in stream:
        assert TOLD.startswith(piece)
        break
    assert watched.gone.wait(5)
    assert stream.usage == Usage(requests=1, unreported=1)
    (run,) = journal()
    assert (run["stopped"], run["requests"], run["done"]) == ("cancelled", 1, 0)
    assert "".join(told(llmkit.stream(LONG, model=MODEL))) == TOLD


def test_leaving_an_async_loop_early_closes_the_connection(lab: Loopback) -> None:
    watched = Watched()
    lab.fault(LONG, watched)

    async def first() -> str:
        pieces = llmkit.stream(LONG, model=MODEL).__aiter__()
        piece = await anext(pieces)
        await pieces.aclose()  # type: ignore[attr-defined]
        return piece

    assert TOLD.startswith(asyncio.run(first()))
    assert watched.gone.wait(5)


def test_a_cancelled_task_closes_the_connection(lab: Loopback) -> None:
    watched = Watched()
    lab.fault(LONG, watched)

    async def gives_up() -> None:
        async with asyncio.timeout(0.5):
            await heard(llmkit.stream(LONG, model=MODEL))

    with pytest.raises(TimeoutError):
        asyncio.run(gives_up())
    assert watched.gone.wait(5)


def test_the_pieces_come_once(lab: Loopback) -> None:
    stream = llmkit.stream(LONG, model=MODEL)
    told(stream)
    with pytest.raises(ConfigError, match="come once"):
        told(stream)
    with pytest.raises(ConfigError, match="come once"):
        asyncio.run(heard(stream))
    assert stream.text == TOLD


def test_a_stream_shows_neither_prompt_nor_answer(lab: Loopback) -> None:
    stream = llmkit.stream(LONG, model=MODEL)
    told(stream)
    assert repr(stream) == f"<Stream of {MODEL}: {len(TOLD):,} characters so far, stop>"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"prompt": ""}, BadInput),
        ({"prompt": 17}, BadInput),
        ({"idle_timeout": 0}, ConfigError),
        ({"idle_timeout": True}, ConfigError),
        ({"timeout": -1}, ConfigError),
        ({"temperature": "hot"}, ConfigError),
        ({"response_format": "xml"}, BadInput),
        ({"model": "openai/gpt-4.1-mini"}, MissingKey),
    ],
)
def test_what_cannot_work_is_told_at_once(lab: Loopback, arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        llmkit.stream(**{"prompt": "a", "model": MODEL, **arguments})
    assert lab.requests == 0


def test_an_option_that_the_wire_has_no_word_for_is_told_at_once(server: Loopback) -> None:
    llmkit.add_provider("lab", server.url_of("anthropic"), "test-key-not-real", protocol="anthropic")
    with pytest.raises(Unsupported, match="has no seed"):
        llmkit.stream("a", model=MODEL, seed=1)


def test_a_key_that_changed_meanwhile_is_asked_for_again(server: Loopback) -> None:
    keys = iter(["old-key", "new-key"])
    server.key = "new-key"
    llmkit.add_provider("lab", server.url, lambda: next(keys, "new-key"))
    assert "".join(told(llmkit.stream(LONG, model=MODEL))) == TOLD
    assert server.requests == 2


# -------------------------------------------------------------------------------------------------------------- one value


def test_one_text_is_classified(lab: Loopback) -> None:
    assert llmkit.classify("the delivery is late", ["billing", "delivery"], model=MODEL) == "delivery"
    assert llmkit.classify("the delivery is late", ["billing", "delivery"], model=MODEL, multi_label=True) == ["delivery"]


def test_one_text_that_cannot_be_classified_raises(lab: Loopback) -> None:
    lab.answer = lambda body: "the weather"
    with pytest.raises(BadOutput, match="none of the labels"):
        llmkit.classify("a", ["billing", "delivery"], model=MODEL)


def test_one_recording_is_transcribed(lab: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.wav").write_bytes(wav(1))
    expected = f"whisper-1 heard recording.wav, {len(wav(1))} bytes"
    assert llmkit.transcribe("a.wav", model="lab/whisper-1") == llmkit.transcribe(wav(1), model="lab/whisper-1") == expected
    assert lab.requests == 1


def test_one_recording_outside_is_refused_before_anything_is_sent(lab: Loopback) -> None:
    with pytest.raises(BadInput, match="outside"):
        llmkit.transcribe("/etc/passwd", model="lab/whisper-1")
    assert lab.requests == 0


def test_one_text_is_spoken(lab: Loopback, tmp_path: Path) -> None:
    data = llmkit.speak("hello", voice="x", format="wav", model="lab/tts-1")
    path = llmkit.speak("hello", voice="x", format="wav", folder=tmp_path, model="lab/tts-1")
    assert data[:4] == b"RIFF"
    assert Path(path).read_bytes() == data
    assert lab.requests == 1


@pytest.mark.parametrize("given", ["", "  ", None, 17])
def test_nothing_to_work_on_is_told_at_once(lab: Loopback, given: Any) -> None:
    for function in (lambda: llmkit.classify(given, ["a", "b"], model=MODEL), lambda: llmkit.speak(given, model=MODEL)):
        with pytest.raises(BadInput):
            function()
    assert lab.requests == 0


@pytest.mark.parametrize("given", ["", "  ", b"", None, float("nan")])
def test_no_recording_is_told_at_once(lab: Loopback, given: Any) -> None:
    with pytest.raises(BadInput, match="transcribe needs a recording"):
        llmkit.transcribe(given, model="lab/whisper-1")
    assert lab.requests == 0


@pytest.mark.parametrize("given", ["", " ", b"", float("nan"), [], (), [""], [None], ["", ""]])
def test_no_picture_where_one_is_named_is_told_at_once(lab: Loopback, given: Any) -> None:
    for images in (given, [png(), given]):
        with pytest.raises(LLMError, match="images holds an empty one" if images is given else None):
            llmkit.chat("What is it?", images=images, model=MODEL)
    assert lab.requests == 0


def test_a_picture_beside_one_prompt(lab: Loopback) -> None:
    assert llmkit.chat("What is it?", images=png(), model=MODEL) == f"answer to: What is it? [1 image: image/png of {len(png())} bytes]"


def test_the_text_of_a_said_answer_is_the_servers(lab: Loopback) -> None:
    lab.fault("Say", Saying(Said("fine words")))
    assert "".join(told(llmkit.stream("Say", model=MODEL))) == "fine words"
    lab.fault("Shout", Status(418, b"teapot"))
    with pytest.raises(InvalidRequest):
        told(llmkit.stream("Shout", model=MODEL))


def test_a_prompt_of_more_than_a_megabyte_is_streamed_as_well(lab: Loopback) -> None:
    lab.answer = lambda body: "read it all"
    assert "".join(llmkit.stream("word " * 300_000, model="lab/test-chat")) == "read it all"
