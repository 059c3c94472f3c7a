"""Recordings of the released caption code: their rules, their network, and whether they are what they claim to be."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pseudoris_cli.decoding.distinctive import SampleRow
from pseudoris_cli.decoding.network import CaptionNetwork
from pseudoris_cli.decoding.rules import DecodingRules, Generated
from pseudoris_cli.networks.coca.build import build_coca

BEAMS = "beam_ref_tf4302"
MORE_BEAMS = "beam63_vs_21_tf4.30.2"
"""Eight images, two of whose captions end before the maximum length; compared where it is there."""
LAYOUT = (
    *(f"dcs_M{masks}_{how}" for masks in (1, 2, 5) for how in ("argmax", "sampled")),
    "dcs_M30_oneStep_argmax",
    "dcs_M31_argmax",
    BEAMS,
)
"""The recordings that a folder must hold."""
OF_A_RECORDING = {"final", "sim", "image_latent", "nsteps"}
OF_A_STEP = {"rows", "x", "ptr", "idx", "val", "rowsum", "eos_prob", "nkept", "tok"}
CONFIG = {"tiny_config", "top_k", "top_p", "seq_len", "min_seq_len", "sot", "eos", "pad", "versions", "note"}


class Recording:
    """One dcs_*.npz with the rules that it was made under."""

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        self.name = path.stem
        with np.load(path) as arrays:
            self.data = {name: arrays[name] for name in arrays.files}
        found = re.fullmatch(r"dcs_M(\d+)(_oneStep)?_(argmax|sampled)", self.name)
        if found is None:
            raise ValueError(f"{path} is not named dcs_M<masks>_argmax.npz or dcs_M<masks>_sampled.npz")
        self.masks = int(found[1])
        self.argmax = found[3] == "argmax"
        self.steps = sorted({int(n[1]) for name in self.data if (n := re.match(r"s(\d+)_", name))})
        special = f"m{self.masks}_"
        self.rules = rules(config, special)

    def rows(self) -> list[SampleRow]:
        """Sampler-major, as the release orders them."""
        return [SampleRow(0, crop, sampler) for sampler in range(self.rules.samplers) for crop in range(self.masks)]

    def doubts(self) -> list[str]:
        """What is unknown, missing, empty, not finite or of another shape than the recording's size asks for."""
        data, found = self.data, []
        wanted = OF_A_RECORDING | {f"s{step}_{name}" for step in self.steps for name in OF_A_STEP}
        optional = {"image_embs"} | {f"s{step}_logits_first2rows" for step in self.steps}
        found += [f"lacks {name}" for name in sorted(wanted - data.keys())]
        found += [f"unknown array {name}" for name in sorted(data.keys() - wanted - optional)]
        if not self.steps:
            found.append("no step is recorded")
        for name, array in data.items():
            finite = array[array > -np.inf] if name.endswith("logits_first2rows") else array
            if not np.isfinite(finite).all():
                found.append(f"{name} is not finite")
        return found or self._misfits()

    def _misfits(self) -> list[str]:
        """Arrays of the wrong shape, and steps that contradict `final`."""
        data, final = self.data, self.data["final"]
        rows, masks = self.masks * self.rules.samplers, self.masks
        if final.ndim != 2 or len(final) != rows or not 2 <= final.shape[1] <= self.rules.max_length or masks == 0:
            return [f"final is {final.shape}, not [{rows}, up to {self.rules.max_length}]"]
        steps = final.shape[1] - 1 - (final.shape[1] == self.rules.max_length)
        found = [] if int(data["nsteps"]) == steps else [f"nsteps is {data['nsteps']}, final has {steps}"]
        shapes = {"sim": (masks, masks), "image_latent": (masks, data["image_latent"].shape[-1])}
        for step in self.steps:
            at = f"s{step}_"
            count, entries = len(data[at + "rows"]), len(data[at + "idx"])
            if count == 0 or step >= steps:
                return [*found, f"step {step} has no rows" if count == 0 else f"step {step} is beyond the last"]
            shapes |= {at + name: (count,) for name in ("rows", "rowsum", "eos_prob", "nkept", "tok")}
            shapes |= {at + "x": (count, step + 1), at + "ptr": (count + 1,), at + "val": (entries,)}
        found += [
            f"{name} is {data[name].shape}, not {shape}" for name, shape in shapes.items() if data[name].shape != shape
        ]
        if found:
            return found
        for step in self.steps:
            at = f"s{step}_"
            alive, pointer = data[at + "rows"].astype(int), data[at + "ptr"]
            if (np.diff(alive) <= 0).any() or not 0 <= alive[0] <= alive[-1] < rows:
                found.append(f"{at}rows do not ascend within the rows of final")
            elif not np.array_equal(data[at + "x"], final[alive, : step + 1]):
                found.append(f"{at}x differs from final")
            if pointer[0] != 0 or pointer[-1] != len(data[at + "idx"]) or (np.diff(pointer) < 0).any():
                found.append(f"{at}ptr does not ascend from 0 to the number of entries")
        return found


def rules(config: dict[str, Any], special: str = "") -> DecodingRules:
    """The release's rules; keys that start with `special` replace lengths."""
    return DecodingRules(
        start=config["sot"],
        end=config["eos"],
        pad=config["pad"],
        top_k=tuple(config["top_k"]),
        top_p=tuple(config["top_p"]),
        contrast=1.0,
        contrast_form="literal",
        contrast_max_masks=30,
        similarity_clamp=None,
        pad_ends_row=True,
        min_length=config.get(special + "min_seq_len", config["min_seq_len"]),
        max_length=config.get(special + "seq_len", config["seq_len"]),
    )


def matrix(captions: list[Generated], given: DecodingRules) -> np.ndarray:
    """Captions as the release returns them: start first, padded."""
    out = np.full((len(captions), 1 + max(len(c.tokens) for c in captions)), given.pad)
    out[:, 0] = given.start
    for row, caption in enumerate(captions):
        out[row, 1 : 1 + len(caption.tokens)] = caption.tokens
    return out


def load(folder: Path) -> tuple[CaptionNetwork, torch.Tensor, dict[str, Any]]:
    """The recorded network, its images [31, 3, 64, 64] and the recording's configuration.

    Raises ValueError for a configuration with unknown keys and for weights or images that are not finite.
    """
    config = json.loads((folder / "config.json").read_text())
    unknown = [key for key in config.keys() - CONFIG if not re.fullmatch(r"m\d+_(min_)?seq_len", key)]
    if unknown or not config.keys() >= CONFIG - {"versions", "note"}:
        raise ValueError(
            f"config.json: unknown {unknown} or lacks {sorted(CONFIG - {'versions', 'note'} - config.keys())}"
        )
    coca = build_coca(config["tiny_config"])
    with np.load(folder / "weights_fp16.npz") as arrays:
        weights = {name: torch.from_numpy(arrays[name].astype(np.float32)) for name in arrays.files}
    images = torch.from_numpy(np.load(folder / "images31_fp16.npy").astype(np.float32))
    bad = [name for name, tensor in (weights | {"images": images}).items() if not bool(tensor.isfinite().all())]
    if bad:
        raise ValueError(f"not finite: {', '.join(bad)}")
    coca.load_state_dict(weights)
    return CaptionNetwork(coca), images, config
