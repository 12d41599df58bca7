"""Answers that come in pieces: whole, broken, refused, and what is kept of them."""

from __future__ import annotations

from typing import Any

import pytest

from llmkit import asking
from llmkit.errors import BadOutput, ConnectionLost, ContentBlocked, LLMError, Overloaded, ServerFault, Truncated, Unreachable
from tests.loopback import Hang, Loopback, Said, Saying

from .conftest import Hurried
from .expectations import fate_of
from .house import SCHEMA, does, errors_at, key_of, model_of, move, voice_of, voices

pytestmark = pytest.mark.usefixtures("cache_dir")

STREAMING = does("streaming", voices())
TEXT = "the one row"


def _broken(name: str, **how: Any) -> tuple[list[str], LLMError, asking.Stream]:
    stream = asking.stream(TEXT, model=model_of(name, "chat"), **{"max_attempts": 2, **how})
    pieces: list[str] = []
    with pytest.raises(LLMError) as broken:
        pieces.extend(stream)  # what came before the error stays
    return pieces, broken.value, stream


def _stored(name: str) -> bool:
    """Whether the same question is answered from the store."""
    stream = asking.stream(TEXT, model=model_of(name, "chat"))
    return len(list(stream)) == 1 and not stream.usage.requests


@pytest.mark.parametrize("name", STREAMING)
def test_an_answer_that_came_to_its_end_is_stored(server: Loopback, name: str) -> None:
    move(name, server)
    assert not _stored(name)
    assert _stored(name)
    assert server.requests == 1


@pytest.mark.parametrize("kind", ["error_in_stream", "truncated_stream"])
@pytest.mark.parametrize("name", STREAMING)
def test_an_answer_that_breaks_off_is_an_error_and_nothing_of_it_is_stored(server: Loopback, clock: Hurried, name: str, kind: Any) -> None:
    move(name, server)
    server.fault(None, errors_at(name)[kind])
    pieces, error, stream = _broken(name)
    assert "".join(pieces) == f"answer to: {TEXT}"[:16] == stream.text
    assert isinstance(error, Unreachable | Overloaded)
    assert isinstance(error, ConnectionLost) == (kind == "truncated_stream")
    assert (error.provider, key_of(name) in str(error)) == (name, False)
    # What was said cannot be taken back, so it is not asked anew; nor is what is left of it taken for the answer.
    assert server.requests == 1
    assert (stream.usage.requests, not _stored(name)) == (1, True)


@pytest.mark.parametrize("name", [name for name in STREAMING if errors_at(name)["refusal"] is not None])
def test_a_model_that_declines_in_a_stream_is_an_error(server: Loopback, clock: Hurried, name: str) -> None:
    move(name, server)
    refusal = errors_at(name)["refusal"]
    assert refusal is not None
    server.fault(None, refusal)
    _, error, _ = _broken(name)
    assert isinstance(error, ContentBlocked)
    assert (server.requests, _stored(name)) == (1, False)


@pytest.mark.parametrize("name", STREAMING)
def test_a_stream_without_words_is_no_answer(server: Loopback, clock: Hurried, name: str) -> None:
    move(name, server)
    server.fault(None, Saying(Said("")), Saying(Said("", reason="length")))
    pieces, empty, _ = _broken(name)
    _, cut, _ = _broken(name)
    assert (pieces, type(empty), type(cut)) == ([], BadOutput, Truncated)
    assert not _stored(name)


@pytest.mark.parametrize("name", STREAMING)
def test_an_answer_that_was_cut_says_so(server: Loopback, name: str) -> None:
    move(name, server)
    server.fault(None, Saying(Said("half a sent", reason="length")))
    stream = asking.stream(TEXT, model=model_of(name, "chat"))
    assert ("".join(stream), stream.finish, stream.truncated) == ("half a sent", "length", True)


@pytest.mark.parametrize("kind", ["bad_key", "no_credit", "unknown_model", "context_too_long", "overloaded", "server_error"])
@pytest.mark.parametrize("name", STREAMING)
def test_a_refusal_before_the_first_piece_is_what_it_is_for_a_row(server: Loopback, clock: Hurried, name: str, kind: Any) -> None:
    move(name, server)
    answer = errors_at(name)[kind]
    assert answer is not None
    server.fault(None, answer, times=float("inf"))
    pieces, error, stream = _broken(name)
    assert (pieces, type(error)) == ([], fate_of(voice_of(name), kind).error)
    assert server.requests == (2 if fate_of(voice_of(name), kind).then == "retried" else 1)
    assert not stream.usage.requests


@pytest.mark.parametrize("name", STREAMING)
def test_silence_before_the_first_piece_is_tried_again(server: Loopback, clock: Hurried, name: str) -> None:
    move(name, server)
    server.fault(None, Hang())
    stream = asking.stream(TEXT, model=model_of(name, "chat"), idle_timeout=0.1, max_attempts=2)
    assert "".join(stream) == f"answer to: {TEXT}"
    assert server.requests == 2


@pytest.mark.parametrize("name", STREAMING)
def test_a_structured_answer_comes_in_pieces_too(server: Loopback, name: str) -> None:
    move(name, server)
    whole = "".join(asking.stream("seven 7 pears", model=model_of(name, "chat"), response_format=SCHEMA))
    assert whole.startswith("{") and whole.endswith("}")
    assert ServerFault.code not in whole
