"""speak: recordings as bytes and as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from llmkit.frames.columns import FrameTable
from llmkit.operations.speak import SPEAK, speak_into
from llmkit.types import Price, Request

KEY = bytes(range(16))


def held(folder: Path, value: bytes, key: bytes = KEY) -> Path:
    operation = speak_into(folder, "mp3")
    assert operation.hold is not None
    return Path(operation.hold(value, key))


def test_missing_and_empty_texts_are_not_asked_about() -> None:
    table = FrameTable(pd.DataFrame({"text": ["a", None, "", "  ", "b"]}))
    assert [task.rows for task in SPEAK.tasks(table, on="text", options={"voice": "x"})] == [(0,), (4,)]


@pytest.mark.parametrize("value", [b"", b"ID3", bytes(range(256))])
def test_sound_comes_back_from_the_store_as_it_went_in(value: bytes) -> None:
    assert SPEAK.unpack(SPEAK.pack(value)) == value


@pytest.mark.parametrize("stored", [b"", b"ID3", b'"text"'])
def test_what_was_not_packed_here_is_a_value_error(stored: bytes) -> None:
    with pytest.raises(ValueError, match="."):
        SPEAK.unpack(stored)


def test_a_file_holds_the_whole_recording_and_stands_alone(tmp_path: Path) -> None:
    path = held(tmp_path, b"sound")
    assert (path.read_bytes(), path.parent, path.suffix) == (b"sound", tmp_path, ".mp3")
    assert list(tmp_path.iterdir()) == [path]


def test_the_same_request_has_the_same_file_and_another_has_another(tmp_path: Path) -> None:
    assert held(tmp_path, b"sound") == held(tmp_path, b"sound")
    assert held(tmp_path, b"sound", KEY[::-1]) != held(tmp_path, b"sound")


def test_a_file_that_is_there_is_not_written_again(tmp_path: Path) -> None:
    path = held(tmp_path, b"sound")
    number = path.stat().st_ino
    held(tmp_path, b"sound")
    assert path.stat().st_ino == number


@pytest.mark.parametrize("damaged", [b"", b"so", b"SOUND"])
def test_a_file_that_holds_something_else_is_replaced(tmp_path: Path, damaged: bytes) -> None:
    path = held(tmp_path, b"sound")
    path.write_bytes(damaged)
    assert held(tmp_path, b"sound").read_bytes() == b"sound"


def test_a_folder_that_was_deleted_meanwhile_is_made_again(tmp_path: Path) -> None:
    assert held(tmp_path / "gone", b"sound").read_bytes() == b"sound"


def test_half_a_file_never_stands_under_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    really = Path.replace

    def watched(self: Path, target: Any) -> Path:
        seen.append((Path(target).exists(), self.read_bytes()))
        return really(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    held(tmp_path, b"sound")
    assert seen == [(False, b"sound")]


def most(price: Price) -> float | None:
    assert SPEAK.most is not None
    return SPEAK.most(Request("speak", "x" * 1000), price).cost(price)


def test_the_most_that_a_text_can_cost_is_its_characters() -> None:
    assert most(Price(million_characters=15.0)) == pytest.approx(0.015)


def test_no_bound_is_promised_where_nobody_says_how_many_tokens_were_spoken() -> None:
    assert SPEAK.priced(Price(million_characters=15.0))
    assert not SPEAK.priced(Price(input=0.6, output=12.0))
