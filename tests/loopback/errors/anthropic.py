"""Anthropic's errors (https://docs.claude.com/en/api/errors, seen 2026-11-21)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from ..answers import Json, Status, event
from ..limits import Level, TooFast
from .shared import EMPTY, REFUSED, Errors, broken, html_502, hyphened

_REQUEST = "req_018EeWyXxfu5pfWkrYcMdjWG"


def _body(kind: str, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": _REQUEST}


def error(status: int, kind: str, message: str, **headers: str) -> Status:
    return Status(status, _body(kind, message), {"request-id": _REQUEST, **hyphened(**headers)})


def invalid(message: str, *, status: int = 400, param: str | None = None) -> Status:
    kind = {404: "not_found_error", 413: "request_too_large"}.get(status, "invalid_request_error")
    return error(status, kind, f"{param}: {message}" if param else message)


def overloaded(should_retry: bool | None = None) -> Status:
    """Anthropic's 529, with x-should-retry where `should_retry` is not None."""
    return error(529, "overloaded_error", "Overloaded", **({} if should_retry is None else {"x_should_retry": str(should_retry).lower()}))


def too_fast(limit: TooFast, told: bool) -> Status:
    unit = {"requests": "requests", "tokens": "input tokens"}[limit.kind]
    message = (
        f"This request would exceed your organization’s rate limit of {limit.limit:,.0f} {unit} per minute. For details, refer to: "
        "https://docs.anthropic.com/en/api/rate-limits; see the response headers for current usage. Please reduce the prompt length or "
        "the maximum tokens requested, or try again later. You may also contact sales at https://www.anthropic.com/contact-sales to "
        "discuss your options for a rate limit increase."
    )
    return error(429, "rate_limit_error", message, **({"retry_after": str(math.ceil(limit.wait))} if told else {}))


def levels(levels: Mapping[str, Level]) -> dict[str, str]:
    headers = {}
    for kind, level in levels.items():
        full = datetime.now(UTC) + timedelta(seconds=level.full_in)
        headers[f"anthropic-ratelimit-{kind}-limit"] = f"{level.limit}"
        headers[f"anthropic-ratelimit-{kind}-remaining"] = f"{level.left}"
        headers[f"anthropic-ratelimit-{kind}-reset"] = full.strftime("%Y-%m-%dT%H:%M:%SZ")
    return headers


def _rate_limited() -> Status:
    refused = too_fast(TooFast("tokens", "claude", 80_000, 80_000, 1, 1.0), told=True)
    left = {"requests": Level(1000, 999, 1.0), "tokens": Level(80_000, 0, 1.0), "input-tokens": Level(40_000, 0, 1.0)}
    return Status(429, refused.body, {**refused.headers, **levels(left), **levels({"output-tokens": Level(8_000, 8_000, 0.0)})})


MISSING_KEY = error(401, "authentication_error", "x-api-key header is required")
_POOR = "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase credits."
_MONTH = "You have reached your specified API usage limits. You will regain access on 2026-12-01 at 00:00 UTC."
_OVERLOADED = _body("overloaded_error", "Overloaded")
ERRORS: Errors = {
    "rate_limited": _rate_limited(),
    "overloaded": overloaded(),
    "bad_key": error(401, "authentication_error", "invalid x-api-key"),
    "forbidden": error(403, "permission_error", "Your API key does not have permission to use the specified resource."),
    "unknown_model": error(404, "not_found_error", "model: claude-nope"),
    "no_credit": error(400, "invalid_request_error", _POOR),
    "quota_day": None,
    "quota_month": error(400, "invalid_request_error", _MONTH),
    "context_too_long": error(400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"),
    "content_filter": error(400, "invalid_request_error", "Output blocked by content filtering policy"),
    "bad_request": error(400, "invalid_request_error", "messages.0.content: Input should be a valid string"),
    "batch_too_large": None,
    "server_error": error(500, "api_error", "Internal server error"),
    "html_502": html_502(),
    "empty_answer": EMPTY,
    "refusal": REFUSED,
    **broken(3, event(_OVERLOADED, "error"), Json(_OVERLOADED)),
}
