"""The nearest vectors, compared with all of them sorted."""

from __future__ import annotations

import numpy as np
import pytest

from llmkit.vectors.exact import Vectors, nearest
from llmkit.vectors.packing import packed
from tests.vectors.clusters import clustered, cosines


@pytest.mark.parametrize("most", [1, 7, 400, 5_000])
@pytest.mark.parametrize("queries", [1, 33])
def test_the_nearest_are_those_that_sorting_all_would_give(most: int, queries: int) -> None:
    rows, asked = clustered(3_000), clustered(queries, seed=1)
    places, scores = nearest(asked, Vectors([rows]), most)
    wanted = np.sort(-cosines(asked, rows), axis=1)[:, :most]
    assert places.shape == (queries, min(most, 3_000))
    np.testing.assert_allclose(scores, -wanted, atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(cosines(asked, rows), places, axis=1), scores, atol=1e-6)


def test_of_equally_near_ones_the_earlier_comes_first_in_whatever_block_it_lies() -> None:
    rows = np.tile(clustered(1), (4_000, 1))
    rows[1::2] = clustered(1, seed=3) * 1e-3
    places, scores = nearest(clustered(1), Vectors([rows[:500], rows[500:]]), 30)
    assert places.tolist() == [list(range(0, 60, 2))]
    assert scores.tolist() == [[1.0] * 30]


def test_a_score_is_the_same_whatever_is_asked_beside_it() -> None:
    rows, asked = clustered(3_000), clustered(50, seed=1)
    together = nearest(asked, Vectors([rows]), 10)
    alone = [nearest(asked[number : number + 1], Vectors([rows]), 10) for number in range(50)]
    assert np.array_equal(together[0], np.concatenate([places for places, _ in alone]))
    assert np.array_equal(together[1], np.concatenate([scores for _, scores in alone]))


def test_what_is_missing_is_found_by_nobody_and_finds_nobody() -> None:
    rows, asked = clustered(2_500), clustered(3, seed=1)
    rows[::2] = np.nan
    asked[1] = np.nan
    places, scores = nearest(asked, Vectors([rows]), 2_000)
    assert (places[[0, 2], :1_250] % 2 == 1).all()
    assert (places[[0, 2], 1_250:] == -1).all() and np.isnan(scores[[0, 2], 1_250:]).all()
    assert (places[1] == -1).all()


def test_vectors_may_lie_in_several_matrices_and_dtypes() -> None:
    rows, asked = clustered(3_000), clustered(20, seed=1)
    parts = [packed(rows[:700], "float16"), packed(rows[700:701], "int8"), rows[701:]]
    places, scores = nearest(asked, Vectors(parts), 5)
    whole = nearest(asked, Vectors([rows]), 5)
    np.testing.assert_allclose(scores, whole[1], atol=2e-3)
    assert (places == whole[0]).mean() > 0.9


def test_there_may_be_nothing_to_compare_with() -> None:
    places, scores = nearest(clustered(2), Vectors([np.empty((0, 32), dtype=np.float32)]), 3)
    assert places.shape == scores.shape == (2, 0)


def test_what_is_called_between_blocks_may_end_the_work() -> None:
    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        nearest(clustered(1), Vectors([clustered(10)]), 1, stop)
