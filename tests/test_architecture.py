"""The house rules, read from the source: imports only go down, heavy packages stay in their rooms, files stay small."""

from __future__ import annotations

import ast
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "pseudoris_cli"

ROOMS = {"cli", "pipeline", "stages", "runner", "engines", "storage", "sources", "models", "formats", "decoding"}
ROOMS |= {"networks", "report", "demo"}
MAY_NOT_IMPORT = {
    "errors": ROOMS,
    "records": ROOMS,
    "resources": ROOMS,
    "geometry": ROOMS,
    "config": ROOMS,
    "storage": ROOMS - {"storage"},
    "formats": ROOMS - {"formats"},
    "sources": ROOMS - {"sources", "formats"},
    "networks": ROOMS - {"networks", "decoding"},
    "decoding": ROOMS - {"decoding", "networks"},
    "models": ROOMS - {"models", "decoding", "networks"},
    "engines": {"cli", "pipeline", "stages", "models", "formats", "decoding", "networks", "report", "demo"},
    "runner": {"cli", "pipeline", "stages", "models", "formats", "decoding", "networks", "report", "demo"},
    "stages": {"cli", "pipeline", "runner", "engines", "decoding", "networks", "report", "demo"},
    "report": ROOMS - {"report", "storage", "sources"},
}
"""Room -> rooms above it or beside it. The engines and the runner move parts; they know no network and no format."""

STAGES = {"masks", "captions", "scores", "filter", "export"}
ONLY_IN = {
    "typer": {"cli"},
    "pyarrow": {"storage", "formats"},
    "jinja2": {"report"},
    "ray": {"engines"},
    "spacy": {"models"},
    "segment_anything": {"models", "networks"},
    "open_clip": {"models", "networks", "decoding"},
    "torchvision": {"models", "networks", "crops", "doctor"},
}
TORCH_AT_ONCE = {"networks", "decoding", "crops", "data"}
"""Rooms that may import torch when they are imported; the others do it inside functions, so that --help stays fast."""
TORCH_NEVER = {"errors", "records", "resources", "config", "storage", "sources", "formats", "report"}
TORCH_NEVER |= {"cli", "runner", "pipeline"}


@dataclass(frozen=True)
class Import:
    """One import statement of the package, outside `if TYPE_CHECKING`."""

    module: str
    target: str
    at_once: bool

    @property
    def room(self) -> str:
        return room_of(self.module)


def room_of(module: str) -> str:
    """The folder or file directly below pseudoris_cli."""
    return [*module.split("."), ""][1]


@lru_cache(maxsize=1)
def sources() -> dict[str, ast.Module]:
    """Module name -> syntax tree."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return found


@lru_cache(maxsize=1)
def imports() -> tuple[Import, ...]:
    return tuple(found for module, tree in sources().items() for found in _imports(module, tree, True))


def _imports(module: str, node: ast.AST, at_once: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(module, name.name, at_once) for name in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"{module} imports relatively"
            yield from (Import(module, f"{child.module}.{name.name}", at_once) for name in child.names)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports(module, child, at_once and not inside)


def own() -> list[Import]:
    return [found for found in imports() if found.target.startswith("pseudoris_cli.")]


def foreign(package: str) -> list[Import]:
    return [found for found in imports() if found.target.split(".")[0] == package]


def test_the_reader_sees_the_package() -> None:
    """Guards the other tests: a reader that finds nothing would agree with everything."""
    assert len(sources()) > 40
    assert any(found.room == "networks" and found.at_once for found in foreign("torch"))
    assert any(found.room == "models" and not found.at_once for found in foreign("torch"))
    assert any(found.room == "stages" for found in own())


@pytest.mark.parametrize("room", sorted(MAY_NOT_IMPORT))
def test_imports_only_go_down(room: str) -> None:
    wrong = [found for found in own() if found.room == room and room_of(found.target) in MAY_NOT_IMPORT[room]]
    assert not wrong


def test_rooms_have_an_order() -> None:
    """Whatever new rooms there are: somebody is below everybody else."""
    graph: dict[str, set[str]] = {}
    for found in own():
        target = room_of(found.target)
        if target not in (found.room, "__version__"):
            graph.setdefault(found.room, set()).add(target)
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"rooms import in a circle: {' -> '.join(error.args[1])}")


def test_only_the_entry_point_knows_the_command_line() -> None:
    assert {found.room for found in own() if room_of(found.target) == "cli"} <= {"cli", "__main__"}


def test_no_stage_imports_a_stage() -> None:
    wrong = [found for found in own() if found.room == "stages" and _between(found, "stages", STAGES)]
    assert not wrong


def test_no_backend_imports_a_backend() -> None:
    backends = {
        module.rpartition(".")[2]
        for module, tree in sources().items()
        if room_of(module) == "models"
        and any(isinstance(node, ast.ClassDef) and node.name == "Settings" for node in tree.body)
    }
    assert {"sam", "coca", "clip", "cascade_rcnn"} <= backends
    wrong = [found for found in own() if found.room == "models" and _between(found, "models", backends)]
    assert not wrong


def _between(found: Import, room: str, names: set[str]) -> bool:
    """Whether the import goes from one of `names` in the room to another."""
    here = found.module.split(".")[2:3]
    there = found.target.split(".")[1:3]
    return bool(here) and here[0] in names and there[:1] == [room] and there[-1] in names - {here[0]}


@pytest.mark.parametrize("package", sorted(ONLY_IN))
def test_packages_stay_in_their_rooms(package: str) -> None:
    assert not [found for found in foreign(package) if found.room not in ONLY_IN[package]]


def test_torch_is_imported_late() -> None:
    assert not [found for found in foreign("torch") if found.room in TORCH_NEVER]
    assert not [found for found in foreign("torch") if found.at_once and found.room not in TORCH_AT_ONCE]


_WITHOUT_TORCH = """
import sys
from typer.testing import CliRunner
from pseudoris_cli.cli.app import app
for command in (["--help"], ["masks", "--help"], ["config", "show", "--json"], ["weights", "list", "--json"]):
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, (command, done.output, done.exception)
    heavy = {"torch", "open_clip", "spacy", "ray", "torchvision"} & set(sys.modules)
    assert not heavy, (command, heavy)
"""


def test_help_and_settings_need_no_torch(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_TORCH], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def written_files() -> list[Path]:
    folders = ("pseudoris_cli", "training", "benchmarks", "tests")
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def test_files_are_small() -> None:
    sizes = {str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in written_files()}
    assert not {name: size for name, size in sizes.items() if size >= 400}
    large = {name: size for name, size in sizes.items() if size >= 300}
    if large:
        warnings.warn(f"files above 300 lines: {large}", stacklevel=1)


def test_functions_are_short_and_take_few_parameters() -> None:
    """60 lines without the docstring; six parameters, except for what Typer turns into options."""
    long, wide = {}, {}
    for module, tree in sources().items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            name = f"{module}.{node.name}"
            if _lines(node) > 60:
                long[name] = _lines(node)
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            count = sum(argument.arg not in ("self", "cls") for argument in arguments)
            if count > 6 and room_of(module) != "cli":
                wide[name] = count
    assert not long
    assert not wide


def _lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    documented = ast.get_docstring(node) is not None
    docstring = node.body[0]
    total = (node.end_lineno or node.lineno) - node.lineno + 1
    return total - ((docstring.end_lineno or 0) - docstring.lineno + 1 if documented else 0)


def test_names_say_what_things_are() -> None:
    vague = {"utils", "util", "helpers", "misc", "common"}
    assert not [path for path in written_files() if path.stem in vague or path.parent.name in vague]


def test_test_files_have_names_of_their_own() -> None:
    """Without packages below tests/, two files of one name would shadow each other."""
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert len(names) == len(set(names))
