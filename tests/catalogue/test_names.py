"""Canonical names: all that people were promised, each with its ways or its end, and when two names mean one model."""

from __future__ import annotations

import itertools

import pytest

from llmkit.catalogue import Catalogue, meaning

SHIPPED = Catalogue()
PROMISED = (
    "gpt-4 gpt-3.5 codellama-70b codellama-34b phind-34b llama-2-70b llama-2-7b codellama-python-70b codellama-python-34b "
    "wizard-python-34b gemini-pro palm gemini-nano mistral-medium mistral-small mistral-tiny falcon-40b yi-34b mixtral-8x7b mistral-7b"
).split()


@pytest.mark.parametrize("name", PROMISED)
def test_a_name_of_the_first_days_is_known_still(name: str) -> None:
    vendors = [model for model in SHIPPED.named(name) if model.provider != "ollama"]
    assert name in SHIPPED.canonical_names()
    assert bool(vendors) is (SHIPPED.retired(name) is None)


def test_every_way_that_an_alias_names_is_a_model_that_is_listed() -> None:
    ways = [way for listed in SHIPPED._table.values() for way in listed if not way.startswith("ollama/")]
    assert [way for way in ways if tuple(way.split("/", 1)) not in SHIPPED._rows] == []


def test_an_alias_means_one_kind_of_model() -> None:
    for name in SHIPPED.canonical_names():
        assert len({model.operations for model in SHIPPED.named(name) if model.operations}) <= 1, name


def test_a_name_that_is_retired_names_a_successor_that_is_served() -> None:
    for name, row in SHIPPED._names["retired"].items():
        assert [model for model in SHIPPED.named(row["successor"]) if model.provider != "ollama"], name


def test_mixtral_is_found_in_the_order_of_the_catalogue() -> None:
    assert [str(model) for model in SHIPPED.named("mixtral-8x7b")] == [
        "replicate/mistralai/mixtral-8x7b-instruct-v0.1",
        "ollama/mixtral",
        "ollama/mixtral:8x7b",
    ]


def test_the_maker_goes_before_resellers() -> None:
    assert [model.provider for model in SHIPPED.named("gpt-5-mini")][:2] == ["openai", "openrouter"]
    assert [model.provider for model in SHIPPED.named("claude-haiku-4-5")] == ["anthropic", "openrouter", "replicate"]


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("qwen3:8b", "qwen3-8b"),
        ("llama3.1:8b-instruct-q4_K_M", "llama-3.1-8b"),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "mixtral-8x7b"),
        ("mixtral:8x7b-instruct-v0.1-q4_0", "mixtral-8x7b"),
        ("meta-llama/Meta-Llama-3.1-70B-Instruct", "llama-3.1-70b"),
        ("Meta-Llama-3.1-8B-Instruct-Q5_K_S.gguf", "llama-3.1-8b"),
        ("unsloth/Llama-3.2-3B-Instruct-GGUF", "llama-3.2-3b"),
        ("Qwen/Qwen3-8B-AWQ", "qwen3-8b"),
        ("Qwen/Qwen3-32B-FP8", "qwen3-32b"),
        ("mistral:7b-instruct-v0.3-q8_0", "mistral-7b"),
        ("gemma3:4b-it-qat", "gemma-3-4b"),
        ("gpt-oss:20b", "gpt-oss-20b"),
        ("openai/gpt-oss-20b", "gpt-oss-20b"),
        ("codellama:70b-python", "codellama-python-70b"),
        ("llama2:7b-chat", "llama-2-7b"),
        ("mlx-community/Qwen3-8B-4bit", "qwen3-8b"),
    ],
)
def test_a_local_name_means_its_canonical_model(name: str, canonical: str) -> None:
    assert meaning(name) == meaning(canonical)


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("qwen3:14b", "qwen3-8b"),
        ("qwen3", "qwen3-8b"),
        ("qwen3:8b-thinking", "qwen3-8b"),
        ("qwen2.5:8b", "qwen3-8b"),
        ("qwen3-coder:8b", "qwen3-8b"),
        ("qwen3:0.8b", "qwen3-8b"),
        ("deepseek-r1:8b-llama-distill-q4_K_M", "llama-3.1-8b"),
        ("deepseek-r1:8b", "deepseek-r1"),
        ("mixtral:8x22b", "mixtral-8x7b"),
        ("dolphin-mixtral:8x7b", "mixtral-8x7b"),
        ("llama3:8b", "llama-3.1-8b"),
        ("llama3.1:8b-text-q4_0", "llama-3.1-8b"),
        ("llama3.1:70b-instruct-q4_K_M", "llama-3.1-8b"),
        ("codellama:34b", "codellama-python-34b"),
        ("codellama:7b", "codellama-70b"),
        ("qwen3-4b-2507", "qwen3-4b"),
        ("nomic-embed-text:v2", "nomic-embed-text-v1.5"),
        ("gemma3n:e4b", "gemma-3-4b"),
        ("q8_0", "instruct"),
        ("日本", "中国"),
    ],
)
def test_another_size_or_family_is_another_model(name: str, canonical: str) -> None:
    assert meaning(name) != meaning(canonical)


def test_no_two_canonical_names_mean_one_model() -> None:
    names = SHIPPED.canonical_names()
    assert [(one, two) for one, two in itertools.combinations(names, 2) if meaning(one) == meaning(two)] == []


def test_a_name_that_could_be_several_models_is_told_which() -> None:
    message = str(SHIPPED.unknown("codellama"))
    assert message.startswith('"codellama" could be one of several models: codellama-34b, codellama-70b, ')
