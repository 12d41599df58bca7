"""What only Gemini's batch jobs have: files by the native API, and a name that is the file's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from llmkit.adapter import JobIntent
from llmkit.errors import ServerFault
from llmkit.providers.openai import adapter
from tests.loopback import Json, Loopback, Status, answer_to
from tests.providers.conformance.test_jobs import NAME, At, at


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback() as server:
        yield server


@pytest.fixture
def there(server: Loopback, tmp_path: Path) -> At:
    return at("gemini", server, tmp_path)


def test_results_come_back_to_their_rows_however_they_are_permuted(there: At) -> None:
    """googleapis/js-genai#1207: inline results do not, beyond a thousand."""
    texts = [f"row {number}" for number in range(1200)]
    replies = there.replies(there.jobs.look(there.target, there.submit(texts).id), texts)
    assert [reply.value for reply in replies] == list(map(answer_to, texts))


def test_the_key_goes_in_googles_header_to_the_native_api_and_not_to_the_upload(there: At, server: Loopback) -> None:
    state = there.jobs.look(there.target, there.submit(["a row"]).id)
    there.results(state)
    start, upload, create, look, download = server.seen
    assert "authorization" in create.headers
    assert "authorization" in look.headers
    for native in (start, upload, download):
        assert "authorization" not in native.headers
    assert [("x-goog-api-key" in request.headers) for request in server.seen] == [True, False, False, False, True]


def test_an_upload_that_is_sent_elsewhere_is_not_made(there: At, server: Loopback) -> None:
    server.fault(None, Status(200, {}, {"x-goog-upload-url": "http://127.0.0.1:9/upload"}))
    with pytest.raises(ServerFault, match="elsewhere"):
        there.submit(["a row"])
    assert server.requests == 1


def test_where_the_list_names_no_file_the_time_and_number_say_that_a_job_may_be_ours(there: At, server: Loopback) -> None:
    state = there.submit(["one", "two"])
    other = there.submit(["just one"], name="llmkit-of-another-run-0")
    for job in server.batches.jobs.values():
        job.input_file = ""
    real = server.batches.files
    assert len(real) == 2
    (found,) = there.jobs.find(there.target, JobIntent(NAME, 2, time.time()))
    assert (found.id, found.certain) == (state.id, False)
    assert found.id != other.id


def test_a_gateway_has_no_jobs(there: At) -> None:
    provider = replace(there.target.provider, base_url="https://gateway.example/v1")
    jobs = adapter().jobs
    assert jobs is not None
    assert jobs(replace(there.target, provider=provider)) is None


def test_an_answer_of_the_upload_without_a_file_is_the_servers_fault(there: At, server: Loopback) -> None:
    where = f"{server.url_of('gemini')}/upload/v1beta/files?upload_id=x"
    server.fault(None, Status(200, {}, {"x-goog-upload-url": where}), Json({}))
    with pytest.raises(ServerFault):
        there.submit(["a row"])
