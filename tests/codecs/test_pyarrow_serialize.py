"""pyarrow.serialize's bytes: exactly those of pyarrow 11 on recorded values, everything else rejected, no crash on damage."""

from __future__ import annotations

import ast
import base64
import json
import random
import struct

import lmdb
import locations
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudoris_cli.codecs.pyarrow_serialize import decode, encode

FIXTURES = locations.FIXTURES / "formats"
RECORDED = [
    (ast.literal_eval(value["python"]), base64.b64decode(value["base64"]))
    for value in json.loads((FIXTURES / "legacy_values.json").read_text())["values"]
]
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.floats(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4) | st.tuples(inner)
    ),
    max_leaves=20,
)


@pytest.mark.parametrize(("value", "data"), RECORDED, ids=[repr(value)[:30] for value, _ in RECORDED])
def test_recorded_values(value, data):
    assert encode(value) == data
    assert decode(data) == value
    assert type(decode(data)) is type(value)


@pytest.mark.parametrize("kind", ["etris", "pseudo_ris"])
def test_every_value_of_the_originals_lmdbs(kind):
    expected = {
        r["key"].encode(): r
        for r in json.loads((FIXTURES / "expected.json").read_text())["kinds"][kind]["train"]["records"]
    }
    path = FIXTURES / kind / "lmdb" / "refcoco+" / "train.lmdb"
    seen = set()
    with (
        lmdb.open(str(path), subdir=False, readonly=True, lock=False) as environment,
        environment.begin(buffers=True) as data,
    ):
        for key, value in data.cursor():
            record = decode(value)
            assert encode(record) == bytes(value)
            if bytes(key) in expected:
                seen.add(bytes(key))
                assert record["sents"] == expected[bytes(key)]["sents"]
                assert decode(value, {"img_name", "seg_id"}) == {k: record[k] for k in ("seg_id", "img_name")}
    assert seen == set(expected)


@settings(max_examples=80, deadline=None)
@given(PLAIN)
def test_round_trip(value):
    data = encode(value)
    assert decode(data) == value
    assert len(data) % 64 == 0
    assert encode(decode(data)) == data


def test_numpy_numbers_sets_and_bools():
    assert encode({"a": np.int64(5), "b": np.bool_(True)}) == encode({"a": 5, "b": True})
    assert decode(encode({1, 2, 3})) == {1, 2, 3}
    assert decode(encode([True, 1, 0, False])) == [True, 1, 0, False]
    assert [type(v) for v in decode(encode([True, 1]))] == [bool, int]


def _nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [object(), 1j, np.zeros(3), {"a": np.float32(1)}, {"_pytype_": "int", "data": "5"}, _nested(30)],
    ids=["object", "complex", "array", "float32 inside", "reserved key", "30 levels"],
)
def test_what_cannot_be_written(value):
    with pytest.raises(ValueError):
        encode(value)


def _row(codes, offsets, children, names, rows=1):
    union = pa.UnionArray.from_dense(pa.array(codes, pa.int8()), pa.array(offsets, pa.int32()), children, names)
    batch = pa.record_batch([union], names=["list"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(16) + sink.getvalue().to_pybytes()


def _dict_of(keys, values):
    """A dict as pyarrow.serialize would lay it out, with whatever keys."""
    honest = {f"key {i}": value for i, value in enumerate(values)}
    data = encode(honest)
    for i, key in enumerate(keys):
        data = data.replace(f"key {i}".encode(), key.encode().ljust(5)[:5])
    return data


NULL = pa.array([], pa.null())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 15,
        b"\0" * 64,
        struct.pack("<4i", 1, 0, 0, 0) + RECORDED[0][1][16:],
        struct.pack("<4i", 0, 1, 0, 0) + RECORDED[0][1][16:],
        struct.pack("<4i", 0, 0, 1, 0) + RECORDED[0][1][16:],
        struct.pack("<4i", 0, 0, 0, 2) + RECORDED[0][1][16:],
        RECORDED[-1][1][:-300],
        _row([1], [0], [NULL, pa.array([3], pa.int32())], ["0", "15"]),  # an ndarray
        _row([1], [0], [NULL, pa.array([3], pa.int32())], ["0", "2"]),  # an int of another width
        _row([1], [0], [NULL, pa.array(["x"])], ["0", "4"]),  # text under the tag of bytes
        _row([1], [0], [NULL, pa.array(["x"]).dictionary_encode()], ["0", "5"]),
        _row([1], [0], [NULL, pa.array([None], pa.int64())], ["0", "2"]),
        _row([1, 1], [0, 0], [NULL, pa.array([3])], ["0", "2"]),  # two rows, one value
        _row([1, 1], [0, 1], [NULL, pa.array([3, 4])], ["0", "2"]),  # two rows
        _dict_of(["same", "same"], [1, 2]),
    ],
)
def test_what_is_refused(data):
    with pytest.raises(ValueError):
        decode(data)


def test_pickles_are_refused_even_where_unread():
    """pyarrow 11 wrote custom objects as {"data": <pickle>, "_pytype_": name} and unpickled them on reading."""
    honest = encode({"data": b"cos\nsystem\n(S'mkdir executed'\ntR.", "_pytypX_": "global"})
    hostile = honest.replace(b"_pytypX_", b"_pytype_")
    with pytest.raises(ValueError, match="pickled object"):
        decode(hostile)
    with pytest.raises(ValueError, match="pickled object"):
        decode(hostile, {"img_name"})
    assert decode(encode(2**70)) == 2**70


def test_one_value_with_many_references_is_rejected():
    """Ten levels of ten references to one list would be ten thousand million values."""
    inner = pa.UnionArray.from_dense(pa.array([0], pa.int8()), pa.array([0], pa.int32()), [pa.nulls(1)], ["0"])
    for _ in range(10):
        lists = pa.ListArray.from_arrays(pa.array([0, len(inner)], pa.int32()), inner)
        children = [pa.nulls(0), lists]
        inner = pa.UnionArray.from_dense(
            pa.array([1] * 10, pa.int8()), pa.array([0] * 10, pa.int32()), children, ["0", "10"]
        )
    lists = pa.ListArray.from_arrays(pa.array([0, 10], pa.int32()), inner)
    with pytest.raises(ValueError, match="several times"):
        decode(_row([1], [0], [NULL, lists], ["0", "10"]))


def test_damage_never_crashes():
    """Random damage gives ValueError or some value; also a null child of absurd length, which once took minutes to read."""
    rng = random.Random(0)
    outcomes = {"value": 0, "refused": 0}
    for _ in range(1500):
        data = bytearray(rng.choice(RECORDED)[1])
        for _ in range(rng.choice([1, 1, 2, 8])):
            offset = rng.randrange(16, len(data)) & ~3
            data[offset : offset + 4] = struct.pack(
                "<i", rng.choice([0, 1, -1, 2**31 - 1, -(2**31), 64, rng.randrange(300)])
            )
        try:
            decode(bytes(data))
            outcomes["value"] += 1
        except ValueError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 50
    long_null = _row([1], [0], [pa.nulls(2**31 - 2), pa.array([3])], ["0", "2"])
    assert decode(long_null) == 3
