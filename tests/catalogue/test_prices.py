"""Our prices against a second opinion: genai-prices."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from llmkit.catalogue import Catalogue

genai_prices = pytest.importorskip("genai_prices.data", reason="the second opinion is not installed")

SHIPPED = Catalogue()
THEIRS = {
    "anthropic": "anthropic",
    "cerebras": "cerebras",
    "cohere": "cohere",
    "deepseek": "deepseek",
    "fireworks": "fireworks",
    "gemini": "google",
    "groq": "groq",
    "mistral": "mistral",
    "openai": "openai",
    "openrouter": "openrouter",
    "together": "together",
    "voyage": "voyageai",
    "xai": "x-ai",
}
#: Where the two disagree about what is charged, the higher price is ours, so that a budget is not overstepped.
DISAGREEMENTS = {
    ("fireworks/accounts/fireworks/models/ultramarine-1-flash-us", "input"),
    ("fireworks/accounts/fireworks/models/ultramarine-1-flash-us", "output"),
    ("mistral/mistral-large-4", "input"),
    ("mistral/mistral-large-4", "output"),
}


def second_opinion(provider: str, name: str) -> dict[str, float]:
    """Their price for short prompts in DeepSeek's dear hours on the day of our list; nothing where they list a price of nothing."""
    rows = next(row.models for row in genai_prices.providers if row.id == THEIRS[provider])
    found = next((row for row in rows if row.id == name.rpartition("models/")[2]), None)
    if found is None:
        return {}
    prices = found.get_prices(datetime.datetime.fromisoformat(SHIPPED._json["as_of"]).replace(hour=2, tzinfo=datetime.UTC))
    figures: dict[str, Any] = {"input": prices.input_mtok, "output": prices.output_mtok}
    said = {key: float(getattr(value, "base", value)) for key, value in figures.items() if value is not None}
    return said if any(said.values()) else {}


def compared() -> list[tuple[str, str, float, float]]:
    found = []
    for model in SHIPPED.models():
        if model.provider in THEIRS:
            for key, theirs in second_opinion(model.provider, model.name).items():
                ours = getattr(model.price, key)
                if ours is not None and (key == "input" or model.operations == ("chat",)):
                    found.append((str(model), key, ours, theirs))
    return found


def test_hundreds_of_prices_have_a_second_opinion() -> None:
    assert len(compared()) > 400


def test_prices_agree_with_the_second_opinion_within_one_percent() -> None:
    apart = {(name, key) for name, key, ours, theirs in compared() if abs(ours - theirs) > 0.01 * theirs}
    assert apart == DISAGREEMENTS


def test_where_they_disagree_ours_is_the_higher_price() -> None:
    assert all(ours >= theirs * 0.99 for _, _, ours, theirs in compared())
