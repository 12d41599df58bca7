"""The examples of docs/vectors.md run as they stand, and say what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest


def test_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    page = (Path(__file__).resolve().parents[2] / "docs" / "vectors.md").read_text("utf-8")
    made: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(code, "vectors.md", "exec"), made)
    assert made["hits"]["text"].tolist()[0] == "Parcel two weeks late!"
    assert made["many"]["query"].tolist() == ["late parcel", "leaking kettle"]
    assert made["near"]["answer"].tolist()[:2] == ["Parcels take two weeks.", "We send a new kettle."]
    assert "5 rows" in capsys.readouterr().out
