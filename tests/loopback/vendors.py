"""Who is served, where, and what each does differently in a format that it shares with others."""

from __future__ import annotations

import re

from .answers import Status
from .errors import anthropic as anthropic_errors
from .errors import cohere as cohere_errors
from .errors import gemini as gemini_errors
from .errors import gemini_compat as gemini_compat_errors
from .errors import groq as groq_errors
from .errors import mistral as mistral_errors
from .errors import openai as openai_errors
from .errors import voyage as voyage_errors
from .serving import Dialect, Vendor
from .wires import anthropic, cohere, gemini, openai, voyage


def _unknown_at_openai(name: str) -> Status:
    return openai_errors.error(400, f"Unknown parameter: '{name}'.", code="unknown_parameter", param=name)


def _unknown_at_groq(name: str) -> Status:
    return groq_errors.error(400, f"property '{name}' is unsupported")


_CHAT, _EMBEDDINGS = "/chat/completions", "/embeddings"

# The members are those of the SDKs' own request types: openai 3.52, mistralai 3.7, groq 1.7, seen 2026-11-21.
_OPENAI = Dialect(
    absent=frozenset({"/rerank"}),
    members={
        _CHAT: frozenset(
            "audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens max_tokens messages metadata "
            "modalities model moderation n parallel_tool_calls prediction presence_penalty prompt_cache_key prompt_cache_options "
            "prompt_cache_retention reasoning_effort response_format safety_identifier seed service_tier stop store stream stream_options "
            "temperature tool_choice tools top_logprobs top_p user verbosity web_search_options".split()
        ),
        _EMBEDDINGS: frozenset({"model", "input", "dimensions", "encoding_format", "user"}),
    },
    unknown_member=_unknown_at_openai,
    no_max_tokens=openai_errors.error(
        400,
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
        code="unsupported_parameter",
        param="max_tokens",
    ),
    strict_schemas=True,
    json_word=True,
    refusal_member=True,
)
_MISTRAL = Dialect(
    absent=frozenset({"/rerank"}),
    members={
        _CHAT: frozenset(
            "frequency_penalty guardrails logprobs max_tokens messages metadata min_tokens model n parallel_tool_calls prediction "
            "presence_penalty prompt_cache_key prompt_logprobs prompt_mode random_seed reasoning_effort repetition_penalty "
            "response_format safe_prompt service_tier stop stream temperature tool_choice tools top_k top_logprobs top_p "
            "top_prompt_logprobs".split()
        ),
        _EMBEDDINGS: frozenset({"model", "input", "output_dimension", "output_dtype", "encoding_format", "metadata"}),
    },
    unknown_member=mistral_errors.misfit,
    most_texts=256,
    too_many_texts=mistral_errors.TOO_MANY_INPUTS,
    usage_in_last_chunk="always",
    whole_calls=True,
    short_call_ids=True,
    embeddings_id=True,
    audio="mistral",
    model={"type": "base", "capabilities": {"completion_chat": True, "function_calling": True}},
)
_GROQ = Dialect(
    absent=frozenset({"/rerank", _EMBEDDINGS}),
    members={
        _CHAT: frozenset(
            "citation_options compound_custom disable_tool_validation documents exclude_domains frequency_penalty function_call functions "
            "include_domains include_reasoning logit_bias logprobs max_completion_tokens max_tokens messages metadata model n "
            "parallel_tool_calls presence_penalty reasoning_effort reasoning_format response_format search_settings seed service_tier stop "
            "store stream stream_options temperature tool_choice tools top_logprobs top_p user".split()
        )
    },
    unknown_member=_unknown_at_groq,
    unsupported=("logprobs", "logit_bias", "top_logprobs"),  # https://console.groq.com/docs/openai, 2026-11-21
    json_word=True,
    usage_in_last_chunk="always",
    whole_calls=True,
    x_groq=True,
    usage={"queue_time": 0.0, "prompt_time": 0.0, "completion_time": 0.0, "total_time": 0.0},
    speech="wav",
)
_GEMINI_COMPAT = Dialect(
    absent=frozenset({"/rerank", "/audio/transcriptions", "/audio/speech"}),
    most_texts=100,
    too_many_texts=gemini_compat_errors.TOO_MANY_INPUTS,
    refusal="content_filter",
    usage_in_last_chunk="asked",
    whole_calls=True,
)
_LENIENT = Dialect(refusal_member=True)

_ROOT = Vendor("openai", "/v1", openai, openai_errors, keyless=True, dialect=_LENIENT)
_VENDORS = (
    Vendor("openai", "/openai/v1", openai, openai_errors, dialect=_OPENAI),
    Vendor("anthropic", "/anthropic", anthropic, anthropic_errors, request_id="request-id"),
    Vendor("cohere", "/cohere", cohere, cohere_errors),
    Vendor("voyage", "/voyage/v1", voyage, voyage_errors),
    Vendor("mistral", "/mistral/v1", openai, mistral_errors, dialect=_MISTRAL, request_id="mistral-correlation-id"),
    Vendor("groq", "/groq/openai/v1", openai, groq_errors, dialect=_GROQ),
    Vendor("gemini", "/gemini/v1beta/openai", openai, gemini_compat_errors, dialect=_GEMINI_COMPAT),
    Vendor("gemini", "/gemini", gemini, gemini_errors),
)
_BASES = {"mistral": "/mistral", "groq": "/groq", "gemini": "/gemini"}  # whose SDKs add more to the path than others
_COMPAT = {vendor.name: vendor.root for vendor in reversed(_VENDORS) if vendor.wire is openai}
_OTHER = re.compile(r"/compat/([\w.-]+)/v1(?=/|$)")


def base_of(name: str) -> str:
    """The path that the vendor's own SDK is given."""
    known = {vendor.name: vendor.root for vendor in _VENDORS}
    return _BASES.get(name) or known.get(name) or compat_base_of(name)


def compat_base_of(name: str) -> str:
    """The path for a client that speaks OpenAI's format to the vendor."""
    return _COMPAT.get(name) or f"/compat/{name}/v1"


def vendor_at(path: str) -> tuple[Vendor, str]:
    """Who answers there, and the rest of the path."""
    if path.startswith("/v1/"):
        return _ROOT, path.removeprefix("/v1")
    for vendor in _VENDORS:
        if path.startswith(f"{vendor.root}/"):
            return vendor, path.removeprefix(vendor.root)
    if other := _OTHER.match(path):
        return Vendor(other[1], other[0], openai, openai_errors, keyless=True, dialect=_LENIENT), path.removeprefix(other[0])
    return _ROOT, path
