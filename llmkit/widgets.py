"""A lazy door to the panels: ``from llmkit.widgets import KeyPanel``. The one import of the house that points up."""

from __future__ import annotations

from typing import Any

from .errors import MissingExtra

__all__: list[str] = []


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    try:
        import llmkit_widgets
    except ImportError as error:
        if error.name in ("anywidget", "ipywidgets", "traitlets", "IPython"):
            raise MissingExtra("the panels need ipywidgets and anywidget: pip install 'llmkit[widgets]'") from None
        raise
    try:
        return getattr(llmkit_widgets, name)
    except AttributeError:
        raise AttributeError(f"llmkit.widgets has no {name}; there is {', '.join(llmkit_widgets.__all__)}") from None


def __dir__() -> list[str]:
    try:
        import llmkit_widgets
    except ImportError:
        return []
    return list(llmkit_widgets.__all__)
