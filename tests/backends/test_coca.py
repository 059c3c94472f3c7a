"""The CoCa backend: checkpoints in every form, and captions as records."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from caption_judges import masked_image as image
from near_ties import count_near_ties, generate
from pydantic import ValidationError
from safetensors.torch import save_file

from pseudoris_cli.backends import coca
from pseudoris_cli.errors import UsageError
from pseudoris_cli.networks.coca.build import build_coca
from pseudoris_cli.settings.models import Numerics


def settings(**changes: Any) -> coca.Settings:
    """The demo's network, whose vocabulary is small, with random weights."""
    return coca.Settings(**({"model": "demo", "checkpoint": "random:0", "max_length": 8} | changes))


@pytest.fixture(scope="module")
def captioner() -> coca.CocaCaptioner:
    return coca.load(settings(), Numerics(), "cpu")


def test_captions_are_records_in_order(captioner: coca.CocaCaptioner) -> None:
    images = [image("a", 2), image("empty", 0), image("three", 1)]
    found = captioner.caption(images)
    assert [len(captions) for captions in found] == [88, 0, 44]
    first = found[0][:44]
    assert [caption.candidate_id for caption in first] == list(range(44))
    assert {caption.mask_id for caption in first} == {2}
    assert [caption.crop for caption in first[::11]] == ["masked", "crop_1.0", "crop_1.1", "crop_1.2"]
    assert [caption.sampler for caption in first[:3]] == ["beam", "top_k=5", "top_k=7"]
    assert first[10].sampler == "top_p=0.8"
    assert Counter(caption.mask_id for caption in found[0]) == {2: 44, 3: 44}
    for caption in first:
        assert 4 <= caption.tokens <= 7
        assert caption.logprob < 0
        assert caption.caption == caption.caption.strip()
        assert "<" not in caption.caption


@pytest.mark.parametrize(
    "changes", [{}, {"checkpoint": "demo_coca", "max_length": 20}, {"model": "tiny", "max_length": 10}], ids=str
)
def test_captions_of_an_image_alone_and_in_company(changes: dict[str, Any]) -> None:
    """Kernels are chosen by the batch's shape, so log-probabilities may move by 1e-4 and one caption in a hundred may differ, where
    float64 shows a near-tie; of equal batches nothing moves."""
    captioner = coca.load(settings(**changes), Numerics(), "cpu")
    images = [image("a", 2), image("bb", 3), image("three", 1)]
    assert captioner.caption(images) == captioner.caption(images)
    together = generate(captioner, images)
    reversed_kinds = generate(captioner, images[::-1])
    turned = [group for first in (8, 4, 0) for group in reversed_kinds[first : first + 4]]
    alone = [group for one in images for group in generate(captioner, [one])]
    captions = sum(len(crop) for group in together for crop in group)
    for found in (turned, alone):
        assert count_near_ties(captioner, images, found, together) <= captions / 100


def test_no_images(captioner: coca.CocaCaptioner) -> None:
    assert captioner.caption([]) == []
    assert captioner.caption([image("empty", 0)]) == [[]]


def test_the_seed_moves_samples_but_not_beams() -> None:
    one, other = (coca.load(settings(seed=seed), Numerics(), "cpu").caption([image("a", 1)])[0] for seed in (0, 1))
    assert one[::11] == other[::11]
    assert one != other


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_gives_nearly_the_same_captions(captioner: coca.CocaCaptioner, precision: Any) -> None:
    found = coca.load(settings(), Numerics(precision=precision), "cpu").caption([image("a", 2)])[0]
    exact = captioner.caption([image("a", 2)])[0]
    beams = [
        (ours.caption, theirs.caption) for ours, theirs in zip(found, exact, strict=True) if ours.sampler == "beam"
    ]
    assert sum(ours == theirs for ours, theirs in beams) >= len(beams) // 2
    assert np.mean([ours.caption == theirs.caption for ours, theirs in zip(found, exact, strict=True)]) > 0.3


def test_compiled_captions_are_the_same_and_no_position_is_compiled_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through torch's tracing and guards; without its code generator, which takes a minute."""
    from torch._dynamo import config
    from torch._dynamo.testing import CompileCounter

    traced = CompileCounter()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=traced))
    given = settings(model="tiny", max_length=14, top_k=(5,), top_p=())
    images = [image("a", 2), image("bb", 3)]
    with config.patch(fail_on_recompile_limit_hit=True, recompile_limit=config.recompile_limit):  # and put back
        compiled = coca.load(given, Numerics(compile=True), "cpu").caption(images)
    assert 2 <= traced.frame_count <= 10
    assert compiled == coca.load(given, Numerics(), "cpu").caption(images)


def save(tmp_path: Path, how: str) -> Path:
    state = build_coca("demo", 5).state_dict()
    if how == "safetensors":
        save_file(state, tmp_path / "weights.safetensors")
        return tmp_path / "weights.safetensors"
    if how == "unprefixed":  # as open_clip named the text tower before it was a module of its own
        parts = ("text_projection", "positional_embedding", "token_embedding", "transformer", "ln_final")
        state = {
            key.removeprefix("text.") if key.startswith(tuple(f"text.{part}" for part in parts)) else key: value
            for key, value in state.items()
        }
        assert "token_embedding.weight" in state
    if how == "training":
        old = {f"module.{name}": tensor.half() for name, tensor in state.items()}
        old["module.text_decoder.attn_mask"] = torch.zeros(24, 24)
        state = {"epoch": 1, "name": "laion_cc3m", "state_dict": old, "optimizer": {"step": 3}}
    torch.save(state, tmp_path / "weights.pt")
    return tmp_path / "weights.pt"


@pytest.mark.parametrize("how", ["plain", "training", "unprefixed", "safetensors"])
def test_checkpoints_of_every_form(tmp_path: Path, how: str) -> None:
    given = settings(checkpoint=str(save(tmp_path, how)), beams=0, top_k=(2,), top_p=())
    found = coca.load(given, Numerics(), "cpu").caption([image("a", 1)])
    expected = coca.load(given.model_copy(update={"checkpoint": "random:5"}), Numerics(), "cpu").caption(
        [image("a", 1)]
    )
    if how == "training":  # stored in 16 bits
        assert [c.tokens for c in found[0]] == [c.tokens for c in expected[0]]
    else:
        assert found == expected


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path, "plain")
    with pytest.raises(UsageError, match=r"does not hold the weights of tiny: .*unknown, e\.g\. .*of another shape"):
        coca.load(settings(model="tiny", checkpoint=str(path)), Numerics(), "cpu")


@pytest.mark.parametrize("model", ["ViT-B-32", "coca_roberta-ViT-B-32", "nothing"])
def test_models_that_are_no_coca_are_refused(model: str) -> None:
    with pytest.raises(UsageError, match="coca_ViT-L-14"):
        coca.load(settings(model=model), Numerics(), "cpu")


def test_captions_longer_than_the_context_are_refused() -> None:
    with pytest.raises(UsageError, match="at most 25"):
        coca.load(settings(max_length=26), Numerics(), "cpu")


@pytest.mark.parametrize("wrong", [{"top_k": (0,)}, {"top_p": (0.0,)}, {"top_p": (1.5,)}])
def test_impossible_samplers_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        settings(**wrong)


def test_random_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = build_coca("demo", 3).state_dict()
    torch.manual_seed(2)
    again, other = build_coca("demo", 3).state_dict(), build_coca("demo", 4).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert all(bool(tensor.isfinite().all()) for tensor in first.values())
    assert not torch.equal(first["text_decoder.text_projection"], other["text_decoder.text_projection"])
