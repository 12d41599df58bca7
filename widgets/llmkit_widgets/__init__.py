"""llmkit's notebook panels; each is a view of llmkit's public names and nothing deeper."""

from __future__ import annotations

from .compare import CompareModels
from .cost import CostPanel
from .explorer import ExtractExplorer
from .keys import KeyPanel
from .monitor import RunMonitor
from .panel import Panel
from .picker import ModelPicker

__all__ = ["CompareModels", "CostPanel", "ExtractExplorer", "KeyPanel", "ModelPicker", "Panel", "RunMonitor"]
