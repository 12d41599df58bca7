"""What an error must become, and what must then happen; and the few vendors that mean something else by theirs."""

from __future__ import annotations

from typing import Literal, NamedTuple

from llmkit.errors import (
    BadOutput,
    BatchTooLarge,
    ContentBlocked,
    ContextTooLong,
    InvalidRequest,
    KeyRejected,
    LLMError,
    ModelGone,
    OutOfCredit,
    Overloaded,
    QuotaSpent,
    RateLimited,
    ServerFault,
)

Then = Literal[
    "retried",  # the same row again, and it has its answer
    "kept",  # the row fails, once; the others have their answers
    "moved on",  # the same, but the next model of the route is asked
    "shut",  # the account: the next model of the route is asked; without one the run ends
    "halved",  # the batch, until every row has its answer
]


class Fate(NamedTuple):
    error: type[LLMError]
    then: Then


FATES: dict[str, Fate] = {
    "rate_limited": Fate(RateLimited, "retried"),
    "overloaded": Fate(Overloaded, "retried"),
    "bad_key": Fate(KeyRejected, "shut"),
    "forbidden": Fate(KeyRejected, "shut"),
    "unknown_model": Fate(ModelGone, "shut"),
    "no_credit": Fate(OutOfCredit, "shut"),
    "quota_day": Fate(QuotaSpent, "shut"),
    "quota_month": Fate(QuotaSpent, "shut"),
    "context_too_long": Fate(ContextTooLong, "moved on"),
    "content_filter": Fate(ContentBlocked, "kept"),
    "bad_request": Fate(InvalidRequest, "kept"),
    "batch_too_large": Fate(BatchTooLarge, "halved"),
    "server_error": Fate(ServerFault, "retried"),
    "html_502": Fate(ServerFault, "retried"),
    "empty_answer": Fate(BadOutput, "kept"),
    "refusal": Fate(ContentBlocked, "kept"),
}

#: By the voice that says it: the error of one vendor, and of all who copy its words.
OTHERS: dict[tuple[str, str], Fate] = {
    # A limit on spending that the customer set is lifted by the customer, as credit is.
    ("openai", "quota_month"): Fate(OutOfCredit, "shut"),
    # Groq restricts an organisation for more reasons than money, and says none.
    ("groq", "no_credit"): Fate(KeyRejected, "shut"),
    # All of 502, 503 and 504 are "high traffic" in Voyage's table of errors.
    ("voyage", "html_502"): Fate(Overloaded, "retried"),
    # An embedding model that says nothing at all has not refused a text: the answer is no answer.
    ("voyage", "empty_answer"): Fate(ServerFault, "retried"),
}


#: What each wire's bill tells apart of a chat's input; of a wire that is not named here, what its column of the page says.
#: Cohere counts cached tokens of its own preamble too, and bills them like any others.
TOLD_APART: dict[str, frozenset[str]] = {
    "openai": frozenset({"cached input", "cache write"}),
    "anthropic": frozenset({"cached input", "cache write"}),
    "cohere": frozenset(),
}

#: Sentences of vendors that the loopback does not play: who says it, with which status, and the error that it must become.
SENTENCES: tuple[tuple[str, int, str, type[LLMError]], ...] = (
    # continuedev/continue#10740, seen 2026-11-21
    ("xai", 429, "Your team has either used all available credits or reached its monthly spending limit.", OutOfCredit),
    # Anantys-oss/koan#2412, seen 2026-11-21
    ("xai", 403, "Your team has either used all available credits or reached its monthly spending limit.", OutOfCredit),
    # chroma-core/chroma#5597, seen 2026-11-21
    ("mistral", 400, "Too many tokens overall, split into more batches.", BatchTooLarge),
    # aurelio-labs/semantic-router#297, seen 2026-11-21
    ("mistral", 400, "Too many tokens in batch. Max is 16384 got 17555", BatchTooLarge),
)


def fate_of(voice: str, kind: str) -> Fate:
    return OTHERS.get((voice, kind), FATES[kind])
