"""The recordings of the released code (tests/fixtures/coca) are reproduced, and the check can fail."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from locations import REPOSITORY

from pseudoris_cli.decoding import distribution

ROOT = REPOSITORY
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


NAME = "dcs_M2_argmax"
TOKENS = 12


def cut(folder: Path, **changed: np.ndarray) -> dict[str, np.ndarray]:
    """A folder with the network and the first ten steps of one recording, some arrays of it changed; its arrays."""
    for name in ("weights_fp16.npz", "images31_fp16.npy"):
        shutil.copy(FIXTURES / name, folder)
    config = json.loads((FIXTURES / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"m2_seq_len": TOKENS}))
    with np.load(FIXTURES / f"{NAME}.npz") as arrays:
        data = {name: arrays[name] for name in arrays.files if name.split("_")[0] not in LATER}
    data["final"] = data["final"][:, :TOKENS].copy()
    going = ~np.isin(data["final"][:, -2], (config["eos"], config["pad"]))
    data["final"][going, -1] = config["eos"]
    np.savez(folder / f"{NAME}.npz", **(data | changed))
    return data


LATER = {f"s{step}" for step in range(TOKENS - 2, 28)}


def test_a_changed_probability_is_noticed(parity: ModuleType, tmp_path: Path, capsys: Any) -> None:
    values = cut(tmp_path)["s6_val"]
    values[int(np.abs(values - 0.5).argmin())] += 2e-4
    cut(tmp_path, s6_val=values)
    assert parity.main(tmp_path) == 1
    assert "FAILS: logit" in capsys.readouterr().out


@pytest.mark.parametrize("what", ["s3_tok", "final", "sim", "s3_nkept", "s3_rowsum", "s6_eos_prob", "image_latent"])
def test_any_changed_array_is_noticed(parity: ModuleType, tmp_path: Path, what: str) -> None:
    array = cut(tmp_path)[what].copy()
    array.flat[3] += 1 if array.dtype.kind in "iu" else 1e-3
    cut(tmp_path, **{what: array})
    assert parity.main(tmp_path) == 1


def test_weights_that_are_a_thousandth_off_are_noticed(parity: ModuleType, tmp_path: Path) -> None:
    cut(tmp_path)
    with np.load(tmp_path / "weights_fp16.npz") as arrays:
        weights = {name: arrays[name].astype(np.float32) * np.float32(1.001) for name in arrays.files}
    np.savez(tmp_path / "weights_fp16.npz", **weights)
    assert parity.main(tmp_path) == 1


@pytest.mark.parametrize("rule", ["contrast_form", "contrast", "end"])
def test_another_rule_is_noticed(parity: ModuleType, tmp_path: Path, rule: str, monkeypatch: Any) -> None:
    """Scale-preserving contrast, a hundredth less of it, the end not exempt from the contrast."""
    cut(tmp_path)
    changes = {"contrast_form": "scale_preserving", "contrast": 0.99}
    sample = parity.sample_captions

    def changed(network: Any, cross_kv: Any, groups: Any, rows: Any, rules: Any, choose: Any) -> Any:
        return sample(network, cross_kv, groups, rows, replace(rules, **{rule: changes[rule]}), choose)

    if rule == "end":
        weigh = distribution._weigh
        monkeypatch.setattr(distribution, "_weigh", lambda found, view, least, _end: weigh(found, view, least, -1))
    else:
        monkeypatch.setattr(parity, "sample_captions", changed)
    assert parity.main(tmp_path) == 1


def test_changed_beams_are_noticed(parity: ModuleType, tmp_path: Path, capsys: Any) -> None:
    cut(tmp_path)
    with np.load(FIXTURES / "beam_ref_tf4302.npz") as arrays:
        beams = dict(arrays)
    beams["M2"][1, 4] += 1
    np.savez(tmp_path / "beam_ref_tf4302.npz", **beams)
    assert parity.main(tmp_path) == 1
    assert "beam_ref_tf4302: beam 1   FAILS: beam" in capsys.readouterr().out


def test_absent_recordings_are_named(parity: ModuleType, tmp_path: Path, capsys: Any) -> None:
    cut(tmp_path)
    assert parity.main(tmp_path) == 0
    told = capsys.readouterr().out
    assert f"compared: {NAME}\n" in told
    assert "dcs_M5_sampled, dcs_M30_oneStep_argmax, dcs_M31_argmax, beam_ref_tf4302" in told


def test_an_empty_folder_is_no_success(parity: ModuleType, tmp_path: Path, capsys: Any) -> None:
    assert parity.main(tmp_path) == 1
    assert "lacks config.json, weights_fp16.npz, images31_fp16.npy" in capsys.readouterr().out
    for name in ("config.json", "weights_fp16.npz", "images31_fp16.npy"):
        shutil.copy(FIXTURES / name, tmp_path)
    assert parity.main(tmp_path) == 1
    assert "lacks recordings" in capsys.readouterr().out
