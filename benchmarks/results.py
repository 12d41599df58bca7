"""What was measured is kept by parts, in ``benchmarks/results/NAME.json``: a part that is run again replaces itself alone."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson

from .measure import Measured
from .peers import GaveUp

FOLDER = Path(__file__).parent / "results"

_PACKAGES = ("llmkit", "aiohttp", "openai", "orjson", "pandas", "numpy", "pyarrow")


def circumstances() -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),  # of other work: it makes every figure worse, and llmkit's, which has two threads, most
        "versions": {name: version(name) for name in _PACKAGES},
    }


def read(name: str) -> dict[str, Any]:
    """All that is known of one benchmark; empty before its first run."""
    file = FOLDER / f"{name}.json"
    found: dict[str, Any] = orjson.loads(file.read_bytes()) if file.exists() else {}
    return found


def write(name: str, parts: Mapping[str, Any]) -> None:
    """Put these parts in the place of those of the same name."""
    known = read(name) | dict(parts)
    FOLDER.mkdir(exist_ok=True)
    unfinished = FOLDER / f"{name}.tmp"
    unfinished.write_bytes(orjson.dumps(known, option=orjson.OPT_INDENT_2) + b"\n")
    unfinished.replace(FOLDER / f"{name}.json")


def kept(name: str, part: str, measure: Callable[[], Measured], says: Callable[[Measured], str]) -> dict[str, Measured]:
    """Measure one part, keep it at once, say it in a line, and hand it back by its name. One that gives up is kept with its reason."""
    try:
        found = measure()
    except GaveUp as error:
        found = {"gave_up": str(error)}
    found = {**found, "date": datetime.now(UTC).isoformat(timespec="seconds"), "load": round(os.getloadavg()[0], 2)}
    write(name, {part: found})
    print(f"  {name}: {part}: {found['gave_up'].splitlines()[-1] if 'gave_up' in found else says(found)}", flush=True)
    return {part: found}
