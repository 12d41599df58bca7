"""From rows to outcomes: draws tasks a slice at a time, merges equal ones, asks the store, packs batches, keeps a bounded number in flight.

Never a task per row: a run has as many workers as it may have requests in flight, and no more prompts in memory than they need.

``Line`` is one run on its way; what runs share is in ``engine.py``.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any

from ..adapter import Kept, Target
from ..errors import (
    AccessError,
    BadOutput,
    BatchTooLarge,
    BudgetReached,
    Cancelled,
    ConfigError,
    ContentBlocked,
    ContextTooLong,
    LLMError,
    QuotaSpent,
    RequestError,
    Truncated,
    all_failed,
)
from ..event_loop import apart, off_loop, to_the_end
from ..outcomes import CACHE, LIVE, PENDING
from ..types import DRAW, Estimate, Price, Reply, Request, Task, Usage
from . import retry, streaming
from .engine import Engine, Plan, key_of, prefix
from .exchange import exchange, signed
from .limiter import Limiter
from .prefixes import Flight, Turns
from .retry import Answer, Ticket
from .store import OutcomeRow, ReplyRow, Stored
from .tracing import RunTrace, watching
from .writer import Writer

__all__ = ["Line", "carry_out", "estimate"]

#: Seconds between two looks at what became of a row that another process is asking for.
_LOOK_ELSEWHERE_SECONDS = 0.25

INFINITY = float("inf")

#: How often the pace of a run is noted.
_NOTE_SECONDS = 1.0

#: A model of the route that was down is looked at again after so long, then after twice as long.
_LOOK_AGAIN_SECONDS = 30.0
_LOOK_AGAIN_MOST_SECONDS = 300.0

#: Answers in succession that do not heed the mode they were asked in, after which the model is asked in another one.
_UNHEEDED = 3


@dataclass(slots=True)
class _Door:
    """Why a target is not asked, and when one row may look again: seconds on the engine's clock."""

    error: LLMError
    look_at: float
    wait: float


def _drawn(source: Iterator[Task], most: int) -> list[Task]:
    return list(islice(source, most))


async def carry_out(engine: Engine, plan: Plan) -> None:
    """Settle every task of the plan; returns normally also when the run was stopped (``outcomes.stopped`` says why)."""
    line = Line(engine, plan)
    tracer = watching.tracer
    if tracer is None:
        await line.run()
    else:
        with tracer.run(plan) as line.trace:
            await line.run()


async def estimate(engine: Engine, plan: Plan) -> Estimate:
    """What ``carry_out`` would do, found by drawing every task and asking the store; nothing is sent."""
    return await Line(engine, plan).estimate()


@dataclass(slots=True)
class _Settled:
    """A ticket's reply or error on its way to the disk: a ``store.Entry``.

    One object and no closures: the garbage collector walks over whatever waits, and that was a sixth of a row's time.
    """

    line: Line
    ticket: Ticket
    key: bytes
    result: Reply | LLMError
    position: int
    seconds: float
    #: US dollars, ``None`` where the price or what was used is unknown.
    cost: float | None = field(init=False)

    def __post_init__(self) -> None:
        usage, price = self.result.usage or Usage(), self.line.route[self.position].model.price
        if self.ticket.declined is None:
            self.cost = usage.cost(price)
        else:
            elsewhere, dollars = self.ticket.declined
            here = usage.less(elsewhere).cost(price)
            self.cost = None if here is None or dollars is None else here + dollars

    @property
    def answered(self) -> bool:
        return isinstance(self.result, Reply)

    @property
    def queued(self) -> float | None:
        """Seconds from being ready to being sent."""
        return self.ticket.began - self.ticket.ready if self.ticket.began else None

    def reply(self) -> ReplyRow:
        reply, line = self.result, self.line
        assert isinstance(reply, Reply)
        usage, operation, target = reply.usage, line.plan.operation, line.route[self.position]
        return ReplyRow(
            self.key, operation.pack(reply.value), usage.input, usage.cached_input, usage.output, reply.finish, reply.model, time.time(),
            target.name, operation.name, usage.cache_write, self.cost,
        )  # fmt: skip

    def outcome(self) -> OutcomeRow | None:
        line, ticket, result = self.line, self.ticket, self.result
        source, error = (None, result.kind) if isinstance(result, LLMError) else ("live", None)
        usage, target = result.usage or Usage(), line.route[self.position]
        return OutcomeRow(
            line._journal, ticket.number, self.key, source, error, target.name, ticket.attempts, self.seconds, usage.input,
            usage.cached_input, usage.output, usage.cache_write, self.queued, usage.requests, self.cost, ticket.lost,
            time.time(),
        )  # fmt: skip

    def durable(self) -> None:
        ticket, result, outcomes = self.ticket, self.result, self.line.outcomes
        outcomes.queued[ticket.number] = self.queued or 0.0
        if ticket.declined is not None:
            outcomes.costs[ticket.number] = self.cost
        if self.position and self.line.writer is not None:
            self.line.writer.settling.discard(ticket.key)
        if isinstance(result, LLMError):
            outcomes.fail(ticket.number, result, ticket.attempts, self.seconds, self.position)
        else:
            self.line.hold(ticket, result, LIVE, self.seconds, self.position)


@dataclass(slots=True)
class _Lost:
    """A row that was never settled, and of whose requests some may have been billed: a ``store.Entry``."""

    line: Line
    ticket: Ticket
    target: Target
    answered: bool = False

    @property
    def key(self) -> bytes:
        return self.ticket.key

    def reply(self) -> ReplyRow:
        raise NotImplementedError  # there is none

    def outcome(self) -> OutcomeRow:
        ticket = self.ticket
        return OutcomeRow(
            self.line._journal, ticket.number, ticket.key, None, None, self.target.name, ticket.attempts, 0.0, 0, 0, 0, requests=0,
            lost=ticket.lost, finished=time.time(),
        )  # fmt: skip

    def durable(self) -> None:
        return None


class Line:
    """One run on its way: see ``retry.Line`` for the part that the retry layer uses."""

    def __init__(self, engine: Engine, plan: Plan) -> None:
        self.engine = engine
        self.plan = plan
        #: Who looks on from outside, where somebody does.
        self.trace: RunTrace | None = None
        self.reads = plan.operation.read is not None
        #: A form that is checked, or calls of tools, are of no use in halves.
        self._in_pieces = plan.policy.streamed and plan.operation.name == "chat" and not self.reads and plan.operation.recast is None
        self.clock = engine.clock
        self.route = plan.route
        self.policy = plan.policy
        self.outcomes = plan.outcomes
        self.writer = engine.writer if plan.policy.cache != "off" else None
        self._numbers: dict[bytes, int] = {key: number for number, key in enumerate(self.outcomes.keys)}
        #: In a retry: what was numbered before and is still to be answered.
        self._left_over = {number for number in range(len(self.outcomes)) if self.outcomes.state[number] == PENDING}
        self._source: Iterator[Task] = iter(())
        self._ready: deque[Ticket] = deque()
        self._drawn = False
        #: Rows that wait for another run's answer; and those of them whose answer another process may bring, when to look next, and
        #: what makes us look earlier.
        self._following = 0
        self._elsewhere: dict[bytes, Ticket] = {}
        #: Answers that other runs of this process have brought for some of them, to be read as those of the store are.
        self._handed: dict[bytes, Stored] = {}
        self._look_at = 0.0
        self._again = asyncio.Event()
        self._turns = Turns(engine.account(plan.route[0]).prefixes, engine.clock, self._take_back)
        self._news = asyncio.Event()
        self._hungry = asyncio.Event()
        self._returned = asyncio.Event()
        #: Rows that are not settled and of whose requests some may have been billed, by their number.
        self._lost: dict[int, _Lost] = {}
        #: Targets of the route that are not asked, by their place.
        self._doors: dict[int, _Door] = {}
        #: Tries beyond the first that the run may still afford: in an outage few, while answers come as many as there are answers.
        self._retries = self._retries_most = max(32.0, 0.15 * self.outcomes.rows)
        #: Bytes that one request may carry, as refusals have taught; in bytes, since the ratio to tokens is still being learned.
        self._batch_bytes = float("inf")
        #: Dollars so far at the most: for a bound, and for a route of several prices.
        self._counts_money = self.policy.max_cost is not None or len({target.model.price for target in self.route}) > 1
        self._spent = 0.0
        self._reserved = 0.0
        self._reservations = 0
        self._journal = 0
        self._began = self.clock.now()
        self._note_at = self._began
        #: Requests that had been sent and refused on each account before this run.
        self._counted_from = [(self.limiter(target).sent, self.limiter(target).refused) for target in self.route]
        #: Numbers in a vector of this run, once one came.
        self._dimensions = None if self.outcomes.matrix is None else self.outcomes.matrix.shape[1]
        self._connected: set[int] = set()
        self._prefixes = [prefix(plan.operation, target) for target in self.route]

    # ------------------------------------------------------------------------------------------------------------- the run

    async def run(self) -> None:
        self._source = self.plan.tasks()
        for target in self.route:
            self.limiter(target).allow(self.policy.max_concurrency)
        try:
            await self._open_books()
            await self.engine.recall(self.route)
            await self._work()
        except asyncio.CancelledError:
            # Stopped by the user: workers are gone and their connections closed. Keep what came, and say so.
            self.outcomes.stopped = Cancelled("not sent: the run was stopped before this row")
        finally:
            self._let_go()
            # A Stop that comes now, or once more, must not cut off answers that are on their way to the disk.
            await to_the_end(self._close_books())
            # Of a million rows this is 100 MB, and the result is about to be laid out.
            self._numbers = {}

    async def _open_books(self) -> None:
        if self.engine.writer is not None:
            names = " > ".join(dict.fromkeys(target.name for target in self.route))
            self.plan.begun += 1
            run_id = self.plan.run_id if self.plan.begun == 1 else f"{self.plan.run_id}.{self.plan.begun}"
            self._journal = await self.engine.writer.begin_run(run_id, self.plan.operation.name, names, self.outcomes.rows)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        # As many workers as may be in flight: they wait at the limiter, which alone says how many really are.
        tasks = [loop.create_task(self._feed())]
        tasks += [loop.create_task(self._worker()) for _ in range(max(1, self.policy.max_concurrency))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._note_the_pace()

    def _note_the_pace(self) -> None:
        """A line for each model: how the run is paced at the moment."""
        now = self.clock.now()
        # In a run of hours more rarely: some thousand lines are enough.
        self._note_at = now + _NOTE_SECONDS * 2 ** (len(self.outcomes.history) // 2000)
        for target, (sent, refused) in zip(self.route, self._counted_from, strict=True):
            one = self.limiter(target)
            line = (now - self._began, target.name, one.window, one.in_flight, one.waiting, one.sent - sent, one.refused - refused)
            self.outcomes.history.append(line)

    async def _worker(self) -> None:
        while (batch := await self._next()) is not None:
            try:
                if self.writer is not None and self.writer.crowded:
                    await self.writer.room()  # what is answered and not yet kept is what a kill -9 would cost
                await retry.serve(batch, self)
            except BudgetReached as error:
                self._stop(error)
            finally:
                if batch[0].kept is not None:
                    self._turns.through(batch[0])
            if self.clock.now() >= self._note_at:
                self._note_the_pace()

    async def _next(self) -> list[Ticket] | None:
        """The next batch to send; ``None`` when there will be none."""
        size, tokens = self.route[0].codec.batch_size(self.route[0])
        while True:
            if len(self._ready) >= size or (self._ready and self._drawn):
                if len(self._ready) + self._turns.parked < 2 * size + self.plan.operation.draw // 2:
                    self._hungry.set()
                if batch := self._pack(size, tokens):
                    return batch
                continue
            if self._drawn and not self._turns.parked and (not self._following or self.outcomes.stopped is not None):
                return None
            self._hungry.set()
            self._news.clear()
            await self._news.wait()

    def _take_back(self, tickets: Sequence[Ticket]) -> None:
        """These waited for another one of their prefix, and need not any longer."""
        self._ready.extendleft(reversed(tickets))
        self._news.set()

    def _pack(self, size: int, tokens: int | None) -> list[Ticket]:
        """What travels together; empty where the next ticket has to wait for another of its prefix."""
        if size == 1:
            ticket = self._ready.popleft()
            return [ticket] if ticket.kept is None or self._turns.lets(ticket) else []
        batch: list[Ticket] = []
        room = float("inf") if tokens is None else float(tokens)
        room_in_bytes = self._batch_bytes
        ratio = self.engine.account(self.route[0]).tokens_per_byte
        while self._ready and len(batch) < size:
            in_bytes = self._ready[0].size
            cost = max(1.0, in_bytes * ratio)
            if batch and (cost > room or in_bytes > room_in_bytes):
                break
            room -= cost
            room_in_bytes -= in_bytes
            batch.append(self._ready.popleft())
        return batch

    # ------------------------------------------------------------------------------------------------------------- drawing

    async def _feed(self) -> None:
        """Draw tasks a slice at a time, ahead of the workers: number them, merge equal ones, take what is stored, ready the rest."""
        size = self.route[0].codec.batch_size(self.route[0])[0]
        draw = max(self.plan.operation.draw, size)
        # Whoever draws few at a time reads files for them: not on the loop.
        while tasks := await off_loop(_drawn, self._source, draw) if draw < DRAW else _drawn(self._source, draw):
            fresh = [ticket for task in tasks if (ticket := self._number(task)) is not None]
            await self._sort_out([*fresh, *self._due()])
            self._turns.complete = len(tasks) < draw
            while len(self._ready) + self._turns.parked >= 2 * size + self.plan.operation.draw // 2:
                self._hungry.clear()
                await self._hungry.wait()
            # A frame that is stored whole is drawn without ever waiting: let others have the loop.
            await asyncio.sleep(0)
        self._drawn = True
        self.outcomes.no_more()
        self._news.set()
        await self._look_after()

    async def _sort_out(self, tickets: Sequence[Ticket]) -> None:
        """Take what is stored, wait for what others are asking, ready the rest."""
        handed, unknown = {}, tickets
        if self._handed:
            handed = {ticket.key: (self._handed.pop(ticket.key), 0) for ticket in tickets if ticket.key in self._handed}
            unknown = [ticket for ticket in tickets if ticket.key not in handed]
        stored, elsewhere = await self._claimed(unknown)
        stored |= handed
        unpack, found = self.plan.operation.unpack, [(key, one.value) for key, (one, _) in stored.items()]
        values = await apart(_unpacked, unpack, found) if found and self.plan.operation.blocking else _unpacked(unpack, found)
        for ticket in tickets:
            if self._elsewhere.pop(ticket.key, None) is not None:
                self._following -= 1
            if ticket.refused is not None:
                self._keep_error(ticket, signed(ticket.refused, [], self.route[0]), 0)
            elif ticket.key in values:
                self._take_stored(ticket, values[ticket.key], *stored[ticket.key])
            elif self.outcomes.stopped is None:
                self._make_ready(ticket, ticket.key in elsewhere)
        self._news.set()

    def _due(self) -> Sequence[Ticket]:
        """Rows that another process was asking for, once it is time to look what became of them."""
        if not self._elsewhere or self.clock.now() < self._look_at:
            return ()
        self._look_at = self.clock.now() + _LOOK_ELSEWHERE_SECONDS
        return list(self._elsewhere.values())

    async def _look_after(self) -> None:
        """All is drawn: look after the rows that wait for others, until there are none."""
        while self._following and self.outcomes.stopped is None:
            self._again.clear()
            if due := self._due():
                await self._sort_out(due)
                continue
            timer = self.clock.call_at(self._look_at, self._again.set) if self._elsewhere else None
            try:
                await self._again.wait()
            finally:
                if timer is not None:
                    timer.cancel()

    def _number(self, task: Task) -> Ticket | None:
        """Give the task its number; ``None`` where an equal one has it already, or it is settled (in a retry)."""
        request, target = task.request, self.route[0]
        refused: RequestError | None = None
        if isinstance(request, RequestError):
            refused, body = request, f"row {task.rows[0]}".encode()
            request = Request(self.plan.operation.name, None)
        else:
            try:
                body = target.codec.encode((request,), target)
            except RequestError as error:
                refused, body = error, f"row {task.rows[0]}".encode()
        key = self._key(0, body, request.sample)
        outcomes = self.outcomes
        number = self._numbers.get(key)
        new = number is None
        if number is None:
            number = self._numbers[key] = outcomes.add(key)
            if self.plan.operation.kind == "score":
                outcomes.rows_of_task[number] = task.rows
        elif number in self._left_over:
            self._left_over.discard(number)
            new = True
        for row in task.rows:
            if outcomes.task_of_row[row] != number:
                outcomes.point(row, number)
        if not new:
            return None
        kept = None if refused or target.codec.kept is None else target.codec.kept(request, target)
        return Ticket(number, request, key, body, 0 if refused else self._size(request, body), refused=refused, kept=kept)

    def _size(self, request: Request, body: bytes) -> int:
        weigh = self.plan.operation.weigh
        return len(body) if weigh is None else weigh(request, len(body))

    def _key(self, position: int, body: bytes, sample: int = 0) -> bytes:
        """What a stored answer is found by: the final body, the provider and its address. No API key, no row, no time-out."""
        before = self._prefixes[position]
        return key_of(before if not sample else before + b"sample %d\0" % sample, body)

    def _along(self, tickets: Sequence[Ticket]) -> dict[bytes, Sequence[bytes]]:
        """By a ticket's key: its keys at each target of the route. An answer of the second choice counts when the same call comes again."""
        tickets = [ticket for ticket in tickets if ticket.refused is None]
        if len(self.route) == 1:
            return {ticket.key: (ticket.key,) for ticket in tickets}
        return {ticket.key: [ticket.key, *(self._key_at(position, ticket) for position in range(1, len(self.route)))] for ticket in tickets}

    def _key_at(self, position: int, ticket: Ticket) -> bytes:
        target = self.route[position]
        try:
            return self._key(position, target.codec.encode((ticket.request,), target), ticket.request.sample)
        except LLMError:  # it has no word for something in this row; the first may serve it
            return ticket.key

    async def _stored(self, tickets: Sequence[Ticket]) -> dict[bytes, tuple[Stored, int]]:
        """By a ticket's key: the stored answer and the place in the route of the target that gave it."""
        along = self._along(tickets)
        if self.writer is None or self.policy.cache != "use" or not along:
            return {}
        return _hits(along, await self.writer.look_up([key for keys in along.values() for key in keys]))

    async def _claimed(self, tickets: Sequence[Ticket]) -> tuple[dict[bytes, tuple[Stored, int]], Set[bytes]]:
        """The same, and the keys that another process is asking for; it will find that we ask for the others."""
        if self.writer is None or self.outcomes.stopped is not None:
            return await self._stored(tickets), frozenset()
        along = self._along(tickets)
        if not along:
            return {}, frozenset()
        found, elsewhere = await self.writer.claim(along, look=self.policy.cache == "use")
        return _hits(along, found), elsewhere

    def _take_stored(self, ticket: Ticket, value: Any, stored: Stored, position: int) -> None:
        if self.outcomes.vectors and not self._of_one_length(value):  # the model has changed since
            self._make_ready(ticket)
            return
        usage = Usage(stored.input, stored.cached_input, stored.output)
        ticket.attempts = 0
        reply = Reply(value, usage, finish=stored.finish)
        self._end_flight(ticket, reply)
        self.hold(ticket, reply, CACHE, 0.0, position)

    def _make_ready(self, ticket: Ticket, elsewhere: bool = False) -> None:
        error = self.too_long((ticket,), self.route[0]) if len(self.route) == 1 else None
        if error is not None:
            self._keep_error(ticket, error, 0)
            return
        owner = self.engine.flights.setdefault(ticket.key, self)
        if owner is not self and self.policy.cache != "off":
            self._following += 1
            awaited = self.engine.awaited
            if ticket.key not in awaited:
                awaited[ticket.key] = asyncio.get_running_loop().create_future()
            awaited[ticket.key].add_done_callback(lambda future: self._landed(ticket, future))
            return
        if elsewhere:
            if not self._elsewhere:
                self._look_at = self.clock.now() + _LOOK_ELSEWHERE_SECONDS
            self._following += 1
            self._elsewhere[ticket.key] = ticket
            return
        if ticket.kept is not None:
            self._turns.count(ticket)
        ticket.ready = self.clock.now()
        self._ready.append(ticket)
        self._news.set()

    def _landed(self, ticket: Ticket, future: asyncio.Future[Reply]) -> None:
        """An equal request of another run has ended: share its answer, or ask oneself."""
        self._again.set()
        error = None if future.cancelled() else future.exception()
        # How the other run read its answer is no word on how this one does: it may have another class, validators or patience.
        read_there = self.reads and isinstance(error, BadOutput | Truncated)
        if future.cancelled() or read_there or not isinstance(error, RequestError | None):
            if self.outcomes.stopped is None and self.writer is not None:
                # Another process may have taken it up by now, or be the one that is asking.
                self._elsewhere[ticket.key] = ticket
                self._look_at = self.clock.now()
                return
            self._following -= 1
            if self.outcomes.stopped is None:
                self._make_ready(ticket)
            self._news.set()
            return
        if error is None and self.reads and self.outcomes.stopped is None:
            self._handed[ticket.key] = self._as_stored(future.result())
            self._elsewhere[ticket.key] = ticket
            self._look_at = self.clock.now()
            return
        self._following -= 1
        if error is not None:
            self._keep_error(ticket, error, 0)
        elif not self.reads:
            self.hold(ticket, future.result(), CACHE, 0.0, 0)
        self._news.set()

    def _as_stored(self, reply: Reply) -> Stored:
        """Another run's reply as it is found in the store."""
        usage = reply.usage
        value = self.plan.operation.pack(reply.value)
        return Stored(value, usage.input, usage.cached_input, usage.output, reply.finish, reply.model, usage.cache_write)

    # ----------------------------------------------------------------------------------------- what the retry layer calls

    def limiter(self, target: Target) -> Limiter:
        return self.engine.account(target).limiter

    def shut(self, target: Target) -> LLMError | None:
        door = self._doors.get(self.route.index(target))
        return None if door is None else door.error

    def looks(self, target: Target) -> bool:
        door, now = self._doors[self.route.index(target)], self.clock.now()
        if now < door.look_at:
            return False
        door.wait = min(2.0 * door.wait, _LOOK_AGAIN_MOST_SECONDS)
        door.look_at = now + door.wait
        return True

    def answered(self, target: Target) -> bool:
        return self.limiter(target).answered_at >= self._began

    def close_target(self, target: Target, error: LLMError) -> None:
        _without_frames(error)
        position = self.route.index(target)
        if position in self._doors:
            return
        # A refused key stays refused; who was down, or asked to wait, may be back.
        wait = INFINITY if isinstance(error, AccessError | ConfigError) else _LOOK_AGAIN_SECONDS
        if isinstance(error, QuotaSpent) and error.retry_after:
            wait = error.retry_after
        self._doors[position] = _Door(error, self.clock.now() + wait, wait)
        for_all = [place for place, target in enumerate(self.route) if not target.only_for]
        if all(place in self._doors for place in for_all):
            self._stop(all_failed([self._doors[place].error for place in for_all]))
        self.limiter(target).rouse()

    def may_retry(self) -> bool:
        if self._retries < 1.0:
            return False
        self._retries -= 1.0
        return True

    def stands_back(self, batch: Sequence[Ticket]) -> bool:
        if not self._ready or self.outcomes.stopped is not None or any(ticket.stood_back for ticket in batch):
            return False
        for ticket in batch:
            ticket.stood_back = True
        self._ready.extend(batch)
        self._news.set()
        return True

    def left(self, target: Target) -> bool:
        return target.adapter.answer is None and self.engine.connected(target)

    def lost(self, batch: Sequence[Ticket], target: Target, amount: float) -> None:
        # One request, whatever it carried: counted at its first row, as those are that were answered.
        ticket = batch[0]
        ticket.lost += 1
        self.outcomes.lose(ticket.number)
        self._lost[ticket.number] = _Lost(self, ticket, target)
        self._spent += amount

    def declined(self, ticket: Ticket, error: ContentBlocked, target: Target) -> None:
        self._served(self.route.index(target))
        usage = error.usage or Usage()
        before, dollars = ticket.declined or (Usage(), 0.0)
        cost = usage.cost(target.model.price)
        ticket.used = (ticket.used or Usage()) + usage
        ticket.declined = before + usage, None if cost is None or dollars is None else dollars + cost

    def too_long(self, batch: Sequence[Ticket], target: Target) -> ContextTooLong | None:
        window = target.model.context_window
        if window is None or len(batch) > 1 or batch[0].size / 8 <= window:
            return None
        # Eight bytes a token is more than any tokenizer manages on text: refused here, it costs nothing.
        return ContextTooLong(
            f"the text has {batch[0].size:,} bytes, far more than the model's window of {window:,} tokens; "
            "shorten it or choose a larger model",
            provider=target.provider.name,
            model=target.model.name,
        )

    def _stop(self, error: LLMError) -> None:
        """Send nothing more; what is stored is still taken."""
        if self.outcomes.stopped is None:
            self.outcomes.stopped = error
            for ticket in (*self._ready, *self._turns.clear(), *self._elsewhere.values()):
                self._end_flight(ticket, None)
            self._ready.clear()
            self._news.set()
            self._again.set()

    def tokens_of(self, batch: Sequence[Ticket], target: Target) -> tuple[float, float]:
        account = self.engine.account(target)
        sent = batch[0].size if len(batch) == 1 else sum(ticket.size for ticket in batch)
        output = 0.0
        if self.plan.operation.writes:
            limit = batch[0].request.options.get("max_tokens")
            output = (account.output if account.replies >= 5 else min(float(limit or 256), 256.0)) * len(batch)
        return sent * account.tokens_per_byte + output, output

    async def connect(self, target: Target) -> None:
        """Learn where requests go. Leave to send that is granted while the SDK is being imported would all be used at the same moment."""
        if id(target) in self._connected:
            return
        if target.adapter.connect is not None and not self.engine.connected(target):
            with suppress(Exception):  # what keeps it from connecting is said where the request is sent
                await self.engine.template(target)
        self._connected.add(id(target))

    async def reserve(self, batch: Sequence[Ticket], target: Target) -> float:
        """Set aside what this request may cost, after waiting for others to return what they did not need.

        Raises
        ------
        BudgetReached
            Nothing is in flight, and the request could still pass ``max_cost``.
        """
        most = self.policy.max_cost
        if most is None:
            return 0.0
        while self._spent + self._reserved + (amount := self._dearest(batch, target)) > most:
            if not self._reservations or self.outcomes.stopped is not None:
                advice = "" if "max_tokens" in batch[0].request.options else "; with max_tokens set it is less"
                raise BudgetReached(
                    f"max_cost=${most:g} is reached: ${self._spent:.4f} is spent, and the next request may cost ${amount:.4f}{advice}"
                )
            self._returned.clear()
            await self._returned.wait()
        self._reserved += amount
        self._reservations += 1
        return amount

    def _dearest(self, batch: Sequence[Ticket], target: Target) -> float:
        """US dollars that a request can cost at the most: a token for two bytes, and the longest answer that is allowed."""
        answer = 0
        if self.plan.operation.writes:
            account = self.engine.account(target)
            limit = batch[0].request.options.get("max_tokens") or target.model.output_limit or 4096
            # Where nobody set a limit, three times the longest answer so far is taken for one, once there is experience.
            unlimited = "max_tokens" not in batch[0].request.options
            answer = min(limit, 3 * account.largest_output) if unlimited and account.replies >= 20 else limit
        sent = sum(ticket.size for ticket in batch) // 2
        kept = batch[0].kept
        written = kept.levels[-1][1] // 2 if kept is not None and kept.written else 0
        bill = self._bill((ticket.request for ticket in batch), sent, answer * len(batch), target.model.price.dearest, written=written)
        return bill or 0.0

    def _bill(
        self, requests: Iterable[Request], tokens: int, answer: int, price: Price, *, cached: int = 0, written: int = 0
    ) -> float | None:
        """US dollars for these requests at the most; ``None`` where that is not known."""
        most = self.plan.operation.most
        beside = Usage() if most is None else sum((most(request, price) for request in requests), Usage())
        # Who bills by searches or minutes bills no tokens.
        return (beside if price.input is None and not beside.plain else beside + Usage(tokens, cached, answer, 0, written)).cost(price)

    def unreserve(self, amount: float) -> None:
        if self.policy.max_cost is None:
            return
        # Counted, too: sums of unequal amounts leave a crumb behind, and whoever waits for it to go waits for ever.
        self._reservations -= 1
        self._reserved = self._reserved - amount if self._reservations else 0.0
        self._returned.set()

    async def exchange(self, batch: Sequence[Ticket], target: Target) -> Answer:
        """Send one body and read what came; raises the error that the answer amounts to."""
        if batch[0].kept is None or target is not self.route[0]:
            return await self._exchange(batch, target)
        flight = await self._turns.begin(batch[0])
        answered = False
        try:
            answer = await self._exchange(batch, target, flight)
            answered = True
        finally:
            flight.end(answered)
        return answer

    async def _exchange(self, batch: Sequence[Ticket], target: Target, flight: Flight | None = None) -> Answer:
        requests = [ticket.request for ticket in batch]
        single = len(batch) == 1 and target is self.route[0]
        recast = self.plan.operation.recast
        if recast is not None:
            batch[0].mode = mode = self._mode(batch[0], target)
            if mode:
                requests, single = [recast(request, mode) for request in requests], False
        if flight is not None and flight.marks and target.codec.mark is not None:
            body = target.codec.mark(requests[0], target, flight.marks)
        else:
            body = batch[0].body if single else target.codec.encode(requests, target)
        if self._in_pieces and streaming.speaks(target):
            send = partial(streaming.exchange, self.engine, target, body, requests, self.policy.timeout, partial(self._heard, batch[0]))
        else:
            send = partial(exchange, self.engine, target, body, requests, self.policy.timeout)
        replies, limits = await (send() if self.trace is None else self.trace.asked(batch, target, send))
        if batch[0].lesser is not None and batch[0].lesser[0] is target:
            self._learn(target, batch[0], batch[0].lesser[1], "refuses")
        billed = [reply.usage for reply in replies if reply.usage is not None]
        usage = billed[0] if len(billed) == 1 else sum(billed, Usage())
        self.engine.account(target).learn(sum(ticket.size for ticket in batch), usage)
        self.outcomes.bill(usage)
        if self._counts_money:
            self._spent += usage._replace(unreported=0).cost(target.model.price.dearest) or 0.0
        return Answer(replies, limits, usage.input + usage.output, usage.output)

    def _heard(self, ticket: Ticket, piece: str | None) -> None:
        """A piece of an answer came; ``None`` begins it, maybe anew."""
        outcomes = self.outcomes
        if piece is None:
            outcomes.pieces[ticket.number] = []
            outcomes.first_piece.pop(ticket.number, None)
        else:
            outcomes.pieces[ticket.number].append(piece)
            if ticket.number not in outcomes.first_piece:
                outcomes.first_piece[ticket.number] = self.clock.now() - ticket.began

    def asks_otherwise(self, batch: Sequence[Ticket], target: Target, error: LLMError) -> bool:
        """Whether what was refused may be the way it was asked, and there is another, in which this row is asked now.

        The others follow once that is answered: what one row is refused for need not be the way.
        """
        lesser, ticket = self.plan.operation.lesser, batch[0]
        if lesser is None or target.codec.modes is None:
            return False
        modes, _ = target.codec.modes(ticket.request, target)
        mode = lesser(ticket.request, modes, ticket.mode, error)
        if not mode:
            return False
        known = self.engine.account(target).mode
        if known in modes and modes.index(known) > modes.index(mode):  # another row learned it while this one was under way
            mode = known
        ticket.lesser = target, mode
        return True

    def _mode(self, ticket: Ticket, target: Target) -> str:
        """The mode that a row is asked in, where that is not the target's usual one."""
        if ticket.lesser is not None and ticket.lesser[0] is target:
            return ticket.lesser[1]
        known = self.engine.account(target).mode
        if not known or target.codec.modes is None:
            return ""
        modes, _ = target.codec.modes(ticket.request, target)
        return known if known in modes[1:] else ""

    def _learn(self, target: Target, ticket: Ticket, mode: str, why: str) -> None:
        """Ask the target in this mode from now on, and say so once."""
        account = self.engine.account(target)
        assert target.codec.modes is not None
        modes, _ = target.codec.modes(ticket.request, target)
        if account.mode in modes and mode in modes and modes.index(account.mode) >= modes.index(mode):
            return
        account.mode, account.unheeded = mode, 0
        note = f"{target.name} {why} structured answers as they are usually asked for; they are asked for as {mode}"
        beside = [other for other in self.outcomes.notes if not other.startswith(f"{target.name} ")]
        self.outcomes.notes[:] = [*beside, note]

    def too_large(self, batch: Sequence[Ticket], target: Target, error: BatchTooLarge) -> None:
        """A batch was too much: remember a size that fits, for the rest of the run."""
        carried = sum(ticket.size for ticket in batch)
        tokens = carried * self.engine.account(target).tokens_per_byte
        share = 0.5 if error.limit is None else min(0.5, 0.9 * error.limit / max(1.0, tokens))
        self._batch_bytes = min(self._batch_bytes, carried * share)

    def settle(self, batch: Sequence[Ticket], answer: Answer, target: Target) -> None:
        position = self.route.index(target)
        self._served(position)
        now = self.clock.now()
        odd = 0
        for ticket, said in zip(batch, answer.replies, strict=True):
            reply = said if ticket.used is None else _with_usage(said, ticket.used)
            if isinstance(reply, LLMError):
                self._keep_error(ticket, reply, position)
            elif self.outcomes.vectors and not self._of_one_length(reply.value):
                odd += 1
                self._keep_error(ticket, self._odd(reply, target), position)
            else:
                self._keep_reply(ticket, reply, position, now - ticket.began)
        if odd == len(batch) > 1:
            error = AccessError(
                f"the model's vectors have another length than the {self._dimensions} numbers of those before, and vectors of two lengths "
                'cannot be compared: name one model and its dimensions, or ask for all of them anew with cache="refresh"',
                kind="vectors_changed",
            )
            self._stop(signed(error, [], target))

    def _served(self, position: int) -> None:
        """The target is there: its door is open again, and the run may afford one more retry."""
        if self._doors:
            self._doors.pop(position, None)
        if self._retries < self._retries_most:
            self._retries += 1.0

    def _of_one_length(self, vector: Any) -> bool:
        """Whether a vector has the length of those before it; the first one says which."""
        if self._dimensions is None:
            self._dimensions = len(vector)
        return len(vector) == self._dimensions

    def _odd(self, reply: Reply, target: Target) -> LLMError:
        # An error, hence not stored: as an answer it would be found again by every later call.
        message = f"this vector has {len(reply.value)} numbers, the others {self._dimensions}"
        return signed(BadOutput(message, kind="invalid_vector", usage=reply.usage), [], target)

    async def follow(self, batch: Sequence[Ticket], answer: Answer, target: Target) -> Sequence[Ticket]:
        """Have the operation read the replies: settles the rows that are through, hands back the others with what they ask next."""
        read, blocking = self.plan.operation.read, self.plan.operation.blocking
        assert read is not None
        position, going_on = self.route.index(target), []
        self._served(position)
        for ticket, reply in zip(batch, answer.replies, strict=True):
            outcome: Reply | LLMError | Request = reply
            if isinstance(reply, Reply):
                try:
                    outcome = await apart(read, ticket.request, reply) if blocking else read(ticket.request, reply)
                except LLMError as error:
                    outcome = error
                except Exception as error:
                    outcome = BadOutput(f"the answer could not be read ({type(error).__name__})", kind="unreadable")
            spent = reply.usage or Usage()
            used = spent if ticket.used is None else ticket.used + spent
            self._note_whether_heeded(ticket, outcome, target)
            if isinstance(outcome, Request):
                try:
                    going_on.append(self._next_round(ticket, outcome, used))
                    continue
                except RequestError as error:
                    outcome = error
            if isinstance(outcome, LLMError):
                outcome.usage = used
                self._keep_error(ticket, signed(outcome, [ticket.request], target), position)
            else:
                outcome = outcome if outcome.usage is used else replace(outcome, usage=used)
                self._keep_reply(ticket, outcome, position, self.clock.now() - ticket.began)
        return going_on

    def _note_whether_heeded(self, ticket: Ticket, outcome: Reply | LLMError | Request, target: Target) -> None:
        """Models that answer prose several times in succession where JSON was asked for are asked in another mode from now on."""
        lesser, account = self.plan.operation.lesser, self.engine.account(target)
        # Of a row's first answers alone: the later ones were asked for otherwise.
        if lesser is None or target.codec.modes is None or ticket.first is not None or ticket.mode != account.mode:
            return
        if isinstance(outcome, Reply):
            account.unheeded = 0
        elif isinstance(outcome, Request):
            modes, _ = target.codec.modes(ticket.request, target)
            mode = lesser(outcome, modes, ticket.mode, None)
            if mode:
                account.unheeded += 1
                if account.unheeded >= _UNHEEDED:
                    self._learn(target, ticket, mode, "does not heed")

    def _next_round(self, ticket: Ticket, request: Request, used: Usage) -> Ticket:
        body = self.route[0].codec.encode((request,), self.route[0])
        return replace(ticket, request=request, body=body, size=self._size(request, body), first=ticket.first or ticket.request, used=used)

    def hold(self, ticket: Ticket, reply: Reply, source: int, seconds: float, position: int) -> None:
        """A reply that is stored becomes the outcome of its task."""
        if self.plan.operation.hold is not None:
            try:
                reply = replace(reply, value=self.plan.operation.hold(reply.value, ticket.key))
            except OSError as error:
                # The answer itself is stored: the same call again, with room on the disk, costs nothing.
                lost = BadOutput(f"its file could not be written ({error.strerror or type(error).__name__})", kind="disk")
                self.outcomes.fail(ticket.number, lost, ticket.attempts, seconds, position)
                return
        self.outcomes.settle(ticket.number, reply, source, ticket.attempts, seconds, position)

    def fail(self, batch: Sequence[Ticket], error: LLMError, target: Target) -> None:
        if self.trace is not None:
            self.trace.gave_up(batch)
        position = self.route.index(target)
        for ticket in batch:
            self._keep_error(ticket, error, position)

    # ------------------------------------------------------------------------------------------------------------- keeping

    def _keep_reply(self, ticket: Ticket, reply: Reply, position: int, seconds: float) -> None:
        key, target = ticket.key, self.route[position]
        if position:
            asked = ticket.first or ticket.request
            key = self._key(position, target.codec.encode((asked,), target), asked.sample)
        self._keep(_Settled(self, ticket, key, reply, position, seconds))

    def _keep_error(self, ticket: Ticket, error: LLMError, position: int) -> None:
        _without_frames(error)
        if ticket.used is not None and error.usage is None:
            error = copy(error)  # other rows may have failed by the same one
            error.usage = ticket.used
        seconds = self.clock.now() - ticket.began if ticket.began else 0.0
        self._keep(_Settled(self, ticket, ticket.key, error, position, seconds))

    def _keep(self, settled: _Settled) -> None:
        if self._lost:
            self._lost.pop(settled.ticket.number, None)
        self._end_flight(settled.ticket, settled.result)
        if self.writer is None:
            settled.durable()
        else:
            if settled.position:
                self.writer.settling.add(settled.ticket.key)
            self.writer.put(settled)

    def _end_flight(self, ticket: Ticket, result: Reply | LLMError | None) -> None:
        if self.engine.flights.get(ticket.key) is not self:
            return
        del self.engine.flights[ticket.key]
        awaited = self.engine.awaited.pop(ticket.key, None)
        if awaited is None:
            return
        if isinstance(result, Reply):
            awaited.set_result(result)
        elif isinstance(result, LLMError):
            awaited.set_exception(result)
            awaited.exception()  # seen: nobody need be waiting
        else:
            awaited.cancel()

    def _let_go(self) -> None:
        """Whatever of this run is still in flight is no longer: those who wait for it ask themselves."""
        engine = self.engine
        for key in [key for key, owner in engine.flights.items() if owner is self]:
            del engine.flights[key]
            if key in engine.awaited:
                engine.awaited.pop(key).cancel()

    async def _close_books(self) -> None:
        if self.engine.writer is not None:
            await self._keep_the_rest(self.engine.writer)
        await self.engine.remember(self.route)

    async def _keep_the_rest(self, writer: Writer) -> None:
        outcomes = self.outcomes
        for lost in self._lost.values() if self.writer is not None else ():
            writer.put(lost)
        await writer.drain()
        usage = outcomes.usage
        await writer.write_history(self._journal, self.outcomes.history)
        await writer.end_run(
            self._journal,
            {
                "done": outcomes.done,
                "errors": outcomes.failed,
                "stored": outcomes.stored,
                "requests": usage.requests,
                "input": usage.input,
                "cached_input": usage.cached_input,
                "cache_write": usage.cache_write,
                "output": usage.output,
                "cost": outcomes.cost([target.model.price for target in self.route]),
                "stopped": outcomes.stopped.kind if outcomes.stopped is not None else None,
            },
        )

    # ----------------------------------------------------------------------------------------------------------- estimating

    async def estimate(self) -> Estimate:
        target = self.route[0]
        account = self.engine.account(target)
        size = target.codec.batch_size(target)[0]
        source = self.plan.tasks()
        unique = stored = remaining = sent = answer_tokens = 0
        asked = 0
        limit = None
        beside: list[Request] = []
        shared = _SharedPrefixes()
        while tasks := list(islice(source, 1024)):
            fresh = [ticket for task in tasks if (ticket := self._number(task)) is not None and ticket.refused is None]
            unique += len(fresh)
            asked += sum(len(task.rows) for task in tasks)
            known = await self._stored(fresh)
            stored += len(known)
            for ticket in fresh:
                if ticket.key not in known:
                    remaining += 1
                    sent += ticket.size
                    if ticket.kept is not None:
                        shared.add(ticket.kept)
                    if self.plan.operation.most is not None:
                        beside.append(ticket.request)
                    limit = ticket.request.options.get("max_tokens")
        if self.plan.operation.writes:
            if account.replies >= 5:
                each, words = account.output, "answers as long as those seen so far"
            elif limit:
                each, words = float(limit), f"answers of max_tokens={limit}, the most that can come"
            else:
                each, words = 200.0, "answers of 200 tokens, an assumption: set max_tokens for a bound"
            answer_tokens = int(each * remaining)
        else:
            words = "no output tokens"
        tokens = int(sent * account.tokens_per_byte)
        learned = "a ratio learned from replies" if account.replies else "4 bytes a token, an assumption"
        requests = -(-remaining // size)
        cached, written = (int(size_in_bytes * account.tokens_per_byte) for size_in_bytes in (shared.read, shared.written))
        price = target.model.price.of_request(tokens // max(1, requests))
        upper = self._bill(beside, tokens, answer_tokens, price)
        cost = self._bill(beside, tokens, answer_tokens, price, cached=cached, written=written) if shared.read and shared.certain else upper
        return Estimate(
            model=" > ".join(target.name for target in self.route),
            rows=self.outcomes.rows,
            missing=self.outcomes.rows - asked,
            unique=unique,
            stored=stored,
            requests=requests,
            input_tokens=tokens,
            output_tokens=answer_tokens,
            cost=upper if cost is None else cost,
            seconds=_seconds(requests, tokens + answer_tokens, account.limiter),
            basis=f"input by {learned}; {words}"
            + (f"; {cached:,} tokens of shared prefixes are expected to be billed as cached" if cached else "")
            + ("; all by the first model of the route" if len(self.route) > 1 else ""),
        )


class _SharedPrefixes:
    """What requests that are sent one after another would write into a vendor's prompt cache and read from it, in bytes."""

    def __init__(self) -> None:
        self._known: set[bytes] = set()
        self.read = self.written = 0
        #: Whether the vendor's rules leave no doubt of it.
        self.certain = True

    def add(self, kept: Kept) -> None:
        before = 0
        for digest, size in kept.levels:
            if digest in self._known:
                self.read += size - before
            elif kept.written:
                self.written += size - before
            self._known.add(digest)
            before = size
        self.certain = self.certain and kept.certain


def _seconds(requests: int, tokens: int, limiter: Limiter) -> float | None:
    """Seconds at the limits known so far; ``None`` where none are known."""
    times = []
    if limiter.requests_per_minute:
        times.append(60 * requests / limiter.requests_per_minute)
    if limiter.tokens_per_minute:
        times.append(60 * tokens / limiter.tokens_per_minute)
    return max(times) if times else None


def _unpacked(unpack: Callable[[bytes], Any], stored: Iterable[tuple[bytes, bytes]]) -> dict[bytes, Any]:
    """By key: what stored bytes say; without those that are damaged or forged: they are no answers, so these are asked for."""
    values = {}
    for key, value in stored:
        with suppress(ValueError):
            values[key] = unpack(value)
    return values


def _hits(along: Mapping[bytes, Sequence[bytes]], found: Mapping[bytes, Stored]) -> dict[bytes, tuple[Stored, int]]:
    hits = {}
    for first, keys in along.items() if found else ():
        for position, key in enumerate(keys):
            if key in found:
                hits[first] = (found[key], position)
                break
    return hits


def _with_usage(result: Reply | LLMError, before: Usage) -> Reply | LLMError:
    """The same, and what models that declined the row had billed for it."""
    if isinstance(result, Reply):
        return replace(result, usage=before + result.usage)
    error = copy(result)
    error.usage = before + (result.usage or Usage())
    return error


def _without_frames(error: LLMError) -> None:
    """An error that is kept outlives the frames it passed through; they hold prompts, bodies, and much memory."""
    error.__traceback__ = error.__context__ = error.__cause__ = None
