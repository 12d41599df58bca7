"""rerank: one query against all documents of a column, one score per document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import BadInput
from ..types import Operation, Price, Request, Table, Task, Usage

__all__ = ["RERANK", "RerankPayload"]

SLICE = 1024

#: Cohere advises at most 1,000 documents a request (docs.cohere.com, Rerank best practices; seen 2026-11-21), and the servers that
#: took over its wire format follow. Scores of a cross-encoder belong to the pair, so several requests compare with one another.
MOST_DOCUMENTS = 1000

#: Bytes of one request, the query counted with every document. Voyage takes 600,000 tokens counted so, and less from its smaller models
#: (docs.voyageai.com, Reranker API; seen 2026-11-21); text runs at three to four bytes a token.
MOST_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class RerankPayload:
    query: str
    documents: tuple[str, ...]


def tasks(
    table: Table, *, query: str, on: Any, at_once: int | None = MOST_DOCUMENTS, options: Mapping[str, Any] | None = None
) -> Iterator[Task]:
    """One task for every ``at_once`` different documents, or as many as a request can carry (``None``: one task for all of them).

    Equal documents travel once: a task's payload holds each text once, its rows are the first rows that hold them. Missing and empty
    documents are not sent.
    """
    if not isinstance(query, str) or not query.strip():
        raise BadInput("rerank needs a query to compare the rows with: the first argument is empty")
    return _batches(table, query, on, at_once, dict(options or {}))


def _batches(table: Table, query: str, on: Any, at_once: int | None, options: Mapping[str, Any]) -> Iterator[Task]:
    rows: list[int] = []
    documents: list[str] = []
    carried = 0
    for start in range(0, len(table), SLICE):
        for offset, cell in enumerate(table.texts(on, start, min(start + SLICE, len(table)))):
            if not cell or cell.isspace():
                continue
            weight = len(cell) + len(query)
            if at_once is not None and rows and (len(rows) == at_once or carried + weight > MOST_BYTES):
                yield Task(tuple(rows), Request("rerank", RerankPayload(query, tuple(documents)), options))
                rows, documents, carried = [], [], 0
            rows.append(start + offset)
            documents.append(cell)
            carried += weight
    if rows:
        yield Task(tuple(rows), Request("rerank", RerankPayload(query, tuple(documents)), options))


#: Stands before the numbers in the store, so that nothing else is taken for them.
_MARK = b"llmkitf8"


def _pack(value: npt.NDArray[np.float64]) -> bytes:
    return _MARK + value.astype("<f8", copy=False).tobytes()


def _unpack(stored: bytes) -> npt.NDArray[np.float64]:
    if not stored.startswith(_MARK):
        raise ValueError("not packed here")
    return np.frombuffer(stored, dtype="<f8", offset=len(_MARK))


#: Cohere bills one search for a query with up to 100 documents (docs.cohere.com, pricing of Rerank; seen 2026-11-21).
DOCUMENTS_A_SEARCH = 100


def _most(request: Request, price: Price) -> Usage:
    if price.thousand_searches is None:
        return Usage()
    return Usage(searches=-(-len(request.payload.documents) // DOCUMENTS_A_SEARCH))


RERANK = Operation(
    name="rerank",
    tasks=tasks,
    kind="score",
    pack=_pack,
    unpack=_unpack,
    most=_most,
    billed=(("thousand_searches",), ("input",)),
)
