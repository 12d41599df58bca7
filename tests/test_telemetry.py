"""What OpenTelemetry is told: a span a run, a span a request, two histograms; no text of a row unless asked for, and never a key."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pandas as pd
import pytest

import llmkit
from tests.loopback import Hang, Loopback, Status, rate_limited, refusal, server_error
from tests.test_import import modules_after

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

CANARY_KEY = "sk-proj-CANARYKEY0123456789abcdefghij"
CANARY_TEXT = "CANARY-PII Mrs Mayer of 17 Mill Lane"
INVALID = Status(400, {"error": {"message": "not so", "type": "invalid_request_error"}})
CHAT: dict[str, Any] = {"model": "lab/test-chat", "show_progress": False}


class Watched:
    """What an exporter and a metric reader were handed."""

    def __init__(self) -> None:
        self.exporter, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.traces = TracerProvider()
        self.traces.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meters = MeterProvider([self.reader])

    def begin(self, **options: Any) -> None:
        llmkit.trace(tracer_provider=self.traces, meter_provider=self.meters, **options)

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    @property
    def run(self) -> ReadableSpan:
        (run,) = (span for span in self.spans if span.name.startswith("llmkit "))
        return run

    @property
    def requests(self) -> list[ReadableSpan]:
        return [span for span in self.spans if not span.name.startswith("llmkit ")]

    def points(self, name: str) -> list[Any]:
        data = self.reader.get_metrics_data()
        found = [metric for each in data.resource_metrics for scope in each.scope_metrics for metric in scope.metrics] if data else []
        return [point for metric in found if metric.name == name for point in metric.data.data_points]

    def everything(self) -> str:
        """All that leaves the process, as text."""
        data = self.reader.get_metrics_data()
        return "\n".join(
            [*(span.to_json() for span in self.spans), *(str(vars(span)) for span in self.spans), data.to_json() if data else ""]
        )


@pytest.fixture
def watched() -> Iterator[Watched]:
    seen = Watched()
    seen.begin()
    yield seen
    llmkit.trace(False)
    seen.traces.shutdown()
    seen.meters.shutdown()


def frame(*texts: str) -> pd.DataFrame:
    return pd.DataFrame({"text": list(texts)})


def of(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


# ---------------------------------------------------------------------------------------------------------------- spans


def test_a_run_is_a_span_of_the_caller_and_each_request_one_beneath_it(watched: Watched, lab: Loopback) -> None:
    with watched.traces.get_tracer("caller").start_as_current_span("cell") as cell:
        frame("a", "b", "a").llm.chat("Say {text}", **CHAT)
    (run,) = (span for span in watched.spans if span.name == "llmkit chat")
    requests = [span for span in watched.spans if span.name == "chat test-chat"]
    assert run.parent is not None and run.parent.span_id == cell.get_span_context().span_id
    assert len(requests) == 2
    assert {span.parent.span_id for span in requests if span.parent} == {run.context.span_id}
    assert {span.context.trace_id for span in watched.spans} == {cell.get_span_context().trace_id}
    assert (run.kind, {span.kind for span in requests}) == (SpanKind.INTERNAL, {SpanKind.CLIENT})


def test_a_request_is_named_and_counted_as_the_conventions_have_it(watched: Watched, lab: Loopback) -> None:
    lab.cached_tokens = 3
    frame("a").llm.chat("Say {text}", temperature=0.5, max_tokens=99, seed=4, **CHAT)
    facts, usage = of(watched.requests[0]), llmkit.last().usage()
    assert facts.pop("gen_ai.response.id")
    assert 0 <= facts.pop("llmkit.queue_seconds") < 60
    assert facts == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "lab",
        "gen_ai.request.model": "test-chat",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.max_tokens": 99,
        "gen_ai.request.seed": 4,
        "gen_ai.response.model": "test-chat",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": usage.input,
        "gen_ai.usage.output_tokens": usage.output,
        "gen_ai.usage.cache_read.input_tokens": 3,
        "server.address": "127.0.0.1",
        "server.port": lab.port,
        "llmkit.rows": 1,
        "llmkit.attempts": 1,
    }
    assert watched.requests[0].status.status_code is StatusCode.UNSET


def test_a_run_says_what_became_of_its_rows(watched: Watched, lab: Loopback) -> None:
    frame("a").llm.chat("Say {text}", **CHAT)
    watched.exporter.clear()
    lab.fault("bad", refusal())
    frame("a", "b", "bad").llm.chat("Say {text}", **CHAT)
    run = llmkit.last()
    facts = of(watched.run)
    assert (facts["llmkit.run.id"], facts["llmkit.operation"], facts["llmkit.route"]) == (run.id, "chat", ("lab/test-chat",))
    counts = [facts[f"llmkit.{name}"] for name in ("rows", "done", "errors", "stored", "requests", "input_tokens")]
    assert counts == [3, 2, 1, 1, run.usage().requests, run.usage().input]
    assert "llmkit.cost" not in facts  # its price is unknown, and that is not 0
    assert len(watched.requests) == 2


def test_a_batch_is_one_request_with_so_many_rows(watched: Watched, lab: Loopback) -> None:
    frame(*"abc").llm.embed("text", model="lab/test-embed", show_progress=False)
    (request,) = watched.requests
    assert request.name == "embeddings test-embed"
    assert (of(request)["gen_ai.operation.name"], of(request)["llmkit.rows"]) == ("embeddings", 3)
    assert of(request)["gen_ai.usage.input_tokens"] == llmkit.last().usage().input


def test_a_model_in_this_process_has_no_address(watched: Watched) -> None:
    frame("a").llm.chat("Say {text}", model="echo/echo", show_progress=False)
    (request,) = watched.requests
    assert request.kind is SpanKind.INTERNAL
    assert not {name for name in of(request) if name.startswith("server.")}


def test_a_known_price_is_told_as_dollars(watched: Watched, lab: Loopback) -> None:
    llmkit.catalogue.merge({"models": [{"provider": "lab", "name": "test-chat", "price": {"input": 2.0, "output": 8.0}}]})
    frame("a", "b").llm.chat("Say {text}", **CHAT)
    assert of(watched.run)["llmkit.cost"] == pytest.approx(llmkit.last().cost)
    assert sum(of(request)["llmkit.cost"] for request in watched.requests) == pytest.approx(llmkit.last().cost)


def test_conventions_have_words_of_their_own_for_some_providers(watched: Watched, server: Loopback) -> None:
    llmkit.add_provider("mistral", server.url, "key-not-real", "openai")
    frame("a").llm.chat("Say {text}", model="mistral/any", show_progress=False)
    assert of(watched.requests[0])["gen_ai.provider.name"] == "mistral_ai"


# --------------------------------------------------------------------------------------------------------------- errors


def test_a_request_that_was_tried_again_is_one_span_with_an_event_for_each_failure(watched: Watched, lab: Loopback) -> None:
    lab.fault("a", server_error(), times=2)
    frame("a").llm.chat("Say {text}", **CHAT)
    (request,) = watched.requests
    facts = of(request)
    assert facts["llmkit.attempts"] == 3
    assert [dict(event.attributes or {}) for event in request.events] == [
        {"error.type": "server", "llmkit.attempt": 1},
        {"error.type": "server", "llmkit.attempt": 2},
    ]
    assert "error.type" not in facts
    assert request.status.status_code is StatusCode.UNSET


def test_a_refused_request_is_an_error_and_says_its_kind_alone(watched: Watched, lab: Loopback) -> None:
    lab.fault("bad", refusal())
    frame("bad", "good").llm.chat("Say {text}", **CHAT)
    bad = next(span for span in watched.requests if span.status.status_code is StatusCode.ERROR)
    (kind,) = llmkit.last().errors()["kind"]
    assert of(bad)["error.type"] == kind
    assert bad.status.description is None
    assert of(watched.run)["llmkit.errors"] == 1
    assert watched.run.status.status_code is StatusCode.UNSET  # the run came to its end


def test_rows_that_gave_up_end_their_span(watched: Watched, lab: Loopback) -> None:
    lab.fault("bad", server_error(), times=float("inf"))
    frame("bad", "good").llm.chat("Say {text}", max_attempts=2, **CHAT)
    bad = next(span for span in watched.requests if span.status.status_code is StatusCode.ERROR)
    assert (of(bad)["error.type"], of(bad)["llmkit.attempts"], of(bad)["http.response.status_code"]) == ("server", 2, 500)
    assert len(watched.requests) == 2


def test_a_row_that_gave_up_is_over_before_the_run_is(watched: Watched, lab: Loopback) -> None:
    lab.fault("bad", server_error())
    lab.latency = 0.3
    frame("bad", "good").llm.chat("Say {text}", max_attempts=1, **CHAT)
    bad, good = watched.requests
    assert bad.status.status_code is StatusCode.ERROR
    assert bad.end_time < good.end_time <= watched.run.end_time


@pytest.mark.parametrize("url", ["http:///v1", "http://[half/v1", "http://lab:door/v1"])
def test_an_address_that_is_none_is_not_told(watched: Watched, url: str) -> None:
    llmkit.add_provider("odd", url)
    frame("a").llm.chat("Say {text}", model="odd/any", max_attempts=1, show_progress=False, wait=False).wait()
    (request,) = watched.requests
    assert request.status.status_code is StatusCode.ERROR
    assert not {name for name in of(request) if name.startswith("server.")}


def test_each_model_of_a_route_has_its_own_span(watched: Watched, lab: Loopback) -> None:
    lab.fault("a", server_error(), times=float("inf"))
    with Loopback() as second:
        llmkit.add_provider("spare", second.url)
        frame("a").llm.chat("Say {text}", fallback="spare/test-chat", max_attempts=1, **CHAT)
        first, then = watched.requests
    assert [of(span)["gen_ai.provider.name"] for span in (first, then)] == ["lab", "spare"]
    assert [span.status.status_code for span in (first, then)] == [StatusCode.ERROR, StatusCode.UNSET]
    assert of(then)["server.port"] == second.port


def test_a_batch_that_is_halved_is_a_span_for_each_part(watched: Watched, lab: Loopback) -> None:
    lab.fault("bad", INVALID, times=float("inf"))
    frame("a", "b", "c", "bad").llm.embed("text", model="lab/test-embed", show_progress=False)
    rows = sorted(of(span)["llmkit.rows"] for span in watched.requests)
    assert rows == [1, 1, 2, 2, 4]
    assert sum(span.status.status_code is StatusCode.ERROR for span in watched.requests) == 3


def test_a_run_that_was_stopped_ends_its_spans_and_says_so(watched: Watched, lab: Loopback) -> None:
    lab.fault("a", Hang())
    run = frame("a").llm.chat("Say {text}", wait=False, **CHAT)
    lab.wait_for(1)
    run.cancel()
    run.wait()
    (request,) = watched.requests
    assert of(request)["error.type"] == of(watched.run)["error.type"] == "cancelled"


def test_a_run_that_was_stopped_between_two_attempts_ends_its_spans_too(watched: Watched, lab: Loopback) -> None:
    lab.fault("a", rate_limited(60_000), times=float("inf"))
    run = frame("a").llm.chat("Say {text}", wait=False, **CHAT)
    lab.wait_for(1)
    while not run.progress().seconds > 0.2:  # the refusal is on its way back
        run.wait(0.05)
    run.cancel()
    run.wait()
    (request,) = watched.requests
    assert of(request)["error.type"] == "rate_limited"
    assert (of(request)["llmkit.attempts"], len(request.events)) == (1, 1)


def test_a_refused_key_ends_the_run_with_its_kind(watched: Watched, lab: Loopback) -> None:
    lab.key = "another"
    with pytest.raises(llmkit.KeyRejected) as raised:
        frame("a").llm.chat("Say {text}", **CHAT)
    assert of(watched.run)["error.type"] == of(watched.requests[0])["error.type"] == raised.value.kind
    assert watched.run.status.status_code is StatusCode.ERROR


def test_a_retry_of_a_run_is_a_span_of_its_own_and_counts_only_what_it_added(watched: Watched, lab: Loopback) -> None:
    lab.fault("bad", INVALID)
    run = frame("good", "bad").llm.chat("Say {text}", wait=False, **CHAT)
    run.result()
    run.retry().result()
    first, second = (span for span in watched.spans if span.name == "llmkit chat")
    assert [of(span)["llmkit.requests"] for span in (first, second)] == [1, 1]


# -------------------------------------------------------------------------------------------------------------- streams


def test_a_stream_is_one_span_with_the_time_to_its_first_piece(watched: Watched, lab: Loopback) -> None:
    with watched.traces.get_tracer("caller").start_as_current_span("cell") as cell:
        said = llmkit.stream("Hello", model="lab/test-chat")
        text = "".join(said)
    (request,) = (span for span in watched.spans if span.name == "chat test-chat")
    facts = of(request)
    assert text
    assert request.parent is not None and request.parent.span_id == cell.get_span_context().span_id
    assert facts["gen_ai.request.stream"] is True
    assert facts["gen_ai.response.time_to_first_chunk"] > 0
    assert (facts["gen_ai.usage.input_tokens"], facts["gen_ai.usage.output_tokens"]) == (said.usage.input, said.usage.output)
    assert facts["gen_ai.response.finish_reasons"] == ("stop",)


def test_a_stream_is_named_after_the_model_that_answered(watched: Watched, lab: Loopback) -> None:
    lab.fault("Hello", server_error(), times=float("inf"))
    with Loopback() as second:
        llmkit.add_provider("spare", second.url)
        "".join(llmkit.stream("Hello", model=["lab/test-chat", "spare/other"], max_attempts=1))
        (request,) = watched.requests
        assert request.name == "chat other"
        assert (of(request)["gen_ai.provider.name"], of(request)["server.port"]) == ("spare", second.port)
        assert of(request)["llmkit.attempts"] == 2


# -------------------------------------------------------------------------------------------------------------- metrics


def test_tokens_and_seconds_are_histograms_with_the_buckets_of_the_conventions(watched: Watched, lab: Loopback) -> None:
    frame("a", "b").llm.chat("Say {text}", **CHAT)
    usage = llmkit.last().usage()
    points = {point.attributes["gen_ai.token.type"]: point for point in watched.points("gen_ai.client.token.usage")}
    assert {kind: (point.count, point.sum) for kind, point in points.items()} == {"input": (2, usage.input), "output": (2, usage.output)}
    assert points["input"].explicit_bounds == tuple(4**power for power in range(14))
    (seconds,) = watched.points("gen_ai.client.operation.duration")
    assert seconds.count == 2
    assert seconds.explicit_bounds == (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
    assert dict(seconds.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "lab",
        "gen_ai.request.model": "test-chat",
        "gen_ai.response.model": "test-chat",
        "server.address": "127.0.0.1",
        "server.port": lab.port,
    }


def test_the_duration_of_a_failure_carries_its_kind_and_covers_its_retries(watched: Watched, lab: Loopback) -> None:
    lab.fault("a", INVALID)
    with pytest.warns(UserWarning, match="no row got an answer"):
        frame("a").llm.chat("Say {text}", **CHAT)
    (seconds,) = watched.points("gen_ai.client.operation.duration")
    assert seconds.attributes["error.type"] == of(watched.requests[0])["error.type"]
    (request,) = watched.requests
    assert seconds.sum == pytest.approx((request.end_time - request.start_time) / 1e9, abs=0.05)
    assert watched.points("gen_ai.client.token.usage") == []


# --------------------------------------------------------------------------------------------------- what is not told


def test_no_text_of_a_row_and_no_key_is_told(watched: Watched, server: Loopback) -> None:
    url = server.url.replace("http://", f"http://user:{CANARY_KEY}@")
    llmkit.add_provider("lab", server.url, api_key=CANARY_KEY)
    llmkit.add_provider("odd", url, api_key=CANARY_KEY)
    server.fault("busy", rate_limited(20))
    server.fault("bad", refusal())
    server.fault("down", server_error())
    texts = [f"{word} {CANARY_TEXT}" for word in ("good", "busy", "bad", "down")]
    frame(*texts).llm.chat("Say {text}", system=CANARY_TEXT, **CHAT)
    frame(*texts).llm.embed("text", model="lab/test-embed", show_progress=False)
    "".join(llmkit.stream(CANARY_TEXT, model="lab/test-chat"))
    odd = frame("x").llm.chat("Say {text}", model="odd/test-chat", max_attempts=1, show_progress=False, wait=False)
    odd.wait()
    server.key = "another"
    with pytest.raises(llmkit.KeyRejected):
        frame(CANARY_TEXT).llm.chat("Tell {text}", **CHAT)
    assert server.count("CANARY-PII") > 5  # it was sent, and answered with it
    told = watched.everything()
    assert len(watched.spans) > 8
    assert "CANARY" not in told
    assert "Mayer" not in told


def test_prompts_and_answers_are_told_when_asked_for_and_the_user_is_told_of_it(watched: Watched, lab: Loopback) -> None:
    with pytest.warns(UserWarning, match="prompts and answers of chat models are now part of the OpenTelemetry traces") as warned:
        watched.begin(prompts=True)
    assert warned[0].filename == __file__
    llmkit.add_provider("lab", lab.url, api_key=CANARY_KEY)
    frame("a").llm.chat("Say {text}", system="Be brief", **CHAT)
    facts = of(watched.requests[0])
    assert orjson.loads(facts["gen_ai.input.messages"]) == [
        {"role": "system", "parts": [{"type": "text", "content": "Be brief"}]},
        {"role": "user", "parts": [{"type": "text", "content": "Say a"}]},
    ]
    (answer,) = orjson.loads(facts["gen_ai.output.messages"])
    assert answer == {"role": "assistant", "parts": [{"type": "text", "content": "answer to: Say a"}], "finish_reason": "stop"}
    "".join(llmkit.stream("Hello", model="lab/test-chat"))
    assert "Hello" in of(watched.requests[1])["gen_ai.input.messages"]
    assert "answer to: Hello" in of(watched.requests[1])["gen_ai.output.messages"]
    assert CANARY_KEY not in watched.everything()


def test_calls_of_tools_and_their_results_are_told_in_the_conventions_form(watched: Watched, lab: Loopback) -> None:
    def add(a: int) -> int:
        """Add one."""
        return a + 1

    with pytest.warns(UserWarning, match="are now part"):
        watched.begin(prompts=True)
    frame('call:add {"a": 1}').llm.chat("{text}", tools=[add], run_tools=True, **CHAT)
    first, second = watched.requests
    (said,) = orjson.loads(of(first)["gen_ai.output.messages"])
    (call,) = said["parts"]
    assert (call["type"], call["name"], orjson.loads(call["arguments"])) == ("tool_call", "add", {"a": 1})
    turns = orjson.loads(of(second)["gen_ai.input.messages"])
    assert [turn["role"] for turn in turns] == ["user", "assistant", "tool"]
    assert turns[-1]["parts"] == [{"type": "tool_call_response", "id": call["id"], "response": "2"}]


# ------------------------------------------------------------------------------------------------------------------ off


def test_off_is_off_for_runs_that_begin_afterwards(watched: Watched, lab: Loopback) -> None:
    llmkit.trace(False)
    frame("a").llm.chat("Say {text}", **CHAT)
    "".join(llmkit.stream("Hello", model="lab/test-chat"))
    assert watched.spans == []


def test_nothing_of_opentelemetry_is_loaded_by_a_run_that_nobody_watches(tmp_path: Path) -> None:
    code = (
        "import pandas as pd, llmkit\n"
        "pd.DataFrame({'text': ['a']}).llm.chat('Say {text}', model='echo/echo', show_progress=False)\n"
        "llmkit.trace(False)"
    )
    assert not {name for name in modules_after(code, tmp_path) if name.partition(".")[0] == "opentelemetry"}


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", None)
    with pytest.raises(llmkit.MissingExtra, match=r"pip install 'llmkit\[otel\]'"):
        llmkit.trace()


def test_the_extra_that_is_named_exists() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["optional-dependencies"]["otel"][0].startswith("opentelemetry-api>=")
    assert "otel" in project["optional-dependencies"]["all"][0]
