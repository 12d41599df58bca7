"""Gemini's errors: google.rpc.Status in JSON (https://ai.google.dev/gemini-api/docs/troubleshooting, seen 2026-11-21)."""

from __future__ import annotations

import math
from typing import Any

from ..answers import Json, Saying, Status, event
from ..content import Said
from ..limits import TooFast
from .shared import EMPTY, REFUSED, Errors, broken, html_502, no_levels

levels = no_levels
_TYPE = "type.googleapis.com/google.rpc."
_STATUSES = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED"}


def _body(code: int, message: str, status: str | None, *details: dict[str, Any]) -> dict[str, Any]:
    error: dict[str, Any] = {"code": code, "message": message, "status": status or _STATUSES[code]}
    return {"error": {**error, "details": list(details)} if details else error}


def error(code: int, message: str, *details: dict[str, Any], status: str | None = None) -> Status:
    return Status(code, _body(code, message, status, *details))


def invalid(message: str, *, status: int = 400, param: str | None = None) -> Status:
    return error(status, message)


def _quota(quota: str, seconds: float) -> tuple[dict[str, Any], dict[str, Any]]:
    return (
        {"@type": f"{_TYPE}QuotaFailure", "violations": [{"quotaId": quota}]},
        {"@type": f"{_TYPE}RetryInfo", "retryDelay": f"{seconds:g}s"},
    )


_EXCEEDED = (
    "You exceeded your current quota, please check your plan and billing details. For more information on this error, head to: "
    "https://ai.google.dev/gemini-api/docs/rate-limits."
)


def too_fast(limit: TooFast, told: bool) -> Status:
    name = {"requests": "GenerateRequestsPerMinutePerProjectPerModel", "tokens": "GenerateContentInputTokensPerModelPerMinute"}[limit.kind]
    return error(429, _EXCEEDED, *(_quota(name, math.ceil(limit.wait * 1000) / 1000) if told else ()))


MISSING_KEY = error(
    403,
    "Method doesn't allow unregistered callers (callers without established identity). Please use API Key or other form of API consumer "
    "identity to call this API.",
)
_BAD_KEY = {"@type": f"{_TYPE}ErrorInfo", "reason": "API_KEY_INVALID", "domain": "googleapis.com"}
_NO_MODEL = (
    "models/gemini-nope is not found for API version v1beta, or is not supported for generateContent. Call ModelService.ListModels to see "
    "the list of available models and their supported methods."
)
_POOR = "Your prepayment credits are depleted. Please go to AI Studio at https://ai.studio/projects to manage your project and billing."
_OVERLOADED = _body(503, "The model is overloaded. Please try again later.", "UNAVAILABLE")
_INTERNAL = "An internal error has occurred. Please retry or report in https://developers.generativeai.google/guide/troubleshooting"
_BATCH = "* BatchEmbedContentsRequest.requests: at most 100 requests can be in one batch"
TOO_MANY_INPUTS = error(400, _BATCH)
ERRORS: Errors = {
    "rate_limited": error(429, _EXCEEDED, *_quota("GenerateRequestsPerMinutePerProjectPerModel-FreeTier", 1)),
    "overloaded": Status(503, _OVERLOADED),
    "bad_key": error(400, "API key not valid. Please pass a valid API key.", _BAD_KEY),
    "forbidden": error(403, "Permission denied: the caller does not have permission."),
    "unknown_model": error(404, _NO_MODEL),
    "no_credit": error(429, _POOR),
    "quota_day": error(429, _EXCEEDED, *_quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier", 38)),
    "quota_month": error(
        429, "Your project has exceeded its monthly spending cap. Please go to AI Studio to manage your project spend cap."
    ),
    "context_too_long": error(400, "The input token count (1048577) exceeds the maximum number of tokens allowed (1048576)."),
    "content_filter": Saying(Said("", reason="filter")),  # a 200 without candidates, with promptFeedback.blockReason
    "bad_request": error(400, "* GenerateContentRequest.generation_config.temperature: temperature must be in the range [0.0, 2.0]."),
    "batch_too_large": TOO_MANY_INPUTS,
    "server_error": error(500, _INTERNAL, status="INTERNAL"),
    "html_502": html_502(),
    "empty_answer": EMPTY,
    "refusal": REFUSED,  # finishReason SAFETY
    **broken(0, event(_OVERLOADED), Json(_OVERLOADED)),
}
