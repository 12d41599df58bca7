"""Batch jobs, whoever's: uploaded files, jobs made of them, and results that come out as the vendor's live address would have answered.

Each request of a job is answered by the same handler that answers it live, so that a test can foretell it. What a vendor's jobs look like
from outside is in `wires.jobs`.
"""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from .answers import Seen, Status
from .content import texts_of

if TYPE_CHECKING:
    from .server import Loopback
    from .serving import Vendor

End = Literal["completed", "expired", "cancelled", "failed"]


@dataclass
class File:
    """One uploaded or written file."""

    id: str
    name: str
    purpose: str
    data: bytes
    created: float


@dataclass
class Line:
    """One request of a job and, once it was asked, its answer."""

    custom_id: str
    body: dict[str, Any]
    answer: Status | None = None


@dataclass
class Job:
    """One job. `asked` answers are there once it has ended, the rest of its lines were not got to."""

    id: str
    vendor: Vendor
    path: str  # of the live address, below the vendor's root
    lines: list[Line]
    headers: dict[str, str]
    name: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    model: str = ""
    input_file: str = ""
    created: float = 0.0
    said: End | Literal["going", "cancelling"] = "going"
    output: str | None = None
    errors: str | None = None
    complaint: str = ""

    @property
    def ended(self) -> bool:
        return self.said not in ("going", "cancelling")

    def answered(self, good: bool) -> list[Line]:
        return [line for line in self.lines if line.answer is not None and (line.answer.code < 300) is good]

    @property
    def unasked(self) -> list[Line]:
        return [line for line in self.lines if line.answer is None]


class Batches:
    """The files and jobs of a server. Settings may be changed at any time, from any thread; jobs go on when they are looked at."""

    def __init__(self, server: Loopback) -> None:
        self._server = server
        self.reset()

    def reset(self) -> None:
        self.files: dict[str, File] = {}
        self.jobs: dict[str, Job] = {}
        self.asked: Counter[str] = Counter()  # how often each text was asked by jobs
        self.held = False  # whether jobs go on for ever, until `held` is False again
        self.end: End = "completed"  # how jobs end
        self.complaint = "invalid_json_line", "the file is not as it should be"  # code and message of a job that fails
        self.share = 1.0  # of its requests that a job gets to before it ends
        self.shuffled = True  # results in another order than the requests
        self.null_output = False  # a job that ends so has no file of results, whatever it answered
        self.ranges = True  # whether downloads can be taken up where they broke off
        self.refuse: Callable[[str], Status | None] = lambda text: None  # from a request's text to what it alone is refused with
        self._numbers = itertools.count(1)

    def identifier(self, length: int = 24) -> str:
        """Letters that look like a vendor's id."""
        return f"{random.Random(next(self._numbers)).getrandbits(4 * length):0{length}x}"

    def keep(self, name: str, purpose: str, data: bytes, prefix: str = "file-") -> File:
        file = File(f"{prefix}{self.identifier()}", name, purpose, data, time.time())
        self.files[file.id] = file
        return file

    def make(self, job: Job) -> Job:
        job.created = time.time()
        self.jobs[job.id] = job
        return job

    def look(self, id: str) -> Job | None:
        job = self.jobs.get(id)
        if job is not None and not job.ended and not self.held:
            self._finish(job, "cancelled" if job.said == "cancelling" else self.end)
        return job

    def cancel(self, job: Job) -> None:
        """It ends at once where it is not held, in its own time where it is."""
        job.said = "cancelling"

    def _finish(self, job: Job, end: End) -> None:
        if end != "failed":
            for line in job.lines[: int(len(job.lines) * self.share)]:
                line.answer = self._answer(job, line)
        if self.shuffled:
            random.Random(1).shuffle(job.lines)
        job.said = end
        job.complaint = self.complaint[1] if end == "failed" else ""

    def _answer(self, job: Job, line: Line) -> Status:
        from .server import routed

        texts = texts_of(line.body)
        self.asked.update(texts)
        refused = next(filter(None, map(self.refuse, texts)), None)
        if refused is not None:
            return refused
        request = Seen("POST", job.vendor.root + job.path, job.headers, line.body, texts, time.monotonic(), number=next(self._numbers))
        return routed(self._server, job.vendor, request, job.path)
