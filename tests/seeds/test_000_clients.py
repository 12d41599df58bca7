"""A client for any provider, model, operation and mode, sync or async; a pipeline over rows that is kept on disk; batches without end."""

from __future__ import annotations

import asyncio
import base64
import inspect
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
from pydantic import BaseModel

import llmkit
from llmkit import Session, session
from llmkit.clients import modes_of
from llmkit.foreign import provider_at
from llmkit.session import default
from tests.loopback import Loopback, error_of, heard_in, speech_of, vector_of
from tests.providers.conformance.conftest import Hurried
from tests.seeds import KEY, PIXEL, keyed, moved

#: The document's providers, with a model of each that is served today.
CHATS = {
    "openai": "openai/gpt-4.1-mini",
    "anthropic": "anthropic/claude-haiku-4-5",
    "cohere": "cohere/command-a-03-2025",
    "mistral": "mistral/mistral-small-latest",
    "groq": "groq/openai/gpt-oss-120b",
    "anyscale": "anyscale/mistralai/Mixtral-8x7B-Instruct-v0.1",
    "gemini": "gemini/gemini-2.5-flash",
}
EMBEDS = {
    "openai": "openai/text-embedding-3-small",
    "mistral": "mistral/mistral-embed",
    "voyage": "voyage/voyage-4",
    "cohere": "cohere/embed-v4.0",
    "anyscale": "anyscale/thenlper/gte-large",
}
RERANKS = {"voyage": "voyage/rerank-2.5", "cohere": "cohere/rerank-v4.0-pro"}
HEARS = {"openai": "openai/gpt-4o-mini-transcribe", "groq": "groq/whisper-large-v3-turbo"}
#: Where each vendor's own SDK is, in the extras that bring one.
SDKS = {"anthropic": "anthropic", "cohere": "cohere", "voyage": "voyageai"}

SPEECH = speech_of("hello", "alloy", "wav")
DOCUMENTS = ["red apple", "late parcel", "parcel"]


class Review(BaseModel):
    mood: Literal["good", "bad"]
    stars: int


PROMPT = "a bad lamp, 2 stars"
MESSAGES = [{"role": "user", "content": PROMPT}]
#: instructor hands back a subclass of the model, so what is in it is compared.
EXPECTED = {"mood": "bad", "stars": 2}
AS_JSON = '{"mood": "bad", "stars": 2}'


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@pytest.fixture
def vendors(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> Loopback:
    """Every provider of the document with a key; Anyscale, whose public endpoints were shut, at an address of one's own."""
    moved(server)
    keyed(monkeypatch, *CHATS, "voyage")
    monkeypatch.setenv("ANYSCALE_API_BASE", server.compat_url_of("anyscale"))
    return server


@pytest.fixture
def instructor() -> Any:
    return pytest.importorskip("instructor")


def needs_sdk_of(provider: str) -> None:
    if provider in SDKS:
        pytest.importorskip(SDKS[provider])


def text_of(answer: Any) -> str:
    """What the SDK's own answer says: OpenAI's, Anthropic's or Cohere's."""
    if hasattr(answer, "choices"):
        return str(answer.choices[0].message.content)
    return str((answer.content if hasattr(answer, "content") else answer.message.content)[0].text)


# ------------------------------------------------------------------------------------------- providers, names, addresses


@pytest.mark.parametrize("provider", CHATS)
def test_a_provider_of_the_document_chats(vendors: Loopback, provider: str) -> None:
    needs_sdk_of(provider)
    assert llmkit.chat("Hello", model=CHATS[provider]) == "answer to: Hello"
    assert vendors.seen[-1].vendor == provider


def test_one_dictionary_has_the_names_of_models_and_providers() -> None:
    known = llmkit.models()
    assert list(known.columns[:4]) == ["canonical", "provider", "name", "operations"]
    for model in [*CHATS.values(), *EMBEDS.values(), *RERANKS.values(), *HEARS.values()]:
        provider, _, name = model.partition("/")
        if provider != "anyscale":  # its own service has whatever its owner put there
            assert ((known["provider"] == provider) & (known["name"] == name)).any(), model


def test_one_library_has_the_addresses() -> None:
    known = llmkit.providers().set_index("provider")["base_url"]
    assert known["groq"] == "https://api.groq.com/openai/v1"
    assert all(known[provider].startswith("https://") for provider in [*CHATS, "voyage"] if provider != "anyscale")


@pytest.mark.parametrize("provider", ["openai", "anthropic", "cohere", "mistral", "groq", "gemini", "voyage"])
def test_the_provider_is_read_off_its_address(provider: str) -> None:
    session = default()
    found = provider_at(llmkit.providers().set_index("provider").loc[provider, "base_url"], session.catalogue, session.settings)
    assert found is not None
    assert found.name == provider


@pytest.mark.parametrize("provider", ["openai", "mistral", "groq", "gemini", "anyscale"])
def test_a_client_is_made_of_an_address_alone_and_takes_that_providers_key(vendors: Loopback, instructor: Any, provider: str) -> None:
    with llmkit.client(base_url=vendors.compat_url_of(provider)) as client:
        answer = client.chat.completions.create(model=CHATS[provider].partition("/")[2], messages=MESSAGES)
    assert text_of(answer) == f"answer to: {PROMPT}"
    assert vendors.seen[-1].vendor == provider
    assert vendors.seen[-1].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("name", ["client", "embedder", "reranker"])
def test_sync_or_async_is_one_switch(name: str) -> None:
    assert inspect.signature(getattr(llmkit, name)).parameters["is_async"].default is False


# ------------------------------------------------------------------------------------------------------ chat as one needs it


@pytest.mark.parametrize("provider", CHATS)
def test_a_client_gives_a_structured_answer_and_the_completion(vendors: Loopback, instructor: Any, provider: str) -> None:
    vendors.answer = None if provider != "cohere" else lambda body: AS_JSON
    with llmkit.client(CHATS[provider]) as client:
        review, completion = client.chat.completions.create_with_completion(response_model=Review, messages=MESSAGES)
    assert isinstance(review, Review)
    assert review.model_dump() == EXPECTED
    assert completion.usage is not None
    assert vendors.seen[-1].vendor == provider


@pytest.mark.parametrize("provider", CHATS)
def test_a_client_gives_an_unstructured_answer(vendors: Loopback, instructor: Any, provider: str) -> None:
    with llmkit.client(CHATS[provider]) as client:
        assert text_of(client.chat.completions.create(messages=MESSAGES)) == f"answer to: {PROMPT}"


@pytest.mark.parametrize("provider", CHATS)
def test_an_async_client_does_both(vendors: Loopback, instructor: Any, provider: str) -> None:
    async def both() -> tuple[Any, Any]:
        async with llmkit.client(CHATS[provider], is_async=True) as client:
            review, _ = await client.chat.completions.create_with_completion(response_model=Review, messages=MESSAGES)
            vendors.answer = None
            return review, await client.chat.completions.create(messages=MESSAGES)

    vendors.answer = None if provider != "cohere" else lambda body: AS_JSON
    review, answer = asyncio.run(both())
    assert isinstance(review, Review)
    assert review.model_dump() == EXPECTED
    assert text_of(answer) == f"answer to: {PROMPT}"


@pytest.mark.parametrize("provider", CHATS)
def test_a_structured_answer_needs_no_client(vendors: Loopback, provider: str) -> None:
    needs_sdk_of(provider)
    said = llmkit.chat(PROMPT, model=CHATS[provider], response_format=Review)
    assert Review.model_validate_json(said).model_dump() == EXPECTED


@pytest.mark.parametrize("provider", CHATS)
def test_a_call_that_does_not_wait_is_awaited(vendors: Loopback, provider: str) -> None:
    needs_sdk_of(provider)

    async def awaited() -> Any:
        return await pd.DataFrame({"text": ["a", "b"]}).llm.chat("Say {text}", model=CHATS[provider], wait=False, show_progress=False)

    assert asyncio.run(awaited()).tolist() == ["answer to: Say a", "answer to: Say b"]


@pytest.mark.parametrize("provider", EMBEDS)
def test_an_embedder_gives_vectors_and_what_they_cost(vendors: Loopback, provider: str) -> None:
    needs_sdk_of(provider)
    made = llmkit.embedder(EMBEDS[provider]).embeddings.create(["b", "a"])
    np.testing.assert_array_equal(made.vectors, [vector_of("b"), vector_of("a")])
    assert made.usage.input > 0
    assert made.model == EMBEDS[provider]
    assert vendors.seen[-1].vendor == provider


@pytest.mark.parametrize("provider", EMBEDS)
def test_an_async_embedder_is_awaited(vendors: Loopback, provider: str) -> None:
    needs_sdk_of(provider)

    async def awaited() -> Any:
        return await llmkit.embedder(EMBEDS[provider], is_async=True).create(["a"])

    np.testing.assert_array_equal(asyncio.run(awaited()).vectors, [vector_of("a")])


@pytest.mark.parametrize("provider", RERANKS)
def test_a_reranker_orders_documents(vendors: Loopback, provider: str) -> None:
    needs_sdk_of(provider)
    made = llmkit.reranker(RERANKS[provider]).rerank.create("late parcel", DOCUMENTS)
    assert made.ranking["document"].tolist() == ["late parcel", "parcel", "red apple"]
    assert vendors.seen[-1].vendor == provider


@pytest.mark.parametrize("provider", RERANKS)
def test_an_async_reranker_is_awaited(vendors: Loopback, provider: str) -> None:
    needs_sdk_of(provider)

    async def awaited() -> Any:
        return await llmkit.reranker(RERANKS[provider], is_async=True).create("late parcel", DOCUMENTS, top_k=1)

    assert asyncio.run(awaited()).ranking.index.tolist() == [1]


# ---------------------------------------------------------------------------------------------------- the pipeline, batches


def rows(start: int, stop: int) -> pd.DataFrame:
    return pd.DataFrame({"text": [f"row {number:05d}." for number in range(start, stop)]})


def test_messages_are_appended_to_a_pipeline_in_a_loop_and_saved_in_a_folder(vendors: Loopback, tmp_path: Path) -> None:
    pipeline = llmkit.Pipeline(tmp_path / "saved", model=CHATS["openai"])
    for number in range(30):
        pipeline.append([{"role": "system", "content": "Be brief"}, {"role": "user", "content": f"Say {number}."}])
    pipeline.run(show_progress=False)
    saved = pd.read_parquet(tmp_path / "saved")
    assert saved["chat"].tolist() == [f"answer to: Say {number}." for number in range(30)]
    assert vendors.seen[0].body["messages"][0] == {"role": "system", "content": "Be brief"}


def test_rows_are_asked_in_a_loop_and_kept_in_a_folder_of_ones_own(vendors: Loopback, tmp_path: Path) -> None:
    session = llmkit.Session(cache_dir=tmp_path / "pipeline")
    said: list[str] = []
    for start in (0, 10, 20):
        part = rows(start, start + 10)
        said += part.llm.using(session).chat("Say {text}", system="Be brief", model=CHATS["openai"], show_progress=False).tolist()
    session.close()
    assert said == [f"answer to: Say row {number:05d}." for number in range(30)]
    assert vendors.seen[0].body["messages"][0] == {"role": "system", "content": "Be brief"}
    assert list((tmp_path / "pipeline").iterdir())


def test_what_was_stopped_goes_on_from_the_folder_where_it_was_kept(vendors: Loopback, tmp_path: Path) -> None:
    frame = rows(0, 40)
    first = llmkit.Session(cache_dir=tmp_path)
    vendors.fault("row 00020.", error_of("openai", "bad_key"))
    with pytest.raises(llmkit.KeyRejected):
        frame.llm.using(first).chat("Say {text}", model=CHATS["openai"], show_progress=False, max_concurrency=1)
    first.close()
    kept = vendors.requests - 1

    again = llmkit.Session(cache_dir=tmp_path)
    detail = frame.llm.using(again).chat("Say {text}", model=CHATS["openai"], show_progress=False, detail=True)
    again.close()
    assert detail["value"].tolist() == [f"answer to: Say row {number:05d}." for number in range(40)]
    assert (detail["source"] == "cache").sum() == kept > 0
    assert all(vendors.count(f"row {number:05d}.") == 1 for number in range(40) if number != 20)


def test_a_massive_batch_of_chats_is_one_call(vendors: Loopback) -> None:
    frame = pd.concat([rows(0, 2000), rows(0, 500)])
    said = frame.llm.chat("Say {text}", model=CHATS["openai"], show_progress=False)
    assert said.tolist() == [f"answer to: Say {text}" for text in frame["text"]]
    assert vendors.requests == 2000, "equal rows are asked once"
    assert vendors.max_in_flight <= 64


def test_a_massive_batch_of_embeddings_is_one_call_and_few_requests(vendors: Loopback) -> None:
    frame = rows(0, 5000)
    matrix = frame.llm.embed("text", model=EMBEDS["openai"], show_progress=False).llm.matrix()
    assert matrix.shape == (5000, 8)
    np.testing.assert_array_equal(matrix[4321], vector_of("row 04321."))
    assert vendors.requests <= 50


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_structured_answers_come_by_a_vendors_own_batch_job(vendors: Loopback, provider: str) -> None:
    needs_sdk_of(provider)
    session.default.made = Session(clock=Hurried())  # a night passes at once
    run = rows(0, 20).llm.extract(Review, on="text", model=CHATS[provider], batch=True, show_progress=False)
    reviews = run.result()
    assert list(reviews.columns) == ["mood", "stars"]
    assert reviews["mood"].isin(["good", "bad"]).all() and pd.api.types.is_integer_dtype(reviews["stars"])
    assert vendors.count("row") == 0, "nothing was asked live"
    assert len(vendors.batches.jobs) == 1
    by_hand = llmkit.job(run.id).result()
    pd.testing.assert_frame_equal(by_hand, reviews)


# ----------------------------------------------------------------------------------------- what each provider is wanted for

#: Mode, and what of it can be seen on the wire. Where the vendor is not told the schema, the answer is foretold to it.
MODES = [
    ("openai", "tool_use", "tools"),
    ("openai", "function_calling", "tools"),
    ("openai", "json_mode", "response_format"),
    ("anthropic", "anthropic_tools", "tools"),
    ("anthropic", "anthropic_json", None),
    ("mistral", "mistral_tools", "tools"),
    ("mistral", "function_calling", "tools"),
    ("mistral", "json_mode", "response_format"),
    ("cohere", "cohere_tools", None),
    ("cohere", "json_schema", "response_format"),
    ("groq", "tool_use", "tools"),
    ("groq", "json_mode", "response_format"),
    ("anyscale", "function_calling", "tools"),
    ("anyscale", "json_mode", "response_format"),
]


@pytest.mark.parametrize(("provider", "mode", "member"), MODES)
def test_a_mode_of_the_document_gives_a_structured_answer(
    vendors: Loopback, instructor: Any, provider: str, mode: str, member: str | None
) -> None:
    vendors.answer = None if member == "tools" else lambda body: AS_JSON
    with llmkit.client(CHATS[provider], mode=mode) as client:
        assert client.chat.completions.create(response_model=Review, messages=MESSAGES).model_dump() == EXPECTED
    body = vendors.seen[-1].body
    assert [name for name in ("tools", "response_format") if body.get(name)] == ([member] if member else [])


@pytest.mark.parametrize(("provider", "mode", "_"), MODES)
def test_a_mode_of_the_document_is_listed_for_its_provider(provider: str, mode: str, _: Any) -> None:
    assert mode in modes_of(provider)


@pytest.mark.parametrize("provider", CHATS)
def test_functions_are_called_without_a_client(vendors: Loopback, provider: str) -> None:
    needs_sdk_of(provider)
    calls = llmkit.chat('call:add {"a": 1, "b": 2}', model=CHATS[provider], tools=[add])
    assert calls == [{"name": "add", "arguments": {"a": 1, "b": 2}}]
    assert vendors.seen[-1].body["tools"]


@pytest.mark.parametrize("provider", [name for name in CHATS if name not in ("anthropic", "cohere")])
def test_json_is_asked_for_without_a_client(vendors: Loopback, provider: str) -> None:
    vendors.answer = lambda body: '{"any": "object"}'
    assert llmkit.chat("Some JSON", model=CHATS[provider], response_format="json") == '{"any": "object"}'
    assert vendors.seen[-1].body["response_format"] == {"type": "json_object"}


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_a_model_is_shown_a_picture(vendors: Loopback, provider: str) -> None:
    needs_sdk_of(provider)
    said = llmkit.chat("What is this?", images=PIXEL, model=CHATS[provider])
    assert said == f"answer to: What is this? [1 image: image/png of {len(PIXEL)} bytes]"


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_a_client_shows_a_picture(vendors: Loopback, instructor: Any, provider: str) -> None:
    data = base64.b64encode(PIXEL).decode()
    shown = {
        "openai": {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}},
        "anthropic": {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}},
    }
    message = {"role": "user", "content": [{"type": "text", "text": "What is this?"}, shown[provider]]}
    with llmkit.client(CHATS[provider]) as client:
        assert f"image/png of {len(PIXEL)} bytes" in text_of(client.chat.completions.create(messages=[message]))


@pytest.mark.parametrize("provider", HEARS)
def test_speech_becomes_text(vendors: Loopback, provider: str) -> None:
    said = llmkit.transcribe(SPEECH, model=HEARS[provider])
    assert said == heard_in("recording.wav", len(SPEECH), HEARS[provider].partition("/")[2])
    assert vendors.seen[-1].vendor == provider


def test_text_becomes_speech(vendors: Loopback) -> None:
    spoken = llmkit.speak("hello", voice="alloy", format="wav", model="openai/gpt-4o-mini-tts")
    assert spoken == SPEECH


def test_a_column_becomes_speech_in_a_folder(vendors: Loopback, tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": ["hello", "goodbye"]})
    paths = frame.llm.speak("text", folder=tmp_path, format="wav", voice="alloy", model="openai/gpt-4o-mini-tts", show_progress=False)
    assert Path(paths[0]).read_bytes() == SPEECH


@pytest.mark.parametrize(("provider", "path"), [("voyage", "/voyage/v1/rerank"), ("cohere", "/cohere/v2/rerank")])
def test_the_rows_of_a_frame_are_reranked(vendors: Loopback, provider: str, path: str) -> None:
    needs_sdk_of(provider)
    best = pd.DataFrame({"text": DOCUMENTS}).llm.rerank("late parcel", on="text", top_k=1, model=RERANKS[provider])
    assert best["text"].tolist() == ["late parcel"]
    assert vendors.seen[-1].path == path


def test_coheres_classifier_is_asked_at_its_own_address(vendors: Loopback) -> None:
    needs_sdk_of("cohere")
    shown = [
        ("the invoice is wrong", "billing"),
        ("please refund the invoice", "billing"),
        ("the parcel is late", "delivery"),
        ("no parcel", "delivery"),
    ]
    said = llmkit.classify("where is the parcel", ["billing", "delivery"], by="classifier", examples=shown, model="cohere/my-model-ft")
    assert said == "delivery"
    assert vendors.seen[-1].path == "/cohere/v1/classify"
    assert vendors.seen[-1].body["inputs"] == ["where is the parcel"]


@pytest.mark.parametrize("provider", CHATS)
def test_any_chat_model_classifies(vendors: Loopback, provider: str) -> None:
    needs_sdk_of(provider)
    said = llmkit.classify("it is about delivery", ["billing", "delivery"], model=CHATS[provider])
    assert said == "delivery"


def test_anyscale_is_reached_at_an_address_of_ones_own_and_says_so_without_one(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    keyed(monkeypatch, "anyscale")
    with pytest.raises(llmkit.UnknownModel, match=r"anyscale is retired\. 2024-08-01"):
        llmkit.chat("Hello", model=CHATS["anyscale"])
    llmkit.add_provider("anyscale", server.compat_url_of("anyscale"), api_key=KEY)
    assert llmkit.chat("Hello", model=CHATS["anyscale"]) == "answer to: Hello"
    assert server.seen[-1].headers["authorization"] == f"Bearer {KEY}"
