"""``llmkit.compare`` against a server: several models, the same rows, one run."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
from pydantic import BaseModel

import llmkit
from llmkit import Comparison
from tests.loopback import Loopback, bad_key, refusal, server_error

QUIET: dict[str, Any] = {"show_progress": False}
THREE = ["lab/small", "lab/middle", "lab/large"]
TOPICS = ["billing", "delivery", "quality"]


class Review(BaseModel):
    topic: Literal["billing", "delivery", "quality"]
    stars: int | None
    name: str | None


def number_of(body: dict[str, Any]) -> int:
    found = re.search(r"row (\d+)", json.dumps(body["messages"]))
    assert found
    return int(found.group(1))


def topic(body: dict[str, Any]) -> str:
    """The large model is always right, the middle one but for every fourth row, the small one says the same of all."""
    number, model = number_of(body), body["model"]
    right = TOPICS[number % 3]
    if model == "large":
        return right
    if model == "middle":
        return "I cannot tell" if number % 4 == 0 else f" {right.upper()}\n"
    return "billing"


def review(body: dict[str, Any]) -> str:
    number = number_of(body)
    off = {"large": 0, "middle": number % 2, "small": 2}[body["model"]]
    return json.dumps(
        {"topic": topic(body | {"model": "large"}), "stars": number % 5 + off, "name": f"Ann {number}" if number % 2 else None}
    )


def rows(count: int) -> pd.DataFrame:
    numbers = range(count)
    return pd.DataFrame(
        {
            "text": [f"row {number}" for number in numbers],
            "topic": [TOPICS[number % 3] for number in numbers],
            "stars": [number % 5 for number in numbers],
            "name": [f"ann {number}" if number % 2 else None for number in numbers],
        },
        index=[f"id{number}" for number in numbers],
    )


def priced(**inputs: float | None) -> None:
    models = [{"provider": "lab", "name": name, "price": {"input": each, "output": 4 * (each or 0)}} for name, each in inputs.items()]
    llmkit.catalogue.merge({"models": models})


@pytest.fixture
def topics(lab: Loopback) -> Loopback:
    lab.answer = topic
    return lab


@pytest.fixture
def reviews(lab: Loopback) -> Loopback:
    lab.answer = review
    return lab


@pytest.fixture
def refused(lab: Loopback) -> Iterator[Loopback]:
    """A provider, known as ``refused``, that rejects every key."""
    with Loopback() as server:
        server.fault(None, bad_key(), times=float("inf"))
        llmkit.add_provider("refused", server.url, api_key="test-key-not-real")
        yield server


def asked_of(server: Loopback) -> Counter[str]:
    return Counter(request.body["model"] for request in server.seen)


# ------------------------------------------------------------------------------------------------------------ one run, one bar


def test_three_models_and_200_rows_are_one_run_with_one_bar(topics: Loopback, capsys: pytest.CaptureFixture[str]) -> None:
    priced(small=0.1, middle=1.0, large=10.0)
    found = llmkit.compare(rows(200), "Which topic? {text}", THREE, truth="topic", limit=None)
    assert asked_of(topics) == {"small": 200, "middle": 200, "large": 200}
    run = llmkit.last()
    assert run.progress().done == run.progress().rows == 600
    bars = {line.partition(":")[0] for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if line.strip()}
    assert bars == {"compare lab/small and 2 more"}
    assert found.frame.shape == (200, 4)
    assert found.models["accuracy"].tolist() == pytest.approx([67 / 200, 0.75, 1.0])
    figure = found.plot()
    said = {text.get_text() for text in figure.axes[0].texts}
    assert set(THREE) <= said


def test_the_models_are_asked_side_by_side(topics: Loopback) -> None:
    topics.hold()
    run = llmkit.compare(rows(2), "Which? {text}", THREE, wait=False, **QUIET)
    topics.wait_for(6)
    assert asked_of(topics) == {"small": 2, "middle": 2, "large": 2}
    topics.release()
    assert run.result().models["answered"].tolist() == [2, 2, 2]


def test_the_same_call_again_sends_nothing_and_says_the_same(topics: Loopback) -> None:
    priced(small=0.1, middle=1.0, large=10.0)
    first = llmkit.compare(rows(9), "Which? {text}", THREE, truth="topic", **QUIET)
    topics.reset()
    second = llmkit.compare(rows(9), "Which? {text}", THREE, truth="topic", **QUIET)
    assert topics.requests == 0
    pd.testing.assert_frame_equal(first.frame, second.frame)
    pd.testing.assert_frame_equal(first.fields, second.fields)
    same = ["rows", "answered", "agreement", "pairwise", "accuracy", "input_tokens", "output_tokens", "cost", "cost_per_1000"]
    pd.testing.assert_frame_equal(first.models[same], second.models[same])
    assert second.models["stored"].tolist() == [9, 9, 9]
    assert second.models["billed"].tolist() == [0, 0, 0]


def test_a_full_call_after_a_look_pays_for_the_rest_only(topics: Loopback) -> None:
    llmkit.compare(rows(9), "Which? {text}", THREE, limit=3, **QUIET)
    llmkit.compare(rows(9), "Which? {text}", THREE, limit=None, **QUIET)
    assert topics.requests == 27


# ------------------------------------------------------------------------------------------------------------------- the frame


def test_a_prompt_gives_a_column_a_model_on_the_index_of_the_frame(topics: Loopback) -> None:
    found = llmkit.compare(rows(3), "Which? {text}", THREE, **QUIET)
    assert found.frame.columns.tolist() == [(model, "value") for model in THREE]
    assert found.frame.columns.names == ["model", "field"]
    assert found.frame.index.tolist() == ["id0", "id1", "id2"]
    assert found.frame["lab/large"]["value"].tolist() == TOPICS


def test_a_schema_gives_its_typed_columns_for_each_model(reviews: Loopback) -> None:
    found = llmkit.compare(rows(4), Review, THREE, on="text", **QUIET)
    assert found.frame.columns.tolist() == [(model, name) for model in THREE for name in ("topic", "stars", "name")]
    alone = rows(4).llm.extract(Review, on="text", model="lab/middle", **QUIET)
    pd.testing.assert_frame_equal(found.frame["lab/middle"], alone, check_names=False)


def test_a_schema_of_one_value_is_one_column(lab: Loopback) -> None:
    lab.answer = lambda body: '{"value": 3}'
    found = llmkit.compare(rows(2), int, ["lab/a", "lab/b"], on="text", truth="stars", **QUIET)
    assert found.frame.columns.tolist() == [("lab/a", "value"), ("lab/b", "value"), ("truth", "value")]
    assert str(found.frame["lab/a", "value"].dtype) == "Int64"


def test_duplicates_in_index_and_rows_stay_and_are_asked_once(topics: Loopback) -> None:
    frame = rows(2).iloc[[0, 1, 0, 1]]
    found = llmkit.compare(frame, "Which? {text}", THREE, truth="topic", **QUIET)
    assert topics.requests == 6
    assert found.frame.index.tolist() == ["id0", "id1", "id0", "id1"]
    assert found.models["rows"].tolist() == [4, 4, 4]
    assert found.models["accuracy"].tolist() == [0.5, 0.5, 1.0]
    assert found.disagreements().index.tolist() == ["id0", "id1", "id0", "id1"]


def test_an_empty_frame_gives_an_empty_comparison_and_asks_nobody(reviews: Loopback) -> None:
    for ask in ("Which? {text}", Review):
        found = llmkit.compare(rows(4).iloc[:0], ask, THREE, on=None if isinstance(ask, str) else "text", **QUIET)
        assert len(found.frame) == 0
        assert found.models["rows"].tolist() == [0, 0, 0]
        assert "0 rows through 3 models" in repr(found)
        assert "0 rows" in found._repr_html_()
        assert found.plot() is not None
        assert found.disagreements().empty
        assert found.errors().empty
    assert reviews.requests == 0


def test_a_missing_cell_is_asked_of_nobody_and_held_against_nobody(topics: Loopback) -> None:
    frame = rows(3)
    frame.loc["id1", "text"] = None
    found = llmkit.compare(frame, "Which? {text}", ["lab/large"], truth="topic", **QUIET)
    assert found.models.loc["lab/large", ["rows", "answered", "errors"]].tolist() == [2, 2, 0]
    assert found.models["accuracy"].item() == 1.0


def test_a_column_of_the_frame_that_is_changed_later_changes_nothing(topics: Loopback) -> None:
    frame = rows(3)
    topics.hold()
    run = llmkit.compare(frame, "Which? {text}", ["lab/large"], truth="topic", wait=False, **QUIET)
    frame["topic"] = "none of them"
    topics.release()
    assert run.result().models["accuracy"].item() == 1.0


# -------------------------------------------------------------------------------------------------------------- who is asked


def test_the_same_model_with_other_parameters_is_another_column(topics: Loopback) -> None:
    models = {"plain": "lab/large", "strict": ("lab/large", {"temperature": 0, "max_tokens": 9, "system": "Be brief"})}
    found = llmkit.compare(rows(1), "Which? {text}", models, temperature=0.7, **QUIET)
    assert list(found.models.index) == ["plain", "strict"]
    assert found.models["route"].tolist() == ["lab/large", "lab/large"]
    assert sorted((request.body["temperature"], request.body.get("max_tokens")) for request in topics.seen) == [(0, 9), (0.7, None)]


def test_prompts_can_be_compared_too(topics: Loopback) -> None:
    models = {"short": "lab/large", "long": ("lab/large", {"prompt": "Please, which? {text}"})}
    llmkit.compare(rows(1), "Which? {text}", models, **QUIET)
    assert dict(topics.texts) == {"Which? row 0": 1, "Please, which? row 0": 1}


def test_a_route_of_models_is_one_of_them(topics: Loopback, refused: Loopback) -> None:
    found = llmkit.compare(rows(2), "Which? {text}", [["refused/any", "lab/large"], "lab/small"], **QUIET)
    assert found.models.index.tolist() == ["refused/any > lab/large", "lab/small"]
    assert found.models["answered"].tolist() == [2, 2]


@pytest.mark.parametrize(
    ("models", "words"),
    [
        ([], "models is a list"),
        (None, "models is a list"),
        (["lab/a", "lab/a"], "is there twice"),
        ({"a": ("lab/a", {"temprature": 0})}, "did you mean 'temperature'"),
        ({"a": ("lab/a", {"mode": "tools"})}, "nothing is known of 'mode'"),
        (["nobody/anything"], "nobody"),
    ],
)
def test_a_wrong_list_of_models_is_refused_before_anything_is_sent(topics: Loopback, models: Any, words: str) -> None:
    with pytest.raises(llmkit.ConfigError, match=words):
        llmkit.compare(rows(2), "Which? {text}", models, **QUIET)
    assert topics.requests == 0


def test_an_unknown_model_keeps_the_others_from_being_asked(topics: Loopback) -> None:
    with pytest.raises(llmkit.UnknownModel):
        llmkit.compare(rows(2), "Which? {text}", ["lab/large", "no-such-model-anywhere"], **QUIET)
    assert topics.requests == 0


def test_a_missing_key_keeps_the_others_from_being_asked(topics: Loopback) -> None:
    with pytest.raises(llmkit.MissingKey):
        llmkit.compare(rows(2), "Which? {text}", ["lab/large", "openai/gpt-5-mini"], **QUIET)
    assert topics.requests == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"ask": "Which? {txt}"}, "txt"),
        ({"ask": "Which? {text}", "prompt": "no"}, "go with a schema"),
        ({"ask": "Which? {text}", "repeats": 0}, "repeats"),
        ({"ask": "Which? {text}", "score": max}, "goes with truth"),
        ({"ask": "Which? {text}", "truth": "topik"}, "topic"),
        ({"ask": "Is {text} about {topic}?", "truth": "topic"}, "would be shown the truth"),
        ({"ask": Review, "on": ["text", "topic"], "truth": {"topic": "topic"}}, "would be shown the truth"),
        ({"ask": Review, "on": "text", "truth": {"subject": "topic"}}, "no field 'subject'"),
        ({"ask": Review, "on": "text", "truth": "text2"}, "text"),
        ({"ask": Review}, "which columns"),
    ],
)
def test_a_wrong_call_is_refused_before_anything_is_sent(topics: Loopback, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(llmkit.ConfigError, match=words):
        llmkit.compare(rows(2), models=THREE, **arguments, **QUIET)
    assert topics.requests == 0


def test_what_is_no_frame_is_refused() -> None:
    with pytest.raises(llmkit.BadInput, match="DataFrame"):
        llmkit.compare(["a"], "Which?", THREE)  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------------------------------- one that fails


def test_a_model_whose_key_is_rejected_leaves_the_others_whole(topics: Loopback, refused: Loopback) -> None:
    with pytest.warns(UserWarning, match="refused/any"):
        found = llmkit.compare(
            rows(30), "Which? {text}", ["lab/large", "refused/any", "lab/middle"], truth="topic", max_concurrency=2, **QUIET
        )
    assert found.frame["refused/any", "value"].isna().all()
    assert found.frame["refused/any", "value"].dtype == found.frame["lab/large", "value"].dtype
    assert found.frame["lab/large", "value"].notna().all()
    line = found.models.loc["refused/any"]
    assert (line["answered"], line["errors"], line["accuracy"]) == (0, 30, 0.0)
    assert np.isnan(line["agreement"])
    assert "key" in line["stopped"]
    assert found.models["stopped"].notna().tolist() == [False, True, False]
    assert "refused/any: " in repr(found)
    assert refused.requests < 10


def test_a_model_that_is_down_leaves_the_others_whole(topics: Loopback) -> None:
    with Loopback() as down:
        down.fault(None, server_error(), times=float("inf"))
        llmkit.add_provider("down", down.url)
        with pytest.warns(UserWarning, match="down/any|no row got"):
            found = llmkit.compare(rows(5), "Which? {text}", ["down/any", "lab/large"], max_attempts=1, **QUIET)
    assert found.models["answered"].tolist() == [0, 5]
    assert len(found.errors()) == 5
    assert found.errors()["model"].unique().tolist() == ["down/any"]


def test_failed_rows_count_as_wrong_and_not_as_disagreement(topics: Loopback) -> None:
    topics.fault("row 1", refusal(), times=1)
    found = llmkit.compare(rows(3), "Which? {text}", {"a": "lab/large", "b": ("lab/large", {"seed": 1})}, truth="topic", **QUIET)
    assert sorted(found.models["accuracy"]) == pytest.approx([2 / 3, 1.0])
    assert found.models["agreement"].tolist() == [1.0, 1.0]
    assert found.disagreements().empty
    assert found.errors()["index"].tolist() == ["id1"]


def test_on_error_raise_raises_once_all_is_kept(topics: Loopback) -> None:
    topics.fault("row 1", refusal(), times=3)
    with pytest.raises(llmkit.RequestError):
        llmkit.compare(rows(3), "Which? {text}", THREE, on_error="raise", **QUIET)
    assert len(llmkit.last().errors()) == 3
    topics.reset()
    llmkit.compare(rows(3), "Which? {text}", THREE, on_error="raise", **QUIET)
    assert topics.requests == 3


# -------------------------------------------------------------------------------------------------------- agreement and truth


def test_agreement_is_with_the_majority_and_with_each_other(topics: Loopback) -> None:
    found = llmkit.compare(rows(12), "Which? {text}", THREE, **QUIET)
    small = [True] * 12 and ["billing"] * 12
    large = [TOPICS[number % 3] for number in range(12)]
    middle = [None if number % 4 == 0 else right for number, right in enumerate(large)]
    together = sum(one == other for one, other in zip(middle, large, strict=True))
    assert found.pairwise.loc["lab/middle", "lab/large"] == together / 12
    assert found.pairwise.loc["lab/small", "lab/large"] == sum(one == other for one, other in zip(small, large, strict=True)) / 12
    assert np.diag(found.pairwise).tolist() == [1.0, 1.0, 1.0]
    votes = [Counter(said).most_common(1)[0] for said in zip(small, middle, large, strict=True)]
    agrees = [count >= 2 and answer == right for (answer, count), right in zip(votes, large, strict=True)]
    assert found.models.loc["lab/large", "agreement"] == sum(agrees) / 12
    assert found.models.loc["lab/large", "pairwise"] == pytest.approx(found.pairwise.loc["lab/large", ["lab/small", "lab/middle"]].mean())


def test_disagreements_are_the_rows_and_what_was_asked_of_them(topics: Loopback) -> None:
    found = llmkit.compare(rows(6), "Which? {text}", ["lab/middle", "lab/large"], **QUIET)
    rows_that_differ = found.disagreements()
    assert rows_that_differ.index.tolist() == ["id0", "id4"]
    assert rows_that_differ["asked", "text"].tolist() == ["row 0", "row 4"]


def test_a_model_alone_agrees_with_nobody(topics: Loopback) -> None:
    found = llmkit.compare(rows(3), "Which? {text}", "lab/large", truth="topic", **QUIET)
    assert np.isnan(found.models["agreement"].item())
    assert found.models["accuracy"].item() == 1.0


def test_labels_of_a_prompt_have_precision_recall_and_f1(topics: Loopback) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    frame = rows(50)
    found = llmkit.compare(frame, "Which? {text}", THREE, truth="topic", **QUIET)
    for model in THREE:
        said = found.frame[model, "value"].str.strip().str.lower()
        wanted = metrics.precision_recall_fscore_support(frame["topic"], said, labels=TOPICS, average="macro", zero_division=0)[:3]
        line = found.fields.loc[(model, "value")]
        assert line["kind"] == "category"
        assert line[["precision", "recall", "f1"]].tolist() == pytest.approx(list(wanted))
        assert line["accuracy"] == pytest.approx(metrics.accuracy_score(frame["topic"], said))


def test_fields_are_measured_by_what_they_hold(reviews: Loopback) -> None:
    truth = {"topic": "topic", "stars": "stars", "name": "name"}
    found = llmkit.compare(rows(20), Review, THREE, on="text", truth=truth, **QUIET)
    fields = found.fields
    assert fields.loc["lab/large", "kind"].tolist() == ["category", "number", "text"]
    assert fields.loc["lab/large", "accuracy"].tolist() == [1.0, 1.0, 1.0]
    assert fields.loc[("lab/large", "name"), "exact"] == 0.5  # "Ann" for "ann", and nothing for nothing
    assert fields.loc[("lab/large", "name"), "filled"] == 0.5
    assert fields.loc[("lab/large", "name"), ["precision", "recall", "f1"]].tolist() == [1.0, 1.0, 1.0]
    assert fields.loc[("lab/small", "stars"), ["accuracy", "mean_absolute_error", "root_mean_squared_error"]].tolist() == [0.0, 2.0, 2.0]
    assert fields.loc[("lab/middle", "stars"), "mean_absolute_error"] == 0.5
    assert found.models["accuracy"].tolist() == pytest.approx([2 / 3, 50 / 60, 1.0])
    assert found.models["exact_rows"].tolist() == [0.0, 0.5, 1.0]


def test_a_row_without_any_truth_is_not_counted(reviews: Loopback) -> None:
    frame = rows(4)
    frame["stars"] = frame["stars"].astype("Int64")
    frame.loc["id3", ["topic", "stars", "name"]] = pd.NA
    found = llmkit.compare(frame, Review, ["lab/large"], on="text", truth=["topic", "stars", "name"], **QUIET)
    assert found.fields["known"].tolist() == [3, 3, 3]
    assert found.models["exact_rows"].item() == 1.0


def test_a_truth_of_some_fields_counts_those(reviews: Loopback) -> None:
    found = llmkit.compare(rows(4), Review, ["lab/small"], on="text", truth="topic", **QUIET)
    assert found.fields["known"].tolist() == [4, 0, 0]
    assert found.models["accuracy"].item() == 1.0


def test_a_column_of_dicts_is_a_truth_of_all_that_they_name(reviews: Loopback) -> None:
    frame = rows(4).assign(gold=[{"topic": TOPICS[number % 3], "stars": number % 5} for number in range(4)])
    frame["gold"] = frame["gold"].where(frame.index != "id0", None)
    found = llmkit.compare(frame, Review, ["lab/large", "lab/small"], on="text", truth="gold", **QUIET)
    assert found.fields.loc["lab/large", "known"].tolist() == [3, 3, 0]
    assert found.models["accuracy"].tolist() == [1.0, 0.5]


def test_a_score_of_the_callers_is_averaged_and_failed_rows_have_none(topics: Loopback) -> None:
    topics.fault("row 1", refusal(), times=1)
    seen: list[tuple[str, str]] = []

    def score(answer: str, truth: str) -> float:
        seen.append((answer, truth))
        return 0.5

    found = llmkit.compare(rows(4), "Which? {text}", ["lab/large"], truth="topic", score=score, **QUIET)
    assert found.models["score"].item() == 0.375
    assert sorted(seen) == sorted((TOPICS[number % 3],) * 2 for number in (0, 2, 3))
    assert found.quality == "score"


def test_a_score_of_a_schema_is_given_the_fields(reviews: Loopback) -> None:
    def score(answer: dict[str, Any], truth: dict[str, Any]) -> float:
        return float(answer["stars"] == truth["stars"] and set(answer) == {"topic", "stars", "name"} and set(truth) == {"stars"})

    found = llmkit.compare(rows(4), Review, ["lab/large", "lab/small"], on="text", truth="stars", score=score, **QUIET)
    assert found.models["score"].tolist() == [1.0, 0.0]


def test_a_score_that_raises_raises_and_the_answers_are_kept(topics: Loopback) -> None:
    def score(answer: str, truth: str) -> float:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        llmkit.compare(rows(4), "Which? {text}", ["lab/large"], truth="topic", score=score, **QUIET)
    topics.reset()
    llmkit.compare(rows(4), "Which? {text}", ["lab/large"], truth="topic", **QUIET)
    assert topics.requests == 0


def test_numbers_in_words_are_held_against_numbers(lab: Loopback) -> None:
    lab.answer = lambda body: f" {number_of(body) % 5}.0 "
    found = llmkit.compare(rows(6), "How many? {text}", ["lab/any"], truth="stars", **QUIET)
    assert found.models["accuracy"].item() == 1.0


# ---------------------------------------------------------------------------------------------------- time, tokens, cost, repeats


def test_times_are_what_the_server_took_and_the_queue_is_apart(topics: Loopback) -> None:
    topics.latency = lambda seen: 0.06 if seen.body["model"] == "large" else 0.0
    found = llmkit.compare(rows(8), "Which? {text}", ["lab/small", "lab/large"], max_concurrency=2, **QUIET)
    took = [seen.answered_at - seen.at for seen in topics.seen if seen.body["model"] == "large" and seen.answered_at]
    large, small = found.models.loc["lab/large"], found.models.loc["lab/small"]
    assert large["p50_seconds"] >= float(np.median(took)) - 0.005
    assert large["p90_seconds"] >= large["p50_seconds"] > small["p50_seconds"]
    # Eight rows, two at a time: the last two waited for six others.
    assert large["queue_p90_seconds"] >= 2.5 * 0.06 > small["p50_seconds"]
    written = large["output_tokens"]
    assert large["tokens_per_second"] <= written / sum(took) + 1e-6


def test_tokens_and_cost_are_what_the_server_billed(topics: Loopback) -> None:
    priced(small=1.0, large=100.0)
    found = llmkit.compare(rows(5), "Which? {text}", ["lab/small", "lab/large", "lab/unpriced"], **QUIET)
    run = llmkit.last()
    assert found.models["input_tokens"].sum() == run.usage().input
    assert found.models["output_tokens"].sum() == run.usage().output
    large = found.models.loc["lab/large"]
    assert large["cost"] == pytest.approx((100 * large["input_tokens"] + 400 * large["output_tokens"]) / 1e6)
    assert large["cost_per_1000"] == pytest.approx(200 * large["cost"])
    assert large["billed"] == pytest.approx(large["cost"])
    assert np.isnan(found.models.loc["lab/unpriced", "cost"])
    assert run.cost is None


def test_repeats_tell_how_steady_a_model_is(lab: Loopback) -> None:
    asked: Counter[str] = Counter()

    def answer(body: dict[str, Any]) -> str:
        asked[body["model"]] += 1
        return str(asked[body["model"]]) if body["model"] == "moody" else "always"

    lab.answer = answer
    found = llmkit.compare(rows(3), "Which? {text}", ["lab/moody", "lab/steady"], repeats=3, **QUIET)
    assert lab.requests == 18
    assert found.models["steadiness"].tolist() == [0.0, 1.0]
    assert found.models["rows"].tolist() == [9, 9]
    assert found.frame.shape == (3, 2)
    lab.reset()
    again = llmkit.compare(rows(3), "Which? {text}", ["lab/moody", "lab/steady"], repeats=3, **QUIET)
    assert lab.requests == 0
    pd.testing.assert_frame_equal(again.frame, found.frame)
    rows(3).llm.chat("Which? {text}", model="lab/moody", **QUIET)
    assert lab.requests == 0  # the first sample is what a plain call asks for


def test_a_fixed_seed_is_another_one_for_each_sample(topics: Loopback) -> None:
    llmkit.compare(rows(1), "Which? {text}", ["lab/large"], repeats=3, seed=7, **QUIET)
    assert sorted(request.body["seed"] for request in topics.seen) == [7, 8, 9]


# -------------------------------------------------------------------------------------------------------------- dollars first


def test_dry_run_tells_each_model_and_all_together_and_sends_nothing(topics: Loopback) -> None:
    priced(small=1.0, large=10.0)
    told = llmkit.compare(rows(5), "Which? {text}", ["lab/small", "lab/large"], dry_run=True)
    assert topics.requests == 0
    assert told.requests == 10
    assert {label: one.requests for label, one in told.models.items()} == {"lab/small": 5, "lab/large": 5}
    assert told.cost == pytest.approx(sum(one.cost for one in told.models.values()))
    assert "lab/large: 5 requests, $" in str(told)


def test_dry_run_counts_repeats(topics: Loopback) -> None:
    told = llmkit.compare(rows(5), "Which? {text}", ["lab/small", "lab/large"], repeats=2, dry_run=True)
    assert told.requests == 20


def test_max_cost_bounds_all_models_together(topics: Loopback) -> None:
    priced(small=1000.0, middle=1000.0, large=1000.0)
    most = 0.4
    with pytest.warns(UserWarning, match="max_cost"):
        found = llmkit.compare(rows(50), "Which? {text}", THREE, max_cost=most, max_tokens=8, truth="topic", **QUIET)
    assert found.models["billed"].sum() <= most
    assert (found.models["answered"] > 0).all()
    assert (found.models["answered"] < 50).all()
    # What was not asked for want of dollars is not held against the model.
    assert found.models.loc["lab/large", "accuracy"] == 1.0


def test_what_one_leaves_over_goes_to_those_that_were_stopped(lab: Loopback) -> None:
    priced(short=1000.0, long=1000.0)
    lab.answer = lambda body: "a b c d e f g h" if body["model"] == "long" else "a"
    frame = rows(40)
    told = llmkit.compare(frame, "Which? {text}", ["lab/short", "lab/long"], max_tokens=10, dry_run=True)
    # Nothing is known of their answers yet: each is given half of the dollars.
    assert told.models["lab/short"].cost == pytest.approx(told.models["lab/long"].cost, rel=0.01)
    most = 1.1
    found = llmkit.compare(frame, "Which? {text}", ["lab/short", "lab/long"], max_tokens=10, max_cost=most, max_concurrency=1, **QUIET)
    assert found.models["answered"].tolist() == [40, 40]
    assert found.models.loc["lab/long", "billed"] > most / 2
    assert found.models["billed"].tolist() == pytest.approx(found.models["cost"].tolist())
    assert found.models["p50_seconds"].notna().all()
    assert found.models["stopped"].isna().all()
    run = llmkit.last()
    assert lab.requests == 80
    assert (run.rows, run.progress().done, run.stopped) == (80, 80, None)
    assert run.cost == pytest.approx(found.models["billed"].sum())


def test_max_cost_needs_the_price_of_every_model(topics: Loopback) -> None:
    priced(small=1.0)
    with pytest.raises(llmkit.ConfigError, match="lab/large is unknown"):
        llmkit.compare(rows(5), "Which? {text}", ["lab/small", "lab/large"], max_cost=1.0, **QUIET)
    assert topics.requests == 0


# ----------------------------------------------------------------------------------------------------------------- on the way


def test_a_comparison_under_way_can_be_looked_at(topics: Loopback, refused: Loopback) -> None:
    topics.fault("row 2", refusal(), times=1)
    topics.hold()
    run = llmkit.compare(rows(3), "Which? {text}", ["lab/large"], truth="topic", wait=False, **QUIET)
    topics.wait_for(3)
    during = run.partial()
    assert during.models["rows"].item() == 0
    assert np.isnan(during.models["accuracy"].item())
    assert during.frame["lab/large", "value"].isna().all()
    topics.release()
    assert run.result().models["accuracy"].item() == pytest.approx(2 / 3)


def test_a_comparison_that_is_stopped_shows_what_there_is(topics: Loopback) -> None:
    topics.latency = lambda seen: 30.0 if seen.body["model"] == "large" else 0.0
    run = llmkit.compare(rows(3), "Which? {text}", ["lab/middle", "lab/large"], truth="topic", wait=False, **QUIET)
    done = lambda: run.progress().done == 3  # noqa: E731
    until(done)
    run.cancel()
    assert run.wait(5)
    found = run.result()
    assert found.models["answered"].tolist() == [3, 0]
    assert found.models["rows"].tolist() == [3, 0]


def test_it_can_be_awaited(topics: Loopback) -> None:
    async def cell() -> Any:
        return await llmkit.compare(rows(3), "Which? {text}", THREE, wait=False, **QUIET)

    assert isinstance(asyncio.run(cell()), Comparison)


# -------------------------------------------------------------------------------------------------------------------- looking


def test_what_models_said_and_are_called_is_no_markup(lab: Loopback) -> None:
    evil = "<script>alert(1)</script>"
    lab.answer = lambda body: evil
    found = llmkit.compare(rows(2), "Which? {text}", {evil: "lab/any", "b": "lab/other"}, truth="topic", **QUIET)
    assert evil not in found._repr_html_()
    assert "&lt;script&gt;" in found._repr_html_()


def test_the_text_has_a_line_a_model_and_shares_in_percent(topics: Loopback) -> None:
    lines = repr(llmkit.compare(rows(4), "Which? {text}", THREE, truth="topic", **QUIET)).splitlines()
    assert lines[0] == "4 rows through 3 models"
    assert lines[1].split()[:2] == ["answered", "accuracy"]
    assert [line.split()[0] for line in lines[2:]] == THREE
    assert "100.0 %" in lines[-1]


def test_the_page_of_a_schema_has_a_table_by_field(reviews: Loopback) -> None:
    page = llmkit.compare(rows(4), Review, THREE, on="text", truth=["topic", "stars", "name"], **QUIET)._repr_html_()
    assert "accuracy by field" in page
    assert "color:inherit" in page
    assert "<script" not in page


@pytest.mark.parametrize("against", ["cost", "seconds", "tokens"])
def test_the_figure_has_a_point_and_a_label_a_model(topics: Loopback, against: str) -> None:
    priced(small=0.01, middle=1.0, large=100.0)
    found = llmkit.compare(rows(8), "Which? {text}", THREE, truth="topic", **QUIET)
    axes = found.plot(against).axes[0]
    assert len(axes.lines[-1].get_xdata()) == 3
    assert {text.get_text() for text in axes.texts} >= set(THREE)
    assert axes.get_xscale() == ("log" if against == "cost" else axes.get_xscale())


def test_labels_in_the_figure_do_not_lie_on_one_another(topics: Loopback) -> None:
    priced(**dict.fromkeys("abcdefgh", 1.0))
    topics.answer = lambda body: "billing"
    models = [f"lab/{name}" for name in "abcdefgh"]
    figure = llmkit.compare(rows(8), "Which? {text}", models, truth="topic", **QUIET).plot()
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts if text.get_text()]
    assert len(boxes) == 8
    assert not any(one.overlaps(other) for place, one in enumerate(boxes) for other in boxes[:place])


def test_models_without_a_price_are_named_below_the_figure(topics: Loopback) -> None:
    priced(small=0.01, large=100.0)
    figure = llmkit.compare(rows(4), "Which? {text}", THREE, **QUIET).plot()
    assert figure.axes[0].get_xlabel().endswith("not shown, unknown: lab/middle")


def test_an_unknown_side_of_the_figure_is_refused(topics: Loopback) -> None:
    with pytest.raises(llmkit.BadInput, match="seconds"):
        llmkit.compare(rows(1), "Which? {text}", THREE, **QUIET).plot("price")


def until(true: Any, seconds: float = 5.0) -> None:
    import time

    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_example_in_the_docstring_is_true() -> None:
    import doctest

    from llmkit.frames import comparing

    assert doctest.testmod(comparing).failed == 0
