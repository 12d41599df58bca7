"""``make demo``: the main job on real input, with no key and no network.

The input is the documentation of Python's own standard library, which every machine has. Models are those built into llmkit:
``local/lexical`` and ``local/bm25`` compare words and spelling (no neural network), ``echo/echo`` repeats what it is asked. They show what
llmkit does with a frame; what a real model does with the text, ``--model`` shows.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

import llmkit

sys.path.insert(0, str(Path(__file__).parent))
from stdlib_docs import stdlib_docs

QUESTIONS = ["parse command line arguments", "read a csv file", "compress data with gzip", "make a temporary directory"]

TOPICS = {
    "files": "file path directory open read write folder temporary archive compress zip gzip",
    "network": "socket http url server client email request connection internet address protocol",
    "text": "string text regular expression pattern unicode encoding format characters lines parse",
    "numbers": "number integer float decimal fraction random statistics mean math logarithm",
    "concurrency": "thread process lock queue asynchronous event loop task future coroutine semaphore",
    "time": "date time clock calendar timezone day month seconds duration timestamp",
    "testing": "test assert mock debug trace profile warning exception traceback",
}


@contextmanager
def timed(title: str, rows: int) -> Iterator[None]:
    print(f"\n=== {title}")
    began = time.perf_counter()
    yield
    seconds = time.perf_counter() - began
    print(f"--- {rows:,} rows in {seconds:.2f} s, {rows / seconds:,.0f} rows/s; asked anew: {asked():,}, stored before: {stored():,}")


def asked() -> int:
    return llmkit.last().usage().requests


def stored() -> int:
    return llmkit.last().progress().stored


def main() -> None:
    parser = argparse.ArgumentParser(description="llmkit's main job on the documentation of Python's standard library")
    parser.add_argument("--model", help='a chat model for the last part, e.g. "openai/gpt-4.1-mini" or "ollama/llama3.2"')
    model = parser.parse_args().model
    pd.set_option("display.width", 132, "display.max_colwidth", 58, "display.max_columns", 8)

    df = stdlib_docs()
    print(f"{len(df):,} objects of Python's standard library, from their docstrings:\n")
    print(df.sample(5, random_state=7).sort_index())

    with timed('df["vector"] = df.llm.embed("text", model="local/lexical")', len(df)):
        df["vector"] = df.llm.embed("text", model="local/lexical")
    print(df[["name", "vector"]].head(3))

    for question in QUESTIONS:
        print(f'\n=== df.llm.search({question!r}, on="vector", top_k=3)')
        print(df.llm.search(question, on="vector", top_k=3)[["module", "name", "text", "score"]])

    question = "send an email message"
    with timed(f'df.llm.rerank({question!r}, on="text", top_k=5, model="local/bm25")', len(df)):
        best = df.llm.rerank(question, on="text", top_k=5, model="local/bm25")
    print(best[["module", "name", "text", "score"]])

    with timed('df["topic"] = df.llm.classify("text", TOPICS, model="local/lexical")', len(df)):
        df["topic"] = df.llm.classify("text", TOPICS, model="local/lexical")
    print(
        pd.crosstab(df["module"], df["topic"]).loc[["argparse", "asyncio.tasks", "datetime", "http.client", "pathlib", "re", "statistics"]]
    )

    some = df.sample(200, random_state=1).sort_index()
    prompt = "{name}: {text}\n\nIn one short sentence: what is it for?"
    if model:
        estimate = some.llm.chat(prompt, model=model, dry_run=True)
        print(f"\n=== the estimate for {model}\n{estimate}")
    model = model or "echo/echo"
    with timed(f'some["purpose"] = some.llm.chat(prompt, model="{model}")', len(some)):
        some["purpose"] = some.llm.chat(prompt, model=model)
    print(some[["name", "purpose"]].head(5))
    failed = llmkit.last().errors()
    if len(failed):
        print(f"\n{len(failed)} rows have no answer; llmkit.last().errors():\n{failed.head()}")
    print("\nRun it again: what is stored is not asked twice.")
    if model == "echo/echo":
        offer(some, prompt)


def offer(some: pd.DataFrame, prompt: str) -> None:
    """Say what the same would cost with a model that can be had here. Nothing is sent for it but a look at this computer's own ports."""
    try:
        model = llmkit.connect().model
    except llmkit.ConfigError:
        print(
            "\nNo API key is set and no model server answers on this computer. With either, the same runs on a real model, for instance:\n"
            "    OPENAI_API_KEY=... make demo MODEL=openai/gpt-4.1-mini\n"
            "    make demo MODEL=ollama/llama3.2"
        )
        return
    print(f"\nA real model can be had here. For these {len(some)} rows:\n")
    print(some.llm.chat(prompt, model=model, dry_run=True))
    print(f"\nNothing was sent to it. This line runs the same with it:\n    make demo MODEL={model}")


if __name__ == "__main__":
    main()
