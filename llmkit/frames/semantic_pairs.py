"""Which texts are near one another: candidates of a join, and groups of near-duplicates. Blocks of vectors, never all pairs in memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ..vectors.exact import Vectors, nearest

__all__ = ["Groups", "candidates", "near_pairs"]

#: Vectors of one side of a block.
_BLOCK = 2_048

Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.intp]


def candidates(left: Floats, right: Floats, most: int) -> tuple[Places, Places, Floats]:
    """For each left vector the nearest right ones, ``most`` of them, nearest first: (left, right, cosine).

    Vectors are of length one; those of NaN have no neighbours.
    """
    places, cosines = nearest(left, Vectors([right]), most)
    found = places >= 0
    rows = np.nonzero(found)[0]
    return rows, places[found], cosines[found].astype(np.float32)


class Groups:
    """Things that are one, found pair by pair: a forest of numbers, each group named by its first."""

    def __init__(self, length: int) -> None:
        self._above = np.arange(length)

    def of(self, places: Places) -> Places:
        """The group of each."""
        found = self._above[places]
        while True:
            higher = self._above[found]
            if np.array_equal(higher, found):
                self._above[places] = found
                return found
            found = higher

    @property
    def all(self) -> Places:
        return self.of(np.arange(len(self._above)))

    def join(self, left: Places, right: Places) -> None:
        """These pairs are one each."""
        while True:
            mine, other = self.of(left), self.of(right)
            apart = mine != other
            if not apart.any():
                return
            left, right, mine, other = left[apart], right[apart], mine[apart], other[apart]
            # Each root goes under the least that it is paired with; where several were meant, the next round joins the rest.
            np.minimum.at(self._above, np.maximum(mine, other), np.minimum(mine, other))


def near_pairs(vectors: Floats, least: float) -> Iterator[tuple[Places, Places, Floats]]:
    """Pairs whose cosine is at least so much, block by block: (earlier, later, cosine). Vectors of NaN are in none."""
    there = np.flatnonzero(~np.isnan(vectors).any(axis=1))
    for start in range(0, len(there), _BLOCK):
        rows = there[start : start + _BLOCK]
        for at in range(start, len(there), _BLOCK):
            others = there[at : at + _BLOCK]
            cosines = vectors[rows] @ vectors[others].T
            first, second = np.nonzero(cosines >= least)
            if at == start:
                above = first < second
                first, second = first[above], second[above]
            if len(first):
                yield rows[first], others[second], cosines[first, second]
