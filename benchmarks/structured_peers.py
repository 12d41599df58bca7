"""Rivals asked for five fields a row, each as its documentation shows. The standard library alone, beside the rival's own environment."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

from .contest import KEY, MODEL, Ask, Contestant, Job, gathering, serve_as_contestant
from .rows import MARK

#: environment -> module of ``benchmarks.peers`` and contestant for plain chat. openaivec puts many rows in one request of another API,
#: which the quick server does not serve.
PLAIN = {
    "openai": ("openai", "openai SDK (2 retries)"),
    "instructor": ("openai", "openai SDK (2 retries)"),
    "pydantic_ai": ("pydantic_ai", "pydantic-ai"),
    "langchain": ("langchain", "langchain"),
    "curator": ("curator", "curator"),
}


def _model() -> Any:
    from pydantic import BaseModel

    class Complaint(BaseModel):
        summary: str
        product: str
        days_late: int
        damaged: bool
        refund: float

    return Complaint


def _each(make: Callable[[Job, Any], Any]) -> Contestant:
    """A contestant of a context manager around a function that asks one prompt."""

    def contestant(job: Job) -> Ask:
        async def main(prompts: list[str]) -> list[Any]:
            async with make(job, _model()) as ask:
                return await gathering(ask, prompts, job.in_flight)

        return lambda prompts: asyncio.run(main(prompts))

    return contestant


class _Openai:
    def __init__(self, job: Job, model: Any) -> None:
        from openai import AsyncOpenAI

        self._model = model
        self._client = AsyncOpenAI(base_url=job.url, api_key=KEY)

    async def __aenter__(self) -> Any:
        await self._client.__aenter__()
        return self._ask

    async def __aexit__(self, *raised: Any) -> None:
        await self._client.__aexit__(*raised)

    async def _ask(self, prompt: str) -> Any:
        said = await self._client.chat.completions.parse(
            model=MODEL, messages=[{"role": "user", "content": prompt}], response_format=self._model
        )
        return said.choices[0].message.parsed


class _Instructor(_Openai):
    def __init__(self, job: Job, model: Any) -> None:
        import instructor

        super().__init__(job, model)
        self._patched = instructor.from_openai(self._client, mode=instructor.Mode.JSON_SCHEMA)

    async def _ask(self, prompt: str) -> Any:
        return await self._patched.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": prompt}], response_model=self._model
        )


class _PydanticAi:
    def __init__(self, job: Job, model: Any) -> None:
        from pydantic_ai import Agent, NativeOutput
        from pydantic_ai.models.openai import OpenAIChatModel
        from pydantic_ai.providers.openai import OpenAIProvider

        self._agent = Agent(OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=job.url, api_key=KEY)), output_type=NativeOutput(model))

    async def __aenter__(self) -> Any:
        return self._ask

    async def __aexit__(self, *raised: Any) -> None:
        pass

    async def _ask(self, prompt: str) -> Any:
        return (await self._agent.run(prompt)).output


def langchain(job: Job) -> Ask:
    from langchain_openai import ChatOpenAI

    async def main(prompts: list[str]) -> list[Any]:
        model = ChatOpenAI(model=MODEL, base_url=job.url, api_key=KEY).with_structured_output(_model(), method="json_schema")
        return await model.abatch(prompts, {"max_concurrency": job.in_flight}, return_exceptions=True)

    return lambda prompts: asyncio.run(main(prompts))


def curator(job: Job) -> Ask:
    os.environ["CURATOR_DISABLE_RICH_DISPLAY"] = "1"
    os.environ["CURATOR_CACHE_DIR"] = os.environ["HOME"] + "/curator" + ("-warm" if "/free/" in job.url else "")
    from bespokelabs import curator
    from bespokelabs.curator.request_processor.online.openai_online_request_processor import OpenAIOnlineRequestProcessor

    parameters: dict[str, Any] = {
        "base_url": job.url,
        "api_key": KEY,
        "require_all_responses": False,
        "max_concurrent_requests": job.in_flight,
        "max_requests_per_minute": 10_000_000,
        "max_tokens_per_minute": 10**10,
    }
    # It tries the model with a schema of its own first, whose fields the quick server does not know.
    OpenAIOnlineRequestProcessor.check_structured_output_support = lambda self: True
    llm = curator.LLM(model_name=MODEL, backend="openai", backend_params=parameters, response_format=_model())

    def ask(prompts: list[str]) -> list[Any]:
        said = {MARK.findall(one["summary"])[0]: one for one in llm(prompts).dataset}
        return [said.get(MARK.findall(prompt)[0]) for prompt in prompts]

    return ask


CONTESTANTS: dict[str, Contestant] = {
    "openai": _each(_Openai),
    "instructor": _each(_Instructor),
    "pydantic_ai": _each(_PydanticAi),
    "langchain": langchain,
    "curator": curator,
}

if __name__ == "__main__":
    serve_as_contestant(CONTESTANTS)
