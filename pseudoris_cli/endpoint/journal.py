"""Answers of the part at work, kept beside it until it is committed, so that a kill costs no answer that was paid for."""

from __future__ import annotations

import time
from io import FileIO
from pathlib import Path
from typing import Any

from pseudoris_cli.storage import files

GROUP = 16
GROUP_SECONDS = 1.0
"""A group of lines is synced when it has so many, or its first is so old. A kill loses nothing; a power cut, one group."""


def journal_path(folder: Path, writer: str) -> Path:
    """The journal of a writer in the folder of a version."""
    return folder / f"requests-{writer}.jsonl"


class Journal:
    """Answers by the digest of their request. It holds no prompt and no picture. One writer; `path` None keeps nothing."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.known: dict[str, dict[str, Any]] = {}
        self._file: FileIO | None = None
        self._unsynced, self._since = 0, 0.0
        if path is not None:
            files.cut_torn_line(path)
            for _, _, record in files.read_lines(path):
                if record and isinstance(record.get("request"), str) and isinstance(record.get("answer"), dict):
                    self.known[record["request"]] = record["answer"]

    def get(self, digest: str) -> dict[str, Any] | None:
        """The answer to a request that was asked before; None if it was not."""
        return self.known.get(digest)

    def add(self, digest: str, answer: dict[str, Any]) -> None:
        """Keep an answer. EnvironmentStop if the disk does not take it."""
        if self.path is None:
            return
        with files.os_errors_as_stop(self.path.parent):
            if self._file is None:
                self._file = FileIO(self.path, "ab")
            files.append_line(self._file, {"request": digest, "answer": answer})
            if not self._unsynced:
                self._since = time.monotonic()
            self._unsynced += 1
            if self._unsynced >= GROUP or time.monotonic() - self._since >= GROUP_SECONDS:
                self.sync()

    def sync(self) -> None:
        """Force what was added to the disk."""
        if self._file is not None and self._unsynced:
            files.sync_line(self._file)
        self._unsynced = 0

    def close(self) -> None:
        """Sync, and let go of the file; it stays until its part is committed."""
        if self._file is not None and self.path is not None:
            with files.os_errors_as_stop(self.path.parent):
                self.sync()
                self._file.close()
            self._file = None


def discard(folder: Path, writer: str) -> None:
    """Remove a writer's journal: its part is committed."""
    journal_path(folder, writer).unlink(missing_ok=True)
