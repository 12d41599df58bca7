"""``llmkit.widgets``: the panels where they are installed, the line that installs them where they are not."""

from __future__ import annotations

import subprocess
import sys

import pytest

import llmkit


def test_the_door_hands_on_the_panels() -> None:
    pytest.importorskip("anywidget")
    import llmkit_widgets

    from llmkit import widgets

    assert widgets.KeyPanel is llmkit_widgets.KeyPanel
    assert dir(widgets) == sorted(llmkit_widgets.__all__)


def test_a_panel_that_there_is_not_is_an_error_that_names_those_there_are() -> None:
    pytest.importorskip("anywidget")
    from llmkit import widgets

    with pytest.raises(AttributeError, match="llmkit.widgets has no KeyPanels; there is .*KeyPanel"):
        _ = widgets.KeyPanels


@pytest.mark.parametrize("missing", ["anywidget", "traitlets"])
def test_without_the_extra_the_line_that_installs_it_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from llmkit import widgets

    for name in [name for name in sys.modules if name.partition(".")[0] == "llmkit_widgets"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(llmkit.MissingExtra, match=r"pip install 'llmkit\[widgets\]'"):
        _ = widgets.KeyPanel
    assert dir(widgets) == []


def test_importing_the_door_loads_no_widgets() -> None:
    script = "import sys, llmkit.widgets; print({'ipywidgets', 'anywidget', 'llmkit_widgets'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "set()\n"
