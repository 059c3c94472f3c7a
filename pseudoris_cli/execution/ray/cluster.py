"""A Ray of our own on this machine, or a cluster that is there: joined quietly, left without a trace."""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pseudoris_cli.errors import EnvironmentStop, MissingDependency, PseudorisError, UsageError
from pseudoris_cli.execution.devices import DeviceRequest
from pseudoris_cli.execution.ray.thread import RayThread
from pseudoris_cli.execution.signals import Stopper

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
IMPATIENT = {"RAY_NUM_REDIS_GET_RETRIES": "2", "RAY_py_gcs_connect_timeout_s": "10"}
"""For a cluster that is there, or is not: without these Ray tries for minutes where another service answers."""
STORE_BYTES = 256 << 20
"""Size of the object store: answers pass through it one part a worker, and /dev/shm may be small."""
REACH_SECONDS = 5
LOCAL_ATTEMPTS = 4
"""Ray gives its processes 15 and 30 seconds to start, and no switch to change that; a machine under load may need more."""
FOLDER, LOCK = "pseudoris-ray-", "driver.lock"
LONGEST_FOLDER = 40
"""Ray puts sockets below its folder, and the path of a socket may not be longer than 107 bytes."""


@dataclass(frozen=True)
class RayCluster:
    """Where workers run: on these GPUs of this machine, or so many of them on this machine or on the cluster at `address`."""

    workers: int | None = None
    gpus: tuple[int, ...] = ()
    address: str | None = None

    def workers_and_device(self, ray: Any, device: DeviceRequest) -> tuple[int, DeviceRequest]:
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

    def __init__(self, cluster: RayCluster, stopper: Stopper) -> None:
        """EnvironmentStop if Ray cannot be started or reached, UsageError for a GPU that is not there."""
        for gpu in cluster.gpus:
            DeviceRequest(gpu=gpu).resolve()  # else the complaint would come from a worker, which counts otherwise
        self.cluster = cluster
        self.folder: Path | None = None
        for name, value in (QUIET | (IMPATIENT if cluster.address else {})).items():
            os.environ.setdefault(name, value)
        if not (cluster.address or "RAY_AUTH_MODE" in os.environ):
            # A secret of our own: nobody else may give our Ray orders, and none is left in the home folder.
            os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
        self.ray = _import_ray()  # reads these variables
        attempts = 1 if cluster.address else LOCAL_ATTEMPTS
        for attempt in range(attempts):
            self.thread = RayThread()
            try:
                self.thread.call(self._join if cluster.address else self._start)
                return
            except PseudorisError:
                self.close()
                raise
            except Exception as error:  # Ray raises bare ones
                self.close()
                if attempt + 1 == attempts or stopper.requested:
                    raise EnvironmentStop(f"Ray could not be started or reached: {str(error).strip()}") from error
            except BaseException:
                self.close()
                raise

    def _join(self) -> None:
        _check_reachable(str(self.cluster.address))
        self.ray.init(address=self.cluster.address, log_to_driver=False, logging_level="ERROR")

    def _start(self) -> None:
        """A Ray of our own: it dies with this process, even of SIGKILL."""
        base = tempfile.gettempdir()
        base = base if len(base) < LONGEST_FOLDER - 22 else "/tmp"
        _remove_stale(Path(base))
        self.folder = Path(tempfile.mkdtemp(prefix=FOLDER, dir=base))
        self.lock = _lock_folder(self.folder)
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
        self.thread.call(self.ray.shutdown)
        self.thread.close()
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)
            os.close(self.lock)
            self.folder = None


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise MissingDependency(
            "several workers need Ray, which is not installed; get it with:  pip install 'pseudoris[ray]'"
        ) from error
    return ray


def _lock_folder(folder: Path) -> int:
    """Hold a lock in the folder for as long as this process lives."""
    descriptor = os.open(folder / "claim", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.replace(folder / "claim", folder / LOCK)  # nobody may see it before it is locked
    return descriptor


def _remove_stale(base: Path) -> None:
    """Remove the folders of Rays whose driver was killed and could not do it."""
    for claim in base.glob(f"{FOLDER}*/{LOCK}"):
        with suppress(OSError), claim.open("r+") as file:  # still held, or somebody else's
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(claim.parent, ignore_errors=True)


def _check_reachable(address: str) -> None:
    """UsageError unless something listens there: Ray itself would go on trying, loudly, for most of a minute."""
    from ray._private.services import canonicalize_bootstrap_address

    advice = "give --ray-address HOST:PORT as `ray start --head` printed it, or `auto` on a machine of the cluster"
    if "://" in address:
        raise UsageError(f"--ray-address {address}: that is the address of a Ray client; {advice}")
    try:
        found = canonicalize_bootstrap_address(address)  # for `auto` what Ray has found
        host, _, port = str(found).rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), REACH_SECONDS).close()
    except (OSError, ValueError) as error:  # a ConnectionError of Ray's, too
        raise UsageError(f"no Ray cluster at --ray-address {address} ({str(error).strip()}); {advice}") from error


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
