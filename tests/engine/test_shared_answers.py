"""An answer that two runs asked for at the same time is paid once, and each reads it by its own schema and validators."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
from pydantic import BaseModel, field_validator

import llmkit
from tests.loopback import Loopback

FIVE = json.dumps({"stars": 5})


def rated(check: Callable[[int], int]) -> type[BaseModel]:
    """Classes whose JSON schema is the same, and whose validators are not."""

    class Rated(BaseModel):
        stars: int

        @field_validator("stars")
        @classmethod
        def checked(cls, stars: int) -> int:
            return check(stars)

    return Rated


def refused(stars: int) -> int:
    raise ValueError("too many stars")


def extract(schema: Any, **options: Any) -> Any:
    table = pd.DataFrame({"text": ["the film"]})
    return table.llm.extract(schema, on="text", model="lab/test-chat", show_progress=False, max_reask=0, **options)


def at_once(lab: Loopback, first: Callable[[int], int], second: Callable[[int], int], **options: Any) -> tuple[Any, Any]:
    """Two runs, of which the second begins while the answer to the first is awaited."""
    lab.answer = lambda body: FIVE
    lab.hold()
    one = extract(rated(first), wait=False, **options)
    lab.wait_for(1)
    two = extract(rated(second), wait=False, **options)
    while not llmkit.session.default().engine.awaited:
        llmkit.event_loop.call(_turn)
    lab.release()
    return one, two


async def _turn() -> None:
    pass


@pytest.mark.parametrize("cache", ["use", "refresh"])
def test_the_second_run_reads_it_by_its_own_validators(lab: Loopback, cache: str) -> None:
    one, two = at_once(lab, lambda stars: stars, lambda stars: -stars, cache=cache, detail=True)
    assert (one.result()["stars"][0], two.result()["stars"][0]) == (5, -5)
    assert two.result()["source"].tolist() == ["cache"]
    assert lab.requests == 1


def test_what_only_the_first_runs_validators_refuse_is_no_error_of_the_second(lab: Loopback) -> None:
    one, two = at_once(lab, refused, lambda stars: stars)
    with pytest.warns(UserWarning, match="no row got an answer"):
        assert one.result()["stars"].isna().all()
    assert two.result()["stars"].tolist() == [5]


def test_what_only_the_second_runs_validators_refuse_is_its_error_alone(lab: Loopback) -> None:
    one, two = at_once(lab, lambda stars: stars, refused)
    assert one.result()["stars"].tolist() == [5]
    with pytest.warns(UserWarning, match="no row got an answer"):
        assert two.result()["stars"].isna().all()
    assert lab.requests == 2, "what its own validators refuse in an answer that is there, it asks for"
    assert two.errors()["kind"].tolist() == ["invalid"]


def test_a_validator_that_asks_a_model_itself_reads_what_is_stored(lab: Loopback) -> None:
    def asks(stars: int) -> int:
        said = pd.DataFrame({"text": ["a judge"]}).llm.chat("Ask {text}", model="lab/test-chat", show_progress=False)
        assert said.notna().all()
        return stars

    lab.answer = lambda body: FIVE
    for _ in range(2):
        assert extract(rated(asks))["stars"].tolist() == [5]
    assert lab.requests == 2, "the row and the judge, once each"
