"""Write docs/providers.md from what the code declares: rows of the catalogue, codecs of the adapters, quirks.

    python scripts/providers_page.py            # or: make providers

No cell is filled in by hand. What a row or a codec states is read; what only the code of a wire knows (whether it writes tools, pictures
and schemas, which counts of a bill it reads) is found out by having it write a request and read an answer. tests/providers/conformance
proves the page cell by cell over real sockets, and that the committed page is the one this script makes.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import orjson

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import llmkit
from llmkit.adapter import Adapter, Codec, Target
from llmkit.catalogue import BUILT_IN
from llmkit.catalogue.lookup import Catalogue
from llmkit.clients import modes_of
from llmkit.errors import LLMError
from llmkit.operations.chat import ChatPayload, Image, Message, Schema, Text, Tool
from llmkit.picking import adapter_for
from llmkit.types import Model, Provider, Request, Usage

PAGE = Path(__file__).resolve().parents[1] / "docs" / "providers.md"

NO = "-"
YES = "yes"
AS_SERVED = "as served"
AT_YOUR_OWN = "at your own address"

#: Columns that are one operation of the wire each, and their headings.
OPERATIONS = {
    "chat": "chat",
    "embed": "embed",
    "embed_images": "embed pictures",
    "rerank": "rerank",
    "transcribe": "speech to text",
    "speak": "text to speech",
}


@cache
def providers() -> dict[str, Provider]:
    """Every provider by its name: the rows as llmkit ships them, and what is built in."""
    shipped = Catalogue()
    found = {name: shipped.provider(name) or _built_in(name) for name in shipped.provider_names()}
    return dict(sorted(found.items(), key=lambda item: (item[1].status == "retired", item[0] in BUILT_IN, item[0])))


def _built_in(name: str) -> Provider:
    provider: Provider = importlib.import_module(f"llmkit.providers.{name}").PROVIDER
    return provider


def adapter(name: str) -> Adapter:
    return adapter_for(providers()[name].protocol)


def served(name: str, operation: str) -> str:
    """Whether an operation can be asked there: it takes a codec of the wire and the row's word."""
    provider = providers()[name]
    if operation not in adapter(name).codecs:
        return NO
    if provider.status == "retired":
        return AT_YOUR_OWN if provider.base_url_env else NO
    if name in BUILT_IN:
        return YES
    if not provider.operations:
        return AS_SERVED
    if operation not in provider.operations:
        return NO
    return YES if provider.status == "alive" else provider.status


def cells(name: str) -> dict[str, str]:
    """One provider's row of the first table."""
    chat = served(name, "chat")
    row = {heading: served(name, operation) for operation, heading in OPERATIONS.items()}
    row["streaming"] = chat if chat == NO else _streaming(adapter(name), chat)
    row["tools"] = _known(name, chat, "tools") if chat != NO and _writes_tools(name) else NO
    row["vision"] = NO if chat == NO else _vision(name, _known(name, chat, "vision"))
    row["structured"] = NO if chat == NO else _structured(name)
    row["classify"] = _classify(name)
    row["usage"] = _usage(name)
    row["texts a request"] = _most_texts(name)
    return row


def _known(name: str, chat: str, capability: str) -> str:
    """``yes`` where the vendor has a model with this capability; where none is known, its models decide."""
    if chat != YES or name in BUILT_IN:
        return chat
    return YES if any(model.provider == name and capability in model.capabilities for model in Catalogue().models()) else AS_SERVED


# --------------------------------------------------------------------------------------- what only the code of a wire knows


def _target(name: str, operation: str) -> Target:
    model = Model(name, "a-model", (operation,))
    return Target(model, replace(providers()[name], base_url="http://127.0.0.1/v1"), adapter(name), adapter(name).codecs[operation])


def _written(name: str, payload: ChatPayload) -> str | None:
    """The body of a chat request, ``None`` where it is refused before it is written."""
    target = _target(name, "chat")
    try:
        return target.codec.encode((Request("chat", payload),), target).decode()
    except LLMError:
        return None


def _streaming(wire: Adapter, chat: str) -> str:
    if wire.codecs["chat"].delta is not None:
        return chat
    return "in one piece" if wire.answer is not None else NO


def _writes_tools(name: str) -> bool:
    tool = Tool("a_tool_of_this_name", "", {"type": "object", "properties": {}})
    return tool.name in (_written(name, ChatPayload((Message("user", "-"),), tools=(tool,))) or "")


def _vision(name: str, chat: str) -> str:
    def shown(picture: Image) -> bool:
        return _written(name, ChatPayload((Message("user", (picture, Text("-"))),))) is not None

    if not shown(Image("image/png", b"-")):
        return NO
    return chat if shown(Image(url="https://example.org/a.png")) else f"{chat}, files only"


_SCHEMA = {
    "type": "object",
    "properties": {"of_this_name": {"type": "string"}},
    "required": ["of_this_name"],
    "additionalProperties": False,
}


def _structured(name: str) -> str:
    """How a schema travels, by the word that the body has for it."""
    text = _written(name, ChatPayload((Message("user", "-"),), schema=Schema("answer", _SCHEMA)))
    if text is None or "of_this_name" not in text:
        return NO
    body = orjson.loads(text)
    # Said in words beside a promise of some JSON; else in whichever member it stands, whatever is said beside it.
    if body.get("response_format") == {"type": "json_object"}:
        return "json_object"
    return next(word for word in ("json_schema", "json_object", "tools") if word in text)


def modes(name: str) -> str:
    """The names that ``mode=`` takes at ``llmkit.client``, best first; what is built in has no client."""
    if name in BUILT_IN or served(name, "chat") == NO:
        return NO
    return ", ".join(modes_of(name))


def _classify(name: str) -> str:
    """The ways in the order in which ``df.llm.classify`` tries them."""
    ways = [
        way for way, operation in (("its own", "classify"), ("by chat", "chat"), ("by embedding", "embed")) if served(name, operation) != NO
    ]
    return ", or ".join(ways[: 2 if ways[:1] == ["its own"] else 1]) or NO


#: An answer that holds every word which some vendor has for its bill.
_BILL = {
    "choices": [{"message": {"content": "-"}, "finish_reason": "stop"}],
    "content": [{"type": "text", "text": "-"}],
    "message": {"content": [{"type": "text", "text": "-"}]},
    "data": [{"index": 0, "embedding": [1.0, 0.0]}],
    "embeddings": {"float": [[1.0, 0.0]]},
    "usage": {
        "prompt_tokens": 64,
        "prompt_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 4},
        "completion_tokens": 8,
        "input_tokens": 64,
        "cache_read_input_tokens": 2,
        "cache_creation_input_tokens": 4,
        "output_tokens": 8,
        "billed_units": {"input_tokens": 64, "output_tokens": 8},
        "cached_tokens": 2,
        "total_tokens": 64,
    },
    "meta": {"billed_units": {"input_tokens": 64}},
}


def _usage(name: str) -> str:
    """Which tokens the wire reads from a bill of its first operation."""
    if adapter(name).answer is not None:
        return "free"
    operation = next((one for one in ("chat", "embed") if served(name, one) != NO), None)
    if operation is None:
        return NO
    codec: Codec = adapter(name).codecs[operation]
    payload: Any = ChatPayload((Message("user", "-"),)) if operation == "chat" else "-"
    (reply,) = codec.decode(orjson.dumps(_BILL), (Request(operation, payload),))
    counted = [word for word in Usage._fields if getattr(reply.usage, word) and word not in ("requests", "unreported")]
    return ", ".join(word.replace("_", " ") for word in counted)


def _most_texts(name: str) -> str:
    if served(name, "embed") == NO:
        return NO
    target = _target(name, "embed")
    return str(target.codec.batch_size(target)[0])


# --------------------------------------------------------------------------------------------------------------- the page


@cache
def _package(protocol: str) -> str:
    """The package that the clients of a wire come from."""
    name = next(name for name, provider in providers().items() if provider.protocol == protocol)
    make = adapter(name).client
    if make is None:
        return "built in"
    operation = next(iter(adapter(name).codecs))
    return type(make(_target(name, operation), False)).__module__.partition(".")[0]


HEADINGS = (
    "chat", "streaming", "tools", "vision", "structured", "modes", "embed", "embed pictures", "texts a request", "rerank", "classify",
    "speech to text", "text to speech", "usage",
)  # fmt: skip


def _table(headings: list[str], rows: list[list[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _code(words: Any) -> str:
    return ", ".join(f"`{word}`" for word in words) or NO


def page() -> str:
    """The whole page."""
    rows = {name: {**cells(name), "modes": modes(name)} for name in providers()}
    asked = _table(["provider", *HEADINGS], [[f"`{name}`", *(row[heading] for heading in HEADINGS)] for name, row in rows.items()])
    reached = _table(
        ["provider", "through", "base URL", "moved by", "key in", "status"],
        [
            [
                f"`{name}`",
                _package(row.protocol),
                f"`{row.base_url}`" if row.base_url else NO,
                _code(row.base_url_env),
                _key(row),
                _status(row),
            ]
            for name, row in providers().items()
        ],
    )
    return _TEXT.replace("[asked]", asked).replace("[reached]", reached)


def _key(provider: Provider) -> str:
    if provider.name in BUILT_IN:
        return "none needed"
    return _code(provider.key_env) + (" (optional)" if provider.key_optional else "")


def _status(provider: Provider) -> str:
    return provider.retired if provider.status == "retired" else provider.status


_TEXT = f"""# Providers

Written by `make providers` from the catalogue's rows and the adapters' code; do not edit it. `tests/providers/conformance` proves every
cell over real sockets: what is said to work is carried out, and what is `{NO}` is refused before anything is sent.

## What can be asked

[asked]

- `{YES}`: the vendor serves it, and llmkit writes it. Whether one certain model does is in `llmkit.models()`.
- `{AS_SERVED}`: llmkit writes it, and the server decides: it is your own, or no model of the vendor is known to have it.
- `{AT_YOUR_OWN}`: the public address is gone; a server of yours is reached through the variable or `llmkit.add_provider`.
- `unverified`: written, but no proof was found that the vendor still answers.
- *structured* is how the schema of `response_format=` travels: as the vendor's own schema, as a tool's, or in words beside a promise of
  some JSON (`json_object`).
- *modes* are the names that `mode=` takes at `llmkit.client`, the one that is used without it first.
- *usage* is what llmkit reads of a bill; where a vendor tells nothing, the cost is unknown and never zero.
- *texts a request*: more are never put into one embedding request.

## Where it is, and its key

[reached]

`together`, `fireworks` or any other name can be given another address with `llmkit.catalogue.merge`, and a server of your own a name with
`llmkit.add_provider`.
"""


def main() -> None:
    PAGE.write_text(page(), "utf-8")
    print(f"{PAGE.name}: {len(providers())} providers, llmkit {llmkit.__version__}")


if __name__ == "__main__":
    main()
