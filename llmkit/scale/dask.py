"""``ddf.llm``: the calls of ``df.llm`` on a Dask frame, and on a pandas frame that a cluster works on.

Eager: the call asks for every row once, in chunks, each a task that writes one part of the result as Parquet, and what comes back is a
frame over those parts: it can be looked at as often as one likes and costs nothing more. A lazy one would ask again at every look. Dask
carries chunks to workers and tells when they end; what is tried again, when and how often, is decided here and in the engine alone.

Only ``Client.submit`` and ``compute``, futures, a ``SchedulerPlugin`` and ``dask.dataframe`` are used of it.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import itertools
import queue
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from .. import event_loop
from ..engine.engine import prefix
from ..errors import BadInput, BudgetReached, Cancelled, ConfigError, ConnectionLost, LLMError, MissingExtra, MissingKey, Unsupported
from ..frames import arguments as checked
from ..frames.calling import _DEFAULT, How
from ..frames.pandas_accessor import FrameAccessor
from ..operations.template import Template
from ..outcomes import Outcomes
from ..picking import Picker
from ..run import Run
from ..session import Session, default
from ..types import Operation, Policy, Progress, Secret, Usage
from .parts import ADDRESS, Folder, Parts, mark

try:
    import dask
    import dask.dataframe as dd
    import distributed

    from .dask_scheduler import SPEAKS, Desk, call
    from .dask_worker import Carried, Chunk, Job, asked_for, carry_out, fitness, measure, read_parts, versions
except ImportError as error:
    raise MissingExtra(f"a cluster needs the packages dask and distributed ({error.name}): pip install 'llmkit[dask]'") from None

__all__ = ["ClusterAccessor", "ClusterRun", "on_cluster"]

CHUNK_ROWS = 1000
#: Chunks that are handed to the cluster ahead of those under way, for each of its threads.
_AHEAD = 2
#: Seconds between two looks at how far the chunks under way are.
_LOOK = 0.25
#: Seconds in which every worker has to say whether it can do the job.
_PREFLIGHT = 60.0
#: A chunk whose worker died so often is taken apart; a row that ended so many workers is left out.
_DEATHS = 2
#: So many rows of one chunk may be left out; where there are more, it is not the rows.
_MOST_SPOILT = 16
_KILLER = "every worker that had this row died"
#: What of a call says nothing about its answers.
_HOW = (
    "limit", "cache", "on_error", "max_cost", "dry_run", "show_progress", "wait", "timeout", "max_attempts", "max_concurrency", "prefer",
    "prompt_cache",
)  # fmt: skip


def on_cluster(
    frame: Any, client: Any = None, *, out: Any = None, chunk_rows: int = CHUNK_ROWS, session: Session | None = None
) -> ClusterAccessor:
    """``df.llm`` for a frame whose rows a Dask cluster asks for.

    Parameters
    ----------
    frame : dask.dataframe.DataFrame, Series or pandas.DataFrame
    client : distributed.Client, optional
        By default the one that was made last.
    out : str or path, optional
        Where the parts of the result and, until they are complete, the answers are written: any path of fsspec that the client and all
        workers reach. By default a folder beside the cache, which is found again by the same call and serves a cluster on this computer.
    chunk_rows : int
        Rows of one task and one part at the most.
    session : Session, optional
        Whose models, limits and catalogue count; by default the shared one.

    Examples
    --------
    >>> import pandas as pd, llmkit  # doctest: +SKIP
    >>> from distributed import Client  # doctest: +SKIP
    >>> client = Client("tcp://scheduler:8786")  # doctest: +SKIP
    >>> df["summary"] = llmkit.on_cluster(df, client, out="s3://bucket/summaries").chat("Summarise: {text}")  # doctest: +SKIP
    """
    return ClusterAccessor(frame, client, out=out, chunk_rows=chunk_rows, session=session)


def _on_cluster(method: Callable[..., Any], *, of_series: tuple[str, ...] = ()) -> Callable[..., Any]:
    """A method of ``df.llm`` as a cluster carries it out, with the same keywords and those of `on_cluster`."""
    signature = inspect.signature(method)
    names = [name for name in signature.parameters if name != "self"]
    given = [one for name, one in signature.parameters.items() if name != "cluster"]
    own = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in ("cluster", "out", "chunk_rows")]
    whole = signature.replace(parameters=[*given, *own])

    @wraps(method)
    def carried(self: ClusterAccessor, *args: Any, **keywords: Any) -> Any:
        bound = whole.bind(self, *args, **keywords)
        said = {name: value for name, value in bound.arguments.items() if name in names}
        mine = {name: bound.arguments.get(name) for name in ("cluster", "out", "chunk_rows")}
        return self._told(**mine)._carry_out(method.__name__, said)

    carried.__signature__ = whole  # type: ignore[attr-defined]
    carried.__qualname__ = f"ClusterAccessor.{method.__name__}"
    return carried


class ClusterAccessor:
    """Language models on the rows of a frame that a Dask cluster works on; see ``DataFrame.llm`` for the calls and their keywords.

    Beside those every call takes ``cluster`` (a client), ``out`` and ``chunk_rows``, as `on_cluster` does. ``max_concurrency`` is each
    worker's; limits of an account are the whole cluster's.
    """

    def __init__(
        self, frame: Any, client: Any = None, *, out: Any = None, chunk_rows: int = CHUNK_ROWS, session: Session | None = None
    ) -> None:
        self._frame = frame
        self._client = client
        self._out = out
        self._chunk_rows = checked.rows("chunk_rows", chunk_rows, 1) or CHUNK_ROWS
        self._own_session = session

    def __dir__(self) -> list[str]:
        return ["chat", "classify", "embed", "extract", "using"]

    def using(self, session: Session) -> ClusterAccessor:
        """The same methods with a session of your own instead of the shared one."""
        return ClusterAccessor(self._frame, self._client, out=self._out, chunk_rows=self._chunk_rows, session=session)

    def _told(self, cluster: Any, out: Any, chunk_rows: Any) -> ClusterAccessor:
        return ClusterAccessor(
            self._frame,
            cluster if cluster is not None else self._client,
            out=out if out is not None else self._out,
            chunk_rows=self._chunk_rows if chunk_rows is None else chunk_rows,
            session=self._own_session,
        )

    chat = _on_cluster(FrameAccessor.chat)
    embed = _on_cluster(FrameAccessor.embed)
    extract = _on_cluster(FrameAccessor.extract)
    classify = _on_cluster(FrameAccessor.classify)

    def __getattr__(self, name: str) -> Any:
        if name in ("rerank", "search"):
            raise Unsupported(
                f"{name} compares all rows with one another, and a cluster has them in pieces. Narrow the frame down first, and take "
                f"ddf.compute().llm.{name}(...)"
            )
        if not name.startswith("_") and hasattr(FrameAccessor, name):
            raise Unsupported(f"{name} does not run on a cluster; chat, embed, extract and classify do. Take ddf.compute().llm.{name}(...)")
        raise AttributeError(name)

    # ------------------------------------------------------------------------------------------------------------- one call

    def _carry_out(self, method: str, said: dict[str, Any]) -> Any:
        session = self._own_session or default()
        frame = self._frame.to_frame() if isinstance(self._frame, dd.Series) else self._frame
        client = self._found_client()
        said = _said(method, said)
        if said.get("batch"):
            raise Unsupported("a batch job is carried out by the provider, and needs no cluster: leave out batch=True, or cluster=")
        if said.get("dry_run"):
            raise Unsupported(
                "dry_run is for frames in memory. For what a whole Dask frame would cost take "
                f"ddf.head(1000).llm.{method}(..., dry_run=True) times len(ddf) / 1000; of a pandas frame leave out cluster="
            )
        empty = frame._meta.iloc[:0] if isinstance(frame, dd.DataFrame) else frame.iloc[:0]
        scout = _Scout(empty, session)
        meta = scout.look(method, said)
        arguments = {
            name: value for name, value in said.items() if name not in ("limit", "cache", "on_error", "max_cost", "show_progress", "wait")
        }
        arguments |= scout.settled
        columns = _columns_read(said, list(frame.columns))
        policy = checked.policy(
            said.get("cache", "use"), said.get("on_error", "keep"), said.get("max_cost"), said.get("timeout", 180.0),
            said.get("max_attempts", 5), said.get("max_concurrency", 64),
        )  # fmt: skip
        run = ClusterRun(
            session, client, method, arguments, frame, meta, scout, columns, policy,
            out=self._out, chunk_rows=self._chunk_rows, limit=checked.limit(said.get("limit")),
            show_progress=said.get("show_progress", True),
        )  # fmt: skip
        run.start()
        try:
            return run.result() if said.get("wait", True) else run
        except KeyboardInterrupt:
            run.cancel()
            raise

    def _found_client(self) -> Any:
        client = self._client
        if client is None:
            try:
                client = distributed.get_client()
            except ValueError:
                raise ConfigError(
                    "there is no Dask cluster to carry this out: make one with distributed.Client(), or say cluster="
                ) from None
        if isinstance(client, distributed.deploy.Cluster):
            client = client.get_client()
        if not isinstance(client, distributed.Client):
            raise BadInput(f"cluster= is a distributed.Client, not {type(client).__name__}")
        if client.asynchronous:
            raise Unsupported("cluster= is a client that blocks; make one with Client(..., asynchronous=False)")
        return client


def _said(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that a call says, without those that are as they are anyway."""
    usual = {name: one.default for name, one in inspect.signature(getattr(FrameAccessor, method)).parameters.items()}
    return {name: value for name, value in given.items() if usual[name] is inspect.Parameter.empty or _differs(value, usual[name])}


def _differs(value: Any, usual: Any) -> bool:
    return not (value is usual or (type(value) is type(usual) and isinstance(usual, bool | int | float | str) and value == usual))


def _columns_read(said: Mapping[str, Any], columns: list[Any]) -> list[Any] | None:
    """The columns that a call reads; ``None`` where it may be any."""
    if said.get("join") or callable(said.get("check")):
        return None
    on = said.get("on")
    read = [] if on is None else checked.columns(on)
    if on is None and isinstance(said.get("prompt"), str):
        read = Template(said["prompt"], columns).columns
    if said.get("images") is not None:
        read = [*read, said["images"]]
    return list(dict.fromkeys(read)) or None


class _Elsewhere:
    """The settings, as they are where the keys are: on the workers, which are asked for them before anything is sent."""

    def __init__(self, settings: Any) -> None:
        self._settings = settings

    def key(self, provider: Any) -> Secret | None:
        return self._settings.key(provider) or Secret("on the workers")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._settings, name)


class _Scout(FrameAccessor):
    """Goes through a call on a frame without rows: its arguments are checked, its models chosen, and the form of its result is known."""

    def look(self, method: str, said: Mapping[str, Any]) -> Any:
        for name in ("model", "fallback", "context_fallback", "content_fallback"):
            given = said.get(name)
            if not all(isinstance(one, str) for one in (given if isinstance(given, list | tuple) else [given]) if one is not None):
                raise Unsupported(f"{name}= names models on a cluster: a client object holds a key, and no key is sent to workers")
        #: What the client settles for all workers.
        self.settled: dict[str, Any] = {}
        self.routes: dict[str, tuple[Carried, ...]] = {}
        self.targets: tuple[Any, ...] = ()
        #: What stands before a body in the keys of stored answers: who is asked what, and where.
        self.asked: list[str] = []
        self.note = ""
        made = getattr(self, method)(**{**said, "show_progress": False, "wait": True, "limit": None})
        if not self.routes:
            raise Unsupported("this call takes several runs, which a cluster does not carry out; take ddf.compute().llm")
        return made

    def _way_to_classify(self, by: Any, how: How, rows: bool) -> tuple[Any, How]:
        chosen, how = super()._way_to_classify(by, how, True)
        self.settled["by"] = chosen
        return chosen, how

    def _run(self, operation: Operation, table: Any, arguments: Mapping[str, Any], shape: Any, how: How) -> Any:
        session = self._session
        operation.tasks(table, **arguments)
        model, self.note = (how.model, "") if how.model is not None else session.chosen(_DEFAULT.get(operation.codec, operation.codec))
        models = model, how.fallback, how.context_fallback, how.content_fallback
        try:
            route = session.route(models[0], operation, *models[1:])
        except MissingKey:
            elsewhere = copy(session)
            elsewhere.picker = Picker(_Elsewhere(session.settings), session.catalogue, session.picker._get)  # type: ignore[arg-type]
            route = elsewhere.route(models[0], operation, *models[1:])
        session.check_options(route, arguments.get("options") or {})
        stepped = session.check_form(route, arguments.get("schema"))
        shape.prepared(route, arguments)
        plan = session.plan(operation, 0, lambda: iter(()), route, how.policy)
        self.notes = [stepped] if stepped else []
        self.targets = route
        self.asked = [prefix(operation, target).decode() for target in route]
        self.settled["model"] = model
        self.routes[asked_for(operation, *models)] = tuple(_carried(target) for target in route)
        run: Run[Any] = Run(
            id=plan.run_id, operation=operation.name, targets=("nobody",), prices=(), outcomes=plan.outcomes, shape=shape,
            show_progress=False,
        )  # fmt: skip
        return shape.result(run)


def _carried(target: Any) -> Carried:
    provider = target.provider
    # A server that the user named has no variable of its own; on a worker one says what by hand was said here.
    names = provider.key_env or (f"{provider.name.upper().replace('-', '_')}_API_KEY",)
    return Carried(replace(provider, key_env=names, quirks=dict(provider.quirks)), target.model, target.only_for)


@dataclass(slots=True)
class _Source:
    """A partition on its way through the cluster: kept there while chunks of it are under way."""

    rows: Any
    future: Any = None
    using: int = 0


@dataclass(slots=True)
class _Work:
    """A chunk, or a piece of one, on its way."""

    chunk: Chunk
    deaths: int = 0
    #: Dollars that it may spend, and whether that is all there is.
    allotted: float = 0.0
    alone: bool = False
    future: Any = None


@dataclass(slots=True)
class _Apart:
    """A chunk that was taken apart: pieces that are still under way, and the rows that ended every worker."""

    pieces: int
    spoilt: list[tuple[int, str, str]] = field(default_factory=list)


class ClusterRun(Run[Any]):
    """A run whose rows a cluster asks for; everything that a run can be asked, this one can.

    Attributes
    ----------
    out : str
        Where its parts are.
    """

    def __init__(
        self,
        session: Session,
        client: Any,
        method: str,
        arguments: Mapping[str, Any],
        frame: Any,
        meta: Any,
        scout: _Scout,
        columns: list[Any] | None,
        policy: Policy,
        *,
        out: Any,
        chunk_rows: int,
        limit: int | None,
        show_progress: bool,
    ) -> None:
        super().__init__(
            id=time.strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(3),
            operation=method,
            targets=[target.name for target in scout.targets],
            prices=(),
            outcomes=Outcomes(0),
            shape=_OfParts(),
            on_error=policy.on_error,
            show_progress=show_progress,
            note=scout.note,
        )
        self.outcomes.notes += scout.notes
        self.out = "" if out is None else str(out)
        self._session, self._client, self._method, self._arguments = session, client, method, dict(arguments)
        self._frame, self._meta, self._columns, self._policy = frame, meta, columns, policy
        self._routes, self._asked = scout.routes, scout.asked
        self._chunk_rows, self._limit = chunk_rows, limit
        self._chunks: list[Chunk] = []
        self._sources: dict[int, _Source] = {}
        self._partitions = self._rows = 0
        self._parts: Parts | None = None
        #: By chunk: what became of it, this time or before; and what was billed in this run, whatever became of it.
        self._reports: dict[int, dict[str, Any]] = {}
        self._billed: list[dict[str, Any]] = []
        #: Answers that were paid in this run, by chunk.
        self._paid: Counter[int] = Counter()
        #: Its line in the client's journal, and how many it has had: a retry is one of its own.
        self._line = self._lines = 0
        self._live: dict[str, list[Any]] = {}
        self._stop: LLMError | None = None
        self._fresh = policy.cache != "use"
        self._made: Any = None
        self._serial = itertools.count()

    def start(self) -> None:
        """Begin; returns at once."""
        self._session.last_run = self
        self.begin(self._go_through)

    async def _go_through(self) -> None:
        steps = asyncio.ensure_future(event_loop.apart(self._in_steps))
        try:
            await asyncio.shield(steps)
        except asyncio.CancelledError:
            self._stop = Cancelled("not sent: the run was stopped before this row")
            await event_loop.to_the_end(_ended(steps))

    # ------------------------------------------------------------------------------------------------------ in its thread

    def _in_steps(self) -> None:
        try:
            if self._chunks:
                self._ask_scheduler("open", client=self._client.id)
            else:
                self._open()
            self._open_books()
            self._work_off()
            self._tidy()
        except LLMError as error:
            self._stop = self._stop or error
        finally:
            self._live = {}
            self._close_books()
            if self._stop is not None:
                with suppress(LLMError):  # where the scheduler is gone, workers stop by themselves
                    self._ask_scheduler("stop")

    def _open_books(self) -> None:
        writer = self._session.engine.writer
        if writer is not None:
            self._lines += 1
            name = self.id if self._lines == 1 else f"{self.id}.{self._lines}"
            self._line = event_loop.call(writer.begin_run, name, self.operation, " > ".join(self.targets), self._rows)

    def _close_books(self) -> None:
        """One line tells of the whole run. Which model of a route answered which row was told to nobody, so its tokens are the route's."""
        writer, line = self._session.engine.writer, self._line
        if writer is None or not line:
            return
        self._line = 0
        # What is in a part and was not paid here is from an earlier call, or was paid by a worker that is gone.
        stored = sum(max(0, report["tasks"][0] - self._paid[number]) for number, report in self._reports.items())
        usage = self.usage()
        facts = {
            "done": self._paid.total() + stored,
            "errors": sum(report["tasks"][1] for report in self._reports.values()),
            "stored": stored,
            "requests": usage.requests,
            "input": usage.input,
            "cached_input": usage.cached_input,
            "cache_write": usage.cache_write,
            "output": usage.output,
            "cost": self.cost,
            "stopped": self._stop.kind if self._stop is not None else None,
        }
        event_loop.call(writer.end_run, line, facts)

    def _open(self) -> None:
        self._ask_scheduler("register")
        lengths, digests = self._measured()
        out = self.out or self._default_out(digests)
        self.out = str(out)
        call_said = {name: mark(value) for name, value in self._arguments.items() if name not in _HOW}
        call_said |= {"operation": self._method, "model": " > ".join(self.targets), ADDRESS: mark(self._asked)}
        source = {"rows": sum(lengths), "digest": hashlib.blake2b("".join(digests).encode(), digest_size=16).hexdigest()}
        self._parts = Parts(self.out, call_said, source, self._chunk_rows, run=self.id)
        if self._fresh:
            self._parts.forget([chunk.number for chunk in self._chunks])
            Folder(f"{self.out.rstrip('/')}/_journal").discard()
            self._fresh = False
        self._parts.save()
        probe = f"_probe-{self.id}"
        self._parts.folder.write(probe, b"llmkit\n")
        workers = self._client.scheduler_info(n_workers=-1)["workers"]
        limits = {name: _shared_out(said, max(1, len(workers))) for name, said in self._session._limits.items()}
        self._job = Job(
            self.id, self._method, self._arguments, self._limit, self._routes, limits, self._columns, self.out, call_said, source,
            self._chunk_rows, versions(), probe,
        )  # fmt: skip
        try:
            self._preflight(list(workers))
        finally:
            if self._stop is not None:
                self._parts.folder.remove(probe)

    def _default_out(self, digests: Sequence[str]) -> str:
        said = [self._method, self._asked, *((name, mark(value)) for name, value in sorted(self._arguments.items()) if name not in _HOW)]
        name = hashlib.blake2b(repr([said, self._chunk_rows, *digests]).encode(), digest_size=10).hexdigest()
        return str(self._session.settings.cache_dir / "clusters" / f"{self._method}-{name}")

    def _measured(self) -> tuple[list[int], list[str]]:
        """Cut the frame into chunks; how many rows each has, and a digest of what they hold."""
        most, read = self._chunk_rows, self._columns
        if isinstance(self._frame, pd.DataFrame):
            found = [[one] for one in measure(self._frame, most, read)]
            frame = self._frame if read is None else self._frame[read]
            self._sources = {number: _Source(frame.iloc[number * most : (number + 1) * most]) for number in range(len(found))}
        else:
            parts = (self._frame if read is None else self._frame[read]).to_delayed()
            looks = [dask.delayed(measure)(part, most, None) for part in parts]
            found = self._waited_for(self._client.compute(looks))
            self._sources = {number: _Source(part) for number, part in enumerate(parts)}
        self._partitions = len(found)
        before = 0
        for partition, chunks in enumerate(found):
            start = 0
            for rows, _ in chunks:
                self._chunks.append(Chunk(len(self._chunks), partition, start, start + rows, before, 0, rows))
                start, before = start + rows, before + rows
        self._rows = before
        return [rows for chunks in found for rows, _ in chunks], [digest for chunks in found for _, digest in chunks]

    def _waited_for(self, futures: Sequence[Any], seconds: float = float("inf")) -> list[Any]:
        """The results of futures, in their order; looks up for a stop."""
        until = time.monotonic() + seconds
        while not all(future.done() for future in futures):
            if self._stop is not None:
                self._client.cancel(list(futures))
                raise self._stop
            if time.monotonic() > until:
                return []
            try:
                distributed.wait(futures, timeout=event_loop.SLICE)
            except TimeoutError:
                continue
        return [future.result() for future in futures]

    def _ask_scheduler(self, what: str, **arguments: Any) -> Any:
        try:
            if what == "register":
                here = versions()["llmkit"]
                self._client.register_plugin(Desk())
                said = self._client.sync(call, self._client.scheduler, "open", run=self.id, client=self._client.id)
                if said["version"] != here:
                    raise ConfigError(f"the scheduler has llmkit {said['version']}, and {here} is here")
                if said.get("speaks") != SPEAKS:
                    raise ConfigError("the scheduler runs another llmkit than this one: start the cluster anew")
                return said
            return self._client.sync(call, self._client.scheduler, what, run=self.id, **arguments)
        except (OSError, TimeoutError, AttributeError, ModuleNotFoundError) as error:
            if isinstance(error, ModuleNotFoundError):
                raise ConfigError("the scheduler cannot load llmkit: install the same version there") from None
            raise _scheduler_gone() from None

    def _preflight(self, workers: Sequence[str]) -> None:
        """Ask each worker whether it can do this, before anything is paid for."""
        futures = {}
        for place, address in enumerate(workers):
            name = f"llmkit-fitness-{self.id}-{place}"
            try:
                futures[address] = self._client.submit(fitness, self._job, key=name, workers=[address], pure=False, retries=0)
            except (TypeError, AttributeError) as error:
                # By the kind alone: the text shows the arguments.
                raise ConfigError(
                    f"an argument of this call cannot be sent to workers ({type(error).__name__}): define classes and functions in a "
                    "module, or at the top of a cell"
                ) from None
        found: dict[str, list[str]] = {}
        until = time.monotonic() + _PREFLIGHT
        for address, future in futures.items():
            try:
                # A worker that is busy with something else is asked again before its first chunk.
                for _, lacking in self._waited_for([future], until - time.monotonic()):
                    found[address] = lacking
            except LLMError:
                raise
            except Exception as error:
                found[address] = [f"cannot load llmkit ({type(error).__name__})"]
        if unfit := {address: lacking for address, lacking in found.items() if lacking}:
            alike = Counter("; ".join(lacking) for lacking in unfit.values())
            said = " - ".join(f"{count} of {len(workers)} workers: each {what}" for what, count in alike.most_common(3))
            raise ConfigError(f"nothing was sent: {said}")

    # ---------------------------------------------------------------------------------------------------------- the chunks

    def _work_off(self) -> None:
        assert self._parts is not None
        self._waiting = deque(_Work(chunk) for chunk in self._chunks if not self._is_there(chunk))
        self._under_way: dict[str, _Work] = {}
        self._apart: dict[int, _Apart] = {}
        ended: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        looked, threads, told = float("-inf"), 1, False
        while self._waiting or self._under_way:
            if time.monotonic() - looked >= _LOOK:
                looked = time.monotonic()
                found = self._ask_scheduler("progress")
                self._live = {name: counts for name, counts in found.items() if name in self._under_way}
                threads = max(1, sum(self._client.nthreads().values()))
            if self._stop is not None:
                self._waiting.clear()
                if not told:
                    self._ask_scheduler("stop")
                    told = True
            while self._waiting and len(self._under_way) < _AHEAD * threads and self._send(_AHEAD * threads, ended):
                pass
            try:
                name, future = ended.get(timeout=event_loop.SLICE)
            except queue.Empty:
                continue
            work = self._under_way.pop(name)
            self._live.pop(name, None)
            self._released(work)
            self._take(work, future)
        if self._stop is None:
            self._parts.finish(self._rows)
        else:
            self._parts.save()

    def _is_there(self, chunk: Chunk) -> bool:
        """Whether the part of a chunk needs not be made; one with failed rows is made anew, and asks for these alone."""
        assert self._parts is not None
        part = self._parts.whole(chunk.number)
        if part is None:
            return False
        limited = None if self._limit is None or self._limit >= chunk.before + chunk.hi else self._limit
        if part.errors or part.until["limit"] != limited:
            self._parts.forget([chunk.number])
            self._reports.pop(chunk.number, None)
            return False
        if chunk.number not in self._reports:
            done = part.until["rows"] - part.until["unasked"]
            found = {"counts": [done, 0, done, 0, 0.0], "tasks": (done, 0, done), "unasked": part.until["unasked"], "errors": []}
            self._reports[chunk.number] = found
        return True

    def _send(self, most: int, ended: queue.SimpleQueue[tuple[str, Any]]) -> bool:
        """Hand the next chunk to the cluster; False where it has to wait for money that others set aside."""
        work, job = self._waiting[0], self._job
        if self._policy.max_cost is not None:
            if self._under_way and work.alone:
                return False
            spent = sum(report["cost"] or 0.0 for report in self._billed)
            left = max(0.0, self._policy.max_cost - spent - sum(other.allotted for other in self._under_way.values()))
            shares = 1 if work.alone else max(1, min(len(self._waiting), most - len(self._under_way)))
            work.allotted, work.alone = left / shares, shares == 1 and not self._under_way
            job = replace(job, arguments={**job.arguments, "max_cost": work.allotted})
        self._waiting.popleft()
        source = self._sources[work.chunk.partition]
        rows = source.rows
        if not isinstance(rows, pd.DataFrame):
            if source.future is None:
                source.future = self._client.compute(source.rows)
            rows, source.using = source.future, source.using + 1
        name = f"llmkit-{self.id}-{work.chunk.number}-{next(self._serial)}"
        self._under_way[name] = work
        work.future = self._client.submit(carry_out, job, rows, work.chunk, name, key=name, pure=False, retries=0)
        work.future.add_done_callback(lambda done: ended.put((name, done)))
        return True

    def _released(self, work: _Work) -> None:
        source = self._sources[work.chunk.partition]
        if source.future is not None:
            source.using -= 1
            if not source.using:
                source.future = None  # the cluster may forget the partition

    def _take(self, work: _Work, future: Any) -> None:
        """What became of a chunk that was under way."""
        assert self._parts is not None
        work.future = None
        if future.status == "error":
            error = future.exception()
            if not isinstance(error, distributed.KilledWorker):
                raise ConfigError(f"a worker cannot load what it is sent ({type(error).__name__}): it needs what the call was made with")
            self._died(work, "worker_died", _KILLER)
            return
        if future.status != "finished":
            raise _scheduler_gone()
        report = future.result()
        if "counts" in report:
            self._billed.append(report)
            self._paid[work.chunk.number] += report["tasks"][0] - report["tasks"][2]
            self.outcomes.notes += [note for note in report["notes"] if note not in self.outcomes.notes]
        if report.get("died"):
            self._died(work, "worker_died", _KILLER)
        elif name := report.get("raised"):
            work.deaths = _DEATHS  # it would raise again
            self._died(work, "raised", f"{name} was raised where this row was looked at")
        elif report.get("stopped"):
            self._stop = self._stop or Cancelled("not sent: the run was stopped before this row")
        elif isinstance(refused := report.get("refused"), BudgetReached) and not work.alone:
            work.alone = True  # others may leave some of what they were allotted
            self._waiting.append(work)
        elif refused is not None:
            self._stop = self._stop or refused
        elif report.get("piece"):
            self._piece_ended(work.chunk)
        else:
            self._parts.add(report["part"])
            self._reports[work.chunk.number] = report

    def _died(self, work: _Work, kind: str, why: str) -> None:
        """A chunk that takes its workers along is taken apart, while the others go on."""
        chunk = work.chunk
        work.deaths += 1
        if (chunk.spoilt and work.deaths >= _DEATHS) or len(self._apart.get(chunk.number, _Apart(0)).spoilt) >= _MOST_SPOILT:
            self._stop = self._stop or LLMError(f"chunk {chunk.number} cannot be carried out ({why})", kind=kind)
        elif work.deaths < _DEATHS and (chunk.whole or chunk.hi - chunk.lo == 1):
            self._waiting.append(_Work(chunk, work.deaths))  # it may have been another's doing
        elif chunk.hi - chunk.lo == 1:
            self._apart.setdefault(chunk.number, _Apart(1)).spoilt.append((chunk.lo, kind, why))
            self._piece_ended(chunk)
        else:
            apart = self._apart.setdefault(chunk.number, _Apart(1))
            apart.pieces += 1
            middle = (chunk.lo + chunk.hi) // 2
            self._waiting.extend((_Work(replace(chunk, hi=middle)), _Work(replace(chunk, lo=middle))))

    def _piece_ended(self, chunk: Chunk) -> None:
        apart = self._apart[chunk.number]
        apart.pieces -= 1
        if not apart.pieces:
            # All that could be answered is in the journal: now the whole is laid out, and nothing is asked again.
            whole = replace(chunk, lo=0, hi=chunk.stop - chunk.start, spoilt=tuple(sorted(apart.spoilt)))
            self._waiting.append(_Work(whole))

    def _tidy(self) -> None:
        assert self._parts is not None
        self._parts.folder.remove(self._job.probe)
        if self._stop is None and self._limit is None and not any(report["errors"] for report in self._reports.values()):
            Folder(f"{self.out.rstrip('/')}/_journal").discard()

    # ----------------------------------------------------------------------------------------------------------- the result

    def _handed_back(self) -> Any:
        assert self._running is not None
        self._running.future.result()
        return super()._handed_back()

    def _first_error(self) -> LLMError | None:
        errors = self._errors()
        return None if not errors else LLMError(f"row {errors[0][0]}: {errors[0][3]}", kind=errors[0][2])

    def _tell(self) -> None:
        import warnings

        from ..run import to_the_caller

        errors = self._errors()
        if self.stopped is None and errors and not self.progress().done:
            kinds = Counter(kind for _, _, kind, _, _ in errors)
            said = ", ".join(f"{count} x {kind}" for kind, count in kinds.most_common(3))
            warnings.warn(
                f"llmkit: no row got an answer ({said}), e.g. {errors[0][3]}. See llmkit.last().errors()", stacklevel=to_the_caller()
            )
        super()._tell()

    def partial(self) -> Any:
        """The rows of the chunks that are finished; of a pandas frame all, and those of the others are missing."""
        if self._parts is None:
            return self._meta
        if self._made is not None:
            return self._made
        there = {chunk.number for chunk in self._chunks if chunk.number in self._reports}
        meta = self._resolved(sorted(there))
        files = {number: self._parts.file(number) for number in there}
        if isinstance(self._frame, pd.DataFrame):
            made = self._aligned(meta, files)
        else:
            by_partition = [
                [files[chunk.number] for chunk in self._chunks if chunk.partition == partition and chunk.number in files]
                for partition in range(self._partitions)
            ]
            whole = len(there) == len(self._chunks) and self._frame.known_divisions and not self._arguments.get("explode")
            divisions = self._frame.divisions if whole else None
            # Dask would make its own kind of strings of them; the result is what pandas' is.
            with dask.config.set({"dataframe.convert-string": False}):
                label = f"llmkit-{self._method}"
                made = dd.from_map(read_parts, by_partition, args=(self.out, meta), meta=meta, divisions=divisions, label=label)
        if self.done and len(there) == len(self._chunks):
            self._made = made
        if self._method == "embed" and isinstance(meta, pd.Series):
            self._remember(meta)
        return made

    def _aligned(self, meta: Any, files: Mapping[int, str]) -> Any:
        pieces = []
        for chunk in self._chunks:
            if chunk.number in files:
                pieces.append(read_parts([files[chunk.number]], self.out, meta))
            else:
                missing = meta.reset_index(drop=True).reindex(range(chunk.hi))
                missing.index = self._frame.index[chunk.before : chunk.before + chunk.hi]
                pieces.append(missing.astype(meta.dtype if isinstance(meta, pd.Series) else dict(meta.dtypes)))
        made = pd.concat(pieces) if pieces else meta
        if len(made) == len(self._frame) and not self._arguments.get("explode"):
            made.index = self._frame.index
        return made

    def _resolved(self, numbers: Sequence[int]) -> Any:
        """The form of the result, with the length of vectors, which the first part that has one tells."""
        meta = self._meta
        columns = [meta] if isinstance(meta, pd.Series) else [meta.iloc[:, place] for place in range(meta.shape[1])]
        unknown = [place for place, one in enumerate(columns) if self._method == "embed" and _is_open(one.dtype)]
        assert self._parts is not None
        for number in numbers if unknown else ():
            with self._parts.folder.open(self._parts.file(number)) as stream:
                schema = pa.parquet.read_schema(stream)
            for place in list(unknown):
                kind = schema.field(str(columns[place].name if columns[place].name is not None else "value")).type
                if pa.types.is_fixed_size_list(kind):
                    columns[place] = columns[place].astype(pd.ArrowDtype(kind))
                    unknown.remove(place)
            if not unknown:
                break
        if isinstance(meta, pd.Series):
            return columns[0]
        return pd.concat(columns, axis=1) if columns else meta

    def _remember(self, meta: Any) -> None:
        """Which model made vectors of this length, so that ``search`` embeds its query the same way."""
        kind = getattr(meta.dtype, "pyarrow_dtype", None)
        if kind is not None and pa.types.is_fixed_size_list(kind):
            self._session.embedded_with.setdefault(kind.list_size, self.targets[0])

    # ------------------------------------------------------------------------------------------------------------- looking

    @property
    def stopped(self) -> LLMError | None:
        return self._stop

    @property
    def rows(self) -> int:
        return self._rows

    @property
    def unasked(self) -> int:
        return sum(report["unasked"] for report in self._reports.values())

    def progress(self) -> Progress:
        ended = [report["counts"] for report in list(self._reports.values())]
        live = [counts for counts in list(self._live.values()) if counts]
        end = self._ended if self._ended is not None else time.monotonic()
        done, errors, stored = (sum(counts[place] for counts in (*ended, *live)) for place in range(3))
        tokens = sum(counts[3] for counts in live) + sum(report["counts"][3] for report in list(self._billed))
        return Progress(self._rows, done, errors, stored, tokens, self.cost, end - self._began)

    @property
    def cost(self) -> float | None:
        costs = [report["cost"] for report in list(self._billed)] + [counts[4] for counts in list(self._live.values()) if counts]
        return None if None in costs else float(sum(costs))

    def _through(self) -> int:
        p = self.progress()
        return p.done + p.errors

    def usage(self) -> Usage:
        return sum((Usage(*report["usage"]) for report in list(self._billed)), Usage())

    @property
    def possibly_billed(self) -> int:
        return sum(report["lost"] for report in list(self._billed))

    def _errors(self) -> list[list[Any]]:
        return sorted((line for report in list(self._reports.values()) for line in report["errors"]), key=lambda line: line[0])

    def errors(self) -> pd.DataFrame:
        """The failed rows and why: row (counted over the whole frame), index, kind, error and attempts."""
        frame = pd.DataFrame(self._errors(), columns=["row", "index", "kind", "error", "attempts"])
        return frame.astype({"row": "int64", "attempts": "int64"})

    def reasons(self) -> list[tuple[str, int, str]]:
        found: dict[str, list[Any]] = {}
        for _, _, kind, why, _ in self._errors():
            found.setdefault(kind, [0, why])[0] += 1
        return [(kind, count, first) for kind, (count, first) in sorted(found.items(), key=lambda one: -one[1][0])]

    @property
    def retries(self) -> int:
        return sum(max(0, attempts - 1) for *_, attempts in self._errors())

    def history(self) -> pd.DataFrame:
        """Each worker paces itself within the cluster's limit, and keeps no account of it."""
        return pd.DataFrame(columns=["seconds", "model", "window", "in_flight", "waiting", "requests_per_minute", "refused"])

    def cell(self, row: int) -> Any:
        raise Unsupported("the rows of a cluster's run are in its parts: look at its result, or at errors()")

    def tasks(self) -> Any:
        raise Unsupported("the rows of a cluster's run are in its parts: look at its result, or at errors()")

    def retry(self) -> Run[Any]:
        """Send the failed rows again, and those a stop left over; the finished ones stay. Returns this run, begun anew."""
        if not self.done:
            raise ConfigError("the run is still going; retry() is for afterwards")
        self._stop, self._made, self._live = None, None, {}
        self._began, self._ended, self._drawn = time.monotonic(), None, False
        self._start()
        return self

    def __repr__(self) -> str:
        state = "running" if not self.done else "stopped" if self.stopped else "done"
        p = self.progress()
        return (
            f"<Run {self.id} {self.operation} {self._between.join(self.targets)} on a cluster: {state}, {p.done:,} of {p.rows:,} rows, "
            f"{p.errors:,} errors, {p.stored:,} stored>"
        )

    def _kept(self) -> str:
        return f"llmkit: {self.progress().done:,} of {self._rows:,} rows are finished and kept: the same call again sends only the rest."


class _OfParts:
    """The run itself says what its result is."""

    def result(self, run: Run[Any]) -> Any:
        return run.partial()

    def errors(self, run: Run[Any]) -> Any:
        return run.errors()

    def history(self, run: Run[Any]) -> Any:
        return run.history()


async def _ended(steps: Any) -> None:
    await steps


def _is_open(dtype: Any) -> bool:
    """Whether it is that of vectors whose length is not known."""
    kind = getattr(dtype, "pyarrow_dtype", None)
    return kind is not None and pa.types.is_list(kind)


def _shared_out(limits: Mapping[str, float], workers: int) -> dict[str, float]:
    """An account's limits as each of so many workers keeps them: rates are shared on the scheduler, what is in flight is divided."""
    said = dict(limits)
    if "max_concurrency" in said:
        said["max_concurrency"] = max(1, int(said["max_concurrency"]) // workers)
    return said


def _scheduler_gone() -> ConnectionLost:
    return ConnectionLost(
        "the cluster's scheduler is gone; what was answered is in the out directory, and the same call goes on from there"
    )


def _register() -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # run again, it replaces what was there
        dd.extensions.register_dataframe_accessor("llm")(ClusterAccessor)


_register()
