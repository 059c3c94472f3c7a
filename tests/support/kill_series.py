"""Kills of the real command at random moments, in series, and what is to be found afterwards: nothing that was committed is
lost, and a last undisturbed run ends with the rows and files of a run that nobody disturbed."""

from __future__ import annotations

import random
import re
import shutil
import signal
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from command_server import SMALL, Call, CommandServer, Done, Job
from trivial_stages import check_whole, file_set, outcomes, paint, rows

from pseudoris_cli.storage.stage_table import ALWAYS as STAGES
from pseudoris_cli.storage.workspace import Workspace

ARTIFACTS = {"masks": ["masks"], "captions": ["captions"], "filter": ["scores", "filter"], "export": ["export"]}
BEFORE = {"masks": "nothing", "captions": "masks", "filter": "captions", "export": "filter", "run": "nothing"}
EXPORT = ["--out", "out", "--format", "refcoco", "--format", "jsonl"]
FLAGS = {"masks": ["--images", "../images"], "export": EXPORT, "run": ["--images", "../images", *EXPORT]}
EXIT = {"masks": 4, "run": 4}
"""One picture is broken; the stages after masks have nothing to say about that."""
ENDS = (0, 4)
"""Exit codes of a command that came to its end; 4 also where an image was given up after kills in a row."""
GIVEN_UP = "killed the process when it was tried alone"


@dataclass(frozen=True)
class Kind:
    """A way to be stopped; `again`: seconds until the same signal comes a second time."""

    name: str
    sign: int
    again: float | None = None

    def seen(self, done: Done) -> bool:
        """Whether the signal came while the command was at work (and not after its end)."""
        return done.code == -self.sign or signal.Signals(self.sign).name in done.err


KINDS = (
    Kind("SIGKILL", signal.SIGKILL),
    Kind("SIGTERM", signal.SIGTERM),
    Kind("SIGINT", signal.SIGINT),
    Kind("SIGINT twice", signal.SIGINT, 0.01),
)


def words(command: str) -> list[str]:
    """The words of a command, to be called in a folder beside the images."""
    return [command, "--work", "work", *FLAGS.get(command, []), *SMALL]


@dataclass
class Unbroken:
    """Folders with the state after each command of a run that nobody disturbed."""

    base: Path
    steps: dict[str, list[str]] = field(default_factory=dict)
    """The durable steps that each command came past."""

    @classmethod
    def make(cls, base: Path, server: CommandServer, images: int) -> Unbroken:
        """Run every command once; the last of the pictures is broken."""
        unbroken = cls(base)
        for number in range(images):
            paint(base / "images" / f"{number}.png", number, (48, 36))
        (base / "images" / f"{images - 1}.png").write_bytes(b"no picture")
        (base / "nothing").mkdir()
        for command, before in BEFORE.items():
            shutil.copytree(base / before, base / command)
            done = server.call(base / command, *words(command))
            assert done.code == EXIT.get(command, 0), done.err
            unbroken.steps[command] = done.steps
        return unbroken

    def check(self, case: Path, command: str, redone: bool = False) -> None:
        """Rows, files and exports of a folder are those of the unbroken run; a part that was redone has another generation."""
        for stage in ARTIFACTS.get(command, STAGES):
            check_whole(case / "work", stage)
            assert rows(case / "work", stage) == rows(self.base / command / "work", stage), (command, stage)
        found, wanted = file_set(case), file_set(self.base / command)
        if redone:
            found, wanted = ({re.sub(r"-g\d+-", "-", name) for name in names} for names in (found, wanted))
        assert not found ^ wanted, (command, found ^ wanted)
        assert exported(case) == exported(self.base / command), command


def exported(folder: Path) -> dict[str, bytes]:
    """The rendered files, less the marker: it holds when the artifacts were made."""
    files = (path for path in (folder / "out").rglob("*") if path.is_file() and path.name != "pseudoris-export.json")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def committed(work: Path) -> dict[tuple[str, str, int], tuple[int, str]]:
    """(stage, version, part) -> (generation, sha256) of every part that the manifests list; each file is read and checked."""
    found = {}
    workspace = Workspace(work)
    for stage in STAGES:
        for artifact in workspace.versions(stage):
            manifest = artifact.manifest()
            for part, entry in manifest.entries.items():
                assert manifest.is_intact(entry, digest=True), (stage, entry)
                found[stage, artifact.version, part] = (entry.generation, entry.file.sha256)
    return found


@dataclass
class Series:
    """Kills of one kind in one command, one after the other on the same work directory."""

    case: Path
    command: str
    kind: Kind
    kills: int
    rng: random.Random
    found: Counter[str] = field(default_factory=Counter)
    parts: dict[Any, Any] = field(default_factory=dict)

    def call(self, seconds: float) -> Call:
        """The next call, killed at a random moment of the time that it takes."""
        delay = self.rng.uniform(0, seconds)
        return Call(words(self.command), kill_after=delay, again=self.kind.again, sign=self.kind.sign)

    def look(self, done: Done) -> bool:
        """Check what a call left; whether the signal came in time."""
        assert done.code in (-self.kind.sign, 130, *ENDS), (self.command, done.code, done.err)
        if "Exception ignored in" in done.err:  # Cython's code was at work and swallowed what our handler raised
            self.found["signal swallowed"] += 1
        else:
            assert "Traceback" not in done.err, done.err
        now = committed(self.case / "work")
        kept = {place: now.get(place) for place in self.parts}
        assert kept == self.parts, (self.command, self.kind.name, "a committed part was lost")
        self.found["parts kept"] += len(self.parts)
        self.parts = now
        if not self.kind.seen(done):
            return False
        self.found["kills"] += 1
        self.found["broken off" if done.code in (-self.kind.sign, 130) else "finished all the same"] += 1
        return True

    def begin(self, unbroken: Unbroken) -> None:
        """Lay out the state before the command."""
        shutil.rmtree(self.case, ignore_errors=True)
        shutil.copytree(unbroken.base / BEFORE[self.command], self.case)
        self.parts = committed(self.case / "work")

    def finish(self, server: CommandServer, unbroken: Unbroken) -> None:
        """The undisturbed run at the end, and what it must come to."""
        last = server.call(self.case, *words(self.command))
        assert last.code in ENDS, last.err
        if given_up := _given_up(self.case / "work"):  # three kills in a row in the same part look like a deadly image
            self.found["images given up, done by --retry-failed"] += given_up
            for command in ("masks", "captions", "filter", "export") if self.command == "run" else (self.command,):
                last = server.call(self.case, *words(command), "--retry-failed")
                assert last.code in ENDS, last.err
        unbroken.check(self.case, self.command, redone=given_up > 0)
        self.found["checked to the end"] += 1


def run_series(
    server: CommandServer, unbroken: Unbroken, plan: Sequence[tuple[str, Kind, int]], seed: int
) -> Iterator[Series]:
    """Do series of (command, kind, kills), side by side, and check each; AssertionError where anything was lost or differs."""
    series = [
        Series(unbroken.base / f"case-{n}", command, kind, kills, random.Random(f"{seed} {n}"))
        for n, (command, kind, kills) in enumerate(plan)
    ]
    for one in series:
        one.begin(unbroken)
    seconds = _durations(server, unbroken, {one.command for one in series})
    while open_ones := [one for one in series if one.found["kills"] < one.kills]:
        results = server.run([Job(str(one.case), [one.call(seconds[one.command])]) for one in open_ones])
        for one, [done] in zip(open_ones, results, strict=True):
            if not one.look(done) or done.code == EXIT.get(
                one.command, 0
            ):  # it is finished: there is nothing left to kill
                one.finish(server, unbroken)
                one.begin(unbroken)
    for one in series:
        one.finish(server, unbroken)
        yield one


def _given_up(work: Path) -> int:
    stages = [stage for stage in STAGES if Workspace(work).current(stage)]
    return sum((image.error or "").startswith(GIVEN_UP) for stage in stages for image in outcomes(work, stage).values())


def _durations(server: CommandServer, unbroken: Unbroken, commands: Iterable[str]) -> dict[str, float]:
    """Seconds that each command takes when two run at once, as they will."""
    found = {}
    for command in sorted(commands):
        cases = [unbroken.base / f"timing-{command}-{n}" for n in range(2)]
        for case in cases:
            shutil.copytree(unbroken.base / BEFORE[command], case)
        done = server.run([Job(str(case), [Call(words(command))]) for case in cases])
        found[command] = max(calls[0].seconds for calls in done)
        for case in cases:
            shutil.rmtree(case)
    return found
