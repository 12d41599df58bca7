"""One loop, one daemon thread: the only door between the user's code and everything that waits for a network.

Why one loop that outlives every call: each vendor's async client, each connection pool and each limiter is bound to the loop that first
used it; a loop per call leaves them tied to a dead one ("Event loop is closed"). Why a thread: a notebook's own loop is already
running, and patching it (nest_asyncio) leaves requests alive after Stop.

Only this module knows that there are threads. The rest of llmkit sees ``start`` (a coroutine on the loop), ``wait`` (block for it, in
slices, so that Ctrl-C is seen), ``off_loop`` and ``Worker`` (blocking work kept away from the loop), and ``Clock`` (the time that tests
turn by hand).
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextvars
import functools
import os
import queue
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, Generic, Protocol, TypeVar

__all__ = [
    "Clock",
    "LoopClock",
    "Running",
    "Timer",
    "Worker",
    "every",
    "later",
    "off_loop",
    "on_exit",
    "on_fork",
    "once",
    "start",
    "to_the_end",
    "wait",
    "wait_in",
]

T = TypeVar("T")

#: Seconds a blocked caller sleeps between two looks: short enough that Ctrl-C is felt and a bar moves.
SLICE = 0.1


class Timer(Protocol):
    def cancel(self) -> None: ...


class Clock(Protocol):
    """The time that limiters, back-offs and deadlines live by. Monotonic: a laptop's clock that jumps moves nothing."""

    def now(self) -> float:
        """Seconds since some fixed moment."""

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Run ``callback`` on the loop once ``now() >= when``."""


class LoopClock:
    """The running loop's own clock."""

    def now(self) -> float:
        return time.monotonic()

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        # The loop's clock is time.monotonic on every platform, so absolute times can be handed on.
        return asyncio.get_running_loop().call_at(when, callback)


async def sleep(clock: Clock, seconds: float) -> None:
    """Sleep on the given clock; wakes early only when cancelled."""
    if seconds <= 0:
        await asyncio.sleep(0)
        return
    future = asyncio.get_running_loop().create_future()
    timer = clock.call_at(clock.now() + seconds, lambda: None if future.done() else future.set_result(None))
    try:
        await future
    finally:
        timer.cancel()


class _Door:
    """The loop and its thread, made on first use and forgotten after a fork."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.thread: threading.Thread | None = None
        self.pool: concurrent.futures.ThreadPoolExecutor | None = None
        self.at_fork: list[weakref.WeakMethod[Any]] = []
        self.at_exit: list[weakref.WeakMethod[Any]] = []
        #: What was begun by ``later`` and nobody waits for: the interpreter's end does.
        self.closing: set[asyncio.Task[None]] = set()
        #: Workers whose threads must stand between two jobs while the process forks.
        self.working: weakref.WeakSet[Worker] = weakref.WeakSet()
        self.paused: list[Worker] = []
        #: What a forked child inherited and must neither use nor destroy.
        self.abandoned: list[Any] = []

    def get(self) -> asyncio.AbstractEventLoop:
        with self.lock:
            if self.loop is None:
                self.loop = asyncio.new_event_loop()
                self.thread = threading.Thread(target=self._serve, args=(self.loop,), name="llmkit-loop", daemon=True)
                self.thread.start()
            return self.loop

    @staticmethod
    def _serve(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        loop.run_forever()

    def workers(self) -> concurrent.futures.ThreadPoolExecutor:
        with self.lock:
            if self.pool is None:
                self.pool = concurrent.futures.ThreadPoolExecutor(
                    max_workers=min(8, (os.cpu_count() or 1) + 2), thread_name_prefix="llmkit-work"
                )
            return self.pool

    def pause(self) -> None:
        # Before a fork. A thread in the middle of SQLite holds locks of the C library, which the child would inherit locked, with
        # nobody left to unlock them. A few milliseconds, as a rule; no job is waited for longer than ten seconds.
        with self.lock:
            working = list(self.working)
        self.paused = [worker for worker in working if worker.busy.acquire(timeout=10)]

    def go_on(self) -> None:
        for worker in self.paused:
            worker.busy.release()
        self.paused = []

    def forget(self) -> None:
        # In a forked child the thread is gone but the loop object, its selector and its sockets are still shared with the
        # parent: closing them here would close the parent's. Keep them alive, unused, and start anew.
        self.abandoned.append((self.loop, self.thread, self.pool))
        self.lock = threading.Lock()
        self.working, self.paused, self.closing = weakref.WeakSet(), [], set()
        self.loop = self.thread = self.pool = None
        for callback in _alive(self.at_fork):
            callback()

    def stop(self) -> None:
        loop, thread = self.loop, self.thread
        if loop is None or thread is None or not thread.is_alive():
            return
        closing = asyncio.run_coroutine_threadsafe(self._close(), loop)
        try:
            closing.result(timeout=5)
        except (concurrent.futures.TimeoutError, concurrent.futures.CancelledError):
            pass  # the process is ending, and what mattered was kept row by row
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=2)
        if not thread.is_alive():
            loop.close()
            self.loop = self.thread = None

    async def _close(self) -> None:
        mine = asyncio.current_task()
        tasks = [task for task in asyncio.all_tasks() if task is not mine and task not in self.closing]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        closing = *self.closing, *(callback() for callback in _alive(self.at_exit))
        for done in await asyncio.gather(*closing, return_exceptions=True):
            if isinstance(done, Exception):
                warnings.warn(f"llmkit could not put everything away at the end: {type(done).__name__}", RuntimeWarning, stacklevel=2)


_door = _Door()
atexit.register(_door.stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_door.pause, after_in_parent=_door.go_on, after_in_child=_door.forget)


def on_fork(callback: Callable[[], None]) -> None:
    """Have a bound method run in every forked child, so that its object forgets what it shares with the parent.

    The object is not kept alive for it.
    """
    _door.at_fork.append(weakref.WeakMethod(callback, _door.at_fork.remove))


def on_exit(callback: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Have a bound method run on the loop when the interpreter ends; its object is not kept alive for it."""
    _door.at_exit.append(weakref.WeakMethod(callback, _door.at_exit.remove))


def _alive(methods: list[weakref.WeakMethod[Any]]) -> list[Callable[..., Any]]:
    return [method for reference in methods if (method := reference()) is not None]


def later(close: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Have ``close`` run on the loop, where there is one; returns at once, also when the garbage collector calls.

    It takes no lock: the collector may call from any line of any thread, one that holds the lock included.
    """

    def begin() -> None:
        task = asyncio.get_running_loop().create_task(close())
        _door.closing.add(task)
        task.add_done_callback(_door.closing.discard)

    if (loop := _door.loop) is not None:
        try:
            loop.call_soon_threadsafe(begin)
        except RuntimeError:
            pass  # closed, and with it everything that ran on it


class once(Generic[T]):  # noqa: N801 - used as a decorator
    """Make a thing at the first call and hand out the same one from then on, also when many threads call first together."""

    def __init__(self, make: Callable[[], T]) -> None:
        functools.update_wrapper(self, make)
        self._make = make
        self._lock = threading.Lock()
        self.made: T | None = None

    def __call__(self) -> T:
        if self.made is None:
            with self._lock:
                if self.made is None:
                    self.made = self._make()
        return self.made

    def forget(self) -> None:
        self.made = None


def abandon(*things: Any) -> None:
    """Keep what a forked child inherited alive and unused until it ends: closing it would reach into the parent."""
    _door.abandoned.append(things)


def in_loop_thread() -> bool:
    return _door.thread is threading.current_thread()


def _refuse_from_the_loop() -> None:
    if in_loop_thread():
        raise RuntimeError(
            "llmkit was called, and would block, from its own event loop thread (a callback of a run?). "
            "Start the work with wait=False there, or do it outside the callback."
        )


class Running(Generic[T]):
    """A coroutine at work on the loop: ``future`` holds its result, ``cancel`` asks it to stop."""

    def __init__(self) -> None:
        self.future: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._task: asyncio.Task[None] | None = None
        self._loop = _door.get()
        self._stop_asked = False

    def begin(self, function: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> None:
        """Start ``function(*args)``, once. A ``cancel`` that came before stops it at its first step."""
        # call_soon_threadsafe copies the calling thread's context: prints of callbacks land in the cell that started the work.
        self._loop.call_soon_threadsafe(self._begin, function, args)

    def _begin(self, function: Callable[..., Coroutine[Any, Any, T]], args: tuple[Any, ...]) -> None:
        async def body() -> None:
            try:
                result = await function(*args)
            except asyncio.CancelledError:
                self.future.cancel()
                self.future.set_running_or_notify_cancel()
            except BaseException as error:
                self.future.set_exception(error)
            else:
                self.future.set_result(result)

        self._task = asyncio.get_running_loop().create_task(body())
        if self._stop_asked:
            self._stop()

    def _stop(self) -> None:
        if self._task is not None:
            # One turn later: a task that is cancelled before its first step never enters its body, and would settle nothing.
            self._loop.call_soon(self._task.cancel)

    def cancel(self) -> None:
        """Cancel the coroutine (it may tidy up first); returns at once, from any thread."""
        self._stop_asked = True
        try:
            self._loop.call_soon_threadsafe(self._stop)
        except RuntimeError:
            pass  # the loop is closed, and with it everything that ran on it


def start(function: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> Running[T]:
    """Run ``function(*args)`` on the loop, with the caller's context variables; returns at once.

    Unlike a bare ``run_coroutine_threadsafe`` future, cancelling does not make the result unreachable: the coroutine may catch it, keep
    what was paid for, and return.
    """
    running: Running[T] = Running()
    running.begin(function, *args)
    return running


def wait(future: concurrent.futures.Future[T], each_slice: Callable[[], None] | None = None) -> T:
    """Block until ``future`` is done, looking up ten times a second: for Ctrl-C, and to call ``each_slice``."""
    _refuse_from_the_loop()
    while True:
        try:
            return future.result(timeout=SLICE)
        except concurrent.futures.TimeoutError:
            if future.done():
                return future.result()
        if each_slice is not None:
            each_slice()


def settle(future: concurrent.futures.Future[Any], seconds: float) -> bool:
    """Give ``future`` a moment to finish, whatever its result; whether it did."""
    done, _ = concurrent.futures.wait([future], timeout=seconds)
    return bool(done)


def call(function: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
    """Run a short coroutine on the loop and block for its result; an interrupt cancels it."""
    _refuse_from_the_loop()
    running: Running[T] = Running()
    try:
        # Begun in here: an interrupt between the two would leave the coroutine with nobody to stop it.
        running.begin(function, *args)
        return wait(running.future)
    except BaseException:
        running.cancel()
        raise


async def wait_in(future: concurrent.futures.Future[T]) -> T:
    """Wait for ``future`` in whatever loop this runs in, waking ten times a second.

    The waking matters: an interrupt during a top-level ``await`` is only seen at the loop's next event
    (ipython/ipykernel#881, seen 2026-11-21).
    """
    wrapped = asyncio.wrap_future(future)
    while not wrapped.done():
        await asyncio.wait({wrapped}, timeout=SLICE)
    return wrapped.result()


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Await ``work`` until it is done, also when the task that waits is cancelled meanwhile: the cancellation is then spent."""
    task = asyncio.get_running_loop().create_task(work)
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            continue
    return task.result()


async def off_loop(function: Callable[..., T], *args: Any) -> T:
    """Run blocking or heavy ``function`` in a worker thread, with this task's context, and await its result."""
    context = contextvars.copy_context()
    return await asyncio.get_running_loop().run_in_executor(_door.workers(), functools.partial(context.run, _tamed, function, *args))


async def apart(function: Callable[..., T], *args: Any) -> T:
    """Run ``function`` in a thread of its own, with this task's context, and await its result.

    For functions of the user's: one that waits for llmkit itself must not hold a worker that llmkit then waits for.
    """
    future: concurrent.futures.Future[T] = concurrent.futures.Future()
    future.set_running_or_notify_cancel()  # from here on nobody can cancel it: the thread will hand in a result

    def serve() -> None:
        try:
            future.set_result(_tamed(function, *args))
        except Exception as error:
            future.set_exception(error)

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(serve,), name="llmkit-user", daemon=True).start()
    return await asyncio.wrap_future(future)


def _tamed(function: Callable[..., T], *args: Any) -> T:
    """A ``sys.exit()`` in a worker is meant for no loop; asyncio would end its own over it."""
    try:
        return function(*args)
    except (SystemExit, KeyboardInterrupt) as error:
        raise RuntimeError(f"{type(error).__name__} in a worker thread") from None


def every(seconds: float, function: Callable[[], None], until: concurrent.futures.Future[Any]) -> None:
    """Call ``function`` every ``seconds`` and once at the end, in a thread of its own, until ``until`` is done.

    A callback that raises is warned about once and not called again; one that blocks delays nobody.
    """

    def serve() -> None:
        while True:
            done = settle(until, seconds)
            try:
                function()
            except Exception as error:
                warnings.warn(f"a run's callback raised {type(error).__name__} and was removed", RuntimeWarning, stacklevel=2)
                return
            if done:
                return

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(serve,), name="llmkit-watch", daemon=True).start()


class Worker:
    """One daemon thread that runs functions in the order they were handed in; for things that only one thread may touch at a time."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        #: The thread that was let go, and may still be at what was handed in before.
        self._last: threading.Thread | None = None
        self._lock = threading.Lock()
        #: Held during a job; whoever takes it (a fork) knows the thread between two.
        self.busy = threading.RLock()
        with _door.lock:
            _door.working.add(self)

    def submit(self, function: Callable[..., T], *args: Any) -> concurrent.futures.Future[T]:
        future: concurrent.futures.Future[T] = concurrent.futures.Future()

        def job() -> None:
            try:
                result = function(*args)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, args=(self._last,), name=self._name, daemon=True)
                self._thread.start()
            self._queue.put(job)
        return future

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        # Shielded: a cancelled waiter must not lose what the thread is doing for it.
        return await asyncio.shield(asyncio.wrap_future(self.submit(function, *args)))

    def call(self, function: Callable[..., T], *args: Any) -> T:
        return self.submit(function, *args).result()

    @property
    def idle(self) -> bool:
        """Whether nothing was handed in since the last thread was let go."""
        return self._thread is None

    def let_go(self) -> None:
        """Let the thread end after what was handed in; returns at once. What is handed in later begins another."""
        with self._lock:
            if self._thread is not None:
                self._queue.put(None)
                self._last, self._thread = self._thread, None

    def stop(self) -> None:
        """Let the thread end after what was handed in; waits for it."""
        self.let_go()
        if self._last is not None:
            self._last.join(timeout=5)

    def _serve(self, last: threading.Thread | None) -> None:
        if last is not None:
            last.join()  # one at a time, and in order: it takes what was handed in to it, up to its own end
        while (job := self._queue.get()) is not None:
            with self.busy:
                job()
