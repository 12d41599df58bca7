"""What a wire is handed: the request, whose it is, and the server's settings."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

import orjson

from .answers import Seen, Status
from .content import Question, Said, reply, tokens, vector_of
from .errors.shared import Voice

if TYPE_CHECKING:
    from .server import Loopback


@dataclass(frozen=True)
class Dialect:
    """What a vendor does differently in OpenAI's format.

    Parameters
    ----------
    absent
        The paths that it does not have.
    members, unknown_member
        What a body may hold, by path, and the refusal of anything else; a path that is not named takes all.
    unsupported
        Members that it knows and refuses.
    no_max_tokens
        The refusal of max_tokens by reasoning models.
    most_texts, too_many_texts
        Of one embeddings request; without a refusal of its own, the one for any bad input.
    refusal
        The finish_reason of an answer that says no; with `refusal_member`, the words are in a member of their own.
    usage_in_last_chunk
        Of a stream, where OpenAI sends a chunk without choices: always, or when usage is asked for.
    whole_calls
        Whether a stream has each tool call in one piece.
    usage, model
        Further members of a usage, of a listed model.
    """

    absent: frozenset[str] = frozenset()
    members: Mapping[str, frozenset[str]] = field(default_factory=dict)
    unknown_member: Callable[[str], Status] | None = None
    unsupported: tuple[str, ...] = ()
    no_max_tokens: Status | None = None
    strict_schemas: bool = False
    json_word: bool = False  # whether a prompt that asks for any JSON has to say so
    most_texts: int = 2048
    too_many_texts: Status | None = None
    refusal: str = "stop"
    refusal_member: bool = False
    usage_in_last_chunk: Literal["always", "asked"] | None = None
    whole_calls: bool = False
    short_call_ids: bool = False
    x_groq: bool = False
    embeddings_id: bool = False
    audio: Literal["openai", "mistral"] = "openai"
    speech: str = "mp3"
    usage: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Vendor:
    """One address below the server, and who answers there.

    Parameters
    ----------
    root
        The path that is the vendor's own host in real life.
    keyless
        Whether a request without a credential is served, as local servers do.
    request_id
        The header of a response that names its request.
    """

    name: str
    root: str
    wire: Wire
    voice: Voice
    keyless: bool = False
    dialect: Dialect = field(default_factory=Dialect)
    request_id: str = "x-request-id"


@dataclass(frozen=True)
class Serving:
    """One request to be answered."""

    server: Loopback
    vendor: Vendor
    request: Seen
    path: str  # below the vendor's root
    said: Said | None = None  # the words to say, if a fault chose them

    @property
    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = self.request.body
        return body

    def say(self, question: Question) -> Said:
        """The answer with its usage, the knobs of the server seen to."""
        server = self.server
        if self.said is not None:
            said = self.said
        elif server.answer is not None:
            said = Said(server.answer(self.body))
        else:
            said = reply(question)
        answered = tokens(said.text, *(orjson.dumps(call.arguments).decode() for call in said.calls))
        asked = tokens(*(message.text for message in question.messages))
        if server.prompt_cache is not None and self.said is None:
            bill = server.prompt_cache.bill(self.vendor.name, self.request)
            return replace(said, asked=bill.fresh, answered=answered, cached=bill.read, written=bill.written)
        return replace(said, asked=asked, answered=answered, cached=server.cached_tokens, written=server.cache_write_tokens)

    def embedded(self, texts: Iterable[str], dimensions: int | None, *, indexed: bool = True) -> list[dict[str, Any]]:
        """Items of index and vector, spoilt and, where the wire sends the index along, shuffled on order."""
        server = self.server
        size = dimensions or server.dimensions
        items: list[Any] = [{"object": "embedding", "index": at, "embedding": vector_of(text, size)} for at, text in enumerate(texts)]
        if server.shuffle_embeddings and indexed:
            items = items[1::2] + items[::2]
        return items if server.corrupt_embeddings is None else server.corrupt_embeddings(items)


Handler = Callable[[Serving], Status]


class Wire(Protocol):
    """A wire format; a module of `wires` is one."""

    ROUTES: Mapping[tuple[str, str], Handler]  # method and pattern of the path below the vendor's root

    def credential(self, headers: Mapping[str, str]) -> str | None: ...


def bearer(headers: Mapping[str, str]) -> str | None:
    """The key of ``Authorization: Bearer ...``."""
    kind, _, key = headers.get("authorization", "").partition(" ")
    return key if kind.lower() == "bearer" and key else None


def pieces(text: str, size: int = 8) -> list[str]:
    """A text in the pieces of a stream."""
    return [text[at : at + size] for at in range(0, len(text), size)]


def identifier(serving: Serving, length: int = 24) -> str:
    """Letters that look like a vendor's id, the same for the same request."""
    return f"{random.Random(serving.request.number).getrandbits(4 * length):0{length}x}"
