"""The notebooks as a newcomer runs them: from top to bottom, with no key, and nobody but this computer is asked."""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.ipynb"))

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

#: Sockets of the kernel reach this computer only; a notebook that asks anybody else fails in that cell.
CLOSED = """
import socket

_connect = socket.socket.connect

def connect(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1"):
        raise OSError("the notebook went outside")
    return _connect(self, address)

socket.socket.connect = connect
"""


def executed(name: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The notebook with its outputs, run by a fresh user at ``home``."""
    startup = home / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00-closed.py").write_text(CLOSED)
    theirs = {"HOME": str(home), "IPYTHONDIR": str(home / "ipython"), "LLMKIT_CACHE_DIR": str(home / "cache"), "PYTHONPATH": str(ROOT)}
    for variable, value in {**theirs, "JUPYTER_RUNTIME_DIR": str(home / "runtime"), "JUPYTER_PLATFORM_DIRS": "1"}.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.delenv("MPLBACKEND", raising=False)
    notebook = nbformat.read(FOLDER / name, as_version=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Jupyter's own, of its coming changes; the kernel shows llmkit's
        client = nbclient.NotebookClient(
            notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}, store_widget_state=False
        )
        client.execute(env={**os.environ})
    return notebook


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_from_top_to_bottom_without_a_key_and_without_the_network(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    if "distributed" in (FOLDER / name).read_text("utf-8"):
        pytest.importorskip("distributed")
    began = time.monotonic()
    notebook = executed(name, tmp_path, monkeypatch)
    seconds = time.monotonic() - began
    print(f"\n{name}: {seconds:.0f} s")
    assert seconds < 60
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) >= 2
    complaints = [output["text"] for output in outputs if output.get("name") == "stderr"]
    assert [text for text in complaints if "Warning" in text or "Traceback" in text] == []


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_stored_as_it_was_written(name: str) -> None:
    text = (FOLDER / name).read_text("utf-8")
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell for cell in code if cell.outputs or cell.execution_count is not None or cell.metadata] == []
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert "python3" == notebook.metadata.kernelspec.name
    assert notebook.cells[0].source.startswith("# ")
    # As nbformat writes it, so that a save in Lab changes what was changed and no more.
    assert text == nbformat.writes(notebook) + "\n"


@pytest.mark.parametrize("name", [name for name in NOTEBOOKS if "pretend" in (FOLDER / name).read_text("utf-8")])
def test_a_notebook_that_uses_a_stand_in_says_that_it_is_no_model(name: str) -> None:
    first = nbformat.read(FOLDER / name, as_version=4).cells[0].source
    assert "not a model" in first or "not models" in first


def test_the_stand_ins_speak_as_openai_does(monkeypatch: pytest.MonkeyPatch) -> None:
    import llmkit

    monkeypatch.syspath_prepend(str(FOLDER))
    import pretend

    server = pretend.Server({"first": pretend.first_sentence})
    try:
        llmkit.add_provider("pretend", server.url)
        assert llmkit.served("pretend") == ["first"]
        assert llmkit.chat("One. Two.", model="pretend/first") == "One."
        assert list(llmkit.stream("One and two. Three.", model="pretend/first")) == ["One", " and", " two."]
        assert (server.requests, server.answers, server.in_flight) == (2, 2, 0)
    finally:
        server.stop()
        for module in ("pretend", "misbehaving"):
            sys.modules.pop(module, None)


def test_the_stand_in_takes_batch_jobs_as_openai_does(monkeypatch: pytest.MonkeyPatch) -> None:
    from openai import NotFoundError, OpenAI

    monkeypatch.syspath_prepend(str(FOLDER))
    import overnight

    server = overnight.Overnight(per_hour=2)
    client = OpenAI(api_key="no-key", base_url=server.url, max_retries=0)
    try:
        bodies = [{"model": "m", "messages": [{"role": "user", "content": f"Row {number}. And more."}]} for number in range(60)]
        lines = [json.dumps({"custom_id": f"row-{number}", "body": body}) for number, body in enumerate(bodies)]
        jobs = []
        for some in (lines[:4], lines[4:], lines[:1]):
            file = client.files.create(file=("in.jsonl", "\n".join(some).encode()), purpose="batch")
            jobs.append(
                client.batches.create(
                    input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"llmkit": "mine"}
                ).id
            )
        client.batches.cancel(jobs[2])
        server.pass_hours(3)
        assert [batch.id for batch in client.batches.list()] == jobs[::-1]
        told = [client.batches.retrieve(job) for job in jobs]
        assert [(one.status, one.request_counts.completed) for one in told if one.request_counts] == [
            ("completed", 4), ("in_progress", 2), ("cancelled", 0),
        ]  # fmt: skip
        assert told[0].output_file_id is not None
        answers = [json.loads(line) for line in client.files.content(told[0].output_file_id).text.splitlines()]
        assert answers[1]["response"]["body"]["choices"][0]["message"]["content"] == "Row 1."
        server.pass_hours(24)
        late = client.batches.retrieve(jobs[1])
        assert (late.status, late.error_file_id is not None) == ("expired", True)
        # 21 hours more, until its day was over.
        assert late.request_counts is not None and late.request_counts.completed == 2 * 22
        assert set(server.paid.values()) == {1} and sum(server.paid.values()) == 4 + 2 * 22
        with pytest.raises(NotFoundError):
            client.batches.retrieve("batch_nobody")
        with pytest.raises(NotFoundError):
            client.embeddings.create(model="m", input="Row")
    finally:
        client.close()
        server.stop()
        for module in ("pretend", "misbehaving", "overnight"):
            sys.modules.pop(module, None)


def test_the_first_notebook_is_what_the_binder_opens() -> None:
    assert "01_quickstart.ipynb" == NOTEBOOKS[0]
    assert json.loads((FOLDER / NOTEBOOKS[0]).read_text("utf-8"))["nbformat"] == 4
