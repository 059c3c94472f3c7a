"""From artifacts to records and files: every image in plan order with its ids, splits, candidates and pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from exported_work import REFS, Made, mask
from PIL import Image

from pseudoris_cli.errors import UsageError
from pseudoris_cli.export import read_back, splits
from pseudoris_cli.export.base import ExportCandidate, ExportImage, ExportObject, ExportSentence, ScoredMask
from pseudoris_cli.export.render import render_export, stream
from pseudoris_cli.records import Mask
from pseudoris_cli.sources.folder import Folder


def candidate(number: int, caption: str, *scores: float | None) -> dict[str, Any]:
    names = ("correctness", "uniqueness", "doc")
    told = {"candidate_id": number, "caption": caption, "crop": "masked", "sampler": "beam"}
    return told | dict(zip(names, scores, strict=True))


ONE, TWO = candidate(0, "one", 0.25, 1.5, 1.5), candidate(1, "two", 0.25, 1.5, 2.5)
THREE, ALONE = candidate(0, "three", 0.5, 1.0, 2.0), candidate(3, "alone", 0.75, None, None)
NO = candidate(0, "no", 0.125, 0.5, 0.5)


def expected(candidates: bool) -> list[ExportImage]:
    """The two images with kept captions, and with `candidates` the third, whose captions were all dropped."""

    def an_object(ref_id: int, m: Mask, category: tuple[int, str], *said: tuple[int, dict[str, Any]]) -> ExportObject:
        sentences = tuple(ExportSentence(sent_id=sent_id, **one) for sent_id, one in said)
        return ExportObject(ref_id=ref_id, ann_id=100 + ref_id, mask=m, sentences=sentences, category=category)

    def scored(m: Mask, *said: dict[str, Any]) -> ScoredMask:
        return ScoredMask(mask=m, candidates=tuple(ExportCandidate(**one) for one in said))

    other_id = splits.ImageIds()
    other_id.take("a.png", 5)
    dog, thing = (18, "dog"), (1, "object")
    first = an_object(1, mask(0), thing, (11, TWO), (12, ONE)), an_object(2, mask(1, dog), dog, (13, THREE))
    rows: list[tuple[int, int, str, Any, Any]] = [
        (0, 5, "a.png", first, (scored(mask(0), ONE, TWO), scored(mask(1, dog), THREE))),
        (
            1,
            other_id.take("b.png", 5),
            "_up/b.png",
            (an_object(3, mask(0), thing, (14, ALONE)),),
            (scored(mask(0), ALONE),),
        ),
        (2, 9, "c.png", (), (scored(mask(0), NO), scored(mask(1)))),
    ]
    return [
        ExportImage(
            image_key=REFS[number].key,
            image_id=image_id,
            file_name=name,
            width=8,
            height=6,
            split="train",
            objects=objects,
            candidates=candidates_of if candidates else (),
        )
        for number, image_id, name, objects, candidates_of in rows
        if objects or candidates
    ]


@pytest.mark.parametrize("candidates", [False, True])
def test_every_image_comes_with_its_ids_and_best_sentence_first(made: Made, candidates: bool) -> None:
    assert list(stream(made.job(), candidates)) == expected(candidates)


def test_splits_are_those_of_the_key(made: Made) -> None:
    text = "train=.5,val=.5"
    found = {image.image_key: image.split for image in stream(made.job(split=text), True)}
    assert found == {ref.key: splits.assign(ref.key, splits.parse(text)) for ref in REFS}


@pytest.mark.parametrize("lacking", [["masks"], ["export"], ["filter", "export"]])
def test_a_part_that_is_not_there_is_left_out(made: Made, lacking: list[str]) -> None:
    job = made.job()
    for stage in lacking:
        del job.manifests[stage].entries[0]
    given = [image.image_key for image in stream(job, False)]
    assert given == ["b.png"]


def test_what_is_exported_can_be_read_back(made: Made, tmp_path: Path) -> None:
    render_export(made.job(formats=("jsonl", "refcoco")), tmp_path / "out", False)
    images = expected(False)
    for found in (
        list(read_back.read_jsonl(tmp_path / "out" / "train.jsonl")),
        list(read_back.read_refer(tmp_path / "out" / "refcoco", "pseudo", "train")),
    ):
        assert found == [
            read_back.Referred(
                image.file_name, image.image_id, one.ref_id, one.mask.rle, tuple(s.caption for s in one.sentences)
            )
            for image in images
            for one in image.objects
        ]
    assert list(read_back.read_refer(tmp_path / "out" / "refcoco", "pseudo", "val")) == []


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"sentences": [{}]}'])
def test_a_damaged_line_of_an_export_is_named(made: Made, tmp_path: Path, line: str) -> None:
    render_export(made.job(), tmp_path / "out", False)
    path = tmp_path / "out" / "train.jsonl"
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(UsageError, match=r"train\.jsonl, line 4: is not a line of a jsonl export"):
        list(read_back.read_jsonl(path))


@pytest.mark.parametrize("mode", ["copy", "link"])
def test_pictures_are_copied_or_linked(made: Made, tmp_path: Path, mode: str) -> None:
    render_export(made.job(images=mode), tmp_path / "out", False)
    found = tmp_path / "out" / "images" / "train2014" / "_up" / "b.png"
    assert found.is_symlink() == (mode == "link")
    assert found.read_bytes() == (made.pictures / "b.png").read_bytes()
    if mode == "link":
        assert found.resolve() == (made.pictures / "b.png").resolve()


def test_a_picture_that_must_be_turned_is_never_linked(made: Made, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 8)).save(made.pictures / "a.png", exif=exif)
    render_export(made.job(images="link"), tmp_path / "out", False)
    folder = tmp_path / "out" / "images" / "train2014"
    assert not (folder / "a.png").is_symlink()
    with Image.open(folder / "a.png") as file:
        assert file.size == (8, 6)
        assert 0x0112 not in file.getexif()


def test_a_source_without_files_cannot_be_linked(made: Made, tmp_path: Path) -> None:
    packed = SimpleNamespace(read=Folder(made.pictures).read)
    with pytest.raises(UsageError, match=r"cannot be linked\. Use --images copy or none"):
        render_export(replace(made.job(images="link"), source=packed), tmp_path / "out", False)
