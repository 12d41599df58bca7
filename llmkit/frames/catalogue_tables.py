"""The catalogue as frames: which models and providers there are, whose key is found, and every way to one model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd

from ..catalogue import BUILT_IN, Catalogue
from ..picking import Way
from ..session import Session
from ..types import Model, Price, Provider

__all__ = ["models_table", "providers_table", "servers_table", "ways_table"]

_PRICES = [field.name for field in fields(Price) if field.name != "long_from"]
_COUNTS = ["context_window", "output_limit", "dimensions"]


def models_table(session: Session) -> pd.DataFrame:
    """A row for each model that the catalogue knows."""
    keys = {}
    for name in session.catalogue.provider_names():
        provider = session.catalogue.provider(name)
        if provider is not None:
            keys[name] = session.settings.key(session.settings.addressed(provider)) is not None
    known = _known_models(session.catalogue)
    return known.assign(key_found=[keys.get(name, False) for name in known["provider"].tolist()])


def _known_models(catalogue: Catalogue) -> pd.DataFrame:
    """What the catalogue alone says of its models. Kept while they stay as they are: panels ask for the table whenever one is opened."""
    made = catalogue.made_of_models
    if "table" not in made:
        models = [model for model in catalogue.models() if model.provider not in BUILT_IN]
        made["table"] = pd.DataFrame(
            {
                "canonical": [catalogue.canonical(model) for model in models],
                "provider": [model.provider for model in models],
                "name": [model.name for model in models],
                "operations": [", ".join(model.operations) for model in models],
                **_figures(models),
            }
        )
    return made["table"]  # type: ignore[no-any-return]


def providers_table(session: Session) -> pd.DataFrame:
    """A row for each provider, its own or the user's, the variables that may hold its key, and where a key was found; never the key."""
    rows = []
    for name in session.catalogue.provider_names():
        known = session.catalogue.provider(name)
        if known is None:
            continue
        provider = session.settings.addressed(known)
        secret = session.settings.key(provider)
        rows.append(
            {
                "provider": name,
                "base_url": provider.base_url,
                "protocol": provider.protocol,
                "key_env": ", ".join(provider.key_env),
                "key_found": secret is not None,
                "key_from": secret.origin if secret else "",
                "key_needed": not provider.key_optional,
                "operations": ", ".join(provider.operations),
                "status": provider.status,
                "note": _note(session, known, provider),
                "console": provider.console,
                "docs": provider.docs,
            }
        )
    # By columns: of a list of dicts pandas first makes these itself, four times slower.
    return pd.DataFrame({name: [row[name] for row in rows] for name in (rows[0] if rows else ())})


def ways_table(ways: Sequence[Way]) -> pd.DataFrame:
    """A row for each way to reach a model, best first."""
    return pd.DataFrame(
        {
            "model": [way.name for way in ways],
            "provider": [way.provider.name for way in ways],
            "name": [way.model.name for way in ways],
            "ready": [way.ready for way in ways],
            "key_from": [way.secret.origin if way.secret else "" for way in ways],
            "base_url": [way.provider.base_url for way in ways],
            "operations": [", ".join(way.model.operations) for way in ways],
            **_figures([way.model for way in ways]),
        }
    )


def servers_table(found: Sequence[tuple[Provider, str]], canonical: Sequence[str]) -> pd.DataFrame:
    """A row for each model of each server on this computer."""
    rows = [
        (f"{provider.name}/{name}", provider.base_url, meant) for (provider, name), meant in zip(found, canonical, strict=True)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["model", "base_url", "canonical"])


def _figures(models: Sequence[Model]) -> dict[str, Any]:
    """Columns: counts as whole numbers and prices as numbers, missing where unknown. The picker has them made whenever it is opened."""
    prices = [model.price for model in models]
    return {
        **{count: pd.array([getattr(model, count) for model in models], dtype="Int64") for count in _COUNTS},
        "capabilities": [", ".join(model.capabilities) for model in models],
        **{f"{name}_price": np.array([getattr(price, name) for price in prices], dtype=float) for name in _PRICES},
        "deprecated": [model.deprecated or "" for model in models],
        "as_of": [model.as_of for model in models],
        "source": [model.source for model in models],
    }


def _note(session: Session, known: Provider, provider: Provider) -> str:
    if provider.retired:
        return provider.retired
    if provider.base_url != known.base_url:
        return f"moved from {known.base_url}"
    return session.settings.passed_over(known)
