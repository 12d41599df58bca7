"""Which providers have a key and where it comes from; a key typed here goes to the session, and further only where it is told to."""

from __future__ import annotations

from typing import Any

import pandas as pd

import llmkit

from .panel import Panel, action, table_html

__all__ = ["KeyPanel"]

#: What a key is tried with, the first that the provider has a model for.
_TRIALS = ("chat", "embed", "rerank")

#: Of ``llmkit.providers()``, which leaves nothing of them missing.
_SHOWN = ("provider", "key_found", "key_from", "key_needed", "key_env", "status")

_PLACES = [
    {"name": "memory", "label": "in memory, until the kernel ends", "note": ""},
    {"name": "keyring", "label": "in the system's keyring", "note": "Later sessions find it there; it needs the extra llmkit[keyring]."},
    {"name": ".env", "label": "in a .env file", "note": "Written in clear into the nearest .env file, which .gitignore will name."},
]


class KeyPanel(Panel):
    """Keys of providers: what is there, where from, and a field for another one.

    The key that is typed travels to the kernel once, in a message of its own: it is in no trait, so neither in the notebook's saved state
    nor in what other clients of the kernel see, and in no repr.

    Examples
    --------
    >>> from llmkit.widgets import KeyPanel
    >>> panel = KeyPanel()
    >>> panel.set_key("mistral", "key-not-real")
    >>> bool(panel.result.set_index("provider").loc["mistral", "key_found"])
    True
    """

    _files = "keys"

    def __init__(self) -> None:
        self._chosen = "openai"
        #: Of the keys that were tried: "testing", "works" or "failed", and why.
        self._tests: dict[str, tuple[str, str]] = {}
        super().__init__()
        self.draw(now=True)

    def view(self) -> dict[str, Any]:
        known = self.result
        rows = []
        for values in zip(*(known[name].tolist() for name in _SHOWN), strict=True):
            row = dict(zip(_SHOWN, values, strict=True))
            test, why = self._tests.get(row["provider"], ("", ""))
            if row["status"] != "retired":
                rows.append({**row, "test": test, "why": why})
        rows.sort(key=lambda row: not row["key_found"])  # in the catalogue's order otherwise
        return {"providers": rows, "chosen": self._chosen, "places": _PLACES}

    @property
    def result(self) -> pd.DataFrame:
        """Every provider, whether a key was found and where; never the key."""
        return llmkit.providers()

    @property
    def code(self) -> str:
        """The cell that asks for the same key without showing it."""
        return f'import llmkit\n\nllmkit.set_key("{self._chosen}")  # asks, and shows nothing'

    @action
    def set_key(self, provider: str, key: str, keep: str = "memory") -> None:
        """Give a key; where it is kept beside this process's memory is said by ``keep``, as in ``llmkit.set_key``."""
        if not isinstance(key, str) or not key.strip():
            raise llmkit.BadInput("enter a key")  # here nobody is asked with getpass
        llmkit.set_key(provider, key, keep=keep)
        self._chosen = provider
        self._tests.pop(provider, None)
        kept = {"memory": "until the kernel ends", "keyring": "and kept in the system's keyring", ".env": "and written into the .env file"}
        self.say(f"The key of {provider} is set, {kept[keep]}.")
        self.keep_record()

    @action
    def test(self, provider: str) -> None:
        """Prove a key with one tiny request, in the background."""
        if provider not in set(self.result["provider"]):
            raise llmkit.BadInput("there is no provider of this name")
        self._tests[provider] = ("testing", "")
        self.say()
        self.apart(lambda: self._try(provider))

    def _try(self, provider: str) -> None:
        tested = ("failed", "")
        try:
            model, operation = _cheapest(provider)
            llmkit.connect(model, operation=operation, test=True)
            tested = ("works", f"asked {model}")
        except llmkit.LLMError as error:
            tested = ("failed", str(error))
            raise
        finally:
            self._tests[provider] = tested
            self.draw()

    def snapshot(self) -> str:
        known = self.result
        found = known[known["key_found"]]
        return table_html(["provider", "key from"], found[["provider", "key_from"]].itertuples(index=False), "Providers with a key")


def _cheapest(provider: str) -> tuple[str, str]:
    """The model of a provider that costs least to try a key with, and what it does."""
    known = llmkit.models()
    known = known[(known["provider"] == provider) & (known["deprecated"] == "")]
    for operation in _TRIALS:
        served = known[known["operations"].str.split(", ").map(lambda does, operation=operation: operation in does)]
        if len(served):
            return f"{provider}/{served.sort_values('input_price').iloc[0]['name']}", operation
    for name in llmkit.served(provider):
        return f"{provider}/{name}", "chat"
    raise llmkit.ConfigError(f"no model of {provider} is known; try the key with a call that names one")
