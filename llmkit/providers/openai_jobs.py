"""OpenAI's batch jobs, and those of servers that speak its ``/files`` and ``/batches`` (vLLM, LiteLLM, sglang, ...).

Facts are read in openai 3.54 (types/batch.py, resources/batches.py) and at https://platform.openai.com/docs/guides/batch, seen 2026-11-21:
50,000 requests, 200 MB and, for embeddings, 50,000 texts in all a job; 24 hours; half the price. A job that expired or was cancelled still
has its output file (warmbly/warmbly#333), one that completed may have none (openai/openai-cookbook#1564).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from ..adapter import JobBounds, JobIntent, Jobs, JobState, Target
from ..errors import InvalidRequest, LLMError, RateLimited
from .job_calls import Account, Classify, answer_of, by_openais_sdk, counted, line, looked_at, outputs_of, submitting, unix

__all__ = ["jobs_of"]

#: The documented 200 MB, read as the smaller of its two meanings.
_BOUNDS = JobBounds(requests=50_000, bytes=200_000_000, inputs=50_000)

#: Where the name of a job stands in its metadata.
_NAME = "llmkit"
_ENDED = {"failed", "completed", "expired", "cancelled"}
#: Seconds back from the intent in which its job is looked for: the name tells it apart, and our clock may have been wrong by hours.
_BACK = 48 * 3600.0
#: Of one page of the list, at the most.
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

    account = by_openais_sdk(make, classify_error)

    def state_of(batch: Mapping[str, Any]) -> JobState:
        return _state(batch, classify_error)

    def submit(target: Target, file: Path, intent: JobIntent) -> JobState:
        with account(target) as there, submitting(target):
            uploaded = there.upload("/files", file, intent.name, purpose="batch")
            body = {
                "input_file_id": uploaded["id"],
                "endpoint": f"/v1{target.codec.path}",
                "completion_window": "24h",
                "metadata": {_NAME: intent.name},
            }
            return state_of(there.post("/batches", body))

    def find(target: Target, intent: JobIntent) -> Sequence[JobState]:
        with account(target) as there:
            named = [
                batch
                for batch in _newest(there, min(intent.written, time.time()) - _BACK)
                if (batch.get("metadata") or {}).get(_NAME) == intent.name
            ]
        return [state_of(batch) for batch in named[::-1]]

    look, cancel = looked_at(account, "/batches", state_of)
    return Jobs(
        bounds=_bounds,
        line=lambda custom_id, body, target: line(custom_id, body, method="POST", url=f"/v1{target.codec.path}"),
        submit=submit,
        find=find,
        look=look,
        cancel=cancel,
        fetch=outputs_of(account),
        read=lambda text: answer_of(text, classify_error),
    )


def _bounds(target: Target) -> JobBounds:
    quirks = target.provider.quirks
    return replace(_BOUNDS, requests=quirks.get("job_requests", _BOUNDS.requests), bytes=quirks.get("job_bytes", _BOUNDS.bytes))


def _newest(there: Account, earliest: float) -> Iterator[dict[str, Any]]:
    """The account's jobs, newest first, back to a moment."""
    query: dict[str, Any] = {"limit": _PAGE}
    while True:
        page = there.get("/batches", query)
        batches = page.get("data") or ()
        for batch in batches:
            if (unix(batch.get("created_at")) or 0.0) < earliest:
                return
            yield batch
        if not page.get("has_more") or not batches:
            return
        query["after"] = batches[-1]["id"]


def _state(batch: Mapping[str, Any], classify_error: Classify) -> JobState:
    said = str(batch.get("status"))
    counts = batch.get("request_counts") or {}
    outputs = tuple(str(batch[name]) for name in ("output_file_id", "error_file_id") if batch.get(name))
    return JobState(
        id=str(batch["id"]),
        state="ended" if said in _ENDED else "going",
        said=said,
        total=counted(counts.get("total")),
        done=counted(counts.get("completed")),
        failed=counted(counts.get("failed")),
        outputs=outputs if said in _ENDED else (),
        error=_why(batch, classify_error) if said == "failed" else None,
        expires=unix(batch.get("expires_at")),
    )


def _why(batch: Mapping[str, Any], classify_error: Classify) -> LLMError:
    """The first of the reasons why a whole job was refused."""
    reasons = (batch.get("errors") or {}).get("data") or ()
    first = next((reason for reason in reasons if isinstance(reason, dict)), None)
    if first is None:
        return InvalidRequest("the provider refused the job and does not say why", kind="job_refused")
    if first.get("code") == "token_limit_exceeded":  # of all jobs that wait together: it goes in once others are through
        return RateLimited("the account has as many tokens in waiting jobs as it may", kind="jobs_full")
    return classify_error(400, {}, orjson.dumps({"error": first}))
