"""How a contestant is measured: in a fresh process, after its imports and one small call, by the process's own clock and memory."""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parent.parent

#: What one measurement is: rows, seconds, cpu (seconds of all threads, user and system), system (the kernel's share of it: files and
#: sockets), threads (the same by thread, where the kernel tells), collector (the garbage collector's share), peak (bytes beyond what was
#: held before), resident (the same with it); a benchmark adds what it counts itself.
Measured = dict[str, Any]


class Meter:
    """Wall time, CPU of this process, and the peak of its memory over what it held at the start of the block."""

    def __init__(self, rows: int) -> None:
        self.found: Measured = {"rows": rows}

    def __enter__(self) -> Self:
        self._resident = _start_of_peak()
        self._collector = _Collector()
        gc.callbacks.append(self._collector)
        self._threads = _cpu_of_threads()
        self._user, self._system = _cpu()
        self._began = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        seconds, (user, system) = time.perf_counter() - self._began, _cpu()
        user, system = user - self._user, system - self._system
        gc.callbacks.remove(self._collector)
        self.found |= {
            "seconds": seconds,
            "cpu": user + system,
            "system": system,
            "threads": {name: round(cpu - self._threads.get(name, 0.0), 2) for name, cpu in _cpu_of_threads().items()},
            "collector": self._collector.seconds,
            "peak": max(0, _peak() - self._resident),
            "resident": _peak(),
        }


class _Collector:
    """Seconds of CPU that the garbage collector takes, whichever thread it befalls."""

    def __init__(self) -> None:
        self.seconds = self._began = 0.0

    def __call__(self, phase: str, _: object) -> None:
        if phase == "start":
            self._began = time.thread_time()
        else:
            self.seconds += time.thread_time() - self._began


def _cpu_of_threads() -> dict[str, float]:
    """Seconds of CPU by the thread's name; empty where there is no /proc. A thread that has ended is not told."""
    found: dict[str, float] = {}
    for thread in threading.enumerate():
        try:
            fields = Path(f"/proc/self/task/{thread.native_id}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        used = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        found[thread.name] = found.get(thread.name, 0.0) + used
    return found


def _cpu() -> tuple[float, float]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime, used.ru_stime


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


def _start_of_peak() -> int:
    """Bytes held now. On Linux the kernel's high-water mark is set back to them, so that imports do not hide what comes."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmRSS")
    except (OSError, LookupError):
        return _peak()


def _peak() -> int:
    try:
        return _status("VmHWM")
    except (OSError, LookupError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def contest(module: str, contestant: str, url: str, rows: int) -> Measured:
    """One measurement: ``python -m MODULE CONTESTANT URL ROWS`` with a fresh cache directory."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", module, contestant, url, str(rows)],
            cwd=ROOT,
            env={**os.environ, "LLMKIT_CACHE_DIR": folder},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"{module} {contestant} failed:\n{done.stderr[-2000:]}")
    measured: Measured = json.loads(done.stdout.splitlines()[-1])
    return measured


def serve_as_contestant(contestants: Mapping[str, Callable[[str, int], Measured]]) -> None:
    """The other end of ``contest``, for a module's ``__main__``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("contestant", choices=contestants)
    parser.add_argument("url")
    parser.add_argument("rows", type=int)
    given = parser.parse_args()
    print(json.dumps(contestants[given.contestant](given.url, given.rows)))


def best(rounds: Sequence[Measured]) -> Measured:
    """The round with the least CPU, since what else runs on the machine can only add to it; ``median`` is the middle round's CPU."""
    return {**min(rounds, key=lambda one: one["cpu"]), "median": statistics.median(one["cpu"] for one in rounds)}


def table(head: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    """Aligned columns: the first to the left, figures to the right."""
    cells = [list(head), *([str(cell) for cell in line] for line in lines)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    drawn = [
        "  ".join([line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))])
        for line in cells
    ]
    return "\n".join([drawn[0], "-" * len(drawn[0]), *drawn[1:]])


def figures(found: Measured) -> list[str]:
    """rows, rows/s, CPU ms a row in the best and in the middle round, as a table shows them."""
    rows = found["rows"]
    middle = float(found.get("median") or found["cpu"])
    return [f"{rows:,.0f}", f"{rows / found['seconds']:,.0f}", f"{1e3 * found['cpu'] / rows:.3f}", f"{1e3 * middle / rows:.3f}"]


def per_row(found: Measured) -> float:
    """CPU milliseconds a row."""
    return float(1e3 * found["cpu"] / found["rows"])


def judged(name: str, value: float, most: float, unit: str = "x") -> dict[str, Any]:
    """One target: what was found, what is allowed, whether it holds."""
    return {"name": name, "value": round(value, 4), "target": most, "unit": unit, "met": value <= most}


def verdicts(targets: Sequence[dict[str, Any]]) -> str:
    lines = [
        (one["name"], f"{one['value']:.2f}{one['unit']}", f"<= {one['target']:g}{one['unit']}", "yes" if one["met"] else "NO")
        for one in targets
    ]
    return table(("target", "found", "wanted", "met"), lines)
