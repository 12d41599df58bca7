"""``llmkit.Index``: vectors of a frame's rows, kept for many queries, in memory or in a folder.

::

    folder/
      index.json              what the others are; written last, so that an index is there whole or not at all
      part-7c19ab.vectors     the vectors, row after row, as float32, float16 or int8
      part-7c19ab.lengths     the length of each as it is stored, float32; NaN where the row has no vector
      part-7c19ab.rows        the frame's other columns and its index (Arrow IPC)
      lookup-02f1.faiss       an approximate index over all parts, and beside it ``.places``: the row of each of its entries

Files are mapped into memory, never read whole. Each ``add`` is a part of its own. Every kind measures candidates against the stored vectors
themselves: the scores are exact, only what an approximate index passes over is missing.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import orjson
import pandas as pd
import pyarrow as pa

from .. import event_loop
from ..errors import BadInput, Cancelled, ConfigError, DiskFull
from ..frames import arguments as checked
from ..frames.arguments import Cache
from ..frames.calling import Accessor
from ..frames.columns import matrix_of, one_column, packed_vectors, some_rows
from ..frames.embedding import OR, query_vectors
from ..frames.ranking import MANY, with_score
from ..run import to_the_caller
from ..session import Session
from ..types import Progress
from ..vectors.exact import Places, Vectors, best_of, nearest, of_length_one
from ..vectors.lookups import LARGE, FaissLookup, LanceLookup, Lookup, faiss_is_there, loaded_faiss, required
from ..vectors.packing import DTYPES, Dtype, Floats, dtype_of, packed, unpacked

__all__ = ["Index"]

Kind = Literal["auto", "exact", "faiss", "hnsw", "ivf", "lance"]

FORMAT = 1
_MANIFEST = "index.json"

#: Rows looked at together while an index is built: it can be stopped in between, within a second.
_STEP = 4_096

#: Rows of a batch in a file of rows, which is what a hit has read.
_BATCH = 16_384

_KINDS = ("auto", "exact", "faiss", "hnsw", "ivf", "lance")


class Index:
    """Vectors of a frame's rows, ready for many queries.

    Parameters
    ----------
    frame : DataFrame
        Whose rows are found. Rows without a vector are left out.
    on : column
        The vectors, as ``df.llm.embed`` makes them, or lists or arrays of one length.
    kind : {"auto", "exact", "faiss", "hnsw", "ivf", "lance"}
        ``"exact"`` compares with every row. ``"hnsw"`` and ``"ivf"`` are faiss's graph and lists (``pip install 'llmkit[ann]'``), of which
        ``"faiss"`` takes the graph up to a million rows; ``"lance"`` is a LanceDB table on disk (``pip install 'llmkit[lance]'``) and
        needs a ``path``. By default exact up to 300,000 rows, then faiss where it is installed.
    dtype : {"float32", "float16", "int8"}
        How the numbers are kept. float16 takes half the room and changed no answer where it was measured; int8 takes a quarter: each vector
        is stretched until its largest number is 127, and rounded, without a scale, which a cosine does not ask for. Of the ten nearest
        of 100,000 clustered vectors of 384 numbers 99.8 % stayed with int8, and cosines moved by 0.001 at the most.
    model : str, optional
        The model that made the vectors, by which texts are embedded to be looked for. By default the one that made vectors of this length
        in this session; where that is none or several, ``search`` takes vectors only, or a ``model``.
    path : folder, optional
        Keep it there from the start, as ``save`` does, and use it from there: what ``add`` brings is then on disk at once.
    session : Session, optional
        By default the shared one.
    show_progress, wait
        It is built in a thread, with a bar; Ctrl-C stops that. ``wait=False`` returns at once: ``index.result()``, ``await index``,
        ``index.wait(seconds)``, ``index.cancel()``; a search waits by itself.

    Raises
    ------
    BadInput
        No such column, no vectors in it, several lengths, or vectors that are zero or not finite; the rows are named.
    MissingExtra
        The kind needs a package that is not installed.

    Examples
    --------
    >>> import pandas as pd, llmkit
    >>> df = pd.DataFrame({"text": ["late parcel", "red apple", "green apple"]})
    >>> df["vector"] = df.llm.embed("text", model="local/lexical", show_progress=False)
    >>> index = llmkit.Index(df, on="vector", show_progress=False)
    >>> index.search("where is my parcel", top_k=1)["text"].tolist()
    ['late parcel']
    """

    def __init__(
        self,
        frame: pd.DataFrame,
        on: Any = "vector",
        *,
        kind: Kind = "auto",
        dtype: Dtype = "float32",
        model: str | None = None,
        path: str | os.PathLike[str] | None = None,
        session: Session | None = None,
        show_progress: bool = True,
        wait: bool = True,
    ) -> None:
        if kind not in _KINDS:
            raise ConfigError(f"kind is one of {', '.join(_KINDS)}, not {kind!r}")
        if kind == "lance" and path is None:
            raise BadInput("a LanceDB table lies on disk: say where with path=...")
        self._begun_with(session, model, on, kind, dtype_of(dtype), None if path is None else _free(Path(path).expanduser()))
        required(kind)  # told at once
        self._taken_in(frame, show_progress, wait)

    def _begun_with(self, session: Session | None, model: Any, on: Any, kind: Any, dtype: Dtype, path: Path | None) -> None:
        self._accessor = Accessor(session)
        self._model = model
        self._on = on
        self._asked = kind
        self._dtype: Dtype = dtype
        self._parts: list[_Part] = []
        self._lookup: Lookup | None = None
        self._recall: tuple[int, int, float] | None = None
        self._path = path
        self._written: dict[str, Any] | None = None
        self._work: _Work | None = None

    # ------------------------------------------------------------------------------------------------------------- building

    def add(self, frame: pd.DataFrame, *, show_progress: bool = True, wait: bool = True) -> Index:
        """Take in more rows: a frame with the same columns, whose vectors are of the same length and from the same model.

        An approximate index grows by them. A stop, or a row that is refused, leaves the index as it was. Returns this index.
        """
        self.result()
        self._taken_in(frame, show_progress, wait)
        return self

    def _taken_in(self, frame: pd.DataFrame, show_progress: bool, wait: bool) -> None:
        if not isinstance(frame, pd.DataFrame):
            raise BadInput(f"an index is of a DataFrame, not {type(frame).__name__}; a Series becomes one with .to_frame()")
        one_column(frame, self._on)
        if self._parts:
            self._same_columns(frame)
        if self._path is not None and self._written is not None and _known(self._path) != self._written:
            raise BadInput(f"the index in {str(self._path)!r} was changed by somebody else since it was loaded: load it again, then add")
        held = frame.copy(deep=False)  # later assignments do not reach it
        passes = 1 + (self._kind_for(len(held) + sum(map(len, self._parts))) != "exact") + (self._path is not None)
        rows = len(held) * passes
        self._begin(f"index of {len(held):,} rows", rows, lambda tick: self._build(held, tick), show_progress, wait)

    def _same_columns(self, frame: pd.DataFrame) -> None:
        known = self._parts[0].rows.columns
        differ = [name for name in known if name not in frame.columns] + [name for name in frame.columns if name not in known]
        if differ:
            raise BadInput(f"the index has the columns {list(known)}; {differ[0]!r} is in one of the two only")

    def _begin(self, title: str, rows: int, function: Callable[[Callable[[int], None]], None], show_progress: bool, wait: bool) -> None:
        self._work = _Work(title, rows, function, show_progress)
        if wait:
            self.result()

    def _build(self, frame: pd.DataFrame, tick: Callable[[int], None]) -> None:
        part = _part_of(frame, self._on, self._dtype, tick)
        if self.dimensions and part.dimensions and part.dimensions != self.dimensions:
            raise BadInput(
                f"the index holds vectors of {self.dimensions} numbers, and column {self._on!r} of the frame some of {part.dimensions}"
            )
        if self._model is None and not self.dimensions:
            self._model = self._accessor._session.embedded_with.get(part.dimensions)
        parts = [*self._parts, part]
        kind = self._kind_for(sum(len(one) for one in parts))
        lookup, since = self._lookup, 0 if self._lookup is None else len(self._lookup)
        try:
            if kind != "exact" and part.dimensions:
                first = len(parts) - 1
                if lookup is None:
                    lookup, first = self._new_lookup(kind, part.dimensions, sum(map(len, parts))), 0
                self._told(lookup, parts, first, tick)
            self._recall = None
            if self._path is not None:
                parts, self._written = _write(self._path, parts, lookup, self._facts(), self._written or _known(self._path), tick)
        except BaseException:
            if self._lookup is not None and not self._lookup.give_up(since):
                self._lookup = None  # compared with all until the next add makes it anew
            elif isinstance(lookup, LanceLookup):
                shutil.rmtree(lookup.folder, ignore_errors=True)
            raise
        self._parts, self._lookup = parts, lookup

    def _kind_for(self, rows: int) -> str:
        if self._lookup is not None:
            return self._lookup.method
        if self._asked == "faiss" or (self._asked == "auto" and rows > MANY and faiss_is_there()):
            return "hnsw" if rows <= LARGE else "ivf"
        if self._asked == "auto" and rows > MANY and self._work is not None:
            self._work.notes.append(f"each query is compared with all {rows:,} rows; with faiss it is quicker: pip install 'llmkit[ann]'")
        return "exact" if self._asked == "auto" else str(self._asked)

    def _new_lookup(self, kind: str, dimensions: int, rows: int) -> Lookup:
        if kind == "lance":
            assert self._path is not None
            self._path.mkdir(parents=True, exist_ok=True)
            return LanceLookup(self._path / f"lookup-{secrets.token_hex(4)}.lance", dimensions, self._dtype != "float32")
        return FaissLookup(kind, dimensions, rows, self._dtype == "int8")

    @staticmethod
    def _told(lookup: Any, parts: Sequence[_Part], first: int, tick: Callable[[int], None]) -> None:
        """Tell it the vectors of these parts."""
        start = sum(len(part) for part in parts[:first])
        if lookup.wants and not len(lookup):
            there = np.concatenate([np.flatnonzero(~np.isnan(part.lengths)) + at for part, at in _with_starts(parts)])
            if len(there) > lookup.wants:
                there = np.sort(np.random.default_rng(0).choice(there, lookup.wants, replace=False))
            tick(0)
            lookup.learn(of_length_one(Vectors([part.matrix for part in parts], [part.lengths for part in parts]).at(there)[0]))
        for part in parts[first:]:
            # An add costs LanceDB a version and a file, so it takes larger steps.
            step = _STEP if lookup.method != "lance" else 16 * _STEP
            for at in range(0, len(part), step):
                tick(0)
                here = at + np.flatnonzero(~np.isnan(part.lengths[at : at + step]))
                if len(here):
                    lookup.add(of_length_one(unpacked(part.matrix[here])), here + start)
                tick(min(step, len(part) - at))
            start += len(part)

    @property
    def done(self) -> bool:
        """Whether nothing is being built."""
        return self._work is None or self._work.done

    def progress(self) -> Progress:
        """How far what is being built has come."""
        work = self._work
        rows, done, seconds = (len(self), len(self), 0.0) if work is None else (work.total, work.at, work.seconds)
        return Progress(rows=rows, done=done, errors=0, stored=0, tokens=0, cost=0.0, seconds=seconds)

    def wait(self, timeout: float | None = None) -> bool:
        """Block until nothing is being built, or ``timeout`` seconds have passed; whether it ended. Raises nothing."""
        return self._work is None or self._work.wait(timeout)

    def cancel(self) -> None:
        """Stop what is being built; returns at once."""
        if self._work is not None:
            self._work.cancel()

    def result(self) -> Index:
        """Block until it is built, with the bar; this index. Ctrl-C stops the building.

        Raises
        ------
        BadInput
            What was wrong with the vectors.
        Cancelled
            It was stopped.
        """
        work = self._work
        if work is None:
            return self
        if work.told and self._parts:  # by Ctrl-C: who did it knows, and what was there before is whole
            work.wait(None)
        else:
            with self._once_told():
                work.result()
        self._over()
        return self

    @contextmanager
    def _once_told(self) -> Iterator[None]:
        """What goes wrong while an index grows is told once; one that was never built tells it each time."""
        try:
            yield
        except Exception:
            if self._parts:
                self._work = None
            raise

    def __await__(self) -> Generator[Any, None, Index]:
        return self._awaited().__await__()

    async def _awaited(self) -> Index:
        if self._work is not None:
            with self._once_told():
                await self._work.awaited()
            self._over()
        return self

    def _over(self) -> None:
        notes, self._work = [] if self._work is None else self._work.notes, None
        for note in notes:
            warnings.warn(f"llmkit: {note}", stacklevel=to_the_caller())

    # ------------------------------------------------------------------------------------------------------------ searching

    def search(self, query: Any, top_k: int = 5, *, model: str | None = None, cache: Cache = "use", timeout: float = 180.0) -> pd.DataFrame:
        """Find the rows whose vectors are nearest to a query.

        Parameters
        ----------
        query : str or vector, or a list of them
            A text is embedded by the index's model, as a query where the model tells queries from documents. A list, a Series or a matrix
            is many queries; see ``search_many``.
        top_k : int
            Rows to return, of each query.
        model : str, optional
            In place of the index's own, where that is not known.
        cache, timeout
            As in ``df.llm.chat``, for the query's own vector.

        Returns
        -------
        DataFrame
            The frame's rows, nearest first, with their index and a float column ``score``, the cosine from -1 to 1, as ``df.llm.search``.

        Raises
        ------
        BadInput
            An empty query, a vector of another length, one that is zero or not finite, or a text where the model is not known.
        """
        self.result()
        texts, matrix, several = _queries(query)
        if several:
            return self.search_many(query, top_k, model=model, cache=cache, timeout=timeout)
        places, scores = self._found(texts, matrix, top_k, model, cache, timeout)
        here = places[0] >= 0
        return with_score(self._rows(places[0][here]), score=scores[0][here])

    def search_many(
        self, queries: Any, top_k: int = 5, *, model: str | None = None, cache: Cache = "use", timeout: float = 180.0
    ) -> pd.DataFrame:
        """Find the nearest rows to each of many queries at once, much faster than one by one.

        Parameters
        ----------
        queries : list or Series of str or of vectors, or a matrix
            Missing ones find nothing.
        top_k, model, cache, timeout
            As in ``search``.

        Returns
        -------
        DataFrame
            As ``search``, query after query, with a column ``query`` before ``score``: its text, or of vectors its place from 0.
        """
        self.result()
        texts, matrix, _ = _queries(queries, many=True)
        places, scores = self._found(texts, matrix, top_k, model, cache, timeout)
        query, column = np.nonzero(places >= 0)
        said: Any = query.astype(np.int64)
        if texts is not None:
            said = np.array([text if text is None else str(text) for text in texts], dtype=object)[query]
        return with_score(self._rows(places[query, column]), query=said, score=scores[query, column])

    def _found(
        self, texts: list[str | None] | None, matrix: Floats | None, top_k: int, model: str | None, cache: Cache, timeout: float
    ) -> tuple[Places, npt.NDArray[np.float64]]:
        most = checked.rows("top_k", top_k, 1) or 1
        if not self._parts or not self.dimensions:
            count = len(texts or ()) if matrix is None else len(matrix)
            return np.full((count, 0), -1, dtype=np.intp), np.empty((count, 0))
        if matrix is None:
            assert texts is not None
            matrix = query_vectors(self._accessor, texts, self.dimensions, model or self._its_model(), cache, timeout)
        if matrix.shape[1] != self.dimensions:
            raise BadInput(f"the index holds vectors of {self.dimensions} numbers, and the query has {matrix.shape[1]}")
        return self._nearest(matrix, most)

    def _nearest(self, queries: Floats, most: int) -> tuple[Places, npt.NDArray[np.float64]]:
        among = self._vectors()
        if self._lookup is None:
            return nearest(queries, among, most)
        most = min(most, len(among))
        found, cosines = np.full((len(queries), most), -1, dtype=np.intp), np.full((len(queries), most), np.nan)
        asked = np.flatnonzero(~np.isnan(queries).any(axis=1))
        for start in range(0, len(asked), _STEP):
            rows = asked[start : start + _STEP]
            some = of_length_one(queries[rows])
            places, scores = best_of(some, among, self._lookup.candidates(some, most), most)
            found[rows, : places.shape[1]], cosines[rows, : places.shape[1]] = places, scores
        return found, cosines

    def _vectors(self) -> Vectors:
        filled = [part for part in self._parts if part.dimensions]
        if len(filled) < len(self._parts):  # rows none of which has a vector take up places all the same
            width = self.dimensions
            matrices = [part.matrix if part.dimensions else np.zeros((len(part), width), dtype=np.float32) for part in self._parts]
            return Vectors(matrices, [part.lengths for part in self._parts])
        return Vectors([part.matrix for part in filled], [part.lengths for part in filled])

    def _its_model(self) -> str:
        if self._model is None:
            raise BadInput(
                f"which model made these vectors of {self.dimensions} numbers is not known, so a text cannot be embedded the same way: "
                "name it with model=..., or look for a vector"
            )
        if OR in self._model:
            made = f"vectors of {self.dimensions} numbers were made with {self._model} in this session"
            raise BadInput(f"{made}: name the one that made these with model=...")
        return str(self._model)

    def _rows(self, places: Places) -> pd.DataFrame:
        """The frame's rows at these places, in this order."""
        found, at = [], []
        for part, start in _with_starts(self._parts):
            here = np.flatnonzero((places >= start) & (places < start + len(part)))
            if len(here) or len(self._parts) == 1:
                found.append(part.taken(places[here] - start))
                at.append(here)
        if not found:
            return self._parts[0].taken(np.empty(0, dtype=np.intp)) if self._parts else pd.DataFrame()
        if len(found) == 1:
            return found[0]
        return pd.concat(found).iloc[np.argsort(np.concatenate(at), kind="stable")]

    # -------------------------------------------------------------------------------------------------------------- looking

    def recall(self, sample: int = 200, k: int = 10) -> float:
        """The share of the ``k`` nearest that are found, measured against comparing with all rows.

        ``sample`` of the index's own vectors are looked for, each without itself; a hit counts that is as near as one of the nearest. What
        the queries of real life are like may differ: vectors of your own go into ``search_many``.

        Examples
        --------
        >>> import numpy as np, pandas as pd, llmkit
        >>> df = pd.DataFrame({"vector": list(np.eye(20, dtype="float32") + 0.01)})
        >>> llmkit.Index(df, show_progress=False).recall(sample=5)
        1.0
        """
        self.result()
        checked.rows("sample", sample, 1), checked.rows("k", k, 1)
        there = np.concatenate([np.flatnonzero(~np.isnan(part.lengths)) + at for part, at in _with_starts(self._parts)])
        if len(there) < 2:
            raise BadInput("recall compares neighbours, and there are none")
        chosen = np.sort(np.random.default_rng(0).choice(there, min(sample, len(there)), replace=False))
        queries = self._vectors().at(chosen)[0]
        k = min(k, len(there) - 1)

        def measured(tick: Callable[[int], None]) -> None:
            best, nearness = nearest(queries, self._vectors(), k + 1, lambda: tick(0))
            others, hits = self._nearest(queries, k + 1)
            nearness[best == chosen[:, None]] = np.nan
            hits[others == chosen[:, None]] = np.nan
            least = -np.sort(-nearness, axis=1)[:, k - 1]
            counted = np.minimum((hits >= least[:, None] - 1e-6).sum(axis=1), k)
            self._recall = (k, len(chosen), float(counted.mean() / k))

        self._begin("recall", 0, measured, False, True)
        assert self._recall is not None
        return self._recall[2]

    def __len__(self) -> int:
        """Rows that can be found."""
        return sum(part.there for part in self._parts)

    @property
    def dimensions(self) -> int:
        """Numbers in a vector."""
        return next((part.dimensions for part in self._parts if part.dimensions), 0)

    @property
    def kind(self) -> str:
        """What it has become: ``"exact"``, ``"hnsw"``, ``"ivf"`` or ``"lance"``."""
        return "exact" if self._lookup is None else self._lookup.method

    @property
    def model(self) -> str | None:
        """The model that made the vectors, as far as it is known."""
        return None if self._model is None or OR in self._model else self._model

    @property
    def size(self) -> int:
        """Bytes on disk, 0 where it is in memory only."""
        return 0 if self._path is None or self._written is None else _size_of(self._path, self._written)

    def __repr__(self) -> str:
        if not self.done:
            at = self.progress()
            return f"<Index being built: {at.done / max(1, at.rows):.0%}>"
        made_by = self.model or "a model that is not known"
        where = f"{_bytes(self.size)} on disk in {str(self._path)!r}" if self._path is not None else "in memory"
        recall = "" if self._recall is None else f", recall@{self._recall[0]} {self._recall[2]:.3f} of {self._recall[1]} asked"
        return f"<Index {self.kind}: {len(self):,} rows of {self.dimensions} numbers ({self._dtype}) by {made_by}, {where}{recall}>"

    # --------------------------------------------------------------------------------------------------------------- saving

    def save(self, path: str | os.PathLike[str], *, show_progress: bool = True) -> Index:
        """Keep it in a folder, and use it from there from now on: what ``add`` brings is then on disk at once.

        An index that is there already is replaced when all is written; until then it stays what it was. A folder with anything else in it
        is refused. What is written are vectors, the frame's columns and index, the model's name, and nothing of ``df.attrs``.

        Raises
        ------
        BadInput
            The folder is not an index's, or a column cannot be written (of mixed objects); it is named.
        """
        self.result()
        if not self._parts:
            raise BadInput("there is nothing to save: the index was not built")
        folder = _free(Path(path).expanduser())
        if isinstance(self._lookup, LanceLookup) and folder != self._path:
            raise BadInput(f"a LanceDB table stays where it is, in {str(self._path)!r}; copy the folder while nothing is added")
        rows = sum(len(part) for part in self._parts)

        def write(tick: Callable[[int], None]) -> None:
            self._parts, self._written = _write(folder, self._parts, self._lookup, self._facts(), _known(folder), tick)
            self._path = folder

        self._begin("save", rows, write, show_progress, True)
        return self

    def _facts(self) -> dict[str, Any]:
        recall = None if self._recall is None else list(self._recall)
        return {"asked": self._asked, "dtype": self._dtype, "model": self._model, "recall": recall}

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, session: Session | None = None) -> Index:
        """One that was saved, mapped into memory: at once, whatever its size.

        Hits have the frame's columns, index and dtypes; the vectors come back as they are kept (``dtype``). Load only what you trust:
        faiss's own files are read by faiss.

        Raises
        ------
        BadInput
            No index is there, or one of its files is missing or cut short.
        """
        folder = Path(path).expanduser()
        said = _manifest(folder)
        made = cls.__new__(cls)
        made._begun_with(session, said["model"], None, said["asked"], said["dtype"], folder)
        made._written = said
        made._recall = None if said["recall"] is None else tuple(said["recall"])
        made._parts = [_mapped(folder, line, said["dtype"]) for line in said["parts"]]
        if made._parts:
            made._on = made._parts[0].rows.vectors
        lookup = said["lookup"]
        if lookup is not None and lookup["method"] == "lance":
            made._lookup = LanceLookup(folder / lookup["folder"], made.dimensions, said["dtype"] != "float32", lookup)
        elif lookup is not None:
            made._lookup = loaded_faiss(folder, lookup)
        return made


# ------------------------------------------------------------------------------------------------------------------------- parts


class _Held:
    """Rows of a frame in memory."""

    def __init__(self, frame: pd.DataFrame, on: Any) -> None:
        self._frame = frame
        self.vectors = on

    @property
    def columns(self) -> list[Any]:
        return list(self._frame.columns)

    def taken(self, places: Places, _: Callable[[], Any]) -> pd.DataFrame:
        return self._frame.iloc[places].copy()

    def write(self, file: Path, tick: Callable[[int], None]) -> None:
        """As Arrow batches; in the place of the vectors stands a column of one bit a row."""
        place = list(self._frame.columns).index(self.vectors)
        frame = self._frame.copy(deep=False)
        frame.isetitem(place, np.zeros(len(frame), dtype=bool))
        frame.attrs = {}
        schema = _schema_of(frame, place)
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for start in range(0, len(frame), _BATCH):
                some = frame.iloc[start : start + _BATCH]
                try:
                    table = pa.Table.from_pandas(some, schema=schema, preserve_index=True)
                except (pa.ArrowException, TypeError, ValueError) as error:
                    raise _unwritable(some, error) from None
                writer.write_table(table, max_chunksize=_BATCH)
                tick(len(some))


def _schema_of(frame: pd.DataFrame, place: int) -> pa.Schema:
    try:
        found = pa.Schema.from_pandas(frame, preserve_index=True)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise _unwritable(frame, error) from None
    told = orjson.loads(found.metadata[b"pandas"])
    for column, (_, dtype) in zip(told["columns"], frame.dtypes.items(), strict=False):
        if isinstance(dtype, pd.ArrowDtype) and pa.types.is_nested(dtype.pyarrow_dtype):
            column["numpy_type"] = "object"  # pandas cannot read its own name for it (pandas-dev/pandas#59738); put right in _Mapped
            column["metadata"] = {"nested": True}
    return found.with_metadata({b"pandas": orjson.dumps(told), b"llmkit": orjson.dumps({"vectors": place})})


def _unwritable(frame: pd.DataFrame, error: Exception) -> BadInput:
    for name in frame.columns.unique():
        if isinstance(frame[name], pd.DataFrame):
            return BadInput(f"several columns are named {name!r}; rename them so that the index can be written")
        try:
            pa.array(frame[name])
        except (pa.ArrowException, TypeError, ValueError):
            return BadInput(
                f"column {name!r} cannot be written (its objects are of several kinds): drop it, or make a text of it with .map(str)"
            )
    return BadInput(f"the frame cannot be written as Arrow ({type(error).__name__}); keep plain columns and a plain index")


class _Mapped:
    """Rows in an Arrow file, mapped into memory; only what is hit is read."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._reader = pa.ipc.open_file(pa.memory_map(str(file)))
        schema = self._reader.schema
        self._place = orjson.loads(schema.metadata[b"llmkit"])["vectors"]
        told = orjson.loads(schema.metadata[b"pandas"])
        self._nested = [number for number, column in enumerate(told["columns"]) if (column["metadata"] or {}).get("nested")]
        empty = self._frame(schema.empty_table())
        self.columns = list(empty.columns)
        self.vectors = self.columns[self._place]

    def _frame(self, table: pa.Table) -> pd.DataFrame:
        frame: pd.DataFrame = table.to_pandas()
        for number in self._nested:
            if number >= frame.shape[1]:
                continue  # a level of the index
            array = pd.arrays.ArrowExtensionArray(table.column(number))
            frame.isetitem(number, array)
        return frame

    def taken(self, places: Places, vectors: Callable[[], Any]) -> pd.DataFrame:
        batch = places // _BATCH
        tables, order = [], []
        for number in np.unique(batch):
            here = np.flatnonzero(batch == number)
            tables.append(pa.Table.from_batches([self._reader.get_batch(int(number)).take(pa.array(places[here] % _BATCH))]))
            order.append(here)
        table = pa.concat_tables(tables) if tables else self._reader.schema.empty_table()
        if order:
            table = table.take(pa.array(np.argsort(np.concatenate(order), kind="stable")))
        frame = self._frame(table)
        frame.isetitem(self._place, vectors())
        return frame

    def write(self, file: Path, tick: Callable[[int], None]) -> None:
        tick(0)
        shutil.copyfile(self._file, file)


class _Part:
    """The rows of one frame: their vectors as they are kept, the lengths of these (NaN where there is none), and the other columns."""

    def __init__(self, matrix: npt.NDArray[Any], lengths: Floats, rows: Any, folder: Path | None = None, name: str = "") -> None:
        self.matrix, self.lengths, self.rows = matrix, lengths, rows
        self.folder, self.name = folder, name
        self.there = int((~np.isnan(lengths)).sum())

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def dimensions(self) -> int:
        return int(self.matrix.shape[1]) if self.there else 0

    def taken(self, places: Places) -> pd.DataFrame:
        def vectors() -> Any:
            return packed_vectors(np.ascontiguousarray(self.matrix[places]), ~np.isnan(self.lengths[places]))

        found: pd.DataFrame = self.rows.taken(places, vectors)
        return found


def _with_starts(parts: Sequence[_Part]) -> Iterator[tuple[_Part, int]]:
    start = 0
    for part in parts:
        yield part, start
        start += len(part)


def _part_of(frame: pd.DataFrame, on: Any, dtype: Dtype, tick: Callable[[int], None]) -> _Part:
    """A frame's vectors, checked row by row."""
    column = one_column(frame, on)
    tick(0)
    missing = np.asarray(column.isna())
    matrix = matrix_of(column) if len(frame) and not missing.all() else np.full((len(frame), 0), np.nan, dtype=np.float32)
    lengths = np.empty(len(frame), dtype=np.float32)
    kept = matrix if dtype == "float32" else np.empty(matrix.shape, dtype=dtype)
    wrong, zero = [], []
    for start in range(0, len(frame), _STEP):
        rows = matrix[start : start + _STEP]
        with np.errstate(over="ignore", invalid="ignore"):
            found = np.sqrt(np.einsum("ij,ij->i", rows, rows))
        here = ~missing[start : start + _STEP]
        wrong.append(start + np.flatnonzero(here & ~np.isfinite(found)))
        zero.append(start + np.flatnonzero(here & (found == 0)))
        if dtype != "float32":
            kept[start : start + _STEP] = some = packed(np.nan_to_num(rows), dtype)
            as_kept = some.astype(np.float32)
            found = np.sqrt(np.einsum("ij,ij->i", as_kept, as_kept))
            zero.append(start + np.flatnonzero(here & (found == 0)))
        lengths[start : start + _STEP] = np.where(here, found, np.nan)
        tick(len(rows))
    for places, what in ((wrong, "not finite"), (zero, "zero, which have no direction")):
        rows = np.unique(np.concatenate(places)) if places else np.empty(0, dtype=np.intp)
        if len(rows):
            raise BadInput(
                f"column {on!r} holds vectors that are {what}, in {some_rows(rows)} (from 0); drop these rows or embed them anew"
            )
    return _Part(kept, lengths, _Held(frame, on))


def _queries(query: Any, many: bool = False) -> tuple[list[str | None] | None, Floats | None, bool]:
    """(texts, vectors, whether several were asked): texts or vectors is ``None``."""
    if isinstance(query, str):
        if not query.strip():
            raise BadInput("search needs a query: the first argument is empty")
        if many:
            raise BadInput("search_many takes a list of queries; search takes one")
        return [query], None, False
    if isinstance(query, np.ndarray) and query.dtype != object:
        found = np.asarray(query, dtype=np.float32)
        if found.ndim not in (1, 2):
            raise BadInput(f"a query is a vector, and many are a matrix; this has {found.ndim} dimensions")
        return None, _checked(np.atleast_2d(found), None), found.ndim == 2
    if not isinstance(query, list | tuple | pd.Series | pd.Index | np.ndarray):
        raise BadInput(f"a query is a text or a vector, or a list of them, not {type(query).__name__}")
    cells = pd.Series(query) if not isinstance(query, pd.Series) else query
    first = next((cell for cell in cells if not _is_missing(cell)), None)
    if first is None or isinstance(first, str):
        texts = [None if _is_missing(cell) or (isinstance(cell, str) and not cell.strip()) else cell for cell in cells]
        odd = next((cell for cell in texts if cell is not None and not isinstance(cell, str)), None)
        if odd is not None:
            raise BadInput(f"queries are all texts or all vectors; one of these is {type(odd).__name__}")
        return texts, None, True
    if isinstance(first, float | int | np.number):
        return None, _checked(np.asarray([list(cells)], dtype=np.float32), None), False
    return None, _checked(matrix_of(cells), np.asarray(cells.isna())), True


def _is_missing(cell: Any) -> bool:
    return cell is None or cell is pd.NA or (isinstance(cell, float) and cell != cell)


def _checked(matrix: Floats, missing: npt.NDArray[np.bool_] | None) -> Floats:
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.sqrt(np.einsum("ij,ij->i", matrix, matrix))
    asked = np.ones(len(matrix), dtype=bool) if missing is None else ~missing
    wrong = np.flatnonzero(asked & (~np.isfinite(lengths) | (lengths == 0)))
    if len(wrong):
        raise BadInput(f"a query's vector must be finite and not zero: look at {some_rows(wrong)} (from 0)")
    return matrix


# ----------------------------------------------------------------------------------------------------------------------- on disk


def _free(folder: Path) -> Path:
    """A folder that is empty, not there yet, or an index's."""
    if folder.is_file():
        raise BadInput(f"{str(folder)!r} is a file; an index is a folder")
    if folder.is_dir() and not (folder / _MANIFEST).exists():
        others = [name for name in os.listdir(folder) if not _ours(name)]
        if others:
            raise BadInput(f"{str(folder)!r} holds {others[0]!r} and no index: name an empty folder, or a new one")
    return folder


def _known(folder: Path) -> dict[str, Any] | None:
    """What is said of an index that is there; one that is damaged is about to be replaced."""
    try:
        return _manifest(folder)
    except BadInput:
        return None


def _ours(name: str) -> bool:
    return name.startswith(("part-", "lookup-", f"{_MANIFEST}."))


def _write(
    folder: Path, parts: Sequence[_Part], lookup: Lookup | None, facts: dict[str, Any], before: dict[str, Any] | None,
    tick: Callable[[int], None],
) -> tuple[list[_Part], dict[str, Any]]:  # fmt: skip
    """Bring what is new to the folder, then say so; (the parts from there, what was said)."""
    made: list[str] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lines = []
        for part in parts:
            if part.folder != folder:
                name = f"part-{secrets.token_hex(4)}"
                made += [f"{name}.vectors", f"{name}.lengths", f"{name}.rows"]
                _write_part(folder, name, part, tick)
            else:
                name = part.name
            lines.append({"name": name, "rows": len(part), "dimensions": part.dimensions, "bytes": _bytes_of(folder, name)})
        told = None
        if lookup is not None:
            tick(0)
            name = f"lookup-{secrets.token_hex(4)}"
            made += [f"{name}.faiss", f"{name}.places"]
            told = lookup.write(folder, name)
            for file in told["files"]:
                _to_disk(folder / file)
            told["bytes"] = [(folder / file).stat().st_size for file in told["files"]]
        said = {"format": FORMAT, **facts, "parts": lines, "lookup": told}
        unfinished = folder / f"{_MANIFEST}.{secrets.token_hex(4)}"
        made.append(unfinished.name)
        unfinished.write_bytes(orjson.dumps(said, option=orjson.OPT_INDENT_2) + b"\n")
        _to_disk(unfinished)
        unfinished.replace(folder / _MANIFEST)
        _to_disk(folder)
    except BaseException as error:
        for file in made:
            with suppress(OSError):
                (folder / file).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise DiskFull(f"there is no room for the index in {str(folder)!r}; what was there before is as it was") from None
        raise
    if lookup is not None and told is not None:
        lookup.use(folder, told)
    for file in set(_files_of(before)) - set(_files_of(said)):
        with suppress(OSError):  # somebody reads it still, where that keeps a file from going
            (folder / file).unlink()
    return [_mapped(folder, line, facts["dtype"]) for line in lines], said


def _write_part(folder: Path, name: str, part: _Part, tick: Callable[[int], None]) -> None:
    with open(folder / f"{name}.vectors", "wb") as file:
        for start in range(0, len(part), _STEP):
            tick(0)
            rows = np.ascontiguousarray(part.matrix[start : start + _STEP])
            if rows.dtype != np.int8:
                rows = np.nan_to_num(rows)  # missing ones: their length says so
            file.write(rows.data)
    part.lengths.tofile(folder / f"{name}.lengths")
    part.rows.write(folder / f"{name}.rows", tick)
    for kind in ("vectors", "lengths", "rows"):
        _to_disk(folder / f"{name}.{kind}")


def _to_disk(path: Path) -> None:
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:  # a folder, where those cannot be opened
        return
    try:
        with suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


def _bytes_of(folder: Path, name: str) -> list[int]:
    return [(folder / f"{name}.{kind}").stat().st_size for kind in ("vectors", "lengths", "rows")]


def _files_of(said: dict[str, Any] | None) -> list[str]:
    if said is None:
        return []
    lookup = said["lookup"] or {"files": []}
    return [f"{line['name']}.{kind}" for line in said["parts"] for kind in ("vectors", "lengths", "rows")] + list(lookup["files"])


def _size_of(folder: Path, said: dict[str, Any]) -> int:
    total = int(sum(sum(line["bytes"]) for line in said["parts"]))
    lookup = said["lookup"]
    if lookup is None:
        return total
    if lookup["method"] == "lance":
        return total + sum(int(file.stat().st_size) for file in (folder / str(lookup["folder"])).rglob("*") if file.is_file())
    return total + int(sum(lookup["bytes"]))


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        said: dict[str, Any] = orjson.loads((folder / _MANIFEST).read_bytes())
        if said["format"] != FORMAT:
            raise BadInput(f"the index in {str(folder)!r} is of format {said['format']}, which this version of llmkit does not know")
        if said["dtype"] not in DTYPES or not isinstance(said["parts"], list):
            raise ValueError
        files = [(file, size) for line in said["parts"] for file, size in zip(_three(line["name"]), line["bytes"], strict=True)]
        files += zip(said["lookup"]["files"], said["lookup"]["bytes"], strict=True) if said["lookup"] else ()
    except FileNotFoundError:
        raise BadInput(f"there is no index in {str(folder)!r}") from None
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"{str(folder / _MANIFEST)!r} is not what llmkit wrote") from None
    for file, size in files:
        if Path(file).name != file or not _ours(file):
            raise BadInput(f"{str(folder / _MANIFEST)!r} names a file that is not of the index: {file!r}")
        there = (folder / file).stat().st_size if (folder / file).exists() else None
        if there != size:
            found = "is missing" if there is None else f"has {there:,} bytes and should have {size:,}"
            raise BadInput(f"the index in {str(folder)!r} is damaged: {file} {found}; build it again")
    return said


def _three(name: str) -> list[str]:
    return [f"{name}.{kind}" for kind in ("vectors", "lengths", "rows")]


def _mapped(folder: Path, line: dict[str, Any], dtype: Dtype) -> _Part:
    name, rows, dimensions = line["name"], line["rows"], line["dimensions"]
    vectors, lengths, others = (folder / file for file in _three(name))
    matrix: npt.NDArray[Any] = np.zeros((rows, dimensions), dtype=dtype)
    if rows and dimensions:
        matrix = np.memmap(vectors, dtype=dtype, mode="r", shape=(rows, dimensions))
    return _Part(matrix, np.fromfile(lengths, dtype=np.float32), _Mapped(others), folder, name)


def _bytes(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


# ------------------------------------------------------------------------------------------------------------------------- work


class _Work:
    """A function in a thread of its own: to be waited for with a bar, and stopped.

    Parameters
    ----------
    title : str
    total : int
        Rows that it goes through.
    function : callable
        ``function(tick)``; ``tick(rows)`` counts, and raises once it is to stop.
    show_progress : bool
    """

    def __init__(self, title: str, total: int, function: Callable[[Callable[[int], None]], None], show_progress: bool) -> None:
        self.total, self.at = total, 0
        #: What the user should know of the way it went.
        self.notes: list[str] = []
        self._title, self._function, self._show = title, function, show_progress
        self._stop = False
        #: A person stopped it, and knows.
        self.told = False
        self._began, self._ended = time.monotonic(), 0.0
        self._running = event_loop.start(self._drive)

    def _tick(self, rows: int) -> None:
        if self._stop:
            raise Cancelled("it was stopped before the end")
        self.at += rows

    async def _drive(self) -> None:
        at_work = asyncio.ensure_future(event_loop.apart(self._function, self._tick))
        try:
            await asyncio.shield(at_work)
        except asyncio.CancelledError:
            self._stop = True
            await event_loop.to_the_end(asyncio.wait({at_work}))
            at_work.result()  # where it came to its end all the same, that is a result
        finally:
            self._ended = time.monotonic()

    @property
    def done(self) -> bool:
        return self._running.future.done()

    @property
    def seconds(self) -> float:
        return (self._ended or time.monotonic()) - self._began

    def cancel(self) -> None:
        self._stop = True
        self._running.cancel()

    def wait(self, timeout: float | None) -> bool:
        began = time.monotonic()
        while not event_loop.settle(self._running.future, event_loop.SLICE):
            if timeout is not None and time.monotonic() - began >= timeout:
                return False
        return True

    def result(self) -> None:
        bar = self._bar() if self._show and self.total and not self.done else None
        try:
            event_loop.wait(self._running.future, None if bar is None else lambda: _drawn(bar, self.at))
        except KeyboardInterrupt:
            self.cancel()
            self.told = True
            event_loop.settle(self._running.future, 0.8)
            print("llmkit: stopped; the index is as it was before", file=sys.stderr)  # noqa: T201 - said to a person at a keyboard
            raise
        finally:
            if bar is not None:
                _drawn(bar, self.at)
                bar.close()

    async def awaited(self) -> None:
        try:
            await event_loop.wait_in(self._running.future)
        except asyncio.CancelledError:
            self.cancel()
            raise

    def _bar(self) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tqdm.auto warns in a notebook without ipywidgets
            from tqdm.auto import tqdm

        return tqdm(total=self.total, desc=self._title, unit="row", mininterval=0.1)


def _drawn(bar: Any, at: int) -> None:
    bar.update(at - bar.n)
