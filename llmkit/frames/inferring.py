"""``llmkit.infer_schema``: a model looks at a sample of the rows and proposes what to extract from all of them."""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from typing import Any

import pandas as pd

from ..errors import BadInput
from ..operations.chat import delimited
from ..run import Run, to_the_caller
from . import arguments as checked
from .arguments import Cache
from .calling import Accessor, How
from .columns import ColumnShape, FrameTable

__all__ = ["Inferring", "infer_schema", "read_schema"]

#: Characters of a cell that are shown: enough to see what there is to extract, and twenty of them fit in any window.
_LONGEST = 2000


class Inferring(Accessor):
    """The part of ``df.llm`` that finds out what there is to extract."""

    _frame: pd.DataFrame

    def infer_schema(
        self,
        on: Any,
        *,
        goal: str,
        sample: int = 20,
        seed: int = 0,
        max_fields: int = 20,
        model: Any = None,
        fallback: Any = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        cache: Cache = "use",
        max_cost: float | None = None,
        dry_run: bool = False,
        show_progress: bool = True,
        wait: bool = True,
        timeout: float = 180.0,
        max_attempts: int = 5,
    ) -> Any:
        """Have a model propose a schema for ``extract``; see ``llmkit.infer_schema``."""
        from ..operations.extract import extracting
        from ..operations.proposals import Proposal, instructions
        from ..operations.schemas import fields_of

        how = How(
            model,
            fallback,
            checked.policy(cache, "raise", max_cost, timeout, max_attempts, 1),
            dry_run,
            show_progress,
            wait,
        )
        if not isinstance(goal, str) or not goal.strip():
            raise BadInput('say what the table is for, e.g. goal="which products break, and how"')
        wanted = checked.rows("sample", sample, 1) or 1
        most = checked.rows("max_fields", max_fields, 1) or 1
        start = checked.options(seed=seed)["seed"]
        columns = checked.columns(on)
        table = FrameTable(self._frame)
        table.check(columns)
        if not columns:
            raise BadInput("on=[] names no column, so there is nothing to look at")
        shown = _sampled(table, columns, wanted, start)
        if not shown:
            raise BadInput(f"no row has a text in {', '.join(map(repr, columns))}, so there is nothing to propose columns from")
        fields = fields_of(Proposal)
        arguments: dict[str, Any] = {
            "prompt": instructions(goal.strip(), most),
            "on": ["samples"],
            "schema": fields.schema(),
            "options": checked.options(temperature=temperature, max_tokens=max_tokens),
        }
        asked = pd.DataFrame({"samples": pd.Series(["\n\n".join(shown)], dtype=object)})
        return self._run(extracting(fields), FrameTable(asked), arguments, _Schema(asked.index, most), how)


def infer_schema(df: pd.DataFrame, on: Any, *, goal: str, **how: Any) -> Any:
    """Have a model propose a schema for ``extract`` from a sample of the rows and what you want to know.

    The model answers with names, types of a closed set and descriptions, and the class is built of those: no code of a model's is run.

    Parameters
    ----------
    df : DataFrame
    on : column or list of columns
        What is to be read.
    goal : str
        What the table is for, in your own words.
    sample : int
        Rows that are shown, chosen by ``seed``; of each cell the first 2,000 characters.
    seed : int
        Another one chooses other rows.
    max_fields : int
        Most fields that are proposed; where a model proposes more, the first ones are kept and a warning says so.
    model, fallback, temperature, max_tokens, cache, max_cost, dry_run, show_progress, wait, timeout, max_attempts
        As ``DataFrame.llm.chat``. The same call on the same rows is answered from what is stored.

    Returns
    -------
    (model, source)
        A pydantic class, and the Python text that defines it: to be read, changed and kept in a cell of its own. ``extract`` takes either
        the class or the pair.

    Raises
    ------
    LLMError
        There is no proposal, and the message says why.

    Examples
    --------
    >>> import pandas as pd, llmkit
    >>> df = pd.DataFrame({"text": ["The kettle leaks.", "Fan broken after a week."]})
    >>> Complaint, source = llmkit.infer_schema(df, "text", goal="what breaks, and when", model="echo/echo", show_progress=False)
    >>> df.llm.extract(Complaint, on="text", model="echo/echo", show_progress=False).shape
    (2, 1)
    """
    from .pandas_accessor import FrameAccessor

    if not isinstance(df, pd.DataFrame):
        raise BadInput(f"infer_schema takes a DataFrame first, not {type(df).__name__}; a Series is one column of series.to_frame()")
    return FrameAccessor(df).infer_schema(on, goal=goal, **how)


def read_schema(schema: Any) -> Any:
    """What a schema argument becomes: the pydantic class that answers are checked with, and the Python text that defines the same.

    Nothing is asked of anybody. Checks of your own validators are in the class, and in no text.

    Parameters
    ----------
    schema
        As ``extract`` takes it, of one record a row.

    Returns
    -------
    (model, source)
        As ``infer_schema`` hands back; ``extract`` takes either the class or the pair.

    Raises
    ------
    BadInput
        It is no schema, has no fields, or is one of a value, or of several records, a row.

    Examples
    --------
    >>> import llmkit
    >>> fire = {"type": "object", "title": "Fire", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    >>> print(llmkit.read_schema(fire).source)
    from pydantic import BaseModel
    <BLANKLINE>
    <BLANKLINE>
    class Fire(BaseModel):
        city: str
    <BLANKLINE>
    """
    from ..operations.schemas import InferredSchema, fields_of

    fields = fields_of(schema)
    if fields.kind != "record":
        raise BadInput(f"this is {'one value' if fields.kind == 'value' else 'any number of records'} a row; name the fields of one record")
    return InferredSchema(fields.model, fields.source)


def _sampled(table: FrameTable, columns: Sequence[Any], wanted: int, seed: int) -> list[str]:
    """Different rows that say something, in the order of the frame, as data."""
    chance = random.Random(seed)
    length = len(table)
    drawn = chance.sample(range(length), min(length, 20 * wanted))
    found = _texts(table, columns, drawn, wanted)
    if not found:  # a sparse column
        found = _texts(table, columns, range(length), wanted)
    return [delimited(f"sample {number}", said) for number, said in enumerate(found, 1)]


def _texts(table: FrameTable, columns: Sequence[Any], rows: Sequence[int], wanted: int) -> list[str]:
    found: dict[str, int] = {}
    for row in rows:
        cells = [(name, table.texts(name, row, row + 1)[0]) for name in columns]
        said = "\n".join(delimited(name, _cut(cell)) for name, cell in cells if cell and not cell.isspace())
        if said and said not in found:
            found[said] = row
            if len(found) == wanted:
                break
    return sorted(found, key=found.__getitem__)


def _cut(cell: str) -> str:
    return cell if len(cell) <= _LONGEST else f"{cell[:_LONGEST]}…"


class _Schema(ColumnShape):
    """The one answer as a class."""

    def __init__(self, index: pd.Index[Any], most: int) -> None:
        super().__init__(index, "object", "schema")
        self._most = most

    def result(self, run: Run[Any]) -> Any:
        from ..operations.proposals import Proposal, proposed

        answer = self.column(run.outcomes)[0]
        if answer is None:
            return None
        schema, left_out = proposed(Proposal.model_validate(answer), self._most)
        if left_out:
            warnings.warn(
                f"llmkit: {left_out} more fields were proposed than max_fields={self._most} allows; they are left out",
                stacklevel=to_the_caller(),
            )
        return schema
