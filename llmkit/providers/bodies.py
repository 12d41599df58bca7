"""What vendors' JSON bodies have in common, read once for all of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
from pybase64 import b64decode_as_bytearray, b64encode

from ..errors import BadOutput, LLMError, ServerFault, one_line
from ..operations.chat import Image, Message, Schema, Tool, ToolCall, ToolResult
from ..types import Reply, Usage
from .dialects import Asked, without_invented_nulls

__all__ = [
    "answering",
    "calls",
    "data_url",
    "embedded",
    "facts",
    "form_of",
    "function",
    "named",
    "parse",
    "placed",
    "scores",
    "shares",
    "tokens",
    "tool_results",
    "vector",
    "vectors",
]


def parse(body: Any, classify_error: Callable[[int, Mapping[str, str], bytes], LLMError]) -> dict[str, Any]:
    """The JSON object of a 200. An error in disguise is raised as what it is."""
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError:
        try:
            data = json.loads(body)  # takes the bare NaN that some servers write
        except (ValueError, RecursionError):
            raise ServerFault("the answer is not JSON", kind="bad_response") from None
    if not isinstance(data, dict):
        raise ServerFault("the answer is not a JSON object", kind="bad_response")
    if data.get("error") or data.get("object") == "error":  # the latter is Mistral's
        raise classify_error(200, {}, body)
    return data


def facts(body: bytes) -> tuple[dict[str, Any], str, str]:
    """(error object, code, message) of an error body of any of the known shapes; empty where there is none."""
    try:
        data: Any = json.loads(body[:200_000]) if body else {}
    except (ValueError, RecursionError):
        return {}, "", one_line(body[:2000].decode("utf-8", "replace"))
    if isinstance(data, list):  # Gemini's streaming endpoints wrap the error in an array
        data = data[0] if data else {}
    if not isinstance(data, dict):
        return {}, "", one_line(data)
    error = data.get("error", data)
    if not isinstance(error, dict):
        return {}, "", one_line(error)
    code = error.get("code") or error.get("type") or error.get("status") or ""
    message = error.get("message") or error.get("detail") or data.get("message") or ""
    return error, str(code), one_line(message)


def named(data: Mapping[str, Any], field: str = "model") -> str | None:
    """The text of a field, ``None`` where it holds anything else."""
    value = data.get(field)
    return value if isinstance(value, str) else None


def tokens(count: Any) -> int:
    """A count as servers write it: also ``12.0``, ``"12"`` and ``null``; what is none counts nothing."""
    if type(count) is int:
        return count if 0 <= count < 2**53 else 0
    try:
        return max(0, int(float(count))) if isinstance(count, str | float) else 0
    except (ValueError, OverflowError):
        return 0


def shares(total: int, weights: Sequence[int]) -> list[int]:
    """``total`` split by weight into whole numbers that add up to it: vendors bill a batch, people ask for a row."""
    whole = sum(weights) or 1
    parts, seen, given = [], 0, 0
    for weight in weights:
        seen += weight
        upto = total * seen // whole
        parts.append(upto - given)
        given = upto
    return parts


def vector(raw: Any) -> npt.NDArray[np.float32] | None:
    """A finite, non-zero float32 vector from base64 or a list of numbers; ``None`` where it is neither.

    NumPy's warnings of overflow have to be off: see ``vectors``.
    """
    try:
        if isinstance(raw, str):
            values = np.frombuffer(b64decode_as_bytearray(raw), dtype="<f4")
        else:
            values = np.asarray(raw, dtype=np.float32)
    except (ValueError, TypeError):  # what is no base64 is a ValueError too
        return None
    if values.ndim != 1 or not len(values):
        return None
    square = float(values.dot(values))
    if 0.0 < square < float("inf") or (square == float("inf") and np.isfinite(values).all()):
        return values
    return None


def vectors(raws: Sequence[Any]) -> list[npt.NDArray[np.float32] | None]:
    """``vector`` of each."""
    with np.errstate(over="ignore", invalid="ignore"):
        return [vector(raw) for raw in raws]


def placed(data: Mapping[str, Any], inputs: int) -> list[Any]:
    """The embeddings of an answer in OpenAI's shape, each at the place of its input by the answer's own index; ``None`` where none came."""
    items = data.get("data")
    if not isinstance(items, list) or not items:
        raise ServerFault("the answer has no embeddings", kind="bad_response")
    raws: list[Any] = [None] * inputs
    for position, item in enumerate(items):
        at = item.get("index", position) if isinstance(item, dict) else -1
        if isinstance(at, int) and 0 <= at < inputs:
            raws[at] = item.get("embedding")
    return raws


def embedded(raws: Sequence[Any], billed: int | None, weights: Sequence[int], model: str | None = None) -> list[Reply | LLMError]:
    """One reply for each embedding; ``weights`` say how the bill of the batch, ``None`` for an untold one, is shared among them."""
    replies: list[Reply | LLMError] = []
    for number, (found, share) in enumerate(zip(vectors(raws), shares(billed or 0, weights), strict=True)):
        first = number == 0
        usage = Usage(input=share, requests=int(first), unreported=int(first and billed is None))
        if found is None:
            replies.append(BadOutput("no usable vector came for this input", kind="invalid_vector", usage=usage))
        else:
            replies.append(Reply(value=found, usage=usage, model=model))
    return replies


def scores(results: Sequence[Any], documents: int) -> npt.NDArray[np.float64] | None:
    """A reranker's scores by index: a document that was left out is NaN, one that was never sent is ignored; ``None`` where none came."""
    placed = np.full(documents, np.nan)
    for result in results:
        at = result.get("index") if isinstance(result, dict) else None
        score = result.get("relevance_score", result.get("score")) if isinstance(result, dict) else None
        if isinstance(at, int) and 0 <= at < documents and isinstance(score, int | float):
            placed[at] = score
    return None if np.isnan(placed).all() else placed


def calls(reported: Any) -> tuple[ToolCall, ...]:
    """Tool calls as OpenAI writes them, and Cohere after it."""
    found = []
    for number, call in enumerate(reported or ()):
        function = call["function"]
        arguments = function.get("arguments") or "{}"
        if not isinstance(arguments, str):  # Ollama's own shape, seen through gateways: an object
            arguments = orjson.dumps(arguments).decode()
        found.append(ToolCall(str(call.get("id") or f"call_{number}"), str(function["name"]), arguments))
    return tuple(found)


def function(tool: Tool) -> dict[str, Any]:
    """A tool as OpenAI's wire writes it, and others after it."""
    return {"type": "function", "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters}}


def tool_results(message: Message) -> list[dict[str, Any]]:
    """What tools gave back, as OpenAI's wire writes it, and others after it."""
    return [
        {"role": "tool", "tool_call_id": part.call.id, "content": part.content} for part in message.content if isinstance(part, ToolResult)
    ]


def answering(schema: Schema, asked: Asked) -> dict[str, Any]:
    """The function whose arguments are the answer."""
    strict = {"strict": True} if asked.strict else {}
    about = schema.description or "Gives the answer."
    return {"type": "function", "function": {"name": asked.name, "description": about, "parameters": asked.form, **strict}}


def form_of(schema: Schema, text: str, called: Sequence[ToolCall], others: Sequence[Tool]) -> tuple[str, tuple[ToolCall, ...]]:
    """The JSON of a structured answer, whichever way it came, and the calls that are none of it."""
    names = {tool.name for tool in others}
    answers = [call.arguments for call in called if call.name not in names]
    if answers:  # several different ones are for the reader to refuse
        text = "\n".join(dict.fromkeys(answers))
    return without_invented_nulls(schema, text), () if answers else tuple(called)


def data_url(picture: Image) -> str:
    """Where a picture is: its public address, or itself as a ``data:`` URL."""
    return picture.url or f"data:{picture.media_type};base64,{b64encode(picture.data).decode()}"
