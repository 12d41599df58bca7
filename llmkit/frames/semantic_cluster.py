"""``cluster``: groups of like rows, each named by a chat model from its most typical ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ..operations.chat import delimited
from ..operations.semantic import NAME, about_group, asking
from ..operations.windows import estimated_tokens
from ..types import Estimate
from .columns import TEXT
from .estimates import nothing
from .procedure import Procedure
from .semantic_asking import EMBEDDING, Asker, Questions, Rows, Stages, at_most, different, room_for_data, sum_of, text_table
from .semantic_groups import MOST_GROUPS, Grouping, best_number, grouped

__all__ = ["Clustering"]


class Clustering:
    """A named group for each row.

    Parameters
    ----------
    rows : Rows
        As data.
    index : Index
        Of the frame.
    n : int or None
        Groups; ``None`` finds out.
    examples : int
        Rows that a group is named by.
    instructions, system : str or None
    random_state : int
    options, prompt_cache
        Of every request.
    asker, embedder : callable
        Find who is asked; called where there is anything to ask.
    detail : bool
        Hand back a frame.
    """

    name = "cluster"

    def __init__(
        self, rows: Rows, index: pd.Index[Any], n: int | None, examples: int, instructions: str | None, system: str | None,
        random_state: int, options: Mapping[str, Any], prompt_cache: str, asker: Any, embedder: Any, detail: bool,
    ) -> None:  # fmt: skip
        self._index, self._n, self._examples, self._random_state, self._detail = index, n, examples, random_state, detail
        self._texts, self._places, self._codes = different(rows.texts(0, len(rows)))
        self._rows, self._missing = len(rows), int((self._codes < 0).sum())
        self._embedder: Asker | None = embedder() if self._texts else None
        self._asker: Asker | None = asker() if self._texts else None
        self._most = min(n or MOST_GROUPS, len(self._texts))
        said = about_group(instructions, system)
        self._asking = asking(self.name, NAME, said, options, prompt_cache)
        self._room = room_for_data(self._asker.route, said, options)[0] if self._asker is not None else 0
        self.targets = [name for one in (self._embedder, self._asker) if one is not None for name in one.names]
        self.expected = len(self._texts) + self._most
        self.said = f"{len(self._texts):,} texts to embed, {'' if n else 'at most '}{self._most:,} groups to name"

    def _question(self, places: Any) -> str:
        """The texts, as many as the model reads at once."""
        said: list[str] = []
        left = float(self._room)
        for place in places:
            text = delimited("text", self._texts[place])
            left -= estimated_tokens(text)
            if left < 0 and said:
                break
            said.append(text)
        return "\n".join(said)

    def estimate(self) -> Estimate:
        if self._embedder is None or self._asker is None:
            return nothing("there are no rows", self._rows, self._missing)
        first = self._embedder.estimate(EMBEDDING, text_table(self._texts))
        sample = self._asker.estimate(
            self._asking, Questions.of([self._question(range(min(self._examples, len(self._texts))))]), stored=False
        )
        basis = "to name the groups, stored or not"
        return sum_of([first, at_most(sample, self._most, 0, 0, 0, basis)], self._rows, self._missing)

    # ----------------------------------------------------------------------------------------------------------------- steps

    def steps(self, procedure: Procedure[Any]) -> Any:
        stages = Stages(procedure, self._index)
        if self._embedder is None or self._asker is None:
            return self._result(np.empty(0, np.intp), None, [], [])
        vectors = stages.embed(self._embedder, self._texts, self._places)
        there = np.flatnonzero(~np.isnan(vectors).any(axis=1))
        if stages.spent is not None:
            raise stages.spent  # groups of some of the rows are not those of all
        if not len(there):
            return self._result(there, None, [], [])
        lost = len(vectors) - len(there)
        if lost:
            stages.failed(f"{lost:,} texts got no vector and are in no group")
        weights = np.array([len(self._places[place]) for place in there.tolist()], dtype=np.float64)
        found = vectors[there]
        n = self._n if self._n is not None else best_number(found, weights, self._random_state)
        grouping = grouped(found, weights, min(n, len(found)), self._random_state)
        names = self._named(stages, grouping, there)
        procedure.expect(0)
        labels = _told_apart([None if name is None else str(name["name"]).strip() for name in names])
        return self._result(there, grouping, labels, [None if name is None else str(name["description"]) for name in names])

    def _named(self, stages: Stages, grouping: Grouping, there: Any) -> list[Any]:
        assert self._asker is not None
        questions, rows_of = [], []
        for number in range(len(grouping.centres)):
            members = np.flatnonzero(grouping.group == number)
            central = there[members[np.argsort(grouping.distance[members], kind="stable")][: self._examples]].tolist()
            questions.append(self._question(central))
            rows_of.append([row for place in there[members].tolist() for row in self._places[place]])
        names = stages.ask(self._asker, self._asking, questions, rows_of, "name")
        nameless = sum(name is None for name in names)
        if nameless:
            stages.failed(f"{nameless:,} groups got no name, and their rows are missing (detail=True has them)")
        return names

    def _result(self, there: Any, grouping: Grouping | None, labels: list[str | None], descriptions: list[str | None]) -> Any:
        length = len(self._index)
        group_of_text = np.full(len(self._texts), -1, dtype=np.intp)
        distance_of_text = np.full(len(self._texts), np.nan)
        if grouping is not None:
            group_of_text[there] = grouping.group
            distance_of_text[there] = grouping.distance
        codes = np.full(length, -1, dtype=np.intp)
        codes[: len(self._codes)] = self._codes
        known = codes >= 0
        group = np.full(length, -1, dtype=np.intp)
        distance = np.full(length, np.nan)
        group[known], distance[known] = group_of_text[codes[known]], distance_of_text[codes[known]]
        categories = [label for label in labels if label is not None]
        place = {label: at for at, label in enumerate(categories)}
        at_label = np.array([*(-1 if label is None else place[label] for label in labels), -1], dtype=np.intp)
        names = pd.Categorical.from_codes(at_label[group], dtype=pd.CategoricalDtype(categories))
        if not self._detail:
            return pd.Series(names, index=self._index, name="cluster")
        columns = {
            "cluster": pd.arrays.IntegerArray(group.astype(np.int64), group < 0),
            "name": names,
            "description": pd.array([descriptions[number] if number >= 0 else None for number in group.tolist()], dtype=TEXT),
            "distance": pd.arrays.FloatingArray(distance, np.isnan(distance)),
        }
        return pd.DataFrame(columns, index=self._index)


def _told_apart(names: list[str | None]) -> list[str | None]:
    """Two groups that were given one name stay two: "billing", "billing (2)"."""
    taken: set[str] = set()
    found: list[str | None] = []
    for name in names:
        label, number = name, 1
        while label is not None and label in taken:
            number += 1
            label = f"{name} ({number})"
        if label is not None:
            taken.add(label)
        found.append(label)
    return found
