"""The version of every stage in every profile, as released: a change that results do not need shows here."""

from __future__ import annotations

import pytest

from pseudoris_cli.pipeline.chain import versions
from pseudoris_cli.settings.resolve import resolve

RANDOM = (
    "masks.sam.checkpoint=random:0",
    "masks.proposals.checkpoint=random:0",
    "captions.checkpoint=random:0",
    "filter.scorer.checkpoint=random:0",
    "filter.nouns.pipeline=blank",
)
"""Stands in for weights that no test machine has; a checkpoint enters the version by its digest alone."""


# Since 0.2 `scores` and what follows differ in `paper` and `fast`: head nouns and noun prompts are mended.
PINS: dict[str, dict[str, str]] = {
    "paper": {
        "masks": "ac43caf52d37",
        "captions": "5c7098c2ff7c",
        "scores": "a97754654d66",
        "filter": "9f3a9a99f7a7",
        "export": "3f9245464631",
    },
    "reference": {  # since 0.2 with masks.drop_full_frame and filter.one_mask_half: other results
        "masks": "2573fc74884b",
        "captions": "845ab0e97b3f",
        "scores": "8051e82778d4",
        "filter": "666c30766c64",
        "export": "cb2ba2f1ec1e",
    },
    "fast": {
        "masks": "6b70353572a6",
        "captions": "5414ae76b7d5",
        "scores": "9178b171edad",
        "filter": "34e60b2ff394",
        "export": "47d647c17f32",
    },
    "demo": {
        "masks": "cbaa30c957e2",
        "captions": "1345b64ebf70",
        "scores": "b0f632391477",
        "filter": "dd3f416aaf74",
        "export": "333991eb9fd5",
    },
    "random": {
        "masks": "c060ec151238",
        "captions": "28afdba4b548",
        "scores": "c04ff301277c",
        "filter": "8b4ec9c88126",
        "export": "e28b02607662",
    },
}


@pytest.mark.parametrize("profile", sorted(PINS))
def test_versions_stay(profile: str) -> None:
    settings = resolve(profile, assignments=() if profile in ("demo", "random") else RANDOM).settings
    assert versions(settings) == PINS[profile]
