"""Daft, Parquet to Parquet: ``prompt`` with its OpenAI provider, on the native runner.

Its bound on concurrency counts batches, and one batch of 2,000 rows or more keeps httpx's pool busy with itself for minutes before
the first request leaves: hence small batches. A checkpoint is Daft's on Ray's runner only.
"""

from __future__ import annotations

from typing import Any

from ..contest import KEY, MODEL
from ..filejob import Do, FileContestant, FileJob, serve_as_file_contestant

CONTESTANTS: dict[str, Any] = {}

_BATCH = 32


def prompt(job: FileJob) -> Do:
    import daft
    from daft.ai.openai.provider import OpenAIProvider
    from daft.functions import prompt as ask

    provider = OpenAIProvider(name="bench", base_url=job.url, api_key=KEY)

    def do() -> None:
        answer = ask(
            daft.col("text"),
            provider=provider,
            model=MODEL,
            use_chat_completions=True,
            concurrency=max(1, job.in_flight // _BATCH),
            max_retries=20,
            on_error="ignore",
        )
        daft.read_parquet(job.source).into_batches(_BATCH).with_column("answer", answer).write_parquet(job.out)

    return do


FILE_CONTESTANTS: dict[str, FileContestant] = {"Daft (prompt)": prompt}

if __name__ == "__main__":
    serve_as_file_contestant(FILE_CONTESTANTS)
