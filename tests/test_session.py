"""A session lets go of what it holds, also when it is only forgotten."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
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
            assert session.engine.writer is not None
            writer, worker = weakref.ref(session.engine.writer), session.engine.writer.worker
            del session
            collected()
            assert worker.idle
            worker.stop()  # its thread has been told to end, and lets go of its last job then
            gc.collect()
            assert writer() is None
    assert ["shard-000.sqlite"] == shards(tmp_path)
    assert 2 == len(server.seen)  # the second found the answers of the first


AT_THE_END = """
import sys
from llmkit import Session, event_loop
from llmkit.engine.engine import Engine

class Told(Engine):
    async def close(self):
        print("closed", flush=True)
        await super().close()

Session._new_engine = lambda self: Told(lambda: None, None, lambda target: None)
one, two = Session(cache_dir=sys.argv[1]), Session(cache_dir=sys.argv[1])

async def nothing():
    pass

event_loop.call(nothing)
"""


def test_the_end_of_the_interpreter_closes_each_session_once(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", AT_THE_END, str(tmp_path)], capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout.split() == ["closed", "closed"]


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
