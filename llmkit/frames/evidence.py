"""Where in a row's text a value was read: the model quotes, and only a quote that is found in the row's own cells counts."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from ..operations.schemas import Extracted, Fields, name_in_json

__all__ = ["Cells", "Grounded", "Quoted", "Span", "named_model"]


class Span(BaseModel):
    """A piece of a cell: ``text`` is ``cell[start:stop]`` of the row's cell in ``column``."""

    column: str
    text: str
    start: int
    stop: int


class Quoted(dict[str, Any]):
    """The fields of a record, and what the model quoted for each."""

    __slots__ = ("quotes",)

    def __init__(self, data: dict[str, Any], quotes: dict[str, str | None]) -> None:
        super().__init__(data)
        self.quotes = quotes


# ---------------------------------------------------------------------------------------------------------- what is asked


def named_model(title: str, names: Iterable[str], kind: Any, *, default: Any = ..., about: str = "") -> type[BaseModel]:
    """A model with a member of this kind under each name.

    In Python the members are ``field_0``, ``field_1``, ...: a field may be called like a keyword, or like a method of pydantic's.
    """
    config = ConfigDict(extra="ignore", coerce_numbers_to_str=True, title=title)
    members: dict[str, Any] = {f"field_{place}": (kind, Field(default, alias=name)) for place, name in enumerate(names)}
    made: type[BaseModel] = create_model(title, __config__=config, __doc__=about, **members)
    return made


def _names_in_json(record: type[BaseModel]) -> dict[str, str]:
    """The fields, and what a model reads and writes them as."""
    return {name: name_in_json(name, info) for name, info in record.model_fields.items()}


_QUOTES = (
    "For each field a short quote that its value was read from: copied character for character from the data, only the words that say it; "
    "null where the data does not say it."
)


class Grounded(Fields):
    """The same fields, asked for with a quote for each: ``{"fields": {...}, "evidence": {"name": "its quote" or null}}``.

    The model of the caller's is left as it is, with its validators; of nested fields the top one is quoted. Where a row has any number of
    records, each of them is such a pair.
    """

    def __init__(self, fields: Fields) -> None:
        assert fields.record is not None
        config = ConfigDict(extra="forbid")
        names = _names_in_json(fields.record)
        quotes = named_model("Evidence", names.values(), str | None, default=None, about=_QUOTES)
        pair = create_model(
            "Grounded",
            __config__=config,
            fields=(fields.record, ...),
            evidence=(quotes, Field(default_factory=quotes, description=_QUOTES)),
        )
        if fields.kind == "records":
            model: type[BaseModel] = create_model(f"{fields.name}Grounded", __config__=config, items=(list[pair], ...))  # type: ignore[valid-type]
        else:
            model = pair
        super().__init__(fields.name, fields.kind, model, fields.record)
        self._names = list(names)

    def read(self, text: str, cut: bool = False) -> Extracted:
        return self._apart(super().read(text, cut))

    def checked(self, raw: str | bytes) -> Extracted:
        return self._apart(super().checked(raw))

    def _apart(self, found: Extracted) -> Extracted:
        found.data = [self._quoted(one) for one in found.data] if self.kind == "records" else self._quoted(found.data)
        return found

    def _quoted(self, pair: dict[str, Any]) -> Quoted:
        return Quoted(pair["fields"], dict(zip(self._names, pair["evidence"].values(), strict=True)))


# --------------------------------------------------------------------------------------------------------------- matching


class Cells:
    """One row's cells, in which quotes are looked up: as they are written first, then without regard to what copying changes.

    Which is: white space, case, styles of quotation marks and dashes, invisible characters, and the forms that Unicode has for one
    character. A number is found as a whole only, a word as a whole where it can be.

    Parameters
    ----------
    cells : sequence of (column, text)
        In the order in which they are searched.
    """

    def __init__(self, cells: Sequence[tuple[str, str]]) -> None:
        self._cells = cells
        self._folded: dict[int, tuple[str, list[int]]] = {}

    def span(self, quote: str | None) -> dict[str, Any] | None:
        """Where the quote stands, ``None`` where it does not."""
        if not quote or quote.isspace():
            return None
        for column, text in self._cells:
            place = _first(text, quote)
            if place is not None:
                return _span(column, text, place, place + len(quote))
        for said in dict.fromkeys((_fold(quote)[0].strip(), _fold(quote.strip(_AROUND))[0].strip())):
            for number, (column, text) in enumerate(self._cells if said else ()):
                if number not in self._folded:
                    self._folded[number] = _fold(text)
                folded, origin = self._folded[number]
                place = _first(folded, said)
                if place is not None:
                    stop = origin[place + len(said) - 1] + 1
                    while stop < len(text) and unicodedata.combining(text[stop]):
                        stop += 1
                    return _span(column, text, origin[place], stop)
        return None


def _span(column: str, text: str, start: int, stop: int) -> dict[str, Any]:
    return {"column": column, "text": text[start:stop], "start": start, "stop": stop}


#: What models put around a quote.
_AROUND = " \t\n\"'`“”„‘’‚«»‹›…."

#: Occurrences that are looked at.
_MOST = 500


def _first(text: str, quote: str) -> int | None:
    """The first place where the quote stands as words of its own, else the first at all; a number that is part of another is no place."""
    found = None
    for place in _places(text, quote):
        stop = place + len(quote)
        before, after = text[max(0, place - 2) : place], text[stop : stop + 2]
        if (quote[0].isdigit() and _DIGITS_BEFORE.search(before)) or (quote[-1].isdigit() and _DIGITS_AFTER.match(after)):
            continue
        if not (before[-1:].isalnum() and quote[0].isalnum()) and not (after[:1].isalnum() and quote[-1].isalnum()):
            return place
        found = place if found is None else found
    return found


_DIGITS_BEFORE, _DIGITS_AFTER = re.compile(r"\d[.,]?$"), re.compile(r"[.,]?\d")


def _places(text: str, quote: str) -> Iterator[int]:
    place = text.find(quote)
    for _ in range(_MOST):
        if place < 0:
            return
        yield place
        place = text.find(quote, place + 1)


def _fold(text: str) -> tuple[str, list[int]]:
    """The text without what copying changes, and for each of its characters the place it comes from."""
    said: list[str] = []
    origin: list[int] = []
    for place, character in enumerate(text):
        for part in _folded(character):
            if part != " " or (said and said[-1] != " "):
                said.append(part)
                origin.append(place)
    return "".join(said), origin


@lru_cache(4096)
def _folded(character: str) -> str:
    if character.isspace():
        return " "
    if unicodedata.category(character) in ("Cf", "Cc"):
        return ""
    return unicodedata.normalize("NFKD", _ALIKE.get(character, character)).casefold().replace("\u2044", "/")


_ALIKE = dict.fromkeys("“”„‟«»＂″", '"') | dict.fromkeys("‘’‚‛‹›´`′", "'") | dict.fromkeys("‐‑‒–—―−﹣－", "-")
