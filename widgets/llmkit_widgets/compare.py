"""Models side by side: the same prompt, or the same rows, in a column each, as the answers are written."""

from __future__ import annotations

import math
import re
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

import llmkit

from .ballot import Ballot, letter
from .panel import Panel, action, table_html

__all__ = ["CompareModels"]

#: Rows that are shown at a time, and characters of an answer; where there is one row, it may be longer.
_PAGE = 20
_LONGEST, _LONGEST_ALONE = 2_000, 20_000
_LONGEST_ASKED = 300
_SUGGESTED = 80
#: Seconds between two looks at what is counted over all rows, at the least.
_SLOWLY = 1.0
_OPTIONS = ("temperature", "max_tokens", "system")
_MOST_MODELS = 12
_IN_FLIGHT = 16
_NAMED = re.compile(r"\{([^\W\d]\w*)\}")

#: What of a line of ``Comparison.models`` is shown.
_MEASURES = (
    "answered", "errors", "stored", "agreement", "accuracy", "steadiness", "p50_seconds", "p90_seconds", "queue_p50_seconds",
    "tokens_per_second", "input_tokens", "output_tokens", "cost", "cost_per_1000", "billed",
)  # fmt: skip
_FIELDS = (
    "error", "source", "first_seconds", "seconds", "queue_seconds", "input_tokens", "output_tokens", "tokens_per_second", "cost",
)  # fmt: skip


@dataclass(frozen=True)
class _Question:
    """What one column is asked."""

    prompt: str
    on: tuple[Any, ...]
    repeats: int
    rows: int
    model: str
    options: tuple[tuple[str, Any], ...]


@dataclass(eq=False)
class _Column:
    """One model: what it is to be asked, and the runs that asked it so."""

    id: str
    label: str
    model: str
    offered: Sequence[str]
    options: dict[str, Any] = field(default_factory=dict)
    #: What ``runs`` asked; the later ones ask for what the earlier ones lack.
    asked: _Question | None = None
    runs: list[Any] = field(default_factory=list)
    #: The run whose end was told.
    told: Any = None
    starting: bool = False
    stopping: bool = False
    #: Why it could not be asked at all.
    refused: str = ""
    estimate: tuple[_Question, Any] | None = None

    @property
    def running(self) -> bool:
        return self.starting or bool(self.runs and not self.runs[-1].done)

    @property
    def status(self) -> str:
        if self.starting:
            return "starting"
        if self.refused:
            return "failed"
        if not self.runs:
            return "new"
        if not self.runs[-1].done:
            return "running"
        stopped = self.runs[-1].stopped
        return "done" if stopped is None else "stopped" if isinstance(stopped, llmkit.Cancelled) else "failed"

    @property
    def why(self) -> str:
        return self.refused or (str(self.runs[-1].stopped) if self.status == "failed" else "")

    def samples(self) -> Iterator[list[Any]]:
        """For each answer a row the runs that asked for it, from the first."""
        made = [[run for _, run in procedure.runs] for procedure in self.runs]
        for number in range(max(map(len, made), default=0)):
            yield [runs[number] for runs in made if number < len(runs)]

    def cell(self, row: int, sample: int) -> Any:
        """What became of one row; an answer that an earlier run got has its times there."""
        found = None
        for run in next((runs for number, runs in enumerate(self.samples()) if number == sample), []):
            if found is None or found.state != "done":
                found = run.cell(row)
        return found


class CompareModels(Panel):
    """Several models side by side over one prompt, or over some rows of a frame.

    Every column is a run of ``llmkit.compare``: answers are kept as they come, and the same again costs nothing.

    Parameters
    ----------
    df : DataFrame, optional
        Without one the prompt is a single question.
    prompt : str
        As ``df.llm.chat`` takes it; without ``df`` sent as it is.
    on : column or list of columns, optional
        As in ``df.llm.chat``.
    models : list or mapping, optional
        As ``llmkit.compare`` takes them: names, or ``{label: model}``, where a model may be ``(model, {"temperature": 0})``.
    truth : column, optional
        The right answers, if there are any: columns get an accuracy.
    rows : int, optional
        So many rows are asked, the first or, with ``seed``, any; ``None`` takes all.
    seed : int, optional
    repeats : int
        Answers a row and model.

    Examples
    --------
    >>> import pandas as pd
    >>> from llmkit.widgets import CompareModels
    >>> df = pd.DataFrame({"text": ["late", "broken"]})
    >>> panel = CompareModels(df, "Which topic? {text}", models=["echo/echo"])
    >>> panel.run()
    >>> panel.wait()
    True
    >>> panel.result[("echo/echo", "answer")].tolist()
    ['[echo, not a model] Which topic? late', '[echo, not a model] Which topic? broken']
    """

    _files = "compare"

    def __init__(
        self,
        df: pd.DataFrame | None = None,
        prompt: str = "",
        on: Any = None,
        models: Any = (),
        *,
        truth: Any = None,
        rows: int | None = 20,
        seed: int | None = None,
        repeats: int = 1,
    ) -> None:
        if df is not None and not isinstance(df, pd.DataFrame):
            raise llmkit.BadInput(f"CompareModels takes a DataFrame first, or none, not {type(df).__name__}")
        self._df = df
        self._prompt = prompt
        self._on = () if on is None else tuple(on) if isinstance(on, list) else (on,)
        self._truth = truth
        self._repeats = _whole("repeats", repeats)
        self._columns: list[_Column] = []
        self._made = 0
        self._synced = False
        self._taken, self._seed, self._drawn_rows = 0, seed, pd.DataFrame()
        #: Counts the samples that were taken: answers to one say nothing of another.
        self._samples_taken = 0
        self._page = self._sample = 0
        self._only_different = False
        self._baseline = ""
        self._ballot = Ballot()
        self._blind = False
        self._snapshots: list[pd.DataFrame] = []
        self._views = 0
        self._estimates_asked = 0
        self._suggested: list[dict[str, str]] | None = None
        #: What the front end was sent of each cell and column, and the number of its last piece of news.
        self._sent: dict[str, dict[str, Any]] = {}
        self._sent_facts: dict[str, dict[str, Any]] = {}
        self._number = 0
        self._told_at = self._counted_at = float("-inf")
        self._counted: Any = None
        self._differing: list[int] = []
        super().__init__()
        self._draw_rows(rows, seed)
        entries = models.items() if isinstance(models, Mapping) else [("", one) for one in models]
        for label, entry in entries:
            several = isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[1], Mapping)
            self._add(entry[0] if several else entry, dict(entry[1]) if several else {}, str(label))
        self.draw(now=True)

    # ------------------------------------------------------------------------------------------------------------ what is asked

    def _draw_rows(self, rows: int | None, seed: int | None) -> None:
        if self._df is None:
            self._drawn_rows = pd.DataFrame({"prompt": [self._prompt]})
            return
        count = len(self._df) if rows is None else min(_whole("rows", rows), len(self._df))
        self._taken, self._seed = count, seed
        self._drawn_rows = self._df.iloc[:count] if seed is None else self._df.sample(n=count, random_state=seed)
        self._samples_taken += 1

    def _question(self, column: _Column) -> _Question:
        options = tuple(sorted(column.options.items()))
        return _Question(self._prompt, self._on, self._repeats, self._samples_taken, column.model, options)

    def _ask(self, column: _Column, question: _Question, rows: pd.DataFrame, **how: Any) -> Any:
        alone = self._df is None
        if not question.prompt.strip():
            raise llmkit.BadInput("say what the models are asked: the prompt is empty")
        return llmkit.compare(
            pd.DataFrame({"prompt": [question.prompt]}) if alone else rows,
            "{prompt}" if alone else question.prompt,
            {column.label: (column.model, dict(question.options))},
            on=list(question.on) or None,
            truth=None if alone else self._truth,
            limit=None,
            repeats=question.repeats,
            show_progress=False,
            max_concurrency=_IN_FLIGHT,
            **how,
        )

    def _column(self, column: str) -> _Column:
        found = next((one for one in self._columns if column in (one.id, one.label)), None)
        if found is None:
            raise llmkit.BadInput("there is no such column")
        return found

    def _add(self, model: Any, options: Mapping[str, Any], label: str = "") -> None:
        name = model.strip() if isinstance(model, str) else ""
        if not name:
            raise llmkit.BadInput('name a model, such as "openai/gpt-5-mini"')
        if len(self._columns) >= _MOST_MODELS:
            raise llmkit.BadInput(f"{_MOST_MODELS} models are as many as can be looked at side by side")
        offered = [option for option in _OPTIONS if option == "system" or option in llmkit.parameters(name)]
        taken, label = {one.label for one in self._columns}, label or name
        number = 1
        unique = label
        while unique in taken:
            number += 1
            unique = f"{label} ({number})"
        self._made += 1
        self._columns.append(_Column(f"c{self._made}", unique, name, offered, dict(options)))

    def _not_while_voting(self) -> None:
        if self._blind and self._ballot.open and self._ballot.votes:
            raise llmkit.BadInput("a blind vote is under way: reveal the names first")

    def _changed(self) -> None:
        self.say()
        if self._views:
            self.estimate()

    # -------------------------------------------------------------------------------------------------------------------- doing

    @action
    def add(self, model: str) -> None:
        """Add a column: any name that ``model=`` takes."""
        with self._lock:
            self._not_while_voting()
            self._add(model, dict(self._columns[0].options) if self._synced and self._columns else {})
            self._forget_votes()
        self._changed()

    @action
    def remove(self, column: str) -> None:
        """Take a column away; what it was answered stays stored."""
        with self._lock:
            self._not_while_voting()
            found = self._column(column)
            self._halt(found)
            self._columns.remove(found)
            self._counted_at = float("-inf")
            if self._baseline == found.id:
                self._baseline = ""
            self._forget_votes()
        self._changed()

    @action
    def set_option(self, column: str, name: str, value: Any) -> None:
        """Set a column's ``temperature``, ``max_tokens`` or ``system``; nothing leaves it to the model. In step, that of all columns."""
        with self._lock:
            self._not_while_voting()
            found = self._column(column)
            if name not in found.offered:
                raise llmkit.BadInput(f"{found.model} takes no parameter of this name")
            given = _option(name, value)
            for one in self._columns if self._synced else [found]:
                if name in one.offered:
                    one.options = {key: old for key, old in one.options.items() if key != name} | ({} if given is None else {name: given})
        self._changed()

    @action
    def sync(self, on: bool = True) -> None:
        """Keep the parameters of all columns in step: what is set in one is set in all."""
        self._synced = bool(on)
        self.say()

    @action
    def ask_for(self, prompt: str) -> None:
        """Ask another prompt from the next run on."""
        with self._lock:
            self._not_while_voting()
            self._prompt = str(prompt)
            if self._df is None:
                self._draw_rows(None, None)
        self._changed()

    @action
    def take(self, rows: int | None = 20, seed: Any = None) -> None:
        """Ask other rows: the first so many, or with a seed any; ``None`` takes all. The answers to the others go; they stay stored."""
        if self._df is None:
            raise llmkit.BadInput("there is no frame to take rows of, only a prompt")
        with self._lock:
            self._not_while_voting()
            self._draw_rows(rows, None if seed in (None, "") else _whole("seed", seed, least=0))
            for column in self._columns:
                self._halt(column)
                column.runs, column.asked, column.refused = [], None, ""
            self._counted_at, self._differing, self._page = float("-inf"), [], 0
            self._forget_votes()
        self._changed()

    @action
    def repeat(self, answers: int) -> None:
        """Ask for so many answers a row and model."""
        with self._lock:
            self._not_while_voting()
            self._repeats, self._sample = _whole("repeats", answers), 0
        self._changed()

    @action
    def estimate(self) -> None:
        """Find what a run would send and cost, in the background; nothing is sent."""
        with self._lock:
            self._estimates_asked += 1
            number, rows = self._estimates_asked, self._drawn_rows
            asked = [(one, self._question(one)) for one in self._columns if self._lacks(one)] if self._prompt.strip() else []

        def find() -> None:
            for column, question in asked:
                if number != self._estimates_asked:
                    return  # what is asked has changed meanwhile
                if column.estimate is None or column.estimate[0] != question or column.runs:
                    try:
                        found = self._ask(column, question, rows, dry_run=True)
                    except llmkit.LLMError as error:
                        found = str(error)
                    column.estimate = (question, found)
                self.draw()

        self.apart(find)

    @action
    def run(self, column: str | None = None) -> None:
        """Ask all columns, or one, for what they lack or what was changed; what is answered is not asked again."""
        with self._lock:
            if not self._prompt.strip():
                raise llmkit.BadInput("say what the models are asked: the prompt is empty")
            if not self._columns:
                raise llmkit.BadInput("add a model first")
            chosen = [self._column(column)] if column else self._columns
            chosen = [one for one in chosen if not one.running and self._lacks(one)]
            asked = [(one, self._question(one)) for one in chosen]
            if any(one.asked not in (None, question) for one, question in asked):
                self._not_while_voting()
                self._forget_votes()
            for one, question in asked:
                if one.asked != question:
                    one.asked, one.runs = question, []
                one.starting, one.stopping, one.refused = True, False, ""
            self._counted_at, rows = float("-inf"), self._drawn_rows
        if not asked:
            self.say("All of it is answered; change something, or add a model.")
            return
        self.say()

        def begin() -> None:
            for one, question in asked:
                self._begin(one, question, rows)

        self.apart(begin)

    def _lacks(self, column: _Column) -> bool:
        return column.asked != self._question(column) or column.status != "done" or bool(column.runs[-1].progress().errors)

    def _begin(self, column: _Column, question: _Question, rows: pd.DataFrame) -> None:
        made = None
        try:
            if not column.stopping:
                made = self._ask(column, question, rows, wait=False, stream=True)
        except llmkit.LLMError as error:
            column.refused = str(error)
        finally:
            with self._lock:
                column.starting = False
                if made is not None:
                    column.runs.append(made)
                    if column.stopping:
                        made.cancel()
        if made is not None:
            made.watch(lambda _: self._moved(made))
        self.draw()

    @action
    def stop(self, column: str | None = None) -> None:
        """Stop one column, or all; what came is kept."""
        with self._lock:
            for one in [self._column(column)] if column else self._columns:
                self._halt(one)
        self.say("Stopped; what came is kept." if any(one.runs for one in self._columns) else "")

    @staticmethod
    def _halt(column: _Column) -> None:
        column.stopping = True
        if column.runs:
            column.runs[-1].cancel()

    def wait(self, timeout: float | None = None) -> bool:
        until = None if timeout is None else time.monotonic() + timeout

        def left() -> float | None:
            return None if until is None else max(0.0, until - time.monotonic())

        if not super().wait(left()):
            return False
        for run in [column.runs[-1] for column in self._columns if column.runs]:
            if not run.wait(left()):
                return False
            self._moved(run)
        return True

    def close(self) -> None:
        for column in self._columns:
            self._halt(column)
        super().close()

    # ----------------------------------------------------------------------------------------------------------- what came of it

    @property
    def comparison(self) -> llmkit.Comparison | None:
        """What ``llmkit.compare`` makes of the answers so far: agreement, accuracy, times, cost."""
        parts = [part for column in self._columns for run in column.runs if (part := run.partial()) is not None]
        return parts[0].beside(*parts[1:]) if len(parts) > 1 else parts[0] if parts else None

    @property
    def result(self) -> pd.DataFrame:
        """The rows that were asked, on their own index: a column level a model, with its answers and what is known of each."""
        found: dict[tuple[str, str], Any] = {}
        for column in self._columns:
            answers = max(1, sum(1 for _ in column.samples()))
            first = [column.cell(row, 0) for row in range(len(self._drawn_rows))]
            found[column.label, "answer"] = pd.array([_answer(cell) for cell in first], dtype="string")
            for number in range(1, answers):
                more = [_answer(column.cell(row, number)) for row in range(len(self._drawn_rows))]
                found[column.label, f"answer {number + 1}"] = pd.array(more, dtype="string")
            for name in _FIELDS:
                values = [_fact(cell, name) for cell in first]
                dtype: Any = "string" if name in ("error", "source") else "Int64" if name.startswith(("input", "output")) else "Float64"
                found[column.label, name] = pd.array(values, dtype=dtype)
        if self._df is not None and isinstance(self._truth, str):
            found["truth", "value"] = self._drawn_rows[self._truth].array
        if self._ballot.votes:
            found["vote", "winner"] = pd.array([self._ballot.votes.get(row) for row in range(len(self._drawn_rows))], dtype="string")
        made = pd.DataFrame(dict(enumerate(found.values())), index=self._drawn_rows.index)
        made.columns = pd.MultiIndex.from_tuples(list(found), names=["model", "field"]) if found else made.columns
        return made

    @property
    def models(self) -> pd.DataFrame:
        """A line a model: what was measured, and the votes."""
        counted = self.comparison
        lines = {column.label: self._facts(column, counted) for column in self._columns}
        names = ["status", "first_seconds", *_MEASURES, "wins", "votes"]
        return pd.DataFrame({name: [line.get(name) for line in lines.values()] for name in names}, index=pd.Index(lines, name="model"))

    @action
    def take_snapshot(self, name: str = "") -> None:
        """Keep what is there now as it is, whatever comes after: ``snapshot_frame`` hands it out."""
        with self._lock:
            if not any(column.runs for column in self._columns):
                raise llmkit.BadInput("there is nothing to keep yet: run first")
            frame = self.result.copy(deep=True)
            title = str(name).strip() or f"snapshot {len(self._snapshots) + 1}"
            taken = pd.Timestamp.now("UTC").floor("s")
            frame.attrs = {"name": title, "taken": taken.isoformat(), "code": self.code, "models": [one.label for one in self._columns]}
            self._snapshots.append(frame)
        self.say(f"Kept as {title}; panel.snapshot_frame({len(self._snapshots) - 1}) hands it out.")

    @property
    def snapshots(self) -> pd.DataFrame:
        """What was kept: name, when, how many rows, which models."""
        lines = [{**frame.attrs, "rows": len(frame), "models": ", ".join(frame.attrs["models"])} for frame in self._snapshots]
        return pd.DataFrame(lines, columns=["name", "taken", "rows", "models", "code"])

    def snapshot_frame(self, which: int | str = -1) -> pd.DataFrame:
        """What was kept, by its number or name, the last one by default: a copy, which may be changed and changes nothing here.

        ``attrs`` has its name, when it was taken, and the code that repeats it.
        """
        if isinstance(which, str):
            which = next((place for place, frame in enumerate(self._snapshots) if frame.attrs["name"] == which), len(self._snapshots))
        try:
            return self._snapshots[which].copy(deep=True)
        except IndexError:
            raise llmkit.BadInput("there is no such snapshot; panel.snapshots lists them") from None

    @property
    def code(self) -> str:
        """The cell that compares the same without the panel."""
        plain = all(not one.options and one.label == one.model for one in self._columns)
        if plain:
            models = f"[{', '.join(_written(one.model) for one in self._columns)}]"
        else:
            lines = [
                f"        {_written(one.label)}: "
                + (f"({_written(one.model)}, {_written(one.options)})" if one.options else _written(one.model))
                for one in self._columns
            ]
            models = "{\n" + ",\n".join(lines) + ",\n    }"
        whole = self._df is None or self._taken == len(self._df)
        more = [("on", _written(self._on[0] if len(self._on) == 1 else list(self._on)))] if self._on else []
        more += [("truth", _written(self._truth))] if self._df is not None and self._truth is not None else []
        more += [("limit", "None" if whole or self._seed is not None else str(self._taken))] if self._df is not None else []
        more += [("repeats", str(self._repeats))] if self._repeats > 1 else []
        first = ["import llmkit", ""]
        frame, prompt = "df", _written(self._prompt)
        if self._df is None:
            first = ["import pandas as pd", *first, f"df = pd.DataFrame({{{_written('prompt')}: [{prompt}]}})"]
            prompt = _written("{prompt}")
        elif self._seed is not None:
            frame = f"df.sample(n={self._taken}, random_state={self._seed})"
        body = [f"    {frame},", f"    {prompt},", f"    {models},", *(f"    {name}={value}," for name, value in more)]
        return "\n".join([*first, "found = llmkit.compare(", *body, ")", "found"])

    # ------------------------------------------------------------------------------------------------------------------- voting

    @action
    def blind(self, on: bool = True, seed: int | None = None) -> None:
        """Hide who answered, and give each row an order of its own; or show the names again. Another seed begins another vote."""
        with self._lock:
            if on and len(self._columns) < 2:
                raise llmkit.BadInput("a vote is between two models at the least")
            if on and (not self._ballot.open or (seed is not None and seed != self._ballot.seed)):
                self._ballot = Ballot(self._ballot.seed if seed is None else _whole("seed", seed, least=0))
                self._ballot.open = True
            elif not on:
                self._ballot.open = False
            self._blind, self._baseline = bool(on), "" if on else self._baseline
        self.say()

    @action
    def vote(self, row: int, choice: str) -> None:
        """Vote on a row, by its position: "A", "B", ..., "tie" or "both bad". A vote stays; after the last one the names are shown."""
        with self._lock:
            if isinstance(row, bool) or not isinstance(row, int) or not self._can_vote(row):
                raise llmkit.BadInput("this row has not two answers to choose from, or they are still being written")
            self._ballot.vote(row, choice, [one.label for one in self._columns])
            if not any(one.running for one in self._columns):
                rows = range(len(self._drawn_rows))
                self._ballot.open = any(place not in self._ballot.votes and self._can_vote(place) for place in rows)
        self.say()
        self.keep_record()

    @action
    def reveal(self) -> None:
        """Show who answered; the vote ends, and what was voted counts."""
        self._ballot.open = False
        self.say()
        self.keep_record()

    def _can_vote(self, row: int) -> bool:
        """Whether two have answered, and nobody is about to."""
        if not 0 <= row < len(self._drawn_rows):
            return False
        cells = [column.cell(row, 0) for column in self._columns]
        states = [column.running and "waiting" if cell is None else cell.state for column, cell in zip(self._columns, cells, strict=True)]
        return states.count("done") > 1 and not {"waiting", "writing"} & set(states)

    def _forget_votes(self) -> None:
        self._ballot.votes = {}

    @property
    def _hidden(self) -> bool:
        return self._blind and self._ballot.open

    # ------------------------------------------------------------------------------------------------------------------ looking

    @action
    def look(
        self, page: int | None = None, only_different: bool | None = None, baseline: str | None = None, sample: int | None = None
    ) -> None:
        """Turn the page, show only rows whose answers differ, mark what differs from one column's, or show another of the repeats."""
        with self._lock:
            if only_different is not None:
                self._only_different, self._page = bool(only_different), 0
                self._find_differing()
            if baseline is not None:
                self._baseline = self._column(baseline).id if baseline and not self._hidden else ""
            if sample is not None:
                self._sample = max(0, min(int(sample), self._repeats - 1))
            if page is not None:
                self._page = max(0, int(page))
        self.say()

    @action
    def shown(self) -> None:
        """A view was opened."""
        self._views += 1
        self._number += 1  # the view has to be told all, also what is as it was
        self.draw()
        self.estimate()
        if self._suggested is None:
            self.apart(self._suggest)

    @action
    def hidden(self) -> None:
        """A view was closed."""
        self._views = max(0, self._views - 1)

    @action
    def again(self) -> None:
        """A view missed a piece of news: tell it all."""
        self._number += 1
        self.draw()

    def _suggest(self) -> None:
        known = llmkit.models()
        known = known[known["operations"].str.split(", ").map(lambda does: "chat" in does) & (known["deprecated"].fillna("") == "")]
        variables = llmkit.providers().set_index("provider")["key_env"].str.split(", ").str[0]
        names = known["provider"] + "/" + known["name"]
        favourites = llmkit.preferences().get("favourites", [])
        table = pd.DataFrame({"model": names, "ready": known["key_found"].astype(bool), "needs": known["provider"].map(variables)})
        table = table.assign(liked=table["model"].isin(favourites)).sort_values(["liked", "ready"], ascending=False, kind="stable")
        lines = [{"model": "echo/echo", "needs": ""}]
        lines += [{"model": line["model"], "needs": "" if line["ready"] else str(line["needs"])} for line in table.to_dict("records")]
        self._suggested = lines[:_SUGGESTED]
        self.draw()

    def view(self) -> dict[str, Any]:
        order = self._differing if self._only_different else range(len(self._drawn_rows))
        pages = max(1, -(-len(order) // _PAGE))
        self._page = min(self._page, pages - 1)
        rows = list(order[self._page * _PAGE : (self._page + 1) * _PAGE])
        self._count()
        self._sent = dict(self._cells(rows))
        self._sent_facts = {one.id: self._facts(one, self._counted) for one in self._columns}
        labels = [one.label for one in self._columns]
        hidden, votes = self._hidden, self._ballot.votes
        return {
            "number": self._number,
            "single": self._df is None,
            "prompt": self._prompt,
            "on": [str(name) for name in self._on],
            "rows": len(self._drawn_rows),
            "of": 0 if self._df is None else len(self._df),
            "seed": self._seed,
            "repeats": self._repeats,
            "sample": self._sample,
            "synced": self._synced,
            "columns": [self._column_shown(one) for one in self._columns],
            "estimate": self._estimated(),
            "running": any(one.running for one in self._columns),
            "quality": self._quality(),
            "blind": self._blind,
            "hidden": hidden,
            "votes": {str(row): "" if hidden else votes[row] for row in rows if row in votes},
            "voted": len(votes),
            "only_different": self._only_different,
            "baseline": self._baseline,
            "page": self._page,
            "pages": pages,
            "shown": [{"row": row, "name": str(self._drawn_rows.index[row]), "asked": self._asked_of(row)} for row in rows],
            "votable": [row for row in rows if self._can_vote(row)] if self._blind else [],
            "order": {str(row): self._order(row) for row in rows} if self._blind and not hidden else {},
            "letters": [letter(place) for place in range(len(labels))],
            "cells": self._sent,
            "snapshots": [{"name": frame.attrs["name"], "taken": frame.attrs["taken"]} for frame in self._snapshots],
            "suggested": self._suggested or [],
            "code": self.code,
        }

    def _column_shown(self, column: _Column) -> dict[str, Any]:
        question = self._question(column)
        estimate = column.estimate[1] if column.estimate is not None and column.estimate[0] == question else None
        told = isinstance(estimate, str)
        return {
            "id": column.id,
            "label": column.label,
            "offered": list(column.offered),
            "options": dict(column.options),
            "stale": column.asked not in (None, question),
            "why": column.why or (estimate if told else ""),
            "estimate": None
            if estimate is None or told
            else {"requests": estimate.requests, "stored": estimate.stored, "cost": estimate.cost},
            "facts": self._sent_facts[column.id],
        }

    def _estimated(self) -> dict[str, Any] | None:
        """What a run would send and cost, all columns together; ``None`` where that is not known, or there is nothing to run."""
        found: list[Any] = []
        for column in self._columns:
            if self._lacks(column):
                if column.estimate is None or column.estimate[0] != self._question(column) or isinstance(column.estimate[1], str):
                    return None
                found.append(column.estimate[1])
        costs = [one.cost for one in found]
        return {"requests": sum(one.requests for one in found), "cost": None if None in costs else sum(costs)} if found else None

    def _order(self, row: int) -> list[int]:
        count = len(self._columns)
        return self._ballot.order(row, count) if self._blind else list(range(count))

    def _asked_of(self, row: int) -> str:
        if self._df is None:
            return self._prompt[:_LONGEST_ASKED]
        names = self._on or tuple(dict.fromkeys(name for name in _NAMED.findall(self._prompt) if name in self._drawn_rows.columns))
        texts = [str(self._drawn_rows.iloc[row][name]) for name in names]
        told = texts[0] if len(texts) == 1 else "\n".join(f"{name}: {text}" for name, text in zip(names, texts, strict=True))
        return told if len(told) <= _LONGEST_ASKED else f"{told[:_LONGEST_ASKED]}…"

    def _cells(self, rows: Sequence[int]) -> Iterator[tuple[str, dict[str, Any]]]:
        longest = _LONGEST_ALONE if len(self._drawn_rows) == 1 else _LONGEST
        for row in rows:
            for place, number in enumerate(self._order(row)):
                yield f"{row}:{place}", self._cell(self._columns[number], row, longest)

    def _cell(self, column: _Column, row: int, longest: int) -> dict[str, Any]:
        cell = column.cell(row, self._sample)
        if cell is None:
            return {"state": "waiting" if column.running else "none", "text": ""}
        text = "" if cell.value is None else str(cell.value)
        shown: dict[str, Any] = {"state": cell.state, "text": text[:longest]}
        if len(text) > longest:
            shown["of"] = len(text)
        if cell.error is not None and cell.state == "failed":
            # Who fails is named by the reason.
            shown["error"] = "no answer" if self._hidden else str(cell.error)
        if cell.state == "done" and not self._hidden:
            shown |= {
                "first": _short(cell.first_seconds), "seconds": _short(cell.seconds), "queue": _short(cell.queue_seconds),
                "speed": _short(_speed(cell)), "tokens": cell.output_tokens, "cost": _short(cell.cost, 9), "stored": cell.source == "cache",
                "cut": cell.finish == "length",
            }  # fmt: skip
        return shown

    def _facts(self, column: _Column, counted: Any) -> dict[str, Any]:
        """What is known of a column as a whole."""
        facts: dict[str, Any] = {"status": column.status, "rows": len(self._drawn_rows) * self._repeats, "done": 0, "failed": 0}
        if column.runs:
            progress = column.runs[-1].progress()
            facts |= {"rows": progress.rows, "done": progress.done, "failed": progress.errors}
        if counted is not None and column.label in counted.models.index:
            line = counted.models.loc[column.label]
            facts |= {name: _short(line[name], 9) for name in _MEASURES if name in line}
            began = [seconds for runs in column.samples() for run in runs for seconds in list(run.outcomes.first_piece.values())]
            facts["first_seconds"] = _short(statistics.median(began)) if began else None
        if self._ballot.votes and not self._hidden:
            labels = [one.label for one in self._columns]
            facts |= {"wins": self._ballot.wins(column.label), "votes": _short(self._ballot.shares(labels)[column.label])}
        return facts

    def _quality(self) -> str:
        """By what the models are held against what they cost."""
        if self._df is not None and self._truth is not None:
            return "accuracy"
        if self._ballot.votes and not self._hidden:
            return "votes"
        return "agreement"

    # ------------------------------------------------------------------------------------------------------------------ hearing

    def _moved(self, run: Any) -> None:
        """A column's run moved on: tell what is new of the page that is shown."""
        with self._lock:
            if not run.done:
                if time.monotonic() - self._told_at >= self._between:
                    self._tell()
                return
            # Its end is told once, by its watch or by who waits for it; the other of the two finds it told.
            column = next((one for one in self._columns if run in one.runs), None)
            if column is None or column.told is run:
                return
            column.told = run
            if self._only_different:
                self._find_differing()
            if any(one.starting or (one.runs and one.runs[-1] is not one.told) for one in self._columns):
                self.draw()  # over all rows it is counted again with the last: with many models that takes a while
                return
            self._counted_at = float("-inf")
            self.draw(now=True)
            if not self._hidden:
                self.keep_record()
            if self._views and any(self._lacks(one) for one in self._columns):
                self.estimate()

    def _tell(self) -> None:
        before = self._counted_at
        self._count()
        if self._only_different and self._counted_at != before:
            known = self._differing
            self._find_differing()
            if known != self._differing:
                self.draw()
        rows = list(dict.fromkeys(int(key.partition(":")[0]) for key in self._sent))
        cells: dict[str, Any] = {}
        for key, now in self._cells(rows):
            old = self._sent.get(key)
            if now != old:
                cells[key] = _news(old, now)
                self._sent[key] = now
        facts: dict[str, Any] = {}
        for column in self._columns:
            known_facts = self._facts(column, self._counted)
            if known_facts != self._sent_facts.get(column.id):
                facts[column.id] = self._sent_facts[column.id] = known_facts
        if cells or facts:
            self._told_at = time.monotonic()
            self._number += 1
            self.news = {"number": self._number, "cells": cells, "facts": facts}

    def _count(self) -> None:
        """Count over all rows, no more often than it is worth."""
        began = time.monotonic()
        if began < self._counted_at:
            return
        self._counted = self.comparison
        ended = time.monotonic()
        self._counted_at = ended + max(_SLOWLY, 10 * (ended - began)) if any(one.running for one in self._columns) else float("inf")

    def _find_differing(self) -> None:
        def said(column: _Column, row: int) -> str | None:
            cell = column.cell(row, self._sample)
            return " ".join(str(cell.value).casefold().split()) if cell is not None and cell.state == "done" else None

        rows = range(len(self._drawn_rows))
        self._differing = [row for row in rows if len({said(column, row) for column in self._columns} - {None}) > 1]

    def snapshot(self) -> str:
        if not any(column.runs for column in self._columns):
            return ""
        counted = self.comparison
        lines = []
        for column in self._columns:
            facts = self._facts(column, counted)
            names = ("answered", "errors", self._quality(), "first_seconds", "p50_seconds", "tokens_per_second", "cost")
            lines.append([column.label, *(facts.get(name) for name in names)])
        head = ["model", "answered", "errors", self._quality(), "first token s", "latency s", "tokens/s", "dollars"]
        count = min(_PAGE, len(self._drawn_rows))
        rows = [
            [self._asked_of(row), *(_cut(_answer(column.cell(row, 0)) or "") for column in self._columns)] for row in range(count)
        ]  # fmt: skip
        table = table_html(["asked", *(column.label for column in self._columns)], rows, f"The first {count} rows")
        return table_html(head, lines, "Models compared") + table


# ---------------------------------------------------------------------------------------------------------------------- helpers


def _news(old: Mapping[str, Any] | None, now: dict[str, Any]) -> dict[str, Any]:
    """What makes the new cell of the old one: of a text that grew only what was added."""
    if old is None or set(old) != set(now) or not now["text"].startswith(old["text"]) or not old["text"]:
        return now
    same = all(old[name] == value for name, value in now.items() if name != "text")
    return {"more": now["text"][len(old["text"]) :]} if same else now


def _answer(cell: Any) -> str | None:
    return None if cell is None or cell.state in ("failed", "waiting", "missing") or cell.value is None else str(cell.value)


def _fact(cell: Any, name: str) -> Any:
    if cell is None:
        return None
    if name == "tokens_per_second":
        return _speed(cell)
    if name == "error":
        return None if cell.error is None else str(cell.error)
    return None if cell.state != "done" and name != "first_seconds" else getattr(cell, name)


def _speed(cell: Any) -> float | None:
    return cell.output_tokens / cell.seconds if cell.seconds and cell.output_tokens else None


def _short(value: Any, digits: int = 3) -> Any:
    """A number as JSON has it; what is unknown as ``None``."""
    if value is None or pd.isna(value):
        return None
    number = float(value)
    return None if not math.isfinite(number) else int(number) if number == int(number) else round(number, digits)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_ASKED else f"{text[:_LONGEST_ASKED]}…"


def _whole(name: str, value: Any, least: int = 1) -> int:
    try:
        number = float(value)
        if isinstance(value, bool) or number != int(number) or number < least:
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise llmkit.BadInput(f"{name} is a whole number of at least {least}") from None
    return int(number)


def _option(name: str, value: Any) -> Any:
    if value is None or not str(value).strip():
        return None
    if name == "system":
        return str(value)
    if name == "max_tokens":
        return _whole(name, value)
    try:
        return float(value)
    except (TypeError, ValueError):
        raise llmkit.BadInput(f"{name} is a number") from None


def _written(value: Any) -> str:
    """A value as code."""
    return repr(value) if not isinstance(value, str) else _quoted(value)


def _quoted(text: str) -> str:
    quoted = repr(text)
    return f'"{quoted[1:-1]}"' if quoted.startswith("'") and '"' not in text else quoted
