"""Files read a chunk at a time, from any place in them, damage and all."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmkit.errors import BadInput
from llmkit.scale.sources import Chunk, Source, source_of


def chunks(source: Source, rows: int = 2) -> list[Chunk]:
    found: list[Chunk] = []
    position: Any = None
    while (chunk := source.read(position, rows)) is not None:
        found.append(chunk)
        position = json.loads(json.dumps(chunk.until))  # as the manifest has it
    source.close()
    return found


def rows_of(found: list[Chunk]) -> list[dict[str, Any]]:
    return [row for chunk in found for row in chunk.table.to_pylist()]


def bad(found: list[Chunk]) -> list[tuple[int, str]]:
    return [(chunk.lines[place], why) for chunk in found for place, why in sorted(chunk.bad.items())]


def written(folder: Path, kind: str, rows: list[dict[str, Any]], name: str = "in") -> Path:
    path = folder / f"{name}.{kind}"
    frame = pd.DataFrame(rows)
    if kind == "parquet":
        pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), path, row_group_size=3)
    elif kind == "csv":
        frame.to_csv(path, index=False)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


ROWS = [{"id": f"a{number}", "text": f'row {number}, “quoted” "twice"\nand a line'} for number in range(11)]


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
@pytest.mark.parametrize("rows", [1, 2, 4, 11, 50])
def test_rows_come_in_order_whatever_the_size_of_the_chunks(tmp_path: Path, kind: str, rows: int) -> None:
    source = source_of(written(tmp_path, kind, ROWS), rows)
    found = chunks(source, rows)
    assert rows_of(found) == ROWS
    assert {len(chunk.table) for chunk in found[:-1]} <= {rows}
    assert [chunk.whole for chunk in found] == [len(chunk.table) == rows for chunk in found]


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_reading_goes_on_from_any_place(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path, kind, ROWS)
    whole = chunks(source_of(path, 2))
    for number, chunk in enumerate(whole):
        fresh = source_of(path, 2)
        following = fresh.read(chunk.until, 2)
        fresh.close()
        if number + 1 == len(whole):
            assert following is None
        else:
            assert following is not None
            assert following.table.equals(whole[number + 1].table)
            assert following.lines == whole[number + 1].lines


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_files_of_a_list_a_glob_and_a_directory_are_read_one_after_the_other(tmp_path: Path, kind: str) -> None:
    first, second = written(tmp_path, kind, ROWS[:5], "a"), written(tmp_path, kind, ROWS[5:], "b")
    (tmp_path / "_manifest.json").write_text("{}")
    for path in ([first, second], str(tmp_path / f"*.{kind}"), tmp_path):
        found = chunks(source_of(path, 4), 4)
        assert rows_of(found) == ROWS
        assert found[1].files == [(0, str(first)), (1, str(second))]
        assert found[1].file_of(0) == str(first) and found[1].file_of(3) == str(second)


def test_parquet_keeps_its_schema(tmp_path: Path) -> None:
    table = pa.table(
        {
            "n": pa.array([1, None, 3], pa.int8()),
            "when": pa.array([0, 1, None], pa.timestamp("us", "UTC")),
            "tags": pa.array([["a"], [], None], pa.list_(pa.string())),
            "kind": pa.array(["x", "y", "x"]).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "in.parquet")
    found = chunks(source_of(tmp_path / "in.parquet", 2))
    assert [chunk.table.schema.remove_metadata() for chunk in found] == [table.schema] * 2
    assert source_of(tmp_path / "in.parquet", 2).rows == 3


def test_parquet_files_of_two_schemas_are_refused(tmp_path: Path) -> None:
    written(tmp_path, "parquet", [{"a": 1}], "a")
    written(tmp_path, "parquet", [{"a": 1.5}], "b")
    with pytest.raises(BadInput, match=r"b\.parquet has other columns or types than"):
        source_of(tmp_path, 2)


def test_csv_is_text_as_it_stands_and_empty_cells_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("\ufeffzip,price,note\n01234,1.50,NA\n,,\n\n99999,2,null\n", encoding="utf-8")
    assert rows_of(chunks(source_of(path, 2))) == [
        {"zip": "01234", "price": "1.50", "note": "NA"},
        {"zip": None, "price": None, "note": None},
        {"zip": "99999", "price": "2", "note": "null"},
    ]
    typed = chunks(source_of(path, 2, dtypes={"price": "float64"}))
    assert [row["price"] for row in rows_of(typed)] == [1.5, None, 2.0]


@pytest.mark.parametrize(("sign", "name"), [(";", "in.csv"), ("\t", "in.tsv"), ("|", "in.csv")])
def test_the_delimiter_is_read_off_the_header(tmp_path: Path, sign: str, name: str) -> None:
    (tmp_path / name).write_text(f"a{sign}b\n1,5{sign}2\n")
    assert rows_of(chunks(source_of(tmp_path / name, 2))) == [{"a": "1,5", "b": "2"}]


def test_a_malformed_line_of_csv_is_a_row_with_its_number_and_the_rest_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(b'a,b\n1,x\n2\n3,y\n4,"open\n5,z\n6,"two\nlines"\n7,\xff\n8,"odd"quote\n9,end\n')
    found = chunks(source_of(path, 3), 3)
    assert [row["a"] for row in rows_of(found)] == ["1", None, "3", None, "5", "6", None, None, "9"]
    assert rows_of(found)[5]["b"] == "two\nlines"
    lines = bad(found)
    assert [line for line, _ in lines] == [3, 5, 9, 10]
    assert lines[0][1] == "1 fields where the header has 2"
    assert lines[2][1] == "is not utf-8"


def test_a_quote_that_is_open_to_the_end_takes_no_rows_with_it(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text('a\nfirst\n"open\n' + "".join(f"row {number}\n" for number in range(50)))
    found = chunks(source_of(path, 20), 20)
    assert [row["a"] for row in rows_of(found)] == ["first", None, *(f"row {number}" for number in range(50))]
    assert [line for line, _ in bad(found)] == [3]


def test_other_encodings_are_named(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes("a\nMüller\n".encode("cp1252"))
    assert rows_of(chunks(source_of(tmp_path / "in.csv", 2, encoding="cp1252"))) == [{"a": "Müller"}]
    with pytest.raises(BadInput, match="lines cannot be told apart"):
        source_of(tmp_path / "in.csv", 2, encoding="utf-16")
    with pytest.raises(BadInput, match="unknown"):
        source_of(tmp_path / "in.csv", 2, encoding="utf-99")


def test_a_malformed_line_of_json_is_a_row_with_its_number_and_the_rest_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": 2\n\n[3]\n{"a": 4}\n\xff\xfe\n{"a": 6}')
    found = chunks(source_of(path, 2))
    assert [row["a"] for row in rows_of(found)] == [1, None, None, 4, None, 6]
    assert [line for line, _ in bad(found)] == [2, 4, 6]
    assert bad(found)[1][1] == "is a list, not an object with the columns' names"


def test_what_a_column_holds_is_decided_by_the_first_chunk(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    rows = [
        {"n": 1, "x": 1, "b": True, "s": "a", "o": {"k": [1]}, "big": 2**63},
        {"n": 2, "x": 0.5, "b": None, "s": 7},
        {"n": 2.5, "x": 3, "b": False, "s": None, "o": "plain", "late": 1},
        {"n": None, "x": "no", "b": True},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = chunks(source_of(path, 2))
    assert [chunk.table.schema for chunk in found] == [found[0].table.schema] * 2
    assert [str(kind) for kind in found[0].table.schema.types] == ["int64", "double", "bool", "string", "string", "string"]
    assert rows_of(found)[0]["o"] == '{"k":[1]}'
    assert rows_of(found)[1]["s"] == "7"
    assert rows_of(found)[2] == {"n": None, "x": 3.0, "b": False, "s": None, "o": "plain", "big": None}
    assert [line for line, _ in bad(found)] == [3, 4]
    assert "column 'n' is int64 from its first rows on" in bad(found)[0][1]
    assert "late" not in found[1].table.column_names
    said = chunks(source_of(path, 2, dtypes={"n": "float64", "x": "str", "late": "int64"}))
    assert bad(said) == []
    assert [row["n"] for row in rows_of(said)] == [1.0, 2.0, 2.5, None]
    assert [row["late"] for row in rows_of(said)] == [None, None, 1, None]


def test_whoever_goes_on_in_the_middle_decides_as_who_began(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"n": 1}\n{"n": 2}\n{"n": "three"}\n{"n": "four"}\n')
    begun = source_of(path, 2)
    first = begun.read(None, 2)
    assert first is not None
    begun.close()
    another = source_of(path, 2)
    middle = another.read(first.until, 2)
    another.close()
    assert middle is not None and str(middle.table.schema.field("n").type) == "int64"


def test_a_gzipped_file_is_read_as_what_is_in_it(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "in.jsonl.gz", "wb") as stream:
        stream.write(b'{"a": "x"}\n{"a": "y"}\n{"a": "z"}\n')
    found = chunks(source_of(tmp_path / "in.jsonl.gz", 2))
    assert rows_of(found) == [{"a": "x"}, {"a": "y"}, {"a": "z"}]


def test_a_file_of_fsspec_is_read_as_one_on_disk(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    fsspec.filesystem("memory").pipe_file("/bucket/in.csv", b"a\nx\ny\nz\n")
    assert rows_of(chunks(source_of("memory://bucket/*.csv", 2))) == [{"a": "x"}, {"a": "y"}, {"a": "z"}]
    with pytest.raises(BadInput, match="no file"):
        source_of("memory://bucket/other.csv", 2)


def test_how_many_rows_there_are_is_known_or_guessed_from_bytes(tmp_path: Path) -> None:
    path = written(tmp_path, "jsonl", [{"a": "x" * 50}] * 1000)
    source = source_of(path, 10)
    chunk = source.read(None, 10)
    assert chunk is not None and 990 <= source.expected(10, chunk.until) <= 1010
    source.close()
    assert source_of(written(tmp_path, "parquet", ROWS), 2).expected(0, None) == 11


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("in.parquet", b"no parquet", "no Parquet file that can be read"),
        ("in.csv", b"", "begins with the names of its columns"),
        ("in.csv", b"a,a\n1,2\n", "two columns are named 'a'"),
        ("in.xls", b"", r"none of \.parquet"),
    ],
)
def test_files_that_are_none_are_told_at_once(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=says):
        source_of(tmp_path / name, 2)
    with pytest.raises(BadInput, match="there is no file"):
        source_of(tmp_path / "nothing.csv", 2)
