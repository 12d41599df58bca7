"""``%load_ext llmkit`` in a real IPython shell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import llmkit
from llmkit.session import default
from tests.loopback import Loopback

IPython = pytest.importorskip("IPython")


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    from IPython.core.interactiveshell import InteractiveShell

    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance()
    shell.run_line_magic("load_ext", "llmkit")
    yield shell
    shell.history_manager.end_session()
    InteractiveShell.clear_instance()


def said(lab: Loopback) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in lab.seen[-1].body["messages"]]


def test_a_cell_is_asked_and_its_answer_shown_and_kept(lab: Loopback, shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert shell.run_cell("%%llm lab/test-chat -o answer\nWhat's your sign?\n").success
    assert capsys.readouterr().out == "answer to: What's your sign?\n"
    assert shell.user_ns["answer"] == "answer to: What's your sign?"


def test_without_a_model_the_sessions_own_answers(lab: Loopback, shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert shell.run_cell("%llm use lab/test-chat").success
    assert shell.run_cell("%%llm\nHello").success
    assert capsys.readouterr().out == "answer to: Hello\n"


def test_system_goes_in_front_and_both_are_filled_from_the_namespace(lab: Loopback, shell: Any) -> None:
    shell.user_ns |= {"tone": "brief", "text": "{tone} and {nothing}", "count": 3}
    assert shell.run_cell('%%llm lab/test-chat --system "Be {tone}, in {count} words"\nOf {text}: {{tone}} {"a": 1} {}').success
    assert said(lab) == [("system", "Be brief, in 3 words"), ("user", 'Of {tone} and {nothing}: {tone} {"a": 1} {}')]


def test_the_line_of_the_magic_is_not_evaluated(lab: Loopback, shell: Any) -> None:
    shell.user_ns |= {"called": [], "quote": '" -o stolen "'}
    assert shell.run_cell('%%llm lab/test-chat --system "{called.append(1)} {quote} $quote"\nHello').error_in_exec is not None
    assert shell.run_cell('%%llm lab/test-chat --system "{quote} $quote"\nHello').success
    assert said(lab)[0] == ("system", '" -o stolen " $quote')
    assert shell.user_ns["called"] == []
    assert "stolen" not in shell.user_ns


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("Of {reveiw}", r"\{reveiw\}, which is no variable\. Did you mean \{review\}"),
        ("Of {zzz}", r"no variable\. The variables are 'review', 'model'"),
        ("Of {review.upper}", r"only a bare \{review\} is replaced"),
        ("Of {model}", r"\{model\} is a object, which has no text of its own"),
        ("Of {_}", "no variable"),
    ],
)
def test_a_name_that_cannot_be_filled_is_an_error_and_nothing_is_sent(lab: Loopback, shell: Any, prompt: str, message: str) -> None:
    shell.user_ns |= {"model": object(), "review": "late"}
    error = shell.run_cell(f"%%llm lab/test-chat\n{prompt}").error_in_exec
    assert isinstance(error, llmkit.BadInput)
    with pytest.raises(llmkit.BadInput, match=message):
        raise error
    assert lab.requests == 0


def test_a_frame_goes_into_the_prompt_with_all_its_rows(lab: Loopback, shell: Any) -> None:
    shell.user_ns["df"] = pd.DataFrame({"n": range(200)})
    assert shell.run_cell("%%llm lab/test-chat\n{df}").success
    assert all(str(n) in said(lab)[0][1].split() for n in range(200))


def test_a_frame_that_the_prompt_does_not_name_is_not_written_out(lab: Loopback, shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shell.user_ns["large"] = pd.DataFrame({"n": [1]})
    monkeypatch.setattr(pd.DataFrame, "to_string", lambda self: pytest.fail("written out"))
    assert shell.run_cell("%%llm lab/test-chat\nHello").success


@pytest.mark.parametrize(
    "line", ["lab/test-chat -o", "lab/test-chat -o 'a b'", "lab/test-chat --unknown", 'lab/test-chat "open', "lab/test-chat more"]
)
def test_a_wrong_line_is_told_without_a_traceback(lab: Loopback, shell: Any, line: str) -> None:
    from IPython.core.error import UsageError

    assert isinstance(shell.run_cell(f"%%llm {line}\nHello").error_in_exec, UsageError)
    assert lab.requests == 0


@pytest.mark.parametrize("line", ["%llm", "%llm use", "%llm tell me", "%%llm lab/test-chat\n  \n"])
def test_what_the_magics_do_not_know_says_what_they_do(lab: Loopback, shell: Any, line: str) -> None:
    from IPython.core.error import UsageError

    assert isinstance(shell.run_cell(line).error_in_exec, UsageError)


def test_an_answer_reaches_the_page_as_text_only(lab: Loopback, shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    shell.user_ns["text"] = "<b>\x1b[31mred\x1b]8;;http://x\x07 \r\b"
    assert shell.run_cell("%%llm lab/test-chat -o answer\n{text}.").success
    shown = capsys.readouterr().out
    assert shown == "answer to: <b>�[31mred�]8;;http://x� ��.\n"
    assert shell.user_ns["answer"].startswith("answer to: <b>\x1b[31m")


def test_ctrl_c_closes_the_answer_and_keeps_no_half_of_it(lab: Loopback, shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Page:
        def write(self, text: str) -> None:
            raise KeyboardInterrupt

        def flush(self) -> None:
            pass

    from llmkit import magics

    with monkeypatch.context() as during:
        during.setattr(magics.sys, "stdout", Page())
        with pytest.raises(KeyboardInterrupt) as stopped:
            magics._ask("lab/test-chat -o answer", "Tell me a long story", shell.user_ns)
    assert "answer" not in shell.user_ns
    assert lab.requests == 1
    assert stopped.traceback  # it holds the frames, as the shell does, and the answer is closed all the same
    stream = stopped.traceback[-2].frame.f_locals["answer"]
    with pytest.raises(llmkit.ConfigError, match="come once"):
        next(iter(stream))
    assert stream._pieces is None or stream._pieces.ag_frame is None


def test_models_are_found_by_words_and_those_with_a_key_come_first(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "test-key-not-real")
    found = shell.run_cell("%llm models Embed 3-small").result
    assert "openai/text-embedding-3-small" == found["model"].iloc[0]
    assert found["key_found"].iloc[0]
    everything = shell.run_cell("%llm models").result
    assert len(llmkit.models()) == len(everything)
    assert everything["key_found"].is_monotonic_decreasing
    assert isinstance(shell.run_cell("%llm models no-such-thing").error_in_exec, llmkit.ConfigError)


def test_use_sets_the_models_of_every_operation(lab: Loopback, shell: Any) -> None:
    assert shell.run_cell("%llm use lab/test-chat --embed lab/test-embed --rerank lab/test-rerank").success
    assert [default().chosen(operation)[0] for operation in ("chat", "embed", "rerank")] == [
        "lab/test-chat", "lab/test-embed", "lab/test-rerank",
    ]  # fmt: skip
    assert isinstance(shell.run_cell("%llm use nobody/nothing").error_in_exec, llmkit.UnknownModel)
