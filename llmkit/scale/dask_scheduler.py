"""What a cluster's scheduler does for llmkit: it holds the buckets, knows which chunks began, and passes on who is to stop.

Everything here travels by the scheduler's own RPC as plain numbers and names. What was asked, what was answered and which key was used
never comes here: an account is a fingerprint that is keyed with bytes made for this cluster.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from distributed import SchedulerPlugin

from .buckets import Buckets, Lease

__all__ = ["NAME", "SPEAKS", "Desk", "call"]

NAME = "llmkit"
#: Counted up when what travels between workers and the scheduler changes. A version says what is installed, this what is loaded: a
#: scheduler that runs on after llmkit was changed under it would give out leases that new workers cannot read.
SPEAKS = 3
#: Seconds that a worker's question for a lease is held; then it asks anew, and nothing piles up for workers that are gone.
_HELD = 5.0
#: A run of which nobody has heard for so long is forgotten.
_FORGOTTEN = 3600.0


@dataclass(slots=True)
class _Run:
    client: str
    heard: float
    stopped: bool = False
    #: Tasks that began, by their names: one that begins again has lost its worker.
    begun: set[str] = field(default_factory=set)
    #: Counts of the tasks that are under way, by their names.
    counts: dict[str, list[Any]] = field(default_factory=dict)


class Desk(SchedulerPlugin):  # type: ignore[misc]
    """The plugin that a client puts on the scheduler; a second client finds the first one's."""

    name = NAME
    idempotent = True

    async def start(self, scheduler: Any) -> None:
        self._version = version("llmkit")
        self._salt = secrets.token_bytes(32)
        self._buckets = Buckets()
        self._runs: dict[str, _Run] = {}
        handlers = (self.llmkit_open, self.llmkit_stop, self.llmkit_progress, self.llmkit_begin, self.llmkit_beat, self.llmkit_end)
        for handler in (*handlers, self.llmkit_lease, self.llmkit_refused):
            scheduler.handlers[handler.__name__] = handler

    def remove_client(self, scheduler: Any, client: str) -> None:
        # Nobody waits for its answers any more; what is paid for is in the journals, and the same call goes on from there.
        for run in self._runs.values():
            if run.client == client:
                run.stopped = True

    # --------------------------------------------------------------------------------------------------------- for clients

    def llmkit_open(self, run: str, client: str) -> dict[str, Any]:
        now = time.monotonic()
        self._runs = {name: one for name, one in self._runs.items() if now - one.heard < _FORGOTTEN}
        self._runs[run] = _Run(client, now)
        return {"version": self._version, "speaks": SPEAKS}

    def llmkit_stop(self, run: str) -> None:
        if run in self._runs:
            self._runs[run].stopped = True

    def llmkit_progress(self, run: str) -> dict[str, list[Any]]:
        """Counts of the tasks of a run that are under way."""
        one = self._runs.get(run)
        if one is None:
            return {}
        one.heard = time.monotonic()
        return one.counts

    # --------------------------------------------------------------------------------------------------------- for workers

    def llmkit_begin(self, run: str, task: str) -> dict[str, Any]:
        """Whether a task is to stop, and whether a worker had begun it before, which then has died."""
        one = self._runs.get(run)
        if one is None:
            return {"stop": True, "again": False, "salt": self._salt, "speaks": SPEAKS}
        again = task in one.begun
        one.begun.add(task)
        one.heard = time.monotonic()
        return {"stop": one.stopped, "again": again, "salt": self._salt, "speaks": SPEAKS}

    def llmkit_beat(self, run: str, task: str, counts: list[Any], told: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
        """Take a task's counts and what its worker learned of the limits of its accounts; hand back what all learned."""
        one = self._runs.get(run)
        if one is not None:
            one.heard = time.monotonic()
            one.counts[task] = counts
        for account, limits in told.items():
            self._buckets.told.setdefault(account, {}).update(limits)
        known = {account: [self._buckets.told.get(account, {}), self._buckets.paused(account)] for account in told}
        return {"stop": one is None or one.stopped, "known": known}

    def llmkit_end(self, run: str, task: str) -> None:
        if run in self._runs:
            self._runs[run].counts.pop(task, None)

    async def llmkit_lease(self, account: str, worker: str, least: float) -> list[float] | None:
        """[begins, ends, at] as a ``Lease`` has them, once there is room for one; ``None`` where none comes for seconds."""
        waited = 0.0
        while not isinstance(found := self._buckets.lease(account, worker, least), Lease):
            if waited >= _HELD:
                return None
            wait = min(found, _HELD)
            waited += wait
            await asyncio.sleep(wait)
        return [found.begins, found.ends, found.at]

    def llmkit_refused(self, account: str, seconds: float | None) -> None:
        self._buckets.refuse(account, seconds)


def call(scheduler: Any, name: str, **arguments: Any) -> Any:
    """The coroutine of one of these, for a worker's or a client's RPC to its scheduler."""
    return getattr(scheduler, f"llmkit_{name}")(**arguments)
