"""How documents are laid into requests of a reranker."""

from __future__ import annotations

import pandas as pd

from llmkit.frames.columns import FrameTable
from llmkit.operations.rerank import MOST_BYTES, MOST_DOCUMENTS, RERANK


def sizes(texts: list[str], query: str = "q") -> list[int]:
    table = FrameTable(pd.DataFrame({"text": texts}))
    return [len(task.rows) for task in RERANK.tasks(table, query=query, on="text")]


def test_a_request_carries_at_most_a_thousand_documents() -> None:
    assert sizes([f"document {number}" for number in range(2 * MOST_DOCUMENTS + 1)]) == [MOST_DOCUMENTS, MOST_DOCUMENTS, 1]


def test_long_documents_are_spread_over_more_requests() -> None:
    assert sizes(["x" * (MOST_BYTES // 4 - 1)] * 7) == [4, 3]


def test_a_document_beyond_every_bound_is_sent_alone() -> None:
    assert sizes(["short", "x" * (2 * MOST_BYTES), "short"]) == [1, 1, 1]
