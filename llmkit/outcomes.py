"""What became of each task, in columns and not in objects: a million rows cost tens of bytes each beside their answers.

The engine writes here, a run and the frames read; ``types`` alone stands below.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import BadOutput, LLMError
from .types import Outcome, Price, Reply, Source, Usage

__all__ = ["CACHE", "FAILED", "JOB", "LIVE", "MISSING", "PENDING", "UNSEEN", "Outcomes"]

#: States of a task.
PENDING, LIVE, CACHE, JOB, FAILED = range(5)
_SOURCE: dict[int, Source] = {LIVE: "live", CACHE: "cache", JOB: "job"}

#: ``task_of_row`` of a row that was not drawn yet, and of one that holds nothing to ask.
UNSEEN, MISSING = -2, -1


def _zeros(kind: str, length: int) -> array[Any]:
    return array(kind, bytes(array(kind).itemsize * length))


class Outcomes:
    """What became of every task of a run.

    Parameters
    ----------
    rows : int
        Rows of the table.
    vectors : bool
        Whether values are float32 vectors; they are then laid into one (rows, dimensions) matrix as they come, which the result is
        made of without a copy.

    Attributes
    ----------
    task_of_row : (rows,) int32 array
        The task that answers a row; ``MISSING`` for rows with nothing to ask, ``UNSEEN`` for rows not drawn yet.
    """

    def __init__(self, rows: int, vectors: bool = False) -> None:
        self.rows = rows
        self.task_of_row: npt.NDArray[np.int32] = np.full(rows, UNSEEN, dtype=np.int32)
        #: Rows of the tasks that answer several with different values (rerank).
        self.rows_of_task: dict[int, tuple[int, ...]] = {}
        # A task has at least one row, so there is room for every task from the start; untouched pages cost nothing.
        self._length = 0
        self.state = _zeros("b", rows)
        self.attempts = _zeros("H", rows)
        self.seconds = _zeros("f", rows)
        #: Seconds from being ready to being sent, before ``seconds``.
        self.queued = _zeros("f", rows)
        self.input, self.cached_input, self.output = _zeros("q", rows), _zeros("q", rows), _zeros("q", rows)
        self.target = _zeros("b", rows)
        self.finish: dict[int, str] = {}
        #: What was billed, of the few tasks where tokens in, cached and out do not say it all.
        self.billed: dict[int, Usage] = {}
        #: What the user should know of the way it went, a sentence each.
        self.notes: list[str] = []
        #: How the run was paced, a line a second and model: seconds, model, window, in flight, waiting, sent, refused.
        self.history: list[tuple[float, str, float, int, int, int, int]] = []
        #: Requests that had left and whose answer never came, of the few tasks that have any: they may have been billed.
        self.lost: dict[int, int] = {}
        #: Requests that were answered, of the tasks that took more than one: an answer was not valid, or a model declined.
        self.rounds: dict[int, int] = {}
        #: US dollars of the few tasks that several models billed for.
        self.costs: dict[int, float | None] = {}
        #: Where answers come in pieces: those that came of answers that are no whole, and seconds from the first attempt to the first one.
        self.pieces: dict[int, list[str]] = {}
        self.first_piece: dict[int, float] = {}
        self.errors: dict[int, LLMError] = {}
        self.keys: list[bytes] = []
        #: Why the tasks that are still pending at the end were not sent.
        self.stopped: LLMError | None = None
        self.vectors = vectors
        self.matrix: npt.NDArray[np.float32] | None = None
        #: The place in the route of the model that made the vectors.
        self._vectors_of: int | None = None
        self.values: list[Any] = []
        self.done = self.failed = self.stored = 0
        self.rows_done = self.rows_failed = self.rows_stored = 0
        self._tokens = [0, 0, 0, 0]
        self._beside = Usage()
        #: Rows each task answers, so that progress counts rows.
        self.weight = _zeros("q", rows)

    def __len__(self) -> int:
        return self._length

    def add(self, key: bytes) -> int:
        number = self._length
        self._length += 1
        self.target[number] = -1
        self.keys.append(key)
        if not self.vectors:
            self.values.append(None)
        return number

    def point(self, row: int, task: int) -> None:
        """Row ``row`` is answered by ``task``; where that is settled already, the row is too."""
        self.task_of_row[row] = task
        self.weight[task] += 1
        state = self.state[task]
        if state == FAILED:
            self.rows_failed += 1
        elif state != PENDING:
            self.rows_done += 1
            self.rows_stored += 1

    def settle(self, task: int, reply: Reply, source: int, attempts: int, seconds: float, target: int) -> None:
        if self.vectors:
            vector = reply.value
            if self.matrix is None:
                # Untouched pages cost nothing, so room for every row is asked for once.
                self.matrix = np.empty((self.rows, len(vector)), dtype=np.float32)
            if len(vector) != self.matrix.shape[1]:
                error = BadOutput(f"this vector has {len(vector)} numbers, the others {self.matrix.shape[1]}", kind="invalid_vector")
                self.fail(task, error, attempts, seconds, target)
                return
            if target != self._vectors_of:
                if self._vectors_of is not None:
                    error = BadOutput(
                        "another model of the route made the vectors before this one, and they do not mix", kind="other_model"
                    )
                    self.fail(task, error, attempts, seconds, target)
                    return
                self._vectors_of = target
            self.matrix[task] = vector
        else:
            self.values[task] = reply.value
        self.state[task] = source
        if self.pieces:
            self.pieces.pop(task, None)
        self.attempts[task] = min(attempts, 65535)
        self.seconds[task] = seconds
        self._count(task, reply.usage)
        self.target[task] = target
        if reply.finish is not None and reply.finish != "stop":
            self.finish[task] = sys.intern(reply.finish)
        self.done += 1
        self.rows_done += self.weight[task]
        if source == CACHE:
            self.stored += 1
            self.rows_stored += self.weight[task]

    def fail(self, task: int, error: LLMError, attempts: int, seconds: float, target: int) -> None:
        self.state[task] = FAILED
        self.errors[task] = error
        self.attempts[task] = min(attempts, 65535)
        self.seconds[task] = seconds
        self.target[task] = target
        if error.usage is not None:
            self._count(task, error.usage)
        self.failed += 1
        self.rows_failed += self.weight[task]

    def _count(self, task: int, usage: Usage) -> None:
        self.input[task], self.cached_input[task], self.output[task] = usage.input, usage.cached_input, usage.output
        if not usage.plain:
            self.billed[task] = usage
        if usage.requests > 1:
            self.rounds[task] = usage.requests

    def used(self, task: int) -> Usage:
        """What the task was billed."""
        return self.billed.get(task) or Usage(self.input[task], self.cached_input[task], self.output[task])

    def lose(self, task: int) -> None:
        self.lost[task] = self.lost.get(task, 0) + 1

    def bill(self, usage: Usage) -> None:
        if usage.plain:
            tokens = self._tokens
            tokens[0] += usage.input
            tokens[1] += usage.cached_input
            tokens[2] += usage.output
            tokens[3] += usage.requests
        else:
            self._beside = self._beside + usage

    @property
    def usage(self) -> Usage:
        """What was billed in this run, failed answers included."""
        return self._beside + Usage(*self._tokens)

    def cost(self, prices: Sequence[Price]) -> float | None:
        """US dollars billed in this run, failed answers included; ``None`` where a price, or what was used, is unknown.

        ``prices`` are those of the route's targets.
        """
        if len(set(prices)) > 1:
            billed = self._billed_by()
            if self.costs or len({prices[position] for position in billed}) > 1:
                return self._added(range(len(self)), lambda task: self.cost_of(task, prices))
            prices = [prices[position] for position in billed] or prices
        return self._cost_at(prices[0]) if prices else 0.0

    def _billed_by(self) -> list[int]:
        """Places in the route of the targets that answered, or failed, some task."""
        count = len(self)  # once: a bar asks while tasks are added
        settled = np.isin(np.asarray(self.state)[:count], (LIVE, JOB, FAILED))
        found: list[int] = np.unique(np.asarray(self.target)[:count][settled]).tolist()
        return [position for position in found if position >= 0]

    def cost_of(self, task: int, prices: Sequence[Price]) -> float | None:
        """US dollars of one task; ``prices`` are those of the route's targets."""
        return self.costs[task] if task in self.costs else self.used(task).cost(prices[self.target[task]])

    def _cost_at(self, price: Price) -> float | None:
        """All at the price of short requests, and what long ones cost above it: most runs have none, and a bar asks ten times a second."""
        short = price.of_request(0)
        total = self.usage.cost(short)
        if total is None or price.long_from is None or self.usage.input <= price.long_from:
            return total

        def above(task: int) -> float | None:
            used = self.used(task)
            cost, usual = used.cost(price.of_request(used.input)), used.cost(short)
            return None if cost is None or usual is None else cost - usual

        long = np.flatnonzero(np.asarray(self.input)[: len(self)] > price.long_from).tolist()
        more = self._added(long, above)
        return None if more is None else total + more

    def _added(self, tasks: Iterable[int], cost_of: Callable[[int], float | None]) -> float | None:
        total = 0.0
        for task in tasks:
            if self.state[task] in (LIVE, JOB, FAILED) and self.target[task] >= 0:
                cost = cost_of(task)
                if cost is None:
                    return None
                total += cost
        return total

    def value(self, task: int) -> Any:
        if self.state[task] not in _SOURCE:
            return None
        if self.vectors:
            return None if self.matrix is None else self.matrix[task]
        return self.values[task]

    def error_of(self, task: int) -> LLMError | None:
        """Why a task has no value: its own error, or why the run stopped before it."""
        if self.state[task] == FAILED:
            return self.errors[task]
        return self.stopped if self.state[task] == PENDING else None

    def at(self, task: int, targets: Sequence[str]) -> Outcome:
        source = _SOURCE.get(self.state[task])
        target = self.target[task]
        reply = None
        if source is not None:
            reply = Reply(self.value(task), self.used(task), finish=self.finish.get(task, "stop"))
        name = targets[target] if 0 <= target < len(targets) else None
        return Outcome(task, reply, self.error_of(task), self.attempts[task], self.seconds[task], source, name)

    def no_more(self) -> None:
        """Every row was drawn: those without a task hold nothing to ask."""
        unseen = self.task_of_row == UNSEEN
        self.task_of_row[unseen] = MISSING

    @property
    def drawn(self) -> bool:
        """Whether every row was."""
        return not (self.task_of_row == UNSEEN).any()

    def forget_failures(self) -> None:
        """Make the failed tasks pending again, for a second try."""
        for task in self.errors:
            self.state[task] = PENDING
            self.costs.pop(task, None)
            self.rows_failed -= self.weight[task]
        self.failed = 0
        self.errors = {}
        self.stopped = None
