"""Any language model on your DataFrame.

``import llmkit`` puts ``llm`` on frames and series::

    df["summary"] = df.llm.chat("Summarise in one line: {text}", model="openai/gpt-5-mini")

and loads no vendor's SDK; each is imported by the first call that needs it.
"""

from __future__ import annotations

from contextlib import suppress as _suppress
from sys import modules as _modules
from typing import TYPE_CHECKING
from typing import Any as _Any

from . import cache, catalogue, errors
from . import providers as _wire_formats  # noqa: F401 - the package first: its name then belongs to the function below
from .asking import chat, classify, embed, extract, rerank, speak, stream, transcribe
from .clients import Embedder, Embeddings, Reranker, Reranking, client, embedder, reranker
from .errors import *  # noqa: F403 - the tree of errors is public as a whole
from .frames import series_accessor as _accessor
from .frames.comparing import compare
from .frames.comparison import Comparison
from .frames.inferring import infer_schema, read_schema
from .frames.jobs import job, jobs
from .frames.spreadsheets import safe_for_spreadsheets
from .front import (
    Connection,
    add_provider,
    ask,
    connect,
    detect_local,
    find,
    last,
    limit,
    models,
    on_run,
    parameters,
    preferences,
    providers,
    running,
    served,
    set_key,
    use,
)
from .nesting import allow_nested_loops
from .reports import Report, report, runs, usage
from .run import Run
from .session import Session
from .streams import Stream
from .telemetry import trace
from .types import Estimate, Progress, Usage

if TYPE_CHECKING:
    from .scale.dask import on_cluster
    from .scale.index import Index
    from .scale.pipeline import Pipeline
    from .scale.stream import FileResult, stream_file

#: Public names that are imported when they are asked for: what a notebook with a small frame does not need.
_LATER = {
    "FileResult": "scale.stream",
    "Index": "scale.index",
    "Pipeline": "scale.pipeline",
    "on_cluster": "scale.dask",
    "stream_file": "scale.stream",
}

__version__ = "0.1.0"

__all__ = [  # noqa: PLE0604 - the tree of errors is spelled out where it is drawn
    *errors.__all__,
    "Comparison",
    "Connection",
    "Embedder",
    "Embeddings",
    "Estimate",
    "FileResult",
    "Index",
    "Pipeline",
    "Progress",
    "Report",
    "Reranker",
    "Reranking",
    "Run",
    "Session",
    "Stream",
    "Usage",
    "add_provider",
    "allow_nested_loops",
    "ask",
    "cache",
    "catalogue",
    "chat",
    "classify",
    "client",
    "compare",
    "connect",
    "detect_local",
    "embed",
    "embedder",
    "extract",
    "find",
    "infer_schema",
    "job",
    "jobs",
    "last",
    "limit",
    "models",
    "on_cluster",
    "on_run",
    "parameters",
    "preferences",
    "providers",
    "read_schema",
    "rerank",
    "report",
    "reranker",
    "running",
    "runs",
    "safe_for_spreadsheets",
    "served",
    "set_key",
    "speak",
    "stream",
    "stream_file",
    "trace",
    "transcribe",
    "usage",
    "use",
]

_accessor.register()

if "dask.dataframe" in _modules:
    # Whoever has Dask frames finds ``ddf.llm``; where they come later, ``import llmkit.scale.dask`` puts it there.
    with _suppress(MissingExtra):  # noqa: F405 - of the tree of errors
        from .scale import dask as _dask  # noqa: F401


def __getattr__(name: str) -> _Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_LATER[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})


def load_ipython_extension(shell: _Any) -> None:
    """``%load_ext llmkit``: the magics ``%%llm`` and ``%llm``."""
    from .magics import register

    register(shell)
