"""What vendors keep of a prompt, as each documents it; all read on 2026-11-21, the models' minimums as of October 2026.

- Anthropic, https://platform.claude.com/docs/en/build-with-claude/prompt-caching: blocks are marked with ``cache_control``, four at the
  most, in the order tools, system, messages; minimum by model (``_anthropic_least``), shorter is not cached and no error; five minutes from
  the beginning of the request that wrote or read it, renewed by use; "a cache entry only becomes available after the first response
  begins"; writing is billed 1.25 times, reading 0.1 times or less.
- OpenAI, https://developers.openai.com/api/docs/guides/prompt-caching: from 1,024 tokens. Before GPT-5.6 by itself, the longest common
  beginning in steps of 128 tokens, writing free, kept 5 to 10 minutes without use at least. From GPT-5.6 on only up to a breakpoint,
  exactly: ``prompt_cache_breakpoint`` on parts of system and user messages, never of an assistant's; by itself one is set at the end of the
  latest message, which no other row has, unless ``prompt_cache_options.mode`` is "explicit"; kept for 30 minutes at least, writing billed
  1.25 times. ``prompt_cache_key`` sends requests of one prefix to one machine, about 15 a minute; more overflow to others.
- OpenRouter, https://openrouter.ai/docs/guides/best-practices/prompt-caching: Anthropic's models take ``cache_control`` on parts of text;
  most others cache by themselves.
- Mistral, https://docs.mistral.ai/inference/conversations/advanced/prompt-caching: ``prompt_cache_key``; how long is not said.
- Groq, https://console.groq.com/docs/prompt-caching, and DeepSeek, https://api-docs.deepseek.com/guides/kv_cache: by themselves; two hours
  without use, hours to days.

Gemini (implicit, https://ai.google.dev/gemini-api/docs/caching) and xAI (a header for each request,
https://docs.x.ai/developers/advanced-api-usage/prompt-caching) cache by themselves too, but do not say for how long: nothing waits there.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from ..adapter import Kept, Target
from ..operations.chat import Opening
from ..types import Model, Request

__all__ = ["kept", "openings", "parts", "rule_of"]

#: A token of text is at least so many bytes, in nearly every language: a mark on what turns out too short does no harm, a missing one does.
_LEAST_BYTES = 3

#: And hardly ever more than so many: what is longer than this is long enough for certain.
_MOST_BYTES = 5

#: Seconds by which a prefix is given up before its time: a request needs some to arrive.
_ON_THE_WAY = 5.0


@dataclass(frozen=True, slots=True)
class Rule:
    """How one vendor keeps prefixes of one model: from ``least`` tokens on; ``mark`` is what a block gets, ``key`` whether one is sent."""

    least: int
    seconds: float
    renewed: bool = True
    mark: Mapping[str, Any] = field(default_factory=dict)
    key: bool = False
    #: Nothing else of the prompt is to be written into the cache.
    explicit: bool = False


_CACHE_CONTROL = {"cache_control": {"type": "ephemeral"}}
_BREAKPOINT = {"prompt_cache_breakpoint": {"mode": "explicit"}}


def rule_of(target: Target) -> Rule | None:
    """The rule for a target; ``None`` where its provider is not known to keep anything, or not at this address."""
    quirk = target.provider.quirks.get("prompt_cache")
    return None if quirk is None else _rule(quirk, target.model)


@lru_cache(256)
def _rule(quirk: str, model: Model) -> Rule | None:
    if quirk == "anthropic":
        return Rule(_anthropic_least(model.name), 300 - _ON_THE_WAY, mark=_CACHE_CONTROL)
    if quirk == "openai":
        # The models whose writes are billed are those that take breakpoints: GPT-5.6 and later.
        if model.price.cache_write is not None:
            return Rule(1024, 1800 - _ON_THE_WAY, renewed=False, mark=_BREAKPOINT, key=True, explicit=True)
        return Rule(1024, 300 - _ON_THE_WAY, key=True)
    if quirk == "openrouter":
        mine = model.name.startswith("anthropic/")
        return Rule(_anthropic_least(model.name), 300 - _ON_THE_WAY, mark=_CACHE_CONTROL) if mine else None
    if quirk == "mistral":
        return Rule(1024, 0.0, key=True)
    # By themselves, and only some models: those that have a price for it.
    seconds = {"groq": 7200 - _ON_THE_WAY, "deepseek": 3600 - _ON_THE_WAY}.get(quirk)
    return None if seconds is None or model.price.cached_input is None else Rule(1024, seconds)


_4096 = re.compile(r"opus-4[-.][56]|haiku-4[-.]5")
_2048 = re.compile(r"opus-4[-.]7|mythos-preview|3[-.]5-haiku")
_512 = re.compile(r"(?:opus|haiku)-[5-9]|sonnet-5[-.][5-9]|(?:fable|mythos)-\d")


def _anthropic_least(name: str) -> int:
    """The fewest tokens that are cached of this model, "Cache limitations" on the page named above."""
    for least, names in ((4096, _4096), (2048, _2048), (512, _512)):
        if names.search(name):
            return least
    return 1024


def openings(request: Request, rule: Rule, marked: Collection[bytes] | None = None) -> tuple[Opening, ...]:
    """The openings of a request that are long enough, the shortest first; of these digests only, where some are given."""
    found = []
    opening = request.payload.opening
    while opening is not None:
        if opening.size >= _LEAST_BYTES * rule.least and (marked is None or opening.id in marked):
            found.append(opening)
        opening = opening.outer
    return tuple(reversed(found))


def kept(request: Request, target: Target) -> Kept | None:
    """What of a chat request this target's prompt cache would keep."""
    if request.payload.opening is None:
        return None
    rule = rule_of(target)
    long = () if rule is None else openings(request, rule)
    if rule is None or not long:
        return None
    written = bool(rule.mark)
    certain = written and long[0].size >= _MOST_BYTES * rule.least
    return Kept(tuple((opening.id, opening.size) for opening in long), rule.seconds, rule.renewed, written, certain)


def parts(text: str, cuts: Sequence[int], mark: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A text in blocks that end at these places, each marked, and what remains. No block is blank, which is refused; it joins the next."""
    blocks: list[dict[str, Any]] = []
    start = 0
    for cut in cuts:
        if text[start:cut].strip() and text[cut:].strip():
            blocks.append({"type": "text", "text": text[start:cut], **mark})
            start = cut
    blocks.append({"type": "text", "text": text[start:]})
    return blocks
