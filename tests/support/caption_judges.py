"""The caption decoder beside the plain algorithm: what must notice a fault. Expected captions are computed once, beforehand."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from plain_captions import plain_beams, plain_encode, plain_sampling
from small_coca import crops, decode, group, network, rules

from pseudoris_cli.backends import coca
from pseudoris_cli.decoding.engine import CropGroup
from pseudoris_cli.decoding.rules import DecodingRules
from pseudoris_cli.method.crops import make_crops
from pseudoris_cli.records import CROP_KINDS, Mask, MaskedImage
from pseudoris_cli.rle import encode_rle, rle_area, rle_bbox
from pseudoris_cli.settings.models import Numerics

VARIANTS: dict[str, dict[str, Any]] = {
    "literal": {},
    "scale preserving": {"contrast_form": "scale_preserving"},
    "clamped": {"similarity_clamp": 0.9},
    "no contrast above two masks": {"contrast_max_masks": 2},
    "pad ends": {"pad_ends_row": True},
    "short": {"max_length": 6, "min_length": 5},
}
SIZES = (2, 1, 3)
"""Masks of the images: half of the variants decode them together, half in chunks that cut through them."""


class SamplingJudge:
    """Small networks, every rule; the similarities of one variant are not symmetric."""

    def __init__(self) -> None:
        self.net = network(3)
        images = [crops(count, count) for count in SIZES]
        self.cases: list[tuple[str, DecodingRules, list[CropGroup], list[list[tuple[list[int], float]]]]] = []
        for name, changes in VARIANTS.items():
            given = rules(**changes)
            groups = [group(self.net, image, given.samplers, len(image)) for image in images]
            self.cases.append(
                (name, given, groups, [self._plain(i, g, given) for i, g in zip(images, groups, strict=True)])
            )
        skewed = [replace(g, similarity=self._skewed(g.size)) for g in self.cases[0][2]]
        expected = [self._plain(i, g, rules(), g.similarity) for i, g in zip(images, skewed, strict=True)]
        self.cases.append(("skewed", rules(), skewed, expected))
        self.beam_rules = rules(top_k=(), top_p=())
        self.beams = [plain_beams(self.net.coca, image, 2, 1, self.beam_rules) for image in images]

    def _skewed(self, masks: int) -> np.ndarray:
        return np.random.default_rng(masks).uniform(0.3, 1.2, (masks, masks)).astype(np.float32)

    def _plain(
        self, images: torch.Tensor, encoded: CropGroup, given: DecodingRules, similarity: np.ndarray | None = None
    ) -> list[tuple[list[int], float]]:
        matrix = None if similarity is None else torch.from_numpy(similarity)
        return plain_sampling(self.net.coca, images, encoded.uniforms, given, matrix)

    def __call__(self) -> None:
        for index, (name, given, groups, expected) in enumerate(self.cases):
            found = decode(self.net, groups, given, row_chunk=(1000, 17)[index % 2])
            for number, (of_group, wanted) in enumerate(zip(found, expected, strict=True)):
                ours = [caption for of_crop in of_group for caption in of_crop]
                assert [list(one.tokens) for one in ours] == [tokens for tokens, _ in wanted], (name, number)
                assert [one.logprob for one in ours] == pytest.approx([value for _, value in wanted], abs=1e-4), (
                    name,
                    number,
                )

    def judge_beams(self) -> None:
        groups = [replace(one, uniforms=one.uniforms[:, :0]) for one in self.cases[0][2]]
        for row_chunk in (2, 12):  # crop by crop, and all groups together
            found = decode(self.net, groups, self.beam_rules, beams=2, row_chunk=row_chunk)
            assert [[list(crop[0].tokens) for crop in one] for one in found] == self.beams


def plain_uniforms(*identity: Any, count: int) -> np.ndarray:
    """53-bit numbers of a Philox generator whose key is the 128-bit digest of the identity."""
    digest = hashlib.blake2b(json.dumps(list(identity)).encode(), digest_size=16).digest()
    raw = np.random.Philox(key=int.from_bytes(digest, "little")).random_raw(count)
    return np.array([(int(number) >> 11) / 2**53 for number in raw])


def masked_image(key: str, count: int) -> MaskedImage:
    generator = np.random.default_rng(len(key))
    masks = []
    for number in range(count):
        mask = np.zeros((48, 64), bool)
        y, x = generator.integers(0, 30, 2)
        mask[y : y + 12, x : x + 15] = True
        rle = encode_rle(mask)
        masks.append(Mask(number + 2, rle, rle_bbox(rle), rle_area(rle), 0.0, 0.0))
    return MaskedImage(key, generator.integers(0, 256, (48, 64, 3), dtype=np.uint8), tuple(masks))


class CaptionerJudge:
    """The backend on two images in one call, each image and crop kind computed alone by the plain algorithm."""

    def __init__(self) -> None:
        settings = coca.Settings(model="demo", checkpoint="demo_coca", max_length=8, top_k=(3, 9), top_p=(0.7,), seed=5)
        self.captioner = coca.load(settings, Numerics(), "cpu")
        self.images = [masked_image("a", 2), masked_image("three", 3)]
        self.names = ["beam", "top_k=3", "top_k=9", "top_p=0.7"]
        self.expected = [self._plain(image) for image in self.images]

    @torch.inference_mode()
    def _plain(self, image: MaskedImage) -> list[tuple[Any, ...]]:
        captioner = self.captioner
        model, given, spec = captioner._network.coca, captioner._rules, captioner._spec
        found = {}
        for kind in CROP_KINDS:
            crops_of = make_crops([image], [kind], spec, torch.device("cpu"))[kind]
            numbers = [
                [plain_uniforms(5, image.key, mask.mask_id, kind, name, count=8) for name in self.names[1:]]
                for mask in image.masks
            ]
            sampled = plain_sampling(model, crops_of, np.array(numbers), given, plain_encode(model, crops_of, given)[1])
            for place, beam in enumerate(plain_beams(model, crops_of, 2, 1, given)):
                found[kind, place] = [(beam, None), *sampled[place * 3 : place * 3 + 3]]
        records = []
        for place, mask in enumerate(image.masks):
            number = 0
            for kind in CROP_KINDS:
                for name, (tokens, logprob) in zip(self.names, found[kind, place], strict=True):
                    words = [token for token in tokens if token not in (given.start, given.end)]
                    text = captioner._tokenizer.decode(words).strip()
                    records.append((mask.mask_id, number, text, kind, name, len(tokens), logprob))
                    number += 1
        return records

    def __call__(self) -> None:
        for found, wanted in zip(self.captioner.caption(self.images), self.expected, strict=True):
            ours = [(c.mask_id, c.candidate_id, c.caption, c.crop, c.sampler, c.tokens) for c in found]
            assert ours == [record[:6] for record in wanted]
            for caption, (*_, logprob) in zip(found, wanted, strict=True):
                assert logprob is None or caption.logprob == pytest.approx(logprob, abs=1e-4)
