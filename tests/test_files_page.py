"""The code of ``docs/files.md`` runs as it stands, without a key and without a network."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "files.md").read_text("utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)

TICKETS = """id,text
01,The parcel came late
02,"Two lines,
and a comma"
03,
04,Where is my refund?
"""
REQUEST = '{"messages": [{"role": "user", "content": "Say %d"}], "temperature": 0.2}\n'


def test_every_example_runs_and_leaves_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tickets.csv").write_text(TICKETS)
    (tmp_path / "requests.jsonl").write_text(REQUEST % 1 + REQUEST % 2)
    names: dict[str, object] = {}
    for code in BLOCKS:
        exec(compile(code, "files.md", "exec"), names)
    said = pd.read_parquet("summaries")
    assert said["id"].tolist() == ["01", "02", "03", "04"]
    assert said["summary"].isna().tolist() == [False, False, True, False]
    assert repr(names["done"]) in BLOCKS[0]
    assert pd.read_parquet("triage").columns.tolist() == ["id", "summary", "tone", "refund", "vector"]
    assert pd.read_parquet("answers")["chat"].tolist() == ["[echo, not a model] Describe a parcel", "[echo, not a model] Describe a letter"]
    assert pd.read_parquet("replies")["chat"].tolist() == ["[echo, not a model] Say 1", "[echo, not a model] Say 2"]
