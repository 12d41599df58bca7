"""extract: a row's text becomes the fields of a schema, checked; what is not valid is asked again, once.

The request is a chat's with a schema; what differs is what becomes of the reply.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import BadInput, BadOutput, LLMError, Truncated
from ..types import Operation, Reply, Request
from .chat import CHAT, ChatPayload, Message, Schema, Scored
from .schemas import Extracted, Fields, Invalid, fields_of

__all__ = ["EXTRACT", "MODES", "extracting", "formed", "mode_of", "usual_instructions"]

#: instructor's names of modes, and ours; some are one vendor's.
MODES: dict[str, tuple[str, str]] = {
    "auto": ("", ""),
    "json_schema": ("json_schema", ""),
    "tools": ("tools", ""),
    "tool_use": ("tools", ""),
    "function_calling": ("tools", ""),
    "anthropic_tools": ("tools", "anthropic"),
    "mistral_tools": ("tools", "mistral"),
    "cohere_tools": ("tools", "cohere"),
    "json_object": ("json_object", ""),
    "json_mode": ("json_object", ""),
    "anthropic_json": ("words", "anthropic"),
    "md_json": ("words", ""),
    "words": ("words", ""),
}


def mode_of(name: str) -> tuple[str, str]:
    """(mode, provider or ``""``) of a name.

    Raises
    ------
    BadInput
        There is no mode of that name.
    """
    try:
        return MODES[name]
    except (KeyError, TypeError):
        raise BadInput(f"mode is one of {', '.join(MODES)}, not {name!r}") from None


def usual_instructions(fields: Fields, more: str | None) -> str:
    """What is said where the caller only names columns."""
    asked = (
        "Fill in the fields from the data in the user's message, and from nothing else. Where the data does not say it, leave an optional "
        "field null rather than guess. Answer with one JSON object."
    )
    about = (fields.model.__doc__ or "").strip() if fields.kind == "record" else ""
    return "\n\n".join(part for part in (asked, about, more) if part)


class _Again(Message):
    """A turn that asks again: told apart by its type, since a row may say the same words."""

    __slots__ = ()


_CUT = "the answer was cut at the token limit before it was whole; raise max_tokens"

#: Of an answer that cannot be used so much is shown to the model again.
_SHOWN = 20_000


def _turns(text: str, why: str) -> tuple[Message, Message]:
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ..."
    again = f"That answer cannot be used: {why}. Answer again with one JSON object of the schema that was asked for, and nothing else."
    # Vendors refuse an empty turn.
    return Message("assistant", shown if shown.strip() else "(nothing)"), _Again("user", again)


def _read(fields: Fields, max_reask: int, more_tokens: int | None, request: Request, reply: Reply) -> Reply | LLMError | Request:
    payload = request.payload
    assert isinstance(payload, ChatPayload) and payload.schema is not None
    text = reply.value.text if isinstance(reply.value, Scored) else reply.value
    try:
        value = fields.read(text, reply.finish == "length")
        return Reply(value, reply.usage, reply.model, reply.finish, reply.request_id)
    except Invalid as error:
        invalid = error
    except Exception as error:  # a validator of the caller's: whatever it raises is this row's
        return BadOutput(f"a validator of {fields.name} raised {type(error).__name__}", kind="validator")
    if reply.finish == "length":
        # The same question would be cut at the same place.
        most = request.options.get("max_tokens")
        if more_tokens is not None and (most is None or most < more_tokens):
            return Request(request.operation, payload, {**request.options, "max_tokens": more_tokens})
        return Truncated(f"{_CUT}, or set more_tokens")
    if sum(isinstance(message, _Again) for message in payload.messages) >= max_reask:
        return BadOutput(f"the answer is not valid: {invalid.why}", kind="invalid")
    messages = (*payload.messages, *_turns(text, invalid.told))
    schema = _in_mode(payload.schema, "words") if invalid.prose and not payload.schema.mode else payload.schema
    return Request(request.operation, replace(payload, messages=messages, schema=schema, opening=None), request.options)


def _lesser(request: Request, modes: Sequence[str], mode: str, error: LLMError | None) -> str:
    left = modes[modes.index(mode) + 1 :] if mode in modes else modes[1:]
    if error is None:  # what the next round was recast to
        schema = request.payload.schema
        return schema.mode if schema is not None and schema.mode in left else ""
    return left[0] if left and error.of_form else ""


def _recast(request: Request, mode: str) -> Request:
    payload = request.payload
    if payload.schema is None or payload.schema.mode:
        return request
    return replace(request, payload=replace(payload, schema=_in_mode(payload.schema, mode)))


def _in_mode(schema: Schema, mode: str) -> Schema:
    """The same schema asked for in this mode: one object a schema and mode, so that wires prepare it once."""
    found: Schema | None = schema.prepared.get(mode)
    if found is None:
        found = schema.prepared[mode] = replace(schema, mode=mode)
    return found


def _pack(value: Extracted) -> bytes:
    return value.raw.encode()


def _unpack(fields: Fields, stored: bytes) -> Extracted:
    # Checked again: the caller's validators may say something else today, and what they refuse is asked anew.
    try:
        return fields.checked(stored)
    except (ValidationError, Invalid):
        raise ValueError("not of this schema") from None
    except (Exception, SystemExit) as error:
        raise ValueError(f"a validator raised {type(error).__name__}") from None


def _hold(value: Extracted, key: bytes) -> Any:
    return value.data


def _nobody(stored: bytes) -> Any:
    raise ValueError("of no schema")


EXTRACT = Operation(name="extract", tasks=CHAT.tasks, kind="object", pack=_pack, unpack=_nobody, wire="chat", hold=_hold)


def extracting(fields: Fields, max_reask: int = 1, more_tokens: int | None = None) -> Operation:
    """``EXTRACT`` for these fields.

    Parameters
    ----------
    fields : Fields
    max_reask : int
        Times that a row is asked again, with what was wrong, after an answer that is not valid.
    more_tokens : int, optional
        ``max_tokens`` of a second try for an answer that was cut.
    """
    return replace(
        EXTRACT,
        unpack=partial(_unpack, fields),
        read=partial(_read, fields, max_reask, more_tokens),
        blocking=fields.runs_code,
        lesser=_lesser,
        recast=_recast,
    )


# ----------------------------------------------------------------------------------------------------------- chat in a form


def formed(given: Any, schema: Schema, chat: Operation = CHAT) -> Operation:
    """A chat whose answers are JSON of a form, as text: read, asked again and asked for otherwise as ``extract`` does it.

    Parameters
    ----------
    given : pydantic model or JSON schema
        What the form was made of; what no model can be made of is checked to be one JSON object.
    schema : Schema
        The form; where its ``schema`` is ``None``, any JSON object will do.
    chat : Operation
    """
    fields = _AN_OBJECT
    if schema.schema is not None:
        try:
            fields = fields_of(given)
        except BadInput:  # JSON schema says more than a model can check
            if isinstance(given, type):
                raise
    return replace(chat, read=partial(_read_text, fields), blocking=fields.runs_code, lesser=_lesser, recast=_recast)


class _AnObject(BaseModel):
    model_config = ConfigDict(extra="allow")


_AN_OBJECT = Fields("the answer", "record", _AnObject, _AnObject)


def _read_text(fields: Fields, request: Request, reply: Reply) -> Reply | LLMError | Request:
    outcome = _read(fields, 1, None, request, reply)
    if isinstance(outcome, Truncated):  # chat has no more_tokens
        return Truncated(_CUT)
    return replace(outcome, value=outcome.value.raw) if isinstance(outcome, Reply) else outcome
