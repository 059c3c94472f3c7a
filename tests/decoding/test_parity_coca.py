"""The recordings of the released code (tests/fixtures/coca) are reproduced, and the check can fail."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests" / "fixtures" / "coca"


@pytest.fixture(scope="module")
def parity() -> ModuleType:
    spec = importlib.util.spec_from_file_location("parity_coca", ROOT / "benchmarks" / "parity_coca.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["parity_coca"] = module
    spec.loader.exec_module(module)
    return module


def test_recordings_are_reproduced(parity: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    code = parity.main(FIXTURES)
    told = capsys.readouterr().out
    assert code == 0, told
    assert told.count("token 0") == len(list(FIXTURES.glob("dcs_*.npz")))
    assert "beam_ref_tf4302" in told


def test_a_changed_recording_is_noticed(parity: ModuleType, tmp_path: Path) -> None:
    for name in ("config.json", "weights_fp16.npz", "images31_fp16.npy"):
        shutil.copy(FIXTURES / name, tmp_path)
    with np.load(FIXTURES / "dcs_M30_oneStep_argmax.npz") as arrays:
        data = dict(arrays)
    data["s0_val"][7] += 1e-3
    np.savez(tmp_path / "dcs_M30_oneStep_argmax.npz", **data)
    assert parity.main(tmp_path) == 1


def test_an_empty_folder_is_no_success(parity: ModuleType, tmp_path: Path) -> None:
    for name in ("weights_fp16.npz", "images31_fp16.npy"):
        shutil.copy(FIXTURES / name, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(json.loads((FIXTURES / "config.json").read_text())))
    assert parity.main(tmp_path) == 1
