"""Is this machine fit to run? Each question is a check with its answer and, where it is not good, the next step."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel

from pseudoris_cli.errors import PseudorisError
from pseudoris_cli.execution.devices import DeviceRequest
from pseudoris_cli.settings.models import Settings
from pseudoris_cli.storage import trial
from pseudoris_cli.weights import model_folders
from pseudoris_cli.weights import registry as weights

if TYPE_CHECKING:
    from pseudoris_cli.endpoint.settings import EndpointSettings

Status = Literal["ok", "warn", "fail"]

_LITTLE_ROOM = 5e9
_FEW_FILES = 1024


@dataclass(frozen=True, slots=True)
class Check:
    """One answer. `fail` means that a run with these settings cannot work; `next_step` is a command or an action."""

    name: str
    status: Status
    detail: str
    next_step: str = ""


def examine(
    settings: Settings, work: Path, request: DeviceRequest | None = None, out: Path | None = None
) -> list[Check]:
    """All checks for a run with `settings` in `work`, exported to `out`, on the requested device. Creates nothing that stays."""
    questions: list[Callable[[], Iterator[Check]]] = [
        _check_python,
        _check_torch,
        lambda: _check_device(settings, request or DeviceRequest()),
        lambda: _check_checkpoints(settings),
        lambda: _check_pipeline(settings),
        lambda: _check_packages(settings),
        lambda: _check_folder("--work", work, ("rename", "append", "sync", "lock")),
        *([lambda: _check_folder("--out", out, ("rename", "sync"))] if out else []),
        _check_limits,
    ]
    if settings.captions.RUNS_ELSEWHERE or settings.filter.judge.RUNS_ELSEWHERE:
        questions.append(lambda: iter(examine_endpoint(settings)))
    return [check for question in questions for check in question()]


def examine_endpoint(settings: Settings, endpoint: str | None = None) -> list[Check]:
    """What a server can do and what the backends will use of it: the server at `endpoint`, else those of the settings."""
    from pseudoris_cli.backends.vlm import Settings as VlmSettings
    from pseudoris_cli.endpoint.settings import EndpointSettings

    sections = {"captions": settings.captions, "filter.judge": settings.filter.judge}
    asked = {name: section for name, section in sections.items() if isinstance(section, EndpointSettings)}
    if endpoint:
        name, section = next(iter(asked.items()), ("captions", VlmSettings()))
        return _examine_server(name, section.model_copy(update={"endpoint": endpoint}), "--endpoint")
    found, servers = [], set()
    for name, section in asked.items():
        server = (section.endpoint, section.model, section.api_key_env)
        found += [] if server in servers else _examine_server(name, section)
        servers.add(server)
    return found


def _examine_server(section: str, settings: EndpointSettings, origin: str | None = None) -> list[Check]:
    from pseudoris_cli.endpoint.address import Address
    from pseudoris_cli.endpoint.client import Client
    from pseudoris_cli.endpoint.examination import examine as examine_server

    try:
        address = Address.of(settings.endpoint, settings.api_key_env, section, origin)
        client = Client(address, settings.timeout, 1, settings.concurrency)
    except PseudorisError as error:
        return [Check("endpoint", "fail", str(error), "name the server with --endpoint http://HOST:PORT/v1")]
    mode = getattr(settings, "mode", "auto")
    found = examine_server(client, settings.model, mode)
    return [Check(one.name, one.status, one.detail, one.next_step) for one in found]


def _check_python() -> Iterator[Check]:
    yield Check("python", "ok", f"{platform.python_version()} on {platform.platform()}")


def _check_torch() -> Iterator[Check]:
    """torchvision carries compiled operators for one version of torch; a mismatch shows only when they are called."""
    try:
        import torch
        import torchvision
    except (ImportError, OSError, RuntimeError) as error:
        yield Check("torch", "fail", f"cannot be imported: {error}", _MATCHING)
        return
    detail = f"torch {torch.__version__}, torchvision {torchvision.__version__}"
    try:
        torch.ops.torchvision.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except (AttributeError, RuntimeError) as error:
        yield Check("torch", "fail", f"{detail} do not fit together: {str(error).splitlines()[0]}", _MATCHING)
    else:
        yield Check("torch", "ok", detail)


_MATCHING = "install torch and torchvision together, from the same index, so that their versions match"


def _check_device(settings: Settings, request: DeviceRequest) -> Iterator[Check]:
    try:
        import torch
    except (ImportError, OSError):
        return
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        yield Check(f"cuda:{index}", "ok", f"{name}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free")
    if torch.backends.mps.is_available():
        yield Check("mps", "ok", "Apple GPU")
    try:
        device = request.resolve()
    except PseudorisError as error:
        yield Check("device", "fail", str(error), "choose a device that is listed, or --device cpu")
        return
    if device == "cpu":
        detail = f"cpu ({torch.get_num_threads()} threads)"
        yield Check("device", "warn", detail, "a GPU is far faster; the demo and small trials run well without")
    else:
        yield Check("device", "ok", device)
    yield _check_numerics(settings, device)
    yield from _check_memory(settings, device)


def _check_numerics(settings: Settings, device: str) -> Check:
    import torch

    numerics = settings.numerics
    detail = (
        f"{numerics.precision}, TF32 {'on' if numerics.tf32 else 'off'}, compile {'on' if numerics.compile else 'off'}"
    )
    if numerics.precision == "bf16" and device.startswith("cuda") and not torch.cuda.is_bf16_supported():
        return Check("numerics", "warn", f"{detail}; {device} only emulates bf16", "--set numerics.precision=fp16")
    if numerics.precision != "fp32" and device == "cpu":
        return Check("numerics", "warn", f"{detail}; slow on a CPU", "--set numerics.precision=fp32")
    return Check("numerics", "ok", detail)


def _check_memory(settings: Settings, device: str) -> Iterator[Check]:
    """Whether each stage's networks fit on the device, by formula, and how far the settings that bound memory could go."""
    from pseudoris_cli.doctor.memory_plan import plan

    available = _memory_of(device)
    try:
        stages = list(plan(settings, not device.startswith("cpu"), available))
    except PseudorisError as error:
        yield Check("memory", "warn", str(error).splitlines()[0], "a model of this name is not known")
        return
    for one in stages:
        if one.unknown:
            yield Check(f"memory: {one.stage}", "ok", f"not known of {', '.join(one.unknown)}")
            continue
        need = one.need
        detail = (
            f"{need.total / 1e9:.1f} of {available / 1e9:.1f} GB: weights {need.weights / 1e9:.2f}, activations "
            f"{need.activations / 1e9:.2f}, caches {need.caches / 1e9:.2f}"
        )
        most = ", ".join(f"{name} {number}" for name, number in one.fitting.items())
        if need.total > available:
            smaller = [f"--set {name}={number}" for name, number in one.fitting.items() if number]
            step = f"by itself one of these would fit: {', '.join(smaller)}" if smaller else _SMALLER
            yield Check(f"memory: {one.stage}", "warn", detail, step)
        else:
            yield Check(f"memory: {one.stage}", "ok", f"{detail}; each alone could be up to: {most}")


_SMALLER = "--set numerics.precision=bf16, a smaller model, or a device with more memory"


def _memory_of(device: str) -> float:
    """Bytes of the device; of the machine for a CPU, and for a device that shares its memory."""
    import torch

    if device.startswith("cuda"):
        return float(torch.cuda.mem_get_info(device)[1])
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _check_checkpoints(settings: Settings) -> Iterator[Check]:
    """Whether each checkpoint that the settings name is here; no digest is computed (`weights verify` does that)."""
    for name, section in _sections(settings):
        folder_setting = getattr(section, "MODEL_FOLDER", None)
        value = getattr(section, folder_setting or "checkpoint", None)
        if not isinstance(value, str):
            continue
        title, model = f"{name}.{folder_setting or 'checkpoint'}", getattr(section, "model", "")
        try:
            if folder_setting and not value.startswith("random:"):
                folder = model_folders.locate(value, title)
                stored = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
                yield Check(title, "ok", f"{value}: {folder}, {stored / 1e9:.1f} GB of weights as stored")
                continue
            found = weights.find(value, model)
        except PseudorisError as error:
            problem, *steps = str(error).splitlines()
            yield Check(title, "fail", problem, steps[0] if steps else "")
            continue
        if found.path is None:
            yield Check(title, "warn", f"{value}: random weights", "for real results name a checkpoint")
        else:
            yield Check(title, "ok", f"{value}: {found.path}")


def _check_pipeline(settings: Settings) -> Iterator[Check]:
    for name, section in _sections(settings):
        value = getattr(section, "pipeline", None)
        if not isinstance(value, str):
            continue
        title = f"{name}.pipeline"
        if value == "blank":
            yield Check(
                title,
                "warn",
                "blank: no parser, the noun of a caption is the caption",
                "for real results name a pipeline",
            )
        elif value == "demo" or Path(value).is_dir() or weights.pipeline_folder(value):
            yield Check(title, "ok", str(weights.pipeline_folder(value) or value))
        elif value.isidentifier() and importlib.util.find_spec(value):
            yield Check(title, "ok", f"{value} {_version(value)}, installed")
        else:
            known = value in weights.registry()
            step = f"pseudoris weights fetch {value}" if known else f"python -m spacy download {value}"
            yield Check(title, "fail", f"the spaCy pipeline {value!r} is not on this machine", f"get it with:  {step}")


def _sections(model: BaseModel, prefix: str = "") -> Iterator[tuple[str, BaseModel]]:
    """Every group of settings with its dotted name."""
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield f"{prefix}{name}", value
            yield from _sections(value, f"{prefix}{name}.")


def _check_packages(settings: Settings) -> Iterator[Check]:
    if importlib.util.find_spec("ray"):
        yield Check("ray", "ok", f"{_version('ray')}: several GPUs or machines can be used")
    else:
        yield Check(
            "ray", "warn", "not installed: one process only", "for --gpu 0,1 or --workers: pip install 'pseudoris[ray]'"
        )
    wanted = any(getattr(section, "backend", "") == "detectron2" for _, section in _sections(settings))
    if importlib.util.find_spec("detectron2"):
        yield Check("detectron2", "ok", _version("detectron2"))
    elif wanted:
        step = "use masks.proposals.backend=cascade_rcnn, or build it as third_party/README.md says"
        yield Check("detectron2", "fail", "not installed, but masks.proposals.backend asks for it", step)
    else:
        yield Check("detectron2", "ok", "not installed, not needed")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(version unknown)"


def _check_folder(flag: str, folder: Path, needs: tuple[str, ...]) -> Iterator[Check]:
    """Room, and what the file system can do, tried in a folder or, before it exists, in the folder to hold it."""
    title = "" if flag == "--work" else f"{flag.removeprefix('--')}: "
    try:
        place = trial.nearest_folder(folder)
        found = list(trial.abilities(folder))
        free = shutil.disk_usage(place).free
    except OSError as error:
        why = f"cannot write in {error.filename or folder}: {error.strerror}"
        yield Check(f"{title}write", "fail", why, f"choose another {flag} directory")
        return
    if free < _LITTLE_ROOM:
        yield Check(
            f"{title}disk", "warn", f"{free / 1e9:.1f} GB free in {place}", f"make room, or choose another {flag}"
        )
    else:
        yield Check(f"{title}disk", "ok", f"{free / 1e9:.1f} GB free in {place}")
    for one in (one for one in found if one.name in needs or one.name in _WITHOUT):
        name = f"{title}{_TITLES.get(one.name, one.name)}"
        if one.error is None:
            yield Check(name, "ok", f"{'flock' if one.name == 'lock' else one.name} works in {place}")
        elif one.name in needs:
            step = f"choose a {flag} directory on another file system, e.g. a local disk"
            yield Check(name, "fail", f"{one.reason} in {place}; needed, so that {one.needed_for}", step)
        else:
            step = _WITHOUT[one.name]
            yield Check(name, "warn", f"{one.reason} in {place}; needed for: {one.needed_for}", step)


_TITLES = {"lock": "locks", "link": "links", "sync": "fsync"}
_WITHOUT = {
    "link": "--images copy needs no links",
    "case": "images whose names differ in case only cannot be copied there",
}


def _check_limits() -> Iterator[Check]:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < _FEW_FILES:
        yield Check("open files", "warn", f"at most {soft}", f"ulimit -n {min(4096, hard) if hard > 0 else 4096}")
    else:
        yield Check("open files", "ok", f"at most {soft}" if soft >= 0 else "no limit")
    yield Check(
        "cpu", "ok", f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} cores"
    )
