"""``dedup``: rows whose vectors are near one another are one; near the threshold a chat model may be asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..operations.semantic import VERDICT, about_sameness, asking, between
from ..types import Estimate
from .estimates import nothing
from .procedure import Procedure
from .semantic_asking import EMBEDDING, Asker, Questions, Rows, Stages, at_most, different, sum_of, text_table
from .semantic_pairs import Groups, near_pairs

__all__ = ["Deduplicating"]

#: Pairs near the threshold that are remembered before they are thinned out: 48 MB.
_REMEMBERED = 2_000_000


class Deduplicating:
    """One row of each group of near-duplicates.

    Parameters
    ----------
    rows : Rows
        As data.
    subject : DataFrame or Series
        Whose rows are handed back.
    threshold, margin : float
        Cosine from which two rows are one, and how near to it a pair is asked about.
    keep : {"first", "last"}
    same, system : str or None
        What is to be confirmed.
    most_pairs : int
        Pairs that are asked about at the most.
    options, prompt_cache
        Of every request.
    confirmer, embedder : callable
        Find who is asked; called where there is anything to ask. ``confirmer`` gives ``None`` where nobody confirms.
    detail : bool
        Hand back groups.
    """

    name = "dedup"

    def __init__(
        self, rows: Rows, subject: Any, threshold: float, margin: float, keep: str, same: str | None, system: str | None, most_pairs: int,
        options: Mapping[str, Any], prompt_cache: str, confirmer: Any, embedder: Any, detail: bool,
    ) -> None:  # fmt: skip
        self._subject, self._keep, self._detail = subject, keep, detail
        self._texts, self._places, self._codes = different(rows.texts(0, len(rows)))
        self._rows, self._missing = len(rows), int((self._codes < 0).sum())
        several = len(self._texts) > 1
        self._embedder: Asker | None = embedder() if several else None
        self._confirmer: Asker | None = confirmer() if several else None
        self._threshold = threshold
        self._margin = margin if self._confirmer is not None else 0.0
        self._most_pairs = min(most_pairs, len(self._texts) * (len(self._texts) - 1) // 2)
        self._asking = asking(self.name, VERDICT, about_sameness(same, system), options, prompt_cache)
        confirming = self._most_pairs if self._confirmer is not None else 0
        self.targets = [name for asker in (self._embedder, self._confirmer) if asker is not None for name in asker.names]
        self.expected = len(self._texts) + confirming if several else 0
        self.said = f"{len(self._texts):,} texts to embed" + (f", at most {confirming:,} pairs to confirm" if confirming else "")

    def _question(self, pair: tuple[int, int]) -> str:
        return between(["first", "second"], [self._texts[pair[0]], self._texts[pair[1]]])

    def estimate(self) -> Estimate:
        if self._embedder is None:
            return nothing("there is nothing to compare", self._rows, self._missing)
        stages = [self._embedder.estimate(EMBEDDING, text_table(self._texts))]
        if self._confirmer is not None:
            some = [self._question((at, at + 1)) for at in range(min(200, len(self._texts) - 1))]
            sample = self._confirmer.estimate(self._asking, Questions.of(some), stored=False)
            stages.append(at_most(sample, self._most_pairs, 0, 0, 0, "the most pairs that may lie near the threshold, stored or not"))
        return sum_of(stages, self._rows, self._missing)

    # ----------------------------------------------------------------------------------------------------------------- steps

    def steps(self, procedure: Procedure[Any]) -> Any:
        stages = Stages(procedure, self._subject.index)
        groups = Groups(len(self._texts))
        embedded = np.ones(len(self._texts), dtype=bool)
        if self._embedder is not None:
            vectors = stages.embed(self._embedder, self._texts, self._places)
            embedded = np.asarray(~np.isnan(vectors).any(axis=1))
            lost = int((~embedded).sum())
            if lost and stages.spent is None:
                stages.failed(f"{lost:,} texts got no vector, so their rows are kept")
            near = self._join_sure(vectors, groups)
            if self._confirmer is not None and near is not None:
                self._confirm(stages, groups, *near)
        procedure.expect(0)
        return self._result(groups.all, embedded)

    def _join_sure(
        self, vectors: npt.NDArray[np.float32], groups: Groups
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float32]] | None:
        """Join what is surely one; the pairs that are to be asked about are handed back."""
        sure = self._threshold + self._margin
        doubtful: list[tuple[Any, Any, Any]] = []
        remembered = 0
        # Vectors are float32: what is one by the user's number must not miss it by a rounding.
        for left, right, cosine in near_pairs(vectors, self._threshold - self._margin - 1e-6):
            at_least = cosine >= sure - 1e-6
            groups.join(left[at_least], right[at_least])
            if self._confirmer is not None and not at_least.all():
                doubtful.append((left[~at_least], right[~at_least], cosine[~at_least]))
                remembered += int((~at_least).sum())
                if remembered > _REMEMBERED:
                    doubtful = [self._thinned(doubtful, groups)]
                    remembered = len(doubtful[0][0])
        return self._thinned(doubtful, groups) if doubtful else None

    @staticmethod
    def _thinned(parts: list[tuple[Any, Any, Any]], groups: Groups) -> tuple[Any, Any, Any]:
        """Of the pairs between two groups the nearest one: a group is asked about once."""
        left, right, cosine = (np.concatenate(part) for part in zip(*parts, strict=True))
        mine, other = groups.of(left), groups.of(right)
        first, second = np.minimum(mine, other), np.maximum(mine, other)
        order = np.lexsort((right, left, -cosine, second, first))
        first, second = first[order], second[order]
        keep = (first != second) & np.append(True, (first[1:] != first[:-1]) | (second[1:] != second[:-1]))[: len(first)]
        chosen = order[keep]
        return left[chosen], right[chosen], cosine[chosen]

    def _confirm(self, stages: Stages, groups: Groups, left: Any, right: Any, cosine: Any) -> None:
        assert self._confirmer is not None
        nearest = np.argsort(np.abs(cosine - self._threshold), kind="stable")
        asked, rest = nearest[: self._most_pairs], nearest[self._most_pairs :]
        if len(rest):
            by_number = rest[cosine[rest] >= self._threshold - 1e-6]
            groups.join(left[by_number], right[by_number])
            stages.note(f"{len(rest):,} pairs farther from the threshold were not asked about: most_pairs={self._most_pairs:,}")
        if not len(asked):
            return
        pairs = list(zip(left[asked].tolist(), right[asked].tolist(), strict=True))
        rows_of = [[*self._places[first], *self._places[second]] for first, second in pairs]
        verdicts = stages.ask(self._confirmer, self._asking, [self._question(pair) for pair in pairs], rows_of, "confirm")
        same = np.array([verdict is True for verdict in verdicts], dtype=bool)
        groups.join(left[asked][same], right[asked][same])
        failed = sum(verdict is None for verdict in verdicts)
        if failed and stages.spent is None:
            stages.failed(f"{failed:,} pairs got no verdict and stay two")

    def _result(self, groups: npt.NDArray[np.intp], embedded: npt.NDArray[np.bool_]) -> Any:
        length = len(self._subject)
        codes = np.full(length, -1, dtype=np.intp)
        codes[: len(self._codes)] = self._codes
        group = np.where(codes >= 0, groups[codes], -1) if len(groups) else codes
        column = pd.Series(group)
        repeated = column.duplicated(keep="last" if self._keep == "last" else "first").to_numpy() & (group >= 0)
        if not self._detail:
            return self._subject.iloc[np.flatnonzero(~repeated)]
        known = np.zeros(length, dtype=bool)
        known[codes >= 0] = embedded[codes[codes >= 0]]
        numbers = pd.factorize(column.where(known))[0]
        columns = {"group": pd.arrays.IntegerArray(numbers.astype(np.int64), numbers < 0), "kept": ~repeated}
        return pd.DataFrame(columns, index=self._subject.index)
