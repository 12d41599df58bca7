"""What ``import llmkit`` costs beside ``import pandas``, which every user pays already, and what it must not load."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from typing import Any

from .measure import ROOT, judged, table, verdicts

#: Vendors' SDKs, their HTTP stacks, widgets, clusters: loaded by the first call that needs them, or never.
FORBIDDEN = (
    "anthropic", "bm25s", "cohere", "dask", "distributed", "faiss", "httpx", "httpx2", "instructor", "IPython", "ipywidgets",
    "jupyter_client", "matplotlib", "model2vec", "openai", "scipy", "sentence_transformers", "sklearn", "tiktoken", "torch",
    "tqdm.auto", "tqdm.notebook", "transformers", "voyageai",
)  # fmt: skip


def _microseconds(package: str) -> float:
    """The cumulative time of the package in the interpreter's own count."""
    command = [sys.executable, "-X", "importtime", "-c", f"import {package}"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stderr
    for line in reversed(said.splitlines()):
        times, _, name = line.removeprefix("import time:").rpartition("|")
        if name.strip() == package:
            return float(times.split("|")[1])
    raise LookupError(package)


def _loaded(package: str) -> list[str]:
    script = f"import json, sys, {package}; print(json.dumps(sorted(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    modules: list[str] = json.loads(said)
    return modules


def run(quick: bool = False) -> tuple[str, dict[str, Any]]:
    """The comparison: (text to print, facts to write)."""
    rounds = 3 if quick else 7
    times: dict[str, list[float]] = {"pandas": [], "llmkit": []}
    for package in times:  # once unmeasured: bytecode is written, files are in memory
        _microseconds(package)
    for _ in range(rounds):
        for package, found in times.items():
            found.append(_microseconds(package))
    modules = _loaded("llmkit")
    forbidden = [name for name in FORBIDDEN if name in modules]
    medians = {package: statistics.median(found) for package, found in times.items()}
    ratio = medians["llmkit"] / medians["pandas"]
    lines = [
        (f"import {package}", f"{middle / 1e3:,.0f}", f"{min(times[package]) / 1e3:,.0f}", f"{middle / medians['pandas']:.2f}x")
        for package, middle in medians.items()
    ]
    targets = [
        judged("import llmkit / import pandas", ratio, 1.3),
        judged("forbidden modules loaded", len(forbidden), 0, ""),
    ]
    text = f"{table((f'imports, {rounds} times each', 'median ms', 'least ms', '/ pandas'), lines)}\n\n{verdicts(targets)}"
    if forbidden:
        text += f"\nloaded, and must not be: {', '.join(forbidden)}"
    return text, {"microseconds": times, "modules": len(modules), "forbidden": forbidden, "targets": targets}
