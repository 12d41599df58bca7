"""Who takes part in a benchmark: llmkit where no rivals are named, else those rivals that are installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from .contest import Job, contest
from .measure import Measured
from .peers import chosen


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    quick: bool = False
    full: bool = False
    only: Sequence[str] = ()
    rivals: Sequence[str] = field(default_factory=list)

    def wants(self, condition: str) -> bool:
        return not self.only or condition in self.only


def contestants(options: Options) -> Iterator[tuple[str, Callable[[Job], Measured]]]:
    """(name, what does a job)."""
    if not options.rivals:
        yield "llmkit", lambda job: contest("benchmarks.ours", "llmkit", job)
        return
    for peer in chosen(options.rivals):
        if peer.absent:
            print(f"{peer.name}: not installed, passed over (make peers)")
        else:
            yield peer.name, peer.run
