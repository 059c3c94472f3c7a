"""The weights that made an artifact and their licences, as a dataset card lists them. Loads no weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from pseudoris_cli.weights import registry as weights

UNKNOWN = "not known to pseudoris"
RANDOM = "random weights: what they made means nothing"
_WORDS = re.compile(r"[0-9a-f]{16}")
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
            settings = header["settings"] if part == stage == "captions" else header["settings"][part]
            section = {"scores": "filter", "judge": "filter"}.get(stage, stage)
            row = {
                "setting": part if part == section else f"{section}.{part}",
                "network": " ".join(filter(None, (settings["backend"], settings.get("model")))),
                "digest": identity["digest"],
            }
            name = _chosen(header, section, part) or model_name(header, part) or identity["name"]
            rows.append(row | _weights_and_licence(name, identity))
    return rows


def model_name(header: Mapping[str, Any], part: str) -> str | None:
    """The name of a model that was asked in words: as its server lists it, or as the settings name it; None of other networks.

    Such a backend's digest is that of the model, or its name at a server, and that of the words.
    """
    identity = header.get("checkpoints", {}).get(part) or {}
    model, _, words = identity.get("digest", "").rpartition(" ")
    if part not in ("captions", "judge") or not model or not _WORDS.fullmatch(words):
        return None
    resolved = header["resolved"]["filter"]["judge"] if part == "judge" else header["resolved"][part]
    return str(resolved.get("model") or model)


def same_model(headers: Mapping[str, Mapping[str, Any]]) -> str | None:
    """A warning where captioner and listener are one model, by name or by bytes; None where they are not, or cannot be told."""
    if "captions" not in headers or "judge" not in headers:
        return None
    known: list[set[str]] = []
    for part in ("captions", "judge"):
        name = model_name(headers[part], part)
        if name is None:
            return None
        digest = headers[part]["checkpoints"][part]["digest"].rpartition(" ")[0]
        known.append({PurePath(name).name.lower(), PurePath(digest).name.lower()})
    shared = sorted(known[0] & known[1])
    if not shared:
        return None
    return (
        f"captioner and listener are the same model ({shared[0]}): it tends to agree with itself, so its word as a listener proves "
        "less than another model's would"
    )


def _chosen(header: Mapping[str, Any], section: str, part: str) -> str | None:
    """The name of a spaCy pipeline or of a model of transformers, which their identities do not contain; None of other networks."""
    if part == "nouns":
        return header["resolved"][section][part].get("pipeline")
    if header["checkpoints"][part]["name"] in ("sam_hf", "sam3_concepts"):
        return header["resolved"][section][part].get("checkpoint")
    return None


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
    return {"weights": PurePath(name).name, "licence": entry.licence, "remark": DEMO if entry.embedded else entry.rule}
