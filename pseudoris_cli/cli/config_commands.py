"""`pseudoris config show` and `pseudoris doctor`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from pseudoris_cli.cli.console import note, out, print_json
from pseudoris_cli.cli.options import CommandGroup, SettingOptions, WorkOptions, with_options
from pseudoris_cli.errors import MissingDependency
from pseudoris_cli.settings import plugins
from pseudoris_cli.settings.models import Settings, backend_sections
from pseudoris_cli.settings.resolve import Resolved
from pseudoris_cli.storage.stage_table import commands

app = typer.Typer(
    help="Settings: every value in force, and where it comes from.",
    no_args_is_help=True,
    rich_markup_mode=None,
    cls=CommandGroup,
)


@app.callback()
def config() -> None:
    """Settings: every value in force, and where it comes from."""


@dataclass
class KnownOptions(SettingOptions, WorkOptions):
    """Settings that start, as those of a stage do, from what the work directory remembers; not where a profile or file is named."""

    def resolve_as_remembered(self) -> Resolved:
        """The settings that the next command in the work directory would have."""
        from pseudoris_cli.storage.remembered import recall

        named = self.profile is not None or self.config is not None
        resolved = self.resolve(base=None if named else recall(self.workspace, list(commands())[-1]))
        if resolved.remembered_in:
            note(f"settings of {resolved.remembered_in}")
        return resolved


@app.command()
@with_options
def show(
    options: KnownOptions,
    as_json: Annotated[bool, typer.Option("--json", help="for machines")] = False,
) -> None:
    """Print every setting as YAML, with its origin and meaning as a comment: a file to start from.

    Defaults are commented out, so that a saved copy sets nothing by itself. In a work directory these are the settings that its
    next command starts from, unless a profile or file is named.

    Example: pseudoris config show --profile fast > pseudoris.yaml
    """
    resolved = options.resolve_as_remembered()
    if as_json:
        choices = dict(_backend_choices())
        print_json(
            {
                name: {"value": value, "origin": layer} | ({"choices": choices[name]} if name in choices else {})
                for name, value, layer in resolved.rows()
            }
        )
        return
    meanings = dict(_meanings(resolved.settings))
    for name, fitting in _backend_choices():
        meanings[name] = f"{meanings.get(name, 'plug-in')}; one of: {', '.join(fitting)}"
    out.print(f"# profile {resolved.profile}; later layers win: defaults, profile, file, --set, flags", markup=False)
    out.print("# Defaults are commented out: uncomment a setting with the sections it is in to set it", markup=False)
    _print_tree(resolved.settings.model_dump(mode="json"), resolved.layers, meanings)


def _backend_choices() -> Iterator[tuple[str, list[str]]]:
    """Every setting that names a backend, with the backends that fit there; those of other packages say whose they are."""
    for path, role in backend_sections(Settings):
        known = plugins.known(plugins.BACKENDS)
        yield f"{'.'.join(path)}.backend", [str(known[name]) for name in plugins.backends_of(role)]


def _print_tree(tree: dict[str, Any], layers: dict[str, str], meanings: dict[str, str], prefix: str = "") -> None:
    """A section line by line; what is at its default is commented out, a section with nothing else too."""
    indent = "  " * prefix.count(".")
    for name, value in tree.items():
        full = f"{prefix}{name}"
        is_set = full in layers or any(known.startswith(f"{full}.") for known in layers)
        mark = "" if is_set else "# "
        if isinstance(value, dict) and value:
            out.print(f"{indent}{mark}{name}:", markup=False)
            _print_tree(value, layers, meanings, f"{full}.")
            continue
        text = yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()
        comment = ", ".join(part for part in (meanings.get(full, ""), layers.get(full, "")) if part)
        out.print(f"{indent}{mark}{name}: {text}" + (f"  # {comment}" if comment else ""), markup=False)


def _meanings(model: Any, prefix: str = "") -> Any:
    for name, info in type(model).model_fields.items():
        value = getattr(model, name)
        if hasattr(type(value), "model_fields"):
            yield from _meanings(value, f"{prefix}{name}.")
        elif info.description:
            yield f"{prefix}{name}", info.description


@dataclass
class DoctorOptions(KnownOptions):
    """What decides whether a run could work."""

    gpu: Annotated[int | None, typer.Option(help="CUDA device that would be used")] = None
    device: Annotated[str | None, typer.Option(help="device that would be used: cpu, mps, cuda:N")] = None
    out_folder: Annotated[Path | None, typer.Option("--out", help="folder that would be exported to")] = None


@with_options
def doctor(
    options: DoctorOptions,
    endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="ask only this server what it can do, and how fast it is")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="for machines")] = False,
) -> None:
    """Tell what is missing for a profile on this machine, and which device and numerics would be used.

    Example: pseudoris doctor --profile paper; a server: pseudoris doctor --endpoint http://localhost:8000/v1
    """
    from pseudoris_cli.doctor.checks import examine, examine_endpoint
    from pseudoris_cli.execution.devices import DeviceRequest

    settings = options.resolve_as_remembered().settings
    if endpoint:
        checks = examine_endpoint(settings, endpoint)
    else:
        request = DeviceRequest(options.gpu, options.device)
        checks = examine(settings, options.workspace.root, request, options.out_folder)
    if as_json:
        print_json([asdict(check) for check in checks])
    else:
        for check in checks:
            out.print(f"{check.status:5}{check.name}: {check.detail}", markup=False)
            if check.next_step:
                out.print(f"     -> {check.next_step}", markup=False)
    if any(check.status == "fail" for check in checks):
        raise MissingDependency("a run with these settings cannot work yet; each `fail` above says what to do")
