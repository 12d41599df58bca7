"""A large value is found whole and under its own key, or it is not there."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmkit.engine import segments
from llmkit.engine.segments import Segments


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Segments]:
    made = Segments(tmp_path / "shard-003.sqlite")
    yield made
    made.close()


def values(*lengths: int) -> list[tuple[bytes, bytes]]:
    return [(bytes([number]) * 16, os.urandom(length)) for number, length in enumerate(lengths)]


def test_values_of_any_length_come_back_under_their_keys(files: Segments) -> None:
    given = values(1, 2048, 5120, 5121, 20_480, 20_481, 5_000_000, 0)
    places = files.append(given)
    assert dict(given) == dict(files.read((key, place) for (key, _), place in zip(given, places, strict=True)))
    assert [(files.path(1).name, 0o600)] == [(path.name, stat.S_IMODE(path.stat().st_mode)) for path in files.path(1).parent.iterdir()]
    assert "vectors-003-0001.bin" == files.path(1).name


def test_a_value_is_not_found_under_another_key(files: Segments) -> None:
    (place,) = files.append([(b"a" * 16, b"value" * 1000)])
    assert [] == list(files.read([(b"b" * 16, place)]))


@pytest.mark.parametrize("cut", [1, 3000, 4000])
def test_a_torn_tail_costs_the_values_in_it_and_no_other(files: Segments, cut: int) -> None:
    given = values(3000, 3000)
    places = files.append(given)
    os.truncate(files.path(1), 6000 - cut)
    found = dict(files.read((key, place) for (key, _), place in zip(given, places, strict=True)))
    assert found == dict(given[: 1 if cut <= 3000 else 0])


def test_one_changed_byte_costs_its_value(files: Segments) -> None:
    given = values(8000, 8000)
    places = files.append(given)
    with files.path(1).open("r+b") as file:
        file.seek(7000)
        file.write(bytes([given[0][1][7000] ^ 1]))
    assert dict(given[1:]) == dict(files.read((key, place) for (key, _), place in zip(given, places, strict=True)))


def test_a_file_that_was_taken_away_is_no_error_and_the_next_value_begins_a_new_one(files: Segments) -> None:
    (lost,) = files.append([(b"a" * 16, b"value" * 1000)])
    files.path(1).unlink()
    assert [] == list(files.read([(b"a" * 16, lost)]))
    (place,) = files.append([(b"b" * 16, b"other" * 1000)])
    assert [(b"b" * 16, b"other" * 1000)] == list(files.read([(b"a" * 16, lost), (b"b" * 16, place)]))


def test_a_segment_that_is_full_is_followed_by_another(files: Segments, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "FULL", 10_000)
    given = values(*[4000] * 7)
    places = [place for one in given for place in files.append([one])]
    assert [1, 1, 1, 2, 2, 2, 3] == [place.segment for place in places]
    assert [1, 2, 3] == files.numbers()
    assert dict(given) == dict(files.read((key, place) for (key, _), place in zip(given, places, strict=True)))
    again = Segments(files.path(1).with_name("shard-003.sqlite"))
    assert (3, 4000) == again.append([given[0]])[0][:2]
    again.close()


def test_what_could_not_be_written_whole_leaves_nothing_behind(files: Segments) -> None:
    resource = pytest.importorskip("resource", reason="no such limits on this platform")
    files.append(values(3000))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            files.append(values(3000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert 3000 == files.size(1)
    assert 3000 == files.append(values(3000))[0].start
