"""``df.llm.extract``: reads arguments, and hands back typed columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from ..adapter import to_json
from ..errors import BadInput
from ..operations.leads import leads_of
from ..operations.template import Template
from . import arguments as checked
from .arguments import Cache, OnError, Prefer, PromptCache
from .calling import Accessor, How
from .columns import FrameTable

if TYPE_CHECKING:
    from .extracting import Merged

__all__ = ["Extracting"]

LongText = Literal["error", "split"]


class Extracting(Accessor):
    """The part of ``df.llm`` that makes columns of text."""

    _frame: pd.DataFrame

    def extract(
        self,
        schema: Any,
        *,
        on: Any = None,
        prompt: str | None = None,
        instructions: str | None = None,
        model: Any = None,
        fallback: Any = None,
        context_fallback: Any = None,
        content_fallback: Any = None,
        prefer: Prefer = "any",
        mode: str = "auto",
        system: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        more_tokens: int | None = None,
        max_reask: int = 1,
        seed: int | None = None,
        examples: Any = None,
        evidence: bool = False,
        votes: int = 1,
        check: Any = None,
        prefix: str = "",
        join: bool = False,
        explode: bool = False,
        long_text: LongText = "error",
        overlap: float = 0.1,
        window_tokens: int | None = None,
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
        """Turn each row's text into the fields of a schema, checked and typed.

        A row becomes one request: what to do as instructions, the row's cells as delimited, labelled data, and the schema in the way the
        vendor holds its model to one. What comes back is read (a fence, prose around it and small damage are no fault) and validated by
        pydantic, your validators included; where it is not valid, the row is asked again with what was wrong.

        Parameters
        ----------
        schema
            What is looked for. A record: a pydantic model, a dataclass, a ``TypedDict``, a JSON schema, or a mapping of names to types,
            ``{"stars": int, "tone": (Literal["good", "bad"], "of the whole text")}``. Any number of records: ``list[Model]``. One value:
            ``Literal[...]``, an ``Enum``, ``bool``, ``int``, ``list[str]``. Descriptions and docstrings are told to the model. Make a field
            optional where a text may not say it, so that the answer can be null instead of a guess.
        on : column or list of columns, optional
            Columns to send as data. Needed unless ``prompt`` is a template that names some.
        prompt : str, optional
            With ``on`` what to do with the data, instead of the usual instructions; without it a template as in ``chat``.
        instructions : str, optional
            Said after the usual instructions.
        model, fallback, context_fallback, content_fallback, prefer, system, temperature, max_tokens, seed
            As in ``chat``.
        examples : list of (text, answer), or DataFrame, optional
            Rows whose answer is known, shown to the model before every row: pairs of a text (or a dict of column to text) and a dict, an
            instance of the model or a value; a frame with the columns that are read and those that come of them; or what ``examples_from``
            makes of labelled rows. Each is checked against the schema before anything is sent.
        mode : str
            How the schema is asked for: ``"auto"`` is the best that the model is known for, and steps down with one warning where a server
            refuses it or does not heed it. Else ``"json_schema"``, ``"tools"``, ``"json_object"`` or ``"words"``, or instructor's names.
        more_tokens : int, optional
            An answer that was cut at ``max_tokens`` is asked for once more with so many; by default its row fails.
        max_reask : int
            Times that a row is asked again after an answer that is not valid. Every round is billed, and in the row's cost.
        evidence : bool
            Ask for a short quote beside each value, and look it up in the row's own cells: columns ``<field>_evidence`` hold column, text,
            start and stop of the place; a quote that is not there is missing. Of nested fields the top one is quoted.
        votes : int
            Samples a row. Each field is what most of them say (of equally many the earliest), and ``<field>_agreement`` the share that says
            so. Samples that failed have no vote. The temperature is the vendor's own unless you set one, which must not be 0.
        check : model, optional
            Another model that judges each value by the text: ``<field>_check`` is "correct", "wrong" or "not in the text"; the reasons are
            in ``run.view()``, and columns with ``detail=True``. One run and one cost for both.
        prefix : str
            Before the name of every column.
        join : bool
            Put the columns beside the frame's own. A name that is there already is an error before anything is sent: say ``prefix=``.
        explode : bool
            For a list of records: a row for each, with the input's index repeated and its number in the column ``position``. A row
            without records keeps one row, all missing, as pandas' ``explode`` does, and so does a failed one.
        long_text : {"error", "split"}
            A row that is longer than the model takes fails; or is cut at the ends of paragraphs and sentences into windows, each a request
            of its own, whose answers are merged: of each field the first value that is there (null and empty texts are not), in the order
            of the text; lists one after the other, without items that an earlier window had; nested models field by field. The
            merged answer is not validated again. A row with a window that failed is missing, for that window's reason.
        overlap : float
            With "split": the share of a window that the next one repeats.
        window_tokens : int, optional
            With "split": tokens of text in a window, estimated from characters on the safe side. By default what the model's context
            leaves, and 2,500 where that is not known.
        prompt_cache, limit, cache, on_error, max_cost, dry_run, show_progress, wait, batch, timeout, max_attempts, max_concurrency, cluster
            As in ``chat``.
        detail : bool
            The same columns, and beside them error, model, provider, source, attempts, seconds, tokens and cost as in ``chat``; one value
            is the column ``value``.

        Returns
        -------
        DataFrame, or for one value a row (and a list of records without ``explode``) a Series
            On the frame's own index, whatever it is. Columns are named as the fields are, by their aliases where they have some. Dtypes are
            those of the schema, also where no row has an answer:

            =============================  =============================================================================
            str, UUID, URL, path           the string dtype
            int                            Int64 (``decimal128(38, 0)`` where an answer has more than 64 bits)
            float, int | float, Decimal    Float64 (a Decimal with ``decimal_places``: Arrow's decimal, exact)
            bool                           boolean
            Literal, Enum                  category of all choices, in their order
            date, datetime                 datetime64[us] without a zone; what names an offset is brought to UTC
            ``AwareDatetime``              datetime64[us, UTC]
            time, timedelta                Arrow's time64, timedelta64[us]
            models, lists, dicts, bytes    Arrow's struct, list, map, binary
            other unions, Any              the string dtype: texts as they are, else JSON
            =============================  =============================================================================

            Rows whose cells are missing or empty are missing and were not sent. Rows that failed are missing too: their reasons are in
            ``llmkit.last().errors()``.

        Raises
        ------
        ConfigError
            Before anything is sent: no such column, a schema that cannot be asked for, two columns of one name, a missing key.
        AccessError, Unreachable
            The account or the host is refused for all rows. What is finished is kept, and the same call sends only the rest.

        Examples
        --------
        >>> import pandas as pd, llmkit
        >>> from typing import Literal
        >>> df = pd.DataFrame({"text": ["Great screen, five stars", None]})
        >>> fields = {"stars": int, "tone": Literal["good", "bad"]}
        >>> df.llm.extract(fields, on="text", model="echo/echo", show_progress=False)
           stars  tone
        0      0  good
        1   <NA>   NaN
        >>> df.llm.extract(bool, on="text", model="echo/echo", show_progress=False).dtype
        BooleanDtype
        >>> parts = df.llm.extract([{"part": str}], on="text", explode=True, join=True, model="echo/echo", show_progress=False)
        >>> parts[["position", "part"]].values.tolist()
        [[0, '[echo, not a model] part'], [<NA>, nan]]
        """
        if cluster is not None:
            return self._on_cluster(cluster, "extract", locals())
        from ..operations.extract import extracting, mode_of, usual_instructions  # pydantic takes as long to import as all of llmkit
        from ..operations.schemas import fields_of
        from .examples import for_extract
        from .extracting import Columns, ColumnsInDetail, Merged
        from .extraction import Beside, Extraction

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
        table = whole = FrameTable(self._frame, checked.limit(limit))
        for name, value in (("system", system), ("prompt", prompt), ("instructions", instructions), ("prefix", prefix)):
            checked.text(name, value)
        checked.long_text(long_text, overlap, ("error", "split"))
        if window_tokens is not None and long_text != "split":
            raise BadInput('window_tokens says where texts are split: say long_text="split" too')
        if batch and check is not None:
            raise BadInput("a batch job has one round, and check= takes two: leave out batch=True, or check=")
        fields = fields_of(schema)
        beside = Beside(evidence, votes, check is not None)
        beside.check_arguments(fields, temperature)
        fields = beside.record(fields)
        sent = beside.sent(fields)
        columns = None if on is None else checked.columns(on)
        if columns is None and prompt is None:
            raise BadInput(f"say which columns to read, e.g. on={next(iter(table.columns), 'text')!r}")
        usual = usual_instructions(fields, instructions)
        told = usual if prompt is None else "\n\n".join(part for part in (prompt, instructions) if part)
        template = Template(prompt or "", table.columns) if columns is None else None
        read = template.columns if template is not None else columns or []
        table.check(read)
        said, vendor = mode_of(mode)
        options = checked.options(temperature=temperature, max_tokens=max_tokens, seed=seed)
        again = checked.asked_again(max_reask, more_tokens, options.get("max_tokens"))
        arguments: dict[str, Any] = {
            "prompt": prompt if columns is None else told,
            "on": columns,
            "system": system if columns is not None or prompt is None else "\n\n".join(part for part in (system, usual) if part),
            "examples": for_extract(examples, fields, sent, columns, template),
            "schema": replace(sent.schema(said), vendor=vendor),
            "options": options,
            "prompt_cache": checked.prompt_cache(prompt_cache),
        }
        made: Columns
        if long_text == "split":
            if detail or beside.any():
                what = "detail=True" if detail else "evidence=, votes= and check="
                raise BadInput(f'{what} tell of requests, and with long_text="split" a row may be several; leave one of them out')
            made = Merged(self._frame, fields, prefix, join, explode)
            table = self._in_windows(table, read, arguments, made, how, checked.options(window_tokens=window_tokens), overlap)
        else:
            made = (ColumnsInDetail if detail else Columns)(self._frame, beside.shown(fields, detail), prefix, join, explode)
        if prompt_cache == "auto" and template is not None:
            arguments["leads"] = leads_of(table, template)
        shape = Extraction(made, whole, read, fields, beside)
        operation, asked = beside.asked(extracting(sent, *again), table)
        if check is not None:
            from .checking import checked_by

            return checked_by(self, check, operation, asked, arguments, shape, how)
        return self._run(operation, asked, arguments, shape, how)

    def _in_windows(
        self,
        table: FrameTable,
        columns: Sequence[Any],
        arguments: Mapping[str, Any],
        shape: Merged,
        how: How,
        size: Mapping[str, int],
        overlap: float,
    ) -> FrameTable:
        """The table with rows that are longer than the models take as several, which ``shape`` is told the owners of."""
        from .splitting import room_for_text, split_rows

        most = size.get("window_tokens")
        if most is None and len(table):
            route = self._session.route(how.model if how.model is not None else self._session.chosen("chat")[0], "chat", how.fallback)
            said = [arguments["prompt"], arguments["system"] or "", to_json(arguments["schema"].schema).decode()]
            said += [text for pair in arguments["examples"] for text in pair]
            most = room_for_text(route, said, arguments["options"].get("max_tokens"))
        windows, shape.owners = split_rows(table, columns, most or 1, overlap)
        return windows
