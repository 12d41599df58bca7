"""A real notebook kernel, and a reader who runs cells in it."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from tests.loopback import Loopback
from tests.process.child import environment

ROWS = 10_000

SETUP = """
import asyncio, os, pandas as pd, llmkit
llmkit.add_provider("lab", os.environ["SERVER"])
df = pd.DataFrame({"text": [f"row {i}" for i in range(%d)]})
"""


class Notebook:
    """A kernel, and a reader who runs cells in it."""

    def __init__(self, server: Loopback, home: Path) -> None:
        # Jupyter warns of its own coming changes when it is imported; what llmkit warns of is seen in the cells' output.
        env = environment(home, SERVER=server.url, PYTHONWARNINGS="default", IPYTHONDIR=str(home / "ipython"))
        env |= {"JUPYTER_RUNTIME_DIR": str(home / "runtime"), "JUPYTER_PLATFORM_DIRS": "1"}
        self.manager = KernelManager(kernel_name="python3", connection_file=str(home / "kernel.json"))
        self.manager.start_kernel(env=env, cwd=str(home), stderr=subprocess.DEVNULL)
        self.client: BlockingKernelClient = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def start(self, code: str) -> str:
        return self.client.execute(code)  # type: ignore[no-any-return]

    def end(self, cell: str, timeout: float = 60.0) -> dict[str, Any]:
        """What became of a cell: ``status``, ``ename`` and the text of its output."""
        while True:
            reply = self.client.get_shell_msg(timeout=timeout)
            if reply["parent_header"].get("msg_id") == cell:
                break
        answered, texts, messages = time.monotonic(), [], 0
        while True:
            message = self.client.get_iopub_msg(timeout=timeout)
            if message["parent_header"].get("msg_id") != cell:
                continue
            content = message["content"]
            if message["msg_type"] == "status" and content["execution_state"] == "idle":
                break
            messages += message["msg_type"] in ("stream", "display_data", "update_display_data", "error")
            texts.append(content.get("text", "") or content.get("data", {}).get("text/plain", ""))
        return {**reply["content"], "output": "".join(texts), "messages": messages, "at": answered}

    def run(self, code: str) -> Any:
        """Run a cell that must succeed; its output."""
        said = self.end(self.start(code))
        assert "ok" == said["status"], "\n".join(said.get("traceback", ()))
        return said["output"].strip()

    def interrupted(self, code: str, server: Loopback, after: int) -> dict[str, Any]:
        """Run a cell and press Stop once the server has seen ``after`` more requests; ``seconds`` is how long the cell took to end."""
        cell = self.start(code)
        server.wait_for(server.requests + after, 60)
        pressed = time.monotonic()
        self.manager.interrupt_kernel()
        said = self.end(cell)
        return {**said, "seconds": said["at"] - pressed}

    def restart(self) -> None:
        self.manager.restart_kernel(now=True)
        self.client.wait_for_ready(timeout=60)

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()
