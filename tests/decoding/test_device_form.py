"""The form for a GPU gives the tokens of the form for a CPU: on the recorded network, and on random rules, groups and chunks."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from coca_parity import FIXTURES, load_parity
from cuda_double import CudaDouble
from small_coca import assert_agree, crops, group, network, rules

from pseudoris_cli.decoding import device_sampling
from pseudoris_cli.decoding.engine import CropGroup, Decoder
from pseudoris_cli.decoding.rules import DecodingRules
from pseudoris_cli.errors import UsageError

CASES = 200


@torch.inference_mode()
def both(net: Any, given: DecodingRules, groups: list[CropGroup], row_chunk: int) -> tuple[list, list]:
    host, device = (Decoder(net, given, 0, row_chunk, form).decode(groups) for form in ("device", "host"))
    return host, device


@pytest.fixture(scope="module")
def net() -> Any:
    return network()


def drawn(number: int) -> tuple[DecodingRules, list[int], int, int]:
    """Random rules, sizes of groups, pairs in a chunk, and tokens that are sorted at first."""
    rng = random.Random(number)
    given = rules(
        top_k=tuple(rng.sample(range(1, 60), rng.randint(0, 2))),
        top_p=tuple(rng.choice([0.1, 0.5, 0.8, 0.95, 1.0]) for _ in range(rng.randint(1, 2))),
        contrast=rng.choice([0.0, 0.5, 1.0]),
        contrast_form=rng.choice(["literal", "scale_preserving"]),
        contrast_max_masks=rng.choice([None, 2]),
        similarity_clamp=rng.choice([None, 0.0]),
        pad_ends_row=rng.random() < 0.5,
        min_length=rng.randint(1, 5),
        max_length=rng.randint(3, 9),
    )
    return (
        given,
        [rng.randint(1, 4) for _ in range(rng.randint(1, 3))],
        rng.choice([5, 20, 1000]),
        rng.choice([3, 20, 128]),
    )


@pytest.mark.parametrize("part", range(10))
def test_random_cases(net: Any, part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(part * CASES // 10, (part + 1) * CASES // 10):
        given, sizes, chunk, ranked = drawn(number)
        monkeypatch.setattr(device_sampling, "RANKED", ranked)
        groups = [group(net, crops(size, number + size), given.samplers, number) for size in sizes]
        ours, theirs = both(net, given, groups, chunk)
        assert_agree(ours, theirs)


@pytest.mark.parametrize("masks", [1, 2, 5, 31])
def test_the_recorded_network(masks: int) -> None:
    load_parity()
    from coca_recordings import load
    from coca_recordings import rules as recorded_rules

    net, images, config = load(FIXTURES)
    given = recorded_rules(config)
    with torch.inference_mode():
        latents, tokens = net.encode(images[:masks], 64)
    numbers = np.random.default_rng(masks).random((masks, given.samplers, given.max_length))
    picked = CropGroup(tokens, (latents @ latents.T).numpy(), numbers)
    if masks == 31:  # without a contrast; the first tokens of so many
        from dataclasses import replace

        given = replace(given, max_length=8)
    ours, theirs = both(net, given, [picked], 1024)
    assert [[one.tokens for one in crop] for crop in ours[0]] == [[one.tokens for one in crop] for crop in theirs[0]]
    assert max(len(one.tokens) for crop in ours[0] for one in crop) > 5
    numbers = [[one.logprob for crop in side[0] for one in crop] for side in (ours, theirs)]
    assert np.allclose(*numbers, atol=1e-3)


def test_rows_leave_once_half_have_finished(net: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end is the token that is sampled most often."""
    given, sizes = rules(max_length=18, min_length=1), []
    groups = [group(net, crops(count, count), given.samplers, count) for count in (6, 5, 4)]
    made = [one for of_group in both(net, given, groups, 1000)[1] for crop in of_group for one in crop]
    given = rules(
        max_length=18, min_length=1, end=int(np.bincount([t for one in made for t in one.tokens[:6]]).argmax())
    )
    compact = device_sampling.DeviceSampler.compact

    def noted(self: Any, alive: np.ndarray) -> None:
        sizes.append((len(alive), int(alive.sum())))
        compact(self, alive)

    monkeypatch.setattr(device_sampling.DeviceSampler, "compact", noted)
    assert_agree(*both(net, given, groups, 1000))
    assert sizes, "no row left"
    assert all(2 * left <= before for before, left in sizes)


def test_the_host_looks_once_in_four_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step waits for nothing; chunk by chunk there are the uploads, and a look after every four steps."""
    given = rules(max_length=22, min_length=20)
    step = device_sampling.DeviceSampler.step
    with CudaDouble() as gpu, torch.inference_mode():
        net = network(device="cuda:1")
        groups = [group(net, crops(3, 3).to("cuda:1"), given.samplers, 1)]
        decoder = Decoder(net, given, 0, 1000, "device")

        def alone(self: Any, ranked: int) -> None:
            with gpu.forbid():
                step(self, ranked)

        monkeypatch.setattr(device_sampling.DeviceSampler, "step", alone)
        decoder.decode(groups)
        with gpu.counting() as waits:
            decoder.decode(groups)
    assert waits.places["decoding/device_sampling.py:look", "cpu"] == 5, "twenty steps"
    assert waits.total <= 5 + CHUNK, waits.places


CHUNK = 20
"""Waits of a chunk: random numbers, samplers and layout up, tokens and log-probabilities down."""


def test_logits_that_are_no_numbers_are_told(net: Any) -> None:
    broken = network()
    broken.coca.text_decoder.ln_final.weight.fill_(torch.nan)
    groups = [group(net, crops(2, 2), rules().samplers, 1)]
    with pytest.raises(UsageError, match="not finite"):
        Decoder(broken, rules(), 0, 100, "device").decode(groups)
