"""What the commands of a work directory were last given: `settings.yaml`, and for older directories the versions themselves.

Each command has its own entry, so that a flag of one never makes another version of a stage before it. Pilots have a file of
their own (`settings-pilot-8.yaml`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from pseudoris_cli.errors import UsageError
from pseudoris_cli.settings.models import Settings
from pseudoris_cli.settings.plain_yaml import read_settings_file
from pseudoris_cli.settings.resolve import PROFILES, Base, deviations, known_settings
from pseudoris_cli.storage import files
from pseudoris_cli.storage.plan import PLAN, pilot_of
from pseudoris_cli.storage.stage_table import NAMES, commands, stages_of
from pseudoris_cli.storage.workspace import Artifact, Workspace

_HEADER = """\
# What each command of this work directory was last made with. Later commands start from it, those without an entry from the
# one before them. Flags, --set and --config change it for their command; --new-settings starts from the profile again.
"""


def recall(workspace: Workspace, command: str, plan: str = PLAN) -> Base | None:
    """What a command starts from: its own entry, else that of the nearest command before it; None in a fresh directory.

    A pilot without any starts from the settings of the whole source, and the other way round; those do not bind.
    """
    if base := _recall(workspace, command, plan):
        return base
    others = [PLAN] if plan != PLAN else workspace.pilots()[-1:]
    for other in others:
        if base := _recall(workspace, command, other):
            return replace(base, binding=False)
    return None


def _recall(workspace: Workspace, command: str, plan: str) -> Base | None:
    entries = _entries(workspace, plan)
    chain = list(commands())
    others = tuple(name for name in chain if name != command)
    at = chain.index(command)
    for name in (*reversed(chain[: at + 1]), *chain[at + 1 :]):
        if name in entries:
            entry = entries[name]
            return Base(str(path_of(workspace, plan)), entry["profile"], entry["settings"], others=others)
        if (made := _latest_of(workspace, name, plan)) and (base := of_version(made)):
            return replace(base, others=others)
    return None


def remember(workspace: Workspace, command: str, plan: str, profile: str | None, settings: Settings) -> None:
    """Note what a command was made with."""
    profile = profile or _nearest_profile(settings.model_dump(mode="json"))
    _write(workspace, command, plan, Base("", profile, deviations(profile, settings.model_dump(mode="json"))))


def remember_versions(workspace: Workspace, chosen: Mapping[str, Artifact]) -> None:
    """Let later commands start from the settings of versions, given by stage."""
    for command in commands():
        for stage in stages_of(command):
            if (made := chosen.get(stage.name)) and (base := of_version(made)):
                _write(workspace, command, made.plan_name, base)


def of_version(artifact: Artifact) -> Base | None:
    """The settings that a version records, from the profile that is nearest to them; settings that are no more are left out."""
    recorded = artifact.header.get("resolved")
    if not isinstance(recorded, Mapping):
        return None
    values = known_settings(recorded)
    profile = _nearest_profile(values)
    return Base(f"{artifact.stage} {artifact.version}", profile, deviations(profile, values))


def path_of(workspace: Workspace, plan: str = PLAN) -> Path:
    """The file of the settings."""
    pilot = pilot_of(plan)
    return workspace.root / (f"settings-{pilot}.yaml" if pilot else "settings.yaml")


def _latest_of(workspace: Workspace, command: str, plan: str) -> Artifact | None:
    """The version that the command's last stage has now, or has begun."""
    for stage in reversed([name for name in NAMES if name in {row.name for row in stages_of(command)}]):
        try:
            return workspace.latest(stage, plan=plan)
        except UsageError:
            continue
    return None


def _nearest_profile(values: Mapping[str, Any]) -> str:
    return min(PROFILES, key=lambda name: len(deviations(name, values)))


def _entries(workspace: Workspace, plan: str) -> dict[str, Any]:
    path = path_of(workspace, plan)
    if not path.exists():
        return {}
    entries = read_settings_file(path)
    for name, entry in entries.items():
        sound = isinstance(entry, dict) and entry.get("profile") in PROFILES and isinstance(entry.get("settings"), dict)
        if name not in commands() or not sound:
            raise UsageError(
                f"{path}: the entry {name!r} is none of a command with a profile and settings; mend it, or delete the file: "
                "settings are then taken from the versions"
            )
    return entries


def _write(workspace: Workspace, command: str, plan: str, base: Base) -> None:
    with workspace.changing(), files.os_errors_as_stop(workspace.root):
        entries = _entries(workspace, plan)
        entry = {"profile": base.profile, "settings": dict(base.values)}
        if entries.get(command) == entry:
            return
        entries[command] = entry
        ordered = {name: entries[name] for name in commands() if name in entries}
        text = yaml.safe_dump(ordered, sort_keys=False, allow_unicode=True, width=1000)
        files.replace_file(path_of(workspace, plan), (_HEADER + text).encode("utf-8", "backslashreplace"))
