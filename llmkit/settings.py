"""What the surroundings say: keys, addresses, folders, proxies. The only reader of the environment."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from .errors import ConfigError
from .types import Provider, Secret

__all__ = ["Settings", "is_loopback"]


class Settings:
    """Keys set by hand come first, then the environment.

    Parameters
    ----------
    environ : mapping, optional
        Instead of ``os.environ``.
    cache_dir : path, optional
        Where answers are kept; else ``LLMKIT_CACHE_DIR``, else the user's cache directory.
    """

    def __init__(self, environ: Mapping[str, str] | None = None, cache_dir: str | os.PathLike[str] | None = None) -> None:
        self._environ = os.environ if environ is None else environ
        self._cache_dir = cache_dir
        self._keys: dict[str, Secret] = {}

    def set_key(self, provider: str, key: str | Callable[[], str] | None) -> None:
        """Keep a key in memory; ``None`` forgets it."""
        if key is None:
            self._keys.pop(provider, None)
        else:
            self._keys[provider] = Secret(_header(key, f"the key for {provider}") if isinstance(key, str) else key)

    def key(self, provider: Provider) -> Secret | None:
        """The provider's key, or ``None``."""
        if provider.name in self._keys:
            return self._keys[provider.name]
        for name in provider.key_env:
            value = self._environ.get(name, "").strip()
            if value:
                return Secret(_header(value, f"the key in {name}"), f"environment variable {name}")
        return None

    def addressed(self, provider: Provider) -> Provider:
        """The provider at the address that its own variables (``OPENAI_BASE_URL``, ...) give, if they do.

        A server elsewhere is compatible, not the same: quirks that only the vendor's own address is known for are dropped.
        """
        for name in provider.base_url_env:
            value = self._environ.get(name, "").strip()
            if value:
                try:
                    url = _completed(value, provider.base_url)
                except ValueError:
                    raise ConfigError(f"{name}={value!r} is no address; it is written like http://127.0.0.1:8000/v1") from None
                if urlsplit(url).hostname == urlsplit(provider.base_url).hostname:
                    return replace(provider, base_url=url)
                quirks = {k: v for k, v in provider.quirks.items() if k not in ("embed_encoding", "token_limit_field")}
                return replace(provider, base_url=url, quirks=quirks, key_optional=provider.key_optional or is_loopback(url))
        return provider

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


def _header(key: str, which: str) -> str:
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
