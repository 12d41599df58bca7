"""One account's limit on many machines: who may send so much, and when, is said in one place and a second ahead.

The `Buckets` of a cluster stand on its scheduler. They lay what is leased out one after another in time: a lease is an account from this
moment to that one, with all its limits, and no two of one account overlap, so however many workers there are, no second sees more than a
limit. (Were requests and tokens leased apart, a worker would have the one while another has the other.) A lease is
spent when it is granted: a worker that dies with one wastes less than a second and makes nobody wait. Each process has a `Share`, which
spends its leases evenly over their time; what it could not use in its time is lost and not caught up with, since a worker that stood still
for a moment would send at once what belongs to others now.

No clock is shared, and answers do not travel equally fast: one that came late would be spent while the next worker's is. So a lease
says what the clock was where it was granted; the fastest answer so far tells how the two clocks differ, and the others go by it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Buckets", "Lease", "Share"]

#: Seconds that all leases of an account together may lie ahead.
HORIZON = 1.0
#: Seconds of the leases of all who share, and for how long a worker that asked counts as one of them.
WORTH = 0.3
ASKED_LATELY = 3.0
#: Seconds that a request takes at least: of what is taken piece by piece, next to nothing may be left.
_LEAST = 1e-6
#: Seconds after a refusal that said none, in which nothing is leased.
PENALTY = 0.25
#: A refusal asks for no more than this of all workers; one that asks for hours is for those to judge who see it.
LONGEST_PENALTY = 60.0


@dataclass(frozen=True, slots=True)
class Lease:
    """An account from ``begins`` to ``ends``, which are seconds from the moment ``at`` of the clock where it was granted."""

    begins: float
    ends: float
    at: float


@dataclass(slots=True)
class _Line:
    """What of one account is leased: all up to ``until``; and when each worker asked last."""

    until: float = 0.0
    askers: dict[str, float] = field(default_factory=dict)


class Buckets:
    """The limits of the accounts that a cluster asks on. One thread only.

    Parameters
    ----------
    now : callable
        A clock that nobody sets.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lines: dict[str, _Line] = {}
        self._paused: dict[str, float] = {}
        #: Limits that providers told some worker, by account and kind: a minute's worth.
        self.told: dict[str, dict[str, float]] = {}

    def lease(self, account: str, worker: str, least: float) -> Lease | float:
        """A lease for a worker; or seconds until it is worth asking again, where others have all of the near future.

        Parameters
        ----------
        account : str
            A fingerprint: who is asked with which key for which model.
        worker : str
            Who asks.
        least : float
            Seconds that its next request takes of the limit that binds it most. A lease is a whole number of them.
        """
        now = self._now()
        line = self._lines.setdefault(account, _Line())
        line.askers[worker] = now
        begins = max(now, line.until, self._paused.get(account, 0.0))
        if begins > now + HORIZON + 1e-6:
            return begins - now - HORIZON
        line.askers = {name: at for name, at in line.askers.items() if at > now - ASKED_LATELY}
        share = WORTH / len(line.askers)
        line.until = begins + max(1, int(share / least)) * least
        return Lease(begins - now, line.until - now, now)

    def refuse(self, account: str, seconds: float | None) -> None:
        """A provider told somebody to slow down: nobody gets a lease for so long."""
        wait = PENALTY if not seconds else min(seconds, LONGEST_PENALTY)
        self._paused[account] = max(self._paused.get(account, 0.0), self._now() + wait)

    def paused(self, account: str) -> float:
        """Seconds for which nothing is leased."""
        return max(0.0, self._paused.get(account, 0.0) - self._now())


@dataclass(slots=True)
class _Held:
    """A lease as it is spent: nothing is left before ``at`` of what is counted by that name."""

    begins: float
    ends: float
    at: dict[str, float] = field(default_factory=dict)


class Share:
    """What this process may take of an account's limits: a ``budgets.Shared``.

    Parameters
    ----------
    ask : callable
        ``ask(least)`` sends for a lease, without waiting for it; ``granted`` or ``missed`` says what came.
    tell : callable
        ``tell(seconds)``: the provider refused a request here; ``None`` where it did not say for how long.
    now : callable
        A clock that nobody sets.
    """

    everywhere = True

    #: Seconds before the end of what is leased that more is asked for; a lease that was promised and did not come is asked for anew.
    AHEAD = 0.15
    PATIENCE = 10.0
    #: Seconds between two looks for a lease that is on its way.
    LOOK = 0.02
    #: Seconds until one that was not granted is asked for anew.
    AGAIN = 0.3
    #: Seconds' worth that may be caught up with.
    LATE = 0.012
    #: By so much two clocks may drift apart, in seconds a second.
    DRIFT = 1e-4

    def __init__(self, ask: Callable[[float], Any], tell: Callable[[float | None], Any], now: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._tell = tell
        self._now = now
        #: Leases that another thread handed in, and those that are known here.
        self._came: deque[_Held] = deque()
        self._held: deque[_Held] = deque()
        self._asked = float("-inf")
        #: Seconds that the last request took of each limit.
        self._takes: dict[str, float] = {}
        #: Seconds that were taken beyond the end of a lease, and belong to the next ones.
        self._owed: dict[str, float] = {}
        #: How far this clock is ahead of the one where leases are granted, and the time an answer takes at least; and when that was found.
        self._ahead, self._ahead_at = float("inf"), now()

    def take(self, kind: str, amount: float, per_second: float, capacity: float) -> tuple[float, float]:
        """(what was taken, seconds to wait): ``amount``, or nothing and how long until it is worth asking again."""
        if per_second <= 0:
            return 0.0, HORIZON
        now, held = self._now(), self._held
        takes = self._takes[kind] = max(_LEAST, amount / per_second)
        while self._came:
            held.append(self._came.popleft())
        while held and held[0].ends <= now - self.LATE:
            held.popleft()
        if (held[-1].ends if held else now) < now + self.AHEAD and now > self._asked + self.PATIENCE:
            self._asked = now
            self._ask(max(self._takes.values()))
        for lease in held:
            at = lease.at.get(kind, lease.begins)
            if at >= lease.ends - 1e-9:
                continue  # of this nothing is left in it
            at += self._owed.pop(kind, 0.0)
            if now < at < lease.ends:
                lease.at[kind] = at
                return 0.0, min(at - now, self.AHEAD)
            taken = at < lease.ends
            if taken:
                at = max(at, now - self.LATE) + takes
            if at > lease.ends:
                self._owed[kind] = at - lease.ends
            lease.at[kind] = min(at, lease.ends)
            if taken:
                return amount, 0.0
        return 0.0, self.LOOK

    def granted(self, lease: Lease) -> None:
        now = self._now()
        self._ahead = min(self._ahead + (now - self._ahead_at) * self.DRIFT, now - lease.at)
        self._ahead_at = now
        at = lease.at + self._ahead
        self._came.append(_Held(at + lease.begins, at + lease.ends))
        self._asked = float("-inf")

    def missed(self) -> None:
        """No lease came: it is asked for anew when it is wanted."""
        self._asked = self._now() - self.PATIENCE + self.AGAIN

    def refused(self, seconds: float | None) -> None:
        self._tell(seconds)
