"""What an export takes: subsets, the first images, large masks, lists as splits; and the judge's references to several or none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from exported_work import Made

from pseudoris_cli.errors import UsageError
from pseudoris_cli.export.choice import Choice
from pseudoris_cli.export.image_stream import FIRST_EXTRA_ID
from pseudoris_cli.export.render import ExportJob, render_export, stream
from pseudoris_cli.export.splits import Splits, read_names
from pseudoris_cli.settings.models import ExportSettings, Settings
from pseudoris_cli.stages import export_index


def keys(job: ExportJob, candidates: bool = False) -> list[str]:
    return [image.image_key for image in stream(job, candidates)]


def test_a_subset_in_plan_order(made: Made) -> None:
    assert keys(made.job(choice=Choice(subset=frozenset({"b.png"})))) == ["b.png"]
    assert keys(made.job(choice=Choice(subset=frozenset({"c.png", "b.png"}))), True) == ["b.png", "c.png"]


def test_a_subset_with_an_unknown_name_is_refused_before_anything_is_read(made: Made) -> None:
    with pytest.raises(
        UsageError, match=r"--subset: 2 of its 3 names are no image of this work directory \(x.png, y.png\)"
    ):
        keys(made.job(choice=Choice(subset=frozenset({"a.png", "y.png", "x.png"}))))


def test_the_first_images_that_have_something(made: Made) -> None:
    assert keys(made.job(choice=Choice(max_images=1))) == ["a.png"]
    assert keys(made.job(choice=Choice(subset=frozenset({"b.png"}), max_images=1))) == ["b.png"]


@pytest.mark.parametrize("area", [7.0, 7 / 48])
def test_small_masks_are_left_out_by_pixels_or_by_fraction(made: Made, area: float) -> None:
    """The masks have 6 and 9 pixels of 48; the index keeps the ids."""
    full = {
        o.mask.mask_id: o for image in stream(made.job(), True) for o in image.objects if image.image_key == "a.png"
    }
    [image] = list(stream(made.job(choice=Choice(min_area=area)), False))
    assert image.objects == (full[1],)
    assert [len(one.candidates) for one in stream(made.job(choice=Choice(min_area=area)), True)] == [1, 1]


def test_equal_choices_are_one_export_and_others_are_not(made: Made, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert render_export(made.job(), out, False)
    for choice in (Choice(subset=frozenset({"a.png"})), Choice(max_images=1), Choice(min_area=7)):
        assert render_export(made.job(choice=choice), out, False)
        assert not render_export(made.job(choice=replace(choice)), out, False)
        assert len((out / "train.jsonl").read_text().splitlines()) < 3


def test_only_formats_that_follow_an_option_are_made_again_for_it(made: Made) -> None:
    def identity(**values: Any) -> dict[str, Any]:
        return made.job(**values).identity

    assert identity(segmentation="rle") == identity()
    assert identity(formats=("refcoco",)) != identity(formats=("refcoco",), segmentation="rle")
    assert "segmentation" not in identity(formats=("refcoco",), segmentation="rle"), "exports of before stay"
    assert identity(shard_mb=3) == identity()
    assert identity(formats=("webdataset",), shard_mb=3) != identity(formats=("webdataset",))
    assert identity(formats=("sa2va",), sentences="all") != identity(formats=("sa2va",))


def lists(folder: Path, **names: str) -> str:
    for name, text in names.items():
        (folder / f"{name}.txt").write_text(text)
    return ",".join(f"{name}={folder / name}.txt" for name in names)


def test_lists_are_splits(made: Made, tmp_path: Path) -> None:
    text = lists(tmp_path, val="# two\nb.png\n\n  c.png \n")
    assert {image.image_key: image.split for image in stream(made.job(split=text), True)} == {
        "b.png": "val",
        "c.png": "val",
    }
    splits = {image.image_key: image.split for image in stream(made.job(split=f"{text},train=*"), True)}
    assert splits == {"a.png": "train", "b.png": "val", "c.png": "val"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("val={0}/val.txt,train=.9", "write a file for each split, and [*] for one of them at most"),
        ("val={0}/val.txt,train=*,test=*", "and [*] for one of them at most"),
        ("val={0}/val.txt,val=*", "val is named twice"),
        ("dev={0}/val.txt", "'dev' is no split"),
        ("val={0}/val.txt,train={0}/twin.txt", "b.png is in the lists of both val and train"),
        ("val={0}/empty.txt", "names no image"),
        ("val={0}/absent.txt", "or an existing list file"),
    ],
)
def test_what_is_wrong_with_lists_is_named(tmp_path: Path, text: str, message: str) -> None:
    lists(tmp_path, val="b.png", twin="a.png\nb.png", empty="# nothing\n")
    with pytest.raises(UsageError, match=message):
        Splits(text.format(tmp_path))


def test_a_list_that_names_none_of_the_images_is_no_silent_empty_split(made: Made, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no image is in .*val\.txt"):
        render_export(made.job(split=lists(tmp_path, val="pictures/a.png") + ",train=*"), tmp_path / "out", False)
    assert not (tmp_path / "out").exists()


def test_another_list_is_another_index_and_another_export(made: Made, tmp_path: Path) -> None:
    def index(text: str) -> dict[str, Any]:
        return export_index.version_content(Settings(export=ExportSettings(split=text)))

    text = lists(tmp_path, val="b.png") + ",train=*"
    before, job = index(text), made.job(split=text).identity
    assert before == index(text)
    lists(tmp_path, val="a.png")
    assert before != index(text)
    assert job != made.job(split=text).identity
    assert set(index("train=1")) == {"revision", "settings"}


def test_a_list_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--subset .*absent\.txt cannot be read: No such file"):
        read_names(tmp_path / "absent.txt", "--subset")


def judged(folder: Path, rows: list[tuple[int, int, str, list[int] | None]]) -> Any:
    """A manifest of the judge stage whose first part holds these rows (mask, candidate, caption, targets) of a.png."""
    columns = [list(column) for column in zip(*rows, strict=True)]
    table = pa.table(
        {
            "image_key": ["a.png"] * len(rows),
            "mask_id": pa.array(columns[0], pa.int32()),
            "candidate_id": pa.array(columns[1], pa.int32()),
            "caption": columns[2],
            "listener_targets": pa.array(columns[3], pa.list_(pa.int32())),
        }
    )
    path = folder / "judge.parquet"
    pq.write_table(table, path)
    entry = SimpleNamespace(file=SimpleNamespace(sha256="d" * 64))
    return SimpleNamespace(entries={0: entry}, path_of=lambda entry: path)


def test_the_judge_gives_references_to_several_objects_and_to_none(made: Made, tmp_path: Path) -> None:
    rows = [
        (0, 0, "one", [0]),  # single: the filter decides
        (0, 1, "both", [1, 0]),
        (1, 0, "both", [0, 1]),  # the same once more
        (1, 1, "the two", [0, 1]),
        (0, 2, "not its own", [1, 2]),
        (0, 3, "unasked", None),
        (0, 4, "nothing", []),  # of this image's own candidates: the filter drops it
        (-1, 0, "a zebra", []),
    ]
    job = made.job(formats=("grefcoco",))
    job.manifests["judge"] = judged(tmp_path, rows)
    first, second = stream(job, False, references=True)
    assert second.more_references == ()
    several, none = first.more_references
    assert [one.ann_id for one in several.objects] == [one.ann_id for one in first.objects] == [101, 102]
    assert [one.caption for one in several.sentences] == ["both", "the two"]
    assert (none.objects, [one.caption for one in none.sentences]) == ((), ["a zebra"])
    ids = [several.ref_id, none.ref_id, *(s.sent_id for r in first.more_references for s in r.sentences)]
    assert len(set(ids)) == len(ids)
    assert min(ids) >= FIRST_EXTRA_ID
    assert [image.more_references for image in stream(job, False)] == [(), ()], "other formats do not get them"
    assert job.identity != made.job(formats=("grefcoco",)).identity


def test_a_target_without_kept_captions_becomes_an_object(made: Made, tmp_path: Path) -> None:
    made_of_c = judged(tmp_path, [(0, 0, "both", [0, 1])])
    table = pq.read_table(tmp_path / "judge.parquet").set_column(0, "image_key", [["c.png"]])
    pq.write_table(table, tmp_path / "judge.parquet")
    job = made.job(formats=("grefcoco",))
    job.manifests["judge"] = SimpleNamespace(entries={2: made_of_c.entries[0]}, path_of=made_of_c.path_of)
    image = list(stream(job, False, references=True))[-1]
    assert (image.image_key, image.objects) == ("c.png", ())
    [reference] = image.references
    assert [one.mask.mask_id for one in reference.objects] == [0, 1]
    assert len({one.ann_id for one in image.targets}) == 2
    assert all(one.sentences == () for one in image.targets)
    small = replace(job, choice=Choice(min_area=7))
    assert [one.image_key for one in stream(small, False, references=True)] == ["a.png"], "one target is too small"
