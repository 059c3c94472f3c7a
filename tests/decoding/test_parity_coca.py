"""The recordings of the released code (tests/fixtures/coca) are reproduced, and the check can fail."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from pseudoris_cli.decoding import distribution

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests" / "fixtures" / "coca"


@pytest.fixture(scope="module")
def parity() -> ModuleType:
    spec = importlib.util.spec_from_file_location("parity_coca", ROOT / "benchmarks" / "parity_coca.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["parity_coca"] = module
    sys.path.append(str(ROOT / "benchmarks"))  # for its sibling coca_recordings
    spec.loader.exec_module(module)
    return module


def test_recordings_are_reproduced(parity: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    code = parity.main(FIXTURES)
    told = capsys.readouterr().out
    assert code == 0, told
    assert told.count("token 0") == len(list(FIXTURES.glob("dcs_*.npz")))
    assert "beam_ref_tf4302" in told


def copy(tmp_path: Path, recording: str) -> dict[str, np.ndarray]:
    """A folder with one recording and its network; the recording's arrays."""
    for name in ("config.json", "weights_fp16.npz", "images31_fp16.npy", f"{recording}.npz"):
        shutil.copy(FIXTURES / name, tmp_path)
    with np.load(tmp_path / f"{recording}.npz") as arrays:
        return dict(arrays)


def test_a_changed_probability_is_noticed(parity: ModuleType, tmp_path: Path, capsys: Any) -> None:
    data = copy(tmp_path, "dcs_M30_oneStep_argmax")
    data["s0_val"][7] += 1e-3
    np.savez(tmp_path / "dcs_M30_oneStep_argmax.npz", **data)
    assert parity.main(tmp_path) == 1
    assert "FAILS: logit" in capsys.readouterr().out


@pytest.mark.parametrize("what", ["s0_tok", "final", "sim", "s0_nkept", "s0_rowsum", "image_latent"])
def test_any_changed_array_is_noticed(parity: ModuleType, tmp_path: Path, what: str) -> None:
    data = copy(tmp_path, "dcs_M30_oneStep_argmax")
    data[what].flat[data[what].size - 1] += 1 if data[what].dtype.kind in "iu" else 1e-3
    np.savez(tmp_path / "dcs_M30_oneStep_argmax.npz", **data)
    assert parity.main(tmp_path) == 1


def test_weights_that_are_a_thousandth_off_are_noticed(parity: ModuleType, tmp_path: Path) -> None:
    copy(tmp_path, "dcs_M30_oneStep_argmax")
    with np.load(tmp_path / "weights_fp16.npz") as arrays:
        weights = {name: arrays[name].astype(np.float32) * np.float32(1.001) for name in arrays.files}
    np.savez(tmp_path / "weights_fp16.npz", **weights)
    assert parity.main(tmp_path) == 1


@pytest.mark.parametrize("rule", ["contrast_form", "contrast", "min_length", "end"])
def test_another_rule_is_noticed(parity: ModuleType, tmp_path: Path, rule: str, monkeypatch: Any) -> None:
    """Scale-preserving contrast, a hundredth less of it, an end one token sooner, the end not exempt from the contrast."""
    copy(tmp_path, "dcs_M2_argmax")
    changes = {"contrast_form": "scale_preserving", "contrast": 0.99, "min_length": 4}
    sample = parity.sample_captions

    def changed(network: Any, memory: Any, groups: Any, rows: Any, rules: Any, choose: Any) -> Any:
        return sample(network, memory, groups, rows, replace(rules, **{rule: changes[rule]}), choose)

    if rule == "end":
        weigh = distribution._weigh
        monkeypatch.setattr(distribution, "_weigh", lambda found, view, least, _end: weigh(found, view, least, -1))
    else:
        monkeypatch.setattr(parity, "sample_captions", changed)
    assert parity.main(tmp_path) == 1


def test_changed_beams_are_noticed(parity: ModuleType, tmp_path: Path, capsys: Any) -> None:
    copy(tmp_path, "dcs_M30_oneStep_argmax")
    with np.load(FIXTURES / "beam_ref_tf4302.npz") as arrays:
        beams = dict(arrays)
    beams["M2"][1, 4] += 1
    np.savez(tmp_path / "beam_ref_tf4302.npz", **beams)
    assert parity.main(tmp_path) == 1
    assert "beam_ref_tf4302: beam 1   FAILS: beam" in capsys.readouterr().out


def test_absent_recordings_are_named(parity: ModuleType, tmp_path: Path, capsys: Any) -> None:
    copy(tmp_path, "dcs_M30_oneStep_argmax")
    assert parity.main(tmp_path) == 0
    told = capsys.readouterr().out
    assert "compared: dcs_M30_oneStep_argmax\n" in told
    assert "dcs_M5_sampled, dcs_M31_argmax, beam_ref_tf4302" in told


def test_an_empty_folder_is_no_success(parity: ModuleType, tmp_path: Path, capsys: Any) -> None:
    assert parity.main(tmp_path) == 1
    assert "lacks config.json, weights_fp16.npz, images31_fp16.npy" in capsys.readouterr().out
    for name in ("config.json", "weights_fp16.npz", "images31_fp16.npy"):
        shutil.copy(FIXTURES / name, tmp_path)
    assert parity.main(tmp_path) == 1
    assert "lacks recordings" in capsys.readouterr().out
