"""The gold set of ``benchmarks/extraction``: what can be repaired is right, all else a typed error, and nothing wrong without a word."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from benchmarks.extraction import gold, served
from benchmarks.extraction.schemas import SCHEMAS
from benchmarks.extraction.write import rows


@pytest.mark.parametrize("mode", ["json_schema", "auto", "tools", "words"])
def test_every_row_becomes_what_it_should(mode: str) -> None:
    became = list(served(mode))
    odd = [(row["id"], row["damage"], row["became"], row["asked"], str(row["why"])) for row in became if not row["as_expected"]]
    assert not odd
    assert Counter(row["became"] for row in became)["wrong"] == 0
    assert len(became) >= 200


def test_the_set_is_what_its_writer_writes_and_each_damage_does_something() -> None:
    kept: list[tuple[str, dict[str, Any]]] = [(schema, row) for schema, found in gold().items() for row in found]
    assert sorted(kept, key=lambda one: one[1]["id"]) == sorted(rows(), key=lambda one: one[1]["id"])
    assert {schema for schema, _ in kept} == set(SCHEMAS)
    for _, row in kept:
        first, *later = row["said"]
        assert row["damage"] == "clean" or row["expects"] == "never" or first != later[-1]


def test_a_reader_that_takes_the_first_braces_would_be_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The set can tell: what most code does with such answers is wrong without a word on some of its rows, and loses others."""
    from llmkit.operations.answers import Extracted, Invalid, Reader

    def read(self: Reader, text: str, cut: bool = False) -> Extracted:
        try:
            raw = text[text.index("{") : text.rindex("}") + 1]
            data = self._model.model_validate_json(raw).model_dump()
        except ValueError:
            raise Invalid("it is none") from None
        return Extracted(raw, data[self._inner] if self._inner else data)

    monkeypatch.setattr(Reader, "read", read)
    became = Counter((row["became"], row["as_expected"]) for row in served())
    assert became["wrong", False] > 5
    assert sum(times for (_, expected), times in became.items() if not expected) > 40
