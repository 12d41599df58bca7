"""Work that takes several runs: one thing to wait for, to watch and to stop, and one bar."""

from __future__ import annotations

import asyncio
import secrets
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pandas as pd

from ..errors import Cancelled, ConfigError, LLMError
from ..event_loop import apart
from ..outcomes import Outcomes
from ..run import Run, to_the_caller
from ..session import Session
from ..types import Progress, Usage

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
        US dollars for all of them.
    note : str
        Beside the name, e.g. how many requests there will be.
    """

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
        self.runs: list[tuple[str, Run[Any]]] = []
        self.so_far: Callable[[], Any] = lambda: None
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
            self._made = await apart(self._steps, self)
        except asyncio.CancelledError:
            self._cancelled = Cancelled("not sent: the run was stopped before this row")
            for _, run in self.runs:
                run.cancel()
        except Cancelled as error:
            self._cancelled = error

    # ----------------------------------------------------------------------------------------------------- for the steps

    def expect(self, rows: int) -> None:
        """So many rows are asked for in all, as far as is known now."""
        self._rows = rows

    def room(self) -> float | None:
        """US dollars that are left for the next run."""
        return None if self._max_cost is None else max(0.0, self._max_cost - (self.cost or 0.0))

    def follow(self, *runs: Run[Any], step: str = "") -> list[Any]:
        """Wait for runs that go on side by side, and hand back what each made, failed rows missing.

        Raises
        ------
        LLMError
            Why one of them was stopped for all its rows; the others have ended by then.
        """
        for run in runs:
            self.runs.append((step or run.operation, run))
        self._session.last_run = self
        for run in runs:
            if self._cancelled is not None:
                run.cancel()
            run.wait()
        if self._cancelled is not None:
            raise self._cancelled
        return [run.partial() for run in runs]

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
        if stopped is not None and (self._on_error == "raise" or not isinstance(stopped, Cancelled)) and self._made is None:
            raise stopped
        for _, run in self.runs:
            notes, run.outcomes.notes = run.outcomes.notes, []
            for note in notes:
                warnings.warn(f"llmkit: {note}", stacklevel=to_the_caller())
            if self._on_error == "raise" and run.outcomes.errors:
                raise run.outcomes.errors[min(run.outcomes.errors)]
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
            tokens=sum(part.tokens for part in parts),
            cost=self.cost,
            seconds=end - self._began,
        )

    @property
    def cost(self) -> float | None:
        costs = [run.cost for _, run in self.runs]
        return None if None in costs else sum(cost for cost in costs if cost is not None)

    def usage(self) -> Usage:
        return sum((run.usage() for _, run in self.runs), Usage())

    @property
    def possibly_billed(self) -> int:
        return sum(run.possibly_billed for _, run in self.runs)

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
