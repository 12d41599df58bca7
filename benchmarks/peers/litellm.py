"""litellm: ``acompletion`` with ``asyncio.gather`` and 50 retries, and its ``Router`` told the limits of the deployment.

The Router is also told how many requests to have in flight: without it the same job takes as long and draws ten times the refusals.
"""

from __future__ import annotations

import asyncio
from typing import Any

from ..contest import KEY, MODEL, Ask, Job, gathering, serve_as_contestant

_IN_FLIGHT = 32


def _options(job: Job) -> dict[str, Any]:
    return {"timeout": job.timeout} if job.timeout else {}


def plain(job: Job) -> Ask:
    import litellm

    litellm.suppress_debug_info = True

    async def one(prompt: str) -> Any:
        said = await litellm.acompletion(
            model=f"openai/{MODEL}",
            messages=[{"role": "user", "content": prompt}],
            api_base=job.url,
            api_key=KEY,
            max_retries=50,
            **_options(job),
        )
        return said.choices[0].message.content

    async def main(prompts: list[str]) -> list[Any]:
        return await gathering(one, prompts, job.in_flight)

    return lambda prompts: asyncio.run(main(prompts))


def router(job: Job) -> Ask:
    import litellm

    litellm.suppress_debug_info = True
    limits: dict[str, int] = {"max_parallel_requests": job.in_flight or _IN_FLIGHT}
    if job.requests_per_minute:
        limits |= {"rpm": job.requests_per_minute, "tpm": job.tokens_per_minute}

    async def main(prompts: list[str]) -> list[Any]:
        router = litellm.Router(
            model_list=[
                {"model_name": "bench", "litellm_params": {"model": f"openai/{MODEL}", "api_base": job.url, "api_key": KEY, **limits}}
            ],
            num_retries=50,
            **_options(job),
        )

        async def one(prompt: str) -> Any:
            said = await router.acompletion(model="bench", messages=[{"role": "user", "content": prompt}])
            return said.choices[0].message.content

        return await gathering(one, prompts, job.in_flight)

    return lambda prompts: asyncio.run(main(prompts))


CONTESTANTS = {"litellm, 50 retries": plain, "litellm Router": router}

if __name__ == "__main__":
    serve_as_contestant(CONTESTANTS)
