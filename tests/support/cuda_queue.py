"""Downloads that only stand in the queue of the CUDA double's devices, and events, which say when they are here."""

from __future__ import annotations

from collections.abc import Callable

import torch


class Downloads:
    """Copies to the host that nothing has waited for: until then the host sees nonsense."""

    def __init__(self, wait: Callable[[], None]) -> None:
        """`wait` counts a wait of the host for an event."""
        self.wait, self.made = wait, 0
        self._under_way: dict[int, tuple[torch.device, torch.Tensor, torch.Tensor]] = {}
        """By number: device, where the values go, the values."""

    def queue(self, values: torch.Tensor, device: torch.device) -> torch.Tensor:
        """Where these values will be."""
        place = torch.full_like(values, 1 if values.dtype == torch.bool else 77)
        self._under_way[self.made] = device, place, values
        self.made += 1
        return place

    def arrive(self, device: torch.device, before: int) -> None:
        """Those of this device with a number below `before` come to their end."""
        for number in [number for number, one in self._under_way.items() if one[0] == device and number < before]:
            _, place, values = self._under_way.pop(number)
            place.copy_(values)


class Event:
    """A mark in the stream of a device."""

    def __init__(self, downloads: Downloads) -> None:
        self._downloads, self._device, self._behind = downloads, torch.device("cuda:0"), 0

    def record(self, stream: torch.device | None = None) -> None:
        """Behind what is queued now; without a stream in that of the current device, cuda:0."""
        self._device, self._behind = stream or torch.device("cuda:0"), self._downloads.made

    def synchronize(self) -> None:
        """Wait for it."""
        self._downloads.wait()
        self._downloads.arrive(self._device, self._behind)
