"""refresh: what is downloaded is checked first, kept whole or not at all, and cannot send a key elsewhere."""

from __future__ import annotations

import datetime
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import llmkit
from llmkit.catalogue import Catalogue, download
from llmkit.catalogue.conversion import rows_of

TODAY = datetime.datetime.now(datetime.UTC).date()
SHIPPED_ON = Catalogue()._json["as_of"]
#: The package's own rows may be from a day that a clock has not reached yet.
AS_OF = max(TODAY.isoformat(), SHIPPED_ON)
ROW = {"provider": "openai", "name": "gpt-of-tomorrow", "operations": ["chat"], "price": {"input": 1.5, "output": 6.0}}

CHAT = {"litellm_provider": "openai", "mode": "chat"}


class Site:
    """A web server on this computer that answers with what it is told."""

    def __init__(self) -> None:
        self.status = 200
        self.body = b""
        self.headers: dict[str, str] = {}
        self.length: int | None = None
        self.requests = 0
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.requests += 1
                self.send_response(site.status)
                for name, value in site.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(site.body) if site.length is None else site.length))
                self.end_headers()
                self.wfile.write(site.body)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/models.json"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def says(self, document: Any) -> None:
        self.body = json.dumps(document).encode()


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def known(tmp_path: Path) -> Catalogue:
    return Catalogue(lambda: tmp_path / "catalogue")


def untouched(known: Catalogue, tmp_path: Path) -> bool:
    return not list(tmp_path.rglob("*.json")) and known.model("openai", "gpt-of-tomorrow").price.input is None


def test_what_is_downloaded_is_used_at_once_and_by_the_next_process(site: Site, known: Catalogue, tmp_path: Path) -> None:
    site.says({"as_of": AS_OF, "models": [ROW]})
    told = known.refresh(site.url, 5)
    assert (told["models"], told["new"], told["as_of"]) == (1, 1, AS_OF)
    assert Path(told["kept_in"]).parent == tmp_path / "catalogue"
    for catalogue in (known, Catalogue(lambda: tmp_path / "catalogue")):
        assert catalogue.model("openai", "gpt-of-tomorrow").price.input == 1.5
        assert catalogue.model("openai", "gpt-4.1-mini").price.input == 0.4, "what the download does not name stays"


def test_the_public_function_keeps_it_in_the_users_cache_directory(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LLMKIT_CACHE_DIR", str(tmp_path / "cache"))
    site.says({"as_of": AS_OF, "models": [ROW]})
    told = llmkit.catalogue.refresh(site.url)
    assert told["kept_in"] == str(tmp_path / "cache" / "catalogue" / "models.json")
    assert llmkit.find("gpt-of-tomorrow")["model"].tolist() == ["openai/gpt-of-tomorrow"]


def test_a_download_that_is_older_than_the_package_is_not_used(site: Site, known: Catalogue, tmp_path: Path) -> None:
    path = tmp_path / "catalogue" / "models.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"as_of": "2020-01-01", "models": [ROW]}))
    assert known.model("openai", "gpt-of-tomorrow").price.input is None
    site.says({"as_of": "2020-01-01", "models": [ROW]})
    with pytest.raises(llmkit.BadInput, match="from 2020-01-01 and llmkit's own from"):
        known.refresh(site.url, 5)


def test_a_download_that_is_removed_is_used_no_more(site: Site, known: Catalogue, tmp_path: Path) -> None:
    site.says({"as_of": AS_OF, "models": [ROW]})
    Path(known.refresh(site.url, 5)["kept_in"]).unlink()
    assert Catalogue(lambda: tmp_path / "catalogue").model("openai", "gpt-of-tomorrow").price.input is None


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"models": 3}', '{"as_of": "9999-01-01", "models": 5}'])
def test_a_kept_file_that_is_damaged_is_as_good_as_none(known: Catalogue, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "catalogue" / "models.json"
    path.parent.mkdir()
    path.write_text(damage)
    assert known.model("openai", "gpt-4.1-mini").price.input == 0.4


@pytest.mark.parametrize(
    "row",
    [
        {**ROW, "name": "new-form", "price": {"input": 1.0, "price_of_tomorrow": 2.0}},
        {**ROW, "name": "new-form", "price": {"input": "cheap"}},
        {"provider": "openai"},
        "openai/new-form",
        None,
    ],
)
def test_a_kept_row_of_a_form_that_is_not_known_is_left_out_and_the_others_stay(known: Catalogue, tmp_path: Path, row: Any) -> None:
    path = tmp_path / "catalogue" / "models.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"as_of": AS_OF, "models": [row, ROW]}))
    names = {model.name for model in known.models()}
    assert "gpt-of-tomorrow" in names
    assert "new-form" not in names


def test_a_kept_row_gives_no_alias(known: Catalogue, tmp_path: Path) -> None:
    path = tmp_path / "catalogue" / "models.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"as_of": AS_OF, "models": [{**ROW, "aliases": ["gpt-4.1-mini"]}]}))
    assert "openai/gpt-of-tomorrow" not in [str(model) for model in known.named("gpt-4.1-mini")]


def test_litellms_own_file_is_read_too(site: Site, known: Catalogue) -> None:
    site.says(
        {
            "sample_spec": {"mode": "one of"},
            "gpt-of-tomorrow": {
                "litellm_provider": "openai",
                "mode": "chat",
                "max_input_tokens": 1000,
                "input_cost_per_token": 2e-06,
                "input_cost_per_token_batches": 1e-06,
                "supports_vision": True,
            },
            "elsewhere/x": {"litellm_provider": "elsewhere", "mode": "chat"},
        }
    )
    assert known.refresh(site.url, 5)["models"] == 1
    model = known.model("openai", "gpt-of-tomorrow")
    assert (model.price.input, model.price.batch_input, model.price.output) == (2.0, 1.0, None)
    assert (model.context_window, model.capabilities, model.as_of) == (1000, ("vision",), TODAY.isoformat())


def test_an_address_in_a_download_is_not_taken(site: Site, known: Catalogue) -> None:
    site.says(
        {"as_of": AS_OF, "models": [ROW], "providers": {"openai": {"base_url": "https://evil.example/v1"}}, "aliases": {"gpt-4": ["x/y"]}}
    )
    known.refresh(site.url, 5)
    openai = known.provider("openai")
    assert openai is not None
    assert openai.base_url == "https://api.openai.com/v1"
    assert "x/y" not in [str(model) for model in known.named("gpt-4")]
    assert "openai/gpt-of-tomorrow" not in [str(model) for model in known.named("gpt-5-mini")]


@pytest.mark.parametrize(
    ("document", "cure"),
    [
        ("no json at all", 'no "models"'),
        ([], 'no "models"'),
        ({"as_of": AS_OF}, 'no "models"'),
        ({"as_of": AS_OF, "models": []}, 'no "models"'),
        ({"models": [ROW]}, 'does not say "as_of"'),
        ({"as_of": "yesterday", "models": [ROW]}, 'does not say "as_of"'),
        ({"as_of": "9999-12-31", "models": [ROW]}, "which is to come"),
        ({"as_of": AS_OF, "models": [ROW, {"name": "x"}]}, 'at least "provider" and "name"'),
        ({"as_of": AS_OF, "models": [{**ROW, "price": {"input": -1}}]}, "dollars per million tokens"),
        ({"as_of": AS_OF, "models": [{**ROW, "price": {"input": "1"}}]}, "dollars per million tokens"),
        ({"as_of": AS_OF, "models": [{**ROW, "context_window": "big"}]}, "context_window of gpt-of-tomorrow is a whole number"),
        ({"as_of": AS_OF, "models": [{**ROW, "command": "rm"}]}, "a model has no 'command'"),
        ({"as_of": AS_OF, "models": [{**ROW, "operations": "chat"}]}, "operations of gpt-of-tomorrow is a list"),
        ({"as_of": AS_OF, "models": [{**ROW, "deprecated": "soon"}]}, "the day a model ends"),
        ({"as_of": AS_OF, "models": [{**ROW, "source": ["a page"]}]}, "source of gpt-of-tomorrow is a text"),
        ({"x": {**CHAT, "litellm_provider": []}}, "not in the form of LiteLLM's"),
        ({"x": {**CHAT, "mode": []}}, "not in the form of LiteLLM's"),
        ({"x": {**CHAT, "deprecation_date": 20270131}}, "not in the form of LiteLLM's"),
        ({"x": {**CHAT, "mode": "audio_transcription", "supported_endpoints": None}}, "not in the form of LiteLLM's"),
        ({"x": {**CHAT, "input_cost_per_token": 10**400}}, "not in the form of LiteLLM's"),
        ({"x": {**CHAT, "max_input_tokens": float("inf"), "input_cost_per_token": float("inf")}}, "dollars per million tokens"),
    ],
)
def test_a_download_that_is_no_catalogue_changes_nothing(site: Site, known: Catalogue, tmp_path: Path, document: Any, cure: str) -> None:
    site.says(document)
    with pytest.raises(llmkit.BadInput, match=cure):
        known.refresh(site.url, 5)
    assert untouched(known, tmp_path)


def test_a_download_that_is_nested_without_end_changes_nothing(site: Site, known: Catalogue, tmp_path: Path) -> None:
    site.body = b"[" * 200_000
    with pytest.raises(llmkit.BadInput, match="no JSON"):
        known.refresh(site.url, 5)
    assert untouched(known, tmp_path)


def test_a_bad_download_leaves_the_good_one_before_it(site: Site, known: Catalogue) -> None:
    site.says({"as_of": AS_OF, "models": [ROW]})
    known.refresh(site.url, 5)
    site.body = site.body[:-9]
    with pytest.raises(llmkit.BadInput, match="no JSON"):
        known.refresh(site.url, 5)
    assert known.model("openai", "gpt-of-tomorrow").price.input == 1.5


def test_a_download_that_stops_half_way_changes_nothing(site: Site, known: Catalogue, tmp_path: Path) -> None:
    site.says({"as_of": AS_OF, "models": [ROW]})
    site.length = len(site.body) + 10
    with pytest.raises(llmkit.ConnectionLost, match="stopped before the end"):
        known.refresh(site.url, 5)
    assert untouched(known, tmp_path)


def test_a_download_that_is_too_large_is_given_up(
    site: Site, known: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr(download, "LARGEST", 100)
    site.says({"as_of": AS_OF, "models": [ROW] * 50})
    with pytest.raises(llmkit.BadInput, match="which no catalogue is"):
        known.refresh(site.url, 5)
    assert untouched(known, tmp_path)


def test_a_server_that_refuses_is_told_by_its_number(site: Site, known: Catalogue, tmp_path: Path) -> None:
    site.status = 404
    with pytest.raises(llmkit.ServerFault, match="127.0.0.1 answers 404; nothing was changed"):
        known.refresh(site.url, 5)
    assert untouched(known, tmp_path)


def test_a_server_that_is_not_there_is_told(site: Site, known: Catalogue) -> None:
    site.server.shutdown()
    site.server.server_close()
    with pytest.raises(llmkit.ConnectionLost, match="cannot be reached"):
        known.refresh(site.url, 5)


def test_a_server_that_says_nothing_is_given_up_in_time(site: Site, known: Catalogue) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(llmkit.TimedOut, match=r"within 0\.05 s"):
        known.refresh(f"http://127.0.0.1:{silent.getsockname()[1]}/", 0.05)


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n"])
def test_a_server_that_drips_is_given_up_in_time(known: Catalogue, head: bytes) -> None:
    given_up = threading.Event()

    def drip(server: socket.socket) -> bool:
        """Whether the client gave up before five seconds of drips were over."""
        client, _ = server.accept()
        with client:
            client.sendall(head)
            for _ in range(250):
                if given_up.wait(0.02):
                    return True
                client.sendall(b"x")
        return False

    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        in_time = pool.submit(drip, server)
        with pytest.raises(llmkit.TimedOut, match=r"within 0\.1 s"):
            known.refresh(f"http://127.0.0.1:{server.getsockname()[1]}/", 0.1)
        given_up.set()
        assert in_time.result()


@pytest.mark.parametrize(
    "url", ["http://example.com/models.json", "ftp://example.com/x", "file:///etc/passwd", "models.json", "http://localhost.example/x"]
)
def test_only_https_will_do_but_for_this_computer(known: Catalogue, url: str) -> None:
    with pytest.raises(llmkit.BadInput, match="over https"):
        known.refresh(url, 5)


def test_a_redirect_that_leaves_https_is_not_followed(site: Site, known: Catalogue, tmp_path: Path) -> None:
    site.status = 302
    site.headers = {"location": "http://example.com/models.json"}
    with pytest.raises(llmkit.BadInput, match="over https"):
        known.refresh(site.url, 5)
    assert site.requests == 1
    assert untouched(known, tmp_path)


@pytest.mark.parametrize("timeout", [0, -1, None, "10", True])
def test_a_time_that_is_none_is_an_error(timeout: Any) -> None:
    with pytest.raises(llmkit.BadInput, match="timeout is a number of seconds"):
        llmkit.catalogue.refresh("https://example.com/x", timeout)


def test_what_has_ended_or_is_served_by_another_wire_is_left_out() -> None:
    chat = {"litellm_provider": "openai", "mode": "chat"}
    document = {
        "ended": {**chat, "deprecation_date": "2026-01-01"},
        "to-end": {**chat, "deprecation_date": "2027-01-01"},
        "realtime": {**chat, "mode": "realtime"},
        "answers": {**chat, "mode": "responses"},
        "gpt-live-transcribe": {**chat, "mode": "audio_transcription", "supported_endpoints": ["/v1/realtime"]},
        "voyage/voyage-multimodal-9": {"litellm_provider": "voyage", "mode": "embedding"},
        "xai/grok-transcribe": {"litellm_provider": "xai", "mode": "audio_transcription"},
    }
    served = {name: provider.operations for name, provider in Catalogue().shipped_providers().items()}
    rows = {row["name"]: row["operations"] for row in rows_of(document, served, "2026-11-21", "them")}
    assert rows == {"to-end": ["chat"], "voyage-multimodal-9": ["embed_images"]}
