"""fenic: ``semantic.map`` in a local session, told the limits (it must be); at most 64 tokens of output."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..contest import KEY, Ask, Job, serve_as_contestant

#: It serves the models of its own list.
_MODEL = "gpt-4.1-nano"


def fenic(job: Job) -> Ask:
    os.environ["OPENAI_API_KEY"] = KEY
    import fenic as fc

    model = fc.OpenAILanguageModel(
        model_name=_MODEL,
        base_url=job.url,
        rpm=job.requests_per_minute or 10_000_000,
        tpm=job.tokens_per_minute or 2_000_000_000,
    )
    name = "warm" if "/free/" in job.url else "bench"
    session = fc.Session.get_or_create(
        fc.SessionConfig(
            app_name=name,
            db_path=Path(os.environ["HOME"]),
            semantic=fc.SemanticConfig(language_models={"bench": model}, default_language_model="bench"),
        )
    )

    def ask(prompts: list[str]) -> list[Any]:
        frame = session.create_dataframe({"text": prompts})
        said = frame.select(fc.semantic.map("{{ text }}", text=fc.col("text"), max_output_tokens=64).alias("said"))
        answers = said.to_pydict()["said"]
        if name == "warm":
            session.stop()
        return answers

    return ask


CONTESTANTS = {"fenic": fenic}

if __name__ == "__main__":
    serve_as_contestant(CONTESTANTS)
