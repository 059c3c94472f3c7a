"""Fetch a model of transformers from the Hugging Face hub, as a folder in that library's cache, and verify it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pseudoris_cli.errors import MissingDependency
from pseudoris_cli.storage import files
from pseudoris_cli.weights import model_folders
from pseudoris_cli.weights import registry as weights
from pseudoris_cli.weights.hub_files import hub_errors
from pseudoris_cli.weights.registry import Entry, HubFolder


def fetch(name: str, entry: Entry, wanted: HubFolder) -> Path:
    """The folder with the model's safetensors and what belongs to them; pickled weights and pictures stay where they are.

    EnvironmentStop for network and disk, MissingDependency where it does not exist, is gated, or changed since the first fetch.
    """
    from huggingface_hub import snapshot_download

    where = f"https://huggingface.co/{wanted.repo}"
    patterns = [f"*{ending}" for ending in model_folders.COUNTED]
    with hub_errors(where, f"copy the folder to {weights.weights_home() / wanted.repo.rpartition('/')[2]}"):
        folder = Path(snapshot_download(wanted.repo, revision=wanted.revision, allow_patterns=patterns))
    digest = model_folders.digest(folder)
    known = weights.expected_digest(entry)
    if known and known != digest:
        raise MissingDependency(
            f"{where} is another model than the one that was fetched first: its digest is {digest}, not {known}; if that is meant, "
            f"delete {weights.digest_record(entry)} and fetch {name} again"
        )
    files.replace_file(weights.digest_record(entry), f"{digest}  {entry.file}\n".encode())
    return folder


def verify(folder: Path, entry: Entry) -> tuple[Literal["ok", "wrong", "unrecorded"], str]:
    """Whether a folder is what was fetched first."""
    if not any(folder.glob("*.safetensors")):
        return "wrong", f"{folder} has no safetensors"
    digest, known = model_folders.digest(folder), weights.expected_digest(entry)
    if known is None:
        return "unrecorded", f"{folder}: digest {digest}, and none is recorded to compare with"
    return (
        ("ok", f"{folder}: digest {digest}")
        if digest == known
        else ("wrong", f"{folder}: digest {digest}, not {known}")
    )
