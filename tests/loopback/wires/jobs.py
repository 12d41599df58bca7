"""What each vendor's batch jobs look like from outside, as its SDK's types and its documentation have them (seen 2026-11-21)."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import orjson

from ..answers import Json, Status
from ..batches import Batches, File, Job, Line
from ..content import Upload
from ..serving import Handler, Serving

Routes = Mapping[tuple[str, str], Handler]

_DAY = 24 * 3600.0


def _batches(serving: Serving) -> Batches:
    return serving.server.batches


def _query(serving: Serving, name: str, default: str = "") -> str:
    return parse_qs(serving.request.query).get(name, [default])[0]


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


def _newest(serving: Serving) -> list[Job]:
    return sorted(_batches(serving).jobs.values(), key=lambda job: -job.created)


def _missing(serving: Serving) -> Status:
    return serving.vendor.voice.invalid("No such thing", status=404)


def _of_job(pattern_at: int, then: Callable[[Serving, Job], Status]) -> Handler:
    """A handler for the job whose id is the path's piece at this place (from the end)."""

    def handler(serving: Serving) -> Status:
        job = _batches(serving).look(serving.path.split("/")[pattern_at].partition(":")[0])
        return _missing(serving) if job is None else then(serving, job)

    return handler


def _lines(data: bytes, body: str) -> list[Line]:
    read = [orjson.loads(line) for line in data.splitlines() if line.strip()]
    return [Line(line["custom_id"], line[body]) for line in read]


def download(serving: Serving, data: bytes, media_type: str = "application/octet-stream") -> Status:
    """A file, or the rest of it."""
    wanted = re.fullmatch(r"bytes=(\d+)-", serving.request.headers.get("range", ""))
    headers = {"content-type": media_type}
    if wanted is None or not _batches(serving).ranges:
        return Status(200, data, headers)
    start = int(wanted[1])
    return Status(206, data[start:], {**headers, "content-range": f"bytes {start}-{len(data) - 1}/{len(data)}"})


# -------------------------------------------------------------------------------------------------------------- Anthropic


def _message_batch(serving: Serving, job: Job) -> Status:
    counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
    if job.ended:
        counts["succeeded"], counts["errored"] = len(job.answered(True)), len(job.answered(False))
        counts["expired" if job.said == "expired" else "canceled"] = len(job.unasked)
    else:
        counts["processing"] = len(job.lines)
    results = f"http://{serving.request.headers['host']}{serving.vendor.root}/v1/messages/batches/{job.id}/results"
    told = {
        "id": job.id,
        "type": "message_batch",
        "processing_status": {"going": "in_progress", "cancelling": "canceling"}.get(job.said, "ended"),
        "request_counts": counts,
        "created_at": _moment(job.created),
        "expires_at": _moment(job.created + _DAY),
        "ended_at": _moment(time.time()) if job.ended else None,
        "archived_at": None,
        "cancel_initiated_at": None,
        "results_url": results if job.ended and not _batches(serving).null_output else None,
    }
    return Json(told)


def _anthropic_create(serving: Serving) -> Status:
    requests = serving.body["requests"]
    ids = [request["custom_id"] for request in requests]
    if not requests or len(set(ids)) < len(ids) or not all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) for name in ids):
        return serving.vendor.voice.invalid("requests: custom_id must be unique and of 1 to 64 letters")
    lines = [Line(request["custom_id"], request["params"]) for request in requests]
    job = Job(f"msgbatch_{_batches(serving).identifier()}", serving.vendor, "/v1/messages", lines, serving.request.headers)
    return _message_batch(serving, _batches(serving).make(job))


def _anthropic_list(serving: Serving) -> Status:
    jobs, limit = _newest(serving), int(_query(serving, "limit", "20"))
    ids = [job.id for job in jobs]
    start = ids.index(after) + 1 if (after := _query(serving, "after_id")) else 0
    page = jobs[start : start + limit]
    ends = {"first_id": page[0].id if page else None, "last_id": page[-1].id if page else None}
    return Json({"data": [_message_batch(serving, job).body for job in page], "has_more": start + limit < len(jobs), **ends})


def _anthropic_cancel(serving: Serving, job: Job) -> Status:
    if job.ended:
        return serving.vendor.voice.invalid("Batch has already ended processing")
    _batches(serving).cancel(job)
    return _message_batch(serving, job)


def _anthropic_results(serving: Serving, job: Job) -> Status:
    if not job.ended:
        return _missing(serving)
    return download(serving, _jsonl(map(_anthropic_result, job.lines, [job] * len(job.lines))), "application/x-jsonl")


def _anthropic_result(line: Line, job: Job) -> dict[str, Any]:
    if line.answer is None:
        return {"custom_id": line.custom_id, "result": {"type": "expired" if job.said == "expired" else "canceled"}}
    if line.answer.code < 300:
        return {"custom_id": line.custom_id, "result": {"type": "succeeded", "message": line.answer.body}}
    return {"custom_id": line.custom_id, "result": {"type": "errored", "error": line.answer.body}}


_MESSAGES = "/v1/messages/batches"
ANTHROPIC: Routes = {
    ("POST", _MESSAGES): _anthropic_create,
    ("GET", _MESSAGES): _anthropic_list,
    ("GET", rf"{_MESSAGES}/[^/]+"): _of_job(-1, _message_batch),
    ("POST", rf"{_MESSAGES}/[^/]+/cancel"): lambda serving: _unfinished(serving, -2, _anthropic_cancel),
    ("GET", rf"{_MESSAGES}/[^/]+/results"): _of_job(-2, _anthropic_results),
}


def _unfinished(serving: Serving, at: int, then: Callable[[Serving, Job], Status]) -> Status:
    """For a job as it stands: to cancel it, it must not first be looked to its end."""
    job = _batches(serving).jobs.get(serving.path.split("/")[at].partition(":")[0])
    return _missing(serving) if job is None else then(serving, job)


# ------------------------------------------------------------------------------------------------------------ OpenAI's kind


def _jsonl(lines: Iterable[dict[str, Any]]) -> bytes:
    return b"".join(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in lines)


def _answered(line: Line) -> dict[str, Any]:
    assert line.answer is not None
    response = {"status_code": line.answer.code, "request_id": f"req_{line.custom_id}", "body": line.answer.body}
    return {"id": f"batch_req_{line.custom_id}", "custom_id": line.custom_id, "response": response, "error": None}


def _unasked(line: Line, said: str) -> dict[str, Any]:
    error = {"code": f"batch_{said}", "message": "This request could not be executed before the completion window expired."}
    return {"id": f"batch_req_{line.custom_id}", "custom_id": line.custom_id, "response": None, "error": error}


def _written(serving: Serving, job: Job, *, unasked: bool, prefix: str = "file-") -> None:
    """The files of a job that has ended: answers, and errors beside them."""
    batches = _batches(serving)
    if not job.ended or job.said == "failed" or job.output or job.errors:
        return
    good, bad = job.answered(True), list(map(_answered, job.answered(False)))
    if unasked:
        bad += [_unasked(line, job.said) for line in job.unasked]
    if good and not batches.null_output:
        job.output = batches.keep("output.jsonl", "batch_output", _jsonl(map(_answered, good)), prefix).id
    if bad:
        job.errors = batches.keep("error.jsonl", "batch_output", _jsonl(bad), prefix).id


def _file(file: File) -> dict[str, Any]:
    about = {"id": file.id, "object": "file", "bytes": len(file.data), "created_at": int(file.created), "filename": file.name}
    return {**about, "purpose": file.purpose, "status": "processed", "status_details": None}


def _mistral_file(file: File) -> dict[str, Any]:
    return {**_file(file), "sample_type": "batch_request", "source": "upload", "num_lines": None, "signature": None}


def _upload(purposes: tuple[str, ...], told: Callable[[File], dict[str, Any]] = _file) -> Handler:
    def handler(serving: Serving) -> Status:
        form = serving.body
        if form.get("purpose") not in purposes or not isinstance(form.get("file"), Upload):
            return serving.vendor.voice.invalid("purpose: not one of " + ", ".join(purposes))
        return Json(told(_batches(serving).keep(form["file"].name, form["purpose"], form["file"].data)))

    return handler


def _content(serving: Serving) -> Status:
    file = _batches(serving).files.get(serving.path.split("/")[-2])
    return _missing(serving) if file is None else download(serving, file.data)


def _from_file(serving: Serving, id: str, path: str, **about: Any) -> Job | None:
    file = _batches(serving).files.get(id)
    if file is None:
        return None
    lines = _lines(file.data, "body")
    prefix = about.pop("prefix", "batch_")
    path = path.removeprefix("/v1")
    job = Job(f"{prefix}{_batches(serving).identifier()}", serving.vendor, path, lines, {}, input_file=id, **about)
    return _batches(serving).make(job)


def _batch(serving: Serving, job: Job) -> Status:
    _written(serving, job, unasked=True)
    counts = {"total": len(job.lines), "completed": len(job.answered(True)), "failed": len(job.answered(False))}
    code, _ = _batches(serving).complaint
    errors = {"object": "list", "data": [{"code": code, "message": job.complaint, "line": 1, "param": None}]}
    return Json(
        {
            "id": job.id,
            "object": "batch",
            "endpoint": f"/v1{job.path}",
            "errors": errors if job.complaint else None,
            "input_file_id": job.input_file,
            "completion_window": "24h",
            "status": {"going": "in_progress"}.get(job.said, job.said),
            "output_file_id": job.output,
            "error_file_id": job.errors,
            "created_at": int(job.created),
            "expires_at": int(job.created + _DAY),
            "request_counts": counts,
            "metadata": job.metadata or None,
        }
    )


def _openai_create(serving: Serving) -> Status:
    body = serving.body
    if body.get("completion_window") != "24h":
        return serving.vendor.voice.invalid("completion_window: only 24h is supported", param="completion_window")
    job = _from_file(serving, body["input_file_id"], body["endpoint"], metadata=body.get("metadata") or {})
    return serving.vendor.voice.invalid("No such file", param="input_file_id") if job is None else _batch(serving, job)


def _openai_list(serving: Serving) -> Status:
    jobs, limit = _newest(serving), int(_query(serving, "limit", "20"))
    start = [job.id for job in jobs].index(after) + 1 if (after := _query(serving, "after")) else 0
    page = jobs[start : start + limit]
    ends = {"first_id": page[0].id if page else None, "last_id": page[-1].id if page else None}
    data = [_batch(serving, job).body for job in page]
    return Json({"object": "list", "data": data, "has_more": start + limit < len(jobs), **ends})


def _openai_cancel(serving: Serving, job: Job) -> Status:
    if job.ended:
        return serving.vendor.voice.invalid(f"Cannot cancel a batch with status '{job.said}'.")
    _batches(serving).cancel(job)
    return _batch(serving, job)


OPENAI: Routes = {
    ("POST", "/files"): _upload(("batch",)),
    ("GET", "/files/[^/]+/content"): _content,
    ("POST", "/batches"): _openai_create,
    ("GET", "/batches"): _openai_list,
    ("GET", "/batches/[^/]+"): _of_job(-1, _batch),
    ("POST", "/batches/[^/]+/cancel"): lambda serving: _unfinished(serving, -2, _openai_cancel),
}

# ---------------------------------------------------------------------------------------------------------------- Mistral

_MISTRAL_WORDS = {
    "going": "RUNNING",
    "cancelling": "CANCELLATION_REQUESTED",
    "completed": "SUCCESS",
    "failed": "FAILED",
    "expired": "TIMEOUT_EXCEEDED",
    "cancelled": "CANCELLED",
}


def _mistral_job(serving: Serving, job: Job) -> Status:
    _written(serving, job, unasked=False)
    done = len(job.answered(True)) + len(job.answered(False))
    return Json(
        {
            "id": job.id,
            "object": "batch",
            "input_files": [job.input_file],
            "endpoint": f"/v1{job.path}",
            "model": job.model,
            "agent_id": None,
            "metadata": job.metadata or None,
            "errors": [{"message": job.complaint, "count": 1}] if job.complaint else [],
            "status": _MISTRAL_WORDS[job.said],
            "output_file": job.output,
            "error_file": job.errors,
            "created_at": int(job.created),
            "started_at": int(job.created),
            "completed_at": int(time.time()) if job.ended else None,
            "total_requests": len(job.lines),
            "completed_requests": done,
            "succeeded_requests": len(job.answered(True)),
            "failed_requests": len(job.answered(False)),
        }
    )


def _mistral_create(serving: Serving) -> Status:
    body = serving.body
    about = {"metadata": body.get("metadata") or {}, "model": body["model"], "prefix": ""}
    job = _from_file(serving, body["input_files"][0], body["endpoint"], **about)
    return serving.vendor.voice.invalid("Unknown file") if job is None else _mistral_job(serving, job)


def _mistral_list(serving: Serving) -> Status:
    jobs, page, size = _newest(serving), int(_query(serving, "page", "0")), int(_query(serving, "page_size", "100"))
    told = [_mistral_job(serving, job).body for job in jobs[page * size : (page + 1) * size]]
    return Json({"object": "list", "total": len(jobs), "data": told})


def _mistral_cancel(serving: Serving, job: Job) -> Status:
    if job.ended:
        return serving.vendor.voice.invalid("The job has ended already")
    _batches(serving).cancel(job)
    return _mistral_job(serving, job)


MISTRAL: Routes = {
    ("POST", "/files"): _upload(("batch",), _mistral_file),
    ("GET", "/files/[^/]+/content"): _content,
    ("POST", "/batch/jobs"): _mistral_create,
    ("GET", "/batch/jobs"): _mistral_list,
    ("GET", "/batch/jobs/[^/]+"): _of_job(-1, _mistral_job),
    ("POST", "/batch/jobs/[^/]+/cancel"): lambda serving: _unfinished(serving, -2, _mistral_cancel),
}

# ----------------------------------------------------------------------------------------------------------------- Gemini


def _gemini_batch(serving: Serving, job: Job) -> Status:
    _written(serving, job, unasked=False, prefix="files/batch-")
    told = _batch(serving, job).body
    assert isinstance(told, dict)
    return Json({**told, "id": f"batches/{job.id}", "metadata": None})


def _gemini_create(serving: Serving) -> Status:
    body = serving.body
    if set(body) != {"input_file_id", "endpoint", "completion_window"}:
        return serving.vendor.voice.invalid("Unknown name in the request")
    job = _from_file(serving, body["input_file_id"], body["endpoint"], prefix="")
    return _missing(serving) if job is None else _gemini_batch(serving, job)


def _gemini_cancel(serving: Serving, job: Job) -> Status:
    if job.ended:
        return serving.vendor.voice.invalid("The batch has ended already")
    _batches(serving).cancel(job)
    return Json({})


def _natively(then: Handler) -> Handler:
    """The native API takes ``Authorization`` for an account of Google's, and an API key there for none."""

    def handler(serving: Serving) -> Status:
        if "authorization" in serving.request.headers:
            return serving.vendor.voice.invalid("Request had invalid authentication credentials.", status=401)
        return then(serving)

    return handler


def _gemini_start(serving: Serving) -> Status:
    headers = serving.request.headers
    if headers.get("x-goog-upload-command") == "start":
        about = serving.body["file"]  # the SDK writes it in the one way, the documentation in the other
        name = about.get("displayName") or about["display_name"]
        where = f"http://{headers['host']}{serving.request.path}?upload_id={name}"
        return Status(200, {}, {"x-goog-upload-url": where, "x-goog-upload-status": "active"})
    assert headers["x-goog-upload-command"] == "upload, finalize"
    body = serving.request.body
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    file = _batches(serving).keep(_query(serving, "upload_id"), "batch", data, "files/")
    return Status(200, {"file": _native_file(file)}, {"x-goog-upload-status": "final"})


def _native_file(file: File) -> dict[str, Any]:
    times = {"createTime": _moment(file.created), "expirationTime": _moment(file.created + 2 * _DAY)}
    return {"name": file.id, "displayName": file.name, "mimeType": "application/jsonl", "sizeBytes": str(len(file.data)), **times}


def _gemini_files(serving: Serving) -> Status:
    return Json({"files": [_native_file(file) for file in _batches(serving).files.values() if file.purpose == "batch"]})


def _gemini_operations(serving: Serving) -> Status:
    return Json({"operations": [_operation(job) for job in _newest(serving)]})


def _operation(job: Job) -> dict[str, Any]:
    words = {"going": "RUNNING", "cancelling": "RUNNING", "completed": "SUCCEEDED"}
    about = {
        "@type": "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch",
        "name": f"batches/{job.id}",
        "state": f"BATCH_STATE_{words.get(job.said, job.said.upper())}",
        "inputConfig": {"fileName": job.input_file},
        "createTime": _moment(job.created),
        "batchStats": {"requestCount": str(len(job.lines))},
    }
    return {"name": f"batches/{job.id}", "metadata": about, "done": job.ended}


def _gemini_download(serving: Serving) -> Status:
    name = "files/" + serving.path.rpartition("/")[2].removesuffix(":download")
    file = _batches(serving).files.get(name)
    return _missing(serving) if file is None else download(serving, file.data)


GEMINI: Routes = {
    ("POST", "/batches"): _gemini_create,
    ("GET", "/batches/batches/[^/]+"): _of_job(-1, _gemini_batch),
    ("POST", "/batches/batches/[^/]+/cancel"): lambda serving: _unfinished(serving, -2, _gemini_cancel),
    ("POST", "/upload/v1(?:beta)?/files"): _natively(_gemini_start),
    ("GET", "/v1(?:beta)?/files"): _natively(_gemini_files),
    ("GET", "/v1(?:beta)?/batches"): _natively(_gemini_operations),
    ("GET", "/(?:download/)?v1(?:beta)?/files/[^/]+:download"): _natively(_gemini_download),
}

# -------------------------------------------------------------------------------------------------------------------- xAI


def _xai_batch(serving: Serving, job: Job) -> Status:
    good, bad = len(job.answered(True)), len(job.answered(False))
    state = {"num_requests": len(job.lines), "num_pending": 0, "num_success": good, "num_error": bad, "num_cancelled": len(job.unasked)}
    if not job.ended:
        state = {**dict.fromkeys(state, 0), "num_requests": len(job.lines), "num_pending": len(job.lines)}
    told: dict[str, Any] = {"batch_id": job.id, "name": job.name, "state": state, "input_file_id": job.input_file}
    told |= {"create_time": _moment(job.created), "expire_time": _moment(job.created + _DAY)}
    if job.said in ("cancelled", "failed"):
        told["cancel_time"] = _moment(time.time())
    if job.said == "failed":
        told["cancel_by_xai_message"] = job.complaint
    return Json(told)


def _xai_create(serving: Serving) -> Status:
    body = serving.body
    job = _from_file(serving, body["input_file_id"], "/v1/chat/completions", name=body["name"])
    return _missing(serving) if job is None else _xai_batch(serving, job)


def _xai_list(serving: Serving) -> Status:
    return Json({"batches": [_xai_batch(serving, job).body for job in _newest(serving)], "pagination_token": None})


def _xai_cancel(serving: Serving, job: Job) -> Status:
    if not job.ended:
        _batches(serving).cancel(job)
    return _xai_batch(serving, job)


def _xai_results(serving: Serving, job: Job) -> Status:
    limit, start = int(_query(serving, "limit", "100")), int(_query(serving, "pagination_token", "0"))
    asked = [line for line in job.lines if line.answer is not None]
    token = str(start + limit) if start + limit < len(asked) else None
    return Json({"results": [_xai_result(line) for line in asked[start : start + limit]], "pagination_token": token})


def _xai_result(line: Line) -> dict[str, Any]:
    assert line.answer is not None
    if line.answer.code < 300:
        result: dict[str, Any] = {"response": {"chat_get_completion": line.answer.body}}
    else:
        result = {"error": {"code": 3, "message": "the request is invalid"}}
    return {"batch_request_id": line.custom_id, "batch_result": result}


XAI: Routes = {
    ("POST", "/files"): _upload(("batch",)),
    ("POST", "/batches"): _xai_create,
    ("GET", "/batches"): _xai_list,
    ("GET", "/batches/[^/:]+"): _of_job(-1, _xai_batch),
    ("POST", "/batches/[^/:]+:cancel"): lambda serving: _unfinished(serving, -1, _xai_cancel),
    ("GET", "/batches/[^/]+/results"): _of_job(-2, _xai_results),
}

# --------------------------------------------------------------------------------------------------------------- Together


def _together_job(serving: Serving, job: Job) -> Status:
    _written(serving, job, unasked=False)
    words = {"going": "IN_PROGRESS", "cancelling": "IN_PROGRESS"}
    done = 100.0 * (len(job.lines) - len(job.unasked)) / len(job.lines)
    return Json(
        {
            "id": job.id,
            "user_id": "user_1",
            "input_file_id": job.input_file,
            "status": words.get(job.said, job.said.upper()),
            "job_deadline": _moment(job.created + _DAY),
            "created_at": _moment(job.created),
            "endpoint": f"/v1{job.path}",
            "progress": done,
            "output_file_id": job.output,
            "error_file_id": job.errors,
            "error": job.complaint or None,
        }
    )


def _together_create(serving: Serving) -> Status:
    job = _from_file(serving, serving.body["input_file_id"], serving.body["endpoint"], prefix="")
    return _missing(serving) if job is None else Json({"job": _together_job(serving, job).body, "warning": ""})


def _together_list(serving: Serving) -> Status:
    return Json([_together_job(serving, job).body for job in _newest(serving)])


def _together_files(serving: Serving) -> Status:
    return Json({"data": [_file(file) for file in _batches(serving).files.values()]})


def _together_cancel(serving: Serving, job: Job) -> Status:
    if job.ended:
        return serving.vendor.voice.invalid("The batch has ended already")
    _batches(serving).cancel(job)
    return _together_job(serving, job)


TOGETHER: Routes = {
    ("POST", "/files/upload"): _upload(("batch-api",)),
    ("GET", "/files"): _together_files,
    ("GET", "/files/[^/]+/content"): _content,
    ("POST", "/batches"): _together_create,
    ("GET", "/batches"): _together_list,
    ("GET", "/batches/[^/]+"): _of_job(-1, _together_job),
    ("POST", "/batches/[^/]+/cancel"): lambda serving: _unfinished(serving, -2, _together_cancel),
}

_OWN: Mapping[str, Routes] = {"anthropic": ANTHROPIC, "mistral": MISTRAL, "gemini": GEMINI, "xai": XAI, "together": TOGETHER}
_NONE = {"cohere", "voyage"}


def routes(vendor: str) -> Routes:
    """The paths of a vendor's batch jobs, below its root."""
    return {} if vendor in _NONE else _OWN.get(vendor, OPENAI)
