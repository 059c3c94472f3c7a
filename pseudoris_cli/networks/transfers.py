"""Copies between the host and a GPU for which the host does not wait; elsewhere plain copies."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def upload(values: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on a device. A GPU takes it from pinned memory when it comes to it in its queue."""
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


class Download:
    """A tensor of a device on its way to the host: queued behind the work that makes it, before work that is queued later."""

    def __init__(self, values: Tensor) -> None:
        on_gpu = values.device.type == "cuda"
        self._copy = values.to("cpu", non_blocking=on_gpu)  # which pins the memory that it copies to
        self._done: torch.cuda.Event | None = None
        if on_gpu:
            self._done = torch.cuda.Event()
            self._done.record(torch.cuda.current_stream(values.device))  # the current device may be another

    def read(self) -> np.ndarray:
        """The values; waits until they are here."""
        if self._done is not None:
            self._done.synchronize()
        return self._copy.numpy()
