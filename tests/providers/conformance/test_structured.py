"""Every mode of structured answers at every vendor that has it: the request as the vendor documents it, and the answer it brings."""

from __future__ import annotations

from typing import Any

import orjson
import pandas as pd
import pytest
from pydantic import BaseModel

import llmkit
from llmkit.errors import BadInput, ConfigError
from llmkit.operations.extract import MODES
from llmkit.providers.dialects import DIALECTS
from llmkit.providers.dialects import MODES as WAYS
from tests.loopback import Loopback

from .house import does, model_of, move, page

CHATS = does("chat")
ROWS = page.providers()


class Wanted(BaseModel):
    first: str
    second: int
    third: str | None = None


#: Ways that a vendor does not have, and why.
WITHOUT: dict[str, set[str]] = {
    "perplexity": {"tools", "json_object"},  # 567-labs/instructor#1005, seen 2026-11-21
    "lmstudio": {"json_object"},  # lmstudio-ai/lmstudio-bug-tracker#189, seen 2026-11-21
    "deepseek": {"json_schema"},  # UKGovernmentBEIS/inspect_ai#4916, seen 2026-11-21
    "anthropic": {"json_object"},  # its API has no such member: anthropic 2.12
}
BOUND = {"anthropic_tools": "anthropic", "anthropic_json": "anthropic", "mistral_tools": "mistral", "cohere_tools": "cohere"}

HAS = [(name, mode) for name in CHATS for mode in MODES if MODES[mode][0] not in WITHOUT.get(name, set()) and BOUND.get(mode, name) == name]
LACKS = [(name, mode) for name in CHATS for mode in MODES if (name, mode) not in HAS]


def extracted(name: str, mode: str, **how: Any) -> pd.DataFrame:
    df = pd.DataFrame({"text": ["seven is 7"]})
    made: pd.DataFrame = df.llm.extract(
        Wanted, on="text", mode=mode, model=model_of(name, "chat"), show_progress=False, cache="off", max_tokens=500, **how
    )
    return made


def way_of(name: str, mode: str) -> str:
    usual = ROWS[name].quirks.get("structured", "json_schema")
    return MODES[mode][0] or str(usual)


def form_in(name: str, way: str, body: dict[str, Any]) -> dict[str, Any] | None:
    """The schema that the vendor is given, taken from where its documentation has it; the members around it are looked at too."""
    protocol, response = ROWS[name].protocol, body.get("response_format")
    assert ("tools" in body) is (way == "tools")
    if protocol == "anthropic":
        assert response is None
        if way == "json_schema":
            assert body["output_config"]["format"].keys() == {"type", "schema"}
            return body["output_config"]["format"]["schema"]  # type: ignore[no-any-return]
        assert "output_config" not in body
        if way == "tools":
            (tool,) = body["tools"]
            assert body["tool_choice"] == {"type": "tool", "name": tool["name"], "disable_parallel_tool_use": True}
            return tool["input_schema"]  # type: ignore[no-any-return]
        return None
    if way == "tools":
        (tool,) = body["tools"]
        assert tool["type"] == "function"
        named = {"type": "function", "function": {"name": tool["function"]["name"]}}
        assert body["tool_choice"] == {"cohere": "REQUIRED", "mistral": "any"}.get(name, named)
        assert tool["function"].get("strict", False) is (name in ("openai", "openrouter"))
        assert response is None
        return tool["function"]["parameters"]  # type: ignore[no-any-return]
    if way == "json_schema" and protocol == "cohere":
        assert response.keys() == {"type", "json_schema"}
        assert response["type"] == "json_object"
        return response["json_schema"]  # type: ignore[no-any-return]
    if way == "json_schema":
        assert response["type"] == "json_schema"
        # Groq keeps some of its models to a schema: console.groq.com/docs/structured-outputs.
        strict = name != "groq" or model_of(name, "chat").startswith("groq/openai/gpt-oss")
        assert response["json_schema"].get("strict", False) is strict
        return response["json_schema"]["schema"]  # type: ignore[no-any-return]
    assert response == ({"type": "json_object"} if way == "json_object" else None)
    return None


@pytest.mark.parametrize(("name", "mode"), HAS)
def test_a_mode_goes_over_the_wire_as_its_vendor_documents_it(server: Loopback, name: str, mode: str) -> None:
    move(name, server)
    way = way_of(name, mode)
    server.answer = None
    if way in ("json_object", "words"):  # a server has no sense for words
        server.answer = lambda body: '{"first": "seven", "second": 7}'
    row = extracted(name, mode).iloc[0]
    assert row["second"] == 7
    (request,) = server.seen
    form = form_in(name, way, request.body)
    words = orjson.dumps([request.body["messages"], request.body.get("system")]).decode()
    if form is None:
        assert "second" in words
        assert "JSON" in words
        return
    assert form["type"] == "object"
    assert set(form["properties"]) == {"first", "second", "third"}
    told = ROWS[name].protocol != "openai" or "schemas" in ROWS[name].quirks or way == "tools"
    assert ("second" in words) is not told, "who does not show the schema to the model has it said in words"
    if form.get("additionalProperties") is False and ROWS[name].protocol == "openai":
        assert form["required"] == ["first", "second", "third"]


@pytest.mark.parametrize(("name", "mode"), LACKS)
def test_a_mode_that_a_vendor_has_not_is_refused_with_the_one_that_fits(server: Loopback, name: str, mode: str) -> None:
    move(name, server)
    with pytest.raises(ConfigError) as caught:
        extracted(name, mode)
    assert server.seen == []
    if BOUND.get(mode, name) != name:
        assert isinstance(caught.value, BadInput)
    named = {way for way in WAYS if way in str(caught.value).replace(mode, "")}
    assert named - WITHOUT.get(name, set())


@pytest.mark.parametrize(
    "name", [name for name in CHATS if ROWS[name].protocol in ("anthropic", "cohere") or name in ("openai", "mistral")]
)
def test_an_answer_that_came_by_a_tool_is_streamed_too(server: Loopback, name: str) -> None:
    move(name, server)
    schema = {"type": "object", "properties": {"bag": {"type": "object", "additionalProperties": {"type": "integer"}}}, "required": ["bag"]}
    text = "".join(llmkit.stream("seven is 7", model=model_of(name, "chat"), response_format=schema, max_tokens=500, cache="off"))
    assert "bag" in orjson.loads(text)


@pytest.mark.parametrize("name", sorted(ROWS))
def test_a_row_of_the_catalogue_names_a_dialect_and_modes_that_there_are(name: str) -> None:
    quirks = ROWS[name].quirks
    assert quirks.get("schemas", "plain") in DIALECTS
    assert set(quirks.get("structured_lacks", ())) <= set(WAYS)
    if ROWS[name].protocol == "openai":
        assert set(quirks.get("structured_lacks", ())) == WITHOUT.get(name, set())
