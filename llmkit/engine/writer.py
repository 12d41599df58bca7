"""The store's face to the loop: groups what is to be kept, off the hot path, and says when a row is durable."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from ..event_loop import Clock, LoopClock, Timer, Worker
from .store import Entry, Store, StoreBusy, Stored, StoreLost

__all__ = ["Writer"]

T = TypeVar("T")


def _as_stored(entry: Entry) -> Stored:
    row = entry.reply()
    return Stored(*row[1:7], row.cache_write)


class Writer:
    """Groups what is to be kept, off the hot path, and calls each entry's ``durable`` once it is.

    A file that is locked or full never stops a run: while it is locked, entries are owed and written later; once it is lost, one
    warning says so and the run goes on without it.

    Parameters
    ----------
    open_store : callable
        Makes the ``Store``; called in the worker thread at the first use.
    """

    GROUP = 64
    WAIT = 0.2
    #: Answers that may wait for the file before senders have to: a bound on what ``kill -9`` can cost.
    CROWD = 128
    #: Seconds until a file that another process held is tried again.
    AGAIN = 1.0
    #: Seconds between two looks at what is still being asked for; the claims of the rest are let go of.
    REFRESH = 0.5

    def __init__(self, open_store: Callable[[], Store], clock: Clock | None = None) -> None:
        self._open_store = open_store
        self._clock: Clock = clock or LoopClock()
        self.worker = Worker("llmkit-store")
        self.store: Store | None = None
        self.lost = False
        #: Called, in the worker thread, when the file is lost: by who would rather stop than pay for answers that nothing keeps.
        self.on_lost: set[Callable[[], Any]] = set()
        self._pending: list[Entry] = []
        self._owed: list[Entry] = []
        #: Answers that were handed in and are in no file yet, by key: a look-up finds them too.
        self._unwritten: dict[bytes, Entry] = {}
        self._timer: Timer | None = None
        self._retry: Timer | None = None
        self._flushing: asyncio.Task[None] | None = None
        self._taken: asyncio.Future[None] | None = None
        #: Keys that are being asked for: the engine's, which hands them in.
        self.flights: Collection[bytes] = ()
        #: Keys whose answer came from another model of the route, and is not durable yet.
        self.settling: set[bytes] = set()
        #: What is being looked up and claimed at this moment, and is nobody's flight yet.
        self._claiming: list[Mapping[bytes, Sequence[bytes]]] = []
        self._refresh: asyncio.TimerHandle | None = None
        self._refreshing: asyncio.Task[None] | None = None

    # ---------------------------------------------------------------------------------------- calls that wait for the file

    def _opened(self) -> Store | None:
        """In the worker thread: the store, or ``None`` with one warning where there can be none."""
        if self.store is None and not self.lost:
            try:
                self.store = self._open_store()
            except StoreLost as error:
                self._give_up(error)
        return self.store

    def _give_up(self, error: StoreLost) -> None:
        self.lost = True
        for tell in list(self.on_lost):
            tell()
        warnings.warn(
            f"llmkit cannot keep answers on disk ({error}); the run goes on without its cache. "
            "Set LLMKIT_CACHE_DIR to a folder with room to write in.",
            RuntimeWarning,
            stacklevel=2,
        )

    async def look_up(self, keys: Sequence[bytes]) -> dict[bytes, Stored]:
        def read() -> dict[bytes, Stored]:
            store = self._opened()
            return store.get_many(keys) if store is not None else {}

        found = await self.worker.run(read)
        self._add_unwritten(found, keys)
        return found

    def _add_unwritten(self, found: dict[bytes, Stored], keys: Iterable[bytes]) -> None:
        # An answer that arrived while the file was read is in neither; a run that asks for it now would pay for it twice.
        for key in keys if self._unwritten else ():
            if key not in found and key in self._unwritten:
                try:
                    found[key] = _as_stored(self._unwritten[key])
                except (ValueError, TypeError):
                    pass  # not to be packed, hence not to be kept

    # -------------------------------------------------------------------------------------------- claims among processes

    async def claim(self, wanted: Mapping[bytes, Sequence[bytes]], look: bool = True) -> tuple[dict[bytes, Stored], set[bytes]]:
        """``Store.claim``. What is claimed stays so while it is in flight or on its way to the disk: begin that before the next await."""

        def work() -> tuple[dict[bytes, Stored], set[bytes]]:
            store = self._opened()
            if store is None:
                return {}, set()
            if self.lost:  # nobody would find the answer here, so nobody is to wait for it
                return (store.get_many([key for along in wanted.values() for key in along]) if look else {}), set()
            return store.claim(wanted, look)

        self._claiming.append(wanted)
        self._refresh_soon()
        try:
            found, elsewhere = await self.worker.run(work)
            if look:
                self._add_unwritten(found, (key for along in wanted.values() for key in along))
            return found, elsewhere
        finally:
            self._claiming.remove(wanted)

    def _refresh_soon(self) -> None:
        if self._refresh is None:
            # In true time, whatever clock the engine lives by: other processes look at it.
            self._refresh = asyncio.get_running_loop().call_later(self.REFRESH, self._begin_refresh)

    def _begin_refresh(self) -> None:
        self._refresh = None
        self._refreshing = asyncio.get_running_loop().create_task(self._refresh_claims())

    async def _refresh_claims(self) -> None:
        kept = {*self.flights, *self.settling}.union(*self._claiming)
        # An answer that cannot be written for now is no reason to make others wait.
        if not self._owed:
            kept.update(self._unwritten)

        def work() -> int:
            return self.store.claims.keep(() if self.lost else kept) if self.store is not None else 0

        if await self.worker.run(work):
            self._refresh_soon()

    async def read(self, look: Callable[[Store], T]) -> T | None:
        """``look(store)`` in the thread that owns the store; ``None`` where there is no store."""

        def read() -> T | None:
            store = self._opened()
            return look(store) if store is not None else None

        return await self.worker.run(read)

    async def begin_run(self, *facts: Any) -> int:
        def write() -> int:
            store = self._opened()
            try:
                return store.begin_run(*facts) if store is not None and not self.lost else 0
            except StoreBusy:
                return 0
            except StoreLost as error:
                self._give_up(error)
                return 0

        return await self.worker.run(write)

    async def end_run(self, number: int, facts: dict[str, Any]) -> None:
        def write() -> None:
            if self.store is not None and not self.lost and number:
                try:
                    self.store.end_run(number, **facts)
                except (StoreBusy, StoreLost):
                    pass  # the outcomes are what counts; the summary line can be made from them

        await self.worker.run(write)

    async def write_history(self, number: int, rows: Sequence[tuple[Any, ...]]) -> None:
        """``Store.write_history``; what cannot be kept now is not kept."""

        def write() -> None:
            if self.store is not None and not self.lost and number:
                try:
                    self.store.write_history(number, rows)
                except (StoreBusy, StoreLost):
                    pass

        await self.worker.run(write)

    # ------------------------------------------------------------------------------------------------------ grouped writes

    def put(self, entry: Entry) -> None:
        """Keep ``entry`` soon: with 63 others, or after 200 ms."""
        self._pending.append(entry)
        if entry.answered and not self.lost:
            self._unwritten[entry.key] = entry
        if len(self._pending) >= self.GROUP:
            self._flush()
        elif self._timer is None:
            self._timer = self._clock.call_at(self._clock.now() + self.WAIT, self._on_time)

    @property
    def crowded(self) -> bool:
        return len(self._pending) >= self.CROWD

    async def room(self) -> None:
        """Return once fewer answers wait for the file."""
        while self.crowded and self._is_flushing():
            assert self._flushing is not None
            await asyncio.wait({self._flushing, self._next_group()}, return_when=asyncio.FIRST_COMPLETED)

    def _next_group(self) -> asyncio.Future[None]:
        if self._taken is None or self._taken.done():
            self._taken = asyncio.get_running_loop().create_future()
        return self._taken

    def _on_time(self) -> None:
        self._timer = None
        self._flush()

    def _flush(self) -> None:
        if not self._pending or self._is_flushing():
            return  # the flush under way takes the next group when it is done
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._flushing = asyncio.get_running_loop().create_task(self._write_out())

    def _is_flushing(self) -> bool:
        return self._flushing is not None and not self._flushing.done()

    def _try_again(self) -> None:
        self._retry = None
        if not self._is_flushing():
            self._flushing = asyncio.get_running_loop().create_task(self._write_out())

    async def _write_out(self) -> None:
        while self._pending or self._owed:
            entries, self._pending = self._pending, []
            if self._taken is not None and not self._taken.done():
                self._taken.set_result(None)
            try:
                if not self.lost:
                    await self.worker.run(self._write, entries)
            finally:
                for entry in entries:
                    entry.durable()
            if not self._owed:
                self._unwritten = {entry.key: entry for entry in self._pending if entry.answered}
            elif not self._pending:
                if self._retry is None:
                    self._retry = self._clock.call_at(self._clock.now() + self.AGAIN, self._try_again)
                return

    def _write(self, entries: list[Entry]) -> None:
        """In the worker thread."""
        store = self._opened()
        if store is None:
            return
        owed = self._owed + entries
        try:
            store.write(owed)
            owed = []
        except StoreBusy:
            pass  # owed: written with the next group, a second later, or at the end
        except StoreLost as error:
            owed = []
            self._give_up(error)
        except Exception:  # one of them is nothing that a table can hold (token counts of 10**30): the others are kept
            owed = self._write_singly(store, owed)
        finally:
            self._owed = owed

    @staticmethod
    def _write_singly(store: Store, entries: list[Entry]) -> list[Entry]:
        owed = []
        for entry in entries:
            try:
                store.write([entry])
            except (StoreBusy, StoreLost):
                owed.append(entry)
            except Exception:  # noqa: S112 - what cannot be kept is handed to the caller all the same
                continue
        return owed

    async def drain(self) -> None:
        """Return once everything handed in so far is kept (or owed, where another process holds the file)."""
        self._flush()
        while self._flushing is not None:
            flushing = self._flushing
            await asyncio.wait({flushing})
            if self._flushing is flushing:
                self._flushing = None
                if not flushing.cancelled():
                    flushing.result()
            self._flush()

    @property
    def owed(self) -> int:
        """Answers that are in memory only, because another process holds the file."""
        return len(self._owed)

    async def close(self) -> None:
        await self.drain()
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self._refresh is not None:
            self._refresh.cancel()
            self._refresh = None

        def shut() -> None:
            if self.store is None:
                return
            for _ in range(5):  # each waits 0.2 s for the file
                if not self._owed:
                    break
                self._write([])
            self.store.close()
            self.store = None
            if self._owed:
                lost, self._owed = len(self._owed), []
                warnings.warn(
                    f"llmkit could not keep {lost} answers: another process held the cache file to the end",
                    RuntimeWarning,
                    stacklevel=2,
                )

        # Not told by the store: a look-up that nobody waits for any more may be about to open it. And at the interpreter's end no thread
        # can be started for nothing.
        if not self.worker.idle:
            await self.worker.run(shut)
            self._unwritten = {}
        self.worker.let_go()  # a session that is closed leaves no thread behind

    def forget(self) -> None:
        """In a forked child: start anew, with a shard of its own."""
        if self.store is not None:
            self.store.forget()
            self.store = None
        self.worker = Worker("llmkit-store")
        self._pending, self._owed, self._unwritten = [], [], {}
        self._timer = self._retry = self._flushing = self._taken = None
        self.settling, self._claiming = set(), []
        self._refresh = self._refreshing = None
