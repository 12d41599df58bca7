"""From what a user names, or from nothing, to a model that can be had: whose key is there, and which servers run on this computer."""

from __future__ import annotations

import asyncio
import importlib
import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

import orjson

from . import catalogue, event_loop, foreign
from .adapter import Adapter, Target
from .catalogue import Catalogue, Retired, meaning
from .errors import ConfigError, LLMError, MissingExtra, MissingKey, ServerFault, UnknownModel, Unsupported
from .settings import Settings, header_of, is_loopback
from .types import Model, Operation, Provider, Secret

__all__ = ["Picker", "Way", "adapter_for"]

#: Taken for an operation when nothing better can be had, where its package is installed.
_LAST_RESORT = {"embed": ("local/lexical", "sklearn"), "rerank": ("local/bm25", "bm25s")}
#: The package that an extra brings.
_PACKAGE = {"anthropic": "anthropic", "cohere": "cohere", "voyage": "voyageai"}
#: What another vendor of the same model may answer in place of the first.
_ANY_VENDOR = ("chat", "transcribe")
#: Seconds that a port of this computer has to answer.
_LOOK = 0.5
#: Seconds that a server somebody named has to answer.
_PROBE = 10.0
#: Wire formats whose list of models is read.
_LISTED = ("openai",)
#: What the calls for an operation take beside the text.
_PARAMETERS = {
    "chat": ("temperature", "max_tokens", "seed"),
    "extract": ("temperature", "max_tokens", "seed"),
    "embed": ("dimensions",),
    "transcribe": ("language", "prompt"),
    "speak": ("voice", "format", "speed", "instructions"),
}

catalogue.default.folder = lambda: Settings().cache_dir / "catalogue"


@dataclass(frozen=True, slots=True)
class Way:
    """One way to reach a model. ``ready``: its key is there, or it is a server that runs."""

    provider: Provider
    model: Model
    secret: Secret | None
    ready: bool
    here: bool = False

    @property
    def name(self) -> str:
        return f"{self.provider.name}/{self.model.name}"


class Picker:
    """Chooses among the catalogue's models by the keys that the settings find.

    Parameters
    ----------
    get : callable
        ``await get(url, timeout=seconds)``, and ``headers=`` beside for a server that wants a key, gives a response with ``status`` and
        ``body``: how ports of this computer are looked at.
    """

    def __init__(self, settings: Settings, known: Catalogue, get: Callable[..., Awaitable[Any]]) -> None:
        self.settings = settings
        self.catalogue = known
        self._get = get
        self._servers: list[tuple[Provider, str]] | None = None

    # -------------------------------------------------------------------------------------------------------------- by name

    def route(
        self, model: Any, operation: Operation | str, fallback: Any = None, context_fallback: Any = None, content_fallback: Any = None
    ) -> tuple[Target, ...]:
        """The targets that a ``model=`` argument names, first choice first; those for one kind of refusal alone come last.

        Raises
        ------
        ConfigError
            An unknown name, a missing key, an operation that the model does not have.
        """
        named = _listed(model) + _listed(fallback)
        if not named:
            raise ConfigError("the list of models is empty")
        targets = {target.name: target for name in named for target in self._ways_along(name, operation)}
        for only_for, given in (("context", context_fallback), ("content", content_fallback)):
            for target in (target for name in _listed(given) for target in self._ways_along(name, operation)):
                targets.setdefault(f"{target.name} for {only_for}", replace(target, only_for=only_for))
        return tuple(targets.values())

    def _ways_along(self, name: Any, of: Operation | str) -> list[Target]:
        """The target of a name; of a canonical one that writes text one at each vendor that is ready: no outage is the model's own.

        Vectors and scores of two vendors do not mix, whatever the model is called.
        """
        if isinstance(of, Operation) and of.codecs:
            return [self.target_by(name, of)]
        operation = of.codec if isinstance(of, Operation) else of
        first = self.target(name, operation)
        if operation not in _ANY_VENDOR or not isinstance(name, str) or first.name == name.strip():
            return [first]
        targets = {first.provider.name: first}
        for way in self.ways_to(name, operation):
            if way.provider.name not in targets and _installed(way.provider):
                targets[way.provider.name] = self.addressed(way, operation)
        return list(targets.values())

    def target(self, name: Any, operation: str) -> Target:
        """The one target of a name: ``"provider/model"``, or a canonical name's first way that is ready; or of a caller's client."""
        theirs = None if isinstance(name, str) else foreign.brought(name)
        if isinstance(theirs, Target):
            model = self.catalogue.model(theirs.provider.name, theirs.model.name)
            return self.addressed(Way(theirs.provider, model, theirs.secret, True), operation)
        if theirs is not None:
            return foreign.target_of(theirs, adapter_for(theirs.protocol), operation, self.catalogue, self.settings)
        return self.addressed(self.ways_to(name, operation)[0], operation)

    def target_by(self, name: Any, operation: Operation) -> Target:
        """The target for an operation that brings its own codecs along; the catalogue cannot know who serves it, so the name is exact."""
        way = self._exact(name.strip()) if isinstance(name, str) else None
        if way is None:
            raise UnknownModel(f'for {operation.name} a model is named as "provider/model", not {name!r}')
        codec = operation.codecs.get(way.provider.protocol)
        if codec is None:
            raise Unsupported(f"{operation.name} has no codec for {way.provider.name}'s wire format; it has {', '.join(operation.codecs)}")
        return Target(way.model, way.provider, adapter_for(way.provider.protocol), codec, way.secret)

    def suits(self, name: Any, operation: str) -> bool:
        """Whether a model is meant for an operation; one that the catalogue does not know is judged by its name."""
        try:
            target = self.target(name, operation)
        except Unsupported:
            return False
        if target.model.operations:
            return operation in target.model.operations
        # Where nobody chats, an unknown model is what it is asked to be; elsewhere its name has to say so.
        return "chat" not in (target.provider.operations or target.adapter.codecs) or _suits(target.model.name, operation)

    def addressed(self, way: Way, operation: str) -> Target:
        """The target of a way, if that model does that operation there."""
        adapter = adapter_for(way.provider.protocol)
        codec = adapter.codecs.get(operation)
        can = [known for known in adapter.codecs if known in (way.model.operations or way.provider.operations or adapter.codecs)]
        if codec is None or not _does(way, operation):
            raise Unsupported(f"{way.name} does not {operation}; it does {', '.join(can)}")
        return Target(way.model, way.provider, adapter, codec, way.secret)

    def ways_to(self, name: Any, operation: str) -> list[Way]:
        """Every way to a name that is ready, best first; never an empty list.

        Raises
        ------
        ConfigError
            There is none, and the message says why and what to do.
        """
        if not isinstance(name, str) or not name.strip():
            what = "an empty one" if isinstance(name, str) else type(name).__name__
            raise UnknownModel(
                f'a model is named by a string such as "openai/gpt-4.1-mini", or given as (client, "model name") with a client of an SDK; '
                f"not {what}"
            )
        exact = self._exact(name.strip())
        if exact is not None:
            return [exact]
        return self._by_canonical_name(name.strip(), operation)

    def _exact(self, name: str) -> Way | None:
        """The way that ``"provider/model"`` spells out; ``None`` where the name begins with no provider."""
        first, slash, rest = name.partition("/")
        if slash and not rest:
            raise UnknownModel(f'"{name}" names a provider and no model; write it as "{first}/<model>"')
        if slash and first in catalogue.BUILT_IN:
            return Way(*_built_in(first, rest), None, True)
        provider = self.catalogue.provider(first) if slash else None
        if provider is None:
            return None
        provider = self.settings.addressed(provider)
        if provider.status == "retired" and not provider.base_url:
            raise UnknownModel(f"{provider.name} is retired. {provider.retired}")
        secret = self.settings.key(provider)
        if secret is None and not provider.key_optional:
            way = f"Set {provider.key_env[0]} or call" if provider.key_env else "Call"
            raise MissingKey(f'no key for "{provider.name}". {way} llmkit.set_key("{provider.name}")')
        return Way(provider, self.catalogue.model(provider.name, rest), secret, True)

    def _by_canonical_name(self, name: str, operation: str) -> list[Way]:
        vendors = [way for way in self._vendors(name) if _does(way, operation)]
        ready = [way for way in vendors if way.ready]
        # Ports are looked at only where no key will do: it takes a moment, and keys were set on purpose.
        found = ready or [way for way in self._here(name) if _does(way, operation)]
        if found:
            return found
        retired = self.catalogue.retired(name)
        if retired is not None:
            raise UnknownModel(_epitaph(name, retired))
        if vendors:
            ways = ", ".join(_cure(way) for way in vendors)
            raise MissingKey(f'no key for any provider of "{name}". It is served as {ways}')
        others = sorted({does for model in self.catalogue.named(name) for does in model.operations})
        if others and operation not in others:
            raise Unsupported(f'"{name}" does not {operation}; it does {", ".join(others)}')
        first, slash, _ = name.partition("/")
        raise self.catalogue.unknown(name, first if slash else None)

    def known_ways(self, name: str) -> list[Way]:
        """Every way to a canonical name, ready or not, in order of preference; what runs on this computer at the end.

        Raises
        ------
        UnknownModel
            Nobody has it.
        """
        vendors = self._vendors(name)
        here = self._here(name)
        ways = [way for way in vendors if way.name not in {other.name for other in here}] + here
        if ways:
            return ways
        retired = self.catalogue.retired(name)
        if retired is not None:
            raise UnknownModel(_epitaph(name, retired))
        first, slash, rest = name.partition("/")
        provider = self.catalogue.provider(first) if slash and rest else None
        if provider is None:
            raise self.catalogue.unknown(name, first if slash else None)
        return self.known_ways(self.catalogue.canonical(self.catalogue.model(first, rest)))

    def canonical_of(self, name: str) -> str:
        """The canonical name that reaches a server's model, or nothing."""
        exact = [model for model in self.catalogue.named(name.removesuffix(":latest")) if model.aliases and self._own(model.provider)]
        if exact:
            return exact[0].aliases[0]
        alike = meaning(name)
        return next((known for known in self.catalogue.canonical_names() if meaning(known) == alike), "")

    def _vendors(self, canonical: str) -> list[Way]:
        ways = []
        for model in self.catalogue.named(canonical):
            known = self.catalogue.provider(model.provider)
            if known is None:
                continue
            provider = self.settings.addressed(known)
            secret = self.settings.key(provider)
            # Without a key only what somebody said is there: his own row, or an address that he set.
            theirs = self.catalogue.added(provider.name) or provider is not known
            ways.append(Way(provider, model, secret, secret is not None or (provider.key_optional and theirs)))
        return ways

    def _here(self, canonical: str) -> list[Way]:
        """Models of this name on servers of this computer: called exactly so, or as Ollama calls it, or by one meaning."""
        exact = {canonical, *(model.name for model in self.catalogue.named(canonical) if self._own(model.provider))}
        alike = meaning(canonical)

        def matching(servers: list[tuple[Provider, str]]) -> list[Way]:
            found = [pair for pair in servers if pair[1].removesuffix(":latest") in exact]
            found += [pair for pair in servers if pair not in found and meaning(pair[1]) == alike]
            return [self._running(*pair) for pair in found]

        looked_before = self._servers is not None
        ways = matching(self.servers())
        return matching(self.servers(again=True)) if looked_before and not ways else ways

    def _own(self, name: str) -> bool:
        provider = self.catalogue.provider(name)
        return provider is not None and is_loopback(provider.base_url)

    def _running(self, provider: Provider, name: str) -> Way:
        return Way(provider, self.catalogue.model(provider.name, name), self.settings.key(provider), True, here=True)

    # -------------------------------------------------------------------------------------------------------------- unnamed

    def best(self, operation: str) -> str:
        """The best model that can be had for an operation: the first of ``choices``.

        Raises
        ------
        MissingKey
            Nothing can be had; the message names the ways to get something.
        """
        for way in self.choices(operation):
            return way.name
        missing = [provider for provider in self._keyed(operation) if not _installed(provider)]
        if missing:
            name, extra = missing[0].name, missing[0].extra
            raise MissingExtra(f"a key for {name} is there, and its package is not: pip install 'llmkit[{extra}]'")
        last, _ = _LAST_RESORT.get(operation, ("", ""))
        builtin = f" For one without a key or a network: pip install 'llmkit[local]', model=\"{last}\"." if last else ""
        if operation == "chat":
            builtin = ' To try llmkit without a model, name model="echo/echo".'
        raise MissingKey(
            f"no model for {operation}: no API key was found and no server answers on this computer. Set one, e.g. OPENAI_API_KEY or "
            f'llmkit.set_key("openai"); or start Ollama, vLLM or LM Studio; or name a model with model="provider/model".{builtin}'
        )

    def choices(self, operation: str) -> Iterator[Way]:
        """What can be had for an operation, best first: by the catalogue's order among the vendors whose key is there, then the cheapest
        model of each other vendor with a key, then servers on this computer, then what runs inside llmkit."""
        tried = set()
        for canonical in self.catalogue.priority(operation):
            for way in self._vendors(canonical):
                if way.ready and _does(way, operation) and _installed(way.provider):
                    tried.add(way.provider.name)
                    yield way
        for provider in self._keyed(operation):
            if provider.name not in tried and _installed(provider):
                cheapest = self._cheapest(provider, operation)
                if cheapest is not None:
                    yield Way(provider, cheapest, self.settings.key(provider), True)
        running = [self._running(*pair) for pair in self.servers()]
        suited = [way for way in running if _does(way, operation)]
        order = {meaning(canonical): place for place, canonical in enumerate(self.catalogue.priority(operation))}
        yield from sorted(suited, key=lambda way: order.get(meaning(way.model.name), len(order)))
        last, package = _LAST_RESORT.get(operation, ("", ""))
        if last and find_spec(package) is not None:
            yield Way(*_built_in(*last.split("/")), None, True)

    def _keyed(self, operation: str) -> list[Provider]:
        """The vendors that serve an operation and whose key is there; those whose answer is doubtful last."""
        known = [self.catalogue.provider(name) for name in self.catalogue.provider_names()]
        keyed = [
            self.settings.addressed(provider)
            for provider in known
            if provider is not None and operation in provider.operations and self.settings.key(provider) is not None
        ]
        return sorted(keyed, key=lambda provider: provider.status != "alive")

    def _cheapest(self, provider: Provider, operation: str) -> Model | None:
        models = [model for model in self.catalogue.models() if model.provider == provider.name and operation in model.operations]
        return min(models, key=lambda model: (model.price.input is None, model.price.input or 0, model.name), default=None)

    def pick(self, model: Any, operation: str, choose_randomly: bool = False) -> list[Target]:
        """Every target that would do, in the order to try: of the name, of each of a list of names, or of whatever can be had.

        Raises
        ------
        ConfigError
            None can be had; the message names the ways to get one.
        """
        if model is None:
            ways = list(self.choices(operation))
            if not ways:
                self.best(operation)  # says why
            return [self.addressed(way, operation) for way in _shuffled(ways, choose_randomly)]
        names = _listed(model)
        if not names:
            raise ConfigError("the list of models is empty")
        targets: list[Target] = []
        reasons: list[str] = []
        for name in names:
            try:
                if not isinstance(name, str):
                    targets.append(self.target(name, operation))
                    continue
                targets += [self.addressed(way, operation) for way in _shuffled(self.ways_to(name, operation), choose_randomly)]
            except ConfigError as error:
                if len(names) == 1:
                    raise
                reasons.append(str(error))
        if not targets:
            raise ConfigError(f"none of {len(names)} models can be had: {'; '.join(reasons)}")
        return targets

    # --------------------------------------------------------------------------------------------------------- this computer

    def servers(self, again: bool = False) -> list[tuple[Provider, str]]:
        """(provider, model) for each OpenAI-compatible server on this computer's usual ports; looked for once."""
        if self._servers is None or again:
            self._servers = event_loop.call(self._look_around)
            for provider, _ in self._servers:
                if self.catalogue.provider(provider.name) is None:
                    self.catalogue.add(provider)
        return self._servers

    async def _look_around(self) -> list[tuple[Provider, str]]:
        found = await asyncio.gather(*(self._look(row["port"]) for row in self.catalogue.local_ports))
        return [pair for pairs in found for pair in pairs]

    async def _look(self, port: int) -> list[tuple[Provider, str]]:
        known = self.catalogue.by_port(port)
        provider = self.settings.addressed(known) if known else Provider(f"port{port}", f"http://127.0.0.1:{port}/v1", key_optional=True)
        if not is_loopback(provider.base_url):
            return []
        try:
            response = await self._get(f"{provider.base_url}/models", timeout=_LOOK)
            models = orjson.loads(response.body)["data"] if response.status == 200 else []
            return [(provider, str(model["id"])) for model in models]
        except (LLMError, ValueError, LookupError, TypeError):
            return []

    def served(self, server: str, key: str | None = None, timeout: float = _PROBE) -> list[str]:
        """The models that a server says it has: of a provider by its name, or at a base URL."""
        provider = self.catalogue.provider(server)
        if provider is not None:
            provider = self.settings.addressed(provider)
            secret = self.settings.key(provider)
            key = key or (secret.reveal() if secret is not None else None)
            protocol, url = provider.protocol, provider.base_url
        else:
            protocol, url = "openai", _address(server)
        if protocol not in _LISTED:
            raise Unsupported(f"llmkit does not read {server}'s list of models; llmkit.models() has those it knows")
        headers = {"Authorization": f"Bearer {header_of(key, 'the key')}"} if key else {}
        answer = event_loop.call(self._fetch, f"{url}/models", timeout, headers)
        if answer.status not in (200, 404):
            raise adapter_for(protocol).classify_error(answer.status, answer.headers, answer.body)
        try:
            return [str(model["id"]) for model in orjson.loads(answer.body)["data"]]
        except (ValueError, LookupError, TypeError):
            said = "this server answers, but not with a list of models; is the path right (often /v1)?"
            raise ServerFault(said, kind="bad_response") from None

    async def _fetch(self, url: str, timeout: float, headers: dict[str, str]) -> Any:
        return await self._get(url, timeout=timeout, headers=headers)

    def parameters(self, name: str, operation: str) -> list[str]:
        """The parameters of a call that a model's wire has a word for, whether its key is there or not."""
        first, _, rest = name.partition("/")
        if first in catalogue.BUILT_IN:
            provider, _ = _built_in(first, rest)
        else:
            known = self.catalogue.provider(first)
            if known is None:
                named = self.catalogue.named(name)
                known = self.catalogue.provider(named[0].provider) if named else None
            if known is None:
                raise self.catalogue.unknown(name, first if "/" in name else None)
            provider = known
        codec = adapter_for(provider.protocol).codecs.get(operation)
        offered = _PARAMETERS.get(operation, ())
        return [] if codec is None else [given for given in offered if codec.options is None or given in codec.options]


def _address(text: str) -> str:
    """A base URL, checked; what is none is not repeated, since a key may have been typed in its place."""
    try:
        parts = urlsplit(text.strip())
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        fits = False
    if not fits:
        raise ConfigError("this is neither a provider's name nor an address; one is written like http://127.0.0.1:8000/v1")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ConfigError("an address holds no user, password, ? or #: a key has a place of its own")
    return text.strip().rstrip("/")


def _listed(model: Any) -> list[Any]:
    if model is None:
        return []
    return list(model) if isinstance(model, list | tuple) and not foreign.is_pair(model) else [model]


def _shuffled(ways: list[Way], choose_randomly: bool) -> list[Way]:
    return random.sample(ways, len(ways)) if choose_randomly else ways


def _does(way: Way, operation: str) -> bool:
    """Whether an operation can be asked there, as far as is known of the model, then of the vendor, then by the model's name."""
    if way.model.operations:
        return operation in way.model.operations
    if way.provider.operations and operation not in way.provider.operations:
        return False
    return _suits(way.model.name, operation) if way.here else True


def _suits(name: str, operation: str) -> bool:
    """Whether a local server's model, known by its name only, is meant for this operation."""
    embeds = any(word in name.lower() for word in ("embed", "bge", "minilm", "e5-", "gte-"))
    reranks = "rerank" in name.lower()
    hears = "whisper" in name.lower()
    speaks = any(word in name.lower() for word in ("tts", "kokoro", "orpheus"))
    other = embeds or reranks or hears or speaks
    meant = {"chat": not other, "embed": embeds and not reranks, "rerank": reranks, "transcribe": hears, "speak": speaks}
    return meant.get(operation, False)


def _installed(provider: Provider) -> bool:
    return provider.extra is None or find_spec(_PACKAGE.get(provider.extra, provider.extra)) is not None


def _epitaph(name: str, retired: Retired) -> str:
    since = f"served by no known vendor since {retired.since}" if retired.since else "served by no vendor"
    why = f": {retired.why}" if retired.why else ""
    return (
        f'"{name}" is {since}{why}. The nearest that is served is "{retired.successor}". A server on this computer that has it is '
        "found without more"
    )


def _cure(way: Way) -> str:
    if way.provider.key_optional:
        return f"{way.name} (on this computer)"
    return f"{way.name} ({way.provider.key_env[0]})" if way.provider.key_env else way.name


@cache
def adapter_for(protocol: str) -> Adapter:
    """The wire format of this name."""
    module = f"{__package__}.providers.{protocol}"
    try:
        return importlib.import_module(module).adapter()  # type: ignore[no-any-return]
    except ModuleNotFoundError as error:
        if error.name != module:
            raise MissingExtra(f"{protocol} needs the package {error.name}: pip install 'llmkit[{protocol}]'") from None
        raise Unsupported(f'no wire format "{protocol}"; protocol="openai" is what most servers speak') from None


def _built_in(name: str, model: str) -> tuple[Provider, Model]:
    module = importlib.import_module(f"{__package__}.providers.{name}")
    for known in module.MODELS:
        if known.name == model:
            return module.PROVIDER, known
    if name == "local" and model:
        return module.PROVIDER, Model("local", model)
    raise UnknownModel(f'no model "{name}/{model}"; there is {", ".join(str(known) for known in module.MODELS)}')
