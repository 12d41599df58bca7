"""Keys in the system's keyring: only for those who asked for it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import llmkit
from llmkit.settings import Settings
from llmkit.types import Provider

keyring = pytest.importorskip("keyring", reason="needs the extra llmkit[keyring]")

VENDOR = Provider("vendor", "https://api.vendor.com/v1", key_env=("VENDOR_API_KEY", "VENDOR_TOKEN"))


def found_key(settings: Settings) -> tuple[str, str] | None:
    key = settings.key(VENDOR)
    return None if key is None else (key.reveal(), key.origin)


class Drawer(keyring.backend.KeyringBackend):  # type: ignore[misc]
    """A keyring that lives in memory, counts who asks, and may be locked."""

    priority = 1

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], str] = {}
        self.asked = 0
        self.locked = False

    def get_password(self, service: str, username: str) -> str | None:
        self.asked += 1
        if self.locked:
            raise keyring.errors.KeyringLocked("locked")
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        if self.locked:
            raise keyring.errors.KeyringLocked("locked")
        self.kept[service, username] = password


@pytest.fixture
def drawer() -> Iterator[Drawer]:
    before = keyring.get_keyring()
    made = Drawer()
    keyring.set_keyring(made)
    yield made
    keyring.set_keyring(before)


def config(tmp_path: Path, **more: str) -> dict[str, str]:
    return {"LLMKIT_CONFIG_DIR": str(tmp_path), **more}


def test_who_never_asked_for_the_keyring_never_waits_for_it(drawer: Drawer, tmp_path: Path) -> None:
    drawer.kept["llmkit", "vendor"] = "not-real"
    assert Settings(config(tmp_path)).key(VENDOR) is None
    assert drawer.asked == 0


def test_a_key_that_is_kept_is_found_by_the_next_process(drawer: Drawer, tmp_path: Path) -> None:
    Settings(config(tmp_path)).keep("vendor", " not-real\n")
    assert found_key(Settings(config(tmp_path))) == ("not-real", "the system's keyring")
    assert "not-real" not in (tmp_path / "keyring.json").read_text()


def test_only_the_provider_whose_key_is_kept_is_looked_up_and_once(drawer: Drawer, tmp_path: Path) -> None:
    Settings(config(tmp_path)).keep("another", "not-real")
    settings = Settings(config(tmp_path))
    assert settings.key(VENDOR) is None
    assert drawer.asked == 0
    settings.keep("vendor", "not-real")
    settings = Settings(config(tmp_path))
    settings.key(VENDOR)
    settings.key(VENDOR)
    assert drawer.asked == 1


def test_the_keyring_can_be_switched_on_and_off_by_a_variable(drawer: Drawer, tmp_path: Path) -> None:
    drawer.kept["llmkit", "vendor"] = "not-real"
    assert found_key(Settings(config(tmp_path, LLMKIT_KEYRING="1"))) == ("not-real", "the system's keyring")
    Settings(config(tmp_path)).keep("vendor", "not-real")
    assert Settings(config(tmp_path, LLMKIT_KEYRING="0")).key(VENDOR) is None


def test_the_environment_and_a_dotenv_file_go_before_the_keyring(drawer: Drawer, tmp_path: Path) -> None:
    Settings(config(tmp_path)).keep("vendor", "kept")
    (tmp_path / ".env").write_text("VENDOR_API_KEY=file")
    assert found_key(Settings(config(tmp_path), folder=tmp_path)) == ("file", f"VENDOR_API_KEY in {tmp_path / '.env'}")
    assert found_key(Settings(config(tmp_path, VENDOR_TOKEN="environment"))) == ("environment", "environment variable VENDOR_TOKEN")
    assert drawer.asked == 0


def test_a_locked_keyring_is_an_error_when_writing_and_no_key_when_reading(drawer: Drawer, tmp_path: Path) -> None:
    Settings(config(tmp_path)).keep("vendor", "not-real")
    drawer.locked = True
    assert Settings(config(tmp_path)).key(VENDOR) is None
    with pytest.raises(llmkit.ConfigError, match=r"takes no key here \(KeyringLocked\)"):
        Settings(config(tmp_path)).keep("vendor", "not-real")


def test_without_the_package_the_line_that_installs_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(llmkit.MissingExtra, match=r"pip install 'llmkit\[keyring\]'"):
        Settings(config(tmp_path)).keep("vendor", "not-real")
    assert Settings(config(tmp_path, LLMKIT_KEYRING="1")).key(VENDOR) is None


def test_the_public_function_keeps_a_key_where_it_is_asked_to(drawer: Drawer) -> None:
    llmkit.set_key("openai", "not-real", keep="keyring")
    assert drawer.kept == {("llmkit", "openai"): "not-real"}
    llmkit.set_key("groq", "not-real")
    assert len(drawer.kept) == 1


def test_a_function_is_not_kept(drawer: Drawer) -> None:
    with pytest.raises(llmkit.ConfigError, match="a function cannot be kept"):
        llmkit.set_key("openai", lambda: "not-real", keep="keyring")


def test_another_place_to_keep_a_key_is_an_error() -> None:
    with pytest.raises(llmkit.ConfigError, match='"memory", "keyring" or ".env", not \'disk\''):
        llmkit.set_key("openai", "not-real", keep="disk")
