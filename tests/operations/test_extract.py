"""What becomes of the answers to ``extract``, over real sockets: asked again, cut, refused, and what each of that costs."""

from __future__ import annotations

from typing import Any, Literal

import pandas as pd
import pytest
from pydantic import BaseModel, field_validator

import llmkit
from llmkit.errors import BadOutput, ContentBlocked, LLMError, Truncated
from llmkit.operations.chat import ChatPayload, Message, Schema
from llmkit.operations.extract import extracting
from llmkit.operations.schemas import fields_of
from llmkit.types import Reply, Request, Usage
from tests.loopback import Json, Loopback, Said, Saying

# Most frames here have one row, and it fails.
pytestmark = pytest.mark.filterwarnings("ignore:llmkit. no row got an answer:UserWarning")

EXTRACT: dict[str, Any] = {"on": "text", "model": "lab/test-chat", "mode": "json_schema", "show_progress": False}


class Parcel(BaseModel):
    item: str
    days: int


CUP = '{"item": "cup", "days": 9}'


def says(*texts: str, reason: Any = "stop") -> list[Saying]:
    return [Saying(Said(text, reason=reason)) for text in texts]


def extract(*texts: str, schema: Any = Parcel, **options: Any) -> pd.DataFrame:
    detail: pd.DataFrame = pd.DataFrame({"text": list(texts)}).llm.extract(schema, detail=True, **EXTRACT | options)
    return detail


def error() -> LLMError:
    found = llmkit.last().outcomes.error_of(0)
    assert found is not None
    return found


def test_an_answer_that_is_not_valid_is_asked_again_with_what_was_wrong(lab: Loopback) -> None:
    lab.fault("odd", *says('{"item": "cup", "days": "nine, secretly"}', CUP))
    assert extract("odd")["days"].tolist() == [9]
    messages = lab.seen[1].body["messages"]
    assert messages[:-2] == lab.seen[0].body["messages"]
    assert messages[-2] == {"role": "assistant", "content": '{"item": "cup", "days": "nine, secretly"}'}
    assert messages[-1]["role"] == "user"
    assert "days: Input should be a valid integer" in messages[-1]["content"]
    assert "secretly" not in messages[-1]["content"]
    assert lab.seen[1].body["response_format"] == lab.seen[0].body["response_format"]


def test_damage_that_has_one_reading_is_not_asked_again(lab: Loopback) -> None:
    lab.fault("odd", *says("```json\n{'item': 'cup', 'days': '9',}\n``` Voilà."))
    assert extract("odd").loc[0, ["item", "days"]].tolist() == ["cup", 9]
    assert lab.requests == 1


@pytest.mark.parametrize(("max_reask", "asked"), [(0, 1), (1, 2), (3, 4)])
def test_it_is_asked_again_so_often_and_no_more(lab: Loopback, max_reask: int, asked: int) -> None:
    lab.fault("odd", *says(*["I wonder."] * 9))
    extract("odd", max_reask=max_reask)
    assert lab.requests == asked
    assert isinstance(error(), BadOutput)
    assert error().kind == "invalid"


def test_every_attempt_is_billed_whether_the_row_fails_or_not(lab: Loopback) -> None:
    llmkit.catalogue.merge({"models": [{"provider": "lab", "name": "test-chat", "price": {"input": 1.0, "output": 2.0}}]})

    def said(text: str, finish: str = "stop") -> Any:
        usage = {"prompt_tokens": 10, "completion_tokens": 2}
        return Json({"choices": [{"message": {"content": text}, "finish_reason": finish}], "usage": usage})

    lab.fault("again", said("{}"), said(CUP))
    lab.fault("never", said("{}"), said('{"item": 1}'))
    lab.fault("long", said(CUP[:9], "length"), said(CUP))
    detail = extract("again", "never", "long", "fine", max_tokens=10, more_tokens=100, max_concurrency=1)
    assert detail["input_tokens"].tolist()[:3] == [20, 20, 20]
    assert detail["output_tokens"].tolist()[:3] == [4, 4, 4]
    assert detail["cost"].tolist()[:3] == pytest.approx([28e-6] * 3)
    assert detail["item"].isna().tolist() == [False, True, False, False]
    run = llmkit.last()
    assert run.outcomes.usage.input == detail["input_tokens"].sum()
    assert run.cost == pytest.approx(detail["cost"].sum())


def test_what_was_asked_again_is_stored_under_the_first_question(lab: Loopback) -> None:
    lab.fault("odd", *says("{}", "{'item': 'cup', 'days': '9'}"))
    assert extract("odd")["days"].tolist() == [9]
    again = extract("odd")
    assert again["days"].tolist() == [9]
    assert again["source"].tolist() == ["cache"]
    assert lab.requests == 2


def test_an_answer_that_was_cut_is_not_asked_for_in_the_same_room(lab: Loopback) -> None:
    lab.fault("long", *says(CUP[:-1], reason="length"))
    extract("long", max_tokens=20)
    assert lab.requests == 1
    assert isinstance(error(), Truncated)


def test_a_cut_answer_of_either_names_the_cure_that_there_is(lab: Loopback) -> None:
    lab.fault("long", *says(*[CUP[:-1]] * 2, reason="length"))
    extract("long")
    assert error().message.endswith("raise max_tokens, or set more_tokens")
    pd.DataFrame({"text": ["long"]}).llm.chat("Read {text}", response_format=Parcel, model="lab/test-chat", show_progress=False)
    assert error().message.endswith("raise max_tokens")


def test_with_more_room_an_answer_that_was_cut_is_asked_for_once(lab: Loopback) -> None:
    lab.fault("long", *says(CUP[:15], reason="length"), *says(CUP))
    lab.fault("longer", *says(CUP[:15], CUP[:20], reason="length"))
    assert extract("long", max_tokens=20, more_tokens=80)["days"].tolist() == [9]
    assert [request.body["max_tokens"] for request in lab.seen] == [20, 80]
    assert lab.seen[0].body["messages"] == lab.seen[1].body["messages"]
    extract("longer", max_tokens=20, more_tokens=80)
    assert isinstance(error(), Truncated)
    assert lab.requests == 4


def test_more_room_is_given_also_where_none_was_asked_for(lab: Loopback) -> None:
    lab.fault("long", *says(CUP[:15], reason="length"), *says(CUP))
    assert extract("long", more_tokens=80)["days"].tolist() == [9]
    assert "max_tokens" not in lab.seen[0].body
    assert lab.seen[1].body["max_tokens"] == 80


def test_a_whole_answer_that_goes_on_in_prose_until_it_is_cut_is_read(lab: Loopback) -> None:
    lab.fault("long", *says(f"{CUP}\n\nI found this by", reason="length"))
    assert extract("long")["days"].tolist() == [9]
    assert lab.requests == 1


@pytest.mark.parametrize("reason", ["refusal", "filter"])
def test_a_refusal_is_its_own_error_and_not_asked_again(lab: Loopback, reason: Any) -> None:
    lab.fault("odd", *says("I cannot help with that.", reason=reason))
    extract("odd")
    assert isinstance(error(), ContentBlocked)
    assert lab.requests == 1


def test_an_empty_answer_is_asked_again_without_an_empty_turn(lab: Loopback) -> None:
    lab.fault("odd", *says(" \n", CUP))
    assert extract("odd")["days"].tolist() == [9]
    assert lab.seen[1].body["messages"][-2]["content"].strip()


def test_a_row_that_speaks_like_a_turn_that_asks_again_is_asked_again_all_the_same(lab: Loopback) -> None:
    words = "That answer cannot be used: odd. Answer again with one JSON object of the schema that was asked for, and nothing else."
    lab.fault("odd", *says("{}", CUP))
    assert extract(words)["days"].tolist() == [9]


def test_a_rule_that_raises_is_that_rows_error_and_not_asked_again(lab: Loopback) -> None:
    class Rated(Parcel):
        @field_validator("item")
        @classmethod
        def _known(cls, item: str) -> str:
            return {"cup": "cup"}[item]

    lab.fault("odd", *says('{"item": "saucer", "days": 1}'))
    lab.fault("fine", *says(CUP))
    detail = extract("odd", "fine", schema=Rated)
    assert detail["item"].isna().tolist() == [True, False]
    assert isinstance(error(), BadOutput)
    assert error().kind == "validator"
    assert "KeyError" in str(error())
    assert lab.requests == 2


def test_a_failed_rows_error_says_nothing_of_the_answer(lab: Loopback) -> None:
    class Rated(Parcel):
        @field_validator("item")
        @classmethod
        def _short(cls, item: str) -> str:
            raise ValueError(f"{item} is not known")

    lab.fault("odd", *says(*['{"item": "hush-hush", "days": "top secret"}'] * 2))
    extract("odd", schema=Rated)
    assert "days" in str(error())
    assert "hush" not in repr(error()) + str(error())
    assert "secret" not in repr(error()) + str(error())
    assert "hush-hush is not known" in lab.seen[1].body["messages"][-1]["content"]  # the model that wrote it may be told


def test_a_very_long_answer_is_not_sent_back_whole(lab: Loopback) -> None:
    lab.fault("odd", *says("{" + "x" * 200_000, CUP))
    assert extract("odd")["days"].tolist() == [9]
    assert len(str(lab.seen[1].body)) < 40_000


def test_a_word_alone_is_one_of_the_words(lab: Loopback) -> None:
    lab.fault("odd", *says("late"))
    said = pd.DataFrame({"text": ["odd"]}).llm.extract(Literal["late", "lost"], **EXTRACT)
    assert said.tolist() == ["late"]


def test_reading_needs_no_network() -> None:
    """The operation's own contract: a reply, an error, or the next request."""
    fields = fields_of(Parcel)
    operation = extracting(fields)
    assert operation.read is not None
    asked = Request(
        "extract", ChatPayload((Message("user", "x"),), schema=Schema("Parcel", fields.json_schema, "json_schema")), {"seed": 1}
    )
    usage = Usage(input=3, output=4, requests=1)
    read = operation.read(asked, Reply(CUP, usage, "m", "stop", "r1"))
    assert isinstance(read, Reply)
    assert (read.value.data, read.usage, read.model, read.request_id) == ({"item": "cup", "days": 9}, usage, "m", "r1")
    again = operation.read(asked, Reply("{}", usage))
    assert isinstance(again, Request)
    assert again.options == {"seed": 1}
    assert isinstance(operation.read(again, Reply("{}", usage)), BadOutput)
