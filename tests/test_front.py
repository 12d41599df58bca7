"""The functions of the front door, and what they say when something is missing."""

from __future__ import annotations

import doctest
import getpass
import importlib.util
import re
from typing import Any

import numpy as np
import pytest

import llmkit
import llmkit.catalogue
import llmkit.frames.pandas_accessor
import llmkit.front
from llmkit.session import default
from tests.loopback import Loopback, refusal, vector_of

# ----------------------------------------------------------------------------------------------------------------- scalars


def test_one_prompt_gives_one_text(lab: Loopback) -> None:
    assert llmkit.chat("What's your sign?", model="lab/test-chat") == "answer to: What's your sign?"


def test_braces_mean_nothing_in_a_single_prompt(lab: Loopback) -> None:
    assert llmkit.chat("{prompt} {{x}} {unknown}", model="lab/test-chat") == "answer to: {prompt} {{x}} {unknown}"


def test_the_same_prompt_again_sends_nothing(lab: Loopback) -> None:
    llmkit.chat("Hello", model="lab/test-chat")
    llmkit.chat("Hello", model="lab/test-chat")
    assert lab.requests == 1


def test_options_of_a_single_prompt_travel(lab: Loopback) -> None:
    llmkit.chat("Hello", model="lab/test-chat", system="Be brief", temperature=0.5, max_tokens=7, seed=3)
    body = lab.seen[0].body
    assert body["messages"][0] == {"role": "system", "content": "Be brief"}
    assert (body["temperature"], body["max_tokens"], body["seed"]) == (0.5, 7, 3)


def test_a_single_prompt_that_is_refused_raises_why(lab: Loopback) -> None:
    lab.fault(None, refusal())
    with pytest.raises(llmkit.ContentBlocked, match="declined"):
        llmkit.chat("Hello", model="lab/test-chat")


@pytest.mark.parametrize("prompt", ["", "  ", None, 3])
def test_a_single_prompt_that_says_nothing_is_an_error(lab: Loopback, prompt: Any) -> None:
    with pytest.raises(llmkit.BadInput, match="chat needs a prompt"):
        llmkit.chat(prompt, model="lab/test-chat")
    assert lab.requests == 0


def test_a_single_chat_prints_no_bar(lab: Loopback, capsys: pytest.CaptureFixture[str]) -> None:
    llmkit.chat("Hello", model="lab/test-chat")
    assert capsys.readouterr() == ("", "")


def test_one_text_gives_one_vector(lab: Loopback) -> None:
    np.testing.assert_array_equal(llmkit.embed("a", model="lab/test-embed"), vector_of("a"))


def test_a_list_of_texts_gives_a_matrix_in_their_order(lab: Loopback) -> None:
    matrix = llmkit.embed(["b", "a", "b"], model="lab/test-embed")
    np.testing.assert_array_equal(matrix, [vector_of("b"), vector_of("a"), vector_of("b")])
    assert matrix.dtype == np.float32


def test_texts_may_come_from_any_iterable(lab: Loopback) -> None:
    assert llmkit.embed((word for word in ("a", "b")), model="lab/test-embed").shape == (2, 8)


def test_no_texts_give_no_vectors_and_nothing_is_sent(lab: Loopback) -> None:
    assert len(llmkit.embed([], model="lab/test-embed")) == 0
    assert lab.requests == 0


@pytest.mark.parametrize("texts", ["", " ", None, 3, ["a", ""], ["a", None], [b"a"], b"a"])
def test_texts_that_cannot_be_embedded_are_an_error(lab: Loopback, texts: Any) -> None:
    with pytest.raises(llmkit.BadInput, match="embed takes a text or a list of texts"):
        llmkit.embed(texts, model="lab/test-embed")
    assert lab.requests == 0


def test_documents_come_in_the_order_of_their_scores(lab: Loopback) -> None:
    ranked = llmkit.rerank("late parcel", ["red apple", "late parcel", "parcel"], model="lab/test-rerank")
    assert ranked["document"].tolist() == ["late parcel", "parcel", "red apple"]
    assert ranked.index.tolist() == [1, 2, 0]


def test_top_k_documents_are_the_best(lab: Loopback) -> None:
    assert llmkit.rerank("a", ["b", "a"], top_k=1, model="lab/test-rerank").index.tolist() == [1]


@pytest.mark.parametrize("documents", ["one text", None, 3])
def test_documents_that_are_no_list_are_an_error(lab: Loopback, documents: Any) -> None:
    with pytest.raises(llmkit.BadInput, match="rerank takes a list of documents"):
        llmkit.rerank("a", documents, model="lab/test-rerank")


# ----------------------------------------------------------------------------------------------------------------- connect


def test_connect_gives_the_model_that_is_named(lab: Loopback) -> None:
    assert llmkit.connect("lab/test-chat") == llmkit.front.Connection("lab/test-chat", "lab", "test-chat")


def test_connect_sends_nothing(lab: Loopback) -> None:
    llmkit.connect("lab/test-chat")
    assert lab.requests == 0


def test_connect_takes_the_first_of_a_list_that_can_be_had(lab: Loopback) -> None:
    assert llmkit.connect(["openai/gpt-4.1-mini", "no-such-model", "lab/test-chat", "lab/other"]).model == "lab/test-chat"


def test_connect_says_of_each_of_a_list_why_it_cannot_be_had() -> None:
    with pytest.raises(llmkit.ConfigError, match=r"none of 2 models .*OPENAI_API_KEY.*no-such-model"):
        llmkit.connect(["openai/gpt-4.1-mini", "no-such-model"])


def test_connect_takes_the_best_by_the_catalogues_order_among_the_keys_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROQ_API_KEY", "test-key-not-real")
    monkeypatch.setenv("OPENAI_API_KEY", "test-key-not-real")
    catalogue = llmkit.catalogue.default
    can = [model for name in catalogue.priority("chat") for model in catalogue.named(name) if model.provider in ("groq", "openai")]
    assert llmkit.connect().model == str(can[0])


def test_connect_takes_a_canonical_name_from_the_provider_whose_key_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "test-key-not-real")
    assert llmkit.connect("gpt-oss-120b").provider == "openrouter"


def test_connect_names_every_provider_of_a_canonical_name_where_no_key_is_there() -> None:
    with pytest.raises(llmkit.MissingKey, match=re.escape("cerebras/gpt-oss-120b (CEREBRAS_API_KEY)")):
        llmkit.connect("gpt-oss-120b")


def test_connect_takes_a_server_on_this_computer_where_no_key_is_there(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    server.models = ["nomic-embed-text", "qwen3-8b"]
    monkeypatch.setitem(llmkit.catalogue.default._toml, "local_ports", [{"port": server.port, "name": "a server"}])
    found = llmkit.connect()
    assert found.name == "qwen3-8b"
    assert llmkit.chat("Hello", model=found.model) == "answer to: Hello"


def test_connect_names_the_ways_to_get_a_model_where_there_is_none() -> None:
    with pytest.raises(llmkit.MissingKey, match=r"OPENAI_API_KEY or llmkit.set_key\(\"openai\"\).*Ollama.*provider/model.*echo/echo"):
        llmkit.connect()


def test_connect_finds_an_embedding_model_for_that_operation(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    server.models = ["qwen3-8b", "nomic-embed-text"]
    monkeypatch.setitem(llmkit.catalogue.default._toml, "local_ports", [{"port": server.port, "name": "a server"}])
    assert llmkit.connect(operation="embed").name == "nomic-embed-text"


# ------------------------------------------------------------------------------------------------------------ detect_local


def test_detect_local_finds_the_servers_on_the_usual_ports(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(llmkit.catalogue.default._toml, "local_ports", [{"port": server.port, "name": "a server"}])
    found = llmkit.detect_local()
    assert found["model"].tolist() == [f"port{server.port}/{name}" for name in server.models]
    assert set(found["base_url"]) == {server.url}


def test_what_detect_local_finds_can_be_named_as_a_model(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(llmkit.catalogue.default._toml, "local_ports", [{"port": server.port, "name": "a server"}])
    assert llmkit.chat("Hello", model=llmkit.detect_local()["model"].iloc[0]) == "answer to: Hello"


def test_detect_local_looks_again_each_time(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(llmkit.catalogue.default._toml, "local_ports", [{"port": server.port, "name": "a server"}])
    server.models = []
    assert llmkit.detect_local().empty
    server.models = ["started-later"]
    assert len(llmkit.detect_local()) == 1


def test_a_port_where_nobody_or_something_else_answers_is_passed_over(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.loopback import Json, Raw, Status

    with Loopback() as gone:
        closed = gone.port
    ports = [{"port": closed, "name": "nobody"}, {"port": server.port, "name": "something else"}]
    monkeypatch.setitem(llmkit.catalogue.default._toml, "local_ports", ports)
    for answer in (Status(200, "<html>", {"content-type": "text/html"}), Json([]), Json({"data": [{}]}), Raw(b"SSH-2.0\r\n"), Status(401)):
        server.fault(None, answer)
        found = llmkit.detect_local()
        assert list(found.columns) == ["model", "base_url", "canonical"]
        assert found.empty


# ------------------------------------------------------------------------------------------------------ use, set_key, limit


def test_use_sets_what_calls_take(lab: Loopback) -> None:
    llmkit.use("lab/chosen", embed="lab/vectors")
    llmkit.chat("Hello")
    llmkit.embed("Hello")
    assert [request.body["model"] for request in lab.seen] == ["chosen", "vectors"]


def test_use_leaves_what_it_does_not_name(lab: Loopback) -> None:
    llmkit.use("lab/chosen", embed="lab/vectors")
    llmkit.use("lab/another")
    llmkit.embed("Hello")
    assert lab.seen[0].body["model"] == "vectors"


@pytest.mark.parametrize("arguments", [{"chat": "opnai/gpt-5"}, {"embed": "nobody/x"}, {"rerank": "no-such-model"}])
def test_use_tells_a_misspelt_name_at_once(arguments: dict[str, Any]) -> None:
    with pytest.raises(llmkit.UnknownModel):
        llmkit.use(**arguments)


def test_a_name_that_use_refused_changes_nothing(lab: Loopback) -> None:
    llmkit.use("lab/chosen")
    with pytest.raises(llmkit.UnknownModel):
        llmkit.use("opnai/gpt-5")
    llmkit.chat("Hello")
    assert lab.seen[0].body["model"] == "chosen"


def test_a_model_cannot_be_used_for_what_it_does_not_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "test-key-not-real")
    with pytest.raises(llmkit.Unsupported, match="does not chat; it does embed"):
        llmkit.use("openai/text-embedding-3-small")


def test_a_key_given_by_hand_is_sent(lab: Loopback) -> None:
    lab.key = "another-not-real"
    llmkit.set_key("lab", " another-not-real\n")
    assert llmkit.chat("Hello", model="lab/test-chat")


def test_a_key_may_be_a_function_that_is_asked_for_the_key_of_the_moment(lab: Loopback) -> None:
    lab.key = "rotated-not-real"
    llmkit.set_key("lab", lambda: "rotated-not-real")
    assert llmkit.chat("Hello", model="lab/test-chat")


def test_without_a_key_it_is_asked_for_unseen(lab: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.key = "typed-not-real"
    monkeypatch.setattr(getpass, "getpass", lambda prompt: "typed-not-real")
    llmkit.set_key("lab")
    assert llmkit.chat("Hello", model="lab/test-chat")


@pytest.mark.parametrize("problem", [EOFError(), OSError("no terminal"), NotImplementedError("raw_input was called")])
def test_where_nobody_can_be_asked_the_line_for_scripts_is_told(monkeypatch: pytest.MonkeyPatch, problem: Exception) -> None:
    def absent(prompt: str) -> str:
        raise problem

    monkeypatch.setattr(getpass, "getpass", absent)
    with pytest.raises(llmkit.ConfigError, match=re.escape('call llmkit.set_key("openai", key)')):
        llmkit.set_key("openai")


def test_a_misspelt_provider_is_told_before_anybody_is_asked_for_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getpass", lambda prompt: pytest.fail("asked"))
    with pytest.raises(llmkit.UnknownModel, match='Did you mean "openai"?'):
        llmkit.set_key("opnai")


@pytest.mark.parametrize("key", ["", "  ", 3, b"key"])
def test_a_key_that_is_none_is_an_error(key: Any) -> None:
    with pytest.raises(llmkit.ConfigError, match="the key for openai is"):
        llmkit.set_key("openai", key)


def test_a_key_that_was_not_typed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getpass", lambda prompt: "")
    with pytest.raises(llmkit.ConfigError, match="the key for openai is empty"):
        llmkit.set_key("openai")


def test_a_limit_by_hand_is_kept(lab: Loopback) -> None:
    llmkit.limit("lab", max_concurrency=2)
    lab.latency = 0.005
    llmkit.embed("warm", model="lab/test-embed")
    import pandas as pd

    pd.DataFrame({"n": range(30)}).llm.chat("{n}", model="lab/test-chat", show_progress=False)
    assert lab.max_in_flight == 2


@pytest.mark.parametrize("name", ["lab", "lab/test-chat", "openai", "openai/gpt-4.1-mini", "echo"])
def test_a_limit_may_be_for_a_provider_or_for_one_of_its_models(lab: Loopback, name: str) -> None:
    llmkit.limit(name, rpm=500, tpm=200_000)


@pytest.mark.parametrize(
    ("arguments", "cure"),
    [
        ({"rpm": 0}, "more than 0"),
        ({"tpm": -1}, "more than 0"),
        ({"rpm": "5"}, "a number"),
        ({"rpm": float("nan")}, "more than 0"),
        ({"rpm": True}, "a number"),
        ({"max_concurrency": 2.5}, "a whole number"),
        ({}, "say which limit"),
    ],
)
def test_a_limit_that_cannot_be_is_an_error(arguments: dict[str, Any], cure: str) -> None:
    with pytest.raises(llmkit.ConfigError, match=cure):
        llmkit.limit("openai", **arguments)


@pytest.mark.parametrize("name", ["opnai", "opnai/gpt-5"])
def test_a_limit_for_a_misspelt_provider_is_an_error_and_not_forgotten_in_silence(name: str) -> None:
    with pytest.raises(llmkit.UnknownModel, match='Did you mean "openai"?'):
        llmkit.limit(name, rpm=5)


# ------------------------------------------------------------------------------------------------------------ add_provider


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_server_of_ones_own_is_reached_by_its_name(server: Loopback, slash: str) -> None:
    llmkit.add_provider("mine", server.url + slash)
    assert llmkit.chat("Hello", model="mine/any") == "answer to: Hello"
    assert "authorization" not in server.seen[0].headers


def test_a_providers_name_may_be_given_anew(server: Loopback) -> None:
    llmkit.add_provider("mine", "http://127.0.0.1:9/v1", api_key="old")
    llmkit.add_provider("mine", server.url)
    assert llmkit.chat("Hello", model="mine/any") == "answer to: Hello"


def test_a_vendors_name_may_be_given_to_a_server_of_ones_own(server: Loopback) -> None:
    llmkit.add_provider("openai", server.url)
    assert llmkit.chat("Hello", model="openai/any") == "answer to: Hello"


def test_vectors_in_base64_are_asked_for_where_the_server_has_them(server: Loopback) -> None:
    llmkit.add_provider("mine", server.url, embed_encoding="base64")
    np.testing.assert_array_equal(llmkit.embed("a", model="mine/any"), vector_of("a"))
    assert server.seen[0].body["encoding_format"] == "base64"


@pytest.mark.parametrize(
    ("arguments", "cure"),
    [
        ({"name": "a/b"}, "before the slash"),
        ({"name": ""}, "before the slash"),
        ({"name": None}, "name is a text"),
        ({"name": "echo"}, "built into llmkit"),
        ({"name": "local"}, "built into llmkit"),
        ({"base_url": "localhost:8000"}, "http://"),
        ({"base_url": None}, "base_url is a text"),
        ({"protocol": "telepathy"}, 'protocol="openai"'),
        ({"embed_encoding": "hex"}, '"float" or "base64"'),
        ({"embed_batch": 0}, "at least 1"),
        ({"embed_batch": "many"}, "at least 1"),
    ],
)
def test_a_provider_that_cannot_be_is_told_what_it_may_be(arguments: dict[str, Any], cure: str) -> None:
    with pytest.raises(llmkit.ConfigError, match=cure):
        llmkit.add_provider(**{"name": "mine", "base_url": "http://127.0.0.1:9/v1", **arguments})
    assert llmkit.catalogue.default.provider("mine") is None


# -------------------------------------------------------------------------------------------------------------------- last


def test_before_anything_has_run_there_is_no_last_run() -> None:
    with pytest.raises(llmkit.ConfigError, match="nothing has run yet"):
        llmkit.last()


def test_the_last_run_is_the_one_that_began_last(lab: Loopback) -> None:
    llmkit.chat("one", model="lab/test-chat")
    first = llmkit.last()
    llmkit.chat("two", model="lab/test-chat")
    assert llmkit.last() is not first


# ---------------------------------------------------------------------------------------------------------------- messages


def test_an_unknown_provider_is_told_the_nearest() -> None:
    with pytest.raises(llmkit.UnknownModel, match='no provider "opnai". Did you mean "openai"?'):
        llmkit.chat("Hello", model="opnai/gpt-5")


def test_an_unknown_model_is_told_the_nearest() -> None:
    with pytest.raises(llmkit.UnknownModel, match='no model "gpt-4.1-mimi". Did you mean openai/gpt-4.1-mini'):
        llmkit.chat("Hello", model="gpt-4.1-mimi")


def test_an_unknown_built_in_model_is_told_what_there_is() -> None:
    with pytest.raises(llmkit.UnknownModel, match="echo/echo"):
        llmkit.chat("Hello", model="echo/eco")


def test_a_missing_key_names_its_variable_and_the_function_that_sets_it() -> None:
    with pytest.raises(llmkit.MissingKey) as raised:
        llmkit.chat("Hello", model="openai/gpt-4.1-mini")
    assert str(raised.value) == 'no key for "openai". Set OPENAI_API_KEY or call llmkit.set_key("openai")'


@pytest.mark.parametrize(("provider", "says"), [("palm", "gemini"), ("anyscale", "together"), ("lepton", "base URL")])
def test_a_retired_provider_says_since_when_and_who_serves_now(provider: str, says: str) -> None:
    with pytest.raises(llmkit.UnknownModel, match=rf"{provider} is retired\. 20\d\d-\d\d-\d\d.*{says}"):
        llmkit.chat("Hello", model=f"{provider}/any")


def test_nothing_secret_is_in_what_a_session_shows(lab: Loopback) -> None:
    llmkit.chat("Hello", model="lab/test-chat")
    target = default().target("lab/test-chat", "chat")
    assert "test-key-not-real" not in repr((vars(default()), vars(default().settings), target, default().engine))


# ---------------------------------------------------------------------------------------------------------------- examples

_LOCAL = importlib.util.find_spec("sklearn") is not None and importlib.util.find_spec("bm25s") is not None


@pytest.mark.skipif(not _LOCAL, reason="needs the extra llmkit[local]")
@pytest.mark.parametrize(
    "module",
    [
        llmkit.front,
        llmkit.asking,
        llmkit.reports,
        llmkit.clients,
        llmkit.frames.pandas_accessor,
        llmkit.frames.series_accessor,
        llmkit.catalogue,
        llmkit.session,
    ],
    ids=lambda module: str(module.__name__),
)
def test_the_examples_in_the_documentation_do_what_they_say(module: Any) -> None:
    failed, tried = doctest.testmod(module)
    assert tried > 0
    assert failed == 0


def test_every_public_name_is_there_and_says_what_it_is() -> None:
    for name in llmkit.__all__:
        assert getattr(llmkit, name).__doc__ or issubclass(getattr(llmkit, name), llmkit.LLMError), name
