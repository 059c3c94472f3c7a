"""The work directory: its source, plans, and the versions of each stage."""

from __future__ import annotations

import hashlib
import json
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pseudoris_cli.errors import UsageError
from pseudoris_cli.storage import files
from pseudoris_cli.storage.locks import exclusive
from pseudoris_cli.storage.manifest import Manifest
from pseudoris_cli.storage.plan import Plan
from pseudoris_cli.storage.schema import READABLE
from pseudoris_cli.storage.stage_table import NAMES, upstream_of
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


class Workspace:
    """A work directory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def create(self) -> None:
        """Make the directory; EnvironmentStop if that is impossible."""
        with files.os_errors_as_stop(self.root):
            self.root.mkdir(parents=True, exist_ok=True)

    # --- source -----------------------------------------------------------------------------------------------------

    def source(self) -> dict[str, Any] | None:
        """What `source.json` says, or None in a fresh directory."""
        return _read_json(self.root / "source.json")

    def set_source(self, description: dict[str, Any]) -> None:
        """Remember the source. Call it while `changing`."""
        with files.os_errors_as_stop(self.root):
            files.replace_json(self.root / "source.json", description)

    def changing(self) -> AbstractContextManager[None]:
        """Hold the lock of the small files: source.json, artifact.json and current."""
        return exclusive(self.root / "work.lock", "settings", WAIT_SECONDS)

    def plan(self, name: str = "plan.jsonl") -> Plan:
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

    def current(self, stage: str) -> str | None:
        """The version last run."""
        try:
            return (self.root / stage / "current").read_text(encoding="utf-8").strip() or None
        except OSError:
            return None

    def latest(self, stage: str, version: str | None = None) -> Artifact:
        """The named version of a stage, else the one last run. UsageError says which command makes one."""
        version = version or self.current(stage)
        if version is None:
            raise UsageError(
                f"{self.root} holds no version of {stage} yet; run `pseudoris {stage_row(stage).command}` first (or name --work)"
            )
        return self.artifact(stage, version)

    def open_version(self, stage: str, content: dict[str, Any], record: dict[str, Any]) -> Artifact:
        """The version that `content` (all that changes results) stands for, made if needed, and marked as current.

        `record` is kept beside it but does not change the version: package versions, device, file names.
        """
        version = fingerprint(content)
        folder = self.root / stage / version
        with self.changing(), files.os_errors_as_stop(folder):
            if not (folder / "artifact.json").exists():
                folder.mkdir(parents=True, exist_ok=True)
                files.sync_folder(self.root)
                files.replace_json(folder / "artifact.json", {**content, **record, "stage": stage, "version": version})
            if self.current(stage) != version:
                files.replace_file(folder.parent / "current", f"{version}\n".encode())
        return self.artifact(stage, version)

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
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise UsageError(f"{path} does not hold a JSON object")
    return value
