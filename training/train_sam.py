"""Train the demo's Segment Anything on rendered scenes:  python training/train_sam.py --pool POOL --out sam.safetensors

One step: 6 images, 6 clicks each, a fifth of them on the background (with a target of 0 for the predicted IoU).
The loss is SAM's (focal + dice on the best of three masks, squared error of the predicted IoU), that of the best mask at
twice the decoder's resolution, so that edges can lie between its 4-pixel cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from loop import Run, train
from pool import Pool
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

IMAGES, CLICKS, BACKGROUND_CLICKS = 6, 6, 0.2
SIZE, VALID_ROWS = 256, 192


@dataclass(frozen=True, slots=True)
class Batch:
    """Images [B, 3, 256, 256]; clicks [P, 1, 2] (x, y), each with its image, its target mask and whether it is on an object."""

    images: torch.Tensor
    clicks: torch.Tensor
    image_of: torch.Tensor
    targets: torch.Tensor
    on_object: torch.Tensor


def build_sam() -> Sam:
    """segment_anything's Sam at the demo's size."""
    grid, width = SIZE // 16, 64
    encoder = ImageEncoderViT(
        img_size=SIZE,
        patch_size=16,
        embed_dim=128,
        depth=4,
        num_heads=4,
        out_chans=width,
        qkv_bias=True,
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=0,
    )
    prompts = PromptEncoder(width, (grid, grid), (SIZE, SIZE), mask_in_chans=16)
    decoder = MaskDecoder(
        transformer_dim=width,
        transformer=TwoWayTransformer(depth=2, embedding_dim=width, num_heads=4, mlp_dim=256),
        num_multimask_outputs=3,
        iou_head_depth=3,
        iou_head_hidden_dim=width,
    )
    return Sam(encoder, prompts, decoder)


def draw_batch(pool: Pool, sam: Sam, rng: np.random.Generator) -> Batch:
    """Random scenes, mirrored at random, and random clicks on them."""
    chosen = rng.integers(0, len(pool.images), IMAGES)
    images, owner = pool.images[chosen], pool.owner[chosen]
    if rng.random() < 0.5:
        images, owner = images[:, :, ::-1], owner[:, :, ::-1]
    if rng.random() < 0.5:
        images, owner = images[:, ::-1], owner[:, ::-1]
    clicks, targets, on_object = [], [], []
    for labels in owner:
        for _ in range(CLICKS):
            label = 0 if rng.random() < BACKGROUND_CLICKS else int(rng.integers(1, labels.max() + 1))
            where = np.flatnonzero(labels == label)
            y, x = divmod(int(where[rng.integers(len(where))]), labels.shape[1])
            clicks.append((x + 0.5, y + 0.5))
            targets.append((labels == label) & (label > 0))
            on_object.append(label > 0)
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()
    gain = torch.from_numpy(rng.uniform(0.9, 1.1, (IMAGES, 1, 1, 1))).float()
    below = (0, 0, 0, SIZE - VALID_ROWS)
    return Batch(
        F.pad((pixels * gain - sam.pixel_mean) / sam.pixel_std, below),
        torch.tensor(clicks)[:, None],
        torch.arange(IMAGES).repeat_interleave(CLICKS),
        F.pad(torch.from_numpy(np.stack(targets)).float(), below),
        torch.tensor(on_object),
    )


def predict(sam: Sam, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Mask logits [P, 4, 64, 64] and predicted IoUs [P, 4]: MaskDecoder.predict_masks for prompts of several images."""
    embeddings = sam.image_encoder(batch.images)
    ones = torch.ones(len(batch.clicks), 1)
    sparse, dense = sam.prompt_encoder(points=(batch.clicks, ones), boxes=None, masks=None)
    decoder = sam.mask_decoder
    own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = torch.cat([own.expand(len(sparse), -1, -1), sparse], dim=1)
    source = embeddings[batch.image_of] + dense
    hidden, source_out = decoder.transformer(
        source, sam.prompt_encoder.get_dense_pe().expand(len(source), -1, -1, -1), tokens
    )
    upscaled = decoder.output_upscaling(source_out.transpose(1, 2).reshape(source.shape))
    weights = torch.stack([mlp(hidden[:, 1 + k]) for k, mlp in enumerate(decoder.output_hypernetworks_mlps)], dim=1)
    masks = torch.einsum("pkc,pchw->pkhw", weights, upscaled)
    return masks, decoder.iou_prediction_head(hidden[:, 0])


def mask_losses(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Focal (x 20), dice and half of the plain cross-entropy, averaged over the last two axes."""
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    p = logits.sigmoid()
    miss = (p - targets).abs()
    dice = 1 - (2 * (p * targets).sum((-2, -1)) + 1) / (p.sum((-2, -1)) + targets.sum((-2, -1)) + 1)
    return 20 * (miss.square() * entropy).mean((-2, -1)) + dice + 0.5 * entropy.mean((-2, -1))


def step_loss(sam: Sam, batch: Batch) -> tuple[torch.Tensor, dict[str, float]]:
    logits, predicted = predict(sam, batch)
    rows = logits.shape[-1] * VALID_ROWS // SIZE
    logits = logits[:, :, :rows]
    coarse = F.avg_pool2d(batch.targets[:, None], SIZE // logits.shape[-1])[:, :, :rows]
    clicks = torch.arange(len(logits))
    on = batch.on_object
    with torch.no_grad():
        common = ((logits > 0) & (coarse > 0.5)).sum((2, 3))
        union = ((logits > 0) | (coarse > 0.5)).sum((2, 3))
        iou = common / union.clamp(min=1) * on[:, None]
    losses = mask_losses(logits, coarse.expand_as(logits))
    best = 1 + losses[:, 1:].argmin(1)
    fine = F.avg_pool2d(batch.targets[:, None], 2)[on, 0, : 2 * rows]
    upsampled = F.interpolate(logits[clicks, best][on][:, None], scale_factor=2, mode="bilinear", align_corners=False)
    sharp = mask_losses(upsampled[:, 0], fine).mean()
    shape = sharp + 0.1 * losses[on][:, 1:].mean() + 0.2 * losses[on][:, 0].mean()
    judged = F.mse_loss(predicted, iou)
    pick = 1 + predicted[:, 1:].argmax(1)
    figures = {
        "mask": shape.item(),
        "iou_head": judged.item(),
        "iou": iou[clicks, pick][on].mean().item(),
        "said_object": predicted[clicks, pick][on].mean().item(),
        "said_ground": predicted[clicks, pick][~on].mean().item() if (~on).any() else 0.0,
    }
    return shape + judged, figures


def main() -> None:
    run = Run.parse("training/train_sam.py", __doc__, steps=1400, rate=1e-3, seed=0)
    rng, pool, sam = run.prepare(), Pool.open(run.pool), build_sam()
    run.restore(sam)
    train(run, sam, [], len(pool.images), lambda progress: step_loss(sam, draw_batch(pool, sam, rng)))


if __name__ == "__main__":
    main()
