"""``df.llm.dedup``: near-duplicates by vectors, and by a server that knows which names are one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import llmkit
from llmkit.errors import ConfigError
from llmkit.frames.semantic_pairs import Groups, near_pairs
from llmkit.types import Estimate
from tests.loopback import Loopback
from tests.loopback.errors.openai import invalid
from tests.loopback.oracle import Oracle

LOCAL: dict[str, Any] = {"embed_model": "local/lexical", "show_progress": False}
NAMES = ["ACME Incorporated", "Globex Corporation", "Acme incorporated.", None, "ACME Incorporated", "Initech", "Globex corporation"]
SAME = Oracle(is_true=lambda data: data["first"].split()[0].lower() == data["second"].split()[0].lower())


def frame(names: list[Any]) -> pd.DataFrame:
    return pd.DataFrame({"name": pd.Series(names, dtype=object), "n": range(len(names))})


def test_one_row_of_each_group_is_kept_with_index_and_order() -> None:
    df = frame(NAMES).set_axis(list("aabbccd"))
    pd.testing.assert_frame_equal(df.llm.dedup("name", threshold=0.8, **LOCAL), df.iloc[[0, 1, 3, 5]])
    pd.testing.assert_frame_equal(df.llm.dedup("name", threshold=0.8, keep="last", **LOCAL), df.iloc[[3, 4, 5, 6]])


def test_detail_names_the_groups() -> None:
    detail = frame(NAMES).llm.dedup("name", threshold=0.8, detail=True, **LOCAL)
    assert detail["group"].astype(object).where(detail["group"].notna(), None).tolist() == [0, 1, 0, None, 0, 2, 1]
    assert detail["kept"].tolist() == [True, True, False, True, False, True, False]


def test_pairs_near_the_threshold_are_confirmed_by_a_chat_model(lab: Loopback) -> None:
    lab.answer = SAME
    df = frame(["Acme Ltd", "Acme Limited", "Acme Lamps Ltd", "Bolt Ltd", "Bolt Lamps Ltd", "Zeta"])
    kept = df.llm.dedup("name", threshold=0.5, margin=0.5, confirm="lab/test-chat", **LOCAL)
    assert kept["name"].tolist() == ["Acme Ltd", "Bolt Ltd", "Zeta"]
    sent = lab.requests
    assert 0 < sent <= 15
    assert df.llm.dedup("name", threshold=0.5, margin=0.5, confirm="lab/test-chat", **LOCAL).equals(kept)
    assert lab.requests == sent


def test_what_is_surely_one_or_surely_two_is_not_asked(lab: Loopback) -> None:
    lab.answer = Oracle(is_true=lambda data: False)
    df = frame(["the very same words here", "the very same words  here", "quite another thing"])
    assert len(df.llm.dedup("name", threshold=0.9, margin=0.05, confirm="lab/test-chat", **LOCAL)) == 2
    assert lab.requests == 0


def test_of_two_groups_that_surely_are_one_each_only_the_nearest_pair_is_asked_about(lab: Loopback) -> None:
    lab.answer = SAME
    df = frame(["Acme Ltd", "acme ltd", "ACME LTD", "Acme Limited", "acme limited", "ACME LIMITED"])
    kept = df.llm.dedup("name", threshold=0.6, margin=0.4, confirm="lab/test-chat", **LOCAL)
    assert kept["name"].tolist() == ["Acme Ltd"]
    assert lab.requests == 1


def test_a_pair_without_a_verdict_stays_two(lab: Loopback) -> None:
    lab.answer = SAME
    lab.fault("Limited", invalid("no"), times=float("inf"))
    df = frame(["Acme Ltd", "Acme Limited", "Bolt Ltd", "Bolt ltd."])
    with pytest.warns(UserWarning, match="pairs got no verdict and stay two"):
        kept = df.llm.dedup("name", threshold=0.5, margin=0.5, confirm="lab/test-chat", **LOCAL)
    assert kept["name"].tolist() == ["Acme Ltd", "Acme Limited", "Bolt Ltd"]
    last = llmkit.last()
    assert last is not None
    assert 1 in last.errors()["row"].tolist()


def test_no_more_pairs_are_asked_about_than_may_be(lab: Loopback) -> None:
    lab.answer = SAME
    df = frame([f"Acme {word}" for word in ("Ltd", "Limited", "Lamps", "Lights", "Lanterns")])
    with pytest.warns(UserWarning, match="were not asked about: most_pairs=2"):
        df.llm.dedup("name", threshold=0.5, margin=0.5, most_pairs=2, confirm="lab/test-chat", **LOCAL)
    assert lab.requests == 2


def test_a_dry_run_says_how_many_at_the_most(lab: Loopback) -> None:
    estimate = frame(NAMES).llm.dedup("name", confirm="lab/test-chat", most_pairs=7, dry_run=True, **LOCAL)
    assert isinstance(estimate, Estimate)
    assert "7 requests to lab/test-chat" in estimate.basis
    alone = frame(NAMES).llm.dedup("name", dry_run=True, **LOCAL)
    assert (alone.rows, alone.missing, alone.unique) == (7, 1, 5)
    assert lab.requests == 0


def test_a_row_that_got_no_vector_is_kept(lab: Loopback) -> None:
    lab.fault("Initech", invalid("no"), times=float("inf"))
    with pytest.warns(UserWarning, match="1 texts got no vector, so their rows are kept"):
        detail = frame(NAMES).llm.dedup("name", embed_model="lab/test-embed", detail=True, show_progress=False)
    assert detail["kept"][5]
    assert detail["group"].isna().tolist() == [False, False, False, True, False, True, False]


def test_a_series_comes_back_as_one() -> None:
    words = pd.Series(["parcel", "Parcel", "letter"], index=list("xyz"))
    pd.testing.assert_series_equal(words.llm.dedup(threshold=0.8, **LOCAL), words.iloc[[0, 2]])


def test_nothing_to_compare_asks_nobody() -> None:
    df = frame([None, "alone", "alone"])
    assert df.llm.dedup("name").index.tolist() == [0, 1]
    assert df.iloc[:0].llm.dedup("name").empty


@pytest.mark.parametrize("given", [{"threshold": 2}, {"keep": "best"}, {"margin": -1}, {"same": "x"}, {"on": "nam"}, {"most_pairs": 1.5}])
def test_bad_input_is_told_before_anything_is_sent(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        frame(NAMES).llm.dedup(**{"on": "name", **LOCAL, **given})


def test_groups_are_the_connected_components() -> None:
    rng = np.random.default_rng(3)
    left, right = rng.integers(0, 300, 200), rng.integers(0, 300, 200)
    groups = Groups(300)
    for at in range(0, 200, 17):
        groups.join(left[at : at + 17], right[at : at + 17])
    neighbours: dict[int, set[int]] = {node: {node} for node in range(300)}
    for one, other in zip(left.tolist(), right.tolist(), strict=True):
        neighbours[one].add(other)
        neighbours[other].add(one)
    found = groups.all
    for node in range(300):
        reached, edge = {node}, [node]
        while edge:
            edge = [other for one in edge for other in neighbours[one] if other not in reached and not reached.add(other)]  # type: ignore[func-returns-value]
        assert found[node] == min(reached)


def test_near_pairs_are_all_of_them_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmkit.frames.semantic_pairs._BLOCK", 7)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[11] = np.nan
    found = {(one, other) for left, right, _ in near_pairs(vectors, 0.5) for one, other in zip(left.tolist(), right.tolist(), strict=True)}
    assert found == {(one, other) for one in range(40) for other in range(one + 1, 40) if vectors[one] @ vectors[other] >= 0.5}
