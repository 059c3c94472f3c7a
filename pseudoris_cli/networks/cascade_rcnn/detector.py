"""The complete network, from normalised pixels to detections in network pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from pseudoris_cli.networks.cascade_rcnn.resnet_fpn import ResNetFPN, Sizes, fold_norms
from pseudoris_cli.networks.cascade_rcnn.roi_heads import CascadeHeads, Detections
from pseudoris_cli.networks.cascade_rcnn.rpn import RPN

R50_FPN = Sizes()
DEMO = Sizes(16, bottleneck=16, out=48, blocks=(1, 2, 2, 1), pyramid=48, box_hidden=96, mask_channels=32, proposals=100)
TINY = Sizes(8, bottleneck=4, out=16, blocks=(1, 1, 1, 1), pyramid=16, box_hidden=16, mask_channels=8, proposals=200)
SIZES = {"r50_fpn": R50_FPN, "demo": DEMO, "tiny": TINY}


class CascadeRCNN(nn.Module):
    """Cascade Mask R-CNN with the tensor names of detectron2's checkpoints."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.backbone = ResNetFPN(sizes)
        self.proposal_generator = RPN(sizes.pyramid, sizes.proposals)
        self.roi_heads = CascadeHeads(sizes)

    def prepare(self, device: str, dtype: torch.dtype) -> CascadeRCNN:
        """Move and cast the network for inference. In half precision the state dict changes.

        Half precision cannot represent the statistics of batch normalisation, so they are folded into the convolutions
        first. float32 keeps them separate like detectron2, as folding moves boxes by up to 0.05 pixel.
        """
        self.eval().requires_grad_(False)
        if dtype != torch.float32:
            fold_norms(self)
        return self.to(device=device, dtype=dtype)

    @torch.inference_mode()
    def detect(
        self, pixels: torch.Tensor, image_sizes: Sequence[tuple[int, int]], score_thresh: float
    ) -> list[Detections]:
        """The detections of each image of a batch [N, 3, H, W], normalised and zero-padded to one size.

        `image_sizes` are (height, width) without the padding. The heads run image by image, only the backbone in batches.
        """
        features = self.backbone(pixels.to(next(self.parameters()).dtype))
        proposals = self.proposal_generator(features, image_sizes)
        return [
            self.roi_heads([level[i : i + 1] for level in features], boxes, image_sizes[i], score_thresh)
            for i, (boxes, _) in enumerate(proposals)
        ]


def initialise(model: CascadeRCNN, generator: torch.Generator) -> None:
    """Random weights that keep activations near unit variance and give detections above 0.5 on any photograph."""
    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            fan_in = module.weight[0].numel() if not isinstance(module, nn.ConvTranspose2d) else module.in_channels
            gain = _GAINS.get(name.rsplit(".", 1)[-1], 2.0)
            with torch.no_grad():
                module.weight.copy_(torch.randn(module.weight.shape, generator=generator) * (gain / fan_in) ** 0.5)
                if module.bias is not None:
                    module.bias.zero_()


_GAINS = {"conv3": 0.2, "shortcut": 1.0, "anchor_deltas": 0.02, "bbox_pred": 0.2, "cls_score": 4.0, "predictor": 4.0}
"""Variance gain of layers without a ReLU after them (others: 2): small box deltas, confident scores and masks."""
