"""Parquet in, Parquet out: rows a second, under a limit of 200 a second, and what is paid twice when a process is killed.

llmkit's ``stream_file`` and its Dask path beside Ray Data and Daft. Everyone reads the same file of ``id`` and ``text`` and writes parts
with ``answer``; 64 requests are in flight. Memory is that of all processes that the contestant started, shared pages counted once.
A kill comes when 40 % of the rows have been let in: of a worker, where the tool has workers apart, or of everything. Then the same
call is made again, until it ends well. What the provider let in beyond one request a row was paid for twice.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from .account import Conditions
from .contest import _environment, _pipe
from .contestants import Options
from .filejob import FileJob
from .measure import Measured, judged, table
from .peers import ENVIRONMENTS, GaveUp
from .results import kept
from .rows import answer, text
from .server import serving, stats

PER_SECOND = 200
IN_FLIGHT = 64
KILLED_AT = 0.4
#: condition -> rows.
ROWS = {"free": 20_000, "limit": 20_000, "worker": 5_000, "all": 5_000}
#: Contestants that would take hours at these: their rows.
FEWER = {
    "Ray Data (HTTP processor)": {"free": 2_000, "limit": 300, "worker": 300, "all": 300},
    "Ray Data (map_batches)": {"free": 10_000, "limit": 2_000, "worker": 1_000, "all": 1_000},
    "Daft (prompt)": {"free": 10_000, "limit": 5_000, "all": 2_000},
}
#: A run that takes longer has no end.
PATIENCE = 420.0

#: Of a command line: this process is a worker.
_RAYS = r"^ray::.*(MapWorker|MapBatches|map_batches)"
_DASKS = r"multiprocessing\.spawn"


@dataclasses.dataclass(frozen=True)
class Entrant:
    """Who takes part: the module that has it, the interpreter that runs it, what its workers look like, if it has any."""

    name: str
    module: str
    python: Path
    workers: str = ""


def ours() -> list[Entrant]:
    python = Path(sys.executable)
    return [
        Entrant("llmkit stream_file", "benchmarks.ours_files", python),
        Entrant("llmkit Dask", "benchmarks.ours_files", python, _DASKS),
    ]


def _rivals(names: list[str]) -> Iterator[Entrant]:
    for script, workers in (("ray", _RAYS), ("daft", "")):
        module = f"benchmarks.peers.{script}"
        python = ENVIRONMENTS / script / "bin" / "python"
        for name in importlib.import_module(module).FILE_CONTESTANTS:
            if "all" in names or script in names or name in names:
                if python.exists():
                    yield Entrant(name, module, python, workers)
                else:
                    print(f"{name}: not installed, passed over (make peers)")


def run(options: Options) -> tuple[dict[str, Measured], list[dict[str, Any]]]:
    """(entries named ``condition/contestant``, targets)."""
    entries: dict[str, Measured] = {}
    targets: list[dict[str, Any]] = []
    for entrant in _rivals(list(options.rivals)) if options.rivals else ours():
        for condition, rows in ROWS.items():
            if not options.wants(condition) or (condition == "worker" and not entrant.workers):
                continue
            rows = FEWER.get(entrant.name, {}).get(condition, rows)
            measure = partial(measured, entrant, condition, rows // 10 if options.quick else rows)
            entry = kept("files", f"{condition}/{entrant.name}", measure, _short)
            entries |= entry
            if not options.rivals:
                targets += _judged(f"{condition}/{entrant.name}", *entry.values())
    return entries, targets


def measured(entrant: Entrant, condition: str, rows: int) -> Measured:
    limited = condition == "limit"
    conditions = Conditions(
        shape="second" if limited else "",
        latency=condition != "free",
        counting=True,
        requests_per_minute=PER_SECOND * 60,
        tokens_per_minute=10**10,
    )
    told = {"in_flight": 256, "per_second": PER_SECOND} if limited else {"in_flight": IN_FLIGHT}
    with serving(conditions) as url, file_job(url, rows, **told) as job:
        killing = condition if condition in ("worker", "all") else ""
        found = _done(entrant, job, rows, killing)
        counted = stats(url)
        let_in = counted["requests"] - counted["refused"]
        busy = [count for count in counted["by_second"] if count]
        return {
            **found,
            **checked(Path(job.out), rows),
            "rows": rows,
            "refused": counted["refused"],
            "repeats": let_in - rows,
            "most_in_flight": counted["most_in_flight"],
            "most_a_second": max(busy, default=0),
        }


@contextmanager
def file_job(url: str, rows: int, **told: int) -> Iterator[FileJob]:
    """A source of so many rows, and empty folders beside it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        for name in ("home", "kept"):
            (home / name).mkdir()
        source = home / "in.parquet"
        pq.write_table(pa.table({"id": range(rows), "text": [text(number) for number in range(rows)]}), source)
        yield FileJob(url=url, source=str(source), out=str(home / "out"), kept=str(home / "kept"), **told)


def checked(out: Path, rows: int) -> dict[str, Any]:
    """Rows without an answer, with a wrong one or twice, and whether the rest is in order, the files by their names."""
    import pyarrow.parquet as pq

    seen: list[int] = []
    wrong = 0
    for file in sorted(out.rglob("*.parquet"), key=_by_numbers) if out.exists() else []:
        if file.name.startswith("_"):
            continue
        part = pq.read_table(file, columns=["id", "answer"]).to_pydict()
        for number, said in zip(part["id"], part["answer"], strict=True):
            if said is not None:
                seen.append(number)
                wrong += answer(number) not in said
    return {"lost": rows - len(set(seen)), "wrong": wrong, "twice": len(seen) - len(set(seen)), "in_order": seen == sorted(seen)}


def _by_numbers(file: Path) -> list[Any]:
    """``part.10`` after ``part.9``."""
    return [(1, int(piece)) if piece.isdigit() else (0, piece) for piece in re.split(r"(\d+)", file.name)]


# ------------------------------------------------------------------------------------------------------------------- processes


def _done(entrant: Entrant, job: FileJob, rows: int, killing: str) -> Measured:
    """The job, as often as it takes."""
    runs, found = 0, Measured(seconds=0.0, cpu=0.0, peak=0)
    killed = in_flight = 0
    while runs < 4:
        runs += 1
        with under_way(entrant, job) as tree:
            if killing and not killed:
                counted = wait_for(job.url, tree, lambda counted: counted["requests"] - counted["refused"], round(rows * KILLED_AT))
                in_flight = counted["in_flight"]
                killed = tree.kill(entrant.workers if killing == "worker" else "")
            ended = tree.wait()
            said = tree.complained
        found = {name: max(found[name], tree.found[name]) if name == "peak" else found[name] + tree.found[name] for name in found}
        if ended:
            return {**found, "runs": runs, "killed": killed, "in_flight_at_kill": in_flight}
        if not killing:
            raise GaveUp(said)
    raise GaveUp(f"{runs} runs, and none ended well: {said}")


def wait_for(url: str, tree: _Tree, count: Callable[[dict[str, Any]], int], many: int) -> dict[str, Any]:
    """What the server has counted once it is so many."""
    while tree.running:
        counted = stats(url)
        if count(counted) >= many:
            return counted
        time.sleep(0.05)
    raise GaveUp(f"it ended before it could be killed: {tree.complained}")


@contextmanager
def under_way(entrant: Entrant, job: FileJob, patience: float = PATIENCE) -> Iterator[_Tree]:
    """The job, begun; at the block's end nothing of it is left."""
    home = str(Path(job.kept).parent / "home")
    with tempfile.TemporaryFile() as complaints, _pipe() as end:
        process = subprocess.Popen(
            [entrant.python, "-m", entrant.module, entrant.name, json.dumps(dataclasses.asdict(job))],
            cwd=home,
            # Ray's sockets have paths of at most 107 bytes.
            env={**_environment(home), "LLMKIT_CACHE_DIR": f"{job.kept}/cache", "RAY_TMPDIR": "/tmp", "HOME": home},
            stdin=end,
            stdout=subprocess.PIPE,
            stderr=complaints,
            start_new_session=True,
        )
        try:
            tree = _Tree(process, complaints, patience)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        try:
            yield tree
        finally:
            tree.end()


class _Tree:
    """A process and all that it starts, watched five times a second."""

    def __init__(self, process: subprocess.Popen[bytes], complaints: Any, patience: float) -> None:
        self._process = process
        self._patience = patience
        self._complaints = complaints
        #: Processes by their numbers: when each began, and its command line.
        self._known: dict[int, tuple[str, str]] = {}
        self._cpu: dict[int, float] = {}
        self._began = time.monotonic()
        self._peak = 0
        self._over = threading.Event()
        assert process.stdout is not None
        for line in process.stdout:
            if line == b"ready\n":
                break
        self._look()
        self._before = sum(self._cpu.values())
        self._began = time.monotonic()
        self.seconds = 0.0
        self._watch = threading.Thread(target=self._watching, daemon=True)
        self._watch.start()

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def found(self) -> Measured:
        return {"seconds": self.seconds, "cpu": sum(self._cpu.values()) - self._before, "peak": self._peak}

    @property
    def complained(self) -> str:
        self._complaints.seek(0)
        said = self._complaints.read().decode("utf-8", "replace").strip()
        return said[-600:] or f"exit {self._process.poll()}"

    def wait(self) -> bool:
        """Whether it ended well."""
        left = self._patience - (time.monotonic() - self._began)
        try:
            code = self._process.wait(timeout=max(1.0, left))
        except subprocess.TimeoutExpired:
            self.end()
            raise GaveUp(f"no end after {self._patience:.0f} s") from None
        self.seconds = time.monotonic() - self._began
        return code == 0

    def kill(self, workers: str) -> int:
        """End one worker at once, or everything; how many that were."""
        self._look()
        chosen = [pid for pid, (_, command) in self._known.items() if re.search(workers, command)][:1] if workers else list(self._known)
        if not chosen:
            raise GaveUp(f"no process looks like a worker: {sorted(command for _, command in self._known.values())}")
        for pid in chosen:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(chosen)

    def end(self) -> None:
        """Nothing of it is left."""
        self._over.set()
        self._look()
        for pid in [*self._known]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._watch.join()

    def _watching(self) -> None:
        while not self._over.wait(0.2):
            self._look()

    def _look(self) -> None:
        """Who there is now, and what they hold. Those that lost their parent stay known."""
        children: dict[int, list[int]] = {}
        for entry in os.scandir("/proc"):
            if entry.name.isdigit():
                with suppress(OSError, ValueError):
                    fields = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
                    children.setdefault(int(fields[1]), []).append(int(entry.name))
        ahead = [self._process.pid, *(pid for pid, one in self._known.items() if _who(pid) == one)]
        found: dict[int, tuple[str, str]] = {}
        while ahead:
            pid = ahead.pop()
            one = None if pid in found else _who(pid)
            if one:
                found[pid] = one
                ahead += children.get(pid, [])
        for pid in found:
            with suppress(OSError, ValueError, IndexError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                self._cpu[pid] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        total = sum(map(_held, found))
        self._known = found
        self._peak = max(self._peak, total)


def _who(pid: int) -> tuple[str, str] | None:
    """When it began and its command line; ``None`` for one that has ended."""
    with suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
        return None if fields[0] == "Z" or not command else (fields[19], command)
    return None


def _held(pid: int) -> int:
    """Bytes, of shared pages its part."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


# -------------------------------------------------------------------------------------------------------------------- in words


def _short(found: Measured) -> str:
    return (
        f"{found['rows'] / found['seconds']:,.0f} rows/s, {found['refused']:,} refused, {found['lost'] + found['wrong']:,} lost, "
        f"{found['repeats']:,} paid twice"
    )


def _judged(name: str, found: Measured) -> list[dict[str, Any]]:
    if "gave_up" in found:
        return [judged(f"{name}: ended", 1, 0, "")]
    targets = [rows_judged(name, found)]
    if found["killed"]:
        # In flight, and not on the disk yet (engine/writer.py), of each process.
        targets.append(judged(f"{name}: paid twice", found["repeats"], IN_FLIGHT + 64, ""))
    return targets


def rows_judged(name: str, found: Measured) -> dict[str, Any]:
    lost = found["lost"] + found["wrong"] + found["twice"] + (not found["in_order"])
    return judged(f"{name}: rows lost, wrong, twice or out of order", lost, 0, "")


def drawn(entries: dict[str, Measured]) -> str:
    lines = [
        (
            name,
            f"{found['rows']:,}",
            f"{found['rows'] / found['seconds']:,.0f}",
            f"{1e3 * found['cpu'] / found['rows']:.2f}",
            f"{found['peak'] / 1e6:,.0f}",
            f"{found['refused']:,}",
            f"{found['lost'] + found['wrong']:,}",
            f"{found['repeats']:,}",
            "yes" if found["in_order"] else "no",
            found["runs"],
        )
        for name, found in entries.items()
        if "gave_up" not in found
    ]
    return table(("Parquet to Parquet", "rows", "rows/s", "CPU ms/row", "MB", "429s", "lost", "paid twice", "order", "runs"), lines)
