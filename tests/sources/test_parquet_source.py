"""Parquet files of images: which column, which files, which keys; damage costs its own rows only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from odd_images import RGB, save
from packed import write_parquet, write_tar

from pseudoris_cli.errors import UsageError
from pseudoris_cli.sources import parquet, registry
from pseudoris_cli.sources.parquet import ParquetFiles

PNG = save(RGB, "PNG")


def rows(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [{"bytes": b"%d" % number, "path": f"{number}.jpg"} for number in range(first, first + count)]


def opened(root: Path | str, **options: str) -> ParquetFiles:
    source = registry.open_source(registry.describe(root, options, None))
    assert isinstance(source, ParquetFiles)
    return source


def read_all(source: ParquetFiles) -> dict[str, bytes | str]:
    """Every picture by key, or why it cannot be read."""
    found: dict[str, bytes | str] = {}
    for image in source.images():
        assert image.key not in found
        try:
            found[image.key] = source.read(image.key)
        except OSError as error:
            found[image.key] = str(error)
    return found


def test_keys_are_file_row_group_row_and_path(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", rows(5), group=2)
    assert read_all(opened(tmp_path / "a.parquet")) == {
        f"a.parquet/{n // 2}/{n % 2}/{n}.jpg": b"%d" % n for n in range(5)
    }


def test_a_snapshot_of_the_hub_is_recognised(tmp_path: Path) -> None:
    """As huggingface_hub lays it out: links to blobs, a README beside the data, one file for each split."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    (snapshot / "data").mkdir(parents=True)
    (snapshot / "README.md").write_text("---\n")
    for number, name in enumerate(["train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"]):
        write_parquet(blobs / f"{number}.parquet", rows(2, 10 * number))
        (blobs / f"{number}.parquet").rename(blobs / str(number))
        (snapshot / "data" / f"{name}.parquet").symlink_to(f"../../../blobs/{number}")
    assert registry.identify(snapshot)["kind"] == "parquet"
    assert list(read_all(opened(snapshot)).values()) == [b"0", b"1", b"10", b"11"]
    assert list(read_all(opened(snapshot, split="test")).values()) == [b"20", b"21"]
    assert len(read_all(opened(snapshot, split="all"))) == 6
    with pytest.raises(UsageError, match=r"no split 'val'; it has test, train, or all"):
        list(opened(snapshot, split="val").images())


def test_folders_as_splits_and_no_split_by_chance(tmp_path: Path) -> None:
    found = parquet.splits(
        ["default/train/0000.parquet", "default/test/0000.parquet", "a.parquet", "b-00000-of-00001.parquet"]
    )
    assert list(found.values()) == ["train", "test", "train", "b"]
    write_parquet(tmp_path / "data" / "validation-00000-of-00001.parquet", rows(1))
    write_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", rows(1))
    with pytest.raises(UsageError, match="has the splits test, validation; say which with --source-split, or all"):
        opened(tmp_path)


def test_the_column_is_found_or_named(tmp_path: Path) -> None:
    table = pa.table(
        {"jpg": [b"1"], "url": ["x"], "thumb": pa.array([{"bytes": b"2"}], pa.struct([("bytes", pa.large_binary())]))}
    )
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UsageError, match=r"2 columns that may hold pictures.*it has jpg, url, thumb.*--source-column"):
        opened(tmp_path)
    assert read_all(opened(tmp_path, column="jpg")) == {"a.parquet/0/0": b"1"}
    assert read_all(opened(tmp_path, column="thumb")) == {"a.parquet/0/0": b"2"}
    with pytest.raises(UsageError, match="no column 'url' of pictures"):
        opened(tmp_path, column="url")
    pq.write_table(table.select(["jpg", "url"]), tmp_path / "a.parquet")
    assert opened(tmp_path).options == {"column": "jpg", "split": "train"}


def test_a_file_without_the_column_is_told(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", rows(1))
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "b.parquet")
    source = opened(tmp_path)
    assert list(read_all(source)) == ["a.parquet/0/0/0.jpg"]
    assert source.left_out
    [(kind, row)] = source.left_out.kinds.items()
    assert kind == "Parquet files that cannot be read: without a column 'image' of pictures; they have text"
    assert row == {"count": 1, "example": "b.parquet"}


def test_files_of_statuses_beside_loose_images_are_no_source(tmp_path: Path) -> None:
    (tmp_path / "00000").mkdir()
    (tmp_path / "00000" / "0.jpg").write_bytes(PNG)
    pq.write_table(pa.table({"url": ["x"], "status": ["success"]}), tmp_path / "00000.parquet")
    assert registry.identify(tmp_path)["kind"] == "folder"


def test_nulls_paths_only_and_nothing(tmp_path: Path) -> None:
    nothing, only_path = {"bytes": None, "path": None}, {"bytes": None, "path": "/data/x.jpg"}
    pictures = [{"bytes": b"0", "path": None}, None, nothing, only_path, {"bytes": b""}]
    write_parquet(tmp_path / "a.parquet", pictures, group=9)
    assert read_all(opened(tmp_path)) == {
        "a.parquet/0/0": b"0",
        "a.parquet/0/1": "the row holds no picture (null)",
        "a.parquet/0/2": "the row holds no picture (null)",
        "a.parquet/0/3/data/x.jpg": "the row holds only the path of a picture; embed the pictures (`datasets` does in push_to_hub)",
        "a.parquet/0/4": b"",
    }  # fmt: skip
    write_parquet(tmp_path / "a.parquet", [])
    with pytest.raises(UsageError, match="no image in 1 Parquet files"):
        read_all(opened(tmp_path))


@pytest.mark.parametrize(
    ("path", "end"),
    [
        ("../../etc/passwd", "etc/passwd"), ("/etc/passwd", "etc/passwd"), ("C:\\x\\a.jpg", "x/a.jpg"), ("a/../b.jpg", "b.jpg"),
        ("https://host/a.jpg?x=1", "a.jpg"), ("..", None), ("", None), ("a\0b", None), ("ä b.jpg", "ä b.jpg"), ("7/8", "7/8"),
    ],
)  # fmt: skip
def test_a_path_never_leads_out_of_the_key(path: str, end: str | None, tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [{"bytes": b"x", "path": path}])
    assert read_all(opened(tmp_path)) == {"a.parquet/0/0" + (f"/{end}" if end else ""): b"x"}


def test_an_id_column_gives_ids_or_names(tmp_path: Path) -> None:
    bare = [{"bytes": b"x"}, {"bytes": b"y"}, {"bytes": b"z"}]
    write_parquet(tmp_path / "a.parquet", bare, id=[7, None, -1])
    ids = [image.image_id for image in opened(tmp_path).images()]
    assert ids[0] == 7
    assert min(ids) > 0
    write_parquet(tmp_path / "a.parquet", bare, id=["u/1", None, ".."])
    assert list(read_all(opened(tmp_path))) == ["a.parquet/0/0/u/1", "a.parquet/0/1", "a.parquet/0/2"]


def test_a_damaged_row_group_costs_its_own_rows_only(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    noise = np.random.default_rng(0).bytes(3000)
    table = pa.table({"image": pa.array([{"bytes": noise, "path": f"{n}.jpg"} for n in range(6)])})
    pq.write_table(table, path, row_group_size=2, use_dictionary=False)
    column = pq.ParquetFile(path).metadata.row_group(1).column(0)
    assert column.path_in_schema == "image.bytes"
    data = bytearray(path.read_bytes())
    data[column.data_page_offset : column.data_page_offset + 40] = bytes(40)
    path.write_bytes(bytes(data))
    found = list(read_all(opened(tmp_path)).values())
    assert [value == noise for value in found] == [True, True, False, False, True, True]
    assert all(str(value).startswith("row group 1 of the Parquet file is damaged: ") for value in found[2:4])


@pytest.mark.parametrize("cut", [0, 3, 100, -1, -6])
def test_a_file_without_its_footer_is_told(cut: int, tmp_path: Path) -> None:
    for name in "abc":
        write_parquet(tmp_path / f"{name}.parquet", rows(2))
    data = (tmp_path / "b.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(data[:cut])
    source = opened(tmp_path)
    assert [key[0] for key in read_all(source)] == ["a", "a", "c", "c"]
    assert source.left_out
    [kind] = source.left_out.kinds
    assert kind.startswith("Parquet files that cannot be read: ")
    for name in "ac":
        (tmp_path / f"{name}.parquet").unlink()
    with pytest.raises(UsageError, match=r"no image in 1 Parquet files \(1 Parquet files that cannot be read"):
        read_all(opened(tmp_path / "b.parquet"))


@pytest.mark.parametrize("plaintext_footer", [True, False])
def test_encrypted_files_are_told(plaintext_footer: bool, tmp_path: Path) -> None:
    import pyarrow.parquet.encryption as pe

    class Plain(pe.KmsClient):
        def wrap_key(self, key_bytes: bytes, master: str) -> bytes:
            return key_bytes.hex().encode()

        def unwrap_key(self, wrapped: bytes, master: str) -> bytes:
            return bytes.fromhex(wrapped.decode())

    write_parquet(tmp_path / "a.parquet", rows(2))
    leaves = {"footer": ["image.bytes", "image.path"]}
    config = pe.EncryptionConfiguration(footer_key="footer", column_keys=leaves, plaintext_footer=plaintext_footer)
    properties = pe.CryptoFactory(lambda _: Plain()).file_encryption_properties(pe.KmsConnectionConfig(), config)
    table = pq.read_table(tmp_path / "a.parquet")
    with pq.ParquetWriter(tmp_path / "b.parquet", table.schema, encryption_properties=properties) as writer:
        writer.write_table(table)
    source = opened(tmp_path)
    assert len(read_all(source)) == 2
    assert source.left_out
    assert list(source.left_out.kinds) == ["Parquet files that cannot be read: encrypted"]


def test_a_huge_row_group_is_read_in_order_once_and_in_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One row group of 60 MB: batches of 8 MB, each decoded once, though threads ask a little out of order."""
    noise = np.random.default_rng(0).bytes(200_000)
    write_parquet(
        tmp_path / "a.parquet", [{"bytes": b"%03d" % n + noise, "path": None} for n in range(300)], group=10**6
    )
    source = opened(tmp_path)
    keys = [image.key for image in source.images()]
    batches: list[int] = []
    read = parquet._Rows._read

    def counted(self: Any) -> Any:
        for batch in read(self):
            batches.append(batch.num_rows)
            yield batch

    monkeypatch.setattr(parquet._Rows, "_read", counted)
    order = [n ^ 1 for n in range(300)]
    assert all(source.read(keys[n])[:3] == b"%03d" % n for n in order)
    assert sum(batches) == 300
    assert max(batches) <= parquet.BATCH_BYTES // 200_000
    assert source.read(keys[0])[:3] == b"000"


def test_tars_win_over_the_statuses_beside_them(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [])
    write_parquet(tmp_path / "0.parquet", rows(1))
    assert registry.identify(tmp_path)["kind"] == "webdataset"
