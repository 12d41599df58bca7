"""A hundred thousand rows cost their answers and little more."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.loopback import GzipBomb, Loopback, LoopbackProcess, Status
from tests.process.child import Child

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="this platform does not tell a process's peak without help")

PEAK = """
import resource, time

def peak():
    # Not ru_maxrss where there is better: it begins with what the parent had when it forked.
    try:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) * 1024
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
"""

RUN = """
df = pd.DataFrame({"text": [f"row {i}" for i in range(100_000)]})
before, began, cpu = peak(), time.perf_counter(), time.process_time()
values = df.llm.chat("Say {text}", model="lab/m", show_progress=False)
seconds, cpu, after = time.perf_counter() - began, time.process_time() - cpu, peak()
right = all(value == f"answer to: Say row {i}" for i, value in enumerate(values))
say([right, after - before, seconds, cpu])
"""


def test_a_hundred_thousand_rows_stay_within_150_mb_over_their_frame(tmp_path: Path) -> None:
    with LoopbackProcess() as server, Child(PEAK + RUN, server.url, tmp_path) as child:
        right, grown, seconds, cpu = child.hear(timeout=120)
        assert child.end() == ""
        requests = server.stats()["requests"]
    print(f"\n100,000 rows: {grown / 2**20:.0f} MB over the frame, {seconds:.1f} s, {1e3 * cpu / 1e5:.2f} ms of CPU a row")
    assert right
    assert 100_000 == requests
    assert grown < 150 * 2**20
    assert seconds < 60


REFUSED = """
df = pd.DataFrame({"text": [f"row {i} " + "long " * 400 for i in range(20_000)]})
before = peak()
run = df.llm.chat("Say {text}", model="lab/m", show_progress=False, wait=False)
run.wait()
values = run.partial()
say([int(values.isna().sum()), len(llmkit.last().errors()), peak() - before])
"""


def test_rows_that_are_refused_leave_a_reason_behind_and_not_their_prompts(tmp_path: Path) -> None:
    with Loopback(keep_seen=False) as server:
        server.fault("row", Status(400, {"error": {"message": "no", "type": "invalid_request_error"}}), times=float("inf"))
        with Child(PEAK + REFUSED, server.url, tmp_path) as child:
            missing, errors, grown = child.hear(timeout=120)
            child.end()
    print(f"\n20,000 refused rows of 2 kB: {grown / 2**20:.0f} MB over the frame")
    assert 20_000 == missing == errors
    assert grown < 150 * 2**20


BOMB = """
import warnings
warnings.simplefilter("ignore")
llmkit.chat("Say it", model="lab/m")
before = peak()
values = pd.DataFrame({"text": ["a bomb", "fine"]}).llm.chat("Say {text}", model="lab/m", max_attempts=1, show_progress=False)
say([values.isna().tolist(), llmkit.last().errors()["error"][0], peak() - before])
"""


def test_a_gzip_bomb_of_300_mib_takes_no_100_of_memory(tmp_path: Path) -> None:
    with Loopback(keep_seen=False) as server, Child(PEAK + BOMB, server.url, tmp_path) as child:
        server.fault("bomb", GzipBomb(300), times=float("inf"))
        missing, error, grown = child.hear()
        child.end()
    print(f"\n300 MiB in a gzip bomb: {grown / 2**20:.0f} MB more")
    assert missing == [True, False]
    assert "64 MiB" in error
    assert grown < 100 * 2**20
