"""The rewritten mask decoders against segment_anything's own."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from segment_anything.modeling import Sam
from torch import Tensor

from pseudoris_cli.networks.sam.decoder import Decoded, GridDecoder, OfficialDecoder, PromptDecoder
from pseudoris_cli.networks.sam.decoder_absorbed import AbsorbedDecoder
from pseudoris_cli.networks.sam.decoder_lowrank import LowRankDecoder
from pseudoris_cli.networks.sam.sizes import SIZES, Size, empty, randomise

FORMS = pytest.mark.parametrize("form", [AbsorbedDecoder, LowRankDecoder])
FULL_DECODER = Size(32, 1, 2, (), image=128, window=0)  # the official decoder's width, heads and MLP on an 8 x 8 grid
PROMPTS = 10


def build(size: Size, seed: int = 0) -> Sam:
    """Random weights in which every bias and norm counts."""
    generator = torch.Generator().manual_seed(seed)
    sam = randomise(empty(size), generator)
    for parameter in sam.parameters():
        if parameter.dim() == 1:
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return sam


def inputs(sam: Sam, seed: int = 1) -> tuple[Tensor, Tensor]:
    """An image embedding and the sparse embeddings of random clicks."""
    generator = torch.Generator().manual_seed(seed)
    side = sam.image_encoder.img_size
    embedding = torch.randn(1, sam.mask_decoder.transformer_dim, side // 16, side // 16, generator=generator)
    points = torch.rand(PROMPTS, 1, 2, generator=generator) * side
    return embedding, sam.prompt_encoder(points=(points, torch.ones(PROMPTS, 1)), boxes=None, masks=None)[0]


@torch.inference_mode()
def decode(
    decoder: PromptDecoder, embedding: Tensor, sparse: Tensor, visible: tuple[int, int], min_iou: float | None
) -> Decoded:
    decoder.set_image(embedding, visible)
    parts = [decoder.decode(chunk, min_iou) for chunk in sparse.split(decoder.chunk)]
    starts = [torch.full_like(part.prompt, i * decoder.chunk) for i, part in enumerate(parts)]
    return Decoded(
        torch.cat([part.prompt + start for part, start in zip(parts, starts, strict=True)]),
        torch.cat([part.mask for part in parts]),
        torch.cat([part.iou for part in parts]),
        torch.cat([part.logits for part in parts]),
    )


def error(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative to the scale of the second."""
    return float((a - b).abs().max() / b.abs().max())


@FORMS
@pytest.mark.parametrize("size", [SIZES["tiny"], SIZES["demo"], FULL_DECODER], ids=["tiny", "demo", "full"])
def test_logits_and_ious_equal_the_official_decoder(form: Callable[[Sam, int], GridDecoder], size: Size) -> None:
    sam = build(size)
    embedding, sparse = inputs(sam)
    grid = size.image // size.patch
    expected = decode(OfficialDecoder(sam, 64), embedding, sparse, (grid, grid), None)
    for visible, chunk in (((grid, grid), 4), ((grid, grid - 3), 3), ((1, grid), PROMPTS)):
        found = decode(form(sam, chunk), embedding, sparse, visible, None)
        seen = expected.logits[:, : 4 * visible[0], : 4 * visible[1]]
        assert found.logits.shape == seen.shape
        assert error(found.logits, seen) < 1e-5
        assert error(found.iou, expected.iou) < 1e-5
        assert torch.equal(found.prompt, expected.prompt)
        assert torch.equal(found.mask, expected.mask)


@FORMS
def test_in_double_precision_the_rewriting_is_exact(form: Callable[[Sam, int], GridDecoder]) -> None:
    sam = build(FULL_DECODER)
    embedding, sparse = inputs(sam)
    sam.mask_decoder.double()
    expected = decode(OfficialDecoder(sam, 64), embedding.double(), sparse, (8, 8), None)
    found = decode(form(sam, 4), embedding.double(), sparse, (8, 8), None)
    assert error(found.logits, expected.logits) < 1e-6  # Decoded is float32
    decoder = form(sam, PROMPTS)
    with torch.inference_mode():
        decoder.set_image(embedding.double(), (8, 8))
        own = torch.cat([sam.mask_decoder.iou_token.weight, sam.mask_decoder.mask_tokens.weight])
        tokens = torch.cat([own.expand(PROMPTS, -1, -1), sparse.double()], 1)
        hidden = sam.mask_decoder.transformer.norm_final_attn(decoder.attend(tokens))
        image = (embedding.double() + sam.prompt_encoder.no_mask_embed.weight[..., None, None]).expand(
            PROMPTS, -1, -1, -1
        )
        positions = sam.prompt_encoder.get_dense_pe().double().expand(PROMPTS, -1, -1, -1)
        plain, _ = sam.mask_decoder.transformer(image, positions, tokens)
    assert error(hidden, plain[:, [0, 2, 3, 4]]) < 1e-12


@FORMS
def test_masks_below_the_predicted_iou_are_left_out(form: Callable[[Sam, int], GridDecoder]) -> None:
    sam = build(SIZES["tiny"])
    embedding, sparse = inputs(sam)
    every = decode(form(sam, 4), embedding, sparse, (8, 8), None)
    threshold = float(every.iou.median())
    some = decode(form(sam, 4), embedding, sparse, (8, 8), threshold)
    keep = every.iou > threshold
    assert 0 < keep.sum() < len(keep)
    assert torch.equal(some.prompt, every.prompt[keep])
    assert torch.equal(some.mask, every.mask[keep])
    assert torch.equal(some.iou, every.iou[keep])
    assert error(some.logits, every.logits[keep]) < 1e-6
    above = float(every.iou.max()) + 1e-4  # fewer visible tokens may round the last digits otherwise
    nothing = decode(form(sam, 4), embedding, sparse, (8, 5), above)
    assert nothing.logits.shape == (0, 32, 20)
    assert len(nothing.prompt) == len(nothing.iou) == 0


@FORMS
def test_an_image_leaves_nothing_behind_for_the_next(form: Callable[[Sam, int], GridDecoder]) -> None:
    sam = build(SIZES["tiny"])
    (first, sparse), (second, _) = inputs(sam, 1), inputs(sam, 2)
    used = form(sam, 4)
    decode(used, first, sparse, (8, 8), None)
    again = decode(used, second, sparse, (5, 8), None)
    assert torch.equal(again.logits, decode(form(sam, 4), second, sparse, (5, 8), None).logits)


@FORMS
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_reduced_precision_is_no_worse_than_the_official_decoders(
    form: Callable[[Sam, int], GridDecoder], dtype: torch.dtype
) -> None:
    sam = build(FULL_DECODER)
    embedding, sparse = inputs(sam)
    exact = decode(OfficialDecoder(sam, 64), embedding, sparse, (8, 8), None)
    reduced = copy.deepcopy(sam)
    reduced.mask_decoder.to(dtype)

    def rms(decoder: PromptDecoder) -> float:
        found = decode(decoder, embedding.to(dtype), sparse, (8, 8), None)
        assert found.logits.dtype == found.iou.dtype == torch.float32
        return float((found.logits - exact.logits).square().mean().sqrt())

    assert rms(form(reduced, 4)) < 1.3 * rms(OfficialDecoder(reduced, 64))


def test_another_depth_is_refused() -> None:
    sam = build(SIZES["tiny"])
    sam.mask_decoder.transformer.layers.append(sam.mask_decoder.transformer.layers[1])
    with pytest.raises(ValueError, match="2 layers, this one has 3"):
        LowRankDecoder(sam, 4)
