"""A team's cache on a real server: what one machine paid for no other pays for again, and a server in trouble troubles nobody."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sqlite3
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import llmkit
from llmkit import event_loop
from llmkit.engine.store import ReplyRow, Store, Stored
from llmkit.engine.team import Shared, TeamCache, TeamWriter, TurnedAway, opener
from llmkit.errors import ConfigError, MissingExtra
from llmkit.testing import ManualClock
from llmkit.types import Secret
from tests.engine.team_servers import PASSWORD, QUOTED, Postgres, Redis, TeamServer, free_port
from tests.loopback import Loopback, refusal
from tests.process.child import Child, forked, needs_fork

KINDS = {"postgres": Postgres, "redis": Redis}
ADDRESSES = {"postgres": "postgresql://team:{}@127.0.0.1:{}/postgres", "redis": "redis://:{}@127.0.0.1:{}/0"}


@pytest.fixture(scope="module", params=list(KINDS))
def running(request: pytest.FixtureRequest) -> Iterator[TeamServer]:
    pytest.importorskip("psycopg" if request.param == "postgres" else "redis", reason=f"pip install 'llmkit[{request.param}]'")
    server = KINDS[request.param]()
    try:
        server.start()
        yield server
    finally:
        server.end()


@pytest.fixture
def team(running: TeamServer) -> TeamServer:
    """The team's server, up and empty."""
    if running.process is None:
        running.start()
    running.empty()
    return running


@pytest.fixture
def machines(tmp_path: Path, server: Loopback) -> Iterator[Any]:
    """Makes sessions that share nothing but a server."""
    made: list[llmkit.Session] = []

    def machine(name: str, url: str, **options: Any) -> llmkit.Session:
        own = llmkit.Session(cache_dir=tmp_path / name, cache_url=url, environ={}, **options)
        if not made:
            own.add_provider("lab", server.url, None, "openai", {})
        made.append(own)
        return own

    yield machine
    for own in made:
        own.close()


def ask(own: llmkit.Session, texts: list[str], **options: Any) -> list[Any]:
    return list(pd.DataFrame({"text": texts}).llm.using(own).chat("Say {text}", model="lab/m", show_progress=False, **options))


def answers(texts: list[str]) -> list[str]:
    return [f"answer to: Say {text}" for text in texts]


def rows(start: int, end: int) -> list[str]:
    return [f"row {number}" for number in range(start, end)]


def cache_of(own: llmkit.Session) -> TeamCache:
    assert isinstance(own.engine.writer, TeamWriter)
    return own.engine.writer.team


@contextmanager
def overheard() -> Iterator[list[str]]:
    """What is said in warnings; of another matter there is none."""
    said: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield said
        said += [str(warning.message) for warning in caught]
    assert all("shared cache" in words for words in said), said


# ------------------------------------------------------------------------------------------------------ sharing answers


def test_what_one_machine_paid_for_no_other_pays_for_again(team: TeamServer, machines: Any, server: Loopback) -> None:
    texts = [*rows(0, 60), "Ünïcode 漢字 🙂", "line\nbreak and \x00 zero"]
    ann = machines("ann", team.url())
    assert answers(texts) == ask(ann, texts)
    ann.close()
    bob = machines("bob", team.url())
    assert answers([*texts, "one more"]) == ask(bob, [*texts, "one more"])
    assert len(texts) + 1 == server.requests
    run = bob.last_run
    assert run is not None and (len(texts), 1) == (run.outcomes.stored, run.outcomes.usage.requests)


def test_a_hit_is_copied_to_the_local_store(team: TeamServer, machines: Any, server: Loopback, tmp_path: Path) -> None:
    ann, bob = machines("ann", team.url()), machines("bob", team.url())
    ask(ann, rows(0, 20))
    ann.close()
    ask(bob, rows(0, 20))
    bob.close()
    alone = machines("bob", "")
    assert answers(rows(0, 20)) == ask(alone, rows(0, 20))
    assert 20 == server.requests
    # A copy is an answer and no outcome: the journal is of what was asked for here.
    with closing(sqlite3.connect(tmp_path / "bob" / "shard-000.sqlite")) as db:
        assert [(20,)] == db.execute("SELECT count(*) FROM replies").fetchall()
        assert [(0,)] == db.execute("SELECT count(*) FROM outcomes").fetchall()


def test_vectors_are_shared_bit_by_bit(team: TeamServer, machines: Any, server: Loopback) -> None:
    texts, seen, asked = rows(0, 40), [], []
    for name in ("ann", "bob"):
        own = machines(name, team.url())
        vectors = pd.DataFrame({"text": texts}).llm.using(own).embed("text", model="lab/test-embed", show_progress=False)
        seen.append(np.stack(vectors.to_numpy()))
        own.close()
        asked.append(server.requests)
    assert np.array_equal(*seen) and asked[0] == asked[1]


def test_an_answer_asked_for_anew_replaces_the_teams(team: TeamServer, machines: Any, server: Loopback) -> None:
    ann = machines("ann", team.url())
    ask(ann, ["one"])
    ann.close()
    before = team.values()
    team.spoil(b"something else")
    ask(ann, ["one"], cache="refresh")
    ann.close()
    assert before == team.values()


def test_with_the_cache_off_nothing_is_shared(team: TeamServer, machines: Any) -> None:
    ann = machines("ann", team.url())
    ask(ann, rows(0, 5), cache="off")
    ann.close()
    assert {} == team.values()


def test_ten_thousand_keys_are_looked_up_in_one_pass(team: TeamServer, capsys: pytest.CaptureFixture[str]) -> None:
    _, connect = opener(Secret(team.url()))
    server = connect()
    keys = [number.to_bytes(16, "big") for number in range(10_000)]
    stored = Stored("répondu 🙂".encode() * 20, 12, 4, 30, "stop", "lab/m")
    began = time.perf_counter()
    for start in range(0, len(keys), TeamCache.ROWS):
        server.put_many([Shared(key, stored, "chat", "lab/m") for key in keys[start : start + TeamCache.ROWS]])
    wrote = time.perf_counter()
    cache = TeamCache("the server", lambda: server)
    found = event_loop.call(cache.get, [*keys, b"x" * 16])
    read = time.perf_counter()
    event_loop.call(cache.close)
    assert found == {key: Shared(key, stored, "chat", "lab/m") for key in keys}
    with capsys.disabled():
        print(f"\n{team.name}: 10,000 answers of {len(stored.value)} bytes shared in {wrote - began:.2f} s, found in {read - wrote:.2f} s")
    assert read - wrote < 10


def test_two_that_come_first_at_the_same_time_make_one_table(team: TeamServer) -> None:
    worker = [event_loop.Worker(f"first-{number}") for number in range(8)]
    _, connect = opener(Secret(team.url()))
    servers = [future.result(20) for future in [one.submit(connect) for one in worker]]
    row = Shared(b"k" * 16, Stored(b"v", 1, 0, 1, None, None), "chat", None)
    for future in [one.submit(server.put_many, [row]) for one, server in zip(worker, servers, strict=True)]:
        future.result(20)
    for one, server in zip(worker, servers, strict=True):
        server.ping()
        one.call(server.close)
        one.stop()
    assert 1 == len(team.values())


def test_rows_that_failed_are_not_shared_and_those_beside_them_are(team: TeamServer, machines: Any, server: Loopback) -> None:
    ann = machines("ann", team.url())
    server.fault("row 3", refusal())
    ask(ann, rows(0, 9))
    ann.close()
    assert 8 == len(team.values())


def test_what_is_claimed_on_this_machine_stays_so_while_the_team_is_asked(tmp_path: Path) -> None:
    key, asked, released = b"k" * 16, threading.Event(), threading.Event()

    class Slow:
        def get_many(self, keys: Any) -> list[Shared]:
            asked.set()
            released.wait(10)
            return []

        def close(self) -> None: ...

    async def held() -> set[bytes] | None:
        writer = TeamWriter(lambda: Store(tmp_path), TeamCache("Redis", lambda: Slow()))  # type: ignore[arg-type, return-value]
        claiming = asyncio.get_running_loop().create_task(writer.claim({key: (key,)}))
        await asyncio.to_thread(asked.wait, 10)
        await writer._refresh_claims()
        kept = await writer.read(lambda store: set(store.claims._held))
        released.set()
        await claiming
        await writer.close()
        return kept

    assert {key} == event_loop.call(held)


# ----------------------------------------------------------------------------------------------------- a server in trouble


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_server_that_is_away_costs_one_warning_and_no_time(kind: str, machines: Any, server: Loopback) -> None:
    pytest.importorskip("psycopg" if kind == "postgres" else "redis")
    own = machines("ann", ADDRESSES[kind].format(QUOTED, free_port()))
    began = time.monotonic()
    with overheard() as words:
        assert answers(rows(0, 600)) == ask(own, rows(0, 600))
        assert answers(rows(0, 600)) == ask(own, rows(0, 600))
        own.close()
    assert time.monotonic() - began < 10
    assert ["cannot be reached" in one and "at 127.0.0.1" in one for one in words] == [True]
    assert not [part for part in (PASSWORD, QUOTED, "ssw", "not-real", "%40") if part in words[0]]
    assert 600 == server.requests


def test_a_server_killed_in_mid_run_costs_no_row_and_serves_again_when_it_is_back(
    team: TeamServer, machines: Any, server: Loopback
) -> None:
    ann = machines("ann", team.url())
    cache_of(ann).PAUSE = cache_of(ann).LONGEST_PAUSE = 0.2  # type: ignore[misc]
    assert answers(rows(0, 10)) == ask(ann, rows(0, 10))
    server.hold()
    with overheard() as words:
        frame = pd.DataFrame({"text": rows(10, 400)}).llm.using(ann)
        run = frame.chat("Say {text}", model="lab/m", show_progress=False, wait=False)
        server.wait_for(11)
        team.kill()
        server.release()
        assert answers(rows(10, 400)) == list(run.result())
        assert 400 == server.requests
        eventually(lambda: cache_of(ann)._failures > 0)
    assert words and all("cannot be reached" in one or "broke off" in one for one in words)
    team.start()
    # What the server missed was kept back, and is shared now that it is there again.
    eventually(lambda: len(team.values()) >= 390)
    bob = machines("bob", team.url())
    ask(bob, rows(10, 400))
    assert 400 == server.requests


def eventually(condition: Callable[[], bool], timeout: float = 20.0) -> None:
    """For what no one announces: look until it is so."""
    pause, end = threading.Event(), time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end
        pause.wait(0.05)


def test_a_server_that_hangs_is_waited_for_a_second_and_then_left_alone(team: TeamServer, machines: Any, server: Loopback) -> None:
    ann = machines("ann", team.url())
    ask(ann, ["before"])
    release = hang(team)
    try:
        began = time.monotonic()
        with overheard() as words:
            assert answers(rows(0, 600)) == ask(ann, rows(0, 600))
        # Three look-ups of 256 rows each: the first one waits, the others do not.
        assert time.monotonic() - began < 5
        assert ["answer within 1 s" in one or "does not answer" in one for one in words] == [True]
        # The thread is free again although the server still hangs: nothing waits for it, not even a fork.
        assert cache_of(ann)._worker.submit(lambda: "free").result(5) == "free"
    finally:
        release()


def hang(team: TeamServer) -> Any:
    """Have the server accept and not answer, as one does whose disk or network is stuck."""
    if isinstance(team, Postgres):
        import psycopg

        db = psycopg.connect(team.url())
        db.execute("LOCK TABLE llmkit_answers IN ACCESS EXCLUSIVE MODE")
        return db.close
    assert team.process is not None
    process = team.process
    os.kill(process.pid, signal.SIGSTOP)
    return lambda: os.kill(process.pid, signal.SIGCONT)


def test_a_wrong_password_costs_one_warning_that_does_not_hold_it(team: TeamServer, machines: Any, server: Loopback) -> None:
    own = machines("ann", team.url("Wr%40ng-secret"))
    with overheard() as words:
        assert answers(rows(0, 300)) == ask(own, rows(0, 300))
        own.close()
    (one,) = words
    assert "refuses the user or the password" in one and f"{team.name} at 127.0.0.1:{team.port}" in one
    assert "Wr" not in one and "secret" not in one


def test_who_may_only_read_finds_answers_and_is_told_once(team: TeamServer, machines: Any, server: Loopback) -> None:
    ann = machines("ann", team.url())
    ask(ann, rows(0, 5))
    ann.close()
    if isinstance(team, Postgres):
        team.execute("DROP ROLE IF EXISTS guest")
        team.execute("CREATE ROLE guest LOGIN PASSWORD 'guest'")
        team.execute("GRANT SELECT ON llmkit_answers TO guest")
        team.execute("UPDATE llmkit_answers SET used = now() - interval '2 days'")
    else:
        with team.client() as client:  # type: ignore[attr-defined]
            client.acl_setuser("guest", enabled=True, passwords=["+guest"], keys=["llmkit:*"], commands=["+@read", "+ping", "+client"])
    bob = machines("bob", team.url().replace(f"team:{QUOTED}", "guest:guest").replace(f":{QUOTED}", "guest:guest"))
    with overheard() as words:
        ask(bob, rows(0, 5))
        ask(bob, rows(5, 10))
        bob.close()
        ask(bob, rows(10, 15))
        bob.close()
    assert 15 == server.requests and 5 == len(team.values())
    assert ["may only read" in one for one in words] == [True]


DAMAGED = [b"", b"\x00", b"\xff\xfe\xff", b"{}", b"[1,2]\nx", b'["chat","lab/m",1,0,1,null,null,0]\n\xff\xff', b"x" * 100]


@pytest.mark.parametrize("value", DAMAGED, ids=range(len(DAMAGED)))
@pytest.mark.parametrize("operation", ["embed", "classify"])
def test_what_is_no_answer_is_asked_for_and_mended(value: bytes, operation: str, team: TeamServer, machines: Any, server: Loopback) -> None:
    def work(own: llmkit.Session) -> list[Any]:
        frame = pd.DataFrame({"text": rows(0, 3)}).llm.using(own)
        if operation == "embed":
            return [list(vector) for vector in frame.embed("text", model="lab/test-embed", show_progress=False)]
        return list(frame.classify("text", ["row", "other"], model="lab/m", show_progress=False))

    ann = machines("ann", team.url())
    right = work(ann)
    ann.close()
    whole = team.values()
    team.spoil(value)
    before = server.requests
    bob = machines("bob", team.url())
    assert right == work(bob)
    bob.close()
    assert server.requests > before
    assert whole == team.values()
    carol = machines("carol", team.url())
    before = server.requests
    assert right == work(carol) and before == server.requests


def test_a_row_that_no_table_can_hold_keeps_no_other_out(team: TeamServer, machines: Any) -> None:
    own = machines("ann", team.url())
    good = Stored(b"v", 1, 0, 1, "stop", "lab/m")
    odd = [good._replace(finish="\ud800"), good._replace(input=10**30), good._replace(model="a\0b"), good._replace(value=b"x" * 5_000_000)]
    cache = cache_of(own)

    async def share() -> None:
        for number, stored in enumerate([*odd, good]):
            cache.put(Entry(bytes([number]) * 16, stored))
        await cache.close()

    event_loop.call(share)
    assert 1 == len(team.values())


class Entry:
    answered = True

    def __init__(self, key: bytes, stored: Stored) -> None:
        self.key, self._stored = key, stored

    def reply(self) -> ReplyRow:
        one = self._stored
        return ReplyRow(self.key, one.value, one.input, one.cached_input, one.output, one.finish, one.model, 0.0)

    def outcome(self) -> None: ...

    def durable(self) -> None: ...


def test_a_pause_doubles_and_ends_when_the_server_answers() -> None:
    clock, calls, up = ManualClock(), [], []

    class Server:
        def get_many(self, keys: Any) -> list[Shared]:
            return []

        def close(self) -> None: ...

    def connect() -> Any:
        calls.append(clock.now())
        if not up:
            raise TurnedAway("it cannot be reached")
        return Server()

    cache = TeamCache("Redis", connect, clock)
    with overheard() as words:
        for _ in range(200):
            event_loop.call(cache.get, [b"k"])
            clock.advance(10)
    assert [0, 30, 90, 210, 450, 930, 1530] == calls and 1 == len(words)
    up.append(True)
    clock.advance(600)
    event_loop.call(cache.get, [b"k"])
    event_loop.call(cache.get, [b"k"])
    assert 8 == len(calls) and not cache.away
    # The next trouble is another one: said anew, and as short a pause as the first.
    up.clear()
    event_loop.call(cache.close)
    with overheard() as words:
        event_loop.call(cache.get, [b"k"])
    assert 1 == len(words) and cache.away
    clock.advance(30)
    assert not cache.away


def test_answers_wait_for_a_server_that_is_away_within_bounds() -> None:
    clock = ManualClock()

    def connect() -> Any:
        raise OSError

    cache = TeamCache("Redis", connect, clock)
    cache.OWED = 1000  # type: ignore[misc]

    async def share() -> None:
        for number in range(5000):
            cache.put(Entry(number.to_bytes(16, "big"), Stored(b"x" * 10, 1, 0, 1, None, None)))
        assert cache._sending is not None
        await cache._sending

    with pytest.warns(RuntimeWarning, match="OSError"):
        event_loop.call(share)
    assert [4900, 4999] == [int.from_bytes(cache._owed[end].key, "big") for end in (0, -1)]
    assert 1000 == cache._owed_bytes


# ------------------------------------------------------------------------------------------------------------- the address


@pytest.mark.parametrize("url", ["mysql://me:s3cret@host/db", "host:5432/s3cret", "postgresql:s3cret", "s3cret", "sqlite:///s3cret"])
def test_a_wrong_scheme_names_the_right_ones_and_not_the_address(url: str) -> None:
    with pytest.raises(ConfigError, match="postgresql://, postgres://, redis:// or rediss://") as caught:
        llmkit.Session(cache_url=url)
    assert "s3cret" not in str(caught.value)


def test_the_address_comes_from_the_environment_and_an_argument_wins() -> None:
    pytest.importorskip("redis")
    environ = {"LLMKIT_CACHE_URL": "redis://127.0.0.1:1/0"}
    assert isinstance(llmkit.Session(environ=environ).engine.writer, TeamWriter)
    assert not isinstance(llmkit.Session(environ=environ, cache_url="").engine.writer, TeamWriter)
    assert not isinstance(llmkit.Session(environ={}).engine.writer, TeamWriter)
    with pytest.raises(ConfigError, match="LLMKIT_CACHE_URL"):
        llmkit.Session(environ={"LLMKIT_CACHE_URL": "ftp://host"})


def test_an_address_in_somebodys_env_file_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("LLMKIT_CACHE_URL=redis://elsewhere.example\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLMKIT_DOTENV", "")
    assert not isinstance(llmkit.Session().engine.writer, TeamWriter)


def test_a_client_that_is_not_installed_is_named_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from llmkit.engine import team

    monkeypatch.setattr(team, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'llmkit\[postgres\]'"):
        llmkit.Session(cache_url="postgres://host/db")
    with pytest.raises(MissingExtra, match=r"pip install 'llmkit\[redis\]'"):
        llmkit.Session(cache_url="rediss://host")


#: Passwords that nobody escaped, in every place where one may stand.
LEAKY = [
    "//me:s3k9w7@host:1/x", "//me:s3@k9w7@host/x", "//me:5/s3k9w7@host/x", "//me:5#s3k9w7@host", "//me:5?s3k9w7@host",
    "//s3k9w7:5?x@y", "//host/x?password=s3k9w7", "//host/x?user=a@b&password=s3@k9w7", "//me:s3k9w7", "//:s3k9w7@",
    "//me:s3k9w7@[::1]:1/x", "//s3k9w7@h ost/",
]  # fmt: skip


@pytest.mark.parametrize("rest", LEAKY)
@pytest.mark.parametrize("kind", list(KINDS))
def test_no_part_of_a_password_is_ever_shown(kind: str, rest: str, machines: Any, server: Loopback) -> None:
    pytest.importorskip("psycopg" if kind == "postgres" else "redis")
    scheme = "postgresql" if kind == "postgres" else "redis"
    url = f"{scheme}:{rest}".replace("host:1", "127.0.0.1:1").replace("@host", "@127.0.0.1").replace("//host", "//127.0.0.1")
    with overheard() as words:
        own = machines("ann", url)
        cache_of(own).CONNECTING = 0.5  # type: ignore[misc]
        ask(own, ["one"])
    assert words
    said = [*words, repr(own), repr(own.settings), repr(own.settings.cache_url), repr(own.engine.writer), repr(cache_of(own))]
    assert not [one for one in said if "s3" in one or "k9w7" in one or "me:5" in one]


@pytest.mark.parametrize("running", ["redis"], indirect=True)
def test_a_lifetime_is_redis_to_keep(team: TeamServer, machines: Any) -> None:
    assert isinstance(team, Redis)
    own = machines("ann", team.url() + "?ttl=3600")
    ask(own, ["one"])
    own.close()
    with team.client() as client:
        assert [3590 < client.ttl(name) <= 3600 for name in client.scan_iter()] == [True]
    for wrong in ("0", "-1", "a day", "", "1.5"):
        with pytest.raises(ConfigError, match="whole number of seconds"):
            llmkit.Session(cache_url=f"redis://host/0?ttl={wrong}")


@pytest.mark.parametrize("running", ["postgres"], indirect=True)
def test_when_an_answer_was_last_used_is_marked_once_a_day(team: TeamServer, machines: Any) -> None:
    assert isinstance(team, Postgres)
    own = machines("ann", team.url())
    ask(own, rows(0, 4))
    own.close()
    team.execute("UPDATE llmkit_answers SET used = now() - interval '23 hours'")
    ask(machines("bob", team.url()), rows(0, 4))
    aged = "SELECT count(*) FROM llmkit_answers WHERE used < now() - interval '1 hour'"
    assert [(4,)] == team.execute(aged)
    team.execute("UPDATE llmkit_answers SET used = now() - interval '25 hours'")
    ask(machines("carol", team.url()), rows(0, 4))
    assert [(0,)] == team.execute(aged)


# ---------------------------------------------------------------------------------------------------------- ends and forks


def test_a_script_that_just_ends_has_shared_its_answers(team: TeamServer, server: Loopback, tmp_path: Path, machines: Any) -> None:
    source = 'say(list(pd.DataFrame({"text": ["row 0", "row 1"]}).llm.chat("Say {text}", model="lab/m", show_progress=False)))'
    with Child(source, server.url, tmp_path, LLMKIT_CACHE_URL=team.url()) as child:
        assert answers(rows(0, 2)) == child.hear()
        assert "" == child.end()
    assert 2 == len(team.values())


def test_no_connection_is_left_open(team: TeamServer, machines: Any) -> None:
    own = machines("ann", team.url())
    ask(own, ["one"])
    own.close()
    if isinstance(team, Postgres):
        assert [(0,)] == team.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'llmkit'")
    else:
        with team.client() as client:  # type: ignore[attr-defined]
            assert 1 == len(client.client_list())
    gc.collect()  # one that is open when it goes is complained of


@needs_fork
def test_a_forked_child_has_a_connection_of_its_own(team: TeamServer, machines: Any, server: Loopback) -> None:
    ann = machines("ann", team.url())
    ask(ann, rows(0, 3))

    def child() -> list[Any]:
        said = ask(ann, rows(3, 6))
        ann.close()
        return said

    assert answers(rows(3, 6)) == forked(child)
    # The parent's is none the worse for it.
    assert answers(rows(6, 9)) == ask(ann, rows(6, 9))
    ann.close()
    assert 9 == len(team.values()) == server.requests
