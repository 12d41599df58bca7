"""What refusals of all vendors come to, said in the same words whoever says no."""

from __future__ import annotations

import re
from typing import Any

from ..errors import (
    AccessError,
    BatchTooLarge,
    ContextTooLong,
    InvalidRequest,
    KeyRejected,
    ModelGone,
    OutOfCredit,
    Overloaded,
    RateLimited,
    ServerFault,
    TimedOut,
)

__all__ = ["Refused"]

#: What servers say that refuse a way to ask for a structured answer: vLLM ("features not supported by xgrammar", "Grammar error",
#: "--enable-auto-tool-choice"), llama.cpp ('"json_schema" or "grammar"', "tools param requires --jinja flag"), Ollama ("does not support
#: tools", "expected "json" or a JSON schema"), LM Studio ("'response_format.type' must be"), OpenAI and Groq ("invalid schema for
#: response_format"), DeepSeek ("does not support this tool_choice"), Gemini ("a response mime type"), Anthropic ("output_config"). That it
#: is the way, and not the row, is seen when another way is answered. Issues of these projects, seen 2026-11-21.
_OF_FORM = re.compile(
    r"response[_ ]?(?:format|schema|mime)|json[_ ]?(?:schema|object|mode)|output_(?:config|format)|tool[_-]choice|\btools?\b|\bfunctions?\b"
    r"|\bschemas?\b|structured[_ ]outputs?|\bx?grammar|\bguided_",
    re.I,
)
#: Groq, of what its model wrote for one row: https://console.groq.com/docs/errors, seen 2026-11-21.
_OF_ANSWER = re.compile(r"failed_generation|json_validate_failed|failed to (?:generate|validate|parse|call)|does not match the", re.I)
#: OpenRouter, as a 404: Routstr/routstr-core#554, openstory-so/openstory#1302, seen 2026-11-21.
_NOBODY_CAN = re.compile(r"no endpoints found that (?:support|can handle)", re.I)


class Refused:
    """A refused request, and the errors that it may amount to.

    Parameters
    ----------
    status : int
        HTTP status.
    request_id : str or None
        The vendor's own number for the request.
    retry_after : float or None
        Seconds that the vendor asked to wait.
    said : str
        The vendor's sentence, made fit for a message by ``one_line``; it follows ours in brackets.
    """

    def __init__(self, status: int, request_id: str | None, retry_after: float | None, said: str) -> None:
        self.facts: dict[str, Any] = {"status": status, "request_id": request_id, "retry_after": retry_after}
        self.told = f" ({said})" if said else ""

    def redirected(self) -> AccessError:
        advice = "the server redirects, and prompts are not sent on; give the final address as base_url"
        return AccessError(advice, kind="redirect", **self.facts)

    def key_refused(self) -> KeyRejected:
        return KeyRejected(f"the API key was refused{self.told}. Check it and set it with llmkit.set_key(...)", **self.facts)

    def forbidden(self) -> KeyRejected:
        return KeyRejected(f"this key may not do this{self.told}", kind="forbidden", **self.facts)

    def no_credit(self) -> OutOfCredit:
        advice = "Top it up, then run the same call again: only the rest is sent"
        return OutOfCredit(f"the account has no credit left{self.told}. {advice}", **self.facts)

    def gone(self) -> ModelGone:
        gone = ModelGone(f"the provider does not serve this model or address{self.told}", **self.facts)
        gone.of_form = _NOBODY_CAN.search(self.told) is not None
        return gone

    def too_fast(self) -> RateLimited:
        return RateLimited(f"too many requests for this account{self.told}", **self.facts)

    def overloaded(self) -> Overloaded:
        return Overloaded(f"the provider is overloaded{self.told}", **self.facts)

    def gave_up(self) -> TimedOut:
        return TimedOut(f"the provider gave up waiting{self.told}", **self.facts)

    def fault(self, status: int) -> ServerFault:
        return ServerFault(f"the server answered {status}{self.told}", **self.facts)

    def in_a_success(self) -> ServerFault:
        return ServerFault(f"an error came as a 200{self.told}", kind="bad_response", **self.facts)

    def too_much(self) -> BatchTooLarge:
        return BatchTooLarge(f"too much for one request{self.told}", **self.facts)

    def too_long(self) -> ContextTooLong:
        advice = "the text is longer than the model's context window; shorten it or choose a larger model"
        return ContextTooLong(advice, **self.facts)

    def invalid(self) -> InvalidRequest:
        refused = InvalidRequest(f"the request was refused{self.told}", **self.facts)
        refused.of_form = _OF_FORM.search(self.told) is not None and _OF_ANSWER.search(self.told) is None
        return refused
