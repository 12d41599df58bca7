"""The code of ``docs/batch.md`` runs as it stands, at a provider of this computer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from llmkit.engine import jobs as engine_jobs
from tests.loopback import Loopback

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "batch.md").read_text("utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_examples_run(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.url_of("openai"))
    monkeypatch.setenv("OPENAI_API_KEY", "key-not-real")
    monkeypatch.setattr(engine_jobs, "_LOOK_SECONDS", 0.02)
    submit, take_up = BLOCKS
    names: dict[str, Any] = {"df": pd.DataFrame({"text": ["one", "two"]})}
    exec(compile("import llmkit\n" + submit, "batch.md", "exec"), names)
    first = names["df"].pop("summary")
    assert ["answer to: Summarise in one line: one", "answer to: Summarise in one line: two"] == first.tolist()
    (known,) = re.findall(r'llmkit\.job\("(.*?)"\)', take_up)
    exec(compile(take_up.replace(known, names["run"].id), "batch.md", "exec"), names)
    assert first.tolist() == names["df"]["summary"].tolist()
    assert 1 == len(server.batches.jobs)
