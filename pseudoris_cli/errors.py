"""Foreseeable errors, each with its exit code (docs/concepts.md); the command line prints the message, not a traceback."""

from __future__ import annotations

_SHORTAGES = (
    "out of memory",  # torch.OutOfMemoryError; CUDA error: out of memory; MPS backend out of memory
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",  # the same since cuDNN 9
    "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
    "CUSPARSE_STATUS_ALLOC_FAILED",
    "CURAND_STATUS_ALLOCATION_FAILED",
    "CUSOLVER_STATUS_ALLOC_FAILED",
    "CUFFT_ALLOC_FAILED",
    "can't allocate memory",  # torch's allocator on a CPU
    "not enough memory: you tried to allocate",  # the same on Windows
    "Cannot allocate memory",
    "std::bad_alloc",
)
"""What shortage of memory is called in messages of torch and its libraries, whatever the type of the error."""

_LOST_DEVICE = (
    "CUDA error",
    "CUDA driver error",
    "Triton Error [CUDA]",
    "device-side assert",
    "CUBLAS_STATUS_EXECUTION_FAILED",
    "CUDNN_STATUS_EXECUTION_FAILED",
    "HIP error",
)
"""What says that the device will fail every further call."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the host ran out of memory; told by names, so that torch need not be imported."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(name in str(error) for name in _SHORTAGES)


def is_device_lost(error: BaseException) -> bool:
    """Whether the device will fail every further call. Shortage of memory is none of it, however it is reported."""
    if is_out_of_memory(error):
        return False
    return type(error).__name__ == "AcceleratorError" or any(name in str(error) for name in _LOST_DEVICE)


def reason_of(error: BaseException) -> str:
    """The type of an error and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:300]


class PseudorisError(Exception):
    """Base of the errors that a user can act on; the message says what is wrong and what to do next."""

    exit_code = 1


class EnvironmentStop(PseudorisError):
    """The environment (disk, device, lock) stopped the command; committed work is kept."""

    exit_code = 1


class UsageError(PseudorisError):
    """A wrong flag, setting or input."""

    exit_code = 2


class MissingDependency(PseudorisError):
    """A checkpoint or an optional package is missing."""

    exit_code = 3


class SomeImagesFailed(PseudorisError):
    """The command finished, but some images failed."""

    exit_code = 4


class Interrupted(BaseException):
    """Stopped by a signal; committed work is kept. Like KeyboardInterrupt not an Exception, so that no handler swallows it."""

    exit_code = 130
