"""Ctrl-C in a real notebook kernel: the cell stops, nothing is sent after it, and nothing that was paid for is lost."""

from __future__ import annotations

import time
from typing import Any

import pandas as pd
import pytest

import llmkit
from llmkit.engine.writer import Writer
from tests.loopback import Loopback
from tests.process.child import settled
from tests.process.kernel import ROWS, SETUP, Notebook

CALL = 'values = df.llm.chat("Say {text}", model="lab/m")'
RIGHT = '; assert values.tolist() == [f"answer to: Say row {i}" for i in range(len(df))]'


def test_ctrl_c_stops_the_cell_and_the_requests_and_the_next_run_sends_only_the_rest(notebook: Notebook, busy: Loopback) -> None:
    said = notebook.interrupted(CALL, busy, 500)
    assert "KeyboardInterrupt" == said["ename"]
    assert said["seconds"] < 1
    seen = settled(busy)
    notebook.run("1 + 1")
    assert seen == settled(busy)
    finished = int(notebook.run("print(llmkit.last().partial().notna().sum())"))
    print(f"\nctrl-c: the cell ended after {said['seconds']:.2f} s, {seen} requests, {finished} rows finished")
    assert seen - 64 <= finished <= seen
    assert seen < ROWS // 2
    assert f"{finished:,} of {ROWS:,} rows are finished and kept" in said["output"]

    # The kernel goes on as if nothing had been, and the cell run again sends only the rest.
    notebook.run(CALL + RIGHT)
    assert seen + ROWS - finished == settled(busy)

    # Kernel restart + Run All: nothing is asked twice.
    before = settled(busy)
    notebook.restart()
    notebook.run(SETUP % ROWS)
    notebook.run(CALL + RIGHT)
    assert before == settled(busy)


def test_ctrl_c_holds_for_extract_as_it_does_for_chat(notebook: Notebook, busy: Loopback) -> None:
    # The provider says the first number in the row's text.
    call = 'frame = df.llm.extract({"title": str, "number": int | None}, on="text", model="lab/m")'
    said = notebook.interrupted(call, busy, 500)
    assert "KeyboardInterrupt" == said["ename"]
    seen = settled(busy)
    notebook.run("1 + 1")
    assert seen == settled(busy) < ROWS // 2
    finished = int(notebook.run('print(llmkit.last().partial()["number"].notna().sum())'))
    assert seen - 64 - Writer.CROWD <= finished <= seen
    notebook.run(call + '; assert frame["number"].tolist() == list(range(len(df))); assert frame["number"].dtype == "Int64"')
    assert seen + ROWS - finished == settled(busy)


def test_a_restart_in_the_middle_of_a_run_asks_only_for_what_was_not_finished(notebook: Notebook, busy: Loopback) -> None:
    notebook.start(CALL)
    busy.wait_for(3_000, 60)
    notebook.restart()  # kills the kernel, cell and all
    seen = settled(busy)
    notebook.run(SETUP % ROWS)
    notebook.run(CALL)
    # In flight, a group that is being written, and one that waits.
    assert settled(busy) - ROWS <= 64 + 2 * Writer.CROWD
    assert seen < ROWS


def test_stop_during_a_top_level_await_stops_the_run_too(notebook: Notebook, busy: Loopback) -> None:
    notebook.run('run = df.llm.chat("Say {text}", model="lab/m", wait=False, show_progress=False)')
    said = notebook.interrupted("await run", busy, 500)
    assert said["ename"] in ("KeyboardInterrupt", "CancelledError")
    assert said["seconds"] < 1
    notebook.run("run.wait(1)")
    seen = settled(busy)
    notebook.run("1 + 1")
    assert seen == settled(busy) < ROWS // 2


def test_a_cell_may_await_a_run_and_call_synchronously_inside_a_running_loop(notebook: Notebook) -> None:
    code = """
async def handler():
    asyncio.get_running_loop()
    few = df.head(20)
    return few.llm.chat("Sync: {text}", model="lab/m", show_progress=False)

awaited = await df.head(50).llm.chat("Say {text}", model="lab/m", wait=False, show_progress=False)
called = await handler()
both = await asyncio.gather(*(df.head(30).llm.chat("Both: {text}", model="lab/m", wait=False, show_progress=False) for _ in range(2)))
assert awaited.tolist() == [f"answer to: Say row {i}" for i in range(50)]
assert called.tolist() == [f"answer to: Sync: row {i}" for i in range(20)]
assert both[0].tolist() == both[1].tolist() == [f"answer to: Both: row {i}" for i in range(30)]
"""
    assert "" == notebook.run(code)


def test_the_bar_leaves_little_behind_in_the_notebook(notebook: Notebook, busy: Loopback) -> None:
    began = time.monotonic()
    said = notebook.end(notebook.start(CALL))
    seconds = time.monotonic() - began
    assert "ok" == said["status"]
    assert len(said["output"]) < 50_000
    assert said["messages"] <= 10 * seconds + 10
    assert "row 17" not in said["output"]


def test_an_interrupt_before_the_first_look_stops_the_run_as_well(lab: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    # The first bar of a session imports tqdm and ipywidgets: half a second in which Stop is pressed as well as in any other.
    def bar(run: Any) -> None:
        lab.wait_for(1)
        raise KeyboardInterrupt

    monkeypatch.setattr("llmkit.run.Bar", bar)
    lab.hold()
    df = pd.DataFrame({"text": [f"row {number}" for number in range(1_000)]})
    with pytest.raises(KeyboardInterrupt):
        df.llm.chat("Say {text}", model="lab/m")
    assert llmkit.last().wait(5)
    seen = settled(lab)
    lab.release()
    assert seen == settled(lab) <= 64


def test_a_run_that_is_cancelled_at_once_is_a_run_of_missing_values(lab: Loopback) -> None:
    df = pd.DataFrame({"text": [f"row {number}" for number in range(100)]})
    for number in range(20):
        run = df.llm.chat(f"Say {number} {{text}}", model="lab/m", wait=False, show_progress=False)
        run.cancel()
        assert run.wait(5)
        assert len(df) == len(run.result())
        assert "cancelled" == run.stopped.kind
