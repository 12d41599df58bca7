"""How what requests share is marked, vendor by vendor; the bodies themselves, no network."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

import llmkit
from llmkit.adapter import Target
from llmkit.catalogue.lookup import Catalogue
from llmkit.operations.chat import ChatPayload, Message, Opening, Schema, Text, Tool, opening_of
from llmkit.picking import adapter_for
from llmkit.providers.prompt_cache import kept, parts, rule_of
from llmkit.session import default
from llmkit.settings import Settings
from llmkit.types import Model, Price, Request
from tests.loopback import Loopback

SHIPPED = Catalogue()
LONG = "The rules of the house are these. " * 480
MARK = {"cache_control": {"type": "ephemeral"}}
POINT = {"prompt_cache_breakpoint": {"mode": "explicit"}}
TOOL = Tool("look_up", "Look it up. " * 2000, {"type": "object", "properties": {}})


def target(provider: str, model: str, price: Price | None = None, **quirks: Any) -> Target:
    row = SHIPPED.provider(provider)
    assert row is not None
    adapter = adapter_for(row.protocol)
    known = Model(provider, model, price=price or Price())
    return Target(known, replace(row, quirks={**row.quirks, **quirks}), adapter, adapter.codecs["chat"])


CLAUDE, GPT5, GPT56 = (
    target("anthropic", "claude-sonnet-5"),
    target("openai", "gpt-5-mini", Price(0.25, 0.025, 2.0)),
    target("openai", "gpt-5.6", Price(4.0, 0.4, 16.0, 5.0)),
)


def asking(*before: Message, own: str = "Say a", lead: str = "", outer: Opening | None = None, **more: Any) -> Request:
    """A row's request after these messages; its own message begins with ``lead``, like those of other rows."""
    opening = opening_of(before, lead, outer=outer, **{name: value for name, value in more.items() if name in ("tools", "schema")})
    return Request("chat", ChatPayload((*before, Message("user", lead + own)), opening=opening, **more))


def marked(request: Request, to: Target) -> dict[str, Any]:
    found = kept(request, to)
    assert found is not None and to.codec.mark is not None
    body: dict[str, Any] = orjson.loads(to.codec.mark(request, to, [digest for digest, _ in found.levels]))
    return body


def plain(request: Request, to: Target) -> dict[str, Any]:
    body: dict[str, Any] = orjson.loads(to.codec.encode((request,), to))
    return body


def block(text: str, mark: dict[str, Any]) -> dict[str, Any]:
    return {"type": "text", "text": text, **mark}


SYSTEM = Message("system", LONG)
SHOWN = (Message("user", "I want my money back"), Message("assistant", "billing"))


# --------------------------------------------------------------------------------------------------------------- anthropic


def test_anthropics_system_prompt_becomes_a_marked_block() -> None:
    body = marked(asking(SYSTEM), CLAUDE)
    assert body["system"] == [block(LONG, MARK)]
    assert body["messages"] == [{"role": "user", "content": "Say a"}]


def test_the_mark_stands_after_the_last_example() -> None:
    body = marked(asking(SYSTEM, *SHOWN), CLAUDE)
    assert body["system"] == LONG
    assert body["messages"][1] == {"role": "assistant", "content": [block("billing", MARK)]}


def test_instructions_in_the_template_are_a_block_of_their_own() -> None:
    body = marked(asking(own="Say a", lead=LONG + "\n"), CLAUDE)
    assert body["messages"] == [{"role": "user", "content": [block(LONG + "\n", MARK), block("Say a", {})]}]


def test_tools_alone_are_marked_at_the_last_of_them() -> None:
    short = Tool("add", "Add.", {"type": "object", "properties": {}})
    tools = marked(asking(tools=(TOOL, short)), CLAUDE)["tools"]
    assert ["cache_control" in tool for tool in tools] == [False, True]


def test_what_all_rows_share_and_what_some_do_have_a_mark_each() -> None:
    outer = opening_of((SYSTEM,))
    body = marked(asking(SYSTEM, lead=LONG + "\n\n", own="Question", outer=outer), CLAUDE)
    assert body["system"] == [block(LONG, MARK)]
    assert body["messages"][0]["content"] == [block(LONG + "\n\n", MARK), block("Question", {})]


def test_a_mark_that_is_not_asked_for_is_not_set() -> None:
    request = asking(SYSTEM, lead=LONG + "\n\n", own="Question", outer=opening_of((SYSTEM,)))
    found = kept(request, CLAUDE)
    assert found is not None and CLAUDE.codec.mark is not None
    body = orjson.loads(CLAUDE.codec.mark(request, CLAUDE, [found.levels[0][0]]))
    assert body["system"] == [block(LONG, MARK)]
    assert body["messages"][0]["content"] == LONG + "\n\nQuestion"


def test_a_later_round_of_the_same_row_has_the_same_marks() -> None:
    first = asking(SYSTEM, *SHOWN)
    later = replace(first.payload, messages=(*first.payload.messages, Message("assistant", (Text("Hm"),)), Message("user", "Again")))
    body = marked(Request("chat", later), CLAUDE)
    assert body["messages"][1]["content"] == [block("billing", MARK)]
    assert [message["content"] for message in body["messages"][3:]] == [[block("Hm", {})], "Again"]


@pytest.mark.parametrize(
    ("model", "least"),
    [
        ("claude-opus-5", 512),
        ("claude-opus-5-5", 512),
        ("claude-sonnet-5-5", 512),
        ("claude-haiku-5-5", 512),
        ("claude-fable-5-1", 512),
        ("claude-mythos-5", 512),
        ("claude-sonnet-5", 1024),
        ("claude-sonnet-5-20260701", 1024),
        ("claude-opus-4-8", 1024),
        ("claude-sonnet-4-6", 1024),
        ("claude-opus-4-1", 1024),
        ("claude-opus-4-7-20260416", 2048),
        ("claude-mythos-preview", 2048),
        ("claude-3-5-haiku-20241022", 2048),
        ("claude-opus-4-6", 4096),
        ("claude-opus-4-5-20251101", 4096),
        ("claude-haiku-4-5-20251001", 4096),
        ("anthropic.claude-haiku-4.5", 4096),
    ],
)
def test_each_model_has_its_documented_minimum(model: str, least: int) -> None:
    rule = rule_of(target("anthropic", model))
    assert rule is not None and rule.least == least
    enough, little = ("x" * (3 * least - 100 * way) for way in (-1, 1))
    assert kept(asking(Message("system", enough)), target("anthropic", model)) is not None
    assert kept(asking(Message("system", little)), target("anthropic", model)) is None


# ------------------------------------------------------------------------------------------------------------------ openai


def test_openais_older_models_get_a_key_and_nothing_else() -> None:
    request = asking(SYSTEM, *SHOWN)
    body = marked(request, GPT5)
    key = body.pop("prompt_cache_key")
    assert body == plain(request, GPT5)
    assert key == marked(asking(SYSTEM, *SHOWN, own="Say b"), GPT5)["prompt_cache_key"]
    assert key != marked(asking(Message("system", LONG + "!")), GPT5)["prompt_cache_key"]
    assert len(key) <= 64 and "rules" not in key


def test_openais_newer_models_get_breakpoints_and_write_nothing_else() -> None:
    body = marked(asking(SYSTEM), GPT56)
    assert body["messages"][0] == {"role": "system", "content": [block(LONG, POINT)]}
    assert body["prompt_cache_options"] == {"mode": "explicit"}
    assert "prompt_cache_key" in body


def test_what_an_assistant_said_takes_no_breakpoint() -> None:
    messages = marked(asking(SYSTEM, *SHOWN), GPT56)["messages"]
    assert [message["content"] for message in messages[1:3]] == [[block("I want my money back", POINT)], "billing"]


def test_words_about_the_form_of_the_answer_do_not_move_the_breakpoint() -> None:
    messages = marked(asking(lead=LONG + "\n", schema=Schema("answer", None)), GPT56)["messages"]
    assert messages[0]["role"] == "system"
    assert messages[1]["content"] == [block(LONG + "\n", POINT), block("Say a", {})]


@pytest.mark.parametrize("to", [CLAUDE, GPT5, GPT56], ids=["claude", "gpt-5", "gpt-5.6"])
def test_what_is_encoded_without_marks_does_not_know_of_them(to: Target) -> None:
    request = asking(SYSTEM, *SHOWN)
    bare = Request("chat", replace(request.payload, opening=None))
    assert to.codec.encode((request,), to) == to.codec.encode((bare,), to)


# ------------------------------------------------------------------------------------------------------------------ others


def test_openrouters_claude_is_marked_anthropics_way_and_its_others_are_not_touched() -> None:
    assert marked(asking(SYSTEM), target("openrouter", "anthropic/claude-sonnet-5"))["messages"][0]["content"] == [block(LONG, MARK)]
    assert kept(asking(SYSTEM), target("openrouter", "deepseek/deepseek-chat")) is None


def test_mistral_gets_the_key_and_nobody_waits() -> None:
    request, to = asking(SYSTEM), target("mistral", "mistral-small-latest")
    body = marked(request, to)
    assert body.pop("prompt_cache_key") and body == plain(request, to)
    found = kept(request, to)
    assert found is not None and found.seconds == 0.0


@pytest.mark.parametrize("name", ["groq", "deepseek"])
def test_who_caches_by_himself_is_sent_nothing_new_and_one_row_goes_ahead(name: str) -> None:
    request, to = asking(SYSTEM), target(name, "m", Price(1.0, 0.5, 1.0))
    assert marked(request, to) == plain(request, to)
    found = kept(request, to)
    assert found is not None and found.seconds > 3000
    assert kept(request, target(name, "m", Price(1.0, None, 1.0))) is None  # no price for it, no cache


def test_deepseeks_own_count_of_what_it_read_from_its_cache_is_read() -> None:
    counts = {"prompt_tokens": 2872, "completion_tokens": 3, "total_tokens": 2875, "prompt_cache_hit_tokens": 2816}
    body = {"choices": [{"message": {"content": "Hm"}, "finish_reason": "stop"}], "usage": counts}
    (reply,) = target("deepseek", "m").codec.decode(orjson.dumps(body), [asking()])
    assert reply.usage is not None and (reply.usage.input, reply.usage.cached_input) == (2872, 2816)


@pytest.mark.parametrize("name", ["gemini", "xai", "together", "vllm", "ollama", "cerebras"])
def test_nothing_is_taken_for_granted_of_others(name: str) -> None:
    assert kept(asking(SYSTEM), target(name, "m", Price(1.0, 0.5, 1.0))) is None


def test_another_address_gets_no_marks_and_one_that_is_said_to_follow_a_vendor_does(server: Loopback) -> None:
    row = SHIPPED.provider("anthropic")
    assert row is not None
    moved = Settings({"ANTHROPIC_BASE_URL": "http://127.0.0.1:1"}).addressed(row)
    assert "prompt_cache" in row.quirks and "prompt_cache" not in moved.quirks
    llmkit.add_provider("gate", server.url_of("anthropic"), "key", "anthropic", prompt_cache="anthropic")
    assert kept(asking(SYSTEM), default().target("gate/claude-sonnet-5", "chat")) is not None
    with pytest.raises(llmkit.ConfigError, match="prompt_cache is one of"):
        llmkit.add_provider("gate", server.url, "key", prompt_cache="claude")


# -------------------------------------------------------------------------------------------------------------- the cutting


def test_no_block_is_blank() -> None:
    assert parts("a \n b", [2, 4], MARK) == [block("a ", MARK), block("\n b", {})]
    assert parts("abc\n", [3], MARK) == [block("abc\n", {})]
    assert parts("abc", [1, 2], MARK) == [block("a", MARK), block("b", MARK), block("c", {})]


def test_a_block_ends_with_a_line_where_one_ends_near() -> None:
    near = opening_of((), LONG + "\nAbout:\n\nThe text is ")
    assert near is not None and near.letters == len(LONG + "\nAbout:\n\n")
    far = opening_of((), "Begin\n" + LONG)
    assert far is not None and far.letters == len("Begin\n" + LONG)


def test_calls_that_differ_in_a_few_last_words_share_the_rest() -> None:
    assert opening_of((SYSTEM,), "Say ") == opening_of((SYSTEM,), "Tell me of ") == opening_of((SYSTEM,))


def test_what_is_too_short_for_every_vendor_is_no_opening() -> None:
    assert opening_of((Message("system", "Be brief."),), "Say ") is None


def test_half_characters_do_no_harm() -> None:
    assert opening_of((Message("system", LONG + "\ud83d"),)) is not None
