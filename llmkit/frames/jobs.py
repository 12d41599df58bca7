"""Batch runs as people see them: tables of their jobs, and runs that another process began, with the index and dtypes of their frames."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..engine.accounts import Memory
from ..engine.job_files import TAKEN, Book, Folder, Part
from ..engine.jobs import Overnight, Taken
from ..errors import BadInput, ConfigError
from ..job_run import JobRun
from ..operations.chat import CHAT, CHAT_WITH_IMAGES, Schema
from ..operations.classify import CLASSIFY
from ..operations.embed import EMBED
from ..outcomes import Outcomes
from ..session import Session, default
from ..types import Operation, Policy, Request
from .calling import How
from .classifying import Said, SaidInDetail
from .columns import TEXT, ColumnShape, DetailShape, FrameTable
from .embedding import Remembering, RememberingDetail

__all__ = ["job", "jobs", "submitted"]

#: Files of a run's folder that belong to this floor.
_INDEX = "index.parquet"


def jobs() -> pd.DataFrame:
    """Every batch run whose folder is there, of this process and of others that share its cache directory; newest first.

    Returns
    -------
    DataFrame
        ``id`` (what ``llmkit.job`` takes), ``operation``, ``model``, ``started`` (UTC), ``rows``, ``jobs`` (at the provider), ``requests``,
        ``answered`` (as far as the provider said when it was last asked), ``state`` ("going", "through" or "cancelled"), ``unsubmitted``
        (jobs). Nobody is asked: ``llmkit.job(id).status()`` does.

    Examples
    --------
    >>> import llmkit
    >>> llmkit.jobs()["id"].tolist()
    []
    """
    lines = [_line_of(book) for _, book in reversed(default().shelf.books())]
    frame = pd.DataFrame(lines, columns=list(_KINDS))
    frame["started"] = pd.to_datetime(frame["started"].astype("float64"), unit="s", utc=True)
    return frame.astype({name: kind for name, kind in _KINDS.items() if kind is not None})


_KINDS: Mapping[str, Any] = {
    "id": TEXT, "operation": TEXT, "model": TEXT, "started": None, "rows": "int64", "jobs": "int64", "requests": "int64",
    "answered": "int64", "state": TEXT, "unsubmitted": "int64",
}  # fmt: skip


def _line_of(book: Book) -> dict[str, Any]:
    return {
        "id": book.id,
        "operation": book.operation,
        "model": book.model,
        "started": book.began,
        "rows": book.rows,
        "jobs": len(book.parts),
        "requests": sum(part.requests for part in book.parts),
        "answered": sum(part.done + part.failed for part in book.parts),
        "state": "cancelled" if book.cancelled else "going" if book.open else "through",
        "unsubmitted": sum(not part.id and part.state != TAKEN for part in book.parts),
    }


def status_of(work: Overnight) -> pd.DataFrame:
    """What ``run.status()`` hands back."""
    lines = [_line_of_part(book, part) for book, part in work.parts()]
    kinds = {"run": TEXT, "id": TEXT, "state": TEXT, "note": TEXT}
    names = ["run", "part", "id", "state", "requests", "done", "failed", "created", "expires", "looked", "note"]
    frame = pd.DataFrame(lines, columns=names)
    for name in ("created", "expires", "looked"):
        frame[name] = pd.to_datetime(frame[name].astype("float64"), unit="s", utc=True)
    return frame.astype({**kinds, "part": "int64", "requests": "int64", "done": "int64", "failed": "int64"})


def _line_of_part(book: Book, part: Part) -> tuple[Any, ...]:
    state = part.said or ("submitting" if part.intent is not None else "to be submitted")
    note = part.trouble or ("" if part.error is None else str(part.error["message"]))
    counts = part.requests, part.done, part.failed
    return book.id, part.number, part.id or None, state, *counts, part.intent, part.expires, part.looked, note or None


# ----------------------------------------------------------------------------------------------------------------- submitting


def submitted(session: Session, plan: Any, arguments: Mapping[str, Any], shape: Any, how: How, note: str) -> JobRun[Any]:
    """The run of a call with ``batch=True``, once its jobs are submitted; with ``wait=False`` at once."""
    recipe, files = _kept(plan.operation, arguments, shape)
    run: JobRun[Any] = session.start_jobs(plan, shape, status_of, recipe=recipe, files=files, show_progress=how.show_progress, note=note)
    return run.submitting() if how.wait else run


def _kept(operation: Operation, arguments: Mapping[str, Any], shape: Any) -> tuple[Any, dict[str, bytes]]:
    """What another process needs to lay the result out: nothing, where only the same call can."""
    recipe = recipe_of(operation, arguments, shape)
    index = None if recipe is None else _packed(shape.index if isinstance(shape, ColumnShape) else shape.shape.index)
    return (None, {}) if index is None else (recipe, {_INDEX: index})


def _packed(index: pd.Index[Any]) -> bytes | None:
    """An index as Parquet, where it comes back as it went in."""
    file = io.BytesIO()
    try:
        pd.DataFrame({"row": np.arange(len(index))}, index=index).to_parquet(file)  # without a column a RangeIndex is lost
        back = _unpacked(file.getvalue())
    except Exception:  # pyarrow and pandas raise what they like over cells that Parquet has no form for
        return None
    several = isinstance(index, pd.MultiIndex) and isinstance(back, pd.MultiIndex)
    dtypes = back.dtypes.equals(index.dtypes) if several else back.dtype == index.dtype  # type: ignore[union-attr, attr-defined]
    same = back.equals(index) and back.names == index.names and type(back) is type(index) and dtypes
    return file.getvalue() if same else None


def _unpacked(data: bytes) -> pd.Index[Any]:
    return pd.read_parquet(io.BytesIO(data)).index


# --------------------------------------------------------------------------------------------------------------------- recipes


class _Made(NamedTuple):
    """What a recipe makes: the operation, what one row might have asked, and the result's shape on an index."""

    operation: Operation
    sample: Request
    shape: Any


def recipe_of(operation: Operation, arguments: Mapping[str, Any], shape: Any) -> dict[str, Any] | None:
    """How to read and lay out the answers of a call, in JSON; ``None`` where that takes more than JSON can say."""
    options, detail = dict(arguments.get("options") or {}), isinstance(shape, DetailShape)
    if operation.tasks is CHAT.tasks and operation.name == "chat" and type(shape) in (ColumnShape, DetailShape):
        schema: Schema | None = arguments.get("schema")
        form = None if schema is None else [schema.name, schema.schema, schema.mode, schema.description]
        return {"what": "chat", "options": options, "detail": detail, "schema": form, "images": operation.draw != CHAT.draw}
    if operation is EMBED and type(shape) in (Remembering, RememberingDetail):
        kept = str(getattr(shape, "dtype", "") or "")
        return {"what": "embed", "options": options, "detail": detail, "dimensions": shape.dimensions, "dtype": kept}
    if operation is CLASSIFY and type(shape) in (Said, SaidInDetail):
        return {
            "what": "classify", "options": options, "detail": detail, "labels": dict(arguments["labels"]),
            "multi_label": bool(arguments["multi_label"]),
        }  # fmt: skip
    if operation.name == "extract":
        return _recipe_of_fields(arguments, shape, options)
    return None


def _recipe_of_fields(arguments: Mapping[str, Any], shape: Any, options: Mapping[str, Any]) -> dict[str, Any] | None:
    from .extracting import Columns, ColumnsInDetail
    from .extraction import Extraction

    if not isinstance(shape, Extraction) or type(shape.shape) not in (Columns, ColumnsInDetail) or shape.beside.any():
        return None
    laid: Columns = shape.shape
    if laid.join or laid.fields is not shape.fields:
        return None
    schema: Schema = arguments["schema"]
    recipe = {
        "what": "extract", "options": dict(options), "detail": isinstance(laid, ColumnsInDetail), "name": laid.fields.name,
        "kind": laid.fields.kind, "fields": laid.fields.json_schema, "mode": schema.mode, "prefix": laid.prefix, "explode": laid.explode,
    }  # fmt: skip
    try:
        rebuilt = Columns(pd.DataFrame(), _fields_of(recipe), laid.prefix, False, laid.explode)
        same = _dtypes(rebuilt) == _dtypes(Columns(pd.DataFrame(), laid.fields, laid.prefix, False, laid.explode))
    except BadInput:
        return None
    return recipe if same else None


def _dtypes(columns: Any) -> dict[str, Any]:
    made = columns.result(SimpleNamespace(outcomes=Outcomes(0)))
    return dict(made.dtypes) if isinstance(made, pd.DataFrame) else {str(made.name): made.dtype}


def _fields_of(recipe: Mapping[str, Any]) -> Any:
    from ..operations.schemas import Fields, fields_of

    made = fields_of({"title": "Answer", **recipe["fields"]})
    kind, inner = recipe["kind"], {"record": "", "value": "value", "records": "items"}[recipe["kind"]]
    record = made.model if kind == "record" else None
    if kind == "records":
        (record,) = made.model.model_fields[inner].annotation.__args__  # type: ignore[union-attr]
    return Fields(recipe["name"], kind, made.model, record)


def _made(recipe: Mapping[str, Any], index: pd.Index[Any], session: Session) -> _Made:
    """What a recipe makes. One row stands for all: how an answer is read does not depend on what the row says."""
    options, detail = dict(recipe["options"]), recipe["detail"]
    table = FrameTable(pd.DataFrame({"text": ["text"]}))
    asked: dict[str, Any] = {"on": ["text"], "prompt": "prompt", "options": options}
    shape: Any
    if recipe["what"] == "chat":
        operation = CHAT_WITH_IMAGES if recipe["images"] else CHAT
        if recipe["schema"] is not None:
            from ..operations.extract import formed

            name, form, mode, about = recipe["schema"]
            asked["schema"] = Schema(name, form, mode, about)
            operation = formed(form, asked["schema"], operation)
        shape = (DetailShape if detail else ColumnShape)(index, "text", "chat")
    elif recipe["what"] == "embed":
        from ..vectors.packing import dtype_of

        operation, asked = EMBED, {"on": "text", "options": options}
        shape = (RememberingDetail if detail else Remembering)(index, "vector", "embedding", recipe["dimensions"])
        shape.session = session
        if recipe["dtype"]:
            shape.dtype = dtype_of(recipe["dtype"])
    elif recipe["what"] == "classify":
        labels = recipe["labels"]
        operation = CLASSIFY
        asked = {"on": "text", "labels": labels, "multi_label": recipe["multi_label"], "options": options}
        shape = (SaidInDetail if detail else Said)(index, list(labels), recipe["multi_label"])
    else:
        from ..operations.extract import extracting
        from .extracting import Columns, ColumnsInDetail

        fields = _fields_of(recipe)
        operation, asked["schema"] = extracting(fields), fields.schema(recipe["mode"])
        shape = (ColumnsInDetail if detail else Columns)(pd.DataFrame(index=index), fields, recipe["prefix"], False, recipe["explode"])
    request = next(iter(operation.tasks(table, **asked))).request
    assert isinstance(request, Request)
    return _Made(operation, request, shape)


# ------------------------------------------------------------------------------------------------------------------ picking up


class _Unread:
    """The shape of a run whose answers cannot be read here: its jobs are looked after, and that is all."""

    def __init__(self, rows: int) -> None:
        self._errors = ColumnShape(pd.RangeIndex(rows), "object")

    def result(self, run: Any) -> Any:
        raise ConfigError(
            "this process cannot lay the result out: its schema, or its index, cannot be written down. Make the same call again: it takes "
            "up the jobs, and what is answered costs nothing"
        )

    def errors(self, run: Any) -> pd.DataFrame:
        return self._errors.errors(run)

    def history(self, run: Any) -> pd.DataFrame:
        return self._errors.history(run)


def job(id: str) -> JobRun[Any]:
    """Take up a batch run that this process, or another one days ago, began: to wait for it, to have its result, to stop it.

    Parameters
    ----------
    id : str
        Of the run: ``run.id``, or a line of ``llmkit.jobs()``. The first letters will do where they name one.

    Returns
    -------
    Run
        ``status()``, ``wait()``, ``cancel()`` and ``result()`` as of the call itself. The result has the index, the names and the dtypes
        that the call's own would have had. Where an index or a schema cannot be written down (validators of your own, ``votes=``,
        ``evidence=``, ``join=True``), ``result()`` says so, and making the same call again takes the jobs up instead.

    Raises
    ------
    ConfigError
        There is no such run, the provider is not known here (``llmkit.add_provider``), or its key is that of another account.

    Examples
    --------
    >>> import llmkit
    >>> llmkit.job("20260101-000000-abcdef")
    Traceback (most recent call last):
    llmkit.errors.BadInput: there is no batch run '20260101-000000-abcdef'; llmkit.jobs() lists those that are
    """
    session = default()
    folder, book = _found(session, id)
    target = session.target(book.model, _CODECS.get(book.operation, "chat"))
    if target.provider.base_url != book.base_url:
        raise ConfigError(f"the jobs are at {book.base_url}, and {target.provider.name} is at {target.provider.base_url} here")
    if Memory(session.settings.cache_dir).mark(target) != book.account:
        raise ConfigError(
            f"the jobs belong to another account of {target.provider.name} than the key that is set: set the key they came from"
        )
    made = None
    try:
        if book.recipe is not None:
            made = _made(book.recipe, _unpacked((folder.path / _INDEX).read_bytes()), session)
        keys, rows = _read(folder, book)
    except (OSError, ValueError, LookupError, TypeError):
        made, keys, rows = None, [], np.full(book.rows, -1, dtype=np.int32)
    operation = CHAT if made is None else made.operation
    if made is None:
        keys, rows = [], np.full(book.rows, -1, dtype=np.int32)
    plan = session.plan(operation, book.rows, lambda: iter(()), session.in_jobs((target,), operation), Policy())
    taken = Taken(folder, keys, rows, None if made is None else made.sample)
    return session.start_jobs(plan, _Unread(book.rows) if made is None else made.shape, status_of, taken=taken)


_CODECS = {"embed": "embed"}


def _found(session: Session, id: Any) -> tuple[Folder, Book]:
    if not isinstance(id, str) or not id.strip():
        raise BadInput(f"job takes the id of a batch run, as llmkit.jobs() lists them, not {id!r}")
    found = [(folder, book) for folder, book in session.shelf.books() if folder.id.startswith(id.strip())]
    exact = [pair for pair in found if pair[0].id == id.strip()] or found
    if len(exact) != 1:
        what = f"{len(exact)} batch runs begin with {id!r}" if exact else f"there is no batch run {id!r}"
        raise BadInput(f"{what}; llmkit.jobs() lists those that are")
    return exact[0]


def _read(folder: Folder, book: Book) -> tuple[Sequence[bytes], Any]:
    whole = (folder.path / "keys.bin").read_bytes()
    rows = np.frombuffer((folder.path / "rows.bin").read_bytes(), dtype="<i4").astype(np.int32)
    keys = [whole[start : start + 16] for start in range(0, len(whole), 16)]
    if len(rows) != book.rows or rows.max(initial=-1) >= len(keys):
        raise ValueError("the files of the folder do not belong together")
    return keys, rows
