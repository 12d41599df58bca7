"""A vendor's cache of prompts, and what it bills: as Anthropic and OpenAI document it, by the text that really arrived.

Tokens are a quarter of the characters, as everywhere here. Both rules were read on 2026-11-21 (llmkit/providers/prompt_cache.py has the
links). An entry is readable once the answer to the request that wrote it has begun, so requests that come together all write it.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from .answers import Seen

_STEP, _OPENAI_LEAST = 128, 1024
_BY_BREAKPOINT = re.compile(r"gpt-5\.[6-9]|gpt-[6-9]")


class Bill(NamedTuple):
    """Tokens of one prompt: read afresh, from the cache, written into it. They add up to all of it."""

    fresh: int
    read: int
    written: int


@dataclass(slots=True)
class _Entry:
    until: float
    writer: Seen

    def readable(self, now: float) -> bool:
        return self.writer.answered_at is not None and now < self.until


class _Block(NamedTuple):
    text: str
    marked: bool


class PromptCache:
    """What a vendor keeps, and the account of it.

    Parameters
    ----------
    clock
        Seconds; only the lifetime goes by it.
    least
        Tokens of the shortest prefix that Anthropic keeps of this model.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, least: int = 1024) -> None:
        self.clock = clock
        self.least = least
        self.writes: Counter[str] = Counter()  # by the digest of a prefix: how often it was written
        self.bills: list[Bill] = []
        self._entries: dict[str, _Entry] = {}

    def bill(self, vendor: str, request: Seen) -> Bill:
        body = request.body
        if vendor == "anthropic":
            bill = self._by_marks(request, _anthropic_blocks(body), self.least, 300.0, renewed=True)
        elif _BY_BREAKPOINT.match(body["model"]):
            bill = self._by_marks(request, _openai_blocks(body), _OPENAI_LEAST, 1800.0, renewed=False)
        else:
            bill = self._longest_beginning(request, _openai_blocks(body))
        self.bills.append(bill)
        return bill

    def _by_marks(self, request: Seen, blocks: list[_Block], least: int, seconds: float, *, renewed: bool) -> Bill:
        """Prefixes end at marks: the longest that is kept is read, what is marked beyond it is written."""
        now, texts = self.clock(), [block.text for block in blocks]
        marks = [place for place, block in enumerate(blocks, 1) if block.marked]
        if len(marks) > 4:
            raise ValueError("A maximum of 4 blocks with a mark may be provided")
        total, read, written = _tokens(texts), 0, 0
        for place in marks:
            size = _tokens(texts[:place])
            if size < least:
                continue
            digest = _digest(request.body["model"], texts[:place])
            entry = self._entries.get(digest)
            if entry is not None and entry.readable(now):
                read = size
                if renewed:
                    entry.until = now + seconds
            else:
                written = size
                self.writes[digest] += 1
                # Two that write together: it can be read once either is answered.
                if entry is None or entry.writer.answered_at is None or now >= entry.until:
                    self._entries[digest] = _Entry(now + seconds, request)
        written = max(0, written - read)
        return Bill(total - read - written, read, written)

    def _longest_beginning(self, request: Seen, blocks: list[_Block]) -> Bill:
        """Whatever was begun so before, from 1,024 tokens in steps of 128; another key is another machine."""
        now, text = self.clock(), "".join(block.text for block in blocks)
        total, read = max(1, len(text) // 4), 0
        where = f"{request.body['model']} {request.body.get('prompt_cache_key')}"
        for size in range(_OPENAI_LEAST, total + 1, _STEP):
            digest = _digest(where, [text[: 4 * size]])
            entry = self._entries.get(digest)
            if entry is not None and entry.readable(now):
                read, entry.until = size, now + 300.0
            elif entry is None or entry.writer.answered_at is None or now >= entry.until:
                self._entries[digest] = _Entry(now + 300.0, request)
                self.writes[digest] += 1
        return Bill(total - read, read, 0)


def _tokens(texts: Iterable[str]) -> int:
    return max(1, sum(map(len, texts)) // 4)


def _digest(where: str, texts: list[str]) -> str:
    # Not where one block ends and the next begins, but what they say.
    return hashlib.blake2b("\0".join([where, "".join(texts)]).encode(), digest_size=12).hexdigest()


def _anthropic_blocks(body: dict[str, Any]) -> list[_Block]:
    """Tools, then the system prompt, then messages."""
    blocks = [_Block(_json(tool), "cache_control" in tool) for tool in body.get("tools") or ()]
    blocks += _parts(body.get("system") or [], "cache_control")
    for message in body["messages"]:
        blocks += _parts(message["content"], "cache_control")
    return blocks


def _openai_blocks(body: dict[str, Any]) -> list[_Block]:
    blocks = (
        [_Block(_json([body.get("tools"), body.get("response_format")]), False)] if "tools" in body or "response_format" in body else []
    )
    for message in body["messages"]:
        parts = _parts(message["content"] or [], "prompt_cache_breakpoint")
        if message["role"] == "assistant" and any(part.marked for part in parts):
            raise ValueError("prompt_cache_breakpoint is not supported on assistant content")
        blocks += parts
    if (body.get("prompt_cache_options") or {}).get("mode") != "explicit":
        blocks[-1] = blocks[-1]._replace(marked=True)
    return blocks


def _parts(content: Any, mark: str) -> list[_Block]:
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return [_Block(part["text"] if part.get("type") == "text" else _json(part), mark in part) for part in parts]


def _json(value: Any) -> str:
    if isinstance(value, dict):
        value = {name: inner for name, inner in value.items() if name not in ("cache_control", "prompt_cache_breakpoint")}
    return orjson.dumps(value).decode()
