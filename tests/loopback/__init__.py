"""Pretend providers on real sockets, with faults on order: every vendor's wire, so that the official SDKs accept them unmodified.

Answers are functions of the question, hence a test can foretell them; what was sent is counted at the far end of the wire, where no
client can flatter itself. All times are seconds, on the clock of ``time.monotonic``.

>>> with Loopback() as server:
...     server.fault("row 17", rate_limited(), server_error())  # row 17: a 429, a 500, then ordinary service
...     client = openai.OpenAI(base_url=server.url, api_key="any")
...     ...
...     assert server.count("row 17") == 3

`Loopback.url` speaks OpenAI's format and asks for no key. Every vendor has its own address as well: ``server.url_of("anthropic")`` is
what Anthropic's SDK is given, ``server.compat_url_of("gemini")`` where Gemini speaks OpenAI's format. There credentials must travel as
the vendor wants them, bodies are checked as strictly, and refusals come in the vendor's own words:
``server.fault("row 17", error_of("anthropic", "overloaded"))``.

What a chat answers (`content.reply`), whatever the wire: ``answer to: ...`` the last user message, with the pictures that came; a tool
call for each ``call:add {"a": 1}`` in that message if the request brings tools; after tool results, a text that quotes them; and with a
schema, the JSON that `fill` builds for it from the user's words.

``python -m tests.loopback --port-file PATH`` serves as a process of its own until its standard input closes.
"""

from __future__ import annotations

from .answers import (
    Answer,
    Breaking,
    Close,
    CloseMidBody,
    Drip,
    GzipBomb,
    Hang,
    Json,
    Ordinary,
    Raw,
    Reset,
    Saying,
    Seen,
    Status,
)
from .content import (
    Call,
    Image,
    Said,
    Upload,
    answer_from_tools,
    answer_to,
    fill,
    heard_in,
    seconds_of,
    similarity,
    speech_of,
    tokens,
    vector_of,
)
from .errors import error_of, errors_of
from .errors.anthropic import overloaded
from .errors.groq import groq_rate_limited
from .errors.openai import bad_key, batch_too_large, no_credit, rate_limited, refusal, server_error, unknown_model
from .errors.shared import Errors, Kind, html_502
from .limits import go_duration
from .process import LoopbackProcess, main
from .prompt_cache import Bill, PromptCache
from .server import Loopback

__all__ = [
    "Answer",
    "Bill",
    "Breaking",
    "Call",
    "Close",
    "CloseMidBody",
    "Drip",
    "Errors",
    "GzipBomb",
    "Hang",
    "Image",
    "Json",
    "Kind",
    "Loopback",
    "LoopbackProcess",
    "Ordinary",
    "PromptCache",
    "Raw",
    "Reset",
    "Said",
    "Saying",
    "Seen",
    "Status",
    "Upload",
    "answer_from_tools",
    "answer_to",
    "bad_key",
    "batch_too_large",
    "error_of",
    "errors_of",
    "fill",
    "go_duration",
    "groq_rate_limited",
    "heard_in",
    "html_502",
    "main",
    "no_credit",
    "overloaded",
    "rate_limited",
    "refusal",
    "seconds_of",
    "server_error",
    "similarity",
    "speech_of",
    "tokens",
    "unknown_model",
    "vector_of",
]
