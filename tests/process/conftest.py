"""A kernel with a frame, and the provider that it asks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.loopback import Loopback

if TYPE_CHECKING:
    from .kernel import Notebook


@pytest.fixture
def busy() -> Iterator[Loopback]:
    """A provider that takes 5 ms for an answer, and is asked too much to remember it all."""
    with Loopback(keep_seen=False) as server:
        server.latency = 0.005
        yield server


@pytest.fixture
def notebook(busy: Loopback, tmp_path: Path) -> Iterator[Notebook]:
    """A kernel in which ``df`` has 10,000 rows."""
    from .kernel import ROWS, SETUP, Notebook

    notebook = Notebook(busy, tmp_path)
    try:
        notebook.run(SETUP % ROWS)
        yield notebook
    finally:
        notebook.close()
