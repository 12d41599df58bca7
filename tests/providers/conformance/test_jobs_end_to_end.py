"""``batch=True`` with every vendor that has jobs: what is answered is in its row, what is not says why, and can be asked again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pandas as pd
import pytest

import llmkit
from llmkit.types import Price
from tests.loopback import Loopback, answer_to, error_of, fill, vector_of

from . import house
from .conftest import Hurried
from .test_jobs import EMBEDDERS, every_vendor

#: Of Mistral, and true.
pytestmark = pytest.mark.filterwarnings("ignore:.* keeps the results of batch jobs for 24 hours only:UserWarning")

TEXTS = [f"row {number}: naïve 😀" for number in range(50)]
SCHEMA = {"type": "object", "properties": {"first": {"type": "string"}}, "required": ["first"], "additionalProperties": False}


@pytest.fixture(autouse=True)
def _ready(vendor: str, server: Loopback, clock: Hurried, cache_dir: Path) -> None:
    house.move(vendor, server)
    house.priced(vendor, "m", input=2.0, output=10.0, batch_input=1.0, batch_output=5.0)


@every_vendor
def test_what_was_answered_is_there_and_what_was_not_says_why(vendor: str, server: Loopback) -> None:
    refused = error_of(house.voice_of(vendor), "bad_request")
    server.batches.refuse = lambda text: refused if text == TEXTS[7] else None  # type: ignore[assignment,return-value]
    server.batches.end, server.batches.share = "expired", 0.8
    frame = pd.DataFrame({"text": TEXTS}, index=pd.RangeIndex(100, 150))
    run = frame.llm.chat("{text}", model=f"{vendor}/m", batch=True, show_progress=False)
    answers = run.result()
    assert list(answers.index) == list(frame.index)
    assert answers.iloc[:40].drop(107).tolist() == [answer_to(text) for number, text in enumerate(TEXTS[:40]) if number != 7]
    assert answers.isna().sum() == 11
    errors = run.errors().set_index("index")
    assert set(errors.index) == {107, *range(140, 150)}
    assert (errors.loc[140:, "kind"] == "unanswered").all()
    assert errors.loc[107, "kind"] != "unanswered"
    assert server.count("row") == 0  # nothing was asked live
    (job,) = server.batches.jobs.values()
    assert {line.answer is not None for line in job.lines} == {True, False}
    # Half the price, of what was answered.
    usage = run.usage()
    live = usage.input * 2.0 + usage.output * 10.0
    assert run.cost == pytest.approx(live / 2 / 1e6)
    again = run.retry()
    server.batches.refuse = lambda text: None
    assert again.result().tolist() == list(map(answer_to, TEXTS))
    assert server.count("row") == 11


@every_vendor
def test_the_same_call_again_sends_nothing(vendor: str, server: Loopback) -> None:
    frame = pd.DataFrame({"text": TEXTS})
    first = frame.llm.chat("{text}", model=f"{vendor}/m", batch=True, show_progress=False).result()
    assert first.tolist() == list(map(answer_to, TEXTS))
    sent = server.requests
    again = frame.llm.chat("{text}", model=f"{vendor}/m", batch=True, show_progress=False).result()
    live = frame.llm.chat("{text}", model=f"{vendor}/m", show_progress=False)
    pd.testing.assert_series_equal(again, first)
    pd.testing.assert_series_equal(live, first)
    assert server.requests == sent
    assert set(server.batches.asked.values()) == {1}


@every_vendor
def test_structured_answers_are_the_values_of_their_rows(vendor: str, server: Loopback) -> None:
    frame = pd.DataFrame({"text": TEXTS[:5]})
    run = frame.llm.chat("{text}", response_format=SCHEMA, model=f"{vendor}/m", batch=True, show_progress=False)
    assert list(map(orjson.loads, run.result())) == [fill(SCHEMA, text) for text in TEXTS[:5]]


@pytest.mark.parametrize("vendor", EMBEDDERS)
def test_vectors_are_those_of_live_calls(vendor: str, server: Loopback) -> None:
    frame = pd.DataFrame({"text": TEXTS[:5]})
    vectors = frame.llm.embed("text", model=f"{vendor}/m", batch=True, show_progress=False).result()
    for text, vector in zip(TEXTS, vectors, strict=False):
        np.testing.assert_array_equal(vector, vector_of(text))


@pytest.mark.parametrize("vendor", ["together"])
def test_jobs_that_a_vendor_does_not_have_are_refused_before_anything_is_sent(vendor: str, server: Loopback) -> None:
    with pytest.raises(llmkit.ConfigError, match="batch"):
        pd.DataFrame({"text": ["x"]}).llm.embed("text", model=f"{vendor}/m", batch=True)
    assert server.requests == 0


@pytest.mark.parametrize("vendor", ["openai"])
def test_prices_of_jobs_are_known_where_the_vendor_publishes_them(vendor: str) -> None:
    """Unknown stays unknown: a reader of the estimate is told so."""
    known = {model.provider for model in llmkit.catalogue.Catalogue().models() if model.price.batch_input is not None}
    assert {"anthropic", "gemini", "openai", "xai"} <= known
    assert Price(input=2.0, output=10.0).in_jobs.input is None
