"""Pickles of plain values: Python 2 era files read, code refused, streamed lists equal to what Python pickles."""

from __future__ import annotations

import os
import pickle
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudoris_cli.codecs.safe_pickle import PickleList, load
from pseudoris_cli.errors import UsageError

PLAIN = st.recursive(
    st.integers(-(2**63), 2**63 - 1) | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(PLAIN, max_size=5))
def test_a_streamed_list_is_the_list(tmp_path_factory, items):
    path = tmp_path_factory.getbasetemp() / "streamed.p"
    with PickleList(path) as file:
        for item in items:
            file.append(item)
    assert load(path) == items
    assert pickle.loads(path.read_bytes()) == items


@pytest.mark.parametrize("count", [0, 1, 999, 1000, 1001, 2500])
def test_batches_join(tmp_path, count):
    with PickleList(tmp_path / "x.p") as file:
        for number in range(count):
            file.append({"ref_id": number, f"key {number % 300}": [number]})
    assert load(tmp_path / "x.p") == [{"ref_id": n, f"key {n % 300}": [n]} for n in range(count)]


@pytest.mark.parametrize("value", [np.int64(3), True, None, (1,), b"x"])
def test_only_refer_s_types_are_written(tmp_path, value):
    with pytest.raises(TypeError), PickleList(tmp_path / "x.p") as file:
        file.append({"id": value})


def test_python_2_text_is_latin_1(tmp_path):
    python_2 = b"(lp0\n(dp1\nS'sent'\np2\nS'caf\\xe9'\np3\nsS'ref_id'\np4\nI7\nsS'raw'\np5\nVna\\u00efve\np6\nsa."
    (tmp_path / "refs.p").write_bytes(python_2)
    assert load(tmp_path / "refs.p") == [{"sent": "café", "ref_id": 7, "raw": "naïve"}]


class _Call:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps([_Call()]),
        pickle.dumps([_Call()], 0),
        pickle.dumps(np.arange(3)),
        pickle.dumps(os.mkdir),
        pickle.dumps([1, 2, 3])[:-4],
        b"\x80\x02X\xff\xff\xff\x7fabc.",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x80\x02Pid\n.",
        b"cos\nsystem\n(S'mkdir executed'\ntR.",
        b"(" * 1000 + b"t" * 1000,
        b"h\x07.",
        b"\x80\x02r\xff\xff\xff\xff.",
        b"\x80\x02}N" + b"2\x86" * 60 + b"Ns.",  # tuples of tuples as a key: hashing them would take for ever
        b"\x80\x02}(N" + b"2\x86" * 60 + b"Nu.",
        b"(N" + b"2\x86" * 60 + b"Nd.",
        b"\x80\x04\x8f(N" + b"2\x86" * 60 + b"\x90.",
        b"\x80\x04(N" + b"2\x86" * 60 + b"\x91.",
        b"\x80\x02\x82\x01.",  # an extension code
        b"\x80\x02]}(X\x01\0\0\0aNub.",  # BUILD on a list
        b"\x80\x02X\x01\0\0\0a)\x81.",  # NEWOBJ on text
        b"(S'mkdir executed'\nios\nsystem\n.",
        b"",
        zlib.compress(b"not a pickle"),
    ],
)
def test_code_and_damage_are_refused(tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "refs.p").write_bytes(data)
    with pytest.raises(UsageError, match=r"refs\.p"):
        load(tmp_path / "refs.p")
    assert not (tmp_path / "executed").exists()


def test_a_memo_key_takes_no_memory(tmp_path):
    """C's unpickler would fill 34 GB for these ten bytes."""
    (tmp_path / "refs.p").write_bytes(b"\x80\x02]r\xff\xff\xff\x7f.")
    assert load(tmp_path / "refs.p") == []


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match="nothing"):
        load(tmp_path / "nothing.p")
