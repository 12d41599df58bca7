"""What the surroundings say: keys, addresses, folders, proxies. The only reader of the environment."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from io import StringIO
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .errors import ConfigError, MissingExtra
from .types import Provider, Secret

__all__ = ["Settings", "header_of", "is_loopback"]


#: Under this name keys stand in the system's keyring; the user name is the provider's.
_SERVICE = "llmkit"
#: What only the vendor's own address is known for.
_OWN_QUIRKS = ("embed_encoding", "token_limit_field", "logprobs", "prompt_cache")


class Settings:
    """Keys set by hand come first, then the environment, then the nearest ``.env`` file, then the system's keyring if it was asked for.

    Nothing of a ``.env`` file gets into the environment. One that came with somebody's repository must not lead the user's own key
    elsewhere, so an address from it is honoured only together with the key that stands in the same file.

    Parameters
    ----------
    environ : mapping, optional
        Instead of ``os.environ``. No ``.env`` file is looked for then, unless ``folder`` is given too.
    cache_dir : path, optional
        Where answers are kept; else ``LLMKIT_CACHE_DIR``, else the user's cache directory.
    folder : path, optional
        Where to begin to look for ``.env``, and upwards; by default the working directory of the moment.
    cache_url : str, optional
        A team's cache; else ``LLMKIT_CACHE_URL``. An empty one is none.
    """

    def __init__(
        self,
        environ: Mapping[str, str] | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        folder: str | os.PathLike[str] | None = None,
        cache_url: str | None = None,
    ) -> None:
        self._environ = os.environ if environ is None else environ
        self._cache_dir = cache_dir
        self._cache_url = cache_url
        self._folder = folder
        self._keys: dict[str, Secret] = {}
        self._from_keyring: dict[str, Secret | None] = {}
        self._dotenv: tuple[tuple[Path, int, int], dict[str, Secret]] | None = None

    # ---------------------------------------------------------------------------------------------------------------- keys

    def set_key(self, provider: str, key: str | Callable[[], str] | None) -> None:
        """Keep a key in memory; ``None`` forgets it."""
        if key is None:
            self._keys.pop(provider, None)
        else:
            self._keys[provider] = Secret(header_of(key, f"the key for {provider}") if isinstance(key, str) else key)

    def key(self, provider: Provider) -> Secret | None:
        """The provider's key, or ``None``."""
        if provider.name in self._keys:
            return self._keys[provider.name]
        for name in provider.key_env:
            value = self._environ.get(name, "").strip()
            if value:
                return Secret(header_of(value, f"the key in {name}"), f"environment variable {name}")
        path, lines = self._lines()
        for name in provider.key_env:
            if name in lines and (value := lines[name].reveal().strip()):
                return Secret(header_of(value, f"the key {name} in {path}"), f"{name} in {path}")
        return self._kept(provider.name)

    def addressed(self, provider: Provider) -> Provider:
        """The provider at the address that its own variables (``OPENAI_BASE_URL``, ...) give, if they do.

        A server elsewhere is compatible, not the same: quirks that only the vendor's own address is known for are dropped.
        """
        for name in provider.base_url_env:
            value = self._environ.get(name, "").strip()
            if value:
                return _moved(provider, value, name)
        path, lines = self._lines()
        for name in provider.base_url_env:
            if name in lines and (value := lines[name].reveal().strip()):
                moved = _moved(provider, value, f"{name} in {path}")
                if self._belongs(provider, moved):
                    return moved
        return provider

    def passed_over(self, provider: Provider) -> str:
        """Why an address in the ``.env`` file is not taken, where one is not: for the user to read."""
        path, lines = self._lines()
        names = [name for name in provider.base_url_env if name in lines and not self._environ.get(name, "").strip()]
        if not names or self.addressed(provider) is not provider:
            return ""
        return f"{names[0]} in {path} is passed over: the key is not from that file"

    def _belongs(self, provider: Provider, moved: Provider) -> bool:
        """Whether the address in the ``.env`` file may be used: with the key of that file, or without any on this computer."""
        secret = self.key(provider)
        if secret is None:
            return is_loopback(moved.base_url)
        return secret.origin in {f"{name} in {self._lines()[0]}" for name in provider.key_env}

    # ---------------------------------------------------------------------------------------------------------------- .env

    def _lines(self) -> tuple[Path | None, dict[str, Secret]]:
        """The nearest ``.env`` file and what it says, read anew when it changed."""
        path = self._nearest()
        if path is None:
            return None, {}
        try:
            stat = path.stat()
            seen = (path, stat.st_mtime_ns, stat.st_size)
            if self._dotenv is None or self._dotenv[0] != seen:
                self._dotenv = (seen, _parsed(path.read_text("utf-8-sig", errors="replace")))
        except OSError:
            return None, {}
        return path, self._dotenv[1]

    def _nearest(self) -> Path | None:
        if self._environ.get("LLMKIT_DOTENV", "").strip().lower() == "off":
            return None
        if self._folder is None and self._environ is not os.environ:
            return None
        try:
            folder = Path(self._folder if self._folder is not None else os.getcwd()).absolute()
        except OSError:  # the working directory was removed
            return None
        home = self._home()
        for parent in (folder, *folder.parents):
            path = parent / ".env"
            if path.is_file():
                return path if _trusted(path) else None
            if parent == home:
                break
        return None

    def _home(self) -> Path | None:
        try:
            return Path.home()
        except RuntimeError:
            return None

    def keep_in_file(self, provider: Provider, key: str) -> Path:
        """Write a key into the nearest ``.env`` file, or a new one in the working directory, and see that git passes it over.

        Raises
        ------
        ConfigError
            The file is not the user's, git keeps it already, or an address that stands in it would have the key sent there.
        """
        key = header_of(key, f"the key for {provider.name}")
        if not provider.key_env:
            raise ConfigError(f"no variable holds a key for {provider.name}, so none can stand in a .env file; keep it in memory")
        if self._environ.get("LLMKIT_DOTENV", "").strip().lower() == "off":
            raise ConfigError("LLMKIT_DOTENV=off: a key in a .env file would not be read")
        if self._folder is None and self._environ is not os.environ:
            raise ConfigError("this session has an environment of its own and reads no .env file")
        path, lines = self._lines()
        path = (path or Path(self._folder or os.getcwd()).absolute() / ".env").resolve()
        if path.exists() and not (path.is_file() and _trusted(path)):
            raise ConfigError(f"{path} is not yours to write keys into")
        led = next((name for name in provider.base_url_env if name in lines), None)
        if led is not None:
            # An address counts together with a key of the same file: one that came with a repository would get this one.
            raise ConfigError(f"{path} sets {led}: a key in that file would be sent there. Take the line out, or write the key yourself")
        root = _repository(path.parent)
        if root is not None and _in_index(root, path):
            raise ConfigError(f"git keeps {path.name} of {root}: the key would be in its history. Run git rm --cached {path.name} first")
        # Before the key is there: a .env that is committed cannot be taken back.
        _ignored(path, root)
        name = next((name for name in provider.key_env if name in lines), provider.key_env[0])
        written = _with_line(path.read_text("utf-8-sig") if path.exists() else "", name, key)
        mode = path.stat().st_mode & 0o770 if path.exists() else 0o600
        _replace(path, written, mode)
        self._dotenv = None
        return path

    # ------------------------------------------------------------------------------------------------------------- keyring

    def keep(self, provider: str, key: str) -> None:
        """Put a key into the system's keyring, and remember that this was asked for."""
        keyring = _keyring()
        key = header_of(key, f"the key for {provider}")
        try:
            keyring.set_password(_SERVICE, provider, key)
        except keyring.errors.KeyringError as error:
            raise ConfigError(f"the system's keyring takes no key here ({type(error).__name__}); use an environment variable") from None
        self._remember({*self._asked(), provider})
        self._from_keyring[provider] = Secret(key, "the system's keyring")

    def _kept(self, provider: str) -> Secret | None:
        """The key in the keyring, for those who keep one there. The others are never asked, nor made to wait for a desktop's service."""
        wanted = self._environ.get("LLMKIT_KEYRING", "").strip()
        if wanted == "0" or (wanted != "1" and provider not in self._asked()):
            return None
        if provider not in self._from_keyring:
            try:
                keyring = _keyring()
                found = keyring.get_password(_SERVICE, provider)
            except MissingExtra:
                found = None
            except keyring.errors.KeyringError:
                found = None
            said = f"the key for {provider} in the keyring"
            self._from_keyring[provider] = Secret(header_of(found, said), "the system's keyring") if found else None
        return self._from_keyring[provider]

    def _asked(self) -> set[str]:
        """The providers whose keys were put into the keyring: names, no keys."""
        path = self._config_dir / "keyring.json"
        try:
            return set(json.loads(path.read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return set()

    def _remember(self, providers: set[str]) -> None:
        self._config_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self._config_dir / "keyring.json").write_text(json.dumps(sorted(providers)), "utf-8")

    def preferences(self) -> dict[str, Any]:
        """What the user prefers, as it was kept; a file that cannot be read says nothing."""
        try:
            found = json.loads((self._config_dir / "preferences.json").read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def prefer(self, changes: Mapping[str, Any]) -> None:
        """Keep changed preferences; ``None`` forgets one."""
        found = {name: value for name, value in {**self.preferences(), **changes}.items() if value is not None}
        self._config_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        _replace(self._config_dir / "preferences.json", json.dumps(found, indent=1, sort_keys=True), 0o600)

    @property
    def _config_dir(self) -> Path:
        named = self._environ.get("LLMKIT_CONFIG_DIR", "").strip()
        if named:
            return Path(named).expanduser()
        from platformdirs import user_config_path

        try:
            return user_config_path("llmkit", appauthor=False)
        except (OSError, RuntimeError):
            return self.cache_dir

    # ------------------------------------------------------------------------------------------------------------- folders

    @property
    def cache_dir(self) -> Path:
        if self._cache_dir is not None:
            return Path(self._cache_dir)
        named = self._environ.get("LLMKIT_CACHE_DIR", "").strip()
        if named:
            return Path(named).expanduser()
        from platformdirs import user_cache_path

        try:
            return user_cache_path("llmkit", appauthor=False)
        except (OSError, RuntimeError):  # no home at all, as in some containers
            return Path(tempfile.gettempdir()) / f"llmkit-{os.getuid() if hasattr(os, 'getuid') else 'user'}"

    @property
    def cache_bytes(self) -> float:
        """How large the cache may grow: ``LLMKIT_CACHE_MAX_GB``, by default 10; 0 is no bound."""
        named = self._environ.get("LLMKIT_CACHE_MAX_GB", "").strip() or "10"
        try:
            size = float(named)
        except ValueError:
            size = -1.0
        if not 0 <= size < float("inf"):
            raise ConfigError(f"LLMKIT_CACHE_MAX_GB={named!r} is no size; it is a number of gigabytes such as 20 or 0.5, and 0 is no bound")
        return size * 1e9

    @property
    def cache_url(self) -> Secret | None:
        """Where a team keeps its answers: a secret, since a password may stand in it.

        Never from a ``.env`` file: one that came with somebody's repository must not lead the user's answers elsewhere.
        """
        if self._cache_url is not None:
            return Secret(self._cache_url, "cache_url") if self._cache_url.strip() else None
        named = self._environ.get("LLMKIT_CACHE_URL", "").strip()
        return Secret(named, "LLMKIT_CACHE_URL") if named else None

    def proxy_for(self, url: str) -> str | None:
        """The proxy that the environment names for this address; never one for this computer."""
        parts = urlsplit(url)
        if is_loopback(url) or not parts.hostname:
            return None
        import urllib.request

        proxies = urllib.request.getproxies_environment() if self._environ is os.environ else _proxies(self._environ)
        if urllib.request.proxy_bypass_environment(parts.netloc, proxies):  # type: ignore[attr-defined]
            return None
        proxy = proxies.get(parts.scheme) or proxies.get("all")
        return proxy if proxy is None or "://" in proxy else f"http://{proxy}"


def _parsed(text: str) -> dict[str, Secret]:
    """The lines of a ``.env`` file. ``${NAME}`` stays as it is: filled in, it could carry one variable's secret inside another."""
    from dotenv import dotenv_values

    found = dotenv_values(stream=StringIO(text), interpolate=False)
    return {name: Secret(value, "a .env file") for name, value in found.items() if value}


def _trusted(path: Path) -> bool:
    """Whether a ``.env`` file is the user's. In a folder that anybody may write to, as /tmp is, it has to be his own."""
    if not hasattr(os, "getuid"):
        return True
    return path.stat().st_uid == os.getuid() or not path.parent.stat().st_mode & 0o002


def _with_line(text: str, name: str, key: str) -> str:
    """The text of a ``.env`` file with this variable in the place of its old one, or at the end; every other line as it was."""
    from dotenv.parser import parse_stream

    plain = re.fullmatch(r"[A-Za-z0-9_./:+=@-]+", key) is not None
    quoted = key.replace("\\", "\\\\").replace("'", "\\'")
    line = f"{name}={key}\n" if plain else f"{name}='{quoted}'\n"
    pieces, placed = [], False
    for piece in parse_stream(StringIO(text)):
        if piece.key != name:
            pieces.append(piece.original.string)
        elif not placed:
            # What stands above a variable, comments and blank lines, belongs to its text.
            above = re.match(r"\s*", piece.original.string)
            pieces.append((above.group() if above else "") + line)
            placed = True
    written = "".join(pieces)
    if not placed:
        written += ("" if not written or written.endswith("\n") else "\n") + line
    return written


def _replace(path: Path, text: str, mode: int) -> None:
    """Write a file so that there is the old one or the new one at any moment, and nobody else could ever read it."""
    file, other = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(file, "w", encoding="utf-8", newline="") as out:
            out.write(text)
        os.chmod(other, mode)
        os.replace(other, path)
    except BaseException:
        os.unlink(other)
        raise


def _repository(folder: Path) -> Path | None:
    """The git repository that a folder lies in."""
    return next((parent for parent in (folder, *folder.parents) if (parent / ".git").exists()), None)


def _in_index(root: Path, path: Path) -> bool:
    """Whether git keeps a file: its index lists names after their length, and is read without git."""
    folder = root / ".git"
    try:
        if folder.is_file():  # a worktree, or a module of another repository
            folder = root / folder.read_text("utf-8").removeprefix("gitdir:").strip()
        name = path.relative_to(root).as_posix().encode()
        return len(name).to_bytes(2, "big") + name + b"\0" in (folder / "index").read_bytes()
    except (OSError, ValueError):
        return False


def _ignored(path: Path, root: Path | None) -> None:
    """See that a ``.gitignore`` names the file, where there is a repository or such a file beside it."""
    beside = path.parent / ".gitignore"
    if root is None and not beside.exists():
        return
    folders = [folder for folder in (path.parent, *path.parent.parents) if root is not None and folder.is_relative_to(root)]
    said: list[str] = []
    for folder in reversed(folders or [path.parent]):
        try:
            said += [line.strip() for line in (folder / ".gitignore").read_text("utf-8", errors="replace").splitlines()]
        except OSError:
            continue
    names = {path.name, f"/{path.name}", f"**/{path.name}", f"{path.name}*", "*.env", ".*"}
    last = next((line for line in reversed(said) if line.removeprefix("!") in names), "!")
    if last.startswith("!"):
        text = beside.read_text("utf-8", errors="replace") if beside.exists() else ""
        with beside.open("a", encoding="utf-8") as out:
            out.write(("" if not text or text.endswith("\n") else "\n") + f"{path.name}\n")


def _moved(provider: Provider, value: str, said: str) -> Provider:
    try:
        url = _completed(value, provider.base_url)
    except ValueError:
        raise ConfigError(f"{said}={_shown(value)!r} is no address; it is written like http://127.0.0.1:8000/v1") from None
    parts = urlsplit(value if "://" in value else f"http://{value}")
    if "@" in parts.netloc:
        cure = f"put the key into {provider.key_env[0]}" if provider.key_env else f'give the key by llmkit.set_key("{provider.name}")'
        raise ConfigError(f"{said} holds a user or a password before {_shown(value)!r}, which are not sent; {cure}")
    if parts.query or parts.fragment:
        raise ConfigError(f"{said} holds more after {_shown(value)!r} (a ? or a #), which is not sent; leave it out")
    if urlsplit(url).hostname == urlsplit(provider.base_url).hostname:
        return replace(provider, base_url=url)
    quirks = {quirk: value for quirk, value in provider.quirks.items() if quirk not in _OWN_QUIRKS}
    return replace(provider, base_url=url, quirks=quirks, key_optional=provider.key_optional or is_loopback(url))


def _shown(value: str) -> str:
    """An address for a message, also one that cannot be parsed: without what may be a user, a password or a key in a query."""
    # The last @ of all, and before the ? and #: a password may hold every one of them.
    return re.split("[?#]", value.rpartition("@")[2])[0]


def _keyring() -> Any:
    try:
        import keyring
        import keyring.errors
    except ModuleNotFoundError:
        raise MissingExtra("the system's keyring needs the package keyring: pip install 'llmkit[keyring]'") from None
    return keyring


def header_of(key: str, which: str) -> str:
    """The key as it travels in a header; what cannot was copied with something that is no part of it."""
    key = key.strip()
    if not key.isascii() or not key.isprintable():
        raise ConfigError(f"{which} holds characters that no key has (a line break, an accent, a bullet); copy it again")
    return key


def is_loopback(url: str) -> bool:
    """Whether an address is this computer's."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _proxies(environ: Mapping[str, str]) -> dict[str, str]:
    return {name[:-6].lower(): value for name, value in environ.items() if name.lower().endswith("_proxy") and value}


def _completed(value: str, default: str) -> str:
    """A base URL as people write it (``OLLAMA_HOST=0.0.0.0``, a host without its path) made whole from the default one."""
    usual = urlsplit(default)
    parts = urlsplit(value if "://" in value else f"http://{value}")
    host = parts.hostname or "127.0.0.1"
    if host in ("0.0.0.0", "::"):  # noqa: S104 - what a server listens on, not where it is reached
        host = "127.0.0.1"
    host = f"[{host}]" if ":" in host else host
    port = parts.port or (usual.port if "://" not in value or parts.scheme == "http" else None)
    path = parts.path.rstrip("/") or usual.path.rstrip("/")
    return f"{parts.scheme}://{host}{f':{port}' if port else ''}{path}"
