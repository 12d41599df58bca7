"""Rows whose text is longer than a model takes: each becomes several windows, a row of a table of its own each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..adapter import Target
from ..operations.windows import estimated_tokens, holds_many, windows
from .columns import FrameTable

__all__ = ["room_for_text", "split_rows"]

#: Of a model's context: what is left of it when the estimate of a text's tokens is off.
_SHARE = 0.9

#: Tokens for a row's text where nobody knows the model's context: servers on one's own computer are often started with 4,096 in all.
_UNKNOWN = 2_500

#: Fewest tokens of text that a window has, however long the rest of the question is.
_FEWEST = 64


def room_for_text(route: Sequence[Target], said: Sequence[str], max_tokens: int | None) -> int:
    """Tokens of a row's own text that every model of the route takes, beside what is said in each question and what is answered.

    Parameters
    ----------
    route : sequence of Target
    said : sequence of str
        What each question holds beside the row's text.
    max_tokens : int, optional
        Of the answer; by default an eighth of the context is kept for it.
    """
    contexts = [target.model.context_window for target in route]
    beside = sum(estimated_tokens(text) for text in said)
    rooms = [_UNKNOWN if context is None else _SHARE * context - beside - (max_tokens or context // 8) for context in contexts]
    return max(_FEWEST, int(min(rooms)))


def split_rows(table: FrameTable, columns: Sequence[Any], most: int, overlap: float) -> tuple[FrameTable, npt.NDArray[np.intp]]:
    """The named columns as rows of at most ``most`` tokens, and the row that each is of.

    A row that is too long is cut in its longest cell; the others stand in each of its windows.
    """
    cells: list[list[str | None]] = [table.texts(column, 0, len(table)) for column in columns]
    made: list[list[str | None]] = [[] for _ in columns]
    owners: list[int] = []
    for row, texts in enumerate(zip(*cells, strict=True)):
        longest, pieces = _cut([text or "" for text in texts], most, overlap)
        for piece in pieces:
            for place, column in enumerate(made):
                column.append(piece if place == longest and texts[place] is not None else texts[place])
        owners += [row] * len(pieces)
    frame = pd.DataFrame({place: pd.Series(column, dtype=object) for place, column in enumerate(made)})
    frame.columns = pd.Index(list(columns), dtype=object, tupleize_cols=False)
    return FrameTable(frame), np.array(owners, dtype=np.intp)


def _cut(texts: Sequence[str], most: int, overlap: float) -> tuple[int, Sequence[str]]:
    """The place of the longest text, and its windows."""
    lengths = list(map(len, texts))
    longest = lengths.index(max(lengths))
    if not holds_many(sum(lengths), most):
        return longest, [texts[longest]]
    others = sum(estimated_tokens(text) for place, text in enumerate(texts) if place != longest)
    pieces = windows(texts[longest], max(1, most - int(others)), overlap, sentences=True)
    # A window of nothing but blanks would not be asked about, and its row be taken for a failed one.
    return longest, [piece for piece in pieces if not piece.isspace()] or pieces[:1]
