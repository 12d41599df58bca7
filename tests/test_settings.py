"""Keys, addresses, folders and proxies: what the environment says and what is made of it."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest

import llmkit
from llmkit.settings import Settings, is_loopback
from llmkit.types import Provider, Secret

VENDOR = Provider(
    "vendor",
    "https://api.vendor.com/v1",
    key_env=("VENDOR_API_KEY", "VENDOR_TOKEN"),
    base_url_env=("VENDOR_BASE_URL", "VENDOR_HOST"),
    quirks={"embed_encoding": "base64", "token_limit_field": "max_completion_tokens", "embed_batch": 100},
)


def shipped(name: str) -> Provider:
    found = llmkit.catalogue.default.provider(name)
    assert found is not None
    return found


# -------------------------------------------------------------------------------------------------------------------- keys


def test_a_key_comes_from_the_environment_and_says_from_where() -> None:
    key = Settings({"VENDOR_API_KEY": "not-real"}).key(VENDOR)
    assert key is not None
    assert (key.reveal(), key.origin) == ("not-real", "environment variable VENDOR_API_KEY")


def test_the_first_variable_that_is_set_wins() -> None:
    key = Settings({"VENDOR_TOKEN": "second", "VENDOR_API_KEY": "first"}).key(VENDOR)
    assert key is not None
    assert key.reveal() == "first"


@pytest.mark.parametrize("empty", ["", "  ", "\n"])
def test_an_empty_variable_is_none(empty: str) -> None:
    settings = Settings({"VENDOR_API_KEY": empty, "VENDOR_TOKEN": "second"})
    key = settings.key(VENDOR)
    assert key is not None
    assert key.origin == "environment variable VENDOR_TOKEN"


def test_spaces_around_a_key_are_no_part_of_it() -> None:
    key = Settings({"VENDOR_API_KEY": " not-real\n"}).key(VENDOR)
    assert key is not None
    assert key.reveal() == "not-real"


@pytest.mark.parametrize("key", ["schlüssel", "two\nlines", "•••••", "nul\0"])
def test_a_key_that_no_header_can_carry_is_an_error_that_does_not_repeat_it(key: str) -> None:
    with pytest.raises(llmkit.ConfigError, match="the key in VENDOR_API_KEY holds characters that no key has") as raised:
        Settings({"VENDOR_API_KEY": key}).key(VENDOR)
    with pytest.raises(llmkit.ConfigError, match="the key for vendor holds"):
        Settings({}).set_key("vendor", key)
    assert key not in str(raised.value)


def test_a_key_given_by_hand_goes_before_the_environment() -> None:
    settings = Settings({"VENDOR_API_KEY": "environment"})
    settings.set_key("vendor", "hand")
    key = settings.key(VENDOR)
    assert key is not None
    assert (key.reveal(), key.origin) == ("hand", "given by hand")


def test_a_key_that_is_taken_back_leaves_the_environments() -> None:
    settings = Settings({"VENDOR_API_KEY": "environment"})
    settings.set_key("vendor", "hand")
    settings.set_key("vendor", None)
    key = settings.key(VENDOR)
    assert key is not None
    assert key.reveal() == "environment"


def test_without_any_key_there_is_none() -> None:
    assert Settings({}).key(VENDOR) is None


def test_a_key_set_later_in_the_environment_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings()
    assert settings.key(VENDOR) is None
    monkeypatch.setenv("VENDOR_API_KEY", "not-real")
    assert settings.key(VENDOR) is not None


def test_a_function_is_asked_each_time() -> None:
    keys = iter(["one", "two"])
    secret = Secret(lambda: next(keys))
    assert secret.rotates
    assert (secret.reveal(), secret.reveal()) == ("one", "two")


# ------------------------------------------------------------------------------------------------------------------ secret


def test_a_secret_prints_as_dots_and_its_origin() -> None:
    assert repr(Secret("sk-not-real", "environment variable X")) == "Secret(•••••, environment variable X)"
    assert "not-real" not in f"{Secret('sk-not-real')} {Secret('sk-not-real')!r}"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_secret_cannot_be_pickled(protocol: int) -> None:
    with pytest.raises(TypeError, match="environment variable"):
        pickle.dumps(Secret("sk-not-real"), protocol)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_a_secret_is_not_copied_either(duplicate: object) -> None:
    with pytest.raises(TypeError):
        duplicate(Secret("sk-not-real"))  # type: ignore[operator]


def test_a_secret_shows_nothing_in_the_variables_of_its_holder() -> None:
    settings = Settings({})
    settings.set_key("vendor", "sk-not-real")
    assert "not-real" not in repr(vars(settings))
    assert not hasattr(Secret("sk-not-real"), "__dict__")


# --------------------------------------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("provider", "variable", "value", "url"),
    [
        ("openai", "OPENAI_BASE_URL", "https://proxy.example/v1", "https://proxy.example/v1"),
        ("openai", "OPENAI_BASE_URL", "https://proxy.example/v1/", "https://proxy.example/v1"),
        ("openai", "OPENAI_BASE_URL", " https://proxy.example/openai ", "https://proxy.example/openai"),
        ("openai", "OPENAI_BASE_URL", "https://proxy.example", "https://proxy.example/v1"),
        ("openai", "OPENAI_BASE_URL", "https://proxy.example:8443", "https://proxy.example:8443/v1"),
        ("openai", "OPENAI_BASE_URL", "http://[::1]:9000", "http://[::1]:9000/v1"),
        ("groq", "GROQ_BASE_URL", "https://api.groq.com", "https://api.groq.com/openai/v1"),
        ("groq", "GROQ_BASE_URL", "https://api.groq.com/", "https://api.groq.com/openai/v1"),
        ("ollama", "OLLAMA_HOST", "0.0.0.0", "http://127.0.0.1:11434/v1"),
        ("ollama", "OLLAMA_HOST", "0.0.0.0:8888", "http://127.0.0.1:8888/v1"),
        ("ollama", "OLLAMA_HOST", ":8888", "http://127.0.0.1:8888/v1"),
        ("ollama", "OLLAMA_HOST", "[::]:8888", "http://127.0.0.1:8888/v1"),
        ("ollama", "OLLAMA_HOST", "box.lan", "http://box.lan:11434/v1"),
        ("ollama", "OLLAMA_HOST", "http://box.lan:80", "http://box.lan:80/v1"),
        ("ollama", "OLLAMA_HOST", "https://box.lan", "https://box.lan/v1"),
        ("ollama", "OLLAMA_API_BASE", "http://127.0.0.1:11434", "http://127.0.0.1:11434/v1"),
        ("ollama", "OLLAMA_BASE_URL", "http://127.0.0.1:1/v1", "http://127.0.0.1:1/v1"),
        ("vllm", "VLLM_API_BASE", "http://gpu:8000/v1", "http://gpu:8000/v1"),
    ],
)
def test_an_address_as_people_write_it_is_made_whole(provider: str, variable: str, value: str, url: str) -> None:
    assert Settings({variable: value}).addressed(shipped(provider)).base_url == url


@pytest.mark.parametrize("value", ["http://host:port", "http://[::1", "http://host:99999"])
def test_an_address_that_is_none_is_an_error_that_names_its_variable(value: str) -> None:
    with pytest.raises(llmkit.ConfigError, match="VENDOR_BASE_URL='http.*is no address"):
        Settings({"VENDOR_BASE_URL": value}).addressed(VENDOR)


@pytest.mark.parametrize(
    "value",
    [
        "https://user:hunter2@host:99999/v1",
        "https://user:hunter2@host:8000/v1",
        "https://hunter2@host/v1",
        "user:hunter2@host",
        "https://user:se/hunter2@host:port",
        "https://user:hunter2@host://hunter2@host:port",
        "https://host:99999/v1?key=hunter2",
        "https://host/v1?key=hunter2",
        "https://host/v1#hunter2",
        "https://user:hun?hunter2#hunter2@host/v1",
        "https://host:port/v1?key=hunter2&next=https://host",
    ],
)
def test_an_address_with_a_secret_in_it_is_refused_and_the_secret_not_repeated(value: str, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"VENDOR_BASE_URL={value!r}")
    for settings in (Settings({"VENDOR_BASE_URL": value}), Settings({}, folder=tmp_path)):
        with pytest.raises(llmkit.ConfigError, match="VENDOR_BASE_URL.*host") as caught:
            settings.addressed(VENDOR)
        assert "hunter2" not in str(caught.value)
        assert "user:" not in str(caught.value)


def test_who_puts_a_password_into_an_address_is_told_where_the_key_goes() -> None:
    with pytest.raises(llmkit.ConfigError, match="put the key into VENDOR_API_KEY"):
        Settings({"VENDOR_BASE_URL": "https://user:secret@host/v1"}).addressed(VENDOR)
    keyless = Provider("lab", "http://lab/v1", base_url_env=("LAB_URL",))
    with pytest.raises(llmkit.ConfigError, match=r'llmkit.set_key\("lab"\)'):
        Settings({"LAB_URL": "https://user:secret@host/v1"}).addressed(keyless)


def test_without_a_variable_the_vendors_own_address_stays() -> None:
    assert Settings({"VENDOR_BASE_URL": " "}).addressed(VENDOR) is VENDOR


def test_at_another_address_the_vendors_own_quirks_are_not_assumed() -> None:
    moved = Settings({"VENDOR_BASE_URL": "https://proxy.example/v1"}).addressed(VENDOR)
    assert dict(moved.quirks) == {"embed_batch": 100}


def test_at_another_path_of_the_vendors_own_host_the_quirks_stay() -> None:
    moved = Settings({"VENDOR_BASE_URL": "https://api.vendor.com/eu/v1"}).addressed(VENDOR)
    assert moved.quirks == VENDOR.quirks


def test_a_server_on_this_computer_needs_no_key() -> None:
    assert Settings({"VENDOR_BASE_URL": "http://localhost:8000"}).addressed(VENDOR).key_optional
    assert not Settings({"VENDOR_BASE_URL": "https://proxy.example"}).addressed(VENDOR).key_optional


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://localhost:1/v1", True),
        ("http://127.0.0.1/", True),
        ("http://127.8.9.1:80", True),
        ("http://[::1]:80", True),
        ("http://localhost.example", False),
        ("http://10.0.0.1", False),
        ("https://api.openai.com", False),
        ("nothing", False),
    ],
)
def test_an_address_is_this_computers_or_not(url: str, here: bool) -> None:
    assert is_loopback(url) is here


# ------------------------------------------------------------------------------------------------------------------ proxies


@pytest.mark.parametrize(
    ("environ", "url", "proxy"),
    [
        ({}, "https://api.openai.com/v1", None),
        ({"HTTPS_PROXY": "http://proxy:3128"}, "https://api.openai.com/v1", "http://proxy:3128"),
        ({"https_proxy": "http://proxy:3128"}, "https://api.openai.com/v1", "http://proxy:3128"),
        ({"HTTPS_PROXY": "proxy:3128"}, "https://api.openai.com/v1", "http://proxy:3128"),
        ({"ALL_PROXY": "http://proxy:3128"}, "https://api.openai.com/v1", "http://proxy:3128"),
        ({"HTTP_PROXY": "http://proxy:3128"}, "https://api.openai.com/v1", None),
        ({"HTTP_PROXY": "http://proxy:3128"}, "http://box.lan/v1", "http://proxy:3128"),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "api.openai.com"}, "https://api.openai.com/v1", None),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": ".openai.com"}, "https://api.openai.com/v1", None),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "*"}, "https://api.openai.com/v1", None),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "other.com"}, "https://api.openai.com/v1", "http://proxy:3128"),
        ({"HTTP_PROXY": "http://proxy:3128"}, "http://127.0.0.1:8000/v1", None),
        ({"HTTP_PROXY": "http://proxy:3128"}, "http://localhost:8000/v1", None),
        ({"HTTP_PROXY": "http://proxy:3128"}, "http://[::1]:8000/v1", None),
        ({"ALL_PROXY": "http://proxy:3128"}, "http://127.0.0.1:8000/v1", None),
        ({"HTTPS_PROXY": ""}, "https://api.openai.com/v1", None),
    ],
)
def test_the_environment_names_the_proxy_for_an_address(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], url: str, proxy: str | None
) -> None:
    assert Settings(environ).proxy_for(url) == proxy
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert Settings().proxy_for(url) == proxy


# ------------------------------------------------------------------------------------------------------------------ folders


def test_the_folder_that_is_given_goes_before_the_variable(tmp_path: Path) -> None:
    assert Settings({"LLMKIT_CACHE_DIR": "/elsewhere"}, tmp_path).cache_dir == tmp_path


def test_the_variable_goes_before_the_users_cache_directory(tmp_path: Path) -> None:
    assert Settings({"LLMKIT_CACHE_DIR": f" {tmp_path} "}).cache_dir == tmp_path


def test_a_tilde_is_the_home_directory() -> None:
    assert Settings({"LLMKIT_CACHE_DIR": "~/answers"}).cache_dir == Path.home() / "answers"


def test_without_either_it_is_the_users_cache_directory() -> None:
    assert Settings({}).cache_dir.name == "llmkit"


# --------------------------------------------------------------------------------------------------------------------- .env


def written(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".env").write_text(text, "utf-8")
    return folder


def found_key(settings: Settings, provider: Provider = VENDOR) -> tuple[str, str] | None:
    key = settings.key(provider)
    return None if key is None else (key.reveal(), key.origin)


def test_a_key_in_a_dotenv_file_is_found_and_says_where(tmp_path: Path) -> None:
    written(tmp_path, "# mine\nexport VENDOR_API_KEY='not-real'\nOTHER=x\n")
    assert found_key(Settings({}, folder=tmp_path)) == ("not-real", f"VENDOR_API_KEY in {tmp_path / '.env'}")


def test_a_dotenv_file_is_looked_for_upwards_and_the_nearest_counts(tmp_path: Path) -> None:
    written(tmp_path, "VENDOR_API_KEY=far")
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert found_key(Settings({}, folder=inner)) == ("far", f"VENDOR_API_KEY in {tmp_path / '.env'}")
    written(tmp_path / "a", "VENDOR_TOKEN=near")
    assert found_key(Settings({}, folder=inner)) == ("near", f"VENDOR_TOKEN in {tmp_path / 'a' / '.env'}")


def test_above_the_home_folder_nothing_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, "VENDOR_API_KEY=not-mine")
    home = tmp_path / "home"
    (home / "project").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    assert Settings({}, folder=home / "project").key(VENDOR) is None
    written(home, "VENDOR_API_KEY=mine")
    assert found_key(Settings({}, folder=home / "project")) == ("mine", f"VENDOR_API_KEY in {home / '.env'}")


def test_the_shared_settings_look_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMKIT_DOTENV", "")
    written(tmp_path, "VENDOR_API_KEY=not-real")
    settings = Settings()
    monkeypatch.chdir(tmp_path)
    assert found_key(settings) is not None
    monkeypatch.setenv("LLMKIT_DOTENV", "off")
    assert settings.key(VENDOR) is None


def test_a_session_with_an_environment_of_its_own_reads_no_dotenv_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, "VENDOR_API_KEY=not-real")
    monkeypatch.chdir(tmp_path)
    assert Settings({}).key(VENDOR) is None


def test_the_environment_goes_before_a_dotenv_file(tmp_path: Path) -> None:
    written(tmp_path, "VENDOR_API_KEY=file")
    assert found_key(Settings({"VENDOR_TOKEN": "environment"}, folder=tmp_path)) == ("environment", "environment variable VENDOR_TOKEN")


def test_nothing_of_a_dotenv_file_gets_into_the_environment(tmp_path: Path) -> None:
    import os

    written(tmp_path, "VENDOR_API_KEY=not-real\nLLMKIT_TEST_ONLY=x")
    before = dict(os.environ)
    assert Settings({}, folder=tmp_path).key(VENDOR) is not None
    assert dict(os.environ) == before


def test_a_variable_inside_a_value_is_not_filled_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "not-real-and-secret")
    written(tmp_path, "VENDOR_API_KEY=k\nVENDOR_BASE_URL=https://evil.example/${OPENAI_API_KEY}/v1")
    moved = Settings({}, folder=tmp_path).addressed(VENDOR)
    assert "secret" not in moved.base_url


def test_a_dotenv_file_that_changes_is_read_again(tmp_path: Path) -> None:
    settings = Settings({}, folder=tmp_path)
    assert settings.key(VENDOR) is None
    written(tmp_path, "VENDOR_API_KEY=first")
    assert found_key(settings) is not None
    written(tmp_path, "VENDOR_API_KEY=the-second")
    assert found_key(settings) == ("the-second", f"VENDOR_API_KEY in {tmp_path / '.env'}")
    (tmp_path / ".env").unlink()
    assert settings.key(VENDOR) is None


def test_a_dotenv_folder_is_no_dotenv_file(tmp_path: Path) -> None:
    (tmp_path / "a" / ".env").mkdir(parents=True)
    written(tmp_path, "VENDOR_API_KEY=not-real")
    assert Settings({}, folder=tmp_path / "a").key(VENDOR) is not None


@pytest.mark.parametrize("text", [b"\xff\xfe\x00", b"\xef\xbb\xbfVENDOR_TOKEN=", b"=\n==\n", b"VENDOR_API_KEY", b""])
def test_a_dotenv_file_that_says_nothing_is_no_error(tmp_path: Path, text: bytes) -> None:
    (tmp_path / ".env").write_bytes(text)
    assert Settings({}, folder=tmp_path).key(VENDOR) is None


def test_a_dotenv_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"\xef\xbb\xbfVENDOR_API_KEY=not-real\r\n")
    assert found_key(Settings({}, folder=tmp_path)) == ("not-real", f"VENDOR_API_KEY in {tmp_path / '.env'}")


@pytest.mark.skipif(not hasattr(__import__("os"), "getuid") or __import__("os").getuid() != 0, reason="only root can give a file away")
def test_somebody_elses_dotenv_file_in_a_folder_for_everybody_is_passed_over(tmp_path: Path) -> None:
    import os

    written(tmp_path, "VENDOR_API_KEY=planted")
    os.chown(tmp_path / ".env", 12345, 12345)
    assert Settings({}, folder=tmp_path).key(VENDOR) is not None, "a mounted folder of another user's is no trap"
    tmp_path.chmod(0o1777)
    assert Settings({}, folder=tmp_path).key(VENDOR) is None


def test_what_is_read_of_a_dotenv_file_is_not_shown(tmp_path: Path) -> None:
    written(tmp_path, "VENDOR_API_KEY=sk-not-real\nDATABASE_PASSWORD=not-real-either")
    settings = Settings({}, folder=tmp_path)
    settings.key(VENDOR)
    assert "not-real" not in repr(vars(settings))


# -------------------------------------------------------------------------------------------------- an address from .env


EVIL = "VENDOR_BASE_URL=https://evil.example/v1\n"


def test_an_address_goes_with_the_key_of_the_same_file(tmp_path: Path) -> None:
    written(tmp_path, EVIL + "VENDOR_API_KEY=not-real")
    settings = Settings({}, folder=tmp_path)
    assert settings.addressed(VENDOR).base_url == "https://evil.example/v1"
    assert settings.passed_over(VENDOR) == ""


def test_a_dotenv_file_does_not_lead_the_environments_key_elsewhere(tmp_path: Path) -> None:
    written(tmp_path, EVIL)
    settings = Settings({"VENDOR_API_KEY": "my-own"}, folder=tmp_path)
    assert settings.addressed(VENDOR) is VENDOR
    assert settings.passed_over(VENDOR) == f"VENDOR_BASE_URL in {tmp_path / '.env'} is passed over: the key is not from that file"


def test_a_dotenv_file_with_a_key_does_not_lead_the_environments_key_elsewhere(tmp_path: Path) -> None:
    written(tmp_path, EVIL + "VENDOR_API_KEY=theirs")
    assert Settings({"VENDOR_API_KEY": "my-own"}, folder=tmp_path).addressed(VENDOR) is VENDOR
    assert Settings({"VENDOR_TOKEN": "my-own"}, folder=tmp_path).addressed(VENDOR) is VENDOR


def test_a_dotenv_file_does_not_lead_a_key_given_by_hand_elsewhere(tmp_path: Path) -> None:
    written(tmp_path, EVIL + "VENDOR_API_KEY=theirs")
    settings = Settings({}, folder=tmp_path)
    settings.set_key("vendor", "my-own")
    assert settings.addressed(VENDOR) is VENDOR


def test_without_a_key_prompts_are_not_led_elsewhere_either(tmp_path: Path) -> None:
    written(tmp_path, "OLLAMA_HOST=http://evil.example:11434")
    assert Settings({}, folder=tmp_path).addressed(shipped("ollama")).base_url == "http://127.0.0.1:11434/v1"


def test_without_a_key_an_address_of_this_computer_is_taken(tmp_path: Path) -> None:
    written(tmp_path, "OLLAMA_HOST=127.0.0.1:11500")
    assert Settings({}, folder=tmp_path).addressed(shipped("ollama")).base_url == "http://127.0.0.1:11500/v1"


def test_the_environments_address_takes_the_files_key(tmp_path: Path) -> None:
    written(tmp_path, EVIL + "VENDOR_API_KEY=not-real")
    settings = Settings({"VENDOR_BASE_URL": "https://mine.example/v1"}, folder=tmp_path)
    assert settings.addressed(VENDOR).base_url == "https://mine.example/v1"
