"""Networks that do not fit, or a device that fails while they are loaded: told with what helps, before any image is blamed."""

from __future__ import annotations

from pseudoris_cli.errors import EnvironmentStop, PseudorisError, is_device_lost, is_out_of_memory, reason_of
from pseudoris_cli.execution.tasks import StageSpec, Worker


def load_worker(spec: StageSpec) -> Worker:
    """The stage's worker with its networks. EnvironmentStop (exit 1) where memory or the device does not do."""
    try:
        return spec.make_worker()
    except PseudorisError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise EnvironmentStop(
                f"not enough memory for the networks of {spec.name} with these settings: {reason_of(error)}\n"
                "`pseudoris doctor` shows what each stage needs; take smaller settings, --set numerics.precision=bf16, a smaller "
                "model, or another device"
            ) from error
        if is_device_lost(error):
            raise EnvironmentStop(
                f"the device stopped working: {reason_of(error)}; committed parts are kept"
            ) from error
        raise
