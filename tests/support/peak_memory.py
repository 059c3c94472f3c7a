"""The most memory that torch's tensors held at a time during a call, counted by its allocator's own events."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import profiler


def peak_bytes(work: Callable[[], Any]) -> int:
    """Bytes above what was held before the call."""
    gc.collect()  # what others left would be freed in the middle
    with profiler.profile(profile_memory=True, use_kineto=True) as profiled:
        torch.zeros(1)  # an event where there is none
        work()
    changes = [(e.start_ns(), e.nbytes()) for e in profiled.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for _, change in sorted(changes, key=lambda one: one[0]):
        held += change
        peak = max(peak, held)
    return peak
