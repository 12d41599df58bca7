"""Stop during ``%%llm`` in a real kernel."""

from __future__ import annotations

import time
from pathlib import Path

from tests.loopback import Loopback
from tests.process.child import settled
from tests.process.kernel import SETUP, Notebook


def test_stop_ends_a_cell_that_waits_for_an_answer_and_its_request(tmp_path: Path) -> None:
    with Loopback(keep_seen=False) as server:
        server.latency = 60
        notebook = Notebook(server, tmp_path)
        try:
            notebook.run(SETUP % 1)
            notebook.run("%load_ext llmkit")
            said = notebook.interrupted("%%llm lab/m -o answer\nTell me a long story", server, 1)
            assert "KeyboardInterrupt" == said["ename"]
            assert said["seconds"] < 1
            assert "False" == notebook.run("print('answer' in dir())")
            until = time.monotonic() + 5
            while server.in_flight and time.monotonic() < until:
                settled(server)
            assert (server.requests, server.in_flight) == (1, 0)
        finally:
            notebook.close()
