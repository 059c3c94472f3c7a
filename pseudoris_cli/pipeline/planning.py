"""From a source to its plan: which images there are, and in which parts they are worked on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pseudoris_cli.errors import UsageError
from pseudoris_cli.records import ImageRef
from pseudoris_cli.settings.models import Settings
from pseudoris_cli.sources import registry as sources
from pseudoris_cli.sources.base import Source
from pseudoris_cli.storage import left_out
from pseudoris_cli.storage.plan import PLAN, Plan, images_of
from pseudoris_cli.storage.workspace import Workspace


def extend_plan(
    workspace: Workspace, settings: Settings, plan_name: str = PLAN, limit: int | None = None, leader: bool = True
) -> tuple[Plan, int]:
    """Plan the images of the source that are not planned yet: the plan, and how many are new. UsageError if there are none.

    No network is loaded. Of many processes that begin together only the leader lists the source.
    """
    description, source = workspace.source(), sources.source_of(workspace)
    plan, pilot, size = workspace.plan(plan_name), images_of(plan_name), settings.source.part_size
    new = 0
    if pilot is None:
        new = plan.extend(_images(workspace, source, description), size, limit, leader)
    elif plan.image_count < pilot:
        new = plan.extend(spread(list(_images(workspace, source, description)), pilot), size, pilot)
    if not len(plan):
        raise UsageError("the source has no images any more; did they move? (--image-root)")
    return plan, new


def _images(workspace: Workspace, source: Source, description: dict[str, Any] | None) -> Iterator[ImageRef]:
    """The images to plan, listed while nobody else plans. UsageError if the work directory has got another source meanwhile.

    What the source passed over is remembered, once it was listed to the end.
    """
    if workspace.source() != description:
        raise UsageError(f"another command has just given {workspace.root} another source; look which is right")
    yield from source.images()
    passed_over = getattr(source, "left_out", None)
    if passed_over and passed_over.complete:
        left_out.save(workspace.root, passed_over.kinds)


def spread(images: list[ImageRef], count: int) -> list[ImageRef]:
    """`count` images at even distances over the source."""
    step = max(1.0, len(images) / count)
    return [images[int(number * step)] for number in range(min(count, len(images)))]
