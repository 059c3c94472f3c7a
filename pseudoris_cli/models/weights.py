"""Checkpoints: from what a user wrote to a file with a known digest, and safely from a file to tensors.

A checkpoint setting is a name in `third_party/weights.yaml`, the path of a file, or `random:SEED`. Resolving never imports torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pseudoris_cli.errors import MissingDependency, UsageError
from pseudoris_cli.resources import PACKAGE, resource

if TYPE_CHECKING:
    import torch

_RANDOM = re.compile(r"random:(\d+)")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint setting stands for: a file and its sha256, or a seed for random weights."""

    name: str
    path: Path | None
    seed: int | None
    digest: str


def cache_home() -> Path:
    """Where pseudoris keeps what it can make again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pseudoris"


def weights_home() -> Path:
    """Where fetched checkpoints lie: `$PSEUDORIS_WEIGHTS`, else a folder in the user's cache."""
    return Path(os.environ.get("PSEUDORIS_WEIGHTS") or cache_home() / "weights")


@lru_cache(maxsize=1)
def registry() -> dict[str, dict[str, Any]]:
    """The entries of `third_party/weights.yaml` by name."""
    return yaml.safe_load(resource("third_party/weights.yaml").read_text(encoding="utf-8"))["weights"]


def resolve(value: str) -> Checkpoint:
    """Find a checkpoint and its digest.

    Raises MissingDependency (exit 3) naming the file, where it was looked for and the command that fetches it;
    UsageError (exit 2) for `random:` without a number.
    """
    if value.startswith("random:"):
        seed = _RANDOM.fullmatch(value)
        if not seed:
            raise UsageError(f"{value!r}: write random:SEED with a whole number, e.g. random:0")
        return Checkpoint(value, None, int(seed[1]), value)
    entry = registry().get(value)
    if entry and "embedded" in entry:
        path = PACKAGE / entry["embedded"]
        return Checkpoint(value, path, None, file_digest(path))
    path = weights_home() / entry["file"] if entry else Path(value).expanduser()
    if path.is_file():
        return Checkpoint(value, path, None, file_digest(path))
    if entry:
        raise MissingDependency(
            f"checkpoint {value!r} is not on this machine: looked for {path}\n"
            f"fetch it with:  pseudoris weights fetch {value}\n"
            f"or, for a first look without it, use random weights:  --set <stage setting>=random:0"
        )
    raise MissingDependency(
        f"checkpoint {value!r} is neither a registered name nor a file (looked for {path.absolute()})\n"
        f"registered names:  {', '.join(sorted(registry()))}   (pseudoris weights list)"
    )


def file_digest(path: Path) -> str:
    """sha256 of a file, remembered by path, size and mtime so that a large checkpoint is read once."""
    stat = path.stat()
    key = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
    memo = cache_home() / "digests.json"
    try:
        known = json.loads(memo.read_text())
    except (OSError, ValueError):
        known = {}
    if not isinstance(known, dict) or not isinstance(known.get(key), str):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        known = {**known, key: digest} if isinstance(known, dict) else {key: digest}
        try:
            memo.parent.mkdir(parents=True, exist_ok=True)
            temporary = memo.with_name(f"digests.{os.getpid()}.tmp")
            temporary.write_text(json.dumps(known))
            temporary.replace(memo)
        except OSError:
            pass  # a read-only cache only costs reading the file again
    return known[key]


def load_tensors(path: Path) -> dict[str, Any]:
    """Read a checkpoint without running code from it: safetensors, or torch.load with weights_only and numpy's plain types.

    Returns whatever mapping the file holds (callers unwrap `model` or `state_dict`). Raises UsageError for anything else.
    """
    import numpy as np
    import torch

    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    from numpy._core import multiarray

    plain: list[Any] = [multiarray._reconstruct, multiarray.scalar, np.ndarray, np.dtype]
    plain += [type(np.dtype(kind)) for kind in "?bBhHiIlLqQefd"]
    with torch.serialization.safe_globals(plain):
        try:
            data = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise UsageError(f"{path} cannot be read as a plain checkpoint (tensors and containers only): {error}") from error
    if not isinstance(data, dict):
        raise UsageError(f"{path} holds a {type(data).__name__}, not a mapping of names to tensors")
    return data


def torch_generator(seed: int) -> torch.Generator:
    """A CPU generator, so that random weights do not depend on the device."""
    import torch

    return torch.Generator().manual_seed(seed)
