"""``df.llm.filter``, ``topk``, ``agg``, ``join``, ``dedup`` and ``cluster``: read arguments, and begin the work."""

from __future__ import annotations

import numbers
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from ..errors import BadInput, ConfigError
from ..operations.chat import CHAT
from ..operations.embed import EMBED
from . import arguments as checked
from .arguments import Cache, OnError, PromptCache
from .calling import Accessor, How
from .columns import one_column
from .procedure import Procedure

__all__ = ["Semantic"]


class Semantic(Accessor):
    """The part of ``df.llm`` that does with rows what SQL does with values: operators whose predicate is a sentence."""

    _frame: pd.DataFrame

    #: The series that the frame was made of, where the rows of one are to be handed back.
    _series: pd.Series[Any] | None = None

    @property
    def _subject(self) -> Any:
        return self._frame if self._series is None else self._series

    def filter(
        self,
        predicate: str,
        *,
        on: Any = None,
        missing: Literal["drop", "keep"] = "drop",
        model: Any = None,
        fallback: Any = None,
        system: str | None = None,
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
        timeout: float = 180.0,
        max_attempts: int = 5,
        max_concurrency: int = 64,
    ) -> Any:
        """Keep the rows for which a sentence is true.

        One request for each different row. The row's cells travel as delimited data beside the sentence, never in it.

        Parameters
        ----------
        predicate : str
            A claim about a row, with its columns in braces: ``"{text} complains about delivery"``. With ``on`` a claim without them.
        on : column or list of columns, optional
            The columns to send, where the predicate names none.
        missing : {"drop", "keep"}
            What becomes of rows without a verdict: those with nothing to ask, those that failed, those beyond ``limit``.
        detail : bool
            Return a frame of verdicts, a line for every row: ``value`` is true, false, or missing; the rest as in ``chat``.
        model, fallback, system, temperature, max_tokens, seed, prompt_cache, limit, cache, on_error, max_cost, dry_run, show_progress, \
wait, timeout, max_attempts, max_concurrency
            As in ``chat``.

        Returns
        -------
        DataFrame
            The rows for which it is true, with their columns, index and order. A row that failed was not judged: it counts as
            neither, a warning says how many there are, and ``llmkit.last().errors()`` why.

        Raises
        ------
        ConfigError
            Before anything is sent: an unknown column or model, a missing key, a predicate that names no column.

        Examples
        --------
        >>> import pandas as pd, llmkit
        >>> df = pd.DataFrame({"text": ["the parcel is late", None]})
        >>> df.llm.filter("{text} complains about delivery", model="echo/echo", detail=True, show_progress=False)["value"].tolist()
        [False, <NA>]
        """
        from ..operations.semantic import VERDICT, about_claim, asking  # pydantic takes as long to import as all of llmkit
        from .semantic_asking import Questions, Rows, claim_of
        from .semantic_filter import Kept, Verdicts

        how = self._how(model, fallback, cache, on_error, max_cost, dry_run, show_progress, wait, timeout, max_attempts, max_concurrency)
        if missing not in ("drop", "keep"):
            raise ConfigError(f'missing is "drop" or "keep", not {missing!r}')
        claim, columns, whole = claim_of(self._frame, predicate, on, "predicate")
        rows = Rows(self._frame, columns, checked.limit(limit), whole)
        options = checked.options(temperature=temperature, max_tokens=max_tokens, seed=seed)
        said = about_claim(claim, checked.text("system", system))
        operation, arguments = asking("filter", VERDICT, said, options, checked.prompt_cache(prompt_cache))
        shape = Verdicts(self._frame.index) if detail else Kept(self._subject, missing)
        return self._run(operation, Questions(len(rows), rows.data), arguments, shape, how)

    def topk(
        self,
        criterion: str,
        k: int,
        *,
        on: Any = None,
        method: Literal["auto", "quick", "tournament", "batched"] = "auto",
        at_once: int = 10,
        both_ways: bool = False,
        random_state: int = 0,
        model: Any = None,
        fallback: Any = None,
        system: str | None = None,
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
        timeout: float = 180.0,
        max_attempts: int = 5,
        max_concurrency: int = 64,
    ) -> Any:
        """Find the rows that meet a criterion best, by having a model compare them.

        Rows are compared, not given points: which of two texts is angrier is answered more reliably than how angry one is. Equal rows are
        compared once.

        Parameters
        ----------
        criterion : str
            What makes a row better, with its columns in braces: ``"{review} is the angrier one"``. With ``on`` a criterion without them.
        k : int
            Rows to return.
        on : column or list of columns, optional
            The columns to send, where the criterion names none.
        method : {"auto", "quick", "tournament", "batched"}
            ``"quick"`` (quick-select) compares all with one, again and again: about 2 n requests in few rounds. ``"tournament"`` lets pairs
            play: n - 1 requests for the first place, log n for each other, in more rounds. ``"batched"`` is a tournament of groups that
            are ordered in one request: the fewest requests, and a harder question. ``"auto"`` takes quick or tournament, whichever is
            expected to need fewer.
        at_once : int
            With "batched": rows in one request; fewer where the model's window does not hold them.
        both_ways : bool
            Ask each pair in both orders, and take no verdict from a model that contradicts itself: twice the requests. Else one order is
            drawn for each pair.
        random_state : int
            What the orders are drawn by. The same number asks the same, so that the answers are stored.
        detail : bool
            Return the comparisons: ``rows`` (positions in the frame) and ``best_first``, missing where there was no verdict.
        model, fallback, system, temperature, max_tokens, seed, prompt_cache, limit, cache, on_error, max_cost, dry_run, show_progress, \
wait, timeout, max_attempts, max_concurrency
            As in ``chat``. ``dry_run`` tells the expected number of requests: the real one depends on the answers.

        Returns
        -------
        DataFrame
            The best rows, best first, with their index and an integer column ``rank`` from 1 (one of that name is replaced). Fewer than
            ``k`` where there are no more. Rows with nothing to compare are not among them.

            A comparison that failed decides nothing: both rows stay in play and meet others. Two whose order is known in no other way
            either share a rank. A row for which everything failed is left out, with a warning.

        Raises
        ------
        ConfigError
            Before anything is sent: an unknown column or model, a missing key, a criterion that names no column.
        BudgetReached
            There is no first place before the last comparison; what was answered is kept.

        Examples
        --------
        >>> import pandas as pd, llmkit
        >>> df = pd.DataFrame({"text": ["fine", "late", "never again"]})
        >>> best = df.llm.topk("{text} is the angrier one", 1, model="echo/echo", show_progress=False)
        >>> list(best.columns), best["rank"].tolist()
        (['text', 'rank'], [1])
        """
        from .semantic_asking import Asker, Rows, claim_of
        from .semantic_best import Best, check_method

        how = self._how(model, fallback, cache, on_error, max_cost, dry_run, show_progress, wait, timeout, max_attempts, max_concurrency)
        count, size = _whole("k", k, 1), _whole("at_once", at_once, 2)
        check_method(method, both_ways)
        said, columns, whole = claim_of(self._frame, criterion, on, "criterion")
        rows = Rows(self._frame, columns, checked.limit(limit), whole)
        options = checked.options(temperature=temperature, max_tokens=max_tokens, seed=seed)
        work = Best(
            rows, self._subject, count, said, checked.text("system", system), method, size, both_ways,
            _whole("random_state", random_state, 0), options, checked.prompt_cache(prompt_cache), lambda: Asker(self, how, CHAT, options),
            detail,
        )  # fmt: skip
        return self._carried_out(work, how)

    def agg(
        self,
        instruction: str,
        *,
        on: Any = None,
        by: Any = None,
        chunk_tokens: int | None = None,
        model: Any = None,
        fallback: Any = None,
        system: str | None = None,
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
        timeout: float = 180.0,
        max_attempts: int = 5,
        max_concurrency: int = 64,
    ) -> Any:
        """Answer one question about all rows together, or about each group of them.

        Rows go to the model as many at a time as it reads at once; where that takes several requests, their answers are combined in the
        same way until one is left. A row that is longer than a request goes in pieces.

        Parameters
        ----------
        instruction : str
            What is asked, with the columns in braces: ``"What do customers complain about in {review}?"``. With ``on`` without them.
        on : column or list of columns, optional
            The columns to send, where the instruction names none.
        by : column or list of columns, optional
            One answer for each group of rows, as ``groupby`` makes them; rows with a missing cell there are in none.
        chunk_tokens : int, optional
            Tokens of rows in one request. By default what the catalogue says the model reads, less the answer and a fifth, at most
            100,000; 8,192 are assumed of a model that it does not know.
        max_tokens : int, optional
            Of each answer, those about parts included. One that is cut there is an error: it would leave rows out.
        detail : bool
            Return a frame with a line for each group: ``value``, ``rows``, ``requests``.
        model, fallback, system, temperature, seed, prompt_cache, limit, cache, on_error, max_cost, dry_run, show_progress, wait, timeout, \
max_attempts, max_concurrency
            As in ``chat``.

        Returns
        -------
        str, or with ``by`` a Series
            Of one text for each group, string dtype, with the groups as index. Where any part got no answer there is none for the whole
            (``None``, missing in the Series): an answer that silently left rows out would pass for a whole one. A warning says so, and
            ``llmkit.last().errors()`` why.

        Raises
        ------
        ConfigError
            Before anything is sent: an unknown column or model, a missing key, an instruction that names no column.

        Examples
        --------
        >>> import pandas as pd, llmkit
        >>> df = pd.DataFrame({"shop": ["a", "b", "a"], "text": ["late", "fine", "later"]})
        >>> df.llm.agg("What is said in {text}?", by="shop", model="echo/echo", show_progress=False)["b"]
        '[echo, not a model] <text> fine </text>'
        """
        from .semantic_agg import Aggregating
        from .semantic_asking import Asker, Rows, claim_of

        how = self._how(model, fallback, cache, on_error, max_cost, dry_run, show_progress, wait, timeout, max_attempts, max_concurrency)
        said, columns, whole = claim_of(self._frame, instruction, on, "instruction")
        rows = Rows(self._frame, columns, checked.limit(limit), whole)
        options = checked.options(temperature=temperature, max_tokens=max_tokens, seed=seed)
        codes, groups = self._groups(by, len(rows))
        work = Aggregating(
            rows, self._frame.index, codes, groups, said, checked.text("system", system), options, checked.prompt_cache(prompt_cache),
            None if chunk_tokens is None else _whole("chunk_tokens", chunk_tokens, 64), lambda: Asker(self, how, CHAT, options), detail,
        )  # fmt: skip
        return self._carried_out(work, how)

    def join(
        self,
        other: pd.DataFrame,
        on: str,
        *,
        how: Literal["inner", "left"] = "inner",
        candidates: int | Literal["all"] = 10,
        suffixes: tuple[str, str] = ("_x", "_y"),
        model: Any = None,
        fallback: Any = None,
        embed_model: Any = None,
        system: str | None = None,
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
        timeout: float = 180.0,
        max_attempts: int = 5,
        max_concurrency: int = 64,
    ) -> Any:
        """Join two frames on a sentence that is true of their rows.

        Both sides are embedded, and only the nearest rows of ``other`` are judged for each row of the frame; a pair that vectors hold for
        unlike is not found, whatever the model would have said of it.

        Parameters
        ----------
        other : DataFrame
            The right side.
        on : str
            A claim about a row of each side: ``"{left:title} is the product of {right:name}"``.
        how : {"inner", "left"}
            Only rows that found another, or all rows of the left side.
        candidates : int or "all"
            Rows of ``other`` that are judged for each row of the frame, the nearest by cosine. ``"all"`` judges all pairs, n times m, and
            needs no vectors.
        suffixes : (str, str)
            For columns that both sides have, as ``merge``.
        model, embed_model : optional
            Of the verdicts, and of the vectors; by default what ``llmkit.use`` set.
        limit : int, optional
            Only the first so many rows of the left side are judged.
        detail : bool
            Return the pairs that were judged: ``left`` and ``right`` (index labels), ``score`` (cosine), ``value`` (true, false or
            missing).
        fallback, system, temperature, max_tokens, seed, prompt_cache, cache, on_error, max_cost, dry_run, show_progress, wait, timeout, \
max_attempts, max_concurrency
            As in ``chat``; ``max_cost`` is for vectors and verdicts together.

        Returns
        -------
        DataFrame
            A row for each pair for which the claim is true, in the order of the left side, then of the right; columns of both, a new
            index, as ``merge``. A pair without a verdict is not joined; a warning says how many there are, ``llmkit.last().errors()`` why.

        Raises
        ------
        ConfigError
            Before anything is sent: an unknown column or model, a missing key, a claim without a column of each side.

        Examples
        --------
        >>> import pandas as pd, llmkit
        >>> ads, products = pd.DataFrame({"title": ["red bike"]}), pd.DataFrame({"name": ["bicycle", "kettle"]})
        >>> claim = "{left:title} offers {right:name}"
        >>> pairs = ads.llm.join(products, claim, candidates=1, model="echo/echo", embed_model="local/lexical", detail=True,
        ...                      show_progress=False)
        >>> pairs[["left", "right", "value"]].values.tolist()
        [[0, 0, False]]
        """
        from .semantic_asking import Asker, Rows
        from .semantic_join import Joining, sides_of

        asked = self._how(model, fallback, cache, on_error, max_cost, dry_run, show_progress, wait, timeout, max_attempts, max_concurrency)
        if not isinstance(other, pd.DataFrame):
            raise BadInput(f"join takes another DataFrame, not {type(other).__name__}; a Series becomes one with .to_frame()")
        if how not in ("inner", "left"):
            raise ConfigError(f'how is "inner" or "left", not {how!r}')
        most = None if candidates == "all" else _whole("candidates", candidates, 1)
        claim, mine, others = sides_of(on, self._frame, other)
        rows = Rows(self._frame, mine, checked.limit(limit), True, [f"left_{name}" for name in mine])
        beside = Rows(other, others, None, True, [f"right_{name}" for name in others])
        self._frame.iloc[:0].merge(other.iloc[:0], left_index=True, right_index=True, suffixes=suffixes)  # names that clash are told now
        options = checked.options(temperature=temperature, max_tokens=max_tokens, seed=seed)
        work = Joining(
            self._frame, other, rows, beside, claim, checked.text("system", system), how, most, suffixes, options,
            checked.prompt_cache(prompt_cache), lambda: Asker(self, asked, CHAT, options), self._embedder(embed_model, asked), detail,
        )  # fmt: skip
        return self._carried_out(work, asked)

    def sim_join(
        self,
        other: pd.DataFrame,
        *,
        on: Any = None,
        left_on: Any = None,
        right_on: Any = None,
        k: int = 1,
        threshold: float | None = None,
        how: Literal["inner", "left"] = "inner",
        suffixes: tuple[str, str] = ("_x", "_y"),
        model: Any = None,
        limit: int | None = None,
        cache: Cache = "use",
        on_error: OnError = "keep",
        max_cost: float | None = None,
        dry_run: bool = False,
        show_progress: bool = True,
        wait: bool = True,
        timeout: float = 180.0,
        max_attempts: int = 5,
        max_concurrency: int = 64,
    ) -> Any:
        """Join each row with the rows of another frame that are nearest to it.

        By cosine, and nothing else: no chat model is asked, as ``join`` does. Up to 100,000 x 100,000 rows all pairs are compared; above,
        faiss names the candidates where it is installed (``pip install 'llmkit[ann]'``), and these are compared exactly.

        Parameters
        ----------
        other : DataFrame
            The right side.
        on : column
            Texts or vectors, named so on both sides; both columns are kept, with ``suffixes``. Texts are embedded, equal ones once; beside
            a column of vectors by the model that made it.
        left_on, right_on : column
            Instead of ``on``, where the sides name it differently.
        k : int
            Rows of ``other`` for each row of the frame, at the most.
        threshold : float, optional
            The least cosine, from -1 to 1.
        how : {"inner", "left"}
            Only rows that found another, or all rows of the left side.
        suffixes : (str, str)
            For columns that both sides have, as ``merge``; a column named ``score`` that one of them has gets its side's, too.
        model : str, optional
            That makes vectors of the texts; by default the one that made those of the other side, else what ``llmkit.use`` set.
        limit : int, optional
            Only the first so many rows of the left side are looked at.
        cache, on_error, max_cost, dry_run, show_progress, wait, timeout, max_attempts, max_concurrency
            As in ``chat``, for vectors of texts.

        Returns
        -------
        DataFrame
            A row for each pair, in the order of the left side, then the nearest first (the earlier of equally near ones); columns of both,
            a float column ``score``, and a new index, as ``merge``. Rows without a text or vector have no neighbours.

        Raises
        ------
        ConfigError
            Before anything is sent: an unknown column or model, a missing key, vectors that do not compare.

        Examples
        --------
        >>> import pandas as pd, llmkit
        >>> asked = pd.DataFrame({"question": ["where is my parcel", "is the apple red"]})
        >>> known = pd.DataFrame({"answer": ["red apple", "late parcel"]})
        >>> near = asked.llm.sim_join(known, left_on="question", right_on="answer", model="local/lexical", show_progress=False)
        >>> near["answer"].tolist()
        ['late parcel', 'red apple']
        """
        from .semantic_asking import Asker
        from .sim_join import Near, Side

        asked = self._how(model, None, cache, on_error, max_cost, dry_run, show_progress, wait, timeout, max_attempts, max_concurrency)
        if not isinstance(other, pd.DataFrame):
            raise BadInput(f"sim_join takes another DataFrame, not {type(other).__name__}; a Series becomes one with .to_frame()")
        if how not in ("inner", "left"):
            raise ConfigError(f'how is "inner" or "left", not {how!r}')
        if isinstance(model, list) and len(model) != 1:
            raise BadInput("vectors of two models do not compare: name one model")
        if (on is None) == (left_on is None) or (left_on is None) != (right_on is None):
            raise BadInput("sim_join takes either on=, or left_on= and right_on=")
        left_on, right_on = (left_on, right_on) if on is None else (on, on)
        least = None if threshold is None else _number("threshold", threshold, -1.0, 1.0)
        left, right = Side(self._frame, left_on, "left", checked.limit(limit)), Side(other, right_on, "right")
        self._frame.iloc[:0].merge(other.iloc[:0], left_index=True, right_index=True, suffixes=suffixes)  # names that clash are told now

        def embedder(known: Any) -> Asker:
            return Asker(self, replace(asked, model=model if model is not None else known), EMBED, {})

        work = Near(left, right, how, _whole("k", k, 1), least, suffixes, embedder, self._session.embedded_with.get)
        return self._carried_out(work, asked)

    def dedup(
        self,
        on: Any,
        *,
        threshold: float = 0.9,
        keep: Literal["first", "last"] = "first",
        confirm: Any = None,
        same: str | None = None,
        margin: float = 0.05,
        most_pairs: int = 1_000,
        embed_model: Any = None,
        system: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        seed: int | None = None,
        prompt_cache: PromptCache = "auto",
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
        """Keep one row of each group of near-duplicates.

        Rows whose vectors have a cosine of at least ``threshold`` are one, and so are all that are linked by such pairs: where a is like
        b and b like c, one of the three is kept.

        Parameters
        ----------
        on : column or list of columns
            What is compared.
        threshold : float
            Cosine, from -1 to 1. What a number means depends on the embedding model: look at a few pairs (``detail=True``) first.
        keep : {"first", "last"}
            Which row of a group.
        confirm : model, optional
            A chat model that is asked about pairs whose cosine is within ``margin`` of the threshold; for two groups of rows that surely
            are one only the nearest pair is asked about. Below that no two are one, above it they are.
        same : str, optional
            What is to be confirmed of ``<first>`` and ``<second>``, e.g. ``"<first> and <second> name the same company"``. By default that
            they are the same thing in other words.
        most_pairs : int
            Pairs that are asked about at the most, nearest to the threshold first; the others are decided by it.
        embed_model : str, optional
            By default what ``llmkit.use`` set, e.g. ``"local/lexical"`` (no key, no network).
        detail : bool
            Return a frame with a line for each row: ``group`` (from 0; missing where the row has no vector) and ``kept``.
        system, temperature, max_tokens, seed, prompt_cache
            As in ``chat``, for ``confirm``.
        cache, on_error, max_cost, dry_run, show_progress, wait, timeout, max_attempts, max_concurrency
            As in ``chat``; ``max_cost`` is for vectors and verdicts together.

        Returns
        -------
        DataFrame
            The rows that are kept, with their columns, index and order. Rows with nothing to compare, or that got no vector, are kept;
            so are both rows of a pair that got no verdict.

        Raises
        ------
        ConfigError
            Before anything is sent: an unknown column or model, a missing key.

        Examples
        --------
        >>> import pandas as pd, llmkit
        >>> df = pd.DataFrame({"name": ["ACME Incorporated", "Acme incorporated.", "Globex"]})
        >>> df.llm.dedup("name", threshold=0.8, embed_model="local/lexical", show_progress=False)["name"].tolist()
        ['ACME Incorporated', 'Globex']
        """
        from .semantic_asking import Asker, Rows
        from .semantic_dedup import Deduplicating

        how = self._how(confirm, None, cache, on_error, max_cost, dry_run, show_progress, wait, timeout, max_attempts, max_concurrency)
        least = _number("threshold", threshold, -1, 1)
        near = _number("margin", margin, 0, 1)
        if keep not in ("first", "last"):
            raise ConfigError(f'keep is "first" or "last", not {keep!r}')
        if confirm is None and (same is not None or system is not None):
            raise BadInput("same and system are for the chat model that confirm names; name one, or leave them out")
        options = checked.options(temperature=temperature, max_tokens=max_tokens, seed=seed)
        work = Deduplicating(
            Rows(self._frame, checked.columns(on), None, False), self._subject, least, near, keep, checked.text("same", same),
            checked.text("system", system), _whole("most_pairs", most_pairs, 0), options, checked.prompt_cache(prompt_cache),
            lambda: None if confirm is None else Asker(self, how, CHAT, options), self._embedder(embed_model, how), detail,
        )  # fmt: skip
        return self._carried_out(work, how)

    def cluster(
        self,
        on: Any,
        n: int | None = None,
        *,
        instructions: str | None = None,
        examples: int = 10,
        random_state: int = 0,
        model: Any = None,
        fallback: Any = None,
        embed_model: Any = None,
        system: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        seed: int | None = None,
        prompt_cache: PromptCache = "auto",
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
        """Sort the rows into groups of like ones, and have each group named.

        The rows are embedded and grouped by k-means (k-means++, the best of four starts, fitted to at most 20,000 different rows); a chat
        model names each group from its most typical rows, one request a group.

        Parameters
        ----------
        on : column or list of columns
            What is compared.
        n : int, optional
            Groups. By default the number from 2 to 12 whose silhouette is best, on a sample of at most 1,000 different rows.
        instructions : str, optional
            What to name the groups for, e.g. ``"Groups of complaints; name what is wrong"``.
        examples : int
            Rows that a group is named by, those nearest to its centre.
        random_state : int
            The same number gives the same groups.
        model, embed_model : optional
            Of the names, and of the vectors; by default what ``llmkit.use`` set.
        detail : bool
            Return a frame: ``cluster`` (from 0, the largest first), ``name``, ``description``, ``distance`` to the group's centre, of
            vectors of length one.
        fallback, system, temperature, max_tokens, seed, prompt_cache, cache, on_error, max_cost, dry_run, show_progress, wait, timeout, \
max_attempts, max_concurrency
            As in ``chat``; ``max_cost`` is for vectors and names together.

        Returns
        -------
        Series
            The name of each row's group, a category, on the frame's own index; missing where there is nothing to compare, where a row got
            no vector, and where a group got no name.

        Raises
        ------
        ConfigError
            Before anything is sent: an unknown column or model, a missing key.

        Examples
        --------
        >>> import pandas as pd, llmkit
        >>> df = pd.DataFrame({"text": ["late parcel", "parcel is late", "wrong invoice", "the invoice is wrong"]})
        >>> found = df.llm.cluster("text", 2, model="echo/echo", embed_model="local/lexical", detail=True, show_progress=False)
        >>> found["cluster"].nunique(), bool(found["cluster"][0] == found["cluster"][1])
        (2, True)
        """
        from .semantic_asking import Asker, Rows
        from .semantic_cluster import Clustering

        how = self._how(model, fallback, cache, on_error, max_cost, dry_run, show_progress, wait, timeout, max_attempts, max_concurrency)
        options = checked.options(temperature=temperature, max_tokens=max_tokens, seed=seed)
        work = Clustering(
            Rows(self._frame, checked.columns(on), None, False), self._frame.index, None if n is None else _whole("n", n, 1),
            _whole("examples", examples, 1), checked.text("instructions", instructions), checked.text("system", system),
            _whole("random_state", random_state, 0), options, checked.prompt_cache(prompt_cache), lambda: Asker(self, how, CHAT, options),
            self._embedder(embed_model, how), detail,
        )  # fmt: skip
        return self._carried_out(work, how)

    # ---------------------------------------------------------------------------------------------------------------- beneath

    @staticmethod
    def _how(
        model: Any, fallback: Any, cache: Cache, on_error: OnError, max_cost: float | None, dry_run: bool, show_progress: bool, wait: bool,
        timeout: float, max_attempts: int, max_concurrency: int,
    ) -> How:  # fmt: skip
        policy = checked.policy(cache, on_error, max_cost, timeout, max_attempts, max_concurrency)
        return How(model, fallback, policy, dry_run, show_progress, wait)

    def _embedder(self, model: Any, how: How) -> Callable[[], Any]:
        from .semantic_asking import Asker

        if isinstance(model, list) and len(model) != 1:
            raise BadInput("vectors of two models do not compare: name one embed_model")
        return lambda: Asker(self, replace(how, model=model, fallback=None), EMBED, {})

    def _groups(self, by: Any, rows: int) -> tuple[Any, pd.Index[Any] | None]:
        """The group of each row, -1 for none, and what the groups are called."""
        if by is None:
            return np.zeros(rows, dtype=np.intp), None
        names = checked.columns(by)
        for name in names:
            one_column(self._frame, name)
        if not rows:
            return np.empty(0, dtype=np.intp), self._frame.iloc[:0].groupby(by, observed=True).size().index
        grouping = self._frame.iloc[:rows].groupby(by, sort=True, observed=True, dropna=True)
        codes = grouping.ngroup()
        return codes.where(codes.notna(), -1).to_numpy(dtype=np.intp), grouping.size().index

    def _carried_out(self, work: Any, how: How) -> Any:
        """The estimate, the run, or what the run comes to."""
        if how.dry_run:
            return work.estimate()
        procedure: Procedure[Any] = Procedure(
            self._session,
            work.name,
            work.targets or ["nobody"],
            work.steps,
            work.expected,
            max_cost=how.policy.max_cost,
            on_error=how.policy.on_error,
            show_progress=how.show_progress and bool(work.targets),
            note=f" ({work.said})",
        )
        return procedure.start().finish(how.wait)


def _whole(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise ConfigError(f"{name} is a whole number of at least {least}, not {value!r}")
    return int(value)


def _number(name: str, value: Any, least: float, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not least <= float(value) <= most:
        raise ConfigError(f"{name} is a number from {least} to {most}, not {value!r}")
    return float(value)
