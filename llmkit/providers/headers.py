"""What vendors say in headers and error bodies about waiting and limits, read once for all of them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from ..types import Allowance, Limits

__all__ = ["count", "duration", "read_anthropic_limits", "read_limits", "retry_after", "until"]

_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s|d)")
_UNIT = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

#: Longer than any wait that makes sense; a number beyond it is a fault of the sender, not a wish.
_LONGEST = 40 * 86400.0


def duration(text: str | None) -> float | None:
    """Seconds of a Go-style duration (``"2m59.56s"``, ``"60ms"``) or a plain number; ``None`` for anything else."""
    if not text:
        return None
    text = text.strip()
    parts = _PART.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return _sane(sum(float(number) * _UNIT[unit] for number, unit in parts))
    return _number(text)


def _number(text: str) -> float | None:
    if len(text) > 32 or not re.fullmatch(r"\d+(\.\d+)?", text):
        return None
    return _sane(float(text))


def _sane(seconds: float) -> float | None:
    return seconds if math.isfinite(seconds) and 0 <= seconds <= _LONGEST else None


def retry_after(headers: Mapping[str, str], error: Mapping[str, Any] | None = None) -> float | None:
    """Seconds to wait as asked: Gemini's body, ``retry-after-ms``, then ``retry-after`` in seconds or as a date.

    A date is read against the response's own ``date``, so that a wrong clock here does not matter. Nonsense (``nan``, negative,
    ``"1, 2"``) is no wish at all.
    """
    for detail in (error or {}).get("details") or ():
        if isinstance(detail, Mapping) and str(detail.get("@type", "")).endswith("google.rpc.RetryInfo"):
            asked = duration(str(detail.get("retryDelay", "")))
            if asked is not None:
                return asked
    milliseconds = _number(headers.get("retry-after-ms", "").strip())
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("retry-after", "").strip()
    seconds = duration(text)
    if seconds is not None or not text or not text[:1].isalpha():
        return seconds
    try:
        until, now = parsedate_to_datetime(text), parsedate_to_datetime(headers["date"])
        return _sane(max(0.0, (until - now).total_seconds()))
    except (KeyError, TypeError, ValueError):
        return None


def count(text: str | None) -> int | None:
    """A whole number of a header, ``None`` for anything else."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 16 else None


def until(moment: str | None, headers: Mapping[str, str]) -> float | None:
    """Seconds to a moment in RFC 3339, read against the response's own ``date``, so that a wrong clock here does not matter."""
    try:
        left = datetime.fromisoformat(moment or "") - parsedate_to_datetime(headers["date"])
    except (KeyError, TypeError, ValueError):
        return None
    return _sane(max(0.0, left.total_seconds()))


def read_anthropic_limits(headers: Mapping[str, str]) -> Limits | None:
    """Anthropic's ``anthropic-ratelimit-*``, which keep input and output tokens apart.

    ``tokens`` without a kind are the tightest limit of the moment (platform.claude.com/docs/en/api/rate-limits, seen 2026-11-21), which
    is one of the other two where those are told.
    """
    name = "anthropic-ratelimit"

    def said(kind: str) -> Allowance | None:
        limit = count(headers.get(f"{name}-{kind}-limit"))
        if not limit:
            return None
        return Allowance(limit, count(headers.get(f"{name}-{kind}-remaining")), until(headers.get(f"{name}-{kind}-reset"), headers))

    read, written = said("input-tokens"), said("output-tokens")
    limits = Limits(said("requests"), said("tokens") if read is None and written is None else None, read, written)
    return None if limits == Limits() else limits


def read_limits(headers: Mapping[str, str]) -> Limits | None:
    """OpenAI's ``x-ratelimit-*``, which Groq, Mistral, Together and others copied; Cerebras says ``-day`` and ``-minute`` behind them."""
    if "x-ratelimit-limit-requests" in headers or "x-ratelimit-limit-tokens" in headers:
        return Limits(requests=_openai_like(headers, "requests"), tokens=_openai_like(headers, "tokens"))
    if "x-ratelimit-limit-requests-day" in headers or "x-ratelimit-limit-tokens-minute" in headers:
        requests = _openai_like(headers, "requests-minute") or _openai_like(headers, "requests-day", per_day=True)
        return Limits(requests=requests, tokens=_openai_like(headers, "tokens-minute"))
    return None


def _openai_like(headers: Mapping[str, str], kind: str, per_day: bool = False) -> Allowance | None:
    limit = count(headers.get(f"x-ratelimit-limit-{kind}"))
    if limit is None:
        return None
    left, reset = headers.get(f"x-ratelimit-remaining-{kind}"), headers.get(f"x-ratelimit-reset-{kind}")
    return Allowance(limit, count(left), duration(reset), per_day)
