"""Resolve a checkpoint setting to a file with a known digest, without importing torch.

A checkpoint setting is a name in `third_party/weights.yaml`, the path of a file, an open_clip tag, or `random:SEED`.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict

from pseudoris_cli.errors import MissingDependency, UsageError
from pseudoris_cli.settings.resources import PACKAGE, expanded, resource

_RANDOM = re.compile(r"random:(\d+)")
_TAG = re.compile(r"[A-Za-z0-9_-]+")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SETTLED_SECONDS = 2.0  # a file touched more recently may change again under the same size and mtime


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint setting stands for: a file and its sha256, or a seed for random weights."""

    name: str
    path: Path | None
    seed: int | None
    digest: str


class HubFile(BaseModel):
    """A file on the Hugging Face hub; `revision` is a full commit, or null for the newest."""

    model_config = ConfigDict(frozen=True)

    repo: str
    file: str
    revision: str | None = None


class HubFolder(BaseModel):
    """A model of transformers on the Hugging Face hub: its safetensors and what belongs to them."""

    model_config = ConfigDict(frozen=True)

    repo: str
    revision: str | None = None


Commercial = Literal["yes", "no", "terms", "unknown"]
"""Whether the licence allows commercial use; `terms`: within conditions that go beyond naming the authors."""


class Entry(BaseModel):
    """A checkpoint in `third_party/weights.yaml`, whose head explains the fields."""

    model_config = ConfigDict(frozen=True)

    purpose: str = ""
    file: str = ""
    url: str | None = None
    hub: HubFile | None = None
    hub_folder: HubFolder | None = None
    open_clip: tuple[str, str] | None = None
    pipeline: str | None = None
    size: int | None = None
    sha256: str | None = None
    digest_source: str = ""
    licence: str = ""
    commercial: Commercial = "unknown"
    rule: str = ""
    note: str = ""
    embedded: str | None = None


def cache_home() -> Path:
    """The folder for caches, whose files can be deleted at any time.

    Without a home it is a folder of the user's own in the one for temporary files.
    """
    if chosen := os.environ.get("XDG_CACHE_HOME"):
        return Path(chosen).absolute() / "pseudoris"
    try:
        return Path.home().absolute() / ".cache" / "pseudoris"
    except RuntimeError:
        return Path(tempfile.gettempdir()) / f"pseudoris-{os.getuid()}" / ".cache" / "pseudoris"


def weights_home() -> Path:
    """The folder of fetched checkpoints: `$PSEUDORIS_WEIGHTS`, else a folder in the user's cache."""
    chosen = os.environ.get("PSEUDORIS_WEIGHTS")
    return expanded(chosen, "PSEUDORIS_WEIGHTS").absolute() if chosen else cache_home() / "weights"


@lru_cache(maxsize=1)
def registry() -> dict[str, Entry]:
    """The entries of `third_party/weights.yaml` by name."""
    entries = yaml.safe_load(resource("third_party/weights.yaml").read_text(encoding="utf-8"))["weights"]
    return {name: Entry.model_validate(entry) for name, entry in entries.items()}


def path_of_entry(entry: Entry) -> Path:
    """The path of a registered checkpoint, whether or not it exists: in the package, `weights_home()`, or the hub's cache."""
    if entry.embedded:
        return PACKAGE / entry.embedded
    if entry.pipeline:
        return weights_home() / Path(entry.file).stem / entry.pipeline
    if entry.hub_folder:
        own = weights_home() / entry.hub_folder.repo.rpartition("/")[2]
        wanted = HubFile(repo=entry.hub_folder.repo, file="config.json", revision=entry.hub_folder.revision)
        cached = None if own.is_dir() else in_hub_cache(wanted)
        return cached.parent if cached else own
    path = weights_home() / entry.file
    if entry.hub and not path.is_file():
        return in_hub_cache(entry.hub) or path
    return path


def expected_digest(entry: Entry) -> str | None:
    """The expected sha256 of a registered file: the published one, else that of the first fetch, else None."""
    if entry.sha256:
        return entry.sha256
    try:
        recorded = digest_record(entry).read_text(encoding="ascii", errors="replace").split()[:1]
    except OSError:
        return None
    return recorded[0] if recorded and _DIGEST.fullmatch(recorded[0]) else None


def digest_record(entry: Entry) -> Path:
    """The file that keeps the digest of a first fetch, in the format of sha256sum."""
    return weights_home() / f"{entry.file}.sha256"


def pipeline_folder(name: str) -> Path | None:
    """The folder of a spaCy pipeline that `weights fetch` has unpacked, or None."""
    entry = registry().get(name)
    if entry is None or not entry.pipeline:
        return None
    folder = path_of_entry(entry)
    return folder if (folder / "meta.json").is_file() else None


@dataclass(frozen=True, slots=True)
class Found:
    """Where a checkpoint setting leads: a file or a seed, and the name of its registry entry, if it has one."""

    path: Path | None
    seed: int | None = None
    entry: str | None = None


def find(value: str, model: str = "") -> Found:
    """Find a checkpoint without reading it. With `model`, an open_clip model name, `value` may also be one of its tags.

    Raises MissingDependency (exit 3) naming the file, where it was looked for and the command that fetches it;
    UsageError (exit 2) for `random:` without a number and for what cannot be a checkpoint.
    """
    if value.startswith("random:"):
        seed = _RANDOM.fullmatch(value)
        if not seed:
            raise UsageError(f"{value!r}: write random:SEED with a whole number, e.g. random:0")
        return Found(None, seed=int(seed[1]))
    name = value if value in registry() else _registered_tag(model, value)
    if name:
        return Found(_registered_file(value, name), entry=name)
    path = _existing_file(value) or _tagged_file(model, value)
    if path:
        return Found(path)
    raise MissingDependency(
        f"checkpoint {value!r} is neither a registered name nor a file (looked for {Path(value).absolute()})\n"
        f"registered names:  {', '.join(sorted(registry()))}   (pseudoris weights list)"
    )


def resolve(value: str, model: str = "") -> Checkpoint:
    """Find a checkpoint and its digest.

    Raises what `find` raises, and UsageError for a registered file that is not the published one.
    """
    found = find(value, model)
    if found.path is None:
        return Checkpoint(value, None, found.seed, value)
    try:
        digest = file_digest(found.path)
    except OSError as error:
        raise MissingDependency(
            f"checkpoint {found.path} cannot be read: {error.strerror}; check its permissions"
        ) from error
    wanted = expected_digest(registry()[found.entry]) if found.entry else None
    if wanted and digest != wanted:
        raise UsageError(
            f"{found.path} is not the file that {value!r} stands for: its sha256 is {digest}, not {wanted}\n"
            f"fetch it again with:  pseudoris weights fetch {found.entry}\n"
            f"or, to use this file as it is, give its path instead of {value!r}"
        )
    return Checkpoint(value, found.path, None, digest)


def _registered_file(value: str, name: str) -> Path:
    entry = registry()[name]
    if entry.pipeline:
        raise UsageError(f"{value!r} is a spaCy pipeline, not a checkpoint; it belongs in filter.nouns.pipeline")
    if entry.hub_folder:
        raise UsageError(f"{value!r} is a model of transformers; see docs/models.md for the backend that takes it")
    path = path_of_entry(entry)
    if _is_file(path):
        return path
    if entry.embedded:
        raise MissingDependency(f"{path} is missing from this installation of pseudoris; install it again")
    raise MissingDependency(
        f"checkpoint {value!r} is not on this machine: looked for {weights_home() / entry.file}"
        + (f" and for {entry.hub.repo} in the cache of the Hugging Face hub" if entry.hub else "")
        + f"\nfetch it with:  pseudoris weights fetch {name}"
    )


def _existing_file(value: str) -> Path | None:
    """The absolute path of a file that a user named, or None. Raises UsageError for a folder or nothing at all."""
    if not value.strip():
        raise UsageError("a checkpoint setting is empty; give a registered name, a path or random:SEED")
    path = expanded(value, "checkpoint").absolute()
    if _is_file(path):
        return path
    if path.is_dir():
        raise UsageError(f"checkpoint {value!r} is a folder; give the file in it")
    return None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:
        raise MissingDependency(f"checkpoint {path} cannot be looked at: {error.strerror}") from error


def _registered_tag(model: str, tag: str) -> str | None:
    key = (model, _clean(tag))
    return next((name for name, entry in registry().items() if entry.open_clip == key), None)


def _clean(tag: str) -> str:
    """open_clip's own spelling of a tag."""
    return tag.lower().replace("-", "_")


def _tagged_file(model: str, tag: str) -> Path | None:
    """The cached file of a tag that only open_clip knows; None where it knows none. Importing it imports torch."""
    if not model or not _TAG.fullmatch(tag):
        return None
    from open_clip.pretrained import get_pretrained_cfg

    repo, _, file = get_pretrained_cfg(model, tag).get("hf_hub", "").rpartition("/")
    if not repo:
        return None
    files = [file] if file else ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
    for candidate in files:
        path = in_hub_cache(HubFile(repo=repo, file=candidate))
        if path:
            return path
    raise MissingDependency(
        f"the open_clip weights {model}:{tag} are not on this machine: "
        f"looked for {repo} in the cache of the Hugging Face hub\n"
        f"fetch them with:  hf download {repo} {files[-1]}"
    )


def in_hub_cache(wanted: HubFile) -> Path | None:
    """A file in the hub's cache, by its documented layout: importing the library's own look-up takes 0.4 s."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE) / f"models--{wanted.repo.replace('/', '--')}"
    try:
        commit = wanted.revision or (folder / "refs" / "main").read_text().strip()
    except OSError:
        return None
    path = folder / "snapshots" / commit / wanted.file
    return path if path.is_file() else None


def file_digest(path: Path) -> str:
    """sha256 of a file, cached so that a large checkpoint is read once. Raises OSError.

    The cache knows a file by path, size, mtime, inode and ctime. No program can set the ctime back, so other bytes under an
    equal size and mtime are noticed wherever the file system keeps one.
    """
    stat = path.stat()
    try:
        memo = _memo(path, stat)
        is_ours = memo.stat().st_uid == os.getuid() or not memo.is_relative_to(tempfile.gettempdir())
        known = memo.read_text(encoding="ascii", errors="replace").strip() if is_ours else ""
    except OSError:
        known = ""
    if _DIGEST.fullmatch(known):
        return known
    digest = read_digest(path)
    if time.time() - max(stat.st_mtime, stat.st_ctime) > _SETTLED_SECONDS:
        remember_digest(path, stat, digest)
    return digest


def read_digest(path: Path) -> str:
    """sha256 of a file, always read from the disk. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remember_digest(path: Path, stat: os.stat_result, digest: str) -> None:
    """Cache a digest for `file_digest`, in one small file each, written atomically because processes run side by side."""
    memo = _memo(path, stat)
    try:
        memo.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=memo.parent)
        with os.fdopen(descriptor, "w") as file:
            file.write(digest)
        os.replace(temporary, memo)
    except OSError:
        pass  # a cache that cannot be written only costs reading the checkpoint again


def _memo(path: Path, stat: os.stat_result) -> Path:
    key = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ino}|{stat.st_ctime_ns}"
    return cache_home() / "digests" / hashlib.sha256(os.fsencode(key)).hexdigest()
