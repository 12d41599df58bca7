"""For people who want the SDKs: structured clients, embedders and rerankers without a frame."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache as once
from importlib.util import find_spec
from typing import Any, Literal
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import pandas as pd

from .adapter import Target, to_json
from .engine.exchange import signed
from .errors import (
    BadInput,
    BadOutput,
    ConfigError,
    ConnectionLost,
    ContentBlocked,
    LLMError,
    MissingExtra,
    MissingKey,
    TimedOut,
    Truncated,
    Unsupported,
)
from .foreign import Made, provider_at
from .frames.columns import matrix_of
from .frames.pandas_accessor import FrameAccessor
from .picking import adapter_for
from .run import Run
from .session import default
from .types import Model, Provider, Request, Secret, Usage

__all__ = ["MODES", "Embedder", "Embeddings", "Reranker", "Reranking", "client", "client_of", "embedder", "modes_of", "reranker"]


# -------------------------------------------------------------------------------------------------------------------- modes


@dataclass(frozen=True, slots=True)
class Shaping:
    """How an answer is brought into shape: a member of ``instructor.Mode``.

    ``enforced``: the vendor is given the schema beside it, where instructor 1.17 has no word for what the vendor's SDK takes now.
    """

    member: str
    enforced: bool = False


_TOOLS, _JSON, _SCHEMA, _WORDS = Shaping("TOOLS"), Shaping("JSON"), Shaping("JSON_SCHEMA"), Shaping("MD_JSON")
_BY_TOOL = {"tool_use": _TOOLS, "function_calling": _TOOLS}
_BY_SCHEMA = {"json_schema": _SCHEMA, "native": _SCHEMA}
_BY_JSON = {"json_mode": _JSON, "json": _JSON}

#: Names of modes by provider, the best first; what is served over OpenAI's wire and not named here has the modes of ``"*"``.
MODES: Mapping[str, Mapping[str, Shaping]] = {
    "*": {**_BY_TOOL, **_BY_SCHEMA, **_BY_JSON},
    # instructor looks for ``output_format``, which the SDK calls ``output_config`` (anthropic 2.11, seen 2026-11-21).
    "anthropic": {
        "anthropic_tools": _TOOLS,
        **_BY_TOOL,
        "json_schema": Shaping("JSON", enforced=True),
        "native": Shaping("JSON", enforced=True),
        "anthropic_json": _JSON,
        **_BY_JSON,
    },
    # instructor calls no tools of Cohere's: its TOOLS say the schema in words. Its JSON_SCHEMA sends the schema under the name that
    # version 1 of the API had (cohere 7.3, seen 2026-11-21).
    "cohere": {
        "json_schema": Shaping("TOOLS", enforced=True),
        "native": Shaping("TOOLS", enforced=True),
        "cohere_tools": _TOOLS,
        **_BY_TOOL,
        "json": _WORDS,
    },
    # It refuses a json_schema: UKGovernmentBEIS/inspect_ai#4916, seen 2026-11-21.
    "deepseek": {**_BY_TOOL, **_BY_JSON},
    "infinity": {},
    # It refuses a json_object: lmstudio-ai/lmstudio-bug-tracker#189, seen 2026-11-21.
    "lmstudio": {**_BY_TOOL, **_BY_SCHEMA, "json": _WORDS},
    "mistral": {"mistral_tools": _TOOLS, **_BY_TOOL, **_BY_SCHEMA, **_BY_JSON},
    # It refuses a json_object (567-labs/instructor#1005), and instructor calls no tools there; seen 2026-11-21.
    "perplexity": {**_BY_SCHEMA, "json": _WORDS},
    "voyage": {},
}


def modes_of(provider: str) -> tuple[str, ...]:
    """What ``client(mode=...)`` takes for a provider, the one that is used without it first; nothing where the provider does not chat.

    Examples
    --------
    >>> from llmkit.clients import modes_of
    >>> modes_of("perplexity")
    ('json_schema', 'native', 'json')
    """
    session = default()
    known = session.catalogue.provider(provider)
    if known is None:
        raise session.catalogue.unknown(str(provider), str(provider))
    return tuple(_modes(known))


def _modes(provider: Provider) -> Mapping[str, Shaping]:
    # A server of one's own that speaks a vendor's wire has that vendor's modes.
    return MODES.get(provider.name if provider.protocol == "openai" else provider.protocol, MODES["*"])


def _shaping(target: Target, mode: str | None) -> Shaping:
    known = _modes(target.provider)
    if mode is None:
        return next(iter(known.values()))
    if mode not in known:
        raise ConfigError(f"{target.provider.name} has no mode {mode!r}; it has {', '.join(known)}")
    return known[mode]


# ------------------------------------------------------------------------------------------------------------------- client


def client(
    model: Any = None,
    *,
    base_url: str | None = None,
    is_async: bool = False,
    mode: str | None = None,
    api_key: str | Callable[[], str] | None = None,
) -> Any:
    """An instructor client over the vendor's official SDK, for calls that are no rows of a frame.

    ``client.chat.completions.create_with_completion(response_model=Review, messages=[...])`` gives ``(Review, the SDK's answer)``,
    ``.create(...)`` the Review alone, and ``.create(messages=[...])`` the SDK's answer as it is. What is asked goes straight to the vendor:
    no store, no limiter, and nothing is tried again unless a call says ``max_retries=``, which has instructor ask again where an
    answer does not fit. ``with`` closes the connections.

    Parameters
    ----------
    model : str or list of str, optional
        As everywhere; of a list the first that can be had, and without one the session's or the best. Calls may name another.
    base_url : str, optional
        Where to ask; the provider is read off it, and its key is used. An address that nobody is known at is taken for a server of OpenAI's
        format, and gets no key but ``api_key``. ``model`` is then the name of that provider's own, and may be left to the calls.
    is_async : bool
        The client's methods are awaited, on the caller's event loop.
    mode : str, optional
        How the answer is brought into shape: one of those that ``docs/providers.md`` names for the vendor.
    api_key : str or callable, optional
        Instead of the key that is found. A function is called once, when the client is made.

    Returns
    -------
    instructor.Instructor or instructor.AsyncInstructor

    Raises
    ------
    ConfigError
        Nobody can be had, or there is no such mode; nothing is sent.
    MissingExtra
        instructor is not installed.

    Notes
    -----
    Calls raise errors of ``llmkit.errors`` in place of instructor's and the SDK's: an answer that does not fit is a ``BadOutput`` of kind
    "validation". Anthropic is given ``max_tokens`` where a call names none, and takes ``temperature``, ``top_p`` and ``top_k``, for
    which its SDK has no arguments any more.

    Examples
    --------
    >>> import llmkit
    >>> llmkit.client("openai/gpt-5-mini")
    Traceback (most recent call last):
    llmkit.errors.MissingKey: no key for "openai". Set OPENAI_API_KEY or call llmkit.set_key("openai")
    """
    target = _target(model, base_url, api_key)
    return _structured(target, bool(is_async), _shaping(target, mode))


def client_of(model: str) -> Any:
    """The client of a connection: instructor's where it is installed and the model chats, else the vendor's SDK's own, retries off."""
    picker = default().picker
    way = picker.ways_to(model, "chat")[0]
    adapter = adapter_for(way.provider.protocol)
    target = Target(way.model, way.provider, adapter, next(iter(adapter.codecs.values())), way.secret)
    if adapter.client is not None and find_spec("instructor") is not None and picker.suits(model, "chat"):
        return _structured(target, False, _shaping(target, None))
    return _sdk(target, False)


def _sdk(target: Target, is_async: bool) -> Any:
    if target.adapter.client is None:
        raise Unsupported(f"{target.name} runs inside llmkit and has no SDK; ask it by llmkit.chat or df.llm.chat")
    return target.adapter.client(target, is_async)


def _target(model: Any, base_url: str | None, api_key: str | Callable[[], str] | None) -> Target:
    session = default()
    secret = None if api_key is None else _secret(api_key)
    if base_url is not None:
        return _addressed(model, base_url, secret)
    if secret is not None:
        return _with_key(model, secret)
    target = session.picker.pick(session.chosen("chat")[0] if model is None else model, "chat")[0]
    if target.foreign is not None:
        raise ConfigError("llmkit.client makes a client for a model's name; your own one is given to instructor.from_openai and the like")
    return target


def _secret(api_key: Any) -> Secret:
    if not callable(api_key) and (not isinstance(api_key, str) or not api_key.strip()):
        what = "empty" if isinstance(api_key, str) else f"of type {type(api_key).__name__}"
        raise ConfigError(f"api_key is {what}; give it as a text, or as a function that returns one")
    if isinstance(api_key, str) and not (api_key.strip().isascii() and api_key.strip().isprintable()):
        raise ConfigError("api_key holds characters that no key has (a line break, an accent, a bullet); copy it again")
    return Secret(api_key if callable(api_key) else api_key.strip())


def _with_key(model: Any, secret: Secret) -> Target:
    session = default()
    first, slash, name = model.partition("/") if isinstance(model, str) else ("", "", "")
    provider = session.catalogue.provider(first) if slash and name else None
    if provider is None:
        raise ConfigError('api_key needs to know whose it is: name the model as "provider/model", or give base_url')
    provider = session.settings.addressed(provider)
    if not provider.base_url:
        raise ConfigError(f"{provider.name} has no address any more; give base_url. {provider.retired}".strip())
    return _chat_target(provider, session.catalogue.model(provider.name, name), secret)


def _addressed(model: Any, base_url: Any, secret: Secret | None) -> Target:
    session = default()
    if not isinstance(base_url, str) or not re.match(r"https?://[^/\s]", base_url):
        raise ConfigError("base_url is an address such as http://127.0.0.1:8000/v1")
    try:
        _ = urlsplit(base_url).port
    except ValueError:
        raise ConfigError("base_url has no port that is one; it is written like http://127.0.0.1:8000/v1") from None
    if model is not None and not isinstance(model, str):
        raise ConfigError(f"with base_url, model is the name of one model there, not {type(model).__name__}")
    provider = provider_at(base_url, session.catalogue, session.settings)
    if provider is None:
        # Called by its host, which is how it is told from others in errors.
        host = base_url.partition("://")[2].partition("/")[0].rpartition("@")[2]
        provider = Provider(host, base_url.rstrip("/"), key_optional=True)
    secret = secret or session.settings.key(provider)
    if secret is None and not provider.key_optional:
        way = f"Set {provider.key_env[0]}, give api_key" if provider.key_env else "Give api_key"
        raise MissingKey(f'no key for "{provider.name}". {way} or call llmkit.set_key("{provider.name}")')
    named = [known for known in session.catalogue.named(model) if known.provider == provider.name] if model else []
    return _chat_target(provider, named[0] if named else session.catalogue.model(provider.name, model or ""), secret)


def _chat_target(provider: Provider, model: Model, secret: Secret | None) -> Target:
    adapter = adapter_for(provider.protocol)
    if "chat" not in adapter.codecs or (provider.operations and "chat" not in provider.operations):
        raise Unsupported(f"{provider.name} does not chat; it does {', '.join(provider.operations or adapter.codecs)}")
    return Target(model, provider, adapter, adapter.codecs["chat"], secret)


# --------------------------------------------------------------------------------------------------------------- instructor


def _structured(target: Target, is_async: bool, how: Shaping) -> Any:
    try:
        import instructor
    except ModuleNotFoundError:
        raise MissingExtra("structured clients need the package instructor: pip install 'llmkit[instructor]'") from None
    makers = {"anthropic": "from_anthropic", "cohere": "from_cohere"}
    make = getattr(instructor, makers.get(target.provider.protocol, "from_openai"))
    made = make(_sdk(target, is_async), mode=instructor.Mode[how.member])
    return _kinds()[is_async](made, target, how)


@once
def _kinds() -> tuple[Any, Any]:
    """instructor's two classes with our defaults; made on first use, since instructor takes a second to import."""
    from instructor import AsyncInstructor, Instructor
    from instructor.core import Hooks

    for name in ("instructor", "instructor.v2", "instructor.v2.retry"):
        logging.getLogger(name).addFilter(_unheard)

    class Client(Made, Instructor):  # type: ignore[misc]
        """A sync client of one model; see ``llmkit.client``."""

        def __init__(self, made: Any, target: Target, how: Shaping) -> None:
            create = _asking(made.create_fn, target, how)
            super().__init__(made.client, create, made.mode, made.provider, made.hooks, **made.kwargs)
            self.target = target

        def create(self, response_model: Any = None, messages: Any = None, max_retries: Any = 0, **given: Any) -> Any:
            return super().create(response_model, messages, max_retries, **given)

        def create_partial(self, response_model: Any, messages: Any = None, max_retries: Any = 0, **given: Any) -> Any:
            return super().create_partial(response_model, messages, max_retries, **given)

        def create_iterable(self, messages: Any = None, response_model: Any = None, max_retries: Any = 0, **given: Any) -> Any:
            return super().create_iterable(messages, response_model, max_retries, **given)

        def create_with_completion(self, messages: Any = None, response_model: Any = None, max_retries: Any = 0, **given: Any) -> Any:
            seen, hooks = _listening(Hooks(), given.pop("hooks", None))
            value = self.create(response_model, messages, max_retries, hooks=hooks, **given)
            return value, seen[-1] if seen else value

        def __enter__(self) -> Any:
            self.client.__enter__()
            return self

        def __exit__(self, *why: object) -> None:
            self.client.__exit__(*why)

        def __repr__(self) -> str:
            return _said(self)

    class AsyncClient(Made, AsyncInstructor):  # type: ignore[misc]
        """An async client of one model; see ``llmkit.client``."""

        def __init__(self, made: Any, target: Target, how: Shaping) -> None:
            create = _asking_async(made.create_fn, target, how)
            super().__init__(made.client, create, made.mode, made.provider, made.hooks, **made.kwargs)
            self.target = target

        async def create(self, response_model: Any = None, messages: Any = None, max_retries: Any = 0, **given: Any) -> Any:
            return await super().create(response_model, messages, max_retries, **given)

        def create_partial(self, response_model: Any, messages: Any = None, max_retries: Any = 0, **given: Any) -> Any:
            return super().create_partial(response_model, messages, max_retries, **given)

        def create_iterable(self, messages: Any = None, response_model: Any = None, max_retries: Any = 0, **given: Any) -> Any:
            return super().create_iterable(messages, response_model, max_retries, **given)

        async def create_with_completion(self, messages: Any = None, response_model: Any = None, max_retries: Any = 0, **given: Any) -> Any:
            seen, hooks = _listening(Hooks(), given.pop("hooks", None))
            value = await self.create(response_model, messages, max_retries, hooks=hooks, **given)
            return value, seen[-1] if seen else value

        async def __aenter__(self) -> Any:
            await self.client.__aenter__()
            return self

        async def __aexit__(self, *why: object) -> None:
            await self.client.__aexit__(*why)

        def __repr__(self) -> str:
            return _said(self)

    return Client, AsyncClient


def _listening(ours: Any, theirs: Any) -> tuple[list[Any], Any]:
    """Hooks that keep the SDK's answers: instructor hangs them on models, and numbers and texts have nowhere to hang."""
    seen: list[Any] = []
    ours.on("completion:response", seen.append)
    return seen, ours if theirs is None else ours + theirs


def _said(made: Any) -> str:
    kind = "async client" if inspect.iscoroutinefunction(made.create) else "client"
    return f"<{kind} of {made.target.name.rstrip('/')}, {made.mode.name}>"


#: instructor writes what went wrong to its log, with what the model said; what went wrong is raised, and the log stays silent.
_asked: ContextVar[bool] = ContextVar("asked", default=False)


def _unheard(record: logging.LogRecord) -> bool:
    return not _asked.get()


@contextmanager
def _silence() -> Iterator[None]:
    token = _asked.set(True)
    try:
        yield
    finally:
        _asked.reset(token)


# Errors are raised outside of the handlers that caught what they stand for: not even a hidden context then leads to a prompt or a key.


def _asking(create: Callable[..., Any], target: Target, how: Shaping) -> Callable[..., Any]:
    def ask(**call: Any) -> Any:
        call = _dressed(call, target, how)
        try:
            with _silence():
                answer = create(**call)
        except Exception as error:
            failure = _ours(error, target, call)
        else:
            return _pieces(answer, target, call) if inspect.isgenerator(answer) else answer
        raise failure

    return ask


def _asking_async(create: Callable[..., Any], target: Target, how: Shaping) -> Callable[..., Any]:
    async def ask(**call: Any) -> Any:
        call = _dressed(call, target, how)
        try:
            with _silence():
                answer = await create(**call)
        except Exception as error:
            failure = _ours(error, target, call)
        else:
            return _pieces_async(answer, target, call) if inspect.isasyncgen(answer) else answer
        raise failure

    return ask


def _pieces(answer: Iterator[Any], target: Target, call: Mapping[str, Any]) -> Iterator[Any]:
    try:
        yield from answer
        return
    except Exception as error:
        failure = _ours(error, target, call)
    raise failure


async def _pieces_async(answer: AsyncIterator[Any], target: Target, call: Mapping[str, Any]) -> AsyncIterator[Any]:
    try:
        async for piece in answer:
            yield piece
        return
    except Exception as error:
        failure = _ours(error, target, call)
    raise failure


# ------------------------------------------------------------------------------------------------------- what a call is sent as

#: What Anthropic's wire has and its SDK's methods have not, since 1.0.
_SAMPLING = ("temperature", "top_p", "top_k")
#: What is asked for where a call sets no limit: the API demands one, and answers are billed as they come.
_LONGEST_BY_DEFAULT, _LONGEST_IF_UNKNOWN = 8192, 4096


def _dressed(call: Mapping[str, Any], target: Target, how: Shaping) -> dict[str, Any]:
    """The arguments of a call with what the vendor wants beside them."""
    dressed = {**call, "model": call.get("model") or target.model.name}
    if not dressed["model"]:
        raise ConfigError("which model? Name it in the call (model=...) or in llmkit.client(model, base_url=...)")
    if not dressed.get("messages"):
        raise BadInput("messages is empty: there is nothing to ask")
    if target.provider.protocol == "anthropic":
        limit = target.model.output_limit if dressed["model"] == target.model.name else None
        dressed.setdefault("max_tokens", min(limit or _LONGEST_IF_UNKNOWN, _LONGEST_BY_DEFAULT))
        sampling = {name: value for name in _SAMPLING if (value := dressed.pop(name, None)) is not None}
        if sampling:
            dressed["extra_body"] = {**sampling, **(dressed.get("extra_body") or {})}
    if how.enforced:
        dressed = {**_schema(dressed, target), **dressed}
    return dressed


def _schema(call: Mapping[str, Any], target: Target) -> dict[str, Any]:
    """The schema of the answer in the vendor's own words. Lists and plain types are asked for in words alone, by instructor."""
    from pydantic import BaseModel

    wanted = call.get("response_model")
    if not (inspect.isclass(wanted) and issubclass(wanted, BaseModel)):
        return {}
    if target.provider.protocol == "cohere":
        return {"response_format": {"type": "json_object", "json_schema": wanted.model_json_schema()}}
    from anthropic import transform_schema

    return {"output_config": {"format": {"type": "json_schema", "schema": transform_schema(wanted)}}}


# ------------------------------------------------------------------------------------------------------------------- errors


def _ours(error: Exception, target: Target, call: Mapping[str, Any]) -> LLMError:
    """The error of ours that something raised by instructor or an SDK amounts to; it repeats nothing of what was sent or said."""
    while "InstructorRetryException" in _kind(error) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    asked = Request("chat", call.get("messages"), {})
    failure = _named(error, target, call)
    failure.model = failure.model or str(call.get("model"))
    return signed(failure, [asked], target)


def _named(error: Exception, target: Target, call: Mapping[str, Any]) -> LLMError:
    from pydantic import ValidationError

    if isinstance(error, LLMError):
        return error
    refused = _refused(error)
    if refused is not None:
        return target.adapter.classify_error(*refused)
    kind = _kind(error)
    if kind & {"APITimeoutError", "TimeoutException"}:
        return TimedOut("the provider did not answer in time")
    if kind & {"APIConnectionError", "RequestError"}:
        return ConnectionLost(f"the connection was lost, or there was none ({type(error).__name__})")
    if "IncompleteOutputException" in kind:
        return Truncated("the token limit was used up before the answer was whole; raise max_tokens")
    if isinstance(error, ValidationError):
        return BadOutput(_misfit(error, call.get("response_model")), kind="validation")
    if call.get("stream") and "ConfigurationError" in kind:
        return Unsupported(f"instructor does not stream {target.provider.name}'s answers in this mode; choose another")
    # While an answer is streamed, its parser raises the bare ValueError.
    misread = {
        "ResponseParsingError",
        "JSONDecodeError",
        "AsyncValidationError",
        "ParsingError",
        *(["ValueError"] if call.get("stream") else []),
    }
    if kind & misread:
        return BadOutput(f"the answer is not of the form that was asked for ({type(error).__name__})", kind="validation")
    if isinstance(error, AssertionError):  # instructor's word for it
        return ContentBlocked("the model declined to answer", kind="refusal")
    unknown = _UNKNOWN.search(str(error)) if isinstance(error, TypeError) else None
    if unknown is not None:
        return ConfigError(f"{target.provider.name}'s SDK has no argument {unknown[1]}")
    return ConfigError(f"the client could not ask this ({type(error).__name__}): check the arguments of the call")


_UNKNOWN = re.compile(r"unexpected keyword argument '(\w+)'")


def _kind(error: Exception) -> set[str]:
    """Names of the classes that an error is of; the SDKs that they are from need not be there."""
    return {kind.__name__ for kind in type(error).__mro__}


def _refused(error: Any) -> tuple[int, dict[str, str], bytes] | None:
    """Status, headers and body where the error is an answer of the vendor's."""
    response: Any = getattr(error, "response", None)
    if isinstance(getattr(response, "status_code", None), int):
        return response.status_code, {name.lower(): value for name, value in response.headers.items()}, response.content
    if "ApiError" in _kind(error) and error.status_code is not None:
        said = error.body.encode() if isinstance(error.body, str) else to_json(error.body)
        return error.status_code, {name.lower(): value for name, value in (error.headers or {}).items()}, said
    return None


def _misfit(error: Any, wanted: Any) -> str:
    """Which fields do not fit, and how; no value, and no name that the model made up."""
    fields = getattr(wanted, "model_fields", {})
    found = []
    for wrong in error.errors(include_url=False, include_context=False, include_input=False):
        first = wrong["loc"][0] if wrong["loc"] else None
        found.append(f"{first if first in fields else 'the answer'} ({wrong['type']})")
    what = getattr(wanted, "__name__", "what was asked for")
    return f"the answer does not fit {what}: {', '.join(dict.fromkeys(found))}"


# --------------------------------------------------------------------------------------------------- embedders and rerankers


@dataclass(frozen=True, slots=True, eq=False)
class Embeddings:
    """Vectors, (n, dimensions) float32 in the order of the texts; what they were billed; ``"provider/model"`` that made them; US dollars
    (``None`` is unknown)."""

    vectors: npt.NDArray[np.float32]
    usage: Usage
    model: str
    cost: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Reranking:
    """``ranking``: a frame of ``document`` and ``score``, best first, whose index is the place in the list; and as in ``Embeddings``."""

    ranking: pd.DataFrame
    usage: Usage
    model: str
    cost: float | None


class _Asker:
    """One model for one operation, through the shared engine: stored, batched, paced and tried again as a frame's rows are."""

    def __init__(self, model: Any, operation: str, is_async: bool, cache: str, timeout: float) -> None:
        session = default()
        chosen = session.chosen(operation)[0] if model is None else model
        target = session.picker.pick(chosen, operation)[0]
        #: ``"provider/model"``.
        self.model = target.name
        # A client of the caller's own is no name that could be looked up again.
        self._route = target.name if target.foreign is None and not isinstance(chosen, Made) else chosen
        self._is_async = bool(is_async)
        self._how: dict[str, Any] = {
            "model": self._route,
            "cache": cache,
            "on_error": "raise",
            "show_progress": False,
            "wait": False,
            "timeout": timeout,
        }

    def __repr__(self) -> str:
        return f"<{'async ' if self._is_async else ''}{type(self).__name__.lower()} of {self.model}>"

    def _given(self, run: Run[Any], made: Callable[[Run[Any], Any], Any]) -> Any:
        async def awaited() -> Any:
            return made(run, await run)

        return awaited() if self._is_async else made(run, run.result())

    def _served(self, run: Run[Any]) -> str:
        by = next((target for target in run.outcomes.target if target >= 0), None)
        return self.model if by is None else run.targets[by]


class Embedder(_Asker):
    """Texts to vectors by one model; see ``llmkit.embedder``."""

    @property
    def embeddings(self) -> Embedder:
        return self

    def create(
        self, texts: str | Sequence[str], input_type: Literal["document", "query"] | None = None, dimensions: int | None = None
    ) -> Any:
        """Embed texts: an ``Embeddings``, or with ``is_async`` an awaitable of it. The first text that fails raises its reason."""
        cells = _texts("create", "text", texts)
        asked = FrameAccessor(pd.DataFrame({"text": pd.Series(cells, dtype=object)}))
        run = asked.embed("text", input_type=input_type, dimensions=dimensions, **self._how)
        return self._given(run, lambda run, made: Embeddings(matrix_of(made), run.usage(), self._served(run), run.cost))


class Reranker(_Asker):
    """Documents in the order of how well they answer, by one model; see ``llmkit.reranker``."""

    @property
    def rerank(self) -> Reranker:
        return self

    def create(self, query: str, documents: Sequence[str], top_k: int | None = None) -> Any:
        """Order documents: a ``Reranking``, or with ``is_async`` an awaitable of it."""
        if isinstance(documents, str):
            raise BadInput("create takes a list of documents, not one text")
        cells = _texts("create", "document", documents)
        asked = FrameAccessor(pd.DataFrame({"document": pd.Series(cells, dtype=object)}))
        run = asked.rerank(query, on="document", top_k=top_k, **self._how)
        return self._given(run, lambda run, made: Reranking(made, run.usage(), self._served(run), run.cost))


def _texts(method: str, what: str, given: Any) -> list[str]:
    cells = [given] if isinstance(given, str) else list(given) if isinstance(given, Iterable) else [given]
    if not all(isinstance(cell, str) and cell.strip() for cell in cells):
        raise BadInput(f"{method} takes a list of {what}s, none of them missing or empty")
    return cells


def embedder(model: Any = None, *, is_async: bool = False, cache: str = "use", timeout: float = 180.0) -> Embedder:
    """Something that embeds texts, through llmkit's engine: batched, stored, paced, tried again.

    Parameters
    ----------
    model : str or list of str, optional
        As everywhere; of a list the first that can be had, and without one the session's or the best.
    is_async : bool
        ``create`` begins at once and gives an awaitable, for any event loop.
    cache, timeout
        As in ``DataFrame.llm.embed``.

    Returns
    -------
    Embedder
        Its ``create(texts, input_type=None, dimensions=None)`` gives ``Embeddings``: ``vectors``, ``usage``, ``model``, ``cost``.

    Examples
    --------
    >>> import llmkit
    >>> llmkit.embedder("local/lexical").create(["a parcel", "a letter"], dimensions=64).vectors.shape
    (2, 64)
    """
    return Embedder(model, "embed", is_async, cache, timeout)


def reranker(model: Any = None, *, is_async: bool = False, cache: str = "use", timeout: float = 180.0) -> Reranker:
    """Something that orders documents by how well they answer a query, through llmkit's engine.

    Parameters
    ----------
    model, is_async, cache, timeout
        As in ``llmkit.embedder``.

    Returns
    -------
    Reranker
        Its ``create(query, documents, top_k=None)`` gives ``Reranking``: ``ranking`` (``document`` and ``score``, best first), ``usage``,
        ``model``, ``cost``.

    Examples
    --------
    >>> import llmkit
    >>> ranked = llmkit.reranker("local/bm25").create("parcel", ["red apple", "late parcel"])
    >>> ranked.ranking.index.tolist()
    [1, 0]
    """
    return Reranker(model, "rerank", is_async, cache, timeout)
