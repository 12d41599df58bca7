"""Embeddings from a server that answers at once: 1,536 dimensions, 256 texts a request, 8 requests in flight, base64 on the wire.

Contestants: a client written by hand (aiohttp, base64, ``np.frombuffer`` into one matrix), the openai SDK (it asks for base64 and
hands back lists), and ``df.llm.embed`` with store, journal and bar.
"""

from __future__ import annotations

import asyncio
from typing import Any

from .measure import Measured, Meter, best, contest, figures, judged, per_row, serve_as_contestant, table, verdicts
from .rows import text
from .server import DIFFERENT, DIMENSIONS, vector

CONCURRENCY = 8
BATCH = 256
WARM_UP = range(9_000_000, 9_000_000 + CONCURRENCY * BATCH // 2)


def _check(rows: int, at: Any) -> None:
    """``at(row)`` is that row's vector."""
    import numpy as np

    known = [np.array(vector(number), dtype=np.float32) for number in range(DIFFERENT)]
    for row in range(0, rows, 97):
        assert np.array_equal(np.asarray(at(row), dtype=np.float32), known[row % DIFFERENT]), f"row {row} has another row's vector"


def by_hand(url: str, rows: int) -> Measured:
    from base64 import b64decode

    import aiohttp
    import numpy as np
    import orjson

    headers = {"Authorization": "Bearer sk-bench", "Content-Type": "application/json", "Accept": "application/json"}

    async def embed(session: aiohttp.ClientSession, texts: list[str]) -> Any:
        matrix = np.empty((len(texts), DIMENSIONS), dtype=np.float32)
        starts = iter(range(0, len(texts), BATCH))

        async def worker() -> None:
            for start in starts:
                some = texts[start : start + BATCH]
                body = orjson.dumps({"model": "bench-1", "input": some, "encoding_format": "base64"})
                async with session.post(f"{url}/embeddings", data=body, headers=headers) as response:
                    items = orjson.loads(await response.read())["data"]
                for item in items:
                    matrix[start + item["index"]] = np.frombuffer(b64decode(item["embedding"]), dtype="<f4")

        await asyncio.gather(*(worker() for _ in range(CONCURRENCY)))
        return matrix

    async def main() -> Measured:
        texts = [text(number) for number in range(rows)]
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            await embed(session, [text(number) for number in WARM_UP])
            with Meter(rows) as meter:
                matrix = await embed(session, texts)
        _check(rows, matrix.__getitem__)
        return meter.found

    return asyncio.run(main())


def openai_sdk(url: str, rows: int) -> Measured:
    from openai import AsyncOpenAI

    async def main() -> Measured:
        texts = [text(number) for number in range(rows)]
        async with AsyncOpenAI(base_url=url, api_key="sk-bench", max_retries=0) as client:
            bound = asyncio.Semaphore(CONCURRENCY)

            async def ask(some: list[str]) -> list[list[float]]:
                async with bound:
                    said = await client.embeddings.create(model="bench-1", input=some)
                return [item.embedding for item in said.data]

            async def embed(texts: list[str]) -> list[list[float]]:
                batches = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
                return [one for batch in await asyncio.gather(*map(ask, batches)) for one in batch]

            await embed([text(number) for number in WARM_UP])
            with Meter(rows) as meter:
                vectors = await embed(texts)
        _check(rows, vectors.__getitem__)
        return meter.found

    return asyncio.run(main())


def llmkit(url: str, rows: int) -> Measured:
    import pandas as pd

    import llmkit

    llmkit.add_provider("bench", url, api_key="sk-bench", embed_encoding="base64", embed_batch=BATCH)

    def embed(frame: pd.DataFrame) -> Any:
        return frame.llm.embed("text", model="bench/bench-1", max_concurrency=CONCURRENCY)

    embed(pd.DataFrame({"text": [text(number) for number in WARM_UP]}))
    frame = pd.DataFrame({"text": [text(number) for number in range(rows)]})
    with Meter(rows) as meter:
        vectors = embed(frame)
    _check(rows, vectors.llm.matrix().__getitem__)
    return meter.found


CONTESTANTS = {"by_hand": by_hand, "openai": openai_sdk, "llmkit": llmkit}


def run(url: str, quick: bool = False) -> tuple[str, dict[str, Any]]:
    """The contest: (text to print, facts to write)."""
    rounds, rows = (3, 10_000) if quick else (9, 20_000)
    found: dict[str, list[Measured]] = {name: [] for name in CONTESTANTS}
    for turn in range(rounds):
        for name, measurements in found.items():
            if name == "openai" and turn >= 3:
                continue  # seconds a round, and far from every target
            measurements.append(contest(__spec__.name, name, url, rows))

    hand, openai, ours = best(found["by_hand"]), best(found["openai"]), best(found["llmkit"])
    own = rows * DIMENSIONS * 4

    def over(one: Measured) -> float:
        return float(one["peak"] - own) / 1e6

    lines = [
        (
            name,
            *figures(one),
            f"{per_row(one) / per_row(hand):.2f}x",
            f"{per_row(one) / per_row(openai):.2f}x",
            f"{over(one):,.0f}",
        )
        for name, one in {"by hand (aiohttp, base64)": hand, "openai SDK, gather": openai, "llmkit": ours}.items()
    ]
    targets = [
        judged("CPU a row, llmkit / by hand", per_row(ours) / per_row(hand), 1.2),
        judged("peak memory over the result's own", max(over(one) for one in found["llmkit"]), 150, " MB"),
    ]
    head = (f"embed, {DIMENSIONS:,} numbers, {BATCH} a request", "rows", "rows/s", "CPU ms/row", "median", "/ by hand", "/ SDK", "MB over")
    return f"{table(head, lines)}\n\n{verdicts(targets)}", {"rounds": found, "result_bytes": own, "targets": targets}


if __name__ == "__main__":
    serve_as_contestant(CONTESTANTS)
