"""The values that travel between the floors: plain data, no behaviour beyond adding up and being printed.

Units, once for all: ``seconds`` and every ``*_after`` are seconds; prices are US dollars per million tokens; windows and limits
of a model are tokens; costs are US dollars. ``None`` means unknown and is never treated as zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from .errors import LLMError, MissingKey

__all__ = [
    "Attempt",
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


class Secret:
    """An API key that prints as dots, cannot be pickled, and says where it came from.

    Parameters
    ----------
    value : str or callable
        The key, or a function that returns the one of the moment (for keys that rotate).
    origin : str
        Where it was found, e.g. ``"environment variable OPENAI_API_KEY"``; safe to show.
    """

    __slots__ = ("_value", "origin")

    def __init__(self, value: str | Callable[[], str], origin: str = "given by hand") -> None:
        self._value = value
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
        return key.strip()

    @property
    def rotates(self) -> bool:
        return callable(self._value)

    def __repr__(self) -> str:
        return f"Secret(•••••, {self.origin})"

    def __reduce__(self) -> Any:
        raise TypeError("a Secret is not pickled: send the name of its environment variable instead")


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens; ``None`` is unknown."""

    input: float | None = None
    cached_input: float | None = None
    output: float | None = None


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

    def __str__(self) -> str:
        return f"{self.provider}/{self.name}"


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of a model, in no vendor's words: the operation's payload and the options that go into the body."""

    operation: str
    payload: Any
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Task:
    """The rows (positions in the frame) that one request answers: one, or all documents of a rerank."""

    rows: tuple[int, ...]
    request: Request


class Table(Protocol):
    """Rows as the operations see them: named columns of text, read a slice at a time."""

    @property
    def columns(self) -> Sequence[Any]: ...

    def __len__(self) -> int: ...

    def texts(self, column: Any, start: int, stop: int) -> list[str | None]:
        """The cells of ``column`` in rows ``start`` to ``stop`` as text, ``None`` where the cell is missing."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing a row may ask.

    Attributes
    ----------
    name : str
        As the codecs of the adapters spell it.
    tasks : callable
        ``tasks(table, **arguments) -> iterator of Task``. Arguments are checked when it is called, before the first task is drawn; rows
        are rendered as they are drawn, so a million rows never stand in memory as prompts.
    values : callable
        ``values(value, task_rows) -> one value for each of the task's rows``.
    kind : {"text", "vector", "score"}
        What one row becomes: a string, a float32 vector, a float.
    pack, unpack : callable
        A reply's value to bytes for the store and back. JSON or plain numbers; nothing that could execute.
    """

    name: str
    tasks: Callable[..., Iterator[Task]]
    values: Callable[[Any, Sequence[int]], Sequence[Any]]
    kind: Literal["text", "vector", "score"]
    pack: Callable[[Any], bytes]
    unpack: Callable[[bytes], Any]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens and requests billed; adds up. ``cached_input`` is the part of ``input`` that was billed as a cached prefix."""

    input: int = 0
    cached_input: int = 0
    output: int = 0
    requests: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input + other.input,
            self.cached_input + other.cached_input,
            self.output + other.output,
            self.requests + other.requests,
        )

    def cost(self, price: Price) -> float | None:
        """US dollars at this price, ``None`` where a needed price is unknown."""
        if price.input is None or (self.output and price.output is None):
            return None
        cached = price.cached_input if price.cached_input is not None else price.input
        fresh = self.input - self.cached_input
        return (fresh * price.input + self.cached_input * cached + self.output * (price.output or 0.0)) / 1e6


@dataclass(frozen=True, slots=True)
class Reply:
    """One request's answer. ``value`` is the operation's: text, a float32 vector, an array of scores."""

    value: Any
    usage: Usage = Usage()
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
class Limits:
    """What a reply's headers said of the account. Counts per minute, resets in seconds; ``None`` where nothing was said."""

    requests: int | None = None
    requests_left: int | None = None
    requests_reset: float | None = None
    tokens: int | None = None
    tokens_left: int | None = None
    tokens_reset: float | None = None


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
