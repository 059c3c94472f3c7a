"""One writer per file: advisory locks that name who holds them."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pseudoris_cli.errors import EnvironmentStop
from pseudoris_cli.storage.files import os_errors_as_stop

_POLL_SECONDS = 0.05


@contextmanager
def exclusive(path: Path, purpose: str, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold an flock on `path` (created if needed) for as long as the block runs.

    The file holds host, pid, SLURM job and purpose of its last holder. Raises EnvironmentStop (exit 1) if somebody else
    still holds it after `wait_seconds` seconds, naming them, or if the file system has no flock.
    """
    with os_errors_as_stop(path.parent):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        _take(descriptor, path, time.monotonic() + wait_seconds)
        holder = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "job": os.environ.get("SLURM_JOB_ID"),
            "purpose": purpose,
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        with os_errors_as_stop(path.parent):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, path: Path, deadline: float) -> None:
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise EnvironmentStop(
                    f"file locks do not work in {path.parent} ({error.strerror}); put the work directory (--work) on a "
                    "file system with flock, e.g. a local disk, or mount this one with locking"
                ) from error
            if time.monotonic() >= deadline:
                raise EnvironmentStop(_taken(path)) from error
        time.sleep(_POLL_SECONDS)


def _taken(path: Path) -> str:
    try:
        holder = json.loads(path.read_text())
        job = f", SLURM job {holder['job']}" if holder.get("job") else ""
        who = f"pid {holder['pid']} on {holder['host']}{job} ({holder['purpose']}, since {holder['since']})"
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        who = "another process"
    return f"{path.parent} is in use by {who}; wait for it, or stop it and run this command again"
