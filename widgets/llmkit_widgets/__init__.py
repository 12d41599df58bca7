"""llmkit's notebook panels; each is a view of llmkit's public names and nothing deeper."""

from __future__ import annotations

from .keys import KeyPanel
from .panel import Panel

__all__ = ["KeyPanel", "Panel"]
