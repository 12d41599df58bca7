"""A file through ``stream_file`` beside the same rows as a frame in memory: what a row costs, and what the process holds at the most.

``kills``: a million rows, and twenty times in between all is killed at once, at moments drawn by lot; what was asked more than once.
"""

from __future__ import annotations

import random
import tempfile
import time
from operator import itemgetter
from pathlib import Path
from typing import Any

from . import measure
from .account import Conditions
from .chat import CONCURRENCY, PROMPT, WARM_UP
from .contestants import Options
from .files import IN_FLIGHT, checked, file_job, ours, rows_judged, under_way, wait_for
from .measure import Measured, Meter, best, judged, per_row, serve_as_contestant, table
from .results import kept
from .rows import answer, text
from .server import serving, stats

#: rows -> how often.
SIZES = {20_000: 3, 100_000: 2}
LARGEST = 1_000_000

KILLS = 20
#: Answers that the store may hold back: beside the requests in flight, what a kill may cost.
UNFLUSHED = 256


def frame(url: str, rows: int) -> Measured:
    import pandas as pd

    import llmkit

    llmkit.add_provider("bench", url, api_key="sk-bench")

    def ask(frame: pd.DataFrame) -> Any:
        return frame.llm.chat(PROMPT + "{text}", model="bench/bench-1", max_concurrency=CONCURRENCY, show_progress=False)

    ask(pd.DataFrame({"text": [text(number) for number in WARM_UP]}))
    # The frame is read and the answers are written, as the other one does it.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "in.parquet"
        _write(path, rows)
        with Meter(rows) as meter:
            frame = pd.read_parquet(path)
            frame["chat"] = ask(frame)
            frame.to_parquet(Path(folder) / "out.parquet")
    assert frame["chat"].tolist() == [answer(number) for number in range(rows)]
    return meter.found


def file(url: str, rows: int) -> Measured:
    import pyarrow.parquet as pq

    import llmkit

    llmkit.add_provider("bench", url, api_key="sk-bench")

    def ask(path: Path, out: Path) -> Any:
        return llmkit.stream_file(
            path, "chat", prompt=PROMPT + "{text}", model="bench/bench-1", out=out, max_concurrency=CONCURRENCY, show_progress=False
        )

    with tempfile.TemporaryDirectory() as folder:
        warm, path, out = (Path(folder) / name for name in ("warm.parquet", "in.parquet", "out"))
        _write(warm, len(WARM_UP), WARM_UP[0])
        ask(warm, Path(folder) / "warm")
        _write(path, rows)
        with Meter(rows) as meter:
            done = ask(path, out)
        found = 0
        for part in done.files:
            said = pq.read_table(part, columns=["chat"])["chat"].to_pylist()
            assert said == [answer(number) for number in range(found, found + len(said))], "an answer is missing or in the wrong row"
            found += len(said)
    assert found == rows
    return meter.found


def _write(path: Path, rows: int, first: int = 0) -> None:
    """The input, written in pieces so that making it leaves no mark on the memory that is measured."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema({"text": pa.string()})
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(first, first + rows, 10_000):
            stop = min(start + 10_000, first + rows)
            writer.write_table(pa.table({"text": [text(number) for number in range(start, stop)]}, schema=schema))


def _killed(rows: int) -> Measured:
    lot = random.Random(20261121)
    at = sorted(lot.sample(range(1, rows), KILLS))
    repeats: list[int] = []

    def note(counted: dict[str, Any]) -> None:
        # What the last kill cost was asked for again at once: it is counted by now.
        repeats.append(counted["requests"] - counted["rows_asked"] - sum(repeats))

    with serving(Conditions(counting=True)) as url, file_job(url, rows, in_flight=IN_FLIGHT) as job:
        began = time.monotonic()
        for asked in at:
            with under_way(ours()[0], job) as tree:
                note(wait_for(url, tree, itemgetter("rows_asked"), asked))
                tree.kill("")
        with under_way(ours()[0], job, patience=3_600.0) as tree:
            if not tree.wait():
                raise RuntimeError(tree.complained)
        note(stats(url))
        return {
            "rows": rows,
            "seconds": time.monotonic() - began,
            "kills": KILLS,
            "repeats": sum(repeats),
            "most": max(repeats),
            **checked(Path(job.out), rows),
        }


CONTESTANTS = {"file": file, "frame": frame}


def run(options: Options) -> tuple[dict[str, Measured], list[dict[str, Any]]]:
    """(entries named by what they are and their rows, targets)."""
    entries: dict[str, Measured] = {}
    sizes = {**SIZES, LARGEST: 1} if options.full else SIZES
    with serving() as url:
        for rows, rounds in sizes.items():
            if not options.wants(str(rows)) or (options.quick and rows > 20_000):
                continue
            for name in CONTESTANTS:

                def measured(name: str = name, rows: int = rows, rounds: int = rounds) -> Measured:
                    return best([measure.contest(__spec__.name, name, url, rows) for _ in range(rounds)])

                entries |= kept("stream", f"{name} {rows}", measured, lambda found: f"{per_row(found):.3f} ms CPU a row")
    targets = []
    for rows in sizes:
        if {f"frame {rows}", f"file {rows}"} <= set(entries):
            ratio = per_row(entries[f"file {rows}"]) / per_row(entries[f"frame {rows}"])
            targets.append(judged(f"CPU a row, file / frame, {rows:,} rows", ratio, 1.2))
    if "kills" in options.only:
        entries |= kept("stream", "kills", lambda: _killed(LARGEST), lambda found: f"{found['repeats']} requests repeated")
        found = entries["kills"]
        each = found["repeats"] / found["kills"] / (IN_FLIGHT + UNFLUSHED)
        targets.append(judged("repeats a kill / in flight and unflushed", each, 1.0))
        targets.append(rows_judged("kills", found))
    if f"file {LARGEST}" in entries:
        targets.append(judged(f"memory of the process at {LARGEST:,} rows", entries[f"file {LARGEST}"]["resident"] / 1e6, 400, " MB"))
    return entries, targets


def drawn(entries: dict[str, Measured]) -> str:
    lines = [
        (
            name,
            f"{found['rows'] / found['seconds']:,.0f}",
            f"{per_row(found):.3f}",
            f"{found['peak'] / 1e6:,.0f}",
            f"{found['resident'] / 1e6:,.0f}",
        )
        for name, found in entries.items()
        if "cpu" in found
    ]
    return table(("stream", "rows/s", "CPU ms/row", "peak MB more", "of the process"), lines)


if __name__ == "__main__":
    serve_as_contestant(CONTESTANTS)
