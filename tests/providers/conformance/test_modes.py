"""The page's modes: each is carried out by a client of instructor over the vendor's own SDK, beside the openai that fits with it."""

from __future__ import annotations

import json

import pytest
from pydantic import BaseModel

import llmkit
from llmkit import clients
from llmkit.clients import modes_of
from tests.loopback import Loopback

from .house import AWAY, model_of, move, page

pytest.importorskip("instructor")

MODES = [(name, mode) for name in AWAY if page.modes(name) != page.NO for mode in page.modes(name).split(", ")]


class Wanted(BaseModel):
    first: str
    second: int


def said_in_words(name: str, mode: str) -> bool:
    shaping = clients.MODES.get(name, clients.MODES["*"])[mode]
    calls_tools = page.providers()[name].protocol != "cohere"  # instructor's tools of Cohere's are words
    return not shaping.enforced and shaping.member not in ("JSON_SCHEMA", *(["TOOLS"] if calls_tools else []))


@pytest.mark.parametrize(("name", "mode"), MODES)
def test_a_mode_brings_the_form_that_was_asked_for(server: Loopback, name: str, mode: str) -> None:
    move(name, server)
    in_words = said_in_words(name, mode)
    if in_words:  # a server has no sense for them: that they were said is seen below
        server.answer = lambda body: '{"first": "seven", "second": 7}'
    with llmkit.client(model_of(name, "chat"), mode=mode) as client:
        made = client.chat.completions.create(response_model=Wanted, messages=[{"role": "user", "content": "seven is 7"}])
    assert isinstance(made, Wanted)
    assert made.second == 7
    (request,) = server.seen
    form = json.dumps({part: request.body.get(part) for part in ("tools", "response_format", "output_config")})
    assert ('"second"' in form) is not in_words, "the vendor was given the form, unless it has no word for one"
    assert "second" in json.dumps(request.body)


@pytest.mark.parametrize("name", sorted({name for name, _ in MODES}))
def test_a_mode_that_a_vendor_has_not_is_refused_before_anything_is_sent(server: Loopback, name: str) -> None:
    move(name, server)
    with pytest.raises(llmkit.ConfigError, match=modes_of(name)[0]):
        llmkit.client(model_of(name, "chat"), mode="no_such_mode")
    assert server.seen == []
