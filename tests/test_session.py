"""A session lets go of what it holds, also when it is only forgotten."""

from __future__ import annotations

import asyncio
import gc
import warnings
import weakref
from collections.abc import Callable
from copy import copy
from pathlib import Path

import pandas as pd
import pytest

from llmkit import event_loop
from llmkit.frames.pandas_accessor import FrameAccessor
from llmkit.session import Session
from tests.loopback import Loopback


def asked(folder: Path, server: Loopback) -> Session:
    """A session that has asked once: it holds a connection, a thread, a database and the lock of it."""
    session = Session(cache_dir=folder)
    session.add_provider("lab", server.url, "test-key-not-real", "openai", {})
    frame = pd.DataFrame({"text": ["one", "two"]})
    FrameAccessor(frame, session).chat("Say {text}", model="lab/m", show_progress=False)
    return session


async def closed() -> None:
    """Return once all sessions that nobody holds any more are closed."""
    await asyncio.sleep(0)  # what the collector has asked for begins now
    while event_loop._door.closing:
        await asyncio.wait(event_loop._door.closing)


def collected() -> None:
    gc.collect()
    event_loop.call(closed)


def shards(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("shard-*.sqlite"))


@pytest.mark.parametrize("drop", [lambda session: None, Session.close], ids=["dropped", "closed"])
def test_a_session_that_is_dropped_leaves_its_files_to_the_next_one(
    drop: Callable[[Session], None], tmp_path: Path, server: Loopback
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of files and connections that were left open
        for _ in range(2):
            session = asked(tmp_path, server)
            drop(session)
            writer = weakref.ref(session.engine.writer)
            del session
            collected()
            assert writer() is None
    assert ["shard-000.sqlite"] == shards(tmp_path)
    assert 2 == len(server.seen)  # the second found the answers of the first


def test_a_copy_of_a_session_keeps_what_it_shares_with_it(tmp_path: Path, server: Loopback) -> None:
    session = asked(tmp_path, server)
    other = copy(session)
    writer = session.engine.writer
    assert writer is not None
    del session
    collected()
    assert writer.store is not None
    del other
    collected()
    assert writer.store is None
