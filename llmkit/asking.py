"""The operations on one value or a list of them, without a frame."""

from __future__ import annotations

import numbers
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from .errors import BadInput, ConfigError
from .frames import arguments as checked
from .frames.columns import matrix_of
from .frames.pandas_accessor import FrameAccessor
from .operations.chat import CHAT, ChatPayload, Message
from .session import default
from .streams import Stream
from .types import Request

__all__ = ["chat", "classify", "embed", "extract", "rerank", "speak", "stream", "transcribe"]


def chat(
    prompt: str,
    *,
    model: Any = None,
    fallback: Any = None,
    context_fallback: Any = None,
    content_fallback: Any = None,
    system: str | None = None,
    response_format: Any = None,
    temperature: float | None = None,
    max_tokens: int | None = None,
    seed: int | None = None,
    examples: Any = None,
    images: Any = None,
    roots: Any = None,
    tools: Any = None,
    tool_choice: str | None = None,
    run_tools: bool = False,
    max_rounds: int = 5,
    prompt_cache: Any = "auto",
    cache: Any = "use",
    timeout: float = 180.0,
    max_attempts: int = 5,
) -> Any:
    """Ask a chat model one thing, through the same engine, cache and limits as a frame.

    Parameters
    ----------
    prompt : str
        Sent as it is; braces mean nothing here.
    images : optional
        One picture or a list of them: a path, bytes, a PIL image, a data URL or a public address.
    model, fallback, context_fallback, content_fallback, system, response_format, temperature, max_tokens, seed, examples, roots, tools, \
tool_choice, run_tools, max_rounds, prompt_cache, cache, timeout, max_attempts
        As ``DataFrame.llm.chat``.

    Returns
    -------
    str, or with ``tools`` and without ``run_tools`` the list of calls that the model asks for

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
    several = images if isinstance(images, list | tuple) else [images]
    if images is not None and (not several or any(_empty(one) for one in several)):
        raise BadInput("images holds an empty one, or none at all; leave it out where there is no picture")
    said = FrameAccessor(_frame(prompt=[prompt], images=[images])).chat(
        "{prompt}", model=model, fallback=fallback, context_fallback=context_fallback, content_fallback=content_fallback,
        system=system, response_format=response_format, temperature=temperature,
        max_tokens=max_tokens, seed=seed, examples=examples, images=None if images is None else "images", roots=roots, tools=tools,
        tool_choice=tool_choice, run_tools=run_tools, max_rounds=max_rounds, prompt_cache=prompt_cache, cache=cache, on_error="raise",
        show_progress=False, timeout=timeout, max_attempts=max_attempts,
    )  # fmt: skip
    return said.iloc[0]


def embed(
    texts: str | Sequence[str],
    *,
    model: Any = None,
    dimensions: int | None = None,
    input_type: Any = None,
    long_text: Any = "error",
    cache: Any = "use",
    timeout: float = 180.0,
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
    column = FrameAccessor(_frame(text=cells)).embed(
        "text", model=model, dimensions=dimensions, input_type=input_type, long_text=long_text, cache=cache, on_error="raise",
        show_progress=False, timeout=timeout,
    )  # fmt: skip
    vectors = matrix_of(column)
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
    asked = FrameAccessor(_frame(document=list(documents)))
    ranked: pd.DataFrame = asked.rerank(query, on="document", top_k=top_k, model=model, cache=cache, on_error="raise", timeout=timeout)
    return ranked


def stream(
    prompt: str,
    *,
    model: Any = None,
    fallback: Any = None,
    system: str | None = None,
    response_format: Any = None,
    temperature: float | None = None,
    max_tokens: int | None = None,
    seed: int | None = None,
    cache: Any = "use",
    timeout: float = 600.0,
    idle_timeout: float = 60.0,
    max_attempts: int = 5,
) -> Stream:
    """Ask a chat model one thing and get the answer in pieces, as they come.

    Parameters
    ----------
    prompt : str
        Sent as it is; braces mean nothing here.
    fallback : str or list of str, optional
        The next model answers where the one before could not, as long as nothing was said yet; afterwards an error ends the answer.
    timeout : float
        Seconds for the whole answer.
    idle_timeout : float
        Seconds without a sign of life after which the answer counts as lost.
    model, system, response_format, temperature, max_tokens, seed, cache, max_attempts
        As ``DataFrame.llm.chat``. A stored answer comes in one piece; an answer that came to its end is stored.

    Returns
    -------
    Stream
        For ``for`` and ``async for``. Nothing is sent before the first piece is asked for.

    Raises
    ------
    ConfigError
        At once: an unknown model, a missing key.
    LLMError
        While iterating: there is no answer, or it broke off. ``.text``, ``.usage`` and ``.cost`` tell what came.

    Examples
    --------
    >>> import llmkit
    >>> for piece in llmkit.stream("Tell me a story", model="echo/echo"):
    ...     print(piece, end="")
    [echo, not a model] Tell me a story
    """
    if not isinstance(prompt, str) or not prompt.strip():
        raise BadInput("stream needs a prompt: the first argument is empty")
    policy = checked.policy(cache, "raise", None, timeout, max_attempts, 64)
    if isinstance(idle_timeout, bool) or not isinstance(idle_timeout, numbers.Real) or not idle_timeout > 0:
        raise ConfigError(f"idle_timeout is seconds, more than 0, not {idle_timeout!r}")
    session = default()
    before = (Message("system", system),) if checked.text("system", system) else ()
    payload = ChatPayload((*before, Message("user", prompt)), schema=checked.schema(response_format))
    options = checked.options(temperature=temperature, max_tokens=max_tokens, seed=seed)
    route = session.route(model if model is not None else session.chosen("chat")[0], "chat", fallback)
    return session.stream(CHAT, Request("chat", payload, options), route, policy, float(idle_timeout))


def classify(
    text: str,
    labels: Sequence[str] | Mapping[str, str],
    *,
    multi_label: bool = False,
    by: Any = "auto",
    instructions: str | None = None,
    examples: Any = None,
    model: Any = None,
    cache: Any = "use",
    timeout: float = 180.0,
) -> Any:
    """Give one text one of several labels, or all that apply; as ``DataFrame.llm.classify``.

    Returns
    -------
    str, or list of str with ``multi_label``

    Examples
    --------
    >>> import llmkit
    >>> llmkit.classify("the parcel is late", {"billing": "invoice", "delivery": "parcel late"}, model="local/lexical")
    'delivery'
    """
    if not isinstance(text, str) or not text.strip():
        raise BadInput("classify needs a text: the first argument is empty")
    said = FrameAccessor(_frame(text=[text])).classify(
        "text", labels, multi_label=multi_label, by=by, instructions=instructions, examples=examples, model=model, cache=cache,
        on_error="raise", show_progress=False, timeout=timeout,
    )  # fmt: skip
    return said.iloc[0]


def extract(
    texts: str | Sequence[str],
    schema: Any,
    *,
    prompt: str | None = None,
    instructions: str | None = None,
    model: Any = None,
    fallback: Any = None,
    context_fallback: Any = None,
    content_fallback: Any = None,
    mode: str = "auto",
    system: str | None = None,
    temperature: float | None = None,
    max_tokens: int | None = None,
    more_tokens: int | None = None,
    max_reask: int = 1,
    seed: int | None = None,
    examples: Any = None,
    long_text: Any = "error",
    overlap: float = 0.1,
    window_tokens: int | None = None,
    prompt_cache: Any = "auto",
    cache: Any = "use",
    max_cost: float | None = None,
    timeout: float = 180.0,
    max_attempts: int = 5,
    max_concurrency: int = 64,
) -> Any:
    """Turn one text, or a list of them, into the fields of a schema; as ``DataFrame.llm.extract``.

    Parameters
    ----------
    texts : str or list of str
        Sent as delimited data beside the instructions.
    schema, prompt, instructions, model, fallback, context_fallback, content_fallback, mode, system, temperature, max_tokens, more_tokens, \
max_reask, seed, examples, long_text, overlap, window_tokens, prompt_cache, cache, max_cost, timeout, max_attempts, max_concurrency
        As ``DataFrame.llm.extract``.

    Returns
    -------
    For a text an instance of a pydantic model, a list of instances for ``list[Model]``, a dict for other schemas with fields, the value
    for a type; for a list of texts what ``DataFrame.llm.extract`` returns, a row a text.

    Raises
    ------
    LLMError
        A text has no answer, and the message says why; the others are kept, and the same call asks only for the rest.

    Examples
    --------
    >>> import llmkit
    >>> from pydantic import BaseModel
    >>> class Review(BaseModel):
    ...     stars: int
    >>> llmkit.extract("Five stars!", Review, model="echo/echo")
    Review(stars=0)
    >>> llmkit.extract(["Five stars!", "None."], Review, model="echo/echo")["stars"].tolist()
    [0, 0]
    """
    one = isinstance(texts, str)
    cells = [texts] if one else list(texts) if isinstance(texts, Iterable) else [texts]
    if not all(isinstance(cell, str) and cell.strip() for cell in cells):
        raise BadInput("extract takes a text or a list of texts, none of them empty")
    return (_AsInstance if one else FrameAccessor)(_frame(text=cells)).extract(
        schema, on="text", prompt=prompt, instructions=instructions, model=model, fallback=fallback, context_fallback=context_fallback,
        content_fallback=content_fallback, mode=mode, system=system, temperature=temperature, max_tokens=max_tokens,
        more_tokens=more_tokens, max_reask=max_reask, seed=seed, examples=examples, long_text=long_text, overlap=overlap,
        window_tokens=window_tokens, prompt_cache=prompt_cache, cache=cache, on_error="raise", max_cost=max_cost, show_progress=False,
        timeout=timeout, max_attempts=max_attempts, max_concurrency=max_concurrency,
    )  # fmt: skip


class _AsInstance(FrameAccessor):
    """``extract`` of one row as what the schema makes of it, instead of columns."""

    def extract(self, schema: Any, **arguments: Any) -> Any:
        self._given = {schema, *get_args(schema)} if isinstance(schema, Hashable) else set()
        return super().extract(schema, **arguments)

    def _run(self, operation: Any, table: Any, arguments: Any, shape: Any, how: Any) -> Any:
        from .frames.extracting import Instance  # pydantic takes as long to import as all of llmkit

        # What the model wrote is kept in memory: an instance made of checked values would have been through its validators twice.
        made = Instance(shape.fields, shape.fields.record in self._given)
        return super()._run(replace(operation, hold=None), table, arguments, made, how)


def transcribe(
    recording: Any,
    *,
    model: Any = None,
    language: str | None = None,
    prompt: str | None = None,
    roots: Any = None,
    cache: Any = "use",
    timeout: float = 600.0,
) -> str:
    """Write down what is said in one recording: a path or bytes; as ``DataFrame.llm.transcribe``.

    Examples
    --------
    >>> import llmkit
    >>> llmkit.transcribe(b"no sound", model="openai/whisper-1")
    Traceback (most recent call last):
    llmkit.errors.MissingKey: no key for "openai". Set OPENAI_API_KEY or call llmkit.set_key("openai")
    """
    if _empty(recording):
        raise BadInput("transcribe needs a recording: the first argument is empty")
    said = FrameAccessor(_frame(recording=[recording])).transcribe(
        "recording", model=model, language=language, prompt=prompt, roots=roots, cache=cache, on_error="raise", show_progress=False,
        timeout=timeout,
    )  # fmt: skip
    return str(said.iloc[0])


def speak(
    text: str,
    *,
    voice: str | None = None,
    format: Any = "mp3",
    folder: Any = None,
    instructions: str | None = None,
    speed: float | None = None,
    model: Any = None,
    cache: Any = "use",
    timeout: float = 600.0,
) -> Any:
    """Have one text read aloud; as ``DataFrame.llm.speak``.

    Returns
    -------
    bytes, or with ``folder`` the path of a file

    Examples
    --------
    >>> import llmkit
    >>> llmkit.speak("hello", model="openai/tts-1")
    Traceback (most recent call last):
    llmkit.errors.MissingKey: no key for "openai". Set OPENAI_API_KEY or call llmkit.set_key("openai")
    """
    if not isinstance(text, str) or not text.strip():
        raise BadInput("speak needs a text: the first argument is empty")
    said = FrameAccessor(_frame(text=[text])).speak(
        "text", voice=voice, format=format, folder=folder, instructions=instructions, speed=speed, model=model, cache=cache,
        on_error="raise", show_progress=False, timeout=timeout,
    )  # fmt: skip
    return said.iloc[0]


def _empty(cell: Any) -> bool:
    """Whether a frame would take the cell for a missing one, or it is a file of no bytes."""
    missing = cell is None or cell is pd.NA or (isinstance(cell, float) and cell != cell)
    return missing or (isinstance(cell, str | bytes) and not cell.strip())


def _frame(**columns: list[Any]) -> pd.DataFrame:
    """A frame of these cells as they are: half a character, which a text may hold, is no string to Arrow."""
    return pd.DataFrame({name: pd.Series(cells, dtype=object) for name, cells in columns.items()})
