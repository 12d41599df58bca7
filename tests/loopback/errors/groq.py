"""Groq's errors: OpenAI's shape without `param` (https://console.groq.com/docs/errors, seen 2026-11-21)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..answers import Json, Status, event
from ..limits import Level, TooFast, go_duration
from .openai import levels as openai_levels
from .shared import EMPTY, Errors, broken, html_502, hyphened


def _body(message: str, kind: str, code: str | None, param: str | None = None) -> dict[str, Any]:
    told = {"message": message, "type": kind, "param": param, "code": code}
    return {"error": {name: value for name, value in told.items() if value is not None}}


def error(status: int, message: str, kind: str = "invalid_request_error", code: str | None = None, **headers: str) -> Status:
    return Status(status, _body(message, kind, code), hyphened(**headers))


def invalid(message: str, *, status: int = 400, param: str | None = None) -> Status:
    return Status(status, _body(message, "invalid_request_error", None, param))


def _reached(unit: str, limit: int, used: int, asked: int, wait: str) -> str:
    return (
        f"Rate limit reached for model gemma2-9b-it in organization org_X service tier on_demand on {unit}: Limit {limit}, Used {used}, "
        f"Requested {asked}. Please try again in {wait}. Visit https://console.groq.com/docs/rate-limits for more information."
    )


def too_fast(limit: TooFast, told: bool) -> Status:
    unit = {"requests": "requests per minute (RPM)", "tokens": "tokens per minute (TPM)"}[limit.kind]
    message = _reached(unit, round(limit.limit), round(limit.used), round(limit.asked), go_duration(limit.wait))
    hints = {"retry_after": str(math.ceil(limit.wait))} if told else {}
    return error(429, message, limit.kind, "rate_limit_exceeded", **hints)


def levels(levels: Mapping[str, Level]) -> dict[str, str]:
    return openai_levels(levels)


def groq_rate_limited() -> Status:
    """Groq's 429, with its whole set of x-ratelimit headers."""
    names = ("limit-requests", "limit-tokens", "remaining-tokens", "reset-requests", "reset-tokens")
    values = zip(names, ("14400", "15000", "3028", "2m59.56s", "5.289s"), strict=True)
    hints = {f"x-ratelimit-{name}": value for name, value in values}
    message = _reached("tokens per minute (TPM)", 15000, 11972, 4351, "5.289s")
    return error(429, message, "tokens", "rate_limit_exceeded", retry_after="6", **hints)


MISSING_KEY = error(401, "Invalid API Key", code="invalid_api_key")
_FAILED = _body("Internal Server Error", "internal_server_error", None)
_DAY = _reached("tokens per day (TPD)", 100_000, 99_871, 1_000, "12m32.544s")
ERRORS: Errors = {
    "rate_limited": groq_rate_limited(),
    "overloaded": error(498, "The `flex` tier capacity exceeded", "capacity", "capacity_exceeded"),
    "bad_key": MISSING_KEY,
    "forbidden": error(403, "Access denied. Please check your network settings.", "permissions_error", "permissions_error"),
    "unknown_model": error(404, "The model `llama-nope` does not exist or you do not have access to it.", code="model_not_found"),
    "no_credit": error(
        400,
        "Organization has been restricted. Please reach out to support if you believe this was in error.",
        code="organization_restricted",
    ),
    "quota_day": error(429, _DAY, "tokens", "rate_limit_exceeded", retry_after="753"),
    "quota_month": error(400, "Spend limit reached. Please raise it in the console's billing settings.", code="blocked_api_access"),
    "context_too_long": Status(
        400,
        _body("Please reduce the length of the messages or completion.", "invalid_request_error", "context_length_exceeded", "messages"),
    ),
    "content_filter": None,
    "bad_request": error(400, "'temperature' : must be less than or equal to 2"),
    "batch_too_large": None,  # Groq serves no embeddings
    "server_error": Status(500, _FAILED),
    "html_502": html_502(),
    "empty_answer": EMPTY,
    "refusal": None,  # the models of Groq say no in ordinary words
    **broken(1, event(_FAILED, "error"), Json(_FAILED)),
}
