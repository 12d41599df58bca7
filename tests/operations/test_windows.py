"""Long texts as windows: nothing lost, nothing too long, and an end to it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmkit.operations.windows import estimated_tokens, windows

TEXTS = st.text(st.characters(), max_size=400) | st.text("ab \n", max_size=400) | st.text("語 a🚀\ud800", max_size=200)
ROOM = st.integers(3, 60)  # a window has room for any one character
OVERLAPS = st.floats(0, 0.5)


def places(text: str, pieces: list[str]) -> list[tuple[int, int]]:
    """Where each window stands in the text, each as early as it can while none before it begins later."""
    found, at = [], -1
    for piece in pieces:
        at = text.find(piece, at + 1)
        assert at >= 0, "a window that is no piece of the text"
        found.append((at, at + len(piece)))
    return found


@given(TEXTS, ROOM, OVERLAPS)
def test_windows_cover_the_text_in_order(text: str, room: int, overlap: float) -> None:
    pieces = windows(text, room, overlap)
    numbered = "".join(pieces) if overlap == 0 else None
    assert text.startswith(pieces[0])
    assert text.endswith(pieces[-1])
    assert numbered in (None, text)


@given(st.integers(1, 400), ROOM, OVERLAPS)
def test_no_character_is_lost_and_none_moves(length: int, room: int, overlap: float) -> None:
    # Every character occurs once, so that each window has one place only.
    text = "".join(" " if number % 7 == 6 and number < 7 else chr(0x4E00 + number) for number in range(length))
    stood = places(text, windows(text, room, overlap))
    assert stood[0][0] == 0
    assert stood[-1][1] == length
    for (start, end), (next_start, next_end) in pairwise(stood):
        assert start < next_start <= end < next_end


@given(TEXTS, ROOM, OVERLAPS)
def test_no_window_is_longer_than_its_bound(text: str, room: int, overlap: float) -> None:
    assert all(estimated_tokens(piece) <= room + 1e-3 for piece in windows(text, room, overlap))


@given(TEXTS, st.integers(0, 3), OVERLAPS)
def test_where_not_one_character_fits_each_stands_alone(text: str, room: int, overlap: float) -> None:
    assert all(len(piece) <= 1 or estimated_tokens(piece) <= room + 1e-3 for piece in windows(text, room, overlap))


@given(TEXTS, ROOM)
def test_what_fits_is_one_window(text: str, room: int) -> None:
    pieces = windows(text, room)
    assert (pieces == [text]) == (estimated_tokens(text) <= room + 1e-6) or len(text) <= 1


@settings(max_examples=20)
@given(st.integers(10_000, 60_000), OVERLAPS)
def test_a_long_text_has_about_as_many_windows_as_its_length_asks_for(words: int, overlap: float) -> None:
    text = "word " * words
    pieces = windows(text, 512, overlap)
    least = estimated_tokens(text) / 512
    assert least <= len(pieces) <= 1.1 * least / (1 - overlap) + 2


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_a_window_begins_by_repeating_the_end_of_the_one_before(share: float) -> None:
    text = " ".join(f"{number:05}" for number in range(2000))
    stood = places(text, windows(text, 300, share))
    for (_, end), (next_start, _) in pairwise(stood):
        repeated = estimated_tokens(text[next_start:end])
        assert share * 300 - estimated_tokens("00000 ") <= repeated <= share * 300


def test_prose_is_cut_between_words() -> None:
    text = "seven letters and spaces between them all " * 50
    assert all(piece.endswith(" ") and not piece.startswith(" ") for piece in windows(text, 40, 0.2))


def test_a_word_that_is_longer_than_a_window_is_cut() -> None:
    assert "".join(windows("x" * 1000, 30, 0.0)) == "x" * 1000


def test_nothing_is_one_window_of_nothing() -> None:
    assert windows("", 10) == [""]


@given(TEXTS | st.text("ab. \n。", max_size=400), ROOM, OVERLAPS)
def test_windows_of_sentences_cover_the_text_and_keep_to_their_bound(text: str, room: int, overlap: float) -> None:
    pieces = windows(text, room, overlap, sentences=True)
    assert text.startswith(pieces[0])
    assert text.endswith(pieces[-1])
    assert all(estimated_tokens(piece) <= room + 1e-3 for piece in pieces)
    if overlap == 0:
        assert "".join(pieces) == text


@given(st.integers(1, 400), ROOM, OVERLAPS)
def test_no_character_between_sentences_is_lost(length: int, room: int, overlap: float) -> None:
    # Every character but the seams occurs once.
    text = "".join("。" if number % 7 == 6 else chr(0x4E00 + number) for number in range(length))
    pieces = windows(text, room, overlap, sentences=True)
    ends = [text.index(piece) + len(piece) for piece in pieces if len(piece) > 1]
    assert all(character in "".join(pieces) for character in text)
    assert ends == sorted(ends)


def test_a_window_ends_with_the_best_seam_in_its_second_half() -> None:
    text = "A first one. A second one.\n\nA new paragraph, long enough. And more of it here, up to the end."
    assert windows(text, 15, 0.0, sentences=True)[0] == "A first one. A second one.\n\n"
    assert windows("今日は良い天気です。明日は雨が降るでしょう。", 20, 0.0, sentences=True)[0] == "今日は良い天気です。"
    assert windows("no sentence at all in these many words", 6, 0.0, sentences=True)[0] == "no sentence at all "
