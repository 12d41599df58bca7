"""The doors that panels look through: runs that go on, servers' models, a model's parameters, what the user prefers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import llmkit
from llmkit.run import begun
from tests.loopback import Loopback, Status, refusal, server_error

FRAME = pd.DataFrame({"text": [f"row {row}" for row in range(6)]})


def begin(**more: object) -> llmkit.Run[object]:
    return FRAME.llm.chat("Say {text}", model="lab/test-chat", wait=False, show_progress=False, **more)


# -------------------------------------------------------------------------------------------------------------------- runs


def test_runs_that_go_on_are_listed_the_newest_first_and_only_as_long_as_they_do(lab: Loopback) -> None:
    lab.hold()
    first = begin()
    second = begin(max_tokens=5)
    assert llmkit.running() == [second, first]
    first.cancel()
    first.wait()
    assert llmkit.running() == [second]
    lab.release()
    second.wait()
    assert llmkit.running() == []
    assert begun.running == {}


def test_a_run_that_is_tried_again_is_listed_and_told_of_again(lab: Loopback) -> None:
    heard: list[str] = []
    stop = llmkit.on_run(lambda run: heard.append(run.id))
    lab.fault("row 3", refusal())
    run = begin()
    run.wait()
    lab.hold()
    run.retry()
    assert llmkit.running() == [run]
    lab.release()
    run.wait()
    stop()
    stop()  # once more is no fault
    assert heard == [run.id, run.id]


def test_a_run_of_several_stands_for_its_parts(lab: Loopback) -> None:
    heard: list[str] = []
    stop = llmkit.on_run(lambda run: heard.append(run.id))
    lab.hold()
    run = FRAME.llm.topk("the best", on="text", k=1, model="lab/test-chat", wait=False, show_progress=False)
    lab.wait_for(1)
    assert llmkit.running() == [run]
    run.cancel()
    lab.release()
    run.wait()
    stop()
    assert heard == [run.id]


def test_a_listener_that_raises_stops_no_run_and_no_other_listener(lab: Loopback) -> None:
    heard: list[str] = []

    def broken(run: llmkit.Run[object]) -> None:
        raise RuntimeError

    stops = [llmkit.on_run(broken), llmkit.on_run(lambda run: heard.append(run.id))]
    with pytest.warns(RuntimeWarning, match="listener for runs raised RuntimeError"):
        run = begin()
    assert len(run.result()) == 6
    for stop in stops:
        stop()
    assert heard == [run.id]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
def test_a_forked_child_has_no_runs_of_its_parent(tmp_path: Path) -> None:
    script = (
        "import os, sys, pandas as pd, llmkit\n"
        "from tests.loopback import Loopback\n"
        "with Loopback() as server:\n"
        "    llmkit.add_provider('lab', server.url); server.hold()\n"
        "    run = pd.DataFrame({'text': ['a']}).llm.chat('{text}', model='lab/test', wait=False, show_progress=False)\n"
        "    assert llmkit.running() == [run]\n"
        "    sys.stdout.flush()\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        os._exit(len(llmkit.running()))\n"
        "    print(os.waitpid(child, 0)[1]); run.cancel(); run.wait()\n"
    )
    environment = {**os.environ, "LLMKIT_CACHE_DIR": str(tmp_path), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "0\n"


def test_reasons_are_counted_by_kind_the_most_frequent_first(lab: Loopback) -> None:
    for row in (1, 2):
        lab.fault(f"row {row}", refusal())
    lab.fault("row 4", Status(400, {"error": {"message": "no", "type": "invalid_request_error"}}))
    run = begin()
    run.wait()
    assert [(kind, count) for kind, count, _ in run.reasons()] == [("refusal", 2), ("invalid_request", 1)]
    assert all(isinstance(example, str) and example for _, _, example in run.reasons())
    errors = run.errors()
    assert set(errors["kind"]) == {"refusal", "invalid_request"}


def test_retries_are_attempts_beyond_the_first_and_stored_answers_have_none(lab: Loopback) -> None:
    lab.fault("row 2", server_error(), server_error())
    run = begin()
    run.wait()
    assert run.retries == 2
    again = begin()
    again.wait()
    assert (again.retries, again.reasons()) == (0, [])


# ----------------------------------------------------------------------------------------------------------------- servers


def test_a_server_says_which_models_it_has_with_the_key_it_wants(server: Loopback) -> None:
    server.key = "the-key"
    server.models = ["b", "a"]
    assert llmkit.served(server.url, "the-key") == ["b", "a"]
    with pytest.raises(llmkit.KeyRejected):
        llmkit.served(server.url)
    llmkit.add_provider("mine", server.url, "the-key")
    assert llmkit.served("mine") == ["b", "a"]


def test_a_list_in_another_format_is_not_read() -> None:
    with pytest.raises(llmkit.Unsupported, match="anthropic's list"):
        llmkit.served("anthropic")


@pytest.mark.parametrize(
    ("model", "operation", "found"),
    [
        ("openai/gpt-4.1-mini", "chat", ["temperature", "max_tokens", "seed"]),
        ("anthropic/not-known-yet", "chat", ["temperature", "max_tokens"]),
        ("claude-haiku-4-5", "chat", ["temperature", "max_tokens"]),
        ("cohere/embed-v4.0", "embed", ["dimensions"]),
        ("cohere/rerank-v4.0", "rerank", []),
        ("anthropic/claude-haiku-4-5", "embed", []),
        ("openai/tts-1", "speak", ["voice", "format", "speed", "instructions"]),
        ("echo/echo", "chat", ["temperature", "max_tokens", "seed"]),
    ],
)
def test_parameters_are_what_the_wire_has_a_word_for_key_or_no_key(model: str, operation: str, found: list[str]) -> None:
    assert llmkit.parameters(model, operation) == found


@pytest.mark.parametrize("model", ["opnai/gpt-5-mini", "no-such-model", "echo/other"])
def test_parameters_of_what_nobody_has_are_an_error(model: str) -> None:
    with pytest.raises(llmkit.UnknownModel):
        llmkit.parameters(model)


# ------------------------------------------------------------------------------------------------------------- preferences


def test_preferences_are_kept_in_the_config_folder_for_the_user_alone() -> None:
    llmkit.preferences(favourites=["a/b"], budget=5, budget_per="day")
    path = Path(os.environ["LLMKIT_CONFIG_DIR"]) / "preferences.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert llmkit.preferences() == {"favourites": ["a/b"], "budget": 5, "budget_per": "day"}
    assert llmkit.preferences(budget=None) == {"favourites": ["a/b"], "budget_per": "day"}


@pytest.mark.parametrize(
    "wrong", [{"keys": ["x"]}, {"budget": -1}, {"budget": True}, {"budget": float("nan")}, {"favourites": "a/b"}, {"budget_per": "year"}]
)
def test_a_preference_that_is_none_is_an_error_and_changes_nothing(wrong: dict[str, object]) -> None:
    llmkit.preferences(budget=5.0)
    with pytest.raises(llmkit.BadInput):
        llmkit.preferences(**wrong)
    assert llmkit.preferences() == {"budget": 5.0}


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"budget": "much", "other": 1}', "\x00"])
def test_a_damaged_file_of_preferences_says_nothing_and_is_written_anew(text: str) -> None:
    path = Path(os.environ["LLMKIT_CONFIG_DIR"]) / "preferences.json"
    path.write_text(text)
    assert llmkit.preferences() == {}
    assert llmkit.preferences(budget_per="day") == {"budget_per": "day"}
