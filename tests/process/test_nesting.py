"""``llmkit.allow_nested_loops()``: for a user's own ``asyncio.run`` in a cell, in a real kernel."""

from __future__ import annotations

import asyncio
import sys

import pytest

import llmkit
from tests.loopback import Loopback
from tests.process.child import settled
from tests.process.kernel import Notebook

pytest.importorskip("nest_asyncio2")


OWN = """
async def main():
    await asyncio.sleep(0)
    answers = await df.head(20).llm.chat("Own: {text}", model="lab/m", wait=False, show_progress=False)
    return answers.tolist() == [f"answer to: Own: row {i}" for i in range(20)]
"""


def test_asyncio_run_works_in_a_cell_and_llmkit_goes_on_as_before(notebook: Notebook, busy: Loopback) -> None:
    notebook.run(OWN)
    refused = notebook.end(notebook.start("unasked = main(); asyncio.run(unasked)"))
    assert "RuntimeError" == refused["ename"]
    notebook.run("unasked.close()")
    assert "False" == notebook.run("print(hasattr(asyncio, '_nest_patched'))")

    # A run that is under way when its loop is patched loses nothing.
    notebook.run('run = df.head(2_000).llm.chat("Say {text}", model="lab/m", wait=False, show_progress=False)')
    told = notebook.run("llmkit.allow_nested_loops()")
    assert "asyncio.run" in told
    assert "EventLoop are patched by nest-asyncio2" in told
    assert "True" == notebook.run("print(asyncio.run(main()))")
    assert "True" == notebook.run("print(asyncio.get_event_loop().run_until_complete(main()))")
    assert "True" == notebook.run('print(run.result().tolist() == [f"answer to: Say row {i}" for i in range(2_000)])')
    assert 2_020 == settled(busy)
    assert told == notebook.run("llmkit.allow_nested_loops()")

    said = notebook.interrupted('values = df.llm.chat("Say {text}", model="lab/m")', busy, 500)
    assert "KeyboardInterrupt" == said["ename"]
    assert said["seconds"] < 1
    seen = settled(busy)
    assert "True" == notebook.run("print(asyncio.run(main()))")
    assert seen == settled(busy) < 5_000


def test_where_no_loop_runs_nothing_is_patched(capsys: pytest.CaptureFixture[str]) -> None:
    before = asyncio.run
    llmkit.allow_nested_loops()
    assert "nothing was patched" in capsys.readouterr().out
    assert before is asyncio.run
    assert not hasattr(asyncio, "_nest_patched")


def test_a_loop_that_is_not_asyncios_own_is_refused_by_name() -> None:
    class Loop(asyncio.AbstractEventLoop):
        pass

    Loop.__module__ = "uvloop"
    asyncio._set_running_loop(Loop())  # what uvloop does when it begins to run
    try:
        with pytest.raises(llmkit.ConfigError, match=r"uvloop\.Loop, and only asyncio's own loops.*await main\(\)"):
            llmkit.allow_nested_loops()
    finally:
        asyncio._set_running_loop(None)
    assert not hasattr(asyncio, "_nest_patched")


def test_what_the_older_nest_asyncio_has_patched_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio, "_nest_patched", True, raising=False)  # what it leaves behind

    async def cell() -> None:
        llmkit.allow_nested_loops()

    with pytest.raises(llmkit.ConfigError, match="nest_asyncio has patched"):
        asyncio.run(cell())


def test_a_missing_package_is_told_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nest_asyncio2", None)
    with pytest.raises(llmkit.MissingExtra, match=r"pip install 'llmkit\[nest\]'"):
        llmkit.allow_nested_loops()
