"""From flags, --set, a YAML file and a profile to one checked `Settings`, remembering where each value came from.

Later layers win: defaults, profile, what the work directory remembers, file, --set, flags. `./pseudoris.yaml` is a file that
nobody named: it is left aside where a profile is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from pseudoris_cli.errors import UsageError
from pseudoris_cli.settings.checking import checked
from pseudoris_cli.settings.models import Settings, backend_sections, backend_settings
from pseudoris_cli.settings.plain_yaml import read_assignment, read_settings_file
from pseudoris_cli.settings.resources import resource
from pseudoris_cli.settings.trees import leaves, merge, tree_of
from pseudoris_cli.text import nearest

DEFAULT_PROFILE = "paper"
PROFILES = (DEFAULT_PROFILE, "reference", "fast", "demo", "random", "modern", "open")
LOCAL_FILE = Path("pseudoris.yaml")


@dataclass(frozen=True)
class Resolved:
    """Settings, and for each dotted name the layer that its value came from."""

    settings: Settings
    layers: dict[str, str]
    profile: str
    remembered: tuple[str, ...] = ()
    """What the work directory's own settings decide, as `name=value`, and"""
    remembered_in: str = ""
    """where they are recorded."""
    notes: tuple[str, ...] = ()
    """What the user should be told of files that nobody named, a line each."""

    def rows(self) -> Iterator[tuple[str, Any, str]]:
        """(dotted name, value, layer) of every setting, in the order of the models."""
        for name, value in leaves(self.settings.model_dump(mode="json")):
            yield name, value, self.layers.get(name, "default")


@dataclass(frozen=True)
class Base:
    """What a command starts from in a work directory that was begun before."""

    name: str
    """Where it is recorded."""
    profile: str
    values: Mapping[str, Any]
    """What was set beside the profile, by dotted name."""
    binding: bool = True
    """Whether another profile is a conflict."""
    others: tuple[str, ...] = ()
    """The sections that are other commands' business."""


def resolve(
    profile: str | None = None,
    file: Path | None = None,
    assignments: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
    base: Base | None = None,
) -> Resolved:
    """Merge all layers and check them. UsageError names what is unknown or has a bad value, and the layer that set it.

    UsageError too if `profile` is another than that of a binding `base`.
    """
    if profile is not None and profile not in PROFILES:
        raise UsageError(
            f"there is no profile {profile!r}; choose from {', '.join(PROFILES)}{nearest(profile, PROFILES)}"
        )
    if base and profile is not None and profile != base.profile:
        if base.binding:
            raise UsageError(
                f"this work directory was made with the profile {base.profile} ({base.name}), not {profile}: the two would be "
                f"mixed. Leave --profile out, use another --work, or start from {profile} here with --new-settings"
            )
        base = None
    notes: list[str] = []
    chosen = profile or (base.profile if base else DEFAULT_PROFILE)
    given: list[tuple[str, dict[str, Any]]] = [
        (f"profile {chosen}", read_settings_file(resource(f"configs/{chosen}.yaml")))
    ]
    if base:
        given.append((base.name, tree_of(base.values)))
    if file is None and LOCAL_FILE.is_file():
        file = LOCAL_FILE if profile is None else None
        notes.append(
            f"settings of ./{LOCAL_FILE} are used (--profile or --config leave it aside)"
            if file
            else f"./{LOCAL_FILE} is not used, as --profile {profile} is given (--config {LOCAL_FILE} adds it)"
        )
    if file is not None:
        values, left_out = read_settings_file(file), list[str]()
        if base:
            values, left_out = _without_foreign(values, base, given[0][1])
        given.append((str(file), values))
        if left_out:
            notes.append(f"not used of {file}, as this work directory has other backends: {', '.join(left_out)}")
    given += [(f"--set {text}", read_assignment(text)) for text in assignments]
    given += [("flag", tree_of({name: value})) for name, value in (flags or {}).items()]
    merged: dict[str, Any] = {}
    layers: dict[str, str] = {}
    for layer, values in given:
        merge(merged, values, layers, layer)
    settings = checked(merged, layers)
    remembered = _remembered(base, profile, layers) if base else ()
    return Resolved(settings, layers, chosen, remembered, base.name if base else "", tuple(notes))


def _without_foreign(values: dict[str, Any], base: Base, profile: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The values of a file, less those that only the profile's backend of a section has where the directory uses another.

    They do no harm in a directory that is begun with this file and another backend (`--set`), so they must do none later. Also
    their dotted names. What neither backend has is left in, to be refused.
    """
    kept, left_out = deepcopy(values), []
    usual = checked(deepcopy(profile), {})
    for path, role in backend_sections(Settings):
        here = base.values.get(".".join((*path, "backend")))
        given: Any = kept
        section: Any = usual
        for name in path:
            given = given.get(name) if isinstance(given, dict) else None
            section = getattr(section, name)
        if here is None or not isinstance(given, dict) or "backend" in given:
            continue
        known = backend_settings(str(here), role).model_fields
        foreign = [name for name in given if name not in known and name in type(section).model_fields]
        left_out += [".".join((*path, name)) for name in foreign]
        for name in foreign:
            del given[name]
    return kept, left_out


def _remembered(base: Base, profile: str | None, layers: Mapping[str, str]) -> tuple[str, ...]:
    parts = [f"profile {base.profile}"] if profile is None and base.profile != DEFAULT_PROFILE else []
    return *parts, *(
        f"{name}={_inline(value)}"
        for name, value in base.values.items()
        if layers.get(name) == base.name and name.partition(".")[0] not in base.others
    )


def _inline(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()


def deviations(profile: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, by dotted name, in which a tree of values differs from a profile; a backend comes with all of its own."""
    tree = read_settings_file(resource(f"configs/{profile}.yaml"))
    own = dict(leaves(checked(tree, {}).model_dump(mode="json")))
    given = dict(leaves(values))
    anew = tuple(
        name.removesuffix("backend") for name in given if name.endswith(".backend") and own.get(name) != given[name]
    )
    return {n: v for n, v in given.items() if n not in own or own[n] != v or (anew and n.startswith(anew))}


def known_settings(values: Mapping[str, Any], model: type[BaseModel] = Settings) -> dict[str, Any]:
    """A tree of values, as an older release may have recorded them, without the settings that there are no more."""
    backends = {path[0]: role for path, role in backend_sections(model) if len(path) == 1}
    known: dict[str, Any] = {}
    for name, value in values.items():
        info = model.model_fields.get(name)
        if info is None:
            continue
        section = info.annotation
        if name in backends and isinstance(value, Mapping):
            section = backend_settings(str(value.get("backend", "")), backends[name])
        if isinstance(value, Mapping) and isinstance(section, type) and issubclass(section, BaseModel):
            value = known_settings(value, section)
        known[name] = value
    return known
