"""A Ray of our own on this machine, or a cluster that is there: joined quietly, left without a trace."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pseudoris_cli.devices import DeviceRequest
from pseudoris_cli.errors import EnvironmentStop, MissingDependency, PseudorisError, UsageError

log = logging.getLogger("pseudoris")

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "1",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # all that Ray would print on our stdout
    "RAY_enable_metrics_collection": "false",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # else it would upload the current folder, with all images
    "RAY_worker_niceness": "0",
}
"""Ray's own switches, each left alone where the user has set it."""
STORE_BYTES = 256 << 20
"""Size of the object store: answers pass through it one part a worker, and /dev/shm may be small."""
LOCAL_ATTEMPTS = 4
"""Ray gives its processes 30 seconds to start, which a machine under load may need and more."""
LONGEST_FOLDER = 40
"""Ray puts sockets below its folder, and the path of a socket may not be longer than 107 bytes."""


@dataclass(frozen=True)
class RayCluster:
    """Where workers run: on these GPUs of this machine, or so many of them on this machine or on the cluster at `address`."""

    workers: int | None = None
    gpus: tuple[int, ...] = ()
    address: str | None = None

    def crew(self, ray: Any, device: DeviceRequest) -> tuple[int, DeviceRequest]:
        """How many workers there will be, and the device as each of them sees it (Ray shows it its own GPU only).

        Asked once connected. UsageError if there are not so many GPUs.
        """
        wanted = (device.device or "").partition(":")[0]
        found = len(self.gpus) or int(ray.cluster_resources().get("GPU", 0))
        if wanted in ("cpu", "mps") or not (wanted or found):
            if self.workers is None:
                raise UsageError("how many workers? The Ray cluster has no GPUs to count; give --workers N")
            if not wanted:
                log.warning("no GPU found: the workers run on the CPU (--device cpu says so without this notice)")
            return self.workers, device if wanted else DeviceRequest(device="cpu")
        count = self.workers or found
        if not 0 < count <= found:
            raise UsageError(
                f"each worker needs a GPU, and Ray finds {found}; give --workers {max(1, found)} or fewer, or --device cpu"
            )
        return count, DeviceRequest(device="cuda:0")


class Connection:
    """Ray, as long as we are connected to it."""

    def __init__(self, cluster: RayCluster) -> None:
        """EnvironmentStop if Ray cannot be started or reached, UsageError for a GPU that is not there."""
        for gpu in cluster.gpus:
            DeviceRequest(gpu=gpu).resolve()  # else the complaint would come from a worker, which counts otherwise
        self.cluster = cluster
        self.folder: Path | None = None
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        if not (cluster.address or "RAY_AUTH_MODE" in os.environ):
            # A secret of our own: nobody else may give our Ray orders, and none is left in the home folder.
            os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
        self.ray = _import_ray()  # reads these variables
        attempts = 1 if cluster.address else LOCAL_ATTEMPTS
        for attempt in range(attempts):
            try:
                with _our_signals():
                    self._join() if cluster.address else self._start()
                return
            except PseudorisError:
                self.close()
                raise
            except Exception as error:  # Ray raises bare ones, too
                self.close()
                if attempt + 1 == attempts:
                    raise EnvironmentStop(f"Ray could not be started or reached: {str(error).strip()}") from error
            except BaseException:
                self.close()
                raise

    def _join(self) -> None:
        self.ray.init(address=self.cluster.address, log_to_driver=False, logging_level="ERROR")

    def _start(self) -> None:
        """A Ray of our own: it dies with this process, even of SIGKILL."""
        base = tempfile.gettempdir()
        base = base if len(base) < LONGEST_FOLDER - 22 else "/tmp"
        self.folder = Path(tempfile.mkdtemp(prefix="pseudoris-ray-", dir=base))
        with _visible(self.cluster.gpus):
            self.ray.init(
                address="local",  # else RAY_ADDRESS would decide
                num_cpus=max(self.cluster.workers or 0, len(self.cluster.gpus), os.cpu_count() or 1),
                num_gpus=len(self.cluster.gpus) or None,
                object_store_memory=STORE_BYTES,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
                _temp_dir=str(self.folder),
            )

    def close(self) -> None:
        """Leave the cluster; a Ray of our own ends."""
        self.ray.shutdown()
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise MissingDependency(
            "several workers need Ray, which is not installed; get it with:  pip install 'pseudoris[ray]'"
        ) from error
    return ray


@contextmanager
def _our_signals() -> Iterator[None]:
    """Keep our signal handlers in force, and SIGUSR1 away from Ray's processes: a batch system sends it to all of a job's,
    and they would die of it while we finish the parts in flight."""
    ours = signal.getsignal(signal.SIGTERM)
    stopped = False
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        yield
    except SystemExit:  # Ray's answer to SIGTERM
        stopped = True
    finally:
        signal.signal(signal.SIGTERM, ours)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    if stopped:
        signal.raise_signal(signal.SIGTERM)
        raise EnvironmentStop("stopped while Ray was starting")


@contextmanager
def _visible(gpus: tuple[int, ...]) -> Iterator[None]:
    """Show Ray these GPUs only, counted as this process counts them; it deals one to each worker."""
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = before.split(",") if before else None
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(names[gpu] if names else str(gpu) for gpu in gpus)
    try:
        yield
    finally:
        if gpus:
            os.environ.pop("CUDA_VISIBLE_DEVICES")
            if before is not None:
                os.environ["CUDA_VISIBLE_DEVICES"] = before
