"""The index of an export: ids from 1, over all parts of the plan, that neither a limit of captions nor new images disturb."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from trivial_stages import Silent, rows

from pseudoris_cli.execution.backlog import Backlog
from pseudoris_cli.execution.engine_inprocess import InProcess
from pseudoris_cli.execution.runner import Job, run
from pseudoris_cli.execution.signals import graceful_stop
from pseudoris_cli.execution.tasks import PartInput, PartTask, Selection
from pseudoris_cli.records import ImageRef
from pseudoris_cli.settings.models import ExportSettings, FilterSettings
from pseudoris_cli.stages import export_index
from pseudoris_cli.stages.filter import FilterWorker
from pseudoris_cli.storage.manifest import ImageOutcome, ManifestWriter
from pseudoris_cli.storage.schema import COLUMNS, SCHEMA_VERSION
from pseudoris_cli.storage.workspace import Workspace

Masks = list[list[tuple[str, float]]]
"""The candidates of each mask of an image: text and DoC; those above 1.2 are kept."""

IMAGES: dict[str, Masks] = {
    "a.png": [[("dog", 2.0), ("old dog", 3.0), ("animal", 0.5), ("brown dog", 2.5)], [("thing", 0.9)], [("cat", 4.0)]],
    "b.png": [[("left car", 1.5), ("car", 1.3)], [("right car", 1.6)]],
    "c.png": [[("it", 0.1)], [("that", 0.2)]],
    "d.png": [[("roof", 1.4), ("red roof", 1.9), ("a roof", 1.8)], [("tree", 2.0), ("green tree", 2.1)]],
    "e.png": [[("sea", 1.3)], [("sky", 1.5), ("blue sky", 1.7)]],
}
"""One image a part: three, three, none, five and three sentences for two, two, none, two and two masks."""


def filtered(ref: ImageRef, masks: Masks) -> tuple[dict[str, Any], dict[str, Any]]:
    """The columns and the notes that the filter stage makes of an image."""
    plain = {column.name: None for stage in ("captions", "scores") for column in COLUMNS[stage]}
    made = [
        plain
        | {"image_key": ref.key, "image_id": ref.image_id, "mask_id": mask_id, "candidate_id": number}
        | {"caption": text, "crop": "masked", "sampler": "beam", "logprob": -1.0, "tokens": 4}
        | {"noun": "x", "correctness": 0.3, "uniqueness": 1.0, "doc": doc, "flags": ""}
        for mask_id, candidates in enumerate(masks)
        for number, (text, doc) in enumerate(candidates)
    ]
    columns = {
        stage: {column.name: [row[column.name] for row in made] for column in COLUMNS[stage]}
        for stage in ("captions", "scores")
    }
    task = PartTask(0, (ref,), frozenset(), {}, None)
    result = FilterWorker(FilterSettings(min_doc=1.2), {}).run(PartInput(task, iter(()), columns))
    return result.columns, result.notes


def filter_parts(workspace: Workspace, images: dict[str, Masks]) -> None:
    """Plan the images that are new, one a part, and filter them."""
    plan = workspace.plan()
    plan.extend([ImageRef(key, number + 1, key) for number, key in enumerate(images)], 1)
    artifact = workspace.open_version("filter", {"schema": SCHEMA_VERSION, "upstream": None, "plan": "plan.jsonl"}, {})
    with ManifestWriter(artifact.folder, "filter", "main", {}) as writer:
        for part in range(len(plan)):
            if part not in writer.manifest.entries:
                [ref] = plan.images(part)
                columns, notes = filtered(ref, images[ref.key])
                outcome = ImageOutcome(ref.key, "done", len(columns["caption"]))
                writer.commit(part, columns, [outcome], None, notes, 0.0)


def index(workspace: Workspace, max_captions: int | None = None) -> int:
    """Run the export stage as `pseudoris export` does; returns how many parts it did."""
    upstream = workspace.latest("filter")
    content = {"schema": SCHEMA_VERSION, "upstream": upstream.version, "plan": "plan.jsonl", "most": max_captions}
    artifact = workspace.open_version("export", content, {})
    spec = export_index.Spec(ExportSettings(max_captions=max_captions))
    before, plan = {"filter": upstream.manifest()}, workspace.plan()
    starts = spec.running_totals(plan, before)
    backlog = Backlog("export", plan, before, ("filter",), None, starts=starts)
    with graceful_stop() as stopper:
        job = Job(artifact, spec, backlog, Selection(), InProcess(None), artifact.header)
        return run(job, Silent(), stopper).parts


def ids(workspace: Workspace) -> list[tuple[int, int, str]]:
    """(ref_id, sent_id, caption) of every row in plan order."""
    found = rows(workspace.root, "export")
    assert all(row["ann_id"] == row["ref_id"] for row in found)
    return [(row["ref_id"], row["sent_id"], row["caption"]) for row in found]


@pytest.fixture
def workspace(ram_path: Path) -> Workspace:
    """Five images, each a part of its own, up to the filter stage."""
    made = Workspace(ram_path / "work")
    made.create()
    filter_parts(made, IMAGES)
    return made


ALL = [
    (1, 1, "old dog"),
    (1, 2, "brown dog"),
    (1, 3, "dog"),
    (2, 4, "cat"),
    (3, 5, "left car"),
    (3, 6, "car"),
    (4, 7, "right car"),
    (5, 8, "red roof"),
    (5, 9, "a roof"),
    (5, 10, "roof"),
    (6, 11, "green tree"),
    (6, 12, "tree"),
    (7, 13, "sea"),
    (8, 14, "blue sky"),
    (8, 15, "sky"),
]


def test_ids_start_at_1_and_go_on_through_all_parts(workspace: Workspace) -> None:
    """Refs count masks with a kept caption and sentences count kept captions, best first within a mask."""
    index(workspace)
    assert ids(workspace) == ALL


def test_a_limit_of_captions_leaves_every_id_as_it_is(workspace: Workspace) -> None:
    index(workspace, max_captions=1)
    assert ids(workspace) == [ALL[n] for n in (0, 3, 4, 6, 7, 10, 12, 13)]
    index(workspace, max_captions=2)
    assert ids(workspace) == [row for row in ALL if row[1] not in (3, 10)]


def test_new_images_come_after_those_that_are_there(workspace: Workspace) -> None:
    index(workspace)
    filter_parts(workspace, IMAGES | {"f.png": [[("hat", 1.5), ("grey hat", 2.0)], [("coat", 1.3)]]})
    assert index(workspace) == 1
    assert ids(workspace) == [*ALL, (9, 16, "grey hat"), (9, 17, "hat"), (10, 18, "coat")]


def test_the_same_ids_whether_the_plan_grew_or_not(ram_path: Path, workspace: Workspace) -> None:
    grown = Workspace(ram_path / "grown")
    grown.create()
    for count in (2, 5):
        filter_parts(grown, dict(list(IMAGES.items())[:count]))
        index(grown)
    index(workspace)
    assert ids(grown) == ids(workspace) == ALL


def test_images_without_a_kept_caption_are_answered_and_have_no_rows(workspace: Workspace) -> None:
    index(workspace)
    entries = workspace.latest("export").manifest().entries
    outcomes = [image for _, entry in sorted(entries.items()) for image in entry.images]
    assert [(image.key, image.status, image.rows) for image in outcomes] == [
        ("a.png", "done", 4),
        ("b.png", "done", 3),
        ("c.png", "empty", 0),
        ("d.png", "done", 5),
        ("e.png", "done", 3),
    ]
