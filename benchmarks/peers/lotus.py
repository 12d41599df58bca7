"""LOTUS: ``df.sem_map`` with an ``LM`` that is told the limits, with 50 retries; at most 64 tokens of output, which the provider books."""

from __future__ import annotations

from typing import Any

from ..contest import KEY, MODEL, Ask, Job, serve_as_contestant


def lotus(job: Job) -> Ask:
    import lotus
    import pandas as pd
    from lotus.models import LM

    options: dict[str, Any] = {"timeout": job.timeout} if job.timeout else {}
    if job.requests_per_minute:
        options |= {"rate_limit": job.requests_per_minute, "tpm_limit": job.tokens_per_minute}
    model = LM(
        model=f"openai/{MODEL}",
        api_base=job.url,
        api_key=KEY,
        max_tokens=64,
        max_batch_size=job.in_flight or 64,
        max_retries=50,
        **options,
    )

    def ask(prompts: list[str]) -> list[Any]:
        lotus.settings.configure(lm=model)
        return list(pd.DataFrame({"text": prompts}).sem_map("Answer {text}")["_map"])

    return ask


CONTESTANTS = {"LOTUS": lotus}

if __name__ == "__main__":
    serve_as_contestant(CONTESTANTS)
