"""Ray Data, Parquet to Parquet: its LLM processor for HTTP endpoints, and ``map_batches`` with an async class over the openai SDK.

Both keep a checkpoint by ``id``, so that what was written is not asked again. The processor sends the requests of a batch one after
another (``http_request_stage.py`` makes the next one only when the last is awaited) and has two batches under way.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from ..contest import KEY, MODEL
from ..filejob import Do, FileContestant, FileJob, serve_as_file_contestant

#: Of the tool that takes prompts and gives answers there is none.
CONTESTANTS: dict[str, Any] = {}

_BATCH = 32
_RETRIES = 20


def _started(job: FileJob) -> None:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    from ray.data.checkpoint import CheckpointConfig

    ray.init(include_dashboard=False, log_to_driver=False, logging_level="error")
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    context.checkpoint_config = CheckpointConfig(
        id_column="id", checkpoint_path=f"{job.kept}/checkpoint", delete_checkpoint_on_success=False
    )


def processor(job: FileJob) -> Do:
    _started(job)
    import ray
    from ray.data.llm import HttpRequestProcessorConfig, build_processor

    ask = build_processor(
        HttpRequestProcessorConfig(
            url=f"{job.url}/chat/completions",
            headers={"Authorization": f"Bearer {KEY}"},
            qps=job.per_second or None,
            max_retries=_RETRIES,
            batch_size=_BATCH,
            concurrency=1,
        ),
        preprocess=lambda row: {"payload": {"model": MODEL, "messages": [{"role": "user", "content": row["text"]}]}},
        postprocess=lambda row: {
            "id": row["id"],
            "text": row["text"],
            "answer": row["http_response"]["choices"][0]["message"]["content"],
        },
    )
    return lambda: ask(ray.data.read_parquet(job.source)).write_parquet(job.out)


def batches(job: FileJob) -> Do:
    _started(job)
    import numpy as np
    import ray

    class Model:
        def __init__(self) -> None:
            from openai import AsyncOpenAI

            self.client = AsyncOpenAI(base_url=job.url, api_key=KEY, max_retries=_RETRIES)

        async def ask(self, text: str) -> str | None:
            said = await self.client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": text}])
            return said.choices[0].message.content

        async def __call__(self, batch: dict[str, Any]) -> Any:
            answers = await asyncio.gather(*map(self.ask, map(str, batch["text"])))
            yield {**batch, "answer": np.array(answers, dtype=object)}

    def do() -> None:
        rows = ray.data.read_parquet(job.source)
        rows.map_batches(Model, batch_size=_BATCH, concurrency=1, max_concurrency=max(1, job.in_flight // _BATCH)).write_parquet(job.out)

    return do


FILE_CONTESTANTS: dict[str, FileContestant] = {"Ray Data (HTTP processor)": processor, "Ray Data (map_batches)": batches}

if __name__ == "__main__":
    serve_as_file_contestant(FILE_CONTESTANTS)
