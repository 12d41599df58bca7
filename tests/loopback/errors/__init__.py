"""What each vendor answers when it does not serve, in its own words: one module a vendor.

Bodies follow recorded exchanges and the vendors' documentation as seen on 2026-11-21; where only a phrase is known, the rest has the
vendor's shape.
"""

from __future__ import annotations

from ..answers import Answer
from . import anthropic, cohere, gemini, gemini_compat, groq, mistral, openai, voyage
from .shared import Errors, Kind, Voice

_VOICES: dict[str, Voice] = {
    "openai": openai,
    "anthropic": anthropic,
    "cohere": cohere,
    "voyage": voyage,
    "mistral": mistral,
    "groq": groq,
    "gemini": gemini,
}


def errors_of(vendor: str, *, compat: bool = False) -> Errors:
    """A vendor's answers by kind of error, of which `error_of` gives one.

    The keys are the same for every vendor, and in the same order, so that a suite can iterate over them; the value is None where
    the vendor has no such thing. `empty_answer`, `refusal`, `error_in_stream` and `truncated_stream` take the shape of whichever
    chat request they meet.

    Parameters
    ----------
    vendor
        Of a vendor that is not known here, OpenAI's.
    compat
        Whether the vendor is spoken to in OpenAI's format; makes a difference for Gemini only.
    """
    if vendor == "gemini" and compat:
        return gemini_compat.ERRORS
    return _VOICES.get(vendor, openai).ERRORS


def error_of(vendor: str, kind: Kind, *, compat: bool = False) -> Answer:
    """One of `errors_of`; KeyError where the vendor has no such thing."""
    answer = errors_of(vendor, compat=compat)[kind]
    if answer is None:
        raise KeyError(f"{vendor} has no {kind}")
    return answer
