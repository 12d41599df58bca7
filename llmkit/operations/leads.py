"""Rows whose prompts begin alike: found before the first is sent, so that they can run together and share what a vendor keeps of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..types import Table
from .template import Template

__all__ = ["LEAST", "SLICE", "Leads", "leads_of"]

#: Rows read from the table at a time; the prompts of no more than these exist before they are asked for.
SLICE = 256

#: Bytes under which a beginning is too short for every vendor: the lowest minimum known is 512 tokens, of at least three bytes each.
LEAST = 3 * 512

#: Leads of so many columns are looked for at the most, the longest first.
_DEEPEST = 3


@dataclass(frozen=True, slots=True)
class Leads:
    """Which rows begin alike.

    Attributes
    ----------
    columns : int
        A lead is the prompt up to the end of the text after its first so many columns.
    order : array of int or None
        The rows, those of one lead in succession and otherwise as they stand; ``None`` where they stand so already.
    together : array of bool
        By row, whether another one has the same lead.
    """

    columns: int
    order: npt.NDArray[np.int64] | None
    together: npt.NDArray[np.bool_]

    def read(self, table: Table, names: Sequence[Any]) -> Iterator[tuple[int, tuple[str | None, ...]]]:
        """(row, its cells in these columns), in order."""
        if self.order is None:
            for start in range(0, len(table), SLICE):
                stop = min(start + SLICE, len(table))
                yield from enumerate(zip(*[table.texts(name, start, stop) for name in names], strict=True), start)
        else:
            for row in self.order.tolist():
                yield row, tuple(table.texts(name, row, row + 1)[0] for name in names)


def leads_of(table: Table, template: Template) -> Leads | None:
    """The leads of a table's prompts; ``None`` where rows hardly share a long one.

    Reads the columns in question once more and holds a number for each row. Where the first rows begin with short cells, it is taken that
    all do.
    """
    places = template.pieces[1::2]
    for columns in range(min(len(places) - 1, _DEEPEST), 0, -1):
        marks = _marks(table, places[:columns])
        long = np.flatnonzero(marks)
        _, first, inverse, counts = np.unique(marks[long], return_index=True, return_inverse=True, return_counts=True)
        shared = counts[inverse] > 1
        if len(long) and shared.sum() * 2 >= len(long):
            together = np.zeros(len(table), dtype=np.bool_)
            together[long] = shared
            rank = np.arange(len(table))
            rank[long] = long[first][inverse]  # the place of the first row of its lead
            order = np.argsort(rank, kind="stable")
            return Leads(columns, None if np.array_equal(order, np.arange(len(table))) else order, together)
    return None


def _marks(table: Table, names: Sequence[Any]) -> npt.NDArray[np.int64]:
    """A number for each row, equal where these cells are; 0 where one is missing or they are short."""
    marks = np.zeros(len(table), dtype=np.int64)
    for start in range(0, len(table), SLICE):
        stop = min(start + SLICE, len(table))
        read = [table.texts(name, start, stop) for name in names]
        for row, cells in enumerate(zip(*read, strict=True), start):
            if None not in cells and sum(map(len, cells)) >= LEAST:  # type: ignore[arg-type]
                marks[row] = hash(cells) or 1
        if start == 0 and not marks[:stop].any():
            break
    return marks
