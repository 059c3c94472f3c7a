"""The steps of gpu.py: each measures one thing and writes a line for every figure it has."""

from __future__ import annotations

import contextlib
import io
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import masks as mask_comparison
import numpy as np
import torch
from caption_numerics import render as masked_picture
from gpu_trace import trace
from gpu_whole import pipeline
from mask_runs import Job, Measured, measure_official, measure_ours
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from pseudoris_cli.backends import cascade_rcnn, clip, coca, sam
from pseudoris_cli.method.scoring import score_images
from pseudoris_cli.records import Caption, CaptionCandidate, MaskedImage
from pseudoris_cli.settings.models import FilterSettings, Numerics

if TYPE_CHECKING:
    from gpu import Findings

Step = Callable[["Findings"], None]
TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "tf32": torch.float32, "fp32": torch.float32}


def environment(findings: Findings) -> None:
    """Card, driver, clocks, versions, processor."""
    found = {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "device": findings.order.device,
    }
    if findings.order.device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(findings.order.device)
        found |= {
            "card": properties.name,
            "memory_gb": round(properties.total_memory / 1e9, 1),
            "cuda": torch.version.cuda,
        }
    if shutil.which("nvidia-smi"):
        wanted = "driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.limit,pcie.link.gen.current"
        command = ["nvidia-smi", f"--query-gpu={wanted}", "--format=csv,noheader"]
        asked = subprocess.run(command, capture_output=True, text=True, timeout=30)
        if asked.returncode == 0:
            lines = asked.stdout.strip().splitlines()
            index = int(findings.order.device.partition(":")[2] or 0)
            found |= dict(zip(wanted.split(","), map(str.strip, lines[index].split(",")), strict=True))
    for name, value in found.items():
        findings.add(what=name, value=str(value))


def products(findings: Findings) -> None:
    """Operations a second of large matrix products: what all shares are shares of."""
    device, side = findings.order.device, 128 if findings.order.tiny else 8192
    for precision, dtype in TYPES.items():
        if precision == "tf32" and not device.startswith("cuda"):
            continue
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        a = torch.randn(side, side, device=device, dtype=dtype)
        a @ a
        seconds = timed(lambda a=a: [a @ a for _ in range(10)], device)
        findings.add(precision=precision, tflops=10 * 2 * side**3 / seconds / 1e12)
    torch.backends.cuda.matmul.allow_tf32 = False


TINY_MASKS: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (({}, {}), ({"precision": "bf16"}, {}))
"""What `--tiny` tries of the forms."""


def masks(findings: Findings) -> None:
    """Automatic masks against SamAutomaticMaskGenerator: equal in fp32, then faster forms."""
    order = findings.order
    settings = sam.Settings.tiny() if order.tiny else sam.Settings(model="vit_h", checkpoint="random:0")
    path = Path(order.out) / "picture.png"
    mask_comparison.render(path)
    image = np.array(Image.open(path).convert("RGB"))[: 96 if order.tiny else None, : 128 if order.tiny else None]
    Image.fromarray(image).save(path)
    settings = mask_comparison.place_thresholds(settings.model_copy(update={"decoder": "absorb"}), image, order.device)
    official = _measured(findings, "official", "official", settings, {}, path, None)
    for name, numerics, changes in (
        ("ours", {}, {}),
        ("ours", {"precision": "bf16"}, {}),
        ("ours", {"precision": "bf16", "compile": True}, {}),
        ("ours", {"precision": "bf16"}, {"decoder": "lowrank"}),
        ("ours", {"precision": "bf16"}, {"prompt_chunk": 256}),
        ("ours", {"precision": "fp16"}, {}),
    ):
        if order.tiny and (numerics, changes) not in TINY_MASKS:
            continue
        if not findings.time_for(3 * official.seconds):
            findings.problem(f"no time left for {numerics} {changes}")
            return
        _measured(findings, " ".join([name, *map(str, changes.values())]), "ours", settings.model_copy(update=changes),
                  numerics, path, official)  # fmt: skip


def _measured(
    findings: Findings, name: str, generator: str, settings: Any, numerics: Any, path: Path, official: Measured | None
) -> Measured:
    """One generator, one line of the table; in fp32 its masks must be the official ones but for close calls."""
    device = findings.order.device
    job = Job(generator, str(path), settings.model_dump(), device, numerics, torch.get_num_threads())
    image = np.array(Image.open(path).convert("RGB"))
    found = (measure_official if generator == "official" else measure_ours)(job, image)
    equal, told = "", io.StringIO()
    if official and numerics.get("precision"):
        equal = mask_comparison.set_agreement(official, found, image)
    elif official:
        with contextlib.redirect_stdout(told):
            agrees = mask_comparison.compare(official, found, settings.model_dump(), image)
        equal = "yes" if agrees else "no"
        print(told.getvalue())
        if not agrees:
            findings.problem(f"masks of {name} in fp32 are not the official ones: see the log")
    precision = numerics.get("precision", "fp32")
    findings.add(
        form=name,
        precision=precision + (" compiled" if numerics.get("compile") else ""),
        images_per_s=1 / found.seconds,
        masks_per_s=len(found.codes) / found.seconds,
        encoder_s=found.encoder,
        peak_gb=found.peak / 1e9,
        tflops=found.flops / found.seconds / 1e12,
        of_precision=precision,
        equal=equal,
    )
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
    return found


def proposals(findings: Findings) -> None:
    """CutLER's detector, four pictures in a call."""
    order = findings.order
    settings = cascade_rcnn.Settings.tiny() if order.tiny else cascade_rcnn.Settings(checkpoint="random:0")
    pictures = [masked_picture(number, 1).image_rgb for number in range(1 if order.tiny else 4)]
    keys = [str(number) for number in range(len(pictures))]
    for precision in ("fp32",) if order.tiny else ("fp32", "bf16", "fp16"):
        proposer = cascade_rcnn.load(settings, Numerics(precision=precision), order.device)
        found = proposer.propose(pictures, keys)
        seconds = timed(lambda p=proposer: p.propose(pictures, keys), order.device)
        findings.add(precision=precision, images_per_s=len(pictures) / seconds, detections=sum(map(len, found)))


CAPTION_VARIANTS: tuple[tuple[str, dict[str, Any], dict[str, Any]], ...] = (
    ("fp32", {}, {}),
    ("bf16", {"precision": "bf16"}, {}),
    ("bf16, chunk 4096", {"precision": "bf16"}, {"row_chunk": 4096}),
    ("bf16, chunk 16384", {"precision": "bf16"}, {"row_chunk": 16384}),
    ("bf16, chunk 4096, CUDA graphs", {"precision": "bf16"}, {"row_chunk": 4096, "cuda_graphs": True}),
    ("bf16, chunk 4096, tokens chosen on the host", {"precision": "bf16"}, {"row_chunk": 4096, "sampling": "host"}),
    ("bf16 compiled, chunk 4096", {"precision": "bf16", "compile": True}, {"row_chunk": 4096}),
)


def captions(findings: Findings) -> None:
    """Captions of one image with few and many masks; the smallest case also by the released algorithm, token by token."""
    order = findings.order
    settings = tiny_captioner() if order.tiny else coca.Settings(checkpoint="random:0")
    counts = (2,) if order.tiny else (3, 7, 15, 30, 60)
    for name, numerics, changes in CAPTION_VARIANTS[:3] if order.tiny else CAPTION_VARIANTS:
        captioner = coca.load(settings.model_copy(update=changes), Numerics(**numerics), order.device)
        for masks_of_image in counts:
            if not findings.time_for(5):
                findings.problem(f"no time left from {name} with {masks_of_image} masks on")
                return
            _caption_line(findings, name, captioner, masked_picture(0, masks_of_image), numerics)
        if not numerics:
            _against_released(findings, captioner, counts[0])
            _forms_agree(findings, settings, masked_picture(0, counts[min(1, len(counts) - 1)]))
        del captioner


def tiny_captioner() -> coca.Settings:
    """Two samplers and short captions."""
    return coca.Settings.tiny().model_copy(update={"top_k": (5,), "top_p": (0.5,), "max_length": 6})


def _caption_line(findings: Findings, name: str, captioner: Any, picture: MaskedImage, numerics: Any) -> None:
    device, operations = findings.order.device, 0
    if numerics.get("compile"):
        captioner.caption([picture])
    else:
        with FlopCounterMode(display=False) as counter:  # also warms up
            captioner.caption([picture])
        operations = counter.get_total_flops()
    reset_peak(device)
    found: list[list[Caption]] = []
    seconds = timed(lambda: found.extend(captioner.caption([picture])), device)
    findings.add(
        variant=name,
        masks=len(picture.masks),
        images_per_s=1 / seconds,
        captions_per_s=len(found[0]) / seconds,
        tflops=operations / seconds / 1e12,
        of_precision=numerics.get("precision", "fp32"),
        peak_gb=peak_gb(device),
        halved=captioner.halvings,
    )


def _forms_agree(findings: Findings, settings: coca.Settings, picture: MaskedImage) -> None:
    """Tokens chosen on the host and on the device, replayed from CUDA graphs too, must be the same in fp32."""
    device, found = findings.order.device, {}
    forms: dict[str, dict[str, Any]] = {"host": {"sampling": "host"}, "device": {"sampling": "device"}}
    if device.startswith("cuda"):
        forms["graphs"] = {"sampling": "device", "cuda_graphs": True}
    for form, changes in forms.items():
        [captions_of_image] = coca.load(settings.model_copy(update=changes), Numerics(), device).caption([picture])
        found[form] = [one.caption for one in captions_of_image]
        same = sum(a == b for a, b in zip(found[form], found["host"], strict=True))
        findings.add(form=form, equal_captions=f"{same} of {len(found['host'])}")
        if same < len(found["host"]):
            findings.problem(f"{len(found['host']) - same} captions differ where tokens are chosen by {form}")


def _against_released(findings: Findings, captioner: Any, masks_of_image: int) -> None:
    """The released algorithm on the same crops and random numbers: tokens must be equal, seconds are told."""
    from plain_captions import plain_sampling

    from pseudoris_cli.decoding.engine import CropGroup, Decoder

    network, rules, device = captioner._network, captioner._rules, findings.order.device
    side = network.coca.visual.image_size
    side = side if isinstance(side, int) else side[0]
    noise = torch.randn(masks_of_image, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    crops = 2 * torch.nn.functional.interpolate(noise, size=side, mode="bilinear").to(device)
    numbers = np.random.default_rng(0).random((masks_of_image, rules.samplers, rules.max_length))
    latents, tokens = network.encode(crops, 64)
    group = CropGroup(tokens, (latents @ latents.T).cpu().numpy(), numbers)
    decoder = Decoder(network, rules, 0, captioner._settings.row_chunk)
    decoder.decode([group])
    ours: list[Any] = []
    seconds = timed(lambda: ours.extend(decoder.decode([group])[0]), device)
    started = time.perf_counter()
    plain = plain_sampling(network.coca, crops, numbers, rules)
    plain_seconds = time.perf_counter() - started
    pairs = list(zip([one for of_crop in ours for one in of_crop], plain, strict=True))
    same = sum(list(one.tokens) == other for one, (other, _) in pairs)
    findings.add(variant="sampling as released, fp32", masks=masks_of_image, seconds=plain_seconds, ours_seconds=seconds,
                 equal=f"{same} of {len(pairs)}")  # fmt: skip
    if same < len(pairs):
        findings.problem(
            f"{len(pairs) - same} of {len(pairs)} sampled captions are not those of the released algorithm"
        )


def scores(findings: Findings) -> None:
    """CLIP on four images of seven masks with 44 captions each."""
    order = findings.order
    settings = clip.Settings.tiny() if order.tiny else clip.Settings(checkpoint="random:0")
    pictures = [masked_picture(number, 3 if order.tiny else 7) for number in range(1 if order.tiny else 4)]
    each = 2 if order.tiny else 44
    candidates = [
        [CaptionCandidate(mask.mask_id, n, f"thing {n} of mask {mask.mask_id}, left in {picture.key}")
         for mask in picture.masks for n in range(each)]
        for picture in pictures
    ]  # fmt: skip
    for precision in ("fp32",) if order.tiny else ("fp32", "bf16", "fp16"):
        scorer = clip.load(settings, Numerics(precision=precision), order.device)
        work = lambda s=scorer: score_images(pictures, candidates, s, _Nouns(), FilterSettings())  # noqa: E731
        work()
        seconds = timed(work, order.device)
        findings.add(
            precision=precision,
            images_per_s=len(pictures) / seconds,
            candidates_per_s=sum(map(len, candidates)) / seconds,
        )


class _Nouns:
    """The head noun is the first word: parsing is not what is measured."""

    def nouns(self, texts: list[str]) -> list[str]:
        return [text.split()[0] for text in texts]


def timed(work: Callable[[], Any], device: str) -> float:
    """Seconds of a call, the device's included."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - started


def reset_peak(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()


def peak_gb(device: str) -> float | None:
    """The peak of the device's memory; nothing is known of a CPU's."""
    return torch.cuda.max_memory_allocated() / 1e9 if device.startswith("cuda") else None


STEPS: dict[str, Step] = {
    "environment": environment,
    "products": products,
    "masks": masks,
    "proposals": proposals,
    "captions": captions,
    "scores": scores,
    "pipeline": pipeline,
    "trace": trace,
}
