"""A device that runs out of memory in the real command: the chunk is halved, the manifest says so, and the results are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from invoking import Outcome, draw_pictures, invoke, rows_of
from short_memory import only_one_by_one

from pseudoris_cli.backends.automatic_masks import AutomaticSegmenter
from pseudoris_cli.decoding.engine import Decoder
from pseudoris_cli.method import scoring
from pseudoris_cli.storage.workspace import Workspace

SAME_NUMBERS = 1e-4
"""What rows of other chunk settings may differ by."""


def run(folder: Path, work: str) -> Outcome:
    return invoke(
        "run", "--images", folder / "pictures", "--work", folder / work, "--config", "configs/random.yaml",
        "--device", "cpu", "--set", "captions.top_k=[5]", "--set", "captions.top_p=[]", "--set", "captions.max_length=5",
    )  # fmt: skip


def notes(folder: Path, work: str, stage: str, name: str = "out_of_memory") -> list[int]:
    entries = Workspace(folder / work).latest(stage).manifest().entries.values()
    return [entry.notes.get(name, 0) for entry in entries]


def test_masks_and_scores_are_the_same_after_halving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_pictures(tmp_path / "pictures", 4)
    assert run(tmp_path, "plenty").code == 0
    monkeypatch.setattr(AutomaticSegmenter, "segment", only_one_by_one(AutomaticSegmenter.segment, 1))
    monkeypatch.setattr(scoring, "score_images", only_one_by_one(scoring.score_images, 0))
    short = run(tmp_path, "short")
    assert short.code == 0, short.stderr
    for stage in ("masks", "scores"):
        assert notes(tmp_path, "plenty", stage) == [0]
        assert notes(tmp_path, "short", stage) == [3], "four images are too many, and so are two, twice"
    for stage, keys in (
        ("masks", ("image_key", "mask_id", "rle_counts")),
        ("captions", ("image_key", "mask_id", "caption")),
    ):
        wanted, found = (rows_of(tmp_path / work, stage) for work in ("plenty", "short"))
        assert [[row[key] for key in keys] for row in found] == [[row[key] for key in keys] for row in wanted]
    for found, wanted in zip(
        rows_of(tmp_path / "short", "scores"), rows_of(tmp_path / "plenty", "scores"), strict=True
    ):
        assert (found["image_key"], found["mask_id"], found["noun"]) == (
            wanted["image_key"],
            wanted["mask_id"],
            wanted["noun"],
        )
        numbers = [float(row["correctness"]) for row in (found, wanted)]
        assert numbers[0] == pytest.approx(numbers[1], abs=SAME_NUMBERS, nan_ok=True)


def test_captions_are_the_same_after_the_chunk_of_rows_was_halved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_pictures(tmp_path / "pictures", 3)
    decode, largest = Decoder._decode_batch, 8

    def in_small_chunks(self: Decoder, groups: list[Any], chunk: int) -> Any:
        if chunk > largest:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")
        return decode(self, groups, chunk)

    assert run(tmp_path, "plenty").code == 0
    monkeypatch.setattr(Decoder, "_decode_batch", in_small_chunks)
    short = run(tmp_path, "short")
    assert short.code == 0, short.stderr
    assert notes(tmp_path, "plenty", "captions", "row_chunk_halved") == [0]
    [halved] = notes(tmp_path, "short", "captions", "row_chunk_halved")
    assert halved >= 5, "256, 128, 64, 32 and 16 are too many"
    versions = [Workspace(tmp_path / work).latest("captions").version for work in ("plenty", "short")]
    assert versions[0] == versions[1]
    wanted, found = (rows_of(tmp_path / work, "captions") for work in ("plenty", "short"))
    assert len(wanted) > 20
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.pop("logprob") == pytest.approx(theirs.pop("logprob"), abs=SAME_NUMBERS)
        assert ours == theirs


def test_an_image_too_large_for_the_device_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_pictures(tmp_path / "pictures", 2)
    segment = AutomaticSegmenter.segment

    def never_the_second(self: AutomaticSegmenter, images: list[Any]) -> Any:
        if len(images) > 1 or (images[0] == second).all():
            raise torch.OutOfMemoryError("CUDA out of memory")
        return segment(self, images)

    import numpy as np
    from PIL import Image

    second = np.asarray(Image.open(tmp_path / "pictures" / "001.png"))
    monkeypatch.setattr(AutomaticSegmenter, "segment", never_the_second)
    done = run(tmp_path, "work")
    assert done.code == 4
    listed = invoke("status", "--work", tmp_path / "work", "--failed").stdout
    assert listed.startswith("masks\t001.png\tfailed\tOutOfMemoryError: CUDA out of memory")
    assert {row["image_key"] for row in rows_of(tmp_path / "work", "masks")} == {"000.png"}
