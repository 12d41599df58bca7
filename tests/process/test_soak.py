"""A week of runs through mixed faults, by a clock that is turned by hand: every row is accounted for, and nothing piles up.

Sockets, the store and its files are the real ones. What waits for a moment (back-offs, pauses, circuits, look-ups) lives by the hand-turned
clock; a request's own time-out is the socket's, hence the few that hang are given a short one.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import re
import sys
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import llmkit
from llmkit import event_loop, session
from llmkit.engine.store import Store
from llmkit.testing import ManualClock
from tests.loopback import (
    Breaking,
    Close,
    CloseMidBody,
    Hang,
    Loopback,
    Raw,
    Reset,
    Seen,
    Status,
    html_502,
    overloaded,
    rate_limited,
    server_error,
    vector_of,
)

RUNS = 200
#: Runs in which imports, threads and caches of a fixed size are made; what there is after them has to do for the rest. Memory is traced
#: from the first of the two numbers on.
WARM_UP = 28, 70
WEEK = 7 * 86400.0
#: Bytes that Python may hold on to in all the runs after that: a row that stayed behind in each would be more.
GROWTH = 120_000

#: What passes by itself.
PASSING = [
    rate_limited(retry_after_ms=300),
    rate_limited(retry_after="20"),
    rate_limited(retry_after="0"),
    Status(429, {"error": {"message": "Slow down", "type": "requests", "code": "rate_limit_exceeded"}}),
    server_error(),
    Status(503, {"error": {"message": "Service unavailable", "type": "server_error"}}),
    overloaded(),
    html_502(),
    Reset(),
    Close(),
    CloseMidBody(0.6),
    Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n\x00\xff\x00"),
    Raw(b"this is no HTTP\r\n\r\n"),
    Status(200, b""),
    Status(200, b'{"choices": [{"message": {"content": "\xff\xfe"}}], "data": 7}'),
    Status(200, b"\x1f\x8b\x08\x00damaged", {"content-encoding": "gzip"}),
]
REFUSED = Status(400, {"error": {"message": "refused", "type": "invalid_request_error", "code": None}})


class Week:
    """The runs of a week, one every fifty minutes, and the books of what they may cost."""

    def __init__(self, lab: Loopback, spare: Loopback) -> None:
        self.lab, self.spare = lab, spare
        self.clock = ManualClock()
        self.random = random.Random(10)
        self.rows = 0
        #: By a row's text: whole answers that a server gave, and those that the calls of this week have any use for.
        self.served: Counter[str] = Counter()
        self.wanted: Counter[str] = Counter()
        #: Whole answers at the most that nobody was there to hear.
        self.dropped = 0
        self.asked_before: list[str] = []
        lab.latency = spare.latency = self.serve
        session.default.made = llmkit.Session(clock=self.clock)
        llmkit.add_provider("lab", lab.url, "key")
        llmkit.add_provider("spare", spare.url, "key")

    @property
    def engine(self) -> Any:
        return session.default().engine

    def serve(self, request: Seen) -> float:
        self.served.update(found.group() for text in request.texts if (found := re.search(r"row \d+\.", text)))
        return 0.03 if "slow" in request.texts[0] else 0.0

    # ------------------------------------------------------------------------------------------------------- time and rows

    def turn(self, until: Callable[[], bool]) -> None:
        """Let the clock go on from alarm to alarm, never while a request is on its way."""

        async def turned() -> None:
            given_up = time.monotonic() + 30.0
            while not until():
                await asyncio.sleep(0.0005)
                assert time.monotonic() < given_up, "a run stands still"
                due = self.clock.next_alarm
                if due is not None and not any(account.limiter.in_flight for account in self.engine._accounts.values()):
                    self.clock.advance(max(0.0, due - self.clock.now()))

        event_loop.call(turned)

    def sleep_until(self, moment: float) -> None:
        async def pass_over() -> None:
            self.clock.advance(max(0.0, moment - self.clock.now()))

        event_loop.call(pass_over)

    def texts(self, most: int = 40) -> list[str]:
        """New rows, some of them equal."""
        count = self.random.randint(1, most)
        first, self.rows = self.rows, self.rows + count
        fresh = [f"row {number}.{' slow' if number % 97 == 0 else ''}" for number in range(first, first + count)]
        return fresh + self.random.choices(fresh, k=count // 4)

    def faulty(self, texts: Sequence[str], server: Loopback) -> None:
        for text in self.random.sample(texts, k=len(texts) // 4):
            server.fault(text, self.random.choice(PASSING), times=self.random.randint(1, 2))

    # ------------------------------------------------------------------------------------------------------------- calling

    def chat(self, texts: Sequence[str], model: Any = "lab/test-chat", **options: Any) -> Any:
        self.want(texts, options)
        return pd.DataFrame({"text": texts}).llm.chat("Say {text}", model=model, show_progress=False, wait=False, **options)

    def embed(self, texts: Sequence[str], **options: Any) -> Any:
        self.want(texts, options)
        return pd.DataFrame({"text": texts}).llm.embed("text", model="lab/test-embed", show_progress=False, wait=False, **options)

    def rerank(self, texts: Sequence[str], **options: Any) -> Any:
        self.want(texts, options)
        return pd.DataFrame({"text": texts}).llm.rerank("row 7.", on="text", model="lab/test-rerank", wait=False, **options)

    def want(self, texts: Sequence[str], options: dict[str, Any]) -> None:
        for name in {text.removesuffix(" slow") for text in texts}:
            if options.get("cache", "use") != "use" or not self.wanted[name]:
                self.wanted[name] += 1

    def through(self, run: Any, texts: Sequence[str], errors: Sequence[str] = ()) -> None:
        """Wait for the run by the hand-turned clock: each row has its own answer, or is one of those that have an error."""
        self.turn(lambda: run.done)
        self.accounted(run, texts, errors)

    def stop(self, run: Any, texts: Sequence[str]) -> None:
        """Stop the run where it is: each row has an answer or the reason why there is none."""
        run.cancel()
        assert run.wait(10)
        assert len(run.errors()) + run.partial().notna().sum() == len(texts)
        self.dropped += run.possibly_billed

    @staticmethod
    def accounted(run: Any, texts: Sequence[str], errors: Sequence[str] = ()) -> None:
        said, failed = run.partial() if errors else run.result(), run.errors()
        assert run.stopped is None, repr(run.stopped)
        assert [texts[row] for row in failed["row"]] == [text for text in texts if text in set(errors)], failed
        answered = {row: text for row, text in enumerate(texts) if text not in set(errors)}
        if run.operation == "chat":
            assert said.dropna().to_dict() == {row: f"answer to: Say {text}" for row, text in answered.items()}
        elif run.operation == "embed":
            assert said.dropna().index.tolist() == list(answered)
            assert all(np.array_equal(said[row], vector_of(text, 8)) for row, text in answered.items())
        else:
            assert sorted(said.index) == list(answered)


# ------------------------------------------------------------------------------------------------------------------ the runs


def plain_chat(week: Week) -> None:
    texts = week.texts()
    week.faulty(texts, week.lab)
    week.asked_before = texts
    week.through(week.chat(texts, max_attempts=9), texts)


def vectors(week: Week) -> None:
    texts = week.texts(200)
    week.faulty(texts[:12], week.lab)
    week.lab.fault(texts[0], REFUSED, times=float("inf"))
    run = week.embed(texts, max_attempts=60)
    week.through(run, texts, errors=texts[:1])
    week.lab.clear_faults()
    week.through(run.retry(), texts)


def documents(week: Week) -> None:
    texts = list(dict.fromkeys(week.texts(20)))
    week.lab.fault(None, *week.random.sample(PASSING, k=3))
    week.through(week.rerank(texts, max_attempts=9), texts)


def the_same_again(week: Week) -> None:
    before = week.lab.requests
    run = week.chat(week.asked_before)
    week.through(run, week.asked_before)
    assert week.lab.requests == before


def refreshed_and_off(week: Week) -> None:
    for cache in ("refresh", "off"):
        week.faulty(week.asked_before, week.lab)
        week.through(week.chat(week.asked_before, cache=cache, max_attempts=9), week.asked_before)


def refused_and_asked_again(week: Week) -> None:
    texts = week.texts()
    refused = sorted(set(week.random.sample(texts, k=1 + len(texts) // 5)))
    for text in refused:
        week.lab.fault(text, REFUSED, times=float("inf"))
    run = week.chat(texts)
    week.through(run, texts, errors=refused)
    week.lab.clear_faults()
    week.through(run.retry(), texts)


def stopped_and_asked_again(week: Week) -> None:
    texts = week.texts()
    week.lab.hold()
    before = week.lab.requests
    run = week.chat(texts, max_concurrency=8)
    week.lab.wait_for(before + 1)
    week.stop(run, texts)
    week.lab.release()
    assert run.stopped.kind == "cancelled"
    week.through(run.retry(), texts)


def stopped_at_any_moment(week: Week) -> None:
    texts = week.texts()
    week.faulty(texts, week.lab)
    run = week.chat(texts, max_attempts=9)
    steps = iter(range(week.random.randint(1, 25)))
    week.turn(lambda: run.done or next(steps, None) is None)
    week.stop(run, texts)
    week.lab.clear_faults()
    week.through(run.retry(), texts)


def two_at_once(week: Week) -> None:
    texts = week.texts()
    week.faulty(texts, week.lab)
    runs = [week.chat(part, max_attempts=9) for part in (texts, texts[::-1])]
    for run, part in zip(runs, (texts, texts[::-1]), strict=True):
        week.through(run, part)


def along_a_route(week: Week) -> None:
    texts = week.texts()
    week.faulty(texts, week.lab)
    week.faulty(texts, week.spare)
    week.lab.fault(texts[0], rate_limited(retry_after="600"))  # it is left for ten minutes
    week.through(week.chat(texts, model=["lab/test-chat", "spare/test-chat"], max_attempts=9), texts)


def through_an_outage(week: Week) -> None:
    texts = week.texts()
    week.lab.stop()
    run = week.chat(texts, model=["lab/test-chat", "spare/test-chat"])
    week.through(run, texts)
    week.lab.start()


def waiting_for_silence(week: Week) -> None:
    texts = [text for text in week.texts(12) if "slow" not in text]
    silent = texts[:3]
    for text in silent:
        week.lab.fault(text, Hang())
    run = week.chat(texts, timeout=0.2, max_attempts=9)
    week.through(run, texts)
    week.dropped += run.possibly_billed - len(silent)


def in_pieces(week: Week) -> None:
    week.lab.fault("in pieces", server_error(), Breaking(3))

    def listen(most: int) -> list[str]:
        return list(islice(llmkit.stream("Say this in pieces, of which few are heard", model="lab/test-chat", cache="off"), most))

    with ThreadPoolExecutor(1) as thread:
        broken, left = thread.submit(listen, 99), thread.submit(listen, 1)
        week.turn(lambda: left.done())
    assert isinstance(broken.exception(), llmkit.ConnectionLost)
    assert left.result()


def watched(week: Week) -> None:
    texts = week.texts(10)
    seen: list[Any] = []
    run = week.chat(texts).watch(seen.append)
    week.through(run, texts)


KINDS = [
    plain_chat, vectors, the_same_again, along_a_route, documents, refused_and_asked_again, refreshed_and_off, stopped_and_asked_again,
    two_at_once, through_an_outage, stopped_at_any_moment, in_pieces, watched, waiting_for_silence,
]  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ what piles up


@dataclass(frozen=True)
class Held:
    """What a process holds on to while a session rests."""

    threads: list[str]
    files: int
    tasks: list[str]
    timers: int


def at_rest(*servers: Loopback) -> Held:
    """With every connection and file of the session closed, and what was about to end given the time for it; it opens them anew."""
    session.default().close()
    for server in servers:
        server.stop()
        server.start()
    for thread in threading.enumerate():
        if thread.name == "llmkit-watch":
            thread.join(10)

    async def on_the_loop() -> tuple[list[str], int]:
        loop = asyncio.get_running_loop()
        if ending := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(ending, timeout=10)
        tasks = [repr(task.get_coro()) for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        return tasks, sum(not timer.cancelled() for timer in loop._scheduled)  # type: ignore[attr-defined]

    # A pool's threads come as they are needed, up to a bound of its own.
    threads = sorted(thread.name for thread in threading.enumerate() if not thread.name.startswith("llmkit-work"))
    return Held(threads, len(os.listdir("/dev/fd")), *event_loop.call(on_the_loop))


def traced_memory() -> int:
    gc.collect()
    ours = [tracemalloc.Filter(False, place) for place in ("*/tests/*", "*/tracemalloc.py", "*/collections/__init__.py")]
    return sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces(ours).traces)


def resident_memory() -> int:
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if pages.exists() else 0


@pytest.fixture
def traced() -> Iterator[None]:
    yield
    tracemalloc.stop()


@pytest.mark.skipif(sys.platform == "win32", reason="this platform does not list a process's open files")
def test_two_hundred_runs_of_a_week_leave_nothing_behind(cache_dir: Path, traced: None) -> None:
    with Loopback(keep_seen=False) as lab, Loopback(keep_seen=False) as spare:
        week = Week(lab, spare)
        for number in range(RUNS):
            if number == WARM_UP[0]:
                tracemalloc.start()
            if number == WARM_UP[1]:
                before, memory, resident = at_rest(lab, spare), traced_memory(), resident_memory()
            KINDS[number % len(KINDS)](week)
            lab.reset()
            spare.reset()
            week.sleep_until((number + 1) * WEEK / RUNS)
            assert not week.engine.flights
            assert not week.engine.awaited
            assert {(one.limiter.in_flight, one.limiter.waiting) for one in week.engine._accounts.values()} <= {(0, 0)}
        assert week.clock.now() == pytest.approx(WEEK)
        assert week.clock.next_alarm is None
        assert at_rest(lab, spare) == before
        grown, resident = traced_memory() - memory, resident_memory() - resident
    print(f"\n{week.rows:,} rows, {sum(week.served.values()):,} answers; {grown / 1000:.0f} kB more, {resident / 2**20:.0f} MiB resident")
    assert grown < GROWTH
    assert resident < 40 * 2**20
    assert not week.wanted - week.served, "every row was answered"
    assert (week.served - week.wanted).total() <= week.dropped, "and paid for once"
    store = Store(cache_dir)
    assert store.check() == []
    store.close()
