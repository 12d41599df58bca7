"""Canonical names, and the choice of a model by whichever keys are in the environment."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

import pandas as pd
import pytest

import llmkit
from tests.loopback import Json, Loopback, error_of
from tests.seeds import KEY, keyed, moved


@pytest.fixture
def vendors(server: Loopback) -> Loopback:
    return moved(server)


@pytest.fixture
def here(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> Loopback:
    """A server on one of this computer's usual ports."""
    monkeypatch.setitem(llmkit.catalogue.default._toml, "local_ports", [{"port": server.port, "name": "a server"}])
    return server


#: The document's table of names: who serves each today, and what it is called there.
SERVED = {
    "gpt-4": ("openrouter", "openai/gpt-4"),
    "gpt-3.5": ("openrouter", "openai/gpt-3.5-turbo"),
    "llama-2-70b": ("replicate", "meta/llama-2-70b-chat"),
    "llama-2-7b": ("replicate", "meta/llama-2-7b-chat"),
    "gemini-pro": ("gemini", "gemini-pro-latest"),
    "mistral-medium": ("mistral", "mistral-medium-latest"),
    "mistral-small": ("mistral", "mistral-small-latest"),
    "mistral-tiny": ("mistral", "mistral-tiny"),
    "mixtral-8x7b": ("replicate", "mistralai/mixtral-8x7b-instruct-v0.1"),
    "mistral-7b": ("together", "mistralai/Mistral-7B-Instruct-v0.3"),
}
#: And those that no vendor serves any more: the nearest that one does, and what Ollama calls the model.
GONE = {
    "palm": ("gemini-flash", None),
    "falcon-40b": ("llama-3.3-70b", "falcon:40b"),
    "yi-34b": ("qwen3-32b", "yi:34b"),
    "codellama-70b": ("codestral", "codellama:70b"),
    "codellama-34b": ("codestral", "codellama:34b"),
    "codellama-python-70b": ("codestral", "codellama:70b-python"),
    "codellama-python-34b": ("codestral", "codellama:34b-python"),
    "phind-34b": ("codestral", "phind-codellama"),
    "wizard-python-34b": ("codestral", "wizardcoder:34b-python"),
}


# ------------------------------------------------------------------------------------------------- names, providers, keys


@pytest.mark.parametrize("name", SERVED)
def test_a_canonical_name_reaches_its_provider_under_the_providers_own_name(
    vendors: Loopback, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    provider, called = SERVED[name]
    keyed(monkeypatch, provider)
    assert llmkit.chat("What's your sign?", model=name) == "answer to: What's your sign?"
    assert (vendors.seen[-1].vendor, vendors.seen[-1].body["model"]) == (provider, called)


@pytest.mark.parametrize("name", GONE)
def test_a_canonical_name_that_no_vendor_serves_any_more_says_since_when_and_what_is_nearest(name: str) -> None:
    nearest, _ = GONE[name]
    with pytest.raises(llmkit.UnknownModel, match=rf'"{name}" is served by no known vendor since \d{{4}}-\d\d-\d\d') as raised:
        llmkit.connect(name)
    assert f'The nearest that is served is "{nearest}"' in str(raised.value)
    assert len(llmkit.find(nearest)) > 0


@pytest.mark.parametrize("name", [name for name, (_, called) in GONE.items() if called])
def test_a_canonical_name_that_vendors_gave_up_is_still_found_on_a_server_of_ones_own(
    server: Loopback, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{server.port}")
    assert llmkit.chat("Hello", model=name) == "answer to: Hello"
    assert server.seen[-1].body["model"] == GONE[name][1]


def test_the_names_models_and_providers_are_tables() -> None:
    known = llmkit.models()
    mixtral = known[known["canonical"] == "mixtral-8x7b"]
    assert mixtral[["provider", "name"]].values.tolist() == [["replicate", "mistralai/mixtral-8x7b-instruct-v0.1"]]
    assert set(known["provider"]) <= set(llmkit.providers()["provider"])


def test_environment_variables_hold_the_keys_of_one_or_more_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    keyed(monkeypatch, "together", "groq")
    known = llmkit.providers().set_index("provider")
    assert known.index[known["key_found"]].tolist() == ["groq", "together"]
    assert known.loc["together", "key_from"] == "environment variable TOGETHER_API_KEY"


@pytest.mark.parametrize("provider", ["cerebras", "groq", "together", "openrouter", "replicate"])
def test_the_user_is_connected_to_whichever_service_he_subscribes_to(
    vendors: Loopback, monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    keyed(monkeypatch, provider)
    assert llmkit.chat("Hello", model="gpt-oss-120b") == "answer to: Hello"
    assert vendors.seen[-1].vendor == provider
    assert vendors.seen[-1].headers["authorization"] == f"Bearer {KEY}"


# ------------------------------------------------------------------------------------------------------------- connecting


def test_a_connection_to_a_model_answers_a_prompt(vendors: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    keyed(monkeypatch, "replicate")
    found = llmkit.connect("mixtral-8x7b")
    assert (found.provider, found.name) == ("replicate", "mistralai/mixtral-8x7b-instruct-v0.1")
    assert llmkit.chat("What's your sign?", model=found.model) == "answer to: What's your sign?"


def test_a_connection_has_a_client_and_the_providers_name_of_the_model(vendors: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    keyed(monkeypatch, "replicate")
    found = llmkit.connect("mixtral-8x7b")
    with found.client as client:
        answer = client.chat.completions.create(model=found.name, messages=[{"role": "user", "content": "What's your sign?"}])
    assert answer.choices[0].message.content == "answer to: What's your sign?"
    assert vendors.seen[-1].vendor == "replicate"


LISTED = ["mistral-7b", "llama-2-7b", "gpt-3.5", "gemini-nano"]


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("together", "together/mistralai/Mistral-7B-Instruct-v0.3"),
        ("replicate", "replicate/mistralai/mistral-7b-instruct-v0.2"),
        ("openrouter", "openrouter/mistralai/mistral-7b-instruct-v0.1"),
    ],
)
def test_the_first_of_a_list_that_can_be_had_is_connected_to(monkeypatch: pytest.MonkeyPatch, provider: str, model: str) -> None:
    keyed(monkeypatch, provider)
    assert llmkit.connect(LISTED).model == model


def test_a_model_of_a_list_without_a_key_is_skipped_and_used_as_soon_as_a_key_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    keyed(monkeypatch, "groq")
    assert llmkit.connect(["claude-haiku-4-5", "gpt-oss-120b"]).provider == "groq"
    keyed(monkeypatch, "anthropic")
    assert llmkit.connect(["claude-haiku-4-5", "gpt-oss-120b"]).model == "anthropic/claude-haiku-4-5"


def test_a_list_of_which_nothing_can_be_had_says_why_of_each() -> None:
    with pytest.raises(llmkit.ConfigError, match=r"none of 4 models .*TOGETHER_API_KEY.*REPLICATE_API_TOKEN.*gemini-nano.*phones"):
        llmkit.connect(LISTED)


def test_the_cheapest_may_stand_first_and_the_dearer_serves_the_rows_that_it_could_not(
    vendors: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyed(monkeypatch, "mistral", "openai")
    vendors.fault("hard", error_of("mistral", "server_error"))
    rows = pd.DataFrame({"task": ["easy", "hard"]})
    told = rows.llm.chat("{task}", model=["mistral-small", "gpt-5-mini"], max_attempts=1, detail=True, show_progress=False)
    assert told["value"].tolist() == ["answer to: easy", "answer to: hard"]
    assert told["provider"].tolist() == ["mistral", "openai"]


def test_the_best_there_is_goes_by_the_catalogues_list_of_popular_models(monkeypatch: pytest.MonkeyPatch) -> None:
    keyed(monkeypatch, "mistral", "anthropic")
    first = next(name for name in llmkit.catalogue.default.priority("chat") if name.startswith(("claude", "mistral")))
    assert llmkit.connect().model == llmkit.connect(first).model
    assert llmkit.connect().provider == "anthropic"


def test_the_best_there_is_is_proved_where_that_is_asked_for(vendors: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    keyed(monkeypatch, "openai", key="refused-not-real")
    keyed(monkeypatch, "mistral")
    vendors.key = KEY
    assert llmkit.connect().provider == "openai"
    assert llmkit.connect(test=True).provider == "mistral"


@pytest.mark.parametrize("provider", ["openai", "anthropic", "cohere", "gemini", "mistral", "groq", "together", "fireworks", "perplexity"])
def test_any_key_at_all_is_enough_for_an_answer(vendors: Loopback, monkeypatch: pytest.MonkeyPatch, provider: str) -> None:
    if provider in ("anthropic", "cohere"):
        pytest.importorskip(provider)
    keyed(monkeypatch, provider)
    assert llmkit.ask("Come here often?") == "answer to: Come here often?"
    assert vendors.seen[-1].vendor == provider


def test_without_any_key_one_is_told_how_to_get_an_answer() -> None:
    with pytest.raises(llmkit.MissingKey, match=r"OPENAI_API_KEY or llmkit.set_key\(\"openai\"\); or start Ollama"):
        llmkit.ask("Come here often?")


def test_connections_are_tried_in_the_order_of_the_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    keyed(monkeypatch, "cerebras", "groq", "together", "openrouter")
    ways = llmkit.find("gpt-oss-120b")
    assert llmkit.connect("gpt-oss-120b").model == ways.loc[ways["ready"], "model"].iloc[0] == "cerebras/gpt-oss-120b"


def test_the_first_connection_that_works_is_returned(vendors: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    keyed(monkeypatch, "cerebras", "groq")
    vendors.fault("Say OK.", error_of("openai", "bad_key"))
    assert llmkit.connect("gpt-oss-120b", test=True).provider == "groq"


def test_chosen_randomly_every_provider_comes_up(monkeypatch: pytest.MonkeyPatch) -> None:
    keyed(monkeypatch, "cerebras", "groq", "together")
    assert {llmkit.connect("gpt-oss-120b", choose_randomly=True).provider for _ in range(100)} == {"cerebras", "groq", "together"}


def test_all_services_for_a_model_can_be_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    keyed(monkeypatch, "openrouter")
    ways = llmkit.find("mistral-7b")
    assert ways["provider"].drop_duplicates().tolist() == ["together", "openrouter", "replicate", "ollama"]
    assert ways.loc[ways["ready"], "provider"].tolist() == ["openrouter"]


def test_by_default_a_connection_sends_nothing_and_with_test_one_sample(vendors: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    keyed(monkeypatch, "groq")
    llmkit.connect("gpt-oss-120b")
    assert vendors.requests == 0
    llmkit.connect("gpt-oss-120b", test=True)
    assert vendors.requests == 1


@pytest.mark.parametrize(
    ("answer", "error"),
    [(error_of("groq", "bad_key"), llmkit.KeyRejected), (Json({"not": "an answer"}), llmkit.ServerFault)],
)
def test_a_tested_connection_has_a_key_that_is_let_in_and_a_valid_answer(
    vendors: Loopback, monkeypatch: pytest.MonkeyPatch, answer: Json, error: type[llmkit.LLMError]
) -> None:
    keyed(monkeypatch, "groq")
    vendors.fault("Say OK.", answer)
    with pytest.raises(error):
        llmkit.connect("groq/openai/gpt-oss-120b", test=True)


def test_the_functions_have_the_documents_switches_and_defaults() -> None:
    assert inspect.signature(llmkit.connect).parameters["choose_randomly"].default is False
    assert inspect.signature(llmkit.connect).parameters["test"].default is False
    assert inspect.signature(llmkit.ask).parameters["test"].default is True


def test_the_summary_of_a_call_says_which_model_was_chosen_for_it(vendors: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    keyed(monkeypatch, "groq")
    llmkit.chat("Hello")
    assert "groq/openai/gpt-oss-120b (chosen by llmkit)" in llmkit.last().summary()


def test_the_canonical_names_are_a_column_without_doubles() -> None:
    names = llmkit.models()["canonical"].unique()
    assert {"mixtral-8x7b", "gpt-4", "mistral-7b", "claude-haiku-4-5"} <= set(names)
    assert {*SERVED, *GONE} <= set(llmkit.catalogue.default.canonical_names())


# ---------------------------------------------------------------------------------------------------------------- updates

ROW = {"provider": "groq", "name": "model-of-tomorrow", "operations": ["chat"], "context_window": 1000}


def test_newer_rows_are_downloaded_when_asked_for_and_used_at_once(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    server.fault(None, Json({"as_of": llmkit.models()["as_of"].max(), "models": [ROW]}))
    told = llmkit.catalogue.refresh(f"{server.url}/models.json")
    assert (told["models"], told["new"]) == (1, 1)
    keyed(monkeypatch, "groq")
    assert llmkit.connect("model-of-tomorrow").model == "groq/model-of-tomorrow"
    assert json.loads(Path(told["kept_in"]).read_text())["models"][0]["name"] == "model-of-tomorrow", (
        "the latest list, to do with as one likes"
    )


def test_nothing_is_downloaded_unasked(server: Loopback) -> None:
    llmkit.models()
    llmkit.find("gpt-4")
    assert server.requests == 0


def test_a_list_of_ones_own_takes_the_place_of_the_packages(server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = {
        "providers": {"lab": {"base_url": server.url, "key_env": ["LAB_API_KEY"]}},
        "models": [{"provider": "lab", "name": "Qwen3-8B-Instruct", "operations": ["chat"]}],
        "aliases": {"house-model": ["lab/Qwen3-8B-Instruct"]},
    }
    (tmp_path / "inference-providers.json").write_text(json.dumps(own))
    llmkit.catalogue.load(tmp_path / "inference-providers.json")
    monkeypatch.setenv("LAB_API_KEY", KEY)
    assert llmkit.models()["canonical"].tolist() == ["house-model"]
    assert llmkit.providers()["provider"].tolist() == ["lab"]
    assert llmkit.chat("Hello", model="house-model") == "answer to: Hello"
    assert server.seen[-1].body["model"] == "Qwen3-8B-Instruct"


def test_rows_of_ones_own_stand_beside_the_packages_and_win(monkeypatch: pytest.MonkeyPatch) -> None:
    keyed(monkeypatch, "groq", "cerebras")
    llmkit.catalogue.merge({"aliases": {"gpt-oss-120b": ["groq/openai/gpt-oss-120b"]}})
    assert llmkit.connect("gpt-oss-120b").provider == "groq"
    assert len(llmkit.models()) > 500


# ---------------------------------------------------------------------------------------------------------- what is meant


@pytest.mark.parametrize(("name", "suffix"), [("mixtral-8x7b", "instruct"), ("mistral-7b", "instruct"), ("llama-2-70b", "-chat")])
def test_the_instruct_variant_is_meant_and_else_the_chat_variant(name: str, suffix: str) -> None:
    ways = llmkit.find(name)
    assert ways.loc[ways["provider"] != "ollama", "name"].str.lower().str.contains(suffix, regex=False).all(), (
        "Ollama's plain names are tuned too"
    )


@pytest.mark.parametrize("suffixed", ["mixtral-8x7b-instruct-v0.1", "mixtral:8x7b-instruct-q4_K_M", "Mixtral-8x7B-Instruct-v0.1-GGUF"])
def test_a_suffix_is_left_off_a_name_and_implied(here: Loopback, suffixed: str) -> None:
    here.models = [suffixed]
    assert llmkit.connect("mixtral-8x7b").name == suffixed


def test_no_completion_models_are_listed() -> None:
    known = llmkit.models()
    asked = set(", ".join(known["operations"]).split(", "))
    assert asked <= {"chat", "embed", "embed_images", "rerank", "classify", "transcribe", "speak"}
    chats = known.loc[known["operations"].str.contains("chat"), "name"]
    assert chats[chats.str.contains(r"davinci|babbage|turbo-instruct|-base$|-pt$")].empty


# -------------------------------------------------------------------------------------------------------------- providers


@pytest.mark.parametrize("provider", ["openai", "gemini", "mistral", "replicate", "fireworks", "perplexity", "together"])
def test_a_supported_provider_answers_with_its_own_models(vendors: Loopback, monkeypatch: pytest.MonkeyPatch, provider: str) -> None:
    keyed(monkeypatch, provider)
    known = llmkit.models()
    name = known.loc[(known["provider"] == provider) & known["operations"].eq("chat"), "name"].iloc[0]
    assert llmkit.chat("Hello", model=f"{provider}/{name}") == "answer to: Hello"
    assert (vendors.seen[-1].vendor, vendors.seen[-1].body["model"]) == (provider, name)


@pytest.mark.parametrize(
    ("provider", "cure"), [("anyscale", "your own Anyscale Service"), ("lepton", "works by its base URL"), ("palm", "gemini")]
)
def test_a_provider_that_was_shut_says_since_when_and_what_to_do(monkeypatch: pytest.MonkeyPatch, provider: str, cure: str) -> None:
    keyed(monkeypatch, provider)
    with pytest.raises(llmkit.UnknownModel, match=rf"{provider} is retired\. 20\d\d-\d\d-\d\d.*{re.escape(cure)}"):
        llmkit.chat("Hello", model=f"{provider}/any")


@pytest.mark.parametrize("provider", ["anyscale", "lepton"])
def test_a_provider_that_was_shut_serves_at_an_address_of_ones_own(
    server: Loopback, monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    keyed(monkeypatch, provider)
    monkeypatch.setenv(f"{provider.upper()}_API_BASE", server.compat_url_of(provider))
    assert llmkit.chat("Hello", model=f"{provider}/mistral-7b") == "answer to: Hello"
    assert server.seen[-1].headers["authorization"] == f"Bearer {KEY}"


def test_a_compatible_service_that_is_not_listed_is_added_by_its_address(server: Loopback) -> None:
    llmkit.add_provider("lab", server.url, api_key=KEY)
    assert llmkit.chat("Hello", model="lab/qwen3-8b") == "answer to: Hello"


def test_a_server_on_this_computer_is_found_by_itself(here: Loopback) -> None:
    here.models = ["mixtral:8x7b-instruct-v0.1-q4_K_M"]
    assert llmkit.detect_local()["canonical"].tolist() == ["mixtral-8x7b"]
    assert llmkit.chat("Hello", model="mixtral-8x7b") == "answer to: Hello"
    assert llmkit.ask("Come here often?") == "answer to: Come here often?"


def test_an_outage_at_one_provider_is_no_downtime(vendors: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    keyed(monkeypatch, "cerebras", "groq", "together")
    vendors.fault(None, error_of("openai", "server_error"))
    assert llmkit.chat("Hello", model="gpt-oss-120b", max_attempts=1) == "answer to: Hello"
    assert [seen.vendor for seen in vendors.seen] == ["cerebras", "groq"]


def test_with_no_model_named_an_outage_leads_to_the_next_provider(vendors: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    keyed(monkeypatch, "openai", "mistral")
    vendors.fault(None, error_of("openai", "no_credit"))
    assert llmkit.ask("Are you there?") == "answer to: Are you there?"
    assert [seen.vendor for seen in vendors.seen] == ["openai", "mistral"]
