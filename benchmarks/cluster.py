"""A Dask cluster of two worker processes on this machine, under a limit, and under ``kill -9``: what the provider counts.

``limit``: 200 requests a second, said by hand; how much of it is used between the first request and the last, the busiest second, and
whether the result is pandas' own. ``kills``: a worker, the client, and the scheduler with all its workers are killed one after another;
how many rows are there in the end, and how many requests were sent twice.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.loopback import Loopback

from .contestants import Options
from .measure import Measured, judged, table
from .results import kept

PER_SECOND = 200
ROOT = Path(__file__).resolve().parent.parent
#: Requests of each worker that may be in flight, where workers are killed, and the seconds that an answer takes.
IN_FLIGHT = 16
LATENCY = 0.05

_CALL = """
import sys
import pandas as pd
import llmkit
from distributed import Client, LocalCluster

_, server, rows, out, per_second, in_flight, scheduler = sys.argv
llmkit.add_provider("lab", server, api_key=None)
llmkit.add_provider("free", server, api_key=None)
frame = pd.DataFrame({"text": [f"#{number:07d} text" if number % 1000 else None for number in range(int(rows))]})
frame.index = pd.Index([f"name {number // 2}" for number in range(int(rows))], name="key")
if int(per_second):
    llmkit.limit("lab", rpm=60 * int(per_second))

def work(client):
    made = llmkit.on_cluster(frame, client, out=out, chunk_rows=500).chat(
        "Say {text}", model="lab/m", max_concurrency=int(in_flight), show_progress=False)
    print("requests end", flush=True)
    sys.stdin.readline()
    same = frame.llm.chat("Say {text}", model="free/m", cache="off", show_progress=False)
    pd.testing.assert_series_equal(made, same, check_index_type="exact", check_exact=True)
    print("the same", flush=True)

if __name__ == "__main__":
    if scheduler == "-":
        with LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=":0", memory_limit=None, silence_logs=50) as cluster:
            with Client(cluster) as client:
                work(client)
    else:
        with Client(scheduler_file=scheduler) as client:
            work(client)
"""


def run(options: Options) -> tuple[dict[str, Measured], list[dict[str, Any]]]:
    """(entries named by what happens, targets)."""
    rows = 2_000 if options.quick else 20_000
    entries: dict[str, Measured] = {}
    targets = []
    if options.wants("limit"):
        entries |= kept("cluster", "limit", lambda: _under_a_limit(rows), lambda found: f"{found['used']:.1%} of the limit used")
        found = entries["limit"]
        targets.append(judged("of the limit that is not used", 1 - found["used"], 0.05))
        targets.append(judged("busiest second / limit", found["busiest"] / PER_SECOND, 1.05))
        targets.append(judged("rows unlike pandas'", found["wrong"], 0))
    if options.wants("kills"):
        entries |= kept("cluster", "kills", lambda: _killed(rows), lambda found: f"{found['repeats']:.0f} requests repeated")
        found = entries["kills"]
        # Of two workers what is in flight, and a fifth of a second's worth on its way to the journal.
        most = 2 * IN_FLIGHT * (1 + 0.2 / LATENCY)
        targets.append(judged("repeats a kill / in flight and unflushed", found["repeats"] / found["kills"] / most, 1.0))
        targets.append(judged("rows unlike pandas', after kills", found["wrong"], 0))
    return entries, targets


def drawn(entries: dict[str, Measured]) -> str:
    lines = [
        (
            name,
            f"{found['rows']:,.0f}",
            f"{found['seconds']:,.1f}",
            f"{found['used']:.1%}" if "used" in found else "",
            f"{found['busiest']:,.0f}" if "busiest" in found else "",
            f"{found['repeats']:,.0f}",
            f"{found['wrong']:,.0f}",
        )
        for name, found in entries.items()
    ]
    return table(("cluster", "rows", "seconds", "of the limit", "busiest second", "repeats", "rows unlike pandas'"), lines)


def _under_a_limit(rows: int) -> Measured:
    with Loopback() as server, tempfile.TemporaryDirectory() as home:
        server.latency = 0.1
        with _python(Path(home), "-c", _CALL, server.url, str(rows), f"{home}/out", str(PER_SECOND), "64", "-") as client:
            _wait_for(client, "requests end")
            came = sorted(seen.at for seen in server.seen)
            repeated = sum(times - 1 for times in server.texts.values())
            same = _compared(client)
    seconds = came[-1] - came[0]
    used = (len(came) - 1) / seconds / PER_SECOND
    return {
        "rows": rows, "seconds": seconds, "used": used, "busiest": _busiest(came), "requests": len(came), "repeats": repeated,
        "wrong": 0 if same else rows,
    }  # fmt: skip


def _killed(rows: int) -> Measured:
    with Loopback() as server, tempfile.TemporaryDirectory() as home:
        server.latency = LATENCY
        folder = Path(home)
        began = time.monotonic()
        call = ("-c", _CALL, server.url, str(rows), f"{home}/out", "0", str(IN_FLIGHT))
        with _cluster(folder / "one") as (file, scheduler, workers):
            with _python(folder, *call, str(file)) as client:
                server.wait_for(rows // 5, timeout=300)
                os.kill(_a_worker(workers.pid), signal.SIGKILL)
                server.wait_for(2 * rows // 5, timeout=300)
                client.kill()
            with _python(folder, *call, str(file)):
                server.wait_for(3 * rows // 5, timeout=300)
                scheduler.kill()  # and with it, at the end of the blocks, the client and all workers
        with _cluster(folder / "two") as (file, _, _), _python(folder, *call, str(file)) as client:
            _wait_for(client, "requests end")
            seconds = time.monotonic() - began
            repeated = sum(times - 1 for times in server.texts.values())
            same = _compared(client)
    return {"rows": rows, "seconds": seconds, "repeats": repeated, "kills": 3, "wrong": 0 if same else rows}


def _busiest(came: list[float]) -> int:
    """The most requests in any second."""
    first = most = 0
    for last, at in enumerate(came):
        while came[first] <= at - 1.0:
            first += 1
        most = max(most, last - first + 1)
    return most


def _compared(client: subprocess.Popen[str]) -> bool:
    """Have it ask the same without a cluster, and say whether that is the same."""
    assert client.stdin is not None
    client.stdin.write("\n")
    client.stdin.flush()
    return _wait_for(client, "the same")


def _wait_for(process: subprocess.Popen[str], line: str) -> bool:
    assert process.stdout is not None
    for said in process.stdout:
        if said.strip() == line:
            return True
    raise RuntimeError("the cluster's client ended early")


@contextmanager
def _python(home: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A Python of its own, killed with the block."""
    home.mkdir(exist_ok=True)
    environment = {**os.environ, "LLMKIT_CACHE_DIR": str(home / "cache"), "LLMKIT_DOTENV": "off", "PYTHONPATH": str(ROOT)}
    # Dask's own account of the kills goes to stderr, and is long.
    silent = subprocess.DEVNULL if "-c" not in arguments else None
    process = subprocess.Popen([sys.executable, *arguments], cwd=home, env=environment, stdin=-1, stdout=-1, stderr=silent, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)
        assert process.stdin is not None and process.stdout is not None
        process.stdin.close()
        process.stdout.close()


@contextmanager
def _cluster(home: Path) -> Iterator[tuple[Path, subprocess.Popen[str], subprocess.Popen[str]]]:
    """A scheduler and two workers, each a process of its own: (the file that says where, the scheduler, the workers' keeper)."""
    home.mkdir()
    file = home / "scheduler.json"
    here = ("--scheduler-file", str(file), "--no-dashboard")
    with _python(home, "-m", "distributed.cli.dask_scheduler", "--port", "0", *here) as scheduler:
        several = ("--nworkers", "2", "--nthreads", "2", "--memory-limit", "0", "--local-directory", str(home))
        with _python(home, "-m", "distributed.cli.dask_worker", *several, *here) as workers:
            yield file, scheduler, workers


def _a_worker(keeper: int) -> int:
    """The process id of one of the workers."""
    import psutil

    found = [child.pid for child in psutil.Process(keeper).children(recursive=True) if "spawn_main" in " ".join(child.cmdline())]
    return found[0]
