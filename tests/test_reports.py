"""What the journal says afterwards: totals that agree with the runs, over models, processes, retries and days."""

from __future__ import annotations

import doctest
import sqlite3
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import llmkit
from llmkit import reports
from llmkit.engine.store import Store
from llmkit.session import default
from tests.loopback import Hang, Loopback, Reset, refusal, server_error
from tests.process.child import Child

CHAT: dict[str, Any] = {"model": "lab/test-chat", "show_progress": False}
PRICE = {"input": 2.0, "cached_input": 1.0, "output": 8.0}
TOKENS = ["input_tokens", "cached_input_tokens", "output_tokens"]


def frame(*texts: str) -> pd.DataFrame:
    return pd.DataFrame({"text": list(texts)})


def price(model: str, **prices: float) -> None:
    provider, name = model.split("/")
    llmkit.catalogue.merge({"models": [{"provider": provider, "name": name, "price": prices}]})


@pytest.fixture
def priced(lab: Loopback) -> Loopback:
    price("lab/test-chat", **PRICE)
    lab.cached_tokens = 3
    return lab


@pytest.fixture
def spare(priced: Loopback) -> Iterator[Loopback]:
    """A second provider, dearer than the first."""
    with Loopback() as second:
        llmkit.add_provider("spare", second.url)
        price("spare/test-chat", input=20.0, cached_input=10.0, output=80.0)
        yield second


def only(table: pd.DataFrame) -> Any:
    assert len(table) == 1
    return table.iloc[0]


def eventually(condition: Callable[[], bool], timeout: float = 20.0) -> None:
    """For what no one announces (what another process writes): look until it is so."""
    pause, end = threading.Event(), time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end
        pause.wait(0.05)


# ---------------------------------------------------------------------------------------------------------------- runs


def test_a_line_says_what_its_run_did(priced: Loopback) -> None:
    before = pd.Timestamp.now("UTC")
    frame("a", "b", "a").llm.chat("Say {text}", **CHAT)
    run, line = llmkit.last(), only(reports.runs())
    assert (line["id"], line["operation"], line["models"]) == (run.id, "chat", "lab/test-chat")
    assert (line["rows"], line["done"], line["errors"], line["stored"], line["requests"]) == (3, 2, 0, 0, 2)
    assert line[TOKENS].tolist() == [run.usage().input, run.usage().cached_input, run.usage().output]
    assert line["cost"] == pytest.approx(run.cost)
    assert line["cost"] > 0
    assert before - timedelta(seconds=1) < line["started"] < pd.Timestamp.now("UTC")
    assert line["seconds"] >= 0
    assert pd.isna(line["stopped"])


def test_the_newest_run_stands_first_and_a_limit_cuts_the_oldest(lab: Loopback) -> None:
    for text in "abc":
        frame(text).llm.chat("Say {text}", **CHAT)
    newest = llmkit.last().id
    assert len(reports.runs()) == 3
    assert reports.runs()["started"].is_monotonic_decreasing
    assert reports.runs(limit=1)["id"].tolist() == [newest]
    assert reports.runs(limit=0).empty


def test_rates_are_of_what_was_settled(priced: Loopback) -> None:
    frame("a").llm.chat("Say {text}", **CHAT)
    priced.fault("bad", refusal())
    frame("a", "b", "c", "bad").llm.chat("Say {text}", **CHAT)
    line = reports.runs().iloc[0]
    assert (line["done"], line["stored"], line["errors"]) == (3, 1, 1)
    assert (line["cache_hit_rate"], line["error_rate"]) == (0.25, 0.25)


def test_an_unknown_price_is_an_unknown_cost(lab: Loopback) -> None:
    frame("a").llm.chat("Say {text}", **CHAT)
    assert np.isnan(only(reports.runs())["cost"])
    used = only(reports.usage())
    assert np.isnan(used["cost"])
    assert used["cost_at_least"] == 0
    assert repr(reports.report()).splitlines()[-1].split()[7] == "?"


def test_a_run_that_was_stopped_says_why(lab: Loopback) -> None:
    lab.key = "another"
    with pytest.raises(llmkit.KeyRejected):
        frame("a").llm.chat("Say {text}", **CHAT)
    assert only(reports.runs())["stopped"] == llmkit.last().stopped.kind


def test_a_run_without_the_cache_is_counted_from_its_line(priced: Loopback) -> None:
    frame("a", "b").llm.chat("Say {text}", cache="off", **CHAT)
    used = only(reports.usage())
    assert (used["model"], used["requests"], used["answers"]) == ("lab/test-chat", 2, 2)
    assert used["cost"] == pytest.approx(llmkit.last().cost)
    assert np.isnan(used["p50_seconds"])


@pytest.mark.parametrize("known", [True, False])
def test_a_killed_run_shows_what_it_kept_and_owns_to_what_is_unknown(
    priced: Loopback, cache_dir: Path, tmp_path: Path, known: bool
) -> None:
    priced.fault("slow", Hang(), times=float("inf"))
    price = {"models": [{"provider": "lab", "name": "test-chat", "operations": ["chat"], "price": PRICE}]} if known else {}
    script = f"""
llmkit.catalogue.merge({price})
df = pd.DataFrame({{"text": ["a", "b", "slow"]}})
df.llm.chat("Say {{text}}", model="lab/test-chat", show_progress=False)
"""
    with Child(script, priced.url, tmp_path, LLMKIT_CACHE_DIR=str(cache_dir)) as child:
        eventually(lambda: reports.runs()["done"].tolist() == [2])
        child.kill()
    line = only(reports.runs())
    assert (line["rows"], line["done"], line["errors"]) == (3, 2, 0)
    assert line["input_tokens"] > 0
    assert line[["seconds", "stored", "requests", "cost"]].isna().all()
    frame("c").llm.chat("Say {text}", **CHAT)
    used = only(reports.usage())
    assert (used["answers"], used["requests"], used["unfinished"]) == (3, 1, 1)
    each = llmkit.last().cost
    assert used["cost"] == pytest.approx(3 * each if known else np.nan, rel=0.2, nan_ok=True)
    assert used["cost_at_least"] == pytest.approx(used["cost"] if known else each)
    assert f"at least ${used['cost_at_least']:.4f}" in repr(reports.report())


# --------------------------------------------------------------------------------------------------------------- totals


def test_totals_agree_with_the_runs_and_stored_answers_are_not_paid_twice(priced: Loopback) -> None:
    paid = []
    for texts in (("a", "b"), ("a", "b", "c"), ("a", "b", "c")):
        frame(*texts).llm.chat("Say {text}", **CHAT)
        paid.append((llmkit.last().usage(), llmkit.last().cost))
    used = only(reports.usage())
    assert used["requests"] == sum(usage.requests for usage, _ in paid) == priced.requests
    assert used["input_tokens"] == sum(usage.input for usage, _ in paid)
    assert used["cached_input_tokens"] == sum(usage.cached_input for usage, _ in paid)
    assert used["output_tokens"] == sum(usage.output for usage, _ in paid)
    assert used["cost"] == pytest.approx(sum(cost for _, cost in paid))
    assert (used["rows"], used["answers"], used["stored"], used["cache_hit_rate"]) == (8, 3, 5, 5 / 8)


@pytest.mark.parametrize("by", ["model", "provider", "operation", "day", "run", ["day", "model"], ["run", "provider", "operation"]])
def test_however_it_is_grouped_the_totals_are_the_same(spare: Loopback, priced: Loopback, by: Any) -> None:
    priced.fault("b", refusal())
    priced.fault("c", server_error(), times=float("inf"))
    frame("a", "b", "c", "d").llm.chat("Say {text}", fallback="spare/test-chat", max_attempts=1, **CHAT)
    frame("a", "c", "e").llm.chat("Say {text}", fallback="spare/test-chat", max_attempts=1, **CHAT)
    frame("a", "e").llm.embed("text", model="lab/test-embed", show_progress=False)
    lines, used = reports.runs(), reports.usage(by)
    assert used["answers"].sum() == (lines["done"] - lines["stored"]).sum()
    for name in ("requests", "rows", "errors", "stored", *TOKENS):
        assert used[name].sum() == lines[name].sum(), name
    assert used["cost_at_least"].sum() == pytest.approx(lines["cost"].sum())
    assert list(used.columns[: 1 if isinstance(by, str) else len(by)]) == ([by] if isinstance(by, str) else by)


def test_a_batch_is_one_request_of_many_answers(lab: Loopback) -> None:
    frame("a", "b", "c", "d").llm.embed("text", model="lab/test-embed", show_progress=False)
    used = only(reports.usage("operation"))
    assert (used["operation"], used["requests"], used["answers"], used["answers_per_request"]) == ("embed", 1, 4, 4.0)


def test_a_streamed_answer_is_a_run_like_any_other(priced: Loopback) -> None:
    stream = llmkit.stream("Hello", model="lab/test-chat")
    assert "".join(stream)
    used = only(reports.usage())
    assert (used["requests"], used["answers"]) == (1, 1)
    assert used["cost"] == pytest.approx(stream.cost)


# --------------------------------------------------------------------------------------------------------------- retries


def test_a_retry_is_a_line_of_its_own_with_what_it_alone_used(priced: Loopback) -> None:
    priced.fault("b", refusal())
    run = frame("a", "b", "c").llm.chat("Say {text}", wait=False, **CHAT)
    run.result()
    first = (run.usage(), run.cost)
    run.retry().result()
    lines = reports.runs()
    assert lines["id"].tolist() == [f"{run.id}.2", run.id]
    assert lines["done"].tolist() == [1, 2]
    assert lines["errors"].tolist() == [0, 1]
    assert lines["requests"].tolist() == [run.usage().requests - first[0].requests, first[0].requests]
    assert lines["input_tokens"].sum() == run.usage().input
    assert lines["cost"].tolist() == pytest.approx([run.cost - first[1], first[1]])


def test_a_run_and_its_retries_are_one_run_in_the_usage(priced: Loopback) -> None:
    priced.fault("b", refusal(), refusal())
    run = frame("a", "b", "c").llm.chat("Say {text}", wait=False, **CHAT)
    run.result()
    run.retry().result()
    run.retry().result()
    used = only(reports.usage("run"))
    assert (used["run"], used["rows"], used["answers"], used["errors"]) == (run.id, 3, 3, 2)
    assert used["requests"] == run.usage().requests
    assert used["cost"] == pytest.approx(run.cost)
    assert only(reports.usage(since=reports.runs()["started"].iloc[0]))["requests"] == 1  # the last retry alone


# ---------------------------------------------------------------------------------------------------------------- routes


def test_answers_of_the_second_choice_are_its_own_and_counted_as_fallbacks(spare: Loopback, priced: Loopback) -> None:
    priced.fault("b", server_error(), times=float("inf"))
    frame("a", "b", "c", "d").llm.chat("Say {text}", fallback="spare/test-chat", max_attempts=1, **CHAT)
    run, used = llmkit.last(), reports.usage().set_index("model")
    assert used["answers"].to_dict() == {"lab/test-chat": 3, "spare/test-chat": 1}
    assert used["requests"].to_dict() == {"lab/test-chat": 3, "spare/test-chat": 1}
    assert used["rows"].to_dict() == {"lab/test-chat": 4, "spare/test-chat": 0}
    assert used["fallback_rate"].to_dict() == {"lab/test-chat": 0.0, "spare/test-chat": 1.0}
    assert only(reports.usage("operation"))["fallback_rate"] == 0.25
    assert used["cost"].sum() == pytest.approx(run.cost)
    assert used.loc["spare/test-chat", "cost"] > used.loc["lab/test-chat", "cost"]
    assert only(reports.runs())["cost"] == pytest.approx(run.cost)


def test_a_route_with_an_unknown_price_has_an_unknown_cost_once_that_model_answered(spare: Loopback, lab: Loopback) -> None:
    frame("a").llm.chat("Say {text}", model="spare/test-chat", fallback="lab/unpriced", show_progress=False)
    assert only(reports.runs())["cost"] == pytest.approx(llmkit.last().cost)
    frame("b").llm.chat("Say {text}", model="lab/unpriced", fallback="spare/test-chat", show_progress=False)
    assert llmkit.last().cost is None
    assert np.isnan(reports.runs()["cost"].iloc[0])


def test_a_price_that_changed_since_changes_nothing_that_was_paid(spare: Loopback, priced: Loopback) -> None:
    priced.fault("b", server_error(), times=float("inf"))
    frame("a", "b").llm.chat("Say {text}", fallback="spare/test-chat", max_attempts=1, **CHAT)
    before = reports.usage()["cost"].tolist()
    price("lab/test-chat", input=3.0, cached_input=1.0, output=8.0)
    assert reports.usage()["cost"].tolist() == before
    assert sum(before) == only(reports.runs())["cost"] == pytest.approx(llmkit.last().cost)


def test_answers_of_an_older_journal_are_priced_by_model_only_where_todays_prices_explain_the_whole(
    cache_dir: Path, spare: Loopback
) -> None:
    outcomes = [(1, 0, "live", None, "lab/test-chat", 1, 1.0, 150_000), (1, 1, "live", None, "spare/test-chat", 1, 1.0, 10_000)]
    journal(cache_dir, [(1, NOON, "lab/test-chat > spare/test-chat")], outcomes)
    assert reports.usage()["cost"].dropna().tolist() == [pytest.approx(0.3), pytest.approx(0.2)]
    price("lab/test-chat", input=3.0, cached_input=1.0, output=8.0)
    assert reports.usage()["cost"].isna().all()
    assert only(reports.usage("operation"))["cost"] == 0.5


def test_batches_that_two_models_shared_leave_the_requests_of_each_unknown(server: Loopback) -> None:
    llmkit.add_provider("lab", server.url, embed_batch=2)
    server.fault("c", server_error(), times=float("inf"))
    with Loopback() as second:
        llmkit.add_provider("spare", second.url, embed_batch=2)
        frame(*"abcd").llm.embed("text", model=["lab/test-embed", "spare/test-embed"], max_attempts=1, show_progress=False)
    used = reports.usage().set_index("model")
    assert used["answers"].to_dict() == {"lab/test-embed": 2, "spare/test-embed": 2}
    assert used["requests"].isna().all()
    assert only(reports.usage("operation"))["requests"] == 2


def test_all_requests_are_those_of_the_one_model_of_a_route_that_answered(lab: Loopback) -> None:
    frame(*"abcd").llm.embed("text", model="lab/test-embed", fallback="lab/other", show_progress=False)
    used = reports.usage().set_index("model")
    assert used["requests"].to_dict() == {"lab/test-embed": 1}


def test_a_route_without_outcomes_is_a_row_of_its_own(spare: Loopback) -> None:
    frame("a").llm.chat("Say {text}", fallback="spare/test-chat", cache="off", **CHAT)
    used = reports.usage().set_index("model")
    assert used["answers"].to_dict() == {"lab/test-chat": 0, "lab/test-chat > spare/test-chat": 1}
    assert used["rows"].to_dict() == {"lab/test-chat": 1, "lab/test-chat > spare/test-chat": 0}
    assert used["cost"].sum() == pytest.approx(llmkit.last().cost)
    assert "lab > spare" in reports.usage("provider")["provider"].tolist()


# -------------------------------------------------------------------------------------------------------- several processes


def test_the_journals_of_two_processes_add_up(priced: Loopback, cache_dir: Path, tmp_path: Path) -> None:
    frame("a", "b").llm.chat("Say {text}", **CHAT)
    script = """
llmkit.catalogue.merge({"models": [{"provider": "lab", "name": "test-chat", "price": hear()}]})
df = pd.DataFrame({"text": ["b", "c", "d"]})
run = df.llm.chat("Say {text}", model="lab/test-chat", wait=False, show_progress=False)
run.result()
say([run.id, run.usage().requests, run.usage().input, run.cost])
hear()
"""
    here = llmkit.last()
    with Child(script, priced.url, tmp_path, LLMKIT_CACHE_DIR=str(cache_dir)) as child:
        child.tell(PRICE)
        there, requests, tokens, cost = child.hear()
        assert set(reports.runs()["id"]) == {here.id, there}
        used = only(reports.usage())
        child.tell(None)
        child.end()
    assert used["requests"] == here.usage().requests + requests == 4
    assert used["input_tokens"] == here.usage().input + tokens
    assert used["cost"] == pytest.approx(here.cost + cost)
    assert (used["answers"], used["stored"]) == (4, 1)
    pd.testing.assert_series_equal(only(reports.usage())[["requests", "cost"]], used[["requests", "cost"]])


@pytest.mark.parametrize("spoil", [lambda path: sqlite_version(path, 999), lambda path: path.write_bytes(b"no database" * 999)])
def test_a_journal_that_cannot_be_read_is_named_and_the_others_are_counted(lab: Loopback, cache_dir: Path, spoil: Any) -> None:
    other = llmkit.Session(cache_dir=cache_dir)
    other.add_provider("lab", lab.url, None, "openai", {})
    frame("a").llm.using(other).chat("Say {text}", **CHAT)
    other.close()
    (path,) = cache_dir.glob("shard-*.sqlite")
    path.rename(path.with_name("shard-007.sqlite"))
    spoil(path.with_name("shard-007.sqlite"))
    frame("b").llm.chat("Say {text}", **CHAT)
    with pytest.warns(RuntimeWarning, match=r"shard-007\.sqlite .* cannot be read"):
        assert len(reports.runs()) == 1


def sqlite_version(path: Path, version: int) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version={version}")


def test_where_nothing_can_be_kept_there_is_nothing_to_report(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LLMKIT_CACHE_DIR", str(tmp_path / "file" / "below"))
    with pytest.warns(RuntimeWarning, match="cannot keep answers on disk"):
        assert reports.runs().empty


# ------------------------------------------------------------------------------------------- a journal written for the test


def journal(cache_dir: Path, lines: list[tuple[Any, ...]], outcomes: list[tuple[Any, ...]], **more: list[Any]) -> None:
    """A shard with these lines of (number, started, model) and outcomes of (run, task, source, error, model, attempts, seconds, input).

    ``more`` are further columns of the outcomes.
    """
    store = Store(cache_dir)
    for number, started, model in lines:
        store._db.execute(
            "INSERT INTO runs VALUES (?, ?, 'chat', ?, ?, ?, 10, 10, 0, 0, 10, 0, 0, 0, 0.5, NULL, 0)",
            (number, f"run{number:03d}", model, started, started + 9),
        )
    columns = ", ".join(["run, task, source, error, model, attempts, seconds, input, cached_input, output", *more])
    marks = ", ".join(["?, ?, ?, ?, ?, ?, ?, ?, 0, 0", *"?" * len(more)])
    rows = [(*outcome, *further) for outcome, *further in zip(outcomes, *more.values(), strict=True)]
    store._db.executemany(f"INSERT INTO outcomes ({columns}) VALUES ({marks})", rows)
    store.close()


NOON = datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()
DAY = 86_400.0


def test_percentiles_are_those_of_numpy_however_the_journal_is_cut_into_pages(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = np.random.default_rng(0).lognormal(size=(3, 101))
    outcomes = [(run + 1, task, "live", None, "a/m", 1, float(seconds[run, task]), 1) for run in range(3) for task in range(101)]
    journal(cache_dir, [(run + 1, NOON + run, "a/m") for run in range(3)], outcomes)
    whole = reports.usage("run")
    np.testing.assert_allclose(whole["p50_seconds"], np.percentile(seconds, 50, axis=1))
    np.testing.assert_allclose(whole["p95_seconds"], np.percentile(seconds, 95, axis=1))
    for size in (1, 7, 101, 303):
        monkeypatch.setattr(reports, "_PAGE", size)
        pd.testing.assert_frame_equal(reports.usage("run"), whole)


def test_the_queue_stands_apart_from_the_request(cache_dir: Path) -> None:
    seconds, queued = np.random.default_rng(1).lognormal(size=(2, 200))
    outcomes = [(1, task, "live", None, "a/m", 1, float(seconds[task]), 1) for task in range(200)]
    journal(cache_dir, [(1, NOON, "a/m")], outcomes, queued=queued.tolist())
    used = only(reports.usage())
    for name, share in (("p50", 50), ("p90", 90), ("p95", 95), ("p99", 99)):
        assert used[f"{name}_seconds"] == pytest.approx(np.percentile(seconds, share))
        assert used[f"queue_{name}_seconds"] == pytest.approx(np.percentile(queued, share))


def test_rows_that_wait_for_their_turn_were_in_the_queue(lab: Loopback) -> None:
    frame("first").llm.chat("Say {text}", **CHAT)  # makes the connection, and imports the SDK that addresses it
    began = pd.Timestamp.now("UTC")
    lab.latency = 0.05
    detail = frame(*"abcd").llm.chat("Say {text}", max_concurrency=1, detail=True, **CHAT)
    assert detail["queue_seconds"].tolist() == sorted(detail["queue_seconds"])
    assert detail["queue_seconds"].iloc[-1] >= 0.14
    assert detail["seconds"].between(0.045, 0.14).all()
    used = only(reports.usage(since=began))
    assert used["queue_p99_seconds"] == pytest.approx(np.percentile(detail["queue_seconds"].astype(float), 99), rel=1e-3)
    again = frame(*"abcd").llm.chat("Say {text}", detail=True, **CHAT)
    assert again["queue_seconds"].tolist() == [0.0] * 4


def test_a_journal_of_before_the_queue_was_counted_does_not_know_it(cache_dir: Path) -> None:
    journal(cache_dir, [(1, NOON, "a/m")], [(1, 0, "live", None, "a/m", 1, 1.0, 1)])
    used = only(reports.usage())
    assert used["p50_seconds"] == 1.0
    assert np.isnan(used["queue_p50_seconds"])


def test_errors_are_counted_by_model_and_kind(priced: Loopback) -> None:
    priced.fault("bad", refusal(), times=2)
    priced.fault("down", server_error(), times=float("inf"))
    frame("bad 1", "bad 2", "down", "good").llm.chat("Say {text}", max_attempts=1, **CHAT)
    found = reports.report().errors()
    assert found["model"].tolist() == ["lab/test-chat"] * 2
    assert found["kind"].tolist() == ["refusal", "server"]
    assert found["errors"].tolist() == [2, 1]
    assert found["error_rate"].tolist() == [0.5, 0.25]
    shown = reports.report()._repr_html_()
    assert "<td>refusal</td><td>2</td>" in shown


def test_errors_of_runs_without_outcomes_have_no_kind(lab: Loopback) -> None:
    lab.fault("bad", refusal())
    frame("bad", "good").llm.chat("Say {text}", cache="off", **CHAT)
    found = reports.report().errors()
    assert found["kind"].isna().tolist() == [True]
    assert found["errors"].tolist() == [1]


def test_an_answer_counts_when_it_came_and_not_when_its_run_began(cache_dir: Path) -> None:
    came = [NOON + 30, NOON + 40, NOON + 90, NOON + 600]
    outcomes = [(1, task, "live", None, "a/m", 1, 1.0, 10) for task in range(4)]
    journal(cache_dir, [(1, NOON, "a/m")], outcomes, finished=came, cost=[0.1, 0.1, 0.2, 0.1])
    found = reports.report().over_time()
    assert found["when"].tolist() == [pd.Timestamp(NOON + after, unit="s", tz="UTC") for after in (0, 60, 600)]
    # Of the run's ten answers six left no outcome: they count at its beginning.
    assert found["answers"].tolist() == [2 + 6, 1, 1]
    assert found["input_tokens"].tolist() == [20, 10, 10]
    assert found["cost"].tolist() == pytest.approx([0.2, 0.2, 0.1])


def test_what_came_over_time_adds_up_to_the_usage(spare: Loopback, priced: Loopback) -> None:
    priced.fault("b", server_error(), times=float("inf"))
    priced.fault("bad", refusal())
    frame("a", "b", "bad", "d").llm.chat("Say {text}", fallback="spare/test-chat", max_attempts=1, **CHAT)
    frame("x", "y").llm.chat("Say {text}", cache="off", **CHAT)
    used, found = reports.usage().set_index("model"), reports.report().over_time().groupby("model").sum(numeric_only=True)
    counts = ["answers", "errors", *TOKENS]
    pd.testing.assert_frame_equal(found[counts], used.loc[found.index, counts], check_dtype=False)
    assert found["cost"].tolist() == pytest.approx(used.loc[found.index, "cost"].tolist())
    assert set(found.index) == set(used.index)


def test_an_unknown_price_is_an_unknown_cost_over_time(lab: Loopback) -> None:
    frame("a").llm.chat("Say {text}", **CHAT)
    assert only(reports.report().over_time())[["cost", "cost_at_least"]].isna().tolist() == [True, False]


def test_what_a_prompt_cache_saved_is_the_difference_to_fresh_input(priced: Loopback) -> None:
    frame("a", "b").llm.chat("Say {text}", **CHAT)
    cached = llmkit.last().usage().cached_input
    assert cached == 6
    assert only(reports.usage())["saved"] == pytest.approx(cached * (PRICE["input"] - PRICE["cached_input"]) / 1e6)


def test_requests_whose_answer_was_lost_were_possibly_billed(priced: Loopback) -> None:
    priced.fault("bad", Reset())
    frame("bad", "good").llm.chat("Say {text}", **CHAT)
    assert only(reports.usage())["possibly_billed"] == 1
    assert only(reports.usage())["errors"] == 0


def test_the_slowness_of_errors_is_not_the_latency_of_answers(cache_dir: Path) -> None:
    journal(cache_dir, [(1, NOON, "a/m")], [(1, 0, "live", None, "a/m", 1, 2.0, 1), (1, 1, None, "timeout", "a/m", 5, 900.0, 0)])
    assert only(reports.usage())["p95_seconds"] == 2.0


def test_an_error_that_was_shared_with_another_run_is_not_paid_twice(cache_dir: Path) -> None:
    journal(cache_dir, [(1, NOON, "a/m > b/m")], [(1, 0, None, "refused", "a/m", 0, 0.0, 70), (1, 1, None, "refused", "a/m", 1, 0.0, 5)])
    assert reports.usage().set_index("model")["input_tokens"]["a/m"] == 5


def test_days_are_those_of_utc_and_in_order(cache_dir: Path) -> None:
    journal(cache_dir, [(1, NOON, "a/m"), (2, NOON + 11.99 * 3600, "a/m"), (3, NOON + 12 * 3600, "a/m")], [])
    used = reports.usage("day")
    assert used["day"].tolist() == [pd.Timestamp("2026-11-20", tz="UTC"), pd.Timestamp("2026-11-21", tz="UTC")]
    assert used["requests"].tolist() == [20, 10]
    assert used["cost"].tolist() == [1.0, 0.5]


@pytest.mark.parametrize(
    "since",
    ["2026-11-20 12:00:01", "2026-11-20T13:00:01+01:00", datetime(2026, 11, 20, 12, 0, 1), datetime(2026, 11, 20, 12, 0, 1, tzinfo=UTC)],
)
def test_a_moment_cuts_off_what_began_before_it(cache_dir: Path, since: Any) -> None:
    journal(cache_dir, [(1, NOON, "a/m"), (2, NOON + 1, "a/m"), (3, NOON + 2, "a/m")], [(1, 0, "live", None, "a/m", 1, 50.0, 1)])
    assert reports.runs(since=since)["id"].tolist() == ["run003", "run002"]
    used = only(reports.usage(since=since))
    assert used["requests"] == 20
    assert np.isnan(used["p50_seconds"])


def test_a_span_of_time_reaches_back_from_now(cache_dir: Path) -> None:
    now = time.time()
    journal(cache_dir, [(1, now - 3 * DAY, "a/m"), (2, now - DAY, "a/m")], [])
    assert reports.runs(since=timedelta(days=2))["id"].tolist() == ["run002"]


@pytest.mark.parametrize("since", [5, 1.5, "soon", object(), ["2026"], "NaT"])
def test_a_moment_that_is_none_is_an_error(since: Any) -> None:
    with pytest.raises(llmkit.BadInput, match="since is a moment"):
        reports.usage(since=since)


@pytest.mark.parametrize("by", ["models", [], ["model", "model"], ["day", "month"]])
def test_groups_that_there_are_not_are_an_error(by: Any) -> None:
    with pytest.raises(llmkit.BadInput, match="by is one or several of model, provider, operation, day, run"):
        reports.usage(by)


@pytest.mark.parametrize("limit", [-1, 1.5, "3", True])
def test_a_limit_that_is_no_number_of_runs_is_an_error(limit: Any) -> None:
    with pytest.raises(llmkit.BadInput, match="limit is a number of runs"):
        reports.runs(limit)


# ----------------------------------------------------------------------------------------------------------------- empty


@pytest.mark.parametrize("by", ["model", "provider", "operation", "day", "run", ["day", "model"]])
def test_an_empty_journal_gives_empty_frames_of_the_same_types(cache_dir: Path, by: Any) -> None:
    empty_runs, empty_usage = reports.runs(), reports.usage(by)
    assert len(empty_runs) == len(empty_usage) == 0
    default().close()
    journal(cache_dir, [(1, NOON, "a/m")], [(1, 0, "live", None, "a/m", 1, 1.0, 1)])
    pd.testing.assert_series_equal(empty_runs.dtypes, reports.runs().dtypes)
    pd.testing.assert_series_equal(empty_usage.dtypes, reports.usage(by).dtypes)


def test_times_know_their_zone() -> None:
    assert str(reports.runs()["started"].dtype) == str(reports.usage("day")["day"].dtype) == "datetime64[us, UTC]"


# ---------------------------------------------------------------------------------------------------------------- report


def test_a_report_is_a_table_by_model_with_a_total(priced: Loopback) -> None:
    frame("a", "b").llm.chat("Say {text}", **CHAT)
    frame("a").llm.embed("text", model="lab/test-embed", show_progress=False)
    title, head, *rows = repr(reports.report()).splitlines()
    assert title.startswith("llmkit: 2 runs begun from 20")
    assert head.split()[:2] == ["model", "requests"]
    assert [row.split()[:3] for row in rows] == [["lab/test-chat", "2", "2"], ["lab/test-embed", "1", "1"], ["total", "3", "3"]]
    table = reports.report().to_frame()
    pd.testing.assert_frame_equal(table.iloc[:-1], reports.usage())
    assert table["requests"].tolist() == [2, 1, 3]


def test_a_report_of_nothing_says_so() -> None:
    assert repr(reports.report()).startswith("llmkit: no runs\n")
    assert "no runs" in reports.report()._repr_html_()


def test_a_model_named_like_a_tag_is_text_in_html(lab: Loopback) -> None:
    frame("a").llm.chat("Say {text}", model="lab/<img src=x onerror=alert(1)>", show_progress=False)
    shown = reports.report()._repr_html_()
    assert "<img" not in shown
    assert "lab/&lt;img src=x onerror=alert(1)&gt;" in shown


def test_no_prompt_and_no_answer_is_read(priced: Loopback) -> None:
    frame("a", "b").llm.chat("Say {text}", **CHAT)
    store = default().engine.writer.store
    touched: list[str] = []

    def watch(action: int, table: str | None, *_: Any) -> int:
        touched.extend([table] if action == sqlite3.SQLITE_READ and table else [])
        return sqlite3.SQLITE_OK

    store._db.set_authorizer(watch)
    reports.report(), reports.runs()
    store._db.set_authorizer(None)
    assert set(touched) == {"runs", "outcomes"}


def titles(figure: Any) -> list[str]:
    heads = [(axes.get_legend().get_title().get_text() if axes.get_legend() else axes.get_title("left")) for axes in figure.axes]
    return [head for head in heads if head]


def drawn(figure: Any, path: Path) -> None:
    """Laid out and drawn: no legend of it lies on its data, and nothing warned."""
    from matplotlib import pyplot

    figure.savefig(path)
    assert path.stat().st_size > 10_000
    assert pyplot.get_fignums() == []
    for axes in figure.axes:
        if axes.get_legend() is not None:
            assert axes.get_legend().get_window_extent().y0 >= axes.get_window_extent().y1 - 1


@pytest.fixture
def plots(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("MPLBACKEND", "Agg")
    return tmp_path / "figure.png"


@pytest.mark.parametrize("apart", [60.0, 3600.0, DAY])
def test_a_plot_has_four_axes(cache_dir: Path, plots: Path, apart: float) -> None:
    outcomes = [(run, 0, "live", None, "a/m", 1, float(run), 1) for run in range(1, 6)]
    journal(cache_dir, [(run, NOON + run * apart, "a/m") for run in range(1, 6)], outcomes)
    figure = reports.report().plot()
    drawn(figure, plots)
    assert titles(figure) == ["Answers and errors", "Cost by model", "Time to an answer", "Shares"]
    unit = {60.0: "minute", 3600.0: "hour", DAY: "day"}[apart]
    assert [axes.get_ylabel() for axes in figure.axes[:2]] == [f"rows asked per {unit}", f"US dollars per {unit}"]
    answers, errors = figure.axes[0].containers
    assert [bar.get_height() for bar in answers] == [10] * 5
    assert [bar.get_height() for bar in errors] == [0] * 5
    assert sum(bar.get_height() for bars in figure.axes[1].containers for bar in bars) == pytest.approx(2.5)


def test_an_empty_journal_can_be_plotted_and_says_so(plots: Path) -> None:
    figure = reports.report().plot()
    figure.savefig(plots)
    assert [axes.texts[0].get_text() for axes in figure.axes] == ["no requests", "nothing was paid", "no answers", "no requests"]


def test_a_plot_of_runs_without_a_price_or_outcomes_says_so(lab: Loopback, plots: Path) -> None:
    frame("a").llm.chat("Say {text}", cache="off", **CHAT)
    figure = reports.report().plot()
    figure.savefig(plots)
    assert [axes.texts[0].get_text() for axes in figure.axes[1:3]] == ["no price is known", "no answers"]


def test_of_many_models_a_plot_shows_the_largest_and_the_rest_as_one(cache_dir: Path, plots: Path) -> None:
    names = [f"house{number}/{'long-' * number}model" for number in range(9)]
    outcomes = [(run, task, "live", None, name, 1, 1.0, 1) for run, name in enumerate(names, 1) for task in range(run)]
    journal(cache_dir, [(run, NOON + run, name) for run, name in enumerate(names, 1)], outcomes)
    figure = reports.report().plot()
    drawn(figure, plots)
    assert len(figure.axes[3].get_yticks()) == 6
    labels = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    assert len(labels) == 6 and labels[-1] == "others"
    assert all(len(label) <= 28 for label in labels)


HISTORY = {"window": [4.0, 8.0, 4.0], "in_flight": [4, 7, 4], "waiting": [60, 50, 0], "requests_per_minute": [np.nan, 480.0, 240.0]}


def test_a_runs_history_is_drawn_a_column_a_model(plots: Path) -> None:
    one = pd.DataFrame({"seconds": [0.0, 1.0, 2.0], "model": "a/m", **HISTORY, "refused": [0, 0, 3]})
    figure = reports.plot_history(pd.concat([one, one.assign(model="b/m", refused=0)]))
    drawn(figure, plots)
    assert titles(figure) == ["a/m", "b/m"]
    labels = [[text.get_text() for text in axes.get_legend().get_texts()] for axes in figure.axes]
    assert labels == [["in flight", "window", "waiting"]] * 2 + [["requests a minute", "refused (3)"], ["requests a minute"]]
    (refused,) = (line for line in figure.axes[2].lines if line.get_label().startswith("refused"))
    assert refused.get_xdata().tolist() == [2.0]


def test_a_history_of_nothing_says_so(plots: Path) -> None:
    figure = reports.plot_history(pd.DataFrame({"seconds": [], "model": [], **{name: [] for name in [*HISTORY, "refused"]}}))
    figure.savefig(plots)
    assert [axes.texts[0].get_text() for axes in figure.axes] == ["nothing was sent"] * 2


def test_without_matplotlib_a_plot_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(llmkit.MissingExtra, match=r"pip install 'llmkit\[plot\]'"):
        reports.report().plot()
    with pytest.raises(llmkit.MissingExtra, match=r"pip install 'llmkit\[plot\]'"):
        reports.plot_history(pd.DataFrame({"model": []}))


def test_the_extra_that_is_named_exists() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["optional-dependencies"]["plot"] == ["matplotlib>=3.8"]
    assert "plot" in project["optional-dependencies"]["all"][0]


def test_the_examples_do_what_they_say() -> None:
    assert doctest.testmod(reports).failed == 0
    assert doctest.testmod(reports).attempted > 0
