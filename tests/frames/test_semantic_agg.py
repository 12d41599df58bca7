"""``df.llm.agg`` against a server that adds up numbers, so that a row that was left out, or read twice, is seen."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd
import pytest

import llmkit
from llmkit.errors import ConfigError, InvalidRequest, KeyRejected
from llmkit.frames.semantic_agg import packed
from llmkit.types import Estimate
from tests.loopback import Loopback, bad_key, server_error
from tests.loopback.errors.openai import invalid
from tests.loopback.oracle import Oracle

from .asked import errors

CHAT: dict[str, Any] = {"model": "lab/test-chat", "show_progress": False}
QUESTION = "What do the amounts in {text} add up to?"


def added(text: str) -> str:
    return f"sum {sum(map(int, re.findall('(?:amount|sum) ([0-9]+)', text)))}"


SUM = Oracle(whole=added)


def frame(count: int, groups: int = 1) -> pd.DataFrame:
    columns = {"text": [f"amount {number}" for number in range(1, count + 1)], "shop": [f"s{number % groups}" for number in range(count)]}
    return pd.DataFrame(columns)


def total(df: pd.DataFrame) -> str:
    return f"sum {df['text'].str.split().str[1].astype(int).sum()}"


def test_what_fits_into_one_request_is_one_request(lab: Loopback) -> None:
    lab.answer = SUM
    df = frame(20)
    assert df.llm.agg(QUESTION, **CHAT) == total(df)
    assert lab.requests == 1
    *_, system, user = lab.seen[0].body["messages"]
    assert "What do the amounts in <text> add up to?" in system["content"]
    assert user["content"].startswith("<text>\namount 1\n</text>\n<text>\n")


@pytest.mark.parametrize("chunk_tokens", [64, 100, 200, 5000])
def test_every_row_is_in_the_answer_once_however_it_is_cut(lab: Loopback, chunk_tokens: int) -> None:
    lab.answer = SUM
    df = frame(100)
    assert df.llm.agg(QUESTION, chunk_tokens=chunk_tokens, **CHAT) == total(df)
    sent = lab.requests
    assert sent > 1 if chunk_tokens < 1000 else sent == 1
    assert df.llm.agg(QUESTION, chunk_tokens=chunk_tokens, **CHAT) == total(df)
    assert lab.requests == sent


def test_each_group_has_its_answer(lab: Loopback) -> None:
    lab.answer = SUM
    df = frame(30, 3)
    df.loc[29, "shop"] = None
    df.loc[0, "text"] = None
    said = df.llm.agg(QUESTION, by="shop", chunk_tokens=64, **CHAT)
    assert said.index.name == "shop"
    assert said.index.tolist() == ["s0", "s1", "s2"]
    assert str(said.dtype).startswith("str")
    for shop, part in df.dropna().groupby("shop"):
        assert said[shop] == total(part)


def test_several_columns_make_groups_as_groupby_does(lab: Loopback) -> None:
    lab.answer = SUM
    df = frame(8, 2).assign(year=[1, 1, 1, 1, 2, 2, 2, 2])
    said = df.llm.agg(QUESTION, by=["shop", "year"], **CHAT)
    assert said.index.equals(df.groupby(["shop", "year"]).size().index)
    assert said["s1", 2] == total(df[(df["shop"] == "s1") & (df["year"] == 2)])


def test_a_part_that_failed_leaves_its_group_without_an_answer_and_the_others_whole(lab: Loopback) -> None:
    lab.answer = SUM
    df = frame(60, 2)
    lab.fault("amount 7\n", invalid("no"), times=float("inf"))
    with pytest.warns(UserWarning, match="1 of 2 groups have no answer, since a part of the rows got none, e.g. "):
        said = df.llm.agg(QUESTION, by="shop", chunk_tokens=100, **CHAT)
    assert said.isna().tolist() == [True, False]
    assert said["s1"] == total(df[df["shop"] == "s1"])
    assert 6 in errors()["row"].tolist()  # the row that holds amount 7, and those that travelled with it
    assert set(errors()["row"]) < set(df.index[df["shop"] == "s0"])
    lab.clear_faults()
    sent = lab.requests
    said = df.llm.agg(QUESTION, by="shop", chunk_tokens=100, **CHAT)
    assert said["s0"] == total(df[df["shop"] == "s0"])
    assert lab.requests - sent < 6  # the part that failed, and what combines


def test_without_groups_a_failed_part_leaves_no_answer(lab: Loopback) -> None:
    lab.answer = SUM
    lab.fault("amount 7\n", invalid("no"), times=float("inf"))
    with pytest.warns(UserWarning, match="there is no answer"):
        assert frame(60).llm.agg(QUESTION, chunk_tokens=100, **CHAT) is None
    with pytest.raises(InvalidRequest):
        frame(60).llm.agg(QUESTION, chunk_tokens=100, on_error="raise", **CHAT)


def test_an_answer_that_was_cut_or_is_empty_is_none(lab: Loopback) -> None:
    with pytest.warns(UserWarning, match="there is no answer"):
        assert frame(60).llm.agg(QUESTION, max_tokens=5, **CHAT) is None
    assert errors()["kind"].unique().tolist() == ["truncated"]
    lab.answer = lambda body: " "
    with pytest.warns(UserWarning, match="there is no answer"):
        assert frame(60).llm.agg(QUESTION, **CHAT) is None
    assert errors()["kind"].unique().tolist() == ["empty"]


def test_a_500_is_tried_again(lab: Loopback) -> None:
    lab.answer = SUM
    lab.fault(None, server_error())
    assert frame(10).llm.agg(QUESTION, **CHAT) == total(frame(10))


def test_a_rejected_key_is_raised(lab: Loopback) -> None:
    lab.fault(None, bad_key(), times=float("inf"))
    with pytest.raises(KeyRejected):
        frame(10).llm.agg(QUESTION, **CHAT)


def test_a_row_longer_than_a_request_goes_in_pieces(lab: Loopback) -> None:
    lab.answer = SUM
    df = pd.DataFrame({"text": ["amount 1 " * 300, "amount 5"]})
    assert df.llm.agg(QUESTION, chunk_tokens=200, **CHAT) == "sum 305"


def test_the_window_of_the_model_is_kept_to(lab: Loopback) -> None:
    lab.answer = SUM
    llmkit.catalogue.merge({"models": [{"provider": "lab", "name": "test-chat", "context_window": 1000}]})
    df = frame(200)
    assert df.llm.agg(QUESTION, **CHAT) == total(df)
    assert lab.requests > 3
    assert max(sum(len(message["content"]) for message in seen.body["messages"]) for seen in lab.seen) < 4 * 1000
    with pytest.raises(ConfigError, match="reads 1,000 tokens at once"):
        df.llm.agg(QUESTION, max_tokens=900, **CHAT)


def test_a_dry_run_counts_parts_and_what_combines_them(lab: Loopback) -> None:
    lab.answer = SUM
    df = frame(60, 2)
    estimate = df.llm.agg(QUESTION, by="shop", chunk_tokens=100, dry_run=True, **CHAT)
    assert isinstance(estimate, Estimate)
    assert lab.requests == 0
    df.llm.agg(QUESTION, by="shop", chunk_tokens=100, **CHAT)
    assert lab.requests <= estimate.requests <= 2 * lab.requests
    one = frame(5).llm.agg(QUESTION, dry_run=True, **CHAT)
    assert (one.requests, one.rows, one.missing) == (1, 5, 0)


def test_detail_says_how_many_rows_and_requests(lab: Loopback) -> None:
    lab.answer = SUM
    detail = frame(31, 2).llm.agg(QUESTION, by="shop", detail=True, **CHAT)
    assert detail["rows"].tolist() == [16, 15]
    assert detail["requests"].tolist() == [1, 1]


def test_the_run_can_be_watched_and_awaited(lab: Loopback) -> None:
    lab.answer = SUM
    run = frame(50).llm.agg(QUESTION, chunk_tokens=100, wait=False, **CHAT)
    assert run.result() == total(frame(50))
    assert run.progress().rows == run.progress().done == lab.requests
    assert llmkit.last() is run


def test_a_series_is_asked_about_as_it_is(lab: Loopback) -> None:
    lab.answer = SUM
    assert pd.Series(["amount 3", "amount 4"]).llm.agg("Add up", **CHAT) == "sum 7"


def test_nothing_to_ask_asks_nobody() -> None:
    df = pd.DataFrame({"text": [None, None], "shop": ["a", "b"]})
    assert df.llm.agg(QUESTION) is None
    said = df.llm.agg(QUESTION, by="shop")
    assert said.isna().tolist() == [True, True]
    assert df.iloc[:0].llm.agg(QUESTION, by="shop").empty


@pytest.mark.parametrize("given", [{"by": "shp"}, {"chunk_tokens": 0}, {"max_cost": 1.0}, {"instruction": "no column"}])
def test_bad_input_is_told_before_anything_is_sent(lab: Loopback, given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        frame(3).llm.agg(**{"instruction": QUESTION, **given, **CHAT})
    assert lab.requests == 0


@pytest.mark.parametrize(
    ("tokens", "room", "fewest", "chunks"),
    [
        ([], 10, 1, []),
        ([5, 5, 5], 10, 1, [(0, 2), (2, 3)]),
        ([20, 1, 1], 10, 1, [(0, 1), (1, 3)]),
        ([20, 20, 20], 10, 2, [(0, 2), (2, 3)]),
    ],
)
def test_pieces_are_packed_in_order(tokens: list[float], room: float, fewest: int, chunks: list[tuple[int, int]]) -> None:
    assert packed(tokens, room, fewest) == chunks
