"""What callers hand in, checked before anything is sent: each refusal names the argument and the cure."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from ..errors import BadInput, ConfigError
from ..operations.chat import Schema
from ..types import Policy

__all__ = [
    "Cache",
    "OnError",
    "Prefer",
    "PromptCache",
    "asked_again",
    "batch",
    "by",
    "cache",
    "columns",
    "described",
    "heeded",
    "input_type",
    "limit",
    "long_text",
    "megabytes",
    "options",
    "policy",
    "prompt_cache",
    "rounds",
    "rows",
    "schema",
    "speed",
    "text",
]

Cache = Literal["use", "refresh", "off"]
OnError = Literal["keep", "raise"]
Prefer = Literal["any", "first"]
PromptCache = Literal["auto", "off"]


def policy(
    cache: Cache,
    on_error: OnError,
    max_cost: float | None,
    timeout: float,
    max_attempts: int,
    max_concurrency: int,
    prefer: Prefer = "any",
) -> Policy:
    """The policy that these arguments amount to."""
    _cache(cache)
    if prefer not in ("any", "first"):
        raise ConfigError(f'prefer is "any" or "first", not {prefer!r}')
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
        prefer=prefer,
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


def rounds(given: Any) -> int:
    """How often the calls of one row are carried out at the most."""
    if not _is_whole(given) or given < 1:
        raise ConfigError(f"max_rounds is a whole number of at least 1, not {given!r}")
    return int(given)


def asked_again(max_reask: Any, more_tokens: Any, max_tokens: int | None) -> tuple[int, int | None]:
    """How often an answer that is not valid is asked for again, and the room that one which was cut gets."""
    if not _is_whole(max_reask) or max_reask < 0:
        raise ConfigError(f"max_reask is a whole number of times, from 0 up, not {max_reask!r}")
    room = options(more_tokens=more_tokens).get("more_tokens")
    if room is not None and max_tokens is not None and room <= max_tokens:
        raise BadInput(f"more_tokens is for a second try with more room than the first: say more than max_tokens={max_tokens}")
    return int(max_reask), room


def limit(given: Any) -> int | None:
    """How many rows to run at the most; ``None`` for all."""
    return rows("limit", given, 0)


def schema(given: Any) -> Schema | None:
    """What ``response_format=`` says: ``"json"`` for any JSON object, or a record as ``extract`` takes it."""
    if given is None:
        return None
    if given == "json" or (isinstance(given, Mapping) and given.get("type") == "json_object"):
        return Schema("answer", None)
    if isinstance(given, Mapping):
        inner = given.get("json_schema") if given.get("type") == "json_schema" else None
        if isinstance(inner, Mapping) and isinstance(inner.get("schema"), Mapping):
            return Schema(str(inner.get("name") or "answer"), inner["schema"])
        if given.get("type") == "object" or "$ref" in given or "properties" in given:
            return Schema(str(given.get("title") or "answer").replace(" ", "_"), given)
    elif isinstance(given, type) and hasattr(given, "model_json_schema"):
        return Schema(given.__name__, given.model_json_schema())
    return _record(given)


def _record(given: Any) -> Schema:
    from ..operations.schemas import fields_of  # pydantic takes as long to import as all of llmkit

    try:
        fields = fields_of(given)
    except BadInput as error:
        raise BadInput(f'response_format is a pydantic model, a JSON schema of an object, or "json" ({error.message})') from None
    if fields.kind != "record":
        raise BadInput("response_format is one record a row; for one value, or a list of records, say df.llm.extract(...)")
    return fields.schema()


def text(name: str, value: Any) -> str | None:
    """A text that is the same for all rows, or ``None``."""
    if value is not None and not isinstance(value, str):
        raise ConfigError(f"{name} is a text, the same for all rows, not {type(value).__name__}")
    return value


def cache(given: Any) -> Cache:
    """Whether stored answers are read and written."""
    if given not in ("use", "refresh", "off"):
        raise ConfigError(f'cache is "use", "refresh" or "off", not {given!r}')
    return given  # type: ignore[no-any-return]


def batch(given: Any, cache: Any) -> bool:
    """Whether a call goes by batch jobs."""
    if not isinstance(given, bool):
        raise ConfigError(f"batch is True or False, not {given!r}")
    if given and cache == "off":
        raise BadInput('batch jobs hand their answers in through the store; cache="off" has none, and cache="refresh" asks anew')
    return given


def prompt_cache(given: Any) -> PromptCache:
    """Whether vendors' prompt caches are made use of."""
    if given not in ("auto", "off"):
        raise ConfigError(f'prompt_cache is "auto" or "off", not {given!r}')
    return given  # type: ignore[no-any-return]


def by(given: Any) -> Any:
    """How to classify."""
    if given not in ("auto", "chat", "embedding", "classifier"):
        raise ConfigError(f'by is "auto", "chat", "embedding" or "classifier", not {given!r}')
    return given


def heeded(by: str, *, multi_label: bool, instructions: Any, examples: Any, options: Mapping[str, Any]) -> None:
    """Refuse what a way to classify would pass over in silence."""
    if by == "chat":
        return
    if multi_label:
        raise BadInput("several labels a row need a chat model: the nearest label, or a classifier's, is always one")
    if instructions:
        raise BadInput("instructions are for a chat model; describe the labels instead")
    if by == "embedding" and (examples or options):
        raise BadInput(f"{'examples' if examples else next(iter(options))} cannot be heeded by vectors; leave it out, or name a chat model")


def input_type(given: Any) -> dict[str, Any]:
    """What the texts of an embedding are; nothing where nothing is said."""
    if given not in (None, "document", "query"):
        raise ConfigError(f'input_type is "document" or "query", not {given!r}')
    return {} if given is None else {"input_type": given}


def long_text(given: Any, overlap: Any, ways: tuple[str, ...] = ("error", "truncate", "mean")) -> None:
    if given not in ways:
        said = ", ".join(f'"{way}"' for way in ways[:-1])
        raise ConfigError(f'long_text is {said} or "{ways[-1]}", not {given!r}')
    if not _is_number(overlap) or not 0 <= overlap <= 0.5:
        raise ConfigError(f"overlap is a share of a window, from 0 to 0.5, not {overlap!r}")


def speed(given: Any) -> dict[str, Any]:
    if given is not None and (not _is_number(given) or not 0.25 <= given <= 4):
        raise ConfigError(f"speed is a number from 0.25 to 4, not {given!r}")
    return {} if given is None else {"speed": float(given)}


def megabytes(value: Any) -> int:
    """``max_file_mb`` in bytes."""
    if not _is_number(value) or not value > 0:
        raise ConfigError(f"max_file_mb is megabytes, more than 0, not {value!r}")
    return int(value * 2**20)


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


_cache = cache
