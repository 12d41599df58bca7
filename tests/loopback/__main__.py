"""``python -m tests.loopback --port-file PATH``."""

from __future__ import annotations

from .process import main

main()
