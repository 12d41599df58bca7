"""What jobs of 1e4 to 1e8 rows take and cost, by the simulator; and the simulator beside the engine.

``python -m benchmarks simulate``. The checks take minutes, the plans seconds; ``--only plans`` or ``--only checks`` does one of
them. Figures go to ``benchmarks/results/simulate.json``, tables to ``docs/scale.md`` (``python -m benchmarks table``), pictures to
``docs/pictures``.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from .account import Conditions
from .contest import Job, contest
from .contestants import Options
from .measure import ROOT, Measured, judged, table
from .results import kept, read
from .rows import latency
from .server import serving, stats
from .simulator import Found, Jobs, Limit, Plan, by_chunk, by_job, by_request

_DAY = 86_400.0
PICTURES = ROOT / "docs" / "pictures"

#: What a row of the plans is: a ticket of 300 tokens that is answered in 100, in 1.5 s (the median).
INPUT, OUTPUT, MEDIAN = 300.0, 100.0, 1.5


@dataclass(frozen=True)
class Tier:
    """One tier of a vendor as its documentation has it."""

    model: str
    limit: Limit
    jobs: Jobs


_OPENAI = "openai/gpt-4.1-mini"
_ANTHROPIC = "anthropic/claude-haiku-4-5"

#: https://developers.openai.com/api/docs/models/gpt-4.1-mini ("Rate limits", "Standard") and, as they stood for tiers 1 to 4 in 2026,
#: https://platform.claude.com/docs/en/api/rate-limits; looked up on 2026-11-21. The latter's tiers are called Start, Build and Scale since.
TIERS = {
    "OpenAI tier 1": Tier(_OPENAI, Limit(requests=500, tokens=200_000, a_day=10_000), Jobs(queued_tokens=2_000_000)),
    "OpenAI tier 3": Tier(_OPENAI, Limit(requests=5_000, tokens=4_000_000), Jobs(queued_tokens=40_000_000)),
    "OpenAI tier 5": Tier(_OPENAI, Limit(requests=30_000, tokens=150_000_000), Jobs(queued_tokens=15_000_000_000)),
    "Anthropic tier 1": Tier(
        _ANTHROPIC, Limit(requests=50, input=50_000, output=10_000), Jobs(100_000, 256_000_000, queued_requests=100_000)
    ),
    "Anthropic tier 4": Tier(
        _ANTHROPIC, Limit(requests=4_000, input=4_000_000, output=800_000), Jobs(100_000, 256_000_000, queued_requests=500_000)
    ),
}
SIZES = (10_000, 1_000_000, 100_000_000)
WORKERS = (1, 10, 1_000)


def _price(model: str) -> tuple[float, float]:
    """Dollars of one row, live and in a batch job, by the catalogue."""
    from llmkit.catalogue.lookup import Catalogue

    provider, _, name = model.partition("/")
    price = Catalogue().model(provider, name).price
    assert price is not None and price.input is not None and price.output is not None
    assert price.batch_input is not None and price.batch_output is not None
    live = (INPUT * price.input + OUTPUT * price.output) / 1e6
    return live, (INPUT * price.batch_input + OUTPUT * price.batch_output) / 1e6


# ---------------------------------------------------------------------------------------------------------------------- checks

_TWELVE_THOUSAND = Limit(requests=12_000)


@dataclass(frozen=True)
class Check:
    """One job for both: on the benchmark server with the engine, and in the simulator."""

    what: str
    plan: Plan
    #: Of ``Job``, where the engine is asked by ``df.llm.chat``; else the name of a contestant of ``files``.
    job: dict[str, Any] | str
    #: Which process is killed, at 40 % of the rows.
    kill: str = ""


CHECKS = {
    "64 in flight": Check("no limit, 64 in flight", Plan(5_000), {"in_flight": 64}),
    "200 a second": Check(
        "200 a second, 256 in flight",
        Plan(5_000, _TWELVE_THOUSAND, window=256),
        {"in_flight": 256, "requests_per_minute": 12_000, "tokens_per_minute": 10**9},
    ),
    "one killed": Check("`stream_file`, 64 in flight, killed and called again", Plan(5_000), "llmkit stream_file", "all"),
    "cluster": Check(
        "Dask, 2 workers, 200 a second together", Plan(5_000, _TWELVE_THOUSAND, workers=2, window=128, chunk=500), "llmkit Dask"
    ),
}


#: What other benchmarks keep of the same engine on the same server: (benchmark, part) -> (what, the plan).
KEPT = {
    ("rate", "second-told/llmkit"): ("50 a second, told", Plan(2_000, Limit(requests=3_000), window=64)),
    ("latency", "4000/llmkit"): ("no limit, 256 in flight", Plan(4_000, window=256)),
    ("latency", "10000/llmkit"): ("no limit, 256 in flight", Plan(10_000, window=256)),
}


def _checked(check: Check, rows: int) -> Measured:
    if isinstance(check.job, str):
        found, measured = _checked_files(check, check.job, rows)
    else:
        found, measured = _checked_call(check, check.job, rows)
    return {
        **measured,
        "what": check.what,
        "rows": rows,
        "simulated": found.seconds,
        "ratio": measured["seconds"] / found.seconds,
        "simulated_repeats": found.repeats,
        "simulated_peak": found.peak,
    }


def _checked_call(check: Check, job: dict[str, Any], rows: int) -> tuple[Found, Measured]:
    limit = check.plan.limit
    conditions = Conditions(
        shape="second" if limit.requests else "",
        latency=True,
        requests_per_minute=int(limit.requests) or 1,
        tokens_per_minute=10**10,
    )
    with serving(conditions) as url:
        measured = contest("benchmarks.ours", "llmkit", Job(url, rows, **job))
        counted = stats(url)
    let_in = counted["requests"] - counted["refused"]
    return by_request(replace(check.plan, rows=rows), latency), {
        "seconds": measured["seconds"],
        "repeats": let_in - rows,
        "refused": counted["refused"],
        "peak": max(counted["by_second"]),
    }


def _checked_files(check: Check, name: str, rows: int) -> tuple[Found, Measured]:
    from . import files

    (entrant,) = (one for one in files.ours() if one.name == name)
    measured = files.measured(entrant, check.kill or "limit", rows)
    plan = replace(check.plan, rows=rows)
    if check.kill:
        # It dies when so much was let in. What passes until the next call is ready is in neither of the two times.
        moment = by_request(replace(plan, rows=round(rows * files.KILLED_AT)), latency).seconds - plan.latency
        plan = replace(plan, kills=(moment,), away=0.0)
    return by_request(plan, latency), {
        "seconds": measured["seconds"],
        "repeats": measured["repeats"],
        "refused": measured["refused"],
        "peak": measured["most_a_second"],
    }


# ----------------------------------------------------------------------------------------------------------------------- plans


def _planned(tier: Tier, rows: int, workers: int) -> Measured:
    """Live: what it takes and costs, and what of it the limit decides."""
    plan = Plan(rows, tier.limit, INPUT, OUTPUT, workers=workers, window=256 if workers == 1 else 64, median=MEDIAN)
    found = by_chunk(plan)
    if workers > 1 and 0.1 * _DAY < found.seconds < 30 * _DAY:
        # A worker lives for three days, as on spot machines. A plan of years is none, and nobody need count its deaths.
        found = by_chunk(replace(plan, lives=3 * _DAY, away=60.0))
    live, _ = _price(tier.model)
    return {**found.facts(), "model": tier.model, "cost": found.requests * live}


def _in_jobs(tier: Tier, rows: int) -> Measured:
    """By batch jobs: when each takes its whole window of a day, and when it takes an hour."""
    _, batch = _price(tier.model)
    plan = Plan(rows, tier.limit, INPUT, OUTPUT)
    slow = by_job(plan, tier.jobs)
    quick = by_job(plan, replace(tier.jobs, hours=1.0))
    return {**slow.facts(), "quick": quick.seconds, "jobs": slow.events, "model": tier.model, "cost": rows * batch}


def _machines() -> dict[str, Measured]:
    """What no provider limits: places in flight and CPU decide. 1e6 rows."""
    return {str(workers): by_chunk(Plan(1_000_000, workers=workers, median=MEDIAN)).facts() for workers in WORKERS}


#: How four clusters share 500 requests a second, one of which has 70 % of the rows.
_SPLIT = (0.7, 0.1, 0.1, 0.1)
SHARED: dict[str, dict[str, Any]] = {
    "one cluster": {},
    "a quarter of the limit each, even rows": {"clusters": 4, "sharing": "static"},
    "a quarter of the limit each, one has 70 % of the rows": {"clusters": 4, "sharing": "static", "split": _SPLIT},
    "one bucket 1 ms away, one has 70 % of the rows": {"clusters": 4, "split": _SPLIT},
    "one bucket 20 ms away": {"clusters": 4, "split": _SPLIT, "round_trip": 0.02},
    "one bucket 100 ms away": {"clusters": 4, "split": _SPLIT, "round_trip": 0.1},
    "one bucket 400 ms away": {"clusters": 4, "split": _SPLIT, "round_trip": 0.4},
}
_SHARED_PLAN = Plan(50_000, Limit(requests=30_000), workers=40, window=128, median=MEDIAN, chunk=100)


def _shared(settings: dict[str, Any]) -> Measured:
    return by_request(replace(_SHARED_PLAN, **settings)).facts()


# ----------------------------------------------------------------------------------------------------------------------- to run


def run(options: Options) -> tuple[dict[str, Measured], list[dict[str, Any]]]:
    """(entries named ``check/...``, ``live/...``, ``jobs/...``, ``machines/...``, ``shared/...``; targets)."""
    entries: dict[str, Measured] = {}
    targets: list[dict[str, Any]] = []
    if options.wants("plans"):
        for name, measure, says in _all_plans():
            entries |= kept("simulate", name, measure, says)
        entries |= kept("simulate", "speed", _speed, lambda found: f"1e8 rows simulated in {found['seconds']:.2f} s")
        targets.append(judged("seconds for 1e8 rows", entries["speed"]["seconds"], 10, " s"))
        if not options.quick:
            draw()
    for name, check in CHECKS.items():
        if options.wants("checks") or name in options.only:
            rows = check.plan.rows // 5 if options.quick else check.plan.rows
            entry = kept("simulate", f"check/{name}", partial(_checked, check, rows), _short)
            (found,) = entry.values()
            entries |= entry
            if "gave_up" not in found:
                targets.append(judged(f"{name}: engine / simulator, off by", abs(found["ratio"] - 1), 0.1))
    return entries, targets


def _all_plans() -> list[tuple[str, Callable[[], Measured], Callable[[Measured], str]]]:
    def says(found: Measured) -> str:
        return f"{_time(found['seconds'])}, {found['binds']}"

    plans: list[tuple[str, Callable[[], Measured], Callable[[Measured], str]]] = []
    for name, tier in TIERS.items():
        for rows in SIZES:
            plans += [(f"live/{name}/{rows}/{workers}", partial(_planned, tier, rows, workers), says) for workers in WORKERS]
            plans.append((f"jobs/{name}/{rows}", partial(_in_jobs, tier, rows), says))
    plans += [(f"machines/{name}", partial(dict, found), says) for name, found in _machines().items()]
    plans += [(f"shared/{name}", partial(_shared, settings), says) for name, settings in SHARED.items()]
    return plans


def _speed() -> Measured:
    began = time.perf_counter()
    found = _planned(TIERS["OpenAI tier 5"], SIZES[-1], WORKERS[-1])
    return {"seconds": time.perf_counter() - began, "events": found["events"]}


def _short(found: Measured) -> str:
    return f"{found['seconds']:.1f} s beside {found['simulated']:.1f} s simulated, {found['ratio']:.3f}x"


def drawn(entries: dict[str, Measured]) -> str:
    checks = [(name, found) for name, found in entries.items() if name.startswith("check/") and "gave_up" not in found]
    lines = [
        (
            name,
            f"{found['seconds']:.1f}",
            f"{found['simulated']:.1f}",
            f"{found['ratio']:.3f}x",
            found["repeats"],
            found["simulated_repeats"],
        )
        for name, found in checks
    ]
    return table(("the engine beside the simulator", "s", "simulated s", "ratio", "paid twice", "simulated"), lines)


# ------------------------------------------------------------------------------------------------------------------ in documents


def _time(seconds: float) -> str:
    for most, unit, name in ((90, 1, "s"), (5_400, 60, "min"), (1.5 * _DAY, 3_600, "h"), (700 * _DAY, _DAY, "days")):
        if seconds < most:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds / _DAY / 365:.3g} years"


def _money(dollars: float) -> str:
    return f"${dollars:,.2f}" if dollars < 100 else f"${dollars:,.0f}"


def _exponent(rows: int) -> str:
    return f"1e{len(str(rows)) - 1}"


#: Of the machine, on its two cores: with more, it is the other work that is measured.
_MOST_LOAD = 4.0


def check_lines() -> list[list[str]]:
    lines = []
    for (benchmark, part), (what, plan) in KEPT.items():
        measured = read(benchmark).get(part)
        if measured and "gave_up" not in measured:
            lines.append(_check_line(what, plan.rows, measured, by_request(plan, latency).seconds, "–", "–"))
    found = read("simulate")
    for name in CHECKS:
        one = found.get(f"check/{name}")
        if one and "gave_up" not in one and one["load"] <= _MOST_LOAD:
            peaks = f"{one['peak']:,.0f} / {one['simulated_peak']:,.0f}"
            repeats = f"{one['repeats']:,.0f} / {one['simulated_repeats']:,.0f}"
            lines.append(_check_line(one["what"], one["rows"], one, one["simulated"], peaks, repeats))
    return lines


def _check_line(what: str, rows: int, measured: Measured, simulated: float, *more: str) -> list[str]:
    seconds = measured["seconds"]
    return [
        f"{what}, {rows:,} rows",
        f"{seconds:.1f} s",
        f"{simulated:.1f} s",
        f"{seconds / simulated:.2f}x",
        *more,
        f"{measured['load']:.1f}",
    ]


CHECK_HEAD = ("job", "engine", "simulator", "ratio", "most in a second", "paid twice", "load")


def plan_lines() -> list[list[str]]:
    found = read("simulate")
    lines = []
    for name in TIERS:
        for rows in SIZES:
            live = [found.get(f"live/{name}/{rows}/{workers}") for workers in WORKERS]
            jobs = found.get(f"jobs/{name}/{rows}")
            if jobs and all(live):
                lines.append(
                    [
                        name,
                        _exponent(rows),
                        *(_time(one["seconds"]) for one in live if one),
                        str(live[-1]["binds"]) if live[-1] else "",
                        _money(live[-1]["cost"]) if live[-1] else "",
                        f"{_time(jobs['quick'])} to {_time(jobs['seconds'])}",
                        f"{jobs['jobs']:,}",
                        _money(jobs["cost"]),
                    ]
                )
    return lines


PLAN_HEAD = ("account", "rows", "1 process", "10", "1,000", "what binds at 1,000", "cost", "by batch jobs", "jobs", "cost of jobs")


def shared_lines() -> list[list[str]]:
    found = read("simulate")
    return [
        [
            name,
            _time(one["seconds"]),
            f"{100 * one['share']:.0f} %",
            f"{one['peak']:,.0f}",
            f"{one['leases']:,.0f}",
            f"{100 * one['busy']:.1f} %",
        ]
        for name in SHARED
        if (one := found.get(f"shared/{name}"))
    ]


SHARED_HEAD = ("how", "time", "of the limit", "most in a second", "leases a second", "of the bucket's time")


def draw() -> None:
    """The pictures of ``docs/scale.md``."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    PICTURES.mkdir(exist_ok=True)
    style = {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False}
    with plt.rc_context(style):
        _draw_times(plt)
        _draw_sharing(plt)


def _draw_times(plt: Any) -> None:
    figure, axes = plt.subplots(figsize=(5.6, 3.0), dpi=110)
    sizes = [10**power for power in range(3, 9)]
    for name, tier in TIERS.items():
        days = [_planned(tier, rows, 100)["seconds"] / _DAY for rows in sizes]
        axes.plot(sizes, days, marker=".", lw=1.2, label=name)
    for height, name in ((1 / 24, "an hour"), (1, "a day"), (30, "a month")):
        axes.axhline(height, color="0.8", lw=0.6, zorder=0)
        axes.text(sizes[0], height * 1.12, name, color="0.45")
    axes.set(xscale="log", yscale="log", xlabel="rows", ylabel="days, live", ylim=(1e-5, 1e6))
    axes.legend(frameon=False, loc="upper left", ncols=2)
    _save(figure, "scale-times.png")


def _draw_sharing(plt: Any) -> None:
    figure, axes = plt.subplots(figsize=(5.6, 2.6), dpi=110)
    names = {
        "a quarter of the limit each, one has 70 % of the rows": "a quarter each",
        "one bucket 1 ms away, one has 70 % of the rows": "one bucket",
    }
    for name, label in names.items():
        series = by_request(replace(_SHARED_PLAN, **SHARED[name])).series or []
        axes.plot(series[:-1], lw=1.0, label=label)
    axes.axhline(_SHARED_PLAN.limit.requests / 60, color="0.6", lw=0.8, ls="--")
    axes.set(xlabel="seconds", ylabel="requests a second", ylim=(0, None))
    axes.legend(frameon=False)
    _save(figure, "scale-sharing.png")


def _save(figure: Any, name: str) -> None:
    figure.tight_layout()
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / name
        figure.savefig(made, metadata={"Software": None})
        (PICTURES / name).write_bytes(made.read_bytes())
