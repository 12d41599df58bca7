"""``run.view()`` and ``run.report()``: what was extracted, looked at."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import orjson
import pandas as pd
import pytest
from pydantic import BaseModel, Field

import llmkit
from llmkit.errors import BadInput, Unsupported
from llmkit.frames import extraction
from tests.loopback import Loopback

from .asked import Offer, frame, last

CHAT: dict[str, Any] = {"model": "lab/test-chat", "show_progress": False}
EVIL = "<img src=x onerror=alert(1)>\"'</div><script>alert(2)</script>&lt;"


class Page(HTMLParser):
    """What a browser makes of a page: its elements, its text, and the text that is marked."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.marked: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag != "meta":
            self.open.append(tag)
        if tag == "mark":
            self.marked.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.text += data
        if "mark" in self.open and "sup" not in self.open:
            self.marked[-1] += data


def grounded(fields: Any, **evidence: Any) -> str:
    return orjson.dumps({"fields": fields, "evidence": evidence}).decode()


# --------------------------------------------------------------------------------------------------------------- the page


def test_spans_are_marked_in_the_text_and_the_fields_stand_beside(lab: Loopback) -> None:
    lab.answer = lambda body: grounded({"title": "Lamp", "price": 12}, title="a lamp", price="12 dollars")
    frame("We sell a lamp for 12 dollars.").llm.extract(Offer, on="text", evidence=True, **CHAT)
    page = Page(last().view().html)
    assert page.marked == ["a lamp", "12 dollars"]
    assert "We sell a lamp" in page.text
    assert "Lamp" in page.text and "12.0" in page.text
    assert ("title", "price") in page.attributes


def test_spans_that_overlap_are_marked_piece_by_piece_and_no_character_is_lost(lab: Loopback) -> None:
    lab.answer = lambda body: grounded({"title": "Lamp", "price": 12}, title="a lamp for 12", price="for 12 dollars")
    frame("Sell a lamp for 12 dollars").llm.extract(Offer, on="text", evidence=True, **CHAT)
    html = last().view().html
    assert Page(html).marked == ["a lamp ", "for 12", " dollars"]
    assert "Sell a lamp for 12 dollars" in re.sub(r"<sup.*?</sup>|<[^>]+>", "", html)
    assert ("title", "title, price") in Page(html).attributes


def test_without_evidence_the_page_has_texts_and_fields_and_no_marks(lab: Loopback) -> None:
    lab.answer = lambda body: orjson.dumps({"title": "Lamp"}).decode()
    frame("a lamp", None).llm.extract(Offer, on="text", **CHAT)
    page = Page(last().view().html)
    assert page.marked == []
    assert "a lamp" in page.text and "Lamp" in page.text
    assert "nothing to ask" in page.text


def test_failed_rows_say_why(lab: Loopback) -> None:
    lab.answer = lambda body: "no idea" if "bad" in str(body["messages"][-1]) else orjson.dumps({"title": "Lamp"}).decode()
    frame("bad", "a lamp").llm.extract(Offer, on="text", max_reask=0, **CHAT)
    page = Page(last().view().html)
    assert "invalid: lab/test-chat: the answer is not valid: it holds no JSON object" in page.text
    assert "1 failed in all" in page.text


@pytest.mark.parametrize("evidence", [False, True])
def test_whatever_comes_from_outside_is_text(lab: Loopback, evidence: bool) -> None:
    class Evil(BaseModel):
        value: str = Field(alias=EVIL)

    def answering(body: dict[str, Any]) -> str:
        said = {EVIL: EVIL} if "fail" not in str(body["messages"][-1]) else {EVIL: 5}
        return grounded(said, **{EVIL: "a" + EVIL}) if evidence else orjson.dumps(said).decode()

    lab.answer = answering
    df = pd.DataFrame({EVIL: ["a" + EVIL, "fail"]}, index=[EVIL, "x"])
    df.llm.extract(Evil, on=EVIL, max_reask=0, evidence=evidence, **CHAT)
    html = last().view().html
    page = Page(html)
    assert not {"img", "script", "a", "link", "iframe", "object", "svg"} & set(page.tags)
    assert {name for name, _ in page.attributes} <= {"class", "content", "dir", "http-equiv", "charset", "lang", "name", "style", "title"}
    assert not [value for name, value in page.attributes if name == "style" and EVIL[:4] in str(value)]
    assert html.count("<script") == html.count("<img") == 0
    assert page.text.count(EVIL) >= 4  # the column, the cell, the field, the value, the row
    assert page.marked == (["a" + EVIL] if evidence else [])


def test_an_error_message_is_text(lab: Loopback) -> None:
    class Picky(BaseModel):
        value: str = Field(alias=EVIL)

    lab.answer = lambda body: orjson.dumps({EVIL: 5}).decode()
    df = pd.DataFrame({"text": ["x"]})
    with pytest.warns(UserWarning, match="no row"):
        df.llm.extract(Picky, on="text", max_reask=0, **CHAT)
    page = Page(last().view().html)
    assert EVIL in page.text.partition("invalid:")[2]
    assert not {"img", "script"} & set(page.tags)


def test_the_page_needs_nothing_from_elsewhere_and_runs_nothing(lab: Loopback, tmp_path: Path) -> None:
    frame("a lamp").llm.extract(Offer, on="text", **CHAT)
    path = last().view().save(tmp_path / "page.html")
    html = path.read_text("utf-8")
    assert html.startswith("<!DOCTYPE html>")
    assert "default-src 'none'" in html
    assert not re.search(r"https?:|url\(|@import|javascript:", html)
    assert 'charset="utf-8"' in html


def test_half_a_character_can_be_saved(lab: Loopback, tmp_path: Path) -> None:
    frame("\ud800 lamp").llm.extract(Offer, on="text", **CHAT)
    assert "? lamp" in last().view().save(tmp_path / "page.html").read_text("utf-8")


def test_a_notebook_reads_no_mathematics_into_dollars(lab: Loopback) -> None:
    frame("from $5 to $9").llm.extract(Offer, on="text", **CHAT)
    assert '<div class="tex2jax_ignore mathjax_ignore llmkit-view">' in last().view()._repr_html_()


def test_a_notebook_that_drops_style_sheets_loses_nothing(lab: Loopback) -> None:
    frame("a lamp").llm.extract(Offer, on="text", **CHAT)
    assert "<style" not in last().view()._repr_html_()


def test_fifty_rows_are_shown_unless_another_number_is_asked_for(lab: Loopback) -> None:
    frame(*(f"row {number}." for number in range(60))).llm.extract(Offer, on="text", **CHAT)
    for rows, shown in ((None, 50), (3, 3), (100, 60)):
        html = (last().view() if rows is None else last().view(rows=rows)).html
        assert html.count("<tr>") == shown + 1
        assert f"{shown} of 60 rows" in html
    with pytest.raises(BadInput, match="rows"):
        last().view(rows=0)


def test_quotes_are_looked_up_for_the_rows_that_are_shown_alone(lab: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[str] = []

    class Watched(extraction.Cells):
        def __init__(self, cells: Any) -> None:
            looked_at.extend(text for _, text in cells)
            super().__init__(cells)

    lab.answer = lambda body: '{"fields": {"title": "row", "price": null}, "evidence": {"title": "row", "price": null}}'
    frame(*(f"row {number}" for number in range(60))).llm.extract(Offer, on="text", evidence=True, **CHAT)
    monkeypatch.setattr(extraction, "Cells", Watched)
    page = Page(last().view(rows=3).html)
    assert looked_at == ["row 0", "row 1", "row 2"]
    assert [text.split("\u2009")[0] for text in page.marked] == ["row"] * 3


def test_of_a_long_text_the_parts_around_the_marks_are_shown(lab: Loopback) -> None:
    lab.answer = lambda body: grounded({"title": "Lamp", "price": 12}, title="a lamp", price="12 dollars")
    text = "x" * 5_000 + " a lamp " + "y" * 5_000 + " 12 dollars " + "z" * 5_000
    frame(text, "u" * 5_000).llm.extract(Offer, on="text", evidence=True, **CHAT)
    page = Page(last().view().html)
    assert page.marked == ["a lamp", "12 dollars"]
    assert len(page.text) < 4_000
    assert "characters…]" in page.text


def test_the_records_of_a_row_stand_one_below_the_other(lab: Loopback) -> None:
    pairs = [{"fields": {"title": name}, "evidence": {"title": name}} for name in ("lamp", "chair")]
    lab.answer = lambda body: orjson.dumps({"items": pairs if "lamp" in str(body["messages"][-1]) else []}).decode()
    frame("a lamp, a chair", "nothing").llm.extract(list[Offer], on="text", evidence=True, **CHAT)
    page = Page(last().view().html)
    assert page.marked == ["lamp", "chair"]
    assert page.tags.count("b") == 4
    assert "no records" in page.text


def test_one_value_a_row_is_shown_too(lab: Loopback) -> None:
    lab.answer = lambda body: orjson.dumps({"value": 12}).decode()
    frame("12").llm.extract(int, on="text", **CHAT)
    assert "12" in Page(last().view().html).text
    assert last().report().index.tolist() == ["value"]


def test_windows_of_a_long_text_are_shown_as_the_row_they_are_of(lab: Loopback) -> None:
    lab.answer = lambda body: orjson.dumps({"title": "Lamp"}).decode()
    text = "A sentence of a long text. " * 200
    frame(text, "short").llm.extract(Offer, on="text", long_text="split", window_tokens=200, **CHAT)
    html = last().view().html
    assert "2 of 2 rows" in html
    assert last().report()["rows"].tolist() == [2, 2]


def test_other_operations_say_who_has_a_view(lab: Loopback) -> None:
    frame("a").llm.chat("Say {text}", **CHAT)
    with pytest.raises(Unsupported, match=r"chat has no view\(\)"):
        last().view()
    with pytest.raises(Unsupported, match=r"chat has no report\(\)"):
        last().report()


# ------------------------------------------------------------------------------------------------------------- the report


def test_a_line_a_field_says_how_it_went(lab: Loopback) -> None:
    llmkit.catalogue.merge({"models": [{"provider": "lab", "name": "test-chat", "price": {"input": 1.0, "output": 2.0}}]})
    answers = {
        "one": grounded({"title": "Lamp", "price": 12}, title="one"),
        "two": grounded({"title": "Lamp", "price": None}, title="nowhere"),
        "three": grounded({"title": "Chair", "price": None}, title="three"),
    }

    def answering(body: dict[str, Any]) -> str:
        asked = [message["content"] for message in body["messages"] if message["role"] == "user"]
        if "again" in asked[0] and len(asked) == 1:
            return "what?"
        return next((said for word, said in answers.items() if word in asked[0]), "no idea")

    lab.answer = answering
    frame("one", "two again", "three", "bad", None).llm.extract(Offer, on="text", evidence=True, **CHAT)
    report = last().report()
    assert report.index.tolist() == ["title", "price"]
    assert report.loc["title", ["rows", "answered", "filled", "distinct", "failed", "invalid", "reasked"]].tolist() == [4, 3, 3, 2, 1, 1, 2]
    assert report.loc["title", ["fill_rate", "top", "evidence_rate"]].tolist() == [1.0, "Lamp", pytest.approx(2 / 3)]
    assert report.loc["price", "fill_rate"] == pytest.approx(1 / 3)
    assert report.loc["title", "top_share"] == pytest.approx(2 / 3)
    assert report["cost"].sum() == pytest.approx(last().cost)
    assert report.loc["title", "cost"] > report.loc["price", "cost"] > 0
    assert {str(dtype) for dtype in report.dtypes} <= {"Int64", "Float64", "str", "string"}


def test_the_report_is_a_frame_like_any_other(lab: Loopback) -> None:
    frame("a").llm.extract(Offer, on="text", **CHAT)
    report = last().report()
    assert isinstance(report, pd.DataFrame)
    assert type(report[["filled"]]) is pd.DataFrame
    assert type(report.sort_values("filled")) is pd.DataFrame


def test_of_a_run_without_answers_there_is_a_report_too(lab: Loopback) -> None:
    frame(None, None).llm.extract(Offer, on="text", evidence=True, **CHAT)
    report = last().report()
    assert report["rows"].tolist() == [0, 0]
    assert report["fill_rate"].isna().all()
    report.plot()


def test_a_plot_shows_each_field(lab: Loopback) -> None:
    pytest.importorskip("matplotlib")
    frame("a", "b").llm.extract(Offer, on="text", evidence=True, votes=2, **CHAT)
    figure = last().report().plot()
    left, right = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["price", "title"]
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["filled", "of these, found in the text", "samples that agree"]
    assert right.get_xlabel() == "no price is known"


def test_neither_view_nor_report_loads_more_than_it_shows() -> None:
    code = (
        "import sys, pandas as pd, llmkit\n"
        "pd.DataFrame({'text': ['a']}).llm.extract({'title': str}, on='text', model='echo/echo', show_progress=False)\n"
        "llmkit.last().view(), llmkit.last().report()\n"
        "assert 'matplotlib' not in sys.modules and 'ipywidgets' not in sys.modules and 'IPython' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
