"""What the panels about runs share: they hear of runs while somebody looks, and cost nothing otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llmkit

from .panel import Panel, action

__all__ = ["Following"]


class Following(Panel):
    """A panel that follows the runs of this process while a view of it is open.

    Nothing polls: a run that begins is told of by ``llmkit.on_run``, one that goes on by its own ``watch``, which ends with it. Without a
    view, and without a run, nothing happens at all.
    """

    _views = 0
    _stop_hearing: Callable[[], None] | None = None

    def __init__(self) -> None:
        self._followed: set[int] = set()
        super().__init__()

    def refresh(self) -> None:
        """Read the journal anew and show it."""
        raise NotImplementedError

    def moved(self, run: llmkit.Run[Any]) -> None:
        """A run that is followed moved on, or ended (``run.done``); called at most ten times a second, in a thread of its own."""
        raise NotImplementedError

    def let_go(self, run: llmkit.Run[Any]) -> None:
        """A run that was followed ended while nobody looked."""

    @action
    def shown(self) -> None:
        """A view was opened: follow what runs."""
        with self._lock:
            self._views += 1
            if self._views == 1:
                self._stop_hearing = llmkit.on_run(self._follow)
        for run in llmkit.running():
            self._follow(run)
        self.apart(self.refresh)

    @action
    def hidden(self) -> None:
        """A view was closed; after the last one nothing is followed."""
        with self._lock:
            self._views = max(0, self._views - 1)
            if not self._views:
                self._hear_no_more()

    def close(self) -> None:
        self._views = 0
        self._hear_no_more()
        super().close()

    def _hear_no_more(self) -> None:
        stop, self._stop_hearing = self._stop_hearing, None
        if stop is not None:
            stop()

    def _follow(self, run: llmkit.Run[Any]) -> None:
        with self._lock:
            if id(run) in self._followed:
                return
            self._followed.add(id(run))
        run.watch(lambda progress: self._look(run))

    def _look(self, run: llmkit.Run[Any]) -> None:
        if run.done:
            self._followed.discard(id(run))
        if self._views:
            self.moved(run)
        elif run.done:
            self.let_go(run)
