"""Recordings of detectron2's CutLER: what a folder must hold, and the detectors that are compared with it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from pseudoris_cli.backends import cascade_rcnn
from pseudoris_cli.networks.cascade_rcnn.checkpoint import load_strictly, state_dict_of
from pseudoris_cli.networks.cascade_rcnn.detector import CascadeRCNN, Sizes
from pseudoris_cli.networks.cascade_rcnn.transforms import to_frame
from pseudoris_cli.rle import decode_rle
from pseudoris_cli.weights.tensors import load_tensors

ASSUMED = {
    "norm": "BN",
    "num_classes": 1,
    "rpn_nms": 0.65,
    "pre_nms_topk": 1000,
    "nms_thresh": 0.5,
    "detections_per_image": 100,
    "pixel_mean": [123.675, 116.28, 103.53],
    "pixel_std": [58.395, 57.12, 57.375],
}
"""What config.json must say, as both networks have it built in."""
TOP = 20
"""Rows of proposals and stages that are recorded."""


class BadRecording(Exception):
    """A recording that lacks something or holds what is not understood; the message says what."""


@dataclass(frozen=True, slots=True)
class Recording:
    """One image with what detectron2 computed on it: arrays by name, and the summary in config.json."""

    name: str
    image_rgb: np.ndarray
    arrays: dict[str, np.ndarray]
    summary: dict[str, Any]

    @property
    def masks(self) -> np.ndarray:
        """bool [N, H, W]."""
        shape = tuple(int(side) for side in self.arrays["pred_masks_shape"])
        return np.unpackbits(self.arrays["pred_masks_packed"], count=int(np.prod(shape))).reshape(shape).astype(bool)


@dataclass(frozen=True, slots=True)
class Inner:
    """What a network computed on the way, in network pixels, float32.

    `pixels` [3, H, W] normalised and padded; `size` (height, width) without padding; `pyramid` p2...p6 [C, h, w]; proposals [P, 4]
    and their logits [P]; per stage its input boxes [P, 4], logits [P, 2] and deltas [P, 4]; the boxes [N, 4], scores [N] and mask
    logits [N, 28, 28] of the detections.
    """

    pixels: np.ndarray
    size: tuple[int, int]
    pyramid: list[np.ndarray]
    proposals: np.ndarray
    proposal_logits: np.ndarray
    stages: list[tuple[np.ndarray, np.ndarray, np.ndarray]]
    boxes: np.ndarray
    scores: np.ndarray
    mask_logits: np.ndarray


@dataclass(frozen=True, slots=True)
class Output:
    """Detections of one image in its own pixels, best first: boxes [N, 4], scores [N], masks bool [N, H, W]."""

    boxes: np.ndarray
    scores: np.ndarray
    masks: np.ndarray
    inner: Inner | None


def read_config(folder: Path) -> dict[str, Any]:
    """config.json. Raises BadRecording where it names no images or other constants than the networks have."""
    path = folder / "config.json"
    if not path.is_file():
        raise BadRecording(f"{path} is missing")
    config: dict[str, Any] = json.loads(path.read_text())
    if not config.get("images"):
        raise BadRecording(f"{path} names no images")
    if len(set(config["images"])) != len(config["images"]):
        raise BadRecording(f"{path} names an image twice")
    for key, value in ASSUMED.items():
        if config.get(key) != value:
            raise BadRecording(f"{path}: {key} is {config.get(key)!r}, not {value!r}")
    if config["resnet"]["stride_in_1x1"]:
        raise BadRecording(f"{path}: the strides are in the 1x1 convolutions")
    return config


def read_state(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of model.pth. Raises BadRecording where it is missing."""
    path = folder / "model.pth"
    if not path.is_file():
        raise BadRecording(f"{path} is missing")
    return state_dict_of(load_tensors(path), str(path))


def read_recording(folder: Path, name: str, config: dict[str, Any]) -> Recording:
    """The recording of the image `name`. Raises BadRecording for whatever is missing, unknown, misshapen or not finite."""
    image, path = folder.parent / name, folder / f"{Path(name).stem}.npz"
    for needed in (image, path):
        if not needed.is_file():
            raise BadRecording(f"{needed} is missing")
    summary = config.get("summary", {}).get(Path(name).stem)
    if summary is None:
        raise BadRecording(f"config.json has no summary of {name}")
    with np.load(path) as arrays:
        recording = Recording(name, _read_image(image), dict(arrays), summary)
    _check_arrays(recording, config)
    return recording


def _read_image(path: Path) -> np.ndarray:
    upright = ImageOps.exif_transpose(Image.open(path))
    return np.asarray(upright.convert("RGB"))


def expected_shapes(recording: Recording, config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every array that a recording holds; it follows from the image, the configuration and the summary."""
    height, width = recording.summary["resized_hw"]
    frame, count = recording.image_rgb.shape[:2], recording.summary["num_det"]
    rows, channels = min(TOP, recording.summary["num_proposals"]), config["fpn_channels"]
    bits = count * frame[0] * frame[1]
    shapes: dict[str, tuple[int, ...]] = {
        "pred_boxes": (count, 4),
        "scores": (count,),
        "pred_classes": (count,),
        "pred_masks_packed": (-(-bits // 8),),
        "pred_masks_shape": (3,),
        "input_image": (height, width, 3),
        "raw_boxes": (count, 4),
        "raw_scores": (count,),
        "mask_logits": (count, 28, 28),
        "rpn_boxes_top20": (rows, 4),
        "rpn_logits_top20": (rows,),
        "rpn_num": (),
    }
    for stage in range(3):
        shapes[f"stage{stage}_in_boxes_top20"] = (rows, 4)
        shapes[f"stage{stage}_logits_top20"] = (rows, 2)
        shapes[f"stage{stage}_deltas_top20"] = (rows, 4)
    for level, (tall, wide) in enumerate(map_sizes((height, width)), start=2):
        shapes[f"fpn_p{level}_shape"] = (4,)
        shapes[f"fpn_p{level}_mean"] = shapes[f"fpn_p{level}_std"] = (channels,)
        shapes[f"fpn_p{level}_slice"] = (min(4, channels), min(8, tall), min(8, wide))
    return shapes


def map_sizes(size: tuple[int, int]) -> list[tuple[int, int]]:
    """(height, width) of p2...p6 for an input of this size, padded to multiples of 32."""
    tall, wide = (side + -side % 32 for side in size)
    return [(-(-tall // stride), -(-wide // stride)) for stride in (4, 8, 16, 32, 64)]


def _check_arrays(recording: Recording, config: dict[str, Any]) -> None:
    shapes, arrays = expected_shapes(recording, config), recording.arrays
    faults = [f"{name} is missing" for name in shapes if name not in arrays]
    faults += [f"{name} is not known" for name in arrays if name not in shapes]
    for name in shapes.keys() & arrays.keys():
        if arrays[name].shape != shapes[name]:
            faults.append(f"{name} has the shape {arrays[name].shape}, not {shapes[name]}")
        elif not np.isfinite(arrays[name]).all():
            faults.append(f"{name} holds values that are not finite")
    if not faults:
        stacked = (recording.summary["num_det"], *recording.image_rgb.shape[:2])
        if tuple(arrays["pred_masks_shape"]) != stacked:
            faults.append(f"pred_masks_shape says {tuple(arrays['pred_masks_shape'])}, not {stacked}")
        if arrays["pred_classes"].any():
            faults.append("pred_classes holds another class than 0")
        if (np.diff(arrays["scores"]) > 0).any():
            faults.append("scores do not descend")
    if recording.summary["num_det"] == 0:
        faults.append("no detections are recorded, so nothing can be compared")
    if faults:
        raise BadRecording(f"{recording.name}: {'; '.join(sorted(faults))}")


def sizes_of(config: dict[str, Any]) -> Sizes:
    """Our network's sizes from a recording's config.json."""
    net = config["resnet"]
    return Sizes(
        stem=net["stem"],
        bottleneck=net["bottleneck"][0],
        out=net["out"][0],
        blocks=tuple(net["blocks"]),
        pyramid=config["fpn_channels"],
        box_hidden=config["fc_dim"],
        mask_channels=config["mask_conv_dim"],
        proposals=config["post_nms_topk"],
    )


class OurDetector:
    """This project's backend on the recorded weights, with BGR input like the release; intermediate values by hooks."""

    def __init__(self, state: dict[str, torch.Tensor], config: dict[str, Any]) -> None:
        network = CascadeRCNN(sizes_of(config))
        load_strictly(network, state, "model.pth")
        self.network = network.prepare("cpu", torch.float32)
        settings = cascade_rcnn.Settings(
            channels="bgr",
            score_thresh=config["score_thresh"],
            min_size=config["min_size"],
            max_size=config["max_size"],
        )
        self.backend = cascade_rcnn.CascadeProposer(self.network, settings, "cpu")
        self.seen: dict[str, Any] = {}
        heads = self.network.roi_heads
        self.network.backbone.register_forward_hook(self._keep("pyramid"))
        self.network.proposal_generator.register_forward_hook(self._keep("proposals"))
        heads.mask_head.register_forward_hook(self._keep("mask_logits"))
        self.run_stage, self.detect = heads.run_stage, self.network.detect
        heads.run_stage = self._run_stage
        self.network.detect = self._detect

    def _keep(self, name: str) -> Any:
        return lambda module, inputs, output: self.seen.__setitem__(name, output)

    def _run_stage(self, *arguments: Any) -> Any:
        self.seen["stages"].append(self.run_stage(*arguments))
        return self.seen["stages"][-1]

    def _detect(self, pixels: torch.Tensor, sizes: Any, threshold: float) -> Any:
        found = self.detect(pixels, sizes, threshold)
        self.seen |= {"pixels": pixels[0], "size": sizes[0], "found": found[0]}
        return found

    def __call__(self, image_rgb: np.ndarray) -> Output:
        self.seen = {"stages": []}
        [instances] = self.backend.propose([image_rgb], ["image"])
        seen, found = self.seen, self.seen["found"]
        [(proposals, logits)] = seen["proposals"]
        inner = Inner(
            seen["pixels"].numpy(),
            seen["size"],
            [level[0].numpy() for level in seen["pyramid"]],
            proposals.numpy(),
            logits.numpy(),
            [(stage.boxes.numpy(), stage.logits.numpy(), stage.deltas.numpy()) for stage in seen["stages"]],
            found.boxes.numpy(),
            found.scores.numpy(),
            seen["mask_logits"].numpy(),
        )
        frame = image_rgb.shape[:2]
        masks = [decode_rle(instance.rle) for instance in instances]
        stacked = np.stack(masks).astype(bool) if masks else np.zeros((0, *frame), bool)
        scores = np.array([instance.score for instance in instances])
        return Output(to_frame(found, seen["size"], frame).boxes.numpy(), scores, stacked, inner)


class Detectron2Detector:
    """The optional backend on the same files; final results only."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        from pseudoris_cli.backends import detectron2
        from pseudoris_cli.settings.models import Numerics

        settings = detectron2.Settings(
            checkpoint=str(folder / "model.pth"),
            channels="rgb",
            score_thresh=config["score_thresh"],
            min_size=config["min_size"],
            max_size=config["max_size"],
            overrides=config["overrides"],
        )
        self.proposer = detectron2.load(settings, Numerics(), "cpu")

    def __call__(self, image_rgb: np.ndarray) -> Output:
        image_bgr = image_rgb[:, :, ::-1]
        found = self.proposer.instances(image_bgr)  # `channels: rgb` leaves the order alone, so BGR stays BGR
        return Output(found.pred_boxes.tensor.numpy(), found.scores.numpy(), found.pred_masks.numpy(), None)
