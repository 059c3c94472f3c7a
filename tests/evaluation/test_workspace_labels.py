"""Names and order of captions versions in an evaluation."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pseudoris_cli.evaluation.workspace import _labels, _order


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
