"""Distinctive sampling equals the plain uncached algorithm, and its limits are what they should be."""

from __future__ import annotations

from typing import Any

import pytest
from plain_captions import plain_sampling
from small_coca import assert_agree, crops, decode, group, network, rules

VARIANTS: dict[str, dict[str, Any]] = {
    "literal": {},
    "scale preserving": {"contrast_form": "scale_preserving"},
    "half the contrast": {"contrast": 0.5},
    "clamped": {"similarity_clamp": 0.9},
    "no contrast above two masks": {"contrast_max_masks": 2},
    "pad ends": {"pad_ends_row": True},
    "long minimum": {"min_length": 8},
    "shortest": {"max_length": 3, "min_length": 1},
}


@pytest.mark.parametrize("masks", [1, 2, 3, 5])
@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_the_plain_algorithm(variant: str, masks: int) -> None:
    given, net, images = rules(**VARIANTS[variant]), network(masks), crops(masks, masks)
    encoded = group(net, images, given.samplers)
    [found] = decode(net, [encoded], given)
    expected = plain_sampling(net.coca, images, encoded.uniforms, given)
    ours = [caption for of_crop in found for caption in of_crop]
    assert [list(caption.tokens) for caption in ours] == [tokens for tokens, _ in expected]
    assert [caption.logprob for caption in ours] == pytest.approx([value for _, value in expected], abs=1e-4)


def test_rows_end_in_every_way() -> None:
    """The comparison above would be empty if no row ended early, by pad, or at full length."""
    given = rules(pad_ends_row=True)
    net = network(0)
    [found] = decode(net, [group(net, crops(3, 0), given.samplers)], given)
    endings = {(caption.tokens[-1], len(caption.tokens) == 9) for of_crop in found for caption in of_crop}
    assert (96, False) in endings
    assert (96, True) in endings
    assert (0, False) in endings


def test_no_contrast_is_plain_sampling_of_each_crop_alone() -> None:
    given, net, images = rules(contrast=0.0), network(), crops(3)
    together = group(net, images, given.samplers)
    [found] = decode(net, [together], given)
    for crop in range(3):
        alone = group(net, images[crop : crop + 1], given.samplers)
        alone.uniforms[:] = together.uniforms[crop]
        assert_agree(decode(net, [alone], rules()), [[found[crop]]])


def test_contrast_changes_captions() -> None:
    net, images = network(), crops(3)
    encoded = group(net, images, 4)
    assert decode(net, [encoded], rules(contrast=0.0)) != decode(net, [encoded], rules())


def test_lengths() -> None:
    """`max_length` counts the start token; the end comes not before position `min_length`."""
    given, net = rules(min_length=5, max_length=12), network(2)
    [found] = decode(net, [group(net, crops(4), given.samplers)], given)
    for of_crop in found:
        for caption in of_crop:
            assert 5 <= len(caption.tokens) <= 11
            assert caption.tokens[-1] == 96
            assert 96 not in caption.tokens[:-1]
