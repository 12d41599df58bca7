"""A limit that nobody names, found by trial.

Each refusal says that the account's allowance is used up at this moment. Between two such moments exactly so much was let through as the
provider allows; and in the last second before one of them at least so much. The pace is kept between the two, rests just under what was
found, and looks over it now and then.
"""

from __future__ import annotations

from collections import deque

from .budgets import Bucket

__all__ = ["Pace"]

#: Seconds for which it is kept when each request left: refusals may come late.
KEEP = 5.0

#: Seconds at the ceiling before the pace looks over it; doubles each time the ceiling proves true.
HOLD = 15.0
HOLD_MOST = 240.0

#: A limit that is counted over long is looked over no sooner than this: what went in a burst comes back as one, until a minute has passed.
HOLD_LONG = 60.0

#: A second in which fewer went through says little: up to a minute is counted then.
FEW = 10

#: The slowest pace, a request in 20 seconds: trial keys are given ten a minute.
LEAST = 0.05


class Pace:
    """Counts what is let through, and says how fast the next may go.

    Attributes
    ----------
    ceiling : float
        Requests a second, as the last refusal taught; 0 where none did yet.
    """

    def __init__(self) -> None:
        self.ceiling = 0.0
        self.bucket: Bucket | None = None
        self._ceiling_at = 0.0
        self._hold = HOLD
        #: When the requests of the last seconds left that were not refused, and how many did in each second of the last minute.
        self._recent: deque[float] = deque()
        self._by_second: deque[list[float]] = deque()
        #: All that were ever let through; and the moment at which the allowance was last known to be used up, with their number then.
        self._let = 0
        self._empty_at: float | None = None
        self._let_then = 0
        #: When the request left whose refusal was the last news, and what went through in the second before it.
        self._news_at = float("-inf")
        self._through: float | None = None
        #: Whether the ceiling is what the pace was when it drew a refusal; and whether such a ceiling proved too high, since the limit is
        #: counted over long: it gives way late, when the pace has passed it by far.
        self._by_pace = False
        self._counted_over_long = False

    # ------------------------------------------------------------------------------------------------------------ counting

    def went(self, now: float) -> None:
        recent, by_second = self._recent, self._by_second
        recent.append(now)
        while recent[0] < now - KEEP:
            recent.popleft()
        if by_second and now - by_second[-1][0] < 1.0:
            by_second[-1][1] += 1
        else:
            by_second.append([now, 1])
            if by_second[0][0] < now - 61.0:
                by_second.popleft()
        self._let += 1
        if self.bucket is not None:
            self.bucket.take(1.0, now)

    def came_back(self, sent_at: float) -> None:
        """A request that left at ``sent_at`` was refused: it was not let through after all."""
        if sent_at in self._recent:
            self._recent.remove(sent_at)
        for second in reversed(self._by_second):
            if second[0] <= sent_at:
                second[1] -= 1
                break
        self._let -= 1
        if self._empty_at is not None and sent_at <= self._empty_at:
            self._let_then -= 1

    # -------------------------------------------------------------------------------------------------------------- asking

    def ready_at(self, now: float) -> float:
        if self.bucket is None:
            return now
        self._climb(now)
        return self.bucket.ready_at(1.0, now)

    def per_second(self, now: float) -> float | None:
        """Requests a second that may go at the moment; ``None`` where nothing is known."""
        if self.bucket is None:
            return None
        self._climb(now)
        return self.bucket.per_second

    def _climb(self, now: float) -> None:
        """Back to just under the ceiling within two seconds, rest there, then look over it by 2 % a second."""
        assert self.bucket is not None
        since = now - self._ceiling_at
        if since < 2.0:
            share = 0.9 + 0.035 * since
        elif since < self._hold:
            share = 0.97
        else:
            # Bounded before it is raised: after ten idle hours the power itself would be more than a float holds.
            share = min(0.97 * 1.02 ** min(since - self._hold, 400.0), 1e3)
        self.bucket.level(now)
        self.bucket.per_second = max(LEAST, share * self.ceiling)
        self.bucket.capacity = max(1.0, self.bucket.per_second * 0.05)

    # ------------------------------------------------------------------------------------------------------------ learning

    def start(self, ceiling: float, now: float) -> None:
        """Begin at a pace that is known from before."""
        self.ceiling, self._ceiling_at = ceiling, now - 2.0
        self.bucket = Bucket(1.0, 0.97 * ceiling, now)

    def refused(self, sent_at: float, now: float, busy_since: float | None, cuts_in_a_row: int, most: float | None) -> None:
        """The allowance was used up when a request left at ``sent_at``.

        Parameters
        ----------
        busy_since : float or None
            Since when requests waited to leave; ``None`` where nobody does: what went then is what was asked, not what is allowed.
        cuts_in_a_row : int
            Refusals of this kind since the last answer to a request that left after one.
        most : float or None
            Requests a second that the account's known limits allow.
        """
        between, through = self._between(sent_at), self._throughput(sent_at, busy_since)
        if through is None:
            return
        if most is not None:
            through = min(through, most)
        self._news_at = sent_at
        if self._empty_at is None or sent_at - self._empty_at >= 1.0:
            self._empty_at, self._let_then = sent_at, self._let_by(sent_at)
        # The same count before each refusal is a window's; a bucket's count goes down as it is emptied.
        steady = self._through is not None and through >= FEW and abs(through - self._through) <= 0.06 * self._through
        self._through = through
        if self.bucket is None:
            found, self._hold = through, HOLD
        elif between is not None and between < 0.8 * through and not steady:
            # A full bucket was emptied: what flows in is less than what went out of it.
            found, self._hold = between, HOLD
        elif now - self._ceiling_at < 2.0 and (cuts_in_a_row < 4 or steady):
            # The burst that the last cut answered still fills the provider's window.
            found = min(self.ceiling, through)
        else:
            found = self._looked_over(through, between)
            held = now - self._ceiling_at >= self._hold and abs(found - self.ceiling) < 0.15 * self.ceiling
            least = HOLD_LONG if self._counted_over_long and through < FEW else HOLD
            self._hold = max(least, min(HOLD_MOST, 2 * self._hold)) if held else least
        self._rest_under(found, now)

    def _looked_over(self, through: float, between: float | None) -> float:
        """Requests a second that a refusal shows to be allowed which neither a full bucket nor a burst accounts for."""
        assert self.bucket is not None
        pace = self.bucket.per_second
        if through < FEW and self._by_pace and pace <= self.ceiling:
            self._counted_over_long = True
        elif self._hold >= HOLD_MOST:
            self._counted_over_long = False  # it held for long enough to be put to the test again
        self._by_pace = False
        near = 0.98 * pace
        if self._counted_over_long and through < FEW:
            return min(max(near, self.ceiling), max(through, between or 0.0))
        # The pace rises by no more than 2 % a second, so what drew the refusal lies hardly above a limit that is enforced at once; what
        # went through in the last second is a rougher measure, good for seeing the limit fall.
        self._by_pace = through > 0.8 * near
        return near if self._by_pace else min(through, near)

    def refused_too(self, now: float, busy_since: float | None) -> None:
        """Another request of the burst that was just refused: fewer went through than was counted then."""
        if self.bucket is None or self._through is None or now - self._news_at > 2.0:
            return
        through = self._throughput(self._news_at, busy_since)
        if through is not None and through < self._through:
            self._through = through
            if through < self.ceiling:
                self._rest_under(through, now)

    def _rest_under(self, ceiling: float, now: float) -> None:
        self.ceiling, self._ceiling_at = ceiling, now
        pace = max(LEAST, 0.9 * ceiling)
        self.bucket = Bucket(max(1.0, pace * 0.05), pace, now, level=0.0)

    def _let_by(self, moment: float) -> int:
        """All that were let through up to a moment of the last seconds."""
        return self._let - sum(at > moment for at in self._recent)

    def _between(self, sent_at: float) -> float | None:
        """Requests a second let through since the allowance was last used up; ``None`` where too few to tell."""
        if self._empty_at is None or sent_at - self._empty_at < 1.0:
            return None
        through = self._let_by(sent_at) - self._let_then
        return through / (sent_at - self._empty_at) if through >= 8 else None

    def _throughput(self, moment: float, busy_since: float | None) -> float | None:
        """Requests a second that went through while others waited: over the second before, or as many as are needed to count ten."""
        if busy_since is None:
            return None
        last_second = sum(moment - 1.0 < at <= moment for at in self._recent)
        if last_second >= FEW:
            return float(last_second)
        busy = max(1.0, min(60.0, moment - busy_since))
        went = sum(count for second, count in self._by_second if moment - busy - 1.0 <= second <= moment)
        return max(LEAST, went / busy)
