"""``sim_join``: pairs of rows of two frames whose texts or vectors are near one another. No model is asked but for vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from ..errors import BadInput, Cancelled
from ..types import Estimate
from ..vectors.exact import Places, Vectors, best_of, nearest, of_length_one
from ..vectors.lookups import LARGE, FaissLookup, faiss_is_there
from ..vectors.packing import Floats
from .columns import FrameTable, factorized, matrix_of, one_column, some_rows
from .embedding import OR, asked_dimensions
from .procedure import Procedure
from .ranking import with_score
from .semantic_asking import EMBEDDING, Asker, Stages, of_length, sum_of, text_table
from .semantic_join import side_by_side

__all__ = ["Near", "Side"]

#: Pairs up to which all are compared: minutes on a laptop. Above, an index of the right side names the candidates.
_ALL = 10**10

#: Vectors that are looked for, or put into the index, at a time.
_STEP = 4_096


class Side:
    """One side's column: the different texts that are to be embedded, or its vectors.

    Parameters
    ----------
    frame : DataFrame
    column : label
    name : {"left", "right"}
        For messages.
    limit : int, optional
        Only the first so many rows.
    """

    def __init__(self, frame: pd.DataFrame, column: Any, name: str, limit: int | None = None) -> None:
        cells = one_column(frame, column).iloc[:limit]
        self.frame, self.name, self.length = frame, name, len(cells)
        self._column = column
        self.texts: list[str] = []
        self.vectors: Floats | None = None
        if _holds_vectors(cells):
            matrix = matrix_of(cells) if len(cells) and not cells.isna().all() else np.empty((0, 0), dtype=np.float32)
            self.places, self.vectors = self._different(cells, matrix)
        else:
            FrameTable(cells.to_frame(column)).check([column])
            codes, different = factorized(cells)
            said = [isinstance(text, str) and bool(text) and not text.isspace() for text in different]
            numbers = np.append(np.cumsum(said) - 1, -1)
            numbers[:-1][~np.array(said, dtype=bool)] = -1
            self.places = numbers[codes]
            self.texts = [text for text, there in zip(different, said, strict=True) if there]

    def _different(self, cells: pd.Series[Any], matrix: Floats) -> tuple[Places, Floats]:
        """For each row the number of its vector, -1 where it has none; and the vectors."""
        there = np.flatnonzero(~np.asarray(cells.isna()))
        vectors = matrix if len(there) == len(matrix) else matrix[there]
        with np.errstate(over="ignore", invalid="ignore"):
            lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
        wrong = there[~np.isfinite(lengths) | (lengths == 0)]
        if len(wrong):
            raise BadInput(
                f"column {self._column!r} on the {self.name} holds vectors that are zero or not finite, in {some_rows(wrong)} (from 0)"
            )
        places = np.full(len(cells), -1, dtype=np.intp)
        places[there] = np.arange(len(there))
        return places, vectors


def _holds_vectors(cells: pd.Series[Any]) -> bool:
    kind = getattr(cells.dtype, "pyarrow_dtype", None)
    if kind is not None:
        return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))
    if not pd.api.types.is_object_dtype(cells.dtype):
        return False
    first = cells.dropna().head(1).tolist()
    return bool(first) and isinstance(first[0], np.ndarray | list | tuple)


class Near:
    """The nearest rows of the right frame beside each row of the left.

    Parameters
    ----------
    left, right : Side
    how : {"inner", "left"}
    most : int
        Rows of the right side for each of the left, at the most.
    least : float or None
        The least cosine.
    suffixes : (str, str)
    embedder : callable
        Finds who makes vectors of the texts; called where there are any, with the model that made those of the other side.
    known : callable
        The model that made vectors of a length, as far as it is known.
    """

    name = "sim_join"

    def __init__(
        self, left: Side, right: Side, how: Any, most: int, least: float | None, suffixes: tuple[str, str],
        embedder: Callable[[Any], Asker], known: Callable[[int], str | None],
    ) -> None:  # fmt: skip
        self._left, self._right, self._how_to, self._most, self._least, self._suffixes = left, right, how, most, least, suffixes
        made = [side.vectors for side in (left, right) if side.vectors is not None]
        widths = {vectors.shape[1] for vectors in made if len(vectors)}
        if len(widths) > 1:
            mine, other = (side.vectors.shape[1] for side in (left, right) if side.vectors is not None)
            raise BadInput(f"vectors of {mine} numbers on the left and of {other} on the right do not compare")
        self._texts = left.texts + right.texts
        pairs = all(side.texts or (side.vectors is not None and len(side.vectors)) for side in (left, right))
        self._embedder: Asker | None = None
        self._dimensions: int | None = None
        if pairs and self._texts:
            width = next(iter(widths), None)
            self._embedder = embedder(None if width is None else _one(known(width)))
            if width is not None:
                self._dimensions = asked_dimensions(self._embedder.accessor._session, self._embedder.names[0], width)
        self._pairs = pairs
        self.targets = [] if self._embedder is None else self._embedder.names
        self.expected = len(self._texts) if self._embedder is not None else 0
        self.said = f"{len(self._texts):,} texts to embed"

    def estimate(self) -> Estimate:
        if self._embedder is None:
            return Estimate("none", self._left.length, 0, 0, 0, 0, 0, 0, 0.0, 0.0, "the vectors are there")
        asking = EMBEDDING if self._dimensions is None else of_length(self._dimensions)
        return sum_of([self._embedder.estimate(asking, text_table(self._texts))], self._left.length, 0)

    def steps(self, procedure: Procedure[Any]) -> Any:
        left, right = self._left.vectors, self._right.vectors
        if self._embedder is not None:
            stages = Stages(procedure, self._left.frame.index)
            count = len(self._left.texts)
            rows_of = _rows_of(self._left, count) + _rows_of(self._right, len(self._right.texts))
            vectors = stages.embed(self._embedder, self._texts, rows_of, (count, self._right.frame.index), self._dimensions)
            lost = int(np.isnan(vectors).any(axis=1).sum())
            if lost and stages.spent is None:
                stages.failed(f"{lost:,} texts got no vector, so their rows have no neighbours")
            left = vectors[:count] if left is None else left
            right = vectors[count:] if right is None else right
            if len(left) and len(right) and left.shape[1] != right.shape[1] and not np.isnan(vectors).all():
                raise BadInput(
                    f"vectors of {left.shape[1]} numbers on the left and of {right.shape[1]} on the right do not compare: name the model "
                    "that made the column with model=..."
                )
        procedure.expect(0)
        if not self._pairs or left is None or right is None or left.shape[1] != right.shape[1]:
            return self._joined(np.empty((len(self._left.places), 0), dtype=np.intp), np.empty((len(self._left.places), 0)))

        def tick() -> None:
            if procedure.stopped is not None and isinstance(procedure.stopped, Cancelled):
                raise procedure.stopped

        # Right rows with one text have one vector, and each of them is a neighbour of its own.
        among = Vectors([right])
        wanted = min(self._most, len(right))
        if len(left) * len(right) > _ALL and faiss_is_there():
            procedure.note(
                f"{len(left):,} x {len(right):,} pairs are too many to compare all: faiss named the candidates, and a few may be missing"
            )
            places, cosines = _by_lookup(left, right, among, wanted, tick)
        else:
            places, cosines = nearest(left, among, wanted, tick)
        return self._of_rows(places, cosines)

    def _of_rows(self, places: Places, cosines: npt.NDArray[np.float64]) -> pd.DataFrame:
        """Neighbours of different texts as neighbours of rows."""
        numbers = self._left.places
        places = np.where(numbers[:, None] >= 0, places[numbers], -1)
        cosines = np.where(numbers[:, None] >= 0, cosines[numbers], np.nan)
        if not self._right.texts:
            rows_at = np.flatnonzero(self._right.places >= 0)
            return self._joined(np.where(places >= 0, rows_at[places], -1) if len(rows_at) else places, cosines)
        # Of one text several rows: the earlier first, until there are enough.
        order = np.argsort(self._right.places, kind="stable")
        first = np.searchsorted(self._right.places[order], np.arange(len(self._right.texts) + 1))
        counts = np.where(places >= 0, (first[1:] - first[:-1])[places], 0)
        width = min(self._most, int(counts.sum(axis=1).max(initial=0)))
        rows, scores = np.full((len(places), width), -1, dtype=np.intp), np.full((len(places), width), np.nan)
        taken = np.zeros(len(places), dtype=np.intp)
        for column in range(places.shape[1]):
            for again in range(int(counts[:, column].max(initial=0))):
                here = np.flatnonzero((counts[:, column] > again) & (taken < width))
                if not len(here):
                    break
                rows[here, taken[here]] = order[first[places[here, column]] + again]
                scores[here, taken[here]] = cosines[here, column]
                taken[here] += 1
        return self._joined(rows, scores)

    def _joined(self, rows: Places, cosines: npt.NDArray[np.float64]) -> pd.DataFrame:
        there = rows >= 0
        if self._least is not None:
            # Cosines are of float32: what is as near as the user's number must not miss it by a rounding.
            there &= cosines >= self._least - 1e-6
        lefts, columns = np.nonzero(there)
        left, right = self._left.frame, self._right.frame
        joined, pairs = side_by_side(left, right, lefts, rows[lefts, columns], self._how_to, self._suffixes)
        scores = np.append(cosines[lefts, columns], np.nan)[pairs]
        if "score" in joined.columns:  # of one side: both had been told apart
            joined = joined.rename(columns={"score": f"score{self._suffixes['score' not in left.columns]}"})
        return with_score(joined, score=scores)


def _rows_of(side: Side, count: int) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in range(count)]
    if count:
        for row, place in enumerate(side.places.tolist()):
            if place >= 0:
                found[place].append(row)
    return found


def _one(model: str | None) -> str | None:
    if model is not None and OR in model:
        raise BadInput(f"vectors of that length were made with {model} in this session: name the one that made these with model=...")
    return model


def _by_lookup(left: Floats, right: Floats, among: Vectors, most: int, tick: Callable[[], None]) -> tuple[Places, npt.NDArray[np.float64]]:
    lookup = FaissLookup("hnsw" if len(right) <= LARGE else "ivf", right.shape[1], len(right), False)
    there = np.flatnonzero(~np.isnan(right).any(axis=1))
    lookup.learn(of_length_one(right[there[:: max(1, len(there) // lookup.wants)]]))
    for start in range(0, len(there), _STEP):
        tick()
        lookup.add(of_length_one(right[there[start : start + _STEP]]), there[start : start + _STEP])
    places, cosines = np.full((len(left), most), -1, dtype=np.intp), np.full((len(left), most), np.nan)
    asked = np.flatnonzero(~np.isnan(left).any(axis=1))
    for start in range(0, len(asked), _STEP):
        tick()
        rows = asked[start : start + _STEP]
        some = of_length_one(left[rows])
        found, scores = best_of(some, among, lookup.candidates(some, most), most)
        places[rows, : found.shape[1]], cosines[rows, : found.shape[1]] = found, scores
    return places, cosines
