"""Named buffers that are reused: on a CPU the page faults of a new output of some megabytes cost more than computing it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


class Buffers:
    """Uninitialised tensors by name; the same name gives the same memory again, whatever the shape."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def release(self) -> None:
        """Let go of all memory."""
        self._buffers.clear()

    def __call__(self, name: str, shape: Sequence[int], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """A contiguous tensor of this shape on the device of `like`, of its dtype unless `dtype` is given."""
        dtype = dtype or like.dtype
        count = math.prod(shape)
        buffer = self._buffers.get(name)
        if buffer is None or buffer.numel() < count or buffer.dtype != dtype or buffer.device != like.device:
            self._buffers.pop(name, None)
            buffer = self._buffers[name] = torch.empty(count, dtype=dtype, device=like.device)
        return buffer[:count].view(tuple(shape))
