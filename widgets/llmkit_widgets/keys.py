"""Which providers have a key and where it comes from; a key typed here goes to the session and nowhere else."""

from __future__ import annotations

import threading
from typing import Any

import pandas as pd

import llmkit

from .panel import Panel, action, table_html

__all__ = ["KeyPanel"]


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
        self._tests: dict[str, str] = {}
        super().__init__()
        self.draw(now=True)

    def view(self) -> dict[str, Any]:
        known = self.result[["provider", "key_found", "key_from", "key_needed", "key_env"]]
        rows = [
            {
                **{name: None if pd.isna(value) else value for name, value in row.items()},
                "testing": self._tests.get(row["provider"]) == "…",
                "tested": self._tests.get(row["provider"], ""),
            }
            for row in known.to_dict("records")
        ]
        return {"providers": rows, "chosen": self._chosen, "places": self._places()}

    @staticmethod
    def _places() -> list[dict[str, str]]:
        return [
            {"name": "memory", "label": "in memory, for this kernel"},
            {"name": "keyring", "label": "in the system's keyring"},
        ]

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
        llmkit.set_key(provider, key, keep=keep)
        self._chosen = provider
        self._tests.pop(provider, None)
        self.say(f"The key of {provider} is set.")
        self.keep_record()

    @action
    def test(self, provider: str) -> None:
        """Prove a key with one tiny request, in the background."""
        self._tests[provider] = "…"
        self.draw()
        threading.Thread(target=self._try, args=(provider,), daemon=True).start()

    def _try(self, provider: str) -> None:
        try:
            known = llmkit.models()
            served = known[(known["provider"] == provider) & known["operations"].map(lambda some: "chat" in some)]
            if not len(served):
                raise llmkit.ConfigError(f"no chat model of {provider} is known; try one by its name")
            cheapest = served.sort_values("input_price").iloc[0]["name"]
            llmkit.connect(f"{provider}/{cheapest}", test=True)
        except llmkit.LLMError as error:
            self._tests[provider] = "failed"
            self.say(error=str(error))
        else:
            self._tests[provider] = "works"
            self.say(f"The key of {provider} works.")

    def snapshot(self) -> str:
        known = self.result
        found = known[known["key_found"]]
        return table_html(["provider", "key from"], found[["provider", "key_from"]].itertuples(index=False), "Providers with a key")
