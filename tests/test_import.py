"""``import llmkit`` is light, and the first call loads one vendor's SDK only."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.loopback import Loopback

HEAVY = {
    "openai", "anthropic", "cohere", "voyageai", "instructor", "httpx", "httpx2", "aiohttp", "ipywidgets", "anywidget", "dask", "sklearn",
    "bm25s", "model2vec", "opentelemetry", "matplotlib", "tqdm", "platformdirs", "IPython", "nest_asyncio", "nest_asyncio2", "pydantic",
    "psycopg", "redis", "faiss", "lancedb",
}  # fmt: skip


def modules_after(code: str, tmp_path: Path) -> set[str]:
    script = f"{code}\nimport sys, json\nprint(json.dumps(sorted(sys.modules)))"
    environment = {"LLMKIT_CACHE_DIR": str(tmp_path), "PATH": "", "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_import_loads_no_sdk_no_widgets_no_dask_and_no_http_client(tmp_path: Path) -> None:
    assert modules_after("import llmkit", tmp_path) & HEAVY == set()


SDKS = {"openai", "anthropic", "cohere", "voyageai", "mistralai", "groq", "google.genai", "instructor"}


@pytest.mark.parametrize(
    ("vendor", "protocol", "sdk"),
    [
        ("openai", "openai", "openai"),
        ("anthropic", "anthropic", "anthropic"),
        ("cohere", "cohere", "cohere"),
        ("voyage", "voyage", "voyageai"),
    ],
)
def test_the_first_call_loads_its_vendors_sdk_and_no_other(tmp_path: Path, vendor: str, protocol: str, sdk: str) -> None:
    pytest.importorskip(sdk)
    with Loopback() as server:
        ask = "embed('text', " if vendor == "voyage" else "chat('Say {text}', "
        code = (
            "import pandas as pd, llmkit\n"
            f"llmkit.add_provider('lab', {server.url_of(vendor)!r}, 'key-not-real', {protocol!r})\n"
            f"pd.DataFrame({{'text': ['a']}}).llm.{ask}model='lab/test', show_progress=False)"
        )
        loaded = modules_after(code, tmp_path)
    assert sdk in loaded
    assert loaded & (SDKS | {"ipywidgets", "dask", "sklearn"}) == {sdk}


def test_nothing_is_public_that_the_front_door_does_not_name() -> None:
    import llmkit

    assert [name for name in llmkit.__all__ if not hasattr(llmkit, name)] == []
    assert len(set(llmkit.__all__)) == len(llmkit.__all__)


@pytest.mark.parametrize("name", ["chat", "embed", "rerank", "search", "classify"])
def test_arguments_of_the_accessor_are_spelled_out_for_tab_and_question_mark(name: str) -> None:
    import inspect

    from llmkit.frames.pandas_accessor import FrameAccessor

    method = getattr(FrameAccessor, name)
    kinds = {parameter.kind for parameter in inspect.signature(method).parameters.values()}
    assert inspect.Parameter.VAR_KEYWORD not in kinds
    assert "Examples" in (method.__doc__ or "")
