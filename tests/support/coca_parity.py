"""benchmarks/parity_coca.py as a module, and a small folder of recordings for it."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
from locations import REPOSITORY

FIXTURES = REPOSITORY / "tests" / "fixtures" / "coca"


def load_parity() -> ModuleType:
    spec = importlib.util.spec_from_file_location("parity_coca", REPOSITORY / "benchmarks" / "parity_coca.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["parity_coca"] = module
    sys.path.append(str(REPOSITORY / "benchmarks"))  # for its siblings coca_recordings and coca_exact
    spec.loader.exec_module(module)
    return module


NAME = "dcs_M2_argmax"
OTHERS = (
    *("dcs_M1_argmax", "dcs_M1_sampled", "dcs_M2_sampled", "dcs_M5_argmax", "dcs_M5_sampled"),
    *("dcs_M30_oneStep_argmax", "dcs_M31_argmax", "beam_ref_tf4302"),
)
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
    data["nsteps"] = np.array(TOKENS - 2)
    np.savez(folder / f"{NAME}.npz", **(data | changed))
    return data


LATER = {f"s{step}" for step in range(TOKENS - 2, 28)}
