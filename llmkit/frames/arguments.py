"""What callers hand in, checked before anything is sent: each refusal names the argument and the cure."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from ..errors import BadInput, ConfigError
from ..types import Policy

__all__ = ["Cache", "OnError", "columns", "described", "limit", "options", "policy", "rows"]

Cache = Literal["use", "refresh", "off"]
OnError = Literal["keep", "raise"]


def policy(
    cache: Cache,
    on_error: OnError,
    max_cost: float | None,
    timeout: float,
    max_attempts: int,
    max_concurrency: int,
) -> Policy:
    """The policy that these arguments amount to."""
    if cache not in ("use", "refresh", "off"):
        raise ConfigError(f'cache is "use", "refresh" or "off", not {cache!r}')
    if on_error not in ("keep", "raise"):
        raise ConfigError(f'on_error is "keep" or "raise", not {on_error!r}')
    if not _is_number(timeout) or not timeout > 0:
        raise ConfigError(f"timeout is seconds, more than 0, not {timeout!r}")
    for name, value in (("max_attempts", max_attempts), ("max_concurrency", max_concurrency)):
        if not _is_whole(value) or value < 1:
            raise ConfigError(f"{name} is a whole number of at least 1, not {value!r}")
    if max_cost is not None and (not _is_number(max_cost) or not max_cost >= 0):
        raise ConfigError(f"max_cost is US dollars, e.g. max_cost=2.50, not {max_cost!r}")
    return Policy(
        cache=cache,
        on_error=on_error,
        max_cost=max_cost,
        timeout=timeout,
        max_attempts=max_attempts,
        max_concurrency=max_concurrency,
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def options(temperature: Any = None, **whole: Any) -> dict[str, Any]:
    """What goes into the body as it is; numpy's numbers, which JSON does not know, become Python's."""
    found: dict[str, Any] = {}
    if temperature is not None:
        if not _is_number(temperature) or not temperature >= 0:
            raise ConfigError(f"temperature is a number from 0 up, not {temperature!r}")
        found["temperature"] = temperature if type(temperature) in (int, float) else float(temperature)
    for name, value in whole.items():
        if value is not None:
            if not _is_whole(value) or (value < 1 and name != "seed"):
                raise ConfigError(f"{name} is a whole number{'' if name == 'seed' else ' of at least 1'}, not {value!r}")
            found[name] = int(value)
    return found


def rows(name: str, value: Any, least: int) -> int | None:
    """A number of rows, or ``None`` as it was given."""
    if value is not None and (not _is_whole(value) or value < least):
        raise ConfigError(f"{name} is a number of rows, at least {least}, not {value!r}")
    return None if value is None else int(value)


def limit(given: Any) -> int | None:
    """How many rows to run at the most; ``None`` for all."""
    return rows("limit", given, 0)


def columns(on: Any) -> list[Any]:
    """The columns that ``on=`` names, one or several."""
    return list(on) if isinstance(on, list) else [on]


def described(labels: Any) -> dict[str, str]:
    """Label to description; a label that comes without one describes itself."""
    if isinstance(labels, str) or not isinstance(labels, Iterable):
        raise BadInput(f'labels are a list, e.g. ["billing", "delivery"], or a mapping of label to description, not {labels!r}')
    found = dict(labels) if isinstance(labels, Mapping) else {label: label for label in labels}
    if len(found) < 2 or not all(isinstance(text, str) and text.strip() for pair in found.items() for text in pair):
        raise BadInput("classify needs at least two different labels, each a text, and none with an empty description")
    return found
