"""The k best of many items by comparing few at a time: by a tournament, or by quick-select.

Nothing is known here of models or frames. Items are numbers from 0; their order is taken for a random one. ``ask(groups)`` compares
the items of each group, all groups at once, and gives back each group best first, or ``None`` where there is no verdict.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice, pairwise, takewhile

__all__ = ["Ask", "Ranking", "expected_of_quick", "expected_of_tournament", "quick", "tournament"]

Group = tuple[int, ...]
Ask = Callable[[list[Group]], list[Group | None]]

#: Comparisons of an item that may fail before one succeeds; then it is set apart.
_PATIENCE = 3


@dataclass(slots=True)
class Ranking:
    """Tiers of items, best first, and the items that could be compared with none.

    A tier has one item, or several whose comparisons with one another all failed.
    """

    tiers: list[list[int]] = field(default_factory=list)
    apart: list[int] = field(default_factory=list)


class _Tournament:
    """Whoever loses stands under the one it lost to, and is back in play when that one is ranked."""

    def __init__(self, ask: Ask, at_once: int) -> None:
        self.ask = ask
        self.at_once = at_once
        self.under: defaultdict[int, list[int]] = defaultdict(list)
        #: Items that took part in a comparison that came to a verdict.
        self.known: set[int] = set()
        self.apart: list[int] = []
        self._failures: Counter[int] = Counter()
        self._refused: set[frozenset[int]] = set()
        #: Of them those that failed with one that is known to be comparable.
        self._told: set[int] = set()
        #: How many of those that the other one has beaten an item was compared with in its stead.
        self._tried: Counter[tuple[int, int]] = Counter()
        #: The most that a group with this item may have, after one failed: a smaller one may fit where it did not.
        self._most: dict[int, int] = {}

    def learn(self, best_first: Sequence[int]) -> None:
        """What is known already."""
        self.known.update(best_first)
        for better, worse in pairwise(best_first):
            self.under[better].append(worse)

    def best(self, contenders: Iterable[int], k: int) -> Ranking:
        tiers: list[list[int]] = []
        in_play = list(contenders)
        while in_play and sum(map(len, tiers)) < k:
            winners = self._play(in_play)
            if winners:
                tiers.append(winners)
            in_play = [loser for winner in winners for loser in self.under.pop(winner, [])]
        return Ranking(tiers, self.apart)

    def _play(self, in_play: list[int]) -> list[int]:
        """The winner of those in play; several where none of the comparisons left can be decided."""
        while len(in_play) > 1:
            groups = self._groups(in_play)
            if groups:
                lost = self._lost_in(groups)
            else:
                lost = self._lost_to_others(in_play)
                if not lost:
                    self.apart += [item for item in in_play if item not in self.known]
                    return sorted(item for item in in_play if item in self.known)
            given_up = {item for item in in_play if self._hopeless(item)}
            self.apart += sorted(given_up)
            in_play = [item for item in in_play if item not in lost and item not in given_up]
        alone = [item for item in in_play if self._failures[item] and item not in self.known]
        self.apart += alone  # the last of those that all failed is no winner
        return [item for item in in_play if item not in alone]

    def _lost_in(self, groups: list[Group]) -> set[int]:
        lost: set[int] = set()
        for group, order in zip(groups, self.ask(groups), strict=True):
            if order is not None:
                self.learn(order)
                lost.update(order[1:])
                continue
            if len(group) == 2:
                self._refused.add(frozenset(group))
                self._failures.update(group)
                self._told.update(item for item, other in (group, group[::-1]) if other in self.known)
            for item in group:
                self._most[item] = max(2, len(group) // 2)
        return lost

    def _lost_to_others(self, rivals: list[int]) -> set[int]:
        """Rivals whose own comparison failed are compared with those that the other one has beaten: who loses to them loses to it."""
        pairs: list[Group] = []
        above: list[int] = []
        for item in rivals:
            for other in rivals:
                tried = self._tried[item, other]
                if item != other and tried < min(_PATIENCE, len(self.under[other])):
                    pairs.append((item, self.under[other][tried]))
                    above.append(other)
                    self._tried[item, other] += 1
                    break
        if not pairs:
            return set()
        lost: set[int] = set()
        for (item, beaten), other, order in zip(pairs, above, self.ask(pairs), strict=True):
            if order is not None:
                self.known.add(item)
                if order[0] == beaten and other not in lost:  # else each would stand under the other, where nobody finds them
                    self.under[beaten].append(item)
                    lost.add(item)
        return lost or self._lost_to_others(rivals)

    def _hopeless(self, item: int) -> bool:
        if item in self.known or self._failures[item] < _PATIENCE:
            return False
        return item in self._told or not self.known

    def _groups(self, in_play: list[int]) -> list[Group]:
        """Who plays whom next: in groups as large as they may be; empty where every pair has failed."""
        groups: list[Group] = []
        small: list[int] = []
        largest_first = sorted(in_play, key=lambda item: -self._most.get(item, self.at_once))
        at = 0
        while at < len(largest_first):
            most = self._most.get(largest_first[at], self.at_once)
            last = largest_first[min(at + most, len(largest_first)) - 1]
            size = min(most, self._most.get(last, self.at_once))
            group = largest_first[at : at + size]
            at += size
            if len(group) > 2:
                groups.append(tuple(group))
            else:
                small += group
        return groups + self._pairs(small) if groups or len(small) > 1 else []

    def _pairs(self, in_play: list[int]) -> list[Group]:
        # An item that failed meets one that is known to be comparable, so that it is clear which of the two is at fault.
        troubled = [item for item in in_play if self._failures[item]]
        calm = [item for item in in_play if not self._failures[item]]
        calm.sort(key=lambda item: item not in self.known)
        groups: list[Group] = []
        taken: set[int] = set()
        for item in troubled:
            if item not in taken:
                free = (other for other in chain(calm, troubled) if other != item and other not in taken)
                other = next((one for one in free if frozenset((item, one)) not in self._refused), None)
                if other is not None:
                    taken |= {item, other}
                    groups.append((item, other))
        left = [item for item in calm if item not in taken]
        return groups + list(zip(left[::2], left[1::2], strict=False))


def tournament(items: int, k: int, ask: Ask, at_once: int = 2) -> Ranking:
    """Items play in groups of ``at_once``; for each further place those play again who lost only to ranked ones.

    About ``(items - 1) / (at_once - 1)`` comparisons for the first place, and ``log(items)`` for each other, in few rounds.
    """
    return _Tournament(ask, at_once).best(range(items), k)


def quick(items: int, k: int, ask: Ask) -> Ranking:
    """Split at a pivot, again and again, wherever the first k places are not settled; about ``2 * items`` comparisons in a few rounds.

    An item whose comparison with a pivot failed is held out, neither above nor below it, and plays a tournament with the best at the end.
    """
    held: list[int] = []
    known = False
    #: Items in no order, and how many pivots in succession came to no verdict with any of them.
    segments: list[tuple[list[int], int]] = [(list(range(items)), 0)]
    while True:
        opened, before = [], 0
        for place, (segment, _) in enumerate(segments):
            if before < k and len(segment) > 1:
                opened.append(place)
            before += len(segment)
        if not opened:
            break
        groups: list[Group] = [(segments[place][0][0], other) for place in opened for other in segments[place][0][1:]]
        orders = iter(zip(groups, ask(groups), strict=True))
        pieces: dict[int, list[tuple[list[int], int]]] = {}
        for place in opened:
            (pivot, *others), barren = segments[place]
            above: list[int] = []
            below: list[int] = []
            failed: list[int] = []
            for (_, other), order in islice(orders, len(others)):
                (failed if order is None else above if order[0] == other else below).append(other)
            if above or below:
                known = True
                held += failed
                pieces[place] = [(above, 0), ([pivot], 0), (below, 0)]
            elif barren + 1 < _PATIENCE:  # the pivot itself is what cannot be compared
                held.append(pivot)
                pieces[place] = [(failed, barren + 1)]
            else:
                held += [pivot, *failed]
                pieces[place] = []
        if not known and not any(pieces.values()):
            return Ranking([], sorted(held))
        segments = [piece for place, segment in enumerate(segments) for piece in pieces.get(place, [segment]) if piece[0]]
    best = [segment[0] for segment, _ in takewhile(lambda segment: len(segment[0]) == 1, segments)][:k]
    final = _Tournament(ask, 2)
    if known:
        final.learn(best)
    return final.best([*best[:1], *held], k)


def expected_of_tournament(items: int, k: int, at_once: int = 2) -> int:
    """Comparisons that a tournament needs where none fails."""
    if items < 2:
        return 0
    levels = math.ceil(math.log(items, at_once) - 1e-9)
    again = math.ceil(max(levels - 1, 1) / (at_once - 1))
    return math.ceil((items - 1) / (at_once - 1)) + (min(k, items) - 1) * again


def expected_of_quick(items: int, k: int) -> int:
    """Comparisons that quick-select is expected to need where none fails (C. Martinez, Partial quicksort, 2004)."""
    if items < 2:
        return 0
    k = min(k, items)
    return math.ceil(2 * items + 2 * (items + 1) * _harmonic(items) - 2 * (items + 3 - k) * _harmonic(items + 1 - k) - 6 * k + 6)


def _harmonic(n: int) -> float:
    return sum(1 / i for i in range(1, n + 1))
