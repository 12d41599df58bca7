"""Two stores of one directory: what one asks for the other waits for, for as long as its owner lives, asks and answers for it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmkit.engine.claims import Claims, release, try_lock
from llmkit.engine.store import OutcomeRow, ReplyRow, Store
from tests.loopback import Loopback
from tests.process.child import Child


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def keys(*numbers: int) -> dict[bytes, tuple[bytes]]:
    return {key(number): (key(number),) for number in numbers}


def answer(number: int) -> Any:
    reply = ReplyRow(key(number), b'"answer"', 1, 0, 1, "stop", "m", 0.0)
    outcome = OutcomeRow(1, number, key(number), "live", None, "lab/m", 1, 0.0, 1, 0, 1)
    return SimpleNamespace(key=key(number), answered=True, reply=lambda: reply, outcome=lambda: outcome)


@pytest.fixture
def one(cache_dir: Path) -> Iterator[Store]:
    with opened(cache_dir) as store:
        yield store


@pytest.fixture
def two(one: Store, cache_dir: Path) -> Iterator[Store]:
    with opened(cache_dir) as store:
        yield store


@contextmanager
def opened(directory: Path) -> Iterator[Store]:
    store = Store(directory)
    try:
        yield store
    finally:
        store.close()


def test_what_one_asks_for_the_other_waits_for_and_asks_for_the_rest(one: Store, two: Store) -> None:
    assert ({}, set()) == one.claim(keys(1, 2, 3))
    assert ({}, {key(2), key(3)}) == two.claim(keys(2, 3, 4))
    assert ({}, {key(4)}) == one.claim(keys(1, 4))


def test_what_one_waits_for_is_not_claimed_so_two_never_wait_for_each_other(one: Store, two: Store) -> None:
    one.claim(keys(1))
    two.claim(keys(1, 2))
    one.claims.keep(())
    assert ({}, set()) == one.claim(keys(1))
    assert ({}, {key(2)}) == one.claim(keys(2))
    assert ({}, {key(1)}) == two.claim(keys(1))


def test_an_answer_is_found_whether_or_not_its_claim_is_gone(one: Store, two: Store) -> None:
    one.claim(keys(1, 2))
    one.write([answer(1)])
    found, elsewhere = two.claim(keys(1, 2))
    assert ([key(1)], {key(2)}) == (list(found), elsewhere)
    one.write([answer(2)])
    one.claims.keep(())
    found, elsewhere = two.claim(keys(1, 2))
    assert ({key(1), key(2)}, set()) == (set(found), elsewhere)


def test_a_claim_whose_row_has_failed_is_taken_over(one: Store, two: Store) -> None:
    one.claim(keys(1, 2))
    assert 1 == one.claims.keep({key(2), key(3)})  # 3 was never claimed
    assert ({}, {key(2)}) == two.claim(keys(1, 2, 3))
    assert ({}, {key(1), key(3)}) == one.claim(keys(1, 2, 3))


def test_an_answer_under_any_key_of_the_route_is_one_and_only_the_first_key_is_claimed(one: Store, two: Store) -> None:
    one.write([answer(12)])
    found, elsewhere = one.claim({key(1): [key(1), key(11)], key(2): [key(2), key(12)]})
    assert ([key(12)], set()) == (list(found), elsewhere)
    assert {key(1)} == two.claim(keys(1, 2, 11))[1]


def test_to_claim_without_looking_waits_for_nobody_and_is_seen_by_others(one: Store, two: Store) -> None:
    one.claim(keys(1))
    one.write([answer(2)])
    assert ({}, set()) == two.claim(keys(1, 2, 3), look=False)
    assert {key(3)} == one.claim(keys(3))[1]


def test_a_store_that_opens_later_sees_what_is_claimed_and_what_was_kept_after_it_opened(one: Store, cache_dir: Path) -> None:
    one.claim(keys(1))
    with opened(cache_dir) as late:
        assert {key(1)} == late.claim(keys(1))[1]
        late.claim(keys(2))
        late.write([answer(2)])
    assert [key(2)] == list(one.claim(keys(2))[0])  # from a file that was made after ours, by a process that is gone


def test_a_store_that_is_closed_claims_nothing(one: Store, cache_dir: Path) -> None:
    with opened(cache_dir) as other:
        other.claim(keys(1))
    assert ({}, set()) == one.claim(keys(1))


def test_more_claims_than_one_read_takes_are_all_seen(one: Store, two: Store) -> None:
    many = range(10_000)
    one.claim(keys(*many))
    assert {key(number) for number in many} == two.claim(keys(*many, 10_001))[1]


CLAIMER = """
from pathlib import Path
from llmkit.engine.store import Store
store = Store(Path(os.environ["LLMKIT_CACHE_DIR"]))
say(len(store.claim({n.to_bytes(16, "big"): (n.to_bytes(16, "big"),) for n in hear()})[1]))
if hear() == "in the gate":
    with store.claims.gate() as entered:
        say(entered)
        hear()
"""


def test_the_claims_of_a_process_that_was_killed_are_void(server: Loopback, one: Store, cache_dir: Path, tmp_path: Path) -> None:
    with Child(CLAIMER, server.url, tmp_path, LLMKIT_CACHE_DIR=str(cache_dir)) as child:
        child.tell([1, 2])
        assert 0 == child.hear()
        assert {key(1), key(2)} == one.claim(keys(1, 2))[1]
        child.kill()
        assert ({}, set()) == one.claim(keys(1, 2))
        with opened(cache_dir) as heir:  # of the killed one's shard
            assert "shard-001.sqlite" == heir.path.name
            assert {key(1), key(2)} == heir.claim(keys(1, 2))[1]


def test_a_process_that_is_killed_in_the_middle_of_a_look_up_holds_nobody_up(
    server: Loopback, one: Store, cache_dir: Path, tmp_path: Path
) -> None:
    with Child(CLAIMER, server.url, tmp_path, LLMKIT_CACHE_DIR=str(cache_dir)) as child:
        child.tell([1])
        child.hear()
        child.tell("in the gate")
        assert child.hear() is True
        one.claims._patience = 0.0
        assert ({}, set()) == one.claim(keys(1))  # cannot be told now: one goes on without claims
        child.kill()
    one.claim(keys(2))
    with opened(cache_dir) as other:
        assert {key(2)} == other.claim(keys(1, 2))[1]  # 1 was asked for without a claim


def test_claims_of_a_process_that_stands_still_count_no_more_until_it_stirs(cache_dir: Path) -> None:
    now = 1000.0
    paths = [cache_dir / f"shard-{number:03d}.lock" for number in range(2)]
    cache_dir.mkdir()
    with paths[0].open("w+b", buffering=0) as first, paths[1].open("w+b", buffering=0) as second:
        assert try_lock(first)
        assert try_lock(second)
        still, other = (Claims(path, lock, lambda: now) for path, lock in zip(paths, (first, second), strict=True))
        still.add([key(1)])
        assert {key(1)} == other.elsewhere({key(1)})[0]
        now += Claims.HANGS
        assert set() == other.elsewhere({key(1)})[0]
        assert 1 == still.keep({key(1)})
        assert {key(1)} == other.elsewhere({key(1)})[0]
        release(first)  # and where nobody holds the file, nobody asks
        assert set() == other.elsewhere({key(1)})[0]
        other.forget()
        still.forget()


def test_where_the_common_lock_cannot_be_had_one_looks_up_and_claims_nothing(one: Store, two: Store, cache_dir: Path) -> None:
    (cache_dir / "shard-claims.lock").unlink(missing_ok=True)
    (cache_dir / "shard-claims.lock").mkdir()
    one.write([answer(1)])
    assert [key(1)] == list(one.claim(keys(1, 2))[0])
    assert 0 == one.claims.keep({key(2)})
    assert ({}, set()) == two.claim(keys(2))


def test_claims_move_with_the_shard_when_its_file_turns_out_to_be_damaged(cache_dir: Path) -> None:
    with opened(cache_dir) as store:
        store.write([answer(number) for number in range(1000, 2000)])
    with (cache_dir / "shard-000.sqlite").open("r+b") as file:  # the first page stays whole, so that nobody notices before it is used
        size = file.seek(0, os.SEEK_END)
        file.seek(32768)
        file.write(os.urandom(size - 32768))
    with opened(cache_dir) as one, opened(cache_dir) as two:
        one.claim(keys(1, 2))
        with pytest.warns(UserWarning, match="damaged"):
            one.write([answer(1)])
        assert "shard-002.sqlite" == one.path.name
        assert {key(2)} == two.claim(keys(1, 2))[1]
        one.claims.keep(())
        assert ({}, set()) == two.claim(keys(2))


def test_the_files_are_their_owners_alone_and_hold_no_more_than_hashes(one: Store, cache_dir: Path) -> None:
    one.claim(keys(*range(5)))
    for name in ("shard-000.lock", "shard-claims.lock"):
        assert 0o600 == stat.S_IMODE((cache_dir / name).stat().st_mode)
    assert (16 + 16 + 5 * 16, 0) == ((cache_dir / "shard-000.lock").stat().st_size, (cache_dir / "shard-claims.lock").stat().st_size)
