"""Real input that every machine has: the docstrings of Python's standard library, one row per documented object."""

import contextlib
import importlib
import inspect
import io
import os
import pkgutil
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType

import pandas as pd

_SHORTEST_TEXT = 40  # characters of a docstring, cleaned; shorter ones say nothing that can be searched for

# Importing these opens a browser or a display, writes to the terminal, starts a program, patches what is imported, or
# tests Python itself.
_UNWELCOME = frozenset("antigravity distutils ensurepip idlelib lib2to3 readline rlcompleter test this tkinter turtle turtledemo".split())
_UNWELCOME_PARTS = frozenset({"idle_test", "test", "tests"})

_PLAIN = (type(None), bool, int, float, complex, str, bytes, tuple, type)


class _Elsewhere:
    """Stands in a signature for a default that is another one on another machine, or in another process."""

    def __repr__(self) -> str:
        return "..."


def stdlib_docs(minimum: int = 2000) -> pd.DataFrame:
    """The documented modules, classes, functions and methods of the Python that runs this.

    One row per object, sorted by name; an object that several modules export is named after the one that defines it.
    Nothing is printed, no warning is shown, no window is opened.

    Parameters
    ----------
    minimum
        The fewest rows that are accepted. A Python whose docstrings were stripped (``python -OO``) has none.

    Returns
    -------
    DataFrame
        The columns ``module``, ``name`` (qualified), ``signature`` (missing where Python knows none) and ``text``.

    Raises
    ------
    RuntimeError
        When fewer than ``minimum`` rows were found.
    """
    rows: dict[str, tuple[str, str, str | None, str]] = {}
    seen: set[int] = set()
    with _quiet():
        for module in _modules():
            for name, thing in _documented(module, seen):
                text = inspect.cleandoc(thing.__doc__) if isinstance(thing.__doc__, str) else ""
                if len(text) >= _SHORTEST_TEXT:
                    rows[name] = (module.__name__, name, _signature(thing), text)
    if len(rows) < minimum:
        raise RuntimeError(
            f"found {len(rows)} docstrings in the standard library, not {minimum}: "
            "run Python without -OO, or ask for fewer with stdlib_docs(minimum=...)"
        )
    return pd.DataFrame([rows[name] for name in sorted(rows)], columns=["module", "name", "signature", "text"])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    nowhere = io.StringIO()
    with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _modules() -> list[ModuleType]:
    """Every public module of the standard library that can be imported here, by name, all before the first is read."""
    names = sorted(name for name in sys.stdlib_module_names - _UNWELCOME if not name.startswith("_"))
    return [module for name in names for module in _with_submodules(name)]


def _with_submodules(name: str) -> Iterator[ModuleType]:
    try:
        module = importlib.import_module(name)
    except (Exception, SystemExit):  # another system's module, or one that was not built: its rows are missing, no more
        return
    yield module
    for entry in sorted(pkgutil.iter_modules(getattr(module, "__path__", ())), key=lambda entry: entry.name):
        if not entry.name.startswith("_") and entry.name not in _UNWELCOME_PARTS:
            yield from _with_submodules(f"{name}.{entry.name}")


def _documented(module: ModuleType, seen: set[int]) -> Iterator[tuple[str, object]]:
    """The module, its classes and functions, and the methods that its classes define themselves, each once."""
    yield module.__name__, module
    for name, thing in sorted(vars(module).items()):
        if name.startswith("_") or not (inspect.isclass(thing) or inspect.isroutine(thing)):
            continue
        if id(thing) in seen or not _defined_in(module, thing):
            continue
        seen.add(id(thing))
        yield f"{module.__name__}.{name}", thing
        if inspect.isclass(thing):
            for method_name, held in sorted(vars(thing).items()):
                method = getattr(held, "__func__", held)  # what a classmethod or a staticmethod wraps
                if not method_name.startswith("_") and inspect.isroutine(method) and id(method) not in seen:
                    seen.add(id(method))
                    yield f"{module.__name__}.{name}.{method_name}", method


def _defined_in(module: ModuleType, thing: object) -> bool:
    """Whether a reader would look for it here: ``module`` defines it, or is the public face of a private module."""
    home = getattr(thing, "__module__", None)
    if not isinstance(home, str):
        return False
    top = home.partition(".")[0]
    private = any(part.startswith("_") for part in home.split("."))
    return home == module.__name__ or (private and top in sys.stdlib_module_names)


def _signature(thing: object) -> str | None:
    if isinstance(thing, ModuleType):
        return None
    try:
        signature = inspect.signature(thing)  # type: ignore[arg-type]
    except Exception:  # written in C without a text signature, or with one that inspect cannot read
        return None
    parameters = [_portable(parameter) for parameter in signature.parameters.values()]
    return str(signature.replace(parameters=parameters))


def _portable(parameter: inspect.Parameter) -> inspect.Parameter:
    default = parameter.default
    is_path = isinstance(default, str) and len(default) > 1 and os.path.isabs(default)
    if isinstance(default, _PLAIN) and not is_path:  # also "no default", which is a class
        return parameter
    return parameter.replace(default=_Elsewhere())
