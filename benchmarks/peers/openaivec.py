"""openaivec: ``Series.aio.responses`` over an SDK client with 50 retries, as many rows a request as it likes."""

from __future__ import annotations

import asyncio
from typing import Any

from ..contest import KEY, MODEL, Ask, Job, serve_as_contestant


def openaivec(job: Job) -> Ask:
    import pandas as pd
    from openai import AsyncOpenAI
    from openaivec import pandas_ext

    options: dict[str, Any] = {"timeout": job.timeout} if job.timeout else {}

    async def main(prompts: list[str]) -> list[Any]:
        pandas_ext.set_async_client(AsyncOpenAI(base_url=job.url, api_key=KEY, max_retries=50, **options))
        pandas_ext.set_responses_model(MODEL)
        said = await pd.Series(prompts).aio.responses("Answer.", max_concurrency=job.in_flight or 8, show_progress=False)
        return list(said)

    return lambda prompts: asyncio.run(main(prompts))


CONTESTANTS = {"openaivec": openaivec}

if __name__ == "__main__":
    serve_as_contestant(CONTESTANTS)
