"""The door between sync and async: one loop, from every thread, through interrupts and forks, until the interpreter ends."""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from llmkit import event_loop
from tests.loopback import Loopback
from tests.process.child import Child, forked, needs_fork

colour: contextvars.ContextVar[str] = contextvars.ContextVar("colour", default="none")


async def echoed(value: object) -> object:
    await asyncio.sleep(0)
    return value


async def where_it_runs() -> int:
    return threading.get_ident()


async def colour_seen() -> str:
    await asyncio.sleep(0)
    return colour.get()


# ------------------------------------------------------------------------------------------------------------- calling


def test_coroutines_from_many_threads_run_on_one_loop() -> None:
    with ThreadPoolExecutor(32) as threads:
        assert list(range(200)) == list(threads.map(lambda number: event_loop.call(echoed, number), range(200)))
        (ident,) = set(threads.map(lambda _: event_loop.call(where_it_runs), range(50)))
    assert ident != threading.get_ident()


def test_context_variables_travel_with_the_call() -> None:
    def coloured(name: str) -> str:
        colour.set(name)
        return event_loop.call(colour_seen)

    with ThreadPoolExecutor(8) as threads:
        names = [f"colour {number}" for number in range(8)]
        assert names == list(threads.map(coloured, names))
    assert "none" == event_loop.call(colour_seen)


def test_an_exception_comes_back_as_it_was_raised() -> None:
    async def failing() -> None:
        raise TimeoutError("of its own")  # also the type that a waiting slice ends with

    with pytest.raises(TimeoutError, match="of its own"):
        event_loop.call(failing)


def test_blocking_on_the_loop_from_the_loop_itself_is_refused_with_the_cure() -> None:
    async def calls_again() -> object:
        return event_loop.call(echoed, 1)

    with pytest.raises(RuntimeError, match=r"its own event loop thread.*wait=False"):
        event_loop.call(calls_again)


def test_a_run_can_be_awaited_from_a_loop_of_the_callers_own() -> None:
    async def elsewhere() -> object:
        running = event_loop.start(echoed, "value")
        return await event_loop.wait_in(running.future)

    assert "value" == asyncio.run(elsewhere())


# ---------------------------------------------------------------------------------------------------------- interrupts


def test_waiting_sees_ctrl_c_and_the_coroutine_is_cancelled() -> None:
    began, ended = threading.Event(), threading.Event()

    async def endless() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    def interrupt() -> None:
        began.wait(5)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        event_loop.call(endless)
    thread.join()
    assert ended.wait(5)


def test_each_slice_is_called_while_the_caller_waits() -> None:
    enough, slices = threading.Event(), []

    def look() -> None:
        slices.append(time.monotonic())
        if len(slices) == 3:
            enough.set()

    async def patient() -> str:
        await event_loop.off_loop(enough.wait, 5)
        return "done"

    assert "done" == event_loop.wait(event_loop.start(patient).future, look)
    assert len(slices) >= 3


def test_cancelling_lets_the_coroutine_tidy_up_and_hand_over_what_it_has() -> None:
    began = threading.Event()

    async def careful() -> str:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "what was paid for"
        return "never"

    running = event_loop.start(careful)
    assert began.wait(5)
    running.cancel()
    assert "what was paid for" == event_loop.wait(running.future)


def test_what_is_to_be_done_to_the_end_is_done_however_often_its_waiter_is_cancelled() -> None:
    async def story() -> str:
        going_on = asyncio.Event()

        async def work() -> str:
            await going_on.wait()
            return "done"

        waiter = asyncio.ensure_future(event_loop.to_the_end(work()))
        for _ in range(3):
            await asyncio.sleep(0)
            waiter.cancel()
        await asyncio.sleep(0)
        assert not waiter.done()
        going_on.set()
        return await waiter

    assert event_loop.call(story) == "done"


def test_an_error_of_what_is_done_to_the_end_is_its_waiters() -> None:
    async def work() -> None:
        raise ValueError("the work's own")

    with pytest.raises(ValueError, match="the work's own"):
        event_loop.call(event_loop.to_the_end, work())


def test_what_is_cancelled_before_its_first_step_ends_all_the_same() -> None:
    async def at_once() -> tuple[bool, bool]:
        running = event_loop.start(asyncio.Event().wait)  # from the loop itself, so that nothing runs in between
        running.cancel()
        early: event_loop.Running[bool] = event_loop.Running()
        early.cancel()
        early.begin(asyncio.Event().wait)
        for one in (running, early):
            await asyncio.wait({asyncio.wrap_future(one.future)}, timeout=5)
        return running.future.cancelled(), early.future.cancelled()

    assert (True, True) == event_loop.call(at_once)


# ------------------------------------------------------------------------------------------------------------- workers


def test_blocking_work_is_done_off_the_loop_with_the_tasks_own_context() -> None:
    def blocking() -> tuple[int, str]:
        return threading.get_ident(), colour.get()

    async def body() -> tuple[int, str, int]:
        colour.set("green")
        return *await event_loop.off_loop(blocking), threading.get_ident()

    ident, seen, loop_ident = event_loop.call(body)
    assert ident != loop_ident
    assert "green" == seen


def test_a_worker_does_its_jobs_in_order_on_one_thread() -> None:
    worker, done, idents = event_loop.Worker("test-worker"), [], set()

    def job(number: int) -> int:
        done.append(number)
        idents.add(threading.get_ident())
        return number

    futures = [worker.submit(job, number) for number in range(500)]
    assert list(range(500)) == [future.result(5) for future in futures] == done
    assert 1 == len(idents - {threading.get_ident()}) == len(idents)
    worker.stop()


def test_a_job_that_raises_is_its_callers_affair_and_the_worker_goes_on() -> None:
    worker = event_loop.Worker("test-worker")
    with pytest.raises(ZeroDivisionError):
        worker.call(lambda: 1 // 0)
    assert 2 == worker.call(lambda: 2)
    worker.stop()


def test_a_worker_that_was_let_go_ends_its_thread_and_keeps_the_order_in_the_next() -> None:
    worker, go_on, done = event_loop.Worker("test-worker"), threading.Event(), []
    first = worker.submit(threading.current_thread)
    worker.submit(go_on.wait, 5)
    worker.submit(done.append, "handed in before")
    worker.let_go()
    last = worker.submit(lambda: (done.append("handed in after"), threading.current_thread())[1])
    go_on.set()
    assert last.result(5) is not first.result(5)
    assert ["handed in before", "handed in after"] == done
    worker.stop()
    assert not first.result().is_alive() and not last.result().is_alive()


def test_a_cancelled_waiter_does_not_lose_what_the_worker_does_for_it() -> None:
    worker, let_go, done = event_loop.Worker("test-worker"), threading.Event(), []

    async def body() -> None:
        waiting = asyncio.ensure_future(worker.run(lambda: (let_go.wait(5), done.append("done"))))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    event_loop.call(body)
    let_go.set()
    worker.call(lambda: None)
    assert ["done"] == done
    worker.stop()


# ----------------------------------------------------------------------------------------------------------- callbacks


def watchers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "llmkit-watch"]


def watched(callback: Callable[[], None], until: Future[None]) -> None:
    event_loop.every(0.001, callback, until)
    for thread in watchers():
        thread.join(5)


def test_a_callback_that_raises_is_removed_with_one_warning() -> None:
    until: Future[None] = Future()
    calls = []

    def bad() -> None:
        calls.append(1)
        raise ValueError("the callback's own")

    with pytest.warns(RuntimeWarning, match="callback raised ValueError and was removed") as warned:
        watched(bad, until)
    assert 1 == len(calls) == len(warned)
    until.set_result(None)


def test_a_callback_that_blocks_delays_nobody() -> None:
    blocked, let_go = threading.Event(), threading.Event()

    def slow() -> None:
        blocked.set()
        let_go.wait(10)

    running = event_loop.start(echoed, "value")
    event_loop.every(0.001, slow, running.future)
    assert blocked.wait(5)
    assert "value" == event_loop.wait(running.future)
    assert "another" == event_loop.call(echoed, "another")
    let_go.set()
    for thread in watchers():
        thread.join(5)


def test_a_callback_is_called_once_more_at_the_end() -> None:
    until: Future[None] = Future()
    seen, first = [], threading.Event()

    def look() -> None:
        seen.append(until.done())
        first.set()

    event_loop.every(0.001, look, until)
    assert first.wait(5)
    until.set_result(None)
    for thread in watchers():
        thread.join(5)
    assert seen[-1]
    assert 1 == sum(seen)


# ----------------------------------------------------------------------------------------------------------------- fork


@needs_fork
def test_a_forked_child_starts_a_loop_of_its_own_and_the_parent_keeps_his() -> None:
    before = event_loop.call(where_it_runs)
    loop = event_loop._door.get()

    def in_the_child() -> list[object]:
        return [event_loop.call(echoed, "child"), event_loop._door.get() is loop, event_loop.call(echoed, "again")]

    for _ in range(3):
        assert ["child", False, "again"] == forked(in_the_child)
    assert "parent" == event_loop.call(echoed, "parent")
    assert before == event_loop.call(where_it_runs)
    assert loop is event_loop._door.get()


@needs_fork
def test_a_fork_waits_for_the_job_that_a_worker_is_at() -> None:
    # Whoever forks in the middle of a job inherits its locks locked, SQLite's among them.
    worker, working, let_go = event_loop.Worker("test-worker"), threading.Event(), threading.Event()

    def job() -> str:
        working.set()
        assert not event_loop.settle(Future(), 0.05)  # as long as a commit may take
        let_go.set()
        return "kept"

    future = worker.submit(job)
    assert working.wait(5)
    assert forked(let_go.is_set)
    assert "kept" == future.result(5)
    assert "next" == worker.call(lambda: "next")
    worker.stop()


# ------------------------------------------------------------------------------------------------------------------ end

IN_FLIGHT = """
df = pd.DataFrame({"text": [f"row {i}" for i in range(500)]})
run = df.llm.chat("Say {text}", model="lab/m", wait=False, show_progress=False)
while run.progress().done < 40:
    assert not run.wait(0.02)
say("40 rows are finished")
"""


def test_the_interpreter_ends_promptly_with_a_run_in_flight_and_keeps_what_came(tmp_path: Path) -> None:
    with Loopback() as server:
        server.latency = lambda request: 0.0 if int(request.texts[0].split()[-1]) < 40 else 3600.0
        with Child(IN_FLIGHT, server.url, tmp_path) as child:
            child.hear()
            began = time.monotonic()
            assert "" == child.end()
            assert time.monotonic() - began < 3
        server.latency, seen = 0.0, server.requests
        again = """
df = pd.DataFrame({"text": [f"row {i}" for i in range(40)]})
say(df.llm.chat("Say {text}", model="lab/m", show_progress=False).tolist())
"""
        with Child(again, server.url, tmp_path) as child:
            assert [f"answer to: Say row {i}" for i in range(40)] == child.hear()
            assert "" == child.end()
        assert seen == server.requests


def test_the_interpreter_ends_promptly_where_nothing_was_ever_sent(tmp_path: Path) -> None:
    with Child('llmkit.limit("lab", rpm=60)\nsay("end")', "http://127.0.0.1:9/v1", tmp_path) as child:
        child.hear()
        began = time.monotonic()
        assert "" == child.end()
        assert time.monotonic() - began < 3
