"""For tests of code that uses llmkit: a clock that is turned by hand."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

__all__ = ["ManualClock"]


class _Alarm:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class ManualClock:
    """Time that stands still until ``advance`` is called; limiters, back-offs and deadlines live by it when a session is given one.

    Examples
    --------
    >>> clock = ManualClock()
    >>> rung = []
    >>> _ = clock.call_at(5.0, lambda: rung.append(clock.now()))
    >>> clock.advance(10.0)
    >>> rung, clock.now()
    ([5.0], 10.0)
    """

    def __init__(self, now: float = 0.0) -> None:
        self._now = now
        self._alarms: list[tuple[float, int, _Alarm]] = []
        self._order = itertools.count()

    def now(self) -> float:
        return self._now

    def call_at(self, when: float, callback: Callable[[], None]) -> _Alarm:
        alarm = _Alarm(callback)
        heapq.heappush(self._alarms, (when, next(self._order), alarm))
        return alarm

    @property
    def next_alarm(self) -> float | None:
        """When the next callback is due, ``None`` where none waits."""
        while self._alarms and self._alarms[0][2].callback is None:
            heapq.heappop(self._alarms)
        return self._alarms[0][0] if self._alarms else None

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass; callbacks that fall due run in order, each at its own moment."""
        until = self._now + seconds
        while (due := self.next_alarm) is not None and due <= until:
            _, _, alarm = heapq.heappop(self._alarms)
            callback, alarm.callback = alarm.callback, None
            self._now = max(self._now, due)
            if callback is not None:
                callback()
        self._now = until
