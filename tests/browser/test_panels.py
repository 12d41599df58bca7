"""The panels where people use them: JupyterLab in a Chromium, by mouse and by keyboard, against a provider on this computer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest


from ..loopback import Loopback
from .conftest import CHROMIUM, Notebook

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: scripts/install_chromium.sh")

KEY = "sk-canary-not-real-5e1f8c"
#: Would run where it became markup.
EVIL = "<img src=x onerror=\"window.ran='yes'\">"

BEGIN = """
import os
import llmkit, pandas as pd
from llmkit.widgets import CompareModels, ExtractExplorer, KeyPanel, ModelPicker

llmkit.add_provider("lab", os.environ["LAB_URL"])
"""


@pytest.fixture(scope="module")
def story(opened: Callable[..., Notebook]) -> Iterator[Notebook]:
    notebook = opened("story.ipynb", BEGIN, "picker = ModelPicker()\npicker", "keys = KeyPanel()\nkeys")
    yield notebook
    notebook.close()


def test_a_model_is_picked(story: Notebook) -> None:
    picker = story.page.locator(".llmkit-panel", has=story.page.locator(".llmkit-picker"))
    picker.wait_for()
    story.picture(picker, "picker")
