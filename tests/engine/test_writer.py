"""The store's face to the loop."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from llmkit import event_loop
from llmkit.engine.store import Store
from llmkit.engine.writer import Writer


def test_a_store_that_a_forgotten_look_up_is_about_to_open_is_closed_with_the_others(tmp_path: Path) -> None:
    go_on = threading.Event()

    def opened() -> Store:
        go_on.wait(10)
        return Store(tmp_path)

    async def close_behind_a_look_up() -> Writer:
        writer = Writer(opened)
        looking = asyncio.ensure_future(writer.look_up([b"0" * 16]))
        await asyncio.sleep(0)  # it is handed to the thread
        looking.cancel()
        closing = asyncio.ensure_future(writer.close())
        await asyncio.sleep(0)
        go_on.set()
        await closing
        return writer

    writer = event_loop.call(close_behind_a_look_up)
    assert writer.store is None
    Store(tmp_path).close()
    assert ["shard-000.sqlite"] == sorted(path.name for path in tmp_path.glob("*.sqlite"))


def test_closing_a_writer_that_nothing_was_handed_to_begins_no_thread(tmp_path: Path) -> None:
    writer = Writer(lambda: Store(tmp_path))
    event_loop.call(writer.close)
    assert writer.worker.idle
    assert writer.worker._last is None
    assert [] == list(tmp_path.iterdir())
