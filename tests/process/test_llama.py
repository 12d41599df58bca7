"""``df.llm.extract`` against a real engine: llama.cpp, which holds a model of random numbers to the grammar of the schema.

``make llama`` sets up what it needs. ``LLMKIT_LLAMA_PYTHON`` names another interpreter that has ``xllamacpp`` and ``gguf``.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pytest
from pydantic import BaseModel

import llmkit
from llmkit.errors import RequestError

_MODEL = Path(__file__).parents[2] / "benchmarks" / "extraction" / "tiny_model.py"
_PYTHON = os.environ.get("LLMKIT_LLAMA_PYTHON") or (
    sys.executable if all(importlib.util.find_spec(name) for name in ("xllamacpp", "gguf")) else ""
)

pytestmark = pytest.mark.skipif(not _PYTHON, reason="llama.cpp is not installed: make llama")

ROWS = 200


class Part(BaseModel):
    name: str
    count: int


class Order(BaseModel):
    """What a customer orders."""

    customer: str
    urgent: bool
    tone: Literal["kind", "angry", "plain"]
    total: float | None
    due: date
    parts: list[Part]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the engine."""
    folder = tmp_path_factory.mktemp("llama")
    port_file = folder / "address"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([_PYTHON, str(_MODEL), "--port-file", str(port_file)], stdin=subprocess.PIPE, stdout=log, stderr=log)
        try:
            patience = time.monotonic() + 60
            while not port_file.exists():
                assert process.poll() is None, (folder / "log").read_text()[-2000:]
                assert time.monotonic() < patience, "llama.cpp did not start within a minute"
                time.sleep(0.05)
            yield port_file.read_text()
        finally:
            process.kill()
            process.wait()
            assert process.stdin is not None
            process.stdin.close()


@pytest.mark.parametrize("mode", ["auto", "json_schema"])
def test_every_answer_is_valid_or_a_typed_error(engine: str, mode: str) -> None:
    llmkit.add_provider("llama", f"{engine}/v1", api_key="none")
    frame = pd.DataFrame({"text": [f"Order {number}: two cups and a saucer, please." for number in range(ROWS)]})
    options: dict[str, Any] = {"max_tokens": 150, "more_tokens": 300, "max_concurrency": 4, "cache": "off", "show_progress": False}
    run = frame.llm.extract(Order, on="text", model="llama/tiny", mode=mode, wait=False, **options)
    answers = run.result()
    became: Counter[str] = Counter()
    for row in range(ROWS):
        error, value = run.outcomes.error_of(row), run.outcomes.value(row)
        if error is None:
            Order.model_validate(value, strict=True)
        else:
            assert isinstance(error, RequestError), repr(error)
        became["valid" if error is None else type(error).__name__] += 1
    print(f"{mode}: {dict(became)}")
    assert became["valid"] > ROWS / 2
    assert answers["customer"].notna().sum() == became["valid"]
