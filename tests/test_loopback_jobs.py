"""The vendors' own SDKs, unmodified, take the loopback server's batch jobs for their vendor's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import groq
import openai
import pytest
from google import genai
from google.genai import types as genai_types
from mistralai.client import Mistral

from tests.loopback import Loopback, answer_to

KEY = "test-key-not-real"


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback() as server:
        yield server


def lines(*texts: str, **members: Any) -> bytes:
    asked: list[dict[str, Any]] = [{"model": "m", "messages": [{"role": "user", "content": text}]} for text in texts]
    return b"".join(json.dumps({"custom_id": f"c-{at}", **members, "body": body}).encode() + b"\n" for at, body in enumerate(asked))


def answers(content: bytes) -> dict[str, str]:
    found = map(json.loads, content.splitlines())
    return {line["custom_id"]: line["response"]["body"]["choices"][0]["message"]["content"] for line in found}


EXPECTED = {"c-0": answer_to("one"), "c-1": answer_to("two")}
OPENAI_LINES = lines("one", "two", method="POST", url="/v1/chat/completions")


def test_the_openai_sdk_makes_polls_lists_and_cancels_batches(server: Loopback) -> None:
    with openai.OpenAI(base_url=server.url_of("openai"), api_key=KEY, max_retries=0) as client:
        file = client.files.create(file=("in.jsonl", OPENAI_LINES), purpose="batch")
        asked: Any = {"input_file_id": file.id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        made = client.batches.create(**asked, metadata={"run": "7"})
        ended = client.batches.retrieve(made.id)
        assert (ended.status, ended.metadata, ended.error_file_id) == ("completed", {"run": "7"}, None)
        assert ended.request_counts is not None
        assert (ended.request_counts.total, ended.request_counts.completed) == (2, 2)
        assert ended.output_file_id is not None
        assert answers(client.files.content(ended.output_file_id).content) == EXPECTED
        server.batches.held = True
        other = client.batches.create(**asked)
        assert [batch.id for batch in client.batches.list(limit=1)] == [other.id, made.id]
        assert client.batches.cancel(other.id).status == "cancelling"
        server.batches.held = False
        assert client.batches.retrieve(other.id).status == "cancelled"


def test_the_groq_sdk_makes_and_polls_batches(server: Loopback) -> None:
    with groq.Groq(base_url=server.url_of("groq"), api_key=KEY, max_retries=0) as client:
        file = client.files.create(file=("in.jsonl", OPENAI_LINES), purpose="batch")
        assert file.id is not None
        made = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
        ended = client.batches.retrieve(made.id)
        assert ended.output_file_id is not None
        assert answers(client.files.content(ended.output_file_id).read()) == EXPECTED


def test_the_anthropic_sdk_makes_polls_lists_and_cancels_batches(server: Loopback) -> None:
    def asking(*texts: str) -> Any:
        params = [{"model": "m", "max_tokens": 99, "messages": [{"role": "user", "content": text}]} for text in texts]
        return [{"custom_id": f"c-{at}", "params": one} for at, one in enumerate(params)]

    with anthropic.Anthropic(base_url=server.url_of("anthropic"), api_key=KEY, max_retries=0) as client:
        batches = client.messages.batches
        server.batches.held = True
        made = batches.create(requests=asking("one", "two"))
        assert (made.processing_status, made.request_counts.processing, made.results_url) == ("in_progress", 2, None)
        server.batches.held = False
        assert batches.retrieve(made.id).request_counts.succeeded == 2
        told = {line.custom_id: line.result for line in batches.results(made.id)}
        assert {name: result.message.content[0].text for name, result in told.items()} == EXPECTED  # type: ignore[union-attr]
        server.batches.held, server.batches.share = True, 0.5
        other = batches.create(requests=asking("three", "four"))
        assert [batch.id for batch in batches.list(limit=1)] == [other.id, made.id]
        assert batches.cancel(other.id).processing_status == "canceling"
        server.batches.held = False
        counts = batches.retrieve(other.id).request_counts
        assert (counts.succeeded, counts.canceled) == (1, 1)
        with pytest.raises(anthropic.BadRequestError, match="already ended"):
            batches.cancel(other.id)


def test_the_mistral_sdk_makes_polls_lists_and_cancels_jobs(server: Loopback) -> None:
    with Mistral(server_url=server.url_of("mistral"), api_key=KEY) as client:
        file = client.files.upload(file={"file_name": "in.jsonl", "content": lines("one", "two")}, purpose="batch")
        asked: Any = {"input_files": [file.id], "model": "m", "endpoint": "/v1/chat/completions"}
        made = client.batch.jobs.create(**asked, metadata={"run": "7"})
        ended = client.batch.jobs.get(job_id=made.id)
        assert (ended.status, ended.metadata, ended.succeeded_requests) == ("SUCCESS", {"run": "7"}, 2)
        assert isinstance(ended.output_file, str)
        assert answers(client.files.download(file_id=ended.output_file).read()) == EXPECTED
        server.batches.held = True
        other = client.batch.jobs.create(**asked)
        listed = client.batch.jobs.list(page_size=10)
        assert listed.data is not None
        assert [job.id for job in listed.data] == [other.id, made.id]
        assert client.batch.jobs.cancel(job_id=other.id).status == "CANCELLATION_REQUESTED"


def test_gemini_takes_files_by_its_own_sdk_and_jobs_by_openais(server: Loopback, tmp_path: Path) -> None:
    """As https://ai.google.dev/gemini-api/docs/openai has it (seen 2026-11-21)."""
    file = tmp_path / "in.jsonl"
    file.write_bytes(OPENAI_LINES)
    options = genai_types.HttpOptions(base_url=server.url_of("gemini"))
    with (
        genai.Client(api_key=KEY, http_options=options) as native,
        openai.OpenAI(base_url=server.compat_url_of("gemini"), api_key=KEY, max_retries=0) as client,
    ):
        config = genai_types.UploadFileConfig(display_name="mine", mime_type="jsonl")
        uploaded = native.files.upload(file=str(file), config=config)
        assert uploaded.name is not None
        made = client.batches.create(input_file_id=uploaded.name, endpoint="/v1/chat/completions", completion_window="24h")
        assert made.id.startswith("batches/")
        assert [found.display_name for found in native.files.list()] == ["mine"]
        assert [job.name for job in native.batches.list()] == [made.id]
        ended = client.get(f"/batches/{made.id}", cast_to=type(made))
        assert (ended.status, ended.output_file_id is not None) == ("completed", True)
        assert answers(native.files.download(file=str(ended.output_file_id))) == EXPECTED
