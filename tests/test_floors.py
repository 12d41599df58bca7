"""The plan of the house in executable form: an import only ever goes down."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "llmkit"

#: Floor by module, the longest match counts. Packages of one floor do not know one another; a package may know itself.
FLOOR = {
    "errors": 1,
    "event_loop": 1,
    "types": 2,
    "outcomes": 2,
    "adapter": 3,
    "drawing": 3,
    "job_run": 3,
    "run": 3,
    "streams": 3,
    "settings": 3,
    "engine": 4,
    "operations": 4,
    "catalogue": 4,
    "vectors": 4,
    "foreign": 5,
    "picking": 5,
    "session": 5,
    "providers": 5,
    "frames": 6,
    "scale": 6,
    "reports": 6,
    "telemetry": 6,
    "testing": 6,
    "cache": 7,
    "front": 7,
    "asking": 7,
    "clients": 7,
    "nesting": 7,
    "magics": 7,
    "__init__": 7,
    "widgets": 7,
}

#: On their own floors these may import one another: (importer, imported).
BESIDE = {
    ("outcomes", "types"),
    ("job_run", "run"),
    ("session", "picking"),
    ("picking", "foreign"),
    ("scale", "frames"),
    ("frames", "scale"),
    ("front", "frames"),
    ("front", "asking"),
    ("front", "clients"),
    ("__init__", "clients"),
    ("__init__", "asking"),
    ("__init__", "front"),
    ("__init__", "cache"),
    ("__init__", "nesting"),
    ("__init__", "magics"),
    ("magics", "asking"),
    ("magics", "front"),
}

#: What a floor may not reach although it lies below.
CLOSED = {
    "operations": {"run", "settings", "outcomes"},
    "engine": {"run", "settings"},
    "catalogue": {"run", "settings", "outcomes"},
    "providers": {"run", "settings", "engine", "catalogue", "outcomes"},
}

#: Third-party modules that only some floors may import at the top of a file.
ONLY_IN = {
    "pandas": {"frames", "scale", "reports", "cache", "front", "asking", "clients", "magics", "__init__"},
    "aiohttp": {"engine"},
    "threading": {"event_loop"},
}


def _room(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def _imports(path: Path, package: tuple[str, ...]) -> list[str]:
    """Every llmkit module that a file imports, wherever in the file, as the room it lies in."""
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                base = package[: len(package) - node.level + 1]
                inside = (*base, *(node.module.split(".") if node.module else ()))
            elif node.module and node.module.split(".")[0] == "llmkit":
                inside = tuple(node.module.split("."))
            else:
                continue
            if len(inside) > 1:
                found.append(inside[1])
            else:
                found += [alias.name if alias.name in FLOOR else "__init__" for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [[*alias.name.split("."), "__init__"][1] for alias in node.names if alias.name.split(".")[0] == "llmkit"]
    return found


def _files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def violations(path: Path, room: str, imported: list[str]) -> list[str]:
    wrong = []
    for other in imported:
        if other == room or (room, other) in BESIDE:
            continue
        if FLOOR[other] >= FLOOR[room]:
            wrong.append(f"{path.name}: floor {FLOOR[room]} ({room}) imports floor {FLOOR[other]} ({other})")
        elif other in CLOSED.get(room, ()):
            wrong.append(f"{path.name}: {room} has no business with {other}")
    return wrong


@pytest.mark.parametrize("path", _files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    package = ("llmkit", *path.relative_to(PACKAGE).parent.parts)
    assert violations(path, _room(path), _imports(path, package)) == []


def test_an_import_that_points_up_is_found(tmp_path: Path) -> None:
    path = tmp_path / "limiter.py"
    path.write_text("from ..session import Session\nfrom ..run import Run\nfrom ..types import Usage\n")
    found = violations(path, "engine", _imports(path, ("llmkit", "engine")))
    assert [line.split(": ")[1] for line in found] == ["floor 4 (engine) imports floor 5 (session)", "engine has no business with run"]


@pytest.mark.parametrize("path", _files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_pandas_aiohttp_and_threads_stay_on_their_floors(path: Path) -> None:
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names.add(node.module.split(".")[0])
    strays = {name for name in names & set(ONLY_IN) if _room(path) not in ONLY_IN[name]}
    # A blocking provider guards its one model with a lock; it starts no thread.
    assert strays - ({"threading"} if _room(path) == "providers" else set()) == set()


def test_the_environment_is_read_in_one_place() -> None:
    readers = {
        path.name
        for path in _files()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "environb") and isinstance(node.value, ast.Name)
        if node.value.id == "os"
    }
    assert readers == {"settings.py"}


def test_every_module_has_a_floor() -> None:
    rooms = {_room(path) for path in _files()}
    assert rooms <= set(FLOOR), f"say on which floor {rooms - set(FLOOR)} stands"


def test_nothing_that_could_execute_is_read_from_disk_or_cells() -> None:
    for path in _files():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                assert not names & {"pickle", "dill", "cloudpickle", "marshal", "shelve"}, path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec"}, path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                assert node.func.attr not in {"format", "format_map"}, path
