"""What usage costs at a price: parts that exceed the whole, and requests whose length changes the price."""

from __future__ import annotations

from typing import Any

import pytest

from llmkit.catalogue import Catalogue
from llmkit.catalogue.conversion import rows_of
from llmkit.errors import BadInput
from llmkit.outcomes import LIVE, Outcomes
from llmkit.run import Run
from llmkit.types import Price, Reply, Usage

MILLION = 1_000_000
FLAT = Price(2.0, 0.5, 8.0)
TIERED = Price(2.0, 0.5, 8.0, long_from=1000, long_input=4.0, long_cached_input=1.0, long_output=12.0)


def test_tokens_that_a_gateway_counts_beside_the_input_cost_no_less_than_nothing() -> None:
    assert Usage(input=10, cached_input=MILLION, requests=1).cost(FLAT) == 0.5


@pytest.mark.parametrize(
    ("usage", "dollars"),
    [
        (Usage(MILLION, requests=1), 0.0),
        (Usage(MILLION, cached_input=600_000, requests=1), 0.9),
        (Usage(MILLION, cached_input=600_000, cache_write=200_000, requests=2), 0.9 - 0.1),
        (Usage(MILLION, cache_write=MILLION, requests=1), -0.5),
    ],
)
def test_what_a_prompt_cache_saved_is_reading_less_what_writing_cost_more(usage: Usage, dollars: float) -> None:
    assert usage.saved(Price(2.0, 0.5, 8.0, cache_write=2.5)) == pytest.approx(dollars)


def test_a_saving_at_an_unknown_price_is_unknown() -> None:
    assert Usage(10, cached_input=5, requests=1).saved(Price(2.0, None, 8.0)) is None
    assert Usage(10, cache_write=5, requests=1).saved(FLAT) is None
    assert Usage(10, requests=1, unreported=1).saved(FLAT) is None
    assert Usage(10, requests=1).saved(Price()) == 0.0  # nothing came from a cache, whatever it costs


@pytest.mark.parametrize(
    ("usage", "dollars"),
    [
        (Usage(1000, 0, 100, 1), 1000 * 2 + 100 * 8),
        (Usage(1001, 0, 100, 1), 1001 * 4 + 100 * 12),
        (Usage(2000, 500, 0, 1), 1500 * 4 + 500 * 1),
        (Usage(2000, 0, 0, 0), 2000 * 4),
        (Usage(1000, 0, 100, 5), 1000 * 2 + 100 * 8),
    ],
)
def test_a_long_request_is_billed_at_the_long_prices_all_of_it(usage: Usage, dollars: int) -> None:
    assert usage.cost(TIERED) == pytest.approx(dollars / MILLION)


def test_a_sum_of_requests_of_which_one_could_be_long_has_no_known_cost() -> None:
    assert Usage(1001, 0, 0, 2).cost(TIERED) is None
    assert Usage(1001, 0, 0, 2).cost(FLAT) is not None


def test_a_long_price_that_nobody_gave_is_unknown_and_not_the_short_one() -> None:
    price = Price(2.0, 0.5, 8.0, long_from=1000, long_input=4.0, long_output=12.0)
    assert Usage(2000, 500, 0, 1).cost(price) is None
    assert Usage(900, 500, 0, 1).cost(price) is not None
    assert Usage(2000, 500, 0, 1).cost(price.dearest) == pytest.approx(2000 * 4 / MILLION), "a bound takes the most"
    assert Usage(2000, cache_write=2000, requests=1).cost(price.dearest) == pytest.approx(2000 * 8 / MILLION)


def run_of(price: Price, *usages: Usage) -> Run[Any]:
    outcomes = Outcomes(len(usages))
    for number, usage in enumerate(usages):
        outcomes.add(bytes([number]))
        outcomes.point(number, number)
        outcomes.bill(usage)
        outcomes.settle(number, Reply("said", usage), LIVE, 1, 0.1, 0)
    shape: Any = None
    return Run(id="r", operation="chat", targets=["lab/x"], prices=[price], outcomes=outcomes, shape=shape, show_progress=False)


def test_a_run_adds_what_each_row_costs_where_one_is_long() -> None:
    usages = [Usage(600, 0, 10, 1)] * 3 + [Usage(5000, 1000, 20, 1)]
    run = run_of(TIERED, *usages)
    rows = [run.cost_of(task) for task in range(4)]
    assert rows == [pytest.approx(each) for each in (1280 / MILLION, 1280 / MILLION, 1280 / MILLION, (4000 * 4 + 1000 + 240) / MILLION)]
    assert run.cost == pytest.approx(sum(row for row in rows if row is not None))


def test_many_short_rows_are_no_long_one() -> None:
    assert run_of(TIERED, *[Usage(600, 0, 10, 1)] * 9).cost == pytest.approx(9 * 1280 / MILLION)


def test_a_run_whose_long_row_has_no_known_price_has_no_known_cost() -> None:
    assert run_of(Price(2.0, 0.5, 8.0, long_from=1000, long_input=4.0), Usage(600, 0, 0, 1), Usage(5000, 0, 20, 1)).cost is None


def test_litellms_columns_for_long_requests_are_read() -> None:
    facts = {
        "litellm_provider": "openai",
        "mode": "chat",
        "input_cost_per_token": 2e-06,
        "output_cost_per_token": 8e-06,
        "input_cost_per_token_above_272k_tokens": 6e-06,
        "input_cost_per_token_above_200k_tokens": 4e-06,
        "input_cost_per_token_above_128k_tokens": 0,
        "input_cost_per_token_above_100k_tokens_batches": 1e-06,
        "output_cost_per_token_above_200k_tokens": 1.2e-05,
        "cache_read_input_token_cost_above_200k_tokens": 1e-06,
    }
    (row,) = rows_of({"x": facts}, {}, "2026-11-21", "them")
    assert row["price"] == {
        "input": 2.0,
        "output": 8.0,
        "long_from": 200_000,
        "long_input": 4.0,
        "long_cached_input": 1.0,
        "long_output": 12.0,
    }


def test_shipped_long_prices_are_above_the_short_ones() -> None:
    long = [model.price for model in Catalogue().models() if model.price.long_from is not None]
    assert len(long) > 50
    for price in long:
        assert price.long_input is not None and price.long_output is not None and price.input is not None and price.output is not None
        assert price.long_from is not None and price.long_from >= 100_000
        assert price.long_input >= price.input and price.long_output >= price.output


def test_the_cost_of_a_long_prompt_to_a_shipped_model_is_the_vendors() -> None:
    price = Catalogue().model("gemini", "gemini-2.5-pro").price
    assert Usage(200_000, 0, 1000, 1).cost(price) == pytest.approx(0.26)
    assert Usage(300_000, 0, 1000, 1).cost(price) == pytest.approx(0.765)


@pytest.mark.parametrize("length", [0, -1, 1.5, "200k", True])
def test_a_length_that_is_none_is_an_error(length: Any) -> None:
    with pytest.raises(BadInput, match="long_from of x is tokens"):
        Catalogue().merge([{"provider": "lab", "name": "x", "price": {"input": 1.0, "long_from": length}}])


def test_a_bar_may_ask_for_the_cost_while_tasks_are_added() -> None:
    class Growing(Outcomes):
        def __len__(self) -> int:
            self._length += 1  # as the loop's thread does, between any two looks
            return self._length

    outcomes = Growing(100)
    outcomes.add(b"0")
    outcomes.bill(Usage(MILLION, requests=1))
    outcomes.settle(0, Reply("said", Usage(MILLION, requests=1)), LIVE, 1, 0.1, 1)
    assert outcomes.cost([TIERED, FLAT]) == pytest.approx(2.0)
