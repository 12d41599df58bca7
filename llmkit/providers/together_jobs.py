"""Together's batch jobs: OpenAI's in outline, with another upload, other words and no metadata.

Facts are from https://docs.together.ai/reference/upload-file, batch-create, batch-get and batch-list beside it, and
https://docs.together.ai/docs/inference/batch/manage, seen 2026-11-21: 50,000 requests and 100 MB (https://www.together.ai/blog/batch-api);
24 hours, best effort; up to half the price; what was answered before a job was cancelled is in its output file and billed. Our name is
the name of the file that a job was made of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..adapter import JobBounds, JobIntent, Jobs, JobState, Target
from ..errors import InvalidRequest, one_line
from .job_calls import Classify, answer_of, by_openais_sdk, line, looked_at, outputs_of, submitting, unix

__all__ = ["jobs_of"]

_BATCHES = "/batches"
_BOUNDS = JobBounds(requests=50_000, bytes=100_000_000)
_ENDED = {"COMPLETED", "FAILED", "EXPIRED", "CANCELLED"}


def jobs_of(make: Callable[[Target], Any], classify_error: Classify) -> Jobs:
    """The jobs of this vendor; ``make(target)`` is the openai SDK's client, retries off."""

    account = by_openais_sdk(make, classify_error)

    def submit(target: Target, file: Path, intent: JobIntent) -> JobState:
        with account(target) as there, submitting(target):
            form = {"purpose": "batch-api", "file_name": f"{intent.name}.jsonl", "file_type": "jsonl"}
            uploaded = there.upload("/files/upload", file, intent.name, **form)
            job = {"input_file_id": uploaded["id"], "endpoint": f"/v1{target.codec.path}", "completion_window": "24h"}
            return _state(there.post(_BATCHES, job))

    def find(target: Target, intent: JobIntent) -> Sequence[JobState]:
        with account(target) as there:
            files = {file["id"] for file in there.get("/files").get("data") or () if file.get("filename") == f"{intent.name}.jsonl"}
            if not files:
                return []  # the file goes up first
            return [_state(job) for job in there.get(_BATCHES).get("data") or () if job.get("input_file_id") in files]

    look, cancel = looked_at(account, _BATCHES, _state)
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


def _state(told: Mapping[str, Any]) -> JobState:
    job = told.get("job") or told  # a new job comes wrapped, with a warning beside it
    said = str(job.get("status"))
    ended = said in _ENDED
    return JobState(
        id=str(job["id"]),
        state="ended" if ended else "going",
        said=said,  # how far it is comes as a share, of which no counts can be made
        outputs=tuple(str(job[name]) for name in ("output_file_id", "error_file_id") if job.get(name)) if ended else (),
        error=InvalidRequest(f"the job failed ({one_line(job.get('error') or 'no reason given')})") if said == "FAILED" else None,
        expires=unix(job.get("job_deadline")),
    )
