"""Faults for the judges of the Cascade R-CNN: one expression of its source, or one constant, replaced at a time."""

from __future__ import annotations

import inspect
import textwrap
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest

from pseudoris_cli.backends import cascade_rcnn as backend
from pseudoris_cli.networks.cascade_rcnn import boxes, detector, resnet_fpn, roi_heads, rpn, transforms


@dataclass(frozen=True)
class Fault:
    """In `where` (a function or method of `module`) the text `old` becomes `new`; or the constant `where` does."""

    name: str
    module: ModuleType
    where: str
    old: str
    new: str

    def put_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make the fault, in every module that has imported what it is in."""
        owner: Any = self.module
        *outer, name = self.where.split(".")
        for part in outer:
            owner = getattr(owner, part)
        before = getattr(owner, name)
        after = self._faulty(before, owner) if callable(before) else eval(self.new)
        assert after != before
        monkeypatch.setattr(owner, name, after)
        for module in (backend, boxes, detector, resnet_fpn, roi_heads, rpn, transforms):
            if owner is self.module and callable(before) and module.__dict__.get(name) is before:
                monkeypatch.setattr(module, name, after)

    def _faulty(self, before: Any, owner: Any) -> Any:
        source = textwrap.dedent(inspect.getsource(before))
        assert source.count(self.old) == 1, f"{self.where} holds {self.old!r} {source.count(self.old)} times"
        source = source.replace(self.old, self.new).replace("super()", f"super({owner.__name__}, self)")
        made: dict[str, Any] = {}
        exec(compile(f"from __future__ import annotations\n{source}", self.name, "exec"), self.module.__dict__, made)
        return made[before.__name__]


FAULTS: dict[str, list[Fault]] = {
    "computed input": [
        Fault("colours as RGB", backend, "CascadeProposer.propose", '== "rgb"', '!= "rgb"'),
        Fault("pixel means in BGR order", transforms, "PIXEL_MEAN", "", "(103.53, 116.28, 123.675)"),
        Fault("pixel deviations in BGR order", transforms, "PIXEL_STD", "", "(57.375, 57.12, 58.395)"),
        Fault("no deviations", transforms, "normalise", "(pixels - mean) / std", "pixels - mean"),
        Fault("input size cut, not rounded", transforms, "network_size", "tall + 0.5", "tall"),
        Fault("longest edge to the size", transforms, "network_size", "min(height, width)", "max(height, width)"),
        Fault("bicubic input", transforms, "resize", "BILINEAR", "BICUBIC"),
        Fault("nearest input", transforms, "resize", "BILINEAR", "NEAREST"),
        Fault("padding with black", transforms, "normalise", "F.pad((pixels - mean) / std, (", "F.pad(pixels - mean, ("),
        Fault("padding at the left", transforms, "normalise",
              "(0, to_width - width, 0, to_height - height)",
              "(to_width - width, 0, to_height - height, 0)"),
        Fault("padding to multiples of 128", transforms, "PADDING_MULTIPLE", "", "128"),
        Fault("sizes swapped", backend, "CascadeProposer._detect",
              "(image.shape[0], image.shape[1])",
              "(image.shape[1], image.shape[0])"),
        Fault("the padded size as the image's", backend, "CascadeProposer._detect",
              "(image.shape[0], image.shape[1])",
              "(320, 256)"),
    ],
    "computed fpn": [
        Fault("epsilon of the norms", resnet_fpn, "ConvNorm.__init__",
              "nn.BatchNorm2d(outputs)",
              "nn.BatchNorm2d(outputs, 1e-3)"),
        Fault("strides in the 1x1", resnet_fpn, "Bottleneck.__init__",
              "width, 1)\n    self.conv2 = ConvNorm(width, width, 3, stride)",
              "width, 1, stride)\n    self.conv2 = ConvNorm(width, width, 3)"),
        Fault("no ReLU after the sum", resnet_fpn, "Bottleneck.forward",
              "F.relu_(y + (x if self.shortcut is None else self.shortcut(x)))",
              "y + (x if self.shortcut is None else self.shortcut(x))"),
        Fault("pooling without padding", resnet_fpn, "Stem.forward",
              "kernel_size=3, stride=2, padding=1",
              "kernel_size=2, stride=2"),
        Fault("average pooling", resnet_fpn, "Stem.forward", "F.max_pool2d", "F.avg_pool2d"),
        Fault("bilinear upsampling", resnet_fpn, "ResNetFPN.forward", 'mode="nearest"', 'mode="bilinear"'),
        Fault("outputs carried down", resnet_fpn, "ResNetFPN.forward",
              'pyramid.insert(0, self.get_submodule(f"fpn_output{number}")(above))',
              'above = self.get_submodule(f"fpn_output{number}")(above); pyramid.insert(0, above)'),
        Fault("ReLU in the pyramid", resnet_fpn, "ResNetFPN.forward", "(above))", "(above).relu())"),
        Fault("no p6", resnet_fpn, "ResNetFPN.forward",
              "pyramid.append(F.max_pool2d(pyramid[-1], kernel_size=1, stride=2))",
              "pass"),
        Fault("p6 by 2x2 maximum", resnet_fpn, "ResNetFPN.forward",
              "kernel_size=1, stride=2",
              "kernel_size=2, stride=2, ceil_mode=True"),
    ],
    "computed (rpn|input)": [
        Fault("anchors of half the size", rpn, "ANCHOR_SIZES", "", "(16, 32, 64, 128, 256)"),
        Fault("ratios of width to height", rpn, "ASPECT_RATIOS", "", "(2.0, 1.0, 0.5)"),
        Fault("anchors centred in their cells", rpn, "make_anchors",
              "torch.arange(width, device=device, dtype=torch.float32)",
              "(torch.arange(width, device=device, dtype=torch.float32) + 0.5)"),
        Fault("anchors rounded", rpn, "make_anchors",
              "constant(tuple(corners), device)",
              "constant(tuple(corners), device).round()"),
        Fault("anchors column by column", rpn, "make_anchors", 'indexing="xy"', 'indexing="ij"'),
        Fault("stride of p3 for p2", rpn, "STRIDES", "", "(8, 8, 16, 32, 64)"),
        Fault("deltas by coordinate", rpn, "RPNHead.forward",
              "unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2)",
              "unflatten(1, (4, -1)).permute(0, 3, 4, 2, 1)"),
        Fault("weights of proposals", rpn, "DELTA_WEIGHTS", "", "(1.0, 1.0, 2.0, 2.0)"),
        Fault("500 of a level", rpn, "TOP_PER_LEVEL", "", "500"),
        Fault("990 proposals", rpn, "RPN.__init__", "= proposals", "= proposals - 10"),
        Fault("no limit of proposals", rpn, "RPN.__init__", "= proposals", "= 5000"),
        Fault("IoU of proposals", rpn, "NMS_IOU", "", "0.7"),
        Fault("IoU of proposals by .005", rpn, "NMS_IOU", "", "0.645"),
        Fault("suppression across levels", rpn, "select_proposals",
              "batched_nms(boxes, logits, levels",
              "batched_nms(boxes, logits, levels * 0"),
        Fault("proposals not clipped", rpn, "select_proposals", "clip(boxes, image_size)", "boxes"),
        Fault("proposals in another order", rpn, "select_proposals",
              "return boxes[keep], logits[keep]",
              "keep = keep.flip(0); return boxes[keep], logits[keep]"),
    ],
    "computed (rpn|stage)": [
        Fault("sampling ratio 2", roi_heads, "pool", "STRIDES[level], 0,", "STRIDES[level], 2,"),
        Fault("not aligned", roi_heads, "pool", "aligned=True", "aligned=False"),
        Fault("canonical size 256", roi_heads, "pyramid_levels", "/ 224", "/ 256"),
        Fault("canonical level 5", roi_heads, "pyramid_levels", "4 + torch", "5 + torch"),
        Fault("levels rounded", roi_heads, "pyramid_levels", "torch.floor", "torch.round"),
        Fault("one level", roi_heads, "pyramid_levels", "clamp(2, 5)", "clamp(2, 2)"),
        Fault("features transposed", roi_heads, "BoxHead.forward", "pooled.flatten(1)", "pooled.transpose(2, 3).flatten(1)"),
        Fault("channels last", roi_heads, "BoxHead.forward", "pooled.flatten(1)", "pooled.permute(0, 2, 3, 1).flatten(1)"),
        Fault("no second ReLU", roi_heads, "BoxHead.forward",
              "F.relu_(self.fc2(F.relu_(self.fc1(pooled.flatten(1)))))",
              "self.fc2(F.relu_(self.fc1(pooled.flatten(1))))"),
        Fault("one head for all stages", roi_heads, "CascadeHeads.run_stage", "self.box_head[stage]", "self.box_head[0]"),
        Fault("weights of stage 0 for all", roi_heads, "STAGE_WEIGHTS", "", "((10, 10, 5, 5),) * 3"),
        Fault("weights (10, 20, 30)", roi_heads, "STAGE_WEIGHTS", "", "((10,) * 4, (20,) * 4, (30,) * 4)"),
        Fault("weights of sides and centres swapped", roi_heads, "STAGE_WEIGHTS",
              "",
              "((5, 5, 10, 10), (10, 10, 20, 20), (15, 15, 30, 30))"),
        Fault("centres at the corner", boxes, "centres_and_sides", "boxes[..., :2] + 0.5 * sides", "boxes[..., :2]"),
        Fault("sides with one pixel more", boxes, "centres_and_sides",
              "boxes[..., 2:] - boxes[..., :2]",
              "boxes[..., 2:] - boxes[..., :2] + 1"),
        Fault("clipped to one pixel less", boxes, "clip",
              "height, width = image_size",
              "height, width = image_size[0] - 1, image_size[1] - 1"),
        Fault("boxes between stages not clipped", roi_heads, "CascadeHeads.refine",
              "clip(outputs[-1].refined, image_size)",
              "outputs[-1].refined"),
        Fault("two stages", roi_heads, "CascadeHeads.refine", "range(len(STAGE_WEIGHTS))", "(0, 1, 1)"),
    ],
    "computed (raw_boxes|scores)": [
        Fault("score threshold .02 lower", roi_heads, "select_detections",
              "scores > score_thresh",
              "scores > score_thresh - 0.02"),
        Fault("score threshold .002 lower", roi_heads, "select_detections",
              "scores > score_thresh",
              "scores > score_thresh - 0.002"),
        Fault("background first", roi_heads, "select_detections", "softmax(dim=1)[:, 0]", "softmax(dim=1)[:, 1]"),
        Fault("sigmoid scores", roi_heads, "select_detections",
              "output.logits.softmax(dim=1)[:, 0]",
              "output.logits.sigmoid()[:, 0]"),
        Fault("scores of the last stage", roi_heads, "select_detections", "(first + second + third) * (1 / 3)", "third"),
        Fault("scores of two stages", roi_heads, "select_detections",
              "(first + second + third) * (1 / 3)",
              "(second + third) / 2"),
        Fault("scores by the geometric mean", roi_heads, "select_detections",
              "(first + second + third) * (1 / 3)",
              "(first * second * third) ** (1 / 3)"),
        Fault("boxes of stage 1", roi_heads, "select_detections", "stages[-1].refined", "stages[-2].refined"),
        Fault("IoU of detections", roi_heads, "NMS_IOU", "", "0.6"),
        Fault("IoU of detections by .02", roi_heads, "NMS_IOU", "", "0.48"),
        Fault("no suppression", roi_heads, "NMS_IOU", "", "1.0"),
        Fault("40 detections", roi_heads, "MOST_DETECTIONS", "", "40"),
        Fault("detections not clipped", roi_heads, "select_detections", "clip(boxes[likely], image_size)", "boxes[likely]"),
        Fault("detections in ascending order", roi_heads, "select_detections",
              "return boxes[keep], scores[keep]",
              "keep = keep.flip(0); return boxes[keep], scores[keep]"),
    ],
    "computed (mask|boxes in|scores)": [
        Fault("masks of the proposals", roi_heads, "CascadeHeads.forward",
              "pool(features, _rois(boxes)",
              "pool(features, _rois(proposals[: len(boxes)])"),
        Fault("masks of stage 2's input", roi_heads, "CascadeHeads.forward",
              "_rois(boxes), MASK",
              "_rois(stages[2].boxes[: len(boxes)]), MASK"),
        Fault("masks without a layer", roi_heads, "MaskHead.forward", "self.mask_fcn4, ", ""),
        Fault("no sigmoid", roi_heads, "CascadeHeads.forward", ".sigmoid()", ""),
        Fault("mask threshold 0.45", transforms, "paste_masks", "(values >= 0.5)", "(values >= 0.45)"),
        Fault("mask threshold 0.501", transforms, "paste_masks", "(values >= 0.5)", "(values >= 0.501)"),
        Fault("pasted at pixel corners", transforms, "paste_masks", "torch.arange(y0, y1) + 0.5", "torch.arange(y0, y1)"),
        Fault("pasted with aligned corners", transforms, "paste_masks", "align_corners=False", "align_corners=True"),
        Fault("pasted nearest", transforms, "paste_masks", "align_corners=False", 'align_corners=False, mode="nearest"'),
        Fault("padding of the border", transforms, "paste_masks",
              "align_corners=False",
              'align_corners=False, padding_mode="border"'),
        Fault("masks mirrored", transforms, "paste_masks", "zip(boxes, probabilities", "zip(boxes, probabilities.flip(2)"),
        Fault("masks transposed", transforms, "paste_masks", "zip(boxes, probabilities", "zip(boxes, probabilities.mT"),
        Fault("masks of the next detection", transforms, "paste_masks",
              "zip(boxes, probabilities",
              "zip(boxes, probabilities.roll(1, 0)"),
        Fault("masks a pixel lower", transforms, "paste_masks", "yield canvas", "yield np.roll(canvas, 1, 0)"),
        Fault("masks not erased", transforms, "paste_masks", "canvas[y0:y1, x0:x1] = False", "pass"),
        Fault("rows and columns of the scale swapped", transforms, "to_frame",
              "[frame[1] / network[1], frame[0] / network[0]]",
              "[frame[0] / network[0], frame[1] / network[1]]"),
        Fault("scale of the padded size", transforms, "to_frame", "frame[0] / network[0]", "frame[0] / padded_size(network)[0]"),
        Fault("boxes of the network's frame", transforms, "to_frame", "found.boxes * scale", "found.boxes"),
        Fault("scores rounded", backend, "CascadeProposer._detect", "placed.scores.tolist()", "placed.scores.half().tolist()"),
    ],
}  # fmt: skip
"""By how the judge's first complaint begins (a regular expression)."""

UNSEEN: dict[str, list[Fault]] = {
    "decoding": [
        Fault("no bound of the log scale", boxes, "LARGEST_LOG_SCALE", "", "1e9"),
        Fault("another bound of the log scale", boxes, "LARGEST_LOG_SCALE", "", "3.4"),
        Fault("shrinking bounded too", boxes, "apply_deltas", "clamp(max=LARGEST_LOG_SCALE)", "clamp(-4.1, 4.135166556742356)"),
        Fault("heights not bounded", boxes, "apply_deltas", "offsets[..., 2:].clamp(max=LARGEST_LOG_SCALE)",
              "torch.cat([offsets[..., 2:3].clamp(max=LARGEST_LOG_SCALE), offsets[..., 3:]], -1)"),
        Fault("deltas not divided", boxes, "apply_deltas", " / constant(weights, deltas.device)", ""),
    ],
    "selection": [
        Fault("50 detections", roi_heads, "MOST_DETECTIONS", "", "50"),
        Fault("99 detections", roi_heads, "MOST_DETECTIONS", "", "99"),
        Fault("101 detections", roi_heads, "MOST_DETECTIONS", "", "101"),
        Fault("the cap before suppression", roi_heads, "select_detections", "(scores > score_thresh)",
              "(scores > score_thresh) & (scores >= scores.sort().values[-100])"),
        Fault("threshold .02 lower", roi_heads, "select_detections", "scores > score_thresh", "scores > score_thresh - 0.02"),
        Fault("the threshold included", roi_heads, "select_detections", "scores > score_thresh", "scores >= score_thresh"),
        Fault("an IoU of 0.5 suppresses", roi_heads, "NMS_IOU", "", "0.499999"),
        Fault("rows that are not finite kept", roi_heads, "select_detections", "finite_rows(boxes, scores)", "scores > -1"),
    ],
    "proposals": [
        Fault("999 of a level", rpn, "TOP_PER_LEVEL", "", "999"),
        Fault("1001 of a level", rpn, "TOP_PER_LEVEL", "", "1001"),
        Fault("empty proposals kept", rpn, "select_proposals", "nonempty(clipped)", "(clipped[:, 0] >= 0)"),
        Fault("999 proposals", rpn, "RPN.__init__", "= proposals", "= proposals - 1"),
    ],
    "masks": [
        Fault("a probability of 0.5 left out", transforms, "paste_masks", "(values >= 0.5)", "(values > 0.5)"),
        Fault("pasted a column to the right", transforms, "paste_masks",
              "torch.arange(x0, x1) + 0.5", "torch.arange(x0, x1) - 0.5"),
        Fault("rows and columns swapped", transforms, "paste_masks", "stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))]",
              "stack([y[:, None].expand(-1, len(x)), x.expand(len(y), -1)]"),
        Fault("the last column left out", transforms, "paste_masks", "box[2:].ceil()", "box[2:].floor()"),
    ],
    "frames": [
        Fault("boxes not clipped to the image", transforms, "to_frame", "clip(found.boxes * scale, frame)", "found.boxes * scale"),
        Fault("empty detections kept", transforms, "to_frame", "nonempty(boxes)", "(boxes[:, 0] >= 0)"),
        Fault("scales swapped", transforms, "to_frame", "[frame[1] / network[1], frame[0] / network[0]]",
              "[frame[0] / network[0], frame[1] / network[1]]"),
    ],
    "input sizes": [
        Fault("no longest edge", transforms, "network_size", "max(tall, wide) > max_size", "False"),
        Fault("the longest edge alone", transforms, "network_size", "max(tall, wide) > max_size", "True"),
        Fault("one edge limited", transforms, "network_size",
              "tall * shrink, wide * shrink", "min(tall, max_size), min(wide, max_size)"),
        Fault("sizes cut", transforms, "network_size", "wide + 0.5", "wide"),
    ],
    "levels": [
        Fault("levels by the longest side", roi_heads, "pyramid_levels",
              "areas(boxes).sqrt()", "(boxes[:, 2:] - boxes[:, :2]).amax(1)"),
        Fault("p6 pooled", roi_heads, "pyramid_levels", "clamp(2, 5)", "clamp(2, 6)"),
        Fault("empty boxes from p5", roi_heads, "pyramid_levels",
              "return level.clamp(2, 5)", "return level.where(areas(boxes) > 0, 5).clamp(2, 5)"),
    ],
}  # fmt: skip
"""Faults that no recording shows, by the case of test_plain_cascade.py that does."""
