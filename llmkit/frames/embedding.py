"""Vectors as columns: which model made them, and texts that are longer than a model's window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..adapter import Target
from ..errors import BadInput
from ..operations.embed import EMBED
from ..operations.windows import windows
from ..outcomes import Outcomes
from ..run import Run
from ..session import Session
from ..types import Policy
from ..vectors.packing import Dtype
from . import arguments as checked
from .arguments import Cache
from .calling import Accessor, How
from .columns import ColumnShape, DetailShape, FrameTable, in_fewer_bytes, matrix_of, vectors_of

__all__ = ["OR", "Averaged", "Remembering", "RememberingDetail", "asked_dimensions", "query_vectors", "split"]

#: Between the names of several models that made vectors of one length.
OR = " or "

#: Of a model's window: what is left of it when the estimate of a text's tokens is off.
_SHARE = 0.9


class Remembering(ColumnShape):
    """Notes which models made vectors of a length, so that ``search`` embeds its query the same way."""

    session: Session | None = None
    #: How the numbers of the column are kept; those of the store are as they came.
    dtype: Dtype = "float32"

    def column(self, outcomes: Outcomes) -> Any:
        return in_fewer_bytes(super().column(outcomes), self.dtype)

    def prepared(self, route: Sequence[Target], arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """Know the length of the vectors before the first one comes, for a column that stays empty."""
        self.dimensions = arguments["options"].get("dimensions") or route[0].model.dimensions
        return arguments

    def result(self, run: Run[Any]) -> Any:
        matrix = run.outcomes.matrix
        if self.session is not None and matrix is not None:
            known = self.session.embedded_with.get(matrix.shape[1], "")
            served = {run.targets[target] for target in set(run.outcomes.target) if target >= 0}
            models = dict.fromkeys([*(known.split(OR) if known else ()), *sorted(served)])
            self.session.embedded_with[matrix.shape[1]] = OR.join(models)
        return super().result(run)


class RememberingDetail(Remembering, DetailShape):
    """The same, where the result is a detail frame."""


class Averaged(Remembering):
    """One vector a row from those of its windows: their mean by length, of length one.

    Parameters
    ----------
    index : Index
        Of the frame.
    owners : (windows,) int array
        The row that each window is of.
    weights : (windows,) int array
        Characters of each window.
    """

    def __init__(self, index: pd.Index[Any], owners: npt.NDArray[np.intp], weights: npt.NDArray[np.int64]) -> None:
        super().__init__(index, "vector", "embedding")
        self._owners = owners
        self._weights = weights
        self._of_windows = ColumnShape(pd.RangeIndex(len(owners)), "vector", "embedding")

    def column(self, outcomes: Outcomes) -> Any:
        self._of_windows.dimensions = self.dimensions
        column = self._of_windows.column(outcomes)
        if outcomes.matrix is None:
            nothing = np.empty((len(self.index), self.dimensions or 0), np.float32)
            return in_fewer_bytes(vectors_of(nothing, np.zeros(len(self.index), bool), self.dimensions), self.dtype)
        made = matrix_of(pd.Series(column))
        length, width = len(self.index), made.shape[1]
        rows = np.zeros((length, width), dtype=np.float32)
        counts = np.bincount(self._owners, minlength=length)
        single = counts[self._owners] == 1
        rows[self._owners[single]] = made[single]
        several = np.flatnonzero(~single)
        for window in several:  # few texts are that long
            rows[self._owners[window]] += self._weights[window] * made[window]
        long = np.unique(self._owners[several])
        lengths = np.linalg.norm(rows[long], axis=1, keepdims=True)
        rows[long] /= np.where(lengths == 0, 1.0, lengths)
        # A row is whole or missing: a mean over the windows that came would pass for one over all of them.
        whole = (counts > 0) & ~np.isnan(rows).any(axis=1)
        return in_fewer_bytes(vectors_of(rows, whole, width), self.dtype)

    def errors(self, run: Run[Any]) -> pd.DataFrame:
        """One line a row, with the first reason among its windows."""
        lines = self._of_windows.errors(run)
        lines["row"] = self._owners[lines["row"].to_numpy()]
        lines = lines.drop_duplicates("row").reset_index(drop=True)
        lines["index"] = [self.index[row] for row in lines["row"]]
        return lines


def asked_dimensions(session: Session, model: Any, width: int) -> int | None:
    """Local lexical vectors and shortened ones are made at the length that is wanted."""
    if not isinstance(model, str):
        return None
    usual = session.target(model, "embed").model.dimensions
    return width if usual is not None and usual != width else None


def query_vectors(
    accessor: Accessor, queries: Sequence[str | None], width: int, model: Any, cache: Cache = "use", timeout: float = 180.0
) -> npt.NDArray[np.float32]:
    """Texts as queries to vectors of this length that the model made; NaN where there is no text.

    Raises
    ------
    BadInput
        The model makes vectors of another length.
    """
    how = How(model, None, Policy(cache=checked.cache(cache), on_error="raise", timeout=timeout), False, False, True)
    options = checked.options(dimensions=asked_dimensions(accessor._session, model, width)) | {"input_type": "query"}
    table = FrameTable(pd.DataFrame({"query": pd.Series(list(queries), dtype=object)}))
    column = accessor._run(EMBED, table, {"on": "query", "options": options}, ColumnShape(pd.RangeIndex(len(table)), "vector"), how)
    if column.isna().all():
        return np.full((len(table), width), np.nan, dtype=np.float32)
    made = matrix_of(column)
    if made.shape[1] != width:
        raise BadInput(
            f"the vectors are of {width} numbers, and {model} makes {made.shape[1]}: name the model that made them with model=..."
        )
    return made


def split(
    texts: pd.Series[Any], route: Sequence[Target], long_text: str, overlap: float
) -> tuple[FrameTable, npt.NDArray[np.intp], npt.NDArray[np.int64]]:
    """A column as windows that fit the models of a route: the table of windows, and for each its row and its characters.

    Raises
    ------
    BadInput
        A model's window is not known.
    """
    unknown = [target.name for target in route if target.model.context_window is None and target.provider.name != "local"]
    if unknown:
        provider, _, name = unknown[0].partition("/")
        raise BadInput(
            f"how long a text {unknown[0]} takes is not known, so it cannot be cut to fit; tell it with llmkit.catalogue.merge("
            f'{{"models": [{{"provider": "{provider}", "name": "{name}", "context_window": ...}}]}})'
        )
    known = [target.model.context_window for target in route if target.model.context_window is not None]
    most = int(_SHARE * min(known)) if known else None
    cells = FrameTable(texts.to_frame("text")).texts("text", 0, len(texts))
    pieces: list[str | None] = []
    owners: list[int] = []
    for row, cell in enumerate(cells):
        cut: Sequence[str | None] = [cell] if cell is None or most is None else windows(cell, most, overlap)
        for piece in cut[:1] if long_text == "truncate" else cut:
            pieces.append(piece)
            owners.append(row)
    weights = np.array([len(piece or "") for piece in pieces], dtype=np.int64)
    return FrameTable(pd.DataFrame({"text": pd.Series(pieces, dtype=object)})), np.array(owners, dtype=np.intp), weights
