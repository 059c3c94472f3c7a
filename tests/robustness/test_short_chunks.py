"""One image for which memory is short: every network's chunk is halved, the manifest says so, and results are the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cuda_double import CudaDouble
from invoking import draw_pictures, invoke, rows_of
from lineups import image as drawn
from locations import FIXTURES
from small_scenes import scene

from pseudoris_cli.backends import clip, coca, listener_decision, listener_demo, sam, sam3_concepts, sam_hf
from pseudoris_cli.halving import Halving
from pseudoris_cli.method.protocols import Halves, Lineup
from pseudoris_cli.settings.models import Numerics
from pseudoris_cli.storage.workspace import Workspace

PICTURE = np.random.default_rng(0).integers(0, 256, (90, 128, 3), np.uint8)
SHORTAGE = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")


def limited(work: Callable[..., Any], most: int, count: Callable[..., int]) -> Callable[..., Any]:
    """`work`, but out of memory for more than `most`, as `count` counts its arguments."""

    def call(*arguments: Any, **more: Any) -> Any:
        if count(*arguments) > most:
            raise SHORTAGE
        return work(*arguments, **more)

    return call


def test_only_what_is_left_is_halved_and_every_call_begins_anew() -> None:
    halving, released, asked = Halving(), [], []

    def work(part: slice) -> int:
        asked.append((part.start, part.stop))
        if part.stop - part.start > 3 and part.start >= 8:
            raise SHORTAGE
        return part.stop

    assert [*halving.chunks(21, 8, work, lambda: released.append(len(asked)))] == [8, 10, 12, 14, 16, 18, 20, 21]
    assert asked[:4] == [(0, 8), (8, 16), (8, 12), (8, 10)]
    assert (halving.times, released) == (2, [2, 3])
    assert [*halving.chunks(8, 8, work)] == [8]
    assert halving.times == 2


def test_a_tail_is_halved_by_its_own_length() -> None:
    halving, asked = Halving(), []

    def work(part: slice) -> None:
        asked.append(part.stop - part.start)
        if part.stop - part.start > 1:
            raise SHORTAGE

    assert [*halving.chunks(3, 64, work)] == [None] * 3
    assert asked == [3, 1, 1, 1]


@pytest.mark.parametrize("error", [SHORTAGE, ValueError("no")], ids=["not even one", "another error"])
def test_what_halving_cannot_help_is_raised(error: Exception) -> None:
    def work(_: slice) -> None:
        raise error

    with pytest.raises(type(error)):
        [*Halving().chunks(4, 1 if error is SHORTAGE else 4, work)]


@pytest.mark.parametrize("where", ["decode", "resize"])
@pytest.mark.parametrize(
    ("backend", "changes"),
    [
        *((sam, {"decoder": form}) for form in ("official", "absorb", "lowrank")),
        *((sam_hf, {"decoder": form}) for form in ("official", "absorb", "lowrank")),
        (sam_hf, {"model": "tiny_sam_hq"}),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "cuda:1"])
def test_masks(backend: Any, changes: dict[str, Any], where: str, device: str) -> None:
    """In the decoder, or at the pixels of the image after some of the chunk's masks were found there."""
    every = {"prompt_chunk": 16, "crop_n_layers": 1, "box_nms_thresh": 1.0, "crop_nms_thresh": 1.0}
    settings = backend.Settings.tiny().model_copy(update=every | changes)
    wanted = backend.load(settings, Numerics(), "cpu").segment([PICTURE])
    with CudaDouble():
        segmenter = backend.load(settings, Numerics(), device)
        generator, calls = segmenter.generator, []
        generator.pixels = 4 * PICTURE[..., 0].size  # several blocks of masks in a chunk
        network = generator.network
        if where == "decode":
            network.decode = limited(network.decode, 5, lambda points, _: len(points))
        else:
            inner, network.resize = network.resize, lambda logits: calls.append(len(logits)) or inner(logits)
            network.resize = limited(network.resize, 0, lambda _: len(calls) in (1, 3))
            network.decode = (lambda inner: lambda *given: calls.append(0) or inner(*given))(network.decode)
        found = segmenter.segment([PICTURE])
    assert len(found[0]) > 20
    assert [mask.rle for mask in found[0]] == [mask.rle for mask in wanted[0]]
    assert isinstance(segmenter, Halves)
    assert segmenter.halvings >= (10 if where == "decode" else 1)


@pytest.mark.parametrize("form", ["absorb", "lowrank"])
def test_what_a_decoder_kept_for_larger_chunks_goes(form: str) -> None:
    settings = sam.Settings.tiny().model_copy(update={"decoder": form, "prompt_chunk": 16})
    segmenter = sam.load(settings, Numerics(), "cpu")
    network, kept = segmenter.generator.network, []
    inner = network.decode

    def decode(points: np.ndarray, min_iou: float | None) -> Any:
        found = inner(points, min_iou)
        kept.append(sum(buffer.numel() for buffer in network.decoder.buffers._buffers.values()))
        if len(points) > 4:
            raise SHORTAGE
        return found

    network.decode = decode
    segmenter.segment([PICTURE])
    assert max(kept[2:]) < 0.4 * kept[0]


def test_proposals_by_phrases() -> None:
    settings = sam3_concepts.Settings.tiny().model_copy(update={"concepts": ("dog", "red square", "a small car")})
    proposer = sam3_concepts.load(settings, Numerics(), "cpu")
    wanted = proposer.propose([PICTURE], ["a"])
    model = proposer.detector.model
    model.forward = limited(model.forward, 0, lambda: 0)
    inner = proposer.detector._instances
    proposer.detector._instances = limited(inner, 1, lambda _, __, part, ___: part.stop - part.start)
    found = proposer.propose([PICTURE], ["a"])
    assert isinstance(proposer, Halves)
    assert proposer.halvings == 1
    assert len(wanted[0]) > 1
    assert [(one.category, one.score) for one in found[0]] == [
        (one.category, pytest.approx(one.score, abs=1e-5)) for one in wanted[0]
    ]


def test_scorer() -> None:
    scorer = clip.load(clip.Settings.tiny(), Numerics(), "cpu")
    crops = torch.randn(7, 3, scorer.size, scorer.size, generator=torch.Generator().manual_seed(0))
    texts = ["a red ball", "two", "the box on the left of the lamp", "dog"]
    wanted = scorer.encode_images(crops), scorer.encode_texts(texts)
    scorer._visual = limited(scorer._visual, 2, len)
    found = scorer.encode_images(crops)
    assert scorer.halvings == 2
    scorer._model.ln_final.forward = limited(scorer._model.ln_final.forward, 1, len)
    for ours, theirs in zip((found, scorer.encode_texts(texts)), wanted, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)
    assert scorer.halvings == 4


def test_captioner_encodes_fewer_crops() -> None:
    captioner = coca.load(coca.Settings.tiny().model_copy(update={"max_length": 6}), Numerics(), "cpu")
    wanted = captioner.caption([scene(0)])
    visual = captioner._network.coca.visual
    visual.forward = limited(visual.forward, 4, len)
    found = captioner.caption([scene(0), scene(1)])
    assert captioner.halvings >= 1
    assert [one.caption for one in found[0]] == [one.caption for one in wanted[0]]


def test_listeners() -> None:
    one = drawn(3)
    lineup = Lineup("a", one.image_rgb, one.masks, ("the red ball", "the box left", "two"))
    demo = listener_demo.load(listener_demo.Settings.tiny(), Numerics(), "cpu")
    settings = listener_decision.Settings(model=str(FIXTURES / "tiny_vlm"), max_side=64)
    decision = listener_decision.load(settings, Numerics(), "cpu")
    for listener, name in ((demo, "_ask"), (decision, "_decide")):
        wanted = listener.listen([lineup])
        setattr(listener, name, limited(getattr(listener, name), 1, lambda *given: len(given[-1])))
        assert np.allclose(listener.listen([lineup])[0], wanted[0], atol=1e-5)
        assert isinstance(listener, Halves)
        assert listener.halvings == 1


def test_the_manifest_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pseudoris_cli.networks.sam.segment_anything_network import SegmentAnything

    draw_pictures(tmp_path / "images", 2)

    def run(work: str) -> None:
        done = invoke(
            "run", "--images", tmp_path / "images", "--work", tmp_path / work, "--config", "configs/random.yaml", "--device", "cpu",
            "--set", "captions.top_k=[5]", "--set", "captions.top_p=[]", "--set", "captions.max_length=5", "-q",
        )  # fmt: skip
        assert done.code == 0, done.stderr

    def notes(work: str, stage: str) -> dict[str, Any]:
        [entry] = Workspace(tmp_path / work).latest(stage).manifest().entries.values()
        assert entry.counts == {"done": 2}
        return {name: count for name, count in entry.notes.items() if name.endswith("halved") or "memory" in name}

    run("plenty")
    monkeypatch.setattr(
        SegmentAnything, "decode", limited(SegmentAnything.decode, 2, lambda _, points, __: len(points))
    )
    load = clip.ClipScorer.__init__

    def short(self: Any, *given: Any) -> None:
        load(self, *given)
        self._visual = limited(self._visual, 1, len)

    monkeypatch.setattr(clip.ClipScorer, "__init__", short)
    run("short")
    assert (notes("plenty", "masks"), notes("plenty", "scores")) == ({}, {})
    assert notes("short", "masks").keys() == {"prompt_chunk_halved"}
    assert notes("short", "scores").keys() == {"chunk_halved"}
    columns = ("image_key", "mask_id", "rle_counts")
    found, wanted = ([[row[c] for c in columns] for row in rows_of(tmp_path / w, "masks")] for w in ("short", "plenty"))
    assert found == wanted
