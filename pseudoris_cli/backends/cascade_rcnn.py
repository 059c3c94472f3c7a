"""Object proposals by CutLER (Wang et al., 2023): Cascade Mask R-CNN R50-FPN without detectron2."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from pseudoris_cli.method.protocols import Proposal, Proposer
from pseudoris_cli.rle import encode_rle
from pseudoris_cli.settings.models import BackendSettings, Channels, Fraction, Numerics
from pseudoris_cli.weights.registry import resolve
from pseudoris_cli.weights.tensors import load_tensors, torch_generator
from pseudoris_cli.weights.unwrapping import unwrapped

if TYPE_CHECKING:
    from pseudoris_cli.networks.cascade_rcnn.detector import CascadeRCNN
    from pseudoris_cli.networks.memory import Memory, Work

ROLE = "proposer"


class Settings(BackendSettings):
    """Detection settings; the defaults are the paper's."""

    backend: Literal["cascade_rcnn"] = Field("cascade_rcnn", description="who says which masks are objects")
    model: Literal["r50_fpn", "demo", "tiny"] = Field("r50_fpn", description="size of the network")
    checkpoint: str = Field("cutler_cascade", description="registry name, path, or random:SEED")
    channels: Channels = Field("rgb", description="colour order into the network (release: bgr)")
    score_thresh: Fraction = Field(0.5, description="detections must score higher")
    min_size: int = Field(800, ge=32, description="shortest edge of the network's input")
    max_size: int = Field(1333, ge=32, description="longest edge of the network's input")

    @classmethod
    def tiny(cls) -> Settings:
        return cls(model="tiny", checkpoint="random:0", min_size=128, max_size=256)


class CascadeProposer(Proposer):
    """The detector at work."""

    def __init__(self, network: CascadeRCNN, settings: Settings, device: str) -> None:
        self.network, self.settings, self.device = network, settings, device

    def propose(self, images_rgb: Sequence[np.ndarray], keys: Sequence[str]) -> list[list[Proposal]]:
        """Detect in each [H, W, 3] uint8 RGB image.

        Only images whose inputs are padded to one size share a batch, since padding changes what the network sees at
        the border. On a CPU, where a batch gains nothing, each image goes alone and so gives the same bits anywhere.
        """
        from pseudoris_cli.networks.cascade_rcnn.transforms import resize

        inputs = []
        for image in images_rgb:
            ordered = image if self.settings.channels == "rgb" else image[:, :, ::-1]
            inputs.append(resize(ordered, self.settings.min_size, self.settings.max_size))
        found: list[list[Proposal]] = [[] for _ in inputs]
        for group in self._groups(inputs):
            frames = [images_rgb[i].shape[:2] for i in group]
            for i, proposals in zip(group, self._detect([inputs[i] for i in group], frames), strict=True):
                found[i] = proposals
        return found

    def _groups(self, inputs: Sequence[np.ndarray]) -> Iterator[list[int]]:
        from pseudoris_cli.networks.cascade_rcnn.transforms import padded_size

        groups: dict[tuple[int, ...], list[int]] = {}
        for i, image in enumerate(inputs):
            alone = () if self.device != "cpu" else (i,)
            groups.setdefault(padded_size(image.shape[:2]) + alone, []).append(i)
        yield from groups.values()

    def _detect(self, inputs: Sequence[np.ndarray], frames: Sequence[tuple[int, int]]) -> Iterator[list[Proposal]]:
        import torch

        from pseudoris_cli.networks.cascade_rcnn.transforms import normalise, paste_masks, to_frame

        sizes = [(image.shape[0], image.shape[1]) for image in inputs]
        pixels = torch.stack([normalise(image, self.device) for image in inputs])
        detections = self.network.detect(pixels, sizes, self.settings.score_thresh)
        for detected, size, frame in zip(detections, sizes, frames, strict=True):
            placed = to_frame(detected, size, frame)
            masks = map(encode_rle, paste_masks(placed, frame))
            yield [Proposal(rle, score) for rle, score in zip(masks, placed.scores.tolist(), strict=True)]


def load(settings: Settings, numerics: Numerics, device: str) -> CascadeProposer:
    """Build the detector and fill it from the checkpoint.

    Raises MissingDependency where the checkpoint is absent, UsageError where it does not fit the network.
    """
    from pseudoris_cli.networks.numerics import dtype_of, set_up

    set_up(numerics)
    network = build(settings).prepare(device, dtype_of(numerics))
    if numerics.compile:
        network.backbone.compile(dynamic=True)
    return CascadeProposer(network, settings, device)


def memory(settings: Settings, work: Work) -> Memory:
    """What `load` and one call need of a device, for pictures of 4 to 3."""
    from pseudoris_cli.networks.cascade_rcnn.detector import SIZES
    from pseudoris_cli.networks.cascade_rcnn.memory import memory as of_network
    from pseudoris_cli.networks.cascade_rcnn.transforms import network_size, padded_size

    height, width = padded_size(network_size(480, 640, settings.min_size, settings.max_size))
    return of_network(SIZES[settings.model], height * width, work)


def build(settings: Settings) -> CascadeRCNN:
    """The network in float32 on the CPU with its weights, before anything is folded or cast."""
    from pseudoris_cli.networks.cascade_rcnn.checkpoint import load_strictly, state_dict_of
    from pseudoris_cli.networks.cascade_rcnn.detector import SIZES, CascadeRCNN, initialise

    checkpoint = resolve(settings.checkpoint)
    network = CascadeRCNN(SIZES[settings.model])
    if checkpoint.seed is not None:
        initialise(network, torch_generator(checkpoint.seed))
    else:
        assert checkpoint.path is not None
        name = str(checkpoint.path)
        load_strictly(
            network, state_dict_of(unwrapped(load_tensors(checkpoint.path), network.state_dict(), name), name), name
        )
    return network
