"""Where runs and streams tell an onlooker what they do: one slot, empty unless ``llmkit.trace`` filled it.

A protocol and a slot, so that nothing down here knows OpenTelemetry; what stands in the slot is made in ``telemetry.py``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from ..adapter import Target
from ..errors import LLMError
from ..types import Limits, Reply

if TYPE_CHECKING:
    from .engine import Plan
    from .retry import Ticket
    from .streaming import Told, Wish

__all__ = ["Answered", "RunTrace", "StreamTrace", "Tracer", "watching"]

#: What ``exchange`` hands back.
Answered = tuple[list[Reply | LLMError], Limits | None]


class RunTrace(Protocol):
    """One run as it is seen from outside."""

    async def asked(self, batch: Sequence[Ticket], target: Target, send: Callable[[], Awaitable[Answered]]) -> Answered:
        """Await ``send()``, one attempt of ``batch`` at ``target``, and note how it went."""

    def gave_up(self, batch: Sequence[Ticket]) -> None:
        """No model answered ``batch``, and it is not tried again."""


class StreamTrace(Protocol):
    """One answer in pieces as it is seen from outside."""

    def spoke(self) -> None:
        """A piece came."""

    def end(self, error: str | None) -> None:
        """It is over, for this reason where it did not come to its end."""


class Tracer(Protocol):
    """Who looks on."""

    def run(self, plan: Plan) -> AbstractContextManager[RunTrace]:
        """Look on at one run from here to the end of the ``with``."""

    def stream(self, wish: Wish, told: Told) -> StreamTrace: ...


class _Slot:
    """A run reads it once, at its beginning: a change in mid run is for the next one."""

    tracer: Tracer | None = None


watching = _Slot()
