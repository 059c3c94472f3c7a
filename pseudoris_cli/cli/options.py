"""Options that several commands share, declared once: a command takes one object and gets all of its flags."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import typer

from pseudoris_cli.devices import DeviceRequest
from pseudoris_cli.errors import UsageError
from pseudoris_cli.profiles import PROFILES, Resolved, resolve
from pseudoris_cli.work import Selection

if TYPE_CHECKING:
    from pseudoris_cli.storage.workspace import Workspace

R = TypeVar("R")


@dataclass
class WorkOptions:
    """Where the work directory is."""

    work: Annotated[
        Path | None,
        typer.Option(help="work directory  [default: $PSEUDORIS_WORK, else ./pseudoris-work]", show_default=False),
    ] = None

    @property
    def workspace(self) -> Workspace:
        """The work directory."""
        from pseudoris_cli.storage.workspace import Workspace

        return Workspace((self.work or Path(os.environ.get("PSEUDORIS_WORK") or "pseudoris-work")).expanduser())


@dataclass
class SettingOptions:
    """Which settings are in force."""

    profile: Annotated[
        str | None, typer.Option(help=f"{', '.join(PROFILES)}  [default: paper]", show_default=False)
    ] = None
    config: Annotated[
        Path | None, typer.Option(help="settings file (YAML)  [default: ./pseudoris.yaml if present]")
    ] = None
    assignments: Annotated[
        list[str],
        typer.Option("--set", metavar="NAME=VALUE", help="one setting, e.g. captions.contrast=0.5; repeatable"),
    ] = field(default_factory=list)

    def resolve(self, flags: dict[str, Any] | None = None) -> Resolved:
        """All layers merged and checked."""
        return resolve(
            self.profile, self.config, self.assignments, {k: v for k, v in (flags or {}).items() if v is not None}
        )


@dataclass
class StageOptions(SettingOptions, WorkOptions):
    """What every stage takes."""

    gpu: Annotated[
        str | None, typer.Option(metavar="N[,N...]", help="CUDA device; several: one Ray worker on each")
    ] = None
    device: Annotated[str | None, typer.Option(help="cpu, mps, cuda:N  [default: first GPU, else CPU]")] = None
    workers: Annotated[int | None, typer.Option(min=1, help="Ray workers (extra `ray`)")] = None
    ray_address: Annotated[str | None, typer.Option(help="Ray cluster to run on, e.g. auto")] = None
    shard: Annotated[
        str | None, typer.Option(metavar="i/n", help="only parts with id mod n = i (0-based), for job arrays")
    ] = None
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="redo parts in which images failed")] = False
    allow_partial: Annotated[bool, typer.Option("--allow-partial", help="go on with an incomplete stage before")] = (
        False
    )
    json_output: Annotated[bool, typer.Option("--json", help="result as JSON on stdout")] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress, only warnings and errors")] = False

    @property
    def gpus(self) -> list[int]:
        """The CUDA devices that were named."""
        try:
            return [int(number) for number in self.gpu.split(",")] if self.gpu else []
        except ValueError:
            raise UsageError(f"--gpu {self.gpu}: write a number, or several as 0,1,2") from None

    @property
    def device_request(self) -> DeviceRequest:
        """The device of a single worker."""
        gpus = self.gpus
        return DeviceRequest(gpus[0] if len(gpus) == 1 else None, self.device if len(gpus) < 2 else None)

    @property
    def selection(self) -> Selection:
        """Which parts, and how strict."""
        return Selection(_parse_shard(self.shard), self.retry_failed, self.allow_partial)


def _parse_shard(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise UsageError(f"--shard {text}: write i/n with 0 <= i < n, e.g. --shard 0/4")
    return int(index), int(count)


def with_options(command: Callable[..., R]) -> Callable[..., R]:
    """Spread the dataclass that is a command's first parameter over flags of its own, and gather them again in the call."""
    hints = get_type_hints(command, include_extras=True)
    own = list(inspect.signature(command).parameters.values())
    options = hints[own[0].name]
    spread = []
    field_hints = get_type_hints(options, include_extras=True)
    for item in dataclasses.fields(options):
        default = item.default_factory() if item.default_factory is not dataclasses.MISSING else item.default
        spread.append(
            inspect.Parameter(
                item.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=field_hints[item.name]
            )
        )
    rest = [p.replace(annotation=hints[p.name], kind=inspect.Parameter.KEYWORD_ONLY) for p in own[1:]]
    names = {parameter.name for parameter in spread}

    @functools.wraps(command)
    def call(**values: Any) -> R:
        gathered = options(**{name: values.pop(name) for name in names})
        return command(gathered, **values)

    parameters = [*rest, *spread]
    setattr(call, "__signature__", inspect.Signature(parameters))  # noqa: B010  # mypy knows no such attribute
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del call.__wrapped__
    return call
