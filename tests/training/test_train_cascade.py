"""A few training steps of the demo's Cascade R-CNN."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pseudoris_cli.networks.cascade_rcnn.detector import TINY, CascadeRCNN, initialise


def test_every_loss_is_there_and_every_weight_learns(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(repository / "training"))
    import pool
    import train_cascade

    torch.set_num_threads(1)
    pool.write_pool(tmp_path, "train", 3)
    monkeypatch.setattr(train_cascade, "IMAGES", 2)
    generator = torch.Generator().manual_seed(0)
    network = CascadeRCNN(TINY)
    initialise(network, generator)
    losses = train_cascade.Losses(network.train(), generator)
    batch = train_cascade.draw_batch(pool.Pool.open(tmp_path), np.random.default_rng(0))
    each = losses(*batch)
    heads = {f"{kind}{stage}" for kind in ("class", "box") for stage in range(3)}
    assert set(each) == {"objectness", "anchors", "mask"} | heads
    total = torch.stack(list(each.values())).sum()
    total.backward()
    still = [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert still == []
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    for _ in range(3):
        optimizer.step()
        optimizer.zero_grad()
        after = torch.stack(list(losses(*batch).values())).sum()
        after.backward()
    assert after < 0.9 * total
