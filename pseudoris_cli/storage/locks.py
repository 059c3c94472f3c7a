"""One writer per file: advisory locks that name who holds them."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pseudoris_cli.errors import EnvironmentStop


@contextmanager
def exclusive(path: Path, purpose: str) -> Iterator[None]:
    """Hold an flock on `path` (created if needed) for as long as the block runs.

    The file holds host, pid, SLURM job and purpose of its last holder. Raises EnvironmentStop (exit 1) if somebody else
    holds it, naming them, or if the file system has no flock.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise EnvironmentStop(f"cannot write in {path.parent}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise EnvironmentStop(_taken(path)) from error
            raise EnvironmentStop(
                f"file locks do not work in {path.parent} ({error.strerror}); put the work directory (--work) on a file "
                "system with flock, e.g. a local disk, or mount this one with locking"
            ) from error
        holder = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "job": os.environ.get("SLURM_JOB_ID"),
            "purpose": purpose,
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _taken(path: Path) -> str:
    try:
        holder = json.loads(path.read_text())
        job = f", SLURM job {holder['job']}" if holder.get("job") else ""
        who = f"pid {holder['pid']} on {holder['host']}{job} ({holder['purpose']}, since {holder['since']})"
    except (OSError, ValueError, KeyError):
        who = "another process"
    return f"{path.parent} is in use by {who}; wait for it, or stop it and run this command again"
