"""The gold set: texts with known answers that a loopback provider answers as models do, damaged; what ``df.llm.extract`` makes of them.

``gold/*.jsonl`` holds a row a line: the text, the truth, the damage, every reply, and what may be expected: the truth ``directly``, after
it is asked again (``reask``), with more room (``more``), or ``never``, which is an error of the class that is named. ``write.py`` says by
what rules. What no reader can see is not in it: a fitting answer that is wrong, as two texts in each other's place.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from ..contestants import Options
from ..measure import Measured, judged, table
from ..results import kept

GOLD = Path(__file__).parent / "gold"

#: So much room has the first question, so much the one after an answer that was cut.
_ROOM, _MORE_ROOM = 300, 1_200


def gold() -> dict[str, list[dict[str, Any]]]:
    """The rows of each schema."""
    return {file.stem: [orjson.loads(line) for line in file.read_bytes().splitlines()] for file in sorted(GOLD.glob("*.jsonl"))}


def served(mode: str = "json_schema") -> Iterator[dict[str, Any]]:
    """Each row with what became of it: ``became`` is right, error or wrong; ``asked`` how often; and whether that was to be expected."""
    import pandas as pd
    from pydantic_core import to_jsonable_python

    import llmkit
    from tests.loopback import Loopback, Said, Saying

    from .schemas import SCHEMAS

    with Loopback() as server:
        llmkit.add_provider("gold", server.url, api_key="none")
        for schema, rows in gold().items():
            for row in rows:
                server.fault(row["id"], *(Saying(Said(one["text"], reason=one["finish"])) for one in row["said"]))
            frame = pd.DataFrame({"text": [row["text"] for row in rows]})
            run = frame.llm.extract(
                SCHEMAS[schema],
                on="text",
                model="gold/test-chat",
                mode=mode,
                max_tokens=_ROOM,
                more_tokens=_MORE_ROOM,
                cache="off",
                wait=False,
                show_progress=False,
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # that the model does not heed what it is asked: that is what it is here for
                run.result()
            for place, row in enumerate(rows):
                error = run.outcomes.error_of(place)
                said = to_jsonable_python(run.outcomes.value(place))
                became = "error" if error is not None else "right" if said == row["truth"] else "wrong"
                asked = server.count(row["id"])
                yield {
                    **row,
                    "schema": schema,
                    "became": became,
                    "asked": asked,
                    "as_expected": _is_expected(row, became, error, asked),
                    "why": error,
                }
            server.clear_faults()


def _is_expected(row: dict[str, Any], became: str, error: Exception | None, asked: int) -> bool:
    if row["expects"] == "never":
        return type(error).__name__ == row["error"] and asked <= len(row["said"])
    return became == "right" and asked == {"directly": 1, "reask": 2, "more": 2}[row["expects"]]


def run(options: Options) -> tuple[dict[str, Measured], list[dict[str, Any]]]:
    """(entries by damage, targets)."""
    if options.rivals:
        return {}, []
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("LLMKIT_CACHE_DIR", folder)
        found = kept("extraction", "gold", _measured, lambda one: f"{one['rows']} rows, {one['silently_wrong']} silently wrong")
    entry = found["gold"]
    return entry["damages"], [
        judged("extraction: repairable rows that are not right", entry["repairable"] - entry["repaired"], 0, ""),
        judged("extraction: other rows without a typed error", entry["others"] - entry["errors"], 0, ""),
        judged("extraction: silently wrong", entry["silently_wrong"], 0, ""),
        judged("extraction: asked more often than need be", entry["asked_in_vain"], 0, ""),
    ]


def _measured() -> Measured:
    damages: dict[str, dict[str, Any]] = {}
    totals = dict.fromkeys(("rows", "repairable", "repaired", "others", "errors", "silently_wrong", "asked_in_vain"), 0)
    for row in served():
        entry = damages.setdefault(row["damage"], {"expects": row["expects"], "rows": 0, "right": 0, "error": 0, "wrong": 0, "asked": 0})
        for key in ("rows", row["became"]):
            entry[key] += 1
        entry["asked"] += row["asked"]
        never = row["expects"] == "never"
        totals["rows"] += 1
        totals["others" if never else "repairable"] += 1
        totals["errors" if never else "repaired"] += row["as_expected"] if never else row["became"] == "right"
        totals["silently_wrong"] += row["became"] == "wrong" or (never and row["became"] == "right")
        totals["asked_in_vain"] += not never and row["asked"] > (1 if row["expects"] == "directly" else 2)
    return {**totals, "damages": damages}


def drawn(entries: dict[str, Measured]) -> str:
    lines = [
        (name, entry["expects"], entry["rows"], entry["right"], entry["error"], entry["wrong"], f"{entry['asked'] / entry['rows']:.1f}")
        for name, entry in entries.items()
    ]
    return table(("damage", "expected", "rows", "right", "typed error", "silently wrong", "asked"), lines)
