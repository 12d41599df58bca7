"""The rivals: one script each, written as its own documentation says it is best used for thousands of rows; no dependency of llmkit.

Each has an environment of its own (``make peers``). One that is absent is passed over with a word.
"""

from __future__ import annotations

import importlib
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..contest import Job, contest
from ..measure import ROOT, Measured

ENVIRONMENTS = ROOT / "benchmarks" / ".peers"


class GaveUp(Exception):
    """A rival did not finish, or could not begin. That is a finding; of llmkit it is a failure."""


@dataclass(frozen=True)
class Peer:
    """One rival in one of its settings."""

    script: str
    name: str

    @property
    def python(self) -> Path:
        return ENVIRONMENTS / self.script / "bin" / "python"

    @property
    def absent(self) -> bool:
        return not self.python.exists()

    def run(self, job: Job) -> Measured:
        try:
            return contest(f"{__name__}.{self.script}", self.name, job, self.python, tokenizers())
        except RuntimeError as error:
            raise GaveUp(str(error)) from None


def tokenizers() -> dict[str, str]:
    """Several rivals fetch OpenAI's vocabularies from the internet at first use; litellm's package has them, in tiktoken's own form."""
    found = sorted((ENVIRONMENTS / "litellm").glob("lib/*/site-packages/litellm/litellm_core_utils/tokenizers"))
    return {"TIKTOKEN_CACHE_DIR": str(found[0])} if found else {}


def pinned() -> dict[str, list[str]]:
    """What each environment holds."""
    environments: dict[str, list[str]] = tomllib.loads((ROOT / "benchmarks" / "peers.toml").read_text("utf-8"))["environments"]
    return environments


def chosen(names: Sequence[str]) -> Iterator[Peer]:
    """The rivals of these names, or of these scripts' names; all for ``["all"]``."""
    known = [Peer(script, name) for script in pinned() for name in importlib.import_module(f"{__name__}.{script}").CONTESTANTS]
    unknown = set(names) - {"all"} - {one.name for one in known} - set(pinned())
    if unknown:
        raise SystemExit(f"no rival is named {', '.join(sorted(unknown))}; there are {', '.join(one.name for one in known)}")
    for one in known:
        if "all" in names or one.name in names or one.script in names:
            yield one
