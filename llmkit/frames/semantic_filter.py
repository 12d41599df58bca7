"""Verdicts on rows: a frame of those for which a claim is true."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..outcomes import Outcomes
from ..run import Run, to_the_caller
from .columns import ColumnShape, DetailShape

__all__ = ["Kept", "Missing", "Verdicts"]

Missing = Literal["drop", "keep"]


class _Judged(ColumnShape):
    def column(self, outcomes: Outcomes) -> Any:
        return pd.array(list(super().column(outcomes)), dtype="boolean")


class Kept(_Judged):
    """The rows for which the claim is true.

    Parameters
    ----------
    rows : DataFrame or Series
        That were judged.
    missing : {"drop", "keep"}
        What becomes of rows without a verdict.
    """

    def __init__(self, rows: Any, missing: Missing) -> None:
        super().__init__(rows.index, "object", "filter")
        self._rows = rows
        self._missing = missing

    def result(self, run: Run[Any]) -> Any:
        verdicts: npt.NDArray[np.bool_] = self.column(run.outcomes).to_numpy(dtype=bool, na_value=self._missing == "keep")
        failed = run.outcomes.rows_failed
        if failed and run.done and run.outcomes.done and not run.stopped:
            what = "are kept" if self._missing == "keep" else 'are left out (missing="keep" keeps them)'
            said = f"llmkit: {failed:,} rows got no verdict and {what}; llmkit.last().errors() says why"
            warnings.warn(said, stacklevel=to_the_caller())
        return self._rows.iloc[np.flatnonzero(verdicts)]


class Verdicts(_Judged, DetailShape):
    """A line for every row: the verdict, and how it came about."""

    def __init__(self, index: pd.Index[Any]) -> None:
        super().__init__(index, "object", "filter")
