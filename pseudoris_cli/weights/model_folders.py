"""Models of transformers as folders: where one lies, what identifies it, and whether it is safe to open. Imports no torch.

A model setting is a name of `third_party/weights.yaml` that stands for a repository, the path of a folder, or the name of a
repository in the cache of the Hugging Face hub. Nothing is downloaded here.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pseudoris_cli.errors import MissingDependency, UsageError
from pseudoris_cli.settings.resources import expanded
from pseudoris_cli.weights import registry as weights

_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "sentencepiece.bpe.model", "vocab.txt")

COUNTED = (".safetensors", ".json", ".jinja", ".model", ".txt")
"""Endings of the files that make a model; others (pictures, a README, pickled weights) are neither read nor counted."""


def locate(model: str, setting: str) -> Path:
    """The folder of a model. MissingDependency (exit 3) where it is not here, with the command that gets it."""
    entry = weights.registry().get(model)
    if entry and entry.hub_folder:
        return _registered(model, entry)
    if not model.strip():
        raise UsageError(f"{setting} is empty; give a registered name, a folder or the name of a model on the hub")
    path = expanded(model, setting)
    if (path / "config.json").is_file():
        return path
    if path.is_dir():
        raise UsageError(
            f"{setting}={model}: there is no config.json in this folder; give a model as transformers saves it"
        )
    cached = _cached(model, None)
    if cached:
        return cached
    raise MissingDependency(
        f"the model {model!r} is not here: neither a folder with config.json nor in the Hugging Face cache\n"
        f"get it with:  hf download {model}"
    )


def tokenizer_folder(name: str, setting: str) -> Path:
    """The folder of a tokenizer by path, or by the name of its repository in the Hugging Face cache."""
    path = expanded(name, setting)
    if any((path / file).is_file() for file in _TOKENIZERS):
        return path
    for file in _TOKENIZERS:
        if found := weights.in_hub_cache(weights.HubFile(repo=name, file=file)):
            return found.parent
    raise MissingDependency(
        f"the tokenizer {name!r} is not here: neither a folder with {_TOKENIZERS[0]} nor in the Hugging Face cache\n"
        f"get it with:  hf download {name} --include 'token*' 'special*' '*.model' config.json   "
        f"or name a folder: --set {setting}=FOLDER"
    )


def digest(folder: Path) -> str:
    """sha256 over the names and digests of every file that makes the model."""
    found = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.suffix in COUNTED):
        found.update(f"{path.name} {weights.file_digest(path)}\n".encode())
    return found.hexdigest()


def model_type(folder: Path, setting: str) -> str:
    """What the configuration says the model is. UsageError (exit 2) if there are no safetensors beside it."""
    try:
        config: Any = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind = config["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{setting}: {folder / 'config.json'} is no configuration of transformers") from error
    if not any(folder.glob("*.safetensors")):
        raise UsageError(
            f"{setting}: {folder} has no weights as safetensors, and pickled weights are not opened; save the model again with "
            "save_pretrained"
        )
    return str(kind)


def _registered(name: str, entry: weights.Entry) -> Path:
    path = weights.path_of_entry(entry)
    if (path / "config.json").is_file():
        return path
    assert entry.hub_folder
    raise MissingDependency(
        f"the model {name!r} ({entry.hub_folder.repo}{_size(entry)}) is not on this machine\n"
        f"fetch it with:  pseudoris weights fetch {name}"
    )


def _size(entry: weights.Entry) -> str:
    return f", {entry.size / 1e9:.1f} GB" if entry.size else ""


def _cached(repo: str, revision: str | None) -> Path | None:
    found = weights.in_hub_cache(weights.HubFile(repo=repo, file="config.json", revision=revision))
    return found.parent if found else None
