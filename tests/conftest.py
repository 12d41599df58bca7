"""Every test begins with an empty environment, an empty cache and a fresh shared session; nothing leaves this computer."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

import llmkit
from llmkit import event_loop, session
from llmkit.run import begun

from .loopback import Loopback

_VENDORS = [
    row for row in tomllib.loads(files("llmkit.catalogue").joinpath("providers.toml").read_text("utf-8")).values() if isinstance(row, dict)
]
_VARIABLES = {name for row in _VENDORS for name in (*row["key_env"], *row["base_url_env"])}
_VARIABLES |= {"OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "REQUEST_METHOD"}
_PROXIES = {f"{scheme}_proxy" for scheme in ("http", "https", "all", "no")}


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    for name in (*_VARIABLES, *_PROXIES, *(name.upper() for name in _PROXIES)):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LLMKIT_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("LLMKIT_CONFIG_DIR", str(tmp_path_factory.mktemp("config")))
    monkeypatch.setenv("LLMKIT_DOTENV", "off")  # the developer's own keys
    monkeypatch.delenv("LLMKIT_KEYRING", raising=False)
    monkeypatch.delenv("LLMKIT_CACHE_URL", raising=False)
    # A server that happens to run on the developer's machine is nobody's test data.
    monkeypatch.setitem(llmkit.catalogue.default._toml, "local_ports", [])
    _forget_session()
    yield
    _end_runs()
    _forget_session()


def _end_runs() -> None:
    """A run that a test did not wait for, such as one by batch jobs that nobody answers, is none of the next test's."""
    for run in list(begun.running.values()):
        assert run._running is not None
        run._running.cancel()  # not run.cancel(), which would ask the provider
        event_loop.settle(run._running.future, 5)
    begun.running.clear()


def _forget_session() -> None:
    if session.default.made is not None:
        session.default.made.close()
        session.default.forget()
    llmkit.catalogue.default.forget()


@pytest.fixture
def cache_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the shared session keeps its answers in this test."""
    monkeypatch.setenv("LLMKIT_CACHE_DIR", str(tmp_path / "answers"))
    return tmp_path / "answers"


@pytest.fixture
def server() -> Iterator[Loopback]:
    """A pretend provider, listening."""
    with Loopback() as loopback:
        yield loopback


@pytest.fixture
def lab(server: Loopback) -> Loopback:
    """The same, known to llmkit as ``lab``: ``model="lab/test-chat"``."""
    llmkit.add_provider("lab", server.url, api_key="test-key-not-real")
    return server
