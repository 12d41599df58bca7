"""A key stands in nothing that leaves the process, whichever vendor it is of and however that vendor refuses it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.loopback import Loopback, Status
from tests.process.child import Child, environment

#: Vendor, what it is asked, a model of it.
ASKED = {
    "openai": "gpt-4.1-mini",
    "anthropic": "claude-haiku-5-5",
    "cohere": "command-a-03-2025",
    "voyage": "voyage-4",
    "mistral": "mistral-small-latest",
    "groq": "llama-3.3-70b-versatile",
    "gemini": "gemini-2.5-flash",
    "together": "meta-llama/Llama-3.3-70B-Instruct-Turbo",
}
PROTOCOL = {"anthropic": "anthropic", "cohere": "cohere", "voyage": "voyage"}


def key_of(vendor: str) -> str:
    return f"CANARYKEY.{vendor}.0123456789abcdef"


def address_of(server: Loopback, vendor: str) -> str:
    return server.url_of(vendor) if vendor in PROTOCOL else server.compat_url_of(vendor)


TROUBLE = """
import logging, pickle, traceback, warnings
from pathlib import Path

logging.basicConfig(filename="everything.log", level=logging.DEBUG)
logging.captureWarnings(True)
warnings.simplefilter("always")

def write(name, *things):
    with open(f"{name}.txt", "a") as file:
        for thing in things:
            print(thing if isinstance(thing, str) else repr(thing), file=file)

def ask(model):
    df = pd.DataFrame({"text": ["one", f"two of {model.partition('/')[0]}"]})
    if model.startswith("voyage/"):
        return df.llm.embed("text", model=model, show_progress=False, wait=False, max_attempts=2)
    return df.llm.chat("Say {text}", model=model, show_progress=False, wait=False, max_attempts=2)

for vendor, (address, protocol, model) in json.loads(os.environ["ASKED"]).items():
    llmkit.add_provider(vendor, address, api_key=os.environ[f"KEY_{vendor.upper()}"], protocol=protocol)
    run = ask(f"{vendor}/{model}")
    try:
        write("messages", run.result())
        say(f"{vendor} was served")
    except llmkit.LLMError as error:
        say(f"{vendor}: {type(error).__name__}")
        write("messages", error, str(error), vars(error), getattr(error, "__notes__", ()))
        Path(f"pickled-{vendor}").write_bytes(pickle.dumps(error))
        told = traceback.TracebackException.from_exception(error, capture_locals=True)
        told.stack = traceback.StackSummary.from_list([one for one in told.stack if one.filename != "<string>"])
        write("tracebacks", "".join(told.format()))
    write("messages", run, run.summary(), run.errors().to_string(), *run.tasks())
    target = llmkit.session.default().target(f"{vendor}/{model}", "embed" if vendor == "voyage" else "chat")
    template = llmkit.event_loop.call(llmkit.session.default().engine.template, target)
    write("reprs", target, template, target.provider, target.secret)
write("messages", llmkit.providers().to_string(), llmkit.models().to_string())
"""


def test_no_vendors_key_stands_in_what_its_process_leaves_behind(tmp_path: Path) -> None:
    with Loopback() as server:
        asked = {vendor: (address_of(server, vendor), PROTOCOL.get(vendor, "openai"), model) for vendor, model in ASKED.items()}
        keys = {f"KEY_{vendor.upper()}": key_of(vendor) for vendor in ASKED}
        for vendor in ASKED:
            server.fault(f"two of {vendor}", Status(401, f"Your key is {key_of(vendor)}, isn't it?"), times=float("inf"))
        with Child(TROUBLE, server.url, tmp_path, ASKED=json.dumps(asked), **keys) as child:
            heard = [child.hear() for _ in ASKED]
            errors = child.end()
        assert heard == [f"{vendor}: KeyRejected" for vendor in ASKED]
        assert server.seen
        for seen in server.seen:
            assert "CANARYKEY" not in f"{seen.path}?{seen.query}"
            assert sum("CANARYKEY" in value for value in seen.headers.values()) <= 1
            vendor = seen.path.removeprefix("/compat").split("/")[1]
            assert all(key_of(other) not in str(seen.headers) for other in ASKED if other != vendor), "a key went to another vendor"
    left = {path.name: path.read_bytes().decode("latin-1") for path in tmp_path.rglob("*") if path.is_file()}
    assert {"messages.txt", "tracebacks.txt", "reprs.txt", "everything.log", "shard-000.sqlite"} <= set(left)
    assert [name for name, content in {**left, "stderr": errors}.items() if "CANARYKEY" in content] == []


NOTEBOOK = """
import json, os
import pandas as pd, llmkit
asked = json.loads(os.environ["ASKED"])
for vendor, (address, protocol, model) in asked.items():
    llmkit.add_provider(vendor, address, api_key=os.environ[f"KEY_{vendor.upper()}"], protocol=protocol)
"""


def test_no_output_of_a_notebook_shows_a_key_even_with_verbose_tracebacks(tmp_path: Path) -> None:
    client = pytest.importorskip("jupyter_client")
    with Loopback() as server:
        asked = {vendor: (address_of(server, vendor), PROTOCOL.get(vendor, "openai"), model) for vendor, model in ASKED.items()}
        keys = {f"KEY_{vendor.upper()}": key_of(vendor) for vendor in ASKED}
        for vendor in ASKED:
            server.fault(f"one of {vendor}", Status(401, f"Your key is {key_of(vendor)}, isn't it?"), times=float("inf"))
        manager, kernel = client.manager.start_new_kernel(env=environment(tmp_path, ASKED=json.dumps(asked), **keys), cwd=str(tmp_path))
        try:
            shown: list[Any] = []
            cells = [NOTEBOOK, "%xmode Verbose"]
            for vendor, model in ASKED.items():
                method = 'embed("text", ' if vendor == "voyage" else 'chat("Say {text}", '
                cells += [
                    f'pd.DataFrame({{"text": ["one of {vendor}"]}}).llm.{method}model="{vendor}/{model}", max_attempts=1)',
                    "llmkit.last(), llmkit.last().errors(), llmkit.last().stopped",
                    f'llmkit.session.default().target("{vendor}/{model}", "{"embed" if vendor == "voyage" else "chat"}")',
                ]
            cells += ["llmkit.providers()", "llmkit.models()", "llmkit.session.default()"]
            for cell in cells:
                kernel.execute_interactive(cell, timeout=60, output_hook=lambda message: shown.append(message["content"]))
        finally:
            kernel.stop_channels()
            manager.shutdown_kernel(now=True)
    told = json.dumps(shown, default=str)
    assert told.count("KeyRejected") >= len(ASKED), told[:2000]
    assert "CANARYKEY" not in told
