"""Scorers of open_clip beyond OpenAI's: preprocessing, tokenizers, sigmoid models, and what DoC means for them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from locations import FIXTURES
from safetensors.torch import save_file

from pseudoris_cli.backends import clip
from pseudoris_cli.errors import MissingDependency, UsageError
from pseudoris_cli.method.crops import CropSpec, _resize_weights
from pseudoris_cli.method.protocols import NounFinder
from pseudoris_cli.method.scoring import score_images
from pseudoris_cli.records import CaptionCandidate, Mask, MaskedImage
from pseudoris_cli.rle import encode_rle, rle_area, rle_bbox
from pseudoris_cli.settings.models import FilterSettings, Numerics

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
VISION = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16}
SMALL = {
    "small-siglip": {
        "embed_dim": 32,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": VISION,
        "text_cfg": TEXT
        | {
            "vocab_size": 4000,
            "hf_tokenizer_name": str(FIXTURES / "tiny_vlm"),
            "tokenizer_kwargs": {"clean": "canonicalize"},
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
        },
    },
    "small-pe": {
        "embed_dim": 32,
        "custom_text": True,
        "vision_cfg": {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear"},
        "text_cfg": TEXT,
    },
    "small-eos": {
        "embed_dim": 32,
        "quick_gelu": True,
        "vision_cfg": VISION,
        "text_cfg": TEXT | {"no_causal_mask": True},
    },
}


@pytest.fixture(scope="module", autouse=True)
def small_models(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Small models of each kind, known to open_clip by name."""
    folder = tmp_path_factory.mktemp("configs")
    for name, config in SMALL.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)


def load(model: str, **changes: object) -> clip.ClipScorer:
    settings = clip.Settings.model_validate({"model": model, "checkpoint": "random:0"} | changes)
    return clip.load(settings, Numerics(), "cpu")


class Last(NounFinder):
    def nouns(self, captions):
        return [caption.split()[-1] for caption in captions]


def doc(scorer: clip.ClipScorer) -> list[list[float]]:
    """Scores of two captions for two squares."""
    image, masks = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8), []
    for number, left in enumerate((8, 56)):
        inside = np.zeros((64, 96), bool)
        inside[16:48, left : left + 32] = True
        rle = encode_rle(inside)
        masks.append(Mask(number, rle, rle_bbox(rle), rle_area(rle), 0.9, 0.9))
    own = [CaptionCandidate(number, 0, text) for number, text in enumerate(("a red square", "the blue square"))]
    rows = score_images([MaskedImage("a", image, tuple(masks))], [own], scorer, Last(), FilterSettings(clamp=False))
    return [[row[name] for name in ("correctness", "uniqueness", "doc")] for row in rows[0]]


@pytest.mark.parametrize("model", SMALL)
def test_vectors_are_those_of_open_clip(model: str) -> None:
    scorer = load(model)
    crops = torch.randn(3, 3, scorer.size, scorer.size, generator=torch.Generator().manual_seed(0))
    texts = ["a dog", "two big brown dogs on the green grass near a red bus and a very long sentence that is cut", ""]
    network = scorer._model
    tokens = scorer._tokenizer(texts)
    assert tokens.shape[1] == 16, "the model's context length"
    with torch.inference_mode():
        torch.testing.assert_close(scorer.encode_images(crops), network.encode_image(crops, normalize=True))
        torch.testing.assert_close(scorer.encode_texts(texts), network.encode_text(tokens, normalize=True))


@pytest.mark.parametrize("model", SMALL)
def test_doc_does_not_depend_on_the_scale_or_bias_of_logits(model: str) -> None:
    """DoC is a ratio of cosines. A ratio of a sigmoid model's probabilities would be another number, and move with both."""
    scorer = load(model)
    before = doc(scorer)
    assert all(np.isfinite(value) for row in before for value in row)
    with torch.no_grad():
        scorer._model.logit_scale.fill_(1.0)
        if getattr(scorer._model, "logit_bias", None) is not None:
            scorer._model.logit_bias.fill_(3.0)
    assert doc(scorer) == before
    assert (getattr(scorer._model, "logit_bias", None) is not None) == (model == "small-siglip")


def test_weights_with_a_bias_are_read_and_those_without_are_refused(tmp_path: Path) -> None:
    state = load("small-siglip")._model.state_dict()
    assert float(state["logit_bias"]) == -10
    state["logit_bias"].fill_(-12.5)
    save_file(state, tmp_path / "whole.safetensors")
    read = load("small-siglip", checkpoint=str(tmp_path / "whole.safetensors"))
    assert float(read._model.logit_bias) == -12.5
    del state["logit_bias"]
    save_file(state, tmp_path / "less.safetensors")
    with pytest.raises(UsageError, match="logit_bias"):
        load("small-siglip", checkpoint=str(tmp_path / "less.safetensors"))


@pytest.mark.parametrize(
    ("model", "tag", "mean", "interpolation"),
    [
        ("RN50", "openai", 0.48145466, "bicubic"),
        ("ViT-B-16-SigLIP2", "webli", 0.5, "bicubic"),
        ("PE-Core-B-16", "meta", 0.5, "bilinear"),
        ("ViT-H-14-378-quickgelu", "dfn5b", 0.48145466, "bicubic"),
        ("EVA02-B-16", "merged2b_s8b_b131k", 0.48145466, "bicubic"),
    ],
)
def test_preprocessing_of_the_weights(model: str, tag: str, mean: float, interpolation: str) -> None:
    traits = clip._traits(clip.Settings(model=model, pretrained=tag), {})
    assert traits.mean is not None
    assert (traits.mean[0], traits.interpolation) == (mean, interpolation)


def test_the_paper_resizes_its_crops_linearly_and_others_as_their_weights() -> None:
    assert load("small-eos").interpolation == "bilinear"
    assert load("small-eos", interpolation="model").interpolation == "bicubic"
    assert clip.load(clip.Settings.tiny(), Numerics(), "cpu").interpolation == "bilinear"


@pytest.mark.parametrize("side", [20, 47, 150])
def test_bicubic_crops_are_those_of_torch(side: int) -> None:
    picture = torch.rand(1, 1, side, side, generator=torch.Generator().manual_seed(side))
    spec = CropSpec(32, (0, 0, 0), (1, 1, 1), "mended", "bicubic")
    weights = _resize_weights(torch.tensor([side]), side, spec)[0]
    expected = torch.nn.functional.interpolate(picture, (32, 32), mode="bicubic", antialias=True)[0, 0]
    torch.testing.assert_close(weights @ picture[0, 0] @ weights.t(), expected, atol=2e-5, rtol=0)


def test_tokenizers_that_are_not_here_are_named_with_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MissingDependency, match="hf download timm/ViT-B-16-SigLIP2 "):
        clip._tokenizer(clip.Settings(model="ViT-B-16-SigLIP2"))
    here = clip._tokenizer(clip.Settings(model="ViT-B-16-SigLIP2", tokenizer=str(FIXTURES / "tiny_vlm")))
    assert here(["a dog"]).shape == (1, 64)


def test_every_name_of_the_registry_belongs_to_a_model_of_open_clip() -> None:
    from open_clip import pretrained

    from pseudoris_cli.weights import registry

    named = [entry.open_clip for entry in registry.registry().values() if entry.open_clip]
    assert len(named) > 6
    for model, tag in named:
        assert tag in pretrained.list_pretrained_tags_by_model(model), (model, tag)
