"""``df.llm`` and ``series.llm``: a thin layer that reads arguments, picks an operation and hands back columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..errors import BadInput, ConfigError
from ..operations.chat import CHAT
from ..operations.embed import EMBED
from ..operations.rerank import MOST_DOCUMENTS, RERANK
from ..run import Run
from ..session import Session, default
from ..types import Operation, Policy, Task
from . import arguments as checked
from .arguments import Cache, OnError
from .columns import ColumnShape, DetailShape, FrameTable, matrix_of, one_column
from .ranking import Ranked, best_rows, normalised, scored

__all__ = ["FrameAccessor", "SeriesAccessor", "register"]


class _Accessor:
    """What frames and series share."""

    def __init__(self, session: Session | None = None) -> None:
        self._own_session = session

    @property
    def _session(self) -> Session:
        return self._own_session or default()

    def _run(
        self,
        operation: Operation,
        table: FrameTable,
        tasks: Callable[..., Iterator[Task]],
        arguments: Mapping[str, Any],
        shape: Any,
        *,
        model: Any,
        fallback: Any,
        policy: Policy,
        dry_run: bool,
        show_progress: bool,
        wait: bool,
    ) -> Any:
        session = self._session
        tasks(table, **arguments)  # arguments are checked here; nothing is drawn yet
        if operation is EMBED:
            shape.dimensions = arguments["options"].get("dimensions")
        if not len(table):
            return _nothing(operation, shape, wait, session, policy, dry_run)
        note = ""
        if model is None:
            model, note = session.chosen(operation.name)
        route = session.route(model, operation.name, fallback)
        if operation is RERANK:
            arguments = {**arguments, "at_once": None if route[0].provider.name == "local" else MOST_DOCUMENTS}
        if operation is EMBED:
            shape.dimensions = shape.dimensions or route[0].model.dimensions
        plan = session.plan(operation, len(table), lambda: tasks(table, **arguments), route, policy)
        if dry_run:
            return session.estimate(plan)
        try:
            run = session.start(plan, shape, show_progress=show_progress, note=note)
            return run.result() if wait else run
        except KeyboardInterrupt:
            session.stop(plan)  # also where it fell between the two
            raise


def _nothing(operation: Operation, shape: Any, wait: bool, session: Session, policy: Policy, dry_run: bool) -> Any:
    """The result of a call on no rows: right in shape and dtype, and nobody is asked, so no model is needed either."""
    plan = session.plan(operation, 0, lambda: iter(()), (), Policy())
    if dry_run:
        from ..types import Estimate

        return Estimate("none", 0, 0, 0, 0, 0, 0, 0, 0.0, 0.0, "there are no rows")
    run: Run[Any] = Run(
        id=plan.run_id,
        operation=operation.name,
        targets=("nobody",),
        prices=(),
        outcomes=plan.outcomes,
        shape=shape,
        show_progress=False,
    )

    async def work() -> None:
        return None

    run.begin(work)
    return run.result() if wait else run


class FrameAccessor(_Accessor):
    """Language models on the rows of a frame.

    Every method asks once per row, keeps what was paid for, and hands back something aligned to the frame: failed rows are missing, and
    ``llmkit.last().errors()`` says why.
    """

    def __init__(self, frame: pd.DataFrame, session: Session | None = None) -> None:
        super().__init__(session)
        self._frame = frame

    def __dir__(self) -> list[str]:
        return ["chat", "classify", "embed", "rerank", "search", "using"]

    def using(self, session: Session) -> FrameAccessor:
        """The same methods with a session of your own instead of the shared one."""
        return FrameAccessor(self._frame, session)

    def chat(
        self,
        prompt: str,
        *,
        on: Any = None,
        model: Any = None,
        fallback: Any = None,
        system: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        seed: int | None = None,
        limit: int | None = None,
        cache: Cache = "use",
        on_error: OnError = "keep",
        max_cost: float | None = None,
        dry_run: bool = False,
        detail: bool = False,
        show_progress: bool = True,
        wait: bool = True,
        timeout: float = 180.0,
        max_attempts: int = 5,
        max_concurrency: int = 64,
    ) -> Any:
        """Ask a chat model once per row.

        A row becomes one prompt: ``prompt`` with every ``{column}`` replaced by the row's cell. Only bare column names are replaced; other
        braces, such as JSON, stay; ``{{column}}`` gives literal braces. With ``on`` the prompt is an instruction instead, and the named
        columns are sent beside it as delimited, labelled data, which lowers the risk that a cell is obeyed and cannot rule it out.

        Parameters
        ----------
        prompt : str
            Template, or instruction with ``on``.
        on : column or list of columns, optional
            Columns to send as data.
        model : str or list of str, optional
            ``"provider/model"``, a canonical name, or a list of them: the next serves what the one before could not. By default what
            ``llmkit.use`` set, else the best that can be had; the summary line says which.
        fallback : str or list of str, optional
            Appended to ``model``.
        system : str, optional
            A system message, the same for all rows.
        temperature, max_tokens, seed : optional
            As the provider documents them; ``max_tokens`` bounds the answer.
        limit : int, optional
            Only the first so many rows; the rest is missing. The full run then pays only for the rest.
        cache : {"use", "refresh", "off"}
            Take stored answers, ask anew, or neither read nor write.
        on_error : {"keep", "raise"}
            Failed rows are missing, or the call raises once everything that was paid is kept.
        max_cost : float, optional
            US dollars; nothing is sent that could pass it.
        dry_run : bool
            Send nothing and return an ``Estimate``.
        detail : bool
            Return a frame: value, error, model, provider, source, finish, attempts, seconds, input_tokens, output_tokens, cost.
        show_progress : bool
            Draw a tqdm bar.
        wait : bool
            ``False`` returns a ``Run`` at once.
        timeout : float
            Seconds for one attempt, sending and reading together.
        max_attempts : int
            Tries per row and model at errors that may pass. Rate limits cost time, not attempts.
        max_concurrency : int
            Most requests in flight; fewer are while the provider says so.

        Returns
        -------
        Series
            One text per row, string dtype, on the frame's own index. Rows with a missing cell in a named column are missing and were not
            sent; rows that failed are missing too, see ``llmkit.last().errors()``.

        Raises
        ------
        ConfigError
            Before anything is sent: unknown column or model, missing key, a prompt that names no column.
        AccessError, Unreachable
            The account or the host is refused for all rows. What is finished is kept, and the same call sends only the rest.

        Examples
        --------
        >>> import pandas as pd, llmkit
        >>> df = pd.DataFrame({"text": ["first", None]})
        >>> said = df.llm.chat("Say {text}", model="echo/echo", show_progress=False)
        >>> said[0], said.isna().tolist()
        ('[echo, not a model] Say first', [False, True])
        """
        table = FrameTable(self._frame, checked.limit(limit))
        policy = checked.policy(cache, on_error, max_cost, timeout, max_attempts, max_concurrency)
        if system is not None and not isinstance(system, str):
            raise ConfigError(f"system is a text, the same for all rows, not {type(system).__name__}")
        columns = None if on is None else checked.columns(on)
        if columns is not None:
            table.check(columns)
        arguments = {
            "prompt": prompt,
            "on": columns,
            "system": system,
            "options": checked.options(temperature=temperature, max_tokens=max_tokens, seed=seed),
        }
        if columns is None:
            from ..operations.chat import Template

            table.check(Template(prompt, table.columns).columns)
        shape = (DetailShape if detail else ColumnShape)(self._frame.index, "text", "chat")
        return self._run(
            CHAT, table, CHAT.tasks, arguments, shape,
            model=model, fallback=fallback, policy=policy, dry_run=dry_run, show_progress=show_progress, wait=wait,
        )  # fmt: skip

    def embed(
        self,
        on: Any,
        *,
        model: Any = None,
        fallback: Any = None,
        dimensions: int | None = None,
        limit: int | None = None,
        cache: Cache = "use",
        on_error: OnError = "keep",
        max_cost: float | None = None,
        dry_run: bool = False,
        detail: bool = False,
        show_progress: bool = True,
        wait: bool = True,
        timeout: float = 180.0,
        max_attempts: int = 5,
        max_concurrency: int = 64,
    ) -> Any:
        """Embed a column: one text per row becomes one vector.

        Parameters
        ----------
        on : column
            The column to embed. Missing and empty texts are missing in the result and not sent.
        model : str, optional
            E.g. ``"openai/text-embedding-3-small"``, or ``"local/lexical"`` (no key, no network).
        dimensions : int, optional
            Ask for shorter vectors, where the model can.
        fallback, limit, cache, on_error, max_cost, dry_run, detail, show_progress, wait, timeout, max_attempts, max_concurrency
            As in ``chat``.

        Returns
        -------
        Series
            One float32 vector of shape (dimensions,) per row, dtype ``ArrowDtype(list_(float32, dimensions))``, on the frame's own index.
            ``series.llm.matrix()`` is the (n, dimensions) array behind it. Rows that failed are missing; see ``llmkit.last().errors()``.
            A Parquet file with such a column is read with ``pd.read_parquet(path, dtype_backend="pyarrow")`` (pandas-dev/pandas#59738).

        Raises
        ------
        ConfigError
            Before anything is sent: unknown column or model, missing key.

        Examples
        --------
        >>> import pandas as pd, llmkit
        >>> df = pd.DataFrame({"text": ["a parcel", "a letter"]})
        >>> df.llm.embed("text", model="local/lexical", dimensions=64, show_progress=False).llm.matrix().shape
        (2, 64)
        """
        table = FrameTable(self._frame, checked.limit(limit))
        policy = checked.policy(cache, on_error, max_cost, timeout, max_attempts, max_concurrency)
        table.check([on])
        arguments = {"on": on, "options": checked.options(dimensions=dimensions)}
        shape = (_RememberingDetail if detail else _Remembering)(self._frame.index, "vector", "embedding")
        shape.session = self._session
        return self._run(
            EMBED, table, EMBED.tasks, arguments, shape,
            model=model, fallback=fallback, policy=policy, dry_run=dry_run, show_progress=show_progress, wait=wait,
        )  # fmt: skip

    def rerank(
        self,
        query: str,
        *,
        on: Any,
        top_k: int | None = None,
        model: Any = None,
        fallback: Any = None,
        limit: int | None = None,
        cache: Cache = "use",
        on_error: OnError = "keep",
        max_cost: float | None = None,
        dry_run: bool = False,
        show_progress: bool = False,
        wait: bool = True,
        timeout: float = 180.0,
        max_attempts: int = 5,
        max_concurrency: int = 64,
    ) -> Any:
        """Order the rows by how well a column answers a query.

        Parameters
        ----------
        query : str
            What is looked for.
        on : column
            The texts to compare with it; equal ones are sent once, missing and empty ones not at all.
        top_k : int, optional
            Only so many rows; all by default.
        model : str, optional
            E.g. a reranker served at ``/rerank`` by vLLM or infinity, or ``"local/bm25"`` (no key, no network).
        fallback, limit, cache, on_error, max_cost, dry_run, show_progress, wait, timeout, max_attempts, max_concurrency
            As in ``chat``.

        Returns
        -------
        DataFrame
            The frame's rows, best first, with their index and a float column ``score`` (one of that name is replaced). Rows without a
            score stand last.

        Raises
        ------
        ConfigError
            Before anything is sent: unknown column or model, missing key, an empty query.

        Examples
        --------
        >>> import pandas as pd, llmkit
        >>> df = pd.DataFrame({"text": ["a red apple", "battery problems again", "new battery"]})
        >>> df.llm.rerank("battery problems", on="text", top_k=1, model="local/bm25")["text"].tolist()
        ['battery problems again']
        """
        policy = checked.policy(cache, on_error, max_cost, timeout, max_attempts, max_concurrency)
        top_k = checked.rows("top_k", top_k, 1)
        texts = one_column(self._frame, on).iloc[: checked.limit(limit)]
        FrameTable(texts.to_frame(on)).check([on])
        codes, different = _factorized(texts)
        table = FrameTable(pd.DataFrame({on: different}))
        shape = Ranked(self._frame, codes, top_k)
        return self._run(
            RERANK, table, RERANK.tasks, {"query": query, "on": on}, shape,
            model=model, fallback=fallback, policy=policy, dry_run=dry_run, show_progress=show_progress, wait=wait,
        )  # fmt: skip

    def search(self, query: str, *, on: Any, top_k: int = 5, model: Any = None, cache: Cache = "use") -> pd.DataFrame:
        """Find the rows whose vectors are nearest to a query.

        Exact: the query is embedded and compared with every row by cosine.

        Parameters
        ----------
        query : str
            What is looked for.
        on : column
            A column of vectors, as ``embed`` makes it.
        top_k : int
            Rows to return.
        model : str, optional
            The model that made the vectors. By default the one that made vectors of this length in this session, which must not
            be several; else the session's embedding model.
        cache : {"use", "refresh", "off"}
            As in ``chat``, for the query's own vector.

        Returns
        -------
        DataFrame
            The frame's rows, nearest first, with their index and a float column ``score``, the cosine from -1 to 1. Rows without a
            vector are left out.

        Raises
        ------
        ConfigError
            No such column, no vectors in it, or a model whose vectors have another length.

        Examples
        --------
        >>> import pandas as pd, llmkit
        >>> df = pd.DataFrame({"text": ["late parcel", "red apple"]})
        >>> df["vector"] = df.llm.embed("text", model="local/lexical", show_progress=False)
        >>> df.llm.search("where is my parcel", on="vector", top_k=1)["text"].tolist()
        ['late parcel']
        """
        if not isinstance(query, str) or not query.strip():
            raise BadInput("search needs a query: the first argument is empty")
        best = checked.rows("top_k", top_k, 1) or len(self._frame)
        column = one_column(self._frame, on)
        if not len(self._frame):
            return scored(self._frame, np.empty(0, dtype=np.intp), np.empty(0))
        matrix = matrix_of(column)
        model = model or self._session.embedded_with.get(matrix.shape[1])
        if isinstance(model, str) and _OR in model:
            raise BadInput(
                f"vectors of {matrix.shape[1]} numbers were made with {model} in this session: "
                f"name the model that made column {on!r} with model=..."
            )
        asked = pd.DataFrame({"query": [query]})
        vector = matrix_of(
            FrameAccessor(asked, self._own_session).embed(
                "query",
                model=model,
                dimensions=self._asked_dimensions(model, matrix.shape[1]),
                cache=cache,
                on_error="raise",
                show_progress=False,
            )
        )[0]
        if len(vector) != matrix.shape[1]:
            made_by = self._session.last_run.targets[0] if self._session.last_run else model
            raise BadInput(
                f"column {on!r} holds vectors of {matrix.shape[1]} numbers, and {made_by} makes {len(vector)}: "
                "name the model that made the column with model=..."
            )
        rows, scores = best_rows(matrix, vector, best)
        return scored(self._frame, rows, scores)

    def _asked_dimensions(self, model: Any, width: int) -> int | None:
        """Local lexical vectors and shortened ones are made at the length that the column has."""
        if not isinstance(model, str):
            return None
        target = self._session.target(model, "embed")
        usual = target.model.dimensions
        return width if usual is not None and usual != width else None

    def classify(
        self,
        on: Any,
        labels: Sequence[str] | Mapping[str, str],
        *,
        model: Any = None,
        limit: int | None = None,
        cache: Cache = "use",
        on_error: OnError = "keep",
        max_cost: float | None = None,
        detail: bool = False,
        show_progress: bool = True,
        timeout: float = 180.0,
        max_attempts: int = 5,
        max_concurrency: int = 64,
    ) -> Any:
        """Give each row the label whose description its text is nearest to, by embedding.

        Parameters
        ----------
        on : column
            The texts.
        labels : sequence of str, or mapping of label to description
            At least two. A description in the words of the texts helps, above all with ``"local/lexical"``.
        model : str, optional
            An embedding model.
        detail : bool
            Return a frame: value, score (the cosine to the label taken, from -1 to 1) and margin (to the next one).
        limit, cache, on_error, max_cost, show_progress, timeout, max_attempts, max_concurrency
            As in ``chat``.

        Returns
        -------
        Series
            One label per row, a category of the labels, on the frame's own index; missing where the text is missing or failed.

        Raises
        ------
        ConfigError
            Fewer than two labels, an unknown column or model, a missing key.

        Examples
        --------
        >>> import pandas as pd, llmkit
        >>> df = pd.DataFrame({"text": ["the invoice is wrong", "the parcel is late"]})
        >>> labels = {"billing": "invoice, payment, charge", "delivery": "parcel, shipping, late"}
        >>> df.llm.classify("text", labels, model="local/lexical", show_progress=False).tolist()
        ['billing', 'delivery']
        """
        described = checked.described(labels)
        checked.policy(cache, on_error, max_cost, timeout, max_attempts, max_concurrency)
        texts = one_column(self._frame, on).iloc[: checked.limit(limit)]
        FrameTable(texts.to_frame(on)).check([on])
        names = list(described)
        dtype = pd.CategoricalDtype(names)
        if texts.isna().all():  # nothing to compare the labels with: they are not sent either
            return self._unclassified(dtype, detail)
        if model is None:
            model, _ = self._session.chosen("embed")
        meanings = FrameAccessor(pd.DataFrame({"label": list(described.values())}), self._own_session).embed(
            "label", model=model, cache=cache, on_error="raise", show_progress=False, timeout=timeout
        )
        vectors = self.embed(
            on, model=model, limit=limit, cache=cache, on_error=on_error, max_cost=max_cost, show_progress=show_progress,
            timeout=timeout, max_attempts=max_attempts, max_concurrency=max_concurrency,
        )  # fmt: skip
        if vectors.isna().all():
            return self._unclassified(dtype, detail)
        cosines = normalised(matrix_of(vectors)) @ normalised(matrix_of(meanings)).T
        missing = vectors.isna().to_numpy()
        order = np.sort(np.where(missing[:, None], -np.inf, cosines), axis=1)
        taken = np.where(missing, -1, np.where(missing[:, None], -np.inf, cosines).argmax(axis=1))
        value = pd.Series(pd.Categorical.from_codes(taken, dtype=dtype), index=self._frame.index, name="classify")
        if not detail:
            return value
        score = np.where(missing, np.nan, order[:, -1])
        with np.errstate(invalid="ignore"):
            margin = np.where(missing, np.nan, order[:, -1] - order[:, -2])
        return pd.DataFrame({"value": value.array, "score": score, "margin": margin}, index=self._frame.index)

    def _unclassified(self, dtype: pd.CategoricalDtype, detail: bool) -> Any:
        length = len(self._frame)
        value = pd.Series(pd.Categorical.from_codes([-1] * length, dtype=dtype), index=self._frame.index, name="classify")
        nothing = np.full(length, np.nan)
        return pd.DataFrame({"value": value.array, "score": nothing, "margin": nothing}, index=value.index) if detail else value


class SeriesAccessor(_Accessor):
    """Language models on the values of a column; see ``DataFrame.llm`` for every option."""

    def __init__(self, series: pd.Series[Any], session: Session | None = None) -> None:
        super().__init__(session)
        self._series = series

    def __dir__(self) -> list[str]:
        return ["chat", "classify", "embed", "matrix", "rerank", "using"]

    def using(self, session: Session) -> SeriesAccessor:
        """The same methods with a session of your own instead of the shared one."""
        return SeriesAccessor(self._series, session)

    @property
    def _as_frame(self) -> tuple[FrameAccessor, Any]:
        name = "value" if self._series.name is None else self._series.name
        return FrameAccessor(self._series.to_frame(name), self._own_session), name

    def chat(
        self,
        prompt: str,
        *,
        model: Any = None,
        fallback: Any = None,
        system: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        seed: int | None = None,
        limit: int | None = None,
        cache: Cache = "use",
        on_error: OnError = "keep",
        max_cost: float | None = None,
        dry_run: bool = False,
        detail: bool = False,
        show_progress: bool = True,
        wait: bool = True,
        timeout: float = 180.0,
        max_attempts: int = 5,
        max_concurrency: int = 64,
    ) -> Any:
        """Ask a chat model once per value: ``prompt`` is the instruction, the value travels beside it as delimited data.

        Options, result and errors as ``DataFrame.llm.chat``.

        Examples
        --------
        >>> import pandas as pd, llmkit
        >>> words = pd.Series(["parcel"], name="word")
        >>> words.llm.chat("Say it", model="echo/echo", show_progress=False).tolist()
        ['[echo, not a model] <word> parcel </word>']
        """
        frame, name = self._as_frame
        return frame.chat(
            prompt, on=[name], model=model, fallback=fallback, system=system, temperature=temperature, max_tokens=max_tokens, seed=seed,
            limit=limit, cache=cache, on_error=on_error, max_cost=max_cost, dry_run=dry_run, detail=detail, show_progress=show_progress,
            wait=wait, timeout=timeout, max_attempts=max_attempts, max_concurrency=max_concurrency,
        )  # fmt: skip

    def embed(
        self,
        *,
        model: Any = None,
        fallback: Any = None,
        dimensions: int | None = None,
        limit: int | None = None,
        cache: Cache = "use",
        on_error: OnError = "keep",
        max_cost: float | None = None,
        dry_run: bool = False,
        detail: bool = False,
        show_progress: bool = True,
        wait: bool = True,
        timeout: float = 180.0,
        max_attempts: int = 5,
        max_concurrency: int = 64,
    ) -> Any:
        """Embed the values: one float32 vector each. Options, result and errors as ``DataFrame.llm.embed``.

        Examples
        --------
        >>> import pandas as pd, llmkit
        >>> str(pd.Series(["late parcel"]).llm.embed(model="local/lexical", dimensions=64, show_progress=False).dtype)
        'fixed_size_list<item: float>[64][pyarrow]'
        """
        frame, name = self._as_frame
        return frame.embed(
            name, model=model, fallback=fallback, dimensions=dimensions, limit=limit, cache=cache, on_error=on_error, max_cost=max_cost,
            dry_run=dry_run, detail=detail, show_progress=show_progress, wait=wait, timeout=timeout, max_attempts=max_attempts,
            max_concurrency=max_concurrency,
        )  # fmt: skip

    def rerank(
        self,
        query: str,
        *,
        top_k: int | None = None,
        model: Any = None,
        fallback: Any = None,
        limit: int | None = None,
        cache: Cache = "use",
        on_error: OnError = "keep",
        max_cost: float | None = None,
        dry_run: bool = False,
        show_progress: bool = False,
        wait: bool = True,
        timeout: float = 180.0,
        max_attempts: int = 5,
        max_concurrency: int = 64,
    ) -> Any:
        """Order the values by how well they answer a query: a frame of them, best first, with ``score``.

        Options and errors as ``DataFrame.llm.rerank``.

        Examples
        --------
        >>> import pandas as pd, llmkit
        >>> pd.Series(["red apple", "late parcel"], name="text").llm.rerank("parcel", model="local/bm25").index.tolist()
        [1, 0]
        """
        frame, name = self._as_frame
        return frame.rerank(
            query, on=name, top_k=top_k, model=model, fallback=fallback, limit=limit, cache=cache, on_error=on_error, max_cost=max_cost,
            dry_run=dry_run, show_progress=show_progress, wait=wait, timeout=timeout, max_attempts=max_attempts,
            max_concurrency=max_concurrency,
        )  # fmt: skip

    def classify(
        self,
        labels: Sequence[str] | Mapping[str, str],
        *,
        model: Any = None,
        limit: int | None = None,
        cache: Cache = "use",
        on_error: OnError = "keep",
        max_cost: float | None = None,
        detail: bool = False,
        show_progress: bool = True,
        timeout: float = 180.0,
        max_attempts: int = 5,
        max_concurrency: int = 64,
    ) -> Any:
        """Give each value the label it is nearest to, by embedding; as ``DataFrame.llm.classify``."""
        frame, name = self._as_frame
        return frame.classify(
            name, labels, model=model, limit=limit, cache=cache, on_error=on_error, max_cost=max_cost, detail=detail,
            show_progress=show_progress, timeout=timeout, max_attempts=max_attempts, max_concurrency=max_concurrency,
        )  # fmt: skip

    def matrix(self) -> npt.NDArray[np.float32]:
        """The vectors of this column as one (n, dimensions) float32 array.

        A view of the column's own memory where no row is missing (do not write to it); otherwise a copy with NaN in the missing rows.

        Raises
        ------
        BadInput
            The column does not hold vectors of one length.
        """
        return matrix_of(self._series)


_OR = " or "


class _Remembering(ColumnShape):
    """Notes which models made vectors of a length, so that ``search`` embeds its query the same way."""

    session: Session | None = None

    def result(self, run: Run[Any]) -> Any:
        matrix = run.outcomes.matrix
        if self.session is not None and matrix is not None:
            known = self.session.embedded_with.get(matrix.shape[1], "")
            served = {run.targets[target] for target in set(run.outcomes.target) if target >= 0}
            models = dict.fromkeys([*(known.split(_OR) if known else ()), *sorted(served)])
            self.session.embedded_with[matrix.shape[1]] = _OR.join(models)
        return super().result(run)


class _RememberingDetail(_Remembering, DetailShape):
    """The same, where the result is a detail frame."""


def _factorized(texts: pd.Series[Any]) -> tuple[npt.NDArray[np.intp], list[Any]]:
    """For each row the place of its text among the different ones; -1 where it is missing."""
    if pd.api.types.is_object_dtype(texts.dtype):
        texts = texts.map(lambda cell: cell if isinstance(cell, str) else _hashable(cell))
    codes, different = pd.factorize(texts)
    return codes, list(different)


def _hashable(cell: Any) -> Any:
    from .columns import as_text

    return as_text(cell)


def register() -> None:
    """Put ``llm`` on frames and series. Run again (a module reloaded in a notebook), it replaces what was there."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "overriding a preexisting attribute": by itself
        pd.api.extensions.register_dataframe_accessor("llm")(FrameAccessor)
        pd.api.extensions.register_series_accessor("llm")(SeriesAccessor)
