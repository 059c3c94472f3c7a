"""What every backend promises, ours or an installed package's: its `tiny()` builds, meets its protocol and answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from locations import FIXTURES

from pseudoris_cli.backends import registry as backends
from pseudoris_cli.errors import MissingDependency
from pseudoris_cli.method.protocols import PROTOCOLS, Lineup, Proposal, Segment
from pseudoris_cli.records import Caption, Mask, MaskedImage
from pseudoris_cli.rle import decode_rle, encode_rle, rle_area, rle_bbox
from pseudoris_cli.settings import plugins
from pseudoris_cli.settings.models import Numerics, role_problem

PAIRS = [(name, role) for name in plugins.names(plugins.BACKENDS) for role in plugins.roles(name)]


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MaskedImage:
    """Two squares on noise, and files of annotations and of captions for the backends that read them from the current folder."""
    image_rgb = np.random.default_rng(0).integers(0, 80, (64, 96, 3), np.uint8)
    masks = []
    for number, (left, colour) in enumerate(((8, (220, 30, 30)), (56, (30, 30, 220)))):
        inside = np.zeros((64, 96), bool)
        inside[16:48, left : left + 32] = True
        image_rgb[inside] = colour
        rle = encode_rle(inside)
        masks.append(Mask(number, rle, rle_bbox(rle), rle_area(rle), 0.9, 0.9))
    annotations = [
        {"id": n, "image_id": 1, "category_id": 1, "segmentation": {"size": [64, 96], "counts": mask.rle.counts}}
        for n, mask in enumerate(masks)
    ]
    images = [{"id": 1, "file_name": "a.png", "height": 64, "width": 96}]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "square"}]}
    (tmp_path / "instances.json").write_text(json.dumps(content))
    own = [{"image": name, "mask": n, "text": "a square"} for name in ("a.png", "b.png") for n in range(2)]
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, own)))
    monkeypatch.chdir(tmp_path)
    return MaskedImage("a.png", image_rgb, tuple(masks))


def test_there_are_backends_of_every_role() -> None:
    assert {role for _, role in PAIRS} == set(PROTOCOLS)
    assert {name for name, _ in PAIRS} == set(plugins.names(plugins.BACKENDS)), "a backend declares no role"


@pytest.mark.parametrize(("name", "role"), PAIRS)
def test_it_builds_and_answers(
    name: str, role: str, image: MaskedImage, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name in ("vlm", "listener_vlm"):
        monkeypatch.setenv("OPENAI_BASE_URL", request.getfixturevalue("vlm_server"))
    if name in ("captioner_hf", "listener_decision"):
        Path("tiny-vlm").symlink_to(FIXTURES / "tiny_vlm")
    module = plugins.load(plugins.BACKENDS, name)
    assert role_problem(module, name, role) is None
    settings = module.Settings.tiny()
    assert settings.backend == name
    assert module.Settings.model_validate(settings.model_dump()) == settings
    backends.results_of(settings)
    try:
        backend = backends.load(settings, Numerics(), "cpu")
    except MissingDependency as missing:
        pytest.skip(str(missing))
    backends.identify(settings, f"test.{name}")
    CHECKS[role](backend, image)


def check_segmenter(backend, image: MaskedImage) -> None:
    other = np.ascontiguousarray(image.image_rgb[:48])
    first, second = backend.segment([image.image_rgb, other])
    for found, shape in ((first, (64, 96)), (second, (48, 96))):
        for segment in found:
            assert isinstance(segment, Segment)
            assert decode_rle(segment.rle).shape == shape
            assert segment.area == rle_area(segment.rle) > 0
            assert segment.bbox == rle_bbox(segment.rle)


def check_proposer(backend, image: MaskedImage) -> None:
    if backend is None:
        return  # `none` leaves the choice to the rules
    [found] = backend.propose([image.image_rgb], [image.key])
    assert all(isinstance(proposal, Proposal) for proposal in found)
    assert [p.score for p in found] == sorted((p.score for p in found), reverse=True)
    assert all(decode_rle(proposal.rle).shape == (64, 96) for proposal in found)


def check_captioner(backend, image: MaskedImage) -> None:
    alone = MaskedImage("b.png", image.image_rgb, image.masks[:1])
    bare = MaskedImage("c.png", image.image_rgb, ())
    found = backend.caption([image, bare, alone])
    assert [len(captions) > 0 for captions in found] == [True, False, True]
    for captions, masks in zip(found, (image.masks, (), alone.masks), strict=True):
        assert all(isinstance(caption, Caption) for caption in captions)
        assert list(dict.fromkeys(c.mask_id for c in captions)) == [mask.mask_id for mask in masks]
        for mask in masks:
            numbers = [c.candidate_id for c in captions if c.mask_id == mask.mask_id]
            assert numbers == list(range(len(numbers)))
    assert isinstance(backend.halvings, int)


def check_scorer(backend, image: MaskedImage) -> None:
    import torch

    crops = torch.rand(3, 3, backend.size, backend.size, generator=torch.Generator().manual_seed(0))
    images, texts = backend.encode_images(crops), backend.encode_texts(["a red square", "a blue square"])
    assert images.shape == (3, texts.shape[1])
    for vectors in (images, texts):
        assert torch.allclose(vectors.norm(dim=1), torch.ones(len(vectors)), atol=1e-5)
    assert len(backend.mean) == len(backend.std) == 3


def check_nouns(backend, image: MaskedImage) -> None:
    nouns = backend.nouns(["the red square on the left", ""])
    assert len(nouns) == 2
    assert nouns[0]
    assert nouns[1] == ""


def check_listener(backend, image: MaskedImage) -> None:
    if backend is None:
        return  # `none`: there is no judge stage
    texts = ("the red square on the left", "a blue square", "")
    alone = Lineup("b.png", image.image_rgb, image.masks[:1], texts[:1])
    both, one, silent = backend.listen(
        [Lineup("a.png", image.image_rgb, image.masks, texts), alone, Lineup("c.png", image.image_rgb, image.masks, ())]
    )
    assert (both.shape, one.shape, silent.shape) == ((3, 3), (1, 2), (0, 3))
    for answer in (both, one):
        assert (answer >= 0).all()
        assert np.allclose(answer.sum(1), 1)


CHECKS = {
    "segmenter": check_segmenter,
    "proposer": check_proposer,
    "captioner": check_captioner,
    "scorer": check_scorer,
    "nouns": check_nouns,
    "listener": check_listener,
}
