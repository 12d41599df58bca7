"""CONTRIBUTING shows how to add a vendor as one row and an operation as one file; both are done here, as they stand there."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import llmkit
from llmkit.types import Operation
from tests.loopback import Json, Loopback

TEXT = (Path(__file__).resolve().parents[1] / "CONTRIBUTING.md").read_text("utf-8")
(ROW,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
FILE, *_ = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture
def acme(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The catalogue as it is with this row in providers.toml."""
    shipped = files("llmkit.catalogue").joinpath("providers.toml").read_text("utf-8")
    known = llmkit.catalogue.default
    with monkeypatch.context() as changed:
        changed.setitem(known.__dict__, "_toml", tomllib.loads(f"{shipped}\n{ROW}"))
        known._reread()
        yield
    known._reread()


def test_a_vendor_that_speaks_openais_format_is_one_row(acme: None, server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_API_KEY", "acme-key-not-real")
    monkeypatch.setenv("ACME_BASE_URL", server.compat_url_of("acme"))
    df = pd.DataFrame({"text": ["first", "second"]})
    assert df.llm.chat("Say {text}", model="acme/any", show_progress=False).tolist() == ["answer to: Say first", "answer to: Say second"]
    assert len(df.llm.embed("text", model="acme/any", show_progress=False).llm.matrix()) == 2
    assert {seen.headers["authorization"] for seen in server.seen} == {"Bearer acme-key-not-real"}
    sent = len(server.seen)
    with pytest.raises(llmkit.Unsupported, match="transcribe"):
        pd.DataFrame({"sound": [b"RIFF0000WAVE"]}).llm.transcribe("sound", model="acme/any", show_progress=False)
    assert len(server.seen) == sent
    assert "acme" in llmkit.providers()["provider"].tolist()


@pytest.fixture
def moderate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Operation:
    """The operation of the one file, imported from a file."""
    (tmp_path / "moderate_of_contributing.py").write_text(FILE, "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    import importlib

    module: Any = importlib.import_module("moderate_of_contributing")
    monkeypatch.delitem(sys.modules, "moderate_of_contributing")
    operation: Operation = module.MODERATE
    return operation


def test_an_operation_is_one_file(lab: Loopback, moderate: Operation) -> None:
    lab.fault("insult", Json({"results": [{"categories": {"harassment": True, "violence": False}}, {"categories": {"violence": False}}]}))
    df = pd.DataFrame({"text": ["an insult", None, "a parcel", "an insult"]})
    flags = df.llm.apply(moderate, on="text", model="lab/any", show_progress=False)
    assert flags.tolist() == [["harassment"], None, [], ["harassment"]]
    assert [seen.path for seen in lab.seen] == ["/v1/moderations"], "one batch of the two different texts"
    assert df.llm.apply(moderate, on="text", model="lab/any", show_progress=False).tolist() == flags.tolist()
    assert len(lab.seen) == 1, "and the second time it is stored"


def test_a_wire_that_the_operation_has_no_codec_for_is_refused_before_anything_is_sent(lab: Loopback, moderate: Operation) -> None:
    llmkit.add_provider("other", lab.url_of("anthropic"), "key-not-real", "anthropic")
    with pytest.raises(llmkit.Unsupported, match="no codec"):
        pd.DataFrame({"text": ["a"]}).llm.apply(moderate, on="text", model="other/any")
    assert lab.seen == []
