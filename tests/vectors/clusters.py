"""Vectors with neighbours, as texts have them: topics, and what is said about each."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def clustered(count: int, dimensions: int = 32, seed: int = 0, topics: int = 40) -> npt.NDArray[np.float32]:
    centres = np.random.default_rng(7).standard_normal((topics, dimensions))
    rng = np.random.default_rng(seed)
    rows = centres[rng.integers(0, topics, count)] + 0.6 * rng.standard_normal((count, dimensions))
    return np.asarray(rows * rng.uniform(0.5, 2.0, (count, 1)), dtype=np.float32)


def cosines(queries: Any, rows: Any) -> npt.NDArray[np.float64]:
    one = np.asarray(queries, dtype=np.float64)
    other = np.asarray(rows, dtype=np.float64)
    one, other = (matrix / np.linalg.norm(matrix, axis=1, keepdims=True) for matrix in (one, other))
    return np.asarray(one @ other.T)
