"""Distinctiveness of caption (paper §3.3): from crops and captions to correctness, uniqueness and DoC.

For mask i, caption t, its noun prompt P(t), and unit vectors a_k of the masked and b_k of the 1.2 crop of mask k:

    correctness = <a_i, P(t)>      uniqueness = <b_i, t> / max_{k≠i} <b_k, t>
    doc = <a_i, P(t)> <b_i, t> / max_{k≠i} (<a_k, P(t)> <b_k, t>)

The release encodes all crops again for every mask; here each crop and each distinct text is encoded once, and every
score of an image comes from two matrix products.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from pseudoris_cli import watching
from pseudoris_cli.method.prompts import noun_prompt
from pseudoris_cli.method.protocols import NounFinder, Scorer
from pseudoris_cli.records import CaptionCandidate, MaskedImage
from pseudoris_cli.settings.models import FilterSettings, PromptStyle

if TYPE_CHECKING:
    import torch

FLAGS = {
    "empty": "no caption or no noun: nothing is scored",
    "one_mask": "the image has one mask: uniqueness and doc are null",
    "negative": "a cosine of this text with some mask is negative: counted as 0, or as it is with filter.clamp off",
    "capped": "uniqueness or doc was cut to filter.doc_cap",
    "non_finite": "a score is not a finite number and stored as null",
}
"""The values of the column `flags`, in the order in which they are joined by commas, and their meaning."""


@dataclass(frozen=True, slots=True)
class RowScores:
    """Scores of the candidates of one image: float64 [R] with NaN for null, and the flags as bool [R] by name."""

    correctness: np.ndarray
    uniqueness: np.ndarray
    doc: np.ndarray
    flags: dict[str, np.ndarray]


_NO_SCORES = RowScores(np.zeros(0), np.zeros(0), np.zeros(0), {})


def score_rows(
    prompt_cosines: np.ndarray, caption_cosines: np.ndarray, target: np.ndarray, clamp: bool, cap: float | None
) -> RowScores:
    """Scores of R candidates among the M masks of an image.

    `prompt_cosines` and `caption_cosines` are float64 [R, M]: noun prompts against masked crops, captions against 1.2
    crops; `target` int [R] is the index of the mask that each candidate describes. `clamp` raises negative cosines to 0 before
    they are multiplied; `cap` is the upper bound of both ratios, infinite ones included. Scores that are not finite after
    that are null and flagged.
    """
    rows = np.arange(len(target))
    correctness = prompt_cosines[rows, target]
    undefined = ~np.isfinite(correctness)
    correctness = np.where(undefined, np.nan, correctness)
    if prompt_cosines.shape[1] < 2:
        null, everywhere = np.full(len(rows), np.nan), np.ones(len(rows), bool)
        return RowScores(correctness, null, null.copy(), {"one_mask": everywhere, "non_finite": undefined})
    negative = (prompt_cosines < 0).any(axis=1) | (caption_cosines < 0).any(axis=1)
    if clamp:
        prompt_cosines, caption_cosines = np.maximum(prompt_cosines, 0.0), np.maximum(caption_cosines, 0.0)
    capped = np.zeros(len(rows), bool)
    ratios = []
    for similarity in (caption_cosines, prompt_cosines * caption_cosines):
        ratio = _over_best_rival(similarity, target)
        if cap is not None:
            capped |= ratio > cap
            ratio = np.minimum(ratio, cap)
        undefined |= ~np.isfinite(ratio)
        ratios.append(np.where(np.isfinite(ratio), ratio, np.nan))
    uniqueness, doc = ratios
    flags = {"negative": negative, "capped": capped, "non_finite": undefined}
    return RowScores(correctness, uniqueness, doc, flags)


def _over_best_rival(similarity: np.ndarray, target: np.ndarray) -> np.ndarray:
    """similarity[r, target] / max over the other masks, [R]; not finite where the maximum is 0."""
    rows = np.arange(len(target))
    rivals = similarity.copy()
    rivals[rows, target] = -np.inf
    with np.errstate(divide="ignore", invalid="ignore"):
        return similarity[rows, target] / (rivals.max(axis=1) + 0.0)  # + 0.0 turns a negative zero into a positive one


def score_images(
    images: Sequence[MaskedImage],
    candidates: Sequence[Sequence[CaptionCandidate]],
    scorer: Scorer,
    nouns: NounFinder,
    settings: FilterSettings,
) -> list[list[dict[str, Any]]]:
    """Score the candidates of each image against all its masks.

    One row per candidate, in order: mask_id, candidate_id, noun, correctness, uniqueness, doc (None for null), flags
    (names of `FLAGS`, comma separated). Crops and distinct texts of all images are encoded together, each once.
    """
    found = iter(nouns.nouns([candidate.caption for rows in candidates for candidate in rows]))
    style = settings.prompt_style
    queries = [[_query(candidate, next(found).strip(), style) for candidate in rows] for rows in candidates]
    distinct = dict.fromkeys(text for q in chain(*queries) if q.noun for text in (q.caption, q.prompt))
    if not distinct:
        return [_rows(own, _NO_SCORES) for own in queries]
    number = {text: n for n, text in enumerate(distinct)}
    with watching.span(0, 0.5):
        texts = scorer.encode_texts(list(distinct))
    with watching.span(0.5, 1):
        masked, wide = _encode_crops(images, scorer, settings)
    scored = [[q for q in own if q.noun] for own in queries]
    rows = [[(number[q.prompt], number[q.caption]) for q in own] for own in scored]
    masks = [len(image.masks) for image in images]
    results = []
    for image, own, queried, (prompts, captions) in zip(
        images, queries, scored, _cosines(texts, rows, (masked, wide), masks), strict=True
    ):
        index = {mask.mask_id: n for n, mask in enumerate(image.masks)}
        target = np.array([index[q.mask_id] for q in queried], int)
        results.append(_rows(own, score_rows(prompts, captions, target, settings.clamp, settings.doc_cap)))
    return results


@dataclass(frozen=True, slots=True)
class _Query:
    """A candidate with its noun, which is '' where there is nothing to score."""

    mask_id: int
    candidate_id: int
    caption: str
    noun: str
    prompt: str


def _query(candidate: CaptionCandidate, noun: str, style: PromptStyle) -> _Query:
    mask_id, candidate_id, caption = candidate
    return _Query(mask_id, candidate_id, caption.strip(), noun, noun_prompt(noun, style) if noun else "")


def _encode_crops(
    images: Sequence[MaskedImage], scorer: Scorer, settings: FilterSettings
) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit vectors of the masked and of the 1.2 crop of every mask, [sum of masks, D] each."""
    from pseudoris_cli.method.crops import CropSpec, Interpolation, make_crops

    interpolation: Interpolation = getattr(
        scorer, "interpolation", "bilinear"
    )  # a scorer of another package may know of no other
    spec = CropSpec(scorer.size, scorer.mean, scorer.std, settings.crop_style, interpolation)
    crops = make_crops(images, ("masked", "crop_1.2"), spec, scorer.device)
    with watching.span(0, 0.5):
        masked = scorer.encode_images(crops["masked"])
    with watching.span(0.5, 1):
        return masked, scorer.encode_images(crops["crop_1.2"])


def _cosines(
    texts: torch.Tensor,
    rows: Sequence[Sequence[tuple[int, int]]],
    crops: tuple[torch.Tensor, torch.Tensor],
    masks: Sequence[int],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Per image the cosines of prompts with masked and of captions with wide crops, float64 [R, M] each on the host.

    `rows` are indices of texts, (prompt, caption), for each image; `crops` are those of all images, `masks` to an image. One
    upload and one transfer for all of them.
    """
    import torch

    flat = torch.tensor([pair for of_image in rows for pair in of_image], dtype=torch.int64).view(-1, 2)
    prompt, caption = flat.to(texts.device).unbind(1)
    prompts, captions = (texts[index].split([len(of_image) for of_image in rows]) for index in (prompt, caption))
    masked, wide = (of_kind.split(list(masks)) for of_kind in crops)
    products = [
        text @ crop.T
        for pair in zip(prompts, masked, captions, wide, strict=True)
        for text, crop in (pair[:2], pair[2:])
    ]
    numbers = torch.cat([product.flatten() for product in products]).double().cpu().numpy()
    ends = np.cumsum([product.numel() for product in products])[:-1]
    found = [part.reshape(product.shape) for part, product in zip(np.split(numbers, ends), products, strict=True)]
    yield from zip(found[::2], found[1::2], strict=True)


def _rows(queries: Sequence[_Query], scores: RowScores) -> list[dict[str, Any]]:
    """The rows of one image; `scores` holds those of the candidates that have a noun, in order."""
    rows, n = [], 0
    for query in queries:
        correctness = uniqueness = doc = None
        flags = "empty"
        if query.noun:
            values = (scores.correctness[n], scores.uniqueness[n], scores.doc[n])
            correctness, uniqueness, doc = (None if np.isnan(value) else float(value) for value in values)
            flags = ",".join(name for name in FLAGS if name in scores.flags and scores.flags[name][n])
            n += 1
        row = {"mask_id": query.mask_id, "candidate_id": query.candidate_id, "noun": query.noun}
        rows.append(row | {"correctness": correctness, "uniqueness": uniqueness, "doc": doc, "flags": flags})
    return rows


def mask_likeness(image: MaskedImage, scorer: Scorer, settings: FilterSettings) -> np.ndarray:
    """Cosines of the masked crops of an image's masks, float64 [M, M]."""
    masked, _ = _encode_crops([image], scorer, settings)
    return (masked @ masked.T).double().cpu().numpy()
