"""The rows of providers.toml and models.json, and how they are found."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

import pytest

import llmkit
from llmkit.catalogue import Catalogue
from llmkit.providers.dialects import DIALECTS, MODES
from llmkit.providers.job_protocols import PROTOCOLS
from llmkit.settings import is_loopback
from llmkit.types import Model, Price, Provider

SHIPPED = Catalogue()
VENDORS = {name: row for name, row in SHIPPED._toml.items() if isinstance(row, dict)}
MODELS = SHIPPED._json["models"]

QUIRKS: dict[str, Any] = {
    "embed_encoding": lambda value: value in ("float", "base64"),
    "embed_batch": lambda value: type(value) is int and value > 0,
    "embed_batch_tokens": lambda value: type(value) is int and value > 0,
    "token_limit_field": lambda value: value in ("max_tokens", "max_completion_tokens"),
    "request_limit_window": lambda value: value in ("minute", "day"),
    "seed_field": lambda value: value in ("seed", "random_seed"),
    "dimensions_field": lambda value: value in ("dimensions", "output_dimension"),
    "stream_options": lambda value: type(value) is bool,
    "tool_required": lambda value: value in ("required", "any"),
    "structured": lambda value: value in ("json_schema", "json_object", "tool"),
    "structured_lacks": lambda value: bool(value) and set(value) < set(MODES),
    "schemas": lambda value: value in DIALECTS,
    "strict_models": lambda value: isinstance(value, str) and bool(value),
    "logprobs": lambda value: type(value) is bool,
    "image_urls": lambda value: type(value) is bool,
    "voice": lambda value: isinstance(value, str) and bool(value),
    "jobs": lambda value: value == "" or value in PROTOCOLS,
    "job_operations": lambda value: bool(value) and set(value) < {"chat", "embed"},
    "job_requests": lambda value: type(value) is int and value > 0,
    "job_bytes": lambda value: type(value) is int and value > 0,
    "prompt_cache": lambda value: value in ("anthropic", "openai", "openrouter", "mistral", "groq", "deepseek"),
}
FIELDS = {"protocol", "base_url", "key_env", "base_url_env", "key_optional", "port", "status"}
FIELDS |= {"retired", "successor", "console", "docs", "quirks", "operations", "extra"}
OPERATIONS = {"chat", "embed", "embed_images", "rerank", "classify", "transcribe", "speak"}

every_vendor = pytest.mark.parametrize(("name", "row"), VENDORS.items(), ids=VENDORS)

# --------------------------------------------------------------------------------------------------------------- providers


def test_vendors_stand_in_alphabetical_order() -> None:
    assert list(VENDORS) == sorted(VENDORS)


@every_vendor
def test_a_vendor_has_only_fields_that_are_described(name: str, row: dict[str, Any]) -> None:
    assert set(row) <= FIELDS
    assert {"protocol", "base_url", "key_env", "base_url_env", "key_optional", "status"} <= set(row)


@every_vendor
def test_a_vendor_has_only_quirks_that_are_known(name: str, row: dict[str, Any]) -> None:
    for quirk, value in row.get("quirks", {}).items():
        assert QUIRKS[quirk](value), quirk


@every_vendor
def test_a_vendor_is_reached_by_https_or_is_this_computer(name: str, row: dict[str, Any]) -> None:
    url = row["base_url"]
    assert url.startswith("https://") or is_loopback(url) or (url == "" and row["status"] == "retired")
    assert not url.endswith("/")
    assert urlsplit(url).query == ""


@every_vendor
def test_a_vendor_names_the_variables_that_may_hold_its_key(name: str, row: dict[str, Any]) -> None:
    assert row["key_env"]
    for variable in (*row["key_env"], *row["base_url_env"]):
        assert variable.isupper()
        assert variable.isidentifier()


@every_vendor
def test_only_a_server_on_this_computer_needs_no_key(name: str, row: dict[str, Any]) -> None:
    assert row["key_optional"] is is_loopback(row["base_url"])
    assert ("port" in row) is is_loopback(row["base_url"])


@every_vendor
def test_a_retired_vendor_says_when_and_what_instead(name: str, row: dict[str, Any]) -> None:
    assert row["status"] in ("alive", "unverified", "retired")
    assert ("retired" in row) is (row["status"] == "retired")
    if row["status"] == "retired":
        datetime.date.fromisoformat(row["retired"][:10])
        assert row.get("successor", "openai") in VENDORS


@every_vendor
def test_a_vendors_pages_are_reached_by_https(name: str, row: dict[str, Any]) -> None:
    assert all(row[page] == "" or row[page].startswith("https://") for page in ("console", "docs"))


@every_vendor
def test_a_vendor_speaks_a_wire_format_that_there_is(name: str, row: dict[str, Any]) -> None:
    __import__(f"llmkit.providers.{row['protocol']}")


def test_a_port_belongs_to_one_vendor_and_is_looked_at() -> None:
    ports = [row["port"] for row in VENDORS.values() if "port" in row]
    assert len(set(ports)) == len(ports)
    assert set(ports) <= {row["port"] for row in SHIPPED.local_ports}
    assert all(urlsplit(row["base_url"]).port == row["port"] for row in VENDORS.values() if "port" in row)


@every_vendor
def test_a_vendor_serves_operations_that_its_wire_can_ask(name: str, row: dict[str, Any]) -> None:
    operations = row.get("operations", [])
    assert set(operations) <= OPERATIONS
    assert len(set(operations)) == len(operations)
    # A vendor says what it serves; a server of one's own, or one that is no more, has whatever is there.
    assert bool(operations) or row["key_optional"] or row["status"] == "retired"


def test_infinity_has_no_chat() -> None:
    infinity = SHIPPED.provider("infinity")
    assert infinity is not None
    assert infinity.operations == ("embed", "rerank")
    assert infinity.base_url == "http://127.0.0.1:7997"


def test_a_vendor_becomes_a_provider_with_all_of_its_row() -> None:
    mistral = SHIPPED.provider("mistral")
    assert mistral is not None
    assert mistral.key_env == ("MISTRAL_API_KEY",)
    assert mistral.quirks["embed_batch_tokens"] == 16000


# ------------------------------------------------------------------------------------------------------------------ models


def wrong(fine: Callable[[dict[str, Any]], bool]) -> list[str]:
    """The models of which something does not hold."""
    return [f"{row['provider']}/{row['name']}" for row in MODELS if not fine(row)]


def test_a_model_belongs_to_a_vendor_that_is_not_retired() -> None:
    assert wrong(lambda row: VENDORS[row["provider"]]["status"] != "retired") == []


def test_a_model_does_what_its_vendor_serves() -> None:
    assert wrong(lambda row: bool(row["operations"])) == []
    assert wrong(lambda row: set(row["operations"]) <= set(VENDORS[row["provider"]].get("operations", OPERATIONS))) == []


def test_a_price_is_unknown_or_no_less_than_nothing() -> None:
    assert wrong(lambda row: set(row.get("price", {})) <= set(Price.__dataclass_fields__)) == []
    assert wrong(lambda row: all(0 <= value < 1000 for name, value in row.get("price", {}).items() if name != "long_from")) == []


def test_a_price_of_nothing_is_only_that_of_ones_own_computer() -> None:
    assert wrong(lambda row: row["provider"] == "ollama" or "price" not in row or any(row["price"].values())) == []


def test_windows_and_lengths_are_whole_and_positive_or_unknown() -> None:
    counts = ("context_window", "output_limit", "dimensions")
    assert wrong(lambda row: all(type(row[name]) is int and row[name] > 0 for name in counts if name in row)) == []


def test_only_what_embeds_has_a_length_of_vectors() -> None:
    assert wrong(lambda row: "dimensions" not in row or row["operations"][0] in ("embed", "embed_images")) == []


def test_a_model_ends_after_the_day_of_the_list() -> None:
    assert wrong(lambda row: datetime.date.fromisoformat(row.get("deprecated", "9999-01-01")).isoformat() > SHIPPED._json["as_of"]) == []


def test_a_row_has_fields_of_a_model_and_says_who_says_so_and_when() -> None:
    assert wrong(lambda row: set(row) <= set(Model.__dataclass_fields__) - {"aliases"}) == []
    assert wrong(lambda row: bool(row["source"]) and row["as_of"] == SHIPPED._json["as_of"]) == []


def test_a_row_is_one_line_and_the_file_is_small() -> None:
    path = files("llmkit.catalogue").joinpath("models.json")
    lines = path.read_text("utf-8").splitlines()
    assert len(path.read_bytes()) < 600_000
    assert sum('"provider"' in line for line in lines) == len(MODELS) == len({line for line in lines if '"provider"' in line})


def test_a_model_has_one_row() -> None:
    names = [(row["provider"], row["name"]) for row in MODELS]
    assert len(set(names)) == len(names)


def test_where_the_figures_come_from_is_credited() -> None:
    assert "LiteLLM" in SHIPPED._json["source"]
    assert "MIT" in SHIPPED._json["source"]


@pytest.mark.parametrize(
    ("name", "price"),
    [
        ("openai/gpt-4.1-mini", Price(0.4, 0.1, 1.6, batch_input=0.2, batch_output=0.8)),
        ("openai/whisper-1", Price(audio_minute=0.006)),
        ("openai/tts-1", Price(million_characters=15.0)),
        ("openai/text-embedding-3-small", Price(0.02, output=0.0, batch_input=0.01)),
        ("cohere/rerank-v3.5", Price(0.0, output=0.0, thousand_searches=2.0)),
        ("voyage/voyage-4", Price(0.06, output=0.0)),
        ("anthropic/claude-haiku-4-5", Price(1.0, 0.1, 5.0, 1.25, 0.5, 2.5)),
        ("perplexity/sonar", Price()),
        ("ollama/qwen3", Price(0.0, 0.0, 0.0)),
    ],
)
def test_a_price_is_in_our_units(name: str, price: Price) -> None:
    assert SHIPPED.model(*name.split("/", 1)).price == price


def test_one_minute_of_whisper_at_groq_costs_a_fraction_of_a_cent() -> None:
    assert SHIPPED.model("groq", "whisper-large-v3").price.audio_minute == pytest.approx(0.111 / 60, rel=0.01)


@pytest.mark.parametrize("operation", ["chat", "embed", "rerank", "transcribe", "speak"])
def test_every_name_in_the_order_of_preference_is_a_model_that_does_it(operation: str) -> None:
    assert len(SHIPPED.priority(operation)) == len(set(SHIPPED.priority(operation))) >= 3
    for name in SHIPPED.priority(operation):
        assert any(operation in model.operations for model in SHIPPED.named(name)), name


def test_no_order_of_preference_is_no_error() -> None:
    assert SHIPPED.priority("classify") == []


# ----------------------------------------------------------------------------------------------------------------- looking


def test_a_model_that_no_row_knows_is_made_of_its_name() -> None:
    model = SHIPPED.model("openai", "gpt-of-tomorrow")
    assert (str(model), model.price, model.context_window, model.operations) == ("openai/gpt-of-tomorrow", Price(), None, ())


def test_a_canonical_name_is_found_at_every_provider_that_has_it() -> None:
    providers = [model.provider for model in SHIPPED.named("gpt-oss-120b")]
    assert providers[:3] == ["cerebras", "groq", "openrouter"]
    assert providers[-1] == "replicate", "one that may not answer comes last"


def test_a_name_that_nobody_has_is_found_nowhere() -> None:
    assert SHIPPED.named("no-such-model") == []


def test_a_provider_that_is_added_goes_before_one_that_is_shipped() -> None:
    catalogue = Catalogue()
    catalogue.add(Provider("openai", "http://127.0.0.1:9/v1"))
    found = catalogue.provider("openai")
    assert found is not None
    assert found.base_url == "http://127.0.0.1:9/v1"
    assert catalogue.provider_names().count("openai") == 1


@pytest.mark.parametrize(
    ("name", "near"), [("gpt-4.1-mimi", "openai/gpt-4.1-mini"), ("text-embeding-3-small", "openai/text-embedding-3-small")]
)
def test_a_misspelt_model_is_told_the_nearest(name: str, near: str) -> None:
    assert near in str(SHIPPED.unknown(name))


def test_a_name_like_no_other_is_told_no_nearest() -> None:
    assert "Did you mean" not in str(SHIPPED.unknown("zzzzzzzz"))


def test_a_misspelt_provider_is_told_the_nearest_and_all() -> None:
    message = str(SHIPPED.unknown("mistrall/x", "mistrall"))
    assert 'Did you mean "mistral"?' in message
    assert "add_provider" in message


# ----------------------------------------------------------------------------------------------------------------- merging


def test_what_is_merged_wins_over_what_is_shipped() -> None:
    catalogue = Catalogue()
    catalogue.merge([{"provider": "openai", "name": "gpt-4.1-mini", "price": {"input": 7.0, "output": 8.0}}])
    assert catalogue.model("openai", "gpt-4.1-mini").price.input == 7.0


def test_what_a_row_does_not_say_stays_as_it_was_known() -> None:
    catalogue = Catalogue()
    known = catalogue.model("openai", "gpt-4.1-mini")
    catalogue.merge([{"provider": "openai", "name": "gpt-4.1-mini", "price": {"input": 7.0}}])
    merged = catalogue.model("openai", "gpt-4.1-mini")
    assert (merged.context_window, merged.operations, merged.aliases) == (known.context_window, known.operations, known.aliases)
    assert (merged.price.input, merged.price.output) == (7.0, known.price.output)


def test_a_second_merge_adds_to_the_first() -> None:
    catalogue = Catalogue()
    catalogue.merge([{"provider": "lab", "name": "x", "price": {"input": 1.0}}])
    catalogue.merge([{"provider": "lab", "name": "x", "context_window": 100}])
    assert catalogue.model("lab", "x") == Model("lab", "x", context_window=100, price=Price(input=1.0))


def test_a_merged_model_is_found_by_its_alias() -> None:
    catalogue = Catalogue()
    catalogue.merge([{"provider": "lab", "name": "x", "aliases": ["my-model"]}])
    assert [str(model) for model in catalogue.named("my-model")] == ["lab/x"]


def test_a_price_of_nothing_is_known_to_be_nothing() -> None:
    catalogue = Catalogue()
    catalogue.merge([{"provider": "lab", "name": "x", "price": {"input": 0, "output": 0}}])
    assert catalogue.model("lab", "x").price == Price(0, None, 0)


@pytest.mark.parametrize(
    ("row", "cure"),
    [
        ({"name": "x"}, 'at least "provider" and "name"'),
        ({"provider": "lab"}, 'at least "provider" and "name"'),
        ({"provider": "lab", "name": 3}, "each a text"),
        ("lab/x", "a mapping"),
        ({"provider": "lab", "name": "x", "prise": {}}, "did you mean 'price'?"),
        ({"provider": "lab", "name": "x", "price": {"imput": 1}}, "did you mean 'input'?"),
        ({"provider": "lab", "name": "x", "price": 3}, "the price of x is a mapping"),
        ({"provider": "lab", "name": "x", "price": {"input": -1}}, "dollars per million tokens, not -1"),
        ({"provider": "lab", "name": "x", "price": {"input": "1"}}, "dollars per million tokens, not '1'"),
    ],
)
def test_a_row_that_is_misspelt_is_an_error_and_nothing_of_it_is_merged(row: Any, cure: str) -> None:
    catalogue = Catalogue()
    with pytest.raises(llmkit.BadInput, match=cure):
        catalogue.merge([{"provider": "lab", "name": "good", "context_window": 5}, row])
    assert catalogue.model("lab", "good").context_window is None


def test_the_public_merge_reaches_every_session() -> None:
    llmkit.catalogue.merge({"models": [{"provider": "echo", "name": "other", "context_window": 5}]})
    assert llmkit.catalogue.default.model("echo", "other").context_window == 5
