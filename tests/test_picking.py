"""From a name, or from nothing, to a model that can be had."""

from __future__ import annotations

import re
from typing import Any

import pytest

import llmkit
from llmkit.session import Session, default
from tests.loopback import Json, Loopback, Status

KEY = "test-key-not-real"


@pytest.fixture
def here(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> Loopback:
    """A server on one of this computer's usual ports."""
    monkeypatch.setitem(llmkit.catalogue.default._toml, "local_ports", [{"port": server.port, "name": "a server"}])
    return server


def keyed(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    for name in names:
        monkeypatch.setenv(name, KEY)


# ----------------------------------------------------------------------------------------------------------------- by name


@pytest.mark.parametrize(
    ("variables", "model"),
    [
        (["CEREBRAS_API_KEY", "GROQ_API_KEY"], "cerebras/gpt-oss-120b"),
        (["GROQ_API_KEY", "OPENROUTER_API_KEY"], "groq/openai/gpt-oss-120b"),
        (["TOGETHER_AI_API_KEY"], "together/openai/gpt-oss-120b"),
        (["REPLICATE_API_TOKEN", "TOGETHER_API_KEY"], "together/openai/gpt-oss-120b"),
        (["REPLICATE_API_TOKEN"], "replicate/openai/gpt-oss-120b"),
    ],
)
def test_a_canonical_name_goes_to_the_first_provider_whose_key_is_there(
    monkeypatch: pytest.MonkeyPatch, variables: list[str], model: str
) -> None:
    keyed(monkeypatch, *variables)
    assert llmkit.connect("gpt-oss-120b").model == model


def test_a_canonical_name_is_sent_by_the_providers_own_name(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    keyed(monkeypatch, "TOGETHER_API_KEY")
    monkeypatch.setenv("TOGETHER_AI_API_BASE", server.url)
    llmkit.chat("Hello", model="glm-5.3")
    assert server.seen[0].body["model"] == "zai-org/GLM-5.3"


@pytest.mark.parametrize("name", ["mixtral-8x7b", "qwen3-8b"])
def test_a_canonical_name_goes_to_a_server_on_this_computer(here: Loopback, name: str) -> None:
    here.models = ["qwen3:8b", "mistralai/Mixtral-8x7B-Instruct-v0.1"]
    llmkit.chat("Hello", model=name)
    assert here.seen[-1].body["model"] == {"mixtral-8x7b": "mistralai/Mixtral-8x7B-Instruct-v0.1"}.get(name, "qwen3:8b")


def test_a_key_goes_before_a_server_on_this_computer_and_then_no_port_is_looked_at(here: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    here.models = ["qwen3:8b"]
    keyed(monkeypatch, "OPENROUTER_API_KEY")
    assert llmkit.connect("qwen3-8b").provider == "openrouter"
    assert here.requests == 0


def test_the_exact_name_goes_before_one_that_means_the_same(here: Loopback) -> None:
    here.models = ["llama3.1:8b-instruct-q4_K_M", "llama3.1:latest"]
    assert llmkit.connect("llama-3.1-8b").name == "llama3.1:latest"


@pytest.mark.parametrize("other", ["qwen3:14b", "qwen3-coder:8b", "qwen2.5:8b", "qwen3:8b-thinking"])
def test_another_size_or_family_is_never_taken_for_it(here: Loopback, other: str) -> None:
    here.models = [other]
    with pytest.raises(llmkit.MissingKey, match="qwen3-8b"):
        llmkit.connect("qwen3-8b")


def test_a_server_that_is_started_later_is_found(here: Loopback) -> None:
    here.models = []
    with pytest.raises(llmkit.MissingKey):
        llmkit.connect("qwen3-8b")
    here.models = ["qwen3:8b"]
    assert llmkit.connect("qwen3-8b").name == "qwen3:8b"


def test_a_server_at_the_address_that_a_variable_gives_is_taken_without_looking(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{server.port}")
    llmkit.chat("Hello", model="qwen3-8b")
    assert server.seen[-1].body["model"] == "qwen3"


def test_a_model_that_does_something_else_is_passed_over(here: Loopback) -> None:
    with pytest.raises(llmkit.Unsupported, match='"voyage-4" does not chat; it does embed'):
        llmkit.connect("voyage-4")
    here.models = ["qwen3-embedding:0.6b"]
    assert llmkit.connect("qwen3-embedding-0.6b", operation="embed").name == "qwen3-embedding:0.6b"


@pytest.mark.parametrize(
    ("model", "operation", "does"),
    [
        ("openai/a-model-of-tomorrow", "rerank", "does not rerank; it does chat, embed"),
        ("anthropic/a-model-of-tomorrow", "embed", "does not embed; it does chat"),
        ("perplexity/a-model-of-tomorrow", "embed", "does not embed; it does chat"),
        ("infinity/BAAI/bge-small-en-v1.5", "chat", "does not chat; it does embed, rerank"),
        ("openai/gpt-4.1-mini", "embed", "does not embed; it does chat"),
    ],
)
def test_what_a_vendor_does_not_serve_is_refused_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch, model: str, operation: str, does: str
) -> None:
    keyed(monkeypatch, "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "PERPLEXITY_API_KEY")
    with pytest.raises(llmkit.Unsupported, match=does):
        llmkit.connect(model, operation=operation)


def test_a_server_of_ones_own_may_have_anything(server: Loopback) -> None:
    llmkit.add_provider("lab", server.url)
    assert llmkit.connect("lab/whatever", operation="rerank").name == "whatever"
    assert llmkit.connect("vllm/whatever", operation="embed").provider == "vllm"


def test_infinity_is_reached_at_its_root(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFINITY_API_BASE", server.url)
    llmkit.rerank("late", ["a late parcel", "an apple"], model="infinity/bge-reranker")
    assert server.seen[-1].path.endswith("/rerank")


# ----------------------------------------------------------------------------------------------- retired, ambiguous, unknown


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("palm", 'no known vendor since 2024-08-15. The nearest that is served is "gemini-flash"'),
        ("codellama-70b", 'no known vendor since 2026-11-21 or earlier. The nearest that is served is "codestral"'),
        ("falcon-40b", 'The nearest that is served is "llama-3.3-70b"'),
        ("gemini-nano", "it runs inside phones and browsers only"),
    ],
)
def test_a_name_that_is_retired_says_since_when_and_what_instead(name: str, says: str) -> None:
    for ask in (llmkit.connect, lambda name: llmkit.chat("Hello", model=name)):
        with pytest.raises(llmkit.UnknownModel, match=re.escape(says)):
            ask(name)


def test_a_name_that_vendors_retired_may_still_be_on_this_computer(here: Loopback) -> None:
    here.models = ["codellama:70b-instruct-q4_K_M", "wizardcoder:34b-python"]
    assert llmkit.connect("codellama-70b").name == "codellama:70b-instruct-q4_K_M"
    assert llmkit.connect("wizard-python-34b").name == "wizardcoder:34b-python"


def test_a_retired_vendor_is_reached_by_an_address_of_ones_own(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    keyed(monkeypatch, "ANYSCALE_API_KEY", "LEPTON_API_KEY")
    for vendor in ("anyscale", "lepton"):
        with pytest.raises(llmkit.UnknownModel, match=f"{vendor} is retired"):
            llmkit.connect(f"{vendor}/any")
        monkeypatch.setenv(f"{vendor.upper()}_API_BASE", server.url)
        assert llmkit.chat("Hello", model=f"{vendor}/any") == "answer to: Hello"


def test_a_name_that_could_be_several_models_is_told_which() -> None:
    with pytest.raises(llmkit.UnknownModel, match='"mixtral" could be one of several models: mixtral-8x7b, mixtral-8x22b'):
        llmkit.connect("mixtral")


@pytest.mark.parametrize(
    ("name", "near"), [("mixtral-8x7", "mixtral-8x7b"), ("claud-haiku-4-5", "claude-haiku-4-5"), ("mistal-7b", "mistral-7b")]
)
def test_a_misspelt_canonical_name_is_told_the_nearest(name: str, near: str) -> None:
    with pytest.raises(llmkit.UnknownModel, match=f"Did you mean {near}"):
        llmkit.connect(name)


# ----------------------------------------------------------------------------------------------------------------- unnamed


def test_the_makers_models_are_preferred_in_the_catalogues_order(monkeypatch: pytest.MonkeyPatch) -> None:
    keyed(monkeypatch, "OPENROUTER_API_KEY", "MISTRAL_API_KEY")
    assert llmkit.connect().model == "openrouter/openai/gpt-6.1-terra"
    assert llmkit.connect("mistral-medium").provider == "mistral"


@pytest.mark.parametrize(
    ("variable", "operation", "provider"),
    [
        ("REPLICATE_API_TOKEN", "chat", "replicate"),
        ("PERPLEXITY_API_KEY", "chat", "perplexity"),
        ("COHERE_API_KEY", "chat", "cohere"),
        ("COHERE_API_KEY", "rerank", "cohere"),
        ("VOYAGE_API_KEY", "rerank", "voyage"),
        ("VOYAGE_API_KEY", "embed", "voyage"),
        ("VOYAGE_API_KEY", "embed_images", "voyage"),
        ("FIREWORKS_API_KEY", "rerank", "fireworks"),
        ("GROQ_API_KEY", "transcribe", "groq"),
        ("OPENAI_API_KEY", "speak", "openai"),
    ],
)
def test_any_one_key_is_enough(monkeypatch: pytest.MonkeyPatch, variable: str, operation: str, provider: str) -> None:
    keyed(monkeypatch, variable)
    assert default().picker.best(operation).startswith(f"{provider}/")


def test_a_vendor_whose_package_is_missing_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmkit.picking._PACKAGE", {"anthropic": "no_such_package"})
    keyed(monkeypatch, "ANTHROPIC_API_KEY")
    with pytest.raises(llmkit.MissingExtra, match=re.escape("pip install 'llmkit[anthropic]'")):
        llmkit.connect()
    keyed(monkeypatch, "GROQ_API_KEY")
    assert llmkit.connect().provider == "groq"


def test_on_this_computer_the_best_known_model_is_taken(here: Loopback) -> None:
    here.models = ["tinyllama", "whisper-base", "gemma3:4b", "gpt-oss:20b", "nomic-embed-text"]
    assert llmkit.connect().name == "gpt-oss:20b"
    assert llmkit.connect(operation="embed").name == "nomic-embed-text"


def test_a_session_of_its_own_has_keys_of_its_own() -> None:
    session = Session(environ={"GROQ_API_KEY": KEY})
    assert session.best("chat").startswith("groq/")
    assert session.target("gpt-oss-20b", "chat").provider.name == "groq"
    session.close()


def test_names_of_the_wrong_kind_are_an_error() -> None:
    for name in ("", "  ", 3, b"x", [], [""]):
        with pytest.raises(llmkit.ConfigError):
            llmkit.connect(name)


# ----------------------------------------------------------------------------------------------------------- choose, test


def test_chosen_randomly_every_way_comes_up(monkeypatch: pytest.MonkeyPatch) -> None:
    keyed(monkeypatch, "CEREBRAS_API_KEY", "GROQ_API_KEY", "TOGETHER_API_KEY")
    drawn = {llmkit.connect("gpt-oss-120b", choose_randomly=True).provider for _ in range(100)}
    assert drawn == {"cerebras", "groq", "together"}
    assert {llmkit.connect(choose_randomly=True).provider for _ in range(100)} == {"cerebras", "groq", "together"}


def test_of_a_list_the_first_name_is_kept_however_it_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    keyed(monkeypatch, "CEREBRAS_API_KEY", "GROQ_API_KEY", "OPENAI_API_KEY")
    drawn = {llmkit.connect(["claude-haiku-4-5", "gpt-oss-120b", "gpt-5-mini"], choose_randomly=True).provider for _ in range(50)}
    assert drawn == {"cerebras", "groq"}


def test_a_connection_is_proved_by_one_tiny_request(lab: Loopback) -> None:
    assert llmkit.connect("lab/test-chat", test=True).model == "lab/test-chat"
    assert lab.requests == 1
    assert lab.seen[0].body["max_tokens"] == 16


def test_a_connection_whose_key_is_refused_is_passed_over(server: Loopback) -> None:
    server.key = "right-not-real"
    llmkit.add_provider("first", server.url, api_key="wrong-not-real")
    llmkit.add_provider("second", server.url, api_key="right-not-real")
    assert llmkit.connect(["first/x", "second/x"]).provider == "first"
    assert llmkit.connect(["first/x", "second/x"], test=True).provider == "second"


def test_the_only_way_says_itself_why_it_does_not_answer(server: Loopback) -> None:
    server.key = "right-not-real"
    llmkit.add_provider("lab", server.url, api_key="wrong-not-real")
    with pytest.raises(llmkit.KeyRejected):
        llmkit.connect("lab/x", test=True)


def test_ways_that_do_not_answer_are_all_named(server: Loopback) -> None:
    server.key = "right-not-real"
    llmkit.add_provider("first", server.url, api_key="wrong-not-real")
    llmkit.add_provider("second", server.url, api_key="wrong-not-real")
    with pytest.raises(llmkit.ConfigError, match="none of 2 models answers: first/x: KeyRejected; second/y: KeyRejected"):
        llmkit.connect(["first/x", "second/y"], test=True)


def test_a_thinking_model_that_is_cut_off_is_proved_all_the_same(lab: Loopback) -> None:
    cut = {"message": {"role": "assistant", "content": ""}, "finish_reason": "length", "index": 0}
    lab.fault(None, Json({"id": "1", "object": "chat.completion", "model": "test-chat", "choices": [cut], "usage": {}}))
    assert llmkit.connect("lab/test-chat", test=True).model == "lab/test-chat"


@pytest.mark.parametrize("operation", ["embed", "rerank"])
def test_vectors_and_orders_are_proved_too(lab: Loopback, operation: str) -> None:
    assert llmkit.connect(f"lab/test-{operation}", operation=operation, test=True).provider == "lab"
    assert lab.requests == 1


def test_what_cannot_be_tried_is_told(lab: Loopback) -> None:
    with pytest.raises(llmkit.ConfigError, match="test=True can try chat, embed, rerank, not speak"):
        llmkit.connect("lab/x", operation="speak", test=True)


# --------------------------------------------------------------------------------------------------------------------- ask


def test_ask_takes_whatever_key_is_there(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    keyed(monkeypatch, "OPENAI_API_KEY")
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    assert llmkit.ask("Come here often?") == "answer to: Come here often?"


def test_ask_takes_a_server_on_this_computer(here: Loopback) -> None:
    assert llmkit.ask("Come here often?") == "answer to: Come here often?"


def test_ask_goes_on_to_the_next_provider(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    server.key = "right-not-real"
    monkeypatch.setenv("OPENAI_API_KEY", "wrong-not-real")
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("GROQ_API_KEY", "right-not-real")
    monkeypatch.setenv("GROQ_BASE_URL", server.url)
    assert llmkit.ask("Come here often?") == "answer to: Come here often?"
    assert server.seen[-1].body["model"] == "openai/gpt-oss-120b"
    with pytest.raises(llmkit.KeyRejected):
        llmkit.ask("And now?", test=False)


def test_ask_says_how_to_get_somebody_to_answer() -> None:
    with pytest.raises(llmkit.MissingKey, match="OPENAI_API_KEY"):
        llmkit.ask("Is anybody there?")


@pytest.mark.parametrize("question", ["", " ", None, 3])
def test_a_question_that_says_nothing_is_an_error(question: Any) -> None:
    with pytest.raises(llmkit.BadInput, match="ask needs a question"):
        llmkit.ask(question)


# -------------------------------------------------------------------------------------------------------------- the tables


def test_models_has_a_row_for_each_model_and_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    keyed(monkeypatch, "GROQ_API_KEY")
    known = llmkit.models()
    assert len(known) == len(known.drop_duplicates(["provider", "name"])) > 500
    row = known[(known["provider"] == "groq") & (known["canonical"] == "gpt-oss-120b")].iloc[0]
    assert (row["name"], row["operations"], bool(row["key_found"])) == ("openai/gpt-oss-120b", "chat", True)
    assert row["context_window"] == 131072
    assert set(known.loc[known["key_found"], "provider"]) == {"groq"}
    assert known["context_window"].dtype == "Int64"
    assert known["input_price"].dtype == "float64"


def test_models_shows_ones_own_rows_too() -> None:
    llmkit.catalogue.merge({"models": [{"provider": "lab", "name": "x", "price": {"input": 1.0}}]})
    known = llmkit.models().set_index("provider")
    assert known.loc["lab", "input_price"] == 1.0


def test_providers_says_where_each_key_comes_from_and_never_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    keyed(monkeypatch, "GROQ_API_KEY")
    llmkit.set_key("mistral", KEY)
    known = llmkit.providers().set_index("provider")
    assert known.loc["groq", "key_from"] == "environment variable GROQ_API_KEY"
    assert known.loc["mistral", "key_from"] == "given by hand"
    assert not known.loc["openai", "key_found"]
    assert KEY not in known.to_csv()
    assert known.loc["openai", ["operations", "status"]].tolist() == ["chat, embed, transcribe, speak", "alive"]
    assert known.loc["replicate", "status"] == "unverified"
    assert known.loc["lepton", "note"].startswith("2026-08-02")


def test_providers_says_that_an_address_was_moved_or_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / ".env").write_text("GROQ_BASE_URL=https://evil.example/v1\n")
    monkeypatch.setenv("LLMKIT_DOTENV", "")
    monkeypatch.chdir(tmp_path)
    keyed(monkeypatch, "GROQ_API_KEY")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://proxy.example/v1")
    known = llmkit.providers().set_index("provider")
    assert known.loc["groq", "base_url"] == "https://api.groq.com/openai/v1"
    assert "passed over" in known.loc["groq", "note"]
    assert known.loc["openai", "note"] == "moved from https://api.openai.com/v1"


def test_find_lists_every_way_in_order_and_what_is_ready(here: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    keyed(monkeypatch, "OPENROUTER_API_KEY")
    here.models = ["llama3.1:8b-instruct-q4_K_M"]
    ways = llmkit.find("llama-3.1-8b")
    assert ways["model"].tolist() == [
        "openrouter/meta-llama/llama-3.1-8b-instruct",
        "ollama/llama3.1",
        "ollama/llama3.1:8b",
        f"port{here.port}/llama3.1:8b-instruct-q4_K_M",
    ]
    assert ways["ready"].tolist() == [True, False, False, True]
    assert ways["key_from"].iloc[0] == "environment variable OPENROUTER_API_KEY"


def test_find_takes_a_providers_name_for_a_model_too() -> None:
    assert llmkit.find("groq/openai/gpt-oss-120b")["model"].tolist() == llmkit.find("gpt-oss-120b")["model"].tolist()


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("mixtral-8x7", llmkit.UnknownModel, "Did you mean"),
        ("gemini-nano", llmkit.UnknownModel, "phones"),
        ("nobody/x", llmkit.UnknownModel, "no provider"),
        ("", llmkit.BadInput, "the name of a model"),
        (3, llmkit.BadInput, "the name of a model"),
    ],
)
def test_find_says_what_is_wrong_with_a_name(name: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        llmkit.find(name)


def test_detect_local_says_which_canonical_name_reaches_a_model(here: Loopback) -> None:
    here.models = ["qwen3:8b", "my-own-model"]
    assert llmkit.detect_local()["canonical"].tolist() == ["qwen3-8b", ""]


def test_a_server_that_wants_a_key_is_passed_over(here: Loopback) -> None:
    here.fault(None, Status(401))
    assert llmkit.detect_local().empty


def test_the_functions_names_stay_functions_when_a_wire_format_is_loaded() -> None:
    import importlib

    importlib.import_module("llmkit.providers.echo")
    assert callable(llmkit.providers)
    assert callable(llmkit.models)
