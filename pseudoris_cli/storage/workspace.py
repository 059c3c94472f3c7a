"""The work directory: its source, plans, and the versions of each stage."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pseudoris_cli.errors import UsageError
from pseudoris_cli.storage import files, trial
from pseudoris_cli.storage.locks import exclusive
from pseudoris_cli.storage.manifest import Manifest
from pseudoris_cli.storage.plan import PLAN, Plan, pilot_of
from pseudoris_cli.storage.schema import READABLE
from pseudoris_cli.storage.stage_table import FIRST, NAMES, upstream_of
from pseudoris_cli.storage.stage_table import stage as stage_row

WAIT_SECONDS = 60


def fingerprint(content: dict[str, Any]) -> str:
    """The version of an artifact: a short hash of everything that changes its results."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


@dataclass(frozen=True)
class Artifact:
    """One version of one stage."""

    stage: str
    version: str
    folder: Path
    header: dict[str, Any]

    @property
    def upstream(self) -> str | None:
        """The version of the stage before that this one was made from."""
        return self.header["upstream"]

    @property
    def upstream_stage(self) -> str | None:
        """The stage that this one was made from; recorded where that is an optional one."""
        return (self.header.get("upstream_stage") or upstream_of(self.stage)) if self.upstream else None

    @property
    def plan_name(self) -> str:
        """The plan whose parts this version has."""
        return self.header["plan"]

    def manifest(self) -> Manifest:
        """What is done."""
        return Manifest(self.folder)


_VERSION = re.compile(r"[0-9a-f]{12}")
"""The name of a version's folder."""


class Workspace:
    """A work directory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def create(self) -> None:
        """Make the directory; EnvironmentStop if that is impossible.

        UsageError (exit 2) for a new one whose file system lacks what every command needs, or in which something of another
        program has the name of a stage: it would be mixed with ours, and pruned.
        """
        with files.os_errors_as_stop(self.root):
            is_new = not (self.root / "source.json").exists()
            self.root.mkdir(parents=True, exist_ok=True)
            if not is_new:
                return
            taken = next((self.root / name for name in NAMES if _is_foreign(self.root / name)), None)
            if taken:
                raise UsageError(f"{taken} is there already and not of pseudoris; choose a new folder for --work")
            for ability in trial.lacks(self.root, "rename", "append", "lock"):
                raise UsageError(
                    f"--work {self.root}: its file system cannot {ability.name} ({ability.reason}), so that {ability.needed_for}; "
                    "choose a folder on another one, e.g. a local disk (images and checkpoints may lie anywhere)"
                )

    # --- source -----------------------------------------------------------------------------------------------------

    def source(self) -> dict[str, Any] | None:
        """What `source.json` says, or None in a fresh directory."""
        return _read_json(self.root / "source.json")

    def set_source(self, description: dict[str, Any]) -> None:
        """Remember the source. Call it while `changing`."""
        with files.os_errors_as_stop(self.root):
            files.replace_json(self.root / "source.json", description)

    def changing(self) -> AbstractContextManager[None]:
        """Hold the lock of the small files: source.json, settings.yaml, artifact.json, current and begun."""
        return exclusive(self.root / "work.lock", "settings", WAIT_SECONDS)

    def plan(self, name: str = PLAN) -> Plan:
        """A plan of this directory."""
        return Plan(self.root / name)

    def has_plan(self) -> bool:
        """Whether any images are planned, for a run or a pilot."""
        return any(self.root.glob("plan*.jsonl"))

    # --- versions ---------------------------------------------------------------------------------------------------

    def versions(self, stage: str) -> list[Artifact]:
        """All versions of a stage, by name."""
        folder = self.root / stage
        names = sorted(path.parent.name for path in folder.glob("*/artifact.json"))
        return [self.artifact(stage, name) for name in names]

    def artifact(self, stage: str, version: str) -> Artifact:
        """A version that exists. UsageError names the versions that do; so does one written by another schema version."""
        folder = self.root / stage / version
        header = _read_json(folder / "artifact.json")
        if header is None:
            known = ", ".join(path.parent.name for path in sorted((self.root / stage).glob("*/artifact.json")))
            others = [other for other in NAMES if (self.root / other / version / "artifact.json").is_file()]
            hint = f"; {version} is a version of {others[0]}" if others else ""
            raise UsageError(
                f"there is no version {version!r} of {stage} in {self.root} (there are: {known or 'none'}){hint}"
            )
        if header.get("schema") not in READABLE:
            raise UsageError(
                f"{folder} has schema version {header.get('schema')}; this pseudoris reads "
                f"{', '.join(map(str, READABLE))}. "
                "Use the pseudoris that wrote it, or another work directory (--work)"
            )
        return Artifact(stage, version, folder, header)

    def find(self, stage: str, version: str) -> Artifact:
        """The version of that name, or the only one whose name begins so. UsageError if there is none, or more than one."""
        folder = self.root / stage
        begin = [
            path.parent.name
            for path in folder.glob("*/artifact.json")
            if version and path.parent.name.startswith(version)
        ]
        if len(begin) > 1 and version not in begin:
            raise UsageError(
                f"{version!r} begins {len(begin)} versions of {stage}: {', '.join(sorted(begin))}; give more of it"
            )
        return self.artifact(stage, begin[0] if len(begin) == 1 else version)

    def current(self, stage: str, plan: str = PLAN) -> str | None:
        """The version that later stages use: the last one that answered every planned image, or the one chosen by hand.

        Every pilot has one of its own. A version that is at work, was interrupted or refused takes over from none.
        """
        chosen, begun = self._pointer(stage, "current", plan), self.begun(stage, plan)
        if begun and begun != chosen and self.is_complete(self.artifact(stage, begun)):
            return begun
        return chosen

    def begun(self, stage: str, plan: str = PLAN) -> str | None:
        """The version last begun, finished or not."""
        return self._pointer(stage, "begun", plan)

    def unfinished(self, stage: str, plan: str = PLAN) -> str | None:
        """The version that was begun last, if it is not the current one."""
        begun = self.begun(stage, plan)
        return begun if begun != self.current(stage, plan) else None

    def is_complete(self, artifact: Artifact) -> bool:
        """Whether a version has answered every image of its plan as it is now."""
        entries, plan = artifact.manifest().entries, self.plan(artifact.plan_name)
        return len(plan) > 0 and all(part.part in entries for part in plan.parts)

    def latest(self, stage: str, version: str | None = None, plan: str = PLAN) -> Artifact:
        """The named version of a stage (or the beginning of its name), else the current one, else the one begun last.

        UsageError says which command makes one.
        """
        if version:
            return self.find(stage, version)
        name = self.current(stage, plan) or self.begun(stage, plan)
        if name is None and (made := [one for one in self.versions(stage) if one.plan_name == plan]):
            name = max(made, key=lambda one: one.header.get("created", "")).version
        if name is None:
            raise UsageError(self._none_yet(stage, plan))
        return self.artifact(stage, name)

    def _none_yet(self, stage: str, plan: str) -> str:
        command = stage_row(stage).command
        pilot = pilot_of(plan)
        if pilot:
            return f"{self.root} holds no version of {stage} for {pilot}; run `pseudoris {command} --pilot` first"
        pilots = sorted({pilot_of(one.plan_name) or "" for one in self.versions(stage)} - {""})
        hint = f"; there is {' and '.join(pilots)} only: add --pilot to go on with it" if pilots else ""
        return f"{self.root} holds no version of {stage} yet; run `pseudoris {command}` first (or name --work){hint}"

    def open_version(self, stage: str, content: dict[str, Any], record: dict[str, Any]) -> Artifact:
        """The version that `content` (all that changes results) stands for, made if needed, and noted as begun.

        `record` is kept beside it but does not change the version: package versions, device, file names.
        """
        version = fingerprint(content)
        folder = self.root / stage / version
        plan = content.get("plan", PLAN)
        with self.changing(), files.os_errors_as_stop(folder):
            if not (folder / "artifact.json").exists():
                folder.mkdir(parents=True, exist_ok=True)
                files.sync_folder(self.root)
                files.replace_json(folder / "artifact.json", {**content, **record, "stage": stage, "version": version})
            self._point(stage, "current", plan, self.current(stage, plan))
            self._point(stage, "begun", plan, version)
        return self.artifact(stage, version)

    def settle(self, artifact: Artifact) -> bool:
        """Make a version current if it has answered every planned image; returns whether it is."""
        stage, plan = artifact.stage, artifact.plan_name
        if self._pointer(stage, "current", plan) == artifact.version:
            return True
        with self.changing(), files.os_errors_as_stop(artifact.folder):
            if self.begun(stage, plan) == artifact.version and self.is_complete(artifact):
                self._point(stage, "current", plan, artifact.version)
        return self.current(stage, plan) == artifact.version

    def use(self, artifact: Artifact) -> None:
        """Make a version current because the user says so, finished or not."""
        with self.changing(), files.os_errors_as_stop(artifact.folder):
            self._point(artifact.stage, "current", artifact.plan_name, artifact.version)
            self._point(artifact.stage, "begun", artifact.plan_name, artifact.version)

    def discard(self, artifact: Artifact, begun: str | None) -> None:
        """Take back a version in which nothing was done, and name `begun` as begun again; one with parts or answers stays."""
        with self.changing(), files.os_errors_as_stop(artifact.folder), ExitStack() as locks:
            for lock in sorted(artifact.folder.glob("manifest-*.lock")):
                locks.enter_context(exclusive(lock, "discard"))
            if artifact.manifest().entries or any(artifact.folder.glob("requests-*.jsonl")):
                return
            if self.begun(artifact.stage, artifact.plan_name) == artifact.version:
                self._point(artifact.stage, "begun", artifact.plan_name, begun)
            shutil.rmtree(artifact.folder)

    def pilots(self) -> list[str]:
        """The plans of all pilots, the one worked on last at the end."""
        marks = {path: path for path in self.root.glob("plan-*.jsonl")}
        for path in self.root.glob("*/begun-*"):
            plan = self.root / f"plan-{path.name.removeprefix('begun-')}.jsonl"
            if plan in marks and path.stat().st_mtime_ns > marks[plan].stat().st_mtime_ns:
                marks[plan] = path
        return [plan.name for plan, mark in sorted(marks.items(), key=lambda item: item[1].stat().st_mtime_ns)]

    def last_pilot(self) -> str:
        """The plan of the pilot worked on last. UsageError if there is none."""
        pilots = self.pilots()
        if not pilots:
            raise UsageError(f"{self.root} has no pilot yet; begin with `pseudoris run --pilot 8 --images DIR`")
        return pilots[-1]

    def plan_looked_at(self) -> str:
        """The plan whose versions are shown where none is named: of the whole source, else of the last pilot that made any."""
        made = {one.plan_name for one in self.versions(FIRST)}
        return next((plan for plan in [PLAN, *reversed(self.pilots())] if plan in made), PLAN)

    def chosen_at(self, stage: str, plan: str = PLAN) -> float:
        """When a version of the stage was last begun or made current, in seconds since 1970; 0 for never."""
        paths = (self._pointer_path(stage, name, plan) for name in ("current", "begun"))
        return max((path.stat().st_mtime for path in paths if path.exists()), default=0.0)

    def _pointer(self, stage: str, name: str, plan: str) -> str | None:
        """What a pointer names; None where that is no version of the plan (a pilot, by versions before 0.2)."""
        try:
            version = self._pointer_path(stage, name, plan).read_text(encoding="utf-8").strip()
        except OSError:
            return None
        header = _read_json(self.root / stage / version / "artifact.json") if version else None
        return version if header is not None and header.get("plan", PLAN) == plan else None

    def _pointer_path(self, stage: str, name: str, plan: str) -> Path:
        pilot = pilot_of(plan)
        return self.root / stage / (f"{name}-{pilot}" if pilot else name)

    def _point(self, stage: str, name: str, plan: str, version: str | None) -> None:
        """Let a pointer name a version (None: nothing). Call it while `changing`."""
        path = self._pointer_path(stage, name, plan)
        if version is None:
            path.unlink(missing_ok=True)
        elif self._pointer(stage, name, plan) != version:
            files.replace_file(path, f"{version}\n".encode())

    def chain(self, artifact: Artifact) -> dict[str, Artifact]:
        """The artifact and all it was made from, by stage."""
        found = {artifact.stage: artifact}
        while artifact.upstream and (before := artifact.upstream_stage):
            artifact = found[before] = self.artifact(before, artifact.upstream)
        return found


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except NotADirectoryError as error:
        raise UsageError(
            f"{path.parent} is a file, or lies below one, and not a work directory; choose another --work"
        ) from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise UsageError(f"{path} does not hold a JSON object")
    return value


def _is_foreign(folder: Path) -> bool:
    """Whether something is in the place of a stage's folder in a work directory that is not one yet."""
    if not folder.is_dir():
        return folder.exists()
    entries = list(folder.iterdir())
    own = (path.name.startswith(("current", "begun", "work.lock")) or _VERSION.fullmatch(path.name) for path in entries)
    return bool(entries) and not any(own)
