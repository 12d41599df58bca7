"""The out directory of work that is larger than memory: part files, a manifest, and beside the parts why rows failed.

::

    out/
      part-00000.parquet      the source's first chunk_rows rows, in order, with what was made of them
      part-00001.parquet      the next; the names in order are the rows in order
      _errors-00001.parquet   the rows of part 1 that have no answer: row, file, line, step, kind, error, attempts
      _manifest.json          whose run it is, and which parts are whole

What reads a folder of Parquet (pandas, pyarrow, Dask, Spark, Daft) passes over names that begin with ``_``, so ``pd.read_parquet("out/")``
is the result. ``row`` counts from 0 over the whole source. With ``kind="jsonl"`` parts and errors are JSON lines.

The manifest holds ``format``, ``run`` (an id), ``call`` (by name what decides about the answers, texts as digests), ``source`` (what the
rows were read from), ``chunk_rows``, ``kind``, ``rows`` (once the source was read to its end) and ``parts``: by number rows, errors, bytes,
cost (US dollars, null is unknown), ``last`` (the source ends in it) and ``until`` (where in the source the next begins).

A part is written under another name, brought to the disk and renamed; where there is no renaming (object stores) it is put whole. A
Parquet part says in its own footer whose it is (``llmkit`` in its metadata: the digest of the call, and its line of the manifest), so that
many processes write parts and one, whenever it likes, the manifest. A part that is shorter than the manifest says, or has no footer, is
made again: its answers are in the store.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import BadInput, DiskFull, MissingExtra
from ..frames.columns import TEXT

__all__ = ["ADDRESS", "ERRORS", "Folder", "Part", "Parts", "mark", "to_frame", "with_columns"]

FORMAT = 1
_MANIFEST = "_manifest.json"
#: What of a call says where its models are asked: the same name at another address is another model.
ADDRESS = "the server's address"

#: Seconds between two times that the manifest is written while work goes on: a part names itself, so it may be behind.
_EACH = 1.0

#: A file that somebody began to write so many seconds ago is nobody's any more.
_LEFT_BEHIND = 3600.0

#: Why rows have no answer.
ERRORS = pa.schema(
    {
        "row": pa.int64(),
        "file": pa.string(),
        "line": pa.int64(),
        "step": pa.string(),
        "kind": pa.string(),
        "error": pa.string(),
        "attempts": pa.int64(),
    }
)


def mark(value: Any) -> Any:
    """What stands for an argument in the manifest: the same for equal ones, and of texts and schemas a digest only."""
    if value is None or isinstance(value, bool | int | float):
        return value
    return hashlib.blake2b(json.dumps(_plain(value), sort_keys=True).encode(), digest_size=8).hexdigest()


def _plain(value: Any) -> Any:
    """A value as JSON that is the same in another process; what has no such form goes by its name."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return [[str(name), _plain(item)] for name, item in value.items()]
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(json.dumps(_plain(item)) for item in value)
    if isinstance(value, pd.DataFrame | pd.Series):
        return value.to_csv()
    if hasattr(value, "model_json_schema"):
        return _plain(value.model_json_schema())
    if isinstance(value, bytes):
        return hashlib.blake2b(value).hexdigest()
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)} {_source(value)}"


def _source(value: Any) -> str:
    import inspect

    try:
        return inspect.getsource(value)
    except (OSError, TypeError):
        return str(value) if type(value).__module__ in ("typing", "types", "pathlib") else ""


class Folder:
    """A directory on this computer's disks, or wherever fsspec reaches.

    Parameters
    ----------
    path : str or Path
        ``"s3://bucket/out"`` and its like need the package fsspec, and the one of that store.

    Raises
    ------
    MissingExtra
        There is no fsspec for such a path.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._far: Any = None
        if "://" in self.path and not self.path.startswith("file://"):
            try:
                from fsspec.core import url_to_fs
            except ImportError:
                raise MissingExtra(f"{self.path} needs the package fsspec: pip install fsspec") from None
            try:
                self._far, self._root = url_to_fs(self.path)
            except (ImportError, ValueError) as error:
                raise MissingExtra(f"{self.path}: {error}") from None
        else:
            self._near = Path(self.path.removeprefix("file://")).expanduser().absolute()

    def __repr__(self) -> str:
        return f"Folder({self.path!r})"

    @property
    def far(self) -> bool:
        """Whether each file is a request to another computer."""
        return self._far is not None

    def name(self, file: str) -> str:
        """The full name of a file in it, as other tools read it."""
        return f"{self.path.rstrip('/')}/{file}"

    def files(self) -> list[str]:
        """The names in it, in order; none where it is not there yet."""
        if self._far is None:
            return sorted(os.listdir(self._near)) if self._near.is_dir() else []
        self._far.invalidate_cache()
        try:
            return sorted(name.rstrip("/").rsplit("/", 1)[-1] for name in self._far.ls(self._root, detail=False))
        except FileNotFoundError:
            return []

    def size(self, file: str) -> int | None:
        try:
            return os.path.getsize(self._near / file) if self._far is None else int(self._far.info(f"{self._root}/{file}")["size"])
        except FileNotFoundError:
            return None

    def open(self, file: str) -> Any:
        """A file to read from, in bytes."""
        return open(self._near / file, "rb") if self._far is None else self._far.open(f"{self._root}/{file}", "rb")

    def write(self, file: str, data: Any) -> int:
        """Put a file there: whole, or not at all. How many bytes it has.

        Raises
        ------
        DiskFull
            There is no room.
        """
        view = memoryview(data)
        if self._far is not None:
            self._far.makedirs(self._root, exist_ok=True)
            self._far.pipe_file(f"{self._root}/{file}", bytes(view))
            return view.nbytes
        self._near.mkdir(parents=True, exist_ok=True)
        unfinished = self._near / f".{file}.{secrets.token_hex(4)}"
        try:
            # Another's umask decides who may read a result; what is unfinished is of no use to anybody.
            with open(unfinished, "wb") as stream:
                stream.write(view)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(unfinished, self._near / file)
            _to_disk(self._near)
        except OSError as error:
            with suppress(OSError):
                unfinished.unlink()
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise DiskFull(
                    f"{self.path} has no room for {file} ({view.nbytes:,} bytes). What was answered is in the store, and is not paid "
                    "again: make room, and the same call goes on"
                ) from None
            raise
        return view.nbytes

    def remove(self, file: str) -> None:
        with suppress(FileNotFoundError):
            if self._far is None:
                (self._near / file).unlink()
            else:
                self._far.rm_file(f"{self._root}/{file}")

    def discard(self) -> None:
        """Remove it and all that is in it."""
        if self._far is None:
            shutil.rmtree(self._near, ignore_errors=True)
        elif self._far.exists(self._root):
            self._far.rm(self._root, recursive=True)

    def tidy(self) -> None:
        """Remove what killed processes left unfinished."""
        if self._far is not None:
            return
        for file in self.files():
            if file.startswith((".part-", "._errors-", f".{_MANIFEST}")):
                with suppress(OSError):
                    if time.time() - os.path.getmtime(self._near / file) > _LEFT_BEHIND:
                        (self._near / file).unlink()


def _to_disk(directory: Path) -> None:
    """Bring a directory's names to the disk, where the system has a way."""
    if os.name == "posix":
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Part:
    """A line of the manifest.

    Attributes
    ----------
    number : int
    rows, errors : int
        Rows in it, and those of them that failed or could not be read.
    cost : float or None
        US dollars that making it cost this time; ``None`` is unknown.
    last : bool
        The source ends in it.
    until : Any
        Where in the source the next part begins, as its reader says it.
    bytes : int
    """

    number: int
    rows: int
    errors: int = 0
    cost: float | None = 0.0
    last: bool = False
    until: Any = None
    bytes: int = 0


class Parts:
    """The out directory of one call.

    Parameters
    ----------
    out : str or Path
        Made if it is not there; any path of fsspec.
    call : mapping
        By name what decides about the answers; only ``operation``, ``model`` and numbers as they are, the rest as ``mark`` has it.
    source : mapping
        What the rows are read from.
    chunk_rows : int
        Rows of each part but the last.
    kind : {"parquet", "jsonl"}
    columns : sequence of str, optional
        Names of the columns that are read from the source.

    Raises
    ------
    BadInput
        The directory is another run's, or holds parts that nobody knows.
    """

    def __init__(
        self,
        out: str | os.PathLike[str],
        call: Mapping[str, Any],
        source: Mapping[str, Any],
        chunk_rows: int,
        kind: str = "parquet",
        run: str = "",
    ) -> None:
        self.folder = Folder(out)
        self.kind = kind
        self._facts = {"call": dict(call), "source": dict(source), "chunk_rows": chunk_rows, "kind": kind}
        self._mark = hashlib.blake2b(json.dumps(self._facts, sort_keys=True).encode(), digest_size=16).hexdigest()
        self._parts: dict[int, Part] = {}
        #: Rows of the source, once it was read to its end.
        self.rows: int | None = None
        self._next_save = 0.0
        self.run = run
        there = self.folder.files()
        if _MANIFEST in there:
            self._take_up()
        self._refuse_strangers(there)
        self.folder.tidy()

    def _take_up(self) -> None:
        """Go on where the manifest's run left off, if it was this one."""
        try:
            with self.folder.open(_MANIFEST) as stream:
                said = json.loads(stream.read())
            version = said["format"]
            if version == FORMAT:
                differs = _differences(said, self._facts)
                self._parts = {int(number): Part(int(number), **facts) for number, facts in said["parts"].items()}
                self.rows, self.run = said["rows"], said["run"]
        except (ValueError, LookupError, TypeError):
            raise BadInput(
                f"{self.folder.path} has a {_MANIFEST} that is none of llmkit's. Say another out=; or, where the parts are of this very "
                "call, delete that file: they name themselves"
            ) from None
        if version != FORMAT:
            raise BadInput(f"{self.folder.path} was written by another version of llmkit (format {version}); say another out=")
        if differs:
            raise BadInput(_refusal(self.folder.path, differs))

    def _refuse_strangers(self, there: Sequence[str]) -> None:
        """Parts that the manifest does not list must say themselves that they are of this call."""
        for file in there:
            number = _number(file)
            if number is None or number in self._parts:
                continue
            if not file.endswith(f".{self.kind}"):
                raise BadInput(_refusal(self.folder.path, ["kind of files"]))
            said = self._footer(file)
            if said is not None and said.get("mark") != self._mark:
                raise BadInput(_refusal(self.folder.path, ["call"]))
            if said is None and not self._parts and _MANIFEST not in there:
                raise BadInput(f"{self.folder.path} holds {file}, which no call of llmkit is known to have written; say another out=")

    def _footer(self, file: str) -> dict[str, Any] | None:
        """What a part says of itself; ``None`` where it is cut, or of a kind that says nothing."""
        if self.kind != "parquet":
            return None
        try:
            with self.folder.open(file) as stream:
                metadata = pq.read_metadata(stream).metadata or {}
            said: dict[str, Any] = json.loads(metadata[b"llmkit"])
        except (OSError, ValueError, LookupError, pa.ArrowException):
            return None
        return said

    # ------------------------------------------------------------------------------------------------------------ the parts

    def file(self, number: int, what: str = "part") -> str:
        return f"{what}-{number:05d}.{self.kind}"

    def whole(self, number: int) -> Part | None:
        """The part of this number, if it is there and whole; one that is not has to be made again."""
        part, size = self._parts.get(number), self.folder.size(self.file(number))
        if part is not None and size == part.bytes:
            return part
        self._parts.pop(number, None)
        said = self._footer(self.file(number)) if size is not None else None
        if said is None or said.get("mark") != self._mark:
            return None
        part = self._parts[number] = Part(**{**said["part"], "bytes": size})
        return part

    def write(self, part: Part, table: pa.Table, errors: pa.Table | None = None) -> Part:
        """Put a part there, and beside it why rows failed; the same with its bytes. For ``add`` in the process that keeps the manifest.

        Raises
        ------
        DiskFull
            There is no room for it.
        """
        beside = self.file(part.number, "_errors")
        if errors is not None and len(errors):
            self.folder.write(beside, self._packed(errors))
        else:
            self.folder.remove(beside)
        said = json.dumps({"mark": self._mark, "part": asdict(part)}).encode()
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), b"llmkit": said})
        return Part(**{**asdict(part), "bytes": self.folder.write(self.file(part.number), self._packed(table))})

    def _packed(self, table: pa.Table) -> Any:
        if self.kind == "jsonl":
            lines = (orjson.dumps(row, default=str, option=orjson.OPT_APPEND_NEWLINE) for row in table.to_pylist())
            return b"".join(lines)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        return sink.getvalue()

    def add(self, part: Part) -> None:
        """List a part that was written; the manifest follows within a second, or with ``finish``."""
        self._parts[part.number] = part
        if time.monotonic() >= self._next_save:
            self.save()

    def forget(self, numbers: Iterable[int]) -> None:
        """These are to be made again."""
        for number in numbers:
            if self._parts.pop(number, None) is not None:
                # By its footer it would be taken for whole.
                self.folder.remove(self.file(number))
                self.folder.remove(self.file(number, "_errors"))
        self.rows = None
        self.save()

    def finish(self, rows: int) -> None:
        """The source was read to its end, and all its parts are there."""
        self.rows = rows
        self.save()

    def save(self) -> None:
        """Write the manifest."""
        began = time.monotonic()
        parts = {str(number): _line(part) for number, part in sorted(self._parts.items())}
        said = {"format": FORMAT, "run": self.run, **self._facts, "rows": self.rows, "parts": parts}
        self.folder.write(_MANIFEST, json.dumps(said, indent=1).encode())
        # Of thousands of parts it is long: a fiftieth of the time is spent on it at the most.
        now = time.monotonic()
        self._next_save = now + max(_EACH, 50 * (now - began))

    # ------------------------------------------------------------------------------------------------------------- looking

    def __len__(self) -> int:
        return len(self._parts)

    def __iter__(self) -> Iterator[Part]:
        return iter(sorted(self._parts.values(), key=lambda part: part.number))

    def read(self) -> pd.DataFrame:
        """All parts as one frame, in the order of the rows."""
        return to_frame(self._tables("part", [part.number for part in self]))

    def schema(self) -> pa.Schema | None:
        """Of the first part; ``None`` where there is none, or parts are lines."""
        if self.kind != "parquet" or not self._parts:
            return None
        with self.folder.open(self.file(min(self._parts))) as stream:
            return pq.read_schema(stream)

    def errors(self) -> pd.DataFrame:
        """The rows without an answer, and why."""
        tables = self._tables("_errors", [part.number for part in self if part.errors])
        return to_frame(tables) if tables else to_frame([ERRORS.empty_table()])

    def _tables(self, what: str, numbers: Sequence[int]) -> list[pa.Table]:
        found = []
        for number in numbers:
            with self.folder.open(self.file(number, what)) as stream:
                found.append(pq.read_table(stream) if self.kind == "parquet" else _from_lines(stream.read()))
        return found


def _from_lines(data: bytes) -> pa.Table:
    return pa.Table.from_pylist([orjson.loads(line) for line in data.splitlines()])


def _line(part: Part) -> dict[str, Any]:
    facts = asdict(part)
    del facts["number"]
    return facts


def _number(file: str) -> int | None:
    """The number of a part file by its name; ``None`` for other files."""
    stem, _, kind = file.partition(".")
    digits = stem.removeprefix("part-")
    return int(digits) if stem.startswith("part-") and digits.isdigit() and kind in ("parquet", "jsonl") else None


def _differences(said: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """What of a call is another one than the directory's, in words."""
    found = []
    before, now = said["call"], wanted["call"]
    for name in sorted({*before, *now}):
        one, other = before.get(name), now.get(name)
        if one != other:
            found.append(f"{name} ({one} there, {other} here)" if name in ("operation", "model") else name)
    if said["source"] != wanted["source"]:
        found.append("the input (another file, or it was changed since)")
    found += [name for name in ("chunk_rows", "kind") if said[name] != wanted[name]]
    return found


def _refusal(path: str, differs: Sequence[str]) -> str:
    return (
        f"{path} holds the parts of another run; other there: {', '.join(differs)}. Say another out= (what is answered already is "
        "in the store, and not paid again), or delete the directory"
    )


# ------------------------------------------------------------------------------------------------------- Arrow and pandas


def with_columns(table: pa.Table, frame: pd.DataFrame, like: pa.Schema | None = None) -> pa.Table:
    """The table with a frame's columns appended, and for pandas a note of what its dtypes were.

    Parameters
    ----------
    like : Schema, optional
        Of the part before, whose types are taken where the values allow it: a column without any may have no type of its own.
    """
    made = pa.Table.from_pandas(frame, preserve_index=False)
    for place, field in enumerate(made.schema):
        wanted = field.type if like is None or field.name not in like.names else like.field(field.name).type
        if wanted != field.type:
            column = made.column(place)
            with suppress(pa.ArrowException):  # it stays what it is: an answer beyond 64 bits among whole numbers
                column = pa.nulls(len(made), wanted) if column.null_count == len(made) else column.cast(wanted)
            made = made.set_column(place, pa.field(field.name, column.type), column)
        table = table.append_column(made.schema.field(place), made.column(place))
    note = _note(table.schema.metadata, made.schema.metadata)
    return table.replace_schema_metadata({b"pandas": note})


def _note(source: Mapping[bytes, bytes] | None, made: Mapping[bytes, bytes] | None) -> bytes:
    """pandas' own metadata for a part: of the columns that were read and those that were made."""
    before, after = (json.loads((one or {}).get(b"pandas", b"{}")) for one in (source, made))
    # A range is that of the whole file; and pandas cannot read its own word for columns of vectors (pandas-dev/pandas#59738).
    index = [name for name in before.get("index_columns", ()) if isinstance(name, str)]
    columns = [*before.get("columns", ()), *after.get("columns", ())]
    columns = [column for column in columns if "list<" not in str(column["numpy_type"]) and "struct<" not in str(column["numpy_type"])]
    said = {"index_columns": index, "column_indexes": [], "columns": columns, "creator": after.get("creator", {})}
    said["pandas_version"] = after.get("pandas_version", pd.__version__)
    return json.dumps(said).encode()


def _dtype_of(kind: pa.DataType) -> Any:
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return pd.StringDtype(na_value=float("nan")) if TEXT == "str" else TEXT
    return pd.ArrowDtype(kind) if pa.types.is_nested(kind) else None


def to_frame(tables: Sequence[pa.Table]) -> pd.DataFrame:
    """Tables one after the other as a frame: texts as pandas' strings, vectors as ``df.llm.embed`` makes them."""
    try:
        whole = pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({})
    except pa.ArrowException:  # types that have no common one
        return pd.concat([to_frame([table]) for table in tables])
    try:
        frame: pd.DataFrame = whole.to_pandas(types_mapper=_dtype_of)
    except TypeError:  # the first part's note for pandas knows nothing of what came later
        frame = whole.to_pandas(types_mapper=_dtype_of, ignore_metadata=True)
    return frame
