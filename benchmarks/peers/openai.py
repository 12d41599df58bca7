"""The openai SDK with ``asyncio.gather``, as its README shows it: with its own 2 retries, and with 50."""

from __future__ import annotations

import asyncio
from typing import Any

from ..contest import KEY, MODEL, Ask, Contestant, Job, gathering, serve_as_contestant


def _gather(retries: int) -> Contestant:
    def contestant(job: Job) -> Ask:
        from openai import AsyncOpenAI

        options: dict[str, Any] = {"timeout": job.timeout} if job.timeout else {}

        def ask(prompts: list[str]) -> list[Any]:
            async def main() -> list[Any]:
                async with AsyncOpenAI(base_url=job.url, api_key=KEY, max_retries=retries, **options) as client:

                    async def one(prompt: str) -> str | None:
                        said = await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": prompt}])
                        return said.choices[0].message.content

                    return await gathering(one, prompts, job.in_flight)

            return asyncio.run(main())

        return ask

    return contestant


CONTESTANTS = {"openai SDK (2 retries)": _gather(2), "openai SDK (50 retries)": _gather(50)}

if __name__ == "__main__":
    serve_as_contestant(CONTESTANTS)
