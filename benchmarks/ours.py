"""llmkit's own entry: ``df.llm.chat`` as anybody would write it, with store, journal, limiter and bar."""

from __future__ import annotations

from typing import Any

from .contest import KEY, MODEL, Ask, Job, serve_as_contestant


def llmkit(job: Job) -> Ask:
    import pandas as pd

    import llmkit

    name = "warm" if "/free/" in job.url else "bench"
    llmkit.add_provider(name, job.url, api_key=KEY)
    if job.requests_per_minute:
        llmkit.limit(name, rpm=job.requests_per_minute, tpm=job.tokens_per_minute)
    options: dict[str, Any] = {"max_concurrency": job.in_flight} if job.in_flight else {}
    if job.timeout:
        options["timeout"] = job.timeout

    def ask(prompts: list[str]) -> list[object]:
        answers = pd.DataFrame({"text": prompts}).llm.chat("{text}", model=f"{name}/{MODEL}", **options)
        return list(answers)

    return ask


CONTESTANTS = {"llmkit": llmkit}

if __name__ == "__main__":
    serve_as_contestant(CONTESTANTS)
