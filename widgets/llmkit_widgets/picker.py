"""Which model: those whose key is there first, the others with the variable that they wait for; what each costs and can do."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import urlsplit

import pandas as pd

import llmkit

from .panel import Panel, action, table_html

__all__ = ["ModelPicker"]

#: What is picked for; the first three have a default of the session.
_OPERATIONS = {
    "chat": "chat, extract, classify",
    "embed": "embed, search",
    "rerank": "rerank",
    "transcribe": "transcribe",
    "speak": "speak",
}
_DEFAULTS = ("chat", "embed", "rerank")
_BUILT_IN = {"chat": ["echo/echo"], "embed": ["local/lexical"], "rerank": ["local/bm25"]}
_PAGE = 25
#: Of ``llmkit.models()`` and beside it, in the order of ``result``.
_COLUMNS = (
    "model", "canonical", "provider", "ready", "needs", "favourite", "context_window", "output_limit", "dimensions", "capabilities",
    "input_price", "cached_input_price", "output_price", "audio_minute_price", "million_characters_price", "thousand_searches_price",
    "deprecated",
)  # fmt: skip
_WHOLE = ("max_tokens", "seed", "dimensions")
_NUMBERS = (*_WHOLE, "temperature", "speed")
#: The call that takes the model, as ``code`` writes it.
_CALLS = {
    "chat": 'df.llm.chat("..."{})',
    "embed": 'df.llm.embed("text"{})',
    "rerank": 'df.llm.rerank("...", on="text"{})',
    "transcribe": 'df.llm.transcribe("audio"{})',
    "speak": 'df.llm.speak("text"{})',
}


class ModelPicker(Panel):
    """Pick a model by what it is wanted for, and make it the session's.

    Parameters
    ----------
    operation : {"chat", "embed", "rerank", "transcribe", "speak"}
        What it is wanted for; it can be changed in the panel.

    Attributes
    ----------
    model : str
        What was picked: ``df.llm.chat("...", model=picker.model, **picker.parameters)``.
    parameters : dict
        Those that were set beside it, such as ``{"temperature": 0.2}``.

    Examples
    --------
    >>> from llmkit.widgets import ModelPicker
    >>> picker = ModelPicker()
    >>> picker.choose("echo/echo")
    >>> picker.use()
    >>> print(picker.code)
    import llmkit
    <BLANKLINE>
    llmkit.use("echo/echo")
    """

    _files = "picker"

    def __init__(self, operation: str = "chat") -> None:
        self._operation = _operation_of(operation)
        self._search = ""
        self._ready_only = False
        self._page = 0
        self.model = ""
        self.parameters: dict[str, Any] = {}
        #: What the session takes now where a call names none, as far as it was set here.
        self._used: dict[str, str] = {}
        #: Models of servers that run: found on this computer's ports, or by an address that was entered here.
        self._here: dict[str, str] = {}
        #: Addresses that were entered here, by the provider's name, and whether they came with a key.
        self._entered: dict[str, tuple[str, bool]] = {}
        self._looked = False
        self._probing = False
        self._known: list[dict[Any, Any]] | None = None
        self._listing: list[dict[Any, Any]] | None = None
        self._keyless = False
        super().__init__()
        self.draw(now=True)

    # -------------------------------------------------------------------------------------------------------------- looking

    def view(self) -> dict[str, Any]:
        found = self._matching()
        pages = max(1, -(-len(found) // _PAGE))
        self._page = min(self._page, pages - 1)
        rows = found[self._page * _PAGE : (self._page + 1) * _PAGE]
        return {
            "operation": self._operation,
            "operations": [{"name": name, "label": label} for name, label in _OPERATIONS.items()],
            "search": self._search,
            "ready_only": self._ready_only,
            "page": self._page,
            "pages": pages,
            "total": len(found),
            "ready": sum(line["ready"] for line in found),
            "no_key": self._keyless,
            "rows": [_shown(row) for row in rows],
            "model": self.model,
            "needs": self._needs(),
            "parameters": self._parameters(),
            "usable": self._operation in _DEFAULTS,
            "used": self._used.get(self._operation, ""),
            "probing": self._probing,
            "code": self.code,
        }

    @property
    def result(self) -> pd.DataFrame:
        """Every model for the operation: ``ready`` (its key is there, or its server runs), ``needs`` (what is missing), prices."""
        return pd.DataFrame(self._listed())

    def _listed(self) -> list[dict[Any, Any]]:
        """A line a model, the favourites first, then those that are ready, each in the order of their names."""
        listing = self._listing
        if listing is not None:
            return listing
        operation, here = self._operation, dict(self._here)
        if self._known is None:
            self._known = _lines(llmkit.models())
        lines = [
            {"model": f"{line['provider']}/{line['name']}", **line} for line in self._known if operation in line["operations"].split(", ")
        ]
        there = {line["model"] for line in lines}
        extra = [*(name for name in here if _suits(name, operation)), *_BUILT_IN.get(operation, ())]
        lines += [dict.fromkeys(_COLUMNS) | {"model": name, "provider": name.partition("/")[0]} for name in extra if name not in there]
        providers = {line["provider"]: line for line in _lines(llmkit.providers())}
        self._keyless = not any(line["key_found"] for line in providers.values())
        favourites = set(llmkit.preferences().get("favourites", []))
        for line in lines:
            provider = providers.get(line["provider"])
            # No key found is no obstacle where none is needed, but then the server has to be there.
            line["ready"] = line["model"] in here or provider is None or provider["key_found"]
            line["needs"] = "" if line["ready"] or provider is None else _missing(provider)
            line["favourite"] = line["model"] in favourites
        lines.sort(key=lambda line: (not line["favourite"], not line["ready"], bool(line["deprecated"]), line["model"]))
        self._listing = listing = [{name: line[name] for name in _COLUMNS} for line in lines]
        return listing

    def _matching(self) -> list[dict[Any, Any]]:
        words = self._search.lower().split()

        def fits(line: dict[Any, Any]) -> bool:
            text = f"{line['model']} {line['canonical'] or ''} {line['capabilities'] or ''}".lower()
            return all(word in text for word in words)

        return [line for line in self._listed() if (line["ready"] or not self._ready_only) and fits(line)]

    def _needs(self) -> str:
        """What the picked model waits for, as far as it is known."""
        return next((str(line["needs"]) for line in self._listed() if line["model"] == self.model), "")

    def _parameters(self) -> list[dict[str, Any]]:
        if not self.model:
            return []
        offered = llmkit.parameters(self.model, self._operation)
        return [{"name": name, "number": name in _NUMBERS, "whole": name in _WHOLE, "value": self.parameters.get(name)} for name in offered]

    # ------------------------------------------------------------------------------------------------------------------ doing

    @action
    def shown(self) -> None:
        """A view was opened: keys may have come since, and servers on this computer are looked for, once."""
        self._known = self._listing = None
        self.draw()
        if not self._looked:
            self._looked = True
            self.apart(self._look_around)

    @action
    def look(
        self, operation: str | None = None, search: str | None = None, page: int | None = None, ready_only: bool | None = None
    ) -> None:
        """Show the models for an operation, those that a search finds, or another page."""
        with self._lock:
            if operation is not None and _operation_of(operation) != self._operation:
                self._operation = operation
                self._listing, self.model, self.parameters, page = None, "", {}, 0
            if search is not None:
                self._search, page = str(search), 0 if page is None else page
            if ready_only is not None:
                self._ready_only, page = bool(ready_only), 0 if page is None else page
            if page is not None:
                self._page = max(0, int(page))
        self.say()

    @action
    def choose(self, model: str) -> None:
        """Pick a model: one of the list, or any name that ``model=`` takes."""
        name = model.strip() if isinstance(model, str) else ""
        if not name:
            raise llmkit.BadInput('name a model, such as "openai/gpt-5-mini"')
        offered = llmkit.parameters(name, self._operation)
        with self._lock:
            self.model = name
            self.parameters = {given: value for given, value in self.parameters.items() if given in offered}
        self.say()

    @action
    def set_parameter(self, name: str, value: Any) -> None:
        """Set a parameter that the picked model takes; ``None`` or nothing leaves it to the model."""
        if name not in [one["name"] for one in self._parameters()]:
            raise llmkit.BadInput(f"{self.model or 'no model'} takes no parameter of this name")
        given = None if value is None or not str(value).strip() else _value(name, value)
        with self._lock:
            self.parameters = {**self.parameters, name: given}
            if given is None:
                del self.parameters[name]
        self.say()

    @action
    def use(self) -> None:
        """Make the picked model the session's, for calls that name none: ``llmkit.use``."""
        if not self.model:
            raise llmkit.BadInput("pick a model first")
        if self._operation not in _DEFAULTS:
            raise llmkit.BadInput(f'there is no default for {self._operation}; name the model in the call: model="{self.model}"')
        llmkit.use(**{self._operation: self.model})
        self._used[self._operation] = self.model
        self.say(f"Calls that name no model use {self.model} for {_OPERATIONS[self._operation]} from now on.")
        self.keep_record()

    @action
    def favour(self, model: str) -> None:
        """Make a model a favourite, shown first in every session, or no longer one."""
        before = llmkit.preferences().get("favourites", [])
        after = [name for name in before if name != model] if model in before else [*before, model]
        llmkit.preferences(favourites=after or None)
        self._listing = None
        self.say()

    @action
    def probe(self, base_url: str, name: str = "", key: str = "") -> None:
        """Ask the server at a base URL for its models, in the background, and list them under ``name/...``."""
        if not str(base_url).strip():
            raise llmkit.BadInput("enter a base URL, such as http://127.0.0.1:8000/v1")
        self._probing = True
        self.say()
        self.apart(lambda: self._ask(str(base_url).strip(), str(name).strip(), str(key).strip()))

    def _ask(self, url: str, name: str, key: str) -> None:
        try:
            name = name or _named(url)
            if name not in self._entered and name in set(llmkit.providers()["provider"]):
                raise llmkit.BadInput(f'"{name}" is a provider already; give this server another name')
            found = llmkit.served(url, key or None)
            llmkit.add_provider(name, url, key or None)
        finally:
            self._probing = False
            self.draw()
        with self._lock:
            self._entered[name] = (url, bool(key))
            self._here = {model: at for model, at in self._here.items() if not model.startswith(f"{name}/")}
            self._here |= {f"{name}/{model}": url for model in found}
            self._listing, self._search, self._page = None, f"{name}/", 0
        self.say(f"{name} serves {len(found):,} model{'' if len(found) == 1 else 's'}.")

    def _look_around(self) -> None:
        found = llmkit.detect_local()
        if len(found):
            with self._lock:
                self._here |= dict(zip(found["model"], found["base_url"], strict=True))
                self._listing = None
            self.draw()

    @property
    def code(self) -> str:
        """The cell that picks the same."""
        lines = ["import llmkit", ""]
        at = self._entered.get(self.model.partition("/")[0])
        if at is not None:
            provider = self.model.partition("/")[0]
            lines.append(f"llmkit.add_provider({_written(provider)}, {_written(at[0])})")
            if at[1]:
                lines.append(f"llmkit.set_key({_written(provider)})  # asks, and shows nothing")
        if not self.model:
            return "\n".join([*lines, "llmkit.models()"])
        given = "".join(f", {name}={_written(value)}" for name, value in self.parameters.items())
        if self._operation in _DEFAULTS:
            key = "" if self._operation == "chat" else f"{self._operation}="
            lines.append(f"llmkit.use({key}{_written(self.model)})")
        else:
            given = f", model={_written(self.model)}{given}"
        if given:
            lines.append(_CALLS[self._operation].replace("{}", given))
        return "\n".join(lines)

    def snapshot(self) -> str:
        if not self.model:
            return ""
        columns = ["model", "context_window", "input_price", "output_price", "capabilities"]
        found = [line for line in self._listed() if line["model"] == self.model] or [dict.fromkeys(columns) | {"model": self.model}]
        rows = [[line[name] for name in columns] for line in found]
        return table_html(["model", "window", "$ in / M", "$ out / M", "capabilities"], rows, f"Picked for {self._operation}")


def _lines(table: pd.DataFrame) -> list[dict[Any, Any]]:
    """A dict a row, as ``to_dict("records")`` makes them, in a fifth of its time: the list is made anew whenever a view opens."""
    columns = {name: [None if value is pd.NA else value for value in table[name].tolist()] for name in table.columns}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _shown(row: dict[Any, Any]) -> dict[str, Any]:
    def number(name: str) -> Any:
        return None if pd.isna(row[name]) else row[name]

    window = number("context_window")
    dimensions = number("dimensions")
    capabilities = row["capabilities"] if isinstance(row["capabilities"], str) else ""
    return {
        "model": row["model"],
        "ready": bool(row["ready"]),
        "needs": row["needs"],
        "favourite": bool(row["favourite"]),
        "window": None if window is None else int(window),
        "dimensions": None if dimensions is None else int(dimensions),
        "price_in": number("input_price"),
        "price_out": number("output_price"),
        "price_other": _other_price(row),
        "capabilities": [name for name in capabilities.split(", ") if name],
        "ends": row["deprecated"] if isinstance(row["deprecated"], str) else "",
    }


def _other_price(row: dict[Any, Any]) -> str:
    units = (
        ("audio_minute_price", "a minute"),
        ("million_characters_price", "per M characters"),
        ("thousand_searches_price", "per k searches"),
    )
    return ", ".join(f"${row[name]:g} {unit}" for name, unit in units if not pd.isna(row[name]))


def _missing(provider: dict[Any, Any]) -> str:
    return str(provider["key_env"]).partition(",")[0] if provider["key_needed"] else f"start {provider['provider']}"


def _operation_of(operation: Any) -> str:
    if operation not in _OPERATIONS:
        raise llmkit.BadInput(f"a model is picked for one of {', '.join(_OPERATIONS)}")
    return str(operation)


def _suits(name: str, operation: str) -> bool:
    """Whether a server's model is listed for an operation: its name is all there is to go by."""
    low = name.lower()
    embeds, reranks = any(word in low for word in ("embed", "bge", "minilm", "e5-", "gte-")), "rerank" in low
    return {"embed": embeds and not reranks, "rerank": reranks, "chat": not embeds and not reranks}.get(operation, False)


def _named(url: str) -> str:
    parts = urlsplit(url)
    host = re.sub(r"[^a-z0-9]+", "-", (parts.hostname or "server").lower()).strip("-")
    return f"{host}-{parts.port}" if parts.port else host


def _value(name: str, value: Any) -> Any:
    if name not in _NUMBERS:
        return str(value)
    try:
        number = float(value)
        if name in _WHOLE and number != int(number):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise llmkit.BadInput(f"{name} is a {'whole ' if name in _WHOLE else ''}number") from None
    return int(number) if name in _WHOLE else number


def _written(value: Any) -> str:
    """A value as code."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
