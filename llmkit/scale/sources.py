"""Files of rows, read a chunk at a time from any place in them: Parquet, CSV, JSON lines.

A line that cannot be read keeps its row, with nothing in it and a reason; what a column holds is decided once, by the first chunk, so that
no dtype changes on the way: CSV is text as it stands in the file (empty cells are missing), Parquet keeps its schema, and in JSON lines a
column is text, whole numbers, numbers or booleans, anything else its JSON as text.
"""

from __future__ import annotations

import csv
import glob
import gzip
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import BadInput, MissingExtra

__all__ = ["Chunk", "Opened", "Source", "files_of", "json_lines", "source_of"]

#: A line or a cell of more bytes is taken for damage.
_LONGEST = 1 << 26

_KINDS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}

_TYPES = {"str": pa.string(), "int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_()}


@dataclass(frozen=True, slots=True)
class Opened:
    """A file to read from: what it is called, what tells it from others and from itself before a change, and how to open it."""

    name: str
    size: int
    identity: Any
    open: Callable[[], IO[bytes]]


@dataclass(slots=True)
class Chunk:
    """Rows in succession.

    Attributes
    ----------
    number, start : int
        Which chunk it is, and its first row in the whole source, both from 0; whoever reads in order sets them.
    table : Table
        Rows that could not be read hold nothing.
    until : Any
        Where the next begins.
    whole : bool
        Whether it has all rows that were asked for; else the source ends in it.
    files : list of (int, str)
        The file that the rows from this one on are from.
    lines : list of int
        The line of each row in its file, from 1; empty where a file has no lines.
    bad : dict
        By place in the chunk: why a row could not be read.
    """

    table: pa.Table
    until: Any
    whole: bool
    files: list[tuple[int, str]]
    lines: list[int] = field(default_factory=list)
    bad: dict[int, str] = field(default_factory=dict)
    number: int = 0
    start: int = 0

    def file_of(self, place: int) -> str:
        return next(name for first, name in reversed(self.files) if first <= place)


class Source:
    """Rows of several files of one kind, one file after the other."""

    def __init__(self, files: Sequence[Opened]) -> None:
        self.files = files
        #: Rows in all, where that is known without reading them.
        self.rows: int | None = None

    @property
    def columns(self) -> list[str]:
        raise NotImplementedError

    def identity(self) -> dict[str, Any]:
        return {"files": [[Path(file.name).name, file.size, file.identity] for file in self.files]}

    def read(self, position: Any, rows: int) -> Chunk | None:
        """The next rows from there (``None``: from the start); ``None`` at the end."""
        raise NotImplementedError

    def expected(self, rows: int, position: Any) -> int:
        """How many rows there are in all, if the rest is like the ``rows`` before ``position``."""
        if self.rows is not None:
            return self.rows
        if position is None or not rows:
            return rows
        file, byte = position[:2]
        before: int = sum(one.size for one in self.files[:file]) + byte
        return max(rows, rows * sum(one.size for one in self.files) // max(before, 1))

    def close(self) -> None:
        """Let go of open files."""


# ---------------------------------------------------------------------------------------------------------------- Parquet


class _Parquet(Source):
    def __init__(self, files: Sequence[Opened], columns: Sequence[str] | None) -> None:
        super().__init__(files)
        self._stream: IO[bytes] | None = None
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._rest: list[pa.Table] = []
        self._next: tuple[int, int] | None = None
        self._groups: list[list[int]] = []
        schema: pa.Schema | None = None
        for file in files:
            with file.open() as stream:
                try:
                    footer = pq.read_metadata(stream)
                except (OSError, pa.ArrowException) as error:
                    raise BadInput(f"{file.name} is no Parquet file that can be read: {_first_line(error)}") from None
            self._groups.append([footer.row_group(group).num_rows for group in range(footer.num_row_groups)])
            found = footer.schema.to_arrow_schema().with_metadata(footer.schema.to_arrow_schema().metadata)
            if schema is None:
                schema = found
            elif not found.equals(schema):
                raise BadInput(f"{file.name} has other columns or types than {files[0].name}; give files of one schema")
        assert schema is not None
        self.rows = sum(map(sum, self._groups))
        self._wanted = [name for name in schema.names if columns is None or name in columns]
        self._schema = pa.schema([schema.field(name) for name in self._wanted], schema.metadata)

    @property
    def columns(self) -> list[str]:
        return self._wanted

    def read(self, position: Any, rows: int) -> Chunk | None:
        file, row = position or (0, 0)
        if self._next != (file, row):
            self._go_to(file, row, rows)
        found: list[pa.Table] = []
        files: list[tuple[int, str]] = []
        length = 0
        while length < rows:
            table = self._more()
            if table is None:
                if file + 1 >= len(self.files):
                    break
                file, row = file + 1, 0
                self._go_to(file, row, rows)
                continue
            taken = table.slice(0, rows - length)
            if len(taken) < len(table):
                self._rest.append(table.slice(len(taken)))
            if len(taken) and (not files or files[-1][1] != self.files[file].name):
                files.append((length, self.files[file].name))
            length, row = length + len(taken), row + len(taken)
            found.append(taken)
        self._next = (file, row)
        if not length and (position is not None or self.rows):
            return None
        whole = pa.concat_tables(found) if found else self._schema.empty_table()
        return Chunk(whole.cast(self._schema).combine_chunks(), [file, row], length == rows, files or [(0, self.files[0].name)])

    def _go_to(self, file: int, row: int, rows: int) -> None:
        self.close()
        self._stream = self.files[file].open()
        # Buffered, and not a row group at once: one may be the whole file.
        opened = pq.ParquetFile(self._stream, buffer_size=1 << 20, pre_buffer=False)
        group, skip = 0, row
        while group < len(self._groups[file]) and skip >= self._groups[file][group]:
            skip -= self._groups[file][group]
            group += 1
        groups = list(range(group, len(self._groups[file])))
        self._batches = opened.iter_batches(rows, row_groups=groups, columns=self._wanted, use_threads=False) if groups else iter(())
        while skip > 0 and (table := self._more()) is not None:
            if len(table) > skip:
                self._rest.append(table.slice(skip))
            skip -= len(table)

    def _more(self) -> pa.Table | None:
        if self._rest:
            return self._rest.pop()
        try:
            batch = next(self._batches, None)
        except (OSError, pa.ArrowException) as error:
            assert self._stream is not None
            raise BadInput(f"a Parquet file cannot be read on: {_first_line(error)}") from None
        return None if batch is None else pa.Table.from_batches([batch])

    def close(self) -> None:
        self._rest, self._batches, self._next = [], iter(()), None
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


# ----------------------------------------------------------------------------------------------------------- files of lines


@dataclass(frozen=True, slots=True)
class _Record:
    """A row as its file has it: its cells, or why it has none; the line it begins in, and the byte and line after it."""

    cells: Any
    why: str
    line: int
    until: int
    next_line: int


class _OfLines(Source):
    """Files in which a row is a line, or some."""

    def __init__(self, files: Sequence[Opened], types: Mapping[str, str] | None) -> None:
        super().__init__(files)
        unknown = {name: kind for name, kind in (types or {}).items() if kind not in _TYPES}
        if unknown:
            name, kind = next(iter(unknown.items()))
            raise BadInput(f"dtypes={{{name!r}: {kind!r}}}: a column of a file of lines is one of {', '.join(map(repr, _TYPES))}")
        self._said = dict(types or {})
        self._stream: IO[bytes] | None = None
        self._records: Iterator[_Record] = iter(())
        self._next: tuple[int, int, int] | None = None
        self._types: dict[str, pa.DataType] = {}

    def _records_from(self, stream: IO[bytes], byte: int, line: int) -> Iterator[_Record]:
        raise NotImplementedError

    @property
    def columns(self) -> list[str]:
        return list(self._types)

    def read(self, position: Any, rows: int) -> Chunk | None:
        file, byte, line = position or (0, 0, 1)
        if self._next != (file, byte, line):
            self._go_to(file, byte, line)
        found: list[Any] = []
        lines: list[int] = []
        bad: dict[int, str] = {}
        files: list[tuple[int, str]] = []
        while len(found) < rows:
            record = next(self._records, None)
            if record is None:
                if file + 1 >= len(self.files):
                    break
                file, byte, line = file + 1, 0, 1
                self._go_to(file, byte, line)
                continue
            if not files or files[-1][1] != self.files[file].name:
                files.append((len(found), self.files[file].name))
            if record.why:
                bad[len(found)] = record.why
            found.append(record.cells)
            lines.append(record.line)
            byte, line = record.until, record.next_line
        self._next = (file, byte, line)
        if not found and position is not None:
            return None
        table = self._table(found, bad)
        return Chunk(table, [file, byte, line], len(found) == rows, files or [(0, self.files[0].name)], lines, bad)

    def _go_to(self, file: int, byte: int, line: int) -> None:
        self.close()
        self._stream = self.files[file].open()
        self._records = self._records_from(self._stream, byte, line)

    def _table(self, records: list[Any], bad: dict[int, str]) -> pa.Table:
        raise NotImplementedError

    def close(self) -> None:
        self._records, self._next = iter(()), None
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def _lines(stream: IO[bytes], byte: int) -> Iterator[tuple[bytes, bool]]:
    """The lines from there; of one that is far too long its beginning, and that it was."""
    stream.seek(byte)
    while raw := stream.readline(_LONGEST):
        if len(raw) < _LONGEST or raw.endswith(b"\n"):
            yield raw, False
            continue
        length = len(raw)
        while (more := stream.readline(_LONGEST)) and not more.endswith(b"\n"):
            length += len(more)
        # As many bytes as it has, for whoever counts them.
        yield _Long(raw[:100], length + len(more)), True


class _Long(bytes):
    """The beginning of a line that is too long to be held."""

    _length: int

    def __new__(cls, beginning: bytes, length: int) -> _Long:
        made = super().__new__(cls, beginning)
        made._length = length
        return made

    def __len__(self) -> int:
        return self._length


class _JsonLines(_OfLines):
    def __init__(self, files: Sequence[Opened], types: Mapping[str, str] | None, rows: int) -> None:
        super().__init__(files, types)
        self._first = rows
        # The first rows decide; whoever goes on in the middle of the file has to decide the same.
        try:
            self.read(None, rows)
        finally:
            self.close()

    def _records_from(self, stream: IO[bytes], byte: int, line: int) -> Iterator[_Record]:
        for raw, long in _lines(stream, byte):
            byte += len(raw)
            if raw.strip():
                cells, why = (None, f"a line of {len(raw):,} bytes") if long else _object(raw)
                yield _Record(cells, why, line, byte, line + 1)
            line += 1

    def _table(self, records: list[Any], bad: dict[int, str]) -> pa.Table:
        if not self._types:
            self._decide(records)
        columns = []
        for name, kind in self._types.items():
            cells = [None if record is None else record.get(name) for record in records]
            columns.append(_column(name, cells, kind, bad))
        return pa.table(columns, schema=pa.schema(self._types)) if columns else pa.table({})

    def _decide(self, records: list[Any]) -> None:
        for record in records:
            for name in record or ():
                self._types.setdefault(name, pa.null())
        for name in [*self._said, *(name for name in self._types if name not in self._said)]:
            if name in self._said:
                self._types[name] = _TYPES[self._said[name]]
            else:
                self._types[name] = _kind([record.get(name) for record in records if record])


def _object(raw: bytes) -> tuple[Any, str]:
    try:
        found = orjson.loads(raw)
    except ValueError as error:
        return None, f"is no JSON: {_first_line(error)}"
    return (found, "") if isinstance(found, dict) else (None, f"is a {type(found).__name__}, not an object with the columns' names")


def _kind(cells: Iterable[Any]) -> pa.DataType:
    there = [cell for cell in cells if cell is not None]
    kinds = set(map(type, there))
    if kinds == {int} and not all(map(_FITS[pa.int64()], there)):
        return pa.string()
    if not kinds or not kinds <= {int, float}:
        return pa.bool_() if kinds == {bool} else pa.string()
    return pa.int64() if kinds == {int} else pa.float64()


_FITS: dict[pa.DataType, Callable[[Any], bool]] = {
    pa.bool_(): lambda cell: isinstance(cell, bool),
    pa.int64(): lambda cell: isinstance(cell, int) and not isinstance(cell, bool) and -(2**63) <= cell < 2**63,
    pa.float64(): lambda cell: isinstance(cell, int | float) and not isinstance(cell, bool),
}


def _column(name: str, cells: list[Any], kind: pa.DataType, bad: dict[int, str]) -> pa.Array:
    """The cells as a column of this type; a row whose cell has another one is bad."""
    fits = _FITS.get(kind)
    for place, cell in enumerate(cells):
        if cell is None or (type(cell) is str and fits is None):
            continue
        if fits is None:
            cells[place] = orjson.dumps(cell).decode()
        elif not fits(cell):
            bad.setdefault(
                place, f"column {name!r} is {_name(kind)} from its first rows on, and here it is not: say dtypes={{{name!r}: 'str'}}"
            )
            cells[place] = None
    try:
        return pa.array(cells, kind)
    except UnicodeEncodeError:  # half a character, which no file of ours can hold
        return pa.array([None if cell is None else cell.encode("utf-8", "replace").decode() for cell in cells], kind)


def _name(kind: pa.DataType) -> str:
    return next(name for name, other in _TYPES.items() if other == kind)


class _Csv(_OfLines):
    def __init__(self, files: Sequence[Opened], types: Mapping[str, str] | None, encoding: str) -> None:
        super().__init__(files, types)
        try:
            plain = "\n".encode(encoding) == b"\n"
        except LookupError:
            raise BadInput(f"encoding={encoding!r} is unknown") from None
        if not plain:
            raise BadInput(f"encoding={encoding!r}: lines cannot be told apart in it; convert the file to UTF-8")
        self._encoding = encoding
        # A cell may be a whole document; the limit guards against a quote that nobody closes.
        csv.field_size_limit(max(csv.field_size_limit(), _LONGEST >> 2))
        header: list[str] | None = None
        self._delimiter = ","
        for file in files:
            with file.open() as stream:
                found = self._header(stream)
            if header is None:
                header = found
            elif found != header:
                raise BadInput(f"{file.name} has other columns than {files[0].name}: {', '.join(found[:8])}")
        assert header is not None
        twice = next((name for place, name in enumerate(header) if name in header[:place]), None)
        if twice is not None:
            raise BadInput(f"{files[0].name}: two columns are named {twice!r}; rename one")
        self._header_is = header
        self._types = {name: _TYPES[self._said.get(name, "str")] for name in header}

    def _header(self, stream: IO[bytes]) -> list[str]:
        first = stream.readline(_LONGEST).decode(self._encoding, "replace").removeprefix("\ufeff")
        stream.seek(0)
        self._delimiter = max(",;\t|", key=first.count)
        for record in self._parsed(stream, 0, 1, None):
            if record.cells is None:
                break
            return [name.removeprefix("\ufeff") for name in record.cells]
        raise BadInput("a CSV file begins with the names of its columns, and this one has none")

    def _records_from(self, stream: IO[bytes], byte: int, line: int) -> Iterator[_Record]:
        records = self._parsed(stream, byte, line, len(self._header_is))
        if byte == 0:
            next(records, None)  # the header
        return records

    def _parsed(self, stream: IO[bytes], byte: int, line: int, width: int | None) -> Iterator[_Record]:
        feed = _Feed(_lines(stream, byte), self._encoding)
        reader = csv.reader(feed, delimiter=self._delimiter, strict=True)
        while True:
            feed.taken = []
            feed.undecodable = False
            cells: list[str] | None = None
            why = ""
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                why = str(error)
            if cells == []:
                byte, line = byte + len(feed.taken[0]), line + 1
                continue
            if cells is not None and width is not None and len(cells) != width:
                why, cells = f"{len(cells)} fields where the header has {width}", None
            if feed.undecodable:
                cells, why = None, f"is not {self._encoding}"
            if cells is None and len(feed.taken) > 1:
                # A quote that nobody closes takes in the lines after it; only the first of them is bad.
                feed.back(feed.taken[1:])
                del feed.taken[1:]
            if cells is None:
                reader = csv.reader(feed, delimiter=self._delimiter, strict=True)
            began = line
            byte, line = byte + sum(map(len, feed.taken)), line + len(feed.taken)
            yield _Record(cells, why, began, byte, line)

    def _table(self, records: list[Any], bad: dict[int, str]) -> pa.Table:
        columns = []
        for place, (name, kind) in enumerate(self._types.items()):
            cells: list[Any] = [record[place] or None if record is not None else None for record in records]
            if kind != pa.string():
                cells = [cell if cell is None else _parsed_cell(cell, kind) for cell in cells]
            columns.append(_column(name, cells, kind, bad))
        return pa.table(columns, schema=pa.schema(self._types))


def _parsed_cell(cell: str, kind: pa.DataType) -> Any:
    if kind == pa.bool_():
        return {"true": True, "1": True, "false": False, "0": False}.get(cell.strip().lower(), cell)
    try:
        return int(cell) if kind == pa.int64() else float(cell)
    except ValueError:
        return cell


class _Feed:
    """Lines for ``csv.reader``, which says of none how many it took."""

    def __init__(self, lines: Iterator[tuple[bytes, bool]], encoding: str) -> None:
        self._lines = lines
        self._encoding = encoding
        self._back: deque[tuple[bytes, bool]] = deque()
        #: What the record so far is made of, and whether it could not be decoded.
        self.taken: list[bytes] = []
        self.undecodable = False

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        raw, long = self._back.popleft() if self._back else next(self._lines)
        self.taken.append(raw)
        if long:
            self.undecodable = True
            return "\n"
        try:
            return raw.decode(self._encoding)
        except UnicodeDecodeError:
            self.undecodable = True
            return raw.decode(self._encoding, "replace")

    def back(self, lines: Sequence[bytes]) -> None:
        """Take these once more."""
        self._back.extendleft((line, isinstance(line, _Long)) for line in reversed(lines))


# ------------------------------------------------------------------------------------------------------------------ opening


def files_of(path: Any) -> list[Opened]:
    """The files that a path, a glob, a directory or a list of them names, in the order of their names where no list says one.

    Raises
    ------
    BadInput
        There is none.
    """
    if isinstance(path, list | tuple):
        if not path:
            raise BadInput("there is no file to read: the list is empty")
        return [file for one in path for file in files_of(one)]
    said = os.fspath(path)
    if "://" in said and not said.startswith("file://"):
        return _far(said)
    said = os.path.expanduser(said.removeprefix("file://"))
    if os.path.isdir(said):
        names = sorted(name for name in os.listdir(said) if not name.startswith((".", "_")) and _kind_of(name))
        if not names:
            raise BadInput(f"{said} is a directory without files of a known kind ({', '.join(_KINDS)})")
        return [_near(os.path.join(said, name)) for name in names]
    if os.path.exists(said):
        return [_near(said)]
    found = sorted(name for name in glob.glob(said, recursive=True) if os.path.isfile(name))
    if not found:
        raise BadInput(f"there is no file {said}")
    return [_near(name) for name in found]


def _near(name: str) -> Opened:
    about = os.stat(name)
    opening: Any = gzip.open if name.endswith(".gz") else open
    return Opened(name, about.st_size, about.st_mtime_ns, lambda: opening(name, "rb"))


def _far(said: str) -> list[Opened]:
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise MissingExtra(f"{said} needs the package fsspec: pip install fsspec") from None
    try:
        system, root = url_to_fs(said)
    except (ImportError, ValueError) as error:
        raise MissingExtra(f"{said}: {error}") from None
    names = sorted(system.glob(root)) if any(sign in root for sign in "*?[") else [root]
    if len(names) == 1 and system.isdir(names[0]):
        names = sorted(name for name in system.ls(names[0], detail=False) if not Path(name).name.startswith((".", "_")) and _kind_of(name))
    if not names or not all(map(system.exists, names)):
        raise BadInput(f"there is no file {said}")
    return [Opened(name, system.size(name), system.ukey(name), lambda name=name: system.open(name, "rb")) for name in names]  # type: ignore[misc]


def _kind_of(name: str) -> str | None:
    return _KINDS.get(Path(name.removesuffix(".gz")).suffix.lower())


def source_of(
    path: Any,
    rows: int,
    columns: Sequence[str] | None = None,
    dtypes: Mapping[str, str] | None = None,
    encoding: str = "utf-8",
    kind: str | None = None,
) -> Source:
    """What ``path`` names, opened.

    Parameters
    ----------
    rows : int
        How many of its first rows decide what the columns of JSON lines hold.
    columns : sequence of str, optional
        Of Parquet files only these are read.

    Raises
    ------
    BadInput
        There is no such file, it is of no known kind, or it cannot be read from its beginning.
    """
    files = files_of(path)
    kinds = {kind or _kind_of(file.name) for file in files}
    if len(kinds) > 1:
        raise BadInput(f"files of one kind at a time, not of {', '.join(sorted(map(str, kinds)))}")
    found = kinds.pop()
    if found == "parquet":
        if dtypes:
            raise BadInput("dtypes is for CSV and JSON lines; a Parquet file says itself what its columns are")
        return _Parquet(files, columns)
    if found == "csv":
        return _Csv(files, dtypes, encoding)
    if found == "jsonl":
        return _JsonLines(files, dtypes, rows)
    raise BadInput(f"{files[0].name} is none of {', '.join(_KINDS)}")


def json_lines(file: Opened, rows: int) -> Source:
    """JSON lines that are no file of the user's."""
    return _JsonLines([file], None, rows)
