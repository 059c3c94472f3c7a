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
from pydantic import BaseModel, ValidationError

from pseudoris_cli.errors import UsageError
from pseudoris_cli.settings.models import Settings, backend_sections, backend_settings
from pseudoris_cli.settings.resources import resource
from pseudoris_cli.text import nearest

DEFAULT_PROFILE = "paper"
PROFILES = (DEFAULT_PROFILE, "reference", "fast", "demo", "random", "modern", "open")
LOCAL_FILE = Path("pseudoris.yaml")
DEEPEST = 20


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
    given: list[tuple[str, dict[str, Any]]] = [(f"profile {chosen}", _read(resource(f"configs/{chosen}.yaml")))]
    if base:
        given.append((base.name, _tree(base.values)))
    if file is None and LOCAL_FILE.is_file():
        file = LOCAL_FILE if profile is None else None
        notes.append(
            f"settings of ./{LOCAL_FILE} are used (--profile or --config leave it aside)"
            if file
            else f"./{LOCAL_FILE} is not used, as --profile {profile} is given (--config {LOCAL_FILE} adds it)"
        )
    if file is not None:
        values, left_out = _without_foreign(_read(file), base, given[0][1]) if base else (_read(file), [])
        given.append((str(file), values))
        if left_out:
            notes.append(f"not used of {file}, as this work directory has other backends: {', '.join(left_out)}")
    given += [(f"--set {text}", _assignment(text)) for text in assignments]
    given += [("flag", _nested(name, value)) for name, value in (flags or {}).items()]
    merged: dict[str, Any] = {}
    layers: dict[str, str] = {}
    for layer, values in given:
        _merge(merged, values, layers, layer)
    settings = _validate(merged, layers)
    remembered = _remembered(base, profile, layers) if base else ()
    return Resolved(settings, layers, chosen, remembered, base.name if base else "", tuple(notes))


def _without_foreign(values: dict[str, Any], base: Base, profile: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The values of a file, less those that only the profile's backend of a section has where the directory uses another.

    They do no harm in a directory that is begun with this file and another backend (`--set`), so they must do none later. Also
    their dotted names. What neither backend has is left in, to be refused.
    """
    kept, left_out = deepcopy(values), []
    usual = _validate(deepcopy(profile), {})
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
    tree = _read(resource(f"configs/{profile}.yaml"))
    own = dict(leaves(_validate(tree, {}).model_dump(mode="json")))
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


def _tree(values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names as a nested mapping."""
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *sections, last = name.split(".")
        inner = tree
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[last] = value
    return tree


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values of a nested mapping."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def read_settings_file(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping. UsageError (exit 2) if it cannot be read, or is anything else."""
    return _read(path)


def _read(path: Path) -> dict[str, Any]:
    try:
        data = _plain_yaml(_text(path.read_bytes()))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            f"cannot read the settings file {path}: {reason}; `pseudoris config show` writes one"
        ) from error
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(f"{path} is not plain YAML: {error}") from error
    if data is None:
        return {}
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise UsageError(f"{path} must hold a mapping of setting names to values")
    return data


def _text(data: bytes) -> str:
    """UTF-8 or, as PowerShell redirects it, UTF-16 with its mark."""
    return data.decode("utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")


def _assignment(text: str) -> dict[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise UsageError(f"--set {text}: write --set section.name=value, e.g. --set captions.contrast=0.5")
    try:
        return _nested(name.strip(), _plain_yaml(value))
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(f"--set {text}: {value!r} is not a plain YAML value") from error


def _plain_yaml(text: str) -> Any:
    """A YAML value without tags, repeated keys, aliases (nine lines of them make a thousand million values) and great depth.

    YAMLError or ValueError for anything else.
    """
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"it refers to another place of itself (*{event.anchor}); write the value out")
        if depth > DEEPEST:
            raise ValueError(f"it has more than {DEEPEST} levels")
    return yaml.load(text, _EachKeyOnce)  # a SafeLoader


class _EachKeyOnce(yaml.SafeLoader):
    """YAML forbids a key that comes twice; the library would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for number, key in enumerate(keys):
            if key in keys[:number]:
                raise ValueError(f"it has {key!r} twice (line {node.value[number][0].start_mark.line + 1})")
        return super().construct_mapping(node, deep)


def _nested(name: str, value: Any) -> dict[str, Any]:
    for part in reversed(name.split(".")):
        value = {part: value}
    return value


def _merge(base: dict[str, Any], values: dict[str, Any], layers: dict[str, str], layer: str, prefix: str = "") -> None:
    """Lay the values of a layer over `base` in place. Naming another backend drops what lower layers set for the old one."""
    if values.get("backend", base.get("backend")) != base.get("backend") and base:
        for name, _ in list(leaves(base, prefix)):
            layers.pop(name, None)
        base.clear()
    for name, value in values.items():
        if isinstance(value, dict):
            if not isinstance(base.get(name), dict):
                base[name] = {}
            _merge(base[name], value, layers, layer, f"{prefix}{name}.")
        else:
            base[name] = value
            layers[f"{prefix}{name}"] = layer


def _validate(merged: dict[str, Any], layers: dict[str, str]) -> Settings:
    problems = list(_backend_problems(merged, layers))
    if not problems:
        try:
            return Settings.model_validate(merged)
        except ValidationError as error:
            problems = [_explain(error, (), Settings, layers)]
    raise UsageError(
        "\n".join(problems) + "\n`pseudoris config show` lists every setting and where its value comes from"
    )


def _backend_problems(merged: dict[str, Any], layers: dict[str, str]) -> Iterator[str]:
    """Check each backend's section with that backend's own model, so that errors name the setting."""
    defaults = Settings()
    for path, role in backend_sections(Settings):
        section: Any = merged
        default: Any = defaults
        for name in path:
            section = section.get(name, {}) if isinstance(section, dict) else {}
            default = getattr(default, name)
        if not isinstance(section, dict) or not section:
            continue
        backend = section.setdefault("backend", default.backend)
        setting = f"{'.'.join(path)}.backend"
        try:
            model = backend_settings(str(backend), role)
        except UsageError as error:
            yield f"{setting}: {error}{_said_in(setting, layers)}"
            continue
        try:
            model.model_validate(section)
        except ValidationError as error:
            yield _explain(error, path, model, layers)


MAY_HOLD_A_KEY = ("endpoint", "api_key_env")
"""Settings into which somebody may write a key by mistake: a wrong value of them is not repeated."""


def _explain(error: ValidationError, path: tuple[str, ...], model: type[BaseModel], layers: dict[str, str]) -> str:
    lines = []
    for problem in error.errors():
        location = ".".join(str(part) for part in (*path, *problem["loc"]))
        said = _said_in(location, layers)
        if problem["type"] == "extra_forbidden":
            elsewhere = location in _names()  # with the usual backend
            why = "the backend that is chosen there has" if elsewhere else "there is"
            lines.append(f"{location}: {why} no such setting{'' if elsewhere else nearest(location, _names())}{said}")
        elif "dict" in problem["type"] or problem["type"] == "model_type":
            inside = [name for name in _names() if name.startswith(f"{location}.")]
            example = f", e.g. {inside[-1]}" if inside else ""
            lines.append(f"{location} is a section, not {problem['input']!r}: set what is in it{example}{said}")
        elif location.rpartition(".")[2] in MAY_HOLD_A_KEY:
            lines.append(f"{location}: {problem['msg']}")
        else:
            lines.append(f"{location}: {problem['msg']}, not {problem['input']!r}{said}")
    return "\n".join(lines)


def _said_in(setting: str, layers: dict[str, str]) -> str:
    """Which layer gave a setting its value, as the end of a message."""
    return f" (from {layers[setting]})" if setting in layers else ""


def _names() -> list[str]:
    return [name for name, _ in leaves(Settings().model_dump(mode="json"))]
