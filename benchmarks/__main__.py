"""``python -m benchmarks [NAME ...]``: run, print the tables, keep the figures in ``benchmarks/results``.

``python -m benchmarks rate --only second-headers`` runs one condition; ``--rivals litellm,curator`` (or ``all``) runs those in
place of llmkit; ``python -m benchmarks table`` draws the tables of README and docs from what is kept.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

from . import chat, cluster, embed, extraction, faults, files, growth, imports, latency, overhead, plans, rate, search, stream, structured
from .contestants import Options
from .measure import verdicts
from .page import write_tables
from .results import circumstances, write
from .server import serving

#: Contests of llmkit with code written by hand, which are run and kept whole.
_BY_HAND: dict[str, Callable[[str, bool], tuple[str, dict[str, Any]]]] = {
    "imports": lambda _, quick: imports.run(quick),
    "chat": chat.run,
    "embed": embed.run,
}
#: Contests of parts that can be run apart, rivals among them.
_BY_PARTS = {
    "rate": rate,
    "latency": latency,
    "faults": faults,
    "overhead": overhead,
    "growth": growth,
    "stream": stream,
    "extraction": extraction,
    "structured": structured,
    "search": search,
    "files": files,
    "simulate": plans,
    "cluster": cluster,
}
_WITH_RIVALS = ("rate", "latency", "faults", "overhead", "structured", "files")
_NAMES = (*_BY_HAND, *_BY_PARTS)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="What llmkit costs beside code written by hand, and rivals.")
    parser.add_argument("names", nargs="*", metavar="|".join((*_NAMES, "table")), help="all of them by default")
    parser.add_argument("--quick", action="store_true", help="fewer rows and rounds, rougher figures")
    parser.add_argument("--full", action="store_true", help="a million rows too, which takes minutes")
    parser.add_argument("--only", type=_words, default=[], metavar="A,B", help="these conditions or sizes alone")
    parser.add_argument("--rivals", type=_words, default=[], metavar="A,B", help="these rivals, or all, in place of llmkit")
    given = parser.parse_args()
    unknown = set(given.names) - set(_NAMES) - {"table"}
    if unknown:
        parser.error(f"no benchmark is named {', '.join(sorted(unknown))}")
    options = Options(given.quick, given.full, given.only, given.rivals)
    wanted = [name for name in (_WITH_RIVALS if options.rivals else _NAMES) if name in given.names or not given.names]

    began = time.monotonic()
    missed: list[str] = []
    for name in wanted:
        targets = _by_hand(name, options) if name in _BY_HAND else _by_parts(name, options)
        missed += [one["name"] for one in targets if not one["met"]]
    if "table" in given.names or not given.names:
        print(write_tables())
    if wanted:
        print(f"{time.monotonic() - began:.0f} s; kept in benchmarks/results")
    if missed:
        print(f"missed: {'; '.join(missed)}")
    return 0


def _words(given: str) -> list[str]:
    return [word.strip() for word in given.split(",")]


def _by_hand(name: str, options: Options) -> list[dict[str, Any]]:
    with serving() as url:
        text, facts = _BY_HAND[name](url, options.quick)
    print(text, end="\n\n", flush=True)
    write(name, {**circumstances(), "quick": options.quick, **facts})
    return list(facts["targets"])


def _by_parts(name: str, options: Options) -> list[dict[str, Any]]:
    benchmark: Any = _BY_PARTS[name]
    entries, targets = benchmark.run(options)
    print(f"\n{benchmark.drawn(entries)}\n", flush=True)
    if targets:
        print(verdicts(targets), end="\n\n", flush=True)
    return list(targets)


if __name__ == "__main__":
    sys.exit(main())
