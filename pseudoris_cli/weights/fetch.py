"""List, fetch and verify the registered checkpoints on this machine."""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.util
import io
import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from pseudoris_cli.errors import EnvironmentStop, UsageError
from pseudoris_cli.storage.locks import exclusive
from pseudoris_cli.text import nearest
from pseudoris_cli.weights import hub_files, hub_folders
from pseudoris_cli.weights import registry as weights
from pseudoris_cli.weights.download import Remote, Reporter, RetryPolicy, download
from pseudoris_cli.weights.hub_files import keep_digest
from pseudoris_cli.weights.registry import Commercial, Entry


@dataclass(frozen=True, slots=True)
class WeightsRow:
    """One line of `weights list`. `size` is in bytes, of the file if it is present, else as published, else None."""

    name: str
    purpose: str
    licence: str
    size: int | None
    present: bool
    path: Path
    commercial: Commercial
    rule: str


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """The result of verifying a checkpoint. `unrecorded`: there is no digest to compare with, published or of a first fetch."""

    name: str
    state: Literal["ok", "missing", "wrong", "unrecorded"]
    detail: str


def rows() -> list[WeightsRow]:
    """Every registered checkpoint, in the order of the registry. Reads no checkpoint."""
    return [_row(name, entry) for name, entry in weights.registry().items()]


def needed(settings: BaseModel) -> list[str]:
    """The registered checkpoints and pipelines that settings name, in the order of the stages; random weights are none."""
    found: list[str] = []
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            found += needed(value)
        elif (
            name in ("checkpoint", "pipeline", "model")
            and (entry := weights.registry().get(str(value)))
            and not entry.embedded
        ):
            found.append(str(value))
    return list(dict.fromkeys(found))


def fetch(name: str, reporter: Reporter | None = None, retry: RetryPolicy | None = None) -> Path:
    """Make a registered checkpoint available and return its path; an intact file is not fetched again.

    Raises UsageError for an unknown name, EnvironmentStop for network, disk or another fetch of the same file,
    MissingDependency where the server does not have it or sends something else.
    """
    entry, reporter = require_entry(name), reporter or Reporter()
    package = _installed_package(name, entry)
    if package or entry.embedded or _is_intact(name, entry):
        return package or weights.path_of_entry(entry)
    _make_home(weights.weights_home())
    if entry.hub_folder:
        with exclusive(weights.weights_home() / f".{name}.lock", f"fetching {name}"):
            return hub_folders.fetch(name, entry, entry.hub_folder)
    with exclusive(weights.weights_home() / f".{entry.file}.lock", f"fetching {name}"):
        if _is_intact(name, entry):  # another process may have fetched it before we held the lock
            return weights.path_of_entry(entry)
        if weights.path_of_entry(entry).exists():
            reporter.notice(f"{weights.path_of_entry(entry)} is damaged or another file; fetching {name} again")
        if entry.hub:
            return hub_files.fetch(entry, entry.hub)
        if not entry.url:
            raise UsageError(f"{name!r} has no address to fetch it from; get the file yourself. {entry.note}")
        target = weights.weights_home() / entry.file
        wanted = weights.expected_digest(entry)
        digest = download(Remote(entry.url, entry.size, wanted), target, reporter, retry)
        keep_digest(entry, target, digest)
        if entry.pipeline:
            _unpack(target)
    return weights.path_of_entry(entry)


def verify(name: str) -> VerifyResult:
    """Read a registered checkpoint from the disk and compare its digest; cached digests are not used."""
    entry = require_entry(name)
    package = _installed_package(name, entry)
    if package:
        return VerifyResult(name, "unrecorded", f"installed as a package in {package}")
    path = weights.path_of_entry(entry)
    if not path.exists():
        return VerifyResult(name, "missing", f"not at {path}; fetch it with: pseudoris weights fetch {name}")
    if entry.pipeline:
        return _verify_unpacked(name, weights.weights_home() / Path(entry.file).stem)
    if entry.hub_folder:
        return VerifyResult(name, *hub_folders.verify(path, entry))
    if path.is_dir():
        return VerifyResult(name, "unrecorded", f"{path} is a folder that ships with pseudoris")
    try:
        digest = weights.read_digest(path)
    except OSError as error:
        return VerifyResult(name, "wrong", f"{path} cannot be read: {error.strerror}")
    wanted = weights.expected_digest(entry)
    if wanted is None:
        return VerifyResult(name, "unrecorded", f"{path}: sha256 {digest}, and none is published to compare with")
    if digest != wanted:
        return VerifyResult(name, "wrong", f"{path}: sha256 {digest}, not {wanted}")
    return VerifyResult(name, "ok", f"{path}: sha256 {digest}")


def require_entry(name: str) -> Entry:
    """The registry's entry of that name. Raises UsageError listing the registered names."""
    entry = weights.registry().get(name)
    if entry is None:
        raise UsageError(
            f"no checkpoint is registered as {name!r}{nearest(name, weights.registry())}\n"
            f"registered:  {', '.join(sorted(weights.registry()))}"
        )
    return entry


def _row(name: str, entry: Entry) -> WeightsRow:
    path = _installed_package(name, entry) or weights.path_of_entry(entry)
    present = path.exists()
    size = path.stat().st_size if present and path.is_file() else entry.size
    return WeightsRow(name, entry.purpose, entry.licence, size, present, path, entry.commercial, entry.rule)


def _installed_package(name: str, entry: Entry) -> Path | None:
    """The folder of a spaCy pipeline that is installed as a package."""
    spec = importlib.util.find_spec(name) if entry.pipeline else None
    return Path(spec.origin).parent if spec and spec.origin else None


def _make_home(home: Path) -> None:
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentStop(
            f"cannot make the weights folder {home}: {error.strerror}; "
            "set PSEUDORIS_WEIGHTS to a folder that you can write"
        ) from error


def _is_intact(name: str, entry: Entry) -> bool:
    """Whether the file is present and has the expected digest."""
    path = weights.path_of_entry(entry)
    if not path.exists():
        return False
    if entry.pipeline:
        return _verify_unpacked(name, weights.weights_home() / Path(entry.file).stem).state == "ok"
    if entry.hub_folder:
        return hub_folders.verify(path, entry)[0] == "ok"
    wanted = weights.expected_digest(entry)
    return wanted is None or weights.file_digest(path) == wanted


def _unpack(wheel: Path) -> None:
    """Unpack a spaCy pipeline's wheel into a folder beside it, atomically, and delete the wheel.

    The pipeline is not installed as a package: this needs no package manager and leaves the environment unchanged.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix=".unpack-", dir=wheel.parent))
        try:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder)
            shutil.rmtree(wheel.with_suffix(""), ignore_errors=True)
            folder.chmod(0o755)
            folder.rename(wheel.with_suffix(""))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    except OSError as error:
        raise EnvironmentStop(f"cannot unpack {wheel}: {error.strerror}; free space and fetch again") from error
    wheel.unlink()


def _verify_unpacked(name: str, folder: Path) -> VerifyResult:
    """Compare every file with the wheel's own RECORD; the digest of the wheel covers that file."""
    record = next(folder.glob("*.dist-info/RECORD"), None)
    if record is None:
        return VerifyResult(name, "wrong", f"{folder} has no RECORD")
    for file, digest, _ in csv.reader(io.StringIO(record.read_text(encoding="utf-8"))):
        if digest and digest != _wheel_digest(folder / file):
            return VerifyResult(name, "wrong", f"{folder / file} is damaged or missing")
    return VerifyResult(name, "ok", f"{folder}: every file as its wheel recorded it")


def _wheel_digest(path: Path) -> str:
    """A digest as wheels write it: sha256 in URL-safe base64 without padding; '' for a file that cannot be read."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return ""
    return "sha256=" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
