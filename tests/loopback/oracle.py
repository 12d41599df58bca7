"""A chat model that answers the semantic operators truthfully, by a rule that the test knows and the code under test does not."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import orjson

_DATA = re.compile(r"<([^\s<>/]+)>\n(.*?)\n</\1>", re.DOTALL)


def data_in(text: str) -> dict[str, str]:
    """What stands between tags, outermost ones, by the name of the tag without what was added to it."""
    return {tag.rstrip("_"): data for tag, data in _DATA.findall(text)}


class Oracle:
    """``server.answer = Oracle(...)``.

    Parameters
    ----------
    is_true
        Whether the claim holds of the data, by tag.
    worth
        Of an item's text: the more, the better.
    name
        Of a group, from the texts that it is shown.
    whole
        The answer about the text of a user message that holds rows, or answers about rows.
    """

    def __init__(
        self,
        *,
        is_true: Callable[[Mapping[str, str]], bool] = lambda data: True,
        worth: Callable[[str], float] = len,
        name: Callable[[str], str] = lambda text: "a group",
        whole: Callable[[str], str] = lambda text: "an answer",
    ) -> None:
        self._is_true, self._worth, self._name, self._whole = is_true, worth, name, whole

    def __call__(self, body: dict[str, Any]) -> str:
        text = next(message["content"] for message in body["messages"] if message["role"] == "user")
        if "response_format" not in body:
            return self._whole(text)
        properties = body["response_format"]["json_schema"]["schema"]["properties"]
        return orjson.dumps(self._filled(properties, text)).decode()

    def _filled(self, properties: dict[str, Any], text: str) -> dict[str, Any]:
        if "name" in properties:
            return {"name": self._name(text), "description": "what they have in common"}
        data = data_in(text)
        if properties["value"].get("type") == "boolean":
            return {"value": self._is_true(data)}
        if "enum" in properties["value"]:
            return {"value": "first" if self._worth(data["first"]) > self._worth(data["second"]) else "second"}
        numbers = range(1, len(data) + 1)
        return {"value": sorted(numbers, key=lambda number: -self._worth(data[f"item_{number}"]))}
