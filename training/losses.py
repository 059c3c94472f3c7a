"""Losses of the captioner and the scorer."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F


def contrastive_loss(similarity: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Symmetric InfoNCE of [texts, crops] whose diagonal pairs are positives; other true pairs are not negatives."""
    others = true & ~torch.eye(len(true), dtype=torch.bool)
    similarity = similarity.masked_fill(others, -1e4)
    target = torch.arange(len(similarity))
    return (F.cross_entropy(similarity, target) + F.cross_entropy(similarity.T, target)) / 2


def attribute_loss(
    heads: torch.nn.ModuleList, features: torch.Tensor, codes: np.ndarray
) -> tuple[torch.Tensor, list[float]]:
    """Cross-entropy of the attribute heads, and each head's accuracy."""
    target = torch.from_numpy(codes).long()
    logits = [head(features) for head in heads]
    loss = torch.stack([F.cross_entropy(x, target[:, k]) for k, x in enumerate(logits)]).sum()
    return loss, [(x.argmax(1) == target[:, k]).float().mean().item() for k, x in enumerate(logits)]
