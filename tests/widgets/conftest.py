"""Panels without a browser or a kernel: what would go to the front end is recorded, what it would send is handed in."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import comm
import pytest
from comm.base_comm import BaseComm
from ipywidgets import Widget
from llmkit_widgets import CostPanel, ExtractExplorer, Panel, RunMonitor

from llmkit import event_loop

#: Would run if it became markup anywhere.
CANARY = "<img src=x onerror=alert(1)>"
KEY = "sk-canary-not-real-7f3a"

Log = list[tuple[str, str, dict[str, Any]]]


class RecordingComm(BaseComm):
    log: ClassVar[Log] = []

    def publish_msg(self, msg_type: str, data: Any = None, metadata: Any = None, buffers: Any = None, **keys: Any) -> None:
        RecordingComm.log.append((msg_type, self.comm_id, data or {}))


@pytest.fixture(autouse=True)
def wire(monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    """All that was sent to the front end: (type, comm, data)."""
    RecordingComm.log = []
    monkeypatch.setattr(comm, "create_comm", RecordingComm)
    # Most tests wait for what is shown, not for how seldom: those that count messages set it back.
    for kind in (Panel, CostPanel, ExtractExplorer, RunMonitor):
        monkeypatch.setattr(kind, "_between", 0.02)
    monkeypatch.setattr(event_loop, "SLICE", 0.02)
    made: list[Widget] = []
    Widget.on_widget_constructed(made.append)
    yield RecordingComm.log
    Widget.on_widget_constructed(None)
    for panel in [widget for widget in made if isinstance(widget, Panel)]:
        assert panel.wait(20)
        panel.close()


def ask(panel: Panel, do: Any, args: Any = None) -> None:
    """What the front end sends when a button is pressed."""
    data = {"method": "custom", "content": {"do": do, "args": {} if args is None else args}}
    panel.comm.handle_msg({"content": {"comm_id": panel.comm.comm_id, "data": data}, "buffers": [], "metadata": {}})


def until(panel: Panel, true: Callable[[dict[str, Any]], Any]) -> None:
    """Block until the panel's state is as it should be."""
    changed = threading.Event()
    panel.observe(lambda change: changed.set(), ["state", "news"])
    while True:
        changed.clear()
        if true(panel.state):
            return
        assert changed.wait(20), panel.state


def states(log: Log) -> list[dict[str, Any]]:
    """The states that were sent, in their order."""
    return [data["state"]["state"] for _, _, data in log if data.get("method") == "update" and "state" in data["state"]]
