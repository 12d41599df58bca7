"""What the vendors' errors have in common: their kinds, and the faults that are nobody's wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

from ..answers import Answer, Breaking, Saying, Status
from ..content import Said
from ..limits import Level, TooFast

Kind = Literal[
    "rate_limited",  # wait, and it works; with the vendor's headers
    "overloaded",  # the vendor's trouble, not the account's
    "bad_key",
    "forbidden",
    "unknown_model",
    "no_credit",  # no waiting cures it
    "quota_day",
    "quota_month",
    "context_too_long",
    "content_filter",  # the prompt was refused before an answer was made
    "bad_request",
    "batch_too_large",  # more texts, or more tokens, than one embeddings request may have
    "server_error",
    "html_502",
    "empty_answer",  # 200, and nothing in it
    "refusal",  # 200, and the model says no
    "error_in_stream",  # 200, two pieces of text, and an error event; whole for a request that is not streamed
    "truncated_stream",  # 200, two pieces of text, and the connection is gone
]
Errors = Mapping[Kind, Answer | None]


class Voice(Protocol):
    """How a vendor says no; a module of this package is one."""

    MISSING_KEY: Status
    ERRORS: Errors

    def invalid(self, message: str, *, status: int = 400, param: str | None = None) -> Status: ...

    def too_fast(self, limit: TooFast, told: bool) -> Status: ...

    def levels(self, levels: Mapping[str, Level]) -> dict[str, str]: ...


def html_502() -> Status:
    """Cloudflare's 502."""
    page = "<html><head><title>502 Bad Gateway</title></head><body><center><h1>502 Bad Gateway</h1></center><hr>"
    return Status(502, page + "<center>cloudflare</center></body></html>", {"content-type": "text/html"})


EMPTY = Saying(Said(""))
REFUSED = Saying(Said("I'm sorry, I can't help with that.", reason="refusal"))


def broken(events_before_text: int, error: bytes, whole: Status) -> dict[Kind, Answer | None]:
    """The two streams that go wrong after two pieces of text."""
    after = events_before_text + 2
    return {"error_in_stream": Breaking(after, error, whole), "truncated_stream": Breaking(after)}


def hyphened(**headers: str) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def no_levels(levels: Mapping[str, Level]) -> dict[str, str]:
    """For vendors that do not tell what is left."""
    return {}
