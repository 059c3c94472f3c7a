"""`pseudoris masks|captions|filter|export|run`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast, get_args

import typer

from pseudoris_cli.cli import completion
from pseudoris_cli.cli.cost_table import PriceIn, PriceOut, costs_of
from pseudoris_cli.cli.export_options import ExportOptions
from pseudoris_cli.cli.options import SourceOptions, StageOptions, from_option, setting_option, with_options
from pseudoris_cli.cli.report_command import report_on_pilot
from pseudoris_cli.cli.session import open_session, remember_source, report
from pseudoris_cli.errors import UsageError
from pseudoris_cli.export.base import ImageMode
from pseudoris_cli.settings import plugins
from pseudoris_cli.storage.stage_table import commands, stages_of

if TYPE_CHECKING:
    from pseudoris_cli.execution.runner import Summary
    from pseudoris_cli.pipeline.session import Session

R = TypeVar("R")
Limit = Annotated[int | None, typer.Option(min=1, help="plan at most this many images; later runs go on from there")]
From = Annotated[str | None, from_option("version of the stage before, or its first digits  [default: current]")]
MinDoc = Annotated[float | None, setting_option("filter.min_doc")]
TopK = Annotated[int | None, setting_option("filter.top_k_per_mask", min=1)]
MinWords = Annotated[int | None, setting_option("filter.min_words", min=0)]
MaxWords = Annotated[int | None, setting_option("filter.max_words", min=1)]
Formats = Annotated[
    list[str],
    typer.Option(
        "--format", help=f"{plugins.described(plugins.FORMATS)}; repeatable", autocompletion=completion.formats
    ),
]
Out = Annotated[Path | None, typer.Option(help="folder for the exported files")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace a folder that pseudoris did not make")]
_TO_EXPORT = "export --out data/pseudo"
_IMAGE_MODES = ", ".join(get_args(ImageMode))
_IMAGE_FILES = f"image files in the export: {_IMAGE_MODES}"
RunImageFiles = Annotated[
    str, typer.Option("--export-images", help=_IMAGE_FILES, autocompletion=completion.image_modes)
]
ImageFiles = Annotated[
    str,
    typer.Option(
        "--export-images",
        "--images",
        help=f"{_IMAGE_FILES} (--images is the short form, here only: in other commands it names the source)",
        autocompletion=completion.image_modes,
    ),
]
Split = Annotated[str | None, setting_option("export.split")]
Dataset = Annotated[str | None, setting_option("export.dataset")]
SplitBy = Annotated[str | None, setting_option("export.split_by")]
MaxCaptions = Annotated[int | None, setting_option("export.max_captions", min=1)]


def _lists_backends(**sections: str) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Let a command's help name the backends that fit each section of the settings, given as section=role."""

    def decorate(command: Callable[..., R]) -> Callable[..., R]:
        takes = [
            f"{section.replace('__', '.')}.backend takes {plugins.described(plugins.BACKENDS, plugins.backends_of(role))}"
            for section, role in sections.items()
        ]
        command.__doc__ = f"{inspect.cleandoc(command.__doc__ or '')}\n\nPlug-ins: {'; '.join(takes)}."
        return command

    return decorate


@with_options
@_lists_backends(masks__sam="segmenter", masks__proposals="proposer")
def masks(options: StageOptions, source: SourceOptions, limit: Limit = None) -> None:
    """Stage 1: pseudo-masks. SAM's masks of every image, of which CutLER chooses the objects.

    Resumes by itself: what is done is kept, only new or changed images are worked on.

    Example: pseudoris masks --images photos --gpu 0; a look first: --pilot 8. Next: pseudoris captions
    """
    resolved = options.resolve_for("masks")
    remember_source(options.workspace, source, options.quiet)
    with open_session(options, resolved) as session:
        from pseudoris_cli.pipeline.running import run_masks

        summaries = [run_masks(session, limit)]
        report(options, summaries, _pilot_report(session, options), "captions")


@with_options
@_lists_backends(captions="captioner")
def captions(
    options: StageOptions, from_version: From = None, price_in: PriceIn = None, price_out: PriceOut = None
) -> None:
    """Stage 2: candidate expressions for every mask: by distinctive caption sampling, or by a vision-language model.

    Example: pseudoris captions --gpu 0. Next: pseudoris filter
    """
    with open_session(options, options.resolve_for("captions")) as session:
        from pseudoris_cli.pipeline.running import run_command

        summaries = run_command(session, "captions", from_version)
        report(options, summaries, {"costs": costs_of(session, summaries, price_in, price_out)}, "filter")


@with_options
@_lists_backends(filter__scorer="scorer", filter__nouns="nouns", filter__judge="listener")
def filter(
    options: StageOptions,
    from_version: From = None,
    min_doc: MinDoc = None,
    top_k_per_mask: TopK = None,
    min_words: MinWords = None,
    max_words: MaxWords = None,
    decisions: Annotated[
        Path | None,
        typer.Option(help="keep and drop decisions made by hand, as the report saves them; they win over the rules"),
    ] = None,
    price_in: PriceIn = None,
    price_out: PriceOut = None,
) -> None:
    """Stage 3: score every expression against every mask of its image, and keep those that fit only theirs.

    Scores are computed once; other thresholds select anew in seconds.

    Example: pseudoris filter --min-doc 1.1. Next: pseudoris report, then pseudoris export --out OUT
    """
    flags = _filter_flags(min_doc, top_k_per_mask, min_words, max_words)
    flags["filter.decisions"] = str(decisions.absolute()) if decisions else None
    with open_session(options, options.resolve_for("filter", flags)) as session:
        from pseudoris_cli.pipeline.running import run_command

        summaries = run_command(session, "filter", from_version)
        figures: dict[str, Any] = {"filter": _filter_figures(session, summaries[-1].version)}
        figures["costs"] = costs_of(session, summaries, price_in, price_out)
        report(options, summaries, figures, "report", _TO_EXPORT)


@with_options
def export(
    options: StageOptions,
    chosen: ExportOptions,
    out_folder: Annotated[Path | None, typer.Option("--out", help="folder for the exported files")] = None,
    formats: Formats = ["refcoco"],  # noqa: B006  # Typer reads the default, nobody changes it
    from_version: From = None,
    overwrite: Overwrite = False,
    image_files: ImageFiles = "none",
    split: Split = None,
    dataset: Dataset = None,
    split_by: SplitBy = None,
    max_captions: MaxCaptions = None,
) -> None:
    """Stage 4: write what was kept in the formats that training code reads.

    Example: pseudoris export --format refcoco --out data/pseudo
    """
    flags = _export_flags(split, dataset, split_by, max_captions) | chosen.flags
    with open_session(options, options.resolve_for("export", flags)) as session:
        session = replace(session, choice=chosen.choice)
        request = ExportRequest(_wanted_out(out_folder), formats, overwrite, image_files)
        summaries, extra = _export(session, request, from_version)
        report(options, summaries, extra, "report")


@with_options
def run(
    options: StageOptions,
    source: SourceOptions,
    chosen: ExportOptions,
    limit: Limit = None,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="folder for the exported files; none: no export")
    ] = None,
    formats: Formats = ["refcoco"],  # noqa: B006
    overwrite: Overwrite = False,
    image_files: RunImageFiles = "none",
    min_doc: MinDoc = None,
    split: Split = None,
    dataset: Dataset = None,
    max_captions: MaxCaptions = None,
    price_in: PriceIn = None,
    price_out: PriceOut = None,
) -> None:
    """All four stages, one after the other. A second run does nothing; new images are the only ones worked on.

    Example: pseudoris run --images photos --gpu 0 --out data/pseudo
    """
    flags = _filter_flags(min_doc, None, None, None) | _export_flags(split, dataset, None, max_captions) | chosen.flags
    resolved = options.resolve_all(commands(), flags)
    if source.images and source.images in get_args(ImageMode) and not Path(source.images).exists():
        raise UsageError(
            f"--images {source.images}: here --images names the source; --export-images {source.images} says how image files "
            "come into the export"
        )
    if options.shard:
        raise UsageError(
            "--shard goes with masks, captions and filter; `run` needs each stage complete before the next"
        )
    remember_source(options.workspace, source, options.quiet)
    with open_session(options, resolved["masks"]) as session:
        from pseudoris_cli.pipeline import chain, running

        sessions = {
            name: replace(session, settings=one.settings, profile=one.profile) for name, one in resolved.items()
        }
        request = ExportRequest(out_folder, formats, overwrite, image_files) if out_folder else None
        sessions["export"] = replace(sessions["export"], choice=chosen.choice)
        if request:
            _check_export(session, request)
        chain.check_weights({name: one.settings for name, one in resolved.items()})
        summaries = [running.run_masks(session, limit)]
        for command in chain.commands_between("masks", "export"):
            summaries += running.run_command(sessions[command], command, summaries[-1].version)
        extra: dict[str, Any] = {"filter": _filter_figures(session, summaries[-1].version)}
        extra["costs"] = costs_of(session, summaries, price_in, price_out)
        if request:
            indexed, exported = _export(sessions["export"], request, summaries[-1].version)
            summaries += indexed
            extra |= exported
        following = () if options.pilot is not None else ("report",) if request else ("report", _TO_EXPORT)
        report(options, summaries, extra | _pilot_report(session, options), *following)


@dataclass(frozen=True)
class ExportRequest:
    """What the user asked of an export."""

    folder: Path
    formats: list[str]
    overwrite: bool
    image_files: str


def _export(session: Session, request: ExportRequest, version: str | None) -> tuple[list[Summary], dict[str, Any]]:
    from pseudoris_cli.export.render import polygon_figures
    from pseudoris_cli.pipeline import exporting, running

    mode = _check_export(session, request)
    summaries = running.run_command(session, "export", version)
    index = summaries[-1].version
    made = exporting.render_export(session, request.folder, tuple(request.formats), mode, request.overwrite, index)
    figures = polygon_figures(request.folder)
    extra = {"out": str(request.folder), "formats": request.formats, "rendered": made}
    return summaries, extra | ({"polygons": figures} if figures else {})


def _check_export(session: Session, request: ExportRequest) -> ImageMode:
    """Tell what is wrong with an export before the work begins; returns how image files come into it."""
    from pseudoris_cli.export.base import load_format
    from pseudoris_cli.pipeline import exporting

    if request.image_files not in get_args(ImageMode):
        raise UsageError(f"image files in the export, {request.image_files!r}: choose from {_IMAGE_MODES}")
    for name in request.formats:
        load_format(name)
    exporting.check_out(session, request.folder, request.overwrite, request.image_files == "link")
    return cast(ImageMode, request.image_files)


def other_stage(command: str) -> Callable[..., None]:
    """The command of stages that bring one of their own: an added stage needs no code here."""

    @with_options
    def run_stage(options: StageOptions, from_version: From = None) -> None:
        with open_session(options, options.resolve_for(command)) as session:
            from pseudoris_cli.pipeline.running import run_command

            report(options, run_command(session, command, from_version))

    units = " and ".join(f"{row.name} ({row.unit})" for row in stages_of(command))
    run_stage.__doc__ = f"Run the stage {units}, on what the stage before it made."
    return run_stage


def _filter_figures(session: Session, version: str) -> dict[str, Any] | None:
    from pseudoris_cli.stages.filter import figures

    artifact = session.workspace.artifact("filter", version)
    entries = artifact.manifest().entries
    found = figures(entries[part].notes for part in sorted(entries))
    if found and session.settings.filter.decisions:
        from pseudoris_cli.codecs.decisions import read_decisions

        by_hand = found.get("by_hand", {"kept": 0, "dropped": 0, "changed": 0})
        decided = len(read_decisions(Path(session.settings.filter.decisions)).keep)
        found["by_hand"] = by_hand | {"unknown": decided - by_hand["kept"] - by_hand["dropped"]}
    return found


def _pilot_report(session: Session, options: StageOptions) -> dict[str, str]:
    """Where the report of a pilot is; a shard has none, as it holds a part of the pilot only."""
    if options.pilot is None or options.shard:
        return {}
    return {"report": str(report_on_pilot(session.workspace, session.plan_name, options.quiet))}


def _wanted_out(folder: Path | None) -> Path:
    if folder is None:
        raise UsageError("--out is missing: name the folder for the exported files, e.g. --out data/pseudo")
    return folder


def _filter_flags(
    min_doc: float | None, top_k_per_mask: int | None, min_words: int | None, max_words: int | None
) -> dict[str, Any]:
    return {
        "filter.min_doc": min_doc,
        "filter.top_k_per_mask": top_k_per_mask,
        "filter.min_words": min_words,
        "filter.max_words": max_words,
    }


def _export_flags(
    split: str | None, dataset: str | None, split_by: str | None, max_captions: int | None
) -> dict[str, Any]:
    return {
        "export.split": split,
        "export.dataset": dataset,
        "export.split_by": split_by,
        "export.max_captions": max_captions,
    }
