"""``df.llm``: a thin layer that reads arguments, picks an operation and hands back columns."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from ..errors import BadInput, ConfigError, InvalidRequest, Unsupported
from ..operations.chat import CHAT, CHAT_WITH_IMAGES
from ..operations.classify import CLASSIFY, classifier
from ..operations.embed import EMBED
from ..operations.embed_images import EMBED_IMAGES
from ..operations.files import FileRules
from ..operations.leads import leads_of
from ..operations.rerank import RERANK
from ..operations.speak import FORMATS, SPEAK, speak_into
from ..operations.template import Template
from ..operations.transcribe import TRANSCRIBE
from ..run import to_the_caller
from ..session import Session
from ..types import Operation, Policy
from ..vectors.packing import Dtype, dtype_of
from . import arguments as checked
from .arguments import Cache, OnError, Prefer, PromptCache
from .calling import Accessor, How
from .classifying import Nearest, Said, SaidInDetail
from .columns import ColumnShape, DetailShape, FrameTable, factorized, matrix_of, one_column
from .embedding import OR, Averaged, Remembering, RememberingDetail, asked_dimensions, split
from .examples import Showing, for_labels, for_texts
from .extract_accessor import Extracting
from .inferring import Inferring
from .ranking import MANY, Found, Ranked, scored
from .semantic_accessor import Semantic

__all__ = ["FrameAccessor"]

LongText = Literal["error", "truncate", "mean"]
InputType = Literal["document", "query"]
By = Literal["auto", "chat", "embedding", "classifier"]

#: Sessions in which it was said that a search would be quicker with an index: once is enough.
_TOLD: weakref.WeakSet[Session] = weakref.WeakSet()


class FrameAccessor(Extracting, Semantic, Inferring, Showing, Accessor):
    """Language models on the rows of a frame.

    Every method asks once per row, keeps what was paid for, and hands back something aligned to the frame: failed rows are missing, and
    ``llmkit.last().errors()`` says why.
    """

    def __init__(self, frame: pd.DataFrame, session: Session | None = None) -> None:
        super().__init__(session)
        self._frame = frame

    def __dir__(self) -> list[str]:
        return [
            "agg", "apply", "chat", "classify", "cluster", "dedup", "embed", "examples_from", "extract", "filter",
            "infer_schema", "join", "rerank", "search", "sim_join", "speak", "topk", "transcribe", "using",
        ]  # fmt: skip

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
        context_fallback: Any = None,
        content_fallback: Any = None,
        prefer: Prefer = "any",
        system: str | None = None,
        response_format: Any = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        seed: int | None = None,
        examples: Any = None,
        images: Any = None,
        roots: Any = None,
        max_file_mb: float = 20.0,
        tools: Any = None,
        tool_choice: str | None = None,
        run_tools: bool = False,
        max_rounds: int = 5,
        prompt_cache: PromptCache = "auto",
        limit: int | None = None,
        cache: Cache = "use",
        on_error: OnError = "keep",
        max_cost: float | None = None,
        dry_run: bool = False,
        detail: bool = False,
        show_progress: bool = True,
        wait: bool = True,
        batch: bool = False,
        timeout: float = 180.0,
        max_attempts: int = 5,
        max_concurrency: int = 64,
        cluster: Any = None,
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
        context_fallback, content_fallback : str or list of str, optional
            Asked only for rows that are too long for the models before, or that a filter refused there.
        prefer : {"any", "first"}
            With several models: a row that is told to slow down goes to another one that is free, or waits for the one it is at.
        system : str, optional
            A system message, the same for all rows.
        response_format : schema of a record, or "json", optional
            The answer is JSON of this form, as text, checked and asked for as ``df.llm.extract`` does it, which makes columns of it.
        temperature, max_tokens, seed : optional
            As the provider documents them; ``max_tokens`` bounds the answer. What a provider has no word for is refused before anything is
            sent.
        examples : list of (str, str), optional
            Pairs of what is asked and what should be said, shown to the model before each row.
        images : column, optional
            A picture a row, or a list of them: a path, bytes, a PIL image, a data URL, or an ``https://`` address of the open web, which is
            passed on to the provider and never visited from here. PNG, JPEG, GIF or WebP. Rows without one are missing.
        roots : folder or list of folders, optional
            Where paths may lie; by default the working directory.
        max_file_mb : float
            Megabytes that one file may have.
        tools : list of functions, pydantic models or JSON schemas, optional
            What the model may ask for. A function's annotations are its schema, its docstring's first paragraph its description. A row
            becomes the list of calls, ``{"name": ..., "arguments": {...}}``, or the model's text where it asks for none.
        tool_choice : {"auto", "required", "none"} or a tool's name, optional
        run_tools : bool
            Carry the calls out, in threads, tell the model what came, and return the text it then writes. What a function raises is told to
            the model too. Cells are data: let a model run on them only what does no harm. The text is stored like any answer, by the
            question and the functions' code: where they read a clock or a database, say ``cache="refresh"``.
        max_rounds : int
            Times that a row's calls are carried out, at the most.
        prompt_cache : {"auto", "off"}
            Make use of the vendor's own cache of prompts, where what the rows share is long enough: it is marked the vendor's way, one row
            goes ahead to write the cache, and rows that begin with the same long cell run together. Answers and their cost with stored
            answers are the same; ``docs/prompt-cache.md``.
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
        batch : bool
            ``True`` sends what is not stored as batch jobs of the provider's: usually for half the price, and within 24 hours. Returns a
            ``Run`` once they are submitted, since a night is too long for a cell: ``run.status()``, ``wait()``, ``result()``, ``cancel()``.
            The same call again, and ``llmkit.job(run.id)``, take the jobs up in any process. They go to the first model of a route;
            ``run.retry()`` asks the rows that got no answer live, along the whole of it. ``docs/batch.md``.
        timeout : float
            Seconds for one attempt, sending and reading together.
        max_attempts : int
            Tries per row and model at errors that may pass. Rate limits cost time, not attempts.
        max_concurrency : int
            Most requests in flight; fewer are while the provider says so.
        cluster : distributed.Client, optional
            A Dask cluster that asks for the rows, in chunks, each worker with its own key and all within one limit; needs the extra
            ``dask``. ``llmkit.on_cluster(df, client, out=...)`` says beside it where the parts are written. ``docs/cluster.md``.

        Returns
        -------
        Series
            One text per row, string dtype (lists of calls: object), on the frame's own index. Rows with a missing cell in a named column
            are missing and were not sent; rows that failed are missing too, see ``llmkit.last().errors()``.

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
        if cluster is not None:
            return self._on_cluster(cluster, "chat", locals())
        how = How(
            model,
            fallback,
            checked.policy(cache, on_error, max_cost, timeout, max_attempts, max_concurrency, prefer),
            dry_run,
            show_progress,
            wait,
            context_fallback,
            content_fallback,
            batch=checked.batch(batch, cache),
        )
        table = FrameTable(self._frame, checked.limit(limit))
        checked.text("system", system)
        columns = None if on is None else checked.columns(on)
        table.check(Template(prompt, table.columns).columns if columns is None else columns)
        operation = CHAT if images is None else CHAT_WITH_IMAGES
        arguments = {
            "prompt": prompt,
            "on": columns,
            "system": system,
            "examples": for_texts(examples, columns, Template(prompt, table.columns) if columns is None else None),
            "images": images,
            "files": self._files(images, roots, max_file_mb),
            "schema": checked.schema(response_format),
            "options": checked.options(temperature=temperature, max_tokens=max_tokens, seed=seed),
            "prompt_cache": checked.prompt_cache(prompt_cache),
        }
        if prompt_cache == "auto" and columns is None and images is None:
            arguments["leads"] = leads_of(table, Template(prompt, table.columns))
        if tools is not None:
            if batch:
                raise BadInput("a batch job has one round, and tools may take several: leave out batch=True, or tools=")
            from ..operations.tools import with_tools  # pydantic takes as long to import as all of llmkit

            rounds = checked.rounds(max_rounds) if run_tools else None
            asks, told = with_tools(tools, tool_choice, rounds)
            operation = replace(asks, draw=operation.draw, weigh=operation.weigh)
            arguments |= told
        elif run_tools or tool_choice is not None:
            raise BadInput("run_tools and tool_choice go with tools=[...]")
        elif arguments["schema"] is not None:
            from ..operations.extract import formed

            operation = formed(response_format, arguments["schema"], operation)
        shape = (DetailShape if detail else ColumnShape)(self._frame.index, operation.kind, "chat")
        return self._run(operation, table, arguments, shape, how)

    def _files(self, column: Any, roots: Any, max_file_mb: float) -> FileRules | None:
        """The rules for a column of files, tried on its first path: what no row may read is told before the first is paid."""
        if column is None:
            return None
        rules = FileRules.of(roots, checked.megabytes(max_file_mb))
        cells = one_column(self._frame, column).dropna()
        first = cells.iloc[0] if len(cells) else None
        first = first[0] if isinstance(first, list | tuple) and first else first
        if isinstance(first, str | Path) and "://" not in str(first)[:16] and not str(first).startswith("data:"):
            try:
                rules.check(Path(first))
            except InvalidRequest as error:
                raise BadInput(f"column {column!r}: {error.message}") from None
        return rules

    def embed(
        self,
        on: Any = None,
        *,
        images: Any = None,
        roots: Any = None,
        max_file_mb: float = 20.0,
        model: Any = None,
        fallback: Any = None,
        dimensions: int | None = None,
        dtype: Dtype = "float32",
        input_type: InputType | None = None,
        long_text: LongText = "error",
        overlap: float = 0.1,
        limit: int | None = None,
        cache: Cache = "use",
        on_error: OnError = "keep",
        max_cost: float | None = None,
        dry_run: bool = False,
        detail: bool = False,
        show_progress: bool = True,
        wait: bool = True,
        batch: bool = False,
        timeout: float = 180.0,
        max_attempts: int = 5,
        max_concurrency: int = 64,
        cluster: Any = None,
    ) -> Any:
        """Embed a column: one text per row becomes one vector.

        Parameters
        ----------
        on : column
            The column to embed. Missing and empty texts are missing in the result and not sent.
        images : column, optional
            Pictures, as in ``chat``, embedded with the text beside them or, without ``on``, alone; for models that see (Voyage's
            multimodal ones). Rows without one are missing.
        roots, max_file_mb
            As in ``chat``.
        model : str, optional
            E.g. ``"openai/text-embedding-3-small"``, or ``"local/lexical"`` (no key, no network).
        dimensions : int, optional
            Ask for shorter vectors, where the model can.
        dtype : {"float32", "float16", "int8"}
            How the column keeps its numbers: float16 in half the bytes, int8 in a quarter. int8 is a direction: each vector is stretched
            until its largest number is 127, and rounded; no scale is kept, so its length is lost, and ``matrix()`` hands back vectors of
            length one. Of the ten nearest of 100,000 clustered vectors of 384 numbers all stayed with float16 and 99.8 % with int8, and
            cosines moved by 0.00003 and 0.001 at the most. What is stored in the cache is float32 all the same.
        input_type : {"document", "query"}, optional
            What the texts are, for models that tell the two apart (Cohere, Voyage); documents by default. Others ignore it.
        long_text : {"error", "truncate", "mean"}
            A text longer than the model's window fails its row; is cut at the window; or is embedded in windows, whose vectors are averaged
            by length and brought to length one. Lengths are estimated from characters, on the safe side.
        overlap : float
            With "mean": the share of a window that the next one repeats.
        fallback, limit, cache, on_error, max_cost, dry_run, detail, show_progress, wait, batch, timeout, max_attempts, \
max_concurrency, cluster
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
        if cluster is not None:
            return self._on_cluster(cluster, "embed", locals())
        policy = checked.policy(cache, on_error, max_cost, timeout, max_attempts, max_concurrency)
        how = How(model, fallback, policy, dry_run, show_progress, wait, batch=checked.batch(batch, cache))
        table = FrameTable(self._frame, checked.limit(limit))
        if on is None and images is None:
            raise BadInput("no column is named: say which one to embed, e.g. embed('text')")
        table.check([] if on is None else [on])
        arguments = {"on": on, "options": checked.options(dimensions=dimensions) | checked.input_type(input_type)}
        checked.long_text(long_text, overlap)
        kept = dtype_of(dtype)
        shape: Any = (RememberingDetail if detail else Remembering)(self._frame.index, "vector", "embedding")
        if images is not None:
            if long_text != "error":
                raise BadInput("long_text is for texts alone; leave it out beside images")
            shape.session, shape.dimensions, shape.dtype = self._session, dimensions, kept
            return self._run(
                EMBED_IMAGES, table, {**arguments, "images": images, "files": self._files(images, roots, max_file_mb)}, shape, how
            )
        if long_text != "error" and len(table):
            route = self._session.route(model if model is not None else self._session.chosen("embed")[0], "embed", fallback)
            texts = one_column(self._frame, on).iloc[: len(table)]
            table, owners, weights = split(texts, route, long_text, overlap)
            arguments["on"] = "text"
            if long_text == "mean":
                if detail:
                    raise BadInput('detail=True tells of requests, and with long_text="mean" a row may be several; leave one of them out')
                shape = Averaged(self._frame.index, owners, weights)
        shape.session, shape.dimensions, shape.dtype = self._session, dimensions, kept
        return self._run(EMBED, table, arguments, shape, how)

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
        how = How(
            model, fallback, checked.policy(cache, on_error, max_cost, timeout, max_attempts, max_concurrency), dry_run, show_progress, wait
        )
        top_k = checked.rows("top_k", top_k, 1)
        texts = one_column(self._frame, on).iloc[: checked.limit(limit)]
        FrameTable(texts.to_frame(on)).check([on])
        codes, different = factorized(texts)
        table = FrameTable(pd.DataFrame({on: pd.Series(different, dtype=object)}))
        return self._run(RERANK, table, {"query": query, "on": on}, Ranked(self._frame, codes, top_k), how)

    def search(
        self,
        query: str,
        *,
        on: Any,
        top_k: int = 5,
        model: Any = None,
        cache: Cache = "use",
        dry_run: bool = False,
        wait: bool = True,
        timeout: float = 180.0,
    ) -> Any:
        """Find the rows whose vectors are nearest to a query.

        Exact: the query is embedded and compared with every row by cosine. For more than 300,000 rows, or many queries, ``llmkit.Index``
        is quicker.

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
        cache, dry_run, wait, timeout
            As in ``chat``, for the query's own vector. It is asked for as a query, where the model tells queries from documents.

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
        if isinstance(model, str) and OR in model:
            raise BadInput(
                f"vectors of {matrix.shape[1]} numbers were made with {model} in this session: "
                f"name the model that made column {on!r} with model=..."
            )
        how = How(model, None, Policy(cache=checked.cache(cache), on_error="raise", timeout=timeout), dry_run, False, wait)
        if len(matrix) > MANY and self._session not in _TOLD:
            _TOLD.add(self._session)
            said = f"search compares each query with all {len(matrix):,} rows; llmkit.Index(df, on={on!r}) finds them quicker"
            warnings.warn(f"llmkit: {said}", stacklevel=to_the_caller())
        options = checked.options(dimensions=asked_dimensions(self._session, model, matrix.shape[1])) | {"input_type": "query"}
        asked = FrameTable(pd.DataFrame({"query": pd.Series([query], dtype=object)}))
        return self._run(EMBED, asked, {"on": "query", "options": options}, Found(self._frame, on, matrix, best), how)

    def classify(
        self,
        on: Any,
        labels: Sequence[str] | Mapping[str, str],
        *,
        multi_label: bool = False,
        by: By = "auto",
        instructions: str | None = None,
        examples: Any = None,
        model: Any = None,
        fallback: Any = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        seed: int | None = None,
        prompt_cache: PromptCache = "auto",
        limit: int | None = None,
        cache: Cache = "use",
        on_error: OnError = "keep",
        max_cost: float | None = None,
        dry_run: bool = False,
        detail: bool = False,
        show_progress: bool = True,
        wait: bool = True,
        batch: bool = False,
        timeout: float = 180.0,
        max_attempts: int = 5,
        max_concurrency: int = 64,
        cluster: Any = None,
    ) -> Any:
        """Give each row one of several labels, or all that apply.

        A chat model is told the labels and may answer nothing else; an embedding model gives the label whose description is nearest to the
        text; a vendor's own classifier (Cohere's, for fine-tuned models) is asked as it is.

        Parameters
        ----------
        on : column
            The texts.
        labels : sequence of str, or mapping of label to description
            At least two. Descriptions help every method; for ``"local/lexical"`` use the words of the texts.
        multi_label : bool
            Any number of labels a row, none included; chat models only.
        by : {"auto", "chat", "embedding", "classifier"}
            How; by default what the model can do, chat first.
        instructions : str, optional
            Said to a chat model before the labels.
        examples : list of (str, str), optional
            Pairs of text and label, for a chat model or a classifier.
        model : str or list of str, optional
            By default the session's chat model, else its embedding model.
        detail : bool
            Return a frame as in ``chat``, with ``probability`` where the provider tells the likelihood of tokens (missing elsewhere); by
            embedding: value, score (the cosine to the label taken, from -1 to 1, no probability) and margin (to the next one).
        fallback, temperature, max_tokens, seed, prompt_cache, limit, cache, on_error, max_cost, dry_run, show_progress, wait, batch, \
timeout, max_attempts, max_concurrency, cluster
            As in ``chat``.

        Returns
        -------
        Series
            One label per row, a category of the labels (``multi_label``: a list of them, object dtype), on the frame's own index; missing
            where the text is missing or the row failed, also where a model twice answered with no label.

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
        if cluster is not None:
            return self._on_cluster(cluster, "classify", locals())
        described = checked.described(labels)
        policy = checked.policy(cache, on_error, max_cost, timeout, max_attempts, max_concurrency)
        how = How(model, fallback, policy, dry_run, show_progress, wait, batch=checked.batch(batch, cache))
        checked.text("instructions", instructions)
        checked.prompt_cache(prompt_cache)
        shown = for_labels(examples)
        wrong = [label for _, label in shown if label not in described]
        if wrong:
            raise BadInput(f"an example has the label {wrong[0]!r}, which is none of {list(described)}")
        texts = one_column(self._frame, on).iloc[: checked.limit(limit)]
        table = FrameTable(texts.to_frame(on))
        table.check([on])
        names, index = list(described), self._frame.index
        arguments = {"on": on, "options": checked.options(temperature=temperature, max_tokens=max_tokens, seed=seed)}
        chosen, how = self._way_to_classify(checked.by(by), how, bool(len(table)))
        if len(table):
            checked.heeded(chosen, multi_label=multi_label, instructions=instructions, examples=shown, options=arguments["options"])
        if chosen == "embedding":
            if fallback is not None or (isinstance(how.model, list) and len(how.model) > 1):
                raise BadInput("vectors of two models do not compare: to classify by embedding, name one model and no fallback")
            nearest = Nearest(index, names, detail)
            nearest.session = self._session
            if not dry_run and not texts.isna().all():  # with nothing to compare them with, the labels are not sent either
                meanings = FrameAccessor(pd.DataFrame({"label": list(described.values())}), self._own_session).embed(
                    "label", model=how.model, cache=cache, on_error="raise", max_cost=max_cost, show_progress=False, timeout=timeout,
                    max_attempts=max_attempts, max_concurrency=max_concurrency,
                )  # fmt: skip
                nearest.meanings = matrix_of(meanings)
            return self._run(EMBED, table, {"on": on, "options": {}}, nearest, how)
        shape = (SaidInDetail if detail else Said)(index, names, multi_label)
        if chosen == "classifier":
            return self._run(classifier(names), table, {**arguments, "labels": described, "examples": shown}, shape, how)
        asked = {**arguments, "labels": described, "multi_label": multi_label, "instructions": instructions, "examples": shown}
        return self._run(CLASSIFY, table, {**asked, "prompt_cache": prompt_cache}, shape, how)

    def _way_to_classify(self, by: By, how: How, rows: bool) -> tuple[By, How]:
        """How to classify with this model; where none is named, by the session's chat model if there is one."""
        session = self._session
        if by != "auto":
            return by, how
        if how.model is None:
            if not rows:
                return "chat", how
            try:
                return "chat", replace(how, model=session.chosen("chat")[0])
            except ConfigError:
                return "embedding", replace(how, model=session.chosen("embed")[0])
        first = how.model[0] if isinstance(how.model, list) and how.model else how.model
        try:
            for way, operation in (("classifier", "classify"), ("chat", "chat"), ("embedding", "embed")):
                if session.suits(first, operation):
                    return way, how  # type: ignore[return-value]
        except ConfigError:
            if rows:
                raise
            return "chat", how  # nobody is asked, so no key is needed
        raise Unsupported(f"{first} can neither chat nor embed, so it cannot classify")

    def transcribe(
        self,
        on: Any,
        *,
        model: Any = None,
        fallback: Any = None,
        language: str | None = None,
        prompt: str | None = None,
        temperature: float | None = None,
        roots: Any = None,
        max_file_mb: float = 25.0,
        limit: int | None = None,
        cache: Cache = "use",
        on_error: OnError = "keep",
        max_cost: float | None = None,
        dry_run: bool = False,
        detail: bool = False,
        show_progress: bool = True,
        wait: bool = True,
        timeout: float = 600.0,
        max_attempts: int = 5,
        max_concurrency: int = 16,
    ) -> Any:
        """Write down what is said in recordings: one a row, one text back.

        Parameters
        ----------
        on : column
            Paths, bytes or data URLs of WAV, MP3, FLAC, Ogg, MP4 or WebM recordings. Missing ones are not sent. File names are not sent.
        model : str, optional
            E.g. ``"openai/gpt-4o-mini-transcribe"`` or ``"groq/whisper-large-v3-turbo"``.
        language : str, optional
            ISO 639-1, e.g. ``"en"``; helps accuracy.
        prompt : str, optional
            Words that occur, names above all, the same for all rows.
        roots : folder or list of folders, optional
            Where paths may lie; by default the working directory.
        max_file_mb : float
            Megabytes that one recording may have; OpenAI takes 25.
        fallback, temperature, limit, cache, on_error, max_cost, dry_run, detail, show_progress, wait, timeout, max_attempts, \
max_concurrency
            As in ``chat``.

        Returns
        -------
        Series
            One text per row, string dtype, on the frame's own index; missing where the cell is, and where a row failed (no such file, no
            recording, refused), see ``llmkit.last().errors()``.

        Raises
        ------
        ConfigError
            Before anything is sent: unknown column or model, missing key, paths outside ``roots``.

        Examples
        --------
        >>> import pandas as pd, llmkit
        >>> df = pd.DataFrame({"audio": [None]})
        >>> df.llm.transcribe("audio", model="openai/whisper-1", limit=0, show_progress=False).isna().tolist()
        [True]
        """
        how = How(
            model, fallback, checked.policy(cache, on_error, max_cost, timeout, max_attempts, max_concurrency), dry_run, show_progress, wait
        )
        table = FrameTable(self._frame, checked.limit(limit))
        one_column(self._frame, on)
        said = {"language": checked.text("language", language), "prompt": checked.text("prompt", prompt)}
        options = checked.options(temperature=temperature) | {name: value for name, value in said.items() if value}
        shape = (DetailShape if detail else ColumnShape)(self._frame.index, "text", "transcript")
        files = self._files(on, roots, max_file_mb) if len(table) else None
        return self._run(TRANSCRIBE, table, {"on": on, "files": files, "options": options}, shape, how)

    def speak(
        self,
        on: Any,
        *,
        folder: Any = None,
        voice: str | None = None,
        format: Literal["mp3", "wav", "opus", "flac", "aac", "pcm"] = "mp3",
        instructions: str | None = None,
        speed: float | None = None,
        model: Any = None,
        fallback: Any = None,
        limit: int | None = None,
        cache: Cache = "use",
        on_error: OnError = "keep",
        max_cost: float | None = None,
        dry_run: bool = False,
        detail: bool = False,
        show_progress: bool = True,
        wait: bool = True,
        timeout: float = 600.0,
        max_attempts: int = 5,
        max_concurrency: int = 16,
    ) -> Any:
        """Have texts read aloud: one a row, one recording back.

        Parameters
        ----------
        on : column
            The texts. Missing and empty ones are not sent.
        folder : path, optional
            Where the recordings are written, one file for each different text; it is made if it is not there. Without it the cells hold
            bytes.
        voice : str, optional
            As the provider names it; by default the provider's usual one.
        format : {"mp3", "wav", "opus", "flac", "aac", "pcm"}
        instructions : str, optional
            How to read, for models that take it.
        speed : float, optional
            1.0 is usual.
        model : str, optional
            E.g. ``"openai/gpt-4o-mini-tts"``.
        fallback, limit, cache, on_error, max_cost, dry_run, detail, show_progress, wait, timeout, max_attempts, max_concurrency
            As in ``chat``.

        Returns
        -------
        Series
            One path per row, string dtype, or with no ``folder`` one bytes object, on the frame's own index; missing where the text is, and
            where a row failed, see ``llmkit.last().errors()``.

        Raises
        ------
        ConfigError
            Before anything is sent: unknown column or model, missing key, no voice where the provider has no usual one.

        Examples
        --------
        >>> import pandas as pd, llmkit
        >>> df = pd.DataFrame({"text": ["hello"]})
        >>> df.llm.speak("text", model="openai/tts-1", limit=0, show_progress=False).isna().tolist()
        [True]
        """
        how = How(
            model, fallback, checked.policy(cache, on_error, max_cost, timeout, max_attempts, max_concurrency), dry_run, show_progress, wait
        )
        table = FrameTable(self._frame, checked.limit(limit))
        table.check([on])
        if format not in FORMATS:
            raise BadInput(f"format is one of {', '.join(FORMATS)}, not {format!r}")
        said = {"voice": checked.text("voice", voice), "instructions": checked.text("instructions", instructions)}
        options = {name: value for name, value in said.items() if value} | checked.speed(speed) | {"format": format}
        operation = SPEAK
        if folder is not None:
            place = Path(folder).expanduser()
            try:
                if not dry_run:
                    place.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise BadInput(f"folder {str(place)!r} cannot be made ({error.strerror})") from None
            operation = speak_into(place, FORMATS[format])
        shape = (DetailShape if detail else ColumnShape)(self._frame.index, operation.kind, "speech")
        return self._run(operation, table, {"on": on, "options": options}, shape, how)

    def apply(
        self,
        operation: Operation,
        on: Any = None,
        *,
        arguments: Mapping[str, Any] | None = None,
        model: Any,
        fallback: Any = None,
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
        """Ask an operation of your own once per row; everything but the question is as in ``chat``.

        Parameters
        ----------
        operation : Operation
            Yours: what a row becomes, and what its answer means. CONTRIBUTING shows one in full.
        on : column or list of columns, optional
            Handed to the operation's ``tasks`` as ``on``.
        arguments : mapping, optional
            The other arguments of its ``tasks``.
        model, fallback, limit, cache, on_error, max_cost, dry_run, detail, show_progress, wait, timeout, max_attempts, max_concurrency
            As in ``chat``.

        Returns
        -------
        Series
            One value per row, of the dtype that the operation's ``kind`` says, on the frame's own index.

        Raises
        ------
        ConfigError
            Before anything is sent: an unknown column or model, a missing key, a wire format that the operation has no codec for.

        Examples
        --------
        >>> import pandas as pd, llmkit
        >>> from llmkit.operations.chat import CHAT
        >>> df = pd.DataFrame({"text": ["first"]})
        >>> df.llm.apply(CHAT, arguments={"prompt": "Say {text}"}, model="echo/echo", show_progress=False).tolist()
        ['[echo, not a model] Say first']
        """
        how = How(
            model, fallback, checked.policy(cache, on_error, max_cost, timeout, max_attempts, max_concurrency), dry_run, show_progress, wait
        )
        table = FrameTable(self._frame, checked.limit(limit))
        for column in [] if on is None else checked.columns(on):
            one_column(self._frame, column)
        asked = {**(arguments or {}), **({} if on is None else {"on": on})}
        shape = (DetailShape if detail else ColumnShape)(self._frame.index, operation.kind, operation.name)
        return self._run(operation, table, asked, shape, how)
