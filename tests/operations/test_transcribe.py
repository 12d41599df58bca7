"""transcribe: recordings as requests, and what they can cost at the most."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from llmkit.errors import InvalidRequest
from llmkit.frames.columns import FrameTable
from llmkit.operations.files import FileRules
from llmkit.operations.transcribe import TRANSCRIBE, Recording
from llmkit.types import Price, Request, Task

from .test_files import wav

MP3 = b"ID3\x04" + bytes(19_996)


def drawn(*cells: Any, rules: FileRules | None = None, **options: Any) -> list[Task]:
    table = FrameTable(pd.DataFrame({"audio": pd.Series(list(cells), dtype=object)}))
    return list(TRANSCRIBE.tasks(table, on="audio", files=rules, options=options))


def test_a_recording_travels_under_a_name_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ms-smith-2026.mp3").write_bytes(MP3)
    (task,) = drawn("ms-smith-2026.mp3", language="en")
    assert task == Task((0,), Request("transcribe", Recording("recording.mp3", "audio/mpeg", MP3), {"language": "en"}))
    assert "smith" not in repr(task)


def test_an_ending_that_lies_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.mp3").write_bytes(wav(1))
    (task,) = drawn("a.mp3")
    assert isinstance(task.request, Request)
    assert task.request.payload.media_type == "audio/wav"


def test_missing_cells_are_not_asked_about() -> None:
    assert [task.rows for task in drawn(None, MP3, "", "  ", float("nan"), MP3)] == [(1,), (5,)]


def test_sound_is_not_printed() -> None:
    assert "ID3" not in repr(Recording("recording.mp3", "audio/mpeg", MP3))


@pytest.mark.parametrize(
    ("cell", "kind"),
    [
        (b"no sound", "no_sound"),
        ("/etc/passwd", "outside_roots"),
        ("none.mp3", "no_file"),
        ("https://example.org/a.mp3", "address"),
        (17, "invalid_request"),
        (pd.Series([1.0, 2.0]).to_numpy(), "invalid_request"),
    ],
)
def test_what_is_no_recording_is_an_error_in_the_place_of_a_request(cell: Any, kind: str) -> None:
    bad, good = drawn(cell, MP3)
    assert isinstance(bad.request, InvalidRequest)
    assert bad.request.kind == kind
    assert isinstance(good.request, Request)


def most(data: bytes, **price: float) -> float:
    assert TRANSCRIBE.most is not None
    given = Price(**price)
    cost = TRANSCRIBE.most(Request("transcribe", Recording("recording", "-", data)), given).cost(given)
    assert cost is not None
    return cost


def test_the_most_that_a_minute_can_cost_is_its_price() -> None:
    assert most(wav(60), audio_minute=0.006) == pytest.approx(0.0061), "whole seconds are billed, and a header is taken for sound"


def test_where_tokens_are_billed_the_bound_has_what_is_heard_and_what_is_written() -> None:
    # Ten tokens for each second heard; nobody says more than four words in one.
    heard, written = 60 * 10 * 6.0 / 1e6, 60 * 4 * 10.0 / 1e6
    assert most(wav(60), input=2.5, audio_input=6.0, output=10.0) > heard + written
    assert most(wav(60), input=2.5, output=10.0) > 60 * 10 * 2.5 / 1e6 + written


def test_a_recording_weighs_what_is_heard_and_not_its_bytes() -> None:
    assert TRANSCRIBE.weigh is not None
    weighed = TRANSCRIBE.weigh(Request("transcribe", Recording("recording.wav", "audio/wav", wav(60))), 10**6)
    assert weighed == pytest.approx(60 * 10 * 4, rel=0.01)
