"""The same facts of every vendor that has batch jobs, each driven by its official SDK over a real socket."""

from __future__ import annotations

import re
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from llmkit.adapter import JobAnswer, JobIntent, Jobs, JobState, Target
from llmkit.errors import KeyRejected, LLMError, OutOfCredit, RequestError, ServerFault, Unreachable, Unsupported
from llmkit.operations.chat import ChatPayload, Message, Schema
from llmkit.types import Model, Request, Secret
from scripts import providers_page as page
from tests.loopback import CloseMidBody, Loopback, LoopbackProcess, Reset, Status, answer_to, error_of, fill

from . import house

VENDORS = ["anthropic", "gemini", "groq", "mistral", "openai", "together", "vllm", "xai"]
#: Those whose jobs take embeddings too.
EMBEDDERS = ["gemini", "mistral", "openai", "vllm"]
NAME = "llmkit-0123456789abcdef-0"
every_vendor = pytest.mark.parametrize("vendor", VENDORS)


@dataclass
class At:
    """A vendor's jobs at the loopback."""

    target: Target
    jobs: Jobs
    folder: Path

    def requests(self, texts: Sequence[str], schema: Schema | None = None) -> list[Request]:
        if self.target.codec.path.endswith("embeddings"):
            return [Request("embed", text) for text in texts]
        return [Request("chat", ChatPayload((Message("user", text),), schema=schema)) for text in texts]

    def file(self, texts: Sequence[str], schema: Schema | None = None) -> Path:
        file = self.folder / "job.jsonl"
        requests = self.requests(texts, schema)
        lines = [self.jobs.line(f"r-{at}", self.target.codec.encode([one], self.target), self.target) for at, one in enumerate(requests)]
        assert not any(b"\n" in line for line in lines)
        file.write_bytes(b"".join(line + b"\n" for line in lines))
        return file

    def submit(self, texts: Sequence[str], schema: Schema | None = None, name: str = NAME) -> JobState:
        return self.jobs.submit(self.target, self.file(texts, schema), JobIntent(name, len(texts), time.time()))

    def results(self, state: JobState) -> dict[str, JobAnswer]:
        file = self.folder / "results.jsonl"
        self.jobs.fetch(self.target, state, file)
        read = [self.jobs.read(line) for line in file.read_bytes().splitlines()]
        assert len({answer.custom_id for answer in read}) == len(read)
        return {answer.custom_id: answer for answer in read}

    def replies(self, state: JobState, texts: Sequence[str], schema: Schema | None = None) -> list[Any]:
        """What the codec makes of the answers, in the order of the texts; ``None`` where there is none."""
        found = self.results(state)
        told: list[Any] = []
        for at, request in enumerate(self.requests(texts, schema)):
            answer = found.get(f"r-{at}")
            if answer is None or answer.error or not answer.asked:
                told.append(None)
            else:
                (reply,) = self.target.codec.decode(answer.body, [request])
                told.append(reply)
        return told


def at(vendor: str, server: Loopback | LoopbackProcess, folder: Path, operation: str = "chat", key: str = "a.key.0123456789") -> At:
    provider = replace(page.providers()[vendor], base_url=house.address_of(vendor, server))
    adapter = page.adapter(vendor)
    target = Target(Model(vendor, "test-model"), provider, adapter, adapter.codecs[operation], Secret(key))
    assert adapter.jobs is not None
    jobs = adapter.jobs(target)
    assert jobs is not None
    return At(target, jobs, folder)


@pytest.fixture
def there(vendor: str, server: Loopback, tmp_path: Path) -> At:
    return at(vendor, server, tmp_path)


@every_vendor
def test_a_job_brings_the_answers_that_live_calls_bring(there: At, server: Loopback) -> None:
    texts = [f"row {number}: déjà vu 😀" for number in range(20)]
    state = there.jobs.look(there.target, there.submit(texts).id)
    assert (state.state, state.error) == ("ended", None)
    replies = there.replies(state, texts)
    assert [reply.value for reply in replies] == list(map(answer_to, texts))
    assert all(reply.usage.requests == 1 and reply.usage.input and reply.usage.output for reply in replies)
    assert {reply.finish for reply in replies} == {"stop"}
    assert set(server.batches.asked.values()) == {1}


@pytest.mark.parametrize("vendor", EMBEDDERS)
def test_a_job_of_embeddings_brings_the_vectors_that_live_calls_bring(vendor: str, server: Loopback, tmp_path: Path) -> None:
    there = at(vendor, server, tmp_path, "embed")
    texts = [f"row {number}" for number in range(5)]
    state = there.jobs.look(there.target, there.submit(texts).id)
    assert [len(reply.value) for reply in there.replies(state, texts)] == [8] * 5


@every_vendor
def test_structured_answers_come_out_of_the_codec_as_live(there: At, server: Loopback) -> None:
    form = {"type": "object", "properties": {"first": {"type": "string"}}, "required": ["first"], "additionalProperties": False}
    schema = Schema("answer", form)
    texts = ["one row", "another"]
    state = there.jobs.look(there.target, there.submit(texts, schema).id)
    replies = there.replies(state, texts, schema)
    assert [orjson.loads(reply.value) for reply in replies] == [fill(form, text) for text in texts]


@every_vendor
def test_one_refused_request_has_its_error_and_the_others_their_answers(there: At, vendor: str, server: Loopback) -> None:
    refused = error_of(house.voice_of(vendor), "bad_request")
    server.batches.refuse = lambda text: refused if text == "row 3" else None  # type: ignore[assignment,return-value]
    texts = [f"row {number}" for number in range(10)]
    state = there.jobs.look(there.target, there.submit(texts).id)
    answers = there.results(state)
    wrong = answers.pop("r-3")
    assert isinstance(wrong.error, RequestError)
    assert (wrong.asked, wrong.body) == (True, None)
    assert all(answer.error is None and answer.asked for answer in answers.values())
    assert len(answers) == 9


@every_vendor
def test_a_job_that_expired_keeps_what_was_answered(there: At, server: Loopback) -> None:
    server.batches.end, server.batches.share = "expired", 0.6
    texts = [f"row {number}" for number in range(10)]
    state = there.jobs.look(there.target, there.submit(texts).id)
    assert state.state == "ended"
    answers = there.results(state)
    assert sum(answer.body is not None for answer in answers.values()) == 6
    # What is not there was not asked, and what is there without an answer says so.
    assert all(answer.body is not None or (not answer.asked and answer.error is None) for answer in answers.values())


@every_vendor
def test_a_job_that_was_cancelled_keeps_what_was_answered(there: At, server: Loopback) -> None:
    server.batches.held, server.batches.share = True, 0.5
    texts = [f"row {number}" for number in range(10)]
    state = there.submit(texts)
    assert (state.state, there.jobs.look(there.target, state.id).state) == ("going", "going")
    there.jobs.cancel(there.target, state.id)
    server.batches.held = False
    state = there.jobs.look(there.target, state.id)
    assert state.state == "ended"
    assert sum(answer.body is not None for answer in there.results(state).values()) == 5


@every_vendor
def test_cancelling_what_has_ended_says_how_it_ended(there: At) -> None:
    state = there.jobs.look(there.target, there.submit(["a row"]).id)
    assert there.jobs.cancel(there.target, state.id).state == "ended"


@pytest.mark.parametrize("vendor", [name for name in VENDORS if name != "xai"])  # whose results are no file
def test_a_job_without_results_has_nothing_to_fetch(there: At, server: Loopback) -> None:
    server.batches.null_output = True
    state = there.jobs.look(there.target, there.submit(["a row"]).id)
    assert (state.state, state.outputs) == ("ended", ())
    assert there.results(state) == {}


@pytest.mark.parametrize("vendor", [name for name in VENDORS if name != "anthropic"])  # which refuses when it is posted
def test_a_job_that_failed_says_why(there: At, server: Loopback) -> None:
    server.batches.end = "failed"
    state = there.jobs.look(there.target, there.submit(["a row"]).id)
    assert (state.state, state.outputs) == ("ended", ())
    assert isinstance(state.error, RequestError)
    assert "not as it should be" in str(state.error)


@every_vendor
def test_a_job_is_found_again_and_the_others_are_not(there: At, vendor: str, server: Loopback) -> None:
    intent = JobIntent(NAME, 2, time.time())
    assert there.jobs.find(there.target, intent) == []
    there.submit(["another job"], name="llmkit-of-another-run-0")
    mine = there.submit(["one", "two"])
    (found,) = there.jobs.find(there.target, intent)
    assert found.id == mine.id
    assert found.certain == (vendor != "anthropic")  # the one that keeps no name
    assert [answer.asked for answer in there.results(there.jobs.look(there.target, found.id)).values()] == [True, True]


@every_vendor
def test_a_job_of_long_ago_is_not_looked_for(there: At, server: Loopback, vendor: str) -> None:
    there.submit(["one", "two"])
    later = JobIntent("llmkit-later-0" if vendor != "anthropic" else NAME, 2, time.time() + 3600)
    assert there.jobs.find(there.target, later) == []


@every_vendor
def test_a_job_whose_submission_lost_its_answer_is_found(there: At, server: Loopback) -> None:
    """The vendor has the job, we have an exception: what must not be paid twice."""
    intent = JobIntent(NAME, 2, time.time())
    file = there.file(["one", "two"])
    there.jobs.submit(there.target, file, intent)
    made = server.requests
    server.clear_faults()
    server.reset()
    # So many requests make a job; the answer to the last of them is lost.
    server.fault(None, *[Passing()] * (made - 1), Lost())
    with pytest.raises(Unreachable):
        there.jobs.submit(there.target, file, intent)
    server.clear_faults()
    assert len(server.batches.jobs) == 1
    (found,) = there.jobs.find(there.target, intent)
    assert found.id.rpartition("/")[2] in server.batches.jobs


class Passing(Status):
    """The ordinary answer."""

    def __init__(self) -> None:
        super().__init__(200)

    async def send(self, wire: Any, ordinary: Any) -> None:
        wire.finish(b"".join(ordinary()))


class Lost(Status):
    """The request is seen to, and the connection reset where its answer should be."""

    def __init__(self) -> None:
        super().__init__(200)

    async def send(self, wire: Any, ordinary: Any) -> None:
        ordinary()
        await Reset().send(wire, ordinary)


@every_vendor
@pytest.mark.parametrize("kind", ["server_error", "rate_limited", "html_502"])
def test_a_poll_that_fails_is_an_error_to_wait_for_and_the_job_goes_on(there: At, vendor: str, kind: Any, server: Loopback) -> None:
    state = there.submit(["a row"])
    fault = error_of(house.voice_of(vendor), kind)
    assert fault is not None
    server.fault(None, fault)
    with pytest.raises(LLMError) as raised:
        there.jobs.look(there.target, state.id)
    assert not isinstance(raised.value, RequestError)
    assert there.jobs.look(there.target, state.id).state == "ended"


@every_vendor
def test_a_page_in_place_of_an_answer_is_the_servers_fault(there: At, server: Loopback) -> None:
    state = there.submit(["a row"])
    page = Status(200, "<html>Please log in</html>", {"content-type": "text/html"})
    server.fault(None, page)
    with pytest.raises(ServerFault):
        there.jobs.look(there.target, state.id)
    ended = there.jobs.look(there.target, state.id)
    server.fault(None, page, times=float("inf"))
    with pytest.raises(ServerFault):
        there.jobs.fetch(there.target, ended, there.folder / "results.jsonl")
    assert [path.name for path in there.folder.iterdir()] == ["job.jsonl"]


@every_vendor
@pytest.mark.parametrize("told", [b"{}", b'{"id": null, "data": 7}', b'{"id": "x", "request_counts": [], "state": 3}', b"[]", b"null", b""])
def test_an_answer_that_is_not_what_is_documented_is_the_servers_fault(there: At, server: Loopback, told: bytes) -> None:
    state = there.submit(["a row"])
    server.fault(None, Status(200, told), times=float("inf"))
    for call in (
        lambda: there.jobs.look(there.target, state.id),
        lambda: there.jobs.cancel(there.target, state.id),
        lambda: there.jobs.submit(there.target, there.folder / "job.jsonl", JobIntent(NAME, 1, time.time())),
    ):
        try:
            call()
        except LLMError as error:
            assert "a row" not in str(error)
    server.clear_faults()
    assert there.jobs.look(there.target, state.id).state == "ended"


@every_vendor
@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_is_cut_is_taken_up_again(there: At, ranges: bool, server: Loopback, vendor: str) -> None:
    server.batches.ranges = ranges
    texts = [f"row {number}" for number in range(50)]
    state = there.jobs.look(there.target, there.submit(texts).id)
    before = server.requests
    server.fault(None, CloseMidBody(0.6))
    if vendor == "xai":  # its results come in pages, each a small answer
        with pytest.raises(Unreachable):
            there.jobs.fetch(there.target, state, there.folder / "results.jsonl")
        assert [path.name for path in there.folder.iterdir()] == ["job.jsonl"]
        return
    replies = there.replies(state, texts)
    assert [reply.value for reply in replies] == list(map(answer_to, texts))
    again = server.seen[before + 1]
    assert re.fullmatch(r"bytes=\d+-", again.headers["range"])
    assert server.requests == before + 2


@every_vendor
def test_a_download_that_always_breaks_off_leaves_no_file(there: At, server: Loopback) -> None:
    state = there.jobs.look(there.target, there.submit(["a row"]).id)
    server.fault(None, CloseMidBody(0.0), times=float("inf"))
    with pytest.raises(Unreachable):
        there.jobs.fetch(there.target, state, there.folder / "results.jsonl")
    assert [path.name for path in there.folder.iterdir()] == ["job.jsonl"]


@every_vendor
def test_a_refused_key_is_said_and_not_shown(vendor: str, server: Loopback, tmp_path: Path) -> None:
    key = "a.secret.key.of.no.known.shape"
    there = at(vendor, server, tmp_path, key=key)
    fault = error_of(house.voice_of(vendor), "bad_key")
    assert fault is not None
    server.fault(None, fault)
    with pytest.raises(KeyRejected) as raised:
        there.submit(["my prompt"])
    assert key not in repr(raised.value)
    assert "my prompt" not in repr(raised.value)
    assert raised.value.__cause__ is None
    assert key not in repr(there.target)


@pytest.mark.parametrize("vendor", ["anthropic", "openai", "mistral"])
def test_an_empty_account_is_said_before_anything_runs(there: At, vendor: str, server: Loopback) -> None:
    fault = error_of(house.voice_of(vendor), "no_credit")
    assert fault is not None
    server.fault(None, fault)
    with pytest.raises(OutOfCredit):
        there.submit(["a row"])


@every_vendor
def test_an_address_that_has_no_jobs_is_told_of_in_a_word(there: At, server: Loopback) -> None:
    server.fault(None, Status(404, {"error": {"message": "Not Found"}}))
    with pytest.raises(Unsupported, match="no batch jobs"):
        there.submit(["a row"])


@every_vendor
def test_prompts_are_never_sent_on_to_another_address(there: At, server: Loopback) -> None:
    server.fault(None, Status(307, b"", {"location": "http://127.0.0.1:9/elsewhere"}))
    with pytest.raises(LLMError, match="redirects"):
        there.submit(["a row"])


@every_vendor
def test_what_is_no_result_line_is_told_from_one(there: At) -> None:
    for line in (b"", b"null", b"{}", b'{"custom_id": 1}', b'{"custom_id"', b"[]", b"<html>"):
        with pytest.raises(ValueError, match=r"not a result line|line 1 column"):
            there.jobs.read(line)


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[LoopbackProcess]:
    """A server whose memory is not ours."""
    with LoopbackProcess() as process:
        yield process


@every_vendor
def test_a_file_is_never_held_in_memory(vendor: str, elsewhere: LoopbackProcess, tmp_path: Path) -> None:
    """Neither on its way up nor on its way down: it is larger than all that may be allocated."""
    there = at(vendor, elsewhere, tmp_path)
    assert there.jobs.look(there.target, there.submit(["x" * 3000]).id).state == "ended"  # what is imported is no part of it
    line, file = (tmp_path / "job.jsonl").read_bytes(), tmp_path / "job.jsonl"
    file.write_bytes(b"".join(line.replace(b"r-0", b"r-%d" % number) for number in range(3_000)))
    intent, results = JobIntent(NAME, 3_000, time.time()), tmp_path / "results.jsonl"

    def there_and_back() -> None:
        state = there.jobs.submit(there.target, file, intent)
        there.jobs.fetch(there.target, there.jobs.look(there.target, state.id), results)

    tracemalloc.start(1)
    try:
        there_and_back()
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 6_500_000 < 9_000_000 < min(file.stat().st_size, results.stat().st_size)


@every_vendor
def test_bounds_are_known(there: At) -> None:
    bounds = there.jobs.bounds(there.target)
    assert bounds.requests in (50_000, 100_000)
    assert 100_000_000 <= bounds.bytes <= 2_000_000_000
