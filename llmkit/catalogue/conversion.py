"""LiteLLM's model data (MIT licence) turned into rows of ``models.json``: other names, other units, our vendors only."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["is_litellm", "rows_of"]

#: Our name of a vendor: what stands before its names in LiteLLM's data, and the ``litellm_provider`` it goes by there.
_VENDORS = {
    "anthropic": ("", "anthropic"),
    "cerebras": ("cerebras/", "cerebras"),
    "cohere": ("", "cohere cohere_chat"),
    "deepseek": ("deepseek/", "deepseek"),
    "fireworks": ("fireworks_ai/", "fireworks_ai fireworks_ai-embedding-models"),
    "gemini": ("gemini/", "gemini"),
    "groq": ("groq/", "groq"),
    "mistral": ("mistral/", "mistral"),
    "openai": ("", "openai"),
    "perplexity": ("perplexity/", "perplexity"),
    "replicate": ("replicate/", "replicate"),
    "together": ("together_ai/", "together_ai"),
    "voyage": ("voyage/", "voyage"),
    "xai": ("xai/", "xai"),
}
_OPERATIONS = {
    "chat": "chat",
    "embedding": "embed",
    "rerank": "rerank",
    "audio_transcription": "transcribe",
    "audio_speech": "speak",
}
_CAPABILITIES = {
    "tools": "supports_function_calling",
    "json_schema": "supports_response_schema",
    "vision": "supports_vision",
    "audio_input": "supports_audio_input",
    "pdf_input": "supports_pdf_input",
    "reasoning": "supports_reasoning",
    "prompt_cache": "supports_prompt_caching",
}
#: Our price, LiteLLM's figure, and how many of its units one of ours holds.
_PRICES = (
    ("input", "input_cost_per_token", 1e6),
    ("cached_input", "cache_read_input_token_cost", 1e6),
    ("output", "output_cost_per_token", 1e6),
    ("cache_write", "cache_creation_input_token_cost", 1e6),
    ("batch_input", "input_cost_per_token_batches", 1e6),
    ("batch_output", "output_cost_per_token_batches", 1e6),
    ("audio_input", "input_cost_per_audio_token", 1e6),
    ("audio_minute", "input_cost_per_second", 60),
    ("million_characters", "input_cost_per_character", 1e6),
    ("thousand_searches", "input_cost_per_query", 1e3),
)
#: The same of a request longer than so many thousand tokens, as ``input_cost_per_token_above_200k_tokens`` says.
_LONG = re.compile(r"^input_cost_per_token_above_(\d+)k_tokens$")
_LONG_PRICES = tuple((f"long_{ours}", theirs) for ours, theirs, _ in _PRICES if ours in ("input", "cached_input", "cache_write", "output"))
#: These bill each search beside the tokens, so that tokens alone are not what an answer costs.
_SEARCHES = re.compile(r"^perplexity/sonar|search-(preview|api)")
#: LiteLLM has these, and they are gone or nothing to talk to by the vendor's usual endpoint. Seen 2026-11-21.
_GONE = re.compile(
    r"^(perplexity/(?!sonar(-pro|-reasoning-pro|-deep-research)?$)"  # https://docs.perplexity.ai lists the four sonars only
    r"|cerebras/llama"  # shut one after another until 2026-05-27; rows without a date are older spellings of the same
    r"|deepseek/deepseek-(r1|v3|v3\.2|coder)$"  # weights, which its own API calls by other names
    r"|gemini/(gemini-exp|gemini-gemma|learnlm|lyria|deep-research|.*streaming)"  # experiments of 2024, music, agents
    r"|replicate/.*/(llama-[23]-\d+b|mistral-7b-v0\.1)$"  # the base model, not the variant that one can talk to
    r"|together/(togethercomputer/CodeLlama|.*-4B-experimental)"  # in no other list of its models
    r"|voyage/voyage-context)"  # another endpoint, for chunks of documents
)
#: LiteLLM has it a thousandfold; the price is that of its sisters.
_CORRECTED = {"cohere/embed-multilingual-light-v3.0": {"input": 0.1, "output": 0.0}}
#: A realtime socket is another wire; a fine-tuned name is a pattern, no model.
_ELSEWHERE = re.compile(r"realtime|-live\b|^ft:|^openai/container|/$")


def is_litellm(document: Any) -> bool:
    """Whether a document has the shape of LiteLLM's file: a mapping of names to mappings that say ``litellm_provider``."""
    return isinstance(document, Mapping) and any(isinstance(facts, Mapping) and "litellm_provider" in facts for facts in document.values())


def rows_of(
    document: Mapping[str, Any], served: Mapping[str, tuple[str, ...]], as_of: str, source: str
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """A row for each model of ours that is served on the day.

    Parameters
    ----------
    document : mapping
        LiteLLM's file.
    served : mapping
        Vendor to the operations it serves, as ``providers.toml`` has them.
    as_of : str
        The day, as ``2026-11-21``. What had ended by then is left out.
    source : str
        Whom to name for figures without a page of their own.
    """
    vendors = {theirs: ours for ours, (_, names) in _VENDORS.items() for theirs in names.split()}
    seen = set()
    for key, facts in document.items():
        vendor = vendors.get(facts.get("litellm_provider", "")) if isinstance(facts, Mapping) else None
        operation = _OPERATIONS.get(facts.get("mode", "")) if vendor else None
        if vendor is None or operation is None or _ELSEWHERE.search(key):
            continue
        name = _name(vendor, key)
        if name is None or (vendor, name) in seen or _GONE.match(f"{vendor}/{name}"):
            continue
        if vendor == "fireworks" and operation == "chat" and not facts.get("source"):
            continue  # in none of its lists of serverless models: one would have to deploy it oneself
        if vendor == "voyage" and "multimodal" in name:
            operation = "embed_images"
        if served.get(vendor) and operation not in served[vendor]:
            continue
        if operation in ("transcribe", "speak") and not any("/audio/" in path for path in facts.get("supported_endpoints", ["/audio/"])):
            continue
        ends = facts.get("deprecation_date")
        if ends and ends <= as_of:
            continue
        seen.add((vendor, name))
        yield _row(vendor, name, operation, facts, as_of, source)


def _name(vendor: str, key: str) -> str | None:
    prefix = _VENDORS[vendor][0]
    if prefix:
        return key.removeprefix(prefix) if key.startswith(prefix) else None
    return key.removeprefix(f"{vendor}/")


def _row(vendor: str, name: str, operation: str, facts: Mapping[str, Any], as_of: str, source: str) -> dict[str, Any]:
    page = facts.get("source")
    limits = {ours: facts[ours] for ours in ("rpm", "tpm") if _count(facts.get(ours))}
    row = {
        "provider": vendor,
        "name": name,
        "operations": [operation],
        "context_window": _count(facts.get("max_input_tokens")),
        "output_limit": _count(facts.get("max_output_tokens")) if operation == "chat" else None,
        "dimensions": _count(facts.get("output_vector_size")) if operation in ("embed", "embed_images") else None,
        "capabilities": [ours for ours, theirs in _CAPABILITIES.items() if facts.get(theirs)],
        "price": _price(vendor, name, operation, facts),
        "limits": limits,
        "deprecated": facts.get("deprecation_date"),
        "source": page if isinstance(page, str) and page.startswith("https://") else source,
        "as_of": as_of,
    }
    return {key: value for key, value in row.items() if value not in (None, [], {})}


def _count(figure: Any) -> int | None:
    """A number of tokens or requests; LiteLLM writes some as floats, and some as texts."""
    try:
        return int(figure) or None
    except (TypeError, ValueError, OverflowError):
        return None


def _price(vendor: str, name: str, operation: str, facts: Mapping[str, Any]) -> dict[str, float]:
    if f"{vendor}/{name}" in _CORRECTED:
        return dict(_CORRECTED[f"{vendor}/{name}"])
    if _SEARCHES.search(f"{vendor}/{name}"):
        return {}
    price = {
        ours: round(float(facts[theirs]) * units, 6)
        for ours, theirs, units in _PRICES
        if isinstance(facts.get(theirs), int | float) and facts[theirs] >= 0
    }
    if operation == "chat":
        price |= _long_price(facts)
    if operation == "speak" and facts.get("output_cost_per_audio_token"):
        price["output"] = round(facts["output_cost_per_audio_token"] * 1e6, 6)
    if not any(price.values()):  # all of it nothing: not known, rather than given away
        return {}
    if operation in ("embed", "embed_images", "rerank"):  # these write no tokens: a known 0
        price["output"] = 0.0
        price.pop("batch_output", None)
    return price


def _long_price(facts: Mapping[str, Any]) -> dict[str, float]:
    """What a long request costs, where that is something else; of several lengths the first."""
    lengths = sorted(int(found[1]) for key in facts if (found := _LONG.match(key)) and _dollars(facts[key]))
    if not lengths:
        return {}
    above = f"_above_{lengths[0]}k_tokens"
    long = {ours: round(float(facts[theirs + above]) * 1e6, 6) for ours, theirs in _LONG_PRICES if _dollars(facts.get(theirs + above))}
    return {"long_from": lengths[0] * 1000, **long}


def _dollars(figure: Any) -> bool:
    return isinstance(figure, int | float) and figure > 0
