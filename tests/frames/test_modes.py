"""How a form is asked for where a server does not have the way it is usually asked: stepped down, said once, and no row lost by it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson
import pandas as pd
import pytest
from pydantic import BaseModel

import llmkit
from llmkit.errors import BadInput, Unsupported
from tests.loopback import Loopback, Status

MODEL: dict[str, Any] = {"model": "lab/test-chat", "show_progress": False}


class Person(BaseModel):
    name: str
    age: int


class Node(BaseModel):
    label: str
    parts: list[Node] = []


def people(rows: int = 12) -> pd.DataFrame:
    return pd.DataFrame({"text": [f"Ann of {number}" for number in range(rows)]})


def asked_in(body: dict[str, Any]) -> str:
    """The mode that a body of OpenAI's wire asks in."""
    if body.get("tools"):
        return "tools"
    return (body.get("response_format") or {"type": "words"})["type"]


def refusing(*modes: str, status: int = 400, error: Any) -> Callable[[dict[str, Any]], Status | None]:
    return lambda body: Status(status, {"error": error}) if asked_in(body) in modes else None


def as_json(body: dict[str, Any]) -> str:
    """What a model says that is asked in words."""
    age = next(word for word in body["messages"][-1]["content"].split() if word.isdigit())
    return orjson.dumps({"name": "Ann", "age": int(age)}).decode()


@pytest.fixture
def told() -> Iterator[Callable[[], list[str]]]:
    """The warnings so far."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield lambda: [
            str(warning.message) for warning in caught if "structured answers" in str(warning.message) or "held to" in str(warning.message)
        ]


def extracted(df: pd.DataFrame, schema: Any = Person, **how: Any) -> Any:
    return df.llm.extract(schema, on="text", **{**MODEL, **how})


#: Who says it, the modes that are refused so, the status, and what is said.
REFUSALS: dict[str, tuple[tuple[str, ...], int, Any]] = {
    # lmstudio-ai/lmstudio-bug-tracker#189; all of these seen 2026-11-21
    "LM Studio": (("json_object",), 400, "'response_format.type' must be 'json_schema' or 'text'"),
    # vllm-project/vllm#16321
    "vLLM": (("json_schema",), 400, {"message": "The provided JSON schema contains features not supported by xgrammar.", "code": 400}),
    # z-lab/paroquant#31
    "vLLM, a format": (("json_schema",), 400, {"message": "Grammar error: Unknown format: uri", "type": "BadRequestError"}),
    # ggml-org/llama.cpp#11847
    "llama.cpp": (("json_schema",), 400, {"message": 'Either "json_schema" or "grammar" can be specified, but not both'}),
    # ikawrakow/ik_llama.cpp#778
    "ik_llama.cpp": (
        ("json_schema",),
        500,
        {
            "code": 500,
            "message": 'response_format type must be one of "text" or "json_object", but got: json_schema',
            "type": "server_error",
        },
    ),
    # imaurer/awesome-llm-json#25, Eigenwise/atomic-agents#18
    "Ollama": (("json_schema", "tools"), 400, {"message": "gemma:2b does not support tools", "type": "api_error"}),
    # datalab-to/marker#984
    "Ollama, a schema": (("json_schema",), 500, "invalid JSON schema in format"),
    # Routstr/routstr-core#554
    "OpenRouter": (("json_schema", "tools"), 404, {"message": "No endpoints found that support tool use.", "code": 404}),
    # openstory-so/openstory#1302
    "OpenRouter, parameters": (
        ("json_schema",),
        404,
        {"message": "No endpoints found that can handle the requested parameters.", "code": 404},
    ),
    # BerriAI/litellm#6972
    "Together": (
        ("json_schema", "json_object"),
        400,
        {"message": "response_format is not supported for this model", "type": "invalid_request_error"},
    ),
    # ItzCrazyKns/Vane#980
    "Groq": (("json_schema",), 400, {"message": "This model does not support response format `json_schema`."}),
    # UKGovernmentBEIS/inspect_ai#4916
    "DeepSeek": (("json_schema",), 400, {"message": "This response_format type is unavailable now", "type": "invalid_request_error"}),
    # deepseek-ai/DeepSeek-V3#1376
    "DeepSeek, thinking": (("json_schema", "tools"), 400, {"message": "Thinking mode does not support this tool_choice"}),
    "a strict server": (
        ("json_schema", "tools", "json_object"),
        422,
        {"message": "body.response_format: extra inputs are not permitted (tools)"},
    ),
}


@pytest.mark.parametrize("who", REFUSALS)
def test_what_a_server_refuses_is_asked_for_otherwise(lab: Loopback, told: Callable[[], list[str]], who: str) -> None:
    modes, status, error = REFUSALS[who]
    lab.refuse = refusing(*modes, status=status, error=error)
    lab.answer = as_json if modes[-1] in ("tools", "json_object") else None
    df = people()
    with_schema = extracted(df, max_concurrency=4)
    assert with_schema["age"].tolist() == list(range(12))
    answered = {asked_in(request.body) for request in lab.seen} - {*modes}
    if modes == ("json_object",):  # it is never asked for what it refuses
        assert answered == {"json_schema"}
        assert told() == []
    else:
        assert len(answered) == 1
        (note,) = told()
        assert (
            note
            == f"llmkit: lab/test-chat refuses structured answers as they are usually asked for; they are asked for as {answered.pop()}"
        )
        # Only what was under way when the first was refused is refused too.
        assert lab.requests <= 12 + 4 * len(modes)


def test_the_next_run_begins_where_this_one_ended_and_the_same_call_sends_nothing(
    lab: Loopback, told: Callable[[], list[str]], cache_dir: Any
) -> None:
    lab.refuse = refusing("json_schema", error={"message": "json_schema is not supported"})
    first = extracted(people(4))
    sent = lab.requests
    pd.testing.assert_frame_equal(extracted(people(4)), first)
    assert lab.requests == sent
    extracted(people(8))
    assert [asked_in(request.body) for request in lab.seen[sent:]] == ["tools"] * 4
    assert len(told()) == 1


@pytest.mark.parametrize(
    "error",
    [
        {"message": "Invalid 'messages[0].content': the image could not be read", "code": "invalid_image"},
        {"message": "the function add is not defined for this text", "code": "bad_text"},
    ],
    ids=["a picture", "words that sound like it"],
)
def test_a_row_that_is_refused_for_itself_moves_nobody(lab: Loopback, told: Callable[[], list[str]], error: Any) -> None:
    lab.fault("Ann of 3", Status(400, {"error": error}), times=float("inf"))
    ages = extracted(people(), max_concurrency=1)["age"]
    assert ages.isna().sum() == 1
    assert told() == []
    others = [request for request in lab.seen if "Ann of 3" not in request.body["messages"][-1]["content"]]
    assert {asked_in(request.body) for request in others} == {"json_schema"}
    assert len(lab.seen) - len(others) <= 4


def test_a_failed_answer_of_groqs_is_the_rows_own(lab: Loopback, told: Callable[[], list[str]]) -> None:
    lab.fault(
        "Ann of 3", Status(400, {"error": {"message": "Failed to generate JSON. See 'failed_generation'", "code": "json_validate_failed"}})
    )
    assert extracted(people())["age"].isna().sum() == 1
    assert lab.requests == 12
    assert told() == []


def test_a_server_that_does_not_heed_is_asked_in_words(lab: Loopback, told: Callable[[], list[str]]) -> None:
    def answer(body: dict[str, Any]) -> str:
        return (
            as_json({"messages": [{"content": " ".join(str(message["content"]) for message in body["messages"] if "Ann" in str(message))}]})
            if (asked_in(body) == "words")
            else "Ann seems nice."
        )

    lab.answer = answer
    ages = extracted(people(), max_concurrency=1)["age"]
    assert ages.tolist() == list(range(12))
    (note,) = told()
    assert note == "llmkit: lab/test-chat does not heed structured answers as they are usually asked for; they are asked for as words"
    modes = [asked_in(request.body) for request in lab.seen]
    assert modes == ["json_schema", "words"] * 3 + ["words"] * 9


def test_a_mode_that_was_chosen_is_kept_to(lab: Loopback, told: Callable[[], list[str]]) -> None:
    lab.refuse = refusing("tools", error={"message": "this model does not support tools"})
    ages = extracted(people(3), mode="tools")["age"]
    assert ages.isna().all()
    assert [asked_in(request.body) for request in lab.seen] == ["tools"] * 3
    assert told() == []
    assert "does not support tools" in llmkit.last().errors()["error"][0]  # type: ignore[union-attr]


# ------------------------------------------------------------------------------------------------------ before it is sent


@pytest.mark.parametrize(
    ("schema", "where"),
    [(Node, "the field parts[] holds itself"), ({"bag": dict[str, int]}, "the field bag is a map of free keys")],
    ids=["recursive", "a map"],
)
def test_what_a_vendor_cannot_express_is_named_before_anything_is_sent(
    server: Loopback, told: Callable[[], list[str]], schema: Any, where: str
) -> None:
    llmkit.add_provider("lab", server.url_of("anthropic"), "test-key-not-real", protocol="anthropic")
    with pytest.raises(Unsupported) as caught:
        extracted(people(2), schema, mode="json_schema")
    assert where in str(caught.value)
    assert "lab/test-chat" in str(caught.value)
    assert server.requests == 0
    extracted(people(2), schema)
    assert all(request.body["tools"] for request in server.seen)
    (note,) = told()
    assert where in note
    assert "asked for it as tools" in note


def test_every_model_of_a_route_is_looked_at(server: Loopback) -> None:
    llmkit.add_provider("lab", server.url, "test-key-not-real")
    llmkit.add_provider("other", server.url_of("anthropic"), "test-key-not-real", protocol="anthropic")
    with pytest.raises(Unsupported, match="other/x cannot be held to Node"):
        extracted(people(2), Node, mode="json_schema", fallback="other/x")
    assert server.requests == 0


@pytest.mark.parametrize(("mode", "fits"), [("mistral_tools", "tools"), ("cohere_tools", "tools"), ("anthropic_json", "words")])
def test_a_mode_of_another_vendor_names_the_one_that_fits(lab: Loopback, mode: str, fits: str) -> None:
    with pytest.raises(BadInput, match=f"mode='{mode}' is {mode.partition('_')[0]}'s, and lab/test-chat has none .* mode='{fits}'"):
        extracted(people(2), mode=mode)
    assert lab.requests == 0


# ---------------------------------------------------------------------------------------------------------- chat in a form


def chatted(lab: Loopback, form: Any, *said: str) -> Any:
    answers = list(said)
    lab.answer = lambda body: answers.pop(0) if len(answers) > 1 else answers[0]
    return people(1).llm.chat("Who? {text}", response_format=form, **MODEL)


@dataclass
class Known:
    name: str
    age: int


FORMS = {"model": Person, "schema": Person.model_json_schema(), "dataclass": Known, "mapping": {"name": str, "age": int}, "any": "json"}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("said", ['```json\n{"name": "Ann", "age": 3}\n```', 'Here it is: {"name": "Ann", "age": 3}. Anything else?'])
def test_a_chat_in_a_form_is_its_json_alone(lab: Loopback, form: Any, said: str) -> None:
    (answer,) = chatted(lab, form, said)
    assert orjson.loads(answer) == {"name": "Ann", "age": 3}
    assert lab.requests == 1


def test_a_chat_in_a_form_asks_again_for_what_is_not_valid(lab: Loopback) -> None:
    (answer,) = chatted(lab, Person, '{"name": "Ann"}', '{"name": "Ann", "age": 3}')
    assert answer == '{"name": "Ann", "age": 3}'
    assert "age" in lab.seen[1].body["messages"][-1]["content"]


@pytest.mark.parametrize("said", ["[1, 2]", '"Ann"', "no idea", '{"a": 1} {"b": 2}'])
def test_any_json_is_one_object(lab: Loopback, said: str) -> None:
    with pytest.warns(UserWarning, match="no row got an answer"):
        assert chatted(lab, "json", said).isna().all()
    assert lab.requests == 2
    (kind,) = llmkit.last().errors()["kind"]  # type: ignore[union-attr]
    assert kind == "invalid"


def test_a_chat_in_a_form_steps_down_too(lab: Loopback, told: Callable[[], list[str]]) -> None:
    lab.refuse = refusing("json_schema", error={"message": "json_schema is not supported"})
    answers = people(3).llm.chat("Who? {text}", response_format=Person, **MODEL)
    assert [Person.model_validate_json(answer).age for answer in answers] == [0, 1, 2]
    assert len(told()) == 1


def test_an_answer_may_leave_out_by_null_what_cannot_be_null(lab: Loopback) -> None:
    class Shop(BaseModel):
        name: str
        floors: int = 1

    lab.answer = lambda body: '{"name": "Ann\'s", "floors": null}'
    df = people(1).llm.extract(Shop, on="text", **MODEL)
    assert df["floors"].tolist() == [1]
    assert lab.requests == 1
