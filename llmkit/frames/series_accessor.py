"""``series.llm``: the methods of ``df.llm`` on the values of one column."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..session import Session
from .calling import Accessor
from .columns import matrix_of
from .pandas_accessor import FrameAccessor

__all__ = ["SeriesAccessor", "register"]


def _on_values(method: Callable[..., Any], summary: str, *, listed: bool = False, without: tuple[str, ...] = ()) -> Callable[..., Any]:
    """The method of the frame with the series as the column that ``on`` would name; its own signature and ``?`` say so."""
    parameters = inspect.signature(method).parameters
    left = [parameter for name, parameter in parameters.items() if name not in ("on", *without)]
    signature = inspect.Signature(left)

    @wraps(method)
    def on_values(self: SeriesAccessor, *given: Any, **options: Any) -> Any:
        bound = signature.bind(self, *given, **options).arguments
        del bound["self"]
        frame, name = self._as_frame()
        return method(frame, on=[name] if listed else name, **bound)

    on_values.__signature__ = signature  # type: ignore[attr-defined]
    on_values.__qualname__ = f"SeriesAccessor.{method.__name__}"
    more = f"The values stand for the column ``on``; all else as ``DataFrame.llm.{method.__name__}``:"
    on_values.__doc__ = f"{summary}\n\n        {more}\n\n        {method.__doc__}"
    return on_values


class SeriesAccessor(Accessor):
    """Language models on the values of a column; see ``DataFrame.llm`` for every option.

    Examples
    --------
    >>> import pandas as pd, llmkit
    >>> words = pd.Series(["parcel"], name="word")
    >>> words.llm.chat("Say it", model="echo/echo", show_progress=False).tolist()
    ['[echo, not a model] <word> parcel </word>']
    >>> str(pd.Series(["late parcel"]).llm.embed(model="local/lexical", dimensions=64, show_progress=False).dtype)
    'fixed_size_list<item: float>[64][pyarrow]'
    >>> pd.Series(["red apple", "late parcel"], name="text").llm.rerank("parcel", model="local/bm25").index.tolist()
    [1, 0]
    """

    def __init__(self, series: pd.Series[Any], session: Session | None = None) -> None:
        super().__init__(session)
        self._series = series

    def __dir__(self) -> list[str]:
        return [
            "agg", "chat", "classify", "cluster", "dedup", "embed", "extract", "filter", "matrix", "rerank", "speak",
            "topk", "transcribe", "using",
        ]  # fmt: skip

    def using(self, session: Session) -> SeriesAccessor:
        """The same methods with a session of your own instead of the shared one."""
        return SeriesAccessor(self._series, session)

    def _as_frame(self) -> tuple[FrameAccessor, Any]:
        name = "value" if self._series.name is None else self._series.name
        frame = FrameAccessor(self._series.to_frame(name), self._own_session)
        frame._series = self._series
        return frame, name

    chat = _on_values(
        FrameAccessor.chat,
        "Ask a chat model once per value: the prompt is the instruction, the value travels beside it as delimited data.",
        listed=True,
        without=("images", "roots", "max_file_mb"),
    )
    embed = _on_values(FrameAccessor.embed, "Embed the values: one float32 vector each.", without=("images", "roots", "max_file_mb"))
    rerank = _on_values(FrameAccessor.rerank, "Order the values by how well they answer a query: a frame, best first, with ``score``.")
    extract = _on_values(FrameAccessor.extract, "Turn each value into the fields of a schema: a frame of typed columns.")
    classify = _on_values(FrameAccessor.classify, "Give each value one of several labels, or all that apply.")
    filter = _on_values(FrameAccessor.filter, "Keep the values for which a sentence is true: a series.")
    topk = _on_values(FrameAccessor.topk, "Find the values that meet a criterion best: a frame, best first, with ``rank``.")
    agg = _on_values(FrameAccessor.agg, "Answer one question about all values together.", without=("by",))
    dedup = _on_values(FrameAccessor.dedup, "Keep one of each group of near-duplicate values: a series.")
    cluster = _on_values(FrameAccessor.cluster, "Sort the values into groups of like ones, and have each group named.")
    transcribe = _on_values(FrameAccessor.transcribe, "Write down what is said in recordings.")
    speak = _on_values(FrameAccessor.speak, "Have the values read aloud.")

    def matrix(self) -> npt.NDArray[np.float32]:
        """The vectors of this column as one (n, dimensions) float32 array.

        A view of the column's own memory where no row is missing (do not write to it); otherwise a copy with NaN in the missing rows.

        Raises
        ------
        BadInput
            The column does not hold vectors of one length.
        """
        return matrix_of(self._series)


def register() -> None:
    """Put ``llm`` on frames and series. Run again (a module reloaded in a notebook), it replaces what was there."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "overriding a preexisting attribute": by itself
        pd.api.extensions.register_dataframe_accessor("llm")(FrameAccessor)
        pd.api.extensions.register_series_accessor("llm")(SeriesAccessor)
