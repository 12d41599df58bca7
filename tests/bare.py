"""Run by ``make bare`` in an environment with no extra: the package imports, works, and names the cure for what is not there."""

import os
import sys
import tempfile

os.environ["LLMKIT_CACHE_DIR"] = tempfile.mkdtemp()

import llmkit
from llmkit import widgets

HEAVY = {"openai", "anthropic", "cohere", "voyageai", "instructor", "httpx2", "ipywidgets", "dask", "sklearn", "bm25s", "psycopg", "redis"}
loaded = HEAVY & set(sys.modules)
assert not loaded, f"import llmkit loaded {loaded}"

import pandas as pd  # noqa: E402

frame = pd.DataFrame({"text": ["one", None, "two"]})
said = frame.llm.chat("Say {text}", model="echo/echo", show_progress=False)
assert said.notna().tolist() == [True, False, True]

try:
    _ = widgets.KeyPanel
except llmkit.MissingExtra as error:
    assert "pip install 'llmkit[widgets]'" in str(error), error
else:
    raise AssertionError("the panels were there without their extra")

for call in (
    lambda: frame.llm.embed("text", model="local/lexical", show_progress=False),
    lambda: frame.llm.rerank("one", on="text", model="local/bm25"),
):
    try:
        call()
    except llmkit.MissingExtra as error:
        assert "pip install 'llmkit[local]'" in str(error), error
    else:
        raise AssertionError("an extra that is not installed was not missed")
print("bare: llmkit", llmkit.__version__, "imports and works with no extra installed")
