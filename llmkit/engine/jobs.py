"""A run that travels as the vendor's batch jobs: draws tasks as a live run does, and submits what is not stored as files of lines.

The journal (``job_files``) says before a submit that there will be one and after it what became of it, so that whoever comes after a
crash, in any process, takes the job up instead of paying for a second one. Answers go to the store under the keys of the live path.

Nothing here holds prompts or answers of a whole run: lines go to the disk as they are drawn, results come from the disk a slice at a time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import orjson

from ..adapter import Jobs, JobState, Target
from ..errors import (
    AccessError,
    BadOutput,
    BudgetReached,
    Busy,
    Cancelled,
    ConfigError,
    InvalidRequest,
    LLMError,
    ModelGone,
    RequestError,
    ServerFault,
    Unreachable,
    repeats,
)
from ..event_loop import apart, off_loop, to_the_end
from ..outcomes import JOB, PENDING
from ..types import DRAW, Estimate, Reply, Request, Task, Usage
from . import scheduler
from .accounts import Memory
from .engine import Engine, Plan
from .exchange import answered, signed
from .job_files import (
    ENDED,
    FETCHED,
    SENT,
    TAKEN,
    WRITTEN,
    Book,
    Folder,
    Hold,
    Lines,
    Part,
    Shelf,
    error_of,
    facts_of,
    line_at,
    slices,
)
from .retry import Ticket
from .scheduler import Line, _drawn, _Settled, _unpacked
from .store import OutcomeRow, Stored

__all__ = ["Overnight", "Taken", "estimate", "shelf_of"]

T = TypeVar("T")

#: Seconds between two looks at a job: at first, how they grow, and at the most.
_LOOK_SECONDS, _LOOK_GROWS, _LOOK_MOST_SECONDS = 5.0, 1.5, 300.0

#: Seconds between two tries to be the one who works in a folder, or adds one.
_TURN_SECONDS = 0.25

#: Seconds in which a submit whose answer never came may still turn up at the vendor.
_SETTLES_SECONDS = 5.0

#: So often in succession a vendor may know neither us nor the job before that is believed.
_BELIEVED_AFTER = 3

#: Seconds until a job is submitted again that the vendor had no room for, then twice as long.
_ROOM_SECONDS, _ROOM_MOST_SECONDS = 120.0, 3600.0

#: A vendor that keeps results for less than this is warned of when a job goes there.
_WARNED_BELOW_HOURS = 72

#: Results are read so many at a time, and from so many bytes.
_SLICE, _SLICE_BYTES = 256, 4_000_000


async def estimate(engine: Engine, plan: Plan) -> Estimate:
    """What a batch run would do; nothing is sent. The last target of the route has the prices of jobs."""
    last = plan.route[-1]
    made = await scheduler.estimate(engine, replace(plan, route=(replace(last, only_for=""),)))
    requests = made.unique - made.stored
    return replace(made, requests=requests, seconds=None, basis=f"{made.basis}; as batch jobs, which may take 24 hours")


def shelf_of(directory: Path) -> Shelf:
    return Shelf(directory / "jobs")


class Taken(NamedTuple):
    """What a run in another process left, to be taken up without its rows.

    Attributes
    ----------
    folder : Folder
    keys : list of bytes
        By task.
    task_of_row : (rows,) int32 array
    sample : Request or None
        What one row might have asked; ``None``: the answers cannot be read here, and the jobs are only looked after.
    """

    folder: Folder
    keys: Sequence[bytes]
    task_of_row: Any
    sample: Request | None


@dataclass(slots=True)
class Overnight:
    """What a run's jobs are doing, for the run to show; set up once, also where the run is begun again.

    Attributes
    ----------
    keep : mapping
        Files for the folder by their names, and ``recipe``, for whoever takes the run up in another process.
    taken : Taken or None
    doing : str
        In a word or two.
    submitted : bool
        Whether all has been submitted that can be for now.
    books : dict
        The journals that are looked after, by the run that began them.
    """

    engine: Engine
    plan: Plan
    directory: Path
    recipe: Any = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    taken: Taken | None = None
    doing: str = ""
    submitted: bool = False
    stopping: bool = False
    books: dict[str, Book] = field(default_factory=dict)
    stir: Callable[[], None] = lambda: None
    #: Who waits for the next look at all jobs.
    waiting: list[asyncio.Event] = field(default_factory=list)

    async def carry_out(self) -> None:
        """Settle every task of the plan; returns normally also when the run was stopped."""
        self.submitted = False
        try:
            await JobLine(self.engine, self.plan, self).run()
        finally:
            self.submitted, self.doing = True, ""
            self.looked(self.waiting)

    async def look_now(self, seconds: float) -> None:
        """Look at all jobs now, and wait for that so many seconds at the most."""
        through = asyncio.Event()
        self.waiting.append(through)
        self.stir()
        with suppress(TimeoutError):
            await asyncio.wait_for(through.wait(), seconds)

    @staticmethod
    def looked(waiting: Iterable[asyncio.Event]) -> None:
        for through in waiting:
            through.set()

    async def stop(self) -> None:
        """Cancel at the vendor; what was answered by then is still taken in."""
        self.stopping = True
        self.stir()

    def parts(self) -> list[tuple[Book, Part]]:
        return [(book, part) for book in list(self.books.values()) for part in list(book.parts)]

    @property
    def open(self) -> bool:
        """Whether something may still come of the jobs, as far as is known here."""
        return any(part.state != TAKEN for _, part in self.parts())

    @property
    def there(self) -> int:
        """Requests that the vendor has done and that are not here yet."""
        return sum(part.done + part.failed for _, part in self.parts() if part.state != TAKEN)


class _FromJob(_Settled):
    """An answer of a batch job on its way to the disk; of a row of another run, where its task has no number here."""

    __slots__ = ()

    def outcome(self) -> OutcomeRow | None:
        if self.ticket.number < 0:
            return None
        row = _Settled.outcome(self)
        return row._replace(source="job") if row is not None and self.answered else row

    def durable(self) -> None:
        ticket, result, outcomes = self.ticket, self.result, self.line.outcomes
        if ticket.number < 0:
            return
        if isinstance(result, LLMError):
            outcomes.fail(ticket.number, result, ticket.attempts, 0.0, self.position)
        else:
            self.line.hold(ticket, result, JOB, 0.0, self.position)


class _Read(NamedTuple):
    """One line of the results: whose it is, what it amounts to (``None``: it was not asked), and what was billed."""

    key: bytes | None
    outcome: Reply | LLMError | None
    usage: Usage


class JobLine(Line):
    """One run by batch jobs on its way. The route's last target has the prices of jobs; the first says how requests look."""

    def __init__(self, engine: Engine, plan: Plan, work: Overnight) -> None:
        super().__init__(engine, plan)
        self.work = work
        self.position = len(plan.route) - 1
        self.target: Target = plan.route[-1]
        assert self.target.adapter.jobs is not None
        jobs = self.target.adapter.jobs(self.target)
        assert jobs is not None
        self.jobs: Jobs = jobs
        self.shelf = shelf_of(work.directory)
        #: What one row asks, which says of all how their answers are read; and the same as it was sent.
        self._sample: Request | None = None
        self._as_sent: Request | None = None
        self._sent_mode = ""
        #: Rows of a slice that have to be asked.
        self._fresh: list[Ticket] = []
        self._over: BudgetReached | None = None
        self._folders: dict[str, Folder] = {}
        #: Parts whose answers this run has seen to, and submits that have to wait: by folder and number.
        self._through: set[tuple[str, int]] = set()
        self._not_before: dict[tuple[str, int], float] = {}
        self._tries = 0
        self._stirred = asyncio.Event()
        work.stir = self._stirred.set

    # ------------------------------------------------------------------------------------------------------------- the run

    async def run(self) -> None:
        stopped: LLMError | None = None
        try:
            await self._open_books()
            await self.engine.recall(self.route)  # before answers teach anything: what was learned of limits must not be lost over it
            await self._make_room()
            if self.work.taken is None:
                await self._draw()
            else:
                self._load(self.work.taken)
            await self._look_after_jobs()
            if self.work.taken is None or self._sample is not None:
                await self._settle_the_rest()
            stopped = self._over
            if stopped is None and self.work.stopping:
                stopped = Cancelled("not answered: the batch job was cancelled before this row")
        except asyncio.CancelledError:
            stopped = Cancelled("not waited for: the run was stopped before this row; jobs that were submitted go on at the provider")
        except LLMError as error:
            stopped = signed(error, [], self.target)
            await off_loop(self._leave_nothing)
        finally:
            if stopped is not None:
                self.outcomes.stopped = stopped
            await to_the_end(self._close_books())
            self._numbers = {}

    async def _make_room(self) -> None:
        writer = self.engine.writer
        directory = None if writer is None else await writer.read(lambda store: store.directory)
        if writer is None or writer.lost or directory is None:
            raise ConfigError("batch jobs need a folder to be kept in; set LLMKIT_CACHE_DIR to one with room to write in")

    async def _turn(self) -> Hold:
        """The leave to add a folder."""
        while True:
            hold = await _taken_hold(self.shelf.gate)
            if hold is not None:
                self.work.doing = "writing"
                return hold
            self.work.doing = "waiting for another process that writes jobs"
            await self._pause(_TURN_SECONDS)

    async def _pause(self, seconds: float) -> None:
        """Sleep, unless something is to be done at once."""
        timer = self.clock.call_at(self.clock.now() + seconds, self._stirred.set)
        try:
            await self._stirred.wait()
        finally:
            timer.cancel()
            self._stirred.clear()

    # ------------------------------------------------------------------------------------------------------------- drawing

    async def _draw(self) -> None:
        """Draw every task; what is neither stored nor asked for by an open job is written into lines."""
        gate = await self._turn()
        lines: Lines | None = None
        try:
            account = await off_loop(_on_disk, self._account)
            await off_loop(_on_disk, self.shelf.tidy)
            asked, folders = await off_loop(_on_disk, self.shelf.asked, account)
            vectors = self.plan.operation.kind == "vector"
            lines = Lines(self.shelf.folder(self.plan.run_id), self._next_part(), self.jobs, self.target, vectors)
            made = False
            self._source, draw = self.plan.tasks(), self.plan.operation.draw
            while tasks := await off_loop(_drawn, self._source, draw) if draw < DRAW else _drawn(self._source, draw):
                wanted = await self._wanted(tasks)
                for ticket in wanted:
                    if ticket.key in asked:
                        self._folders[asked[ticket.key]] = folders[asked[ticket.key]]
                fresh = self._within_bounds([ticket for ticket in wanted if ticket.key not in asked])
                if fresh:
                    if not made:
                        await off_loop(_on_disk, self.shelf.new, self.plan.run_id)
                        made = True
                    refused = set(await off_loop(_on_disk, lines.add, [(ticket.key, self._body(ticket)) for ticket in fresh]))
                    for ticket in fresh if refused else ():
                        if ticket.key in refused:
                            error = InvalidRequest("this row alone is larger than a whole batch job of the provider may be")
                            self._keep_error(ticket, signed(error, [], self.target), self.position)
                await asyncio.sleep(0)
                if self.work.stopping:
                    lines.discard()
                    return
            self.outcomes.no_more()
            if await off_loop(_on_disk, lines.finish):
                await off_loop(_on_disk, self._begin_book, lines.parts, account)
                self._folders[self.plan.run_id] = self.shelf.folder(self.plan.run_id)
                self._say_how_long_results_are_kept()
        except BaseException:
            if lines is not None and self.plan.run_id not in self._folders:
                lines.discard()
            raise
        finally:
            gate.release()

    def _say_how_long_results_are_kept(self) -> None:
        hours = self.jobs.bounds(self.target).kept_hours
        if hours is not None and hours < _WARNED_BELOW_HOURS:
            self.outcomes.notes.append(
                f"{self.target.provider.name} keeps the results of batch jobs for {hours} hours only: wait for this run, or take it up "
                f"with llmkit.job({self.plan.run_id!r}), within {hours} hours of its jobs' end"
            )

    def _next_part(self) -> int:
        book = self.work.books.get(self.plan.run_id)
        return 1 if book is None else len(book.parts) + 1

    def _account(self) -> str:
        mark = Memory(self.work.directory).mark(self.target)
        if mark is None:
            raise ConfigError("batch jobs need an account that llmkit has the key of; a client of your own is asked live")
        return mark

    async def _wanted(self, tasks: Sequence[Task]) -> list[Ticket]:
        """Of these tasks those that have to be asked; the others are settled."""
        fresh = [ticket for task in tasks if (ticket := self._number(task)) is not None]
        stored = await self._stored(fresh)
        unpack, found = self.plan.operation.unpack, [(key, one.value) for key, (one, _) in stored.items()]
        values = await apart(_unpacked, unpack, found) if found and self.plan.operation.blocking else _unpacked(unpack, found)
        self._fresh = []
        for ticket in fresh:
            if ticket.refused is not None:
                self._keep_error(ticket, signed(ticket.refused, [], self.target), self.position)
                continue
            if self._sample is None:
                self._know(ticket)
            if ticket.key in values:
                self._take_stored(ticket, values[ticket.key], *stored[ticket.key])
            else:
                self._make_ready(ticket)
        return self._fresh

    def _make_ready(self, ticket: Ticket, elsewhere: bool = False) -> None:
        error = self.too_long((ticket,), self.target) if len(self.route) == 2 else None
        if error is not None:
            self._keep_error(ticket, error, self.position)
        else:
            self._fresh.append(ticket)

    def _know(self, ticket: Ticket) -> None:
        """Remember what a row asks: all are read alike, and only one is held."""
        self._sent_mode = self._mode(ticket, self.target)
        self._sample_is(ticket.request)

    def _sample_is(self, request: Request) -> None:
        recast = self.plan.operation.recast
        self._sample = request
        self._as_sent = recast(request, self._sent_mode) if recast is not None and self._sent_mode else request

    def _body(self, ticket: Ticket) -> bytes:
        recast = self.plan.operation.recast
        if recast is None or not self._sent_mode:
            return ticket.body
        return self.target.codec.encode((recast(ticket.request, self._sent_mode),), self.target)

    def _within_bounds(self, tickets: list[Ticket]) -> list[Ticket]:
        """Those that ``max_cost`` leaves room for, each counted at the most that it may cost."""
        most = self.policy.max_cost
        if most is None:
            return tickets
        for place, ticket in enumerate(tickets):
            amount = self._dearest((ticket,), self.target)
            if self._over is not None or self._spent + amount > most:
                self._over = self._over or BudgetReached(
                    f"max_cost=${most:g} is reached: the rows before may cost ${self._spent:.4f} in jobs, and the next one ${amount:.4f}"
                )
                return tickets[:place]
            self._spent += amount
        return tickets

    def _along(self, tickets: Sequence[Ticket]) -> dict[bytes, Sequence[bytes]]:
        # The last target is the first at another price: its keys are the same.
        between = range(1, self.position)
        asked = [ticket for ticket in tickets if ticket.refused is None]
        return {ticket.key: (ticket.key, *(self._key_at(position, ticket) for position in between)) for ticket in asked}

    def _begin_book(self, parts: Sequence[Part], account: str) -> None:
        """In a worker thread: from here on the run can be taken up by others."""
        run_id, target = self.plan.run_id, self.target
        folder = self.shelf.folder(run_id)
        book = folder.read() or Book(
            run_id, self.plan.operation.name, target.name, target.provider.base_url, account, time.time(), self.outcomes.rows, [],
            mode=self._sent_mode, recipe=self.work.recipe,
        )  # fmt: skip
        book.parts += parts
        book.cancelled = False
        for name, data in self.work.files.items():
            folder.keep(name, data)
        folder.keep("keys.bin", b"".join(self.outcomes.keys))
        folder.keep("rows.bin", self.outcomes.task_of_row.astype("<i4").tobytes())
        folder.write(book)
        self.work.books[run_id] = book

    def _leave_nothing(self) -> None:
        """In a worker thread: a run that failed before anything was submitted leaves no prompts behind."""
        folder = self._folders.get(self.plan.run_id)
        hold = None if folder is None else folder.hold()
        if folder is None or hold is None:
            return
        try:
            book = folder.read()
            if book is not None and all(part.state == WRITTEN and part.intent is None for part in book.parts):
                folder.remove()
                self.work.books.pop(folder.id, None)
        finally:
            hold.release()

    def _load(self, taken: Taken) -> None:
        """Take up what another process began."""
        outcomes = self.outcomes
        if not len(outcomes):
            for key in taken.keys:
                self._numbers[key] = outcomes.add(key)
            for row, task in enumerate(taken.task_of_row.tolist()):
                if task >= 0:
                    outcomes.point(row, task)
            outcomes.no_more()
        book = taken.folder.read()
        if book is not None:
            self._sent_mode = book.mode
        if taken.sample is not None:
            self._sample_is(taken.sample)
        self._folders[taken.folder.id] = taken.folder

    # -------------------------------------------------------------------------------------------------- looking after jobs

    async def _look_after_jobs(self) -> None:
        """Submit, look, fetch and take in, until there is nothing more to come."""
        wait = _LOOK_SECONDS
        while True:
            going = stirred = False
            waiting, self.work.waiting = self.work.waiting, []  # a look that was begun before they asked is none of theirs
            for folder in self._folders.values():
                changed, open_still = await self._see_to(folder)
                stirred, going = stirred or changed, going or open_still
            self.work.submitted, self.work.doing = True, "waiting for the provider"
            self.work.looked(waiting)
            if not going:
                return
            await self._pause(wait)
            wait = _LOOK_SECONDS if stirred or self.work.stopping else min(_LOOK_GROWS * wait, _LOOK_MOST_SECONDS)

    async def _see_to(self, folder: Folder) -> tuple[bool, bool]:
        """Whether something has changed in a folder, and whether something may still come."""
        hold = await _taken_hold(folder.hold)
        try:
            book = await off_loop(_on_disk, folder.read)
            if book is None:  # through, and removed
                self.work.books.pop(folder.id, None)
                return False, False
            self.work.books[folder.id] = book
            before = [part.state for part in book.parts]
            if hold is not None:
                if self.work.stopping and not book.cancelled:
                    book.cancelled = True
                    await self._in_folder(hold, folder.write, book)
                for part in book.parts:
                    await self._see_to_part(hold, folder, book, part)
            elsewhere = {(folder.id, part.number) for part in book.parts if part.state == TAKEN} - self._through
            if elsewhere:  # another process took them in
                self._through |= elsewhere
                await self._take_what_is_stored()
            return [part.state for part in book.parts] != before, self._goes_on(book)
        finally:
            if hold is not None:
                hold.release()

    def _goes_on(self, book: Book) -> bool:
        # Where answers cannot be read, that they are here is all that is waited for.
        ends = (FETCHED, TAKEN) if self._sample is None else (TAKEN,)
        return any(part.state not in ends and (book.id, part.number) not in self._through for part in book.parts)

    async def _in_folder(self, hold: Hold, work: Callable[..., T], *args: Any) -> T:
        """Do it in a thread of its own, which keeps the folder's lock until it is done, also where nobody waits for it any more."""
        hold.share()

        def held() -> T:
            try:
                return _on_disk(work, *args)
            finally:
                hold.release()

        # Not one of the few workers: an upload may take minutes, and the interpreter's end must not wait for it.
        return await apart(held)

    async def _see_to_part(self, hold: Hold, folder: Folder, book: Book, part: Part) -> None:
        name = folder.id, part.number
        if name in self._through:
            return
        try:
            if part.state == WRITTEN and self.clock.now() >= self._not_before.get(name, 0.0):
                if not book.cancelled:
                    # Said also of one job: the first submit loads the vendor's SDK, which takes seconds where the disk is cold.
                    self.work.doing = "submitting" if len(book.parts) == 1 else f"submitting {part.number} of {len(book.parts)}"
                await self._in_folder(hold, self._submit, folder, book, part)
                self._tries = 0
            elif part.state == SENT:
                await self._in_folder(hold, self._look, folder, book, part)
                if part.state == WRITTEN:
                    wait = min(_ROOM_SECONDS * 2.0 ** (part.tries - 1), _ROOM_MOST_SECONDS)
                    self._not_before[name] = self.clock.now() + wait
            if part.state == ENDED:
                self.work.doing = "fetching results"
                await self._in_folder(hold, self._fetch, folder, book, part)
            part.missed = 0
        except (Busy, Unreachable) as error:
            part.trouble, part.missed = str(error), 0
            self._give_up_where_nobody_answers(error)
        except AccessError as error:
            # Also what stands between us and the provider says 403 and 404: a hotel's page, a gateway.
            part.missed += 1
            part.trouble = str(error)
            if part.state == WRITTEN or (part.missed >= _BELIEVED_AFTER and not isinstance(error, ModelGone)):
                raise
            if part.missed >= _BELIEVED_AFTER:
                gone = InvalidRequest("the provider knows the batch job, or its results, no longer", kind="job_gone")
                part.state, part.error, part.outputs = FETCHED, facts_of(gone), []
        except RequestError as error:
            part.trouble = str(error)
            if part.state == WRITTEN:  # all of it is refused
                part.state, part.error, part.said = FETCHED, facts_of(error), "refused"
            else:
                part.missed += 1
                if part.missed >= _BELIEVED_AFTER:
                    part.state, part.error, part.outputs = FETCHED, facts_of(error), []
        if part.state == FETCHED and self._sample is not None:
            self.work.doing = "taking answers in"
            await self._take_in(hold, folder, book, part)
            if (
                part.state != WRITTEN
            ):  # also where the disk takes no answers any more: they are in memory, and another process may try again
                self._through.add(name)
        elif part.trouble or part.missed or part.state == FETCHED:
            with suppress(LLMError):
                await self._in_folder(hold, folder.write, book)

    def _give_up_where_nobody_answers(self, error: LLMError) -> None:
        """A run of which nothing could be submitted ends; what is submitted is waited for, however long nobody answers."""
        if any(part.id for _, part in self.work.parts()):
            return
        self._tries += 1
        if self._tries >= self.policy.max_attempts:
            raise error

    # What follows up to the results runs in a worker thread, under the folder's lock.

    def _submit(self, folder: Folder, book: Book, part: Part) -> None:
        if part.intent is not None:
            # A submit was begun of which nobody knows what became.
            found = self._found(book, part)
            if found:
                part.certain = True
                part.note(found[0])
                folder.write(book)
                return
            if not part.not_ours and 0 <= time.time() - part.intent < _SETTLES_SECONDS:
                part.trouble = "looking whether it was submitted"
                return
        if book.cancelled:
            part.state, part.said = TAKEN, "not submitted"
            folder.close(part.number)
            folder.write(book)
            return
        part.intent, part.trouble, part.certain = time.time(), "", True
        folder.write(book)
        try:
            state = self.jobs.submit(self.target, folder.lines(part.number), book.intent(part))
        except Unreachable:
            raise
        except LLMError:
            part.intent = None  # refused: nothing was made
            folder.write(book)
            raise
        part.note(state)
        folder.write(book)

    def _found(self, book: Book, part: Part) -> list[JobState]:
        """Jobs at the provider that may be what the intent became."""
        known = {other.id for _, any_book in self.shelf.books() for other in any_book.parts} | set(part.not_ours)
        try:
            return [state for state in self.jobs.find(self.target, book.intent(part)) if state.id not in known]
        except (RequestError, ModelGone):
            raise InvalidRequest(
                "a job was being submitted when the run broke off, and the provider lists none: whether there is one is not known; "
                "the same call again asks for these rows",
                kind="unknown_submit",
            ) from None

    def _look(self, folder: Folder, book: Book, part: Part) -> None:
        if book.cancelled and not part.stopping and part.certain:  # one that may be somebody else's is left alone
            state = self.jobs.cancel(self.target, part.id)
            part.stopping = True
        else:
            state = self.jobs.look(self.target, part.id)
        part.note(state)
        if part.state == ENDED and isinstance(state.error, Busy) and not state.outputs and not book.cancelled:
            # There was no room for it: nothing of it was asked.
            part.state, part.id, part.intent, part.trouble = WRITTEN, "", None, str(state.error)
            part.tries += 1
        folder.write(book)

    def _fetch(self, folder: Folder, book: Book, part: Part) -> None:
        if part.outputs:
            self.jobs.fetch(self.target, part.as_ended(), folder.results(part.number))
        part.state = FETCHED
        folder.write(book)

    # ------------------------------------------------------------------------------------------------------------- results

    async def _take_in(self, hold: Hold, folder: Folder, book: Book, part: Part) -> None:
        """Put the answers of a part into the store, and tell the rows that have none why."""
        lines = await self._in_folder(hold, folder.keys, part.number)
        sizes = self._sizes(lines, part)
        left, failed = set(lines), dict[bytes, LLMError]()
        whole = None if part.error is None else signed(error_of(part.error), [], self.target)
        strangers = damaged = 0
        thread = apart if self.plan.operation.blocking else off_loop
        path = folder.results(part.number)
        if await off_loop(path.exists):
            source = slices(path, _SLICE, _SLICE_BYTES)
            while (some := await off_loop(next, source, None)) is not None:
                told = await thread(self._read_lines, some, folder, part, lines)
                damaged += sum(one.key is None for one in told)
                strangers += sum(one.key is not None and one.key not in lines for one in told)
                ours = {one.key: one for one in told if one.key in left and one.outcome is not None}
                known = await self._stored_already(ours)
                for key, one in ours.items():
                    assert key is not None
                    if isinstance(one.outcome, Reply):
                        left.discard(key)
                        failed.pop(key, None)
                        if key not in known:
                            self.engine.account(self.target).learn(sizes[key], one.usage)
                        self._settle_answer(key, one, known.get(key))
                    elif isinstance(one.outcome, LLMError):
                        failed.setdefault(key, one.outcome)
                if self.engine.writer is not None and self.engine.writer.crowded:
                    await self.engine.writer.room()
        if not part.certain and strangers and len(left) == len(lines):
            # The answers are somebody else's.
            part.not_ours.append(part.id)
            part.state, part.id = WRITTEN, ""
            await self._in_folder(hold, self._put_back, folder, book, part)
            return
        unanswered = self._unanswered(part)
        for key in left:
            error = failed.get(key) or whole or unanswered
            self._fail(key, error, asked=key in failed)
        if strangers or damaged:
            self.outcomes.notes.append(_odd_lines(part, strangers, damaged))
        if await self._is_kept():
            part.state = TAKEN
            told_later = [(key, failed.get(key) or whole or unanswered) for key in left]
            await self._in_folder(hold, self._close_part, folder, book, part, told_later)

    def _sizes(self, lines: Mapping[bytes, int], part: Part) -> dict[bytes, int]:
        """Bytes of each body: what stands around it in a line is the same for all."""
        assert self._as_sent is not None
        body = self.target.codec.encode((self._as_sent,), self.target)
        around = len(self.jobs.line(bytes(16).hex(), body, self.target)) + 1 - len(body)
        ends = [*lines.values(), part.bytes][1:]
        return {key: max(0, end - start - around) for (key, start), end in zip(lines.items(), ends, strict=True)}

    async def _is_kept(self) -> bool:
        """Whether all answers so far are on the disk; until then nothing that could be read again may go."""
        writer = self.engine.writer
        assert writer is not None
        await writer.drain()
        while writer.owed and not writer.lost:
            await self._pause(writer.AGAIN)
            await writer.drain()
        return not writer.lost

    @staticmethod
    def _close_part(folder: Folder, book: Book, part: Part, failed: Sequence[tuple[bytes, LLMError]]) -> None:
        folder.keep_errors(failed)
        folder.write(book)
        folder.close(part.number)

    @staticmethod
    def _put_back(folder: Folder, book: Book, part: Part) -> None:
        folder.results(part.number).unlink(missing_ok=True)
        folder.write(book)

    def _unanswered(self, part: Part) -> LLMError:
        said = f" ({part.said})" if part.said else ""
        error = ServerFault(f"the batch job ended before this row was answered{said}; the same call again asks for it", kind="unanswered")
        return signed(error, [], self.target)

    async def _stored_already(self, ours: Mapping[Any, _Read]) -> dict[bytes, Stored]:
        """Answers that were taken in before a crash: they are in the books, and not billed a second time."""
        writer = self.engine.writer
        keys = [key for key, one in ours.items() if isinstance(one.outcome, Reply)]
        if writer is None or self.policy.cache != "use" or not keys:
            return {}
        return await writer.look_up(keys)

    def _settle_answer(self, key: bytes, one: _Read, known: Stored | None) -> None:
        reply = one.outcome
        assert isinstance(reply, Reply)
        number = self._open_number(key)
        if known is not None:
            if number is not None:
                self._take_from_store({key: known})
            return
        if self.outcomes.vectors and number is not None and not self._of_one_length(reply.value):
            self._fail(key, self._odd(reply, self.target), asked=True)
            return
        if number is not None:
            self.outcomes.bill(reply.usage)
        self._put(key, -1 if number is None else number, reply, 1)

    def _fail(self, key: bytes, error: LLMError, asked: bool) -> None:
        number = self._open_number(key)
        if number is None:
            return
        if error.usage is not None:
            self.outcomes.bill(error.usage)
        self._put(key, number, error, int(asked))

    def _put(self, key: bytes, number: int, result: Reply | LLMError, attempts: int) -> None:
        assert self._sample is not None and self.engine.writer is not None
        ticket = Ticket(number, self._sample, key, b"", 0, attempts=attempts)
        self.engine.writer.put(_FromJob(self, ticket, key, result, self.position, 0.0))

    def _open_number(self, key: bytes) -> int | None:
        number = self._numbers.get(key)
        return number if number is not None and self.outcomes.state[number] == PENDING else None

    async def _take_what_is_stored(self) -> None:
        """Settle what another process has taken in."""
        writer = self.engine.writer
        assert writer is not None
        if self._sample is None:
            return
        outcomes = self.outcomes
        pending = [outcomes.keys[number] for number in range(len(outcomes)) if outcomes.state[number] == PENDING]
        if pending:
            await writer.read(lambda store: store.look_around())
        for start in range(0, len(pending), 1024):
            self._take_from_store(await writer.look_up(pending[start : start + 1024]))

    def _take_from_store(self, found: Mapping[bytes, Stored]) -> None:
        values = _unpacked(self.plan.operation.unpack, [(key, stored.value) for key, stored in found.items()])
        for key, value in values.items():
            number = self._open_number(key)
            if number is not None and self._sample is not None:
                self._take_stored(Ticket(number, self._sample, key, b"", 0), value, found[key], 0)

    async def _settle_the_rest(self) -> None:
        """All jobs are through: what has neither an answer nor a reason gets the one that was written down, or the plain truth."""
        await self._take_what_is_stored()
        outcomes = self.outcomes
        pending = [number for number in range(len(outcomes)) if outcomes.state[number] == PENDING]
        if not pending or self._over is not None or self.work.stopping:
            return
        told: dict[bytes, LLMError] = {}
        for folder in self._folders.values():
            told |= await off_loop(folder.errors)
        lost = ServerFault("no batch job has answered this row; the same call again asks for it", kind="unanswered")
        for number in pending:
            key = outcomes.keys[number]
            self._fail(key, signed(told.get(key, lost), [], self.target), asked=False)

    # ----------------------------------------------------------------------------------------------- a line of the results

    def _read_lines(self, some: Sequence[bytes], folder: Folder, part: Part, lines: Mapping[bytes, int]) -> list[_Read]:
        """In a worker thread: what these lines amount to."""
        return [self._read_line(line, folder, part, lines) for line in some]

    def _read_line(self, line: bytes, folder: Folder, part: Part, lines: Mapping[bytes, int]) -> _Read:
        try:
            answer = self.jobs.read(line)
        except (ValueError, TypeError, LookupError, AttributeError):
            return _Read(None, None, Usage())
        try:
            key = bytes.fromhex(answer.custom_id)
        except (ValueError, TypeError):
            key = b"?"
        if key not in lines:
            return _Read(key, None, Usage())
        outcome: Reply | LLMError | None = answer.error
        if answer.error is None and answer.asked:
            outcome = self._outcome(answer.body)
        if isinstance(outcome, LLMError):
            outcome = self._silenced(signed(outcome, [], self.target), folder, part, lines[key])
        return _Read(key, outcome, (outcome.usage if outcome is not None else None) or Usage())

    def _outcome(self, body: Any) -> Reply | LLMError:
        """A body as the codec and the operation read it, as they would have live."""
        assert self._sample is not None and self._as_sent is not None
        try:
            reply = answered(self.target.codec, body, (self._as_sent,))[0]
            if isinstance(reply, LLMError) or self.plan.operation.read is None:
                return reply
            outcome = self.plan.operation.read(self._sample, reply)
        except LLMError as error:
            return error
        except Exception as error:
            return BadOutput(f"the answer could not be read ({type(error).__name__})", kind="unreadable")
        if isinstance(outcome, Request):
            # What was wrong with an answer is told to the model in a next round, and a job has only one.
            outcome = BadOutput(
                "the answer is not valid; the same call without batch=True asks for this row, and again where it has to", kind="invalid"
            )
        if isinstance(outcome, LLMError):
            outcome.usage = reply.usage
            return outcome
        return outcome if outcome.usage is reply.usage else replace(outcome, usage=reply.usage)

    def _silenced(self, error: LLMError, folder: Folder, part: Part, start: int) -> LLMError:
        """No piece of a prompt travels in a message, and prompts are in the file that was submitted."""
        if "(" not in error.message:
            return error
        try:
            texts = list(_texts(orjson.loads(line_at(folder.lines(part.number), start))))
        except (OSError, ValueError):
            texts = [error.message]
        if repeats(error.message, texts):
            error.message = f"{error.message.split(' (')[0]} (the provider's words are left out: they repeat the prompt)"
            error.args = (error.message,)
        return error


#: Members of a line that hold the request's form, and nothing of a row.
_OF_FORM = {"model", "role", "type", "custom_id", "method", "url", "response_format", "tools", "encoding_format", "id", "key"}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, item in value.items():
            if name not in _OF_FORM:
                yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _odd_lines(part: Part, strangers: int, damaged: int) -> str:
    said = [f"{strangers:,} answers to questions that were not asked"] if strangers else []
    said += [f"{damaged:,} lines that cannot be read"] if damaged else []
    return f"the results of batch job {part.id} hold {' and '.join(said)}; they were passed over"


async def _taken_hold(take: Callable[[], Hold | None]) -> Hold | None:
    """``take()`` in a worker thread; what it takes for somebody who was stopped meanwhile is let go of at once."""
    taking = asyncio.ensure_future(off_loop(_on_disk, take))
    try:
        return await asyncio.shield(taking)
    except asyncio.CancelledError:
        taking.add_done_callback(_let_go_again)
        raise


def _let_go_again(taking: asyncio.Future[Hold | None]) -> None:
    if not taking.cancelled() and taking.exception() is None and (hold := taking.result()) is not None:
        hold.release()


def _on_disk(work: Callable[..., T], *args: Any) -> T:
    """What the disk refuses is no fault of a row's: it ends the run, and what was submitted can be taken up later."""
    try:
        return work(*args)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise ConfigError(f"the files of the batch job cannot be written or read ({why}); the same call again goes on with it") from None
    except LLMError:
        raise
    except Exception as error:  # an SDK's surprise over an answer that is none
        raise ServerFault(f"the provider's answer cannot be read ({type(error).__name__})", kind="bad_response") from None
