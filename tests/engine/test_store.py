"""What was paid for is kept: by which process in which file, and what happens when the disk does not want it."""

from __future__ import annotations

import errno
import os
import pickle
import sqlite3
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

import llmkit
from llmkit import event_loop, session
from llmkit.engine.store import VERSION, OutcomeRow, ReplyRow, Store
from llmkit.engine.writer import Writer
from tests.loopback import Json, Loopback, refusal, server_error
from tests.process.child import Child

as_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away and mounts disks")


def namespaces() -> bool:
    try:
        return subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True).returncode == 0
    except OSError:
        return False


needs_mounts = pytest.mark.skipif(not namespaces(), reason="this system lets nobody mount a disk in a namespace of his own")

#: Files that a test spoilt on purpose.
SPOILT: set[Path] = set()


@pytest.fixture(autouse=True)
def _sound_in_the_end(cache_dir: Path) -> Iterator[None]:
    """SQLite finds nothing wrong with any file, whatever the test did to it."""
    SPOILT.clear()
    yield
    if session.default.made is not None:
        session.default().close()
    for path in shards(cache_dir) if cache_dir.is_dir() else ():
        if path not in SPOILT:
            assert [("ok",)] == query(path, "PRAGMA quick_check"), path


def shards(directory: Path) -> list[Path]:
    return sorted(directory.glob("shard-*.sqlite"))


def query(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(sql).fetchall()


def kept(path: Path) -> int:
    (count,) = query(path, "SELECT count(*) FROM replies")[0]
    return int(count)


def rows(*numbers: int) -> list[str]:
    return [f"row {number}" for number in numbers]


def ask(texts: list[str], own: llmkit.Session | None = None, **options: Any) -> list[Any]:
    frame = pd.DataFrame({"text": texts}).llm
    return list((frame.using(own) if own else frame).chat("Say {text}", model="lab/m", show_progress=False, **options))


def answers(texts: list[str]) -> list[str]:
    return [f"answer to: Say {text}" for text in texts]


def eventually(condition: Callable[[], bool], timeout: float = 10.0) -> None:
    """For what no one announces (a file that another thread writes): look until it is so."""
    pause, end = threading.Event(), time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end
        pause.wait(0.02)


#: Asks for the rows it is told, until its input ends.
ASKER = """
while (numbers := hear()) is not None:
    df = pd.DataFrame({"text": [f"row {i}" for i in numbers]})
    say(df.llm.chat("Say {text}", model="lab/m", show_progress=False).tolist())
"""


# -------------------------------------------------------------------------------------------- one writer for each file


def test_two_sessions_of_one_process_write_to_different_files_and_read_each_others(lab: Loopback, cache_dir: Path) -> None:
    one, two = llmkit.Session(cache_dir=cache_dir), llmkit.Session(cache_dir=cache_dir)
    for own in (one, two):
        own.add_provider("lab", lab.url, None, "openai", {})
    assert answers(rows(1, 2)) == ask(rows(1, 2), one)
    assert answers(rows(2, 3)) == ask(rows(2, 3), two)
    assert 3 == lab.requests
    one.close()
    two.close()
    assert [2, 1] == [kept(path) for path in shards(cache_dir)]


def test_a_second_process_writes_to_another_file_and_what_it_keeps_is_read_here(lab: Loopback, cache_dir: Path, tmp_path: Path) -> None:
    assert answers(rows(1)) == ask(rows(1))
    with Child(ASKER, lab.url, tmp_path, LLMKIT_CACHE_DIR=str(cache_dir)) as child:
        child.tell([1, 2])
        assert answers(rows(1, 2)) == child.hear()
        assert 2 == lab.requests  # row 1 was read from our file
        assert answers(rows(2)) == ask(rows(2))  # the child still runs
        assert 2 == lab.requests
        assert 2 == len(shards(cache_dir))
        child.tell(None)
        child.end()
    assert [1, 1] == [kept(path) for path in shards(cache_dir)]


def test_the_file_of_a_process_that_was_killed_is_taken_over_with_all_it_holds(server: Loopback, cache_dir: Path, tmp_path: Path) -> None:
    for numbers in ([1, 2], [3, 4], [5, 6]):
        with Child(ASKER, server.url, tmp_path, LLMKIT_CACHE_DIR=str(cache_dir)) as child:
            child.tell(numbers)
            child.hear()
            child.kill()
    assert [cache_dir / "shard-000.sqlite"] == shards(cache_dir)
    llmkit.add_provider("lab", server.url)
    assert answers(rows(1, 2, 3, 4, 5, 6)) == ask(rows(1, 2, 3, 4, 5, 6))
    assert 6 == server.requests


def test_files_that_killed_processes_left_with_an_open_log_are_read_beside_ones_own(
    server: Loopback, cache_dir: Path, tmp_path: Path
) -> None:
    with (
        Child(ASKER, server.url, tmp_path, LLMKIT_CACHE_DIR=str(cache_dir)) as one,
        Child(ASKER, server.url, tmp_path, LLMKIT_CACHE_DIR=str(cache_dir)) as two,
    ):
        for number, child in enumerate((one, two)):
            child.tell([number])
            child.hear()
        one.kill()
        two.kill()
    assert 2 == len(list(cache_dir.glob("*.sqlite-wal")))
    llmkit.add_provider("lab", server.url)
    assert answers(rows(0, 1, 2)) == ask(rows(0, 1, 2))
    assert 3 == server.requests
    assert 2 == len(shards(cache_dir))


def test_where_files_cannot_be_locked_there_is_one_warning_and_no_heap_of_files(
    lab: Loopback, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl", reason="other locks on this platform")

    def without_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", without_locks)
    with pytest.warns(RuntimeWarning, match="cannot keep answers on disk .No locks available") as warned:
        assert answers(rows(1)) == ask(rows(1))
    assert 1 == len(warned)
    assert 1 == len(list(cache_dir.iterdir()))


# ------------------------------------------------------------------------------------------------------------- secrecy


def test_folders_and_files_are_their_owners_alone_whatever_the_umask(server: Loopback, tmp_path: Path) -> None:
    deep = tmp_path / "made" / "on" / "the way"
    with Child("os.umask(0)\n" + ASKER, server.url, tmp_path, LLMKIT_CACHE_DIR=str(deep)) as child:
        child.tell([1])
        child.hear()
        modes = {path: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.joinpath("made").rglob("*")}
        child.tell(None)
        child.end()
    modes[deep.parents[1]] = stat.S_IMODE(deep.parents[1].stat().st_mode)
    assert {deep, deep.parent, deep.parents[1]} == {path for path, mode in modes.items() if mode == 0o700}
    files = {path.name for path, mode in modes.items() if mode == 0o600}
    assert {"shard-000.sqlite", "shard-000.sqlite-wal", "shard-000.sqlite-shm", "shard-000.lock", "shard-claims.lock", "accounts.salt"} == {
        name for name in files if not name.endswith(".json")
    }
    assert 10 == len(modes)


def test_a_folder_that_was_left_open_is_closed(lab: Loopback, cache_dir: Path) -> None:
    cache_dir.mkdir()
    cache_dir.chmod(0o777)
    ask(rows(1))
    assert 0o700 == stat.S_IMODE(cache_dir.stat().st_mode)


def test_a_folder_that_serves_other_ends_too_keeps_its_mode(lab: Loopback, cache_dir: Path) -> None:
    cache_dir.mkdir()
    cache_dir.chmod(0o755)
    (cache_dir / "notes.txt").touch()
    ask(rows(1))
    assert 0o755 == stat.S_IMODE(cache_dir.stat().st_mode)
    assert {0o600} == {stat.S_IMODE(path.stat().st_mode) for path in cache_dir.glob("shard*")}


@as_root
def test_a_folder_that_somebody_else_made_is_refused(lab: Loopback, cache_dir: Path) -> None:
    cache_dir.mkdir()
    os.chown(cache_dir, 12345, -1)
    with pytest.warns(RuntimeWarning, match="belongs to another user") as warned:
        assert answers(rows(1, 2)) == ask(rows(1, 2))
    assert 1 == len(warned)
    assert [] == list(cache_dir.iterdir())


@as_root
def test_a_link_that_somebody_else_laid_is_refused_and_one_of_ones_own_is_followed(lab: Loopback, cache_dir: Path, tmp_path: Path) -> None:
    real = tmp_path / "a large disk"
    real.mkdir()
    cache_dir.symlink_to(real)
    ask(rows(1))
    session.default().close()
    assert 1 == kept(real / "shard-000.sqlite")
    os.chown(cache_dir, 12345, -1, follow_symlinks=False)
    with pytest.warns(RuntimeWarning, match="belongs to another user"):
        assert answers(rows(1)) == ask(rows(1))
    assert 2 == lab.requests


def test_another_key_finds_the_same_answers_and_no_file_holds_either(server: Loopback, cache_dir: Path) -> None:
    for key in ("first-key-0123456789", "second-key-0123456789"):
        llmkit.add_provider("lab", server.url, api_key=key)
        assert answers(rows(1, 2)) == ask(rows(1, 2))
    assert 2 == server.requests
    assert "Bearer first-key-0123456789" == server.seen[0].headers["authorization"]
    held = b"".join(path.read_bytes() for path in cache_dir.iterdir())
    assert b"answer to" in held
    assert b"key-0123456789" not in held


# ---------------------------------------------------------------------------------------------- files that are not ours


def test_a_file_of_a_later_version_is_left_alone_with_a_warning(lab: Loopback, cache_dir: Path) -> None:
    cache_dir.mkdir(mode=0o700)
    later = cache_dir / "shard-000.sqlite"
    with closing(sqlite3.connect(later)) as db:
        db.executescript(f"CREATE TABLE replies (everything TEXT); PRAGMA user_version={VERSION + 1}")
    before = later.read_bytes()
    with pytest.warns(UserWarning, match=rf"written by a later llmkit \(format {VERSION + 1}\); it was left alone") as warned:
        assert answers(rows(1)) == ask(rows(1))
    assert 1 == len(warned)
    session.default().close()
    assert before == later.read_bytes()
    assert 1 == kept(cache_dir / "shard-001.sqlite")


def test_a_file_that_is_no_database_is_left_alone_with_a_warning(lab: Loopback, cache_dir: Path) -> None:
    cache_dir.mkdir(mode=0o700)
    damaged = cache_dir / "shard-000.sqlite"
    damaged.write_bytes(b"not a database, but somebody's " * 1000)
    SPOILT.add(damaged)
    before = damaged.read_bytes()
    with pytest.warns(UserWarning, match=r"shard-000.sqlite in the llmkit cache is damaged"):
        assert answers(rows(1)) == ask(rows(1))
    assert before == damaged.read_bytes()
    session.default().close()
    assert 1 == kept(cache_dir / "shard-001.sqlite")


def test_a_file_with_damaged_pages_costs_its_answers_and_nothing_else(lab: Loopback, cache_dir: Path) -> None:
    many = rows(*range(300))
    ask(many)
    session.default().close()
    damaged = cache_dir / "shard-000.sqlite"
    SPOILT.add(damaged)
    size = damaged.stat().st_size
    with damaged.open("r+b") as file:  # the header stays whole, so that nobody notices before it is used
        file.seek(16384)
        file.write(os.urandom(size - 16384))
    with pytest.warns(UserWarning, match=r"shard-000.sqlite in the llmkit cache is damaged .* another file is used") as warned:
        assert answers(many) == ask(many)
    assert 1 == len(warned)
    assert answers(many) == ask(many)
    assert 600 == lab.requests
    session.default().close()
    assert 300 == kept(cache_dir / "shard-001.sqlite")


def test_a_pickle_in_the_place_of_an_answer_is_inert_and_the_row_is_asked_anew(lab: Loopback, cache_dir: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"

    class Payload:
        def __reduce__(self) -> Any:
            return Path.touch, (canary,)

    ask(rows(1, 2))
    session.default().close()
    with closing(sqlite3.connect(cache_dir / "shard-000.sqlite")) as db, db:
        db.execute("UPDATE replies SET value=? WHERE CAST(value AS TEXT) LIKE '%row 1%'", (pickle.dumps(Payload()),))
    assert answers(rows(1, 2)) == ask(rows(1, 2))
    assert not canary.exists()
    assert [1, 2, 1] == [int(seen.texts[0][-1]) for seen in lab.seen]
    assert answers(rows(1, 2)) == ask(rows(1, 2))  # and the answer took the payload's place
    assert 3 == lab.requests


# --------------------------------------------------------------------------------------------------------- what is kept


@pytest.mark.parametrize(
    "bad",
    [
        Json({"error": {"message": "no", "type": "invalid_request_error"}}),
        refusal(),
        Json({"choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": ""}}]}),
        Json({"choices": [{"index": 0, "finish_reason": "length", "message": {"role": "assistant", "content": None}}]}),
        server_error(),
    ],
    ids=["refused", "declined", "empty", "truncated", "broken"],
)
def test_errors_are_never_kept_and_the_next_run_sends_exactly_the_failed_rows(lab: Loopback, bad: Any) -> None:
    texts = rows(*range(10, 20))
    lab.fault("row 13", bad, times=float("inf"))
    lab.fault("row 17", bad, times=float("inf"))
    first = ask(texts, max_attempts=1)
    assert [3, 7] == [position for position, value in enumerate(first) if value not in answers(texts)]
    lab.clear_faults()
    before = lab.requests
    assert answers(texts) == ask(texts)
    assert ["Say row 13", "Say row 17"] == sorted(seen.texts[0] for seen in lab.seen[before:])


def entry(number: int, tokens: int = 1, durable: Callable[[], None] = lambda: None, value: bytes = b'"answer"') -> Any:
    key = number.to_bytes(16, "big")
    reply = ReplyRow(key, value, tokens, 0, 1, "stop", "m", time.time(), "lab/m", "chat")
    outcome = OutcomeRow(0, number, key, "live", None, "lab/m", 1, 0.0, 1, 0, 1)
    return SimpleNamespace(key=key, answered=True, reply=lambda: reply, outcome=lambda: outcome, durable=durable)


def test_an_answer_that_no_table_can_hold_costs_only_itself(cache_dir: Path) -> None:
    writer, durable = Writer(lambda: Store(cache_dir)), []

    async def body() -> None:
        for number in range(100):
            writer.put(entry(number, 10**30 if number in (3, 70) else 1, lambda number=number: durable.append(number)))
        await writer.close()

    event_loop.call(body)
    assert list(range(100)) == durable  # to the caller it is an answer all the same
    assert 98 == kept(cache_dir / "shard-000.sqlite")


def test_an_answer_on_its_way_to_the_disk_is_found_already(cache_dir: Path) -> None:
    writer = Writer(lambda: Store(cache_dir))

    async def body() -> int:
        for number in range(10):
            writer.put(entry(number))
        found = await writer.look_up([number.to_bytes(16, "big") for number in range(12)])
        await writer.close()
        return len(found)

    assert 10 == event_loop.call(body)


def test_a_flush_that_is_stopped_before_it_began_loses_nothing(cache_dir: Path) -> None:
    # At the interpreter's end every task on the loop is cancelled, this one perhaps before its first step.
    writer = Writer(lambda: Store(cache_dir))

    async def body() -> None:
        for number in range(64):
            writer.put(entry(number))
        assert writer._flushing is not None
        writer._flushing.cancel()
        await writer.close()

    event_loop.call(body)
    assert 64 == kept(cache_dir / "shard-000.sqlite")


def test_to_close_what_was_never_opened_makes_no_file_and_no_thread(cache_dir: Path) -> None:
    writer = Writer(lambda: Store(cache_dir))
    event_loop.call(writer.close)
    assert writer.worker._thread is None
    assert not cache_dir.exists()


def test_a_closed_session_leaves_no_thread_behind_and_can_be_used_again(lab: Loopback, tmp_path: Path) -> None:
    def threads() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "llmkit-store" and thread not in before]

    before = threading.enumerate()
    own = llmkit.Session(cache_dir=tmp_path / "own")
    own.set_key("lab", "test-key-not-real")
    for _ in range(2):
        ask(["the same"], own)
        (thread,) = threads()
        own.close()
        thread.join(5)
        assert threads() == []
    assert lab.requests == 1


# -------------------------------------------------------------------------------------------- locked by somebody else

HOLDER = """
import sqlite3
db = sqlite3.connect(hear(), isolation_level=None)
db.execute("BEGIN IMMEDIATE")
say("held")
hear()
db.execute("ROLLBACK")
say("released")
hear()
"""


@pytest.fixture
def holder(lab: Loopback, cache_dir: Path, tmp_path: Path) -> Iterator[Child]:
    """Another process that holds our file; told anything, it lets go."""
    ask(rows(0))
    with Child(HOLDER, lab.url, tmp_path) as child:
        child.tell(str(cache_dir / "shard-000.sqlite"))
        assert "held" == child.hear()
        yield child


def test_while_another_process_holds_the_file_the_run_goes_on_and_its_answers_are_written_later(
    lab: Loopback, cache_dir: Path, holder: Child
) -> None:
    texts = rows(*range(1, 201))
    with pytest.warns(UserWarning, match="200 answers are in memory only: another process holds the cache file") as warned:
        assert answers(texts) == ask(texts)
    assert 1 == len(warned)
    assert llmkit.last().errors().empty
    assert 1 == kept(cache_dir / "shard-000.sqlite")
    with pytest.warns(UserWarning, match="in memory only"):
        assert answers(texts) == ask(texts)  # from memory
    assert 201 == lab.requests
    holder.tell("let go")
    assert "released" == holder.hear()
    eventually(lambda: kept(cache_dir / "shard-000.sqlite") == 201)
    assert answers(texts) == ask(texts)
    assert 201 == lab.requests


def test_answers_owed_at_the_end_of_a_session_are_written_then(lab: Loopback, cache_dir: Path, holder: Child) -> None:
    with pytest.warns(UserWarning, match="in memory only"):
        ask(rows(1, 2, 3))
    holder.tell("let go")
    assert "released" == holder.hear()
    session.default().close()
    assert 4 == kept(cache_dir / "shard-000.sqlite")


def test_answers_that_could_not_be_written_to_the_end_are_told_about(lab: Loopback, cache_dir: Path, holder: Child) -> None:
    with pytest.warns(UserWarning, match="in memory only"):
        ask(rows(1, 2, 3))
    with pytest.warns(RuntimeWarning, match="could not keep 3 answers"):
        session.default().close()
    assert 1 == kept(cache_dir / "shard-000.sqlite")


def test_a_file_that_another_program_has_all_to_itself_is_passed_over(lab: Loopback, cache_dir: Path) -> None:
    ask(rows(1))
    session.default().close()
    with closing(sqlite3.connect(cache_dir / "shard-000.sqlite", isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        assert answers(rows(2)) == ask(rows(2))
        session.default().close()
    assert 1 == kept(cache_dir / "shard-001.sqlite")


# ----------------------------------------------------------------------------------------------------- no room, no leave

FILLER = """
import warnings, sqlite3, resource
limit = hear()
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
df = pd.DataFrame({"text": [f"row {i} " + "long " * 200 for i in range(3000)]})
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    values = df.llm.chat("Say {text}", model="lab/m", show_progress=False)
    more = df.head(10).llm.chat("Once more: {text}", model="lab/m", show_progress=False)
right = values.tolist() == [f"answer to: Say {text}" for text in df["text"]] and more.notna().all()
llmkit.session.default().close()
db = sqlite3.connect(os.environ["LLMKIT_CACHE_DIR"] + "/shard-000.sqlite")
(check,) = db.execute("PRAGMA quick_check").fetchone()
(count,) = db.execute("SELECT count(*) FROM replies").fetchone()
db.close()
say({"right": bool(right), "warnings": [str(one.message) for one in seen], "check": check, "count": count})
"""


def _fills(child: Child, limit: int) -> None:
    child.tell(limit)
    said = child.hear()
    assert said["right"]
    (warning,) = said["warnings"]
    assert "llmkit cannot keep answers on disk" in warning
    assert "LLMKIT_CACHE_DIR" in warning
    assert "ok" == said["check"]
    assert 0 < said["count"] < 3000
    child.end()


@needs_mounts
def test_a_full_disk_costs_one_warning_and_no_row(server: Loopback, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    mount = f"mount -t tmpfs -o size=2m,mode=700 none '{tmp_path}/cache' && exec \"$@\""
    with Child(FILLER, server.url, tmp_path, before=("unshare", "-m", "sh", "-c", mount, "sh")) as child:
        _fills(child, 0)


def test_a_limit_on_file_size_costs_one_warning_and_no_row(server: Loopback, tmp_path: Path) -> None:
    pytest.importorskip("resource", reason="no such limits on this platform")
    with Child(FILLER, server.url, tmp_path) as child:
        _fills(child, 2**20)


NOWHERE = """
import warnings
df = pd.DataFrame({"text": [f"row {i}" for i in range(100)]})
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    runs = [df.llm.chat("Say {text}", model="lab/m", show_progress=False).tolist() for _ in range(2)]
say([runs[0] == runs[1] == [f"answer to: Say row {i}" for i in range(100)], [str(one.message) for one in seen]])
"""


def _goes_on(child: Child) -> None:
    right, (warning,) = child.hear()
    assert right
    assert "llmkit cannot keep answers on disk" in warning
    child.end()


@needs_mounts
def test_a_read_only_home_costs_one_warning_and_no_row(server: Loopback, tmp_path: Path) -> None:
    mount = f"mount -t tmpfs -o ro none '{tmp_path}' && exec \"$@\""
    with Child(NOWHERE, server.url, tmp_path, before=("unshare", "-m", "sh", "-c", mount, "sh"), LLMKIT_CACHE_DIR="") as child:
        _goes_on(child)


def test_a_cache_folder_that_cannot_be_made_costs_one_warning_and_no_row(server: Loopback, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with Child(NOWHERE, server.url, tmp_path, LLMKIT_CACHE_DIR=str(tmp_path / "file" / "cache")) as child:
        _goes_on(child)


@pytest.mark.parametrize(
    "name",
    ["with spaces", "ünïcødé 日本語 🐍", "a?b#c%20d&e=f", "l" * 200, "deep/" * 40 + "down", "it's; DROP TABLE"],
    ids=["spaces", "unicode", "marks", "long", "deep", "quotes"],
)
def test_any_name_of_a_folder_will_do(server: Loopback, tmp_path: Path, name: str) -> None:
    sessions = [llmkit.Session(cache_dir=tmp_path / name) for _ in range(2)]
    for own in sessions:
        own.add_provider("lab", server.url, None, "openai", {})
        assert answers(rows(1, 2)) == ask(rows(1, 2), own)
    assert 2 == server.requests
    for own in sessions:
        own.close()
    assert [2, 0] == [kept(path) for path in shards(tmp_path / name)]


def test_a_relative_folder_stays_the_same_when_the_working_directory_changes(
    server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sessions = [llmkit.Session(cache_dir="answers") for _ in range(2)]
    for own in sessions:
        own.add_provider("lab", server.url, None, "openai", {})
        ask(rows(1), own)
    monkeypatch.chdir("/")
    assert answers(rows(1)) == ask(rows(1), sessions[0])
    assert 1 == server.requests
    for own in sessions:
        own.close()
    assert 2 == len(shards(tmp_path / "answers"))
