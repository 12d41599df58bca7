"""``docs/faults.md`` is true: every fault stands there once, with tests that are there or with the reason why there are none yet."""

from __future__ import annotations

import ast
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
PAGE = (TESTS.parent / "docs" / "faults.md").read_text("utf-8")
NOT_YET = "not yet: "


@dataclass(frozen=True)
class Fault:
    id: str
    what: str
    done: str
    shown: tuple[tuple[str, str], ...]
    missing: str


def faults() -> list[Fault]:
    found = []
    for line in PAGE.splitlines():
        if re.match(r"\| [A-Z]{2}\d\d \|", line):
            name, what, done, shown = (cell.strip() for cell in line.strip("|").split(" | "))
            tests = tuple(re.findall(r"`([\w/]+\.py)::(test_\w+)`", shown))
            found.append(Fault(name, what, done, tests, shown.partition(NOT_YET)[2]))
    return found


@cache
def named_in(file: str) -> frozenset[str]:
    tree = ast.walk(ast.parse((TESTS / file).read_text("utf-8")))
    functions = [node.name for node in tree if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return frozenset(name for name in functions if name.startswith("test_"))


def test_every_fault_stands_there_once() -> None:
    assert len(faults()) >= 92
    assert [name for name, times in Counter(fault.id for fault in faults()).items() if times > 1] == []
    lines = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith(("| id |", "| --- |"))]
    assert len(lines) == len(faults())


@pytest.mark.parametrize("fault", faults(), ids=lambda fault: fault.id)
def test_a_fault_has_tests_that_are_there_or_a_reason(fault: Fault) -> None:
    assert fault.what
    assert fault.done
    assert fault.shown or fault.missing
    assert [f"{file}::{name}" for file, name in fault.shown if not (TESTS / file).is_file() or name not in named_in(file)] == []


@pytest.mark.parametrize("file", sorted(str(path.relative_to(TESTS)) for path in TESTS.glob("engine/test_faults*.py")))
def test_a_test_that_is_named_by_a_fault_stands_beside_it(file: str) -> None:
    beside = {fault.id: {name for _, name in fault.shown} for fault in faults()}
    for name in named_in(file):
        for number in re.findall(r"[a-z]{2}\d\d(?=_)", name):
            assert name in beside.get(number.upper(), {name})


def test_the_sum_at_the_head_of_the_page_is_right() -> None:
    told = re.search(r"^(\d+) faults .*? (\d+) are shown by tests, (\d+) in part, (\d+) not yet\.", PAGE, re.MULTILINE)
    assert told is not None
    whole = sum(bool(fault.shown) and not fault.missing for fault in faults())
    partly = sum(bool(fault.shown and fault.missing) for fault in faults())
    assert [int(number) for number in told.groups()] == [len(faults()), whole, partly, len(faults()) - whole - partly]
