"""instructor over the openai SDK: a pydantic model of one field, by the vendor's JSON schema; 50 retries of the SDK."""

from __future__ import annotations

import asyncio
from typing import Any

from ..contest import KEY, MODEL, Ask, Job, gathering, serve_as_contestant


def instructor(job: Job) -> Ask:
    import instructor
    from openai import AsyncOpenAI
    from pydantic import BaseModel

    class Reply(BaseModel):
        reply: str

    options: dict[str, Any] = {"timeout": job.timeout} if job.timeout else {}

    async def main(prompts: list[str]) -> list[Any]:
        async with AsyncOpenAI(base_url=job.url, api_key=KEY, max_retries=50, **options) as sdk:
            client = instructor.from_openai(sdk, mode=instructor.Mode.JSON_SCHEMA)

            async def one(prompt: str) -> str:
                said = await client.chat.completions.create(
                    model=MODEL, response_model=Reply, messages=[{"role": "user", "content": prompt}]
                )
                return said.reply

            return await gathering(one, prompts, job.in_flight)

    return lambda prompts: asyncio.run(main(prompts))


CONTESTANTS = {"instructor": instructor}

if __name__ == "__main__":
    serve_as_contestant(CONTESTANTS)
