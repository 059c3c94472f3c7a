"""What the runner asks of an engine."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Protocol

from pseudoris_cli.execution.crash_log import CrashLog
from pseudoris_cli.execution.signals import Stopper
from pseudoris_cli.execution.tasks import PartResult, PartTask, StageSpec


@dataclass(frozen=True, slots=True)
class Finished:
    """A part that a worker is done with."""

    task: PartTask
    result: PartResult
    seconds: float


class Engine(Protocol):
    """Runs tasks; the caller publishes what comes out, so that there is one writer."""

    def run(
        self, spec: StageSpec, tasks: Iterable[PartTask], crash_log: CrashLog, stopper: Stopper
    ) -> Generator[Finished, None, None]:
        """Finished parts, in any order. When a stop is requested no further part is begun."""
        ...

    def close(self) -> None:
        """Give back what it holds; called once, after the last stage."""
        ...
