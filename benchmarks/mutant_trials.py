"""Puts one fault after the other into forks of a process that has collected the tests, and runs those that may notice."""

from __future__ import annotations

import gc
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
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest
from mutations import ROOT, Mutant, explained

RESULTS = ROOT / ".mutants" / "results.jsonl"
NO_CHANGE, BROKEN = 3, 4
"""Exit codes of a fork whose fault changes nothing, or could not be put in."""
_PRELOADED = ("open_clip", "pyarrow.parquet", "pycocotools.mask", "pandas", "datasets", "lmdb", "scipy")
"""Packages that tests import late, imported once before the forks."""

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


class Trials:
    """A pytest plug-in that runs the collected tests on one mutant after the other instead of once."""

    def __init__(self, mutants: list[Mutant], tests: dict[str, list[str]], minutes: float, again: bool) -> None:
        """`tests`: the test files and folders of each folder of the package."""
        self.mutants, self.tests, self.end, self.again = mutants, tests, time.monotonic() + 60 * minutes, again
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
        own = any(item.path.is_relative_to(ROOT / folder) for folder in self.tests[mutant.folder])
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
        limit = min(90, 20 + 5 * sum(self.seconds[item.nodeid] for item in items))

        def work() -> int:
            if not apply(mutant, self.functions):
                return NO_CHANGE
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
        return {0: "survived", NO_CHANGE: "no change", BROKEN: "no change (cannot be applied)"}.get(status, "killed")

    def _fork(self, session: pytest.Session, work: Callable[[], int | None]) -> int:
        """Run in a child with temporary folders of its own; its exit code is what `work` returns."""
        sys.stdout.flush()
        child = os.fork()
        if child:
            return child
        code = BROKEN
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
