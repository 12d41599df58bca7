"""One pretend provider for the whole suite, and a clock that waits for nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llmkit import Session, session
from tests.loopback import Loopback


class Hurried:
    """Time that jumps to whatever is waited for: what a vendor asks us to wait costs the suite nothing, and is told by ``ahead``."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> float:
        return time.monotonic() + self.ahead

    def call_at(self, when: float, callback: Callable[[], None]) -> asyncio.Handle:
        self.ahead += max(0.0, when - self.now())
        return asyncio.get_running_loop().call_soon(callback)


@pytest.fixture(scope="package")
def _loopback() -> Iterator[Loopback]:
    with Loopback() as loopback:
        yield loopback


@pytest.fixture
def server(_loopback: Loopback) -> Loopback:
    """The pretend provider as it is at first: nothing seen, no faults, no knob turned."""
    _loopback.clear_faults()
    _loopback.reset()
    _loopback.cached_tokens = _loopback.cache_write_tokens = 0
    _loopback.shuffle_embeddings = False
    _loopback.key = _loopback.answer = _loopback.refuse = _loopback.corrupt_embeddings = None
    return _loopback


@pytest.fixture(scope="session")
def _shared_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("answers")


@pytest.fixture(autouse=True)
def _one_store(_surroundings: None, _shared_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To make a store takes longer than to ask, so there is one, and nobody reads it; a test that does asks for ``cache_dir``."""
    monkeypatch.setenv("LLMKIT_CACHE_DIR", str(_shared_store))


@pytest.fixture
def clock(_surroundings: None) -> Hurried:
    """The shared session lives by it."""
    hurried = Hurried()
    session.default.made = Session(clock=hurried)
    return hurried
