"""Long texts as windows that fit a model, cut at spaces, overlapping a little so that no sentence is lost at a seam.

Tokens are estimated from characters, on the high side; no tokenizer is downloaded for it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["estimated_tokens", "windows"]

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


def windows(text: str, most_tokens: int, overlap: float = 0.1) -> list[str]:
    """The text in pieces of at most ``most_tokens``, each beginning ``overlap`` of a window before the last one ended.

    Examples
    --------
    >>> windows("one two three four five six", 4, overlap=0.0)
    ['one two ', 'three four ', 'five six']
    """
    most = 10 * most_tokens
    if len(text) * _RARE <= most:
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
        seam = text.rfind(" ", start + (end - start) // 2, end)
        end = seam + 1 if seam > 0 else end
        pieces.append(text[start:end])
        back = int(np.searchsorted(spent, spent[end - 1] - overlap * most, side="right"))
        start = max(start + 1, min(end, back))
        space = text.find(" ", start, end) if start < end else -1
        start = space + 1 if space >= 0 else start
