"""What each stage needs of the device's memory with the chosen settings, and the largest settings that fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from pseudoris_cli.errors import MissingDependency
from pseudoris_cli.networks.memory import Memory, Work, largest
from pseudoris_cli.settings import plugins
from pseudoris_cli.settings.models import BackendSettings, JudgeSettings, Settings

SHARE = 0.9
"""Of the device that may be planned for; allocators leave holes, and the driver keeps some."""
CONTEXT = 0.6e9
"""Of a GPU that the driver and the libraries take for themselves; about so much, not measured."""
CHUNKS = ("prompt_chunk", "row_chunk", "image_chunk", "mask_batch")
"""Settings of backends that bound memory."""


@dataclass(frozen=True)
class StagePlan:
    """One stage: its need, and for each setting that bounds memory its largest fitting value, by dotted name."""

    stage: str
    need: Memory
    fitting: dict[str, int] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    """Backends that do not tell what they need."""


def plan(settings: Settings, on_gpu: bool, available: float) -> Iterator[StagePlan]:
    """The stages with networks on this device, which has so many bytes."""
    masks = settings.masks
    segmenter = {} if masks.proposals.MASKS_ARE_FINAL else {"masks.sam": masks.sam}
    stages: list[tuple[str, dict[str, BackendSettings], int, str]] = [
        ("masks", segmenter | {"masks.proposals": masks.proposals}, masks.image_batch, "masks.image_batch"),
        ("scores", {"filter.scorer": settings.filter.scorer}, settings.filter.image_batch, "filter.image_batch"),
    ]
    if not settings.captions.RUNS_ELSEWHERE:
        batch = settings.captions.image_batch
        stages.insert(1, ("captions", {"captions": settings.captions}, batch, "captions.image_batch"))
    judge = settings.filter.judge
    if isinstance(judge, JudgeSettings) and not judge.RUNS_ELSEWHERE:
        stages.append(("judge", {"filter.judge": judge}, judge.image_batch, "filter.judge.image_batch"))
    budget = SHARE * (available - CONTEXT * on_gpu)
    for stage, sections, images, setting in stages:
        need, unknown = _need(sections, Work(images, settings.numerics, on_gpu))
        fitting = {setting: largest(_images_fit(sections, settings, on_gpu, budget), 256)}
        for name, section in sections.items():
            for chunk in (one for one in CHUNKS if one in type(section).model_fields):
                work = Work(images, settings.numerics, on_gpu)
                fitting[f"{name}.{chunk}"] = largest(_chunk_fits(sections, (name, chunk), work, budget), 1 << 16)
        yield StagePlan(stage, need, {} if unknown else fitting, tuple(unknown))


Sections = dict[str, BackendSettings]


def _images_fit(sections: Sections, settings: Settings, on_gpu: bool, budget: float) -> Callable[[int], bool]:
    return lambda images: _need(sections, Work(images, settings.numerics, on_gpu))[0].total <= budget


def _chunk_fits(sections: Sections, setting: tuple[str, str], work: Work, budget: float) -> Callable[[int], bool]:
    name, chunk = setting
    return lambda number: (
        _need(sections | {name: sections[name].model_copy(update={chunk: number})}, work)[0].total <= budget
    )


def _need(sections: dict[str, BackendSettings], work: Work) -> tuple[Memory, list[str]]:
    """The sum of what the backends tell, and those that tell nothing."""
    found, unknown = Memory(0, 0), []
    for name, section in sections.items():
        module = plugins.load(plugins.BACKENDS, section.backend)
        if hasattr(module, "memory"):
            try:
                found += module.memory(section, work)
            except MissingDependency as error:
                unknown.append(f"{name}.backend={section.backend} ({str(error).splitlines()[0]})")
        elif hasattr(section, "checkpoint") or hasattr(section, "model"):
            unknown.append(f"{name}.backend={section.backend}")
    return found, unknown
