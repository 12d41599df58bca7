"""The rows: which vendors and models there are, what they cost and can do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .lookup import BUILT_IN, Catalogue

__all__ = ["BUILT_IN", "Catalogue", "default", "merge"]

#: The catalogue that sessions share.
default = Catalogue()


def merge(rows: Mapping[str, Any]) -> None:
    """Add models, or correct what is known of them; your rows win.

    Parameters
    ----------
    rows : mapping
        ``{"models": [{"provider": ..., "name": ..., "price": {"input": ..., "output": ...}, "context_window": ...}]}``. Prices are US
        dollars per million tokens, windows are tokens. What a row leaves out stays as it was known.

    Examples
    --------
    >>> import llmkit
    >>> llmkit.catalogue.merge({"models": [{"provider": "lab", "name": "qwen3-8b", "price": {"input": 0.05, "output": 0.1}}]})
    """
    default.merge(rows.get("models", ()))
