"""Processes, threads and notebooks of one machine share one account: a limit set by hand holds for all of them together."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.loopback import Loopback
from tests.process.child import Child

PER_SECOND = 100

#: Asks for the rows it is told, in so many threads, under the limit it is told.
ASKER = """
import threading
while (told := hear()) is not None:
    numbers, threads, rpm = told
    llmkit.limit("lab", rpm=rpm)
    frames = [pd.DataFrame({"text": [f"row {i}" for i in numbers[part::threads]]}) for part in range(threads)]
    found = [None] * threads
    def ask(part):
        found[part] = int(frames[part].llm.chat("Say {text}", model="lab/m", show_progress=False).notna().sum())
    say("ready")
    workers = [threading.Thread(target=ask, args=(part,)) for part in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    say(sum(found))
"""


@pytest.fixture
def askers(lab: Loopback, cache_dir: Path, tmp_path: Path) -> Iterator[list[Child]]:
    cache_dir.mkdir(mode=0o700)
    with ExitStack() as stack:
        yield [stack.enter_context(Child(ASKER, lab.url, tmp_path, LLMKIT_CACHE_DIR=str(cache_dir))) for _ in range(2)]


def busiest(lab: Loopback, seconds: float) -> int:
    """The most requests that came in any so many seconds."""
    came = sorted(seen.at for seen in lab.seen)
    first = most = 0
    for last, at in enumerate(came):
        while came[first] <= at - seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


@pytest.mark.parametrize("threads", [1, 50], ids=["a thread each", "fifty threads each"])
def test_two_processes_keep_to_one_limit_together_and_use_it(lab: Loopback, askers: list[Child], threads: int) -> None:
    rows = 350
    began = time.monotonic()
    for number, asker in enumerate(askers):
        asker.tell([list(range(number * rows, (number + 1) * rows)), threads, 60 * PER_SECOND])
        assert asker.hear() == "ready"
    assert [asker.hear() for asker in askers] == [rows, rows]
    seconds = time.monotonic() - began
    # A second's worth may go at once, and the rest at 59/60 of the limit.
    steady = 2 * rows - PER_SECOND
    print(f"{2 * rows} rows in {seconds:.2f} s, {busiest(lab, 5.0)} in the busiest five seconds")
    assert lab.requests == 2 * rows
    assert busiest(lab, 5.0) <= (5 * PER_SECOND + PER_SECOND) * 1.05
    assert seconds >= steady / PER_SECOND / 1.05
    assert seconds <= 3 * steady / PER_SECOND, "and it is used: two processes of half the limit each could be no slower"
