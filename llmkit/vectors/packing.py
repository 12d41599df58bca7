"""Vectors in fewer bytes: float16, and int8 as directions."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError

__all__ = ["DTYPES", "Dtype", "Floats", "dtype_of", "packed", "unpacked"]

Dtype = Literal["float32", "float16", "int8"]
Floats = npt.NDArray[np.float32]

DTYPES: tuple[Dtype, ...] = ("float32", "float16", "int8")

#: The largest number of float16.
_MOST = 65_504.0


def dtype_of(given: Any) -> Dtype:
    """What ``dtype=`` says, checked."""
    name = given if isinstance(given, str) else getattr(given, "__name__", str(given))
    for known in DTYPES:
        if name == known:
            return known
    raise ConfigError(f'dtype is "float32", "float16" or "int8", not {given!r}')


def packed(rows: Floats, dtype: Dtype) -> npt.NDArray[Any]:
    """These rows in fewer bytes.

    int8 is a direction: each row is stretched until its largest number is 127 and rounded. No scale is kept, since a cosine asks for none;
    the length of the vector is lost. Rows of zeros stay zeros, missing ones (NaN) become zeros. Beyond what float16 holds, its largest
    number stands.
    """
    if dtype == "float32":
        return rows
    if dtype == "float16":
        return np.asarray(np.clip(rows, -_MOST, _MOST), dtype=np.float16)
    largest = np.abs(rows).max(axis=1, keepdims=True, initial=0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        stretched = rows * (127.0 / largest)
    rounded = np.rint(np.nan_to_num(stretched, copy=False, nan=0.0, posinf=0.0, neginf=0.0))
    return np.asarray(rounded, dtype=np.int8)


def unpacked(rows: npt.NDArray[Any]) -> Floats:
    """As float32: float16 as it was rounded, int8 as vectors of length one; float32 as it is, without a copy."""
    if rows.dtype != np.int8:
        return rows.astype(np.float32, copy=False)
    found = rows.astype(np.float32)
    lengths = np.sqrt(np.einsum("ij,ij->i", found, found))[:, None]
    found /= np.where(lengths == 0, np.float32(1.0), lengths)
    return found
