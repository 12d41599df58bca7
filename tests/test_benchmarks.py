"""The figures in README are worth what the benchmark server's own counting is worth."""

from __future__ import annotations

import heapq
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.account import REQUESTS_PER_MINUTE, TOKENS_PER_MINUTE, Conditions, RateLimit, go_duration, ideal, tokens_of
from benchmarks.files import checked, measured, ours
from benchmarks.latency import bound
from benchmarks.plans import TIERS, _in_jobs, _planned
from benchmarks.rows import MEDIAN_LATENCY, answer, fault, latency, long_text, text
from benchmarks.server import bookings, serving, stats
from benchmarks.simulator import GROUP_ROWS, LEASED, Jobs, Limit, Plan, by_chunk, by_job, by_request

PER_SECOND = REQUESTS_PER_MINUTE // 60


def _let_in(limit: RateLimit, tokens: float, now: float, tries: int = 10_000) -> int:
    return next((count for count in range(tries) if limit.admit(tokens, now)), tries)


def test_no_second_wherever_it_begins_sees_more_than_a_sixtieth_of_the_minute() -> None:
    limit = RateLimit("second")
    assert _let_in(limit, 1, now=0.5) == PER_SECOND
    assert _let_in(limit, 1, now=1.499) == 0
    assert _let_in(limit, 1, now=1.5) == PER_SECOND


def test_a_bucket_of_a_minute_is_full_at_first_and_fills_steadily() -> None:
    limit = RateLimit("minute")
    assert _let_in(limit, 1, now=0.0) == REQUESTS_PER_MINUTE
    assert _let_in(limit, 1, now=1.0) == PER_SECOND
    assert _let_in(limit, 1, now=1_000.0) == REQUESTS_PER_MINUTE


@pytest.mark.parametrize("shape", ["second", "minute"])
def test_tokens_are_a_bucket_in_both_shapes(shape: str) -> None:
    limit = RateLimit(shape)
    assert _let_in(limit, TOKENS_PER_MINUTE / 4, now=0.0) == 4
    assert _let_in(limit, 100, now=1.0) == TOKENS_PER_MINUTE / 60 / 100


def test_a_refusal_books_nothing_and_says_truly_when_there_is_room() -> None:
    limit = RateLimit("minute")
    assert limit.admit(TOKENS_PER_MINUTE, 0.0) is None
    refusal = limit.admit(100, 0.0)
    assert refusal is not None and refusal.kind == "tokens" and refusal.limit == TOKENS_PER_MINUTE
    again = limit.admit(100, refusal.wait * 0.99)
    assert again is not None and again.wait == pytest.approx(refusal.wait * 0.01)
    assert limit.admit(100, refusal.wait) is None


def test_headers_tell_what_is_left_of_the_window_that_is_enforced() -> None:
    limit = RateLimit("second")
    for _ in range(20):
        limit.admit(100, 2.0)
    said = limit.headers(2.25)
    assert said["x-ratelimit-limit-requests"] == "3000" and said["x-ratelimit-remaining-requests"] == "30"
    assert said["x-ratelimit-reset-requests"] == "750ms"
    assert said["x-ratelimit-remaining-tokens"] == str(150_000 - 2_000 + 625)
    assert said["x-ratelimit-reset-tokens"] == "550ms"


def test_a_request_books_the_estimate_from_its_characters_or_the_output_that_it_asks_for() -> None:
    assert tokens_of(400, 0) == 100
    assert tokens_of(401, 0) == 101
    assert tokens_of(400, 512) == 512
    assert tokens_of(400, 0, characters_per_token=2.0) == 200


def test_the_ideal_spends_what_is_there_and_then_goes_at_the_refill() -> None:
    # 2,000 rows of 100 tokens: 40 bursts of 50, a second apart; or 150,000 tokens at once and 50,000 at 2,500 a second.
    assert ideal("second", [100] * 2_000) == pytest.approx(39 + MEDIAN_LATENCY)
    assert ideal("minute", [100] * 2_000) == pytest.approx(20 + MEDIAN_LATENCY)
    # Where the tokens bind in both, the shape makes no difference.
    assert ideal("second", [4_000] * 50) == pytest.approx(20 + MEDIAN_LATENCY) == ideal("minute", [4_000] * 50)


def test_durations_are_written_as_go_writes_them() -> None:
    assert [go_duration(seconds) for seconds in (0, 0.0004, 0.06, 8.64, 360, 61.5)] == ["0s", "1ms", "60ms", "8.64s", "6m0s", "1m1.5s"]


def test_the_bound_of_the_latency_benchmark_is_greedy_list_scheduling() -> None:
    assert bound(3, places=3) == max(map(latency, range(3)))
    assert bound(50, places=1) == pytest.approx(sum(map(latency, range(50))))
    free = [0.0, 0.0]
    for number in range(9):
        heapq.heapify(free)
        free[0] += latency(number)
    assert bound(9, places=2) == pytest.approx(max(free))


def test_the_bound_with_faults_tries_again_at_once_and_waits_out_what_hangs() -> None:
    hangs = next(number for number in range(1_000) if fault(number, 1) == "hang" and fault(number, 2) is None)
    before = [latency(number) for number in range(hangs + 1)]
    # As many places as rows: nobody waits for a place, so the row that hangs is the last.
    assert bound(hangs + 1, places=hangs + 1, timeout=30.0) == pytest.approx(30.0 + before[hangs])
    assert bound(hangs + 1, places=hangs + 1) == max(before)


def _ask(url: str, prompt: str, **more: Any) -> tuple[int, dict[str, str], Any]:
    body = json.dumps({"model": "bench-1", "messages": [{"role": "user", "content": prompt}], **more}).encode()
    request = urllib.request.Request(f"{url}/chat/completions", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, dict(response.headers), json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), json.load(error)


def test_the_server_books_counts_and_refuses_as_the_account_says() -> None:
    with serving(Conditions(shape="minute")) as url:
        status, headers, said = _ask(url, long_text(7, 400))
        assert status == 200 and said["choices"][0]["message"]["content"] == answer(7) and said["usage"]["prompt_tokens"] == 100
        assert headers["x-ratelimit-limit-tokens"] == "150000" and 149_900 <= int(headers["x-ratelimit-remaining-tokens"]) < 150_000
        assert _ask(url, long_text(7, 400))[0] == 200  # the same row again
        assert _ask(url, text(8), max_tokens=149_000)[0] == 200
        status, headers, said = _ask(url, text(9), max_tokens=100_000)
        assert status == 429 and said["error"]["code"] == "rate_limit_exceeded" and said["error"]["type"] == "tokens"
        assert 30_000 < int(headers["retry-after-ms"]) <= 40_001  # of what it asks for, almost nothing is there
        assert _ask(url.replace("/v1", "/free/v1"), text(9), max_tokens=100_000)[0] == 200  # the warm-up's way in
        counted, booked = stats(url), bookings(url)
    assert {name: counted[name] for name in ("requests", "refused", "answered", "rows_answered", "rows_asked", "duplicates")} == {
        "requests": 4,
        "refused": 1,
        "answered": 3,
        "rows_answered": 2,
        "rows_asked": 3,
        "duplicates": 1,
    }
    assert booked == [100, 149_000, 100_000]  # of rows that were seen, the refused one too


def test_a_server_that_sends_no_headers_says_nothing_of_its_limits_in_them() -> None:
    with serving(Conditions(shape="minute", headers=False, message=False)) as url:
        answered, refused = _ask(url, text(1), max_tokens=150_000), _ask(url, text(2), max_tokens=150_000)
    assert (answered[0], refused[0]) == (200, 429)
    for _, headers, _ in (answered, refused):
        assert not [name for name in headers if name.lower().startswith(("x-ratelimit", "retry-after"))]
    assert "150" not in refused[2]["error"]["message"]


def test_an_account_of_another_size_lets_in_that_much() -> None:
    limit = RateLimit("second", requests_per_minute=12_000, tokens_per_minute=10**9)
    assert _let_in(limit, 1, now=0.5) == 200
    assert limit.headers(0.5)["x-ratelimit-limit-requests"] == "12000"


# ------------------------------------------------------------------------------------------------------------- the simulator

TWO_HUNDRED = Limit(requests=12_000)


def test_simulated_requests_take_no_less_than_list_scheduling_and_hardly_more() -> None:
    found = by_request(Plan(2_000, window=64, cpu=0.0), latency)
    assert bound(2_000, 64) < found.seconds < 1.04 * bound(2_000, 64) + 1.0  # the window opens from eight


@pytest.mark.parametrize("workers", [1, 4])
def test_a_simulated_limit_is_used_and_kept(workers: int) -> None:
    found = by_request(Plan(4_000, TWO_HUNDRED, workers=workers, window=256 // workers, chunk=200), latency)
    assert found.requests == 4_000 and found.refused == 0
    assert found.peak <= 200
    assert 4_000 / 200 < found.seconds < 1.06 * 4_000 / 200 + 1.5


def test_going_by_chunks_and_by_requests_comes_to_the_same() -> None:
    plan = Plan(12_000, TWO_HUNDRED, workers=4, window=64, chunk=250, cpu=0.0)
    assert by_chunk(plan).seconds == pytest.approx(by_request(plan).seconds, rel=0.03)
    unlimited = Plan(30_000, workers=4, window=64, chunk=250, cpu=0.0, each_chunk=0.0)
    assert by_chunk(unlimited).seconds == pytest.approx(by_request(unlimited).seconds, rel=0.04)


def test_a_simulated_death_repeats_what_was_in_flight_or_not_on_the_disk_and_loses_nothing() -> None:
    found = by_request(Plan(4_000, workers=2, window=32, chunk=500, kills=(5.0, 10.0, 15.0)), latency)
    assert found.deaths == 3
    assert 0 < found.repeats <= 3 * (32 + GROUP_ROWS)
    deaths = by_chunk(Plan(10**6, TWO_HUNDRED, workers=10, lives=600.0))
    assert deaths.deaths > 10 and 0 < deaths.repeats <= deaths.deaths * (64 + GROUP_ROWS)


def test_a_part_of_the_limit_for_each_costs_what_those_leave_who_are_done() -> None:
    plan = Plan(8_000, TWO_HUNDRED, workers=8, window=64, chunk=100, clusters=4, split=(0.7, 0.1, 0.1, 0.1))
    one, parts = by_request(plan), by_request(Plan(**{**plan.__dict__, "sharing": "static"}))
    assert one.seconds == pytest.approx(8_000 / 200 / LEASED, rel=0.08)
    assert parts.seconds == pytest.approx(0.7 * 8_000 / 50, rel=0.08)


def test_a_bucket_that_is_asked_too_often_holds_everybody_up() -> None:
    plan = Plan(2_000, TWO_HUNDRED, workers=40, window=16, chunk=50)
    busy = by_request(Plan(**{**plan.__dict__, "service": 0.02}))
    assert by_request(plan).busy < 0.05 < 0.9 < busy.busy
    assert busy.seconds > 1.5 * by_request(plan).seconds


def test_a_days_quota_takes_days() -> None:
    plan = Plan(25_000, Limit(requests=500, a_day=10_000))
    assert 2 * 86_400 < by_chunk(plan).seconds < 2.1 * 86_400
    assert by_chunk(plan).binds == "requests a day"


def test_a_minutes_worth_of_tokens_goes_at_once() -> None:
    plan = Plan(30_000, Limit(requests=60_000, tokens=4_000_000), window=2_000, cpu=0.0)
    # 10,000 rows are there at first and 10,000 come in each minute.
    assert by_chunk(plan).seconds == pytest.approx(120, rel=0.08)


def test_jobs_wait_for_room_in_the_queue() -> None:
    plan, hour = Plan(100_000), Jobs(requests=50_000, bytes=10**12, hours=1.0)
    assert 1_800 < by_job(plan, hour).seconds <= 3_600
    short = by_job(plan, Jobs(requests=50_000, bytes=10**12, queued_tokens=10_000 * 300, hours=1.0))
    assert short.events == 10 and short.seconds > 10 * 1_800
    assert by_job(plan, Jobs(requests=50_000, bytes=8_000_000, hours=1.0)).events == 20


def test_what_a_contestant_wrote_is_counted_by_row(tmp_path: Path) -> None:
    def write(name: str, numbers: list[int], said: list[str | None]) -> None:
        pq.write_table(pa.table({"id": numbers, "answer": said}), tmp_path / name)

    write("part.9.parquet", [0, 1], [answer(0), answer(1)])
    write("part.10.parquet", [2, 3], [answer(2), answer(7)])
    write("_errors.parquet", [5], [answer(5)])
    assert checked(tmp_path, 5) == {"lost": 1, "wrong": 1, "twice": 0, "in_order": True}
    write("part.8.parquet", [4, 3], [None, answer(3)])
    assert checked(tmp_path, 5) == {"lost": 1, "wrong": 1, "twice": 1, "in_order": False}


def test_a_file_goes_through_a_contestant_in_a_process_of_its_own() -> None:
    found = measured(ours()[0], "free", 60)
    assert {name: found[name] for name in ("rows", "lost", "wrong", "twice", "in_order", "repeats", "refused", "runs")} == {
        "rows": 60,
        "lost": 0,
        "wrong": 0,
        "twice": 0,
        "in_order": True,
        "repeats": 0,
        "refused": 0,
        "runs": 1,
    }
    assert found["seconds"] > 0 and found["peak"] > 10_000_000


@pytest.mark.parametrize("tier", TIERS)
def test_the_catalogue_prices_every_plan_and_jobs_are_the_cheaper_way(tier: str) -> None:
    live, jobs = _planned(TIERS[tier], 10_000, 10), _in_jobs(TIERS[tier], 10_000)
    assert 0 < jobs["cost"] < live["cost"]
    assert live["seconds"] >= 0.9 * 10_000 / TIERS[tier].limit.requests * 60 - 60
