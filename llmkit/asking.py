"""The operations on one value or a list of them, without a frame."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from .errors import BadInput, ConfigError
from .frames import arguments as checked
from .frames.pandas_accessor import FrameAccessor
from .operations.chat import CHAT, ChatPayload, Message
from .session import default
from .streams import Stream
from .types import Request

__all__ = ["classify", "speak", "stream", "transcribe"]


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
    said = FrameAccessor(pd.DataFrame({"text": [text]})).classify(
        "text", labels, multi_label=multi_label, by=by, instructions=instructions, examples=examples, model=model, cache=cache,
        on_error="raise", show_progress=False, timeout=timeout,
    )  # fmt: skip
    return said.iloc[0]


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
    if recording is None:
        raise BadInput("transcribe needs a recording: the first argument is missing")
    said = FrameAccessor(pd.DataFrame({"recording": pd.Series([recording], dtype=object)})).transcribe(
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
    said = FrameAccessor(pd.DataFrame({"text": [text]})).speak(
        "text", voice=voice, format=format, folder=folder, instructions=instructions, speed=speed, model=model, cache=cache,
        on_error="raise", show_progress=False, timeout=timeout,
    )  # fmt: skip
    return said.iloc[0]
