"""``binder/`` as far as it can be tried without Docker."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BINDER = ROOT / "binder"

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


@pytest.mark.parametrize("name", ["postBuild", "start"])
def test_a_script_is_executable_and_bash_can_read_it(name: str) -> None:
    script = BINDER / name
    assert os.access(script, os.X_OK)
    assert script.read_text("utf-8").startswith("#!/bin/bash\n")
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_the_requirements_are_an_extra_that_brings_what_the_notebooks_import() -> None:
    lines = (BINDER / "requirements.txt").read_text("utf-8").splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == [".[notebooks]"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extra = " ".join(project["optional-dependencies"]["notebooks"])
    assert all(needed in extra for needed in ("jupyterlab", "widgets", "local", "plot", "dask"))


def test_the_python_is_one_that_llmkit_supports() -> None:
    named = (BINDER / "runtime.txt").read_text("utf-8").strip()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert f"Programming Language :: Python :: {named.removeprefix('python-')}" in project["classifiers"]


def started(home: Path, code: str, **environ: str) -> str:
    """What ``code`` prints in an IPython that ``binder/start`` was the door to, for a fresh user."""
    command = [str(BINDER / "start"), sys.executable, "-m", "IPython", "--no-banner", "--colors=NoColor", "-c", code]
    environment = {"HOME": str(home), "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LLMKIT_DOTENV": "off", **environ}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=home, timeout=60)
    assert 0 == done.returncode, done.stderr
    return done.stdout.strip()


def test_start_runs_its_command_and_hands_on_its_arguments_and_its_end(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [str(BINDER / "start"), "bash", "-c", 'echo "$1|$LLMKIT_CACHE_DIR"; exit 7', "bash", "two words"],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    assert (done.stdout, done.returncode) == (f"two words|{tmp_path}/.cache/llmkit\n", 7)


def test_without_a_key_a_cell_that_names_no_model_is_answered_by_the_echo(tmp_path: Path) -> None:
    pytest.importorskip("IPython")
    assert started(tmp_path, "import llmkit; print(llmkit.chat('Hello'))") == "[echo, not a model] Hello"
    assert started(tmp_path, "print('llmkit' in dir())") == "False"


def test_a_key_that_is_set_goes_before_the_echo(tmp_path: Path) -> None:
    pytest.importorskip("IPython")
    code = "from llmkit.session import default; print(default().chosen('chat')[0])"
    assert started(tmp_path, code) == "echo/echo"
    assert started(tmp_path, code, OPENAI_API_KEY="test-key-not-real").startswith("openai/")


def test_the_image_that_repo2docker_would_build_uses_all_four_files(tmp_path: Path) -> None:
    tool = shutil.which("repo2docker", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if tool is None:
        pytest.skip("repo2docker is not installed; pip install jupyter-repo2docker to see the Dockerfile checked")
    done = subprocess.run([tool, "--no-build", "--debug", str(ROOT)], capture_output=True, text=True, timeout=120, check=True)
    said = done.stdout + done.stderr
    assert 'pip install --no-cache-dir -r "binder/requirements.txt"' in said
    assert "./binder/postBuild" in said
    assert 'R2D_ENTRYPOINT="${REPO_DIR}/binder/start"' in said
    assert "environment-2epy-2d3-2e12" in said
