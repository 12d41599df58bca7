"""The answers that are kept: look at them, clear them, carry them to another machine. ``llmkit.cache`` in a notebook.

They stand under hashes of what was asked: no prompt and no API key is among them.
"""

from __future__ import annotations

import base64
import binascii
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from numbers import Number
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import orjson
import pandas as pd

from . import event_loop
from .engine.store import Held, Match, ReplyRow, Store, StoreBusy, StoreLost
from .errors import BadInput, ConfigError
from .operations.embed import EMBED
from .run import to_the_caller
from .session import Session, default

__all__ = ["clear", "export", "folder", "info", "load"]  # noqa: F822 - the folder is that of the moment

T = TypeVar("T")

_TEXT: Any = "str" if int(pd.__version__.split(".")[0]) >= 3 else pd.StringDtype("pyarrow")
_TIME: Any = "datetime64[us, UTC]"

#: Answers that are read or written at once: a running run waits for them no longer than some hundredths of a second.
_PAGE = 500
#: Bytes of a key.
_KEY = 16


def __getattr__(name: str) -> Any:
    if name == "folder":
        return default().settings.cache_dir
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def info(*, session: Session | None = None) -> pd.DataFrame:
    """What is kept, a row for each operation and model.

    Parameters
    ----------
    session : Session, optional
        One of your own, instead of the one that the functions of ``llmkit`` share.

    Returns
    -------
    DataFrame
        ``operation``, ``model``, ``answers``, ``bytes``, ``oldest`` and ``last_used`` (UTC; use is noted once a day), ``input_tokens``,
        ``cached_input_tokens``, ``cache_write_tokens``, ``output_tokens``, ``cost`` in US dollars that the answers were billed, missing
        where that of one is unknown, and ``cost_at_least``, the sum of what is known. Of answers that an early version of llmkit kept the
        operation and the cost are unknown.

    Examples
    --------
    >>> import llmkit
    >>> _ = llmkit.chat("Keep this", model="echo/echo")
    >>> kept = llmkit.cache.info()
    >>> kept.loc[kept["model"] == "echo/echo", "operation"].tolist()
    ['chat']
    """
    columns = ["operation", "model", "answers", "bytes", "oldest", "used", "input", "cached", "written", "output", "known", "unpriced"]
    rows = _in_store(session, Store.sums, settled=True) or []
    frame = pd.DataFrame(rows, columns=columns)
    frame[["operation", "model"]] = frame[["operation", "model"]].fillna("").astype(object)
    adding = dict.fromkeys(["answers", "bytes", "input", "cached", "written", "output", "known", "unpriced"], "sum")
    frame = frame.groupby(["operation", "model"], as_index=False).agg({**adding, "oldest": "min", "used": "max"})
    used = pd.to_numeric(frame["used"]).astype("float64") * 3600
    return pd.DataFrame(
        {
            "operation": frame["operation"].astype(_TEXT),
            "model": frame["model"].astype(_TEXT),
            **{name: frame[name].astype("int64") for name in ("answers", "bytes")},
            "oldest": pd.to_datetime(frame["oldest"].astype("float64"), unit="s", utc=True).astype(_TIME),
            "last_used": pd.to_datetime(used, unit="s", utc=True).astype(_TIME),
            "input_tokens": frame["input"].astype("int64"),
            "cached_input_tokens": frame["cached"].astype("int64"),
            "cache_write_tokens": frame["written"].astype("int64"),
            "output_tokens": frame["output"].astype("int64"),
            "cost": frame["known"].astype("float64").mask(frame["unpriced"] > 0),
            "cost_at_least": frame["known"].astype("float64"),
        }
    )


def clear(operation: str | None = None, model: str | None = None, older_than: Any = None, *, session: Session | None = None) -> int:
    """Remove answers; the next call that needs one of them pays for it again.

    Parameters
    ----------
    operation, model : str, optional
        Only those of this operation (``"chat"``) and of this model (``"openai/gpt-5-mini"``); without any, all.
    older_than : timedelta, datetime or str, optional
        Only those written before this moment (without a time zone: UTC), or so long ago at least.
    session : Session, optional
        One of your own, instead of the one that the functions of ``llmkit`` share.

    Returns
    -------
    int
        Answers that were removed. What other processes write at this moment is theirs alone: a warning says how many such answers are left.

    Examples
    --------
    >>> import llmkit
    >>> _ = llmkit.chat("Clear this", model="echo/echo")
    >>> llmkit.cache.clear(model="echo/echo") > 0, llmkit.cache.clear(model="echo/echo")
    (True, 0)
    """
    for name, value in (("operation", operation), ("model", model)):
        if value is not None and (not isinstance(value, str) or not value.strip()):
            raise BadInput(f"{name} is a name as llmkit.cache.info() shows it, not {value!r}")
    match = Match(operation, model, _moment(older_than))
    removed, left = _in_store(session, lambda store: store.clear(match), settled=True) or (0, 0)
    if left:
        warnings.warn(
            f"{left:,} answers are left, in files that other processes write now; clear them there, or here once those have ended",
            RuntimeWarning,
            stacklevel=to_the_caller(),
        )
    return removed


def export(path: str | os.PathLike[str], *, session: Session | None = None) -> int:
    """Write every answer to a file that ``load`` takes in elsewhere, so that a colleague or another machine need not pay again.

    Parameters
    ----------
    path : path
        ``.jsonl`` or ``.parquet``; a file of that name is replaced once the new one is whole.
    session : Session, optional
        One of your own, instead of the one that the functions of ``llmkit`` share.

    Returns
    -------
    int
        Answers that were written.

    Notes
    -----
    A line holds ``key`` (a hash of what was asked), ``operation``, ``model`` (that was asked), ``answered_by`` (what the vendor calls it),
    ``value`` (JSON), ``vector`` (numbers) or ``data`` (anything else, base64 in JSON lines), token counts, ``finish``, ``cost``,
    ``created``. Prompts are not kept, hence not in it.
    """
    path, form = _file(path)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    seen: set[bytes] = set()
    try:
        with form.writer(part) as write:
            for page in _pages(session):
                fresh = {held.key: held for held in page if held.key not in seen}
                seen.update(fresh)
                if fresh:
                    write([_record(held) for held in fresh.values()])
        part.replace(path)
    except OSError as error:
        raise BadInput(f"{path} cannot be written ({error.strerror or type(error).__name__})") from None
    finally:
        part.unlink(missing_ok=True)
    return len(seen)


def load(path: str | os.PathLike[str], *, session: Session | None = None) -> int:
    """Take in the answers of a file that ``export`` wrote. Whoever made the file is believed: calls find its answers as if they were paid.

    Parameters
    ----------
    path : path
        ``.jsonl`` or ``.parquet``.
    session : Session, optional
        One of your own, instead of the one that the functions of ``llmkit`` share.

    Returns
    -------
    int
        Answers that were not known here before.
    """
    path, form = _file(path)
    added = 0
    try:
        records = form.reader(path)
        while some := list(islice(records, _PAGE)):
            rows = [_row(record, path) for record in some]
            added += _in_store(session, lambda store, rows=rows: store.take_in(rows), settled=True) or 0  # type: ignore[misc]
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror or type(error).__name__})") from None
    return added


# ------------------------------------------------------------------------------------------------------------ the store


def _in_store(session: Session | None, look: Callable[[Store], T], settled: bool = False) -> T | None:
    """``look(store)`` in the thread that owns the store, ``None`` where nothing can be kept; with all that came so far in it, if wanted."""
    writer = (session or default()).engine.writer
    if writer is None:
        return None

    async def body() -> T | None:
        if settled:
            await writer.drain()
        try:
            return await writer.read(look)
        except (StoreBusy, StoreLost) as error:
            raise ConfigError(f"the cache cannot be written now ({error})") from None

    return event_loop.call(body)


def _pages(session: Session | None) -> Iterator[list[Held]]:
    pages = _in_store(session, lambda store: store.held(_PAGE), settled=True)
    while pages is not None and (page := _in_store(session, lambda _: next(pages, None))) is not None:
        yield page


def _moment(older_than: Any) -> float | None:
    if older_than is None:
        return None
    try:
        if isinstance(older_than, Number):
            raise TypeError
        if isinstance(older_than, timedelta):
            return float((pd.Timestamp.now("UTC") - older_than).timestamp())
        moment = pd.Timestamp(older_than)
        return float((moment.tz_localize("UTC") if moment.tzinfo is None else moment).timestamp())
    except (TypeError, ValueError, OverflowError):
        raise BadInput(f'older_than is a timedelta or a moment such as "2026-11-01" (UTC), not {older_than!r}') from None


# ------------------------------------------------------------------------------------------------------------- the files


_COUNTS = ("input_tokens", "cached_input_tokens", "cache_write_tokens", "output_tokens")


def _record(held: Held) -> dict[str, Any]:
    stored = held.stored
    return {
        "key": held.key.hex(),
        "operation": held.operation,
        "model": held.target,
        "answered_by": stored.model,
        **_opened(stored.value),
        **dict(zip(_COUNTS, (stored.input, stored.cached_input, stored.cache_write, stored.output), strict=True)),
        "finish": stored.finish,
        "cost": held.cost,
        "created": None if held.created is None else datetime.fromtimestamp(held.created, UTC),
    }


def _opened(packed: bytes) -> dict[str, Any]:
    """A value by what it is: one of ``value`` (JSON text), ``vector`` and ``data``."""
    found: dict[str, Any] = {"value": None, "vector": None, "data": None}
    try:
        found["vector"] = EMBED.unpack(packed)
    except ValueError:
        try:
            orjson.loads(packed)
            found["value"] = packed.decode()
        except ValueError:
            found["data"] = packed
    return found


def _row(record: Mapping[str, Any], path: Path) -> ReplyRow:
    """A line of a file as a row of the store.

    Raises
    ------
    BadInput
        It is none; what stands in it is not quoted.
    """
    try:
        key = bytes.fromhex(record["key"])
        given = [name for name in ("value", "vector", "data") if record.get(name) is not None]
        counts = [record.get(name) or 0 for name in _COUNTS]
        words = [record.get(name) for name in ("finish", "answered_by", "model", "operation")]
        created, cost = record.get("created"), record.get("cost")
        if (
            len(key) != _KEY
            or len(given) != 1
            or not all(isinstance(count, int) and 0 <= count < 2**53 for count in counts)
            or not all(word is None or isinstance(word, str) for word in words)
            or not (cost is None or isinstance(cost, int | float))
        ):
            raise ValueError
        packed = _packed(given[0], record[given[0]])
        when = pd.Timestamp.now("UTC") if created is None else pd.Timestamp(created)
        read, cached, written, output = counts
        finish, answered_by, model, operation = words
        return ReplyRow(key, packed, read, cached, output, finish, answered_by, when.timestamp(), model, operation, written, cost)
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError, binascii.Error):
        raise BadInput(f"{path} holds a line that llmkit.cache.export did not write") from None


def _packed(name: str, value: Any) -> bytes:
    import numpy as np

    if name == "vector":
        numbers = np.asarray(value, dtype=np.float32)
        if numbers.ndim != 1 or not len(numbers):
            raise ValueError
        return EMBED.pack(numbers)
    if name == "data":
        return value if isinstance(value, bytes) else base64.b64decode(value, validate=True)
    orjson.loads(value)
    return str(value).encode()


class _Form(NamedTuple):
    """How one kind of file is written and read."""

    writer: Callable[[Path], Any]
    reader: Callable[[Path], Iterator[Mapping[str, Any]]]


def _file(path: str | os.PathLike[str]) -> tuple[Path, _Form]:
    if not isinstance(path, str | os.PathLike):
        raise BadInput(f"the file is named by a path that ends in {' or '.join(_FORMS)}, not {path!r}")
    whole = Path(path).expanduser()
    form = _FORMS.get(whole.suffix.lower())
    if form is None:
        raise BadInput(f"the file's name ends in {' or '.join(_FORMS)}; {whole.name!r} does not")
    return whole, form


@contextmanager
def _lines_out(path: Path) -> Iterator[Callable[[Iterable[dict[str, Any]]], None]]:
    with path.open("wb") as file:

        def write(records: Iterable[dict[str, Any]]) -> None:
            for record in records:
                # JSON stands in the line as it is, not as text within text.
                value = None if record["value"] is None else orjson.Fragment(record["value"])
                data = None if record["data"] is None else base64.b64encode(record["data"]).decode()
                line = {name: given for name, given in {**record, "value": value, "data": data}.items() if given is not None}
                file.write(orjson.dumps(line, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE))

        yield write


def _lines_in(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                record = orjson.loads(line)
                if not isinstance(record, dict):
                    raise ValueError
            except ValueError:
                raise BadInput(f"line {number:,} of {path} is no JSON object") from None
            if "value" in record:
                record["value"] = orjson.dumps(record["value"]).decode()
            yield record


@contextmanager
def _table_out(path: Path) -> Iterator[Callable[[Iterable[dict[str, Any]]], None]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    text, whole = pa.string(), pa.int64()
    columns = [("key", text), ("operation", text), ("model", text), ("answered_by", text), ("value", text)]
    columns += [("vector", pa.list_(pa.float32())), ("data", pa.binary()), *((name, whole) for name in _COUNTS)]
    columns += [("finish", text), ("cost", pa.float64()), ("created", pa.timestamp("us", "UTC"))]
    schema = pa.schema(columns)
    with pq.ParquetWriter(path, schema) as writer:

        def write(records: Iterable[dict[str, Any]]) -> None:
            writer.write_table(pa.Table.from_pylist(list(records), schema))

        yield write


def _table_in(path: Path) -> Iterator[Mapping[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_PAGE):
                yield from batch.to_pylist()
    except pa.ArrowInvalid:
        raise BadInput(f"{path} is no Parquet file") from None


_FORMS = {".jsonl": _Form(_lines_out, _lines_in), ".parquet": _Form(_table_out, _table_in)}
