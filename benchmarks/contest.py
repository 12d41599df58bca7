"""One contestant does one job in a fresh process, and is measured. The standard library alone: rivals' environments import it too.

A contestant is a function from a ``Job`` to a function from prompts to answers, in their order, ``None`` where there is none. What it
prepares (clients, imports) is not measured, nor is a small job on ``/free/v1``, a provider without limits, that comes first: what is
loaded lazily is loaded by it, and nothing is learned from it about the account.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .measure import ROOT, Measured, Meter
from .rows import answer, long_text, text

KEY = "sk-bench"
MODEL = "bench-1"

#: The warm-up's rows are no row's of the job.
_WARM_UP = range(9_000_000, 9_000_032)


@dataclasses.dataclass(frozen=True)
class Job:
    url: str
    rows: int
    #: How many of the rows differ; 0 for all.
    different: int = 0
    #: Of each prompt; 0 for a line.
    characters: int = 0
    #: Requests in flight; 0 leaves it to the tool, or to its documentation.
    in_flight: int = 0
    #: Seconds for one attempt; 0 leaves it to the tool.
    timeout: float = 0.0
    #: Limits that the tool is told; 0 for none.
    requests_per_minute: int = 0
    tokens_per_minute: int = 0

    def prompts(self, numbers: Sequence[int] | None = None) -> list[str]:
        numbers = self.numbers if numbers is None else numbers
        return [long_text(number, self.characters) if self.characters else text(number) for number in numbers]

    @property
    def numbers(self) -> list[int]:
        return [number % (self.different or self.rows) for number in range(self.rows)]

    @property
    def free(self) -> Job:
        """The same without limits, faults and latency."""
        return dataclasses.replace(self, url=self.url.removesuffix("/v1") + "/free/v1", requests_per_minute=0, tokens_per_minute=0)


Ask = Callable[[list[str]], Sequence[Any]]
Contestant = Callable[[Job], Ask]


def gathering(ask: Callable[[str], Awaitable[Any]], prompts: Sequence[str], in_flight: int = 0) -> Awaitable[list[Any]]:
    """``asyncio.gather`` over all prompts, as every SDK's page shows it; a semaphore where ``in_flight`` is bounded."""
    bound = asyncio.Semaphore(in_flight or len(prompts))

    async def one(prompt: str) -> Any:
        async with bound:
            return await ask(prompt)

    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*map(one, prompts), return_exceptions=True)

    return all_of_them()


def _measured(contestant: Contestant, job: Job) -> Measured:
    wanted = [answer(number) for number in job.numbers]
    prompts = job.prompts()
    raised: list[str] = []
    contestant(job.free)(job.free.prompts(_WARM_UP))
    ask = contestant(job)
    with Meter(job.rows) as meter:
        try:
            answers = list(ask(prompts))
        except Exception as error:
            raised.append(f"{type(error).__name__}: {error}"[:300])
            answers = [None] * job.rows
    raised += [f"{type(one).__name__}: {one}"[:300] for one in answers if isinstance(one, Exception)][:1]
    answers = [None if isinstance(one, Exception) or one != one else one for one in answers]  # NaN is missing too
    wrong = sum(1 for got, want in zip(answers, wanted, strict=True) if got is not None and want not in str(got))
    return {**meter.found, "lost": sum(got is None for got in answers), "wrong": wrong, "raised": raised}


def serve_as_contestant(contestants: Mapping[str, Contestant]) -> None:
    """For the ``__main__`` of a module: ``python -m MODULE CONTESTANT JOB``, the job as JSON; prints what was measured."""
    parser = argparse.ArgumentParser()
    parser.add_argument("contestant", choices=contestants)
    parser.add_argument("job", type=json.loads)
    given = parser.parse_args()
    if stat.S_ISFIFO(os.fstat(0).st_mode):
        threading.Thread(target=_end_with_parent, daemon=True).start()
    found = json.dumps(_measured(contestants[given.contestant], Job(**given.job)))
    sys.stdout.flush()
    print(f"\n{found}", flush=True)
    os._exit(0)  # some tools leave threads behind that never end


def _end_with_parent() -> None:
    os.read(0, 1)  # nothing is ever written: it returns when the pipe's other end closes
    os._exit(1)


@contextmanager
def _pipe() -> Iterator[int]:
    """The end of a pipe that a child reads; the other end closes with the block, or with this process."""
    reads, writes = os.pipe()
    try:
        yield reads
    finally:
        os.close(reads)
        os.close(writes)


def contest(
    module: str, contestant: str, job: Job, python: Path | None = None, also: Mapping[str, str] | None = None, patience: float = 500.0
) -> Measured:
    """The measurement, in a process of its own whose home, working and cache directories are empty and thrown away."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home, _pipe() as end:
        process = subprocess.Popen(
            [python or sys.executable, "-m", module, contestant, json.dumps(dataclasses.asdict(job))],
            cwd=home,
            env={**_environment(home), **(also or {})},
            stdin=end,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            said, complained = process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"no end after {patience:.0f} s") from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if process.returncode:
        raise RuntimeError(f"exit {process.returncode}: {complained.strip()[-1500:]}")
    measured: Measured = json.loads(said.splitlines()[-1])
    return measured


def _environment(home: str) -> dict[str, str]:
    """Nothing of the user's: no keys, no configuration; telemetry and update checks off where a tool has a switch."""
    return {
        "PATH": os.environ.get("PATH", ""),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": home,
        "TMPDIR": home,
        "XDG_CACHE_HOME": home,
        "XDG_CONFIG_HOME": home,
        "XDG_DATA_HOME": home,
        "LLMKIT_CACHE_DIR": home,
        "DO_NOT_TRACK": "1",
        "TELEMETRY_ENABLED": "false",
        "ANONYMIZED_TELEMETRY": "false",
        "LANGSMITH_TRACING": "false",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_MODE": "PRODUCTION",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "OPENAI_API_KEY": KEY,
        "no_proxy": "127.0.0.1",
    }
