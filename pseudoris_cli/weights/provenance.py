"""The weights that made an artifact and their licences, as a dataset card lists them. Loads no weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from pseudoris_cli.weights import registry as weights

UNKNOWN = "not known to pseudoris"
RANDOM = "random weights: what they made means nothing"
DEMO = "trained for the demo, on rendered scenes only"


def weights_provenance(headers: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """One row for each network of the stages (`headers`: their artifact.json): setting, network, weights, licence, remark.

    Local paths are cut to their file name, because cards are published.
    """
    rows = []
    for stage, header in headers.items():
        for part, identity in header.get("checkpoints", {}).items():
            if not identity:
                continue
            settings = header["settings"] if part == stage else header["settings"][part]
            section = {"scores": "filter"}.get(stage, stage)
            row = {
                "setting": part if part == stage else f"{section}.{part}",
                "network": " ".join(filter(None, (settings["backend"], settings.get("model")))),
                "digest": identity["digest"],
            }
            rows.append(row | _weights_and_licence(_chosen(header, section, part) or identity["name"], identity))
    return rows


def _chosen(header: Mapping[str, Any], section: str, part: str) -> str | None:
    """The name of the spaCy pipeline, which the identity of `nouns` does not contain; None for other networks."""
    return header["resolved"][section][part].get("pipeline") if part == "nouns" else None


def _weights_and_licence(name: str, identity: Mapping[str, str]) -> dict[str, str]:
    if name.startswith("random:"):
        return {"weights": name, "licence": "none", "remark": RANDOM}
    if name == "coco_masks":
        return {"weights": "masks of your own", "licence": "your own", "remark": ""}
    if identity["name"] == "nouns" and name in ("blank", "demo"):
        known = {"blank": ("none", "no parser: the noun is the caption"), "demo": ("MIT", DEMO)}[name]
        return {"weights": name, "licence": known[0], "remark": known[1]}
    entries = weights.registry()
    entry = next((e for e in entries.values() if e.sha256 == identity["digest"]), None) or entries.get(name)
    if entry is None:
        return {"weights": PurePath(name).name, "licence": UNKNOWN, "remark": ""}
    return {"weights": PurePath(name).name, "licence": entry.licence, "remark": DEMO if entry.embedded else ""}
