"""Stand-ins for language models, so that the notebooks run without a key, without a network and at no cost.

They are **not models**. Each is a Python function of a few rules behind a small HTTP server on this computer that speaks OpenAI's format.
Everything between your frame and the answer (requests, limits, retries, the store) is the real thing; only the answers are simple.
With a key, put the name of a real model in their place; nothing else in a notebook changes.
"""

from __future__ import annotations

import json
import math
import random
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: What a stand-in is given: what the user's message says, and the JSON schema that the answer must fit, if there is one.
Rule = Callable[[str, "dict[str, Any] | None"], Any]


class Answer(Exception):
    """Raised by ``Server.before`` where there is to be another answer than the rule's: a status, headers and a message."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers or {}


class Server:
    """An OpenAI-compatible chat server on a free port of this computer, answering by rules.

    Parameters
    ----------
    rules : mapping
        A function for each name of a "model".
    seconds : float or mapping
        How long an answer takes, for all or for each of them.

    Attributes
    ----------
    url : str
        For ``llmkit.add_provider(name, url)``.
    requests : int
        Requests that came in.
    answers : int
        Those that got a real answer, which is what a vendor would bill.
    """

    def __init__(self, rules: Mapping[str, Rule], seconds: float | Mapping[str, float] = 0.0) -> None:
        self.rules = dict(rules)
        self.seconds = seconds if isinstance(seconds, Mapping) else dict.fromkeys(rules, seconds)
        self.requests = self.answers = self.in_flight = 0
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"owner": self})
        self._http = _Http(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"
        threading.Thread(target=self._http.serve_forever, name="pretend", daemon=True).start()

    def before(self, model: str, text: str) -> None:
        """Where a stand-in may misbehave: raise ``Answer``, or take its time."""
        time.sleep(self.seconds[model])

    def elsewhere(self, method: str, path: str, body: bytes, kind: str) -> Any:
        """Where a stand-in may have more addresses than chat: what is answered there, JSON or bytes; ``None``: there is no such."""

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # whoever asked has gone, as after Stop
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: Server

    def do_GET(self) -> None:
        if self.path.endswith("/models"):
            self._send(200, {"object": "list", "data": [{"id": name, "object": "model"} for name in self.owner.rules]})
        else:
            self._elsewhere("GET", b"")

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("content-length") or 0))
        if not self.path.endswith("/chat/completions"):
            self._elsewhere("POST", content)
            return
        body = json.loads(content)
        model, text = body["model"], asked(body)
        owner = self.owner
        with owner.lock:
            owner.requests += 1
            owner.in_flight += 1
        try:
            owner.before(model, text)
            said = answered(owner.rules[model], body)
            with owner.lock:
                owner.answers += 1
            self._say(body, said)
        except Answer as other:
            self._send(other.status, {"error": {"message": other.message, "type": "pretend"}}, other.headers)
        finally:
            with owner.lock:
                owner.in_flight -= 1

    def _elsewhere(self, method: str, content: bytes) -> None:
        try:
            found = self.owner.elsewhere(method, self.path, content, self.headers.get("content-type", ""))
        except Answer as other:
            self._send(other.status, {"error": {"message": other.message, "type": "pretend"}}, other.headers)
            return
        self._send(200 if found is not None else 404, {"error": {"message": "no such address"}} if found is None else found)

    def _say(self, body: dict[str, Any], said: str) -> None:
        whole = completion(body, said)
        if not body.get("stream"):
            self._send(200, whole)
            return
        same = {name: whole[name] for name in ("id", "created", "model")}
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        for piece in re.findall(r"\s*\S+|\s+$", said):
            self._event({**same, "choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]})
            time.sleep(0.02)
        self._event({**same, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        self._event({**same, "choices": [], "usage": whole["usage"]})
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, event: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        self.wfile.flush()

    def _send(self, status: int, body: dict[str, Any] | bytes, headers: Mapping[str, str] | None = None) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", "content-length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: a notebook is no place for a server's log."""


def asked(body: Mapping[str, Any]) -> str:
    """What the user asks: the data, where llmkit sends some; not the word that an answer to it could not be used."""
    said = [_text(message["content"]) for message in body["messages"] if message["role"] == "user"]
    return next((text for text in reversed(said) if text.startswith("<")), said[-1])


def answered(rule: Rule, body: Mapping[str, Any]) -> str:
    """What a rule says to the body of a request."""
    form = body.get("response_format") or {}
    said = rule(asked(body), (form.get("json_schema") or {}).get("schema"))
    return said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)


def completion(body: Mapping[str, Any], said: str) -> dict[str, Any]:
    """An answer in OpenAI's format."""
    asked_for = " ".join(_text(message["content"]) for message in body["messages"])
    usage = {"prompt_tokens": 1 + len(asked_for) // 4, "completion_tokens": 1 + len(said) // 4}
    choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
    same = {"id": "pretend", "object": "chat.completion", "created": int(time.time()), "model": body["model"]}
    return {**same, "choices": [choice], "usage": usage | {"total_tokens": sum(usage.values())}}


def _text(content: Any) -> str:
    return content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)


# -------------------------------------------------------------------------------------------------------------- the rules


def cell(text: str, name: str = "text") -> str:
    """The cell ``<name>`` of the data that llmkit sends, or all of it where there is none."""
    found = re.search(rf"<{name}>\n(.*?)\n</{name}>", text, re.DOTALL)
    return found[1] if found else text


def first_sentence(text: str, schema: dict[str, Any] | None = None) -> str:
    """The first sentence, up to a dozen words."""
    sentence = re.split(r"(?<=[.!?])\s|\n\s*\n", cell(text).strip(), maxsplit=1)[0]
    words = sentence.split()
    return " ".join(words[:12]) + (" ..." if len(words) > 12 else "")


_ERROR = re.compile(r"\b[A-Z]\w*(?:Error|Exception)\b")
_RETURNS = re.compile(r"\b[Rr]eturns?:?\s+([^.\n]{3,80})")
_WHEN = re.compile(r"\b(?:if|when|unless|in case)\b[^.;]{3,120}")


def _read(text: str) -> dict[str, tuple[Any, str | None]]:
    """What a few patterns find in the documentation of a function: for each field its value and the words it was read from."""
    error = _ERROR.search(text)
    around = text[max(0, error.start() - 160) : error.end() + 160] if error else ""
    when = _WHEN.search(around[around.find(error[0]) :]) or _WHEN.search(around) if error else None
    returns = _RETURNS.search(text)
    deprecated = re.search(r"[Dd]eprecated", text)
    return {
        "error": (error[0], error[0]) if error else (None, None),
        "when": (" ".join(when[0].split()), when[0]) if when else (None, None),
        "returns": (returns[1].strip(), returns[0]) if returns else (None, None),
        "deprecated": (deprecated is not None, deprecated[0] if deprecated else None),
    }


def reader(text: str, schema: dict[str, Any] | None) -> Any:
    """Reads ``error``, ``when``, ``returns`` and ``deprecated`` from a docstring by patterns; whatever else is asked for is null."""
    found = _read(cell(text))
    if schema is None:
        return f"error: {found['error'][0]}, when: {found['when'][0]}"
    wanted = schema.get("properties", {})
    if "fields" in wanted and "evidence" in wanted:
        names = _fields(schema, "fields")
        values = {name: found.get(name, (None, None))[0] for name in names}
        return {"fields": values, "evidence": {name: found.get(name, (None, None))[1] for name in names}}
    return {name: found.get(name, (None, None))[0] for name in wanted}


def _fields(schema: dict[str, Any], name: str) -> list[str]:
    inner = schema["properties"][name]
    if "$ref" in inner:
        inner = schema["$defs"][inner["$ref"].rsplit("/", 1)[1]]
    return list(inner["properties"])


def careless_reader() -> Rule:
    """The same, by somebody who overlooks or takes the wrong one now and then, and differently each time that he is asked."""
    asked: dict[str, int] = {}
    lock = threading.Lock()

    def rule(text: str, schema: dict[str, Any] | None) -> Any:
        with lock:
            asked[text] = asked.get(text, 0) + 1
            chance = random.Random(f"{text} {asked[text]}")
        said = reader(text, schema)
        fields = said.get("fields", said)
        if chance.random() < 0.25:
            fields["error"] = chance.choice([None, "Exception", "OSError"])
        if chance.random() < 0.25:
            fields["when"] = None
        return said

    return rule


def judge(text: str, schema: dict[str, Any] | None) -> Any:
    """Says of each value whether the patterns of ``reader`` find it too."""
    found = _read(cell(text))
    extracted = json.loads(cell(text, "extracted"))
    return {name: _verdict(value, *found.get(name, (None, None))) for name, value in extracted.items()}


def _verdict(value: Any, right: Any, quote: str | None) -> dict[str, str]:
    if value == right:
        return {"reason": f"the text says {quote!r}" if quote else "the text says nothing of it", "verdict": "correct"}
    if right is None:
        return {"reason": "the text says nothing of it", "verdict": "not in the text"}
    return {"reason": f"the text says {quote!r}", "verdict": "wrong"}


def analyst(text: str, schema: dict[str, Any] | None) -> Any:
    """Asked which columns would be useful, it proposes those that ``reader`` can fill in. A real model looks at the samples."""
    optional = {"optional": True, "choices": None}
    return {
        "name": "Promise",
        "description": "What the documentation of one object promises.",
        "fields": [
            {"name": "error", "type": "text", "description": "The exception that the text names first.", **optional},
            {"name": "when", "type": "text", "description": "On which condition it is raised, in the words of the text.", **optional},
            {"name": "returns", "type": "text", "description": "What is returned, in the words of the text.", **optional},
            {
                "name": "deprecated",
                "type": "boolean",
                "description": "Whether the text says that it is deprecated.",
                "optional": False,
                "choices": None,
            },
        ],
    }


_WORD = re.compile(r"[a-z]{3,}")


def word_counter(texts: Iterable[str], labels: Iterable[str]) -> Rule:
    """Says the label whose example texts share most words with the text (naive Bayes, in ten lines)."""
    counts: dict[str, Counter[str]] = {}
    examples: Counter[str] = Counter()
    for text, label in zip(texts, labels, strict=True):
        counts.setdefault(label, Counter()).update(set(_WORD.findall(text.lower())))
        examples[label] += 1

    def rule(text: str, schema: dict[str, Any] | None) -> str:
        words = set(_WORD.findall(cell(text).lower()))

        def fit(label: str) -> float:
            shares = ((counts[label][word] + 0.1) / (examples[label] + 0.2) for word in words)
            return math.log(examples[label]) + sum(map(math.log, shares))

        return max(counts, key=fit)

    return rule


def keyword_finder(keywords: Mapping[str, str], otherwise: str) -> Rule:
    """Says the first label of which a keyword stands in the text, and ``otherwise`` where none does."""

    def rule(text: str, schema: dict[str, Any] | None) -> str:
        words = set(_WORD.findall(cell(text).lower()))
        return next((label for label, wanted in keywords.items() if words & set(wanted.split())), otherwise)

    return rule
