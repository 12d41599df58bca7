"""The functions of the front door: one prompt, one list, and the settings of the shared session."""

from __future__ import annotations

import numbers
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from .asking import chat, embed, rerank
from .catalogue import BUILT_IN
from .errors import BadInput, BadOutput, ConfigError, KeyRejected, LLMError, OutOfCredit, Truncated
from .frames.catalogue_tables import models_table, providers_table, servers_table, ways_table
from .run import Run, begun
from .session import default

__all__ = [
    "Connection", "add_provider", "ask", "chat", "connect", "detect_local", "embed", "find", "last", "limit", "models", "on_run",
    "parameters", "preferences", "providers", "rerank", "running", "served", "set_key", "use",
]  # fmt: skip


def models() -> pd.DataFrame:
    """Every model that the catalogue knows: a row a model and provider.

    Returns
    -------
    DataFrame
        ``canonical`` (the name that means it at every provider), ``provider``, ``name`` (the provider's own), ``operations``,
        ``context_window``, ``output_limit``, ``dimensions``, ``capabilities``, prices in US dollars (``input_price`` and such: per million
        tokens unless the name says another unit), ``deprecated`` (the day it ends), ``as_of``, ``source``, ``key_found``. What is
        unknown is missing.

    Examples
    --------
    >>> import llmkit
    >>> known = llmkit.models()
    >>> known.loc[known["name"] == "text-embedding-3-small", ["provider", "dimensions", "input_price"]].values.tolist()
    [['openai', 1536, 0.02]]
    """
    return models_table(default())


def providers() -> pd.DataFrame:
    """Every provider: where it is, which variables may hold its key, and whether and where a key was found. Never the key itself.

    Returns
    -------
    DataFrame
        ``provider``, ``base_url``, ``protocol``, ``key_env``, ``key_found``, ``key_from``, ``key_needed``, ``operations`` (empty: whatever
        is there), ``status`` (alive, unverified, retired), ``note``, ``console`` (where a key is made), ``docs``.

    Examples
    --------
    >>> import llmkit
    >>> known = llmkit.providers().set_index("provider")
    >>> known.loc["groq", "key_env"], known.loc["anyscale", "status"]
    ('GROQ_API_KEY', 'retired')
    """
    return providers_table(default())


def find(name: str) -> pd.DataFrame:
    """Every way to reach a model, in order of preference: what you merged in yourself, the catalogue's order, servers on this computer.

    Parameters
    ----------
    name : str
        A canonical name such as ``"mixtral-8x7b"``.

    Returns
    -------
    DataFrame
        ``model`` (what ``model=`` takes), ``provider``, ``name``, ``ready`` (a key is there, or it is a server that runs), ``key_from``,
        ``base_url``, and the columns of ``models()``.

    Raises
    ------
    UnknownModel
        Nobody has a model of this name; the message names the nearest.

    Examples
    --------
    >>> import llmkit
    >>> llmkit.find("claude-haiku-4-5")["model"].tolist()[:2]
    ['anthropic/claude-haiku-4-5', 'openrouter/anthropic/claude-haiku-4.5']
    """
    if not isinstance(name, str) or not name.strip():
        raise BadInput(f'find takes the name of a model, such as "mixtral-8x7b", not {name!r}')
    return ways_table(default().picker.known_ways(name.strip()))


@dataclass(frozen=True, slots=True)
class Connection:
    """A model that can be had: ``model`` is what ``model=`` takes, ``name`` is what the provider calls it."""

    model: str
    provider: str
    name: str
    _clients: list[Any] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def client(self) -> Any:
        """A sync client of the model, made when it is first asked for: as ``llmkit.client`` makes it where instructor is installed and the
        model chats, else the vendor's SDK's own, to which every call names the model."""
        from .clients import client_of

        if not self._clients:
            self._clients.append(client_of(self.model))
        return self._clients[0]


def connect(model: Any = None, *, operation: str = "chat", choose_randomly: bool = False, test: bool = False) -> Connection:
    """The model that a call would use: the one named, the first of a list that can be had, or the best there is.

    Parameters
    ----------
    model : str or list of str, optional
        ``"provider/model"``, a canonical name (any provider with a key that serves it, then a server on this computer), or a list of them.
    operation : str
        What it is wanted for.
    choose_randomly : bool
        Any of the ways to a model rather than the first; of all that can be had where no model is named.
    test : bool
        Prove the key and the server with one tiny request (chat, embed and rerank), and try the next way when it fails. Costs a few tokens.

    Returns
    -------
    Connection

    Raises
    ------
    ConfigError
        None can be had; the message names the ways to get one.

    Examples
    --------
    >>> import llmkit
    >>> llmkit.connect("echo/echo")
    Connection(model='echo/echo', provider='echo', name='echo')
    >>> llmkit.connect(["gpt-5-mini", "echo/echo"], test=True).provider
    'echo'
    """
    named = model if isinstance(model, list | tuple) else [model]
    if model is not None and not all(isinstance(name, str) for name in named):
        raise ConfigError("connect takes names of models; a client of your own is given to model= as it is")
    if test and operation not in _TRIALS:
        raise ConfigError(f"test=True can try {', '.join(_TRIALS)}, not {operation}")
    picker = default().picker
    if model is None and not (choose_randomly or test):
        model = picker.best(operation)
    targets = picker.pick(model, operation, choose_randomly)
    reasons: list[str] = []
    refused: set[str] = set()
    for target in targets:
        if target.provider.name in refused:
            continue
        try:
            if test:
                _TRIALS[operation](target.name)
        except LLMError as error:
            if len(targets) == 1:
                raise
            reasons.append(f"{target.name}: {type(error).__name__}")
            if isinstance(error, KeyRejected | OutOfCredit):  # of the account: its other models need not be tried
                refused.add(target.provider.name)
        else:
            return Connection(target.name, target.provider.name, target.model.name)
    raise ConfigError(f"none of {len(reasons)} models answers: {'; '.join(reasons)}")


def _try_chat(model: str) -> None:
    try:
        chat("Say OK.", model=model, max_tokens=16, cache="off", max_attempts=1, timeout=_TRIAL_SECONDS)
    except (Truncated, BadOutput):
        pass  # a model that thinks before it speaks was cut off: the key and the server are proved all the same


def _try_embed(model: str) -> None:
    embed("OK", model=model, cache="off", timeout=_TRIAL_SECONDS)


def _try_rerank(model: str) -> None:
    rerank("OK", ["OK", "no"], model=model, cache="off", timeout=_TRIAL_SECONDS)


_TRIAL_SECONDS = 20.0
_TRIALS: dict[str, Callable[[str], None]] = {"chat": _try_chat, "embed": _try_embed, "rerank": _try_rerank}


def ask(question: str, *, test: bool = True) -> str:
    """Ask whatever model can be had: by whichever key is there, or by a server on this computer.

    Parameters
    ----------
    question : str
        Sent as it is.
    test : bool
        Where the first choice does not answer (a rejected key, no credit, nobody there), ask the next provider; False: only the first.

    Returns
    -------
    str

    Raises
    ------
    LLMError
        Nobody can be had, or nobody answers.

    Examples
    --------
    >>> import llmkit
    >>> llmkit.ask("  ")
    Traceback (most recent call last):
    llmkit.errors.BadInput: ask needs a question: the first argument is empty
    """
    if not isinstance(question, str) or not question.strip():
        raise BadInput("ask needs a question: the first argument is empty")
    picker = default().picker
    if not test:
        return str(chat(question, model=picker.best("chat")))
    first_at_each: dict[str, str] = {}
    for target in picker.pick(None, "chat"):
        first_at_each.setdefault(target.provider.name, target.name)
    return str(chat(question, model=list(first_at_each.values()), max_attempts=2))


def detect_local() -> pd.DataFrame:
    """OpenAI-compatible servers on this computer's usual ports (loopback only), looked for anew.

    Returns
    -------
    DataFrame
        ``model`` (what ``model=`` takes), ``base_url``, and ``canonical``: the catalogue's name for it, which reaches it too, or empty.

    Examples
    --------
    >>> import llmkit
    >>> list(llmkit.detect_local().columns)
    ['model', 'base_url', 'canonical']
    """
    picker = default().picker
    found = picker.servers(again=True)
    return servers_table(found, [picker.canonical_of(name) for _, name in found])


def use(chat: Any = None, *, embed: Any = None, rerank: Any = None) -> None:
    """Set the session's models: what calls take when they name none. Names are checked at once."""
    default().use(chat, embed=embed, rerank=rerank)


def set_key(provider: str, key: str | Callable[[], str] | None = None, *, keep: str = "memory") -> None:
    """Give an API key, asking for it without showing it where none is given.

    Parameters
    ----------
    provider : str
        E.g. ``"openai"``.
    key : str or callable, optional
        The key, or a function that returns the one of the moment. Without it you are asked with getpass.
    keep : {"memory", "keyring", ".env"}
        For this process, or in the system's keyring as well, where later processes find it (extra ``llmkit[keyring]``; ``keyring del llmkit
        openai`` removes it), or as a line of the nearest ``.env`` file, which is made with mode 0600 where there is none and named in
        ``.gitignore``. Keys by hand go before environment variables, those before ``.env``, that before the keyring; the keyring is
        looked at for providers whose key was kept there by this function, for all with ``LLMKIT_KEYRING=1``, for none with ``0``.

    Examples
    --------
    >>> import llmkit
    >>> llmkit.set_key("mistral", "key-not-real")
    >>> known = llmkit.providers().set_index("provider")
    >>> known.loc["mistral", "key_from"]
    'given by hand'
    """
    session = default()
    known = session.catalogue.provider(provider)
    if known is None:
        raise session.catalogue.unknown(provider, str(provider))
    if keep not in ("memory", "keyring", ".env"):
        raise ConfigError(f'keep is "memory", "keyring" or ".env", not {keep!r}')
    if key is None:
        from getpass import getpass

        try:
            key = getpass(f"API key for {provider}: ")
        except Exception as error:  # getpass raises what its front end raises: no stdin in papermill, nbclient, ...
            raise ConfigError(f'nobody can be asked here ({type(error).__name__}); call llmkit.set_key("{provider}", key)') from None
    if not callable(key) and (not isinstance(key, str) or not key.strip()):
        what = "empty" if isinstance(key, str) else f"of type {type(key).__name__}"
        raise ConfigError(f"the key for {provider} is {what}; give it as a text, or as a function that returns one")
    if keep != "memory":
        if callable(key):
            raise ConfigError(f"a function cannot be kept in {'the keyring' if keep == 'keyring' else 'a file'}; give the key as a text")
        if keep == "keyring":
            session.settings.keep(provider, key)
        else:
            session.settings.keep_in_file(known, key)
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
    prompt_cache: str | None = None,
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
    prompt_cache : {"anthropic", "openai", "openrouter", "mistral", "groq", "deepseek"}, optional
        Whose rules its cache of prompts follows, as a gateway to that vendor does; by default none is known, and nothing is marked.
    """
    if prompt_cache not in (None, *_PROMPT_CACHES):
        raise ConfigError(f"prompt_cache is one of {', '.join(map(repr, _PROMPT_CACHES))}, not {prompt_cache!r}")
    if embed_encoding not in ("float", "base64"):
        raise ConfigError(f'embed_encoding is "float" or "base64", not {embed_encoding!r}')
    if not isinstance(embed_batch, int) or embed_batch < 1:
        raise ConfigError(f"embed_batch is a number of texts, at least 1, not {embed_batch!r}")
    for what, value in (("name", name), ("base_url", base_url)):
        if not isinstance(value, str):
            raise ConfigError(f"a provider's {what} is a text, not {value!r}")
    if name in BUILT_IN:
        raise ConfigError(f'"{name}" is built into llmkit; choose another name for your server')
    quirks = {"embed_encoding": embed_encoding, "embed_batch": embed_batch}
    default().add_provider(name, base_url, api_key, protocol, quirks | ({"prompt_cache": prompt_cache} if prompt_cache else {}))


_PROMPT_CACHES = ("anthropic", "openai", "openrouter", "mistral", "groq", "deepseek")


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


def running() -> list[Run[Any]]:
    """The runs of this process that go on just now, the newest first. One that is made of several stands for these.

    Examples
    --------
    >>> import llmkit
    >>> llmkit.running()
    []
    """
    return [run for run in reversed(list(begun.running.values())) if not run.done]


def on_run(function: Callable[[Run[Any]], Any]) -> Callable[[], None]:
    """Have ``function(run)`` called whenever a run begins in this process, in the thread that begins it.

    Returns
    -------
    callable
        Call it to have that end.

    Examples
    --------
    >>> import llmkit
    >>> seen = []
    >>> stop = llmkit.on_run(lambda run: seen.append(run.operation))
    >>> _ = llmkit.chat("Hello", model="echo/echo")
    >>> stop()
    >>> seen
    ['chat']
    """

    def stop() -> None:
        if function in begun.listeners:
            begun.listeners.remove(function)

    begun.listeners.append(function)
    return stop


def served(server: str, api_key: str | None = None) -> list[str]:
    """The models that a server says it has, asked now; nothing of it is kept.

    Parameters
    ----------
    server : str
        A base URL such as ``"http://127.0.0.1:8000/v1"``, or the name of a provider that speaks OpenAI's format.
    api_key : str, optional
        Where it wants one; a provider's own is found as for a call.

    Raises
    ------
    LLMError
        Nobody is there, the key is refused, or what is there lists no models.

    Examples
    --------
    >>> import llmkit
    >>> llmkit.served("somewhere")
    Traceback (most recent call last):
    llmkit.errors.ConfigError: this is neither a provider's name nor an address; one is written like http://127.0.0.1:8000/v1
    """
    return default().picker.served(server, api_key)


def parameters(model: str, operation: str = "chat") -> list[str]:
    """The parameters that a model's provider has a word for, such as ``temperature`` or ``seed``; its key need not be there.

    Parameters
    ----------
    model : str
        ``"provider/model"`` or a canonical name.
    operation : str
        What it is wanted for.

    Examples
    --------
    >>> import llmkit
    >>> llmkit.parameters("anthropic/claude-haiku-4-5"), llmkit.parameters("local/lexical", "embed")
    (['temperature', 'max_tokens'], ['dimensions'])
    """
    return default().picker.parameters(model, operation)


def preferences(**changes: Any) -> dict[str, Any]:
    """What is kept for you beyond this process, in the user's config directory: your favourite models and your budget. No keys.

    Parameters
    ----------
    favourites : list of str, optional
        Models that ``ModelPicker`` shows first.
    budget : float, optional
        US dollars that ``CostPanel`` warns beyond; it stops nothing (``max_cost`` does).
    budget_per : {"day", "month"}, optional
        Of which the budget is.

    Returns
    -------
    dict
        All that is kept, after the changes; ``None`` forgets one.

    Examples
    --------
    >>> import llmkit
    >>> llmkit.preferences(favourites=["openai/gpt-5-mini"])["favourites"]
    ['openai/gpt-5-mini']
    >>> llmkit.preferences(favourites=None)
    {}
    """
    settings = default().settings
    for name, value in changes.items():
        fits = _PREFERENCES.get(name)
        if fits is None:
            raise BadInput(f"there is no preference {name!r}; there is {', '.join(_PREFERENCES)}")
        if value is not None and not fits(value):
            raise BadInput(f"{value!r} is no {name}")
    if changes:
        settings.prefer(changes)
    return {name: value for name, value in settings.preferences().items() if name in _PREFERENCES and _PREFERENCES[name](value)}


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_amount(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")


_PREFERENCES: dict[str, Callable[[Any], bool]] = {
    "favourites": _is_names,
    "budget": _is_amount,
    "budget_per": lambda value: value in ("day", "month"),
}
