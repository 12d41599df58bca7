"""Long texts as windows that fit a model, cut at spaces or sentences, overlapping a little so that nothing is lost at a seam.

Tokens are estimated from characters, on the high side; no tokenizer is downloaded for it.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

__all__ = ["estimated_tokens", "holds_many", "windows"]

#: Tenths of a token per character, on the high side: a bound, not a count. English prose runs at 0.22 to 0.25 with the byte-pair
#: vocabularies of today, digits go by ones to threes, the alphabets of Europe beyond ASCII at 0.3 to 0.6, and a character of Chinese,
#: Japanese or Korean at about one. Whole numbers, so that sums are exact.
_LETTER, _OTHER_ASCII, _ALPHABET, _IDEOGRAM, _RARE = 3, 6, 8, 13, 30


def _costs(text: str) -> npt.NDArray[np.int64]:
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    costs = np.full(len(points), _IDEOGRAM, dtype=np.int64)
    costs[points >= 0x10000] = _RARE
    costs[points < 0x0700] = _ALPHABET
    costs[points < 0x80] = _OTHER_ASCII
    letters = ((points | 32) >= ord("a")) & ((points | 32) <= ord("z"))
    costs[letters | (points == ord(" "))] = _LETTER
    return costs


def estimated_tokens(text: str) -> float:
    """Tokens of a text, rather too many than too few."""
    return int(_costs(text).sum()) / 10


def holds_many(length: int, most_tokens: int) -> bool:
    """Whether a text of so many characters can have more tokens than these: told at once, where most texts are short."""
    return length * _RARE > 10 * most_tokens


#: Where a text for reading is best cut: after a paragraph, a sentence, a line, a word.
_SEAMS = (
    re.compile(r"\n[ \t\r]*\n\s*"),
    re.compile(r"[.!?…][\"'”’)\]]*\s+|[。！？][」』”’）]*|[।؟۔]\s*"),
    re.compile(r"\n"),
    re.compile(r"\s+"),
)


def _last_seam(text: str, low: int, high: int) -> int:
    """Where the last paragraph between two places ends, else the last sentence, line or word; 0 where none does."""
    for seam in _SEAMS:
        ends = [found.end() for found in seam.finditer(text, low, high)]
        if ends:
            return ends[-1]
    return 0


def _first_seam(text: str, low: int, high: int) -> int:
    """Where the first sentence between two places begins, else the first line or word; 0 where none does."""
    for seam in _SEAMS[1:]:
        found = seam.search(text, low, high)
        if found is not None:
            return found.end()
    return 0


def windows(text: str, most_tokens: int, overlap: float = 0.1, *, sentences: bool = False) -> list[str]:
    """The text in pieces of at most ``most_tokens``, each beginning ``overlap`` of a window before the last one ended.

    With ``sentences`` a piece ends with a paragraph where one ends in its second half, else with a sentence, and begins with a sentence.

    Examples
    --------
    >>> windows("one two three four five six", 4, overlap=0.0)
    ['one two ', 'three four ', 'five six']
    """
    most = 10 * most_tokens
    if not holds_many(len(text), most_tokens):
        return [text]
    spent = np.cumsum(_costs(text))
    if spent[-1] <= most:
        return [text]
    pieces, start, length = [], 0, len(text)
    while True:
        before = int(spent[start - 1]) if start else 0
        end = max(start + 1, int(np.searchsorted(spent, before + most, side="right")))
        if end >= length:
            pieces.append(text[start:])
            return pieces
        half = start + (end - start) // 2
        end = (_last_seam(text, half, end) if sentences else text.rfind(" ", half, end) + 1) or end
        pieces.append(text[start:end])
        back = int(np.searchsorted(spent, spent[end - 1] - overlap * most, side="right"))
        start = max(start + 1, min(end, back))
        if start < end:
            start = (_first_seam(text, start, end) if sentences else text.find(" ", start, end) + 1) or start
