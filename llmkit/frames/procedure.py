"""Work that takes several runs: one thing to wait for, to watch and to stop, and one bar."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, TypeVar

import pandas as pd

from ..errors import Cancelled, ConfigError, LLMError
from ..event_loop import apart, to_the_end
from ..outcomes import Outcomes
from ..run import Run
from ..session import Session, part_of_another
from ..types import Outcome, Progress, Usage

__all__ = ["Procedure"]

T = TypeVar("T")


class Procedure(Run[T]):
    """Several runs that make one result; its rows, errors and cost are theirs added up.

    ``steps`` runs in a thread of its own. It starts runs with ``wait=False`` and hands each to ``follow``, which blocks until it ended; it
    sets ``so_far`` to a function where there is something to show before the end.

    Parameters
    ----------
    session : Session
        Whose ``last()`` this becomes.
    operation : str
        Names it to the user.
    targets : sequence of str
        The models that are asked.
    steps : callable
        ``steps(procedure) -> result``.
    rows : int
        Rows that all runs together are expected to ask for; ``expect`` corrects it.
    max_cost : float, optional
        US dollars for all of them; ``room`` says what is left, which the steps hand on.
    on_error : {"keep", "raise"}
        Whether the first failed row's reason is raised, once all is kept.
    note : str
        Beside the name, e.g. how many requests there will be.
    """

    #: Its models are asked side by side or in turn; none stands in for another.
    _between = ", "

    def __init__(
        self,
        session: Session,
        operation: str,
        targets: Sequence[str],
        steps: Callable[[Procedure[T]], T],
        rows: int,
        *,
        max_cost: float | None = None,
        on_error: str = "keep",
        show_progress: bool = True,
        note: str = "",
    ) -> None:
        super().__init__(
            id=time.strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(3),
            operation=operation,
            targets=targets,
            prices=(),
            outcomes=Outcomes(0),
            shape=_NoShape(),
            on_error=on_error,
            show_progress=show_progress,
            note=note,
        )
        #: The runs so far, each with the name of its step.
        self.runs: list[tuple[str, Run[Any]]] = []
        #: What is shown before the end, or in its place where there was none.
        self.so_far: Callable[[], Any] = lambda: None
        #: Whether each run warns for itself; ``False`` where the steps tell of all together what became of them.
        self.each_tells = True
        #: Runs in whose place another one asks for the same: what was billed for them counts, and nothing else.
        self.replaced: list[Run[Any]] = []
        self._session = session
        self._steps = steps
        self._rows = rows
        self._max_cost = max_cost
        self._made: Any = None
        self._cancelled: LLMError | None = None

    def start(self) -> Procedure[T]:
        """Begin; returns at once."""
        self._session.last_run = self
        self.begin(self._go_through)
        return self

    async def _go_through(self) -> None:
        try:
            self._made = await apart(self._in_steps)
        except asyncio.CancelledError:
            self._cancelled = Cancelled("not sent: the run was stopped before this row")
            for _, run in self.runs:
                run.cancel()
            # Answers are on their way to the disk, and are counted where it is said what was kept. The steps themselves are not waited
            # for: they may be computing, and find out when they ask for the next run.
            await to_the_end(self._all_ended())
        except Cancelled as error:
            self._cancelled = error

    def _in_steps(self) -> T:
        part_of_another.set(True)  # in the context of this thread only
        made = self._steps(self)
        said = [note for one in (self, *(run for _, run in self.runs)) for note in one.outcomes.notes]
        for step, run in self.runs:
            # The steps went on without it: that is their business, and to be known of.
            if run.stopped is not None and not any(str(run.stopped) in note for note in said):
                why = str(run.stopped)
                self.note(why if why.startswith(f"{step}:") else f"{step}: {why}")
        return made

    async def _all_ended(self) -> None:
        ending = [asyncio.wrap_future(run._running.future) for _, run in self.runs if run._running is not None]
        if ending:
            await asyncio.wait(ending)

    # ----------------------------------------------------------------------------------------------------- for the steps

    def expect(self, rows: int) -> None:
        """So many rows are asked for in all, as far as is known now."""
        self._rows = rows

    def room(self) -> float | None:
        """US dollars that are left for the next run."""
        return None if self._max_cost is None else max(0.0, self._max_cost - (self.cost or 0.0))

    def follow(self, *runs: Run[Any], step: str = "", steps: Sequence[str] = (), instead_of: Run[Any] | None = None) -> list[Any]:
        """Wait for runs that go on side by side, and hand back what each made, failed rows missing.

        A run that was refused as a whole (``run.stopped``) ends alone: the steps look at it and say what becomes of the rest.

        Parameters
        ----------
        step : str
            What ``errors()`` calls all of them; by default each its operation.
        steps : sequence of str
            What it calls each.
        instead_of : Run, optional
            One that was stopped, whose rows are asked for once more; what it found is in the store.

        Raises
        ------
        Cancelled
            The procedure was stopped; its runs have ended by then.
        """
        names = steps or [step or run.operation for run in runs]
        listed = [*self.runs, *zip(names, runs, strict=True)]
        self.runs = [(name, run) for name, run in listed if run is not instead_of]
        self.replaced += [] if instead_of is None else [instead_of]
        # Looked at after they are listed: a stop that comes in between finds them there.
        if self._cancelled is not None:
            for run in runs:
                run.cancel()
        for run in runs:
            run.wait()
        if self._cancelled is not None:
            raise self._cancelled
        return [run.partial() for run in runs]

    def note(self, text: str) -> None:
        """Something that the user should know of the way it went: a sentence, warned of at the end."""
        self.outcomes.notes.append(text)

    # ----------------------------------------------------------------------------------------------------------- looking

    @property
    def rows(self) -> int:
        return max(self._rows, sum(run.outcomes.rows for _, run in self.runs))

    @property
    def unasked(self) -> int:
        return self.rows - sum(run.outcomes.rows_done + run.outcomes.rows_failed for _, run in self.runs) if self.done else 0

    @property
    def stopped(self) -> LLMError | None:
        return self._cancelled or next((run.stopped for _, run in self.runs if run.stopped is not None), None)

    def _handed_back(self) -> T:
        assert self._running is not None
        self._running.future.result()  # what the steps raised
        stopped = self.stopped
        if stopped is not None and (self._on_error == "raise" or (self._made is None and not isinstance(stopped, Cancelled))):
            stopped.add_note(self._kept())
            raise stopped
        for _, run in self.runs if self._on_error == "raise" else ():
            error = run._first_error()
            if error is not None:
                error.add_note(self._kept())
                raise error
        self._tell()
        for _, run in self.runs if self.each_tells else ():
            run._tell()
        return self.partial()

    def partial(self) -> T:
        made: T = self._made if self._made is not None else self.so_far()
        return made

    def _kept(self) -> str:
        return f"llmkit: {self.progress().done:,} answers are kept: the same call again sends only the rest."

    def progress(self) -> Progress:
        parts = [run.progress() for _, run in self.runs]
        end = self._ended if self._ended is not None else time.monotonic()
        return Progress(
            rows=self.rows,
            done=sum(part.done for part in parts),
            errors=sum(part.errors for part in parts),
            stored=sum(part.stored for part in parts),
            tokens=sum(run.progress().tokens for run in self.replaced) + sum(part.tokens for part in parts),
            cost=self.cost,
            seconds=end - self._began,
        )

    def _through(self) -> int:
        p = self.progress()
        return p.done + p.errors

    @property
    def cost(self) -> float | None:
        costs = [run.cost for run in self._billed()]
        return None if None in costs else sum(cost for cost in costs if cost is not None)

    def tasks(self) -> Iterator[Outcome]:
        return chain.from_iterable(run.tasks() for _, run in self.runs)

    def usage(self) -> Usage:
        return sum((run.usage() for run in self._billed()), Usage())

    @property
    def possibly_billed(self) -> int:
        return sum(run.possibly_billed for run in self._billed())

    def _billed(self) -> list[Run[Any]]:
        return [*self.replaced, *(run for _, run in self.runs)]

    def reasons(self) -> list[tuple[str, int, str]]:
        found: dict[str, tuple[int, str]] = {}
        for _, run in self.runs:
            for kind, count, example in run.reasons():
                before = found.get(kind, (0, example))
                found[kind] = (before[0] + count, before[1])
        return [(kind, count, example) for kind, (count, example) in sorted(found.items(), key=lambda one: -one[1][0])]

    @property
    def retries(self) -> int:
        return sum(run.retries for _, run in self.runs)

    def errors(self) -> pd.DataFrame:
        """The failed rows of all runs and why, with the ``step`` and ``model`` each belongs to."""
        found: list[pd.DataFrame] = [run.errors().assign(step=step, model=" > ".join(run.targets)) for step, run in self.runs]
        filled = [frame for frame in found if len(frame)]
        if filled:
            return pd.concat(filled, ignore_index=True)
        return found[0] if found else pd.DataFrame(columns=["row", "index", "kind", "error", "attempts", "step", "model"])

    def history(self) -> pd.DataFrame:
        found = [run.history() for _, run in self.runs]
        return pd.concat(found, ignore_index=True) if found else pd.DataFrame()

    def retry(self) -> Run[T]:
        raise ConfigError(f"call {self.operation} again: what is answered is stored, and only the rest is sent")

    def _title(self) -> str:
        more = len(dict.fromkeys(self.targets)) - 1
        return f"{self.operation} {self.targets[0]}{f' and {more} more' if more else ''}{self._note}"

    def __repr__(self) -> str:
        state = "running" if not self.done else "stopped" if self.stopped else "done"
        p = self.progress()
        return f"<Run {self.id} {self.operation} {', '.join(self.targets)}: {state}, {p.done:,} of {p.rows:,} rows, {p.errors:,} errors>"

    def finish(self, wait: bool) -> Any:
        """The result, or with ``wait=False`` this run; Ctrl-C stops it."""
        try:
            return self.result() if wait else self
        except KeyboardInterrupt:
            self.cancel()
            raise


class _NoShape:
    def result(self, run: Run[Any]) -> Any:
        return None

    def errors(self, run: Run[Any]) -> Any:
        return None

    def history(self, run: Run[Any]) -> Any:
        return None
