"""A provider on this computer that also takes batch jobs, as files and batches of OpenAI's format, and whose nights pass at once.

It works on jobs only while its clock is turned: ``pass_hours(24)`` is a day of a vendor's in a moment. It is no model: a rule answers.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, field
from typing import Any

from misbehaving import Misbehaving
from pretend import Answer, answered, asked, completion


@dataclass
class Job:
    """A batch job: its requests, and the answers to as many of them as it got to."""

    id: str
    lines: list[dict[str, Any]]
    created: float
    metadata: dict[str, str]
    answers: list[dict[str, Any]] = field(default_factory=list)
    state: str = "in_progress"

    @property
    def rest(self) -> list[dict[str, Any]]:
        return self.lines[len(self.answers) :]


class Overnight(Misbehaving):
    """Takes batch jobs beside live requests.

    Parameters
    ----------
    per_hour : int
        Requests of its jobs that it gets to in an hour. What a job is left with after 24 hours expires, as it does at a vendor's.
    """

    def __init__(self, per_hour: int, **like_misbehaving: Any) -> None:
        super().__init__(**like_misbehaving)
        self.per_hour = per_hour
        #: The jobs, in the order in which they were submitted.
        self.jobs: list[Job] = []
        self._files: dict[str, bytes] = {}
        self._ahead = 0.0

    def pass_hours(self, hours: int) -> None:
        """Turn the clock, hour by hour, and work on the jobs meanwhile."""
        for _ in range(hours):
            self._ahead += 3600
            left = self.per_hour
            for job in self.jobs:
                if job.state != "in_progress":
                    continue
                for line in job.rest[:left]:
                    left -= 1
                    job.answers.append(self._answer(line))
                if not job.rest:
                    self._end(job, "completed")
                elif self._now() >= job.created + 24 * 3600:
                    self._end(job, "expired")

    def _now(self) -> float:
        return time.time() + self._ahead

    def _answer(self, line: dict[str, Any]) -> dict[str, Any]:
        body = line["body"]
        with self.lock:
            self.paid[asked(body)] += 1
        response = {"status_code": 200, "request_id": "pretend", "body": completion(body, answered(self.rules[body["model"]], body))}
        return {"id": "pretend", "custom_id": line["custom_id"], "response": response, "error": None}

    def _end(self, job: Job, state: str) -> None:
        job.state = state
        error = {"code": f"batch_{state}", "message": "not got to in time"}
        not_asked = [{"id": "pretend", "custom_id": line["custom_id"], "response": None, "error": error} for line in job.rest]
        self._files[f"file-{job.id}-output"], self._files[f"file-{job.id}-errors"] = _lines(job.answers), _lines(not_asked)

    # ------------------------------------------------------------------------------------------------------- its addresses

    def elsewhere(self, method: str, path: str, body: bytes, kind: str) -> Any:
        match [method, *path.partition("?")[0].removeprefix("/v1/").split("/")]:
            case ["POST", "files"]:
                return self._upload(_form(body, kind))
            case ["GET", "files", name, "content"]:
                return self._files[name]
            case ["POST", "batches"]:
                return self._submit(json.loads(body))
            case ["GET", "batches"]:
                return {"object": "list", "data": [self._told(job) for job in self.jobs[::-1]], "has_more": False}
            case ["GET", "batches", name]:
                return self._told(self._job(name))
            case ["POST", "batches", name, "cancel"]:
                job = self._job(name)
                self._end(job, "cancelled")
                return self._told(job)
        return None

    def _upload(self, form: dict[str, bytes]) -> dict[str, Any]:
        name = f"file-{len(self._files) + 1}"
        self._files[name] = form["file"]
        told = {"bytes": len(form["file"]), "created_at": int(self._now()), "filename": f"{name}.jsonl", "purpose": "batch"}
        return {"id": name, "object": "file", "status": "processed", **told}

    def _submit(self, wanted: dict[str, Any]) -> dict[str, Any]:
        lines = [json.loads(line) for line in self._files.pop(wanted["input_file_id"]).splitlines()]
        job = Job(f"batch_{len(self.jobs) + 1}", lines, self._now(), wanted.get("metadata") or {})
        self.jobs.append(job)
        return self._told(job)

    def _job(self, name: str) -> Job:
        found = next((job for job in self.jobs if job.id == name), None)
        if found is None:
            raise Answer(404, "no such batch job")
        return found

    def _told(self, job: Job) -> dict[str, Any]:
        ended = job.state != "in_progress"
        counts = {"total": len(job.lines), "completed": len(job.answers), "failed": 0}
        files = {"output_file_id": f"file-{job.id}-output", "error_file_id": f"file-{job.id}-errors" if job.rest else None}
        return {
            "id": job.id,
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "input_file_id": "gone",
            "completion_window": "24h",
            "status": job.state,
            "created_at": int(job.created),
            "expires_at": int(job.created) + 24 * 3600,
            "request_counts": counts,
            "metadata": job.metadata,
            **(files if ended else {}),
        }


def _lines(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def _form(body: bytes, kind: str) -> dict[str, bytes]:
    """The fields of an upload."""
    boundary = b"--" + kind.partition("boundary=")[2].strip('"').encode()
    parts = [part.partition(b"\r\n\r\n") for part in body.split(boundary)[1:-1]]
    names = [re.search(rb'name="([^"]*)"', head) for head, _, _ in parts]
    return {name[1].decode(): content.removesuffix(b"\r\n") for name, (_, _, content) in zip(names, parts, strict=True) if name}
