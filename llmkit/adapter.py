"""What a provider must answer: the question that every file in ``providers/`` is an answer to.

A provider file is plain functions over JSON bodies. Nothing in it awaits: ``connect`` runs once per target in a worker thread, the rest
is called on the hot path by the engine, which owns the network, the waiting and the retrying.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import orjson

from .errors import LLMError
from .types import Limits, Model, Provider, Reply, Request, Secret, Usage

__all__ = [
    "Adapter",
    "Codec",
    "Delta",
    "JobAnswer",
    "JobBounds",
    "JobIntent",
    "JobState",
    "Jobs",
    "Kept",
    "RequestTemplate",
    "Target",
    "to_json",
    "whole",
]


@dataclass(frozen=True, slots=True)
class RequestTemplate:
    """Where a target's requests go, as the vendor's SDK addresses them.

    ``headers`` hold the credential and are never printed. ``expires`` is a moment of ``time.monotonic()`` after which the
    template is made anew, ``None`` for never.
    """

    url: str
    headers: Mapping[str, str] = field(repr=False)
    expires: float | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """One model of one provider as this account reaches it. A tuple of them is a route."""

    model: Model
    provider: Provider
    adapter: Adapter
    codec: Codec
    secret: Secret | None = field(default=None, repr=False)
    #: A client object of the caller's own, which then does the sending.
    foreign: Any = field(default=None, repr=False)
    #: ``"context"`` or ``"content"``: asked only where the text is too long for the others, or a filter refused it. Else for all rows.
    only_for: str = ""

    @property
    def name(self) -> str:
        return f"{self.provider.name}/{self.model.name}"


@dataclass(frozen=True, slots=True)
class Delta:
    """What one event of a streamed answer adds. ``usage`` counts from the start of the answer, so the largest counts are the true ones."""

    text: str = ""
    usage: Usage | None = None
    finish: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """The prefixes of a request that the vendor's prompt cache keeps once one request with them was answered.

    Attributes
    ----------
    levels : tuple of (bytes, int)
        A digest and the size in bytes of each, the shortest first; every one begins with those before it.
    seconds : float
        How long after a request a prefix is still kept, on the safe side; 0 where nobody says, and no request waits for another then.
    renewed : bool
        Whether each use makes it live as long again.
    written : bool
        Whether the vendor bills it when a prefix is written into its cache, dearer than input that is not.
    certain : bool
        Whether the vendor's rules leave no doubt that requests which begin so are billed less: for an estimate.
    """

    levels: tuple[tuple[bytes, int], ...]
    seconds: float
    renewed: bool = True
    written: bool = False
    certain: bool = False


@dataclass(frozen=True, slots=True)
class Codec:
    """How one operation is written in one wire format.

    Attributes
    ----------
    path : str
        Appended to the provider's base URL where the SDK has no method of its own for it.
    encode : callable
        ``encode(requests, target) -> bytes``, the JSON body of one HTTP call. The same requests give the same bytes: they
        are hashed into the cache's key.
    decode : callable
        ``decode(body, requests) -> list of Reply or RequestError``, one for each request and in their order. Raises
        ``ServerFault(kind="bad_response")`` for a body that is no answer at all.
    batch_size : callable
        ``batch_size(target) -> (requests, tokens)``: the most that one HTTP call may carry; ``None`` tokens for no cap.
    content_type : str
        Of the body; with its boundary where it has parts.
    options : frozenset of str or None
        The options of a request that this wire has a word for; ``None`` for whatever is asked. The others are refused before anything is
        sent, hints (``input_type``) excepted.
    streamed : callable or None
        ``streamed(target) -> members`` that are added to the body to have the answer come in events; ``None`` where it cannot.
    delta : callable or None
        ``delta(event, data) -> Delta or None``: one server-sent event, its name (``""`` where it has none) and its data. Raises the error
        that an event amounts to.
    kept : callable or None
        ``kept(request, target) -> Kept or None``: what of a request the vendor's prompt cache would keep.
    mark : callable or None
        ``mark(request, target, digests) -> bytes``: what ``encode`` gives for the one request, with the prefixes of these digests marked
        for that cache. Another way to send the same question, so it has no part in the key of a stored answer.
    modes : callable or None
        ``modes(request, target) -> (modes, note)``: how an answer of the request's form can be asked for there, the way it is asked for
        first, and why that is not the usual one (``""``: it is). Raises ``Unsupported`` for a mode that was chosen and that cannot be.
    """

    path: str
    encode: Callable[[Sequence[Request], Target], bytes]
    decode: Callable[[Any, Sequence[Request]], list[Reply | LLMError]]
    batch_size: Callable[[Target], tuple[int, int | None]] = lambda target: (1, None)
    content_type: str = "application/json"
    options: frozenset[str] | None = None
    streamed: Callable[[Target], Mapping[str, Any]] | None = None
    delta: Callable[[str, bytes], Delta | None] | None = None
    kept: Callable[[Request, Target], Kept | None] | None = None
    mark: Callable[[Request, Target, Collection[bytes]], bytes] | None = None
    modes: Callable[[Request, Target], tuple[Sequence[str], str]] | None = None


@dataclass(frozen=True, slots=True)
class JobBounds:
    """The most that one batch job of the vendor may hold; ``inputs`` counts the texts of embeddings in all its requests. ``kept_hours``
    is how long its results can be fetched, where the vendor says."""

    requests: int
    bytes: int
    inputs: int | None = None
    kept_hours: int | None = None


@dataclass(frozen=True, slots=True)
class JobIntent:
    """A job that is about to be submitted, as the journal has it before it is.

    ``name`` (at most 64 of ``a-z0-9-``) is ours and travels with the job, in its metadata, its file's name or whatever the vendor hands
    back when it lists its jobs. ``written`` is the Unix time at which the intent was.
    """

    name: str
    requests: int
    written: float


@dataclass(frozen=True, slots=True)
class JobState:
    """A vendor's batch job at one moment.

    Attributes
    ----------
    id : str
        The vendor's.
    state : {"going", "ended"}
        Whether something may still come. All of the ends (completed, failed, expired, cancelled) are one to the engine: what there is is
        taken in, what is missing is told.
    said : str
        The vendor's own word for it.
    total, done, failed : int
        Requests, as far as the vendor counts them.
    outputs : tuple of str
        What can be fetched, in the vendor's names; empty where there is nothing, also for a job that "completed".
    error : LLMError or None
        Why the whole job failed, where it did.
    expires : float or None
        Unix time after which the vendor gives it up.
    certain : bool
        Of a job that was found again: whether it carries our name. Where the vendor keeps no name, the time and the number of requests say
        that it may be ours, and only its answers say that it is.
    """

    id: str
    state: Literal["going", "ended"]
    said: str
    total: int = 0
    done: int = 0
    failed: int = 0
    outputs: tuple[str, ...] = ()
    error: LLMError | None = None
    expires: float | None = None
    certain: bool = True


class JobAnswer(NamedTuple):
    """One line of a job's results: the body as a live call would have had it, or the error of this request alone.

    ``asked`` is false where the vendor did not get to it (expired, cancelled): nothing was billed and it can be sent again.
    """

    custom_id: str
    body: Any = None
    error: LLMError | None = None
    asked: bool = True


@dataclass(frozen=True, slots=True)
class Jobs:
    """A vendor's batch jobs. All but ``line`` and ``read`` block and run in a worker thread: the official SDK, its retries off, does the
    sending; what they raise is an ``LLMError``.

    Attributes
    ----------
    bounds : callable
        ``bounds(target) -> JobBounds``.
    line : callable
        ``line(custom_id, body, target) -> bytes``: one request of the job's file, without a line's end. ``body`` is what ``Codec.encode``
        gave for the live path.
    submit : callable
        ``submit(target, file, intent) -> JobState``: the file of lines becomes a job that carries ``intent.name``.
    find : callable
        ``find(target, intent) -> list of JobState``: jobs at the vendor that are this intent's, whether or not ``submit`` got its answer.
    look : callable
        ``look(target, id) -> JobState``.
    cancel : callable
        ``cancel(target, id) -> JobState``; what was answered by then can still be fetched.
    fetch : callable
        ``fetch(target, state, path)``: all the outputs as one file of lines, complete or not there at all; a download that breaks off is
        taken up again. Never held in memory.
    read : callable
        ``read(line) -> JobAnswer``; raises ``ValueError`` for one that is none.
    """

    bounds: Callable[[Target], JobBounds]
    line: Callable[[str, bytes, Target], bytes]
    submit: Callable[[Target, Path, JobIntent], JobState]
    find: Callable[[Target, JobIntent], Sequence[JobState]]
    look: Callable[[Target, str], JobState]
    cancel: Callable[[Target, str], JobState]
    fetch: Callable[[Target, JobState, Path], None]
    read: Callable[[bytes], JobAnswer]


@dataclass(frozen=True, slots=True)
class Adapter:
    """One wire format.

    Attributes
    ----------
    name : str
        The protocol, as ``providers.toml`` spells it.
    codecs : mapping
        Operation name to ``Codec``: what this wire can ask.
    connect : callable
        ``connect(target) -> RequestTemplate``; imports the vendor's SDK. ``None`` for adapters that answer in this process.
    classify_error : callable
        ``classify_error(status, headers, body) -> LLMError``. Status first, the vendor's own code second, message text only where
        there is nothing else. ``headers`` have lower-case names.
    read_limits : callable
        ``read_limits(headers) -> Limits or None``.
    answer : callable or None
        ``answer(body, target) -> body`` for built-in providers: no network. ``blocking`` says that it computes for long and is run in a
        worker thread.
    client : callable or None
        ``client(target, is_async) -> the vendor's official SDK client``, retries off.
    send : callable or None
        ``send(foreign, codec, body) -> (status, headers, body)`` for a client object of the caller's own: the SDK posts, in a worker thread
        or on the loop, as its kind is (a coroutine is awaited).
    jobs : callable or None
        ``jobs(target) -> Jobs or None``: the vendor's batch jobs for this provider and operation, where it has them.
    """

    name: str
    codecs: Mapping[str, Codec]
    connect: Callable[[Target], RequestTemplate] | None
    classify_error: Callable[[int, Mapping[str, str], bytes], LLMError]
    read_limits: Callable[[Mapping[str, str]], Limits | None]
    answer: Callable[[bytes, Target], Any] | None = None
    blocking: bool = False
    client: Callable[[Target, bool], Any] | None = None
    send: Callable[[Any, Codec, bytes], Any] | None = None
    jobs: Callable[[Target], Jobs | None] | None = None


def to_json(body: Any) -> bytes:
    """The bytes of a request body.

    Lone surrogates, which no UTF-8 can carry, become U+FFFD, as browsers send them; one damaged cell must not stop a run.
    """
    try:
        return orjson.dumps(body)
    except TypeError:
        return orjson.dumps(_mended(body))


def whole(text: str) -> str:
    """``text`` with every lone surrogate replaced by U+FFFD: what can be written to a file and sent on."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return whole(value)
    if isinstance(value, Mapping):
        return {name: _mended(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_mended(item) for item in value]
    return value
