"""``run.view()``: what was extracted beside the text it was read from, as a static page.

Nothing in it runs and nothing is fetched, and whatever came out of a cell, an answer or an error is text: a notebook that is sent on shows
the page as it is. Notebooks that are not trusted drop style sheets, and of an element's own style whatever they do not know, so there is no
style sheet, and what is dropped is no loss: marks are black on a light tint, on light pages and on dark ones.
"""

from __future__ import annotations

import html
import json
import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from ..drawing import COLOURS, RED
from ..errors import BadInput
from ..run import Run
from .extraction import Extraction
from .voting import agreement_of

__all__ = ["View", "view_of"]

#: Red, green and blue of each.
_COLOURS = tuple(tuple(bytes.fromhex(colour[1:])) for colour in COLOURS)

_TD = "text-align:left;vertical-align:top;padding:6px 10px;border-top:1px solid #999999;white-space:normal;overflow-wrap:anywhere"
_CELL = "white-space:pre-wrap;margin-bottom:8px"

#: Characters of a cell around its marks, and at its beginning, that are shown; what a value or an error may have.
_AROUND = 300
_OPENING = 1200
_LONGEST = 400


class View:
    """A page of rows; a notebook shows it by itself.

    Attributes
    ----------
    html : str
        The page, whole.
    """

    def __init__(self, title: str, body: str) -> None:
        self._title = title
        self._body = body

    @property
    def html(self) -> str:
        return (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
            '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">'
            f"<title>{_escaped(self._title)}</title><style>:root{{color-scheme:light dark}}"
            "body{font:15px/1.5 system-ui,sans-serif;margin:1.5rem;background:Canvas;color:CanvasText}</style></head>"
            f"<body>{self._repr_html_()}</body></html>\n"
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the page to a file; its path."""
        target = Path(path)
        target.write_text(self.html, encoding="utf-8", errors="replace")
        return target

    def _repr_html_(self) -> str:
        # The first two classes keep a notebook from reading dollars in a text as mathematics.
        return f'<div class="tex2jax_ignore mathjax_ignore llmkit-view">{self._body}</div>'

    def __repr__(self) -> str:
        return f"<View: {self._title}; .save(path) writes it as HTML>"


def view_of(extraction: Extraction, run: Run[Any], rows: int) -> View:
    """The first so many rows of a run."""
    if not isinstance(rows, int) or isinstance(rows, bool) or rows < 1:
        raise BadInput(f"rows is a whole number of rows to show, not {rows!r}")
    answers = extraction.records(run, rows)
    errors = extraction.errors(run)
    why = {row: f"{kind}: {error}" for row, kind, error in zip(errors["row"], errors["kind"], errors["error"], strict=True)}
    unanswered = "nothing to ask" if run.done else "no answer yet"
    lines = [_row(extraction, row, records, why.get(row), unanswered) for row, records in enumerate(answers)]
    title = (
        f"{run.operation} with {' > '.join(run.models)}: {len(lines):,} of {len(extraction.table):,} rows, {len(errors):,} failed in all"
    )
    shares = (("row", 8), ("text", 52), ("fields", 40))
    head = "".join(f'<th style="{_TD};width:{share}%">{name}</th>' for name, share in shares)
    table = f'<table style="width:100%;border-collapse:collapse"><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'
    return View(title, f"<p>{_escaped(title)}</p>{table}")


def _row(extraction: Extraction, row: int, records: Sequence[Mapping[str, Any]] | None, error: str | None, unanswered: str) -> str:
    labels = extraction.labels
    texts = "".join(_cell(column, text, _spans(labels, records or (), column)) for column, text in extraction.texts(row))
    if error is not None:
        said = f'<div style="{_line(RED)}" dir="auto">{_escaped(_short(error))}</div>'
    elif records is None:
        said = f"<i>{unanswered}</i>"
    else:
        said = "".join(_fields(labels, record) for record in records) or "<i>no records</i>"
    label = _escaped(_short(str(extraction.shape.index[row])))
    return f'<tr><td style="{_TD}">{label}</td><td style="{_TD}">{texts}</td><td style="{_TD}">{said}</td></tr>'


def _cell(column: str, text: str, spans: Sequence[tuple[int, int, int, str]]) -> str:
    return f'<div><small><bdi>{_escaped(column)}</bdi></small></div><div style="{_CELL}" dir="auto">{_marked(text, spans)}</div>'


def _fields(labels: Mapping[str, str], record: Mapping[str, Any]) -> str:
    lines = []
    for place, (name, label) in enumerate(labels.items()):
        notes = []
        if agreement_of(name) in record:
            notes.append(f"{100 * record[agreement_of(name)]:.0f} % agree")
        verdict, reason = record.get(f"{name}_check"), record.get(f"{name}_check_reason")
        if verdict is not None and isinstance(reason, str):
            notes.append(f"{verdict}: {_short(reason)}")
        beside = f" <small>({_escaped('; '.join(notes))})</small>" if notes else ""
        style = _line(_colour(place))
        lines.append(f'<div style="{style}"><b><bdi>{_escaped(label)}</bdi></b>&ensp;{_value(record.get(name))}{beside}</div>')
    return f'<div style="margin-bottom:8px">{"".join(lines)}</div>'


def _value(value: Any) -> str:
    if value is None:
        return "<i>missing</i>"
    plain = to_jsonable_python(value, fallback=str)
    return f"<bdi>{_escaped(_short(plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)))}</bdi>"


def _line(colour: str) -> str:
    return f"border-left:4px solid {colour};padding-left:6px;margin-bottom:3px"


def _colour(place: int, tint: bool = False) -> str:
    parts = _COLOURS[place % len(_COLOURS)]
    return "#" + "".join(f"{255 - (255 - part) * 3 // 10 if tint else part:02x}" for part in parts)


# ---------------------------------------------------------------------------------------------------------------- marking


def _spans(labels: Mapping[str, str], records: Sequence[Mapping[str, Any]], column: str) -> list[tuple[int, int, int, str]]:
    """(start, stop, the field's place, what it is called) of what was read in this column."""
    found = set()
    for record in records:
        for place, (name, label) in enumerate(labels.items()):
            span = record.get(f"{name}_evidence")
            if isinstance(span, dict) and span["column"] == column:
                found.add((span["start"], span["stop"], place, label))
    return sorted(found)


def _marked(text: str, spans: Sequence[tuple[int, int, int, str]]) -> str:
    """The text, escaped, with its spans marked; of a long one the parts around them. Spans may overlap."""
    edges = sorted({0, len(text), *(edge for start, stop, _, _ in spans for edge in (start, stop))})
    parts = []
    for start, stop in pairwise(edges):
        over = [(place, name) for begin, end, place, name in spans if begin <= start and stop <= end]
        if not over:
            parts.append(_between(text, start, stop, bool(spans)))
            continue
        ending = [name for _, end, _, name in spans if end == stop]
        label = f'<sup dir="auto" style="font-size:70%">&thinsp;{_escaped(", ".join(ending))}</sup>' if ending else ""
        title = _escaped(", ".join(name for _, name in over))
        first = over[0][0]
        style = f"background-color:{_colour(first, tint=True)};color:#000000;border-bottom:2px solid {_colour(first)}"
        parts.append(f'<mark style="{style}" title="{title}">{_escaped(text[start:stop])}{label}</mark>')
    return "".join(parts)


def _between(text: str, start: int, stop: int, marks: bool) -> str:
    """Text between marks: of a long one what stands near them, or where there are none its beginning."""
    # Before the first mark the end of what is there, after the last one its beginning, between two both.
    before = 0 if start == 0 and marks else _AROUND if marks else _OPENING
    after = 0 if stop == len(text) else _AROUND
    if stop - start <= before + after:
        return _escaped(text[start:stop])
    left = stop - start - before - after
    note = f"<i> […{left:,} characters…] </i>"
    return f"{_escaped(text[start : start + before])}{note}{_escaped(text[stop - after : stop])}"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _escaped(text: str) -> str:
    return html.escape(text, quote=True)
