"""The CUDA double holds to a real device's rules: otherwise the tests on it would show nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cuda_double import CudaDouble, HiddenWait, MixedDevices

HOST = torch.arange(6.0).view(2, 3)


def test_numbers_are_those_of_the_host_and_views_share_memory() -> None:
    with CudaDouble():
        x = HOST.to("cuda:1")
        assert x.device == torch.device("cuda:1")
        x.view(-1)[1:3].zero_()
        assert x.tolist() == [[0.0, 0.0, 0.0], [3.0, 4.0, 5.0]]
        out = torch.empty(2, 2, device="cuda:1")
        assert torch.mm(x, x.t(), out=out) is out
        assert out.tolist() == [[0.0, 0.0], [0.0, 50.0]]


@pytest.mark.parametrize("inference", [False, True])
def test_tensors_of_two_devices_do_not_mix(inference: bool) -> None:
    with CudaDouble(), torch.inference_mode(inference):
        x = HOST.to("cuda:0")
        for other in (HOST, HOST.to("cuda:1")):
            for mix in (
                lambda y: x + y,
                lambda y: torch.cat([x, y]),
                lambda y: x.mul_(y),
                lambda y: torch.where(x > 1, x, y),
            ):
                with pytest.raises(MixedDevices):
                    mix(other)
        assert (x * torch.tensor(2.0)).sum().item() == 30, "a number may come from anywhere"
        with pytest.raises(MixedDevices):
            torch.nn.Linear(3, 2)(x)


def test_modules_move_and_change_their_type() -> None:
    with CudaDouble():
        layer = torch.nn.Linear(3, 2).to("cuda:1")
        assert {weight.device for weight in layer.parameters()} == {torch.device("cuda:1")}
        layer.bias.data = layer.bias.data.double()
        assert layer.bias.host.dtype == layer.bias.dtype == torch.float64
        assert layer.half()(HOST.to("cuda:1").half()).dtype == torch.float16
        with torch.autocast("cuda", torch.bfloat16):
            assert torch.nn.functional.linear(HOST.to("cuda:1"), HOST.to("cuda:1")).dtype == torch.bfloat16


def test_no_value_reaches_numpy() -> None:
    with CudaDouble():
        x = HOST.to("cuda")
        assert x.device.index == 0
        for read in (lambda: x.numpy(), lambda: np.asarray(x), lambda: np.array([x])):
            with pytest.raises(TypeError, match="can't convert cuda:0"):
                read()


WAITS = {
    "item": [lambda x: x[0, 0].item(), lambda x: float(x[0, 1]), lambda x: bool(x.any()), lambda x: int(x.sum())],
    "cpu": [lambda x: x.tolist(), lambda x: x.cpu(), lambda x: x.to("cpu"), lambda x: torch.empty(2, 3).copy_(x)],
    "nonzero": [lambda x: x.nonzero(), lambda x: x.nonzero(as_tuple=True), lambda x: torch.where(x > 1)],
    "boolean indexing": [
        lambda x: x[x > 1],
        lambda x: x.masked_select(x > 1),
        lambda x: x.__setitem__(x > 1, torch.zeros(4, device=x.device)),
    ],
    "unique": [lambda x: x.unique(), lambda x: torch.unique(x, dim=0)],
    "equal": [lambda x: torch.equal(x, x)],
    "upload": [
        lambda x: torch.tensor([1], device=x.device),
        lambda x: HOST.to(x.device),
        lambda x: x.copy_(HOST),
        lambda x: x[torch.tensor([0])],
        lambda x: x[:, [0, 2]],
    ],
}


@pytest.mark.parametrize(
    ("kind", "number"), [(kind, number) for kind, reads in WAITS.items() for number in range(len(reads))]
)
@pytest.mark.parametrize("inference", [False, True])
def test_every_wait_is_counted_and_can_be_forbidden(kind: str, number: int, inference: bool) -> None:
    read = WAITS[kind][number]
    with CudaDouble() as gpu, torch.inference_mode(inference):
        x = HOST.to("cuda:0")
        with gpu.counting() as waits:
            read(x.clone())
        assert waits.kinds == {kind: 1}
        assert gpu.waits.total == 2
        with gpu.forbid(), pytest.raises(HiddenWait, match=kind):
            read(x.clone())
        with gpu.forbid(["elsewhere"]):
            read(x.clone())


@pytest.mark.parametrize(
    "work",
    [
        lambda x: x.sum().add_(1),
        lambda x: torch.zeros(3, device=x.device).fill_(2),
        lambda x: x[torch.arange(2, device=x.device)],
        lambda x: x.masked_fill_(x > 1, 0),
        lambda x: x.__setitem__(x > 1, 0.0),
        lambda x: x.to(torch.float64).sort(),
        lambda x: x.topk(2),
    ],
)
def test_what_stays_on_the_device_is_no_wait(work) -> None:
    with CudaDouble() as gpu:
        x = HOST.to("cuda:0")
        with gpu.counting() as waits, gpu.forbid():
            work(x)
        assert waits.total == 0


def test_a_queued_upload_is_no_wait_from_pinned_memory_only() -> None:
    with CudaDouble() as gpu:
        with gpu.counting() as waits, gpu.forbid():
            assert HOST.pin_memory().to("cuda:1", non_blocking=True).device == torch.device("cuda:1")
        assert (waits.total, waits.queued) == (0, {"upload": 1})
        with gpu.counting() as waits:
            HOST.to("cuda:1", non_blocking=True)
            HOST.pin_memory().to("cuda:1")
        assert (waits.total, waits.queued) == (2, {})


@pytest.mark.parametrize("inference", [False, True])
def test_a_queued_download_is_nonsense_until_an_event_behind_it_is_waited_for(inference: bool) -> None:
    with CudaDouble() as gpu, torch.inference_mode(inference):
        x = HOST.to("cuda:1")  # a copy, in inference mode too
        before, elsewhere, behind = torch.cuda.Event(), torch.cuda.Event(), torch.cuda.Event()
        before.record(torch.cuda.current_stream(x.device))
        with gpu.counting() as waits, gpu.forbid():
            copy = x.to("cpu", non_blocking=True)
        assert (waits.total, waits.queued) == (0, {"download": 1})
        x.zero_()
        behind.record(torch.cuda.current_stream(x.device))
        elsewhere.record()
        for event in (before, elsewhere):
            event.synchronize()
            assert copy.tolist() != HOST.tolist()
        with gpu.counting() as waits:
            behind.synchronize()
        assert waits.kinds == {"event": 1}
        assert copy.tolist() == HOST.tolist()


def test_the_end_of_the_double_is_the_end_of_its_devices() -> None:
    with CudaDouble():
        assert torch.cuda.is_available()
        x = HOST.to("cuda:0")
    assert torch.cuda.device_count() == 0 or torch.cuda.is_available()
    with pytest.raises(AssertionError, match="after its end"):
        x + 1
