"""Processes, threads and notebooks of one machine share one cache: every distinct prompt is asked once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import llmkit
from llmkit.engine.writer import Writer
from tests.loopback import Json, Loopback, unknown_model
from tests.process.child import Child, settled
from tests.process.kernel import SETUP, Notebook
from tests.process.test_threads import answers, at_once, frame, start

#: Asks for the rows it is told, in their order, until its input ends.
ASKER = """
while (told := hear()) is not None:
    numbers, options = told
    df = pd.DataFrame({"text": [f"row {i}" for i in numbers]})
    say("ready")
    values = df.llm.chat("Say {text}", model="lab/m", show_progress=False, **options)
    say([[value if isinstance(value, str) else None for value in values], llmkit.last().errors()["kind"].tolist()])
"""


@pytest.fixture
def home(cache_dir: Path, tmp_path: Path) -> Path:
    cache_dir.mkdir(mode=0o700)
    return tmp_path


class Asker(Child):
    """A process of the user's, with the cache of all the others."""

    def __init__(self, server: Loopback, home: Path) -> None:
        super().__init__(ASKER, server.url, home, LLMKIT_CACHE_DIR=str(home / "answers"))

    def ask(self, numbers: Any, **options: Any) -> None:
        self.tell([list(numbers), options])
        assert "ready" == self.hear()

    def answer(self) -> list[str | None]:
        values, self.errors = self.hear()
        return list(values)


@pytest.fixture
def askers(lab: Loopback, home: Path) -> Iterator[list[Asker]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Asker(lab, home)) for _ in range(2)]


def said(numbers: Any) -> list[str]:
    return [f"answer to: Say row {number}" for number in numbers]


def test_two_processes_that_ask_the_same_in_different_orders_ask_each_prompt_once(lab: Loopback, askers: list[Asker]) -> None:
    lab.latency = 0.005
    orders = [range(300), [number * 7 % 300 for number in range(300)]]
    for asker, order in zip(askers, orders, strict=True):
        asker.ask(order)
    for asker, order in zip(askers, orders, strict=True):
        assert said(order) == asker.answer()
    assert {f"Say row {number}": 1 for number in range(300)} == lab.texts
    assert 300 == lab.requests


def test_a_process_waits_for_what_another_has_in_flight_and_asks_for_the_rest_meanwhile(lab: Loopback, askers: list[Asker]) -> None:
    one, two = askers
    lab.hold()
    one.ask(range(5))
    lab.wait_for(5)
    two.ask(range(8), max_concurrency=1)
    lab.wait_for(6)
    lab.release()
    assert (said(range(5)), said(range(8))) == (one.answer(), two.answer())
    assert 8 == lab.requests


def test_two_processes_that_need_each_others_rows_wait_for_nothing_but_answers(lab: Loopback, askers: list[Asker]) -> None:
    one, two = askers
    lab.hold()
    one.ask(range(4), max_concurrency=1)
    two.ask(range(10, 14), max_concurrency=1)
    lab.wait_for(2)
    lab.release()
    assert (said(range(4)), said(range(10, 14))) == (one.answer(), two.answer())
    for asker, order in ((one, [*range(20, 40), *range(60, 40, -1)]), (two, [*range(60, 40, -1), *range(20, 40)])):
        asker.ask(order, max_concurrency=1)
    assert said([*range(20, 40), *range(60, 40, -1)]) == one.answer()
    assert said([*range(60, 40, -1), *range(20, 40)]) == two.answer()
    assert 8 + 40 == lab.requests


def test_when_one_of_two_is_killed_the_other_ends_with_every_row(lab: Loopback, askers: list[Asker]) -> None:
    one, two = askers
    lab.latency = 0.005
    for asker in askers:
        asker.ask(range(2_000))
    lab.wait_for(400, 30)
    one.kill()
    assert said(range(2_000)) == two.answer()
    # What the killed one had in flight, and what it had not written yet.
    assert settled(lab) - 2_000 <= 64 + 2 * Writer.CROWD
    assert set(lab.texts.values()) <= {1, 2}


def test_what_a_process_that_is_killed_had_in_flight_is_asked_by_the_one_that_waits(lab: Loopback, askers: list[Asker]) -> None:
    one, two = askers
    lab.hold()
    one.ask(range(20))
    lab.wait_for(8)
    two.ask(range(21))
    lab.wait_for(9)  # row 20: the others it waits for
    one.kill()
    lab.release()
    assert said(range(21)) == two.answer()
    assert settled(lab) <= 21 + 8


def test_what_a_stopped_run_had_in_flight_is_asked_by_the_process_that_waits(lab: Loopback, askers: list[Asker]) -> None:
    mine = frame(*range(20))
    lab.hold()
    run = start(mine)
    lab.wait_for(8)
    for number, asker in enumerate(askers, 20):
        asker.ask([*range(20), number])
    lab.wait_for(10)  # rows 20 and 21: the others they wait for
    run.cancel()
    assert run.wait(5)
    lab.release()
    for number, asker in enumerate(askers, 20):
        assert said([*range(20), number]) == asker.answer()
    assert settled(lab) <= 22 + 8


def test_a_row_that_fails_in_one_process_is_tried_by_the_other(lab: Loopback, askers: list[Asker]) -> None:
    one, two = askers
    lab.hold()
    lab.fault("row 3", Json({"error": {"message": "no", "code": 400}}))
    one.ask(range(6))
    lab.wait_for(6)
    two.ask(range(7))
    lab.wait_for(7)
    lab.release()
    assert [*said(range(3)), None, *said(range(4, 6))] == one.answer()
    assert ["invalid_request"] == one.errors
    assert said(range(7)) == two.answer()
    assert 8 == lab.requests


def test_cache_off_takes_no_part_and_refresh_waits_for_nobody(lab: Loopback, askers: list[Asker]) -> None:
    one, two = askers
    lab.hold()
    one.ask(range(4))
    lab.wait_for(4)
    two.ask(range(4), cache="refresh")
    lab.wait_for(8)
    mine = frame(*range(4)).llm.chat("Say {text}", model="lab/m", cache="off", wait=False, show_progress=False)
    lab.wait_for(12)
    lab.release()
    assert [said(range(4))] * 3 == [one.answer(), two.answer(), mine.result().tolist()]


def test_what_is_asked_anew_is_waited_for_like_anything_else(lab: Loopback, askers: list[Asker]) -> None:
    one, two = askers
    lab.hold()
    one.ask(range(4), cache="refresh")
    lab.wait_for(4)
    two.ask(range(5))
    lab.wait_for(5)
    lab.release()
    assert (said(range(4)), said(range(5))) == (one.answer(), two.answer())
    assert 5 == lab.requests


def test_a_hundred_threads_and_another_process_ask_fifty_prompts_fifty_times(lab: Loopback, askers: list[Asker]) -> None:
    lab.latency = 0.02
    df = frame(*range(50))
    for asker in askers:
        asker.ask(range(49, -1, -1))
    assert [answers(df)] * 100 == at_once(100, lambda number: start(df.iloc[:: 1 if number % 2 else -1]).result().sort_index().tolist())
    for asker in askers:
        assert said(range(49, -1, -1)) == asker.answer()
    assert 50 == lab.requests


def test_runs_of_one_process_share_what_they_wait_for_from_another(lab: Loopback, askers: list[Asker]) -> None:
    df = frame(*range(8))
    lab.hold()
    askers[0].ask(range(8))
    lab.wait_for(8)
    leader, followers = start(df), [start(df) for _ in range(3)]
    assert not leader.wait(0.2)  # it has nothing to send
    leader.cancel()
    assert leader.wait(5)
    lab.release()
    assert all(run.wait(30) for run in followers)
    assert [answers(df)] * 3 == [run.result().tolist() for run in followers]
    assert said(range(8)) == askers[0].answer()
    assert 8 == lab.requests


def test_two_sessions_of_one_process_are_like_two_processes(lab: Loopback, cache_dir: Path) -> None:
    sessions = [llmkit.Session(cache_dir=cache_dir) for _ in range(2)]
    df = frame(*range(200))
    lab.latency = 0.005

    def ask(number: int) -> list[str]:
        sessions[number].add_provider("lab", lab.url, None, "openai", {})
        return list(df.llm.using(sessions[number]).chat("Say {text}", model="lab/m", show_progress=False))

    assert [answers(df)] * 2 == at_once(2, ask)
    for own in sessions:
        own.close()
    assert 200 == lab.requests


def test_an_answer_of_the_second_model_serves_a_process_that_waits_for_the_first(lab: Loopback, askers: list[Asker]) -> None:
    one, two = askers
    lab.fault("row 1", unknown_model("m"))
    lab.hold()
    one.ask([1], fallback="lab/n")
    lab.wait_for(1)
    two.ask([1, 2], fallback="lab/n")
    lab.wait_for(2)
    lab.release()
    assert (said([1]), said([1, 2])) == (one.answer(), two.answer())
    assert 3 == lab.requests


def test_two_kernels_with_the_same_cells_ask_each_prompt_once(lab: Loopback, tmp_path: Path) -> None:
    lab.latency = 0.02
    homes = [tmp_path / name for name in ("one", "two")]
    with ExitStack() as stack:
        notebooks = []
        for home in homes:
            home.mkdir()
            notebook = Notebook(lab, home)
            stack.callback(notebook.close)
            notebook.run("import os; os.environ['LLMKIT_CACHE_DIR'] = " + repr(str(tmp_path / "answers")))
            notebook.run(SETUP % 40)
            notebooks.append(notebook)
        cells = [notebook.start('values = df.llm.chat("Say {text}", model="lab/m", show_progress=False)') for notebook in notebooks]
        for notebook, cell in zip(notebooks, cells, strict=True):
            assert "ok" == notebook.end(cell)["status"]
            notebook.run("assert values.tolist() == [f'answer to: Say row {i}' for i in range(40)]")
    assert 40 == lab.requests
