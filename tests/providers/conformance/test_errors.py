"""Every error that a vendor is known to answer with, in its own words: which of ours it becomes, and what is then done."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest

import llmkit
from llmkit.adapter import Adapter
from llmkit.errors import AccessError, Busy, LLMError, RequestError, ServerFault, Unreachable
from scripts import providers_page as page
from tests.loopback import CloseMidBody, Json, Loopback, Raw, Status

from .conftest import Hurried
from .expectations import FATES, SENTENCES, Fate, Then, fate_of
from .house import OPERATION, ask, assert_right, errors_at, expected, key_of, move, pairs, said, voice_of, voices

SPARE = "spare"
FOREVER = float("inf")
#: Kinds that are about what a chat model says, and ask for a chat.
SPOKEN = {"empty_answer", "refusal", "content_filter"}


def _columns(name: str, kind: str) -> list[str]:
    columns = [column for column in OPERATION if said(name, column) != page.NO]
    if kind == "batch_too_large":
        return [column for column in columns if column == "embed"]
    if kind in SPOKEN:
        return [column for column in columns if column == "chat"] or columns[:1]
    return columns


def _cases(*fates: Then) -> list[tuple[str, str, str]]:
    return [
        (name, column, kind)
        for name in voices()
        for kind in FATES
        if errors_at(name)[kind] is not None and fate_of(voice_of(name), kind).then in fates
        for column in _columns(name, kind)
    ]


def _spare(server: Loopback, column: str) -> str:
    """A second model, of a provider of the user's own, that can do the same."""
    pictures = column == "embed pictures"
    address, protocol = (server.url_of("voyage"), "voyage") if pictures else (server.compat_url_of(SPARE), "openai")
    llmkit.add_provider(SPARE, address, key_of(SPARE), protocol)
    return f"{SPARE}/made-up"


def _bytes_of(status: Status) -> bytes:
    return status.render({})[1]


# ------------------------------------------------------------------------------------------------------------ what it becomes


@pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for name in voices() for kind in FATES if isinstance(errors_at(name)[kind], Status)]
)
def test_an_error_is_of_the_branch_that_does_the_right_thing(name: str, kind: str) -> None:
    answer = errors_at(name)[kind]  # type: ignore[index]
    assert isinstance(answer, Status)
    if answer.code == 200:
        return  # an answer that is none; what its reader makes of it is seen below
    wire: Adapter = page.adapter(name)
    error = wire.classify_error(answer.code, answer.headers, _bytes_of(answer))
    assert type(error) is fate_of(voice_of(name), kind).error
    assert (error.status, "\n" in error.message) == (answer.code, False)


@pytest.mark.parametrize(("name", "status", "sentence", "error"), SENTENCES)
def test_a_sentence_that_only_one_vendor_says_is_understood(name: str, status: int, sentence: str, error: type[LLMError]) -> None:
    for body in ({"error": {"message": sentence}}, {"object": "error", "message": sentence, "code": None}, {"error": sentence}):
        assert type(page.adapter(name).classify_error(status, {}, orjson.dumps(body))) is error


# ---------------------------------------------------------------------------------------------------------- what is then done


@pytest.mark.parametrize(("name", "column", "kind"), _cases("retried"))
def test_what_may_pass_is_tried_again(server: Loopback, clock: Hurried, name: str, column: str, kind: Any) -> None:
    move(name, server)
    server.fault(None, errors_at(name)[kind])
    texts = ["the one row"]
    assert_right(column, name, texts, ask(column, name, texts, max_attempts=2))
    assert server.requests == 2


@pytest.mark.parametrize(("name", "column", "kind"), _cases("retried"))
def test_what_does_not_pass_ends_after_as_many_tries_as_were_asked_for(
    server: Loopback, clock: Hurried, name: str, column: str, kind: Any
) -> None:
    fate: Fate = fate_of(voice_of(name), kind)
    if kind == "rate_limited":  # costs time, not attempts: the deadline of a quarter of an hour bounds it
        return
    move(name, server)
    server.fault(None, errors_at(name)[kind], times=FOREVER)
    with pytest.raises(fate.error) as failed:
        ask(column, name, ["the one row"], max_attempts=2, on_error="raise")
    assert server.requests == 2
    assert _is_clean(failed.value, name)


@pytest.mark.parametrize(("name", "column", "kind"), _cases("kept", "moved on"))
def test_a_refused_row_is_asked_once_and_the_others_have_their_answers(
    server: Loopback, clock: Hurried, name: str, column: str, kind: Any
) -> None:
    move(name, server)
    refused, others = "the refused row", ["another row", "a third row"]
    alone = [refused] if column == "rerank" else [others[0], refused, others[1]]
    match = "recording.wav" if column == "speech to text" else refused
    if column == "speech to text":  # what is said in a recording is nothing that a fault could look for
        alone = [refused]
    server.fault(match, errors_at(name)[kind], times=FOREVER)
    with pytest.raises(fate_of(voice_of(name), kind).error) as failed:
        ask(column, name, alone, on_error="raise")
    assert isinstance(failed.value, RequestError)
    assert _is_clean(failed.value, name)
    if len(alone) == 1:
        assert server.requests == 1
        return
    partial = llmkit.last().partial()
    assert partial.isna().tolist() == [False, True, False]
    assert_right(column, name, others, partial.dropna().set_axis(["row 1", "row 0"]))
    assert server.count(refused) <= 3  # in its batch, in half of it, alone


@pytest.mark.parametrize(("name", "column", "kind"), _cases("shut", "moved on"))
def test_the_next_model_of_the_route_is_asked(server: Loopback, clock: Hurried, name: str, column: str, kind: Any) -> None:
    move(name, server)
    spare = _spare(server, column)
    server.fault(None, errors_at(name)[kind])
    got = ask(column, name, ["the one row"], fallback=spare)
    wanted = expected(column, spare, "the one row")
    value = got["score"].iloc[0] if column == "rerank" else got.iloc[0]
    assert np.allclose(value, wanted) if column.startswith("embed") else value == wanted
    assert [key_of(who) in str(request.headers) for who, request in zip((name, SPARE), server.seen, strict=True)] == [True, True]


@pytest.mark.parametrize(("name", "column", "kind"), _cases("shut"))
def test_a_refused_account_ends_the_run_while_little_was_sent(server: Loopback, clock: Hurried, name: str, column: str, kind: Any) -> None:
    move(name, server)
    server.fault(None, errors_at(name)[kind], times=FOREVER)
    with pytest.raises(fate_of(voice_of(name), kind).error) as ended:
        ask(column, name, [f"row {number}" for number in range(20)])
    assert isinstance(ended.value, AccessError)
    assert _is_clean(ended.value, name)
    assert server.requests <= 8


@pytest.mark.parametrize(("name", "column", "kind"), _cases("halved"))
def test_a_batch_that_is_too_large_is_halved(server: Loopback, clock: Hurried, name: str, column: str, kind: Any) -> None:
    move(name, server)
    server.fault(None, errors_at(name)[kind])
    texts = [f"row {number}" for number in range(4)]
    assert_right(column, name, texts, ask(column, name, texts))
    assert [len(request.texts) for request in server.seen] == [4, 2, 2]


def _is_clean(error: LLMError, name: str) -> bool:
    """Whether an error says who refused, and holds neither key nor row."""
    text = f"{error} {error.args} {error.__notes__ if hasattr(error, '__notes__') else ''}"
    return error.provider == name and key_of(name) not in text and "the one row" not in text and "the refused row" not in text


# -------------------------------------------------------------------------------------------------------- answers that are none


@pytest.mark.parametrize(
    "broken",
    [
        Json({}),
        Json([]),
        Status(200, b"no JSON"),
        Status(200, b""),
        Json({"choices": 3, "content": 3, "data": 3, "results": 3}),
        CloseMidBody(0.6),
    ],
    ids=["empty object", "array", "text", "nothing", "another form", "cut off"],
)
@pytest.mark.parametrize(("name", "column"), pairs(list(OPERATION), voices()))
def test_an_answer_that_is_none_is_tried_again_and_never_a_value(
    server: Loopback, clock: Hurried, name: str, column: str, broken: Any
) -> None:
    if column == "text to speech" and broken == Status(200, b"no JSON"):
        return  # a recording may be any bytes
    move(name, server)
    server.fault(None, broken)
    texts = ["the one row"]
    assert_right(column, name, texts, ask(column, name, texts, max_attempts=2))
    assert server.requests == 2


@pytest.mark.parametrize(("name", "column"), pairs(list(OPERATION), voices()))
def test_a_lost_connection_is_tried_again(server: Loopback, clock: Hurried, name: str, column: str) -> None:
    move(name, server)
    server.fault(None, Raw(b""))
    texts = ["the one row"]
    assert_right(column, name, texts, ask(column, name, texts, max_attempts=2))


@pytest.mark.parametrize(("name", "column"), pairs(["chat"], voices()))
def test_an_error_that_came_as_a_200_is_no_answer(server: Loopback, clock: Hurried, name: str, column: str) -> None:
    move(name, server)
    server.fault(None, errors_at(name)["error_in_stream"], times=FOREVER)
    with pytest.raises((Busy, Unreachable, ServerFault)):
        ask(column, name, ["the one row"], max_attempts=1, on_error="raise")
    server.clear_faults()
    assert_right(column, name, ["the one row"], ask(column, name, ["the one row"]))
