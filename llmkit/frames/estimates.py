"""Estimates of more than one run, and of none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..types import Estimate

__all__ = ["nothing", "summed"]


def nothing(why: str, rows: int = 0, missing: int = 0) -> Estimate:
    """The estimate of a call that has nothing to send."""
    return Estimate("none", rows, missing, 0, 0, 0, 0, 0, 0.0, 0.0, why)


def summed(estimates: Sequence[Estimate]) -> dict[str, Any]:
    """What adds up, by name. Rows do not: the same ones may be asked several times; nor seconds: some runs go on side by side."""
    costs = [one.cost for one in estimates]
    names = ("unique", "stored", "requests", "input_tokens", "output_tokens")
    totals: dict[str, Any] = {name: sum(getattr(one, name) for one in estimates) for name in names}
    return {**totals, "cost": None if None in costs else sum(cost for cost in costs if cost is not None)}
