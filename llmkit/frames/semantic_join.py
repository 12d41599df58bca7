"""``join``: pairs of rows of two frames for which a claim is true, judged one by one after the unlikely ones are put aside."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..errors import BadInput
from ..operations.semantic import VERDICT, about_claim, asking, reference
from ..types import Estimate
from .columns import one_column
from .estimates import nothing
from .procedure import Procedure
from .semantic_asking import EMBEDDING, Asker, Questions, Rows, Stages, at_most, different, sum_of, text_table
from .semantic_pairs import candidates

__all__ = ["Joining", "side_by_side", "sides_of"]

_SIDE = re.compile(r"\{(left|right):([^{}]+)\}")

#: Pairs whose size stands for all in an estimate.
_SAMPLE = 200


def sides_of(claim: Any, left: pd.DataFrame, right: pd.DataFrame) -> tuple[str, list[Any], list[Any]]:
    """(what is said to the model, the columns of the left frame, those of the right one) of ``{left:title} ... {right:name}``.

    Raises
    ------
    BadInput
        A side without a column, or a column that is not there.
    """
    if not isinstance(claim, str):
        raise BadInput('join needs a claim with columns of both frames in it, e.g. on="{left:title} is the product of {right:name}"')
    named: dict[str, dict[str, Any]] = {"left": {}, "right": {}}
    for side, name in _SIDE.findall(claim):
        frame = left if side == "left" else right
        found = next((column for column in frame.columns if str(column) == name), name)
        one_column(frame, found)
        named[side][name] = found
    for side, columns in named.items():
        if not columns:
            first = next(iter((left if side == "left" else right).columns), "text")
            raise BadInput(f"the claim names no column of the {side} frame: write e.g. {{{side}:{first}}} into it")
    said = _SIDE.sub(lambda found: reference(f"{found[1]}_{found[2]}"), claim)
    return said, list(named["left"].values()), list(named["right"].values())


class Joining:
    """The rows of two frames that belong together.

    Parameters
    ----------
    left, right : DataFrame
    rows, others : Rows
        Of the left and the right frame, as data.
    claim, system : str
    how_to : {"inner", "left"}
    most : int or None
        Pairs a left row that are judged; ``None``: all.
    suffixes : (str, str)
    options, prompt_cache
        Of every request.
    asker, embedder : callable
        Find who is asked; called where there is anything to ask.
    detail : bool
        Hand back the pairs that were judged.
    """

    name = "join"

    def __init__(
        self, left: pd.DataFrame, right: pd.DataFrame, rows: Rows, others: Rows, claim: str, system: str | None, how_to: Any,
        most: int | None, suffixes: tuple[str, str], options: Mapping[str, Any], prompt_cache: str, asker: Any, embedder: Any, detail: bool,
    ) -> None:  # fmt: skip
        self._left, self._right, self._how_to, self._suffixes, self._detail = left, right, how_to, suffixes, detail
        data, other_data = rows.data(0, len(rows)), others.data(0, len(others))
        self._texts, self._places, _ = different(data)
        self._other_texts, self._other_places, _ = different(other_data)
        self._rows, self._missing = len(rows), len(rows) - sum(map(len, self._places))
        pairs = bool(self._texts and self._other_texts)
        # As many candidates as there are different rows: nothing is left to put aside.
        self._most = len(self._other_texts) if most is None else min(most, len(self._other_texts))
        blocked = pairs and self._most < len(self._other_texts)
        self._asker: Asker | None = asker() if pairs else None
        self._embedder: Asker | None = embedder() if blocked else None
        plain, other_plain = rows.texts(0, len(rows)), others.texts(0, len(others))
        self._plain = [plain[places[0]] or "" for places in self._places]
        self._plain += [other_plain[places[0]] or "" for places in self._other_places]
        self._pairs = len(self._texts) * self._most
        self._asking = asking(self.name, VERDICT, about_claim(claim, system), options, prompt_cache)
        self.targets = [*([] if self._asker is None else self._asker.names), *([] if self._embedder is None else self._embedder.names)]
        self.expected = self._pairs + (len(self._plain) if blocked else 0)
        vectors = f"{len(self._plain):,} texts to embed, " if blocked else ""
        self.said = f"{vectors}{self._pairs:,} pairs to judge"

    def _question(self, mine: int, other: int) -> str:
        return f"{self._texts[mine]}\n{self._other_texts[other]}"

    def estimate(self) -> Estimate:
        if self._asker is None:
            return nothing("there are no pairs", self._rows, self._missing)
        stages = []
        if self._embedder is not None:
            stages.append(self._embedder.estimate(EMBEDDING, text_table(self._plain)))
            step = max(1, self._pairs // _SAMPLE)
            places = [(pair // self._most, pair * 7919 % len(self._other_texts)) for pair in range(0, self._pairs, step)]
            sample = self._asker.estimate(self._asking, Questions.of([self._question(*pair) for pair in places]), stored=False)
            basis = f"{self._most} candidates for each different left row, stored or not"
            stages.append(at_most(sample, self._pairs, 0, 0, 0, basis))
        else:
            count = len(self._other_texts)

            def made(start: int, stop: int) -> list[str | None]:
                return [self._question(pair // count, pair % count) for pair in range(start, stop)]

            stages.append(self._asker.estimate(self._asking, Questions(self._pairs, made)))
        return sum_of(stages, self._rows, self._missing)

    # ----------------------------------------------------------------------------------------------------------------- steps

    def steps(self, procedure: Procedure[Any]) -> Any:
        stages = Stages(procedure, self._left.index)
        mine, other, cosines = self._candidates(stages)
        verdicts: list[Any] = []
        if self._asker is not None and len(mine):
            questions = [self._question(*pair) for pair in zip(mine.tolist(), other.tolist(), strict=True)]
            rows_of = [self._places[text] for text in mine.tolist()]
            verdicts = stages.ask(self._asker, self._asking, questions, rows_of, "join")
        procedure.expect(0)
        failed = sum(verdict is None for verdict in verdicts)
        if failed and stages.spent is None:
            stages.failed(f"{failed:,} pairs got no verdict and are not joined")
        return self._judged(mine, other, cosines, verdicts) if self._detail else self._joined(mine, other, verdicts)

    def _candidates(self, stages: Stages) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float32]]:
        count = len(self._texts)
        if self._embedder is None:
            mine = np.repeat(np.arange(count), self._most)
            return mine, np.tile(np.arange(self._most), count), np.full(len(mine), np.nan, dtype=np.float32)
        # Both sides in one run: a text that both have is embedded once.
        rows_of = [*self._places, *self._other_places]
        vectors = stages.embed(self._embedder, self._plain, rows_of, (count, self._right.index))
        lost = int(np.isnan(vectors).any(axis=1).sum())
        if lost and stages.spent is None:
            stages.failed(f"{lost:,} texts got no vector, so their rows have no candidates")
        return candidates(vectors[:count], vectors[count:], self._most)

    def _rows_of(self, mine: npt.NDArray[np.intp], other: npt.NDArray[np.intp]) -> tuple[list[int], list[int], list[int]]:
        """Pairs of texts as pairs of rows, in the order of the left rows, then of the right ones: (left, right, which pair)."""
        found = [
            (row, beside, pair)
            for pair, (text, with_text) in enumerate(zip(mine.tolist(), other.tolist(), strict=True))
            for row in self._places[text]
            for beside in self._other_places[with_text]
        ]
        found.sort()
        lefts, rights, pairs = zip(*found, strict=True) if found else ((), (), ())
        return list(lefts), list(rights), list(pairs)

    def _joined(self, mine: npt.NDArray[np.intp], other: npt.NDArray[np.intp], verdicts: list[Any]) -> pd.DataFrame:
        true = np.array([verdict is True for verdict in verdicts], dtype=bool)
        lefts, rights, _ = self._rows_of(mine[true], other[true])
        pairs = np.array(lefts, dtype=np.intp), np.array(rights, dtype=np.intp)
        return side_by_side(self._left, self._right, *pairs, self._how_to, self._suffixes)[0]

    def _judged(
        self, mine: npt.NDArray[np.intp], other: npt.NDArray[np.intp], cosines: npt.NDArray[np.float32], verdicts: list[Any]
    ) -> pd.DataFrame:
        lefts, rights, pairs = self._rows_of(mine, other)
        columns = {
            "left": [self._left.index[row] for row in lefts],
            "right": [self._right.index[row] for row in rights],
            "score": cosines[pairs].astype(np.float64) if pairs else np.empty(0),
            "value": pd.array([verdicts[pair] for pair in pairs], dtype="boolean"),
        }
        return pd.DataFrame(columns)


def side_by_side(
    left: pd.DataFrame,
    right: pd.DataFrame,
    lefts: npt.NDArray[np.intp],
    rights: npt.NDArray[np.intp],
    how: Any,
    suffixes: tuple[str, str],
) -> tuple[pd.DataFrame, npt.NDArray[np.intp]]:
    """(columns of both, a row a pair, as ``merge`` makes them; for each row its pair, -1 where it is a left row that has none).

    Pairs come in the order of the left rows.
    """
    pairs = np.arange(len(lefts))
    if how == "left":
        alone = np.setdiff1d(np.arange(len(left)), lefts)
        order = np.argsort(np.concatenate([lefts, alone]), kind="stable")
        nobody = np.full(len(alone), -1, dtype=np.intp)
        lefts, rights, pairs = (np.concatenate(both)[order] for both in ((lefts, alone), (rights, nobody), (pairs, nobody)))
    beside = rights >= 0
    mine = left.iloc[lefts].reset_index(drop=True)
    other = right.iloc[rights[beside]].set_axis(np.flatnonzero(beside), axis=0)
    return mine.merge(other, left_index=True, right_index=True, how=how, suffixes=suffixes), pairs
