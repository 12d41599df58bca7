"""What only Mistral's batch jobs have: one model and a time-out a job, metadata, and pages."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from llmkit.adapter import JobIntent
from tests.loopback import Loopback, answer_to
from tests.providers.conformance.test_jobs import NAME, At, at


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback() as server:
        yield server


@pytest.fixture
def there(server: Loopback, tmp_path: Path) -> At:
    return at("mistral", server, tmp_path)


def test_a_job_says_its_model_its_time_and_whose_it_is(there: At, server: Loopback) -> None:
    there.submit(["a row"])
    upload, create = server.seen
    assert (upload.body["purpose"], upload.body["file"].name) == ("batch", f"{NAME}.jsonl")
    about = {"model": "test-model", "endpoint": "/v1/chat/completions", "timeout_hours": 24, "metadata": {"llmkit": NAME}}
    assert create.body == {**about, "input_files": [*server.batches.files]}


def test_a_job_is_found_behind_a_hundred_others(there: At, server: Loopback) -> None:
    wanted = there.submit(["one", "two"]).id
    for number in range(130):
        other = there.submit(["x"], name=f"llmkit-other-{number}").id
        server.batches.jobs[other].created += number + 1
    (found,) = there.jobs.find(there.target, JobIntent(NAME, 2, time.time()))
    assert (found.id, found.certain) == (wanted, True)


def test_a_body_that_came_as_text_is_read_too(there: At) -> None:
    body = {"id": "1", "object": "chat.completion", "choices": [{"index": 0, "message": {"content": answer_to("x")}}]}
    line = orjson.dumps({"custom_id": "r-0", "response": {"status_code": 200, "body": orjson.dumps(body).decode()}, "error": None})
    (reply,) = there.target.codec.decode(there.jobs.read(line).body, there.requests(["x"]))
    assert reply.value == answer_to("x")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("error", "said"),
    [({"message": "Invalid model"}, "Invalid model"), ("it went wrong", "it went wrong"), ({"status_code": 422, "message": "no"}, "no")],
)
def test_an_error_in_any_form_is_said(there: At, error: object, said: str) -> None:
    answer = there.jobs.read(orjson.dumps({"custom_id": "r-0", "response": None, "error": error}))
    assert answer.asked
    assert said in str(answer.error)
