"""What OpenAI's wire says when it refuses, in the words of the many vendors and servers that speak it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import (
    ContentBlocked,
    InvalidRequest,
    LLMError,
    QuotaSpent,
)
from .bodies import facts
from .headers import retry_after
from .refusals import Refused

__all__ = ["classify_error"]

_NO_CREDIT = {"insufficient_quota", "billing_hard_limit_reached", "credit_balance_exhausted", "billing_not_active"}
#: Gemini's 429 and xAI's 429 and 403 have no code for it: dyad-sh/dyad#3626, continuedev/continue#10740, Anantys-oss/koan#2412; seen
#: 2026-11-21.
_DEPLETED = re.compile(r"credits are depleted|used all available credits", re.I)
#: Groq's 400s that are about the account: songquanpeng/one-api#1764, https://console.groq.com/docs/errors, seen 2026-11-21.
_RESTRICTED, _SPEND_LIMIT = "organization_restricted", "blocked_api_access"
_TOO_LONG = re.compile(
    r"maximum context length|reduce the length of the messages|context_length_exceeded|input token count .* exceeds", re.I
)
#: The last two are Mistral's: chroma-core/chroma#5597, aurelio-labs/semantic-router#297, seen 2026-11-21.
_PER_REQUEST = re.compile(
    r"max(?:imum)?(?: of)? (\d[\d,]*) tokens per request|at most \d+ requests can be in one batch"
    r"|split into more batches|too many tokens in batch",
    re.I,
)
#: Servers that say 500 to a form they cannot follow: ikawrakow/ik_llama.cpp#778, ollama/ollama via datalab-to/marker#984,
#: noonghunna/club-3090#45 (vLLM); seen 2026-11-21.
_NO_SUCH_FORM = re.compile(r"response_format type must be|invalid json schema in format|grammar error: unimplemented", re.I)
_SPENT = re.compile(r"/ month|per day|monthly spending cap", re.I)


def classify_error(status: int, headers: Mapping[str, str], body: bytes) -> LLMError:
    """The branch of ``errors.py`` for a refused request: status first, the vendor's code second, text last."""
    error, code, said = facts(body)
    kind = str(error.get("type") or "")
    refused = Refused(status, headers.get("x-request-id"), retry_after(headers, error), said)

    if 300 <= status < 400:
        return refused.redirected()
    if status == 200:  # an error that came as a success: the body's own number decides
        inner = error.get("code")
        status = inner if isinstance(inner, int) and 400 <= inner < 600 else 0
        if not status:
            return _by_word(code + kind, said, refused) or refused.in_a_success()
    if code in _NO_CREDIT or kind in _NO_CREDIT or status == 402 or (status in (403, 429) and _DEPLETED.search(said)):
        return refused.no_credit()
    if status == 401 or "API_KEY_INVALID" in str(error.get("details", "")):
        return refused.key_refused()
    if code == _SPEND_LIMIT:
        return QuotaSpent(f"the account's spending limit is reached{refused.told}", **refused.facts)
    if status == 403 or code == _RESTRICTED:
        return refused.forbidden()
    if status == 404 or (status == 400 and kind == "invalid_model"):  # Mistral's word for it
        return refused.gone()
    if status in (429, 498, 529) or (status == 413 and "per minute" in said):
        return _too_fast(status, error, said, refused)
    if status == 503 or "overloaded" in code or "capacity" in said.lower():
        return refused.overloaded()
    if status in (408, 504):
        return refused.gave_up()
    if status >= 500 or status in (409, 425):
        if "unsupported value: NaN" in said:  # Ollama: the same text fails every time (ollama/ollama#14657)
            return InvalidRequest("the server cannot embed this text (its vector is not a number)", **refused.facts)
        if _NO_SUCH_FORM.search(said):
            return refused.invalid()
        return refused.fault(status)
    cap = _PER_REQUEST.search(said)
    if status == 413 or code == "max_tokens_per_request" or cap:
        too_large = refused.too_much()
        too_large.limit = int(cap[1].replace(",", "")) if cap and cap[1] else None
        return too_large
    return _by_word(code + kind, said, refused) or refused.invalid()


def _too_fast(status: int, error: Mapping[str, Any], said: str, refused: Refused) -> LLMError:
    quotas: Iterable[Any] = (
        violation.get("quotaId", "")
        for detail in error.get("details") or ()
        if isinstance(detail, dict)
        for violation in detail.get("violations") or ()
        if isinstance(violation, dict)
    )
    if any("PerDay" in str(quota) for quota in quotas) or _SPENT.search(said):
        return QuotaSpent(f"a daily or monthly quota is used up{refused.told}", **refused.facts)
    if status in (413, 429) and "capacity" not in said.lower():
        return refused.too_fast()
    return refused.overloaded()


def _by_word(code: str, said: str, refused: Refused) -> LLMError | None:
    if "content_filter" in code or "content_policy" in code:
        return ContentBlocked("the provider's content filter refused the prompt", **refused.facts)
    if "context_length" in code or _TOO_LONG.search(said):
        return refused.too_long()
    if "overloaded" in code:
        return refused.overloaded()
    if "rate_limit" in code:
        return refused.too_fast()
    if "invalid_api_key" in code or "authentication" in code:
        return refused.key_refused()
    if "credit balance" in said:
        return refused.no_credit()
    return None
