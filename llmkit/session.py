"""Wires the parts together, once: settings and catalogue to targets, targets and an operation to a run."""

from __future__ import annotations

import importlib
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from importlib.util import find_spec
from typing import Any, TypeVar

import orjson

from . import catalogue, event_loop
from .adapter import Adapter, Target
from .engine import scheduler
from .engine.engine import Engine, Plan
from .engine.limiter import Limiter
from .engine.store import Store
from .engine.writer import Writer
from .errors import ConfigError, LLMError, MissingExtra, MissingKey, ModelGone, UnknownModel, Unsupported
from .outcomes import Outcomes
from .run import Run, Shape
from .settings import Settings
from .types import Estimate, Model, Operation, Policy, Provider, Secret, Task

__all__ = ["Session", "default"]

T = TypeVar("T")

#: Taken for an operation when nothing better can be had, where its package is installed.
_LAST_RESORT = {"embed": ("local/lexical", "sklearn"), "rerank": ("local/bm25", "bm25s")}


class Session:
    """Defaults, keys, limits, connections and a store. The module's functions use one shared session.

    Parameters
    ----------
    cache_dir : path, optional
        Where answers are kept; by default ``LLMKIT_CACHE_DIR`` or the user's cache directory.
    limits : mapping, optional
        ``{"openai": {"rpm": 500, "tpm": 200_000, "max_concurrency": 32}}``, as ``limit`` takes them.
    environ : mapping, optional
        Instead of ``os.environ``.

    Examples
    --------
    >>> from llmkit import Session
    >>> session = Session(limits={"openai": {"rpm": 500}})
    """

    def __init__(
        self,
        *,
        cache_dir: str | os.PathLike[str] | None = None,
        limits: Mapping[str, Mapping[str, float]] | None = None,
        environ: Mapping[str, str] | None = None,
        clock: event_loop.Clock | None = None,
    ) -> None:
        self.settings = Settings(environ, cache_dir)
        self.catalogue = catalogue.default
        self.last_run: Run[Any] | None = None
        self._clock = clock
        self._defaults: dict[str, Any] = {}
        self._limits: dict[str, dict[str, float]] = {name: dict(limit) for name, limit in (limits or {}).items()}
        #: The model that made vectors of a length, so that a query is embedded the same way.
        self.embedded_with: dict[int, str] = {}
        self._local: list[tuple[Provider, str]] | None = None
        self.engine = self._new_engine()
        event_loop.on_fork(self._forget)
        event_loop.on_exit(self._close)

    def _new_engine(self) -> Engine:
        writer = Writer(lambda: Store(self.settings.cache_dir), self._clock)
        return Engine(self._new_transport, writer, self._new_limiter, self._clock)

    def _new_transport(self) -> Any:
        from .engine.transport import Transport

        return Transport(self.settings.proxy_for)

    def _forget(self) -> None:
        event_loop.abandon(self.engine)
        if self.engine.writer is not None:
            self.engine.writer.forget()
        self.engine = self._new_engine()

    async def _close(self) -> None:
        await self.engine.close()

    def close(self) -> None:
        """Write what is owed and close connections and files. The session can be used again; it opens them anew."""
        event_loop.call(self._close)

    # ------------------------------------------------------------------------------------------------------------ settings

    def use(self, chat: Any = None, *, embed: Any = None, rerank: Any = None) -> None:
        """Set the models that calls take when they name none."""
        for operation, model in (("chat", chat), ("embed", embed), ("rerank", rerank)):
            if model is not None:
                self.route(model, operation)  # a misspelt name is told now, not at the first call
                self._defaults[operation] = model

    def set_key(self, provider: str, key: str | Callable[[], str] | None) -> None:
        if provider not in self.catalogue.provider_names():
            raise self.catalogue.unknown(provider, provider)
        self.settings.set_key(provider, key)

    def add_provider(
        self, name: str, base_url: str, api_key: str | Callable[[], str] | None, protocol: str, quirks: Mapping[str, Any]
    ) -> None:
        if "/" in name or not name.strip():
            raise ConfigError(f"a provider's name stands before the slash in a model's; {name!r} cannot")
        if not base_url.startswith(("http://", "https://")):
            raise ConfigError(f"base_url must begin with http:// or https://, not {base_url!r}")
        _adapter(protocol)
        self.catalogue.add(Provider(name, base_url.rstrip("/"), protocol, key_optional=api_key is None, quirks=dict(quirks)))
        self.settings.set_key(name, api_key)

    def limit(self, name: str, **limits: float | None) -> None:
        """Remember limits for a provider or one of its models, and apply them to what is known already."""
        self._limits.setdefault(name, {}).update({key: value for key, value in limits.items() if value is not None})
        event_loop.call(self._apply_limits)

    async def _apply_limits(self) -> None:
        for (provider, _, model, _), account in self.engine._accounts.items():
            self._limit(account.limiter, provider, model)

    def _new_limiter(self, target: Target) -> Limiter:
        limiter = Limiter(clock=self._clock)
        self._limit(limiter, target.provider.name, target.model.name)
        return limiter

    def _limit(self, limiter: Limiter, provider: str, model: str) -> None:
        said = {**self._limits.get(provider, {}), **self._limits.get(f"{provider}/{model}", {})}
        if said:
            width = said.get("max_concurrency")
            limiter.set_by_hand(said.get("rpm"), said.get("tpm"), None if width is None else int(width))

    # -------------------------------------------------------------------------------------------------------------- models

    def route(self, model: Any, operation: str, fallback: Any = None) -> tuple[Target, ...]:
        """The targets that a ``model=`` argument names, first choice first.

        Raises
        ------
        ConfigError
            An unknown name, a missing key, an operation that the model does not have.
        """
        named = _listed(model) + _listed(fallback)
        if not named:
            raise ConfigError("the list of models is empty")
        return tuple(self.target(name, operation) for name in named)

    def chosen(self, operation: str) -> tuple[str, str]:
        """(model, note for the summary line) where a call names none: the session's default, else the best that can be had."""
        if operation in self._defaults:
            return self._defaults[operation], ""
        return self.best(operation), " (chosen by llmkit)"

    def best(self, operation: str) -> str:
        """The best model that can be had for an operation: by the catalogue's order among the vendors whose key is there, then servers
        on this computer, then what runs inside llmkit.

        Raises
        ------
        MissingKey
            Nothing can be had; the message names the ways to get something.
        """
        for canonical in self.catalogue.priority(operation):
            for model in self.catalogue.named(canonical):
                provider = self.catalogue.provider(model.provider)
                if provider is not None and operation in model.operations and self.settings.key(provider) is not None:
                    return str(model)
        for provider, name in self.local_servers():
            if _suits(name, operation):
                return f"{provider.name}/{name}"
        last, package = _LAST_RESORT.get(operation, ("", ""))
        if last and find_spec(package) is not None:
            return last
        builtin = f" For one without a key or a network: pip install 'llmkit[local]', model=\"{last}\"." if last else ""
        if operation == "chat":
            builtin = ' To try llmkit without a model, name model="echo/echo".'
        raise MissingKey(
            f"no model for {operation}: no API key was found and no server answers on this computer. Set one, e.g. OPENAI_API_KEY or "
            f'llmkit.set_key("openai"); or start Ollama, vLLM or LM Studio; or name a model with model="provider/model".{builtin}'
        )

    def local_servers(self, again: bool = False) -> list[tuple[Provider, str]]:
        """(provider, model) for each OpenAI-compatible server on this computer's usual ports; looked for once."""
        if self._local is None or again:
            self._local = event_loop.call(self._look_around)
            for provider, _ in self._local:
                if self.catalogue.provider(provider.name) is None:
                    self.catalogue.add(provider)
        return self._local

    async def _look_around(self) -> list[tuple[Provider, str]]:
        import asyncio

        named = {row["port"]: name for name, row in self.catalogue._toml.items() if isinstance(row, dict) and "port" in row}

        async def look(port: int) -> list[tuple[Provider, str]]:
            url = f"http://127.0.0.1:{port}/v1"
            try:
                response = await self.engine.transport.get(f"{url}/models", timeout=0.5)
                models = orjson.loads(response.body)["data"] if response.status == 200 else []
                names = [str(model["id"]) for model in models]
            except (LLMError, ValueError, LookupError, TypeError):
                return []
            known = self.catalogue.provider(named.get(port, ""))
            provider = replace(known, base_url=url) if known else Provider(f"port{port}", url, key_optional=True)
            return [(provider, name) for name in names]

        found = await asyncio.gather(*(look(row["port"]) for row in self.catalogue.local_ports))
        return [pair for pairs in found for pair in pairs]

    def target(self, name: Any, operation: str) -> Target:
        if not isinstance(name, str) or not name.strip():
            what = "an empty one" if isinstance(name, str) else type(name).__name__
            raise UnknownModel(f'a model is named by a string such as "openai/gpt-4.1-mini", not {what}')
        provider, model = self._found(name.strip(), operation)
        adapter = _adapter(provider.protocol)
        codec = adapter.codecs.get(operation)
        if codec is None or (model.operations and operation not in model.operations):
            can = ", ".join(model.operations or adapter.codecs)
            raise Unsupported(f"{model} does not {operation}; it does {can}")
        secret = self._secret(provider)
        return Target(model, provider, adapter, codec, secret)

    def _secret(self, provider: Provider) -> Secret | None:
        secret = self.settings.key(provider)
        if secret is None and not provider.key_optional:
            way = f"Set {provider.key_env[0]} or call" if provider.key_env else "Call"
            raise MissingKey(f'no key for "{provider.name}". {way} llmkit.set_key("{provider.name}")')
        return secret

    def _found(self, name: str, operation: str) -> tuple[Provider, Model]:
        first, slash, rest = name.partition("/")
        if slash and not rest:
            raise UnknownModel(f'"{name}" names a provider and no model; write it as "{first}/<model>"')
        if slash and first in catalogue.BUILT_IN:
            return _built_in(first, rest)
        provider = self.catalogue.provider(first) if slash else None
        if provider is None:
            return self._canonical(name, operation)
        provider = self.settings.addressed(provider)
        if provider.status == "retired" and not provider.base_url:
            raise UnknownModel(f"{provider.name} is retired. {provider.retired}")
        return provider, self.catalogue.model(provider.name, rest)

    def _canonical(self, name: str, operation: str) -> tuple[Provider, Model]:
        models = [model for model in self.catalogue.named(name) if not model.operations or operation in model.operations]
        providers = [self.catalogue.provider(model.provider) for model in models]
        for model, provider in zip(models, providers, strict=True):
            if provider is not None and self.settings.key(provider) is not None:
                return self.settings.addressed(provider), model
        if models:
            ways = ", ".join(
                f"{model} ({provider.key_env[0]})"
                for model, provider in zip(models, providers, strict=True)
                if provider and provider.key_env
            )
            raise MissingKey(f'no key for any provider of "{name}". It is served as {ways}')
        first, slash, _ = name.partition("/")
        raise self.catalogue.unknown(name, first if slash else None)

    # ---------------------------------------------------------------------------------------------------------------- runs

    def plan(
        self,
        operation: Operation,
        rows: int,
        tasks: Callable[[], Iterator[Task]],
        route: Sequence[Target],
        policy: Policy,
    ) -> Plan:
        if policy.max_cost is not None:
            unpriced = [target.name for target in route if not operation.priced(target.model.price)]
            if unpriced:
                what = " or ".join(" and ".join(names) for names in operation.billed)
                raise ConfigError(
                    f"max_cost needs a price ({what}), and that of {unpriced[0]} is unknown. Tell it with llmkit.catalogue.merge("
                    '{"models": [{"provider": ..., "name": ..., "price": {"input": ..., "output": ...}}]})'
                )
        run_id = time.strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(3)
        outcomes = Outcomes(rows, vectors=operation.kind == "vector")
        return Plan(run_id, operation, tasks, tuple(route), policy, outcomes)

    def start(self, plan: Plan, shape: Shape[T], *, show_progress: bool = True, note: str = "") -> Run[T]:
        """Begin the plan; returns at once."""
        run: Run[T] = Run(
            id=plan.run_id,
            operation=plan.operation.name,
            targets=[target.name for target in plan.route],
            prices=[target.model.price for target in plan.route],
            outcomes=plan.outcomes,
            shape=shape,
            on_error=plan.policy.on_error,
            show_progress=show_progress,
            note=note,
        )
        self.last_run = run
        run.begin(partial(self._carry_out, plan, run))
        return run

    async def _carry_out(self, plan: Plan, run: Run[Any]) -> None:
        await scheduler.carry_out(self.engine, plan)
        stopped = plan.outcomes.stopped
        if isinstance(stopped, ModelGone):
            first = plan.route[0]
            hint = self.catalogue.nearest(first.model.name, first.provider.name)
            if hint and hint not in stopped.message:
                stopped.message += hint
                stopped.args = (stopped.message,)
        if self.engine.writer is not None:
            run.owed = self.engine.writer.owed

    def stop(self, plan: Plan) -> None:
        """Stop the run of this plan, if it was begun."""
        if self.last_run is not None and self.last_run.id == plan.run_id:
            self.last_run.cancel()

    def estimate(self, plan: Plan) -> Estimate:
        return event_loop.call(scheduler.estimate, self.engine, plan)


def _listed(model: Any) -> list[Any]:
    if model is None:
        return []
    return list(model) if isinstance(model, list | tuple) else [model]


def _suits(name: str, operation: str) -> bool:
    """Whether a local server's model, known by its name only, is meant for this operation."""
    embeds = any(word in name.lower() for word in ("embed", "bge", "minilm", "e5-", "gte-"))
    reranks = "rerank" in name.lower()
    return {"embed": embeds and not reranks, "rerank": reranks}.get(operation, not embeds and not reranks)


@cache
def _adapter(protocol: str) -> Adapter:
    try:
        return importlib.import_module(f"{__package__}.providers.{protocol}").adapter()  # type: ignore[no-any-return]
    except ModuleNotFoundError as error:
        if error.name != f"{__package__}.providers.{protocol}":
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


@event_loop.once
def default() -> Session:
    """The session that the front door and the accessor share."""
    return Session()
