"""Every cell of docs/providers.md, both ways: what is promised is carried out, what is not is refused before anything is sent."""

from __future__ import annotations

import importlib
from typing import Any

import orjson
import pytest

import llmkit
from llmkit import asking
from llmkit.catalogue import BUILT_IN
from llmkit.errors import InvalidRequest, UnknownModel, Unsupported
from scripts import providers_page as page
from tests.loopback import Answer, Loopback, answer_from_tools

from .conftest import Hurried
from .expectations import TOLD_APART
from .house import (
    ASK,
    AWAY,
    GIF,
    LABELS,
    OPERATION,
    PNG,
    PROVIDERS,
    SCHEMA,
    address_of,
    ask,
    assert_right,
    does,
    does_not,
    frame_of,
    key_of,
    model_of,
    move,
    pairs,
    priced,
    said,
    voices,
)

TEXTS = ["a ripe apple", "a green pear", "neither of them"]


def test_the_page_is_the_one_that_the_code_makes() -> None:
    assert page.PAGE.read_text("utf-8") == page.page(), "run: make providers"


def test_the_page_names_every_provider() -> None:
    assert set(PROVIDERS) == {*llmkit.catalogue.default.provider_names()}


def test_every_column_of_the_page_is_asked_for_here() -> None:
    told, proved = set(page.HEADINGS), {*ASK, "modes", "usage", "texts a request"}
    assert told == proved


# --------------------------------------------------------------------------------------------------------- what is promised


@pytest.mark.parametrize(("name", "column"), pairs(list(OPERATION)))
def test_what_the_page_promises_is_done_row_by_row(server: Loopback, name: str, column: str) -> None:
    move(name, server)
    assert_right(column, name, TEXTS, ask(column, name, TEXTS))
    assert server.seen[-1].path.startswith(address_of(name, server).removeprefix(f"http://127.0.0.1:{server.port}"))


@pytest.mark.parametrize("name", does("streaming"))
def test_an_answer_comes_in_pieces(server: Loopback, name: str) -> None:
    move(name, server)
    pieces = list(asking.stream(TEXTS[0], model=model_of(name, "chat"), cache="off"))
    assert "".join(pieces) == f"answer to: {TEXTS[0]}"
    assert len(pieces) > 2


@pytest.mark.parametrize("name", does("tools"))
def test_the_calls_that_a_model_asks_for_are_handed_back(server: Loopback, name: str) -> None:
    move(name, server)
    texts = ['call:add {"a": 1, "b": 2} and call:add {"a": 3, "b": 4}', "no call"]
    calls, text = ask("tools", name, texts).tolist()
    assert calls == [{"name": "add", "arguments": {"a": 1, "b": 2}}, {"name": "add", "arguments": {"a": 3, "b": 4}}]
    assert text == "answer to: no call"


@pytest.mark.parametrize("name", does("tools"))
def test_calls_are_carried_out_and_what_came_is_told_to_the_model(server: Loopback, name: str) -> None:
    move(name, server)
    texts = ['call:add {"a": 1, "b": 2} and call:add {"a": 3, "b": 4}', 'call:add {"a": 5, "b": 6}']
    assert ask("tools", name, texts, run_tools=True).tolist() == [answer_from_tools(["3", "7"]), answer_from_tools(["11"])]
    assert server.requests == 4


@pytest.mark.parametrize("choice", ["required", "add", "none"])
@pytest.mark.parametrize("name", does("tools"))
def test_a_choice_of_tools_is_said_in_the_vendors_word(server: Loopback, name: str, choice: str) -> None:
    move(name, server)
    (got,) = ask("tools", name, ["nothing to add"], tool_choice=choice)
    if choice == "none":
        assert got == "answer to: nothing to add"
    else:
        assert [call["name"] for call in got] == ["add"]


@pytest.mark.parametrize("name", does("vision"))
def test_pictures_arrive_as_they_were(server: Loopback, name: str, tmp_path: Any) -> None:
    move(name, server)
    path = tmp_path / "one.png"
    path.write_bytes(PNG)
    address = "https://example.org/a.png"
    shown = [str(path), GIF, [PNG, GIF], address]
    frame = frame_of(["as a path", "as bytes", "two at once", "as an address"]).assign(shown=shown)
    seen = [
        f"[1 image: image/png of {len(PNG)} bytes]",
        f"[1 image: image/gif of {len(GIF)} bytes]",
        f"[2 images: image/png of {len(PNG)} bytes, image/gif of {len(GIF)} bytes]",
        f"[1 image: {address}]",
    ]
    if said(name, "vision").endswith("files only"):
        with pytest.raises(InvalidRequest, match="addresses of pictures"):
            frame.iloc[3:].llm.chat(
                "{text}", images="shown", model=model_of(name, "chat"), show_progress=False, cache="off", on_error="raise"
            )
        assert not server.requests
        frame, seen = frame.iloc[:3], seen[:3]
    got = frame.llm.chat("{text}", images="shown", model=model_of(name, "chat"), roots=tmp_path, show_progress=False, cache="off")
    assert got.tolist() == [f"answer to: {text} {told}" for text, told in zip(frame["text"], seen, strict=True)]
    assert str(path) not in str([request.body for request in server.seen])


@pytest.mark.parametrize("name", does("structured"))
def test_a_schema_is_kept(server: Loopback, name: str) -> None:
    move(name, server)
    texts = ["seven 7 pears", "no figure"]
    if said(name, "structured") == "json_object":  # any object is all that is promised; the schema is said in words
        server.answer = lambda body: orjson.dumps({"first": "x", "second": 7 * ("7" in body["messages"][-1]["content"])}).decode()
    answers = [orjson.loads(text) for text in ask("structured", name, texts)]
    if said(name, "structured") == "json_object":
        asked = str(server.seen[0].body["messages"])
        assert all(member in asked for member in SCHEMA["properties"])
    assert sorted(map(sorted, answers)) == [["first", "second"]] * 2
    assert {answer["second"] for answer in answers} == {7, 0}


@pytest.mark.parametrize("name", does("structured"))
def test_any_json_object_can_be_asked_for(server: Loopback, name: str) -> None:
    move(name, server)
    server.answer = lambda body: '{"said": "so"}'
    (got,) = frame_of(["say it in JSON"]).llm.chat(
        "{text}", response_format="json", model=model_of(name, "chat"), show_progress=False, cache="off"
    )
    assert orjson.loads(got) == {"said": "so"}


@pytest.mark.parametrize("name", [name for name in AWAY if said(name, "classify") != page.NO])
def test_rows_get_a_label(server: Loopback, name: str) -> None:
    move(name, server)
    texts = ["they are apples", "they are pears"]
    column = "chat" if "by chat" in said(name, "classify") else "embed"
    if column == "chat":
        server.answer = lambda body: '{"label": "%s"}' % ("apples" if "are apples" in str(body["messages"][-1]) else "pears")
        assert ask("classify", name, texts, by="chat").tolist() == LABELS
    else:
        # Vectors of a pretend provider mean nothing: a text that is its label is nearest to it.
        assert ask("classify", name, LABELS, model=model_of(name, column), by="embedding").tolist() == LABELS


@pytest.mark.parametrize("name", [name for name in AWAY if said(name, "classify").startswith("its own")])
def test_a_vendors_own_classifier_is_asked_as_it_is(server: Loopback, name: str) -> None:
    move(name, server)
    texts = ["these are apples", "those are pears"]
    examples = [("they are apples", "apples"), ("they are pears", "pears")]
    got = ask("classify", name, texts, model=f"{name}/made-up", by="classifier", examples=examples, detail=True)
    assert got["value"].tolist() == LABELS
    assert got["probability"].between(0.5, 1).all()
    assert server.requests == 1


@pytest.mark.parametrize(("name", "column"), pairs(list(ASK), [name for name in PROVIDERS if name in BUILT_IN]))
def test_what_is_built_in_does_it_without_a_key_or_a_network(server: Loopback, name: str, column: str) -> None:
    operation = OPERATION.get(column, "chat" if said(name, "chat") != page.NO else "embed")
    model = next(known for known in _models(name) if operation in known.operations)
    got = ask(column, name, ["apples", "pears"], model=str(model))
    assert len(got) == 2
    assert not got.isna().any(axis=None)
    assert not server.requests


def _models(name: str) -> Any:
    return importlib.import_module(f"llmkit.providers.{name}").MODELS


# ---------------------------------------------------------------------------------------------------- what is not promised


@pytest.mark.parametrize(("name", "column"), [(name, column) for column in ASK for name in does_not(column) if name in AWAY])
def test_what_the_page_does_not_promise_is_refused_before_anything_is_sent(server: Loopback, name: str, column: str) -> None:
    retired = page.providers()[name].status == "retired"
    if not retired:
        move(name, server)
    with pytest.raises(UnknownModel if retired else Unsupported, match="is retired|does not|no wire|calls no tools|neither"):
        ask(column, name, TEXTS, model=f"{name}/made-up")
    assert not server.requests


@pytest.mark.parametrize(("name", "column"), [(name, column) for column in ASK for name in does_not(column) if name in BUILT_IN])
def test_what_is_built_in_refuses_what_it_cannot_do(name: str, column: str) -> None:
    with pytest.raises(Unsupported):
        ask(column, name, TEXTS, model=str(_models(name)[0]))


@pytest.mark.parametrize("name", [name for name in AWAY if page.providers()[name].status == "retired"])
def test_a_retired_name_says_since_when_and_who_serves_its_models_now(name: str) -> None:
    row = page.providers()[name]
    llmkit.set_key(name, key_of(name))
    with pytest.raises(UnknownModel) as refused:
        ask("chat", name, TEXTS)
    assert row.retired in str(refused.value)
    assert any(other in row.retired for other in PROVIDERS if other != name)
    assert row.retired[:4].isdigit()


def test_no_model_of_the_catalogue_promises_what_its_provider_does_not_serve() -> None:
    wrong = [
        (str(model), operation)
        for model in llmkit.catalogue.default.models()
        if model.provider in AWAY
        for operation in model.operations
        if page.served(model.provider, operation) == page.NO
    ]
    assert wrong == []


# ------------------------------------------------------------------------------------------------------- where it is reached


@pytest.mark.parametrize(("name", "variable"), [(name, variable) for name in AWAY for variable in page.providers()[name].base_url_env])
def test_a_variable_moves_the_address(server: Loopback, monkeypatch: pytest.MonkeyPatch, name: str, variable: str) -> None:
    (column, *_) = [column for column in OPERATION if said(name, column) != page.NO]
    monkeypatch.setenv(variable, address_of(name, server))
    monkeypatch.setenv(page.providers()[name].key_env[0], key_of(name))
    assert_right(column, name, TEXTS, ask(column, name, TEXTS))
    assert key_of(name) in str(server.seen[0].headers)


@pytest.mark.parametrize(("name", "variable"), [(name, variable) for name in AWAY for variable in page.providers()[name].key_env])
def test_a_variable_brings_the_key(server: Loopback, monkeypatch: pytest.MonkeyPatch, name: str, variable: str) -> None:
    columns = [column for column in OPERATION if said(name, column) != page.NO]
    if not columns:  # a name that is retired for good needs no key
        return
    llmkit.catalogue.merge({"providers": {name: {"base_url": address_of(name, server)}}})
    monkeypatch.setenv(variable, key_of(name))
    ask(columns[0], name, TEXTS)
    assert key_of(name) in str(server.seen[0].headers)


@pytest.mark.parametrize("name", [name for name in AWAY if page.providers()[name].key_optional and said(name, "embed") != page.NO])
def test_without_a_key_none_is_sent_where_none_is_needed(server: Loopback, name: str) -> None:
    llmkit.catalogue.merge({"providers": {name: {"base_url": address_of(name, server)}}})
    assert_right("embed", name, TEXTS, ask("embed", name, TEXTS))
    assert not {"authorization", "x-api-key"} & set(server.seen[0].headers)


# ------------------------------------------------------------------------------------------------------------------- stored


@pytest.mark.parametrize(("name", "column"), pairs(list(OPERATION), voices()))
def test_what_was_answered_is_not_asked_again(server: Loopback, cache_dir: Any, name: str, column: str) -> None:
    move(name, server)
    for _ in range(2):
        assert_right(column, name, TEXTS, ask(column, name, TEXTS, cache="use"))
    assert llmkit.last().usage().requests == 0
    assert server.requests <= len(TEXTS)


# -------------------------------------------------------------------------------------------------------------------- bills

#: What the pretend provider says was read from the prompt cache, and written to it.
CACHED, WRITTEN = 40, 20
PRICE = {"input": 2.0, "cached_input": 0.5, "cache_write": 2.5, "output": 8.0}


def _bill(column: str, name: str, text: str) -> tuple[int, int, int, int, float]:
    """(input, cached, written, output, US dollars) as this vendor counts the loopback's answer."""
    asked = max(1, len(text) // 4)
    if column == "embed":
        return asked, 0, 0, 0, asked * PRICE["input"] / 1e6
    output = max(1, len(f"answer to: {text}") // 4)
    apart = TOLD_APART.get(page.providers()[name].protocol, frozenset(said(name, "usage").split(", ")))
    cached = CACHED if "cached input" in apart else 0
    written = WRITTEN if "cache write" in apart else 0
    # What was read from a cache is input all the same; who has no word for what was written has none of it in his count.
    total = asked + CACHED + written
    fresh = total - cached - written
    cost = fresh * PRICE["input"] + cached * PRICE["cached_input"] + written * PRICE["cache_write"] + output * PRICE["output"]
    return total, cached, written, output, cost / 1e6


@pytest.mark.parametrize(("name", "column"), pairs(["chat", "embed"]))
def test_what_was_used_is_counted_by_the_vendors_own_rule_and_priced_by_ours(server: Loopback, name: str, column: str) -> None:
    move(name, server)
    model = model_of(name, column)
    priced(name, model.partition("/")[2], **PRICE)
    server.cached_tokens, server.cache_write_tokens = CACHED, WRITTEN
    texts = ["one text that is to be counted"]
    ask(column, name, texts)
    used = llmkit.last().usage()
    *counts, cost = _bill(column, name, texts[0])
    assert [used.input, used.cached_input, used.cache_write, used.output] == counts
    assert llmkit.last().cost == pytest.approx(cost)
    assert (used.requests, used.unreported) == (1, 0)


@pytest.mark.parametrize("name", does("streaming"))
def test_a_stream_is_billed_like_the_whole_answer(server: Loopback, name: str) -> None:
    move(name, server)
    model = model_of(name, "chat")
    priced(name, model.partition("/")[2], **PRICE)
    server.cached_tokens, server.cache_write_tokens = CACHED, WRITTEN
    text = "one text that is to be counted"
    ask("chat", name, [text])
    stream = asking.stream(text, model=model, cache="off")
    assert "".join(stream) == f"answer to: {text}"
    assert stream.usage == llmkit.last().usage()
    assert stream.cost == pytest.approx(llmkit.last().cost)
    assert stream.finish == "stop"


@pytest.mark.parametrize(("name", "column"), pairs(["rerank", "speech to text", "text to speech", "embed pictures"]))
def test_what_is_billed_beside_tokens_is_never_taken_for_nothing(server: Loopback, name: str, column: str) -> None:
    move(name, server)
    model = model_of(name, column)
    price = {"input": 1.0, "output": 1.0, "audio_input": 1.0, "audio_minute": 1.0, "million_characters": 1.0, "thousand_searches": 1.0}
    priced(name, model.partition("/")[2], **price)
    ask(column, name, TEXTS)
    assert llmkit.last().cost > 0


@pytest.mark.parametrize(("name", "column"), pairs(["chat", "embed", "embed pictures", "rerank", "speech to text"]))
def test_an_answer_without_a_bill_has_an_unknown_cost(server: Loopback, clock: Hurried, name: str, column: str) -> None:
    move(name, server)
    model = model_of(name, column)
    priced(name, model.partition("/")[2], **PRICE, audio_minute=1.0, audio_input=1.0, thousand_searches=1.0)
    server.fault(None, Unbilled())
    ask(column, name, TEXTS[:1])
    assert llmkit.last().usage().unreported == 1
    assert llmkit.last().cost is None


@pytest.mark.parametrize("name", does("streaming"))
def test_a_stream_without_a_bill_has_an_unknown_cost(server: Loopback, name: str) -> None:
    move(name, server)
    model = model_of(name, "chat")
    priced(name, model.partition("/")[2], **PRICE)
    server.fault(None, Unbilled())
    stream = asking.stream(TEXTS[0], model=model, cache="off")
    assert "".join(stream) == f"answer to: {TEXTS[0]}"
    assert (stream.usage.unreported, stream.cost) == (1, None)


class Unbilled(Answer):
    """The ordinary answer, streamed or not, with every word for its bill misspelt."""

    async def send(self, wire: Any, ordinary: Any) -> None:
        head, body = ordinary()
        wire.finish(head + body.replace(b'"usage"', b'"-----"').replace(b'"meta"', b'"----"'))


# ----------------------------------------------------------------------------------------------------------------- batches


@pytest.mark.parametrize("name", does("embed"))
def test_no_more_texts_than_the_vendor_takes_travel_together(server: Loopback, name: str) -> None:
    move(name, server)
    most = int(said(name, "texts a request"))
    texts = [f"t{number}" for number in range(most + 1)]
    assert_right("embed", name, texts, ask("embed", name, texts))
    assert max(len(request.texts) for request in server.seen) <= most
    assert sum(len(request.texts) for request in server.seen) == most + 1


@pytest.mark.parametrize(("name", "column"), pairs(["embed", "embed pictures"]))
def test_vectors_that_come_in_another_order_find_their_rows(server: Loopback, name: str, column: str) -> None:
    move(name, server)
    server.shuffle_embeddings = True
    texts = [f"text {number}" for number in range(6)]
    assert_right(column, name, texts, ask(column, name, texts))


@pytest.mark.parametrize("name", does("embed"))
def test_one_vector_that_is_none_fails_its_row_alone(server: Loopback, name: str) -> None:
    move(name, server)

    def spoil(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        items[1]["embedding"] = items[1]["embedding"] * float("nan")
        return items

    server.corrupt_embeddings = spoil
    got = ask("embed", name, TEXTS)
    assert got.isna().tolist() == [False, True, False]
    assert llmkit.last().errors()["kind"].tolist() == ["invalid_vector"]
