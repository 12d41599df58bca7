"""The rows: which vendors and models there are, what they cost and can do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import BadInput
from .lookup import BUILT_IN, Catalogue, Retired, document
from .names import meaning

__all__ = ["BUILT_IN", "Catalogue", "Retired", "default", "load", "meaning", "merge", "refresh"]

#: The catalogue that sessions share.
default = Catalogue()


def merge(rows: Mapping[str, Any] | str | Path) -> None:
    """Add providers, models and aliases, or correct what is known of them; your rows win.

    Parameters
    ----------
    rows : mapping or path
        ``{"models": [{"provider": ..., "name": ..., "price": {"input": ..., "output": ...}, "context_window": ...}],
        "providers": {"lab": {"base_url": ..., "key_env": [...]}}, "aliases": {"house-model": ["lab/qwen3-8b", "openai/gpt-5-mini"]}}``,
        or the path of a ``.toml`` or ``.json`` file that holds it. Prices are US dollars per million tokens, windows are tokens. What a
        row leaves out stays as it was known.

    Raises
    ------
    BadInput
        A row is misspelt; nothing of the document is merged then.

    Examples
    --------
    >>> import llmkit
    >>> llmkit.catalogue.merge({"models": [{"provider": "lab", "name": "qwen3-8b", "price": {"input": 0.05, "output": 0.1}}]})
    """
    default.merge_document(document(rows))


def load(rows: Mapping[str, Any] | str | Path) -> None:
    """Replace the catalogue for this process: each of ``providers``, ``models`` and ``aliases`` that the document has.

    Parameters
    ----------
    rows : mapping or path
        As ``merge`` takes it. A section that it does not have stays as it is.

    Raises
    ------
    BadInput
        A row is misspelt; nothing is replaced then.

    Examples
    --------
    >>> import llmkit
    >>> llmkit.catalogue.load({"aliases": {"house-model": ["openai/gpt-5-mini"]}})
    >>> llmkit.catalogue.default.canonical_names()[0]
    'house-model'
    >>> llmkit.catalogue.default.forget()
    """
    default.load(document(rows))


def refresh(url: str | None = None, timeout: float = 10) -> dict[str, Any]:
    """Download newer rows of models: windows, prices, dates. Never done by itself.

    They are checked, kept in the user's cache directory, and used by this and later processes until llmkit ships newer ones or the file is
    removed. Addresses, variables and aliases are never taken from a download. A download that fails or is damaged changes nothing.

    Parameters
    ----------
    url : str, optional
        A document in the form of llmkit's ``models.json`` or of LiteLLM's model data, over https. By default LiteLLM's own on GitHub.
    timeout : float
        Seconds, in all.

    Returns
    -------
    dict
        ``models``, how many it holds; ``new``, how many of them were not known; ``as_of``; ``kept_in``.

    Raises
    ------
    BadInput
        The address is not one of https, or what it sends is no catalogue.
    Unreachable
        It could not be had.

    Examples
    --------
    >>> import llmkit
    >>> llmkit.catalogue.refresh("http://example.com/models.json")
    Traceback (most recent call last):
    llmkit.errors.BadInput: a catalogue is downloaded over https, not from http://example.com
    """
    if not isinstance(timeout, int | float) or isinstance(timeout, bool) or not timeout > 0:
        raise BadInput(f"timeout is a number of seconds of more than 0, not {timeout!r}")
    return default.refresh(url, timeout)
