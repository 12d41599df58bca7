"""Files in, part files out: the operations of ``df.llm`` over more rows than memory holds, and on again from wherever they were stopped.

Rows are read a chunk at a time. Each chunk is a run of the usual kind: same engine, same store, which is the journal. The next one
begins when what is left of the one before is in flight, so a slow row keeps nobody waiting but its own chunk; a chunk that is through is
written as a part and forgotten. Of several steps each works on another chunk.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pyarrow as pa

from ..adapter import Target
from ..engine.writer import Writer
from ..errors import AccessError, BadInput, BudgetReached, Cancelled, ConfigError, DiskFull, LLMError, RequestError, Unreachable
from ..event_loop import off_loop, to_the_end
from ..frames import arguments as checked
from ..frames.arguments import Cache, OnError, Prefer, PromptCache
from ..frames.calling import Accessor, How
from ..frames.columns import TEXT, ColumnShape, DetailShape, FrameTable
from ..frames.estimates import summed
from ..frames.pandas_accessor import FrameAccessor
from ..frames.procedure import Procedure
from ..operations.conversations import CONVERSATIONS, ROW_OPTIONS
from ..run import Run, to_the_caller
from ..session import Session, default, part_of_another
from ..types import Estimate, Outcome, Progress, Usage
from .parts import ADDRESS, ERRORS, Part, Parts, mark, to_frame, with_columns
from .sources import Chunk, Source, source_of

__all__ = ["OPERATIONS", "FileResult", "FileRun", "Step", "begun", "stream_file"]

#: What can be asked of a file: one answer a row.
OPERATIONS = ("chat", "classify", "embed", "extract", "transcribe")

#: Chunks that are read and not yet written, at the most: each costs its rows, and one row that hangs holds up its own.
_LIVE = 12
#: Chunks that are read before their turn comes.
_AHEAD = 2
#: Rows of a chunk; of vectors fewer, since each has thousands of numbers.
_ROWS, _ROWS_OF_VECTORS = 5_000, 2_000
#: Seconds between two looks at how far a chunk is.
_LOOK = 0.05

#: Arguments that say how a call is carried out, and nothing about what comes of it.
_HOW = {"cache", "timeout", "max_attempts", "max_concurrency", "prefer", "model", "fallback", "context_fallback", "content_fallback"}

#: Arguments that files have no use for, and why.
_FOR_FRAMES = {
    "join": "in part files the answers stand beside their rows anyway",
    "explode": "a row of a file stays one row",
    "batch": "send a frame at a time to batch jobs",
}


class Step:
    """One operation on every row.

    Parameters
    ----------
    operation : str
    arguments : mapping
        Of the method of ``df.llm`` that has its name.
    into : str, optional
        The column that the answer becomes; of several columns what stands before their names.

    Raises
    ------
    BadInput
        There is no such operation, or it has no such argument.
    """

    def __init__(self, operation: str, arguments: Mapping[str, Any], into: str | None = None) -> None:
        if operation not in OPERATIONS:
            near = get_close_matches(str(operation), OPERATIONS, 1, 0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"it is one of {', '.join(map(repr, OPERATIONS))}"
            raise BadInput(f"no operation {operation!r} over files: {hint}")
        known = inspect.signature(getattr(FrameAccessor, operation)).parameters
        for name in arguments:
            if name not in known:
                raise BadInput(f"{operation} takes no {name}; df.llm.{operation}? says what it takes")
        for name, why in _FOR_FRAMES.items():
            if arguments.get(name):
                raise BadInput(f"{name}=True is for frames: {why}")
        self.operation = operation
        self.into = checked.text("into", into)
        self.arguments = dict(arguments)
        self.label = into or operation
        self.conversations = operation == "chat" and arguments.get("prompt") is None and arguments.get("on") is None
        if self.conversations:
            odd = next((name for name in arguments if name not in {*_HOW, "system", "temperature", "max_tokens", "seed", "detail"}), None)
            if odd is not None:
                raise BadInput(f"{odd} needs a prompt: without one the file's own column of messages is sent")

    def cached(self, cache: Cache) -> Step:
        """The same with stored answers taken, asked anew, or neither."""
        return Step(self.operation, {**self.arguments, "cache": cache}, self.into)

    def call(self, frame: pd.DataFrame, session: Session, **how: Any) -> Any:
        """The method of ``df.llm``, on this frame."""
        if self.conversations:
            return _Conversing(session).chat(frame, **{**self.arguments, **how})
        return getattr(FrameAccessor(frame, session), self.operation)(**{**self.arguments, **how})

    @property
    def in_batches(self) -> bool:
        """Whether many of its rows travel in one request."""
        return self.operation == "embed"

    @property
    def in_flight(self) -> int:
        return int(self.arguments.get("max_concurrency") or 64)

    def columns(self, result: Any) -> pd.DataFrame:
        """What a run made, as columns of a part."""
        if isinstance(result, pd.Series):
            return result.to_frame(self.into or str(result.name or self.operation))
        named = {name: f"{self.into}_{name}" if self.into else str(name) for name in result.columns}
        made: pd.DataFrame = result.rename(columns=named)
        return made

    def facts(self) -> dict[str, Any]:
        """By name what decides about its answers, beside the model."""
        told = {name: mark(value) for name, value in self.arguments.items() if name not in _HOW}
        return {"operation": self.operation, **told, **({"into": mark(self.into)} if self.into else {})}


class _Conversing(Accessor):
    """``chat`` on rows that are whole conversations."""

    def chat(
        self,
        frame: pd.DataFrame,
        *,
        model: Any = None,
        fallback: Any = None,
        context_fallback: Any = None,
        content_fallback: Any = None,
        prefer: Prefer = "any",
        system: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        seed: int | None = None,
        detail: bool = False,
        cache: Cache = "use",
        on_error: OnError = "keep",
        max_cost: float | None = None,
        dry_run: bool = False,
        show_progress: bool = True,
        wait: bool = True,
        timeout: float = 180.0,
        max_attempts: int = 5,
        max_concurrency: int = 64,
    ) -> Any:
        on = next((name for name in ("messages", "body") if name in frame.columns), None)
        if on is None:
            raise BadInput("say prompt= or on=, or give rows that have a column of messages (or of request bodies, named body)")
        policy = checked.policy(cache, on_error, max_cost, timeout, max_attempts, max_concurrency, prefer)
        how = How(model, fallback, policy, dry_run, show_progress, wait, context_fallback, content_fallback)
        arguments = {
            "on": on,
            "system": checked.text("system", system),
            "row_options": [name for name in ROW_OPTIONS if name in frame.columns],
            "options": checked.options(temperature=temperature, max_tokens=max_tokens, seed=seed),
        }
        shape = (DetailShape if detail else ColumnShape)(frame.index, "text", "chat")
        return self._run(CONVERSATIONS, FrameTable(frame), arguments, shape, how)


class FileResult:
    """What stands in an out directory.

    Attributes
    ----------
    path : str
        The directory: ``pd.read_parquet(path)`` reads it, and so do Dask, Spark and the others.
    rows : int
        Rows in it.
    failed : int
        Those of them that have no answer for a reason.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.path = parts.folder.path
        found = list(parts)
        self.rows = sum(part.rows for part in found)
        self.failed = sum(part.errors for part in found)
        self._files = [parts.folder.name(parts.file(part.number)) for part in found]

    @property
    def files(self) -> list[str]:
        """The part files, in the order of the rows."""
        return list(self._files)

    def read(self) -> pd.DataFrame:
        """All of it as a frame; it must fit into memory."""
        return self._parts.read()

    def errors(self) -> pd.DataFrame:
        """The rows without an answer and why: row (from 0 over all input), file, line, step, kind, error, attempts."""
        return self._parts.errors()

    def __len__(self) -> int:
        return self.rows

    def __repr__(self) -> str:
        failed = f", {self.failed:,} failed: .errors()" if self.failed else ""
        return f"<{self.rows:,} rows in {len(self._files):,} parts at {self.path}: .read(){failed}>"


@dataclass(slots=True)
class _Work:
    """A chunk on its way through the steps."""

    chunk: Chunk
    frame: pd.DataFrame
    #: Rows that nothing befell so far.
    alive: Any
    errors: list[dict[str, Any]]
    cost: float | None = 0.0
    made: list[pd.DataFrame] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Books:
    """What came of the runs that have ended and are let go of, and those under way: one thing, so that whoever looks on from another
    thread finds each run once.
    """

    done: int = 0
    errors: int = 0
    stored: int = 0
    retries: int = 0
    possibly_billed: int = 0
    usage: Usage = field(default_factory=Usage)
    cost: float | None = 0.0
    reasons: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    history: tuple[pd.DataFrame, ...] = ()
    live: tuple[tuple[str, Run[Any]], ...] = ()

    def without(self, run: Run[Any], began: float) -> _Books:
        """The same with a run that has ended added up."""
        p, cost = run.progress(), run.cost
        history = run.history()
        return replace(
            self,
            done=self.done + p.done,
            errors=self.errors + p.errors,
            stored=self.stored + p.stored,
            retries=self.retries + run.retries,
            possibly_billed=self.possibly_billed + run.possibly_billed,
            usage=self.usage + run.usage(),
            cost=None if cost is None or self.cost is None else self.cost + cost,
            reasons=_added(self.reasons, run),
            history=_together(self.history, history.assign(seconds=history["seconds"] + began)),
            live=tuple(one for one in self.live if one[1] is not run),
        )


def _together(frames: tuple[pd.DataFrame, ...], more: pd.DataFrame) -> tuple[pd.DataFrame, ...]:
    """The frames and one more; of many small ones, which cost a hundred times their numbers, one is made."""
    found = (*frames, more) if len(more) else frames
    return found if len(found) < 100 else (pd.concat(found, ignore_index=True),)


def _added(reasons: Mapping[str, tuple[int, str]], run: Run[Any]) -> dict[str, tuple[int, str]]:
    found = dict(reasons)
    for kind, count, example in run.reasons():
        before = found.get(kind, (0, example))
        found[kind] = (before[0] + count, before[1])
    return found


class FileRun(Procedure[FileResult]):
    """A run over files. What ``Run`` says of rows holds over all of them; ``errors()`` also tells of what was finished by earlier calls."""

    def __init__(
        self,
        session: Session,
        steps: Sequence[Step],
        source: Source,
        parts: Parts,
        chunk_rows: int,
        *,
        models: Sequence[str],
        keep: Sequence[str],
        limit: int | None,
        max_cost: float | None,
        on_error: str,
        show_progress: bool,
        cache: str,
    ) -> None:
        super().__init__(
            session,
            ", ".join(step.operation for step in steps),
            models,
            lambda _: FileResult(parts),
            0,
            max_cost=max_cost,
            on_error=on_error,
            show_progress=show_progress,
            note=f" to {parts.folder.path}",
        )
        self._asked = list(steps)
        self._source = source
        self._parts = parts
        self._chunk_rows = chunk_rows
        self._keep = list(keep)
        self._limit = limit
        self._keeps_answers = cache != "off"
        self._reset()

    def _reset(self) -> None:
        self._books = _Books()
        self._fault: BaseException | None = None
        self._cancelled = None
        self._made = None
        #: Rows that were read or found finished, and where that ended; rows in all once that is known.
        self._read, self._position = 0, None
        self._total: int | None = None
        self._first_failure: tuple[int, LLMError] | None = None
        self._working: list[_Work] = []
        self._like: pa.Schema | None = None
        #: A thread that reads must be out of the file before it is closed.
        self._reading: asyncio.Task[_Work | None] | None = None

    # ------------------------------------------------------------------------------------------------------------- working

    async def _go_through(self) -> None:
        part_of_another.set(True)  # in the context of this task only
        self._turns = [asyncio.Lock() for _ in self._asked]
        if self._max_cost is not None:
            # What a run may spend is what all before it have left.
            self._turns = [self._turns[0]] * len(self._asked)
        self._book = asyncio.Lock()
        self._ahead, self._live = asyncio.Semaphore(_AHEAD), asyncio.Semaphore(_LIVE)
        going: set[asyncio.Task[None]] = set()
        writer = self._keeper
        tell = partial(asyncio.get_running_loop().call_soon_threadsafe, self._stop_unkept)
        if writer is not None:
            writer.on_lost.add(tell)
        try:
            await self._read_on(going)
            while going and self._fault is None:
                await asyncio.wait(going, return_when=asyncio.FIRST_COMPLETED)
                going = {task for task in going if not task.done()}
        except asyncio.CancelledError:
            self._halt(Cancelled("not sent: the run was stopped before this row"))
        except Exception as error:
            self._halt(error)
        await to_the_end(self._wind_up(going))
        if writer is not None:
            writer.on_lost.discard(tell)
        if self._fault is not None and not isinstance(self._fault, LLMError):
            raise self._fault
        self._made = FileResult(self._parts)

    async def _read_on(self, going: set[asyncio.Task[None]]) -> None:
        """Read chunk after chunk, pass over those whose part is there, and set the others to work."""
        number = 0
        while self._fault is None:
            most = self._chunk_rows if self._limit is None else min(self._chunk_rows, self._limit - self._read)
            if most <= 0:
                break
            part = await off_loop(self._parts.whole, number)
            if part is not None and (part.last or part.rows in (most, self._chunk_rows)):
                self._pass_over(part)
                number += 1
                if part.last:
                    self._total = self._read
                    break
                continue
            await self._ahead.acquire()
            await self._live.acquire()
            self._reading = asyncio.create_task(off_loop(self._next, number, most))
            work = await asyncio.shield(self._reading)
            if work is None:
                self._total = self._read
                break
            number += 1
            self._books = replace(self._books, errors=self._books.errors + len(work.errors))
            going.add(asyncio.create_task(self._carry_through(work)))
            going.difference_update([task for task in going if task.done()])

    def _pass_over(self, part: Part) -> None:
        times = len(self._asked)
        books, there = self._books, times * (part.rows - part.errors)
        self._books = replace(books, done=books.done + there, stored=books.stored + there, errors=books.errors + part.errors)
        self._read, self._position = self._read + part.rows, part.until

    def _next(self, number: int, most: int) -> _Work | None:
        chunk = self._source.read(self._position, most)
        if chunk is None or (number and not len(chunk.table)):
            return None
        chunk.number, chunk.start = number, self._read
        self._read, self._position = self._read + len(chunk.table), chunk.until
        return _work(chunk)

    async def _carry_through(self, work: _Work) -> None:
        self._working.append(work)
        waits = True
        try:
            for step, turn in zip(self._asked, self._turns, strict=True):
                async with turn:
                    if waits:
                        self._ahead.release()
                        waits = False
                    if (writer := self._keeper) is not None and writer.lost:
                        self._stop_unkept()
                    if self._fault is not None:
                        return
                    run = await off_loop(self._begin, work, step)
                    self._books = replace(self._books, live=(*self._books.live, (step.label, run)))
                    if self._fault is not None:  # it came while the run was begun
                        run.cancel()
                    assert run._running is not None
                    # Once: each wrapping of a future stays with it to its end.
                    end = asyncio.wrap_future(run._running.future)
                    await self._until_in_flight(run, end, step)
                await asyncio.wait({end})
                if not await self._taken_in(work, step, run, end):
                    return
            if self._fault is None:
                part = await off_loop(self._write, work)
                async with self._book:
                    await off_loop(self._parts.add, part)
        except Exception as error:
            self._halt(error)
        finally:
            if waits:
                self._ahead.release()
            self._live.release()
            self._working.remove(work)

    def _begin(self, work: _Work, step: Step) -> Run[Any]:
        frame = work.frame if work.alive.all() else work.frame[work.alive]
        run: Run[Any] = step.call(frame, self._session, max_cost=self.room(), wait=False, show_progress=False)
        return run

    async def _until_in_flight(self, run: Run[Any], end: asyncio.Future[None], step: Step) -> None:
        """Return when the next chunk is to begin: what is left of this one is in flight, or will be before another look."""
        before, at = 0, time.monotonic()
        while not (await asyncio.wait({end}, timeout=_LOOK))[0]:
            if self._max_cost is not None:
                continue
            if step.in_batches:
                return
            p, now = run.progress(), time.monotonic()
            through = p.done + p.errors + run.unasked
            before_another_look = 2 * _LOOK * (through - before) / (now - at)
            if run.rows - through <= 2 * step.in_flight + min(before_another_look, run.rows / 8):
                return
            before, at = through, now

    @property
    def _keeper(self) -> Writer | None:
        """Who keeps the answers of unfinished parts, where they are kept."""
        return self._session.engine.writer if self._keeps_answers else None

    def _stop_unkept(self) -> None:
        self._halt(
            DiskFull(
                "answers can no longer be kept on disk, so those of unfinished parts would be paid again: make room (or set "
                'LLMKIT_CACHE_DIR to another disk) and call again, or say cache="off" to go on without'
            )
        )

    async def _taken_in(self, work: _Work, step: Step, run: Run[Any], end: asyncio.Future[None]) -> bool:
        """Take what a run made; ``False`` where it did not get to its end."""
        fault = None if end.cancelled() else end.exception()
        if fault is None and run.stopped is None:
            await off_loop(self._take, work, step, run)
        began = run._began - self._began
        self.outcomes.notes += [note for note in run.outcomes.notes if note not in self.outcomes.notes]
        cost = run.cost
        work.cost = None if cost is None or work.cost is None else work.cost + cost
        self._books = self._books.without(run, began)
        if fault is not None:
            raise fault
        if run.stopped is not None:
            self._halt(run.stopped)
        return run.stopped is None

    def _take(self, work: _Work, step: Step, run: Run[Any]) -> None:
        made = step.columns(run.partial())
        if len(made) < len(work.frame):
            made = made.reindex(work.frame.index)
        if run.progress().errors:
            first = run._first_error()
            for line in run.errors().to_dict("records"):
                place = int(line["index"])
                work.alive[place] = False
                work.errors.append(_failure(work.chunk, place, step.label, line["kind"], line["error"], line["attempts"]))
                if first is not None and (self._first_failure is None or work.chunk.start + place < self._first_failure[0]):
                    self._first_failure = (work.chunk.start + place, first)
        work.made.append(made)
        work.frame = pd.concat([work.frame, made], axis=1)

    def _write(self, work: _Work) -> Part:
        chunk = work.chunk
        table = chunk.table.select(self._keep)
        made = pd.concat([_as_arrow_takes_it(one) for one in work.made], axis=1)
        if self._like is None and chunk.number:
            self._like = self._parts.schema()
        table = with_columns(table, made, self._like)
        if self._like is None:
            self._like = table.schema
        lines = sorted(work.errors, key=lambda line: line["row"])
        errors = pa.Table.from_pylist(lines, schema=ERRORS)
        # A chunk that the limit cut short is none that the source ends in.
        part = Part(chunk.number, len(table), len(lines), work.cost, not chunk.whole, chunk.until)
        return self._parts.write(part, table, errors)

    def _halt(self, error: BaseException) -> None:
        """Begin nothing more, and stop what goes on; the first reason stands."""
        if self._fault is None:
            self._fault = error
        for _, run in self._books.live:
            run.cancel()

    async def _wind_up(self, going: set[asyncio.Task[None]]) -> None:
        if waited_for := {*going, *([] if self._reading is None else [self._reading])}:
            await asyncio.wait(waited_for)
        self._source.close()
        if self._fault is None:
            if self._total is not None:
                await off_loop(self._parts.finish, self._total)
            else:
                await off_loop(self._parts.save)
        elif not isinstance(self._fault, DiskFull):
            try:
                await off_loop(self._parts.save)
            except (OSError, DiskFull):
                pass  # the parts name themselves

    # ------------------------------------------------------------------------------------------------------------- looking

    @property
    def rows(self) -> int:
        read = self._read
        known = self._total if self._total is not None else self._source.expected(read, self._position)
        return len(self._asked) * (known if self._limit is None else min(known, self._limit))

    @property
    def unasked(self) -> int:
        p = self.progress()
        return max(0, p.rows - p.done - p.errors) if self.done and self._fault is None else 0

    @property
    def stopped(self) -> LLMError | None:
        return self._fault if isinstance(self._fault, LLMError) else None

    def progress(self) -> Progress:
        books = self._books
        live = [run.progress() for _, run in books.live]
        end = self._ended if self._ended is not None else time.monotonic()
        usage = _usage(books)
        return Progress(
            rows=self.rows,
            done=books.done + sum(one.done for one in live),
            errors=books.errors + sum(one.errors for one in live),
            stored=books.stored + sum(one.stored for one in live),
            tokens=usage.input + usage.output,
            cost=_cost(books),
            seconds=end - self._began,
        )

    @property
    def cost(self) -> float | None:
        return _cost(self._books)

    def usage(self) -> Usage:
        return _usage(self._books)

    @property
    def possibly_billed(self) -> int:
        books = self._books
        return books.possibly_billed + sum(run.possibly_billed for _, run in books.live)

    @property
    def retries(self) -> int:
        books = self._books
        return books.retries + sum(run.retries for _, run in books.live)

    def reasons(self) -> list[tuple[str, int, str]]:
        books = self._books
        found = books.reasons
        for _, run in books.live:
            found = _added(found, run)
        return [(kind, count, example) for kind, (count, example) in sorted(found.items(), key=lambda one: -one[1][0])]

    def tasks(self) -> Iterator[Outcome]:
        """What became of the tasks of the chunks under way; those that are written are in the parts."""
        return chain.from_iterable(run.tasks() for _, run in self._books.live)

    def errors(self) -> pd.DataFrame:
        """The rows without an answer, those of earlier calls too: row (from 0 over all input), file, line, step, kind, error, attempts."""
        written = self._parts.errors()
        lines = sorted((line for work in list(self._working) for line in work.errors), key=lambda line: line["row"])
        if not lines:
            return written
        live = pa.Table.from_pylist(lines, schema=ERRORS)
        return to_frame([live]) if written.empty else pd.concat([written, to_frame([live])], ignore_index=True)

    def history(self) -> pd.DataFrame:
        books = self._books
        live = [(run.history(), run._began - self._began) for _, run in books.live]
        found = [*books.history, *(history.assign(seconds=history["seconds"] + began) for history, began in live if len(history))]
        return pd.concat(found, ignore_index=True) if found else ColumnShape(pd.RangeIndex(0), "text").history(self)

    def partial(self) -> FileResult:
        """What stands in the directory now; with an error in the way too."""
        return FileResult(self._parts)

    def _handed_back(self) -> FileResult:
        assert self._running is not None
        self._running.future.result()  # what went wrong that is nobody's refusal
        stopped = self.stopped
        raises = ConfigError | AccessError | Unreachable | DiskFull
        if stopped is not None and (isinstance(stopped, raises) or self._on_error == "raise"):
            if not isinstance(stopped, ConfigError):
                stopped.add_note(self._kept())
            raise stopped
        if self._on_error == "raise" and self.progress().errors:
            raise self._failure_of_a_row()
        self._tell()
        if isinstance(stopped, BudgetReached):
            warnings.warn(f"{stopped}. {self._kept()}", stacklevel=to_the_caller())
        return self.partial()

    def _failure_of_a_row(self) -> LLMError:
        if self._first_failure is not None:
            error = self._first_failure[1]
        else:
            line = self.errors().iloc[0]
            error = RequestError(f"row {line['row']:,}: {line['error']}", kind=line["kind"])
        error.add_note(self._kept())
        return error

    def _tell(self) -> None:
        notes, self.outcomes.notes = self.outcomes.notes, []
        for note in notes:
            warnings.warn(f"llmkit: {note}", stacklevel=to_the_caller())
        p = self.progress()
        if self.stopped is None and p.errors and not p.done:
            kinds = Counter({kind: count for kind, count, _ in self.reasons()})
            said = ", ".join(f"{count} x {kind}" for kind, count in kinds.most_common(3)) or "no row could be read"
            warnings.warn(f"llmkit: no row got an answer ({said}). See llmkit.last().errors()", stacklevel=to_the_caller())

    def _kept(self) -> str:
        kept = sum(part.rows for part in self._parts)
        return (
            f"llmkit: {kept:,} rows are finished and stand in {self._parts.folder.path}, further answers in the store: "
            "the same call again sends only the rest."
        )

    def retry(self) -> Run[FileResult]:
        """Make the parts again that have failed rows, asking for these anew, and go on with what a stop left over. Returns this run."""
        if not self.done:
            raise ConfigError("the run is still going; retry() is for afterwards")
        self._parts.forget([part.number for part in self._parts if part.errors])
        self._reset()
        self._began, self._ended, self._drawn = time.monotonic(), None, False
        self._start()
        return self


def _usage(books: _Books) -> Usage:
    return sum((run.usage() for _, run in books.live), books.usage)


def _cost(books: _Books) -> float | None:
    costs = [books.cost, *(run.cost for _, run in books.live)]
    return None if None in costs else sum(cost for cost in costs if cost is not None)


def _failure(chunk: Chunk, place: int, step: str, kind: str, error: str, attempts: int) -> dict[str, Any]:
    line = chunk.lines[place] if chunk.lines else None
    return {
        "row": chunk.start + place,
        "file": chunk.file_of(place),
        "line": line,
        "step": step,
        "kind": kind,
        "error": error,
        "attempts": int(attempts),
    }


def _work(chunk: Chunk) -> _Work:
    """A chunk as a frame, its unreadable rows set aside."""
    alive = np.ones(len(chunk.table), dtype=bool)
    alive[list(chunk.bad)] = False
    errors = []
    for place, why in sorted(chunk.bad.items()):
        said = f"line {chunk.lines[place]:,} of {chunk.file_of(place)} {why}"
        errors.append(_failure(chunk, place, "read", "unreadable", said, 0))
    return _Work(chunk, _frame(chunk.table), alive, errors)


def _frame(table: pa.Table) -> pd.DataFrame:
    """Rows as the operations take them; whole numbers stay whole beside missing ones, or chunks would differ in what they say."""

    def dtype(kind: pa.DataType) -> Any:
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            return pd.StringDtype(na_value=float("nan")) if TEXT == "str" else TEXT
        return None if pa.types.is_dictionary(kind) else pd.ArrowDtype(kind)

    frame: pd.DataFrame = table.to_pandas(types_mapper=dtype, ignore_metadata=True)
    return frame


def _as_arrow_takes_it(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns of Python objects as JSON text: what Arrow makes of them would differ between chunks."""
    objects = [name for name in frame.columns if pd.api.types.is_object_dtype(frame[name].dtype)]
    if not objects:
        return frame
    written = {
        name: pd.array([None if cell is None else cell if isinstance(cell, str) else _json(cell) for cell in frame[name]], dtype=TEXT)
        for name in objects
    }
    return frame.assign(**{str(name): column for name, column in written.items()})


def _json(cell: Any) -> str | None:
    if isinstance(cell, float) and cell != cell:
        return None
    return orjson.dumps(cell, default=str, option=orjson.OPT_SERIALIZE_NUMPY).decode()


# ------------------------------------------------------------------------------------------------------------------ the call


def begun(
    steps: Sequence[Step],
    source: Source,
    out: Any,
    *,
    keep: Sequence[str] | None = None,
    chunk_rows: int,
    parts: str = "parquet",
    limit: int | None = None,
    cache: Cache = "use",
    on_error: OnError = "keep",
    max_cost: float | None = None,
    dry_run: bool = False,
    show_progress: bool = True,
    wait: bool = True,
    session: Session | None = None,
) -> Any:
    """Begin work over a source: what ``stream_file`` and ``Pipeline.run`` have in common.

    The first row is tried before anything is written or sent: columns, models, keys and prices are told of where the call stands.
    """
    session = session or default()
    checked.policy(cache, on_error, max_cost, 1.0, 1, 1)
    limit = checked.limit(limit)
    if parts not in ("parquet", "jsonl"):
        raise ConfigError(f'parts is "parquet" or "jsonl", not {parts!r}')
    columns = source.columns
    missing = next((name for name in keep or () if name not in columns), None)
    if missing is not None:
        raise BadInput(f"keep names a column {missing!r} that is not there; the columns are {', '.join(map(repr, columns[:8]))}")
    kept = list(columns if keep is None else keep)
    if any(os.path.dirname(os.path.abspath(file.name)) == os.path.abspath(os.fspath(out)) for file in source.files):
        raise BadInput(f"out={os.fspath(out)!r} is where the input lies, and parts would become input; name a directory of their own")
    try:
        first = source.read(None, 1)
        assert first is not None
        models, addresses = _tried(steps, _work(first).frame, kept, session, max_cost)
        if dry_run:
            return _estimated(steps[0], source, session, models[0], chunk_rows, limit, len(steps))
        call: dict[str, Any] = {"keep": mark(kept)}
        for number, (step, model, asked) in enumerate(zip(steps, models, addresses, strict=True)):
            before = f"step {number + 1}: " if len(steps) > 1 else ""
            facts = {**step.facts(), "model": model, ADDRESS: mark(asked)}
            call |= {f"{before}{name}": value for name, value in facts.items()}
        folder = Parts(out, call, source.identity(), chunk_rows, parts)
        run = FileRun(
            session, steps, source, folder, chunk_rows, models=models, keep=kept, limit=limit, max_cost=max_cost, on_error=on_error,
            show_progress=show_progress, cache=cache,
        )  # fmt: skip
        folder.run = folder.run or run.id
        folder.save()
    except BaseException:
        source.close()
        raise
    return run.start().finish(wait)


def _tried(
    steps: Sequence[Step], frame: pd.DataFrame, kept: Sequence[str], session: Session, max_cost: float | None
) -> tuple[list[str], list[list[str]]]:
    """The models that the steps ask, and where each is asked, found by a call of each that sends nothing."""
    taken = set(kept)
    models, addresses = [], []
    for step in steps:
        told = step.call(frame, beside := _Noting(session), max_cost=max_cost, dry_run=True)
        models.append(told.model)
        addresses.append(sorted(beside.asked))
        made = step.columns(step.call(frame.iloc[:0], session, show_progress=False))
        twice = next((name for name in made.columns if name in taken or name in frame.columns), None)
        if twice is not None:
            raise BadInput(f"{step.operation} makes a column {twice!r}, and there is one already: say into= (or prefix= of extract)")
        taken |= set(made.columns)
        frame = pd.concat([frame, made.reindex(frame.index)], axis=1)
    return models, addresses


class _Noting(Session):
    """The same session, which notes where the models are that calls choose: a name may be another server's tomorrow."""

    def __init__(self, session: Session) -> None:
        self.__dict__.update(session.__dict__)
        self.asked: set[str] = set()

    def route(self, *given: Any, **more: Any) -> tuple[Target, ...]:
        found = super().route(*given, **more)
        self.asked.update(f"{target.name} {target.provider.base_url}" for target in found)
        return found


def _estimated(step: Step, source: Source, session: Session, model: str, chunk_rows: int, limit: int | None, steps: int) -> Estimate:
    """What a run would send, found by reading all of the source; of several steps the first."""
    found: list[Estimate] = []
    position, rows = None, 0
    while limit is None or rows < limit:
        chunk = source.read(position, chunk_rows if limit is None else min(chunk_rows, limit - rows))
        if chunk is None or not len(chunk.table):
            break
        position, rows = chunk.until, rows + len(chunk.table)
        work = _work(chunk)
        found.append(step.call(work.frame[work.alive], session, dry_run=True))
    source.close()
    seconds = [one.seconds for one in found]
    basis = found[-1].basis if found else "there are no rows"
    if steps > 1:
        basis += "; the first step only, what the others send depends on it"
    return Estimate(
        model=model,
        rows=rows,
        missing=sum(one.missing for one in found) + rows - sum(one.rows for one in found),
        **summed(found),
        seconds=None if None in seconds else sum(one for one in seconds if one is not None),
        basis=basis,
    )


def stream_file(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    operation: str,
    *,
    out: str | os.PathLike[str],
    prompt: str | None = None,
    on: Any = None,
    schema: Any = None,
    labels: Any = None,
    instructions: str | None = None,
    into: str | None = None,
    keep: Sequence[str] | None = None,
    model: Any = None,
    fallback: Any = None,
    context_fallback: Any = None,
    content_fallback: Any = None,
    prefer: Prefer | None = None,
    system: str | None = None,
    response_format: Any = None,
    temperature: float | None = None,
    max_tokens: int | None = None,
    more_tokens: int | None = None,
    max_reask: int | None = None,
    seed: int | None = None,
    examples: Any = None,
    images: Any = None,
    roots: Any = None,
    max_file_mb: float | None = None,
    tools: Any = None,
    tool_choice: str | None = None,
    run_tools: bool = False,
    max_rounds: int | None = None,
    mode: str | None = None,
    evidence: bool = False,
    votes: int | None = None,
    check: Any = None,
    prefix: str | None = None,
    multi_label: bool = False,
    by: str | None = None,
    dimensions: int | None = None,
    input_type: str | None = None,
    language: str | None = None,
    long_text: str | None = None,
    overlap: float | None = None,
    window_tokens: int | None = None,
    prompt_cache: PromptCache | None = None,
    detail: bool = False,
    limit: int | None = None,
    cache: Cache = "use",
    on_error: OnError = "keep",
    max_cost: float | None = None,
    dry_run: bool = False,
    show_progress: bool = True,
    wait: bool = True,
    timeout: float | None = None,
    max_attempts: int | None = None,
    max_concurrency: int | None = None,
    chunk_rows: int | None = None,
    parts: str = "parquet",
    kind: str | None = None,
    dtypes: Mapping[str, str] | None = None,
    encoding: str = "utf-8",
    session: Session | None = None,
) -> Any:
    """Ask a model about every row of a file that may be larger than memory, and go on where a call before was stopped.

    The rows come out beside their answers, in order, as part files in the directory ``out``, which ``pd.read_parquet(out)`` reads whole.
    The same call again, after whatever ended the last one, passes over the parts that are there, takes from the store what was answered,
    and sends the rest.

    Parameters
    ----------
    path : str, Path or list of them
        JSON lines (``.jsonl``, ``.ndjson``), CSV (``.csv``, ``.tsv``) or Parquet; a glob, a directory, a path of fsspec; ``.gz`` too.
        CSV is read as text, as it stands in the file, with empty cells missing. In JSON lines the first chunk decides what a column holds:
        text, whole numbers, numbers, booleans, and of anything else its JSON as text. A line that cannot be read is a failed row with its
        number; the rest goes on.
    operation : {"chat", "extract", "classify", "embed", "transcribe"}
        The method of ``df.llm`` whose keywords these are. ``chat`` without ``prompt`` and ``on`` sends each row's own ``messages``: a file
        of OpenAI request bodies.
    out : str or Path
        A directory, also by fsspec (``"s3://bucket/out"``). One that holds another run's parts is refused before anything is sent.
    into : str, optional
        The column of the answer; by default the operation's name. Of several columns what stands before their names.
    keep : list of str, optional
        The columns of the file that stand in the parts; by default all.
    limit : int, optional
        Only the first so many rows.
    max_cost : float, optional
        US dollars for this call. Chunks are then asked one after the other.
    chunk_rows : int, optional
        Rows of a part: 5,000, of vectors 2,000.
    parts : {"parquet", "jsonl"}
        What is written.
    kind : {"parquet", "csv", "jsonl"}, optional
        What is read, where the name does not say it.
    dtypes : mapping, optional
        Column of a CSV or JSON lines file to ``"str"``, ``"int64"``, ``"float64"`` or ``"bool"``.
    encoding : str
        Of a CSV file.
    session : Session, optional
        Instead of the shared one.
    dry_run : bool
        Read the file, send and write nothing, and return an ``Estimate``.
    prompt, on, schema, labels and all others
        As in the method of ``df.llm``.

    Returns
    -------
    FileResult
        ``path``, ``rows``, ``failed``, ``files``, ``read()`` and ``errors()``. With ``wait=False`` a ``Run`` whose result it is; its
        ``retry()`` asks once more for the rows that failed.

    Raises
    ------
    ConfigError
        Before anything is sent: no such file, column or model, a missing key, a directory of another run.
    AccessError, Unreachable, DiskFull
        The run cannot go on. What is finished is kept, and the same call sends only the rest.

    Examples
    --------
    >>> import llmkit, pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "in.csv").write_text("text\\nfirst\\nsecond\\n")
    >>> how = {"model": "echo/echo", "show_progress": False}
    >>> done = llmkit.stream_file(folder / "in.csv", "chat", prompt="Say {text}", out=folder / "out", **how)
    >>> done.rows, done.read()["chat"].tolist()
    (2, ['[echo, not a model] Say first', '[echo, not a model] Say second'])
    """
    said = {
        "prompt": prompt, "on": on, "schema": schema, "labels": labels, "instructions": instructions, "model": model, "fallback": fallback,
        "context_fallback": context_fallback, "content_fallback": content_fallback, "prefer": prefer, "system": system,
        "response_format": response_format, "temperature": temperature, "max_tokens": max_tokens, "more_tokens": more_tokens,
        "max_reask": max_reask, "seed": seed, "examples": examples, "images": images, "roots": roots, "max_file_mb": max_file_mb,
        "tools": tools, "tool_choice": tool_choice, "run_tools": run_tools, "max_rounds": max_rounds, "mode": mode, "evidence": evidence,
        "votes": votes, "check": check, "prefix": prefix, "multi_label": multi_label, "by": by, "dimensions": dimensions,
        "input_type": input_type, "language": language, "long_text": long_text, "overlap": overlap, "window_tokens": window_tokens,
        "prompt_cache": prompt_cache, "detail": detail, "cache": cache, "timeout": timeout, "max_attempts": max_attempts,
        "max_concurrency": max_concurrency,
    }  # fmt: skip
    step = Step(operation, {name: value for name, value in said.items() if value is not None and value is not False}, into)
    rows = rows_of_a_chunk([step], chunk_rows)
    source = source_of(path, rows, None, dtypes, encoding, kind)
    return begun(
        [step], source, out, keep=keep, chunk_rows=rows, parts=parts, limit=limit, cache=cache, on_error=on_error, max_cost=max_cost,
        dry_run=dry_run, show_progress=show_progress, wait=wait, session=session,
    )  # fmt: skip


def rows_of_a_chunk(steps: Sequence[Step], said: int | None) -> int:
    usual = _ROWS_OF_VECTORS if any(step.operation == "embed" for step in steps) else _ROWS
    return checked.rows("chunk_rows", said, 1) or usual
