"""What only xAI's batch jobs have: counters for a status, and results in pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from llmkit.errors import RateLimited, RequestError, ServerFault
from tests.loopback import Json, Loopback, answer_to
from tests.providers.conformance.test_jobs import At, at


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback() as server:
        yield server


@pytest.fixture
def there(server: Loopback, tmp_path: Path) -> At:
    return at("xai", server, tmp_path)


def test_results_are_gone_through_page_by_page(there: At, server: Loopback) -> None:
    texts = [f"row {number}" for number in range(250)]
    replies = there.replies(there.jobs.look(there.target, there.submit(texts).id), texts)
    assert [reply.value for reply in replies] == list(map(answer_to, texts))
    assert sum(request.path.endswith("/results") for request in server.seen) == 3


@pytest.mark.parametrize(
    ("counters", "state"),
    [
        ({}, "going"),  # the file was not read yet
        ({"num_requests": 2, "num_pending": 1, "num_success": 1}, "going"),
        ({"num_requests": 2, "num_pending": 0, "num_success": 2}, "ended"),
        ({"num_requests": 2, "num_pending": 0, "num_error": 2}, "ended"),
    ],
)
def test_counters_say_whether_something_may_still_come(there: At, server: Loopback, counters: dict[str, int], state: str) -> None:
    server.fault(None, Json({"batch_id": "b", "name": "n", "state": counters, "create_time": "2026-11-21"}))
    assert there.jobs.look(there.target, "b").state == state


def test_a_job_that_xai_stopped_says_why(there: At, server: Loopback) -> None:
    told = {"batch_id": "b", "state": {}, "cancel_time": "2026-11-21T00:00:00Z", "cancel_by_xai_message": "line 3 is no JSON"}
    server.fault(None, Json(told))
    state = there.jobs.look(there.target, "b")
    assert (state.state, state.said) == ("ended", "refused")
    assert "line 3 is no JSON" in str(state.error)


@pytest.mark.parametrize(("code", "kind"), [(3, RequestError), (8, RateLimited), (13, ServerFault), (None, RequestError)])
def test_an_error_of_one_request_is_what_its_code_says(there: At, code: int | None, kind: type[Exception]) -> None:
    line = {"batch_request_id": "r-0", "batch_result": {"error": {"code": code, "message": "so it is"}}}
    answer = there.jobs.read(orjson.dumps(line))
    assert isinstance(answer.error, kind)
    assert answer.asked


def test_a_request_that_was_cancelled_was_not_asked(there: At) -> None:
    answer = there.jobs.read(orjson.dumps({"batch_request_id": "r-0", "batch_result": {"error": {"code": 1, "message": "cancelled"}}}))
    assert (answer.asked, answer.error) == (False, None)
