"""An answer in pieces, for ``for`` and for ``async for``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator
from typing import Protocol

from . import event_loop
from .errors import ConfigError
from .types import Usage

__all__ = ["Stream"]


class Told(Protocol):
    """What is known of the answer so far; the engine fills it in."""

    text: str
    target: str | None
    usage: Usage
    cost: float | None
    finish: str | None


class Stream:
    """The pieces of one answer, as they come.

    Iterate over it once, with ``for`` or ``async for``. Leaving the loop early closes the connection.

    Attributes
    ----------
    text : str
        All that was said so far.
    model : str or None
        ``"provider/model"`` that answers.
    finish : str or None
        Why the answer ended; ``"length"`` is a cut.
    usage : Usage
        What was billed, models included that broke off before this one.
    cost : float or None
        US dollars; ``None`` is unknown.
    """

    def __init__(self, begin: Callable[[], AsyncIterator[str]], told: Told) -> None:
        self._begin = begin
        self._told = told
        self._pieces: AsyncIterator[str] | None = None
        self._begun = False
        self._turn = asyncio.Lock()

    @property
    def text(self) -> str:
        return self._told.text

    @property
    def model(self) -> str | None:
        return self._told.target

    @property
    def finish(self) -> str | None:
        return self._told.finish

    @property
    def truncated(self) -> bool:
        """Whether the answer was cut at a limit."""
        return self._told.finish == "length"

    @property
    def usage(self) -> Usage:
        return self._told.usage

    @property
    def cost(self) -> float | None:
        return self._told.cost

    def __repr__(self) -> str:
        return f"<Stream of {self.model or 'an answer'}: {len(self.text):,} characters so far, {self.finish or 'not at its end'}>"

    def _open(self) -> None:
        if self._begun:
            raise ConfigError("the pieces of an answer come once; .text has them together. To ask again, call llmkit.stream again")
        self._begun = True

    async def _next(self) -> str | None:
        # One at a time: after an interrupt the piece that was under way ends before the answer is closed.
        async with self._turn:
            if self._pieces is None:
                self._pieces = self._begin()
            return await anext(self._pieces, None)

    async def _end(self) -> None:
        async with self._turn:
            if self._pieces is not None:
                await self._pieces.aclose()  # type: ignore[attr-defined]

    def __iter__(self) -> Generator[str, None, None]:
        self._open()
        try:
            while (piece := event_loop.call(self._next)) is not None:
                if piece:
                    yield piece
        finally:
            event_loop.call(self._end)

    async def __aiter__(self) -> AsyncIterator[str]:
        self._open()
        try:
            while True:
                running = event_loop.start(self._next)
                try:
                    piece = await event_loop.wait_in(running.future)
                except asyncio.CancelledError:
                    running.cancel()
                    raise
                if piece is None:
                    return
                if piece:
                    yield piece
        finally:
            await event_loop.wait_in(event_loop.start(self._end).future)
