"""What all semantic operators have in common: one run, one bar, stopped and gone on with, offline."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import llmkit
from llmkit.errors import Cancelled
from tests.loopback import Loopback
from tests.loopback.oracle import Oracle

CHAT: dict[str, Any] = {"model": "lab/test-chat"}
BOTH: dict[str, Any] = {**CHAT, "embed_model": "local/lexical"}
WORDS = ["red bicycle", "green kettle", "old bicycle", "blue car", "red car", "lamp", "table lamp", "sofa"]
DF = pd.DataFrame({"text": WORDS, "n": range(8)})

CALLS: dict[str, Callable[..., Any]] = {
    "filter": lambda **more: DF.llm.filter("{text} has wheels", **{**CHAT, **more}),
    "topk": lambda **more: DF.llm.topk("{text} is longer", 2, **{**CHAT, **more}),
    "agg": lambda **more: DF.llm.agg("What is there in {text}?", by="n", **{**CHAT, **more}),
    "join": lambda **more: DF.llm.join(DF, "{left:text} goes with {right:text}", candidates=3, **{**BOTH, **more}),
    "dedup": lambda **more: DF.llm.dedup(
        "text",
        threshold=0.5,
        margin=0.5,
        confirm="lab/test-chat",
        embed_model="local/lexical",
        **{k: v for k, v in more.items() if k != "model"},
    ),
    "cluster": lambda **more: DF.llm.cluster("text", 3, **{**BOTH, **more}),
}


@pytest.mark.parametrize("name", CALLS)
def test_there_is_one_bar_which_says_how_many_requests_there_will_be(lab: Loopback, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    lab.answer = Oracle()
    CALLS[name]()
    drawn = capsys.readouterr().err
    last_line = drawn.replace("\r", "\n").strip().splitlines()[-1]
    assert last_line.startswith(f"{name} ")
    assert "100%" in last_line
    assert drawn.count("100%|") >= 1
    told = {
        "topk": "comparisons expected", "agg": "8 requests", "join": "24 pairs to judge", "dedup": "pairs to confirm",
        "cluster": "3 groups to name", "filter": "/8 ",
    }  # fmt: skip
    assert told[name] in drawn


@pytest.mark.parametrize("name", CALLS)
def test_the_same_call_sends_nothing_and_gives_the_same(lab: Loopback, name: str) -> None:
    lab.answer = Oracle()
    first = CALLS[name](show_progress=False)
    sent = lab.requests
    second = CALLS[name](show_progress=False)
    assert lab.requests == sent > 0
    assert second.equals(first)


@pytest.mark.parametrize("name", CALLS)
def test_a_run_that_was_stopped_is_gone_on_with_by_the_same_call(lab: Loopback, name: str) -> None:
    lab.answer = Oracle()
    whole = CALLS[name](show_progress=False)
    needed = lab.requests
    llmkit.cache.clear()
    lab.reset()
    lab.latency = lambda seen: 60.0 if seen.number > 3 else 0.0
    run = CALLS[name](wait=False, show_progress=False, max_concurrency=4)
    embedded = len(DF) if name in ("join", "dedup", "cluster") else 0
    while not run.done and run.progress().done < embedded + 3:
        run.wait(0.01)
    run.cancel()
    assert run.wait(5)
    assert run.stopped is None or isinstance(run.stopped, Cancelled)
    lab.latency = 0.0
    lab.reset()
    assert CALLS[name](show_progress=False).equals(whole)
    assert lab.requests == max(0, needed - 3)


@pytest.mark.parametrize("name", CALLS)
def test_a_dry_run_sends_nothing(lab: Loopback, name: str) -> None:
    estimate = CALLS[name](dry_run=True)
    assert isinstance(estimate, llmkit.Estimate)
    assert lab.requests == 0
    assert estimate.requests > 0 and estimate.input_tokens > 0


@pytest.mark.parametrize("name", CALLS)
def test_a_run_can_be_waited_for_and_is_the_last_one(lab: Loopback, name: str) -> None:
    lab.answer = Oracle()
    run = CALLS[name](wait=False, show_progress=False)
    result = run.result()
    assert llmkit.last() is run
    assert run.operation == name
    assert run.errors().empty
    assert run.progress().done == run.progress().rows
    assert result.equals(CALLS[name](show_progress=False))


@pytest.mark.parametrize("name", CALLS)
def test_it_runs_offline(name: str) -> None:
    if name == "dedup":
        result = DF.llm.dedup("text", confirm="echo/echo", embed_model="local/lexical", show_progress=False)
    else:
        result = CALLS[name](model="echo/echo", show_progress=False)
    assert isinstance(result, pd.DataFrame | pd.Series)


def test_the_page_about_them_runs_as_it_stands() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "operators.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    made: dict[str, Any] = {}
    with contextlib.redirect_stderr(io.StringIO()):
        exec(compile(code, "operators.md", "exec"), made)
    assert made["once"].index.tolist() == [0, 2, 3]
    assert made["answers"].index.tolist() == ["north", "south"]
    assert made["angriest"]["rank"].tolist() == [1, 2]
    assert len(made["topics"]) == 4
