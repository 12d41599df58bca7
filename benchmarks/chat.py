"""Chat against a server that answers at once: what is left is the client's own cost. One row a request, 64 in flight.

Contestants: a bare aiohttp loop (no errors handled, nothing kept), the openai SDK with ``asyncio.gather`` as its README shows it,
and ``df.llm.chat`` with store, journal and bar.
"""

from __future__ import annotations

import asyncio
from typing import Any

from .measure import Measured, Meter, best, contest, figures, judged, per_row, serve_as_contestant, table, verdicts
from .rows import answer, text

CONCURRENCY = 64
PROMPT = "Answer in one line: "
#: A warm-up opens the connections and is not measured; its numbers are no row's.
WARM_UP = range(9_000_000, 9_000_000 + 4 * CONCURRENCY)


def _prompts(numbers: range) -> list[str]:
    return [PROMPT + text(number) for number in numbers]


def _check(answers: list[Any]) -> None:
    assert answers == [answer(number) for number in range(len(answers))], "an answer is missing or in the wrong row"


def bare_aiohttp(url: str, rows: int) -> Measured:
    import aiohttp
    import orjson

    headers = {"Authorization": "Bearer sk-bench", "Content-Type": "application/json", "Accept": "application/json"}

    async def ask(session: aiohttp.ClientSession, prompts: list[str]) -> list[Any]:
        answers: list[Any] = [None] * len(prompts)
        places = iter(range(len(prompts)))

        async def worker() -> None:
            for place in places:
                body = orjson.dumps({"model": "bench-1", "messages": [{"role": "user", "content": prompts[place]}]})
                async with session.post(f"{url}/chat/completions", data=body, headers=headers) as response:
                    answers[place] = orjson.loads(await response.read())["choices"][0]["message"]["content"]

        await asyncio.gather(*(worker() for _ in range(CONCURRENCY)))
        return answers

    async def main() -> Measured:
        prompts = _prompts(range(rows))
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            await ask(session, _prompts(WARM_UP))
            with Meter(rows) as meter:
                answers = await ask(session, prompts)
        _check(answers)
        return meter.found

    return asyncio.run(main())


def openai_sdk(url: str, rows: int) -> Measured:
    from openai import AsyncOpenAI

    async def main() -> Measured:
        prompts = _prompts(range(rows))
        async with AsyncOpenAI(base_url=url, api_key="sk-bench", max_retries=0) as client:
            bound = asyncio.Semaphore(CONCURRENCY)

            async def ask(prompt: str) -> str | None:
                async with bound:
                    said = await client.chat.completions.create(model="bench-1", messages=[{"role": "user", "content": prompt}])
                content: str | None = said.choices[0].message.content
                return content

            await asyncio.gather(*map(ask, _prompts(WARM_UP)))
            with Meter(rows) as meter:
                answers = await asyncio.gather(*map(ask, prompts))
        _check(answers)
        return meter.found

    return asyncio.run(main())


def llmkit(url: str, rows: int) -> Measured:
    import pandas as pd

    import llmkit

    llmkit.add_provider("bench", url, api_key="sk-bench")

    def ask(frame: pd.DataFrame) -> Any:
        return frame.llm.chat(PROMPT + "{text}", model="bench/bench-1", max_concurrency=CONCURRENCY)

    ask(pd.DataFrame({"text": [text(number) for number in WARM_UP]}))
    frame = pd.DataFrame({"text": [text(number) for number in range(rows)]})
    with Meter(rows) as meter:
        answers = ask(frame)
    _check(answers.tolist())
    return meter.found


CONTESTANTS = {"aiohttp": bare_aiohttp, "openai": openai_sdk, "llmkit": llmkit}


def run(url: str, quick: bool = False) -> tuple[str, dict[str, Any]]:
    """The contest: (text to print, facts to write)."""
    rounds, rows, sdk_rows, large = (2, 5_000, 1_000, 20_000) if quick else (3, 20_000, 5_000, 100_000)
    found: dict[str, list[Measured]] = {name: [] for name in CONTESTANTS}
    for _ in range(rounds):
        for name, measurements in found.items():
            measurements.append(contest(__spec__.name, name, url, sdk_rows if name == "openai" else rows))
    scale = contest(__spec__.name, "llmkit", url, large)

    aiohttp, openai, ours = best(found["aiohttp"]), best(found["openai"]), best(found["llmkit"])
    names = {
        "bare aiohttp loop": aiohttp,
        "openai SDK, gather": openai,
        "llmkit": ours,
        f"llmkit, {large:,} rows": scale,
    }
    lines = [
        (
            name,
            *figures(one),
            f"{per_row(one) / per_row(aiohttp):.2f}x",
            f"{per_row(one) / per_row(openai):.2f}x",
            f"{one['peak'] / 1e6:,.0f}",
        )
        for name, one in names.items()
    ]
    targets = [
        judged("CPU a row, llmkit / openai SDK", per_row(ours) / per_row(openai), 0.25),
        judged("CPU a row, llmkit / bare aiohttp", per_row(ours) / per_row(aiohttp), 2.5),
        judged(f"memory over the frame at {large:,} rows", scale["peak"] / 1e6, 150, " MB"),
        judged(f"CPU a row, {large:,} rows / {rows:,} rows", per_row(scale) / per_row(ours), 1.10),
    ]
    head = ("chat, no latency, 64 in flight", "rows", "rows/s", "CPU ms/row", "median", "/ aiohttp", "/ SDK", "peak MB")
    facts = {"rounds": found, f"llmkit_{large}": scale, "targets": targets}
    return f"{table(head, lines)}\n\n{verdicts(targets)}", facts


if __name__ == "__main__":
    serve_as_contestant(CONTESTANTS)
