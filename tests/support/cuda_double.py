"""A CUDA device that exists only in claims: its tensors say `cuda:N`, their data is on the host, and rules of a real device hold.

    with CudaDouble() as gpu:                      # torch.cuda.is_available(), two devices
        x = torch.ones(3).to("cuda:1")             # an upload
        x + torch.ones(3)                          # MixedDevices
        with gpu.counting() as waits: x.sum().item()   # waits.kinds == {"item": 1}

Refused: operations on tensors of different devices (but for numbers, tensors of no dimension), `.numpy()`, and any wait while
`gpu.forbid()` is in force, but in a place that `gpu.forbid(allowed)` names. Counted, with the place in pseudoris_cli that
asked: everything for which the host must wait for the device. An upload is such a wait: torch copies from memory that is not
pinned, then waits until the stream has come there. So is an index on the host, which torch uploads. Copies that only stand in
the queue (`non_blocking`, an upload from pinned memory, a download into it) are no waits and are counted in `queued`; what such
a download brings is nonsense until an event behind it has been waited for.

The host computes the numbers, so that they are those of the CPU for the same operations. What it cannot show: kernels, their
memory and time, races between streams.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from cuda_queue import Downloads, Event
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

aten = torch.ops.aten
DEVICES = 2


class MixedDevices(RuntimeError):
    """An operation on tensors of different devices."""


class HiddenWait(RuntimeError):
    """The host read values of the device where it must not."""


class ClaimedTensor(torch.Tensor):
    """A tensor that says it is on a CUDA device; `host` has its data."""

    host: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, host: torch.Tensor, device: torch.device) -> ClaimedTensor:
        with torch.inference_mode(False):  # a view of a weight must not be an inference tensor
            made = torch.Tensor._make_wrapper_subclass(
                cls,
                host.size(),
                strides=host.stride(),
                storage_offset=host.storage_offset(),
                dtype=host.dtype,
                device=device,
            )
        made.host = host
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        raise AssertionError(f"{func} on a tensor of the double after its end")

    @property
    def data(self) -> Any:
        return self.detach()

    @data.setter
    def data(self, other: ClaimedTensor) -> None:
        torch._C.TensorBase.data.__set__(self, other)  # type: ignore[attr-defined]
        self.host = other.host

    def tolist(self) -> Any:
        """As on a device: a copy to the host first."""
        return self.cpu().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        """As on a device: refused."""
        raise TypeError(f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() first")

    def __array__(self, *_: Any, **__: Any) -> Any:
        return self.numpy()

    def __reduce_ex__(self, _protocol: Any) -> Any:
        raise TypeError("a tensor of the double cannot be pickled")

    def __repr__(self) -> str:  # type: ignore[override]
        return f"ClaimedTensor({tuple(self.shape)}, {self.dtype}, {self.device})"


@dataclass
class Waits:
    """How often the host waited, by kind and by (place, kind)."""

    kinds: Counter[str] = field(default_factory=Counter)
    places: Counter[tuple[str, str]] = field(default_factory=Counter)
    queued: Counter[str] = field(default_factory=Counter)
    """Copies for which the host does not wait: "upload", "download"."""

    @property
    def total(self) -> int:
        return sum(self.kinds.values())

    def within(self, folder: str) -> int:
        """Those in files of `pseudoris_cli/` whose path starts so."""
        return sum(count for (place, _), count in self.places.items() if place.startswith(folder))


_NEED_SIZES = {
    aten.nonzero: "nonzero",
    aten.nonzero_numpy: "nonzero",
    aten.masked_select: "boolean indexing",
    aten._unique2: "unique",
    aten.unique_dim: "unique",
    aten.unique_consecutive: "unique",
    aten.bincount: "bincount",
    aten.equal: "equal",
    aten.is_nonzero: "item",
    aten._local_scalar_dense: "item",
    aten.item: "item",
}
"""Operations whose result's size or value the host must know before it goes on."""
_COPIES = (aten._to_copy, aten.to, aten.copy_)
_INDEX_PUT = (aten.index_put_, aten.index_put, aten._index_put_impl_)


class CudaDouble(TorchDispatchMode):
    """The devices `cuda:0` and `cuda:1`; see above."""

    def __init__(self) -> None:
        super().__init__()
        torch._C._ensureCUDADeviceGuardSet()  # without a device, C++ may then "switch" to one
        self._counts: list[Waits] = [Waits()]
        self._allowed: Collection[str] | None = None
        self._stack = ExitStack()
        self.downloads = Downloads(lambda: self.wait("event"))

    @property
    def waits(self) -> Waits:
        """All since the double began."""
        return self._counts[0]

    @contextmanager
    def counting(self) -> Iterator[Waits]:
        """What happens in the block."""
        found = Waits()
        self._counts.append(found)
        try:
            yield found
        finally:
            self._counts.remove(found)

    @contextmanager
    def forbid(self, allowed: Collection[str] = ()) -> Iterator[None]:
        """Within the block only these places (`decoding/engine.py:_sample`) may wait; others raise HiddenWait."""
        before, self._allowed = self._allowed, allowed
        try:
            yield
        finally:
            self._allowed = before

    def __enter__(self) -> CudaDouble:
        cuda = torch.cuda
        replaced = {
            "_lazy_init": lambda: None,
            "is_available": lambda: True,
            "device_count": lambda: DEVICES,
            "is_bf16_supported": lambda *_, **__: True,
            "empty_cache": lambda: None,
            "get_device_name": lambda *_: "a double",
            "mem_get_info": lambda *_: (8 << 30, 8 << 30),
            "current_stream": lambda device=None: _device(torch.device(device or "cuda")),  # each has one
            "Event": lambda **_: Event(self.downloads),
        }
        self._stack.enter_context(mock.patch.object(torch.Tensor, "pin_memory", _pinned))
        for name, function in replaced.items():
            self._stack.enter_context(mock.patch.object(cuda, name, function))
        self._stack.enter_context(mock.patch.object(torch, "tensor", _reading(torch.tensor)))
        before = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=...) then asks this mode for the copy
        self._stack.callback(torch._C._set_only_lift_cpu_tensors, before)
        overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
        torch.__future__.set_overwrite_module_params_on_conversion(True)  # Module.to makes new parameters
        self._stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, overwrite)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._stack.close()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        flat, spec = tree_flatten((args, kwargs or {}))
        claimed = [value for value in flat if isinstance(value, ClaimedTensor)]
        asked = next((_device(value) for value in flat if _is_device(value)), None)
        if not claimed and (asked is None or asked.type != "cuda"):
            return func(*args, **(kwargs or {}))
        packet = func.overloadpacket
        if packet is aten._has_compatible_shallow_copy_type:
            return False
        if packet not in (*_COPIES, aten.index, *_INDEX_PUT):
            _refuse_mixed(func, flat, claimed)
        target = self._target(packet, flat, claimed, asked)
        queued = _is_queued(func, args, kwargs or {}, claimed, target)
        if queued:
            for counts in self._counts:
                counts.queued["download" if target is None else "upload"] += 1
        else:
            self._count(func, flat, claimed, target)
        own = {id(value.host): value for value in claimed}
        host_args, host_kwargs = tree_unflatten([_on_host(value) for value in flat], spec)
        if packet is aten.to and packet_makes_no_copy(flat, claimed, target):
            host_kwargs.pop("device", None)
        result = func(*host_args, **host_kwargs)
        if packet is aten.to and isinstance(flat[0], ClaimedTensor) != (target is not None):
            result = result.clone()  # the host's `to` gives the same memory, to another device it is a copy
        if target is None:
            return self.downloads.queue(result, claimed[0].device) if queued else result

        def claim(value: Any) -> Any:
            if not isinstance(value, torch.Tensor) or isinstance(value, ClaimedTensor):
                return value
            return (
                own[id(value)] if id(value) in own and own[id(value)].device == target else ClaimedTensor(value, target)
            )

        return tree_map(claim, result)

    def _target(self, packet: Any, flat: list, claimed: list[ClaimedTensor], asked: torch.device | None) -> Any:
        """The device of the results; None for the host."""
        if packet is aten.copy_:
            return flat[0].device if isinstance(flat[0], ClaimedTensor) else None
        if asked is not None:
            return asked if asked.type == "cuda" else None
        if packet is aten.to and isinstance(flat[1], torch.Tensor):  # to.other
            return flat[1].device if isinstance(flat[1], ClaimedTensor) else None
        return claimed[0].device if claimed else None

    def _count(self, func: Any, flat: list, claimed: list[ClaimedTensor], target: torch.device | None) -> None:
        packet = func.overloadpacket
        if packet in _COPIES:
            comes_from_device = isinstance(flat[1 if packet is aten.copy_ else 0], ClaimedTensor)
            if comes_from_device and target is None:
                self.wait("cpu")
            elif not comes_from_device and target is not None:
                self.wait("upload")
        elif func is aten.where.default:
            self.wait("nonzero")
        elif packet in _NEED_SIZES:
            self.wait(_NEED_SIZES[packet])
        elif packet is aten.index:
            self._count_indices(flat[1:])
        elif packet in _INDEX_PUT:
            *indices, value = (one for one in flat[1:] if isinstance(one, torch.Tensor))
            self._count_indices([one for one in indices if value.numel() > 1 or not _is_selection(one)])
        elif packet is aten.repeat_interleave and "output_size" not in flat:
            self.wait("repeat_interleave")
        elif str(packet) == "torchvision.nms":
            self.wait("nms")

    def _count_indices(self, indices: list) -> None:
        """A selection is counted out first; one number put where it says is a `masked_fill`, which is not."""
        if any(_is_selection(one) for one in indices):
            self.wait("boolean indexing")
        if any(isinstance(one, torch.Tensor) and not isinstance(one, ClaimedTensor) for one in indices):
            self.wait("upload")

    def wait(self, kind: str) -> None:
        place = _place()
        if self._allowed is not None and place not in self._allowed:
            raise HiddenWait(f"{kind} in {place}")
        for counts in self._counts:
            counts.kinds[kind] += 1
            counts.places[place, kind] += 1


def _pinned(values: torch.Tensor, *_: Any) -> torch.Tensor:
    copy = values.clone()
    copy.is_pinned_on_double = True  # type: ignore[attr-defined]
    return copy


def _is_queued(func: Any, args: tuple, kwargs: dict, claimed: list[ClaimedTensor], target: torch.device | None) -> bool:
    """Whether this copies between host and device and the host goes on."""
    packet = func.overloadpacket
    if packet not in _COPIES:
        return False
    names = [one.name for one in func._schema.arguments]
    given = dict(zip(names, args, strict=False)) | kwargs
    source = given["src" if packet is aten.copy_ else "self"]
    if not given.get("non_blocking"):
        return False
    if target is None:
        return bool(claimed) and packet is not aten.copy_
    return not isinstance(source, ClaimedTensor) and hasattr(source, "is_pinned_on_double")


def packet_makes_no_copy(flat: list, claimed: list[ClaimedTensor], target: torch.device | None) -> bool:
    """Whether `to` stays on the device, where the host's `to` must not be told of another device."""
    return bool(claimed) and target == claimed[0].device


def _reading(make: Any) -> Any:
    """`torch.tensor` that reads numbers of the device one by one, as the real one does below where a mode can see it."""

    def read(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [read(one) for one in value]
        return value.item() if isinstance(value, ClaimedTensor) and value.dim() == 0 else value

    return lambda data, **options: make(read(data) if isinstance(data, list | tuple) else data, **options)


def _is_device(value: Any) -> bool:
    return isinstance(value, torch.device)


def _device(value: torch.device) -> torch.device:
    return torch.device("cuda", value.index or 0) if value.type == "cuda" else value


def _is_selection(value: Any) -> bool:
    return isinstance(value, ClaimedTensor) and value.dtype in (torch.bool, torch.uint8)


def _on_host(value: Any) -> Any:
    if isinstance(value, ClaimedTensor):
        return value.host
    return torch.device("cpu") if _is_device(value) and value.type == "cuda" else value


def _refuse_mixed(func: Any, flat: list, claimed: list[ClaimedTensor]) -> None:
    devices = {str(value.device) for value in claimed}
    devices |= {
        "cpu" for one in flat if isinstance(one, torch.Tensor) and not isinstance(one, ClaimedTensor) and one.dim()
    }
    if len(devices) > 1:
        raise MixedDevices(f"{func} in {_place()} on tensors of {', '.join(sorted(devices))}")


def _place() -> str:
    """The innermost function of the package that is at work: `decoding/engine.py:_sample`."""
    frame = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if "pseudoris_cli" in path.parts:
            inside = path.parts[len(path.parts) - path.parts[::-1].index("pseudoris_cli") :]
            return f"{'/'.join(inside)}:{frame.f_code.co_name}"
        frame = frame.f_back  # type: ignore[assignment]
    return "elsewhere"
