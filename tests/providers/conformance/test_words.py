"""What is said to a model reaches it in the vendor's own words or is refused, and what must not travel stays here."""

from __future__ import annotations

import re
from typing import Any

import pytest

import llmkit
from llmkit import asking
from llmkit.errors import AccessError, ConfigError, KeyRejected, Unsupported
from scripts import providers_page as page
from tests.loopback import Loopback, Said, Saying, Status

from .conftest import Hurried
from .house import AWAY, OPERATION, ask, assert_right, does, frame_of, key_of, model_of, move, pairs, said, voices

TEXT = "the one row"
#: What a vendor may call an option; the values are what was asked for.
WORDS = {
    "temperature": (0.25, {"temperature"}),
    "max_tokens": (77, {"max_tokens", "max_completion_tokens"}),
    "seed": (11, {"seed", "random_seed"}),
}
#: One column for each provider, so that everybody is asked.
FIRST = [(name, next(column for column in OPERATION if said(name, column) != page.NO)) for name in AWAY if said(name, "usage") != page.NO]

KEYED = [name for name, row in page.providers().items() if name in AWAY and not row.key_optional and row.status != "retired"]


@pytest.mark.parametrize("option", WORDS)
@pytest.mark.parametrize("name", does("chat"))
def test_an_option_reaches_the_vendor_in_its_own_word_or_is_refused_before_anything_is_sent(
    server: Loopback, name: str, option: str
) -> None:
    move(name, server)
    value, words = WORDS[option]
    try:
        (got,) = ask("chat", name, [TEXT], **{option: value})
    except Unsupported as refused:
        assert option in str(refused)
        assert not server.requests
    else:
        assert got == f"answer to: {TEXT}"  # a vendor that does not know a word refuses it
        assert [body[word] for body in [server.seen[0].body] for word in words & body.keys()] == [value]


@pytest.mark.parametrize("name", does("chat"))
def test_the_system_message_and_the_examples_stand_before_the_row(server: Loopback, name: str) -> None:
    move(name, server)
    ask("chat", name, [TEXT], system="be brief", examples=[("one", "1"), ("two", "2")])
    body = server.seen[0].body
    written = str(body)
    assert written.index("be brief") >= 0
    turns = [(turn["role"], turn["content"]) for turn in body["messages"] if turn["role"] != "system"]
    assert turns == [("user", "one"), ("assistant", "1"), ("user", "two"), ("assistant", "2"), ("user", TEXT)]
    assert sum(turn["role"] == "system" for turn in body["messages"]) + ("system" in body) == 1


@pytest.mark.parametrize("dimensions", [4, None])
@pytest.mark.parametrize("name", does("embed"))
def test_vectors_have_the_length_that_was_asked_for(server: Loopback, name: str, dimensions: int | None) -> None:
    move(name, server)
    (vector,) = ask("embed", name, [TEXT], dimensions=dimensions)
    assert len(vector) == (dimensions or server.dimensions)


@pytest.mark.parametrize("kind", ["document", "query"])
@pytest.mark.parametrize("name", does("embed", voices()))
def test_what_a_text_is_for_is_told_to_models_that_ask(server: Loopback, name: str, kind: Any) -> None:
    move(name, server)
    ask("embed", name, [TEXT], input_type=kind)
    told = server.seen[0].body.get("input_type")
    assert told is None or str(told).endswith(kind)


# -------------------------------------------------------------------------------------------------------------- any text


@pytest.mark.parametrize(("name", "column"), pairs(["chat", "embed", "rerank", "text to speech", "embed pictures"], voices()))
def test_any_writing_arrives_as_it_is(server: Loopback, name: str, column: str) -> None:
    move(name, server)
    texts = ["größer 🦊 \N{ZERO WIDTH JOINER}", "שלום עולם", "日本語", 'a "quoted" \\ line\nand\ta tab']
    assert_right(column, name, texts, ask(column, name, texts))


@pytest.mark.parametrize(("name", "column"), pairs(["chat", "embed", "rerank", "text to speech"], voices()))
def test_half_a_character_is_replaced_and_stops_nobody(server: Loopback, name: str, column: str) -> None:
    move(name, server)
    got = ask(column, name, ["half \ud83e a fox", "a whole one"])
    assert not got.isna().any(axis=None)
    assert "half � a fox" in [text for request in server.seen for text in request.texts]


@pytest.mark.parametrize("name", does("chat", voices()))
def test_half_a_character_of_an_answer_can_be_written_to_a_file(server: Loopback, name: str) -> None:
    move(name, server)
    server.fault(None, Surrogate())
    (got,) = ask("chat", name, [TEXT])
    assert got == "answer � to it"
    got.encode()


class Surrogate:
    """The ordinary answer with half a character in it, as JSON can escape it."""

    async def send(self, wire: Any, ordinary: Any) -> None:
        _, body = ordinary(Said("answer HALF to it", asked=1, answered=1))
        broken = body.replace(b"HALF", b"\\ud83e")
        wire.finish(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(broken), broken))


@pytest.mark.parametrize(("name", "column"), pairs(list(OPERATION), voices()))
def test_rows_that_hold_nothing_are_not_sent(server: Loopback, name: str, column: str) -> None:
    if column in ("embed pictures", "speech to text"):
        return  # what a row holds there is a file
    move(name, server)
    frame = frame_of(["a text", "another"])
    frame.loc["row 0", "text"] = None
    model = model_of(name, column)
    if column == "rerank":
        frame.llm.rerank("a query", on="text", model=model, cache="off")
    elif column == "chat":
        frame.llm.chat("{text}", model=model, show_progress=False, cache="off")
    elif column == "embed":
        frame.llm.embed("text", model=model, show_progress=False, cache="off")
    else:
        frame.llm.speak("text", voice="a-voice", model=model, show_progress=False, cache="off")
    assert [text for request in server.seen for text in request.texts] == ["a text"]


# ------------------------------------------------------------------------------------------------------------------- keys


@pytest.mark.parametrize(("name", "column"), FIRST)
def test_every_vendor_is_sent_its_own_key_and_no_other(server: Loopback, monkeypatch: pytest.MonkeyPatch, name: str, column: str) -> None:
    for other in AWAY:  # all of them are there, by hand and in the environment
        move(other, server)
        for variable in page.providers()[other].key_env:
            monkeypatch.setenv(variable, f"env-{key_of(other)}")
    for variable in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(variable, "an-organisation-of-openai")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "x-of-openai: secret-of-openai")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "token-of-anthropic")
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "x-of-anthropic: secret-of-anthropic")
    ask(column, name, [TEXT])
    for request in server.seen:
        sent = f"{request.path} {request.query} {request.headers} {request.body}"
        assert set(re.findall(r"(?:env-)?key\.of\.[a-z]+", sent)) == {f"key.of.{name}"}
        assert key_of(name) not in f"{request.path} {request.query} {request.body}"
        assert "token-of-anthropic" not in sent
        for vendor in ("openai", "anthropic"):
            assert vendor == name or (f"secret-of-{vendor}" not in sent and f"organisation-of-{vendor}" not in sent)


def test_a_route_over_all_vendors_takes_each_ones_key_along(server: Loopback, clock: Hurried) -> None:
    names = does("chat")
    for name in names:
        move(name, server)
    first, *others = (model_of(name, "chat") for name in names)
    refused = Status(401, {"error": {"message": "no", "type": "authentication_error"}, "message": "no"})
    server.fault(None, *[refused] * (len(names) - 1))
    (got,) = ask("chat", names[0], [TEXT], model=first, fallback=others)
    assert got == f"answer to: {TEXT}"
    for name, request in zip(names, server.seen, strict=True):
        assert set(re.findall(r"key\.of\.[a-z]+", str(request.headers))) == {f"key.of.{name}"}


@pytest.mark.parametrize("quoted", ["the key {key} is wrong", "{text}"])
@pytest.mark.parametrize(("name", "column"), pairs(["chat", "embed", "rerank"], voices()))
def test_what_a_vendor_quotes_of_key_or_row_stands_in_no_message(
    server: Loopback, clock: Hurried, name: str, column: str, quoted: str
) -> None:
    move(name, server)
    row = "a row that nobody else should read"
    words = quoted.replace("{key}", key_of(name)).replace("{text}", row)
    server.fault(None, Status(401, {"error": {"message": words, "type": "authentication_error"}, "message": words, "detail": words}))
    with pytest.raises(KeyRejected) as refused:
        ask(column, name, [row])
    told = f"{refused.value!r} {refused.value} {refused.value.args} {llmkit.last()!r}"
    assert key_of(name) not in told
    assert row not in told
    assert f'llmkit.set_key("{name}")' in str(refused.value) or "left out" in str(refused.value)


@pytest.mark.parametrize("name", KEYED)
def test_without_a_key_nothing_is_sent_and_the_variable_is_named(server: Loopback, name: str) -> None:
    column = next(column for column in OPERATION if said(name, column) != page.NO)
    with pytest.raises(ConfigError, match=page.providers()[name].key_env[0]):
        ask(column, name, [TEXT])
    assert not server.requests


@pytest.mark.parametrize(("name", "column"), FIRST)
def test_a_key_that_the_vendor_does_not_know_is_refused_in_its_own_words(server: Loopback, clock: Hurried, name: str, column: str) -> None:
    move(name, server)
    server.key = "the only key that is let in"
    with pytest.raises(AccessError) as refused:
        ask(column, name, [TEXT])
    assert type(refused.value) is KeyRejected
    assert server.requests == 1


@pytest.mark.parametrize("name", does("chat", voices()))
def test_a_key_that_rotates_is_asked_for_anew_when_it_is_refused(server: Loopback, name: str) -> None:
    move(name, server)
    keys = iter(["an old key"])
    llmkit.set_key(name, lambda: next(keys, "a new key"))
    server.key = "a new key"
    stale = Status(401, {"error": {"message": "no", "type": "authentication_error"}, "message": "no"})
    server.fault(None, stale)
    assert ask("chat", name, [TEXT]).tolist() == [f"answer to: {TEXT}"]
    assert ["a new key" in str(request.headers) for request in server.seen] == [False, True]


@pytest.mark.parametrize("name", does("chat", voices()))
def test_a_prompt_that_is_refused_by_a_filter_in_the_answer_is_a_row_of_its_own(server: Loopback, clock: Hurried, name: str) -> None:
    move(name, server)
    server.fault("the blocked row", Saying(Said("", reason="filter")), times=float("inf"))
    got = ask("chat", name, ["a row", "the blocked row"], max_attempts=1)
    assert got.isna().tolist() == [False, True]
    assert asking.stream(TEXT, model=model_of(name, "chat")).usage.requests == 0
