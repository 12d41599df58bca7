"""What one row does wrong, in whatever part of llmkit or of the user's own functions, is that row's affair."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import llmkit
from llmkit.errors import BadInput
from tests.loopback import Json, Loopback, Status, answer_to
from tests.operations.test_files import png

CHAT: dict[str, Any] = {"model": "lab/test-chat", "show_progress": False}


def frame(*cells: Any, name: str = "text") -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(list(cells), dtype=object)})


@pytest.fixture
def second(lab: Loopback) -> Loopback:
    """Another server's name for the same one, that takes no addresses of pictures."""
    llmkit.catalogue.merge({"providers": {"second": {"base_url": lab.url, "key_optional": True, "quirks": {"image_urls": False}}}})
    return lab


def test_a_file_that_is_not_there_is_one_rows_affair_with_a_fallback_too(
    second: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.png").write_bytes(png())
    said = frame("a.png", "gone.png", name="picture").llm.chat("What is it?", images="picture", fallback="second/any", **CHAT)
    assert said.notna().tolist() == [True, False]


def test_what_the_fallback_has_no_word_for_the_first_choice_may_serve(second: Loopback) -> None:
    shown = frame("https://example.com/a.png", name="picture")
    assert shown.llm.chat("What is it?", images="picture", fallback="second/any", **CHAT).notna().all()


def test_bytes_in_an_array_are_a_picture_as_well(lab: Loopback) -> None:
    cell = {"bytes": np.frombuffer(png(), dtype=np.uint8), "path": None}
    assert frame(cell, name="picture").llm.chat("What is it?", images="picture", **CHAT).notna().all()


def leave(a: int) -> str:
    """Ends everything."""
    sys.exit(3)


class Mute:
    def __str__(self) -> str:
        raise ValueError("nothing to say")


def mute(a: int) -> Any:
    """Gives what cannot be written down."""
    return Mute()


@pytest.mark.parametrize("tool", [leave, mute])
def test_whatever_a_tool_does_is_told_to_the_model(lab: Loopback, tool: Any) -> None:
    said = frame(f'call:{tool.__name__} {{"a": 1}}', "hello").llm.chat("{text}", tools=[tool], run_tools=True, **CHAT)
    assert said.notna().all()
    assert "SystemExit" in said[0] or "ValueError" in said[0]
    assert said[1] == answer_to("hello")


def test_a_tool_may_ask_llmkit_itself_in_every_row_at_once(lab: Loopback) -> None:
    llmkit.add_provider("inner", lab.url, "key-not-real")

    def ask(a: int) -> str:
        """Asks another model."""
        return str(llmkit.chat(f"inner {a}", model="inner/any", timeout=20))

    said = frame(*(f'call:ask {{"a": {number}}}' for number in range(24))).llm.chat("{text}", tools=[ask], run_tools=True, **CHAT)
    assert [answer_to(f"inner {number}") in text for number, text in enumerate(said)] == [True] * 24


def test_a_changed_function_is_another_question(lab: Loopback) -> None:
    def asked(answer: str) -> Any:
        def rate(a: int) -> str:
            """The rate."""
            return "1.10" if answer == "old" else "9.99"

        def renamed(a: int) -> str:
            """The rate."""
            return "9.99"

        renamed.__name__ = "rate"
        tool = rate if answer == "old" else renamed
        return frame('call:rate {"a": 1}').llm.chat("{text}", tools=[tool], run_tools=True, **CHAT)[0]

    assert "1.10" in asked("old")
    assert "9.99" in asked("new")
    sent = lab.requests
    assert "1.10" in asked("old")
    assert lab.requests == sent, "the old one is still stored"


def test_a_classifier_is_asked_again_for_other_labels(server: Loopback) -> None:
    llmkit.add_provider("c", server.url_of("cohere"), "key-not-real", "cohere")
    classified = {"classifications": [{"id": "1", "prediction": "spam", "confidence": 0.9, "labels": {}}]}
    server.fault("buy now", Json(classified), Json(classified))
    how: dict[str, Any] = {"by": "classifier", "model": "c/tuned", "show_progress": False, "examples": None}
    assert frame("buy now").llm.classify("text", ["spam", "ham"], **how).tolist() == ["spam"]
    with pytest.warns(UserWarning, match="bad_label"):
        assert frame("buy now").llm.classify("text", ["urgent", "later"], **how).isna().all()


def test_labels_and_rows_are_compared_by_one_model_only(lab: Loopback) -> None:
    with pytest.raises(BadInput, match="one model"):
        frame("a").llm.classify("text", ["a", "b"], by="embedding", model="lab/test-embed", fallback="lab/other-embed")
    assert lab.requests == 0


def test_vectors_of_two_models_are_not_mixed_in_a_column(lab: Loopback) -> None:
    gone = Status(404, {"error": {"message": "no such model", "code": "model_not_found", "type": "invalid_request_error"}})
    first = frame("a").llm.embed("text", model="lab/test-embed", show_progress=False)
    assert first.notna().all()
    lab.fault("b", gone)
    both = frame("a", "b").llm.embed("text", model="lab/test-embed", fallback="lab/other-embed", show_progress=False)
    assert both.notna().tolist() == [True, False]
    assert llmkit.last().errors()["kind"].tolist() == ["other_model"]


SECRET = "Zq81-secret-credential-77"


def test_a_key_that_rotates_is_masked_where_a_server_quotes_it(lab: Loopback) -> None:
    llmkit.add_provider("turning", lab.url, lambda: SECRET)
    lab.fault("a", Status(401, {"error": {"message": f"Incorrect API key provided: {SECRET}", "code": "invalid_api_key"}}), times=9)
    with pytest.raises(llmkit.KeyRejected) as raised:
        llmkit.chat("a", model="turning/any")
    assert SECRET not in f"{raised.value} {vars(raised.value)}"


def test_a_client_of_the_callers_is_quoted_with_no_words_of_a_401(server: Loopback) -> None:
    cohere = pytest.importorskip("cohere")
    server.fault("a", Status(401, {"message": f"invalid api token: {SECRET}"}), times=9)
    with cohere.ClientV2(api_key=SECRET, base_url=server.url_of("cohere")) as client, pytest.raises(llmkit.KeyRejected) as raised:
        llmkit.chat("a", model=(client, "command-a"))
    assert SECRET not in f"{raised.value} {vars(raised.value)}"


@pytest.mark.parametrize(
    ("usage", "output", "known"),
    [
        ({"prompt_tokens": 10120, "completion_tokens": 1499, "total_tokens": 14428}, 4308, True),
        ({"prompt_tokens": 10, "completion_tokens": 30, "total_tokens": 40}, 30, True),
        ({"prompt_tokens": 10, "completion_tokens": 30}, 30, True),
        ({}, 0, False),
        ({"prompt_tokens": None, "completion_tokens": None}, 0, False),
    ],
)
def test_what_a_model_thought_is_billed_and_what_nobody_told_is_unknown(lab: Loopback, usage: Any, output: int, known: bool) -> None:
    llmkit.catalogue.merge({"models": [{"provider": "lab", "name": "test-chat", "price": {"input": 1.0, "output": 1.0}}]})
    lab.fault("a", Json({"choices": [{"finish_reason": "stop", "message": {"role": "assistant", "content": "yes"}}], "usage": usage}))
    frame("a").llm.chat("{text}", **CHAT)
    assert llmkit.last().usage().output == output
    assert (llmkit.last().cost is not None) is known
