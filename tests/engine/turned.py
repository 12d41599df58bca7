"""A session that lives by a hand-turned clock, which stands still while a request is on its way: waits of hours in milliseconds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from llmkit import event_loop, session
from llmkit.testing import ManualClock

__all__ = ["carried_out", "made"]


def made() -> ManualClock:
    """The clock of a new shared session."""
    clock = ManualClock()
    session.default.made = session.Session(clock=clock)
    return clock


def carried_out(run: Any, clock: ManualClock, meanwhile: Callable[[], None] = lambda: None) -> Any:
    """The run, once it has ended; ``meanwhile`` is called between any two steps, on the loop."""

    async def turn() -> None:
        while not run.done:
            await asyncio.sleep(0)
            meanwhile()
            accounts = session.default().engine._accounts.values()
            if clock.next_alarm is not None and not any(account.limiter.in_flight for account in accounts):
                clock.advance(max(0.0, clock.next_alarm - clock.now()))

    event_loop.call(turn)
    return run
