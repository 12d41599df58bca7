"""Approximate indexes of other libraries, all used alike: told vectors with their places, they name candidates for a query.

What they name is measured once more against the vectors themselves, so that a score is exact and only the choice of candidates is not.
"""

from __future__ import annotations

import warnings
from math import sqrt
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import MissingExtra
from .exact import Places
from .packing import Floats

__all__ = ["LARGE", "FaissLookup", "LanceLookup", "Lookup", "faiss_is_there", "loaded_faiss", "required"]

#: Vectors from which lists (IVF) take the place of a graph (HNSW), whose links and vectors must be in memory while it is built.
LARGE = 1_000_000

#: Links of a vector in the graph, and how widely is looked for them.
_LINKS, _LOOKED_AT = 16, 64

#: How widely a query looks around in the graph, and in how many lists it looks, at the least.
_WIDTH, _LISTS = 128, 64

#: Vectors a list that its centre is learned from.
_LEARNED_FROM = 64


class Lookup(Protocol):
    """An approximate index under way."""

    method: str

    @property
    def wants(self) -> int:
        """Vectors to learn from before the first is added."""

    def __len__(self) -> int:
        """Vectors that it was told, those that were given up included."""

    def learn(self, sample: Floats) -> None:
        """See what vectors are like, before the first is added."""

    def add(self, rows: Floats, places: Places) -> None:
        """Take in vectors of length one."""

    def give_up(self, since: int) -> bool:
        """Forget what was added since there were so many; whether it is still of use."""

    def candidates(self, queries: Floats, most: int) -> Places:
        """For each query, of length one, the places of at least ``most`` vectors that may be near; -1 fills up."""

    def write(self, folder: Path, name: str) -> dict[str, Any]:
        """Bring it to the disk; what there is to know of it."""

    def use(self, folder: Path, said: dict[str, Any]) -> None:
        """Go on from what was written, and let go of what is in memory."""


def faiss_is_there() -> bool:
    from importlib.util import find_spec

    return find_spec("faiss") is not None


def required(kind: str) -> None:
    """Import what an index of this kind needs.

    Raises
    ------
    MissingExtra
        It is not installed.
    """
    if kind == "lance":
        _lancedb()
    elif kind in ("faiss", "hnsw", "ivf"):
        _faiss()


def _lancedb() -> Any:
    try:
        import lancedb
    except ImportError:
        raise MissingExtra("an index of this kind needs the package lancedb: pip install 'llmkit[lance]'") from None
    return lancedb


def _faiss() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of SWIG's, at import
            import faiss
    except ImportError:
        raise MissingExtra("an approximate index needs the package faiss-cpu: pip install 'llmkit[ann]'") from None
    return faiss


class FaissLookup:
    """Faiss's graph (HNSW) or lists (IVF), over vectors of two bytes a number, or of one.

    Parameters
    ----------
    method : {"hnsw", "ivf"}
    dimensions : int
    expected : int
        Vectors that are about to come: lists are as many as suits them.
    small : bool
        One byte a number.
    """

    def __init__(self, method: str, dimensions: int, expected: int, small: bool) -> None:
        faiss = _faiss()
        kind = faiss.ScalarQuantizer.QT_8bit if small else faiss.ScalarQuantizer.QT_fp16
        self.method = method
        if method == "hnsw":
            self._index = faiss.IndexHNSWSQ(dimensions, kind, _LINKS, faiss.METRIC_INNER_PRODUCT)
            self._index.hnsw.efConstruction = _LOOKED_AT
        else:
            lists = max(1, min(int(4 * sqrt(expected)), expected // 39))
            self._centres = faiss.IndexFlatIP(dimensions)
            self._index = faiss.IndexIVFScalarQuantizer(self._centres, dimensions, lists, kind, faiss.METRIC_INNER_PRODUCT)
            self._index.cp.niter, self._index.cp.max_points_per_centroid = 10, _LEARNED_FROM
        #: Of each entry; -1 for one that was given up.
        self._places = np.empty(0, dtype=np.int64)
        self._dead = 0
        #: The file that it is mapped from, or, once it grows, was.
        self._file: Path | None = None
        self._is_mapped = False

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def wants(self) -> int:
        """Vectors to learn from."""
        return int(self._index.nlist) * _LEARNED_FROM if self.method == "ivf" else 65_536

    def learn(self, sample: Floats) -> None:
        if not self._index.is_trained:
            self._index.train(sample)

    def add(self, rows: Floats, places: Places) -> None:
        if self._is_mapped:
            # What is mapped cannot grow; faiss ends the whole process over the attempt.
            self._index, self._is_mapped = _faiss().read_index(str(self._file)), False
        self._index.add(np.ascontiguousarray(rows))
        self._places = np.concatenate([self._places, places.astype(np.int64)])

    def give_up(self, since: int) -> bool:
        self._places = self._places[:since]
        if self._file is not None:
            self._map(self._file)
            return True
        self._places = np.concatenate([self._places, np.full(len(self) - since, -1, dtype=np.int64)])
        self._dead = int((self._places < 0).sum())
        # A graph forgets nothing: dead entries are passed over, and there may not be too many of them.
        return 2 * self._dead < len(self)

    def candidates(self, queries: Floats, most: int) -> Places:
        faiss = _faiss()
        alive = len(self) - self._dead
        many = min(3 * most + 16, alive)
        if not many:
            return np.full((len(queries), 0), -1, dtype=np.intp)
        only = {}
        if self._dead:
            bits = np.packbits(self._places >= 0, bitorder="little")  # named: faiss reads it while it searches
            only["sel"] = faiss.IDSelectorBitmap(len(self._places), faiss.swig_ptr(bits))
        if self.method == "hnsw":
            how = faiss.SearchParametersHNSW(efSearch=max(_WIDTH, many) * len(self) // alive, **only)
        else:
            how = faiss.SearchParametersIVF(nprobe=min(self._index.nlist, max(_LISTS, self._index.nlist // 32)), **only)
        _, found = self._index.search(np.ascontiguousarray(queries), many, params=how)
        return np.where(found >= 0, self._places[found], -1).astype(np.intp)

    def write(self, folder: Path, name: str) -> dict[str, Any]:
        faiss = _faiss()
        file = folder / f"{name}.faiss"
        faiss.write_index(self._index, str(file))
        self._places.tofile(folder / f"{name}.places")
        return {"method": self.method, "files": [f"{name}.faiss", f"{name}.places"]}

    def use(self, folder: Path, said: dict[str, Any]) -> None:
        self._map(folder / said["files"][0])

    def _map(self, file: Path) -> None:
        faiss = _faiss()
        self._index = faiss.read_index(str(file), getattr(faiss, "IO_FLAG_MMAP_IFC", 0))
        self._file, self._is_mapped = file, True


def loaded_faiss(folder: Path, said: dict[str, Any]) -> FaissLookup:
    """One that was written, mapped into memory."""
    found = FaissLookup.__new__(FaissLookup)
    found.method = said["method"]
    found.use(folder, said)
    found._places = np.fromfile(folder / said["files"][1], dtype=np.int64)
    found._dead = int((found._places < 0).sum())
    return found


class LanceLookup:
    """A LanceDB table on disk: place and vector of each row, and an index of its own once there are enough.

    Parameters
    ----------
    folder : path
        Where the table lies.
    dimensions : int
    small : bool
        Two bytes a number instead of four.
    said : mapping, optional
        What ``write`` said of one that is there.
    """

    method = "lance"

    #: Rows from which LanceDB builds an index; it compares with all before.
    _INDEXED_FROM = 100_000
    _NAME = "vectors"
    wants = 0

    def __init__(self, folder: Path, dimensions: int, small: bool, said: dict[str, Any] | None = None) -> None:
        import pyarrow as pa

        lancedb = _lancedb()

        self._kind = pa.list_(pa.float16() if small else pa.float32(), dimensions)
        self.folder = folder
        base = lancedb.connect(str(folder))
        if said is None:
            schema = pa.schema([("place", pa.int64()), ("vector", self._kind)])
            self._table = base.create_table(self._NAME, schema=schema, mode="overwrite")
            self._count, self._versions = 0, {0: self._table.version}
        else:
            self._table = base.open_table(self._NAME)
            self._count, self._versions = said["rows"], {said["rows"]: said["version"]}
            if self._table.version != said["version"]:  # somebody added, and was stopped before he said so
                self._table.checkout(said["version"])
        self._stale = said is not None

    def __len__(self) -> int:
        return self._count

    def learn(self, sample: Floats) -> None:
        return None

    def add(self, rows: Floats, places: Places) -> None:
        import pyarrow as pa

        if self._stale:
            self._table.checkout_latest()
            if self._table.version != self._versions[self._count]:
                self._table.restore(self._versions[self._count])
            self._stale = False
        flat = pa.array(rows.ravel().astype(np.float16 if pa.types.is_float16(self._kind.value_type) else np.float32))
        vectors = pa.FixedSizeListArray.from_arrays(flat, type=self._kind)
        self._table.add(pa.table({"place": pa.array(places.astype(np.int64)), "vector": vectors}))
        self._count += len(rows)

    def give_up(self, since: int) -> bool:
        self._table.restore(self._versions[since])
        self._count, self._versions = since, {since: self._table.version}
        return True

    def candidates(self, queries: Floats, most: int) -> Places:
        many = 3 * most + 16
        found = np.full((len(queries), many), -1, dtype=np.intp)
        for number, query in enumerate(queries):
            near = self._table.search(query, vector_column_name="vector").distance_type("cosine").limit(many).nprobes(64)
            places = near.refine_factor(2).select(["place", "_distance"]).to_arrow()["place"].to_numpy()
            found[number, : len(places)] = places
        return found

    def write(self, folder: Path, name: str) -> dict[str, Any]:
        if self._count >= self._INDEXED_FROM:
            if self._table.list_indices():
                self._table.optimize()
            else:
                self._table.create_index(metric="cosine", vector_column_name="vector", index_type="IVF_PQ")
        self._versions = {self._count: self._table.version}
        return {"method": "lance", "rows": self._count, "version": self._table.version, "folder": self.folder.name, "files": []}

    def use(self, folder: Path, said: dict[str, Any]) -> None:
        return None
