"""RunMonitor: runs as they go, why rows failed, what was learned; and nothing at all while nobody looks or nothing runs."""

from __future__ import annotations

import json
import threading

import pandas as pd
import pytest
from llmkit_widgets import RunMonitor

import llmkit
from tests.loopback import Loopback, refusal, server_error

from .conftest import CANARY, Log, ask, states, until


def frame(rows: int = 8) -> pd.DataFrame:
    return pd.DataFrame({"text": [f"row {row:02} {CANARY}" for row in range(rows)]})


def begin(rows: int = 8, **more: object) -> llmkit.Run[object]:
    return frame(rows).llm.chat("Say {text}", model="lab/test-chat", wait=False, show_progress=False, **more)


def test_a_run_is_seen_from_its_beginning_to_its_end(lab: Loopback) -> None:
    monitor = RunMonitor()
    ask(monitor, "shown")
    lab.hold()
    run = begin()
    until(monitor, lambda state: [card["id"] for card in state["live"]] == [run.id])
    (card,) = monitor.state["live"]
    assert (card["operation"], card["models"], card["rows"], card["state"]) == ("chat", ["lab/test-chat"], 8, "running")
    assert run.id not in [line["id"] for line in monitor.state["past"]]
    lab.release()
    until(monitor, lambda state: not state["live"] and any(line["id"] == run.id and line["requests"] for line in state["past"]))
    line = next(line for line in monitor.state["past"] if line["id"] == run.id)
    assert (line["done"], line["errors"], line["requests"], line["stopped"]) == (8, 0, 8, None)
    assert line["more"]["state"] == "done"


def test_a_run_that_began_before_the_panel_is_followed_too(lab: Loopback) -> None:
    lab.hold()
    run = begin()
    monitor = RunMonitor()
    ask(monitor, "shown")
    until(monitor, lambda state: [card["id"] for card in state["live"]] == [run.id])
    lab.release()
    until(monitor, lambda state: not state["live"])


def test_errors_are_counted_by_kind_with_an_example_and_retries_beside(lab: Loopback) -> None:
    for row in (1, 2, 3):
        lab.fault(f"row {row:02}", refusal())
    lab.fault("row 05", server_error())
    monitor = RunMonitor()
    ask(monitor, "shown")
    run = begin()
    run.wait()
    until(monitor, lambda state: any(line["id"] == run.id and line["more"] for line in state["past"]))
    more = next(line["more"] for line in monitor.state["past"] if line["id"] == run.id)
    assert [(one["kind"], one["count"]) for one in more["reasons"]] == [("refusal", 3)]
    assert more["reasons"][0]["example"]
    assert more["retries"] == run.retries == 1
    (limit,) = more["limits"]
    assert limit["model"] == "lab/test-chat"
    assert limit["window"] >= 1


def test_a_run_is_stopped_by_its_id_and_keeps_what_came(lab: Loopback) -> None:
    monitor = RunMonitor()
    ask(monitor, "shown")
    lab.hold()
    run, other = begin(), begin(4, max_tokens=5)
    lab.wait_for(8)
    ask(monitor, "cancel", {"run": run.id})
    assert run.wait(20)
    until(monitor, lambda state: [card["id"] for card in state["live"]] == [other.id])
    assert f"{run.id} is stopped" in monitor.state["note"]
    until(monitor, lambda state: any(line["id"] == run.id and line["more"] for line in state["past"]))
    assert next(line["more"]["state"] for line in monitor.state["past"] if line["id"] == run.id) == "stopped"
    lab.release()
    assert other.wait(20)
    ask(monitor, "cancel", {"run": run.id})
    until(monitor, lambda state: state["error"] == "this run has ended")


def test_messages_come_ten_times_a_second_at_most_and_none_when_nothing_runs(lab: Loopback, wire: Log) -> None:
    lab.latency = 0.02
    monitor = RunMonitor()
    monitor._between = 0.1
    ask(monitor, "shown")
    runs = [begin(40, max_tokens=limit) for limit in (5, 6, 7)]
    assert all(run.wait(10) for run in runs)
    until(monitor, lambda state: not state["live"] and len(state["past"]) == 3)
    assert monitor.wait(20)
    sent = len(states(wire))
    assert sent <= 5 + 10 * max(run.progress().seconds for run in runs)
    watching = [thread for thread in threading.enumerate() if thread.name in ("llmkit-watch", "llmkit-panel")]
    for thread in watching:
        thread.join(5)
    assert not [thread for thread in watching if thread.is_alive()]
    assert len(states(wire)) - sent <= 1


def test_a_panel_that_nobody_looks_at_hears_and_sends_nothing(lab: Loopback, wire: Log) -> None:
    monitor = RunMonitor()
    ask(monitor, "shown")
    ask(monitor, "shown")
    ask(monitor, "hidden")
    ask(monitor, "hidden")
    assert monitor.wait(20)
    monitor.draw(now=True)
    sent = len(states(wire))
    begin().wait()
    assert len(states(wire)) == sent
    assert (monitor._live, llmkit.run.begun.listeners) == ({}, [])


def test_a_run_that_ends_while_nobody_looks_is_let_go_without_a_word(lab: Loopback, wire: Log) -> None:
    monitor = RunMonitor()
    ask(monitor, "shown")
    lab.hold()
    run = begin()
    until(monitor, lambda state: state["live"])
    ask(monitor, "hidden")
    assert monitor.wait(20)
    monitor.draw(now=True)
    sent = len(states(wire))
    lab.release()
    run.wait()
    for thread in [thread for thread in threading.enumerate() if thread.name == "llmkit-watch"]:
        thread.join(5)
    assert (monitor._live, len(states(wire))) == ({}, sent)
    ask(monitor, "shown")
    until(monitor, lambda state: any(line["id"] == run.id for line in state["past"]))


def test_what_takes_long_to_add_up_is_added_up_once_a_second(lab: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monitor, now = RunMonitor(), [0.0]
    monitor._now = lambda: now[0]
    lab.hold()
    run = begin()
    looked: list[float] = []
    monkeypatch.setattr(run, "reasons", lambda: looked.append(now[0]) or [])
    for moment in (0.0, 0.4, 0.9, 1.0, 1.5, 2.1):
        now[0] = moment
        monitor._card(run)
    assert looked == [0.0, 1.0, 2.1]
    run.cancel()
    run.wait()


def test_a_run_of_several_is_one_card_and_stays_when_it_ended(lab: Loopback) -> None:
    monitor = RunMonitor()
    ask(monitor, "shown")
    lab.hold()
    run = frame(4).llm.topk("the best", on="text", k=1, model="lab/test-chat", wait=False, show_progress=False)
    until(monitor, lambda state: state["live"])
    assert [card["id"] for card in monitor.state["live"]] == [run.id]
    ask(monitor, "cancel", {"run": run.id})
    lab.release()
    run.wait()
    until(monitor, lambda state: any(line["id"] == run.id for line in state["past"]))


def test_nothing_that_runs_hold_becomes_markup_and_no_prompt_is_shown(lab: Loopback, wire: Log) -> None:
    llmkit.catalogue.merge({"models": [{"provider": "lab", "name": CANARY, "operations": ["chat"]}]})
    monitor = RunMonitor()
    ask(monitor, "shown")
    run = frame(2).llm.chat("Say {text}", model=f"lab/{CANARY}", wait=False, show_progress=False)
    run.wait()
    until(monitor, lambda state: any(line["id"] == run.id for line in state["past"]))
    assert "<img" not in monitor.snapshot()
    assert "&lt;img" in monitor.snapshot()
    assert "row 00" not in json.dumps(wire)
