"""How long so many rows take, what they cost and what is paid twice, computed instead of waited for.

Two models with one kind of plan and one kind of answer. ``by_request`` goes through every request of a small job: places in flight, the CPU
of the process that has them, the limiter's pacing, leases of a cluster's bucket and the way to it (the very `Buckets` and `Share` that a
cluster runs, on a clock of its own), the provider's account as the benchmark server keeps it, groups of answers on their way to the disk,
workers that die. ``by_chunk`` goes through the chunks of a large one: between two events (a chunk ends, a worker dies or comes back, a
day's quota is used up) every worker goes at the same speed, the lesser of what its places allow and its part of the limit, so that 1e8 rows
are 40,000 events. ``by_job`` does the same with a vendor's batch jobs. Nothing sleeps.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from llmkit.scale.buckets import Buckets, Lease, Share

from .account import RateLimit
from .rows import MEDIAN_LATENCY

_MINUTE, _DAY = 60.0, 86_400.0
#: Rows: less is rounding, which after years of seconds is not little.
_NOTHING = 1e-3

#: The limiter keeps to a second that is so much longer than the provider's (``engine/budgets.py``): at first, and once connections stand.
LONGER_FIRST, LONGER, LONGER_HALVES = 0.04, 0.008, 3.0
#: Of a limit that several share, what they lease: two leases touch, so there is nothing that a delay could eat up (``_evenly``).
LEASED = 59 / 60
#: Answers wait so long, or for so many others, before they are durable (``engine/writer.py``).
GROUP_ROWS, GROUP_SECONDS = 64, 0.2
#: Places in flight before the first answer, and by how much they become more once an eighth of them is answered (``engine/limiter.py``).
FIRST_WINDOW, OPENING = 8.0, 4.0


@dataclass(frozen=True)
class Limit:
    """What an account allows in a minute; 0 is no limit. ``a_day`` is requests a day."""

    requests: float = 0.0
    tokens: float = 0.0
    input: float = 0.0
    output: float = 0.0
    a_day: float = 0.0

    def rows_a_second(self, plan: Plan) -> tuple[float, str]:
        """(rows a second, which limit says so) once what had been saved up is spent; a day's quota apart."""
        said = {
            "requests": self.requests,
            "tokens": self.tokens / (plan.input_tokens + plan.output_tokens),
            "input tokens": self.input / plan.input_tokens,
            "output tokens": self.output / plan.output_tokens,
        }
        known = {name: rows / _MINUTE for name, rows in said.items() if rows}
        return min(((rows, name) for name, rows in known.items()), default=(math.inf, "places in flight"))

    def saved_up(self, plan: Plan) -> float:
        """Rows that a full minute's bucket of tokens lets through at first. Requests are taken to be enforced by the second."""
        said = (
            self.tokens / (plan.input_tokens + plan.output_tokens),
            self.input / plan.input_tokens,
            self.output / plan.output_tokens,
        )
        return min((rows for rows in said if rows), default=math.inf)


@dataclass(frozen=True)
class Plan:
    """One job and what it runs on. Moments and lengths are seconds."""

    rows: int
    limit: Limit = Limit()
    input_tokens: float = 300.0
    output_tokens: float = 100.0
    #: Processes that send, over all clusters, and requests that one may have in flight.
    workers: int = 1
    window: int = 64
    #: Clusters or notebooks that send with the same key; each has its part of the workers and of the rows (``split``, else evenly).
    clusters: int = 1
    split: tuple[float, ...] = ()
    #: ``"one"`` bucket that all take from, wherever it stands, or a ``"static"`` part of the limit for each cluster.
    sharing: str = "one"
    #: To the bucket and back, and what one lease keeps it busy for: nobody else is served meanwhile.
    round_trip: float = 0.001
    service: float = 0.000_3
    median: float = MEDIAN_LATENCY
    sigma: float = 0.5
    #: CPU of a request at its worker.
    cpu: float = 0.000_4
    chunk: int = 5_000
    #: What each chunk costs beside its requests: begun, written, reported.
    each_chunk: float = 0.05
    #: How long a worker lives on average (0: for ever), and until another stands in its place.
    lives: float = 0.0
    away: float = 5.0
    #: Moments at which a worker dies, beside that.
    kills: tuple[float, ...] = ()
    seed: int = 0

    @property
    def latency(self) -> float:
        """The mean of the lognormal distribution."""
        return self.median * math.exp(self.sigma**2 / 2)

    def rows_of(self, cluster: int) -> int:
        parts = self.split or (1 / self.clusters,) * self.clusters
        ends = [round(self.rows * sum(parts[: place + 1])) for place in range(self.clusters)]
        return ends[cluster] - (ends[cluster - 1] if cluster else 0)

    def workers_of(self, cluster: int) -> int:
        return self.workers // self.clusters + (cluster < self.workers % self.clusters)

    @property
    def part(self) -> float:
        """Of the limit that one bucket gives out."""
        return 1 / self.clusters if self.sharing == "static" else 1.0


@dataclass
class Found:
    """What a plan comes to."""

    rows: int
    seconds: float = 0.0
    #: Requests that the provider let in; what is more than the rows was paid twice.
    requests: float = 0.0
    refused: float = 0.0
    #: Of what the limit would have let through in that time, and what binds.
    share: float = 0.0
    binds: str = ""
    #: Most requests let in within any second that begins at a whole one.
    peak: float = 0.0
    #: Times that a bucket was asked, a second, and the part of its time that this takes.
    leases: float = 0.0
    busy: float = 0.0
    deaths: int = 0
    events: int = 0
    series: list[float] | None = None

    @property
    def repeats(self) -> float:
        return self.requests - self.rows

    def facts(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "seconds": self.seconds,
            "requests": self.requests,
            "repeats": self.repeats,
            "refused": self.refused,
            "share": self.share,
            "binds": self.binds,
            "peak": self.peak,
            "leases": self.leases,
            "busy": self.busy,
            "deaths": self.deaths,
            "events": self.events,
        }


# ------------------------------------------------------------------------------------------------------------ request by request


class _Events:
    """What happens next, and when it is now."""

    def __init__(self) -> None:
        self.now = 0.0
        self.count = 0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []

    def at(self, when: float, what: Callable[[], None]) -> None:
        self.count += 1
        heapq.heappush(self._queue, (max(when, self.now), self.count, what))

    def run(self, until: Callable[[], bool]) -> None:
        while self._queue and not until():
            self.now, _, what = heapq.heappop(self._queue)
            what()


class _Pace:
    """One process that was told the limit, or reads it in headers: no second sees more, and a second is a little longer here."""

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._sent: deque[float] = deque()
        self._longer = LONGER_FIRST
        self._at = 0.0

    def wait(self, now: float) -> float:
        """Take leave for one request: 0, or seconds until it is worth asking again."""
        if math.isinf(self._per_second):
            return 0.0
        most = max(1, int(self._per_second))
        span = most / self._per_second + self._longer
        if len(self._sent) >= most and self._sent[0] + span > now:
            return self._sent[0] + span - now
        self._longer = LONGER + (self._longer - LONGER) * 0.5 ** ((now - self._at) / LONGER_HALVES)
        self._at = now
        self._sent.append(now)
        if len(self._sent) > most:
            self._sent.popleft()
        return 0.0


class _Bucket:
    """Where a cluster's leases come from: one after another, each of which takes its time."""

    def __init__(self, events: _Events, plan: Plan) -> None:
        self._events = events
        self._plan = plan
        self._buckets = Buckets(lambda: events.now)
        self._free_at = 0.0
        self.asked = 0
        self.busy = 0.0

    def ask(self, worker: str, share: Share, least: float) -> None:
        there = self._events.now + self._plan.round_trip / 2
        self._events.at(there, lambda: self._serve(worker, share, least))

    def refuse(self, wait: float) -> None:
        self._buckets.refuse("account", wait)

    def _serve(self, worker: str, share: Share, least: float) -> None:
        done = max(self._events.now, self._free_at) + self._plan.service
        self._free_at = done
        self.asked += 1
        self.busy += self._plan.service
        said = self._buckets.lease("account", worker, least)
        back = done + self._plan.round_trip / 2
        if isinstance(said, Lease):
            self._events.at(back, lambda: share.granted(said))
        else:
            self._events.at(back + said, lambda: share.missed())


class _Leased:
    """A worker's leave to send, from its share of a bucket."""

    def __init__(self, events: _Events, bucket: _Bucket, name: str, per_second: float) -> None:
        self._per_second = per_second
        self._share = Share(lambda least: bucket.ask(name, self._share, least), lambda _: None, lambda: events.now)

    def wait(self, now: float) -> float:
        if math.isinf(self._per_second):
            return 0.0
        taken, wait = self._share.take("requests", 1.0, LEASED * self._per_second, self._per_second)
        return 0.0 if taken else wait


class _Process:
    """One worker: its places in flight, its chunks, its CPU, and the answers that are not on the disk yet."""

    def __init__(self, job: _Job, cluster: int, name: str) -> None:
        self._job = job
        self.cluster = cluster
        self.name = name
        self.queue: deque[int] = deque()
        self.held: dict[int, float] = {}
        self.begin()

    def begin(self) -> None:
        """As it stands after its start: nothing in flight, nothing known."""
        plan = self._job.plan
        self.alive = True
        self.life = getattr(self, "life", 0) + 1
        self.pace = self._job.pace(self)
        told = plan.limit.requests * plan.part / _MINUTE if plan.workers == 1 else 0.0
        self.window = min(float(plan.window), max(FIRST_WINDOW, plan.window / 8, told))
        self._opened_after = self._welcome = self._sent = 0
        self._cpu_free = self._job.events.now
        self._woken_at = math.inf
        self.in_flight: set[int] = set()
        self.unsaved: list[int] = []

    def fill(self) -> None:
        """Send what may leave now."""
        now = self._job.events.now
        if not self.alive:
            return
        while len(self.in_flight) < int(self.window):
            if not self.queue and not self._job.draw(self):
                return
            wait = self.pace.wait(now)
            if wait > 0:
                self._wake_in(wait)
                return
            self._send(self.queue.popleft())

    def _wake_in(self, wait: float) -> None:
        events, life = self._job.events, self.life
        when = events.now + wait
        if when < self._woken_at - 1e-9:
            self._woken_at = when

            def wake() -> None:
                if life == self.life and self._woken_at == when:
                    self._woken_at = math.inf
                    self.fill()

            events.at(when, wake)

    def _send(self, row: int) -> None:
        events, plan, life = self._job.events, self._job.plan, self.life
        self.in_flight.add(row)
        self._sent += 1
        number = self._sent
        self._cpu_free = max(self._cpu_free, events.now) + plan.cpu

        def arrive() -> None:
            if life != self.life:
                return  # it never left
            wait = self._job.admit(row)
            if wait is None:
                events.at(events.now + self._job.latency(row), answered)
            else:
                self._job.refuse(self, wait)
                events.at(events.now + wait + self._job.random.uniform(0.0, 0.05), arrive)

        def answered() -> None:
            if life == self.life:
                self._answered(row, number)

        # What lies between here and the provider's clock is never the same twice.
        events.at(self._cpu_free + self._job.random.uniform(0.0005, 0.002), arrive)

    def _answered(self, row: int, number: int) -> None:
        self.in_flight.remove(row)
        if self.window < self._job.plan.window and number > self._opened_after:
            self._welcome += 1
            if self._welcome >= min(self.window, self._sent - self._opened_after) / 8:
                self._opened_after, self._welcome = self._sent, 0
                self.window = min(float(self._job.plan.window), self.window * OPENING)
        self.unsaved.append(row)
        if len(self.unsaved) >= GROUP_ROWS:
            self._save()
        elif len(self.unsaved) == 1:
            life = self.life
            self._job.events.at(self._job.events.now + GROUP_SECONDS, lambda: self._save() if life == self.life else None)
        self.fill()

    def _save(self) -> None:
        rows, self.unsaved = self.unsaved, []
        self._job.keep(rows)

    def die(self) -> None:
        """What was in flight or not on the disk is asked again, by who comes in its place."""
        if not self.alive:
            return
        self.alive = False
        self.life += 1
        self.queue.extendleft([*self.unsaved, *sorted(self.in_flight)])
        events = self._job.events

        def again() -> None:
            self.life -= 1
            self.begin()
            self.fill()

        events.at(events.now + self._job.plan.away, again)


class _Job:
    """A plan under way."""

    def __init__(self, plan: Plan, latency: Callable[[int], float] | None) -> None:
        self.plan = plan
        self.events = _Events()
        self.random = random.Random(plan.seed)
        self.latency = latency or (lambda row: self.random.lognormvariate(math.log(plan.median), plan.sigma))
        rate, self.binds = plan.limit.rows_a_second(plan)
        self._per_second = rate * plan.part
        self.limit = RateLimit("second", round(rate * _MINUTE), 10**12) if rate < math.inf else None
        self.let_in: Counter[int] = Counter()
        self.requests = self.refused = self.deaths = 0
        self._left = [iter(self._rows(cluster)) for cluster in range(plan.clusters)]
        self._kept = 0
        self.finished_at = 0.0
        shared = _Bucket(self.events, plan)
        self._buckets = [shared if plan.sharing == "one" else _Bucket(self.events, plan) for _ in range(plan.clusters)]
        self.processes = [
            _Process(self, cluster, f"{cluster}-{place}") for cluster in range(plan.clusters) for place in range(plan.workers_of(cluster))
        ]

    def _rows(self, cluster: int) -> Iterator[range]:
        begins = sum(self.plan.rows_of(one) for one in range(cluster))
        ends = begins + self.plan.rows_of(cluster)
        return (range(first, min(first + self.plan.chunk, ends)) for first in range(begins, ends, self.plan.chunk))

    def pace(self, process: _Process) -> Any:
        if self.plan.workers_of(process.cluster) == 1 and (self.plan.clusters == 1 or self.plan.sharing == "static"):
            return _Pace(self._per_second)
        return _Leased(self.events, self._buckets[process.cluster], f"{process.name}-{process.life}", self._per_second)

    def draw(self, process: _Process) -> bool:
        chunk = next(self._left[process.cluster], None)
        if chunk is not None:
            process.queue.extend(chunk)
        return chunk is not None

    def admit(self, row: int) -> float | None:
        """Let a request in, or say in how many seconds there is room."""
        refusal = self.limit.admit(1.0, self.events.now) if self.limit else None
        if refusal is not None:
            self.refused += 1
            return refusal.wait
        self.requests += 1
        self.let_in[int(self.events.now)] += 1
        return None

    def refuse(self, process: _Process, wait: float) -> None:
        """All who take from the same bucket hear of it."""
        self._buckets[process.cluster].refuse(wait)

    def keep(self, rows: list[int]) -> None:
        self._kept += len(rows)
        self.finished_at = self.events.now

    def run(self) -> Found:
        plan = self.plan
        for process in self.processes:
            process.fill()
            if plan.lives:
                self._doom(process)
        for place, moment in enumerate(plan.kills):
            self.events.at(moment, partial(self._kill, self.processes[place % len(self.processes)]))
        self.events.run(lambda: self._kept >= plan.rows)
        seconds = self.finished_at
        rate = plan.limit.rows_a_second(plan)[0]
        last = int(seconds)
        buckets = {id(one): one for one in self._buckets}.values()
        return Found(
            plan.rows,
            seconds,
            requests=self.requests,
            refused=self.refused,
            share=0.0 if math.isinf(rate) else self.requests / (rate * seconds),
            binds=self.binds,
            peak=max(self.let_in.values(), default=0),
            leases=sum(one.asked for one in buckets) / seconds,
            busy=sum(one.busy for one in buckets) / seconds,
            deaths=self.deaths,
            events=self.events.count,
            series=[float(self.let_in[second]) for second in range(last + 1)],
        )

    def _doom(self, process: _Process) -> None:
        def end() -> None:
            self._kill(process)
            self._doom(process)

        self.events.at(self.events.now + self.random.expovariate(1 / self.plan.lives), end)

    def _kill(self, process: _Process) -> None:
        self.deaths += process.alive
        process.die()


def by_request(plan: Plan, latency: Callable[[int], float] | None = None) -> Found:
    """Every request of a small job. ``latency`` says how long the answer to a row takes; else it is drawn."""
    return _Job(plan, latency).run()


# ---------------------------------------------------------------------------------------------------------------- chunk by chunk


class _Cluster:
    """Workers of one cluster that all go at the same speed. ``done`` is how many rows one that worked all the time has done: what a worker
    began at ``done`` and has so many rows ends when ``done`` has grown by them, however the speed changed meanwhile."""

    def __init__(self, plan: Plan, cluster: int) -> None:
        self.left = plan.rows_of(cluster)
        self.workers = plan.workers_of(cluster)
        self.chunk = min(plan.chunk, max(1, math.ceil(self.left / max(1, self.workers))))
        self.done = 0.0
        self.at_work: list[float] = []
        self.resting: list[tuple[float, float]] = []

    @property
    def busy(self) -> bool:
        return bool(self.left or self.at_work or self.resting)


def by_chunk(plan: Plan) -> Found:
    """A large job by its chunks, with speeds that change when something happens."""
    kept_to = 1 / (1 + LONGER) if plan.workers == 1 else LEASED
    draw = random.Random(plan.seed)
    rate, binds = plan.limit.rows_a_second(plan)
    places = min(plan.window / plan.latency, 1 / plan.cpu if plan.cpu else math.inf)
    saved = plan.limit.saved_up(plan)
    requests_only = replace(plan.limit, tokens=0.0, input=0.0, output=0.0).rows_a_second(plan)[0]
    clusters = [_Cluster(plan, cluster) for cluster in range(plan.clusters)]
    now, count, deaths, sent, repeats, leases, peak = 0.0, 0, 0, 0.0, 0.0, 0.0, 0.0
    today, day = 0.0, 0
    for one in clusters:
        for _ in range(one.workers):
            # The window opens on the first answers.
            one.resting.append((plan.latency, 0.0))
    series: list[tuple[float, float]] = []
    while any(one.busy for one in clusters):
        count += 1
        # Who rested begins again, with what he had left or with a chunk.
        for one in clusters:
            for back, rows in sorted(one.resting):
                if back > now + 1e-9:
                    break
                one.resting.remove((back, rows))
                if not rows:
                    rows = min(one.chunk, one.left)
                    one.left -= rows
                if rows:
                    heapq.heappush(one.at_work, one.done + rows)
        working = sum(len(one.at_work) for one in clusters)
        spent = plan.limit.a_day and today >= plan.limit.a_day - _NOTHING
        allowed = 0.0 if spent else (requests_only if saved > _NOTHING else rate) * kept_to
        speeds = [_speed(one, plan, allowed, places, working) for one in clusters]
        flow = sum(speed * len(one.at_work) for one, speed in zip(clusters, speeds, strict=True))
        # Until when nothing changes.
        ends = [now + (one.at_work[0] - one.done) / speed for one, speed in zip(clusters, speeds, strict=True) if one.at_work and speed]
        ends += [back for one in clusters for back, _ in one.resting if back > now]
        if spent:
            ends.append((day + 1) * _DAY)
        if flow > rate and saved > _NOTHING and not math.isinf(saved):
            ends.append(now + saved / (flow - rate))
        if flow and plan.limit.a_day:
            ends.append(now + (plan.limit.a_day - today) / flow)
        dying = working / plan.lives if plan.lives else 0.0
        dies = dying and now + draw.expovariate(dying)
        until = min([*ends, dies] if dies else ends, default=now)
        if flow:
            series.append((now, flow))
            peak = max(peak, flow)
        passed = until - now
        now = until
        sent += flow * passed
        today += flow * passed
        if not math.isinf(rate):
            saved -= max(0.0, flow - rate) * passed
        leases += min(working / 0.5, flow) * passed if plan.workers > 1 else 0.0
        if int(now / _DAY + 1e-9) > day:
            day, today = int(now / _DAY + 1e-9), 0.0
        for one, speed in zip(clusters, speeds, strict=True):
            one.done += speed * passed
            while one.at_work and one.at_work[0] <= one.done + _NOTHING:
                heapq.heappop(one.at_work)
                one.resting.append((now + plan.each_chunk, 0.0) if one.left else (math.inf, 0.0))
            one.resting = [rest for rest in one.resting if rest[0] < math.inf]
        if dies and until == dies:
            deaths += 1
            which = draw.choices(range(plan.clusters), [len(one.at_work) for one in clusters])[0]
            one, speed = clusters[which], speeds[which]
            ends_at = one.at_work.pop(draw.randrange(len(one.at_work)))
            heapq.heapify(one.at_work)
            again = min(plan.window, speed * plan.latency) + min(GROUP_ROWS / 2, speed * GROUP_SECONDS / 2)
            repeats += again
            one.resting.append((now + plan.away, ends_at - one.done + again))
    # The last answers of all are still on their way, slow ones among them, when the last chunk has sent its last row.
    seconds = now + plan.median * math.exp(2 * plan.sigma) + GROUP_SECONDS
    possible = rate * seconds if not plan.limit.a_day else min(rate * seconds, plan.limit.a_day * math.ceil(seconds / _DAY))
    return Found(
        plan.rows,
        seconds,
        requests=plan.rows + repeats,
        share=0.0 if math.isinf(possible) else min(1.0, sent / possible),
        binds=_binds(plan, rate, binds, places),
        peak=peak,
        leases=leases / seconds,
        busy=leases / seconds * plan.service,
        deaths=deaths,
        events=count,
        series=[flow for _, flow in series],
    )


def _speed(one: _Cluster, plan: Plan, allowed: float, places: float, working: int) -> float:
    """Rows a second of each of this cluster's workers."""
    if not one.at_work:
        return 0.0
    mine = allowed / plan.clusters / len(one.at_work) if plan.sharing == "static" else allowed / max(1, working)
    return min(places, mine)


def _binds(plan: Plan, rate: float, binds: str, places: float) -> str:
    if plan.limit.a_day and plan.limit.a_day / _DAY < rate:
        return "requests a day"
    return "places in flight" if places * plan.workers < rate else binds


# ------------------------------------------------------------------------------------------------------------------ job by job


@dataclass(frozen=True)
class Jobs:
    """A vendor's batch jobs: caps of one, what may wait at once, and how long one takes. 0 is no cap."""

    requests: int = 50_000
    bytes: int = 200_000_000
    queued_tokens: float = 0.0
    queued_requests: float = 0.0
    hours: float = 24.0
    #: Of the rows of a job that its window runs out on, which go into another.
    expired: float = 0.0


def by_job(plan: Plan, jobs: Jobs, row_bytes: int = 1_600) -> Found:
    """A job of batch jobs: as many as may wait are handed in; one that ends makes room for the next."""
    each = max(1, min(jobs.requests, jobs.bytes // row_bytes))
    if jobs.queued_tokens:
        each = max(1, min(each, int(jobs.queued_tokens // plan.input_tokens)))
    draw = random.Random(plan.seed)
    left, now, waiting, requests, count, most = float(plan.rows), 0.0, 0.0, 0.0, 0, 0.0
    under_way: list[tuple[float, float]] = []
    room = min(
        jobs.queued_tokens / plan.input_tokens if jobs.queued_tokens else math.inf,
        jobs.queued_requests or math.inf,
    )
    while left > 0.5 or under_way:
        while left > 0.5 and waiting + min(each, left) <= room:
            rows = min(each, left)
            left -= rows
            waiting += rows
            requests += rows
            count += 1
            # Between half its window and all of it, or quicker where it is quicker.
            heapq.heappush(under_way, (now + jobs.hours * 3600 * draw.uniform(0.5, 1.0), rows))
        most = max(most, len(under_way))
        now, rows = heapq.heappop(under_way)
        waiting -= rows
        left += rows * jobs.expired
    return Found(plan.rows, now, requests=float(plan.rows), binds="batch jobs", peak=most, events=count)
