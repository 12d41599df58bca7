"""Rows that begin alike: which they are, and in which order they run."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmkit.frames.columns import FrameTable
from llmkit.operations.chat import CHAT
from llmkit.operations.leads import LEAST, Leads, leads_of
from llmkit.operations.template import Template

ABOUT = "{document}\n\nQuestion: {question}"


def page(name: str, size: int = LEAST) -> str:
    return name * (size // len(name) + 1)


def frame(*rows: tuple[Any, ...], columns: tuple[str, ...] = ("document", "question")) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=list(columns))


def leads(rows: pd.DataFrame, prompt: str = ABOUT) -> Leads | None:
    return leads_of(FrameTable(rows), Template(prompt, list(rows.columns)))


def drawn(rows: pd.DataFrame, prompt: str = ABOUT, **more: Any) -> list[Any]:
    return list(CHAT.tasks(FrameTable(rows), prompt=prompt, leads=leads(rows, prompt), **more))


A, B = page("alpha "), page("beta ")


def test_rows_of_one_document_run_in_succession_by_its_first_row() -> None:
    found = leads(frame((A, "1"), (B, "1"), (A, "2"), ("short", "1"), (B, "2")))
    assert found is not None and found.order is not None
    assert found.order.tolist() == [0, 2, 1, 4, 3]
    assert found.together.tolist() == [True, True, True, False, True]


def test_rows_that_stand_so_already_are_read_as_they_stand() -> None:
    found = leads(frame((A, "1"), (A, "2"), (B, "1"), (B, "2")))
    assert found is not None and found.order is None


@pytest.mark.parametrize(
    ("rows", "prompt"),
    [
        (frame((A, "1"), (B, "2")), ABOUT),  # nothing repeats
        (frame(("a", "1"), ("a", "2")), ABOUT),  # too short
        (frame((A, "1"), (A, "1")), "Sum up: {document}"),  # equal rows are merged anyway
        (frame((None, "1"), (None, "2")), ABOUT),
        (frame(), ABOUT),
    ],
)
def test_otherwise_there_is_nothing_to_run_together(rows: pd.DataFrame, prompt: str) -> None:
    assert leads(rows, prompt) is None


def test_the_longest_lead_that_most_rows_share_is_taken() -> None:
    cells = [(A, f"title {number // 4}", f"question {number}") for number in range(16)]
    rows = frame(*cells, columns=("document", "title", "question"))
    found = leads(rows, "{document} {title} {question}")
    assert found is not None and found.columns == 2
    found = leads(rows, "{document} {question} {title}")
    assert found is not None and found.columns == 1


def test_each_document_is_an_opening_of_its_own_rows() -> None:
    tasks = drawn(frame((A, "1"), (B, "1"), (A, "2"), (B, "2")))
    assert [task.rows for task in tasks] == [(0,), (2,), (1,), (3,)]
    ids = [task.request.payload.opening.id for task in tasks]
    assert ids[0] == ids[1] != ids[2] == ids[3]
    opening = tasks[0].request.payload.opening
    assert tasks[0].request.payload.messages[-1].content[: opening.letters] == A + "\n\n"


def test_with_off_and_in_a_row_that_shares_its_document_with_none_there_is_no_opening() -> None:
    rows = frame((A, "1"), (A, "2"), (B, "1"))
    assert [task.request.payload.opening is None for task in drawn(rows)] == [False, False, True]
    assert all(task.request.payload.opening is None for task in drawn(rows, prompt_cache="off"))


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([A, B, "short", None]), st.sampled_from(["1", "2", None])), max_size=30))
def test_every_row_is_asked_what_it_would_be_asked_anyway(cells: list[tuple[Any, Any]]) -> None:
    rows = frame(*cells)
    rows = rows.astype(object).where(rows.notna(), None)
    together = {task.rows: task.request.payload.messages for task in drawn(rows)}
    as_they_stand = {task.rows: task.request.payload.messages for task in CHAT.tasks(FrameTable(rows), prompt=ABOUT)}
    assert together == as_they_stand
