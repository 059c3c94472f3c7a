"""Names and order of captions versions in an evaluation."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from work_maker import WorkMaker

from pseudoris_cli.evaluation.truth import write_scenes
from pseudoris_cli.evaluation.workspace import _labels, _order, answered_images, evaluate_workspace, rows


def made(version, **settings):
    return SimpleNamespace(version=version, header={"settings": settings})


@pytest.mark.parametrize(
    ("settings", "label"),
    [
        ({"contrast": 0, "contrast_form": "literal"}, "plain"),
        ({"contrast": 1, "contrast_form": "literal"}, "distinctive, literal"),
        ({"contrast": 0.5, "contrast_form": "scale_preserving"}, "distinctive, scale-preserving x0.5"),
        ({"backend": "another_captioner"}, "another_captioner"),
    ],
)
def test_a_version_is_named_by_how_it_was_sampled(settings, label):
    assert _labels([made("a1", **settings)]) == {"a1": label}


def test_versions_of_one_name_are_told_apart():
    plain = {"contrast": 0, "contrast_form": "literal"}
    assert _labels([made("a1", **plain), made("b2", **plain)]) == {"a1": "plain a1", "b2": "plain b2"}


def test_plain_sampling_comes_first_and_other_captioners_last():
    """Beam captions are taken from the first version."""
    versions = [
        made("a", backend="another_captioner"),
        made("b", contrast=1, contrast_form="literal"),
        made("c", contrast=0, contrast_form="literal"),
    ]
    assert [version.version for version in sorted(versions, key=_order)] == ["c", "b", "a"]


@pytest.mark.parametrize("bounds", [(0.9, 1.1), (1.1, 0.9)])
def test_of_filters_of_one_kind_the_last_one_counts(bounds, tmp_path):
    maker = WorkMaker(tmp_path / "made", 2)
    masks = maker.masks()
    scores = maker.scores(maker.captions(masks))
    made = [maker.filter(scores, min_doc) for min_doc in bounds]
    kept = [sum(row["kept"] for row in rows(one, ["kept"])) for one in made]
    assert kept[0] != kept[1]
    truth = write_scenes(tmp_path / "truth", "demo", 2)
    told = {(one.method, one.selection): one.texts for one in evaluate_workspace(maker.workspace, truth).captions}
    sampled = [row for row in rows(made[1], ["image_key", "mask_id", "caption", "kept"]) if row["kept"]]
    said = list(rows(maker.workspace.latest("captions"), ["image_key", "mask_id", "caption", "sampler"]))
    texts = {tuple(row[n] for n in ("image_key", "mask_id", "caption")) for row in said if row["sampler"] != "beam"}
    assert told["distinctive, literal", "DoC"] == len(texts & {tuple(row.values())[:3] for row in sampled})


def test_vanished_images_are_not_answered():
    images = [
        SimpleNamespace(key=key, status=status)
        for key, status in zip("abcd", ("done", "gone", "empty", "failed"), strict=True)
    ]
    manifest = SimpleNamespace(entries={0: SimpleNamespace(images=images)})
    assert answered_images(SimpleNamespace(manifest=lambda: manifest)) == {"a", "c", "d"}
