"""Clients for people who want the SDKs: instructor over them, embedders, rerankers, and clients that callers bring along."""

from __future__ import annotations

import asyncio
import base64
import gc
import logging
import subprocess
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import anthropic
import cohere
import numpy as np
import openai
import pandas as pd
import pytest
import voyageai
from pydantic import BaseModel, Field

import llmkit
from llmkit import clients, event_loop, session
from llmkit.errors import (
    AccessError,
    BadInput,
    BadOutput,
    ConfigError,
    ConnectionLost,
    KeyRejected,
    MissingExtra,
    MissingKey,
    RateLimited,
    ServerFault,
    Truncated,
    UnknownModel,
    Unsupported,
)
from llmkit.foreign import provider_at

from .loopback import Call, Close, Json, Loopback, Said, Saying, Status, answer_to, error_of, vector_of

KEY = "canary-0f3a9c-not-real"
PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
ADDRESSES = {
    "openai": "OPENAI_BASE_URL",
    "anthropic": "ANTHROPIC_BASE_URL",
    "cohere": "CO_API_URL",
    "voyage": "VOYAGE_API_BASE",
    "mistral": "MISTRAL_API_BASE",
    "groq": "GROQ_BASE_URL",
    "deepseek": "DEEPSEEK_API_BASE",
    "perplexity": "PERPLEXITY_API_BASE",
}
CHATTING = [name for name in ADDRESSES if name != "voyage"]
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "a review of a lamp"}]
FRAME = pd.DataFrame({"text": ["one", "two"]})


class Review(BaseModel):
    title: str
    stars: int = Field(ge=0)


SAID = '{"title": "A lamp", "stars": 4}'
EXPECTED = {"title": "A lamp", "stars": 4}


@pytest.fixture
def vendors(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> Loopback:
    """Every vendor at its own address of the pretend provider, with a key that must be seen nowhere else."""
    for name, variable in ADDRESSES.items():
        own = name in ("anthropic", "cohere", "voyage")
        monkeypatch.setenv(variable, server.url_of(name) if own else server.compat_url_of(name))
        llmkit.set_key(name, KEY)
    return server


@pytest.fixture
def instructor() -> Any:
    return pytest.importorskip("instructor")


# -------------------------------------------------------------------------------------------------------------------- modes


def test_the_best_mode_stands_first() -> None:
    best = {name: clients.modes_of(name)[:1] for name in ("openai", "groq", "anthropic", "cohere", "mistral", "voyage")}
    assert best == {
        "openai": ("tool_use",),
        "groq": ("tool_use",),
        "anthropic": ("anthropic_tools",),
        "cohere": ("json_schema",),
        "mistral": ("mistral_tools",),
        "voyage": (),
    }


def test_ones_own_server_has_the_modes_of_its_wire() -> None:
    pytest.importorskip("anthropic")
    llmkit.add_provider("proxy", "http://127.0.0.1:9/anthropic", protocol="anthropic")
    assert clients.modes_of("proxy") == clients.modes_of("anthropic")


def test_a_provider_nobody_knows_has_no_modes() -> None:
    with pytest.raises(UnknownModel, match="opnai"):
        clients.modes_of("opnai")


def test_a_mode_that_a_vendor_lacks_is_told_with_those_it_has() -> None:
    llmkit.set_key("anthropic", KEY)
    with pytest.raises(ConfigError, match="anthropic has no mode 'cohere_tools'; it has anthropic_tools, tool_use"):
        clients.client("anthropic/claude-haiku-4-5", mode="cohere_tools")


def test_importing_the_clients_loads_no_sdk() -> None:
    script = "import sys, llmkit.clients; print(sorted({'openai', 'anthropic', 'instructor', 'pydantic', 'aiohttp'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_every_mode_is_one_that_instructor_has_for_the_vendor(instructor: Any) -> None:
    from instructor.v2.core.providers import Provider
    from instructor.v2.core.registry import mode_registry

    wires = {"anthropic": Provider.ANTHROPIC, "cohere": Provider.COHERE}
    missing = [
        (vendor, name)
        for vendor, modes in clients.MODES.items()
        for name, how in modes.items()
        if not mode_registry.is_registered(wires.get(vendor, Provider.OPENAI), instructor.Mode[how.member])
    ]
    assert missing == []


# ---------------------------------------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("base_url", "name", "completed"),
    [
        ("https://api.groq.com/openai/v1", "groq", "https://api.groq.com/openai/v1"),
        ("https://api.groq.com/", "groq", "https://api.groq.com/openai/v1"),
        ("https://eu.api.openai.com/v1", "openai", "https://eu.api.openai.com/v1"),
        ("https://api.anthropic.com/v1", "anthropic", "https://api.anthropic.com"),
        ("https://api.cohere.com/v2", "cohere", "https://api.cohere.com"),
        ("https://api.deepseek.com/v1", "deepseek", "https://api.deepseek.com/v1"),
        ("http://localhost:11434/v1", "ollama", "http://localhost:11434/v1"),
        ("http://127.0.0.1:7997", "infinity", "http://127.0.0.1:7997"),
    ],
)
def test_a_provider_is_read_off_its_address(base_url: str, name: str, completed: str) -> None:
    here = session.default()
    found = provider_at(base_url, here.catalogue, here.settings)
    assert found is not None
    assert (found.name, found.base_url) == (name, completed)


@pytest.mark.parametrize(
    "base_url",
    [
        "http://api.openai.com/v1",
        "https://api.openai.com:8443/v1",
        "https://api.openai.com.evil.example/v1",
        "https://evilapi.openai.com.example",
        "https://notapi.groq.com",
        "https://api.openai.com@evil.example/v1",
        "http://127.0.0.1:59999/v1",
        "https://llm.example/v1",
    ],
)
def test_an_address_that_merely_looks_like_a_vendors_is_nobodys_and_gets_no_key(base_url: str) -> None:
    here = session.default()
    assert provider_at(base_url, here.catalogue, here.settings) is None


def test_ones_own_provider_is_found_by_the_longest_path(server: Loopback) -> None:
    llmkit.add_provider("outer", server.url)
    llmkit.add_provider("inner", f"{server.url}/inner")
    here = session.default()
    found = provider_at(f"{server.url}/inner/deeper", here.catalogue, here.settings)
    assert found is not None
    assert found.name == "inner"
    llmkit.add_provider("lab", "https://lab.example/v1")
    assert provider_at("https://other.lab.example/v1", here.catalogue, here.settings) is None


@pytest.mark.parametrize("base_url", ["127.0.0.1:8000/v1", "", 8000, "ftp://files.example", "http://host:port/v1", "http://[::1/v1"])
def test_what_is_no_address_is_said_so(base_url: Any) -> None:
    with pytest.raises(ConfigError, match="base_url (is an address such as|has no port)"):
        clients.client("m", base_url=base_url)


def test_a_vendors_address_asks_for_its_key() -> None:
    with pytest.raises(MissingKey, match='no key for "groq". Set GROQ_API_KEY, give api_key'):
        clients.client(base_url="https://api.groq.com/openai/v1")


def test_a_vendor_that_does_not_chat_is_told_at_once() -> None:
    llmkit.set_key("voyage", KEY)
    with pytest.raises(Unsupported, match="voyage does not chat; it does embed"):
        clients.client(base_url="https://api.voyageai.com/v1")
    with pytest.raises(Unsupported, match="does not chat"):
        clients.client("voyage/voyage-4")


@pytest.mark.parametrize("model", ["gpt-5-mini", ["openai/gpt-5-mini"], None, "openai/"])
def test_a_key_alone_does_not_say_whose_it_is(model: Any) -> None:
    with pytest.raises(ConfigError, match="api_key needs to know whose it is"):
        clients.client(model, api_key=KEY)


@pytest.mark.parametrize("key", ["", "  ", 7, f"{KEY}\u2022", f"{KEY}\nx"])
def test_what_is_no_key_is_refused_and_not_repeated(key: Any) -> None:
    with pytest.raises(ConfigError, match="api_key") as caught:
        clients.client("openai/gpt-5-mini", api_key=key)
    assert KEY not in str(caught.value)


def test_what_runs_inside_llmkit_has_no_sdk() -> None:
    pytest.importorskip("instructor")
    with pytest.raises(Unsupported, match="echo/echo runs inside llmkit and has no SDK"):
        clients.client("echo/echo")


def test_without_instructor_the_line_that_installs_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "instructor", None)
    with pytest.raises(MissingExtra, match=r"pip install 'llmkit\[instructor\]'"):
        clients.client("openai/gpt-5-mini", api_key=KEY)


# --------------------------------------------------------------------------------------------------------------- instructor


def told(server: Loopback, vendor: str, mode: str) -> None:
    """Have the model say a review in the way that the mode reads."""
    by_tool = mode in ("tool_use", "function_calling", "anthropic_tools", "mistral_tools") and vendor != "cohere"
    said = Said(calls=(Call("Review", EXPECTED),), reason="tool_calls") if by_tool else Said(SAID)
    server.fault(None, Saying(said), times=2)


@pytest.mark.parametrize(("vendor", "mode"), [(vendor, mode) for vendor in CHATTING for mode in clients.modes_of(vendor)])
def test_each_mode_brings_a_model_in_shape_sync_and_async(vendors: Loopback, instructor: Any, vendor: str, mode: str) -> None:
    told(vendors, vendor, mode)
    with clients.client(f"{vendor}/m1", mode=mode) as client:
        assert isinstance(client, instructor.Instructor)
        review, completion = client.chat.completions.create_with_completion(response_model=Review, messages=MESSAGES)
    assert isinstance(review, Review)
    assert review.model_dump() == EXPECTED  # instructor hangs the completion on a model, which then equals no other
    assert type(completion).__name__ in ("ChatCompletion", "Message", "V2ChatResponse")

    async def later() -> Any:
        async with clients.client(f"{vendor}/m1", mode=mode, is_async=True) as client:
            assert isinstance(client, instructor.AsyncInstructor)
            return await client.chat.completions.create(response_model=Review, messages=MESSAGES)

    assert asyncio.run(later()).model_dump() == EXPECTED
    assert [request.body["model"] for request in vendors.seen] == ["m1", "m1"]
    assert {request.vendor for request in vendors.seen} == {vendor}


@pytest.mark.parametrize("vendor", ["anthropic", "cohere", "openai"])
def test_native_has_the_vendor_enforce_the_schema(vendors: Loopback, instructor: Any, vendor: str) -> None:
    with clients.client(f"{vendor}/m1", mode="native") as client:
        review = client.create(response_model=Review, messages=MESSAGES)
    assert isinstance(review, Review)  # the pretend model only answers in JSON where the wire demands it
    body = vendors.seen[-1].body
    asked = body["output_config"]["format"]["schema"] if vendor == "anthropic" else body["response_format"]["json_schema"]
    assert "stars" in str(asked)


@pytest.mark.parametrize("vendor", CHATTING)
def test_without_a_response_model_the_sdks_own_answer_comes(vendors: Loopback, instructor: Any, vendor: str) -> None:
    with clients.client(f"{vendor}/m1") as client:
        answer = client.chat.completions.create(messages=MESSAGES)
        same, completion = client.chat.completions.create_with_completion(messages=MESSAGES)
    assert answer_to("a review of a lamp") in str(answer)
    assert same is completion


def test_a_number_comes_with_its_completion_too(vendors: Loopback, instructor: Any) -> None:
    heard: list[Any] = []
    hooks = instructor.core.Hooks()
    hooks.on("completion:response", heard.append)
    with clients.client("openai/m1") as client:
        number, completion = client.create_with_completion(response_model=int, messages=MESSAGES, hooks=hooks)
    assert isinstance(number, int)
    assert heard == [completion]


@pytest.mark.parametrize("vendor", ["openai", "anthropic"])
def test_pictures_travel(vendors: Loopback, instructor: Any, vendor: str) -> None:
    picture = instructor.Image.from_base64(f"data:image/png;base64,{base64.b64encode(PIXEL).decode()}")
    with clients.client(f"{vendor}/m1") as client:
        answer = client.create(messages=[{"role": "user", "content": ["what is this", picture]}])
        review = client.create(response_model=Review, messages=[{"role": "user", "content": ["what is this", picture]}])
    assert f"[1 image: image/png of {len(PIXEL)} bytes]" in str(answer)
    assert isinstance(review, Review)


@pytest.mark.parametrize("vendor", ["openai", "anthropic", "cohere"])
def test_pieces_come_while_the_answer_is_written(vendors: Loopback, instructor: Any, vendor: str) -> None:
    mode = "cohere_tools" if vendor == "cohere" else "tool_use"
    told(vendors, vendor, mode)
    with clients.client(f"{vendor}/m1", mode=mode) as client:
        *_, whole = client.create_partial(response_model=Review, messages=MESSAGES)
    assert (whole.title, whole.stars) == ("A lamp", 4)

    async def later() -> Any:
        async with clients.client(f"{vendor}/m1", mode=mode, is_async=True) as client:
            return [piece async for piece in client.create_partial(response_model=Review, messages=MESSAGES)]

    assert asyncio.run(later())[-1].title == "A lamp"


def test_items_of_a_list_come_one_by_one(vendors: Loopback, instructor: Any) -> None:
    said = Said(calls=(Call("IterableReview", {"tasks": [EXPECTED, {"title": "A chair", "stars": 5}]}),), reason="tool_calls")
    vendors.fault(None, Saying(said))
    with clients.client("openai/m1") as client:
        assert [review.title for review in client.create_iterable(response_model=Review, messages=MESSAGES)] == ["A lamp", "A chair"]


def test_a_stream_that_is_no_json_and_a_mode_that_cannot_stream_say_so(vendors: Loopback, instructor: Any) -> None:
    with clients.client("anthropic/m1", mode="anthropic_json") as client, pytest.raises(BadOutput) as caught:
        list(client.create_partial(response_model=Review, messages=MESSAGES))
    assert caught.value.kind == "validation"
    with (
        clients.client("cohere/m1", mode="json") as client,
        pytest.raises(Unsupported, match="does not stream cohere's answers in this mode"),
    ):
        list(client.create_partial(response_model=Review, messages=MESSAGES))


def test_anthropic_is_given_a_limit_and_takes_a_temperature(vendors: Loopback, instructor: Any) -> None:
    with clients.client("anthropic/claude-haiku-4-5") as client:
        client.create(messages=MESSAGES, temperature=0, top_p=0.5, extra_body={"top_k": 3})
        client.create(messages=MESSAGES, max_tokens=17, model="other", temperature=None)
        client.create(messages=MESSAGES, model="other")
    first, second, third = (request.body for request in vendors.seen)
    assert (first["max_tokens"], first["temperature"], first["top_p"], first["top_k"]) == (8192, 0, 0.5, 3)
    assert (second["max_tokens"], second["model"], "temperature" in second) == (17, "other", False)
    assert third["max_tokens"] == 4096


def test_the_model_is_the_first_of_a_list_that_can_be_had(vendors: Loopback, instructor: Any) -> None:
    with clients.client(["fireworks/m0", "groq/m1"]) as client:
        assert repr(client) == "<client of groq/m1, TOOLS>"
        client.create(messages=MESSAGES)
    assert vendors.seen[-1].vendor == "groq"


def test_without_a_model_the_sessions_own_is_taken(vendors: Loopback, instructor: Any) -> None:
    llmkit.use("mistral/m7")
    with clients.client() as client:
        client.create(messages=MESSAGES)
    assert (vendors.seen[-1].vendor, vendors.seen[-1].body["model"]) == ("mistral", "m7")


def test_an_address_alone_leaves_the_model_to_the_call(server: Loopback, instructor: Any) -> None:
    with clients.client(base_url=server.compat_url_of("gemini"), api_key=KEY) as client:
        with pytest.raises(ConfigError, match="which model"):
            client.create(messages=MESSAGES)
        assert isinstance(client.create(response_model=Review, messages=MESSAGES, model="m1"), Review)
    assert server.seen[-1].headers["authorization"] == f"Bearer {KEY}"


def test_an_unknown_address_gets_no_key_of_a_vendors(server: Loopback, instructor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-somebody")
    with clients.client("m1", base_url=server.url) as client:
        client.create(messages=MESSAGES)
    assert KEY not in str(server.seen[-1].headers)
    assert "org-of-somebody" not in str(server.seen[-1].headers)


def test_a_key_that_is_given_goes_before_the_one_that_is_found(vendors: Loopback, instructor: Any) -> None:
    with clients.client("groq/m1", api_key="another-not-real") as client:
        client.create(messages=MESSAGES)
    assert vendors.seen[-1].headers["authorization"] == "Bearer another-not-real"


# ------------------------------------------------------------------------------------------------------------------- errors


def failing(model: str, is_async: bool = False, **given: Any) -> BaseException | None:
    """What a call raises."""
    call = {"response_model": Review, "messages": MESSAGES, **given}

    async def later() -> None:
        async with clients.client(model, is_async=True) as client:
            await client.create(**call)

    try:
        if is_async:
            asyncio.run(later())
        else:
            with clients.client(model) as client:
                client.create(**call)
    except Exception as error:
        return error
    return None


def chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("structured", [True, False])
@pytest.mark.parametrize("vendor", ["openai", "anthropic", "cohere", "groq"])
def test_a_refusal_is_the_error_that_frames_would_have(
    vendors: Loopback, instructor: Any, vendor: str, structured: bool, is_async: bool
) -> None:
    given = {} if structured else {"response_model": None}
    for kind, expected in (("rate_limited", RateLimited), ("bad_key", KeyRejected)):
        vendors.reset()
        vendors.fault(None, error_of(vendor, kind), times=9)  # type: ignore[arg-type]
        error = failing(f"{vendor}/m1", is_async, **given)
        assert type(error) is expected
        assert isinstance(error, llmkit.LLMError)
        assert (error.provider, error.model) == (vendor, "m1")
        assert vendors.requests == 1  # neither instructor nor the SDK asks again


@pytest.mark.parametrize("vendor", ["openai", "anthropic", "cohere"])
@pytest.mark.parametrize("is_async", [False, True])
def test_a_lost_connection_is_one(vendors: Loopback, instructor: Any, vendor: str, is_async: bool) -> None:
    vendors.fault(None, Close(), times=9)
    assert type(failing(f"{vendor}/m1", is_async)) is ConnectionLost
    assert vendors.requests == 1


@pytest.mark.parametrize("vendor", ["openai", "anthropic", "cohere"])
def test_an_answer_that_does_not_fit_names_its_fields_and_not_its_words(vendors: Loopback, instructor: Any, vendor: str) -> None:
    secret = "words-of-the-answer"
    by_tool = Said(calls=(Call("Review", {"title": 7, "stars": secret, secret: 1}),), reason="tool_calls")
    vendors.fault(None, Saying(by_tool if vendor != "cohere" else Said(f'{{"title": 7, "stars": "{secret}"}}')))
    error = failing(f"{vendor}/m1")
    assert isinstance(error, BadOutput)
    assert error.kind == "validation"
    assert "does not fit Review: title (string_type), stars (int_" in str(error)
    assert secret not in "".join(traceback.format_exception(error))


def test_max_retries_has_instructor_ask_again(vendors: Loopback, instructor: Any) -> None:
    wrong, right = ({"title": "A lamp", "stars": stars} for stars in (-1, 4))
    vendors.fault(None, *(Saying(Said(calls=(Call("Review", said),), reason="tool_calls")) for said in (wrong, right)))
    with clients.client("openai/m1") as client:
        assert client.create(response_model=Review, messages=MESSAGES, max_retries=1).model_dump() == EXPECTED
    assert vendors.requests == 2


def test_an_answer_that_was_cut_off_says_so(vendors: Loopback, instructor: Any) -> None:
    vendors.fault(None, Saying(Said(SAID[:9], reason="length")))
    with clients.client("openai/m1", mode="json_schema") as client, pytest.raises(Truncated, match="raise max_tokens"):
        client.create(response_model=Review, messages=MESSAGES)


def test_an_argument_that_the_sdk_lacks_is_named(vendors: Loopback, instructor: Any) -> None:
    error = failing("anthropic/m1", frequency_penalty=1)
    assert isinstance(error, ConfigError)
    assert "anthropic's SDK has no argument frequency_penalty" in str(error)


@pytest.mark.parametrize("messages", [None, []])
def test_nothing_to_ask_is_told_before_anything_is_sent(vendors: Loopback, instructor: Any, messages: Any) -> None:
    assert isinstance(failing("openai/m1", messages=messages), BadInput)
    assert vendors.requests == 0


def test_a_stream_that_is_refused_raises_our_error(vendors: Loopback, instructor: Any) -> None:
    vendors.fault(None, error_of("openai", "bad_key"))
    with clients.client("openai/m1") as client, pytest.raises(KeyRejected):
        list(client.create_partial(response_model=Review, messages=MESSAGES))


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("vendor", ["openai", "anthropic", "cohere"])
def test_no_error_log_or_repr_holds_a_key_or_a_prompt(
    vendors: Loopback, instructor: Any, vendor: str, is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    prompt = "a prompt that must stay where it is"
    body = {"error": {"message": f"refused: {KEY} asked {prompt}", "type": "invalid_request_error"}, "message": f"{KEY} {prompt}"}
    with caplog.at_level(logging.INFO):
        for answer in (Status(400, body), Status(401, body), Status(500, body), Close(), Saying(Said("no JSON " + prompt))):
            vendors.fault(None, answer)
            error = failing(f"{vendor}/m1", is_async, messages=[{"role": "user", "content": prompt}])
            shown = "".join(repr(one) + str(one) + repr(vars(one)) for one in chain(error)) + "".join(traceback.format_exception(error))
            assert KEY not in shown
            assert prompt not in shown
            assert len(list(chain(error))) == 1
    said = [record.getMessage() for record in caplog.records if record.name.split(".")[0] not in ("httpx", "httpx2")]
    assert said == []
    with clients.client(f"{vendor}/m1") as client:
        assert KEY not in repr(client) + str(client)


# --------------------------------------------------------------------------------------------------- embedders and rerankers


def test_an_embedder_gives_vectors_in_the_order_of_the_texts(vendors: Loopback) -> None:
    made = clients.embedder("openai/text-embedding-3-small").create(["one", "two"], dimensions=4)
    assert np.allclose(made.vectors, [vector_of("one", 4), vector_of("two", 4)])
    assert (made.vectors.dtype, made.model) == (np.float32, "openai/text-embedding-3-small")
    assert made.usage.input > 0
    assert made.cost == pytest.approx(made.usage.input * 0.02e-6)


def test_an_embedder_is_served_from_the_store(vendors: Loopback) -> None:
    embedder = clients.embedder("voyage/voyage-4")
    first, again = embedder.create(["one"]), embedder.embeddings.create("one")
    assert np.array_equal(first.vectors, again.vectors)
    assert (vendors.requests, again.usage.requests, again.cost) == (1, 0, 0.0)


def test_an_embedder_sends_many_texts_in_few_requests_and_tries_again(vendors: Loopback) -> None:
    vendors.fault(None, error_of("cohere", "overloaded"))
    made = clients.embedder("cohere/embed-v4.0").create([f"text {number}" for number in range(200)], input_type="query")
    assert made.vectors.shape == (200, 8)
    assert {request.body["input_type"] for request in vendors.seen} == {"search_query"}
    assert vendors.requests == 4  # three of 96 at most, and the one that was refused


def test_an_async_embedder_is_awaited_on_any_loop(vendors: Loopback) -> None:
    embedder = clients.embedder("openai/text-embedding-3-small", is_async=True)

    async def both() -> Any:
        return await asyncio.gather(embedder.create(["one"]), embedder.create(["two"]))

    one, two = asyncio.run(both())
    assert np.allclose(np.vstack([one.vectors, two.vectors]), [vector_of("one"), vector_of("two")])


def test_a_reranker_orders_documents(vendors: Loopback) -> None:
    ranked = clients.reranker("cohere/rerank-v4.0-fast").create("late parcel", ["red apple", "a late parcel"], top_k=1)
    assert ranked.ranking["document"].tolist() == ["a late parcel"]
    assert ranked.ranking.index.tolist() == [1]
    assert ranked.usage.searches == 1

    async def later() -> Any:
        return await clients.reranker("voyage/rerank-2.5", is_async=True).rerank.create("late parcel", ["red apple", "a late parcel"])

    assert asyncio.run(later()).ranking.index.tolist() == [1, 0]


def test_a_text_that_fails_raises_its_reason(vendors: Loopback) -> None:
    vendors.fault(None, error_of("openai", "bad_key"), times=9)
    with pytest.raises(KeyRejected) as caught:
        clients.embedder("openai/text-embedding-3-small").create(["one"])
    assert KEY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("texts", [[""], [None], [b"bytes"], 7])
def test_an_embedder_takes_texts_only(texts: Any) -> None:
    with pytest.raises(BadInput, match="none of them missing or empty"):
        clients.embedder("local/lexical").create(texts)


def test_a_reranker_takes_a_list() -> None:
    with pytest.raises(BadInput, match="a list of documents, not one text"):
        clients.reranker("local/bm25").create("query", "one document")


def test_no_text_makes_no_vector_and_no_request(vendors: Loopback) -> None:
    made = clients.embedder("openai/text-embedding-3-small").create([])
    assert (len(made.vectors), made.usage.requests, vendors.requests) == (0, 0, 0)


def test_an_embedder_of_a_model_that_chats_is_refused_when_it_is_made(vendors: Loopback) -> None:
    with pytest.raises(Unsupported, match="does not embed"):
        clients.embedder("anthropic/claude-haiku-4-5")


def test_embedders_and_rerankers_show_no_key(vendors: Loopback) -> None:
    shown = [clients.embedder("openai/text-embedding-3-small"), clients.reranker("cohere/rerank-v4.0-fast", is_async=True)]
    assert [repr(one) for one in shown] == ["<embedder of openai/text-embedding-3-small>", "<async reranker of cohere/rerank-v4.0-fast>"]
    assert all(KEY not in str(vars(one)) for one in shown)


# ------------------------------------------------------------------------------------------------- clients that callers bring


@pytest.fixture
def bring(server: Loopback) -> Iterator[Any]:
    """Make a client of an SDK, and close it afterwards on the loop that used it."""
    made: list[Any] = []

    def make(kind: Any, **given: Any) -> Any:
        vendor = kind.__module__.split(".")[0].removesuffix("ai") if kind.__module__.startswith("voyage") else kind.__module__.split(".")[0]
        made.append(kind(**{"api_key": KEY, "base_url": server.url if vendor == "openai" else server.url_of(vendor), **given}))
        return made[-1]

    yield make
    for client in made:
        if hasattr(client, "__aexit__"):
            event_loop.call(client.__aexit__, None, None, None)
        elif hasattr(client, "__exit__"):
            client.__exit__(None, None, None)


CHAT_CLIENTS = [
    openai.OpenAI, openai.AsyncOpenAI, anthropic.Anthropic, anthropic.AsyncAnthropic, cohere.ClientV2, cohere.AsyncClientV2, cohere.Client,
]  # fmt: skip


@pytest.mark.parametrize("kind", CHAT_CLIENTS, ids=lambda kind: f"{kind.__module__.split('.')[0]}-{kind.__name__}")
def test_a_client_that_is_handed_in_does_the_asking(server: Loopback, bring: Any, kind: Any) -> None:
    client = bring(kind)
    answers = FRAME.llm.chat("Say {text}", model=(client, "their-model"), show_progress=False)
    assert answers.tolist() == [answer_to("Say one"), answer_to("Say two")]
    assert {request.body["model"] for request in server.seen} == {"their-model"}
    assert all(KEY in str(request.headers) for request in server.seen)


# The sync client of voyageai keeps a session for each thread and never closes it: only its async one is tried here.
@pytest.mark.parametrize("kind", [openai.OpenAI, openai.AsyncOpenAI, cohere.ClientV2, cohere.AsyncClientV2, voyageai.AsyncClient])
def test_a_client_that_is_handed_in_embeds_and_ranks(server: Loopback, bring: Any, kind: Any) -> None:
    client = bring(kind)
    vectors = llmkit.embed(["one", "two"], model=(client, "m1"))
    assert np.allclose(vectors, [vector_of("one"), vector_of("two")], atol=1e-6)
    ranked = llmkit.rerank("late parcel", ["red apple", "a late parcel"], model=(client, "m2"))
    assert ranked.index.tolist() == [1, 0]


def test_azure_addresses_a_deployment_in_its_own_way(server: Loopback, bring: Any) -> None:
    said = {"id": "1", "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "from Azure"}}]}
    server.fault(None, Json(said))
    client = bring(openai.AzureOpenAI, azure_endpoint=server.url.removesuffix("/v1"), api_version="2024-10-21", base_url=None)
    assert llmkit.chat("hello", model=(client, "my-deployment")) == "from Azure"
    (request,) = server.seen
    assert request.path == "/openai/deployments/my-deployment/chat/completions"
    assert request.headers["api-key"] == KEY


def test_a_pair_is_one_model_also_in_a_list(server: Loopback, bring: Any) -> None:
    client = bring(openai.OpenAI)
    server.fault("hello", error_of("openai", "unknown_model"))
    assert llmkit.chat("hello", model=[(client, "gone"), (client, "there")]) == answer_to("hello")
    assert [request.body["model"] for request in server.seen] == ["gone", "there"]
    assert llmkit.chat("hello again", model=(client, "there"), fallback="echo/echo") == answer_to("hello again")


def test_a_client_can_be_the_sessions_own(server: Loopback, bring: Any) -> None:
    llmkit.use((bring(openai.OpenAI), "m1"))
    assert llmkit.chat("hello") == answer_to("hello")
    assert server.seen[-1].body["model"] == "m1"


def test_an_embedder_takes_a_client_too(server: Loopback, bring: Any) -> None:
    made = clients.embedder((bring(openai.OpenAI), "m1")).create(["one"])
    assert made.model == "openai/m1"
    assert np.allclose(made.vectors, [vector_of("one")])


@pytest.mark.parametrize("kind", [openai.OpenAI, anthropic.Anthropic, cohere.ClientV2])
def test_the_retries_of_a_client_are_off(server: Loopback, bring: Any, kind: Any) -> None:
    server.fault(None, Status(500, {}), times=9)
    with pytest.raises(ServerFault):
        llmkit.chat("hello", model=(bring(kind, max_retries=5) if kind is not cohere.ClientV2 else bring(kind), "m1"), max_attempts=1)
    assert server.requests == 1


def test_answers_of_two_addresses_do_not_mix(server: Loopback, bring: Any) -> None:
    first, second = bring(openai.OpenAI), bring(openai.OpenAI, base_url=server.compat_url_of("elsewhere"))
    for client in (first, second, first):
        llmkit.chat("hello", model=(client, "m1"))
    assert server.requests == 2
    for client in (bring(cohere.ClientV2), bring(cohere.ClientV2)):  # which do not tell where they ask
        llmkit.chat("hello", model=(client, "m1"))
        llmkit.chat("hello", model=(client, "m1"))
    assert server.requests == 4


def test_each_client_is_an_account_of_its_own(server: Loopback, bring: Any) -> None:
    here = session.default()
    one, two = bring(openai.OpenAI), bring(openai.OpenAI)
    targets = [here.target((client, "m1"), "chat") for client in (one, two, one)]

    async def limiters() -> list[Any]:
        return [here.engine.account(target).limiter for target in targets]

    first, second, third = event_loop.call(limiters)
    assert first is third
    assert first is not second


def test_a_client_at_a_vendors_address_has_that_vendors_ways(bring: Any) -> None:
    here = session.default()
    groq = here.target((bring(openai.OpenAI, base_url="https://api.groq.com/openai/v1"), "m1"), "chat")
    assert (groq.name, groq.provider.quirks["request_limit_window"]) == ("groq/m1", "day")
    own = here.target((bring(openai.OpenAI, base_url="https://user:secret@llm.example/v1"), "m1"), "chat")
    assert (own.name, own.provider.base_url, "token_limit_field" in own.provider.quirks) == ("openai/m1", "https://llm.example/v1", False)


@pytest.mark.parametrize("kind", [openai.AsyncOpenAI, anthropic.AsyncAnthropic, cohere.AsyncClientV2])
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the connection is left behind on a loop that is no more: that is the case here
def test_an_async_client_of_another_loop_is_told_with_the_cure(server: Loopback, kind: Any) -> None:
    package = {openai.AsyncOpenAI: openai, anthropic.AsyncAnthropic: anthropic}.get(kind, cohere)
    client = kind(api_key=KEY, base_url=server.url if package is openai else server.url_of(package.__name__))
    if package is cohere:
        asyncio.run(client.chat(model="m1", messages=[{"role": "user", "content": "on another loop"}]))
    else:
        asyncio.run(client.get("/models" if package is openai else "/v1/models", cast_to=object))
    with pytest.raises(AccessError, match="another event loop") as caught:
        llmkit.chat("hello", model=(client, "m1"))
    assert (caught.value.kind, KEY in str(caught.value)) == ("loop", False)
    if package is not cohere:
        fresh = client.with_options(http_client=package.DefaultAsyncHttpxClient())
        assert llmkit.chat("hello", model=(fresh, "m1")) == answer_to("hello")
        event_loop.call(fresh.close)
    del client, caught
    gc.collect()


@pytest.mark.parametrize("model", [{"a": 1}, 7, b"openai/gpt", object(), ["openai"]])
def test_what_is_no_model_is_told_with_what_would_be_one(model: Any) -> None:
    with pytest.raises(ConfigError):
        llmkit.chat("hello", model=model)


def test_a_client_without_a_model_is_asked_for_one(bring: Any) -> None:
    client = bring(openai.OpenAI)
    for model in (client, (client, " ")):
        with pytest.raises(ConfigError, match=r'which model\? Write model=\(client, "name"\), not the OpenAI alone') as caught:
            llmkit.chat("hello", model=model)
        assert KEY not in str(caught.value)


@pytest.mark.parametrize("stranger", [object(), None, 7, pd.DataFrame()])
def test_a_pair_with_a_stranger_names_the_sdks_that_are_known(stranger: Any) -> None:
    with pytest.raises(ConfigError, match="takes a client of openai, anthropic, cohere, voyageai or instructor"):
        llmkit.chat("hello", model=(stranger, "m1"))


def test_what_a_client_of_ones_own_cannot_do_is_told(bring: Any) -> None:
    with pytest.raises(Unsupported, match="does not rerank; it does chat"):
        llmkit.rerank("a", ["b"], model=(bring(anthropic.Anthropic), "m1"))
    with pytest.raises(Unsupported, match="does not answer in pieces"):
        llmkit.stream("hello", model=(bring(openai.OpenAI), "m1"))
    with pytest.raises(Unsupported, match="files do not travel"):
        llmkit.transcribe(b"RIFF", model=(bring(openai.OpenAI), "whisper-1"))
    with pytest.raises(ConfigError, match="given to instructor.from_openai"):
        clients.client((bring(openai.OpenAI), "m1"))
    with pytest.raises(ConfigError, match="connect takes names of models"):
        llmkit.connect((bring(openai.OpenAI), "m1"))


def test_a_refusal_through_a_client_holds_no_key(server: Loopback, bring: Any) -> None:
    server.fault(None, Status(401, {"error": {"message": f"Incorrect API key provided: {KEY}."}}))
    with pytest.raises(KeyRejected) as caught:
        llmkit.chat("hello", model=(bring(openai.OpenAI), "m1"))
    assert KEY not in "".join(traceback.format_exception(caught.value))


def test_an_instructor_client_is_a_model(server: Loopback, bring: Any, instructor: Any) -> None:
    theirs = instructor.from_openai(bring(openai.OpenAI))
    assert llmkit.chat("hello", model=(theirs, "m1")) == answer_to("hello")
    with pytest.raises(ConfigError, match="which model"):
        llmkit.chat("hello", model=theirs)
    with_one = instructor.from_cohere(bring(cohere.ClientV2), model="m2")
    assert llmkit.chat("hello", model=with_one) == answer_to("hello")
    assert [request.body["model"] for request in server.seen] == ["m1", "m2"]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_client_of_llmkits_own_knows_its_model_and_streams(vendors: Loopback, instructor: Any, is_async: bool) -> None:
    client = clients.client("groq/m1", is_async=is_async, api_key="another-not-real")
    assert llmkit.chat("hello", model=client) == answer_to("hello")
    assert "".join(llmkit.stream("hello there", model=client)) == answer_to("hello there")
    assert llmkit.chat("hello", model=(client, "m2")) == answer_to("hello")
    assert [request.body["model"] for request in vendors.seen] == ["m1", "m1", "m2"]
    assert {request.headers["authorization"] for request in vendors.seen} == {"Bearer another-not-real"}


# -------------------------------------------------------------------------------------------------------------- connections


def test_a_connection_has_a_client_that_knows_its_model(vendors: Loopback, instructor: Any) -> None:
    connection = llmkit.connect("groq/m1")
    with connection.client as client:
        assert client is connection.client
        assert isinstance(client.create(response_model=Review, messages=MESSAGES), Review)
    assert repr(connection) == "Connection(model='groq/m1', provider='groq', name='m1')"


@pytest.mark.parametrize(
    ("model", "operation", "kind"),
    [
        ("openai/m1", "chat", openai.OpenAI),
        ("openai/text-embedding-3-small", "embed", openai.OpenAI),
        ("voyage/voyage-4", "embed", voyageai.Client),
    ],
)
def test_a_connection_without_instructor_or_without_chat_has_the_sdks_client(
    vendors: Loopback, monkeypatch: pytest.MonkeyPatch, model: str, operation: str, kind: Any
) -> None:
    if operation == "chat":
        monkeypatch.setattr(clients, "find_spec", lambda name: None)
    connection = llmkit.connect(model, operation=operation)
    assert type(connection.client) is kind
    assert KEY not in repr(connection)
    if operation == "chat":
        with connection.client as client:
            answer = client.chat.completions.create(model=connection.name, messages=MESSAGES)
        assert answer.choices[0].message.content == answer_to("a review of a lamp")


def test_what_is_built_in_has_no_client_to_hand_out() -> None:
    with pytest.raises(Unsupported, match="echo/echo runs inside llmkit"):
        _ = llmkit.connect("echo/echo").client
