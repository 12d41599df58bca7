"""What the rows say, and what the right answer to each is. The standard library alone: rivals' environments import it too.

A text carries its number as ``#0000017``; an answer to it carries the same number, so that each contestant's rows can be checked.
"""

from __future__ import annotations

import math
import random
import re

#: Seconds that half of all answers take in the benchmarks with latency, and how far the others lie from it (of the logarithm).
MEDIAN_LATENCY = 0.4
_SIGMA = 0.5

MARK = re.compile(r"#\d{7}")

_TICKET = "The parcel came nine days late, the box was open, and the customer asks who pays for the broken cup."


def text(number: int) -> str:
    """The cell of a row: about what a support ticket's first line has."""
    return f"#{number:07d} {_TICKET}"


def answer(number: int) -> str:
    """What chat answers to the prompt that holds ``text(number)``."""
    return f"#{number:07d}: a late and damaged parcel; the customer wants a refund."


def fields(number: int) -> dict[str, object]:
    """The same where five fields are asked for."""
    return {"summary": answer(number), "product": "cup", "days_late": 9, "damaged": True, "refund": 12.5}


def long_text(number: int, characters: int) -> str:
    """A cell of that many characters."""
    return (f"#{number:07d} " + f"{_TICKET} " * (characters // len(_TICKET) + 1))[:characters]


def latency(number: int) -> float:
    """Seconds that the answer to ``text(number)`` takes: the same for every contestant."""
    return random.Random(number).lognormvariate(math.log(MEDIAN_LATENCY), _SIGMA)


#: Of the attempts: answered with a 500, cut off, never answered.
_FAULTS = (("fail", 0.02), ("cut", 0.01), ("hang", 0.01))


def fault(number: int, attempt: int) -> str | None:
    """What befalls the row's first, second, ... attempt, if anything: the same for every contestant."""
    draw = random.Random(f"{number} {attempt}").random()
    for what, share in _FAULTS:
        if draw < share:
            return what
        draw -= share
    return None
