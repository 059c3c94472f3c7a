"""What is left to do: the tasks handed to a stage, and when a part counts as done, changed or lacking."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from trivial_stages import Bench, paint, paint_folder

from pseudoris_cli.errors import UsageError
from pseudoris_cli.execution.backlog import Backlog, _has_changed, killed_alone
from pseudoris_cli.execution.crash_log import KILLED_ALONE
from pseudoris_cli.execution.tasks import Selection, UpstreamPart
from pseudoris_cli.sources.base import Stamp
from pseudoris_cli.sources.folder import Folder
from pseudoris_cli.storage.manifest import ImageOutcome, Manifest, PartFile


@pytest.fixture
def bench(ram_path: Path) -> Bench:
    """Ten images in three parts, one of them empty and one broken; the masks are made."""
    bench = Bench(ram_path / "work", paint_folder(ram_path / "images", 10))
    bench.masks()
    return bench


def masks_of(bench: Bench) -> Manifest:
    return bench.workspace.latest("masks").manifest()


def backlog_of(bench: Bench, stage: str = "captions", with_source: bool = True) -> Backlog:
    before = {} if stage == "masks" else {"masks": masks_of(bench)}
    reads = () if stage == "masks" else ("masks",)
    made = Backlog(stage, bench.workspace.plan(), before, reads, Folder(bench.images) if with_source else None)
    made.manifest = masks_of(bench) if stage == "masks" else Manifest(bench.work)
    return made


def names(*numbers: int) -> list[str]:
    return [f"{number:03d}.png" for number in numbers]


def test_a_task_names_its_images_and_what_they_were_made_from(bench: Bench) -> None:
    entry = masks_of(bench).entries[1]
    [task] = backlog_of(bench).tasks([1])
    assert task.part == 1
    assert [ref.key for ref in task.images] == names(4, 5, 6, 7)
    assert task.wanted == set(names(4, 6, 7)), "only images with masks are read"
    assert task.absent == {"005.png": "masks: not an image of a known format"}
    assert task.upstream == {"masks": UpstreamPart(masks_of(bench).path_of(entry), entry.file.sha256)}
    assert task.upstream_digest == entry.file.sha256
    assert task.digests == {
        name: hashlib.sha256((bench.images / name).read_bytes()).hexdigest() for name in names(4, 5, 6, 7)
    }
    assert (task.start, task.skipped) == ({}, {})
    assert [task.part for task in backlog_of(bench).tasks([2, 0])] == [2, 0]


def test_a_failure_is_told_through_all_stages(bench: Bench) -> None:
    """An image without masks is empty for every stage after them, and each says why."""
    bench.captions()
    captions = bench.workspace.latest("captions").manifest()
    backlog = Backlog("scores", bench.workspace.plan(), {"masks": masks_of(bench), "captions": captions})
    [task] = backlog.tasks([1])
    assert task.absent == {"005.png": "captions: masks: not an image of a known format"}
    assert task.upstream_digest == captions.entries[1].file.sha256
    without = Backlog("scores", bench.workspace.plan(), {"masks": masks_of(bench)})
    assert without.upstream_stage == "masks", "the nearest stage that is part of the run"


def test_an_empty_image_is_not_read_again_and_no_failure(bench: Bench) -> None:
    [task] = backlog_of(bench).tasks([0])
    assert task.wanted == set(names(0, 1, 2))
    assert task.absent == {}


def test_a_stage_that_reads_rows_only_wants_no_images(bench: Bench) -> None:
    [task] = backlog_of(bench, with_source=False).tasks([1])
    assert task.wanted == set()
    assert task.digests == {}
    assert task.absent == {"005.png": "masks: not an image of a known format"}
    assert list(task.upstream) == ["masks"]


def test_the_first_stage_reads_every_image_and_has_nothing_before_it(bench: Bench) -> None:
    backlog = backlog_of(bench, "masks")
    [task] = backlog.tasks([0])
    assert task.wanted == set(names(0, 1, 2, 3))
    assert (task.upstream, task.upstream_digest, task.absent, task.digests) == ({}, None, {}, {})
    assert backlog.upstream_entry(0) is None
    assert backlog.check_upstream(Selection()) == 0


def test_a_stage_that_numbers_its_rows_depends_on_its_first_numbers(bench: Bench) -> None:
    """Where sentences before a part come or go, its ids are others, so it is made again."""
    backlog = backlog_of(bench)
    backlog.starts = {1: {"refs": 7, "sentences": 12}}
    [first, second] = backlog.tasks([0, 1])
    digests = {part: entry.file.sha256 for part, entry in masks_of(bench).entries.items()}
    assert first.upstream_digest == digests[0]
    assert second.upstream_digest == f"{digests[1]}+7+12"
    assert (first.start, second.start) == ({}, {"refs": 7, "sentences": 12})


def test_parts_are_listed_with_the_digest_they_were_made_from(bench: Bench) -> None:
    bench.captions()
    found = bench.workspace.latest("captions").manifest().entries
    assert {part: entry.upstream for part, entry in found.items()} == {
        part: entry.file.sha256 for part, entry in masks_of(bench).entries.items()
    }


def test_pending_parts_are_those_of_the_shard_with_masks_in_order(bench: Bench) -> None:
    manifest = masks_of(bench)
    assert backlog_of(bench).pending(Selection()) == [0, 1, 2]
    assert backlog_of(bench).pending(Selection(shard=(1, 2))) == [1]
    manifest.path_of(manifest.entries[1]).unlink()
    backlog = backlog_of(bench)
    assert backlog.pending(Selection()) == [0, 2]
    assert backlog.check_upstream(Selection(allow_partial=True)) == 1
    with pytest.raises(UsageError, match=r"^masks is incomplete: 1 of 3 parts are .*run `pseudoris masks` first"):
        backlog.check_upstream(Selection())
    assert backlog.check_upstream(Selection(shard=(0, 2))) == 0
    with pytest.raises(UsageError, match=r"^masks is incomplete: 1 of this shard's 1 parts are missing"):
        backlog.check_upstream(Selection(shard=(1, 2)))
    assert backlog_of(bench, "masks").pending(Selection()) == [1]


def test_changed_images_are_counted_before_anything_is_made_from_them(bench: Bench) -> None:
    paint(bench.images / "001.png", 91)
    paint(bench.images / "008.png", 92)
    backlog = backlog_of(bench)
    backlog.check_images([1], Selection())
    with pytest.raises(UsageError, match=r"^1 image changed since the masks were made"):
        backlog.check_images([0], Selection())
    with pytest.raises(UsageError, match=r"^2 images changed since the masks were made"):
        backlog.check_images([0, 1, 2], Selection())
    backlog.check_images([0, 1, 2], Selection(allow_partial=True))
    backlog_of(bench, with_source=False).check_images([0, 1, 2], Selection())
    assert backlog_of(bench, "masks").pending(Selection()) == [0, 2]


def test_failures_are_retried_only_on_demand_and_vanished_images_once_they_are_back(bench: Bench) -> None:
    assert backlog_of(bench, "masks").pending(Selection(retry_failed=True)) == [1]
    assert backlog_of(bench, "masks", with_source=False).pending(Selection(retry_failed=True)) == [1]
    data = (bench.images / "009.png").read_bytes()
    (bench.images / "009.png").unlink()
    bench.captions()
    done = bench.workspace.latest("captions").manifest()
    for retry, there, expected in ((False, True, []), (True, False, []), (True, True, [2])):
        if there:
            (bench.images / "009.png").write_bytes(data)
        else:
            (bench.images / "009.png").unlink(missing_ok=True)
        backlog = backlog_of(bench)
        backlog.manifest = done
        assert backlog.pending(Selection(retry_failed=retry)) == expected
    rows_only = replace(backlog, source=None)
    rows_only.manifest = done
    assert rows_only.pending(Selection(retry_failed=True)) == []


@dataclass
class ToldOf:
    """A part's entry as far as its images matter."""

    images: list[ImageOutcome]

    @property
    def counts(self) -> dict[str, int]:
        return {"failed": sum(image.status == "failed" for image in self.images)}


def test_given_up_are_failures_that_killed_the_process_and_no_others() -> None:
    alone = ImageOutcome("a", "failed", error=f"{KILLED_ALONE} (signal 9)")
    others = [
        ImageOutcome("b", "failed", error="not an image of a known format"),
        ImageOutcome("c", "failed"),
        ImageOutcome("d", "done", 3),
        ImageOutcome("e", "gone", error=f"{KILLED_ALONE}, and then it went"),
    ]
    assert killed_alone(ToldOf([*others, alone])) == [alone]  # type: ignore[arg-type]
    assert killed_alone(ToldOf(others)) == []  # type: ignore[arg-type]


def test_a_vanished_image_is_told_of_even_without_a_reason(bench: Bench) -> None:
    backlog = backlog_of(bench)
    entry = backlog.before["masks"].entries[1]
    lost = replace(entry.images[0], status="gone", rows=0, error=None)
    backlog.lineage.entry = lambda stage, part: ToldOfPart(entry.file, [lost, *entry.images[1:]])  # type: ignore
    [task] = backlog.tasks([1])
    assert task.absent[lost.key] == "masks: None"


@dataclass
class ToldOfPart:
    """A part's entry with other images."""

    file: PartFile
    images: list[ImageOutcome]


@dataclass
class OneImage:
    """A source with one image, or none; says whether it was read."""

    data: bytes | None
    mtime_ns: int = 5
    broken: bool = False
    reads: list[str] = field(default_factory=list)

    def stamp(self, key: str) -> Stamp | None:
        return None if self.data is None else Stamp(len(self.data), self.mtime_ns)

    def read(self, key: str) -> bytes:
        self.reads.append(key)
        if self.broken or self.data is None:
            raise OSError("unplugged")
        return self.data


RECORDED = ImageOutcome("a.png", "done", 1, None, 3, 5, hashlib.sha256(b"abc").hexdigest())


@pytest.mark.parametrize(
    ("source", "recorded", "changed", "reads"),
    [
        (OneImage(b"abc"), RECORDED, False, 0),  # untouched: not even read
        (OneImage(b"xyz"), RECORDED, False, 0),  # size and mtime decide first
        (OneImage(b"abc", mtime_ns=6), RECORDED, False, 1),  # touched
        (OneImage(b"xyz", mtime_ns=6), RECORDED, True, 1),
        (OneImage(b"abcd"), RECORDED, True, 1),
        (OneImage(None), RECORDED, False, 0),  # gone: what was made from it stays
        (OneImage(b"abc", mtime_ns=6, broken=True), RECORDED, False, 1),  # nobody knows
        (OneImage(b"abc"), ImageOutcome("a.png", "gone"), True, 0),  # there again
        (OneImage(b"abc"), ImageOutcome("a.png", "failed", 0, "unreadable", 3, 5), False, 0),
        (OneImage(b"abc", mtime_ns=6), ImageOutcome("a.png", "failed", 0, "unreadable", 3, 5), True, 0),
    ],
)
def test_an_image_has_changed_if_its_bytes_have(
    source: OneImage, recorded: ImageOutcome, changed: bool, reads: int
) -> None:
    assert _has_changed(recorded, source) is changed  # type: ignore[arg-type]
    assert len(source.reads) == reads


def test_a_part_of_another_size_is_made_again(bench: Bench) -> None:
    manifest = masks_of(bench)
    os.truncate(manifest.path_of(manifest.entries[2]), 10)
    assert backlog_of(bench, "masks").pending(Selection()) == [2]
    assert backlog_of(bench).upstream_entry(2) is None
