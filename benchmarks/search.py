"""``llmkit.Index`` beside bare numpy and bare faiss: recall@10, queries a second, what building costs, and how long it holds the kernel up.

The vectors have neighbours, as those of texts have: 1,000 topics of 20 subjects each, drawn in 96 directions of which each later one counts
less, mixed into 384 numbers, with some noise in all of them; of length one. Queries are drawn in the same way and are not among the rows.
Recall is against comparing with all, for 200 queries.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from . import measure
from .contestants import Options
from .measure import Measured, Meter, judged, serve_as_contestant, table
from .results import kept

SIZES = (10_000, 100_000)
LARGEST = 1_000_000
NUMBERS, DIRECTIONS, TOPICS, SUBJECTS = 384, 96, 1_000, 20
K, ASKED, TRUE, ALONE = 10, 1_000, 200, 100


def vectors(count: int, seed: int) -> Any:
    import numpy as np

    rng = np.random.default_rng(7)
    spread = (1 / np.sqrt(1 + np.arange(DIRECTIONS))).astype(np.float32)
    topics = rng.standard_normal((TOPICS, DIRECTIONS), dtype=np.float32) * spread
    subjects = 0.7 * rng.standard_normal((TOPICS * SUBJECTS, DIRECTIONS), dtype=np.float32) * spread
    mixing = rng.standard_normal((DIRECTIONS, NUMBERS), dtype=np.float32) / np.sqrt(np.float32(DIRECTIONS))
    rng = np.random.default_rng(seed)
    found = np.empty((count, NUMBERS), dtype=np.float32)
    for start in range(0, count, 20_000):
        some = min(20_000, count - start)
        subject = rng.integers(0, len(subjects), some)
        drawn = topics[subject // SUBJECTS] + subjects[subject] + 0.6 * rng.standard_normal((some, DIRECTIONS), dtype=np.float32) * spread
        rows = drawn @ mixing + 0.02 * rng.standard_normal((some, NUMBERS), dtype=np.float32)
        found[start : start + some] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return found


def _by_hand(queries: Any, rows: Any) -> Any:
    """All cosines of a hundred queries at a time, and the largest of them."""
    import numpy as np

    found = []
    for start in range(0, len(queries), 100):
        cosines = queries[start : start + 100] @ rows.T
        near = np.argpartition(cosines, -K, axis=1)[:, -K:]
        order = np.argsort(-np.take_along_axis(cosines, near, axis=1), axis=1)
        found.append(np.take_along_axis(near, order, axis=1))
    return np.concatenate(found)


def _asked(rows: Any, search: Callable[[Any], Any]) -> Measured:
    """How well and how fast ``search`` finds rows by their numbers."""
    import numpy as np

    queries = vectors(ASKED, seed=1)
    wanted = _by_hand(queries[:TRUE], rows)
    search(queries[:10])
    began = time.perf_counter()
    found = search(queries)
    many = ASKED / (time.perf_counter() - began)
    began = time.perf_counter()
    for query in queries[:ALONE]:
        search(query[None])
    alone = ALONE / (time.perf_counter() - began)
    hits = [len(set(some) & set(true)) for some, true in zip(found[:TRUE].tolist(), np.asarray(wanted).tolist(), strict=True)]
    return {"recall": sum(hits) / (K * TRUE), "many": many, "alone": alone}


def numpy(_: str, count: int) -> Measured:
    rows = vectors(count, seed=0)
    with Meter(count) as meter:
        pass
    return {**meter.found, **_asked(rows, lambda queries: _by_hand(queries, rows))}


def faiss(_: str, count: int) -> Measured:
    import faiss as bare

    rows = vectors(count, seed=0)
    with Meter(count) as meter:
        index = bare.IndexHNSWFlat(NUMBERS, 16, bare.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = 64
        index.add(rows)
    index.hnsw.efSearch = 128
    return {**meter.found, **_asked(rows, lambda queries: index.search(queries, K)[1])}


def _ours(count: int, **how: Any) -> Measured:
    import pandas as pd

    import llmkit
    from llmkit.frames.columns import packed_vectors

    rows = vectors(count, seed=0)
    there = rows[:, 0] == rows[:, 0]
    frame = pd.DataFrame({"row": range(count), "vector": packed_vectors(rows, there)})
    llmkit.Index(frame[:100], show_progress=False, **how)
    idle = subprocess.Popen([sys.executable, "-c", _IDLE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with Meter(count) as meter:
        index = llmkit.Index(frame, wait=False, show_progress=False, **how)
        longest, last = 0.0, time.perf_counter()
        while not index.done:
            time.sleep(0.001)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now
        index.result()

    def search(queries: Any) -> Any:
        return index.search_many(queries, K)["row"].to_numpy().reshape(len(queries), K)

    return {**meter.found, "pause": longest, "idle": float(idle.communicate()[0]), **_asked(rows, search)}


CONTESTANTS: dict[str, Callable[[str, int], Measured]] = {
    "numpy": numpy,
    "faiss": faiss,
    "exact": lambda _, count: _ours(count, kind="exact"),
    "int8": lambda _, count: _ours(count, kind="exact", dtype="int8"),
    "hnsw": lambda _, count: _ours(count, kind="hnsw"),
    "ivf": lambda _, count: _ours(count, kind="ivf"),
}

#: A heart in a process that does nothing else: what it pauses is the machine's doing.
_IDLE = """
import sys, threading, time
over = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
longest, last = 0.0, time.perf_counter()
while not over.is_set():
    time.sleep(0.001)
    now = time.perf_counter()
    longest, last = max(longest, now - last), now
print(longest)
"""

_CALLED = {"numpy": "bare numpy", "faiss": "bare faiss, HNSW", "int8": "Index, exact, int8"}


def run(options: Options) -> tuple[dict[str, Measured], list[dict[str, Any]]]:
    """(entries named by rows and contestant, targets). ``--only`` names sizes, contestants, or both by a slash."""
    entries: dict[str, Measured] = {}
    for rows in (*SIZES, LARGEST) if options.full or any(one.startswith(str(LARGEST)) for one in options.only) else SIZES:
        if options.quick and rows > SIZES[0]:
            continue
        for name in CONTESTANTS:
            if any(options.wants(one) for one in (str(rows), name, f"{rows}/{name}")):
                entries |= kept("search", f"{rows}/{name}", lambda rows=rows, name=name: measure.contest(__name__, name, "-", rows), _said)  # type: ignore[misc]
    found = {name: one for name, one in entries.items() if "recall" in one}
    targets = [judged(f"{name}: of the ten nearest missed", 1 - one["recall"], 0.05, "") for name, one in found.items()]
    paused = {name: one for name, one in found.items() if "idle" in one}
    targets += [judged(f"{name}: pause beyond an idle process's", one["pause"] - one["idle"], 0.25, " s") for name, one in paused.items()]
    return entries, targets


def called(contestant: str) -> str:
    return _CALLED.get(contestant, f"Index, {contestant}")


def _said(one: Measured) -> str:
    return f"recall {one['recall']:.3f}, {one['many']:,.0f} queries/s, built in {one['seconds']:,.1f} s"


def drawn(entries: dict[str, Measured]) -> str:
    lines = []
    for name, one in entries.items():
        rows, _, contestant = name.partition("/")
        if "recall" in one:
            pause = f"{1e3 * one['pause']:,.0f} ({1e3 * one['idle']:,.0f})" if "idle" in one else "-"
            figures = (
                f"{one['recall']:.3f}",
                f"{one['many']:,.0f}",
                f"{one['alone']:,.0f}",
                f"{one['seconds']:,.1f}",
                f"{one['cpu']:,.1f}",
            )
            lines.append((called(contestant), f"{int(rows):,}", *figures, f"{one['peak'] / 1e6:,.0f}", pause))
    head = (
        f"search, {NUMBERS} numbers",
        "rows",
        f"recall@{K}",
        "queries/s of 1,000",
        "one by one",
        "built in s",
        "of CPU",
        "MB over",
        "pause ms (idle)",
    )
    return table(head, lines)


if __name__ == "__main__":
    serve_as_contestant(CONTESTANTS)
