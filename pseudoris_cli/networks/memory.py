"""What a network needs of a device's memory, by formulas: how much, and what the largest settings are that fit.

Each network has its own (`sam/memory.py` and so on): the terms that grow with the settings, each counted from the tensors that live
at the same time. `tests/devices/test_memory_plan.py` compares them with what torch's allocator counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from pseudoris_cli.networks.numerics import dtype_of
from pseudoris_cli.settings.models import Numerics

MASKS = 7
"""Masks of an image for which is planned; more masks take more decoder calls, not more memory in one."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes: of weights, of activations at the worst moment, and of what is kept between calls of the network."""

    weights: float
    activations: float
    caches: float = 0.0

    @property
    def total(self) -> float:
        return self.weights + self.activations + self.caches

    def __add__(self, other: Memory) -> Memory:
        """Two networks that are loaded together and work one after the other."""
        return Memory(
            self.weights + other.weights, max(self.activations, other.activations), self.caches + other.caches
        )


@dataclass(frozen=True, slots=True)
class Work:
    """What is asked of a network: images together, precision, and whether it takes the forms for a GPU."""

    images: int
    numerics: Numerics
    on_gpu: bool

    @property
    def bytes(self) -> int:
        """Of a number in the configured precision."""
        return dtype_of(self.numerics).itemsize


def weights_of(network: nn.Module, bytes_of: Callable[[str], int]) -> float:
    """Bytes of the parameters and buffers of a network, which may be on the meta device; `bytes_of` a number of a name."""
    tensors = [*network.named_parameters(), *network.named_buffers()]
    return float(sum(tensor.numel() * bytes_of(name) for name, tensor in tensors))


def stored(network: nn.Module) -> float:
    """Bytes of the parameters and buffers of a network as they are."""
    return float(sum(tensor.numel() * tensor.element_size() for tensor in (*network.parameters(), *network.buffers())))


def largest(fits: Callable[[int], bool], most: int = 1 << 20) -> int:
    """The largest power of 2 that fits, 0 where not even 1 does."""
    found, number = 0, 1
    while number <= most and fits(number):
        found, number = number, 2 * number
    return found


_blank: dict[str, nn.Module] = {}


def on_meta(name: str, build: Callable[[], nn.Module]) -> nn.Module:
    """A network without memory; the same again for the same name, as a plan asks often."""
    if name not in _blank:
        with torch.device("meta"):
            _blank[name] = build()
    return _blank[name]
