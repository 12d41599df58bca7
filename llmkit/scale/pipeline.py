"""``Pipeline``: rows that a loop appends, or files, through one step or several, into part files."""

from __future__ import annotations

import hashlib
import inspect
import os
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any

import orjson

from ..errors import BadInput, ConfigError
from ..frames.arguments import Cache, OnError
from ..frames.pandas_accessor import FrameAccessor
from ..run import Run
from ..session import Session
from .sources import Opened, Source, json_lines, source_of
from .stream import Step, begun, rows_of_a_chunk

__all__ = ["Pipeline"]

#: Bytes of appended rows that stay in memory; the rest waits in a temporary file without a name.
_IN_MEMORY = 1 << 23

#: What is said of all steps at once, by ``run``.
_OF_THE_RUN = {"limit", "cache", "on_error", "max_cost", "dry_run", "show_progress", "wait", "join", "explode", "batch"}


def _step(operation: str) -> Callable[..., Any]:
    """The method of ``df.llm`` as a step: its own signature without what ``run`` says, and ``into``."""
    method = getattr(FrameAccessor, operation)
    parameters = [one for name, one in inspect.signature(method).parameters.items() if name not in _OF_THE_RUN]
    if operation == "chat":
        # Without one, each row's own messages are sent.
        parameters = [one.replace(default=None) if one.name == "prompt" else one for one in parameters]
    into = inspect.Parameter("into", inspect.Parameter.KEYWORD_ONLY, default=None, annotation="str | None")
    signature = inspect.Signature([*parameters, into])

    @wraps(method)
    def step(self: Pipeline, *given: Any, **options: Any) -> Pipeline:
        said = dict(signature.bind(self, *given, **options).arguments)
        del said["self"]
        into = said.pop("into", None)
        return self._then(Step(operation, {name: value for name, value in said.items() if value is not None}, into))

    step.__signature__ = signature  # type: ignore[attr-defined]
    step.__qualname__ = f"Pipeline.{operation}"
    step.__doc__ = (
        f"Then ``{operation}`` every row; the answer becomes the column ``into``. All else as ``DataFrame.llm.{operation}``:"
        f"\n\n        {method.__doc__}"
    )
    return step


class Pipeline:
    """Rows through one step or several, into part files: larger than memory, and on again from wherever it was stopped.

    A chunk goes on to the next step while the ones behind it are in the step before. A row that failed in one step is missing in those
    after it and not sent there; its reason is kept.

    Parameters
    ----------
    out : str or Path
        The directory of the parts, as in ``stream_file``.
    source : str, Path or list of them, optional
        Files to read, as in ``stream_file``; without them the rows are those that are appended.
    model : str, optional
        That appended prompts and messages go to where no step is named.
    keep, chunk_rows, parts, kind, dtypes, encoding, session
        As in ``stream_file``.

    Examples
    --------
    >>> import llmkit, tempfile
    >>> pipeline = llmkit.Pipeline(tempfile.mkdtemp())
    >>> for name in ("parcel", "letter"):
    ...     pipeline.append({"name": name})
    >>> _ = pipeline.chat("Describe a {name}", into="said", model="echo/echo").embed("said", into="vector", model="local/lexical")
    >>> pipeline.run(show_progress=False).read()["said"].tolist()
    ['[echo, not a model] Describe a parcel', '[echo, not a model] Describe a letter']
    """

    def __init__(
        self,
        out: str | os.PathLike[str],
        source: Any = None,
        *,
        model: Any = None,
        keep: Sequence[str] | None = None,
        chunk_rows: int | None = None,
        parts: str = "parquet",
        kind: str | None = None,
        dtypes: Mapping[str, str] | None = None,
        encoding: str = "utf-8",
        session: Session | None = None,
    ) -> None:
        self.out = os.fspath(out)
        self._source = source
        self._model = model
        self._how: dict[str, Any] = {"keep": keep, "parts": parts, "session": session}
        self._reading: dict[str, Any] = {"dtypes": dtypes, "encoding": encoding, "kind": kind}
        self._chunk_rows = chunk_rows
        self._steps: list[Step] = []
        self._rows = 0
        self._columns: frozenset[str] = frozenset()
        self._appended: Any = None
        self._digest = hashlib.blake2b(digest_size=16)
        self._run: Run[Any] | None = None

    chat = _step("chat")
    classify = _step("classify")
    embed = _step("embed")
    extract = _step("extract")
    transcribe = _step("transcribe")

    def _then(self, step: Step) -> Pipeline:
        self._steps.append(step)
        return self

    def append(self, row: str | Sequence[Mapping[str, Any]] | Mapping[str, Any] | None = None, **columns: Any) -> None:
        """Add a row: a prompt, a list of messages, or a mapping of columns to cells (or these as keywords).

        Prompts and messages are sent as they are where no step says otherwise.

        Raises
        ------
        BadInput
            It is none of these, or has a column that the first one has not.
        """
        if self._source is not None:
            raise BadInput("this pipeline reads files; rows are appended to one without source=")
        if self._run is not None and not self._run.done:
            raise ConfigError("the pipeline is running; append what is to come to another one")
        cells = _cells(row, columns)
        if self._appended is None:
            self._appended = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - as long as the pipeline
            weakref.finalize(self, self._appended.close)
            self._columns = frozenset(cells)
        more = next((name for name in cells if name not in self._columns), None)
        if more is not None:
            raise BadInput(f"this row has a column {more!r}, and the first has none of that name")
        try:
            line = orjson.dumps(cells, default=str, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)
        except TypeError as error:
            raise BadInput(f"this row cannot be written down: {error}") from None
        self._appended.seek(0, os.SEEK_END)
        self._appended.write(line)
        self._digest.update(line)
        self._rows += 1

    def run(
        self,
        *,
        limit: int | None = None,
        cache: Cache = "use",
        on_error: OnError = "keep",
        max_cost: float | None = None,
        dry_run: bool = False,
        show_progress: bool = True,
        wait: bool = True,
    ) -> Any:
        """Send all rows through all steps.

        Parameters
        ----------
        limit, cache, on_error, max_cost, dry_run, show_progress, wait
            As in ``stream_file``. Without a step appended prompts and messages go to ``chat``.

        Returns
        -------
        FileResult, or with ``wait=False`` a ``Run``
        """
        steps = [step.cached(cache) for step in self._steps or [self._usual()]]
        rows = rows_of_a_chunk(steps, self._chunk_rows)
        found = begun(
            steps, self._opened(rows), self.out, chunk_rows=rows, limit=limit, cache=cache, on_error=on_error, max_cost=max_cost,
            dry_run=dry_run, show_progress=show_progress, wait=wait, **self._how,
        )  # fmt: skip
        if isinstance(found, Run):
            self._run = found
        return found

    def _usual(self) -> Step:
        said = {} if self._model is None else {"model": self._model}
        if self._source is None and "prompt" in self._columns:
            said["prompt"] = "{prompt}"
        return Step("chat", said)

    def _opened(self, rows: int) -> Source:
        if self._source is not None:
            return source_of(self._source, rows, **self._reading)
        if not self._rows:
            raise BadInput("the pipeline has no rows: append some, or say source=")
        size = self._appended.seek(0, os.SEEK_END)
        lent: Any = lambda: _Lent(self._appended)  # noqa: E731 - a file to the reader
        return json_lines(Opened("appended rows", size, self._digest.hexdigest(), lent), rows)

    def __len__(self) -> int:
        """Rows that were appended."""
        return self._rows

    def __repr__(self) -> str:
        what = f"{self._rows:,} rows" if self._source is None else str(self._source)
        return f"<Pipeline of {what} through {' > '.join(step.label for step in self._steps) or 'chat'} to {self.out}>"


def _cells(row: Any, columns: dict[str, Any]) -> dict[str, Any]:
    if isinstance(row, str):
        columns = {"prompt": row, **columns}
    elif isinstance(row, Mapping):
        columns = {**row, **columns}
    elif isinstance(row, list | tuple) and row and all(isinstance(one, Mapping) for one in row):
        columns = {"messages": list(row), **columns}
    elif row is not None:
        raise BadInput(f"a row is a prompt, a list of messages or a mapping of columns to cells, not {type(row).__name__}")
    if not columns or not all(isinstance(name, str) for name in columns):
        raise BadInput("a row has at least one column, and columns have names")
    return columns


class _Lent:
    """The appended rows as a file to read, which whoever reads it may close: they are read again by the next run."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.seek, self.readline = file.seek, file.readline

    def close(self) -> None:
        self._file.seek(0, os.SEEK_END)
