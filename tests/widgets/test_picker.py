"""ModelPicker: what can be used comes first, anything can be named, and what is picked is what calls take."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from llmkit_widgets import ModelPicker

import llmkit
from tests.loopback import Json, Loopback

from .conftest import CANARY, KEY, Log, ask, until


def names(panel: ModelPicker) -> list[str]:
    return [row["model"] for row in panel.state["rows"]]


def test_models_whose_key_is_there_come_first_and_the_others_say_what_they_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROQ_API_KEY", KEY)
    panel = ModelPicker()
    ready = [row["ready"] for row in panel.state["rows"]]
    assert ready == sorted(ready, reverse=True)
    assert names(panel)[0] == "echo/echo"
    assert {row["model"].partition("/")[0] for row in panel.state["rows"] if row["ready"]} == {"echo", "groq"}
    assert panel.state["ready"] == ready.count(True)
    waiting = panel.result[~panel.result["ready"]]
    assert set(waiting.loc[waiting["provider"] == "anthropic", "needs"]) == {"ANTHROPIC_API_KEY"}
    # The key is one thing, a server that needs none another.
    assert set(waiting.loc[waiting["provider"] == "ollama", "needs"]) <= {"start ollama"}


def test_whoever_has_no_key_at_all_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ModelPicker().state["no_key"] is True
    monkeypatch.setenv("GROQ_API_KEY", KEY)
    assert ModelPicker().state["no_key"] is False


def test_the_page_holds_some_of_the_models_and_the_state_stays_small() -> None:
    panel = ModelPicker()
    assert len(panel.result) > 500
    assert len(names(panel)) == 25
    assert len(json.dumps(panel.state)) < 15_000
    ask(panel, "look", {"page": 1})
    until(panel, lambda state: state["page"] == 1)
    assert names(panel) == panel.result["model"].tolist()[25:50]
    ask(panel, "look", {"page": 10_000})
    until(panel, lambda state: state["page"] == state["pages"] - 1)


def test_a_search_finds_by_all_its_words_in_names_and_capabilities() -> None:
    panel = ModelPicker()
    ask(panel, "look", {"page": 3})
    ask(panel, "look", {"search": "Haiku vision"})
    until(panel, lambda state: 0 < state["total"] < 20)
    assert panel.state["page"] == 0
    assert all("haiku" in row["model"] and "vision" in row["capabilities"] for row in panel.state["rows"])
    ask(panel, "look", {"search": CANARY + "("})
    until(panel, lambda state: state["total"] == 0)


def test_only_those_that_are_ready_can_be_listed() -> None:
    panel = ModelPicker("rerank")
    ask(panel, "look", {"ready_only": True})
    until(panel, lambda state: names(panel) == ["local/bm25"])


@pytest.mark.parametrize(("operation", "first"), [("embed", "local/lexical"), ("rerank", "local/bm25"), ("chat", "echo/echo")])
def test_what_is_built_in_is_ready_for_what_it_does(operation: str, first: str) -> None:
    panel = ModelPicker(operation)
    assert names(panel)[0] == first
    assert panel.state["rows"][0]["ready"]


def test_prices_window_and_dimensions_stand_beside_each() -> None:
    panel = ModelPicker("embed")
    panel.look(search="openai/text-embedding-3-small")
    panel.draw(now=True)
    row = next(row for row in panel.state["rows"] if row["model"] == "openai/text-embedding-3-small")
    assert (row["price_in"], row["dimensions"]) == (0.02, 1536)
    panel.look(operation="rerank", search="cohere/rerank")
    panel.draw(now=True)
    assert any(row["price_other"].endswith("per k searches") for row in panel.state["rows"])


def test_what_is_picked_and_used_is_what_calls_take() -> None:
    panel = ModelPicker()
    ask(panel, "choose", {"model": "echo/echo"})
    ask(panel, "use")
    until(panel, lambda state: state["used"] == "echo/echo")
    assert llmkit.chat("Hello") == "[echo, not a model] Hello"
    assert "echo/echo" in panel.state["note"]
    assert "echo/echo" in panel.snapshot()


def test_a_model_without_its_key_is_picked_but_not_used_and_the_way_to_it_is_said() -> None:
    panel = ModelPicker()
    ask(panel, "choose", {"model": "anthropic/claude-haiku-4-5"})
    until(panel, lambda state: state["needs"] == "ANTHROPIC_API_KEY")
    ask(panel, "use")
    until(panel, lambda state: "Set ANTHROPIC_API_KEY" in state["error"])
    assert panel.state["used"] == ""


def test_any_name_can_be_typed_and_one_that_nobody_has_is_an_error(lab: Loopback) -> None:
    panel = ModelPicker()
    ask(panel, "choose", {"model": "  lab/of-tomorrow "})
    until(panel, lambda state: state["model"] == "lab/of-tomorrow")
    ask(panel, "use")
    llmkit.chat("Hello")
    assert lab.seen[-1].body["model"] == "of-tomorrow"
    ask(panel, "choose", {"model": "nowhere/of-tomorrow"})
    until(panel, lambda state: "nowhere" in state["error"])
    assert panel.model == "lab/of-tomorrow"
    ask(panel, "choose", {"model": " "})
    until(panel, lambda state: "name a model" in state["error"])


def test_parameters_are_those_that_the_models_wire_has_a_word_for() -> None:
    panel = ModelPicker()
    for model, offered in (
        ("openai/gpt-4.1-mini", ["temperature", "max_tokens", "seed"]),
        ("anthropic/claude-haiku-4-5", ["temperature", "max_tokens"]),
    ):
        ask(panel, "choose", {"model": model})
        until(panel, lambda state, offered=offered: [one["name"] for one in state["parameters"]] == offered)


def test_a_parameter_is_set_checked_kept_where_it_fits_and_taken_back() -> None:
    panel = ModelPicker()
    ask(panel, "set_parameter", {"name": "seed", "value": "7"})
    until(panel, lambda state: "no model takes no parameter" in state["error"])
    panel.choose("openai/gpt-4.1-mini")
    for name, value in (("temperature", "0.2"), ("seed", "7"), ("max_tokens", 100)):
        ask(panel, "set_parameter", {"name": name, "value": value})
    assert panel.parameters == {"temperature": 0.2, "seed": 7, "max_tokens": 100}
    ask(panel, "set_parameter", {"name": "seed", "value": "1.5"})
    until(panel, lambda state: state["error"] == "seed is a whole number")
    ask(panel, "set_parameter", {"name": "temperature", "value": "warm"})
    until(panel, lambda state: state["error"] == "temperature is a number")
    ask(panel, "set_parameter", {"name": "max_tokens", "value": ""})
    panel.choose("anthropic/claude-haiku-4-5")
    assert panel.parameters == {"temperature": 0.2}
    assert panel.code.endswith('llmkit.use("anthropic/claude-haiku-4-5")\ndf.llm.chat("...", temperature=0.2)')


def test_what_has_no_default_is_named_in_the_call() -> None:
    panel = ModelPicker("speak")
    panel.choose("openai/tts-1")
    panel.set_parameter("voice", 'al"loy')
    assert panel.code.splitlines()[-1] == r'df.llm.speak("text", model="openai/tts-1", voice="al\"loy")'
    ask(panel, "use")
    until(panel, lambda state: "no default for speak" in state["error"])
    ask(panel, "look", {"operation": "embed"})
    until(panel, lambda state: (state["operation"], state["model"]) == ("embed", ""))
    ask(panel, "look", {"operation": CANARY})
    until(panel, lambda state: state["error"].startswith("a model is picked for one of chat, embed"))


def test_favourites_come_first_in_every_session_and_stand_in_no_notebook() -> None:
    ask(ModelPicker(), "favour", {"model": "xai/grok-4"})
    ask(ModelPicker(), "favour", {"model": "mistral/mistral-large-latest"})
    assert llmkit.preferences() == {"favourites": ["xai/grok-4", "mistral/mistral-large-latest"]}
    panel = ModelPicker()
    known = [name for name in llmkit.preferences()["favourites"] if name in set(panel.result["model"])]
    assert known
    assert set(names(panel)[: len(known)]) == set(known)
    for name in llmkit.preferences()["favourites"]:
        ask(panel, "favour", {"model": name})
    assert llmkit.preferences() == {}


def test_a_server_is_asked_for_its_models_which_can_then_be_used(server: Loopback) -> None:
    server.models = ["qwen3-8b", f"{CANARY}", "bge-small"]
    panel = ModelPicker()
    ask(panel, "probe", {"base_url": server.url, "name": "mine"})
    until(panel, lambda state: state["note"] == "mine serves 3 models.")
    assert names(panel) == [f"mine/{CANARY}", "mine/qwen3-8b"]  # the one that embeds is listed for that
    assert all(row["ready"] for row in panel.state["rows"])
    panel.choose("mine/qwen3-8b")
    panel.use()
    assert llmkit.chat("Hello").startswith("answer to")
    assert panel.code == f'import llmkit\n\nllmkit.add_provider("mine", "{server.url}")\nllmkit.use("mine/qwen3-8b")'
    panel.choose(f"mine/{CANARY}")
    assert "<img" not in panel.snapshot()
    panel.look(operation="embed")
    panel.draw(now=True)
    assert names(panel)[0] == "mine/bge-small"


def test_a_server_is_named_after_its_address_where_no_name_is_given(server: Loopback) -> None:
    panel = ModelPicker()
    ask(panel, "probe", {"base_url": server.url})
    until(panel, lambda state: state["note"] == f"127-0-0-1-{server.port} serves 3 models.")
    ask(panel, "probe", {"base_url": server.url})  # again is no fault
    until(panel, lambda state: not state["probing"] and state["error"] == "")


def test_the_servers_key_travels_in_the_header_and_stands_nowhere(server: Loopback, wire: Log) -> None:
    server.key = KEY
    panel = ModelPicker()
    ask(panel, "probe", {"base_url": server.url, "name": "mine"})
    until(panel, lambda state: state["error"] and not state["probing"])
    ask(panel, "probe", {"base_url": server.url, "name": "mine", "key": KEY})
    until(panel, lambda state: state["note"].startswith("mine serves"))
    panel.choose("mine/test-chat")
    panel.draw(now=True)
    assert 'llmkit.set_key("mine")  # asks, and shows nothing' in panel.state["code"]
    assert KEY not in json.dumps(wire) + panel.snapshot() + repr(panel) + panel.code


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://127.0.0.1:9/v1", "nothing answers"),
        (KEY, "neither a provider's name nor an address"),
        (f"http://user:{KEY}@127.0.0.1:9/v1", "no user, password"),
        (f"http://127.0.0.1:9/v1?key={KEY}", "no user, password"),
        ("http://127.0.0.1:99999/v1", "neither a provider's name nor an address"),
        (" ", "enter a base URL"),
    ],
)
def test_a_server_that_cannot_be_had_is_said_in_the_panel_and_adds_nothing(address: str, said: str, wire: Log) -> None:
    panel = ModelPicker()
    before = len(llmkit.providers())
    ask(panel, "probe", {"base_url": address, "name": "mine"})
    until(panel, lambda state: said in state["error"] and not state["probing"])
    assert len(llmkit.providers()) == before
    assert KEY not in json.dumps(wire)


def test_what_answers_but_is_no_list_is_said(server: Loopback) -> None:
    server.fault(None, Json({"models": []}))
    panel = ModelPicker()
    ask(panel, "probe", {"base_url": server.url, "name": "mine"})
    until(panel, lambda state: "not with a list of models" in state["error"])
    ask(panel, "probe", {"base_url": server.url + "/nothing", "name": "mine"})
    until(panel, lambda state: not state["probing"] and "not with a list of models" in state["error"])


def test_a_known_providers_name_is_not_taken_by_a_server(server: Loopback) -> None:
    panel = ModelPicker()
    ask(panel, "probe", {"base_url": server.url, "name": "openai"})
    until(panel, lambda state: '"openai" is a provider already' in state["error"])
    assert server.requests == 0


def test_servers_on_this_computer_are_looked_for_once_when_a_view_opens(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(llmkit.catalogue.default._toml, "local_ports", [{"port": server.port, "name": "a server"}])
    panel = ModelPicker()
    assert server.requests == 0
    ask(panel, "shown")
    until(panel, lambda state: f"port{server.port}/test-chat" in names(panel))
    ask(panel, "shown")
    assert panel.wait(20)
    assert server.requests == 1


def test_a_key_that_is_set_elsewhere_is_seen_when_the_panel_is_shown_again(tmp_path: Path) -> None:
    panel = ModelPicker()
    llmkit.set_key("groq", KEY)
    ask(panel, "shown")
    until(panel, lambda state: "groq" in {row["model"].partition("/")[0] for row in state["rows"] if row["ready"]})


def test_actions_from_many_threads_leave_the_panel_whole() -> None:
    panel = ModelPicker()
    threads = [threading.Thread(target=ask, args=(panel, "look", {"search": word})) for word in ("gpt", "haiku", "grok", "llama") * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    panel.draw(now=True)
    assert panel.state["error"] == ""
    assert all(panel.state["search"] in row["model"] for row in panel.state["rows"])
