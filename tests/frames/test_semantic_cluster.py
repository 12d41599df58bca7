"""``df.llm.cluster``: groups that are known, named by a server that says what it was shown."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pandas as pd
import pytest

import llmkit
from llmkit.errors import ConfigError
from llmkit.frames.semantic_groups import best_number, grouped, silhouette
from llmkit.types import Estimate
from tests.loopback import Loopback
from tests.loopback.errors.openai import invalid
from tests.loopback.oracle import Oracle

CHAT: dict[str, Any] = {"model": "lab/test-chat", "embed_model": "local/lexical", "show_progress": False}
TOPICS = {
    "delivery": "parcel courier late delivery shipping delayed",
    "billing": "invoice charge payment refund amount billed",
    "battery": "battery charging drains power empty phone",
}
NAMED = Oracle(name=lambda text: max(TOPICS, key=lambda topic: sum(text.count(word) for word in TOPICS[topic].split())))


def frame(rows: int = 45) -> pd.DataFrame:
    drawn = random.Random(0)
    topics = [list(TOPICS)[row % 3] for row in range(rows)]
    texts = [" ".join(drawn.sample(TOPICS[topic].split(), 5)) for topic in topics]
    return pd.DataFrame({"text": texts, "topic": topics}, index=[f"r{row // 2}" for row in range(rows)])


def test_rows_get_the_name_of_their_group(lab: Loopback) -> None:
    lab.answer = NAMED
    df = frame()
    found = df.llm.cluster("text", 3, **CHAT)
    assert isinstance(found.dtype, pd.CategoricalDtype)
    assert found.index.equals(df.index)
    assert found.tolist() == df["topic"].tolist()
    assert lab.requests == 3
    assert df.llm.cluster("text", 3, **CHAT).equals(found)
    assert lab.requests == 3


def test_the_number_of_groups_is_found_out(lab: Loopback) -> None:
    lab.answer = NAMED
    df = frame()
    assert df.llm.cluster("text", **CHAT).tolist() == df["topic"].tolist()


def test_a_group_is_named_by_its_most_central_rows_as_data(lab: Loopback) -> None:
    lab.answer = NAMED
    frame().llm.cluster("text", 3, examples=2, instructions="Groups of complaints", **CHAT)
    *_, system, user = lab.seen[0].body["messages"]
    assert "Groups of complaints" in system["content"]
    assert user["content"].count("<text>") == 2


def test_detail_has_number_name_description_and_distance(lab: Loopback) -> None:
    lab.answer = NAMED
    df = frame()
    df.iloc[4, 0] = None
    detail = df.llm.cluster("text", 3, detail=True, **CHAT)
    assert detail.columns.tolist() == ["cluster", "name", "description", "distance"]
    assert detail["cluster"].isna().tolist() == [row == 4 for row in range(45)]
    assert detail["distance"].dropna().between(0, 1.5).all()
    sizes = detail["cluster"].value_counts()
    assert sizes[0] == sizes.max()


def test_two_groups_of_one_name_stay_two(lab: Loopback) -> None:
    lab.answer = Oracle(name=lambda text: "complaints")
    assert set(frame().llm.cluster("text", 3, **CHAT)) == {"complaints", "complaints (2)", "complaints (3)"}


def test_a_group_that_got_no_name_is_missing_and_keeps_its_number(lab: Loopback) -> None:
    lab.answer = NAMED
    lab.fault("battery", invalid("no"), times=float("inf"))
    df = frame()
    with pytest.warns(UserWarning, match="1 groups got no name"):
        detail = df.llm.cluster("text", 3, detail=True, **CHAT)
    assert detail["name"].isna().tolist() == [topic == "battery" for topic in df["topic"]]
    assert detail["cluster"].notna().all()
    last = llmkit.last()
    assert last is not None
    assert sorted(last.errors()["row"]) == [row for row, topic in enumerate(df["topic"]) if topic == "battery"]


def test_a_row_that_got_no_vector_is_in_no_group(lab: Loopback) -> None:
    df = frame(12)
    df.iloc[5, 0] = "unreadable"
    lab.fault("unreadable", invalid("no"), times=float("inf"))
    with pytest.warns(UserWarning, match="1 texts got no vector and are in no group"):
        found = df.llm.cluster("text", 2, **{**CHAT, "embed_model": "lab/test-embed"})
    assert found.isna().tolist() == [row == 5 for row in range(12)]


def test_a_dry_run_says_how_many_at_the_most(lab: Loopback) -> None:
    estimate = frame().llm.cluster("text", dry_run=True, **CHAT)
    assert isinstance(estimate, Estimate)
    assert "12 requests to lab/test-chat" in estimate.basis
    assert "3 requests to lab/test-chat" in frame().llm.cluster("text", 3, dry_run=True, **CHAT).basis
    assert lab.requests == 0


def test_fewer_different_rows_than_groups_are_as_many_groups(lab: Loopback) -> None:
    lab.answer = Oracle(name=lambda text: text.split()[1])
    found = pd.Series(["parcel", "letter", "parcel"], name="text").llm.cluster(5, **CHAT)
    assert found.tolist() == ["parcel", "letter", "parcel"]


def test_nothing_to_group_asks_nobody() -> None:
    assert pd.DataFrame({"text": [None, None]}).llm.cluster("text", 2).isna().tolist() == [True, True]
    assert pd.DataFrame({"text": []}).llm.cluster("text").empty


@pytest.mark.parametrize("given", [{"n": 0}, {"n": 2.5}, {"examples": 0}, {"on": "txt"}, {"random_state": -1}])
def test_bad_input_is_told_before_anything_is_sent(lab: Loopback, given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        frame().llm.cluster(**{"on": "text", **CHAT, **given})
    assert lab.requests == 0


# -------------------------------------------------------------------------------------------------------------------- k-means


def blobs(n: int, each: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(n, 16)) * 3
    truth = np.repeat(np.arange(n), each)
    return (centres[truth] + 0.3 * rng.normal(size=(n * each, 16))).astype(np.float32), truth


@pytest.mark.parametrize("n", [2, 5, 9])
def test_groups_that_lie_apart_are_found_and_counted(n: int) -> None:
    vectors, truth = blobs(n, 20, n)
    weights = np.ones(len(vectors))
    assert best_number(vectors, weights, 0) == n
    found = grouped(vectors, weights, n, 0)
    assert len(set(zip(found.group.tolist(), truth.tolist(), strict=True))) == n
    again = grouped(vectors, weights, n, 0)
    assert np.array_equal(found.group, again.group)


def test_of_many_vectors_some_make_the_centres_and_all_are_in_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmkit.frames.semantic_groups._FITTED", 40)
    vectors, truth = blobs(4, 50, 2)
    found = grouped(vectors, np.ones(200), 4, 0)
    assert len(set(zip(found.group.tolist(), truth.tolist(), strict=True))) == 4


def test_a_vector_counts_as_often_as_it_stands_for_rows() -> None:
    vectors = np.array([[0.0], [1.0], [10.0]], dtype=np.float32)
    found = grouped(vectors, np.array([3.0, 1.0, 1.0]), 2, 0)
    assert found.group.tolist() == [0, 0, 1]
    assert found.centres[0, 0] == pytest.approx(0.25)


def test_equal_vectors_make_no_empty_groups() -> None:
    found = grouped(np.ones((4, 3), dtype=np.float32), np.ones(4), 3, 0)
    assert found.group.tolist() == [0] * 4 or len(set(found.group.tolist())) == len(found.centres)
    assert len(found.centres) == found.group.max() + 1


def test_the_silhouette_is_the_usual_one() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    vectors, truth = blobs(3, 10, 1)
    truth[0] = 3  # alone in its group
    assert silhouette(vectors, truth) == pytest.approx(metrics.silhouette_score(vectors.astype(float), truth), abs=1e-3)
