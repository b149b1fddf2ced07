"""Which engine a run gets: how many processes, where they compute, with how many threads."""

from __future__ import annotations

from faceqan_toolkit.cores import set_threads, usable_cores, usable_memory
from faceqan_toolkit.engines.base import Engine
from faceqan_toolkit.settings import Settings

PHOTOS_A_WORKER = {"exact": 2, "fast": 8, "instant": 32}
"""Photos that take about as long as it takes to start a process for them."""

WORKER_BYTES = 1_500_000_000
"""Memory a process may come to need on a CPU: 1.35 GB with the built-in model, exact."""


def make_engine(settings: Settings, photos: int) -> Engine:
    """Return the engine for a run.

    On a CPU every process computes with one thread, the single one too: threads of one process
    wait for each other, and their number moves scores in the last digits, which the number of
    processes never does. On GPUs the cores are shared out.

    Args:
        settings: `device` and `workers` count.
        photos: to do.

    Raises:
        SettingsError: a device this machine does not have.
    """
    devices = worker_devices(settings, photos)
    threads = 1 if devices[0] == "cpu" else max(1, usable_cores() // len(devices))
    if len(devices) == 1:
        from faceqan_toolkit.engines.local import LocalEngine

        set_threads(threads)
        return LocalEngine()
    from faceqan_toolkit.engines.processes import ProcessEngine

    return ProcessEngine(devices, threads=threads)


def worker_devices(settings: Settings, photos: int) -> list[str]:
    """Return the device of each process, at least one.

    Unless their number is given: one a GPU; on a CPU one a core, if there is enough to do for
    them and memory.

    Raises:
        SettingsError: a device this machine does not have.
    """
    places = _places(settings.device)
    wanted = settings.workers
    if not wanted:
        wanted = len(places) if places[0] != "cpu" else _worth_while(settings, photos)
    number = max(1, min(wanted, photos))
    return [places[index % len(places)] for index in range(number)]


def _places(device: str) -> list[str]:
    """Return the devices a `--device` value means: every GPU, if it names none."""
    if device == "cpu":
        return ["cpu"]
    import torch

    from faceqan_toolkit.device import resolve_device

    found = str(resolve_device(device))
    if found == "cuda":
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return [found]


def _worth_while(settings: Settings, photos: int) -> int:
    """Return how many processes pay on a CPU."""
    attacked = "quality" in settings.stages and settings.method == "faceqan"
    share = PHOTOS_A_WORKER[settings.preset if attacked else "instant"]
    memory = usable_memory()
    most = usable_cores() if memory is None else min(usable_cores(), memory // WORKER_BYTES)
    return min(most, photos // share)
