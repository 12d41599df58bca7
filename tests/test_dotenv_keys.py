"""Keys that are written into a ``.env`` file: only there, readable by nobody else, and never into git."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import llmkit
from llmkit.settings import Settings
from llmkit.types import Provider

KEY = "key-not-real"
VENDOR = Provider("vendor", "https://api.vendor.com/v1", key_env=("VENDOR_API_KEY", "VENDOR_TOKEN"), base_url_env=("VENDOR_BASE_URL",))


def settings(folder: Path) -> Settings:
    return Settings({}, folder=folder)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project under the home folder, so that nothing above it is looked at."""
    monkeypatch.setenv("HOME", str(tmp_path))
    made = tmp_path / "project"
    made.mkdir()
    return made


def git(folder: Path, *words: str) -> str:
    if shutil.which("git") is None:
        pytest.skip("git is not here")
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1"}
    return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True, env=environment).stdout


def test_a_new_file_is_the_users_alone_and_is_found_by_the_next_session(folder: Path) -> None:
    path = settings(folder).keep_in_file(VENDOR, f" {KEY}\n")
    assert path == folder / ".env"
    assert path.read_text() == f"VENDOR_API_KEY={KEY}\n"
    assert path.stat().st_mode & 0o777 == 0o600
    found = settings(folder).key(VENDOR)
    assert found is not None
    assert (found.reveal(), found.origin) == (KEY, f"VENDOR_API_KEY in {path}")


def test_the_nearest_file_is_taken_and_every_other_line_stays(folder: Path) -> None:
    (folder / ".env").write_text("# mine\n\nexport OTHER='a b' # kept\nVENDOR_TOKEN=old\n\nLAST=1")
    (folder / "deep").mkdir()
    settings(folder / "deep").keep_in_file(VENDOR, KEY)
    assert (folder / ".env").read_text() == f"# mine\n\nexport OTHER='a b' # kept\nVENDOR_TOKEN={KEY}\n\nLAST=1"
    assert not (folder / "deep" / ".env").exists()


def test_a_file_without_a_last_line_break_gets_a_line_of_its_own(folder: Path) -> None:
    (folder / ".env").write_text("OTHER=1")
    settings(folder).keep_in_file(VENDOR, KEY)
    assert (folder / ".env").read_text() == f"OTHER=1\nVENDOR_API_KEY={KEY}\n"


def test_a_file_that_others_may_read_is_theirs_no_more_but_its_groups(folder: Path) -> None:
    (folder / ".env").write_text("")
    (folder / ".env").chmod(0o664)
    settings(folder).keep_in_file(VENDOR, KEY)
    assert (folder / ".env").stat().st_mode & 0o777 == 0o660


@pytest.mark.parametrize("key", ["a#b", "it's", 'say "x"', r"back\slash", "${HOME}", "$x", "a b=c", r"\'"])
def test_a_key_with_any_sign_in_it_is_read_back_as_it_was(folder: Path, key: str) -> None:
    settings(folder).keep_in_file(VENDOR, key)
    found = settings(folder).key(VENDOR)
    assert found is not None
    assert found.reveal() == key


def test_a_link_stays_one(folder: Path) -> None:
    (folder / "shared").mkdir()
    (folder / "shared" / "keys").write_text("")
    (folder / ".env").symlink_to("shared/keys")
    settings(folder).keep_in_file(VENDOR, KEY)
    assert (folder / ".env").is_symlink()
    assert KEY in (folder / "shared" / "keys").read_text()


def test_in_a_repository_git_passes_the_file_over_from_then_on(folder: Path) -> None:
    git(folder, "init", "-q")
    (folder / ".gitignore").write_text("*.pyc")
    settings(folder).keep_in_file(VENDOR, KEY)
    assert (folder / ".gitignore").read_text() == "*.pyc\n.env\n"
    assert git(folder, "check-ignore", ".env") == ".env\n"
    assert ".env" not in git(folder, "status", "--porcelain", "-uall").replace(".gitignore", "")


@pytest.mark.parametrize("line", [".env", "/.env", "*.env", ".env*", "**/.env"])
def test_what_is_ignored_already_is_not_named_again(folder: Path, line: str) -> None:
    git(folder, "init", "-q")
    (folder / ".gitignore").write_text(f"{line}\n")
    (folder / "deep").mkdir()
    (folder / "deep" / ".env").write_text("")
    settings(folder).keep_in_file(VENDOR, KEY)
    assert (folder / ".gitignore").read_text() == f"{line}\n"


def test_what_is_taken_back_from_being_ignored_is_named_again(folder: Path) -> None:
    git(folder, "init", "-q")
    (folder / ".gitignore").write_text(".env\n!.env\n")
    settings(folder).keep_in_file(VENDOR, KEY)
    assert git(folder, "check-ignore", ".env") == ".env\n"


def test_without_a_repository_no_gitignore_is_made(folder: Path) -> None:
    settings(folder).keep_in_file(VENDOR, KEY)
    assert not (folder / ".gitignore").exists()


@pytest.mark.parametrize("deep", [False, True])
def test_a_file_that_git_keeps_gets_no_key(folder: Path, deep: bool) -> None:
    git(folder, "init", "-q")
    at = folder / "deep" if deep else folder
    at.mkdir(exist_ok=True)
    (at / ".env").write_text("OTHER=1\n")
    (at / "prod.env").write_text("OTHER=1\n")
    git(folder, "add", "-f", str(at / "prod.env"))
    settings(at).keep_in_file(VENDOR, KEY)  # another file whose name ends so is no obstacle
    (at / ".env").write_text("OTHER=1\n")
    git(folder, "add", "-f", str(at / ".env"))
    with pytest.raises(llmkit.ConfigError, match="git rm --cached .env"):
        settings(at).keep_in_file(VENDOR, KEY)
    assert (at / ".env").read_text() == "OTHER=1\n"


def test_an_address_in_the_file_gets_no_key_sent_to_it(folder: Path) -> None:
    (folder / ".env").write_text("VENDOR_BASE_URL=https://elsewhere.example/v1\n")
    with pytest.raises(llmkit.ConfigError, match="sets VENDOR_BASE_URL"):
        settings(folder).keep_in_file(VENDOR, KEY)
    assert KEY not in (folder / ".env").read_text()


def test_somebody_elses_file_in_a_folder_for_everybody_gets_no_key(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / ".env").write_text("")
    folder.chmod(0o777)
    monkeypatch.setattr(os, "getuid", lambda: (folder / ".env").stat().st_uid + 1)
    with pytest.raises(llmkit.ConfigError, match="not yours"):
        settings(folder).keep_in_file(VENDOR, KEY)


def test_a_folder_of_that_name_is_an_error(folder: Path) -> None:
    (folder / ".env").mkdir()
    with pytest.raises(llmkit.ConfigError, match="not yours"):
        settings(folder).keep_in_file(VENDOR, KEY)


def test_who_reads_no_such_file_writes_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(llmkit.ConfigError, match="reads no .env"):
        Settings({}).keep_in_file(VENDOR, KEY)
    with pytest.raises(llmkit.ConfigError, match="LLMKIT_DOTENV=off"):
        Settings({"LLMKIT_DOTENV": "off"}, folder=folder).keep_in_file(VENDOR, KEY)
    with pytest.raises(llmkit.ConfigError, match="no variable holds"):
        settings(folder).keep_in_file(Provider("mine", "http://127.0.0.1:8000/v1"), KEY)
    assert list(folder.iterdir()) == []


def test_a_file_that_cannot_be_written_stays_as_it_was_and_leaves_nothing_beside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / ".env").write_text("OTHER=1\n")

    def refuse(*paths: object) -> None:
        raise OSError("full")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="full"):
        settings(folder).keep_in_file(VENDOR, KEY)
    assert [path.name for path in folder.iterdir()] == [".env"]
    assert (folder / ".env").read_text() == "OTHER=1\n"


def test_the_public_function_writes_the_file_and_uses_the_key_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLMKIT_DOTENV")
    monkeypatch.chdir(folder)
    llmkit.set_key("groq", KEY, keep=".env")
    assert (folder / ".env").read_text() == f"GROQ_API_KEY={KEY}\n"
    assert llmkit.providers().set_index("provider").loc["groq", "key_found"]
    with pytest.raises(llmkit.ConfigError, match="a function cannot be kept in a file"):
        llmkit.set_key("groq", lambda: KEY, keep=".env")
