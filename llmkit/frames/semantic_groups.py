"""Groups of like vectors: k-means with k-means++, and how many groups there are by the silhouette.

Its own few lines rather than scikit-learn's: the groups must not depend on which extras are installed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["MOST_GROUPS", "Grouping", "best_number", "grouped", "silhouette"]

Floats = npt.NDArray[np.float32]

_ROUNDS = 50
#: The share of the vectors that may still change their group at the end.
_SETTLED = 0.0005
#: Starts, of which the tightest grouping is taken.
_STARTS = 4
#: Vectors that the centres are fitted to; the others go to the nearest one.
_FITTED = 20_000
#: Vectors that the number of groups is chosen by.
_SAMPLE = 1_000
MOST_GROUPS = 12


@dataclass(frozen=True, slots=True)
class Grouping:
    """The group of each vector, the centres, and each vector's distance (Euclidean) to its own."""

    group: npt.NDArray[np.intp]
    centres: Floats
    distance: Floats


def grouped(vectors: Floats, weights: npt.NDArray[np.float64], n: int, random_state: int) -> Grouping:
    """``n`` groups of vectors, each of which stands for so many rows. The largest group comes first.

    Parameters
    ----------
    vectors : (rows, dimensions) float32 array
        At least ``n`` different ones.
    weights : (rows,) array
    n : int
    random_state : int
        The same number gives the same groups.
    """
    rng = np.random.default_rng(random_state)
    some = np.arange(len(vectors)) if len(vectors) <= _FITTED else np.sort(rng.choice(len(vectors), _FITTED, replace=False))
    fitted, counted = vectors[some], weights[some]
    best = min((_once(fitted, counted, n, rng) for _ in range(_STARTS)), key=lambda found: float(counted @ found.distance**2))
    if len(some) < len(vectors):
        group, squared = _nearest(vectors, np.einsum("ij,ij->i", vectors, vectors), best.centres)
        best = Grouping(group, best.centres, np.sqrt(squared))
    sizes = np.bincount(best.group, weights, minlength=len(best.centres))
    order = np.argsort(-sizes, kind="stable")[: int((sizes > 0).sum())]
    place = np.zeros(len(sizes), dtype=np.intp)
    place[order] = np.arange(len(order))
    return Grouping(place[best.group], best.centres[order], best.distance)


def _once(vectors: Floats, weights: npt.NDArray[np.float64], n: int, rng: np.random.Generator) -> Grouping:
    lengths = np.einsum("ij,ij->i", vectors, vectors)
    centres = _seeds(vectors, lengths, weights, n, rng)
    group = np.full(len(vectors), -1, dtype=np.intp)
    for _ in range(_ROUNDS):
        nearest, squared = _nearest(vectors, lengths, centres)
        if (nearest != group).sum() <= _SETTLED * len(vectors):
            break
        group = nearest
        sizes = np.bincount(group, weights, minlength=n)
        for centre in np.flatnonzero(sizes == 0):  # nobody is nearest to it: it moves to who is farthest from theirs
            farthest = int(np.argmax(weights * squared))
            group[farthest], squared[farthest] = centre, 0.0
        sizes = np.bincount(group, weights, minlength=n)
        belongs = np.zeros((len(vectors), n), dtype=np.float32)
        belongs[np.arange(len(vectors)), group] = weights
        sums = belongs.T @ vectors
        filled = sizes > 0
        centres = np.where(filled[:, None], sums / np.where(filled, sizes, 1.0)[:, None], centres).astype(np.float32)
    group, squared = _nearest(vectors, lengths, centres)
    return Grouping(group, centres, np.sqrt(squared))


def _seeds(vectors: Floats, lengths: Floats, weights: npt.NDArray[np.float64], n: int, rng: np.random.Generator) -> Floats:
    """k-means++: each next centre is drawn the likelier, the farther it is from those before."""
    chosen = [int(rng.choice(len(vectors), p=weights / weights.sum()))]
    _, squared = _nearest(vectors, lengths, vectors[chosen])
    while len(chosen) < n:
        likely = weights * squared
        likely[chosen] = 0.0
        total = likely.sum()
        if not total > 0:  # all that is left lies on a centre
            chosen.append(next(place for place in range(len(vectors)) if place not in chosen))
        else:
            chosen.append(int(rng.choice(len(vectors), p=likely / total)))
        squared = np.minimum(squared, _nearest(vectors, lengths, vectors[chosen[-1:]])[1])
    return vectors[chosen].copy()


def _nearest(vectors: Floats, lengths: Floats, centres: Floats) -> tuple[npt.NDArray[np.intp], Floats]:
    """The nearest centre of each vector, and the square of the distance; ``lengths`` are the squares of the vectors' own."""
    squared = vectors @ (-2 * centres.T)
    squared += (centres**2).sum(axis=1)
    group = squared.argmin(axis=1)
    found = np.maximum(np.take_along_axis(squared, group[:, None], axis=1)[:, 0] + lengths, 0.0)
    return group, found.astype(np.float32)


def silhouette(vectors: Floats, group: npt.NDArray[np.intp]) -> float:
    """How much nearer vectors are to their own group than to the next one, from -1 to 1, on average."""
    numbers = np.unique(group)
    if len(numbers) < 2:
        return -1.0
    squared = (vectors**2).sum(axis=1)
    distances = np.sqrt(np.maximum(squared[:, None] + squared[None, :] - 2 * (vectors @ vectors.T), 0.0))
    sizes = np.array([(group == number).sum() for number in numbers])
    sums = np.stack([distances[:, group == number].sum(axis=1) for number in numbers], axis=1)
    mine = np.searchsorted(numbers, group)
    rows = np.arange(len(vectors))
    alone = sizes[mine] == 1
    inside = sums[rows, mine] / np.maximum(sizes[mine] - 1, 1)
    means = sums / sizes[None, :]
    means[rows, mine] = np.inf
    outside = means.min(axis=1)
    widest = np.maximum(inside, outside)
    values = np.where(alone | (widest == 0), 0.0, (outside - inside) / np.where(widest == 0, 1.0, widest))
    return float(values.mean())


def best_number(vectors: Floats, weights: npt.NDArray[np.float64], random_state: int) -> int:
    """The number of groups, from 2 to 12, whose silhouette is best, on a sample of at most 1,000 different vectors."""
    rng = np.random.default_rng(random_state)
    if len(vectors) > _SAMPLE:
        some = np.sort(rng.choice(len(vectors), _SAMPLE, replace=False))
        vectors, weights = vectors[some], weights[some]
    tried = range(2, min(MOST_GROUPS, len(vectors) - 1) + 1)
    if not tried:
        return max(1, min(2, len(vectors)))
    return max(tried, key=lambda n: silhouette(vectors, grouped(vectors, weights, n, random_state).group))
