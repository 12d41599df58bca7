"""``docs/seeds.md`` is true: each promise has a line of code that runs and tests that are there, and no test stands outside of it."""

from __future__ import annotations

import ast
import asyncio
import getpass
import inspect
import os
import re
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pydantic import BaseModel

import llmkit
from llmkit.catalogue import download
from tests.loopback import Json, Loopback, speech_of
from tests.seeds import KEY, PIXEL, keyed, moved

ROOT = Path(__file__).resolve().parents[2]
_SECTIONS = (ROOT / "docs" / "seeds.md").read_text("utf-8").split("\n## ")[1:]


@dataclass(frozen=True)
class Promise:
    file: str
    what: str
    code: str
    tests: tuple[str, ...]


def promises() -> list[Promise]:
    found = []
    for section in _SECTIONS:
        (file,) = re.findall(r"`(tests/seeds/test_\w+\.py)`", section)
        for line in section.splitlines():
            if line.startswith("| ") and not line.startswith(("| promised |", "| --- |")):
                what, code, tests = (cell.strip() for cell in line.strip("|").split(" | "))
                found.append(Promise(file, what, code, tuple(tests.split(", "))))
    return found


def named_in(file: str) -> set[str]:
    body = ast.parse((ROOT / file).read_text("utf-8")).body
    return {node.name for node in body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_each_of_the_three_documents_has_a_table() -> None:
    files = {promise.file for promise in promises()}
    assert files == {str(path.relative_to(ROOT)) for path in Path(__file__).parent.glob("test_0*.py")}
    assert len(files) == 3


@pytest.mark.parametrize("promise", promises(), ids=lambda promise: promise.what)
def test_a_promise_has_tests_that_are_there(promise: Promise) -> None:
    assert promise.tests
    assert {test.strip("`") for test in promise.tests} <= named_in(promise.file)


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class Review(BaseModel):
    stars: int


@pytest.fixture
def at_hand(server: Loopback, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What the lines take for granted: keys, files, a frame, and the words they are about."""
    moved(server)
    known = llmkit.providers()
    keyed(monkeypatch, *known.loc[known["key_needed"] & (known["key_env"] != ""), "provider"])
    for variable in ("ANYSCALE_API_BASE", "LEPTON_API_BASE"):
        monkeypatch.setenv(variable, server.compat_url_of(variable.partition("_")[0].lower()))
    monkeypatch.setenv("OPENAI_ORG_ID", "org-not-real")
    monkeypatch.setattr(getpass, "getpass", lambda prompt: KEY)
    monkeypatch.setattr(download, "USUAL", f"{server.url}/models.json")
    latest = {"as_of": llmkit.models()["as_of"].max(), "models": [{"provider": "groq", "name": "model-of-tomorrow"}]}
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inference-providers.json").write_text('{"aliases": {"house-model": ["lab/qwen3-8b"]}}')
    (tmp_path / "photo.png").write_bytes(PIXEL)
    (tmp_path / "call.wav").write_bytes(speech_of("hello", "alloy", "wav"))
    df = pd.DataFrame({"text": ["first", "second"], "task": ["easy", "hard"]})
    detail = df.llm.chat("Say {text}", model="openai/gpt-5-mini", detail=True, show_progress=False)
    run = llmkit.last()
    found = llmkit.connect("mixtral-8x7b")
    server.reset()
    return {
        "llmkit": llmkit, "os": os, "df": df, "detail": detail, "run": run, "found": found, "add": add, "Review": Review, "key": KEY,
        "prompt": "Hello", "messages": [{"role": "user", "content": "2 stars"}], "text": "it is about delivery", "texts": ["a", "b"],
        "query": "late parcel", "documents": ["red apple", "late parcel"], "labels": ["no", "yes"], "folder": tmp_path / "kept",
        "latest": latest, "server": server,
    }  # fmt: skip


@pytest.mark.parametrize("promise", promises(), ids=lambda promise: promise.what)
def test_a_promise_has_one_line_of_code_that_runs(promise: Promise, at_hand: dict[str, Any]) -> None:
    code = promise.code.removeprefix("`").removesuffix("`")
    if "client" in code:
        pytest.importorskip("instructor")
        at_hand["client"] = llmkit.client("openai/gpt-5-mini")
    if "refresh" in code:
        at_hand["server"].fault(None, Json(at_hand["latest"]))
    refused = pytest.raises(llmkit.UnknownModel) if '"palm"' in code else nullcontext()
    with refused:
        line = eval(compile(code, promise.file, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), at_hand)
        if inspect.iscoroutine(line):
            asyncio.run(line)


@pytest.mark.parametrize("file", sorted({promise.file for promise in promises()}))
def test_every_test_of_a_document_stands_in_its_table(file: str) -> None:
    named = {test.strip("`") for promise in promises() if promise.file == file for test in promise.tests}
    assert named_in(file) - named == set()
