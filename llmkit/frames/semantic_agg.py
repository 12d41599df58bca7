"""``agg``: one answer about many rows, by way of answers about as many as a model reads at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..operations.chat import delimited
from ..operations.semantic import AGGREGATE, about_combining, about_many, about_part
from ..operations.windows import estimated_tokens, windows
from ..types import Estimate
from .columns import TEXT
from .estimates import nothing
from .procedure import Procedure
from .semantic_asking import Asker, Asking, Questions, Rows, Stages, at_most, room_for_data, sum_of

__all__ = ["Aggregating", "packed"]

#: Tokens that the tags around a piece amount to.
_TAGS = 12


@dataclass(slots=True)
class _Chunk:
    """What one request is about."""

    group: int
    text: str
    rows: list[int]


@dataclass(slots=True)
class _Group:
    rows: list[int] = field(default_factory=list)
    #: Answers about its parts that are still to be combined; one is the answer.
    answers: list[str] = field(default_factory=list)
    #: Requests about it that are under way.
    pending: int = 0
    failed: bool = False
    requests: int = 0


def packed(tokens: Sequence[float], room: float, fewest: int = 1) -> list[tuple[int, int]]:
    """Consecutive pieces of these sizes in as few chunks as fit the room one after another: (start, stop) each.

    A chunk has at least ``fewest`` pieces, also where they do not fit, as long as there are so many.
    """
    chunks, start, held = [], 0, 0.0
    for at, size in enumerate(tokens):
        if at > start and held + size > room and at - start >= fewest:
            chunks.append((start, at))
            start, held = at, 0.0
        held += size
    return [*chunks, (start, len(tokens))] if tokens else []


class Aggregating:
    """One answer for each group of rows.

    Parameters
    ----------
    rows : Rows
        As data.
    index : Index
        Of the frame.
    codes : (rows,) int array
        The group of each row; -1 is in none.
    groups : Index or None
        The names of the groups; ``None``: there is one, and its answer is handed back as it is.
    instruction, system : str
    options, prompt_cache
        Of every request.
    chunk_tokens : int or None
        Of data in one request.
    asker : callable
        Finds who is asked; called where there is anything to ask.
    detail : bool
        A line for each group, beside its answer.
    """

    name = "agg"

    def __init__(
        self, rows: Rows, index: pd.Index[Any], codes: npt.NDArray[np.intp], groups: pd.Index[Any] | None, instruction: str,
        system: str | None, options: Mapping[str, Any], prompt_cache: str, chunk_tokens: int | None, asker: Any, detail: bool,
    ) -> None:  # fmt: skip
        data = rows.data(0, len(rows))
        self._index, self._names, self._detail = index, groups, detail
        self._groups = [_Group() for _ in range(1 if groups is None else len(groups))]
        for row, text in enumerate(data):
            if text is not None and codes[row] >= 0:
                self._groups[codes[row]].rows.append(row)
        asked = sum(len(group.rows) for group in self._groups)
        self._rows, self._missing = len(data), len(data) - asked
        self._asker: Asker | None = asker() if asked else None
        self.targets = [] if self._asker is None else self._asker.names
        self._whole, self._part, self._combine = (
            self._asking(made(instruction, system), options, prompt_cache) for made in (about_many, about_part, about_combining)
        )
        self._chunks: list[list[_Chunk]] = [[] for _ in self._groups]
        if self._asker is not None:
            self._room, self._answer = room_for_data(self._asker.route, about_part(instruction, system), options, chunk_tokens)
            for number, group in enumerate(self._groups):
                self._chunks[number] = self._cut(number, group, data, rows)
                group.pending = len(self._chunks[number])
        self._combining = sum(self._combinations(len(chunks)) for chunks in self._chunks)
        self.expected = sum(map(len, self._chunks)) + self._combining
        self.said = f"{self.expected - self._combining:,} requests, and about {self._combining:,} to combine the answers"

    @staticmethod
    def _asking(system: str, options: Mapping[str, Any], prompt_cache: str) -> Asking:
        return AGGREGATE, {"prompt": "{question}", "system": system, "options": dict(options), "prompt_cache": prompt_cache}

    def _cut(self, number: int, group: _Group, data: Sequence[str | None], source: Rows) -> list[_Chunk]:
        pieces: list[tuple[int, str, float]] = []
        for row in group.rows:
            whole = data[row] or ""
            tokens = estimated_tokens(whole)
            if tokens <= self._room:
                pieces.append((row, whole, tokens))
            else:
                # A row longer than a request goes in several: cut, rather than left out.
                for part in windows(source.texts(row, row + 1)[0] or "", max(16, self._room - 3 * _TAGS), overlap=0.0):
                    text = delimited("part_of_row", part)
                    pieces.append((row, text, estimated_tokens(text)))
        spans = packed([tokens for _, _, tokens in pieces], self._room)
        chunks = []
        for place, (start, stop) in enumerate(spans):
            heading = f"Part {place + 1} of {len(spans)}.\n" if len(spans) > 1 else ""
            text = heading + "\n".join(piece for _, piece, _ in pieces[start:stop])
            chunks.append(_Chunk(number, text, list(dict.fromkeys(row for row, _, _ in pieces[start:stop]))))
        return chunks

    def _combinations(self, parts: int) -> int:
        """Requests to make one answer of so many, where each is as long as it may be."""
        together = 0
        while parts > 1:
            size = max(2, int(self._room / (self._answer + _TAGS)))
            together += parts // size + (parts % size > 1)
            parts = ceil(parts / size)
        return together

    def estimate(self) -> Estimate:
        if self._asker is None:
            return nothing("there are no rows", self._rows, self._missing)
        stages = []
        for asking, chunks in self._first():
            stages.append(self._asker.estimate(asking, Questions.of([chunk.text for chunk in chunks])))
        if self._combining:
            answers = Questions.of(["\n".join([delimited("answer", "word " * (3 * self._answer // 4))] * 2)])
            sample = self._asker.estimate(self._combine, answers, stored=False)
            basis = "to combine the answers, stored or not, if they are as long as they may be"
            stages.append(at_most(sample, self._combining, 0, 0, 0, basis))
        return sum_of(stages, self._rows, self._missing)

    def _first(self) -> list[tuple[Asking, list[_Chunk]]]:
        """Groups that one request holds, and the chunks of the others."""
        alone = [chunk for chunks in self._chunks if len(chunks) == 1 for chunk in chunks]
        parts = [chunk for chunks in self._chunks if len(chunks) > 1 for chunk in chunks]
        return [(asking, chunks) for asking, chunks in ((self._whole, alone), (self._part, parts)) if chunks]

    # ----------------------------------------------------------------------------------------------------------------- steps

    def steps(self, procedure: Procedure[Any]) -> Any:
        procedure.so_far = self._result
        stages = Stages(procedure, self._index)
        for asking, chunks in self._first():
            self._ask(stages, asking, chunks)
        while chunks := self._together():
            self._ask(stages, self._combine, chunks)
        procedure.expect(0)
        failed = sum(group.failed for group in self._groups)
        if failed:
            what = "there is no answer" if self._names is None else f"{failed:,} of {len(self._groups):,} groups have no answer"
            stages.failed(f"{what}, since a part of the rows got none")
        return self._result()

    def _ask(self, stages: Stages, asking: Asking, chunks: list[_Chunk]) -> None:
        assert self._asker is not None
        answers = stages.ask(self._asker, asking, [chunk.text for chunk in chunks], [chunk.rows for chunk in chunks], "agg")
        for chunk, answer in zip(chunks, answers, strict=True):
            group = self._groups[chunk.group]
            group.requests += 1
            group.pending -= 1
            if answer is None:
                group.failed = True  # an answer of the other parts would pass for one of all rows
            else:
                group.answers.append(answer)

    def _together(self) -> list[_Chunk]:
        """What is to be combined next. A group of which a part has failed is not gone on with."""
        chunks: list[_Chunk] = []
        for number, group in enumerate(self._groups):
            if group.failed or len(group.answers) < 2:
                continue
            said = [delimited("answer", answer) for answer in group.answers]
            spans = packed([estimated_tokens(text) for text in said], self._room, fewest=2)
            left = [group.answers[start] for start, stop in spans if stop - start == 1]
            chunks += [_Chunk(number, "\n".join(said[start:stop]), group.rows) for start, stop in spans if stop - start > 1]
            group.answers = left
            group.pending = len(spans) - len(left)
        return chunks

    def _answers(self) -> list[str | None]:
        whole = [len(group.answers) == 1 and not group.pending and not group.failed for group in self._groups]
        return [group.answers[0] if there else None for group, there in zip(self._groups, whole, strict=True)]

    def _result(self) -> Any:
        if self._detail:
            columns = {
                "value": pd.array(self._answers(), dtype=TEXT),
                "rows": [len(group.rows) for group in self._groups],
                "requests": [group.requests for group in self._groups],
            }
            return pd.DataFrame(columns, index=self._names)
        if self._names is None:
            return self._answers()[0]
        return pd.Series(pd.array(self._answers(), dtype=TEXT), index=self._names, name="agg")
