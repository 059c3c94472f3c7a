"""Read a model of transformers from a folder: safetensors only, no code of the model's, nothing left at random.

transformers fills what a folder lacks with random values and says so in its log; here that is an error.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pseudoris_cli.errors import MissingDependency, UsageError, is_out_of_memory

OLDEST = (5, 10)
"""The oldest release that has the models."""


def require(what: str) -> None:
    """MissingDependency (exit 3) if transformers is not installed, or too old."""
    try:
        import transformers
    except ImportError as error:
        raise MissingDependency(
            f"{what} needs transformers (missing: {error.name}); install it with:  pip install 'pseudoris[hf]'"
        ) from error
    found = tuple(int(part) for part in transformers.__version__.split(".")[:2] if part.isdigit())
    if found < OLDEST:
        raise MissingDependency(
            f"{what} needs transformers {'.'.join(map(str, OLDEST))} or newer, and {transformers.__version__} is here; "
            "install it with:  pip install -U 'pseudoris[hf]'"
        )


def read_model(model_class: Any, folder: Path, setting: str) -> Any:
    """A model in float32 on the CPU. UsageError (exit 2) if the folder does not hold this model, whole."""
    import torch

    with _quiet(), _explained(model_class.__name__, setting):
        model, told = model_class.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
        )
    missing = sorted(told["missing_keys"])
    if missing:
        names = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise UsageError(f"{setting} is no whole {model_class.__name__}: {len(missing)} tensors are missing ({names})")
    return model


def blank_model(model_class: Any, folder: Path, setting: str) -> Any:
    """The model of a folder's configuration on the meta device: without memory and weights."""
    import torch

    with _quiet(), _explained(model_class.__name__, setting), torch.device("meta"):
        config = model_class.config_class.from_pretrained(folder, local_files_only=True)
        return model_class(config).eval()


def blank_auto(auto_class: Any, folder: Path, setting: str) -> Any:
    """The same by one of transformers' auto classes."""
    import torch
    from transformers import AutoConfig

    with _quiet(), _explained(auto_class.__name__, setting), torch.device("meta"):
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return auto_class.from_config(config).eval()


def read_processor(processor_class: Any, folder: Path, setting: str) -> Any:
    """What prepares images or texts for a model. UsageError (exit 2) if its file is missing or of another kind."""
    with _quiet(), _explained("processor", setting):
        return processor_class.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


@contextmanager
def _explained(what: str, setting: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError) as error:
        if is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UsageError(f"{setting}: transformers cannot read its {what}: {reason}") from error
    except Exception as error:  # safetensors' own error of a damaged file, strict configurations
        if type(error).__module__.split(".")[0] not in ("safetensors", "safetensors_rust", "huggingface_hub"):
            raise
        raise UsageError(
            f"{setting}: transformers cannot read its {what}: {' '.join(str(error).split())[:300]}"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bars and its log, whose content is in the errors."""
    from transformers.utils import logging as theirs

    level, bars = theirs.get_verbosity(), theirs.is_progress_bar_enabled()
    theirs.set_verbosity(logging.CRITICAL)
    theirs.disable_progress_bar()
    try:
        yield
    finally:
        theirs.set_verbosity(level)
        if bars:
            theirs.enable_progress_bar()
