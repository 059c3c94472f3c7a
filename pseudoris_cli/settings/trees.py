"""Nested mappings of values, as YAML holds them, and the dotted names that settings are called by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values of a nested mapping."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def tree_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names as a nested mapping."""
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *sections, last = name.split(".")
        inner = tree
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[last] = value
    return tree


def merge(base: dict[str, Any], values: dict[str, Any], layers: dict[str, str], layer: str, prefix: str = "") -> None:
    """Lay the values of a layer over `base` in place. Naming another backend drops what lower layers set for the old one."""
    if values.get("backend", base.get("backend")) != base.get("backend") and base:
        for name, _ in list(leaves(base, prefix)):
            layers.pop(name, None)
        base.clear()
    for name, value in values.items():
        if isinstance(value, dict):
            if not isinstance(base.get(name), dict):
                base[name] = {}
            merge(base[name], value, layers, layer, f"{prefix}{name}.")
        else:
            base[name] = value
            layers[f"{prefix}{name}"] = layer
