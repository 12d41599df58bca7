"""A real PostgreSQL and a real Redis on free ports, in folders that go with them; or a word on why they cannot be had here."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

#: Characters that an address has to escape, and that a careless message would break at.
PASSWORD = "Pässw/rd@#?:not-real"
QUOTED = "P%C3%A4ssw%2Frd%40%23%3F%3Anot-real"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


class TeamServer(ABC):
    """A server in a process of its own. `end` ends it by its id, whatever happened before."""

    name: str

    def __init__(self) -> None:
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.folder = Path(tempfile.mkdtemp(prefix="llmkit-team-"))

    @property
    @abstractmethod
    def command(self) -> list[str]: ...

    @abstractmethod
    def answers(self) -> bool:
        """Whether it serves."""

    @abstractmethod
    def url(self, password: str = QUOTED) -> str: ...

    @abstractmethod
    def empty(self) -> None: ...

    @abstractmethod
    def values(self) -> dict[bytes, bytes]:
        """What it holds, as it is in there: by key."""

    @abstractmethod
    def spoil(self, value: bytes) -> None:
        """Put these bytes in the place of every value."""

    def popen(self, command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)

    def start(self) -> None:
        self.process = self.popen(self.command)
        pause, end = threading.Event(), time.monotonic() + 30
        while not self.answers():
            assert self.process.poll() is None, f"{self.name} ended by itself"
            assert time.monotonic() < end, f"{self.name} did not start"
            pause.wait(0.05)

    def kill(self) -> None:
        """At once, in the middle of whatever it does."""
        if self.process is not None:
            self.process.send_signal(self.killer)
            self.process.wait(20)
            self.process = None

    killer = signal.SIGKILL

    def end(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class Postgres(TeamServer):
    name = "PostgreSQL"
    #: PostgreSQL's own word for "at once": its children go, too.
    killer = signal.SIGQUIT

    def __init__(self) -> None:
        super().__init__()
        homes = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
        found = shutil.which("initdb") or (str(homes[-1]) if homes else None)
        if found is None:
            self.end()
            pytest.skip("there is no PostgreSQL server here (Debian: apt-get install postgresql)")
        self.bin = Path(found).resolve().parent
        self.owner: dict[str, Any] = {}
        if os.geteuid() == 0:  # it refuses to run as root
            import pwd

            try:
                nobody = pwd.getpwnam("nobody")
            except KeyError:
                self.end()
                pytest.skip("PostgreSQL does not run as root, and there is no user nobody here")
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
            self.owner = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        secret = self.folder / "password"
        secret.write_text(PASSWORD, "utf-8")
        secret.chmod(0o644)
        command = [self.bin / "initdb", "-D", self.folder / "data", "-U", "team", "--pwfile", secret]
        options = ["--auth=scram-sha-256", "--no-sync", "--encoding=UTF8", "--locale=C"]
        made = subprocess.run([*command, *options], capture_output=True, timeout=60, cwd=self.folder, **self.owner)
        if made.returncode:
            self.end()
            pytest.skip(f"initdb does not work here: {made.stderr.decode(errors='replace').strip().splitlines()[-1:]}")

    def popen(self, command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        return super().popen(command, cwd=self.folder, **self.owner)

    @property
    def command(self) -> list[str]:
        settings = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": "", "fsync": "off"}
        return [str(self.bin / "postgres"), "-D", str(self.folder / "data"), *(f"--{name}={value}" for name, value in settings.items())]

    def url(self, password: str = QUOTED) -> str:
        return f"postgresql://team:{password}@127.0.0.1:{self.port}/postgres"

    def execute(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        import psycopg

        with psycopg.connect(self.url(), autocommit=True, connect_timeout=5) as db:
            cursor = db.execute(sql, values)
            return cursor.fetchall() if cursor.description else []

    def answers(self) -> bool:
        import psycopg

        with suppress(psycopg.OperationalError):
            return self.execute("SELECT 1") == [(1,)]
        return False

    def empty(self) -> None:
        self.execute("DROP TABLE IF EXISTS llmkit_answers")

    def values(self) -> dict[bytes, bytes]:
        if self.execute("SELECT to_regclass('llmkit_answers')") == [(None,)]:
            return {}
        return dict(self.execute("SELECT key, value FROM llmkit_answers"))

    def spoil(self, value: bytes) -> None:
        self.execute("UPDATE llmkit_answers SET value = %s", value)


class Redis(TeamServer):
    name = "Redis"

    def __init__(self) -> None:
        super().__init__()
        self.binary = shutil.which("redis-server") or shutil.which("valkey-server")
        if self.binary is None:
            self.end()
            pytest.skip("there is no Redis server here (Debian: apt-get install redis-server)")

    @property
    def command(self) -> list[str]:
        assert self.binary is not None
        settings = {"port": self.port, "bind": "127.0.0.1", "dir": self.folder, "save": "", "appendonly": "no", "requirepass": PASSWORD}
        return [self.binary, *(str(word) for name, value in settings.items() for word in (f"--{name}", value))]

    def url(self, password: str = QUOTED) -> str:
        return f"redis://:{password}@127.0.0.1:{self.port}/0"

    def client(self) -> Any:
        import redis

        return redis.Redis(host="127.0.0.1", port=self.port, password=PASSWORD, socket_timeout=5)

    def answers(self) -> bool:
        import redis

        with suppress(redis.RedisError), self.client() as client:
            return bool(client.ping())
        return False

    def empty(self) -> None:
        with self.client() as client:
            client.flushall()

    def values(self) -> dict[bytes, bytes]:
        with self.client() as client:
            names = list(client.scan_iter("llmkit:1:*", count=1000))
            return dict(zip(names, client.mget(names), strict=True)) if names else {}

    def spoil(self, value: bytes) -> None:
        with self.client() as client:
            for name in client.scan_iter():
                client.set(name, value)
