"""``make demo`` as a newcomer sees it: it ends with the printed frames, and the second time nothing is asked again."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytest.importorskip("sklearn")


def demo(cache: Path, *arguments: str) -> str:
    # Sockets are closed to it: whoever asks anybody but this process gets an error that ends the demo.
    script = (
        "import socket, sys, runpy\n"
        "class Closed(socket.socket):\n"
        "    def connect(self, address):\n"
        "        if self.family != socket.AF_UNIX and address[0] != '127.0.0.1': raise OSError('the demo went outside')\n"
        "        return super().connect(address)\n"
        "socket.socket = Closed\n"
        f"sys.argv = ['demo.py', *{list(arguments)!r}]\n"
        f"runpy.run_path({str(ROOT / 'notebooks' / 'demo.py')!r}, run_name='__main__')"
    )
    environment = {"LLMKIT_CACHE_DIR": str(cache), "HOME": str(cache), "PATH": ""}
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def asked(output: str) -> list[int]:
    return [int(number.replace(",", "")) for number in re.findall(r"asked anew: ([\d,]+)", output)]


def test_the_demo_ends_with_its_frames_and_asks_nothing_twice(tmp_path: Path) -> None:
    first = demo(tmp_path)
    assert int(re.match(r"([\d,]+) objects", first)[1].replace(",", "")) >= 2000  # type: ignore[index]
    hits = first.split("=== df.llm.search('parse command line arguments'")[1].split("===")[0]
    assert "argparse" in hits or "getopt" in hits
    assert first.count("[echo, not a model]") >= 5
    assert sum(asked(first)) > 200
    again = demo(tmp_path)
    assert sum(asked(again)) == 0
    assert again.split("--- ")[0] == first.split("--- ")[0]
