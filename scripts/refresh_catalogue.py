"""Write llmkit/catalogue/models.json from the model data that the litellm wheel carries.

    pip download --no-deps litellm && unzip litellm-*.whl 'litellm/model_prices*'
    python scripts/refresh_catalogue.py litellm/model_prices_and_context_window_backup.json 2026-11-21

Needs genai-prices beside it: a second opinion on every price, and the only one on OpenRouter. What it disagrees about
is printed; the higher of the two prices is kept, so that a budget is not overstepped. A figure nobody gives is null.
"""

import datetime
import json
import sys
from pathlib import Path

from genai_prices.data import providers as second_opinions

TARGET = Path(__file__).parents[1] / "llmkit" / "catalogue" / "models.json"

# Our name of a vendor: the prefix of its keys in litellm's data, its id in genai-prices.
VENDORS = {
    "cerebras": ("cerebras/", "cerebras"),
    "deepseek": ("deepseek/", "deepseek"),
    "fireworks": ("fireworks_ai/", "fireworks"),
    "gemini": ("gemini/", "google"),
    "groq": ("groq/", "groq"),
    "mistral": ("mistral/", "mistral"),
    "ollama": ("ollama/", None),
    "openai": ("", "openai"),
    "openrouter": ("openrouter/", "openrouter"),
    "perplexity": ("perplexity/", "perplexity"),
    "together": ("together_ai/", "together"),
    "xai": ("xai/", "x-ai"),
}

# The vendor's name of a model, and after "=" the canonical names it is also found by.
CHAT = {
    "cerebras": "gpt-oss-120b qwen-3.8-27b=qwen3.8-27b gemma-4-31b",
    "deepseek": "deepseek-flash deepseek-v4-flash deepseek-v4-pro",
    "fireworks": (
        "accounts/fireworks/models/deepseek-v4p1-flash-1017=deepseek-v4.1-flash "
        "accounts/fireworks/models/glm-5p3=glm-5.3 accounts/fireworks/models/glm-5p3-flash=glm-5.3-flash "
        "accounts/fireworks/models/gpt-oss-20b=gpt-oss-20b accounts/fireworks/models/kimi-k3=kimi-k3 "
        "accounts/fireworks/models/qwen3p8-max=qwen3.8-max"
    ),
    "gemini": (
        "gemini-3.8-flash gemini-3.7-flash gemini-3.5-flash-lite gemini-3.1-flash-lite "
        "gemini-3.1-pro-preview=gemini-3.1-pro gemini-2.5-pro gemini-2.5-flash gemini-2.5-flash-lite"
    ),
    "groq": "openai/gpt-oss-120b=gpt-oss-120b openai/gpt-oss-20b=gpt-oss-20b qwen/qwen3.8-27b=qwen3.8-27b",
    "mistral": (
        "mistral-large-4 mistral-large-2512=mistral-large-3 mistral-medium-latest=mistral-medium "
        "mistral-medium-2604=mistral-medium-3.5 mistral-small-latest=mistral-small mistral-small-2603 "
        "ministral-8b-2512=ministral-8b ministral-3b-2512=ministral-3b codestral-2508=codestral"
    ),
    "ollama": ("gpt-oss:20b=gpt-oss-20b llama3.2=llama-3.2-3b llama3.1=llama-3.1-8b qwen3=qwen3-8b gemma3=gemma-3-4b mistral=mistral-7b"),
    "openai": (
        "gpt-6.1-sol gpt-6.1-terra gpt-6-astra gpt-6-sol gpt-6-luna gpt-5.6-sol gpt-5.6-terra gpt-5.6-luna gpt-5.5 "
        "gpt-5.4 gpt-5.4-mini gpt-5.4-nano gpt-5.2 gpt-5.1 gpt-5 gpt-5-mini gpt-5-nano gpt-4.1 gpt-4.1-mini gpt-4o "
        "gpt-4o-mini"
    ),
    "openrouter": (
        "openai/gpt-6.1-sol=gpt-6.1-sol openai/gpt-6-luna=gpt-6-luna openai/gpt-5-mini=gpt-5-mini "
        "openai/gpt-5-nano=gpt-5-nano anthropic/claude-sonnet-5.5=claude-sonnet-5-5 "
        "anthropic/claude-haiku-5.5=claude-haiku-5-5 anthropic/claude-haiku-4.5=claude-haiku-4-5 "
        "google/gemini-3.8-flash=gemini-3.8-flash google/gemini-2.5-flash=gemini-2.5-flash "
        "deepseek/deepseek-v4.1-flash=deepseek-v4.1-flash openai/gpt-oss-120b=gpt-oss-120b"
    ),
    "perplexity": "sonar sonar-pro sonar-reasoning-pro",
    "together": (
        "openai/gpt-oss-120b=gpt-oss-120b deepseek-ai/DeepSeek-V4.1-Flash=deepseek-v4.1-flash "
        "zai-org/GLM-5.3=glm-5.3 zai-org/GLM-5.3-Flash=glm-5.3-flash moonshotai/Kimi-K3=kimi-k3 "
        "Qwen/Qwen3.8-Flash=qwen3.8-flash Qwen/Qwen3.5-9B=qwen3.5-9b"
    ),
    "xai": "grok-4.7 grok-4.6 grok-4.5 grok-4.3",
}

# As above, with the length of the vectors after "#" (from the model's own page or card; litellm has few of them).
EMBED = {
    "fireworks": (
        "accounts/fireworks/models/qwen3-embedding-8b#4096=qwen3-embedding-8b nomic-ai/nomic-embed-text-v1.5#768=nomic-embed-text-v1.5"
    ),
    "gemini": "gemini-embedding-2#3072 gemini-embedding-001#3072",
    "mistral": "mistral-embed#1024 codestral-embed#1536",
    "ollama": ("nomic-embed-text#768=nomic-embed-text-v1.5 mxbai-embed-large#1024 bge-m3#1024 all-minilm#384 embeddinggemma#768"),
    "openai": "text-embedding-3-large#3072 text-embedding-3-small#1536 text-embedding-ada-002#1536",
    "together": "BAAI/bge-base-en-v1.5#768=bge-base-en-v1.5",
}

# For a user who names no model: good and affordable first (an unnamed model must not cost 10 dollars a million tokens),
# the vendor's own service before a reseller, this computer last.
AUTO_CHAT = (
    "gpt-6.1-terra gemini-3.8-flash claude-sonnet-5-5 mistral-medium grok-4.7 gpt-6.1-sol gpt-5.6-terra "
    "deepseek-flash glm-5.3 gpt-oss-120b qwen3.8-27b gpt-6-luna gpt-5.4-mini claude-haiku-5-5 gemini-2.5-flash "
    "glm-5.3-flash deepseek-v4.1-flash gpt-4.1-mini gpt-4o-mini mistral-small gpt-oss-20b sonar qwen3-8b "
    "llama-3.1-8b gemma-3-4b llama-3.2-3b mistral-7b"
)
AUTO_EMBED = (
    "text-embedding-3-small gemini-embedding-2 gemini-embedding-001 text-embedding-3-large mistral-embed "
    "qwen3-embedding-8b bge-m3 embeddinggemma nomic-embed-text-v1.5 mxbai-embed-large bge-base-en-v1.5 all-minilm"
)

CAPABILITIES = {
    "tools": "supports_function_calling",
    "json_schema": "supports_response_schema",
    "vision": "supports_vision",
    "audio_input": "supports_audio_input",
    "pdf_input": "supports_pdf_input",
    "reasoning": "supports_reasoning",
    "prompt_cache": "supports_prompt_caching",
}

# Charge for each search beside the tokens, so that tokens alone are not what an answer costs.
CHARGE_PER_SEARCH = {"perplexity"}


def main(path: str, as_of: str) -> None:
    data = json.loads(Path(path).read_text())
    day = datetime.datetime.fromisoformat(as_of).replace(hour=2, tzinfo=datetime.UTC)  # DeepSeek's dear hours
    models = [
        entry(vendor, operation, word, data, day)
        for operation, chosen in (("chat", CHAT), ("embed", EMBED))
        for vendor, words in chosen.items()
        for word in words.split()
    ]
    models = [model for model in models if model["deprecated"] is None or model["deprecated"] > as_of]
    models.sort(key=lambda model: (model["provider"], model["operations"], model["name"]))
    known = {name for model in models for name in (model["name"], *model["aliases"])}
    priorities = {"auto_model_priority": AUTO_CHAT.split(), "auto_embed_priority": AUTO_EMBED.split()}
    for name in {name for names in priorities.values() for name in names} - known:
        raise SystemExit(f"{name} is in a priority list, but no model has that name")
    source = (
        "Limits, prices and dates from the model data of LiteLLM (MIT licence, copyright Berri AI); prices cross-"
        "checked with, and OpenRouter's taken from, genai-prices (MIT licence, copyright Pydantic Services Inc.); "
        "selection, vector lengths and aliases by llmkit. context_window is the input limit where a vendor counts "
        "input and output apart. Prices are list prices on the day of as_of, for short prompts; null is unknown. "
        "deprecated is the day a model stops to answer, as far as announced. An empty list of capabilities is unknown."
    )
    lines = ",\n".join("    " + json.dumps(model) for model in models)
    head = json.dumps({"as_of": as_of, "source": source, **priorities}, indent=2).rstrip("\n}")
    TARGET.write_text(f'{head},\n  "models": [\n{lines}\n  ]\n}}\n')


def entry(vendor: str, operation: str, word: str, data: dict, day: datetime.datetime) -> dict:
    word, _, aliases = word.partition("=")
    name, _, dimensions = word.partition("#")
    prefix, second_id = VENDORS[vendor]
    facts = {} if vendor == "ollama" else data.get(prefix + name, {})  # limits there are the user's own settings
    second = second_opinion(second_id, name, day)
    if not facts and not second and vendor != "ollama":
        raise SystemExit(f"{vendor}/{name} is in neither source")
    return {
        "provider": vendor,
        "name": name,
        "operations": [operation],
        "context_window": facts.get("max_input_tokens") or second.get("context_window"),
        "output_limit": facts.get("max_output_tokens") if operation == "chat" else None,
        "dimensions": int(dimensions) if dimensions else None,
        "capabilities": [ours for ours, theirs in CAPABILITIES.items() if facts.get(theirs)],
        "price": price(vendor, operation, name, facts, second),
        "deprecated": facts.get("deprecation_date"),
        "aliases": aliases.split(",") if aliases else [],
    }


def price(vendor: str, operation: str, name: str, facts: dict, second: dict) -> dict:
    """US dollars per million tokens."""
    if vendor == "ollama":  # the user's own computer sends no bill
        return {"input": 0.0, "cached_input": 0.0, "output": 0.0}
    if vendor in CHARGE_PER_SEARCH:
        return {"input": None, "cached_input": None, "output": None}
    found = {}
    for ours, theirs in (
        ("input", "input_cost_per_token"),
        ("cached_input", "cache_read_input_token_cost"),
        ("output", "output_cost_per_token"),
    ):
        first = None if facts.get(theirs) is None else round(facts[theirs] * 1e6, 6)
        other = second.get(ours)
        if first is not None and other is not None and first != other:
            print(f"{vendor}/{name} {ours}: litellm {first}, genai-prices {other}", file=sys.stderr)
        found[ours] = max((figure for figure in (first, other) if figure is not None), default=None)
    if operation == "embed":
        found |= {"cached_input": None, "output": 0.0}  # an embedding writes no tokens: a known 0
    return found


def second_opinion(provider_id: str | None, name: str, day: datetime.datetime) -> dict:
    models = next((provider.models for provider in second_opinions if provider.id == provider_id), [])
    model = next((model for model in models if model.id == name.rpartition("models/")[2]), None)
    if model is None:
        return {}
    prices = model.get_prices(day)

    def figure(field: str) -> float | None:
        value = getattr(prices, field)
        return None if value is None else float(getattr(value, "base", value))  # base: the tier of short prompts

    return {
        "context_window": model.context_window,
        "input": figure("input_mtok"),
        "cached_input": figure("cache_read_mtok"),
        "output": figure("output_mtok"),
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
