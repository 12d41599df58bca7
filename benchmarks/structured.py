"""What structured answers cost over plain ones: CPU of ``extract`` less that of ``chat``, five fields, 1,000 rows side by side in one run.

The server answers at once, so what is left is the client's own. llmkit's two calls take turns in one process, a thousand rows each, so that
what else runs on the machine befalls both. Rivals do either job in a process of its own, in turns too.
"""

from __future__ import annotations

import gc
import statistics
import time
from functools import partial
from typing import Any

from .contest import Job, contest
from .contestants import Options
from .measure import Measured, judged, serve_as_contestant, table
from .measure import contest as measure
from .peers import ENVIRONMENTS, GaveUp, tokenizers
from .results import kept
from .rows import answer, text
from .server import serving
from .structured_peers import PLAIN

ROWS = 1_000
IN_FLIGHT = 64
_MOST_MS = 0.05


def llmkit(url: str, rounds: int) -> Measured:
    import pandas as pd

    import llmkit

    llmkit.add_provider("bench", url, api_key="sk-bench")
    schema = {"summary": str, "product": str, "days_late": int, "damaged": bool, "refund": float}
    numbers = iter(range(0, 1_000_000, ROWS))

    def frame() -> tuple[pd.DataFrame, list[str]]:
        these = range(first := next(numbers), first + ROWS)
        return pd.DataFrame({"text": [text(number) for number in these]}), [answer(number) for number in these]

    options: dict[str, Any] = {"model": "bench/bench-1", "max_concurrency": IN_FLIGHT, "show_progress": False}
    calls = {
        "chat": lambda asked: asked.llm.chat("Answer in one line.", on="text", **options),
        "extract": lambda asked: asked.llm.extract(schema, on="text", mode="json_schema", **options)["summary"],
    }
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(-1, rounds):
        for name, call in calls.items():
            asked, wanted = frame()
            gc.collect()
            began = time.process_time()
            answers = call(asked)
            if turn >= 0:
                spent[name].append(time.process_time() - began)
            assert answers.tolist() == wanted, "an answer is missing or in the wrong row"
    return {"rows": ROWS, "spent": spent}


CONTESTANTS = {"llmkit": llmkit}


def run(options: Options) -> tuple[dict[str, Measured], list[dict[str, Any]]]:
    """(entries by contestant, targets)."""
    entries: dict[str, Measured] = {}
    with serving() as url:
        if not options.rivals:
            entries = kept("structured", "llmkit", partial(_ours, url, 7 if options.quick else 25), _short)
            return entries, [judged("structured over plain chat, CPU a row", entries["llmkit"]["over"], _MOST_MS, " ms")]
        for name in PLAIN:
            if "all" not in options.rivals and name not in options.rivals:
                continue
            if not (ENVIRONMENTS / name / "bin" / "python").exists():
                print(f"{name}: not installed, passed over (make peers)")
                continue
            entries |= kept("structured", name, partial(_theirs, url, name, 1 if options.quick else 3), _short)
    return entries, []


def _short(found: Measured) -> str:
    return f"{found['plain']:.3f} ms plain, {found['structured']:.3f} structured"


def _ours(url: str, rounds: int) -> Measured:
    spent = measure(__spec__.name if __name__ != "__main__" else "benchmarks.structured", "llmkit", url, rounds)["spent"]
    each = {name: [1e3 * seconds / ROWS for seconds in found] for name, found in spent.items()}
    over = [structured - plain for plain, structured in zip(each["chat"], each["extract"], strict=True)]
    # Of the pairs the middle one: a neighbour of this process disturbs one call of some pairs.
    return {
        "rows": ROWS,
        "rounds": rounds,
        "plain": statistics.median(each["chat"]),
        "structured": statistics.median(each["extract"]),
        "over": statistics.median(over),
        "over_of_the_best": min(each["extract"]) - min(each["chat"]),
    }


def _theirs(url: str, name: str, rounds: int) -> Measured:
    job = Job(url, ROWS, in_flight=IN_FLIGHT)
    python = ENVIRONMENTS / name / "bin" / "python"
    module_of_plain, plain_name = PLAIN[name]
    spent: dict[str, list[float]] = {"plain": [], "structured": []}
    for _ in range(rounds):
        for kind, module, contestant in (("plain", f"peers.{module_of_plain}", plain_name), ("structured", "structured_peers", name)):
            try:
                found = contest(f"benchmarks.{module}", contestant, job, python, tokenizers())
            except RuntimeError as error:
                raise GaveUp(str(error)) from None
            if found["lost"] + found["wrong"]:
                raise GaveUp(f"{found['lost']} rows lost, {found['wrong']} wrong of {kind}: {found['raised']}")
            spent[kind].append(1e3 * found["cpu"] / ROWS)
    plain, structured = min(spent["plain"]), min(spent["structured"])
    return {"rows": ROWS, "rounds": rounds, "plain": plain, "structured": structured, "over": structured - plain}


def drawn(entries: dict[str, Measured]) -> str:
    lines = [
        (name, f"{found['rows']:,}", f"{found['plain']:.3f}", f"{found['structured']:.3f}", f"{found['over']:.3f}")
        for name, found in entries.items()
        if "gave_up" not in found
    ]
    return table(("five fields, no latency, 64 in flight", "rows", "plain ms/row", "structured ms/row", "over"), lines)


if __name__ == "__main__":
    serve_as_contestant(CONTESTANTS)
