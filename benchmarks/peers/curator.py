"""bespokelabs-curator: ``curator.LLM`` told the limits; rows that fail are dropped, so that one of them does not take the others along."""

from __future__ import annotations

import os
from typing import Any

from ..contest import KEY, MODEL, Ask, Job, serve_as_contestant
from ..rows import MARK


def curator(job: Job) -> Ask:
    os.environ["CURATOR_DISABLE_RICH_DISPLAY"] = "1"
    os.environ["CURATOR_CACHE_DIR"] = os.environ["HOME"] + "/curator" + ("-warm" if "/free/" in job.url else "")
    from bespokelabs import curator

    parameters: dict[str, Any] = {"base_url": job.url, "api_key": KEY, "require_all_responses": False}
    if job.requests_per_minute:
        parameters |= {"max_requests_per_minute": job.requests_per_minute, "max_tokens_per_minute": job.tokens_per_minute}
    if job.in_flight:
        parameters |= {"max_concurrent_requests": job.in_flight, "max_requests_per_minute": 10_000_000, "max_tokens_per_minute": 10**10}
    if job.timeout:
        parameters["request_timeout"] = round(job.timeout)
    llm = curator.LLM(model_name=MODEL, backend="openai", backend_params=parameters)

    def ask(prompts: list[str]) -> list[Any]:
        said = llm(prompts).dataset["response"]
        by_mark = {MARK.findall(one)[0]: one for one in said}
        return [by_mark.get(MARK.findall(prompt)[0]) for prompt in prompts]

    return ask


CONTESTANTS = {"curator": curator}

if __name__ == "__main__":
    serve_as_contestant(CONTESTANTS)
