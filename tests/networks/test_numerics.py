"""The numerics settings: compiler, TF32, compilation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pseudoris_cli.backends import sam
from pseudoris_cli.errors import MissingDependency
from pseudoris_cli.networks import numerics
from pseudoris_cli.settings.models import Numerics


def test_compile_without_a_compiler_is_refused_before_any_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(MissingDependency, match=r"looked for g\+\+, clang\+\+, cl") as caught:
        sam.load(sam.Settings.tiny(), Numerics(compile=True), "cpu")
    assert caught.value.exit_code == 3
    numerics.set_up(Numerics())  # without `compile` no compiler is needed
    compiler = tmp_path / "mine"
    compiler.touch(mode=0o755)
    monkeypatch.setenv("CXX", str(compiler))
    numerics.set_up(Numerics(compile=True))


def test_tf32_is_set_as_asked() -> None:
    for wanted in (True, False):  # ends with off, the default of the other tests
        numerics.set_up(Numerics(tf32=wanted))
        assert torch.backends.cuda.matmul.allow_tf32 is torch.backends.cudnn.allow_tf32 is wanted


def test_sam_computes_the_same_where_its_hot_functions_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """With dynamo's own backend, which traces as any other but builds nothing: a minute less than inductor."""
    compiled, original = [], torch.compile

    def trace_only(function: Callable[..., Any], **options: Any) -> Any:
        compiled.append(getattr(function, "__name__", ""))
        return original(function, backend="eager", **options)

    monkeypatch.setattr(torch, "compile", trace_only)
    image = np.random.default_rng(0).integers(0, 256, (90, 128, 3), np.uint8)
    settings = sam.Settings.tiny().model_copy(update={"points_per_side": 2})
    expected = sam.load(settings, Numerics(), "cpu").segment([image])
    assert expected[0]
    assert not compiled
    assert sam.load(settings, Numerics(compile=True), "cpu").segment([image]) == expected
    assert compiled == ["_call_impl", "_call_impl", "attend", "_features"]
