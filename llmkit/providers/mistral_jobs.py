"""Mistral's batch jobs, spoken to by the openai SDK as the rest of Mistral's API is: its files are OpenAI's, its jobs are not.

Facts are read in mistralai 3.7 (client/jobs.py, client/files.py, models/batchjob.py) and at
https://docs.mistral.ai/resources/known-limitations, seen 2026-11-21: at most 100,000 requests and 512 MB in a file; 24 hours unless more is
asked for; **results can be fetched for 24 hours after the end**, the file of requests is kept for 30 days. Metadata travels with the job.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..adapter import JobBounds, JobIntent, Jobs, JobState, Target
from ..errors import InvalidRequest, one_line
from .job_calls import SLACK, Account, Classify, answer_of, by_openais_sdk, counted, line, looked_at, outputs_of, submitting, unix

__all__ = ["jobs_of"]

_JOBS = "/batch/jobs"
_BOUNDS = JobBounds(requests=100_000, bytes=512_000_000, kept_hours=24)

#: Of the operations that have jobs, the address as the job is told it.
ENDPOINTS = {"/chat/completions": "/v1/chat/completions", "/embeddings": "/v1/embeddings"}

_ENDED = {"SUCCESS", "FAILED", "TIMEOUT_EXCEEDED", "CANCELLED"}
_PAGE = 100
_HOURS = 24


def jobs_of(make: Callable[[Target], Any], classify_error: Classify) -> Jobs:
    """The jobs of this vendor; ``make(target)`` is the openai SDK's client, retries off."""

    account = by_openais_sdk(make, classify_error)

    def submit(target: Target, file: Path, intent: JobIntent) -> JobState:
        with account(target) as there, submitting(target):
            uploaded = there.upload("/files", file, intent.name, purpose="batch")
            job = {
                "input_files": [uploaded["id"]],
                "endpoint": ENDPOINTS[target.codec.path],
                "model": target.model.name,
                "metadata": {"llmkit": intent.name},
                "timeout_hours": _HOURS,
            }
            return _state(there.post(_JOBS, job))

    def find(target: Target, intent: JobIntent) -> Sequence[JobState]:
        with account(target) as there:
            newest = _newest(there, intent.written - SLACK)
            return [_state(job) for job in newest if (job.get("metadata") or {}).get("llmkit") == intent.name]

    look, cancel = looked_at(account, _JOBS, _state)
    return Jobs(
        bounds=lambda target: _BOUNDS,
        line=lambda custom_id, body, target: line(custom_id, body),
        submit=submit,
        find=find,
        look=look,
        cancel=cancel,
        fetch=outputs_of(account),
        read=lambda line: answer_of(line, classify_error),
    )


def _newest(there: Account, earliest: float) -> Iterator[dict[str, Any]]:
    """The account's jobs, newest first, back to a moment."""
    page = 0
    while True:
        told = there.get(_JOBS, {"page": page, "page_size": _PAGE, "order_by": "-created"})
        jobs = told.get("data") or ()
        for job in jobs:
            if (unix(job.get("created_at")) or 0.0) < earliest:
                return
            yield job
        if len(jobs) < _PAGE:
            return
        page += 1


def _state(job: Mapping[str, Any]) -> JobState:
    said, made = str(job.get("status")), unix(job.get("created_at"))
    complaints = [one_line(error["message"]) for error in job.get("errors") or () if isinstance(error, dict) and error.get("message")]
    return JobState(
        id=str(job["id"]),
        state="ended" if said in _ENDED else "going",
        said=said,
        total=counted(job.get("total_requests")),
        done=counted(job.get("succeeded_requests")),
        failed=counted(job.get("failed_requests")),
        outputs=tuple(str(job[name]) for name in ("output_file", "error_file") if job.get(name)) if said in _ENDED else (),
        error=InvalidRequest(f"the job failed ({'; '.join(complaints) or 'no reason given'})") if said == "FAILED" else None,
        expires=None if made is None else made + _HOURS * 3600,
    )
