"""The functions of the front door: one prompt, one list, and the settings of the shared session."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from .catalogue import BUILT_IN
from .errors import BadInput, ConfigError
from .frames.columns import matrix_of
from .frames.pandas_accessor import FrameAccessor
from .run import Run
from .session import default

__all__ = ["Connection", "add_provider", "chat", "connect", "detect_local", "embed", "last", "limit", "rerank", "set_key", "use"]


def chat(
    prompt: str,
    *,
    model: Any = None,
    fallback: Any = None,
    system: str | None = None,
    temperature: float | None = None,
    max_tokens: int | None = None,
    seed: int | None = None,
    cache: Any = "use",
    timeout: float = 180.0,
    max_attempts: int = 5,
) -> str:
    """Ask a chat model one thing, through the same engine, cache and limits as a frame.

    Parameters
    ----------
    prompt : str
        Sent as it is; braces mean nothing here.
    model, fallback, system, temperature, max_tokens, seed, cache, timeout, max_attempts
        As ``DataFrame.llm.chat``.

    Returns
    -------
    str

    Raises
    ------
    LLMError
        There is no answer, and the message says why.

    Examples
    --------
    >>> import llmkit
    >>> llmkit.chat("What's your sign?", model="echo/echo")
    "[echo, not a model] What's your sign?"
    """
    if not isinstance(prompt, str) or not prompt.strip():
        raise BadInput("chat needs a prompt: the first argument is empty")
    asked = FrameAccessor(pd.DataFrame({"prompt": [prompt]}))
    said = asked.chat(
        "{prompt}", model=model, fallback=fallback, system=system, temperature=temperature, max_tokens=max_tokens, seed=seed, cache=cache,
        on_error="raise", show_progress=False, timeout=timeout, max_attempts=max_attempts,
    )  # fmt: skip
    return str(said.iloc[0])


def embed(
    texts: str | Sequence[str], *, model: Any = None, dimensions: int | None = None, cache: Any = "use", timeout: float = 180.0
) -> npt.NDArray[np.float32]:
    """Embed one text or a list of them.

    Returns
    -------
    (dimensions,) float32 array for a text, (n, dimensions) for a list.

    Raises
    ------
    LLMError
        A text could not be embedded, and the message says why.

    Examples
    --------
    >>> import llmkit
    >>> llmkit.embed(["a parcel", "a letter"], model="local/lexical", dimensions=64).shape
    (2, 64)
    """
    one = isinstance(texts, str)
    cells = [texts] if one else list(texts) if isinstance(texts, Iterable) else [texts]
    if not all(isinstance(cell, str) and cell.strip() for cell in cells):
        raise BadInput("embed takes a text or a list of texts, none of them empty")
    asked = FrameAccessor(pd.DataFrame({"text": cells}))
    vectors = matrix_of(
        asked.embed("text", model=model, dimensions=dimensions, cache=cache, on_error="raise", show_progress=False, timeout=timeout)
    )
    return vectors[0] if one else vectors


def rerank(
    query: str, documents: Sequence[str], *, top_k: int | None = None, model: Any = None, cache: Any = "use", timeout: float = 180.0
) -> pd.DataFrame:
    """Order documents by how well they answer a query.

    Returns
    -------
    DataFrame
        ``document`` and ``score``, best first; the index is the place in the list.

    Examples
    --------
    >>> import llmkit
    >>> llmkit.rerank("parcel", ["red apple", "late parcel"], model="local/bm25").index.tolist()
    [1, 0]
    """
    if isinstance(documents, str) or not isinstance(documents, Iterable):
        raise BadInput(f"rerank takes a list of documents, not one {type(documents).__name__}")
    asked = FrameAccessor(pd.DataFrame({"document": list(documents)}))
    ranked: pd.DataFrame = asked.rerank(query, on="document", top_k=top_k, model=model, cache=cache, on_error="raise", timeout=timeout)
    return ranked


@dataclass(frozen=True, slots=True)
class Connection:
    """A model that can be had: ``model`` is what ``model=`` takes, ``name`` is what the provider calls it."""

    model: str
    provider: str
    name: str


def connect(model: Any = None, *, operation: str = "chat") -> Connection:
    """The model that a call would use: the one named, the first of a list that can be had, or the best there is.

    Raises
    ------
    ConfigError
        None can be had; the message names the ways to get one.

    Examples
    --------
    >>> import llmkit
    >>> llmkit.connect("echo/echo").provider
    'echo'
    """
    session = default()
    if model is None:
        model = session.best(operation)
    names = list(model) if isinstance(model, list | tuple) else [model]
    reasons = []
    for name in names:
        try:
            target = session.target(name, operation)
        except ConfigError as error:
            if len(names) == 1:
                raise
            reasons.append(str(error))
        else:
            return Connection(target.name, target.provider.name, target.model.name)
    raise ConfigError(f"none of {len(names)} models can be had: {'; '.join(reasons)}")


def detect_local() -> pd.DataFrame:
    """OpenAI-compatible servers on this computer's usual ports (loopback only): a frame of model and base_url."""
    found = default().local_servers(again=True)
    rows = [(f"{provider.name}/{name}", provider.base_url) for provider, name in found]
    return pd.DataFrame(rows, columns=["model", "base_url"])


def use(chat: Any = None, *, embed: Any = None, rerank: Any = None) -> None:
    """Set the session's models: what calls take when they name none. Names are checked at once."""
    default().use(chat, embed=embed, rerank=rerank)


def set_key(provider: str, key: str | Callable[[], str] | None = None) -> None:
    """Keep an API key in memory, asking for it without showing it where none is given.

    Parameters
    ----------
    provider : str
        E.g. ``"openai"``.
    key : str or callable, optional
        The key, or a function that returns the one of the moment. Without it you are asked with getpass.
    """
    session = default()
    if session.catalogue.provider(provider) is None:
        raise session.catalogue.unknown(provider, str(provider))
    if key is None:
        from getpass import getpass

        try:
            key = getpass(f"API key for {provider}: ")
        except Exception as error:  # getpass raises what its front end raises: no stdin in papermill, nbclient, ...
            raise ConfigError(f'nobody can be asked here ({type(error).__name__}); call llmkit.set_key("{provider}", key)') from None
    if not callable(key) and (not isinstance(key, str) or not key.strip()):
        what = "empty" if isinstance(key, str) else f"of type {type(key).__name__}"
        raise ConfigError(f"the key for {provider} is {what}; give it as a text, or as a function that returns one")
    session.set_key(provider, key)


def limit(name: str, *, rpm: float | None = None, tpm: float | None = None, max_concurrency: int | None = None) -> None:
    """Set the limits of an account by hand; they are never exceeded.

    Parameters
    ----------
    name : str
        ``"openai"`` for all of a provider's models, ``"openai/gpt-4.1-mini"`` for one.
    rpm, tpm : float, optional
        Requests and tokens per minute.
    max_concurrency : int, optional
        Requests in flight.
    """
    given = {what: value for what, value in (("rpm", rpm), ("tpm", tpm), ("max_concurrency", max_concurrency)) if value is not None}
    if not given:
        raise ConfigError("say which limit: rpm=..., tpm=... or max_concurrency=...")
    for what, value in given.items():
        if not isinstance(value, numbers.Real) or isinstance(value, bool) or not value > 0:
            raise ConfigError(f"{what} is a number of more than 0, not {value!r}")
    if max_concurrency is not None and not isinstance(max_concurrency, numbers.Integral):
        raise ConfigError(f"max_concurrency is a whole number of requests, not {max_concurrency!r}")
    session = default()
    provider = str(name).partition("/")[0]
    if provider not in session.catalogue.provider_names():
        raise session.catalogue.unknown(name, provider)
    session.limit(name, rpm=rpm, tpm=tpm, max_concurrency=max_concurrency)


def add_provider(
    name: str,
    base_url: str,
    api_key: str | Callable[[], str] | None = None,
    protocol: str = "openai",
    *,
    embed_encoding: str = "float",
    embed_batch: int = 256,
) -> None:
    """Name a server of your own: ``model="lab/qwen3-8b"`` then goes to it.

    Parameters
    ----------
    name : str
        What stands before the slash.
    base_url : str
        E.g. ``"http://127.0.0.1:8000/v1"``.
    api_key : str or callable, optional
        Where it wants one.
    protocol : str
        The wire format it speaks.
    embed_encoding : {"float", "base64"}
        ``"base64"`` is several times cheaper to read; not every server has it.
    embed_batch : int
        Most texts in one request.
    """
    if embed_encoding not in ("float", "base64"):
        raise ConfigError(f'embed_encoding is "float" or "base64", not {embed_encoding!r}')
    if not isinstance(embed_batch, int) or embed_batch < 1:
        raise ConfigError(f"embed_batch is a number of texts, at least 1, not {embed_batch!r}")
    for what, value in (("name", name), ("base_url", base_url)):
        if not isinstance(value, str):
            raise ConfigError(f"a provider's {what} is a text, not {value!r}")
    if name in BUILT_IN:
        raise ConfigError(f'"{name}" is built into llmkit; choose another name for your server')
    default().add_provider(name, base_url, api_key, protocol, {"embed_encoding": embed_encoding, "embed_batch": embed_batch})


def last() -> Run[Any]:
    """The run that began last, also one that was stopped: ``partial()``, ``errors()``, ``usage()``, ``retry()``.

    Raises
    ------
    ConfigError
        Nothing has run yet.
    """
    run = default().last_run
    if run is None:
        raise ConfigError("nothing has run yet in this session")
    return run
