"""A provider on this computer that does what providers do on a bad day, and counts what it is asked. It is no model: a rule answers."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Mapping

from pretend import Answer, Rule, Server, first_sentence


class Misbehaving(Server):
    """Answers in ``latency`` seconds, unless the day is bad.

    Parameters
    ----------
    per_second : float
        Requests that it allows, as a bucket that holds one second's worth. What is above it gets a 429 with ``retry-after``.
    faults : float
        Share of the requests that meet a 500.
    hang : int
        This request, counted from the first, gets no answer for a minute.
    refuses : str
        A text that has this in it is refused with a 400, as a content filter does.
    down : bool
        Every request meets a 503.
    rules : mapping
        What else it has than "m", which says the first sentence.
    """

    def __init__(
        self,
        per_second: float = 1e9,
        faults: float = 0.0,
        hang: int = 0,
        refuses: str = "\0",
        down: bool = False,
        latency: float = 0.05,
        rules: Mapping[str, Rule] | None = None,
    ) -> None:
        super().__init__({"m": first_sentence, **(rules or {})}, latency)
        self.per_second, self.faults, self.hang, self.refuses, self.down = per_second, faults, hang, refuses, down
        #: How often each status was answered.
        self.statuses: Counter[int] = Counter()
        #: How often each text was answered; what stands here twice was paid twice.
        self.paid: Counter[str] = Counter()
        #: When each request came in, in seconds since the first; and which model it asked for.
        self.times: list[float] = []
        self.models: list[str] = []
        self.began = 0.0
        self._bucket, self._filled = per_second, time.monotonic()
        self._chance = random.Random(7)

    def before(self, model: str, text: str) -> None:
        with self.lock:
            now = time.monotonic()
            self.began = self.began or now
            self.times.append(now - self.began)
            self.models.append(model)
            number, faulty = len(self.times), self._chance.random() < self.faults
            self._bucket = min(self.per_second, self._bucket + (now - self._filled) * self.per_second)
            self._filled = now
            allowed = self._bucket >= 1
            self._bucket -= allowed
        if self.down:
            self._refuse(503, "down for maintenance")
        if not allowed:
            self._refuse(429, "too many requests", {"retry-after": "1"})
        if self.refuses in text:
            self._refuse(400, "refused by the content filter")
        if faulty:
            self._refuse(500, "something went wrong on our side")
        if number == self.hang:
            time.sleep(60)
            raise ConnectionResetError
        time.sleep(self.seconds[model])
        with self.lock:
            self.statuses[200] += 1
            self.paid[text] += 1

    def _refuse(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        with self.lock:
            self.statuses[status] += 1
        raise Answer(status, message, headers)

    @property
    def settled(self) -> int:
        """Requests that came in, once nothing more does for a moment."""
        before = -1
        while before != self.requests:
            before = self.requests
            time.sleep(0.3)
        return before
