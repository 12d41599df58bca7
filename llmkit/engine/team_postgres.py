"""A team's cache in one table of a PostgreSQL database."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import psycopg
from psycopg import errors

from .store import Stored
from .team import Shared, TurnedAway, WriteRefused, is_sound

__all__ = ["PostgresServer"]

_TABLE = """
CREATE TABLE IF NOT EXISTS llmkit_answers (
    key bytea PRIMARY KEY, value bytea NOT NULL,
    input bigint NOT NULL, cached_input bigint NOT NULL, cache_write bigint NOT NULL, output bigint NOT NULL,
    finish text, model text, operation text, target text,
    created timestamptz NOT NULL DEFAULT now(), used timestamptz NOT NULL DEFAULT now())
"""

#: Two that create the same table at the same time, IF NOT EXISTS or not: one of them fails. This number is the queue's.
_QUEUE = 0x6C6C6D6B6974

_GET = """
SELECT key, operation, target, used < now() - interval '1 day', value, input, cached_input, output, finish, model, cache_write
FROM llmkit_answers WHERE key = ANY(%b)
"""

#: Written over where it differs: an answer asked for anew, or one in the place of something damaged that every machine would pay for again.
_PUT = """
INSERT INTO llmkit_answers (key, operation, target, value, input, cached_input, output, finish, model, cache_write)
SELECT * FROM unnest(
    %b::bytea[], %t::text[], %t::text[], %b::bytea[], %t::bigint[], %t::bigint[], %t::bigint[], %t::text[], %t::text[], %t::bigint[])
ON CONFLICT (key) DO UPDATE SET value = excluded.value, input = excluded.input, cached_input = excluded.cached_input,
    output = excluded.output, finish = excluded.finish, model = excluded.model, cache_write = excluded.cache_write,
    created = now(), used = now()
WHERE llmkit_answers.value <> excluded.value
"""

#: At most once a day an answer; rows that somebody else is at are his to mark.
_TOUCH = """
UPDATE llmkit_answers SET used = now()
WHERE key IN (SELECT key FROM llmkit_answers WHERE key = ANY(%b) ORDER BY key FOR UPDATE SKIP LOCKED)
"""


class PostgresServer:
    """A connection; makes the table where there is none.

    Raises
    ------
    TurnedAway
        The server cannot be reached, refuses the user, or has no such database.
    """

    def __init__(self, url: str) -> None:
        try:
            self._db = psycopg.connect(
                url,
                autocommit=True,
                prepare_threshold=None,  # PgBouncer hands every transaction another connection
                application_name="llmkit",
                connect_timeout=2,
                # A host that vanished without a word is noticed within a quarter of a minute.
                keepalives_idle=5,
                keepalives_interval=3,
                keepalives_count=3,
                tcp_user_timeout=10_000,
            )
        except psycopg.Error as error:
            raise TurnedAway(_why(error)) from None
        try:
            self._lay_table()
        except psycopg.Error as error:
            self._db.close()
            raise TurnedAway(_why(error)) from None
        self._touches = True

    def _lay_table(self) -> None:
        # Asked first: who may not create tables may still use one.
        row = self._db.execute("SELECT to_regclass('llmkit_answers')").fetchone()
        if row is not None and row[0] is not None:
            return
        with self._db.transaction():
            self._db.execute("SELECT pg_advisory_xact_lock(%s)", [_QUEUE])
            self._db.execute(_TABLE)

    def get_many(self, keys: Sequence[bytes]) -> list[Shared]:
        try:
            rows = self._db.execute(_GET, [list(keys)], binary=True).fetchall()
        except psycopg.Error as error:
            raise TurnedAway(_why(error)) from None
        found, stale = [], []
        for key, operation, target, old, *facts in rows:
            shared = Shared(key, Stored(*facts), operation, target)
            if is_sound(shared):
                found.append(shared)
                if old:
                    stale.append(key)
        if stale and self._touches:
            self._touch(stale)
        return found

    def _touch(self, keys: list[bytes]) -> None:
        try:
            self._db.execute(_TOUCH, [keys])
        except (errors.InsufficientPrivilege, errors.ReadOnlySqlTransaction):
            self._touches = False  # a user who may only read
        except psycopg.Error as error:
            raise TurnedAway(_why(error)) from None

    def put_many(self, rows: Sequence[Shared]) -> None:
        # In the keys' order: two that write the same rows in different ones would wait for each other.
        rows = sorted(rows, key=_by_key)
        columns = list(map(list, zip(*((row.key, row.operation, row.target, *row.stored) for row in rows), strict=True)))
        try:
            self._db.execute(_PUT, columns)
        except (errors.InsufficientPrivilege, errors.ReadOnlySqlTransaction):
            raise WriteRefused("this user may only read") from None
        except (errors.DiskFull, errors.OutOfMemory):
            raise WriteRefused("it is full") from None
        except (psycopg.OperationalError, psycopg.InternalError) as error:
            raise TurnedAway(_why(error)) from None

    def ping(self) -> None:
        try:
            self._db.execute("SELECT 1")
        except psycopg.Error as error:
            raise TurnedAway(_why(error)) from None

    def interrupt(self) -> None:
        try:
            # Of a second handle on the same connection, so that the client's own is closed by the client's own thread.
            with socket.fromfd(self._db.fileno(), socket.AF_INET, socket.SOCK_STREAM) as line:
                line.shutdown(socket.SHUT_RDWR)
        except (OSError, psycopg.Error):
            pass  # closed in the meantime

    def close(self) -> None:
        self._db.close()


def _by_key(row: Shared) -> bytes:
    return row.key


def _why(error: psycopg.Error) -> str:
    """In words of our own: the client's may hold the address, and with it the password."""
    state = error.sqlstate or ""
    text = str(error)
    if state.startswith("28") or "password authentication failed" in text or "no password supplied" in text:
        return "it refuses the user or the password"
    if state == "3D000" or ("database " in text and "does not exist" in text):
        return "it has no such database"
    if state == "42501":
        return "this user may neither read the table llmkit_answers nor make it"
    if state.startswith("53"):
        return "it has no connection or no room left"
    if isinstance(error, psycopg.ProgrammingError) and not state:
        return "its address cannot be read"
    if isinstance(error, psycopg.OperationalError):
        return "it cannot be reached" if not state else f"it broke off (SQLSTATE {state})"
    return f"it answered with an error (SQLSTATE {state or 'unknown'})"
