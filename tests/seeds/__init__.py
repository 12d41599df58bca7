"""Three documents say what somebody wanted of a library like this; each promise has a test here, and a line in ``docs/seeds.md``."""

from __future__ import annotations

import base64

import pytest

import llmkit
from tests.loopback import Loopback

__all__ = ["KEY", "PIXEL", "keyed", "moved"]

KEY = "test-key-not-real"
#: A picture, in PNG.
PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")


def keyed(monkeypatch: pytest.MonkeyPatch, *providers: str, key: str = KEY) -> None:
    """Put a key for each provider where its users put theirs: into its first environment variable."""
    variables = llmkit.providers().set_index("provider")["key_env"]
    for provider in providers:
        monkeypatch.setenv(variables[provider].split(", ")[0], key)


def moved(server: Loopback) -> Loopback:
    """Every vendor of the catalogue that wants a key, as it is but for its address, which is the loopback server's."""
    rows = llmkit.providers()
    rows = rows[rows["key_needed"] & (rows["base_url"] != "")]
    there = {
        row.provider: server.compat_url_of(row.provider) if row.protocol == "openai" else server.url_of(row.provider)
        for row in rows.itertuples()
    }
    llmkit.catalogue.merge({"providers": {name: {"base_url": url} for name, url in there.items()}})
    return server
