"""CostPanel: what was spent, what was saved, and a budget that warns."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from llmkit_widgets import CostPanel

import llmkit
from tests.loopback import Loopback

from .conftest import CANARY, ask, until


@pytest.fixture
def priced(lab: Loopback) -> Loopback:
    price = {"input": 2.0, "output": 8.0}
    llmkit.catalogue.merge(
        {"models": [{"provider": "lab", "name": name, "operations": ["chat"], "price": price} for name in ("a", CANARY)]}
    )
    return lab


def spend(model: str = "lab/a", rows: int = 5) -> float:
    frame = pd.DataFrame({"text": [f"row {row}" for row in range(rows)]})
    frame.llm.chat("Say {text}", model=model, show_progress=False)
    return llmkit.last().cost or 0.0


def shown(panel: CostPanel) -> dict[str, object]:
    panel.refresh()
    panel.draw(now=True)
    return panel.state


def test_what_was_spent_is_told_by_day_model_and_run(priced: Loopback) -> None:
    cost = spend()
    more = spend(f"lab/{CANARY}")
    state = shown(CostPanel())
    assert state["total"]["cost_at_least"] == pytest.approx(cost + more)
    assert state["total"]["answers"] == 10
    assert {line["model"]: line["cost_at_least"] for line in state["by_model"]} == pytest.approx({"lab/a": cost, f"lab/{CANARY}": more})
    assert len(state["by_run"]) == 2
    assert len(state["by_day"]) == 30
    assert [day["cost"] for day in state["by_day"]] == pytest.approx([0.0] * 29 + [cost + more])


def test_stored_answers_are_counted_with_what_they_would_have_cost(priced: Loopback) -> None:
    cost = spend()
    assert spend() == 0.0
    total = shown(CostPanel())["total"]
    assert total["stored"] == 5
    assert total["worth"] == pytest.approx(cost)


def test_what_has_no_price_is_not_counted_as_nothing(lab: Loopback) -> None:
    spend("lab/unpriced")
    state = shown(CostPanel())
    assert (state["total"]["cost_at_least"], state["total"]["unknown"], state["spent_unknown"]) == (0.0, True, True)


def test_a_model_that_answered_nothing_is_no_news(lab: Loopback) -> None:
    spend()
    lab.hold()
    run = pd.DataFrame({"text": ["row"]}).llm.chat("Say {text}", model="lab/b", wait=False, show_progress=False)
    lab.wait_for(6)
    run.cancel()
    assert run.wait(20)
    lab.release()
    assert [line["model"] for line in shown(CostPanel())["by_model"]] == ["lab/a"]


def test_an_empty_journal_is_no_error() -> None:
    state = shown(CostPanel())
    assert (state["total"]["cost_at_least"], state["by_model"], state["by_run"], state["over"]) == (0.0, [], [], False)


def test_a_budget_that_is_passed_warns_and_is_kept(priced: Loopback) -> None:
    cost = spend()
    panel = CostPanel()
    panel.refresh()
    ask(panel, "set_budget", {"amount": str(cost * 2), "per": "month"})
    until(panel, lambda state: state["budget"] == pytest.approx(cost * 2) and not state["over"])
    ask(panel, "set_budget", {"amount": f"${cost / 2:.9f}", "per": "day"})
    until(panel, lambda state: state["over"])
    assert shown(CostPanel())["over"]
    assert llmkit.preferences()["budget_per"] == "day"
    ask(panel, "set_budget", {"amount": " "})
    until(panel, lambda state: state["budget"] is None and not state["over"])
    assert "budget" not in llmkit.preferences()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"amount": "much"}, "a budget is a number of dollars"),
        ({"amount": "-1"}, "is no budget"),
        ({"amount": "nan"}, "is no budget"),
        ({"amount": "5", "per": "year"}, "is no budget_per"),
    ],
)
def test_a_budget_that_is_none_is_said_and_not_kept(args: dict[str, str], said: str) -> None:
    panel = CostPanel()
    ask(panel, "set_budget", args)
    until(panel, lambda state: said in state["error"])
    assert "budget" not in llmkit.preferences()


def test_opening_a_view_reads_the_journal_and_a_run_that_ends_renews_it(priced: Loopback) -> None:
    panel = CostPanel()
    assert panel.state["read"] is False
    ask(panel, "shown")
    until(panel, lambda state: state["read"])
    cost = spend()
    until(panel, lambda state: state["total"]["cost_at_least"] == pytest.approx(cost))


def test_the_days_that_are_shown_can_be_chosen() -> None:
    panel = CostPanel()
    ask(panel, "look", {"days": 7})
    until(panel, lambda state: len(state.get("by_day", [])) == 7)
    ask(panel, "look", {"days": 8})
    until(panel, lambda state: state["error"] == "days is one of 7, 30, 90")
    with pytest.raises(llmkit.BadInput):
        CostPanel(days=5)


def test_names_of_models_become_no_markup(priced: Loopback) -> None:
    spend(f"lab/{CANARY}")
    panel = CostPanel()
    assert CANARY in json.dumps(shown(panel))
    assert "<img" not in panel.snapshot()
    assert "&lt;img" in panel.snapshot()
