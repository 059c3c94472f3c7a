"""Compare the caption decoder with recordings of the released code.

    python benchmarks/parity_coca.py DIR

DIR holds config.json, weights_fp16.npz, images31_fp16.npy and recordings: dcs_M*_{argmax,sampled}.npz and beam_ref_tf4302.npz
(the reduced copy in tests/fixtures/coca, or any folder in that layout; absent recordings are named). Every recorded step is
computed from the recorded prefixes and compared: who is alive, keep sets, probabilities, their sums, the end token's probability;
runs recorded by argmax are also decoded freely and compared token by token, as are the beams. Prints the largest errors; exits 1
on a mismatch.

Tokens, keep sets and rows alive must be equal. Probabilities are asked to agree as well as float32 allows: both sides are also
compared with the same network in float64. A logit error e moves a probability q by at most 2 e q (1 - q); `logit` is the e that
explains what is seen. By that measure the released operations in float32 are up to 5.2e-5 from float64, and so are we (RESULTS.md);
the two may differ by the sum. Where float64 says that a keep set hangs on less than this (a tie of the k-th logits, a mass at p), a
row whose set differs counts under `edges` and is not compared further.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from coca_recordings import LAYOUT, Exact, Recording, load

from pseudoris_cli.decoding.beam import search_captions
from pseudoris_cli.decoding.distinctive import ContrastGroup, sample_captions
from pseudoris_cli.decoding.distribution import KeptTokens
from pseudoris_cli.decoding.network import CaptionNetwork
from pseudoris_cli.decoding.rules import DecodingRules

LOGIT = 1e-4
"""Largest difference of contrasted logits: twice 5.2e-5, as both sides round. Logits go up to 60 and beyond."""
FLOOR = 1e-6
"""Smaller probabilities are not recorded."""
TOLERANCE = {"logit": LOGIT, "row sum": LOGIT, "end": LOGIT / 2 + FLOOR, "similarity": 5e-6, "latent": 5e-6}
TOLERANCE |= {"image token": 1e-5}
TOLD = ("edges", "probability", "ours-float64", "theirs-float64")
"""Printed, but no reason to fail; probabilities are judged by `logit`."""
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
            error = float((ours != theirs).sum())
        else:
            error = float(np.abs(ours.astype(np.float64) - theirs).max(initial=0.0))
        self.note(kind, error)

    def note(self, kind: str, error: float) -> None:
        """Differences add up, of errors the largest stays; what is not a number stays too."""
        before = self.errors.get(kind, 0.0)
        self.errors[kind] = error + before if kind in (*EXACT, "edges") else float(np.maximum(error, before))

    def compare_probabilities(self, ours: np.ndarray, theirs: np.ndarray) -> None:
        difference = np.abs(ours - theirs)
        moved = np.maximum(2 * theirs * (1 - theirs), 1e-12)
        self.note("probability", float(difference.max(initial=0.0)))
        self.note("logit", float((np.maximum(difference - FLOOR, 0.0) / moved).max(initial=0.0)))

    def fails(self) -> list[str]:
        return [kind for kind, error in self.errors.items() if kind not in TOLD and not error <= TOLERANCE.get(kind, 0)]


class Replay:
    """A `TokenChooser` that takes the recorded tokens and compares every recorded step."""

    def __init__(self, recording: Recording, report: Report, exact: Exact) -> None:
        self.recording, self.report, self.exact = recording, report, exact
        self.steps = 0

    def __call__(self, kept: KeptTokens, alive: np.ndarray, length: int) -> np.ndarray:
        data, step = self.recording.data, f"s{length - 1}_"
        wanted = data["final"][alive, length]
        if step + "rows" in data:
            self.steps += 1
            self.report.compare("rows alive", alive, data[step + "rows"])
            self.report.compare("token", wanted, data[step + "tok"])
            if np.array_equal(alive, data[step + "rows"]):
                self.compare(kept, alive, length)
        owner = np.repeat(np.arange(len(alive)), np.diff(kept.start))
        entries = np.flatnonzero(kept.token == wanted[owner])
        self.report.compare("token", owner[entries], np.arange(len(alive)))
        chosen = kept.start[:-1].copy()
        chosen[owner[entries]] = entries
        return chosen

    def compare(self, kept: KeptTokens, alive: np.ndarray, length: int) -> None:
        data, step, report = self.recording.data, f"s{length - 1}_", self.report
        owner = np.repeat(np.arange(len(alive)), np.diff(kept.start))
        recorded_owner = np.repeat(np.arange(len(alive)), np.diff(data[step + "ptr"]))
        recorded = {
            (row, token): value
            for row, token, value in zip(
                recorded_owner.tolist(), data[step + "idx"].tolist(), data[step + "val"].tolist(), strict=True
            )
        }
        theirs = np.array([recorded.pop(entry, 0.0) for entry in zip(owner.tolist(), kept.token.tolist(), strict=True)])
        other_sets = {row for row, _ in recorded}
        other_sets |= set(np.flatnonzero(np.diff(kept.start) != data[step + "nkept"]).tolist())
        edges = {row for row in other_sets if self.hangs(int(alive[row]), length)}
        report.note("edges", len(edges))
        report.note("kept", len(other_sets - edges))
        rows = np.array([row for row in range(len(alive)) if row not in other_sets], int)
        same = np.isin(owner, rows)
        exact = self.exact.weights(kept, alive, length)[same]
        report.compare_probabilities(kept.weight[same], theirs[same])
        report.compare("ours-float64", kept.weight[same], exact)
        report.compare("theirs-float64", theirs[same], exact)
        end = np.bincount(owner, kept.weight * (kept.token == self.recording.rules.end), len(alive))
        sums = np.add.reduceat(kept.weight, kept.start[:-1])
        report.compare("row sum", sums[rows], data[step + "rowsum"][rows])
        report.compare("end", end[rows], data[step + "eos_prob"][rows])

    def hangs(self, row: int, length: int) -> bool:
        """Whether rounding can decide on a row's keep set."""
        mass, gap = self.exact.margin(row, length)
        return mass < LOGIT / 2 or gap < 2 * LOGIT


def take_argmax(kept: KeptTokens, alive: np.ndarray, length: int) -> np.ndarray:
    """The most probable token of each row."""
    return np.array([a + kept.weight[a:b].argmax() for a, b in zip(kept.start[:-1], kept.start[1:], strict=True)])


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
    cross_kv, groups, rows = network.precompute_cross_kv(tokens), [ContrastGroup(0, similarity)], recording.rows()
    replay = Replay(recording, report, Exact(network.coca, images, recording))
    forced = sample_captions(network, cross_kv, groups, rows, recording.rules, replay)
    report.compare("token", recording.matrix(forced), data["final"])
    if recording.argmax:
        free = sample_captions(network, cross_kv, groups, rows, recording.rules, take_argmax)
        report.compare("token", recording.matrix(free), data["final"])
    return report, replay.steps


@torch.inference_mode()
def compare_beams(network: CaptionNetwork, images: torch.Tensor, path: Path, rules: DecodingRules) -> Report:
    """Beam search, 2 beams in one group, against the release's 6 in 3."""
    report = Report()
    cross_kv = network.precompute_cross_kv(network.encode(images, 64)[1])
    with np.load(path) as data:
        for name in data.files:
            count = int(name[1:])
            found = search_captions(network, cross_kv, range(count), 2, rules)
            ids = np.full_like(data[name], rules.pad)
            ids[:, 0] = rules.start
            for row, caption in enumerate(found):
                ids[row, 1 : 1 + len(caption.tokens)] = caption.tokens
            report.compare("beam", ids, data[name])
    return report


def main(folder: Path) -> int:
    lacking = [
        name for name in ("config.json", "weights_fp16.npz", "images31_fp16.npy") if not (folder / name).exists()
    ]
    recordings, beams = sorted(folder.glob("dcs_M*.npz")), folder / "beam_ref_tf4302.npz"
    if lacking or not recordings:
        print(f"{folder} lacks {', '.join(lacking) or 'recordings (dcs_M*.npz)'}: nothing was compared")
        return 1
    network, images, config = load(folder)
    failed = False
    for path in recordings:
        recording = Recording(path, config)
        report, steps = compare_sampling(network, images, recording)
        failed |= _show(f"{recording.name} ({steps} steps)", report)
        if steps == 0:
            print(f"{recording.name}: no step was compared")
            failed = True
    rules = replace(recording.rules, min_length=config["min_seq_len"], max_length=config["seq_len"])
    if beams.exists():
        failed |= _show(beams.stem, compare_beams(network, images, beams, rules))
    checked = [path.stem for path in recordings] + [beams.stem] * beams.exists()
    print(f"compared: {', '.join(checked)}")
    if absent := [name for name in LAYOUT if name not in checked]:
        print(f"not in {folder}: {', '.join(absent)}")
    print("MISMATCH" if failed else "equal")
    return int(failed)


def _show(name: str, report: Report) -> bool:
    errors = "  ".join(f"{kind} {error:.3g}" for kind, error in report.errors.items())
    fails = report.fails()
    print(f"{name}: {errors}" + (f"   FAILS: {', '.join(fails)}" if fails else ""))
    return bool(fails)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1])))
