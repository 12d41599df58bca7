"""kill -9 costs what was in the air, never what was answered and never a row."""

from __future__ import annotations

import json
import random
import sqlite3
from contextlib import closing
from pathlib import Path

from llmkit.engine.writer import Writer
from tests.loopback import Loopback
from tests.process.child import Child, settled

ROWS, KILLS = 5_000, 20

#: ``max_concurrency``'s default, and what the store may hold back: a group that is being written, and one that waits.
IN_FLIGHT, UNFLUSHED = 64, 2 * Writer.CROWD

RUN = f"""
df = pd.DataFrame({{"text": [f"row {{i}}" for i in range({ROWS})]}})
values = df.llm.chat("Say {{text}}", model="lab/m", show_progress=False)
with open("result.json", "w") as file:
    json.dump({{"values": values.tolist(), "index": values.index.tolist(), "errors": len(llmkit.last().errors())}}, file)
"""


def kept(directory: Path) -> int:
    """Answers that are on the disk."""
    count = 0
    for path in directory.glob("shard-*.sqlite"):
        with closing(sqlite3.connect(path)) as db:
            assert [("ok",)] == db.execute("PRAGMA quick_check").fetchall()
            if db.execute("PRAGMA user_version").fetchone() != (0,):  # else it was killed before it made its tables
                count += db.execute("SELECT count(*) FROM replies").fetchone()[0]
    return count


def test_a_run_that_is_killed_twenty_times_ends_with_every_row_once_and_in_order(tmp_path: Path) -> None:
    chance, lost = random.Random(20261121), []
    # The server lives in this process, so that a kill can wait for a number of requests and not for a time.
    with Loopback(keep_seen=False) as server:
        server.latency = 0.002
        for _ in range(KILLS):
            with Child(RUN, server.url, tmp_path) as child:
                server.wait_for(server.requests + chance.randint(1, 300), 60)
                child.kill()
            lost.append(settled(server) - kept(tmp_path / "cache") - sum(lost))
        assert not (tmp_path / "result.json").exists()
        with Child(RUN, server.url, tmp_path) as child:
            child.end()
        result = json.loads((tmp_path / "result.json").read_text())
        assert [f"answer to: Say row {number}" for number in range(ROWS)] == result["values"]
        assert list(range(ROWS)) == result["index"]
        assert 0 == result["errors"]
        assert ROWS == kept(tmp_path / "cache") == len(server.texts)
        repeats = server.requests - ROWS
        print(f"\n{KILLS} kills of {ROWS:,} rows: {repeats} repeated requests, at most {max(lost)} and on average "
              f"{sum(lost) / KILLS:.0f} for a kill; bound {IN_FLIGHT + UNFLUSHED}")  # fmt: skip
        assert repeats == sum(lost)
        assert max(lost) <= IN_FLIGHT + UNFLUSHED
        assert sum(lost) / KILLS <= IN_FLIGHT + 2 * 64
        seen = server.requests
        with Child(RUN, server.url, tmp_path) as child:  # once more: nothing is asked twice
            child.end()
        assert seen == server.requests
