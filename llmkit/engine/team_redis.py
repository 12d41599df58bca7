"""A team's cache in Redis, or in what speaks its protocol: one string an answer, evicted as the server is told to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import redis
from redis import exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from .store import Stored
from .team import Shared, TurnedAway, WriteRefused, is_sound

__all__ = ["RedisServer"]

_PREFIX = b"llmkit:1:"


class RedisServer:
    """A connection.

    Parameters
    ----------
    url : str
        ``redis://user:password@host:port/number``, ``rediss://`` for TLS.
    lives : int or None
        Seconds after which the server forgets an answer; ``None`` leaves that to its ``maxmemory-policy``.

    Raises
    ------
    TurnedAway
        The server cannot be reached or refuses the password.
    """

    def __init__(self, url: str, lives: int | None) -> None:
        self._lives = lives
        try:
            # No second try: who is slow or away is left alone by the caller.
            once = Retry(NoBackoff(), 0)
            self._db: Any = redis.Redis.from_url(url, socket_timeout=1.0, socket_connect_timeout=1.0, retry=once)
        except (ValueError, TypeError):
            raise TurnedAway("its address cannot be read") from None
        self.ping()

    def get_many(self, keys: Sequence[bytes]) -> list[Shared]:
        try:
            values = self._db.mget([_name(key) for key in keys])
        except exceptions.RedisError as error:
            raise TurnedAway(_why(error)) from None
        pairs = zip(keys, values, strict=True)
        return [shared for key, value in pairs if value is not None and (shared := _unpacked(key, value)) is not None]

    def put_many(self, rows: Sequence[Shared]) -> None:
        values = {_name(row.key): _packed(row) for row in rows}
        try:
            if self._lives is None:
                self._db.mset(values)  # a quarter of what as many commands cost
            else:
                pipe = self._db.pipeline(transaction=False)
                for name, value in values.items():
                    pipe.set(name, value, ex=self._lives)
                pipe.execute()
        except (exceptions.NoPermissionError, exceptions.ReadOnlyError):
            raise WriteRefused("this user may only read") from None
        except exceptions.OutOfMemoryError:
            raise WriteRefused("it is full, and its maxmemory-policy evicts nothing") from None
        except exceptions.RedisError as error:
            raise TurnedAway(_why(error)) from None

    def ping(self) -> None:
        try:
            self._db.ping()
        except exceptions.RedisError as error:
            raise TurnedAway(_why(error)) from None

    def interrupt(self) -> None:
        return None  # a call ends by itself: no piece of an answer is waited for longer than a second

    def close(self) -> None:
        self._db.close()


def _name(key: bytes) -> bytes:
    return _PREFIX + key.hex().encode()


def _packed(row: Shared) -> bytes:
    value, *facts = row.stored
    return orjson.dumps([row.operation, row.target, *facts]) + b"\n" + value


def _unpacked(key: bytes, packed: Any) -> Shared | None:
    """The answer in a string, or ``None`` where it is none; JSON as orjson writes it has no line break in it."""
    head, _, value = packed.partition(b"\n")
    try:
        operation, target, whole, cached, answer, finish, model, written = orjson.loads(head)
    except (ValueError, TypeError):
        return None
    shared = Shared(key, Stored(value, whole, cached, answer, finish, model, written), operation, target)
    return shared if is_sound(shared) else None


def _why(error: exceptions.RedisError) -> str:
    """In words of our own: the client's may hold the address, and with it the password."""
    if isinstance(error, exceptions.AuthenticationError | exceptions.AuthorizationError | exceptions.NoPermissionError):
        return "it refuses the user or the password"
    if isinstance(error, exceptions.TimeoutError):
        return "it does not answer"
    if isinstance(error, exceptions.BusyLoadingError):
        return "it is starting"
    if isinstance(error, exceptions.ConnectionError):
        return "it cannot be reached"
    return f"it answered with an error ({type(error).__name__})"
