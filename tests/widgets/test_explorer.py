"""``ExtractExplorer`` without a browser: fields are edited, the sample fills, and what is promoted is what the code says."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import llmkit_widgets
import pandas as pd
import pytest
from llmkit_widgets import ExtractExplorer
from llmkit_widgets.field_grid import FieldGrid
from pydantic import BaseModel, Field, field_validator

import llmkit
from llmkit.errors import BadInput, UnknownModel
from tests.loopback import Hang, Loopback, bad_key, refusal

from .conftest import CANARY, Log, ask, states, until

TEXTS = ["The kettle leaks, 39 dollars gone.", "A great lamp.", "The fan broke.", "", "A fine mixer for 12 dollars."]
MODEL = "lab/test-chat"


class Review(BaseModel):
    """What a customer says."""

    product: str | None = Field(description="what was bought")
    price: float | None = None
    tone: Literal["good", "bad"]


def df(texts: Any = TEXTS) -> pd.DataFrame:
    return pd.DataFrame({"text": texts}, index=range(100, 100 + len(texts)))


def row_of(body: dict[str, Any]) -> str:
    return str(next(message["content"] for message in body["messages"] if message["role"] == "user"))


def answer(body: dict[str, Any]) -> str:
    """A review of the row, with a quote for each field where quotes are asked for."""
    text, schema = row_of(body), json.dumps(body["response_format"])
    product, price = re.search("kettle|lamp|fan|mixer", text), re.search(r"(\d+) dollars", text)
    says = {
        "product": product and product[0],
        "price": price and float(price[1]),
        "tone": "good" if "fine" in text or "great" in text else "bad",
    }
    fields = {name: value for name, value in says.items() if f'"{name}"' in schema}
    if '"evidence"' not in schema:
        return json.dumps(fields)
    quotes = {"product": product and product[0], "price": price and price[0], "tone": None}
    return json.dumps({"fields": fields, "evidence": {name: quotes[name] for name in fields}})


@pytest.fixture
def reviews(lab: Loopback) -> Loopback:
    lab.answer = answer
    return lab


def panel(schema: Any = Review, frame: Any = None, **more: Any) -> ExtractExplorer:
    return ExtractExplorer(df() if frame is None else frame, on="text", schema=schema, **{"model": MODEL, **more})


def done(explorer: ExtractExplorer) -> dict[str, Any]:
    """What is shown when nothing goes on any more."""
    assert explorer.wait(20)
    explorer.draw(now=True)
    return dict(explorer.state)


def ran(explorer: ExtractExplorer) -> dict[str, Any]:
    explorer.run()
    return done(explorer)


# ------------------------------------------------------------------------------------------------------------------- fields


def test_a_class_becomes_a_line_for_each_field() -> None:
    assert panel(model=None).fields.values.tolist() == [
        ["product", "text", "what was bought", True, ()],
        ["price", "number", "", True, ()],
        ["tone", "choice", "", False, ("good", "bad")],
    ]


@pytest.mark.parametrize(
    "schema",
    [
        {"city": "where it happened", "people": (int, "how many"), "cause": ["fire", "flood"], "days": list[str]},
        {"type": "object", "title": "Fire", "properties": {"on": {"type": "string", "format": "date"}, "sure": {"type": "boolean"}}},
        {"price": {"type": "number", "minimum": 0}, "at": {"x": int}},
    ],
)  # fmt: skip
def test_what_a_schema_says_is_what_its_grid_says(schema: Any) -> None:
    model = llmkit.read_schema(schema).model
    again = llmkit.read_schema(FieldGrid.of_json(model.model_json_schema()).json_schema()).model
    assert FieldGrid.of_json(again.model_json_schema()).lines == FieldGrid.of_json(model.model_json_schema()).lines


def test_an_example_has_the_types_of_its_values() -> None:
    explorer = ExtractExplorer(
        df(), on="text", example={"a": "x", "b": 2, "c": 1.5, "d": True, "e": "2026-01-31", "f": ["x"], "g": None, "h": {"k": 1}}
    )
    assert explorer.fields["type"].tolist() == ["text", "integer", "number", "boolean", "date", "list of texts", "text", "as given"]
    assert explorer.fields.set_index("name")["optional"].to_dict()["g"]


def test_one_sentence_becomes_fields_that_a_model_proposes(lab: Loopback) -> None:
    proposed = [{"name": "part", "type": "choice", "description": "what broke", "optional": True, "choices": ["lid", "other"]}]
    lab.answer = lambda body: json.dumps({"name": "complaint", "description": "One.", "fields": proposed})
    explorer = panel(None)
    ask(explorer, "begin_from_text", {"kind": "sentence", "text": "which part breaks"})
    assert done(explorer)["error"] == ""
    assert explorer.fields.values.tolist() == [["part", "choice", "what broke", True, ("lid", "other")]]
    assert "which part breaks" in json.dumps(lab.seen[0].body)


def test_a_proposal_that_is_refused_says_why_and_changes_nothing(lab: Loopback) -> None:
    lab.fault(None, bad_key(), times=9)
    explorer = panel()
    before = explorer.fields
    explorer.propose("which part breaks")
    assert "key was refused" in done(explorer)["error"]
    assert "as they were" in explorer.state["note"]
    pd.testing.assert_frame_equal(explorer.fields, before)


def test_what_is_typed_as_json_is_read(lab: Loopback) -> None:
    explorer = panel(None)
    ask(explorer, "begin_from_text", {"kind": "example", "text": '{"city": "Lyon"}'})
    ask(explorer, "begin_from_text", {"kind": "schema", "text": '{"city": '})
    assert explorer.fields["name"].tolist() == ["city"]
    assert "no JSON" in done(explorer)["error"]


def test_a_schema_of_several_records_a_row_is_refused() -> None:
    with pytest.raises(BadInput, match="any number of records"):
        panel(list[Review])


def test_fields_are_added_changed_and_removed() -> None:
    explorer = panel(model=None)
    explorer.add_field("colour", choices="red, blue")
    explorer.edit_field("price", type=int, description="  in\ndollars ", optional=False)
    explorer.edit_field("product", name="article")
    explorer.remove_field("tone")
    assert explorer.fields.values.tolist() == [
        ["article", "text", "what was bought", True, ()],
        ["price", "integer", "in dollars", False, ()],
        ["colour", "choice", "", False, ("red", "blue")],
    ]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda one: one.add_field("price"), "already"),
        (lambda one: one.add_field("2nd"), "no name"),
        (lambda one: one.edit_field("price", name=" "), "needs a name"),
        (lambda one: one.edit_field("price", type="money"), "type is one of"),
        (lambda one: one.edit_field("price", type="choice", choices=["a"]), "two values"),
        (lambda one: one.edit_field("nobody", name="x"), "no field 'nobody'"),
        (lambda one: one.choose_model("nope/x"), "no provider"),
        (lambda one: one.sample(how="chosen", rows="7"), "no row '7'"),
        (lambda one: one.sample(0), "whole number"),
        (lambda one: one.describe(name="a b"), "no name for a class"),
        (lambda one: one.promote(max_cost="much"), "US dollars"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(change: Callable[[ExtractExplorer], None], says: str) -> None:
    explorer = panel(model="echo/echo")
    before, code = explorer.fields, explorer.code
    with pytest.raises((BadInput, UnknownModel), match=says):
        change(explorer)
    pd.testing.assert_frame_equal(explorer.fields, before)
    assert explorer.code == code
    assert explorer.result is None


def test_what_is_typed_stays_in_the_grid_until_it_is_a_field(reviews: Loopback) -> None:
    explorer = panel()
    ask(explorer, "typed", {"number": 2, "what": "type", "value": "choice"})
    ask(explorer, "typed", {"number": 2, "what": "name", "value": "tone"})
    line = done(explorer)["fields"][1]
    assert (line["name"], line["type"], line["chooses"], line["wrong"]) == ("tone", "choice", True, "name")
    ask(explorer, "run")
    assert "already" in done(explorer)["error"]
    assert reviews.requests == 0
    ask(explorer, "typed", {"number": 2, "what": "name", "value": "cost"})
    assert done(explorer)["fields"][1]["wrong"] == "choices"
    ask(explorer, "typed", {"number": 2, "what": "choices", "value": "dear, cheap"})
    assert explorer.fields.loc[1].tolist() == ["cost", "choice", "", True, ("dear", "cheap")]
    assert done(explorer)["fields"][1]["problem"] == ""


# ------------------------------------------------------------------------------------------------------------------- sample


def test_a_sample_is_the_head_random_by_its_seed_or_chosen_by_the_index() -> None:
    explorer = panel(frame=df([f"text {number}" for number in range(50)]), model=None)
    labels = lambda: [row["label"] for row in done(explorer)["rows"]]  # noqa: E731
    explorer.sample(3)
    assert labels() == ["100", "101", "102"]
    explorer.sample(3, how="random", seed=1)
    one = labels()
    explorer.sample(3, how="random", seed=2)
    assert labels() != one
    explorer.sample(3, how="random", seed=1)
    assert labels() == one
    ask(explorer, "sample", {"how": "chosen", "rows": "149, 100"})
    assert labels() == ["149", "100"]


def test_only_a_page_of_the_sample_is_sent_and_of_long_texts_the_beginning(wire: Log) -> None:
    explorer = panel(frame=df(["word " * 5_000] * 150), n=150, model="echo/echo")
    state = ran(explorer)
    assert len(state["rows"]) == 10
    assert max(len(json.dumps(one)) for one in states(wire)) < 15_000
    ask(explorer, "turn_to", {"page": 14})
    ask(explorer, "unfold", {"row": 149})
    row = done(explorer)["rows"][-1]
    assert row["label"] == "249"
    assert row["whole"]["texts"][0]["pieces"][0][0] == "word " * 5_000


# ------------------------------------------------------------------------------------------------------------------ running


def test_the_table_fills_while_rows_finish(reviews: Loopback) -> None:
    gate = threading.Event()
    reviews.answer = lambda body: answer(body) if "kettle" in row_of(body) or gate.wait(20) else ""
    explorer = panel(frame=df(["The kettle leaks.", "A great lamp."]))
    explorer.run()
    until(explorer, lambda state: [row["status"] for row in state["rows"]] == ["done", "running"])
    assert explorer.state["work"]["what"] == "sample"
    assert explorer.state["rows"][0]["values"]["product"] == "kettle"
    gate.set()
    assert [row["status"] for row in done(explorer)["rows"]] == ["done", "done"]


def test_what_was_extracted_is_shown_and_handed_on(reviews: Loopback) -> None:
    explorer = panel(n=5)
    state = ran(explorer)
    assert [row["status"] for row in state["rows"]] == ["done", "done", "done", "nothing", "done"]
    assert state["rows"][0]["values"] == {"product": "kettle", "price": "39", "tone": "bad"}
    assert state["rows"][1]["values"]["price"] == ""
    assert [(one["filled"], one["answered"]) for one in state["fields"]] == [(4, 4), (2, 4), (4, 4)]
    assert "5 rows, 4 sent, 0 known already, 1 empty" in state["note"]
    pd.testing.assert_frame_equal(explorer.result, df().llm.extract(Review, on="text", model=MODEL, show_progress=False))


def test_only_what_changed_is_sent_again(reviews: Loopback) -> None:
    explorer = panel(n=2)
    ran(explorer)
    explorer.sample(5)
    assert done(explorer)["outlook"] | {"requests": 2, "stored": 2} == done(explorer)["outlook"]
    assert "2 sent, 2 known already" in ran(explorer)["note"]
    assert reviews.requests == 4
    explorer.edit_field("price", description="in dollars")
    assert done(explorer)["stale"]
    assert "4 sent, 0 known already" in ran(explorer)["note"]
    assert reviews.requests == 8
    explorer.edit_field("price", description="")
    assert "0 sent, 4 known already" in ran(explorer)["note"]
    assert reviews.requests == 8


def test_a_row_that_failed_shows_its_input_and_why(reviews: Loopback) -> None:
    reviews.fault("fan", refusal())
    explorer = panel()
    state = ran(explorer)
    row = state["rows"][2]
    assert (row["status"], row["error"]["kind"]) == ("failed", "refusal")
    assert "declined" in row["error"]["message"]
    assert explorer.failures["text"].to_dict() == {102: "The fan broke."}
    assert explorer.failures.loc[102, "kind"] == "refusal"
    explorer.turn_to(failed_only=True)
    assert [row["label"] for row in done(explorer)["rows"]] == ["102"]


def test_the_places_that_values_were_read_from_are_pieces_of_the_text(reviews: Loopback) -> None:
    explorer = panel(evidence=True)
    pieces = ran(explorer)["rows"][0]["texts"][0]["pieces"]
    assert pieces == [["The ", []], ["kettle", [0]], [" leaks, ", []], ["39 dollars", [1]], [" gone.", []]]


def test_of_a_long_text_the_parts_around_what_was_read_are_shown(reviews: Loopback) -> None:
    text = "So it goes. " * 100 + "The kettle" + " went on." * 100
    explorer = panel(frame=df([text]), evidence=True)
    pieces = ran(explorer)["rows"][0]["texts"][0]["pieces"]
    assert ["kettle", [0]] in pieces
    assert sum(len(piece) for piece, _ in pieces) < 300
    explorer.unfold(0)
    assert "".join(piece for piece, _ in done(explorer)["rows"][0]["whole"]["texts"][0]["pieces"]) == text


def test_stop_keeps_what_came_and_leaves_no_request_behind(reviews: Loopback) -> None:
    reviews.fault("lamp", Hang())
    explorer = panel(n=2)
    explorer.run()
    until(explorer, lambda state: state["rows"][0]["status"] == "done")
    with pytest.raises(BadInput, match="stop it first"):
        explorer.run()
    ask(explorer, "stop")
    state = done(explorer)
    assert state["work"] is None
    assert [row["status"] for row in state["rows"]] == ["done", "nothing"]
    assert "Stopped" in state["note"]
    assert "1 without an answer" in state["note"]
    assert reviews.requests == 2


def test_a_run_that_cannot_be_looked_at_is_stopped_and_the_next_one_can_begin(reviews: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    reviews.fault(None, Hang())
    explorer = panel(n=1)

    def broken(run: Any) -> None:
        reviews.wait_for(1)
        raise IndexError

    with monkeypatch.context() as patch:
        patch.setattr(explorer, "_take", broken)
        assert "did not work (IndexError)" in ran(explorer)["error"]
    assert explorer.state["work"] is None
    assert "1 sent" in ran(explorer)["note"]


def test_an_error_of_the_account_is_shown_in_the_panel(reviews: Loopback) -> None:
    explorer = panel(model="openai/gpt-4.1-mini")
    ask(explorer, "run")
    assert "OPENAI_API_KEY" in done(explorer)["error"]


# --------------------------------------------------------------------------------------------------------------------- cost


@pytest.fixture
def priced(reviews: Loopback, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("OPENAI_BASE_URL", reviews.url)
    monkeypatch.setenv("OPENAI_API_KEY", "test-key-not-real")
    return "openai/gpt-4.1-mini"


def test_what_all_rows_will_cost_is_told_from_what_the_sample_cost(priced: str) -> None:
    explorer = panel(frame=df([f"The fan number {number} broke." for number in range(100)]), model=priced, n=4)
    before = done(explorer)
    assert before["outlook"]["all_requests"] == 100
    assert before["outlook"]["all_cost"] > 0
    assert not before["outlook"]["measured"]
    after = ran(explorer)
    assert after["spent"] > 0
    assert after["outlook"]["measured"]
    assert after["outlook"]["all_requests"] == 96
    assert after["outlook"]["all_cost"] == pytest.approx(after["spent"] / 4 * 96)
    explorer.promote()
    assert done(explorer)["spent"] == pytest.approx(after["spent"] * 25, rel=0.1)


def test_of_a_long_frame_a_part_is_looked_at() -> None:
    explorer = panel(frame=df([f"text {number}" for number in range(3_000)]), model="echo/echo")
    assert done(explorer)["outlook"]["all_requests"] == 3_000


# ------------------------------------------------------------------------------------------------------------------ promote


def test_promote_asks_about_all_rows_and_the_code_does_the_same(reviews: Loopback) -> None:
    explorer = panel(n=2)
    explorer.add_field("about", "text", optional=True)
    ran(explorer)
    explorer.promote()
    state = done(explorer)
    assert state["promoted"] == 4
    assert reviews.requests == 4
    assert state["code"] == explorer.code
    named: dict[str, Any] = {"df": df()}
    exec(explorer.code, named)
    pd.testing.assert_frame_equal(explorer.result, named["facts"])
    assert reviews.requests == 4


def test_the_code_of_a_class_with_validators_names_it(reviews: Loopback) -> None:
    class Strict(Review):
        @field_validator("product")
        @classmethod
        def short(cls, said: str | None) -> str | None:
            return said and said.upper()

    explorer = panel(Strict)
    assert 'extract(Strict, on="text"' in explorer.code
    assert "class" not in explorer.code
    assert ran(explorer)["rows"][0]["values"]["product"] == "KETTLE"
    explorer.edit_field("price", description="in dollars")
    assert "class Strict(BaseModel)" in explorer.code


def test_a_promotion_that_is_stopped_keeps_what_came(reviews: Loopback) -> None:
    reviews.fault("lamp", Hang())
    explorer = panel()
    explorer.promote()
    until(explorer, lambda state: state["work"] and state["work"]["done"] == 3)
    explorer.stop()
    assert "Stopped" in done(explorer)["note"]
    assert explorer.result["product"].tolist()[0] == "kettle"
    assert explorer.result["product"].isna().tolist() == [False, True, False, True, False]


def test_a_budget_that_is_reached_is_said(priced: str) -> None:
    explorer = panel(model=priced)
    explorer.promote(max_cost=1e-7)
    assert "max_cost" in done(explorer)["error"]


# -------------------------------------------------------------------------------------------------------------- front end


def test_what_a_model_and_a_cell_say_is_plain_text_everywhere(reviews: Loopback) -> None:
    reviews.answer = lambda body: json.dumps({"product": CANARY, "price": None, "tone": "bad"})
    explorer = panel(frame=df([CANARY]))
    explorer.edit_field("price", description=CANARY)
    assert ran(explorer)["rows"][0]["values"]["product"] == CANARY
    assert CANARY not in explorer.snapshot()
    assert "&lt;img" in explorer.snapshot()
    script = (Path(llmkit_widgets.__file__).parent / "static" / "explorer.js").read_text("utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\bsrc:|\bhref:|\bstyle:", script)


def test_every_action_that_the_page_asks_for_is_one() -> None:
    script = (Path(llmkit_widgets.__file__).parent / "static" / "explorer.js").read_text("utf-8")
    asked = set(re.findall(r'send\("(\w+)"', script))
    assert asked >= {"run", "stop", "promote", "typed", "add_field", "sample"}
    assert all(getattr(getattr(ExtractExplorer, name), "__llmkit_action__", False) for name in asked)


def test_columns_that_are_not_there_are_refused() -> None:
    with pytest.raises(BadInput, match="no column 'body'"):
        ExtractExplorer(df(), on="body")
    with pytest.raises(BadInput, match="add one"):
        ExtractExplorer(df(), on="text", model="echo/echo").run()
