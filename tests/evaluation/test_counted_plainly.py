"""An evaluation against the same figures counted in loops: random scenes, and what the demo's networks made of real ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import plain_evaluation as plain
import pytest

from pseudoris_cli.demo.grammar import Attributes
from pseudoris_cli.evaluation.curves import COVERAGES
from pseudoris_cli.evaluation.metrics import CAPTION_FIGURES, CaptionRun, Evaluation, MethodFigures, evaluate
from pseudoris_cli.evaluation.resampling import Figure, interval, resamples
from pseudoris_cli.evaluation.scenes import known_scene_of
from pseudoris_cli.evaluation.truth import KnownImage, read_truth
from pseudoris_cli.evaluation.workspace import evaluate_workspace, rows
from pseudoris_cli.records import Rle
from pseudoris_cli.rle import decode_rle, encode_rle
from pseudoris_cli.storage.workspace import Artifact, Workspace

Rows = list[dict[str, Any]]
TEXTS = (
    "a ring", "a red ring", "a small ring", "a star", "a blue star", "the star on the left", "the leftmost ring",
    "the largest ring", "a ring left of the star", "the ring at the top", "ring small", "a ring ", "the second ring from the right",
)  # fmt: skip


def box(rng: np.random.Generator) -> np.ndarray:
    mask = np.zeros((24, 40), bool)
    y, x = rng.integers(0, 16), rng.integers(0, 32)
    mask[y : y + rng.integers(3, 9), x : x + rng.integers(3, 9)] = True
    return mask


def scene(rng: np.random.Generator, key: str) -> tuple[KnownImage, Rows]:
    """Objects, and masks near them, on nothing and twice on one."""
    objects = [box(rng) for _ in range(rng.integers(1, 5))]
    words = (("ring", "star"), ("red", "blue"), ("plain",), ("small", "large"))
    of = [Attributes(*(str(rng.choice(choices)) for choices in words)) for _ in objects]
    masks = []
    for found in [*objects, *objects[:1], box(rng)]:
        moved = np.roll(found, rng.integers(0, 2), axis=1)
        if rng.random() < 0.8 and not any((moved == other).all() for other in masks):
            masks.append(moved)
    ids = rng.permutation(20)[: len(masks)].tolist()
    return KnownImage(key, tuple(map(encode_rle, objects)), tuple(of)), [
        {"image_key": key, "mask_id": m, "rle_size": [24, 40], "rle_counts": encode_rle(mask).counts}
        for m, mask in zip(ids, masks, strict=True)
    ]


def candidates(rng: np.random.Generator, masks: Rows) -> Rows:
    """Texts with a DoC and a listener's probability; of a text that comes twice only one row was asked."""
    made: Rows = []
    for mask in masks:
        for _ in range(6):
            made.append(
                {
                    "image_key": mask["image_key"],
                    "mask_id": mask["mask_id"],
                    "caption": str(rng.choice(TEXTS)),
                    "sampler": str(rng.choice(["beam", "top_k=5"])),
                    "doc": float(rng.choice([0.8, 1.0, 1.1, 1.3, math.nan])),
                    "listener": None,
                }
            )
    asked: dict[tuple[str, int, str], dict[str, Any]] = {}
    for row in rng.permutation(np.array(made, object)).tolist() if made else []:
        asked.setdefault((row["image_key"], row["mask_id"], row["caption"].strip()), row)
    for row in asked.values():
        row["listener"] = float(rng.choice([0.05, 0.31, 0.5, 0.77, 0.85, 0.95, 1.0])) if rng.random() < 0.9 else None
    return made


def same(got: Figure, counts: plain.Counts, weights: np.ndarray) -> None:
    wanted = plain.fraction(counts, weights)
    assert [got.value, got.low, got.high] == [None if w is None else pytest.approx(w, abs=1e-12) for w in wanted]


def images_of(truth: list[KnownImage], masks: Rows) -> dict[str, plain.PlainImage]:
    return {
        known.key: plain.PlainImage(
            known,
            {
                row["mask_id"]: decode_rle(Rle(*row["rle_size"], row["rle_counts"]))
                for row in masks
                if row["image_key"] == known.key
            },
        )
        for known in truth
    }


def check_captions(
    got: Sequence[MethodFigures], images: dict[str, plain.PlainImage], run: CaptionRun, weights: np.ndarray
) -> int:
    """Every selection of a run's sampled texts, and those of beams where it is the first; returns how many there were."""
    here = [one for one in got if one.method in (run.method, "beam")]
    for one in here:
        chosen = {"DoC": run.kept, **run.heard}.get(one.selection)
        said = [row for row in run.captions if (row["sampler"] == "beam") == (one.method == "beam")]
        if one.selection != "none":
            assert chosen is not None
            said = [
                r for r in said if any(all(r[n] == k[n] for n in ("image_key", "mask_id", "caption")) for k in chosen)
            ]
        counts, kinds = plain.caption_counts(images, said)
        assert one.kinds == kinds
        assert one.texts == sum(n for n, _ in kinds.values())
        assert set(one.figures) == set(CAPTION_FIGURES)
        for name, figure in one.figures.items():
            same(figure, counts[name], weights)
    return len(here)


def check_curves(got: Evaluation, images: dict[str, plain.PlainImage], run: CaptionRun, weights: np.ndarray) -> None:
    best: dict[tuple[str, int, str], tuple[float, float]] = {}
    for row in run.scored:
        if row["image_key"] in images:
            heard = row.get("listener")
            heard = math.nan if heard is None else float(heard)
            key = row["image_key"], row["mask_id"], row["caption"].strip()
            if key not in best or math.isnan(best[key][1]):
                best[key] = float(row["doc"]), heard
    scores = {
        "DoC": [(*key, doc) for key, (doc, _) in best.items()],
        "listener": [(*key, heard) for key, (_, heard) in best.items()],
        "both": [(*key, heard if doc > run.min_doc else math.nan) for key, (doc, heard) in best.items()],
    }
    here = {one.selector: one for one in got.curves if one.method == run.method}
    for name, scored in scores.items():
        if all(math.isnan(score) for *_, score in scored):
            assert name not in here
            continue
        for level in COVERAGES:
            counts = plain.precision_at(images, scored, level)
            same(here[name].at[f"{level:g}"], counts or [(0, 0)], weights if counts else weights[:, :1])
    heard = [
        (p, images[key].judge(m, text)["referring"]) for key, m, text, p in scores["listener"] if not math.isnan(p)
    ]
    [told] = [one for one in got.calibration if one.method == run.method] or [None]
    if told is None:
        assert not heard
    else:
        assert told.ece == pytest.approx(plain.calibration_error(heard), abs=1e-12)
        assert sum(one.texts for one in told.bins) == len(heard)


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough for percentiles to differ; loops over two thousand take a minute."""
    monkeypatch.setattr("pseudoris_cli.evaluation.resampling.RESAMPLES", 60)


@pytest.mark.parametrize("seed", range(6))
def test_random_scenes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    made = [scene(rng, name) for name in "abcde"]
    truth, masks = [known for known, _ in made], [row for _, found in made for row in found]
    if seed % 2:
        masks = [row for row in masks if row["image_key"] not in ("c", "e")]
    if seed % 3 == 1:
        truth[1] = KnownImage("b", (), ())
    said = [
        *candidates(rng, masks),
        {**masks[0], "image_key": "elsewhere", "caption": "a ring", "sampler": "beam", "doc": 2.0},
    ]
    runs = []
    for number, method in enumerate(("plain", "distinctive, literal")):
        own = said[number:]
        drawn = [[row for row in own if rng.random() < share] for share in (0.6, 0.5, 0.4)]
        runs.append(
            CaptionRun(method, own, drawn[0], {"both": drawn[2], "listener": drawn[1]}, own, [1.0, 0.9][number])
        )
    got, weights, images = evaluate(truth, masks, runs, seed), resamples(5, seed), images_of(truth, masks)
    assert len(weights) == 60
    assert (got.images, got.objects, got.masks) == (5, sum(len(known.masks) for known in truth), len(masks))
    for known in truth:
        here = known_scene_of(known, np.zeros((len(known.masks), 0)), [])
        for ours, theirs in zip(here.objects, images[known.key].located, strict=True):
            assert (ours.x, ours.y, ours.area) == pytest.approx((theirs.x, theirs.y, theirs.area))
    for name, counts in plain.mask_counts([images[known.key] for known in truth]).items():
        same(got.mask_figures[name], counts, weights)
    assert check_captions(got.captions, images, runs[0], weights) == 8
    for run in runs:
        check_curves(got, images, run, weights)
    sampled = [one for one in got.captions if one.method != "beam"]
    assert check_captions(sampled, images, runs[1], weights) == 4
    figures = {(one.method, one.selection): one.figures for one in got.captions}
    names = {label(*which): which for which in figures}
    assert len(got.differences) == 2 * (1 + 3 * 3)
    for one in got.differences:
        before, after = (figures[names[which]][one.figure].value for which in (one.lower, one.upper))
        assert one.rise.value == pytest.approx(after - before)


def label(method: str, selection: str) -> str:
    return method if selection == "none" else f"{method} + {selection.replace('both', 'DoC + listener')}"


def test_a_work_directory_of_the_demo(demo_run: tuple[Path, str]) -> None:
    folder, _ = demo_run
    workspace, path = Workspace(folder / "work"), folder / "scenes" / "truth.json"
    got, truth = evaluate_workspace(workspace, path), read_truth(path)
    masks = workspace.latest("masks")
    images = images_of(truth, list(rows(masks, ["image_key", "mask_id", "rle_size", "rle_counts"])))
    weights = resamples(len(truth), 0)
    filters: dict[tuple[str, str], Artifact] = {}
    for made in workspace.versions("filter"):
        chain = workspace.chain(made)
        way = "DoC" if "judge" not in chain else "both" if made.header["settings"]["min_doc"] > 0 else "listener"
        filters[chain["captions"].version, way] = made
    checked = 0
    for captions in workspace.versions("captions"):
        settings = captions.header["settings"]
        method = "plain" if settings["contrast"] == 0 else f"distinctive, {settings['contrast_form'].replace('_', '-')}"
        columns = ["image_key", "mask_id", "caption", "sampler"]
        made = {way: found for (version, way), found in filters.items() if version == captions.version}
        kept = {way: [row for row in rows(one, [*columns, "kept"]) if row["kept"]] for way, one in made.items()}
        scored = list(rows(made["listener"], [*columns, "doc", "listener"]))
        bound = made["both"].header["settings"]["min_doc"]
        run = CaptionRun(method, list(rows(captions, columns)), kept.pop("DoC"), kept, scored, bound)
        own = [one for one in got.captions if method == "plain" or one.method != "beam"]
        checked += check_captions(own, images, run, weights)
        check_curves(got, images, run, weights)
    assert checked == len(got.captions) == 16


def test_a_figure_whose_samples_are_all_empty_has_no_interval() -> None:
    assert interval(0.5, np.array([math.nan, math.nan])) == Figure(0.5, None, None)
    assert resamples(0, 1).shape == (60, 0)
