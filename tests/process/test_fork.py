"""A forked child may use llmkit as its parent does: with a loop, connections and a file of its own."""

from __future__ import annotations

import multiprocessing
import warnings
from pathlib import Path
from typing import Any

import pandas as pd

import llmkit
from llmkit import session
from tests.loopback import Loopback
from tests.process.child import forked, needs_fork

pytestmark = needs_fork


def ask(*texts: str) -> list[Any]:
    df = pd.DataFrame({"text": list(texts)})
    return list(df.llm.chat("Say {text}", model="lab/m", show_progress=False))


def shard() -> str:
    writer = session.default().engine.writer
    assert writer is not None and writer.store is not None
    return writer.store.path.name


def test_parent_and_child_each_make_calls_and_write_files_of_their_own(lab: Loopback, cache_dir: Path) -> None:
    assert ["answer to: Say parent"] == ask("parent")

    def in_the_child() -> list[Any]:
        return [*ask("parent", "child"), *ask("child"), shard()]

    said = forked(in_the_child)
    assert ["answer to: Say parent", "answer to: Say child", "answer to: Say child", "shard-001.sqlite"] == said
    assert 2 == lab.requests  # the child read its parent's file
    assert "shard-000.sqlite" == shard()
    assert ["answer to: Say child", "answer to: Say more"] == ask("child", "more")
    assert 3 == lab.requests  # and the parent the child's


def test_children_of_a_multiprocessing_pool_share_nothing_but_the_answers(lab: Loopback, cache_dir: Path) -> None:
    ask("before")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # from Python 3.12 on, of every fork beside threads
        context = multiprocessing.get_context("fork")
        pool = context.Pool(3)
        try:
            answers = pool.map(_in_a_pool, range(12), chunksize=1)
        finally:
            pool.close()
            pool.join()
    assert [[f"answer to: Say number {number}", "answer to: Say before"] for number in range(12)] == answers
    assert 13 == lab.requests
    assert [f"answer to: Say number {number}" for number in range(12)] == ask(*(f"number {number}" for number in range(12)))
    assert 13 == lab.requests
    assert 2 <= len(list(cache_dir.glob("shard-*.sqlite"))) <= 4


def _in_a_pool(number: int) -> list[Any]:
    return ask(f"number {number}", "before")


def test_a_child_of_a_child_makes_calls_as_well(lab: Loopback, cache_dir: Path) -> None:
    ask("parent")

    def in_the_child() -> list[Any]:
        ask("child")
        return [shard(), *forked(lambda: [*ask("parent", "child", "grandchild"), shard()])]

    assert "shard-001.sqlite" == (said := forked(in_the_child))[0]
    assert [f"answer to: Say {who}" for who in ("parent", "child", "grandchild")] == said[1:4]
    assert "shard-002.sqlite" == said[4]
    assert 3 == lab.requests


def test_forks_in_the_middle_of_a_busy_run_hang_neither_the_child_nor_the_run(lab: Loopback, cache_dir: Path) -> None:
    lab.keep_seen = False
    ask("warm")
    df = pd.DataFrame({"text": [f"row {number}" for number in range(12_000)]})
    run = df.llm.chat("Say {text}", model="lab/m", wait=False, show_progress=False)
    forks = 0
    while forks < 30 and lab.requests < 11_000:  # a slow machine forks less often before the run is through
        lab.wait_for(lab.requests + 100)
        assert [f"answer to: Say child {forks}"] == forked(lambda number=forks: ask(f"child {number}"), timeout=15)
        forks += 1
    assert [f"answer to: Say row {number}" for number in range(12_000)] == run.result().tolist()
    assert forks >= 2
    assert 12_000 + forks + 1 == lab.requests


def test_a_parents_file_stays_locked_when_its_child_ends_and_is_free_when_the_parent_ends(lab: Loopback, cache_dir: Path) -> None:
    ask("parent")
    forked(lambda: ask("child"))
    own = llmkit.Session(cache_dir=cache_dir)
    own.add_provider("lab", lab.url, None, "openai", {})
    df = pd.DataFrame({"text": ["another"]})
    df.llm.using(own).chat("Say {text}", model="lab/m", show_progress=False)
    assert own.engine.writer is not None and own.engine.writer.store is not None
    assert "shard-001.sqlite" == own.engine.writer.store.path.name
    own.close()
    session.default().close()

    def alone() -> str:
        ask("alone")
        return shard()

    assert "shard-000.sqlite" == forked(alone)
