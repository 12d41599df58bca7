"""``llmkit.cache``: what is kept can be seen, cleared and carried elsewhere, and tells nobody what was asked."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pytest

import llmkit
from llmkit import session
from llmkit.engine.store import ReplyRow
from tests.loopback import Loopback
from tests.process.child import Child

MODEL = {"model": "lab/m", "show_progress": False}


def frame(*texts: str) -> pd.DataFrame:
    return pd.DataFrame({"text": list(texts)})


def chat(*texts: str, own: llmkit.Session | None = None, **options: Any) -> list[Any]:
    accessor = frame(*texts).llm
    return list((accessor.using(own) if own else accessor).chat("Say {text}", **{**MODEL, **options}))


@pytest.fixture
def away(lab: Loopback, tmp_path: Path) -> Iterator[llmkit.Session]:
    """A session on another machine, so to speak."""
    own = llmkit.Session(cache_dir=tmp_path / "away")
    own.add_provider("lab", lab.url, None, "openai", {})
    yield own
    own.close()


# ------------------------------------------------------------------------------------------------------------- looking


def test_what_is_kept_is_told_by_operation_and_model(lab: Loopback) -> None:
    chat("a", "b", "c")
    chat("a", model="lab/n")
    frame("a", "b").llm.embed("text", **MODEL)
    kept = llmkit.cache.info().set_index(["operation", "model"])
    assert {("chat", "lab/m"): 3, ("chat", "lab/n"): 1, ("embed", "lab/m"): 2} == kept["answers"].to_dict()
    assert kept.loc[("chat", "lab/m"), "output_tokens"] == llmkit.runs()["output_tokens"].iloc[-1]
    assert (kept["bytes"] > 0).all()
    now = pd.Timestamp.now("UTC")
    assert ((now - kept["oldest"]) < pd.Timedelta(minutes=1)).all()
    assert ((now - kept["last_used"]) < pd.Timedelta(hours=2)).all()
    assert kept["cost"].isna().all()  # nobody knows the lab's prices


def test_what_answers_were_billed_is_known_where_their_price_is(lab: Loopback) -> None:
    price = {"input": 1.0, "output": 2.0}
    llmkit.catalogue.merge({"models": [{"provider": "lab", "name": "m", "operations": ["chat"], "price": price}]})
    chat("a", "b")
    (cost,) = llmkit.runs()["cost"]
    kept = llmkit.cache.info()
    assert kept["cost"].tolist() == pytest.approx([cost])
    assert kept["cost_at_least"].tolist() == pytest.approx([cost])


def test_an_empty_cache_has_an_empty_table_of_the_same_types(lab: Loopback) -> None:
    empty = llmkit.cache.info()
    chat("a")
    assert empty.empty
    assert empty.dtypes.to_dict() == llmkit.cache.info().dtypes.to_dict()


def test_the_folder_is_that_of_the_moment(cache_dir: Path) -> None:
    assert cache_dir == llmkit.cache.folder
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = llmkit.cache.nothing


# ------------------------------------------------------------------------------------------------------------ clearing


def test_what_is_cleared_is_asked_again_and_the_rest_is_not(lab: Loopback) -> None:
    chat("a", "b")
    chat("a", model="lab/n")
    assert 1 == llmkit.cache.clear(model="lab/n")
    assert 0 == llmkit.cache.clear(operation="embed")
    chat("a", "b")
    assert 3 == lab.requests
    chat("a", model="lab/n")
    assert 4 == lab.requests
    assert 3 == llmkit.cache.clear()
    assert llmkit.cache.info().empty


def test_answers_can_be_cleared_by_their_age(lab: Loopback) -> None:
    chat("old")
    store = session.default().engine.writer.store
    store._db.execute("UPDATE replies SET created = created - 10 * 86400")
    chat("new")
    assert 0 == llmkit.cache.clear(older_than=timedelta(days=11))
    assert 0 == llmkit.cache.clear(older_than="2020-01-01")
    assert 1 == llmkit.cache.clear(older_than=timedelta(days=9))
    chat("new")
    assert 2 == lab.requests


@pytest.mark.parametrize("wrong", [{"operation": 3}, {"model": " "}, {"older_than": 7}, {"older_than": "last week"}])
def test_arguments_that_mean_nothing_are_refused_and_nothing_is_cleared(lab: Loopback, wrong: dict[str, Any]) -> None:
    chat("a")
    with pytest.raises(llmkit.BadInput, match=next(iter(wrong))):
        llmkit.cache.clear(**wrong)
    assert 1 == llmkit.cache.info()["answers"].sum()


HOLDER = """
df = pd.DataFrame({"text": ["theirs"]})
say(df.llm.chat("Say {text}", model="lab/m", show_progress=False).tolist())
hear()
"""


def test_files_of_living_processes_are_left_and_those_of_ended_ones_cleared(lab: Loopback, cache_dir: Path, tmp_path: Path) -> None:
    chat("ours")
    with Child(HOLDER, lab.url, tmp_path, LLMKIT_CACHE_DIR=str(cache_dir)) as child:
        child.hear()
        with pytest.warns(RuntimeWarning, match="1 answers are left, in files that other processes write now") as warned:
            assert 1 == llmkit.cache.clear()
        assert __file__ == warned[0].filename
        child.kill()
    assert 1 == llmkit.cache.clear()
    assert llmkit.cache.info().empty


# ------------------------------------------------------------------------------------------------------- to and fro


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_what_is_carried_to_another_machine_is_not_paid_there(lab: Loopback, away: llmkit.Session, tmp_path: Path, suffix: str) -> None:
    texts = ["a", "äöü 日本語 🐍\n", "long " * 1000]
    answers = chat(*texts)
    vectors = frame(*texts).llm.embed("text", **MODEL)
    requests = lab.requests
    path = tmp_path / f"answers{suffix}"
    assert 6 == llmkit.cache.export(path)
    assert [path.name] == [file.name for file in path.parent.iterdir() if file.name.startswith("answers")]
    assert 6 == llmkit.cache.load(path, session=away)
    assert 0 == llmkit.cache.load(path, session=away)
    assert answers == chat(*texts, own=away)
    again = frame(*texts).llm.using(away).embed("text", **MODEL)
    assert np.array_equal(np.stack(vectors.to_list()), np.stack(again.to_list()))
    assert requests == lab.requests
    here, there = llmkit.cache.info(), llmkit.cache.info(session=away)
    times = ["oldest", "last_used"]
    pd.testing.assert_frame_equal(here.drop(columns=times), there.drop(columns=times))
    assert ((here["oldest"] - there["oldest"]).abs() <= pd.Timedelta(microseconds=1)).all()


def test_anything_that_is_kept_comes_back_bit_by_bit(lab: Loopback, away: llmkit.Session, tmp_path: Path) -> None:
    values = [
        b"null",
        b'"text"',
        b'{"b":1,"a":[1.5,true]}',
        b"llmkitau\x00\xff",
        b"",
        b"llmkitf8" + bytes(16),
        b'"x" ',
        "ü".encode("latin-1"),
    ]
    chat("a")
    store = session.default().engine.writer.store
    rows = [ReplyRow(bytes([number]) * 16, value, 1, 0, 1, None, None, 1e9) for number, value in enumerate(values)]
    store.take_in(rows)
    for suffix in (".jsonl", ".parquet"):
        llmkit.cache.export(tmp_path / f"all{suffix}")
        llmkit.cache.load(tmp_path / f"all{suffix}", session=away)
        found = away.engine.writer.store.get_many([row.key for row in rows])
        for row in rows:
            expected = row.value if suffix == ".parquet" else row.value.strip(b" ") if row.value[:1] == b'"' else row.value
            assert expected == found[row.key].value
        llmkit.cache.clear(session=away)


def test_a_line_holds_what_was_answered_and_neither_the_prompt_nor_a_key(lab: Loopback, tmp_path: Path) -> None:
    chat("a secret question")
    path = tmp_path / "answers.jsonl"
    llmkit.cache.export(path)
    (line,) = map(orjson.loads, path.read_bytes().splitlines())
    assert {"key", "operation", "model", "value", "created", "input_tokens", "output_tokens", "finish"} <= set(line)
    assert "test-key-not-real" not in path.read_text()
    assert ("chat", "lab/m", "answer to: Say a secret question") == (line["operation"], line["model"], line["value"])


GOOD = {"key": "00" * 16, "value": "text"}


@pytest.mark.parametrize(
    "line",
    [
        b"no json",
        b"[1]",
        orjson.dumps({**GOOD, "key": "00"}),
        orjson.dumps({**GOOD, "key": 7}),
        orjson.dumps({"key": "00" * 16}),
        orjson.dumps({**GOOD, "vector": [1.0]}),
        orjson.dumps({"key": "00" * 16, "vector": ["x"]}),
        orjson.dumps({"key": "00" * 16, "data": "not base64!"}),
        orjson.dumps({**GOOD, "input_tokens": -1}),
        orjson.dumps({**GOOD, "input_tokens": "many"}),
        orjson.dumps({**GOOD, "finish": 3}),
        orjson.dumps({**GOOD, "cost": "much"}),
        orjson.dumps({**GOOD, "created": "yesterday, perhaps"}),
    ],
)
def test_a_file_that_was_not_exported_here_is_refused_without_a_word_of_it(lab: Loopback, tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_bytes(line + b"\n")
    with pytest.raises(llmkit.BadInput, match=r"answers.jsonl (is no JSON object|holds a line that llmkit.cache.export did not write)"):
        llmkit.cache.load(path)
    assert llmkit.cache.info().empty


def test_a_pickle_in_a_file_is_inert_data(lab: Loopback, tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    data = base64.b64encode(b"cos\nsystem\n(S'touch canary'\ntR.").decode()
    path.write_bytes(orjson.dumps({"key": "00" * 16, "data": data}) + b"\n")
    assert 1 == llmkit.cache.load(path)
    assert not Path("canary").exists()


def test_files_that_cannot_be_named_read_or_written_are_told(lab: Loopback, tmp_path: Path) -> None:
    chat("a")
    for act in (llmkit.cache.export, llmkit.cache.load):
        with pytest.raises(llmkit.BadInput, match=r"ends in .jsonl or .parquet; 'answers.csv' does not"):
            act(tmp_path / "answers.csv")
        with pytest.raises(llmkit.BadInput, match="named by a path"):
            act(3)  # type: ignore[arg-type]
        for suffix in (".jsonl", ".parquet"):
            with pytest.raises(llmkit.BadInput, match="No such file"):
                act(tmp_path / "nowhere" / f"answers{suffix}")
    (tmp_path / "wrong.parquet").write_bytes(b"no table")
    with pytest.raises(llmkit.BadInput, match="no Parquet file"):
        llmkit.cache.load(tmp_path / "wrong.parquet")


def test_the_examples_do_what_they_say() -> None:
    import doctest

    assert doctest.testmod(llmkit.cache).failed == 0
