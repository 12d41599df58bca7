"""Mistral's errors: its own object with a numbered code, and FastAPI's `detail` where the body does not fit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..answers import Json, Status, event
from ..limits import Level, TooFast
from .shared import EMPTY, Errors, broken, html_502, hyphened


def _body(status: int, message: str, kind: str, code: str | None) -> dict[str, Any]:
    return {"object": "error", "message": message, "type": kind, "param": None, "code": code, "raw_status_code": status}


def error(status: int, message: str, kind: str = "invalid_request_error", code: str | None = None, **headers: str) -> Status:
    return Status(status, _body(status, message, kind, code), hyphened(**headers))


def invalid(message: str, *, status: int = 400, param: str | None = None) -> Status:
    return error(status, message)


def misfit(member: str, kind: str = "extra_forbidden", message: str = "Extra inputs are not permitted") -> Status:
    """The 422 for a body that does not fit the schema."""
    return Status(422, {"detail": [{"type": kind, "loc": ["body", member], "msg": message, "input": None}]})


def too_fast(limit: TooFast, told: bool) -> Status:
    hints = {"retry_after": str(math.ceil(limit.wait))} if told else {}
    return error(429, "Rate limit exceeded", "rate_limited", "1300", **hints)


def levels(levels: Mapping[str, Level]) -> dict[str, str]:
    names = {"requests": "req-minute", "tokens": "tokens-minute"}
    headers = {}
    for kind, level in levels.items():
        headers[f"x-ratelimit-limit-{names[kind]}"] = f"{level.limit}"
        headers[f"x-ratelimit-remaining-{names[kind]}"] = f"{level.left}"
    return headers


MISSING_KEY = Status(401, {"detail": "Unauthorized"})
_LONG = "Prompt contains 65673 tokens and 0 draft tokens, too large for model with 32768 maximum context length"
_MANY = "Too many inputs in request, split into more batches."
_FAILED = _body(500, "Internal server error", "internal_server_error", "1000")
ERRORS: Errors = {
    "rate_limited": error(
        429, "Rate limit exceeded", "rate_limited", "1300", x_ratelimit_limit_req_minute="50", x_ratelimit_remaining_req_minute="0"
    ),
    "overloaded": error(503, "Service tier capacity exceeded for this model.", "service_tier_capacity_exceeded", "3505"),
    "bad_key": MISSING_KEY,
    "forbidden": error(403, "This model is not available in your subscription tier", "tier_not_allowed", "1910"),
    "unknown_model": error(400, "Invalid model: mistral-nope", "invalid_model", "1500"),
    "no_credit": Status(402, {"detail": "Inactive subscription or usage limit reached."}),
    "quota_day": None,
    "quota_month": None,
    "context_too_long": error(400, _LONG, code="3051"),
    "content_filter": None,
    "bad_request": misfit("temperature", "less_than_equal", "Input should be less than or equal to 1.5"),
    "batch_too_large": error(400, _MANY, "invalid_request_prompt", "3210"),
    "server_error": Status(500, _FAILED),
    "html_502": html_502(),
    "empty_answer": EMPTY,
    "refusal": None,  # Mistral says no in ordinary words
    **broken(1, event(_FAILED), Json(_FAILED)),
}
TOO_MANY_INPUTS = error(400, _MANY, "invalid_request_prompt", "3210")
