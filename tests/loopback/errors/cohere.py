"""Cohere's errors (https://docs.cohere.com/reference/errors, seen 2026-11-21)."""

from __future__ import annotations

from ..answers import Status, event
from ..limits import TooFast
from .shared import EMPTY, Errors, broken, html_502, hyphened, no_levels

levels = no_levels


def error(status: int, message: str, **headers: str) -> Status:
    return Status(status, {"id": "24e32f6d-b372-4853-85f2-11e65134f032", "message": message}, hyphened(**headers))


def invalid(message: str, *, status: int = 400, param: str | None = None) -> Status:
    return error(status, f"invalid request: {message}" if status == 400 else message)


def too_fast(limit: TooFast, told: bool) -> Status:
    return error(429, _per_minute(f"{limit.limit:.0f}"), **({"x_trial_endpoint_call_limit": f"{limit.limit:.0f}"} if told else {}))


def _per_minute(calls: str) -> str:
    return (
        f"You are using a Trial key, which is limited to {calls} API calls / minute. You can continue to use the Trial key for free or "
        "upgrade to a Production key with higher rate limits at 'https://dashboard.cohere.com/api-keys'. Contact us on "
        "'https://discord.gg/XW44jPfYJu' or email us at support@cohere.com with any questions"
    )


MISSING_KEY = error(401, "no api key supplied")
_LONG = (
    "too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 4292. Try using a shorter prompt, or enabling "
    "prompt truncating. See https://docs.cohere.com/reference/generate for more details."
)
_NO_MODEL = "model 'command-nope' not found, make sure the correct model ID was used and that you have access to the model."
_MONTH = "You are using a Trial key, which is limited to 1000 API calls / month."
_END = {"type": "message-end", "delta": {"error": "an internal error occurred while generating", "finish_reason": "ERROR"}}
ERRORS: Errors = {
    "rate_limited": error(429, _per_minute("10"), x_trial_endpoint_call_limit="10", x_trial_endpoint_call_remaining="0"),
    "overloaded": error(503, "the service is temporarily overloaded, please try again later"),
    "bad_key": error(401, "invalid api token"),
    "forbidden": error(403, "your api key does not have permission to use this resource"),
    "unknown_model": error(404, _NO_MODEL),
    "no_credit": error(402, "Please add or update your payment method at https://dashboard.cohere.com/billing?tab=payment to continue"),
    "quota_day": None,
    "quota_month": error(429, _MONTH),
    "context_too_long": error(400, _LONG),
    "content_filter": None,
    "bad_request": error(400, "invalid request: valid input_type must be provided with the provided model"),
    "batch_too_large": error(400, "invalid request: total number of texts must be at most 96 - received 100"),
    "server_error": error(500, "internal server error, this has been reported to our developers. id 24e32f6d-b372-4853-85f2-11e65134f032"),
    "html_502": html_502(),
    "empty_answer": EMPTY,
    "refusal": None,  # Cohere says no in ordinary words, with finish_reason COMPLETE
    **broken(2, event(_END, "message-end"), error(500, "an internal error occurred while generating")),
}
