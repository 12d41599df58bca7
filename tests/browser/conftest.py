"""JupyterLab and Chromium, one of each for all tests here: started by them, ended with them, and writing below a folder of theirs."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest
from playwright.sync_api import Browser, Locator, Page, WebSocket, sync_playwright

from ..loopback import Loopback

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

_KERNEL = "window.jupyterapp?.shell?.currentWidget?.context?.sessionContext?.session?.kernel"

#: Whether the kernel is connected and has nothing to do. The toolbar says so too early.
_READY = f"""() => {{ const kernel = {_KERNEL}, context = window.jupyterapp?.shell?.currentWidget?.context;
  return !!(context?.isReady && kernel?.connectionStatus === 'connected' && kernel.status === 'idle'); }}"""

#: What a cell raised, or that the last one was reached.
_ENDED = """() => { const cells = window.jupyterapp.shell.currentWidget.content.widgets;
  const all = cells.map((cell) => cell.model.outputs?.toJSON() ?? []).flat();
  const raised = all.find((one) => one.output_type === 'error');
  if (raised) return `${raised.ename}: ${raised.evalue}`;
  return all.some((one) => String(one.text).includes('all cells ran')) && 'all cells ran'; }"""

_RUN = f"""([code, wanted]) => {{
  const asked = {_KERNEL}.requestExecute({{code, silent: true, store_history: false, user_expressions: {{wanted}}}}).done;
  const patience = new Promise((resolve) => setTimeout(() => resolve({{content: {{status: 'the kernel says nothing'}}}}), 30000));
  return Promise.race([asked, patience]).then((reply) => reply.content); }}"""

_SAVE = """() => Promise.race([window.jupyterapp.shell.currentWidget.context.save().then(() => 'saved', String),
  new Promise((resolve) => setTimeout(() => resolve('nothing was saved'), 10000))])"""

#: No news, which would cover a corner of the page; the state of the widgets goes into the file; all cells are on the page.
_SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
    "../@jupyter-widgets/jupyterlab-manager/plugin": {"saveState": True},
}


@dataclass
class Lab:
    """A server with a folder of notebooks."""

    url: str
    token: str
    folder: Path
    log: Path

    def write(self, name: str, *cells: str) -> None:
        """A notebook of these cells."""
        made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        made.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(made, self.folder / name)

    def kernels(self, method: str = "GET", which: str = "") -> Any:
        asked = urllib.request.Request(f"{self.url}api/kernels{which}", method=method, headers={"Authorization": f"token {self.token}"})
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked, timeout=20) as said:
            return json.load(said) if method == "GET" else None


class Notebook:
    """A notebook that is open in the page, and its kernel."""

    def __init__(self, page: Page, lab: Lab, name: str) -> None:
        self.page, self.lab, self.path = page, lab, lab.folder / name
        #: What came from the kernel and went to it, as it was on the wire.
        self.heard: list[bytes] = []
        self.heard_at: list[float] = []
        self.said: list[bytes] = []
        self.troubles: list[str] = []
        page.on("pageerror", lambda error: self.troubles.append(str(error)))
        page.on("websocket", self._listen)
        page.goto(f"{lab.url}doc/tree/{name}?token={lab.token}&reset", wait_until="domcontentloaded")
        page.wait_for_selector("#jupyterlab-splash", state="detached", timeout=60_000)
        page.wait_for_function(_READY, timeout=60_000)

    def _listen(self, socket: WebSocket) -> None:
        def kept(into: list[bytes]) -> Callable[[Any], None]:
            return lambda payload: into.append(payload if isinstance(payload, bytes) else str(payload).encode())

        socket.on("framereceived", kept(self.heard))
        socket.on("framereceived", lambda payload: self.heard_at.append(time.monotonic()))
        socket.on("framesent", kept(self.said))

    def command(self, name: str, **args: Any) -> None:
        """Have Lab do something; what comes of it is waited for elsewhere, since a command may take for ever."""
        self.page.evaluate("([name, args]) => { window.jupyterapp.commands.execute(name, args); }", [name, args])

    def run_all(self) -> None:
        """Run all cells; the last one is known to have run by what it shows."""
        self.command("notebook:run-all-cells")
        ended = self.page.wait_for_function(_ENDED, timeout=60_000).json_value()
        assert ended == "all cells ran", ended
        self.page.wait_for_function(_READY, timeout=30_000)

    def python(self, expression: str, before: str = "") -> Any:
        """What an expression is in the kernel now."""
        asked = [f"import json\n{before}", f"json.dumps({expression}, default=lambda value: value.item())"]
        content = self.page.evaluate(_RUN, asked)
        while content["status"] == "aborted":  # a kernel turns requests away for a moment after an interrupt
            self.page.wait_for_timeout(100)
            content = self.page.evaluate(_RUN, asked)
        assert content["status"] == "ok", content
        found = content["user_expressions"]["wanted"]
        assert found["status"] == "ok", found
        return json.loads(ast.literal_eval(found["data"]["text/plain"]))

    def until(self, expression: str, true: Callable[[Any], bool] = bool, timeout: float = 15.0) -> Any:
        """Wait until an expression is as it should be."""
        patience = time.monotonic() + timeout
        while not true(found := self.python(expression)):
            assert time.monotonic() < patience, f"{expression} is {found!r}"
            self.page.wait_for_timeout(60)
        return found

    def save(self) -> str:
        """Save the notebook; the text of its file."""
        assert self.page.evaluate(_SAVE) == "saved"
        return self.path.read_text("utf-8")

    def sources(self) -> list[str]:
        """What the cells hold: what a stray key would have changed."""
        found: list[str] = self.page.evaluate(
            "() => window.jupyterapp.shell.currentWidget.content.widgets.map((cell) => cell.model.sharedModel.getSource())"
        )
        return found

    def dark(self, on: bool) -> None:
        self.command("apputils:change-theme", theme="JupyterLab Dark" if on else "JupyterLab Light")
        self.page.wait_for_function(f"document.body.dataset.jpThemeLight === '{str(not on).lower()}'")
        self.page.wait_for_timeout(200)

    def picture(self, panel: Locator, name: str) -> None:
        """The panel as it looks, light and dark."""
        panel.scroll_into_view_if_needed()
        for tone in ("light", "dark"):
            self.dark(tone == "dark")
            panel.screenshot(path=self.lab.folder.parent / "pictures" / f"{name}-{tone}.png")
        self.dark(False)

    def close(self) -> None:
        kernel = self.page.evaluate(f"() => {_KERNEL}.id")
        self.page.close()
        self.lab.kernels("DELETE", f"/{kernel}")


# Of the package, not of the session: as long as Playwright runs, an event loop counts as running in this thread, where others run theirs.
@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is written by all programs that are started here; ``pictures/`` holds what was seen."""
    made = tmp_path_factory.mktemp("browser")
    for name in ("home", "notebooks", "pictures"):
        (made / name).mkdir()
    return made


@pytest.fixture(scope="package")
def provider() -> Iterator[Loopback]:
    with Loopback() as server:
        yield server


@pytest.fixture(scope="package")
def surroundings(folder: Path, provider: Loopback) -> dict[str, str]:
    """The environment of the programs: nobody's keys, nobody's settings, and OpenAI is the pretend provider."""
    home = folder / "home"
    jupyter = {f"JUPYTER_{name}_DIR": str(home / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    lab = {f"JUPYTERLAB_{name}_DIR": str(home / name.lower()) for name in ("SETTINGS", "WORKSPACES")}
    ours = {"LLMKIT_CACHE_DIR": str(home / "answers"), "LLMKIT_CONFIG_DIR": str(home / "llmkit"), "LLMKIT_DOTENV": "off"}
    return {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "HOME": str(home), "IPYTHONDIR": str(home / "ipython"), "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1",
        "OPENAI_BASE_URL": provider.url_of("openai"), "LAB_URL": provider.url, **jupyter, **lab, **ours,
    }  # fmt: skip


@pytest.fixture(scope="package")
def lab(folder: Path, surroundings: dict[str, str]) -> Iterator[Lab]:
    """JupyterLab, listening."""
    for name, values in _SETTINGS.items():
        file = Path(surroundings["JUPYTERLAB_SETTINGS_DIR"], "@jupyterlab", f"{name}.jupyterlab-settings").resolve()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values), "utf-8")
    settings = {
        "ServerApp.ip": "127.0.0.1", "ServerApp.port": 0, "ServerApp.root_dir": folder / "notebooks", "ServerApp.allow_root": True,
        "ServerApp.terminals_enabled": False, "ServerApp.open_browser": False, "LabApp.expose_app_in_browser": True,
        "IdentityProvider.token": "not-secret",
    }  # fmt: skip
    command = [sys.executable, "-m", "jupyterlab", *(f"--{name}={value}" for name, value in settings.items())]
    log = folder / "lab.log"
    with log.open("wb") as written:
        process = subprocess.Popen(command, env=surroundings, cwd=folder, stdin=subprocess.DEVNULL, stdout=written, stderr=written)
    try:
        runtime = Path(surroundings["JUPYTER_RUNTIME_DIR"], f"jpserver-{process.pid}.json")
        patience = time.monotonic() + 60
        while True:
            assert process.poll() is None and time.monotonic() < patience, log.read_text("utf-8")[-2000:]
            try:
                server = Lab(json.loads(runtime.read_text("utf-8"))["url"], "not-secret", folder / "notebooks", log)
                server.kernels()
                break
            except (OSError, ValueError):
                time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="package")
def chromium(folder: Path) -> Iterator[Browser]:
    quiet = ["background-networking", "component-update", "sync", "gpu", "quic"]
    flags = ["--no-sandbox", "--no-first-run", *(f"--disable-{what}" for what in quiet)]
    # Its profile goes there too.
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, headless=True, args=flags, env={**os.environ, "HOME": str(folder / "home")}
        )
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def opened(lab: Lab, chromium: Browser) -> Callable[..., Notebook]:
    """Opens a notebook with these cells, and runs it."""

    def open_notebook(name: str, *cells: str) -> Notebook:
        lab.write(name, *cells, 'print("all cells", "ran")')
        page = chromium.new_page(viewport={"width": 1240, "height": 1500})
        page.set_default_timeout(15_000)
        notebook = Notebook(page, lab, name)
        notebook.run_all()
        return notebook

    return open_notebook
