"""Several work directories become one: parts, keys, digests, what may not be merged, and an export of it all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from invoking import invoke, rows_of
from work_maker import WorkMaker

from pseudoris_cli.errors import UsageError
from pseudoris_cli.sources import registry as sources
from pseudoris_cli.sources.merged import Merged
from pseudoris_cli.storage.lineage import Lineage
from pseudoris_cli.storage.merge import merge, open_sites
from pseudoris_cli.storage.workspace import Workspace


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> tuple[WorkMaker, WorkMaker]:
    """Six and three scenes; the three are among the six."""
    folder = tmp_path_factory.mktemp("sites")
    first, second = WorkMaker(folder / "a", 6, seed=1), WorkMaker(folder / "b", 3, seed=2)
    for maker in (first, second):
        maker.all()
    return first, second


def test_everything_is_there_in_order_and_nothing_is_left_to_do(works, tmp_path):
    roots = [maker.workspace.root for maker in works]
    sites = open_sites(roots)
    assert [site.label for site in sites] == ["work", "work-1"]
    out = Workspace(tmp_path / "all")
    merged = merge(out, sites)
    assert (merged.parts, merged.images, merged.duplicate_images) == (3, 9, 3)
    assert merged.duplicates[0] == ("work-1/000000.png", "work/000000.png")
    assert [image.key for image in out.plan().all_images()] == [
        f"{site.label}/{image.key}" for site in sites for image in site.workspace.plan().all_images()
    ]
    for stage in ("masks", "captions", "scores", "filter"):
        both = [
            row | {"image_key": f"{site.label}/{row['image_key']}"}
            for site in sites
            for row in rows_of(site.workspace.root, stage)
        ]
        found = rows_of(out.root, stage)
        assert [{k: v for k, v in row.items() if k != "file_name"} for row in found] == [
            {k: v for k, v in row.items() if k != "file_name"} for row in both
        ]
        assert out.latest(stage).version == sites[0].workspace.latest(stage).version
    chain = out.chain(out.latest("filter"))
    lineage = Lineage({stage: one.manifest() for stage, one in chain.items()})
    assert all(lineage.entry("filter", part) for part in range(3))
    source = sources.open_source(out.source())
    assert isinstance(source, Merged)
    assert [image.key for image in source.images()] == [image.key for image in out.plan().all_images()]
    assert source.read("work-1/000001.png") == (works[1].images / "000001.png").read_bytes()
    assert source.stamp("work-1/999.png") is None
    assert source.stamp("nowhere/1.png") is None


def test_an_export_of_it_has_ids_of_its_own(works, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "pseudoris_cli.pipeline.exporting.weights_provenance", lambda headers: []
    )  # made-up versions name no backends
    roots = [maker.workspace.root for maker in works]
    done = invoke("merge", tmp_path / "all", *roots)
    assert done.code == 0, done.stderr
    assert "9 images in 3 parts from work, work-1" in done.stdout
    assert "3 images have the bytes of an earlier one and are kept:" in done.stdout
    for work, out in [*((root, f"one{number}") for number, root in enumerate(roots)), (tmp_path / "all", "together")]:
        exported = invoke("export", "--work", work, "--out", tmp_path / out, "--format", "jsonl", "--images", "copy")
        assert exported.code == 0, exported.stderr

    def lines(name: str) -> list[dict]:
        return [json.loads(line) for line in (tmp_path / name / "train.jsonl").read_text().splitlines()]

    together, apart = lines("together"), [*lines("one0"), *lines("one1")]
    assert [line["ref_id"] for line in together] == list(range(1, len(apart) + 1))
    assert len({line["image_id"] for line in together}) == len({line["image_key"] for line in together})
    assert [line["segmentation"] for line in together] == [line["segmentation"] for line in apart]
    assert [[s["caption"] for s in line["sentences"]] for line in together] == [
        [s["caption"] for s in line["sentences"]] for line in apart
    ]
    assert all((tmp_path / "together/images/train2014" / line["file_name"]).is_file() for line in together)


def test_other_settings_are_refused_with_the_stage(works, tmp_path):
    other = WorkMaker(tmp_path / "c", 2)
    masks = other.masks(checkpoint="another")
    other.filter(other.scores(other.captions(masks)))
    with pytest.raises(UsageError, match=r"was made with other settings than .*: .*masks.* differ"):
        open_sites([works[0].workspace.root, other.workspace.root])


def test_what_is_unfinished_or_no_work_directory_or_named_twice_is_refused(works, tmp_path):
    root = works[0].workspace.root
    with pytest.raises(UsageError, match="named twice"):
        open_sites([root, root])
    with pytest.raises(UsageError, match="is no work directory"):
        open_sites([root, tmp_path])
    broken = WorkMaker(tmp_path / "d", 6)
    broken.all()
    next((broken.workspace.root / "scores").glob("*/part-000001*")).unlink()
    with pytest.raises(UsageError, match=r"1 of 2 parts of filter .* are missing or do not hold together"):
        open_sites([root, broken.workspace.root])


def test_an_existing_folder_is_left_alone(works, tmp_path):
    (tmp_path / "file").write_text("mine")
    done = invoke("merge", tmp_path, *(maker.workspace.root for maker in works))
    assert done.code == 2
    assert "is not empty; merge into a new folder" in done.stderr
    assert [path.name for path in Path(tmp_path).iterdir()] == ["file"]
    assert invoke("merge", tmp_path / "x", works[0].workspace.root).code == 2
