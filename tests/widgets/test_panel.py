"""What holds for every panel: who may call what, where errors go, how often it draws, what it leaves behind."""

from __future__ import annotations

import json
import re
import threading
import time
from pathlib import Path
from typing import Any

import llmkit_widgets
import pytest
from llmkit_widgets import CostPanel, KeyPanel, ModelPicker, Panel, RunMonitor
from llmkit_widgets.panel import action, table_html

import llmkit

from .conftest import CANARY, KEY, Log, ask, states, until

PANELS = [CostPanel, KeyPanel, ModelPicker, RunMonitor]
#: Before the tests hurry them.
_BETWEEN, PACES = Panel._between, {panel: panel._between for panel in PANELS}
STATIC = Path(llmkit_widgets.__file__).parent / "static"


class Counter(Panel):
    """The smallest panel."""

    def __init__(self) -> None:
        self.count = 0
        super().__init__()

    def view(self) -> dict[str, Any]:
        return {"count": self.count}

    @action
    def add(self, by: int = 1) -> None:
        if by == 0:
            raise llmkit.BadInput("nothing is added by 0")
        if by < 0:
            raise RuntimeError(f"never shown: {KEY}")
        self.count += by
        self.draw(now=True)

    def forbidden(self) -> None:
        self.count = 1000

    def snapshot(self) -> str:
        return table_html(["count"], [[self.count]], CANARY)


def test_the_front_end_calls_what_is_marked_with_its_arguments() -> None:
    panel = Counter()
    ask(panel, "add", {"by": 3})
    assert panel.state["count"] == 3


@pytest.mark.parametrize("name", ["forbidden", "close", "_try_to", "say", "__init__", "set_trait", "send", "nobody", None, 5, ["add"]])
def test_the_front_end_calls_nothing_that_is_not_marked(name: Any) -> None:
    panel = Counter()
    ask(panel, name)
    assert (panel.count, panel.state) == (0, {})
    assert panel.comm is not None


@pytest.mark.parametrize("content", [None, "add", ["add"], {"do": "add"}, {"do": "add", "args": [1]}, {"args": {}}])
def test_a_message_of_another_form_is_passed_over(content: Any) -> None:
    panel = Counter()
    panel._asked(panel, content, [])
    assert panel.count == 0


@pytest.mark.parametrize("panel", PANELS)
def test_what_a_panel_lets_the_front_end_do_is_listed_here(panel: type[Panel]) -> None:
    marked = {name for part in panel.__mro__ for name, it in vars(part).items() if getattr(it, "__llmkit_action__", False)}
    own = {
        CostPanel: {"look", "refresh", "set_budget"},
        KeyPanel: {"set_key", "test"},
        ModelPicker: {"choose", "favour", "look", "probe", "set_parameter", "use"},
        RunMonitor: {"cancel", "refresh"},
    }
    assert marked == own[panel] | {"shown", "hidden"}


def test_what_goes_wrong_is_said_in_the_panel_and_the_next_word_takes_its_place() -> None:
    panel = Counter()
    ask(panel, "add", {"by": 0})
    until(panel, lambda state: state["error"] == "nothing is added by 0")
    panel.say("well")
    until(panel, lambda state: (state["note"], state["error"]) == ("well", ""))


def test_what_goes_wrong_without_a_word_for_it_is_named_and_not_repeated(wire: Log) -> None:
    panel = Counter()
    ask(panel, "add", {"by": -1})
    until(panel, lambda state: state["error"] == "that did not work (RuntimeError)")
    ask(panel, "add", {"by": 1, "key": KEY})
    until(panel, lambda state: state["error"] == "that did not work (TypeError)")
    assert KEY not in json.dumps(wire)


def test_what_goes_wrong_in_the_background_is_said_too() -> None:
    panel = Counter()
    panel.apart(lambda: panel.add(by=0))
    assert panel.wait(20)
    until(panel, lambda state: state["error"] == "nothing is added by 0")


def test_waiting_ends_when_its_time_is_over() -> None:
    panel, gate = Counter(), threading.Event()
    panel.apart(gate.wait)
    assert not panel.wait(0.01)
    gate.set()
    assert panel.wait(20)


def test_a_thousand_changes_are_some_messages_and_the_last_one_arrives(wire: Log) -> None:
    panel, began = Counter(), time.monotonic()
    panel._between = _BETWEEN
    for _ in range(1000):
        panel.count += 1
        panel.draw()
    most = 2 + (time.monotonic() - began) / panel._between
    until(panel, lambda state: state["count"] == 1000)
    assert 1 <= len(states(wire)) <= most


def test_what_did_not_change_is_not_sent_again(wire: Log) -> None:
    panel = Counter()
    for _ in range(3):
        panel.draw(now=True)
    assert len(states(wire)) == 1


def test_changes_from_many_threads_lose_none() -> None:
    panel = Counter()
    lock = threading.Lock()

    def count() -> None:
        for _ in range(50):
            with lock:
                panel.count += 1
            panel.draw()

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(panel, lambda state: state["count"] == 200)


def test_the_record_of_a_saved_notebook_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    html = table_html([CANARY], [[CANARY], [{"nested": CANARY}], [None], [float("nan")]], CANARY)
    assert "<img" not in html
    assert html.count("&lt;img src=x onerror=alert(1)&gt;") == 4


def test_displaying_leaves_a_record_and_renews_it() -> None:
    pytest.importorskip("IPython")
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    InteractiveShell.instance()
    try:
        panel = Counter()
        with capture_output() as shown:
            panel._ipython_display_()
            panel.add()
            panel.keep_record()
        first, record, renewed = (output.data for output in shown.outputs)
    finally:
        InteractiveShell.clear_instance()
    assert first["text/plain"] == "<Counter>"
    assert "application/vnd.jupyter.widget-view+json" in first
    assert "<td style='text-align:left;vertical-align:top'>0</td>" in record["text/html"]
    assert "<td style='text-align:left;vertical-align:top'>1</td>" in renewed["text/html"]
    assert "<img" not in record["text/html"]


def test_no_panel_draws_more_often_than_twenty_times_a_second() -> None:
    assert _BETWEEN >= 0.05
    assert PACES == {CostPanel: 0.1, KeyPanel: _BETWEEN, ModelPicker: _BETWEEN, RunMonitor: 0.1}


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_prints_as_its_name(panel: type[Panel]) -> None:
    assert repr(panel()) == f"<{panel.__name__}>"


@pytest.mark.parametrize("panel", PANELS)
def test_every_panel_shows_itself_without_a_front_end_and_its_code_runs(panel: type[Panel]) -> None:
    made = panel()
    assert json.loads(json.dumps(made.state)) == made.state
    assert len(made.result.columns)
    compile(made.code, "cell", "exec")
    assert "<img" not in made.snapshot()


@pytest.mark.parametrize("path", sorted(STATIC.glob("*.js")), ids=lambda path: path.name)
def test_no_script_makes_markup_of_text_or_loads_anything(path: Path) -> None:
    code = re.sub(r"^\s*//.*$|/\*.*?\*/", "", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert not re.search(
        r"\.(inner|outer)HTML|insertAdjacentHTML|document\.write|\beval\(|new Function|\bimport\b|createContextualFragment", code
    )
    assert re.findall(r"https?://[\w./:]+", code) in ([], ["http://www.w3.org/2000/svg"], ["http://127.0.0.1:8000/v1"])


@pytest.mark.parametrize("path", sorted(STATIC.glob("*.css")), ids=lambda path: path.name)
def test_no_style_loads_anything(path: Path) -> None:
    assert not re.search(r"url\(|@import|https?:", path.read_text("utf-8"))


@pytest.mark.parametrize("path", sorted(set(STATIC.glob("*.css")) - {STATIC / "kit.css"}), ids=lambda path: path.name)
def test_a_panels_own_rules_outweigh_the_shared_ones_that_come_with_a_later_panel(path: Path) -> None:
    lines = [line.partition("{")[0] for line in path.read_text("utf-8").splitlines() if line.startswith(".")]
    rules = [rule for line in lines for rule in re.split(r", (?=\.)", line)]
    assert rules and [rule for rule in rules if not rule.startswith(".llmkit-panel .llmkit-")] == []
