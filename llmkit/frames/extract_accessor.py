"""``df.llm.extract``: reads arguments, and hands back typed columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        timeout: float = 180.0,
        max_attempts: int = 5,
        max_concurrency: int = 64,
    ) -> Any:
        """Turn each row's text into the fields of a schema."""
        from ..operations.extract import extracting, mode_of, usual_instructions  # pydantic takes as long to import as all of llmkit
        from ..operations.schemas import fields_of
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
        )
        table = whole = FrameTable(self._frame, checked.limit(limit))
        for name, value in (("system", system), ("prompt", prompt), ("instructions", instructions), ("prefix", prefix)):
            checked.text(name, value)
        checked.long_text(long_text, overlap, ("error", "split"))
        fields = fields_of(schema)
        beside = Beside(evidence, votes, check is not None)
        beside.check_arguments(fields, temperature)
        fields = beside.record(fields)
        sent = beside.sent(fields)
        columns = None if on is None else checked.columns(on)
        if columns is None and prompt is None:
            raise BadInput(f"say which columns to read, e.g. on={next(iter(table.columns), 'text')!r}")
        usual = usual_instructions(fields, instructions)
        read = Template(prompt or "", table.columns).columns if columns is None else columns
        table.check(read)
        said, _ = mode_of(mode)
        arguments: dict[str, Any] = {
            "prompt": (prompt or usual) if columns is not None else prompt,
            "on": columns,
            "system": system if columns is not None or prompt is None else "\n\n".join(part for part in (system, usual) if part),
            "examples": checked.examples(examples),
            "schema": sent.schema(said),
            "options": checked.options(temperature=temperature, max_tokens=max_tokens, seed=seed),
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
        if prompt_cache == "auto" and columns is None:
            arguments["leads"] = leads_of(table, Template(prompt or "", table.columns))
        shape = Extraction(made, whole, read, fields, beside)
        operation, asked = beside.asked(extracting(sent, max_reask, more_tokens), table)
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
