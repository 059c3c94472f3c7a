"""The rules of the layout, read from the source: imports only go down, heavy packages stay where they belong, files stay small."""

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
from locations import REPOSITORY

ROOT = REPOSITORY
PACKAGE = ROOT / "pseudoris_cli"

LAYERS = (
    {"errors", "text", "records", "watching"},
    {"rle", "halving"},
    {"settings", "codecs", "decoding", "demo"},
    {"storage", "networks", "method", "prompting", "places"},
    {"weights", "sources", "evaluation", "endpoint"},
    {"backends", "execution"},
    {"export"},
    {"stages", "report"},
    {"pipeline", "doctor", "dataset", "self_training"},
    {"notebook"},
    {"cli"},
    {"__main__"},
)
"""Every folder and root module of the package, low to high. A module imports from its own folder and from lower layers."""

LAYER = {unit: number for number, units in enumerate(LAYERS) for unit in units}
MOST_ROOT_MODULES = 10
PLUG_INS = {
    "backends": ("Settings", "load"),
    "sources": ("open_source",),
    "export/formats": ("open_writer",),
}
"""Folders of plug-ins, and what each of their files must define."""
NO_PLUG_INS = {
    "backends": {"registry", "automatic_masks", "scene_listening"},
    "sources": {"base", "registry", "detect", "metadata", "containers"},
    "export/formats": set(),
}
"""Files of a plug-in folder that join the plug-ins to the rest."""

STAGES = {"masks", "captions", "scores", "judge", "filter", "export_index"}
ONLY_IN = {
    "typer": {"cli"},
    "pyarrow": {"storage", "export", "codecs", "sources"},
    "jinja2": {"report"},
    "ray": {"execution"},
    "spacy": {"backends"},
    "segment_anything": {"backends", "networks"},
    "open_clip": {"backends", "networks", "decoding", "weights"},
    "torchvision": {"backends", "networks", "method", "doctor"},
    "lmdb": {"export"},
    "openai": {"endpoint"},
    "httpx": {"endpoint"},
    "transformers": {"backends", "networks"},
    "fsspec": {"places"},
}
"""Foreign package -> the only units that may import it."""
TORCH_AT_ONCE = {"networks", "decoding", "method", "dataset", "self_training"}
"""Units that may import torch when they are imported; others do it inside functions, so that --help stays fast."""
TORCH_NEVER = {
    "errors",
    "text",
    "records",
    "rle",
    "settings",
    "codecs",
    "storage",
    "sources",
    "export",
    "report",
    "prompting",
    "places",
    "cli",
}
TORCH_NEVER |= {"pipeline", "notebook", "evaluation", "demo"}


@dataclass(frozen=True)
class Import:
    """One import statement of the package, outside `if TYPE_CHECKING`."""

    module: str
    target: str
    at_once: bool

    @property
    def unit(self) -> str:
        return unit_of(self.module)


def unit_of(module: str) -> str:
    """The folder or file directly below pseudoris_cli; empty for the package itself."""
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
    assert len(sources()) > 150
    assert any(found.unit == "networks" and found.at_once for found in foreign("torch"))
    assert any(found.unit == "backends" and not found.at_once for found in foreign("torch"))
    assert any(found.unit == "stages" for found in own())


def test_every_folder_and_root_module_has_a_layer() -> None:
    assert {unit_of(module) for module in sources()} - {""} == LAYER.keys()


def test_imports_only_go_down() -> None:
    wrong = [
        found for found in own() if (target := unit_of(found.target)) in LAYER and not _is_below(target, found.unit)
    ]
    assert not wrong


def _is_below(target: str, unit: str) -> bool:
    return target == unit or LAYER[target] < LAYER[unit]


def test_within_a_folder_no_imports_go_in_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    for found in own():
        parent = found.target.rpartition(".")[0]
        target = found.target if found.target in sources() else parent
        if target != found.module and found.at_once:
            graph.setdefault(found.module, set()).add(target)
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"modules import in a circle: {' -> '.join(error.args[1])}")


def test_the_package_root_is_small() -> None:
    """What is left there is what a newcomer opens first."""
    root = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py"}
    assert len(root) <= MOST_ROOT_MODULES


@pytest.mark.parametrize("folder", sorted(PLUG_INS))
def test_plug_in_folders_hold_plug_ins_only(folder: str) -> None:
    files = {path.stem: path for path in (PACKAGE / folder).glob("*.py") if path.stem != "__init__"}
    assert NO_PLUG_INS[folder] <= files.keys()
    for name in files.keys() - NO_PLUG_INS[folder]:
        tree = ast.parse(files[name].read_text(encoding="utf-8"))
        defined = {node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
        assert set(PLUG_INS[folder]) <= defined, f"{folder}/{name}.py"


def test_only_the_entry_point_knows_the_command_line() -> None:
    assert {found.unit for found in own() if unit_of(found.target) == "cli"} <= {"cli", "__main__"}


def test_no_stage_imports_a_stage() -> None:
    wrong = [found for found in own() if found.unit == "stages" and _between(found, "stages", STAGES)]
    assert not wrong


@pytest.mark.parametrize("folder", ["backends", "sources"])
def test_no_plug_in_imports_a_plug_in(folder: str) -> None:
    names = {path.stem for path in (PACKAGE / folder).glob("[a-z]*.py")} - NO_PLUG_INS[folder]
    assert len(names) > 3
    wrong = [found for found in own() if found.unit == folder and _between(found, folder, names)]
    assert not wrong


def _between(found: Import, unit: str, names: set[str]) -> bool:
    """Whether the import goes from one of `names` in the unit to another."""
    here = found.module.split(".")[2:3]
    there = found.target.split(".")[1:3]
    return bool(here) and here[0] in names and there[:1] == [unit] and there[-1] in names - {here[0]}


@pytest.mark.parametrize("package", sorted(ONLY_IN))
def test_foreign_packages_stay_where_they_belong(package: str) -> None:
    assert not [found for found in foreign(package) if found.unit not in ONLY_IN[package]]


def test_torch_is_imported_late() -> None:
    assert not [found for found in foreign("torch") if found.unit in TORCH_NEVER]
    assert not [found for found in foreign("torch") if found.at_once and found.unit not in TORCH_AT_ONCE]


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
            if count > 6 and unit_of(module) != "cli":
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
