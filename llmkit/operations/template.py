"""A prompt with ``{column}`` in it: parsed once, rendered for every row."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from ..errors import BadInput

__all__ = ["Template"]


class Template:
    """A prompt with ``{column}`` in it.

    Only a bare column name in braces is replaced; other braces, such as JSON, stay as they are. ``{{column}}`` gives ``{column}``. Cell
    text is put in as it is and never looked at again. No attributes, no indexing, no format codes.

    Parameters
    ----------
    text : str
        The prompt as the user wrote it.
    columns : sequence
        The names that may stand in braces.
    what : str
        What these are names of, for the messages.

    Raises
    ------
    BadInput
        A name in braces that is no column (the nearest is named), or anything but a bare name of one.
    """

    def __init__(self, text: str, columns: Sequence[Any], what: str = "column") -> None:
        if not isinstance(text, str):
            raise BadInput(f"a prompt is a string with {{{what}}} in it, not {type(text).__name__}")
        names = [name for name in columns if isinstance(name, str)]
        #: Literal pieces and column names in turn: even places are literal, odd ones are columns.
        self.pieces = _parse(text, names, what)
        self.columns = list(dict.fromkeys(self.pieces[1::2]))
        twice = [name for name in self.columns if names.count(name) > 1]
        if twice:
            raise BadInput(f"the frame has several columns named {twice[0]!r}; rename them so that {{{twice[0]}}} means one")

    def render(self, cells: Mapping[str, str]) -> str:
        pieces = self.pieces
        if len(pieces) == 3:  # the usual prompt has one column
            return pieces[0] + cells[pieces[1]] + pieces[2]
        return "".join(cells[piece] if i & 1 else piece for i, piece in enumerate(pieces))

    def lead(self, cells: Mapping[str, str], places: int) -> str:
        """The beginning of what ``render`` gives: its first so many pieces."""
        return "".join(cells[piece] if i & 1 else piece for i, piece in enumerate(self.pieces[:places]))


_BARE = re.compile(r"[^\W\d]\w*\Z")
_REACHING = re.compile(r"\s*([^\W\d]\w*)\s*[.\[!:]")
_SPACED = re.compile(r"\s*([^\W\d]\w*)\s*\Z")


def _parse(text: str, names: list[str], what: str) -> list[str]:
    known = set(names)
    pieces, literal = [], []
    opened: list[bool] = []  # one entry for each open brace: whether it was an escaped pair
    i, end = 0, len(text)
    while i < end:
        char = text[i]
        if char == "{":
            if text.startswith("{{", i):
                literal.append("{")
                opened.append(True)
                i += 2
                continue
            close = text.find("}", i)
            inside = text[i + 1 : close] if close > 0 else ""
            if inside in known:
                pieces += ["".join(literal), inside]
                literal = []
                i = close + 1
                continue
            _refuse_near_miss(inside, names, what)
            literal.append("{")
            opened.append(False)
        elif char == "}":
            literal.append("}")
            if opened and opened.pop() and text.startswith("}}", i):
                i += 1
        else:
            stop = min((at for at in (text.find("{", i), text.find("}", i)) if at >= 0), default=end)
            literal.append(text[i:stop])
            i = stop
            continue
        i += 1
    pieces.append("".join(literal))
    return pieces


def _refuse_near_miss(inside: str, names: list[str], what: str) -> None:
    if _BARE.match(inside):
        near = get_close_matches(inside, names, 1, 0.6) or get_close_matches(inside.lower(), names, 1, 0.5)
        hint = f"Did you mean {{{near[0]}}}?" if near else _listing(names, what)
        raise BadInput(f"the prompt names {{{inside}}}, which is no {what}. {hint} Write {{{{{inside}}}}} for literal braces.")
    reaching = _REACHING.match(inside) or _SPACED.match(inside)
    if reaching and reaching[1] in names:
        raise BadInput(
            f"the prompt has {{{inside}}}: only a bare {{{reaching[1]}}} is replaced, without spaces, attributes, indexes or format codes. "
            f"Make a {what} of what you mean first, or write {{{{{inside}}}}} for literal braces."
        )


def _listing(names: Sequence[str], what: str) -> str:
    shown = ", ".join(map(repr, names[:8])) + (", ..." if len(names) > 8 else "")
    return f"The {what}s are {shown}." if shown else f"No {what} has a name that can stand in braces."
