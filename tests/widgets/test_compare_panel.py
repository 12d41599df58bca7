"""CompareModels: columns that are asked side by side, stopped alone, voted on blind and kept; all of it without a front end."""

from __future__ import annotations

import itertools
import json
import threading
from typing import Any

import pandas as pd
import pytest
from llmkit_widgets import CompareModels
from llmkit_widgets.ballot import BOTH_BAD, TIE, Ballot

import llmkit
from tests.loopback import Breaking, Hang, Loopback, bad_key, unknown_model

from .conftest import CANARY, Log, ask, states, until

ECHO = "echo/echo"


def frame(count: int = 3) -> pd.DataFrame:
    return pd.DataFrame({"text": [f"row {number}" for number in range(count)]}, index=[f"r{number}" for number in range(count)])


def ran(*args: Any, **options: Any) -> CompareModels:
    panel = CompareModels(*args, **options)
    panel.run()
    assert panel.wait(20)
    return panel


def column(panel: CompareModels, label: str) -> dict[str, Any]:
    panel.draw(now=True)
    return next(one for one in panel.state["columns"] if one["label"] == label)


def states_of(panel: CompareModels, place: int) -> list[str]:
    panel.draw(now=True)
    return [cell["state"] for key, cell in panel.state["cells"].items() if key.endswith(f":{place}")]


def heard(log: Log) -> list[dict[str, Any]]:
    return [data["state"]["news"] for _, _, data in log if data.get("method") == "update" and "news" in data["state"]]


def page(log: Log) -> dict[str, Any]:
    """The cells as a front end has them that was sent all of this."""
    cells: dict[str, Any] = {}
    number = -1
    for _, _, data in log:
        if data.get("method") != "update":
            continue
        if "state" in data["state"]:
            cells, number = dict(data["state"]["state"]["cells"]), data["state"]["state"]["number"]
        news = data["state"].get("news") or {}
        if news:
            assert news["number"] == number + 1
            number += 1
            for key, cell in news["cells"].items():
                cells[key] = {**cells[key], "text": cells[key]["text"] + cell["more"]} if "more" in cell else cell
    return cells


# --------------------------------------------------------------------------------------------------------------------- asking


def test_one_prompt_is_asked_of_all_models(lab: Loopback) -> None:
    panel = ran(prompt="What is {this}?", models=[ECHO, "lab/test-chat"])
    assert panel.result.xs("answer", axis=1, level="field").iloc[0].to_dict() == {
        ECHO: "[echo, not a model] What is {this}?",
        "lab/test-chat": "answer to: What is {this}?",
    }
    assert [one["facts"]["status"] for one in panel.state["columns"]] == ["done", "done"]


def test_rows_are_asked_on_their_own_index_and_measured(lab: Loopback) -> None:
    llmkit.catalogue.merge({"models": [{"provider": "lab", "name": "test-chat", "price": {"input": 1.0, "output": 2.0}}]})
    panel = ran(frame(5), "Say {text}", models=["lab/test-chat"], rows=3)
    found = panel.result["lab/test-chat"]
    assert found.index.tolist() == ["r0", "r1", "r2"]
    assert found["answer"].tolist() == [f"answer to: Say row {number}" for number in range(3)]
    # Answers come in pieces: the first one is there before the whole.
    assert (found["first_seconds"] <= found["seconds"]).all() and (found["queue_seconds"] >= 0).all()
    assert found["cost"].sum() == pytest.approx((found["input_tokens"].sum() + 2 * found["output_tokens"].sum()) / 1e6)
    assert all(request.body["stream"] for request in lab.seen)
    facts = column(panel, "lab/test-chat")["facts"]
    assert facts["answered"] == 3 and facts["cost"] == pytest.approx(found["cost"].sum()) and facts["first_seconds"] > 0
    assert panel.models.loc["lab/test-chat", ["status", "answered"]].tolist() == ["done", 3]


def test_on_columns_travel_as_data(lab: Loopback) -> None:
    panel = ran(frame(1), "Which topic?", on="text", models=["lab/test-chat"])
    assert "row 0" in lab.seen[0].texts[0] and "Which topic?" not in lab.seen[0].texts[0]
    assert panel.state["shown"][0]["asked"] == "row 0"


def test_rows_can_be_drawn_by_a_seed_and_the_code_draws_the_same(lab: Loopback) -> None:
    df = frame(20)
    panel = ran(df, "{text}", models=["lab/test-chat"], rows=4, seed=7)
    assert panel.result.index.tolist() == df.sample(n=4, random_state=7).index.tolist()
    sent = lab.requests
    space: dict[str, Any] = {"df": df}
    exec(panel.code, space)
    assert space["found"].frame.index.tolist() == panel.result.index.tolist()
    assert lab.requests == sent  # all of it was stored


@pytest.mark.parametrize("alone", [True, False])
def test_the_code_asks_the_same_and_pays_nothing_again(lab: Loopback, alone: bool) -> None:
    prompt = 'Say "it\'s" {text}\nnow'
    panel = CompareModels(
        None if alone else frame(), prompt, models={"a": "lab/test-chat", "b": ("lab/other", {"temperature": 0.5})}, repeats=2
    )
    panel.set_option("a", "system", "Be brief.")
    panel.run()
    panel.wait()
    sent = lab.requests
    space: dict[str, Any] = {"df": frame()}
    exec(panel.code, space)
    assert space["found"].frame[("b", "value")].tolist() == panel.result[("b", "answer")].tolist()
    assert lab.requests == sent == (4 if alone else 12)


def test_the_estimate_is_known_before_anything_is_sent(lab: Loopback) -> None:
    llmkit.catalogue.merge({"models": [{"provider": "lab", "name": "test-chat", "price": {"input": 1.0, "output": 2.0}}]})
    panel = CompareModels(frame(), "{text}", models=["lab/test-chat", "openai/gpt-5-mini"])
    panel.estimate()
    panel.wait()
    assert column(panel, "lab/test-chat")["estimate"]["requests"] == 3 and column(panel, "lab/test-chat")["estimate"]["cost"] > 0
    assert "OPENAI_API_KEY" in column(panel, "openai/gpt-5-mini")["why"]
    assert panel.state["estimate"] is None  # of all together it is not known
    panel.remove("openai/gpt-5-mini")
    panel.draw(now=True)
    assert panel.state["estimate"]["requests"] == 3
    assert lab.requests == 0


def test_a_model_that_cannot_be_asked_says_why_and_leaves_the_others_whole(lab: Loopback) -> None:
    lab.fault("row 1", unknown_model(), times=float("inf"))
    panel = ran(frame(), "{text}", models=[ECHO, "lab/test-chat", "openai/gpt-5-mini"])
    assert panel.result[(ECHO, "answer")].notna().all()
    assert "OPENAI_API_KEY" in column(panel, "openai/gpt-5-mini")["why"]
    assert column(panel, "lab/test-chat")["facts"]["status"] == "failed"
    assert "lab/test-chat" in column(panel, "lab/test-chat")["why"]
    assert "llmkit" not in panel.state["error"]


def test_running_again_asks_only_for_what_is_missing_and_keeps_the_times(lab: Loopback) -> None:
    lab.fault("row 1", bad_key())
    panel = ran(frame(), "{text}", models=["lab/test-chat"])
    assert column(panel, "lab/test-chat")["facts"]["status"] == "failed"
    known = panel.result["lab/test-chat"].dropna(subset="answer")
    sent = lab.requests
    panel.run()
    panel.wait()
    assert panel.result[("lab/test-chat", "answer")].notna().all()
    assert lab.requests == sent + 3 - len(known)
    assert panel.result["lab/test-chat"].loc[known.index, "seconds"].tolist() == known["seconds"].tolist()
    panel.run()
    assert lab.requests == sent + 3 - len(known)
    assert "All of it is answered" in panel._note


def test_only_a_column_that_was_changed_is_asked_again(lab: Loopback) -> None:
    panel = ran(frame(), "{text}", models=["lab/one", "lab/two"])
    panel.set_option("lab/two", "temperature", "0.5")
    assert [one["stale"] for one in panel.view()["columns"]] == [False, True]
    panel.run()
    panel.wait()
    assert [request.body.get("temperature") for request in lab.seen[6:]] == [0.5] * 3
    assert [request.body["model"] for request in lab.seen[6:]] == ["two"] * 3


def test_parameters_can_be_kept_in_step(lab: Loopback) -> None:
    panel = CompareModels(frame(), "{text}", models=["lab/one", "lab/two"])
    panel.set_option("lab/one", "max_tokens", 20)
    panel.sync(True)
    panel.set_option("lab/one", "temperature", 0)
    panel.add("lab/three")
    assert [one["options"] for one in panel.view()["columns"]] == [
        {"max_tokens": 20, "temperature": 0.0}, {"temperature": 0.0}, {"max_tokens": 20, "temperature": 0.0},
    ]  # fmt: skip
    panel.set_option("lab/two", "temperature", "")
    assert [one["options"] for one in panel.view()["columns"]] == [{"max_tokens": 20}, {}, {"max_tokens": 20}]


@pytest.mark.parametrize(
    ("do", "args", "said"),
    [
        ("add", {"model": "  "}, "name a model"),
        ("add", {"model": "lba/test-chat"}, "lba"),
        ("remove", {"column": "c9"}, "there is no such column"),
        ("set_option", {"column": "c1", "name": "temperature", "value": "warm"}, "temperature is a number"),
        ("set_option", {"column": "c1", "name": "api_key", "value": "x"}, "takes no parameter"),
        ("take", {"rows": "many"}, "rows is a whole number"),
        ("repeat", {"answers": 0}, "repeats is a whole number"),
        ("vote", {"row": 0, "choice": "A"}, "not two answers"),
        ("blind", {}, "between two models"),
        ("take_snapshot", {}, "nothing to keep"),
        ("close", {}, ""),
    ],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(lab: Loopback, do: str, args: dict[str, Any], said: str) -> None:
    panel = CompareModels(frame(), "{text}", models=["lab/test-chat"])
    before = panel.view()
    ask(panel, do, args)
    panel.draw(now=True)
    assert said in panel.state["error"] and bool(panel.state["error"]) is bool(said)
    assert panel.view() == before


def test_the_same_model_twice_has_two_columns(lab: Loopback) -> None:
    panel = ran(frame(), "{text}", models=["lab/one", ("lab/one", {"temperature": 1})])
    assert panel.result.columns.get_level_values("model").unique().tolist() == ["lab/one", "lab/one (2)"]
    assert lab.requests == 6


def test_repeats_ask_each_row_as_often_and_any_of_them_can_be_looked_at(lab: Loopback) -> None:
    counter = itertools.count()
    lab.answer = lambda body: f"answer {next(counter)}"
    panel = ran(frame(2), "{text}", models=["lab/test-chat"], repeats=3)
    said = panel.result["lab/test-chat"][["answer", "answer 2", "answer 3"]]
    assert sorted(said.to_numpy().ravel()) == [f"answer {number}" for number in range(6)]
    panel.look(sample=2)
    panel.draw(now=True)
    assert [cell["text"] for cell in panel.state["cells"].values()] == said["answer 3"].tolist()
    assert column(panel, "lab/test-chat")["facts"]["steadiness"] == 0


def test_with_the_truth_there_is_an_accuracy(lab: Loopback) -> None:
    lab.answer = lambda body: "yes"
    df = frame(4).assign(topic=["yes", "no", "Yes ", "no"])
    panel = ran(df, "{text}", models=["lab/test-chat"], truth="topic")
    assert column(panel, "lab/test-chat")["facts"]["accuracy"] == 0.5 and panel.state["quality"] == "accuracy"
    assert panel.comparison is not None and panel.comparison.models["accuracy"].item() == 0.5
    assert panel.result[("truth", "value")].tolist() == df["topic"].tolist()


# ------------------------------------------------------------------------------------------------------------------ streaming


def test_an_answer_is_shown_as_it_is_written_and_only_what_is_new_is_sent(lab: Loopback, wire: Log) -> None:
    lab.fault("row", Breaking(3, "hang"))
    panel = CompareModels(frame(1), "{text} " + 20 * "word ", models=["lab/test-chat"])
    panel._between = 0.0
    came = threading.Event()
    panel.observe(lambda change: came.set() if "row 0" in str(change["new"]["cells"]) else None, "news")
    panel.run()
    assert came.wait(20)
    assert page(wire)["0:0"] == {"state": "writing", "text": "answer to: row 0"}  # two pieces; the first event holds no text
    panel.stop()
    assert panel.wait(20)
    assert page(wire)["0:0"] == {"state": "stopped", "text": "answer to: row 0"}  # what came is kept
    assert panel.result[("lab/test-chat", "answer")].tolist() == ["answer to: row 0"]


def test_news_and_states_together_make_the_page(lab: Loopback, wire: Log) -> None:
    lab.latency = lambda seen: 0.004 * seen.number
    panel = CompareModels(frame(12), "{text} " + 10 * "word ", models=["lab/one", "lab/two", ECHO])
    panel._between = 0.0
    panel.run()
    assert panel.wait(20)
    assert heard(wire)
    assert {key: cell["text"] for key, cell in page(wire).items()} == {
        f"{row}:{place}": panel.result.iloc[row][(label, "answer")]
        for row in range(12)
        for place, label in enumerate(["lab/one", "lab/two", ECHO])
    }


def test_a_growing_text_is_sent_by_what_was_added() -> None:
    from llmkit_widgets.compare import _news

    old = {"state": "writing", "text": "one"}
    assert _news(old, {"state": "writing", "text": "one two"}) == {"more": " two"}
    assert _news(old, {"state": "done", "text": "one two"}) == {"state": "done", "text": "one two"}
    assert _news(old, {"state": "writing", "text": "anew"}) == {"state": "writing", "text": "anew"}
    assert _news(None, old) == old


def test_a_thousand_rows_send_the_page_that_is_shown_and_few_messages(wire: Log) -> None:
    panel = CompareModels(frame(1000), "{text}", models={"a": ECHO, "b": ECHO}, rows=None)
    panel.run()
    assert panel.wait(20)
    assert len(panel.state["cells"]) == 40 and panel.state["pages"] == 50
    assert len(json.dumps(panel.state)) < 40_000
    assert len(wire) < 60
    panel.look(page=49)
    panel.draw(now=True)
    assert panel.state["cells"]["999:1"]["text"] == "[echo, not a model] row 999"


def test_one_column_is_stopped_and_the_others_go_on(lab: Loopback) -> None:
    lab.fault("slow", Hang(), times=float("inf"))
    panel = CompareModels(frame(), "{text}", models={"slow": ("lab/one", {"prompt": "slow {text}"}), "quick": "lab/two"})
    panel.run()
    until(panel, lambda state: state["columns"][1]["facts"]["status"] == "done" and state["columns"][0]["facts"]["status"] == "running")
    panel.stop("slow")
    assert panel.wait(20)
    assert [column(panel, name)["facts"]["status"] for name in ("slow", "quick")] == ["stopped", "done"]
    assert states_of(panel, 0) == ["stopped"] * 3 and states_of(panel, 1) == ["done"] * 3
    sent = lab.requests
    assert not llmkit.running() and lab.requests == sent


def test_columns_that_end_together_are_counted_once_and_not_once_each(lab: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[CompareModels] = []
    look = CompareModels.comparison.fget
    monkeypatch.setattr(CompareModels, "comparison", property(lambda panel: counted.append(panel) or look(panel)))
    panel = CompareModels(frame(), "{text}", models=[f"lab/{number}" for number in range(5)])
    lab.hold()
    panel.run()
    lab.wait_for(15, 20)
    counted.clear()
    panel.stop()
    assert panel.wait(20)
    assert 1 <= len(counted) <= 2
    assert [column(panel, f"lab/{number}")["facts"]["status"] for number in range(5)] == ["stopped"] * 5
    lab.release()


def test_what_is_stopped_before_it_began_sends_nothing(lab: Loopback) -> None:
    panel = CompareModels(frame(), "{text}", models=["lab/test-chat"])
    lab.hold()
    panel.run()
    panel.stop()
    assert panel.wait(20)
    lab.release()
    assert column(panel, "lab/test-chat")["facts"]["status"] in ("new", "stopped")
    assert panel.result[("lab/test-chat", "answer")].isna().all()


def test_a_view_that_comes_late_is_told_all(wire: Log) -> None:
    panel = ran(frame(), "{text}", models=[ECHO])
    before = len(states(wire))
    ask(panel, "shown")
    panel.wait()
    panel.draw(now=True)
    assert len(states(wire)) > before
    assert panel.state["suggested"][0] == {"model": ECHO, "needs": ""}
    ask(panel, "again")
    ask(panel, "hidden")


# -------------------------------------------------------------------------------------------------------------------- looking


def test_only_rows_whose_answers_differ_can_be_shown(lab: Loopback) -> None:
    lab.answer = lambda body: "other" if body["model"] == "two" and "row 1" in str(body) else "Same "
    panel = ran(frame(), "{text}", models=["lab/one", "lab/two"])
    panel.look(only_different=True)
    panel.draw(now=True)
    assert [row["name"] for row in panel.state["shown"]] == ["r1"]
    panel.look(only_different=False, baseline="lab/two")
    panel.draw(now=True)
    assert len(panel.state["shown"]) == 3 and panel.state["baseline"] == "c2"


def test_what_a_model_wrote_is_data_wherever_it_is_shown(lab: Loopback) -> None:
    lab.answer = lambda body: CANARY
    panel = ran(pd.DataFrame({"text": [CANARY]}), "{text}", models=["lab/test-chat"])
    assert panel.state["cells"]["0:0"]["text"] == CANARY  # put in as a text node
    assert CANARY not in panel.snapshot() and "&lt;img src=x" in panel.snapshot()
    assert CANARY not in repr(panel)


# --------------------------------------------------------------------------------------------------------------------- voting


def voted(lab: Loopback) -> CompareModels:
    lab.answer = lambda body: f"I am {body['model']}"
    panel = ran(frame(), "{text}", models=["lab/one", "lab/two"])
    panel.blind(seed=3)
    panel.draw(now=True)
    return panel


def test_in_a_blind_vote_nothing_of_the_page_says_who_answered(lab: Loopback) -> None:
    lab.fault("row 2", bad_key(), times=float("inf"))
    panel = ran(frame(), "{text}", models=["lab/one", "lab/two"])
    panel.blind()
    panel.draw(now=True)
    state = panel.state
    assert state["hidden"] and not state["order"] and not state["votes"] and state["letters"] == ["A", "B"]
    assert all(set(cell) <= {"state", "text", "error"} for cell in state["cells"].values())
    assert {cell["error"] for cell in state["cells"].values() if "error" in cell} <= {"no answer"}


def test_each_row_has_an_order_of_its_own_that_the_seed_gives() -> None:
    orders = [tuple(Ballot(1).order(row, 3)) for row in range(30)]
    assert len(set(orders)) == 6
    assert orders == [tuple(Ballot(1).order(row, 3)) for row in range(30)]
    assert orders != [tuple(Ballot(2).order(row, 3)) for row in range(30)]


def test_a_vote_counts_for_who_stands_there_and_stays(lab: Loopback) -> None:
    panel = voted(lab)
    shown = panel.state["cells"]["0:0"]["text"]
    ask(panel, "vote", {"row": 0, "choice": "A"})
    assert panel.result[("vote", "winner")].iloc[0] == shown.replace("I am ", "lab/")
    panel.draw(now=True)
    assert panel.state["votes"] == {"0": ""}  # that there is a vote, not for whom
    with pytest.raises(llmkit.BadInput, match="a vote stays"):
        panel.vote(0, "B")
    with pytest.raises(llmkit.BadInput, match="a vote is A, B, 'tie' or 'both bad'"):
        panel.vote(1, "C")
    with pytest.raises(llmkit.BadInput, match="reveal the names first"):
        panel.add(ECHO)


def test_names_are_shown_after_the_last_vote_or_on_demand(lab: Loopback) -> None:
    panel = voted(lab)
    for row, choice in enumerate(["A", TIE, BOTH_BAD]):
        assert panel.view()["hidden"]
        panel.vote(row, choice)
    panel.draw(now=True)
    assert not panel.state["hidden"] and panel.state["quality"] == "votes"
    winner = panel.result[("vote", "winner")].iloc[0]
    assert panel.state["votes"] == {"0": winner, "1": TIE, "2": BOTH_BAD}
    assert panel.models.loc[winner, ["wins", "votes"]].tolist() == [1, 0.5]
    assert panel.models["votes"].sum() == pytest.approx(2 / 3, abs=1e-2)
    other = voted(lab)
    other.reveal()
    with pytest.raises(llmkit.BadInput, match="whoever knows the names"):
        other.vote(0, "A")


def test_rows_that_are_still_written_cannot_be_voted_on(lab: Loopback) -> None:
    lab.fault("row 1", Hang(), times=float("inf"))
    panel = CompareModels(frame(), "{text}", models={"a": "lab/one", "b": ECHO})
    panel.run()
    panel.blind()
    until(panel, lambda state: panel.view()["votable"] == [0, 2])
    panel.vote(0, "A")
    with pytest.raises(llmkit.BadInput, match="still being written"):
        panel.vote(1, "A")
    panel.stop()
    assert panel.wait(20)


# -------------------------------------------------------------------------------------------------------------------- keeping


def test_a_snapshot_is_not_altered_by_anything_that_comes_after(lab: Loopback) -> None:
    panel = ran(frame(), "{text}", models=["lab/one"])
    panel.take_snapshot("before")
    kept = panel.snapshot_frame()
    kept.iloc[0, 0] = "changed by hand"
    panel.ask_for("Other {text}")
    panel.run()
    panel.wait()
    panel.take_snapshot()
    assert panel.snapshot_frame("before")[("lab/one", "answer")].tolist() == [f"answer to: row {number}" for number in range(3)]
    assert panel.snapshot_frame()[("lab/one", "answer")].iloc[0] == "answer to: Other row 0"
    assert panel.snapshots["name"].tolist() == ["before", "snapshot 2"] and panel.snapshots["rows"].tolist() == [3, 3]
    assert panel.snapshot_frame("before").attrs["taken"].endswith("+00:00") and '"{text}"' in panel.snapshot_frame("before").attrs["code"]
    with pytest.raises(llmkit.BadInput, match="no such snapshot"):
        panel.snapshot_frame("after")


def test_other_rows_take_the_answers_to_the_old_ones_away(lab: Loopback) -> None:
    panel = ran(frame(6), "{text}", models=["lab/one"], rows=2)
    panel.take(4)
    assert panel.result[("lab/one", "answer")].isna().all() and len(panel.result) == 4
    panel.run()
    panel.wait()
    assert lab.requests == 4  # the first two were stored
