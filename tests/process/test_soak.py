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
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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
#: Runs in which imports, connections, threads and caches of a fixed size are made; what is there after them has to do for the rest.
WARM_UP = 48
WEEK = 7 * 86400.0

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
        self.lost = 0
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

    def texts(self, most: int = 60) -> list[str]:
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
        self.lost += run.possibly_billed

    @staticmethod
    def accounted(run: Any, texts: Sequence[str], errors: Sequence[str] = ()) -> None:
        said, failed = run.partial(), run.errors()
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
    if len(refused) < len(set(texts)):
        week.through(run, texts, errors=refused)
    week.turn(lambda: run.done)
    week.lab.clear_faults()
    week.through(run.retry(), texts)


def stopped_and_asked_again(week: Week) -> None:
    texts = week.texts()
    week.lab.hold()
    before = week.lab.requests
    run = week.chat(texts, max_concurrency=8)
    week.lab.wait_for(before + 1)
    run.cancel()
    assert run.wait(10)
    week.lab.release()
    assert run.stopped.kind == "cancelled"
    assert len(run.errors()) + run.partial().notna().sum() == len(texts)
    week.through(run.retry(), texts)


def stopped_at_any_moment(week: Week) -> None:
    texts = week.texts()
    week.faulty(texts, week.lab)
    run = week.chat(texts, max_attempts=9)
    steps = iter(range(week.random.randint(1, 25)))
    week.turn(lambda: run.done or next(steps, None) is None)
    run.cancel()
    assert run.wait(10)
    assert len(run.errors()) + run.partial().notna().sum() == len(texts)
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
    texts = week.texts(12)
    for text in texts[:3]:
        week.lab.fault(text, Hang())
    week.through(week.chat(texts, timeout=0.4, max_attempts=9), texts)


def in_pieces(week: Week) -> None:
    pieces = llmkit.stream("Say this in many pieces, of which few are heard", model="lab/test-chat", cache="off")
    assert next(iter(pieces))
    week.lab.fault("break off", Breaking(2))
    with pytest.raises(llmkit.LLMError):
        list(llmkit.stream("break off", model="lab/test-chat", cache="off"))
    assert llmkit.stream("to the end", model="lab/test-chat", cache="off").text == ""


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
    """What a process holds on to."""

    threads: list[str]
    files: int
    tasks: list[str]
    timers: int
    memory: int
    resident: int


def held(week: Week) -> Held:
    async def on_the_loop() -> tuple[list[str], int]:
        loop = asyncio.get_running_loop()
        mine = asyncio.current_task()
        tasks = sorted(repr(task.get_coro()) for task in asyncio.all_tasks() if task is not mine and not task.done())
        return tasks, sum(not timer.cancelled() for timer in loop._scheduled)  # type: ignore[attr-defined]

    given_up = time.monotonic() + 10.0
    while True:
        gc.collect()
        tasks, timers = event_loop.call(on_the_loop)
        if not tasks or time.monotonic() > given_up:
            break
    shots = tracemalloc.take_snapshot().filter_traces(
        [tracemalloc.Filter(False, "*/tests/*"), tracemalloc.Filter(False, "*/tracemalloc.py")]
    )
    return Held(
        threads=sorted(thread.name for thread in threading.enumerate() if not thread.name.startswith("llmkit-work")),
        files=len(os.listdir("/dev/fd")),
        tasks=tasks,
        timers=timers,
        memory=sum(trace.size for trace in shots.traces),
        resident=_resident(),
    )


def _resident() -> int:
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if status.exists() else 0


@contextmanager
def traced() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


def test_two_hundred_runs_of_a_week_leave_nothing_behind(cache_dir: Path) -> None:
    began = time.monotonic()
    with Loopback(keep_seen=False) as lab, Loopback(keep_seen=False) as spare:
        week = Week(lab, spare)
        spent: Counter[str] = Counter()
        with traced():
            for number in range(RUNS):
                t = time.monotonic()
                kind = KINDS[number % len(KINDS)]
                kind(week)
                spent[kind.__name__] += time.monotonic() - t
                for server in (lab, spare):
                    server.reset()
                week.sleep_until((number + 1) * WEEK / RUNS)
                if number + 1 == WARM_UP:
                    before = held(week)
                if number + 1 > WARM_UP and number % 20 == 0:
                    print(number, held(week))
            after = held(week)
        print(before, after, spent, time.monotonic() - began, week.rows, week.lost, sep="\n")
        print(sum(week.served.values()), sum(week.wanted.values()), week.clock._alarms, week.clock.now())
