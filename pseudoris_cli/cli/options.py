"""Options that several commands share, declared once: a command takes one object and gets all of its flags."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from pseudoris_cli.cli import completion
from pseudoris_cli.cli.console import note
from pseudoris_cli.errors import UsageError
from pseudoris_cli.execution.devices import DeviceRequest
from pseudoris_cli.settings import plugins
from pseudoris_cli.settings.models import Settings
from pseudoris_cli.settings.resolve import DEFAULT_PROFILE, LOCAL_FILE, PROFILES, Base, Resolved, resolve
from pseudoris_cli.settings.resources import expanded

if TYPE_CHECKING:
    from pseudoris_cli.execution.tasks import Selection
    from pseudoris_cli.storage.workspace import Workspace

R = TypeVar("R")
TOLD = 4
"""Remembered settings that are named in the line about them."""
LAST_PILOT = 0
"""What `--pilot` without a number means."""


class StageCommand(TyperCommand):
    """A command whose `--pilot` may come without its number."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given = [
            f"--pilot={LAST_PILOT}" if word == "--pilot" and not (args[at + 1 :] and args[at + 1].isdecimal()) else word
            for at, word in enumerate(args)
        ]
        return super().parse_args(ctx, given)


def from_option(help_text: str) -> Any:
    """`--from VERSION`, with the versions that there are after Tab."""
    return typer.Option("--from", metavar="VERSION", help=help_text, autocompletion=completion.versions)


def setting_option(name: str, **more: Any) -> Any:
    """An option for one setting: its help is the setting's meaning, with the default where there is one."""
    *sections, last = name.split(".")
    model: Any = Settings
    for section in sections:
        model = model.model_fields[section].annotation
    field_info = model.model_fields[last]
    default = f"  [default: {field_info.default}]" if field_info.default is not None else ""
    return typer.Option(help=f"{field_info.description}{default}", show_default=False, **more)


class CommandGroup(TyperGroup):
    """A group whose list of commands has the whole first paragraph of their help; click would end it with three dots."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for command in self.commands.values():
            command.short_help = command.short_help or (command.help or "").partition("\n\n")[0].replace("\n", " ")
        super().format_commands(ctx, formatter)


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

        return Workspace(expanded(self.work or os.environ.get("PSEUDORIS_WORK") or "pseudoris-work", "--work"))


def existing_workspace(options: WorkOptions) -> Workspace:
    """The work directory of a command that makes none. UsageError (exit 2) if it is none yet."""
    workspace = options.workspace
    if workspace.source() is None:
        raise UsageError(
            f"{workspace.root} is no work directory yet; begin with `pseudoris masks --images DIR`, or name --work"
        )
    return workspace


@dataclass
class SettingOptions:
    """Which settings are in force."""

    profile: Annotated[
        str | None,
        typer.Option(
            help=f"{', '.join(PROFILES)}  [default: {DEFAULT_PROFILE}]",
            show_default=False,
            autocompletion=completion.profiles,
        ),
    ] = None
    config: Annotated[Path | None, typer.Option(help=f"settings file (YAML)  [default: ./{LOCAL_FILE} if present]")] = (
        None
    )
    assignments: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="one setting, e.g. captions.contrast=0.5; repeatable",
            autocompletion=completion.assignments,
        ),
    ] = field(default_factory=list)

    def resolve(self, flags: dict[str, Any] | None = None, base: Base | None = None) -> Resolved:
        """All layers merged and checked; says where settings come from that nobody named."""
        resolved = self._merged(flags, base)
        for line in resolved.notes:
            note(line)
        return resolved

    def _merged(self, flags: dict[str, Any] | None, base: Base | None) -> Resolved:
        given = {name: value for name, value in (flags or {}).items() if value is not None}
        return resolve(self.profile, self.config, self.assignments, given, base)


@dataclass
class StageOptions(SettingOptions, WorkOptions):
    """What every stage takes."""

    gpu: Annotated[
        str | None, typer.Option(metavar="N[,N...]", help="CUDA device; several: one Ray worker on each")
    ] = None
    device: Annotated[
        str | None,
        typer.Option(help="cpu, mps, cuda:N  [default: first GPU, else CPU]", autocompletion=completion.devices),
    ] = None
    workers: Annotated[int | None, typer.Option(min=1, help="Ray workers (extra `ray`)")] = None
    ray_address: Annotated[str | None, typer.Option(help="Ray cluster to run on, e.g. auto")] = None
    shard: Annotated[
        str | None, typer.Option(metavar="i/n", help="only parts with id mod n = i (0-based), for job arrays")
    ] = None
    pilot: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="[N]",
            help="a trial on N images, spread over the source, that takes over from nothing; without N the last pilot",
        ),
    ] = None
    new_settings: Annotated[
        bool, typer.Option("--new-settings", help="start from the profile, not from what the work directory remembers")
    ] = False
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="redo parts in which images failed")] = False
    allow_partial: Annotated[bool, typer.Option("--allow-partial", help="go on with an incomplete stage before")] = (
        False
    )
    mix_devices: Annotated[
        bool, typer.Option("--mix-devices", help="let parts made on a CPU and on a GPU share a version")
    ] = False
    json_output: Annotated[bool, typer.Option("--json", help="result as JSON on stdout")] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="only errors on stderr; results stay on stdout")] = False

    def resolve_for(self, command: str, flags: dict[str, Any] | None = None) -> Resolved:
        """The settings of a command: from what the work directory remembers of it, unless told otherwise."""
        return self.resolve_all([command], flags)[command]

    def resolve_all(self, names: Iterable[str], flags: dict[str, Any] | None = None) -> dict[str, Resolved]:
        """The settings of several commands; what is remembered is told in one line."""
        from pseudoris_cli.storage.remembered import recall

        found: dict[str, Resolved] = {}
        for name in names:
            base = None if self.new_settings else recall(self.workspace, name, self.plan_name)
            found[name] = self._merged(flags, base)
        told = list(dict.fromkeys(part for resolved in found.values() for part in resolved.remembered))
        more = f" and {len(told) - TOLD} more" if len(told) > TOLD else ""
        where = ", ".join(dict.fromkeys(one.remembered_in for one in found.values() if one.remembered))
        lines = [f"settings as before: {', '.join(told[:TOLD])}{more} ({where})"] if told else []
        lines += dict.fromkeys(line for resolved in found.values() for line in resolved.notes)
        for line in lines if not self.quiet else []:
            note(line)
        return found

    @property
    def plan_name(self) -> str:
        """The plan of the whole source, or of the pilot that was asked for."""
        from pseudoris_cli.storage.plan import PLAN, pilot_plan

        if self.pilot is None:
            return PLAN
        if self.pilot != LAST_PILOT:
            return pilot_plan(self.pilot)
        return self.workspace.last_pilot()

    @property
    def gpus(self) -> list[int]:
        """The CUDA devices that were named."""
        names = self.gpu.split(",") if self.gpu else []
        if not all(name.isdecimal() for name in names) or len(set(map(int, names))) < len(names):
            raise UsageError(f"--gpu {self.gpu}: write a number, or several different ones as 0,1,2")
        return [int(name) for name in names]

    @property
    def device_request(self) -> DeviceRequest:
        """The device of a single worker."""
        gpus = self.gpus
        return DeviceRequest(gpus[0] if len(gpus) == 1 else None, self.device if len(gpus) < 2 else None)

    @property
    def selection(self) -> Selection:
        """Which parts, and how strict."""
        from pseudoris_cli.execution.tasks import Selection  # pyarrow comes with it: not on the way to --help

        return Selection(_parse_shard(self.shard), self.retry_failed, self.allow_partial, self.mix_devices)


@dataclass
class SourceOptions:
    """Where images come from; named once, then remembered in the work directory."""

    images: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="folder, list file, COCO instances JSON, REFER root, ETRIS LMDB, WebDataset tars or Parquet files, also as a "
            "pattern (data/{00000..00099}.tar) or URL (s3://bucket/data); remembered in the work directory",
        ),
    ] = None
    image_root: Annotated[str | None, typer.Option(metavar="PATH", help="where the images lie now, if they moved")] = (
        None
    )
    source_split: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="of a REFER root, a folder of ETRIS files or Parquet files: whose images, e.g. val  [default: train]",
        ),
    ] = None
    source_split_by: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="of a REFER root with several refs(NAME).p: which, e.g. unc, umd, google"),
    ] = None

    source_column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="of Parquet files: the column of pictures  [default: image, or the only one]"
        ),
    ] = None
    source_kind: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"what --images is, where it is not recognised: {plugins.described(plugins.SOURCES)}, or a module of "
            "your own as my_package.my_module",
            autocompletion=completion.source_kinds,
        ),
    ] = None

    @property
    def choices(self) -> dict[str, str]:
        """What was chosen within the source."""
        chosen = {"split": self.source_split, "split_by": self.source_split_by, "column": self.source_column}
        return {name: value for name, value in chosen.items() if value is not None}


def _parse_shard(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise UsageError(f"--shard {text}: write i/n with 0 <= i < n, e.g. --shard 0/4")
    return int(index), int(count)


def with_options(command: Callable[..., R]) -> Callable[..., R]:
    """Spread the dataclasses among a command's parameters over flags of their own, and gather them again in the call.

    The help lists the flags in the order of the parameters, those of the first parameter last: every command has them.
    """
    hints = get_type_hints(command, include_extras=True)
    first, *others = inspect.signature(command).parameters.values()
    parameters: list[inspect.Parameter] = []
    gathered: dict[str, type] = {}
    for parameter in (*others, first):
        hint = hints[parameter.name]
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            gathered[parameter.name] = hint
            parameters += _spread(hint)
        else:
            parameters.append(parameter.replace(annotation=hint, kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(command)
    def call(**values: Any) -> R:
        for name, options in gathered.items():
            values[name] = options(**{item.name: values.pop(item.name) for item in dataclasses.fields(options)})
        return command(**values)

    setattr(call, "__signature__", inspect.Signature(parameters))  # noqa: B010  # mypy knows no such attribute
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del call.__wrapped__
    return call


def _spread(options: type) -> list[inspect.Parameter]:
    """The fields of a dataclass as parameters."""
    hints = get_type_hints(options, include_extras=True)
    spread = []
    for item in dataclasses.fields(options):
        default = item.default_factory() if item.default_factory is not dataclasses.MISSING else item.default
        spread.append(
            inspect.Parameter(item.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hints[item.name])
        )
    return spread
