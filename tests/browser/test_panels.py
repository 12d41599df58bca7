"""The panels where people use them: JupyterLab in a Chromium, by mouse and by keyboard, against a provider on this computer."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, expect

from ..loopback import Loopback, bad_key
from .conftest import CHROMIUM, Lab, Notebook
from .reviews import EVIL, MODELS, REVIEWS, answer

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: scripts/install_chromium.sh")

KEY = "sk-canary-not-real-5e1f8c"

BEGIN = f"""
import os
import llmkit, pandas as pd
from llmkit.widgets import CompareModels, CostPanel, ExtractExplorer, KeyPanel, ModelPicker, RunMonitor

llmkit.add_provider("lab", os.environ["LAB_URL"])
prices = {{"small": (0.1, 0.4), "medium": (0.5, 2.0), "large": (3.0, 12.0)}}
llmkit.catalogue.merge({{"models": [
    {{"provider": "lab", "name": name, "price": {{"input": first, "output": second}}}} for name, (first, second) in prices.items()
]}})
reviews = pd.DataFrame({{"text": {REVIEWS!r}}})
"""

STORY = (
    BEGIN,
    "picker = ModelPicker()\npicker",
    "keys = KeyPanel()\nkeys",
    'compare = CompareModels(reviews, "Reply in a sentence: {text}", models=["lab/small", "lab/medium", "lab/large"])\ncompare',
    'explorer = ExtractExplorer(reviews, on="text", example={"product": "kettle", "stars": 4}, model="lab/reader", n=8)\nexplorer',
    "monitor = RunMonitor()\nmonitor",
    "costs = CostPanel()\ncosts",
)


@pytest.fixture(autouse=True)
def _fresh(provider: Loopback) -> None:
    """Each test begins with a provider that answers at once and remembers nothing."""
    provider.reset()
    provider.answer, provider.latency, provider.pace = answer, 0.0, 0.0


@pytest.fixture(scope="module")
def story(opened: Callable[..., Notebook], provider: Loopback) -> Iterator[Notebook]:
    """A notebook with all panels."""
    notebook = opened("story.ipynb", *STORY)
    yield notebook
    notebook.close()


def panel(notebook: Notebook, name: str) -> Locator:
    found = notebook.page.locator(".llmkit-panel", has=notebook.page.locator(f".llmkit-{name}"))
    found.wait_for()
    found.scroll_into_view_if_needed()
    return found


def written(field: Locator, text: str) -> None:
    """Type over what a field holds, and leave it, all by keys."""
    field.focus()
    field.page.keyboard.press("Control+A")
    field.page.keyboard.type(text)
    field.page.keyboard.press("Tab")


def pressed(button: Locator, key: str = "Enter") -> None:
    button.focus()
    button.page.keyboard.press(key)


def given_key(notebook: Notebook) -> None:
    """Enter the key, if that was not done."""
    if notebook.python("'openai' in set(keys.result.query('key_found').provider)"):
        return
    form = panel(notebook, "keys")
    form.get_by_label("Provider", exact=True).select_option("openai")
    form.get_by_label("Key", exact=True).click()
    notebook.page.keyboard.press("Control+A")
    notebook.page.keyboard.type(KEY)
    notebook.page.keyboard.press("Enter")
    notebook.until("'openai' in set(keys.result.query('key_found').provider)")


def test_a_model_is_picked(story: Notebook) -> None:
    picker, keys = panel(story, "picker"), story.page.keyboard
    picker.get_by_label("Search").click()
    keys.type("openai/gpt-5-mini")
    picker.get_by_role("button", name="openai/gpt-5-mini", exact=True).click()
    story.until("picker.model", lambda model: model == "openai/gpt-5-mini")
    picker.get_by_role("button", name="openai/gpt-5-mini is a favourite", exact=True).click()
    story.until("llmkit.preferences().get('favourites')", lambda names: names == ["openai/gpt-5-mini"])
    picker.get_by_label("For").focus()
    keys.press("ArrowDown")
    story.until("picker.state['operation']", lambda operation: operation == "embed")
    keys.press("ArrowUp")
    story.until("picker.state['operation']", lambda operation: operation == "chat")
    picker.get_by_label("Model (any name can be typed)").focus()
    keys.type("openai/gpt-4.1-mini")
    keys.press("Enter")
    story.until("picker.model", lambda model: model == "openai/gpt-4.1-mini")
    written(picker.get_by_label("temperature"), "0.2")
    story.until("picker.parameters", lambda given: given == {"temperature": 0.2})
    pressed(picker.get_by_role("button", name="Use"), "Space")
    expect(picker).to_contain_text("In use: openai/gpt-4.1-mini")
    assert 'llmkit.use("openai/gpt-4.1-mini")' in story.python("picker.code")
    story.picture(picker, "picker")


def test_a_key_is_entered(story: Notebook, provider: Loopback) -> None:
    given_key(story)
    form, keys = panel(story, "keys"), story.page.keyboard
    expect(form.get_by_label("Key", exact=True)).to_have_value("")
    form.get_by_role("button", name="Test the key of openai").click()
    expect(form).to_contain_text("✓ works")
    assert provider.seen[-1].headers["authorization"] == f"Bearer {KEY}"
    # Another one without a mouse: the list answers to letters, and the next Tab leads to the field.
    form.get_by_label("Provider", exact=True).focus()
    keys.type("mis")
    keys.press("Tab")
    keys.type(f"{KEY}-2")
    keys.press("Enter")
    story.until("'mistral' in set(keys.result.query('key_found').provider)")
    story.picture(form, "keys")


def test_models_are_compared_as_they_write(story: Notebook, provider: Loopback) -> None:
    compare = panel(story, "compare")
    provider.pace = lambda request: {"small": 0.02, "medium": 0.05}.get(request.body["model"], 1.0)
    compare.get_by_role("button", name="Run", exact=True).click()
    writing = compare.locator("td.answer.writing").first
    writing.wait_for()
    compare.get_by_role("button", name="Stop lab/large").focus()
    story.picture(compare, "compare-running")
    story.until("compare.models.status.to_dict()", lambda status: status["lab/small"] == status["lab/medium"] == "done")
    assert provider.in_flight > 0
    pressed(compare.get_by_role("button", name="Stop lab/large"))
    story.until("compare.models.status['lab/large']", lambda status: status == "stopped")
    settled(story, provider)
    answers = "compare.result['{}', 'answer'].tolist()"
    assert story.python(answers.format("lab/small")) == [
        answer({"model": "small", "messages": [{"content": f"Reply in a sentence: {text}"}]}) for text in REVIEWS
    ]
    assert provider.requests < 60 or provider.count("kettle") == 6

    compare.get_by_role("button", name="Vote blind").click()
    expect(compare.get_by_role("columnheader", name="Answer A")).to_be_visible()
    chosen = compare.locator("td.answer .text").first.inner_text()
    pressed(compare.get_by_role("button", name="Row 0: A", exact=True))
    story.until("compare.state['voted']", lambda count: count == 1)
    expect(compare.get_by_role("button", name="Row 0: B", exact=True)).to_have_count(0)  # what was voted stays
    compare.get_by_role("button", name="Row 1: Tie").click()
    story.until("compare.state['voted']", lambda count: count == 2)
    story.picture(compare, "compare-voting")
    assert "lab/" not in compare.locator(".answers").inner_text()
    pressed(compare.get_by_role("button", name="Show names"))
    votes = story.until("compare.result['vote', 'winner'].head(2).tolist()", lambda votes: votes[1] == "tie")
    assert story.python(answers.format(votes[0]) + "[0]") in (chosen, None)  # what was stopped is shown, and no answer
    expect(compare.locator(".answers")).to_contain_text(f"voted: {votes[0]}")

    pressed(compare.get_by_role("button", name="Snapshot"))
    story.until("len(compare.snapshots)", lambda count: count == 1)
    assert story.python("compare.snapshot_frame().equals(compare.result)")
    story.picture(compare, "compare")


def test_an_extraction_is_explored(story: Notebook, provider: Loopback) -> None:
    explorer = panel(story, "explorer")
    explorer.get_by_role("button", name="Run on 8 rows").click()
    story.until("(found := explorer.sampled) is not None and found['product'].notna().sum()", lambda count: count == 8)
    assert story.python("explorer.sampled['product'].head(4).tolist()") == ["kettle", "lamp", "headphones", "drill"]
    assert provider.requests == 8
    expect(explorer.get_by_role("table", name="Sample rows")).to_contain_text("headphones")

    written(explorer.get_by_label("Name of stars"), "rating")
    story.until("explorer.fields['name'].tolist()", lambda names: names == ["product", "rating"])
    written(explorer.get_by_label("Description of rating"), "stars that were given")
    story.until("explorer.fields['description'].tolist()", lambda texts: texts[1] == "stars that were given")
    expect(explorer).to_contain_text("run again to see it")
    pressed(explorer.get_by_role("button", name="Run on 8 rows"))
    story.until("(found := explorer.sampled) is not None and 'rating' in found and found['rating'].notna().sum()", lambda n: n == 8)
    story.until("explorer.state['work'] is None")
    assert provider.requests == 16
    pressed(explorer.get_by_role("button", name="Run on 8 rows"), "Space")
    expect(explorer).to_contain_text("8 known already")
    assert provider.requests == 16
    pressed(explorer.get_by_role("button", name="Row 2,"))
    expect(explorer.locator("tr.whole")).to_contain_text("5")

    pressed(explorer.get_by_role("button", name="Promote to all 20 rows"))
    story.until("explorer.state['promoted']", lambda count: count == 20)
    assert provider.requests == 16 + 12
    code = story.python("explorer.code")
    expect(explorer.get_by_label("Code")).to_have_text(code.strip())
    # The cell that it prints does the same, and pays nothing for it.
    assert story.python("facts.equals(explorer.result)", f"df = reviews\n{code}")
    assert provider.requests == 16 + 12
    story.picture(explorer, "explorer")


def test_what_runs_and_what_it_costs_is_seen(story: Notebook, provider: Loopback) -> None:
    provider.latency = 60.0
    story.python("1", before='asked = reviews.llm.chat("What is it? {text}", model="lab/large", wait=False, show_progress=False)')
    monitor = panel(story, "monitor")
    expect(monitor).to_contain_text("lab/large")
    provider.wait_for(8)
    story.picture(monitor, "monitor")
    pressed(monitor.get_by_role("button", name=re.compile("^(Cancel|Stop)")).first)
    story.until("asked.done")
    settled(story, provider)
    costs = panel(story, "cost")
    expect(costs).to_contain_text("$")
    story.picture(costs, "cost")


#: Of the controls of a panel that are made alike one each; fields that are typed into last, since that changes what is shown.
_ONE_OF_EACH = """(panel) => {
  const all = [...panel.querySelectorAll("button, input, select, textarea, summary, [tabindex]")];
  const kind = (one) => [one.tagName, one.type, one.className, one.closest("td")?.className, one.closest("table")?.ariaLabel].join();
  const found = [...new Map(all.filter((one) => one.checkVisibility() && !one.disabled).map((one) => [kind(one), one])).values()];
  return found.sort((one, other) => (one.type === "text" || one.type === "search") - (other.type === "text" || other.type === "search"));
}"""


def test_no_key_reaches_the_notebook_from_a_control(story: Notebook) -> None:
    sources, active = story.sources(), "() => window.jupyterapp.shell.currentWidget.content.activeCellIndex"
    tried = 0
    for name in ("picker", "keys", "compare", "explorer", "monitor", "cost"):
        found = panel(story, name).evaluate_handle(_ONE_OF_EACH)
        for place in range(found.evaluate("(all) => all.length")):
            control = found.get_property(str(place)).as_element()
            assert control is not None
            if not control.evaluate("(one) => one.isConnected"):
                continue
            control.focus()
            story.page.evaluate("() => { window.jupyterapp.shell.currentWidget.content.mode = 'command'; }")
            control.focus()
            where, tried = story.page.evaluate(active), tried + 1
            for key in ("ArrowDown", "ArrowUp", "b", "x", "d", "d"):
                story.page.keyboard.press(key)
            told = f"{name}: {control.evaluate('(one) => one.outerHTML.slice(0, 200)')}"
            assert story.sources() == sources, told
            assert story.page.evaluate(active) == where, told
    assert tried > 30


#: What Tab should come by, in its order.
_REACHABLE = """(panel) => { window.reachable = [...panel.querySelectorAll("button, input, select, textarea, summary, [tabindex]")]
  .filter((one) => one.checkVisibility() && !one.disabled && one.tabIndex >= 0);
  window.reachable[0].focus(); return window.reachable.length; }"""
_REACHED = """() => { const now = document.activeElement, style = getComputedStyle(now);
  return [window.reachable.indexOf(now),
    style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1, now.outerHTML.slice(0, 160)]; }"""


def test_tab_comes_by_every_control_and_shows_where_it_is(story: Notebook) -> None:
    for name in ("picker", "keys", "compare", "explorer", "monitor", "cost"):
        count = panel(story, name).evaluate(_REACHABLE)
        assert count, name
        for place in range(1, count):
            story.page.keyboard.press("Tab")
            reached, visible, told = story.page.evaluate(_REACHED)
            assert (reached, visible) == (place, True), f"{name}: {told}"


def focused(panel: Locator) -> bool:
    """Whether the focus is in the panel."""
    return bool(panel.evaluate("(panel) => panel.contains(document.activeElement)"))


def test_what_a_mouse_does_the_keys_do_and_the_focus_stays(story: Notebook) -> None:
    keys, sources = story.page.keyboard, story.sources()
    picker = panel(story, "picker")
    pressed(picker.get_by_label("only those that are ready"), "Space")
    story.until("picker.state['ready_only']")
    pressed(picker.get_by_label("only those that are ready"), "Space")
    story.until("not picker.state['ready_only']")
    pressed(picker.get_by_text("A server of your own"))
    expect(picker.get_by_label("Base URL")).to_be_visible()
    # At the last page the button is switched off under the finger: the keys that come after are nobody else's.
    written(picker.get_by_label("Search"), "gemini")
    story.until("1 < picker.state['pages'] < 9 and picker.state['page'] == 0")
    following = picker.get_by_role("button", name="Next")
    following.focus()
    for page in range(1, story.python("picker.state['pages']")):
        keys.press("Enter")
        story.until("picker.state['page']", lambda now, page=page: now == page)
    expect(following).to_be_disabled()
    for key in ("x", "d", "d"):
        keys.press(key)
    assert focused(picker) and story.sources() == sources
    written(picker.get_by_label("Search"), "")

    compare = panel(story, "compare")
    adding = compare.get_by_label("Model to add, any name")
    adding.focus()
    keys.type("lab/other")
    keys.press("Enter")
    story.until("'lab/other' in compare.models.index")
    pressed(compare.get_by_role("button", name="Remove lab/other"))
    story.until("'lab/other' not in compare.models.index")
    expect(compare.get_by_role("button", name="Remove lab/other")).to_have_count(0)
    for key in ("x", "d", "d"):
        keys.press(key)
    assert focused(compare) and story.sources() == sources

    explorer = panel(story, "explorer")
    explorer.get_by_label("Sample", exact=True).focus()
    keys.press("ArrowDown")
    story.until("explorer.state['sample']['how']", lambda how: how == "random")
    keys.press("ArrowUp")
    story.until("explorer.state['sample']['how']", lambda how: how == "head")
    count = story.python("len(explorer.fields)")
    pressed(explorer.get_by_role("button", name="+ Add field"))
    story.until("len(explorer.fields)", lambda now: now == count + 1)
    expect(explorer.get_by_label("Name of field_1")).to_be_focused()
    keys.type("colour")
    for _ in range(3):  # past its type and description
        keys.press("Tab")
    keys.press("Space")
    story.until("explorer.fields.iloc[-1][['name', 'optional']].tolist()", lambda line: line == ["colour", True])
    pressed(explorer.get_by_role("button", name="Remove colour"), "Space")
    story.until("len(explorer.fields)", lambda now: now == count)
    assert focused(explorer) and story.sources() == sources

    costs = panel(story, "cost")
    costs.get_by_label("Budget").focus()
    keys.type("20")
    keys.press("Enter")
    story.until("llmkit.preferences().get('budget')", lambda budget: budget == 20)
    keys.press("Control+A")
    keys.press("Delete")
    keys.press("Enter")
    story.until("'budget' not in llmkit.preferences()")
    assert story.sources() == sources


USED = """
from IPython.display import display
for words in ("Say it shorter", "How long is the battery's life"):
    try:
        display(reviews.head(3).llm.chat(words + ": {text}", model="openai/gpt-4.1-mini"))
    except llmkit.LLMError as error:
        print(error, repr(error))
display(keys.result, llmkit.last(), llmkit.last().errors(), llmkit.runs(), llmkit.report(), llmkit.connect("openai/gpt-4.1-mini"))
print(repr(keys), repr(picker), repr(llmkit.last()))
"""

REPRS_OF_KEYS = "[repr(keys), str(keys.state), str(keys.get_state()), repr(keys.result), keys.code, keys.snapshot()]"


def test_the_key_is_nowhere(story: Notebook, provider: Loopback, chromium: Browser, lab: Lab) -> None:
    given_key(story)
    # It is used, in a run that is shown with its bar, and in one that fails.
    provider.fault("battery", bad_key(), times=2)
    story.python("1", before=USED)
    assert any(request.headers.get("authorization") == f"Bearer {KEY}" for request in provider.seen)
    saved = story.save()
    assert '"application/vnd.jupyter.widget-state+json"' in saved and "openai/gpt-4.1-mini" in saved
    page = exported(story.path)
    assert "gpt-4.1-mini" in page
    spilt = {
        "the notebook": saved.encode(),
        "the export": page.encode(),
        "the log": lab.log.read_bytes(),
        "what the kernel sent": b"".join(story.heard),
        "reprs": str(story.python(REPRS_OF_KEYS)).encode(),
        # The answers, the journal, Jupyter's own files.
        **{str(file): file.read_bytes() for file in lab.folder.parent.rglob("*") if file.is_file()},
    }
    assert [where for where, text in spilt.items() if KEY.encode() in text] == []
    # And it came through the door that was looked at.
    assert sum(KEY.encode() in frame for frame in story.said) >= 1


REPRS = f"""
from IPython.display import display
import warnings
warnings.simplefilter("ignore")
evil = pd.DataFrame({{"text": [{EVIL!r}, "plain"]}})
chat = evil.llm.chat("Repeat: {{text}}", model="lab/medium", detail=True)
display(evil, chat, llmkit.last(), llmkit.last().errors())
display(llmkit.compare(evil, "Repeat: {{text}}", ["lab/small", "lab/medium"], wait=True))
schema = {{"type": "object", "properties": {{"product": {{"type": "string"}}}}, "required": ["product"]}}
facts = evil.llm.extract(schema, on="text", model="lab/reader")
display(facts, llmkit.last().view())
display(llmkit.chat({EVIL!r}, model="lab/medium"))
try:
    evil.llm.chat({EVIL!r} + " refused {{text}}", model="lab/medium")
    display(llmkit.last().errors(), llmkit.last())
except llmkit.LLMError as error:
    display(error)
display(llmkit.runs(), llmkit.report())
panel = CompareModels(evil, "Repeat: {{text}}", models=["lab/small", "lab/medium", "lab/" + {EVIL!r}])
"""


def test_what_a_model_writes_is_never_markup(opened: Callable[..., Notebook], provider: Loopback, chromium: Browser) -> None:
    provider.fault("refused", bad_key(), times=9)
    notebook = opened(
        "evil.ipynb",
        BEGIN,
        REPRS,
        "panel",
        'explorer = ExtractExplorer(evil, on="text", example={"product": "kettle"}, model="lab/reader")\nexplorer',
        "panel.run()\nexplorer.run()\nprint(panel.wait(20), explorer.wait(20))",
    )
    for name in ("compare", "explorer"):
        expect(panel(notebook, name).get_by_role("table").last).to_contain_text("<img src=x")
    notebook.page.wait_for_timeout(500)
    assert notebook.page.locator("img[src=x]").count() == 0
    assert notebook.page.evaluate("() => window.ran") is None
    assert notebook.troubles == []
    # Nor in the file that is handed on.
    notebook.save()
    page = chromium.new_page()
    page.route("http*://**", lambda route: route.abort())
    page.set_content(exported(notebook.path))
    page.wait_for_timeout(500)
    assert "<img src=x" in page.locator("body").inner_text()
    assert page.locator("img[src=x]").count() == 0 and page.evaluate("() => window.ran") is None
    expect(page.locator(".llmkit-record", has_text="Models compared")).to_be_visible()  # what is left of a panel where no kernel is
    page.close()
    notebook.close()


#: Another text for the last cell but one, which is made the active one.
_REPLACE = """(source) => { const content = window.jupyterapp.shell.currentWidget.content;
  content.activeCellIndex = content.widgets.length - 2;
  content.activeCell.model.sharedModel.setSource(source); }"""


def test_an_interrupt_and_a_stop_leave_no_request(opened: Callable[..., Notebook], provider: Loopback) -> None:
    provider.latency = 60.0
    notebook = opened("blocked.ipynb", BEGIN, "pass")
    notebook.page.evaluate(_REPLACE, 'reviews.llm.chat("Wait: {text}", model="lab/large")')
    notebook.command("notebook:run-cell")
    provider.wait_for(8)
    notebook.command("notebook:interrupt-kernel")
    settled(notebook, provider)
    expect(notebook.page.locator(".jp-OutputArea-output", has_text="KeyboardInterrupt").first).to_be_visible()
    assert notebook.python("len(llmkit.running())") == 0

    notebook.page.evaluate(
        _REPLACE, 'explorer = ExtractExplorer(reviews, on="text", example={"product": "kettle"}, model="lab/reader")\nexplorer'
    )
    notebook.command("notebook:run-cell")
    explorer, before = panel(notebook, "explorer"), provider.requests
    explorer.get_by_role("button", name="Run on 10 rows").click()
    provider.wait_for(before + 8)
    expect(explorer.get_by_role("button", name="Stop")).to_be_visible()
    notebook.page.wait_for_timeout(500)  # sooner it would be the second half of a double click
    pressed(explorer.get_by_role("button", name="Stop"))
    settled(notebook, provider)
    notebook.until("explorer.state['work'] is None")
    notebook.close()


#: From a key that is pressed to the paint after it, in milliseconds.
_METER = """(field) => { window.took = [];
  field.addEventListener("keydown", (event) => requestAnimationFrame(() => {
    const painted = new MessageChannel();
    painted.port1.onmessage = () => window.took.push(performance.now() - event.timeStamp);
    painted.port2.postMessage(0);
  })); }"""


def test_the_page_keeps_up_with_four_models_over_a_thousand_rows(opened: Callable[..., Notebook], provider: Loopback) -> None:
    provider.pace = 0.02
    notebook = opened(
        "many.ipynb",
        BEGIN,
        'many = pd.DataFrame({"text": [f"{place}. {reviews.text[place % 20]}" for place in range(1000)]})\n'
        'models = {f"model {number}": "lab/" + name for number, name in enumerate(("small", "medium", "large", "larger"))}\n'
        'compare = CompareModels(many, "Reply: {text}", models=models, rows=None)\ncompare',
    )
    compare = panel(notebook, "compare")
    field = compare.get_by_label("Model to add, any name")
    field.evaluate(_METER)
    compare.get_by_role("button", name="Run", exact=True).click()
    compare.locator("td.answer.writing").first.wait_for()
    field.focus()
    began, first = time.monotonic(), len(notebook.heard_at)
    while compare.get_by_role("button", name="Stop all").count() and time.monotonic() - began < 60:
        for key in "lab":
            notebook.page.keyboard.press(key)
            notebook.page.wait_for_timeout(70)
        notebook.page.keyboard.press("Control+A")
    seconds, came = time.monotonic() - began, notebook.heard_at[first:]
    took = sorted(notebook.page.evaluate("() => window.took"))
    late, rate = took[int(len(took) * 0.95)], len(came) / seconds
    peak = max(sum(at <= one < at + 1 for one in came) for at in came)
    print(f"\n4 models over 1,000 rows in {seconds:.1f} s; from a key to the paint {took[len(took) // 2]:.0f} ms (median of {len(took)}),")
    print(
        f"{late:.0f} ms (95th percentile), {took[-1]:.0f} ms (worst); {rate:.0f} messages a second from the kernel, {peak} in the busiest"
    )
    assert notebook.python("compare.models.answered.tolist()") == [1000] * 4
    assert len(took) > 30 and late < 100 and peak < 100
    notebook.close()


def test_the_comparison_is_pictured(opened: Callable[..., Notebook], provider: Loopback, folder: Path) -> None:
    """The picture in README; ``make pictures`` puts it there."""
    provider.latency = lambda request: 0.2 + 0.25 * MODELS.index(request.body["model"])
    provider.pace = lambda request: 0.01 + 0.01 * MODELS.index(request.body["model"])
    cell = (
        'compare = CompareModels(reviews.drop(4), "Reply to this review: {text}", models=["lab/small", "lab/medium", "lab/large"])\ncompare'
    )
    notebook = opened("picture.ipynb", BEGIN, cell)
    compare = panel(notebook, "compare")
    compare.get_by_role("button", name="Run", exact=True).click()
    notebook.until("compare.models.answered.tolist()", lambda answered: answered == [19] * 3)
    compare.get_by_role("button", name="Vote blind").click()
    expect(compare.get_by_role("columnheader", name="Answer A")).to_be_visible()
    for row, winner in enumerate((2, 1, 2, 2, 1, 2, 0)):
        text = REVIEWS[row if row < 4 else row + 1]
        wanted = answer({"model": MODELS[winner], "messages": [{"content": text}]})
        line = compare.locator(".answers tbody tr").nth(row)
        places = [line.locator("td.answer .text").nth(place).inner_text() for place in range(3)]
        line.locator(".vote button").nth(places.index(wanted)).click()
        notebook.until("compare.state['voted']", lambda count, row=row: count == row + 1)
    compare.get_by_role("button", name="End the vote").click()
    expect(compare.locator(".answers")).to_contain_text("voted: lab/large")
    compare.locator(".answers").evaluate("(answers) => { answers.scrollTop = 0; }")
    compare.screenshot(path=folder / "pictures" / "compare.png")
    notebook.picture(compare, "compare-voted")
    if os.environ.get("LLMKIT_PICTURES"):
        shutil.copy(folder / "pictures" / "compare.png", os.environ["LLMKIT_PICTURES"])
    assert (folder / "pictures" / "compare.png").stat().st_size < 200_000
    notebook.close()


def test_voila_shows_the_panels_too(lab: Lab, chromium: Browser) -> None:
    pytest.importorskip("voila", reason="Voila is not installed")
    lab.write("shown.ipynb", BEGIN, "KeyPanel()", 'CompareModels(reviews, "Reply: {text}", models=["lab/small", "lab/medium"])')
    page = chromium.new_page(viewport={"width": 1240, "height": 1500})
    page.goto(f"{lab.url}voila/render/shown.ipynb?token={lab.token}", wait_until="commit", timeout=60_000)
    compare = page.locator(".llmkit-panel", has=page.locator(".llmkit-compare"))
    compare.wait_for(timeout=60_000)
    compare.get_by_role("button", name="Run", exact=True).click()
    expect(compare.get_by_role("table", name="Answers side by side")).to_contain_text("a new kettle is on its way", timeout=15_000)
    page.screenshot(path=lab.folder.parent / "pictures" / "voila.png", full_page=True)
    page.close()


def exported(notebook: Path) -> str:
    """The notebook as nbconvert writes it for the web."""
    from nbconvert import HTMLExporter

    page: str = HTMLExporter().from_filename(str(notebook))[0]
    return page


def settled(notebook: Notebook, provider: Loopback) -> None:
    """Within two seconds no request is left, and none comes after."""
    for _ in range(100):
        if provider.in_flight == 0:
            break
        notebook.page.wait_for_timeout(20)
    assert provider.in_flight == 0
    before = provider.requests
    notebook.page.wait_for_timeout(500)
    assert (provider.requests, provider.in_flight) == (before, 0)
