"""The labels of a work directory: of every image all masks, and the captions that a filter run kept for each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import torch

from pseudoris_cli.codecs.image_decode import UndecodableImage, decode_rgb
from pseudoris_cli.networks.listener.inputs import crops_of, places_of
from pseudoris_cli.records import Mask
from pseudoris_cli.rle import decode_rle
from pseudoris_cli.sources import registry as sources
from pseudoris_cli.storage.lineage import Lineage
from pseudoris_cli.storage.parts import read_part
from pseudoris_cli.storage.rows import kept_rows, masks_by_image
from pseudoris_cli.storage.workspace import Artifact, Workspace

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """An image as the listener sees it, crops uint8 [M, 4, S, S] and places [M, GEOMETRY], and the captions of each mask."""

    key: str
    crops: torch.Tensor
    places: torch.Tensor
    captions: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Labels:
    """The images read, how many there were, and those that cannot be used any more, with the reason."""

    images: list[LabelledImage]
    usable: int
    unreadable: dict[str, str]


def read_labels(workspace: Workspace, kept: Artifact, most: int, seed: int, progress: Progress) -> Labels:
    """Images with two masks or more and a kept caption; if there are more than `most`, that many drawn at random.

    An image that is gone, or of another size than its masks, is left out and named.
    """
    chain = workspace.chain(kept)
    lineage = Lineage({stage: artifact.manifest() for stage, artifact in chain.items()})
    parts = [part.part for part in workspace.plan(kept.plan_name).parts]
    found = [key for part in parts for key in _of_part(lineage, part)]
    rng = np.random.default_rng(seed)
    chosen = set(found if len(found) <= most else [found[k] for k in rng.choice(len(found), most, replace=False)])
    reader = sources.source_of(workspace)
    images: list[LabelledImage] = []
    unreadable: dict[str, str] = {}
    for part in parts:
        for key, (masks, captions) in _of_part(lineage, part, chosen).items():
            try:
                image = decode_rgb(reader.read(key), masks[0].rle.height * masks[0].rle.width)
            except (UndecodableImage, OSError) as error:
                unreadable[key] = str(error)
                continue
            if image.shape[:2] != (masks[0].rle.height, masks[0].rle.width):
                unreadable[key] = "its size is not that of its masks"
                continue
            images.append(_labelled(key, image, masks, captions))
            progress("reading", len(images), len(chosen))
    return Labels(images, len(found), unreadable)


def _of_part(
    lineage: Lineage, part: int, wanted: Collection[str] | None = None
) -> dict[str, tuple[tuple[Mask, ...], dict[int, list[str]]]]:
    """Masks and kept captions of the images of a part that can teach something."""
    kept, masked = lineage.entry("filter", part), lineage.entry("masks", part)
    if kept is None or masked is None:
        return {}
    captions: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in kept_rows(read_part(lineage.manifests["filter"].path_of(kept))):
        if wanted is None or row.image_key in wanted:
            captions[row.image_key][row.mask_id].append(row.caption)
    masks = masks_by_image(read_part(lineage.manifests["masks"].path_of(masked)), captions.keys())
    return {key: (masks[key], of) for key, of in captions.items() if len(masks.get(key, ())) > 1}


def _labelled(
    key: str, image_rgb: np.ndarray, masks: tuple[Mask, ...], captions: dict[int, list[str]]
) -> LabelledImage:
    drawn = [decode_rle(mask.rle).astype(bool) for mask in masks]
    said = tuple(tuple(captions.get(mask.mask_id, ())) for mask in masks)
    return LabelledImage(key, crops_of(image_rgb, drawn), places_of(drawn), said)
