"""Settings as text: files and assignments in a YAML that holds nothing but values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from pseudoris_cli.errors import UsageError
from pseudoris_cli.settings.trees import tree_of

DEEPEST = 20


def read_settings_file(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping. UsageError (exit 2) if it cannot be read, or is anything else."""
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


def read_assignment(text: str) -> dict[str, Any]:
    """`section.name=value` as a nested mapping. UsageError (exit 2) for anything else."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise UsageError(f"--set {text}: write --set section.name=value, e.g. --set captions.contrast=0.5")
    try:
        return tree_of({name.strip(): _plain_yaml(value)})
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
