"""Which vendors and models there are: rows of ``providers.toml``, ``models.json`` and ``aliases.toml``, read at the first question."""

from __future__ import annotations

import datetime
import json
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson

from ..errors import BadInput, UnknownModel
from ..types import Model, Price, Provider

__all__ = ["BUILT_IN", "Catalogue", "Retired", "document"]

#: Providers that live in this package; their files hold their own rows.
BUILT_IN = ("echo", "local")


_HERE = Path(__file__).parent
#: What a document may hold beside the day it is from and who says so.
_SECTIONS = ("providers", "models", "aliases", "retired")


@dataclass(frozen=True, slots=True)
class Retired:
    """A canonical name that no vendor serves any more, as far as is known, and the nearest that is served."""

    since: str
    successor: str
    why: str = ""


class Catalogue:
    """Providers by name, models by name and alias. What is merged in by hand wins over what the package ships.

    Parameters
    ----------
    folder : callable, optional
        Where ``refresh`` keeps what it downloaded.
    """

    def __init__(self, folder: Callable[[], Path] | None = None) -> None:
        self.folder = folder
        self._added: dict[str, Provider] = {}
        self._merged: dict[tuple[str, str], Model] = {}
        self._aliases: dict[str, tuple[str, ...]] = {}
        self._loaded: dict[str, Any] = {}
        self._made: dict[tuple[str, str], Model] = {}
        self._overlaid = False
        #: Tables that others make of the models; empty again once a model may have changed.
        self.made_of_models: dict[str, Any] = {}

    def forget(self) -> None:
        """Back to what the package ships and what was downloaded."""
        reread, merged = bool(self._loaded) or self._overlaid, bool(self._merged)
        for held in (self._added, self._merged, self._aliases, self._loaded):
            held.clear()
        if reread:
            self._reread()
        elif merged:
            self._models_changed()

    def _models_changed(self) -> None:
        # Another dict, not the same one emptied: what a thread is just making of the old models goes into the old one.
        self.made_of_models = {}

    def _reread(self) -> None:
        self._made.clear()
        for name in ("_rows", "_table", "_ways", "_vendors", "_json"):
            self.__dict__.pop(name, None)
        self._models_changed()

    # ------------------------------------------------------------------------------------------------------------- reading

    @cached_property
    def _toml(self) -> dict[str, Any]:
        return tomllib.loads(_HERE.joinpath("providers.toml").read_text("utf-8"))

    @cached_property
    def _json(self) -> dict[str, Any]:
        return dict(orjson.loads(_HERE.joinpath("models.json").read_bytes()))

    @cached_property
    def _names(self) -> dict[str, Any]:
        return tomllib.loads(_HERE.joinpath("aliases.toml").read_text("utf-8"))

    def _downloaded(self) -> list[dict[str, Any]]:
        """The rows that ``refresh`` kept, unless the package has newer ones by now.

        Another version of llmkit may have kept them: a row in a form that this one does not know is left out.
        """
        path = self._kept_at()
        try:
            found = orjson.loads(path.read_bytes()) if path else {}
            rows = list(found["models"]) if found and found["as_of"] >= self._json["as_of"] else []
        except (OSError, ValueError, LookupError, TypeError):
            return []
        return [kept for row in rows if (kept := _known_form(row)) is not None]

    def _kept_at(self) -> Path | None:
        return None if self.folder is None else self.folder() / "models.json"

    @cached_property
    def _vendors(self) -> dict[str, Provider]:
        loaded = self._loaded.get("providers")
        return self.shipped_providers() if loaded is None else {name: _provider(name, row, None) for name, row in loaded.items()}

    def shipped_providers(self) -> dict[str, Provider]:
        """The rows of ``providers.toml``."""
        known = {field.name for field in fields(Provider)}
        rows = {name: row for name, row in self._toml.items() if isinstance(row, dict)}
        return {
            name: Provider(name=name, **{key: _frozen(value) for key, value in row.items() if key in known}) for name, row in rows.items()
        }

    @cached_property
    def _rows(self) -> dict[tuple[str, str], Mapping[str, Any]]:
        if "models" in self._loaded:
            return {(row["provider"], row["name"]): row for row in self._loaded["models"]}
        rows: dict[tuple[str, str], Mapping[str, Any]] = {(row["provider"], row["name"]): row for row in self._json["models"]}
        downloaded = self._downloaded()
        self._overlaid = bool(downloaded)
        for row in downloaded:
            key = (row["provider"], row["name"])
            rows[key] = {**rows.get(key, {}), **row}
        return rows

    @cached_property
    def _table(self) -> dict[str, tuple[str, ...]]:
        return _ways_of(self._loaded["aliases"]) if "aliases" in self._loaded else _ways_of(self._names["aliases"])

    @cached_property
    def _ways(self) -> tuple[dict[str, list[tuple[str, str]]], dict[tuple[str, str], tuple[str, ...]]]:
        """Every name to its models, and every model to its aliases.

        A model answers to its aliases, to its own name, and to that name without its owner (``openai/gpt-5-mini`` at a reseller). First
        what ``aliases.toml`` lists, in its order; then vendors that call it so themselves; then resellers.
        """
        ways: dict[str, list[tuple[str, str]]] = {}
        called: dict[tuple[str, str], tuple[str, ...]] = {}
        for alias, models in self._table.items():
            for full in models:
                provider, _, name = full.partition("/")
                ways.setdefault(alias, []).append((provider, name))
                called[provider, name] = (*called.get((provider, name), ()), alias)
        order = {name: place for place, name in enumerate(self._vendors)}
        doubtful = {name for name, provider in self._vendors.items() if provider.status != "alive"}
        keys = sorted(self._rows, key=lambda key: (key[0] in doubtful, order.get(key[0], len(order))))
        for key in keys:
            for alias in self._rows[key].get("aliases", ()):
                ways.setdefault(alias, []).append(key)
        for own in (True, False):
            for key in keys:
                name = key[1] if own else key[1].rpartition("/")[2]
                if (own or name != key[1]) and key not in ways.setdefault(name, []):
                    ways[name].append(key)
        return ways, called

    # ------------------------------------------------------------------------------------------------------------- adding

    def add(self, provider: Provider) -> None:
        self._added[provider.name] = provider

    def merge(self, models: Iterable[Mapping[str, Any]]) -> None:
        """Rows in the form of ``models.json``; what a row does not say stays as it was known."""
        checked = [_checked(row) for row in models]
        for row in checked:
            known = self.model(row["provider"], row["name"])
            self._merged[known.provider, known.name] = _model(row, known)
        self._models_changed()

    def merge_document(self, rows: Mapping[str, Any]) -> None:
        """Providers, models and aliases at once, all of them or none."""
        _sections(rows)
        providers = {name: _provider(name, row, self.provider(name)) for name, row in rows.get("providers", {}).items()}
        aliases = _ways_of(rows.get("aliases", {}))
        self.merge(rows.get("models", ()))
        self._added |= providers
        self._aliases |= aliases

    def load(self, rows: Mapping[str, Any]) -> None:
        """Replace each section that the document has, for this process."""
        _sections(rows)
        for name, row in rows.get("providers", {}).items():
            _provider(name, row, None)
        _ways_of(rows.get("aliases", {}))
        loaded = {section: rows[section] for section in _SECTIONS if section in rows}
        if "models" in loaded:
            loaded["models"] = [_checked(row) for row in loaded["models"]]
        self._loaded |= loaded
        self._reread()

    def refresh(self, url: str | None, timeout: float) -> dict[str, Any]:
        """Download newer rows, check them, keep them."""
        from .download import USUAL, document_from, fetched, kept  # an HTTP client, which most processes never need

        path = self._kept_at()
        if path is None:
            raise BadInput("this catalogue has no folder to keep a download in")
        served = {name: provider.operations for name, provider in self.shipped_providers().items()}
        found = document_from(fetched(url or USUAL, timeout), served)
        found["models"] = [_without_aliases(row) for row in found["models"]]
        if found["as_of"] < self._json["as_of"]:
            raise BadInput(f"the download is from {found['as_of']} and llmkit's own from {self._json['as_of']}; nothing was changed")
        before = set(self._rows)
        kept(found, path)
        self._reread()
        return {"models": len(found["models"]), "new": len(set(self._rows) - before), "as_of": found["as_of"], "kept_in": str(path)}

    # ------------------------------------------------------------------------------------------------------------- asking

    @property
    def local_ports(self) -> list[dict[str, Any]]:
        return list(self._toml["local_ports"])

    def provider_names(self) -> list[str]:
        return [*self._added, *BUILT_IN, *(name for name in self._vendors if name not in self._added)]

    def provider(self, name: str) -> Provider | None:
        return self._added.get(name) or self._vendors.get(name)

    def by_port(self, port: int) -> Provider | None:
        """The vendor whose servers usually listen there."""
        names = [name for name, row in self._toml.items() if isinstance(row, dict) and row.get("port") == port]
        return self.provider(names[0]) if names else None

    def added(self, name: str) -> bool:
        """Whether the provider is the user's own."""
        return name in self._added

    def models(self) -> Iterator[Model]:
        merged = dict(self._merged)
        for key in self._rows:
            yield self.model(*key)
            merged.pop(key, None)
        yield from merged.values()

    def model(self, provider: str, name: str) -> Model:
        """The row of this model; one that is unknown is made of its names alone, since vendors add models every week."""
        key = (provider, name)
        found = self._merged.get(key) or self._made.get(key)
        if found is None:
            aliases = self._ways[1].get(key, ())
            found = _model(self._rows.get(key, {}), Model(provider, name, aliases=aliases))
            if key in self._rows:
                self._made[key] = found
        return found

    def named(self, canonical: str) -> list[Model]:
        """Every way to a model of this canonical name, in order of preference: the user's own rows, then the catalogue's order."""
        own = [tuple(full.split("/", 1)) for full in self._aliases.get(canonical, ())]
        own += [key for key, model in self._merged.items() if key not in self._rows and canonical in (model.name, *model.aliases)]
        found = [*own, *self._ways[0].get(canonical, [])]
        found += [key for key, model in self._merged.items() if canonical in model.aliases]
        return [self.model(provider, name) for provider, name in dict.fromkeys(found)]

    def canonical(self, model: Model) -> str:
        """The name that means this model at every provider."""
        return model.aliases[0] if model.aliases else model.name.rpartition("/")[2]

    def canonical_names(self) -> list[str]:
        """What ``aliases.toml`` and the user's own rows name, those that are not served any more with them."""
        return list(dict.fromkeys([*self._aliases, *self._table, *self._names["retired"]]))

    def retired(self, canonical: str) -> Retired | None:
        """Since when no vendor serves it, where that is so."""
        row = self._loaded.get("retired", self._names["retired"]).get(canonical)
        return Retired(row["since"], row["successor"], row.get("why", "")) if row else None

    def priority(self, operation: str) -> list[str]:
        """Canonical names for an operation, best first."""
        return list(self._names.get(f"auto_{'model' if operation == 'chat' else operation}_priority", []))

    def unknown(self, name: str, provider: str | None = None) -> UnknownModel:
        """The error for a name that nobody has, with the nearest that somebody has."""
        if provider is not None:
            near = get_close_matches(provider, self.provider_names(), 1, 0.6)
            hint = f' Did you mean "{near[0]}"?' if near else ""
            known = ", ".join(self.provider_names())
            return UnknownModel(f'no provider "{provider}".{hint} The known ones are {known}; add your own with llmkit.add_provider(...)')
        several = [known for known in self.canonical_names() if known.startswith(f"{name}-")]
        if len(several) > 1:
            return UnknownModel(f'"{name}" could be one of several models: {", ".join(several)}. Name one of them, or "provider/model"')
        hint = self.nearest(name)
        return UnknownModel(f'no model "{name}".{hint} Name it as "provider/model"; llmkit.models() lists what there is')

    def nearest(self, name: str, provider: str | None = None) -> str:
        """``" Did you mean ...?"`` for a misspelt model, or nothing."""
        names = {canonical: canonical for canonical in self.canonical_names()} if provider is None else {}
        for model in self.models():
            if provider is None or model.provider == provider:
                for alias in (model.name, *model.aliases):
                    names.setdefault(alias, str(model))
        near = get_close_matches(name, names, 2, 0.6)
        return f" Did you mean {' or '.join(dict.fromkeys(names[one] for one in near))}?" if near else ""


def document(given: Any) -> Mapping[str, Any]:
    """A mapping as it is; a path's TOML or JSON, by its ending.

    Raises
    ------
    BadInput
        There is no such file, it cannot be read, or it is something else.
    """
    if isinstance(given, Mapping):
        return given
    if not isinstance(given, str | Path):
        raise BadInput(f"a catalogue is a mapping or the path of a .toml or .json file, not {type(given).__name__}")
    path = Path(given).expanduser()
    try:
        text = path.read_text("utf-8")
        found = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        kind = "TOML" if path.suffix == ".toml" else "JSON"
        raise BadInput(f"{path} is no {kind}: {error}") from None
    if not isinstance(found, Mapping):
        raise BadInput(f"{path} holds a {type(found).__name__}; a catalogue is a mapping of {', '.join(_SECTIONS[:3])}")
    return found


def _sections(rows: Any) -> None:
    """The outer form of a document that somebody wrote by hand."""
    if not isinstance(rows, Mapping):
        raise BadInput(f"a catalogue is a mapping of {', '.join(_SECTIONS[:3])}, not {type(rows).__name__}")
    for key, value in rows.items():
        if key in ("as_of", "source"):
            continue
        if key not in _SECTIONS:
            near = get_close_matches(str(key), _SECTIONS, 1, 0.5)
            raise BadInput(f"a catalogue has no {key!r}; {f'did you mean {near[0]!r}?' if near else 'it has ' + ', '.join(_SECTIONS)}")
        wanted: Any = (list, tuple) if key == "models" else Mapping
        if not isinstance(value, wanted):
            raise BadInput(f"{key} is a {'list of rows' if key == 'models' else 'mapping of names to rows'}, not {type(value).__name__}")


def _ways_of(aliases: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    found = {}
    for alias, ways in aliases.items():
        listed = (ways,) if isinstance(ways, str) else tuple(ways) if isinstance(ways, list | tuple) else ()
        if not all(isinstance(way, str) and all(way.partition("/")[::2]) for way in listed) or (not listed and ways != []):
            raise BadInput(f'the alias "{alias}" is a list of "provider/model", best first, not {ways!r}')
        found[alias] = listed
    return found


_PROVIDER = tuple(field.name for field in fields(Provider))


def _provider(name: str, row: Any, known: Provider | None) -> Provider:
    """A vendor's row that somebody wrote; what it leaves out stays as it was known."""
    if not isinstance(row, Mapping):
        raise BadInput(f'the row of the provider "{name}" is a mapping, not {type(row).__name__}')
    if "/" in name or name in BUILT_IN:
        raise BadInput(f'"{name}" cannot be a provider\'s name: {"it is built into llmkit" if name in BUILT_IN else "it holds a slash"}')
    for key, value in row.items():
        if key not in _PROVIDER and key not in ("port", "successor"):
            near = get_close_matches(str(key), _PROVIDER, 1, 0.5)
            raise BadInput(f"a provider has no {key!r}; {f'did you mean {near[0]!r}?' if near else 'it has ' + ', '.join(_PROVIDER)}")
        if key in ("key_env", "base_url_env", "operations") and not _texts(value):
            raise BadInput(f'{key} of the provider "{name}" is a list of texts, not {value!r}')
    url = row.get("base_url", known.base_url if known else None)
    if not isinstance(url, str) or not (url.startswith(("http://", "https://")) or row.get("status") == "retired"):
        raise BadInput(f'the provider "{name}" needs a base_url that begins with http:// or https://')
    said = {key: _frozen(value) for key, value in row.items() if key in _PROVIDER and key != "name"}
    return replace(known or Provider(name, url), **(said | {"base_url": url.rstrip("/")}))


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


_MODEL = frozenset(field.name for field in fields(Model)) - {"provider", "name", "price", "limits"}


def _model(row: Mapping[str, Any], known: Model) -> Model:
    said = {key: _frozen(value) for key, value in row.items() if key in _MODEL and value is not None}
    price = {key: value for key, value in (row.get("price") or {}).items() if value is not None}
    if price:
        said["price"] = replace(known.price, **price)
    if row.get("limits"):
        said["limits"] = {**known.limits, **row["limits"]}
    return replace(known, **said) if said else known


_PRICES = tuple(field.name for field in fields(Price))
_COUNTS = ("context_window", "output_limit", "dimensions")
_TEXTS = ("operations", "capabilities", "aliases")


def _checked(row: Any) -> Mapping[str, Any]:
    """A row that somebody wrote; what is misspelt would otherwise be ignored in silence."""
    if not isinstance(row, Mapping) or not all(isinstance(row.get(key), str) and row[key] for key in ("provider", "name")):
        raise BadInput('a model\'s row is a mapping with at least "provider" and "name", each a text')
    name = row["name"]
    price = row.get("price") or {}
    if not isinstance(price, Mapping):
        raise BadInput(f'the price of {name} is a mapping, e.g. {{"input": 0.4, "output": 1.6}}, in dollars per million tokens')
    limits = row.get("limits") or {}
    if not isinstance(limits, Mapping):
        raise BadInput(f'the limits of {name} are a mapping, e.g. {{"rpm": 500, "tpm": 200000}}')
    for what, given, known in (("model", row, (*_MODEL, "price", "limits", "provider", "name")), ("price", price, _PRICES)):
        for key in given:
            if key not in known:
                near = get_close_matches(str(key), known, 1, 0.5)
                raise BadInput(f"a {what} has no {key!r}; {f'did you mean {near[0]!r}?' if near else 'it has ' + ', '.join(sorted(known))}")
    length = price.get("long_from")
    if length is not None and (type(length) is not int or length < 1):
        raise BadInput(f"long_from of {name} is tokens, a whole number of more than 0, not {length!r}")
    for key, value in price.items():
        if value is not None and not _amount(value):
            raise BadInput(f"the {key} price of {name} is dollars{_UNITS.get(key, ' per million tokens')}, not {value!r}")
    for key, value in limits.items():
        if key not in ("rpm", "tpm") or not _amount(value):
            raise BadInput(f"the limits of {name} are rpm and tpm, requests and tokens per minute, not {key}={value!r}")
    for key in _COUNTS:
        if row.get(key) is not None and (type(row[key]) is not int or row[key] < 1):
            raise BadInput(f"{key} of {name} is a whole number of more than 0, not {row[key]!r}")
    for key in _TEXTS:
        if row.get(key) is not None and not _texts(row[key]):
            raise BadInput(f"{key} of {name} is a list of texts, not {row[key]!r}")
    for key in ("source", "as_of"):
        if row.get(key) is not None and not isinstance(row[key], str):
            raise BadInput(f"{key} of {name} is a text, not {type(row[key]).__name__}")
    if row.get("deprecated") is not None and not _day(row["deprecated"]):
        raise BadInput(f'deprecated of {name} is the day a model ends, as "2027-01-31", not {row["deprecated"]!r}')
    return row


def _without_aliases(row: Any) -> dict[str, Any]:
    """A row from elsewhere, checked: which names lead to a model is not for a download to say."""
    return {key: value for key, value in _checked(row).items() if key != "aliases"}


def _known_form(row: Any) -> dict[str, Any] | None:
    try:
        return _without_aliases(row)
    except BadInput:
        return None


_UNITS = {
    "audio_minute": " per minute of sound",
    "million_characters": " per million characters",
    "thousand_searches": " per thousand searches",
}


def _amount(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")


def _texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, str) and item for item in value)


def _day(value: Any) -> bool:
    try:
        return bool(datetime.date.fromisoformat(value))
    except (TypeError, ValueError):
        return False
