"""``python -m benchmarks [chat] [embed] [imports] [--quick]``: run, print the tables, write ``benchmarks/results/latest.json``."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson

from . import chat, embed, imports
from .server import serving

RESULTS = Path(__file__).parent / "results" / "latest.json"
NAMES = ("imports", "chat", "embed")


def _circumstances(quick: bool) -> dict[str, Any]:
    packages = ("llmkit", "aiohttp", "openai", "orjson", "pandas", "numpy", "pyarrow")
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),  # of other work: it makes every figure worse, and llmkit's, which has two threads, most
        "versions": {name: version(name) for name in packages},
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="What llmkit costs beside code written by hand.")
    parser.add_argument("names", nargs="*", metavar="|".join(NAMES), help="all of them by default")
    parser.add_argument("--quick", action="store_true", help="fewer rows and rounds: under a minute, rougher figures")
    given = parser.parse_args()
    unknown = set(given.names) - set(NAMES)
    if unknown:
        parser.error(f"no benchmark is named {', '.join(sorted(unknown))}")
    wanted = [name for name in NAMES if name in given.names or not given.names]

    report = _circumstances(given.quick)
    began = time.monotonic()
    print(f"Python {report['python']}, {report['cpus']} CPUs; the round with the least CPU of each counts\n", flush=True)
    with serving() as url:
        for name in wanted:
            text, report[name] = {
                "imports": lambda: imports.run(given.quick),
                "chat": lambda: chat.run(url, given.quick),
                "embed": lambda: embed.run(url, given.quick),
            }[name]()
            print(text, end="\n\n", flush=True)
    report["seconds"] = round(time.monotonic() - began, 1)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2) + b"\n")
    missed = [one["name"] for name in wanted for one in report[name]["targets"] if not one["met"]]
    print(f"{report['seconds']:.0f} s; written to benchmarks/results/{RESULTS.name}")
    if missed:
        print(f"missed: {'; '.join(missed)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
