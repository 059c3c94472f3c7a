"""Compare the caption decoder with recordings of the released code.

    python benchmarks/parity_coca.py DIR [--without NAME ...]

DIR holds config.json, weights_fp16.npz, images31_fp16.npy and the recordings dcs_M{1,2,5}_{argmax,sampled}.npz,
dcs_M30_oneStep_argmax.npz, dcs_M31_argmax.npz and beam_ref_tf4302.npz; one that is absent must be named (the reduced copy in
tests/fixtures/coca: --without dcs_M5_sampled). Every recorded step is computed from the recorded prefixes and compared: who is
alive, keep sets, probabilities, their sums, the end token's probability, log-probabilities; runs recorded by argmax are also
decoded freely and compared token by token, as are the beams. Prints what was compared and the largest errors; exits 1 on a
mismatch and on whatever is not as it should be: a missing recording, an unknown array, a wrong shape, no steps, no rows, NaN.

Tokens and rows alive must be equal. Probabilities are asked to agree as well as float32 allows: both sides are also compared with
the same network in float64. A logit error e moves a probability q by at most 2 e q (1 - q); `logit` is the e that explains what is
seen. By that measure the released operations in float32 are up to 5.2e-5 from float64, and so are we (benchmarks/RESULTS.md); the
two may differ by the sum. Log-probabilities are compared with float64 (2e-4 a token: own logits are up to 1e-4 off; 1e-3 a caption,
beams too), and with the recorded logits (1e-4) where a recording has them.

Keep sets: float64 says which tokens stay whatever is rounded and which hang on it (the k-th logit and one below it less than 1e-4
apart, a mass less than 5e-5 from p). Both sides must keep all of the former, and beyond them only tokens that hang. A row whose two
sets differ by such tokens is an edge: it is printed, and its probabilities, which have another normaliser, are not compared. More
than one edge in 200 rows fails.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from coca_exact import LOGIT, Exact, Step
from coca_recordings import BEAMS, LAYOUT, MORE_BEAMS, Recording, load, matrix, rules

from pseudoris_cli.decoding.beam import search_captions
from pseudoris_cli.decoding.distinctive import ContrastGroup, sample_captions
from pseudoris_cli.decoding.distribution import KeptTokens
from pseudoris_cli.decoding.network import CaptionNetwork
from pseudoris_cli.decoding.rules import DecodingRules

FLOOR = 1e-6
"""Smaller probabilities are not recorded."""
EDGE_SHARE = 200
"""One edge is allowed for every so many rows begun. One row in 75 hangs on 1e-4; errors are ten times smaller, so that one row in
750 should be an edge. Seen: one in 5,173 with one of four sets of kernels, none with the others (benchmarks/RESULTS.md)."""
TOLERANCE = {"logit": LOGIT, "row sum": LOGIT, "end": LOGIT / 2 + FLOOR, "similarity": 5e-6, "latent": 5e-6}
TOLERANCE |= {
    "image token": 1e-5,
    "log-probability": 2 * LOGIT,
    "recorded log-probability": LOGIT,
    "caption": 10 * LOGIT,
}
TOLD = ("edges", "hanging", "probability", "ours-float64", "theirs-float64")
"""Printed, but no reason to fail by their size; probabilities are judged by `logit`, edges by their share."""
EXACT = ("rows alive", "kept", "token", "beam")
SAMPLING = (
    "latent",
    "similarity",
    "rows alive",
    "token",
    "kept",
    "logit",
    "row sum",
    "end",
    "log-probability",
    "caption",
)
"""What every recording of sampling must have been compared by."""


@dataclass
class Report:
    """Largest error of each kind, or the number of differences where equality is asked; other reasons to fail."""

    errors: dict[str, float] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)
    edges: list[str] = field(default_factory=list)
    steps: int = 0
    rows: int = 0

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
        self.errors[kind] = error + before if kind in (*EXACT, "edges", "hanging") else float(np.maximum(error, before))

    def compare_probabilities(self, ours: np.ndarray, theirs: np.ndarray) -> None:
        difference = np.abs(ours - theirs)
        moved = np.maximum(2 * theirs * (1 - theirs), 1e-12)
        self.note("probability", float(difference.max(initial=0.0)))
        self.note("logit", float((np.maximum(difference - FLOOR, 0.0) / moved).max(initial=0.0)))

    def fails(self) -> list[str]:
        found = [
            kind for kind, error in self.errors.items() if kind not in TOLD and not error <= TOLERANCE.get(kind, 0)
        ]
        found += [kind for kind in TOLD if not np.isfinite(self.errors.get(kind, 0.0))]
        if len(self.edges) > -(-self.rows // EDGE_SHARE):
            found.append(f"{len(self.edges)} edges in {self.rows} rows")
        return found + self.doubts


class Replay:
    """A `TokenChooser` that takes the recorded tokens and compares every recorded step."""

    def __init__(self, recording: Recording, report: Report, exact: Exact) -> None:
        self.recording, self.report, self.exact = recording, report, exact

    def __call__(self, kept: KeptTokens, alive: np.ndarray, length: int) -> np.ndarray:
        data, at = self.recording.data, f"s{length - 1}_"
        wanted = data["final"][alive, length]
        if length - 1 in self.recording.steps:
            self.report.compare("rows alive", alive, data[at + "rows"])
            self.report.compare("token", wanted, data[at + "tok"])
            if np.array_equal(alive, data[at + "rows"]):
                self.report.steps += 1
                self.compare(kept, alive, length)
        owner = np.repeat(np.arange(len(alive)), np.diff(kept.start))
        entries = np.flatnonzero(kept.token == wanted[owner])
        self.report.compare("token", owner[entries], np.arange(len(alive)))
        chosen = kept.start[:-1].copy()
        chosen[owner[entries]] = entries
        return chosen

    def compare(self, kept: KeptTokens, alive: np.ndarray, length: int) -> None:
        data, at, report = self.recording.data, f"s{length - 1}_", self.report
        step = self.exact.step(alive, length)
        exact = self.exact.weights(step, kept)
        owner = np.repeat(np.arange(len(alive)), np.diff(kept.start))
        theirs, same = self.compare_sets(kept, step, exact)
        rows, entries = np.flatnonzero(same), same[owner]
        report.rows += len(alive)
        report.compare_probabilities(kept.weight[entries], theirs[entries])
        report.compare("ours-float64", kept.weight[entries], exact[entries])
        report.compare("theirs-float64", theirs[entries], exact[entries])
        end = np.bincount(owner, kept.weight * (kept.token == self.recording.rules.end), len(alive))
        sums = np.add.reduceat(kept.weight, kept.start[:-1])
        report.compare("row sum", sums[rows], data[at + "rowsum"][rows])
        report.compare("end", end[rows], data[at + "eos_prob"][rows])
        logprob = step.logprob[owner, kept.token].numpy()
        report.compare("log-probability", kept.logprob, logprob)
        if at + "logits_first2rows" in data:
            recorded = data[at + "logits_first2rows"].astype(np.float64)
            if (
                length < self.recording.rules.min_length
            ):  # barred in place; the log-probability is of the logits before that
                recorded[:, self.recording.rules.end] = step.own[: len(recorded), self.recording.rules.end]
            first = owner < len(recorded)
            top = recorded.max(1, keepdims=True)
            recorded -= top + np.log(np.exp(recorded - top).sum(1, keepdims=True))
            report.compare("recorded log-probability", kept.logprob[first], recorded[owner[first], kept.token[first]])

    def compare_sets(self, kept: KeptTokens, step: Step, exact: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The recorded probability of every kept entry, and which rows have equal sets."""
        data, at, report, alive = self.recording.data, f"s{step.length - 1}_", self.report, step.rows
        sizes, pointer = data[at + "nkept"], data[at + "ptr"]
        sets = self.exact.keep_sets(step, alive // self.recording.masks, 2 * int(sizes.max()) + 64)
        theirs, same = np.zeros(len(kept.token)), np.zeros(len(alive), bool)
        for row, (firm, hanging) in enumerate(sets):
            place, part = slice(kept.start[row], kept.start[row + 1]), slice(pointer[row], pointer[row + 1])
            tokens = kept.token[place].tolist()
            ours, weight = set(tokens), dict(zip(tokens, exact[place].tolist(), strict=True))
            recorded = dict(zip(data[at + "idx"][part].tolist(), data[at + "val"][part].tolist(), strict=True))
            theirs[place] = [recorded.get(token, 0.0) for token in tokens]
            lost = {token for token in ours - recorded.keys() if weight[token] > 4 * FLOOR}
            right = firm <= ours <= firm | hanging and recorded.keys() <= firm | hanging and not lost & firm
            right &= len(firm) <= sizes[row] <= len(firm | hanging)
            same[row] = right and len(ours) == sizes[row] and recorded.keys() <= ours and not lost
            report.note("kept", float(not right))
            report.note("hanging", float(bool(hanging)))
            report.note("edges", float(right and not same[row]))
            if right and not same[row]:
                only = f"ours keeps {len(ours)}, theirs {sizes[row]}; theirs alone {sorted(recorded.keys() - ours)}"
                report.edges.append(
                    f"edge: step {step.length - 1}, row {alive[row]}: {only}; hanging {sorted(hanging)}"
                )
        return theirs, same


def take_argmax(kept: KeptTokens, alive: np.ndarray, length: int) -> np.ndarray:
    """The most probable token of each row."""
    return np.array([a + kept.weight[a:b].argmax() for a, b in zip(kept.start[:-1], kept.start[1:], strict=True)])


@torch.inference_mode()
def compare_sampling(network: CaptionNetwork, images: torch.Tensor, recording: Recording) -> Report:
    """All checks of one recording."""
    report, data = Report(doubts=recording.doubts()), recording.data
    if report.doubts:
        return report
    images, masks, rules = images[: recording.masks], recording.masks, recording.rules
    latents, tokens = network.encode(images, 64)
    similarity = (latents @ latents.T).numpy()
    report.compare("latent", latents.numpy(), data["image_latent"])
    report.compare("similarity", similarity, data["sim"])
    if "image_embs" in data:
        report.compare("image token", tokens.numpy(), data["image_embs"])
    cross_kv, groups, rows = network.precompute_cross_kv(tokens), [ContrastGroup(0, similarity)], recording.rows()
    exact = Exact(network.coca, images, rules, data["final"], np.arange(len(data["final"])) % masks)
    forced = sample_captions(network, cross_kv, groups, rows, rules, Replay(recording, report, exact))
    report.compare("token", matrix(forced, rules), data["final"])
    report.compare("caption", np.array([caption.logprob for caption in forced]), exact.caption_logprobs())
    if recording.argmax:
        free = sample_captions(network, cross_kv, groups, rows, rules, take_argmax)
        report.compare("token", matrix(free, rules), data["final"])
    if report.steps != len(recording.steps):
        report.doubts.append(f"{len(recording.steps) - report.steps} recorded steps were not compared")
    report.doubts += [f"{kind} was not compared" for kind in SAMPLING if kind not in report.errors]
    return report


@torch.inference_mode()
def compare_beams(network: CaptionNetwork, images: torch.Tensor, path: Path, rules: DecodingRules) -> Report:
    """Beam search, 2 beams in one group, against the release's 6 in 3."""
    report = Report()
    cross_kv = network.precompute_cross_kv(network.encode(images, 64)[1])
    with np.load(path) as data:
        counts = {"b63": 8, "b21": 8} if path.stem == MORE_BEAMS else {"M1": 1, "M2": 2, "M5": 5}
        report.doubts += [
            f"{name}: unknown, missing or not of {counts.get(name)} captions" for name in counts.keys() ^ set(data)
        ]
        for name in counts.keys() & set(data):
            count, theirs = counts[name], data[name]
            found = search_captions(network, cross_kv, range(count), 2, rules)
            ours = matrix(found, rules)
            report.compare("beam", ours, theirs)
            if ours.shape == theirs.shape:
                exact = Exact(network.coca, images[:count], rules, ours, np.arange(count))
                report.compare("caption", np.array([caption.logprob for caption in found]), exact.caption_logprobs())
                report.rows += count
    return report


def main(folder: Path, without: tuple[str, ...] = ()) -> int:
    lacking = [
        name for name in ("config.json", "weights_fp16.npz", "images31_fp16.npy") if not (folder / name).exists()
    ]
    sampled = sorted(folder.glob("dcs_*.npz"))
    if lacking or not sampled:
        print(f"{folder} lacks {', '.join(lacking) or 'recordings (dcs_M*.npz)'}: nothing was compared")
        return 1
    network, images, config = load(folder)
    failed, checked = False, []
    for path in sampled:
        failed |= _show(path.stem, compare_sampling(network, images, Recording(path, config)))
        checked.append(path.stem)
    for path in (folder / f"{name}.npz" for name in (BEAMS, MORE_BEAMS)):
        if path.exists():
            failed |= _show(path.stem, compare_beams(network, images, path, rules(config)))
            checked.append(path.stem)
    print(f"compared: {', '.join(checked)}")
    absent = [name for name in LAYOUT if name not in checked]
    wrong = [f"not in {folder}: {name}" for name in absent if name not in without]
    wrong += [
        f"--without {name}, which is {'there' if name in checked else 'no recording'}"
        for name in without
        if name not in absent
    ]
    print("\n".join([*wrong, *(f"left out as asked: {name}" for name in absent if name in without)]))
    failed |= bool(wrong)
    print("MISMATCH" if failed else "equal")
    return int(failed)


def _show(name: str, report: Report) -> bool:
    errors = "  ".join(f"{kind} {error:.3g}" for kind, error in report.errors.items())
    fails = report.fails()
    size = f"{report.steps} steps, {report.rows} rows" if report.steps else f"{report.rows} captions"
    print(f"{name} ({size}): {errors}" + (f"   FAILS: {', '.join(fails)}" if fails else ""))
    for edge in report.edges:
        print(f"  {edge}")
    return bool(fails)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--without", action="append", default=[], metavar="NAME", help="a recording that is known to be absent"
    )
    given = parser.parse_args()
    sys.exit(main(given.folder, tuple(given.without)))
