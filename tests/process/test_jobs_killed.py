"""kill -9 at any moment of a batch run: the next process takes its jobs up, and no row is submitted, or billed, twice."""

from __future__ import annotations

import random
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.engine.test_jobs import FOR_EVER, POLL, RESULTS, SUBMIT, UPLOAD, At
from tests.loopback import Answer, Hang, Loopback
from tests.loopback.answers import Ordinary
from tests.loopback.server import Wire
from tests.process.child import Child, settled
from tests.process.test_kill import kept

ROWS, CAP = 2_400, 1_000

#: Of three jobs by a cap that is scaled down, with waits to match.
SCALED = f"""
from llmkit.adapter import JobBounds
from llmkit.engine import jobs
from llmkit.providers import openai_jobs
openai_jobs._BOUNDS = JobBounds({CAP}, 200_000_000, {CAP})
jobs._LOOK_SECONDS, jobs._LOOK_MOST_SECONDS, jobs._SETTLES_SECONDS = 0.05, 0.2, 0.3
"""

CALL = f"""
df = pd.DataFrame({{"text": [f"row {{i}}" for i in range({ROWS})]}}, index=pd.Index(range({ROWS}, 0, -1), name="number"))
run = df.llm.chat("Say {{text}}", model="lab/m", batch=True, show_progress=False)
say(run.id)
values = run.result()
say([values.tolist(), values.index.tolist(), str(values.dtype), len(run.errors()), run.usage().requests])
"""

EXPECTED = [f"answer to: Say row {number}" for number in range(ROWS)]
ONCE = Counter({f"Say row {number}": 1 for number in range(ROWS)})


class Met(Answer):
    """Carries the request out, or not, tells that it came, and answers nobody."""

    def __init__(self, carried_out: bool) -> None:
        self.carried_out = carried_out
        self.came = threading.Event()

    async def send(self, wire: Wire, ordinary: Ordinary) -> None:
        if self.carried_out:
            ordinary()
        self.came.set()
        await Hang().send(wire, ordinary)


@contextmanager
def meeting(server: Loopback, pattern: str, carried_out: bool) -> Iterator[Met]:
    met = Met(carried_out)
    server.fault(None, At(pattern, met), times=FOR_EVER)
    yield met
    server.clear_faults()


def end(server: Loopback, home: Path) -> Any:
    """The same call again, to its end."""
    with Child(SCALED + CALL, server.url, home) as child:
        child.hear()
        result = child.hear()
        child.end()
    return result


def check(server: Loopback, result: Any) -> None:
    values, index, _, errors, _ = result
    assert EXPECTED == values
    assert list(range(ROWS, 0, -1)) == index
    assert 0 == errors
    assert ONCE == server.batches.asked
    assert [CAP, CAP, ROWS - 2 * CAP] == [len(job.lines) for job in server.batches.jobs.values()]


@pytest.mark.parametrize(
    ("moment", "pattern", "carried_out"),
    [
        ("before a submit", UPLOAD, False),
        ("as the file is there and no job", UPLOAD, True),
        ("between the submit and the journal", SUBMIT, True),
        ("while nobody knows whether there was one", SUBMIT, False),
        ("after it", POLL, False),
        ("in the middle of the results", RESULTS, False),
    ],
)
def test_a_run_that_is_killed_is_taken_up_by_the_same_call(tmp_path: Path, moment: str, pattern: str, carried_out: bool) -> None:
    with Loopback(keep_seen=False) as server:
        with meeting(server, pattern, carried_out) as met, Child(SCALED + CALL, server.url, tmp_path) as child:
            assert met.came.wait(30), moment
            child.kill()
        check(server, end(server, tmp_path))


def test_a_run_that_is_killed_again_and_again_ends_with_every_row_once(tmp_path: Path) -> None:
    chance = random.Random(20261121)
    with Loopback(keep_seen=False) as server:
        for _ in range(6):
            with Child(SCALED + CALL, server.url, tmp_path) as child:
                try:
                    server.wait_for(server.requests + chance.randint(1, 6), 30)
                except AssertionError:
                    break  # all was through, and this one found it so
                child.kill()
            settled(server)
        check(server, end(server, tmp_path))
        seen = server.requests
        assert 0 == end(server, tmp_path)[4]
        assert seen == server.requests


def test_a_run_that_is_killed_as_it_takes_answers_in_bills_none_of_them_twice(tmp_path: Path) -> None:
    dying = """
import os, signal
read, slices = jobs.JobLine._read_lines, []
def read_lines(self, *args):
    slices.append(1)
    if len(slices) == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return read(self, *args)
jobs.JobLine._read_lines = read_lines
"""
    with Loopback(keep_seen=False) as server:
        with Child(SCALED + dying + CALL, server.url, tmp_path) as child:
            assert child.process.wait(60) == -signal.SIGKILL
        here = kept(tmp_path / "cache")
        assert 0 < here < ROWS
        result = end(server, tmp_path)
        check(server, result)
        assert ROWS - here == result[4]


def test_a_run_is_taken_up_by_its_id_in_another_process(tmp_path: Path) -> None:
    with Loopback(keep_seen=False) as server:
        server.batches.held = True
        with Child(SCALED + CALL, server.url, tmp_path) as child:
            name_of_run = child.hear()
            child.kill()
        server.batches.held = False
        take_up = f"""
run = llmkit.job({name_of_run!r})
values = run.result()
say([values.tolist(), values.index.tolist(), values.index.name, values.name, str(values.dtype), llmkit.jobs()["state"].tolist()])
"""
        with Child(SCALED + take_up, server.url, tmp_path) as child:
            values, index, name, column, dtype, states = child.hear()
            child.end()
        assert [EXPECTED, list(range(ROWS, 0, -1)), "number", "chat", ["through"]] == [values, index, name, column, states]
        assert str(pd.Series(["a"]).dtype) == dtype
        assert ONCE == server.batches.asked
        assert 3 == len(server.batches.jobs)


def test_two_processes_look_after_one_run(tmp_path: Path) -> None:
    with Loopback(keep_seen=False) as server:
        server.batches.held = True
        with Child(SCALED + CALL, server.url, tmp_path) as first, Child(SCALED + CALL, server.url, tmp_path) as second:
            assert first.hear()
            assert second.hear()
            server.batches.held = False
            results = [first.hear(), second.hear()]
            first.end()
            second.end()
        for result in results:
            check(server, result)
        assert ROWS == sum(result[4] for result in results)  # what was billed stands in the books once


def test_ctrl_c_stops_the_waiting_and_not_the_job(tmp_path: Path) -> None:
    wait = f"""
df = pd.DataFrame({{"text": [f"row {{i}}" for i in range({ROWS})]}})
run = df.llm.chat("Say {{text}}", model="lab/m", batch=True, show_progress=False)
say("waiting")
try:
    run.result()
except KeyboardInterrupt:
    say([run.done, run.status()["state"].tolist()])
say(len(run.result()))
"""
    with Loopback(keep_seen=False) as server:
        server.batches.held = True
        with Child(SCALED + wait, server.url, tmp_path) as child:
            assert "waiting" == child.hear()
            server.wait_for(server.requests + 3)
            child.process.send_signal(signal.SIGINT)
            assert [False, ["in_progress"] * 3] == child.hear()
            server.batches.held = False
            assert ROWS == child.hear()
            assert "the jobs go on at the provider" in child.end()
        assert ONCE == server.batches.asked
        assert {"completed"} == {job.said for job in server.batches.jobs.values()}


def test_ctrl_c_while_jobs_are_submitted_submits_no_more_and_the_same_call_goes_on(tmp_path: Path) -> None:
    with Loopback(keep_seen=False) as server:
        with meeting(server, SUBMIT, False) as met, Child(SCALED + CALL, server.url, tmp_path) as child:
            assert met.came.wait(30)
            child.process.send_signal(signal.SIGINT)
            assert child.process.wait(15) != 0
            assert "the same call again takes them up and submits the rest" in " ".join(child.stderr.split())
        assert not server.batches.jobs
        check(server, end(server, tmp_path))


def test_neither_prompts_nor_results_are_all_in_memory(tmp_path: Path) -> None:
    measure = """
import resource
def most():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
warm = pd.DataFrame({"text": ["warm"]}).llm.classify("text", ["a", "b"], model="lab/m", batch=True, show_progress=False).result()
df = pd.DataFrame({"text": [f"row {i} " + "x" * 8_000 for i in range(8_000)]})
before = most()
run = df.llm.classify("text", ["a", "b"], model="lab/m", batch=True, show_progress=False)
submitted = most()
assert run.result().notna().all()
say([before, submitted, most()])
"""
    with Loopback(keep_seen=False) as server:
        keep = server.batches.keep

        def long(name: str, purpose: str, data: bytes, prefix: str = "file-") -> Any:
            if purpose == "batch_output":
                data = data.replace(b'{"id"', b'{"padding":"' + b"x" * 8_000 + b'","id"')
            return keep(name, purpose, data, prefix)

        server.batches.keep = long  # type: ignore[method-assign]
        with Child(SCALED.replace(f"JobBounds({CAP}", "JobBounds(4_000") + measure, server.url, tmp_path) as child:
            before, submitted, ended = child.hear(120)
            child.end()
        assert all(len(file.data) > 30e6 for file in server.batches.files.values() if file.data.count(b"\n") > 1)
    assert submitted - before < 25
    assert ended - submitted < 25
