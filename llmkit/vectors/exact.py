"""The nearest vectors by cosine, exactly: block by block, so that memory stays bounded however many there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .packing import Floats

__all__ = ["Places", "Vectors", "best_of", "nearest"]

Places = npt.NDArray[np.intp]
Scores = npt.NDArray[np.float64]

#: Numbers of stored vectors that are looked at together: 32 MB of float32.
_NUMBERS = 1 << 23

#: Cosines that are looked at together: 64 MB.
_COSINES = 1 << 24

#: The first block of all, which sets what the others must surpass: sorting it is the only sorting of whole rows. Each later one is larger,
#: so that never very many are beyond what is known.
_FIRST = 1_024

#: For so many queries the first block is as large as any: sorting their rows takes less than going through more blocks.
_FEW = 4

#: Of a block's vectors, so many times those wanted may be beyond what is known before they are sorted out.
_CROWDED = 16

#: The last bits of a cosine depend on its place in the product: so near to one another they count as equal until they are measured once
#: more, and so many beyond the ones wanted are.
_EQUAL, _SPARE = np.float32(2.0**-21), 8


def _nothing() -> None:
    return None


class Vectors:
    """Vectors in one or several matrices, one after another, addressed by place.

    Parameters
    ----------
    matrices : sequence of (n, d) arrays
        float32, float16 or int8, in memory or mapped into it. A row of NaN is no vector.
    lengths : sequence of (n,) arrays, optional
        Of the rows as they are stored, NaN where there is no vector; by default taken anew at each look.
    """

    def __init__(self, matrices: Sequence[npt.NDArray[Any]], lengths: Sequence[Floats] | None = None) -> None:
        self._matrices = list(matrices)
        self._lengths = None if lengths is None else list(lengths)
        self._starts = np.cumsum([0, *(len(matrix) for matrix in matrices)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def dimensions(self) -> int:
        return int(self._matrices[0].shape[1]) if self._matrices else 0

    def _cut(self, matrix: int, start: int, stop: int) -> tuple[Floats, Floats]:
        rows = self._matrices[matrix][start:stop].astype(np.float32, copy=False)
        if self._lengths is not None:
            return rows, self._lengths[matrix][start:stop]
        return rows, np.sqrt(np.einsum("ij,ij->i", rows, rows))

    def blocks(self, first: int, size: int) -> Iterator[tuple[int, Floats, Floats]]:
        """(place of the first row, rows, their lengths), ``first`` rows in the first block, then four times as many, up to ``size``."""
        ready = first
        for number, matrix in enumerate(self._matrices):
            start = 0
            while start < len(matrix):
                stop = min(len(matrix), start + ready)
                yield int(self._starts[number]) + start, *self._cut(number, start, stop)
                start, ready = stop, min(4 * ready, size)

    def at(self, places: Places) -> tuple[Floats, Floats]:
        """The rows at these places, in this order, and their lengths."""
        rows = np.empty((len(places), self.dimensions), dtype=np.float32)
        lengths = np.empty(len(places), dtype=np.float32)
        owner = np.searchsorted(self._starts, places, side="right") - 1
        for number in np.unique(owner):
            here = np.flatnonzero(owner == number)
            inside = places[here] - self._starts[number]
            found = self._matrices[number][inside].astype(np.float32, copy=False)
            rows[here] = found
            lengths[here] = np.sqrt(np.einsum("ij,ij->i", found, found)) if self._lengths is None else self._lengths[number][inside]
        return rows, lengths


def nearest(queries: Floats, among: Vectors, most: int, tick: Callable[[], None] = _nothing) -> tuple[Places, Scores]:
    """For each query the places of the nearest vectors, ``most`` of them or all, nearest first, and their cosines.

    Of equally near ones the earlier comes first. A pair's cosine is the same whatever else is compared at the same time.

    Parameters
    ----------
    queries : (n, d) float32 array
        Of any length; one of NaN has no neighbours.
    among : Vectors
    most : int
    tick : callable
        Called between blocks; what it raises ends the work.

    Returns
    -------
    places : (n, most) int array
        -1 where there is none.
    cosines : (n, most) float64 array
        NaN where there is none.
    """
    most = min(most, len(among))
    found = np.full((len(queries), most), -1, dtype=np.intp)
    cosines = np.full((len(queries), most), np.nan)
    asked = np.flatnonzero(~np.isnan(queries).any(axis=1))
    if not most or not len(asked):
        return found, cosines
    size = max(_FIRST, _NUMBERS // among.dimensions)
    at_once = max(1, _COSINES // min(len(among), max(size, most + _SPARE)))
    for start in range(0, len(asked), at_once):
        rows = asked[start : start + at_once]
        some = of_length_one(queries[rows])
        found[rows], cosines[rows] = best_of(some, among, _near(some, among, min(most + _SPARE, len(among)), size, tick), most)
    return found, cosines


def of_length_one(rows: Floats) -> Floats:
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]
    return np.asarray(rows / np.where(lengths == 0, np.float32(1.0), lengths), dtype=np.float32)


def _near(queries: Floats, among: Vectors, most: int, size: int, tick: Callable[[], None]) -> Places:
    """The places of about the nearest, in any order; -1 where there is none."""
    places = np.full((len(queries), most), -1, dtype=np.intp)
    scores = np.full((len(queries), most), -np.inf, dtype=np.float32)
    first = size if len(queries) <= _FEW else min(max(_FIRST, most), size)
    for start, rows, lengths in among.blocks(first, size):
        tick()
        with np.errstate(invalid="ignore"):
            cosines = queries @ rows.T
            cosines /= np.where(lengths == 0, np.float32(1.0), lengths)
        # All but a few are behind what is known already, which one look at each tells. NaN is never beyond anything.
        query, place = _where(cosines > scores[:, -1:] + _EQUAL)
        if len(query) > _CROWDED * most * len(queries):
            query, place = _foremost(cosines, most)
        if len(query):
            _take_in(places, scores, query, place + start, cosines[query, place])
    return places


def _foremost(cosines: Floats, most: int) -> tuple[Places, Places]:
    """(query, place) of the largest cosines of each query, the earlier of equal ones; of NaN none."""
    np.nan_to_num(cosines, copy=False, nan=-np.inf, neginf=-np.inf)
    beyond = cosines.shape[1] - most
    if beyond <= 0:
        return _where(cosines > -np.inf)
    least = np.partition(cosines, beyond, axis=1)[:, beyond, None]
    wanted = (cosines >= least - _EQUAL) & (cosines > -np.inf)
    crowded = np.flatnonzero(np.count_nonzero(wanted, axis=1) > most)
    if len(crowded):
        sure = cosines[crowded] > least[crowded] + _EQUAL
        equal = wanted[crowded] & ~sure
        wanted[crowded] = sure | (equal & (np.cumsum(equal, axis=1) <= most - sure.sum(axis=1, keepdims=True)))
    return _where(wanted)


def _where(wanted: npt.NDArray[np.bool_]) -> tuple[Places, Places]:
    """``np.nonzero``, which takes several times as long on a matrix."""
    query, place = np.divmod(np.flatnonzero(wanted), wanted.shape[1])
    return query, place


def _take_in(places: Places, scores: Floats, query: Places, place: Places, cosine: Floats) -> None:
    """Let these take the places of lesser ones; each row of ``scores`` stays in order, the least last."""
    most = places.shape[1]
    better = np.unique(query)
    owner = np.concatenate([np.repeat(better, most), query])
    other = np.concatenate([places[better].ravel(), place])
    value = np.concatenate([scores[better].ravel(), np.rint(cosine / _EQUAL) * _EQUAL])
    order = np.lexsort((other, -value, owner))
    owner, other, value = owner[order], other[order], value[order]
    first = np.searchsorted(owner, better)
    rank = np.arange(len(owner)) - np.repeat(first, np.diff(np.append(first, len(owner))))
    keep = rank < most
    places[owner[keep], rank[keep]] = other[keep]
    scores[owner[keep], rank[keep]] = value[keep]


def best_of(queries: Floats, among: Vectors, candidates: Places, most: int) -> tuple[Places, Scores]:
    """Of each query's candidates (-1 is none) the nearest, in order, by cosines taken pair by pair in double precision.

    ``queries`` are of length one.
    """
    cosines = np.full(candidates.shape, -np.inf)
    query, column = np.nonzero(candidates >= 0)
    step = max(1, _NUMBERS // 4 // max(1, queries.shape[1]))
    for start in range(0, len(query), step):
        some, columns = query[start : start + step], column[start : start + step]
        rows, lengths = among.at(candidates[some, columns])
        products = np.einsum("ij,ij->i", rows, queries[some], dtype=np.float64)
        cosines[some, columns] = products / np.where(lengths == 0, 1.0, lengths)
    np.nan_to_num(cosines, copy=False, nan=-np.inf, neginf=-np.inf)
    # Rounded as float32 is: what is equal but for the way it was added up is equal.
    cosines = cosines.astype(np.float32).astype(np.float64)
    order = np.lexsort((candidates, -cosines), axis=1)[:, :most]
    cosines, places = np.take_along_axis(cosines, order, axis=1), np.take_along_axis(candidates, order, axis=1)
    none = cosines == -np.inf
    return np.where(none, -1, places), np.where(none, np.nan, cosines)
