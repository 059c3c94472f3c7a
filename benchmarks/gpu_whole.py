"""The whole pipeline on 64 rendered pictures: images a second, how busy the device is, and where the host is meanwhile."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from caption_numerics import render as masked_picture
from invoking import invoke
from PIL import Image

from pseudoris_cli.storage.workspace import Workspace

if TYPE_CHECKING:
    from gpu import Findings

PICTURES, PART = 64, 16
FULL: dict[str, Any] = {
    "source": {"part_size": PART},
    "masks": {
        "sam": {
            "checkpoint": "random:0",
            "pred_iou_thresh": 0.0,
            "stability_score_thresh": 0.5,
            "box_nms_thresh": 0.98,
        },
        "proposals": {"checkpoint": "random:0"},
        "max_per_image": 7,
    },
    "captions": {"checkpoint": "random:0"},
    "filter": {"scorer": {"checkpoint": "random:0"}, "nouns": {"pipeline": "blank"}},
    "numerics": {"precision": "bf16"},
}
"""The settings of the paper with random weights; thresholds that masks of random networks pass."""


def pipeline(findings: Findings) -> None:
    """`pseudoris run` as a user would, watched from outside."""
    order = findings.order
    folder = Path(order.out) / "whole"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "pictures").mkdir(parents=True)
    for number in range(1 if order.tiny else PICTURES):
        Image.fromarray(masked_picture(number, 1).image_rgb).save(folder / "pictures" / f"{number:03d}.png")
    settings = FULL
    if order.tiny:
        settings = yaml.safe_load((Path(__file__).parents[1] / "configs" / "random.yaml").read_text())
        settings["captions"] |= {"top_k": [5], "top_p": [], "max_length": 5}
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings))
    watch = Watch()
    with watch.watching(folder):
        done = invoke(
            "run", "--images", folder / "pictures", "--work", folder / "work", "--out", folder / "out", "-q",
            "--config", folder / "settings.yaml", "--device", order.device,
        )  # fmt: skip
    if done.code:
        findings.problem(f"the run ended with {done.code}: {(done.stderr.strip().splitlines() or [''])[-1][:200]}")
    for stage in ("masks", "captions", "scores"):
        entries = Workspace(folder / "work").latest(stage).manifest().entries.values()
        images = sum(sum(entry.counts.values()) for entry in entries)
        seconds = sum(entry.seconds for entry in entries)
        findings.add(stage=stage, images=images, images_per_s=images / max(seconds, 1e-9))
    for share in watch.busy():
        findings.add(**share)
    for place, share in watch.places():
        findings.add(host=place, share=share)


@dataclass
class Watch:
    """Samples, 50 times a second, in which function of the package the main thread is; and what nvidia-smi says."""

    samples: Counter[str] = field(default_factory=Counter)
    utilisation: list[float] = field(default_factory=list)

    @contextmanager
    def watching(self, folder: Path) -> Iterator[None]:
        """While the block runs."""
        stop, main = threading.Event(), threading.get_ident()
        thread = threading.Thread(target=self._look, args=(main, stop), daemon=True)
        told = folder / "utilisation.csv"
        with told.open("w") as file:
            asked = None
            if shutil.which("nvidia-smi"):
                command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "200"]
                asked = subprocess.Popen(command, stdout=file, stderr=subprocess.DEVNULL)
            thread.start()
            try:
                yield
            finally:
                stop.set()
                thread.join()
                if asked:
                    asked.terminate()
                    asked.wait()
        self.utilisation = [float(line) for line in told.read_text().split() if line.strip().isdigit()]

    def _look(self, main: int, stop: threading.Event) -> None:
        while not stop.wait(0.02):
            frame = sys._current_frames().get(main)
            where = "elsewhere"
            while frame is not None:
                path = Path(frame.f_code.co_filename)
                if "pseudoris_cli" in path.parts:
                    inside = path.parts[len(path.parts) - path.parts[::-1].index("pseudoris_cli") :]
                    where = f"{'/'.join(inside)}:{frame.f_code.co_name}"
                    break
                frame = frame.f_back
            self.samples[where] += 1

    def busy(self) -> list[dict[str, Any]]:
        """The mean utilisation that nvidia-smi told, where there is one."""
        if not self.utilisation:
            return []
        return [{"gpu_busy": sum(self.utilisation) / len(self.utilisation) / 100, "samples": len(self.utilisation)}]

    def places(self) -> list[tuple[str, float]]:
        """The functions in which the host was found most often, with their share."""
        total = max(1, sum(self.samples.values()))
        return [(place, count / total) for place, count in self.samples.most_common(10)]
