"""What the store does with its room: files of an earlier version, large values, the bound, and what goes first."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from hashlib import blake2b
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

import llmkit
from llmkit.engine import segments, store, upkeep
from llmkit.engine.store import VERSION, OutcomeRow, ReplyRow, Store
from tests.loopback import Loopback

HOUR, DAY = 3600.0, 86_400.0
NOON = 1_800_000_000.0


class Now:
    """A wall clock that tests turn."""

    def __init__(self) -> None:
        self.at = NOON

    def __call__(self) -> float:
        return self.at


def key(number: int) -> bytes:
    return blake2b(str(number).encode(), digest_size=16).digest()


def entry(number: int, value: bytes = b'"answer"', created: float = NOON, run: int = 0) -> Any:
    reply = ReplyRow(key(number), value, 3, 1, 2, "stop", "m-2026", created, "lab/m", "chat", 1, 0.25)
    outcome = OutcomeRow(run, number, key(number), "live", None, "lab/m", 1, 0.5, 3, 1, 2, 1, 0.125, 1, 0.25, 2, created)
    return SimpleNamespace(key=key(number), answered=True, reply=lambda: reply, outcome=lambda: outcome)


def large(number: int, length: int = 6000) -> bytes:
    return blake2b(str(number).encode()).digest() * (length // 64)


@contextmanager
def opened(directory: Path, most: float = 0.0, now: Callable[[], float] = time.time) -> Iterator[Store]:
    made = Store(directory, most, now)
    try:
        yield made
    finally:
        assert [] == made.check()
        made.close()


def known(one: Store, numbers: Sequence[int]) -> list[int]:
    found = one.get_many([key(number) for number in numbers])
    return [number for number in numbers if key(number) in found]


def kept(one: Store) -> int:
    return int(one._db.execute("SELECT count(*) FROM replies").fetchone()[0])


# ---------------------------------------------------------------------------------------------------- earlier versions


def of_version_1(path: Path, answers: Sequence[int]) -> None:
    """A file as the version before this one left it."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA page_size=32768")
        db.execute("PRAGMA journal_mode=WAL")
        db.executescript(f"BEGIN; {store._STEPS[1]} PRAGMA user_version=1; COMMIT;")
        with db:
            db.executemany(
                "INSERT INTO replies (key, value, input, cached_input, output, finish, model, created) VALUES (?,?,3,0,1,'stop','m',?)",
                [(key(number), large(number), NOON) for number in answers],
            )
            db.execute("INSERT INTO outcomes VALUES (1, 0, x'00', 'live', NULL, 'lab/m', 1, 0.5, 3, 0, 1)")
            db.execute("INSERT INTO runs (id, operation, model, started, rows) VALUES ('one', 'chat', 'lab/m', 1.0, 2)")


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("PRAGMA user_version").fetchone()[0])


def test_a_file_of_version_1_is_brought_up_in_its_place_and_its_answers_are_found(tmp_path: Path) -> None:
    of_version_1(tmp_path / "shard-000.sqlite", range(50))
    with opened(tmp_path) as one:
        assert list(range(50)) == known(one, range(60))
        found = one.get_many([key(7)])[key(7)]
        assert (large(7), 3, 0, 1, "stop", "m", 0) == found
        one.write([entry(50), entry(51, large(51)), entry(7, large(70))])
        assert large(70) == one.get_many([key(7)])[key(7)].value
        (line,) = one.journal()[0]
        assert ("one", "chat", "lab/m") == line[2:5]
        page = one.outcomes("shard-000.sqlite", (0, -1), 5, 100)
        assert page is not None and 2 <= len(page.seconds)
    assert VERSION == version(tmp_path / "shard-000.sqlite")
    assert [tmp_path / "shard-000.sqlite"] == sorted(tmp_path.glob("*.sqlite"))


def test_files_of_version_1_that_nobody_holds_are_brought_up_beside_ones_own(tmp_path: Path) -> None:
    of_version_1(tmp_path / "shard-000.sqlite", [0])
    of_version_1(tmp_path / "shard-004.sqlite", [4])
    with opened(tmp_path) as one:
        assert [0, 4] == known(one, range(10))
    assert VERSION == version(tmp_path / "shard-004.sqlite")


def test_a_file_of_version_1_that_an_older_llmkit_still_writes_is_left_to_it_and_named(tmp_path: Path) -> None:
    of_version_1(tmp_path / "shard-000.sqlite", [0])
    lock = store._lock(tmp_path / "shard-000.lock")
    assert lock is not None
    with opened(tmp_path) as one:
        assert "shard-001.sqlite" == one.path.name
        assert ["shard-000.sqlite"] == one.journal()[1]
        assert 1 == version(tmp_path / "shard-000.sqlite")
        lock.close()
        one.journal()
        assert [0] == known(one, [0, 1])


def test_an_upgrade_that_is_stopped_half_way_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_version_1(tmp_path / "shard-000.sqlite", [0])
    monkeypatch.setitem(store._STEPS, 2, store._STEPS[2] + "SELECT no_such_function();")
    with pytest.raises(store.StoreLost):
        Store(tmp_path)
    assert 1 == version(tmp_path / "shard-000.sqlite")
    monkeypatch.undo()
    with opened(tmp_path) as one:
        assert [0] == known(one, [0])


# ----------------------------------------------------------------------------------------------------- what is kept


def test_a_line_of_the_journal_holds_what_was_waited_billed_and_lost(tmp_path: Path) -> None:
    with opened(tmp_path) as one:
        one.write([entry(1, run=4)])
        row = one._db.execute("SELECT queued, cache_write, requests, cost, lost, finished FROM outcomes").fetchall()
        assert [(0.125, 1, 1, 0.25, 2, NOON)] == row
        row = one._db.execute("SELECT target, operation, cache_write, cost FROM replies").fetchall()
        assert [("lab/m", "chat", 1, 0.25)] == row


def test_a_run_leaves_when_its_rows_were_ready_sent_and_settled(lab: Loopback) -> None:
    pd.DataFrame({"text": ["a", "b"]}).llm.chat("Say {text}", model="lab/m", show_progress=False)
    kept = llmkit.session.default().engine.writer.store
    rows = kept._db.execute("SELECT queued, seconds, requests, lost, finished FROM outcomes").fetchall()
    assert 2 == len(rows)
    for queued, seconds, requests, lost, finished in rows:
        assert 0 <= queued < 5 and 0 < seconds < 5
        assert (1, 0) == (requests, lost)
        assert abs(time.time() - finished) < 60
    assert [("chat", "lab/m", 2)] == kept._db.execute("SELECT operation, target, count(*) FROM replies GROUP BY 1, 2").fetchall()


def test_samples_of_a_run_are_kept_in_the_order_of_time(tmp_path: Path) -> None:
    samples = [(at, "lab/m", 8.0, 3, 2, 10 * at, 1) for at in (2.0, 0.0, 1.0)]
    with opened(tmp_path) as one:
        number = one.begin_run("one", "chat", "lab/m", 5)
        one.write_history(number, samples)
        one.write_history(number, samples[:1])
        assert sorted(samples) == one.history("shard-000.sqlite", number)
        assert [] == one.history("shard-000.sqlite", number + 1) == one.history("shard-009.sqlite", number)


def test_a_hundred_thousand_keys_are_looked_up_in_one_statement(tmp_path: Path) -> None:
    with opened(tmp_path) as one:
        for start in range(0, 50_000, 5000):
            one.write([entry(number) for number in range(start, start + 5000)])
        asked: list[str] = []
        one._db.set_trace_callback(asked.append)
        wanted = [key(number) for number in range(100_000)]
        began = time.perf_counter()
        found = one.get_many(wanted)
        seconds = time.perf_counter() - began
        one._db.set_trace_callback(None)
    assert 50_000 == len(found)
    assert set(found) == {key(number) for number in range(50_000)}
    assert 1 == len([sql for sql in asked if "FROM replies" in sql or "JOIN replies" in sql])
    print(f"\n100,000 keys, half of them known: {seconds:.2f} s")


# ---------------------------------------------------------------------------------------------------- large values


def test_large_values_lie_in_a_file_beside_the_shard_and_small_ones_in_it(tmp_path: Path) -> None:
    with opened(tmp_path) as one:
        one.write([entry(1), entry(2, large(2)), entry(3, b"x" * (segments.LARGE - 1)), entry(4, b"x" * segments.LARGE)])
        rows = one._db.execute("SELECT length(value), segment, length FROM replies ORDER BY id").fetchall()
        assert [(8, None, None), (0, 1, 5952), (2047, None, None), (0, 1, 2048)] == rows
        assert 5952 + 2048 == one._segments.size(1)
        assert large(2) == one.get_many([key(2)])[key(2)].value


def test_another_process_reads_large_values_too(tmp_path: Path) -> None:
    with opened(tmp_path) as one, opened(tmp_path) as two:
        one.write([entry(number, large(number)) for number in range(20)])
        found = two.get_many([key(number) for number in range(20)])
        assert [large(number) for number in range(20)] == [found[key(number)].value for number in range(20)]


def test_values_in_a_file_that_was_cut_short_are_asked_again_and_never_wrong(tmp_path: Path) -> None:
    made = Store(tmp_path)
    made.write([entry(number, large(number)) for number in range(10)])
    made.close()
    os.truncate(tmp_path / "vectors-000-0001.bin", 5 * 5952 + 100)
    one = Store(tmp_path)
    assert list(range(5)) == known(one, range(10))
    assert ["shard-000.sqlite: 5 of 10 values cannot be read from their segments"] == one.check()
    one.write([entry(number, large(number)) for number in range(5, 10)])
    found = one.get_many([key(number) for number in range(10)])
    assert [large(number) for number in range(10)] == [found[key(number)].value for number in range(10)]
    assert [] == one.check()
    one.close()


def test_while_another_process_holds_the_file_no_value_is_appended_in_vain(tmp_path: Path) -> None:
    with opened(tmp_path) as one:
        one.write([entry(0, large(0))])
        with closing(sqlite3.connect(one.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for _ in range(2):
                with pytest.raises(store.StoreBusy):
                    one.write([entry(1, large(1))])
            other.execute("ROLLBACK")
        one.write([entry(1, large(1))])
        assert 2 * 5952 == one._segments.size(1)


def test_a_file_of_vectors_that_is_taken_away_in_mid_run_costs_no_row(lab: Loopback, cache_dir: Path) -> None:
    texts = [f"row {number} " + "long " * 600 for number in range(6)]
    frame = pd.DataFrame({"text": texts})

    def ask(some: pd.DataFrame) -> list[Any]:
        return some.llm.chat("Say {text}", model="lab/m", show_progress=False).tolist()

    wanted = [f"answer to: Say {text}" for text in texts]
    assert wanted[:3] == ask(frame.head(3))
    (file,) = cache_dir.glob("vectors-*.bin")
    file.unlink()
    assert wanted == ask(frame)
    assert 9 == lab.requests
    assert wanted == ask(frame)
    assert 9 == lab.requests


# -------------------------------------------------------------------------------------------------------- the bound


def test_beyond_the_bound_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    now = Now()
    with opened(tmp_path, 1e6, now) as one:
        for day in range(5):
            now.at = NOON + day * 10 * DAY
            one.write([entry(50 * day + number, large(number), now.at) for number in range(50)])
        now.at += 10 * DAY
        assert list(range(10)) == known(one, range(10))  # used just now, though written first
        one.trim()
        assert one.size <= 1e6
        left = known(one, range(250))
        assert list(range(10)) == left[:10]
        assert list(range(200, 250)) == left[-50:]
        assert not set(left) & set(range(10, 60))
        assert list(range(left[10], 250)) == left[10:]


def test_without_a_bound_nothing_goes(tmp_path: Path) -> None:
    with opened(tmp_path, 0.0) as one:
        one.write([entry(number, large(number), NOON) for number in range(50)])
        assert 0 == one.trim()


def test_the_room_of_what_went_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "FULL", 100_000)
    now = Now()
    with opened(tmp_path, 1e6, now) as one:
        for day in range(20):
            now.at = NOON + day * 10 * DAY
            one.write([entry(100 * day + number, large(number) if number % 2 else b"x" * 1000, now.at) for number in range(40)])
        now.at += 10 * DAY
        before = sum(path.stat().st_size for path in tmp_path.glob("*"))
        one.trim()
        one._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        after = sum(path.stat().st_size for path in tmp_path.glob("*"))
        assert before > 2.5e6
        assert after < 1.1e6


def test_a_segment_that_is_mostly_dead_is_written_anew_and_readers_follow(tmp_path: Path) -> None:
    with opened(tmp_path) as one, opened(tmp_path) as two:
        one.write([entry(number, large(number)) for number in range(40)])
        one._db.execute("DELETE FROM replies WHERE id > 5")
        one._shrink(one.path, one._db)
        assert [2] == one._segments.numbers()
        assert 5 * 5952 == one._segments.size(2)
        found = two.get_many([key(number) for number in range(40)])
        assert {key(number): large(number) for number in range(5)} == {one: stored.value for one, stored in found.items()}


def test_what_a_run_that_is_going_found_or_wrote_does_not_go(tmp_path: Path) -> None:
    now = Now()
    with opened(tmp_path, 300_000, now) as one:
        one.write([entry(number, large(number), NOON) for number in range(20)])
        now.at = NOON + 10 * DAY
        number = one.begin_run("one", "chat", "lab/m", 100)
        assert list(range(5)) == known(one, range(5))
        now.at += 10 * DAY
        one.write([entry(number, large(number), now.at) for number in range(100, 160)])
        one.trim()
        left = known(one, range(200))
        assert [*range(5), *range(100, 160)] == left  # twice the bound, but all of it the run's
        with pytest.warns(RuntimeWarning, match=r"held to 0.0003 GB, so answers of the last day are removed"):
            one.end_run(number, done=60)
        assert one.size <= 300_000


def test_finding_an_answer_is_written_down_once_a_day(tmp_path: Path) -> None:
    now = Now()
    with opened(tmp_path, now=now) as one:
        one.write([entry(number, created=NOON) for number in range(10)])
        changes = one._db.total_changes
        now.at += 23 * HOUR
        assert 10 == len(known(one, range(10)))
        assert changes == one._db.total_changes
        now.at += 3 * HOUR
        for _ in range(3):
            assert 10 == len(known(one, range(10)))
        assert changes + 10 == one._db.total_changes


def test_an_answer_that_another_process_uses_is_not_the_first_to_go(tmp_path: Path) -> None:
    now = Now()
    with opened(tmp_path, 300_000, now) as one, opened(tmp_path, 300_000, now) as two:
        one.write([entry(number, large(number), NOON) for number in range(80)])
        now.at += 20 * DAY
        for _ in range(2):
            assert list(range(10)) == known(two, range(10))
        assert 10 == two._db.execute("SELECT count(*) FROM touched").fetchone()[0]
        one.trim()
        assert set(range(10)) <= set(known(one, range(80)))
        assert one.size <= 300_000


def test_files_of_processes_that_have_ended_are_within_the_bound_too(tmp_path: Path) -> None:
    now = Now()
    one, two = Store(tmp_path, 300_000, now), Store(tmp_path, 300_000, now)
    two.write([entry(number, large(number), NOON) for number in range(100)])
    two.close()
    now.at += 10 * DAY
    one.write([entry(number, large(number), now.at) for number in range(100, 120)])
    now.at += 10 * DAY
    one.begin_run("one", "chat", "lab/m", 1)
    assert one.size <= 300_000
    assert list(range(100, 120)) == [number for number in known(one, range(120)) if number >= 100]
    assert [] == one.check()
    one.close()


def test_a_file_that_a_living_process_writes_is_left_to_it(tmp_path: Path) -> None:
    now = Now()
    with opened(tmp_path, 300_000, now) as one, opened(tmp_path, 300_000, now) as two:
        two.write([entry(number, large(number), NOON) for number in range(100)])
        now.at += 10 * DAY
        one.journal()  # sees the other
        assert 0 == one.trim()
        assert 100 == kept(two)
        assert 0 < two.trim() < 100


def test_the_bound_is_looked_at_while_a_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_CHECKED_EACH", 50)
    now = Now()
    with opened(tmp_path, 300_000, now) as one:
        one.write([entry(number, large(number), NOON) for number in range(40)])
        now.at += 10 * DAY
        one.begin_run("one", "chat", "lab/m", 100)
        one.write([entry(number, large(number), now.at) for number in range(100, 155)])
        assert [] == known(one, range(40))


def test_the_border_is_drawn_within_the_hour_that_is_too_much() -> None:
    assert (7, 50) == upkeep.cut([{5: 100, 7: 100}, {6: 50, 7: 100}], 200)
    assert None is upkeep.cut([{5: 100}], 0)
    assert (5, 1000) == upkeep.cut([{5: 100, 9: 2000}], 1000, limit=9)
    assert None is upkeep.cut([{9: 2000}], 1000, limit=9)


def test_a_bound_that_is_no_size_is_refused(lab: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ("ten", "-1", "inf", "nan"):
        monkeypatch.setenv("LLMKIT_CACHE_MAX_GB", wrong)
        with pytest.raises(llmkit.ConfigError, match="is no size; it is a number of gigabytes"):
            _ = llmkit.session.default().settings.cache_bytes
    monkeypatch.setenv("LLMKIT_CACHE_MAX_GB", "0.5")
    assert 5e8 == llmkit.session.default().settings.cache_bytes
