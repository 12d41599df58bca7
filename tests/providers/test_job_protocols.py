"""Which provider of OpenAI's wire has batch jobs, for what, and within which bounds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llmkit.adapter import Jobs, Target
from llmkit.types import Model
from scripts import providers_page as page


def jobs(vendor: str, operation: str = "chat", **row: object) -> Jobs | None:
    adapter = page.adapter(vendor)
    provider = replace(page.providers()[vendor], **row)  # type: ignore[arg-type]
    assert adapter.jobs is not None
    return adapter.jobs(Target(Model(vendor, "m"), provider, adapter, adapter.codecs[operation]))


@pytest.mark.parametrize("vendor", ["anthropic", "cerebras", "gemini", "groq", "mistral", "openai", "together", "vllm", "xai"])
def test_chats_can_be_jobs(vendor: str) -> None:
    assert jobs(vendor) is not None


@pytest.mark.parametrize("vendor", ["fireworks", "openrouter", "perplexity"])
def test_who_has_jobs_of_a_form_of_their_own_has_none_here(vendor: str) -> None:
    assert jobs(vendor) is None


@pytest.mark.parametrize("vendor", ["gemini", "mistral", "openai", "vllm"])
def test_embeddings_can_be_jobs(vendor: str) -> None:
    assert jobs(vendor, "embed") is not None


@pytest.mark.parametrize("vendor", ["cerebras", "groq", "together", "xai"])
def test_who_names_chat_alone_has_no_jobs_for_embeddings(vendor: str) -> None:
    assert jobs(vendor, "embed") is None


@pytest.mark.parametrize("operation", ["rerank", "transcribe", "speak"])
def test_what_a_line_cannot_hold_is_no_job(operation: str) -> None:
    assert jobs("openai", operation) is None


@pytest.mark.parametrize(
    ("vendor", "requests", "size"),
    [
        ("openai", 50_000, 200_000_000),
        ("groq", 50_000, 100_000_000),
        ("together", 50_000, 100_000_000),
        ("xai", 50_000, 200_000_000),
        ("mistral", 100_000, 512_000_000),
        ("gemini", 100_000, 2_000_000_000),
        ("anthropic", 100_000, 256_000_000),
    ],
)
def test_bounds_are_those_of_the_vendor(vendor: str, requests: int, size: int) -> None:
    """BJ05."""
    found = jobs(vendor)
    assert found is not None
    adapter = page.adapter(vendor)
    bounds = found.bounds(Target(Model(vendor, "m"), page.providers()[vendor], adapter, adapter.codecs["chat"]))
    assert (bounds.requests, round(bounds.bytes, -6)) == (requests, size)
    assert bounds.bytes <= size
