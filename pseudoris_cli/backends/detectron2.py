"""Object proposals by CutLER through detectron2 itself, where that package is installed (third_party/detectron2.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from pseudoris_cli.errors import MissingDependency, UsageError
from pseudoris_cli.method.protocols import Proposal, Proposer
from pseudoris_cli.rle import encode_rle
from pseudoris_cli.settings.models import BackendSettings, Channels, Fraction, Numerics
from pseudoris_cli.weights.registry import resolve
from pseudoris_cli.weights.tensors import load_tensors
from pseudoris_cli.weights.unwrapping import unwrapped

ROLE = "proposer"


class Settings(BackendSettings):
    """Detection settings; the defaults are the paper's."""

    backend: Literal["detectron2"] = Field("detectron2", description="who says which masks are objects")
    checkpoint: str = Field("cutler_cascade", description="registry name, path, or random:SEED")
    channels: Channels = Field("rgb", description="colour order into the network (release: bgr)")
    score_thresh: Fraction = Field(0.5, description="detections must score higher")
    min_size: int = Field(800, ge=32, description="shortest edge of the network's input")
    max_size: int = Field(1333, ge=32, description="longest edge of the network's input")
    overrides: dict[str, int | float | str] = Field({}, description="further detectron2 settings, by dotted name")

    @classmethod
    def tiny(cls) -> Settings:
        widths = {
            "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
            "MODEL.RESNETS.RES2_OUT_CHANNELS": 16,
            "MODEL.RESNETS.WIDTH_PER_GROUP": 8,
            "MODEL.FPN.OUT_CHANNELS": 16,
            "MODEL.ROI_BOX_HEAD.FC_DIM": 32,
            "MODEL.ROI_MASK_HEAD.CONV_DIM": 16,
        }
        return cls(checkpoint="random:0", min_size=128, max_size=256, overrides=widths)


class Detectron2Proposer(Proposer):
    """detectron2's network and transforms, one image at a time as the release runs them."""

    def __init__(self, network: Any, resize: Any, channels: str) -> None:
        self.network, self.resize, self.channels = network, resize, channels

    def instances(self, image: np.ndarray) -> Any:
        """detectron2's `Instances`, on the CPU, of a uint8 image [H, W, 3] whose channels are as the network wants them."""
        import torch

        resized = self.resize.get_transform(image).apply_image(image)
        pixels = torch.tensor(resized.astype(np.float32).transpose(2, 0, 1))
        with torch.inference_mode():
            [output] = self.network([{"image": pixels, "height": image.shape[0], "width": image.shape[1]}])
        return output["instances"].to("cpu")

    def propose(self, images_rgb: Sequence[np.ndarray], keys: Sequence[str]) -> list[list[Proposal]]:
        """Detect in each [H, W, 3] uint8 RGB image."""
        found = []
        for image in images_rgb:
            output = self.instances(image if self.channels == "rgb" else np.ascontiguousarray(image[:, :, ::-1]))
            masks = map(encode_rle, output.pred_masks.numpy())
            found.append([Proposal(rle, score) for rle, score in zip(masks, output.scores.tolist(), strict=True)])
        return found


def load(settings: Settings, numerics: Numerics, device: str) -> Detectron2Proposer:
    """Build detectron2's model for CutLER's configuration and fill it strictly.

    Raises MissingDependency without the package or the checkpoint, UsageError for a checkpoint that does not fit and
    for numerics that detectron2's inference does not have.
    """
    try:
        from detectron2.data.transforms import ResizeShortestEdge
        from detectron2.modeling import build_model
    except ImportError as error:
        raise MissingDependency(
            f"masks.proposals.backend is detectron2, which cannot be imported ({error})\n"
            "third_party/detectron2.md says how to build it; `backend: cascade_rcnn` gives the same masks without it"
        ) from error
    if numerics.precision != "fp32" or numerics.compile:
        raise UsageError("masks.proposals.backend detectron2 runs in fp32 without compile; set numerics accordingly")
    import torch

    from pseudoris_cli.networks.cascade_rcnn.checkpoint import load_strictly, state_dict_of
    from pseudoris_cli.networks.numerics import set_up

    set_up(numerics)
    checkpoint = resolve(settings.checkpoint)
    torch.manual_seed(checkpoint.seed or 0)  # detectron2 draws its initial weights from the global generator
    network = build_model(configure(settings, device))
    if checkpoint.path is not None:
        name = str(checkpoint.path)
        load_strictly(
            network, state_dict_of(unwrapped(load_tensors(checkpoint.path), network.state_dict(), name), name), name
        )
    edges = [settings.min_size, settings.min_size]
    return Detectron2Proposer(network.eval(), ResizeShortestEdge(edges, settings.max_size), settings.channels)


def configure(settings: Settings, device: str) -> Any:
    """detectron2's configuration for CutLER: where it differs from its defaults, as CutLER's files and the release do."""
    from detectron2.config import get_cfg

    cfg = get_cfg()
    values: dict[str, Any] = {
        "MODEL.DEVICE": device,
        "MODEL.MASK_ON": True,
        "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone",
        "MODEL.BACKBONE.FREEZE_AT": 0,
        "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
        "MODEL.RESNETS.NORM": "BN",
        "MODEL.RESNETS.STRIDE_IN_1X1": False,
        "MODEL.FPN.IN_FEATURES": ["res2", "res3", "res4", "res5"],
        "MODEL.FPN.NORM": "BN",
        "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53],
        "MODEL.PIXEL_STD": [58.395, 57.12, 57.375],
        "MODEL.ANCHOR_GENERATOR.SIZES": [[32], [64], [128], [256], [512]],
        "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[0.5, 1.0, 2.0]],
        "MODEL.RPN.IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"],
        "MODEL.RPN.PRE_NMS_TOPK_TEST": 1000,
        "MODEL.RPN.POST_NMS_TOPK_TEST": 1000,
        "MODEL.RPN.NMS_THRESH": 0.65,
        "MODEL.ROI_HEADS.NAME": "CascadeROIHeads",
        "MODEL.ROI_HEADS.IN_FEATURES": ["p2", "p3", "p4", "p5"],
        "MODEL.ROI_HEADS.NUM_CLASSES": 1,
        "MODEL.ROI_HEADS.SCORE_THRESH_TEST": settings.score_thresh,
        "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
        "MODEL.ROI_BOX_HEAD.NUM_FC": 2,
        "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
        "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True,
        "MODEL.ROI_MASK_HEAD.NAME": "MaskRCNNConvUpsampleHead",
        "MODEL.ROI_MASK_HEAD.NUM_CONV": 4,
        "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 14,
    }
    for name, value in (values | settings.overrides).items():
        cfg.merge_from_list([name, value])
    return cfg
