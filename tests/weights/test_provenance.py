"""Licences of the weights for a dataset card: registered, random, demo, unknown, own masks."""

from __future__ import annotations

from typing import Any

import pytest

from pseudoris_cli.weights import registry as weights
from pseudoris_cli.weights.provenance import DEMO, RANDOM, UNKNOWN, same_model, weights_provenance


def header(part: str, name: str, digest: str, settings: dict[str, Any], **resolved: Any) -> dict[str, Any]:
    return {"checkpoints": {part: {"name": name, "digest": digest}}, "settings": settings, "resolved": resolved}


@pytest.mark.parametrize(
    ("name", "digest", "row"),
    [
        ("sam_vit_h", weights.registry()["sam_vit_h"].sha256, ("sam_vit_h", "Apache-2.0", "")),
        ("/home/me/renamed.pth", weights.registry()["sam_vit_b"].sha256, ("renamed.pth", "Apache-2.0", "")),
        ("cutler_cascade", "recorded by the first fetch", ("cutler_cascade", "CC-BY-NC-4.0", "no commercial use")),
        ("/home/me/own.pth", "1234", ("own.pth", UNKNOWN, "")),
        ("random:3", "random:3", ("random:3", "none", RANDOM)),
        ("demo_sam", "5678", ("demo_sam", "MIT", DEMO)),
        ("coco_masks", "9abc", ("masks of your own", "your own", "")),
    ],
)
def test_every_kind_of_weights_has_a_licence_or_none_that_is_known(
    name: str, digest: str, row: tuple[str, ...]
) -> None:
    settings = {"sam": {"backend": "sam", "model": "vit_h"}}
    [found] = weights_provenance({"masks": header("sam", name, digest, settings)})
    assert (found["weights"], found["licence"], found["remark"]) == row
    assert (found["setting"], found["network"], found["digest"]) == ("masks.sam", "sam vit_h", digest)


def test_captioner_and_parser_are_named_by_their_settings() -> None:
    captions = header("captions", "coca_cc3m", "", {"backend": "coca", "model": "coca_ViT-L-14"})
    nouns = {
        pipeline: header(
            "nouns",
            "nouns",
            "en_core_web_lg 3.8.0",
            {"nouns": {"backend": "nouns"}},
            filter={"nouns": {"pipeline": pipeline}},
        )
        for pipeline in ("en_core_web_lg", "demo", "blank", "/mine/de_core")
    }
    for pipeline, licence in zip(nouns, ("MIT", "MIT", "none", UNKNOWN), strict=True):
        rows = weights_provenance({"captions": captions, "scores": nouns[pipeline]})
        assert [row["setting"] for row in rows] == ["captions", "filter.nouns"]
        assert [row["licence"] for row in rows] == ["MIT", licence]
    assert weights_provenance({"masks": {"checkpoints": {"proposals": {}}, "settings": {}}}) == []
    assert weights_provenance({"masks": {"settings": {}}}) == []


def asked_in_words(part: str, backend: str, model: str | None, identity: str) -> dict[str, Any]:
    own = {"backend": backend, "model": model}
    resolved = {"filter": {"judge": own}} if part == "judge" else {part: own}
    settings = {"judge": {"backend": backend}} if part == "judge" else {"backend": backend}
    return header(part, backend, f"{identity} 0123456789abcdef", settings, **resolved)


def test_a_served_model_is_named_as_its_server_lists_it() -> None:
    headers = {
        "captions": asked_in_words("captions", "vlm", None, "Qwen/Qwen3-VL-8B"),
        "judge": asked_in_words("judge", "listener_vlm", "OpenGVLab/InternVL", "OpenGVLab/InternVL"),
    }
    rows = weights_provenance(headers)
    assert [(row["setting"], row["weights"]) for row in rows] == [
        ("captions", "Qwen3-VL-8B"),
        ("filter.judge", "InternVL"),
    ]
    assert same_model(headers) is None


@pytest.mark.parametrize(
    ("captioner", "listener", "same"),
    [
        (("vlm", None, "Qwen/Qwen3-VL-8B"), ("listener_vlm", None, "Qwen/Qwen3-VL-8B"), True),
        (("vlm", "qwen3-vl-8b", "qwen3-vl-8b"), ("listener_decision", "/models/Qwen3-VL-8B", "ab12"), True),
        (("captioner_hf", "/one/path", "ab12"), ("listener_decision", "/another", "ab12"), True),
        (("captioner_hf", "/one/path", "ab12"), ("listener_decision", "/another", "cd34"), False),
    ],
    ids=["by name", "here and at a server", "by bytes", "others"],
)
def test_one_model_on_both_sides_is_noticed(captioner: tuple, listener: tuple, same: bool) -> None:
    headers = {"captions": asked_in_words("captions", *captioner), "judge": asked_in_words("judge", *listener)}
    assert bool(same_model(headers)) == same
    assert same_model({"captions": headers["captions"]}) is None
    coca = header("captions", "coca_cc3m", "ab12", {"backend": "coca"}, captions={"model": "coca_ViT-L-14"})
    assert same_model({"captions": coca, "judge": headers["judge"]}) is None


def test_models_of_transformers_by_name_with_the_conditions_of_their_licences() -> None:
    sections = {"sam": ("sam_hf", "sam2.1_hiera_large"), "proposals": ("sam3_concepts", "sam3")}
    made = {
        "checkpoints": {part: {"name": backend, "digest": "0" * 64} for part, (backend, _) in sections.items()},
        "settings": {part: {"backend": backend} for part, (backend, _) in sections.items()},
        "resolved": {"masks": {part: {"checkpoint": name} for part, (_, name) in sections.items()}},
    }
    first, second = weights_provenance({"masks": made})
    assert (first["weights"], first["licence"], first["remark"]) == ("sam2.1_hiera_large", "Apache-2.0", "")
    assert (second["weights"], second["licence"]) == ("sam3", "SAM License")
    assert "military" in second["remark"]
