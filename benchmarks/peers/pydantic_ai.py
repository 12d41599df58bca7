"""pydantic-ai: an ``Agent`` whose HTTP client retries with tenacity, as its page on retries has it."""

from __future__ import annotations

import asyncio
from typing import Any

from ..contest import KEY, MODEL, Ask, Job, gathering, serve_as_contestant

_IN_FLIGHT = 64


def pydantic_ai(job: Job) -> Ask:
    import httpx2
    from pydantic_ai import Agent
    from pydantic_ai.models import create_async_httpx2_client
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider
    from pydantic_ai.retries import AsyncHTTPX2TenacityTransport, RetryConfig, wait_retry_after
    from tenacity import retry_if_exception_type, stop_after_attempt, wait_exponential

    def raise_for_status(response: Any) -> None:
        if response.status_code in (429, 500, 502, 503, 504):
            response.raise_for_status()

    async def main(prompts: list[str]) -> list[Any]:
        transport = AsyncHTTPX2TenacityTransport(
            config=RetryConfig(
                retry=retry_if_exception_type((httpx2.HTTPStatusError, httpx2.TransportError)),
                wait=wait_retry_after(fallback_strategy=wait_exponential(multiplier=1, max=60), max_wait=300),
                stop=stop_after_attempt(5),
                reraise=True,
            ),
            validate_response=raise_for_status,
        )
        client = create_async_httpx2_client(transport=transport, **({"timeout": job.timeout} if job.timeout else {}))
        agent = Agent(OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=job.url, api_key=KEY, http_client=client)))

        async def one(prompt: str) -> str:
            return (await agent.run(prompt)).output

        async with client:
            return await gathering(one, prompts, job.in_flight or _IN_FLIGHT)

    return lambda prompts: asyncio.run(main(prompts))


CONTESTANTS = {"pydantic-ai": pydantic_ai}

if __name__ == "__main__":
    serve_as_contestant(CONTESTANTS)
