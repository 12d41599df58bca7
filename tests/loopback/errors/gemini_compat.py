"""Gemini's errors at its OpenAI-compatible address: the same objects, each alone in an array (google-gemini/gemini-cli#6454)."""

from __future__ import annotations

from collections.abc import Mapping

from ..answers import Answer, Json, Status, event
from ..limits import TooFast
from . import gemini
from .shared import Errors, Kind, broken, no_levels

levels = no_levels


def _in_array(answer: Answer | None) -> Answer | None:
    if isinstance(answer, Status) and isinstance(answer.body, dict):
        return Status(answer.code, [answer.body], answer.headers)
    return answer


def _listed(status: Status) -> Status:
    return Status(status.code, [status.body] if isinstance(status.body, dict) else status.body, status.headers)


def invalid(message: str, *, status: int = 400, param: str | None = None) -> Status:
    return _listed(gemini.invalid(message, status=status))


def too_fast(limit: TooFast, told: bool) -> Status:
    return _listed(gemini.too_fast(limit, told))


MISSING_KEY = _listed(gemini.MISSING_KEY)
TOO_MANY_INPUTS = _listed(gemini.TOO_MANY_INPUTS)
_overloaded = [{"error": {"code": 503, "message": "The model is overloaded. Please try again later.", "status": "UNAVAILABLE"}}]
_same: Mapping[Kind, Answer | None] = {kind: _in_array(answer) for kind, answer in gemini.ERRORS.items()}
ERRORS: Errors = {**_same, **broken(1, event(_overloaded[0]), Json(_overloaded))}
