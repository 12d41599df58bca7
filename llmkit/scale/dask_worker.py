"""What a worker of a cluster does with one chunk: the same call as on pandas, with the cluster's share of the limits, answers into the
chunk's journal, and the result into its part. Only counts and the reasons of failed rows go back.
"""

from __future__ import annotations

import asyncio
import hashlib
import warnings
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
from distributed import get_worker, secede

from .. import event_loop
from ..adapter import Target
from ..catalogue import BUILT_IN
from ..engine.engine import Engine
from ..engine.limiter import Limiter
from ..engine.writer import Writer
from ..errors import BadInput, Cancelled, ConfigError, ConnectionLost, LLMError
from ..frames.pandas_accessor import FrameAccessor
from ..picking import adapter_for
from ..run import Run
from ..session import Session, new_limiter, new_transport
from ..types import Model, Operation, Policy, Provider
from .buckets import Lease, Share
from .dask_scheduler import SPEAKS, call
from .journal import Journal, JournalWriter
from .parts import ERRORS, Folder, Part, Parts, to_frame, with_columns

__all__ = ["Carried", "Chunk", "Job", "asked_for", "carry_out", "fitness", "measure", "read_parts"]

#: Seconds between two words to the scheduler while a chunk is under way.
BEAT = 0.25
#: Seconds that the scheduler has to answer one.
ANSWERS = 30.0


@dataclass(frozen=True, slots=True)
class Carried:
    """One target of a route as it travels: no key, only who is asked for what."""

    provider: Provider
    model: Model
    only_for: str


@dataclass(frozen=True, slots=True)
class Job:
    """A call as it travels to the workers: the same for all its chunks, without a row of the frame and without a key.

    Attributes
    ----------
    run : str
    method : str
        Of ``df.llm``.
    arguments : mapping
        Its keyword arguments.
    limit : int or None
        Rows of the whole frame that are asked for.
    routes : mapping
        What ``asked_for`` makes of a choice of models, and the targets that the client found for it.
    limits : mapping
        As ``Session.limit`` takes them.
    columns : list or None
        The columns that the call reads; ``None`` for all.
    out, call, source, chunk_rows
        As ``Parts`` takes them.
    versions : mapping
        Package to version, as the client has them.
    probe : str
        A file of the out directory that the client wrote.
    """

    run: str
    method: str
    arguments: Mapping[str, Any]
    limit: int | None
    routes: Mapping[str, tuple[Carried, ...]]
    limits: Mapping[str, Mapping[str, float]]
    columns: list[Any] | None
    out: str
    call: Mapping[str, Any]
    source: Mapping[str, Any]
    chunk_rows: int
    versions: Mapping[str, str]
    probe: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows that one task is about.

    Attributes
    ----------
    number : int
        Of its part.
    partition, start, stop : int
        Where its rows lie in the frame.
    before : int
        Rows of the frame before its first.
    lo, hi : int
        A piece of it, in rows of the chunk; only the whole is written.
    spoilt : tuple of (int, str, str)
        Rows that are left out, the kind and text of why: they ended every worker that had them.
    """

    number: int
    partition: int
    start: int
    stop: int
    before: int
    lo: int
    hi: int
    spoilt: tuple[tuple[int, str, str], ...] = ()

    @property
    def whole(self) -> bool:
        return self.lo == 0 and self.hi == self.stop - self.start

    def cut(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Its rows of the partition; spoilt ones hold nothing, so that nothing is asked."""
        cut = rows.iloc[self.start + self.lo : self.start + self.hi]
        places = [row - self.lo for row, _, _ in self.spoilt if self.lo <= row < self.hi]
        if places:
            cut = cut.astype(object)
            for place in places:
                cut.iloc[place] = None
        return cut


def asked_for(operation: Operation | str, *models: Any) -> str:
    """A name for a choice of models, the same where the client makes it and where a worker does."""
    codec = operation if isinstance(operation, str) else operation.codec
    return orjson.dumps([codec, *models], default=str).decode()


# ------------------------------------------------------------------------------------------------------------- one process


class Room:
    """What the chunks of one worker share: connections, limiters, keys, and the way to the scheduler."""

    def __init__(self, worker: Any, salt: bytes) -> None:
        self.worker = worker
        self.salt = salt
        self.session = _WorkerSession(self)
        #: By the accounts' fingerprints.
        self.limiters: dict[str, Limiter] = {}
        self.parts: dict[str, Parts] = {}
        self.fit: set[str] = set()

    def ask(self, name: str, **arguments: Any) -> Any:
        """Ask the scheduler and wait for its answer."""
        loop = self.worker.loop.asyncio_loop
        return asyncio.run_coroutine_threadsafe(call(self.worker.scheduler, name, **arguments), loop).result(ANSWERS)

    def begin(self, name: str, **arguments: Any) -> None:
        """Tell the scheduler something; nobody waits for it."""

        async def telling() -> None:
            try:
                await call(self.worker.scheduler, name, **arguments)
            except Exception:  # noqa: S110 - it is gone, and the beat says so
                pass

        self.worker.loop.add_callback(telling)

    def mark(self, target: Target) -> str:
        """The fingerprint of an account: of no use to who knows it, and the same on every worker of the cluster."""
        secret = target.secret
        key = "" if secret is None else "rotates" if secret.rotates else secret.reveal()
        said = "\0".join((target.provider.name, target.provider.base_url, target.model.name, key))
        return hashlib.blake2b(said.encode(), key=self.salt, digest_size=12).hexdigest()

    def share(self, account: str) -> Share:
        """What this process may take of an account's limits."""

        def ask(least: float) -> None:
            self.worker.loop.add_callback(self._lease, share, account, least)

        share = Share(ask, lambda seconds: self.begin("refused", account=account, seconds=seconds))
        return share

    async def _lease(self, share: Share, account: str, least: float) -> None:
        try:
            got = await call(self.worker.scheduler, "lease", account=account, worker=self.worker.address, least=least)
            lease = None if got is None else Lease(*got)
        except Exception:  # the scheduler is gone: nothing is leased, so nothing is sent
            lease = None
        if lease is None:
            share.missed()
        else:
            share.granted(lease)

    async def told(self) -> dict[str, dict[str, float]]:
        return {account: limiter.told() for account, limiter in self.limiters.items()}

    async def hear(self, known: Mapping[str, Any]) -> None:
        for account, (told, pause) in known.items():
            if account in self.limiters:
                self.limiters[account].hear(told, pause)


#: By the worker's address: a cluster of threads has several in one process.
_rooms: dict[str, Room] = {}


def _room(worker: Any, salt: bytes) -> Room:
    room = _rooms.get(worker.address)
    if room is None or room.salt != salt:
        room = _rooms[worker.address] = Room(worker, salt)
    return room


class _WorkerSession(Session):
    """A session whose models were chosen by the client, whose limits are the cluster's, and which keeps nothing on this computer."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self.routes: Mapping[str, tuple[Carried, ...]] = {}
        super().__init__()

    def _new_engine(self) -> Engine:
        return Engine(partial(new_transport, self.settings), None, self._new_limiter, self._clock, None)

    def _new_limiter(self, target: Target) -> Limiter:
        account = self._room.mark(target)
        shared = None if target.adapter.answer is not None else self._room.share(account)
        limiter = new_limiter(self._limits, self._clock, shared, target)
        if shared is not None:
            self._room.limiters[account] = limiter
        return limiter

    def route(
        self, model: Any, operation: Operation | str, fallback: Any = None, context_fallback: Any = None, content_fallback: Any = None
    ) -> tuple[Target, ...]:
        carried = self.routes.get(asked_for(operation, model, fallback, context_fallback, content_fallback))
        if carried is None:
            return super().route(model, operation, fallback, context_fallback, content_fallback)
        return tuple(self._target(one, operation) for one in carried)

    def _target(self, one: Carried, operation: Operation | str) -> Target:
        adapter = adapter_for(one.provider.protocol)
        name = operation if isinstance(operation, str) else operation.codec
        codec = None if isinstance(operation, str) else operation.codecs.get(one.provider.protocol)
        return Target(one.model, one.provider, adapter, codec or adapter.codecs[name], self.key(one.provider), only_for=one.only_for)

    def key(self, provider: Provider) -> Any:
        return None if provider.name in BUILT_IN else self.settings.key(provider)

    def of_chunk(self, job: Job, journal: Journal, far: bool) -> tuple[_WorkerSession, Writer]:
        """The same accounts and connections for one chunk, whose answers go into its journal."""
        session = copy(self)
        session.routes = job.routes
        address = self.settings.cache_url
        if address is None:
            writer: Writer = JournalWriter(journal, far)
        else:
            from ..engine.team import TeamCache, TeamWriter, opener

            writer = TeamWriter(lambda: journal, TeamCache(*opener(address)))  # type: ignore[arg-type, return-value]
        session.engine = self.engine.beside(writer)
        return session, writer


# ------------------------------------------------------------------------------------------------------------ before it begins


def versions() -> dict[str, str]:
    """What has to be the same on every machine for the rows to come out the same."""
    from importlib.metadata import version

    return {name: version(name) for name in ("llmkit", "pandas", "pyarrow")}


def fitness(job: Job) -> tuple[str, list[str]]:
    """(this worker's address, what it lacks for the job); asked of each before anything is sent."""
    return get_worker().address, _lacks(job)


def _lacks(job: Job) -> list[str]:
    lacking = []
    for name, theirs in job.versions.items():
        mine = versions()[name]
        if mine.split(".")[:2] != theirs.split(".")[:2]:
            lacking.append(f"has {name} {mine}, and {theirs} is where the call was made")
    session = Session()
    for one in {one.provider.name: one.provider for carried in job.routes.values() for one in carried}.values():
        if one.name in BUILT_IN or one.key_optional:
            continue
        if session.settings.key(one) is None:
            lacking.append(f"finds no key for {one.name}: set {one.key_env[0]} where workers are started")
    if Folder(job.out).size(job.probe) is None:
        lacking.append(f"does not see {job.out}: say an out= that all machines reach, such as s3://bucket/folder or a shared disk")
    return lacking


def measure(rows: pd.DataFrame | pd.Series, most: int, columns: list[Any] | None) -> list[tuple[int, str]]:
    """(rows, digest of what they hold) for each chunk of a partition."""
    found = []
    for start in range(0, len(rows), most):
        cut = rows.iloc[start : start + most]
        frame = cut.to_frame() if isinstance(cut, pd.Series) else cut
        found.append((len(cut), _digest(frame if columns is None else frame[columns])))
    return found


def _digest(frame: pd.DataFrame) -> str:
    said = hashlib.blake2b(repr([(str(name), str(dtype)) for name, dtype in frame.dtypes.items()]).encode(), digest_size=12)
    said_by: list[Any] = [frame.index, *(frame.iloc[:, place] for place in range(frame.shape[1]))]
    for values in said_by:
        try:
            hashed = pd.util.hash_pandas_object(values, index=False)
        except TypeError:  # lists, dicts and their like
            hashed = pd.util.hash_pandas_object(pd.Series([repr(cell) for cell in values], dtype=object), index=False)
        said.update(hashed.to_numpy().tobytes())
    return said.hexdigest()


# ----------------------------------------------------------------------------------------------------------------- one chunk


def carry_out(job: Job, rows: Any, chunk: Chunk, task: str) -> dict[str, Any]:
    """Ask for one chunk of the job, or a piece of one.

    Returns
    -------
    dict
        ``died``: a worker that had begun it is gone; nothing was done. ``stopped``: the run is. Otherwise what became of it.
    """
    worker = get_worker()
    said = asyncio.run_coroutine_threadsafe(call(worker.scheduler, "begin", run=job.run, task=task), worker.loop.asyncio_loop).result(
        ANSWERS
    )
    if said["again"]:
        return {"died": True}
    if said["stop"]:
        return {"stopped": True}
    if said.get("speaks") != SPEAKS:
        return {"refused": ConfigError("the scheduler runs another llmkit than the workers: start the cluster anew")}
    room = _room(worker, said["salt"])
    if job.run not in room.fit:  # a worker that joined later was not asked before
        if lacking := _lacks(job):
            return {"refused": ConfigError(f"worker {worker.address} {'; '.join(lacking)}")}
        room.fit.add(job.run)
    frame = chunk.cut(rows.to_frame() if isinstance(rows, pd.Series) else rows)
    if job.columns is not None:
        frame = frame[job.columns]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a run has to say is said once, where the call was made
            return _carried_out(job, frame, chunk, task, room)
    except LLMError as error:
        return {"refused": error}
    except Exception as error:
        # By its name only: what Dask is told of an error, it writes into logs, and this one's text may be a cell's.
        return {"raised": type(error).__name__}
    finally:
        room.begin("end", run=job.run, task=task)


def _carried_out(job: Job, frame: pd.DataFrame, chunk: Chunk, task: str, room: Room) -> dict[str, Any]:
    folder = Folder(f"{job.out.rstrip('/')}/_journal/{chunk.number:05d}")
    room.session.set_limits(job.limits)
    session, writer = room.session.of_chunk(job, Journal(folder), folder.far)
    arguments = dict(job.arguments)
    if job.limit is not None:
        arguments["limit"] = min(len(frame), max(0, job.limit - chunk.before - chunk.lo))
    try:
        run = getattr(FrameAccessor(frame, session), job.method)(**arguments, show_progress=False, wait=False)
        _see_through(run, job, task, room)
        result = run.partial()
    finally:
        event_loop.call(writer.close)
        writer.worker.stop()
    report = _report(run, frame, chunk)
    stopped = run.stopped
    if isinstance(stopped, Cancelled):
        return {**report, "stopped": True}
    if stopped is not None:
        return {**report, "refused": stopped}
    if not chunk.whole:
        return {**report, "piece": True}
    part, errors = _part(result, report, chunk, job)
    if job.run not in room.parts:
        room.parts[job.run] = Parts(job.out, job.call, job.source, job.chunk_rows, run=job.run)
    written = room.parts[job.run].write(part, _table(result), errors)
    if not report["errors"] and written.until["limit"] is None:
        folder.discard()
    return {**report, "part": written}


def _see_through(run: Run[Any], job: Job, task: str, room: Room) -> None:
    """Wait for the run, say how far it is, and pass on what the scheduler says."""
    width, alone = job.arguments.get("max_concurrency", Policy().max_concurrency), True
    while not run.wait(BEAT):
        try:
            said = room.ask("beat", run=job.run, task=task, counts=_counts(run), told=event_loop.call(room.told))
        except Exception:
            # Nobody would hear of the answers: what is in the journal stays there, and nothing more is paid for.
            run.cancel()
            run.wait()
            raise ConnectionLost("the cluster's scheduler is gone") from None
        event_loop.call(room.hear, said["known"])
        if said["stop"]:
            run.cancel()
        if alone and run.outcomes.drawn and len(run.outcomes) - run.outcomes.done - run.outcomes.failed < width:
            # While the slowest of its rows are in flight, most of what the account allows would go unused: the worker may begin another.
            secede()
            alone = False


def _counts(run: Run[Any]) -> list[Any]:
    p = run.progress()
    return [p.done, p.errors, p.stored, p.tokens, p.cost]


def _report(run: Run[Any], frame: pd.DataFrame, chunk: Chunk) -> dict[str, Any]:
    found = run.errors()
    errors = (
        [] if found is None or isinstance(run.stopped, Cancelled) else found[["row", "index", "kind", "error", "attempts"]].values.tolist()
    )
    errors = [[chunk.before + chunk.lo + int(row), *rest] for row, *rest in errors]
    errors += [[chunk.before + row, frame.index[row - chunk.lo], kind, why, 1] for row, kind, why in chunk.spoilt]
    return {
        "counts": _counts(run),
        # As the journal of runs counts: equal rows are one.
        "tasks": (run.outcomes.done, run.outcomes.failed + len(chunk.spoilt), run.outcomes.stored),
        "unasked": run.unasked - len(chunk.spoilt),
        "usage": tuple(run.usage()),
        "cost": run.cost,
        "lost": run.possibly_billed,
        "errors": sorted(errors, key=lambda one: one[0]),
        "notes": list(run.outcomes.notes),
    }


# ------------------------------------------------------------------------------------------------------------------ its part


def _part(result: Any, report: Mapping[str, Any], chunk: Chunk, job: Job) -> tuple[Part, pa.Table]:
    errors = report["errors"]
    names = ("row", "kind", "error", "attempts")
    lines = [dict(zip(names, (row, kind, why, attempts), strict=True)) for row, _, kind, why, attempts in errors]
    limited = None if job.limit is None or job.limit >= chunk.before + chunk.hi else job.limit
    rows = chunk.stop - chunk.start
    until = {"limit": limited, "rows": rows, "unasked": report["unasked"]}
    return Part(chunk.number, len(result), len(errors), report["cost"], until=until), pa.Table.from_pylist(lines, ERRORS)


#: Of a part's metadata: what of a frame Parquet has no word for.
_NOTE = b"llmkit_frame"


def _table(result: pd.DataFrame | pd.Series) -> pa.Table:
    frame = result.to_frame("value" if result.name is None else result.name) if isinstance(result, pd.Series) else result
    index = frame.index
    ranged = [index.start, index.stop, index.step] if isinstance(index, pd.RangeIndex) else None
    named = [name if isinstance(name, str) and name not in frame.columns else None for name in index.names]
    bare = pd.DataFrame(index=index.set_names(named))
    columns = frame.reset_index(drop=True)
    written: list[str] = []
    columns.columns = [str(name) for name in frame.columns]
    for name in columns.columns:
        if columns[name].dtype == object:
            columns[name], written = _written(columns[name], name), [*written, name]
    table = with_columns(pa.Table.from_pandas(bare, preserve_index=True), columns)
    note = orjson.dumps({"range": ranged, "json": written})
    return table.replace_schema_metadata({**(table.schema.metadata or {}), _NOTE: note})


def _written(cells: pd.Series, name: str) -> pd.Series:
    """Objects as JSON, where that says all of them."""
    said = [None if cell is None else orjson.dumps(cell, default=_no_json) for cell in cells]
    if any(one is not None and orjson.loads(one) != cell for one, cell in zip(said, cells, strict=True)):
        raise BadInput(f"column {name!r} holds what a Parquet part has no word for")
    return pd.Series([None if one is None else one.decode() for one in said], dtype="str")


def _no_json(cell: Any) -> Any:
    raise BadInput(f"a cell holds {type(cell).__name__}, which a Parquet part has no word for")


def read_parts(files: Sequence[str], out: str, meta: pd.DataFrame | pd.Series) -> pd.DataFrame | pd.Series:
    """Parts one after the other as the rows that they were made of, of exactly the dtypes, names and index of ``meta``."""
    folder, frames = Folder(out), []
    for file in files:
        with folder.open(file) as stream:
            frames.append(_frame(pa.parquet.read_table(stream), meta))
    return pd.concat(frames) if frames else meta.iloc[:0]


def _frame(table: pa.Table, meta: pd.DataFrame | pd.Series) -> pd.DataFrame | pd.Series:
    note = orjson.loads((table.schema.metadata or {})[_NOTE])
    found = to_frame([table])
    found.index = pd.RangeIndex(*note["range"]) if note["range"] is not None else found.index
    if not isinstance(meta.index, pd.MultiIndex) and found.index.dtype != meta.index.dtype:
        found.index = found.index.astype(meta.index.dtype)
    found.index.names = meta.index.names
    for name in note["json"]:
        # Filled cell by cell: a column of lists of one length would become a matrix.
        cells = pd.Series([None] * len(found), index=found.index, dtype=object)
        for place, cell in enumerate(found[name].tolist()):
            cells.iat[place] = orjson.loads(cell) if isinstance(cell, str) else None
        found[name] = cells
    wanted = meta.to_frame("value" if meta.name is None else meta.name) if isinstance(meta, pd.Series) else meta
    for name, dtype in zip(found.columns, wanted.dtypes, strict=True):
        if found[name].dtype != dtype:
            found[name] = found[name].astype(dtype)
    found.columns = wanted.columns
    return pd.Series(found.iloc[:, 0], name=meta.name) if isinstance(meta, pd.Series) else found
