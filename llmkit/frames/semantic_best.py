"""``topk``: what is compared with what, in whose words, and the rows that come out best."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from ..errors import BadInput
from ..operations.semantic import BETTER, about_order, about_pair, asking, between, ordering
from ..operations.windows import estimated_tokens
from ..types import Estimate
from .estimates import nothing
from .procedure import Procedure
from .semantic_asking import Asker, Questions, Rows, Stages, at_most, different, room_for_data
from .semantic_topk import Ranking, expected_of_quick, expected_of_tournament, quick, tournament

__all__ = ["Best", "Method", "check_method"]

Method = Literal["auto", "quick", "tournament", "batched"]

#: Pairs whose size stands for all in an estimate.
_SAMPLE = 200


class Best:
    """The rows that meet a criterion best.

    Parameters
    ----------
    rows : Rows
        As data.
    subject : DataFrame or Series
        Whose rows are handed back.
    k : int
    criterion, system : str
    method : {"auto", "quick", "tournament", "batched"}
    at_once : int
        Items that are ordered in one request.
    both_ways : bool
        Ask each pair in both orders.
    random_state : int
    options, prompt_cache
        Of every request.
    asker : callable
        Finds who is asked; called where there is anything to ask.
    detail : bool
        Hand back the comparisons.
    """

    name = "topk"

    def __init__(
        self, rows: Rows, subject: Any, k: int, criterion: str, system: str | None, method: Method, at_once: int, both_ways: bool,
        random_state: int, options: Mapping[str, Any], prompt_cache: str, asker: Any, detail: bool,
    ) -> None:  # fmt: skip
        data = rows.data(0, len(rows))
        texts, places, _ = different(data)
        # The order of items is random and their own: it stays when rows are added, so that most comparisons are stored already.
        marks = [_digest(str(random_state).encode(), text.encode("utf-8", "surrogatepass")) for text in texts]
        order = sorted(range(len(texts)), key=lambda item: marks[item])
        self._items = [texts[item] for item in order]
        self._places = [places[item] for item in order]
        self._marks = [marks[item] for item in order]
        self._missing = len(rows) - sum(map(len, self._places))
        self._rows, self._subject, self._k = len(rows), subject, k
        self._both_ways, self._detail = both_ways, detail
        self._options, self._prompt_cache = options, prompt_cache
        self._systems = about_pair(criterion, system), about_order(criterion, system)
        self._asker: Asker | None = asker() if len(self._items) > 1 else None
        self.targets = [] if self._asker is None else self._asker.names
        self._at_once = self._fitting(at_once) if method == "batched" else 2
        tournaments = expected_of_tournament(len(texts), k, self._at_once)
        pivots = expected_of_quick(len(texts), k)
        self._method = ("tournament" if tournaments <= pivots else "quick") if method == "auto" else method
        self.expected = (pivots if self._method == "quick" else tournaments) * (2 if both_ways else 1)
        self.said = f"about {self.expected:,} comparisons expected"
        self._compared: list[tuple[list[int], list[int] | None]] = []

    def _fitting(self, at_once: int) -> int:
        """As many items as the model can read at once."""
        if self._asker is None:
            return at_once
        room, _ = room_for_data(self._asker.route, self._systems[1], self._options)
        longest = max(estimated_tokens(item) for item in self._items) + 16
        return max(2, min(at_once, int(room / longest)))

    def estimate(self) -> Estimate:
        if self._asker is None:
            return nothing("there is nothing to compare", self._rows, self._missing)
        size = self._at_once
        groups = [tuple(range(at, at + size)) for at in range(0, len(self._items) - size + 1, size)][:_SAMPLE] or [(0, 1)]
        questions = Questions.of([self._question(self._shown(group)) for group in groups])
        sample = self._asker.estimate(self._asking(len(groups[0])), questions, stored=False)
        basis = f"the comparisons that {self._method} is expected to need, stored or not: which they are depends on the answers"
        return at_most(sample, self.expected, self._rows, self._missing, 0, basis)

    # ----------------------------------------------------------------------------------------------------------------- steps

    def steps(self, procedure: Procedure[Any]) -> Any:
        stages = Stages(procedure, self._subject.index)

        def ask(groups: list[tuple[int, ...]]) -> list[tuple[int, ...] | None]:
            return self._ask(stages, groups)

        try:
            if self._method == "quick":
                ranking = quick(len(self._items), self._k, ask)
            else:
                ranking = tournament(len(self._items), self._k, ask, self._at_once)
        finally:
            procedure.expect(0)
        if ranking.apart:
            rows = sum(len(self._places[item]) for item in ranking.apart)
            stages.failed(f"{rows:,} rows could be compared with none and are not among the best")
        return self._comparisons() if self._detail else self._ranked(ranking)

    def _ask(self, stages: Stages, groups: list[tuple[int, ...]]) -> list[tuple[int, ...] | None]:
        assert self._asker is not None
        if stages.spent is not None:
            raise stages.spent
        found: list[tuple[int, ...] | None] = [None] * len(groups)
        for size in sorted(set(map(len, groups))):
            at = [place for place, group in enumerate(groups) if len(group) == size]
            shown = [self._shown(groups[place]) for place in at]
            if self._both_ways:
                shown += [order[::-1] for order in shown]
            rows_of = [[self._places[item][0] for item in order] for order in shown]
            answers = stages.ask(self._asker, self._asking(size), [self._question(order) for order in shown], rows_of, "topk")
            if stages.spent is not None:
                raise stages.spent
            orders = [_order(order, answer) for order, answer in zip(shown, answers, strict=True)]
            if self._both_ways:
                half = len(at)
                orders = [one if one == other else None for one, other in zip(orders[:half], orders[half:], strict=True)]
            for place, order in zip(at, orders, strict=True):
                found[place] = order
        for group, best_first in zip(groups, found, strict=True):
            ordered = None if best_first is None else [self._places[item][0] for item in best_first]
            self._compared.append(([self._places[item][0] for item in group], ordered))
        return found

    def _asking(self, size: int) -> Any:
        fields, system = (BETTER, self._systems[0]) if size == 2 else (ordering(size), self._systems[1])
        return asking(self.name, fields, system, self._options, self._prompt_cache)

    def _shown(self, group: Sequence[int]) -> tuple[int, ...]:
        """The items in the order in which they are shown: random, and the same whenever these items meet."""
        salt = b"".join(sorted(self._marks[item] for item in group))
        return tuple(sorted(group, key=lambda item: _digest(salt, self._marks[item])))

    def _question(self, shown: Sequence[int]) -> str:
        tags = ["first", "second"] if len(shown) == 2 else [f"item_{number}" for number in range(1, len(shown) + 1)]
        return between(tags, [self._items[item] for item in shown])

    def _ranked(self, ranking: Ranking) -> Any:
        places: list[int] = []
        ranks: list[int] = []
        for tier in ranking.tiers:
            rows = sorted(row for item in tier for row in self._places[item])
            ranks += [len(places) + 1] * len(rows)
            places += rows
        best = self._subject.iloc[places[: self._k]]
        best = best.to_frame() if isinstance(best, pd.Series) else best.copy()
        levels = best.columns.nlevels
        best["rank" if levels == 1 else ("rank", *[""] * (levels - 1))] = np.array(ranks[: self._k], dtype=np.int64)
        return best

    def _comparisons(self) -> pd.DataFrame:
        """What was compared: the rows, and the same best first."""
        columns = {name: pd.Series([pair[at] for pair in self._compared], dtype=object) for at, name in enumerate(("rows", "best_first"))}
        return pd.DataFrame(columns)


def _order(shown: tuple[int, ...], answer: Any) -> tuple[int, ...] | None:
    if answer is None:
        return None
    if answer == "first":
        return shown
    if answer == "second":
        return shown[::-1]
    return tuple(shown[number - 1] for number in answer)


def _digest(salt: bytes, text: bytes) -> bytes:
    return hashlib.blake2b(salt + b"\0" + text, digest_size=16).digest()


def check_method(method: Any, both_ways: bool) -> None:
    """Refuse what there is not, and what does not go together."""
    if method not in ("auto", "quick", "tournament", "batched"):
        raise BadInput(f'method is "auto", "quick", "tournament" or "batched", not {method!r}')
    if both_ways and method == "batched":
        raise BadInput('both_ways asks a pair in both orders; with method="batched" there are no pairs')
