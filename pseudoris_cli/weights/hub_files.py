"""Fetch a file from the Hugging Face hub into that library's cache, and tell what went wrong."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pseudoris_cli.errors import EnvironmentStop, MissingDependency
from pseudoris_cli.storage import files
from pseudoris_cli.weights import registry as weights
from pseudoris_cli.weights.registry import Entry, HubFile


def fetch(entry: Entry, wanted: HubFile) -> Path:
    """Fetch with huggingface_hub, which resumes, caches and honours HF_HOME and HF_HUB_OFFLINE; then check the digest."""
    from huggingface_hub import hf_hub_download

    damaged = weights.path_of_entry(entry)
    if damaged.exists():
        _remove(damaged)
    where = f"{wanted.file} of https://huggingface.co/{wanted.repo}"
    with hub_errors(where, f"copy the file to {weights.weights_home() / entry.file}"):
        path = Path(hf_hub_download(wanted.repo, wanted.file, revision=wanted.revision))
    digest = weights.read_digest(path)
    expected = weights.expected_digest(entry)
    if expected and digest != expected:
        _remove(path)
        raise MissingDependency(
            f"{where} is another file than the one expected: its sha256 is {digest}, not {expected}; it was not kept"
        )
    keep_digest(entry, path, digest)
    return path


@contextmanager
def hub_errors(where: str, instead: str) -> Iterator[None]:
    """Without the library's log and, where nobody watches, its bars; its errors become ours. `instead`: what else to do."""
    from huggingface_hub.utils import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
        disable_progress_bars,
        logging,
    )

    logging.set_verbosity_error()  # it logs every attempt of a request
    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        yield
    except LocalEntryNotFoundError as error:
        raise EnvironmentStop(
            f"{where} is not in the cache of the Hugging Face hub, and the hub cannot be asked for it\n"
            f"{'unset HF_HUB_OFFLINE' if os.environ.get('HF_HUB_OFFLINE') else 'look at the network'}, or {instead}"
        ) from error
    except GatedRepoError as error:
        raise MissingDependency(
            f"{where} asks for its licence to be accepted first: do so on that page, then log in with:  hf auth login"
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError, EntryNotFoundError) as error:
        raise MissingDependency(f"{where} does not exist any more or is not public: {_first_line(error)}") from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise EnvironmentStop("the disk of the Hugging Face cache is full; free space or move HF_HOME") from error
        raise EnvironmentStop(
            f"{where} could not be fetched: {_first_line(error)}; run the same command again to continue"
        ) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def keep_digest(entry: Entry, path: Path, digest: str) -> None:
    """Record the digest of a first fetch where none is published, and cache it so that the next run need not read the file."""
    if entry.sha256 is None:
        files.replace_file(weights.digest_record(entry), f"{digest}  {entry.file}\n".encode())
    weights.remember_digest(path, path.stat(), digest)


def _remove(path: Path) -> None:
    """Delete a file of the weights folder, or one of the hub's cache with its blob; no other link is followed."""
    from huggingface_hub import constants

    blob = path.resolve()
    path.unlink(missing_ok=True)
    if blob.is_relative_to(Path(constants.HF_HUB_CACHE).resolve()):
        blob.unlink(missing_ok=True)
