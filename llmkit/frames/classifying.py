"""Labels as columns: from what a chat model or a classifier said, or from the nearest of the labels' own vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..operations.classify import Labelled
from ..outcomes import Outcomes
from ..run import Run
from .columns import ColumnShape, DetailShape, matrix_of
from .embedding import Remembering
from .ranking import normalised

__all__ = ["Nearest", "Said", "SaidInDetail"]


class Said(ColumnShape):
    """What a model said of each row: one category of the labels, or with ``multi_label`` a list of them.

    Parameters
    ----------
    index : Index
        Of the frame.
    names : list of str
        The labels, in the order of the categories.
    multi_label : bool
        Any number of labels a row.
    """

    def __init__(self, index: pd.Index[Any], names: list[str], multi_label: bool) -> None:
        super().__init__(index, "object", "classify")
        self.names = names
        self.multi_label = multi_label

    def column(self, outcomes: Outcomes) -> Any:
        said = super().column(outcomes)
        if self.multi_label:
            cells = np.empty(len(said), dtype=object)
            for row, one in enumerate(said):
                cells[row] = list(one.labels) if isinstance(one, Labelled) else None
            return cells
        codes = {name: code for code, name in enumerate(self.names)}
        taken = [codes[one.labels[0]] if isinstance(one, Labelled) and one.labels else -1 for one in said]
        return pd.Categorical.from_codes(taken, dtype=pd.CategoricalDtype(self.names))


class SaidInDetail(Said, DetailShape):
    """The same as a detail frame, with ``probability``: of the label, or of each where there are several; missing where nobody tells."""

    def result(self, run: Run[Any]) -> Any:
        frame = DetailShape.result(self, run)
        said = ColumnShape.column(self, run.outcomes)
        if self.multi_label:
            cells = np.empty(len(said), dtype=object)
            for row, one in enumerate(said):
                cells[row] = list(one.probabilities) if isinstance(one, Labelled) else None
            frame.insert(1, "probability", cells)
        else:
            told = [one.probabilities[0] if isinstance(one, Labelled) and one.probabilities else None for one in said]
            frame.insert(1, "probability", pd.array(told, dtype="Float64"))
        return frame


class Nearest(Remembering):
    """The label whose vector is nearest to the row's.

    Parameters
    ----------
    index : Index
        Of the frame.
    names : list of str
        The labels.
    meanings : (labels, dimensions) float32 array
        Their vectors; set before the first result is asked for.
    detail : bool
        A frame of value, score (the cosine to the label taken) and margin (to the next one).
    """

    def __init__(self, index: pd.Index[Any], names: list[str], detail: bool) -> None:
        super().__init__(index, "vector", "classify")
        self.names = names
        self.detail = detail
        self.meanings: npt.NDArray[np.float32] = np.empty((0, 0), dtype=np.float32)

    def result(self, run: Run[Any]) -> Any:
        column = super().result(run)
        dtype = pd.CategoricalDtype(self.names)
        missing = column.isna().to_numpy()
        if missing.all():
            taken, score, margin = np.full(len(column), -1), np.full(len(column), np.nan), np.full(len(column), np.nan)
        else:
            cosines = normalised(matrix_of(column)) @ normalised(self.meanings).T
            cosines = np.where(missing[:, None], -np.inf, cosines)
            order = np.sort(cosines, axis=1)
            taken = np.where(missing, -1, cosines.argmax(axis=1))
            score = np.where(missing, np.nan, order[:, -1])
            with np.errstate(invalid="ignore"):
                margin = np.where(missing, np.nan, order[:, -1] - order[:, -2])
        value = pd.Categorical.from_codes(taken, dtype=dtype)
        if self.detail:
            return pd.DataFrame({"value": value, "score": score, "margin": margin}, index=self.index)
        return pd.Series(value, index=self.index, name="classify")
