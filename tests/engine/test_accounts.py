"""What is known of an account beyond one process: facts for the next run, and one limit for several processes."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import orjson
import pytest

import llmkit
from llmkit.engine.accounts import Ledger, Memory
from llmkit.session import Session
from tests.loopback import Loopback

KEY = "sk-canary-0123456789"


def target_of(server: Loopback, key: str = KEY, name: str = "lab") -> llmkit.adapter.Target:  # type: ignore[name-defined]
    llmkit.add_provider(name, server.url, key)
    return llmkit.session.default().target(f"{name}/test-chat", "chat")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "answers"
    made.mkdir(mode=0o700)
    return made


# --------------------------------------------------------------------------------------------------------------- fingerprints


def test_a_fingerprint_is_the_same_for_the_same_account_and_another_for_any_other(server: Loopback, folder: Path) -> None:
    mark = Memory(folder).mark(target_of(server))
    assert mark is not None
    assert Memory(folder).mark(target_of(server)) == mark
    assert Memory(folder).mark(target_of(server, "sk-another-0123456789")) != mark


def test_a_fingerprint_says_nothing_of_the_key_and_is_another_on_another_machine(server: Loopback, folder: Path, tmp_path: Path) -> None:
    target = target_of(server)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    memory = Memory(folder)
    mark = memory.mark(target)
    assert mark is not None
    memory.keep(mark, {"window": 64.0})
    assert Memory(elsewhere).mark(target) != mark
    assert KEY.encode() not in b"".join(path.read_bytes() for path in folder.iterdir())
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_where_nothing_can_be_written_nothing_is_kept_and_nothing_fails(server: Loopback, tmp_path: Path) -> None:
    memory = Memory(tmp_path / "not" / "there")
    assert memory.mark(target_of(server)) is None
    memory.keep("mark", {"window": 64.0})
    assert memory.recall("mark") is None
    with pytest.raises(OSError, match="nothing can be shared"):
        memory.ledger(target_of(server)).take("requests", 1.0, 10.0, 10.0)


# ---------------------------------------------------------------------------------------------------------------------- facts


def test_facts_come_back_with_their_age_and_are_forgotten_after_a_week(folder: Path) -> None:
    memory = Memory(folder)
    memory.keep("mark", {"window": 64.0})
    facts = memory.recall("mark")
    assert facts is not None
    assert facts["window"] == 64.0
    assert 0 <= facts["age"] < 60
    path = folder / "account-mark.json"
    path.write_bytes(orjson.dumps({"window": 64.0, "at": time.time() - 8 * 86400}))
    assert memory.recall("mark") is None


@pytest.mark.parametrize("damage", [b"", b"[]", b"{}", b'{"at": "noon"}', b"\xff"])
def test_damaged_facts_are_no_facts(folder: Path, damage: bytes) -> None:
    (folder / "account-mark.json").write_bytes(damage)
    assert Memory(folder).recall("mark") is None


def test_a_new_session_begins_where_the_last_one_left_off(server: Loopback, folder: Path) -> None:
    import pandas as pd

    server.rate_limit(per_second=50, tokens_per_minute=1_000_000, headers=True, window="minute_bucket")
    df = pd.DataFrame({"text": [f"row {number}." for number in range(100)]})
    llmkit.add_provider("lab", server.url, KEY)
    options = {"model": "lab/test-chat", "show_progress": False}
    first, second = Session(cache_dir=folder), Session(cache_dir=folder)
    first.set_key("lab", KEY)
    second.set_key("lab", KEY)
    assert df.llm.using(first).chat("Say {text}", **options).notna().all()
    assert df.llm.using(second).chat("Repeat {text}", limit=1, **options).notna().sum() == 1
    (learned,) = second.engine._accounts.values()
    assert learned.limiter.window == 64.0, "not the eight that a stranger begins with"
    assert learned.limiter.requests_per_minute == 3000
    assert learned.replies > 20


# --------------------------------------------------------------------------------------------------------------------- ledger


class Wall:
    def __init__(self) -> None:
        self.seconds = 1_800_000_000.0

    def __call__(self) -> float:
        return self.seconds


def test_two_processes_take_from_one_limit(folder: Path) -> None:
    wall = Wall()
    one, other = (Ledger(lambda: folder / "account-mark.ledger", wall) for _ in range(2))
    taken = 0.0
    for _ in range(600):
        wall.seconds += 0.1
        for ledger in (one, other):
            taken += ledger.take("requests", 1.0, per_second=20.0, capacity=20.0)[0]
    assert taken <= 60 * 20 + 20
    assert taken >= 60 * 20 * 0.97


def test_requests_and_tokens_are_counted_apart(folder: Path) -> None:
    ledger = Ledger(lambda: folder / "account-mark.ledger", Wall())
    assert ledger.take("requests", 10.0, 1.0, 10.0) == (10.0, 0.0)
    assert ledger.take("requests", 1.0, 1.0, 10.0) == (0.0, pytest.approx(1.0))
    assert ledger.take("tokens", 500.0, 100.0, 1000.0) == (500.0, 0.0)


def test_what_is_larger_than_the_limit_goes_once_it_is_full_and_is_paid_back(folder: Path) -> None:
    wall = Wall()
    ledger = Ledger(lambda: folder / "account-mark.ledger", wall)
    assert ledger.take("tokens", 300.0, 10.0, 100.0) == (300.0, 0.0)
    assert ledger.take("tokens", 100.0, 10.0, 100.0) == (0.0, pytest.approx(30.0))


def test_a_clock_that_jumps_gives_a_minutes_worth_at_the_most(folder: Path) -> None:
    wall = Wall()
    ledger = Ledger(lambda: folder / "account-mark.ledger", wall)
    ledger.take("requests", 5.0, 1.0, 1000.0)
    ledger.take("requests", 995.0, 1.0, 1000.0)
    wall.seconds += 365 * 86400
    assert ledger.take("requests", 61.0, 1.0, 1000.0)[0] == 0.0
    wall.seconds -= 400 * 86400
    assert ledger.take("requests", 61.0, 1.0, 1000.0)[0] == 0.0


def test_a_file_that_another_process_holds_for_long_ends_the_sharing_and_not_the_run(folder: Path) -> None:
    fcntl = pytest.importorskip("fcntl", reason="other locks on this platform")
    path = folder / "account-mark.ledger"
    held = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(held, fcntl.LOCK_EX)
    ledger = Ledger(lambda: path, Wall())

    def ask_on() -> None:
        for _ in range(1000):
            ledger.take("requests", 1.0, 10.0, 10.0)

    try:
        assert ledger.take("requests", 1.0, 10.0, 10.0) == (0.0, Ledger._AGAIN)
        with pytest.raises(OSError, match="held"):
            ask_on()
    finally:
        os.close(held)
        ledger.close()
