"""``df.llm.sim_join``: the nearest rows of another frame, by texts and by vectors."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import pandas as pd
import pytest

import llmkit
from llmkit.errors import BadInput, ConfigError
from llmkit.frames import sim_join
from llmkit.types import Estimate
from tests.loopback import Loopback, Status, vector_of
from tests.vectors.clusters import clustered, cosines

QUIET: dict[str, Any] = {"show_progress": False}
TEXTS: dict[str, Any] = {"left_on": "asked", "right_on": "known", "model": "local/lexical", **QUIET}

ASKED = pd.DataFrame(
    {"asked": ["where is my parcel", None, "is the apple red", "where is my parcel", " "], "id": range(5)}, index=list("aabbc")
)
KNOWN = pd.DataFrame({"known": ["red apple", "late parcel", None, "green apple", "late parcel"], "id": range(10, 15)})


def test_each_row_is_joined_with_its_nearest_like_a_merge() -> None:
    joined = ASKED.llm.sim_join(KNOWN, **TEXTS)
    assert joined.columns.tolist() == ["asked", "id_x", "known", "id_y", "score"]
    assert joined[["id_x", "id_y"]].values.tolist() == [[0, 11], [2, 10], [3, 11]]
    assert joined.index.tolist() == [0, 1, 2]
    assert (joined["score"] > 0.5).all()


def test_several_neighbours_come_nearest_first_and_of_equal_ones_the_earlier() -> None:
    joined = ASKED.llm.sim_join(KNOWN, k=3, **TEXTS)
    assert joined.loc[joined["id_x"] == 0, "id_y"].tolist()[:2] == [11, 14]
    assert joined.groupby("id_x")["id_y"].size().tolist() == [3, 3, 3]
    assert all(part["score"].is_monotonic_decreasing for _, part in joined.groupby("id_x"))
    assert len(ASKED.llm.sim_join(KNOWN, k=99, **TEXTS)) == 3 * 4


def test_a_column_that_both_sides_name_alike_is_named_once_as_in_a_merge() -> None:
    known = KNOWN.rename(columns={"known": "asked"})
    joined = ASKED.llm.sim_join(known, on="asked", model="local/lexical", **QUIET)
    pd.testing.assert_frame_equal(joined, ASKED.llm.sim_join(known, **{**TEXTS, "right_on": "asked"}))
    assert joined.columns.tolist() == ["asked_x", "id_x", "asked_y", "id_y", "score"]


@pytest.mark.parametrize("names", [{}, {"left_on": "asked"}, {"right_on": "known"}, {"on": "asked", "right_on": "known"}])
def test_columns_are_named_by_on_or_by_both_others(names: dict[str, str]) -> None:
    with pytest.raises(BadInput, match="either on=, or left_on= and right_on="):
        ASKED.llm.sim_join(KNOWN, **names, **QUIET)


def test_a_threshold_and_a_left_join() -> None:
    joined = ASKED.llm.sim_join(KNOWN, k=3, threshold=0.6, how="left", suffixes=("", "_of_known"), **TEXTS)
    assert joined["id"].tolist() == [0, 0, 1, 2, 3, 3, 4]
    assert joined["known"].isna().tolist() == [False, False, True, False, False, False, True]
    assert joined["score"].isna().tolist() == joined["known"].isna().tolist()
    assert ASKED.llm.sim_join(KNOWN, threshold=1.0, **TEXTS).columns.tolist() == ["asked", "id_x", "known", "id_y", "score"]


def test_a_score_of_one_side_is_told_apart_from_the_new_one() -> None:
    assert "score_y" in ASKED.llm.sim_join(KNOWN.assign(score=1), **TEXTS)
    assert "score_x" in ASKED.assign(score=1).llm.sim_join(KNOWN, **TEXTS)


def test_equal_texts_of_both_sides_are_embedded_once(lab: Loopback) -> None:
    left, right = pd.DataFrame({"one": ["a", "b", "a"]}), pd.DataFrame({"other": ["b", "c"]})
    joined = left.llm.sim_join(right, left_on="one", right_on="other", model="lab/test-embed", **QUIET)
    assert dict(lab.texts) == {"a": 1, "b": 1, "c": 1}
    near = [max("bc", key=lambda text: float(vector_of(text) @ vector_of(one))) for one in "aba"]
    assert joined["other"].tolist() == near


def test_text_beside_vectors_is_embedded_by_the_model_that_made_them(lab: Loopback) -> None:
    right = pd.DataFrame({"text": ["a", "b"]})
    right["vector"] = right.llm.embed("text", model="lab/mine", **QUIET)
    llmkit.use(embed="lab/other")
    lab.reset()
    left = pd.DataFrame({"asked": ["x"]})
    left.llm.sim_join(right, left_on="asked", right_on="vector", **QUIET)
    assert [request.body["model"] for request in lab.seen] == ["mine"]
    right.llm.embed("text", model="lab/other", **QUIET)
    with pytest.raises(BadInput, match=r"lab/mine or lab/other.*model="):
        left.llm.sim_join(right, left_on="asked", right_on="vector", **QUIET)


def test_a_dry_run_counts_the_texts_and_sends_nothing(lab: Loopback) -> None:
    estimate = ASKED.llm.sim_join(KNOWN, left_on="asked", right_on="known", model="lab/test-embed", dry_run=True)
    assert isinstance(estimate, Estimate) and estimate.unique == 5
    assert lab.requests == 0


def test_a_text_that_fails_has_no_neighbours_and_is_told_of(lab: Loopback) -> None:

    right = pd.DataFrame({"vector": [vector_of("b"), vector_of("c")]})
    lab.fault(None, Status(400, {"error": {"message": "no"}}), times=float("inf"))
    with pytest.warns(UserWarning, match="2 texts got no vector, so their rows have no neighbours"):
        joined = pd.DataFrame({"one": ["a", "b"]}).llm.sim_join(right, left_on="one", right_on="vector", model="lab/test-embed", **QUIET)
    assert len(joined) == 0 and len(llmkit.last().errors()) == 2


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_vectors_are_compared_without_anybody_being_asked(dtype: str) -> None:
    from llmkit.frames.columns import packed_vectors
    from llmkit.vectors.packing import packed

    mine, other = clustered(300), clustered(200, seed=1)
    there = np.arange(300) % 7 != 0
    left = pd.DataFrame({"vector": packed_vectors(packed(mine, dtype), there), "id": range(300)})  # type: ignore[arg-type]
    right = pd.DataFrame({"vector": list(other), "id": range(200)})
    joined = left.llm.sim_join(right, left_on="vector", right_on="vector", k=2, wait=False).result()
    assert joined["id_x"].tolist() == [row for row in range(300) if row % 7 for _ in range(2)]
    best = np.argsort(-cosines(mine, other), axis=1)[:, :2][there].ravel()
    assert (joined["id_y"] == best).mean() > (0.999 if dtype == "float32" else 0.95)


@pytest.mark.skipif(find_spec("faiss") is None, reason="faiss is not installed")
def test_above_what_can_be_compared_whole_candidates_are_measured_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = (pd.DataFrame({"vector": list(clustered(1_000, seed=seed)), "id": range(1_000)}) for seed in (1, 2))
    whole = left.llm.sim_join(right, left_on="vector", right_on="vector", k=3)
    monkeypatch.setattr(sim_join, "_ALL", 10_000)
    with pytest.warns(UserWarning, match=r"1,000 x 1,000 pairs are too many to compare all: faiss named the candidates"):
        named = left.llm.sim_join(right, left_on="vector", right_on="vector", k=3)
    both = whole.merge(named, on=["id_x", "id_y"])
    assert len(both) > 0.95 * len(whole)
    assert (both["score_x"] == both["score_y"]).all()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"left_on": "nope"}, "no column 'nope'"),
        ({"k": 0}, "k is a whole number"),
        ({"threshold": 2}, "from -1.0 to 1.0"),
        ({"how": "outer"}, '"inner" or "left"'),
        ({"model": ["local/lexical", "lab/x"]}, "do not compare"),
        ({"suffixes": ("", "")}, "overlap"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_sent(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ASKED.llm.sim_join(KNOWN, **{**TEXTS, **arguments})


def test_vectors_that_do_not_compare_are_refused() -> None:
    left, right = pd.DataFrame({"v": list(clustered(3, 8))}), pd.DataFrame({"w": list(clustered(3, 9))})
    with pytest.raises(BadInput, match="of 8 numbers on the left and of 9 on the right"):
        left.llm.sim_join(right, left_on="v", right_on="w")
    right = pd.DataFrame({"w": [np.zeros(8), np.ones(8), np.full(8, np.inf)]})
    with pytest.raises(BadInput, match=r"on the right holds vectors that are zero or not finite, in rows 0, 2"):
        left.llm.sim_join(right, left_on="v", right_on="w")
    with pytest.raises(BadInput, match="takes another DataFrame"):
        left.llm.sim_join(right["w"], left_on="v", right_on="w")


def test_frames_without_rows_join_to_one_without_rows() -> None:
    for left, right in ((ASKED.iloc[:0], KNOWN), (ASKED, KNOWN.iloc[:0]), (ASKED.iloc[1:2], KNOWN)):
        joined = left.llm.sim_join(right, **TEXTS)
        assert len(joined) == 0 and joined.columns.tolist() == ["asked", "id_x", "known", "id_y", "score"]
    assert ASKED.llm.sim_join(KNOWN.iloc[:0], how="left", **TEXTS)["id_x"].tolist() == [0, 1, 2, 3, 4]


def test_refusals_are_configuration_errors() -> None:
    with pytest.raises(ConfigError):
        ASKED.llm.sim_join(KNOWN, **{**TEXTS, "k": 1.5})
