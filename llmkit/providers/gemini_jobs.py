"""Gemini's batch jobs at its OpenAI-compatible address: jobs and lines as OpenAI has them, files by Gemini's own API.

Facts are from https://ai.google.dev/gemini-api/docs/openai ("Compatibility for upload and download is currently not supported": files go up
and come down by the native API), https://ai.google.dev/gemini-api/docs/batch-api and https://ai.google.dev/gemini-api/docs/files, seen
2026-11-21: a file of at most 2 GB, kept for 48 hours; 24 hours, expired after 48; half the price. Always by a file whose lines have keys,
never inline: inline results came back permuted beyond a thousand (googleapis/js-genai#1207). Only the three documented members of a job
are sent, and no metadata is documented: our name is the display name of the file, by which the native list of jobs finds the job again.
Recorded exchanges (google-gemini/cookbook, quickstarts/Get_started_OpenAI_Compatibility.ipynb, 2026-11-21): a job's id is
``batches/<letters>`` at both addresses, and a line is ``{"response": {"status_code": 200, "body": {...}}, "custom_id": ...}``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..adapter import JobBounds, JobIntent, Jobs, JobState, Target
from ..errors import InvalidRequest, RequestError, ServerFault, one_line
from .job_calls import SLACK, Account, Classify, answer_of, by_openais_sdk, counted, is_gone, line, submitting, unix

__all__ = ["COMPATIBLE", "jobs_of"]

#: Where the compatible address ends; what stands before it is the native API's.
COMPATIBLE = "/v1beta/openai"

ENDPOINTS = {"/chat/completions": "/v1/chat/completions", "/embeddings": "/v1/embeddings"}

#: No number of requests is documented. A hundred thousand keep what one failed job costs, and its results, within reason.
_BOUNDS = JobBounds(requests=100_000, bytes=2_000_000_000)

#: The native words of a list, beside OpenAI's of the compatible address.
_ENDED = {"completed", "failed", "expired", "cancelled", "SUCCEEDED", "FAILED", "EXPIRED", "CANCELLED"}
_FAILED = {"failed", "FAILED"}


def jobs_of(make: Callable[[Target], Any], classify_error: Classify) -> Jobs:
    """The jobs of this vendor; ``make(target)`` is the openai SDK's client, retries off."""

    account = by_openais_sdk(make, classify_error)

    def submit(target: Target, file: Path, intent: JobIntent) -> JobState:
        with account(target) as there, submitting(target):
            uploaded = _uploaded(there, target, file, intent.name)
            job = {"input_file_id": uploaded, "endpoint": ENDPOINTS[target.codec.path], "completion_window": "24h"}
            return _state(there.post("/batches", job))

    def find(target: Target, intent: JobIntent) -> Sequence[JobState]:
        with account(target) as there:
            files = [file for file in _listed(there, target, "files") if file.get("displayName") == intent.name]
            if not files:
                return []  # the file goes up first, and is kept longer than a job may wait
            names = {file.get("name") for file in files}
            since = min(unix(file.get("createTime")) or intent.written for file in files) - SLACK
            found = []
            for job in _listed(there, target, "batches", "operations"):
                about = job.get("metadata") or {}
                given = (about.get("inputConfig") or {}).get("fileName")
                total = counted((about.get("batchStats") or {}).get("requestCount"))
                if given in names:
                    found.append(_native(job, certain=True))
                elif not given and total == intent.requests and (unix(about.get("createTime")) or 0.0) >= since:
                    # Nobody documents that a job of the compatible address names its file in the native list.
                    found.append(_native(job, certain=False))
            return found

    def look(target: Target, id: str) -> JobState:
        with account(target) as there:
            return _state(there.get(f"/batches/{id}"))

    def cancel(target: Target, id: str) -> JobState:
        try:
            with account(target) as there:
                there.post(f"/batches/{id}/cancel")
        except RequestError as error:
            return is_gone(lambda: look(target, id), error)
        return look(target, id)

    def fetch(target: Target, state: JobState, path: Path) -> None:
        with account(target) as there:
            sources = [f"{_native_root(target)}/download/v1beta/{output}:download?alt=media" for output in state.outputs]
            there.save(sources, path, _native_key(target))

    def line_of(custom_id: str, body: bytes, target: Target) -> bytes:
        return line(custom_id, body, method="POST", url=ENDPOINTS[target.codec.path])

    return Jobs(
        bounds=lambda target: _BOUNDS,
        line=line_of,
        submit=submit,
        find=find,
        look=look,
        cancel=cancel,
        fetch=fetch,
        read=lambda line: answer_of(line, classify_error),
    )


def _native_root(target: Target) -> str:
    return target.provider.base_url.removesuffix(COMPATIBLE)


def _native_key(target: Target) -> dict[str, Any]:
    """The native API takes the key in a header of its own, and an ``Authorization`` for an account of Google's."""
    import openai

    return {"Authorization": openai.omit, "x-goog-api-key": target.secret.reveal() if target.secret else "none"}


def _uploaded(there: Account, target: Target, file: Path, name: str) -> str:
    """The name of the uploaded file. It is read from the disk as it is sent."""
    root, key, size = _native_root(target), _native_key(target), str(file.stat().st_size)
    asked = {
        **key,
        "X-Goog-Upload-Protocol": "resumable",
        "X-Goog-Upload-Command": "start",
        "X-Goog-Upload-Header-Content-Length": size,
        "X-Goog-Upload-Header-Content-Type": "application/jsonl",
    }
    begun = there.sent(f"{root}/upload/v1beta/files", asked, body={"file": {"displayName": name}})
    where = begun.headers.get("x-goog-upload-url", "")
    if urlsplit(where)[:2] != urlsplit(root)[:2]:  # the prompts are sent to where the key belongs, or not at all
        raise ServerFault("the upload was sent elsewhere", kind="bad_response")
    wanted = {
        "Authorization": key["Authorization"],  # none: the address was made for this upload
        "Content-Type": "application/jsonl",
        "Content-Length": size,
        "X-Goog-Upload-Offset": "0",
        "X-Goog-Upload-Command": "upload, finalize",
    }
    with file.open("rb") as content:
        told = there.json(there.sent(where, wanted, content=content))
    return str(told["file"]["name"])


def _listed(there: Account, target: Target, what: str, member: str = "") -> Iterator[dict[str, Any]]:
    query: dict[str, Any] = {"pageSize": 100}
    while True:
        page = there.get(f"{_native_root(target)}/v1beta/{what}", query, _native_key(target))
        yield from page.get(member or what) or ()
        if not page.get("nextPageToken"):
            return
        query["pageToken"] = page["nextPageToken"]


def _state(job: Mapping[str, Any]) -> JobState:
    """A job as the compatible address tells it."""
    said = str(job.get("status"))
    counts = job.get("request_counts") or {}
    complaints = [one_line(error.get("message") or "") for error in (job.get("errors") or {}).get("data") or ()]
    return JobState(
        id=str(job["id"]),
        state="ended" if said in _ENDED else "going",
        said=said,
        total=counted(counts.get("total")),
        done=counted(counts.get("completed")),
        failed=counted(counts.get("failed")),
        outputs=tuple(str(job[name]) for name in ("output_file_id", "error_file_id") if job.get(name)) if said in _ENDED else (),
        error=_failure("; ".join(filter(None, complaints))) if said in _FAILED else None,
        expires=unix(job.get("expires_at")),
    )


def _native(job: Mapping[str, Any], *, certain: bool) -> JobState:
    """A job as the native list tells it: an operation whose metadata is the batch."""
    about = job.get("metadata") or {}
    said = str(about.get("state")).removeprefix("BATCH_STATE_").removeprefix("JOB_STATE_")
    counts = about.get("batchStats") or {}
    ended = said in _ENDED
    output = ((about.get("output") or {}).get("responsesFile")) or ((job.get("response") or {}).get("responsesFile"))
    return JobState(
        id=str(job.get("name") or about.get("name")),
        state="ended" if ended else "going",
        said=said,
        total=counted(counts.get("requestCount")),
        done=counted(counts.get("successfulRequestCount")),
        failed=counted(counts.get("failedRequestCount")),
        outputs=(str(output),) if ended and output else (),
        error=_failure(one_line((job.get("error") or {}).get("message") or "")) if said in _FAILED else None,
        certain=certain,
    )


def _failure(said: str) -> InvalidRequest:
    return InvalidRequest(f"the job failed ({said or 'no reason given'})")
