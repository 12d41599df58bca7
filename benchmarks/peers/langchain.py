"""langchain: ``abatch`` with ``max_concurrency`` and 50 retries, and its ``InMemoryRateLimiter`` (of requests: it knows no tokens)."""

from __future__ import annotations

import asyncio
from typing import Any

from ..contest import KEY, MODEL, Ask, Job, serve_as_contestant

_IN_FLIGHT = 64


def langchain(job: Job) -> Ask:
    from langchain_core.rate_limiters import InMemoryRateLimiter
    from langchain_openai import ChatOpenAI

    options: dict[str, Any] = {"timeout": job.timeout} if job.timeout else {}
    if job.requests_per_minute:
        options["rate_limiter"] = InMemoryRateLimiter(requests_per_second=job.requests_per_minute / 60, check_every_n_seconds=0.02)

    async def main(prompts: list[str]) -> list[Any]:
        model = ChatOpenAI(model=MODEL, base_url=job.url, api_key=KEY, max_retries=50, **options)
        messages = await model.abatch(prompts, {"max_concurrency": job.in_flight or _IN_FLIGHT}, return_exceptions=True)
        return [one if isinstance(one, Exception) else one.content for one in messages]

    return lambda prompts: asyncio.run(main(prompts))


CONTESTANTS = {"langchain": langchain}

if __name__ == "__main__":
    serve_as_contestant(CONTESTANTS)
