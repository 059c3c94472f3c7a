"""Load tensors from a checkpoint file without running code from it. Importing this module does not import torch."""

from __future__ import annotations

import argparse
import re
import zipfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path, PosixPath, PurePosixPath
from typing import TYPE_CHECKING, Any

from pseudoris_cli.codecs import safe_pickle
from pseudoris_cli.errors import PseudorisError, UsageError

if TYPE_CHECKING:
    import torch

_FORBIDDEN = re.compile(r"GLOBAL (\S+)")
_TORCH_PICKLE = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How torch's files of before 1.6 begin; another pickle is none of torch's."""
_OTHERS = (
    (b"\x89HDF\r\n", "an HDF5 file (Keras or another program)"),
    (b"GGUF", "a GGUF file of llama.cpp"),
    (b"\x1f\x8b", "compressed with gzip; unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it first"),
    (b"Rar!", "a RAR archive; unpack it first"),
    (b"BZh", "compressed with bzip2; unpack it first"),
    (b"\xfd7zXZ", "compressed with xz; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it first"),
    (b"\x93NUMPY", "a single numpy array"),
    (b"%PDF", "a PDF"),
)
_FETCH_AGAIN = "fetch it again (pseudoris weights fetch NAME)"


def load_tensors(path: Path) -> dict[str, Any]:
    """Read a safetensors file, or a torch file that holds tensors, containers, numbers and numpy arrays only.

    Returns whatever mapping the file holds, on the CPU (callers unwrap `model` or `state_dict`; fvcore's files may hold
    numpy arrays). Tensors of a zip archive stay on the disk until they are used: an unused optimizer state costs no memory.
    Raises UsageError saying what the file is instead, or what in it is not allowed.
    """
    _check_is_checkpoint(path)
    if is_torchscript(path):
        raise UsageError(
            f"{path} is a TorchScript archive, which can run code; it is opened only where its publisher's sha256 is "
            "known (clip_rn50). Save its state_dict() with safetensors or torch.save and give that file"
        )
    data = _load_safetensors(path) if path.suffix == ".safetensors" else _load_torch(path)
    if not isinstance(data, dict):
        raise UsageError(f"{path} holds a {type(data).__name__}, not a mapping of names to tensors")
    return data


def is_torchscript(path: Path) -> bool:
    """Whether the file is an archive that holds code beside tensors."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name or name.endswith("/constants.pkl") for name in archive.namelist())


def torch_generator(seed: int) -> torch.Generator:
    """A CPU generator, so that random weights are the same on every device."""
    import torch

    return torch.Generator().manual_seed(seed)


def _check_is_checkpoint(path: Path) -> None:
    """Raise UsageError with a clear message for the usual results of a failed download."""
    try:
        with path.open("rb") as file:
            head = file.read(256)
    except OSError as error:
        raise UsageError(f"checkpoint {path} cannot be read: {error.strerror}") from error
    if not head:
        raise UsageError(f"{path} is empty; {_FETCH_AGAIN}")
    if head.lstrip().startswith(b"<"):
        raise UsageError(f"{path} is a web page, not a checkpoint; {_FETCH_AGAIN}")
    if head.startswith(b"version https://git-lfs"):
        raise UsageError(
            f"{path} is a Git LFS pointer, not the checkpoint itself; run `git lfs pull` there or {_FETCH_AGAIN}"
        )
    for magic, what in _OTHERS:
        if head.startswith(magic):
            raise UsageError(f"{path} is {what}, not a checkpoint of PyTorch or safetensors")
    if head.lstrip().startswith(b"{"):
        raise UsageError(
            f"{path} is JSON, not a checkpoint (the index of one in several files?); put its tensors into one file, e.g. with "
            "safetensors, and give that"
        )
    if head.startswith(b"PK") and not zipfile.is_zipfile(path):
        raise UsageError(f"{path} is cut short; {_FETCH_AGAIN}")


def _load_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise UsageError(f"{path} is damaged or not a safetensors file ({error}); {_FETCH_AGAIN}") from error


def _load_torch(path: Path) -> Any:
    import torch

    with path.open("rb") as file:
        head = file.read(len(_TORCH_PICKLE))
    if head[:1] == b"\x80" and head != _TORCH_PICKLE:
        return safe_pickle.load_arrays(path)  # detectron2's model zoo
    try:
        with _allowed_globals(_numpy_globals()):
            # weights_only: an unpickler that knows tensors and containers, and calls nothing else
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (MemoryError, PseudorisError):  # a signal raises Interrupted wherever it finds us
        raise
    except Exception as error:  # the unpickler raises whatever a damaged or hostile file leads it to
        forbidden = _FORBIDDEN.search(str(error))
        reason = f"it asks for {forbidden[1]}" if forbidden else "it is damaged or something else"
        raise UsageError(
            f"{path} is not a plain checkpoint (tensors, containers and numbers only): {reason}; {_FETCH_AGAIN}, "
            f"or save its tensors with safetensors and give that file{_remark(str(error))}"
        ) from error


def _remark(error: str) -> str:
    if "DTensor" in error or "ShardedTensor" in error or "torch.distributed" in error:
        return "\nits tensors are spread over a distributed run: gather them first (torch.distributed.checkpoint's dcp_to_torch)"
    return ""


def _allowed_globals(allowed: list[Any]) -> AbstractContextManager[None]:
    """Extend torch's list of globals that `weights_only` allows.

    Before torch 2.6 the list takes no (object, name) pairs; there, arrays written by the other major version of numpy are
    rejected.
    """
    import torch

    if hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint"):  # new in 2.6, like the pairs
        return torch.serialization.safe_globals(allowed)
    builders = [one[0] if isinstance(one, tuple) else one for one in allowed]
    torch.serialization.add_safe_globals(list(dict.fromkeys(builders)))
    return nullcontext()


def _numpy_globals() -> list[Any]:
    """The globals that pickled numpy arrays and scalars need, under the module names of numpy 1 and numpy 2."""
    import numpy as np

    builders = {"_reconstruct": np.zeros(0).__reduce__()[0], "scalar": np.float64(0).__reduce__()[0]}
    modules = ("numpy.core.multiarray", "numpy._core.multiarray")
    named = [(builder, f"{module}.{name}") for name, builder in builders.items() for module in modules]
    plain = (
        argparse.Namespace,
        PurePosixPath,
        PosixPath,
    )  # the arguments of the training script, which many save beside
    return [*named, *plain, np.ndarray, np.dtype, *(type(np.dtype(kind)) for kind in "?bBhHiIlLqQefd")]
