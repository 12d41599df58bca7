"""The values that travel between the floors: plain data, no behaviour beyond adding up and being printed.

Units, once for all: ``seconds`` and every ``*_after`` are seconds; prices are US dollars per million tokens; windows and limits
of a model are tokens; costs are US dollars. ``None`` means unknown and is never treated as zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, Protocol

from .errors import LLMError, MissingKey, RequestError

__all__ = [
    "DRAW",
    "Allowance",
    "Attempt",
    "Cell",
    "Estimate",
    "Limits",
    "Model",
    "Operation",
    "Outcome",
    "Policy",
    "Price",
    "Progress",
    "Provider",
    "Reply",
    "Request",
    "Secret",
    "Source",
    "Table",
    "Task",
    "Usage",
]

Source = Literal["live", "cache", "job"]

#: Tasks drawn from a table at a time, where the operation has no reason to draw fewer.
DRAW = 256


class Secret:
    """An API key that prints as dots, cannot be pickled, and says where it came from.

    Parameters
    ----------
    value : str or callable
        The key, or a function that returns the one of the moment (for keys that rotate).
    origin : str
        Where it was found, e.g. ``"environment variable OPENAI_API_KEY"``; safe to show.
    """

    __slots__ = ("_known", "_value", "origin")

    def __init__(self, value: str | Callable[[], str], origin: str = "given by hand") -> None:
        self._value = value
        self._known: tuple[str, ...] = (value,) if isinstance(value, str) else ()
        self.origin = origin

    def reveal(self) -> str:
        value = self._value
        if isinstance(value, str):
            return value
        try:
            key = value()
        except Exception as error:
            # Not chained: what a caller's function raises may hold what it was about to return.
            raise MissingKey(f"the function that gives the key raised {type(error).__name__}") from None
        if not isinstance(key, str) or not key.strip():
            raise MissingKey(f"the function that gives the key returned {type(key).__name__}, not a key")
        key = key.strip()
        if key not in self._known:
            self._known = (*self._known, key)[-8:]
        return key

    def masked(self, text: str) -> str:
        """``text`` without the keys that this has given so far."""
        for key in self._known:
            text = text.replace(key, "[key]")
        return text

    @property
    def rotates(self) -> bool:
        return callable(self._value)

    def __repr__(self) -> str:
        return f"Secret(•••••, {self.origin})"

    def __reduce__(self) -> Any:
        raise TypeError("a Secret is not pickled: send the name of its environment variable instead")


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars, list price; ``None`` is unknown. Per million tokens, where the name says nothing else.

    Attributes
    ----------
    input, cached_input, cache_write, output : float or None
        Fresh input, input read from the vendor's prompt cache, input written into it, output.
    batch_input, batch_output : float or None
        The same in the vendor's batch jobs.
    audio_input : float or None
        Input tokens that are sound.
    audio_minute : float or None
        One minute of sound heard.
    million_characters : float or None
        A million characters spoken.
    thousand_searches : float or None
        A thousand searches of a reranker.
    long_from : int or None
        Tokens: a request that reads more than these is billed at the ``long_`` prices, all of it. ``None``: length changes no price.
    long_input, long_cached_input, long_cache_write, long_output : float or None
        As the four without ``long_``, for such a request.
    """

    input: float | None = None
    cached_input: float | None = None
    output: float | None = None
    cache_write: float | None = None
    batch_input: float | None = None
    batch_output: float | None = None
    audio_input: float | None = None
    audio_minute: float | None = None
    million_characters: float | None = None
    thousand_searches: float | None = None
    long_from: int | None = None
    long_input: float | None = None
    long_cached_input: float | None = None
    long_cache_write: float | None = None
    long_output: float | None = None

    @property
    def dearest(self) -> Price:
        """The same with what is unknown of cached and written input taken at the most that vendors ask for it: for a bound."""
        if self.input is None:
            return self
        cached, written = _dearest_of(self.input, self.cached_input, self.cache_write)
        if self.long_input is None:
            return replace(self, cached_input=cached, cache_write=written)
        long_cached, long_written = _dearest_of(self.long_input, self.long_cached_input, self.long_cache_write)
        return replace(self, cached_input=cached, cache_write=written, long_cached_input=long_cached, long_cache_write=long_written)

    @property
    def in_jobs(self) -> Price:
        """What requests of the vendor's batch jobs are billed at; unknown where no such price is known.

        What is read from a prompt cache, written into it, or long is taken to be as much cheaper as fresh input is.
        """
        if self.batch_input is None or not self.input:
            return Price(input=self.batch_input, output=self.batch_output, batch_input=self.batch_input, batch_output=self.batch_output)
        share = self.batch_input / self.input
        cheaper = {
            name: None if (each := getattr(self, name)) is None else each * share
            for name in ("cached_input", "cache_write", "long_input", "long_cached_input", "long_cache_write", "long_output")
        }
        return replace(self, input=self.batch_input, output=self.batch_output, **cheaper)

    def of_request(self, tokens: int) -> Price:
        """What one request is billed at that reads so many tokens; length changes this one no more."""
        if self.long_from is None:
            return self
        short = replace(self, long_from=None, long_input=None, long_cached_input=None, long_cache_write=None, long_output=None)
        if tokens <= self.long_from:
            return short
        return replace(
            short,
            input=self.long_input,
            cached_input=self.long_cached_input,
            cache_write=self.long_cache_write,
            output=self.long_output,
        )


def _dearest_of(fresh: float, cached: float | None, written: float | None) -> tuple[float, float]:
    """Cached and written input: what is known, else the most that vendors ask in terms of fresh input."""
    return fresh if cached is None else cached, 2 * fresh if written is None else written


@dataclass(frozen=True, slots=True)
class Provider:
    """One row of ``providers.toml``, a constant in a provider file, or what ``llmkit.add_provider`` was told."""

    name: str
    base_url: str
    protocol: str = "openai"
    key_env: tuple[str, ...] = ()
    base_url_env: tuple[str, ...] = ()
    key_optional: bool = False
    status: str = "alive"
    retired: str = ""
    quirks: Mapping[str, Any] = field(default_factory=dict)
    extra: str | None = None
    #: What is served of what the wire can ask; empty: whatever the server has (one's own, or one whose models differ).
    operations: tuple[str, ...] = ()
    console: str = ""
    docs: str = ""


@dataclass(frozen=True, slots=True)
class Model:
    """One row of ``models.json``, or a name that was typed: then everything but the names is unknown."""

    provider: str
    name: str
    operations: tuple[str, ...] = ()
    context_window: int | None = None
    output_limit: int | None = None
    dimensions: int | None = None
    capabilities: tuple[str, ...] = ()
    price: Price = Price()
    deprecated: str | None = None
    aliases: tuple[str, ...] = ()
    #: Requests and tokens per minute (``rpm``, ``tpm``) that the vendor publishes; an account may have others.
    limits: Mapping[str, float] = field(default_factory=dict, hash=False)
    #: Who says so, and the day.
    source: str = ""
    as_of: str = ""

    def __str__(self) -> str:
        return f"{self.provider}/{self.name}"


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of a model, in no vendor's words: the operation's payload and the options that go into the body.

    ``sample`` tells requests apart that are asked in the same words for several answers: it is no part of the body, and of the key only
    beyond the first.
    """

    operation: str
    payload: Any
    options: Mapping[str, Any] = field(default_factory=dict)
    sample: int = 0


@dataclass(frozen=True, slots=True)
class Task:
    """The rows (positions in the frame) that one request answers: one, or all documents of a rerank.

    ``request`` is the error instead where a row's own content (a file that is not there) kept it from being asked.
    """

    rows: tuple[int, ...]
    request: Request | RequestError


class Table(Protocol):
    """Rows as the operations see them: named columns, read a slice at a time."""

    @property
    def columns(self) -> Sequence[Any]: ...

    def __len__(self) -> int: ...

    def texts(self, column: Any, start: int, stop: int) -> list[str | None]:
        """The cells of ``column`` in rows ``start`` to ``stop`` as text, ``None`` where the cell is missing."""

    def cells(self, column: Any, start: int, stop: int) -> list[Any]:
        """The same cells as they are, ``None`` where the cell is missing: pictures, sound."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing a row may ask.

    Attributes
    ----------
    name : str
        Names it to the user, in the journal and in the keys of stored answers.
    tasks : callable
        ``tasks(table, **arguments) -> iterator of Task``. Arguments are checked when it is called, before the first task is drawn; rows
        are rendered as they are drawn, so a million rows never stand in memory as prompts.
    kind : {"text", "vector", "score", "object"}
        What one row becomes: a string, a float32 vector, a float, anything else.
    pack, unpack : callable
        A reply's value to bytes for the store and back. JSON or plain numbers; nothing that could execute. ``unpack`` raises ValueError
        for bytes that are no answer.
    wire : str
        The codec it travels by, where that is not ``name``: ``classify`` asks a chat model.
    mark : str
        What of the question the request's body does not say (labels that are compared here, the code of functions); goes into the keys of
        stored answers.
    read : callable, optional
        ``read(request, reply) -> Reply, LLMError or Request``: what the reply amounts to. An error fails the row; a request is sent next,
        in the same row, and its reply is read in turn. What the rounds cost adds up.
    lesser : callable, optional
        ``lesser(request, modes, mode, error) -> str``: another of the modes of a model (``Codec.modes``) to ask for the same in, after it
        refused (``error``) or did not heed (``None``) the one it was asked in (``""`` is the first); ``""`` where there is none, or the
        refusal has another cause.
    recast : callable, optional
        ``recast(request, mode) -> Request``: the same in this mode. Another way to send the same question, so it has no part in the key.
    blocking : bool
        ``read`` may take long (it runs the user's functions): it is called in a worker thread.
    hold : callable, optional
        ``hold(value, key) -> value``: what stays in memory of a value once it is stored, e.g. the path of a file it was written to.
    weigh : callable, optional
        ``weigh(request, body_length) -> int``: the bytes of text that a request amounts to, which tokens are estimated from; a picture's
        bytes say nothing about its tokens. By default the length of the body.
    most : callable, optional
        ``most(request, price) -> Usage``: the most that one request can be billed beside tokens (characters, searches, seconds of sound),
        of what this price knows.
    billed : tuple of tuples of str
        The prices that a bound on the cost needs: all of one of these.
    codecs : mapping
        Wire format to ``adapter.Codec``, where the operation brings its own way of being asked along: a whole operation in one file.
    draw : int
        Tasks drawn ahead of those in flight; few where each is heavy.
    """

    name: str
    tasks: Callable[..., Iterator[Task]]
    kind: Literal["text", "vector", "score", "object"]
    pack: Callable[[Any], bytes]
    unpack: Callable[[bytes], Any]
    wire: str = ""
    mark: str = ""
    read: Callable[[Request, Reply], Reply | LLMError | Request] | None = None
    lesser: Callable[[Request, Sequence[str], str, LLMError | None], str] | None = None
    recast: Callable[[Request, str], Request] | None = None
    blocking: bool = False
    hold: Callable[[Any, bytes], Any] | None = None
    weigh: Callable[[Request, int], int] | None = None
    most: Callable[[Request, Price], Usage] | None = None
    billed: tuple[tuple[str, ...], ...] = (("input", "output"),)
    codecs: Mapping[str, Any] = field(default_factory=dict)
    draw: int = DRAW

    @property
    def codec(self) -> str:
        """The name of the codec it travels by."""
        return self.wire or self.name

    def priced(self, price: Price) -> bool:
        """Whether enough of the price is known for a bound."""
        return any(all(getattr(price, name) is not None for name in names) for names in self.billed)

    @property
    def writes(self) -> bool:
        """Whether the answer is written token by token, and billed so."""
        return self.codec == "chat"


#: Nothing is known of it; made once, since every answer is compared with it.
_UNKNOWN = Price()


class Usage(NamedTuple):
    """What was billed; adds up. A tuple, since one is made for every answer and a dataclass of this width takes five times as long.

    Attributes
    ----------
    input, output : int
        Tokens; ``input`` is all that was read, from wherever.
    cached_input, cache_write, audio_input : int
        The parts of ``input`` that were read from the vendor's prompt cache, written into it, or sound.
    requests : int
        HTTP requests that were answered.
    unreported : int
        Those of them whose answer did not say what it cost: the cost is then unknown.
    audio_seconds : float
        Sound heard, where the vendor bills by time.
    characters : int
        Characters spoken, where the vendor bills by them.
    searches : int
        Searches of a reranker, where the vendor bills by them.
    """

    input: int = 0
    cached_input: int = 0
    output: int = 0
    requests: int = 0
    cache_write: int = 0
    audio_input: int = 0
    audio_seconds: float = 0.0
    characters: int = 0
    searches: int = 0
    unreported: int = 0

    def __add__(self, other: Usage) -> Usage:  # type: ignore[override]
        return Usage(
            self.input + other.input,
            self.cached_input + other.cached_input,
            self.output + other.output,
            self.requests + other.requests,
            self.cache_write + other.cache_write,
            self.audio_input + other.audio_input,
            self.audio_seconds + other.audio_seconds,
            self.characters + other.characters,
            self.searches + other.searches,
            self.unreported + other.unreported,
        )

    def less(self, other: Usage) -> Usage:
        """What is left without ``other``, which is a part of this."""
        return Usage(*(mine - theirs for mine, theirs in zip(self, other, strict=True)))  # type: ignore[arg-type]

    @property
    def plain(self) -> bool:
        """Whether tokens in, cached and out say it all."""
        return not (self.cache_write or self.audio_input or self.audio_seconds or self.characters or self.searches or self.unreported)

    def cost(self, price: Price) -> float | None:
        """US dollars at this price; ``None`` where a price that is needed is unknown, or an answer did not say what it used.

        Where the length of a request changes the price, a sum of several that is longer than a short one has no known cost either: price
        each alone.
        """
        if self.unreported or price == _UNKNOWN:
            return None
        if price.long_from is not None:
            if self.requests > 1 and self.input > price.long_from:
                return None
            price = price.of_request(self.input)
        # Some gateways count what came from the cache beside the input, not in it; less than nothing is fresh nowhere.
        fresh = max(0, self.input - self.cached_input - self.cache_write - self.audio_input)
        parts = (
            (fresh, price.input),
            (self.cached_input, price.cached_input),
            (self.cache_write, price.cache_write),
            (self.audio_input, price.audio_input),
            (self.output, price.output),
            (self.audio_seconds / 60 * 1e6, price.audio_minute),
            (self.characters, price.million_characters),
            (self.searches * 1e3, price.thousand_searches),
        )
        total = 0.0
        for amount, each in parts:
            if amount:
                if each is None:
                    return None
                total += amount * each
        return total / 1e6

    def saved(self, price: Price) -> float | None:
        """US dollars that the vendor's prompt cache took off the bill: what was read from it for less than fresh input costs, less what
        writing into it cost more. Below zero where it was written and hardly read; ``None`` where a price that is needed is unknown, as
        in ``cost``.
        """
        if not (self.cached_input or self.cache_write):
            return None if self.unreported else 0.0
        with_cache = self.cost(price)
        without = self._replace(cached_input=0, cache_write=0).cost(price)
        return None if with_cache is None or without is None else without - with_cache


_NOTHING_BILLED = Usage()


@dataclass(frozen=True, slots=True)
class Reply:
    """One request's answer. ``value`` is the operation's: text, a float32 vector, an array of scores."""

    value: Any
    usage: Usage = _NOTHING_BILLED
    model: str | None = None
    finish: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at one target: when it began (seconds, monotonic), how long it took, what went wrong."""

    target: str
    started: float
    seconds: float
    error: LLMError | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a task: a reply or an error, after how many attempts, and where the reply came from."""

    task: int
    reply: Reply | None
    error: LLMError | None
    attempts: int
    seconds: float
    source: Source | None
    model: str | None


@dataclass(frozen=True, slots=True)
class Allowance:
    """One limit as a reply's headers tell it; ``None`` where they say nothing.

    Attributes
    ----------
    limit, left : int or None
        Requests or tokens a minute, and what is left of them.
    reset : float or None
        Seconds until all of it is back.
    per_day : bool
        The limit is a day's.
    """

    limit: int | None = None
    left: int | None = None
    reset: float | None = None
    per_day: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """What a reply's headers said of the account. ``tokens`` are all of them; some vendors count those in and out apart."""

    requests: Allowance | None = None
    tokens: Allowance | None = None
    input: Allowance | None = None
    output: Allowance | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """How hard to try, and when to stop.

    Attributes
    ----------
    max_attempts : int
        Tries per row and target at errors that may pass (5xx, lost connections, time-outs). Being told to slow down
        (429) costs time, not attempts.
    timeout : float
        Seconds for one attempt, sending and reading together.
    deadline : float
        Seconds a row may spend being told to slow down before it is given up.
    backoff, backoff_max : float
        The n-th wait is drawn evenly from 0 to ``min(backoff * 2**n, backoff_max)`` seconds.
    max_concurrency : int
        Most requests in flight at once, per account.
    cache : {"use", "refresh", "off"}
        Read and write stored answers; ask anew and write; neither.
    on_error : {"keep", "raise"}
        Failed rows become missing values, or the call raises once everything that was paid is kept.
    max_cost : float or None
        US dollars after which nothing more is sent.
    prefer : {"any", "first"}
        A row that is told to slow down goes to another model of the route that is free, or waits for the one it is at.
    streamed : bool
        Answers are asked for in pieces, of models that write them so: what is said so far can then be seen.
    """

    max_attempts: int = 5
    timeout: float = 180.0
    deadline: float = 900.0
    backoff: float = 0.5
    backoff_max: float = 30.0
    max_concurrency: int = 64
    cache: Literal["use", "refresh", "off"] = "use"
    on_error: Literal["keep", "raise"] = "keep"
    max_cost: float | None = None
    prefer: Literal["any", "first"] = "any"
    streamed: bool = False


@dataclass(frozen=True, slots=True)
class Cell:
    """One row of a run at one moment.

    Attributes
    ----------
    state : {"waiting", "writing", "done", "failed", "stopped", "missing"}
        ``"writing"`` where pieces of the answer came, ``"stopped"`` where the run ended before it, ``"missing"`` where there is nothing to
        ask.
    value : Any
        The answer; of one that is being written, broke off or was stopped, the text that came.
    error : LLMError or None
        Why there is no answer.
    source : {"live", "cache", "job"} or None
    first_seconds : float or None
        From the first attempt to the first piece, where answers come in pieces.
    seconds, queue_seconds : float or None
        From the first attempt to the answer, and before it, in which the row waited for its turn; stored answers have no time.
    input_tokens, output_tokens : int
    cost : float or None
        US dollars of the answer whenever it was paid; ``None`` is unknown.
    finish : str
        Why the answer ended; ``"length"`` is a cut.
    """

    state: Literal["waiting", "writing", "done", "failed", "stopped", "missing"]
    value: Any = None
    error: LLMError | None = None
    source: Source | None = None
    first_seconds: float | None = None
    seconds: float | None = None
    queue_seconds: float | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = None
    finish: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """A run at one moment. ``cost`` is US dollars, ``None`` where the price is unknown."""

    rows: int
    done: int
    errors: int
    stored: int
    tokens: int
    cost: float | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a call would do; nothing was sent to make it.

    Attributes
    ----------
    rows, missing, unique, stored, requests : int
        Rows of the frame; rows that are not sent because they hold nothing; different prompts among the rest; how many of those
        are answered already; HTTP requests that remain.
    input_tokens, output_tokens : int
        For what remains. Input is counted from characters (see ``basis``), output is the limit or an assumption.
    cost : float or None
        US dollars; ``None`` where the price is unknown.
    seconds : float or None
        At the limits known so far; ``None`` where nothing is known.
    basis : str
        What the figures rest on, in words.
    """

    model: str
    rows: int
    missing: int
    unique: int
    stored: int
    requests: int
    input_tokens: int
    output_tokens: int
    cost: float | None
    seconds: float | None
    basis: str

    def __str__(self) -> str:
        cost = "unknown (no price for this model)" if self.cost is None else f"${self.cost:,.4f}"
        time = "unknown" if self.seconds is None else f"about {self.seconds:,.0f} s"
        return (
            f"{self.model}: {self.rows:,} rows, {self.missing:,} missing, {self.unique:,} different, {self.stored:,} already stored\n"
            f"would send {self.requests:,} requests, {self.input_tokens:,} input and {self.output_tokens:,} output tokens\n"
            f"cost {cost}, time {time}\n"
            f"({self.basis})"
        )

    def __repr__(self) -> str:
        return str(self)
