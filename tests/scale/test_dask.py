"""The same calls on a Dask cluster: two worker processes, a scheduler, and a provider that counts."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import dask
import dask.dataframe as dd
import pandas as pd
import pytest
from distributed import Client, LocalCluster
from pydantic import BaseModel, field_validator

import llmkit
from llmkit.scale import dask as clusters
from llmkit.scale import dask_scheduler
from llmkit.scale.dask import on_cluster
from tests.loopback import Loopback
from tests.loopback.answers import Status
from tests.process.child import Child, settled

CANARY = "sk-canary-3f9d1b7c2e"
REFUSAL = Status(400, b'{"error": {"message": "no", "type": "invalid_request_error"}}')
NAMES = ["billing", "delivery", "other"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    environment = {"LLMKIT_DOTENV": "off", "LAB_API_KEY": "test-key-not-real", "OPENAI_API_KEY": CANARY, "LLMKIT_CACHE_URL": ""}
    # So long after one has gone Dask looks whether it is back, and gives it up for good; by then another test has killed it once more.
    patient = dask.config.set({"distributed.deploy.lost-worker-timeout": "1 hour"})
    local = LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", env=environment, silence_logs=50, memory_limit=None
    )
    with patient, local as running:
        yield running


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[Client]:
    with Client(cluster) as running:
        running.wait_for_workers(2, timeout=60)
        yield running


class Review(BaseModel):
    stars: int
    tone: Literal["good", "bad"]
    tags: list[str]


def rows(count: int, missing: int = 7) -> pd.DataFrame:
    """Texts of which some are missing, on an index of names of which each stands twice."""
    index = pd.Index([f"name {number // 2}" for number in range(count)], name="key")
    texts = [f"row {number}" if number % missing else None for number in range(count)]
    return pd.DataFrame({"text": texts, "n": range(count), "other": 1.5}, index=index)


def asked(frame: pd.DataFrame) -> int:
    return int(frame["text"].notna().sum())


def repeats(server: Loopback) -> int:
    return sum(times - 1 for times in server.texts.values())


def call(accessor: Any, method: str, *given: Any, **keywords: Any) -> Any:
    return getattr(accessor, method)(*given, **{"model": "lab/m", "show_progress": False, **keywords})


CALLS: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
    "chat": ("chat", ("Say {text}",), {}),
    "chat in detail": ("chat", ("Say {text} and {n}",), {"detail": True}),
    "embed": ("embed", ("text",), {}),
    "extract": ("extract", (Review,), {"on": "text"}),
    "extract beside the frame, exploded": ("extract", ([{"part": str}],), {"on": "text", "explode": True, "join": True}),
    "classify": ("classify", ("text", NAMES), {}),
    "several labels a row": ("classify", ("text", NAMES), {"multi_label": True}),
    "the first rows only": ("chat", ("Say {text}",), {"limit": 25}),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_pandas_frame_on_a_cluster_gives_what_it_gives_without(lab: Loopback, client: Client, name: str) -> None:
    method, given, keywords = CALLS[name]
    frame = rows(60)
    made = call(on_cluster(frame, client, chunk_rows=16), method, *given, **keywords)
    same = call(frame.llm, method, *given, **keywords)
    if isinstance(same, pd.Series):
        pd.testing.assert_series_equal(made, same, check_index_type="exact")
    else:
        timed = [column for column in ("seconds", "queue_seconds") if column in same]
        pd.testing.assert_frame_equal(made.drop(columns=timed), same.drop(columns=timed), check_index_type="exact")
    if "explode" not in keywords:
        assert made.index is frame.index


@pytest.mark.parametrize("name", ["chat", "embed", "extract", "classify"])
def test_a_dask_frame_gives_what_pandas_gives_partition_by_partition(lab: Loopback, client: Client, name: str) -> None:
    method, given, keywords = CALLS[name]
    frame = rows(60).reset_index(drop=True)
    ddf = dd.from_pandas(frame, npartitions=3)
    made = call(ddf.llm, method, *given, chunk_rows=8, **keywords)
    assert made.npartitions == 3
    assert made.divisions == ddf.divisions
    same = call(frame.llm, method, *given, **keywords)
    if isinstance(same, pd.Series):
        pd.testing.assert_series_equal(made.compute(), same, check_index_type="exact")
        beside = ddf.assign(made=made).compute()
        pd.testing.assert_series_equal(beside["made"], same, check_names=False)
    else:
        pd.testing.assert_frame_equal(made.compute(), same, check_index_type="exact")


def test_a_frame_that_is_looked_at_several_times_pays_once_and_so_does_the_same_call(lab: Loopback, client: Client) -> None:
    frame = rows(40)
    ddf = dd.from_pandas(frame.reset_index(), npartitions=2, sort=False)
    made = ddf.llm.chat("Say {text}", model="lab/m", show_progress=False)
    made.head()
    assert len(made) == 40
    made.compute()
    assert settled(lab) == asked(frame)
    # The cell is run again, with a column more than before.
    again = ddf.assign(summary=made).llm.chat("Say {text}", model="lab/m", show_progress=False)
    pd.testing.assert_series_equal(again.compute(), made.compute())
    assert settled(lab) == asked(frame)
    assert llmkit.last().progress().stored == asked(frame)
    assert "40" not in ddf.llm.chat("Say it", on="n", model="echo/echo", show_progress=False).compute().iloc[0]


def test_dask_frames_that_come_after_llmkit_have_llm_once_it_is_asked_for() -> None:
    code = "import llmkit\nimport dask.dataframe as dd\nbefore = hasattr(dd.DataFrame, 'llm')\nimport llmkit.scale.dask\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}print(before, hasattr(dd.DataFrame, 'llm'))"], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "True"]


@pytest.mark.parametrize(("first", "there"), [("import dask.dataframe as dd", True), ("", False)])
def test_dask_frames_have_llm_where_dask_was_there_first_and_no_dask_is_loaded_elsewhere(first: str, there: bool) -> None:
    look = "print('dask.dataframe' in sys.modules and hasattr(dd.DataFrame, 'llm'), 'distributed' in sys.modules)"
    code = f"{first}\nimport llmkit, sys\n{look}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(there), str(there)]


def test_a_cluster_is_named_in_the_call_of_a_pandas_frame(lab: Loopback, client: Client) -> None:
    frame = rows(20)
    made = frame.llm.chat("Say {text}", model="lab/m", show_progress=False, cluster=client)
    assert made.notna().sum() == asked(frame)
    assert isinstance(llmkit.last(), clusters.ClusterRun)


def test_a_run_is_a_line_of_the_books_as_one_without_a_cluster_is(lab: Loopback, client: Client) -> None:
    price = {"input": 1.0, "output": 2.0}
    llmkit.catalogue.merge({"models": [{"provider": "lab", "name": "dear", "price": price, "operations": ["chat"]}]})
    lab.refuse = lambda body: REFUSAL if "row 17" in str(body) else None
    frame = rows(40, missing=1000)
    frame.llm.chat("Say {text}", model="lab/dear", show_progress=False)
    on_cluster(frame, client, chunk_rows=10).chat("Say {text}", model="lab/dear", show_progress=False)
    run = llmkit.last()
    same = ["operation", "models", "rows", "done", "errors", "stored", "requests", "input_tokens", "output_tokens", "cost", "stopped"]
    on_two, here = (line for _, line in llmkit.runs()[same].iterrows())
    assert llmkit.runs()["id"][0] == run.id
    assert on_two["cost"] > 0
    pd.testing.assert_series_equal(on_two, here, check_names=False)
    lab.refuse = None
    run.retry().result()
    used = llmkit.usage(by=["run", "model"])
    used = used[used["run"] == run.id].iloc[0]
    assert (used["model"], used["rows"], used["answers"], used["stored"]) == ("lab/dear", 40, 39, 0)
    assert (used["requests"], used["cost"]) == (run.usage().requests, pytest.approx(run.cost))
    on_cluster(frame, client, chunk_rows=10).chat("Say {text}", model="lab/dear", show_progress=False)
    assert llmkit.runs(limit=1)[["done", "stored", "requests", "cost"]].values.tolist() == [[39, 39, 0, 0]]


def test_the_books_name_a_run_that_was_stopped_and_what_it_paid(lab: Loopback, client: Client) -> None:
    lab.latency = 0.05
    run = on_cluster(rows(400), client, chunk_rows=100).chat(
        "Say {text}", model="lab/m", show_progress=False, max_concurrency=4, wait=False
    )
    lab.wait_for(40, timeout=30)
    assert pd.isna(llmkit.runs(limit=1)["seconds"][0]), "it is going on"
    run.cancel()
    assert run.wait(10)
    line = llmkit.runs(limit=1).iloc[0]
    assert (line["id"], line["stopped"], line["stored"]) == (run.id, "cancelled", 0)
    assert line["done"] == line["requests"] == run.usage().requests >= 30


# ------------------------------------------------------------------------------------------------------------ before the first


def test_a_worker_without_the_key_is_found_before_anything_is_sent(server: Loopback, client: Client) -> None:
    llmkit.add_provider("shop", server.url, api_key=CANARY)
    with pytest.raises(llmkit.ConfigError, match=r"nothing was sent: 2 of 2 workers: each finds no key for shop: set SHOP_API_KEY"):
        on_cluster(rows(20), client).chat("Say {text}", model="shop/m", show_progress=False)
    assert settled(server) == 0


def test_a_worker_with_another_pandas_is_found_before_anything_is_sent(
    lab: Loopback, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = clusters.versions()
    monkeypatch.setattr(clusters, "versions", lambda: here | {"pandas": "1.5.3"})
    with pytest.raises(llmkit.ConfigError, match=rf"each has pandas {here['pandas']}, and 1\.5\.3 is where the call was made"):
        on_cluster(rows(20), client).chat("Say {text}", model="lab/m", show_progress=False)
    assert settled(lab) == 0


def test_an_out_directory_of_another_call_is_refused(lab: Loopback, client: Client, tmp_path: Path) -> None:
    on_cluster(rows(20), client, out=tmp_path / "out").chat("Say {text}", model="lab/m", show_progress=False)
    with pytest.raises(llmkit.BadInput, match="holds the parts of another run"):
        on_cluster(rows(20), client, out=tmp_path / "out").chat("Sing {text}", model="lab/m", show_progress=False)
    assert settled(lab) == asked(rows(20))


@pytest.mark.parametrize(("here", "says"), [(2, "another llmkit than this one"), (1, "another llmkit than the workers")])
def test_a_scheduler_that_runs_on_with_older_code_is_told_of_and_nobody_waits(
    lab: Loopback, client: Client, monkeypatch: pytest.MonkeyPatch, here: int, says: str
) -> None:
    monkeypatch.setattr(dask_scheduler, "SPEAKS", 1)
    monkeypatch.setattr(clusters, "SPEAKS", here)
    with pytest.raises(llmkit.ConfigError, match=f"{says}: start the cluster anew"):
        on_cluster(rows(20), client).chat("Say {text}", model="lab/m", show_progress=False)
    assert settled(lab) == 0


def test_the_same_name_at_another_address_is_asked_anew(lab: Loopback, client: Client, tmp_path: Path) -> None:
    frame = rows(20)
    for out in (None, tmp_path / "out"):
        on_cluster(frame, client, out=out).chat("Say {text}", model="lab/m", show_progress=False)
    before = settled(lab)
    with Loopback() as other:
        llmkit.add_provider("lab", other.url, api_key="test-key-not-real")
        on_cluster(frame, client).chat("Say {text}", model="lab/m", show_progress=False)
        assert settled(other) == asked(frame)
        with pytest.raises(llmkit.BadInput, match="other there: the server's address"):
            on_cluster(frame, client, out=tmp_path / "out").chat("Say {text}", model="lab/m", show_progress=False)
        assert (settled(other), settled(lab)) == (asked(frame), before)


def test_what_does_not_run_on_a_cluster_says_what_to_do(lab: Loopback, client: Client) -> None:
    ddf = dd.from_pandas(rows(20).reset_index(), npartitions=2, sort=False)
    with pytest.raises(llmkit.Unsupported, match=r"search compares all rows with one another"):
        ddf.llm.search("late parcel", on="vector")
    with pytest.raises(llmkit.Unsupported, match=r"filter does not run on a cluster; chat, embed, extract and classify do"):
        ddf.llm.filter("is late", on="text")
    with pytest.raises(llmkit.Unsupported, match=r"ddf\.head\(1000\)\.llm\.chat\(\.\.\., dry_run=True\) times"):
        ddf.llm.chat("Say {text}", model="lab/m", dry_run=True)
    with pytest.raises(llmkit.Unsupported, match="no key is sent to workers"):
        ddf.llm.chat("Say {text}", model=object())

    class Local(BaseModel):
        said: str

    Local.scratch = threading.Lock()  # type: ignore[attr-defined]
    with pytest.raises(llmkit.ConfigError, match="cannot be sent to workers"):
        ddf.llm.extract(Local, on="text", model="lab/m")
    with pytest.raises(llmkit.BadInput, match="Did you mean {text}"):
        ddf.llm.chat("Say {texd}", model="lab/m")
    assert settled(lab) == 0


class Relay:
    """Stands between a client and its scheduler, and keeps every byte that passes."""

    def __init__(self, port: int) -> None:
        self._to = port
        self.passed = bytearray()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._sockets = [self._listener]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                one, _ = self._listener.accept()
            except OSError:
                return
            other = socket.create_connection(("127.0.0.1", self._to))
            self._sockets += [one, other]
            for source, target in ((one, other), (other, one)):
                threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                self.passed += data
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self) -> None:
        for one in self._sockets:
            one.close()


def test_no_key_is_in_any_byte_that_leaves_the_client_and_the_workers_use_their_own(
    server: Loopback, cluster: LocalCluster, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    server.key = CANARY
    relay = Relay(int(cluster.scheduler_address.rsplit(":", 1)[1]))
    frame = rows(20)
    with Client(f"tcp://127.0.0.1:{relay.port}", set_as_default=False) as through:
        on_cluster(frame, through, out=tmp_path / "out").chat("Say {text}", model="openai/gpt-5-mini", show_progress=False)
    relay.close()
    assert settled(server) == asked(frame)
    assert b"row 19" in relay.passed, "what was recorded is what was sent"
    assert CANARY.encode() not in relay.passed
    written = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert CANARY.encode() not in written


# ------------------------------------------------------------------------------------------------------------------ the limit


def busiest(server: Loopback, seconds: float = 1.0) -> int:
    """The most requests that came in any so many seconds."""
    came = sorted(seen.at for seen in server.seen)
    first = most = 0
    for last, at in enumerate(came):
        while came[first] <= at - seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


def test_the_workers_keep_to_one_limit_together_and_use_it(lab: Loopback, client: Client) -> None:
    on_cluster(rows(8), client, chunk_rows=2).chat("Wake up, {text}", model="lab/m", show_progress=False)
    lab.reset()
    llmkit.limit("lab", rpm=60 * 100)
    frame = rows(600, missing=1000)
    on_cluster(frame, client, chunk_rows=75).chat("Say {text}", model="lab/m", show_progress=False)
    came = sorted(seen.at for seen in lab.seen)
    print(f"{len(came)} in {came[-1] - came[0]:.2f} s, {busiest(lab)} in the busiest second")
    assert lab.requests == asked(frame)
    # A process that the machine holds up sends a little late: the benchmark measures this on a quiet one.
    assert busiest(lab) <= 110
    assert came[-1] - came[0] <= 1.5 * len(came) / 100


def test_a_limit_that_the_provider_tells_is_kept_by_all_workers(lab: Loopback, client: Client) -> None:
    lab.rate_limit(per_second=100, headers=True, window="second")
    frame = rows(400, missing=1000)
    made = on_cluster(frame, client, chunk_rows=50).chat("Say {text}", model="lab/told", show_progress=False)
    assert made.notna().sum() == asked(frame)
    print(f"{lab.rate_limited_count} of {lab.requests} were refused")
    assert lab.rate_limited_count <= 0.15 * asked(frame)


# ------------------------------------------------------------------------------------------------------ rows that cannot be had


class Picky(BaseModel):
    said: str

    @field_validator("said")
    @classmethod
    def not_seventeen(cls, value: str) -> str:
        if value == "seventeen":
            raise ValueError("not this one")
        return value


def test_a_row_that_raises_is_a_row_error_and_the_rest_of_its_chunk_is_there(lab: Loopback, client: Client) -> None:
    lab.answer = lambda body: '{"said": "seventeen"}' if "row 17" in str(body) else '{"said": "well"}'
    frame = rows(40, missing=1000)
    made = on_cluster(frame, client, chunk_rows=10).extract(Picky, on="text", model="lab/m", max_reask=0, show_progress=False)
    assert made["said"].notna().sum() == asked(frame) - 1
    errors = llmkit.last().errors()
    assert errors["row"].tolist() == [17]
    assert errors["index"].tolist() == [frame.index[17]]
    assert errors["kind"].tolist() == ["invalid"]


def test_failed_rows_are_asked_again_alone(lab: Loopback, client: Client) -> None:
    lab.refuse = lambda body: (
        Status(400, b'{"error": {"message": "no", "type": "invalid_request_error"}}') if "row 17" in str(body) else None
    )
    frame = rows(40, missing=1000)
    made = on_cluster(frame, client, chunk_rows=10).chat("Say {text}", model="lab/m", show_progress=False)
    run = llmkit.last()
    assert made.isna().tolist() == [pd.isna(text) or number == 17 for number, text in enumerate(frame["text"])]
    assert run.errors()["row"].tolist() == [17]
    lab.refuse = None
    before = settled(lab)
    assert run.retry().result().notna().sum() == asked(frame)
    assert settled(lab) == before + 1
    assert len(run.errors()) == 0
    lab.refuse = lambda body: REFUSAL
    with pytest.raises(llmkit.LLMError, match="row 1: "):
        on_cluster(frame, client).chat("Sing {text}", model="lab/m", show_progress=False, on_error="raise")


class Deadly(BaseModel):
    said: str

    @field_validator("said")
    @classmethod
    def survive(cls, value: str) -> str:
        if value == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        return value


def test_a_row_that_ends_every_worker_is_left_out_and_the_others_are_there(lab: Loopback, client: Client) -> None:
    frame = rows(24, missing=1000)
    lab.answer = lambda body: '{"said": "die"}' if "row 17" in str(body) else '{"said": "well"}'
    made = on_cluster(frame, client, chunk_rows=2).extract(Deadly, on="text", model="lab/m", show_progress=False)
    assert made["said"].notna().sum() == asked(frame) - 1
    errors = llmkit.last().errors()
    assert errors[["row", "kind"]].values.tolist() == [[17, "worker_died"]]
    print(f"{lab.requests} requests for {asked(frame)} rows")
    assert lab.requests <= 4 * asked(frame)
    assert lab.count("row 17") <= 4, "twice with its chunk, and twice alone"
    client.wait_for_workers(2, timeout=60)


def test_a_bound_on_the_cost_is_kept_by_all_chunks_together_and_spent(lab: Loopback, client: Client) -> None:
    price = {"input": 1000.0, "output": 1000.0}
    llmkit.catalogue.merge({"models": [{"provider": "lab", "name": "dear", "price": price, "operations": ["chat"]}]})
    frame = rows(200, missing=1000)
    keywords: dict[str, Any] = {"model": "lab/dear", "max_tokens": 10, "show_progress": False}
    whole = frame.llm.chat("Say {text}", **keywords, cache="off")
    assert whole.notna().sum() == asked(frame)
    bound = (llmkit.last().cost or 0.0) / 2
    with pytest.warns(UserWarning, match="max_cost"):
        made = on_cluster(frame, client, chunk_rows=20).chat("Say {text}", **keywords, max_cost=bound)
    run = llmkit.last()
    assert bound * 0.7 <= run.cost <= bound
    assert len(made) == len(frame)
    assert made.notna().sum() <= asked(frame) / 2 + 1


# --------------------------------------------------------------------------------------------------------------------- stopping


def test_after_a_stop_no_request_is_sent_and_the_same_call_sends_only_the_rest(lab: Loopback, client: Client) -> None:
    lab.latency = 0.05
    frame = rows(900, missing=10_000)
    keywords: dict[str, Any] = {"model": "lab/m", "show_progress": False, "max_concurrency": 8}
    run = on_cluster(frame, client, chunk_rows=150).chat("Say {text}", wait=False, **keywords)
    lab.wait_for(200, timeout=30)
    run.cancel()
    assert run.wait(10)
    at_the_end = settled(lab)
    assert at_the_end < asked(frame)
    assert lab.in_flight == 0, "nothing is on its way any more"
    assert run.stopped.kind == "cancelled"
    assert "stopped" in repr(run)
    partial = run.partial()
    assert len(partial) == len(frame)
    made = on_cluster(frame, client, chunk_rows=150).chat("Say {text}", **keywords)
    assert made.notna().sum() == asked(frame)
    assert at_the_end < settled(lab) <= asked(frame) + 16, "beside the rest those that were in flight on two workers"


def test_a_chunk_of_which_a_slow_row_is_left_holds_up_no_other(lab: Loopback, client: Client) -> None:
    frame = rows(100, missing=1000).iloc[1:]
    lab.latency = lambda seen: 30.0 if "row 10 and" in str(seen.body) or "row 20 and" in str(seen.body) else 0.01  # one for each worker
    run = on_cluster(frame, client, chunk_rows=10).chat("Say {text} and so on", model="lab/m", show_progress=False, wait=False)
    lab.wait_for(99, timeout=25)
    run.cancel()
    assert run.wait(10)


def test_a_worker_that_is_killed_repeats_what_was_in_flight_and_unflushed(lab: Loopback, client: Client) -> None:
    lab.latency = 0.03
    frame = rows(600, missing=10_000)
    run = on_cluster(frame, client, chunk_rows=200).chat("Say {text}", model="lab/m", show_progress=False, max_concurrency=8, wait=False)
    lab.wait_for(150, timeout=30)
    victim = next(iter(client.run(os.getpid).values()))
    os.kill(victim, signal.SIGKILL)
    made = run.result()
    assert made.tolist()[1:] == [f"answer to: Say row {number}" for number in range(1, 600)]
    # Eight were in flight, and a fifth of a second's worth of answers was on its way to the journal.
    print(f"{repeats(lab)} repeats")
    assert 0 < repeats(lab) <= 8 + 8 * 0.2 / 0.03
    client.wait_for_workers(2, timeout=60)


SCRIPT = """
from distributed import Client, LocalCluster
from llmkit.scale.dask import on_cluster
if __name__ == "__main__":
    rows = pd.DataFrame({"text": [f"row {number}" for number in range(400)]})
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50, memory_limit=None) as cluster:
        with Client(cluster) as client:
            say("begun")
            made = on_cluster(rows, client, chunk_rows=100, out=sys.argv[2] if len(sys.argv) > 2 else "out").chat(
                "Say {text}", model="lab/m", max_concurrency=4, show_progress=False)
            say(made.tolist())
"""


def test_when_client_scheduler_and_workers_die_together_the_same_call_goes_on(lab: Loopback, tmp_path: Path) -> None:
    lab.latency = 0.02
    with Child(SCRIPT, lab.url, tmp_path) as child:
        assert child.hear() == "begun"
        lab.wait_for(150, timeout=60)
        child.kill()  # of the process of client and scheduler; the workers find out, and end
    with Child(SCRIPT, lab.url, tmp_path) as child:
        assert child.hear() == "begun"
        assert child.hear(90) == [f"answer to: Say row {number}" for number in range(400)]
        child.end()
    print(f"{repeats(lab)} repeats")
    # Of each worker four in flight, and a fifth of a second's worth on its way to the journal.
    assert repeats(lab) <= 2 * (4 + 4 * 0.2 / 0.02)
