"""The LMDB reader gives the values of the LMDB library, and damaged files never end the process."""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import lmdb
import pytest
from locations import FIXTURES

from pseudoris_cli.codecs.lmdb_reader import DamagedLmdb, LmdbFile
from pseudoris_cli.errors import UsageError
from pseudoris_cli.sources import registry as sources

TRAIN = FIXTURES / "formats" / "etris" / "lmdb" / "refcoco+" / "train.lmdb"


def test_every_value_of_the_library(tmp_path: Path) -> None:
    """Keys of all lengths, values on leaves and on pages of their own, deleted ones, several levels and transactions."""
    rng = random.Random(0)
    wanted: dict[bytes, bytes] = {}
    path = tmp_path / "x.lmdb"
    with lmdb.open(str(path), subdir=False, map_size=1 << 28, lock=False) as environment:
        for _ in range(3):
            with environment.begin(write=True) as out:
                for number in range(2000):
                    key = rng.randbytes(rng.randrange(1, 30)) if rng.random() < 0.5 else str(number).encode()
                    wanted[key] = rng.randbytes(rng.choice([0, 1, 100, 3000, 9000]))
                    out.put(key, wanted[key])
                for key in rng.sample(sorted(wanted), 400):
                    out.delete(key)
                    del wanted[key]
    found = LmdbFile(path)
    assert all(bytes(found.get(key) or b"") == value for key, value in wanted.items())
    assert not any(
        found.get(key) is not None for key in (b"", b"\xff" * 40, *map(rng.randbytes, [3] * 500)) if key not in wanted
    )


def test_an_empty_database_has_no_key(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path / "x.lmdb"), subdir=False, lock=False):
        pass
    assert LmdbFile(tmp_path / "x.lmdb").get(b"a") is None


@pytest.mark.parametrize("data", [b"", b"\0" * 100, b"\0" * 20_000, TRAIN.read_bytes()[:8192]])
def test_what_is_no_lmdb(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.lmdb").write_bytes(data)
    with pytest.raises(DamagedLmdb):
        LmdbFile(tmp_path / "x.lmdb")


def test_damage_never_ends_the_process(tmp_path: Path) -> None:
    """Random damage of headers, offsets and sizes. The library ended the process with SIGBUS for 8 of 300 such files."""
    rng = random.Random(1)
    outcomes: Counter[str] = Counter()
    intact = TRAIN.read_bytes()
    for number in range(150):
        data = bytearray(intact)
        for _ in range(rng.choice([1, 2, 8, 30])):
            offset = rng.randrange(len(data) // 4096) * 4096 + rng.choice(
                [rng.randrange(16), rng.randrange(64), rng.randrange(4096)]
            )
            data[offset : offset + 2] = rng.choice([b"\xff\xff", b"\0\0", rng.randbytes(2)])
        path = tmp_path / f"{number}.lmdb"
        path.write_bytes(data[: len(intact)])
        source = sources.open_source(sources.describe(path, {}, None))
        try:
            for image in source.images():
                source.read(image.key)
            outcomes["read"] += 1
        except UsageError:
            outcomes["refused"] += 1
        except OSError:
            outcomes["an image failed"] += 1
        path.unlink()
    assert min(outcomes["read"], outcomes["refused"]) > 10, outcomes


def test_a_root_that_points_to_itself_ends(tmp_path: Path) -> None:
    """A branch page whose only child is itself."""
    data = bytearray(TRAIN.read_bytes())
    root = _root_page(data)
    branch = root.to_bytes(8, "little") + bytes([0, 0, 1, 0, 20, 0, 0, 0, 32, 0]) + bytes(14)
    branch += root.to_bytes(4, "little") + bytes(4) + os.urandom(8)
    data[root * 4096 : root * 4096 + len(branch)] = branch
    (tmp_path / "x.lmdb").write_bytes(data)
    with pytest.raises(DamagedLmdb, match="deeper"):
        LmdbFile(tmp_path / "x.lmdb").get(b"a")


def _root_page(data: bytearray) -> int:
    found = []
    for start in (16, 4096 + 16):
        transaction = int.from_bytes(data[start + 128 : start + 136], "little")
        found.append((transaction, int.from_bytes(data[start + 112 : start + 120], "little")))
    return max(found)[1]
