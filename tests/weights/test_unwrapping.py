"""Checkpoints as training scripts save them: compiled, distributed, wrapped, with copies; and what is refused, with the reason."""

from __future__ import annotations

import argparse
import pickle
from collections import OrderedDict
from pathlib import Path, PosixPath
from typing import Any

import numpy as np
import pytest
import torch

from pseudoris_cli.errors import UsageError
from pseudoris_cli.weights.tensors import load_tensors
from pseudoris_cli.weights.unwrapping import unwrapped

STATE = {
    "visual.conv1.weight": torch.arange(6.0),
    "visual.model.norm.bias": torch.ones(2),
    "logit_scale": torch.tensor(1.0),
    "text.module.weight": torch.zeros(3),
}
COPY = {name: value + 1 for name, value in STATE.items()}


def under(prefix: str, state: dict[str, Any] | None = None) -> dict[str, Any]:
    return {prefix + name: value for name, value in (state or STATE).items()}


def inside(part: str) -> dict[str, Any]:
    """`part` after the first piece of every name, where compiled or sharded submodules have it."""
    return {
        ".".join([name.split(".")[0], *([part, *name.split(".")[1:]] if "." in name else [])]): v
        for name, v in STATE.items()
    }


@pytest.mark.parametrize(
    "saved",
    [
        STATE,
        OrderedDict(STATE),
        {"state_dict": STATE, "epoch": 3},
        {"model": STATE, "optimizer": {"state": {0: {"step": 1}}}},
        {"model_state_dict": STATE},
        {"module": STATE, "dp_world_size": 2},  # DeepSpeed
        {"net": STATE},
        {"checkpoint": {"model": STATE}},
        under("module."),
        under("_orig_mod."),
        under("module._orig_mod."),
        under("_orig_mod.module."),
        {"state_dict": under("module._orig_mod."), "epoch": 1},
        {"state_dict": under("model.")},
        {"state_dict": under("model._orig_mod.") | {"loss.weight": torch.ones(1)}},  # Lightning
        {"state_dict": under("model.") | under("ema_model.", COPY)},
        {"state_dict": under("ema_model.", COPY) | under("model.")},
        {"model": STATE, "model_ema": COPY},
        {"model_ema": COPY, "model": STATE},
        {"state_dict": under("captioner.coca.")},
        under("_fsdp_wrapped_module."),
        inside("_fsdp_wrapped_module"),
        inside("_orig_mod"),
        under("_forward_module._checkpoint_wrapped_module."),
    ],
    ids=range(24),
)
def test_the_network_is_found(saved: dict[str, Any], tmp_path: Path) -> None:
    torch.save(saved, tmp_path / "c.pt")
    found = unwrapped(load_tensors(tmp_path / "c.pt"), STATE, "c.pt")
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[name], STATE[name]) for name in STATE)


def test_names_that_do_not_belong_are_not_hidden() -> None:
    found = unwrapped({"model": under("module.") | {"module.extra": 1}}, STATE, "c.pt")
    assert found.keys() == STATE.keys() | {"extra"}
    assert unwrapped({"model": {"other": 1}}, STATE, "c.pt") == {"model": {"other": 1}}


@pytest.mark.parametrize(
    ("saved", "reason"),
    [
        (under("student.") | under("teacher.", COPY), "several networks of this kind, 'student.' and 'teacher.'"),
        ({"g_ema": STATE, "d_ema": COPY}, "several networks"),
        ({"blobs": {"conv1_w": np.zeros(1)}}, "Caffe2"),
        ({"conv1_w": np.zeros(1)}, "Caffe2"),
        ({f"base_model.model.visual.{n}.lora_A.weight": torch.ones(1) for n in range(3)}, "LoRA adapters only"),
    ],
)
def test_what_cannot_be_told_is_refused(saved: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        unwrapped(saved, STATE, "c.pt")


def test_arguments_of_a_training_script_do_no_harm(tmp_path: Path) -> None:
    arguments = argparse.Namespace(lr=0.1, output=PosixPath("/tmp/x"))
    torch.save({"model": STATE, "args": arguments}, tmp_path / "c.pt")
    assert unwrapped(load_tensors(tmp_path / "c.pt"), STATE, "c").keys() == STATE.keys()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_detectron2_s_pickles_are_read(protocol: int, tmp_path: Path) -> None:
    arrays = {"backbone.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.float64(2)}
    data = {"model": OrderedDict(arrays), "__author__": "Detectron2 Model Zoo", "matching_heuristics": True}
    (tmp_path / "model_final.pkl").write_bytes(pickle.dumps(data, protocol))
    found = unwrapped(load_tensors(tmp_path / "model_final.pkl"), {"backbone.weight": 0}, "x")
    assert np.array_equal(found["backbone.weight"], arrays["backbone.weight"])
    assert found["backbone.weight"].dtype == np.float32


class _Call:
    def __reduce__(self) -> Any:
        import os

        return os.mkdir, ("executed",)


class _Codec:
    def __reduce__(self) -> Any:
        import _codecs

        return _codecs.encode, ("x", "rot13")


@pytest.mark.parametrize("hostile", [_Call(), _Codec(), np.array([_Call()], dtype=object)])
def test_pickles_run_nothing(hostile: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"model": hostile}, 2))
    with pytest.raises(UsageError, match=r"x\.pkl is not a pickle of plain values and arrays"):
        load_tensors(tmp_path / "x.pkl")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"GGUF\x03", "GGUF"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"\x93NUMPY", "numpy array"),
        (b'{"metadata": {}, "weight_map": {}}', "index of one in several files"),
    ],
)
def test_files_of_other_kinds_are_called_what_they_are(head: bytes, what: str, tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(head + bytes(100))
    with pytest.raises(UsageError, match=what):
        load_tensors(tmp_path / "x.bin")


def test_every_backend_takes_a_compiled_checkpoint(tmp_path: Path) -> None:
    from pseudoris_cli.backends import cascade_rcnn, clip, coca, sam
    from pseudoris_cli.networks.cascade_rcnn.detector import CascadeRCNN  # noqa: F401
    from pseudoris_cli.networks.coca.build import build_coca
    from pseudoris_cli.settings.models import Numerics

    def saved(state: dict[str, Any]) -> str:
        torch.save({"state_dict": under("module._orig_mod.", state), "epoch": 1}, tmp_path / "c.pt")
        return str(tmp_path / "c.pt")

    network = build_coca("tiny", 3)
    loaded = coca.load(
        coca.Settings.tiny().model_copy(update={"checkpoint": saved(network.state_dict())}), Numerics(), "cpu"
    )
    assert torch.equal(loaded._network.coca.logit_scale, network.logit_scale)
    first = sam.load(sam.Settings.tiny(), Numerics(), "cpu").generator.network.sam.state_dict()
    again = sam.load(sam.Settings.tiny().model_copy(update={"checkpoint": saved(first)}), Numerics(), "cpu")
    found = again.generator.network.sam.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in first.items())
    scorer = clip.load(clip.Settings.tiny(), Numerics(), "cpu")
    clip.load(
        clip.Settings.tiny().model_copy(update={"checkpoint": saved(scorer._model.state_dict())}), Numerics(), "cpu"
    )
    detector = cascade_rcnn.load(cascade_rcnn.Settings.tiny(), Numerics(), "cpu")
    state = detector.network.state_dict()
    cascade_rcnn.load(cascade_rcnn.Settings.tiny().model_copy(update={"checkpoint": saved(state)}), Numerics(), "cpu")
