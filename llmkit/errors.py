"""What can go wrong, and the one thing to do about each.

The branch an error stands on *is* the policy: the retry layer has one ``except`` per branch and knows no status codes::

    LLMError                     provider, model, status, request_id, retry_after
    ├─ ConfigError      RAISE    nothing was sent: UnknownModel, MissingKey, MissingExtra, Unsupported, BadInput
    ├─ RequestError     KEEP     this row is refused: InvalidRequest, BatchTooLarge, ContextTooLong, ContentBlocked,
    │                            Truncated, BadOutput
    ├─ AccessError      SHUT     the account is refused: KeyRejected, OutOfCredit, QuotaSpent, ModelGone, Untrusted
    ├─ Busy             SLOW     RateLimited, Overloaded
    └─ Unreachable      RETRY    TimedOut, ConnectionLost, ServerFault
    BudgetReached                the run stopped at max_cost; finished rows are kept
    DiskFull                     the run stopped where nothing could be written any more; finished rows are kept
    Cancelled                    the row was not sent because the run was stopped
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import copy
from typing import Any

__all__ = [
    "AccessError",
    "BadInput",
    "BadOutput",
    "BatchTooLarge",
    "BudgetReached",
    "Busy",
    "Cancelled",
    "ConfigError",
    "ConnectionLost",
    "ContentBlocked",
    "ContextTooLong",
    "DiskFull",
    "InvalidRequest",
    "KeyRejected",
    "LLMError",
    "MissingExtra",
    "MissingKey",
    "ModelGone",
    "OutOfCredit",
    "Overloaded",
    "QuotaSpent",
    "RateLimited",
    "RequestError",
    "ServerFault",
    "TimedOut",
    "Truncated",
    "UnknownModel",
    "Unreachable",
    "Unsupported",
    "Untrusted",
]


class LLMError(Exception):
    """Something between a row and its answer went wrong.

    Parameters
    ----------
    message : str
        What failed and the next step, in one line. Never a key, a prompt or a response body.
    provider, model : str, optional
        Who was asked.
    status : int, optional
        HTTP status, where there was an answer.
    request_id : str, optional
        The provider's own number for the request, for their support desk.
    retry_after : float, optional
        Seconds the provider asked to wait.
    kind : str, optional
        A finer name than the class, e.g. ``"refusal"`` for a ContentBlocked that the model itself spoke.
    usage : Usage, optional
        What the failed request was billed, where the provider said so.

    Attributes
    ----------
    again : bool
        False where the provider says that trying again will not help (``x-should-retry: false``).
    lost : bool
        The request had left and no answer can be read: it may have been billed all the same.
    limits : Limits or None
        What the headers of the refusal said of the account.
    of_form : bool
        What is refused may be the way that a structured answer was asked for, and not what was asked.
    """

    #: The default of ``kind``; each class names its own.
    code = "error"

    def __init__(
        self,
        message: str = "",
        *,
        provider: str | None = None,
        model: str | None = None,
        status: int | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        kind: str | None = None,
        usage: Any = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.provider = provider
        self.model = model
        self.status = status
        self.request_id = request_id
        self.retry_after = retry_after
        self.kind = kind or self.code
        self.usage = usage
        self.again = True
        self.lost = False
        self.limits: Any = None
        self.of_form = False

    def __str__(self) -> str:
        who = "/".join(part for part in (self.provider, self.model) if part)
        return f"{who}: {self.message}" if who and who not in self.message else self.message


class ConfigError(LLMError, ValueError):
    """The call cannot work as it is written; nothing was sent and nothing was paid."""

    code = "config"


class UnknownModel(ConfigError):
    """No such model or provider; the message names the nearest."""

    code = "unknown_model"


class MissingKey(ConfigError):
    """The provider needs an API key and none was found."""

    code = "missing_key"


class MissingExtra(ConfigError, ImportError):
    """An optional package is not installed; the message holds the line that installs it."""

    code = "missing_extra"


class Unsupported(ConfigError):
    """The model or provider does not do this operation or option."""

    code = "unsupported"


class BadInput(ConfigError):
    """The frame or an argument cannot be sent as it is: an unknown column, bytes where text is meant, ..."""

    code = "bad_input"


class RequestError(LLMError):
    """The provider refuses this row; the other rows go on."""

    code = "request"


class InvalidRequest(RequestError):
    code = "invalid_request"


class BatchTooLarge(RequestError):
    """Too much in one HTTP call; halved until it fits. ``limit`` is the provider's cap in tokens, where it says so."""

    code = "batch_too_large"
    limit: int | None = None


class ContextTooLong(RequestError):
    code = "context_too_long"


class ContentBlocked(RequestError):
    """A filter or the model itself declined; ``kind`` is ``"content_filter"`` or ``"refusal"``."""

    code = "content_filter"


class Truncated(RequestError):
    """The answer ended at the token limit before it was usable."""

    code = "truncated"


class BadOutput(RequestError):
    """An answer came that is none: empty, not a number, of the wrong length."""

    code = "bad_output"


class AccessError(LLMError):
    """The account, not the row, is refused: the next target is tried, or the rest of the run fails at once."""

    code = "access"


class KeyRejected(AccessError):
    code = "key_rejected"


class OutOfCredit(AccessError):
    code = "out_of_credit"


class QuotaSpent(AccessError):
    """A quota that time alone will not give back during this run (a day's, a month's)."""

    code = "quota_spent"


class ModelGone(AccessError):
    code = "model_gone"


class Untrusted(AccessError):
    """The server's TLS certificate could not be verified. Verification is never switched off."""

    code = "untrusted_tls"


class Busy(LLMError):
    """Too fast for the account or the provider; costs time. ``per_minute`` is the limit in requests, where only the refusal tells it."""

    code = "busy"
    per_minute: float | None = None


class RateLimited(Busy):
    code = "rate_limited"


class Overloaded(Busy):
    code = "overloaded"


class Unreachable(LLMError):
    """No usable answer came; tried again after a while."""

    code = "unreachable"


class TimedOut(Unreachable):
    code = "timeout"


class ConnectionLost(Unreachable):
    code = "connection"


class ServerFault(Unreachable):
    """A 5xx, or a 200 whose body is no answer (``kind="bad_response"``)."""

    code = "server"


class BudgetReached(LLMError):
    """The run stopped because the next request could have passed ``max_cost``; finished rows are kept."""

    code = "budget"


class DiskFull(LLMError):
    """There is no room for a part of the result. Nothing that was paid for is lost: with room made, the same call goes on."""

    code = "disk_full"


class Cancelled(LLMError):
    """The row was not sent because the run was stopped."""

    code = "cancelled"


def all_failed(errors: Sequence[LLMError]) -> LLMError:
    """One error for several models of which none answered: of the last one's kind, and saying what became of each.

    A model that could never have served the call says nothing of why it failed: its kind is taken where there is no other.
    """
    if len(errors) == 1:
        return errors[0]
    made = copy(next((error for error in reversed(errors) if not isinstance(error, ConfigError)), errors[-1]))
    made.message = f"all {len(errors)} models failed: {'; '.join(map(str, errors))}"
    made.args = (made.message,)
    return made


_KEY_LIKE = re.compile(r"(?i)\b(?:sk|pk|gsk|xai|key|al|pa|co|r8|hf|AIza)[-_][^\s'\"<>,;]{6,}|bearer\s+\S+|AIza\S{10,}")
_MARKUP = re.compile(r"<(script|style)\b.*?</\1\s*>|<[^>]*>", re.DOTALL | re.IGNORECASE)
_LONGEST = 240
_SHINGLE = 12


def one_line(text: object) -> str:
    """A vendor's sentence made fit for a message: no markup, nothing like a key, one line, at most 240 characters."""
    plain = _MARKUP.sub(" ", str(text)[:4000])
    plain = " ".join(_KEY_LIKE.sub("[key]", plain).split())
    return plain if len(plain) <= _LONGEST else plain[: _LONGEST - 1] + "…"


def repeats(message: str, texts: list[str]) -> bool:
    """Whether a vendor's message quotes what was sent to it.

    Vendors echo parts of a prompt in their refusals. Any run of 12 characters that stands in both counts; a message that
    merely shares a phrase with the prompt is dropped too, which costs an explanation and never a secret.
    """
    windows = [message[i : i + _SHINGLE] for i in range(max(0, len(message) - _SHINGLE + 1))]
    short = [text for text in texts if 4 <= len(text) < _SHINGLE]
    return any(text in message for text in short) or any(w in text for text in texts for w in windows if len(text) >= _SHINGLE)
