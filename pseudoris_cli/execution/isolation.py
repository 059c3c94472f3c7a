"""Trying single images in a process of their own."""

from __future__ import annotations

import multiprocessing
import os
import signal

from pseudoris_cli.execution.death_causes import CRASH_SIGNALS, TIMED_OUT, cause_of_death, memory_kills
from pseudoris_cli.execution.engine_inprocess import run_part
from pseudoris_cli.execution.prefetch import load_part
from pseudoris_cli.execution.tasks import PartTask, StageSpec

NOT_TRIED = "it could not be tried again here"


def try_alone(spec: StageSpec, task: PartTask, seconds: float | None = None) -> str | None:
    """Do a task in a new process and throw its answer away: None if the process lived, else what it died of.

    The networks are loaded there once more. A process that takes longer than `seconds` is ended.
    """
    before = memory_kills()
    child = multiprocessing.get_context("spawn").Process(target=_do, args=(spec, task), daemon=True)
    child.start()
    child.join(seconds)
    if child.exitcode is None:
        child.kill()
        child.join()
        return TIMED_OUT
    if child.exitcode > 0:
        return NOT_TRIED
    if child.exitcode == 0:
        return None
    return cause_of_death(before, crashed=-child.exitcode in CRASH_SIGNALS)


def _do(spec: StageSpec, task: PartTask) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # the parent decides when to stop
    try:
        run_part(spec.make_worker(), load_part(task, spec.reading))
    except BaseException:  # the networks cannot be loaded here, say: nothing was learned about the image
        os._exit(1)
