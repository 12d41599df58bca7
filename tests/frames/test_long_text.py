"""``df.llm.embed`` with long texts, purposes and pictures, against a server; and what the methods of a series take."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pandas as pd
import pytest

import llmkit
from llmkit.errors import BadInput, ConfigError, Unsupported
from llmkit.operations.windows import windows
from tests.loopback import Loopback, error_of, vector_of
from tests.operations.test_files import png

from .asked import last

EMBED: dict[str, Any] = {"model": "lab/test-embed", "show_progress": False}
WINDOW = 40
LONG = " ".join(f"word{number}" for number in range(60))
#: As the accessor cuts it: nine tenths of the window, since tokens are estimated.
CUT = windows(LONG, int(0.9 * WINDOW), 0.1)


def frame(*cells: Any, **more: Any) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(list(column), dtype=object) for name, column in {"text": cells, **more}.items()})


@pytest.fixture
def narrow(lab: Loopback) -> Loopback:
    """The provider, its model's window known and small."""
    llmkit.catalogue.merge({"models": [{"provider": "lab", "name": "test-embed", "context_window": WINDOW, "price": {"input": 1.0}}]})
    return lab


def kinds() -> dict[int, str]:
    return last().errors().set_index("row")["kind"].to_dict()  # type: ignore[no-any-return]


# ------------------------------------------------------------------------------------------------------------- long texts


def test_the_mean_of_the_windows_is_weighted_by_their_length_and_has_length_one(narrow: Loopback) -> None:
    column = frame("short", LONG, None).llm.embed("text", long_text="mean", **EMBED)
    assert len(CUT) > 2
    expected = sum(len(piece) * vector_of(piece) for piece in CUT)
    matrix = column.llm.matrix()
    assert matrix[0] == pytest.approx(vector_of("short"))
    assert matrix[1] == pytest.approx(expected / np.linalg.norm(expected), abs=1e-6)
    assert np.linalg.norm(matrix[1]) == pytest.approx(1.0)
    assert column.isna().tolist() == [False, False, True]
    assert set(narrow.texts) == {"short", *CUT}


def test_the_overlap_is_as_the_call_says(narrow: Loopback) -> None:
    frame(LONG).llm.embed("text", long_text="mean", overlap=0.0, **EMBED)
    assert "".join(sorted(narrow.texts, key=LONG.find)) == LONG
    assert len(narrow.texts) < len(windows(LONG, int(0.9 * WINDOW), 0.5))


def test_a_cut_text_is_its_first_window(narrow: Loopback) -> None:
    column = frame("short", LONG, None).llm.embed("text", long_text="truncate", **EMBED)
    assert column.llm.matrix()[1] == pytest.approx(vector_of(CUT[0]))
    assert set(narrow.texts) == {"short", CUT[0]}
    assert column.isna().tolist() == [False, False, True]


def test_a_text_that_is_far_too_long_is_an_error_and_not_sent(narrow: Loopback) -> None:
    column = frame("short", LONG * 20).llm.embed("text", **EMBED)
    assert column.isna().tolist() == [False, True]
    assert kinds() == {1: "context_too_long"}
    assert set(narrow.texts) == {"short"}


def test_a_text_that_the_provider_finds_too_long_is_an_error(lab: Loopback) -> None:
    lab.fault("long", error_of("openai", "context_too_long"), times=float("inf"))
    frame("short", "long").llm.embed("text", **EMBED)
    assert kinds() == {1: "context_too_long"}


def test_a_window_that_fails_fails_its_row_only(narrow: Loopback) -> None:
    narrow.fault(CUT[1], error_of("openai", "bad_request"), times=float("inf"))
    column = frame("a", LONG, "b").set_axis(list("xyz")).llm.embed("text", long_text="mean", **EMBED)
    assert column.isna().tolist() == [False, True, False]
    errors = last().errors()
    assert errors[["row", "index", "kind"]].to_numpy().tolist() == [[1, "y", "invalid_request"]]


def test_windows_that_are_equal_are_sent_once_and_stored(narrow: Loopback) -> None:
    df = frame(LONG, LONG, CUT[0])
    first = df.llm.embed("text", long_text="mean", **EMBED)
    second = df.llm.embed("text", long_text="mean", **EMBED)
    assert set(narrow.texts.values()) == {1}
    assert first.llm.matrix().tolist() == second.llm.matrix().tolist()


@pytest.mark.parametrize("long_text", ["truncate", "mean"])
def test_only_the_first_rows_with_a_limit(narrow: Loopback, long_text: str) -> None:
    column = frame("a", LONG, "b", "c").llm.embed("text", long_text=long_text, limit=2, **EMBED)
    assert column.isna().tolist() == [False, False, True, True]
    assert "b" not in narrow.texts


@pytest.mark.parametrize("long_text", ["truncate", "mean"])
def test_the_window_of_a_route_is_its_narrowest(narrow: Loopback, long_text: str) -> None:
    llmkit.catalogue.merge({"models": [{"provider": "lab", "name": "wide-embed", "context_window": 8192}]})
    frame(LONG).llm.embed("text", long_text=long_text, model="lab/wide-embed", fallback="lab/test-embed", show_progress=False)
    assert set(narrow.texts) <= set(CUT)


@pytest.mark.parametrize("long_text", ["truncate", "mean"])
def test_a_window_that_is_not_known_is_told_with_the_cure(lab: Loopback, long_text: str) -> None:
    with pytest.raises(BadInput, match=r"test-embed takes is not known.*catalogue\.merge.*context_window"):
        frame(LONG).llm.embed("text", long_text=long_text, **EMBED)
    assert lab.requests == 0


@pytest.mark.parametrize("long_text", ["error", "truncate", "mean"])
def test_a_local_model_reads_everything(long_text: str) -> None:
    column = frame(LONG, None).llm.embed("text", long_text=long_text, model="local/lexical", dimensions=64, show_progress=False)
    assert column.isna().tolist() == [False, True]


@pytest.mark.parametrize("cells", [(), (None,), ("", None)])
def test_nothing_long_is_nothing_at_all(narrow: Loopback, cells: tuple[Any, ...]) -> None:
    column = frame(*cells).llm.embed("text", long_text="mean", **EMBED)
    assert column.isna().tolist() == [True] * len(cells)
    assert narrow.requests == 0


def test_detail_and_a_mean_do_not_go_together(narrow: Loopback) -> None:
    with pytest.raises(BadInput, match="leave one of them out"):
        frame(LONG).llm.embed("text", long_text="mean", detail=True, **EMBED)
    detail = frame(LONG).llm.embed("text", long_text="truncate", detail=True, **EMBED)
    assert detail["value"][0] == pytest.approx(vector_of(CUT[0]))


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"long_text": "split"}, "long_text is"),
        ({"long_text": "mean", "overlap": 0.9}, "overlap is"),
        ({"long_text": "mean", "overlap": "much"}, "overlap is"),
        ({"input_type": "passage"}, "input_type is"),
        ({"on": None}, "no column is named"),
        ({"long_text": "mean", "images": "text"}, "texts alone"),
    ],
)
def test_what_cannot_be_embedded_is_told_before_anything_is_sent(narrow: Loopback, arguments: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        frame("a").llm.embed(**{"on": "text", **EMBED, **arguments})
    assert narrow.requests == 0


def test_a_mean_need_not_be_waited_for_and_can_be_watched(narrow: Loopback) -> None:
    run = frame("a", LONG).llm.embed("text", long_text="mean", wait=False, **EMBED)
    assert run.result().notna().all()
    assert run.partial().notna().all()


def test_a_dry_run_counts_the_windows(narrow: Loopback) -> None:
    plan = frame("a", LONG).llm.embed("text", long_text="mean", dry_run=True, **EMBED)
    assert (plan.unique, narrow.requests) == (1 + len(CUT), 0)


def test_a_budget_bounds_the_windows(narrow: Loopback) -> None:
    df = frame(*(" ".join(f"word{row}x{number}" for number in range(60)) for row in range(200)))
    with pytest.warns(UserWarning, match="max_cost"):
        column = df.llm.embed("text", long_text="mean", max_cost=0.03, **EMBED)
    assert 0 < last().cost <= 0.03
    assert column.isna().any()


# --------------------------------------------------------------------------------------------------------------- purposes


@pytest.mark.parametrize(
    ("name", "purpose", "word"),
    [
        ("cohere", None, "search_document"),
        ("cohere", "query", "search_query"),
        ("voyage", None, "document"),
        ("voyage", "query", "query"),
        ("openai", "query", None),
    ],
)
def test_what_texts_are_is_told_in_each_vendors_words(server: Loopback, name: str, purpose: Any, word: str | None) -> None:
    llmkit.add_provider("lab", server.url_of(name), "test-key-not-real", protocol=name)
    frame("a").llm.embed("text", input_type=purpose, **EMBED)
    assert server.seen[0].body.get("input_type") == word


def test_a_query_is_another_question_than_a_document(server: Loopback) -> None:
    llmkit.add_provider("lab", server.url_of("voyage"), "test-key-not-real", protocol="voyage")
    for purpose in ("document", "query", "query"):
        frame("a").llm.embed("text", input_type=purpose, **EMBED)
    assert server.requests == 2


# --------------------------------------------------------------------------------------------------------------- pictures


@pytest.fixture
def sees(server: Loopback) -> Loopback:
    """A provider that embeds pictures."""
    llmkit.add_provider("lab", server.url_of("voyage"), "test-key-not-real", protocol="voyage")
    return server


def test_pictures_are_embedded_with_the_text_beside_them(sees: Loopback) -> None:
    df = frame("red", None, "x", picture=[png(), png("blue"), None])
    column = df.llm.embed("text", images="picture", **EMBED)
    described = f"image/png of {len(png())} bytes"
    matrix = column.llm.matrix()
    assert column.isna().tolist() == [False, False, True]
    assert matrix[0] == pytest.approx(vector_of(f"red\n{described}"))
    assert matrix[1] == pytest.approx(vector_of(described))
    assert {seen.path for seen in sees.seen} == {"/voyage/v1/multimodalembeddings"}
    assert [part["type"] for part in sees.seen[0].body["inputs"][0]["content"]] == ["text", "image_base64"]


def test_pictures_alone_need_no_column_of_texts(sees: Loopback) -> None:
    df = frame("x", "y", picture=["https://example.org/a.png", b"no picture"])
    column = df.llm.embed(images="picture", **EMBED)
    assert column.isna().tolist() == [False, True]
    assert kinds() == {1: "no_picture"}
    assert column.llm.matrix()[0] == pytest.approx(vector_of("https://example.org/a.png"))
    df.llm.embed(images="picture", **EMBED)
    assert sees.requests == 1


def test_many_pictures_travel_in_batches(sees: Loopback) -> None:
    df = frame(*map(str, range(20)), picture=[png()] * 20)
    assert df.llm.embed("text", images="picture", **EMBED).notna().all()
    assert 3 <= sees.requests <= 5


def test_a_model_that_does_not_see_says_so(lab: Loopback) -> None:
    with pytest.raises(Unsupported):
        frame("a", picture=[png()]).llm.embed("text", images="picture", **EMBED)
    assert lab.requests == 0


# ------------------------------------------------------------------------------------------------------------------ series


@pytest.mark.parametrize("name", ["chat", "classify", "embed", "rerank", "speak", "transcribe"])
def test_a_method_of_a_series_has_every_option_but_the_column(name: str) -> None:
    of_frame = inspect.signature(getattr(pd.DataFrame({"a": ["a"]}).llm, name)).parameters
    of_series = inspect.signature(getattr(pd.Series(["a"]).llm, name)).parameters
    left_out = {"on"} | ({"images", "roots", "max_file_mb"} if name in ("chat", "embed") else set())
    assert list(of_series) == [parameter for parameter in of_frame if parameter not in left_out]


@pytest.mark.parametrize(
    ("name", "given"),
    [("chat", ("Say",)), ("classify", (["a", "b"],)), ("embed", ()), ("rerank", ("q",)), ("speak", ()), ("transcribe", ())],
)
@pytest.mark.parametrize("unknown", ["on", "temprature", "modle"])
def test_an_unknown_argument_is_a_type_error(lab: Loopback, name: str, given: tuple[Any, ...], unknown: str) -> None:
    with pytest.raises(TypeError, match=unknown):
        getattr(pd.Series(["a"]).llm, name)(*given, **{unknown: "x"})
    assert lab.requests == 0


def test_a_method_of_a_series_says_in_its_help_what_it_does() -> None:
    assert (pd.Series(["a"]).llm.classify.__doc__ or "").startswith("Give each value one of several labels")
