"""The stages, in order: what each is called, which command runs it, what it reads and what its rows are.

The order of the table is the chain: a stage is made from the nearest stage above it that is part of the run. A new stage is
its row here, its columns in `storage/schema.py`, its settings in `settings/models.py` and its file in `stages/`.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pseudoris_cli.storage.schema import Column


@dataclass(frozen=True, slots=True)
class Stage:
    """One row of the table."""

    name: str
    """Folder below the work directory, and key of `COLUMNS`."""
    command: str
    """The command that runs it; stages that share one are run one after the other."""
    unit: str
    """What one row is, in the plural: the rate in the progress bar is in these."""
    reads: tuple[str, ...] = ()
    """Earlier stages whose rows its worker is given; an optional one only where it is part of the run."""
    module: str = ""
    """Its file in `stages/`, where that is not its name."""
    optional: bool = False
    """Part of a run only where the settings ask for it: its module then has `is_wanted(settings)`."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """Its columns, in order."""
        from pseudoris_cli.storage.schema import COLUMNS  # pyarrow comes with it: not on the way to --help

        return COLUMNS[self.name]

    @property
    def file(self) -> str:
        """Name of its module in `stages/`."""
        return self.module or self.name


STAGES: tuple[Stage, ...] = (
    Stage("masks", command="masks", unit="masks"),
    Stage("captions", command="captions", unit="captions", reads=("masks",)),
    Stage("scores", command="filter", unit="scores", reads=("masks", "captions")),
    Stage("judge", command="filter", unit="answers", reads=("masks", "captions", "scores"), optional=True),
    Stage("filter", command="filter", unit="captions", reads=("captions", "scores", "judge")),
    Stage("export", command="export", unit="sentences", reads=("filter",), module="export_index"),
)

NAMES = tuple(stage.name for stage in STAGES)
"""The names of all stages, in order."""

ALWAYS = tuple(stage.name for stage in STAGES if not stage.optional)
"""The names of the stages that every run has, in order."""

FIRST = NAMES[0]
"""The stage that reads the source; it has no upstream."""


def stage(name: str) -> Stage:
    """The row of a stage. KeyError for another name."""
    for row in STAGES:
        if row.name == name:
            return row
    raise KeyError(name)


def stages_of(command: str) -> tuple[Stage, ...]:
    """The stages that a command runs, in order."""
    return tuple(row for row in STAGES if row.command == command)


def commands() -> tuple[str, ...]:
    """Every command that runs a stage, in the order of the chain."""
    return tuple(dict.fromkeys(row.command for row in STAGES))


def upstream_of(name: str, present: Container[str] | None = None) -> str | None:
    """The stage that `name` is made from: the nearest above it among `present`; without that, the nearest that no run lacks."""
    for row in reversed(STAGES[: NAMES.index(name)]):
        if row.name in present if present is not None else not row.optional:
            return row.name
    return None
