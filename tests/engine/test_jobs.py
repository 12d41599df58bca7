"""A run by batch jobs, at a provider that serves OpenAI's batch protocol to the official SDK: every row once, nothing submitted twice."""

from __future__ import annotations

import asyncio
import re
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pandas as pd
import pytest

import llmkit
from llmkit import event_loop, session
from llmkit.adapter import JobBounds
from llmkit.engine import job_files
from llmkit.engine import jobs as engine_jobs
from llmkit.errors import BadInput, ConfigError, KeyRejected, RequestError, ServerFault
from llmkit.event_loop import Clock
from llmkit.providers import openai_jobs
from llmkit.session import Session
from llmkit.testing import ManualClock
from llmkit.types import Price, Usage
from tests.engine import turned
from tests.loopback import Answer, Close, CloseMidBody, Loopback, Status, bad_key, error_of, html_502, rate_limited, server_error
from tests.loopback.answers import Ordinary, Ready
from tests.loopback.batches import Job
from tests.loopback.server import Wire


@pytest.fixture
def clock() -> ManualClock:
    return turned.made()


@pytest.fixture
def lab(clock: ManualClock, server: Loopback) -> Loopback:
    llmkit.add_provider("lab", server.url, api_key="test-key-not-real")
    return server


def rows(count: int) -> pd.DataFrame:
    return pd.DataFrame({"text": [f"row {number}" for number in range(count)]})


def submit(frame: pd.DataFrame, **more: Any) -> Any:
    return frame.llm.chat("Say {text}", model="lab/m", batch=True, show_progress=False, **more)


def through(run: Any, clock: ManualClock) -> Any:
    return turned.carried_out(run, clock).result()


def jobs_of(server: Loopback) -> list[Job]:
    return list(server.batches.jobs.values())


def said(count: int) -> list[str]:
    return [f"answer to: Say row {number}" for number in range(count)]


def caps(monkeypatch: pytest.MonkeyPatch, requests: int = 50_000, bytes: int = 200_000_000, inputs: int | None = 50_000) -> None:
    monkeypatch.setattr(openai_jobs, "_BOUNDS", JobBounds(requests, bytes, inputs))


@dataclass(frozen=True)
class At(Answer):
    """``answer`` to the requests whose method and path match; the others are served."""

    pattern: str
    answer: Answer
    when: Callable[[], bool] = lambda: True

    async def send(self, wire: Wire, ordinary: Ordinary) -> None:
        assert wire._request is not None
        asked = f"{wire._request.method} {wire._request.path}"
        fits = re.search(self.pattern, asked) is not None and self.when()
        await (self.answer if fits else Ready()).send(wire, ordinary)


@dataclass(frozen=True)
class DoneAndLost(Answer):
    """The request is carried out, and its answer is lost."""

    async def send(self, wire: Wire, ordinary: Ordinary) -> None:
        ordinary()
        await Close().send(wire, ordinary)


POLL, LIST, SUBMIT, UPLOAD, RESULTS = r"GET .*/batches/", r"GET .*/batches$", r"POST .*/batches$", r"POST .*/files$", r"GET .*/content$"
FOR_EVER = float("inf")

# ----------------------------------------------------------------------------------------------------------------- every row once


def test_a_hundred_and_twenty_thousand_rows_are_three_jobs_and_every_row_has_its_answer_once(
    server: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    # By a true clock: one that is turned by hand turns as fast as it can, and takes the time of those who work.
    monkeypatch.setattr(engine_jobs, "_LOOK_SECONDS", 0.2)
    llmkit.add_provider("lab", server.url, api_key="test-key-not-real")
    server.keep_seen = False
    run = submit(rows(120_000))
    assert [50_000, 50_000, 20_000] == [len(job.lines) for job in jobs_of(server)]
    assert [50_000, 50_000, 20_000] == run.status()["requests"].tolist()
    assert max(len(file.data) for file in server.batches.files.values()) <= 200_000_000
    assert said(120_000) == run.result().tolist()
    assert Counter(f"Say row {number}" for number in range(120_000)) == server.batches.asked
    assert 120_000 == run.progress().done
    assert 0 == len(run.errors())


def test_bj05_a_run_is_split_by_the_vendors_requests_and_bytes(lab: Loopback, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    caps(monkeypatch, requests=40)
    assert said(90) == through(submit(rows(90)), clock).tolist()
    assert [40, 40, 10] == [len(job.lines) for job in jobs_of(lab)]
    lab.reset()
    caps(monkeypatch, bytes=4_000)
    run = submit(rows(200))
    sizes = [len(file.data) for file in lab.batches.files.values()]
    assert len(sizes) > 3
    assert max(sizes) <= 4_000 < min(sizes[:-1]) + 200
    assert said(200) == through(run, clock).tolist()
    assert 110 == sum(lab.batches.asked.values())


def test_bj05_embeddings_are_split_by_their_texts(lab: Loopback, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    caps(monkeypatch, inputs=40)
    run = rows(100).llm.embed("text", model="lab/test-embed", batch=True, show_progress=False)
    assert [40, 40, 20] == [len(job.lines) for job in jobs_of(lab)]
    vectors = through(run, clock)
    live = rows(100).llm.embed("text", model="lab/test-embed", cache="off", show_progress=False, wait=False)
    pd.testing.assert_series_equal(through(live, clock), vectors)


def test_a_row_that_is_larger_than_any_job_fails_alone(lab: Loopback, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    caps(monkeypatch, bytes=1_000)
    frame = pd.DataFrame({"text": ["short", "long" * 500]})
    run = submit(frame)
    assert ["answer to: Say short", None] == [None if value != value else value for value in through(run, clock)]
    assert ["invalid_request"] == run.errors()["kind"].tolist()


def test_bj06_ids_are_unique_short_and_plain_and_name_the_answer_not_the_row(lab: Loopback, clock: ManualClock) -> None:
    frame = pd.DataFrame({"text": ["ä\u2028é", "row", "ä\u2028é", None, "x" * 9_000]})
    through(submit(frame), clock)
    (job,) = jobs_of(lab)
    ids = [line.custom_id for line in job.lines]
    assert len(ids) == len(set(ids)) == 3
    assert all(re.fullmatch(r"[a-z0-9-]{1,64}", one) for one in ids)
    assert re.fullmatch(r"[a-z0-9-]{1,64}", job.metadata["llmkit"])


def test_answers_are_those_of_the_live_path_and_stored_for_it(lab: Loopback, clock: ManualClock) -> None:
    frame = pd.DataFrame({"text": ["one", None, "two", "one"]}, index=["a", "b", "b", "c"])
    stored = turned.carried_out(frame.iloc[2:3].llm.chat("Say {text}", model="lab/m", wait=False, show_progress=False), clock)
    assert 1 == stored.progress().done
    detail = through(submit(frame, detail=True), clock)
    assert ["batch", None, "cache", "batch"] == [None if value != value else value for value in detail["source"]]
    assert ["Say one"] == list(lab.batches.asked)
    before = lab.requests
    live = through(frame.llm.chat("Say {text}", model="lab/m", wait=False, show_progress=False), clock)
    assert before == lab.requests
    pd.testing.assert_series_equal(live, detail["value"], check_names=False)
    pd.testing.assert_index_equal(frame.index, detail.index)


def test_bj06_results_that_come_twice_in_any_order_with_unknown_ids_and_torn_lines_harm_nobody(lab: Loopback, clock: ManualClock) -> None:
    run = submit(rows(300))
    keep = lab.batches.keep

    def spoilt(name: str, purpose: str, data: bytes, prefix: str = "file-") -> Any:
        if purpose == "batch_output":
            lines = data.splitlines(keepends=True)
            stranger = lines[0].replace(orjson.loads(lines[0])["custom_id"].encode(), b"who-is-that")
            data = b"".join([*lines, stranger, b'{"custom_id": "torn\n', b"null\n", *reversed(lines), b"[1]"])
        return keep(name, purpose, data, prefix)

    lab.batches.keep = spoilt  # type: ignore[method-assign]
    turned.carried_out(run, clock)
    with pytest.warns(UserWarning, match="1 answers to questions that were not asked and 3 lines that cannot be read"):
        assert said(300) == run.result().tolist()
    assert 300 == run.usage().requests


def test_structured_answers_and_labels_are_read_as_they_are_live(lab: Loopback, clock: ManualClock) -> None:
    frame, fields = rows(20), {"city": str, "number": int}
    asked: list[Callable[..., Any]] = [
        lambda **how: frame.llm.extract(fields, on="text", model="lab/m", show_progress=False, **how),
        lambda **how: frame.llm.classify("text", ["billing", "row 7"], model="lab/m", show_progress=False, **how),
        lambda **how: frame.llm.chat("Say {text}", response_format="json", model="lab/m", show_progress=False, **how),
        lambda **how: frame["text"].llm.chat("Say it", model="lab/m", show_progress=False, **how),
    ]
    for ask in asked:
        made = through(ask(batch=True), clock)
        again = through(ask(wait=False, cache="refresh"), clock)
        (pd.testing.assert_frame_equal if isinstance(made, pd.DataFrame) else pd.testing.assert_series_equal)(again, made)


# ------------------------------------------------------------------------------------------------------------------ how jobs end


def test_a_job_that_expires_hands_in_what_it_has_and_a_retry_asks_the_rest_live(lab: Loopback, clock: ManualClock) -> None:
    lab.batches.end, lab.batches.share = "expired", 0.6
    run = submit(rows(50))
    values = through(run, clock)
    assert 30 == values.notna().sum() == run.progress().done
    assert {"unanswered"} == set(run.errors()["kind"])
    assert "expired" in run.errors()["error"][0]
    assert run.errors()["error"].str.contains("the same call again asks for it").all()  # true also of llmkit.job, which has no rows
    assert ["expired"] == run.status()["state"].tolist()
    assert said(50) == through(run.retry(), clock).tolist()
    assert 1 == len(jobs_of(lab))
    assert 20 == sum(request.path.endswith("/chat/completions") for request in lab.seen)
    assert {f"Say row {number}": 1 for number in range(30)} == lab.batches.asked


def test_a_retry_may_be_a_next_job(lab: Loopback, clock: ManualClock) -> None:
    lab.batches.end, lab.batches.share = "expired", 0.6
    run = submit(rows(50))
    through(run, clock)
    lab.batches.end, lab.batches.share = "completed", 1.0
    assert said(50) == through(run.retry(batch=True), clock).tolist()
    assert [50, 20] == [len(job.lines) for job in jobs_of(lab)]
    assert [1, 2] == run.status()["part"].tolist()
    assert Counter(f"Say row {number}" for number in range(50)) == lab.batches.asked
    assert said(50) == through(llmkit.job(run.id), clock).tolist()


def test_a_cancelled_run_keeps_what_was_answered_and_submits_nothing_more(lab: Loopback, clock: ManualClock) -> None:
    lab.batches.held, lab.batches.share = True, 0.4
    run = submit(rows(50))
    run.cancel()
    event_loop.call(turns, clock, 20, 400.0)
    assert ["cancelling"] == run.status()["state"].tolist()
    assert not run.done
    lab.batches.held = False
    values = through(run, clock)
    assert 20 == values.notna().sum()
    assert "cancelled" == run.stopped.kind if run.stopped else None
    assert ["cancelled"] == run.status()["state"].tolist()
    assert "cancelled" == llmkit.jobs()["state"][0]
    again = submit(rows(50))
    assert 30 == again.status()["requests"].sum()


def test_bj02_a_job_that_completed_without_a_file_of_answers_is_no_success(lab: Loopback, clock: ManualClock) -> None:
    lab.batches.null_output = True
    lab.batches.refuse = lambda text: error_of("openai", "bad_request")  # type: ignore[assignment, return-value]
    run = turned.carried_out(submit(rows(10)), clock)
    with pytest.warns(UserWarning, match="no row got an answer .10 x invalid_request"):
        assert run.result().isna().all()
    assert 10 == len(run.errors())


def test_bj02_a_job_that_is_refused_as_a_whole_says_why(lab: Loopback, clock: ManualClock) -> None:
    lab.batches.end = "failed"
    run = turned.carried_out(submit(rows(10)), clock)
    with pytest.warns(UserWarning, match="the file is not as it should be"):
        run.result()
    assert 10 == len(run.errors())
    assert "the file is not as it should be" in run.status()["note"][0]


def test_bj03_answers_errors_and_what_was_not_asked_are_told_apart(lab: Loopback, clock: ManualClock) -> None:
    lab.batches.end, lab.batches.share = "expired", 0.5
    lab.batches.refuse = lambda text: error_of("openai", "no_credit") if text.endswith("3") else None  # type: ignore[assignment, return-value]
    run = submit(rows(20))
    assert 9 == through(run, clock).notna().sum()
    assert {"out_of_credit": 1, "unanswered": 10} == run.errors()["kind"].value_counts().to_dict()


def test_a_job_for_which_there_is_no_room_yet_is_submitted_again_later(lab: Loopback, clock: ManualClock) -> None:
    lab.batches.end, lab.batches.complaint = "failed", ("token_limit_exceeded", "Enqueued token limit reached")
    run = submit(rows(10))
    began = clock.now()

    def make_room() -> None:
        if clock.now() > began + 100:
            lab.batches.end = "completed"

    turned.carried_out(run, clock, make_room)
    assert said(10) == run.result().tolist()
    names = [job.metadata["llmkit"] for job in jobs_of(lab)]
    assert 2 == len(set(names)) == len(names)
    assert clock.now() - began >= 120
    assert 10 == sum(lab.batches.asked.values())


def test_an_answer_that_is_not_valid_is_asked_again_live_by_retry(lab: Loopback, clock: ManualClock) -> None:
    lab.answer = lambda body: "no JSON" if "Answer again" not in str(body) and "row 3" in str(body) else '{"city": "Bern"}'
    run = rows(5).llm.extract({"city": str}, on="text", model="lab/m", batch=True, show_progress=False)
    assert 4 == through(run, clock)["city"].notna().sum()
    assert ["invalid"] == run.errors()["kind"].tolist()
    assert ["Bern"] * 5 == through(run.retry(), clock)["city"].tolist()


def test_jobs_go_to_the_first_model_and_a_retry_walks_the_route(lab: Loopback, clock: ManualClock) -> None:
    llmkit.add_provider("other", lab.compat_url_of("other"), api_key="test-key-not-real")
    lab.batches.end, lab.batches.share = "expired", 0.5
    run = submit(rows(4), fallback="other/n", detail=True)
    through(run, clock)
    lab.key = "another"  # the first account is refused now
    lab.fault(None, At("POST /v1/chat", bad_key()), times=FOR_EVER)
    lab.key = None
    detail = through(run.retry(), clock)
    assert ["lab", "lab", "other", "other"] == detail["provider"].tolist()
    assert ["batch", "batch", "live", "live"] == detail["source"].tolist()


def test_the_first_look_at_the_folder_submits(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    # By a true clock, and nobody would wait for a second look.
    monkeypatch.setattr(engine_jobs, "_LOOK_SECONDS", 1e6)
    llmkit.add_provider("lab", server.url, api_key="test-key-not-real")
    run = submit(rows(3))
    assert 1 == len(jobs_of(server))
    assert run.status()["id"].notna().all()
    run.status(refresh=True)
    assert said(3) == run.result().tolist()


def test_the_status_says_when_the_provider_said_so_and_asks_anew_where_that_is_wanted(
    server: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_jobs, "_LOOK_SECONDS", 1e6)
    llmkit.add_provider("lab", server.url, api_key="test-key-not-real")
    server.batches.held = True
    run = submit(rows(10))
    (first,) = run.status()["looked"]
    assert abs(pd.Timestamp.now("UTC") - first) < pd.Timedelta(minutes=1)
    asked = server.requests
    assert [first] == run.status()["looked"].tolist()
    assert asked == server.requests
    (second,) = run.status(refresh=True)["looked"]
    assert second > first
    assert asked + 1 == server.requests
    server.fault(None, At(POLL, server_error()), times=1)
    status = run.status(refresh=True)
    assert [second] == status["looked"].tolist()
    assert status["note"].notna().all()
    assert ["in_progress"] == status["state"].tolist()
    server.batches.held = False
    run.status(refresh=True)
    assert said(10) == run.result().tolist()


def test_results_that_are_soon_deleted_are_warned_of_as_the_job_goes_out(
    lab: Loopback, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_jobs, "_BOUNDS", JobBounds(2, 10_000, kept_hours=24))
    with pytest.warns(UserWarning, match="lab keeps the results of batch jobs for 24 hours only") as told:
        run = submit(rows(5))
    assert 1 == len(told)
    assert said(5) == through(run, clock).tolist()  # and not once more
    monkeypatch.setattr(openai_jobs, "_BOUNDS", JobBounds(2, 10_000, kept_hours=72))
    assert said(7) == through(submit(rows(7)), clock).tolist()


# ------------------------------------------------------------------------------------------------------------ what gets in the way


async def turns(clock: ManualClock, count: int, seconds: float) -> None:
    """Let the clock run on, with time for threads to do what they are at."""
    import asyncio

    for _ in range(count):
        for _ in range(20):
            await asyncio.sleep(0.001)
        clock.advance(seconds)


def test_bj08_an_hour_of_faults_and_pages_in_place_of_answers_kills_no_job(lab: Loopback, clock: ManualClock) -> None:
    lab.batches.held = True
    run = submit(rows(10))
    until = clock.now() + 3600

    def outage() -> bool:
        return clock.now() < until

    wrong = [server_error(), rate_limited(), html_502(), Status(200, "<html>Sign in</html>", {"content-type": "text/html"}), Close()]
    wrong += [Status(403, "<html>Hotel</html>", {"content-type": "text/html"})]
    lab.fault(None, *(At(POLL, answer, outage) for answer in wrong), times=FOR_EVER)
    lab.batches.held = False
    assert said(10) == through(run, clock).tolist()
    assert clock.now() >= until
    assert 1 == len(jobs_of(lab))
    polls = [request for request in lab.seen if request.method == "GET" and "/batches/" in request.path]
    assert 12 <= len(polls) <= 60  # an hour at one each five minutes, and more of them at first


def test_bj07_a_download_that_breaks_off_is_taken_up_and_kept_before_it_is_read(lab: Loopback, clock: ManualClock) -> None:
    run = submit(rows(200))
    lab.fault(None, *[At(RESULTS, CloseMidBody(0.6))] * 4, times=2)
    lab.fault(None, At(RESULTS, server_error()), times=3)
    assert said(200) == through(run, clock).tolist()
    ranges = [request.headers.get("range") for request in lab.seen if request.path.endswith("/content")]
    assert any(ranges)


def test_bj07_results_that_the_vendor_has_deleted_are_told_row_by_row(lab: Loopback, clock: ManualClock) -> None:
    run = submit(rows(10))
    lab.fault(None, At(RESULTS, Status(404, {"error": {"message": "No such File object"}})), times=FOR_EVER)
    turned.carried_out(run, clock)
    with pytest.warns(UserWarning, match="knows the batch job, or its results, no longer"):
        run.result()
    assert {"job_gone"} == set(run.errors()["kind"])
    lab.clear_faults()
    assert said(10) == through(run.retry(), clock).tolist()


def test_a_submit_whose_answer_is_lost_is_found_again_by_its_name(lab: Loopback, clock: ManualClock) -> None:
    lab.fault(None, At(SUBMIT, DoneAndLost()), At(SUBMIT, DoneAndLost()), times=1)
    run = submit(rows(10))
    assert said(10) == through(run, clock).tolist()
    assert 1 == len(jobs_of(lab))


def test_a_submit_that_never_arrived_is_made_again(lab: Loopback, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_jobs, "_SETTLES_SECONDS", 0.0)
    lab.fault(None, At(UPLOAD, Close()), At(SUBMIT, server_error()), times=2)
    run = submit(rows(10))
    assert said(10) == through(run, clock).tolist()
    assert 1 == len(jobs_of(lab))


def test_where_jobs_are_not_listed_a_submit_that_nobody_knows_of_is_not_made_twice(lab: Loopback, clock: ManualClock) -> None:
    lab.fault(None, At(SUBMIT, DoneAndLost()), At(SUBMIT, DoneAndLost()))
    lab.fault(None, At(LIST, Status(405, {"detail": "Method Not Allowed"})), times=FOR_EVER)
    run = turned.carried_out(submit(rows(3)), clock)
    with pytest.warns(UserWarning, match="whether there is one is not known"):
        run.result()
    assert 1 == len(jobs_of(lab))
    assert {"unknown_submit"} == set(run.errors()["kind"])
    lab.clear_faults()
    assert said(3) == through(run.retry(), clock).tolist()


def test_a_run_that_is_cancelled_as_it_writes_leaves_nothing_behind(lab: Loopback, clock: ManualClock) -> None:
    run = submit(rows(20_000), wait=False)
    run.cancel()
    turned.carried_out(run, clock)
    assert "cancelled" == run.stopped.kind
    assert [] == [path.name for path in Path(session.default().settings.cache_dir, "jobs").iterdir() if path.is_dir()]
    assert 0 == lab.requests


def test_a_folder_that_is_taken_for_a_run_that_was_stopped_meanwhile_is_left_to_others(tmp_path: Path) -> None:
    shelf = job_files.Shelf(tmp_path / "jobs")
    shelf.directory.mkdir()
    go_on = threading.Event()

    def take() -> job_files.Hold | None:
        go_on.wait(10)
        return shelf.gate()

    async def stop_who_waits() -> job_files.Hold | None:
        waiting = asyncio.ensure_future(engine_jobs._taken_hold(take))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting.cancel()
        assert isinstance((await asyncio.gather(waiting, return_exceptions=True))[0], asyncio.CancelledError)
        go_on.set()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        await asyncio.gather(*others)
        return shelf.gate()

    hold = event_loop.call(stop_who_waits)
    assert hold is not None
    hold.release()


def test_the_intent_is_on_the_disk_before_the_submit(lab: Loopback, clock: ManualClock, cache_dir: Path) -> None:
    seen: list[Any] = []

    def look() -> bool:
        (folder,) = (path for path in Path(session.default().settings.cache_dir, "jobs").iterdir() if path.is_dir())
        seen.append(orjson.loads((folder / "job.json").read_bytes())["parts"][0])
        return False

    lab.fault(None, At(SUBMIT, Close(), look), times=FOR_EVER)
    run = submit(rows(3))
    assert [("written", "")] == [(part["state"], part["id"]) for part in seen]
    assert abs(seen[0]["intent"] - time.time()) < 600
    through(run, clock)


def test_a_refused_key_ends_the_call_and_leaves_no_prompts_behind(lab: Loopback, clock: ManualClock) -> None:
    lab.key = "another"
    with pytest.raises(KeyRejected):
        submit(rows(3))
    assert [] == llmkit.jobs()["id"].tolist()
    lab.key = None
    assert said(3) == through(submit(rows(3)), clock).tolist()


def test_a_server_without_batches_is_told_of_in_a_word(lab: Loopback, clock: ManualClock) -> None:
    lab.fault(None, At(UPLOAD, Status(404, {"detail": "Not Found"})), times=FOR_EVER)
    with pytest.raises(ConfigError, match="lab has no batch jobs at this address"):
        submit(rows(3))
    assert [] == llmkit.jobs()["id"].tolist()


def test_what_the_vendor_quotes_of_a_prompt_is_left_out_of_its_error(lab: Loopback, clock: ManualClock) -> None:
    secret = "the patient Jane Doe has measles"
    lab.batches.refuse = lambda text: Status(400, {"error": {"message": f"I cannot read: {text}"}})
    run = turned.carried_out(submit(pd.DataFrame({"text": [secret]})), clock)
    with pytest.warns(UserWarning, match="words are left out"):
        run.result()
    assert "Jane" not in run.errors()["error"][0]
    folder = next(path for path in Path(session.default().settings.cache_dir, "jobs").iterdir() if path.is_dir())
    assert not any(b"Jane" in path.read_bytes() for path in folder.iterdir() if path.is_file())


# -------------------------------------------------------------------------------------------------------------- several who look after


class Another:
    """Another process, as far as a session is one: its own connections and shard in the same folder."""

    def __init__(self, clock: Clock) -> None:
        self.session = Session(cache_dir=session.default().settings.cache_dir, clock=clock)
        key = session.default().settings.key(session.default().catalogue.provider("lab"))  # type: ignore[arg-type]
        assert key is not None
        self.session.set_key("lab", key.reveal())

    def __enter__(self) -> Session:
        return self.session

    def __exit__(self, *_: object) -> None:
        self.session.close()


def test_a_call_that_others_have_submitted_takes_their_job_up(lab: Loopback, clock: ManualClock) -> None:
    lab.batches.held = True
    first = submit(rows(30))
    with Another(clock) as other:
        second = rows(40).llm.using(other).chat("Say {text}", model="lab/m", batch=True, show_progress=False)
        assert [30, 10] == [len(job.lines) for job in jobs_of(lab)]
        assert {first.id, second.id} == set(second.status()["run"])
        lab.batches.held = False
        assert said(40) == through(second, clock).tolist()
        assert said(30) == through(first, clock).tolist()
        assert 40 == first.progress().done - first.progress().stored + second.progress().done - second.progress().stored
    assert Counter(f"Say row {number}" for number in range(40)) == lab.batches.asked


def test_two_calls_at_the_same_moment_submit_one_job(lab: Loopback, clock: ManualClock) -> None:
    runs = [submit(rows(50), wait=False) for _ in range(3)]
    for run in runs:
        turned.carried_out(run, clock)
    assert [said(50)] * 3 == [run.result().tolist() for run in runs]
    assert [50] == [len(job.lines) for job in jobs_of(lab)]


def test_a_job_is_taken_up_by_a_process_that_comes_later(lab: Loopback, clock: ManualClock) -> None:
    index = pd.MultiIndex.from_tuples([("a", 1), ("a", 1), ("b", 2), ("c", 3)], names=["letter", None])
    frame = pd.DataFrame({"text": ["one", "two", None, "one"]}, index=index)
    asked: list[Callable[..., Any]] = [
        lambda **how: frame.llm.chat("Say {text}", model="lab/m", show_progress=False, **how),
        lambda **how: frame.llm.chat("Say {text}", model="lab/m", detail=True, temperature=0.5, show_progress=False, **how),
        lambda **how: frame.llm.embed("text", model="lab/test-embed", show_progress=False, **how),
        lambda **how: frame.llm.classify("text", {"x": "is x", "y": "is y"}, model="lab/m", show_progress=False, **how),
        lambda **how: frame.llm.extract({"city": str, "n": (int, "how many"), "tone": ["good", "bad"]}, on="text", model="lab/m",
                                        show_progress=False, **how),
        lambda **how: frame.llm.extract([{"part": str}], on="text", explode=True, model="lab/m", show_progress=False, **how),
        lambda **how: frame.llm.extract(bool, on="text", model="lab/m", show_progress=False, **how),
    ]  # fmt: skip
    for ask in asked:
        lab.batches.held = True
        run = ask(batch=True)
        run._running.cancel()  # as its process would end
        assert run.wait(5)
        session.default().close()
        session.default.made = Session(clock=clock)
        llmkit.add_provider("lab", lab.url, api_key="test-key-not-real")
        lab.batches.held = False
        taken = llmkit.job(run.id)
        result = through(taken, clock)
        again = through(ask(wait=False), clock)
        if "source" in result:  # there it was taken in, here it is found
            result, again = result.drop(columns=["source", "attempts", "cost"]), again.drop(columns=["source", "attempts", "cost"])
        (pd.testing.assert_frame_equal if isinstance(again, pd.DataFrame) else pd.testing.assert_series_equal)(result, again)
    assert len(asked) == len(jobs_of(lab)) == len(llmkit.jobs())


def test_a_run_whose_schema_cannot_be_written_down_is_taken_up_by_the_same_call(lab: Loopback, clock: ManualClock) -> None:
    frame = rows(3)
    lab.batches.held = True
    run = frame.llm.extract({"city": str}, on="text", join=True, model="lab/m", batch=True, show_progress=False)
    taken = llmkit.job(run.id)
    assert 1 == len(taken.status()) or taken.wait(0.1) is False
    lab.batches.held = False
    turned.carried_out(taken, clock)
    with pytest.raises(ConfigError, match="Make the same call again"):
        taken.result()
    turned.carried_out(run, clock)
    again = frame.llm.extract({"city": str}, on="text", join=True, model="lab/m", batch=True, show_progress=False)
    assert ["text", "city"] == list(through(again, clock).columns)
    assert 1 == len(jobs_of(lab))


def test_a_job_that_is_asked_for_by_a_name_that_is_none(lab: Loopback) -> None:
    with pytest.raises(BadInput, match="no batch run 'nobody'"):
        llmkit.job("nobody")
    with pytest.raises(BadInput):
        llmkit.job("")


def test_jobs_of_another_account_are_left_to_it(lab: Loopback, clock: ManualClock) -> None:
    lab.batches.held = True
    run = submit(rows(3))
    llmkit.set_key("lab", "another-key-not-real")
    with pytest.raises(ConfigError, match="another account"):
        llmkit.job(run.id)
    other = submit(rows(3))
    assert 2 == len(jobs_of(lab))
    lab.batches.held = False
    through(other, clock)
    llmkit.set_key("lab", "test-key-not-real")
    through(run, clock)


def test_a_clock_that_jumps_finds_its_job_again(lab: Loopback, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    for count, jump in enumerate((-3 * 86400.0, 40 * 3600.0), 1):
        frame = pd.DataFrame({"text": [f"at {jump} {number}" for number in range(3)]})
        monkeypatch.setattr(time, "time", lambda jump=jump: real() + jump)
        lab.fault(None, At(SUBMIT, DoneAndLost()), times=1)
        lab.fault(None, At(SUBMIT, DoneAndLost()), times=1)
        run = submit(frame)
        monkeypatch.setattr(time, "time", real)
        assert through(run, clock).notna().all()
        assert count == len(jobs_of(lab))


def test_a_job_that_may_be_ours_and_is_not_is_put_back(server: Loopback, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_jobs, "_SETTLES_SECONDS", 0.0)
    anthropic = pytest.importorskip("anthropic")
    url = server.url_of("anthropic")
    llmkit.add_provider("ant", url, "key-not-real", "anthropic")
    # Anthropic keeps no name with a job: of two of one size only the answers tell whose they are.
    request = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "somebody else's"}]}
    server.fault(None, At("POST .*/batches$", Close()), times=1)
    run = rows(3).llm.chat("Say {text}", model="ant/m", batch=True, show_progress=False)
    assert ["submitting"] == run.status()["state"].tolist()
    with anthropic.Anthropic(api_key="key-not-real", base_url=url) as client:
        client.messages.batches.create(requests=[{"custom_id": f"theirs-{number}", "params": request} for number in range(3)])
    assert said(3) == through(run, clock).tolist()
    assert [["theirs-0", "theirs-1", "theirs-2"]] == [
        ids for job in jobs_of(server) if "theirs-0" in (ids := sorted(line.custom_id for line in job.lines))
    ]
    assert 2 == len(jobs_of(server))


# ----------------------------------------------------------------------------------------------------------------------------- money


@pytest.fixture
def priced(lab: Loopback) -> Loopback:
    price = {"input": 4.0, "output": 8.0, "batch_input": 2.0, "batch_output": 4.0}
    llmkit.catalogue.merge({"models": [{"provider": "lab", "name": "m", "price": price, "operations": ["chat"], "output_limit": 1000}]})
    return lab


def test_batch_prices_stand_in_the_estimate_and_in_the_bill(priced: Loopback, clock: ManualClock) -> None:
    frame = rows(40)
    live = frame.llm.chat("Say {text}", model="lab/m", max_tokens=10, dry_run=True)
    batch = submit(frame, max_tokens=10, dry_run=True)
    assert live.cost == pytest.approx(2 * batch.cost)
    assert 40 == batch.requests
    assert batch.seconds is None
    assert "24 hours" in batch.basis
    priced.batches.end, priced.batches.share = "expired", 0.5
    run = submit(frame, max_tokens=10)
    through(run, clock)
    usage = run.usage()
    assert run.cost == pytest.approx((2.0 * usage.input + 4.0 * usage.output) / 1e6)
    through(run.retry(), clock)
    later = run.usage()
    more = (4.0 * (later.input - usage.input) + 8.0 * (later.output - usage.output)) / 1e6
    assert run.cost == pytest.approx((2.0 * usage.input + 4.0 * usage.output) / 1e6 + more)
    assert "lab/m > " not in run.summary()


def test_what_is_cached_or_long_is_as_much_cheaper_in_jobs_as_the_rest() -> None:
    price = Price(4.0, 0.4, 8.0, 5.0, batch_input=1.0, batch_output=3.0, long_from=1_000, long_input=8.0, long_output=16.0)
    assert (1.0, 0.1, 3.0, 1.25) == (price.in_jobs.input, price.in_jobs.cached_input, price.in_jobs.output, price.in_jobs.cache_write)
    assert (1_000, 2.0, 4.0) == (price.in_jobs.long_from, price.in_jobs.long_input, price.in_jobs.long_output)
    assert (None, None) == (Price(4.0, output=8.0).in_jobs.input, Price(4.0, output=8.0).in_jobs.output)
    assert Usage(10, 0, 10).cost(Price(4.0, output=8.0).in_jobs) is None


def test_a_job_that_is_out_does_not_hide_what_was_paid_meanwhile(priced: Loopback, clock: ManualClock) -> None:
    priced.batches.held = True
    run = submit(rows(4), max_tokens=10)
    live = turned.carried_out(rows(9)[6:].llm.chat("Say {text}", model="lab/m", wait=False, show_progress=False), clock)
    live.result()
    (used,) = llmkit.usage(by="model").to_dict("records")
    assert live.cost == pytest.approx(used["cost"]) == used["cost_at_least"]
    assert 1 == used["unfinished"]
    assert "at least" in repr(llmkit.report())
    priced.batches.held = False
    through(run, clock)
    assert live.cost + run.cost == pytest.approx(llmkit.usage(by="model")["cost"][0])


def test_answers_of_jobs_teach_the_estimate_and_leave_the_limiter_alone(priced: Loopback, clock: ManualClock) -> None:
    def account() -> Any:
        engine = session.default().engine
        return engine.account(session.default().target("lab/m", "chat"))

    before = rows(5).llm.chat("Say {text}", model="lab/m", dry_run=True)
    run = submit(rows(40), max_tokens=10)
    window = account().limiter.facts()
    through(run, clock)
    learned, usage, body = account(), run.usage(), max(len(line) for line in bodies(priced))
    assert 40 == learned.replies
    assert usage.input / 40 / body == pytest.approx(learned.tokens_per_byte, rel=0.2)
    assert window == learned.limiter.facts()
    after = rows(5).llm.chat("Other {text}", model="lab/m", dry_run=True)
    assert "learned" in after.basis
    assert "learned" not in before.basis


def bodies(server: Loopback) -> list[bytes]:
    return [orjson.dumps(line.body) for job in jobs_of(server) for line in job.lines]


def test_a_price_of_jobs_that_is_not_known_is_no_price(lab: Loopback) -> None:
    price = {"input": 4.0, "output": 8.0}
    llmkit.catalogue.merge({"models": [{"provider": "lab", "name": "m", "price": price, "operations": ["chat"]}]})
    assert submit(rows(3), dry_run=True).cost is None
    with pytest.raises(ConfigError, match="lab/m in batch jobs is unknown"):
        submit(rows(3), max_cost=1.0)


def test_no_more_rows_are_submitted_than_max_cost_has_room_for(priced: Loopback, clock: ManualClock) -> None:
    run = submit(rows(100), max_tokens=10, max_cost=0.002)
    (job,) = jobs_of(priced)
    turned.carried_out(run, clock)
    with pytest.warns(UserWarning, match=r"max_cost=\$0.002 is reached"):
        values = run.result()
    assert 0 < len(job.lines) < 100
    assert len(job.lines) == values.notna().sum()
    assert run.cost is not None
    assert run.cost <= 0.002
    assert {"budget"} == set(run.errors()["kind"])


# -------------------------------------------------------------------------------------------------------------------- what cannot go


def test_what_cannot_go_in_a_job_is_refused_before_anything_is_written(lab: Loopback) -> None:
    import openai

    frame = rows(2)

    def tool(a: int) -> int:
        """Add."""
        return a

    with openai.OpenAI(api_key="x", base_url=lab.url) as client:
        refused: list[Callable[[], Any]] = [
            lambda: frame.llm.chat("Say {text}", model="lab/m", tools=[tool], batch=True),
            lambda: frame.llm.chat("Say {text}", model="echo/echo", batch=True),
            lambda: frame.llm.embed("text", model="local/lexical", batch=True),
            lambda: frame.llm.chat("Say {text}", model=(client, "m"), batch=True),
            lambda: submit(frame, cache="off"),
            lambda: frame.llm.extract({"a": str}, on="text", model="lab/m", check="lab/n", batch=True),
            lambda: frame.llm.chat("Say {text}", model="lab/m", batch="yes"),
        ]
        for ask in refused:
            with pytest.raises(ConfigError):
                ask()
    assert 0 == lab.requests
    assert [] == llmkit.jobs()["id"].tolist()


def test_a_frame_without_rows_asks_nobody(lab: Loopback) -> None:
    run = submit(rows(0))
    assert 0 == len(run.result())
    assert 0 == lab.requests
    with pytest.raises(ConfigError, match="no batch jobs"):
        run.status()


# ------------------------------------------------------------------------------------------------------------------------- the disk


def test_a_runs_folder_is_private_and_keeps_no_prompt_once_it_is_through(lab: Loopback, clock: ManualClock) -> None:
    lab.batches.held = True
    run = submit(rows(3))
    folder = Path(session.default().settings.cache_dir, "jobs", run.id)
    assert 0o700 == stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(folder.parent.stat().st_mode)
    assert {0o600} == {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert b"row 1" in (folder / "part-1.jsonl").read_bytes()
    lab.batches.held = False
    through(run, clock)
    assert [] == [path.name for path in folder.iterdir() if path.name.startswith("part")]
    assert not any(b"row 1" in path.read_bytes() for path in folder.iterdir())


def test_what_a_process_left_that_was_killed_as_it_wrote_is_cleared_away(lab: Loopback, clock: ManualClock) -> None:
    through(submit(rows(1)), clock)
    shelf = session.default().shelf
    left = shelf.new("20200101-000000-abcdef")
    (left.path / "part-1.jsonl").write_bytes(b"{}")
    damaged = shelf.new("20200101-000000-abcdee")
    (damaged.path / "job.json").write_bytes(b"{")
    assert said(2) == through(submit(rows(2)), clock).tolist()
    assert not left.path.exists()
    assert damaged.path.exists()  # whoever can read it may still want it
    assert 2 == len(llmkit.jobs())


def test_a_disk_that_takes_no_lines_ends_the_call_before_anything_is_sent(lab: Loopback) -> None:
    through_a_file = Path(session.default().settings.cache_dir, "jobs")
    through_a_file.parent.mkdir(parents=True, exist_ok=True)
    through_a_file.write_bytes(b"")
    with pytest.raises(ConfigError, match="cannot be written or read"):
        submit(rows(3))
    assert 0 == lab.requests


def test_a_batch_run_stands_in_the_journal_like_any_other(lab: Loopback, clock: ManualClock) -> None:
    lab.batches.end, lab.batches.share = "expired", 0.5
    run = submit(rows(10))
    through(run, clock)
    assert 0 == len(run.history())
    assert "5 of 10 rows" in repr(run)
    line = llmkit.runs(limit=1).iloc[0]
    assert ["chat", "lab/m", 10, 5, 5, 0] == [line[name] for name in ("operation", "models", "rows", "done", "errors", "stored")]
    assert 5 == llmkit.usage(by="model")["answers"].sum()
    from llmkit_widgets import RunMonitor

    monitor = RunMonitor()
    monitor._follow(run)
    card = monitor._card(run)
    assert [["lab/m"], 5, 5, "done"] == [card[name] for name in ("models", "done", "errors", "state")]
    monitor.close()


def test_a_failed_row_may_be_raised(lab: Loopback, clock: ManualClock) -> None:
    lab.batches.refuse = lambda text: error_of("openai", "bad_request") if text.endswith("2") else None  # type: ignore[assignment, return-value]
    run = turned.carried_out(submit(rows(4), on_error="raise"), clock)
    with pytest.raises(RequestError):
        run.result()
    assert 3 == run.partial().notna().sum()


def test_a_run_can_be_awaited_and_watched(lab: Loopback, clock: ManualClock) -> None:
    seen: list[int] = []
    run = submit(rows(10), limit=5)
    run.watch(lambda progress: seen.append(progress.done))
    turned.carried_out(run, clock)

    async def wait() -> Any:
        return await run

    import asyncio

    assert 5 == asyncio.run(wait()).notna().sum()
    assert 5 == through(llmkit.job(run.id[:15]), clock).notna().sum()


def test_errors_come_back_from_the_disk_as_they_were() -> None:
    for error in (ServerFault("no answer", kind="unanswered", status=503), RequestError("refused"), KeyRejected("no", status=401)):
        back = job_files.error_of(orjson.loads(orjson.dumps(job_files.facts_of(error))))
        assert (type(error), error.message, error.kind, error.status) == (type(back), back.message, back.kind, back.status)
