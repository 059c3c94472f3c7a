"""The faults that `mutants.py` tries: mutmut's mutations of every function of a file and of its constants."""

from __future__ import annotations

import difflib
import hashlib
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libcst as cst
from mutmut.mutation.file_mutation import MetadataWrapper, MutationVisitor
from mutmut.mutation.mutators import mutation_operators
from mutmut.mutation.pragma_handling import IgnoredCode

ROOT = Path(__file__).resolve().parents[1]
EXPLAINED = Path(__file__).with_name("mutants_explained.toml")
_GUARDS = ("strict", "encoding", "newline", "device")
"""Arguments that change nothing where sizes agree, on Linux, with UTF-8, without a GPU."""


@dataclass(frozen=True)
class Mutant:
    """One fault: where, what, and the source text with it."""

    folder: str
    path: Path
    function: str
    line: str
    change: str
    id: str
    make_source: Callable[[], str]

    @property
    def module(self) -> str:
        return ".".join(self.path.relative_to(ROOT).with_suffix("").parts)

    def diff(self) -> str:
        old, new = self.path.read_text("utf-8"), self.make_source()
        name = str(self.path.relative_to(ROOT))
        return "\n".join(difflib.unified_diff(old.splitlines(), new.splitlines(), name, name, lineterm="", n=1))


class _Visitor(MutationVisitor):
    """mutmut's, with decorated functions and without messages and default values."""

    def _skip_node_and_children(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.FunctionDef):
            return False
        if isinstance(node, cst.Raise | cst.Param | cst.Decorator):
            return True
        if isinstance(node, cst.Arg) and node.keyword is not None and node.keyword.value in _GUARDS:
            return True
        if isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute):
            target = node.func.value
            if isinstance(target, cst.Name) and target.value == "log":
                return True
        return super()._skip_node_and_children(node)


def _is_guard(mutation: Any) -> bool:
    """Whether only an argument of `_GUARDS` was dropped or set to None."""
    node, new = mutation.original_node, mutation.mutated_node
    if not isinstance(node, cst.Call) or not isinstance(new, cst.Call):
        return False
    gone = [arg for arg in node.args if not any(arg is other for other in new.args)]
    return any(arg.keyword is not None and arg.keyword.value in _GUARDS for arg in gone)


def mutants_of(folder: str, path: Path) -> Iterator[Mutant]:
    """Every fault of one file."""
    source = path.read_text(encoding="utf-8")
    wrapper = MetadataWrapper(cst.parse_module(source))
    visitor = _Visitor(mutation_operators, IgnoredCode(set(), set(), set()))
    wrapper.visit(visitor)
    module = wrapper.module
    positions, seen = wrapper.resolve(cst.metadata.PositionProvider), Counter[str]()
    names, lines = _function_names(module), source.splitlines()
    for mutation in visitor.mutations:
        node, new, outer = mutation.original_node, mutation.mutated_node, mutation.contained_by_top_level_function
        text = [" ".join(module.code_for_node(n).split()) for n in (node, new)]
        if isinstance(node, cst.SimpleString) and not text[1].strip("rbf\"'").startswith("XX"):
            continue
        if (outer is not None and not isinstance(outer, cst.FunctionDef)) or _is_guard(mutation):
            continue  # in the body of a class, or as good as an assertion
        name = names[outer] if outer is not None else ""
        key = f"{path.relative_to(ROOT)} {name} {module.code_for_node(outer) if outer else ''} {' -> '.join(text)}"
        seen[key] += 1
        digest = hashlib.blake2b(f"{key} {seen[key]}".encode(), digest_size=6).hexdigest()
        line = lines[positions[node].start.line - 1].strip() if node in positions else ""

        def make(node: cst.CSTNode = node, new: cst.CSTNode = new) -> str:
            return module.deep_replace(node, new).code  # type: ignore[no-any-return,arg-type]

        yield Mutant(folder, path, name, line, " -> ".join(text), digest, make)


def _function_names(module: cst.Module) -> dict[cst.CSTNode, str]:
    found: dict[cst.CSTNode, str] = {}
    for statement in module.body:
        if isinstance(statement, cst.FunctionDef):
            found[statement] = statement.name.value
        elif isinstance(statement, cst.ClassDef):
            for inner in statement.body.body:
                if isinstance(inner, cst.FunctionDef):
                    found[inner] = f"{statement.name.value}.{inner.name.value}"
    return found


def explained(mutant: Mutant) -> str | None:
    """`equivalent` or `accepted` where the list in the repository has this fault."""
    for entry in tomllib.loads(EXPLAINED.read_text("utf-8"))["mutant"]:
        here = (entry["module"], entry["function"]) == (mutant.module, mutant.function)
        if here and mutant.change in entry["changes"] and entry.get("line", "") in mutant.line:
            return str(entry["kind"])
    return None
