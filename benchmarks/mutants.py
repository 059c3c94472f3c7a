"""Faults put into the code one by one: which of them do the tests notice? `make mutants`, or

    python benchmarks/mutants.py [--minutes 20] [--folders method storage ...] [--again]

The faults are those of mutmut (`pip install --no-deps mutmut==3.8.1 libcst==1.9.0`). Its runner skips decorated functions (context
managers, properties) and writes trampolines into a copy of the package, so only its mutations are used, and run here:
tests are collected once, and every mutant is tried in a fork of that process, in which the code of the one function is
replaced, on the tests that call this function, the quick ones first, until one fails. Left out are messages (`raise`, `log`),
texts in another case, class bodies, default values, and the arguments `strict`, `encoding` and `newline`. Module constants are included.

Mutants are tried in the order of a hash, so that those of any time box are a fair sample. Results are kept in `.mutants/`
and taken up by the next run; survivors are tried again. `mutants_explained.toml` lists those that are equivalent or not
worth a test.
"""

from __future__ import annotations

import argparse
import difflib
import gc
import hashlib
import importlib
import importlib.util
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import libcst as cst
import pytest
from mutmut.mutation.file_mutation import MetadataWrapper, MutationVisitor
from mutmut.mutation.mutators import mutation_operators
from mutmut.mutation.pragma_handling import IgnoredCode

ROOT = Path(__file__).resolve().parents[1]
EXPLAINED = Path(__file__).with_name("mutants_explained.toml")
RESULTS = ROOT / ".mutants" / "results.jsonl"
_SPINE = ["tests/execution/test_runner.py", "tests/storage", "tests/robustness/test_spine_properties.py"]
FOLDERS = {
    "method": ["tests/method"],
    "decoding": [
        f"tests/decoding/test_{part}.py"
        for part in ("beam", "distinctive", "distribution", "engine", "kv_cache", "sampling")
    ],
    "storage": [*_SPINE, "tests/stages", "tests/test_docs.py"],
    "export": ["tests/export", "tests/test_dataset.py", "tests/stages"],
    "execution/backlog.py": ["tests/execution/test_backlog.py", *_SPINE, "tests/stages"],
}
"""Folders and files of pseudoris_cli, and the tests that are theirs; the recordings of test_parity_coca take too long."""
_PRELOADED = ("open_clip", "pyarrow.parquet", "pycocotools.mask", "pandas", "datasets", "lmdb", "scipy")
"""Packages that tests import late, imported once before the forks."""
_GUARDS = ("strict", "encoding", "newline")
"""Arguments that change nothing where sizes agree, on Linux, with UTF-8."""


@dataclass(frozen=True)
class Mutant:
    """One fault: where, what, and the source text with it."""

    folder: str
    path: Path
    function: str
    line: int
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
    names = _function_names(module)
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
        line = positions[node].start.line if node in positions else 0

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


# --- applying -------------------------------------------------------------------------------------------------------


Functions = dict[tuple[str, str], list[FunctionType]]
"""The functions of the package in memory, by file and qualified name."""


def functions_in_memory() -> Functions:
    """Looked for once, before the forks: touching every object in a child would copy the memory."""
    found: Functions = defaultdict(list)
    for thing in gc.get_objects():
        if isinstance(thing, FunctionType) and thing.__code__.co_filename.startswith(str(ROOT / "pseudoris_cli")):
            found[thing.__code__.co_filename, thing.__code__.co_qualname].append(thing)
    gc.collect()
    gc.freeze()
    return found


def apply(mutant: Mutant, functions: Functions) -> bool:
    """Put the fault into the running process; False if that is impossible or changes nothing."""
    code = compile(mutant.make_source(), str(mutant.path), "exec", dont_inherit=True)
    if not mutant.function:
        return _apply_to_constants(mutant, code)
    new = list(_codes(code, mutant.function))
    old = list(
        _codes(compile(mutant.path.read_text("utf-8"), str(mutant.path), "exec", dont_inherit=True), mutant.function)
    )
    changed = False
    for function in functions[str(mutant.path), mutant.function]:
        replacement = new[old.index(function.__code__)]
        if replacement != function.__code__:
            function.__code__, changed = replacement, True
    return changed


def _codes(code: CodeType, name: str) -> Iterator[CodeType]:
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            if inner.co_qualname == name:
                yield inner
            elif name.startswith(inner.co_qualname + "."):
                yield from _codes(inner, name)


def _apply_to_constants(mutant: Mutant, code: CodeType) -> bool:
    """Give plain values at module level their new value, in all modules that imported them."""
    module, fresh = importlib.import_module(mutant.module), {"__name__": mutant.module, "__file__": str(mutant.path)}
    try:
        exec(code, fresh)
    except Exception:
        return False
    changed = False
    for name, value in fresh.items():
        old = vars(module).get(name)
        plain = isinstance(
            value, int | float | str | tuple | list | dict | frozenset | type(None)
        ) and not name.startswith("__")
        if plain and repr(old) != repr(value):
            for other in list(sys.modules.values()):
                if vars(other).get(name, fresh) is old:
                    setattr(other, name, value)
                    changed = True
    return changed


# --- running --------------------------------------------------------------------------------------------------------


class Trials:
    """A pytest plug-in that runs the collected tests on one mutant after the other instead of once."""

    def __init__(self, mutants: list[Mutant], minutes: float, again: bool) -> None:
        self.mutants, self.end, self.again = mutants, time.monotonic() + 60 * minutes, again
        self.failed: list[str] = []
        self.called: dict[str, set[tuple[str, str]]] = defaultdict(set)
        self.by_fixture: dict[str, set[tuple[str, str]]] = defaultdict(set)
        self.seconds: Counter[str] = Counter()
        self.now: list[set[tuple[str, str]]] = []
        self.verdicts: dict[str, str] = {}

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] += report.duration
        if report.failed:
            self.failed.append(report.nodeid)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        """What a fixture of a module or session calls belongs to all of its tests."""
        self.now.append(self.by_fixture[fixturedef.argname] if fixturedef.scope != "function" else set())
        yield
        made = self.now.pop()
        if self.now:
            self.now[-1] |= made

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        for name in _PRELOADED:
            with_it = importlib.util.find_spec(name.split(".")[0])
            if with_it:
                importlib.import_module(name)
        items = self._usable(session)
        self.functions = functions_in_memory()
        for mutant in self._queue():
            if time.monotonic() > self.end:
                break
            chosen = [item for item in items if self._takes(item, mutant)]
            verdict = self._try(session, mutant, chosen) if chosen else "survived (no test calls it)"
            self.verdicts[mutant.id] = verdict
            with RESULTS.open("a") as file:
                file.write(json.dumps({"id": mutant.id, "verdict": verdict}) + "\n")
            if verdict.startswith("survived"):
                print(f"\n{mutant.id} {verdict}: {mutant.folder}, {mutant.function}\n{mutant.diff()}", flush=True)
        return True

    def _queue(self) -> list[Mutant]:
        known: dict[str, str] = {}
        if RESULTS.exists():
            for line in RESULTS.read_text().splitlines():
                record = json.loads(line)
                known[record["id"]] = record["verdict"]
        RESULTS.parent.mkdir(exist_ok=True)
        self.verdicts = {m.id: known[m.id] for m in self.mutants if m.id in known}
        survivors = [m for m in self.mutants if known.get(m.id, "").startswith("survived") and not explained(m)]
        return survivors if self.again else survivors + [m for m in self.mutants if m.id not in known]

    def _takes(self, item: pytest.Item, mutant: Mutant) -> bool:
        own = any(item.path.is_relative_to(ROOT / folder) for folder in FOLDERS[mutant.folder])
        if not own or not mutant.function:
            return own
        return (str(mutant.path), mutant.function) in self.called[item.nodeid]

    def _usable(self, session: pytest.Session) -> list[pytest.Item]:
        """The tests that pass without a fault, the quick ones first; notes what each calls."""
        reading, writing = os.pipe()
        child = self._fork(session, lambda: self._survey(session, writing))
        os.close(writing)
        with os.fdopen(reading) as pipe:
            told = json.loads(pipe.read() or "{}")
        os.waitpid(child, 0)
        for name, calls in told["called"].items():
            self.called[name] = {tuple(call) for call in calls}
        for item in session.items:
            if item.nodeid in told["failed"]:
                print(f"left out, as it fails without any fault: {item.nodeid}")
        print(f"{len(session.items)} tests in {sum(told['seconds'].values()):.0f} s", flush=True)
        self.seconds = Counter(told["seconds"])
        good = [item for item in session.items if item.nodeid not in told["failed"]]
        return sorted(good, key=lambda item: self.seconds[item.nodeid])

    def _survey(self, session: pytest.Session, writing: int) -> None:
        places = {str(mutant.path) for mutant in self.mutants}

        def profile(frame: Any, event: str, _: Any) -> None:
            code = frame.f_code
            if event == "call" and code.co_filename in places and self.now:
                self.now[-1].add((code.co_filename, code.co_qualname.split(".<locals>")[0]))

        threading.setprofile(profile)
        sys.setprofile(profile)
        for item, following in zip(session.items, [*session.items[1:], None], strict=True):
            self.now = [self.called[item.nodeid]]
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            for name in getattr(item, "fixturenames", ()):
                self.called[item.nodeid] |= self.by_fixture[name]
        sys.setprofile(None)
        told = {
            "called": {k: sorted(v) for k, v in self.called.items()},
            "failed": self.failed,
            "seconds": self.seconds,
        }
        with os.fdopen(writing, "w") as pipe:
            pipe.write(json.dumps(told))

    def _try(self, session: pytest.Session, mutant: Mutant, items: list[pytest.Item]) -> str:
        limit = 20 + 5 * sum(self.seconds[item.nodeid] for item in items)

        def work() -> int:
            if not apply(mutant, self.functions):
                return 3
            for item, following in zip(items, [*items[1:], None], strict=True):
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                if self.failed:
                    session._setupstate.teardown_exact(None)
                    return 1
            return 0

        child, begun, status = self._fork(session, work), time.monotonic(), 0
        while not (done := os.waitpid(child, os.WNOHANG))[0]:
            if time.monotonic() - begun > limit:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return "killed (time)"
            time.sleep(0.01)
        status = os.waitstatus_to_exitcode(done[1])
        return {0: "survived", 3: "no change"}.get(status, "killed")

    def _fork(self, session: pytest.Session, work: Callable[[], int | None]) -> int:
        """Run in a child with temporary folders of its own; its exit code is what `work` returns."""
        sys.stdout.flush()
        child = os.fork()
        if child:
            return child
        code = 1
        try:
            os.setpgid(0, 0)
            silent = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(silent, descriptor)
            place = Path(tempfile.mkdtemp(prefix="mutant-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
            session.config._tmp_path_factory._basetemp = place  # type: ignore[attr-defined]
            code = work() or 0
            shutil.rmtree(place, ignore_errors=True)
        finally:
            os._exit(code)


# --- reporting ------------------------------------------------------------------------------------------------------


def explained(mutant: Mutant) -> bool:
    """Whether the list in the repository has this fault."""
    return any(
        entry["module"] == mutant.module and entry["function"] == mutant.function and mutant.change in entry["changes"]
        for entry in tomllib.loads(EXPLAINED.read_text("utf-8")).get("mutant", [])
    )


def report(mutants: list[Mutant], verdicts: dict[str, str]) -> None:
    """One line per folder. Explained survivors count as equivalent only where the list says so."""
    print(
        "\n| folder | mutants | tried | killed | survived | explained | killed of those not explained |\n|---|---|---|---|---|---|---|"
    )
    for folder in FOLDERS:
        own = [m for m in mutants if m.folder == folder]
        tried = [m for m in own if verdicts.get(m.id, "no change") != "no change"]
        killed = [m for m in tried if verdicts[m.id].startswith("killed")]
        known = [m for m in tried if m not in killed and explained(m)]
        rest = len(tried) - len(known)
        share = f"{len(killed) / rest:.1%}" if rest else "-"
        print(
            f"| {folder} | {len(own)} | {len(tried)} | {len(killed)} | {len(tried) - len(killed) - len(known)} | {len(known)} | {share} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--folders", nargs="+", default=list(FOLDERS), choices=list(FOLDERS))
    parser.add_argument("--again", action="store_true", help="only try the known survivors again")
    options = parser.parse_args()
    os.chdir(ROOT)
    ranked = []
    for folder in options.folders:
        place = ROOT / "pseudoris_cli" / folder
        paths = [place] if place.is_file() else sorted(place.rglob("*.py"))
        ranked += enumerate(sorted((m for path in paths for m in mutants_of(folder, path)), key=lambda m: m.id))
    mutants = [mutant for _, mutant in sorted(ranked, key=lambda pair: pair[0])]  # as many of each folder
    tests = sorted({test for folder in options.folders for test in FOLDERS[folder] if (ROOT / test).exists()})
    trials = Trials(mutants, options.minutes, options.again)
    pytest.main([*tests, "-s", "-q", "--no-header", "-p", "no:cacheprovider", "--hypothesis-seed=0"], plugins=[trials])
    report(mutants, trials.verdicts)


if __name__ == "__main__":
    main()
