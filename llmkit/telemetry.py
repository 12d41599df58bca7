"""Runs and requests as OpenTelemetry spans and metrics, by the GenAI semantic conventions; off until ``trace()`` is called.

A run is one span in the caller's context, a request (one body at one model, with all its attempts) one beneath it. Names of models, counts
and times only: prompts and answers where they were asked for, keys never.

The conventions are in development (github.com/open-telemetry/semantic-conventions-genai, seen 2026-11-21): the names here are those of
opentelemetry.io/docs/specs/semconv/gen-ai, which dashboards read. What the conventions have no word for begins with ``llmkit.``.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .adapter import Target, to_json
from .engine.tracing import Answered, watching
from .errors import Busy, LLMError, MissingExtra, Unreachable
from .operations.chat import ChatPayload, Image, Part, Said, Scored, Text, ToolCall
from .run import to_the_caller
from .types import Reply, Request, Usage

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

    from .engine.engine import Plan
    from .engine.retry import Ticket
    from .engine.streaming import Told, Wish

__all__ = ["trace"]

#: The conventions' words for operations and providers, where they differ from ours.
_OPERATIONS = {"embed": "embeddings"}
_PROVIDERS = {"gemini": "gcp.gemini", "mistral": "mistral_ai", "xai": "x_ai"}
#: Options of a request, as the conventions spell them.
_OPTIONS = {name: f"gen_ai.request.{name}" for name in ("max_tokens", "temperature", "top_p", "seed")}

_TOKEN_BUCKETS = [4**power for power in range(14)]
_SECOND_BUCKETS = [0.01 * 2**power for power in range(14)]


def trace(
    enabled: bool = True,
    *,
    prompts: bool = False,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
) -> None:
    """Tell OpenTelemetry of every run and stream that begins from now on in this process, whatever its session.

    Exporters are the program's own affair: what it set up with the OpenTelemetry SDK receives the spans and metrics, and without any they
    go nowhere. Off, which it is at first, costs nothing and imports nothing.

    Parameters
    ----------
    enabled : bool
        ``False`` turns it off again.
    prompts : bool
        Also record what was asked of chat models and what they said (``gen_ai.input.messages``, ``gen_ai.output.messages``). Whoever reads
        the traces then reads the rows; a warning says so.
    tracer_provider, meter_provider : optional
        Instead of the process's own.

    Raises
    ------
    MissingExtra
        opentelemetry-api is not installed.

    Examples
    --------
    >>> import llmkit
    >>> llmkit.trace(False)
    """
    if not enabled:
        watching.tracer = None
        return
    try:
        import opentelemetry.metrics
        import opentelemetry.trace
    except ImportError:
        raise MissingExtra("traces need the package opentelemetry-api: pip install 'llmkit[otel]'") from None
    if prompts:
        warnings.warn(
            "prompts and answers of chat models are now part of the OpenTelemetry traces", UserWarning, stacklevel=to_the_caller()
        )
    meter = opentelemetry.metrics.get_meter("llmkit", meter_provider=meter_provider)
    watching.tracer = _Tracer(
        opentelemetry.trace.get_tracer("llmkit", tracer_provider=tracer_provider),
        meter.create_histogram(
            "gen_ai.client.operation.duration",
            unit="s",
            description="GenAI operation duration.",
            explicit_bucket_boundaries_advisory=_SECOND_BUCKETS,
        ),
        meter.create_histogram(
            "gen_ai.client.token.usage",
            unit="{token}",
            description="Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=_TOKEN_BUCKETS,
        ),
        prompts,
    )


class _Tracer:
    """See ``engine.tracing.Tracer``."""

    def __init__(self, tracer: Any, seconds: Any, tokens: Any, prompts: bool) -> None:
        self.tracer = tracer
        self.prompts = prompts
        self._seconds = seconds
        self._tokens = tokens

    @contextmanager
    def run(self, plan: Plan) -> Iterator[_RunTrace]:
        name, outcomes = plan.operation.name, plan.outcomes
        before = outcomes.usage
        facts = {
            "llmkit.run.id": plan.run_id,
            "llmkit.operation": name,
            "llmkit.route": [target.name for target in plan.route],
            "llmkit.rows": outcomes.rows,
        }
        # As the current one: what the rows cause in turn (a tool's own calls, an instrumented HTTP client) hangs beneath it.
        with self.tracer.start_as_current_span(f"llmkit {name}", attributes=facts, record_exception=False) as span:
            seen = _RunTrace(self, plan.operation.codec)
            try:
                yield seen
            finally:
                seen.end()
                used = outcomes.usage
                counts = {
                    "done": outcomes.done,
                    "errors": outcomes.failed,
                    "stored": outcomes.stored,
                    "requests": used.requests - before.requests,
                    "input_tokens": used.input - before.input,
                    "output_tokens": used.output - before.output,
                    "cost": outcomes.cost([target.model.price for target in plan.route]),
                }
                span.set_attributes({f"llmkit.{word}": count for word, count in counts.items() if count is not None})
                if outcomes.stopped is not None:
                    _mark(span, outcomes.stopped.kind)

    def stream(self, wish: Wish, told: Told) -> _StreamTrace:
        return _StreamTrace(self, wish, told)

    def begin(self, target: Target, operation: str, request: Request) -> _Asked:
        from opentelemetry.trace import SpanKind

        name = _OPERATIONS.get(operation, operation)
        facts: dict[str, Any] = {
            "gen_ai.operation.name": name,
            "gen_ai.provider.name": _PROVIDERS.get(target.provider.name, target.provider.name),
            "gen_ai.request.model": target.model.name,
            **_address(target),
        }
        options = {_OPTIONS[option]: value for option, value in request.options.items() if option in _OPTIONS and value is not None}
        kind = SpanKind.INTERNAL if target.adapter.answer is not None else SpanKind.CLIENT
        span = self.tracer.start_span(f"{name} {target.model.name}", kind=kind, attributes={**facts, **options})
        return _Asked(span, target, facts, time.monotonic())

    def end(self, asked: _Asked, usage: Usage, error: str | None, model: str | None = None) -> None:
        """End the span of a request, and count it."""
        span, facts = asked.span, asked.facts
        if model is not None:
            facts["gen_ai.response.model"] = model
            span.set_attribute("gen_ai.response.model", model)
        if usage.input or usage.output:
            self._tokens.record(usage.input, {**facts, "gen_ai.token.type": "input"})
            if usage.output:
                self._tokens.record(usage.output, {**facts, "gen_ai.token.type": "output"})
            span.set_attributes(_tokens(usage))
        cost = usage.cost(asked.target.model.price) if usage.requests else None
        if cost is not None:
            span.set_attribute("llmkit.cost", cost)
        if error is not None:
            facts["error.type"] = error
            _mark(span, error)
        span.set_attribute("llmkit.attempts", asked.attempts)
        self._seconds.record(time.monotonic() - asked.began, facts)
        span.end()


@dataclass(slots=True)
class _Asked:
    """A request that is under way: its span, and what names it in the metrics."""

    span: Span
    target: Target
    facts: dict[str, Any]
    began: float
    attempts: int = 0
    #: Why its last attempt failed.
    refused: str = "_OTHER"


class _RunTrace:
    """See ``engine.tracing.RunTrace``."""

    def __init__(self, tracer: _Tracer, operation: str) -> None:
        self._tracer = tracer
        self._operation = operation
        #: By the number of its first ticket: a ticket is in one batch at a time.
        self._open: dict[int, _Asked] = {}

    async def asked(self, batch: Sequence[Ticket], target: Target, send: Callable[[], Awaitable[Answered]]) -> Answered:
        from opentelemetry.trace import use_span

        number = batch[0].number
        asked = self._open.get(number)
        if asked is not None and asked.target is not target:
            self.gave_up(batch)  # the next model of the route
            asked = None
        if asked is None:
            asked = self._open[number] = self._tracer.begin(target, self._operation, batch[0].request)
            asked.span.set_attribute("llmkit.rows", len(batch))
            if batch[0].attempts == 1:
                asked.span.set_attribute("llmkit.queue_seconds", batch[0].began - batch[0].ready)
            if self._tracer.prompts:
                _show_questions(asked.span, batch)
        asked.attempts += 1
        try:
            with use_span(asked.span, record_exception=False, set_status_on_exception=False):
                replies, limits = await send()
        except LLMError as error:
            asked.refused = error.kind
            if error.status is not None:
                asked.span.set_attribute("http.response.status_code", error.status)
            asked.span.add_event("llmkit.attempt.failed", {"error.type": error.kind, "llmkit.attempt": asked.attempts})
            if not isinstance(error, Busy | Unreachable):  # those may be tried again
                self.gave_up(batch)
            raise
        except BaseException:
            asked.refused = "cancelled"
            self.gave_up(batch)
            raise
        del self._open[number]
        self._answered(asked, replies)
        return replies, limits

    def _answered(self, asked: _Asked, replies: Sequence[Reply | LLMError]) -> None:
        answers = [reply for reply in replies if isinstance(reply, Reply)]
        errors = [reply for reply in replies if isinstance(reply, LLMError)]
        span = asked.span
        finishes = [answer.finish for answer in answers if answer.finish is not None]
        if finishes:
            span.set_attribute("gen_ai.response.finish_reasons", finishes)
        first = answers[0] if answers else None
        if first is not None and first.request_id is not None:
            span.set_attribute("gen_ai.response.id", first.request_id)
        if errors:
            span.set_attribute("llmkit.row_errors", len(errors))
        if self._tracer.prompts:
            _show_answers(span, answers)
        billed = [reply.usage for reply in replies if reply.usage is not None]
        usage = billed[0] if len(billed) == 1 else sum(billed, Usage())
        self._tracer.end(asked, usage, errors[0].kind if first is None and errors else None, first.model if first is not None else None)

    def gave_up(self, batch: Sequence[Ticket]) -> None:
        asked = self._open.pop(batch[0].number, None)
        if asked is not None:
            self._tracer.end(asked, Usage(), asked.refused)

    def end(self) -> None:
        """What a stop left under way."""
        while self._open:
            _, asked = self._open.popitem()
            self._tracer.end(asked, Usage(), asked.refused)


class _StreamTrace:
    """See ``engine.tracing.StreamTrace``. One span, begun as a question to the first model and ended as one to that which answered."""

    def __init__(self, tracer: _Tracer, wish: Wish, told: Told) -> None:
        self._tracer, self._wish, self._told = tracer, wish, told
        self._asked = tracer.begin(wish.route[0], wish.operation.codec, wish.request)
        self._asked.span.set_attribute("gen_ai.request.stream", True)
        if tracer.prompts:
            _show_questions(self._asked.span, [wish])
        self._spoke = False

    def spoke(self) -> None:
        if not self._spoke:
            self._spoke = True
            self._asked.span.set_attribute("gen_ai.response.time_to_first_chunk", time.monotonic() - self._asked.began)

    def end(self, error: str | None) -> None:
        asked, told = self._asked, self._told
        for target in self._wish.route:
            if target.name == told.target and target is not asked.target:
                again = {"gen_ai.provider.name": _PROVIDERS.get(target.provider.name, target.provider.name), **_address(target)}
                asked.target = target
                asked.facts |= {**again, "gen_ai.request.model": target.model.name}
                asked.span.update_name(f"{asked.facts['gen_ai.operation.name']} {target.model.name}")
                asked.span.set_attributes(asked.facts)
        if told.finish is not None:
            asked.span.set_attribute("gen_ai.response.finish_reasons", [told.finish])
        if self._tracer.prompts and told.text:
            _show_answers(asked.span, [Reply(told.text, finish=told.finish)])
        asked.attempts = told.attempts
        self._tracer.end(asked, told.usage, error)


def _mark(span: Span, error: str) -> None:
    from opentelemetry.trace import StatusCode

    span.set_attribute("error.type", error)
    span.set_status(StatusCode.ERROR)  # no description: a vendor's words may repeat the prompt


def _address(target: Target) -> dict[str, Any]:
    """The host and port alone: an address may carry a password before the host or a key behind it."""
    if target.adapter.answer is not None:
        return {}
    try:
        parts = urlsplit(target.provider.base_url)
        port = parts.port
    except ValueError:
        return {}
    if parts.hostname is None:
        return {}
    return {"server.address": parts.hostname, "server.port": port or (80 if parts.scheme == "http" else 443)}


def _tokens(usage: Usage) -> dict[str, int]:
    found = {"gen_ai.usage.input_tokens": usage.input, "gen_ai.usage.output_tokens": usage.output}
    if usage.cached_input:
        found["gen_ai.usage.cache_read.input_tokens"] = usage.cached_input
    if usage.cache_write:
        found["gen_ai.usage.cache_creation.input_tokens"] = usage.cache_write
    return found


# ---------------------------------------------------------------------------------------------- prompts, where asked for


def _show_questions(span: Span, batch: Sequence[Ticket | Wish]) -> None:
    payloads = [one.request.payload for one in batch]
    turns = [turn for payload in payloads if isinstance(payload, ChatPayload) for turn in payload.messages]
    if turns:
        span.set_attribute("gen_ai.input.messages", _written([{"role": turn.role, "parts": _parts(turn.content)} for turn in turns]))


def _show_answers(span: Span, answers: Sequence[Reply]) -> None:
    said = [
        {"role": "assistant", "parts": parts, "finish_reason": answer.finish or ""} for answer in answers if (parts := _said(answer.value))
    ]
    if said:
        span.set_attribute("gen_ai.output.messages", _written(said))


def _said(value: Any) -> list[Mapping[str, Any]]:
    if isinstance(value, Said):
        return _parts((*([Text(value.text)] if value.text else ()), *value.calls))
    if isinstance(value, Scored):
        value = value.text
    return _parts(value) if isinstance(value, str) else []


def _parts(content: str | Sequence[Part]) -> list[Mapping[str, Any]]:
    return [_part(part) for part in ([Text(content)] if isinstance(content, str) else content)]


def _part(part: Part) -> Mapping[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "content": part.text}
    if isinstance(part, ToolCall):
        return {"type": "tool_call", "id": part.id, "name": part.name, "arguments": part.arguments}
    if isinstance(part, Image):
        # Its bytes would be most of the trace.
        return {"type": "uri", "modality": "image", "uri": part.url} if part.url else {"type": "llmkit.image", "mime_type": part.media_type}
    return {"type": "tool_call_response", "id": part.call.id, "response": part.content}


def _written(messages: Sequence[Mapping[str, Any]]) -> str:
    return to_json(messages).decode()
