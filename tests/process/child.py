"""Processes for tests: a Python of its own, a forked one. Each is ended by its own handle, whatever happens."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from tests.loopback import Loopback

ROOT = Path(__file__).resolve().parents[2]

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")

#: What most scripts begin with: ``server`` is the address of the pretend provider, ``say`` tells the test something.
PRELUDE = """
import json, os, sys
import pandas as pd
import llmkit

server = sys.argv[1]
llmkit.add_provider("lab", server, api_key=os.environ.get("LAB_KEY"))

def say(thing):
    print(json.dumps(thing), flush=True)

def hear():
    return json.loads(sys.stdin.readline())
"""


def environment(home: Path, **more: str) -> dict[str, str]:
    """The environment of a fresh user at ``home``: no key, no proxy, a cache of his own."""
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "LD_LIBRARY_PATH", "LANG") if name in os.environ}
    own = {"HOME": str(home), "LLMKIT_CACHE_DIR": str(home / "cache"), "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    return {**kept, **own, **more}


class Child:
    """A Python process that runs ``source`` with the server's address as its argument, and speaks JSON lines."""

    def __init__(self, source: str, server: str, home: Path, before: Sequence[str] = (), **environ: str) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self.process = subprocess.Popen(
            [*before, sys.executable, "-c", PRELUDE + source, server],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment(home, **environ),
            cwd=home,
        )

    def hear(self, timeout: float = 60.0) -> Any:
        """The next thing it says."""
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], timeout)
        line = self.process.stdout.readline() if ready else b""
        assert line, f"nothing came from the child. Its stderr:\n{self.stderr}"
        return json.loads(line)

    def tell(self, thing: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(thing).encode() + b"\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        """``kill -9``, and wait until it is dead."""
        self.process.kill()
        assert self.process.wait(10) == -signal.SIGKILL

    def end(self, timeout: float = 60.0) -> str:
        """Wait for its own end; what it wrote to stderr."""
        assert self.process.wait(timeout) == 0, self.stderr
        return self.stderr

    @property
    def stderr(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        for pipe in (self.process.stdin, self.process.stdout, self._errors):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:
                pass


def forked(function: Callable[[], Any], timeout: float = 30.0) -> Any:
    """What ``function`` returns in a forked child (as JSON); an AssertionError where it raises, dies or hangs."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 and later warn of every fork beside threads; to survive it is what is tested.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(read)
            try:
                said: Any = {"value": function()}
            except BaseException as error:
                said = {"error": repr(error)}
            with os.fdopen(write, "w") as pipe:
                json.dump(said, pipe)
            code = 0
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read) as pipe:
        ready, _, _ = select.select([pipe], [], [], timeout)
        if not ready:
            os.kill(child, signal.SIGKILL)
        text = pipe.read()
    os.waitpid(child, 0)
    assert ready, "the forked child hangs"
    assert text, "the forked child died"
    answer = json.loads(text)
    assert "error" not in answer, answer["error"]
    return answer["value"]


def settled(server: Loopback) -> int:
    """Requests that ``server`` has seen, once it has read whatever had reached it when this was called."""
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request("POST", "/_stats", b"{}")  # served by the same loop as everybody's requests, and not counted
        connection.getresponse().read()
    finally:
        connection.close()
    return server.requests
