"""The official openai SDK: where it would send a request, its own client, and a client that a caller hands in."""

from __future__ import annotations

from typing import Any

from ..adapter import Codec, RequestTemplate, Target
from . import stainless

__all__ = ["client", "connect", "send"]


def connect(target: Target) -> RequestTemplate:
    """Let the official SDK make one request over a transport that records it, and keep where it would have gone."""
    import openai

    sent = stainless.recorded(lambda http_client: _sdk(openai.OpenAI, target, http_client=http_client), target.codec.path)
    unwanted = stainless.NOT_OURS if target.secret else stainless.NOT_OURS | {"authorization"}
    headers = {name: value for name, value in sent.headers.items() if name.lower() not in unwanted}
    return RequestTemplate(url=str(sent.url), headers=headers)


def client(target: Target, is_async: bool) -> Any:
    """The official SDK's client for this target, retries off."""
    import openai

    return _sdk(openai.AsyncOpenAI if is_async else openai.OpenAI, target)


def send(foreign: Any, codec: Codec, body: bytes) -> Any:
    """Have a caller's own client post a body: ``OpenAI``, ``AzureOpenAI``, ... or their async twins."""
    import openai

    return stainless.post(openai, foreign, codec.path, body)


def _sdk(kind: Any, target: Target, **given: Any) -> Any:
    """A client of the SDK that sends our key, and to other addresses nothing that the environment has for OpenAI."""
    import openai

    made = kind(api_key=target.secret.reveal() if target.secret else "none", base_url=target.provider.base_url, max_retries=0, **given)
    if target.provider.name == "openai":
        return made
    # The SDK adds OPENAI_ORG_ID, OPENAI_PROJECT_ID and OPENAI_CUSTOM_HEADERS whatever the address; they are OpenAI's business only.
    made.organization = made.project = None
    kept = {"authorization", "accept", "content-type", "user-agent"}
    others = [name for name in made.default_headers if name.lower() not in kept and not name.lower().startswith("x-stainless-")]
    return made.with_options(default_headers=dict.fromkeys(others, openai.omit)) if others else made
