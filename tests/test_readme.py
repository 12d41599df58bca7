"""The README's code runs as it stands, and prints what it says it prints."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

README = (Path(__file__).resolve().parents[1] / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)


def test_the_first_example_prints_what_stands_under_it() -> None:
    pytest.importorskip("sklearn")
    place = next(number for number, (language, _) in enumerate(BLOCKS) if language == "python")
    code, shown = BLOCKS[place][1], BLOCKS[place + 1][1]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
        exec(compile(code, "README.md", "exec"), {})
    # pandas 2 prints <NA> where pandas 3 prints NaN, and aligns by it.
    assert printed.getvalue().replace("<NA>", "NaN").split() == shown.split()


@pytest.mark.parametrize("code", [code for language, code in BLOCKS if language == "python"])
def test_every_example_is_python(code: str) -> None:
    compile(code, "README.md", "exec")


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    makefile = (Path(__file__).resolve().parents[1] / "Makefile").read_text("utf-8")
    named = re.findall(r"^make (\w+)", BLOCKS[0][1], re.MULTILINE)
    assert named == ["demo", "test"]
    assert all(re.search(rf"^{name}:", makefile, re.MULTILINE) for name in named)
