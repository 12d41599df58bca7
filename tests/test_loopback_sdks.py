"""The vendors' own SDKs, unmodified and over real sockets, take the loopback server for their vendor."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from typing import Any, Literal

import anthropic
import cohere
import groq
import numpy as np
import openai
import pytest
import voyageai
from google import genai
from google.genai import errors as genai_errors
from google.genai import types as genai_types
from mistralai.client import Mistral
from mistralai.client.errors import MistralError
from pydantic import BaseModel, ConfigDict

from tests.loopback import Loopback, answer_from_tools, answer_to, error_of, heard_in, speech_of, vector_of

KEY = "test-key-not-real"
PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
PIXEL_URL = f"data:image/png;base64,{base64.b64encode(PIXEL).decode()}"
AS_SEEN = f"[1 image: image/png of {len(PIXEL)} bytes]"
RECORDING = speech_of("hello", "anyone", "wav")
USER: Any = [{"role": "user", "content": "row 17"}]
CALLING: Any = [{"role": "user", "content": 'please call:add {"a": 1, "b": 2} and call:add {"a": 3, "b": 4}'}]
SUM = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a", "b"]}
ADD: Any = {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": SUM}}
RETRIES = {"max_retries": 0}


class Review(BaseModel):
    model_config = ConfigDict(extra="forbid")

    mood: Literal["good", "bad"]
    stars: int
    words: str


OPEN_REVIEW = {name: part for name, part in Review.model_json_schema().items() if name != "additionalProperties"}
"""Gemini's own kind of schema has no such member."""
ASKED: Any = [{"role": "user", "content": "As json: a bad film of 2 stars"}]
EXPECTED = Review(mood="bad", stars=2, words="As json: a bad film")


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback() as server:
        server.cached_tokens = 7
        yield server


def is_close(text: str, vector: Any) -> bool:
    return np.array_equal(vector_of(text), np.asarray(vector, dtype=np.float32))


# ------------------------------------------------------------------------------------------------- OpenAI and its like


@pytest.fixture(params=["openai", "mistral", "groq", "gemini", "together"])
def vendor(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client(server: Loopback, vendor: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.compat_url_of(vendor), api_key=KEY, max_retries=0, timeout=10) as client:
        yield client


def test_the_openai_sdk_chats_with_every_vendor_of_that_format(server: Loopback, client: openai.OpenAI, vendor: str) -> None:
    reply = client.chat.completions.create(model="m", messages=[{"role": "system", "content": "Be brief."}, *USER])
    assert reply.choices[0].message.content == answer_to("row 17")
    assert reply.usage is not None and reply.usage.prompt_tokens_details is not None
    assert (reply.usage.prompt_tokens, reply.usage.prompt_tokens_details.cached_tokens) == (3 + 7, 7)
    assert (server.seen[0].vendor, server.seen[0].headers["authorization"], server.count("row 17")) == (vendor, f"Bearer {KEY}", 1)


def test_a_stream_tells_its_usage_in_each_vendors_way(client: openai.OpenAI, vendor: str) -> None:
    asked: Any = {} if vendor == "mistral" else {"stream_options": {"include_usage": True}}
    chunks = list(client.chat.completions.create(model="m", messages=USER, stream=True, **asked))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == answer_to("row 17")
    assert [bool(chunk.usage) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert bool(chunks[-1].choices) == (vendor in ("mistral", "groq", "gemini"))


def test_tools_are_called_and_their_results_are_quoted(client: openai.OpenAI) -> None:
    message = client.chat.completions.create(model="m", messages=CALLING, tools=[ADD]).choices[0].message
    calls: Any = message.tool_calls
    assert [json.loads(call.function.arguments) for call in calls] == [{"a": 1, "b": 2}, {"a": 3, "b": 4}]
    results: Any = [{"role": "tool", "tool_call_id": call.id, "content": result} for call, result in zip(calls, "37", strict=True)]
    asked: Any = [*CALLING, message.model_dump(exclude_none=True, include={"role", "tool_calls"}), *results]
    answer = client.chat.completions.create(model="m", messages=asked, tools=[ADD])
    assert answer.choices[0].message.content == answer_from_tools(["3", "7"])


def test_a_streamed_tool_call_is_put_together_by_the_sdk(server: Loopback) -> None:
    with (
        openai.OpenAI(base_url=server.url_of("openai"), api_key=KEY, **RETRIES) as client,
        client.chat.completions.stream(model="m", messages=CALLING, tools=[ADD]) as stream,
    ):
        message = stream.get_final_completion().choices[0].message
    calls: Any = message.tool_calls
    assert [call.function.arguments for call in calls] == ['{"a":1,"b":2}', '{"a":3,"b":4}']


def test_a_forced_tool_is_called_with_arguments_from_its_schema(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model="m",
        messages=[{"role": "user", "content": "the 42"}],
        tools=[ADD],
        tool_choice={"type": "function", "function": {"name": "add"}},
    )
    (call,) = list[Any](reply.choices[0].message.tool_calls or [])
    assert json.loads(call.function.arguments) == {"a": 42, "b": 42}


def test_a_parsed_answer_satisfies_its_schema(client: openai.OpenAI) -> None:
    reply = client.chat.completions.parse(model="m", messages=ASKED, response_format=Review)
    assert reply.choices[0].message.parsed == EXPECTED


def test_any_json_object_is_an_object(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model="m", messages=ASKED, response_format={"type": "json_object"})
    assert reply.choices[0].message.content == "{}"


def test_pictures_are_counted_and_measured(client: openai.OpenAI) -> None:
    parts: Any = [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": PIXEL_URL}}]
    reply = client.chat.completions.create(model="m", messages=[{"role": "user", "content": parts}])
    assert reply.choices[0].message.content == f"answer to: see {AS_SEEN}"
    parts.append({"type": "image_url", "image_url": {"url": "https://example.org/a.jpg"}})
    reply = client.chat.completions.create(model="m", messages=[{"role": "user", "content": parts}])
    assert str(reply.choices[0].message.content).endswith("bytes, https://example.org/a.jpg]")


def test_a_refused_key_has_each_vendors_own_status(client: openai.OpenAI, server: Loopback, vendor: str) -> None:
    server.key = "another"
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model="m", messages=USER)
    assert caught.value.status_code == (400 if vendor == "gemini" else 401)


def test_words_have_their_probabilities(server: Loopback) -> None:
    with openai.OpenAI(base_url=server.url_of("openai"), api_key=KEY, **RETRIES) as client:
        reply = client.chat.completions.create(model="m", messages=USER, logprobs=True, top_logprobs=3)
    logprobs = reply.choices[0].logprobs
    assert logprobs is not None and logprobs.content is not None
    assert "".join(word.token for word in logprobs.content) == answer_to("row 17")
    first = [np.exp(told.logprob) for told in logprobs.content[0].top_logprobs]
    assert first == pytest.approx([0.9, 0.05, 0.05])


@pytest.mark.parametrize("vendor", ["openai", "gemini", "together"])
def test_vectors_can_be_foretold(client: openai.OpenAI) -> None:
    reply = client.embeddings.create(model="m", input=["one", "two"])
    assert all(is_close(text, item.embedding) for text, item in zip(("one", "two"), reply.data, strict=True))


@pytest.mark.parametrize(("model", "kind"), [("whisper-1", "duration"), ("gpt-4o-transcribe", "tokens")])
def test_a_recording_is_heard_and_counted(server: Loopback, model: str, kind: str) -> None:
    with openai.OpenAI(base_url=server.url_of("openai"), api_key=KEY, **RETRIES) as client:
        heard = client.audio.transcriptions.create(model=model, file=("hello.wav", RECORDING))
        assert heard.text == heard_in("hello.wav", len(RECORDING), model)
        assert heard.usage is not None and heard.usage.type == kind
        assert client.audio.transcriptions.create(model=model, file=("a.wav", RECORDING), response_format="text").startswith(model)
    assert server.count("hello.wav") == 1


def test_a_recording_has_its_words_in_time(server: Loopback) -> None:
    with openai.OpenAI(base_url=server.url_of("openai"), api_key=KEY, **RETRIES) as client:
        heard = client.audio.transcriptions.create(
            model="whisper-1", file=("hello.wav", RECORDING), response_format="verbose_json", timestamp_granularities=["word", "segment"]
        )
    assert heard.words is not None and heard.segments is not None
    assert (heard.duration, heard.words[-1].end, heard.segments[0].end) == pytest.approx((0.25, 0.25, 0.25))


def test_speech_is_a_function_of_its_text(server: Loopback) -> None:
    with openai.OpenAI(base_url=server.url_of("openai"), api_key=KEY, **RETRIES) as client:
        spoken = client.audio.speech.create(model="tts-1", voice="alloy", input="hello", response_format="wav")
        assert (spoken.read(), spoken.response.headers["content-type"]) == (speech_of("hello", "alloy", "wav"), "audio/wav")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"extra_body": {"top_k": 3}}, "Unknown parameter: 'top_k'"),
        ({"model": "gpt-5-mini", "max_tokens": 5}, "Use 'max_completion_tokens' instead"),
        ({"messages": [{"role": "user", "content": "hi"}], "response_format": {"type": "json_object"}}, "must contain the word 'json'"),
        ({"messages": [*USER, {"role": "tool", "tool_call_id": "x", "content": "3"}]}, "must be a response to a preceeding message"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "sum", "strict": True, "schema": SUM}}},
            "'additionalProperties' is required",
        ),
    ],
)
def test_openai_refuses_what_it_does_not_take(server: Loopback, options: dict[str, Any], problem: str) -> None:
    with (
        openai.OpenAI(base_url=server.url_of("openai"), api_key=KEY, **RETRIES) as client,
        pytest.raises(openai.BadRequestError, match=problem),
    ):
        client.chat.completions.create(**{"model": "m", "messages": USER, **options})


def test_mistral_refuses_openais_members_with_a_422(server: Loopback) -> None:
    with openai.OpenAI(base_url=server.compat_url_of("mistral"), api_key=KEY, **RETRIES) as client:
        for options in ({"max_completion_tokens": 5}, {"stream": True, "stream_options": {"include_usage": True}}):
            with pytest.raises(openai.UnprocessableEntityError):
                client.chat.completions.create(model="m", messages=USER, **options)


# -------------------------------------------------------------------------------------------------------------- Anthropic


@pytest.fixture
def claude(server: Loopback) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(api_key=KEY, base_url=server.url_of("anthropic"), max_retries=0, timeout=10) as client:
        yield client


def say(claude: anthropic.Anthropic, **options: Any) -> Any:
    return claude.messages.create(**{"model": "claude", "max_tokens": 200, "messages": USER, **options})


def test_anthropic_chats_and_counts_the_cache_apart(server: Loopback, claude: anthropic.Anthropic) -> None:
    server.cache_write_tokens = 5
    reply = say(claude, system="Be brief.")
    assert (reply.content[0].text, reply.stop_reason) == (answer_to("row 17"), "end_turn")
    usage = reply.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (3, 7, 5)
    assert "anthropic-version" in server.seen[0].headers


def test_anthropic_streams(claude: anthropic.Anthropic) -> None:
    with claude.messages.stream(model="claude", max_tokens=200, messages=USER) as stream:
        assert "".join(stream.text_stream) == answer_to("row 17")
        assert stream.get_final_message().usage.output_tokens == 4


def test_anthropic_streams_its_tool_calls(claude: anthropic.Anthropic) -> None:
    tool: Any = {"name": "add", "input_schema": SUM}
    with claude.messages.stream(model="claude", max_tokens=200, messages=CALLING, tools=[tool]) as stream:
        message = stream.get_final_message()
    assert message.stop_reason == "tool_use"
    assert [block.input for block in message.content if block.type == "tool_use"] == [{"a": 1, "b": 2}, {"a": 3, "b": 4}]


def test_anthropic_quotes_the_results_of_its_tools(claude: anthropic.Anthropic) -> None:
    tool = {"name": "add", "input_schema": SUM}
    asked = say(claude, messages=CALLING, tools=[tool], tool_choice={"type": "auto", "disable_parallel_tool_use": True})
    (call,) = asked.content
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "3"}]}
    turns = [*CALLING, {"role": "assistant", "content": asked.content}, result]
    assert say(claude, messages=turns, tools=[tool]).content[0].text == answer_from_tools(["3"])
    (forced,) = say(claude, tools=[tool], tool_choice={"type": "any"}).content
    assert forced.input == {"a": 17, "b": 17}


def test_anthropic_parses(claude: anthropic.Anthropic) -> None:
    reply = claude.messages.parse(model="claude", max_tokens=200, messages=ASKED, output_format=Review)
    assert reply.parsed_output == EXPECTED


def test_anthropic_sees_pictures(claude: anthropic.Anthropic) -> None:
    inline = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(PIXEL).decode()}
    linked = {"type": "url", "url": "https://example.org/a.jpg"}
    for source, seen in ((inline, AS_SEEN), (linked, "[1 image: https://example.org/a.jpg]")):
        parts = [{"type": "image", "source": source}, {"type": "text", "text": "see"}]
        assert say(claude, messages=[{"role": "user", "content": parts}]).content[0].text == f"answer to: see {seen}"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"extra_body": {"top_logprobs": 3}}, "top_logprobs: Extra inputs are not permitted"),
        ({"max_tokens": anthropic.omit}, "max_tokens: Field required"),
        ({"messages": [{"role": "user", "content": ""}, *USER]}, "must have non-empty content"),
        ({"messages": [{"role": "system", "content": "x"}]}, "top-level `system` parameter"),
        ({"output_config": {"format": {"type": "json_schema", "schema": SUM}}}, "'additionalProperties' must be explicitly set to false"),
    ],
)
def test_anthropic_refuses_what_it_does_not_take(claude: anthropic.Anthropic, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(anthropic.BadRequestError, match=problem):
        say(claude, **options)


def test_anthropic_takes_a_temperature_in_the_body(claude: anthropic.Anthropic) -> None:
    assert say(claude, extra_body={"temperature": 0}).stop_reason == "end_turn"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("rate_limited", anthropic.RateLimitError),
        ("overloaded", anthropic.APIStatusError),
        ("bad_key", anthropic.AuthenticationError),
        ("forbidden", anthropic.PermissionDeniedError),
        ("unknown_model", anthropic.NotFoundError),
        ("no_credit", anthropic.BadRequestError),
        ("html_502", anthropic.InternalServerError),
    ],
)
def test_anthropics_errors_are_its_sdks(server: Loopback, claude: anthropic.Anthropic, kind: Any, expected: type[Exception]) -> None:
    server.fault("row 17", error_of("anthropic", kind))
    with pytest.raises(expected):
        say(claude)
    assert say(claude).stop_reason == "end_turn"


def test_an_error_in_anthropics_stream_comes_after_two_pieces(server: Loopback, claude: anthropic.Anthropic) -> None:
    server.fault(None, error_of("anthropic", "error_in_stream"))
    heard = []
    with (
        claude.messages.stream(model="claude", max_tokens=200, messages=[{"role": "user", "content": "a longer question"}]) as stream,
        pytest.raises(anthropic.APIStatusError, match="Overloaded"),
    ):
        heard.extend(stream.text_stream)
    assert "".join(heard) == answer_to("a longer question")[:16]


def test_anthropic_says_no_with_a_stop_reason(server: Loopback, claude: anthropic.Anthropic) -> None:
    server.fault(None, error_of("anthropic", "refusal"))
    assert say(claude).stop_reason == "refusal"


# ----------------------------------------------------------------------------------------------------------------- Cohere


@pytest.fixture
def command(server: Loopback) -> Iterator[cohere.ClientV2]:
    with cohere.ClientV2(api_key=KEY, base_url=server.url_of("cohere"), timeout=10) as client:
        yield client


def test_cohere_chats(command: cohere.ClientV2) -> None:
    reply = command.chat(model="command", messages=USER)
    assert reply.message.content is not None and reply.usage is not None and reply.usage.billed_units is not None
    assert (reply.message.content[0].text, reply.finish_reason) == (answer_to("row 17"), "COMPLETE")
    assert (reply.usage.billed_units.input_tokens, reply.usage.cached_tokens) == (1 + 7, 7)


def test_cohere_streams(command: cohere.ClientV2) -> None:
    events: list[Any] = list(command.chat_stream(model="command", messages=USER))
    kinds = [event.type for event in events]
    assert (kinds[:2], kinds[-2:]) == (["message-start", "content-start"], ["content-end", "message-end"])
    assert "".join(event.delta.message.content.text for event in events if event.type == "content-delta") == answer_to("row 17")
    assert events[-1].delta.usage.billed_units.output_tokens == 4


def test_cohere_calls_tools_and_quotes_their_results(command: cohere.ClientV2) -> None:
    message = command.chat(model="command", messages=CALLING, tools=[ADD]).message
    calls: Any = message.tool_calls
    assert [json.loads(call.function.arguments) for call in calls] == [{"a": 1, "b": 2}, {"a": 3, "b": 4}]
    results = [{"role": "tool", "tool_call_id": call.id, "content": result} for call, result in zip(calls, "37", strict=True)]
    reply: Any = command.chat(model="command", messages=[*CALLING, message, *results], tools=[ADD])
    assert reply.message.content[0].text == answer_from_tools(["3", "7"])
    streamed = [event.type for event in command.chat_stream(model="command", messages=CALLING, tools=[ADD])]
    assert (streamed.count("tool-call-start"), streamed.count("tool-call-end")) == (2, 2)


def test_cohere_keeps_to_a_schema_and_sees_pictures(command: cohere.ClientV2) -> None:
    form: Any = {"type": "json_object", "json_schema": Review.model_json_schema()}
    reply: Any = command.chat(model="command", messages=ASKED, response_format=form)
    assert Review.model_validate_json(reply.message.content[0].text) == EXPECTED
    parts = [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": PIXEL_URL}}]
    reply = command.chat(model="command", messages=[{"role": "user", "content": parts}])
    assert reply.message.content[0].text == f"answer to: see {AS_SEEN}"


def test_cohere_embeds_ranks_and_classifies(server: Loopback, command: cohere.ClientV2) -> None:
    reply: Any = command.embed(model="embed", texts=["one", "two"], input_type="search_query", embedding_types=["float", "int8"])
    assert all(is_close(text, vector) for text, vector in zip(("one", "two"), reply.embeddings.float_, strict=True))
    assert (reply.meta.billed_units.input_tokens, len(reply.embeddings.int8[0])) == (1, 8)
    ranked: Any = command.rerank(model="rerank", query="battery problems", documents=["the weather", "problems of a battery"], top_n=1)
    assert ([result.index for result in ranked.results], ranked.meta.billed_units.search_units) == ([1], 1)
    examples: Any = [{"text": "what a good day", "label": "praise"}, {"text": "bad", "label": "blame"}]
    labelled = command.classify(model="embed", inputs=["a good film"], examples=examples)
    assert labelled.classifications[0].prediction == "praise"
    assert (server.count("two"), server.count("weather")) == (1, 1)
    mixed: Any = [{"content": [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "https://example.org/a.jpg"}}]}]
    reply = command.embed(model="embed", inputs=mixed, input_type="search_query", embedding_types=["float"])
    assert is_close("see\nhttps://example.org/a.jpg", reply.embeddings.float_[0])


def test_cohere_hears(command: cohere.ClientV2) -> None:
    heard = command.audio.transcriptions.create(model="listen", language="en", file=("a.wav", RECORDING))
    assert heard.text == heard_in("a.wav", len(RECORDING), "listen")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"texts": ["a"] * 97}, "total number of texts must be at most 96 - received 97"),
        ({"texts": ["a"], "embedding_types": None}, "embedding_types"),
    ],
)
def test_cohere_refuses_what_it_does_not_take(command: cohere.ClientV2, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(cohere.BadRequestError) as caught:
        command.embed(**{"model": "embed", "input_type": "search_query", "embedding_types": ["float"], **options})
    assert problem in caught.value.body["message"]


@pytest.mark.parametrize(("kind", "status"), [("rate_limited", 429), ("bad_key", 401), ("no_credit", 402), ("unknown_model", 404)])
def test_coheres_errors_are_its_sdks(server: Loopback, kind: Any, status: int) -> None:
    server.fault(None, error_of("cohere", kind))
    with cohere.ClientV2(api_key=KEY, base_url=server.url_of("cohere")) as command, pytest.raises(cohere.core.ApiError) as caught:
        command.chat(model="command", messages=USER, request_options={"max_retries": 0})
    assert caught.value.status_code == status


# ----------------------------------------------------------------------------------------------------------------- Voyage


def ask_voyage(server: Loopback, method: str, *arguments: Any, **options: Any) -> Any:
    async def ask() -> Any:
        # The synchronous client keeps a session for each thread and never closes it; this one has a session for each request.
        client = voyageai.AsyncClient(api_key=KEY, base_url=server.url_of("voyage"), max_retries=1, timeout=10)
        return await getattr(client, method)(*arguments, **options)

    return asyncio.run(ask())


def test_voyage_embeds_in_base64(server: Loopback) -> None:
    reply = ask_voyage(server, "embed", ["one", "two"], model="voyage-4")
    assert all(is_close(text, vector) for text, vector in zip(("one", "two"), reply.embeddings, strict=True))
    assert (server.seen[0].body["encoding_format"], reply.total_tokens) == ("base64", 1)
    assert len(ask_voyage(server, "embed", ["one"], model="voyage-4", output_dimension=3).embeddings[0]) == 3
    small = ask_voyage(server, "embed", ["one"], model="voyage-4", output_dtype="int8").embeddings[0]
    assert np.allclose(vector_of("one"), np.array(small) / 127, atol=0.01)


def test_voyage_ranks(server: Loopback) -> None:
    reply = ask_voyage(server, "rerank", "battery problems", ["the weather", "problems of a battery"], model="rerank-2", top_k=1)
    assert [(result.index, result.relevance_score) for result in reply.results] == [(1, 0.5)]
    assert reply.total_tokens > 0


def test_voyage_embeds_pictures_and_chunks(server: Loopback) -> None:
    mixed = {"content": [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": "https://example.org/a.jpg"}]}
    reply = ask_voyage(server, "multimodal_embed", [mixed], model="voyage-multimodal-3")
    assert is_close("see\nhttps://example.org/a.jpg", reply.embeddings[0])
    assert (reply.text_tokens, reply.image_pixels) == (1, 560 * 560)
    reply = ask_voyage(server, "contextualized_embed", [["one", "two"], ["three"]], model="voyage-context-3")
    assert [len(result.embeddings) for result in reply.results] == [2, 1]
    assert is_close("three", reply.results[1].embeddings[0])


def test_voyage_refuses_more_than_a_thousand_texts(server: Loopback) -> None:
    with pytest.raises(voyageai.error.InvalidRequestError, match="1001"):
        ask_voyage(server, "embed", ["a"] * 1001, model="voyage-4")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("rate_limited", voyageai.error.RateLimitError),
        ("bad_key", voyageai.error.AuthenticationError),
        ("batch_too_large", voyageai.error.InvalidRequestError),
        ("overloaded", voyageai.error.ServiceUnavailableError),
        ("server_error", voyageai.error.ServerError),
    ],
)
def test_voyages_errors_are_its_sdks(server: Loopback, kind: Any, expected: type[Exception]) -> None:
    server.fault("one", error_of("voyage", kind))
    with pytest.raises(expected):
        ask_voyage(server, "embed", ["one"], model="voyage-4")


# ---------------------------------------------------------------------------------------------------------------- Mistral


@pytest.fixture
def mistral(server: Loopback) -> Iterator[Mistral]:
    with Mistral(api_key=KEY, server_url=server.url_of("mistral"), timeout_ms=10_000) as client:
        yield client


def test_mistral_chats_streams_and_parses(mistral: Mistral) -> None:
    reply = mistral.chat.complete(model="mistral", messages=USER)
    assert reply.choices[0].message.content == answer_to("row 17")  # type: ignore[union-attr]
    with mistral.chat.stream(model="mistral", messages=USER) as stream:
        chunks = [event.data for event in stream]
    assert "".join(str(chunk.choices[0].delta.content or "") for chunk in chunks) == answer_to("row 17")
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == 4
    parsed: Any = mistral.chat.parse(Review, model="mistral", messages=ASKED)
    assert parsed.choices[0].message.parsed == EXPECTED


def test_mistral_calls_tools(mistral: Mistral) -> None:
    reply: Any = mistral.chat.complete(model="mistral", messages=CALLING, tools=[ADD], tool_choice="any")
    assert [call.function.arguments for call in reply.choices[0].message.tool_calls] == ['{"a":1,"b":2}', '{"a":3,"b":4}']
    assert {len(call.id) for call in reply.choices[0].message.tool_calls} == {9}


# The SDK imports jsonpath-python, which uses names of ast that Python 3.12 deprecates (mistralai 3.7, seen 2026-11-21).
@pytest.mark.filterwarnings("ignore:ast\\.(Num|Str|NameConstant|Bytes|Ellipsis):DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Attribute [sn] is deprecated:DeprecationWarning")
def test_mistral_embeds_hears_speaks_and_lists(mistral: Mistral) -> None:
    reply = mistral.embeddings.create(model="embed", inputs=["one", "two"])
    assert all(is_close(text, item.embedding) for text, item in zip(("one", "two"), reply.data, strict=True))
    file: Any = {"file_name": "a.wav", "content": RECORDING}
    heard = mistral.audio.transcriptions.complete(model="voxtral", file=file)
    assert (heard.text, heard.usage.prompt_audio_seconds) == (heard_in("a.wav", len(RECORDING), "voxtral"), 1)
    spoken: Any = mistral.audio.speech.complete(model="voxtral", input="hello", voice_id="anyone", response_format="wav")
    assert base64.b64decode(spoken.audio_data) == RECORDING
    listed = mistral.models.list().data
    assert listed is not None and listed[0].id == "test-chat"  # type: ignore[union-attr]


def test_mistral_refuses_more_than_256_texts(mistral: Mistral) -> None:
    with pytest.raises(MistralError, match="split into more batches"):
        mistral.embeddings.create(model="embed", inputs=["a"] * 257)


@pytest.mark.parametrize(("kind", "status"), [("rate_limited", 429), ("bad_key", 401), ("overloaded", 503), ("bad_request", 422)])
def test_mistrals_errors_are_its_sdks(server: Loopback, mistral: Mistral, kind: Any, status: int) -> None:
    server.fault(None, error_of("mistral", kind))
    with pytest.raises(MistralError) as caught:
        mistral.chat.complete(model="mistral", messages=USER)
    assert caught.value.status_code == status


# ------------------------------------------------------------------------------------------------------------------- Groq


@pytest.fixture
def quick(server: Loopback) -> Iterator[groq.Groq]:
    with groq.Groq(api_key=KEY, base_url=server.url_of("groq"), max_retries=0, timeout=10) as client:
        yield client


def test_groq_chats_and_streams(quick: groq.Groq) -> None:
    reply = quick.chat.completions.create(model="llama", messages=USER)
    assert (reply.choices[0].message.content, reply.usage and reply.usage.queue_time) == (answer_to("row 17"), 0.0)
    chunks = list(quick.chat.completions.create(model="llama", messages=USER, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == answer_to("row 17")
    last = chunks[-1].x_groq
    assert last is not None and last.usage is not None and last.usage.completion_tokens == 4


def test_groq_calls_tools_hears_and_speaks(quick: groq.Groq) -> None:
    calls: Any = quick.chat.completions.create(model="llama", messages=CALLING, tools=[ADD]).choices[0].message.tool_calls
    assert [call.function.arguments for call in calls] == ['{"a":1,"b":2}', '{"a":3,"b":4}']
    heard = quick.audio.transcriptions.create(model="whisper-large-v3", file=("a.wav", RECORDING))
    assert heard.text == heard_in("a.wav", len(RECORDING), "whisper-large-v3")
    assert quick.audio.speech.create(model="orpheus", voice="anyone", input="hello").read() == RECORDING


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("rate_limited", groq.RateLimitError), ("bad_key", groq.AuthenticationError), ("overloaded", groq.APIStatusError)],
)
def test_groqs_errors_are_its_sdks(server: Loopback, quick: groq.Groq, kind: Any, expected: type[Exception]) -> None:
    server.fault(None, error_of("groq", kind))
    with pytest.raises(expected):
        quick.chat.completions.create(model="llama", messages=USER)


def test_an_error_in_groqs_stream_is_raised(server: Loopback, quick: groq.Groq) -> None:
    server.fault(None, error_of("groq", "error_in_stream"))
    with pytest.raises(groq.APIError, match="Internal Server Error"):
        list(quick.chat.completions.create(model="llama", messages=USER, stream=True))


def test_groq_refuses_log_probabilities(quick: groq.Groq) -> None:
    with pytest.raises(groq.BadRequestError, match="logprobs"):
        quick.chat.completions.create(model="llama", messages=USER, logprobs=True)


# ----------------------------------------------------------------------------------------------------------------- Gemini


@pytest.fixture
def gemini(server: Loopback) -> Iterator[genai.Client]:
    with genai.Client(api_key=KEY, http_options=genai_types.HttpOptions(base_url=server.url_of("gemini"), timeout=10_000)) as client:
        yield client


def test_gemini_chats_and_streams(server: Loopback, gemini: genai.Client) -> None:
    config = genai_types.GenerateContentConfig(system_instruction="Be brief.")
    reply = gemini.models.generate_content(model="gemini-3", contents="row 17", config=config)
    usage = reply.usage_metadata
    assert usage is not None and reply.text == answer_to("row 17")
    assert (usage.prompt_token_count, usage.cached_content_token_count, usage.total_token_count) == (3 + 7, 7, 14)
    assert "".join(chunk.text or "" for chunk in gemini.models.generate_content_stream(model="gemini-3", contents="row 17")) == reply.text
    assert server.seen[0].headers["x-goog-api-key"] == KEY and not server.seen[0].query
    assert server.count("row 17") == 2


def test_gemini_calls_tools_and_quotes_their_results(gemini: genai.Client) -> None:
    declared = genai_types.FunctionDeclaration(name="add", parameters_json_schema=SUM)
    config = genai_types.GenerateContentConfig(tools=[genai_types.Tool(function_declarations=[declared])])
    asked = CALLING[0]["content"]
    reply = gemini.models.generate_content(model="gemini-3", contents=asked, config=config)
    assert [call.args for call in reply.function_calls or ()] == [{"a": 1, "b": 2}, {"a": 3, "b": 4}]
    assert reply.candidates is not None and reply.candidates[0].content is not None
    result = genai_types.Part.from_function_response(name="add", response={"result": "3"})
    turns: Any = [genai_types.UserContent(asked), reply.candidates[0].content, genai_types.UserContent([result])]
    assert gemini.models.generate_content(model="gemini-3", contents=turns, config=config).text == answer_from_tools(["3"])


@pytest.mark.parametrize("schema", [{"response_schema": OPEN_REVIEW}, {"response_json_schema": Review.model_json_schema()}])
def test_gemini_keeps_to_a_schema(gemini: genai.Client, schema: dict[str, Any]) -> None:
    config = genai_types.GenerateContentConfig(response_mime_type="application/json", **schema)
    reply = gemini.models.generate_content(model="gemini-3", contents=ASKED[0]["content"], config=config)
    assert Review.model_validate_json(reply.text or "") == EXPECTED


def test_gemini_sees_pictures(gemini: genai.Client) -> None:
    parts: Any = [genai_types.Part.from_bytes(data=PIXEL, mime_type="image/png"), "see"]
    assert gemini.models.generate_content(model="gemini-3", contents=parts).text == f"answer to: see {AS_SEEN}"


def test_gemini_embeds_counts_and_lists(gemini: genai.Client) -> None:
    reply = gemini.models.embed_content(model="gemini-embedding-001", contents=["one", "two"])
    assert all(is_close(text, item.values) for text, item in zip(("one", "two"), reply.embeddings or (), strict=True))
    small = gemini.models.embed_content(model="gemini-embedding-001", contents="one", config={"output_dimensionality": 3})
    assert [len(item.values or ()) for item in small.embeddings or ()] == [3]
    assert gemini.models.count_tokens(model="gemini-3", contents="row 17").total_tokens == 1
    assert next(iter(gemini.models.list())).name == "models/test-chat"


@pytest.mark.parametrize(("kind", "status"), [("rate_limited", 429), ("bad_key", 400), ("overloaded", 503), ("unknown_model", 404)])
def test_geminis_errors_are_its_sdks(server: Loopback, gemini: genai.Client, kind: Any, status: int) -> None:
    server.fault(None, error_of("gemini", kind))
    with pytest.raises(genai_errors.APIError) as caught:
        gemini.models.generate_content(model="gemini-3", contents="row 17")
    assert caught.value.code == status


def test_gemini_refuses_more_than_a_hundred_texts(gemini: genai.Client) -> None:
    with pytest.raises(genai_errors.ClientError, match="at most 100 requests"):
        gemini.models.embed_content(model="gemini-embedding-001", contents=["a"] * 101)


def test_gemini_tells_why_it_says_nothing(server: Loopback, gemini: genai.Client) -> None:
    server.fault(None, error_of("gemini", "content_filter"), error_of("gemini", "refusal"))
    blocked = gemini.models.generate_content(model="gemini-3", contents="row 17")
    assert blocked.prompt_feedback is not None and blocked.prompt_feedback.block_reason == "PROHIBITED_CONTENT"
    refused = gemini.models.generate_content(model="gemini-3", contents="row 17")
    assert refused.candidates is not None and refused.candidates[0].finish_reason == "SAFETY"
