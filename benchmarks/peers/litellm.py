"""litellm: ``acompletion`` with ``asyncio.gather`` and 50 retries, and its ``Router`` told the limits of the deployment.

A bound on what the Router has in flight (``max_parallel_requests``, 32) was tried: a tenth of the refusals, but 5.2 times the ideal where
the limit is kept by the minute, instead of 1.4; it is left to the Router, which takes it from the limits.
"""

from __future__ import annotations

import asyncio
from typing import Any

from ..contest import KEY, MODEL, Ask, Job, gathering, serve_as_contestant


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
    limits: dict[str, int] = {"max_parallel_requests": job.in_flight} if job.in_flight else {}
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


CONTESTANTS = {"litellm (50 retries)": plain, "litellm Router": router}

if __name__ == "__main__":
    serve_as_contestant(CONTESTANTS)
