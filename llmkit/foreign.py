"""Clients that callers bring along: whose SDK they are of, and whose address they hold."""

from __future__ import annotations

import inspect
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from weakref import WeakKeyDictionary

from .adapter import Adapter, Codec, Target
from .catalogue import Catalogue
from .errors import AccessError, ConfigError, Unsupported
from .settings import Settings, is_loopback
from .types import Model, Provider

__all__ = ["Brought", "Made", "brought", "is_pair", "provider_at", "target_of"]

#: The wire format that each SDK's clients speak, by the package that their classes come from.
_PROTOCOLS = {"openai": "openai", "anthropic": "anthropic", "cohere": "cohere", "voyageai": "voyage"}
#: What a client of each SDK can do; other objects of these packages are no clients.
_CAN = {"openai": "post", "anthropic": "post", "cohere": "embed", "voyage": "embed"}
_Sent = tuple[int, Mapping[str, str], bytes]
#: Quirks that only a vendor's own address is known for, and those that Azure has not in all its versions.
_OWN_QUIRKS = ("embed_encoding", "token_limit_field", "prompt_cache")
_NOT_AZURE = ("prompt_cache",)


class Made:
    """A client that llmkit made: it knows where its requests go."""

    target: Target


@dataclass(frozen=True, slots=True)
class Brought:
    """A caller's client, the wire it speaks, and the model to ask by it."""

    client: Any
    protocol: str
    name: str


def is_pair(model: Any) -> bool:
    """Whether this is one model, ``(client, "its name")``, and no list of two."""
    return isinstance(model, tuple) and len(model) == 2 and isinstance(model[1], str) and not isinstance(model[0], str)


def brought(model: Any) -> Brought | Target | None:
    """What a ``model=`` that is no text stands for; ``None`` where it is no client at all.

    Raises
    ------
    ConfigError
        A client without a model, or of an SDK that is not known here.
    """
    client, name = model if is_pair(model) else (model, "")
    if isinstance(client, Made):
        made = client.target
        return replace(made, model=Model(made.provider.name, name)) if name else made
    if "instructor" in _packages(client) and hasattr(client, "client"):
        name = name or str(client.kwargs.get("model") or "")
        client = client.client
    protocol = next((_PROTOCOLS[package] for package in _packages(client) if package in _PROTOCOLS), None)
    if protocol is None or not hasattr(client, _CAN[protocol]):
        if not is_pair(model):
            return None
        kind = type(client).__qualname__
        raise ConfigError(
            f"model=(client, name) takes a client of openai, anthropic, cohere, voyageai or instructor, not a {kind} of "
            f'{type(client).__module__.split(".")[0]}; other vendors are reached by name, such as "groq/llama-3.3-70b-versatile"'
        )
    if not name.strip():
        raise ConfigError(f'the client is there, but which model? Write model=(client, "name"), not the {type(client).__qualname__} alone')
    return Brought(client, protocol, name.strip())


def _packages(client: Any) -> list[str]:
    return [kind.__module__.split(".")[0] for kind in type(client).__mro__]


# ------------------------------------------------------------------------------------------------------------------ targets


def target_of(theirs: Brought, adapter: Adapter, operation: str, known: Catalogue, settings: Settings) -> Target:
    """The target that is reached by a caller's client."""
    codec = adapter.codecs.get(operation)
    if codec is None:
        raise Unsupported(f"a client of {theirs.protocol} does not {operation}; it does {', '.join(adapter.codecs)}")
    if codec.content_type != "application/json" or adapter.send is None:
        raise Unsupported(f"files do not travel through a client of your own: to {operation}, name the model instead")
    provider = _provider_of(theirs, known, settings)
    # The low-level post of an SDK hands out whole answers, no events.
    whole = replace(codec, streamed=None, delta=None)
    model = known.model(provider.name, theirs.name)
    return Target(model, provider, replace(adapter, send=_guarded(adapter.send)), whole, foreign=theirs.client)


def _provider_of(theirs: Brought, known: Catalogue, settings: Settings) -> Provider:
    """The vendor of a client's address; where it is nobody's that is known, one called after the SDK. Answers are kept by address."""
    url = _bare(str(getattr(theirs.client, "base_url", "") or ""))
    found = provider_at(url, known, settings) if url else None
    if found is not None and found.protocol == theirs.protocol:
        return replace(found, base_url=url)
    row = known.provider(theirs.protocol) or Provider(theirs.protocol, "", theirs.protocol)
    azure = any(kind.__name__ == "BaseAzureClient" for kind in type(theirs.client).__mro__)  # OpenAI's own models
    quirks = {quirk: value for quirk, value in row.quirks.items() if quirk not in (_NOT_AZURE if azure else _OWN_QUIRKS)}
    return replace(row, base_url=url or _mark(theirs.client), quirks=quirks, status="alive", key_optional=True)


#: What stands for the address of a client that does not tell it (cohere's, voyageai's): answers of two such clients never mix.
_marks: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def _mark(client: Any) -> str:
    return _marks.setdefault(client, f"client:{secrets.token_hex(8)}")


# ---------------------------------------------------------------------------------------------------------------- addresses


def provider_at(base_url: str, known: Catalogue, settings: Settings) -> Provider | None:
    """The provider whose address this is: one's own row or a moved vendor by the longest path, then a vendor by its host, then
    a server by the port of this computer it usually listens on. ``None`` where it is nobody's that is known."""
    given = base_url.rstrip("/")
    rows = [row for name in known.provider_names() if (row := known.provider(name)) is not None]
    placed = [moved for row in rows if (moved := settings.addressed(row)).base_url]
    exact = [row for row in placed if given == row.base_url or given.startswith(f"{row.base_url}/")]
    if exact:
        found = max(exact, key=lambda row: len(row.base_url))
        return replace(found, base_url=given) if found.protocol == "openai" else found
    parts = urlsplit(given)
    if is_loopback(given):
        local = known.by_port(parts.port) if parts.port else None
        return None if local is None else replace(local, base_url=given)
    for row in filter(lambda row: row.base_url, rows):
        usual = urlsplit(row.base_url)
        host, theirs = parts.hostname or "", usual.hostname or ""
        # Only over the vendor's own scheme and port: a key of https does not go to http. Below a vendor's host are its regions.
        if (parts.scheme, parts.port) == (usual.scheme, usual.port) and (
            host == theirs or (host.endswith(f".{theirs}") and not known.added(row.name))
        ):
            # An SDK of the vendor's own adds the path itself.
            path = usual.path if row.protocol != "openai" or not parts.path else parts.path
            return replace(row, base_url=urlunsplit((parts.scheme, parts.netloc, path, "", "")).rstrip("/"))
    return None


def _bare(url: str) -> str:
    """An address without what may be secret in it."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "")).rstrip("/")


# ------------------------------------------------------------------------------------------------------------------ sending


def _guarded(send: Callable[[Any, Codec, bytes], Any]) -> Callable[[Any, Codec, bytes], Any]:
    """``send`` for a client whose key is not ours to know: a refusal that quotes it is told without it. And where an async client
    belongs to another event loop than llmkit's, that is said."""

    def sending(client: Any, codec: Codec, body: bytes) -> Any:
        sent = send(client, codec, body)
        return _awaited(sent, client) if inspect.iscoroutine(sent) else _masked(sent, client)

    return sending


async def _awaited(sent: Any, client: Any) -> _Sent:
    try:
        return _masked(await sent, client)
    except Exception as error:
        if not _of_another_loop(error):
            raise
    raise AccessError(
        f"the {type(client).__qualname__} that was handed in has connections on another event loop, which cannot be used on llmkit's. Hand "
        "in one that has asked nothing yet (openai, anthropic: client.with_options(http_client=DefaultAsyncHttpxClient())), or a sync one",
        kind="loop",
    )


def _masked(sent: _Sent, client: Any) -> _Sent:
    status, headers, body = sent
    key = getattr(client, "api_key", None)
    if status == 200 or not isinstance(key, str) or not key:
        return sent
    return status, headers, body.replace(key.encode(), b"[key]")


_LOOP = re.compile(r"event loop", re.I)


def _of_another_loop(error: BaseException | None) -> bool:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, RuntimeError) and _LOOP.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False
