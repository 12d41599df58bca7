"""A run that travels as a vendor's batch jobs: it is waited for in hours, outlives its process, and is stopped at the vendor."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol, TypeVar

from . import event_loop
from .errors import BadInput, ConfigError
from .run import Bar, Run

__all__ = ["JobRun", "Work"]

T = TypeVar("T")

#: Seconds that ``status(refresh=True)`` waits for the provider at the most.
_REFRESH_SECONDS = 10.0


class Work(Protocol):
    """What the run's jobs are doing: see ``engine.jobs.Overnight``."""

    doing: str
    submitted: bool
    stopping: bool

    @property
    def there(self) -> int:
        """Requests that the vendor has done and that are not here yet."""

    @property
    def open(self) -> bool:
        """Whether something may still come of the jobs, as far as is known here."""

    def stop(self) -> Coroutine[Any, Any, None]: ...

    async def look_now(self, seconds: float) -> None:
        """Look at all jobs now, and wait for that so many seconds at the most."""


class JobRun(Run[T]):
    """What one call by batch jobs is doing. It goes on at the provider whatever becomes of this process.

    ``result()`` and ``wait()`` may take 24 hours and be interrupted at any time: that stops the waiting, and nothing else. The same call
    again, or ``llmkit.job(run.id)``, takes it up in any process. An answer is paid by the run that takes it in: of several that wait for
    one job, in this process or others, the others count it as stored in ``usage()`` and ``cost``.
    """

    #: Set by the session.
    work: Work
    table: Callable[[], Any]
    live: Callable[[], Any] | None = None

    def status(self, refresh: bool = False) -> Any:
        """How far the jobs are, as the provider said when it was last asked.

        Parameters
        ----------
        refresh : bool
            Ask now, and wait for that ten seconds at the most. Where the provider does not answer, ``looked`` stays what it was.

        Returns
        -------
        DataFrame
            A row for each job at the provider: ``run`` (that submitted it), ``part``, ``id`` (the provider's), ``state`` (the provider's
            word, once it has one), ``requests``, ``done``, ``failed``, ``created``, ``expires``, ``looked`` (when the provider said so),
            ``note`` (what keeps it from going on).
        """
        if refresh and not self.done:
            event_loop.call(self.work.look_now, _REFRESH_SECONDS)
        return self.table()

    def submitting(self) -> JobRun[T]:
        """Block until all is submitted that can be for now; Ctrl-C stops what is not submitted yet."""
        assert self._running is not None
        bar = _Submitting(self) if self._show_progress else None
        try:
            while not self.work.submitted and not event_loop.settle(self._running.future, event_loop.SLICE):
                if bar is not None:
                    bar.draw()
        except BaseException:
            self._running.cancel()
            event_loop.settle(self._running.future, 0.8)
            print(  # noqa: T201 - said to a person at a keyboard
                f"llmkit: stopped. Jobs that were submitted go on at the provider: llmkit.job({self.id!r}).cancel() stops them, and the "
                "same call again takes them up and submits the rest.",
                file=sys.stderr,
            )
            raise
        finally:
            if bar is not None:
                bar.close()
        if self.done:
            self._raise_what_stopped_it()
        self._tell_notes()
        return self

    def _let_go(self, seconds: float = 0.8) -> str:
        if not self._is_overnight:
            return super()._let_go(seconds)
        return (
            f"llmkit: no longer waited for; the jobs go on at the provider. llmkit.last().result() waits again, llmkit.job({self.id!r}) "
            "does in any process, and .cancel() stops them."
        )

    def cancel(self) -> None:
        """Cancel the jobs at the provider: what was answered by then is billed and still taken in, nothing more is submitted. Returns at
        once; the run ends when the provider says so."""
        if self._is_overnight:
            if self.done and self.work.open:
                raise ConfigError(f"this run no longer looks after its jobs; llmkit.job({self.id!r}).cancel() stops them")
            event_loop.start(self.work.stop)
        else:
            super().cancel()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until all is taken in, or ``timeout`` seconds have passed; whether it is. Ctrl-C stops the waiting alone."""
        assert self._running is not None
        bar = Bar(self) if self._show_progress and not self.done else None
        began = time.monotonic()
        try:
            while not event_loop.settle(self._running.future, event_loop.SLICE):
                if bar is not None:
                    bar.draw()
                if timeout is not None and time.monotonic() - began >= timeout:
                    return False
            return True
        finally:
            if bar is not None:
                bar.close()

    def retry(self, *, batch: bool = False) -> Run[T]:
        """Send the failed rows again, and those that no job got to; the finished ones stay. Returns this run, begun anew.

        Parameters
        ----------
        batch : bool
            ``False`` asks them live, at the live price, along the whole route of models, and again where an answer is not valid; ``True``
            submits a next job.
        """
        if not isinstance(batch, bool):
            raise BadInput(f"batch is True or False, not {batch!r}")
        if self.live is None:
            raise ConfigError("the rows themselves are not here: make the same call again, which sends only what has no answer")
        self._work, self.work.stopping = self._overnight if batch else self.live, False
        return super().retry()

    def begin(self, work: Callable[[], Any]) -> None:
        self._overnight = work
        super().begin(work)

    @property
    def _is_overnight(self) -> bool:
        return self._work is self._overnight

    def _through(self) -> int:
        return min(self.rows, super()._through() + (self.work.there if self._is_overnight else 0))

    def _facts(self) -> Mapping[str, Any]:
        doing = self.work.doing if self._is_overnight else ""
        return {**super()._facts(), **({"now": doing} if doing else {})}


class _Submitting(Bar):
    """The bar while rows are written into files and these are submitted: it counts the rows that were looked at."""

    def _now(self) -> int:
        return min(self._run.rows, len(self._run.outcomes))
