"""KeyPanel: a typed key goes where it was told to, and is seen nowhere else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ipywidgets import Widget
from llmkit_widgets import KeyPanel

import llmkit
from tests.loopback import Loopback

from .conftest import CANARY, KEY, Log, ask, until


def line(panel: KeyPanel, provider: str) -> dict[str, object]:
    return next(row for row in panel.state["providers"] if row["provider"] == provider)


def test_a_key_that_is_handed_in_is_used_and_shown_by_where_it_is_from() -> None:
    panel = KeyPanel()
    assert line(panel, "mistral")["key_found"] is False
    ask(panel, "set_key", {"provider": "mistral", "key": KEY})
    until(panel, lambda state: line(panel, "mistral")["key_from"] == "given by hand")
    assert panel.state["note"] == "The key of mistral is set, until the kernel ends."
    assert panel.state["chosen"] == "mistral"
    assert panel.state["providers"][0]["provider"] == "mistral"  # what is there comes first


def test_the_key_is_in_no_message_no_trait_no_record_and_no_repr(wire: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROQ_API_KEY", KEY)
    panel = KeyPanel()
    for args in ({"provider": "mistral", "key": KEY}, {"provider": "nobody", "key": KEY}, {"provider": "mistral", "key": KEY, "keep": "x"}):
        ask(panel, "set_key", args)
        panel.draw(now=True)
    ask(panel, "set_key", {"provider": "mistral", "key": KEY + "\nmore"})
    ask(panel, "set_key", {"key": KEY})
    panel.draw(now=True)
    held = [json.dumps(wire), json.dumps(Widget.get_manager_state()), panel.snapshot(), repr(panel), panel.code, panel.result.to_json()]
    assert [KEY in text for text in held] == [False] * len(held)
    assert "GROQ_API_KEY" in held[0]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"provider": "opnai", "key": KEY}, "openai"),
        ({"provider": 5, "key": KEY}, "5"),
        ({"provider": "openai", "key": "  "}, "enter a key"),
        ({"provider": "openai", "key": None}, "enter a key"),
        ({"provider": "openai", "key": KEY, "keep": "disk"}, 'keep is "memory"'),
        ({"provider": "openai", "key": "sk-•••"}, "holds characters that no key has"),
        ({"provider": "openai"}, "(TypeError)"),
    ],
)
def test_what_cannot_be_set_is_said_and_sets_nothing(args: dict[str, object], said: str) -> None:
    panel = KeyPanel()
    ask(panel, "set_key", args)
    until(panel, lambda state: said in state["error"])
    assert line(panel, "openai")["key_found"] is False


def test_a_provider_name_with_markup_stays_text(wire: Log) -> None:
    panel = KeyPanel()
    llmkit.add_provider(CANARY.replace("/", ""), "http://127.0.0.1:9/v1", KEY)
    panel.draw(now=True)
    assert "<img" in json.dumps(panel.state)  # as data: the front end writes text nodes
    assert "<img" not in panel.snapshot()


def test_a_key_is_kept_in_a_file_where_that_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLMKIT_DOTENV")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    panel = KeyPanel()
    ask(panel, "set_key", {"provider": "mistral", "key": KEY})
    assert list(tmp_path.iterdir()) == []
    ask(panel, "set_key", {"provider": "mistral", "key": KEY, "keep": ".env"})
    assert (tmp_path / ".env").read_text() == f"MISTRAL_API_KEY={KEY}\n"
    until(panel, lambda state: state["note"] == "The key of mistral is set, and written into the .env file.")


def test_a_key_is_tried_with_a_request_that_has_its_states(lab: Loopback) -> None:
    panel = KeyPanel()
    lab.hold()
    ask(panel, "test", {"provider": "lab"})
    until(panel, lambda state: line(panel, "lab")["test"] == "testing")
    lab.release()
    until(panel, lambda state: line(panel, "lab")["test"] == "works")
    assert lab.seen[-1].body["model"] == "test-chat"  # the server's own list says what there is


def test_a_key_that_is_refused_has_failed_and_the_reason_is_said(lab: Loopback, wire: Log) -> None:
    lab.key = "another"
    panel = KeyPanel()
    ask(panel, "test", {"provider": "lab"})
    until(panel, lambda state: line(panel, "lab")["test"] == "failed" and state["error"])
    assert line(panel, "lab")["why"] == panel.state["error"]
    assert "test-key-not-real" not in json.dumps(wire)
    lab.key = None
    ask(panel, "set_key", {"provider": "lab", "key": KEY})
    until(panel, lambda state: line(panel, "lab")["test"] == "")  # of another key nothing is known


def test_a_provider_that_is_none_is_not_tried() -> None:
    panel = KeyPanel()
    ask(panel, "test", {"provider": "nobody"})
    until(panel, lambda state: state["error"] == "there is no provider of this name")


def test_the_code_asks_for_the_key_and_does_not_hold_it() -> None:
    panel = KeyPanel()
    panel.set_key("groq", KEY)
    assert panel.code == 'import llmkit\n\nllmkit.set_key("groq")  # asks, and shows nothing'


def test_the_record_names_providers_with_a_key() -> None:
    panel = KeyPanel()
    panel.set_key("groq", KEY)
    assert ">groq</td>" in panel.snapshot()
    assert "mistral" not in panel.snapshot()
