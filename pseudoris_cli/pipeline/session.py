"""One command at work on a work directory."""

from __future__ import annotations

from dataclasses import dataclass, field

from pseudoris_cli.execution.devices import DeviceRequest
from pseudoris_cli.execution.engine import Engine
from pseudoris_cli.execution.runner import Observer
from pseudoris_cli.execution.signals import Stopper
from pseudoris_cli.execution.tasks import Selection
from pseudoris_cli.export.choice import Choice
from pseudoris_cli.settings.models import Settings
from pseudoris_cli.sources import registry as sources
from pseudoris_cli.sources.base import Source
from pseudoris_cli.storage.plan import PLAN
from pseudoris_cli.storage.workspace import Workspace


@dataclass(frozen=True)
class Session:
    """One command at work: where, with which settings, on what, watched by whom."""

    workspace: Workspace
    settings: Settings
    device: DeviceRequest
    selection: Selection
    engine: Engine
    observer: Observer
    stopper: Stopper
    plan_name: str = PLAN
    """Whose current versions are gone on with: those of the whole source, or those of a pilot."""
    profile: str | None = None
    """The profile that the settings start from; the nearest one is noted in the work directory where none is named."""
    choice: Choice = field(default_factory=Choice)
    """What of the kept expressions an export takes."""

    @property
    def source(self) -> Source:
        """The source that the work directory remembers."""
        return sources.source_of(self.workspace)
