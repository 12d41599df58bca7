"""The catalogue as frames: which models and providers there are, whose key is found, and every way to one model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import pandas as pd

from ..catalogue import BUILT_IN
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
    rows = [
        {
            "canonical": session.catalogue.canonical(model),
            "provider": model.provider,
            "name": model.name,
            "operations": ", ".join(model.operations),
            **_figures(model),
            "key_found": keys.get(model.provider, False),
        }
        for model in session.catalogue.models()
        if model.provider not in BUILT_IN
    ]
    return _typed(pd.DataFrame(rows))


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
    return pd.DataFrame(rows)


def ways_table(ways: Sequence[Way]) -> pd.DataFrame:
    """A row for each way to reach a model, best first."""
    rows = [
        {
            "model": way.name,
            "provider": way.provider.name,
            "name": way.model.name,
            "ready": way.ready,
            "key_from": way.secret.origin if way.secret else "",
            "base_url": way.provider.base_url,
            "operations": ", ".join(way.model.operations),
            **_figures(way.model),
        }
        for way in ways
    ]
    return _typed(pd.DataFrame(rows))


def servers_table(found: Sequence[tuple[Provider, str]], canonical: Sequence[str]) -> pd.DataFrame:
    """A row for each model of each server on this computer."""
    rows = [
        (f"{provider.name}/{name}", provider.base_url, meant) for (provider, name), meant in zip(found, canonical, strict=True)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["model", "base_url", "canonical"])


def _figures(model: Model) -> dict[str, Any]:
    return {
        **{count: getattr(model, count) for count in _COUNTS},
        "capabilities": ", ".join(model.capabilities),
        **{f"{price}_price": getattr(model.price, price) for price in _PRICES},
        "deprecated": model.deprecated or "",
        "as_of": model.as_of,
        "source": model.source,
    }


def _note(session: Session, known: Provider, provider: Provider) -> str:
    if provider.retired:
        return provider.retired
    if provider.base_url != known.base_url:
        return f"moved from {known.base_url}"
    return session.settings.passed_over(known)


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    """Counts as whole numbers and prices as numbers, missing where unknown."""
    whole = dict.fromkeys(_COUNTS, "Int64")
    return frame.astype({**whole, **{f"{price}_price": "float64" for price in _PRICES}})
