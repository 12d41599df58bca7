"""What several tests of frames share: cells of any kind, a record to extract, and what the last call came to."""

from __future__ import annotations

from typing import Any

import pandas as pd
from pydantic import BaseModel

import llmkit


class Offer(BaseModel):
    title: str
    price: float | None = None


def frame(*cells: Any) -> pd.DataFrame:
    return pd.DataFrame({"text": pd.Series(list(cells), dtype=object)})


def last() -> Any:
    """The last run, which is there."""
    run = llmkit.last()
    assert run is not None
    return run


def errors() -> pd.DataFrame:
    """The rows of it that failed, and why."""
    found: pd.DataFrame = last().errors()
    return found
