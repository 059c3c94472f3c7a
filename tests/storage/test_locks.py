"""One writer per file; who is second learns who is first."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import socket
import threading
import time
from pathlib import Path

import pytest
from trivial_stages import in_child

from pseudoris_cli.errors import EnvironmentStop
from pseudoris_cli.storage.locks import exclusive


def hold(path: Path, seconds: float) -> None:
    with exclusive(path, "first"):
        time.sleep(seconds)


def test_the_second_is_told_who_is_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    with exclusive(tmp_path / "x.lock", "masks, main"):
        holder = f"pid {os.getpid()} on {re.escape(socket.gethostname())}, SLURM job 4711 \\(masks, main, since"
        with pytest.raises(EnvironmentStop, match=holder), exclusive(tmp_path / "x.lock", "second"):
            pass
    monkeypatch.delenv("SLURM_JOB_ID")
    with exclusive(tmp_path / "x.lock", "filter, main"):
        holder = f"pid {os.getpid()} on {re.escape(socket.gethostname())} \\(filter, main, since"
        with pytest.raises(EnvironmentStop, match=holder), exclusive(tmp_path / "x.lock", "second"):
            pass
    with exclusive(tmp_path / "x.lock", "third"):
        assert json.loads((tmp_path / "x.lock").read_text())["purpose"] == "third"


def test_another_process_holds_it_until_it_dies(tmp_path: Path) -> None:
    with exclusive(tmp_path / "x.lock", "here"):
        assert in_child(lambda: hold(tmp_path / "x.lock", 0)) == 1
    assert in_child(lambda: os.kill(os.getpid(), 9) if hold(tmp_path / "x.lock", 0) is None else None) == -9
    hold(tmp_path / "x.lock", 0)


def test_waiting_outlasts_a_short_holder_only(tmp_path: Path) -> None:
    thread = threading.Thread(target=hold, args=(tmp_path / "x.lock", 0.4))
    thread.start()
    while not (tmp_path / "x.lock").exists() or not (tmp_path / "x.lock").read_text():
        time.sleep(0.01)
    with pytest.raises(EnvironmentStop), exclusive(tmp_path / "x.lock", "hasty", wait_seconds=0.1):
        pass
    with exclusive(tmp_path / "x.lock", "patient", wait_seconds=30):
        thread.join()


@pytest.mark.parametrize("text", ["", "nonsense", "[]", "{}", '{"pid": 1}'])
def test_a_holder_without_a_name(tmp_path: Path, text: str) -> None:
    with exclusive(tmp_path / "x.lock", "first"):
        (tmp_path / "x.lock").write_text(text)
        with (
            pytest.raises(EnvironmentStop, match="in use by another process"),
            exclusive(tmp_path / "x.lock", "second"),
        ):
            pass


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP])
def test_a_file_system_without_flock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(EnvironmentStop, match=r"file locks do not work.*--work"), exclusive(tmp_path / "x", "x"):
        pass


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentStop, match="absent"), exclusive(tmp_path / "absent" / "x.lock", "x"):
        pass
