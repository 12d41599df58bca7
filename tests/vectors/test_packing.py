"""Vectors in fewer bytes, and what of them is lost."""

from __future__ import annotations

import numpy as np
import pytest

from llmkit.errors import ConfigError
from llmkit.vectors.packing import dtype_of, packed, unpacked
from tests.vectors.clusters import clustered, cosines


def test_float16_keeps_three_digits() -> None:
    rows = clustered(500)
    kept = packed(rows, "float16")
    assert kept.dtype == np.float16
    np.testing.assert_allclose(unpacked(kept), rows, rtol=1e-3, atol=1e-6)


def test_beyond_float16_its_largest_number_stands_and_not_infinity() -> None:
    assert packed(np.array([[1e6, -1e6]], dtype=np.float32), "float16").tolist() == [[65504.0, -65504.0]]


def test_int8_is_a_direction_whose_largest_number_is_127() -> None:
    rows = clustered(500)
    kept = packed(rows, "int8")
    assert (np.abs(kept.astype(int)).max(axis=1) == 127).all()
    back = unpacked(kept)
    np.testing.assert_allclose(np.linalg.norm(back, axis=1), 1.0, atol=1e-6)
    assert np.diag(cosines(back, rows)).min() > 0.9999


def test_int8_of_what_has_no_direction_is_zeros() -> None:
    rows = np.array([[0, 0], [np.nan, np.nan], [3, -1.5]], dtype=np.float32)
    assert packed(rows, "int8").tolist() == [[0, 0], [0, 0], [127, -64]]
    assert unpacked(packed(rows, "int8"))[:2].tolist() == [[0, 0], [0, 0]]


def test_a_dtype_may_be_named_as_numpy_does_and_no_other_is_known() -> None:
    assert dtype_of(np.float16) == dtype_of("float16") == "float16"
    with pytest.raises(ConfigError, match="float64"):
        dtype_of("float64")
