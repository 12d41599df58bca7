"""Scores to rows in order: what ``rerank`` and ``search`` end with."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..adapter import Target
from ..errors import BadInput
from ..operations.rerank import MOST_DOCUMENTS
from ..run import Run, to_the_caller
from ..vectors.exact import Vectors, nearest
from .columns import ColumnShape

__all__ = ["MANY", "Found", "Ranked", "best_rows", "normalised", "scored", "with_score"]

#: Rows up to which comparing with each one is the quickest: above, an index pays.
MANY = 300_000


class Ranked(ColumnShape):
    """The frame's rows in the order of their scores.

    Parameters
    ----------
    frame : DataFrame
        Whose rows are ordered.
    codes : (rows,) int array
        For each row the place of its text among the different ones that were scored; -1 where it has none.
    top_k : int or None
        Rows to keep.
    """

    def __init__(self, frame: pd.DataFrame, codes: npt.NDArray[np.intp], top_k: int | None) -> None:
        different = int(codes.max()) + 1 if len(codes) else 0
        super().__init__(pd.RangeIndex(different), "score")
        self._frame = frame
        self._codes = codes
        self._top_k = top_k

    def prepared(self, route: Sequence[Target], arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """What runs here compares all documents at once; a vendor has a bound."""
        return {**arguments, "at_once": None if route[0].provider.name == "local" else MOST_DOCUMENTS}

    def result(self, run: Run[Any]) -> pd.DataFrame:
        by_text = self.column(run.outcomes)
        scores = np.full(len(self._frame), np.nan)
        known = self._codes >= 0
        scores[: len(self._codes)][known] = by_text[self._codes[known]]
        unscored = int(np.isnan(by_text).sum()) - len(super().errors(run))
        if unscored > 0 and run.done and run.outcomes.done:
            blank = sum(1 for task in run.outcomes.task_of_row.tolist() if task < 0)
            if unscored > blank:
                left = f"the reranker left {unscored - blank} documents without a score; they stand last"
                warnings.warn(left, stacklevel=to_the_caller())
        order = np.argsort(-np.nan_to_num(scores, nan=-np.inf), kind="stable")[: self._top_k]
        return scored(self._frame, order, scores[order])

    def errors(self, run: Run[Any]) -> pd.DataFrame:
        """One line per row of the frame whose text got no score because its request failed."""
        by_text = super().errors(run)
        if by_text.empty:
            return by_text
        lines = by_text.set_index("row")
        rows = [row for row, code in enumerate(self._codes) if code in lines.index]
        found = lines.loc[[self._codes[row] for row in rows]].reset_index(drop=True)
        found.insert(0, "row", rows)
        found["index"] = [self._frame.index[row] for row in rows]
        return found


class Found(ColumnShape):
    """The frame's rows whose vectors are nearest to the query's.

    Parameters
    ----------
    frame : DataFrame
        Whose rows are found.
    column : label
        Of the vectors, for messages.
    matrix : (rows, dimensions) float32 array
        The vectors; NaN where a row has none.
    top_k : int
        Rows to keep.
    """

    def __init__(self, frame: pd.DataFrame, column: Any, matrix: npt.NDArray[np.float32], top_k: int) -> None:
        super().__init__(pd.RangeIndex(1), "vector", "query")
        self._frame = frame
        self._column = column
        self._matrix = matrix
        self._top_k = top_k

    def result(self, run: Run[Any]) -> pd.DataFrame:
        vector = run.outcomes.value(0) if len(run.outcomes) else None
        if vector is None:
            return scored(self._frame, np.empty(0, dtype=np.intp), np.empty(0))
        width = self._matrix.shape[1]
        if len(vector) != width:
            raise BadInput(
                f"column {self._column!r} holds vectors of {width} numbers, and {run.targets[0]} makes {len(vector)}: "
                "name the model that made the column with model=..."
            )
        rows, scores = best_rows(self._matrix, vector, self._top_k)
        return scored(self._frame, rows, scores)


def scored(frame: pd.DataFrame, order: npt.NDArray[np.intp], scores: npt.NDArray[np.float64]) -> pd.DataFrame:
    """These rows of the frame, in this order, with a column ``score``."""
    return with_score(frame.iloc[order].copy(), score=scores)


def with_score(rows: pd.DataFrame, **columns: Any) -> pd.DataFrame:
    """These rows with columns set, whatever levels their names have."""
    levels = rows.columns.nlevels
    for name, values in columns.items():
        rows[name if levels == 1 else (name, *[""] * (levels - 1))] = values
    return rows


def normalised(matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Rows of length one; zero rows stay zero."""
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(matrix / np.where(lengths == 0, 1.0, lengths), dtype=np.float32)


def best_rows(
    matrix: npt.NDArray[np.float32], vector: npt.NDArray[np.float32], top_k: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """The rows nearest to ``vector`` by cosine, and their cosines, best first; rows of NaN (missing) never count."""
    places, scores = nearest(np.asarray(vector, dtype=np.float32)[None], Vectors([matrix]), top_k)
    found = places[0] >= 0
    return places[0][found], scores[0][found]
