"""``examples=``: rows whose answer is known, checked against the schema and shown to the model as turns before every row."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
import pandas as pd

from ..errors import BadInput
from ..operations.chat import delimited
from ..operations.template import Template
from . import arguments as checked
from .calling import Accessor
from .columns import FrameTable, one_column

__all__ = ["Showing", "for_extract", "for_labels", "for_texts"]

_WANTED = 'examples are pairs of texts, what is asked and what is said, e.g. [("I want my money back", "billing")]'


class Showing(Accessor):
    """The part of ``df.llm`` that makes examples."""

    _frame: pd.DataFrame

    def examples_from(self, labels: Any, *, on: Any, n: int = 5, seed: int = 0) -> list[tuple[dict[Any, str], Any]]:
        """Some rows whose answer is known, for ``examples=`` of ``extract``, ``chat`` and ``classify``.

        Parameters
        ----------
        labels : column, list of columns, Series or DataFrame
            The answers: columns of this frame, or data of its own on the same index (or on a part of it). Rows without one are left out.
        on : column or list of columns
            What the model reads, as in the call that the examples are for.
        n : int
            Examples, as different ones as there are: where the answers are labels, each label has its turn.
        seed : int
            Another one chooses other rows.

        Returns
        -------
        list of (dict, answer)
            The cells of a row, and its answer: one value for a column, a dict for several.

        Examples
        --------
        >>> import pandas as pd, llmkit
        >>> df = pd.DataFrame({"text": ["late again", "wrong invoice", "where is it?"], "topic": ["delivery", "billing", None]})
        >>> df.llm.examples_from("topic", on="text", n=2)
        [({'text': 'late again'}, 'delivery'), ({'text': 'wrong invoice'}, 'billing')]
        """
        most = checked.rows("n", n, 1) or 1
        chance = random.Random(checked.options(seed=seed)["seed"])
        columns = checked.columns(on)
        table = FrameTable(self._frame)
        table.check(columns)
        answers = self._answers(labels)
        known = [row for row, answer in answers.items() if any(_said(table, name, row) for name in columns)]
        if not known:
            raise BadInput("no row has both a text and an answer, so there is no example")
        chance.shuffle(known)
        turns: dict[Any, int] = {}
        ranked = []
        for place, row in enumerate(known):
            answer = answers[row]
            key = repr(answer)
            turns[key] = turn = turns.get(key, -1) + 1
            ranked.append((turn, place, row))
        chosen = sorted(row for _, _, row in sorted(ranked)[:most])
        shown = [{name: said for name in columns if (said := _said(table, name, row))} for row in chosen]
        return [(cells, answers[row]) for cells, row in zip(shown, chosen, strict=True)]

    def _answers(self, labels: Any) -> dict[int, Any]:
        """The answer of each row that has one, by its place."""
        frame = self._frame
        if isinstance(labels, pd.Series | pd.DataFrame):
            if labels.index.equals(frame.index):
                rows: Sequence[int] = range(len(frame))
            else:
                if not frame.index.is_unique or not labels.index.is_unique:
                    raise BadInput(
                        "the labels have another index than the frame, and one of them has rows of one name; give them the frame's index"
                    )
                rows = frame.index.get_indexer(labels.index).tolist()
                if -1 in rows:
                    raise BadInput(f"the labels have a row {labels.index[rows.index(-1)]!r}, which the frame has not")
            columns = [labels] if isinstance(labels, pd.Series) else [one_column(labels, name) for name in labels.columns]
            single = isinstance(labels, pd.Series)
        else:
            single = not isinstance(labels, list)
            columns = [one_column(frame, name) for name in checked.columns(labels)]
            rows = range(len(frame))
        if not columns:
            raise BadInput("labels name no column, so there is no answer")
        found: dict[int, Any] = {}
        for row, cells in zip(rows, zip(*([_plain(cell) for cell in column.tolist()] for column in columns), strict=True), strict=True):
            if any(cell is not None for cell in cells):
                found[row] = cells[0] if single else {column.name: cell for column, cell in zip(columns, cells, strict=True)}
        return found


def _said(table: FrameTable, name: Any, row: int) -> str:
    cell = table.texts(name, row, row + 1)[0]
    return cell if cell and not cell.isspace() else ""


def _plain(value: Any) -> Any:
    """A value as JSON has it; missing ones are null."""
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if hasattr(value, "model_dump"):
        return _fields_of(value)
    try:
        return orjson.loads(orjson.dumps(value, default=_otherwise, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS))
    except (TypeError, orjson.JSONDecodeError):
        raise BadInput(f"an example holds {_odd(value)}, which JSON has no form for") from None


def _fields_of(instance: Any) -> Any:
    """What an instance of a model holds, without what it computes of that."""
    return instance.model_dump(mode="json", by_alias=True, exclude=set(type(instance).model_computed_fields))


def _odd(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, Mapping) else type(value).__name__


def _otherwise(value: Any) -> Any:
    if value is pd.NA or value is pd.NaT:
        return None
    for name in ("isoformat", "tolist"):
        if hasattr(value, name):
            return getattr(value, name)()
    if hasattr(value, "model_dump"):
        return _fields_of(value)
    from pydantic_core import to_jsonable_python  # loaded by now: there is a schema

    return to_jsonable_python(value)


# ------------------------------------------------------------------------------------------------------------ as turns


def for_texts(given: Any, columns: Sequence[Any] | None = None, template: Template | None = None) -> tuple[tuple[str, str], ...]:
    """Examples for a call that answers in texts; with ``columns`` the data is delimited as that of rows is.

    Raises
    ------
    BadInput
        Something that is no pair, or names other columns than the call.
    """
    shown = []
    for number, (asked, said) in enumerate(_pairs(given), 1):
        if not isinstance(said, str):
            if not isinstance(asked, Mapping):
                raise BadInput(_WANTED)
            plain = _plain(said)
            said = plain if isinstance(plain, str) else orjson.dumps(plain).decode()  # noqa: PLW2901
        shown.append((_turn(asked, columns, template, number), said))
    return tuple(shown)


def for_labels(given: Any) -> tuple[tuple[str, str], ...]:
    """Examples for ``classify``: (text, label).

    Raises
    ------
    BadInput
        Something that is no pair, or a row of several columns.
    """
    shown = []
    for number, (asked, said) in enumerate(_pairs(given), 1):
        cells = [asked] if isinstance(asked, str) else list(asked.values())
        if len(cells) != 1 or not isinstance(said, str):
            raise BadInput(_WANTED if len(cells) == 1 else f"example {number} has {len(cells)} columns, and classify reads one")
        shown.append((_text(cells[0]), said))
    return tuple(shown)


def for_extract(
    given: Any, fields: Any, sent: Any, columns: Sequence[Any] | None, template: Template | None
) -> tuple[tuple[str, str], ...]:
    """Examples for ``extract``: pairs, or a frame that has the columns that are read and those that come of it.

    Parameters
    ----------
    fields, sent : Fields
        What is wanted, and what the model is asked for, which may be the same with more about it.

    Raises
    ------
    BadInput
        An example that does not fit the schema; names it, and the field.
    """
    if isinstance(given, pd.DataFrame):
        given = _from_frame(given, fields, list(columns if columns is not None else template.columns if template is not None else ()))
    return tuple(
        (_turn(asked, columns, template, number), _answer(said, fields, sent, asked, number))
        for number, (asked, said) in enumerate(_pairs(given), 1)
    )


def _pairs(given: Any) -> list[tuple[Any, Any]]:
    if given is None:
        return []
    pairs: list[Any] = list(given.items()) if isinstance(given, Mapping) else list(given) if isinstance(given, Iterable) else [given]
    if isinstance(given, str | pd.DataFrame | pd.Series) or not all(
        isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], str | Mapping) for pair in pairs
    ):
        raise BadInput(_WANTED)
    return [(asked, said) for asked, said in pairs]


def _turn(asked: Any, columns: Sequence[Any] | None, template: Template | None, number: int) -> str:
    """What is asked, as a row's is."""
    if columns is None:
        if isinstance(asked, str):
            return asked
        names = template.columns if template is not None else []
        _check_names(asked, names, number, every=True)
        assert template is not None
        return template.render({name: _text(asked[name]) for name in names})
    if isinstance(asked, str):
        if len(columns) != 1:
            raise BadInput(f"example {number} is one text, and on= names {len(columns)} columns: give a dict of column to text")
        asked = {columns[0]: asked}
    _check_names(asked, columns, number, every=False)
    said = [(name, _text(asked[name])) for name in columns if asked.get(name) is not None]
    said = [(name, cell) for name, cell in said if cell and not cell.isspace()]
    if not said:
        raise BadInput(f"example {number} says nothing")
    return "\n".join(delimited(name, cell) for name, cell in said)


def _check_names(asked: Mapping[Any, Any], names: Sequence[Any], number: int, *, every: bool) -> None:
    strange = [name for name in asked if name not in names]
    missing = [name for name in names if name not in asked] if every else []
    if strange or missing:
        wrong = f"has a column {strange[0]!r}, which is not read" if strange else f"lacks the column {missing[0]!r}"
        raise BadInput(f"example {number} {wrong}; the call reads {', '.join(map(repr, names)) or 'no column'}")


def _text(cell: Any) -> str:
    return cell if isinstance(cell, str) else str(_plain(cell))


def _from_frame(given: pd.DataFrame, fields: Any, read: list[Any]) -> list[tuple[Any, Any]]:
    for name in read:
        one_column(given, name)
    named = _names(fields) if fields.kind == "record" else {}
    others = [name for name in given.columns if name not in read]
    strange = [name for name in others if named and name not in named]
    if strange or (not named and len(others) != 1) or not others:
        what = (
            f"has a column {strange[0]!r}, which is no field" if strange else "has to have the columns that are read and what comes of them"
        )
        raise BadInput(f"the frame of examples {what}; the fields are {', '.join(named) or 'one column of any name'}")
    pairs = []
    for row in range(len(given)):
        cells = {name: _plain(given[name].iloc[row]) for name in given.columns}
        asked = {name: cells[name] for name in read if cells[name] is not None}
        pairs.append((asked, {name: cells[name] for name in others} if named else cells[others[0]]))
    return pairs


def _names(fields: Any) -> dict[str, tuple[str, bool]]:
    """What a field may be called: its name in JSON, and whether it may be left out."""
    from ..operations.schemas import name_in_json  # loaded by now: there is a schema

    found: dict[str, tuple[str, bool]] = {}
    for name, info in fields.record.model_fields.items():
        said = name_in_json(name, info)
        found[name] = found[said] = (said, not info.is_required())
    for name, info in fields.record.model_fields.items():  # as an instance calls it
        found.setdefault(info.serialization_alias or name, found[name])
    return found


def _answer(said: Any, fields: Any, sent: Any, asked: Any, number: int) -> str:
    """The JSON that the model is to answer with."""
    plain = _plain(said)
    if fields.kind == "records":
        if not isinstance(plain, list):
            raise BadInput(f"example {number}: {fields.name} is any number of records, so its answer is a list")
        plain = [_named(one, fields, number) for one in plain]
    elif fields.kind == "record":
        plain = _named(plain, fields, number)
    whole = {fields.inner: plain} if fields.inner else plain
    try:
        fields.checked(orjson.dumps(whole))
    except Exception as error:  # also what a validator of the caller's raises
        raise BadInput(f"example {number} does not fit: {_why(error)}") from None
    if sent is not fields:
        texts = [asked] if isinstance(asked, str) else [_text(cell) for cell in asked.values()]
        whole = {fields.inner: [_grounded(one, texts) for one in plain]} if fields.kind == "records" else _grounded(whole, texts)
    return orjson.dumps(whole).decode()


def _grounded(record: Mapping[str, Any], texts: Sequence[str]) -> dict[str, Any]:
    """A record as it is asked for with evidence: with a quote for each field whose value stands in the text as it is."""
    said = {name: value if isinstance(value, str) else str(value) for name, value in record.items() if type(value) in (str, int, float)}
    return {"fields": record, "evidence": {name: words for name, words in said.items() if words and any(words in text for text in texts)}}


def _named(plain: Any, fields: Any, number: int) -> Any:
    """A record with its fields as JSON names them, in the order in which they are asked for."""
    named = _names(fields)
    if not isinstance(plain, Mapping):
        if list(fields.record.model_fields) == ["value"]:
            return {"value": plain}
        raise BadInput(f"example {number}: the answer is a dict of the fields {', '.join(fields.record.model_fields)}")
    strange = [name for name in plain if name not in named]
    if strange:
        raise BadInput(f"example {number} has {strange[0]!r}, which is no field of {fields.name}")
    said = {named[name][0]: value for name, value in plain.items() if value is not None or not named[name][1]}
    return {name: said[name] for name in dict.fromkeys(name for name, _ in named.values()) if name in said}


def _why(error: Exception) -> str:
    faults = getattr(error, "errors", None)
    if faults is None:
        return getattr(error, "why", "") or f"a validator raised {type(error).__name__}"
    return "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'the answer'}: {fault['msg']}" for fault in faults(include_url=False)[:4])
