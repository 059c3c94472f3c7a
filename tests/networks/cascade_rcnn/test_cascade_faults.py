"""benchmarks/parity_cutler.py notices every fault that is put into the network, at the step where it is.

Faults that no recording can show are in test_plain_cascade.py.
"""

from __future__ import annotations

import re
import sys
from typing import Any

import locations
import pytest
import torch
from cascade_faults import FAULTS, Fault

sys.path.append(str(locations.REPOSITORY / "benchmarks"))
import cutler_recordings
import parity_cutler

FOLDER = locations.FIXTURES / "cutler/seed0"
IMAGE = "demo7.png"
"""The image whose input is padded."""


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return cutler_recordings.read_state(FOLDER)


@pytest.fixture(scope="module")
def judge(state: dict[str, torch.Tensor]) -> Any:
    torch.set_num_threads(1)
    config = cutler_recordings.read_config(FOLDER)
    return parity_cutler.Judge.of(cutler_recordings.read_recording(FOLDER, IMAGE, config), config, state)


def complaints(judge: Any, state: dict[str, torch.Tensor]) -> list[str]:
    """What the judge says of the network as it now is."""
    detector = cutler_recordings.OurDetector(state, judge.config)
    return judge.judge_output(detector(judge.recording.image_rgb)).faults


def test_without_a_fault_there_is_no_complaint(judge: Any, state: dict[str, torch.Tensor]) -> None:
    assert complaints(judge, state) == []


def test_another_order_of_sums_is_no_fault(judge: Any, state: dict[str, torch.Tensor]) -> None:
    """Channels last: as far from the recording as other processors' kernels are."""
    detector = cutler_recordings.OurDetector(state, judge.config)
    detector.network.to(memory_format=torch.channels_last)
    assert judge.judge_output(detector(judge.recording.image_rgb)).faults == []


@pytest.mark.parametrize(
    ("fault", "seen"),
    [pytest.param(fault, seen, id=fault.name) for seen, faults in FAULTS.items() for fault in faults],
)
def test_a_fault_is_noticed(
    fault: Fault, seen: str, judge: Any, state: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault.put_in(monkeypatch)
    found = complaints(judge, state)
    assert found
    assert re.match(seen, found[0]), found
