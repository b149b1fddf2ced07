"""The choice of an engine, and of the number and devices of its workers."""

from __future__ import annotations

from itertools import cycle, islice

from faceqan_toolkit.engines.base import Engine, InlineEngine
from faceqan_toolkit.engines.processes import ProcessEngine, worker_bytes
from faceqan_toolkit.hardware import may_have_gpu, resolve_device, usable_cores, usable_memory
from faceqan_toolkit.settings import Settings

PHOTOS_A_WORKER = {"exact": 2, "fast": 8, "instant": 32}
"""Photos that take about as long as starting a process does, by preset."""


def make_engine(settings: Settings, photos: int, weights_sha256: str = "") -> Engine:
    """Return the engine for a run.

    Engine "local" starts processes, even for a single worker, so that a photo that ends one does
    not end the run. Each computes with one thread: threads of one process wait for each other, and
    their number changes the last digits of scores, which the number of processes never does. Where
    a GPU scores, the cores are shared among threads that prepare photos for it.

    Args:
        settings: `engine`, `device` and `workers` count.
        photos: number of photos to process.
        weights_sha256: checksum that the recognition model must have in every process; "" accepts
            any.

    Raises:
        SettingsError: a device this machine does not have.
        WeightsError: the recognition model is missing.
        MissingDependency: engine "ray", and the extra `ray` is not installed.
    """
    if settings.engine == "ray":
        from faceqan_toolkit.engines.ray import RayEngine

        return RayEngine(photos, weights_sha256=weights_sha256)
    if settings.engine == "inline":
        return InlineEngine(weights_sha256=weights_sha256)
    devices = worker_devices(settings, photos)
    cores = usable_cores() // len(devices)
    # one core is for the thread that keeps the GPU busy
    preparers = 1 if devices[0] == "cpu" else max(1, cores - 1)
    return ProcessEngine(devices, preparers=preparers, weights_sha256=weights_sha256)


def worker_devices(settings: Settings, photos: int) -> list[str]:
    """Return the device of each process, at least one.

    `settings.workers` is their number. None: one a GPU; on a CPU one a core, as far as there are
    enough photos and memory. Errors are those of `make_engine`.
    """
    places = _places(settings.device)
    on_cpu = places[0] == "cpu"
    wanted = settings.workers or (_worth_while(settings, photos) if on_cpu else len(places))
    return list(islice(cycle(places), max(1, min(wanted, photos))))


def _places(device: str) -> list[str]:
    """Return the devices a `--device` value means: every GPU, if it names none."""
    if device == "cpu" or (device == "auto" and not may_have_gpu()):
        return ["cpu"]
    import torch

    found = str(resolve_device(device))
    if found == "cuda":
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return [found]


def _worth_while(settings: Settings, photos: int) -> int:
    """Return how many processes pay off on a CPU."""
    attacked = "quality" in settings.stages and settings.method == "faceqan"
    each = PHOTOS_A_WORKER[settings.preset if attacked else "instant"]
    wanted, memory = min(usable_cores(), photos // each), usable_memory()
    if wanted < 2 or memory is None:
        return wanted
    return min(wanted, memory // worker_bytes(settings))
