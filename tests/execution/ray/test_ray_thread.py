"""Signals while Ray starts: handlers that compiled code sets behind Python's back never run, and are gone afterwards."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from trivial_stages import in_child

from pseudoris_cli.errors import Interrupted
from pseudoris_cli.execution.ray.thread import RayThread
from pseudoris_cli.execution.signals import OnWorkers, graceful_stop


def like_ray() -> int:
    """Let the system end the process at SIGTERM, as code in C can do; then two signals come."""
    ctypes.CDLL(None).signal(int(signal.SIGTERM), 0)
    for sign in (signal.SIGTERM, signal.SIGINT):
        time.sleep(0.3)  # until the main thread waits again
        os.kill(os.getpid(), sign)
    time.sleep(0.3)
    return threading.get_ident()


def called_twice(thread: RayThread) -> None:
    with graceful_stop() as stopper, stopper.shielded():
        assert thread.call(like_ray) != threading.get_ident()
        assert stopper.requested
        assert thread.call(lambda: 3) == 3


def test_our_handlers_answer_and_are_put_in_force_again() -> None:
    def child() -> None:
        elsewhere = threading.Thread(target=time.sleep, args=(60,), daemon=True)
        elsewhere.start()  # the kernel may give it a signal that the main thread has blocked
        thread = RayThread()
        with pytest.raises(Interrupted):
            called_twice(thread)
        thread.close()
        with graceful_stop() as stopper:
            stopper.in_flight = OnWorkers()
            os.kill(os.getpid(), signal.SIGTERM)
            assert stopper.requested

    assert in_child(child) == 0


def test_errors_come_through_and_nothing_stays_blocked() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    thread = RayThread()
    with pytest.raises(ZeroDivisionError):
        thread.call(lambda: 1 // 0)
    thread.close()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_processes_can_be_ended_by_sigterm_and_never_see_sigusr1() -> None:
    """What it starts inherits which signals are blocked."""
    thread = RayThread()
    show = "import signal; print(*sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())))"
    said = thread.call(lambda: subprocess.check_output([sys.executable, "-c", show], text=True))
    thread.close()
    assert said.split() == [str(int(signal.SIGUSR1))]
