"""What only Anthropic's batch jobs have: the requests in one body, errors of single requests, and no name to be found by."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pandas as pd
import pytest

import llmkit
from llmkit.adapter import JobIntent
from llmkit.errors import InvalidRequest, OutOfCredit, Overloaded, RequestError
from llmkit.testing import ManualClock
from tests.engine import turned
from tests.loopback import Json, Loopback, Reset, answer_to, error_of
from tests.providers.conformance.test_jobs import NAME, At, Lost, at


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback() as server:
        yield server


@pytest.fixture
def there(server: Loopback, tmp_path: Path) -> At:
    return at("anthropic", server, tmp_path)


def test_results_that_are_mixed_and_in_any_order_are_told_apart(there: At, server: Loopback) -> None:
    """BJ03: what was refused for want of credit and what expired can be sent again, and cost nothing."""
    poor, busy = error_of("anthropic", "no_credit"), error_of("anthropic", "overloaded")
    server.batches.refuse = lambda text: {"row 2": poor, "row 5": busy}.get(text)  # type: ignore[assignment,return-value]
    server.batches.end, server.batches.share = "expired", 0.7
    texts = [f"row {number}" for number in range(10)]
    answers = there.results(there.jobs.look(there.target, there.submit(texts).id))
    assert list(answers) != [f"r-{number}" for number in range(10)]
    assert isinstance(answers["r-2"].error, OutOfCredit)
    assert isinstance(answers["r-5"].error, Overloaded)
    assert answers["r-2"].error.request_id
    assert [answers[f"r-{number}"].asked for number in range(10)] == [True] * 7 + [False] * 3
    assert sum(answer.body is not None for answer in answers.values()) == 5


@pytest.mark.parametrize("ending", [b"", b"\n"])
def test_the_lines_of_a_file_become_one_body(there: At, server: Loopback, ending: bytes) -> None:
    file = there.file(["one", "two", "three"])
    file.write_bytes(file.read_bytes().rstrip(b"\n") + ending)
    there.jobs.submit(there.target, file, JobIntent(NAME, 3, time.time()))
    (request,) = server.seen
    assert [one["custom_id"] for one in request.body["requests"]] == ["r-0", "r-1", "r-2"]
    assert "transfer-encoding" not in request.headers
    assert int(request.headers["content-length"]) == len(orjson.dumps(request.body))


def test_jobs_are_looked_for_by_time_and_number_through_all_pages(there: At, server: Loopback) -> None:
    wanted = there.submit(["one", "two"]).id
    began = server.batches.jobs[wanted].created
    for number in range(230):
        other = there.submit(["just one"]).id
        server.batches.jobs[other].created = began + number
    long_ago = there.submit(["of another", "day"]).id
    server.batches.jobs[long_ago].created = began - 86400
    (found,) = there.jobs.find(there.target, JobIntent(NAME, 2, began))
    assert (found.id, found.certain) == (wanted, False)


def test_the_nearest_after_the_intent_comes_first(there: At, server: Loopback) -> None:
    ids = [there.submit(["one", "two"]).id for _ in range(3)]
    began = time.time()
    for seconds, name in enumerate(ids):
        server.batches.jobs[name].created = began + seconds
    assert [state.id for state in there.jobs.find(there.target, JobIntent(NAME, 2, began))] == ids


def test_results_that_were_archived_are_gone(there: At, server: Loopback) -> None:
    """BJ07: after 29 days."""
    state = there.submit(["a row"])
    told = {
        "id": state.id, "type": "message_batch", "processing_status": "ended", "created_at": "2026-10-01T00:00:00.000000Z",
        "expires_at": "2026-10-02T00:00:00Z", "archived_at": "2026-10-30T00:00:00Z", "results_url": "https://example.org/results",
        "request_counts": {"processing": 0, "succeeded": 1, "errored": 0, "canceled": 0, "expired": 0},
    }  # fmt: skip
    server.fault(None, Json(told))
    state = there.jobs.look(there.target, state.id)
    assert (state.state, state.outputs) == ("ended", ())
    assert isinstance(state.error, InvalidRequest)
    assert "29 days" in str(state.error)


def test_behind_a_gateway_the_key_is_not_sent_to_the_address_that_it_hands_on(there: At, server: Loopback, tmp_path: Path) -> None:
    state = there.jobs.look(there.target, there.submit(["a row"]).id)
    theirs = f"https://api.anthropic.com/v1/messages/batches/{state.id}/results"
    there.jobs.fetch(there.target, replace(state, outputs=(theirs,)), tmp_path / "results.jsonl")
    assert server.seen[-1].path == f"/anthropic/v1/messages/batches/{state.id}/results"


def test_a_job_that_is_refused_as_a_whole_says_why(there: At) -> None:
    file = there.file(["one", "two"])
    file.write_bytes(file.read_bytes().replace(b"r-1", b"r-0"))
    with pytest.raises(RequestError, match="custom_id"):
        there.jobs.submit(there.target, file, JobIntent(NAME, 2, time.time()))


# ------------------------------------------------------------------------------------------ where nothing says whose a job is


@pytest.fixture
def clock() -> ManualClock:
    return turned.made()


@pytest.fixture
def moved(server: Loopback, clock: ManualClock) -> Loopback:
    llmkit.catalogue.merge({"providers": {"anthropic": {"base_url": server.url_of("anthropic")}}})
    llmkit.set_key("anthropic", "a.key.0123456789abcdef")
    return server


def called() -> Any:
    frame = pd.DataFrame({"text": ["row 0", "row 1", "row 2"]})
    return frame.llm.chat("{text}", model="anthropic/m", batch=True, show_progress=False)


EXPECTED = [answer_to(f"row {number}") for number in range(3)]


def test_a_submit_whose_answer_was_lost_is_not_made_twice(moved: Loopback, clock: ManualClock) -> None:
    moved.fault(None, Lost())
    assert turned.carried_out(called(), clock).result().tolist() == EXPECTED
    assert len(moved.batches.jobs) == 1
    assert set(moved.batches.asked.values()) == {1}


def test_a_strangers_job_of_the_same_time_and_number_is_known_by_its_answers(moved: Loopback, clock: ManualClock, there: At) -> None:
    theirs = there.submit(["their row 0", "their row 1", "their row 2"])
    moved.fault(None, Reset())  # ours never arrives
    assert turned.carried_out(called(), clock).result().tolist() == EXPECTED
    assert len(moved.batches.jobs) == 2
    assert theirs.id in moved.batches.jobs
    assert [moved.batches.asked[f"row {number}"] for number in range(3)] == [1, 1, 1]
