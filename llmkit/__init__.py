"""Any language model on your DataFrame.

``import llmkit`` puts ``llm`` on frames and series::

    df["summary"] = df.llm.chat("Summarise in one line: {text}", model="openai/gpt-5-mini")

and loads no vendor's SDK; each is imported by the first call that needs it.
"""

from __future__ import annotations

from . import catalogue, errors
from .errors import *  # noqa: F403 - the tree of errors is public as a whole
from .frames import pandas_accessor as _accessor
from .front import add_provider, chat, connect, detect_local, embed, last, limit, rerank, set_key, use
from .run import Run
from .session import Session
from .types import Estimate, Progress, Usage

__version__ = "0.1.0"

__all__ = [  # noqa: PLE0604 - the tree of errors is spelled out where it is drawn
    *errors.__all__,
    "Estimate",
    "Progress",
    "Run",
    "Session",
    "Usage",
    "add_provider",
    "catalogue",
    "chat",
    "connect",
    "detect_local",
    "embed",
    "last",
    "limit",
    "rerank",
    "set_key",
    "use",
]

_accessor.register()
