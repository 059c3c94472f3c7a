"""Download one file over HTTP: resumable, checked, and published under its name only when it is complete."""

from __future__ import annotations

import errno
import http.client
import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pseudoris_cli import __version__
from pseudoris_cli.errors import EnvironmentStop, MissingDependency
from pseudoris_cli.storage import files
from pseudoris_cli.weights.registry import read_digest

_BLOCK = 1 << 20
_RETRIED = {408, 425, 429, 500, 502, 503, 504}
_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")
_MAKE_ROOM = "free space, or set PSEUDORIS_WEIGHTS to a folder on a larger disk"
_FULL = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True, slots=True)
class Remote:
    """A file on a server; size in bytes and sha256 where they are known."""

    url: str
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long to retry.

    A request fails after `timeout` seconds without data, a download after `attempts` failures in a row that brought no new
    data. The pause between attempts doubles from `pause` up to `longest_pause` seconds.
    """

    timeout: float = 30.0
    attempts: int = 6
    pause: float = 1.0
    longest_pause: float = 60.0


def _ignore(*_: object) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Reporter:
    """Callbacks: `progress(bytes so far, bytes in all or None)`, and `notice(text)` about retries."""

    progress: Callable[[int, int | None], None] = _ignore
    notice: Callable[[str], None] = _ignore


class TransientError(Exception):
    """The transfer was interrupted and may succeed when it is tried again, after at least `pause` seconds."""

    def __init__(self, reason: str, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.pause = pause


def download(remote: Remote, target: Path, reporter: Reporter | None = None, retry: RetryPolicy | None = None) -> str:
    """Get `remote` into `target` and return its sha256. The caller holds the lock on `target`.

    Bytes go to `<target>.part`, which stays after a broken transfer and is continued by the next call; where no digest
    is published, only if the server confirms that its file is the same. Raises EnvironmentStop (exit 1) for network and
    disk, MissingDependency (exit 3) where the server does not have the file or sends another one, which is not kept.
    """
    reporter, retry = reporter or Reporter(), retry or RetryPolicy()
    part = _part(target)
    continued = _size(part) > 0
    _transfer(remote, part, reporter, retry)
    digest = read_digest(part)
    if remote.sha256 and digest != remote.sha256 and continued:  # the old part may have been damaged or of another file
        reporter.notice("the digest of the continued download is wrong; starting over")
        _discard(part)
        _transfer(remote, part, reporter, retry)
        digest = read_digest(part)
    if remote.sha256 and digest != remote.sha256:
        _discard(part)
        raise MissingDependency(
            f"{remote.url} sent another file than the one expected: its sha256 is {digest}, not {remote.sha256}\n"
            "it was not kept; try again later or from another network, and do not use a file with that digest"
        )
    files.sync_file(part)
    files.publish(part, target)
    files.sync_folder(target.parent)
    _discard(part)
    return digest


def _transfer(remote: Remote, part: Path, reporter: Reporter, retry: RetryPolicy) -> None:
    """Receive until the part is complete, and retry after interruptions. The count restarts when the part has grown."""
    failures, most = 0, _size(part)
    while True:
        try:
            _receive(remote, part, reporter, retry.timeout)
            return
        except TransientError as error:
            failures = failures + 1 if _size(part) <= most else 1
            most = max(most, _size(part))
            if failures >= retry.attempts:
                raise EnvironmentStop(
                    f"{remote.url} could not be fetched: {error}, {failures} times in a row\n"
                    f"{_amount(_size(part))} are kept in {part}; run the same command again to continue"
                ) from error
            pause = min(max(retry.pause * 2 ** (failures - 1), error.pause), retry.longest_pause)
            reporter.notice(f"{error}; trying again in {pause:.0f} s")
            time.sleep(pause)


def _receive(remote: Remote, part: Path, reporter: Reporter, timeout: float) -> None:
    """One request. Returns when the part is complete; raises TransientError where another request may help."""
    offset = _usable_part(remote, part)
    if offset and offset == remote.size:
        reporter.progress(offset, offset)
        return
    try:
        response = urllib.request.urlopen(_request(remote.url, part, offset), timeout=timeout)
    except urllib.error.HTTPError as error:
        if not _is_complete(error, part, offset):
            _raise_http_error(error, remote, part)
        return
    except (OSError, http.client.HTTPException) as error:
        raise _network_fault(remote, error) from error
    with response:
        start, total = _body_range(response, remote, part)
        _check_room(part, remote, (total or 0) - start)
        _remember_validator(response, part)
        with part.open("ab" if start else "wb", buffering=0) as file:
            _copy(response, file, remote, lambda done: reporter.progress(start + done, total))
    if total is not None and _size(part) < total:
        raise TransientError(f"the server closed the connection at {_amount(_size(part))} of {_amount(total)}")


def _copy(response: http.client.HTTPResponse, file: BinaryIO, remote: Remote, report: Callable[[int], None]) -> None:
    done = 0
    report(done)
    while True:
        try:
            block = response.read1(_BLOCK)
        except (OSError, http.client.HTTPException) as error:
            raise _network_fault(remote, error) from error
        if not block:
            return
        _write(file, block)
        done += len(block)
        report(done)


def _write(file: BinaryIO, block: bytes) -> None:
    """Write all of a block; an unbuffered file may take less at a time."""
    rest = memoryview(block)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        if error.errno in _FULL:
            raise EnvironmentStop(
                f"the disk is full: {file.name} could not be finished\n{_MAKE_ROOM}; run the same command again to continue"
            ) from error
        raise EnvironmentStop(f"cannot write {file.name}: {error.strerror}") from error


def _usable_part(remote: Remote, part: Path) -> int:
    """The offset in bytes to continue from. A part is discarded where neither a digest nor a validator can confirm it."""
    offset = _size(part)
    proof = remote.sha256 or _validator(part).is_file()
    if offset and (not proof or (remote.size is not None and offset > remote.size)):
        _discard(part)
        return 0
    return offset


def _request(url: str, part: Path, offset: int) -> urllib.request.Request:
    request = urllib.request.Request(url, headers={"User-Agent": f"pseudoris/{__version__}"})
    if offset:
        request.add_header("Range", f"bytes={offset}-")
        if _validator(part).is_file():
            request.add_header("If-Range", _validator(part).read_text(encoding="latin-1").strip())
    return request


def _body_range(response: http.client.HTTPResponse, remote: Remote, part: Path) -> tuple[int, int | None]:
    """(offset at which the body begins, size of the complete file or None). The offset is 0 if the server ignores the Range."""
    if response.headers.get_content_type() == "text/html":
        raise MissingDependency(
            f"{remote.url} answered with a web page instead of the file (a login page of this network?)\n"
            "open the address in a browser, or fetch from another network"
        )
    length = response.headers.get("Content-Length")
    start, total = 0, int(length) if length else None
    if response.status == 206:
        found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        start = int(found[1]) if found and found[1] else -1
        total = int(found[2]) if found and found[2] != "*" else None
        if start != _size(part):
            _discard(part)
            raise TransientError("the server sent another range than asked for")
    if remote.size is not None and total is not None and total != remote.size:
        raise MissingDependency(
            f"{remote.url} offers a file of {total} bytes; the one expected has {remote.size}\n"
            "it was not fetched; the file at this address has changed, or this network changes it"
        )
    return start, total if total is not None else remote.size


def _is_complete(error: urllib.error.HTTPError, part: Path, offset: int) -> bool:
    """Whether "range not satisfiable" (416) means that the part has all bytes already; if not, the part is discarded."""
    if error.code != 416:
        return False
    found = _RANGE.fullmatch(error.headers.get("Content-Range", ""))
    if found and found[2] == str(offset):
        return True
    _discard(part)
    raise TransientError("the server's file is shorter than the part that was fetched") from error


def _raise_http_error(error: urllib.error.HTTPError, remote: Remote, part: Path) -> None:
    if error.code in _RETRIED:
        after = error.headers.get("Retry-After", "")
        pause = float(after) if after.isdigit() else 0.0
        raise TransientError(f"the server answered {error.code} {error.reason}", pause)
    raise MissingDependency(
        f"{remote.url} cannot be fetched: the server answered {error.code} {error.reason}\n"
        f"get the file elsewhere and put it at {part.with_suffix('')}"
    ) from error


def _network_fault(remote: Remote, error: Exception) -> Exception:
    """The error to raise for a failure below HTTP: TransientError, except for a certificate that is not trusted."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return EnvironmentStop(
            f"the certificate of {remote.url} is not trusted here: {cause.verify_message}\n"
            "if your network uses its own certificates, set SSL_CERT_FILE to them"
        )
    if isinstance(cause, TimeoutError):
        return TransientError("no data came within the timeout")
    return TransientError(f"the connection failed ({cause or type(cause).__name__})")


def _check_room(part: Path, remote: Remote, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise EnvironmentStop(
            f"not enough room in {part.parent} for {remote.url}: "
            f"{_amount(needed)} more are needed, {_amount(free)} are free\n{_MAKE_ROOM}"
        )


def _remember_validator(response: http.client.HTTPResponse, part: Path) -> None:
    """Keep what identifies the server's version of the file (a strong ETag, else its date), for If-Range."""
    tag = response.headers.get("ETag", "")
    value = tag if tag.startswith('"') else response.headers.get("Last-Modified", "")
    if value:
        _validator(part).write_text(value, encoding="latin-1")
    else:
        _validator(part).unlink(missing_ok=True)


def _part(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def _validator(part: Path) -> Path:
    return part.with_name(part.name + ".validator")


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _validator(part).unlink(missing_ok=True)


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _amount(size: int) -> str:
    """Bytes for people, in powers of ten as disks are sold."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} bytes"
