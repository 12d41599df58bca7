"""What to extract, tried on a few rows: fields are edited, the rows fill, and what is good is carried out on the whole frame."""

from __future__ import annotations

import html
import json
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import pandas as pd

import llmkit

from .field_grid import CHOICES, KINDS, FieldGrid, Line
from .panel import Panel, action, table_html

__all__ = ["ExtractExplorer"]

#: Rows that a page of the table shows.
_PAGE = 10
#: Rows that a sample may have; the table is made anew ten times a second while they come.
_MOST = 200
#: Characters of a cell and of a value in the table, of a cell in a row's detail, and around what is marked.
_CELL, _VALUE, _WHOLE, _AROUND = 220, 120, 100_000, 60
#: Rows of the frame that an estimate looks at; of a longer frame the rest is taken to be alike.
_LOOKED_AT = 1_000
#: Before the names of the fields, so that none of them is one of the columns that tell how a row went.
_OURS = "."
#: Models that are suggested; any other may be typed.
_SUGGESTED = 30

_HOWS = ("head", "random", "chosen")


class ExtractExplorer(Panel):
    """Edit what is to be extracted, see it on sample rows at once, then have it done for all rows.

    Nothing is sent before ``run``, ``propose`` or ``promote``. Each of them goes on in the background; ``stop`` ends it and keeps what
    came. Answers are kept as all of llmkit's are: what was asked once is not sent, nor paid, again.

    Parameters
    ----------
    df : DataFrame
        It is looked at and never changed.
    on : column or list of columns
        What is read.
    schema : optional
        Where to begin: whatever ``df.llm.extract`` takes of one record a row, such as a pydantic class or a JSON schema.
    example : dict, optional
        Or one row as it may look, ``{"city": "Lyon", "people": 2}``.
    model : str, optional
        Any model's name; by default what llmkit takes where none is named.
    n : int
        Rows of the sample.
    evidence : bool
        Have the places that values were read from marked in the text.

    Attributes
    ----------
    result : DataFrame or None
        What was extracted: of all rows once it was promoted, until then of the sample.
    code : str
        The class and the call that do the same without the panel.

    Examples
    --------
    >>> import pandas as pd
    >>> from llmkit.widgets import ExtractExplorer
    >>> df = pd.DataFrame({"text": ["Fire in Lyon, two hurt.", "A quiet day in Nice."]})
    >>> panel = ExtractExplorer(df, on="text", example={"city": "Lyon", "people": 2}, model="echo/echo")
    >>> panel.edit_field("people", description="how many were hurt", optional=True)
    >>> panel.run()
    >>> panel.wait()
    True
    >>> panel.result.columns.tolist()
    ['city', 'people']
    """

    _files = "explorer"
    _between = 0.1

    def __init__(
        self,
        df: pd.DataFrame,
        on: Any,
        schema: Any = None,
        *,
        example: Mapping[str, Any] | None = None,
        model: str | None = None,
        n: int = 10,
        evidence: bool = False,
    ) -> None:
        if not isinstance(df, pd.DataFrame):
            raise llmkit.BadInput(f"the explorer takes a DataFrame, not {type(df).__name__}")
        if schema is not None and example is not None:
            raise llmkit.BadInput("begin from a schema or from an example, not from both")
        self._df = df
        self._on = [on] if isinstance(on, str) or not isinstance(on, Iterable) else list(on)
        missing = [name for name in self._on if name not in df.columns]
        if missing or not self._on:
            raise llmkit.BadInput(
                f"there is no column {missing[0]!r}; there is {', '.join(map(str, df.columns))}" if missing else "name a column to read"
            )
        if not df.columns.is_unique and any(isinstance(df[name], pd.DataFrame) for name in self._on):
            raise llmkit.BadInput("two columns have the name of one that is to be read; rename one of them")
        self.model = ""
        self.evidence = bool(evidence)
        self._grid = FieldGrid()
        #: What the panel began from, and the grid that it made: as long as they agree, that itself is what is asked for.
        self._given: Any = None
        self._given_as = ""
        #: The class that defines what the panel began from, as text.
        self._given_source = ""
        #: Lines whose text is no field yet: by number what was typed, and why that is none.
        self._drafts: dict[int, tuple[dict[str, Any], str]] = {}
        self._how: dict[str, Any] = {}
        self._positions: list[int] = []
        self._page = 0
        self._failed_only = False
        self._open: int | None = None
        #: The sample as it was last seen, with how each row went, and why some failed.
        self._found: pd.DataFrame | None = None
        self._statuses: list[str] = []
        self._kinds: dict[int, str] = {}
        self._fills: dict[str, int] = {}
        self._asked_as = ""
        self._work: llmkit.Run[Any] | None = None
        self._what = ""
        self._stopping = False
        self._promoted: pd.DataFrame | None = None
        self._promoted_rows = 0
        #: US dollars of all runs of this panel, and of those that asked what is asked now with the rows that they sent.
        self._spent: float | None = 0.0
        self._measured: tuple[str, float | None, int] = ("", 0.0, 0)
        self._outlook: dict[str, Any] = {}
        self._outlooks = 0
        self._looking = False
        self._suggested: list[str] = []
        self._code: tuple[str, str] = ("", "")
        super().__init__()
        if schema is not None:
            self.begin(schema)
        elif example is not None:
            self.begin_from_example(example)
        if model:
            self.choose_model(model)
        self.sample(n)
        self.draw(now=True)

    # --------------------------------------------------------------------------------------------------------------- looking

    @property
    def fields(self) -> pd.DataFrame:
        """The fields as they stand, a line each."""
        columns = ["name", "type", "description", "optional", "choices"]
        return pd.DataFrame([[getattr(line, column) for column in columns] for line in self._grid.lines], columns=columns)

    @property
    def result(self) -> pd.DataFrame | None:
        """What was extracted: of all rows once it was promoted, until then of the sample."""
        return self._promoted if self._promoted is not None else self.sampled

    @property
    def sampled(self) -> pd.DataFrame | None:
        """What was extracted of the sample, as far as it came; ``None`` before the first run."""
        if self._found is None:
            return None
        ours = [name for name in self._found.columns if name.startswith(_OURS)]
        return self._found[ours].rename(columns=lambda name: name.removeprefix(_OURS))

    @property
    def failures(self) -> pd.DataFrame:
        """Rows of the sample that failed: what was read, and why it failed."""
        bad = [place for place, status in enumerate(self._statuses) if status == "failed"]
        errors = [] if self._found is None else [self._found["error"].iloc[place] for place in bad]
        rows = self._df.iloc[[self._positions[place] for place in bad]][self._on]
        return rows.assign(kind=[self._kinds.get(place, "") for place in bad], error=errors)

    @property
    def code(self) -> str:
        """The class and the call that do the same without the panel; empty as long as there are no fields."""
        now = self._fingerprint()
        if self._code[0] != now:
            self._code = (now, self._written() if self._grid.lines else "")
        return self._code[1]

    def _written(self) -> str:
        given = f", model={_literal(self.model)}" if self.model else ""
        given += ", evidence=True" if self.evidence else ""
        on = self._on[0] if len(self._on) == 1 else self._on
        own = self._own_class()
        if own is not None:  # its validators are in no text
            return f"import llmkit\n\nfacts = df.llm.extract({own}, on={_literal(on)}{given})\n"
        schema = self._schema()
        source = self._given_source if schema is self._given else llmkit.read_schema(schema).source
        name = re.findall(r"^class (\w+)\(", source, re.MULTILINE)[-1]
        head = source.replace("from pydantic import", "import llmkit\nfrom pydantic import", 1)
        return f"{head}\n\nfacts = df.llm.extract({name}, on={_literal(on)}{given})\n"

    def _own_class(self) -> str | None:
        """The name of a class of the caller's that has validators, as long as its fields are as they came."""
        rules = getattr(self._given, "__pydantic_decorators__", None)
        if rules is None or not self._pristine():
            return None
        return (
            self._given.__name__ if rules.field_validators or rules.model_validators or rules.validators or rules.root_validators else None
        )

    def _pristine(self) -> bool:
        return self._given is not None and self._shape_of_grid() == self._given_as

    def _shape_of_grid(self) -> str:
        return json.dumps(self._grid.json_schema() if self._grid.lines else {}, ensure_ascii=False)

    def _fingerprint(self) -> str:
        """Everything that what is asked depends on, the rows apart."""
        return json.dumps([self._shape_of_grid(), self._pristine(), self.model, self.evidence], ensure_ascii=False)

    def _schema(self) -> Any:
        for line in self._grid.lines:
            if line.number in self._drafts:
                raise llmkit.BadInput(f"{line.name}: {self._drafts[line.number][1]}")
        return self._given if self._pristine() else self._grid.json_schema()

    # ------------------------------------------------------------------------------------------------------------------- view

    def view(self) -> dict[str, Any]:
        with self._lock:
            places = [place for place in range(len(self._positions)) if not self._failed_only or self._status(place) == "failed"]
            pages = max(1, -(-len(places) // _PAGE))
            self._page = min(self._page, pages - 1)
            shown = places[self._page * _PAGE : (self._page + 1) * _PAGE]
            failed = self._statuses.count("failed")
            return {
                "name": self._grid.name,
                "about": self._grid.about,
                "fields": [self._line(line) for line in self._grid.lines],
                "kinds": list(KINDS),
                "columns": [str(name) for name in self._on],
                "rows": [self._row(place) for place in shown],
                "sample": {**self._how, "size": len(self._positions), "failed": failed},
                "page": self._page,
                "pages": pages,
                "failed_only": self._failed_only,
                "stale": self._found is not None and self._asked_as != self._fingerprint(),
                "total": len(self._df),
                "model": self.model,
                "models": self._suggested,
                "evidence": self.evidence,
                "work": self._progress(),
                "spent": _sum(self._spent, self._work.cost if self._work is not None else 0.0),
                "outlook": self._outlook,
                "promoted": None if self._promoted is None else self._promoted_rows,
                "code": self.code if self._grid.lines and not self._drafts else "",
            }

    def _line(self, line: Line) -> dict[str, Any]:
        draft, problem = self._drafts.get(line.number, ({}, ""))
        filled, answered = self._filled(line.name)
        choices = draft.get("choices", line.choices)
        kind = draft.get("type", line.type)
        return {
            "number": line.number,
            "name": draft.get("name", line.name),
            "column": line.name,
            "type": kind,
            "given": _cut(json.dumps(line.given, ensure_ascii=False), _VALUE) if line.given else "",
            "description": draft.get("description", line.description),
            "optional": draft.get("optional", line.optional),
            "choices": choices if isinstance(choices, str) else (" | " if any("," in one for one in choices) else ", ").join(choices),
            "chooses": kind in CHOICES,
            "problem": problem,
            "wrong": self._grid.wrong(line, draft) if problem else "",
            "filled": filled,
            "answered": answered,
        }

    def _filled(self, name: str) -> tuple[int, int]:
        """Answered rows that hold the field, and answered rows."""
        answered = [place for place, status in enumerate(self._statuses) if status in ("done", "stored")]
        if self._found is None or _OURS + name not in self._found:
            return 0, 0
        if name not in self._fills:
            values = self._found[_OURS + name]
            self._fills[name] = sum(_plain(values.iloc[place]) not in (None, "", [], {}) for place in answered)
        return self._fills[name], len(answered)

    def _status(self, place: int) -> str:
        return self._statuses[place] if place < len(self._statuses) else ""

    def _row(self, place: int) -> dict[str, Any]:
        position = self._positions[place]
        status = self._status(place)
        spans = self._spans(place)
        row = {
            "row": position,
            "label": _cut(str(self._df.index[position]), 40),
            "status": status,
            "texts": [
                {"column": str(name), "pieces": _pieces(self._text(position, name), spans.get(str(name), []), _CELL)} for name in self._on
            ],
            "values": {line.name: self._value(place, line.name, _VALUE) for line in self._grid.lines},
        }
        if status == "failed":
            error = str(self._found["error"].iloc[place]) if self._found is not None else ""
            row["error"] = {"kind": self._kinds.get(place, ""), "message": _cut(error, _CELL)}
        if self._open == position:
            row["whole"] = self._detail(place, spans)
        return row

    def _detail(self, place: int, spans: Mapping[str, Sequence[tuple[int, int, int]]]) -> dict[str, Any]:
        position, found = self._positions[place], self._found
        whole: dict[str, Any] = {
            "texts": [
                {"column": str(name), "pieces": _pieces(self._text(position, name), spans.get(str(name), []), _WHOLE)} for name in self._on
            ],
            "values": [{"field": line.name, "value": self._value(place, line.name, _WHOLE)} for line in self._grid.lines],
        }
        if found is not None:
            told = found.iloc[place]
            whole["error"] = told["error"] if isinstance(told["error"], str) else ""
            whole["how"] = {
                name: _plain(told[name]) for name in ("model", "source", "attempts", "seconds", "input_tokens", "output_tokens", "cost")
            }
        return whole

    def _text(self, position: int, column: Any) -> str:
        value = self._df[column].iloc[position]
        return value if isinstance(value, str) else "" if _plain(value) is None else str(value)

    def _value(self, place: int, name: str, longest: int) -> str | None:
        """``None`` where it was not asked for, an empty text where the answer does not say it."""
        if self._found is None or _OURS + name not in self._found or self._status(place) not in ("done", "stored"):
            return None
        return _cut(_said(self._found[_OURS + name].iloc[place]), longest)

    def _spans(self, place: int) -> dict[str, list[tuple[int, int, int]]]:
        """By column (start, stop, the field's place in the grid) of what was read there."""
        made: dict[str, list[tuple[int, int, int]]] = {}
        for number, line in enumerate(self._grid.lines):
            column = f"{_OURS}{line.name}_evidence"
            span = self._found[column].iloc[place] if self._found is not None and column in self._found else None
            if isinstance(span, Mapping):
                made.setdefault(str(span["column"]), []).append((int(span["start"]), int(span["stop"]), number))
        return made

    def _progress(self) -> dict[str, Any] | None:
        run = self._work
        if run is None:
            return None
        now = run.progress()
        return {"what": self._what, "rows": now.rows, "done": now.done, "errors": now.errors, "stored": now.stored, "cost": now.cost}

    # ----------------------------------------------------------------------------------------------------------------- fields

    @action
    def shown(self) -> None:
        """A view was opened: models whose key is there are suggested."""
        known = llmkit.models()
        ready = known[known["key_found"].astype(bool) & known["operations"].str.split(", ").map(lambda does: "chat" in does)]
        self._suggested = [*llmkit.preferences().get("favourites", []), *(ready["provider"] + "/" + ready["name"])][:_SUGGESTED]
        self._look_ahead()
        self.draw()

    def begin(self, schema: Any) -> None:
        """Begin anew from a pydantic class, a JSON schema, or whatever else ``df.llm.extract`` takes of one record a row."""
        read = llmkit.read_schema(schema)
        with self._lock:
            grid = FieldGrid.of_json(read.model.model_json_schema())
            grid.name = read.model.__name__
            self._set_grid(grid, schema, read.source)

    def begin_from_example(self, example: Mapping[str, Any]) -> None:
        """Begin anew from one row as it may look, e.g. ``{"city": "Lyon", "people": 2}``."""
        with self._lock:
            self._set_grid(FieldGrid.of_example(example), None)

    @action
    def begin_from_text(self, kind: str, text: str) -> None:
        """Begin anew from what a person typed: a ``"sentence"``, or the JSON of a ``"schema"`` or of an ``"example"``."""
        if kind == "sentence":
            self.propose(text)
            return
        try:
            told = json.loads(text)
        except ValueError as error:
            raise llmkit.BadInput(f"this is no JSON ({error})") from None
        if not isinstance(told, dict):
            raise llmkit.BadInput("this is JSON, but no object: it begins with { and ends with }")
        (self.begin if kind == "schema" else self.begin_from_example)(told)

    def _set_grid(self, grid: FieldGrid, given: Any, source: str = "") -> None:
        self._grid = grid
        self._drafts.clear()
        self._given, self._given_source = given, source
        self._given_as = self._shape_of_grid()
        self._changed()

    def _changed(self, note: str = "") -> None:
        self._look_ahead()
        self.say(note)

    @action
    def propose(self, goal: str) -> None:
        """Have a model propose the fields from one sentence and a sample of the rows, in the background; ``llmkit.infer_schema``."""
        with self._lock:
            self._idle()
            run = llmkit.infer_schema(self._df, self._on, goal=goal, model=self._model(), wait=False, show_progress=False)
            self._start(run, "proposal")
        self.apart(lambda: self._see_through(run, self._proposed))

    def _proposed(self, run: llmkit.Run[Any]) -> None:
        self._count(run)
        if run.stopped is not None or self._stopping:
            self._tell(run, "Stopped; the fields are as they were.")
            return
        schema = run.result()
        self.begin(schema)
        self.say(f"{len(self._grid.lines)} fields are proposed: change what is not right, then run them on the sample.")

    @action
    def add_field(
        self,
        name: str = "",
        type: Any = None,
        description: str = "",
        optional: bool = False,
        choices: Iterable[str] | str | None = None,
    ) -> None:
        """Add a field; one of several ``choices`` is of the type ``"choice"`` without saying so."""
        with self._lock:
            self._grid.add(name or self._grid.free_name(), type, description, optional, choices)
        self._changed()

    def edit_field(
        self,
        field: str,
        *,
        name: str | None = None,
        type: Any = None,
        description: str | None = None,
        optional: bool | None = None,
        choices: Iterable[str] | str | None = None,
    ) -> None:
        """Change a field; what is not named stays as it is."""
        changes = {"name": name, "type": type, "description": description, "optional": optional, "choices": choices}
        with self._lock:
            line = self._grid.edit(self._grid.line(field), changes)
            self._drafts.pop(line.number, None)
        self._changed()

    def remove_field(self, field: str) -> None:
        """Take a field away."""
        self.drop(self._grid.line(field).number)

    @action
    def drop(self, number: int) -> None:
        """Take a field away, by its number in the grid."""
        with self._lock:
            self._grid.remove(self._grid.numbered(number))
            self._drafts.pop(number, None)
        self._changed()

    @action
    def typed(self, number: int, what: str, value: Any) -> None:
        """Take what was typed into the grid; what is no field yet stays there with the reason beside it, until it is one."""
        if what not in ("name", "type", "description", "optional", "choices"):
            raise llmkit.BadInput("a field has a name, a type, a description and choices")
        with self._lock:
            line = self._grid.numbered(number)
            draft = {**self._drafts.get(number, ({}, ""))[0], what: value}
            try:
                self._grid.edit(line, draft)
            except llmkit.BadInput as error:
                self._drafts[number] = (draft, str(error))
                self.say()
                return
            self._drafts.pop(number, None)
        self._changed()

    @action
    def describe(self, name: str | None = None, about: str | None = None) -> None:
        """Say what the record is called, and what it tells: the model reads both."""
        with self._lock:
            if name is not None:
                if not name.strip().isidentifier() or name.strip().startswith("_"):
                    raise llmkit.BadInput(f"{name[:40]!r} is no name for a class: letters, digits and _, a letter first")
                self._grid.name = name.strip()
            if about is not None:
                self._grid.about = " ".join(about.split())
        self._changed()

    # ----------------------------------------------------------------------------------------------------------------- sample

    @action
    def sample(self, n: int = 10, how: str = "head", seed: int = 0, rows: Any = None) -> None:
        """Choose the rows to try on.

        Parameters
        ----------
        n : int
            How many, 200 at the most.
        how : {"head", "random", "chosen"}
            The first ones, random ones by ``seed``, or those that ``rows`` names.
        rows : list, or text with commas
            Labels of the index.
        """
        if how not in _HOWS:
            raise llmkit.BadInput(f"a sample is one of {', '.join(_HOWS)}")
        if how == "chosen" or rows is not None:
            how, positions = "chosen", self._chosen(rows)
        else:
            n, seed = _whole("the number of rows", n, 1), _whole("the seed", seed, 0)
            size = min(n, len(self._df))
            positions = list(range(size)) if how == "head" else sorted(random.Random(seed).sample(range(len(self._df)), size))
        if len(positions) > _MOST:
            raise llmkit.BadInput(f"a sample has {_MOST} rows at the most; promote() asks about all of them")
        with self._lock:
            if self._what == "sample":
                raise llmkit.BadInput("the sample is being asked about; stop that first")
            said = rows if isinstance(rows, str) else ", ".join(map(str, rows)) if rows is not None else ""
            self._how = {"how": how, "n": n if how != "chosen" else len(positions), "seed": seed, "rows": said}
            self._positions = positions
            self._open, self._page, self._failed_only = None, 0, False
            self._forget()
        self._changed()

    def _chosen(self, rows: Any) -> list[int]:
        labels = (
            [part.strip() for part in rows.split(",") if part.strip()] if isinstance(rows, str) else list(rows if rows is not None else ())
        )
        if not labels:
            raise llmkit.BadInput("name the rows by their labels in the index, e.g. 3, 17")
        found: list[int] = []
        for label in labels:
            said = [label, int(label)] if isinstance(label, str) and re.fullmatch(r"-?\d{1,18}", label) else [label]
            at = [int(place) for one in said for place in self._df.index.get_indexer_for(pd.Index([one])) if place >= 0]
            if not at:
                raise llmkit.BadInput(f"there is no row {str(label)[:40]!r} in the index")
            found += at
        return list(dict.fromkeys(found))

    @action
    def turn_to(self, page: int = 0, failed_only: bool | None = None) -> None:
        """Show another page of the sample, or only the rows that failed."""
        with self._lock:
            self._page = max(0, int(page))
            if failed_only is not None:
                self._failed_only = bool(failed_only)
        self.draw()

    @action
    def unfold(self, row: int | None = None) -> None:
        """Show one row whole, by its position in the frame; ``None`` folds it."""
        with self._lock:
            self._open = row
        self.draw()

    @action
    def choose_model(self, model: str = "") -> None:
        """Choose the model, by any name that ``model=`` takes; without one it is llmkit's default."""
        name = model.strip()
        if name:
            llmkit.parameters(name)  # refuses what is none, before anybody is asked
        with self._lock:
            self.model = name
        self._changed()

    @action
    def set_evidence(self, evidence: bool) -> None:
        """Have the places that values were read from marked, or no longer; either way rows are asked anew."""
        with self._lock:
            self.evidence = bool(evidence)
        self._changed()

    def _model(self) -> str | None:
        return self.model or None

    # ---------------------------------------------------------------------------------------------------------------- running

    @action
    def run(self) -> None:
        """Extract the fields of the sample, in the background; what was asked before is not sent again."""
        with self._lock:
            self._idle()
            if not self._positions:
                raise llmkit.BadInput("the sample has no rows")
            schema, now = self._schema(), self._fingerprint()
            run = self._extract(self._rows(self._positions), schema, detail=True, prefix=_OURS, wait=False)
            self._asked_as = now
            self._forget()
            self._statuses = ["running"] * len(self._positions)
            self._start(run, "sample")
        self.apart(lambda: self._see_through(run, self._sampled))

    @action
    def promote(self, max_cost: float | None = None) -> None:
        """Extract the fields of the whole frame, in the background, into ``result``; at most for ``max_cost`` US dollars."""
        with self._lock:
            self._idle()
            run = self._extract(self._df[self._on], self._schema(), max_cost=_money(max_cost), wait=False)
            self._promoted = None
            self._start(run, "all")
        self.apart(lambda: self._see_through(run, self._all_done))

    @action
    def stop(self) -> None:
        """Stop what runs; what came is kept."""
        with self._lock:
            if self._work is not None:
                self._stopping = True
                self._work.cancel()

    def _extract(self, rows: pd.DataFrame, schema: Any, **how: Any) -> Any:
        return rows.llm.extract(schema, on=self._on, model=self._model(), evidence=self.evidence, show_progress=False, **how)

    def _rows(self, positions: Sequence[int]) -> pd.DataFrame:
        return self._df.iloc[list(positions)][self._on]

    def _idle(self) -> None:
        if self._work is not None:
            raise llmkit.BadInput("something runs already; stop it first")

    def _start(self, run: llmkit.Run[Any], what: str) -> None:
        self._work, self._what, self._stopping = run, what, False
        self.say()

    def _see_through(self, run: llmkit.Run[Any], then: Any) -> None:
        try:
            while not run.wait(self._between):
                with self._lock:
                    if self._what == "sample":
                        self._take(run)
                self.draw()
            with self._lock:
                if self._what == "sample":
                    self._take(run)
        finally:
            if not run.done:  # looking at it failed, and nobody could stop it any more
                run.cancel()
            with self._lock:
                self._work, self._what = None, ""
        then(run)
        self._look_ahead()
        self.draw()
        self.keep_record()

    def _take(self, run: llmkit.Run[Any]) -> None:
        """Look at what came of the sample so far."""
        over = run.done
        errors, found = run.errors(), run.partial()
        kinds = {place: kind for place, kind in zip(errors["row"], errors["kind"], strict=True) if kind != "cancelled"}
        waiting = "nothing" if over else "running"
        known = {"live": "done", "cache": "stored", "job": "done"}
        self._statuses = ["failed" if place in kinds else known.get(source, waiting) for place, source in enumerate(found["source"])]
        self._kinds, self._found, self._fills = kinds, found, {}

    def _forget(self) -> None:
        """Nothing is known of the sample's rows."""
        self._found, self._statuses, self._kinds, self._fills = None, [], {}, {}

    def _sampled(self, run: llmkit.Run[Any]) -> None:
        self._count(run)
        sources = self._statuses
        assert self._found is not None
        stored, failed, empty = sources.count("stored"), sources.count("failed"), sources.count("nothing")
        sent = sources.count("done") + sum(int(self._found["attempts"].iloc[place]) > 0 for place in self._kinds)
        with self._lock:
            if self._measured[0] != self._asked_as:
                self._measured = (self._asked_as, 0.0, 0)
            _, cost, rows = self._measured
            self._measured = (self._asked_as, _sum(cost, run.cost), rows + sent)
        parts = [f"{sent:,} sent", f"{stored:,} known already"]
        parts += [f"{failed:,} failed"] if failed else []
        parts += [f"{empty:,} {'without an answer' if run.stopped or self._stopping else 'empty'}"] if empty else []
        parts += [f"{run.possibly_billed:,} dropped that may be billed"] if run.possibly_billed else []
        ended = "Stopped" if self._stopping else "Done"
        self._tell(run, f"{ended}: {len(sources):,} rows, {', '.join(parts)}, {_dollars(run.cost)}.")

    def _all_done(self, run: llmkit.Run[Any]) -> None:
        self._count(run)
        now = run.progress()
        self._promoted, self._promoted_rows = run.partial(), now.done
        failed = f", {now.errors:,} failed" if now.errors else ""
        ended = "Stopped; what came is kept" if self._stopping else "Done"
        self._tell(run, f"{ended}: {now.done:,} of {now.rows:,} rows{failed}, {_dollars(run.cost)}. They are in panel.result.")

    def _tell(self, run: llmkit.Run[Any], note: str) -> None:
        notes = " ".join([note, *(one if one.endswith(".") else f"{one}." for one in run.outcomes.notes)])
        self.say(notes, str(run.stopped) if run.stopped is not None and not self._stopping else "")

    def _count(self, run: llmkit.Run[Any]) -> None:
        with self._lock:
            self._spent = _sum(self._spent, run.cost)

    # ------------------------------------------------------------------------------------------------------------------- cost

    def _look_ahead(self) -> None:
        """Have it reckoned, in the background, what the sample and the whole frame would cost."""
        with self._lock:
            self._outlooks += 1
            if self._looking:
                return
            self._looking = True
        self.apart(self._reckon)

    def _reckon(self) -> None:
        while True:
            with self._lock:
                number = self._outlooks
            try:
                found = self._reckoned()
            except Exception as error:
                # It is only a look ahead: what is wrong is said when somebody wants it to run.
                found = {"why": str(error) if isinstance(error, llmkit.LLMError) else ""}
            with self._lock:
                self._outlook = found
                if number == self._outlooks:
                    self._looking = False
                    break
        self.draw()

    def _reckoned(self) -> dict[str, Any]:
        with self._lock:
            if not self._grid.lines or not len(self._df):
                return {}
            schema, now = self._schema(), self._fingerprint()
            rows, length = self._rows(self._positions), len(self._df)
        few = self._extract(rows, schema, dry_run=True)
        step = max(1, -(-length // _LOOKED_AT))
        looked_at = range(0, length, step)
        all_of_it = self._extract(self._rows(looked_at), schema, dry_run=True)
        times = length / len(looked_at)
        requests = round(all_of_it.requests * times)
        as_asked, cost, sent = self._measured
        per_row = cost / sent if as_asked == now and cost is not None and sent else None
        guessed = None if all_of_it.cost is None else all_of_it.cost * times
        return {
            "model": few.model,
            "requests": few.requests,
            "stored": few.stored,
            "cost": few.cost,
            "all_requests": requests,
            "all_cost": per_row * requests if per_row is not None else guessed,
            "measured": per_row is not None,
        }

    # ----------------------------------------------------------------------------------------------------------------- record

    def snapshot(self) -> str:
        if self._found is None or not self._grid.lines:
            return ""
        names = [line.name for line in self._grid.lines]
        rows = []
        for place, position in enumerate(self._positions[:_PAGE]):
            texts = " / ".join(_cut(self._text(position, name), _CELL) for name in self._on)
            error = self._found["error"].iloc[place]
            rows.append(
                [
                    str(self._df.index[position]),
                    texts,
                    *(self._value(place, name, _CELL) for name in names),
                    error if isinstance(error, str) else "",
                ]
            )
        of = f"{len(rows)} of {len(self._df):,} rows" + (
            f"; all of them are in panel.result ({self._promoted.shape[0]:,})" if self._promoted is not None else ""
        )
        return table_html(["row", "text", *names, "error"], rows, of) + f"<pre>{html.escape(self.code)}</pre>"


# ------------------------------------------------------------------------------------------------------------------------ values


def _plain(value: Any) -> Any:
    """A cell as JSON has it, ``None`` where it is missing."""
    if hasattr(value, "as_py"):
        value = value.as_py()
    if hasattr(value, "tolist") and not hasattr(value, "isoformat"):
        value = value.tolist()
    if value is None or (pd.api.types.is_scalar(value) and pd.isna(value)):
        return None
    return value


def _said(value: Any) -> str:
    """A value as it is shown."""
    value = _plain(value)
    if value is None:
        return ""
    if isinstance(value, pd.Timestamp):
        return str(value.date()) if value == value.normalize() and value.tz is None else value.isoformat(sep=" ")
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return ", ".join(value)
    return json.dumps(value, ensure_ascii=False, default=str)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}…"


def _pieces(text: str, spans: Sequence[tuple[int, int, int]], longest: int) -> list[list[Any]]:
    """The text in pieces, each with the fields that were read from it; of a long text the parts around what is marked."""
    edges = sorted({0, len(text), *(edge for start, stop, _ in spans for edge in (start, stop) if 0 <= edge <= len(text))})
    long = len(text) > longest
    made: list[list[Any]] = []
    left = longest
    for start, stop in pairwise(edges):
        over = sorted({number for begin, end, number in spans if begin <= start and stop <= end})
        part = text[start:stop]
        if long and not over:
            if not spans:
                part = _cut(part, longest)
            elif len(part) > 2 * _AROUND:
                before, after = "" if start == 0 else part[:_AROUND], "" if stop == len(text) else part[-_AROUND:]
                part = f"{before} … {after}"
        if left <= 0:
            made.append(["…", []])
            break
        left -= len(part)
        made.append([_cut(part, max(longest, 1)), over])
    return made


def _whole(what: str, said: Any, least: int) -> int:
    try:
        number = int(said)
        if number != float(said) or number < least:
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise llmkit.BadInput(f"{what} is a whole number of {least} or more") from None
    return number


def _money(said: Any) -> float | None:
    if said is None or (isinstance(said, str) and not said.strip()):
        return None
    try:
        return float(said)
    except (TypeError, ValueError):
        raise llmkit.BadInput("the most to spend is a number of US dollars") from None


def _sum(cost: float | None, more: float | None) -> float | None:
    return None if cost is None or more is None else cost + more


def _dollars(cost: float | None) -> str:
    return "cost unknown" if cost is None else f"${cost:,.4f}" if cost else "$0"


def _literal(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) and value.isprintable() else repr(value)
