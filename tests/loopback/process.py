"""The provider in a process of its own, asked and set over the wire."""

from __future__ import annotations

import argparse
import http.client
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import orjson

from .server import Loopback
from .vendors import base_of, compat_base_of


class LoopbackProcess:
    """The provider in a process of its own, for tests that kill processes or measure speed. `port`, `url`, `pid`."""

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.loopback"]
        root = Path(__file__).parents[2]
        self._process = subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self.pid, self.port = self._process.pid, int(self._process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}/v1"
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            try:
                self._process.communicate(timeout=5)  # closes its standard input, its sign to end
            except subprocess.TimeoutExpired:
                self._process.kill()

    def url_of(self, vendor: str) -> str:
        return f"http://127.0.0.1:{self.port}{base_of(vendor)}"

    def compat_url_of(self, vendor: str) -> str:
        return f"http://127.0.0.1:{self.port}{compat_base_of(vendor)}"

    def stats(self) -> dict[str, Any]:
        """requests, in_flight, max_in_flight, rate_limited_count, and texts: how often each arrived."""
        return self._control("GET", "/_stats")

    def set(self, **settings: Any) -> None:
        """Change latency, dimensions, key, models, shuffle_embeddings, cached_tokens, cache_write_tokens or rate_limit (its arguments)."""
        self._control("POST", "/_set", settings)

    def reset(self) -> None:
        """Forget what was seen."""
        self._control("POST", "/_reset")

    def _control(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)  # urllib would ask a proxy
        try:
            connection.request(method, path, orjson.dumps(body))
            response = connection.getresponse()
            answer: dict[str, Any] = orjson.loads(response.read())
        finally:
            connection.close()
        if response.status != 200:
            raise ValueError(answer["error"]["message"])
        return answer


def main() -> None:
    parser = argparse.ArgumentParser(description="Print the port and serve until standard input closes.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--port-file", help="write the port here as well")
    options = parser.parse_args()
    with Loopback(options.port, keep_seen=False) as server:
        if options.port_file:
            # Renamed into place, so that who waits for the file never reads half of it.
            with open(f"{options.port_file}.part", "w") as file:
                file.write(str(server.port))
            os.replace(file.name, options.port_file)
        print(server.port, flush=True)
        sys.stdin.buffer.read()
