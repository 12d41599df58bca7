"""A team's answers: a cache on a server behind the local store, asked for what the disk does not know and told what was paid for.

It can only ever save money. A server that is away, slow or refuses the password is left alone for a while with one warning, and the run
goes on as if there were none: the journal, the answers and what is durable stay the local store's.

The clients are blocking and have a thread of their own, as the store has. Psycopg's async face works on no Windows loop and cannot be made
to let go of a server that has stopped answering; a thread can be left behind by a loop that waits no longer than a second.
"""

from __future__ import annotations

import asyncio
import re
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from typing import NamedTuple, Protocol, TypeVar

from ..errors import ConfigError, MissingExtra
from ..event_loop import Clock, LoopClock, Timer, Worker
from ..types import Secret
from .store import Entry, ReplyRow, Store, Stored
from .writer import Writer

__all__ = ["Server", "Shared", "TeamCache", "TeamWriter", "TurnedAway", "WriteRefused", "opener"]

T = TypeVar("T")

#: Scheme of the address: (the server's name, the package of its client, the extra of ours that brings it).
_SCHEMES = {
    "postgresql": ("PostgreSQL", "psycopg", "postgres"),
    "postgres": ("PostgreSQL", "psycopg", "postgres"),
    "redis": ("Redis", "redis", "redis"),
    "rediss": ("Redis", "redis", "redis"),
}

#: An answer larger than this (minutes of speech) stays on the disk of who paid for it: sending it would take the second that a call has.
_LARGEST = 4 * 1024 * 1024


class TurnedAway(Exception):
    """The server does not serve; the text says why in our own words, since the client's may quote the address."""


class WriteRefused(TurnedAway):
    """The server answers questions and takes nothing: a user who may only read, a replica, a full server."""


class Shared(NamedTuple):
    """One answer as it travels. What was asked, and whom, is for whoever looks after the server."""

    key: bytes
    stored: Stored
    operation: str | None
    target: str | None


class Server(Protocol):
    """A connection to a team's server. Blocking, one thread only; every method may raise `TurnedAway`."""

    def get_many(self, keys: Sequence[bytes]) -> list[Shared]:
        """What is known of these keys and looks like an answer, in one round trip."""

    def put_many(self, rows: Sequence[Shared]) -> None:
        """Keep these, in one round trip."""

    def ping(self) -> None:
        """Return if the server answers."""

    def interrupt(self) -> None:
        """From another thread: have a call that hangs fail now."""

    def close(self) -> None: ...


def opener(address: Secret) -> tuple[str, Callable[[], Server]]:
    """(What to call the server in a message, how to connect to it) for an address as a user writes it.

    Raises
    ------
    ConfigError
        It begins with no scheme that is known.
    MissingExtra
        The client is not installed.
    """
    url = address.reveal().strip()
    scheme = url.partition("://")[0].lower() if "://" in url else ""
    if scheme not in _SCHEMES:
        # What stands before a "://" is shown only where it looks like a scheme: without one it could be anything.
        said = f", not {scheme}://" if re.fullmatch("[a-z][a-z0-9+]{0,20}", scheme) else ""
        raise ConfigError(
            f"the shared cache's address ({address.origin}) begins with postgresql://, postgres://, redis:// or rediss://{said}"
        )
    name, package, extra = _SCHEMES[scheme]
    if find_spec(package) is None:
        raise MissingExtra(f"a shared cache on {name} needs the package {package}: pip install 'llmkit[{extra}]'")
    url, lives = _lifetime(url) if extra == "redis" else (url, None)

    def connect() -> Server:
        try:
            if extra == "redis":
                from .team_redis import RedisServer

                return RedisServer(url, lives)
            from .team_postgres import PostgresServer

            return PostgresServer(url)
        except ImportError:
            raise TurnedAway(f"the package {package} cannot be loaded (pip install 'llmkit[{extra}]')") from None

    return f"{name}{_place(url)}", connect


def _lifetime(url: str) -> tuple[str, int | None]:
    """The address without its ``ttl=``, which is ours and not the client's, and the seconds that it gives an answer."""
    before, mark, query = url.rpartition("?")
    fields = query.split("&") if mark else []
    given = [field.partition("=")[2] for field in fields if field.startswith("ttl=")]
    if not given:
        return url, None
    if not given[0].isascii() or not given[0].isdigit() or int(given[0]) == 0:
        raise ConfigError("ttl= in the shared cache's address is a whole number of seconds above 0")
    rest = "&".join(field for field in fields if not field.startswith("ttl="))
    return f"{before}?{rest}" if rest else before, int(given[0])


def _place(url: str) -> str:
    """`` at host:port`` for a message; nothing where a part of a password could be taken for it (one with ``@``, ``/`` or ``#`` in it)."""
    match = re.match(r"[a-z]+://(?:[^/?#@]*@)?([A-Za-z0-9._-]+(?::\d+)?)(?=[/?#]|$)", url, re.IGNORECASE)
    return f" at {match[1]}" if match and "@" not in url[match.end() :] else ""


class TeamCache:
    """The team's server as the loop sees it: look-ups that take a second at the most, writes in groups, and no exception ever.

    Parameters
    ----------
    name : str
        What the server is called in the warning.
    connect : callable
        Makes the `Server`; called in the worker thread at the first use, and again after a failure.
    clock : Clock, optional
        What pauses and groups live by. The limit on a call is real time: it bounds a socket.
    """

    #: Keys of one query, rows of one group and bytes of one.
    KEYS = 512
    ROWS = 256
    BYTES = 2 * 1024 * 1024
    #: Seconds that answers wait for others.
    WAIT = 0.5
    #: Seconds that a call may take, and one that has to connect first.
    LIMIT = 1.0
    CONNECTING = 2.0
    #: Seconds for which a server that failed is left alone, twice as long each time, up to the second.
    PAUSE = 30.0
    LONGEST_PAUSE = 600.0
    #: Bytes of answers that wait for a server to come back; beyond it the oldest are not shared.
    OWED = 16 * 1024 * 1024

    def __init__(self, name: str, connect: Callable[[], Server], clock: Clock | None = None) -> None:
        self._name = name
        self._connect = connect
        self._clock: Clock = clock or LoopClock()
        self._worker = Worker("llmkit-team")
        self._server: Server | None = None
        self._pending: list[Entry] = []
        self._owed: deque[Shared] = deque()
        self._owed_bytes = 0
        self._timer: Timer | None = None
        self._sending: asyncio.Task[None] | None = None
        self._failures = 0
        self._away_until = float("-inf")
        self._takes = True

    @property
    def away(self) -> bool:
        """Whether the server failed and is left alone just now."""
        return self._clock.now() < self._away_until

    # ------------------------------------------------------------------------------------------------------------- calling

    async def _call(self, work: Callable[[Server], T]) -> T | None:
        """``work(server)`` in the worker thread, or ``None`` where the server cannot be had."""
        if self.away:
            return None
        limit = self.LIMIT if self._server is not None else self.CONNECTING
        job = asyncio.wrap_future(self._worker.submit(self._at_work, work))
        done, _ = await asyncio.wait({job}, timeout=limit)
        if not done:
            self._failed(f"it did not answer within {limit:g} s")
            server = self._server
            if server is not None:
                server.interrupt()
            return None
        result = job.result()
        if isinstance(result, WriteRefused):
            self._reads_only(str(result))
            return None
        if isinstance(result, TurnedAway):
            self._failed(str(result))
            return None
        self._failures = 0
        return result

    def _at_work(self, work: Callable[[Server], T]) -> T | TurnedAway | None:
        """In the worker thread. Raises nothing: a result that nobody waits for any more would be complained of."""
        if self.away:  # queued behind the call that found out
            return None
        try:
            if self._server is None:
                self._server = self._connect()
            return work(self._server)
        except WriteRefused as error:
            return error
        except TurnedAway as error:
            self._hang_up()
            return error
        except Exception as error:  # a client's own mistake costs a look-up, no run
            self._hang_up()
            return TurnedAway(type(error).__name__)

    def _hang_up(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            try:
                server.close()
            except Exception:  # noqa: S110 - it was no connection any more
                pass

    def _failed(self, why: str) -> None:
        if self.away:
            return  # said already, by a call that went out beside this one
        pause = min(self.LONGEST_PAUSE, self.PAUSE * 2.0**self._failures)
        self._failures += 1
        self._away_until = self._clock.now() + pause
        if self._failures == 1:
            warnings.warn(
                f"the shared cache ({self._name}) is left alone for now: {why}. The run goes on with the answers on this computer.",
                RuntimeWarning,
                stacklevel=2,
            )

    def _reads_only(self, why: str) -> None:
        if self._takes:
            self._takes = False
            warnings.warn(
                f"the shared cache ({self._name}) takes no answers: {why}. They are kept on this computer, and the team's are still found.",
                RuntimeWarning,
                stacklevel=2,
            )

    # ------------------------------------------------------------------------------------------------------------- reading

    async def get(self, keys: Sequence[bytes]) -> dict[bytes, Shared]:
        """What the team knows of these keys; nothing where the server cannot be had."""
        found: dict[bytes, Shared] = {}
        for start in range(0, len(keys), self.KEYS):
            some = keys[start : start + self.KEYS]
            known = await self._call(lambda server, some=some: server.get_many(some))  # type: ignore[misc]
            if known is None:
                break
            found.update((shared.key, shared) for shared in known)
        return found

    # ------------------------------------------------------------------------------------------------------------- writing

    def put(self, entry: Entry) -> None:
        """Share ``entry`` soon, with others."""
        if not self._takes:
            return
        self._pending.append(entry)
        if len(self._pending) >= self.ROWS:
            self.flush()
        elif self._timer is None:
            self._wake_at(self._clock.now() + self.WAIT)

    def _wake_at(self, when: float) -> None:
        self._timer = self._clock.call_at(when, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        self.flush()

    def flush(self) -> None:
        """Send what waits, without waiting for it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if (self._pending or self._owed) and (self._sending is None or self._sending.done()):
            self._sending = asyncio.get_running_loop().create_task(self._send())

    async def _send(self) -> None:
        while self._pending or self._owed:
            entries, self._pending = self._pending, []
            if entries:
                # Packed even when the server is away: an entry holds on to its run, a row to nothing.
                self._owe(await self._worker.run(_packed, entries))
            group = self._group()
            if not group or await self._call(lambda server, group=group: _put(server, group)):  # type: ignore[misc]
                continue
            if not self._takes:
                self._pending, self._owed, self._owed_bytes = [], deque(), 0
                return
            self._owe(group, again=True)
            if not self._pending:
                break
        if self._owed and self._timer is None:
            self._wake_at(self._away_until)

    def _owe(self, rows: Sequence[Shared], again: bool = False) -> None:
        if again:
            self._owed.extendleft(reversed(rows))
        else:
            self._owed.extend(rows)
        self._owed_bytes += sum(len(row.stored.value) for row in rows)
        while self._owed_bytes > self.OWED:
            self._owed_bytes -= len(self._owed.popleft().stored.value)

    def _group(self) -> list[Shared]:
        group: list[Shared] = []
        size = 0
        for row in islice(self._owed, self.ROWS):
            size += len(row.stored.value)
            if group and size > self.BYTES:
                break
            group.append(row)
        for row in group:
            self._owed.popleft()
            self._owed_bytes -= len(row.stored.value)
        return group

    # ------------------------------------------------------------------------------------------------------------- closing

    async def close(self) -> None:
        """Send what waits, if the server takes it now, and hang up. What it does not take is not shared; nothing is lost by that."""
        self.flush()
        if self._sending is not None and not self._sending.done():
            await asyncio.wait({self._sending}, timeout=self.CONNECTING)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._server is not None:
            await asyncio.wait({asyncio.wrap_future(self._worker.submit(self._hang_up))}, timeout=self.LIMIT)
        self._worker.let_go()


def _put(server: Server, rows: Sequence[Shared]) -> bool:
    try:
        server.put_many(rows)
    except TurnedAway:
        raise
    except Exception:  # noqa: S110 - one of them is nothing that a table can hold; sent again, the group would fail for ever
        pass
    return True


def _packed(entries: Iterable[Entry]) -> list[Shared]:
    """In the worker thread: the rows of what can be packed, the last one of equal keys."""
    rows: dict[bytes, Shared] = {}
    for entry in entries:
        try:
            row = _shared(entry)
        except (ValueError, TypeError):
            continue  # not to be packed, hence kept nowhere
        if len(row.stored.value) <= _LARGEST and is_sound(row):
            rows[row.key] = row
    return list(rows.values())


def _shared(entry: Entry) -> Shared:
    row = entry.reply()
    stored = Stored(row.value, row.input, row.cached_input, row.output, row.finish, row.model, row.cache_write)
    return Shared(row.key, stored, row.operation, row.target)


@dataclass(slots=True)
class _Copy:
    """An answer of the team's on its way to the local store: a ``store.Entry`` that is the outcome of no task."""

    shared: Shared

    @property
    def key(self) -> bytes:
        return self.shared.key

    @property
    def answered(self) -> bool:
        return True

    def reply(self) -> ReplyRow:
        key, stored, operation, target = self.shared
        value, whole, cached, answer, finish, model, written = stored
        return ReplyRow(key, value, whole, cached, answer, finish, model, time.time(), target, operation, written)

    def outcome(self) -> None:
        return None

    def durable(self) -> None:
        return None


class TeamWriter(Writer):
    """The local store's writer with a team's cache behind it: whoever looks up or keeps an answer need not know."""

    def __init__(self, open_store: Callable[[], Store], team: TeamCache, clock: Clock | None = None) -> None:
        super().__init__(open_store, clock)
        self.team = team

    async def look_up(self, keys: Sequence[bytes]) -> dict[bytes, Stored]:
        found = await super().look_up(keys)
        await self._ask_the_team(found, [key for key in keys if key not in found])
        return found

    async def claim(self, wanted: Mapping[bytes, Sequence[bytes]], look: bool = True) -> tuple[dict[bytes, Stored], set[bytes]]:
        self._claiming.append(wanted)  # the claims are to hold while the team is asked, too
        try:
            found, elsewhere = await super().claim(wanted, look)
            if look:
                unknown = [along for key, along in wanted.items() if key not in elsewhere and not any(one in found for one in along)]
                await self._ask_the_team(found, [key for along in unknown for key in along])
            return found, elsewhere
        finally:
            self._claiming.remove(wanted)

    async def _ask_the_team(self, found: dict[bytes, Stored], missing: Sequence[bytes]) -> None:
        """Add what the team knows, and copy it to the local store."""
        for key, shared in (await self.team.get([key for key in missing if key])).items():
            super().put(_Copy(shared))
            found[key] = shared.stored

    def put(self, entry: Entry) -> None:
        super().put(entry)
        if entry.answered:
            self.team.put(entry)

    async def close(self) -> None:
        await super().close()
        await self.team.close()


def is_sound(shared: Shared) -> bool:
    """Whether this is of the form of an answer: anybody who may write to the server may write anything there."""
    value, whole, cached, answer, finish, model, written = shared.stored
    return (
        isinstance(value, bytes)
        and all(type(count) is int and 0 <= count < 2**53 for count in (whole, cached, answer, written))
        and all(
            word is None or (isinstance(word, str) and len(word) <= 512 and word.isprintable())
            for word in (finish, model, shared.operation, shared.target)
        )
    )
