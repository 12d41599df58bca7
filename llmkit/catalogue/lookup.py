"""Which vendors and models there are: rows of ``providers.toml`` and ``models.json``, read at the first question."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import BadInput, UnknownModel
from ..types import Model, Price, Provider

__all__ = ["BUILT_IN", "Catalogue"]

#: Providers that live in this package; their files hold their own rows.
BUILT_IN = ("echo", "local")


_HERE = Path(__file__).parent


class Catalogue:
    """Providers by name, models by name and alias. What is merged in by hand wins over what the package ships."""

    def __init__(self) -> None:
        self._added: dict[str, Provider] = {}
        self._merged: dict[tuple[str, str], Model] = {}

    # ------------------------------------------------------------------------------------------------------------- reading

    @cached_property
    def _toml(self) -> dict[str, Any]:
        return tomllib.loads(_HERE.joinpath("providers.toml").read_text("utf-8"))

    @cached_property
    def _json(self) -> dict[str, Any]:
        return dict(json.loads(_HERE.joinpath("models.json").read_bytes()))

    @cached_property
    def _shipped_providers(self) -> dict[str, Provider]:
        known = {field.name for field in fields(Provider)}
        rows = {name: row for name, row in self._toml.items() if isinstance(row, dict)}
        return {
            name: Provider(name=name, **{key: _frozen(value) for key, value in row.items() if key in known}) for name, row in rows.items()
        }

    @cached_property
    def _shipped_models(self) -> dict[tuple[str, str], Model]:
        return {(row["provider"], row["name"]): _model(row) for row in self._json["models"]}

    # ------------------------------------------------------------------------------------------------------------- adding

    def add(self, provider: Provider) -> None:
        self._added[provider.name] = provider

    def merge(self, models: Iterable[Mapping[str, Any]]) -> None:
        """Rows in the form of ``models.json``; what a row does not say stays as it was known."""
        checked = [_checked(row) for row in models]
        for row in checked:
            known = self.model(row["provider"], row["name"])
            self._merged[known.provider, known.name] = _model(row, known)

    # ------------------------------------------------------------------------------------------------------------- asking

    @property
    def local_ports(self) -> list[dict[str, Any]]:
        return list(self._toml["local_ports"])

    def provider_names(self) -> list[str]:
        return [*self._added, *BUILT_IN, *(name for name in self._shipped_providers if name not in self._added)]

    def provider(self, name: str) -> Provider | None:
        return self._added.get(name) or self._shipped_providers.get(name)

    def models(self) -> Iterator[Model]:
        merged = dict(self._merged)
        for name, model in self._shipped_models.items():
            yield merged.pop(name, model)
        yield from merged.values()

    def model(self, provider: str, name: str) -> Model:
        """The row of this model; one that is unknown is made of its names alone, since vendors add models every week."""
        found = self._merged.get((provider, name)) or self._shipped_models.get((provider, name))
        return found or Model(provider, name)

    def named(self, canonical: str) -> list[Model]:
        """Every provider's model of this canonical name, in the order of the providers."""
        order = {name: place for place, name in enumerate(self.provider_names())}
        found = [model for model in self.models() if canonical == model.name or canonical in model.aliases]
        return sorted(found, key=lambda model: order.get(model.provider, len(order)))

    def priority(self, operation: str) -> list[str]:
        """Canonical names for an operation, best first."""
        return list(self._json.get({"chat": "auto_model_priority", "embed": "auto_embed_priority"}.get(operation, ""), []))

    def unknown(self, name: str, provider: str | None = None) -> UnknownModel:
        """The error for a name that nobody has, with the nearest that somebody has."""
        if provider is not None:
            near = get_close_matches(provider, self.provider_names(), 1, 0.6)
            hint = f' Did you mean "{near[0]}"?' if near else ""
            known = ", ".join(self.provider_names())
            return UnknownModel(f'no provider "{provider}".{hint} The known ones are {known}; add your own with llmkit.add_provider(...)')
        hint = self.nearest(name)
        return UnknownModel(f'no model "{name}".{hint} Name it as "provider/model"')

    def nearest(self, name: str, provider: str | None = None) -> str:
        """``" Did you mean ...?"`` for a misspelt model, or nothing."""
        models = [model for model in self.models() if provider is None or model.provider == provider]
        names = {alias: str(model) for model in models for alias in (model.name, *model.aliases)}
        near = get_close_matches(name, names, 2, 0.6)
        return f" Did you mean {' or '.join(dict.fromkeys(names[one] for one in near))}?" if near else ""


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _model(row: Mapping[str, Any], known: Model | None = None) -> Model:
    model = known or Model(row["provider"], row["name"])
    names = {field.name for field in fields(Model)} - {"provider", "name", "price"}
    said = {key: _frozen(value) for key, value in row.items() if key in names and value is not None}
    price = {key: value for key, value in (row.get("price") or {}).items() if value is not None}
    if price:
        said["price"] = replace(model.price, **price)
    return replace(model, **said)


_PRICES = tuple(field.name for field in fields(Price))


def _checked(row: Any) -> Mapping[str, Any]:
    """A row that somebody wrote by hand; what is misspelt would otherwise be ignored in silence."""
    if not isinstance(row, Mapping) or not all(isinstance(row.get(key), str) and row[key] for key in ("provider", "name")):
        raise BadInput('a model\'s row is a mapping with at least "provider" and "name", each a text')
    price = row.get("price") or {}
    if not isinstance(price, Mapping):
        raise BadInput(f'the price of {row["name"]} is a mapping, e.g. {{"input": 0.4, "output": 1.6}}, in dollars per million tokens')
    for given, known in ((row, [field.name for field in fields(Model)]), (price, _PRICES)):
        for key in given:
            if key not in known:
                near = get_close_matches(str(key), known, 1, 0.5)
                raise BadInput(f"a model has no {key!r}; {f'did you mean {near[0]!r}?' if near else 'it has ' + ', '.join(known)}")
    for key, value in price.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0):
            raise BadInput(f"the {key} price of {row['name']} is dollars per million tokens, not {value!r}")
    return row
