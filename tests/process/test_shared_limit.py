"""Processes, threads and notebooks of one machine share one account: a limit set by hand holds for all of them together."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.loopback import Loopback
from tests.process.child import Child
from tests.process.kernel import SETUP, Notebook

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


def test_two_kernels_with_one_cache_ask_each_prompt_once_and_keep_to_one_limit(lab: Loopback, cache_dir: Path, tmp_path: Path) -> None:
    cache_dir.mkdir(mode=0o700)
    rate, rows = 20, 60
    with ExitStack() as stack:
        notebooks = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            notebook = Notebook(lab, tmp_path / name)
            stack.callback(notebook.close)
            notebook.run(f"import os; os.environ['LLMKIT_CACHE_DIR'] = {str(cache_dir)!r}")
            notebook.run(SETUP % rows)
            notebook.run(f"llmkit.limit('lab', rpm={60 * rate})")
            notebooks.append(notebook)
        # The second goes through the same rows and more, from the other end.
        notebooks[1].run(f"df = pd.DataFrame({{'text': [f'row {{i}}' for i in reversed(range({rows // 2}, {rows * 3 // 2}))]}})")
        began = time.monotonic()
        cells = [notebook.start('values = df.llm.chat("Say {text}", model="lab/m", show_progress=False)') for notebook in notebooks]
        for notebook, cell in zip(notebooks, cells, strict=True):
            assert notebook.end(cell)["status"] == "ok"
        seconds = time.monotonic() - began
        for notebook in notebooks:
            notebook.run("assert values.tolist() == [f'answer to: Say {text}' for text in df['text']]")
    distinct = rows * 3 // 2
    assert lab.texts == {f"Say row {number}": 1 for number in range(distinct)}
    assert busiest(lab, 2.0) <= (2 * rate + rate) * 1.05
    assert seconds >= (distinct - rate) / rate / 1.05
