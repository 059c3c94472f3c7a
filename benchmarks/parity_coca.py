"""Compare the caption decoder with recordings of the released code.

    python benchmarks/parity_coca.py DIR

DIR holds config.json, weights_fp16.npz, images31_fp16.npy, dcs_M*_{argmax,sampled}.npz and beam_ref_tf4302.npz (the reduced
copy in tests/fixtures/coca, or any folder in that layout). Every recorded step is computed from the recorded prefixes and
compared: who is alive, keep-set sizes, probabilities, their sums, the end token's probability; runs recorded by argmax are
also decoded freely and compared token by token, as are the beams. Prints the largest errors; exits 1 on a mismatch.

What can be asked: the recorded float32 logits (scale 17 to 50) lie up to 3e-5 from those of the same network in float64, and so
do ours. That moves a probability by up to half of it, a contrasted one by up to all of it, and it decides whether a top-p set
whose mass reaches p within that error has one token more. Such rows are counted as `edges`, not compared further.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pseudoris_cli.decoding.beam import search_captions
from pseudoris_cli.decoding.distinctive import Group, Row, sample_captions
from pseudoris_cli.decoding.distribution import Kept
from pseudoris_cli.decoding.network import CaptionNetwork
from pseudoris_cli.decoding.rules import Generated, Rules
from pseudoris_cli.networks.coca import build_coca

TOLERANCE = {"probability": 6e-5, "row sum": 6e-5, "end": 6e-5, "similarity": 1e-5, "latent": 1e-5, "image token": 1e-4}
EDGE = 1e-5
"""Distance of a top-p set's mass from p at which rounding decides on one token."""
EXACT = ("rows alive", "kept", "token", "beam")


@dataclass
class Report:
    """Largest error of each kind, or the number of differences where equality is asked."""

    errors: dict[str, float] = field(default_factory=dict)

    def compare(self, kind: str, ours: np.ndarray, theirs: np.ndarray) -> None:
        ours, theirs = np.asarray(ours), np.asarray(theirs)
        if ours.shape != theirs.shape:
            error = float("inf")
        elif kind in EXACT:
            error = float((ours != theirs).sum()) + self.errors.get(kind, 0.0)
        else:
            error = float(np.abs(ours.astype(np.float64) - theirs).max(initial=0.0))
        self.errors[kind] = max(error, self.errors.get(kind, 0.0))

    def fails(self) -> list[str]:
        return [
            kind for kind, error in self.errors.items() if kind != "edges" and not error <= TOLERANCE.get(kind, 0.0)
        ]


class Recording:
    """One dcs_*.npz with the rules that it was made under."""

    def __init__(self, path: Path, config: dict) -> None:
        self.name, self.data = path.stem, np.load(path)
        self.masks = int(re.match(r"dcs_M(\d+)_", self.name)[1])
        self.argmax = self.name.endswith("argmax")
        special = f"m{self.masks}_"
        self.rules = Rules(
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

    def rows(self) -> list[Row]:
        """Sampler-major, as the release orders them."""
        return [Row(0, crop, sampler) for sampler in range(self.rules.samplers) for crop in range(self.masks)]

    def matrix(self, captions: list[Generated]) -> np.ndarray:
        """Captions as the release returns them: start first, padded."""
        out = np.full((len(captions), 1 + max(len(c.tokens) for c in captions)), self.rules.pad)
        out[:, 0] = self.rules.start
        for row, caption in enumerate(captions):
            out[row, 1 : 1 + len(caption.tokens)] = caption.tokens
        return out


class Replay:
    """A `Choose` that takes the recorded tokens and compares every recorded step."""

    def __init__(self, recording: Recording, report: Report, coca: Any, images: torch.Tensor) -> None:
        self.recording, self.report, self.coca, self.images = recording, report, coca, images
        self.steps = 0

    def __call__(self, kept: Kept, alive: np.ndarray, length: int) -> np.ndarray:
        data, step = self.recording.data, f"s{length - 1}_"
        if step + "rows" in data:
            self.steps += 1
            self.report.compare("rows alive", alive, data[step + "rows"])
            if np.array_equal(alive, data[step + "rows"]):
                self.compare(kept, step)
        wanted = data["final"][alive, length]
        owner = np.repeat(np.arange(len(alive)), np.diff(kept.start))
        entries = np.flatnonzero(kept.token == wanted[owner])
        self.report.compare("token", owner[entries], np.arange(len(alive)))
        chosen = kept.start[:-1].copy()
        chosen[owner[entries]] = entries
        return chosen

    def compare(self, kept: Kept, step: str) -> None:
        data, count = self.recording.data, len(kept.start) - 1
        owner = np.repeat(np.arange(count), np.diff(kept.start))
        recorded = np.repeat(np.arange(count), np.diff(data[step + "ptr"]))
        ours = {(r, t): w for r, t, w in zip(owner.tolist(), kept.token.tolist(), kept.weight.tolist(), strict=True)}
        theirs = {
            (r, t): v
            for r, t, v in zip(recorded.tolist(), data[step + "idx"].tolist(), data[step + "val"].tolist(), strict=True)
        }
        edges = self.edges(kept, step)
        keys = sorted(key for key in ours.keys() | theirs.keys() if key[0] not in edges)
        self.report.compare(
            "probability", np.array([ours.get(k, 0.0) for k in keys]), np.array([theirs.get(k, 0.0) for k in keys])
        )
        rows = [row for row in range(count) if row not in edges]
        end = np.array([ours.get((row, self.recording.rules.end), 0.0) for row in rows])
        self.report.compare("kept", np.diff(kept.start)[rows], data[step + "nkept"][rows])
        self.report.compare("row sum", np.add.reduceat(kept.weight, kept.start[:-1])[rows], data[step + "rowsum"][rows])
        self.report.compare("end", end, data[step + "eos_prob"][rows])

    def edges(self, kept: Kept, step: str) -> set[int]:
        """Top-p rows with one token more or less than recorded where some set's mass is p within rounding."""
        rules, data, masks = self.recording.rules, self.recording.data, self.recording.masks
        found = set()
        for row in np.flatnonzero(np.abs(np.diff(kept.start) - data[step + "nkept"]) == 1):
            sampler, crop = divmod(int(data[step + "rows"][row]), masks)
            prefix = torch.from_numpy(data[step + "x"][row : row + 1].astype(np.int64))
            logits = self.coca(self.images[crop : crop + 1], prefix, output_labels=False)["logits"][0, -1].double()
            if prefix.shape[1] < rules.min_length:
                logits[rules.end] = -torch.inf
            mass = logits.softmax(0).sort(descending=True).values.cumsum(0)
            share = rules.top_p[sampler - len(rules.top_k)]
            if sampler >= len(rules.top_k) and (mass - share).abs().min() < EDGE:
                found.add(int(row))
        self.report.errors["edges"] = self.report.errors.get("edges", 0) + len(found)
        return found


def take_argmax(kept: Kept, alive: np.ndarray, length: int) -> np.ndarray:
    """The most probable token of each row."""
    return np.array([a + kept.weight[a:b].argmax() for a, b in zip(kept.start[:-1], kept.start[1:], strict=True)])


def load(folder: Path) -> tuple[CaptionNetwork, torch.Tensor, dict]:
    """The recorded network, its images [31, 3, 64, 64] and the recording's configuration."""
    config = json.loads((folder / "config.json").read_text())
    coca = build_coca(config["tiny_config"])
    with np.load(folder / "weights_fp16.npz") as arrays:
        coca.load_state_dict({name: torch.from_numpy(arrays[name].astype(np.float32)) for name in arrays.files})
    images = torch.from_numpy(np.load(folder / "images31_fp16.npy").astype(np.float32))
    return CaptionNetwork(coca), images, config


@torch.inference_mode()
def compare_sampling(network: CaptionNetwork, images: torch.Tensor, recording: Recording) -> tuple[Report, int]:
    """All checks of one recording; the report and the number of steps that were compared."""
    report, data = Report(), recording.data
    latents, tokens = network.encode(images[: recording.masks], 64)
    similarity = (latents @ latents.T).numpy()
    report.compare("latent", latents.numpy(), data["image_latent"])
    report.compare("similarity", similarity, data["sim"])
    if "image_embs" in data:
        report.compare("image token", tokens.numpy(), data["image_embs"])
    memory, groups, rows = network.remember(tokens), [Group(0, similarity)], recording.rows()
    replay = Replay(recording, report, network.coca, images)
    forced = sample_captions(network, memory, groups, rows, recording.rules, replay)
    report.compare("token", recording.matrix(forced), data["final"])
    if recording.argmax:
        free = sample_captions(network, memory, groups, rows, recording.rules, take_argmax)
        report.compare("token", recording.matrix(free), data["final"])
    return report, replay.steps


@torch.inference_mode()
def compare_beams(network: CaptionNetwork, images: torch.Tensor, path: Path, rules: Rules) -> Report:
    """Beam search, 2 beams in one group, against the release's 6 in 3."""
    report = Report()
    memory = network.remember(network.encode(images, 64)[1])
    with np.load(path) as data:
        for name in data.files:
            count = int(name[1:])
            found = search_captions(network, memory, range(count), 2, rules)
            ids = np.full_like(data[name], rules.pad)
            ids[:, 0] = rules.start
            for row, caption in enumerate(found):
                ids[row, 1 : 1 + len(caption.tokens)] = caption.tokens
            report.compare("beam", ids, data[name])
    return report


def main(folder: Path) -> int:
    network, images, config = load(folder)
    failed, recordings = False, sorted(folder.glob("dcs_M*.npz"))
    if not recordings:
        print(f"{folder} holds no recordings (dcs_M*.npz)")
        return 1
    for path in recordings:
        recording = Recording(path, config)
        report, steps = compare_sampling(network, images, recording)
        failed |= _show(f"{recording.name} ({steps} steps)", report)
        if steps == 0:
            print(f"{recording.name}: no step was compared")
            failed = True
    rules = replace(recording.rules, min_length=config["min_seq_len"], max_length=config["seq_len"])
    for path in folder.glob("beam_ref_tf4302.npz"):
        failed |= _show(path.stem, compare_beams(network, images, path, rules))
    print("MISMATCH" if failed else "equal")
    return int(failed)


def _show(name: str, report: Report) -> bool:
    errors = "  ".join(f"{kind} {error:.3g}" for kind, error in report.errors.items())
    fails = report.fails()
    print(f"{name:32s} {errors}" + (f"   FAILS: {', '.join(fails)}" if fails else ""))
    return bool(fails)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1])))
