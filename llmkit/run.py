"""Work in hand: a ``Run`` is what a call is doing, and afterwards what it has done."""

from __future__ import annotations

import asyncio
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from . import event_loop
from .errors import AccessError, BudgetReached, ConfigError, LLMError, Unreachable, Unsupported
from .outcomes import CACHE, FAILED, MISSING, PENDING, Outcomes
from .types import Cell, Outcome, Price, Progress, Usage

__all__ = ["Bar", "Run", "Shape", "begun", "to_the_caller"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Shape(Protocol[T_co]):
    """How outcomes look to the caller: floors above know frames, this one does not.

    One that has ``view(run, rows)`` and ``report(run)`` beside gives the run these; one whose rows are not the run's tells by
    ``first_error(run)`` why the first of them failed, if any did.
    """

    def result(self, run: Run[Any]) -> T_co: ...

    def errors(self, run: Run[Any]) -> Any: ...

    def history(self, run: Run[Any]) -> Any: ...


class Run(Generic[T]):
    """What one call is doing. Await it, ask it for its result, watch it, stop it.

    Attributes
    ----------
    id : str
        Names the run in the journal.
    targets : tuple of str
        The models of the route, first choice first.
    outcomes : Outcomes
        What became of each task so far.
    """

    #: Between the names of its models: each serves what the one before could not.
    _between = " > "
    #: Whether it is a part of another run, which then stands for it.
    part = False

    def __init__(
        self,
        *,
        id: str,
        operation: str,
        targets: Sequence[str],
        prices: Sequence[Price],
        outcomes: Outcomes,
        shape: Shape[T],
        on_error: str = "keep",
        show_progress: bool = True,
        note: str = "",
    ) -> None:
        self.id = id
        self.operation = operation
        self.targets = tuple(targets)
        self.prices = tuple(prices)
        self.outcomes = outcomes
        self.started = time.time()
        self._shape = shape
        self._on_error = on_error
        self._show_progress = show_progress
        self._note = note
        self._drawn = False
        self._began = time.monotonic()
        self._ended: float | None = None
        self._work: Callable[[], Any] | None = None
        self._running: event_loop.Running[None] | None = None
        #: Answers that are in memory only, because another process holds the cache file.
        self.owed = 0

    # ------------------------------------------------------------------------------------------------------------ working

    def begin(self, work: Callable[[], Any]) -> None:
        """Start ``work``, a coroutine function that settles the outcomes; the session calls this once."""
        self._work = work
        self._start()

    def _start(self) -> None:
        self._running = event_loop.start(self._drive)
        if not self.part:
            begun.add(self)

    async def _drive(self) -> None:
        assert self._work is not None
        try:
            await self._work()
        finally:
            self._ended = time.monotonic()
            begun.running.pop(id(self), None)

    @property
    def done(self) -> bool:
        """Whether the run has ended, by whatever cause."""
        return self._running is not None and self._running.future.done()

    @property
    def stopped(self) -> LLMError | None:
        """Why the run ended before its last row, ``None`` where it did not."""
        return self.outcomes.stopped

    def result(self) -> T:
        """Block until the run is done and hand back its result; Ctrl-C stops the run and keeps what was paid for.

        Raises
        ------
        AccessError, Unreachable
            The account, or the provider, refused the whole run. What was finished is in ``partial()``; the same call sends only the rest.
        LLMError
            With ``on_error="raise"``: the first failed row's reason.
        """
        assert self._running is not None
        future = self._running.future
        bar = None
        try:
            if self._show_progress and not self._drawn:
                bar = Bar(self)
                self._drawn = True  # a result that is asked for again draws no second bar
            event_loop.wait(future, bar.draw if bar else None)
        except BaseException as error:
            if not isinstance(error, Exception):  # Ctrl-C, not a fault of the run
                told = self._let_go()
                if bar is not None:
                    bar.close()
                    bar = None
                print(told, file=sys.stderr)  # noqa: T201 - said to a person at a keyboard
            raise
        finally:
            if bar is not None:
                bar.close()
        return self._handed_back()

    def __await__(self) -> Generator[Any, None, T]:
        return self._awaited().__await__()

    async def _awaited(self) -> T:
        assert self._running is not None
        try:
            await event_loop.wait_in(self._running.future)
        except asyncio.CancelledError:
            self._let_go(0.0)
            raise
        return self._handed_back()

    def _let_go(self, seconds: float = 0.8) -> str:
        """Nobody waits any longer: what becomes of the run, in a sentence; it has so many seconds to come to an end."""
        assert self._running is not None
        self.cancel()
        event_loop.settle(self._running.future, seconds)
        return self._kept()

    def _handed_back(self) -> T:
        self._raise_what_stopped_it()
        stopped = self.stopped
        error = self._first_error() if self._on_error == "raise" else None
        if error is not None:
            error.add_note(self._kept())
            raise error
        self._tell()
        if isinstance(stopped, BudgetReached):
            warnings.warn(f"{stopped}. {self._kept()}", stacklevel=to_the_caller())
        return self._shape.result(self)

    def _raise_what_stopped_it(self) -> None:
        stopped = self.stopped
        if isinstance(stopped, ConfigError):
            raise stopped
        if isinstance(stopped, AccessError | Unreachable) or (stopped is not None and self._on_error == "raise"):
            stopped.add_note(self._kept())
            raise stopped

    def _first_error(self) -> LLMError | None:
        """Why the first failed row did, ``None`` where none did."""
        errors = self.outcomes.errors
        if not errors:
            return None
        of_rows: Callable[[Run[Any]], LLMError | None] | None = getattr(self._shape, "first_error", None)
        return errors[min(errors)] if of_rows is None else of_rows(self)

    def _tell(self) -> None:
        """Warn of what the caller should know of a run that ended."""
        if self.stopped is None and self.outcomes.errors and not self.outcomes.done:
            kinds = Counter(error.kind for error in self.outcomes.errors.values())
            example = self.outcomes.errors[min(self.outcomes.errors)]
            warnings.warn(
                f"llmkit: no row got an answer ({', '.join(f'{count} x {kind}' for kind, count in kinds.most_common(3))}), e.g. {example}. "
                "See llmkit.last().errors()",
                stacklevel=to_the_caller(),
            )
        self._tell_notes()
        if self.owed:
            warnings.warn(
                f"{self.owed} answers are in memory only: another process holds the cache file. They are written as soon as it lets go.",
                stacklevel=to_the_caller(),
            )

    def _tell_notes(self) -> None:
        notes, self.outcomes.notes = self.outcomes.notes, []
        for note in notes:
            warnings.warn(f"llmkit: {note}", stacklevel=to_the_caller())

    def _kept(self) -> str:
        rows = self.outcomes.rows
        return (
            f"llmkit: {self.outcomes.rows_done:,} of {rows:,} rows are finished and kept: llmkit.last().partial() has them, "
            "and the same call again sends only the rest."
        )

    def partial(self) -> T:
        """What there is now, in the shape of the result: unfinished and failed rows are missing. Never raises for a failed run."""
        return self._shape.result(self)

    def cancel(self) -> None:
        """Stop: nothing more is sent, requests in flight are dropped, finished rows are kept. Returns at once."""
        if self._running is not None:
            self._running.cancel()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the run ends or ``timeout`` seconds have passed; whether it ended. Raises nothing of the run's."""
        assert self._running is not None
        began = time.monotonic()
        while not event_loop.settle(self._running.future, event_loop.SLICE):
            if timeout is not None and time.monotonic() - began >= timeout:
                return False
        return True

    def watch(self, function: Callable[[Progress], Any]) -> Run[T]:
        """Have ``function(progress)`` called at most ten times a second, and once at the end, in a thread of its own."""
        assert self._running is not None
        event_loop.every(event_loop.SLICE, lambda: function(self.progress()), self._running.future)
        return self

    # ------------------------------------------------------------------------------------------------------------ looking

    @property
    def rows(self) -> int:
        """Rows of the frame that was asked about."""
        return self.outcomes.rows

    @property
    def models(self) -> tuple[str, ...]:
        """The models of the route, each once."""
        return tuple(dict.fromkeys(self.targets))

    @property
    def unasked(self) -> int:
        """Rows that hold nothing to ask, as far as they were looked at."""
        return int((self.outcomes.task_of_row == MISSING).sum())

    def cell(self, row: int) -> Cell:
        """What became of one row, by its position, so far; cheap while the run goes on.

        Examples
        --------
        >>> import pandas as pd, llmkit
        >>> run = pd.DataFrame({"text": ["first", None]}).llm.chat("Say {text}", model="echo/echo", wait=False)
        >>> _ = run.wait()
        >>> run.cell(0).value, run.cell(1).state
        ('[echo, not a model] Say first', 'missing')
        """
        outcomes = self.outcomes
        task = int(outcomes.task_of_row[row])
        if task == MISSING:
            return Cell("missing")
        if task < 0:
            return Cell("stopped", error=outcomes.stopped) if self.done else Cell("waiting")
        state = outcomes.state[task]
        said = "".join(outcomes.pieces.get(task, ())) or None
        if state == PENDING:
            doing: Any = "stopped" if self.done else "waiting" if said is None else "writing"
            return Cell(doing, said, outcomes.error_of(task), first_seconds=outcomes.first_piece.get(task))
        found, used = outcomes.at(task, self.targets), outcomes.used(task)
        live = found.source == "live"
        return Cell(
            "failed" if state == FAILED else "done",
            said if found.reply is None else found.reply.value,
            found.error,
            found.source,
            outcomes.first_piece.get(task),
            outcomes.seconds[task] if live else None,
            outcomes.queued[task] if live else None,
            used.input,
            used.output,
            outcomes.cost_of(task, self.prices) if outcomes.target[task] >= 0 else 0.0,
            outcomes.finish.get(task, "stop") if found.reply is not None else "",
        )

    def progress(self) -> Progress:
        outcomes = self.outcomes
        end = self._ended if self._ended is not None else time.monotonic()
        usage = outcomes.usage
        return Progress(
            rows=outcomes.rows,
            done=outcomes.rows_done,
            errors=outcomes.rows_failed,
            stored=outcomes.rows_stored,
            tokens=usage.input + usage.output,
            cost=self.cost,
            seconds=end - self._began,
        )

    @property
    def cost(self) -> float | None:
        """US dollars billed in this run so far, failed answers included; ``None`` where a price is unknown."""
        return self.outcomes.cost(self.prices)

    def cost_of(self, task: int) -> float | None:
        """US dollars of one task in this run; 0 for answers that were stored."""
        outcomes = self.outcomes
        if outcomes.state[task] == CACHE:
            return 0.0
        target = outcomes.target[task]
        if target < 0:
            return 0.0
        return outcomes.cost_of(task, self.prices)

    def usage(self) -> Usage:
        """Tokens and requests billed in this run; stored answers count nothing."""
        return self.outcomes.usage

    def errors(self) -> Any:
        """The failed rows and why: a DataFrame with row, index, kind, error and attempts."""
        return self._shape.errors(self)

    @property
    def possibly_billed(self) -> int:
        """Requests that had left and whose answer never came: a time-out, a connection that broke, a stop.

        The provider may have billed them; they are in no cost and no usage here, and ``max_cost`` counts the most that each may have cost.
        """
        return sum(self.outcomes.lost.values())

    def reasons(self) -> list[tuple[str, int, str]]:
        """Why tasks failed so far: (kind, how many, the message of the first), the most frequent kind first. Cheap while it runs."""
        found: dict[str, list[Any]] = {}
        for error in list(self.outcomes.errors.values()):  # in one step: the loop goes on adding to it
            found.setdefault(error.kind, [0, error])[0] += 1
        return [(kind, count, str(first)) for kind, (count, first) in sorted(found.items(), key=lambda one: -one[1][0])]

    @property
    def retries(self) -> int:
        """Attempts beyond the first of each task that is settled."""
        attempts = np.asarray(self.outcomes.attempts)[: len(self.outcomes)]
        return int(np.maximum(attempts, 1).sum(dtype=np.int64)) - len(attempts)

    def status(self, refresh: bool = False) -> Any:
        """How far the jobs of a batch run (``batch=True``) are; a live run has none."""
        raise Unsupported("this run has no batch jobs; progress() tells how far it is")

    def history(self) -> Any:
        """How the run was paced, a line a second and model.

        Returns
        -------
        DataFrame
            ``seconds`` since it began, ``model``, ``window`` (requests that might be in flight: grown while answers come, cut by refusals),
            ``in_flight``, ``waiting``, ``requests_per_minute`` (sent since the line before) and ``refused`` (429s so far).
            ``llmkit.reports.plot_history`` draws it.
        """
        return self._shape.history(self)

    def view(self, rows: int = 50) -> Any:
        """What was extracted beside the text it was read from, as a static page: a notebook shows it, ``.save(path)`` writes it.

        With ``evidence=True`` the places that values were read from are marked in the text. Rows that failed say why.
        """
        return self._told("view")(self, rows)

    def report(self) -> Any:
        """What was extracted, a line a field: how often it is there, its values, what failed, what it cost. ``.plot()`` draws the frame."""
        return self._told("report")(self)

    def _told(self, what: str) -> Callable[..., Any]:
        tell: Callable[..., Any] | None = getattr(self._shape, what, None)
        if tell is None:
            raise Unsupported(f"{self.operation} has no {what}(); what df.llm.extract returns has")
        return tell

    def tasks(self) -> Iterator[Outcome]:
        """What became of each task, in the order of the rows that asked first."""
        return (self.outcomes.at(task, self.targets) for task in range(len(self.outcomes)))

    def retry(self) -> Run[T]:
        """Send the failed rows again, and those a stop left over; the finished ones stay. Returns this run, begun anew."""
        if not self.done:
            raise ConfigError("the run is still going; retry() is for afterwards")
        assert self._work is not None
        self.outcomes.forget_failures()
        self._began, self._ended, self._drawn = time.monotonic(), None, False
        self._start()
        return self

    def __repr__(self) -> str:
        outcomes = self.outcomes
        state = "running" if not self.done else "stopped" if self.stopped else "done"
        models = self._between.join(self.models)
        return (
            f"<Run {self.id} {self.operation} {models}: {state}, {outcomes.rows_done:,} of {outcomes.rows:,} rows, "
            f"{outcomes.rows_failed:,} errors, {outcomes.rows_stored:,} stored>"
        )

    def _through(self) -> int:
        """Rows that a bar counts as done."""
        return self.outcomes.rows_done + self.outcomes.rows_failed

    def _facts(self) -> Mapping[str, Any]:
        """What stands beside a bar."""
        p = self.progress()
        return {
            "errors": p.errors,
            "stored": p.stored,
            "tokens": f"{p.tokens:,}",
            "cost": "?" if p.cost is None else f"${p.cost:.4f}",
        }

    def _title(self) -> str:
        return f"{self.operation} {self.targets[0]}{self._note}"

    def summary(self) -> str:
        """One line: what was asked of whom, how it went, what it cost."""
        p = self.progress()
        cost = "cost unknown" if p.cost is None else f"${p.cost:,.4f}"
        rate = p.done / p.seconds if p.seconds > 0 else 0.0
        said = f"{self.operation} with {self._between.join(self.models)}{self._note}: {p.done:,} of {p.rows:,} rows"
        parts = [said, f"{p.errors:,} errors", f"{p.stored:,} stored", f"{p.tokens:,} tokens", cost, f"{rate:,.0f} rows/s"]
        return ", ".join(parts)


class Begun:
    """The runs that go on in this process, and who wants to hear of each that begins."""

    def __init__(self) -> None:
        #: By identity, in the order they began; one that ended takes itself out.
        self.running: dict[int, Run[Any]] = {}
        self.listeners: list[Callable[[Run[Any]], Any]] = []
        event_loop.on_fork(self.forget)

    def add(self, run: Run[Any]) -> None:
        self.running[id(run)] = run
        if run.done:  # before it was listed
            self.running.pop(id(run), None)
        for listener in list(self.listeners):
            try:
                listener(run)
            except Exception as error:  # what somebody looks at must not stop what is looked at
                warnings.warn(f"llmkit: a listener for runs raised {type(error).__name__}", RuntimeWarning, stacklevel=to_the_caller())

    def forget(self) -> None:
        self.running, self.listeners = {}, []


begun = Begun()


def to_the_caller() -> int:
    """The stack level of the first frame outside this package: a warning points at the user's own line."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == __package__:
        frame, level = frame.f_back, level + 1
    return level


class Bar:
    """One tqdm bar that moves per row. Its text holds counts only: never a prompt or an answer, which would be HTML in a notebook."""

    def __init__(self, run: Run[Any]) -> None:
        with warnings.catch_warnings():
            # tqdm.auto warns in every notebook without ipywidgets; the text bar it falls back to is what is wanted there.
            warnings.simplefilter("ignore")
            from tqdm.auto import tqdm

        self._run = run
        self._shown = 0
        self._bar = tqdm(total=run.rows, desc=run._title(), unit="row", mininterval=0.1)

    def draw(self) -> None:
        self._bar.set_postfix(self._run._facts(), refresh=False)
        if self._bar.total != self._run.rows:
            self._bar.total = self._run.rows
        now = self._now()
        self._bar.update(now - self._shown)
        self._shown = now

    def _now(self) -> int:
        return self._run._through()

    def close(self) -> None:
        self.draw()
        self._bar.update(self._run.unasked)  # rows with nothing to ask are through as well
        self._bar.close()
