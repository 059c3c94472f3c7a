"""Parts: plain Parquet that others read, refused when damaged; the schema of every stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pseudoris_cli.errors import EnvironmentStop
from pseudoris_cli.storage import files
from pseudoris_cli.storage.parts import digest_of, read_header, read_part, write_part
from pseudoris_cli.storage.schema import COLUMNS, arrow_schema, from_table, to_table

SAMPLES: dict[pa.DataType, list[Any]] = {
    pa.string(): ["a", "ü\n"],
    pa.int32(): [1, -2],
    pa.int64(): [1 << 51, 0],
    pa.float32(): [0.5, -1.25],
    pa.bool_(): [True, False],
    pa.list_(pa.int32()): [[1, 2], [3, 4]],
    pa.list_(pa.float32()): [[1.5, 2, 3, 4], [0, 0, 1, 1]],
}


def columns_of(stage: str) -> dict[str, Any]:
    return {column.name: list(SAMPLES[column.type]) for column in COLUMNS[stage]}


@pytest.mark.parametrize("stage", list(COLUMNS))
def test_every_stage_reads_back_what_it_wrote(stage: str, tmp_path: Path) -> None:
    columns = columns_of(stage)
    made = write_part(tmp_path, "part-000000-g0-main.parquet", stage, columns, {"version": "v"})
    path = tmp_path / made.name
    assert (made.rows, made.bytes, made.sha256) == (2, path.stat().st_size, digest_of(path))
    assert [entry.name for entry in tmp_path.iterdir()] == [made.name]
    again = read_part(path, sha256=made.sha256)
    assert {name: list(values) for name, values in again.items()} == columns
    schema = pq.read_schema(path)
    assert schema.remove_metadata().equals(arrow_schema(stage))
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "ZSTD"


@pytest.mark.parametrize("stage", list(COLUMNS))
def test_a_part_without_rows_keeps_its_schema(stage: str, tmp_path: Path) -> None:
    made = write_part(tmp_path, "p", stage, {column.name: [] for column in COLUMNS[stage]}, {})
    assert pq.read_schema(tmp_path / made.name).remove_metadata().equals(arrow_schema(stage))
    assert all(len(values) == 0 for values in read_part(tmp_path / made.name).values())


def test_a_mask_may_have_no_category() -> None:
    columns = columns_of("masks") | {"category_id": [None, 18], "category": [None, "dog"]}
    back = from_table(to_table("masks", columns))
    assert [str(value) for value in back["category_id"]] == ["nan", "18.0"]
    assert back["category"] == [None, "dog"]


def test_null_stands_only_where_the_schema_says_so() -> None:
    columns = columns_of("scores")
    columns["doc"] = [None, float("nan")]
    columns["uniqueness"] = np.array([np.nan, 2], np.float32)
    table = to_table("scores", columns)
    assert table["doc"].null_count == 2
    assert table["uniqueness"].null_count == 1
    back = from_table(table)
    assert np.isnan(back["doc"]).all()
    for name, bad in (("noun", [None, "a"]), ("mask_id", [None, 1])):
        with pytest.raises(ValueError, match=f"column {name} may not be null"):
            to_table("scores", columns | {name: bad})


def test_a_column_too_few_or_too_many_is_refused() -> None:
    columns = columns_of("captions")
    with pytest.raises(ValueError, match="captions: columns"):
        to_table("captions", columns | {"extra": [1, 2]})
    columns.pop("caption")
    with pytest.raises(ValueError, match="captions: columns"):
        to_table("captions", columns)


def test_a_damaged_part_is_refused_wherever_the_damage_is(tmp_path: Path) -> None:
    made = write_part(tmp_path, "p", "captions", columns_of("captions"), {})
    path = tmp_path / "p"
    whole = path.read_bytes()
    damages = [whole[:cut] for cut in (0, 1, 4, len(whole) // 2, len(whole) - 1)]
    damages += [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(0, len(whole), 7)]
    for damaged in damages:
        path.write_bytes(damaged)
        with pytest.raises(EnvironmentStop, match="status --verify"):
            read_part(path, sha256=made.sha256)
    for damaged in damages[:5]:
        path.write_bytes(damaged)
        with pytest.raises(EnvironmentStop, match="status --verify"):
            read_part(path)
    path.unlink()
    with pytest.raises(EnvironmentStop, match="cannot be read"):
        read_part(path)


def test_the_same_header_in_another_order_gives_the_same_bytes(tmp_path: Path) -> None:
    """The digest of a part must not hang on the order in which settings were put together."""
    header = {"version": "v", "settings": {"b": 1, "a": 2}}
    turned = {"settings": {"a": 2, "b": 1}, "version": "v"}
    made = [write_part(tmp_path, str(n), "masks", columns_of("masks"), h) for n, h in enumerate([header, turned])]
    assert made[0].sha256 == made[1].sha256


@pytest.mark.parametrize("step", ["write_temporary", "sync_file", "publish"])
def test_an_error_before_publishing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def fail(*arguments: Any) -> None:
        raise OSError("no")

    monkeypatch.setattr(files, step, fail)
    with pytest.raises(OSError, match="no"):
        write_part(tmp_path, "p", "captions", columns_of("captions"), {})
    assert list(tmp_path.iterdir()) == []


def test_a_parquet_file_of_others_has_no_header(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "theirs")
    assert read_header(tmp_path / "theirs") == {}
