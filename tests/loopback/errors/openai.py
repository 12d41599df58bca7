"""OpenAI's errors, and the constructors that the tests of the engine use by name."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..answers import Json, Status, event
from ..limits import Level, TooFast, go_duration
from .shared import EMPTY, REFUSED, Errors, broken, html_502, hyphened


def error(
    status: int, message: str, kind: str = "invalid_request_error", code: str | None = None, param: str | None = None, **headers: str
) -> Status:
    body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return Status(status, body, hyphened(**headers))


def invalid(message: str, *, status: int = 400, param: str | None = None) -> Status:
    return error(status, message, param=param)


def _limit_reached(limit: TooFast, **headers: str) -> Status:
    name = {"tokens": "tokens per min (TPM)", "requests": "requests per min (RPM)"}[limit.kind]
    message = (
        f"Rate limit reached for {limit.model} in organization org-X on {name}: Limit {limit.limit:.0f}, Used {limit.used:.0f}, "
        f"Requested {limit.asked:.0f}. Please try again in {go_duration(limit.wait)}. "
        "Visit https://platform.openai.com/account/rate-limits to learn more."
    )
    return error(429, message, limit.kind, "rate_limit_exceeded", **headers)


def too_fast(limit: TooFast, told: bool) -> Status:
    return _limit_reached(limit, **({"retry_after_ms": str(math.ceil(limit.wait * 1000))} if told else {}))


def levels(levels: Mapping[str, Level]) -> dict[str, str]:
    headers = {}
    for kind, level in levels.items():
        headers[f"x-ratelimit-limit-{kind}"] = f"{level.limit}"
        headers[f"x-ratelimit-remaining-{kind}"] = f"{level.left}"
        headers[f"x-ratelimit-reset-{kind}"] = go_duration(level.full_in)
    return headers


def rate_limited(retry_after_ms: int | None = 60, retry_after: str | None = None) -> Status:
    """OpenAI's 429; `retry_after` (that header verbatim, nonsense welcome) takes the place of the milliseconds."""
    if retry_after is not None:
        return error(429, "Rate limit reached", "requests", "rate_limit_exceeded", retry_after=retry_after)
    wait = retry_after_ms or 0
    hints = {"retry_after_ms": f"{wait}", "x_ratelimit_remaining_tokens": "0", "x_ratelimit_reset_tokens": f"{wait}ms"}
    return _limit_reached(TooFast("tokens", "gpt-4o", 30000, 26107, 3923, wait / 1000), **hints)


def bad_key() -> Status:
    """OpenAI's 401."""
    where = "You can find your API key at https://platform.openai.com/account/api-keys."
    return error(401, f"Incorrect API key provided: sk-abc***. {where}", code="invalid_api_key")


def unknown_model(name: str = "gpt-nope") -> Status:
    """OpenAI's 404 for a model."""
    return error(404, f"The model `{name}` does not exist or you do not have access to it.", code="model_not_found")


def no_credit() -> Status:
    """OpenAI's 429 that no waiting cures."""
    message = (
        "You exceeded your current quota, please check your plan and billing details. For more information on this error, read the "
        "docs: https://platform.openai.com/docs/guides/error-codes/api-errors."
    )
    return error(429, message, "insufficient_quota", "insufficient_quota")


def server_error() -> Status:
    """OpenAI's 500."""
    return error(500, "The server had an error while processing your request. Sorry about that!", "server_error")


def refusal() -> Status:
    """A 200 that says no."""
    message = {"role": "assistant", "content": None, "refusal": "I'm sorry, I can't help with that."}
    choice = {"index": 0, "finish_reason": "content_filter", "message": message}
    return Json({"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 8, "total_tokens": 17}})


def batch_too_large() -> Status:
    """OpenAI's 400 for an embedding batch over the limit."""
    kind = "max_tokens_per_request"
    return error(400, "Requested 1127189 tokens, max 300000 tokens per request", kind, kind)


MISSING_KEY = error(
    401,
    "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth (i.e. Authorization: "
    "Bearer YOUR_KEY). You can obtain an API key from https://platform.openai.com/account/api-keys.",
)
_DAY = (
    "Rate limit reached for gpt-4o in organization org-X on requests per day (RPD): Limit 10000, Used 10000, Requested 1. Please try "
    "again in 8.64s. Visit https://platform.openai.com/account/rate-limits to learn more."
)
_LONG = (
    "This model's maximum context length is 128000 tokens. However, your messages resulted in 130172 tokens. Please reduce the length "
    "of the messages."
)
_SAFETY = (
    "Your request was rejected as a result of our safety system. Your prompt may contain text that is not allowed by our safety system."
)
_IN_STREAM = {"error": {"message": "Overloaded", "type": "overloaded_error", "param": None, "code": None}}
ERRORS: Errors = {
    "rate_limited": rate_limited(),
    "overloaded": error(503, "The engine is currently overloaded, please try again later", "server_error"),
    "bad_key": bad_key(),
    "forbidden": error(403, "You are not allowed to sample from this model"),
    "unknown_model": unknown_model(),
    "no_credit": no_credit(),
    "quota_day": error(429, _DAY, "requests", "rate_limit_exceeded"),
    "quota_month": error(
        429,
        "You've reached your usage limit. See https://platform.openai.com/account/limits.",
        "insufficient_quota",
        "billing_hard_limit_reached",
    ),
    "context_too_long": error(400, _LONG, code="context_length_exceeded", param="messages"),
    "content_filter": error(400, _SAFETY, code="content_policy_violation"),
    "bad_request": error(
        400, "Invalid 'temperature': decimal above maximum value. Expected a value <= 2, but got 9 instead.", param="temperature"
    ),
    "batch_too_large": batch_too_large(),
    "server_error": server_error(),
    "html_502": html_502(),
    "empty_answer": EMPTY,
    "refusal": REFUSED,
    **broken(1, event(_IN_STREAM), Json(_IN_STREAM)),
}
