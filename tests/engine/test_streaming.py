"""Server-sent events out of bytes, however they were cut (fault ST04)."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmkit.engine import streaming
from llmkit.engine.streaming import Events
from llmkit.errors import ServerFault

#: Data of an event: any characters but those that end a line.
LINES = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=30)
DATA = st.lists(LINES, min_size=1, max_size=3)
NAMES = st.sampled_from(["", "message", "content_block_delta", "näme"])
ENDS = st.sampled_from(["\n", "\r\n", "\r"])


@st.composite
def written(draw: st.DrawFn) -> tuple[bytes, list[tuple[str, bytes]]]:
    """A stream as some server might write it, and the events in it."""
    stream, expected = "", []
    for name, lines in draw(st.lists(st.tuples(NAMES, DATA), max_size=5)):
        if draw(st.booleans()):
            stream += ": a heartbeat" + draw(ENDS)
        fields = [f"event:{draw(st.sampled_from(['', ' ']))}{name}"] if name else []
        fields += [f"id: {draw(st.integers(0, 9))}"] if draw(st.booleans()) else []
        # One space after the colon belongs to the line; what begins with one of its own needs it.
        fields += [f"data:{' ' if line.startswith(' ') or draw(st.booleans()) else ''}{line}" for line in lines]
        stream += "".join(field + draw(ENDS) for field in fields)
        end = draw(ENDS)
        # A CR and an LF that meet would be one end of a line.
        stream += "\r\n" if stream.endswith("\r") and end == "\n" else end
        expected.append((name, "\n".join(lines).encode()))
    return stream.encode(), expected


def read(pieces: list[bytes]) -> list[tuple[str, bytes]]:
    events, found = Events(), []
    for piece in pieces:
        found += events.feed(piece)
    return found + events.end()


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in pairwise(edges)]


@given(written(), st.lists(st.integers(0, 10_000), max_size=8))
def test_events_are_the_same_wherever_the_bytes_were_cut(stream: tuple[bytes, list[tuple[str, bytes]]], places: list[int]) -> None:
    data, expected = stream
    assert read(cut(data, places)) == read([data]) == expected


@given(written())
def test_events_are_the_same_byte_by_byte(stream: tuple[bytes, list[tuple[str, bytes]]]) -> None:
    data, expected = stream
    assert read([data[at : at + 1] for at in range(len(data))]) == expected


@given(st.binary(max_size=300), st.lists(st.integers(0, 1000), max_size=6))
def test_any_bytes_at_all_are_read_the_same_however_they_are_cut(data: bytes, places: list[int]) -> None:
    assert read(cut(data, places)) == read([data])


def test_an_event_is_handed_over_with_the_piece_that_ends_it() -> None:
    events = Events()
    assert events.feed(b"data: one\n") == []
    assert events.feed(b"\ndata: two\n\nda") == [("", b"one"), ("", b"two")]
    assert events.feed(b"ta: three\r\n\r\n") == [("", b"three")]


def test_a_name_lasts_for_one_event() -> None:
    assert read([b"event: ping\ndata: 1\n\ndata: 2\n\n"]) == [("ping", b"1"), ("", b"2")]


def test_an_event_without_data_is_none() -> None:
    assert read([b"event: ping\n\n: comment\n\ndata: 1\n\n"]) == [("", b"1")]


def test_the_last_event_may_lack_its_empty_line() -> None:
    assert read([b"data: [DONE]"]) == read([b"data: [DONE]\r"]) == [("", b"[DONE]")]


def test_a_mark_of_the_byte_order_before_the_first_line_is_not_part_of_it() -> None:
    assert read([b"\xef\xbb", b"\xbfdata: 1\n\n"]) == [("", b"1")]


def test_a_character_cut_in_two_is_whole_again() -> None:
    text = "data: grün 🚀\n\n".encode()
    for at in range(len(text)):
        assert read([text[:at], text[at:]]) == [("", "grün 🚀".encode())]


def test_an_event_may_be_larger_than_a_megabyte_and_does_not_take_long() -> None:
    data = b"x" * (8 * 2**20)
    stream = b"data: " + data + b"\n\n"
    began = time.process_time()
    assert read([stream[at : at + 4096] for at in range(0, len(stream), 4096)]) == [("", data)]
    assert time.process_time() - began < 2.0


@pytest.mark.parametrize("line", [b"data: " + b"x" * 1000, b"data: " + b"x" * 90 + b"\n"])
def test_an_event_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch, line: bytes) -> None:
    monkeypatch.setattr(streaming, "MAX_EVENT", 10_000)
    events = Events()
    with pytest.raises(ServerFault, match="an event grew"):
        list(map(events.feed, [line] * 1000))
