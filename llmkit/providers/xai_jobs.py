"""xAI's batch jobs: a file as OpenAI has it, jobs and results in a form of their own.

Facts are from https://docs.x.ai/developers/advanced-api-usage/batch-api, https://batchwork.dev/providers/xai and LiteLLM's
llms/xai/batches, seen 2026-11-21: a job has a name and counters, but no status; results come in pages of JSON, under the name of the call
that they answer; at most 50,000 requests and 200 MB in a file; most end within a day; cheaper by a fifth or more, and no rate limit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from ..adapter import JobAnswer, JobBounds, JobIntent, Jobs, JobState, Target
from ..errors import InvalidRequest, one_line
from .job_calls import Account, Classify, by_openais_sdk, counted, line, submitting, unix, written

__all__ = ["jobs_of"]

_BATCHES = "/batches"
_BOUNDS = JobBounds(requests=50_000, bytes=200_000_000)
_PAGE = 100

#: Google's numbers of what went wrong, which come with single requests, as statuses of HTTP (google/rpc/code.proto).
_STATUS = {3: 400, 5: 404, 7: 403, 8: 429, 13: 500, 14: 503, 16: 401}


def jobs_of(make: Callable[[Target], Any], classify_error: Classify) -> Jobs:
    """The jobs of this vendor; ``make(target)`` is the openai SDK's client, retries off."""

    account = by_openais_sdk(make, classify_error)

    def submit(target: Target, file: Path, intent: JobIntent) -> JobState:
        with account(target) as there, submitting(target):
            uploaded = there.upload("/files", file, intent.name, purpose="batch")
            return _state(there.post(_BATCHES, {"name": intent.name, "input_file_id": uploaded["id"]}))

    def find(target: Target, intent: JobIntent) -> Sequence[JobState]:
        with account(target) as there:
            # No order of the list is documented: all of it is looked through.
            return [_state(job) for page in _pages(there, _BATCHES) for job in page.get("batches") or () if job.get("name") == intent.name]

    def look(target: Target, id: str) -> JobState:
        with account(target) as there:
            return _state(there.get(f"{_BATCHES}/{id}"))

    def cancel(target: Target, id: str) -> JobState:
        with account(target) as there:
            return _state(there.post(f"{_BATCHES}/{id}:cancel"))

    def fetch(target: Target, state: JobState, path: Path) -> None:
        def write(file: BinaryIO) -> None:
            for page in _pages(there, f"{_BATCHES}/{state.id}/results"):
                for result in page.get("results") or ():
                    file.write(orjson.dumps(result, option=orjson.OPT_APPEND_NEWLINE))

        with account(target) as there:
            written(path, write)

    def line_of(custom_id: str, body: bytes, target: Target) -> bytes:
        return line(custom_id, body, method="POST", url=f"/v1{target.codec.path}")

    return Jobs(
        bounds=lambda target: _BOUNDS,
        line=line_of,
        submit=submit,
        find=find,
        look=look,
        cancel=cancel,
        fetch=fetch,
        read=lambda line: _read(line, classify_error),
    )


def _pages(there: Account, path: str) -> Iterator[dict[str, Any]]:
    query: dict[str, Any] = {"limit": _PAGE}
    while True:
        page = there.get(path, query)
        yield page
        if not page.get("pagination_token") or not (page.get("results") or page.get("batches")):
            return
        query["pagination_token"] = page["pagination_token"]


def _state(job: Mapping[str, Any]) -> JobState:
    counts = {name: counted(count) for name, count in (job.get("state") or {}).items()}
    total, refused = counts.get("num_requests", 0), job.get("cancel_by_xai_message")
    # A job without requests is one whose file was not read yet.
    ended = bool(job.get("cancel_time")) or (total > 0 and counts.get("num_pending", 0) == 0)
    said = "refused" if refused else "cancelled" if job.get("cancel_time") else "completed" if ended else "going"
    answered = counts.get("num_success", 0) + counts.get("num_error", 0)
    return JobState(
        id=str(job["batch_id"]),
        state="ended" if ended else "going",
        said=said,
        total=total,
        done=counts.get("num_success", 0),
        failed=counts.get("num_error", 0) + counts.get("num_cancelled", 0),
        outputs=("results",) if ended and answered else (),
        error=InvalidRequest(f"the job was refused ({one_line(refused)})") if refused else None,
        expires=unix(job.get("expire_time")),
    )


def _read(line: bytes, classify_error: Classify) -> JobAnswer:
    data = orjson.loads(line)
    custom_id = data.get("batch_request_id") if isinstance(data, dict) else None
    if not isinstance(custom_id, str):
        raise ValueError("not a result line")
    result = data.get("batch_result") or {}
    answers = result.get("response")
    if isinstance(answers, dict) and answers:
        return JobAnswer(custom_id, orjson.dumps(next(iter(answers.values()))))
    error = result.get("error") or data.get("error") or {}
    code = counted(error.get("code"))
    if code == 1:  # CANCELLED
        return JobAnswer(custom_id, asked=False)
    told = orjson.dumps({"error": {"message": error.get("message") or "no reason given"}})
    return JobAnswer(custom_id, error=classify_error(_STATUS.get(code, 400), {}, told))
