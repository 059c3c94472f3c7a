"""What the device forms of sampling and beam search share: steps that wait for nothing, and a look of the host every few."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

EVERY = 4
"""Steps between two looks of the host."""
BLOCK = 256
"""Rows whose logits are in memory at one time."""


def repeatable(step: Callable[..., None], device: torch.device, graphs: bool) -> Callable[..., None]:
    """A step that changes its state in place, after a first call replayed from a CUDA graph where that is asked for."""
    if not graphs or device.type != "cuda":
        return step
    graph, calls = torch.cuda.CUDAGraph(), 0

    def again(*given: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:  # allocates, and chooses kernels
            step(*given)
            return
        if calls == 2:
            with torch.cuda.graph(graph):
                step(*given)
        graph.replay()

    return again


def log_mass(logits: torch.Tensor) -> torch.Tensor:
    """The logarithm of the sum of exp(logits) of each row [N, V], float64 [N], summed in float32 as on the host."""
    top = logits.amax(1, keepdim=True)
    mass = (logits - top).exp_().sum(1)
    return top[:, 0].double() + mass.double().log()


def caches(network: Any, layers: int, rows: int, heads: int, length: int) -> torch.Tensor:
    """An empty KV cache of a tower: [layers, 2, rows, heads, length, width / heads]."""
    shape = (layers, 2, rows, heads, length, network.width // heads)
    return torch.zeros(shape, dtype=network.dtype, device=network.device)
