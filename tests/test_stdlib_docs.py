"""The demo's real input: the docstrings of the standard library of whatever Python runs it."""

import importlib.util
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "notebooks" / "stdlib_docs.py"


def load():
    spec = importlib.util.spec_from_file_location("stdlib_docs", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.stdlib_docs


@pytest.fixture(scope="module")
def docs():
    return load()()


def test_every_machine_has_at_least_two_thousand_documented_objects(docs):
    assert len(docs) >= 2000
    assert list(docs.columns) == ["module", "name", "signature", "text"]


def test_the_parsers_of_command_line_arguments_are_there(docs):
    texts = docs.set_index("name")["text"]
    assert "command-line parsing" in texts["argparse"].lower()
    assert "command line options" in texts["getopt"].lower()


def test_classes_functions_and_methods_have_rows_of_their_own(docs):
    names = set(docs["name"])
    assert {"json", "json.dumps", "json.encoder.JSONEncoder"} <= names
    assert {"textwrap.dedent", "textwrap.TextWrapper", "textwrap.TextWrapper.wrap"} <= names


def test_a_re_export_is_listed_once_under_the_module_that_defines_it(docs):
    names = set(docs["name"])
    assert docs["name"].is_unique
    assert "json.decoder.JSONDecoder" in names
    assert "json.JSONDecoder" not in names


def test_only_the_standard_library_is_described(docs):
    assert set(docs["module"].str.partition(".")[0]) <= sys.stdlib_module_names
    assert not docs["module"].str.startswith("_").any()


def test_texts_are_cleaned_and_long_enough_to_say_something(docs):
    assert docs["text"].str.len().min() >= 40
    assert (docs["text"] == docs["text"].str.strip("\n")).all()


def test_a_signature_is_given_where_python_knows_one_and_missing_where_not(docs):
    signatures = docs.set_index("name")["signature"]
    assert signatures["textwrap.dedent"] == "(text)"
    assert signatures.isna()["argparse"]


def test_no_address_and_no_path_of_this_machine_stands_in_a_signature(docs):
    for local in (" at 0x", sys.prefix, sys.base_prefix, str(Path.home())):
        assert not docs["signature"].str.contains(local, regex=False, na=False).any()


def test_asking_for_more_than_there_is_says_how_many_there_are():
    with pytest.raises(RuntimeError, match=r"found \d+ docstrings in the standard library, not 1000000"):
        load()(minimum=1_000_000)


def test_it_starts_no_thread_and_takes_under_five_seconds():
    threads, began = threading.active_count(), time.perf_counter()
    load()()
    assert time.perf_counter() - began < 5
    assert threading.active_count() == threads


def test_a_fresh_process_prints_nothing_warns_of_nothing_and_finds_the_same_rows_in_the_same_order():
    script = (
        "import hashlib, importlib.util\n"
        "import pandas\n"
        f"spec = importlib.util.spec_from_file_location('stdlib_docs', {str(SOURCE)!r})\n"
        "module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module)\n"
        "frame = module.stdlib_docs()\n"
        "print(hashlib.sha256(frame.to_csv().encode()).hexdigest())\n"
    )
    digests = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "TERM": "xterm"}
        environment.pop("DISPLAY", None)
        done = subprocess.run([sys.executable, "-W", "always", "-c", script], env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        lines = done.stdout.splitlines()
        assert len(lines) == 1
        digests.add(lines[0])
    assert len(digests) == 1
