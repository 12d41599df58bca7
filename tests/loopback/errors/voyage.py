"""Voyage's errors: a status and a `detail` (https://docs.voyageai.com/docs/error-codes, seen 2026-11-21)."""

from __future__ import annotations

from typing import Any

from ..answers import Status
from ..limits import TooFast
from .shared import Errors, html_502, no_levels

levels = no_levels


def error(status: int, detail: str | list[Any]) -> Status:
    return Status(status, {"detail": detail})


def invalid(message: str, *, status: int = 400, param: str | None = None) -> Status:
    return error(status, message)


_LIMITED = (
    "You have not yet added your payment method in the billing page and will have reduced rate limits of 3 RPM and 10K TPM. To unlock our "
    "standard rate limits, please add a payment method in the billing page for the appropriate organization in the user dashboard "
    "(https://dashboard.voyageai.com/). Even with payment methods entered, the free tokens (200M tokens for Voyage series 3) will still "
    "apply. After adding a payment method, you should see your rate limits increase after several minutes. See our pricing docs "
    "(https://docs.voyageai.com/docs/pricing) for the free tokens for your model."
)


def too_fast(limit: TooFast, told: bool) -> Status:
    return error(429, _LIMITED)


MISSING_KEY = error(401, "Authorization header missing")
ERRORS: Errors = {
    "rate_limited": error(429, _LIMITED),
    "overloaded": error(503, "The service is temporarily unavailable due to high load. Please try again later."),
    "bad_key": error(401, "Provided API key is invalid."),
    "forbidden": error(403, "Your IP address is not allowed to use this API key."),
    "unknown_model": error(
        400, "Model voyage-nope is not supported. Supported models are ['voyage-4', 'voyage-4-large', 'voyage-4-lite']."
    ),
    "no_credit": error(403, "Your account has run out of credit."),
    "quota_day": None,
    "quota_month": None,
    "context_too_long": error(
        400,
        "Request to model 'voyage-4' failed. The example at index 0 in your batch has too many tokens and does not fit into the model's "
        "context window of 32000 tokens. Please lower the number of tokens in the listed example(s) or use truncation.",
    ),
    "content_filter": None,
    "bad_request": error(400, "Argument 'input_type' must be one of 'query', 'document' or null."),
    "batch_too_large": error(
        400,
        "Request to model 'voyage-3' failed. The max allowed tokens per submitted batch is 120000. Your batch has 187609 tokens after "
        "truncation. Please lower the number of tokens in the batch.",
    ),
    "server_error": error(500, "An unexpected error occurred on our server. Please try again later."),
    "html_502": html_502(),
    "empty_answer": Status(200, {"object": "list", "data": [], "model": "voyage-4", "usage": {"total_tokens": 1}}),
    "refusal": None,
    "error_in_stream": None,
    "truncated_stream": None,
}
