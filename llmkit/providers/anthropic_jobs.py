"""Anthropic's batch jobs: Message Batches.

Facts are read in anthropic 2.12 (resources/messages/batches.py, types/messages/message_batch*.py) and at
https://platform.claude.com/docs/en/build-with-claude/batch-processing, seen 2026-11-21: at most 100,000 requests or 256 MB, all in the body
of one post; 24 hours; results in any order, to be had for 29 days; half the price, and nothing for what errored, expired or was
cancelled. A batch carries no name and no metadata.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from ..adapter import JobAnswer, JobBounds, JobIntent, Jobs, JobState, Target
from ..errors import InvalidRequest
from .job_calls import SLACK, Account, Classify, counted, looked_at, submitting, unix

__all__ = ["jobs_of"]

_BATCHES = "/v1/messages/batches"
_HEAD, _TAIL = b'{"requests":[', b"]}"

#: The documented 256 MB, read as the smaller of its two meanings, less what stands around the requests.
_BOUNDS = JobBounds(requests=100_000, bytes=256_000_000 - len(_HEAD) - len(_TAIL))

#: Of one page of the list; up to 1,000.
_PAGE = 100


def jobs_of(make: Callable[[Target], Any], classify_error: Classify) -> Jobs:
    """The jobs of this wire.

    Parameters
    ----------
    make : callable
        ``make(target) -> the SDK's client``, retries off.
    classify_error : callable
        The adapter's.
    """

    def account(target: Target) -> Account:
        import anthropic

        return Account(anthropic, make(target), classify_error)

    def submit(target: Target, file: Path, intent: JobIntent) -> JobState:
        body = _Body(file)
        # With its length said it travels as any other body; otherwise in chunks, which nobody says are taken.
        headers = {"Content-Type": "application/json", "Content-Length": str(body.length)}
        with account(target) as there, submitting(target):
            return _state(there.json(there.sent(_BATCHES, headers, content=body)))

    def find(target: Target, intent: JobIntent) -> Sequence[JobState]:
        earliest = intent.written - SLACK
        with account(target) as there:
            found = [
                _state(batch, certain=False)
                for batch in _newest(there, earliest)
                if sum(map(counted, (batch.get("request_counts") or {}).values())) == intent.requests
            ]
        return found[::-1]  # the one that was made next after the intent first

    def fetch(target: Target, state: JobState, path: Path) -> None:
        with account(target) as there:
            there.save([_ours(output, target.provider.base_url) for output in state.outputs], path)

    def read(line: bytes) -> JobAnswer:
        return _read(line, classify_error)

    look, cancel = looked_at(account, _BATCHES, _state)
    return Jobs(bounds=lambda target: _BOUNDS, line=_line, submit=submit, find=find, look=look, cancel=cancel, fetch=fetch, read=read)


def _line(custom_id: str, body: bytes, target: Target) -> bytes:
    return b'{"custom_id":%s,"params":%s}' % (orjson.dumps(custom_id), body)


class _Body:
    """The body of the post that makes a job, made from its file of lines as it is sent: line ends become commas, so its length is known."""

    def __init__(self, file: Path) -> None:
        self._file = file
        with file.open("rb") as lines:
            self._size = lines.seek(0, 2)
            if self._size:
                lines.seek(-1, 2)
                self._size -= lines.read(1) == b"\n"
        self.length = len(_HEAD) + self._size + len(_TAIL)

    def __iter__(self) -> Iterator[bytes]:
        yield _HEAD
        left = self._size
        with self._file.open("rb") as lines:
            while left and (piece := lines.read(min(left, 1 << 20))):
                left -= len(piece)
                yield piece.replace(b"\n", b",")
        yield _TAIL


def _newest(there: Account, earliest: float) -> Iterator[dict[str, Any]]:
    """The account's batches, newest first, back to a moment."""
    query: dict[str, Any] = {"limit": _PAGE}
    while True:
        page = there.get(_BATCHES, query)
        for batch in page.get("data") or ():
            if (unix(batch.get("created_at")) or 0.0) < earliest:
                return
            yield batch
        if not page.get("has_more") or not page.get("last_id"):
            return
        query["after_id"] = page["last_id"]


def _state(batch: Mapping[str, Any], *, certain: bool = True) -> JobState:
    counts = {name: counted(count) for name, count in (batch.get("request_counts") or {}).items()}
    ended, archived = batch.get("processing_status") == "ended", batch.get("archived_at")
    gone = InvalidRequest("the job's results are gone: Anthropic keeps them for 29 days", kind="results_gone") if archived else None
    return JobState(
        id=str(batch["id"]),
        state="ended" if ended else "going",
        said=str(batch.get("processing_status")),
        total=sum(counts.values()),
        done=counts.get("succeeded", 0),
        failed=sum(counts.get(name, 0) for name in ("errored", "canceled", "expired")),
        outputs=(str(batch["results_url"]),) if ended and batch.get("results_url") and not archived else (),
        error=gone,
        expires=unix(batch.get("expires_at")),
        certain=certain,
    )


def _ours(url: str, base_url: str) -> str:
    """Where the results are, as this account reaches it: a gateway hands on Anthropic's own address, where its key has no business."""
    return url if url.startswith(f"{base_url}/") else urlsplit(url)._replace(scheme="", netloc="").geturl()


def _read(line: bytes, classify_error: Classify) -> JobAnswer:
    data = orjson.loads(line)
    custom_id, result = (data.get("custom_id"), data.get("result")) if isinstance(data, dict) else (None, None)
    if not isinstance(custom_id, str) or not isinstance(result, dict):
        raise ValueError("not a result line")
    kind = result.get("type")
    if kind == "succeeded":
        return JobAnswer(custom_id, orjson.dumps(result["message"]))
    if kind in ("expired", "canceled"):
        return JobAnswer(custom_id, asked=False)
    if kind != "errored":
        raise ValueError("not a result line")
    error = result.get("error") or {}
    # Its type says the status that a live call would have had; an error without one is a server's fault.
    return JobAnswer(custom_id, error=classify_error(200, {"request-id": error.get("request_id") or ""}, orjson.dumps(error)))
