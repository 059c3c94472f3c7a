"""The recordings of the released code (tests/fixtures/coca) are reproduced, and the check can fail."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from coca_parity import FIXTURES, NAME, OTHERS, cut, load_parity

from pseudoris_cli.decoding import distribution


@pytest.fixture(scope="module")
def parity() -> ModuleType:
    return load_parity()


def test_recordings_are_reproduced(parity: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    code = parity.main(FIXTURES, ("dcs_M5_sampled",))
    told = capsys.readouterr().out
    assert code == 0, told
    assert told.count("token 0") == len(list(FIXTURES.glob("dcs_*.npz")))
    assert "beam_ref_tf4302 (8 captions): beam 0" in told
    assert "beam63_vs_21_tf4.30.2 (16 captions): beam 0" in told
    assert "left out as asked: dcs_M5_sampled" in told


def test_a_changed_probability_is_noticed(parity: ModuleType, tmp_path: Path, capsys: Any) -> None:
    values = cut(tmp_path)["s6_val"]
    values[int(np.abs(values - 0.5).argmin())] += 2e-4
    cut(tmp_path, s6_val=values)
    assert parity.main(tmp_path, OTHERS) == 1
    assert "FAILS: logit" in capsys.readouterr().out


@pytest.mark.parametrize("what", ["s3_tok", "final", "sim", "s3_nkept", "s3_rowsum", "s6_eos_prob", "image_latent"])
def test_any_changed_array_is_noticed(parity: ModuleType, tmp_path: Path, what: str) -> None:
    array = cut(tmp_path)[what].copy()
    array.flat[3] += 1 if array.dtype.kind in "iu" else 1e-3
    cut(tmp_path, **{what: array})
    assert parity.main(tmp_path, OTHERS) == 1


def test_weights_that_are_a_thousandth_off_are_noticed(parity: ModuleType, tmp_path: Path) -> None:
    cut(tmp_path)
    with np.load(tmp_path / "weights_fp16.npz") as arrays:
        weights = {name: arrays[name].astype(np.float32) * np.float32(1.001) for name in arrays.files}
    np.savez(tmp_path / "weights_fp16.npz", **weights)
    assert parity.main(tmp_path, OTHERS) == 1


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
    assert parity.main(tmp_path, OTHERS) == 1


def test_changed_beams_are_noticed(parity: ModuleType, tmp_path: Path, capsys: Any) -> None:
    cut(tmp_path)
    with np.load(FIXTURES / "beam_ref_tf4302.npz") as arrays:
        beams = dict(arrays)
    beams["M2"][1, 4] += 1
    np.savez(tmp_path / "beam_ref_tf4302.npz", **beams)
    assert parity.main(tmp_path, OTHERS[:-1]) == 1
    assert "FAILS: beam" in capsys.readouterr().out


def test_absent_recordings_fail_unless_they_are_named(parity: ModuleType, tmp_path: Path, capsys: Any) -> None:
    cut(tmp_path)
    assert parity.main(tmp_path, OTHERS) == 0
    told = capsys.readouterr().out
    assert f"compared: {NAME}\n" in told
    assert told.count("left out as asked: ") == len(OTHERS)
    assert parity.main(tmp_path, OTHERS[1:]) == 1
    assert f"not in {tmp_path}: {OTHERS[0]}\n" in capsys.readouterr().out
    assert parity.main(tmp_path, (*OTHERS, NAME)) == 1
    assert parity.main(tmp_path, (*OTHERS, "dcs_M9_argmax")) == 1


DOUBTS: dict[str, Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]] = {
    "unknown array s3_toks": lambda data: {"s3_toks": data["s3_tok"]},
    "s3_val is not finite": lambda data: {"s3_val": data["s3_val"] * np.nan},
    "sim is not finite": lambda data: {"sim": data["sim"] + np.inf},
    "s4_rowsum is (19,), not (20,)": lambda data: {"s4_rowsum": data["s4_rowsum"][1:]},
    "s4_x differs from final": lambda data: {"s4_x": data["s4_x"] + 1},
    "s4_ptr does not ascend": lambda data: {"s4_ptr": data["s4_ptr"][::-1].copy()},
    "s4_rows do not ascend": lambda data: {"s4_rows": data["s4_rows"][::-1].copy()},
    "nsteps is 9": lambda _data: {"nsteps": np.array(9)},
    "final is (0, 12)": lambda data: {"final": data["final"][:0]},
    "final is (19, 12)": lambda data: {"final": data["final"][1:]},
    "step 5 has no rows": lambda data: {
        f"s5_{name}": data[f"s5_{name}"][:0] for name in ("rows", "rowsum", "tok", "nkept")
    },
    "lacks s6_eos_prob": lambda _data: {"s6_eos_prob": None},
    "lacks image_latent": lambda _data: {"image_latent": None},
    "no step is recorded": lambda data: {name: None for name in data if re.match(r"s\d+_", name)},
}


@pytest.mark.parametrize("said", DOUBTS)
def test_a_doubtful_recording_fails(parity: ModuleType, tmp_path: Path, capsys: Any, said: str) -> None:
    data = cut(tmp_path)
    changed = data | DOUBTS[said](data)
    np.savez(tmp_path / f"{NAME}.npz", **{name: array for name, array in changed.items() if array is not None})
    assert parity.main(tmp_path, OTHERS) == 1
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "array"), [("M9", np.zeros((9, 30), int)), ("M2", np.zeros((3, 30), int)), ("M2", None)]
)
def test_doubtful_beams_fail(parity: ModuleType, tmp_path: Path, name: str, array: np.ndarray | None) -> None:
    cut(tmp_path)
    with np.load(FIXTURES / "beam_ref_tf4302.npz") as arrays:
        beams = dict(arrays) | {name: array}
    np.savez(tmp_path / "beam_ref_tf4302.npz", **{key: value for key, value in beams.items() if value is not None})
    assert parity.main(tmp_path, OTHERS[:-1]) == 1


def test_unknown_settings_and_broken_weights_are_errors(parity: ModuleType, tmp_path: Path) -> None:
    cut(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"temperature": 2}))
    with pytest.raises(ValueError, match=r"unknown \['temperature'\]"):
        parity.main(tmp_path, OTHERS)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with np.load(tmp_path / "weights_fp16.npz") as arrays:
        weights = dict(arrays)
    weights["text_decoder.text_projection"][0, 0] = np.nan
    np.savez(tmp_path / "weights_fp16.npz", **weights)
    with pytest.raises(ValueError, match="not finite: text_decoder"):
        parity.main(tmp_path, OTHERS)


def test_an_empty_folder_is_no_success(parity: ModuleType, tmp_path: Path, capsys: Any) -> None:
    assert parity.main(tmp_path) == 1
    assert "lacks config.json, weights_fp16.npz, images31_fp16.npy" in capsys.readouterr().out
    for name in ("config.json", "weights_fp16.npz", "images31_fp16.npy"):
        shutil.copy(FIXTURES / name, tmp_path)
    assert parity.main(tmp_path) == 1
    assert "lacks recordings" in capsys.readouterr().out
