"""Wires the parts together, once: settings and catalogue to targets, targets and an operation to a run."""

from __future__ import annotations

import os
import secrets
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from . import catalogue, event_loop
from .adapter import Target
from .engine import jobs, scheduler, streaming
from .engine.accounts import Memory
from .engine.engine import Engine, Plan
from .engine.job_files import Shelf
from .engine.limiter import Limiter
from .engine.store import Store
from .engine.streaming import Told, Wish
from .engine.writer import Writer
from .errors import BadInput, ConfigError, ModelGone, Unsupported
from .job_run import JobRun
from .operations.chat import ChatPayload, Schema
from .outcomes import Outcomes
from .picking import Picker, adapter_for
from .run import Run, Shape
from .settings import Settings
from .streams import Stream
from .types import Estimate, Operation, Policy, Provider, Request, Task

if TYPE_CHECKING:
    from .engine.budgets import Shared
    from .engine.transport import Transport

__all__ = ["Session", "default", "new_limiter", "new_transport", "part_of_another"]

T = TypeVar("T")

#: What was told by hand: of a provider, or of one of its models.
_Limits = dict[str, dict[str, float]]

#: Options that help where they are understood and are no loss elsewhere.
_HINTS = ("input_type", "logprobs")


#: Whether runs that are begun here are parts of one that the user knows: ``last()`` is that one.
part_of_another: ContextVar[bool] = ContextVar("part_of_another", default=False)


class Session:
    """Defaults, keys, limits, connections and a store. The module's functions use one shared session.

    Parameters
    ----------
    cache_dir : path, optional
        Where answers are kept; by default ``LLMKIT_CACHE_DIR`` or the user's cache directory.
    cache_url : str, optional
        A server that a team's answers are shared on, beside: ``"postgresql://host/db"`` or ``"redis://host"``; by default
        ``LLMKIT_CACHE_URL``. ``""`` shares nothing.
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
        cache_url: str | None = None,
        limits: Mapping[str, Mapping[str, float]] | None = None,
        environ: Mapping[str, str] | None = None,
        clock: event_loop.Clock | None = None,
    ) -> None:
        self.settings = Settings(environ, cache_dir, cache_url=cache_url)
        self.catalogue = catalogue.default
        self.last_run: Run[Any] | None = None
        self._clock = clock
        self._defaults: dict[str, Any] = {}
        self._limits: _Limits = {name: dict(limit) for name, limit in (limits or {}).items()}
        #: The model that made vectors of a length, so that a query is embedded the same way.
        self.embedded_with: dict[int, str] = {}
        self.picker = Picker(
            self.settings, self.catalogue, lambda url, timeout, headers=None: self.engine.transport.get(url, timeout, headers)
        )
        self._begin_life()
        event_loop.on_fork(self._forget)
        event_loop.on_exit(self._close)

    def _begin_life(self) -> None:
        self.engine = self._new_engine()
        self._life = _Life(self.engine)

    def _new_engine(self) -> Engine:
        # None of its parts knows the session, so that one that nobody holds any more can be told from one in use.
        settings, clock, limits = self.settings, self._clock, self._limits
        # Under a clock that is turned by hand nothing is shared with processes that live by another.
        memory = Memory(settings.cache_dir) if clock is None else None
        transport, limiter = partial(new_transport, settings), partial(_new_limiter, limits, clock, memory)
        return Engine(transport, _new_writer(settings, clock), limiter, clock, memory)

    def _forget(self) -> None:
        self._life.end()
        event_loop.abandon(self.engine)
        if self.engine.writer is not None:
            self.engine.writer.forget()
        self._begin_life()

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
        adapter_for(protocol)
        self.catalogue.add(Provider(name, base_url.rstrip("/"), protocol, key_optional=api_key is None, quirks=dict(quirks)))
        self.settings.set_key(name, api_key)

    def limit(self, name: str, **limits: float | None) -> None:
        """Remember limits for a provider or one of its models, and apply them to what is known already."""
        self._limits.setdefault(name, {}).update({key: value for key, value in limits.items() if value is not None})
        event_loop.call(self._apply_limits)

    def set_limits(self, limits: Mapping[str, Mapping[str, float]]) -> None:
        """Have these instead of what was told by hand before."""
        if limits != self._limits:
            self._limits.clear()
            self._limits.update((name, dict(limit)) for name, limit in limits.items())
            event_loop.call(self._apply_limits)

    async def _apply_limits(self) -> None:
        for (provider, _, model, _), account in self.engine._accounts.items():
            _limit(account.limiter, self._limits, provider, model)

    # -------------------------------------------------------------------------------------------------------------- models

    def route(
        self, model: Any, operation: Operation | str, fallback: Any = None, context_fallback: Any = None, content_fallback: Any = None
    ) -> tuple[Target, ...]:
        """The targets that a ``model=`` argument names, first choice first; an operation may bring its own codecs along."""
        return self.picker.route(model, operation, fallback, context_fallback, content_fallback)

    def chosen(self, operation: str) -> tuple[str, str]:
        """(model, note for the summary line) where a call names none: the session's default, else the best that can be had."""
        if operation in self._defaults:
            return self._defaults[operation], ""
        return self.best(operation), " (chosen by llmkit)"

    def best(self, operation: str) -> str:
        """The best model that can be had for an operation."""
        return self.picker.best(operation)

    def target(self, name: Any, operation: str) -> Target:
        """The one target of a name."""
        return self.picker.target(name, operation)

    def suits(self, name: Any, operation: str) -> bool:
        """Whether a model is meant for an operation; one that the catalogue does not know is judged by its name."""
        return self.picker.suits(name, operation)

    # ---------------------------------------------------------------------------------------------------------------- runs

    @staticmethod
    def check_options(route: Sequence[Target], options: Mapping[str, Any]) -> None:
        """Refuse what a model of the route has no word for, before anything is sent; hints are left out in silence."""
        for target in route:
            known = target.codec.options
            unknown = [] if known is None else [name for name in options if name not in known and name not in _HINTS]
            if unknown:
                raise Unsupported(f"{target.name} has no {unknown[0]}; leave it out, or choose another model")

    @staticmethod
    def check_form(route: Sequence[Target], schema: Any) -> str:
        """Refuse a form that a model of the route cannot be asked for, before anything is sent; why one is not asked in its usual way."""
        if not isinstance(schema, Schema):  # none, or an operation of the caller's own calls something else so
            return ""
        request, notes = Request("chat", ChatPayload((), schema=schema)), []
        for target in route:
            if target.codec.modes is None:
                continue
            if schema.vendor and schema.vendor not in (target.provider.name, target.provider.protocol):
                usual = Request("chat", ChatPayload((), schema=replace(schema, mode="", vendor="")))
                others = target.codec.modes(usual, target)[0]
                fits = schema.mode if schema.mode in others else others[0]
                name = f"{schema.vendor}_{'json' if schema.mode == 'words' else schema.mode}"
                raise BadInput(
                    f"mode={name!r} is {schema.vendor}'s, and {target.name} has none of that name; mode={fits!r} is what fits there"
                )
            _, note = target.codec.modes(request, target)
            if note:
                notes.append(note)
        return "; ".join(notes)

    def plan(
        self,
        operation: Operation,
        rows: int,
        tasks: Callable[[], Iterator[Task]],
        route: Sequence[Target],
        policy: Policy,
    ) -> Plan:
        if policy.max_cost is not None:
            unpriced = [
                f"{target.name} in batch jobs" if target.only_for == "job" else target.name
                for target in route
                if not operation.priced(target.model.price)
            ]
            if unpriced:
                what = " or ".join(" and ".join(names) for names in operation.billed)
                raise ConfigError(
                    f"max_cost needs a price ({what}), and that of {unpriced[0]} is unknown. Tell it with llmkit.catalogue.merge("
                    '{"models": [{"provider": ..., "name": ..., "price": {"input": ..., "output": ...}}]})'
                )
        run_id = _new_id()
        outcomes = Outcomes(rows, vectors=operation.kind == "vector")
        return Plan(run_id, operation, tasks, tuple(route), policy, outcomes)

    def start(self, plan: Plan, shape: Shape[T], *, show_progress: bool = True, note: str = "") -> Run[T]:
        """Begin the plan; returns at once."""
        run: Run[T] = Run(id=plan.run_id, shape=shape, show_progress=show_progress, note=note, **_told_of(plan))
        self._begin(run, partial(self._carry_out, plan, run))
        return run

    def _begin(self, run: Run[Any], work: Callable[[], Any]) -> None:
        run.part = part_of_another.get()
        if not run.part:
            self.last_run = run
        run.begin(work)

    # ---------------------------------------------------------------------------------------------------------- batch jobs

    def in_jobs(self, route: Sequence[Target], operation: Operation) -> tuple[Target, ...]:
        """The route of a call by batch jobs: at its end stands the first target at the price of jobs, which live requests never go to.

        Raises
        ------
        ConfigError
            There are no jobs for this operation there, or none with a client of the caller's.
        """
        first = route[0]
        if first.foreign is not None:
            raise Unsupported('batch=True needs the key itself: name the model as "provider/model" instead of handing in a client')
        there = first.adapter.jobs is not None and not operation.codecs and first.adapter.jobs(first) is not None
        if not there:
            raise Unsupported(f"{first.name} has no batch jobs for {operation.name}; leave batch=True out, or choose another model")
        price = first.model.price.in_jobs
        return (*route, replace(first, model=replace(first.model, price=price), only_for="job"))

    def start_jobs(
        self,
        plan: Plan,
        shape: Shape[T],
        table: Callable[[jobs.Overnight], Any],
        *,
        recipe: Any = None,
        files: Mapping[str, bytes] | None = None,
        taken: jobs.Taken | None = None,
        show_progress: bool = True,
        note: str = "",
    ) -> JobRun[T]:
        """Begin the plan by batch jobs; returns at once. ``table`` makes what ``run.status()`` hands back."""
        work = jobs.Overnight(self.engine, plan, self.settings.cache_dir, recipe, files or {}, taken)
        run_id = plan.run_id if taken is None else taken.folder.id
        run: JobRun[T] = JobRun(id=run_id, shape=shape, show_progress=show_progress, note=note, **_told_of(plan))
        run.work, run.table = work, partial(table, work)
        if taken is None:
            run.live = partial(self._carry_out, plan, run)
        self._begin(run, partial(self._carry_out_jobs, work, run))
        return run

    async def _carry_out_jobs(self, work: jobs.Overnight, run: Run[Any]) -> None:
        await work.carry_out()
        if self.engine.writer is not None:
            run.owed = self.engine.writer.owed

    @property
    def shelf(self) -> Shelf:
        """The folders of batch runs."""
        return jobs.shelf_of(self.settings.cache_dir)

    def estimate_jobs(self, plan: Plan) -> Estimate:
        return event_loop.call(jobs.estimate, self.engine, plan)

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

    def stream(self, operation: Operation, request: Request, route: Sequence[Target], policy: Policy, idle: float) -> Stream:
        """One answer in pieces; nothing is sent before the first one is asked for."""
        silent = [target.name for target in route if target.codec.delta is None and target.adapter.answer is None]
        if silent:
            raise Unsupported(f"{silent[0]} does not answer in pieces")
        self.check_options(route, request.options)
        self.check_form(route, request.payload.schema)
        told = Told()
        wish = Wish(_new_id(), operation, tuple(route), request, policy, idle)
        return Stream(lambda: streaming.stream(self.engine, wish, told), told)

    def estimate(self, plan: Plan) -> Estimate:
        return event_loop.call(scheduler.estimate, self.engine, plan)


class _Life:
    """Ends with the session and its copies: connections and files of one that was dropped without ``close()`` are closed then."""

    def __init__(self, engine: Engine) -> None:
        finalizer = weakref.finalize(self, event_loop.later, engine.close)
        finalizer.atexit = False  # the loop's own end closes what is left, after the runs
        self.end = finalizer.detach


def new_transport(settings: Settings) -> Transport:
    from .engine.transport import Transport

    return Transport(settings.proxy_for)


def _new_writer(settings: Settings, clock: event_loop.Clock | None) -> Writer:
    address = settings.cache_url
    if address is None:
        return Writer(lambda: Store(settings.cache_dir, settings.cache_bytes), clock)
    from .engine.team import TeamCache, TeamWriter, opener

    return TeamWriter(lambda: Store(settings.cache_dir, settings.cache_bytes), TeamCache(*opener(address), clock), clock)


def _new_limiter(limits: _Limits, clock: event_loop.Clock | None, memory: Memory | None, target: Target) -> Limiter:
    shared = memory.ledger(target) if memory is not None and target.adapter.answer is None else None
    return new_limiter(limits, clock, shared, target)


def new_limiter(limits: _Limits, clock: event_loop.Clock | None, shared: Shared | None, target: Target) -> Limiter:
    limiter = Limiter(clock=clock, shared=shared)
    _limit(limiter, limits, target.provider.name, target.model.name)
    return limiter


def _limit(limiter: Limiter, limits: _Limits, provider: str, model: str) -> None:
    said = {**limits.get(provider, {}), **limits.get(f"{provider}/{model}", {})}
    if said:
        width = said.get("max_concurrency")
        limiter.set_by_hand(said.get("rpm"), said.get("tpm"), None if width is None else int(width))


def _told_of(plan: Plan) -> dict[str, Any]:
    """What a run shows of its plan."""
    return {
        "operation": plan.operation.name,
        "targets": [target.name for target in plan.route],
        "prices": [target.model.price for target in plan.route],
        "outcomes": plan.outcomes,
        "on_error": plan.policy.on_error,
    }


def _new_id() -> str:
    return time.strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(3)


@event_loop.once
def default() -> Session:
    """The session that the front door and the accessor share."""
    return Session()
