"""Where the time of one image goes: the top kernels of each stage, and how long the device had nothing to do between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from caption_numerics import render as masked_picture
from torch.profiler import ProfilerActivity, profile

from pseudoris_cli.backends import cascade_rcnn, clip, coca, sam
from pseudoris_cli.settings.models import Numerics

if TYPE_CHECKING:
    from gpu import Findings

TINY_CAPTIONS = coca.Settings.tiny().model_copy(update={"top_k": (5,), "top_p": (), "max_length": 5})
TOP = 6
"""Kernels and gaps of a stage that are told."""


def trace(findings: Findings) -> None:
    """One image through each stage under torch's profiler, in bf16 on a GPU."""
    order = findings.order
    numerics = Numerics(precision="bf16" if order.device.startswith("cuda") else "fp32")
    for stage, make in _works(order.tiny).items():
        if not findings.time_for(10):
            findings.problem(f"no time left for the trace of {stage}")
            return
        work = make(numerics, order.device)
        work()
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * order.device.startswith("cuda")
        with profile(activities=activities) as profiled:
            work()
            if order.device.startswith("cuda"):
                torch.cuda.synchronize()
        for row in summary(kernels(profiled.events(), order.device)):
            findings.add(stage=stage, **row)


def _works(tiny: bool) -> dict[str, Callable[[Numerics, str], Callable[[], Any]]]:
    picture = masked_picture(0, 3 if tiny else 7)
    sections: dict[str, Any] = {
        "masks": (
            sam,
            sam.Settings.tiny() if tiny else sam.Settings(checkpoint="random:0", stability_score_thresh=0.5),
        ),
        "proposals": (
            cascade_rcnn,
            cascade_rcnn.Settings.tiny() if tiny else cascade_rcnn.Settings(checkpoint="random:0"),
        ),
        "captions": (coca, TINY_CAPTIONS if tiny else coca.Settings(checkpoint="random:0")),
        "scores": (clip, clip.Settings.tiny() if tiny else clip.Settings(checkpoint="random:0")),
    }
    calls: dict[str, Callable[[Any], Any]] = {
        "masks": lambda network: network.segment([picture.image_rgb]),
        "proposals": lambda network: network.propose([picture.image_rgb], ["0"]),
        "captions": lambda network: network.caption([picture]),
        "scores": lambda network: network.encode_texts([f"thing {number} on the left" for number in range(300)]),
    }

    def maker(stage: str) -> Callable[[Numerics, str], Callable[[], Any]]:
        def make(numerics: Numerics, device: str) -> Callable[[], Any]:
            backend, settings = sections[stage]
            network = backend.load(settings, numerics, device)
            return lambda: calls[stage](network)

        return make

    return {stage: maker(stage) for stage in calls}


Interval = tuple[float, float, str]
"""Start and end in microseconds, and the name."""


def kernels(events: Any, device: str) -> list[Interval]:
    """What ran on the device; on a CPU the operators that call no other."""
    kind = torch.autograd.DeviceType.CUDA if device.startswith("cuda") else torch.autograd.DeviceType.CPU
    chosen = [
        event for event in events if event.device_type == kind and (kind.name == "CUDA" or not event.cpu_children)
    ]
    return sorted((event.time_range.start, event.time_range.end, event.name) for event in chosen)


def summary(intervals: list[Interval]) -> list[dict[str, Any]]:
    """Rows: the whole with its busy share, the kernels that take most, and the longest gaps with what came before and after."""
    if not intervals:
        return [{"kind": "whole", "name": "nothing ran on the device", "ms": 0.0, "times": 0, "share": 0.0}]
    spent: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    gaps: list[tuple[float, str]] = []
    busy, reached, last = 0.0, intervals[0][0], ""
    for start, end, name in intervals:
        spent[name] += end - start
        calls[name] += 1
        if start > reached and last:
            gaps.append((start - reached, f"{last[:40]} -> {name[:40]}"))
        busy += max(0.0, end - max(start, reached))
        if end > reached:
            reached, last = end, name
    whole = reached - intervals[0][0]
    rows = [{"kind": "whole", "name": "busy", "ms": whole / 1e3, "times": len(intervals), "share": busy / whole}]
    rows += [
        {"kind": "kernel", "name": name[:80], "ms": time / 1e3, "times": calls[name], "share": time / whole}
        for name, time in spent.most_common(TOP)
    ]
    return rows + [
        {"kind": "gap", "name": name, "ms": length / 1e3, "times": 1, "share": length / whole}
        for length, name in sorted(gaps, reverse=True)[:TOP]
    ]
