"""kill -9 while a file is on its way into parts: what was in the air is asked again, nothing else, and every row is there once."""

from __future__ import annotations

import random
import signal
import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmkit.engine.writer import Writer
from tests.loopback import Loopback
from tests.process.child import Child, settled
from tests.process.test_kill import kept
from tests.process.test_memory import PEAK

ROWS, KILLS = 4_000, 20

#: ``max_concurrency``'s default, and what the store may hold back.
IN_FLIGHT, UNFLUSHED = 64, 2 * Writer.CROWD

RUN = """
done = llmkit.stream_file("in.parquet", "chat", prompt="Say {text}", out="out", model="lab/m", chunk_rows=250, show_progress=False)
say([done.rows, done.failed])
"""


def written(folder: Path, rows: int) -> None:
    table = pa.table({"number": range(rows), "text": [f"row {number}" for number in range(rows)]})
    pq.write_table(table, folder / "in.parquet", row_group_size=10_000)


def right(folder: Path, rows: int) -> bool:
    found = pd.read_parquet(folder / "out")
    return found["number"].tolist() == list(range(rows)) and found["chat"].tolist() == [f"answer to: Say row {i}" for i in range(rows)]


def test_a_file_whose_run_is_killed_twenty_times_ends_with_every_row_once_and_in_order(tmp_path: Path) -> None:
    chance, lost, finished = random.Random(20261121), [], []
    written(tmp_path, ROWS)
    with Loopback(keep_seen=False) as server:
        server.latency = 0.002
        for _ in range(KILLS):
            with Child(RUN, server.url, tmp_path) as child:
                server.wait_for(server.requests + chance.randint(1, 2 * ROWS // KILLS), 60)
                child.kill()
            lost.append(settled(server) - kept(tmp_path / "cache") - sum(lost))
            finished.append(len(list(tmp_path.glob("out/part-*.parquet"))))
        with Child(RUN, server.url, tmp_path) as child:
            assert child.hear() == [ROWS, 0]
            child.end()
        assert right(tmp_path, ROWS)
        assert 0 < finished[-1] <= ROWS // 250
        repeats = server.requests - ROWS
        print(f"\n{KILLS} kills of {ROWS:,} rows: {repeats} repeated requests, at most {max(lost)} and on average "
              f"{sum(lost) / KILLS:.0f} for a kill; bound {IN_FLIGHT + UNFLUSHED}")  # fmt: skip
        assert repeats == sum(lost)
        assert max(lost) <= IN_FLIGHT + UNFLUSHED
        assert sum(lost) / KILLS <= IN_FLIGHT + 2 * 64
        seen = server.requests
        with Child(RUN, server.url, tmp_path) as child:  # once more: nothing is asked twice
            assert child.hear() == [ROWS, 0]
        assert seen == server.requests


def test_parts_are_found_finished_even_where_no_answer_is_stored(tmp_path: Path) -> None:
    written(tmp_path, 1_000)
    run = RUN.replace("show_progress", 'cache="off", show_progress')
    with Loopback(keep_seen=False) as server:
        server.latency = 0.002
        with Child(run, server.url, tmp_path) as child:
            server.wait_for(700, 60)
            child.kill()
        there = len(list(tmp_path.glob("out/part-*.parquet")))
        seen = settled(server)
        with Child(run, server.url, tmp_path) as child:
            assert child.hear() == [1_000, 0]
        assert there >= 1
        assert server.requests - seen == 1_000 - 250 * there
        assert right(tmp_path, 1_000)


MEASURED = """
how = {"model": "echo/echo", "chunk_rows": 200, "show_progress": False}
llmkit.stream_file("in.parquet", "chat", prompt="Say {text}", out="out", limit=3_000, **how)
before = peak()
done = llmkit.stream_file("in.parquet", "chat", prompt="Say {text}", out="out", **how)
say([done.rows, peak() - before])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="this platform does not tell a process's peak without help")
def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    rows, cell = 20_000, "long " * 800
    with pq.ParquetWriter(tmp_path / "in.parquet", pa.schema({"text": pa.string()})) as file:
        for start in range(0, rows, 500):
            file.write_table(pa.table({"text": [f"row {number} {cell}" for number in range(start, start + 500)]}))
    with Child(PEAK + MEASURED, "http://127.0.0.1:9/v1", tmp_path) as child:
        done, more = child.hear(timeout=120)
        child.end()
    print(f"\nfrom 3,000 rows to {rows:,}: {more / 2**20:.0f} MB more")
    assert done == rows
    # Held, the texts and their answers would be 130 MB; the store's own pages are 16.
    assert more < 50 * 2**20


def test_a_disk_that_fills_costs_no_answer_and_the_same_call_goes_on(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    written(tmp_path, 1_000)
    # No file may grow beyond so many bytes: the store's comes first to that.
    limited = f"""
import resource, warnings
resource.setrlimit(resource.RLIMIT_FSIZE, ({300_000}, resource.RLIM_INFINITY))
warnings.simplefilter("ignore")
try:
    llmkit.stream_file("in.parquet", "chat", prompt="Say {{text}}", out="out", model="lab/m", chunk_rows=250, show_progress=False)
except llmkit.DiskFull as error:
    say(str(error))
"""
    assert resource.RLIM_INFINITY and signal.SIGXFSZ
    with Loopback(keep_seen=False) as server:
        server.latency = 0.002
        with Child(limited, server.url, tmp_path) as child:
            assert "make room" in child.hear()
            child.end()
        seen, there = settled(server), kept(tmp_path / "cache")
        assert 0 < seen < 1_000
        assert seen - there <= IN_FLIGHT + UNFLUSHED
        with Child(RUN, server.url, tmp_path) as child:
            assert child.hear() == [1_000, 0]
        assert server.requests - seen <= 1_000 - there
        assert right(tmp_path, 1_000)
