"""load and merge: rows of one's own, from a mapping, TOML or JSON."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

import llmkit
from llmkit.catalogue import Catalogue
from tests.loopback import Loopback

LAB = {
    "providers": {"lab": {"base_url": "http://127.0.0.1:9/v1/", "key_env": ["LAB_KEY"], "key_optional": True}},
    "models": [{"provider": "lab", "name": "qwen3-8b", "operations": ["chat"], "price": {"input": 0.05, "output": 0.1}}],
    "aliases": {"house-model": ["lab/qwen3-8b", "openai/gpt-5-mini"]},
}
TOML = """
[providers.lab]
base_url = "http://127.0.0.1:9/v1"
key_env = ["LAB_KEY"]
key_optional = true
[[models]]
provider = "lab"
name = "qwen3-8b"
operations = ["chat"]
price = { input = 0.05, output = 0.1 }
[aliases]
house-model = ["lab/qwen3-8b", "openai/gpt-5-mini"]
"""


@pytest.mark.parametrize("form", ["mapping", "toml", "json", "text path"])
def test_rows_of_ones_own_come_in_every_form(form: str, tmp_path: Path) -> None:
    path = tmp_path / ("own.toml" if form == "toml" else "own.json")
    path.write_text(TOML if form == "toml" else json.dumps(LAB))
    llmkit.catalogue.merge({"mapping": LAB, "text path": str(path)}.get(form, path))
    assert llmkit.find("house-model")["model"].tolist() == ["lab/qwen3-8b", "openai/gpt-5-mini"]
    assert llmkit.find("house-model")["input_price"].iloc[0] == 0.05


def test_a_provider_that_is_merged_is_reached(server: Loopback) -> None:
    llmkit.catalogue.merge({"providers": {"lab": {"base_url": server.url, "key_optional": True}}, "aliases": {"house-model": "lab/x"}})
    assert llmkit.chat("Hello", model="house-model") == "answer to: Hello"


def test_a_vendors_row_is_corrected_and_the_rest_of_it_stays() -> None:
    llmkit.catalogue.merge({"providers": {"groq": {"base_url": "https://eu.groq.example/v1"}}})
    groq = llmkit.catalogue.default.provider("groq")
    assert groq is not None
    assert (groq.base_url, groq.key_env) == ("https://eu.groq.example/v1", ("GROQ_API_KEY",))


def test_ones_own_way_goes_before_the_catalogues() -> None:
    llmkit.catalogue.merge({"aliases": {"gpt-5-mini": ["openrouter/openai/gpt-5-mini"]}})
    assert llmkit.find("gpt-5-mini")["provider"].tolist()[:2] == ["openrouter", "openai"]


def test_what_is_loaded_replaces_its_section_and_no_other() -> None:
    llmkit.catalogue.load({"models": LAB["models"]})
    assert llmkit.models()["name"].tolist() == ["qwen3-8b"]
    assert "openai" in llmkit.providers()["provider"].tolist()


def test_providers_that_are_loaded_are_the_only_ones() -> None:
    llmkit.catalogue.load({"providers": LAB["providers"]})
    assert llmkit.providers()["provider"].tolist() == ["lab"]
    with pytest.raises(llmkit.UnknownModel, match='no provider "openai"'):
        llmkit.connect("openai/gpt-5-mini")


def test_aliases_that_are_loaded_are_the_only_ones() -> None:
    llmkit.catalogue.load({"aliases": {"mine": ["openai/gpt-5-mini"]}})
    assert llmkit.find("mine")["model"].tolist() == ["openai/gpt-5-mini"]
    assert llmkit.catalogue.default.named("mixtral-8x7b") == []


def test_a_row_that_is_loaded_is_found_by_its_alias() -> None:
    llmkit.catalogue.load({"models": [{"provider": "openai", "name": "x", "aliases": ["mine"]}]})
    assert llmkit.find("mine")["model"].tolist() == ["openai/x"]


def test_what_was_loaded_is_forgotten_on_demand() -> None:
    llmkit.catalogue.load(LAB)
    llmkit.catalogue.default.forget()
    assert len(llmkit.models()) > 500


@pytest.mark.parametrize("name", ["load", "merge"])
@pytest.mark.parametrize(
    ("rows", "cure"),
    [
        ([], "a mapping or the path"),
        (3, "a mapping or the path"),
        ({"model": []}, "did you mean 'models'"),
        ({"models": {}}, "models is a list of rows"),
        ({"providers": []}, "providers is a mapping"),
        ({"providers": {"lab": 3}}, "is a mapping, not int"),
        ({"providers": {"lab": {}}}, "needs a base_url"),
        ({"providers": {"lab": {"base_url": "lab:80"}}}, "needs a base_url"),
        ({"providers": {"lab": {"base_url": "http://x", "key_envs": []}}}, "did you mean 'key_env'"),
        ({"providers": {"lab": {"base_url": "http://x", "key_env": "LAB"}}}, 'key_env of the provider "lab" is a list'),
        ({"providers": {"echo": {"base_url": "http://x"}}}, "built into llmkit"),
        ({"providers": {"a/b": {"base_url": "http://x"}}}, "holds a slash"),
        ({"aliases": {"x": 3}}, 'the alias "x" is a list of "provider/model"'),
        ({"aliases": {"x": ["gpt"]}}, 'the alias "x" is a list of "provider/model"'),
        ({"models": [{"provider": "lab", "name": "x", "limits": {"rph": 3}}]}, "limits of x are rpm and tpm"),
        ({"models": [{"provider": "lab", "name": "x", "price": {"audio_minute": -1}}]}, "dollars per minute of sound"),
    ],
)
def test_a_document_that_is_misspelt_is_an_error_and_changes_nothing(name: str, rows: Any, cure: str) -> None:
    with pytest.raises(llmkit.BadInput, match=cure):
        getattr(llmkit.catalogue, name)(rows)
    assert llmkit.catalogue.default.provider("lab") is None
    assert len(llmkit.models()) > 500


@pytest.mark.parametrize(
    ("file", "text", "cure"),
    [
        ("own.toml", "[", "is no TOML"),
        ("own.json", "{", "is no JSON"),
        ("own.json", "[]", "holds a list"),
        ("gone.json", None, "cannot be read"),
    ],
)
def test_a_file_that_is_no_catalogue_is_named(tmp_path: Path, file: str, text: str | None, cure: str) -> None:
    if text is not None:
        (tmp_path / file).write_text(text)
    with pytest.raises(llmkit.BadInput, match=f"{file} {cure}"):
        llmkit.catalogue.merge(tmp_path / file)


def test_a_good_row_beside_a_bad_one_is_not_merged() -> None:
    with pytest.raises(llmkit.BadInput):
        llmkit.catalogue.merge({**LAB, "models": [*LAB["models"], {"name": "x"}]})
    assert llmkit.catalogue.default.provider("lab") is None


def test_the_files_are_read_at_the_first_question_and_fast() -> None:
    best = 1.0
    for _ in range(5):
        fresh = Catalogue()
        assert not {"_json", "_names", "_toml"} & set(vars(fresh))
        before = time.perf_counter()
        fresh.named("mixtral-8x7b")
        best = min(best, time.perf_counter() - before)
    assert best < 0.03


def test_the_table_of_models_is_the_callers_own_and_new_whenever_a_model_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def price(name: str) -> list[float]:
        known = llmkit.models()
        return known.loc[known["name"] == name, "input_price"].tolist()

    table = llmkit.models()
    table.loc[:, "input_price"] = 77.0
    assert 77.0 not in llmkit.models()["input_price"].tolist()
    assert not llmkit.models()["key_found"].any()
    monkeypatch.setenv("MISTRAL_API_KEY", "key-not-real")
    known = llmkit.models()
    assert set(known.loc[known["key_found"], "provider"]) == {"mistral"}
    for dollars in (1.0, 2.0):
        llmkit.catalogue.merge({"models": [{"provider": "lab", "name": "house", "price": {"input": dollars}}]})
        assert price("house") == [dollars]
    llmkit.catalogue.default.forget()
    assert price("house") == []
