"""What all panels are: a widget whose state is plain data, whose every button is a method, and which leaves a record when it is gone.

A panel works without a front end: ``view()`` says what would be shown, the methods marked with ``action`` do what the buttons do.
"""

from __future__ import annotations

import html
import inspect
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import anywidget
import pandas as pd
import traitlets

import llmkit

__all__ = ["Panel", "action", "table_html"]

F = TypeVar("F", bound=Callable[..., Any])

_STATIC = Path(__file__).parent / "static"


def action(method: F) -> F:
    """Mark a method that the front end may call by its name."""
    method.__llmkit_action__ = True  # type: ignore[attr-defined]
    return method


class Panel(anywidget.AnyWidget):
    """The base of the panels.

    A subclass names its files by ``_files`` (``static/<name>.js`` and ``.css``), says in ``view()`` what is to be seen, and calls
    ``draw()`` whenever that may have changed, from any thread and as often as it likes: the front end hears at most twelve times a second.
    """

    #: What is shown: plain data, made by ``view``. Never a key; nothing that is not on the screen.
    state = traitlets.Dict().tag(sync=True)
    #: Pieces that came since the last one, where sending all of ``state`` each time would be too much.
    news = traitlets.Dict().tag(sync=True)

    _files: ClassVar[str] = ""
    #: Seconds between two messages to the front end at the least.
    _between: ClassVar[float] = 0.08

    def __init_subclass__(cls, **options: Any) -> None:
        if "_files" in cls.__dict__:  # anywidget makes a class of its own from each, which has what this one has
            kit, own = (_STATIC / "kit.js").read_text("utf-8"), (_STATIC / f"{cls._files}.js").read_text("utf-8")
            cls._esm = f"{kit}\n{own}"
            style = _STATIC / f"{cls._files}.css"
            cls._css = (_STATIC / "kit.css").read_text("utf-8") + (style.read_text("utf-8") if style.exists() else "")
        super().__init_subclass__(**options)

    def __init__(self, **traits: Any) -> None:
        self._lock = threading.RLock()
        self._error = ""
        self._note = ""
        self._drawn_at = float("-inf")
        self._timer: threading.Timer | None = None
        self._record: Any = None
        self._working: set[threading.Thread] = set()
        super().__init__(**traits)
        self.on_msg(self._asked)

    # ------------------------------------------------------------------------------------------------------ for subclasses

    def view(self) -> dict[str, Any]:
        """What is to be seen, as plain data."""
        raise NotImplementedError

    def snapshot(self) -> str:
        """The last result as static, escaped HTML: what a saved notebook shows."""
        return ""

    @property
    def result(self) -> Any:
        """What came of the work, as a DataFrame."""
        return None

    @property
    def code(self) -> str:
        """The cell that does the same without the panel."""
        return ""

    def say(self, note: str = "", error: str = "") -> None:
        """Put a word, or what went wrong, into the panel's own place for it."""
        with self._lock:
            self._note, self._error = note, error
        self.draw()

    def draw(self, now: bool = False) -> None:
        """Have what ``view()`` says shown, soon; with ``now`` before this returns."""
        with self._lock:
            wait = 0.0 if now else self._drawn_at + self._between - time.monotonic()
            if wait > 0:
                if self._timer is None:
                    self._timer = threading.Timer(wait, self.draw, kwargs={"now": True})
                    self._timer.daemon = True
                    self._timer.start()
                return
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._drawn_at = time.monotonic()
            shown = {**self.view(), "note": self._note, "error": self._error}
            if shown != self.state:
                self.state = shown

    def apart(self, work: Callable[[], Any]) -> None:
        """Do what waits for a network or a disk in a thread of its own; what goes wrong gets into the panel's own place for it."""

        def carry_out() -> None:
            try:
                self._try_to(work)
            finally:
                self._working.discard(threading.current_thread())

        thread = threading.Thread(target=carry_out, name="llmkit-panel", daemon=True)
        self._working.add(thread)
        thread.start()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until what the panel does in the background is done, or ``timeout`` seconds have passed; whether it is done."""
        until = None if timeout is None else time.monotonic() + timeout
        while working := [thread for thread in list(self._working) if thread.is_alive()]:  # one may have begun another
            if until is not None and time.monotonic() >= until:
                return False
            working[0].join(None if until is None else max(0.0, until - time.monotonic()))
        return True

    def _try_to(self, work: Callable[[], Any]) -> None:
        try:
            work()
        except (llmkit.LLMError, ValueError, KeyError) as error:
            self.say(error=str(error))
        except Exception as error:
            # Whatever it is, it may hold what was typed: its name has to do.
            self.say(error=f"that did not work ({type(error).__name__})")

    def keep_record(self) -> None:
        """Renew what a saved notebook will show, once there is something new."""
        if self._record is not None:
            self._record.update(_record(self.snapshot()), raw=True)

    # ------------------------------------------------------------------------------------------------------------- messages

    @action
    def shown(self) -> None:
        """A view was opened."""
        self.draw()

    @action
    def hidden(self) -> None:
        """A view was closed."""

    def _asked(self, widget: Any, content: Any, buffers: Any) -> None:
        """Carry out what the front end asks for, in whatever thread that comes: a method that is marked, and nothing else."""
        name, args = (content.get("do"), content.get("args")) if isinstance(content, Mapping) else (None, None)
        # Statically: looking a property up would already carry it out.
        method = inspect.getattr_static(type(self), name, None) if isinstance(name, str) else None
        if method is None or not getattr(method, "__llmkit_action__", False) or not isinstance(args, Mapping):
            return
        self._try_to(lambda: method(self, **args))

    # --------------------------------------------------------------------------------------------------------------- reprs

    def _ipython_display_(self) -> None:
        from IPython.display import display

        bundle = anywidget.AnyWidget._repr_mimebundle_(self)
        data = bundle[0] if isinstance(bundle, tuple) else bundle
        self.draw(now=True)
        display({**(data or {}), "text/plain": repr(self)}, raw=True)  # type: ignore[no-untyped-call]
        # Widgets are no record: without a kernel nothing is left of them. This is, and hidden while the panel lives.
        self._record = display(_record(self.snapshot()), raw=True, display_id=uuid.uuid4().hex)  # type: ignore[no-untyped-call]

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


def _record(inside: str) -> dict[str, str]:
    return {"text/html": f'<div class="llmkit-record">{inside}</div>', "text/plain": ""}


def table_html(columns: Sequence[Any], rows: Iterable[Sequence[Any]], caption: str = "") -> str:
    """A table as static HTML; every text in it is escaped."""

    def cell(tag: str, value: Any) -> str:
        missing = value is None or (pd.api.types.is_scalar(value) and pd.isna(value))
        text = "" if missing else value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
        return f"<{tag} style='text-align:left;vertical-align:top'>{html.escape(text)}</{tag}>"

    head = "".join(cell("th", str(column)) for column in columns)
    body = "".join(f"<tr>{''.join(cell('td', value) for value in row)}</tr>" for row in rows)
    titled = f"<caption style='text-align:left'>{html.escape(caption)}</caption>" if caption else ""
    return f"<table>{titled}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
