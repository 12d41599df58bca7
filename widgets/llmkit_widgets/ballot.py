"""A blind vote: who answered is hidden, the order is another one in each row, and what was voted stays."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import llmkit

__all__ = ["BOTH_BAD", "TIE", "Ballot", "letter"]

TIE, BOTH_BAD = "tie", "both bad"


def letter(place: int) -> str:
    """What the answer at this place is called."""
    return chr(ord("A") + place)


class Ballot:
    """The votes on rows that several columns answered.

    Parameters
    ----------
    seed : int
        Which order each row has; the same seed gives the same orders.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        #: Whether names are hidden; ended by ``reveal``.
        self.open = False
        #: By row: the label that won, ``TIE`` or ``BOTH_BAD``.
        self.votes: dict[int, str] = {}

    def order(self, row: int, count: int) -> list[int]:
        """The columns of a row, from the first place to the last."""
        return random.Random(f"{self.seed} {row}").sample(range(count), count)

    def vote(self, row: int, choice: str, labels: Sequence[str]) -> None:
        """Count one vote: a letter, ``TIE`` or ``BOTH_BAD``. It cannot be taken back."""
        if not self.open:
            raise llmkit.BadInput("begin a blind vote first: whoever knows the names votes for them")
        if row in self.votes:
            raise llmkit.BadInput("this row is voted on, and a vote stays")
        letters = [letter(place) for place in range(len(labels))]
        if choice not in (*letters, TIE, BOTH_BAD):
            raise llmkit.BadInput(f"a vote is {', '.join(letters)}, {TIE!r} or {BOTH_BAD!r}")
        self.votes[row] = choice if choice in (TIE, BOTH_BAD) else labels[self.order(row, len(labels))[letters.index(choice)]]

    def shares(self, labels: Sequence[str]) -> dict[str, float]:
        """Of all votes the part that each column has; a tie is shared by all, a vote for none is nobody's."""
        if not self.votes:
            return {}
        counts = Counter(self.votes.values())
        each = counts[TIE] / len(labels) if labels else 0.0
        return {label: (counts[label] + each) / len(self.votes) for label in labels}

    def wins(self, label: str) -> int:
        return sum(1 for winner in self.votes.values() if winner == label)
